//! What the operator looks at itself in an archive: before it begins, before it commits, before it gives up; and the
//! commit.
//!
//! The agent's word and the reading pod's word are claims. The manifest that is committed is the one that the
//! operator has read, with the reader's credentials, and found to be this backup's and no other's.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use tracing::info;
use valv_crds::{
    backup::{self, BackupReason, BackupSize, ReadBack},
    policy::VerificationMode,
    reference::TAKE_OVER_ARCHIVE_ANNOTATION,
};

use super::{
    attempt,
    check::{Run, Subject},
    claim,
    owner::{Owner, TakeOver},
};
use crate::{
    agent::last_words::Failure,
    archive::{
        Archive,
        commit::{self, Commit, ManifestRef},
        fetch::{self, FoundCommit},
        finding::{Finding, Flaw},
        layout::{ArchiveId, Attempt, DataObject, Folder, Part},
        manifest::{FORMAT, Manifest, PartSummary},
        retry::{self, RetryRule},
        verify::Mode,
    },
    error::chain,
    io::bucket::{self, Bucket, Put, SettingsError},
    lease::NotLeader,
    signing::Keys,
    store::check::{Identities, Identity, Store},
    tenant::check::Tenant,
};

/// How far the clocks of machines may be apart.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(10);

/// Where a backup's commit is looked for, and whose archive it must be.
#[derive(Clone, Debug)]
pub struct Search {
    /// Whose archive.
    pub archive: ArchiveId,
    /// For which moment.
    pub slot: valv_crds::Slot,
    /// The nonce that this backup's manifests have.
    pub sentinel: String,
    /// Where.
    pub store: Store,
    /// The tenant's name.
    pub tenant: String,
    /// The tenant's UID.
    pub tenant_uid: String,
    /// PostgreSQL's identifier of its database, as far as it is known.
    pub system_identifier: Option<String>,
    /// Whether somebody said that the archive is to be taken over.
    pub takes_over: TakeOver,
}

/// A backup that was written and read back, as two pods say.
#[derive(Clone, Debug)]
pub struct Commission {
    /// Where its commit goes, and what all its attempts share.
    pub search: Search,
    /// Where it lies in the bucket.
    pub folder: Folder,
    /// Its manifest, as the writing pod named it.
    pub manifest: ManifestRef,
    /// How it was read back.
    pub verified: commit::Verified,
    /// Until when all of it is locked, as was seen.
    pub locked_until: Option<Timestamp>,
    /// For whom it must be encrypted.
    pub recipients: Vec<String>,
    /// Whether it must have attachments.
    pub attachments: bool,
    /// The journal's image that it must name; absent: it was begun before this was noted.
    pub journal_image: Option<String>,
    /// The moment that it holds, as the writing pod says.
    pub taken: Timestamp,
}

/// With what an archive is visited.
pub struct Visitor<'a> {
    /// Who may ask.
    pub credentials: &'a Identities<bucket::Credentials>,
    /// What is signed with, and whose signatures count.
    pub keys: &'a Keys,
    /// UID of the namespace `kube-system`.
    pub cluster: &'a str,
    /// The time.
    pub now: Timestamp,
}

/// What is committed.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The commit, as it was read back.
    pub found: FoundCommit,
    /// Its key.
    pub key: String,
    /// How large the backup is, as its manifest says.
    pub size: BackupSize,
    /// When the agent began, as the manifest says: what it holds is no older.
    pub started: Timestamp,
}

/// What a status says of a backup, as its manifest has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Extent {
    /// How large it is.
    pub size: BackupSize,
    /// When the agent began.
    pub started: Timestamp,
}

impl Extent {
    /// That of the backup of `manifest`.
    pub fn of(manifest: &Manifest) -> Self {
        let sum = |of: fn(&PartSummary) -> u64| {
            let sum = manifest.parts.iter().map(of).fold(0, u64::saturating_add);
            i64::try_from(sum).unwrap_or(i64::MAX)
        };
        let size = BackupSize {
            bytes: sum(|part| part.bytes),
            plain_bytes: sum(|part| part.plain_bytes),
            segments: sum(|part| part.segments),
        };
        Self { size, started: manifest.started }
    }
}

/// What was found before a backup begins.
#[derive(Clone, Debug)]
pub enum Found {
    /// Nothing is in the way. Whose the archive was, if it was taken over.
    Clear {
        /// In words.
        taken_over_from: Option<String>,
    },
    /// The archive has this very backup: an answer was lost, or a status.
    Committed(Box<Committed>),
}

/// It could not be committed, or begun.
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
    #[error("failed to read the archive")]
    Fetch(#[source] fetch::Error),
    /// Something could not be put.
    #[error("failed to put {what}")]
    Put {
        /// What.
        what: &'static str,
        /// Why not.
        source: bucket::Error,
    },
    /// The manifest is not this backup's.
    #[error("the manifest is not what was asked for: {0}")]
    Contradiction(String),
    /// Another database was backed up.
    #[error(
        "the database that was backed up is {found}, and the tenant's is {known}: was its volume lost, or is another server behind its host?"
    )]
    DatabaseDiffers {
        /// PostgreSQL's identifier in the manifest.
        found: String,
        /// That of the tenant's status.
        known: String,
    },
    /// The archive has another backup of this slot.
    #[error("the archive has another backup of this slot, of the attempt {0}")]
    SlotTaken(Attempt),
    /// The archive is another's.
    #[error(
        "the archive {archive} belongs to {by}: give the tenant another spec.archiveID, or, to go on with this archive, the annotation {TAKE_OVER_ARCHIVE_ANNOTATION}: {archive}"
    )]
    ArchiveTaken {
        /// Which archive.
        archive: ArchiveId,
        /// Whose it is, in words.
        by: String,
    },
    /// Something could not be written down.
    #[error("failed to write a document down")]
    Canonical(#[source] crate::archive::canonical::Error),
    /// Another operator leads.
    #[error("failed to commit: this operator leads no more")]
    Fenced(#[source] NotLeader),
}

impl Error {
    /// Why the backup is not complete; absent: another try can help.
    pub fn reason(&self) -> Option<BackupReason> {
        match self {
            Self::Contradiction(_) => Some(BackupReason::ManifestInvalid),
            Self::DatabaseDiffers { .. } => Some(BackupReason::DatabaseDiffers),
            Self::SlotTaken(_) => Some(BackupReason::SlotTaken),
            Self::ArchiveTaken { .. } => Some(BackupReason::ArchiveTaken),
            Self::Fetch(fetch::Error::Broken(_)) => Some(BackupReason::ManifestMissing),
            Self::Fetch(fetch::Error::Manifest { .. }) => Some(BackupReason::ManifestInvalid),
            Self::Fetch(fetch::Error::Commit { .. }) => Some(BackupReason::SignatureInvalid),
            Self::Settings { .. }
            | Self::Fetch(fetch::Error::Store(_) | fetch::Error::Worker { .. })
            | Self::Put { .. }
            | Self::Canonical(_)
            | Self::Fenced(_) => None,
        }
    }

    /// Whether another attempt can be better: what was written is no good, and nothing else is in the way.
    pub fn is_of_what_was_written(&self) -> bool {
        self.reason().is_some_and(|reason| {
            attempt::is_of_what_was_written(reason) || reason == BackupReason::DatabaseDiffers
        })
    }

    /// What the store said, if it was the store.
    pub fn of_bucket(&self) -> Option<&bucket::Error> {
        match self {
            Self::Fetch(fetch::Error::Store(error)) | Self::Put { source: error, .. } => Some(error),
            Self::Settings { .. }
            | Self::Fetch(_)
            | Self::Contradiction(_)
            | Self::DatabaseDiffers { .. }
            | Self::SlotTaken(_)
            | Self::ArchiveTaken { .. }
            | Self::Canonical(_)
            | Self::Fenced(_) => None,
        }
    }
}

impl Search {
    /// What `run` looks for in the archive of `tenant` in `store`.
    ///
    /// # Errors
    /// If the tenant's archive can have no such name.
    pub fn of(run: &Run, subject: &Subject, tenant: &Tenant, store: &Store) -> Result<Self, Failure> {
        let wrong = |error: &dyn std::error::Error| Failure {
            reason: BackupReason::NameInvalid,
            message: chain(error),
        };
        let archive: ArchiveId = tenant.archive_id().parse().map_err(|error| wrong(&error))?;
        let takes_over = tenant.object.annotations().get(TAKE_OVER_ARCHIVE_ANNOTATION);
        let status = tenant.object.status.as_ref();
        Ok(Self {
            takes_over: if takes_over.is_some_and(|named| *named == archive.to_string()) {
                TakeOver::Asked
            } else {
                TakeOver::NotAsked
            },
            archive,
            slot: subject.slot,
            sentinel: run.uid().replace('-', ""),
            store: store.clone(),
            tenant: tenant.name.clone(),
            tenant_uid: tenant.object.uid().unwrap_or_default(),
            system_identifier: status.and_then(|status| status.database.system_identifier.clone()),
        })
    }

    /// Looks whether a backup can begin: the archive is this tenant's, or becomes it, and the slot is free.
    ///
    /// # Errors
    /// [`Error::reason`] says whether another try can help.
    pub async fn look_before_beginning(&self, visitor: &Visitor<'_>) -> Result<Found, Error> {
        let taken_over_from = self.claim(visitor).await?;
        match self.look_for_commit(visitor).await? {
            Some(committed) => Ok(Found::Committed(Box::new(committed))),
            None => Ok(Found::Clear { taken_over_from }),
        }
    }

    /// This backup's commit, if the archive has it.
    ///
    /// # Errors
    /// [`Error::SlotTaken`] if it has another's.
    pub async fn look_for_commit(&self, visitor: &Visitor<'_>) -> Result<Option<Committed>, Error> {
        let reader = self.reader(visitor)?;
        match reader.commit(&self.archive, self.slot, &visitor.keys.trusted()).await {
            Ok(found) => {
                let (sentinel, extent) = reader
                    .of_manifest(&found.commit.manifest, |manifest| {
                        let extent = Extent::of(&manifest);
                        (manifest.sentinel, extent)
                    })
                    .await
                    .map_err(Error::Fetch)?;
                if sentinel != self.sentinel {
                    return Err(Error::SlotTaken(found.commit.attempt));
                }
                info!(slot = %self.slot, attempt = %found.commit.attempt, "this backup is committed already");
                Ok(Some(self.committed(found, extent)))
            }
            Err(fetch::Error::Broken(Finding { flaw: Flaw::Missing, .. })) => Ok(None),
            Err(error) => Err(Error::Fetch(error)),
        }
    }

    /// Makes sure that the archive is this tenant's, and says whose it was, if it was taken over now.
    async fn claim(&self, visitor: &Visitor<'_>) -> Result<Option<String>, Error> {
        let reader = self.reader(visitor)?;
        let committer = self.open(visitor, Identity::Committer)?;
        let on_existing = self.store.on_existing();
        let me = self.owner(visitor);
        let claimed =
            claim::claim(&me, self.takes_over, &reader, &committer, on_existing, visitor.keys).await;
        claimed.map_err(|error| match error {
            claim::Error::Taken { by } => Error::ArchiveTaken { archive: self.archive.clone(), by },
            claim::Error::Fetch(source) => Error::Fetch(source),
            claim::Error::Put(source) => Error::Put { what: "the record of whose the archive is", source },
            claim::Error::Canonical(source) => Error::Canonical(source),
        })
    }

    fn owner(&self, visitor: &Visitor<'_>) -> Owner {
        Owner {
            format: FORMAT,
            archive: self.archive.clone(),
            tenant: self.tenant.clone(),
            tenant_uid: self.tenant_uid.clone(),
            cluster: visitor.cluster.to_owned(),
            system_identifier: self.system_identifier.clone(),
            key_id: visitor.keys.signing.public().id().to_string(),
            since: whole_seconds(visitor.now),
        }
    }

    fn committed(&self, found: FoundCommit, extent: Extent) -> Committed {
        let Extent { size, started } = extent;
        Committed { found, key: Commit::key(&self.archive, self.slot).to_string(), size, started }
    }

    fn reader(&self, visitor: &Visitor<'_>) -> Result<Archive, Error> {
        // The visit as a whole has a limit, and comes again.
        let options = fetch::Options { retry: RetryRule::FEW, ..fetch::Options::default() };
        Ok(Archive::new(self.open(visitor, Identity::Reader)?, options))
    }

    fn open(&self, visitor: &Visitor<'_>, identity: Identity) -> Result<Bucket, Error> {
        let settings = self.store.settings(visitor.credentials.of(identity).clone());
        Bucket::open(&settings).map_err(|source| Error::Settings { store: self.store.name.clone(), source })
    }
}

impl Commission {
    /// What `attempt` of `run` wrote and had read back, as the status has it.
    ///
    /// # Errors
    /// If what the pods said cannot be, or is less than was asked for.
    pub fn of(
        run: &Run,
        subject: &Subject,
        tenant: &Tenant,
        store: &Store,
        attempt: &backup::Attempt,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let strange = |message: String| Failure { reason: BackupReason::ManifestInvalid, message };
        let lacking = || strange("the status lacks what the pods said".to_owned());
        let search = Search::of(run, subject, tenant, store)?;
        let order = attempt.order.as_ref().ok_or_else(lacking)?;
        let wrote = attempt.wrote.as_ref().ok_or_else(lacking)?;
        let read =
            attempt.reading.as_ref().and_then(|reading| reading.verified.as_ref()).ok_or_else(lacking)?;
        let manifest = attempt::manifest(wrote).ok_or_else(lacking)?;
        let pod = attempt.id.as_deref().unwrap_or_default();
        let folder = Folder {
            archive: search.archive.clone(),
            slot: subject.slot,
            attempt: pod.parse().map_err(|error| strange(chain(&error)))?,
        };
        let key = folder.key(DataObject::Manifest).to_string();
        if manifest.key != key {
            return Err(strange(format!("the agent names another manifest than {key}")));
        }
        if read.segments != wrote.segments {
            let message =
                format!("{} segments were written, and {} were read back", wrote.segments, read.segments);
            return Err(strange(message));
        }
        if store.name != order.store {
            let message = format!("it was written to {}, and is looked for in {}", order.store, store.name);
            return Err(Failure { reason: BackupReason::SetupChanged, message });
        }
        as_much_as_asked(order, read)
            .map_err(|message| Failure { reason: BackupReason::AgentFailed, message })?;
        let began = attempt.began.as_ref().map_or(now, |began| began.0);
        store
            .locks_long_enough(read.locked_until.as_ref().map(|until| until.0), began, CLOCKS_DIFFER)
            .map_err(|message| Failure { reason: BackupReason::LockTooShort, message })?;
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        Ok(Self {
            search,
            folder,
            manifest,
            verified: commit::Verified {
                mode: match read.mode {
                    VerificationMode::Full => Mode::Full,
                    VerificationMode::Sample => Mode::Sample,
                    VerificationMode::Metadata => Mode::Metadata,
                },
                seed: read.seed.and_then(|seed| seed.try_into().ok()),
                segments_read: count(read.segments_read),
                segments: count(read.segments),
                at: read.at.0,
            },
            locked_until: read.locked_until.as_ref().map(|until| until.0),
            recipients: order.recipients.clone(),
            attachments: order.attachments,
            journal_image: order.journal_image.clone(),
            taken: wrote.taken.0,
        })
    }

    /// Reads the manifest, puts the commit, and reads that back. `leads` is asked right before the commit is put.
    ///
    /// # Errors
    /// [`Error::reason`] says whether another try can help.
    pub async fn carry_out(
        &self,
        visitor: &Visitor<'_>,
        leads: impl Fn() -> Result<(), NotLeader>,
    ) -> Result<Committed, Error> {
        let search = &self.search;
        // A commit of ours whose answer was lost, or that a crash kept from being told; or another's.
        if let Some(committed) = search.look_for_commit(visitor).await? {
            return Ok(committed);
        }
        search.claim(visitor).await?;
        let reader = search.reader(visitor)?;
        // All that is asked of the manifest is asked at once: it is large, and the store may be slow.
        let compared = reader
            .of_manifest(&self.manifest, |manifest| {
                self.compare(&manifest, visitor.now).map(|()| Extent::of(&manifest))
            })
            .await;
        let extent = compared.map_err(Error::Fetch)??;
        let commit = self.commit(visitor.now);
        let bytes = commit.seal(&visitor.keys.signing).map_err(Error::Canonical)?;
        let put = Put {
            on_existing: search.store.on_existing(),
            retain_until: commit.retain_until.filter(|_| search.store.object_lock.is_some()),
            lock_mode: search.store.claimed_mode().unwrap_or_default(),
            ..Put::default()
        };
        leads().map_err(Error::Fenced)?;
        let committer = search.open(visitor, Identity::Committer)?;
        let name = Commit::key(&search.archive, search.slot).to_string();
        match retry::put(&committer, &name, bytes.into(), &put, RetryRule::FEW).await {
            Ok(_) => {}
            Err(error) if error.kind == bucket::Kind::PreconditionFailed => {}
            Err(source) => return Err(Error::Put { what: "the commit", source }),
        }
        let trusted = visitor.keys.trusted();
        let found = reader.commit(&search.archive, search.slot, &trusted).await.map_err(Error::Fetch)?;
        if found.commit.attempt != self.folder.attempt {
            return Err(Error::SlotTaken(found.commit.attempt));
        }
        info!(slot = %search.slot, attempt = %self.folder.attempt, "committed");
        Ok(search.committed(found, extent))
    }

    fn commit(&self, now: Timestamp) -> Commit {
        let Folder { archive, slot, attempt } = &self.folder;
        let store = &self.search.store;
        Commit {
            format: FORMAT,
            archive: archive.clone(),
            slot: *slot,
            attempt: attempt.clone(),
            manifest: self.manifest.clone(),
            verified: self.verified.clone(),
            store: commit::Store {
                name: store.name.clone(),
                region: store.location.region.clone(),
                country: store.location.country.clone(),
            },
            // What was seen, not what was asked for.
            retain_until: self.locked_until.map(whole_seconds),
            committed: whole_seconds(now),
        }
    }

    /// Whether the manifest is of this run: all that was asked for, for these recipients, of this database.
    fn compare(&self, manifest: &Manifest, now: Timestamp) -> Result<(), Error> {
        let wrong = |what: &str| Err(Error::Contradiction(what.to_owned()));
        if manifest.folder() != self.folder {
            return wrong("it is of another run");
        }
        if manifest.sentinel != self.search.sentinel {
            return wrong("its sentinel is another");
        }
        if manifest.recipients != self.recipients {
            return wrong("it is encrypted for others than the attempt was begun for");
        }
        // A drill starts it, with the tenant's Secrets.
        if let Some(ordered) = &self.journal_image
            && manifest.images.get("journal") != Some(ordered)
        {
            return wrong("it names another image of the journal than the attempt was begun with");
        }
        if manifest.parent.is_some() {
            return wrong("it builds on another backup");
        }
        let has = |part: Part| manifest.part(part).is_some_and(|part| part.segments > 0);
        if !has(Part::Database) {
            return wrong("it has no database");
        }
        if !has(Part::Tenant) {
            return wrong("it lacks the tenant and its Secrets");
        }
        if has(Part::Attachments) != self.attachments || manifest.attachments.is_some() != self.attachments {
            return wrong("it has attachments and the tenant has none, or the other way round");
        }
        if manifest.segments() != self.verified.segments {
            return Err(Error::Contradiction(format!(
                "it names {} segments, and {} were read back",
                manifest.segments(),
                self.verified.segments
            )));
        }
        let latest = now.saturating_add(CLOCKS_DIFFER).unwrap_or(Timestamp::MAX);
        let (started, ended) = (whole_seconds(manifest.started), manifest.ended);
        if self.taken < started || self.taken > ended || ended > latest {
            return wrong("the moment that the agent says it holds is not within its run");
        }
        match &self.search.system_identifier {
            Some(known) if *known != manifest.postgres.system_identifier => Err(Error::DatabaseDiffers {
                found: super::plain::plain(&manifest.postgres.system_identifier, super::plain::WORD),
                known: known.clone(),
            }),
            _ => Ok(()),
        }
    }
}

/// Whether as much was read back as was asked for, and as it says itself.
fn as_much_as_asked(order: &backup::Order, read: &ReadBack) -> Result<(), String> {
    if read.mode != order.verification {
        return Err(format!("{:?} was to be read back, and {:?} was", order.verification, read.mode));
    }
    let wanted = match order.verification {
        VerificationMode::Full => read.segments,
        VerificationMode::Sample => i64::from(order.segments.unwrap_or(1)).min(read.segments),
        VerificationMode::Metadata => 0,
    };
    if read.segments_read == wanted {
        Ok(())
    } else {
        Err(format!("{wanted} segments were to be read back, and {} were", read.segments_read))
    }
}

fn whole_seconds(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        archive::manifest::{PartSummary, tests::empty},
        store::check::tests::store,
    };

    const JOURNAL: &str = "registry.example/journal:1@sha256:11";

    fn commission() -> Commission {
        let manifest = manifest();
        Commission {
            search: Search {
                archive: manifest.archive.clone(),
                slot: manifest.slot,
                sentinel: manifest.sentinel.clone(),
                store: store(),
                tenant: "ada".to_owned(),
                tenant_uid: "u".to_owned(),
                system_identifier: Some(manifest.postgres.system_identifier.clone()),
                takes_over: TakeOver::NotAsked,
            },
            folder: manifest.folder(),
            manifest: ManifestRef {
                key: manifest.folder().key(DataObject::Manifest).to_string(),
                version: None,
                size: 1,
                blake3: crate::archive::digest::Blake3::of(b""),
            },
            verified: commit::Verified {
                mode: Mode::Full,
                seed: None,
                segments_read: 2,
                segments: 2,
                at: manifest.ended,
            },
            locked_until: Some("2026-12-27T01:00:03.5Z".parse().unwrap()),
            recipients: manifest.recipients.clone(),
            attachments: false,
            journal_image: Some(JOURNAL.to_owned()),
            taken: "2026-11-22T01:05:00Z".parse().unwrap(),
        }
    }

    fn part(name: Part) -> PartSummary {
        PartSummary { name, segments: 1, bytes: 10, plain_bytes: 100, pages: vec![] }
    }

    fn manifest() -> Manifest {
        let images = [("journal".to_owned(), JOURNAL.to_owned())].into();
        Manifest { parts: vec![part(Part::Database), part(Part::Tenant)], images, ..empty() }
    }

    fn now() -> Timestamp {
        "2026-11-22T02:00:00Z".parse().unwrap()
    }

    fn refused(change: impl FnOnce(&mut Manifest)) -> Option<BackupReason> {
        let mut manifest = manifest();
        change(&mut manifest);
        commission().compare(&manifest, now()).err().and_then(|error| error.reason())
    }

    #[test]
    fn a_manifest_is_committed_only_if_it_is_all_that_was_asked_for() {
        let invalid = Some(BackupReason::ManifestInvalid);

        assert_eq!(refused(|_| {}), None);
        assert_eq!(refused(|manifest| manifest.sentinel = "11".to_owned()), invalid);
        assert_eq!(refused(|manifest| manifest.recipients.reverse()), invalid);
        assert_eq!(refused(|manifest| manifest.parent = Some(manifest.slot)), invalid);
        assert_eq!(
            refused(|manifest| manifest.parts = vec![part(Part::Database), part(Part::Database)]),
            invalid
        );
        assert_eq!(
            refused(|manifest| manifest.parts = vec![part(Part::Tenant), part(Part::Tenant)]),
            invalid
        );
        assert_eq!(refused(|manifest| manifest.parts.push(part(Part::Attachments))), invalid);
        assert_eq!(refused(|manifest| manifest.ended = "2026-11-22T01:04:00Z".parse().unwrap()), invalid);
        assert_eq!(refused(|manifest| manifest.ended = "2026-11-23T01:04:00Z".parse().unwrap()), invalid);
    }

    #[test]
    fn an_image_that_the_operator_did_not_order_is_not_committed() {
        let invalid = Some(BackupReason::ManifestInvalid);
        let other = "registry.example/always-answers:1".to_owned();

        assert_eq!(refused(|manifest| drop(manifest.images.insert("journal".to_owned(), other))), invalid);
        assert_eq!(refused(|manifest| manifest.images.clear()), invalid);
        // An attempt that an older operator began.
        let begun_before = Commission { journal_image: None, ..commission() };
        assert!(begun_before.compare(&manifest(), now()).is_ok());
    }

    #[test]
    fn another_database_is_no_backup_of_this_tenant() {
        let another = refused(|manifest| manifest.postgres.system_identifier = "1".to_owned());

        assert_eq!(another, Some(BackupReason::DatabaseDiffers));
    }

    #[test]
    fn a_commit_states_the_lock_that_was_seen_and_not_the_one_that_was_asked_for() {
        let commit = commission().commit(now());

        assert_eq!(commit.retain_until, Some("2026-12-27T01:00:03Z".parse().unwrap()));
        assert_eq!(commit.committed, now());
    }
}
