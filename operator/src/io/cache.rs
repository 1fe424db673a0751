//! What the cluster holds for each tenant, as the apiserver last said.
//!
//! One watch a kind, for all tenants, of objects that carry the label `valv.eu/tenant`; indexed by the tenant in
//! whose namespace they are, so that a reconciliation reads its own objects only, whatever the number of tenants.
//! What a drill restored into its own namespace is a copy's, and never among the tenant's.
//! The label says what is watched, never whose it is: anybody who may write somewhere can write a label. Secrets
//! are not here.
//!
//! What runs for a tenant in the operator's own namespace is kept apart from what is in the tenant's: there the label
//! says whose it is, for nobody else writes there.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, future::join_all, stream};
use kube::{
    Api, Client, ResourceExt,
    core::{DynamicObject, TypeMeta},
    discovery,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tracing::{info, warn};
use valv_crds::reference::{DRILL_NAMESPACE_PREFIX, NAMESPACE_PREFIX, TENANT_LABEL};

use super::kind::{Key, Kind};
use crate::error::chain;

/// How often a cluster without the Gateway API is asked for it.
const GATEWAY_INTERVAL: Duration = Duration::from_secs(60);

/// The objects of one tenant.
pub type Objects = BTreeMap<Key, Arc<DynamicObject>>;

/// The objects of all tenants.
#[derive(Clone)]
pub struct Cache {
    index: Arc<RwLock<Index>>,
    /// The operator's own namespace.
    own: Arc<str>,
    /// Kinds that were listed once.
    synced: watch::Receiver<HashSet<Kind>>,
    /// Kinds that the cluster had when this began.
    kinds: Arc<[Kind]>,
}

impl Cache {
    /// Starts to watch. The stream names each tenant whose objects changed, and must be polled for the cache to
    /// move. A cluster that gets the Gateway API later is watched for it from then on.
    ///
    /// # Errors
    /// If the apiserver could not be asked whether it has the Gateway API; nothing was started then.
    pub async fn start(
        client: &Client,
        own_namespace: &str,
    ) -> kube::Result<(Self, impl Stream<Item = String> + Send + use<>)> {
        let has_gateway_api = has_gateway_api(client).await?;
        let gateway = has_gateway_api.then_some(Kind::GATEWAY).into_iter().flatten();
        let kinds: Arc<[Kind]> = Kind::WATCHED.into_iter().chain(gateway).collect();
        let (tell, synced) = watch::channel(HashSet::new());
        let cache = Self { index: Arc::default(), own: own_namespace.into(), synced, kinds: kinds.clone() };
        let (changed, changes) = mpsc::unbounded_channel();
        let watches = {
            let (cache, client) = (cache.clone(), client.clone());
            move |kinds: &[Kind]| {
                let watch = |&kind| cache.clone().watch(client.clone(), kind, changed.clone(), tell.clone());
                join_all(kinds.iter().map(watch))
            }
        };
        let client = client.clone();
        let watching = async move {
            let later = async {
                if !has_gateway_api {
                    gateway_api_is_installed(&client, GATEWAY_INTERVAL).await;
                    watches(&Kind::GATEWAY).await;
                }
            };
            tokio::join!(watches(&kinds), later);
        };
        let watching = watching.into_stream().filter_map(|()| async { None });
        let changes = stream::unfold(changes, |mut changes| async {
            changes.recv().await.map(|tenant| (tenant, changes))
        });
        Ok((cache, stream::select(watching, changes)))
    }

    /// A cache that nothing is watched for: for unit tests.
    #[cfg(test)]
    pub fn empty() -> Self {
        let (_, synced) = watch::channel(HashSet::new());
        Self { index: Arc::default(), own: "valv-system".into(), synced, kinds: [].into() }
    }

    /// Waits until every kind was listed once.
    pub async fn synced(&self) {
        let mut synced = self.synced.clone();
        // The sender lives as long as the watches; without them there is nothing to wait for.
        let _ = synced.wait_for(|synced| self.kinds.iter().all(|kind| synced.contains(kind))).await;
    }

    /// Whether the cluster has the Gateway API, as far as it is watched.
    pub fn has_gateway_api(&self) -> bool {
        let synced = self.synced.borrow();
        Kind::GATEWAY.iter().all(|kind| synced.contains(kind))
    }

    /// The objects of `tenant`: its namespace, and what is labelled in it.
    pub fn of(&self, tenant: &str) -> Objects {
        self.read().of(tenant)
    }

    /// What runs for `tenant` in the operator's own namespace.
    pub fn of_operator_for(&self, tenant: &str) -> Objects {
        self.read().in_place(&Place::Operator(tenant.to_owned()))
    }

    /// All that runs for tenants in the operator's own namespace.
    pub fn of_operator(&self) -> Vec<(Key, Arc<DynamicObject>)> {
        let index = self.read();
        let places = index.places.iter().filter(|(place, _)| matches!(place, Place::Operator(_)));
        places
            .flat_map(|(_, objects)| objects.iter().map(|(key, object)| (key.clone(), object.clone())))
            .collect()
    }

    /// Takes `object` in, as if a watch had told of it: for unit tests.
    #[cfg(test)]
    pub fn put(&self, kind: Kind, object: DynamicObject) {
        self.write().put(kind, object, &self.own);
    }

    /// The objects of the drill that restores into `namespace`: the namespace, and what is labelled in it.
    pub fn of_drill(&self, namespace: &str) -> Objects {
        self.read().in_place(&Place::Drill(namespace.to_owned()))
    }

    /// The namespaces of all drills, whatever has become of their drills.
    pub fn drill_namespaces(&self) -> Vec<Arc<DynamicObject>> {
        self.read().drill_namespaces()
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn watch(
        self,
        client: Client,
        kind: Kind,
        changed: mpsc::UnboundedSender<String>,
        synced: watch::Sender<HashSet<Kind>>,
    ) {
        let api = Api::<DynamicObject>::all_with(client, &kind.resource());
        let config = watcher::Config::default().labels(TENANT_LABEL);
        let mut listed: HashSet<(Place, Key)> = HashSet::new();
        let mut events = watcher(api, config).default_backoff().boxed();
        while let Some(event) = events.next().await {
            let touched = match event {
                Ok(watcher::Event::Init) => {
                    listed.clear();
                    vec![]
                }
                Ok(watcher::Event::InitApply(object)) => {
                    let touched = self.write().put(kind, object, &self.own);
                    listed.extend(touched.clone());
                    touched.into_iter().map(|(place, _)| place).collect()
                }
                Ok(watcher::Event::InitDone) => {
                    let touched = self.write().keep(kind, &listed);
                    synced.send_if_modified(|synced| synced.insert(kind));
                    touched
                }
                Ok(watcher::Event::Apply(object)) => {
                    let touched = self.write().put(kind, object, &self.own);
                    touched.into_iter().map(|(place, _)| place).collect()
                }
                Ok(watcher::Event::Delete(object)) => {
                    self.write().remove(kind, &object, &self.own).into_iter().collect()
                }
                Err(error) => {
                    warn!(
                        object.kind = kind.as_str(),
                        error = chain(&error),
                        "failed to watch, trying again"
                    );
                    vec![]
                }
            };
            for place in touched {
                if let Place::Tenant(tenant) = place {
                    // Nobody listens any more only when the operator stops.
                    let _ = changed.send(tenant);
                }
            }
        }
    }
}

/// Completes when the cluster has the Gateway API.
async fn gateway_api_is_installed(client: &Client, interval: Duration) {
    loop {
        sleep(interval).await;
        match has_gateway_api(client).await {
            Ok(true) => return info!("the gateway api was installed"),
            Ok(false) => {}
            Err(error) => warn!(error = chain(&error), "failed to look for the gateway api, trying again"),
        }
    }
}

async fn has_gateway_api(client: &Client) -> kube::Result<bool> {
    match discovery::group(client, "gateway.networking.k8s.io").await {
        Ok(group) => {
            let served: Vec<_> =
                group.versioned_resources("v1").into_iter().map(|(resource, _)| resource.kind).collect();
            Ok(Kind::GATEWAY.iter().all(|kind| served.iter().any(|served| served == kind.as_str())))
        }
        Err(kube::Error::Discovery(_)) => Ok(false),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where an object is, and whose it is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Place {
    /// In this tenant's namespace.
    Tenant(String),
    /// In the operator's own namespace, for this tenant.
    Operator(String),
    /// In this namespace of a drill.
    Drill(String),
}

/// Objects by the tenant in whose namespace they are, or for whom they run.
#[derive(Default)]
struct Index {
    places: HashMap<Place, Objects>,
}

impl Index {
    fn of(&self, tenant: &str) -> Objects {
        self.in_place(&Place::Tenant(tenant.to_owned()))
    }

    fn in_place(&self, place: &Place) -> Objects {
        self.places.get(place).cloned().unwrap_or_default()
    }

    fn drill_namespaces(&self) -> Vec<Arc<DynamicObject>> {
        let drills = self.places.iter().filter(|(place, _)| matches!(place, Place::Drill(_)));
        let namespaces = drills.flat_map(|(_, objects)| objects);
        namespaces.filter(|(key, _)| key.kind == Kind::Namespace).map(|(_, object)| object.clone()).collect()
    }

    /// Takes `object` in, and says where. What is in nobody's namespace is not taken in.
    fn put(&mut self, kind: Kind, mut object: DynamicObject, own: &str) -> Option<(Place, Key)> {
        let place = place(kind, &object, own)?;
        object.metadata.managed_fields = None;
        // The items of a list come without their kind, those of a watch with it.
        object.types = Some(TypeMeta { api_version: kind.api_version(), kind: kind.as_str().to_owned() });
        let key = Key::new(kind, object.name_any());
        self.places.entry(place.clone()).or_default().insert(key.clone(), Arc::new(object));
        Some((place, key))
    }

    /// Drops `object`, and says where it was.
    fn remove(&mut self, kind: Kind, object: &DynamicObject, own: &str) -> Option<Place> {
        let place = place(kind, object, own)?;
        if let Some(objects) = self.places.get_mut(&place) {
            objects.remove(&Key::new(kind, object.name_any()));
            if objects.is_empty() {
                self.places.remove(&place);
            }
        }
        Some(place)
    }

    /// Drops what a new list no longer has, and says where it was.
    fn keep(&mut self, kind: Kind, listed: &HashSet<(Place, Key)>) -> Vec<Place> {
        let mut touched = vec![];
        self.places.retain(|place, objects| {
            let before = objects.len();
            objects.retain(|key, _| key.kind != kind || listed.contains(&(place.clone(), key.clone())));
            if objects.len() != before {
                touched.push(place.clone());
            }
            !objects.is_empty()
        });
        touched
    }
}

/// Where `object` is, by names, which nobody can change; in the operator's own namespace, whose it is by its label.
fn place(kind: Kind, object: &DynamicObject, own: &str) -> Option<Place> {
    let metadata = &object.metadata;
    let namespace = if kind == Kind::Namespace { &metadata.name } else { &metadata.namespace };
    let namespace = namespace.as_deref()?;
    if kind != Kind::Namespace && namespace == own {
        return Some(Place::Operator(object.labels().get(TENANT_LABEL)?.clone()));
    }
    if namespace.starts_with(DRILL_NAMESPACE_PREFIX) {
        return Some(Place::Drill(namespace.to_owned()));
    }
    namespace.strip_prefix(NAMESPACE_PREFIX).map(|tenant| Place::Tenant(tenant.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{
        future::ready,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use ::http::StatusCode;
    use serde_json::json;
    use tokio::time::timeout;

    use super::*;
    use crate::fake_api;

    #[tokio::test]
    async fn the_gateway_api_is_found_when_it_is_installed_later() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let client = fake_api::client(move |request| {
            let version = json!({ "groupVersion": "gateway.networking.k8s.io/v1", "version": "v1" });
            let group = json!({
                "name": "gateway.networking.k8s.io", "versions": [version], "preferredVersion": version,
            });
            let kinds = [("HTTPRoute", "httproutes"), ("BackendTLSPolicy", "backendtlspolicies")];
            let resources = kinds.map(|(kind, name)| {
                json!({ "kind": kind, "name": name, "singularName": "", "namespaced": true, "verbs": ["list"] })
            });
            let answer = if request.uri().path() == "/apis" {
                let is_there = counted.fetch_add(1, Ordering::Relaxed) > 0;
                json!({ "groups": if is_there { vec![group] } else { vec![] } })
            } else {
                json!({ "groupVersion": "gateway.networking.k8s.io/v1", "resources": resources })
            };
            ready(fake_api::respond(StatusCode::OK, &answer))
        });

        let installed = gateway_api_is_installed(&client, Duration::from_millis(1));

        timeout(Duration::from_secs(10), installed).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    fn object(namespace: Option<&str>, name: &str, label: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": { "namespace": namespace, "name": name, "labels": { TENANT_LABEL: label } },
        }))
        .unwrap()
    }

    fn keys(index: &Index, tenant: &str) -> Vec<Key> {
        index.of(tenant).into_keys().collect()
    }

    #[test]
    fn an_object_elsewhere_that_says_to_be_a_tenants_is_not() {
        let mut index = Index::default();

        let touched = [
            index.put(Kind::ConfigMap, object(Some("playground"), "valv-state", "ada"), "valv-system"),
            index.put(Kind::Job, object(Some("default"), "migrate-1", "ada"), "valv-system"),
            index.put(Kind::Namespace, object(None, "playground", "ada"), "valv-system"),
        ];

        assert_eq!(touched, [const { None }; 3]);
        assert_eq!(keys(&index, "ada"), []);
    }

    #[test]
    fn an_object_belongs_to_the_tenant_in_whose_namespace_it_is_whatever_its_label_says() {
        let mut index = Index::default();

        index.put(Kind::ConfigMap, object(Some("journal-bo"), "valv-state", "ada"), "valv-system");

        assert_eq!(keys(&index, "ada"), []);
        assert_eq!(keys(&index, "bo"), [Key::new(Kind::ConfigMap, "valv-state")]);
    }

    #[test]
    fn a_relabelled_object_stays_where_it_is_and_is_seen_as_it_is_now() {
        let mut index = Index::default();
        index.put(Kind::Service, object(Some("journal-ada"), "journal", "ada"), "valv-system");

        index.put(Kind::Service, object(Some("journal-ada"), "journal", "bo"), "valv-system");

        let seen = index.of("ada")[&Key::new(Kind::Service, "journal")].clone();
        assert_eq!(seen.labels()[TENANT_LABEL], "bo");
        assert_eq!(keys(&index, "bo"), []);
    }

    #[test]
    fn what_a_drill_restored_is_not_among_the_tenants_own() {
        let into = "drill-ada-20261122t050000z";
        let mut index = Index::default();

        index.put(Kind::Namespace, object(None, into, "ada"), "valv-system");
        index.put(Kind::PersistentVolumeClaim, object(Some(into), "database-0", "ada"), "valv-system");
        // A tenant may be called so.
        index.put(Kind::Service, object(Some(&format!("journal-{into}")), "journal", into), "valv-system");

        assert_eq!(keys(&index, "ada"), []);
        assert_eq!(keys(&index, into), [Key::new(Kind::Service, "journal")]);
        let restored = [Key::new(Kind::Namespace, into), Key::new(Kind::PersistentVolumeClaim, "database-0")];
        let drill = index.in_place(&Place::Drill(into.to_owned()));
        assert_eq!(drill.into_keys().collect::<Vec<_>>(), restored);
        assert_eq!(index.drill_namespaces().len(), 1);
    }

    #[test]
    fn a_namespace_is_known_by_its_own_name() {
        let mut index = Index::default();

        index.put(Kind::Namespace, object(None, "journal-ada", "bo"), "valv-system");

        assert_eq!(keys(&index, "ada"), [Key::new(Kind::Namespace, "journal-ada")]);
        assert_eq!(keys(&index, "bo"), []);
    }

    #[test]
    fn what_is_deleted_or_no_longer_listed_is_gone_and_its_tenant_is_told() {
        let mut index = Index::default();
        let (service, job) =
            (object(Some("journal-ada"), "journal", "ada"), object(Some("journal-ada"), "a", "bo"));
        index.put(Kind::Service, service.clone(), "valv-system");
        index.put(Kind::Job, job, "valv-system");

        let ada = Place::Tenant("ada".to_owned());
        assert_eq!(index.remove(Kind::Service, &service, "valv-system"), Some(ada.clone()));
        assert_eq!(index.keep(Kind::Job, &HashSet::new()), [ada]);

        assert_eq!(keys(&index, "ada"), []);
        assert!(index.places.is_empty());
    }

    #[test]
    fn what_runs_for_a_tenant_in_the_operator_s_namespace_is_not_among_what_is_the_tenant_s() {
        let mut index = Index::default();
        let cache = Cache::empty();

        index.put(Kind::Job, object(Some("valv-system"), "verify-1", "ada"), "valv-system");
        cache.put(Kind::Job, object(Some("valv-system"), "verify-1", "ada"));

        assert_eq!(keys(&index, "ada"), []);
        assert!(cache.of("ada").is_empty());
        let job = Key::new(Kind::Job, "verify-1");
        assert!(cache.of_operator_for("ada").contains_key(&job));
        assert!(!cache.of_operator_for("bo").contains_key(&job));
        assert_eq!(cache.of_operator().len(), 1);
    }
}
