//! Makes the locks of one backup longer: all of it, and the commit last.
//!
//! Input: a committed backup, read as the reader; a moment. Output: nothing, but locks that the reader has seen to end
//! no earlier than that moment. Touches locks only, as the committer, who cannot delete.
//!
//! # Guarantees
//! Segments, then pages, then the manifest, then the commit, each looked at before the next: so the commit's lock is
//! never longer than that of what it names, and whoever looks at the commit alone knows of all.

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::{
    catalogue::Entry,
    commit::Commit,
    fetch::{self, Archive},
    layout::DataObject,
};
use crate::io::bucket::{self, Bucket, Bypass, Kind, LockMode, Meta, Version};

/// Objects whose locks are extended at the same time.
const IN_FLIGHT: usize = 8;

/// A lock could not be made longer. Those that were longer by then stay so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backup cannot be read, so nobody knows what to lock.
    #[error("failed to read the backup whose locks are to be longer")]
    Read(#[source] fetch::Error),
    /// The store refuses, or does not answer.
    #[error("failed to make the lock longer")]
    Retain(#[source] bucket::Error),
    /// The store says that it has done it, and has not.
    #[error(
        "{key} is locked until {found:?}, and was to be until {wanted}: the store does not do as it says"
    )]
    Unheeded {
        /// Of which object.
        key: String,
        /// Until when it was to be locked.
        wanted: Timestamp,
        /// Until when it is.
        found: Option<Timestamp>,
    },
}

impl Error {
    /// Whether something of this very backup is gone or not what it was: others can be locked all the same.
    pub fn is_of_this_backup(&self) -> bool {
        match self {
            Self::Read(fetch::Error::Broken(_)) => true,
            Self::Retain(source) => source.kind == Kind::NotFound,
            Self::Read(_) | Self::Unheeded { .. } => false,
        }
    }

    /// What the store answered, if it was the store.
    pub fn of_store(&self) -> Option<&bucket::Error> {
        match self {
            Self::Retain(source) | Self::Read(fetch::Error::Store(source)) => Some(source),
            Self::Read(_) | Self::Unheeded { .. } => None,
        }
    }
}

/// Locks all of the backup that `entry` commits until `until`, by `committer`, and looks at each lock by `reader`.
///
/// # Errors
/// The first lock that could not be made longer. The same call again goes on.
pub async fn extend(
    reader: &Archive,
    committer: &Bucket,
    entry: &Entry,
    until: Timestamp,
    mode: LockMode,
) -> Result<u64, Error> {
    // It takes up to an hour: of the manifest only the pages are kept.
    let (folder, parts) = reader
        .of_manifest(&entry.commit.manifest, |manifest| (manifest.folder(), manifest.parts))
        .await
        .map_err(Error::Read)?;
    let one =
        |key: String, version: Option<Version>| extend_one(reader, committer, key, version, until, mode);
    let mut extended = 0;
    for page in parts.iter().flat_map(|part| &part.pages) {
        let entries = reader.page(&folder, page).await.map_err(Error::Read)?;
        let segments = entries.into_iter().map(|entry| {
            let key = folder.key(DataObject::Segment(entry.key)).to_string();
            (key, entry.version)
        });
        extended += stream::iter(segments)
            .map(|(key, version)| one(key, version))
            .buffer_unordered(IN_FLIGHT)
            .try_fold(0, async |sum: u64, ()| Ok(sum + 1))
            .await?;
        one(folder.key(DataObject::Page(page.key)).to_string(), page.version.clone()).await?;
        extended += 1;
    }
    let named = &entry.commit.manifest;
    one(named.key.clone(), named.version.clone()).await?;
    let key = Commit::key(&entry.commit.archive, entry.commit.slot).to_string();
    one(key, entry.version.clone()).await?;
    Ok(extended + 2)
}

async fn extend_one(
    reader: &Archive,
    committer: &Bucket,
    key: String,
    version: Option<Version>,
    until: Timestamp,
    mode: LockMode,
) -> Result<(), Error> {
    // A lock that is long enough is left alone: an earlier try came so far.
    let standing = reader.locked_until(&key, version.as_ref()).await.map_err(Error::Retain)?;
    if standing.is_some_and(|standing| standing >= until) {
        return Ok(());
    }
    let extending =
        reader.retries.ask(|| committer.retain_with(&key, version.as_ref(), until, mode, Bypass::Never));
    extending.await.map_err(Error::Retain)?;
    match reader.locked_until(&key, version.as_ref()).await.map_err(Error::Retain)? {
        Some(found) if found >= until => Ok(()),
        found => Err(Error::Unheeded { key, wanted: until, found }),
    }
}

impl Archive {
    /// Until when a version is locked, by the store's word; `None` if it is not, or is not there.
    pub(super) async fn locked_until(
        &self,
        key: &str,
        version: Option<&Version>,
    ) -> Result<Option<Timestamp>, bucket::Error> {
        match self.meta_of(key, version).await {
            Ok(meta) => self.lock_of(key, version, &meta).await,
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Until when the version is locked that HEAD told `meta` of. Where HEAD says nothing of a lock, it is asked for itself:
    /// not every store tells it of a version that something lies over.
    pub async fn lock_of(
        &self,
        key: &str,
        version: Option<&Version>,
        meta: &Meta,
    ) -> Result<Option<Timestamp>, bucket::Error> {
        let (None, Some(version)) = (meta.retained_until, version) else { return Ok(meta.retained_until) };
        self.retries.ask(|| self.bucket.retained_until(key, version)).await
    }
}
