//! Contenders on an API server in memory that keeps Leases and enforces `resourceVersion`.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ::http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Client, client::Body};
use serde_json::Value;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::*;
use crate::fake_api::{self, refuse, respond};

/// A second is the shortest duration a Lease can state.
const FAST: Timing = Timing {
    duration: Duration::from_secs(1),
    renew_every: Duration::from_millis(100),
    renew_deadline: Duration::from_millis(400),
    retry: Duration::from_millis(80),
    request: Duration::from_millis(150),
    safety_margin: Duration::from_millis(300),
};

const PATIENCE: Duration = Duration::from_secs(10);

fn noon() -> Timestamp {
    static SECONDS: AtomicU64 = AtomicU64::new(0);
    let noon: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    noon + Duration::from_secs(SECONDS.fetch_add(1, Ordering::Relaxed))
}

/// It has a Lease that was released, as after a term that ended in order.
#[derive(Clone)]
struct FakeApiServer(Arc<Mutex<State>>);

impl Default for FakeApiServer {
    fn default() -> Self {
        let server = Self::without_lease();
        server.0.lock().unwrap().store(Lease::default());
        server
    }
}

#[derive(Default)]
struct State {
    lease: Option<Lease>,
    version: u64,
    writes: u64,
    answer: Answer,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Answer {
    #[default]
    Served,
    /// Writes are carried out, but nobody hears of it.
    WritesUnheard,
    Never,
    Unavailable,
}

impl FakeApiServer {
    /// As before the first installation.
    fn without_lease() -> Self {
        Self(Arc::default())
    }

    /// `kubectl delete lease`.
    fn delete_lease(&self) {
        self.0.lock().unwrap().lease = None;
    }

    fn contender(&self, identity: &str) -> Elector {
        Elector::new(self.client(), "valv-system", "valv-operator", identity, FAST, noon)
    }

    fn client(&self) -> Client {
        let server = self.clone();
        fake_api::client(move |request| {
            let server = server.clone();
            async move { server.serve(&request).await }
        })
    }

    fn answer(&self, answer: Answer) {
        self.0.lock().unwrap().answer = answer;
    }

    fn lease(&self) -> Lease {
        self.0.lock().unwrap().lease.clone().expect("somebody wrote a lease")
    }

    fn holder(&self) -> Option<String> {
        self.lease().spec.unwrap().holder_identity
    }

    fn writes(&self) -> u64 {
        self.0.lock().unwrap().writes
    }

    fn overwrite(&self, change: impl FnOnce(&mut Lease)) {
        let mut state = self.0.lock().unwrap();
        let mut lease = state.lease.clone().unwrap();
        change(&mut lease);
        state.store(lease);
    }

    async fn serve(&self, request: &Request<Value>) -> Response<Body> {
        let answer = self.0.lock().unwrap().answer;
        match answer {
            Answer::Unavailable => return refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            Answer::Never => std::future::pending().await,
            Answer::Served | Answer::WritesUnheard => {}
        }
        let response = self.0.lock().unwrap().handle(request.method(), request.body());
        if answer == Answer::WritesUnheard && request.method() != Method::GET {
            std::future::pending::<()>().await;
        }
        response
    }
}

impl State {
    fn handle(&mut self, method: &Method, body: &Value) -> Response<Body> {
        let stored = self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        match *method {
            Method::GET => match &self.lease {
                Some(lease) => respond(StatusCode::OK, &serde_json::to_value(lease).unwrap()),
                None => refuse(StatusCode::NOT_FOUND, "NotFound"),
            },
            Method::POST if stored.is_some() => refuse(StatusCode::CONFLICT, "AlreadyExists"),
            Method::POST | Method::PUT => {
                let lease: Lease = serde_json::from_value(body.clone()).unwrap();
                if lease.metadata.resource_version != stored {
                    return refuse(StatusCode::CONFLICT, "Conflict");
                }
                self.store(lease);
                respond(StatusCode::OK, &serde_json::to_value(&self.lease).unwrap())
            }
            _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn store(&mut self, mut lease: Lease) {
        self.version += 1;
        self.writes += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease);
    }
}

async fn work_until_stopped(stop: impl Future<Output = ()>) -> Result<(), Infallible> {
    stop.await;
    Ok(())
}

async fn leads(leadership: &Leadership) {
    timeout(PATIENCE, async {
        while leadership.check().is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it leads within the test's patience");
}

#[test]
fn the_fence_falls_before_anybody_may_take_over_and_after_the_leader_gives_up() {
    for timing in [Timing::default(), FAST] {
        assert!(timing.renew_every < timing.renew_deadline);
        assert!(timing.renew_deadline < timing.duration - timing.safety_margin);
    }
}

#[tokio::test]
async fn the_first_contender_leads_and_the_second_waits() {
    let server = FakeApiServer::default();
    let (mut first, mut second) = (server.contender("first"), server.contender("second"));
    let (first_may, second_may) = (first.leadership(), second.leadership());

    first.acquire().await;
    let second_tries = timeout(FAST.duration / 2, second.acquire()).await;

    assert!(second_tries.is_err());
    assert_eq!(first_may.check(), Ok(()));
    assert_eq!(second_may.check(), Err(NotLeader::Following));
    assert!(
        matches!(second_may.standing(), Standing::Following { leader: Some(leader), .. } if leader == "first")
    );
}

#[tokio::test]
async fn of_many_contenders_that_start_together_one_leads() {
    let server = FakeApiServer::default();
    let contenders: Vec<_> = (0..8).map(|n| server.contender(&format!("contender-{n}"))).collect();
    let rights: Vec<_> = contenders.iter().map(Elector::leadership).collect();

    let terms = contenders
        .into_iter()
        .map(|contender| tokio::spawn(lead(contender, std::future::pending(), PATIENCE, work_until_stopped)));
    let terms: Vec<_> = terms.collect();
    sleep(2 * FAST.duration).await;

    assert_eq!(rights.iter().filter(|right| right.check().is_ok()).count(), 1);
    terms.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_leader_that_was_killed_is_followed_after_the_lease_expired_and_not_before_its_fence_fell() {
    let server = FakeApiServer::default();
    let (mut killed, mut next) = (server.contender("killed"), server.contender("next"));
    let (killed_may, next_may) = (killed.leadership(), next.leadership());
    killed.acquire().await;
    let renewed = Instant::now();

    // It is never polled again: what SIGKILL and SIGSTOP have in common.
    timeout(PATIENCE, next.acquire()).await.unwrap();

    assert!(renewed.elapsed() >= FAST.duration - Duration::from_millis(50), "{:?}", renewed.elapsed());
    assert!(renewed.elapsed() < 2 * FAST.duration, "{:?}", renewed.elapsed());
    assert_eq!(next_may.check(), Ok(()));
    assert!(
        matches!(killed_may.check(), Err(NotLeader::NotRenewed { since }) if since >= FAST.safety_margin / 2)
    );
    assert_eq!(server.lease().spec.unwrap().lease_transitions, Some(1));
}

#[tokio::test]
async fn a_lease_that_somebody_deletes_is_no_earlier_taken_over_than_its_holders_fence_falls() {
    let server = FakeApiServer::default();
    let (mut leader, mut follower) = (server.contender("leader"), server.contender("follower"));
    let leader_may = leader.leadership();
    leader.acquire().await;
    let _ = timeout(FAST.retry, follower.acquire()).await;
    let deleted = Instant::now();

    // The leader stands still: it hears of nothing.
    server.delete_lease();
    timeout(PATIENCE, follower.acquire()).await.unwrap();

    assert!(deleted.elapsed() >= FAST.duration, "{:?}", deleted.elapsed());
    assert!(leader_may.check().is_err());
    assert_eq!(server.holder().as_deref(), Some("follower"));
}

#[tokio::test]
async fn the_first_of_all_waits_for_a_lease_that_may_have_been_deleted() {
    let server = FakeApiServer::without_lease();
    let begun = Instant::now();
    let mut first = server.contender("first");

    timeout(PATIENCE, first.acquire()).await.unwrap();

    assert!(begun.elapsed() >= FAST.duration, "{:?}", begun.elapsed());
    assert_eq!(server.holder().as_deref(), Some("first"));
}

#[tokio::test]
async fn a_leader_whose_lease_was_deleted_loses_at_its_next_renewal() {
    let server = FakeApiServer::default();
    let mut leader = server.contender("leader");
    leader.acquire().await;

    server.delete_lease();
    let lost = timeout(PATIENCE, leader.hold()).await.unwrap();

    assert_eq!(lost, Lost::TakenOver { by: None });
}

#[tokio::test]
async fn a_leader_that_wakes_after_it_was_frozen_gives_up_without_another_try() {
    let server = FakeApiServer::default();
    let mut frozen = server.contender("frozen");
    let may = frozen.leadership();
    frozen.acquire().await;
    let writes = server.writes();
    let mut held = std::pin::pin!(frozen.hold());
    assert!(timeout(Duration::ZERO, &mut held).await.is_err());

    std::thread::sleep(FAST.renew_deadline + FAST.renew_every);
    let lost = timeout(PATIENCE, held).await.unwrap();

    assert_eq!(lost, Lost::NotRenewed { for_at_least: FAST.renew_deadline });
    assert_eq!(may.check(), Err(NotLeader::Ended));
    assert_eq!(server.writes(), writes);
}

#[tokio::test]
async fn a_leader_that_renews_keeps_the_lease_and_its_right_to_write() {
    let server = FakeApiServer::default();
    let (mut leader, mut follower) = (server.contender("leader"), server.contender("follower"));
    let may = leader.leadership();
    leader.acquire().await;
    let acquired = server.lease().spec.unwrap().acquire_time;

    let outlived = tokio::select! {
        lost = leader.hold() => panic!("lost: {lost:?}"),
        () = follower.acquire() => panic!("the follower took over"),
        () = sleep(3 * FAST.duration) => may.check(),
    };

    assert_eq!(outlived, Ok(()));
    assert_eq!(server.lease().spec.unwrap().acquire_time, acquired);
    assert_eq!(server.lease().spec.unwrap().lease_transitions, Some(0));
}

#[tokio::test]
async fn a_follower_writes_nothing() {
    let server = FakeApiServer::default();
    let (mut leader, mut follower) = (server.contender("leader"), server.contender("follower"));
    leader.acquire().await;
    let writes = server.writes();

    let _ = timeout(FAST.duration / 2, follower.acquire()).await;

    assert_eq!(server.writes(), writes);
}

#[tokio::test]
async fn release_hands_over_at_once() {
    let server = FakeApiServer::default();
    let (mut leader, mut next) = (server.contender("leader"), server.contender("next"));
    let may = leader.leadership();
    leader.acquire().await;
    let waiting = tokio::spawn(async move {
        next.acquire().await;
        Instant::now()
    });
    sleep(FAST.retry).await;

    leader.release().await.unwrap();
    let released = Instant::now();
    let taken_over = timeout(PATIENCE, waiting).await.unwrap().unwrap();

    assert_eq!(may.check(), Err(NotLeader::Ended));
    assert!(taken_over - released < 2 * FAST.retry, "{:?}", taken_over - released);
    assert_eq!(server.holder().as_deref(), Some("next"));
}

#[tokio::test]
async fn a_follower_that_stops_leaves_the_leaders_lease_alone() {
    let server = FakeApiServer::default();
    let mut leader = server.contender("leader");
    leader.acquire().await;

    let end = lead(server.contender("follower"), sleep(FAST.retry), PATIENCE, work_until_stopped).await;

    assert!(matches!(end, End::Stopped));
    assert_eq!(server.holder().as_deref(), Some("leader"));
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_does_not_end_the_term() {
    let server = FakeApiServer::default();
    let mut leader = server.contender("leader");
    let may = leader.leadership();
    leader.acquire().await;
    let term = tokio::spawn(async move { leader.hold().await });

    server.answer(Answer::WritesUnheard);
    sleep(FAST.renew_every + FAST.request / 2).await;
    server.answer(Answer::Served);
    sleep(2 * FAST.duration).await;

    assert_eq!(may.check(), Ok(()));
    term.abort();
}

#[tokio::test]
async fn a_leader_without_an_api_server_gives_up_before_its_fence_falls() {
    for answer in [Answer::Never, Answer::Unavailable] {
        let server = FakeApiServer::default();
        let mut leader = server.contender("leader");
        let may = leader.leadership();
        leader.acquire().await;
        let renewed = Instant::now();

        server.answer(answer);
        let lost = timeout(PATIENCE, leader.hold()).await.unwrap();

        assert!(renewed.elapsed() < FAST.duration - FAST.safety_margin, "{:?}", renewed.elapsed());
        assert_eq!(lost, Lost::NotRenewed { for_at_least: FAST.renew_deadline });
        assert_eq!(may.check(), Err(NotLeader::Ended));
    }
}

#[tokio::test]
async fn a_leader_whose_lease_names_another_loses_at_its_next_renewal() {
    let server = FakeApiServer::default();
    let mut leader = server.contender("leader");
    let may = leader.leadership();
    leader.acquire().await;

    server.overwrite(|lease| {
        lease.spec.get_or_insert_default().holder_identity = Some("usurper".to_owned());
    });
    let lost = timeout(PATIENCE, leader.hold()).await.unwrap();
    timeout(PATIENCE, may.lost()).await.unwrap();

    assert_eq!(lost, Lost::TakenOver { by: Some("usurper".to_owned()) });
    assert_eq!(server.holder().as_deref(), Some("usurper"));
}

#[tokio::test]
async fn an_annotation_is_no_sign_of_life_of_a_dead_leader() {
    let server = FakeApiServer::default();
    let (mut dead, mut next) = (server.contender("dead"), server.contender("next"));
    dead.acquire().await;
    let renewed = Instant::now();
    let meddler = server.clone();
    let meddling = tokio::spawn(async move {
        loop {
            sleep(FAST.retry).await;
            meddler.overwrite(|lease| lease.metadata.annotations.get_or_insert_default().clear());
        }
    });

    timeout(PATIENCE, next.acquire()).await.unwrap();

    meddling.abort();
    assert!(renewed.elapsed() < 2 * FAST.duration, "{:?}", renewed.elapsed());
    assert_eq!(server.holder().as_deref(), Some("next"));
}

#[tokio::test]
async fn a_term_that_is_stopped_finishes_its_work_under_the_lease_and_then_frees_it() {
    let server = FakeApiServer::default();
    let leader = server.contender("leader");
    let may = leader.leadership();
    let still_may = may.clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let term =
        tokio::spawn(lead(leader, async { drop(stopped.await) }, PATIENCE, move |asked: Stop| async move {
            asked.await;
            sleep(2 * FAST.duration).await;
            still_may.check()
        }));
    leads(&may).await;

    stop.send(()).unwrap();
    let end = timeout(PATIENCE, term).await.unwrap().unwrap();

    assert!(matches!(end, End::Stopped), "{end:?}");
    assert_eq!(server.holder(), None);
    assert_eq!(may.check(), Err(NotLeader::Ended));
}

#[tokio::test]
async fn work_that_does_not_finish_in_time_leaves_the_lease_to_expire() {
    let server = FakeApiServer::default();
    let leader = server.contender("leader");

    let end: End<Infallible> =
        lead(leader, sleep(FAST.renew_every), FAST.renew_every, |_: Stop| std::future::pending()).await;

    assert!(matches!(end, End::StoppedUnfinished), "{end:?}");
    assert_eq!(server.holder().as_deref(), Some("leader"));
}

#[tokio::test]
async fn work_that_ends_unasked_ends_the_term_and_frees_the_lease() {
    let server = FakeApiServer::default();

    let end = lead(server.contender("leader"), std::future::pending(), PATIENCE, |_: Stop| async {
        Err::<(), _>("broken")
    })
    .await;

    assert!(matches!(end, End::WorkEnded(Err("broken"))), "{end:?}");
    assert_eq!(server.holder(), None);
}

#[tokio::test]
async fn lost_completes_when_the_fence_falls_even_if_nobody_says_so() {
    let fence = Instant::now() + Duration::from_millis(100);
    let leadership = Leadership::lasting_until(fence);
    assert_eq!(leadership.check(), Ok(()));

    timeout(PATIENCE, leadership.lost()).await.unwrap();

    assert!(Instant::now() >= fence);
    assert!(leadership.check().is_err());
}
