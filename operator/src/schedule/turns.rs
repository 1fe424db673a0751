//! The slots around one moment, found once for all tenants that share a schedule.

use jiff::Timestamp;
use valv_crds::Slot;

use super::{Due, Schedule};

/// What [`Schedule::due`] says at one moment, without asking the calendar anew for each tenant.
#[derive(Clone, Debug)]
pub struct Turns<'a> {
    schedule: &'a Schedule,
    now: Timestamp,
    /// Those that may be the newest for somebody, and the one after them; in order.
    slots: Vec<Slot>,
}

impl<'a> Turns<'a> {
    /// The turns of `schedule` at `now`.
    pub fn new(schedule: &'a Schedule, now: Timestamp) -> Self {
        let first = now.saturating_sub(schedule.window).unwrap_or(Timestamp::MIN);
        let newest = schedule.newest(first);
        let mut slots: Vec<_> = newest.into_iter().collect();
        let mut last = newest.map_or(first, Slot::time);
        while let Some(next) = schedule.next(last) {
            slots.push(next);
            last = next.time();
            if last > now {
                break;
            }
        }
        Self { schedule, now, slots }
    }

    /// As [`Schedule::due`] at this moment.
    pub fn due(&self, tenant: &str, taken_on: Timestamp) -> Due {
        let turn = self.now.saturating_sub(self.schedule.delay(tenant)).unwrap_or(Timestamp::MIN);
        let come = self.slots.partition_point(|slot| slot.time() <= turn);
        let newest = come.checked_sub(1).and_then(|index| self.slots.get(index).copied());
        if let Some(slot) = newest.filter(|slot| slot.time() > taken_on) {
            return Due::Now { slot, missed: self.schedule.missed(taken_on, slot) };
        }
        let after = self.slots.partition_point(|slot| slot.time() <= taken_on);
        let next = match self.slots.get(after).copied() {
            // Before the first there may be others that are not here.
            Some(slot) if after > 0 => Some(slot),
            _ => self.schedule.next(taken_on),
        };
        next.map_or(Due::Never, |slot| Due::At { slot, start: self.schedule.start(slot, tenant) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn found_once_for_all_is_as_found_for_each(
            line in prop::sample::select(vec!["0 1 * * *", "*/20 * * * *", "30 2 1 * *", "0 3 * * SUN", "* * * * *"]),
            zone in prop::sample::select(vec!["Europe/Stockholm", "Australia/Lord_Howe", "UTC"]),
            window in 0_u64..86_400,
            now in 1_104_537_600_i64..2_051_222_400,
            ago in -100_000_i64..400_000,
            tenants in prop::collection::vec("[a-z]{1,12}", 1..8),
        ) {
            let hour = Duration::from_secs(3600);
            let schedule = Schedule::new(line, zone, Duration::from_secs(window), hour).unwrap();
            let taken_on = Timestamp::from_second(now - ago).unwrap();
            let now = Timestamp::from_second(now).unwrap();

            let turns = Turns::new(&schedule, now);

            for tenant in tenants {
                prop_assert_eq!(turns.due(&tenant, taken_on), schedule.due(&tenant, taken_on, now));
            }
        }
    }

    #[test]
    fn the_calendar_ends_for_all_as_for_each() {
        let daily = Schedule::new("0 1 * * *", "UTC", Duration::ZERO, Duration::ZERO).unwrap();

        assert_eq!(Turns::new(&daily, Timestamp::MAX).due("ada", Timestamp::MAX), Due::Never);
    }
}
