//! `journal migrate`.

use serde_json::json;

use crate::program::run;
use crate::world::{World, shipped};

async fn schema(world: &World) -> i32 {
    let owner = world.postgres.connect("owner").await;
    owner.query_one("SELECT coalesce(max(version), 0) FROM schema_migration", &[]).await.unwrap().get(0)
}

async fn patient_exists(world: &World) -> bool {
    let owner = world.postgres.connect("owner").await;
    owner.query_one("SELECT to_regclass('patient') IS NOT NULL", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn an_empty_database_is_brought_to_what_the_release_needs() {
    let world = World::empty().await;

    let outcome = world.migrate(2).json();

    assert_eq!(outcome, json!({ "schema": 2, "needed": 2, "applied": [1, 2] }));
    assert!(patient_exists(&world).await);
}

#[tokio::test]
async fn the_second_release_applies_only_its_own_migration() {
    let world = World::of_release(1).await;

    let outcome = world.migrate(2).json();

    assert_eq!(outcome["applied"], json!([2]));
}

#[tokio::test]
async fn migrating_twice_does_nothing_the_second_time() {
    let world = World::of_release(2).await;

    let outcome = world.migrate(2).json();

    assert_eq!(outcome, json!({ "schema": 2, "needed": 2, "applied": [] }));
}

#[tokio::test]
async fn a_failing_migration_leaves_the_schema_before_it() {
    let world = World::of_release(2).await;

    let ended = world.migrate(3);

    assert!(ended.refusal().contains("failed to apply migration 0003_care_unit"), "{}", ended.stderr);
    assert!(ended.stderr.contains("release 3 is made to fail"), "{}", ended.stderr);
    assert_eq!(schema(&world).await, 2);
}

#[tokio::test]
async fn a_failing_migration_quotes_no_patient() {
    let world = World::of_release(2).await;
    let app = world.postgres.connect("app").await;
    app.batch_execute(
        "INSERT INTO patient (personnummer, name, created_by) VALUES ('189001019802', 'Tova', 'x')",
    )
    .await
    .unwrap();

    let ended = world.migrate(3);

    assert!(ended.refusal().contains("contains null values"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("189001019802"));
    assert_eq!(schema(&world).await, 2);
}

#[tokio::test]
async fn a_failing_migration_keeps_those_before_it() {
    let world = World::empty().await;

    world.migrate(3).refusal();

    assert_eq!(schema(&world).await, 2);
}

#[tokio::test]
async fn a_database_newer_than_the_release_is_left_alone() {
    let world = World::of_release(2).await;

    let ended = world.migrate(1);

    assert_eq!(ended.json(), json!({ "schema": 2, "needed": 1, "applied": [] }));
    assert!(ended.stderr.contains("the database is newer than the release"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_migration_that_was_changed_after_it_was_applied_is_refused() {
    let world = World::of_release(1).await;
    let changed = world.folder.path().join("release");
    std::fs::create_dir_all(changed.join("migrations")).unwrap();
    std::fs::write(changed.join("VERSION"), "1.0.1").unwrap();
    let file = "migrations/0001_journal.sql";
    let sql = std::fs::read_to_string(shipped(1).join(file)).unwrap();
    std::fs::write(changed.join(file), sql + "-- harmless\n").unwrap();

    let ended = run(&["migrate"], &world.migration(&changed));

    assert!(ended.refusal().contains("0001_journal was changed after it was applied"), "{}", ended.stderr);
}

#[tokio::test]
async fn two_processes_that_migrate_at_once_apply_each_migration_once() {
    let world = World::empty().await;
    let environment = world.migration(&shipped(2));

    let both: Vec<_> = std::thread::scope(|scope| {
        let runs = [(); 2].map(|()| scope.spawn(|| run(&["migrate"], &environment).json()));
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });

    let applied: Vec<_> = both.iter().flat_map(|outcome| outcome["applied"].as_array().unwrap()).collect();
    assert_eq!(applied.len(), 2, "{both:?}");
    assert_eq!(schema(&world).await, 2);
}

#[tokio::test]
async fn the_application_cannot_change_the_schema() {
    let world = World::of_release(2).await;
    let mut environment = world.migration(&shipped(3));
    environment.insert("DATABASE_URL", world.postgres.url("app"));

    let ended = run(&["migrate"], &environment);

    assert!(ended.refusal().contains("42501"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_database_elsewhere_is_not_reached_without_tls() {
    let world = World::empty().await;
    let mut environment = world.migration(&shipped(1));
    environment.insert("DATABASE_URL", String::from("postgres://owner:hemligt@192.0.2.7/journal"));

    let ended = run(&["migrate"], &environment);

    assert!(ended.refusal().contains("DATABASE_CA_FILE is needed"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("hemligt"));
}
