//! Decides whose slot has come. Pure.

use std::time::Duration;

use jiff::Timestamp;
use valv_crds::Slot;

use crate::schedule::{Due, Missed, Schedule};

/// The longest time between two looks: stores and tenants come and go.
pub const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// A tenant that has the policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Protected {
    /// Its name.
    pub tenant: String,
    /// The newest slot that was taken on; if none was, when the tenant was made.
    pub taken_on: Timestamp,
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
    /// Older slots that nobody ran.
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
pub fn plan(schedule: &Schedule, protected: &[Protected], now: Timestamp) -> Plan {
    let mut plan = Plan { orders: vec![], look_again_after: LOOK_AGAIN };
    for one in protected.iter().filter(|one| one.is_awake) {
        match schedule.due(&one.tenant, one.taken_on, now) {
            Due::Now { slot, missed } => {
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
        Protected { tenant: "ada".into(), taken_on: at(taken_on), is_awake: true }
    }

    #[test]
    fn a_slot_is_ordered_once() {
        let now = at("2026-11-22T01:00:00Z");
        let before = protected("2026-11-21T01:00:00Z");

        let first = plan(&schedule(Duration::ZERO), std::slice::from_ref(&before), now);
        let slot = first.orders[0].slot;
        let after = Protected { taken_on: slot.time(), ..before };
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
    fn a_tenant_that_rests_is_not_backed_up_and_its_slots_pass() {
        let resting = Protected { is_awake: false, ..protected("2026-11-18T01:00:00Z") };

        assert_eq!(plan(&schedule(Duration::ZERO), &[resting], at("2026-11-22T09:00:00Z")).orders, []);
    }

    #[test]
    fn the_next_look_is_when_the_next_tenant_s_turn_comes() {
        let now = at("2026-11-22T00:59:50Z");

        let plan = plan(&schedule(Duration::ZERO), &[protected("2026-11-21T01:00:00Z")], now);

        assert_eq!(plan.look_again_after, Duration::from_millis(10_010));
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
