//! The `BackupStore` controller: check, observe, plan, apply, status.
//!
//! | to find | open |
//! |---|---|
//! | how its bucket is opened | `store/check.rs` |
//! | what it is asked | `store/probe.rs` |
//! | what the answers mean | `store/judge.rs` |
//! | when it is left alone | `store/breakers.rs`, and who asks first then in `store/gate.rs` |
//! | how many ask it at once | `store/lanes.rs`, and what goes on at each side by side in `store/errands.rs` |
//! | the signing key's public half in its bucket | `store/public_key.rs` |
//! | what is known of its product | `store/profile.rs` |

pub mod apply;
pub mod breakers;
pub mod check;
pub mod errands;
pub mod gate;
pub mod judge;
pub mod lanes;
pub mod memory;
pub mod observe;
pub mod plan;
pub mod probe;
pub mod profile;
pub mod public_key;
pub mod status;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    runtime::{controller::Action, events::Recorder, reflector},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, instrument, warn};
use valv_crds::{
    BackupStore,
    store::{BreakerState, SigningKeyStatus},
};

use self::{
    apply::Outcome,
    breakers::Breakers,
    check::Store,
    judge::{Egress, Ground, Known},
    memory::Memory,
    observe::Observed,
    plan::Probe,
};
use crate::{
    backoff::Backoff,
    controllers::GuardedStore,
    error::chain,
    io::{
        bucket::Bucket,
        cluster::{Applied, Cluster},
        events,
        kind::Kind,
    },
    metrics::{self, Metrics, StoreFigures},
    settings::Settings,
    signing::{self, Signing},
};

/// Stores that are probed at once.
pub const PROBES_AT_ONCE: usize = 4;

/// What every reconciliation shares.
pub struct Context {
    /// The cluster, to write to.
    pub cluster: Cluster,
    /// All stores: what each says of the signing key.
    pub stores: reflector::Store<GuardedStore>,
    /// The key that commits are signed with. Shared with all who sign.
    pub signing: Signing,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// Counts and durations.
    pub metrics: Arc<Metrics>,
    /// Tells people what changed.
    pub recorder: Recorder,
    /// What was seen of each store.
    pub memory: Memory,
    /// Whether each is asked at all. Shared with all who use stores.
    pub breakers: Breakers,
    /// Turns for probes.
    pub turns: Semaphore,
    /// Cancelled when this process is to end: a probe can take minutes, and the next leader begins anew.
    pub stop: CancellationToken,
    /// Waits after failures, by store.
    pub backoff: Backoff,
    /// The clock, so that a test can hold it.
    pub now: fn() -> Timestamp,
}

/// Why one reconciliation stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Secrets could not be read.
    #[error("failed to look at the store's Secrets")]
    Observe(#[source] crate::io::cluster::Error),
    /// The signing key could not be looked at, made or published.
    #[error("failed to look at the signing key")]
    Signing(#[source] signing::Error),
    /// What was found could not be told.
    #[error("failed to write the store's status")]
    Status(#[source] crate::io::cluster::Error),
}

/// Probes the store if it is time, says how it stands, and when to look again.
#[instrument(skip_all, fields(
    object.kind = "BackupStore",
    store.name = object.name_any(),
    store.generation = object.metadata.generation,
))]
pub async fn reconcile(object: Arc<BackupStore>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let result = steps(&check::check(object), &context).await;
    let outcome = match &result {
        Ok(_) => metrics::Outcome::Success,
        Err(_) => metrics::Outcome::Error,
    };
    context.metrics.reconciled("BackupStore", outcome, started.elapsed());
    result
}

/// Observe, plan, apply, status.
async fn steps(store: &Store, context: &Context) -> Result<Action, Error> {
    if store.object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let Context { cluster, settings, memory, breakers, turns, .. } = context;
    breakers.heed(&store.name, store.breaker, (context.now)());
    let namespace = &settings.operator_namespace;
    let signing = context.signing.look(cluster, namespace, &told(context)).await.map_err(Error::Signing)?;
    let mut observed = observe::observe(store, cluster, namespace, memory, breakers, signing)
        .await
        .map_err(Error::Observe)?;
    if let Some(left) = plan::left(store, &observed, (context.now)()) {
        info!(next = %left.next, "took over what the last probe saw: nothing was changed since");
        memory.note(&store.name, left.clone());
        observed.remembered = Some(left);
    }
    let plan = plan::plan(store, &observed, (context.now)());
    let known = plan::known(store, &observed);
    let wait = match plan.probe {
        Probe::No => {
            knock(store, &observed, context).await;
            tell(store, &observed, &known, context).await?;
            plan.look_again_after
        }
        // Said first, and probed when it stands: what is said after the probe is then said of the version that is seen.
        Probe::Anew if tell(store, &observed, &known, context).await? == Applied::Written => {
            Duration::from_secs(1)
        }
        Probe::Anew | Probe::Again => {
            let probing = apply::apply(store, &observed, memory, breakers, turns, context.now);
            let outcome = tokio::select! {
                outcome = probing => outcome,
                () = context.stop.cancelled() => return Ok(Action::await_change()),
            };
            after(store, &observed, known, outcome, context).await?
        }
    };
    context.backoff.succeeded(&store.name);
    Ok(Action::requeue(wait))
}

/// Asks a store that was left alone, when its pause is over, whether it answers again: with one request. What waits for
/// the store to be ready does not ask it.
async fn knock(store: &Store, observed: &Observed, context: &Context) {
    let is_closed = observed.breaker.state == BreakerState::Closed;
    let Some(credentials) = observed.credentials.as_ref().ok().filter(|_| !is_closed) else { return };
    // Settings that open no bucket are the probe's to tell of.
    let Ok(bucket) = Bucket::open(&store.settings(credentials.reader.clone())) else { return };
    match gate::enter(&context.breakers, &store.name, &bucket, context.now).await {
        Ok(()) => info!("the store answers again"),
        Err(held) => debug!(error = chain(&held), "the store is left alone"),
    }
}

/// The keys that the statuses of stores tell of.
fn told(context: &Context) -> Vec<SigningKeyStatus> {
    let stores = context.stores.state();
    let read = stores.iter().filter_map(|store| store.0.as_ref().ok());
    read.filter_map(|store| store.status.as_ref()?.signing_key.clone()).collect()
}

/// Says what came of a probe, and when to look again.
async fn after(
    store: &Store,
    observed: &Observed,
    known: Known,
    outcome: Option<Outcome>,
    context: &Context,
) -> Result<Duration, Error> {
    let now = (context.now)();
    let (known, next) = match outcome {
        Some(Outcome::Probed(remembered)) => {
            info!(
                failures = remembered.failures,
                troubles = remembered.findings.troubles.len(),
                extent = ?remembered.findings.extent,
                "probed the store"
            );
            (
                Known { findings: Some(remembered.findings), last_whole: remembered.last_whole },
                remembered.next,
            )
        }
        Some(Outcome::Held { until }) => (known, until),
        None => (known, now),
    };
    tell(store, observed, &known, context).await?;
    let wait = Duration::try_from(next - now).unwrap_or_default();
    Ok(wait.clamp(Duration::from_secs(1), Duration::from_secs(60)))
}

/// Writes the status, the metrics, and an event for each thing that changed.
async fn tell(
    store: &Store,
    observed: &Observed,
    known: &Known,
    context: &Context,
) -> Result<Applied, Error> {
    let breaker = context.breakers.status(&store.name);
    let is_open = breaker.state != BreakerState::Closed;
    let is_closed = context.settings.network.stores.is_empty();
    let ground = Ground {
        unresolved: observed.credentials.as_ref().err().cloned(),
        breaker,
        egress: if is_closed { Egress::Closed } else { Egress::Open },
        signing: observed.signing.clone(),
    };
    let status = status::status(store, known, ground, (context.now)());
    context.metrics.store(
        &store.name,
        StoreFigures {
            ready: i64::from(status::is_ready(&status)),
            breaker_open: i64::from(is_open),
            last_probe_seconds: status.last_probe.as_ref().map(|time| time.0.as_second()),
        },
    );
    match context.cluster.set_status(Kind::BackupStore, store.object.as_ref(), &status).await {
        Ok(Applied::Unchanged) => Ok(Applied::Unchanged),
        Ok(Applied::Written) => {
            let before = store.object.status.as_ref().map(|status| status.conditions.as_slice());
            let news = status::news(before.unwrap_or_default(), &status.conditions);
            events::publish(&context.recorder, &store.object.object_ref(&()), news).await;
            Ok(Applied::Written)
        }
        // A newer version is on its way here, and brings the next look with it.
        Err(error) if error.is_conflict() => {
            debug!("the store has moved on");
            Ok(Applied::Written)
        }
        Err(error) => Err(Error::Status(error)),
    }
}

/// Forgets all stores but those for which `is_there` says so.
pub fn forget(context: &Context, is_there: impl Fn(&str) -> bool) {
    context.memory.retain(&is_there);
    context.breakers.retain(&is_there);
    context.metrics.retain_stores(&is_there);
}

/// Errors end here: logged once, with all their causes, and turned into the next try.
pub fn error_policy(name: &str, error: &Error, context: &Context) -> Action {
    let wait = context.backoff.failed(name, rand::random());
    warn!(
        object.kind = "BackupStore",
        store.name = name,
        error = chain(error),
        wait_seconds = wait.as_secs_f64(),
        "failed to reconcile, trying again"
    );
    Action::requeue(wait)
}
