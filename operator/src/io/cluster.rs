//! The only place that writes objects to the cluster.
//!
//! Every write is fenced (a leader that was stopped and replaced writes nothing) and carries the version of the
//! object that it was decided on, so that a decision on old news is refused instead of carried out.

use std::sync::Arc;

use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
    core::DynamicObject,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tracing::info;
use valv_crds::{
    JournalTenant, JournalTenantStatus,
    reference::{APPLIED_ANNOTATION, FINALIZER, TENANT_LABEL},
};

use super::{
    difference::difference,
    kind::{Key, Kind},
};
use crate::{
    lease::{Leadership, NotLeader},
    metrics::Metrics,
};

/// Owner of every field that this operator sets. Changing it orphans fields in live clusters.
pub const FIELD_MANAGER: &str = "valv";

/// The cluster, to write to.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    leadership: Leadership,
    metrics: Arc<Metrics>,
}

/// An object could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The apiserver refused, or did not answer.
    #[error("failed to {verb} {key} in {namespace}")]
    Api {
        /// What was being done.
        verb: &'static str,
        /// To what.
        key: String,
        /// Where.
        namespace: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// Another operator leads now; nothing was written.
    #[error("failed to {verb} {key} in {namespace}: this operator no longer leads")]
    Fenced {
        /// What was being done.
        verb: &'static str,
        /// To what.
        key: String,
        /// Where.
        namespace: String,
        /// Since when.
        source: NotLeader,
    },
}

impl Error {
    /// What the apiserver answered, if it did.
    pub fn status(&self) -> Option<&kube::core::Status> {
        let Self::Api { source, .. } = self else { return None };
        if let kube::Error::Api(status) = source.as_ref() { Some(status) } else { None }
    }

    /// Whether the object had moved on: look again at once.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409)
    }

    /// Whether the operator may not do this.
    pub fn is_forbidden(&self) -> bool {
        self.status().is_some_and(|status| status.code == 403)
    }

    /// Whether the apiserver says that the object can never be stored as it is.
    pub fn is_refusal(&self) -> bool {
        self.status().is_some_and(|status| matches!(status.code, 400 | 403 | 422))
    }
}

/// Whether a write was needed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Applied {
    /// The object stood as wanted.
    Unchanged,
    /// It was made or mended.
    Written,
}

impl Cluster {
    /// The cluster behind `client`, written to while `leadership` holds.
    pub fn new(client: Client, leadership: Leadership, metrics: Arc<Metrics>) -> Self {
        Self { client, leadership, metrics }
    }

    /// Makes `wanted` so, by server-side apply, unless `standing` already is.
    ///
    /// `wanted` is the operator's whole opinion of the object: a field that it mentions no more is taken away.
    pub async fn apply(
        &self,
        key: &Key,
        wanted: &Value,
        standing: Option<&DynamicObject>,
    ) -> Result<Applied, Error> {
        let mut wanted = wanted.clone();
        let digest = digest(&wanted);
        wanted["metadata"]["annotations"][APPLIED_ANNOTATION] = json!(digest);
        let mut why = "absent".to_owned();
        if let Some(standing) = standing {
            let standing_value = serde_json::to_value(standing).unwrap_or_default();
            match difference(&wanted, &standing_value) {
                None => return Ok(Applied::Unchanged),
                Some(path) => why = path,
            }
            wanted["metadata"]["resourceVersion"] = json!(standing.resource_version());
        }
        let namespace = wanted["metadata"]["namespace"].as_str().map(str::to_owned);
        self.patch(
            key,
            namespace.as_deref(),
            &Patch::Apply(&wanted),
            PatchParams::apply(FIELD_MANAGER).force(),
        )
        .await?;
        info!(object.kind = %key.kind, object.name = key.name, difference = why, "applied");
        Ok(Applied::Written)
    }

    /// Creates `namespace`, which must not be there: one that is somebody else's is never taken over.
    pub async fn create_namespace(&self, namespace: &Namespace) -> Result<(), Error> {
        let key = Key::new(Kind::Namespace, namespace.name_any());
        self.fence("create", &key, "the cluster")?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let created = Api::<Namespace>::all(self.client.clone()).create(&params, namespace).await;
        created.map_err(|source| failed("create", &key, "the cluster", source))?;
        self.written(&key);
        Ok(())
    }

    /// Creates `secret`, which must not be there.
    pub async fn create_secret(&self, namespace: &str, secret: &Secret) -> Result<(), Error> {
        let key = Key::new(Kind::Secret, secret.name_any());
        self.fence("create", &key, namespace)?;
        let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let created = api.create(&params, secret).await;
        created.map_err(|source| failed("create", &key, namespace, source))?;
        self.written(&key);
        Ok(())
    }

    /// Replaces the data of `secret` in the version that was read.
    pub async fn replace_secret(&self, namespace: &str, secret: &Secret) -> Result<(), Error> {
        let key = Key::new(Kind::Secret, secret.name_any());
        self.fence("replace", &key, namespace)?;
        let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let replaced = api.replace(&key.name, &params, secret).await;
        replaced.map_err(|source| failed("replace", &key, namespace, source))?;
        self.written(&key);
        Ok(())
    }

    /// The Secrets of `namespace` that carry the tenant's label.
    pub async fn own_secrets(&self, namespace: &str) -> Result<Vec<Secret>, Error> {
        let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let secrets = api.list(&ListParams::default().labels(TENANT_LABEL)).await;
        let key = Key::new(Kind::Secret, "*");
        Ok(secrets.map_err(|source| failed("list", &key, namespace, source))?.items)
    }

    /// One object that the spec names, or that it is not there.
    pub async fn get<K>(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<K>, Error>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        api.get_opt(name).await.map_err(|source| failed("get", &Key::new(kind, name), namespace, source))
    }

    /// Whether a cluster-scoped object is there.
    pub async fn get_cluster_scoped<K>(&self, kind: &'static str, name: &str) -> Result<Option<K>, Error>
    where
        K: kube::Resource<Scope = kube::core::ClusterResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api = Api::<K>::all(self.client.clone());
        api.get_opt(name).await.map_err(|source| Error::Api {
            verb: "get",
            key: format!("{kind} {name}"),
            namespace: "the cluster".to_owned(),
            source: Box::new(source),
        })
    }

    /// All objects of a cluster-scoped kind.
    pub async fn list_cluster_scoped<K>(&self, kind: &'static str) -> Result<Vec<K>, Error>
    where
        K: kube::Resource<Scope = kube::core::ClusterResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api = Api::<K>::all(self.client.clone());
        let listed = api.list(&ListParams::default()).await;
        Ok(listed
            .map_err(|source| Error::Api {
                verb: "list",
                key: kind.to_owned(),
                namespace: "the cluster".to_owned(),
                source: Box::new(source),
            })?
            .items)
    }

    /// Deletes the object that was seen, and no other of its name. What is gone already is no error.
    pub async fn delete(&self, key: &Key, standing: &DynamicObject) -> Result<(), Error> {
        let namespace = standing.namespace();
        let shown = namespace.clone().unwrap_or_else(|| "the cluster".to_owned());
        if standing.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        self.fence("delete", key, &shown)?;
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: standing.uid(), resource_version: None }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let deleted = self.api(key.kind, namespace.as_deref()).delete(&key.name, &params).await;
        match deleted {
            Ok(_) => {
                info!(object.kind = %key.kind, object.name = key.name, "deleted");
                self.written(key);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(failed("delete", key, &shown, source)),
        }
    }

    /// Sets or removes annotations of an object.
    pub async fn annotate(
        &self,
        key: &Key,
        namespace: Option<&str>,
        annotations: &[(&str, Option<String>)],
    ) -> Result<(), Error> {
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let patch = json!({ "metadata": { "annotations": annotations } });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.patch(key, namespace, &Patch::Merge(&patch), params).await.map(|_| ())
    }

    /// Adds or removes the operator's finalizer on `tenant`, in the version that was seen.
    pub async fn set_finalizer(&self, tenant: &JournalTenant, finalizer: Finalizer) -> Result<(), Error> {
        let others = tenant.finalizers().iter().filter(|name| *name != FINALIZER).cloned();
        let finalizers: Vec<String> = match finalizer {
            Finalizer::Present => others.chain([FINALIZER.to_owned()]).collect(),
            Finalizer::Absent => others.collect(),
        };
        let patch = json!({ "metadata": {
            "finalizers": finalizers, "resourceVersion": tenant.resource_version(),
        }});
        self.fence("patch", &tenant_key(tenant), "the cluster")?;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = Api::<JournalTenant>::all(self.client.clone());
        let patched = api.patch_metadata(&tenant.name_any(), &params, &Patch::Merge(&patch)).await;
        match patched {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 && finalizer == Finalizer::Absent => Ok(()),
            Err(source) => Err(failed("patch", &tenant_key(tenant), "the cluster", source)),
        }
    }

    /// Writes `status` to `tenant`, in the version that was seen, unless it stands so already.
    pub async fn set_status(
        &self,
        tenant: &JournalTenant,
        status: &JournalTenantStatus,
    ) -> Result<Applied, Error> {
        if tenant.status.as_ref() == Some(status) {
            return Ok(Applied::Unchanged);
        }
        self.fence("update the status of", &tenant_key(tenant), "the cluster")?;
        let mut updated = tenant.clone();
        updated.metadata.managed_fields = None;
        updated.status = Some(status.clone());
        let api = Api::<JournalTenant>::all(self.client.clone());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        api.replace_status(&tenant.name_any(), &params, &updated)
            .await
            .map_err(|source| failed("update the status of", &tenant_key(tenant), "the cluster", source))?;
        self.metrics.written("JournalTenant");
        Ok(Applied::Written)
    }

    async fn patch(
        &self,
        key: &Key,
        namespace: Option<&str>,
        patch: &Patch<&Value>,
        params: PatchParams,
    ) -> Result<DynamicObject, Error> {
        let shown = namespace.unwrap_or("the cluster");
        self.fence("apply", key, shown)?;
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let patched = self.api(key.kind, namespace).patch(&key.name, &params, patch).await;
        let patched = patched.map_err(|source| failed("apply", key, shown, source))?;
        self.written(key);
        Ok(patched)
    }

    fn api(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = kind.resource();
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    fn fence(&self, verb: &'static str, key: &Key, namespace: &str) -> Result<(), Error> {
        self.leadership.check().map_err(|source| Error::Fenced {
            verb,
            key: key.to_string(),
            namespace: namespace.to_owned(),
            source,
        })
    }

    fn written(&self, key: &Key) {
        self.metrics.written(key.kind.as_str());
    }
}

/// Whether the operator's finalizer is to be on an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Finalizer {
    /// The operator is asked before the object goes.
    Present,
    /// The object may go.
    Absent,
}

/// Digest of an opinion, short enough for an annotation.
fn digest(value: &Value) -> String {
    hex(&Sha256::digest(value.to_string().as_bytes()))[..16].to_owned()
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A Secret's data as bytes.
pub fn bytes(text: impl AsRef<[u8]>) -> ByteString {
    ByteString(text.as_ref().to_vec())
}

fn tenant_key(tenant: &JournalTenant) -> Key {
    Key::new(Kind::JournalTenant, tenant.name_any())
}

fn failed(verb: &'static str, key: &Key, namespace: &str, source: kube::Error) -> Error {
    Error::Api { verb, key: key.to_string(), namespace: namespace.to_owned(), source: Box::new(source) }
}
