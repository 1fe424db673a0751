//! Decides which slot of a schedule is due.
//!
//! Input: a schedule, the tenant, the newest slot that was taken on, the time. Output: the slot to run, those that
//! were missed, or when to look again.
//! Pure: no client, no clock, no randomness, and no time zones but those compiled in, so that two operators of one
//! version never disagree. Same input, same slot.
//!
//! # The calendar
//! `croner` finds the next and the last matching time, in local time without any zone. What daylight saving does to
//! it is decided here, since `croner` lets a wildcard run in neither or both of the hours concerned:
//!
//! - a time in an hour that is skipped is due at the moment the clocks move on. Two such times are one slot;
//! - a time in an hour that is repeated is due the first time, and not the second.
//!
//! So each is due exactly once, and later local times are never due earlier.
//!
//! # The slot and its start
//! The slot is what the calendar says, and names things. Each tenant *starts* a while after it, spread over the
//! window. Another window moves the start, not the slot: nothing runs twice because a policy was edited.

pub mod turns;

use std::time::Duration;

use croner::{
    Cron,
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};
use sha2::{Digest, Sha256};
use valv_crds::{Slot, schedule};

/// How many missed slots are listed, at most: a status has little room.
pub const MISSED_LISTED: usize = 20;

/// When something is due, for every tenant that shares it.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    window: Duration,
    deadline: Duration,
}

/// What is due for one tenant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Due {
    /// This slot is to be run now.
    Now {
        /// The newest slot whose start has come.
        slot: Slot,
        /// Older slots that were not run and will not be.
        missed: Missed,
    },
    /// Nothing is, until this slot starts.
    At {
        /// The next slot.
        slot: Slot,
        /// When it starts for this tenant.
        start: Timestamp,
    },
    /// Nothing is, ever again: the calendar of computers ends.
    Never,
}

/// Slots that were not run: the operator was away, and a newer one was due when it came back.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Missed {
    /// The newest [`MISSED_LISTED`] of them, oldest first.
    pub listed: Vec<Slot>,
    /// The oldest, if there are more than are listed.
    pub oldest: Option<Slot>,
}

/// A schedule cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The line is not five fields of cron.
    #[error("failed to read the cron line {line:?}")]
    Cron {
        /// The line.
        line: String,
        /// Where it fails.
        source: CronError,
    },
    /// The calendar never comes round.
    #[error("failed to find any time that the cron line {line:?} matches")]
    NeverDue {
        /// The line.
        line: String,
    },
    /// The zone is not in the database that is compiled in.
    #[error("failed to find the time zone {name:?}")]
    TimeZone {
        /// The name.
        name: String,
        /// Why.
        source: jiff::Error,
    },
}

impl TryFrom<&schedule::Schedule> for Schedule {
    type Error = ScheduleError;

    fn try_from(spec: &schedule::Schedule) -> Result<Self, ScheduleError> {
        Self::new(&spec.cron, &spec.time_zone, spec.window.duration(), spec.deadline.duration())
    }
}

impl Schedule {
    /// The schedule of the cron line `line` in the time zone `zone`, spread over `window`, with `deadline` for each
    /// run.
    ///
    /// # Errors
    /// By what cannot be read; [`ScheduleError::NeverDue`] for a line such as `0 1 30 2 *`.
    pub fn new(line: &str, zone: &str, window: Duration, deadline: Duration) -> Result<Self, ScheduleError> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron =
            parser.parse(line).map_err(|source| ScheduleError::Cron { line: line.to_owned(), source })?;
        let schedule = Self { cron, zone: time_zone(zone)?, window, deadline };
        // Whatever comes round at all does so within the calendar's cycle of 400 years.
        match schedule.cron.find_next_occurrence(&DateTime::constant(2000, 1, 1, 0, 0, 0, 0), true) {
            Ok(_) => Ok(schedule),
            Err(_) => Err(ScheduleError::NeverDue { line: line.to_owned() }),
        }
    }

    /// The first slot after `after`; none when the calendar of computers ends.
    pub fn next(&self, after: Timestamp) -> Option<Slot> {
        let passed = self.passed(after);
        let next = self.cron.find_next_occurrence(&passed, false).ok()?;
        self.slot(next)
    }

    /// The newest slot at or before `at`; none when it began too late for that.
    pub fn newest(&self, at: Timestamp) -> Option<Slot> {
        let passed = self.passed(at);
        let newest = self.cron.find_previous_occurrence(&passed, true).ok()?;
        self.slot(newest)
    }

    /// When `slot` starts for `tenant`: a while after it, within the window, the same while for every slot.
    pub fn start(&self, slot: Slot, tenant: &str) -> Timestamp {
        slot.time().saturating_add(self.delay(tenant)).unwrap_or(Timestamp::MAX)
    }

    /// When a run that began at `begun` has failed, if it has not ended.
    pub fn deadline(&self, begun: Timestamp) -> Timestamp {
        begun.saturating_add(self.deadline).unwrap_or(Timestamp::MAX)
    }

    /// What is due for `tenant` at `now`, when `taken_on` is the newest slot that was taken on, or the moment that the
    /// tenant was made if none was. Slots before that are nobody's: a first backup at once is for the caller to ask.
    ///
    /// # Guarantees
    /// The slot is later than `taken_on`, and its start has come: asked again with the slot as `taken_on`, it is
    /// never given again, also if a clock was wrong in between. Of slots that passed, the newest is caught up, and
    /// the others are missed.
    pub fn due(&self, tenant: &str, taken_on: Timestamp, now: Timestamp) -> Due {
        let turn = now.saturating_sub(self.delay(tenant)).unwrap_or(Timestamp::MIN);
        match self.newest(turn) {
            Some(slot) if slot.time() > taken_on => Due::Now { slot, missed: self.missed(taken_on, slot) },
            Some(_) | None => self
                .next(taken_on)
                .map_or(Due::Never, |slot| Due::At { slot, start: self.start(slot, tenant) }),
        }
    }

    /// The slots between `after` and `before`, neither included.
    pub fn missed(&self, after: Timestamp, before: Slot) -> Missed {
        let older = |slot: Slot| {
            let just_before = slot.time().saturating_sub(Duration::from_secs(1)).unwrap_or(Timestamp::MIN);
            self.newest(just_before).filter(|slot| slot.time() > after)
        };
        let mut listed: Vec<_> =
            std::iter::successors(older(before), |slot| older(*slot)).take(MISSED_LISTED).collect();
        listed.reverse();
        let oldest = self.next(after).filter(|oldest| listed.first().is_some_and(|listed| oldest < listed));
        Missed { listed, oldest }
    }

    /// How long after a slot `tenant` starts: a share of the window that its name alone decides.
    fn delay(&self, tenant: &str) -> Duration {
        let digest = Sha256::digest(tenant.as_bytes());
        let head = digest.iter().take(8).fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
        let seconds = (head * u128::from(self.window.as_secs())) >> 64;
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }

    /// The latest local time that has come at `at`.
    ///
    /// It is not always what clocks show: where they were put back, all that they showed before has come.
    fn passed(&self, at: Timestamp) -> DateTime {
        let second = Slot::at(at).map_or(at, Slot::time);
        let shown = self.zone.to_datetime(second);
        let put_back = self.transition(second).and_then(|transition| {
            let last_second_before = transition.checked_sub(Duration::from_secs(1)).ok()?;
            Some(self.zone.to_datetime(last_second_before))
        });
        put_back.map_or(shown, |before| before.max(shown))
    }

    /// When clocks were last changed, at or before `at`.
    fn transition(&self, at: Timestamp) -> Option<Timestamp> {
        let just_after = at.checked_add(Duration::from_secs(1)).ok()?;
        self.zone.preceding(just_after).map(|change| change.timestamp()).find(|time| *time <= at)
    }

    /// The slot of a local time.
    fn slot(&self, local: DateTime) -> Option<Slot> {
        let time = match self.zone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok()?,
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok()?,
            // With the offset of before, the skipped time is one after the change: the change is what came last.
            AmbiguousOffset::Gap { before, .. } => {
                let after_the_change = before.to_timestamp(local).ok()?;
                self.transition(after_the_change).unwrap_or(after_the_change)
            }
        };
        Slot::at(time).ok()
    }
}

/// The time zone called `name`, of the database that is compiled in.
///
/// # Errors
/// [`ScheduleError::TimeZone`] if it is not there.
pub fn time_zone(name: &str) -> Result<TimeZone, ScheduleError> {
    TimeZoneDatabase::bundled()
        .get(name)
        .map_err(|source| ScheduleError::TimeZone { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::{civil::Date, tz::Offset};
    use proptest::prelude::*;

    use super::*;

    /// Zones that change their clocks at one, two and three in the morning, at midnight, by half an hour, and never.
    /// São Paulo changed at midnight until 2019, Santiago does still.
    const ZONES: [&str; 8] = [
        "Europe/Stockholm",
        "Europe/Lisbon",
        "America/Sao_Paulo",
        "America/Santiago",
        "America/Havana",
        "Australia/Lord_Howe",
        "Africa/Casablanca",
        "UTC",
    ];

    const HOUR: Duration = Duration::from_secs(3600);

    fn schedule(line: &str, zone: &str) -> Schedule {
        Schedule::new(line, zone, 3 * HOUR, 2 * HOUR).unwrap()
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn slots(schedule: &Schedule, from: &str, to: &str) -> Vec<String> {
        let just_before = at(from).checked_sub(Duration::from_secs(1)).unwrap();
        let all = std::iter::successors(schedule.next(just_before), |slot| schedule.next(slot.time()));
        all.take_while(|slot| slot.time() < at(to)).map(|slot| slot.to_string()).collect()
    }

    /// A line of cron that comes round.
    fn line() -> impl Strategy<Value = String> {
        let number = |numbers: std::ops::Range<u32>| numbers.prop_map(|number| number.to_string());
        let minute = prop_oneof![Just("*".to_owned()), Just("*/20".to_owned()), number(0..60)];
        let hour =
            prop_oneof![Just("*".to_owned()), Just("*/3".to_owned()), Just("0-3".to_owned()), number(0..24)];
        let day = prop_oneof![Just("*".to_owned()), Just("1,15".to_owned()), number(1..29)];
        let weekday = prop_oneof![Just("*".to_owned()), Just("MON-FRI".to_owned()), number(0..8)];
        (minute, hour, day, weekday)
            .prop_map(|(minute, hour, day, weekday)| format!("{minute} {hour} {day} * {weekday}"))
    }

    fn zone() -> impl Strategy<Value = &'static str> {
        prop::sample::select(ZONES.to_vec())
    }

    /// A moment between 2005 and 2035, often close to a change of clocks in one of the zones.
    fn moment() -> impl Strategy<Value = Timestamp> {
        let far = 1_104_537_600_i64..2_051_222_400;
        let near = (zone(), far.clone(), -9000_i64..9000).prop_map(|(zone, second, off)| {
            let zone = time_zone(zone).unwrap();
            let after = Timestamp::from_second(second).unwrap();
            let change = zone.following(after).next().map_or(after, |change| change.timestamp());
            change.as_second() + off
        });
        prop_oneof![far, near].prop_map(|second| Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_daily_slot_in_the_lost_hour_runs_when_the_clocks_have_moved_on() {
        let daily = schedule("30 2 * * *", "Europe/Stockholm");

        let found = slots(&daily, "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z");

        // On the 29th there is no half past two: clocks go from 02:00 to 03:00, which is 01:00 UTC.
        assert_eq!(found, ["20260328T013000Z", "20260329T010000Z", "20260330T003000Z"]);
    }

    #[test]
    fn a_daily_slot_in_the_doubled_hour_runs_the_first_time() {
        let daily = schedule("30 2 * * *", "Europe/Stockholm");

        let found = slots(&daily, "2026-10-24T00:00:00Z", "2026-10-27T00:00:00Z");

        assert_eq!(found, ["20261024T003000Z", "20261025T003000Z", "20261026T013000Z"]);
    }

    #[test]
    fn an_hourly_slot_runs_once_for_every_hour_that_clocks_show() {
        let hourly = schedule("0 * * * *", "Europe/Stockholm");

        let spring = slots(&hourly, "2026-03-29T00:00:00Z", "2026-03-29T03:00:00Z");
        let autumn = slots(&hourly, "2026-10-25T00:00:00Z", "2026-10-25T03:00:00Z");

        // Spring: 01:00, then 03:00, for which 02:00 also counts. Autumn: 02:00 once, then 03:00.
        assert_eq!(spring, ["20260329T000000Z", "20260329T010000Z", "20260329T020000Z"]);
        assert_eq!(autumn, ["20261025T000000Z", "20261025T020000Z"]);
    }

    #[test]
    fn a_slot_at_a_midnight_that_does_not_exist_runs_that_day() {
        let daily = schedule("15 0 * * *", "America/Sao_Paulo");

        let found = slots(&daily, "2018-11-03T00:00:00Z", "2018-11-06T00:00:00Z");

        // On 4 November 2018 clocks went from 00:00 to 01:00, which is 03:00 UTC.
        assert_eq!(found, ["20181103T031500Z", "20181104T030000Z", "20181105T021500Z"]);
    }

    #[test]
    fn a_daily_schedule_has_exactly_one_slot_on_each_local_day_of_twenty_years() {
        for zone in ZONES {
            for line in ["0 0 * * *", "15 0 * * *", "30 1 * * *", "30 2 * * *", "0 3 * * *", "59 23 * * *"] {
                let daily = schedule(line, zone);
                let zone = time_zone(zone).unwrap();
                let last = Date::constant(2030, 1, 1);
                let mut day = Date::constant(2010, 1, 1);
                let mut slot = daily.next(at("2009-12-31T00:00:00Z")).unwrap();
                while zone.to_datetime(slot.time()).date() < day {
                    slot = daily.next(slot.time()).unwrap();
                }

                while day < last {
                    let local = zone.to_datetime(slot.time());
                    assert_eq!(local.date(), day, "{line} in {zone:?}");
                    assert_eq!(daily.newest(slot.time()), Some(slot));
                    slot = daily.next(slot.time()).unwrap();
                    day = day.tomorrow().unwrap();
                }
            }
        }
    }

    #[test]
    fn only_the_newest_of_the_slots_that_passed_is_caught_up() {
        let daily = schedule("0 1 * * *", "UTC");
        let taken_on = at("2026-11-20T01:00:00Z");

        let due = daily.due("ada", taken_on, at("2026-11-24T12:00:00Z"));

        let missed: Vec<Slot> = ["20261121T010000Z", "20261122T010000Z", "20261123T010000Z"]
            .map(|slot| slot.parse().unwrap())
            .to_vec();
        let expected = Due::Now {
            slot: "20261124T010000Z".parse().unwrap(),
            missed: Missed { listed: missed, oldest: None },
        };
        assert_eq!(due, expected);
    }

    #[test]
    fn of_many_missed_slots_the_newest_are_listed_and_the_oldest_is_named() {
        let hourly = schedule("0 * * * *", "UTC");

        let Due::Now { missed, .. } =
            hourly.due("ada", at("2025-01-01T00:00:00Z"), at("2026-01-01T23:59:00Z"))
        else {
            panic!("something is due");
        };

        assert_eq!(missed.listed.len(), MISSED_LISTED);
        assert!(missed.listed.is_sorted());
        assert_eq!(missed.oldest.unwrap().to_string(), "20250101T010000Z");
    }

    #[test]
    fn a_slot_is_not_due_before_the_tenants_turn_in_the_window() {
        let daily = schedule("0 1 * * *", "UTC");
        let slot: Slot = "20261122T010000Z".parse().unwrap();
        let start = daily.start(slot, "ada");
        let yesterday = at("2026-11-21T01:00:00Z");
        let second = Duration::from_secs(1);

        let before = daily.due("ada", yesterday, start.checked_sub(second).unwrap());
        let then = daily.due("ada", yesterday, start);

        assert_eq!(before, Due::At { slot, start });
        assert_eq!(then, Due::Now { slot, missed: Missed::default() });
        assert_eq!(daily.deadline(start), start.checked_add(2 * HOUR).unwrap());
    }

    #[test]
    fn a_slot_that_a_wrong_clock_took_on_early_is_not_run_again() {
        let daily = schedule("0 1 * * *", "UTC");
        let tomorrow: Slot = "20261123T010000Z".parse().unwrap();

        let due = daily.due("ada", tomorrow.time(), at("2026-11-22T12:00:00Z"));

        let next: Slot = "20261124T010000Z".parse().unwrap();
        assert_eq!(due, Due::At { slot: next, start: daily.start(next, "ada") });
    }

    #[test]
    fn tenants_are_spread_evenly_over_the_window_and_always_at_the_same_place() {
        let daily = schedule("0 1 * * *", "UTC");
        let slot: Slot = "20261122T010000Z".parse().unwrap();
        let mut buckets = [0_u32; 36];

        for tenant in 0..10_000 {
            let delay = daily.start(slot, &format!("tenant-{tenant}")).duration_since(slot.time());
            assert!((0..3 * 3600).contains(&delay.as_secs()));
            buckets[usize::try_from(delay.as_secs()).unwrap() / 300] += 1;
        }

        // 10,000 in 36 buckets: chi square with 35 degrees of freedom is below 66.6 with probability 0.999.
        let expected = 10_000.0 / 36.0;
        let chi_square: f64 =
            buckets.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
        assert!(chi_square < 66.6, "{chi_square}: {buckets:?}");
        // All operators agree on this number, of any version: a change moves every tenant.
        assert_eq!(daily.delay("ostra-vardcentralen"), Duration::from_secs(10252));
    }

    #[test]
    fn what_cannot_be_followed_is_refused_with_the_reason() {
        let new = |line, zone| Schedule::new(line, zone, HOUR, HOUR).unwrap_err();

        assert!(matches!(new("0 1 * *", "UTC"), ScheduleError::Cron { .. }));
        assert!(matches!(new("0 0 1 * * *", "UTC"), ScheduleError::Cron { .. }));
        assert!(matches!(new("0 25 * * *", "UTC"), ScheduleError::Cron { .. }));
        assert!(matches!(new("0 1 30 2 *", "UTC"), ScheduleError::NeverDue { .. }));
        assert!(matches!(new("0 1 * * *", "Europe/Atlantis"), ScheduleError::TimeZone { .. }));
    }

    #[test]
    fn a_leap_day_comes_round() {
        let found = slots(&schedule("0 1 29 2 *", "UTC"), "2026-01-01T00:00:00Z", "2033-01-01T00:00:00Z");

        assert_eq!(found, ["20280229T010000Z", "20320229T010000Z"]);
    }

    #[test]
    fn the_calendar_of_computers_ends_without_a_panic() {
        let daily = schedule("0 1 * * *", "Europe/Stockholm");

        assert_eq!(daily.due("ada", Timestamp::MAX, Timestamp::MAX), Due::Never);
        assert_eq!(daily.newest(Timestamp::MIN), None);
        assert!(daily.next(at("2600-01-01T00:00:00Z")).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_next_slot_is_later_and_none_lies_between(line in line(), zone in zone(), after in moment()) {
            let schedule = schedule(&line, zone);

            let next = schedule.next(after).unwrap();
            let just_before = next.time().checked_sub(Duration::from_secs(1)).unwrap();

            prop_assert!(next.time() > after);
            prop_assert_eq!(schedule.newest(next.time()), Some(next));
            // Nothing between: the newest before the next is not after where we began.
            prop_assert!(schedule.newest(just_before).unwrap().time() <= after);
        }

        #[test]
        fn slots_are_monotone(line in line(), zone in zone(), one in moment(), other in moment()) {
            let schedule = schedule(&line, zone);
            let (early, late) = (one.min(other), one.max(other));

            prop_assert!(schedule.next(early) <= schedule.next(late));
            prop_assert!(schedule.newest(early) <= schedule.newest(late));
        }

        #[test]
        fn every_local_time_that_matches_has_a_slot(line in line(), zone in zone(), near in moment()) {
            let schedule = schedule(&line, zone);
            let zone = time_zone(zone).unwrap();
            let from = zone.to_datetime(near);

            // Local times, in their order and without any zone, as a calendar on a wall has them.
            let mut local = from;
            let mut expected = BTreeSet::new();
            for _ in 0..12 {
                local = schedule.cron.find_next_occurrence(&local, false).unwrap();
                expected.insert(schedule.slot(local).unwrap());
            }
            let first = *expected.first().unwrap();
            let last = *expected.last().unwrap();
            let just_before = first.time().checked_sub(Duration::from_secs(1)).unwrap();
            let all = std::iter::successors(schedule.next(just_before), |slot| schedule.next(slot.time()));
            let found: BTreeSet<_> = all.take_while(|slot| *slot <= last).collect();

            prop_assert_eq!(found, expected);
        }

        #[test]
        fn what_is_due_has_come_and_is_due_once(
            line in line(),
            zone in zone(),
            one in moment(),
            other in moment(),
            tenant in "[a-z]{1,40}",
            later in 0_u64..600,
        ) {
            let schedule = schedule(&line, zone);
            let (taken_on, now) = (one.min(other), one.max(other));

            let due = schedule.due(&tenant, taken_on, now);

            prop_assert_eq!(&due, &schedule.due(&tenant, taken_on, now));
            match due {
                Due::Now { slot, missed } => {
                    prop_assert!(schedule.start(slot, &tenant) <= now);
                    prop_assert!(slot.time() > taken_on);
                    prop_assert!(missed.listed.iter().all(|old| *old < slot && old.time() > taken_on));
                    prop_assert!(missed.listed.is_sorted());
                    // The same moment and every one up to the next start: nothing more.
                    let Due::At { slot: next, start } = schedule.due(&tenant, slot.time(), now) else {
                        return Err(TestCaseError::fail("it is due twice"));
                    };
                    prop_assert!(next > slot && start > now);
                    // A look a little later, by an operator that crashed before it noted the slot: the same slot.
                    let again = now.checked_add(Duration::from_secs(later)).unwrap();
                    if again < start {
                        let due = schedule.due(&tenant, taken_on, again);
                        let is_same = matches!(due, Due::Now { slot: same, .. } if same == slot);
                        prop_assert!(is_same);
                    }
                }
                Due::At { slot, start } => {
                    prop_assert!(slot.time() > taken_on);
                    prop_assert!(start > now);
                    prop_assert_eq!(start, schedule.start(slot, &tenant));
                }
                Due::Never => return Err(TestCaseError::fail("the calendar goes on")),
            }
        }

        #[test]
        fn the_slot_does_not_depend_on_the_window(
            line in line(),
            zone in zone(),
            after in moment(),
            hours in 0_u32..24,
        ) {
            let one = schedule(&line, zone);
            let other = Schedule::new(&line, zone, hours * HOUR, HOUR).unwrap();

            prop_assert_eq!(one.next(after), other.next(after));
        }
    }

    #[test]
    fn the_zones_are_those_that_were_compiled_in() {
        let stockholm = time_zone("Europe/Stockholm").unwrap();

        assert_eq!(stockholm.to_offset(at("2026-07-01T00:00:00Z")), Offset::constant(2));
        assert_eq!(stockholm.to_offset(at("2026-01-01T00:00:00Z")), Offset::constant(1));
    }
}
