//! Decides which backups are kept, which are deleted, and whose lock is made longer.
//!
//! Input: the rules, the store's lock, the catalogue of one tenant in one store, the time. Output: a [`Plan`].
//! Pure: no client, no clock, no randomness. Same input, same plan.
//!
//! # What is kept
//! A backup that any rule keeps is kept. Days, weeks, months and years are those of the policy's time zone, and the
//! newest good backup of each stands for the whole. Only a *good* backup counts: committed, never found damaged, and
//! with every parent that it builds on good too. The newest good one is kept whatever the rules say, and so is all
//! below the floor, all that is held, all that runs, and every parent of what is kept or cannot be deleted yet.
//!
//! An archive whose tenant is gone gets no newer backups. There the same rules are an age: what stands for a month stays
//! for as many months as the rule has, and then goes, the newest too. So its retention ends, and so do its locks.
//!
//! # Locks
//! A store locks every object for some days when it is written. A backup that stands for a day, a week, a month or a
//! year is *promoted* when that has ended for [`PROMOTION_GRACE`]: its lock is extended to the first moment at which
//! the rule may let it go. What is kept without a date (the newest, holds without an end) has a lock that rolls: it
//! is renewed for the store's days when less than half of them is left, or less than [`ROLLED_BEFORE`]. A parent is
//! locked for as long as what builds on it. Locks are never shortened.
//!
//! The *committer* extends, before the janitor deletes anything of the same plan: it may make a lock longer and
//! cannot delete; the janitor may delete and cannot touch a lock. So nobody can both let go and destroy.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};
use valv_crds::{Slot, retention};

const DAY: Duration = Duration::from_secs(86_400);

/// How long after the end of a day, week, month or year its newest backup is promoted: a slot of its last hour may
/// start up to a day later, and take its time.
pub const PROMOTION_GRACE: Duration = Duration::from_secs(2 * DAY.as_secs());

/// A lock is not extended to a date that it misses by less than this: the segments of one backup are locked as they
/// are written, the first a while before the last.
pub const EXTENSION_MIN: Duration = DAY;

/// A lock that rolls is renewed at the latest when only this is left of it: two looks at an archive are up to two days
/// apart, and one may fail.
pub const ROLLED_BEFORE: Duration = Duration::from_secs(3 * DAY.as_secs());

/// The backups of one tenant in one store.
pub type Catalogue = BTreeMap<Slot, Archived>;

/// One backup of a catalogue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Archived {
    /// When the data were taken; the floor counts from here.
    pub taken: Timestamp,
    /// Whether it can be restored.
    pub state: State,
    /// The older backup that it is the increment of; none if it stands alone.
    pub parent: Option<Slot>,
    /// Until when a lock keeps all of it; none if nothing does.
    pub locked_until: Option<Timestamp>,
    /// Why it must not be deleted, whatever its age.
    pub hold: Option<Hold>,
}

/// Why a backup must not be deleted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hold {
    /// As its owner wrote it.
    pub reason: String,
    /// Until when; none: until it is taken away.
    pub until: Option<Timestamp>,
}

/// Whether a backup can be restored.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum State {
    /// It is committed, and nothing says that it is damaged.
    Good,
    /// It is committed, and a verification or a drill found it damaged. It counts for nothing, but is evidence: the
    /// floor keeps it.
    Damaged,
    /// It was never committed: what is there is garbage.
    Failed,
    /// It is being made.
    Running,
}

/// The rules of a policy.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The newest so many.
    pub last: usize,
    /// One for each of the newest so many days that have one.
    pub daily: usize,
    /// One for each of the newest so many weeks that have one.
    pub weekly: usize,
    /// One for each of the newest so many months that have one.
    pub monthly: usize,
    /// One for each of the newest so many years that have one.
    pub yearly: usize,
    /// The age below which nothing is deleted.
    pub floor: Floor,
    /// Whose days, weeks, months and years.
    pub zone: TimeZone,
    /// So many deletions need nobody's word.
    pub usual_deletions: usize,
    /// Whether newer backups come.
    pub course: Course,
}

/// Whether an archive gets newer backups.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Course {
    /// It does: a period counts if it has a backup, and the newest good one always stays.
    GoesOn,
    /// Its tenant is gone. What is kept ends by the calendar alone, and nothing is kept for ever by being the newest.
    HasEnded,
}

/// The age below which nothing is deleted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Floor {
    /// That age.
    pub age: Duration,
    /// The law or the decision behind it.
    pub reason: String,
}

/// The lock that a store puts on what is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoreLock {
    /// None: nothing is extended.
    None,
    /// For so long.
    For(Duration),
}

/// What is to be done with a catalogue. Every slot of it stands in exactly one of `keep`, `delete` and `blocked`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// What stays, each with every reason.
    pub keep: BTreeMap<Slot, BTreeSet<Reason>>,
    /// What goes, in this order: an increment before what it builds on. Of each the commit first, then the data.
    pub delete: Vec<Slot>,
    /// What would go, and until when a lock keeps it.
    pub blocked: BTreeMap<Slot, Timestamp>,
    /// Whose lock the committer extends, and until when. Before anything is deleted.
    pub extend: BTreeMap<Slot, Timestamp>,
    /// Backups said to be good whose parent is not there or not good: they cannot be restored.
    pub broken: BTreeSet<Slot>,
    /// Whether somebody has to acknowledge the deletions first.
    pub size: Size,
}

/// Why a backup is kept, and for how long at least.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Reason {
    /// Why.
    pub why: Why,
    /// For how long.
    pub until: Until,
}

/// Why a backup is kept.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Why {
    /// It is the newest good one.
    Newest,
    /// It is among the newest good ones.
    Last,
    /// It stands for the period that begins on this day.
    For(Period, Date),
    /// It is younger than the floor, which rests on this.
    Floor(String),
    /// It is held, because of this.
    Held(String),
    /// It is being made.
    Running,
    /// Its slot lies in the future: a clock is or was wrong. It counts for nothing until its time has come.
    InFuture,
    /// This one stays, or cannot go yet, and is an increment of it.
    NeededBy(Slot),
}

/// For how long something is kept at least.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Until {
    /// Until then.
    At(Timestamp),
    /// Until something else happens: a newer backup, or somebody's word.
    Open,
}

/// Lengths of time that people count in.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Period {
    /// From midnight.
    Day,
    /// From Monday.
    Week,
    /// From the first of the month.
    Month,
    /// From 1 January.
    Year,
}

/// Whether a plan deletes as much as plans do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Size {
    /// It does.
    #[default]
    Usual,
    /// It deletes more than [`Rules::usual_deletions`], or more than half.
    Unusual {
        /// It deletes so many committed backups
        deletions: usize,
        /// of so many.
        of: usize,
    },
}

impl Archived {
    /// Whether its commit was put.
    fn is_committed(&self) -> bool {
        match self.state {
            State::Good | State::Damaged => true,
            State::Failed | State::Running => false,
        }
    }
}

impl Rules {
    /// The rules of `spec`, with the calendar of `zone`.
    pub fn new(spec: &retention::Retention, zone: TimeZone) -> Self {
        // The schema has no numbers below zero.
        let count = |number: i32| usize::try_from(number).unwrap_or_default();
        let floor_days = u32::try_from(spec.floor.days).unwrap_or_default();
        Self {
            last: count(spec.last),
            daily: count(spec.daily),
            weekly: count(spec.weekly),
            monthly: count(spec.monthly),
            yearly: count(spec.yearly),
            floor: Floor { age: DAY.saturating_mul(floor_days), reason: spec.floor.reason.clone() },
            zone,
            usual_deletions: count(spec.acknowledge_above),
            course: Course::GoesOn,
        }
    }

    fn periods(&self) -> [(Period, usize); 4] {
        [
            (Period::Day, self.daily),
            (Period::Week, self.weekly),
            (Period::Month, self.monthly),
            (Period::Year, self.yearly),
        ]
    }

    /// The first moment of `date`.
    fn begin(&self, date: Date) -> Timestamp {
        self.zone.to_timestamp(date.at(0, 0, 0, 0)).unwrap_or(Timestamp::MAX)
    }

    /// The first day of each `period` and the newest of `slots` in it, newest first.
    fn newest_of_each(&self, period: Period, slots: &[Slot]) -> BTreeMap<Reverse<Date>, Slot> {
        let mut newest = BTreeMap::new();
        for slot in slots {
            let first_day = period.first_day(self.zone.to_datetime(slot.time()).date());
            let so_far = newest.entry(Reverse(first_day)).or_insert(*slot);
            *so_far = (*so_far).max(*slot);
        }
        newest
    }

    /// How long the newest backup of the period that began on `first_day` stays, when `count` of them have one.
    fn stays(&self, period: Period, first_day: Date, count: usize, now: Timestamp) -> Until {
        let has_ended = after(self.begin(period.later(first_day, 1)), PROMOTION_GRACE) <= now;
        let earliest_end = self.begin(period.later(first_day, count));
        // Before the end another may take its place; after the last date it stays only because newer periods are
        // empty.
        if has_ended && earliest_end > now { Until::At(earliest_end) } else { Until::Open }
    }
}

impl Period {
    /// The first day of the period that `date` is in.
    fn first_day(self, date: Date) -> Date {
        match self {
            Self::Day => date,
            Self::Week => {
                let days_from_monday = date.weekday().to_monday_zero_offset();
                date.checked_sub(Span::new().days(days_from_monday)).unwrap_or(date)
            }
            Self::Month => date.first_of_month(),
            Self::Year => date.first_of_year(),
        }
    }

    /// The first day of the period that comes `count` after the one that begins on `first_day`.
    fn later(self, first_day: Date, count: usize) -> Date {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let span = match self {
            Self::Day => Span::new().try_days(count),
            Self::Week => Span::new().try_weeks(count),
            Self::Month => Span::new().try_months(count),
            Self::Year => Span::new().try_years(count),
        };
        span.and_then(|span| first_day.checked_add(span)).unwrap_or(Date::MAX)
    }
}

impl Plan {
    fn keep(&mut self, slot: Slot, why: Why, until: Until) {
        self.keep.entry(slot).or_default().insert(Reason { why, until });
    }
}

/// The plan for `catalogue` at `now`.
///
/// # Guarantees
/// The newest good backup, whatever is younger than the floor, and whatever is held stay, and so does every parent of
/// what stays. Carried out and planned again at the same time, it deletes and extends nothing more.
pub fn plan(rules: &Rules, lock: StoreLock, catalogue: &Catalogue, now: Timestamp) -> Plan {
    let (good, broken) = good(catalogue);
    let mut plan = Plan { broken, ..Plan::default() };
    match rules.course {
        Course::GoesOn => keep_by_count(rules, &good, now, &mut plan),
        Course::HasEnded => keep_by_age(rules, &good, now, &mut plan),
    }
    keep_by_itself(rules, catalogue, now, &mut plan);
    block_what_is_locked(catalogue, now, &mut plan);
    keep_parents(catalogue, &mut plan);
    let goes = |slot: &&Slot| !plan.keep.contains_key(slot) && !plan.blocked.contains_key(slot);
    plan.delete = catalogue.keys().rev().filter(goes).copied().collect();
    plan.size = size(rules, catalogue, &plan.delete);
    plan.extend = extend(lock, catalogue, &plan.keep, now);
    plan
}

/// The slots that can be restored: committed, not damaged, and so is all that they build on. Then those that say so
/// and cannot.
fn good(catalogue: &Catalogue) -> (BTreeSet<Slot>, BTreeSet<Slot>) {
    let (mut good, mut broken) = (BTreeSet::new(), BTreeSet::new());
    // Oldest first: what is no older than its increment is no parent.
    for (slot, backup) in catalogue.iter().filter(|(_, backup)| backup.state == State::Good) {
        match backup.parent {
            Some(parent) if !good.contains(&parent) => broken.insert(*slot),
            Some(_) | None => good.insert(*slot),
        };
    }
    (good, broken)
}

/// Keeps the newest, of all and of each period.
fn keep_by_count(rules: &Rules, good: &BTreeSet<Slot>, now: Timestamp, plan: &mut Plan) {
    let newest_first: Vec<Slot> = good.iter().rev().filter(|slot| slot.time() <= now).copied().collect();
    if let Some(newest) = newest_first.first() {
        plan.keep(*newest, Why::Newest, Until::Open);
    }
    for slot in newest_first.iter().take(rules.last) {
        plan.keep(*slot, Why::Last, Until::Open);
    }
    for (period, count) in rules.periods() {
        for (Reverse(first_day), slot) in rules.newest_of_each(period, &newest_first).into_iter().take(count)
        {
            plan.keep(slot, Why::For(period, first_day), rules.stays(period, first_day, count, now));
        }
    }
}

/// Keeps what is younger than its rule is long: the newest of each of the last days, weeks, months and years, until that
/// many have passed; and the newest so many for so many days, as if there were one a day.
fn keep_by_age(rules: &Rules, good: &BTreeSet<Slot>, now: Timestamp, plan: &mut Plan) {
    let newest_first: Vec<Slot> = good.iter().rev().filter(|slot| slot.time() <= now).copied().collect();
    let mut keep = |slot: Slot, why: Why, ends: Timestamp| {
        if ends > now {
            plan.keep(slot, why, Until::At(ends));
        }
    };
    let days = DAY.saturating_mul(u32::try_from(rules.last).unwrap_or(u32::MAX));
    for slot in newest_first.iter().take(rules.last) {
        keep(*slot, Why::Last, after(slot.time(), days));
    }
    for (period, count) in rules.periods() {
        for (Reverse(first_day), slot) in rules.newest_of_each(period, &newest_first) {
            let ends = rules.begin(period.later(first_day, count));
            keep(slot, Why::For(period, first_day), ends);
        }
    }
}

/// Keeps what stays for a reason of its own.
fn keep_by_itself(rules: &Rules, catalogue: &Catalogue, now: Timestamp, plan: &mut Plan) {
    for (slot, backup) in catalogue {
        let floor_ends = after(backup.taken, rules.floor.age);
        if backup.is_committed() && floor_ends > now {
            plan.keep(*slot, Why::Floor(rules.floor.reason.clone()), Until::At(floor_ends));
        }
        if let Some(hold) = backup.hold.as_ref().filter(|hold| hold.until.is_none_or(|until| until > now)) {
            plan.keep(*slot, Why::Held(hold.reason.clone()), hold.until.map_or(Until::Open, Until::At));
        }
        if backup.state == State::Running {
            plan.keep(*slot, Why::Running, Until::Open);
        }
        if backup.is_committed() && slot.time() > now {
            plan.keep(*slot, Why::InFuture, Until::Open);
        }
    }
}

/// Sets apart what nothing keeps but a lock.
fn block_what_is_locked(catalogue: &Catalogue, now: Timestamp, plan: &mut Plan) {
    for (slot, backup) in catalogue.iter().filter(|(slot, _)| !plan.keep.contains_key(slot)) {
        if let Some(until) = backup.locked_until.filter(|until| *until > now) {
            plan.blocked.insert(*slot, until);
        }
    }
}

/// Keeps what others that stay, or cannot go yet, build on.
fn keep_parents(catalogue: &Catalogue, plan: &mut Plan) {
    // Newest first: when a slot is looked at, it is known whether a newer one needs it.
    for (slot, backup) in catalogue.iter().rev() {
        let stays = plan.keep.contains_key(slot) || plan.blocked.contains_key(slot);
        let parent = backup.parent.filter(|parent| parent < slot && stays);
        if let Some(parent) =
            parent.filter(|parent| catalogue.get(parent).is_some_and(Archived::is_committed))
        {
            plan.blocked.remove(&parent);
            plan.keep(parent, Why::NeededBy(*slot), Until::Open);
        }
    }
}

/// Whether `deletions` are as many as usual. What was never committed does not count: it is no backup.
fn size(rules: &Rules, catalogue: &Catalogue, deletions: &[Slot]) -> Size {
    let of = catalogue.values().filter(|backup| backup.is_committed()).count();
    let committed = |slot: &&Slot| catalogue.get(slot).is_some_and(Archived::is_committed);
    let deletions = deletions.iter().filter(committed).count();
    if deletions > rules.usual_deletions || deletions * 2 > of {
        Size::Unusual { deletions, of }
    } else {
        Size::Usual
    }
}

/// Whose lock has to be longer, and until when, so that it ends no earlier than what it is kept for.
fn extend(
    lock: StoreLock,
    catalogue: &Catalogue,
    keep: &BTreeMap<Slot, BTreeSet<Reason>>,
    now: Timestamp,
) -> BTreeMap<Slot, Timestamp> {
    let StoreLock::For(length) = lock else { return BTreeMap::new() };
    // Of a lock that is shorter than that no day may pass.
    let rolled_before = (length / 2).max(ROLLED_BEFORE).min(length);
    let mut extend = BTreeMap::new();
    // What increments need of the backups that they build on.
    let mut needed: BTreeMap<Slot, Timestamp> = BTreeMap::new();
    // What increments build on that are kept without a date.
    let mut open: BTreeSet<Slot> = BTreeSet::new();
    // Newest first: all increments of a slot have been looked at before it.
    for (slot, backup) in catalogue.iter().rev().filter(|(_, backup)| backup.is_committed()) {
        let locked_until = backup.locked_until.unwrap_or(Timestamp::MIN);
        let reasons = keep.get(slot).into_iter().flatten();
        let dates = reasons.clone().filter_map(|reason| match reason.until {
            Until::At(until) => Some(until),
            Until::Open => None,
        });
        let date = dates.chain(needed.get(slot).copied()).max();
        let date = date.filter(|date| *date > now && *date > after(locked_until, EXTENSION_MIN));
        // What an increment needs is counted above: as its date, or as open if the increment is.
        let is_open =
            |reason: &Reason| reason.until == Until::Open && !matches!(reason.why, Why::NeededBy(_));
        let is_open = reasons.clone().any(is_open) || open.contains(slot);
        let rolled = (is_open && locked_until < after(now, rolled_before)).then(|| after(now, length));
        let wanted = date.max(rolled).filter(|_| keep.contains_key(slot));
        if let Some(until) = wanted {
            extend.insert(*slot, until);
        }
        if let Some(parent) = backup.parent {
            let until = locked_until.max(wanted.unwrap_or(locked_until));
            let so_far = needed.entry(parent).or_insert(until);
            *so_far = until.max(*so_far);
            if is_open {
                open.insert(parent);
            }
        }
    }
    extend
}

/// `span` after `time`, or the end of time.
fn after(time: Timestamp, span: Duration) -> Timestamp {
    time.saturating_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schedule::time_zone;

    const NOON: &str = "2026-11-22T12:00:00Z";

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn days(count: u32) -> Duration {
        DAY.saturating_mul(count)
    }

    fn slot(time: Timestamp) -> Slot {
        Slot::at(time).unwrap()
    }

    fn rules() -> Rules {
        Rules {
            last: 3,
            daily: 7,
            weekly: 4,
            monthly: 3,
            yearly: 2,
            floor: Floor { age: days(2), reason: "decided".to_owned() },
            zone: time_zone("Europe/Stockholm").unwrap(),
            usual_deletions: 5,
            course: Course::GoesOn,
        }
    }

    fn full(taken: Timestamp) -> Archived {
        Archived { taken, state: State::Good, parent: None, locked_until: None, hold: None }
    }

    /// A good backup at 01:00 UTC on each of the `count` days up to and with `last`.
    fn daily(last: &str, count: u32) -> Catalogue {
        let last = at(&format!("{last}T01:00:00Z"));
        let times = (0..count).map(|ago| last.checked_sub(days(ago)).unwrap());
        times.map(|time| (slot(time), full(time))).collect()
    }

    fn of_day(date: &str) -> Slot {
        slot(at(&format!("{date}T01:00:00Z")))
    }

    fn whys(plan: &Plan, slot: Slot) -> Vec<Why> {
        plan.keep.get(&slot).into_iter().flatten().map(|reason| reason.why.clone()).collect()
    }

    fn reason(plan: &Plan, slot: Slot, wanted: impl Fn(&Why) -> bool) -> Option<Until> {
        plan.keep.get(&slot)?.iter().find(|reason| wanted(&reason.why)).map(|reason| reason.until)
    }

    /// `catalogue` after `plan` was carried out.
    fn carried_out(plan: &Plan, catalogue: &Catalogue) -> Catalogue {
        let mut catalogue = catalogue.clone();
        for (slot, until) in &plan.extend {
            catalogue.get_mut(slot).unwrap().locked_until = Some(*until);
        }
        catalogue.retain(|slot, _| !plan.delete.contains(slot));
        catalogue
    }

    #[test]
    fn two_years_of_daily_backups_become_what_the_rules_say() {
        let catalogue = daily("2026-11-22", 730);

        let plan = plan(&rules(), StoreLock::None, &catalogue, at(NOON));

        let kept: Vec<_> = plan.keep.keys().map(|slot| slot.to_string()[..8].to_owned()).collect();
        // The last of 2025, of September and of October; the Sundays of four weeks; seven days.
        let expected = [
            "20251231", "20260930", "20261031", "20261101", "20261108", "20261115", "20261116", "20261117",
            "20261118", "20261119", "20261120", "20261121", "20261122",
        ];
        assert_eq!(kept, expected);
        assert_eq!(plan.delete.len(), 730 - kept.len());
        assert_eq!(plan.size, Size::Unusual { deletions: 730 - kept.len(), of: 730 });
        assert!(plan.delete.is_sorted_by(|one, next| one > next));
    }

    #[test]
    fn a_period_is_that_of_the_policys_time_zone() {
        // 23:30 UTC on New Year's Eve is the new year in Stockholm.
        let eve = at("2025-12-31T23:30:00Z");
        let catalogue = Catalogue::from([(slot(eve), full(eve))]);

        let plan = plan(&rules(), StoreLock::None, &catalogue, at(NOON));

        assert!(whys(&plan, slot(eve)).contains(&Why::For(Period::Year, Date::constant(2026, 1, 1))));
        assert!(whys(&plan, slot(eve)).contains(&Why::For(Period::Week, Date::constant(2025, 12, 29))));
    }

    #[test]
    fn the_newest_good_backup_stays_although_newer_ones_failed() {
        let mut catalogue = daily("2026-11-22", 3);
        catalogue.get_mut(&of_day("2026-11-22")).unwrap().state = State::Failed;
        catalogue.get_mut(&of_day("2026-11-21")).unwrap().state = State::Damaged;
        let nothing = Rules { last: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0, ..rules() };

        let plan = plan(&nothing, StoreLock::None, &catalogue, at(NOON));

        assert!(whys(&plan, of_day("2026-11-20")).contains(&Why::Newest));
        assert_eq!(plan.delete, [of_day("2026-11-22")]);
        assert_eq!(whys(&plan, of_day("2026-11-21")), [Why::Floor("decided".to_owned())]);
    }

    #[test]
    fn a_backup_found_damaged_leaves_its_place_to_another() {
        let mut catalogue = daily("2026-11-22", 60);
        catalogue.get_mut(&of_day("2026-10-31")).unwrap().state = State::Damaged;

        let plan = plan(&rules(), StoreLock::None, &catalogue, at(NOON));

        let october = Why::For(Period::Month, Date::constant(2026, 10, 1));
        assert!(whys(&plan, of_day("2026-10-30")).contains(&october));
        assert!(plan.delete.contains(&of_day("2026-10-31")));
    }

    #[test]
    fn an_increment_keeps_all_that_it_builds_on() {
        let mut catalogue = daily("2026-11-22", 400);
        let (child, parent, grandparent) = (of_day("2026-11-22"), of_day("2026-01-14"), of_day("2026-01-13"));
        catalogue.get_mut(&child).unwrap().parent = Some(parent);
        catalogue.get_mut(&parent).unwrap().parent = Some(grandparent);

        let plan = plan(&rules(), StoreLock::None, &catalogue, at(NOON));

        assert_eq!(whys(&plan, parent), [Why::NeededBy(child)]);
        assert_eq!(whys(&plan, grandparent), [Why::NeededBy(parent)]);
    }

    #[test]
    fn an_increment_without_its_parent_counts_for_nothing() {
        let mut catalogue = daily("2026-11-22", 2);
        catalogue.get_mut(&of_day("2026-11-22")).unwrap().parent = Some(of_day("2026-11-19"));

        let plan = plan(&rules(), StoreLock::None, &catalogue, at(NOON));

        assert_eq!(plan.broken, BTreeSet::from([of_day("2026-11-22")]));
        assert!(whys(&plan, of_day("2026-11-21")).contains(&Why::Newest));
        assert_eq!(whys(&plan, of_day("2026-11-22")), [Why::Floor("decided".to_owned())]);
    }

    #[test]
    fn a_hold_keeps_until_it_ends() {
        let mut catalogue = daily("2026-11-22", 400);
        let hold = |until| Some(Hold { reason: "case 7".to_owned(), until });
        catalogue.get_mut(&of_day("2026-02-02")).unwrap().hold = hold(None);
        catalogue.get_mut(&of_day("2026-02-03")).unwrap().hold = hold(Some(at("2026-11-23T00:00:00Z")));
        catalogue.get_mut(&of_day("2026-02-04")).unwrap().hold = hold(Some(at("2026-11-22T00:00:00Z")));

        let plan = plan(&rules(), StoreLock::None, &catalogue, at(NOON));

        assert_eq!(whys(&plan, of_day("2026-02-02")), [Why::Held("case 7".to_owned())]);
        assert_eq!(whys(&plan, of_day("2026-02-03")), [Why::Held("case 7".to_owned())]);
        assert!(plan.delete.contains(&of_day("2026-02-04")));
    }

    #[test]
    fn a_lock_keeps_what_no_rule_does_and_what_it_builds_on() {
        let mut catalogue = daily("2026-11-22", 400);
        let (child, parent) = (of_day("2026-02-03"), of_day("2026-02-02"));
        let until = at("2026-12-01T00:00:00Z");
        catalogue.get_mut(&child).unwrap().parent = Some(parent);
        catalogue.get_mut(&child).unwrap().locked_until = Some(until);

        let plan = plan(&rules(), StoreLock::None, &catalogue, at(NOON));

        assert_eq!(plan.blocked, BTreeMap::from([(child, until)]));
        assert_eq!(whys(&plan, parent), [Why::NeededBy(child)]);
    }

    #[test]
    fn a_backup_is_promoted_when_its_period_is_over_for_good() {
        let catalogue = daily("2026-11-02", 40);
        let october = |why: &Why| *why == Why::For(Period::Month, Date::constant(2026, 10, 1));
        let last_of_october = of_day("2026-10-31");
        let plan_at = |now| plan(&rules(), StoreLock::For(days(35)), &catalogue, at(now));

        let in_grace = plan_at("2026-11-02T22:00:00Z");
        let promoted = plan_at("2026-11-02T23:00:00Z");

        // Three months: until the first moment of January, in Stockholm.
        let until = at("2026-12-31T23:00:00Z");
        assert_eq!(reason(&in_grace, last_of_october, october), Some(Until::Open));
        assert_eq!(reason(&promoted, last_of_october, october), Some(Until::At(until)));
        assert_eq!(promoted.extend.get(&last_of_october), Some(&until));
    }

    #[test]
    fn a_lock_that_is_long_enough_is_left_alone() {
        let mut catalogue = daily("2026-11-22", 10);
        for (slot, backup) in &mut catalogue {
            backup.locked_until = Some(after(slot.time(), days(35)));
        }
        let short = Rules { monthly: 0, yearly: 0, ..rules() };

        let plan = plan(&short, StoreLock::For(days(35)), &catalogue, at(NOON));

        assert_eq!(plan.extend, BTreeMap::new());
    }

    #[test]
    fn the_lock_of_the_newest_rolls_while_no_newer_one_is_made() {
        let now = at(NOON);
        let taken = now.checked_sub(days(20)).unwrap();
        let backup = Archived { locked_until: Some(after(taken, days(35))), ..full(taken) };
        let catalogue = Catalogue::from([(slot(taken), backup)]);
        let newest_only = Rules { last: 1, daily: 0, weekly: 0, monthly: 0, yearly: 0, ..rules() };

        let plan = plan(&newest_only, StoreLock::For(days(35)), &catalogue, now);

        // 15 of 35 days are left.
        assert_eq!(plan.extend, BTreeMap::from([(slot(taken), after(now, days(35)))]));
    }

    #[test]
    fn a_lock_of_a_few_days_is_renewed_three_days_before_its_end_and_a_shorter_one_at_each_look() {
        let now = at(NOON);
        let newest_only = Rules { last: 1, daily: 0, weekly: 0, monthly: 0, yearly: 0, ..rules() };
        let rolled = |length: u32, left_hours: u64| {
            let left = Duration::from_secs(left_hours * 3600);
            let taken = now.checked_sub(days(9)).unwrap();
            let backup = Archived { locked_until: Some(after(now, left)), ..full(taken) };
            let catalogue = Catalogue::from([(slot(taken), backup)]);
            let plan = plan(&newest_only, StoreLock::For(days(length)), &catalogue, now);
            plan.extend.values().next().copied()
        };

        assert_eq!(rolled(4, 72), None);
        assert_eq!(rolled(4, 71), Some(after(now, days(4))));
        assert_eq!(rolled(2, 47), Some(after(now, days(2))));
        assert_eq!(rolled(2, 48), None, "it is as long as it can be");
        assert_eq!(rolled(1, 23), Some(after(now, days(1))));
        assert_eq!(rolled(35, 18 * 24), None, "half of a long one suffices");
    }

    #[test]
    fn a_parent_is_locked_as_long_as_its_increment() {
        let mut catalogue = daily("2026-11-22", 30);
        let (child, parent) = (of_day("2026-10-31"), of_day("2026-10-29"));
        catalogue.get_mut(&child).unwrap().parent = Some(parent);

        let plan = plan(&rules(), StoreLock::For(days(35)), &catalogue, at(NOON));

        assert!(plan.extend.get(&parent) >= plan.extend.get(&child));
        assert!(plan.extend.contains_key(&child));
    }

    #[test]
    fn a_store_without_a_lock_has_none_extended() {
        let plan = plan(&rules(), StoreLock::None, &daily("2026-11-22", 400), at(NOON));

        assert_eq!(plan.extend, BTreeMap::new());
    }

    #[test]
    fn an_ordinary_day_deletes_one_backup_and_needs_nobodys_word() {
        let (tuesday, wednesday) = (at("2026-11-24T12:00:00Z"), at("2026-11-25T12:00:00Z"));
        let catalogue = daily("2026-11-24", 730);
        let first = plan(&rules(), StoreLock::None, &catalogue, tuesday);
        let mut tomorrow = carried_out(&first, &catalogue);
        tomorrow.extend(daily("2026-11-25", 1));

        let second = plan(&rules(), StoreLock::None, &tomorrow, wednesday);

        assert_eq!(second.delete.len(), 1);
        assert_eq!(second.size, Size::Usual);
    }

    #[test]
    fn what_was_never_committed_goes_without_anybodys_word() {
        let mut catalogue = daily("2026-11-22", 20);
        for (_, backup) in catalogue.iter_mut().take(12) {
            backup.state = State::Failed;
        }

        let plan = plan(&rules(), StoreLock::None, &catalogue, at(NOON));

        assert!(plan.delete.len() >= 12);
        assert_eq!(plan.size, Size::Usual);
    }

    #[test]
    fn a_slot_in_the_future_stays_and_pushes_none_out() {
        let mut catalogue = daily("2026-11-22", 1);
        let future = of_day("2036-01-01");
        catalogue.insert(future, full(future.time()));
        let newest_only = Rules { last: 1, daily: 0, weekly: 0, monthly: 0, yearly: 0, ..rules() };

        let plan = plan(&newest_only, StoreLock::None, &catalogue, at(NOON));

        assert!(whys(&plan, of_day("2026-11-22")).contains(&Why::Newest));
        assert!(whys(&plan, future).contains(&Why::InFuture));
    }

    #[test]
    fn what_a_tenant_that_is_gone_left_ends_by_its_age_and_its_locks_do_not_roll() {
        let catalogue = daily("2026-11-22", 400);
        let ended = Rules { course: Course::HasEnded, ..rules() };
        let plan_at = |now: &str| plan(&ended, StoreLock::For(days(35)), &catalogue, at(now));
        let newest = of_day("2026-11-22");

        let soon = plan_at("2026-11-23T12:00:00Z");
        let later = plan_at("2027-02-15T12:00:00Z");
        let much_later = plan_at("2040-01-01T12:00:00Z");

        let open = |plan: &Plan| plan.keep.values().flatten().any(|reason| reason.until == Until::Open);
        assert!(soon.keep.contains_key(&newest) && !open(&soon));
        // It stands for its month, of which there are three, and for its year.
        assert!(
            whys(&later, newest).iter().all(|why| matches!(why, Why::For(..))),
            "{:?}",
            whys(&later, newest)
        );
        assert!(later.keep.len() < soon.keep.len());
        assert_eq!((much_later.keep.len(), much_later.extend.len()), (0, 0));
        assert_eq!(much_later.delete.len(), catalogue.len());
        // As long as it goes on, the newest stays for ever.
        let goes_on = plan(&rules(), StoreLock::For(days(35)), &catalogue, at("2040-01-01T12:00:00Z"));
        assert!(whys(&goes_on, newest).contains(&Why::Newest));
    }

    #[test]
    fn a_year_that_has_no_newer_one_is_kept_beyond_its_date_with_a_lock_that_rolls() {
        let taken = at("2019-06-01T01:00:00Z");
        let newer = at("2026-11-22T01:00:00Z");
        let catalogue = Catalogue::from([(slot(taken), full(taken)), (slot(newer), full(newer))]);
        let two_years = Rules { last: 1, daily: 0, weekly: 0, monthly: 0, yearly: 2, ..rules() };
        let year = |why: &Why| matches!(why, Why::For(Period::Year, _));

        let plan = plan(&two_years, StoreLock::For(days(35)), &catalogue, at(NOON));

        assert_eq!(reason(&plan, slot(taken), year), Some(Until::Open));
        assert_eq!(plan.extend.get(&slot(taken)), Some(&after(at(NOON), days(35))));
    }

    /// Whether a backup is kept for what it is among the good ones.
    fn counts(why: &Why) -> bool {
        matches!(why, Why::Newest | Why::Last | Why::For(..))
    }

    fn state() -> impl Strategy<Value = State> {
        prop_oneof![
            8 => Just(State::Good),
            1 => Just(State::Damaged),
            1 => Just(State::Failed),
            1 => Just(State::Running),
        ]
    }

    /// Up to 60 backups of the last three years and the next days, some increments of an older one, and the time.
    fn catalogue() -> impl Strategy<Value = (Vec<(Slot, Archived)>, Timestamp)> {
        let hours = prop::collection::btree_set(-48_i64..26_000, 1..60);
        let one = (
            state(),
            prop::option::weighted(0.3, 1_usize..4),
            prop::option::weighted(0.3, -400_i64..400),
            prop::option::weighted(0.1, prop::option::of(-400_i64..400)),
            0_i64..30,
        );
        (hours, prop::collection::vec(one, 60)).prop_map(|(ages, rest)| {
            let now = at(NOON);
            let from_now = |hours: i64| Timestamp::from_second(now.as_second() + hours * 3600).unwrap();
            let slots: Vec<Slot> = ages.iter().rev().map(|hours| slot(from_now(-hours))).collect();
            let all = slots.iter().zip(rest).enumerate();
            let all = all.map(|(index, (slot, (state, back, locked, hold, late)))| {
                let parent = back.and_then(|back| slots.get(index.checked_sub(back)?)).copied();
                let backup = Archived {
                    taken: after(slot.time(), Duration::from_secs(u64::try_from(late).unwrap() * 3600)),
                    state,
                    parent,
                    locked_until: locked.map(|days| from_now(days * 24)),
                    hold: hold.map(|until| Hold {
                        reason: "held".to_owned(),
                        until: until.map(|days| from_now(days * 24)),
                    }),
                };
                (*slot, backup)
            });
            (all.collect(), now)
        })
    }

    fn any_rules() -> impl Strategy<Value = Rules> {
        let course = prop_oneof![Just(Course::GoesOn), Just(Course::HasEnded)];
        (0_usize..4, 0_usize..10, 0_usize..6, 0_usize..6, 0_usize..4, 0_u32..60, course).prop_map(
            |(last, daily, weekly, monthly, yearly, floor, course)| Rules {
                last,
                daily,
                weekly,
                monthly,
                yearly,
                floor: Floor { age: days(floor), reason: "decided".to_owned() },
                course,
                ..rules()
            },
        )
    }

    /// Of the `good` slots of a tenant that is gone those that are younger than a rule is long, by a calendar of its own:
    /// the newest of each day, week, month and year.
    fn young_enough(rules: &Rules, good: &BTreeSet<Slot>, now: Timestamp) -> BTreeSet<Slot> {
        let date = |time: Timestamp| rules.zone.to_datetime(time).date();
        let day_number = |date: Date| (date - Date::constant(1970, 1, 5)).get_days();
        let numbers = |date: Date| {
            let month = i32::from(date.year()) * 12 + i32::from(date.month());
            [day_number(date), day_number(date).div_euclid(7), month, i32::from(date.year())]
        };
        let lengths = [rules.daily, rules.weekly, rules.monthly, rules.yearly];
        let newest_first = good.iter().rev().filter(|slot| slot.time() <= now).take(rules.last).copied();
        let last = days(u32::try_from(rules.last).unwrap());
        let mut young: BTreeSet<Slot> = newest_first.filter(|slot| after(slot.time(), last) > now).collect();
        for (period, length) in lengths.into_iter().enumerate() {
            let number = |time: Timestamp| numbers(date(time))[period];
            let mut newest: BTreeMap<i32, Slot> = BTreeMap::new();
            newest.extend(
                good.iter().filter(|slot| slot.time() <= now).map(|slot| (number(slot.time()), *slot)),
            );
            let is_young = |of: &i32| usize::try_from(number(now) - of).is_ok_and(|age| age < length);
            young.extend(newest.into_iter().filter(|(of, _)| is_young(of)).map(|(_, slot)| slot));
        }
        young
    }

    /// The backups of `catalogue` that `slot` builds on.
    fn ancestors(catalogue: &Catalogue, slot: Slot) -> Vec<Slot> {
        let parent = |slot: &Slot| catalogue.get(slot)?.parent;
        let is_there = |slot: &Slot| catalogue.get(slot).is_some_and(Archived::is_committed);
        std::iter::successors(parent(&slot), parent).take_while(is_there).collect()
    }

    fn any_lock() -> impl Strategy<Value = StoreLock> {
        prop_oneof![Just(StoreLock::None), (1_u32..100).prop_map(|count| StoreLock::For(days(count)))]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_must_stay_stays(rules in any_rules(), lock in any_lock(), (backups, now) in catalogue()) {
            let catalogue: Catalogue = backups.into_iter().collect();
            let (good, _) = good(&catalogue);

            let plan = plan(&rules, lock, &catalogue, now);

            // By a count of its own: the newest good one; or what is young enough, if none comes after it.
            let staying = match rules.course {
                Course::GoesOn => good.iter().rev().find(|slot| slot.time() <= now).copied().into_iter().collect(),
                Course::HasEnded => young_enough(&rules, &good, now),
            };
            for slot in staying {
                prop_assert!(plan.keep.contains_key(&slot), "{slot} goes");
            }
            for slot in &plan.delete {
                let backup = &catalogue[slot];
                let floor_ends = after(backup.taken, rules.floor.age);
                prop_assert!(!backup.is_committed() || floor_ends <= now, "below the floor");
                let is_held = backup.hold.as_ref().is_some_and(|hold| hold.until.is_none_or(|until| until > now));
                prop_assert!(!is_held, "held");
                prop_assert!(backup.locked_until.is_none_or(|until| until <= now), "locked");
                prop_assert!(backup.state != State::Running, "running");
            }
            for slot in plan.keep.keys().chain(plan.blocked.keys()) {
                if let Some(parent) = catalogue[slot].parent {
                    prop_assert!(!plan.delete.contains(&parent) || !catalogue[&parent].is_committed(), "needed");
                }
            }
        }

        #[test]
        fn what_a_tenant_that_is_gone_left_ends_but_for_what_is_held_and_no_lock_outlives_its_date(
            rules in any_rules(),
            lock in any_lock(),
            (backups, now) in catalogue(),
        ) {
            let catalogue: Catalogue = backups.into_iter().collect();
            let rules = Rules { course: Course::HasEnded, ..rules };
            let in_a_lifetime = after(now, days(40_000));

            let today = plan(&rules, lock, &catalogue, now);
            let then = plan(&rules, lock, &carried_out(&today, &catalogue), in_a_lifetime);

            let is_for_ever = |why: &Why| matches!(why, Why::Held(_) | Why::Running | Why::NeededBy(_));
            for reason in then.keep.values().flatten() {
                prop_assert!(is_for_ever(&reason.why), "{reason:?}");
            }
            prop_assert_eq!(then.blocked, BTreeMap::new());
            let is_open = |slot: &Slot| {
                let own = |slot: &Slot| today.keep[slot].iter().any(|reason| {
                    reason.until == Until::Open && !matches!(reason.why, Why::NeededBy(_))
                });
                let builds_on = |other: &&Slot| ancestors(&catalogue, **other).contains(slot);
                own(slot) || today.keep.keys().filter(builds_on).any(own)
            };
            for (slot, until) in today.extend.iter().filter(|(slot, _)| !is_open(slot)) {
                let dates = today.keep.values().flatten().filter_map(|reason| match reason.until {
                    Until::At(date) => Some(date),
                    Until::Open => None,
                });
                let locks = catalogue.values().filter_map(|backup| backup.locked_until);
                prop_assert!(dates.chain(locks).any(|date| date == *until), "{slot} until {until}");
            }
        }

        #[test]
        fn every_backup_stands_in_exactly_one_place(
            rules in any_rules(),
            lock in any_lock(),
            (backups, now) in catalogue(),
        ) {
            let catalogue: Catalogue = backups.into_iter().collect();

            let plan = plan(&rules, lock, &catalogue, now);

            let places = plan.keep.len() + plan.delete.len() + plan.blocked.len();
            let all: BTreeSet<_> =
                plan.keep.keys().chain(&plan.delete).chain(plan.blocked.keys()).copied().collect();
            prop_assert_eq!(places, catalogue.len());
            prop_assert!(all.iter().eq(catalogue.keys()));
        }

        #[test]
        fn carried_out_it_has_nothing_more_to_do(
            rules in any_rules(),
            lock in any_lock(),
            (backups, now) in catalogue(),
        ) {
            let catalogue: Catalogue = backups.into_iter().collect();
            let first = plan(&rules, lock, &catalogue, now);

            let second = plan(&rules, lock, &carried_out(&first, &catalogue), now);

            prop_assert_eq!(second.delete, vec![]);
            prop_assert_eq!(second.extend, BTreeMap::new());
            prop_assert_eq!(second.keep, first.keep);
        }

        #[test]
        fn the_order_of_the_catalogue_does_not_matter(
            rules in any_rules(),
            lock in any_lock(),
            (backups, shuffled, now) in catalogue().prop_flat_map(|(backups, now)| {
                (Just(backups.clone()), Just(backups).prop_shuffle(), Just(now))
            }),
        ) {
            let one: Catalogue = backups.into_iter().collect();
            let other: Catalogue = shuffled.into_iter().collect();

            prop_assert_eq!(plan(&rules, lock, &one, now), plan(&rules, lock, &other, now));
        }

        #[test]
        fn a_newer_backup_brings_no_older_one_back(
            rules in any_rules(),
            lock in any_lock(),
            (backups, now) in catalogue(),
        ) {
            let mut catalogue: Catalogue = backups.into_iter().collect();
            let before = plan(&rules, lock, &catalogue, now);
            let newer = slot(after(now, days(3)));
            let later = newer.time();
            catalogue.insert(newer, full(later));

            let then = plan(&rules, lock, &catalogue, now);
            let after = plan(&rules, lock, &catalogue, later);

            // Kept for its own sake, that is: a slot whose time had not come counts only then.
            let future: BTreeSet<_> = catalogue.keys().filter(|slot| slot.time() > now).collect();
            for slot in &before.delete {
                prop_assert!(!then.keep.contains_key(slot));
                if future.len() == 1 {
                    prop_assert!(!after.keep.contains_key(slot), "{slot} came back");
                }
            }
        }

        #[test]
        fn what_is_not_good_counts_for_nothing(rules in any_rules(), (backups, now) in catalogue()) {
            let catalogue: Catalogue = backups.into_iter().collect();
            let (good, _) = good(&catalogue);

            let plan = plan(&rules, StoreLock::None, &catalogue, now);

            for (slot, reasons) in &plan.keep {
                let counts = reasons.iter().any(|reason| counts(&reason.why));
                prop_assert!(!counts || good.contains(slot));
            }
            // Without what is not good, the good ones that count are the same.
            let mut only_good = catalogue;
            only_good.retain(|slot, _| good.contains(slot));
            let again = super::plan(&rules, StoreLock::None, &only_good, now);
            for slot in &good {
                let counting = |plan: &Plan| whys(plan, *slot).into_iter().filter(counts).collect::<Vec<_>>();
                prop_assert_eq!(counting(&plan), counting(&again));
            }
        }

        #[test]
        fn what_is_kept_without_a_date_is_locked_until_the_next_look_however_late_that_is(
            rules in any_rules(),
            length in prop_oneof![2_u32..8, 2_u32..100],
            gaps in prop::collection::vec(0_u64..=48, 5),
            (backups, now) in catalogue(),
        ) {
            let mut catalogue: Catalogue = backups.into_iter().collect();
            let mut now = now;

            // The first look finds what it finds; what it leaves behind holds until the second, and so on.
            for hours in gaps {
                let plan = plan(&rules, StoreLock::For(days(length)), &catalogue, now);
                catalogue = carried_out(&plan, &catalogue);
                now = after(now, Duration::from_secs(hours * 3600));
                let is_open = |reason: &Reason| {
                    reason.until == Until::Open && !matches!(reason.why, Why::NeededBy(_))
                };
                let open = plan.keep.iter().filter(|(slot, reasons)| {
                    catalogue[slot].is_committed() && reasons.iter().any(is_open)
                });
                let open = open.flat_map(|(slot, _)| {
                    ancestors(&catalogue, *slot).into_iter().chain([*slot])
                });
                for slot in open.filter(|slot| catalogue[slot].is_committed()) {
                    let locked_until = catalogue[&slot].locked_until;
                    prop_assert!(locked_until >= Some(now), "{slot} is free since {locked_until:?}, at {now}");
                }
            }
        }

        #[test]
        fn a_lock_is_only_ever_made_longer_and_an_increment_never_outlives_its_parents(
            rules in any_rules(), length in 1_u32..100, (backups, now) in catalogue(),
        ) {
            let catalogue: Catalogue = backups.into_iter().collect();

            let plan = plan(&rules, StoreLock::For(days(length)), &catalogue, now);

            for (slot, until) in &plan.extend {
                prop_assert!(*until > now);
                prop_assert!(catalogue[slot].locked_until.is_none_or(|locked| locked < *until));
                prop_assert!(plan.keep.contains_key(slot));
            }
            let then = carried_out(&plan, &catalogue);
            for (slot, backup) in then.iter().filter(|(slot, _)| plan.keep.contains_key(slot)) {
                let Some(parent) = backup.parent.and_then(|parent| then.get(&parent)) else { continue };
                if backup.is_committed() && parent.is_committed() {
                    let child_locked = backup.locked_until.unwrap_or(Timestamp::MIN);
                    let parent_locked = parent.locked_until.unwrap_or(Timestamp::MIN);
                    let is_long_enough = after(parent_locked, EXTENSION_MIN) >= child_locked;
                    prop_assert!(is_long_enough || child_locked <= now, "{slot}");
                }
            }
        }
    }
}
