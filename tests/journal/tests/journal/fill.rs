//! `journal fill`.

use serde_json::Value;

use crate::program::{Ended, run};
use crate::world::World;

fn fill(world: &World, patients: &str, seed: &str) -> Ended {
    let arguments =
        ["--patients", patients, "--seed", seed, "--attachment-bytes", "5000", "--notes-per-patient", "3"];
    let arguments: Vec<_> = ["fill"].into_iter().chain(arguments).collect();
    let mut environment = world.service(2);
    environment.retain(|name, _| ["DATABASE_URL", "JOURNAL_ATTACHMENTS_DIR"].contains(name));
    run(&arguments, &environment)
}

/// All that was written, but for what the database numbers by itself.
async fn content(world: &World) -> String {
    const SQL: &str = "
        SELECT md5(string_agg(line, '|' ORDER BY line)) FROM (
            SELECT concat(personnummer, p.name, p.created_at, n.text, n.written_at, a.name, a.sha256) AS line
            FROM patient p JOIN note n ON n.patient_id = p.id JOIN attachment a ON a.patient_id = p.id
        ) AS everything";
    world.postgres.connect("owner").await.query_one(SQL, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn the_same_seed_writes_the_same() {
    let (one, other) = tokio::join!(World::of_release(1), World::of_release(2));

    let (first, second) = (fill(&one, "120", "7").json(), fill(&other, "120", "7").json());

    assert_eq!(first, second);
    assert_eq!(content(&one).await, content(&other).await);
}

#[tokio::test]
async fn another_seed_writes_something_else() {
    let (one, other) = tokio::join!(World::of_release(1), World::of_release(1));

    let (first, second) = (fill(&one, "20", "7").json(), fill(&other, "20", "8").json());

    assert_ne!(first["content_sha256"], second["content_sha256"]);
    assert_ne!(content(&one).await, content(&other).await);
}

#[tokio::test]
async fn as_much_is_written_as_was_asked_for() {
    let world = World::of_release(1).await;

    let said = fill(&world, "120", "7").json();

    assert_eq!((&said["created"], &said["notes"]), (&Value::from(120), &Value::from(360)));
    let owner = world.postgres.connect("owner").await;
    for (table, count) in [("patient", 120), ("note", 360), ("attachment", 120), ("access_log", 600)] {
        let counted: i64 =
            owner.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0);
        assert_eq!(counted, count, "{table}");
    }
}

#[tokio::test]
async fn filling_again_adds_only_what_is_missing() {
    let world = World::of_release(1).await;
    fill(&world, "20", "7").json();

    let said = fill(&world, "30", "7").json();

    assert_eq!((&said["created"], &said["already_there"]), (&Value::from(10), &Value::from(20)));
}

#[tokio::test]
async fn more_patients_than_test_numbers_are_refused() {
    let world = World::of_release(1).await;

    let ended = fill(&world, "40000", "7");

    assert!(
        ended.refusal().contains("40000 patients are more than the 36520 test personnummer"),
        "{}",
        ended.stderr
    );
}
