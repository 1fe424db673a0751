//! How long to wait after an object failed: longer each time, never in step with the others, and bounded.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The wait after the first failure, before it is spread.
pub const FIRST: Duration = Duration::from_secs(1);

/// The longest wait: what was broken for an hour is tried again within this time of its repair.
pub const LONGEST: Duration = Duration::from_secs(300);

/// The wait after the `failures`-th failure in a row: [`FIRST`], doubled each time, at most [`LONGEST`].
///
/// `random`, between 0 and 1, spreads it between half of that and all of it, so that a thousand objects that
/// failed together do not return together.
pub fn wait(failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    let whole = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    whole.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

/// How long failures are remembered: an object that still fails is tried, and fails, sooner than this; one that does
/// not is gone, or was repaired.
const MEMORY: Duration = LONGEST.saturating_mul(2);

/// The failures in a row of each object of one kind, by name.
///
/// An object that does not fail takes no room, and one that is gone takes none for long.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: Mutex<HashMap<String, Failures>>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Backoff {
    /// Counts a failure of `name`, and says how long to wait before the next try.
    pub fn failed(&self, name: &str, random: f64) -> Duration {
        self.failed_at(Instant::now(), name, random)
    }

    fn failed_at(&self, now: Instant, name: &str, random: f64) -> Duration {
        let mut failures = self.failures();
        failures.retain(|_, failures| now.saturating_duration_since(failures.last) < MEMORY);
        let entry = failures.entry(name.to_owned()).or_insert(Failures { count: 0, last: now });
        *entry = Failures { count: entry.count.saturating_add(1), last: now };
        wait(entry.count, random)
    }

    /// Forgets the failures of `name`: it succeeded, or is gone.
    pub fn succeeded(&self, name: &str) {
        self.failures().remove(name);
    }

    /// How often `name` failed since it last succeeded.
    pub fn in_a_row(&self, name: &str) -> u32 {
        self.failures().get(name).map_or(0, |failures| failures.count)
    }

    /// A panic elsewhere leaves the counts as they were: nothing in them can be half done.
    fn failures(&self) -> MutexGuard<'_, HashMap<String, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_from_a_second_to_five_minutes() {
        let waits: Vec<u64> = (1..=11).map(|failures| wait(failures, 1.0).as_secs()).collect();

        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(wait(u32::MAX, 1.0), LONGEST);
    }

    #[test]
    fn chance_halves_the_wait_at_most() {
        assert_eq!(wait(3, 0.0), Duration::from_secs(2));
        assert_eq!(wait(3, 0.5), Duration::from_secs(3));
        assert_eq!(wait(3, 7.0), Duration::from_secs(4));
    }

    #[test]
    fn an_object_that_succeeded_starts_again_and_others_are_not_touched() {
        let backoff = Backoff::default();
        backoff.failed("ada", 1.0);
        backoff.failed("ada", 1.0);
        backoff.failed("bo", 1.0);

        backoff.succeeded("ada");

        assert_eq!(backoff.failed("ada", 1.0), Duration::from_secs(1));
        assert_eq!(backoff.failed("bo", 1.0), Duration::from_secs(2));
    }

    #[test]
    fn an_object_that_succeeded_takes_no_room() {
        let backoff = Backoff::default();
        backoff.failed("ada", 0.0);

        backoff.succeeded("ada");

        assert!(backoff.failures().is_empty());
    }

    #[test]
    fn an_object_that_failed_long_ago_takes_no_room_and_starts_again() {
        let backoff = Backoff::default();
        let then = Instant::now();
        backoff.failed_at(then, "ada", 1.0);
        backoff.failed_at(then, "bo", 1.0);

        let wait = backoff.failed_at(then + MEMORY, "ada", 1.0);

        assert_eq!(wait, FIRST);
        assert_eq!(backoff.failures().len(), 1);
    }
}
