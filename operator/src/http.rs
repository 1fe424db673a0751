//! What the kubelet and Prometheus ask the operator over HTTP: is it alive, is it ready, what did it do.
//!
//! | path       | answers                                                                        |
//! |------------|--------------------------------------------------------------------------------|
//! | `/livez`   | 200, unless the runtime is stuck: then only a restart helps                    |
//! | `/readyz`  | 200 if the process does its part, as leader or as follower; why not, otherwise |
//! | `/metrics` | `OpenMetrics` text                                                             |
//!
//! Plain HTTP without authentication: nothing here is secret, and the network policy of the operator's
//! namespace says who may ask.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::{
    lease::{Leadership, Standing},
    metrics::{self, Metrics},
};

/// A heart that did not beat for this long is that of a stuck runtime. Six missed beats of `main.rs`.
pub const HEARTBEAT_LIMIT: Duration = Duration::from_secs(60);

/// A follower that did not read the Lease for this long cannot take over: as long as a Lease lasts.
pub const LEASE_READ_LIMIT: Duration = Duration::from_secs(15);

/// The server could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not ours.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The socket failed while it served.
    #[error("failed to serve health and metrics")]
    Serve(#[source] io::Error),
}

/// What the process knows of its own health. Whoever learns something tells it.
#[derive(Debug)]
pub struct Health {
    leadership: Leadership,
    last_beat: Mutex<Instant>,
    caches_synced: AtomicBool,
}

impl Health {
    /// The health of a process that has just started.
    pub fn new(leadership: Leadership) -> Self {
        Self { leadership, last_beat: Mutex::new(Instant::now()), caches_synced: AtomicBool::new(false) }
    }

    /// The runtime moves: called by a task of the runtime that runs the controllers, every few seconds.
    pub fn beat(&self) {
        *self.last_beat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// All watch caches of the controllers were filled once. A leader is ready from then on.
    pub fn caches_synced(&self) {
        self.caches_synced.store(true, Ordering::Relaxed);
    }

    fn alive(&self, now: Instant) -> Result<(), Stuck> {
        let last_beat = *self.last_beat.lock().unwrap_or_else(PoisonError::into_inner);
        let silent_for = now.saturating_duration_since(last_beat);
        if silent_for > HEARTBEAT_LIMIT { Err(Stuck { silent_for }) } else { Ok(()) }
    }

    fn readiness(&self, now: Instant) -> Readiness {
        readiness(&self.leadership.standing(), self.caches_synced.load(Ordering::Relaxed).into(), now)
    }
}

/// The runtime does not move.
#[derive(Debug, PartialEq, Eq)]
struct Stuck {
    silent_for: Duration,
}

/// Whether the leader's watch caches are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caches {
    Synced,
    Syncing,
}

impl From<bool> for Caches {
    fn from(synced: bool) -> Self {
        if synced { Self::Synced } else { Self::Syncing }
    }
}

/// The body of `/readyz`.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Readiness {
    ready: bool,
    role: Role,
    /// What the answer is due to.
    message: &'static str,
    /// Whom a follower follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Role {
    Starting,
    Follower,
    Leader,
    Stopping,
}

fn readiness(standing: &Standing, caches: Caches, now: Instant) -> Readiness {
    let (ready, role, message) = match standing {
        Standing::Unknown => (false, Role::Starting, "the lease was not read yet"),
        Standing::Following { read_at, .. } if now.saturating_duration_since(*read_at) > LEASE_READ_LIMIT => {
            (false, Role::Follower, "the lease could not be read for a while")
        }
        Standing::Following { .. } => (true, Role::Follower, "following; the lease is readable"),
        Standing::Leading { until } if now >= *until => {
            (false, Role::Leader, "the lease could not be renewed in time")
        }
        Standing::Leading { .. } => match caches {
            Caches::Syncing => (false, Role::Leader, "the caches are being filled"),
            Caches::Synced => (true, Role::Leader, "leading; the caches are filled"),
        },
        Standing::Ended => (false, Role::Stopping, "the term as leader is over"),
    };
    let leader = match standing {
        Standing::Following { leader, .. } => leader.clone(),
        Standing::Unknown | Standing::Leading { .. } | Standing::Ended => None,
    };
    Readiness { ready, role, message, leader }
}

/// Listens on `address`.
///
/// # Errors
/// [`Error::Listen`].
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

/// Serves on `listener` until `stop` completes and the requests under way then are answered.
///
/// # Errors
/// [`Error::Serve`].
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    axum::serve(listener, router(health, metrics)).with_graceful_shutdown(stop).await.map_err(Error::Serve)
}

/// The pages.
pub fn router(health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    let health = Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).with_state(health);
    Router::new().route("/metrics", get(scrape)).with_state(metrics).merge(health)
}

async fn livez(State(health): State<Arc<Health>>) -> Response {
    match health.alive(Instant::now()) {
        Ok(()) => "ok\n".into_response(),
        Err(Stuck { silent_for }) => {
            let text = format!("the runtime has not moved for {} s\n", silent_for.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let readiness = health.readiness(Instant::now());
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::Request,
    };
    use serde_json::{Value, json};
    use tokio::sync::oneshot;
    use tower::ServiceExt;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn leader() -> (Arc<Health>, Arc<Metrics>) {
        let leadership = Leadership::lasting_until(Instant::now() + HOUR);
        (Arc::new(Health::new(leadership.clone())), Arc::new(Metrics::new(leadership)))
    }

    async fn ask(health: &Arc<Health>, metrics: &Arc<Metrics>, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router(health.clone(), metrics.clone()).oneshot(request).await.unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 1024 * 1024).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_leader_is_ready_once_its_caches_are_filled() {
        let (health, metrics) = leader();

        let (before, why_not) = ask(&health, &metrics, "/readyz").await;
        health.caches_synced();
        let (after, body) = ask(&health, &metrics, "/readyz").await;

        assert_eq!(before, StatusCode::SERVICE_UNAVAILABLE);
        assert!(why_not.contains("the caches are being filled"), "{why_not}");
        assert_eq!(after, StatusCode::OK);
        assert_eq!(
            serde_json::from_str::<Value>(&body).unwrap(),
            json!({ "ready": true, "role": "leader", "message": "leading; the caches are filled" })
        );
    }

    #[test]
    fn a_follower_is_ready_while_it_can_read_the_lease() {
        let read_at = Instant::now();
        let following = Standing::Following { leader: Some("valv-7d4".to_owned()), read_at };

        let fresh = readiness(&following, Caches::Syncing, read_at + Duration::from_secs(2));
        let stale = readiness(&following, Caches::Syncing, read_at + LEASE_READ_LIMIT + HOUR);

        assert!(fresh.ready);
        assert_eq!(fresh.leader.as_deref(), Some("valv-7d4"));
        assert!(!stale.ready);
    }

    #[test]
    fn who_may_not_write_though_it_leads_is_not_ready() {
        let now = Instant::now();

        for standing in [Standing::Unknown, Standing::Leading { until: now }, Standing::Ended] {
            assert!(!readiness(&standing, Caches::Synced, now).ready, "{standing:?}");
        }
    }

    #[test]
    fn a_heart_that_beats_is_alive_and_one_that_stopped_is_not() {
        let (health, _) = leader();
        let now = Instant::now();

        health.beat();

        assert_eq!(health.alive(now), Ok(()));
        assert!(health.alive(now + HEARTBEAT_LIMIT + HOUR).is_err());
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_text() {
        let (health, metrics) = leader();

        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let answer = router(health, metrics).oneshot(request).await.unwrap();

        assert_eq!(answer.headers()[CONTENT_TYPE], metrics::CONTENT_TYPE);
    }

    #[tokio::test]
    async fn the_server_ends_when_it_is_asked_to() {
        let (health, metrics) = leader();
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, health, metrics, async { drop(stopped.await) }));

        tokio::net::TcpStream::connect(address).await.unwrap();
        stop.send(()).unwrap();

        tokio::time::timeout(Duration::from_secs(10), server).await.unwrap().unwrap().unwrap();
    }
}
