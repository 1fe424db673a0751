//! The `BackupPolicy` controller: says whether a policy can be followed, and makes a `Backup` for each tenant whose
//! slot has come.
//!
//! A slot is taken on once: the `Backup` is named from it, so a second operator asks for the same object; and the newest
//! one stays in the tenant's status, which the tenant's own controller writes and nobody else.

pub mod apply;
pub mod depth;
pub mod drills;
pub mod observe;
pub mod plan;
pub mod slots;
pub mod status;

use std::sync::Arc;

use jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    runtime::{controller::Action, events::Recorder, reflector::Store},
};
use tracing::{debug, instrument, warn};
use valv_crds::BackupPolicy;

use crate::{
    backoff::Backoff,
    controllers::{Guarded, GuardedBackup, GuardedDrill, GuardedStore},
    error::chain,
    io::{
        cluster::{Applied, Cluster, Error as ClusterError},
        events,
        kind::Kind,
    },
    schedule::Schedule,
    settings::Settings,
};

/// What every reconciliation shares.
pub struct Context {
    /// The cluster, to write to.
    pub cluster: Cluster,
    /// All tenants.
    pub tenants: Store<Guarded>,
    /// All stores.
    pub stores: Store<GuardedStore>,
    /// All backups.
    pub backups: Store<GuardedBackup>,
    /// All drills.
    pub drills: Store<GuardedDrill>,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// Tells people what changed.
    pub recorder: Recorder,
    /// Waits after failures, by policy.
    pub backoff: Backoff,
    /// The clock, so that a test can hold it.
    pub now: fn() -> Timestamp,
}

/// Why one reconciliation stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A backup could not be made.
    #[error("failed to make the backups that are due")]
    Apply(#[source] ClusterError),
    /// A drill could not be made, or an old one not be deleted.
    #[error("failed to make the drills that are due")]
    Drills(#[source] ClusterError),
    /// What was found could not be told.
    #[error("failed to write the policy's status")]
    Status(#[source] ClusterError),
}

/// Says whether `object` can be followed, makes the backups that are due, and says when to look again.
#[instrument(skip_all, fields(object.kind = "BackupPolicy", object.name = object.name_any()))]
pub async fn reconcile(object: Arc<BackupPolicy>, context: Arc<Context>) -> Result<Action, Error> {
    let now = (context.now)();
    let observed = observe::observe(&object, &context, now);
    let status = status::status(
        &object,
        &observed.stores,
        observed.protected.len(),
        context.settings.location.as_ref(),
        now,
    );
    match context.cluster.set_status(Kind::BackupPolicy, object.as_ref(), &status).await {
        Ok(Applied::Unchanged) => {}
        Ok(Applied::Written) => {
            let before = object.status.clone().unwrap_or_default();
            let news = status::news(&before.conditions, &status.conditions);
            events::publish(&context.recorder, &object.object_ref(&()), news).await;
        }
        // A newer version is on its way here, and brings the next look with it.
        Err(error) if error.is_conflict() => debug!("the policy has moved on"),
        Err(error) => return Err(Error::Status(error)),
    }
    let wait = match Schedule::try_from(&object.spec.schedule) {
        Ok(schedule) => {
            let plan = plan::plan(&schedule, &observed.protected, now);
            apply::apply(&plan, &context).await.map_err(Error::Apply)?;
            plan.look_again_after
        }
        // The status says it, and the next version of the policy brings the next look.
        Err(_) => plan::LOOK_AGAIN,
    };
    let drills = drills::reconcile(&object, &context, now).await.map_err(Error::Drills)?;
    context.backoff.succeeded(&object.name_any());
    Ok(Action::requeue(wait.min(drills)))
}

/// Errors end here: logged once, with all their causes, and turned into the next try.
pub fn error_policy(name: &str, error: &Error, context: &Context) -> Action {
    let wait = context.backoff.failed(name, rand::random());
    warn!(
        object.kind = "BackupPolicy",
        object.name = name,
        error = chain(error),
        wait_seconds = wait.as_secs_f64(),
        "failed to reconcile, trying again"
    );
    Action::requeue(wait)
}
