//! What this process knows of each store, and does not write down: a status holds no digest of a Secret.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use super::probe::Findings;

/// What became of a store's last probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// Of what it was a probe: see [`Observed::subject`](super::observe::Observed::subject).
    pub subject: String,
    /// What it saw; and what an earlier one of the same subject saw, where it could see nothing.
    pub findings: Findings,
    /// When one last came to its end.
    pub last_whole: Option<Timestamp>,
    /// Probes in a row that did not prove all that they should.
    pub failures: u32,
    /// When the next one is due.
    pub next: Timestamp,
}

/// All stores.
#[derive(Debug, Default)]
pub struct Memory {
    stores: Mutex<HashMap<String, Remembered>>,
}

impl Memory {
    /// What is known of `store`.
    pub fn of(&self, store: &str) -> Option<Remembered> {
        self.stores().get(store).cloned()
    }

    /// Notes what is known now.
    pub fn note(&self, store: &str, remembered: Remembered) {
        self.stores().insert(store.to_owned(), remembered);
    }

    /// Forgets all stores but those for which `is_there` says so.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.stores().retain(|name, _| is_there(name));
    }

    /// A panic elsewhere leaves nothing half done in it.
    fn stores(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
