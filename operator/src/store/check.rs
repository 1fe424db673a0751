//! A store as its spec describes it, and how its bucket is opened as one of its identities.
//!
//! Input: the object. Output: a [`Store`]. Pure. What a store's spec could say wrong is refused by its schema.

use std::{fmt, num::NonZeroU64, ops::Deref, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use valv_crds::{
    BackupStore, BackupStoreSpec,
    store::{self, Answer, LockMode, SecretName},
    units::{ByteSize, Span},
};

use super::profile::{Quirks, Support};
use crate::{
    agent::run_file::{self, Lock, Retry, Timeouts},
    io::bucket::{self, AnsweredVersions, OnExisting, Patience, Trust},
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
            region: self.region(),
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone().unwrap_or_default(),
            addressing,
            credentials,
            trust: self.ca_bundle.clone().map_or(Trust::System, Trust::Only),
            proxy: self.proxy.clone(),
            patience,
            answered_versions: self.answered_versions(),
        }
    }

    /// Whether what it answers of versions is heeded: not of a product that has none.
    fn answered_versions(&self) -> AnsweredVersions {
        match Quirks::of(self.profile).versions {
            Support::No => AnsweredVersions::Ignored,
            Support::Yes | Support::Unknown => AnsweredVersions::Heeded,
        }
    }

    /// The name of the region, as requests are signed for it.
    pub fn region(&self) -> String {
        let of_profile = Quirks::of(self.profile).signing_region;
        let named = self.signing_region.as_deref().or(of_profile);
        named.unwrap_or(&self.location.region).to_owned()
    }

    /// Bytes a second that one backup or one copy may write here: its share of the store's limit with as many under way
    /// as there may be, and no more than `own`. Absent: no limit.
    pub fn share(&self, own: Option<ByteSize>) -> Option<NonZeroU64> {
        let at_once = u64::try_from(self.limits.concurrent_backups).unwrap_or(1).max(1);
        let of_store = self.limits.bytes_per_second.map(|all| all.bytes() / at_once);
        let least = of_store.into_iter().chain(own.map(ByteSize::bytes)).min()?;
        // One that may send nothing would never end.
        Some(NonZeroU64::new(least).unwrap_or(NonZeroU64::MIN))
    }

    /// The store, as an agent speaks to it that writes no more than `bytes_per_second`, and locks what it writes with
    /// `lock`.
    pub fn spoken_to(&self, bytes_per_second: Option<NonZeroU64>, lock: Option<Lock>) -> run_file::Store {
        let seconds = |span: Span| u32::try_from(span.duration().as_secs()).unwrap_or(u32::MAX);
        run_file::Store {
            name: self.name.clone(),
            endpoint: self.endpoint.clone(),
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            region: self.region(),
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
            answered_versions: self.answered_versions(),
            bytes_per_second,
            lock,
        }
    }

    /// What a put does where something lies: a precondition is relied on only where it was seen to be heeded, and never of
    /// a product that has none.
    pub fn on_existing(&self) -> OnExisting {
        let seen =
            self.object.status.as_ref().and_then(|status| status.capabilities.conditional_put.as_ref());
        let is_seen = seen.is_some_and(|seen| seen.answer == Answer::Yes);
        let is_known = Quirks::of(self.profile).conditional_put != Support::No;
        if is_seen && is_known { OnExisting::Fail } else { OnExisting::Replace }
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

    /// The lock that every object gets here; absent: none is claimed.
    pub fn lock(&self) -> Option<Lock> {
        self.object_lock.map(|lock| Lock { mode: lock.mode, days: lock.days.unsigned_abs() })
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
    use valv_crds::store::Profile;

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
    fn a_profile_names_the_region_of_its_product_and_the_spec_another() {
        let mut object = store().object.as_ref().clone();
        object.spec.profile = Profile::Garage;
        let garage = check(Arc::new(object.clone()));
        object.spec.signing_region = Some("here".into());

        assert_eq!(garage.region(), "garage");
        assert_eq!(check(Arc::new(object)).region(), "here");
    }

    #[test]
    fn a_version_that_a_product_without_versions_names_is_not_heeded_by_operator_and_agents() {
        let of = |profile: Profile| {
            let mut object = store().object.as_ref().clone();
            object.spec.profile = profile;
            let credentials =
                bucket::Credentials { access_key_id: "w".into(), secret_access_key: "s".to_owned().into() };
            let store = check(Arc::new(object));
            let of_agents = store.spoken_to(None, None).settings(credentials.clone());
            (store.settings(credentials).answered_versions, of_agents.answered_versions)
        };

        assert_eq!(of(Profile::Garage), (AnsweredVersions::Ignored, AnsweredVersions::Ignored));
        assert_eq!(of(Profile::Generic), (AnsweredVersions::Heeded, AnsweredVersions::Heeded));
    }

    #[test]
    fn a_precondition_is_relied_on_where_it_was_seen_and_never_of_a_product_that_has_none() {
        let of = |profile: Profile, answer: Option<&str>| {
            let mut object = store().object.as_ref().clone();
            object.spec.profile = profile;
            object.status = answer.map(|answer| {
                serde_json::from_value(serde_json::json!({ "capabilities": { "conditionalPut": {
                    "answer": answer, "at": "2026-11-22T01:00:00Z" } } }))
                .unwrap()
            });
            check(Arc::new(object)).on_existing()
        };

        assert_eq!(of(Profile::Generic, Some("Yes")), OnExisting::Fail);
        assert_eq!(of(Profile::CephRgw, None), OnExisting::Replace, "what should be is not what was seen");
        assert_eq!(of(Profile::Generic, Some("No")), OnExisting::Replace);
        assert_eq!(of(Profile::Garage, Some("Yes")), OnExisting::Replace);
    }

    #[test]
    fn one_run_has_its_share_of_the_store_s_limit_and_a_policy_can_only_make_it_less() {
        let limited = |at_once: i32, all: Option<&str>| {
            let mut object = store().object.as_ref().clone();
            object.spec.limits.concurrent_backups = at_once;
            object.spec.limits.bytes_per_second = all.map(|size| size.parse().unwrap());
            check(Arc::new(object))
        };
        let bytes = |store: Store, own: Option<&str>| {
            store.share(own.map(|size| size.parse().unwrap())).map(NonZeroU64::get)
        };

        assert_eq!(bytes(limited(8, Some("80Mi")), None), Some(10 << 20));
        assert_eq!(bytes(limited(8, Some("80Mi")), Some("50Mi")), Some(10 << 20), "not past the store's");
        assert_eq!(bytes(limited(8, Some("80Mi")), Some("5Mi")), Some(5 << 20));
        assert_eq!(bytes(limited(8, None), Some("5Mi")), Some(5 << 20));
        assert_eq!(bytes(limited(8, None), None), None);
    }

    #[test]
    fn each_identity_has_the_secret_that_the_spec_names_for_it() {
        let names = Identity::ALL.map(|identity| store().secret(identity).to_owned());

        assert_eq!(names, ["w", "c", "r", "j"]);
    }
}
