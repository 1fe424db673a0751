//! Looks at what a ward's plan rests on. Reads only: the cluster from memory as far as it can, the store as its reader.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::timeout;
use tracing::warn;
use valv_crds::{
    Backup, BackupPolicy, JournalTenant, RestoreDrill, Slot,
    backup::BackupCondition,
    reference::{NAMESPACE_PREFIX, TAKE_OVER_ARCHIVE_ANNOTATION},
    store::BreakerState,
};

use super::{
    Context, Error,
    check::{self, Place, Ward},
    damage::{self, Drilled, Told},
    rounds::{self, Known, Reach, Records, Standing, Subject},
};
use crate::{
    archive::{
        Archive,
        catalogue::{Catalogue, DataFolders, Entry},
        envelope::PublicKey,
        fetch,
        layout::{ArchiveId, Folder},
        records::RecordVersion,
        register::{self, Register},
        retry::RetryRule,
        terms::Terms,
    },
    backup::{
        check as backup_check, claim,
        observe::is_over,
        owner::{self, Owner},
    },
    controllers::Guarded,
    drill::record::RECORD_LIMIT_BYTES,
    error::chain,
    io::{
        bucket::{self, Bucket, Version},
        kind::Kind,
    },
    residency,
    retention::Course,
    settings::Location,
    signing::Keys,
    store::{
        check::{self as store_check, Identity, Store},
        observe as identities,
    },
};

/// How long another store may be asked what it has. Its own looks take as long as they take.
const ELSEWHERE: Duration = Duration::from_secs(60);

/// Whom the store is asked as, each with the rights of one identity.
pub struct Access {
    /// Reads.
    pub reader: Archive,
    /// Makes locks longer, and writes terms.
    pub committer: Bucket,
    /// Deletes.
    pub janitor: Bucket,
    /// Sign, and say whose commits count.
    pub keys: Arc<Keys>,
    /// How the store is reached, for whoever asks it for the time.
    pub settings: bucket::Settings,
}

/// What was seen of a ward.
#[derive(Debug)]
pub struct Seen {
    /// Its backups.
    pub catalogue: Catalogue,
    /// What each builds on.
    pub lineage: BTreeMap<Slot, Lineage>,
    /// The terms that lie in the archive.
    pub recorded: Option<Terms>,
    /// What should be there, as the operator wrote it down there; `None`: it never did.
    pub register: Option<Register>,
    /// Versions of the register that a later one has replaced, the newest first.
    pub replaced: Vec<RecordVersion>,
    /// What the drills say whose records lie there.
    pub drilled: Drilled,
    /// Backups that a copy or a reading found damaged there, and since when.
    pub reported: BTreeMap<Slot, (String, Timestamp)>,
    /// What the further stores of the policy have, as far as they let us look. Of the first store only.
    pub elsewhere: Vec<Elsewhere>,
    /// Whether newer backups come.
    pub course: Course,
    /// Backups that are being restored, and by what.
    pub in_use: BTreeMap<Slot, String>,
    /// Why `in_use` may not be all of them.
    pub unknown_use: Option<String>,
    /// Backups that are being made, or copied to this store.
    pub unfinished: BTreeSet<Slot>,
    /// Backups that lie in this store, by the cluster's word.
    pub known: BTreeSet<Slot>,
    /// Digests that somebody acknowledged.
    pub acknowledged: Vec<String>,
    /// The `Backup` objects of the tenant.
    pub backups: Vec<Backup>,
    /// What was read and need not be read again.
    pub read: Known,
}

impl Seen {
    /// Whether a backup of `slot` should be there.
    pub fn is_known(&self, slot: Slot) -> bool {
        self.expected().contains(&slot)
    }

    /// Backups that should be there: by the register, and by what the cluster knows and retention did not let go.
    pub fn expected(&self) -> BTreeSet<Slot> {
        let Some(register) = &self.register else { return self.known.clone() };
        let known = self.known.difference(&register.let_go);
        known.chain(&register.committed).copied().collect()
    }

    /// Whether the copy of `of` whose failure `said` that it is damaged is committed by now: then all of it was read.
    pub fn is_copied_since(&self, of: Slot, said: &str) -> bool {
        let here = self.backups.iter().filter(|backup| slot(backup) == Some(of));
        let here = here.flat_map(|backup| backup.status.iter().flat_map(|status| &status.stores));
        let here = here.filter(|stored| stored.commit.is_some()).map(|stored| &stored.name);
        let there = self.elsewhere.iter().filter(|there| there.committed.contains(&of));
        here.chain(there.map(|there| &there.store)).any(|store| damage::is_of_copy_to(said, store))
    }
}

/// What another store of the same policy has of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Its name.
    pub store: String,
    /// Backups that are committed there.
    pub committed: BTreeSet<Slot>,
    /// Backups that retention let go there.
    pub let_go: BTreeSet<Slot>,
}

/// Whose an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This cluster's, or nobody wrote down whose.
    Ours,
    /// Another cluster's, in words.
    Another(String),
}

/// What a backup builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lineage {
    /// Its manifest is as it was committed, and says so.
    Of(Option<Slot>),
    /// Its manifest is not there, or not what was committed.
    Damaged,
}

/// The stores that were proven to be what they should.
pub fn stores(context: &Context) -> Vec<Store> {
    let stores = context.stores.state();
    let stores = stores.iter().filter_map(|store| store.0.as_ref().ok());
    let stores = stores.map(|store| store_check::check(Arc::new(store.clone())));
    stores.filter(check::is_ready).collect()
}

/// Those whose `turn` it is, of all archives that somebody's tenant has in a store, and of those that the stores have
/// besides.
///
/// An archive that two tenants claim is nobody's to look after; and neither is one whose tenant's policy is not there.
pub fn wards(
    context: &Context,
    now: Timestamp,
    mut turn: impl FnMut(&Subject) -> Option<Reach>,
) -> Vec<Ward> {
    let stores: BTreeMap<String, Store> =
        stores(context).into_iter().map(|store| (store.name.clone(), store)).collect();
    let policies = context.policies.state();
    let policies: HashMap<String, &BackupPolicy> = policies
        .iter()
        .filter_map(|policy| policy.0.as_ref().ok().map(|object| (object.name_any(), object)))
        .collect();
    let committed = committed(context);
    let own = context.settings.location.as_ref();
    let tenants = context.tenants.state();
    let (claims, unreadable) = claims(&tenants);
    let mut wards = Vec::new();
    let mut taken = BTreeSet::new();
    for (archive, tenants) in &claims {
        let [tenant] = tenants.as_slice() else {
            taken.extend(stores.keys().map(|store| (store.clone(), archive.clone())));
            continue;
        };
        let Some(protection) = &tenant.spec.backup else { continue };
        let Some(policy) = policies.get(&protection.policy) else {
            taken.extend(stores.keys().map(|store| (store.clone(), archive.clone())));
            continue;
        };
        for (number, name) in policy.spec.stores.iter().enumerate() {
            taken.insert((name.clone(), archive.clone()));
            let Some(store) = stores.get(name) else { continue };
            let namespace = format!("{NAMESPACE_PREFIX}{}", tenant.name_any());
            let newest = committed.get(&(namespace, name.clone())).copied();
            let standing = if newest.is_none() { Standing::Unknown } else { Standing::Known };
            let subject = Subject::of_tenant((name.clone(), archive.clone()), tenant, newest, standing);
            // What is not looked at is not copied either: there are ten thousand of them.
            let Some(reach) = turn(&subject) else { continue };
            wards.push(Ward {
                archive: archive.clone(),
                store: store.clone(),
                tenant: Some(Arc::new((*tenant).clone())),
                place: if number == 0 { Place::First } else { Place::Later },
                committed: newest,
                standing,
                terms: check::terms(tenant, policy, now),
                others: if number == 0 { others(policy, &stores, own) } else { vec![] },
                reach,
            });
        }
    }
    // While one tenant cannot be read, nobody knows whose archive it has.
    if unreadable {
        return wards;
    }
    for store in stores.values() {
        let stock = context.memory().stock(&store.name).to_vec();
        for archive in stock {
            if taken.contains(&(store.name.clone(), archive.clone())) {
                continue;
            }
            let tenant = claims.get(&archive).and_then(|tenants| tenants.first()).copied();
            let mut ward = Ward {
                archive,
                store: store.clone(),
                tenant: tenant.map(|tenant| Arc::new(tenant.clone())),
                place: Place::Later,
                committed: None,
                standing: Standing::Known,
                terms: None,
                others: vec![],
                reach: Reach::Whole,
            };
            if let Some(reach) = turn(&Subject::of(&ward)) {
                ward.reach = reach;
                wards.push(ward);
            }
        }
    }
    wards
}

/// The stores that `policy` names besides its first, of `stores`, where it lets backups lie.
fn others(policy: &BackupPolicy, stores: &BTreeMap<String, Store>, own: Option<&Location>) -> Vec<Store> {
    let others = policy.spec.stores.iter().skip(1).filter_map(|name| stores.get(name));
    let allowed = |store: &&Store| residency::may_lie_in(&store.name, &store.location, policy, own).is_ok();
    others.filter(allowed).cloned().collect()
}

/// The tenants that name each archive; and whether a tenant could not be read.
fn claims(tenants: &[Arc<Guarded>]) -> (BTreeMap<ArchiveId, Vec<&JournalTenant>>, bool) {
    let mut claims: BTreeMap<ArchiveId, Vec<&JournalTenant>> = BTreeMap::new();
    let mut unreadable = false;
    for tenant in tenants {
        match &tenant.0 {
            Ok(tenant) => {
                if let Some(archive) = check::archive_of(tenant) {
                    claims.entry(archive).or_default().push(tenant);
                }
            }
            Err(_) => unreadable = true,
        }
    }
    (claims, unreadable)
}

/// When the newest backup was committed, by namespace and store.
fn committed(context: &Context) -> HashMap<(String, String), Timestamp> {
    let mut newest: HashMap<(String, String), Timestamp> = HashMap::new();
    for backup in context.backups.state() {
        let Ok(backup) = &backup.0 else { continue };
        let Some(namespace) = backup.namespace() else { continue };
        for stored in backup.status.iter().flat_map(|status| &status.stores) {
            if let Some(at) = &stored.committed {
                let newest = newest.entry((namespace.clone(), stored.name.clone())).or_insert(at.0);
                *newest = at.0.max(*newest);
            }
        }
    }
    newest
}

/// The archives that `store` has, whoever made them.
///
/// # Errors
/// If the store does not let us look.
pub async fn archives(context: &Context, store: &Store) -> Result<Vec<ArchiveId>, Error> {
    open(store, context).await?.reader.archives().await.map_err(Error::List)
}

/// Whom the ward's store is asked as.
///
/// # Errors
/// If credentials or the signing key are not to be had.
pub async fn access(ward: &Ward, context: &Context) -> Result<Access, Error> {
    open(&ward.store, context).await
}

async fn open(store: &Store, context: &Context) -> Result<Access, Error> {
    let namespace = &context.settings.operator_namespace;
    let credentials = identities::credentials(store, &context.cluster, namespace).await;
    let credentials = credentials.map_err(Error::Cluster)?.map_err(Error::Credentials)?;
    let keys = context.signing.keys(&context.cluster, namespace).await.map_err(Error::Signing)?;
    let bucket = |identity| {
        Bucket::open(&store.settings(credentials.of(identity).clone()))
            .map_err(|source| Error::Settings { store: store.name.clone(), source })
    };
    let retry = RetryRule { tries: 4, budget: 20, ..RetryRule::default() };
    Ok(Access {
        reader: Archive::new(bucket(Identity::Reader)?, fetch::Options { ahead: 1, retry }),
        committer: bucket(Identity::Committer)?,
        janitor: bucket(Identity::Janitor)?,
        settings: store.settings(credentials.of(Identity::Reader).clone()),
        keys,
    })
}

/// Looks.
///
/// The cluster is looked at before the store: what is committed in between is in the catalogue and not yet missed.
///
/// # Errors
/// If anything could not be seen: half of it is no ground to delete on.
pub async fn observe(ward: &Ward, access: &Access, context: &Context) -> Result<Seen, Error> {
    let now = (context.now)();
    let backups = backups(ward, context);
    let InUse { slots: in_use, unknown } = in_use(ward, context).await;
    let trusted = access.keys.trusted();
    let before = context.memory().known(&ward.key());
    // What cannot be told without it is found out with two requests.
    let register = register(ward, &access.reader, &trusted, before.register.as_ref()).await?;
    let catalogue = access.reader.catalogue(&ward.archive, &trusted).await;
    let catalogue = catalogue.map_err(|error| Error::Catalogue(Box::new(error)))?;
    let unread = match ward.reach {
        Reach::Whole => &HashSet::new(),
        Reach::Short | Reach::Daily => &before.manifests,
    };
    let lineage = lineage(&catalogue, access, unread).await?;
    let mut known = Known {
        register: register.version,
        manifests: alone(&catalogue, &lineage),
        records: Records::default(),
    };
    let recorded = access.reader.terms(&ward.archive, &trusted, now).await;
    let recorded = recorded.map_err(|error| Error::Catalogue(Box::new(error)))?;
    let verdicts = register.register.as_ref().and_then(|register| register.drilled.as_ref());
    let records = match verdicts {
        Some(_) => &before.records,
        // Nothing is remembered of what was read.
        None => &Records::default(),
    };
    let (told, records) = told(ward, access, &trusted, records).await?;
    known.records = records;
    let drilled = damage::drilled(told, verdicts, |slot| catalogue.entries.contains_key(&slot), now);
    let elsewhere = elsewhere(ward, context).await;
    Ok(Seen {
        catalogue,
        lineage,
        recorded,
        replaced: register.replaced,
        register: register.register,
        drilled,
        reported: damage::reported(&backups, &ward.store.name),
        elsewhere,
        course: if ward.tenant.is_some() { Course::GoesOn } else { Course::HasEnded },
        in_use,
        unknown_use: unknown,
        unfinished: backups
            .iter()
            .filter(|backup| is_unfinished(backup, &ward.store.name))
            .filter_map(slot)
            .collect(),
        known: known_here(ward, &backups),
        acknowledged: ward.acknowledged(),
        backups,
        read: known,
    })
}

/// What each backup of `catalogue` builds on; of those of which the manifest is `known`, which build on none, by memory.
///
/// # Errors
/// If one could not be seen.
pub async fn lineage(
    catalogue: &Catalogue,
    access: &Access,
    known: &HashSet<u64>,
) -> Result<BTreeMap<Slot, Lineage>, Error> {
    let mut lineage = BTreeMap::new();
    // One at a time: a manifest has up to 4 MiB.
    for (slot, entry) in &catalogue.entries {
        let found = if known.contains(&number_of(entry)) {
            Lineage::Of(None)
        } else {
            match access.reader.of_manifest(&entry.commit.manifest, |manifest| manifest.parent).await {
                Ok(parent) => Lineage::Of(parent),
                Err(fetch::Error::Broken(_) | fetch::Error::Manifest { .. }) => Lineage::Damaged,
                Err(error) => return Err(Error::Lineage(Box::new(error))),
            }
        };
        lineage.insert(*slot, found);
    }
    Ok(lineage)
}

/// The manifests of `catalogue` that build on no other: those need not be read at each look.
pub fn alone(catalogue: &Catalogue, lineage: &BTreeMap<Slot, Lineage>) -> HashSet<u64> {
    let alone = catalogue.entries.iter().filter(|(slot, _)| lineage.get(slot) == Some(&Lineage::Of(None)));
    alone.map(|(_, entry)| number_of(entry)).collect()
}

/// How the manifest of a backup is remembered.
fn number_of(entry: &Entry) -> u64 {
    rounds::number(entry.commit.manifest.blake3.as_bytes())
}

/// The register of the ward.
async fn register(
    ward: &Ward,
    reader: &Archive,
    trusted: &[PublicKey],
    known: Option<&Version>,
) -> Result<register::Found, Error> {
    let found = reader.register(&ward.archive, &ward.store.name, trusted, known).await;
    let found = found.map_err(|error| Error::Catalogue(Box::new(error)))?;
    // Without one, whatever is there now would be all that should be.
    if found.register.is_none() && found.refused > 0 {
        return Err(Error::Register { versions: found.refused });
    }
    Ok(found)
}

/// What the drills say whose records lie in the archive and were not `read`; and those that were read then.
async fn told(
    ward: &Ward,
    access: &Access,
    trusted: &[PublicKey],
    read: &Records,
) -> Result<(Vec<Told>, Records), Error> {
    let listed = access.reader.newest_records(&ward.archive, damage::RECORDS, damage::MOST_LISTED).await;
    let listed = listed.map_err(|error| Error::Catalogue(Box::new(error)))?;
    let mut all = Vec::new();
    for record in listed.iter().filter(|record| !read.have(&record.key)) {
        let versions = access.reader.record(&ward.archive, record, RECORD_LIMIT_BYTES).await;
        let versions = versions.map_err(|error| Error::Catalogue(Box::new(error)))?;
        let told = versions.iter().find_map(|bytes| Told::open(bytes, &ward.archive, trusted));
        // What is cancelled takes no other's place.
        all.extend(told.filter(Told::is_verdict));
        if all.len() >= damage::MOST_RECORDS {
            break;
        }
    }
    Ok((all, Records::of(listed.iter().map(|record| record.key.as_str()))))
}

/// What the further stores of the ward's policy have. One that does not let us look is left out: its own ward says so.
async fn elsewhere(ward: &Ward, context: &Context) -> Vec<Elsewhere> {
    let mut found = Vec::new();
    for store in ward.others.iter().filter(|_| ward.reach > Reach::Short) {
        // One that is left alone, or slow, must not keep this one from being looked after.
        if context.breakers.status(&store.name).state != BreakerState::Closed {
            continue;
        }
        let there = timeout(ELSEWHERE, elsewhere_in(store, ward, context)).await;
        let ended = (context.now)();
        let why = match there {
            Ok(Ok(there)) => {
                found.push(there);
                continue;
            }
            Ok(Err(error)) => {
                if error.of_store().is_some_and(bucket::Error::is_of_the_store) {
                    context.breakers.failed(&store.name, ended);
                }
                chain(&error)
            }
            Err(_) => {
                context.breakers.failed(&store.name, ended);
                format!("it did not answer all within {} s", ELSEWHERE.as_secs())
            }
        };
        warn!(store.name = store.name, error = why, "failed to look which copies are missing");
    }
    found
}

/// By the register there, which its own ward keeps, and a listing: what is in both is there, and of the rest each commit is
/// read. Where there is no register yet, all are.
async fn elsewhere_in(store: &Store, ward: &Ward, context: &Context) -> Result<Elsewhere, Error> {
    let access = open(store, context).await?;
    let trusted = access.keys.trusted();
    let wrong = |error| Error::Catalogue(Box::new(error));
    let key = (store.name.clone(), ward.archive.clone());
    let known = context.memory().known(&key).register;
    let found = access.reader.register(&ward.archive, &store.name, &trusted, known.as_ref()).await;
    let Some(register) = found.map_err(wrong)?.register else {
        let catalogue = access.reader.catalogue(&ward.archive, &trusted).await.map_err(wrong)?;
        let committed = catalogue.entries.into_keys().collect();
        return Ok(Elsewhere { store: store.name.clone(), committed, let_go: BTreeSet::new() });
    };
    let there = access.reader.slots(&ward.archive).await.map_err(wrong)?;
    let mut committed: BTreeSet<Slot> = register.committed.intersection(&there).copied().collect();
    // What was committed since its own look, or what somebody laid there.
    for slot in there.difference(&register.committed) {
        match access.reader.commit(&ward.archive, *slot, &trusted).await {
            Ok(_) => {
                committed.insert(*slot);
            }
            Err(fetch::Error::Broken(_) | fetch::Error::Commit { .. }) => {}
            Err(error) => return Err(Error::Lineage(Box::new(error))),
        }
    }
    Ok(Elsewhere { store: store.name.clone(), committed, let_go: register.let_go })
}

/// Whose the archive is, by the record that lies in it. A person who has it taken over says so on the tenant.
///
/// # Errors
/// If the store or the cluster does not let us look.
pub async fn whose(ward: &Ward, access: &Access, context: &Context) -> Result<Whose, Error> {
    let Some(key) = Owner::key(&ward.archive) else { return Ok(Whose::Ours) };
    let found = access.reader.latest_document(&key.to_string(), owner::LIMIT_BYTES).await;
    let found = found.map_err(|error| Error::Owner(Box::new(error)))?;
    let here = claim::cluster_id(&context.cluster, &context.cluster_id).await.map_err(Error::Cluster)?;
    let trusted = access.keys.trusted();
    let owner = found.map(|found| Owner::open(&found.bytes, &trusted).map_err(|error| chain(&error)));
    Ok(judge(ward, owner, &here))
}

/// What the record, if there is one, means in the cluster `here`.
fn judge(ward: &Ward, owner: Option<Result<Owner, String>>, here: &str) -> Whose {
    let annotations = ward.tenant.as_ref().map(|tenant| tenant.annotations());
    let taken_over = annotations.and_then(|annotations| annotations.get(TAKE_OVER_ARCHIVE_ANNOTATION));
    if taken_over.is_some_and(|named| *named == ward.archive.to_string()) {
        return Whose::Ours;
    }
    match owner {
        // The tenant's next backup, or its next copy, writes it.
        None if ward.tenant.is_some() => Whose::Ours,
        None => Whose::Another("nobody knows whom: it has no record of whose it is".to_owned()),
        Some(Ok(owner)) if owner.cluster == here => Whose::Ours,
        Some(Ok(owner)) => {
            Whose::Another(format!("the tenant {} in the cluster {}", owner.tenant, owner.cluster))
        }
        Some(Err(why)) => Whose::Another(format!("one whose record this cluster's key did not sign ({why})")),
    }
}

/// The folders of data that the archive has; but when all is looked at, only of slots of which nothing is committed.
///
/// # Errors
/// If they cannot be listed.
pub async fn folders(ward: &Ward, seen: &Seen, access: &Access) -> Result<DataFolders, Error> {
    let is_asked_for = |slot| ward.reach == Reach::Whole || !seen.catalogue.entries.contains_key(&slot);
    access.reader.data_folders(&ward.archive, is_asked_for).await.map_err(Error::List)
}

/// Those of `folders` that have a manifest.
///
/// # Errors
/// If one cannot be looked at.
pub async fn whole(folders: &[Folder], access: &Access) -> Result<BTreeSet<Folder>, Error> {
    let mut whole = BTreeSet::new();
    for folder in folders {
        if access.reader.has_manifest(folder).await.map_err(Error::List)? {
            whole.insert(folder.clone());
        }
    }
    Ok(whole)
}

/// The `Backup` objects of the ward's tenant.
fn backups(ward: &Ward, context: &Context) -> Vec<Backup> {
    let Some(namespace) = ward.namespace() else { return vec![] };
    let backups = context.backups.state();
    let backups = backups.iter().filter_map(|backup| backup.0.as_ref().ok());
    backups.filter(|backup| backup.namespace().as_deref() == Some(namespace.as_str())).cloned().collect()
}

/// Under which slot a backup lies, as its status says, or its name, or when it was made.
pub fn slot(backup: &Backup) -> Option<Slot> {
    let said = backup.status.as_ref().and_then(|status| status.slot);
    said.or_else(|| backup_check::check(Arc::new(backup.clone())).subject.ok().map(|subject| subject.slot))
}

/// Whether `backup` is being made, or is to be copied to `store` yet.
fn is_unfinished(backup: &Backup, store: &str) -> bool {
    !is_over(backup)
        || is_true(backup, BackupCondition::Complete) && {
            let is_here = lies_in(backup, store);
            !is_here && !is_true(backup, BackupCondition::Copied)
        }
}

/// Whether a condition of `backup` is true.
pub fn is_true(backup: &Backup, condition: BackupCondition) -> bool {
    let name = format!("{condition:?}");
    let conditions = backup.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|standing| standing.type_ == name && standing.status == "True")
}

/// Whether `backup` is committed in `store`, by its own word.
pub fn lies_in(backup: &Backup, store: &str) -> bool {
    let stores = backup.status.iter().flat_map(|status| &status.stores);
    stores.into_iter().any(|stored| stored.name == store && stored.commit.is_some())
}

/// What the cluster knows to be in the ward's store.
fn known_here(ward: &Ward, backups: &[Backup]) -> BTreeSet<Slot> {
    let archive = ward.archive.to_string();
    let of_this_archive = |backup: &&Backup| {
        let status = backup.status.as_ref();
        status.and_then(|status| status.archive_id.as_deref()).is_none_or(|id| id == archive)
    };
    let committed = backups.iter().filter(of_this_archive).filter(|backup| lies_in(backup, &ward.store.name));
    let last = ward.tenant.as_ref().and_then(|tenant| {
        let last = tenant.status.as_ref()?.backup.as_ref()?.last_backup.as_ref()?;
        (ward.terms.is_some() && last.stores.contains(&ward.store.name)).then_some(last.slot)
    });
    committed.filter_map(slot).chain(last).collect()
}

/// Whether somebody writes, or is about to write, a backup of `slot` to the ward's store: by what the cluster knows now.
pub fn is_being_written(ward: &Ward, of: Slot, context: &Context) -> bool {
    let Some(namespace) = ward.namespace() else { return false };
    context.backups.state().iter().filter_map(|backup| backup.0.as_ref().ok()).any(|backup| {
        backup.metadata.namespace.as_ref() == Some(&namespace)
            && is_unfinished(backup, &ward.store.name)
            && slot(backup) == Some(of)
    })
}

/// Which backups of a tenant are being restored.
#[derive(Debug, Default)]
pub struct InUse {
    /// Those, and by what.
    pub slots: BTreeMap<Slot, String>,
    /// Why that may not be all of them.
    pub unknown: Option<String>,
}

/// Which backups of the ward's tenant are being restored.
pub async fn in_use(ward: &Ward, context: &Context) -> InUse {
    let mut in_use = InUse::default();
    let Some(namespace) = ward.namespace() else { return in_use };
    let drills = match context.cluster.list_in::<RestoreDrill>(Kind::RestoreDrill, &namespace, "").await {
        Ok(drills) => drills,
        Err(error) => {
            warn!(error = chain(&error), "failed to list the drills: nothing is deleted this time");
            in_use.unknown = Some("the drills could not be listed".to_owned());
            return in_use;
        }
    };
    for drill in drills {
        let status = drill.status.as_ref();
        if status.is_some_and(|status| status.ended.is_some()) {
            continue;
        }
        match status.and_then(|status| status.backup.as_ref()) {
            Some(backup) => {
                let by = format!("the drill {} restores it", drill.name_any());
                in_use.slots.insert(backup.slot, by);
            }
            None => {
                in_use.unknown =
                    Some(format!("the drill {} has not chosen its backup yet", drill.name_any()));
            }
        }
    }
    in_use
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{copy::check::tests::tenant, store::check::tests::store};

    /// Ada's archive in Helsinki, and how she is annotated.
    pub fn ward(annotations: &[(&str, &str)]) -> Ward {
        let mut tenant = tenant().as_ref().clone();
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        tenant.metadata.annotations = Some(annotations.collect());
        Ward {
            archive: "ada".parse().unwrap(),
            store: store(),
            tenant: Some(Arc::new(tenant)),
            place: Place::First,
            committed: None,
            standing: Standing::Known,
            terms: None,
            others: vec![],
            reach: Reach::Whole,
        }
    }

    #[test]
    fn an_archive_of_another_cluster_is_another_s_until_somebody_has_it_taken_over() {
        let owner = |cluster: &str| Some(Ok(owner::tests::owner("ada", "u1", cluster, None)));
        let plain = ward(&[]);

        assert_eq!(judge(&plain, None, "c1"), Whose::Ours);
        assert_eq!(judge(&plain, owner("c1"), "c1"), Whose::Ours);
        assert!(matches!(judge(&plain, owner("c2"), "c1"), Whose::Another(_)));
        assert!(matches!(judge(&plain, Some(Err("forged".to_owned())), "c1"), Whose::Another(_)));
        let taken_over = ward(&[(TAKE_OVER_ARCHIVE_ANNOTATION, "ada")]);
        assert_eq!(judge(&taken_over, owner("c2"), "c1"), Whose::Ours);
        let gone = Ward { tenant: None, ..plain };
        assert!(matches!(judge(&gone, owner("c2"), "c1"), Whose::Another(_)));
        assert_eq!(judge(&gone, owner("c1"), "c1"), Whose::Ours);
        assert!(
            matches!(judge(&gone, None, "c1"), Whose::Another(_)),
            "another cluster's may lack its record"
        );
    }
}
