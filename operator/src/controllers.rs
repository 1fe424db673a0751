//! Starts the controllers and what they share.

use std::{
    collections::HashSet,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::{Action, Config},
        events::{Recorder, Reporter},
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use serde_json::json;
use tokio::{
    sync::{OnceCell, Semaphore},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use valv_crds::{Backup, BackupPolicy, BackupStore, JournalTenant, RestoreDrill};

use crate::{
    backoff::Backoff,
    backup, copy, drill,
    error::chain,
    http::Health,
    io::{
        cache::Cache,
        cluster::Cluster,
        filled::{Filled, Filling},
    },
    janitor, keys,
    lease::Leadership,
    metrics::{Metrics, protection::Sources},
    policy,
    settings::Settings,
    signing::Signing,
    store::{self, breakers::Breakers, lanes::Lanes, memory::Memory},
    tenant::{self, waking::Waking},
};

/// A tenant as it was read: what cannot be read still has its name, and stops nobody else.
pub type Guarded = DeserializeGuard<JournalTenant>;

/// A store as it was read.
pub type GuardedStore = DeserializeGuard<BackupStore>;

/// A policy as it was read.
pub type GuardedPolicy = DeserializeGuard<BackupPolicy>;

/// A backup as it was read.
pub type GuardedBackup = DeserializeGuard<Backup>;

/// A drill as it was read.
pub type GuardedDrill = DeserializeGuard<RestoreDrill>;

/// Stores that are looked at side by side: more than a cluster has.
const STORES_AT_ONCE: u16 = 16;

/// A store that is gone is told of no longer than this.
const FORGET_EVERY: Duration = Duration::from_secs(30);

/// A backup that is gone is remembered no longer than this: a few bytes of each.
const FORGET_BACKUPS_EVERY: Duration = Duration::from_secs(3600);

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
    /// Whether each store is asked at all.
    pub breakers: Breakers,
    /// Which backups have a place, and how many copies run.
    pub ledger: backup::ledger::Ledger,
}

impl Runtime {
    fn cluster(&self) -> Cluster {
        Cluster::new(self.client.clone(), self.leadership.clone(), self.metrics.clone())
    }

    fn recorder(&self) -> Recorder {
        let reporter = Reporter { controller: "valv.eu/operator".to_owned(), instance: None };
        Recorder::new(self.client.clone(), reporter)
    }
}

/// The controllers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The apiserver did not say which APIs it has.
    #[error("failed to ask the apiserver for its APIs")]
    Discover(#[source] kube::Error),
}

/// `reconcile`, once all is listed: a decision on half a picture would make what is there already.
fn once<K, C, E, F>(
    filled: Filled,
    mut reconcile: impl FnMut(Arc<K>, Arc<C>) -> F,
) -> impl FnMut(Arc<K>, Arc<C>) -> BoxFuture<'static, Result<Action, E>>
where
    F: Future<Output = Result<Action, E>> + Send + 'static,
{
    move |object, context| {
        let (filled, reconciling) = (filled.clone(), reconcile(object, context));
        async move {
            filled.wait().await;
            reconciling.await
        }
        .boxed()
    }
}

/// Runs the controllers until `stop`: then what is under way is finished, and nothing new is begun.
///
/// # Errors
/// [`Error::Discover`] if the apiserver could not be asked; nothing was started then.
pub async fn run(
    runtime: Runtime,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) -> Result<(), Error> {
    let stop = stop.shared();
    let (cache, changes) =
        Cache::start(&runtime.client, &runtime.settings.operator_namespace).await.map_err(Error::Discover)?;
    let (filling, filled) = Filling::new();
    let signing = Signing::default();
    let (waking, woken) = Waking::new();
    let changes = stream::select(changes, woken).map(|tenant| ObjectRef::<Guarded>::new(&tenant));
    let backups =
        Controller::new(Api::<GuardedBackup>::all(runtime.client.clone()), watcher::Config::default());
    let policies =
        Controller::new(Api::<GuardedPolicy>::all(runtime.client.clone()), watcher::Config::default());
    let drills =
        Controller::new(Api::<GuardedDrill>::all(runtime.client.clone()), watcher::Config::default());
    let protection =
        Protection { backups: backups.store(), policies: policies.store(), drills: drills.store() };
    let (tenants, tenants_end) =
        tenants(&runtime, &filled, cache.clone(), protection.clone(), changes, stop.clone());
    let (stores, stores_end) = stores(&runtime, &filled, signing.clone(), stop.clone());
    let Protection { backups: all_backups, policies: all_policies, drills: all_drills } = protection;
    let waking = Arc::new(waking);
    let known = Known {
        tenants: tenants.clone(),
        stores,
        backups: all_backups,
        drills: all_drills,
        waking,
        filled: filled.clone(),
    };
    runtime.metrics.protection(Sources {
        tenants: known.tenants.clone(),
        policies: all_policies.clone(),
        stores: known.stores.clone(),
        backups: known.backups.clone(),
        drills: Some(known.drills.clone()),
        cache: cache.clone(),
        filled: filled.clone(),
        now: runtime.now,
    });
    let listed = (known.stores.clone(), all_policies.clone(), known.backups.clone(), known.drills.clone());
    let of_keys = keys::Context {
        cluster: runtime.cluster(),
        cache: cache.clone(),
        tenants: known.tenants.clone(),
        policies: all_policies.clone(),
        stores: known.stores.clone(),
        backups: known.backups.clone(),
        signing: signing.clone(),
        settings: runtime.settings.clone(),
        breakers: runtime.breakers.clone(),
        recorder: runtime.recorder(),
        now: runtime.now,
    };
    let keys = keys::run(of_keys, filled.clone());
    let keeping = keeping(&runtime, known.clone(), all_policies.clone(), signing.clone(), stop.clone());
    let policies_end = run_policies(&runtime, policies, known.clone(), stop.clone());
    let drills_end = run_drills(
        &runtime,
        drills,
        cache.clone(),
        known.clone(),
        all_policies.clone(),
        signing.clone(),
        stop.clone(),
    );
    let backups_end = run_backups(&runtime, backups, cache.clone(), known, all_policies, signing, stop);
    let synced = async {
        cache.synced().await;
        // Each store is dropped only with its controller. Nobody else waits for one: see `io/filled.rs`.
        let _ = tenants.wait_until_ready().await;
        let _ = listed.0.wait_until_ready().await;
        let _ = listed.1.wait_until_ready().await;
        let _ = listed.2.wait_until_ready().await;
        let _ = listed.3.wait_until_ready().await;
        filling.done();
        info!("caches are filled");
        runtime.health.caches_synced();
        std::future::pending::<()>().await;
    };
    let ended = async { futures::join!(tenants_end, stores_end, policies_end, backups_end, drills_end) };
    tokio::select! {
        ((), (), (), (), ()) = ended => Ok(()),
        () = synced => Ok(()),
        // Ends never, and what it is at may be left in the middle: each look begins anew.
        () = keys => Ok(()),
        () = keeping => Ok(()),
    }
}

/// What the tenants' controller knows of others.
#[derive(Clone)]
struct Protection {
    backups: Store<GuardedBackup>,
    policies: Store<GuardedPolicy>,
    drills: Store<GuardedDrill>,
}

/// The tenants' controller, and what it knows of them.
fn tenants(
    runtime: &Runtime,
    filled: &Filled,
    cache: Cache,
    protection: Protection,
    changes: impl Stream<Item = ObjectRef<Guarded>> + Send + 'static,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) -> (Store<Guarded>, impl Future<Output = ()>) {
    let config = Config::default().concurrency(runtime.settings.reconcile.concurrency);
    let controller = Controller::new(Api::<Guarded>::all(runtime.client.clone()), watcher::Config::default())
        .with_config(config)
        .reconcile_on(changes)
        .graceful_shutdown_on(stop);
    let tenants = controller.store();
    let metrics = runtime.metrics.clone();
    let context = Arc::new(tenant::Context {
        cluster: runtime.cluster(),
        cache,
        tenants: tenants.clone(),
        backups: protection.backups,
        policies: protection.policies,
        drills: protection.drills,
        settings: runtime.settings.clone(),
        metrics: metrics.clone(),
        recorder: runtime.recorder(),
        backoff: Backoff::default(),
        now: runtime.now,
    });
    let all = tenants.clone();
    let working =
        controller.run(once(filled.clone(), reconcile), error_policy, context).for_each(move |result| {
            metrics.tenants(all.len());
            if let Err(error) = result {
                debug!(error = chain(&error), "reconciliation ended");
            }
            async {}
        });
    (tenants, working)
}

/// The stores' controller.
fn stores(
    runtime: &Runtime,
    filled: &Filled,
    signing: Signing,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) -> (Store<GuardedStore>, impl Future<Output = ()>) {
    // Each waits for its store most of the time, and turns for probes are counted.
    let config = Config::default().concurrency(STORES_AT_ONCE);
    let controller =
        Controller::new(Api::<GuardedStore>::all(runtime.client.clone()), watcher::Config::default())
            .with_config(config)
            .graceful_shutdown_on(stop.clone());
    let stores = controller.store();
    let context = Arc::new(store::Context {
        cluster: runtime.cluster(),
        stores: stores.clone(),
        signing,
        settings: runtime.settings.clone(),
        metrics: runtime.metrics.clone(),
        recorder: runtime.recorder(),
        memory: Memory::default(),
        breakers: runtime.breakers.clone(),
        turns: Semaphore::new(store::PROBES_AT_ONCE),
        stop: CancellationToken::new(),
        backoff: Backoff::default(),
        now: runtime.now,
    });
    let stopping = {
        let stopped = context.stop.clone();
        async move {
            stop.await;
            stopped.cancel();
            std::future::pending::<()>().await;
        }
    };
    let forgetting = forget_stores(stores.clone(), context.clone(), filled.clone());
    let working = controller
        .run(once(filled.clone(), reconcile_store), store_error_policy, context)
        .for_each(|result| {
            if let Err(error) = result {
                debug!(error = chain(&error), "reconciliation ended");
            }
            async {}
        });
    let ended = async move {
        tokio::select! {
            () = working => {}
            () = stopping => {}
            () = forgetting => {}
        }
    };
    (stores, ended)
}

/// What the controllers of policies, backups and drills know of others.
#[derive(Clone)]
struct Known {
    tenants: Store<Guarded>,
    stores: Store<GuardedStore>,
    backups: Store<GuardedBackup>,
    waking: Arc<Waking>,
    drills: Store<GuardedDrill>,
    filled: Filled,
}

/// The policies' controller.
fn run_policies(
    runtime: &Runtime,
    controller: Controller<GuardedPolicy>,
    known: Known,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) -> impl Future<Output = ()> {
    let filled = known.filled.clone();
    let controller = controller.graceful_shutdown_on(stop);
    let Known { waking, .. } = known.clone();
    let context = Arc::new(policy::Context {
        cluster: runtime.cluster(),
        tenants: known.tenants,
        stores: known.stores,
        backups: known.backups,
        drills: known.drills,
        settings: runtime.settings.clone(),
        recorder: runtime.recorder(),
        backoff: Backoff::default(),
        now: runtime.now,
    });
    let reconcile = move |object: Arc<GuardedPolicy>, context: Arc<policy::Context>| {
        if let Ok(policy) = &object.0 {
            waking.policy(policy, tenants_with(policy, &context.tenants));
        }
        reconcile_policy(object, context)
    };
    controller.run(once(filled.clone(), reconcile), policy_error_policy, context).for_each(|result| {
        if let Err(error) = result {
            debug!(error = chain(&error), "reconciliation ended");
        }
        async {}
    })
}

/// Names of the tenants that have `policy`.
fn tenants_with(policy: &BackupPolicy, tenants: &Store<Guarded>) -> Vec<String> {
    let name = policy.name_any();
    let tenants = tenants.state();
    let read = tenants.iter().filter_map(|tenant| tenant.0.as_ref().ok());
    let with = read.filter(|tenant| tenant.spec.backup.as_ref().is_some_and(|backup| backup.policy == name));
    with.map(ResourceExt::name_any).collect()
}

/// Reconciles a policy that could be read, once everything is known that it rests on.
async fn reconcile_policy(
    object: Arc<GuardedPolicy>,
    context: Arc<policy::Context>,
) -> Result<Action, policy::Error> {
    match &object.0 {
        Ok(policy) => policy::reconcile(Arc::new(policy.clone()), context).await,
        Err(invalid) => {
            error!(
                object.kind = "BackupPolicy",
                object.name = object.name_any(),
                error = %invalid,
                "failed to read a policy: it was written by a newer version, or past the schema; it is left alone"
            );
            Ok(Action::await_change())
        }
    }
}

fn policy_error_policy(
    object: Arc<GuardedPolicy>,
    error: &policy::Error,
    context: Arc<policy::Context>,
) -> Action {
    policy::error_policy(&object.name_any(), error, &context)
}

/// Copies and the janitor, until `stop`. What they are at then is left where it is, and found there again.
fn keeping(
    runtime: &Runtime,
    known: Known,
    policies: Store<GuardedPolicy>,
    signing: Signing,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) -> impl Future<Output = ()> {
    let filled = known.filled.clone();
    let copies = Arc::new(copy::Context {
        cluster: runtime.cluster(),
        tenants: known.tenants.clone(),
        policies: policies.clone(),
        stores: known.stores.clone(),
        backups: known.backups.clone(),
        signing: signing.clone(),
        settings: runtime.settings.clone(),
        breakers: runtime.breakers.clone(),
        ledger: runtime.ledger.clone(),
        recorder: runtime.recorder(),
        resting: Mutex::default(),
        beginning: Mutex::default(),
        cluster_id: OnceCell::new(),
        now: runtime.now,
    });
    let janitor = Arc::new(janitor::Context {
        cluster: runtime.cluster(),
        tenants: known.tenants,
        policies,
        stores: known.stores,
        backups: known.backups,
        signing,
        settings: runtime.settings.clone(),
        breakers: runtime.breakers.clone(),
        recorder: runtime.recorder(),
        memory: Mutex::default(),
        cluster_id: OnceCell::new(),
        now: runtime.now,
    });
    async move {
        tokio::select! {
            () = stop => {}
            () = copy::run(copies, filled.clone()) => {}
            () = janitor::run(janitor, filled.clone()) => {}
        }
        // The controllers end by themselves, and with them all of this.
        std::future::pending::<()>().await;
    }
}

/// The backups' controller.
fn run_backups(
    runtime: &Runtime,
    controller: Controller<GuardedBackup>,
    cache: Cache,
    known: Known,
    policies: Store<GuardedPolicy>,
    signing: Signing,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) -> impl Future<Output = ()> {
    let filled = known.filled.clone();
    let config = Config::default().concurrency(runtime.settings.reconcile.concurrency);
    let controller = controller.with_config(config).graceful_shutdown_on(stop);
    let waking = known.waking.clone();
    let forgetting = forget_backups(known.backups.clone(), waking.clone(), filled.clone());
    let context = Arc::new(backup::Context {
        cluster: runtime.cluster(),
        cache,
        tenants: known.tenants,
        policies,
        stores: known.stores,
        backups: known.backups,
        signing,
        breakers: runtime.breakers.clone(),
        ledger: runtime.ledger.clone(),
        others: backup::others::Others::default(),
        credentials: backup::credentials::Known::default(),
        visits: Lanes::new(backup::VISITS_AT_ONCE),
        commits: Lanes::new(1),
        cluster_id: OnceCell::new(),
        settings: runtime.settings.clone(),
        metrics: runtime.metrics.clone(),
        recorder: runtime.recorder(),
        backoff: Backoff::default(),
        now: runtime.now,
    });
    let sweeping = backup::orphans::keep_sweeping(context.clone(), filled.clone());
    let reconcile = move |object: Arc<GuardedBackup>, context: Arc<backup::Context>| {
        if let Ok(backup) = &object.0 {
            waking.backup(backup);
        }
        reconcile_backup(object, context)
    };
    let working =
        controller.run(once(filled.clone(), reconcile), backup_error_policy, context).for_each(|result| {
            if let Err(error) = result {
                debug!(error = chain(&error), "reconciliation ended");
            }
            async {}
        });
    async move {
        tokio::select! {
            () = working => {}
            () = forgetting => {}
            () = sweeping => {}
        }
    }
}

/// Forgets backups that are gone: nobody reconciles them any more.
async fn forget_backups(backups: Store<GuardedBackup>, waking: Arc<Waking>, filled: Filled) {
    // An empty list is no news before the first.
    filled.wait().await;
    loop {
        sleep(FORGET_BACKUPS_EVERY).await;
        let there = backups.state();
        let there = there.iter().map(|one| (one.namespace().unwrap_or_default(), one.name_any())).collect();
        waking.retain("Backup", &there);
    }
}

/// Forgets drills that are gone.
async fn forget_drills(drills: Store<GuardedDrill>, waking: Arc<Waking>, filled: Filled) {
    // An empty list is no news before the first.
    filled.wait().await;
    loop {
        sleep(FORGET_BACKUPS_EVERY).await;
        let there = drills.state();
        let there = there.iter().map(|one| (one.namespace().unwrap_or_default(), one.name_any())).collect();
        waking.retain("RestoreDrill", &there);
    }
}

/// Reconciles a backup that could be read, once everything is known that it rests on.
async fn reconcile_backup(
    object: Arc<GuardedBackup>,
    context: Arc<backup::Context>,
) -> Result<Action, backup::Error> {
    match &object.0 {
        Ok(backup) => backup::reconcile(Arc::new(backup.clone()), context).await,
        Err(invalid) => {
            error!(
                object.kind = "Backup",
                object.namespace = object.namespace().unwrap_or_default(),
                object.name = object.name_any(),
                error = %invalid,
                "failed to read a backup: it was written by a newer version, or past the schema; it is left alone"
            );
            Ok(Action::await_change())
        }
    }
}

fn backup_error_policy(
    object: Arc<GuardedBackup>,
    error: &backup::Error,
    context: Arc<backup::Context>,
) -> Action {
    backup::error_policy(&object.namespace().unwrap_or_default(), &object.name_any(), error, &context)
}

/// The drills' controller, and the sweeper of what drills left whose object is gone.
fn run_drills(
    runtime: &Runtime,
    controller: Controller<GuardedDrill>,
    cache: Cache,
    known: Known,
    policies: Store<GuardedPolicy>,
    signing: Signing,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) -> impl Future<Output = ()> {
    let filled = known.filled.clone();
    let config = Config::default().concurrency(runtime.settings.reconcile.concurrency);
    let controller = controller.with_config(config).graceful_shutdown_on(stop);
    let waking = known.waking;
    let forgetting = forget_drills(known.drills.clone(), waking.clone(), filled.clone());
    let context = Arc::new(drill::Context {
        cluster: runtime.cluster(),
        cache,
        tenants: known.tenants,
        policies,
        stores: known.stores,
        backups: known.backups,
        drills: known.drills,
        signing,
        turns: drill::turns::Turns::default(),
        settings: runtime.settings.clone(),
        recorder: runtime.recorder(),
        backoff: Backoff::default(),
        now: runtime.now,
    });
    let sweeping = context.clone();
    let reconcile = move |object: Arc<GuardedDrill>, context: Arc<drill::Context>| {
        if let Ok(drill) = &object.0 {
            waking.drill(drill);
        }
        reconcile_drill(object, context)
    };
    let working =
        controller.run(once(filled.clone(), reconcile), drill_error_policy, context).for_each(|result| {
            if let Err(error) = result {
                debug!(error = chain(&error), "reconciliation ended");
            }
            async {}
        });
    async move {
        tokio::select! {
            () = working => {}
            () = drill::sweep::sweep(&sweeping, filled.clone()) => {}
            () = forgetting => {}
        }
    }
}

/// Reconciles a drill that could be read, once everything is known that it rests on.
async fn reconcile_drill(
    object: Arc<GuardedDrill>,
    context: Arc<drill::Context>,
) -> Result<Action, drill::Error> {
    match &object.0 {
        Ok(drill) => drill::reconcile(Arc::new(drill.clone()), context).await,
        Err(invalid) => {
            error!(
                object.kind = "RestoreDrill",
                object.namespace = object.namespace().unwrap_or_default(),
                object.name = object.name_any(),
                error = %invalid,
                "failed to read a drill: it was written by a newer version, or past the schema; it is left alone"
            );
            Ok(Action::await_change())
        }
    }
}

fn drill_error_policy(
    object: Arc<GuardedDrill>,
    error: &drill::Error,
    context: Arc<drill::Context>,
) -> Action {
    drill::error_policy(&object.namespace().unwrap_or_default(), &object.name_any(), error, &context)
}

/// Forgets stores that are gone: nobody reconciles them any more.
async fn forget_stores(stores: Store<GuardedStore>, context: Arc<store::Context>, filled: Filled) {
    // An empty list is no news before the first.
    filled.wait().await;
    loop {
        sleep(FORGET_EVERY).await;
        let names: HashSet<String> = stores.state().iter().map(|store| store.name_any()).collect();
        store::forget(&context, |name| names.contains(name));
    }
}

/// Reconciles a store that could be read.
async fn reconcile_store(
    object: Arc<GuardedStore>,
    context: Arc<store::Context>,
) -> Result<Action, store::Error> {
    match &object.0 {
        Ok(store) => store::reconcile(Arc::new(store.clone()), context).await,
        Err(invalid) => {
            error!(
                object.kind = "BackupStore",
                store.name = object.name_any(),
                error = %invalid,
                "failed to read a store: it was written by a newer version, or past the schema; it is left alone"
            );
            Ok(Action::await_change())
        }
    }
}

fn store_error_policy(
    object: Arc<GuardedStore>,
    error: &store::Error,
    context: Arc<store::Context>,
) -> Action {
    store::error_policy(&object.name_any(), error, &context)
}

/// Reconciles a tenant that could be read, once everything is known about it.
async fn reconcile(object: Arc<Guarded>, context: Arc<tenant::Context>) -> Result<Action, tenant::Error> {
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
