//! Why a request is not answered with what it asked for: as JSON, or as a page.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::json;

use super::html;
use crate::attachments::store::{KeepError, ReadError};
use crate::database::{QueryError, Remedy, Unavailable};
use crate::error::chain;
use crate::personnummer::PersonnummerError;

/// When to come back: a database pod's restart takes a few seconds.
const RETRY_AFTER_SECONDS: &str = "5";

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("sign in")]
    NotSignedIn,
    #[error("no account can sign in here")]
    NoAccounts,
    #[error("the request comes from another site")]
    AnotherSite,
    #[error("there is no such thing")]
    NotFound,
    #[error("{0}")]
    Personnummer(PersonnummerError),
    #[error("the personnummer has a patient already")]
    PatientExists,
    #[error("the note is signed already")]
    AlreadySigned,
    #[error("{field} is empty, too long, or has control characters")]
    Text { field: &'static str },
    #[error("failed to read the request's body: {0}")]
    Body(String),
    #[error("failed to connect")]
    Unavailable(Unavailable),
    #[error("failed to use the database")]
    Query(QueryError),
    #[error("failed to keep an attachment")]
    Keep(KeepError),
    #[error("failed to open an attachment")]
    Attachment(ReadError),
}

// An error of the database already says what was being done.
impl From<Unavailable> for Failure {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error)
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        Self::Query(error)
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        // serde's text may quote what was sent.
        Self::Body(rejection.status().to_string())
    }
}

impl Failure {
    /// The status, a code for programs, and a sentence for people.
    fn text(&self) -> (StatusCode, &'static str, &'static str) {
        const TRY_AGAIN: &str = "Journalen når inte databasen just nu. Försök igen om en stund.";
        match self {
            Self::NotSignedIn => (StatusCode::UNAUTHORIZED, "not_signed_in", "Logga in först."),
            Self::NoAccounts => {
                (StatusCode::FORBIDDEN, "no_accounts", "Det finns inget konto, så ingen kan logga in.")
            }
            Self::AnotherSite => {
                (StatusCode::FORBIDDEN, "another_site", "Begäran kom från en annan webbplats.")
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "Det finns inget här."),
            Self::Personnummer(PersonnummerError::Form) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "personnummer_form",
                "Ett personnummer skrivs med tolv siffror, som 18900101-9802.",
            ),
            Self::Personnummer(PersonnummerError::Check) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "personnummer_check",
                "Personnumret har ingen födelsedag, eller fel kontrollsiffra.",
            ),
            Self::Personnummer(PersonnummerError::NotATestNumber) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "not_a_test_personnummer",
                "Här tas bara testpersonnummer: födda 1890–1899 med födelsenummer 980–989.",
            ),
            Self::PatientExists => {
                (StatusCode::CONFLICT, "patient_exists", "Det finns redan en patient med det personnumret.")
            }
            Self::AlreadySigned => {
                (StatusCode::CONFLICT, "already_signed", "Anteckningen är redan signerad.")
            }
            Self::Text { .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "text",
                "Texten är tom eller för lång, eller har tecken som inte syns.",
            ),
            Self::Body(_) => (StatusCode::BAD_REQUEST, "body", "Formuläret gick inte att läsa."),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "database_unavailable", TRY_AGAIN),
            Self::Query(error) => match error.remedy {
                Remedy::TryAgain => (StatusCode::SERVICE_UNAVAILABLE, "database_unavailable", TRY_AGAIN),
                Remedy::Migrate => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "schema_too_old",
                    "Databasen är inte uppgraderad till den här versionen.",
                ),
                Remedy::Report => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Något gick fel."),
            },
            Self::Keep(KeepError::TooLarge) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "Filen är för stor.")
            }
            Self::Keep(KeepError::Receive { .. }) => {
                (StatusCode::BAD_REQUEST, "body", "Filen kom inte fram hel. Försök igen.")
            }
            Self::Keep(KeepError::Write { .. } | KeepError::Occupied { .. }) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "attachment_not_kept", "Filen gick inte att spara.")
            }
            Self::Attachment(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "attachment_damaged",
                "Bilagan saknas eller är skadad, och lämnas inte ut.",
            ),
        }
    }

    /// Logs what a person should know of, once: here, where the error ends.
    fn log(&self) {
        let error = match self {
            Self::Unavailable(error) => chain(error),
            Self::Query(error) => chain(error),
            Self::Keep(error) => chain(error),
            Self::Attachment(error) => chain(error),
            Self::NotSignedIn
            | Self::NoAccounts
            | Self::AnotherSite
            | Self::NotFound
            | Self::Personnummer(_)
            | Self::PatientExists
            | Self::AlreadySigned
            | Self::Text { .. }
            | Self::Body(_) => return,
        };
        if self.text().0 == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error, "failed to answer");
        } else {
            tracing::warn!(error, "refused a request");
        }
    }

    fn add_headers(&self, response: &mut Response) {
        let headers = response.headers_mut();
        match response_hint(self.text().0) {
            Some(Hint::ComeBack) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
            }
            Some(Hint::SignIn) => {
                let basic = HeaderValue::from_static(r#"Basic realm="journal", charset="UTF-8""#);
                headers.insert(header::WWW_AUTHENTICATE, basic);
            }
            None => {}
        }
    }
}

enum Hint {
    ComeBack,
    SignIn,
}

fn response_hint(status: StatusCode) -> Option<Hint> {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => Some(Hint::ComeBack),
        StatusCode::UNAUTHORIZED => Some(Hint::SignIn),
        _ => None,
    }
}

/// To a program: `{"error": code, "message": text}`.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.log();
        let (status, code, _) = self.text();
        let mut response =
            (status, Json(json!({ "error": code, "message": self.to_string() }))).into_response();
        self.add_headers(&mut response);
        response
    }
}

/// To a person: a page, or the way to sign in.
pub struct PageFailure(pub Failure);

impl<E: Into<Failure>> From<E> for PageFailure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for PageFailure {
    fn into_response(self) -> Response {
        let Self(failure) = self;
        failure.log();
        let (status, _, sentence) = failure.text();
        if status == StatusCode::UNAUTHORIZED {
            return Redirect::to("/sign-in").into_response();
        }
        let mut response = (status, html::failure(sentence)).into_response();
        failure.add_headers(&mut response);
        response
    }
}
