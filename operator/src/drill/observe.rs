//! Looks at what a decision about a drill rests on. Reads only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{ConfigMap, Namespace, Secret},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::FieldsV1,
};
use kube::{ResourceExt, api::ObjectMeta, core::DynamicObject, runtime::reflector::ObjectRef};
use serde_json::Value;
use tracing::warn;
use valv_crds::{
    Backup, BackupPolicy, RestoreDrill,
    drill::{Choice, DrillReason},
    reference::{DRILL_LABEL, FROM_CATALOGUE_ANNOTATION, TENANT_LABEL},
};

use super::{
    Context,
    catalogue::{self, Chosen, Looked, Question, Trouble},
    check::{self, Run, Subject},
    choose::{self, Known, Refusal},
    names::{self, CONFIG, JUDGE, RESTORE},
    objects, own, ownership, past,
    teardown::{self, Left},
    turns::Room,
    words::{self, Stood},
};
use crate::{
    archive::{envelope::PublicKey, layout::ArchiveId},
    backup::owner::{Claim, Owner},
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
        observe::{Access, NamespaceSeen, is_default},
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
    pub key: Option<DynamicObject>,
    /// What the tenant's spec names, as it is in the tenant's namespace.
    pub references: BTreeMap<Key, DynamicObject>,
    /// The ConfigMap with the run files.
    pub config: Config,
    /// What was chosen before: only of a ConfigMap that is the one in the status.
    pub chosen: Option<Chosen>,
    /// What the store says, where nothing was chosen before.
    pub looked: Option<Looked>,
    /// The storage class that would keep what is restored.
    pub keeps: Option<String>,
    /// What is left of a drill that ended.
    pub left: Option<Left>,
    /// An older drill of the same tenant that is not over.
    pub before: Option<String>,
    /// Whether there is room for it to work.
    pub room: Room,
}

/// The ConfigMap with the run files, as it stands at this moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Config {
    /// It is not there.
    #[default]
    Absent,
    /// The operator may not look there yet.
    Unknown,
    /// It is there.
    There {
        /// Digest of what is in it.
        digest: String,
        /// Whether it has this drill's label and cannot be changed.
        sort: Sort,
    },
}

/// Whether an object can be one that the operator made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sort {
    /// It looks like one.
    AsMade,
    /// It does not.
    Another,
}

impl Config {
    /// What `config` is to the drill `uid`.
    pub fn of(config: &ConfigMap, uid: &str) -> Self {
        let is_as_made = config.labels().get(DRILL_LABEL).is_some_and(|label| label == uid)
            && config.immutable == Some(true);
        let sort = if is_as_made { Sort::AsMade } else { Sort::Another };
        Self::There { digest: objects::config_digest(config), sort }
    }

    /// Whether it is the one with this digest.
    pub fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::There { digest, sort: Sort::AsMade } if digest == wanted)
    }
}

impl std::fmt::Debug for Observed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Observed").field("objects", &self.objects.keys()).finish_non_exhaustive()
    }
}

/// Looks. What was seen until the API server refused or did not answer is seen; what the store says is in
/// [`Observed::looked`].
pub async fn observe(run: &Run, context: &Context, now: Timestamp) -> (Observed, Result<(), Error>) {
    let mut observed = Observed::default();
    let looked = look(run, context, now, &mut observed).await;
    (observed, looked)
}

async fn look(run: &Run, context: &Context, now: Timestamp, observed: &mut Observed) -> Result<(), Error> {
    let Ok(subject) = &run.subject else { return Ok(()) };
    if check::is_over(&run.object) {
        return Ok(());
    }
    known(run, subject, context, observed);
    let status = run.status();
    if run.ended().is_none() && status.started.is_none() {
        // Those that wait for others ask nobody anything: there may be thousands.
        if observed.before.is_some() || !run.is_held() {
            return Ok(());
        }
        observed.room = turn(run, context, now);
        if observed.room != Room::Free {
            return Ok(());
        }
    }
    if let Some(store) = &observed.store {
        let namespace = &context.settings.operator_namespace;
        match identities::credentials(store, &context.cluster, namespace).await {
            Ok(found) => observed.credentials = Some(found),
            // Its record waits for them; what it restored is taken away all the same.
            Err(error) if run.ended().is_some() => {
                warn!(store.name = store.name, error = chain(&error), "failed to get a store's credentials");
            }
            Err(error) => return Err(error),
        }
    }
    observed.namespace = namespace(run, subject, context, &observed.objects).await?;
    if run.ended().is_some() {
        if !check::is_torn_down(&run.object) {
            let volumes = run.status().volumes;
            let left = teardown::look(&subject.into, &observed.namespace, &volumes, &context.cluster);
            observed.left = Some(left.await?);
        }
        return Ok(());
    }
    if run.is_deleted() || run.object.spec.cancel {
        // What opens backups goes at once; nothing else matters any more.
        if observed.namespace == NamespaceSeen::Ours {
            secrets(subject, context, observed).await?;
        }
        return Ok(());
    }
    if observed.namespace == NamespaceSeen::Ours {
        inside(run, subject, context, now, observed).await?;
    }
    let has_key = observed.key.as_ref().is_some_and(has_identity);
    if has_key && status.jobs.iter().all(|job| job.name != RESTORE) {
        observed.room = turn(run, context, now);
    }
    if observed.chosen.is_none() && run.is_held() {
        observed.keeps = keeps(subject, context, observed).await?;
        observed.trusted = trusted(context).await?;
        observed.looked = catalogue(run, subject, observed, context, now).await?;
    }
    Ok(())
}

/// What is known without asking anybody.
fn known(run: &Run, subject: &Subject, context: &Context, observed: &mut Observed) {
    observed.objects = context.cache.of_drill(&subject.into);
    observed.tenant_objects = context.cache.of(&subject.tenant);
    let found = context.tenants.get(&ObjectRef::new(&subject.tenant));
    observed.tenant = found
        .and_then(|found| found.0.as_ref().ok().cloned())
        .and_then(|object| tenant::check(Arc::new(object)).ok());
    let protection = observed.tenant.as_ref().and_then(|tenant| tenant.backup.as_ref());
    let policy = protection.and_then(|protection| context.policies.get(&ObjectRef::new(&protection.policy)));
    observed.policy = policy.and_then(|policy| policy.0.as_ref().ok().cloned()).map(Arc::new);
    others(run, context, observed);
    let found = observed.store_name.as_ref().and_then(|name| context.stores.get(&ObjectRef::new(name)));
    observed.store =
        found.and_then(|found| found.0.as_ref().ok().cloned()).map(|object| store::check(Arc::new(object)));
}

/// A turn for the next step, if there is room: to begin, or to restore with the key that has come.
fn turn(run: &Run, context: &Context, now: Timestamp) -> Room {
    let drills = context.drills.state();
    let drills = drills.iter().filter_map(|drill| drill.0.as_ref().ok());
    let working = drills.filter(|drill| check::works(drill, now)).filter_map(ResourceExt::uid).collect();
    context.turns.take(&run.uid(), &working, usize::from(context.settings.drills.concurrent), now)
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
    observed.store_name = choose::store(&run.object, observed.policy.as_deref(), last.as_deref());
}

/// The drill's namespace: what the cache shows as absent may be somebody else's, or not be shown yet.
async fn namespace(
    run: &Run,
    subject: &Subject,
    context: &Context,
    objects: &Objects,
) -> Result<NamespaceSeen, Error> {
    let cached = objects.get(&Key::new(Kind::Namespace, &subject.into));
    // One that ended is asked for: that it is gone is a promise.
    if let Some(cached) = cached.filter(|_| run.ended().is_none()) {
        return Ok(seen(run, subject, &cached.metadata));
    }
    let found = context.cluster.get_cluster_scoped::<Namespace>("Namespace", &subject.into).await?;
    Ok(found.map_or(NamespaceSeen::Absent, |found| seen(run, subject, &found.metadata)))
}

/// Whether the namespace is this drill's: by the UID in its status, and until that is there by its labels, which somebody
/// may have taken off since.
fn seen(run: &Run, subject: &Subject, namespace: &ObjectMeta) -> NamespaceSeen {
    let label = |name: &str| namespace.labels.as_ref().and_then(|labels| labels.get(name));
    let is_ours = match run.status().namespace_uid {
        Some(uid) => namespace.uid.as_ref() == Some(&uid),
        None => label(DRILL_LABEL) == Some(&run.uid()) && label(TENANT_LABEL) == Some(&subject.tenant),
    };
    if !is_ours {
        NamespaceSeen::Foreign
    } else if namespace.deletion_timestamp.is_some() {
        NamespaceSeen::Terminating
    } else {
        NamespaceSeen::Ours
    }
}

/// The Secrets in the drill's namespace, and whether the operator may look there at all.
async fn secrets(subject: &Subject, context: &Context, observed: &mut Observed) -> Result<Access, Error> {
    let cluster = &context.cluster;
    match cluster.own_secrets(&subject.into).await {
        Ok(secrets) => {
            observed.secrets = secrets.into_iter().map(|secret| (secret.name_any(), secret)).collect();
        }
        // The operator's access is being made, or is not known everywhere yet.
        Err(error) if error.is_forbidden() => return Ok(Access::Denied),
        Err(error) => return Err(error),
    }
    observed.key = cluster.metadata(&Key::new(Kind::Secret, names::KEY_SECRET), &subject.into).await?;
    Ok(Access::Granted)
}

/// Whether the Secret `key` has the one key that is asked for in it, as the API server noted of who wrote which fields: what
/// it is nobody looks at. Where nothing is noted it is believed.
pub fn has_identity(key: &DynamicObject) -> bool {
    let mut noted = key.managed_fields().iter().filter_map(|entry| entry.fields_v1.as_ref()).peekable();
    let is_noted = |fields: &FieldsV1| {
        let field = format!("f:{}", names::KEY_FILE);
        ["f:data", "f:stringData"].iter().any(|part| fields.0[part].get(&field).is_some())
    };
    noted.peek().is_none() || noted.any(is_noted)
}

/// What is in the drill's namespace, and what of the tenant's is copied there.
async fn inside(
    run: &Run,
    subject: &Subject,
    context: &Context,
    now: Timestamp,
    observed: &mut Observed,
) -> Result<(), Error> {
    let cluster = &context.cluster;
    if secrets(subject, context, observed).await? == Access::Denied {
        own::keep_own_pods(&mut observed.objects, &[]);
        observed.config = Config::Unknown;
        return Ok(());
    }
    // Never from memory: what is in it decides what is restored, and what is believed.
    let config = cluster.get::<ConfigMap>(Kind::ConfigMap, &subject.into, CONFIG).await?;
    let key = Key::new(Kind::ConfigMap, CONFIG);
    observed.objects.remove(&key);
    if let Some(config) = config {
        observed.config = Config::of(&config, &run.uid());
        if run.status().prepared_with.is_some_and(|prepared| observed.config.is(&prepared)) {
            let chosen = config.data.as_ref().and_then(|data| data.get("chosen.json"));
            observed.chosen = chosen.and_then(|text| serde_json::from_str(text).ok());
        }
        observed.objects.extend(dynamic(config).map(|config| (key, Arc::new(config))));
    }
    let starts_journal = observed.objects.contains_key(&Key::new(Kind::Deployment, "journal"));
    let replica_sets = if starts_journal {
        cluster.list_in::<ReplicaSet>(Kind::ReplicaSet, &subject.into, "").await?
    } else {
        vec![]
    };
    own::keep_own_pods(&mut observed.objects, &replica_sets);
    for name in [RESTORE, JUDGE] {
        last_words(name, subject, context, now, observed).await?;
    }
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

/// Jobs and pods come by two watches, without an order between them: a Job that ended without a word is asked about.
async fn last_words(
    name: &str,
    subject: &Subject,
    context: &Context,
    now: Timestamp,
    observed: &mut Observed,
) -> Result<(), Error> {
    if !matches!(words::stood(&observed.objects, name, now), Stood::Silent { .. }) {
        return Ok(());
    }
    let Some(uid) = observed.objects.get(&Key::new(Kind::Job, name)).and_then(|job| job.uid()) else {
        return Ok(());
    };
    for pod in context.cluster.pods_of_job(&subject.into, &uid).await? {
        observed.objects.insert(Key::new(Kind::Pod, pod.name_any()), Arc::new(pod));
    }
    Ok(())
}

/// The storage class of a volume to restore into that keeps what was on it.
async fn keeps(subject: &Subject, context: &Context, observed: &Observed) -> Result<Option<String>, Error> {
    let Some(tenant) = &observed.tenant else { return Ok(None) };
    let guest = objects::guest(tenant, subject, observed);
    let claims = objects::claims(&guest, observed, &context.settings);
    let named = claims.iter().map(|claim| claim.value["spec"]["storageClassName"].as_str());
    let named: BTreeSet<Option<&str>> = named.collect();
    for name in named {
        let class = match name {
            Some(name) => context.cluster.get_cluster_scoped::<StorageClass>("StorageClass", name).await?,
            None => {
                let all = context.cluster.list_cluster_scoped::<StorageClass>("StorageClass").await?;
                all.into_iter().find(is_default)
            }
        };
        if let Some(class) = class.filter(|class| class.reclaim_policy.as_deref() == Some("Retain")) {
            return Ok(Some(class.name_any()));
        }
    }
    Ok(None)
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
) -> Result<Option<Looked>, Error> {
    let (Some(tenant), Some(policy), Some(store)) = (&observed.tenant, &observed.policy, &observed.store)
    else {
        return Ok(None);
    };
    let Some(Ok(credentials)) = &observed.credentials else { return Ok(None) };
    let waits = observed.before.is_some() || observed.room != Room::Free;
    if !is_ready(store) || waits || observed.keeps.is_some() {
        return Ok(None);
    }
    let trusted: Vec<_> = observed.trusted.iter().filter_map(|pem| PublicKey::from_pem(pem).ok()).collect();
    if trusted.is_empty() {
        let why = "the operator's signing key cannot be read: no commit could be believed";
        return Ok(Some(Looked::Trouble(Trouble::unavailable(why))));
    }
    let archive: ArchiveId = match tenant.archive_id().parse() {
        Ok(archive) => archive,
        Err(error) => return Ok(Some(Looked::Trouble(Trouble::unavailable(chain(&error))))),
    };
    let tenants = context.tenants.state();
    if let Some(rival) = ownership::rival(tenant, tenants.iter().filter_map(|other| other.0.as_ref().ok())) {
        return Ok(Some(taken(format!("the tenant {rival}, which is older, has the archive {archive}"))));
    }
    let settings = store.settings(credentials.reader.clone());
    let me = ownership::owner(tenant, &archive, ownership::cluster_id(&context.cluster).await?);
    let claim = match ownership::ask(&settings, &me, tenant, &trusted).await {
        // Copies of backups come without it.
        Ok(Claim::Free) => elsewhere(&me, tenant, policy, store, &trusted, context).await?,
        Ok(claim) => claim,
        Err(why) => return Ok(Some(Looked::Trouble(why))),
    };
    let backups = context.backups.state();
    let backups = || backups.iter().filter_map(|backup| backup.0.as_ref().ok());
    let known = choose::known(backups(), &run.namespace, &store.name);
    let is_own = |backup: &&Backup| !backup.annotations().contains_key(FROM_CATALOGUE_ANNOTATION);
    let own = choose::known(backups().filter(is_own), &run.namespace, &store.name);
    let drills = context.drills.state();
    let drills = drills.iter().filter_map(|drill| drill.0.as_ref().ok());
    let of_tenant = drills.filter(|drill| drill.namespace().as_deref() == Some(run.namespace.as_str()));
    let status = tenant.object.status.as_ref().and_then(|status| status.backup.as_ref());
    let good = of_tenant.filter_map(past::good).chain(status.and_then(|status| status.good_slot)).collect();
    let question = Question {
        archive: &archive,
        store: &store.name,
        trusted: &trusted,
        // What was settled once stays, also if what it was written into was refused.
        choice: run.status().backup.map_or(run.object.spec.backup, |backup| Choice::Of(backup.slot)),
        drill: subject.slot,
        good: &good,
        known: &known,
        floor_days: policy.spec.retention.floor.days,
    };
    let looked = match &claim {
        Claim::Taken { by } => return Ok(Some(taken(format!("the archive {archive} belongs to {by}")))),
        Claim::Mine | Claim::TakenOver { .. } | Claim::Free => {
            catalogue::look(&settings, &question, now).await
        }
    };
    Ok(Some(allowed(looked, &claim, &own, &archive)))
}

/// Whose the archive is by the record in the other stores of the policy: the first that has one and answers says it.
async fn elsewhere(
    me: &Owner,
    tenant: &Tenant,
    policy: &BackupPolicy,
    drilled: &Store,
    trusted: &[PublicKey],
    context: &Context,
) -> Result<Claim, Error> {
    for name in policy.spec.stores.iter().filter(|name| **name != drilled.name) {
        let found = context.stores.get(&ObjectRef::new(name));
        let Some(object) = found.and_then(|found| found.0.as_ref().ok().cloned()) else { continue };
        let store = store::check(Arc::new(object));
        let namespace = &context.settings.operator_namespace;
        let Ok(credentials) = identities::credentials(&store, &context.cluster, namespace).await? else {
            continue;
        };
        match ownership::ask(&store.settings(credentials.reader), me, tenant, trusted).await {
            Ok(Claim::Free) => {}
            Ok(claim) => return Ok(claim),
            // A drill of the copies must not need the store that they are copies of.
            Err(Trouble { message, .. }) => {
                warn!(store.name = store.name, why = message, "a store did not say whose an archive is")
            }
        }
    }
    Ok(Claim::Free)
}

/// What may be drilled of what was `looked` for. Of an archive that no record claims only what this tenant itself has
/// backed up, as its `own` Backups say, which are not from the catalogue.
fn allowed(looked: Looked, claim: &Claim, own: &[Known], archive: &ArchiveId) -> Looked {
    let Looked::Chosen(chosen) = &looked else { return looked };
    let is_own = own.iter().any(|known| known.slot == chosen.backup.slot);
    if *claim == Claim::Free && !is_own {
        return taken(format!(
            "no store has a record of whose the archive {archive} is, and {} is not known as a backup of this tenant's: the next backup writes the record",
            chosen.backup.slot
        ));
    }
    looked
}

fn taken(message: String) -> Looked {
    Looked::Refused(Refusal { reason: DrillReason::ArchiveTaken, message })
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::drill::{check::check, check::tests::drill};

    const UID: &str = "0b0e7c1a-6f0e-4a67-9d0e-3a5d4c1b2a39";

    fn config(change: impl FnOnce(&mut Value)) -> Config {
        let mut value = json!({
            "metadata": { "name": CONFIG, "labels": { DRILL_LABEL: UID } },
            "immutable": true, "data": { "chosen.json": "{}", "judge.yaml": "a" },
        });
        change(&mut value);
        Config::of(&serde_json::from_value(value).unwrap(), UID)
    }

    #[test]
    fn only_the_config_map_that_was_prepared_is_believed() {
        let Config::There { digest, .. } = config(|_| {}) else { panic!("it is there") };

        assert!(config(|_| {}).is(&digest));
        let others = [
            config(|value| value["data"]["judge.yaml"] = json!("b")),
            config(|value| value["data"]["more"] = json!("")),
            config(|value| value["metadata"]["labels"][DRILL_LABEL] = json!("another")),
            config(|value| value["immutable"] = json!(false)),
            Config::Absent,
            Config::Unknown,
        ];
        assert!(others.iter().all(|other| !other.is(&digest)), "{others:?}");
    }

    #[test]
    fn a_namespace_whose_labels_were_taken_off_is_still_the_drills() {
        let mut object = drill("journal-ada", "by-hand", json!({}));
        let namespace = |uid: &str, label: &str| -> ObjectMeta {
            serde_json::from_value(
                json!({ "uid": uid, "labels": { DRILL_LABEL: label, TENANT_LABEL: "ada" } }),
            )
            .unwrap()
        };
        let see = |object: &RestoreDrill, namespace: &ObjectMeta| {
            let run = check(Arc::new(object.clone()));
            let subject = run.subject.clone().unwrap();
            seen(&run, &subject, namespace)
        };
        assert_eq!(see(&object, &namespace("n1", UID)), NamespaceSeen::Ours);
        assert_eq!(see(&object, &namespace("n1", "another")), NamespaceSeen::Foreign);

        object.status = serde_json::from_value(json!({ "namespaceUID": "n1", "conditions": [] })).unwrap();
        assert_eq!(see(&object, &namespace("n1", "another")), NamespaceSeen::Ours);
        assert_eq!(see(&object, &namespace("n2", UID)), NamespaceSeen::Foreign);
    }

    #[test]
    fn an_archive_that_nobody_has_a_record_of_is_not_drilled() {
        let archive: ArchiveId = "ada".parse().unwrap();
        let chosen = || {
            Looked::Chosen(Box::new(Chosen {
                archive: "ada".parse().unwrap(),
                backup: valv_crds::drill::DrilledBackup {
                    slot: "20261122T010000Z".parse().unwrap(),
                    store: "helsinki".into(),
                    manifest: None,
                },
                earlier: None,
                image: None,
                system_identifier: None,
            }))
        };

        let own = Known { slot: "20261122T010000Z".parse().unwrap(), committed: Timestamp::UNIX_EPOCH };
        let another = Known { slot: "20261121T010000Z".parse().unwrap(), ..own };

        assert_eq!(allowed(chosen(), &Claim::Mine, &[], &archive), chosen());
        assert_eq!(allowed(chosen(), &Claim::Free, &[own], &archive), chosen(), "it lies where copies do");
        let Looked::Refused(refusal) = allowed(chosen(), &Claim::Free, &[another], &archive) else {
            panic!("it is drilled")
        };
        assert_eq!(refusal.reason, DrillReason::ArchiveTaken);
    }
}
