//! Deletes one backup, or what an attempt left that was never committed: the only place that deletes what is an archive's.
//!
//! Input: what was judged; the bucket as its reader and as its janitor. Output: [`Erased`]. What is deleted is what was
//! listed under keys of this format, version by version: never a prefix, never what has another name.
//!
//! # Order
//! The commit, then the manifest, then pages, then segments: at every moment what a commit names is there. What a lock
//! keeps is left, is no error, and is told; what comes after it in the order is then left too.

use futures::{StreamExt, stream};
use jiff::Timestamp;

use super::{
    commit::Commit,
    fetch::{self, Archive},
    finding::{Finding, Flaw},
    layout::{DataObject, Folder, Key},
};
use crate::{
    archive::envelope::PublicKey,
    io::bucket::{self, Bucket, Kind, Version},
};

/// Versions that are deleted at the same time.
const IN_FLIGHT: usize = 8;

/// Versions that are listed before they are deleted.
const BATCH: usize = 1000;

/// Listings of less than that: the second should be empty. One that is late, or a store that puts an older version in
/// the place of one that goes, gets a second try.
const FEWER_LISTINGS: usize = 4;

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Versions and delete markers that are gone.
    pub versions: u64,
    /// Keys in the folder that are none of this format, which stay.
    pub strangers: u64,
    /// What a lock keeps.
    pub kept: Option<Kept>,
}

/// Something that a lock keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its key.
    pub key: String,
    /// Until when, as the store says; `None` if it does not.
    pub until: Option<Timestamp>,
}

/// It could not be deleted. What is gone is gone, and the next try goes on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What there is cannot be listed.
    #[error("failed to list what is to be deleted")]
    List(#[source] bucket::Error),
    /// The store refuses, or does not answer.
    #[error("failed to delete")]
    Delete(#[source] bucket::Error),
    /// The store answers that it deleted it, and lists it still.
    #[error("the store answers that it deleted {key}, and lists it still: the next look tries again")]
    Stays {
        /// Its key.
        key: String,
    },
    /// Somebody is about to write to it.
    #[error("an attempt may be about to write there: the rest stays, and the next look goes on")]
    Disturbed,
    /// Whether it is committed could not be found out.
    #[error("failed to find out whether {folder} is committed")]
    Ask {
        /// Which folder.
        folder: String,
        /// Why not.
        source: fetch::Error,
    },
}

impl Error {
    /// What the store answered, if it was the store.
    pub fn of_store(&self) -> Option<&bucket::Error> {
        match self {
            Self::List(source) | Self::Delete(source) => Some(source),
            Self::Ask { source: fetch::Error::Store(source), .. } => Some(source),
            Self::Ask { .. } | Self::Stays { .. } | Self::Disturbed => None,
        }
    }
}

/// Who deletes, and who looks.
#[derive(Debug)]
pub struct Eraser<'a> {
    /// Lists and looks.
    pub reader: &'a Archive,
    /// Deletes.
    pub janitor: &'a Bucket,
    /// The time: a refusal over a lock that has ended is a refusal.
    pub now: Timestamp,
}

/// Asked before each version: when it says no, the rest stays. Absent: nobody is asked.
type Still<'a> = Option<&'a (dyn Fn() -> bool + Sync)>;

/// What is known of who writes to a folder that is to go. An old backup is copied late: its slot says nothing.
#[derive(Clone, Copy)]
pub struct Stillness<'a> {
    /// Whatever was put since then may belong to an attempt that is under way.
    pub since: Timestamp,
    /// Whether nobody is about to write there.
    pub is_still: &'a (dyn Fn() -> bool + Sync),
}

/// One version, judged.
struct Doomed {
    key: String,
    version: Option<Version>,
}

impl Eraser<'_> {
    /// Deletes the backup that is committed with `version`: its commit with all that lies over that, then its data.
    ///
    /// # Errors
    /// If the store refuses for another reason than a lock, or does not answer.
    pub async fn backup(&self, folder: &Folder, version: Option<&Version>) -> Result<Erased, Error> {
        let key = Commit::key(&folder.archive, folder.slot).to_string();
        let mut erased = Erased::default();
        // The true commit last: until it goes, the backup can be restored.
        let is_cover = |doomed: &Doomed| doomed.key == key && doomed.version.as_ref() != version;
        self.sweep(&key, is_cover, None, &mut erased).await?;
        if erased.kept.is_none() {
            self.sweep(&key, |doomed| doomed.key == key, None, &mut erased).await?;
        }
        if erased.kept.is_none() {
            self.data(folder, None, &mut erased).await?;
        }
        Ok(erased)
    }

    /// Deletes what was never committed. Asks once more whether that is so, right before; `None` if it is not, or if
    /// something of it is [younger](Stillness) than it should be, or may be written to.
    ///
    /// # Errors
    /// As [`backup`](Self::backup), and if nobody can say whether it is committed.
    pub async fn garbage(
        &self,
        folder: &Folder,
        trusted: &[PublicKey],
        stillness: Stillness<'_>,
    ) -> Result<Option<Erased>, Error> {
        if !self.is_still(folder, stillness).await? {
            return Ok(None);
        }
        match self.reader.commit(&folder.archive, folder.slot, trusted).await {
            Err(fetch::Error::Broken(Finding { flaw: Flaw::Missing, .. })) => {}
            Ok(found) if found.commit.attempt != folder.attempt => {}
            // It is committed, or by somebody whom we do not trust: not ours to judge.
            Ok(_) | Err(fetch::Error::Commit { .. }) => return Ok(None),
            Err(source) => return Err(Error::Ask { folder: folder.to_string(), source }),
        }
        let mut erased = Erased::default();
        self.data(folder, Some(stillness.is_still), &mut erased).await?;
        Ok(Some(erased))
    }

    /// Deletes every version and every delete marker of the one object at `key`, which belongs to no backup.
    ///
    /// # Errors
    /// As [`backup`](Self::backup).
    pub async fn object(&self, key: &str) -> Result<Erased, Error> {
        let mut erased = Erased::default();
        self.sweep(key, |doomed| doomed.key == key, None, &mut erased).await?;
        Ok(erased)
    }

    /// Whether nothing was put into `folder` lately. Of what has no time nobody knows.
    async fn is_still(&self, folder: &Folder, stillness: Stillness<'_>) -> Result<bool, Error> {
        let mut is_old = true;
        let prefix = folder.to_string();
        let listed = self.reader.each_version(&prefix, |line| {
            is_old = line.modified.is_some_and(|put| put < stillness.since);
            is_old
        });
        listed.await.map_err(Error::List)?;
        Ok(is_old && (stillness.is_still)())
    }

    /// The data of one attempt: manifest, pages, segments.
    async fn data(&self, folder: &Folder, still: Still<'_>, erased: &mut Erased) -> Result<(), Error> {
        let within = |doomed: &Doomed| match doomed.key.parse() {
            Ok(Key::Data { folder: found, object }) if found == *folder => Some(object),
            Ok(_) | Err(_) => None,
        };
        let manifest = folder.key(DataObject::Manifest).to_string();
        self.sweep(&manifest, |doomed| within(doomed) == Some(DataObject::Manifest), still, erased).await?;
        if erased.kept.is_some() {
            return Ok(());
        }
        let is_page = |doomed: &Doomed| matches!(within(doomed), Some(DataObject::Page(_)));
        self.sweep(&format!("{folder}index/"), is_page, still, erased).await?;
        if erased.kept.is_some() {
            return Ok(());
        }
        self.sweep(&folder.to_string(), |doomed| within(doomed).is_some(), still, erased).await?;
        let mut strangers = 0;
        let count = |line: bucket::ListedVersion| {
            let is_ours = within(&Doomed { key: line.key, version: None }).is_some();
            strangers += u64::from(!is_ours);
            true
        };
        self.reader.each_version(&folder.to_string(), count).await.map_err(Error::List)?;
        erased.strangers = strangers;
        Ok(())
    }

    /// Deletes what lies below `prefix` and is `doomed`, some at a time, until none of it is listed or a lock keeps
    /// something.
    async fn sweep(
        &self,
        prefix: &str,
        doomed: impl Fn(&Doomed) -> bool,
        still: Still<'_>,
        erased: &mut Erased,
    ) -> Result<(), Error> {
        let mut fewer = FEWER_LISTINGS;
        loop {
            let mut batch: Vec<Vec<Doomed>> = Vec::new();
            let mut listed = 0;
            let pages = self.reader.each_version(prefix, |line| {
                let one = Doomed { key: line.key, version: line.version };
                if doomed(&one) {
                    listed += 1;
                    match batch.last_mut().filter(|last| last.iter().all(|other| other.key == one.key)) {
                        Some(last) => last.push(one),
                        None => batch.push(vec![one]),
                    }
                }
                listed < BATCH
            });
            pages.await.map_err(Error::List)?;
            if batch.is_empty() {
                return Ok(());
            }
            if listed < BATCH {
                fewer -= 1;
            }
            if fewer == 0 {
                let stays = batch.swap_remove(0).swap_remove(0);
                return Err(Error::Stays { key: stays.key });
            }
            let mut work =
                stream::iter(batch).map(|of_key| self.all(of_key, still)).buffer_unordered(IN_FLIGHT);
            while let Some(done) = work.next().await {
                let (versions, kept) = done?;
                erased.versions += versions;
                if let Some(kept) = kept {
                    erased.kept = erased.kept.take().max_by_end(kept);
                }
            }
            if erased.kept.is_some() {
                return Ok(());
            }
        }
    }

    /// Deletes versions of one key, one after the other: while one goes, a store may be putting another in its place.
    async fn all(&self, versions: Vec<Doomed>, still: Still<'_>) -> Result<(u64, Option<Kept>), Error> {
        let (mut deleted, mut longest) = (0, None);
        for one in versions {
            match self.one(one, still).await? {
                None => deleted += 1,
                Some(kept) => longest = longest.max_by_end(kept),
            }
        }
        Ok((deleted, longest))
    }

    async fn one(&self, doomed: Doomed, still: Still<'_>) -> Result<Option<Kept>, Error> {
        let Doomed { key, version } = doomed;
        let mut tries = self.reader.retries.begin();
        loop {
            if still.is_some_and(|is_still| !is_still()) {
                return Err(Error::Disturbed);
            }
            match self.janitor.delete(&key, version.as_ref()).await {
                Ok(()) => break,
                // Gone already: another try of ours whose answer was lost.
                Err(error) if error.kind == Kind::NotFound => break,
                // Some stores call a lock a refusal.
                Err(error) if matches!(error.kind, Kind::Locked | Kind::Denied) => {
                    let until = self.reader.locked_until(&key, version.as_ref()).await;
                    let until = until.map_err(Error::Delete)?;
                    return match (&error.kind, until) {
                        (Kind::Locked, until) => Ok(Some(Kept { key, until })),
                        (_, Some(until)) if until > self.now => Ok(Some(Kept { key, until: Some(until) })),
                        (_, Some(_) | None) => Err(Error::Delete(error)),
                    };
                }
                Err(error) => tries.again_after(error).await.map_err(Error::Delete)?,
            }
        }
        tries.succeeded();
        Ok(None)
    }
}

/// Of two that are kept, the one that is kept longer.
trait Longest {
    fn max_by_end(self, other: Kept) -> Option<Kept>;
}

impl Longest for Option<Kept> {
    fn max_by_end(self, other: Kept) -> Option<Kept> {
        Some(match self {
            Some(kept) if kept.until >= other.until => kept,
            Some(_) | None => other,
        })
    }
}
