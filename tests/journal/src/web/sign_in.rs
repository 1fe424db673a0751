//! Signing in and out, on a page.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Router, response::AppendHeaders};
use serde::Deserialize;

use super::Journal;
use super::failure::{Failure, PageFailure};
use super::html;
use super::identity::{COOKIE, check_site};
use crate::accounts::{SESSION, SignIn};

/// The wait after a wrong password, so that guessing takes long.
const WRONG_PASSWORD_PAUSE: Duration = Duration::from_millis(500);

pub fn router() -> Router<Arc<Journal>> {
    Router::new().route("/sign-in", get(show).post(sign_in)).route("/sign-out", post(sign_out))
}

async fn show(State(journal): State<Arc<Journal>>) -> Response {
    html::sign_in(journal.accounts.sign_in(), None).into_response()
}

#[derive(Deserialize)]
struct Credentials {
    user: String,
    password: String,
}

async fn sign_in(
    State(journal): State<Arc<Journal>>,
    headers: HeaderMap,
    Form(credentials): Form<Credentials>,
) -> Result<Response, PageFailure> {
    check_site(&headers)?;
    if journal.accounts.sign_in() == SignIn::Closed {
        return Err(PageFailure(Failure::NoAccounts));
    }
    let user = journal.accounts.check(credentials.user.trim(), &credentials.password);
    let cookie = user.and_then(|user| journal.accounts.begin_session(&user, (journal.now)()));
    let Some(cookie) = cookie else {
        tokio::time::sleep(WRONG_PASSWORD_PAUSE).await;
        let page = html::sign_in(SignIn::Possible, Some("Fel HSA-id eller lösenord."));
        return Ok((StatusCode::FORBIDDEN, page).into_response());
    };
    Ok((set_cookie(&cookie, SESSION), Redirect::to("/")).into_response())
}

async fn sign_out(headers: HeaderMap) -> Result<Response, PageFailure> {
    check_site(&headers)?;
    Ok((set_cookie("", Duration::ZERO), Redirect::to("/sign-in")).into_response())
}

fn set_cookie(value: &str, lasts: Duration) -> AppendHeaders<[(header::HeaderName, String); 1]> {
    let seconds = lasts.as_secs();
    let cookie = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict");
    AppendHeaders([(header::SET_COOKIE, cookie)])
}
