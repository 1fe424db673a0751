//! Decides what is locked longer, what is deleted, and what waits for somebody's word. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use valv_crds::Slot;

use super::{
    damage::Drilled,
    observe::{Lineage, Seen},
};
use crate::{
    archive::{register::Register, terms::Terms},
    digest,
    retention::{self, Archived, Course, Hold, Reason, Rules, State, StoreLock},
    schedule::{self, ScheduleError},
    store::check::Store,
};

/// How long what is in use is held by a look: longer than a look, and shorter than it takes to matter for a lock.
const IN_USE: std::time::Duration = std::time::Duration::from_secs(3600);

/// Seconds of a day.
const DAY_SECONDS: u64 = 86_400;

/// Slots that retention let go are remembered, the newest so many: longer than a lock keeps anything of them.
const MOST_LET_GO: usize = 5_000;

/// How long after its commit a backup is expected in the other stores.
const COPIED_WITHIN: std::time::Duration = std::time::Duration::from_secs(6 * 3600);

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
    /// Backups that should be there and are not. While there is one, nothing is deleted.
    pub missing: BTreeSet<Slot>,
    /// Backups that should be there and are not, which somebody has acknowledged.
    pub forgotten: BTreeSet<Slot>,
    /// Backups that further stores of the policy should have, and have not.
    pub uncopied: BTreeSet<Slot>,
    /// The register that is to lie in the archive, before anything of `delete` goes.
    pub register: Option<Register>,
    /// What waits for somebody's word.
    pub waits: Option<Waits>,
    /// Backups that would go, and what keeps them back.
    pub held_back: Option<HeldBack>,
    /// Terms to be written into the archive.
    pub record: Option<Terms>,
}

/// Backups that would go, and stay for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// So many.
    pub backups: usize,
    /// Why, and until when.
    pub why: String,
}

/// A clean-up that waits to be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// What the annotation has to say: it names this store, this archive and these backups, and no others.
    pub digest: String,
    /// So many backups, or folders of data, would go
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
    /// Some of it is damaged: whoever deletes that deletes evidence, and it may be what is left of that day.
    Damaged,
    /// They are gone already, and nobody said that they may.
    Missing,
    /// They look as if a commit of theirs had been lost.
    NeverCommitted,
    /// Attempts left more than they do.
    Leftovers,
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
    let register = register(store, seen, now);
    let catalogue = catalogue(terms, seen, &register, now);
    let rules = |terms: &Terms| rules(terms, seen.course);
    let mut wanted = retention::plan(&rules(terms)?, lock, &catalogue, now);
    // While nobody can restore what is newer, what could be restored last stays, and all before it. No lock is made longer
    // for that.
    let by_rules = wanted.delete.len();
    wanted.delete.retain(|slot| !seen.drilled.holds_back(*slot));
    let missing = missing(seen);
    let mut plan = Plan {
        keep: wanted.keep.len(),
        held_back: held_back(seen, by_rules, wanted.delete.len()),
        extend: wanted.extend,
        blocked: wanted.blocked,
        uncopied: uncopied(&rules(terms)?, seen, &catalogue, &wanted.keep, now),
        ..Plan::default()
    };
    let mut register = register;
    let slots: Vec<Slot> = missing.iter().copied().collect();
    let digest = digest_of(&store.name, terms, &slots, register.acknowledged);
    if !missing.is_empty() && seen.acknowledged.contains(&digest) {
        plan.forgotten = missing;
        // The same word says nothing of what is missing another time.
        register.acknowledged = register.acknowledged.saturating_add(1);
    } else if !missing.is_empty() {
        let (deletions, of) = (missing.len(), seen.catalogue.entries.len());
        plan.waits = Some(Waits { digest, deletions, of, why: Why::Missing });
        // Also what only the cluster knew: the question stays the same until it is answered for all of them.
        register.committed.extend(&missing);
        plan.missing = missing;
        plan.register = next(seen, register, &plan, now);
        return Ok(plan);
    }
    // What the rules of before would have let go too.
    let before: Vec<Slot> = match &seen.recorded {
        Some(recorded) if recorded.retention != terms.retention || recorded.time_zone != terms.time_zone => {
            let before = retention::plan(&rules(recorded)?, lock, &catalogue, now).delete;
            wanted.delete.iter().filter(|slot| before.contains(slot)).copied().collect()
        }
        Some(_) | None => wanted.delete.clone(),
    };
    let of = seen.catalogue.entries.len();
    let usual = usize::try_from(terms.retention.acknowledge_above).unwrap_or_default();
    let is_usual = |slots: &[Slot]| slots.len() <= usual && slots.len() * 2 <= of;
    let is_damaged = |slot: &Slot| catalogue.get(slot).is_some_and(|backup| backup.state == State::Damaged);
    let (damaged, sound): (Vec<Slot>, Vec<Slot>) = wanted.delete.iter().partition(|slot| is_damaged(slot));
    // What goes without a word is not asked about, and what is damaged is asked about apart: the next look asks the same.
    let (free, rest): (Vec<Slot>, Vec<Slot>) =
        sound.iter().partition(|slot| is_usual(&before) && before.contains(slot));
    let (why, asked) = match (rest.is_empty(), damaged.is_empty()) {
        (false, _) if is_usual(&wanted.delete) => (Some(Why::Tightened), rest),
        (false, _) => (Some(Why::Many), rest),
        (true, false) => (Some(Why::Damaged), damaged),
        (true, true) => (None, vec![]),
    };
    let digest = digest_of(&store.name, terms, &asked, register.acknowledged);
    let is_acknowledged = why.is_some() && seen.acknowledged.contains(&digest);
    if is_acknowledged && seen.unknown_use.is_none() {
        register.acknowledged = register.acknowledged.saturating_add(1);
    }
    let goes = |slot: &Slot| free.contains(slot) || is_acknowledged && asked.contains(slot);
    plan.delete = wanted.delete.into_iter().filter(goes).collect();
    plan.waits =
        why.filter(|_| !is_acknowledged).map(|why| Waits { digest, deletions: asked.len(), of, why });
    if seen.unknown_use.is_some() {
        plan.delete.clear();
    }
    // Damage says nothing against the rules.
    let against = plan.waits.as_ref().filter(|waits| waits.why != Why::Damaged);
    plan.record = record(terms, seen, against, now);
    plan.register = next(seen, register, &plan, now);
    Ok(plan)
}

impl Plan {
    /// What is left of it in an archive that is another cluster's: what is only of this cluster's own objects.
    pub fn leave_alone(&mut self) {
        *self = Self { keep: self.keep, missing: std::mem::take(&mut self.missing), ..Self::default() };
    }
}

/// What the store should have, as it was seen: what it said before, what is committed, and what is damaged.
fn register(store: &Store, seen: &Seen, now: Timestamp) -> Register {
    let archive = &seen.catalogue.archive;
    let mut register = seen.register.clone().unwrap_or_else(|| Register::empty(archive, &store.name, now));
    // It may have been written under another name.
    register.store.clone_from(&store.name);
    register.committed.extend(seen.catalogue.entries.keys());
    register.let_go.retain(|slot| !seen.catalogue.entries.contains_key(slot));
    let Drilled { passed, damaged, failing: _, verdicts } = &seen.drilled;
    register.drilled.clone_from(verdicts);
    register.damaged.retain(|slot, why| !seen.is_copied_since(*slot, why));
    register.damaged.extend(damaged.iter().map(|(slot, why)| (*slot, why.clone())));
    for (slot, (why, since)) in &seen.reported {
        // A drill that restored it since knows better, and so does the copy when it succeeded.
        if passed.get(slot).is_none_or(|passed| passed < since) && !seen.is_copied_since(*slot, why) {
            // What a drill found stands until a drill passes.
            if !damaged.contains_key(slot) {
                register.damaged.insert(*slot, why.clone());
            }
            // It is known to be so since, also when nobody reports it any more.
            if let Some(drilled) = &mut register.drilled {
                drilled.restored.remove(slot);
            }
        }
    }
    register.damaged.retain(|slot, _| {
        let is_reported = seen
            .reported
            .get(slot)
            .is_some_and(|(_, since)| passed.get(slot).is_none_or(|passed| passed < since));
        seen.catalogue.entries.contains_key(slot) && (is_reported || !passed.contains_key(slot))
    });
    register
}

/// What of `by_rules` many backups stays though the rules let it go, when `left` of them are left to be deleted.
fn held_back(seen: &Seen, by_rules: usize, left: usize) -> Option<HeldBack> {
    let (backups, why) = match (&seen.unknown_use, &seen.drilled.failing) {
        (Some(unknown), _) => (by_rules, format!("{unknown}: nobody knows what it restores")),
        (None, Some(failing)) => (by_rules.saturating_sub(left), failing.words()),
        (None, None) => return None,
    };
    (backups > 0).then_some(HeldBack { backups, why })
}

/// The register that is to be written, if it says otherwise than the one that is there.
fn next(seen: &Seen, mut register: Register, plan: &Plan, now: Timestamp) -> Option<Register> {
    for slot in &plan.delete {
        register.committed.remove(slot);
        register.let_go.insert(*slot);
    }
    register.committed.retain(|slot| !plan.forgotten.contains(slot));
    while register.let_go.len() > MOST_LET_GO {
        register.let_go.pop_first();
    }
    match &seen.register {
        Some(standing) => standing.next(register, now),
        None => Some(Register { number: 1, ..register }),
    }
}

/// What is kept here, and is not in each of the further stores though it would be kept there too.
fn uncopied(
    rules: &Rules,
    seen: &Seen,
    catalogue: &retention::Catalogue,
    keep: &BTreeMap<Slot, BTreeSet<Reason>>,
    now: Timestamp,
) -> BTreeSet<Slot> {
    let is_settled = |slot: &Slot| {
        let entry = seen.catalogue.entries.get(slot);
        entry.is_some_and(|entry| {
            entry.commit.committed.saturating_add(COPIED_WITHIN).unwrap_or(Timestamp::MAX) <= now
        })
    };
    let is_good = |slot: &&Slot| {
        catalogue.get(slot).is_some_and(|backup| backup.state == State::Good) && is_settled(slot)
    };
    let ours: Vec<Slot> = keep.keys().filter(is_good).copied().collect();
    let mut uncopied = BTreeSet::new();
    for there in &seen.elsewhere {
        let lacks = |slot: &&Slot| !there.committed.contains(slot) && !there.let_go.contains(slot);
        let lacking: Vec<Slot> = ours.iter().filter(lacks).copied().collect();
        let good = |slot: &Slot| {
            let backup = Archived {
                taken: slot.time(),
                state: State::Good,
                parent: None,
                locked_until: None,
                hold: None,
            };
            (*slot, backup)
        };
        let both = there.committed.iter().chain(&lacking).map(good).collect();
        let kept = retention::plan(rules, StoreLock::None, &both, now).keep;
        uncopied.extend(lacking.into_iter().filter(|slot| kept.contains_key(slot)));
    }
    uncopied
}

/// Whom the deletion of `slots` is asked of: a digest that is another for every other clean-up, and another when the same
/// is asked after so many were `acknowledged`.
fn digest_of(store: &str, terms: &Terms, slots: &[Slot], acknowledged: u64) -> String {
    let slots: Vec<String> = slots.iter().map(ToString::to_string).collect();
    question(store, terms, "slot", &slots, acknowledged)
}

/// The digest of a question about `what`, each of a `kind`.
pub fn question(store: &str, terms: &Terms, kind: &str, what: &[String], acknowledged: u64) -> String {
    let (archive, number) = (terms.archive.to_string(), acknowledged.to_string());
    let mut entries = vec![("store", store), ("archive", archive.as_str())];
    entries.extend(what.iter().map(|one| (kind, one.as_str())));
    entries.extend((acknowledged > 0).then_some(("acknowledged", number.as_str())));
    digest::of_entries(entries.into_iter().map(|(key, value)| (key, value.as_bytes())))
}

fn rules(terms: &Terms, course: Course) -> Result<Rules, ScheduleError> {
    Ok(Rules { course, ..Rules::new(&terms.retention, schedule::time_zone(&terms.time_zone)?) })
}

/// The catalogue, as retention sees it.
fn catalogue(terms: &Terms, seen: &Seen, register: &Register, now: Timestamp) -> retention::Catalogue {
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
                Some(Lineage::Of(_)) | None if register.damaged.contains_key(slot) => State::Damaged,
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

/// What the cluster knows to be there, or the register, and is not.
fn missing(seen: &Seen) -> BTreeSet<Slot> {
    let mut expected = seen.expected();
    expected.retain(|slot| !seen.catalogue.entries.contains_key(slot));
    expected
}

/// The terms that are to lie in the archive. Tighter ones wait until they are acknowledged; holds do not wait.
fn record(terms: &Terms, seen: &Seen, waits: Option<&Waits>, now: Timestamp) -> Option<Terms> {
    let wanted = match (&seen.recorded, waits) {
        (Some(recorded), Some(_)) => Terms {
            retention: recorded.retention.clone(),
            time_zone: recorded.time_zone.clone(),
            policy: recorded.policy.clone(),
            ..terms.clone()
        },
        (Some(_) | None, _) => terms.clone(),
    };
    // Those of an archive without a tenant were read there, and say when.
    let wanted = Terms { written: Timestamp::from_second(now.as_second()).unwrap_or(now), ..wanted };
    (!seen.recorded.as_ref().is_some_and(|recorded| recorded.says_as(&wanted))).then_some(wanted)
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{
        archive::{
            catalogue::{Catalogue, Entry},
            commit::{Commit, ManifestRef, Store as Where, Verified},
            digest::Blake3,
            envelope::SigningKey,
            finding::Findings,
            layout::Folder,
            manifest::FORMAT,
            terms::tests::terms,
            verify::Mode,
        },
        janitor::observe::Elsewhere,
        store::check::tests::store,
    };

    const NOON: &str = "2026-11-22T12:00:00Z";

    pub fn now() -> Timestamp {
        NOON.parse().unwrap()
    }

    pub fn slot(days_ago: i64) -> Slot {
        let one: Timestamp = "2026-11-22T01:00:00Z".parse().unwrap();
        Slot::at(one - SignedDuration::from_hours(24 * days_ago)).unwrap()
    }

    pub fn attempt(number: i64) -> crate::archive::layout::Attempt {
        format!("00000000-0000-7000-8000-{:012x}", number.unsigned_abs()).parse().unwrap()
    }

    pub fn folder(days_ago: i64) -> Folder {
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
    pub fn seen(days: i64) -> Seen {
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
            register: None,
            replaced: vec![],
            drilled: Drilled::default(),
            reported: BTreeMap::new(),
            elsewhere: vec![],
            course: Course::GoesOn,
            in_use: BTreeMap::new(),
            unknown_use: None,
            unfinished: BTreeSet::new(),
            known: BTreeSet::new(),
            acknowledged: vec![],
            backups: vec![],
            read: crate::janitor::rounds::Known::default(),
        }
    }

    /// A register in which these stand.
    pub fn register(days_ago: &[i64]) -> Register {
        let committed = days_ago.iter().map(|ago| slot(*ago)).collect();
        Register { committed, number: 7, ..Register::empty(&"ada".parse().unwrap(), "helsinki", now()) }
    }

    /// The newest `last` are kept, and a clean-up of more than `usual` is asked for.
    pub fn rules_of(last: i32, usual: i32) -> Terms {
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
        assert!(acknowledged.record.unwrap().says_as(&tighter));
    }

    #[test]
    fn the_next_look_asks_the_same_when_what_needs_no_word_is_gone() {
        let mut seen = seen(6);
        seen.recorded = Some(rules_of(5, 5));
        let asked = planned(&rules_of(4, 5), &seen);
        assert_eq!(asked.delete, [slot(5)]);

        seen.catalogue.entries.remove(&slot(5));

        let next = planned(&rules_of(4, 5), &seen);
        assert_eq!((next.delete, next.waits.unwrap().digest), (vec![], asked.waits.unwrap().digest));
    }

    #[test]
    fn of_more_than_usual_nothing_goes_before_the_word_also_if_some_is_damaged() {
        let mut seen = seen(20);
        seen.drilled.damaged = BTreeMap::from([(slot(16), "a drill: SegmentMissing".to_owned())]);

        let asked = planned(&rules_of(14, 5), &seen);

        let waits = asked.waits.unwrap();
        assert_eq!((asked.delete, waits.why, waits.deletions), (vec![], Why::Many, 5));
        seen.acknowledged = vec![waits.digest];
        let acknowledged = planned(&rules_of(14, 5), &seen);
        assert_eq!(acknowledged.delete, [14, 15, 17, 18, 19].map(slot));
    }

    #[test]
    fn what_is_damaged_is_asked_about_apart_after_what_tighter_rules_let_go() {
        let mut seen = seen(8);
        seen.recorded = Some(rules_of(7, 5));
        seen.drilled.damaged = BTreeMap::from([(slot(6), "a drill: SegmentMissing".to_owned())]);
        let tighter = rules_of(5, 5);

        let waits = planned(&tighter, &seen).waits.unwrap();
        assert_eq!((waits.why, waits.deletions), (Why::Tightened, 2));

        seen.acknowledged = vec![waits.digest];
        let acknowledged = planned(&tighter, &seen);
        assert_eq!(acknowledged.delete, [slot(5), slot(7)]);
        seen.catalogue.entries.retain(|slot, _| !acknowledged.delete.contains(slot));
        seen.recorded = acknowledged.record;
        seen.register = acknowledged.register;
        let waits = planned(&tighter, &seen).waits.unwrap();
        assert_eq!((waits.why, waits.deletions), (Why::Damaged, 1));
    }

    #[test]
    fn looser_rules_are_written_down_at_once_and_so_is_a_hold() {
        let mut seen = seen(6);
        seen.recorded = Some(rules_of(6, 5));
        let looser = rules_of(7, 5);
        let mut held = rules_of(3, 5);
        let hold = serde_json::json!({ "slot": slot(5), "reason": "a lawsuit, decided today" });
        held.holds = vec![serde_json::from_value(hold).unwrap()];

        assert!(planned(&looser, &seen).record.unwrap().says_as(&looser));
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

        let plan = planned(&rules_of(1, 50), &seen);

        assert_eq!(plan.missing, BTreeSet::from([slot(1)]));
        assert_eq!((plan.delete.len(), plan.record), (0, None));
        assert_eq!(plan.waits.unwrap().why, Why::Missing);
        // Only the cluster knew of it. Were its object the first to go, the question would be another.
        assert!(plan.register.unwrap().committed.contains(&slot(1)));
    }

    #[test]
    fn what_is_restored_right_now_stays_and_so_does_all_if_nobody_knows_what_is() {
        let mut seen = seen(5);
        seen.in_use = BTreeMap::from([(slot(4), "the drill ada-1 restores it".to_owned())]);
        assert_eq!(planned(&rules_of(3, 5), &seen).delete, [slot(3)]);

        seen.unknown_use = Some("the drill ada-2 has not chosen its backup yet".to_owned());
        let held_back = planned(&rules_of(3, 5), &seen);
        assert_eq!(held_back.delete, []);
        let HeldBack { backups, why } = held_back.held_back.unwrap();
        assert!(backups == 1 && why.contains("ada-2"), "{why}");
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
    fn a_backup_that_stands_in_the_register_is_missed_however_old_it_is() {
        let mut seen = seen(5);
        seen.register = Some(register(&[0, 1, 2, 3, 4, 300]));

        let asked = planned(&rules_of(1, 50), &seen);

        assert_eq!((asked.missing, asked.delete), (BTreeSet::from([slot(300)]), vec![]));
        let waits = asked.waits.unwrap();
        assert_eq!((waits.why, waits.deletions), (Why::Missing, 1));
        seen.acknowledged = vec![waits.digest];
        let acknowledged = planned(&rules_of(3, 50), &seen);
        assert_eq!(acknowledged.delete, [slot(3), slot(4)]);
        assert_eq!((acknowledged.missing.len(), acknowledged.forgotten), (0, BTreeSet::from([slot(300)])));
        let written = acknowledged.register.unwrap();
        assert!(!written.committed.contains(&slot(300)));

        // It came back, was learnt again, and is gone once more.
        let mut again = self::seen(5);
        again.register = Some(Register { committed: register(&[0, 1, 2, 3, 4, 300]).committed, ..written });
        again.acknowledged = seen.acknowledged;
        let asked = planned(&rules_of(3, 50), &again);
        assert_eq!(asked.missing, BTreeSet::from([slot(300)]), "a word counts once");
        assert_ne!(asked.waits.unwrap().digest, again.acknowledged[0]);
    }

    #[test]
    fn what_is_asked_is_asked_with_the_same_words_at_the_next_look() {
        let mut seen = seen(12);
        seen.register = Some(register(&[0]));
        seen.known = BTreeSet::from([slot(300)]);
        let missing = planned(&rules_of(3, 5), &seen);
        seen.acknowledged = vec![missing.waits.unwrap().digest];

        // It is forgotten, and now it is asked about what is too much.
        let asked = planned(&rules_of(3, 5), &seen);

        let mut next = self::seen(12);
        next.register = asked.register;
        assert_eq!(asked.waits.clone().unwrap().why, Why::Many);
        assert_eq!(planned(&rules_of(3, 5), &next).waits, asked.waits);
    }

    #[test]
    fn what_retention_let_go_is_not_missed_though_the_cluster_still_names_it() {
        let mut seen = seen(5);
        seen.register = Some(register(&[0, 1, 2, 3, 4]));
        seen.register.as_mut().unwrap().let_go = BTreeSet::from([slot(40)]);
        seen.known = BTreeSet::from([slot(0), slot(40)]);

        assert_eq!(planned(&rules_of(9, 5), &seen).missing, BTreeSet::new());
        assert!(!seen.is_known(slot(40)) && seen.is_known(slot(0)));
    }

    #[test]
    fn what_the_drills_said_is_written_down() {
        let mut seen = seen(5);
        seen.register = Some(register(&[0, 1, 2, 3, 4]));
        let verdicts = crate::archive::register::Verdicts {
            ended: now(),
            passed: true,
            restored: [(slot(2), now())].into(),
        };
        seen.drilled.verdicts = Some(verdicts.clone());
        seen.drilled.passed = verdicts.restored.clone();

        assert_eq!(planned(&rules_of(9, 5), &seen).register.unwrap().drilled, Some(verdicts));
        let later = now() + SignedDuration::from_hours(1);
        seen.reported = BTreeMap::from([(slot(2), ("the copy".to_owned(), later))]);
        let written = planned(&rules_of(9, 5), &seen).register.unwrap();
        assert!(written.drilled.unwrap().restored.is_empty() && written.damaged.contains_key(&slot(2)));
    }

    #[test]
    fn what_is_committed_is_written_down_and_so_is_what_goes_before_it_goes() {
        let mut seen = seen(5);
        seen.register = Some(register(&[1, 2, 3, 4]));

        let written = planned(&rules_of(3, 5), &seen).register.unwrap();

        assert_eq!(written.committed, (0..3).map(slot).collect());
        assert_eq!((written.let_go, written.number), (BTreeSet::from([slot(3), slot(4)]), 8));
        seen.register = Some(register(&[0, 1, 2, 3, 4]));
        assert_eq!(planned(&rules_of(9, 5), &seen).register, None, "nothing changed");
        seen.register = None;
        assert_eq!(planned(&rules_of(9, 5), &seen).register.unwrap().number, 1);
    }

    #[test]
    fn what_a_drill_found_damaged_stands_for_nothing_and_is_remembered() {
        let mut seen = seen(6);
        seen.drilled.damaged = BTreeMap::from([(slot(2), "a drill: Corrupt".to_owned())]);

        let plan = planned(&rules_of(3, 5), &seen);

        // 0, 1 and 3 are the newest good ones.
        assert_eq!(plan.delete, [slot(4), slot(5)]);
        let mut later = self::seen(6);
        later.register = Some(register(&[0, 1, 2, 3, 4, 5]));
        later.register.as_mut().unwrap().damaged = BTreeMap::from([(slot(2), "a drill: Corrupt".to_owned())]);
        assert_eq!(planned(&rules_of(3, 5), &later).delete, [slot(4), slot(5)]);
        later.drilled.passed = BTreeMap::from([(slot(2), now())]);
        let mended = planned(&rules_of(3, 5), &later);
        assert_eq!(mended.delete, [slot(3), slot(4), slot(5)]);
        assert_eq!(mended.register.unwrap().damaged, BTreeMap::new());
    }

    #[test]
    fn while_the_newest_drill_failed_nothing_older_goes_than_what_was_restored_last() {
        let mut seen = seen(6);
        let failing = |restorable| Some(crate::janitor::damage::Failing { restorable });

        seen.drilled.failing = failing(Some(slot(4)));
        let some = planned(&rules_of(3, 5), &seen);
        assert_eq!(some.delete, [slot(3)]);
        let HeldBack { backups, why } = some.held_back.unwrap();
        assert!(backups == 2 && why.contains(&slot(4).to_string()), "{why}");
        seen.drilled.failing = failing(None);
        assert_eq!(planned(&rules_of(3, 5), &seen).delete, []);
        let extended = planned(&rules_of(3, 5), &seen).extend;
        assert_eq!(
            extended,
            planned(&rules_of(3, 5), &self::seen(6)).extend,
            "no lock is made longer for it"
        );
    }

    #[test]
    fn what_is_damaged_goes_only_when_somebody_says_so_and_what_is_not_goes_meanwhile() {
        let mut seen = seen(6);
        seen.drilled.damaged = BTreeMap::from([(slot(2), "a drill: SegmentMissing".to_owned())]);

        let asked = planned(&rules_of(3, 5), &seen);

        let waits = asked.waits.unwrap();
        assert_eq!((waits.why, waits.deletions, waits.of), (Why::Damaged, 1, 6));
        assert_eq!((asked.delete, asked.record), (vec![slot(4), slot(5)], None));
        let looser = planned(&rules_of(3, 7), &seen);
        assert!(looser.waits.is_some() && looser.record.is_some(), "the rules do not wait for it");
        // The next look, when that has gone, asks the same.
        seen.catalogue.entries.retain(|other, _| ![slot(4), slot(5)].contains(other));
        let next = planned(&rules_of(3, 5), &seen);
        assert_eq!((next.delete, next.waits.unwrap().digest), (vec![], waits.digest.clone()));
        seen.acknowledged = vec![waits.digest];
        let acknowledged = planned(&rules_of(3, 5), &seen);
        assert_eq!((acknowledged.delete, acknowledged.waits), (vec![slot(2)], None));
        assert_eq!(acknowledged.register.unwrap().acknowledged, 1);
    }

    #[test]
    fn a_copy_that_could_not_read_its_source_makes_it_damaged_until_a_drill_of_it_passes() {
        let mut seen = seen(6);
        let yesterday = now() - SignedDuration::from_hours(24);
        seen.reported = BTreeMap::from([(slot(2), ("the copy".to_owned(), yesterday))]);
        let is_damaged =
            |seen: &Seen| planned(&rules_of(3, 5), seen).waits.is_some_and(|waits| waits.why == Why::Damaged);

        assert!(is_damaged(&seen));
        seen.drilled.passed = BTreeMap::from([(slot(2), now())]);
        assert!(!is_damaged(&seen) && !planned(&rules_of(3, 5), &seen).delete.contains(&slot(2)));
    }

    #[test]
    fn a_copy_that_could_not_read_its_source_once_and_could_then_leaves_no_damage() {
        let said = "the Backup ada-1 says SegmentMissing: attempt 1 to copy it to frankfurt failed, another comes: gone";
        let damaged = |seen: &Seen| planned(&rules_of(3, 5), seen).register.unwrap().damaged;
        let mut seen = seen(6);
        seen.register = Some(register(&[0, 1, 2, 3, 4]));
        seen.register.as_mut().unwrap().damaged = BTreeMap::from([(slot(2), said.to_owned())]);
        seen.reported = BTreeMap::from([(slot(2), (said.to_owned(), now()))]);
        let there = |store: &str| Elsewhere {
            store: store.to_owned(),
            committed: BTreeSet::from([slot(2)]),
            let_go: BTreeSet::new(),
        };

        seen.elsewhere = vec![there("oslo")];
        assert!(damaged(&seen).contains_key(&slot(2)), "that is another copy");
        seen.elsewhere = vec![there("frankfurt")];
        assert_eq!(damaged(&seen), BTreeMap::new());
        seen.elsewhere.clear();
        let mut backup = crate::copy::check::tests::backup().as_ref().clone();
        let status = backup.status.as_mut().unwrap();
        status.slot = Some(slot(2));
        status.stores[0].name = "frankfurt".to_owned();
        seen.backups = vec![backup];
        assert_eq!(damaged(&seen), BTreeMap::new());
        // What a drill found is no matter of copies.
        seen.drilled.damaged = BTreeMap::from([(slot(2), "a drill: SegmentMissing".to_owned())]);
        assert_eq!(damaged(&seen)[&slot(2)], "a drill: SegmentMissing");
        seen.reported.clear();
        seen.register.as_mut().unwrap().damaged = std::mem::take(&mut seen.drilled.damaged);
        assert!(damaged(&seen).contains_key(&slot(2)));
    }

    #[test]
    fn what_another_store_should_have_and_has_not_is_counted_and_what_it_let_go_is_not() {
        let mut seen = seen(5);
        seen.elsewhere = vec![Elsewhere {
            store: "frankfurt".to_owned(),
            committed: [0, 1].map(slot).into(),
            let_go: BTreeSet::from([slot(3)]),
        }];

        // 4 would go here; 3 was let go there.
        assert_eq!(planned(&rules_of(4, 5), &seen).uncopied, BTreeSet::from([slot(2)]));
        seen.elsewhere.clear();
        assert_eq!(planned(&rules_of(4, 5), &seen).uncopied, BTreeSet::new());
    }

    #[test]
    fn in_another_cluster_s_archive_nothing_is_done() {
        let mut plan = planned(&rules_of(3, 5), &seen(6));
        assert!(!plan.delete.is_empty());

        plan.leave_alone();

        assert_eq!(plan, Plan { keep: plan.keep, ..Plan::default() });
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
