//! The pages: what they show is in `html.rs`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Form, Multipart, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::Markup;
use serde::Deserialize;

use super::Journal;
use super::api::{LogOf, Page, download};
use super::failure::{Failure, PageFailure};
use super::html;
use super::identity::Reader;
use crate::access::PatientId;
use crate::attachments::AttachmentId;
use crate::notes::NoteId;
use crate::patients::PAGE;

const STYLE: &str = include_str!("style.css");

type Server = State<Arc<Journal>>;

pub fn router() -> Router<Arc<Journal>> {
    let upload = post(attach).layer(DefaultBodyLimit::disable());
    Router::new()
        .route("/", get(patients))
        .route("/style.css", get(style))
        .route("/patients", post(create_patient))
        .route("/find", post(find))
        .route("/patients/{id}", get(patient))
        .route("/patients/{id}/notes", post(write_note))
        .route("/patients/{id}/attachments", upload)
        .route("/notes/{id}/signature", post(sign_note))
        .route("/attachments/{id}", get(attachment))
        .route("/access-log", get(access_log))
}

pub async fn not_found() -> PageFailure {
    PageFailure(Failure::NotFound)
}

async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

async fn patients(
    State(journal): Server,
    Reader(who): Reader,
    Query(page): Query<Page>,
) -> Result<Markup, PageFailure> {
    let patients = journal.list(who.clone(), page.after, PAGE).await?;
    Ok(html::patients(&who, &patients, &journal.release))
}

#[derive(Deserialize)]
struct NewPatient {
    personnummer: String,
    name: String,
}

async fn create_patient(
    State(journal): Server,
    Reader(who): Reader,
    Form(new): Form<NewPatient>,
) -> Result<Redirect, PageFailure> {
    let patient = journal.create_patient(who, &new.personnummer, &new.name).await?;
    Ok(to_patient(patient.id))
}

#[derive(Deserialize)]
struct Wanted {
    personnummer: String,
}

async fn find(
    State(journal): Server,
    Reader(who): Reader,
    Form(wanted): Form<Wanted>,
) -> Result<Response, PageFailure> {
    match journal.find(who.clone(), &wanted.personnummer).await {
        Ok(patient) => Ok(to_patient(patient.id).into_response()),
        Err(Failure::NotFound) => {
            let sentence = "Det finns ingen patient med det personnumret.";
            Ok((StatusCode::NOT_FOUND, html::failure(sentence)).into_response())
        }
        Err(failure) => Err(PageFailure(failure)),
    }
}

async fn patient(
    State(journal): Server,
    Reader(who): Reader,
    Path(id): Path<PatientId>,
) -> Result<Markup, PageFailure> {
    let chart = journal.chart(who.clone(), id).await?;
    Ok(html::chart(&who, &chart, &journal.release))
}

#[derive(Deserialize)]
struct NewNote {
    text: String,
}

async fn write_note(
    State(journal): Server,
    Reader(who): Reader,
    Path(patient): Path<PatientId>,
    Form(new): Form<NewNote>,
) -> Result<Redirect, PageFailure> {
    journal.write_note(who, patient, &new.text).await?;
    Ok(to_patient(patient))
}

async fn sign_note(
    State(journal): Server,
    Reader(who): Reader,
    Path(id): Path<NoteId>,
) -> Result<Redirect, PageFailure> {
    Ok(to_patient(journal.sign_note(who, id).await?))
}

async fn attach(
    State(journal): Server,
    Reader(who): Reader,
    Path(patient): Path<PatientId>,
    mut form: Multipart,
) -> Result<Redirect, PageFailure> {
    let field = form.next_field().await.map_err(|error| Failure::Body(error.status().to_string()))?;
    let field = field.ok_or_else(|| Failure::Body(String::from("it has no file")))?;
    let name = field.file_name().unwrap_or_default().to_owned();
    journal.attach(who, patient, &name, field).await?;
    Ok(to_patient(patient))
}

async fn attachment(
    State(journal): Server,
    Reader(who): Reader,
    Path(id): Path<AttachmentId>,
) -> Result<Response, PageFailure> {
    let (attachment, file) = journal.attachment(who, id).await?;
    Ok(download(&attachment, file))
}

async fn access_log(
    State(journal): Server,
    Reader(who): Reader,
    Query(of): Query<LogOf>,
) -> Result<Markup, PageFailure> {
    let entries = journal.access_log(who.clone(), of.patient).await?;
    Ok(html::access_log(&who, of.patient, &entries, &journal.release))
}

fn to_patient(id: PatientId) -> Redirect {
    Redirect::to(&format!("/patients/{id}"))
}
