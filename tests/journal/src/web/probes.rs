//! What the kubelet asks, without signing in.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::Journal;
use crate::health::{Readiness, readiness};

/// Logged at `debug`: the kubelet asks every few seconds.
pub const PATHS: [&str; 3] = ["/livez", "/readyz", "/version"];

pub fn router() -> Router<Arc<Journal>> {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).route("/version", get(version))
}

async fn livez() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

async fn readyz(State(journal): State<Arc<Journal>>) -> Response {
    let readiness = readiness(&journal.lifecycle, &journal.database, &journal.release).await;
    let status = match readiness {
        Readiness::Ready { .. } => StatusCode::OK,
        Readiness::SchemaTooOld { .. } | Readiness::DatabaseUnreachable | Readiness::Stopping => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    (status, Json(readiness)).into_response()
}

async fn version(State(journal): State<Arc<Journal>>) -> Json<Value> {
    Json(json!({ "version": journal.release.version, "needed_schema": journal.release.needed_schema() }))
}
