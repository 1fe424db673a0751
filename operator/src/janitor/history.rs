//! What the catalogue means for the `Backup` objects: old ones go, lost ones come back, and those whose commit is gone
//! say so. The bucket is the catalogue; of the objects only the newest few stay.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{ResourceExt, api::ObjectMeta, core::DynamicObject};
use tracing::info;
use valv_crds::{
    Backup, BackupSpec, Slot,
    backup::{BackupCondition, BackupReason, BackupStatus, ObjectDigest, Origin, StoredIn, Verified},
    condition::Saying,
    policy::VerificationMode,
    reference::FROM_CATALOGUE_ANNOTATION,
    slot,
};

use super::{
    Context, Error,
    check::{Place, Ward},
    observe::{Access, Seen, is_true, lies_in, slot as slot_of},
    status,
};
use crate::{
    archive::{catalogue::Entry, fetch, manifest::Manifest, verify::Mode},
    backup::{attempt::time, commission::Extent, observe::is_over},
    io::{
        cluster::Error as ClusterError,
        kind::{Key, Kind},
    },
};

/// Objects of backups that are over which a tenant keeps.
pub const KEPT: usize = 7;

/// Of those that wait for their copies no more are kept: a store that is gone for good must not fill the cluster.
const MOST_UNCOPIED: usize = 31;

/// Objects that are made from the catalogue where there are none.
const REBUILT: usize = 3;

/// Of backups whose copies are missing, objects that are made in one look. With those that wait already there are fewer
/// than [`MOST_UNCOPIED`], so that none of them is taken away before it is copied.
const BROUGHT_TO_BE_COPIED: usize = 10;

/// What is not where it should be.
#[derive(Clone, Copy, Debug)]
pub struct Gone<'a> {
    /// Backups whose commit is missing.
    pub missing: &'a BTreeSet<Slot>,
    /// Backups whose commit is missing, as somebody has acknowledged: their objects say so already.
    pub forgotten: &'a BTreeSet<Slot>,
    /// Backups that another store should have, and has not.
    pub uncopied: &'a BTreeSet<Slot>,
}

/// What became of the objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Objects that are gone; what they stand for stays in the bucket.
    pub pruned: usize,
    /// Objects that were made from the catalogue.
    pub rebuilt: Vec<Slot>,
}

/// What is done with the objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Objects that go, by name.
    pub prune: Vec<String>,
    /// Backups for which an object is made, or was made and has no status yet.
    pub rebuild: Vec<Slot>,
    /// Objects, by name, that say that all stores have the backup, and one has not.
    pub recopy: Vec<String>,
}

/// The plan for the objects of one tenant, whose catalogue in the first `store` of its policy has `committed`, of which
/// other stores lack `uncopied`.
///
/// # Guarantees
/// An object that is not over stays, so does the newest complete one, and so does one that says that it lies in the
/// first store while the catalogue does not have it: that is evidence.
pub fn plan(
    tenant: &str,
    store: &str,
    backups: &[Backup],
    committed: &BTreeSet<Slot>,
    uncopied: &BTreeSet<Slot>,
) -> Plan {
    let mut over: Vec<(&Backup, Slot)> = backups
        .iter()
        .filter(|backup| is_over(backup) && backup.metadata.deletion_timestamp.is_none())
        .filter_map(|backup| Some((backup, slot_of(backup)?)))
        .collect();
    over.sort_by_key(|(_, slot)| Reverse(*slot));
    let is_complete = |backup: &Backup| is_true(backup, BackupCondition::Complete);
    let newest_complete = over.iter().find(|(backup, _)| is_complete(backup)).map(|(_, slot)| *slot);
    let prune = over.iter().enumerate().filter(|(number, (backup, slot))| {
        let is_old = *number >= KEPT && Some(*slot) != newest_complete;
        let is_safe = !is_complete(backup) || committed.contains(slot) || !lies_in(backup, store);
        let is_copied = !is_complete(backup)
            || is_true(backup, BackupCondition::Copied) && !uncopied.contains(slot)
            || *number >= MOST_UNCOPIED;
        is_old && is_safe && is_copied
    });
    // One that was begun and whose slot the catalogue has no more is of nothing.
    let of_nothing = backups.iter().filter(|backup| {
        backup.annotations().contains_key(FROM_CATALOGUE_ANNOTATION)
            && !is_over(backup)
            && slot_of(backup).is_none_or(|slot| !committed.contains(&slot))
    });
    let prune = prune.map(|(_, (backup, _))| backup.name_any());
    let prune = prune.chain(of_nothing.map(ResourceExt::name_any)).collect();
    let taken: BTreeMap<String, &Backup> = backups.iter().map(|backup| (backup.name_any(), backup)).collect();
    // Made by an earlier look that came no further.
    let begun = |slot: &Slot| {
        taken.get(&slot::name(tenant, *slot)).is_some_and(|backup| {
            backup.annotations().contains_key(FROM_CATALOGUE_ANNOTATION) && !is_over(backup)
        })
    };
    // Whatever was begun is brought to its end, wherever its slot stands by now.
    let mut rebuild: Vec<Slot> = committed.iter().rev().filter(|slot| begun(slot)).copied().collect();
    if newest_complete.is_none() {
        let newest = committed.iter().rev().take(REBUILT);
        let free = newest.filter(|slot| !taken.contains_key(&slot::name(tenant, **slot)));
        rebuild.extend(free.copied());
        rebuild.sort_unstable_by_key(|slot| Reverse(*slot));
    }
    // Copies are made of what has an object. The oldest first: their object is the likeliest to be gone.
    let waiting =
        over.iter().filter(|(backup, _)| is_complete(backup) && !is_true(backup, BackupCondition::Copied));
    let room = MOST_UNCOPIED.saturating_sub(KEPT + waiting.count()).min(BROUGHT_TO_BE_COPIED);
    let has_object: BTreeSet<Slot> = backups.iter().filter_map(slot_of).collect();
    let brought = uncopied.iter().filter(|slot| {
        let is_free = !has_object.contains(slot) && !taken.contains_key(&slot::name(tenant, **slot));
        committed.contains(slot) && (is_free || begun(slot))
    });
    rebuild.extend(brought.take(room).filter(|slot| !rebuild.contains(slot)).copied().collect::<Vec<_>>());
    let recopy = over.iter().filter(|(backup, slot)| {
        is_complete(backup) && is_true(backup, BackupCondition::Copied) && uncopied.contains(slot)
    });
    let recopy = recopy.map(|(backup, _)| backup.name_any()).collect();
    Plan { prune, rebuild, recopy }
}

impl Plan {
    /// While the catalogue lacks something, it says nothing of what is complete. What failed goes all the same: there would
    /// be one more each day.
    fn keep_the_complete(&mut self, backups: &[Backup]) {
        let complete = backups.iter().filter(|backup| is_true(backup, BackupCondition::Complete));
        let complete: BTreeSet<String> = complete.map(ResourceExt::name_any).collect();
        self.prune.retain(|name| !complete.contains(name));
        self.rebuild.clear();
        self.recopy.clear();
    }
}

/// Brings the objects to what the catalogue says.
///
/// # Errors
/// If the cluster refuses, or a manifest that is to be told of cannot be read.
pub async fn apply(
    ward: &Ward,
    access: &Access,
    seen: &Seen,
    gone: &Gone<'_>,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let Gone { missing, forgotten, uncopied } = *gone;
    let is_forgotten = |backup: &Backup| slot_of(backup).is_some_and(|slot| forgotten.contains(&slot));
    for backup in seen.backups.iter().filter(|backup| !is_forgotten(backup)) {
        if let Some(status) = accused(ward, backup, missing, now) {
            match set(context, backup, &status).await {
                // It moved on: the next look says it.
                Err(Error::Cluster(error)) if error.is_conflict() || error.is_not_found() => {}
                said => said?,
            }
        }
    }
    let mut outcome = Outcome::default();
    let is_its_catalogue = ward.place == Place::First;
    let Some(tenant) = ward.tenant.as_ref().filter(|_| is_its_catalogue) else { return Ok(outcome) };
    if tenant.metadata.deletion_timestamp.is_some() {
        return Ok(outcome);
    }
    let committed = seen.catalogue.entries.keys().copied().collect();
    let mut plan = plan(&tenant.name_any(), &ward.store.name, &seen.backups, &committed, uncopied);
    if !missing.is_empty() {
        plan.keep_the_complete(&seen.backups);
    }
    let Plan { prune, rebuild, recopy } = plan;
    for backup in seen.backups.iter().filter(|backup| prune.contains(&backup.name_any())) {
        delete(context, backup).await?;
        outcome.pruned += 1;
    }
    for backup in seen.backups.iter().filter(|backup| recopy.contains(&backup.name_any())) {
        let Some(status) = to_be_copied(backup, now) else { continue };
        match set(context, backup, &status).await {
            Err(Error::Cluster(error)) if error.is_conflict() || error.is_not_found() => {}
            said => said?,
        }
    }
    for slot in rebuild {
        let Some(entry) = seen.catalogue.entries.get(&slot) else { continue };
        if restore(ward, &tenant.name_any(), entry, access, context, now).await? {
            outcome.rebuilt.push(slot);
        }
    }
    Ok(outcome)
}

/// The status of a backup that a store of the policy lacks, though it says otherwise: the store came later, or lost it.
fn to_be_copied(backup: &Backup, now: Timestamp) -> Option<BackupStatus> {
    let mut status = backup.status.clone()?;
    let message = "a store of the policy has no copy of it";
    let saying = Saying::no(BackupCondition::Copied, BackupReason::Copying, message);
    let dated = saying.dated(&status.conditions, backup.metadata.generation, now);
    status.conditions.retain(|condition| condition.type_ != dated.type_);
    status.conditions.push(dated);
    Some(status)
}

/// Makes the object of a backup that lies in the bucket; `false` if it is another's, or cannot be told of.
async fn restore(
    ward: &Ward,
    tenant: &str,
    entry: &Entry,
    access: &Access,
    context: &Context,
    now: Timestamp,
) -> Result<bool, Error> {
    let Some(namespace) = ward.namespace() else { return Ok(false) };
    let extent = |manifest: Manifest| Extent::of(&manifest);
    let extent = match access.reader.of_manifest(&entry.commit.manifest, extent).await {
        Ok(extent) => extent,
        Err(fetch::Error::Broken(_) | fetch::Error::Manifest { .. }) => return Ok(false),
        Err(error) => return Err(Error::Lineage(Box::new(error))),
    };
    let name = slot::name(tenant, entry.commit.slot);
    let object = Backup {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            annotations: Some([(FROM_CATALOGUE_ANNOTATION.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: BackupSpec { origin: Origin::Scheduled, ..BackupSpec::default() },
        status: None,
    };
    match context.cluster.create_backup(&object).await {
        Ok(()) => {}
        Err(error) if error.is_conflict() => {}
        Err(error) => return Err(Error::Cluster(error)),
    }
    let standing = context.cluster.get::<Backup>(Kind::Backup, &namespace, &name).await;
    let Some(standing) = standing.map_err(Error::Cluster)? else { return Ok(false) };
    if is_over(&standing) || !standing.annotations().contains_key(FROM_CATALOGUE_ANNOTATION) {
        return Ok(false);
    }
    set(context, &standing, &told(ward, entry, &extent, &standing, now)).await?;
    info!(object.name = name, slot = %entry.commit.slot, "made a Backup from the catalogue");
    Ok(true)
}

/// The status of a backup, as commit and manifest tell it.
fn told(ward: &Ward, entry: &Entry, extent: &Extent, object: &Backup, now: Timestamp) -> BackupStatus {
    let commit = &entry.commit;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let version = |version: &Option<crate::io::bucket::Version>| {
        version.as_ref().map(|version| version.as_str().to_owned())
    };
    let verified = &commit.verified;
    let stored = StoredIn {
        name: ward.store.name.clone(),
        commit: Some(ObjectDigest {
            key: crate::archive::commit::Commit::key(&commit.archive, commit.slot).to_string(),
            version: version(&entry.version),
            blake3: entry.blake3.to_string(),
        }),
        committed: Some(Time(commit.committed)),
        verification: Some(Verified {
            mode: match verified.mode {
                Mode::Full => VerificationMode::Full,
                Mode::Sample => VerificationMode::Sample,
                Mode::Metadata => VerificationMode::Metadata,
            },
            segments_read: number(verified.segments_read),
            segments: number(verified.segments),
            at: Time(verified.at),
        }),
        locked_until: entry.locked_until.map(Time),
    };
    let generation = object.metadata.generation;
    let says = |saying: Saying<BackupCondition, BackupReason>| saying.dated(&[], generation, now);
    let whose = format!(
        "committed {} in {}, as the catalogue there says; this object was made from it",
        commit.committed, ward.store.name
    );
    BackupStatus {
        observed_generation: generation,
        slot: Some(commit.slot),
        archive_id: Some(commit.archive.to_string()),
        // Only the beginning is known: what it holds is no older.
        taken: Some(time(extent.started)),
        ended: Some(Time(commit.committed)),
        size: Some(extent.size),
        manifest: Some(ObjectDigest {
            key: commit.manifest.key.clone(),
            version: version(&commit.manifest.version),
            blake3: commit.manifest.blake3.to_string(),
        }),
        stores: vec![stored],
        conditions: vec![
            says(Saying::yes(BackupCondition::Complete, BackupReason::Committed, whose)),
            says(Saying::no(
                BackupCondition::Copied,
                BackupReason::Copying,
                "the other stores were not looked at yet",
            )),
        ],
        ..BackupStatus::default()
    }
}

/// The status of a backup whose commit is missing in the ward's store, or is there again; `None` if it says so already.
fn accused(ward: &Ward, backup: &Backup, missing: &BTreeSet<Slot>, now: Timestamp) -> Option<BackupStatus> {
    let standing = backup.status.as_ref()?;
    let slot = slot_of(backup)?;
    if !lies_in(backup, &ward.store.name) {
        return None;
    }
    let saying = match (missing.contains(&slot), is_told_gone(backup, &ward.store.name)) {
        (true, false) => Saying::no(
            BackupCondition::Intact,
            BackupReason::CatalogueRolledBack,
            format!(
                "its commit was in {} and is not there any more: find out who took it away; acknowledge it when you have, and until then nothing is deleted there",
                ward.store.name
            ),
        ),
        (false, true) => Saying::yes(
            BackupCondition::Intact,
            BackupReason::AsAsked,
            format!("its commit is in {} again", ward.store.name),
        ),
        (true, true) | (false, false) => return None,
    };
    let mut status = standing.clone();
    let dated = saying.dated(&standing.conditions, backup.metadata.generation, now);
    status.conditions.retain(|condition| condition.type_ != dated.type_);
    status.conditions.push(dated);
    Some(status)
}

/// Why a backup is in a store no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Retention is about to delete it.
    LetGo,
    /// Its commit was taken away, and somebody has acknowledged that.
    Forgotten,
}

/// Takes a backup that is in the ward's store no more, or about to be deleted there, out of what its object says, and out
/// of the tenant's newest one; with its last store the object goes.
///
/// # Errors
/// If the cluster refuses: then nothing is deleted, or forgotten.
pub async fn depart(
    ward: &Ward,
    seen: &Seen,
    slot: Slot,
    why: Departure,
    context: &Context,
    now: Timestamp,
) -> Result<(), Error> {
    let here = seen.backups.iter().filter(|backup| slot_of(backup) == Some(slot));
    for backup in here.filter(|backup| lies_in(backup, &ward.store.name)) {
        match without(ward, backup, why, now) {
            Some(status) => set(context, backup, &status).await?,
            None => delete(context, backup).await?,
        }
    }
    status::forget_last(ward, slot, context).await.map_err(Error::Cluster)
}

/// Says in the object of a backup that its lock in the ward's store is longer.
///
/// # Errors
/// If the cluster refuses. That the object moved on is none: the store knows how long its lock is.
pub async fn note_lock(
    ward: &Ward,
    seen: &Seen,
    slot: Slot,
    until: Timestamp,
    context: &Context,
) -> Result<(), Error> {
    for backup in seen.backups.iter().filter(|backup| slot_of(backup) == Some(slot)) {
        let Some(mut status) = backup.status.clone() else { continue };
        for stored in status.stores.iter_mut().filter(|stored| stored.name == ward.store.name) {
            stored.locked_until = Some(Time(until));
        }
        match context.cluster.set_status_in_namespace(Kind::Backup, backup, &status).await {
            Ok(_) => {}
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            Err(error) => return Err(Error::Cluster(error)),
        }
    }
    Ok(())
}

/// The status of `backup` without the ward's store; `None` if it lies nowhere else.
fn without(ward: &Ward, backup: &Backup, why: Departure, now: Timestamp) -> Option<BackupStatus> {
    let store = &ward.store.name;
    let mut status = backup.status.clone()?;
    status.stores.retain(|stored| stored.name != *store);
    if !status.stores.iter().any(|stored| stored.commit.is_some()) {
        return None;
    }
    let mut said = Vec::new();
    match why {
        // So that it is not copied there again. While another store waits for its copy, that is still so: whoever copies
        // sees in the register that this one has let it go.
        Departure::LetGo if is_true(backup, BackupCondition::Copied) => {
            let message = format!("retention deleted it in {store}");
            said.push(Saying::yes(BackupCondition::Copied, BackupReason::Expired, message));
        }
        Departure::LetGo => {}
        // If the policy still wants it there, it is copied there again from where it is.
        Departure::Forgotten => {
            let message = format!("its commit in {store} is gone, and somebody has acknowledged that");
            said.push(Saying::no(BackupCondition::Copied, BackupReason::Copying, message.clone()));
            if is_told_gone(backup, store) {
                said.push(Saying::yes(BackupCondition::Intact, BackupReason::AsAsked, message));
            }
        }
    }
    for saying in said {
        let dated = saying.dated(&status.conditions, backup.metadata.generation, now);
        status.conditions.retain(|condition| condition.type_ != dated.type_);
        status.conditions.push(dated);
    }
    Some(status)
}

/// Whether `backup` says that its commit in `store` was taken away.
fn is_told_gone(backup: &Backup, store: &str) -> bool {
    let kind = format!("{:?}", BackupCondition::Intact);
    let rolled_back = format!("{:?}", BackupReason::CatalogueRolledBack);
    let conditions = backup.status.iter().flat_map(|status| &status.conditions);
    let found = conditions.into_iter().find(|condition| condition.type_ == kind);
    found.is_some_and(|condition| {
        condition.reason == rolled_back && condition.message.contains(&format!(" {store} "))
    })
}

async fn set(context: &Context, backup: &Backup, status: &BackupStatus) -> Result<(), Error> {
    match context.cluster.set_status_in_namespace(Kind::Backup, backup, status).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Cluster(error)),
    }
}

async fn delete(context: &Context, backup: &Backup) -> Result<(), Error> {
    let key = Key::new(Kind::Backup, backup.name_any());
    let standing = serde_json::to_value(backup).and_then(serde_json::from_value::<DynamicObject>);
    let Ok(standing) = standing else { return Ok(()) };
    context.cluster.delete(&key, &standing).await.map_err(|error: ClusterError| Error::Cluster(error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slot(day: u32) -> Slot {
        format!("202611{day:02}T010000Z").parse().unwrap()
    }

    /// A backup of that day of November, with those conditions true.
    fn backup(day: u32, conditions: &[&str]) -> Backup {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|kind| {
                json!({ "type": kind, "status": "True", "reason": "Committed", "message": "",
                    "lastTransitionTime": "2026-11-22T09:30:05Z" })
            })
            .collect();
        let stored = json!([{ "name": "helsinki", "commit": { "key": "k", "blake3": "0".repeat(64) } }]);
        serde_json::from_value(json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "Backup",
            "metadata": { "name": slot::name("ada", slot(day)), "namespace": "journal-ada" },
            "spec": { "origin": "Scheduled" },
            "status": { "conditions": conditions, "slot": slot(day),
                "stores": if conditions.is_empty() { json!([]) } else { stored } },
        }))
        .unwrap()
    }

    fn complete(day: u32) -> Backup {
        backup(day, &["Complete", "Copied"])
    }

    fn names(days: impl IntoIterator<Item = u32>) -> Vec<String> {
        days.into_iter().map(|day| slot::name("ada", slot(day))).collect()
    }

    fn slots(days: impl IntoIterator<Item = u32>) -> BTreeSet<Slot> {
        days.into_iter().map(slot).collect()
    }

    fn planned(backups: &[Backup], committed: &BTreeSet<Slot>) -> Plan {
        plan("ada", "helsinki", backups, committed, &BTreeSet::new())
    }

    #[test]
    fn a_backup_without_an_object_that_a_store_lacks_gets_one_so_that_it_is_copied() {
        let backups: Vec<Backup> = (20..=27).map(complete).collect();
        let committed = slots(1..=27);

        let plan = plan("ada", "helsinki", &backups, &committed, &slots([1, 2, 25]));

        assert_eq!(plan.rebuild, [slot(1), slot(2)]);
        assert_eq!((plan.recopy, plan.prune), (names([25]), names([20])));
        let all = super::plan("ada", "helsinki", &backups, &committed, &slots(1..=19));
        assert_eq!(all.rebuild.len(), BROUGHT_TO_BE_COPIED);
        let waiting: Vec<Backup> = (4..=27).map(|day| backup(day, &["Complete"])).collect();
        let full = super::plan("ada", "helsinki", &waiting, &committed, &slots(1..=27));
        assert_eq!(full.rebuild, [], "as many wait as are kept");
    }

    #[test]
    fn the_newest_seven_that_are_over_stay_and_so_does_what_runs() {
        let mut backups: Vec<Backup> = (1..=10).map(complete).collect();
        backups.push(backup(11, &[]));

        let plan = planned(&backups, &slots(1..=10));

        assert_eq!(plan, Plan { prune: names([3, 2, 1]), ..Plan::default() });
    }

    #[test]
    fn the_newest_complete_one_stays_however_many_failed_since() {
        let mut backups = vec![complete(1)];
        backups.extend((2..=12).map(|day| backup(day, &["Stalled"])));

        assert_eq!(planned(&backups, &slots([1])).prune, names([5, 4, 3, 2]));
    }

    #[test]
    fn while_the_catalogue_lacks_something_what_failed_goes_and_what_is_complete_stays() {
        let mut backups: Vec<Backup> = (1..=3).map(complete).collect();
        backups.extend((4..=12).map(|day| backup(day, &["Stalled"])));
        let mut plan = planned(&backups, &slots(1..=3));
        assert_eq!(plan.prune, names([5, 4, 2, 1]));

        plan.keep_the_complete(&backups);

        assert_eq!(plan.prune, names([5, 4]));
    }

    #[test]
    fn what_is_complete_and_not_in_the_bucket_is_evidence_and_stays() {
        let backups: Vec<Backup> = (1..=10).map(complete).collect();

        assert_eq!(planned(&backups, &slots((1..=10).filter(|day| *day != 2))).prune, names([3, 1]));
    }

    #[test]
    fn what_is_in_another_store_only_is_pruned_like_any_other() {
        let mut backups: Vec<Backup> = (1..=10).map(complete).collect();
        backups[1].status.as_mut().unwrap().stores[0].name = "frankfurt".to_owned();

        assert_eq!(planned(&backups, &slots((1..=10).filter(|day| *day != 2))).prune, names([3, 2, 1]));
    }

    #[test]
    fn what_waits_for_its_copy_stays() {
        let mut backups: Vec<Backup> = (2..=10).map(complete).collect();
        backups.push(backup(1, &["Complete"]));

        assert_eq!(planned(&backups, &slots(1..=10)).prune, names([3, 2]));
    }

    #[test]
    fn in_a_new_cluster_the_newest_few_come_back_and_once_they_are_there_no_more() {
        let committed = slots(1..=10);

        assert_eq!(planned(&[], &committed).rebuild, [slot(10), slot(9), slot(8)]);
        // One was made and has no status yet; a slot that runs here is not touched.
        let mut begun = backup(9, &[]);
        begun.metadata.annotations = Some([(FROM_CATALOGUE_ANNOTATION.to_owned(), "true".to_owned())].into());
        let running = backup(8, &[]);
        assert_eq!(planned(&[begun.clone(), running], &committed).rebuild, [slot(10), slot(9)]);
        assert_eq!(planned(&[complete(10), begun.clone()], &committed).rebuild, [slot(9)]);
        let of_long_ago =
            super::plan("ada", "helsinki", &[complete(20), begun.clone()], &slots(9..=20), &BTreeSet::new());
        assert_eq!(of_long_ago.rebuild, [slot(9)], "also when newer ones came meanwhile");
        assert_eq!(planned(&[complete(20), begun], &slots(10..=20)).prune, names([9]), "it is gone");
        assert_eq!(planned(&[complete(10)], &committed).rebuild, []);
        assert_eq!(planned(&[], &BTreeSet::new()), Plan::default());
    }
}
