//! Who is looked at in each store, and who waits for a place: of those who wait the first has the next that is free. A
//! look that takes an hour holds up its own place, and nobody else's turn.

use std::{
    cell::{RefCell, RefMut},
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
};

use crate::{archive::layout::ArchiveId, store::errands::Errands};

/// Wards of one store that are looked at side by side. With two seconds a look that is 170,000 looks a day: 10,000 tenants
/// have 20,000 in each of two stores.
pub const AT_ONCE: usize = 4;

/// Store and archive.
type Key = (String, ArchiveId);

/// What is under way at a store, none of which waits for the rest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Errand {
    /// It is asked which archives it has.
    Stocktaking {
        /// Which store.
        store: String,
    },
    /// Its wards are looked at, one after the other.
    Looks {
        /// Which store.
        store: String,
        /// One of [`AT_ONCE`].
        place: usize,
    },
}

/// The places of all stores.
#[derive(Debug)]
pub struct Places<W> {
    queues: RefCell<Queues<W>>,
}

#[derive(Debug)]
struct Queues<W> {
    waiting: BTreeMap<String, VecDeque<(ArchiveId, W)>>,
    looked_at: BTreeSet<Key>,
}

impl<W> Default for Places<W> {
    fn default() -> Self {
        Self { queues: RefCell::new(Queues { waiting: BTreeMap::new(), looked_at: BTreeSet::new() }) }
    }
}

impl<W> Places<W> {
    /// Whether somebody looks at the ward `key` now.
    pub fn is_looked_at(&self, key: &Key) -> bool {
        self.queues().looked_at.contains(key)
    }

    /// From now on these wait, the first first, and nobody else does: whose turn it was may have changed.
    pub fn queue(&self, due: impl IntoIterator<Item = (Key, W)>) {
        let mut queues = self.queues();
        queues.waiting.clear();
        for ((store, archive), ward) in due {
            queues.waiting.entry(store).or_default().push_back((archive, ward));
        }
    }

    /// Begins to `look` at those who wait in `store`, in each place that is free.
    pub fn fill<'a, L>(
        &'a self,
        store: &str,
        errands: &mut Errands<'a, Errand>,
        look: impl Fn(W) -> L + Copy + 'a,
    ) where
        L: Future<Output = ()> + 'a,
    {
        for place in 0..AT_ONCE {
            let errand = Errand::Looks { store: store.to_owned(), place };
            if !errands.is_under_way(&errand) {
                errands.begin(errand, self.serve(store.to_owned(), look));
            }
        }
    }

    /// Looks at one after the other, until nobody waits in `store`.
    async fn serve<L: Future<Output = ()>>(&self, store: String, look: impl Fn(W) -> L) {
        while let Some((key, ward)) = self.next(&store) {
            look(ward).await;
            self.queues().looked_at.remove(&key);
        }
    }

    fn next(&self, store: &str) -> Option<(Key, W)> {
        let mut queues = self.queues();
        let (archive, ward) = queues.waiting.get_mut(store)?.pop_front()?;
        let key = (store.to_owned(), archive);
        queues.looked_at.insert(key.clone());
        Some((key, ward))
    }

    /// Nobody keeps them over an await.
    fn queues(&self) -> RefMut<'_, Queues<W>> {
        self.queues.borrow_mut()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio::time::sleep;

    use super::*;

    const ROUND: Duration = Duration::from_secs(30);

    fn key(archive: &str) -> Key {
        ("helsinki".to_owned(), archive.parse().unwrap())
    }

    /// Takes a round, in which those of `due` are due who are not looked at yet.
    async fn round<'a, L: Future<Output = ()> + 'a>(
        places: &'a Places<&'static str>,
        errands: &mut Errands<'a, Errand>,
        due: &[&'static str],
        look: impl Fn(&'static str) -> L + Copy + 'a,
    ) {
        let due = due.iter().map(|name| (key(name), *name)).filter(|(key, _)| !places.is_looked_at(key));
        places.queue(due.collect::<Vec<_>>());
        places.fill("helsinki", errands, look);
        errands.go_on_for(ROUND).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_never_ends_holds_up_its_own_place_and_nobody_else_s_turn() {
        let (places, done) = (Places::default(), RefCell::new(Vec::new()));
        let begun = RefCell::new(0);
        let look = |name| {
            let (done, begun) = (&done, &begun);
            async move {
                if name == "slow" {
                    *begun.borrow_mut() += 1;
                    pending::<()>().await;
                }
                sleep(Duration::from_secs(2)).await;
                done.borrow_mut().push(name);
            }
        };
        let mut errands = Errands::default();

        round(&places, &mut errands, &["slow", "a1", "a2", "a3", "a4", "a5"], &look).await;
        assert_eq!(*done.borrow(), ["a1", "a2", "a3", "a4", "a5"]);

        round(&places, &mut errands, &["slow", "a6"], &look).await;
        assert_eq!(done.borrow().last(), Some(&"a6"));
        assert_eq!(*begun.borrow(), 1, "it is looked at yet");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_four_are_looked_at_side_by_side_and_whoever_waits_has_the_next_place() {
        let (places, done) = (Places::default(), RefCell::new(Vec::new()));
        let look = |name| {
            let done = &done;
            async move {
                sleep(Duration::from_secs(19)).await;
                done.borrow_mut().push(name);
            }
        };
        let mut errands = Errands::default();

        let due = ["a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9"];
        round(&places, &mut errands, &due, &look).await;
        assert_eq!(*done.borrow(), ["a1", "a2", "a3", "a4"]);

        // It is no longer the turn of a9, which waited.
        round(&places, &mut errands, &["b2", "b1", "a5"], &look).await;
        assert_eq!(done.borrow()[4..], ["a5", "a6", "a7", "a8", "b2", "b1"]);
    }
}
