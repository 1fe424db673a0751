//! The way to a store past its breaker: one request, alone, when it was left alone for a while.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::breakers::Breakers;
use crate::io::bucket::{Bucket, breaker::Admission};

/// How long the one request may take.
const ONE_REQUEST: Duration = Duration::from_secs(20);

/// A key that nothing lies under. That nothing does is an answer.
const NOTHING: &str = "v1/is-anybody-there";

/// The store is left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store {store} failed too often, and is left alone until {until}")]
pub struct Held {
    /// Which store.
    pub store: String,
    /// When one may ask.
    pub until: Timestamp,
}

/// Lets who would ask `store` through, unless it is left alone. After the pause one request, as the identity of `bucket`,
/// decides for all: only when it is answered does anybody get through.
///
/// # Errors
/// If the store is left alone, or the one request failed.
pub async fn enter(
    breakers: &Breakers,
    store: &str,
    bucket: &Bucket,
    now: fn() -> Timestamp,
) -> Result<(), Held> {
    let held = |until| Held { store: store.to_owned(), until };
    match breakers.admit(store, now()) {
        Admission::Go => return Ok(()),
        Admission::Wait { until } => return Err(held(until)),
        Admission::Try => {}
    }
    let ended = match timeout(ONE_REQUEST, bucket.head(NOTHING, None)).await {
        Ok(answer) => {
            let ended = now();
            breakers.note(store, &answer, ended);
            ended
        }
        Err(_) => {
            let ended = now();
            breakers.failed(store, ended);
            ended
        }
    };
    match breakers.admit(store, ended) {
        Admission::Go => Ok(()),
        Admission::Try => Err(held(ended)),
        Admission::Wait { until } => Err(held(until)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    };

    use axum::{Router, http::StatusCode};
    use futures::future::join_all;
    use tokio::net::TcpListener;
    use valv_crds::store;

    use super::*;
    use crate::{
        io::bucket::{Credentials, Settings},
        store::check::tests::store as helsinki,
    };

    /// A server that answers with `status`, and how often it was asked.
    async fn server(status: Arc<AtomicU16>) -> (Bucket, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            let status = StatusCode::from_u16(status.load(Ordering::SeqCst)).unwrap();
            async move { status }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        let credentials = Credentials { access_key_id: "r".into(), secret_access_key: "s".to_owned().into() };
        let settings = Settings { endpoint, ..helsinki().settings(credentials) };
        (Bucket::open(&settings).unwrap(), asked)
    }

    fn at_nine() -> Timestamp {
        "2026-11-22T09:00:00Z".parse().unwrap()
    }

    fn at_ten() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    /// Opened at nine, for a minute.
    fn opened() -> Breakers {
        let breakers = Breakers::default();
        breakers.heed("helsinki", store::Breaker { opens_after: 2, ..store::Breaker::default() }, at_nine());
        breakers.failed("helsinki", at_nine());
        breakers.failed("helsinki", at_nine());
        breakers
    }

    #[tokio::test]
    async fn after_the_pause_one_request_of_all_who_wait_decides_for_all() {
        let (bucket, asked) = server(Arc::new(AtomicU16::new(404))).await;
        let breakers = opened();

        assert!(enter(&breakers, "helsinki", &bucket, at_nine).await.is_err());
        assert_eq!(asked.load(Ordering::SeqCst), 0, "left alone is left alone");
        let all = (0..8).map(|_| enter(&breakers, "helsinki", &bucket, at_ten));
        let through = join_all(all).await.iter().filter(|entered| entered.is_ok()).count();

        assert_eq!((through, asked.load(Ordering::SeqCst)), (1, 1));
        assert_eq!(enter(&breakers, "helsinki", &bucket, at_ten).await, Ok(()), "nothing there is an answer");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "closed, nobody asks whether it is");
    }

    #[tokio::test]
    async fn a_store_that_still_fails_is_left_alone_again_after_one_request() {
        let (bucket, asked) = server(Arc::new(AtomicU16::new(503))).await;
        let breakers = opened();

        let held = enter(&breakers, "helsinki", &bucket, at_ten).await.unwrap_err();

        assert_eq!(held.until, "2026-11-22T10:01:00Z".parse().unwrap());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert!(enter(&breakers, "helsinki", &bucket, at_ten).await.is_err());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
