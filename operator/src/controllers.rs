//! Starts the controllers and what they share.

use std::{future::Future, sync::Arc};

use futures::{FutureExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::{Action, Config},
        events::{Recorder, Reporter},
        reflector::ObjectRef,
        watcher,
    },
};
use serde_json::json;
use tracing::{debug, error, info, warn};
use valv_crds::JournalTenant;

use crate::{
    backoff::Backoff,
    error::chain,
    http::Health,
    io::{cache::Cache, cluster::Cluster},
    lease::Leadership,
    metrics::Metrics,
    settings::Settings,
    tenant,
};

/// A tenant as it was read: what cannot be read still has its name, and stops nobody else.
pub type Guarded = DeserializeGuard<JournalTenant>;

/// What every controller is given.
pub struct Runtime {
    /// The cluster.
    pub client: Client,
    /// The settings.
    pub settings: Arc<Settings>,
    /// The fence.
    pub leadership: Leadership,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub now: fn() -> jiff::Timestamp,
    /// The health.
    pub health: Arc<Health>,
}

/// The controllers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The apiserver did not say which APIs it has.
    #[error("failed to ask the apiserver for its APIs")]
    Discover(#[source] kube::Error),
}

/// Runs the controllers until `stop`: then what is under way is finished, and nothing new is begun.
///
/// # Errors
/// [`Error::Discover`] if the apiserver could not be asked; nothing was started then.
pub async fn run(
    runtime: Runtime,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) -> Result<(), Error> {
    let Runtime { client, settings, leadership, metrics, now, health } = runtime;
    let (cache, changes) = Cache::start(&client).await.map_err(Error::Discover)?;
    let changes = changes.map(|tenant| ObjectRef::<Guarded>::new(&tenant));
    let config = Config::default().concurrency(settings.reconcile.concurrency);
    let controller = Controller::new(Api::<Guarded>::all(client.clone()), watcher::Config::default())
        .with_config(config)
        .reconcile_on(changes)
        .graceful_shutdown_on(stop);
    let tenants = controller.store();
    let reporter = Reporter { controller: "valv.eu/operator".to_owned(), instance: None };
    let context = Arc::new(tenant::Context {
        cluster: Cluster::new(client.clone(), leadership, metrics.clone()),
        cache: cache.clone(),
        tenants: tenants.clone(),
        settings,
        metrics: metrics.clone(),
        recorder: Recorder::new(client, reporter),
        backoff: Backoff::default(),
        now,
    });
    let synced = async {
        cache.synced().await;
        // The store is dropped only with the controller.
        let _ = tenants.wait_until_ready().await;
        info!("caches are filled");
        health.caches_synced();
        std::future::pending::<()>().await;
    };
    let working = controller
        .run(reconcile, error_policy, context)
        .for_each(|result| {
            metrics.tenants(tenants.len());
            if let Err(error) = result {
                debug!(error = chain(&error), "reconciliation ended");
            }
            async {}
        })
        .fuse();
    tokio::select! {
        () = working => Ok(()),
        () = synced => Ok(()),
    }
}

/// Reconciles a tenant that could be read, once everything is known about it.
async fn reconcile(object: Arc<Guarded>, context: Arc<tenant::Context>) -> Result<Action, tenant::Error> {
    // A decision on half a picture would make what is there already.
    context.cache.synced().await;
    match &object.0 {
        Ok(tenant) => tenant::reconcile(Arc::new(tenant.clone()), context).await,
        Err(invalid) if invalid.metadata.deletion_timestamp.is_some() => {
            warn!(
                object.kind = "JournalTenant",
                tenant.name = object.name_any(),
                error = %invalid,
                "a tenant that cannot be read is let go: its namespace, volumes and Secrets are kept"
            );
            match unread(&invalid.metadata) {
                Ok(tenant) => tenant::reconcile(Arc::new(tenant), context).await,
                Err(_) => Ok(Action::await_change()),
            }
        }
        Err(invalid) => {
            error!(
                object.kind = "JournalTenant",
                tenant.name = object.name_any(),
                error = %invalid,
                "failed to read a tenant: it was written by a newer version, or past the schema; it is left alone"
            );
            Ok(Action::await_change())
        }
    }
}

/// What is known of a tenant that cannot be read: enough to let it go. What it says of its data is not, so they
/// are kept.
fn unread(metadata: &ObjectMeta) -> Result<JournalTenant, serde_json::Error> {
    serde_json::from_value(json!({
        "apiVersion": JournalTenant::api_version(&()), "kind": JournalTenant::kind(&()), "metadata": metadata,
        "spec": { "host": "unread.invalid", "journal": { "image": "unread" }, "database": { "size": "1Gi" } },
    }))
}

fn error_policy(object: Arc<Guarded>, error: &tenant::Error, context: Arc<tenant::Context>) -> Action {
    tenant::error_policy(&object.name_any(), error, &context)
}

#[cfg(test)]
mod tests {
    use valv_crds::tenant::DeletionPolicy;

    use super::*;

    #[test]
    fn what_a_tenant_that_cannot_be_read_leaves_is_kept() {
        let metadata = ObjectMeta { name: Some("ada".into()), ..ObjectMeta::default() };

        let tenant = unread(&metadata).unwrap();

        assert_eq!(tenant.name_any(), "ada");
        assert_eq!(tenant.spec.deletion_policy, DeletionPolicy::Retain);
    }
}
