//! Takes the operator out of a cluster and leaves the tenants: what the chart's pre-delete hook runs.
//!
//! Drills end first, while there is still an operator that takes away what they restored. Then it is stopped, else it
//! would put its finalizers back. Then the finalizer is taken from every
//! tenant, else a tenant could never be deleted again. Nothing of a tenant is deleted: its namespace, database
//! and volumes stay as they are, and an operator that is installed again finds them.

use std::{collections::BTreeSet, fmt, time::Duration};

use futures::{StreamExt, TryStreamExt, pin_mut, stream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, PartialObjectMeta, Patch, PatchParams},
    core::GroupVersionKind,
    runtime::watcher::{self, Event, watcher},
};
use serde_json::json;
use tokio::time::timeout;
use tracing::{info, warn};
use valv_crds::reference::{DRILL_FINALIZER, DRILL_LABEL, FINALIZER};

use crate::error::chain;

/// The operator's Deployment and its pods. The pod of the hook itself must not be labelled so.
const OPERATOR: &str = "app.kubernetes.io/name=valv,app.kubernetes.io/component=operator";

/// Tenants in one answer of the API server.
const PAGE: u32 = 500;

/// Tenants that are released, and drills that are cancelled, at once.
const AT_ONCE: usize = 8;

/// How often one tenant is tried again that somebody else changes at the same time.
const TRIES: u8 = 5;

/// The operator could not be taken out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Deployments of the operator could not be listed.
    #[error("failed to list the operator's Deployments in {namespace}")]
    ListDeployments {
        /// Where.
        namespace: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// One could not be scaled to nothing.
    #[error("failed to stop Deployment {namespace}/{name}")]
    Stop {
        /// Where.
        namespace: String,
        /// Which.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// Its pods did not go.
    #[error(
        "failed to see the operator's pods in {namespace} go within {} s: {} left; no finalizer was removed",
        after.as_secs(),
        left.join(", ")
    )]
    StillRunning {
        /// Where.
        namespace: String,
        /// The pods that remain.
        left: Vec<String>,
        /// How long was waited.
        after: Duration,
    },
    /// The drills, or their namespaces, could not be listed.
    #[error("failed to list RestoreDrills and their namespaces")]
    ListDrills(#[source] Box<kube::Error>),
    /// One could not be cancelled.
    #[error("failed to cancel RestoreDrill {namespace}/{name}")]
    Cancel {
        /// Where.
        namespace: String,
        /// Which.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The tenants could not be listed.
    #[error("failed to list JournalTenants")]
    ListTenants(#[source] Box<kube::Error>),
    /// The finalizer could not be taken from one.
    #[error("failed to remove the finalizer of {kind} {name}")]
    Release {
        /// Of which kind.
        kind: &'static str,
        /// Which.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// What was left in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Tenants that stay, by name. Without an operator nobody looks after them.
    pub kept: BTreeSet<String>,
    /// Tenants whose deletion had been asked for and now goes through.
    pub deleting: BTreeSet<String>,
    /// Namespaces that hold what a drill restored, which nobody takes away any more.
    pub drills: BTreeSet<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kept, deleting, drills } = self;
        writeln!(f, "The operator is stopped. {} tenants stay, with their namespaces and data:", kept.len())?;
        for name in kept {
            writeln!(f, "  JournalTenant {name}, namespace journal-{name}")?;
        }
        if !deleting.is_empty() {
            writeln!(
                f,
                "{} tenants were being deleted; what the operator had not cleaned up yet may remain:",
                deleting.len()
            )?;
            for name in deleting {
                writeln!(f, "  namespace journal-{name}")?;
            }
        }
        if !drills.is_empty() {
            writeln!(
                f,
                "{} drills had not been torn down; what they restored is in these namespaces, to be deleted:",
                drills.len()
            )?;
            for name in drills {
                writeln!(f, "  namespace {name}")?;
            }
        }
        writeln!(f, "From now on nothing reconciles them. Install the chart again to take them up.")
    }
}

/// Cancels the drills that are not over, and waits twice `patience` at most for what they restored to go, stops the operator in `namespace`,
/// waits at most `patience` for its pods to go, and takes the finalizer from every tenant. Running it again does what is
/// left to do.
///
/// # Errors
/// See [`Error`]. If the pods do not go, no finalizer is removed: a running operator would put it back.
pub async fn run(client: &Client, namespace: &str, patience: Duration) -> Result<Report, Error> {
    end_drills(client, patience * 2).await?;
    stop_operator(client, namespace).await?;
    await_pods_gone(client, namespace, patience).await?;
    let drills = release_drills(client).await?;
    Ok(Report { drills, ..release_tenants(client).await? })
}

/// Cancels the drills that are not over, which are those with the finalizer, and waits for `patience` until what they
/// restored is gone. Whatever is there then is told at the end: nobody takes it away any more, and nothing guards it.
async fn end_drills(client: &Client, patience: Duration) -> Result<(), Error> {
    if restored(client).await?.is_empty() {
        return Ok(());
    }
    let is_held = |drill: &PartialObjectMeta<DynamicObject>| {
        drill.finalizers().iter().any(|finalizer| finalizer == DRILL_FINALIZER)
    };
    let held: Vec<_> = drills(client).await?.into_iter().filter(is_held).collect();
    stream::iter(held)
        .map(|drill| cancel(client, drill.namespace().unwrap_or_default(), drill.name_any()))
        .buffer_unordered(AT_ONCE)
        .for_each(|cancelled| async {
            if let Err(error) = cancelled {
                warn!(error = chain(&error), "failed to cancel a drill, going on");
            }
        })
        .await;
    info!("waiting for what drills restored to be taken away");
    let namespaces = Api::<Namespace>::all(client.clone());
    let mut left = BTreeSet::new();
    let waiting = watch_until_gone(namespaces, DRILL_LABEL, |_| true, &mut left);
    if timeout(patience, waiting).await.is_err() {
        warn!(?left, "not all that drills restored is gone in time, going on");
    }
    Ok(())
}

/// Cancels the drill `name`. One that ended stays as it is, and one that is gone is as good as ended.
#[expect(
    clippy::disallowed_methods,
    reason = "this is no write of the operator, and of one field that only ever goes one way"
)]
async fn cancel(client: &Client, namespace: String, name: String) -> Result<(), Error> {
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &drill_kind());
    let patch = Patch::Merge(json!({ "spec": { "cancel": true } }));
    match api.patch(&name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error::Cancel { namespace, name, source: Box::new(source) }),
    }
}

fn drill_kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("valv.eu", "v1alpha1", "RestoreDrill"))
}

async fn drills(client: &Client) -> Result<Vec<PartialObjectMeta<DynamicObject>>, Error> {
    let all = Api::<DynamicObject>::all_with(client.clone(), &drill_kind());
    match all.list_metadata(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        // The kind itself is gone: so are all drills.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(vec![]),
        Err(source) => Err(Error::ListDrills(Box::new(source))),
    }
}

/// The namespaces with what drills restored.
async fn restored(client: &Client) -> Result<BTreeSet<String>, Error> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let left = namespaces.list_metadata(&ListParams::default().labels(DRILL_LABEL)).await;
    let left = left.map_err(|source| Error::ListDrills(Box::new(source)))?;
    Ok(left.items.iter().map(ResourceExt::name_any).collect())
}

/// Lets the drills go, without which no tenant's namespace could be deleted, and says where what they restored is.
async fn release_drills(client: &Client) -> Result<BTreeSet<String>, Error> {
    for drill in drills(client).await? {
        let home = drill.namespace().unwrap_or_default();
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), &home, &drill_kind());
        release(&api, drill, "RestoreDrill", DRILL_FINALIZER).await?;
    }
    restored(client).await
}

async fn stop_operator(client: &Client, namespace: &str) -> Result<(), Error> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    let found =
        deployments.list_metadata(&ListParams::default().labels(OPERATOR)).await.map_err(|source| {
            Error::ListDeployments { namespace: namespace.to_owned(), source: Box::new(source) }
        })?;
    for deployment in found {
        let name = deployment.name_any();
        let nothing = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
        deployments.patch_scale(&name, &PatchParams::default(), &nothing).await.map_err(|source| {
            Error::Stop { namespace: namespace.to_owned(), name: name.clone(), source: Box::new(source) }
        })?;
        info!(object.name = name, "scaled the operator to nothing");
    }
    Ok(())
}

/// Pods that ended by themselves (evicted, completed) may stay: they run no more.
async fn await_pods_gone(client: &Client, namespace: &str, patience: Duration) -> Result<(), Error> {
    let mut left = BTreeSet::new();
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    match timeout(patience, watch_until_gone(pods, OPERATOR, is_running, &mut left)).await {
        Ok(()) => Ok(()),
        Err(_) => Err(Error::StillRunning {
            namespace: namespace.to_owned(),
            left: left.into_iter().collect(),
            after: patience,
        }),
    }
}

/// Ends when none of the objects with `labels` counts any more; `left` names those that are known to remain at any time.
async fn watch_until_gone<K>(api: Api<K>, labels: &str, counts: fn(&K) -> bool, left: &mut BTreeSet<String>)
where
    K: kube::Resource<DynamicType = ()> + Clone + fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let events = watcher(api, watcher::Config::default().labels(labels));
    pin_mut!(events);
    let mut listed = Listed::InPart;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                left.clear();
                listed = Listed::InPart;
            }
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                if counts(&object) {
                    left.insert(object.name_any());
                } else {
                    left.remove(&object.name_any());
                }
            }
            Ok(Event::Delete(object)) => {
                left.remove(&object.name_any());
            }
            Ok(Event::InitDone) => listed = Listed::Whole,
            // The watcher tries again by itself; the deadline ends it.
            Err(error) => {
                warn!(error = chain(&error), "failed to watch what is to go");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        if listed == Listed::Whole && left.is_empty() {
            return;
        }
    }
}

#[derive(PartialEq)]
enum Listed {
    InPart,
    Whole,
}

fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

async fn release_tenants(client: &Client) -> Result<Report, Error> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("valv.eu", "v1alpha1", "JournalTenant"));
    let tenants = Api::<DynamicObject>::all_with(client.clone(), &kind);
    let mut report = Report::default();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = match tenants.list_metadata(&page).await {
            Ok(list) => list,
            // The kind itself is gone: so are all tenants.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(report),
            Err(source) => return Err(Error::ListTenants(Box::new(source))),
        };
        for tenant in &list.items {
            let of_its_sort = if tenant.metadata.deletion_timestamp.is_some() {
                &mut report.deleting
            } else {
                &mut report.kept
            };
            of_its_sort.insert(tenant.name_any());
        }
        let next = list.metadata.continue_.clone().filter(|token| !token.is_empty());
        stream::iter(list.items)
            .map(|tenant| release(&tenants, tenant, "JournalTenant", FINALIZER))
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        match next {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(report),
        }
    }
}

/// Takes the `finalizer` from `object`, and nothing else. One that is gone is as good as released.
#[expect(
    clippy::disallowed_methods,
    reason = "this is no write of the operator: it is stopped, and nobody leads; the resourceVersion is the fence"
)]
async fn release(
    api: &Api<DynamicObject>,
    mut object: PartialObjectMeta<DynamicObject>,
    kind: &'static str,
    finalizer: &str,
) -> Result<(), Error> {
    let name = object.name_any();
    let failed = |source| Error::Release { kind, name: name.clone(), source: Box::new(source) };
    let mut tries = 0;
    loop {
        let finalizers = object.metadata.finalizers.clone().unwrap_or_default();
        let rest: Vec<&String> = finalizers.iter().filter(|name| *name != finalizer).collect();
        if rest.len() == finalizers.len() {
            return Ok(());
        }
        let patch = Patch::Merge(json!({
            "metadata": { "resourceVersion": object.metadata.resource_version, "finalizers": rest },
        }));
        match api.patch(&name, &PatchParams::default(), &patch).await {
            Ok(_) => {
                info!(object.kind = kind, object.name = name, "removed the finalizer");
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => tries += 1,
            Err(source) => return Err(failed(source)),
        }
        match api.get_metadata_opt(&name).await.map_err(failed)? {
            Some(as_it_is_now) => object = as_it_is_now,
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    use ::http::{Method, Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::Value;

    use super::*;
    use crate::fake_api::{self, refuse, respond};

    const PATIENCE: Duration = Duration::from_millis(300);

    /// An API server with one Deployment, its pods, and tenants whose `resourceVersion` it enforces.
    #[derive(Clone, Default)]
    struct FakeCluster(Arc<Mutex<State>>);

    #[derive(Default)]
    struct State {
        replicas: i64,
        stuck_pods: Vec<&'static str>,
        tenants: BTreeMap<String, Value>,
        drills: BTreeMap<String, Value>,
        /// What drills restored that nobody takes away.
        stuck_drills: Vec<&'static str>,
        /// Drills that nobody may change.
        guarded_drills: Vec<&'static str>,
        conflicts_to_come: u32,
        kind_is_gone: bool,
    }

    impl FakeCluster {
        fn with_tenants(names: &[&str]) -> Self {
            let tenant = |name: &str| {
                json!({
                    "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant",
                    "metadata": {
                        "name": name, "resourceVersion": "1",
                        "finalizers": ["example.com/other", FINALIZER],
                    },
                })
            };
            let tenants = names.iter().map(|name| ((*name).to_owned(), tenant(name))).collect();
            Self(Arc::new(Mutex::new(State { replicas: 2, tenants, ..State::default() })))
        }

        fn change(&self, change: impl FnOnce(&mut State)) {
            change(&mut self.0.lock().unwrap());
        }

        fn finalizers(&self, name: &str) -> Value {
            self.0.lock().unwrap().tenants[name]["metadata"]["finalizers"].clone()
        }

        fn client(&self) -> Client {
            let cluster = self.clone();
            fake_api::client(move |request| {
                let cluster = cluster.clone();
                async move { cluster.serve(&request).await }
            })
        }

        async fn serve(&self, request: &Request<Value>) -> Response<Body> {
            if request.uri().query().unwrap_or_default().contains("watch=") {
                return std::future::pending().await;
            }
            self.0.lock().unwrap().handle(request.method(), request.uri().path(), request.body())
        }
    }

    impl State {
        fn handle(&mut self, method: &Method, path: &str, body: &Value) -> Response<Body> {
            match path.rsplit('/').next().unwrap() {
                "deployments" => list(vec![json!({ "metadata": { "name": "valv-operator" } })]),
                "scale" => {
                    self.replicas = body["spec"]["replicas"].as_i64().unwrap();
                    respond(StatusCode::OK, &json!({ "metadata": { "name": "valv-operator" } }))
                }
                "pods" => {
                    list(self.stuck_pods.iter().map(|pod| json!({ "metadata": { "name": pod } })).collect())
                }
                "restoredrills" if self.kind_is_gone => refuse(StatusCode::NOT_FOUND, "NotFound"),
                "restoredrills" => list(self.drills.values().cloned().collect()),
                "namespaces" => {
                    // One that is over has left nothing.
                    let is_there = |(name, drill): &(&String, &Value)| {
                        let is_over = drill["metadata"]["finalizers"].is_null();
                        (!is_over && drill["spec"]["cancel"] != true)
                            || self.stuck_drills.contains(&name.as_str())
                    };
                    let there = self.drills.iter().filter(is_there);
                    let name = |(name, _)| json!({ "metadata": { "name": format!("drill-{name}") } });
                    list(there.map(name).collect())
                }
                "journaltenants" if self.kind_is_gone => refuse(StatusCode::NOT_FOUND, "NotFound"),
                "journaltenants" => list(self.tenants.values().cloned().collect()),
                name if *method == Method::PATCH => self.patch(name, body),
                name => respond(StatusCode::OK, &self.tenants[name]),
            }
        }

        fn patch(&mut self, name: &str, body: &Value) -> Response<Body> {
            if body.get("spec").is_some() && self.guarded_drills.contains(&name) {
                return refuse(StatusCode::FORBIDDEN, "Forbidden");
            }
            if let (Some(drill), Some(spec)) = (self.drills.get_mut(name), body.get("spec")) {
                assert_eq!(self.replicas, 2, "nobody is there any more to take away what it restored");
                drill["spec"] = spec.clone();
                return respond(StatusCode::OK, drill);
            }
            assert_eq!(self.replicas, 0, "the operator still runs");
            if let Some(drill) = self.drills.get_mut(name) {
                drill["metadata"]["finalizers"] = body["metadata"]["finalizers"].clone();
                return respond(StatusCode::OK, drill);
            }
            let metadata = &mut self.tenants.get_mut(name).unwrap()["metadata"];
            if self.conflicts_to_come > 0 {
                self.conflicts_to_come -= 1;
                metadata["resourceVersion"] = json!(format!("conflict-{}", self.conflicts_to_come));
            }
            if body["metadata"]["resourceVersion"] != metadata["resourceVersion"] {
                return refuse(StatusCode::CONFLICT, "Conflict");
            }
            metadata["finalizers"] = body["metadata"]["finalizers"].clone();
            respond(StatusCode::OK, &self.tenants[name])
        }
    }

    fn list(items: Vec<Value>) -> Response<Body> {
        respond(StatusCode::OK, &json!({ "metadata": { "resourceVersion": "9" }, "items": items }))
    }

    #[tokio::test]
    async fn every_tenant_is_released_and_kept_and_others_finalizers_stay() {
        let cluster = FakeCluster::with_tenants(&["ada", "bo"]);

        let report = run(&cluster.client(), "valv-system", PATIENCE).await.unwrap();

        assert_eq!(cluster.finalizers("ada"), json!(["example.com/other"]));
        assert_eq!(cluster.finalizers("bo"), json!(["example.com/other"]));
        assert!(report.to_string().contains("JournalTenant ada, namespace journal-ada"), "{report}");
    }

    fn with_a_drill() -> FakeCluster {
        let cluster = FakeCluster::with_tenants(&["ada"]);
        let drill = json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "RestoreDrill",
            "metadata": {
                "name": "by-hand", "namespace": "journal-ada",
                "finalizers": ["example.com/other", DRILL_FINALIZER],
            },
        });
        cluster.change(|state| {
            state.drills.insert("by-hand".to_owned(), drill);
        });
        cluster
    }

    #[tokio::test]
    async fn drills_are_torn_down_before_the_operator_is_stopped() {
        let cluster = with_a_drill();

        let report = run(&cluster.client(), "valv-system", PATIENCE).await.unwrap();

        assert_eq!(cluster.0.lock().unwrap().drills["by-hand"]["spec"], json!({ "cancel": true }));
        assert_eq!(report.drills, BTreeSet::new(), "what it restored is gone");
    }

    #[tokio::test]
    async fn drills_that_are_over_are_left_as_they_are() {
        let cluster = with_a_drill();
        let over = json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "RestoreDrill",
            "metadata": { "name": "long-ago", "namespace": "journal-ada" },
        });
        cluster.change(|state| drop(state.drills.insert("long-ago".to_owned(), over.clone())));

        run(&cluster.client(), "valv-system", PATIENCE).await.unwrap();

        let drills = cluster.0.lock().unwrap().drills.clone();
        assert_eq!(drills["by-hand"]["spec"], json!({ "cancel": true }));
        assert_eq!(drills["long-ago"], over);
    }

    #[tokio::test]
    async fn a_drill_that_cannot_be_cancelled_keeps_no_operator() {
        let cluster = with_a_drill();
        let another = cluster.0.lock().unwrap().drills["by-hand"].clone();
        cluster.change(|state| {
            state.drills.insert("guarded".to_owned(), another);
            state.drills.get_mut("guarded").unwrap()["metadata"]["name"] = json!("guarded");
            state.guarded_drills = vec!["guarded"];
        });

        let report = run(&cluster.client(), "valv-system", PATIENCE).await.unwrap();

        let drills = cluster.0.lock().unwrap().drills.clone();
        assert_eq!(drills["by-hand"]["spec"], json!({ "cancel": true }));
        assert_eq!(cluster.finalizers("ada"), json!(["example.com/other"]));
        assert_eq!(report.drills, BTreeSet::from(["drill-guarded".to_owned()]));
    }

    #[tokio::test]
    async fn a_drill_that_is_not_torn_down_is_let_go_and_where_it_restored_is_told() {
        let cluster = with_a_drill();
        cluster.change(|state| state.stuck_drills = vec!["by-hand"]);

        let report = run(&cluster.client(), "valv-system", PATIENCE).await.unwrap();

        let finalizers = cluster.0.lock().unwrap().drills["by-hand"]["metadata"]["finalizers"].clone();
        assert_eq!(finalizers, json!(["example.com/other"]));
        assert!(report.to_string().contains("namespace drill-by-hand"), "{report}");
    }

    #[tokio::test]
    async fn an_operator_that_does_not_stop_keeps_its_finalizers() {
        let cluster = FakeCluster::with_tenants(&["ada"]);
        cluster.change(|state| state.stuck_pods = vec!["valv-operator-7d4"]);

        let error = run(&cluster.client(), "valv-system", PATIENCE).await.unwrap_err();

        assert!(
            matches!(&error, Error::StillRunning { left, .. } if left == &["valv-operator-7d4"]),
            "{error}"
        );
        assert_eq!(cluster.finalizers("ada"), json!(["example.com/other", FINALIZER]));
    }

    #[tokio::test]
    async fn a_tenant_that_somebody_changes_meanwhile_is_tried_again() {
        let cluster = FakeCluster::with_tenants(&["ada"]);
        cluster.change(|state| state.conflicts_to_come = 2);

        run(&cluster.client(), "valv-system", PATIENCE).await.unwrap();

        assert_eq!(cluster.finalizers("ada"), json!(["example.com/other"]));
    }

    #[tokio::test]
    async fn a_tenant_that_is_being_deleted_is_reported_apart() {
        let cluster = FakeCluster::with_tenants(&["ada"]);
        cluster.change(|state| {
            let metadata = &mut state.tenants.get_mut("ada").unwrap()["metadata"];
            metadata["deletionTimestamp"] = json!("2026-03-01T12:00:00Z");
        });

        let report = run(&cluster.client(), "valv-system", PATIENCE).await.unwrap();

        assert!(report.kept.is_empty());
        assert_eq!(report.deleting, BTreeSet::from(["ada".to_owned()]));
    }

    #[tokio::test]
    async fn running_it_again_changes_nothing_more() {
        let cluster = FakeCluster::with_tenants(&["ada"]);

        let once = run(&cluster.client(), "valv-system", PATIENCE).await.unwrap();
        let twice = run(&cluster.client(), "valv-system", PATIENCE).await.unwrap();

        assert_eq!(once, twice);
    }

    #[tokio::test]
    async fn a_cluster_without_the_kind_has_no_tenants() {
        let cluster = FakeCluster::with_tenants(&[]);
        cluster.change(|state| state.kind_is_gone = true);

        let report = run(&cluster.client(), "valv-system", PATIENCE).await.unwrap();

        assert_eq!(report, Report::default());
    }
}
