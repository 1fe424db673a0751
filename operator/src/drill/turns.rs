//! Whose turn it is: how many drills may work at once, of all tenants.
//!
//! Which drills work is in their statuses; but a status that was written a moment ago is not seen by others yet, and
//! several drills are looked at side by side. A turn that was given is remembered until the status must have come.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

/// A drill that was given a turn has a status that says so by then, or has not begun.
const SEEN_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// Whether there is room for a drill to work.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Room {
    /// There is.
    #[default]
    Free,
    /// So many others work.
    Full(usize),
}

/// The turns that were given lately, by the drills' UIDs.
#[derive(Debug, Default)]
pub struct Turns {
    given: Mutex<BTreeMap<String, Timestamp>>,
}

impl Turns {
    /// Gives the drill `uid` a turn at `now`, if fewer than `most` of the others have one: those in `working`, and those
    /// that were given one a moment ago.
    pub fn take(&self, uid: &str, working: &BTreeSet<String>, most: usize, now: Timestamp) -> Room {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|_, since| now.duration_since(*since) < SEEN_WITHIN);
        let others: BTreeSet<&str> =
            working.iter().chain(given.keys()).map(String::as_str).filter(|other| *other != uid).collect();
        let count = others.len();
        if count >= most && !working.contains(uid) {
            given.remove(uid);
            return Room::Full(count);
        }
        given.insert(uid.to_owned(), now);
        Room::Free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + seconds).unwrap()
    }

    fn uids(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn turns_that_were_given_a_moment_ago_count() {
        let turns = Turns::default();

        assert_eq!(turns.take("a", &uids(&[]), 2, at(0)), Room::Free);
        assert_eq!(turns.take("b", &uids(&[]), 2, at(0)), Room::Free);
        assert_eq!(turns.take("c", &uids(&[]), 2, at(1)), Room::Full(2));
        assert_eq!(turns.take("a", &uids(&[]), 2, at(2)), Room::Free, "who has a turn keeps it");
    }

    #[test]
    fn a_turn_that_came_to_nothing_is_forgotten() {
        let turns = Turns::default();
        turns.take("a", &uids(&[]), 1, at(0));

        assert_eq!(turns.take("b", &uids(&[]), 1, at(59)), Room::Full(1));
        assert_eq!(turns.take("b", &uids(&[]), 1, at(61)), Room::Free);
    }

    #[test]
    fn those_that_work_count_for_as_long_as_they_do_and_once() {
        let turns = Turns::default();
        turns.take("a", &uids(&[]), 2, at(0));

        assert_eq!(turns.take("b", &uids(&["a"]), 2, at(1)), Room::Free);
        assert_eq!(turns.take("c", &uids(&["a", "b"]), 2, at(600)), Room::Full(2));
        assert_eq!(turns.take("c", &uids(&["b"]), 2, at(601)), Room::Free);
    }
}
