//! Which backups an archive has: all commits that a trusted key signed, whatever lies over them.
//!
//! Input: a bucket as its reader, an archive, trusted keys. Output: a [`Catalogue`]. Reads only. Commits are looked
//! for among all *versions* of their keys: a delete marker or a younger version over one is seen through, and said.
//!
//! Memory: a line a backup, of which there are at most [`MOST_SLOTS`], and [`IN_FLIGHT`] commits at a time.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use valv_crds::Slot;

use super::{
    commit::{COMMIT_LIMIT_BYTES, Commit},
    digest::Blake3,
    envelope::{KeyId, PublicKey},
    fetch::{self, Archive},
    finding::{Finding, Findings, Flaw},
    layout::{ArchiveId, DataObject, Folder, Key},
};
use crate::{
    error::chain,
    io::bucket::{self, Content, Kind, ListedVersion, Place, Version},
};

/// The most backups of one archive in one store: a daily one for 50 years.
pub const MOST_SLOTS: usize = 20_000;

/// Versions of one commit that are looked at: half of them the first that were listed, half the last. Whoever lays
/// many over it must not push the true one out.
const MOST_VERSIONS: usize = 64;

/// Commits that are read at the same time.
const IN_FLIGHT: usize = 8;

/// Attempts of one slot that are looked at.
const MOST_ATTEMPTS: usize = 1_000;

/// Folders of all slots together that are looked at.
const MOST_FOLDERS: usize = 20_000;

/// The backups of one archive in one store.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// Whose.
    pub archive: ArchiveId,
    /// What a trusted key signed.
    pub entries: BTreeMap<Slot, Entry>,
    /// Slots that have a commit which is not to be believed, and none that is; and why. What they name is evidence:
    /// it is neither restored nor deleted.
    pub refused: BTreeMap<Slot, String>,
    /// What lies over commits.
    pub covered: Findings,
    /// Keys in the folder of commits that are none of this format.
    pub strangers: u64,
}

/// The folders of data that an archive has, as far as they were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataFolders {
    /// Of all attempts, committed or not, of the slots that were asked for.
    pub folders: Vec<Folder>,
    /// Slots that have a folder, asked for or not.
    pub slots: BTreeSet<Slot>,
    /// What has more of them than anybody makes, in words: somebody fills the store. What is beyond is left out.
    pub crowded: Option<String>,
}

/// A backup that is committed.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What the commit says.
    pub commit: Commit,
    /// Which key signed it.
    pub key_id: KeyId,
    /// Which version of its object it is.
    pub version: Option<Version>,
    /// Digest of its object.
    pub blake3: Blake3,
    /// Until when a lock keeps the commit, as the store says. The commit's lock is the last to end of all the backup's:
    /// see [`super::lock`].
    pub locked_until: Option<Timestamp>,
}

/// The archive could not be read as a whole: half a catalogue is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The commits cannot be listed.
    #[error("failed to list the commits of {archive}")]
    List {
        /// Whose.
        archive: ArchiveId,
        /// Why not.
        source: bucket::Error,
    },
    /// A commit cannot be read.
    #[error("failed to read the commits of {archive}")]
    Read {
        /// Whose.
        archive: ArchiveId,
        /// Why not.
        source: fetch::Error,
    },
    /// More than anybody makes.
    #[error("{archive} has more than {MOST_SLOTS} commits: somebody fills the store")]
    TooMany {
        /// Whose.
        archive: ArchiveId,
    },
}

impl Error {
    /// What the store answered, if it was the store.
    pub fn of_store(&self) -> Option<&bucket::Error> {
        match self {
            Self::List { source, .. } | Self::Read { source: fetch::Error::Store(source), .. } => {
                Some(source)
            }
            Self::Read { .. } | Self::TooMany { .. } => None,
        }
    }
}

/// What lies under the keys of an archive's commits.
#[derive(Debug, Default)]
struct Listing {
    slots: BTreeMap<Slot, Lying>,
    strangers: u64,
}

/// What lies under the key of one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lying {
    /// The latest first, as far as the store's word goes.
    objects: Vec<Option<Version>>,
    markers: u32,
}

impl Listing {
    fn is_too_long(&self) -> bool {
        self.slots.len() > MOST_SLOTS
    }

    /// Takes in one line. Lines may come in any order.
    fn add(&mut self, archive: &ArchiveId, line: ListedVersion) {
        let slot = match line.key.parse() {
            Ok(Key::Commit { archive: whose, slot }) if whose == *archive => slot,
            Ok(_) | Err(_) => {
                self.strangers += 1;
                return;
            }
        };
        let lying = self.slots.entry(slot).or_default();
        match line.content {
            Content::DeleteMarker => lying.markers = lying.markers.saturating_add(1),
            Content::Object { .. } if line.place == Place::Latest => lying.objects.insert(0, line.version),
            Content::Object { .. } => lying.objects.push(line.version),
        }
        if lying.objects.len() > MOST_VERSIONS {
            lying.objects.remove(MOST_VERSIONS / 2);
        }
    }
}

/// A small object.
pub(super) struct Small {
    /// Its bytes, one more than the limit at most.
    pub bytes: Vec<u8>,
    /// Until when it is locked, if the store said so with it.
    pub locked_until: Option<Timestamp>,
}

/// What came of reading all that lies under one commit's key.
struct Judged {
    entry: Option<Entry>,
    refused: Option<String>,
    covered: Vec<Finding>,
}

impl Archive {
    /// All backups of `archive` that one of `trusted` committed.
    ///
    /// # Errors
    /// If a single commit could not be read: whoever decides on half a catalogue deletes what it did not see.
    pub async fn catalogue(&self, archive: &ArchiveId, trusted: &[PublicKey]) -> Result<Catalogue, Error> {
        let Listing { slots, strangers } = self.list_commits(archive).await?;
        let judged: BTreeMap<Slot, Judged> = stream::iter(slots)
            .map(async |(slot, lying)| {
                let judged = self.judge(archive, slot, lying, trusted).await?;
                Ok::<_, fetch::Error>((slot, judged))
            })
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await
            .map_err(|source| Error::Read { archive: archive.clone(), source })?;
        let mut catalogue = Catalogue {
            archive: archive.clone(),
            entries: BTreeMap::new(),
            refused: BTreeMap::new(),
            covered: Findings::default(),
            strangers,
        };
        for (slot, Judged { entry, refused, covered }) in judged {
            covered.into_iter().for_each(|finding| catalogue.covered.push(finding));
            if let Some(entry) = entry {
                catalogue.entries.insert(slot, entry);
            } else if let Some(why) = refused {
                catalogue.refused.insert(slot, why);
            }
        }
        Ok(catalogue)
    }

    /// Slots of `archive` that have a commit, whoever signed it: for whoever knows from elsewhere which are to be believed.
    ///
    /// # Errors
    /// If the store does not let us look.
    pub async fn slots(&self, archive: &ArchiveId) -> Result<BTreeSet<Slot>, Error> {
        let Listing { slots, strangers: _ } = self.list_commits(archive).await?;
        Ok(slots.into_iter().filter(|(_, lying)| !lying.objects.is_empty()).map(|(slot, _)| slot).collect())
    }

    async fn list_commits(&self, archive: &ArchiveId) -> Result<Listing, Error> {
        let prefix = Key::commits_prefix(archive);
        let listed = self.retries.ask(async || {
            let mut listing = Listing::default();
            let add = |line| {
                listing.add(archive, line);
                !listing.is_too_long()
            };
            self.each_version(&prefix, add).await.map(|()| listing)
        });
        match listed.await {
            Ok(listing) if listing.is_too_long() => Err(Error::TooMany { archive: archive.clone() }),
            Ok(listing) => Ok(listing),
            Err(source) => Err(Error::List { archive: archive.clone(), source }),
        }
    }

    /// Shows `take` each version below `prefix` until it returns `false`; where a store has no versions, each object.
    ///
    /// Tried once: what was shown before an error was shown.
    ///
    /// # Errors
    /// If the store does not let us look.
    pub async fn each_version(
        &self,
        prefix: &str,
        mut take: impl FnMut(ListedVersion) -> bool,
    ) -> Result<(), bucket::Error> {
        let mut pages = self.bucket.list_versions(prefix);
        let mut is_first = true;
        loop {
            match pages.page().await {
                Ok(None) => return Ok(()),
                Ok(Some(page)) => {
                    is_first = false;
                    if !page.into_iter().all(&mut take) {
                        return Ok(());
                    }
                }
                // A store without versions need not have the question.
                Err(bucket::Error { kind: Kind::Other { .. }, .. }) if is_first => break,
                Err(error) => return Err(error),
            }
        }
        let mut pages = self.bucket.list(prefix);
        while let Some(page) = pages.page().await? {
            let as_version = |listed: bucket::Listed| ListedVersion {
                key: listed.key,
                version: None,
                content: Content::Object { size_bytes: listed.size_bytes },
                place: Place::Latest,
                modified: listed.modified,
            };
            if !page.into_iter().map(as_version).all(&mut take) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Of all that lies under the key of `slot`, what counts: as [`Archive::commit`].
    async fn judge(
        &self,
        archive: &ArchiveId,
        slot: Slot,
        lying: Lying,
        trusted: &[PublicKey],
    ) -> Result<Judged, fetch::Error> {
        let key = Commit::key(archive, slot).to_string();
        let mut entry: Option<Entry> = None;
        let mut refused = None;
        for version in &lying.objects {
            let Some(Small { bytes, locked_until }) =
                self.small(&key, version.as_ref(), COMMIT_LIMIT_BYTES).await?
            else {
                continue;
            };
            match Commit::open(&bytes, archive, slot, trusted) {
                Ok((commit, key_id))
                    if entry.as_ref().is_none_or(|entry| commit.committed < entry.commit.committed) =>
                {
                    let (version, blake3) = (version.clone(), Blake3::of(&bytes));
                    entry = Some(Entry { commit, key_id, version, blake3, locked_until });
                }
                Ok(_) => {}
                Err(error) => refused = refused.or_else(|| Some(chain(&error))),
            }
        }
        let mut covered = Vec::new();
        if let Some(entry) = &mut entry {
            // Not every store says so in its answer to a GET.
            if entry.locked_until.is_none() {
                let locked_until = self.locked_until(&key, entry.version.as_ref()).await;
                entry.locked_until = locked_until.map_err(fetch::Error::Store)?;
            }
            let others = lying.objects.iter().filter(|version| **version != entry.version);
            covered.extend(
                others.map(|by| Finding { key: key.clone(), flaw: Flaw::Covered { by: by.clone() } }),
            );
            covered.extend((0..lying.markers).map(|_| Finding { key: key.clone(), flaw: Flaw::Hidden }));
        }
        Ok(Judged { entry, refused, covered })
    }

    /// A small object; `None` if it is not there. What is too large is cut one byte beyond the limit: it parses as
    /// nothing.
    pub(super) async fn small(
        &self,
        key: &str,
        version: Option<&Version>,
        limit_bytes: u64,
    ) -> Result<Option<Small>, fetch::Error> {
        match self.retries.ask(|| self.small_once(key, version, limit_bytes)).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(fetch::Error::Store(error)),
        }
    }

    async fn small_once(
        &self,
        key: &str,
        version: Option<&Version>,
        limit_bytes: u64,
    ) -> Result<Small, bucket::Error> {
        let mut object = self.bucket.get(key, version).await?;
        let locked_until = object.meta.retained_until;
        let mut bytes = Vec::new();
        while let Some(chunk) = object.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit_bytes {
                bytes.truncate(usize::try_from(limit_bytes).unwrap_or(usize::MAX).saturating_add(1));
                break;
            }
        }
        Ok(Small { bytes, locked_until })
    }

    /// The folders of data that an archive has, committed or not, of the slots that `is_asked_for` says: each is a request.
    /// What has a name that is none of this format is left out: nobody judges it, so nobody deletes it. So is a slot with
    /// more attempts than anybody makes.
    ///
    /// # Errors
    /// If they cannot be listed. That there are too many is none: whoever writes to a store must not be able to stop
    /// whoever looks after it.
    pub async fn data_folders(
        &self,
        archive: &ArchiveId,
        is_asked_for: impl Fn(Slot) -> bool,
    ) -> Result<DataFolders, bucket::Error> {
        let mut found = DataFolders::default();
        let data = Key::data_prefix(archive);
        let Some(slots) = self.folders_unless_too_many(&data, MOST_SLOTS).await? else {
            found.crowded = Some(format!("{data} has more than {MOST_SLOTS} folders"));
            return Ok(found);
        };
        for name in slots {
            let Ok(slot) = name.parse::<Slot>() else { continue };
            found.slots.insert(slot);
            if !is_asked_for(slot) {
                continue;
            }
            let prefix = format!("{data}{name}/");
            let Some(attempts) = self.folders_unless_too_many(&prefix, MOST_ATTEMPTS).await? else {
                found.crowded = Some(format!("{prefix} has more than {MOST_ATTEMPTS} folders"));
                continue;
            };
            let attempts = attempts.iter().filter_map(|attempt| attempt.parse().ok());
            found.folders.extend(attempts.map(|attempt| Folder { archive: archive.clone(), slot, attempt }));
            if found.folders.len() > MOST_FOLDERS {
                found.crowded = Some(format!("{data} has more than {MOST_FOLDERS} attempts"));
                return Ok(found);
            }
        }
        Ok(found)
    }

    /// Whether `folder` has a manifest, be there a delete marker over it or not: whoever wrote it had written all.
    ///
    /// # Errors
    /// If the store does not let us look.
    pub async fn has_manifest(&self, folder: &Folder) -> Result<bool, bucket::Error> {
        let key = folder.key(DataObject::Manifest).to_string();
        let listed = self.retries.ask(async || {
            let mut is_there = false;
            let look = |line: ListedVersion| {
                is_there |= line.key == key && matches!(line.content, Content::Object { .. });
                !is_there
            };
            self.each_version(&key, look).await.map(|()| is_there)
        });
        listed.await
    }

    /// The archives that the store has, whoever made them.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn archives(&self) -> Result<Vec<ArchiveId>, bucket::Error> {
        let names = self.folders(&Key::format_prefix(), 1_000_000).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    async fn folders_unless_too_many(
        &self,
        prefix: &str,
        limit: usize,
    ) -> Result<Option<Vec<String>>, bucket::Error> {
        match self.folders(prefix, limit).await {
            Ok(folders) => Ok(Some(folders)),
            Err(bucket::Error { kind: Kind::Other { code, .. }, .. }) if code == bucket::TOO_MANY => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn folders(&self, prefix: &str, limit: usize) -> Result<Vec<String>, bucket::Error> {
        self.retries.ask(|| self.bucket.folders(prefix, limit)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> ArchiveId {
        "ada".parse().unwrap()
    }

    fn line(key: &str, version: &str, content: Content, place: Place) -> ListedVersion {
        let version = Some(Version::new(version));
        ListedVersion { key: key.to_owned(), version, content, place, modified: None }
    }

    const OBJECT: Content = Content::Object { size_bytes: 1 };
    const KEY: &str = "v1/ada/commits/20261122T010000Z.json";

    #[test]
    fn the_true_commit_is_looked_at_however_many_are_laid_over_it() {
        let mut listing = Listing::default();
        for number in 0..1000 {
            let place = if number == 0 { Place::Latest } else { Place::Covered };
            listing.add(&archive(), line(KEY, &format!("v{number}"), OBJECT, place));
        }
        listing.add(&archive(), line(KEY, "first", OBJECT, Place::Covered));
        listing.add(&archive(), line(KEY, "marker", Content::DeleteMarker, Place::Latest));

        let lying = listing.slots.into_values().next().unwrap();
        assert_eq!(lying.objects.len(), MOST_VERSIONS);
        assert_eq!(lying.objects.first(), Some(&Some(Version::new("v0"))));
        assert_eq!(lying.objects.last(), Some(&Some(Version::new("first"))));
        assert_eq!(lying.markers, 1);
    }

    #[test]
    fn what_is_no_commit_of_this_archive_is_counted_and_left_alone() {
        let mut listing = Listing::default();
        for key in ["v1/ada/commits/x.json", "v1/bo/commits/20261122T010000Z.json", "v1/ada/commits/"] {
            listing.add(&archive(), line(key, "v", OBJECT, Place::Latest));
        }

        assert_eq!(listing.strangers, 3);
        assert!(listing.slots.is_empty());
    }
}
