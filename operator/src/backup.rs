//! The `Backup` controller: check, observe, plan, apply, status.
//!
//! One object is one run. The agent's pod writes and the verifier's pod reads back, each with one identity of the
//! store; the operator believes neither before it has read the manifest itself, and then puts the commit. Nothing
//! is `Complete` before that commit was read back.
//!
//! What a crash leaves is taken up where it stands: what is decided, and what pods said, is written into the status
//! before it is acted on, and every name is made from the object's UID and the attempt's number, so the next look asks
//! for the same objects.
//!
//! | to find | open |
//! |---|---|
//! | what comes next | `backup/plan.rs` |
//! | how an attempt stands | `backup/attempt.rs`, and what is seen of a Job and its pod in `backup/sighting.rs` |
//! | what the pods get | `backup/objects.rs` |
//! | what is looked at in the archive, and committed | `backup/commission.rs`; whose the archive is in `backup/owner.rs` |
//! | how many run | `backup/ledger.rs` |
//! | what nobody owns any more | `backup/orphans.rs` |

pub mod apply;
pub mod attempt;
pub mod check;
pub mod claim;
pub mod commission;
pub mod credentials;
pub mod ledger;
pub mod names;
pub mod objects;
pub mod observe;
pub mod orphans;
pub mod others;
pub mod owner;
pub mod plain;
pub mod plan;
pub mod progress;
pub mod sighting;
pub mod status;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::{controller::Action, events::Recorder, reflector::Store},
};
use tokio::sync::OnceCell;
use tracing::{instrument, warn};
use valv_crds::Backup;

use self::{credentials::Known, ledger::Ledger, others::Others};
use crate::{
    backoff::Backoff,
    controllers::{Guarded, GuardedBackup, GuardedPolicy, GuardedStore},
    error::chain,
    io::{cache::Cache, cluster::Cluster},
    metrics::Metrics,
    settings::Settings,
    signing::Signing,
    store::{breakers::Breakers, lanes::Lanes},
};

/// Backups that ask one store for something at once: fewer than work side by side, so that a slow store leaves some for
/// others.
pub const VISITS_AT_ONCE: usize = 4;

/// What every reconciliation shares.
pub struct Context {
    /// The cluster, to write to.
    pub cluster: Cluster,
    /// What it holds.
    pub cache: Cache,
    /// All tenants.
    pub tenants: Store<Guarded>,
    /// All policies.
    pub policies: Store<GuardedPolicy>,
    /// All stores.
    pub stores: Store<GuardedStore>,
    /// All backups.
    pub backups: Store<GuardedBackup>,
    /// What commits are signed with.
    pub signing: Signing,
    /// Whether each store is asked at all. Shared with all who use stores.
    pub breakers: Breakers,
    /// Which runs have a place.
    pub ledger: Ledger,
    /// The other backups and tenants, by what is asked of them.
    pub others: Others,
    /// Credentials of stores, as they were read.
    pub credentials: Known,
    /// Turns to visit a store.
    pub visits: Lanes,
    /// The turn to commit in a store: one at a time.
    pub commits: Lanes,
    /// What tells this cluster from others.
    pub cluster_id: OnceCell<String>,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// Counts and durations.
    pub metrics: Arc<Metrics>,
    /// Tells people what changed.
    pub recorder: Recorder,
    /// Waits after failures, by backup.
    pub backoff: Backoff,
    /// The clock, so that a test can hold it.
    pub now: fn() -> Timestamp,
}

/// Why one reconciliation stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster could not be read.
    #[error("failed to look at the backup's namespace")]
    Observe(#[source] crate::io::cluster::Error),
    /// The plan could not be carried out.
    #[error("failed to apply the plan")]
    Apply(#[source] apply::Error),
    /// What was found could not be told.
    #[error("failed to write the backup's status")]
    Status(#[source] crate::io::cluster::Error),
}

/// Brings `object` one step further, and says when to look again.
#[instrument(skip_all, fields(
    object.kind = "Backup",
    object.name = object.name_any(),
    object.namespace = object.namespace().unwrap_or_default(),
))]
pub async fn reconcile(object: Arc<Backup>, context: Arc<Context>) -> Result<Action, Error> {
    if check::awaits_catalogue(&object) {
        return Ok(Action::await_change());
    }
    let now = (context.now)();
    let run = check::check(object);
    let observed = observe::observe(&run, &context).await.map_err(Error::Observe)?;
    let plan = plan::plan(&run, &observed, &context.settings, now);
    let outcome = apply::apply(&run, &observed, &plan, &context, now).await.map_err(Error::Apply)?;
    let status = status::status(&run, &observed, &plan, &outcome, now);
    let look_again_after = outcome.look_again_after.or(plan.look_again_after);
    status::tell(&run, &status, outcome.news, &context).await.map_err(Error::Status)?;
    context.backoff.succeeded(&run.key());
    Ok(look_again_after.map_or_else(Action::await_change, Action::requeue))
}

/// Errors end here: logged once, with all their causes, and turned into the next try.
pub fn error_policy(namespace: &str, name: &str, error: &Error, context: &Context) -> Action {
    let wait: Duration = context.backoff.failed(&format!("{namespace}/{name}"), rand::random());
    warn!(
        object.kind = "Backup",
        object.namespace = namespace,
        object.name = name,
        error = chain(error),
        wait_seconds = wait.as_secs_f64(),
        "failed to reconcile, trying again"
    );
    Action::requeue(wait)
}
