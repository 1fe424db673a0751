//! The pages for people, and the API.
//!
//! | path                | what                                     | file          |
//! |---------------------|------------------------------------------|---------------|
//! | `/`, `/patients` …  | pages, in Swedish, without JavaScript    | `pages.rs`, written by `html.rs` |
//! | `/api/…`            | JSON                                     | `api.rs`      |
//! | `/sign-in`          | the session                              | `sign_in.rs`  |
//! | `/livez`, `/readyz`, `/version` | for the kubelet              | `probes.rs`   |
//!
//! Pages and API do the same things: those of `acts.rs`.

mod acts;
mod api;
mod failure;
mod html;
mod identity;
mod pages;
mod probes;
mod sign_in;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use jiff::Timestamp;

use crate::accounts::Accounts;
use crate::attachments::store::AttachmentStore;
use crate::database::Database;
use crate::health::{Lifecycle, Phase};
use crate::release::Release;

/// Nothing but this server's own style sheet is loaded, and forms go nowhere else.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// All that requests need.
pub struct Journal {
    pub release: Release,
    pub database: Database,
    pub attachments: AttachmentStore,
    pub accounts: Accounts,
    pub lifecycle: Lifecycle,
    pub scheme: Scheme,
    /// The clock.
    pub now: fn() -> Timestamp,
}

/// How readers come here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// Everything that is served.
pub fn router(journal: Arc<Journal>) -> Router {
    Router::new()
        .merge(probes::router())
        .merge(sign_in::router())
        .merge(pages::router())
        .nest("/api", api::router())
        .fallback(pages::not_found)
        .layer(from_fn_with_state(Arc::clone(&journal), around))
        .with_state(journal)
}

/// Logs the request, without anything of a patient: of the path only the route is logged.
async fn around(State(journal): State<Arc<Journal>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let version = request.version();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());

    let mut response = next.run(request).await;

    harden(response.headers_mut(), journal.scheme);
    if journal.lifecycle.phase() == Phase::Stopping && version < Version::HTTP_2 {
        // The client's next request shall not meet a connection that is about to close.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let route = route.as_deref().unwrap_or("none");
    let (status, duration_ms) = (response.status().as_u16(), begun.elapsed().as_millis() as u64);
    if probes::PATHS.contains(&route) {
        tracing::debug!(http.method = %method, http.route = route, http.status = status, duration_ms, "answered");
    } else {
        tracing::info!(http.method = %method, http.route = route, http.status = status, duration_ms, "answered");
    }
    response
}

fn harden(headers: &mut HeaderMap, scheme: Scheme) {
    let always: [(HeaderName, &str); 6] = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in always {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if scheme == Scheme::Https {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
}
