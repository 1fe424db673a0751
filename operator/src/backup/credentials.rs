//! Credentials of stores that were read a moment ago: backups that begin together do not each read four Secrets.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{io::bucket::Credentials, store::check::Identities};

/// What was read, by store.
#[derive(Default)]
pub struct Known {
    stores: Mutex<HashMap<String, Entry>>,
}

struct Entry {
    generation: Option<i64>,
    read: Instant,
    credentials: Identities<Credentials>,
}

impl Known {
    /// Those of `store` in this generation of its spec, if they were read within `age`.
    pub fn of(&self, store: &str, generation: Option<i64>, age: Duration) -> Option<Identities<Credentials>> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|_, entry| entry.read.elapsed() < age);
        let entry = stores.get(store).filter(|entry| entry.generation == generation)?;
        Some(entry.credentials.clone())
    }

    /// Keeps what was read now.
    pub fn keep(&self, store: &str, generation: Option<i64>, credentials: Identities<Credentials>) {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.insert(store.to_owned(), Entry { generation, read: Instant::now(), credentials });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_good_for_its_time_and_its_spec_only() {
        let known = Known::default();
        let credentials = Identities::try_from_fn(|_| {
            Ok::<_, ()>(Credentials { access_key_id: "a".into(), secret_access_key: "s".to_owned().into() })
        });
        known.keep("helsinki", Some(3), credentials.unwrap());
        let minute = Duration::from_secs(60);

        assert!(known.of("helsinki", Some(3), minute).is_some());
        assert!(known.of("helsinki", Some(4), minute).is_none());
        assert!(known.of("frankfurt", Some(3), minute).is_none());
        assert!(known.of("helsinki", Some(3), Duration::ZERO).is_none());
    }
}
