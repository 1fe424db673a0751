//! The `RestoreDrill` controller: check, observe, plan, apply, status.
//!
//! A drill is a restore that is judged: into a namespace of its own, behind walls, by two Jobs (one that restores and
//! reaches the store, one that judges and reaches nobody), and then the journal is started on it. What it came to is
//! recorded, and all that was restored is taken away, always.
//!
//! What a crash leaves is taken up where it stands: the namespace is named from the drill's UID and found by its
//! own, the Jobs have one name each, and what their pods said is in the status before the next step begins.

pub mod apply;
pub mod catalogue;
pub mod check;
pub mod choose;
pub mod journal;
pub mod measure;
pub mod names;
pub mod objects;
pub mod observe;
pub mod own;
pub mod ownership;
pub mod past;
pub mod plan;
pub mod record;
pub mod status;
pub mod sweep;
pub mod tampering;
pub mod teardown;
pub mod turns;
pub mod verdicts;
pub mod words;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::{controller::Action, events::Recorder, reflector::Store},
};
use tracing::{instrument, warn};
use valv_crds::RestoreDrill;

use crate::{
    backoff::Backoff,
    controllers::{Guarded, GuardedBackup, GuardedDrill, GuardedPolicy, GuardedStore},
    error::chain,
    io::{cache::Cache, cluster::Cluster},
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
    /// All drills.
    pub drills: Store<GuardedDrill>,
    /// What commits and records are signed with.
    pub signing: Signing,
    /// The turns that were given lately.
    pub turns: turns::Turns,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// Tells people what changed.
    pub recorder: Recorder,
    /// Waits after failures, by drill.
    pub backoff: Backoff,
    /// The clock, so that a test can hold it.
    pub now: fn() -> Timestamp,
}

/// Why one reconciliation stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster could not be read.
    #[error("failed to look at the drill's namespace")]
    Observe(#[source] crate::io::cluster::Error),
    /// The plan could not be carried out.
    #[error("failed to apply the plan")]
    Apply(#[source] apply::Error),
    /// What was found could not be told.
    #[error("failed to write the drill's status")]
    Status(#[source] crate::io::cluster::Error),
}

/// Brings `object` one step further, and says when to look again.
#[instrument(skip_all, fields(
    object.kind = "RestoreDrill",
    object.name = object.name_any(),
    object.namespace = object.namespace().unwrap_or_default(),
))]
pub async fn reconcile(object: Arc<RestoreDrill>, context: Arc<Context>) -> Result<Action, Error> {
    let now = (context.now)();
    let run = check::check(object);
    let (observed, looked) = observe::observe(&run, &context, now).await;
    let plan = match looked {
        Ok(()) => plan::plan(&run, &observed, &context.settings, now),
        Err(error) => match plan::stops(&run, &observed, &chain(&error), now) {
            Some(plan) => plan,
            None => return Err(Error::Observe(error)),
        },
    };
    let outcome = match apply::apply(&run, &observed, &plan, &context, now).await {
        // What cannot be taken away now is taken away when it is torn down, which its end begins.
        Err(error) if matches!(plan.step, plan::Step::Ends(_)) => {
            warn!(error = chain(&error), "failed to take away what opens backups, trying again");
            apply::Outcome::default()
        }
        applied => applied.map_err(Error::Apply)?,
    };
    let status = status::status(&run, &observed, &plan, &outcome, now);
    status::tell(&run, &status, &context).await.map_err(Error::Status)?;
    context.backoff.succeeded(&run.key());
    Ok(plan.look_again_after.map_or_else(Action::await_change, Action::requeue))
}

/// Errors end here: logged once, with all their causes, and turned into the next try.
pub fn error_policy(namespace: &str, name: &str, error: &Error, context: &Context) -> Action {
    let wait: Duration = context.backoff.failed(&format!("{namespace}/{name}"), rand::random());
    warn!(
        object.kind = "RestoreDrill",
        object.namespace = namespace,
        object.name = name,
        error = chain(error),
        wait_seconds = wait.as_secs_f64(),
        "failed to reconcile, trying again"
    );
    Action::requeue(wait)
}
