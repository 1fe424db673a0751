//! What is known of each tenant's backups, drills and keys, and what is wrong: the one source of `valv status` and of
//! the metrics.
//!
//! Input: objects as the API server has them, the time. Output: an [`Overview`] a tenant, a [`StoreView`] a store.
//! Pure: no client, no clock, nothing remembered, so that it is right after a restart. What [`Overview`] serializes to is
//! the output of `valv status -o json`, and documented in `docs/operations/status.md`: fields are added, never renamed.
//!
//! No personal data: a tenant is the name of its object.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use serde::Serialize;
use sha2::{Digest, Sha256};
use valv_crds::{
    Backup, BackupPolicy, BackupStore, JournalTenant, RestoreDrill, Slot,
    backup::{BackupReason, Stage},
    drill::DrillCondition,
    protection::{KeyRole, LastDrill, TamperingFound},
    reference::NAMESPACE_PREFIX,
    store::BreakerState,
};

use crate::{
    digest::hex,
    drill::{
        check,
        past::{self, Past},
        tampering, teardown,
    },
    schedule::Schedule,
};

mod trouble;

pub use trouble::{Trouble, TroubleCode};

/// A new key is to be proven within this many days, if the policy does not ask for less: until then nobody knows
/// that its holder can open anything with it.
const FIRST_PROOF_DAYS: u32 = 7;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// A copy that is not there by then is missing.
const COPIED_WITHIN_SECONDS: i64 = 6 * 3600;

/// A record is written in seconds: after so long something keeps it from being.
const RECORDED_WITHIN_SECONDS: i64 = 600;

/// All objects that something is told of.
#[derive(Clone, Debug, Default)]
pub struct Snapshot<'a> {
    /// Tenants.
    pub tenants: Vec<&'a JournalTenant>,
    /// Policies.
    pub policies: Vec<&'a BackupPolicy>,
    /// Stores.
    pub stores: Vec<&'a BackupStore>,
    /// Backups of all tenants.
    pub backups: Vec<&'a Backup>,
    /// Drills of all tenants.
    pub drills: Vec<&'a RestoreDrill>,
}

/// One tenant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// Its name.
    pub tenant: String,
    /// Its namespace.
    pub namespace: String,
    /// Under which name its backups lie.
    #[serde(rename = "archiveID")]
    pub archive_id: String,
    /// Whether it rests: nothing is due for it then.
    pub suspended: bool,
    /// The policy that it names.
    pub policy: Option<String>,
    /// What that policy promises.
    pub objectives: Option<Promised>,
    /// The newest complete backup.
    pub last_backup: Option<BackupView>,
    /// When the next backup must be complete: later it is overdue.
    pub backup_due: Option<Timestamp>,
    /// The newest backup that ended, if it failed.
    pub failed_backup: Option<FailedBackup>,
    /// The backup that runs.
    pub running_backup: Option<RunningBackup>,
    /// The newest drill that ended, and that nobody stopped.
    pub last_drill: Option<DrillView>,
    /// The newest of those that failed.
    pub failed_drill: Option<DrillView>,
    /// Drills that failed, by store, until a later one from the same store passes with the same or a newer backup.
    pub failed_drills: Vec<DrillView>,
    /// The recovery time that the newest drill measured of those that were due.
    pub recovery_time: Option<MeasuredBy>,
    /// The recovery point likewise.
    pub recovery_point: Option<MeasuredBy>,
    /// Drills that ended a while ago, and of which something that they restored is left.
    pub not_torn_down: Vec<Unfinished>,
    /// Drills that ended a while ago, and whose record lies in no store.
    pub not_recorded: Vec<Unfinished>,
    /// When the newest drill that passed ended.
    pub last_drill_passed: Option<Timestamp>,
    /// When the next drill must have ended: later it is overdue.
    pub drill_due: Option<Timestamp>,
    /// The keys that its backups are encrypted for.
    pub keys: Vec<KeyView>,
    /// Its archive in each store of the policy, as it was last looked after.
    pub archives: Vec<ArchiveView>,
    /// Backups that a store of the policy should have a copy of by now, and has not.
    pub copies_missing: i64,
    /// Backups and drills that report tampering, as `Kind/name`; and stores in which backups are missing.
    pub tampering: Vec<String>,
    /// What drills found of it, and nobody has acknowledged yet; the newest last.
    pub tampering_found: Vec<TamperingFound>,
    /// What is wrong, the worst first. Empty: all is well.
    pub troubles: Vec<Trouble>,
}

/// What a policy promises.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Promised {
    /// Recovery point.
    pub rpo_seconds: i64,
    /// Recovery time.
    pub rto_seconds: i64,
}

/// A complete backup.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupView {
    /// Its slot.
    pub slot: Slot,
    /// The moment that it holds.
    pub taken: Timestamp,
    /// When it was committed.
    pub committed: Timestamp,
    /// How long ago `taken` is.
    pub age_seconds: i64,
    /// Bytes in the store.
    pub bytes: i64,
    /// How long it took, where its object still says so.
    pub duration_seconds: Option<i64>,
    /// Where it lies.
    pub stores: Vec<Place>,
}

/// A store that has a backup.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Name of the `BackupStore`.
    pub name: String,
    /// Its country, as its owner states it; absent: the store's object is gone.
    pub country: Option<String>,
    /// Until when a lock keeps it there, where its object still says so.
    pub locked_until: Option<Timestamp>,
}

/// A backup that failed for good.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedBackup {
    /// Name of the object.
    pub name: String,
    /// When it was given up.
    pub ended: Timestamp,
    /// One word: a `BackupReason`.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// A backup that runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunningBackup {
    /// Name of the object.
    pub name: String,
    /// What it does.
    pub stage: String,
    /// How far it is.
    pub percent: Option<i32>,
}

/// A drill that ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DrillView {
    /// Name of the object.
    pub name: String,
    /// Slot of the backup that it restored.
    pub backup: Option<Slot>,
    /// Name of the `BackupStore` that it restored from, or looked in.
    pub store: Option<String>,
    /// When it ended.
    pub ended: Timestamp,
    /// `True`: the backup could be restored, and all was there.
    pub passed: String,
    /// One word: a `DrillReason`.
    pub reason: String,
    /// Recovery time that was measured.
    pub rto_seconds: Option<i64>,
    /// Recovery point that was measured.
    pub rpo_seconds: Option<i64>,
}

impl From<LastDrill> for DrillView {
    fn from(drill: LastDrill) -> Self {
        let LastDrill { name, choice: _, backup, store, ended, passed, reason, rto_seconds, rpo_seconds } =
            drill;
        Self { name, backup, store, ended: ended.0, passed, reason, rto_seconds, rpo_seconds }
    }
}

/// What a drill measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MeasuredBy {
    /// Name of the `RestoreDrill`.
    pub drill: String,
    /// What it measured.
    pub seconds: i64,
}

/// A drill that ended, and is not over.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unfinished {
    /// Name of the `RestoreDrill`.
    pub name: String,
    /// When its verdict stood.
    pub ended: Timestamp,
    /// What is left, or why the record is not written, as far as its status says it.
    pub message: String,
}

/// A key that backups are encrypted for.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyView {
    /// Whose.
    pub role: KeyRole,
    /// The first 16 hex digits of the SHA-256 of its recipient.
    pub fingerprint: String,
    /// When its holder last proved it; absent: never, and it is a claim.
    pub proven: Option<Timestamp>,
    /// When it must be proven again; absent: there is no policy that says so.
    pub due: Option<Timestamp>,
}

/// An archive in one store.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveView {
    /// Name of the `BackupStore`.
    pub store: String,
    /// Backups that are committed there.
    pub backups: i32,
    /// When all of it was last looked after: locks made longer, and what is too old deleted.
    pub looked: Option<Timestamp>,
    /// Why it could not be looked after since.
    pub failure: Option<String>,
    /// Backups that should be there and are not: the first few.
    pub missing: Vec<Slot>,
    /// Digest of a question that waits for `valv.eu/acknowledge-deletion`.
    pub awaits_acknowledgement: Option<String>,
    /// What a person should look at there.
    pub finding: Option<String>,
    /// Backups that retention would delete and that stay for a while.
    pub held_back: i32,
    /// Why, and until when.
    pub held_back_for: Option<String>,
}

/// One store.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreView {
    /// Its name.
    pub name: String,
    /// Its country, as its owner states it.
    pub country: String,
    /// Its region.
    pub region: String,
    /// Whether backups may go there: `True`, `False` or `Unknown`.
    pub ready: String,
    /// One word: a `StoreReason`.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Whether requests go there.
    pub breaker: BreakerState,
}

/// Every tenant of `snapshot` at `now`, by name.
pub fn tenants(snapshot: &Snapshot<'_>, now: Timestamp) -> Vec<Overview> {
    let policies: BTreeMap<String, &BackupPolicy> =
        snapshot.policies.iter().map(|policy| (policy.name_any(), *policy)).collect();
    let stores: BTreeMap<String, &BackupStore> =
        snapshot.stores.iter().map(|store| (store.name_any(), *store)).collect();
    // Read once, and not once a tenant.
    let calendars: BTreeMap<String, Calendars> =
        snapshot.policies.iter().map(|policy| (policy.name_any(), Calendars::of(policy))).collect();
    let mut backups: BTreeMap<String, Vec<&Backup>> = BTreeMap::new();
    for backup in &snapshot.backups {
        backups.entry(backup.namespace().unwrap_or_default()).or_default().push(backup);
    }
    let mut drills: BTreeMap<String, Vec<&RestoreDrill>> = BTreeMap::new();
    for drill in &snapshot.drills {
        drills.entry(drill.namespace().unwrap_or_default()).or_default().push(drill);
    }
    let mut all: Vec<Overview> = snapshot
        .tenants
        .iter()
        .map(|tenant| {
            let namespace = format!("{NAMESPACE_PREFIX}{}", tenant.name_any());
            let named = tenant.spec.backup.as_ref().map(|backup| &backup.policy);
            let seen = Seen {
                tenant,
                policy: named.and_then(|policy| policies.get(policy)).copied(),
                calendars: named.and_then(|policy| calendars.get(policy)),
                stores: &stores,
                backups: backups.get(&namespace).map(Vec::as_slice).unwrap_or_default(),
                drills: drills.get(&namespace).map(Vec::as_slice).unwrap_or_default(),
            };
            seen.overview(namespace, now)
        })
        .collect();
    all.sort_by(|one, other| one.tenant.cmp(&other.tenant));
    all
}

/// Every store of `snapshot`, by name.
pub fn stores(snapshot: &Snapshot<'_>) -> Vec<StoreView> {
    let mut all: Vec<StoreView> = snapshot.stores.iter().map(|store| store_view(store)).collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

fn store_view(store: &BackupStore) -> StoreView {
    let status = store.status.as_ref();
    let ready = status.and_then(|status| find(&status.conditions, "Ready"));
    let said = |of: fn(&Condition) -> &String| ready.map(of).cloned();
    StoreView {
        name: store.name_any(),
        country: store.spec.location.country.clone(),
        region: store.spec.location.region.clone(),
        ready: said(|condition| &condition.status).unwrap_or_else(|| "Unknown".to_owned()),
        reason: said(|condition| &condition.reason).unwrap_or_else(|| "NotProbedYet".to_owned()),
        message: said(|condition| &condition.message).unwrap_or_else(|| "it was not probed yet".to_owned()),
        breaker: status.map(|status| status.breaker.state).unwrap_or_default(),
    }
}

/// When a policy's backups and drills are due; absent: it asks for none, or its calendar cannot be read.
struct Calendars {
    backups: Option<Schedule>,
    drills: Option<Schedule>,
}

impl Calendars {
    fn of(policy: &BackupPolicy) -> Self {
        let drill = policy.spec.drill.as_ref();
        Self {
            backups: Schedule::try_from(&policy.spec.schedule).ok(),
            drills: drill.and_then(|drill| Schedule::try_from(&drill.schedule).ok()),
        }
    }
}

/// What was seen of one tenant.
struct Seen<'a> {
    tenant: &'a JournalTenant,
    policy: Option<&'a BackupPolicy>,
    calendars: Option<&'a Calendars>,
    stores: &'a BTreeMap<String, &'a BackupStore>,
    backups: &'a [&'a Backup],
    drills: &'a [&'a RestoreDrill],
}

impl Seen<'_> {
    fn overview(&self, namespace: String, now: Timestamp) -> Overview {
        let name = self.tenant.name_any();
        let last_backup = self.last_backup(now);
        let Past { last, failed, judged, timed, pointed, good: _ } = self.past();
        let stores = self.policy.map(|policy| policy.spec.stores.as_slice());
        let failed: Vec<DrillView> = past::of_stores(&failed, stores).cloned().map(DrillView::from).collect();
        let measured = |drill: Option<LastDrill>, of: fn(&LastDrill) -> Option<i64>| {
            drill.and_then(|drill| Some(MeasuredBy { seconds: of(&drill)?, drill: drill.name }))
        };
        let tampering_found = self.tampering_found(now);
        let failed_backup = self.failed_backup(last_backup.as_ref());
        let is_due = !self.tenant.spec.suspended && self.tenant.metadata.deletion_timestamp.is_none();
        let mut overview = Overview {
            namespace,
            archive_id: self.tenant.spec.archive_id.clone().unwrap_or_else(|| name.clone()),
            suspended: self.tenant.spec.suspended,
            policy: self.tenant.spec.backup.as_ref().map(|backup| backup.policy.clone()),
            objectives: self.policy.map(promised),
            backup_due: self.backup_due(&name, last_backup.as_ref()).filter(|_| is_due),
            last_backup,
            failed_backup,
            running_backup: self.running_backup(),
            last_drill: last.map(DrillView::from),
            failed_drill: failed.last().cloned(),
            failed_drills: failed,
            recovery_time: measured(timed, |drill| drill.rto_seconds),
            recovery_point: measured(pointed, |drill| drill.rpo_seconds),
            not_torn_down: self.not_torn_down(now),
            not_recorded: self.not_recorded(now),
            last_drill_passed: self.last_drill_passed(),
            drill_due: self.drill_due(&name, judged.as_ref()).filter(|_| is_due),
            keys: self.keys(),
            archives: self.archives(),
            copies_missing: self.copies_missing(now),
            tampering: self.tampering(&tampering_found),
            tampering_found,
            troubles: vec![],
            tenant: name,
        };
        overview.troubles = trouble::troubles(&overview, self.tenant, self.policy, self.stores, now);
        overview
    }

    fn protection(&self) -> Option<&valv_crds::protection::ProtectionStatus> {
        self.tenant.status.as_ref()?.backup.as_ref()
    }

    /// The newest complete backup: of the objects, and of the tenant's status, which outlives them.
    fn last_backup(&self, now: Timestamp) -> Option<BackupView> {
        let of_objects = self.backups.iter().filter_map(|backup| self.complete(backup, now));
        let remembered = self.protection().and_then(|status| status.last_backup.as_ref()).map(|last| {
            let places = last.stores.iter().map(|name| self.place(name, None)).collect();
            BackupView {
                slot: last.slot,
                taken: last.taken.0,
                committed: last.committed.0,
                age_seconds: seconds_between(last.taken.0, now),
                bytes: last.bytes,
                duration_seconds: None,
                stores: places,
            }
        });
        // Of the same moment the last one: the object knows more than the memory of it.
        remembered.into_iter().chain(of_objects).max_by_key(|backup| backup.taken)
    }

    fn complete(&self, backup: &Backup, now: Timestamp) -> Option<BackupView> {
        let status = backup.status.as_ref()?;
        find(&status.conditions, "Complete").filter(|complete| complete.status == "True")?;
        let taken = status.taken.as_ref()?.0;
        let have = status.stores.iter().filter(|store| store.commit.is_some());
        let places = have
            .map(|store| self.place(&store.name, store.locked_until.as_ref().map(|until| until.0)))
            .collect();
        let committed = status.stores.iter().find_map(|store| store.committed.as_ref());
        let ended = status.ended.as_ref().map_or(taken, |ended| ended.0);
        Some(BackupView {
            slot: status.slot?,
            taken,
            committed: committed.map_or(ended, |committed| committed.0),
            age_seconds: seconds_between(taken, now),
            bytes: status.size.map_or(0, |size| size.bytes),
            duration_seconds: status.started.as_ref().map(|started| seconds_between(started.0, ended)),
            stores: places,
        })
    }

    fn place(&self, name: &str, locked_until: Option<Timestamp>) -> Place {
        let country = self.stores.get(name).map(|store| store.spec.location.country.clone());
        Place { name: name.to_owned(), country, locked_until }
    }

    /// The newest backup that failed, unless a complete one came after it.
    fn failed_backup(&self, complete: Option<&BackupView>) -> Option<FailedBackup> {
        let newest = self.backups.iter().filter_map(|backup| failure(backup)).max_by_key(|one| one.ended)?;
        complete.is_none_or(|complete| complete.committed < newest.ended).then_some(newest)
    }

    fn running_backup(&self) -> Option<RunningBackup> {
        let running = self.backups.iter().find(|backup| is_running(backup))?;
        let progress = running.status.as_ref().and_then(|status| status.progress.as_ref());
        Some(RunningBackup {
            name: running.name_any(),
            stage: format!("{:?}", progress.map_or(Stage::Waiting, |progress| progress.stage)),
            percent: progress.and_then(|progress| progress.percent),
        })
    }

    /// What its drills come to: those that are there, and what the tenant's status remembers.
    fn past(&self) -> Past {
        past::past(self.drills.iter().copied(), self.protection())
    }

    fn last_drill_passed(&self) -> Option<Timestamp> {
        let remembered = self.protection().and_then(|status| status.last_drill.as_ref());
        let remembered = remembered.filter(|last| last.passed == "True").map(|last| last.ended.0);
        let of_objects = self.drills.iter().filter_map(|drill| ended_drill(drill));
        let of_objects = of_objects.filter(|drill| drill.passed == "True").map(|drill| drill.ended);
        of_objects.chain(remembered).max()
    }

    /// When the slot after the newest complete backup must have ended; never later than the promised recovery point
    /// and one run allow.
    fn backup_due(&self, name: &str, last: Option<&BackupView>) -> Option<Timestamp> {
        let policy = self.policy?;
        let schedule = self.calendars?.backups.as_ref()?;
        let since = last.map_or_else(
            || self.tenant.creation_timestamp().map(|made| made.0),
            |last| Some(last.slot.time()),
        )?;
        let next = schedule.next(since)?;
        let by_calendar = schedule.deadline(schedule.start(next, name));
        let taken = last.map_or(since, |last| last.taken);
        let rpo = policy.spec.objectives.rpo.duration();
        let by_promise = taken.checked_add(rpo).map_or(Timestamp::MAX, |end| schedule.deadline(end));
        Some(by_calendar.min(by_promise))
    }

    /// When the slot after the last drill that came to a verdict must have ended.
    fn drill_due(&self, name: &str, judged: Option<&LastDrill>) -> Option<Timestamp> {
        let schedule = self.calendars?.drills.as_ref()?;
        let made = self.tenant.creation_timestamp()?.0;
        let last = judged.map(|drill| drill.ended.0);
        let next = schedule.next(last.map_or(made, |last| last.max(made)))?;
        Some(schedule.deadline(schedule.start(next, name)))
    }

    fn keys(&self) -> Vec<KeyView> {
        let Some(protection) = &self.tenant.spec.backup else { return vec![] };
        let recipients = &protection.recipients;
        let all = [
            (KeyRole::Tenant, Some(&recipients.tenant)),
            (KeyRole::Escrow, Some(&recipients.escrow)),
            (KeyRole::Drill, recipients.drill.as_ref()),
        ];
        let known = self.protection().map(|status| status.keys.as_slice()).unwrap_or_default();
        let made = self.tenant.creation_timestamp().map(|made| made.0);
        all.into_iter()
            .filter_map(|(role, recipient)| {
                let fingerprint = key_fingerprint(recipient?);
                // A proof of the key before a rotation says nothing of the one after it.
                let proven = known.iter().find(|key| key.role == role && key.fingerprint == fingerprint);
                let proven = proven.and_then(|key| key.proven.as_ref()).map(|proven| proven.0);
                let every = self.policy.map(|policy| policy.spec.keys.prove_every.count());
                let due = every.and_then(|every| match proven {
                    Some(proven) => Some(days_after(proven, every)),
                    None => made.map(|made| days_after(made, every.min(FIRST_PROOF_DAYS))),
                });
                Some(KeyView { role, fingerprint, proven, due })
            })
            .collect()
    }

    /// The archive in each store of the policy. What it was in another store once is nobody's trouble any more.
    fn archives(&self) -> Vec<ArchiveView> {
        let kept = self.protection().map(|status| status.kept.as_slice()).unwrap_or_default();
        let named = |store: &String| self.policy.is_some_and(|policy| policy.spec.stores.contains(store));
        let named = kept.iter().filter(|kept| named(&kept.store));
        let archives = named.map(|kept| ArchiveView {
            store: kept.store.clone(),
            backups: kept.backups,
            looked: kept.looked.as_ref().map(|looked| looked.0),
            failure: kept.failure.clone(),
            missing: kept.missing.clone(),
            awaits_acknowledgement: kept.awaits_acknowledgement.clone(),
            finding: kept.finding.clone(),
            held_back: kept.held_back,
            held_back_for: kept.held_back_for.clone(),
        });
        archives.collect()
    }

    /// By the catalogues as they were last compared, or by the objects, which say it sooner: what is more.
    fn copies_missing(&self, now: Timestamp) -> i64 {
        let kept = self.protection().map(|status| status.kept.as_slice()).unwrap_or_default();
        let first = self.policy.and_then(|policy| policy.spec.stores.first());
        let compared = kept.iter().find(|kept| Some(&kept.store) == first).map_or(0, |kept| kept.uncopied);
        let late = self.backups.iter().filter(|backup| is_copied_late(backup, now)).count();
        i64::from(compared).max(i64::try_from(late).unwrap_or(i64::MAX))
    }

    /// Drills that ended longer ago than tearing down takes, whatever their status says of it.
    fn not_torn_down(&self, now: Timestamp) -> Vec<Unfinished> {
        let limit = teardown::LIMIT.as_secs();
        self.unfinished(DrillCondition::TornDown, check::left_since, limit, now)
    }

    fn not_recorded(&self, now: Timestamp) -> Vec<Unfinished> {
        self.unfinished(DrillCondition::Recorded, check::unrecorded_since, RECORDED_WITHIN_SECONDS, now)
    }

    fn unfinished(
        &self,
        kind: DrillCondition,
        since: fn(&RestoreDrill) -> Option<Timestamp>,
        limit: i64,
        now: Timestamp,
    ) -> Vec<Unfinished> {
        let unfinished = self.drills.iter().filter_map(|drill| {
            let ended = since(drill).filter(|ended| seconds_between(*ended, now) > limit)?;
            let conditions = drill.status.as_ref().map(|status| status.conditions.as_slice());
            let said = find(conditions.unwrap_or_default(), &format!("{kind:?}"));
            let message = said.map(|said| said.message.clone()).unwrap_or_default();
            Some(Unfinished { name: drill.name_any(), ended, message })
        });
        let mut unfinished: Vec<_> = unfinished.collect();
        unfinished.sort_by_key(|drill| drill.ended);
        unfinished
    }

    fn tampering_found(&self, now: Timestamp) -> Vec<TamperingFound> {
        let acknowledged = tampering::acknowledged(self.tenant, now);
        tampering::found(self.drills.iter().copied(), self.protection(), acknowledged)
    }

    fn tampering(&self, found: &[TamperingFound]) -> Vec<String> {
        let backups = self.backups.iter().filter(|backup| {
            let status = backup.status.as_ref();
            let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
            find(conditions, "Intact").is_some_and(|intact| intact.status == "False")
                || find(conditions, "Complete").is_some_and(|complete| {
                    complete.reason == format!("{:?}", BackupReason::SignatureInvalid)
                })
        });
        let backups = backups.map(|backup| format!("Backup/{}", backup.name_any()));
        let archives = self.archives().into_iter().filter(|archive| !archive.missing.is_empty());
        let archives = archives.map(|archive| format!("BackupStore/{}", archive.store));
        let backups = archives.chain(backups);
        backups.chain(found.iter().map(|found| format!("RestoreDrill/{}", found.drill))).collect()
    }
}

/// Why `backup` failed for good; absent: it did not. Somebody who cancelled it, a slot that passed, and retention are
/// no failures.
pub fn failure(backup: &Backup) -> Option<FailedBackup> {
    let no_failures = [BackupReason::Cancelled, BackupReason::Missed, BackupReason::Expired];
    let status = backup.status.as_ref()?;
    let ended = status.ended.as_ref()?.0;
    let stalled = find(&status.conditions, "Stalled").filter(|stalled| stalled.status == "True")?;
    let counts = !no_failures.iter().any(|reason| format!("{reason:?}") == stalled.reason);
    counts.then(|| FailedBackup {
        name: backup.name_any(),
        ended,
        reason: stalled.reason.clone(),
        message: stalled.message.clone(),
    })
}

/// Whether a store of the policy should have a copy of `backup` by now, and has not.
fn is_copied_late(backup: &Backup, now: Timestamp) -> bool {
    let Some(status) = &backup.status else { return false };
    let is_complete = find(&status.conditions, "Complete").is_some_and(|complete| complete.status == "True");
    let waits = find(&status.conditions, "Copied").is_some_and(|copied| {
        copied.status == "False" && copied.reason != format!("{:?}", BackupReason::Expired)
    });
    let is_late = |ended: Timestamp| seconds_between(ended, now) > COPIED_WITHIN_SECONDS;
    is_complete && waits && status.ended.as_ref().is_some_and(|ended| is_late(ended.0))
}

/// Whether `backup` has begun and not ended.
pub fn is_running(backup: &Backup) -> bool {
    backup.status.as_ref().is_some_and(|status| status.started.is_some() && status.ended.is_none())
}

/// `drill`, if its verdict stands.
pub fn ended_drill(drill: &RestoreDrill) -> Option<DrillView> {
    let status = drill.status.as_ref()?;
    let ended = status.ended.as_ref()?.0;
    let passed = find(&status.conditions, "Passed")?;
    Some(DrillView {
        name: drill.name_any(),
        backup: status.backup.as_ref().map(|backup| backup.slot),
        store: status.backup.as_ref().map(|backup| backup.store.clone()).or_else(|| status.store.clone()),
        ended,
        passed: passed.status.clone(),
        reason: passed.reason.clone(),
        rto_seconds: status.measured.as_ref().and_then(|measured| measured.rto_seconds),
        rpo_seconds: status.measured.as_ref().and_then(|measured| measured.rpo_seconds),
    })
}

/// As a tenant's status names a key: the first 16 hex digits of the SHA-256 of its recipient.
pub fn key_fingerprint(recipient: &str) -> String {
    hex(&Sha256::digest(recipient.as_bytes()))[..16].to_owned()
}

/// What `policy` promises.
pub fn promised(policy: &BackupPolicy) -> Promised {
    let seconds = |span: valv_crds::units::Span| i64::try_from(span.duration().as_secs()).unwrap_or(i64::MAX);
    Promised {
        rpo_seconds: seconds(policy.spec.objectives.rpo),
        rto_seconds: seconds(policy.spec.objectives.rto),
    }
}

/// The condition of type `kind`.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_second().saturating_sub(from.as_second())
}

fn days_after(from: Timestamp, days: u32) -> Timestamp {
    Timestamp::from_second(from.as_second().saturating_add(i64::from(days) * DAY)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
