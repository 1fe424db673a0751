//! Says how a tenant is backed up, drilled, and held by its keys.
//!
//! Input: the tenant with its status, its policy, its backups and drills as they are there, the time. Output: the part
//! of the status that speaks of them, three conditions, and when they will differ. Pure.
//!
//! The objects come and go: what was once seen complete stays in the status when its `Backup` is deleted. Nobody else
//! writes this part; it moves when a backup or a drill ends, and not while one is under way.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use valv_crds::{
    Backup, BackupPolicy, RestoreDrill, Slot,
    backup::{BackupCondition, BackupReason, Origin},
    condition::{ConditionType, Reason, Saying},
    drill::DrillOrigin,
    policy::VerificationMode,
    protection::{KeyRole, KeyStatus, LastBackup, Protection, ProtectionStatus, ReadWhole},
    schedule::MissedSlots,
    slot,
    units::Span,
};

use super::check::Tenant;
use crate::{
    archive::recipients::fingerprint,
    drill::{check, past, tampering, teardown},
    policy::slots,
    schedule::{Due, MISSED_LISTED, Schedule},
};

/// Missed slots are told of for so long.
const MISSED_DAYS: i64 = 30;

const DAY_SECONDS: i64 = 86_400;

/// Digits of a key's fingerprint in the status: enough to tell three keys apart.
const FINGERPRINT_DIGITS: usize = 16;

/// Stores of which is told what was read back whole.
const MOST_STORES: usize = 8;

/// How long what a drill restored may be there after its verdict, and what is said then.
const LEFT: (SignedDuration, &str) = (teardown::LIMIT, "something is still there of what these restored:");

/// How long a drill's record may be missing after its verdict, and what is said then.
const UNRECORDED: (SignedDuration, &str) =
    (SignedDuration::from_mins(10), "no store has the signed record of these drills:");

/// What is there of a tenant's backups.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The policy that it names.
    pub policy: PolicySeen,
    /// The `Backup`s in its namespace.
    pub backups: Vec<Backup>,
    /// The `RestoreDrill`s in its namespace.
    pub drills: Vec<RestoreDrill>,
}

/// The policy that a tenant names.
#[derive(Clone, Debug, Default)]
pub enum PolicySeen {
    /// It is not there, or cannot be read.
    #[default]
    Missing,
    /// As it is.
    There(Box<BackupPolicy>),
}

/// How a tenant is protected.
#[derive(Clone, Debug)]
pub struct Protected {
    /// For the status; absent: there never was anything to tell.
    pub status: Option<ProtectionStatus>,
    /// `BackedUp`, `Drilled`, `KeysProven`.
    pub sayings: Vec<Saying>,
    /// When one of them will differ though nothing happens.
    pub look_again_at: Option<Timestamp>,
}

/// How `tenant` is protected at `now`.
pub fn protect(tenant: &Tenant, seen: &Seen, now: Timestamp) -> Protected {
    let standing = tenant.object.status.as_ref().and_then(|status| status.backup.clone());
    let Some(asked) = &tenant.backup else {
        let message = "spec.backup is absent: nothing of this tenant is kept anywhere else; name a policy and two recipients there";
        let sayings = [ConditionType::BackedUp, ConditionType::Drilled, ConditionType::KeysProven];
        let sayings = sayings.map(|kind| Saying::no(kind, Reason::NotProtected, message));
        return Protected { status: standing, sayings: sayings.to_vec(), look_again_at: None };
    };
    let policy = match &seen.policy {
        PolicySeen::Missing => None,
        PolicySeen::There(policy) => Some(policy.as_ref()),
    };
    let status = told(tenant, asked, policy, seen, standing.unwrap_or_default(), now);
    let mut turns = vec![];
    let sayings = match policy {
        None => {
            let message = format!("the BackupPolicy {} is not there: make it, or name another", asked.policy);
            let sayings = [ConditionType::BackedUp, ConditionType::Drilled, ConditionType::KeysProven];
            sayings.map(|kind| Saying::no(kind, Reason::PolicyMissing, message.clone())).to_vec()
        }
        Some(policy) => vec![
            backed_up(tenant, policy, seen, &status, now, &mut turns),
            drilled(tenant, policy, &seen.drills, &status, now, &mut turns),
            keys_proven(policy, &status, now, &mut turns),
        ],
    };
    let look_again_at = turns.into_iter().filter(|turn| *turn > now).min();
    Protected { status: Some(status), sayings, look_again_at }
}

/// What the status tells, after what it told before.
fn told(
    tenant: &Tenant,
    asked: &Protection,
    policy: Option<&BackupPolicy>,
    seen: &Seen,
    standing: ProtectionStatus,
    now: Timestamp,
) -> ProtectionStatus {
    let schedule = policy.and_then(|policy| Schedule::try_from(&policy.spec.schedule).ok());
    // A status that was written by a wrong clock does not end the schedule.
    let before = standing.last_slot.filter(|slot| slots::has_come(*slot, now));
    let taken_on = seen.backups.iter().filter_map(|backup| slots::taken_on(backup, now));
    let last_slot = taken_on.map(|(_, slot)| slot).max().max(before);
    let newly_missed = match (before, last_slot, &schedule) {
        (Some(before), Some(last), Some(schedule)) if before < last => {
            let missed = schedule.missed(before.time(), last);
            MissedSlots { slots: missed.listed, oldest: missed.oldest }
        }
        _ => MissedSlots::default(),
    };
    let next = schedule.filter(|_| !tenant.suspended).and_then(|schedule| {
        let made = tenant.object.creation_timestamp().map_or(now, |made| made.0);
        let taken_on = last_slot.map_or(made, |slot| slot.time().max(made));
        match schedule.due(&tenant.name, taken_on, now) {
            Due::Now { slot, .. } => Some(schedule.start(slot, &tenant.name)),
            Due::At { start, .. } => Some(start),
            Due::Never => None,
        }
    });
    let drill_slots = seen.drills.iter().filter(|drill| drill.spec.origin == DrillOrigin::Scheduled);
    let drill_slots = drill_slots.filter_map(|drill| {
        let name = drill.name_any();
        slot::parse_name(&name).ok().map(|(_, slot)| slot).filter(|slot| slots::has_come(*slot, now))
    });
    let past = past::past(seen.drills.iter(), Some(&standing));
    let acknowledged = tampering::acknowledged(&tenant.object, now);
    let tampering = tampering::found(seen.drills.iter(), Some(&standing), acknowledged);
    ProtectionStatus {
        last_slot,
        next_start: next.map(Time),
        missed: missed(standing.missed, newly_missed, now),
        last_backup: last_backup(&seen.backups, standing.last_backup),
        last_drill: past.last,
        failed_drill: past.failed.last().cloned(),
        failed_drills: past.failed,
        judged_drill: past.judged,
        tampering,
        good_slot: past.good,
        last_drill_slot: drill_slots
            .max()
            .max(standing.last_drill_slot.filter(|slot| slots::has_come(*slot, now))),
        keys: keys(asked, &standing.keys),
        read_whole: read_whole(&seen.backups, standing.read_whole, now),
        // The janitor writes them.
        kept: standing.kept,
    }
}

/// Those missed before and those missed newly, the newest of them, for a while.
fn missed(before: Option<MissedSlots>, newly: MissedSlots, now: Timestamp) -> Option<MissedSlots> {
    let before = before.unwrap_or_default();
    let mut oldest: Vec<_> = before.oldest.into_iter().chain(newly.oldest).collect();
    let mut slots: Vec<_> = before.slots.into_iter().chain(newly.slots).collect();
    slots.sort_unstable();
    slots.dedup();
    let excess = slots.len().saturating_sub(MISSED_LISTED);
    oldest.extend(slots.drain(..excess));
    let last = slots.last()?;
    let age = now.as_second() - last.time().as_second();
    (age < MISSED_DAYS * DAY_SECONDS).then(|| MissedSlots { oldest: oldest.into_iter().min(), slots })
}

fn last_backup(backups: &[Backup], standing: Option<LastBackup>) -> Option<LastBackup> {
    let complete = backups.iter().filter_map(complete);
    complete.chain(standing).reduce(|one, other| if other.slot > one.slot { other } else { one })
}

/// What is told of `backup`, if it is complete.
fn complete(backup: &Backup) -> Option<LastBackup> {
    let status = backup.status.as_ref()?;
    let is_complete = found(&status.conditions, BackupCondition::Complete)?.status == "True";
    let first = status.stores.first().filter(|_| is_complete)?;
    let committed = first.committed.clone()?;
    Some(LastBackup {
        slot: status.slot?,
        // Whoever says that it was taken after it was committed has a wrong clock.
        taken: status.taken.clone()?.min(committed.clone()),
        committed,
        bytes: status.size.map(|size| size.bytes).unwrap_or_default(),
        stores: status
            .stores
            .iter()
            .filter(|store| store.commit.is_some())
            .map(|store| store.name.clone())
            .collect(),
    })
}

/// The newest backup that was read back whole, by store. Objects come and go, and what was once seen stays.
fn read_whole(backups: &[Backup], standing: Vec<ReadWhole>, now: Timestamp) -> Vec<ReadWhole> {
    let told = backups.iter().filter_map(|backup| backup.status.as_ref()).flat_map(|status| {
        let whole = status.stores.iter().filter(|stored| {
            stored.commit.is_some()
                && stored.verification.as_ref().is_some_and(|read| read.mode == VerificationMode::Full)
        });
        whole.filter_map(|stored| Some(ReadWhole { store: stored.name.clone(), slot: status.slot? }))
    });
    let mut newest: BTreeMap<String, Slot> = BTreeMap::new();
    for ReadWhole { store, slot } in standing.into_iter().chain(told) {
        // What a wrong clock dated puts nothing off.
        if slots::has_come(slot, now) {
            let standing = newest.entry(store).or_insert(slot);
            *standing = slot.max(*standing);
        }
    }
    let mut all: Vec<_> = newest.into_iter().map(|(store, slot)| ReadWhole { store, slot }).collect();
    // More stores than a policy names are stores that it named once.
    all.sort_by(|one, other| (other.slot, &one.store).cmp(&(one.slot, &other.store)));
    all.truncate(MOST_STORES);
    all.sort_by(|one, other| one.store.cmp(&other.store));
    all
}

/// The keys that are asked for, each with the proof of that very key.
fn keys(asked: &Protection, standing: &[KeyStatus]) -> Vec<KeyStatus> {
    let recipients = &asked.recipients;
    let all = [
        (KeyRole::Tenant, Some(&recipients.tenant)),
        (KeyRole::Escrow, Some(&recipients.escrow)),
        (KeyRole::Drill, recipients.drill.as_ref()),
    ];
    let named = all.into_iter().filter_map(|(role, recipient)| {
        let fingerprint = fingerprint(recipient?).ok()?.to_string().get(..FINGERPRINT_DIGITS)?.to_owned();
        let before = standing.iter().find(|key| key.fingerprint == fingerprint);
        Some(KeyStatus { role, proven: before.and_then(|key| key.proven.clone()), fingerprint })
    });
    named.collect()
}

/// Whether its newest complete backup is young enough.
fn backed_up(
    tenant: &Tenant,
    policy: &BackupPolicy,
    seen: &Seen,
    status: &ProtectionStatus,
    now: Timestamp,
    turns: &mut Vec<Timestamp>,
) -> Saying {
    let kind = ConditionType::BackedUp;
    if let Some(blocking) = seen.backups.iter().find(|backup| is_in_the_way(backup, status, now)) {
        let message = format!(
            "the Backup {} was made by hand and has the name of a slot, which is not run: delete it",
            blocking.name_any()
        );
        return Saying::no(kind, Reason::SlotBlocked, message);
    }
    let failed = last_failure(&seen.backups, status);
    let after = |text: String| match &failed {
        Some(failure) => format!("{text}; {failure}"),
        None => text,
    };
    let Some(last) = &status.last_backup else {
        let reason = if failed.is_some() { Reason::BackupFailed } else { Reason::NeverBackedUp };
        return Saying::no(kind, reason, after("no backup of it was ever complete".to_owned()));
    };
    if tenant.suspended {
        let message = format!(
            "spec.suspended is true: no backups are made while it rests; the last complete one holds {}",
            last.taken.0
        );
        return Saying::unknown(kind, Reason::Suspended, after(message));
    }
    let allowed = [policy.spec.objectives.rpo, policy.spec.schedule.window].map(Span::duration);
    let until = later(last.taken.0, allowed.iter().map(std::time::Duration::as_secs).sum());
    turns.push(until);
    let holds = format!("the last complete backup, {}, holds {}", last.slot, last.taken.0);
    if now < until {
        return Saying::yes(kind, Reason::AsAsked, after(holds));
    }
    let reason = if failed.is_some() { Reason::BackupFailed } else { Reason::Overdue };
    let message = format!("{holds}, and objectives.rpo with the window of the schedule ended {until}");
    Saying::no(kind, reason, after(message))
}

/// Whether `backup` keeps a slot from being run that has come and was not.
fn is_in_the_way(backup: &Backup, status: &ProtectionStatus, now: Timestamp) -> bool {
    slots::blocked(backup).is_some_and(|slot| slots::has_come(slot, now) && Some(slot) > status.last_slot)
}

/// The newest backup that was given up after the last complete one, in a sentence.
fn last_failure(backups: &[Backup], status: &ProtectionStatus) -> Option<String> {
    let last = status.last_backup.as_ref().map(|last| last.slot);
    let failed = backups.iter().filter_map(|backup| {
        let told = backup.status.as_ref()?;
        let stalled =
            found(&told.conditions, BackupCondition::Stalled).filter(|said| said.status == "True")?;
        let is_nobodys_fault = [BackupReason::Cancelled, BackupReason::Missed]
            .iter()
            .any(|reason| stalled.reason == name(reason));
        let slot = told.slot.or_else(|| slot_in_name(backup))?;
        (!is_nobodys_fault && Some(slot) > last).then(|| (slot, backup.name_any(), stalled))
    });
    let (_, name, stalled) = failed.max_by_key(|(slot, ..)| *slot)?;
    Some(format!("the Backup {name} failed: {}: {}", stalled.reason, stalled.message))
}

fn slot_in_name(backup: &Backup) -> Option<Slot> {
    if backup.spec.origin == Origin::Manual {
        return None;
    }
    slot::parse_name(&backup.name_any()).ok().map(|(_, slot)| slot)
}

/// Whether its last drills passed, nothing of them is left, and the one after them is not overdue.
fn drilled(
    tenant: &Tenant,
    policy: &BackupPolicy,
    drills: &[RestoreDrill],
    status: &ProtectionStatus,
    now: Timestamp,
    turns: &mut Vec<Timestamp>,
) -> Saying {
    let kind = ConditionType::Drilled;
    let unfinished = [
        (Reason::DrillNotTornDown, unfinished(drills, check::left_since, LEFT, now, turns)),
        (Reason::DrillNotRecorded, unfinished(drills, check::unrecorded_since, UNRECORDED, now, turns)),
    ];
    let unfinished = unfinished.into_iter().filter_map(|(reason, told)| Some((reason, told?)));
    let failed = past::of_stores(&status.failed_drills, Some(&policy.spec.stores)).next_back();
    let failed = failed.map(|failed| {
        let from = failed.store.as_ref().map(|store| format!(" from {store}")).unwrap_or_default();
        let message = format!(
            "the drill {}{from} did not pass: {}; none of the same or a newer backup from there has since",
            failed.name, failed.reason
        );
        (Reason::DrillFailed, message)
    });
    let wrong: Vec<_> = failed.into_iter().chain(unfinished).collect();
    if let Some((reason, _)) = wrong.first() {
        let all: Vec<_> = wrong.iter().map(|(_, message)| message.as_str()).collect();
        return Saying::no(kind, *reason, all.join("; "));
    }
    let Some(drill) = &policy.spec.drill else {
        let message = "the policy has no drill: nobody knows whether its backups can be restored";
        return Saying::no(kind, Reason::NotAskedFor, message);
    };
    let Some(last) = &status.judged_drill else {
        return Saying::no(kind, Reason::NeverDrilled, "no drill of it has come to a verdict yet");
    };
    let passed = format!("the drill {} passed; it ended {}", last.name, last.ended.0);
    let until = Schedule::try_from(&drill.schedule).ok().and_then(|schedule| {
        let next = schedule.next(last.ended.0)?;
        Some(schedule.deadline(schedule.start(next, &tenant.name)))
    });
    turns.extend(until);
    match until {
        Some(until) if until <= now => {
            let message = format!("{passed}, and the one after it should have by {until}");
            Saying::no(kind, Reason::Overdue, message)
        }
        _ => Saying::yes(kind, Reason::AsAsked, passed),
    }
}

/// Of `drills` those that ended longer ago than `limit`, and should be finished `since`; as a sentence. Those that ended a
/// moment ago have their turn.
fn unfinished(
    drills: &[RestoreDrill],
    since: fn(&RestoreDrill) -> Option<Timestamp>,
    limit: (SignedDuration, &str),
    now: Timestamp,
    turns: &mut Vec<Timestamp>,
) -> Option<String> {
    let (limit, what) = limit;
    let mut late = vec![];
    for drill in drills {
        let Some(until) = since(drill).map(|ended| ended.saturating_add(limit).unwrap_or(Timestamp::MAX))
        else {
            continue;
        };
        if until < now {
            late.push(drill.name_any());
        } else {
            turns.push(until.saturating_add(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MAX));
        }
    }
    (!late.is_empty()).then(|| format!("{what} {}", late.join(", ")))
}

/// Whether each key was proven in time.
fn keys_proven(
    policy: &BackupPolicy,
    status: &ProtectionStatus,
    now: Timestamp,
    turns: &mut Vec<Timestamp>,
) -> Saying {
    let kind = ConditionType::KeysProven;
    let named = |key: &KeyStatus| format!("the key of {:?} ({})", key.role, key.fingerprint);
    let how = "its holder runs kubectl valv keys prove";
    if let Some(key) = status.keys.iter().find(|key| key.proven.is_none()) {
        let message = format!("{} was never proven to open a backup: {how}", named(key));
        return Saying::no(kind, Reason::NeverProven, message);
    }
    let seconds = u64::from(policy.spec.keys.prove_every.count()) * DAY_SECONDS.unsigned_abs();
    let proofs = status.keys.iter().filter_map(|key| Some((key, later(key.proven.as_ref()?.0, seconds))));
    let Some((key, until)) = proofs.min_by_key(|(_, until)| *until) else {
        return Saying::no(kind, Reason::NeverProven, "spec.backup.recipients names no key");
    };
    turns.push(until);
    if until <= now {
        let message = format!("{} was to be proven again by {until}: {how}", named(key));
        return Saying::no(kind, Reason::Overdue, message);
    }
    Saying::yes(
        kind,
        Reason::AsAsked,
        format!("each was proven to open a backup; the next is due by {until}"),
    )
}

fn later(time: Timestamp, seconds: u64) -> Timestamp {
    let seconds = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    time.saturating_add(seconds).unwrap_or(Timestamp::MAX)
}

/// The condition of type `kind`.
pub fn found(conditions: &[Condition], kind: impl std::fmt::Debug) -> Option<&Condition> {
    let kind = name(&kind);
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn name(word: &impl std::fmt::Debug) -> String {
    format!("{word:?}")
}

#[cfg(test)]
pub(crate) mod tests;
