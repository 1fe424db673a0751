//! Looks at what a decision about a drill rests on. Reads only.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    ResourceExt,
    core::{DynamicObject, PartialObjectMeta},
    runtime::reflector::ObjectRef,
};
use serde_json::Value;
use valv_crds::{
    BackupPolicy, RestoreDrill,
    reference::{DRILL_LABEL, TENANT_LABEL},
};

use super::{
    Context,
    catalogue::{self, Chosen, Looked, Question},
    check::{self, Run, Subject},
    choose, names, past,
    teardown::{self, Left},
};
use crate::{
    archive::{envelope::PublicKey, layout::ArchiveId},
    error::chain,
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
    tenant::{
        check::{self as tenant, Tenant},
        observe::NamespaceSeen,
    },
};

/// What was seen. Its `Debug` shows no content.
#[derive(Default)]
pub struct Observed {
    /// The tenant, if it is there and its spec can be read.
    pub tenant: Option<Tenant>,
    /// Its policy, if it is there.
    pub policy: Option<Arc<BackupPolicy>>,
    /// Name of the store that is drilled.
    pub store_name: Option<String>,
    /// That store, if it is there.
    pub store: Option<Store>,
    /// Who may ask that store.
    pub credentials: Option<Result<Identities<Credentials>, Unresolved>>,
    /// Whose signatures count, PEM.
    pub trusted: Vec<String>,
    /// The drill's namespace.
    pub namespace: NamespaceSeen,
    /// What carries the tenant's label in the drill's namespace, Secrets apart.
    pub objects: Objects,
    /// What carries the tenant's label in the tenant's namespace, Secrets apart.
    pub tenant_objects: Objects,
    /// The Secrets in the drill's namespace that carry the tenant's label.
    pub secrets: BTreeMap<String, Secret>,
    /// The Secret with the key that opens the backup, whoever brought it: that it is there, and not what is in it.
    pub key: Option<PartialObjectMeta<Secret>>,
    /// What the tenant's spec names, as it is in the tenant's namespace.
    pub references: BTreeMap<Key, DynamicObject>,
    /// What was chosen before.
    pub chosen: Option<Chosen>,
    /// What the store says, where nothing was chosen before.
    pub looked: Option<Looked>,
    /// What is left of a drill that ended.
    pub left: Option<Left>,
    /// An older drill of the same tenant that is not over.
    pub before: Option<String>,
    /// Drills of all tenants that run.
    pub running: usize,
}

impl std::fmt::Debug for Observed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Observed").field("objects", &self.objects.keys()).finish_non_exhaustive()
    }
}

/// Looks.
///
/// # Errors
/// If the API server refuses or does not answer. What the store says is in [`Observed::looked`].
pub async fn observe(run: &Run, context: &Context, now: Timestamp) -> Result<Observed, Error> {
    let mut observed = Observed::default();
    let Ok(subject) = &run.subject else { return Ok(observed) };
    if check::is_over(&run.object) {
        return Ok(observed);
    }
    observed.objects = context.cache.of_drill(&subject.into);
    observed.tenant_objects = context.cache.of(&subject.tenant);
    let found = context.tenants.get(&ObjectRef::new(&subject.tenant));
    observed.tenant = found
        .and_then(|found| found.0.as_ref().ok().cloned())
        .and_then(|object| tenant::check(Arc::new(object)).ok());
    let protection = observed.tenant.as_ref().and_then(|tenant| tenant.backup.as_ref());
    let policy = protection.and_then(|protection| context.policies.get(&ObjectRef::new(&protection.policy)));
    observed.policy = policy.and_then(|policy| policy.0.as_ref().ok().cloned()).map(Arc::new);
    others(run, context, &mut observed);
    let found = observed.store_name.as_ref().and_then(|name| context.stores.get(&ObjectRef::new(name)));
    observed.store =
        found.and_then(|found| found.0.as_ref().ok().cloned()).map(|object| store::check(Arc::new(object)));
    if let Some(store) = &observed.store {
        let namespace = &context.settings.operator_namespace;
        observed.credentials = Some(identities::credentials(store, &context.cluster, namespace).await?);
    }
    observed.namespace = namespace(run, subject, context, &observed.objects).await?;
    if run.ended().is_some() {
        if !check::is_torn_down(&run.object) {
            observed.left = Some(teardown::look(&subject.into, &observed.namespace, &context.cluster).await?);
        }
        return Ok(observed);
    }
    if observed.namespace == NamespaceSeen::Ours {
        inside(subject, context, &mut observed).await?;
    }
    if observed.chosen.is_none() && !run.is_deleted() && !run.object.spec.cancel && run.is_held() {
        observed.trusted = trusted(context).await?;
        observed.looked = catalogue(run, subject, &observed, context, now).await;
    }
    Ok(observed)
}

/// Other drills: whose turn is before this one's, and from which store the last one was.
fn others(run: &Run, context: &Context, observed: &mut Observed) {
    let drills = context.drills.state();
    let drills = drills.iter().filter_map(|drill| drill.0.as_ref().ok());
    let others: Vec<&RestoreDrill> = drills.filter(|other| other.uid() != run.object.uid()).collect();
    let order = |drill: &RestoreDrill| (drill.creation_timestamp(), drill.uid());
    let is_ours = |other: &&&RestoreDrill| other.namespace().as_deref() == Some(run.namespace.as_str());
    let runs = |other: &RestoreDrill| {
        other.status.as_ref().is_some_and(|status| status.started.is_some()) && !check::is_torn_down(other)
    };
    observed.running = others.iter().filter(|other| runs(other)).count();
    let earlier = others
        .iter()
        .filter(is_ours)
        .filter(|other| !check::is_over(other) && (runs(other) || order(other) < order(&run.object)));
    // One that ended holds nobody up but as long as it is being torn down.
    let holds = earlier.filter(|other| !check::is_torn_down(other)).map(|other| other.name_any());
    observed.before = holds.min();
    let last = others
        .iter()
        .filter(is_ours)
        .filter(|other| order(other) < order(&run.object))
        .filter_map(|other| Some((order(other), other.status.as_ref()?.backup.as_ref()?.store.clone())))
        .max_by(|one, other| one.0.cmp(&other.0));
    let last = last.map(|(_, store)| store);
    observed.store_name = match &observed.policy {
        Some(policy) => choose::store(&run.object, policy, last.as_deref()),
        None => run.status().backup.map(|backup| backup.store),
    };
}

/// The drill's namespace: what the cache shows as absent may be somebody else's, or not be shown yet.
async fn namespace(
    run: &Run,
    subject: &Subject,
    context: &Context,
    objects: &Objects,
) -> Result<NamespaceSeen, Error> {
    let uid = run.uid();
    let seen = |drill: Option<&String>, tenant: Option<&String>, is_deleted: bool| {
        if drill != Some(&uid) || tenant != Some(&subject.tenant) {
            NamespaceSeen::Foreign
        } else if is_deleted {
            NamespaceSeen::Terminating
        } else {
            NamespaceSeen::Ours
        }
    };
    let cached = objects.get(&Key::new(Kind::Namespace, &subject.into));
    // One that ended is asked for: that it is gone is a promise.
    if let Some(cached) = cached.filter(|_| run.ended().is_none()) {
        let labels = cached.labels();
        return Ok(seen(
            labels.get(DRILL_LABEL),
            labels.get(TENANT_LABEL),
            cached.metadata.deletion_timestamp.is_some(),
        ));
    }
    let found = context.cluster.get_cluster_scoped::<Namespace>("Namespace", &subject.into).await?;
    Ok(found.map_or(NamespaceSeen::Absent, |found| {
        let labels = found.labels();
        seen(labels.get(DRILL_LABEL), labels.get(TENANT_LABEL), found.metadata.deletion_timestamp.is_some())
    }))
}

/// What is in the drill's namespace, and what of the tenant's is copied there.
async fn inside(subject: &Subject, context: &Context, observed: &mut Observed) -> Result<(), Error> {
    let cluster = &context.cluster;
    match cluster.own_secrets(&subject.into).await {
        Ok(secrets) => {
            observed.secrets = secrets.into_iter().map(|secret| (secret.name_any(), secret)).collect();
        }
        // The operator's access is being made, or is not known everywhere yet.
        Err(error) if error.is_forbidden() => return Ok(()),
        Err(error) => return Err(error),
    }
    observed.key = cluster.metadata::<Secret>(Kind::Secret, &subject.into, names::KEY_SECRET).await?;
    let config = Key::new(Kind::ConfigMap, names::CONFIG);
    if let Entry::Vacant(vacant) = observed.objects.entry(config.clone()) {
        // It may have been made a moment ago.
        let found = cluster.get::<ConfigMap>(Kind::ConfigMap, &subject.into, names::CONFIG).await?;
        if let Some(found) = found.and_then(dynamic) {
            vacant.insert(Arc::new(found));
        }
    }
    let config = observed.objects.get(&config);
    let chosen = config.and_then(|config| config.data.pointer("/data/chosen.json")?.as_str());
    observed.chosen = chosen.and_then(|text| serde_json::from_str(text).ok());
    let Some(tenant) = &observed.tenant else { return Ok(()) };
    for key in tenant.referenced() {
        let found = if key.kind == Kind::Secret {
            cluster.get::<Secret>(Kind::Secret, &tenant.namespace, &key.name).await?.and_then(dynamic)
        } else {
            cluster.get::<ConfigMap>(Kind::ConfigMap, &tenant.namespace, &key.name).await?.and_then(dynamic)
        };
        if let Some(found) = found {
            observed.references.insert(key, found);
        }
    }
    Ok(())
}

async fn trusted(context: &Context) -> Result<Vec<String>, Error> {
    match context.signing.trusted(&context.cluster, &context.settings.operator_namespace).await {
        Ok(keys) => Ok(keys.into_iter().map(PublicKey::to_pem).collect()),
        Err(crate::signing::Error::Cluster(error)) => Err(error),
        // The look says that it could not be had.
        Err(_) => Ok(vec![]),
    }
}

/// What the store says, if it can be asked.
async fn catalogue(
    run: &Run,
    subject: &Subject,
    observed: &Observed,
    context: &Context,
    now: Timestamp,
) -> Option<Looked> {
    let (tenant, policy, store) =
        (observed.tenant.as_ref()?, observed.policy.as_ref()?, observed.store.as_ref()?);
    let Some(Ok(credentials)) = &observed.credentials else { return None };
    if !is_ready(store) || observed.before.is_some() {
        return None;
    }
    let trusted: Vec<_> = observed.trusted.iter().filter_map(|pem| PublicKey::from_pem(pem).ok()).collect();
    if trusted.is_empty() {
        let why = "the operator's signing key cannot be read: no commit could be believed";
        return Some(Looked::Trouble(why.to_owned()));
    }
    let archive: ArchiveId = match tenant.archive_id().parse() {
        Ok(archive) => archive,
        Err(error) => return Some(Looked::Trouble(chain(&error))),
    };
    let backups = context.backups.state();
    let backups = backups.iter().filter_map(|backup| backup.0.as_ref().ok());
    let known = choose::known(backups, &run.namespace, &store.name);
    let drills = context.drills.state();
    let drills = drills.iter().filter_map(|drill| drill.0.as_ref().ok());
    let own = drills.filter(|drill| drill.namespace().as_deref() == Some(run.namespace.as_str()));
    let status = tenant.object.status.as_ref().and_then(|status| status.backup.as_ref());
    let good = own.filter_map(past::good).chain(status.and_then(|status| status.good_slot)).collect();
    let settings = store.settings(credentials.reader.clone());
    let question = Question {
        archive: &archive,
        store: &store.name,
        trusted: &trusted,
        choice: run.object.spec.backup,
        drill: subject.slot,
        good: &good,
        known: &known,
        floor_days: policy.spec.retention.floor.days,
    };
    Some(catalogue::look(&settings, &question, now).await)
}

/// Whether the store was probed as it is, and is ready.
pub fn is_ready(store: &Store) -> bool {
    let status = store.object.status.as_ref();
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let ready = format!("{:?}", valv_crds::store::StoreCondition::Ready);
    let is_current = status.and_then(|status| status.observed_generation) == store.object.metadata.generation;
    is_current && conditions.iter().any(|condition| condition.type_ == ready && condition.status == "True")
}

/// As the writer of objects takes it.
pub fn dynamic<K: serde::Serialize>(object: K) -> Option<DynamicObject> {
    let mut value = serde_json::to_value(object).ok()?;
    value["metadata"]["managedFields"] = Value::Null;
    serde_json::from_value(value).ok()
}
