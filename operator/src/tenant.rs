//! The `JournalTenant` controller: check, observe, plan, apply, status.

pub mod apply;
pub mod certificates;
pub mod check;
pub mod claim;
pub mod objects;
pub mod observe;
pub mod passwords;
pub mod plan;
pub mod resolve;
pub mod secret;
#[cfg(test)]
mod simulation;
pub mod status;
pub mod upgrade;
pub mod volumes;
pub mod workload;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    runtime::{
        controller::Action,
        events::{Event, EventType, Recorder},
        reflector::Store,
    },
};
use tracing::{debug, instrument, warn};
use valv_crds::{
    JournalTenant,
    condition::{ConditionType, Reason, Saying},
};

use self::{apply::Outcome, check::Tenant, observe::Observed, plan::Plan, status::Tone};
use crate::{
    backoff::Backoff,
    controllers::Guarded,
    error::chain,
    io::{cache::Cache, cluster::Cluster},
    metrics::{self, Metrics},
    settings::Settings,
};

/// What every reconciliation shares.
pub struct Context {
    /// The cluster, to write to.
    pub cluster: Cluster,
    /// What it holds.
    pub cache: Cache,
    /// All tenants.
    pub tenants: Store<Guarded>,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// Counts and durations.
    pub metrics: Arc<Metrics>,
    /// Tells people what changed.
    pub recorder: Recorder,
    /// Waits after failures, by tenant.
    pub backoff: Backoff,
    /// The clock, so that a test can hold it.
    pub now: fn() -> Timestamp,
}

/// Why one reconciliation stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster could not be read.
    #[error("failed to look at the tenant's namespace")]
    Observe(#[source] crate::io::cluster::Error),
    /// The plan could not be carried out.
    #[error("failed to apply the plan")]
    Apply(#[source] apply::Error),
    /// What was found could not be told.
    #[error("failed to write the tenant's status")]
    Status(#[source] crate::io::cluster::Error),
}

/// Brings the cluster to what `object` asks for, and says when to look again.
#[instrument(skip_all, fields(
    object.kind = "JournalTenant",
    tenant.name = object.name_any(),
    tenant.generation = object.metadata.generation,
))]
pub async fn reconcile(object: Arc<JournalTenant>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let result = match check::check(object.clone()) {
        Ok(tenant) => steps(&tenant, &context).await,
        Err(invalid) => refuse(&object, &context, &invalid).await,
    };
    let outcome = match &result {
        Ok(_) => metrics::Outcome::Success,
        Err(_) => metrics::Outcome::Error,
    };
    context.metrics.reconciled("JournalTenant", outcome, started.elapsed());
    result
}

/// Observe, plan, apply, status.
async fn steps(tenant: &Tenant, context: &Context) -> Result<Action, Error> {
    let Context { cluster, cache, tenants, settings, .. } = context;
    let now = (context.now)();
    let observed = observe::observe(tenant, cluster, cache, tenants).await.map_err(Error::Observe)?;
    let plan = plan::plan(tenant, &observed, settings, now);
    let outcome =
        apply::apply(tenant, &observed, &plan, cluster, settings, now).await.map_err(Error::Apply)?;
    tell(tenant, &observed, &plan, &outcome, context).await?;
    context.backoff.succeeded(&tenant.name);
    Ok(Action::requeue(if outcome.stale { Duration::from_secs(1) } else { plan.look_again_after }))
}

/// Writes the status, and an event for each thing that changed.
async fn tell(
    tenant: &Tenant,
    observed: &Observed,
    plan: &Plan,
    outcome: &Outcome,
    context: &Context,
) -> Result<(), Error> {
    // A tenant that is let go has nobody left to be told.
    if plan.finalizer.is_some() {
        return Ok(());
    }
    let status = status::status(tenant, observed, plan, outcome, (context.now)());
    let written = context.cluster.set_status(&tenant.object, &status).await;
    match written {
        Ok(crate::io::cluster::Applied::Unchanged) => {}
        Ok(crate::io::cluster::Applied::Written) => {
            let before = tenant.object.status.clone().unwrap_or_default();
            publish(tenant, context, status::news(&before.conditions, &status.conditions)).await;
        }
        // A newer version is on its way here, and brings the next look with it.
        Err(error) if error.is_conflict() => debug!("the tenant has moved on"),
        Err(error) => return Err(Error::Status(error)),
    }
    Ok(())
}

/// An event that cannot be told is no reason to stop.
async fn publish(tenant: &Tenant, context: &Context, news: Vec<(Tone, String, String)>) {
    let reference = tenant.object.object_ref(&());
    for (tone, reason, note) in news {
        let event = Event {
            type_: match tone {
                Tone::Normal => EventType::Normal,
                Tone::Warning => EventType::Warning,
            },
            reason,
            note: Some(note.chars().take(1000).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = context.recorder.publish(&event, &reference).await {
            warn!(error = chain(&error), "failed to publish an event");
        }
    }
}

/// Tells the author what the schema could not.
async fn refuse(
    object: &Arc<JournalTenant>,
    context: &Context,
    invalid: &check::Invalid,
) -> Result<Action, Error> {
    let saying = Saying::no(ConditionType::Ready, Reason::InvalidSpec, invalid.to_string());
    let plan = Plan { sayings: vec![saying], ..Plan::default() };
    let tenant = Tenant {
        name: object.name_any(),
        namespace: format!("{}{}", valv_crds::reference::NAMESPACE_PREFIX, object.name_any()),
        object: object.clone(),
    };
    let observed = Observed { objects: context.cache.of(&tenant.name), ..Observed::default() };
    tell(&tenant, &observed, &plan, &Outcome::default(), context).await?;
    Ok(Action::await_change())
}

/// Errors end here: logged once, with all their causes, and turned into the next try.
pub fn error_policy(name: &str, error: &Error, context: &Context) -> Action {
    let wait = if error.is_conflict() {
        Duration::from_secs(1)
    } else {
        context.backoff.failed(name, rand::random())
    };
    warn!(
        object.kind = "JournalTenant",
        tenant.name = name,
        error = chain(error),
        wait_seconds = wait.as_secs_f64(),
        "failed to reconcile, trying again"
    );
    Action::requeue(wait)
}

impl Error {
    /// Whether an object had moved on: not a fault.
    fn is_conflict(&self) -> bool {
        match self {
            Self::Observe(error) | Self::Status(error) => error.is_conflict(),
            Self::Apply(apply::Error::Cluster(error)) => error.is_conflict(),
            Self::Apply(apply::Error::Certificate { .. }) => false,
        }
    }
}
