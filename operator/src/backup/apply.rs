//! Brings the cluster, and the archive, to the plan.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::DynamicObject;
use serde::Serialize;
use tracing::warn;
use valv_crds::backup::BackupReason;

use super::{
    Context,
    check::Run,
    commission::{Commission, Committed},
    observe::Observed,
    plan::{Plan, Step},
};
use crate::{
    error::chain,
    io::{
        cluster::Error as ClusterError,
        kind::{Key, Kind},
    },
};

/// The plan could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster refused or did not answer.
    #[error("failed to bring the cluster to the plan")]
    Cluster(#[source] ClusterError),
}

/// What became of the plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was committed.
    pub committed: Option<Box<Committed>>,
    /// Why it was not, and will not be.
    pub refused: Option<(BackupReason, String)>,
    /// Why it was not this time.
    pub postponed: Option<String>,
}

/// Makes what the plan wants (credentials and the run file before the Job that reads them), takes away what has
/// served, and commits what was read back.
///
/// # Errors
/// Only of the cluster. What the store says is in the [`Outcome`].
pub async fn apply(
    run: &Run,
    observed: &Observed,
    plan: &Plan,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, Error> {
    for wanted in &plan.apply {
        let standing = standing(run, observed, &wanted.key, context).await?;
        // What an attempt was begun with stays: the Job that runs reads it.
        if standing.is_some() && [Kind::Job, Kind::ConfigMap].contains(&wanted.key.kind) {
            continue;
        }
        context.cluster.apply(&wanted.key, &wanted.value, standing.as_ref()).await.map_err(Error::Cluster)?;
    }
    let outcome = match &plan.step {
        Step::Commits(commission) => commit(commission, observed, context, now).await,
        Step::Over | Step::Waits { .. } | Step::Fails { .. } | Step::Runs(_) | Step::Retries { .. } => {
            Outcome::default()
        }
    };
    // Before the status says that it is over: whoever looks at one that is over looks no further.
    if outcome.postponed.is_none() {
        for key in &plan.delete {
            if let Some(standing) = standing(run, observed, key, context).await? {
                context.cluster.delete(key, &standing).await.map_err(Error::Cluster)?;
            }
        }
    }
    Ok(outcome)
}

async fn commit(commission: &Commission, observed: &Observed, context: &Context, now: Timestamp) -> Outcome {
    let Some(Ok(credentials)) = &observed.credentials else { return Outcome::default() };
    let namespace = &context.settings.operator_namespace;
    let key = match context.signing.key(&context.cluster, namespace).await {
        Ok(key) => key,
        Err(error) => return Outcome { postponed: Some(chain(&error)), ..Outcome::default() },
    };
    match commission.carry_out(credentials, &key, now).await {
        Ok(committed) => Outcome { committed: Some(Box::new(committed)), ..Outcome::default() },
        Err(error) => match error.reason() {
            Some(reason) => Outcome { refused: Some((reason, chain(&error))), ..Outcome::default() },
            None => {
                warn!(error = chain(&error), "failed to commit, trying again");
                Outcome { postponed: Some(chain(&error)), ..Outcome::default() }
            }
        },
    }
}

/// The object as it stands: from the cache where it is watched, else asked for.
async fn standing(
    run: &Run,
    observed: &Observed,
    key: &Key,
    context: &Context,
) -> Result<Option<DynamicObject>, Error> {
    let asked = if key.kind == Kind::Secret {
        let found = context.cluster.get::<Secret>(Kind::Secret, &run.namespace, &key.name).await;
        found.map_err(Error::Cluster)?.and_then(as_dynamic)
    } else if key.kind == Kind::ConfigMap {
        let found = context.cluster.get::<ConfigMap>(Kind::ConfigMap, &run.namespace, &key.name).await;
        found.map_err(Error::Cluster)?.and_then(as_dynamic)
    } else {
        observed.objects.get(key).map(|object| object.as_ref().clone())
    };
    Ok(asked)
}

fn as_dynamic<K: Serialize>(object: K) -> Option<DynamicObject> {
    serde_json::from_value(serde_json::to_value(object).ok()?).ok()
}
