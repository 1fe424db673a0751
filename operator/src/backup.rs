//! The `Backup` controller: check, observe, plan, apply, status.
//!
//! One object is one run. The agent's pod writes and the verifier's pod reads back, each with one identity of the
//! store; the operator believes neither before it has read the manifest itself, and then puts the commit. Nothing
//! is `Complete` before that commit was read back.
//!
//! What a crash leaves is taken up where it stands: every name is made from the slot and the attempt's number, so
//! the next look asks for the same objects.

pub mod apply;
pub mod attempt;
pub mod check;
pub mod commission;
pub mod objects;
pub mod observe;
pub mod plan;
pub mod status;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::{controller::Action, events::Recorder, reflector::Store},
};
use tracing::{instrument, warn};
use valv_crds::Backup;

use crate::{
    backoff::Backoff,
    controllers::{Guarded, GuardedBackup, GuardedPolicy, GuardedStore},
    error::chain,
    io::{cache::Cache, cluster::Cluster},
    metrics::Metrics,
    settings::Settings,
    signing::Signing,
};

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
    let now = (context.now)();
    let run = check::check(object);
    let observed = observe::observe(&run, &context).await.map_err(Error::Observe)?;
    let plan = plan::plan(&run, &observed, &context.settings, now);
    let outcome = apply::apply(&run, &observed, &plan, &context, now).await.map_err(Error::Apply)?;
    let status = status::status(&run, &observed, &plan, &outcome, now);
    status::tell(&run, &status, &context).await.map_err(Error::Status)?;
    context.backoff.succeeded(&run.key());
    Ok(plan.look_again_after.map_or_else(Action::await_change, Action::requeue))
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
