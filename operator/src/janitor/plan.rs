//! Decides what is locked longer, what is deleted, and what waits for somebody's word. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use valv_crds::Slot;

use super::observe::{Lineage, Seen};
use crate::{
    archive::{layout::Folder, terms::Terms},
    digest,
    retention::{self, Archived, Hold, Rules, State, StoreLock},
    schedule::{self, ScheduleError},
    store::check::Store,
};

/// How long what is in use is held by a look: longer than a look, and shorter than it takes to matter for a lock.
const IN_USE: std::time::Duration = std::time::Duration::from_secs(3600);

/// A day, for what is too young to be garbage.
const DAY_SECONDS: u64 = 86_400;

/// What is done with a ward.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Backups that stay for a reason of their own.
    pub keep: usize,
    /// Whose locks are made longer, and until when. First.
    pub extend: BTreeMap<Slot, Timestamp>,
    /// Backups that go, in this order.
    pub delete: Vec<Slot>,
    /// Backups that would go, and until when a lock keeps them.
    pub blocked: BTreeMap<Slot, Timestamp>,
    /// What attempts left that nobody committed.
    pub garbage: Vec<Folder>,
    /// Backups that should be there and are not. While there is one, nothing is deleted.
    pub missing: BTreeSet<Slot>,
    /// What waits for somebody's word.
    pub waits: Option<Waits>,
    /// Terms to be written into the archive.
    pub record: Option<Terms>,
}

/// A clean-up that waits to be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// What the annotation has to say: it names this store, this archive and these backups, and no others.
    pub digest: String,
    /// So many backups would go
    pub deletions: usize,
    /// of so many.
    pub of: usize,
    /// Why it is asked.
    pub why: Why,
}

/// Why somebody is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is more than usual.
    Many,
    /// The rules of before would have kept some of it.
    Tightened,
}

/// What `terms` mean for what was `seen` in `store`, at `now`.
///
/// # Guarantees
/// Whatever [`retention::plan`] guarantees; and nothing that is missing, in use, unfinished or not to be believed is
/// touched.
///
/// # Errors
/// If the terms' time zone is none.
pub fn plan(terms: &Terms, store: &Store, seen: &Seen, now: Timestamp) -> Result<Plan, ScheduleError> {
    let lock = match store.object_lock {
        Some(lock) => {
            let days = u64::try_from(lock.days).unwrap_or_default();
            StoreLock::For(std::time::Duration::from_secs(days * DAY_SECONDS))
        }
        None => StoreLock::None,
    };
    let catalogue = catalogue(terms, seen, now);
    let wanted = retention::plan(&rules(terms)?, lock, &catalogue, now);
    let mut plan = Plan {
        keep: wanted.keep.len(),
        extend: wanted.extend,
        blocked: wanted.blocked,
        missing: missing(seen),
        ..Plan::default()
    };
    if !plan.missing.is_empty() {
        return Ok(plan);
    }
    // What the rules of before would have let go too.
    let before = match &seen.recorded {
        Some(recorded) if recorded.retention != terms.retention || recorded.time_zone != terms.time_zone => {
            let before = retention::plan(&rules(recorded)?, lock, &catalogue, now).delete;
            wanted.delete.iter().filter(|slot| before.contains(slot)).copied().collect()
        }
        Some(_) | None => wanted.delete.clone(),
    };
    let of = seen.catalogue.entries.len();
    let usual = usize::try_from(terms.retention.acknowledge_above).unwrap_or_default();
    let is_usual = |slots: &[Slot]| slots.len() <= usual && slots.len() * 2 <= of;
    let digest = digest_of(&store.name, terms, &wanted.delete);
    let why = match (is_usual(&wanted.delete), before.len() == wanted.delete.len()) {
        (false, _) => Some(Why::Many),
        (true, false) => Some(Why::Tightened),
        (true, true) => None,
    };
    plan.waits = why.filter(|_| !seen.acknowledged.contains(&digest)).map(|why| Waits {
        digest,
        deletions: wanted.delete.len(),
        of,
        why,
    });
    plan.delete = match &plan.waits {
        None => wanted.delete,
        Some(_) if is_usual(&before) => before,
        Some(_) => vec![],
    };
    if !seen.is_use_known {
        plan.delete.clear();
    }
    plan.garbage = garbage(terms, seen, now);
    plan.record = record(terms, seen, plan.waits.as_ref());
    Ok(plan)
}

/// Whom the deletion of `slots` is asked of: a digest that is another for every other clean-up.
fn digest_of(store: &str, terms: &Terms, slots: &[Slot]) -> String {
    let archive = terms.archive.to_string();
    let slots: Vec<String> = slots.iter().map(ToString::to_string).collect();
    let entries = [("store", store), ("archive", archive.as_str())];
    let slots = slots.iter().map(|slot| ("slot", slot.as_str()));
    digest::of_entries(entries.into_iter().chain(slots).map(|(key, value)| (key, value.as_bytes())))
}

fn rules(terms: &Terms) -> Result<Rules, ScheduleError> {
    Ok(Rules::new(&terms.retention, schedule::time_zone(&terms.time_zone)?))
}

/// The catalogue, as retention sees it.
fn catalogue(terms: &Terms, seen: &Seen, now: Timestamp) -> retention::Catalogue {
    let in_an_hour = now.saturating_add(IN_USE).unwrap_or(Timestamp::MAX);
    let entries = seen.catalogue.entries.iter();
    let archived = entries.map(|(slot, entry)| {
        let lineage = seen.lineage.get(slot);
        let held = terms.holds.iter().filter(|hold| hold.slot == *slot);
        let held = held
            .map(|hold| Hold { reason: hold.reason.clone(), until: hold.until.as_ref().map(|time| time.0) });
        let used = seen.in_use.get(slot).map(|by| Hold { reason: by.clone(), until: Some(in_an_hour) });
        let longest = |hold: &Hold| hold.until.unwrap_or(Timestamp::MAX);
        let archived = Archived {
            // By the operator's clock, and no earlier than the data were taken: the floor counts from here.
            taken: entry.commit.committed.max(slot.time()),
            state: match lineage {
                Some(Lineage::Damaged) => State::Damaged,
                Some(Lineage::Of(_)) | None => State::Good,
            },
            parent: match lineage {
                Some(Lineage::Of(parent)) => *parent,
                Some(Lineage::Damaged) | None => None,
            },
            locked_until: entry.locked_until,
            hold: held.chain(used).max_by_key(longest),
        };
        (*slot, archived)
    });
    archived.collect()
}

/// What the cluster knows to be there, and is not.
fn missing(seen: &Seen) -> BTreeSet<Slot> {
    seen.known.iter().filter(|slot| !seen.catalogue.entries.contains_key(slot)).copied().collect()
}

/// What was left by attempts that were never committed, and is old enough that none of them runs any more.
fn garbage(terms: &Terms, seen: &Seen, now: Timestamp) -> Vec<Folder> {
    let age = terms.deadline_seconds.saturating_mul(2).saturating_add(DAY_SECONDS);
    let age = std::time::Duration::from_secs(age);
    let is_garbage = |folder: &&Folder| {
        let entry = seen.catalogue.entries.get(&folder.slot);
        let is_committed = entry.is_some_and(|entry| entry.commit.attempt == folder.attempt);
        let may_be_somebody_s = seen.catalogue.refused.contains_key(&folder.slot)
            || seen.unfinished.contains(&folder.slot)
            || seen.known.contains(&folder.slot) && entry.is_none();
        let is_old = folder.slot.time().saturating_add(age).unwrap_or(Timestamp::MAX) <= now;
        !is_committed && !may_be_somebody_s && is_old
    };
    seen.folders.iter().filter(is_garbage).cloned().collect()
}

/// The terms that are to lie in the archive. Tighter ones wait until they are acknowledged; holds do not wait.
fn record(terms: &Terms, seen: &Seen, waits: Option<&Waits>) -> Option<Terms> {
    let wanted = match (&seen.recorded, waits) {
        (Some(recorded), Some(_)) => Terms {
            retention: recorded.retention.clone(),
            time_zone: recorded.time_zone.clone(),
            policy: recorded.policy.clone(),
            ..terms.clone()
        },
        (Some(_) | None, _) => terms.clone(),
    };
    (!seen.recorded.as_ref().is_some_and(|recorded| recorded.says_as(&wanted))).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{
        archive::{
            catalogue::{Catalogue, Entry},
            commit::{Commit, ManifestRef, Store as Where, Verified},
            digest::Blake3,
            envelope::SigningKey,
            finding::Findings,
            manifest::FORMAT,
            terms::tests::terms,
            verify::Mode,
        },
        store::check::tests::store,
    };

    const NOON: &str = "2026-11-22T12:00:00Z";

    fn now() -> Timestamp {
        NOON.parse().unwrap()
    }

    fn slot(days_ago: i64) -> Slot {
        let one: Timestamp = "2026-11-22T01:00:00Z".parse().unwrap();
        Slot::at(one - SignedDuration::from_hours(24 * days_ago)).unwrap()
    }

    fn attempt(number: i64) -> crate::archive::layout::Attempt {
        format!("00000000-0000-7000-8000-{:012x}", number.unsigned_abs()).parse().unwrap()
    }

    fn folder(days_ago: i64) -> Folder {
        Folder { archive: "ada".parse().unwrap(), slot: slot(days_ago), attempt: attempt(days_ago) }
    }

    fn entry(days_ago: i64) -> Entry {
        let folder = folder(days_ago);
        let key = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
        Entry {
            commit: Commit {
                format: FORMAT,
                archive: folder.archive.clone(),
                slot: folder.slot,
                attempt: folder.attempt.clone(),
                manifest: ManifestRef {
                    key: format!("{folder}manifest.json"),
                    version: None,
                    size: 2,
                    blake3: Blake3::of(b"{}"),
                },
                verified: Verified {
                    mode: Mode::Full,
                    seed: None,
                    segments_read: 1,
                    segments: 1,
                    at: folder.slot.time(),
                },
                store: Where { name: "helsinki".into(), region: "r".into(), country: "FI".into() },
                retain_until: None,
                committed: folder.slot.time(),
            },
            key_id: key.public().id(),
            version: None,
            blake3: Blake3::of(b""),
            locked_until: None,
        }
    }

    /// The daily backups of the last `days`, at rest.
    fn seen(days: i64) -> Seen {
        Seen {
            catalogue: Catalogue {
                archive: "ada".parse().unwrap(),
                entries: (0..days).map(|ago| (slot(ago), entry(ago))).collect(),
                refused: BTreeMap::new(),
                covered: Findings::default(),
                strangers: 0,
            },
            lineage: BTreeMap::new(),
            recorded: Some(rules_of(3, 5)),
            folders: (0..days).map(folder).collect(),
            in_use: BTreeMap::new(),
            is_use_known: true,
            unfinished: BTreeSet::new(),
            known: BTreeSet::new(),
            acknowledged: vec![],
            backups: vec![],
        }
    }

    /// The newest `last` are kept, and a clean-up of more than `usual` is asked for.
    fn rules_of(last: i32, usual: i32) -> Terms {
        let mut terms = terms();
        let retention = &mut terms.retention;
        (retention.last, retention.daily, retention.weekly) = (last, 0, 0);
        (retention.monthly, retention.yearly, retention.acknowledge_above) = (0, 0, usual);
        terms
    }

    fn planned(terms: &Terms, seen: &Seen) -> Plan {
        plan(terms, &store(), seen, now()).unwrap()
    }

    #[test]
    fn what_the_rules_let_go_goes_and_what_is_left_stays() {
        let plan = planned(&rules_of(3, 5), &seen(5));

        assert_eq!(plan.delete, [slot(3), slot(4)]);
        assert_eq!((plan.keep, plan.waits, plan.record), (3, None, None));
    }

    #[test]
    fn more_than_usual_waits_for_the_word_that_names_it() {
        let mut seen = seen(12);

        let asked = planned(&rules_of(3, 5), &seen);
        let Waits { digest, deletions, of, why } = asked.waits.unwrap();
        assert_eq!((deletions, of, why), (9, 12, Why::Many));
        assert_eq!(asked.delete, []);

        seen.acknowledged = vec!["0000000000000000".to_owned()];
        assert_eq!(planned(&rules_of(3, 5), &seen).delete, []);
        seen.acknowledged.push(digest.clone());
        assert_eq!(planned(&rules_of(3, 5), &seen).delete.len(), 9);
        // A day later it would be another clean-up: the word does not count for that.
        seen.catalogue.entries.insert(slot(-1), entry(-1));
        let tomorrow = now() + SignedDuration::from_hours(24);
        let later = plan(&rules_of(3, 5), &store(), &seen, tomorrow).unwrap();
        assert_ne!(later.waits.unwrap().digest, digest);
    }

    #[test]
    fn after_rules_were_tightened_what_they_would_have_kept_waits_and_the_rest_goes() {
        let mut seen = seen(6);
        seen.recorded = Some(rules_of(5, 5));
        let tighter = rules_of(4, 5);

        let asked = planned(&tighter, &seen);

        assert_eq!(asked.delete, [slot(5)]);
        let waits = asked.waits.unwrap();
        assert_eq!(waits.why, Why::Tightened);
        assert_eq!(asked.record, None, "the archive says what was acknowledged last");
        seen.acknowledged = vec![waits.digest];
        let acknowledged = planned(&tighter, &seen);
        assert_eq!(acknowledged.delete, [slot(4), slot(5)]);
        assert_eq!(acknowledged.record, Some(tighter));
    }

    #[test]
    fn looser_rules_are_written_down_at_once_and_so_is_a_hold() {
        let mut seen = seen(6);
        seen.recorded = Some(rules_of(6, 5));
        let looser = rules_of(7, 5);
        let mut held = rules_of(3, 5);
        let hold = serde_json::json!({ "slot": slot(5), "reason": "a lawsuit, decided today" });
        held.holds = vec![serde_json::from_value(hold).unwrap()];

        assert_eq!(planned(&looser, &seen).record, Some(looser));
        let plan = planned(&held, &seen);
        assert!(!plan.delete.contains(&slot(5)));
        let recorded = plan.record.unwrap();
        assert_eq!((recorded.retention.last, recorded.holds.len()), (6, 1));
    }

    #[test]
    fn while_a_backup_is_missing_nothing_is_deleted_at_all() {
        let mut seen = seen(5);
        seen.catalogue.entries.remove(&slot(1));
        seen.known = BTreeSet::from([slot(0), slot(1)]);
        seen.folders.push(folder(40));

        let plan = planned(&rules_of(1, 50), &seen);

        assert_eq!(plan.missing, BTreeSet::from([slot(1)]));
        assert_eq!((plan.delete.len(), plan.garbage.len(), plan.record), (0, 0, None));
    }

    #[test]
    fn what_is_restored_right_now_stays_and_so_does_all_if_nobody_knows_what_is() {
        let mut seen = seen(5);
        seen.in_use = BTreeMap::from([(slot(4), "the drill ada-1 restores it".to_owned())]);
        assert_eq!(planned(&rules_of(3, 5), &seen).delete, [slot(3)]);

        seen.is_use_known = false;
        assert_eq!(planned(&rules_of(3, 5), &seen).delete, []);
    }

    #[test]
    fn what_another_builds_on_stays_and_what_is_damaged_stands_for_nothing() {
        let mut seen = seen(6);
        seen.lineage = BTreeMap::from([
            (slot(0), Lineage::Damaged),
            (slot(3), Lineage::Of(Some(slot(5)))),
            (slot(1), Lineage::Of(None)),
        ]);

        let plan = planned(&rules_of(3, 5), &seen);

        // 1, 2 and 3 are the newest good ones; 3 needs 5; 0 is below the floor.
        assert_eq!(plan.delete, [slot(4)]);
    }

    #[test]
    fn garbage_is_old_and_nobody_s() {
        let mut seen = seen(3);
        let (second_attempt, young) =
            (Folder { attempt: attempt(99), ..folder(2) }, Folder { attempt: attempt(99), ..folder(0) });
        let (refused, running, known, left) = (folder(10), folder(11), folder(12), folder(13));
        seen.folders.extend([&second_attempt, &young, &refused, &running, &left].map(Clone::clone));
        seen.catalogue.refused = BTreeMap::from([(refused.slot, "forged".to_owned())]);
        seen.unfinished = BTreeSet::from([running.slot]);

        assert_eq!(planned(&rules_of(3, 5), &seen).garbage, [second_attempt, left]);
        seen.folders.push(known.clone());
        seen.known = BTreeSet::from([known.slot]);
        assert_eq!(planned(&rules_of(3, 5), &seen).garbage, [], "its commit is missing");
    }

    #[test]
    fn what_a_lock_keeps_is_no_deletion_and_is_told_until_when() {
        let mut seen = seen(5);
        let until = now() + SignedDuration::from_hours(24 * 9);
        seen.catalogue.entries.get_mut(&slot(4)).unwrap().locked_until = Some(until);

        let plan = planned(&rules_of(3, 5), &seen);

        assert_eq!((plan.delete, plan.blocked), (vec![slot(3)], BTreeMap::from([(slot(4), until)])));
    }
}
