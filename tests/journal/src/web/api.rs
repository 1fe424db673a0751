//! The API: JSON, for somebody who signed in.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::prelude::{BASE64_STANDARD, Engine};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::Journal;
use super::failure::Failure;
use super::identity::Caller;
use crate::access::{AccessEntry, PatientId};
use crate::attachments::{Attachment, AttachmentId};
use crate::notes::{Note, NoteId};
use crate::patients::{PAGE, Patient};

/// Patients in one answer, at most.
const PATIENTS_MAX: i64 = 1000;
/// Sent at once of an attachment.
const CHUNK_BYTES: usize = 64 * 1024;

type Server = State<Arc<Journal>>;
type Answer<T> = Result<Json<T>, Failure>;
type Sent<T> = Result<Json<T>, JsonRejection>;

pub fn router() -> Router<Arc<Journal>> {
    Router::new()
        .route("/patients", get(list).post(create_patient))
        .route("/patients/find", post(find))
        .route("/patients/{id}", get(patient))
        .route("/patients/{id}/notes", get(notes).post(write_note))
        .route("/notes/{id}/signature", post(sign_note))
        .route("/patients/{id}/attachments", get(attachments).post(attach))
        .route("/attachments/{id}", get(attachment))
        .route("/access-log", get(access_log))
        .fallback(async || Failure::NotFound)
}

/// Which patients: those after number `after`, at most `limit`.
#[derive(Deserialize)]
pub struct Page {
    #[serde(default)]
    pub after: PatientId,
    pub limit: Option<i64>,
}

async fn list(State(journal): Server, Caller(who): Caller, Query(page): Query<Page>) -> Answer<Value> {
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PATIENTS_MAX);
    let patients = journal.list(who, page.after, limit).await?;
    let full = i64::try_from(patients.len()).is_ok_and(|count| count == limit);
    let next = patients.last().filter(|_| full).map(|patient| patient.id);
    Ok(Json(json!({ "patients": patients, "next": next })))
}

#[derive(Deserialize)]
struct NewPatient {
    personnummer: String,
    name: String,
}

async fn create_patient(
    State(journal): Server,
    Caller(who): Caller,
    sent: Sent<NewPatient>,
) -> Result<(StatusCode, Json<Patient>), Failure> {
    let Json(new) = sent?;
    let patient = journal.create_patient(who, &new.personnummer, &new.name).await?;
    Ok((StatusCode::CREATED, Json(patient)))
}

#[derive(Deserialize)]
struct Wanted {
    personnummer: String,
}

/// A POST, so that the personnummer is in no URL.
async fn find(State(journal): Server, Caller(who): Caller, sent: Sent<Wanted>) -> Answer<Patient> {
    let Json(wanted) = sent?;
    journal.find(who, &wanted.personnummer).await.map(Json)
}

async fn patient(State(journal): Server, Caller(who): Caller, Path(id): Path<PatientId>) -> Answer<Patient> {
    journal.patient(who, id).await.map(Json)
}

async fn notes(State(journal): Server, Caller(who): Caller, Path(id): Path<PatientId>) -> Answer<Vec<Note>> {
    journal.notes(who, id).await.map(Json)
}

#[derive(Deserialize)]
struct NewNote {
    text: String,
}

async fn write_note(
    State(journal): Server,
    Caller(who): Caller,
    Path(patient): Path<PatientId>,
    sent: Sent<NewNote>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let Json(new) = sent?;
    let id = journal.write_note(who, patient, &new.text).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

async fn sign_note(
    State(journal): Server,
    Caller(who): Caller,
    Path(id): Path<NoteId>,
) -> Result<StatusCode, Failure> {
    journal.sign_note(who, id).await?;
    Ok(StatusCode::CREATED)
}

async fn attachments(
    State(journal): Server,
    Caller(who): Caller,
    Path(patient): Path<PatientId>,
) -> Answer<Vec<Attachment>> {
    journal.attachments(who, patient).await.map(Json)
}

#[derive(Deserialize)]
struct FileName {
    name: Option<String>,
}

/// The body is the file; its name is `?name=` or the header `X-File-Name`.
async fn attach(
    State(journal): Server,
    Caller(who): Caller,
    Path(patient): Path<PatientId>,
    Query(file): Query<FileName>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Attachment>), Failure> {
    let header = headers.get("x-file-name").and_then(|name| name.to_str().ok());
    let name = file.name.as_deref().or(header).unwrap_or_default();
    let attachment = journal.attach(who, patient, name, body.into_data_stream()).await?;
    Ok((StatusCode::CREATED, Json(attachment)))
}

async fn attachment(
    State(journal): Server,
    Caller(who): Caller,
    Path(id): Path<AttachmentId>,
) -> Result<Response, Failure> {
    let (attachment, file) = journal.attachment(who, id).await?;
    Ok(download(&attachment, file))
}

/// The bytes, always as a file to be saved: nothing in them is ever shown by this site.
pub fn download(attachment: &Attachment, file: File) -> Response {
    let name = utf8_percent_encode(&attachment.name, NON_ALPHANUMERIC);
    let disposition = format!("attachment; filename*=UTF-8''{name}");
    let mut response = Body::from_stream(ReaderStream::with_capacity(file, CHUNK_BYTES)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(attachment.size_bytes));
    let texts = [("content-disposition", disposition), ("repr-digest", digest_field(&attachment.sha256))];
    for (name, text) in texts {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
    response
}

/// As in RFC 9530: `sha-256=:<base64>:`.
fn digest_field(sha256: &str) -> String {
    let byte = |at: usize| sha256.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
    let bytes: Vec<u8> = (0..sha256.len()).step_by(2).filter_map(byte).collect();
    format!("sha-256=:{}:", BASE64_STANDARD.encode(bytes))
}

/// Whose log.
#[derive(Deserialize)]
pub struct LogOf {
    pub patient: Option<PatientId>,
}

async fn access_log(
    State(journal): Server,
    Caller(who): Caller,
    Query(of): Query<LogOf>,
) -> Answer<Vec<AccessEntry>> {
    journal.access_log(who, of.patient).await.map(Json)
}
