//! Looks at everything that a decision about a tenant rests on. Reads only.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Secret},
    networking::v1::IngressClass,
    storage::v1::StorageClass,
};
use kube::{ResourceExt, core::DynamicObject, runtime::reflector::Store};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use valv_crds::{JournalTenant, journal::Journal, reference::TENANT_LABEL};

use super::check::Tenant;
use crate::{
    controllers::Guarded,
    io::{
        cache::{Cache, Objects},
        cluster::{Cluster, Error, hex},
        kind::{Key, Kind},
    },
};

/// What the cluster said, before anything was decided.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The tenant's namespace.
    pub namespace: NamespaceSeen,
    /// Whether the operator may work in it.
    pub access: Access,
    /// What carries the tenant's label, Secrets apart.
    pub objects: Objects,
    /// The Secrets that Valv made.
    pub secrets: BTreeMap<String, Secret>,
    /// What the spec names and is not Valv's, with a digest of it where it is there.
    pub references: BTreeMap<Key, Option<Reference>>,
    /// Storage classes that were asked for: by name, or the default under an empty name.
    pub classes: BTreeMap<String, Option<Class>>,
    /// Whether the ingress class that the spec names is there.
    pub ingress_class_missing: bool,
    /// Whether the cluster has the Gateway API.
    pub has_gateway_api: bool,
    /// The older tenant that has the same host name.
    pub host_owner: Option<String>,
}

/// The tenant's namespace, as seen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum NamespaceSeen {
    /// It is not there.
    #[default]
    Absent,
    /// It is this tenant's.
    Ours,
    /// It is somebody else's.
    Foreign,
    /// It is on its way out.
    Terminating,
}

/// Whether the operator may work in a tenant's namespace.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Access {
    /// Its role binding is not there, or was changed, or is not known everywhere yet.
    #[default]
    Denied,
    /// It may.
    Granted,
}

/// An object that the spec names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reference {
    /// Its keys.
    pub keys: Vec<String>,
    /// Digest of keys and values: pods that read it are replaced when it changes.
    pub digest: String,
    /// The values that the plan itself needs: certificates and logins that the user brings.
    pub data: BTreeMap<String, Vec<u8>>,
}

/// A storage class.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Whether its volumes can grow.
    pub can_expand: bool,
}

/// What must outlive the tenant's own object, kept in the ConfigMap `valv-state` of its namespace.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The journal's spec as it serves: what stands while a migration to a newer one runs or has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Journal>,
    /// Images whose migration succeeded, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub migrated: Vec<String>,
    /// Digest of the roles file that was last applied to the running database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles_applied: Option<String>,
    /// PostgreSQL's identifier of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
}

/// Name of the ConfigMap that holds a [`State`].
pub const STATE_NAME: &str = "valv-state";

/// Looks at everything that decisions about `tenant` rest on.
pub async fn observe(
    tenant: &Tenant,
    cluster: &Cluster,
    cache: &Cache,
    tenants: &Store<Guarded>,
) -> Result<Observed, Error> {
    let objects = cache.of(&tenant.name);
    let namespace = namespace(tenant, cluster, &objects).await?;
    let mut observed = Observed {
        namespace,
        objects,
        host_owner: host_owner(tenant, tenants),
        has_gateway_api: cache.has_gateway_api(),
        ..Observed::default()
    };
    if observed.namespace != NamespaceSeen::Ours || !observed.has(Kind::RoleBinding, "valv-operator") {
        return Ok(observed);
    }
    let secrets = match cluster.own_secrets(&tenant.namespace).await {
        Ok(secrets) => secrets,
        Err(error) if error.is_forbidden() => return Ok(observed),
        Err(error) => return Err(error),
    };
    observed.access = Access::Granted;
    observed.secrets = secrets.into_iter().map(|secret| (secret.name_any(), secret)).collect();
    references(tenant, cluster, &mut observed).await?;
    classes(tenant, cluster, &mut observed).await?;
    if let Some(class) = tenant.access.as_ref().and_then(|access| access.ingress.as_ref()) {
        let found = cluster.get_cluster_scoped::<IngressClass>("IngressClass", &class.class_name).await?;
        observed.ingress_class_missing = found.is_none();
    }
    Ok(observed)
}

/// What the cache shows as absent may be somebody else's: that is asked once more, directly.
async fn namespace(tenant: &Tenant, cluster: &Cluster, objects: &Objects) -> Result<NamespaceSeen, Error> {
    let seen = |deleted: bool, owner: Option<&String>| match owner {
        Some(owner) if *owner != tenant.name => NamespaceSeen::Foreign,
        None => NamespaceSeen::Foreign,
        Some(_) if deleted => NamespaceSeen::Terminating,
        Some(_) => NamespaceSeen::Ours,
    };
    if let Some(cached) = objects.get(&Key::new(Kind::Namespace, &tenant.namespace)) {
        let deleted = cached.metadata.deletion_timestamp.is_some();
        return Ok(seen(deleted, cached.labels().get(TENANT_LABEL)));
    }
    let found = cluster.get_cluster_scoped::<Namespace>("Namespace", &tenant.namespace).await?;
    Ok(found.map_or(NamespaceSeen::Absent, |namespace| {
        seen(namespace.metadata.deletion_timestamp.is_some(), namespace.labels().get(TENANT_LABEL))
    }))
}

fn host_owner(tenant: &Tenant, tenants: &Store<Guarded>) -> Option<String> {
    let age = |tenant: &JournalTenant| (tenant.creation_timestamp(), tenant.name_any());
    let own = age(&tenant.object);
    let same = tenants.state().into_iter().filter_map(|other| {
        let other = other.0.as_ref().ok()?;
        (other.spec.host == tenant.host).then(|| age(other))
    });
    same.min().filter(|oldest| *oldest < own).map(|(_, name)| name)
}

async fn references(tenant: &Tenant, cluster: &Cluster, observed: &mut Observed) -> Result<(), Error> {
    for key in tenant.referenced() {
        let (namespace, name) = (&tenant.namespace, &key.name);
        let found = if key.kind == Kind::Secret {
            let secret = cluster.get::<Secret>(Kind::Secret, namespace, name).await?;
            let kept = tenant.reads(name);
            secret.map(|secret| {
                let data = secret.data.unwrap_or_default();
                let data = data.into_iter().map(|(key, value)| (key, value.0)).collect();
                reference(data, kept)
            })
        } else {
            let map = cluster.get::<ConfigMap>(Kind::ConfigMap, namespace, name).await?;
            map.map(|map| {
                let text = map.data.unwrap_or_default().into_iter();
                let mut data: BTreeMap<_, _> = text.map(|(key, value)| (key, value.into_bytes())).collect();
                let binary = map.binary_data.unwrap_or_default().into_iter();
                data.extend(binary.map(|(key, value)| (key, value.0)));
                reference(data, Keep::Digest)
            })
        };
        observed.references.insert(key, found);
    }
    Ok(())
}

/// Whether the plan needs the values of a Secret, or only whether they changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keep {
    /// Only a digest.
    Digest,
    /// The values.
    Values,
}

fn reference(data: BTreeMap<String, Vec<u8>>, keep: Keep) -> Reference {
    let mut digest = Sha256::new();
    for (key, value) in &data {
        for part in [key.as_bytes(), value] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
    }
    Reference {
        keys: data.keys().cloned().collect(),
        digest: hex(&digest.finalize())[..16].to_owned(),
        data: if keep == Keep::Values { data } else { BTreeMap::new() },
    }
}

/// Storage classes are looked at only while a volume is not yet what it should be.
async fn classes(tenant: &Tenant, cluster: &Cluster, observed: &mut Observed) -> Result<(), Error> {
    for claim in tenant.claims() {
        let settled = observed.claim(&claim.name).is_some_and(|standing| {
            standing.phase == "Bound" && standing.capacity.is_some_and(|capacity| capacity >= claim.bytes())
        });
        let name = observed
            .claim(&claim.name)
            .and_then(|standing| standing.class)
            .or_else(|| claim.class.clone())
            .unwrap_or_default();
        if settled || observed.classes.contains_key(&name) {
            continue;
        }
        let found = if name.is_empty() {
            let all = cluster.list_cluster_scoped::<StorageClass>("StorageClass").await?;
            all.into_iter().find(is_default)
        } else {
            cluster.get_cluster_scoped::<StorageClass>("StorageClass", &name).await?
        };
        let class = found.map(|class| Class {
            name: class.name_any(),
            can_expand: class.allow_volume_expansion == Some(true),
        });
        observed.classes.insert(name, class);
    }
    Ok(())
}

fn is_default(class: &StorageClass) -> bool {
    class
        .annotations()
        .get("storageclass.kubernetes.io/is-default-class")
        .is_some_and(|value| value == "true")
}

/// A claim as it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClaimSeen {
    /// `Pending`, `Bound` or `Lost`.
    pub phase: String,
    /// Bytes that the volume has.
    pub capacity: Option<i128>,
    /// Its storage class.
    pub class: Option<String>,
}

impl Observed {
    /// Whether the object is there.
    pub fn has(&self, kind: Kind, name: &str) -> bool {
        self.get(kind, name).is_some()
    }

    /// The object, if it is there.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Arc<DynamicObject>> {
        self.objects.get(&Key::new(kind, name))
    }

    /// A field of an object, by JSON pointer.
    pub fn field(&self, kind: Kind, name: &str, pointer: &str) -> Option<&Value> {
        self.get(kind, name)?.data.pointer(pointer)
    }

    /// A text field of an object, by JSON pointer.
    pub fn text(&self, kind: Kind, name: &str, pointer: &str) -> Option<&str> {
        self.field(kind, name, pointer)?.as_str()
    }

    /// Objects of one kind.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &Arc<DynamicObject>> {
        self.objects.iter().filter(move |(key, _)| key.kind == kind).map(|(_, object)| object)
    }

    /// The claim `name`.
    pub fn claim(&self, name: &str) -> Option<ClaimSeen> {
        let claim = self.get(Kind::PersistentVolumeClaim, name)?;
        let text = |pointer| claim.data.pointer(pointer).and_then(Value::as_str);
        Some(ClaimSeen {
            phase: text("/status/phase").unwrap_or("Pending").to_owned(),
            capacity: text("/status/capacity/storage").and_then(crate::io::difference::quantity),
            class: text("/spec/storageClassName").map(str::to_owned),
        })
    }

    /// What was kept about the tenant.
    pub fn state(&self) -> State {
        self.text(Kind::ConfigMap, STATE_NAME, "/data/state.json")
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// How a Job ended.
    pub fn job(&self, name: &str) -> JobSeen {
        let Some(job) = self.get(Kind::Job, name) else { return JobSeen::Absent };
        let conditions = job.data.pointer("/status/conditions").and_then(Value::as_array);
        let has = |wanted: &str| {
            conditions.into_iter().flatten().any(|condition| {
                condition["type"].as_str() == Some(wanted) && condition["status"].as_str() == Some("True")
            })
        };
        match () {
            () if has("Complete") => JobSeen::Succeeded,
            () if has("Failed") => JobSeen::Failed,
            () => JobSeen::Active,
        }
    }

    /// Whether all pods of the workload are those that its spec asks for, and ready.
    pub fn rollout(&self, kind: Kind, name: &str) -> Rollout {
        let Some(workload) = self.get(kind, name) else { return Rollout::Absent };
        let number = |pointer| workload.data.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
        let wanted = workload.data.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
        let seen = number("/status/observedGeneration") >= workload.metadata.generation.unwrap_or_default();
        let all = number("/status/replicas");
        let updated = number("/status/updatedReplicas");
        let ready = number("/status/readyReplicas");
        if !seen
            || (kind == Kind::StatefulSet
                && wanted > 0
                && workload.data.pointer("/status/updateRevision")
                    != workload.data.pointer("/status/currentRevision"))
        {
            return Rollout::Progressing { ready };
        }
        if all == wanted && ready == wanted && (updated == wanted || kind == Kind::StatefulSet) {
            Rollout::Complete { ready }
        } else {
            Rollout::Progressing { ready }
        }
    }
}

/// How a Job stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum JobSeen {
    /// It is not there.
    Absent,
    /// It runs, or waits to.
    Active,
    /// It did its work.
    Succeeded,
    /// It gave up.
    Failed,
}

/// How a workload stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rollout {
    /// It is not there.
    Absent,
    /// Some of its pods are old, missing or not ready.
    Progressing {
        /// Pods that are ready.
        ready: i64,
    },
    /// It is all that its spec asks for.
    Complete {
        /// Pods that are ready.
        ready: i64,
    },
}

impl Rollout {
    /// Whether nothing is left to come.
    pub fn is_complete(self) -> bool {
        matches!(self, Self::Complete { .. })
    }

    /// Pods that are ready.
    pub fn ready(self) -> i64 {
        match self {
            Self::Absent => 0,
            Self::Progressing { ready } | Self::Complete { ready } => ready,
        }
    }
}
