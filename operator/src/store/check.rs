//! A store as its spec describes it, and how its bucket is opened as one of its identities.
//!
//! Input: the object. Output: a [`Store`]. Pure. What a store's spec could say wrong is refused by its schema.

use std::{fmt, ops::Deref, sync::Arc};

use kube::ResourceExt;
use valv_crds::{
    BackupStore, BackupStoreSpec,
    store::{self, LockMode, SecretName},
};

use crate::io::bucket::{self, Patience, Trust};

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
    fn each_identity_has_the_secret_that_the_spec_names_for_it() {
        let names = Identity::ALL.map(|identity| store().secret(identity).to_owned());

        assert_eq!(names, ["w", "c", "r", "j"]);
    }
}
