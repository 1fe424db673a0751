//! The `BackupPolicy` controller: says whether a policy can be followed. What follows it are the backups.
//!
//! Nothing is made for a policy, so there is no plan and nothing to apply: [`status`] is pure, and written.

pub mod status;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    runtime::{controller::Action, events::Recorder, reflector::Store},
};
use tracing::{debug, instrument, warn};
use valv_crds::BackupPolicy;

use self::status::StoreSeen;
use crate::{
    backoff::Backoff,
    controllers::{Guarded, GuardedStore},
    error::chain,
    io::{
        cluster::{Applied, Cluster, Error as ClusterError},
        events,
        kind::Kind,
    },
};

/// Between two looks: stores and tenants come and go, and the next slot passes.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What every reconciliation shares.
pub struct Context {
    /// The cluster, to write to.
    pub cluster: Cluster,
    /// All tenants.
    pub tenants: Store<Guarded>,
    /// All stores.
    pub stores: Store<GuardedStore>,
    /// Tells people what changed.
    pub recorder: Recorder,
    /// Waits after failures, by policy.
    pub backoff: Backoff,
    /// The clock, so that a test can hold it.
    pub now: fn() -> Timestamp,
}

/// The status could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the policy's status")]
pub struct Error(#[source] ClusterError);

/// Says whether `object` can be followed, and when to look again.
#[instrument(skip_all, fields(object.kind = "BackupPolicy", object.name = object.name_any()))]
pub async fn reconcile(object: Arc<BackupPolicy>, context: Arc<Context>) -> Result<Action, Error> {
    let stores: BTreeMap<String, StoreSeen> = context
        .stores
        .state()
        .iter()
        .filter_map(|store| store.0.as_ref().ok())
        .map(|store| (store.name_any(), StoreSeen::of(store)))
        .collect();
    let name = object.name_any();
    let tenants = context.tenants.state();
    let has_it = |tenant: &Arc<Guarded>| {
        let tenant = tenant.0.as_ref().ok()?;
        Some(tenant.spec.backup.as_ref()?.policy == name)
    };
    let tenants = tenants.iter().filter(|tenant| has_it(tenant) == Some(true)).count();
    let status = status::status(&object, &stores, tenants, (context.now)());
    match context.cluster.set_status(Kind::BackupPolicy, object.as_ref(), &status).await {
        Ok(Applied::Unchanged) => {}
        Ok(Applied::Written) => {
            let before = object.status.clone().unwrap_or_default();
            let news = status::news(&before.conditions, &status.conditions);
            events::publish(&context.recorder, &object.object_ref(&()), news).await;
        }
        // A newer version is on its way here, and brings the next look with it.
        Err(error) if error.is_conflict() => debug!("the policy has moved on"),
        Err(error) => return Err(Error(error)),
    }
    context.backoff.succeeded(&name);
    Ok(Action::requeue(LOOK_AGAIN))
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
