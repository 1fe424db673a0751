//! Who asks: by HTTP Basic, or by the cookie of a session.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use base64::prelude::{BASE64_STANDARD, Engine};

use super::Journal;
use super::failure::{Failure, PageFailure};
use crate::accounts::{HsaId, SignIn};

/// `__Host-` makes the browser insist on Secure, on this host alone, and on the whole of it.
pub const COOKIE: &str = "__Host-journal";

/// Somebody who signed in, to the API.
pub struct Caller(pub HsaId);

/// Somebody who signed in, to the pages.
pub struct Reader(pub HsaId);

impl FromRequestParts<Arc<Journal>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, journal: &Arc<Journal>) -> Result<Self, Failure> {
        identify(parts, journal).map(Self)
    }
}

impl FromRequestParts<Arc<Journal>> for Reader {
    type Rejection = PageFailure;

    async fn from_request_parts(parts: &mut Parts, journal: &Arc<Journal>) -> Result<Self, PageFailure> {
        identify(parts, journal).map(Self).map_err(PageFailure)
    }
}

fn identify(parts: &Parts, journal: &Journal) -> Result<HsaId, Failure> {
    if journal.accounts.sign_in() == SignIn::Closed {
        return Err(Failure::NoAccounts);
    }
    if let Some((user, password)) = basic(&parts.headers) {
        return journal.accounts.check(&user, &password).ok_or(Failure::NotSignedIn);
    }
    let cookie = cookie(&parts.headers).ok_or(Failure::NotSignedIn)?;
    if parts.method != Method::GET && parts.method != Method::HEAD {
        check_site(&parts.headers)?;
    }
    journal.accounts.resume_session(cookie, (journal.now)()).ok_or(Failure::NotSignedIn)
}

/// Refuses what a page of another site made a browser send.
///
/// `SameSite=Strict` is not enough: the journals of two care providers may be two hosts of one site. A client that
/// is no browser sends neither header, and is let through.
pub fn check_site(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin")) {
        (Some("same-origin" | "none"), _) | (None, None) => Ok(()),
        (None, Some(origin)) if origin.split_once("://").map(|(_, host)| host) == text("host") => Ok(()),
        _ => Err(Failure::AnotherSite),
    }
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let credentials = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(BASE64_STANDARD.decode(credentials).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    (headers.get_all(header::COOKIE).iter())
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split("; "))
        .find_map(|pair| pair.strip_prefix(COOKIE)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(headers: &[(&'static str, &'static str)]) -> Result<(), Failure> {
        check_site(
            &headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect(),
        )
    }

    #[test]
    fn a_form_of_this_site_is_taken() {
        assert!(checked(&[("sec-fetch-site", "same-origin")]).is_ok());
        assert!(checked(&[("host", "ada.example"), ("origin", "https://ada.example")]).is_ok());
    }

    #[test]
    fn a_form_of_a_sibling_site_is_refused() {
        assert!(checked(&[("sec-fetch-site", "same-site")]).is_err());
        assert!(checked(&[("host", "ada.example"), ("origin", "https://eva.example")]).is_err());
        assert!(checked(&[("host", "ada.example"), ("origin", "null")]).is_err());
    }

    #[test]
    fn a_client_that_is_no_browser_is_let_through() {
        assert!(checked(&[("host", "ada.example")]).is_ok());
    }
}
