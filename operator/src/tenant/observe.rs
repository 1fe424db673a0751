//! Looks at everything that a decision about a tenant rests on. Reads only.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Secret},
    networking::v1::IngressClass,
    storage::v1::StorageClass,
};
use kube::{
    Resource, ResourceExt,
    api::ObjectMeta,
    core::DynamicObject,
    runtime::reflector::{ObjectRef, Store},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use valv_crds::{JournalTenant, journal::Journal, reference::TENANT_LABEL};

use super::{
    before_migration::Saving,
    check::Tenant,
    protection::{PolicySeen, Seen},
};
use crate::{
    controllers::{Guarded, GuardedBackup, GuardedDrill, GuardedPolicy},
    io::{
        cache::{Cache, Objects},
        cluster::{Cluster, Error},
        kind::{Key, Kind},
    },
    settings::Settings,
};

/// What the cluster said, before anything was decided. Its `Debug` names things and shows no content.
#[derive(Clone, Default)]
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
    /// The other tenant that has the host name.
    pub host_owner: Option<String>,
    /// Its backups, and the policy that it names.
    pub protection: Seen,
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

/// An object that the spec names. Its `Debug` shows no value.
#[derive(Clone, Eq, PartialEq)]
pub struct Reference {
    /// Its keys.
    pub keys: Vec<String>,
    /// Which object it is, and in which version: pods that read it are replaced when it changes. Nothing of its
    /// content, from which a weak value could be guessed.
    pub version: String,
    /// The values of a Secret: certificates and logins that the plan needs, and what no foreign words may show.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for Reference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Reference")
            .field("keys", &self.keys)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
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
    /// The migration that nobody else may run beside, by name of its Job: written before the Job is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrating: Option<String>,
    /// Images that served without a migration, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub served: Vec<String>,
    /// The backup before the migration that comes next: written before it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saving: Option<Saving>,
    /// The volume that was seen behind each claim, by name of the claim.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, String>,
    /// Digest of the roles file that was last applied to the running database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles_applied: Option<String>,
    /// PostgreSQL's identifier of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
}

/// Keys of Secrets under which nothing secret stands.
const PUBLIC_KEYS: [&str; 6] = ["tls.crt", "ca.crt", "user", "host", "port", "database"];

/// Name of the ConfigMap that holds a [`State`].
pub const STATE_NAME: &str = "valv-state";

/// Looks at everything that decisions about `tenant` rest on.
pub async fn observe(
    tenant: &Tenant,
    cluster: &Cluster,
    cache: &Cache,
    tenants: &Store<Guarded>,
    settings: &Settings,
    protection: Seen,
) -> Result<Observed, Error> {
    let objects = cache.of(&tenant.name);
    let namespace = namespace(tenant, cluster, &objects).await?;
    let mut observed = Observed {
        namespace,
        objects,
        host_owner: host_owner(tenant, tenants),
        has_gateway_api: cache.has_gateway_api(),
        protection,
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
    // Who goes needs nothing any more, and its spec may name what cannot be asked for.
    if tenant.object.metadata.deletion_timestamp.is_some() {
        return Ok(observed);
    }
    unseen(tenant, cluster, &mut observed).await?;
    references(tenant, cluster, &mut observed).await?;
    classes(tenant, cluster, settings, &mut observed).await?;
    if let Some(class) = tenant.access.as_ref().and_then(|access| access.ingress.as_ref()) {
        let found = cluster.get_cluster_scoped::<IngressClass>("IngressClass", &class.class_name).await?;
        observed.ingress_class_missing = found.is_none();
    }
    Ok(observed)
}

/// The backups of `tenant`, and the policy that it names. From memory.
///
/// Nobody makes `RestoreDrill`s yet: there are none to see.
pub fn protection(
    tenant: &Tenant,
    backups: &Store<GuardedBackup>,
    drills: &Store<GuardedDrill>,
    policies: &Store<GuardedPolicy>,
) -> Seen {
    let Some(asked) = &tenant.backup else { return Seen::default() };
    let policy = policies.get(&ObjectRef::new(&asked.policy));
    let policy = policy.and_then(|policy| policy.0.as_ref().ok().cloned());
    let backups = backups.state();
    let home = Some(tenant.namespace.as_str());
    let own = backups.iter().filter(|backup| backup.meta().namespace.as_deref() == home);
    let drills = drills.state();
    let own_drills = drills.iter().filter(|drill| drill.meta().namespace.as_deref() == home);
    Seen {
        policy: policy.map_or(PolicySeen::Missing, |policy| PolicySeen::There(Box::new(policy))),
        backups: own.filter_map(|backup| backup.0.as_ref().ok().cloned()).collect(),
        drills: own_drills.filter_map(|drill| drill.0.as_ref().ok().cloned()).collect(),
    }
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

/// What a decision must not miss is asked of the apiserver itself where the cache has not got it: it may have been
/// made a moment ago, or have lost its label.
async fn unseen(tenant: &Tenant, cluster: &Cluster, observed: &mut Observed) -> Result<(), Error> {
    let namespace = &tenant.namespace;
    let claimed = observed.state().migrating;
    let is_claim_unseen = claimed.is_some_and(|job| !observed.has(Kind::Job, &job));
    if is_claim_unseen || !observed.has(Kind::ConfigMap, STATE_NAME) {
        let state = cluster.get::<ConfigMap>(Kind::ConfigMap, namespace, STATE_NAME).await?;
        observed.put(Key::new(Kind::ConfigMap, STATE_NAME), state);
    }
    let State { migrating, volumes, .. } = observed.state();
    if let Some(name) = migrating.filter(|name| !observed.has(Kind::Job, name)) {
        let job = cluster.get::<Job>(Kind::Job, namespace, &name).await?;
        observed.put(Key::new(Kind::Job, name), job);
    }
    for name in volumes.into_keys() {
        if !observed.has(Kind::PersistentVolumeClaim, &name) {
            let kind = Kind::PersistentVolumeClaim;
            let claim = cluster.get::<PersistentVolumeClaim>(kind, namespace, &name).await?;
            observed.put(Key::new(kind, name), claim);
        }
    }
    Ok(())
}

fn host_owner(tenant: &Tenant, tenants: &Store<Guarded>) -> Option<String> {
    let all = tenants.state();
    owner_of(&tenant.host, &tenant.object, all.iter().filter_map(|other| other.0.as_ref().ok()))
}

/// Who but `own` has `host`: who has it already keeps it, even from an older one; else the oldest that asks for it.
fn owner_of<'a>(
    host: &str,
    own: &'a JournalTenant,
    all: impl Iterator<Item = &'a JournalTenant>,
) -> Option<String> {
    let others = all.filter(|other| other.name_any() != own.name_any());
    let asks = |tenant: &JournalTenant| tenant.spec.host == host;
    let has = |tenant: &JournalTenant| granted_host(tenant) == Some(host);
    let rivals = others.chain([own]).filter(|tenant| asks(tenant) || has(tenant));
    let first = rivals.min_by_key(|tenant| (!has(tenant), tenant.creation_timestamp(), tenant.name_any()))?;
    (first.name_any() != own.name_any()).then(|| first.name_any())
}

/// The host name that was granted to `tenant`, whatever it asks for by now.
pub fn granted_host(tenant: &JournalTenant) -> Option<&str> {
    tenant.status.as_ref()?.url.as_deref()?.strip_prefix("https://")?.split(':').next()
}

async fn references(tenant: &Tenant, cluster: &Cluster, observed: &mut Observed) -> Result<(), Error> {
    for key in tenant.referenced() {
        let (namespace, name) = (&tenant.namespace, &key.name);
        let found = if key.kind == Kind::Secret {
            let secret = cluster.get::<Secret>(Kind::Secret, namespace, name).await?;
            secret.map(|secret| {
                let data = secret.data.unwrap_or_default();
                let data: BTreeMap<_, _> = data.into_iter().map(|(key, value)| (key, value.0)).collect();
                Reference { keys: data.keys().cloned().collect(), version: version(&secret.metadata), data }
            })
        } else {
            let map = cluster.get::<ConfigMap>(Kind::ConfigMap, namespace, name).await?;
            map.map(|map| {
                let text = map.data.unwrap_or_default().into_keys();
                let binary = map.binary_data.unwrap_or_default().into_keys();
                Reference {
                    keys: text.chain(binary).collect(),
                    version: version(&map.metadata),
                    data: BTreeMap::new(),
                }
            })
        };
        observed.references.insert(key, found);
    }
    Ok(())
}

/// Which object it is, and in which version.
fn version(metadata: &ObjectMeta) -> String {
    let name = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", name(&metadata.uid), name(&metadata.resource_version))
}

/// Storage classes are looked at only while a volume is not yet what it should be.
async fn classes(
    tenant: &Tenant,
    cluster: &Cluster,
    settings: &Settings,
    observed: &mut Observed,
) -> Result<(), Error> {
    for claim in tenant.claims(settings) {
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

/// Whether claims that name no class get this one.
pub fn is_default(class: &StorageClass) -> bool {
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
    /// Name of the volume behind it.
    pub volume: Option<String>,
}

impl std::fmt::Debug for Observed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Observed")
            .field("namespace", &self.namespace)
            .field("access", &self.access)
            .field("objects", &self.objects.keys())
            .field("secrets", &self.secrets.keys())
            .field("references", &self.references.keys())
            .finish_non_exhaustive()
    }
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

    /// Puts what was read directly in the place of what the cache has.
    fn put<K: Serialize>(&mut self, key: Key, object: Option<K>) {
        let object =
            object.and_then(|object| serde_json::from_value(serde_json::to_value(object).ok()?).ok());
        match object {
            Some(object) => self.objects.insert(key, Arc::new(object)),
            None => self.objects.remove(&key),
        };
    }

    /// The values that are nobody's to read: of the Secrets that Valv made, and of those that the spec names.
    pub fn secret_values(&self) -> impl Iterator<Item = &[u8]> {
        let own = self.secrets.values().filter_map(|secret| secret.data.as_ref()).flatten();
        let own = own.map(|(key, value)| (key, value.0.as_slice()));
        let named = self.references.values().flatten().flat_map(|reference| &reference.data);
        let named = named.map(|(key, value)| (key, value.as_slice()));
        own.chain(named).filter(|(key, _)| !PUBLIC_KEYS.contains(&key.as_str())).map(|(_, value)| value)
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
            capacity: text("/status/capacity/storage").and_then(super::claim::bytes),
            class: text("/spec/storageClassName").map(str::to_owned),
            volume: text("/spec/volumeName").map(str::to_owned),
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

    /// When a Job gave up.
    pub fn failed_at(&self, name: &str) -> Option<Timestamp> {
        let conditions = self.field(Kind::Job, name, "/status/conditions")?.as_array()?;
        let failed = conditions.iter().find(|condition| condition["type"] == "Failed")?;
        failed["lastTransitionTime"].as_str()?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str, created: &str, host: &str, granted: Option<&str>) -> JournalTenant {
        let url = granted.map(|host| format!("https://{host}:30443"));
        serde_json::from_value(serde_json::json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant",
            "metadata": { "name": name, "creationTimestamp": created },
            "spec": { "host": host, "journal": { "image": "j" }, "database": { "size": "1Gi" } },
            "status": { "url": url, "journal": {}, "database": {}, "certificates": {}, "conditions": [] },
        }))
        .unwrap()
    }

    const OLD: &str = "2026-03-01T00:00:00Z";
    const YOUNG: &str = "2026-03-02T00:00:00Z";

    fn owners(host: &str, [one, other]: [&JournalTenant; 2]) -> [Option<String>; 2] {
        let all = || [one, other].into_iter();
        [owner_of(host, one, all()), owner_of(host, other, all())]
    }

    #[test]
    fn of_two_that_ask_for_a_host_the_older_has_it() {
        let old = tenant("old", OLD, "a.example", None);
        let young = tenant("young", YOUNG, "a.example", None);

        assert_eq!(owners("a.example", [&old, &young]), [None, Some("old".into())]);
    }

    #[test]
    fn who_has_a_host_keeps_it_from_an_older_one() {
        let old = tenant("old", OLD, "a.example", Some("old.example"));
        let young = tenant("young", YOUNG, "a.example", Some("a.example"));

        assert_eq!(owners("a.example", [&old, &young]), [Some("young".into()), None]);
    }

    #[test]
    fn the_host_that_somebody_still_has_is_not_free() {
        let moving = tenant("moving", YOUNG, "taken.example", Some("a.example"));
        let new = tenant("new", OLD, "a.example", None);

        assert_eq!(owner_of("a.example", &new, [&moving, &new].into_iter()), Some("moving".into()));
    }
}
