//! The only place that writes objects to the cluster.
//!
//! Every write is fenced (a leader that was stopped and replaced writes nothing) and carries the version of the
//! object that it was decided on, so that a decision on old news is refused instead of carried out.

use std::{future::Future, sync::Arc, time::Duration};

use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Pod, Secret},
};
use kube::{
    Api, Client, ResourceExt,
    api::{
        DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
    },
    core::{DynamicObject, object::HasStatus},
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::info;
use valv_crds::{
    Backup, JournalTenant, RestoreDrill,
    reference::{APPLIED_ANNOTATION, DRILL_FINALIZER, FINALIZER, TENANT_LABEL},
};

use super::{
    difference::{difference, replacements},
    kind::{Key, Kind},
};
use crate::{
    digest,
    keyholder::decide::{MANAGED_BY, MANAGER},
    lease::{Leadership, NotLeader},
    metrics::Metrics,
};

/// Owner of every field that this operator sets. Changing it orphans fields in live clusters.
pub const FIELD_MANAGER: &str = "valv";

/// How long an answer may take. Less than a leader that cannot renew its Lease still has before another may take
/// over, and short enough that an apiserver which has fallen silent holds up no tenant for long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The most of a log that is read at once.
const LOG_LIMIT_BYTES: i64 = 64 * 1024;

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
    /// No answer came in time. A write may have been carried out all the same.
    #[error("failed to {verb} {key} in {namespace}: no answer within {} s", after.as_secs())]
    TimedOut {
        /// What was being done.
        verb: &'static str,
        /// To what.
        key: String,
        /// Where.
        namespace: String,
        /// How long was waited.
        after: Duration,
    },
    /// The apiserver stores something else than what it was told.
    #[error(
        "failed to mend {key} in {namespace}: {path} is stored otherwise than it is wanted; an admission webhook changes it, or it is written in another way than Kubernetes stores it"
    )]
    Contested {
        /// What was being mended.
        key: String,
        /// Where.
        namespace: String,
        /// What is not as wanted.
        path: String,
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

    /// Whether this operator leads no more: nothing was written.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced { .. })
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    /// Whether the operator may not do this.
    pub fn is_forbidden(&self) -> bool {
        self.status().is_some_and(|status| status.code == 403)
    }

    /// Whether the object can never be stored as it is, until somebody acts.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Contested { .. })
            || self.status().is_some_and(|status| matches!(status.code, 400 | 403 | 422))
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
    /// `wanted` is the operator's whole opinion of the object: a field that it mentions no more is taken away, and so
    /// is what somebody else put into what it wants whole (see [`difference`]).
    pub async fn apply(
        &self,
        key: &Key,
        wanted: &Value,
        standing: Option<&DynamicObject>,
    ) -> Result<Applied, Error> {
        let mut wanted = wanted.clone();
        let digest = digest::of(wanted.to_string().as_bytes());
        wanted["metadata"]["annotations"][APPLIED_ANNOTATION] = json!(digest);
        let mut why = "absent".to_owned();
        let mut seen = None;
        if let Some(standing) = standing {
            let value = serde_json::to_value(standing).unwrap_or_default();
            let Some(path) = difference(&wanted, &value) else { return Ok(Applied::Unchanged) };
            why = path.to_string();
            if difference(&wanted["roleRef"], &value["roleRef"]).is_some() {
                // What a RoleBinding binds cannot be changed: it is made anew.
                self.delete(key, standing).await?;
            } else {
                seen = standing.resource_version();
            }
        }
        let namespace = wanted["metadata"]["namespace"].as_str().map(str::to_owned);
        let mut applied = wanted.clone();
        if let Some(version) = seen {
            applied["metadata"]["resourceVersion"] = json!(version);
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let stored = self.patch(key, namespace.as_deref(), &Patch::Apply(&applied), params).await?;
        self.prune(key, namespace.as_deref(), &wanted, stored).await?;
        info!(object.kind = %key.kind, object.name = key.name, difference = why, "applied");
        Ok(Applied::Written)
    }

    /// Takes from `stored` what server-side apply left there of others, in the version that it returned.
    async fn prune(
        &self,
        key: &Key,
        namespace: Option<&str>,
        wanted: &Value,
        stored: DynamicObject,
    ) -> Result<(), Error> {
        let shown = namespace.unwrap_or("the cluster");
        let version = stored.resource_version();
        let mut value = serde_json::to_value(stored).unwrap_or_default();
        let mut operations = replacements(wanted, &value);
        if !operations.is_empty() {
            // A `test` that fails is 422 to the apiserver; a version that has passed is 409, which it is.
            operations
                .push(json!({ "op": "replace", "path": "/metadata/resourceVersion", "value": version }));
            let patch = serde_json::from_value(Value::Array(operations));
            let patch =
                patch.map_err(|source| failed("apply", key, shown, kube::Error::SerdeError(source)))?;
            let params =
                PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            let pruned = self.patch(key, namespace, &Patch::Json(patch), params).await?;
            value = serde_json::to_value(pruned).unwrap_or_default();
        }
        match difference(wanted, &value) {
            None => Ok(()),
            Some(path) => Err(Error::Contested {
                key: key.to_string(),
                namespace: shown.to_owned(),
                path: path.to_string(),
            }),
        }
    }

    /// Creates `namespace`, which must not be there: one that is somebody else's is never taken over.
    pub async fn create_namespace(&self, namespace: &Namespace) -> Result<Namespace, Error> {
        let key = Key::new(Kind::Namespace, namespace.name_any());
        self.fence("create", &key, "the cluster")?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let api = Api::<Namespace>::all(self.client.clone());
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let request = api.create(&params, namespace);
        let created = in_time("create", &key, "the cluster", request).await?;
        self.written(&key);
        Ok(created)
    }

    /// Creates `secret`, which must not be there.
    pub async fn create_secret(&self, namespace: &str, secret: &Secret) -> Result<(), Error> {
        let key = Key::new(Kind::Secret, secret.name_any());
        self.fence("create", &key, namespace)?;
        let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let request = api.create(&params, secret);
        in_time("create", &key, namespace, request).await?;
        self.written(&key);
        Ok(())
    }

    /// Creates `wanted`, which must not be there, and returns it as it is stored.
    pub async fn create(&self, key: &Key, wanted: &Value) -> Result<DynamicObject, Error> {
        let namespace = wanted["metadata"]["namespace"].as_str().map(str::to_owned);
        let shown = namespace.clone().unwrap_or_else(|| "the cluster".to_owned());
        self.fence("create", key, &shown)?;
        let object: DynamicObject = serde_json::from_value(wanted.clone())
            .map_err(|source| failed("create", key, &shown, kube::Error::SerdeError(source)))?;
        let api = self.api(key.kind, namespace.as_deref());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let request = api.create(&params, &object);
        let stored = in_time("create", key, &shown, request).await?;
        self.written(key);
        info!(object.kind = %key.kind, object.name = key.name, "created");
        Ok(stored)
    }

    /// The object, as it stands at this moment.
    pub async fn live(&self, key: &Key, namespace: &str) -> Result<Option<DynamicObject>, Error> {
        in_time("get", key, namespace, self.api(key.kind, Some(namespace)).get_opt(&key.name)).await
    }

    /// What is known of the object without what is in it, as it stands at this moment: of a Secret no value comes here.
    pub async fn metadata(&self, key: &Key, namespace: &str) -> Result<Option<DynamicObject>, Error> {
        let api = self.api(key.kind, Some(namespace));
        let found = in_time("get", key, namespace, api.get_metadata_opt(&key.name)).await?;
        Ok(found.map(|found| DynamicObject {
            types: found.types,
            metadata: found.metadata,
            data: serde_json::Value::Null,
        }))
    }

    /// The pods of the Job with this UID, as they stand at this moment.
    pub async fn pods_of_job(&self, namespace: &str, job: &str) -> Result<Vec<DynamicObject>, Error> {
        let params = ListParams::default().labels(&format!("batch.kubernetes.io/controller-uid={job}"));
        let api = self.api(Kind::Pod, Some(namespace));
        Ok(in_time("list", "Pods", namespace, api.list(&params)).await?.items)
    }

    /// The last lines of a container's log.
    pub async fn log_tail(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        lines: i64,
    ) -> Result<String, Error> {
        let params = LogParams {
            container: Some(container.to_owned()),
            tail_lines: Some(lines),
            limit_bytes: Some(LOG_LIMIT_BYTES),
            ..LogParams::default()
        };
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        in_time("read the log of", Key::new(Kind::Pod, pod), namespace, api.logs(pod, &params)).await
    }

    /// Has the Job that was seen, and no other of its name, deleted by Kubernetes so long after its end.
    pub async fn expire_job(
        &self,
        key: &Key,
        standing: &DynamicObject,
        after: Duration,
    ) -> Result<(), Error> {
        let patch = json!({
            "metadata": { "uid": standing.uid() }, "spec": { "ttlSecondsAfterFinished": after.as_secs() },
        });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match self.patch(key, standing.namespace().as_deref(), &Patch::Merge(&patch), params).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            patched => patched.map(drop),
        }
    }

    /// Whether there is a tenant of this name at this moment, whatever its spec says.
    pub async fn tenant_is_there(&self, name: &str) -> Result<bool, Error> {
        let api = Api::<JournalTenant>::all(self.client.clone());
        let found =
            in_time("get", Key::new(Kind::JournalTenant, name), "the cluster", api.get_metadata_opt(name));
        Ok(found.await?.is_some())
    }

    /// Whether this process may still write: for what is written elsewhere than in the cluster.
    pub fn leads(&self) -> Result<(), NotLeader> {
        self.leadership.check()
    }

    /// Creates `backup`, which must not be there.
    pub async fn create_backup(&self, backup: &Backup) -> Result<(), Error> {
        let key = Key::new(Kind::Backup, backup.name_any());
        let namespace = backup.namespace().unwrap_or_default();
        self.fence("create", &key, &namespace)?;
        let api = Api::<Backup>::namespaced(self.client.clone(), &namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let request = api.create(&params, backup);
        in_time("create", &key, &namespace, request).await?;
        self.written(&key);
        Ok(())
    }

    /// Creates `drill`, which must not be there.
    pub async fn create_drill(&self, drill: &RestoreDrill) -> Result<(), Error> {
        let key = Key::new(Kind::RestoreDrill, drill.name_any());
        let namespace = drill.namespace().unwrap_or_default();
        self.fence("create", &key, &namespace)?;
        let api = Api::<RestoreDrill>::namespaced(self.client.clone(), &namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let request = api.create(&params, drill);
        in_time("create", &key, &namespace, request).await?;
        self.written(&key);
        Ok(())
    }

    /// Adds or removes the finalizer of drills on `drill`, in the version that was seen.
    pub async fn set_drill_finalizer(&self, drill: &RestoreDrill, finalizer: Finalizer) -> Result<(), Error> {
        let key = Key::new(Kind::RestoreDrill, drill.name_any());
        let namespace = drill.namespace().unwrap_or_default();
        let others = drill.finalizers().iter().filter(|name| *name != DRILL_FINALIZER).cloned();
        let finalizers: Vec<String> = match finalizer {
            Finalizer::Present => others.chain([DRILL_FINALIZER.to_owned()]).collect(),
            Finalizer::Absent => others.collect(),
        };
        let patch = json!({ "metadata": {
            "finalizers": finalizers, "resourceVersion": drill.resource_version(),
        }});
        self.fence("patch", &key, &namespace)?;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = Api::<RestoreDrill>::namespaced(self.client.clone(), &namespace);
        let merge = Patch::Merge(&patch);
        let request = api.patch_metadata(&key.name, &params, &merge);
        match in_time("patch", &key, &namespace, request).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() && finalizer == Finalizer::Absent => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The objects of a kind in `namespace` that `labels` select, all of them if it is empty, whoever made them: asked of
    /// the API server itself.
    pub async fn list_in<K>(&self, kind: Kind, namespace: &str, labels: &str) -> Result<Vec<K>, Error>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().labels(labels);
        Ok(in_time("list", format!("{kind}s"), namespace, api.list(&params)).await?.items)
    }

    /// Replaces the data of `secret` in the version that was read.
    pub async fn replace_secret(&self, namespace: &str, secret: &Secret) -> Result<(), Error> {
        let key = Key::new(Kind::Secret, secret.name_any());
        self.fence("replace", &key, namespace)?;
        let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let request = api.replace(&key.name, &params, secret);
        in_time("replace", &key, namespace, request).await?;
        self.written(&key);
        Ok(())
    }

    /// The Secrets of `namespace` that carry the tenant's label.
    pub async fn own_secrets(&self, namespace: &str) -> Result<Vec<Secret>, Error> {
        let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
        // But what the key holder brings, which the operator has no use for.
        let params = ListParams::default().labels(&format!("{TENANT_LABEL},{MANAGED_BY}!={MANAGER}"));
        Ok(in_time("list", "Secrets", namespace, api.list(&params)).await?.items)
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
        in_time("get", Key::new(kind, name), namespace, api.get_opt(name)).await
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
        in_time("get", format!("{kind} {name}"), "the cluster", api.get_opt(name)).await
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
        Ok(in_time("list", kind, "the cluster", api.list(&ListParams::default())).await?.items)
    }

    /// Deletes the object that was seen, and no other of its name. What is gone already is no error.
    ///
    /// A Secret is deleted only as it was seen: one that was replaced keeps its UID. Of others the status moves by
    /// itself, and says nothing about whether they should go.
    pub async fn delete(&self, key: &Key, standing: &DynamicObject) -> Result<(), Error> {
        let namespace = standing.namespace();
        let shown = namespace.clone().unwrap_or_else(|| "the cluster".to_owned());
        if standing.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        self.fence("delete", key, &shown)?;
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: standing.uid(),
                resource_version: standing.resource_version().filter(|_| key.kind == Kind::Secret),
            }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        let api = self.api(key.kind, namespace.as_deref());
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let request = api.delete(&key.name, &params);
        match in_time("delete", key, &shown, request).await {
            Ok(_) => {
                info!(object.kind = %key.kind, object.name = key.name, "deleted");
                self.written(key);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sets or removes annotations of the object that was seen, in the version that was seen.
    pub async fn annotate(
        &self,
        key: &Key,
        standing: &DynamicObject,
        annotations: &[(&str, Option<String>)],
    ) -> Result<(), Error> {
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let patch = json!({ "metadata": {
            "annotations": annotations, "resourceVersion": standing.resource_version(),
        }});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.patch(key, standing.namespace().as_deref(), &Patch::Merge(&patch), params).await.map(drop)
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
        let name = tenant.name_any();
        let merge = Patch::Merge(&patch);
        let request = api.patch_metadata(&name, &params, &merge);
        match in_time("patch", tenant_key(tenant), "the cluster", request).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() && finalizer == Finalizer::Absent => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether this very `tenant` is there at this moment.
    pub async fn has(&self, tenant: &JournalTenant) -> Result<bool, Error> {
        let api = Api::<JournalTenant>::all(self.client.clone());
        let name = tenant.name_any();
        let request = api.get_metadata_opt(&name);
        let found = in_time("get", tenant_key(tenant), "the cluster", request).await?;
        Ok(found.is_some_and(|found| found.metadata.uid == tenant.metadata.uid))
    }

    /// Writes `status` to `object` of `kind`, which has no namespace, in the version that was seen, unless it stands
    /// so already.
    pub async fn set_status<K>(&self, kind: Kind, object: &K, status: &K::Status) -> Result<Applied, Error>
    where
        K: kube::Resource<Scope = kube::core::ClusterResourceScope, DynamicType = ()>
            + HasStatus
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
        K::Status: Clone + PartialEq,
    {
        if object.status() == Some(status) {
            return Ok(Applied::Unchanged);
        }
        self.replace_status(Api::<K>::all(self.client.clone()), kind, object, status).await
    }

    /// As [`set_status`](Self::set_status), of an object that has a namespace.
    pub async fn set_status_in_namespace<K>(
        &self,
        kind: Kind,
        object: &K,
        status: &K::Status,
    ) -> Result<Applied, Error>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + HasStatus
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
        K::Status: Clone + PartialEq,
    {
        if object.status() == Some(status) {
            return Ok(Applied::Unchanged);
        }
        let namespace = object.namespace().unwrap_or_default();
        self.replace_status(Api::<K>::namespaced(self.client.clone(), &namespace), kind, object, status).await
    }

    async fn replace_status<K>(
        &self,
        api: Api<K>,
        kind: Kind,
        object: &K,
        status: &K::Status,
    ) -> Result<Applied, Error>
    where
        K: kube::Resource<DynamicType = ()>
            + HasStatus
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
        K::Status: Clone,
    {
        let key = Key::new(kind, object.name_any());
        let shown = object.namespace().unwrap_or_else(|| "the cluster".to_owned());
        self.fence("update the status of", &key, &shown)?;
        let mut updated = object.clone();
        updated.meta_mut().managed_fields = None;
        *updated.status_mut() = Some(status.clone());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let request = api.replace_status(&key.name, &params, &updated);
        in_time("update the status of", &key, &shown, request).await?;
        self.written(&key);
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
        let api = self.api(key.kind, namespace);
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let request = api.patch(&key.name, &params, patch);
        let patched = in_time("apply", key, shown, request).await?;
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

/// A Secret's data as bytes.
pub fn bytes(text: impl AsRef<[u8]>) -> ByteString {
    ByteString(text.as_ref().to_vec())
}

fn tenant_key(tenant: &JournalTenant) -> Key {
    Key::new(Kind::JournalTenant, tenant.name_any())
}

/// The answer to `request`, if it comes in time.
async fn in_time<T>(
    verb: &'static str,
    key: impl ToString,
    namespace: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    within(REQUEST_TIMEOUT, verb, key, namespace, request).await
}

async fn within<T>(
    after: Duration,
    verb: &'static str,
    key: impl ToString,
    namespace: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    match timeout(after, request).await {
        Ok(answer) => answer.map_err(|source| failed(verb, key, namespace, source)),
        Err(_) => Err(Error::TimedOut { verb, key: key.to_string(), namespace: namespace.to_owned(), after }),
    }
}

fn failed(verb: &'static str, key: impl ToString, namespace: &str, source: kube::Error) -> Error {
    Error::Api { verb, key: key.to_string(), namespace: namespace.to_owned(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, future::ready, sync::Mutex};

    use ::http::{Method, Request, Response, StatusCode};
    use kube::client::Body;

    use super::*;
    use crate::fake_api;

    /// An API server that gives the answers it was told to, and remembers what it was asked.
    #[derive(Clone, Default)]
    struct FakeApiServer {
        answers: Arc<Mutex<VecDeque<Value>>>,
        asked: Arc<Mutex<Vec<(Method, Value)>>>,
    }

    impl FakeApiServer {
        fn answering(answers: impl IntoIterator<Item = Value>) -> Self {
            Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Self::default() }
        }

        fn cluster(&self) -> Cluster {
            let server = self.clone();
            fake_api::cluster(fake_api::client(move |request| ready(server.serve(request))))
        }

        fn serve(&self, request: Request<Value>) -> Response<Body> {
            let (parts, body) = request.into_parts();
            self.asked.lock().unwrap().push((parts.method, body));
            let answer = self.answers.lock().unwrap().pop_front().expect("it is asked no more than expected");
            let code = answer["code"].as_u64().map_or(200, |code| u16::try_from(code).unwrap());
            fake_api::respond(StatusCode::from_u16(code).unwrap(), &answer)
        }

        fn asked(&self) -> Vec<(Method, Value)> {
            self.asked.lock().unwrap().clone()
        }
    }

    fn deployment(version: &str, containers: &[&str]) -> Value {
        let containers: Vec<_> = containers.iter().map(|name| json!({ "name": name })).collect();
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "journal", "namespace": "journal-ada", "resourceVersion": version },
            "spec": { "containers": containers },
        })
    }

    fn wanted(mut object: Value) -> Value {
        object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        object
    }

    /// As it stands once it was applied.
    fn stored(mut object: Value, as_applied: &Value) -> Value {
        let digest = digest::of(wanted(as_applied.clone()).to_string().as_bytes());
        object["metadata"]["annotations"] = json!({ APPLIED_ANNOTATION: digest });
        object
    }

    fn seen(object: &Value) -> DynamicObject {
        serde_json::from_value(object.clone()).unwrap()
    }

    #[tokio::test]
    async fn what_stands_as_wanted_is_not_written() {
        let asked_for = deployment("7", &["journal"]);
        let server = FakeApiServer::default();

        let key = Key::new(Kind::Deployment, "journal");
        let standing = seen(&stored(asked_for.clone(), &asked_for));
        let applied = server.cluster().apply(&key, &wanted(asked_for), Some(&standing)).await.unwrap();

        assert_eq!(applied, Applied::Unchanged);
        assert_eq!(server.asked(), []);
    }

    #[tokio::test]
    async fn a_sidecar_that_apply_leaves_is_taken_away_in_the_version_that_apply_returned() {
        let asked_for = deployment("7", &["journal"]);
        let edited = stored(deployment("7", &["journal", "sidecar"]), &asked_for);
        let mut left = edited.clone();
        left["metadata"]["resourceVersion"] = json!("8");
        let server = FakeApiServer::answering([left, stored(deployment("9", &["journal"]), &asked_for)]);

        let key = Key::new(Kind::Deployment, "journal");
        let applied = server.cluster().apply(&key, &wanted(asked_for), Some(&seen(&edited))).await.unwrap();

        assert_eq!(applied, Applied::Written);
        let asked = server.asked();
        assert_eq!(asked[0].1["metadata"]["resourceVersion"], "7");
        assert_eq!(
            asked[1].1,
            json!([
                { "op": "replace", "path": "/spec/containers", "value": [{ "name": "journal" }] },
                { "op": "replace", "path": "/metadata/resourceVersion", "value": "8" },
            ])
        );
        assert_eq!(asked.len(), 2);
    }

    #[tokio::test]
    async fn what_is_put_back_while_it_is_stored_is_a_refusal_that_names_it() {
        let asked_for = deployment("7", &["journal"]);
        let injected = stored(deployment("8", &["journal", "sidecar"]), &asked_for);
        let server = FakeApiServer::answering([injected.clone(), injected]);

        let key = Key::new(Kind::Deployment, "journal");
        let error = server.cluster().apply(&key, &wanted(asked_for), None).await.unwrap_err();

        assert!(error.is_refusal());
        assert!(error.to_string().contains(".spec.containers"), "{error}");
    }

    #[tokio::test]
    async fn a_role_binding_that_binds_another_role_is_made_anew() {
        let binding = |role: &str| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": { "name": "valv-operator", "namespace": "journal-ada", "uid": "u", "resourceVersion": "7" },
                "roleRef": { "name": role },
            })
        };
        let mut asked_for = wanted(binding("valv-tenant-manager"));
        asked_for["metadata"].as_object_mut().unwrap().remove("uid");
        let mut made = stored(asked_for.clone(), &asked_for);
        made["metadata"]["resourceVersion"] = json!("9");
        let server = FakeApiServer::answering([json!({ "kind": "Status", "status": "Success" }), made]);

        let key = Key::new(Kind::RoleBinding, "valv-operator");
        server.cluster().apply(&key, &asked_for, Some(&seen(&binding("view")))).await.unwrap();

        let asked = server.asked();
        assert_eq!(asked[0].0, Method::DELETE);
        assert_eq!(asked[0].1["preconditions"]["uid"], "u");
        assert_eq!(asked[1].0, Method::PATCH);
        assert_eq!(asked[1].1["metadata"].get("resourceVersion"), None);
    }

    #[tokio::test]
    async fn a_mark_carries_the_version_that_was_seen() {
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": "database-0", "namespace": "journal-ada", "resourceVersion": "7" },
        });
        let server = FakeApiServer::answering([claim.clone()]);

        let key = Key::new(Kind::PersistentVolumeClaim, "database-0");
        let marks = [("valv.eu/retained-since", Some("2026-03-01T12:00:00Z".to_owned()))];
        server.cluster().annotate(&key, &seen(&claim), &marks).await.unwrap();

        assert_eq!(server.asked()[0].1["metadata"]["resourceVersion"], "7");
    }

    #[tokio::test]
    async fn a_secret_is_deleted_only_as_it_was_seen_and_others_by_uid() {
        let object = |kind: &str| {
            json!({
                "apiVersion": "v1", "kind": kind,
                "metadata": { "name": "a", "namespace": "journal-ada", "uid": "u", "resourceVersion": "7" },
            })
        };
        let gone = json!({ "kind": "Status", "status": "Success" });
        let server = FakeApiServer::answering([gone.clone(), gone]);

        let cluster = server.cluster();
        cluster.delete(&Key::new(Kind::Secret, "a"), &seen(&object("Secret"))).await.unwrap();
        cluster.delete(&Key::new(Kind::Service, "a"), &seen(&object("Service"))).await.unwrap();

        let preconditions: Vec<_> =
            server.asked().into_iter().map(|(_, body)| body["preconditions"].clone()).collect();
        assert_eq!(preconditions, [json!({ "uid": "u", "resourceVersion": "7" }), json!({ "uid": "u" })]);
    }

    #[tokio::test]
    async fn an_apiserver_that_never_answers_is_given_up() {
        let request = std::future::pending::<kube::Result<()>>();

        let error = within(Duration::from_millis(10), "get", "Secret a", "journal-ada", request).await;

        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("failed to get Secret a in journal-ada: no answer within"), "{error}");
    }
}
