//! Looks at what a ward's plan rests on. Reads only: the cluster from memory as far as it can, the store as its reader.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use kube::ResourceExt;
use tracing::{info, warn};
use valv_crds::{
    Backup, JournalTenant, RestoreDrill, Slot, backup::BackupCondition, reference::NAMESPACE_PREFIX,
};

use super::{
    Context, Error,
    check::{self, Place, Ward},
    rounds::Standing,
};
use crate::{
    archive::{
        Archive,
        catalogue::Catalogue,
        fetch,
        layout::{ArchiveId, Folder},
        retry::RetryRule,
        terms::Terms,
    },
    backup::{check as backup_check, observe::is_over},
    error::chain,
    io::{bucket::Bucket, kind::Kind},
    signing::Keys,
    store::{
        check::{self as store_check, Identity, Store},
        observe as identities,
    },
};

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
    /// The folders of data that it has, committed or not.
    pub folders: Vec<Folder>,
    /// Backups that are being restored, and by what.
    pub in_use: BTreeMap<Slot, String>,
    /// Whether `in_use` is all of them: a drill may not have chosen yet.
    pub is_use_known: bool,
    /// Backups that are being made, or copied to this store.
    pub unfinished: BTreeSet<Slot>,
    /// Backups that lie in this store, by the cluster's word.
    pub known: BTreeSet<Slot>,
    /// Digests that somebody acknowledged.
    pub acknowledged: Vec<String>,
    /// The `Backup` objects of the tenant.
    pub backups: Vec<Backup>,
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

/// All archives that somebody's tenant has in a store, and those that the stores have besides.
///
/// An archive that two tenants claim is nobody's to look after; and neither is one whose tenant's policy is not there.
pub fn wards(context: &Context, now: Timestamp) -> Vec<Ward> {
    let stores: BTreeMap<String, Store> =
        stores(context).into_iter().map(|store| (store.name.clone(), store)).collect();
    let policies: HashMap<String, _> = context
        .policies
        .state()
        .iter()
        .filter_map(|policy| policy.0.as_ref().ok().map(|object| (object.name_any(), object.clone())))
        .collect();
    let committed = committed(context);
    let (claims, unreadable) = claims(context);
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
            wards.push(Ward {
                archive: archive.clone(),
                store: store.clone(),
                tenant: Some(tenant.clone()),
                place: if number == 0 { Place::First } else { Place::Later },
                committed: newest,
                standing: if newest.is_none() { Standing::Unknown } else { Standing::Known },
                terms: check::terms(tenant, policy, now),
            });
        }
    }
    // While one tenant cannot be read, nobody knows whose archive it has.
    if unreadable {
        return wards;
    }
    let memory = context.memory();
    for store in stores.values() {
        for archive in memory.stock(&store.name) {
            if taken.contains(&(store.name.clone(), archive.clone())) {
                continue;
            }
            wards.push(Ward {
                archive: archive.clone(),
                store: store.clone(),
                tenant: claims.get(archive).and_then(|tenants| tenants.first()).cloned(),
                place: Place::Later,
                committed: None,
                standing: Standing::Known,
                terms: None,
            });
        }
    }
    wards
}

/// The tenants that name each archive; and whether a tenant could not be read.
fn claims(context: &Context) -> (BTreeMap<ArchiveId, Vec<Arc<JournalTenant>>>, bool) {
    let mut claims: BTreeMap<ArchiveId, Vec<Arc<JournalTenant>>> = BTreeMap::new();
    let mut unreadable = false;
    for tenant in context.tenants.state() {
        match &tenant.0 {
            Ok(tenant) => {
                if let Some(archive) = check::archive_of(tenant) {
                    claims.entry(archive).or_default().push(Arc::new(tenant.clone()));
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
    let backups = backups(ward, context);
    let (in_use, is_use_known) = in_use(ward, context).await;
    let trusted = access.keys.trusted();
    let catalogue = access.reader.catalogue(&ward.archive, &trusted).await;
    let catalogue = catalogue.map_err(|error| Error::Catalogue(Box::new(error)))?;
    let mut lineage = BTreeMap::new();
    // One at a time: a manifest has up to 16 MiB.
    for (slot, entry) in &catalogue.entries {
        let found = match access.reader.manifest(&entry.commit.manifest).await {
            Ok(manifest) => Lineage::Of(manifest.parent),
            Err(fetch::Error::Broken(_) | fetch::Error::Manifest { .. }) => Lineage::Damaged,
            Err(error) => return Err(Error::Lineage(Box::new(error))),
        };
        lineage.insert(*slot, found);
    }
    let recorded = access.reader.terms(&ward.archive, &trusted).await;
    let recorded = recorded.map_err(|error| Error::Catalogue(Box::new(error)))?;
    let folders = access.reader.data_folders(&ward.archive).await.map_err(Error::List)?;
    Ok(Seen {
        catalogue,
        lineage,
        recorded,
        folders,
        in_use,
        is_use_known,
        unfinished: backups
            .iter()
            .filter(|backup| is_unfinished(backup, &ward.store.name))
            .filter_map(slot)
            .collect(),
        known: known(ward, &backups),
        acknowledged: ward.acknowledged(),
        backups,
    })
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
fn known(ward: &Ward, backups: &[Backup]) -> BTreeSet<Slot> {
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

/// Which backups of the ward's tenant are being restored; and whether that is all of them.
async fn in_use(ward: &Ward, context: &Context) -> (BTreeMap<Slot, String>, bool) {
    let Some(namespace) = ward.namespace() else { return (BTreeMap::new(), true) };
    let drills = match context.cluster.list_in::<RestoreDrill>(Kind::RestoreDrill, &namespace, "").await {
        Ok(drills) => drills,
        Err(error) => {
            warn!(error = chain(&error), "failed to list the drills: nothing is deleted this time");
            return (BTreeMap::new(), false);
        }
    };
    let mut in_use = BTreeMap::new();
    let mut is_known = true;
    for drill in drills {
        let status = drill.status.as_ref();
        if status.is_some_and(|status| status.ended.is_some()) {
            continue;
        }
        match status.and_then(|status| status.backup.as_ref()) {
            Some(backup) => {
                in_use.insert(backup.slot, format!("the drill {} restores it", drill.name_any()));
            }
            None => {
                info!(
                    object.name = drill.name_any(),
                    "a drill has not chosen yet: nothing is deleted this time"
                );
                is_known = false;
            }
        }
    }
    (in_use, is_known)
}
