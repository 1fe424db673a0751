//! A store as its spec describes it, and how its bucket is opened as one of its identities.
//!
//! Input: the object. Output: a [`Store`]. Pure. What a store's spec could say wrong is refused by its schema.

use std::{fmt, num::NonZeroU64, ops::Deref, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use valv_crds::{
    BackupStore, BackupStoreSpec,
    store::{self, Answer, LockMode, SecretName},
};

use crate::{
    agent::run_file::{self, Lock, Retry, Timeouts},
    io::bucket::{self, OnExisting, Patience, Trust},
};

/// Who asks a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Agents: puts data.
    Writer,
    /// The operator: puts commits, extends locks.
    Committer,
    /// Verification, restores, drills: reads and lists.
    Reader,
    /// The clean-up: deletes versions.
    Janitor,
}

impl Identity {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Writer, Self::Committer, Self::Reader, Self::Janitor];
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Writer => "writer",
            Self::Committer => "committer",
            Self::Reader => "reader",
            Self::Janitor => "janitor",
        })
    }
}

/// One of something for each identity.
#[derive(Clone, Debug)]
pub struct Identities<T> {
    /// Of the writer.
    pub writer: T,
    /// Of the committer.
    pub committer: T,
    /// Of the reader.
    pub reader: T,
    /// Of the janitor.
    pub janitor: T,
}

impl<T> Identities<T> {
    /// That of `identity`.
    pub fn of(&self, identity: Identity) -> &T {
        match identity {
            Identity::Writer => &self.writer,
            Identity::Committer => &self.committer,
            Identity::Reader => &self.reader,
            Identity::Janitor => &self.janitor,
        }
    }

    /// One for each, made by `make`.
    ///
    /// # Errors
    /// The first that `make` returns.
    pub fn try_from_fn<E>(mut make: impl FnMut(Identity) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self {
            writer: make(Identity::Writer)?,
            committer: make(Identity::Committer)?,
            reader: make(Identity::Reader)?,
            janitor: make(Identity::Janitor)?,
        })
    }
}

/// A store.
#[derive(Clone, Debug)]
pub struct Store {
    /// Its name.
    pub name: String,
    /// The object, with its status.
    pub object: Arc<BackupStore>,
}

impl Deref for Store {
    type Target = BackupStoreSpec;

    fn deref(&self) -> &BackupStoreSpec {
        &self.object.spec
    }
}

/// `object`, as a store.
pub fn check(object: Arc<BackupStore>) -> Store {
    Store { name: object.name_any(), object }
}

impl Store {
    /// The name of the Secret of `identity`, in the operator's namespace.
    pub fn secret(&self, identity: Identity) -> &str {
        let SecretName { name } = match identity {
            Identity::Writer => &self.credentials.writer,
            Identity::Committer => &self.credentials.committer,
            Identity::Reader => &self.credentials.reader,
            Identity::Janitor => &self.credentials.janitor,
        };
        name
    }

    /// How the bucket is opened as whoever has `credentials`.
    pub fn settings(&self, credentials: bucket::Credentials) -> bucket::Settings {
        let addressing = match self.addressing {
            store::Addressing::Path => bucket::Addressing::Path,
            store::Addressing::Virtual => bucket::Addressing::VirtualHost,
        };
        // What a probe asks has no length: all of it comes within one window, or not at all.
        let patience = Patience {
            connect: self.timeouts.connect.duration(),
            window: self.timeouts.stall.duration().min(self.timeouts.attempt.duration()),
            ..Patience::default()
        };
        bucket::Settings {
            endpoint: self.endpoint.clone(),
            region: self.signing_region.clone().unwrap_or_else(|| self.location.region.clone()),
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone().unwrap_or_default(),
            addressing,
            credentials,
            trust: self.ca_bundle.clone().map_or(Trust::System, Trust::Only),
            proxy: self.proxy.clone(),
            patience,
        }
    }

    /// The store, as agents speak to it: at most `share` of its bytes a second.
    pub fn spoken_to(&self, share: Option<NonZeroU64>) -> run_file::Store {
        let seconds =
            |span: valv_crds::units::Span| u32::try_from(span.duration().as_secs()).unwrap_or(u32::MAX);
        run_file::Store {
            name: self.name.clone(),
            endpoint: self.endpoint.clone(),
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            region: self.signing_region.clone().unwrap_or_else(|| self.location.region.clone()),
            addressing: self.addressing,
            ca_bundle: self.ca_bundle.clone(),
            proxy: self.proxy.clone(),
            timeouts: Timeouts {
                connect: seconds(self.timeouts.connect),
                attempt: seconds(self.timeouts.attempt),
                stall: seconds(self.timeouts.stall),
            },
            retry: Retry {
                per_request: self.retry.per_request.unsigned_abs(),
                per_run: self.retry.per_run.unsigned_abs(),
            },
            bytes_per_second: share,
            lock: self.object_lock.map(|lock| Lock { mode: lock.mode, days: lock.days.unsigned_abs() }),
            content_md5: false,
        }
    }

    /// What a PUT does if its key is there. A precondition is relied on only where it was seen to be heeded.
    pub fn on_existing(&self) -> OnExisting {
        let status = self.object.status.as_ref();
        let seen = status.and_then(|status| status.capabilities.conditional_put.as_ref());
        if seen.is_some_and(|seen| seen.answer == Answer::Yes) {
            OnExisting::Fail
        } else {
            OnExisting::Replace
        }
    }

    /// Whether what was seen `locked_until` then is locked for as long as the store's lock says, from `began`, but for
    /// `tolerated`.
    ///
    /// # Errors
    /// In what it is not, in words.
    pub fn locks_long_enough(
        &self,
        locked_until: Option<Timestamp>,
        began: Timestamp,
        tolerated: SignedDuration,
    ) -> Result<(), String> {
        let Some(lock) = self.object_lock else { return Ok(()) };
        let least = began
            .saturating_add(SignedDuration::from_hours(24 * i64::from(lock.days)))
            .and_then(|until| until.saturating_sub(tolerated))
            .unwrap_or(Timestamp::MAX);
        match locked_until {
            Some(until) if until >= least => Ok(()),
            Some(until) => Err(format!(
                "an object is locked until {until} only, and the lock of {} is {} days",
                self.name, lock.days
            )),
            None => Err(format!(
                "an object has no lock, and {} says that it locks for {} days; or the reader may not see locks (GetObjectRetention)",
                self.name, lock.days
            )),
        }
    }

    /// The mode of the lock that is claimed.
    pub fn claimed_mode(&self) -> Option<bucket::LockMode> {
        self.object_lock.map(|lock| match lock.mode {
            LockMode::Compliance => bucket::LockMode::Compliance,
            LockMode::Governance => bucket::LockMode::Governance,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The store of the sketch, with a lock claimed.
    pub(crate) fn store() -> Store {
        let yaml = "
            apiVersion: valv.eu/v1alpha1
            kind: BackupStore
            metadata: {name: helsinki, uid: u, generation: 3}
            spec:
              provider: upcloud
              location: {region: europe-1, country: FI}
              endpoint: https://abcd.upcloudobjects.com
              bucket: valv-backups
              prefix: production
              objectLock: {mode: Compliance, days: 35}
              credentials: {writer: {name: w}, committer: {name: c}, reader: {name: r}, janitor: {name: j}}
        ";
        check(Arc::new(serde_yaml::from_str(yaml).unwrap()))
    }

    #[test]
    fn requests_are_signed_for_the_region_of_the_location_unless_another_is_named() {
        let credentials =
            bucket::Credentials { access_key_id: "w".into(), secret_access_key: "s".to_owned().into() };
        let plain = store();
        let mut other = plain.object.as_ref().clone();
        other.spec.signing_region = Some("us-east-1".into());

        assert_eq!(plain.settings(credentials.clone()).region, "europe-1");
        assert_eq!(check(Arc::new(other)).settings(credentials).region, "us-east-1");
    }

    #[test]
    fn a_lock_that_was_not_seen_or_ends_too_early_is_too_short() {
        let began: Timestamp = "2026-11-22T01:00:00Z".parse().unwrap();
        let judged = |hours: i64| {
            let until = began + SignedDuration::from_hours(hours);
            store().locks_long_enough(Some(until), began, SignedDuration::from_mins(10))
        };
        let mut open = store().object.as_ref().clone();
        open.spec.object_lock = None;

        assert_eq!(judged(35 * 24), Ok(()));
        assert!(judged(35 * 24 - 1).unwrap_err().contains("35 days"));
        let unseen = store().locks_long_enough(None, began, SignedDuration::ZERO);
        assert!(unseen.unwrap_err().contains("no lock"));
        assert_eq!(check(Arc::new(open)).locks_long_enough(None, began, SignedDuration::ZERO), Ok(()));
    }

    #[test]
    fn each_identity_has_the_secret_that_the_spec_names_for_it() {
        let names = Identity::ALL.map(|identity| store().secret(identity).to_owned());

        assert_eq!(names, ["w", "c", "r", "j"]);
    }
}
