//! Decides whose slot has come. Pure.

use std::time::Duration;

use jiff::Timestamp;
use valv_crds::Slot;

use crate::schedule::{Due, Missed, Schedule, turns::Turns};

/// The longest time between two looks: stores and tenants come and go.
pub const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The shortest: of ten thousand tenants over six hours one starts every two seconds, and each look goes through all.
pub const SHORTEST: Duration = Duration::from_secs(10);

/// A tenant that has the policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Protected {
    /// Its name.
    pub tenant: String,
    /// When it was made: no slot before that is its.
    pub made: Timestamp,
    /// The newest slot that was taken on.
    pub taken_on: Option<Slot>,
    /// Whether its database is to run. One that rests has nothing new, and its slots pass.
    pub is_awake: bool,
}

/// A backup that is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Order {
    /// Whose.
    pub tenant: String,
    /// For which slot.
    pub slot: Slot,
    /// Slots after the one that was taken on before, that nobody ran.
    pub missed: Missed,
}

/// What is done now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Backups to make.
    pub orders: Vec<Order>,
    /// When to look again.
    pub look_again_after: Duration,
}

/// The plan for all that have the policy with `schedule`, at `now`.
///
/// Whether the policy's stores are ready makes no difference: a backup that cannot be made yet waits and says why, and
/// a slot that nobody took on says nothing.
pub fn plan(schedule: &Schedule, protected: &[Protected], now: Timestamp) -> Plan {
    let turns = Turns::new(schedule, now);
    let mut plan = Plan { orders: vec![], look_again_after: LOOK_AGAIN };
    for one in protected.iter().filter(|one| one.is_awake) {
        let taken_on = one.taken_on.map_or(one.made, |slot| slot.time().max(one.made));
        match turns.due(&one.tenant, taken_on) {
            Due::Now { slot, missed } => {
                // Before the first one nobody asked for any.
                let missed = if one.taken_on.is_some() { missed } else { Missed::default() };
                plan.orders.push(Order { tenant: one.tenant.clone(), slot, missed });
            }
            Due::At { start, .. } => {
                let until = Duration::try_from(start.duration_since(now)).unwrap_or_default();
                // Not before: a look a little early would find nothing, and come again.
                plan.look_again_after = plan.look_again_after.min(until + Duration::from_millis(10));
            }
            Due::Never => {}
        }
    }
    plan.look_again_after = plan.look_again_after.max(SHORTEST);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn schedule(window: Duration) -> Schedule {
        Schedule::new("0 1 * * *", "UTC", window, HOUR).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn protected(taken_on: &str) -> Protected {
        let slot = Slot::at(at(taken_on)).unwrap();
        Protected {
            tenant: "ada".into(),
            made: at("2026-01-01T00:00:00Z"),
            taken_on: Some(slot),
            is_awake: true,
        }
    }

    #[test]
    fn a_slot_is_ordered_once() {
        let now = at("2026-11-22T01:00:00Z");
        let before = protected("2026-11-21T01:00:00Z");

        let first = plan(&schedule(Duration::ZERO), std::slice::from_ref(&before), now);
        let slot = first.orders[0].slot;
        let after = Protected { taken_on: Some(slot), ..before };
        let second = plan(&schedule(Duration::ZERO), &[after], now);

        assert_eq!(slot.to_string(), "20261122T010000Z");
        assert_eq!(first.orders[0].missed, Missed::default());
        assert_eq!(second.orders, []);
    }

    #[test]
    fn of_slots_that_passed_the_newest_is_ordered_and_the_others_are_missed() {
        let plan =
            plan(&schedule(Duration::ZERO), &[protected("2026-11-18T01:00:00Z")], at("2026-11-22T09:00:00Z"));

        let missed: Vec<_> = plan.orders[0].missed.listed.iter().map(ToString::to_string).collect();
        assert_eq!(plan.orders[0].slot.to_string(), "20261122T010000Z");
        assert_eq!(missed, ["20261119T010000Z", "20261120T010000Z", "20261121T010000Z"]);
    }

    #[test]
    fn a_tenant_that_was_never_backed_up_begins_with_the_newest_slot_and_has_missed_none() {
        let new = Protected { taken_on: None, ..protected("2026-01-01T01:00:00Z") };
        let newer = Protected { made: at("2026-11-22T08:00:00Z"), ..new.clone() };

        let plan = plan(&schedule(Duration::ZERO), &[new, newer], at("2026-11-22T09:00:00Z"));

        let slots: Vec<_> = plan.orders.iter().map(|order| order.slot.to_string()).collect();
        assert_eq!(slots, ["20261122T010000Z"], "no slot before it was made is a tenant's");
        assert_eq!(plan.orders[0].missed, Missed::default());
    }

    #[test]
    fn a_tenant_that_rests_is_not_backed_up_and_its_slots_pass() {
        let resting = Protected { is_awake: false, ..protected("2026-11-18T01:00:00Z") };

        assert_eq!(plan(&schedule(Duration::ZERO), &[resting], at("2026-11-22T09:00:00Z")).orders, []);
    }

    #[test]
    fn the_next_look_is_when_the_next_tenant_s_turn_comes() {
        let now = at("2026-11-22T00:59:45Z");

        let plan = plan(&schedule(Duration::ZERO), &[protected("2026-11-21T01:00:00Z")], now);

        assert_eq!(plan.look_again_after, Duration::from_millis(15_010));
    }

    #[test]
    fn ten_thousand_tenants_over_a_window_are_looked_at_every_ten_seconds_and_no_oftener() {
        let now = at("2026-11-22T01:30:00Z");
        let all: Vec<_> = (0..10_000)
            .map(|number| Protected { tenant: format!("t{number}"), ..protected("2026-11-21T01:00:00Z") })
            .collect();

        let plan = plan(&schedule(6 * HOUR), &all, now);

        assert_eq!(plan.look_again_after, SHORTEST);
    }

    #[test]
    fn over_a_window_tenants_start_one_after_the_other() {
        let now = at("2026-11-22T01:30:00Z");
        let all: Vec<_> = (0..200)
            .map(|number| Protected { tenant: format!("t{number}"), ..protected("2026-11-21T01:00:00Z") })
            .collect();

        let due = plan(&schedule(HOUR), &all, now).orders.len();

        assert!((60..140).contains(&due), "{due} of 200 after half of the window");
    }
}
