//! How many backups run, and whose: counted before anything is made, so that those that begin at the same moment see
//! each other. In memory; filled from what is known when this process begins.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The runs that have a place. Cheap to clone; every clone is the same one.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    is_filled: bool,
    places: HashMap<String, Place>,
    /// Copies that run, by store: they take their room from the same limit.
    copies: HashMap<String, usize>,
}

/// One run's place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The `Backup`'s namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// To which store it goes.
    pub store: String,
}

/// How many may run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// To the store.
    pub to_store: usize,
    /// In all.
    pub in_all: usize,
}

/// There is no place.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Full {
    /// Another backup of the same tenant runs.
    #[error("the backup {0} of this tenant runs")]
    OfTenant(String),
    /// As many run to the store as may.
    #[error("{running} backups and copies run to the store {store}, and as many may")]
    ToStore {
        /// Which store.
        store: String,
        /// How many run.
        running: usize,
    },
    /// As many run as may.
    #[error("{0} backups run, and as many may in all")]
    InAll(usize),
}

impl Inner {
    fn fill(&mut self, standing: impl FnOnce() -> Vec<(String, Place)>) {
        if self.is_filled {
            return;
        }
        self.is_filled = true;
        for (uid, place) in standing() {
            self.places.entry(uid).or_insert(place);
        }
    }
}

impl Ledger {
    /// Gives the run `uid` a place, or lets it keep its own. `standing` is what runs when this is asked for the first
    /// time; `is_there` says whether a run that has a place is still one.
    ///
    /// # Errors
    /// If there is none.
    pub fn admit(
        &self,
        uid: &str,
        place: Place,
        limits: Limits,
        standing: impl FnOnce() -> Vec<(String, Place)>,
        is_there: impl Fn(&str, &Place) -> bool,
    ) -> Result<(), Full> {
        let mut inner = self.inner();
        inner.fill(standing);
        inner.places.retain(|uid, place| is_there(uid, place));
        let others = || inner.places.iter().filter(|(other, _)| *other != uid).map(|(_, place)| place);
        if let Some(other) = others().find(|other| other.namespace == place.namespace) {
            return Err(Full::OfTenant(other.name.clone()));
        }
        let copies = inner.copies.get(&place.store).copied().unwrap_or_default();
        let to_store = copies + others().filter(|other| other.store == place.store).count();
        if to_store >= limits.to_store {
            return Err(Full::ToStore { store: place.store, running: to_store });
        }
        let in_all = others().count();
        if in_all >= limits.in_all {
            return Err(Full::InAll(in_all));
        }
        inner.places.insert(uid.to_owned(), place);
        Ok(())
    }

    /// Has `decide` say which copies begin, and how many there are then to each store, when it knows how many backups run
    /// to it. Nothing gets a place meanwhile.
    pub fn copies<T>(
        &self,
        standing: impl FnOnce() -> Vec<(String, Place)>,
        is_there: impl Fn(&str, &Place) -> bool,
        decide: impl FnOnce(&dyn Fn(&str) -> usize) -> (T, HashMap<String, usize>),
    ) -> T {
        let mut inner = self.inner();
        inner.fill(standing);
        inner.places.retain(|uid, place| is_there(uid, place));
        let places = &inner.places;
        let backups = |store: &str| places.values().filter(|place| place.store == store).count();
        let (decided, copies) = decide(&backups);
        inner.copies = copies;
        decided
    }

    /// Notes that `uid` runs, whatever the limits say.
    pub fn hold(&self, uid: &str, place: Place, standing: impl FnOnce() -> Vec<(String, Place)>) {
        let mut inner = self.inner();
        inner.fill(standing);
        inner.places.insert(uid.to_owned(), place);
    }

    /// The run `uid` needs its place no more.
    pub fn release(&self, uid: &str) {
        self.inner().places.remove(uid);
    }

    /// Runs that have a place.
    pub fn running(&self) -> usize {
        self.inner().places.len()
    }

    /// A panic elsewhere leaves nothing half done in it.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { to_store: 2, in_all: 3 };

    fn place(tenant: &str, store: &str) -> Place {
        Place { namespace: format!("journal-{tenant}"), name: format!("{tenant}-1"), store: store.to_owned() }
    }

    fn admit(ledger: &Ledger, tenant: &str, store: &str) -> Result<(), Full> {
        ledger.admit(tenant, place(tenant, store), LIMITS, Vec::new, |_, _| true)
    }

    #[test]
    fn a_store_that_is_full_holds_up_no_other_and_all_together_have_a_limit_too() {
        let ledger = Ledger::default();

        assert_eq!(admit(&ledger, "ada", "helsinki"), Ok(()));
        assert_eq!(admit(&ledger, "bo", "helsinki"), Ok(()));
        assert!(matches!(admit(&ledger, "eve", "helsinki"), Err(Full::ToStore { running: 2, .. })));
        assert_eq!(admit(&ledger, "eve", "frankfurt"), Ok(()));
        assert_eq!(admit(&ledger, "fia", "frankfurt"), Err(Full::InAll(3)));
        assert_eq!(admit(&ledger, "ada", "helsinki"), Ok(()), "who has a place keeps it");

        ledger.release("ada");

        assert_eq!(admit(&ledger, "fia", "helsinki"), Ok(()));
    }

    #[test]
    fn copies_take_their_room_from_the_same_limit() {
        let ledger = Ledger::default();
        admit(&ledger, "ada", "frankfurt").unwrap();
        let copying = |copies: usize| {
            let decide = |backups: &dyn Fn(&str) -> usize| {
                (backups("frankfurt"), HashMap::from([("frankfurt".to_owned(), copies)]))
            };
            ledger.copies(Vec::new, |_, _| true, decide)
        };

        assert_eq!(copying(1), 1, "the copies are told of the backup");
        assert!(matches!(admit(&ledger, "bo", "frankfurt"), Err(Full::ToStore { running: 2, .. })));
        copying(0);
        assert_eq!(admit(&ledger, "bo", "frankfurt"), Ok(()));
    }

    #[test]
    fn of_one_tenant_one_runs() {
        let ledger = Ledger::default();
        admit(&ledger, "ada", "helsinki").unwrap();

        let second = ledger.admit("ada-2", place("ada", "frankfurt"), LIMITS, Vec::new, |_, _| true);

        assert_eq!(second, Err(Full::OfTenant("ada-1".to_owned())));
    }

    #[test]
    fn what_ran_before_this_process_began_counts_and_what_is_gone_does_not() {
        let ledger = Ledger::default();
        let standing =
            || vec![("bo".to_owned(), place("bo", "helsinki")), ("cy".to_owned(), place("cy", "helsinki"))];

        let full = ledger.admit("ada", place("ada", "helsinki"), LIMITS, standing, |_, _| true);
        let free = ledger.admit("ada", place("ada", "helsinki"), LIMITS, Vec::new, |uid, _| uid != "bo");

        assert!(matches!(full, Err(Full::ToStore { .. })));
        assert_eq!(free, Ok(()));
        assert_eq!(ledger.running(), 2);
    }
}
