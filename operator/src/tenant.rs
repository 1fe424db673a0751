//! The `JournalTenant` controller: check, observe, plan, apply, status.

pub mod apply;
pub mod before_migration;
pub mod certificates;
pub mod check;
pub mod claim;
pub mod objects;
pub mod observe;
pub mod passwords;
pub mod plan;
pub mod protection;
pub mod redact;
pub mod resolve;
pub mod secret;
#[cfg(test)]
mod simulation;
pub mod status;
pub mod upgrade;
pub mod volumes;
pub mod waking;
pub mod workload;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    runtime::{controller::Action, events::Recorder, reflector::Store},
};
use tracing::{debug, instrument, warn};
use valv_crds::{
    JournalTenant,
    condition::{ConditionType, Reason, Saying},
    reference::NAMESPACE_PREFIX,
};

use self::{
    apply::Outcome, check::Tenant, observe::Observed, plan::Plan, protection::Protected, redact::redact,
};
use crate::{
    backoff::Backoff,
    controllers::{Guarded, GuardedBackup, GuardedDrill, GuardedPolicy},
    error::chain,
    io::{cache::Cache, cluster::Cluster, events, kind::Kind},
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
    /// All backups.
    pub backups: Store<GuardedBackup>,
    /// All drills: what each tenant's status tells of them.
    pub drills: Store<GuardedDrill>,
    /// All policies.
    pub policies: Store<GuardedPolicy>,
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
        // No spec is too wrong for an end.
        Err(_) if object.metadata.deletion_timestamp.is_some() => {
            steps(&Tenant::unchecked(object.clone()), &context).await
        }
        Err(invalid) => refuse(&object, &context, &invalid).await,
    };
    if let Err(error) = &result {
        tell_failure(&object, &context, error).await;
    }
    let outcome = match &result {
        Ok(_) => metrics::Outcome::Success,
        Err(_) => metrics::Outcome::Error,
    };
    context.metrics.reconciled("JournalTenant", outcome, started.elapsed());
    result
}

/// Nothing is looked at more often without a reason.
const SHORTEST: Duration = Duration::from_secs(1);

/// Observe, plan, apply, status.
async fn steps(tenant: &Tenant, context: &Context) -> Result<Action, Error> {
    let Context { cluster, cache, tenants, settings, .. } = context;
    let now = (context.now)();
    let protection = observe::protection(tenant, &context.backups, &context.drills, &context.policies);
    let observed = observe::observe(tenant, cluster, cache, tenants, settings, protection)
        .await
        .map_err(Error::Observe)?;
    let plan = plan::plan(tenant, &observed, settings, now);
    let outcome =
        apply::apply(tenant, &observed, &plan, cluster, settings, now).await.map_err(Error::Apply)?;
    let protected = protection::protect(tenant, &observed.protection, now);
    tell(tenant, &observed, &plan, &outcome, &protected, context).await?;
    let turn = protected.look_again_at.and_then(|turn| Duration::try_from(turn.duration_since(now)).ok());
    let look_again_after = turn.map_or(plan.look_again_after, |turn| plan.look_again_after.min(turn));
    let wait = if outcome.stale {
        context.backoff.failed(&tenant.name, rand::random())
    } else if outcome.refused.is_empty() {
        context.backoff.succeeded(&tenant.name);
        look_again_after.max(SHORTEST)
    } else {
        context.backoff.failed(&tenant.name, rand::random()).max(look_again_after)
    };
    Ok(Action::requeue(wait))
}

/// Writes the status, and an event for each thing that changed.
async fn tell(
    tenant: &Tenant,
    observed: &Observed,
    plan: &Plan,
    outcome: &Outcome,
    protected: &Protected,
    context: &Context,
) -> Result<(), Error> {
    // A tenant that was let go has nobody left to be told, and one that was taken up is looked at again at once.
    if outcome.finalizer.is_some() {
        return Ok(());
    }
    let status = status::status(tenant, observed, plan, outcome, protected, (context.now)());
    let written = context.cluster.set_status(Kind::JournalTenant, tenant.object.as_ref(), &status).await;
    match written {
        Ok(crate::io::cluster::Applied::Unchanged) => {}
        Ok(crate::io::cluster::Applied::Written) => {
            let before = tenant.object.status.clone().unwrap_or_default();
            let news = status::news(&before.conditions, &status.conditions);
            events::publish(&context.recorder, &tenant.object.object_ref(&()), news).await;
        }
        // A newer version is on its way here, and brings the next look with it.
        Err(error) if error.is_conflict() => debug!("the tenant has moved on"),
        Err(error) => return Err(Error::Status(error)),
    }
    Ok(())
}

/// Tells the author what the schema could not.
async fn refuse(
    object: &Arc<JournalTenant>,
    context: &Context,
    invalid: &check::Invalid,
) -> Result<Action, Error> {
    let saying = Saying::no(ConditionType::Ready, Reason::InvalidSpec, invalid.to_string());
    tell_only(object, context, saying).await?;
    Ok(Action::await_change())
}

/// Says one thing of a tenant for which nothing was planned.
async fn tell_only(object: &Arc<JournalTenant>, context: &Context, saying: Saying) -> Result<(), Error> {
    let plan = Plan { sayings: vec![saying], ..Plan::default() };
    let tenant = Tenant::unchecked(object.clone());
    let protection = observe::protection(&tenant, &context.backups, &context.drills, &context.policies);
    let protected = protection::protect(&tenant, &protection, (context.now)());
    let observed = Observed { objects: context.cache.of(&tenant.name), protection, ..Observed::default() };
    tell(&tenant, &observed, &plan, &Outcome::default(), &protected, context).await
}

/// Failures in a row after which the tenant's status tells of them.
const TOLD_AFTER: u32 = 3;

/// Tells of a failure that lasts: what the status said before it is not known to be true any more.
async fn tell_failure(object: &Arc<JournalTenant>, context: &Context, error: &Error) {
    // This one is not counted yet.
    if context.backoff.in_a_row(&object.name_any()) + 1 < TOLD_AFTER {
        return;
    }
    let message = redact(&chain(error).to_string(), []);
    let saying = Saying::unknown(ConditionType::Ready, Reason::Failing, message);
    if let Err(error) = tell_only(object, context, saying).await {
        debug!(error = chain(&error), "the failure cannot be told either");
    }
}

/// Errors end here: logged once, with all their causes, and turned into the next try.
pub fn error_policy(name: &str, error: &Error, context: &Context) -> Action {
    let wait = context.backoff.failed(name, rand::random());
    warn!(
        object.kind = "JournalTenant",
        tenant.name = name,
        error = chain(error),
        wait_seconds = wait.as_secs_f64(),
        "failed to reconcile, trying again"
    );
    Action::requeue(wait)
}

impl Tenant {
    /// `object` as it is, for what needs no more than its name and its end.
    fn unchecked(object: Arc<JournalTenant>) -> Self {
        let name = object.name_any();
        Self { namespace: format!("{NAMESPACE_PREFIX}{name}"), name, object }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::ready, sync::Mutex};

    use ::http::{Method, StatusCode};
    use kube::runtime::{events::Reporter, reflector};
    use serde_json::Value;

    use super::{simulation::Simulation, *};
    use crate::{fake_api, lease::Leadership};

    /// A context over an API server that fails at everything but a status, which it keeps.
    fn failing(told: Arc<Mutex<Vec<Value>>>) -> Arc<Context> {
        let client = fake_api::client(move |request| {
            let is_status = request.method() == Method::PUT && request.uri().path().ends_with("/status");
            ready(if is_status {
                told.lock().unwrap().push(request.body().clone());
                fake_api::respond(StatusCode::OK, request.body())
            } else {
                fake_api::refuse(StatusCode::INTERNAL_SERVER_ERROR, "a webhook is away")
            })
        });
        let leadership = Leadership::lasting_until(Instant::now() + Duration::from_secs(3600));
        let metrics = Arc::new(Metrics::new(leadership.clone()));
        let simulation = Simulation::new();
        Arc::new(Context {
            cluster: Cluster::new(client.clone(), leadership, metrics.clone()),
            cache: Cache::empty(),
            tenants: reflector::store().0,
            backups: reflector::store().0,
            drills: reflector::store().0,
            policies: reflector::store().0,
            settings: Arc::new(simulation.settings),
            metrics,
            recorder: Recorder::new(client, Reporter::from("test")),
            backoff: Backoff::default(),
            now: || "2026-03-01T12:00:00Z".parse().unwrap(),
        })
    }

    #[tokio::test]
    async fn a_failure_that_lasts_is_told_in_the_status() {
        let told = Arc::new(Mutex::new(vec![]));
        let context = failing(told.clone());
        let tenant = Arc::new(Simulation::new().tenant);

        for _ in 1..TOLD_AFTER {
            let error = reconcile(tenant.clone(), context.clone()).await.unwrap_err();
            error_policy("ada", &error, &context);
        }
        assert_eq!(*told.lock().unwrap(), Vec::<Value>::new(), "the first may be chance");
        reconcile(tenant, context).await.unwrap_err();

        let ready = &told.lock().unwrap()[0]["status"]["conditions"][0];
        assert_eq!((&ready["status"], &ready["reason"]), (&"Unknown".into(), &"Failing".into()));
        assert!(ready["message"].as_str().unwrap().contains("a webhook is away"), "{ready}");
    }
}
