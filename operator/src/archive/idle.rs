//! What was made once and is used again, since making it anew costs as much as using it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Things that nobody uses at the moment. There are as many as were ever in use at a time.
#[derive(Debug)]
pub(super) struct Idle<T>(Mutex<Vec<T>>);

impl<T> Idle<T> {
    /// None yet.
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// One of them, the last one that was in use.
    pub(super) fn take(&self) -> Option<T> {
        self.all().pop()
    }

    /// Another one.
    pub(super) fn put(&self, thing: T) {
        self.all().push(thing);
    }

    /// Nothing in it can be half done.
    fn all(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
