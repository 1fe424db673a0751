//! Patients, notes and the access log, through the API.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::program::Serving;
use crate::world::{ANNA, PASSWORD, PERSONNUMMER, Site, World};

const NOTE: &str = "Söker för hosta.\nStatus: gott <b>allmäntillstånd</b>.";

/// `(who, action, patient)` of the log, oldest first.
async fn log(world: &World) -> Vec<(String, String, Option<i64>)> {
    let owner = world.postgres.connect("owner").await;
    let rows = owner.query("SELECT who, action, patient_id FROM access_log ORDER BY id", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

fn by_anna(action: &str, patient: i64) -> (String, String, Option<i64>) {
    (ANNA.to_owned(), action.to_owned(), Some(patient))
}

#[tokio::test]
async fn a_note_is_read_as_it_was_written() {
    let world = World::of_release(1).await;
    let site = world.serve(1);
    let patient = site.create_patient().await;

    let (status, _) = site.post(&format!("/api/patients/{patient}/notes"), json!({ "text": NOTE })).await;
    let (_, notes) = site.get(&format!("/api/patients/{patient}/notes")).await;

    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(notes[0]["text"], NOTE);
    assert_eq!(notes[0]["written_by"], ANNA);
    assert_eq!(notes[0].get("signed_by"), None);
}

#[tokio::test]
async fn a_note_is_signed_once_from_the_second_release_on() {
    let world = World::of_release(2).await;
    let site = world.serve(2);
    let patient = site.create_patient().await;
    let notes = format!("/api/patients/{patient}/notes");
    let (_, note) = site.post(&notes, json!({ "text": NOTE })).await;
    let signature = format!("/api/notes/{}/signature", note["id"]);
    assert_eq!(site.get(&notes).await.1[0]["signed_by"], Value::Null);

    assert_eq!(site.post(&signature, json!({})).await.0, StatusCode::CREATED);

    assert_eq!(site.get(&notes).await.1[0]["signed_by"], ANNA);
    assert_eq!(site.post(&signature, json!({})).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn the_first_release_knows_no_signatures() {
    let world = World::of_release(2).await;
    let site = world.serve(1);

    assert_eq!(site.post("/api/notes/1/signature", json!({})).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn everything_done_to_a_patient_is_in_the_access_log() {
    let world = World::of_release(2).await;
    let site = world.serve(2);

    let patient = site.create_patient().await;
    site.get("/api/patients").await;
    site.post("/api/patients/find", json!({ "personnummer": "18900101-9802" })).await;
    site.get(&format!("/api/patients/{patient}")).await;
    let (_, note) = site.post(&format!("/api/patients/{patient}/notes"), json!({ "text": NOTE })).await;
    site.get(&format!("/api/patients/{patient}/notes")).await;
    site.post(&format!("/api/notes/{}/signature", note["id"]), json!({})).await;
    site.get(&format!("/api/patients/{patient}/attachments")).await;
    let (_, entries) = site.get(&format!("/api/access-log?patient={patient}")).await;

    let done = [
        "create_patient",
        "list_patients",
        "find_patient",
        "read_patient",
        "write_note",
        "read_notes",
        "sign_note",
        "list_attachments",
        "read_access_log",
    ];
    assert_eq!(log(&world).await, done.map(|action| by_anna(action, patient)));
    assert_eq!(entries.as_array().unwrap().len(), done.len());
    assert_eq!(entries[0]["action"], "read_access_log");
}

#[tokio::test]
async fn what_cannot_be_logged_does_not_happen() {
    let world = World::of_release(1).await;
    let site = world.serve(1);
    let patient = site.create_patient().await;
    let owner = world.postgres.connect("owner").await;
    owner.batch_execute("REVOKE INSERT ON access_log FROM app").await.unwrap();

    let (written, _) = site.post(&format!("/api/patients/{patient}/notes"), json!({ "text": NOTE })).await;
    let (read, body) = site.get(&format!("/api/patients/{patient}")).await;

    assert_eq!(written, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(read, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!body.to_string().contains("Tova"));
    let notes: i64 = owner.query_one("SELECT count(*) FROM note", &[]).await.unwrap().get(0);
    assert_eq!(notes, 0);
}

#[tokio::test]
async fn the_application_cannot_change_what_was_written() {
    let world = World::of_release(2).await;
    let site = world.serve(2);
    let patient = site.create_patient().await;
    site.post(&format!("/api/patients/{patient}/notes"), json!({ "text": NOTE })).await;
    let app = world.postgres.connect("app").await;

    for sql in
        ["UPDATE note SET text = 'x'", "DELETE FROM note", "DELETE FROM access_log", "DELETE FROM attachment"]
    {
        let refusal = app.batch_execute(sql).await.unwrap_err();
        assert!(refusal.as_db_error().unwrap().message().contains("is append-only"), "{sql}: {refusal}");
    }
}

#[tokio::test]
async fn a_personnummer_that_is_no_test_number_is_refused() {
    let world = World::of_release(1).await;
    let site = world.serve(1);

    let new = json!({ "personnummer": "19640823-3234", "name": "Tova Testsson" });
    let (status, refusal) = site.post("/api/patients", new).await;

    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refusal["error"], "not_a_test_personnummer");
}

#[tokio::test]
async fn a_personnummer_has_one_patient() {
    let world = World::of_release(1).await;
    let site = world.serve(1);
    site.create_patient().await;

    let again = json!({ "personnummer": PERSONNUMMER, "name": "Någon Annan" });
    let (status, refusal) = site.post("/api/patients", again).await;

    assert_eq!((status, &refusal["error"]), (StatusCode::CONFLICT, &json!("patient_exists")));
}

#[tokio::test]
async fn there_is_nothing_of_a_patient_who_does_not_exist() {
    let world = World::of_release(2).await;
    let site = world.serve(2);

    for path in
        ["/api/patients/7", "/api/patients/7/notes", "/api/patients/7/attachments", "/api/attachments/7"]
    {
        assert_eq!(site.get(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    let note = site.post("/api/patients/7/notes", json!({ "text": NOTE })).await;
    assert_eq!(note.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_long_list_is_read_in_pages() {
    let world = World::of_release(1).await;
    let site = world.serve(1);
    for personnummer in ["189001019802", "189001029819", "189001039800"] {
        site.post("/api/patients", json!({ "personnummer": personnummer, "name": "Tova" })).await;
    }

    let (_, first) = site.get("/api/patients?limit=2").await;
    let (_, second) = site.get(&format!("/api/patients?limit=2&after={}", first["next"])).await;

    assert_eq!(first["patients"].as_array().unwrap().len(), 2);
    assert_eq!(second["patients"][0]["personnummer"], "189001039800");
    assert_eq!(second["next"], Value::Null);
}

#[tokio::test]
async fn no_line_of_the_log_has_a_personnummer_a_note_or_a_password() {
    let world = World::of_release(2).await;
    let mut environment = world.service(2);
    environment.insert("RUST_LOG", String::from("trace,tokio_postgres=trace"));
    let site = Site::over_http(Serving::start(&environment));

    let patient = site.create_patient().await;
    site.create_patient_again().await;
    site.post("/api/patients", json!({ "personnummer": 189001019802_i64 })).await;
    site.post(&format!("/api/patients/{patient}/notes"), json!({ "text": NOTE })).await;
    site.post("/api/patients/find", json!({ "personnummer": PERSONNUMMER })).await;

    let log = site.serving.log();
    assert!(log.contains("/api/patients/{id}/notes"), "{log}");
    for secret in [PERSONNUMMER, "18900101-9802", "hosta", "Tova", PASSWORD, "hemligt"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

impl Site {
    async fn create_patient_again(&self) {
        let again = json!({ "personnummer": PERSONNUMMER, "name": "Tova Testsson" });
        assert_eq!(self.post("/api/patients", again).await.0, StatusCode::CONFLICT);
    }
}
