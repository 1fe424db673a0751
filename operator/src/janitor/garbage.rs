//! Decides what of the data that nobody committed is deleted, and what somebody is asked about first. Pure.
//!
//! A commit is small and its data are large. Whoever takes a commit away makes its data look like what an attempt left
//! that was never finished. So what has a manifest, for whoever wrote it had written all, is deleted only if another
//! attempt of its slot is committed, or retention has let it go, or somebody says so. And no look deletes more than a few
//! dozen of such folders by itself.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use valv_crds::Slot;

use super::{
    observe::Seen,
    plan::{Waits, Why, question},
};
use crate::archive::{layout::Folder, register::Register, terms::Terms};

/// Folders of one look that go without anybody's word: what a store that is away for a day leaves.
const USUAL: usize = 50;

/// Folders that are judged in one look; the rest waits for the next.
pub const MOST: usize = 1_000;

/// A day, for what is too young to be garbage.
const DAY_SECONDS: u64 = 86_400;

/// What is done with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// What goes now.
    pub delete: Vec<Folder>,
    /// What somebody is asked about.
    pub waits: Option<Waits>,
    /// Whether some of it goes by somebody's word.
    pub word: Word,
}

/// Whether somebody's word was needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Word {
    /// It was not, or was not given.
    #[default]
    NotUsed,
    /// It was given, and counts once.
    Used,
}

/// How old has to be what goes, by its slot and by when it was put: nobody writes to it then.
pub fn age(terms: &Terms) -> Duration {
    Duration::from_secs(terms.deadline_seconds.saturating_mul(2).saturating_add(DAY_SECONDS))
}

/// Of `folders` those that nobody committed, that no attempt writes any more, and that are nobody else's.
pub fn candidates(terms: &Terms, seen: &Seen, folders: &[Folder], now: Timestamp) -> Vec<Folder> {
    let age = age(terms);
    let is_garbage = |folder: &&Folder| {
        let entry = seen.catalogue.entries.get(&folder.slot);
        let is_committed = entry.is_some_and(|entry| entry.commit.attempt == folder.attempt);
        let may_be_somebody_s = seen.catalogue.refused.contains_key(&folder.slot)
            || seen.unfinished.contains(&folder.slot)
            || seen.is_known(folder.slot) && entry.is_none();
        let is_old = folder.slot.time().saturating_add(age).unwrap_or(Timestamp::MAX) <= now;
        !is_committed && !may_be_somebody_s && is_old
    };
    folders.iter().filter(is_garbage).cloned().collect()
}

/// What becomes of `candidates`, of which `whole` have a manifest, in `store`, where the `register` now stands.
pub fn plan(
    store: &str,
    terms: &Terms,
    seen: &Seen,
    register: Option<&Register>,
    candidates: &[Folder],
    whole: &BTreeSet<Folder>,
) -> Garbage {
    let let_go = |folder: &Folder| register.is_some_and(|register| register.let_go.contains(&folder.slot));
    let is_left_over = |folder: &&Folder| {
        !whole.contains(*folder) || seen.catalogue.entries.contains_key(&folder.slot) || let_go(folder)
    };
    let (left, whole): (Vec<&Folder>, Vec<&Folder>) = candidates.iter().partition(is_left_over);
    let is_usual = left.len() <= USUAL;
    let asked: Vec<&Folder> = match (is_usual, whole.is_empty()) {
        (true, _) => whole.clone(),
        (false, _) => left.iter().chain(&whole).copied().collect(),
    };
    let why = if whole.is_empty() { Why::Leftovers } else { Why::NeverCommitted };
    let acknowledged = register.map(|register| register.acknowledged).unwrap_or_default();
    let names: Vec<String> = asked.iter().map(ToString::to_string).collect();
    let digest = question(store, terms, "folder", &names, acknowledged);
    let waits = Waits { digest, deletions: asked.len(), of: candidates.len(), why };
    if asked.is_empty() {
        return Garbage { delete: candidates.to_vec(), ..Garbage::default() };
    }
    if seen.acknowledged.contains(&waits.digest) {
        return Garbage { delete: candidates.to_vec(), waits: None, word: Word::Used };
    }
    let delete = if is_usual { left.into_iter().cloned().collect() } else { vec![] };
    Garbage { delete, waits: Some(waits), word: Word::NotUsed }
}

/// The register after a clean-up that needed a `word`, where only `slots` have folders: what retention let go and nothing
/// is left of is forgotten, many at a time, for each register is an object that is locked. `None`: the one that stands is
/// as good. Absent `slots`: it is not known which there are.
pub fn settle(
    standing: &Register,
    word: Word,
    slots: Option<&BTreeSet<Slot>>,
    now: Timestamp,
) -> Option<Register> {
    let mut next = standing.clone();
    if let Some(slots) = slots {
        next.let_go.retain(|slot| slots.contains(slot));
    }
    let forgotten = standing.let_go.len() - next.let_go.len();
    if word == Word::Used {
        next.acknowledged = next.acknowledged.saturating_add(1);
    }
    if word == Word::NotUsed && forgotten < FORGOTTEN {
        return None;
    }
    standing.next(next, now)
}

/// So many slots that retention let go are forgotten at a time.
const FORGOTTEN: usize = 100;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::janitor::plan::tests::{attempt, folder, now, register, rules_of, seen, slot};

    fn planned(seen: &Seen, folders: &[Folder], whole: &[&Folder]) -> Garbage {
        let terms = rules_of(3, 5);
        let candidates = candidates(&terms, seen, folders, now());
        let whole = whole.iter().map(|folder| (*folder).clone()).collect();
        plan("helsinki", &terms, seen, seen.register.as_ref(), &candidates, &whole)
    }

    #[test]
    fn garbage_is_old_and_nobody_s() {
        let mut seen = seen(3);
        let (second_attempt, young) =
            (Folder { attempt: attempt(99), ..folder(2) }, Folder { attempt: attempt(99), ..folder(0) });
        let (refused, running, known, left) = (folder(10), folder(11), folder(12), folder(13));
        let mut folders: Vec<Folder> = (0..3).map(folder).collect();
        folders.extend([&second_attempt, &young, &refused, &running, &left].map(Clone::clone));
        seen.catalogue.refused = BTreeMap::from([(refused.slot, "forged".to_owned())]);
        seen.unfinished = BTreeSet::from([running.slot]);

        assert_eq!(planned(&seen, &folders, &[]).delete, [second_attempt, left]);
        folders = vec![known.clone()];
        seen.known = BTreeSet::from([known.slot]);
        assert_eq!(planned(&seen, &folders, &[]).delete, [], "its commit is missing");
    }

    #[test]
    fn data_whose_commit_may_have_been_lost_wait_for_the_word_that_names_them() {
        let mut seen = seen(3);
        let (whole, half) = (folder(30), folder(31));
        let folders = [whole.clone(), half.clone()];

        let asked = planned(&seen, &folders, &[&whole]);

        assert_eq!(asked.delete, [half]);
        let waits = asked.waits.unwrap();
        assert_eq!((waits.deletions, waits.why), (1, Why::NeverCommitted));
        seen.acknowledged = vec![waits.digest];
        let acknowledged = planned(&seen, &folders, &[&whole]);
        assert_eq!((acknowledged.delete.len(), acknowledged.waits), (2, None));
        assert_eq!(acknowledged.word, Word::Used);
        seen.register = Some(Register { acknowledged: 1, ..register(&[]) });
        let again = planned(&seen, &folders, &[&whole]);
        assert!(again.waits.is_some() && again.word == Word::NotUsed, "a word counts once");
    }

    #[test]
    fn an_attempt_beside_one_that_is_committed_and_what_retention_let_go_need_nobody_s_word() {
        let mut seen = seen(3);
        let beside = Folder { attempt: attempt(99), ..folder(2) };
        let let_go = folder(30);
        let mut register = register(&[]);
        register.let_go = BTreeSet::from([slot(30)]);
        seen.register = Some(register);

        let garbage = planned(&seen, &[beside.clone(), let_go.clone()], &[&beside, &let_go]);

        assert_eq!((garbage.delete, garbage.waits), (vec![beside, let_go], None));
    }

    #[test]
    fn more_folders_than_usual_wait_too() {
        let mut seen = seen(3);
        let folders: Vec<Folder> = (20..80).map(folder).collect();

        let asked = planned(&seen, &folders, &[]);

        assert_eq!(asked.delete, []);
        let waits = asked.waits.unwrap();
        assert_eq!((waits.deletions, waits.why), (60, Why::Leftovers));
        seen.acknowledged = vec![waits.digest];
        assert_eq!(planned(&seen, &folders, &[]).delete.len(), 60);
    }

    #[test]
    fn what_retention_let_go_is_forgotten_when_nothing_is_left_of_it_and_not_one_by_one() {
        let mut standing = register(&[0]);
        standing.let_go = (1..=150).map(slot).collect();
        let left = |days: std::ops::RangeInclusive<i64>| days.map(slot).collect::<BTreeSet<_>>();
        let settled = |slots: &BTreeSet<Slot>| settle(&standing, Word::NotUsed, Some(slots), now());

        assert_eq!(settled(&left(1..=60)), None, "ninety are not worth an object");
        let next = settled(&left(0..=3)).unwrap();
        assert_eq!((next.let_go, next.number), (left(1..=3), standing.number + 1));
        assert_eq!(next.committed, standing.committed);
        assert_eq!(settle(&standing, Word::NotUsed, None, now()), None, "not all folders were seen");
        assert_eq!(settle(&standing, Word::Used, None, now()).unwrap().acknowledged, 1);
    }
}
