//! What the cluster holds for each tenant, as the apiserver last said.
//!
//! One watch a kind, for all tenants, of objects that carry the tenant's label; indexed by tenant, so that a
//! reconciliation reads its own objects only, whatever the number of tenants. Secrets are not here.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use futures::{FutureExt, Stream, StreamExt, stream};
use kube::{
    Api, Client, ResourceExt,
    core::{DynamicObject, TypeMeta},
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::{mpsc, watch};
use tracing::warn;
use valv_crds::reference::TENANT_LABEL;

use super::kind::{Key, Kind};
use crate::error::chain;

/// The objects of one tenant.
pub type Objects = BTreeMap<Key, Arc<DynamicObject>>;

/// The objects of all tenants.
#[derive(Clone)]
pub struct Cache {
    tenants: Arc<RwLock<HashMap<String, Objects>>>,
    synced: watch::Receiver<usize>,
    kinds: usize,
    gateway: bool,
}

impl Cache {
    /// Starts to watch `kinds`. The stream names each tenant whose objects changed, and must be polled for
    /// the cache to move.
    pub fn start(client: &Client, kinds: &[Kind]) -> (Self, impl Stream<Item = String> + Send + use<>) {
        let (tell, synced) = watch::channel(0);
        let cache = Self {
            tenants: Arc::default(),
            synced,
            kinds: kinds.len(),
            gateway: kinds.contains(&Kind::HttpRoute),
        };
        let (changed, changes) = mpsc::unbounded_channel();
        let watches: Vec<_> = kinds
            .iter()
            .map(|&kind| cache.clone().watch(client.clone(), kind, changed.clone(), tell.clone()))
            .collect();
        let watching = stream::iter(watches)
            .for_each_concurrent(None, |watch| watch)
            .into_stream()
            .filter_map(|()| async { None });
        let changes = stream::unfold(changes, |mut changes| async {
            changes.recv().await.map(|tenant| (tenant, changes))
        });
        (cache, stream::select(watching, changes))
    }

    /// Waits until every kind was listed once.
    pub async fn synced(&self) {
        let mut synced = self.synced.clone();
        // The sender lives as long as the watches; without them there is nothing to wait for.
        let _ = synced.wait_for(|&done| done >= self.kinds).await;
    }

    /// Whether every kind was listed once.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow() >= self.kinds
    }

    /// Whether the cluster has the Gateway API, as far as it is watched.
    pub fn has_gateway_api(&self) -> bool {
        self.gateway
    }

    /// The objects of `tenant`.
    pub fn of(&self, tenant: &str) -> Objects {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.get(tenant).cloned().unwrap_or_default()
    }

    async fn watch(
        self,
        client: Client,
        kind: Kind,
        changed: mpsc::UnboundedSender<String>,
        synced: watch::Sender<usize>,
    ) {
        let api = Api::<DynamicObject>::all_with(client, &kind.resource());
        let config = watcher::Config::default().labels(TENANT_LABEL);
        let mut listed: HashSet<(String, Key)> = HashSet::new();
        let mut first = true;
        let mut events = watcher(api, config).default_backoff().boxed();
        while let Some(event) = events.next().await {
            let touched = match event {
                Ok(watcher::Event::Init) => {
                    listed.clear();
                    vec![]
                }
                Ok(watcher::Event::InitApply(object)) => {
                    let touched = self.put(kind, object);
                    listed.extend(touched.clone());
                    touched.into_iter().map(|(tenant, _)| tenant).collect()
                }
                Ok(watcher::Event::InitDone) => {
                    if first {
                        first = false;
                        synced.send_modify(|done| *done += 1);
                    }
                    self.keep(kind, &listed)
                }
                Ok(watcher::Event::Apply(object)) => {
                    self.put(kind, object).into_iter().map(|(tenant, _)| tenant).collect()
                }
                Ok(watcher::Event::Delete(object)) => self.drop_object(kind, &object),
                Err(error) => {
                    warn!(
                        object.kind = kind.as_str(),
                        error = chain(&error),
                        "failed to watch, trying again"
                    );
                    vec![]
                }
            };
            for tenant in touched {
                // Nobody listens any more only when the operator stops.
                let _ = changed.send(tenant);
            }
        }
    }

    fn put(&self, kind: Kind, mut object: DynamicObject) -> Option<(String, Key)> {
        object.metadata.managed_fields = None;
        // The items of a list come without their kind, those of a watch with it.
        object.types = Some(TypeMeta { api_version: kind.api_version(), kind: kind.as_str().to_owned() });
        let tenant = object.labels().get(TENANT_LABEL)?.clone();
        let key = Key::new(kind, object.name_any());
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        tenants.entry(tenant.clone()).or_default().insert(key.clone(), Arc::new(object));
        Some((tenant, key))
    }

    fn drop_object(&self, kind: Kind, object: &DynamicObject) -> Vec<String> {
        let Some(tenant) = object.labels().get(TENANT_LABEL) else { return vec![] };
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(objects) = tenants.get_mut(tenant) {
            objects.remove(&Key::new(kind, object.name_any()));
            if objects.is_empty() {
                tenants.remove(tenant);
            }
        }
        vec![tenant.clone()]
    }

    /// Drops what a new list no longer has.
    fn keep(&self, kind: Kind, listed: &HashSet<(String, Key)>) -> Vec<String> {
        let mut touched = vec![];
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|tenant, objects| {
            let before = objects.len();
            objects.retain(|key, _| key.kind != kind || listed.contains(&(tenant.clone(), key.clone())));
            if objects.len() != before {
                touched.push(tenant.clone());
            }
            !objects.is_empty()
        });
        touched
    }
}
