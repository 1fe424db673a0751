//! Looks at what a decision about a backup rests on. Reads only.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt, core::DynamicObject, runtime::reflector::ObjectRef};
use serde_json::Value;
use valv_crds::{Backup, BackupPolicy, backup::BackupCondition};

use super::{Context, attempt::JobSeen, check::Run};
use crate::{
    io::{
        bucket::Credentials,
        cache::Objects,
        cluster::Error,
        kind::{Key, Kind},
    },
    store::{
        check::{self as store, Identities, Store},
        observe::{self as identities, Unresolved},
    },
    tenant::check::{self as tenant, Tenant},
};

/// What was seen. Its `Debug` shows no content.
pub struct Observed {
    /// The tenant, if it is there and its spec can be read.
    pub tenant: Option<Tenant>,
    /// Its policy, if it is there.
    pub policy: Option<Arc<BackupPolicy>>,
    /// The policy's first store, if it is there.
    pub store: Option<Store>,
    /// Who may ask that store.
    pub credentials: Option<Result<Identities<Credentials>, Unresolved>>,
    /// What carries the tenant's label in the namespace, Secrets apart.
    pub objects: Objects,
    /// The Secrets that Valv made for the tenant and those that its spec names, with their keys.
    pub secrets: BTreeMap<String, Vec<String>>,
    /// Backups of other tenants that run.
    pub running: i32,
    /// Another backup of this tenant that runs, or whose turn is before this one's.
    pub before: Option<String>,
}

impl std::fmt::Debug for Observed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Observed").field("objects", &self.objects.keys()).finish_non_exhaustive()
    }
}

/// Looks.
///
/// # Errors
/// If the API server refuses a Secret, or does not answer.
pub async fn observe(run: &Run, context: &Context) -> Result<Observed, Error> {
    let mut observed = Observed {
        tenant: None,
        policy: None,
        store: None,
        credentials: None,
        objects: Objects::default(),
        secrets: BTreeMap::new(),
        running: 0,
        before: None,
    };
    let Some(name) = run.tenant() else { return Ok(observed) };
    observed.objects = context.cache.of(name);
    let found = context.tenants.get(&ObjectRef::new(name));
    observed.tenant = found
        .and_then(|found| found.0.as_ref().ok().cloned())
        .and_then(|object| tenant::check(Arc::new(object)).ok());
    let protection = observed.tenant.as_ref().and_then(|tenant| tenant.backup.as_ref());
    let policy = protection.and_then(|protection| context.policies.get(&ObjectRef::new(&protection.policy)));
    observed.policy = policy.and_then(|policy| policy.0.as_ref().ok().cloned()).map(Arc::new);
    let first = observed.policy.as_ref().and_then(|policy| policy.spec.stores.first());
    let found = first.and_then(|name| context.stores.get(&ObjectRef::new(name)));
    observed.store =
        found.and_then(|found| found.0.as_ref().ok().cloned()).map(|object| store::check(Arc::new(object)));
    let others = context.backups.state();
    let others = others.iter().filter_map(|other| other.0.as_ref().ok());
    let others = others.filter(|other| other.uid() != run.object.uid());
    for other in others.filter(|other| !is_over(other)) {
        let is_running = other.status.as_ref().is_some_and(|status| status.attempt.is_some());
        observed.running += i32::from(is_running);
        let is_first = is_running
            || (other.creation_timestamp(), other.uid())
                < (run.object.creation_timestamp(), run.object.uid());
        if other.namespace().as_deref() == Some(run.namespace.as_str()) && is_first {
            observed.before = Some(other.name_any());
        }
    }
    if is_over(&run.object) {
        return Ok(observed);
    }
    if let Some(store) = &observed.store {
        let namespace = &context.settings.operator_namespace;
        observed.credentials = Some(identities::credentials(store, &context.cluster, namespace).await?);
    }
    if let Some(tenant) = &observed.tenant {
        observed.secrets = secrets(tenant, context).await?;
    }
    Ok(observed)
}

/// Without its access nothing is made in the namespace, and the tenant's own conditions say why.
async fn secrets(tenant: &Tenant, context: &Context) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let keys = |secret: &Secret| secret.data.iter().flatten().map(|(key, _)| key.clone()).collect();
    let own = match context.cluster.own_secrets(&tenant.namespace).await {
        Ok(secrets) => secrets,
        Err(error) if error.is_forbidden() => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let mut found: BTreeMap<_, _> = own.iter().map(|secret| (secret.name_any(), keys(secret))).collect();
    for key in tenant.referenced().into_iter().filter(|key| key.kind == Kind::Secret) {
        if let Some(secret) =
            context.cluster.get::<Secret>(Kind::Secret, &tenant.namespace, &key.name).await?
        {
            found.insert(key.name, keys(&secret));
        }
    }
    Ok(found)
}

/// Whether nothing more happens to `backup`: it is complete, or was given up.
pub fn is_over(backup: &Backup) -> bool {
    let status = backup.status.as_ref();
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let is_true = |kind: BackupCondition| {
        let name = format!("{kind:?}");
        conditions.iter().any(|condition| condition.type_ == name && condition.status == "True")
    };
    is_true(BackupCondition::Complete) || is_true(BackupCondition::Stalled)
}

impl Observed {
    /// Whether the object is there.
    pub fn has(&self, kind: Kind, name: &str) -> bool {
        self.objects.contains_key(&Key::new(kind, name))
    }

    /// Objects of one kind.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &Arc<DynamicObject>> {
        self.objects.iter().filter(move |(key, _)| key.kind == kind).map(|(_, object)| object)
    }

    fn conditions(&self, job: &str) -> impl Iterator<Item = &Value> {
        let job = self.objects.get(&Key::new(Kind::Job, job));
        let conditions = job.and_then(|job| job.data.pointer("/status/conditions")?.as_array());
        conditions.into_iter().flatten().filter(|condition| condition["status"] == "True")
    }

    /// How a Job stands.
    pub fn job(&self, name: &str) -> JobSeen {
        if !self.has(Kind::Job, name) {
            JobSeen::Absent
        } else if self.conditions(name).any(|condition| condition["type"] == "Complete") {
            JobSeen::Succeeded
        } else if self.conditions(name).any(|condition| condition["type"] == "Failed") {
            JobSeen::Failed
        } else {
            JobSeen::Active
        }
    }

    /// When a Job gave up.
    pub fn failed_at(&self, name: &str) -> Option<jiff::Timestamp> {
        let failed = self.conditions(name).find(|condition| condition["type"] == "Failed")?;
        failed["lastTransitionTime"].as_str()?.parse().ok()
    }
}
