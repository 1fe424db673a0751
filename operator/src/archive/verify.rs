//! Whether a backup is in its bucket as it was committed. Needs no key: digests are of the ciphertext.
//!
//! Of every segment and of every page of the index it is looked whether the committed version is there and has its
//! size, until when it is locked, and whether something lies over it. [`Depth`] says of how many segments the content
//! is read and hashed too; pages always are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinSet};

use super::{
    digest::Blake3,
    fetch::{Archive, Error},
    finding::{Finding, Findings, Flaw, KEPT_FINDINGS},
    index::Entry,
    layout::{DataObject, Folder, SegmentName},
    manifest::Manifest,
    progress::Progress,
    segment::SEGMENT_LIMIT_BYTES,
};
use crate::io::bucket::{self, Kind, Meta};

/// Segments that are looked at, not read, at the same time.
const LOOKING: usize = 16;

/// The largest sample: its names are kept in memory.
pub const MOST_SAMPLED: u64 = 10_000;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every segment.
    Full,
    /// Some, drawn by chance.
    Sample {
        /// How many, at most [`MOST_SAMPLED`].
        segments: u64,
        /// What they are drawn with. The same seed draws the same segments: see [`rank`].
        seed: u32,
    },
    /// None.
    Metadata,
}

impl Depth {
    /// Its name.
    pub fn mode(self) -> Mode {
        match self {
            Self::Full => Mode::Full,
            Self::Sample { .. } => Mode::Sample,
            Self::Metadata => Mode::Metadata,
        }
    }

    /// The seed of a sample.
    pub fn seed(self) -> Option<u32> {
        match self {
            Self::Sample { seed, .. } => Some(seed),
            Self::Full | Self::Metadata => None,
        }
    }
}

/// How much was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Every segment.
    Full,
    /// Some.
    Sample,
    /// None: only sizes and versions were looked at.
    Metadata,
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Full => "Full",
            Self::Sample => "Sample",
            Self::Metadata => "Metadata",
        })
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// How much was to be read.
    pub mode: Mode,
    /// Segments that the manifest counts.
    pub segments: u64,
    /// Segments whose version and size were looked at.
    pub segments_seen: u64,
    /// Segments that were read, and are what was committed.
    pub segments_read: u64,
    /// Bytes of them.
    pub bytes_read: u64,
    /// What is lost or altered.
    pub broken: Findings,
    /// What lies over what was committed: tampering, and no loss.
    pub covered: Findings,
    /// Until when all of it is locked.
    pub lock: Lock,
}

/// Until when all objects that were looked at are locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lock {
    /// None was looked at.
    #[default]
    Unseen,
    /// One has no lock.
    None,
    /// The first lock ends then.
    Until(Timestamp),
}

impl Lock {
    /// What holds when one more object is locked until `until`.
    #[must_use]
    pub fn and(self, until: Option<Timestamp>) -> Self {
        match (self, until) {
            (Self::None, _) | (_, None) => Self::None,
            (Self::Unseen, Some(until)) => Self::Until(until),
            (Self::Until(least), Some(until)) => Self::Until(least.min(until)),
        }
    }

    /// When the first lock ends; absent: not all are locked.
    pub fn until(self) -> Option<Timestamp> {
        if let Self::Until(until) = self { Some(until) } else { None }
    }
}

impl Verdict {
    /// Whether all that was committed is there, as far as it was looked.
    pub fn is_whole(&self) -> bool {
        self.broken.is_empty() && self.segments_seen == self.segments
    }
}

/// Where a segment stands in the draw of a sample: those with the lowest ranks are read.
///
/// The BLAKE3 digest of `<seed>:<key within the attempt's folder>`, so that anybody can draw again with
/// `b3sum`.
pub fn rank(seed: u32, name: SegmentName) -> [u8; 32] {
    *Blake3::of(format!("{seed}:{name}").as_bytes()).as_bytes()
}

/// Verifies the backup that `manifest` describes.
///
/// # Errors
/// Only if the store does not let us look. What is wrong with the backup is in the verdict.
pub async fn verify(
    archive: &Archive,
    manifest: &Manifest,
    depth: Depth,
    progress: &watch::Sender<Progress>,
) -> Result<Verdict, Error> {
    let folder = manifest.folder();
    let mut verifier = Verifier {
        archive,
        folder: &folder,
        progress,
        work: JoinSet::new(),
        verdict: Verdict {
            mode: depth.mode(),
            segments: manifest.segments(),
            segments_seen: 0,
            segments_read: 0,
            bytes_read: 0,
            broken: Findings::default(),
            covered: Findings::default(),
            lock: Lock::Unseen,
        },
        strangers: BTreeMap::new(),
    };
    let drawn = draw(archive, manifest, depth).await?;
    for part in &manifest.parts {
        progress.send_modify(|progress| progress.part = Some(part.name));
        for page in &part.pages {
            let key = folder.key(DataObject::Page(page.key)).to_string();
            let seen = look(archive, &key, page.version.as_ref(), page.size).await?;
            verifier.verdict.lock = seen.lock(verifier.verdict.lock);
            let entries = match archive.page(&folder, page).await {
                Ok(entries) => entries,
                Err(Error::Broken(finding)) => {
                    verifier.verdict.broken.push(finding);
                    continue;
                }
                Err(error) => return Err(error),
            };
            // What is gone altogether is not covered: only here is it known to be there.
            seen.covered.into_iter().for_each(|finding| verifier.verdict.covered.push(finding));
            for entry in entries {
                let task = match depth {
                    Depth::Full => Task::LookAndRead,
                    Depth::Sample { .. } if drawn.contains(&entry.key) => Task::LookAndRead,
                    Depth::Sample { .. } | Depth::Metadata => Task::Look,
                };
                verifier.begin(entry, task).await?;
            }
        }
    }
    while verifier.settle_one().await? {}
    let Verifier { mut verdict, strangers, .. } = verifier;
    name_the_swapped(archive, manifest, strangers, &mut verdict.broken).await?;
    Ok(verdict)
}

/// What lies over the committed `version` of the object at `key`, by the store's word.
///
/// For objects of which it is known from elsewhere that the committed version is there: the manifest, pages.
pub async fn covering(
    archive: &Archive,
    key: &str,
    version: Option<&bucket::Version>,
) -> Result<Option<Finding>, Error> {
    let Some(version) = version else { return Ok(None) };
    let flaw = match head(archive, key, None).await? {
        Some(meta) if meta.version.as_ref() == Some(version) => return Ok(None),
        Some(meta) => Flaw::Covered { by: meta.version },
        None => Flaw::Hidden,
    };
    Ok(Some(Finding::of(key, flaw)))
}

/// What is done with one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Look,
    LookAndRead,
}

/// What came of it.
struct Outcome {
    /// Bytes that were read and hashed; `None` if it was only looked at.
    read_bytes: Option<u64>,
    plain_bytes: u64,
    broken: Option<Finding>,
    covered: Option<Finding>,
    /// Until when it is locked; absent outside: it is not there.
    locked: Option<Option<Timestamp>>,
    /// Digest of what lies where the segment should.
    stranger: Option<Blake3>,
}

struct Verifier<'a> {
    archive: &'a Archive,
    folder: &'a Folder,
    progress: &'a watch::Sender<Progress>,
    work: JoinSet<Result<Outcome, Error>>,
    verdict: Verdict,
    /// Keys of segments that are not what was committed, by the digest of what they are.
    strangers: BTreeMap<[u8; 32], String>,
}

impl Verifier<'_> {
    /// Begins with one segment, when there is room for it.
    async fn begin(&mut self, entry: Entry, task: Task) -> Result<(), Error> {
        while self.work.len() >= LOOKING {
            self.settle_one().await?;
        }
        let (archive, folder) = (self.archive.clone(), self.folder.clone());
        self.work.spawn(async move { examine(&archive, &folder, entry, task).await });
        Ok(())
    }

    /// Notes one outcome; `false` if there is no more work.
    async fn settle_one(&mut self) -> Result<bool, Error> {
        let Some(done) = self.work.join_next().await else { return Ok(false) };
        let outcome = done.map_err(|source| Error::Worker { key: self.folder.to_string(), source })??;
        let verdict = &mut self.verdict;
        verdict.segments_seen += 1;
        if let Some(until) = outcome.locked {
            verdict.lock = verdict.lock.and(until);
        }
        if let Some(bytes) = outcome.read_bytes {
            verdict.segments_read += 1;
            verdict.bytes_read += bytes;
        }
        let read_bytes = outcome.read_bytes.unwrap_or(0);
        self.progress.send_modify(|progress| progress.add(read_bytes, outcome.plain_bytes));
        if let (Some(finding), Some(stranger)) = (&outcome.broken, outcome.stranger)
            && self.strangers.len() < KEPT_FINDINGS
        {
            self.strangers.insert(*stranger.as_bytes(), finding.key.clone());
        }
        outcome.broken.into_iter().for_each(|finding| verdict.broken.push(finding));
        outcome.covered.into_iter().for_each(|finding| verdict.covered.push(finding));
        Ok(true)
    }
}

async fn examine(archive: &Archive, folder: &Folder, entry: Entry, task: Task) -> Result<Outcome, Error> {
    let key = folder.key(DataObject::Segment(entry.key)).to_string();
    let Look { broken, covered, locked } = look(archive, &key, entry.version.as_ref(), entry.size).await?;
    let plain_bytes = entry.plain;
    let mut outcome = Outcome { read_bytes: None, plain_bytes, broken, covered, locked, stranger: None };
    if task == Task::Look {
        return Ok(outcome);
    }
    if outcome.broken.is_none() {
        let buffer = archive.buffers.take().await;
        match archive.segment(folder, entry.clone(), buffer).await {
            Ok(_) => {
                outcome.read_bytes = Some(entry.size);
                return Ok(outcome);
            }
            Err(Error::Broken(finding)) => outcome.broken = Some(finding),
            Err(error) => return Err(error),
        }
    }
    outcome.stranger = match outcome.broken.as_ref().map(|finding| &finding.flaw) {
        Some(Flaw::Altered { found, .. }) => Some(*found),
        Some(Flaw::Size { found, .. }) if *found <= SEGMENT_LIMIT_BYTES as u64 => {
            archive.digest_of(folder, &entry).await?
        }
        Some(_) | None => None,
    };
    Ok(outcome)
}

/// What was seen of one object, without reading it.
struct Look {
    broken: Option<Finding>,
    covered: Option<Finding>,
    /// Until when it is locked; absent outside: it is not there.
    locked: Option<Option<Timestamp>>,
}

impl Look {
    /// What holds of the locks when this object's counts too.
    fn lock(&self, before: Lock) -> Lock {
        self.locked.map_or(before, |until| before.and(until))
    }
}

/// Whether the committed version of an object is there with its size, until when it is locked, and what lies over it.
async fn look(
    archive: &Archive,
    key: &str,
    version: Option<&bucket::Version>,
    size: u64,
) -> Result<Look, Error> {
    let latest = head(archive, key, None).await?;
    let is_ours = |meta: &Meta| version.is_none() || meta.version.as_ref() == version;
    let covered = match &latest {
        Some(meta) if is_ours(meta) => None,
        Some(meta) => Some(Flaw::Covered { by: meta.version.clone() }),
        None => Some(Flaw::Hidden),
    };
    let ours = match (latest, version) {
        (Some(meta), _) if is_ours(&meta) => Some(meta),
        (_, Some(version)) => head(archive, key, Some(version)).await?,
        (_, None) => None,
    };
    let broken = match &ours {
        None => Some(Flaw::Missing),
        Some(meta) if meta.size_bytes != size => Some(Flaw::Size { expected: size, found: meta.size_bytes }),
        Some(_) => None,
    };
    // What is gone altogether is not hidden.
    let covered = if ours.is_none() && covered == Some(Flaw::Hidden) { None } else { covered };
    let locked = match ours {
        // Only there HEAD may hide it, and another request for each object of a store without locks is too much.
        Some(meta) if covered.is_some() => {
            Some(archive.lock_of(key, version, &meta).await.map_err(Error::Store)?)
        }
        ours => ours.map(|meta| meta.retained_until),
    };
    let finding = |flaw| Finding::of(key, flaw);
    Ok(Look { broken: broken.map(finding), covered: covered.map(finding), locked })
}

async fn head(
    archive: &Archive,
    key: &str,
    version: Option<&bucket::Version>,
) -> Result<Option<Meta>, Error> {
    match archive.meta_of(key, version).await {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(Error::Store(error)),
    }
}

/// The segments that a sample reads.
async fn draw(archive: &Archive, manifest: &Manifest, depth: Depth) -> Result<BTreeSet<SegmentName>, Error> {
    let Depth::Sample { segments, seed } = depth else { return Ok(BTreeSet::new()) };
    let folder = manifest.folder();
    let mut sample = Sample::of(segments, seed);
    for page in manifest.parts.iter().flat_map(|part| &part.pages) {
        match archive.page(&folder, page).await {
            Ok(entries) => entries.iter().for_each(|entry| sample.offer(entry.key)),
            // It is found again, and said, when the segments are looked at.
            Err(Error::Broken(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sample.drawn())
}

/// The segments with the lowest ranks so far.
struct Sample {
    seed: u32,
    most: usize,
    lowest: BTreeSet<([u8; 32], SegmentName)>,
}

impl Sample {
    fn of(segments: u64, seed: u32) -> Self {
        let most = usize::try_from(segments.min(MOST_SAMPLED)).unwrap_or(usize::MAX);
        Self { seed, most, lowest: BTreeSet::new() }
    }

    fn offer(&mut self, name: SegmentName) {
        self.lowest.insert((rank(self.seed, name), name));
        if self.lowest.len() > self.most {
            self.lowest.pop_last();
        }
    }

    fn drawn(self) -> BTreeSet<SegmentName> {
        self.lowest.into_iter().map(|(_, name)| name).collect()
    }
}

/// Looks for the digests that were found where they do not belong: whose content is it?
async fn name_the_swapped(
    archive: &Archive,
    manifest: &Manifest,
    mut strangers: BTreeMap<[u8; 32], String>,
    broken: &mut Findings,
) -> Result<(), Error> {
    let folder = manifest.folder();
    for page in manifest.parts.iter().flat_map(|part| &part.pages) {
        if strangers.is_empty() {
            break;
        }
        let entries = match archive.page(&folder, page).await {
            Ok(entries) => entries,
            Err(Error::Broken(_)) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let Some(key) = strangers.remove(entry.blake3.as_bytes()) else { continue };
            let with = folder.key(DataObject::Segment(entry.key)).to_string();
            for finding in broken.first.iter_mut().filter(|finding| finding.key == key) {
                finding.flaw = Flaw::Swapped { with: with.clone() };
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::layout::Part;

    fn drawn(segments: u64, seed: u32, of: u32) -> Vec<u32> {
        let mut sample = Sample::of(segments, seed);
        (0..of).for_each(|number| sample.offer(SegmentName::new(Part::Database, number).unwrap()));
        sample.drawn().into_iter().map(SegmentName::number).collect()
    }

    #[test]
    fn a_sample_is_as_large_as_asked_drawn_again_by_its_seed_and_different_by_another() {
        assert_eq!(drawn(20, 7, 1000).len(), 20);
        assert_eq!(drawn(20, 7, 1000), drawn(20, 7, 1000));
        assert_ne!(drawn(20, 7, 1000), drawn(20, 8, 1000));
        assert_eq!(drawn(20, 7, 5), [0, 1, 2, 3, 4]);
        assert_eq!(drawn(0, 7, 5), [0; 0]);
    }

    #[test]
    fn the_lock_of_all_is_the_first_that_ends_and_one_without_is_none() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());

        assert_eq!(Lock::Unseen.until(), None);
        assert_eq!(Lock::Unseen.and(at(9)).and(at(7)).and(at(8)).until(), at(7));
        assert_eq!(Lock::Unseen.and(at(9)).and(None).and(at(8)).until(), None);
    }

    #[test]
    fn every_segment_is_drawn_about_as_often_as_the_others() {
        let mut counts = [0; 10];
        for seed in 0..1000 {
            for number in drawn(3, seed, 10) {
                counts[number as usize] += 1;
            }
        }

        assert!(counts.iter().all(|count| (230..370).contains(count)), "{counts:?}");
    }
}
