//! What the operator is to look at itself before it commits, and the commit.
//!
//! The agent's word and the reading pod's word are claims. The manifest that is committed is the one that the
//! operator has read, with the reader's credentials, and found to be this backup's and no other's.

use jiff::{SignedDuration, Timestamp};
use tracing::info;
use valv_crds::{backup::BackupReason, store::Answer};

use super::{
    check::{Run, Subject},
    plan::Setup,
};
use crate::{
    agent::last_words::{Failure, Taken, Verified},
    archive::{
        Archive,
        commit::{self, Commit, ManifestRef},
        envelope::SigningKey,
        fetch::{self, FoundCommit},
        layout::{ArchiveId, Attempt, DataObject, Folder},
        manifest::{FORMAT, Manifest},
    },
    error::chain,
    io::bucket::{self, Bucket, OnExisting, Put, SettingsError},
    store::check::{Identities, Identity, Store},
};

/// A backup that was written and read back, as two pods say.
#[derive(Clone, Debug)]
pub struct Commission {
    /// Where it lies in the bucket.
    pub folder: Folder,
    /// Its manifest, as the writing pod named it.
    pub manifest: ManifestRef,
    /// How it was read back.
    pub verified: commit::Verified,
    /// Where.
    pub store: Store,
    /// The nonce that the manifest must have.
    pub sentinel: String,
    /// For whom it must be encrypted.
    pub recipients: Vec<String>,
    /// Segments over which something lies.
    pub tampered: u64,
    /// The moment that it holds, as the writing pod says.
    pub taken: Timestamp,
}

/// What was committed.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The commit, as it was read back.
    pub found: FoundCommit,
    /// Its key.
    pub key: String,
    /// Its digest.
    pub blake3: String,
    /// The manifest.
    pub manifest: Manifest,
}

/// It could not be committed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A bucket could not be opened.
    #[error("failed to prepare the store {store}")]
    Settings {
        /// Which store.
        store: String,
        /// Why not.
        source: SettingsError,
    },
    /// Something could not be read back.
    #[error("failed to read the backup back")]
    Fetch(#[source] fetch::Error),
    /// The commit could not be put.
    #[error("failed to put the commit")]
    Put(#[source] bucket::Error),
    /// The manifest is not this backup's.
    #[error("the manifest is not what was asked for: {0}")]
    Contradiction(String),
    /// The archive has another backup of this slot.
    #[error("the archive has a backup of this slot already, of the attempt {0}")]
    SlotTaken(Attempt),
    /// The commit could not be written down.
    #[error("failed to write the commit down")]
    Canonical(#[source] crate::archive::canonical::Error),
}

impl Error {
    /// Why the backup is not complete; absent: another try can help.
    pub fn reason(&self) -> Option<BackupReason> {
        match self {
            Self::Contradiction(_) => Some(BackupReason::ManifestInvalid),
            Self::SlotTaken(_) => Some(BackupReason::SlotTaken),
            Self::Fetch(fetch::Error::Broken(_)) => Some(BackupReason::ManifestMissing),
            Self::Fetch(fetch::Error::Manifest { .. }) => Some(BackupReason::ManifestInvalid),
            Self::Fetch(fetch::Error::Commit { .. }) => Some(BackupReason::SignatureInvalid),
            Self::Settings { .. }
            | Self::Fetch(fetch::Error::Store(_) | fetch::Error::Worker { .. })
            | Self::Put(_)
            | Self::Canonical(_) => None,
        }
    }
}

impl Commission {
    /// What `pod` wrote for `run`, and another pod read back.
    ///
    /// # Errors
    /// If what they say cannot be.
    pub fn of(
        run: &Run,
        subject: &Subject,
        setup: &Setup<'_>,
        pod: &str,
        taken: &Taken,
        verified: &Verified,
    ) -> Result<Self, Failure> {
        let strange = |message: String| Failure { reason: BackupReason::ManifestInvalid, message };
        let archive: ArchiveId = setup.tenant.archive_id().parse().map_err(|error| strange(chain(&error)))?;
        let attempt: Attempt = pod.parse().map_err(|error| strange(chain(&error)))?;
        let folder = Folder { archive, slot: subject.slot, attempt };
        let key = folder.key(DataObject::Manifest).to_string();
        if taken.manifest.key != key {
            let message =
                format!("the agent names {} as its manifest, and it writes to {key}", taken.manifest.key);
            return Err(strange(message));
        }
        if verified.segments != taken.segments {
            let message =
                format!("{} segments were written, and {} were read back", taken.segments, verified.segments);
            return Err(strange(message));
        }
        let keys = &setup.protection.recipients;
        Ok(Self {
            folder,
            manifest: taken.manifest.clone(),
            verified: commit::Verified {
                mode: verified.mode,
                seed: verified.seed,
                segments_read: verified.segments_read,
                segments: verified.segments,
                at: verified.at,
            },
            store: setup.store.clone(),
            sentinel: run.uid().replace('-', ""),
            recipients: [Some(&keys.tenant), Some(&keys.escrow), keys.drill.as_ref()]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            tampered: verified.tampered,
            taken: taken.taken,
        })
    }

    /// Reads the manifest, puts the commit, and reads that back.
    ///
    /// # Errors
    /// [`Error::reason`] says whether another try can help.
    pub async fn carry_out(
        &self,
        credentials: &Identities<bucket::Credentials>,
        key: &SigningKey,
        now: Timestamp,
    ) -> Result<Committed, Error> {
        let reader = Archive::new(self.open(credentials, Identity::Reader)?, fetch::Options::default());
        let manifest = reader.manifest(&self.manifest).await.map_err(Error::Fetch)?;
        self.compare(&manifest)?;
        let Folder { archive, slot, attempt } = &self.folder;
        let commit = self.commit(now);
        let trusted = [key.public()];
        let bytes = commit.seal(key).map_err(Error::Canonical)?;
        let name = Commit::key(archive, *slot).to_string();
        let committer = self.open(credentials, Identity::Committer)?;
        match reader.commit(archive, *slot, &trusted).await {
            // A commit of ours whose answer was lost, or that a crash kept from being told.
            Ok(found) if found.commit.attempt == *attempt => {}
            Ok(found) => return Err(Error::SlotTaken(found.commit.attempt)),
            Err(fetch::Error::Broken(_)) => {
                let put = Put {
                    on_existing: self.on_existing(),
                    retain_until: commit.retain_until,
                    ..Put::default()
                };
                match committer.put(&name, bytes.into(), &put).await {
                    Ok(_) => {}
                    Err(error) if error.kind == bucket::Kind::PreconditionFailed => {}
                    Err(error) => return Err(Error::Put(error)),
                }
            }
            Err(error) => return Err(Error::Fetch(error)),
        }
        let found = reader.commit(archive, *slot, &trusted).await.map_err(Error::Fetch)?;
        if found.commit.attempt != *attempt {
            return Err(Error::SlotTaken(found.commit.attempt));
        }
        let blake3 = found.commit.seal(key).map_err(Error::Canonical)?;
        let blake3 = crate::archive::digest::Blake3::of(&blake3).to_string();
        info!(slot = %slot, attempt = %attempt, "committed");
        Ok(Committed { found, key: name, blake3, manifest })
    }

    fn open(
        &self,
        credentials: &Identities<bucket::Credentials>,
        identity: Identity,
    ) -> Result<Bucket, Error> {
        let settings = self.store.settings(credentials.of(identity).clone());
        Bucket::open(&settings).map_err(|source| Error::Settings { store: self.store.name.clone(), source })
    }

    /// A precondition is relied on only where it was seen to be heeded.
    fn on_existing(&self) -> OnExisting {
        let status = self.store.object.status.as_ref();
        let seen = status.and_then(|status| status.capabilities.conditional_put.as_ref());
        if seen.is_some_and(|seen| seen.answer == Answer::Yes) {
            OnExisting::Fail
        } else {
            OnExisting::Replace
        }
    }

    fn commit(&self, now: Timestamp) -> Commit {
        let Folder { archive, slot, attempt } = &self.folder;
        let days = self.store.object_lock.map(|lock| i64::from(lock.days));
        Commit {
            format: FORMAT,
            archive: archive.clone(),
            slot: *slot,
            attempt: attempt.clone(),
            manifest: self.manifest.clone(),
            verified: self.verified.clone(),
            store: commit::Store {
                name: self.store.name.clone(),
                region: self.store.location.region.clone(),
                country: self.store.location.country.clone(),
            },
            retain_until: days
                .and_then(|days| now.checked_add(SignedDuration::from_hours(24 * days)).ok())
                .and_then(|until| Timestamp::from_second(until.as_second()).ok()),
            committed: Timestamp::from_second(now.as_second()).unwrap_or(now),
        }
    }

    /// Whether the manifest is of this run, for these recipients, with this sentinel.
    fn compare(&self, manifest: &Manifest) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Contradiction(what));
        if manifest.folder() != self.folder {
            return wrong("it is of another run".to_owned());
        }
        if manifest.sentinel != self.sentinel {
            return wrong("its sentinel is another".to_owned());
        }
        if manifest.recipients != self.recipients {
            return wrong("it is encrypted for others than the tenant's spec names".to_owned());
        }
        if manifest.segments() != self.verified.segments {
            return wrong(format!(
                "it names {} segments, and {} were read back",
                manifest.segments(),
                self.verified.segments
            ));
        }
        Ok(())
    }
}
