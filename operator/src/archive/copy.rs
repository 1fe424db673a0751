//! From one bucket to another: a verified copy of the ciphertext, without any key.
//!
//! Input: a committed backup, read as the source's reader; the target, as its writer and its reader. Output: the same
//! segments in the target, and an index and a manifest of its own, which name the target's versions and are else the
//! same. What the operator commits there is for the operator to compare: see [`differs`].
//!
//! Each segment is verified by its digest before it is sent. What is in the target already, from an earlier try, is
//! sent again only if its digest is not the one that was committed: its size is looked at, and its content is read.
//!
//! Memory: as many segments as are in flight and one more; a page of the index; a thousand lines of a listing.

use std::{collections::BTreeMap, num::NonZeroU64, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::{
    canonical,
    commit::ManifestRef,
    digest::Blake3,
    fetch::{self, Archive},
    index::{Entry, Page, Pages},
    layout::{DataObject, Folder, Key, Part, SegmentName},
    manifest::{Manifest, PageSummary, PartSummary},
    progress::Progress,
    retry::{Retries, RetryRule},
};
use crate::io::bucket::{self, Bucket, Content, ListedVersion, LockMode, Pace, Place, Put, Version};

/// Segments whose places in the target are listed together: a page of a listing.
const LISTED: u32 = 1000;

/// How to copy.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Segments that are copied at the same time.
    pub in_flight: usize,
    /// Locked until then, in a target with object lock.
    pub retain_until: Option<Timestamp>,
    /// Who may lift that lock.
    pub lock_mode: LockMode,
    /// The most bytes a second.
    pub bytes_per_second: Option<NonZeroU64>,
    /// When to try a PUT again.
    pub retry: RetryRule,
}

/// What was locked by an earlier try may be locked so much shorter, and is not sent again.
const LOCKED_EARLIER: SignedDuration = SignedDuration::from_hours(12);

impl Options {
    /// Whether a lock until then is as good as the one that is asked for.
    fn is_locked_by(&self, locked_until: Option<Timestamp>) -> bool {
        self.retain_until.is_none_or(|wanted| {
            let least = wanted.saturating_sub(LOCKED_EARLIER).unwrap_or(wanted);
            locked_until.is_some_and(|until| until >= least)
        })
    }
}

/// What lies in the target now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The target's manifest, as a commit names it.
    pub named: ManifestRef,
    /// That manifest.
    pub manifest: Manifest,
    /// Segments that were sent; the others were there.
    pub sent: u64,
    /// Until when what was sent was asked to be locked, and what was there is. The store may have heard otherwise: what
    /// counts is what is seen when the copy is read back.
    pub locked_until: Option<Timestamp>,
}

/// A backup could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source does not let us read, or what is there is not what was committed.
    #[error("failed to read the backup that is to be copied")]
    Source(#[source] fetch::Error),
    /// The target does not let us look.
    #[error("failed to look at what is in the target")]
    Look(#[source] fetch::Error),
    /// The target does not take it.
    #[error("failed to store the copy")]
    Store(#[source] bucket::Error),
    /// The index or the manifest has no canonical form.
    #[error("failed to describe the copy")]
    Describe(#[source] canonical::Error),
}

/// From where to where.
#[derive(Debug)]
pub struct Copier {
    source: Archive,
    target: Archive,
    writer: Bucket,
    options: Options,
    retries: Retries,
    pace: Option<Arc<Pace>>,
}

/// A segment in the target.
struct Lain {
    entry: Entry,
    sent: bool,
    locked_until: Option<Timestamp>,
}

/// The part that is being copied.
struct Tally {
    sent: u64,
    locked_until: Option<Timestamp>,
}

impl Copier {
    /// Reads from `source`, writes by `writer`, and looks at what it wrote by `target`: the same bucket, as its reader.
    /// `source` has the memory: its buffers.
    pub fn new(source: Archive, target: Archive, writer: Bucket, options: Options) -> Self {
        Self {
            source,
            target,
            writer,
            options: Options { in_flight: options.in_flight.max(1), ..options },
            retries: Retries::new(options.retry),
            pace: options.bytes_per_second.map(|limit| Arc::new(Pace::new(limit))),
        }
    }

    /// Copies the backup whose manifest `named` names: segments, then index pages, then the manifest.
    ///
    /// # Errors
    /// What was put by then is named by no manifest; the next try finds it.
    pub async fn copy(
        &self,
        named: &ManifestRef,
        progress: &watch::Sender<Progress>,
    ) -> Result<Copied, Error> {
        let manifest = self.source.manifest(named).await.map_err(Error::Source)?;
        let mut tally = Tally { sent: 0, locked_until: self.options.retain_until };
        let mut parts = Vec::with_capacity(manifest.parts.len());
        for part in &manifest.parts {
            progress.send_modify(|progress| progress.part = Some(part.name));
            parts.push(self.part(&manifest.folder(), part, &mut tally, progress).await?);
        }
        let manifest = Manifest { parts, ..manifest };
        let bytes = Bytes::from(manifest.to_bytes().map_err(Error::Describe)?);
        let key = manifest.folder().key(DataObject::Manifest).to_string();
        let version = self.put(&key, &bytes).await?;
        let named = ManifestRef { key, version, size: bytes.len() as u64, blake3: Blake3::of(&bytes) };
        Ok(Copied { named, manifest, sent: tally.sent, locked_until: tally.locked_until })
    }

    async fn part(
        &self,
        folder: &Folder,
        part: &PartSummary,
        tally: &mut Tally,
        progress: &watch::Sender<Progress>,
    ) -> Result<PartSummary, Error> {
        let mut pages = Pages::of(part.name);
        let mut summaries = Vec::with_capacity(part.pages.len());
        for page in &part.pages {
            let entries = self.source.page(folder, page).await.map_err(Error::Source)?;
            let mut whole = None;
            for group in entries.chunk_by(|one, next| thousand(one) == thousand(next)) {
                let there = self.there(folder, part.name, group).await?;
                let mut lain = stream::iter(group)
                    .map(|entry| self.segment(folder, entry, there.get(&entry.key)))
                    .buffered(self.options.in_flight);
                while let Some(lain) = lain.next().await {
                    let Lain { entry, sent, locked_until } = lain?;
                    tally.sent += u64::from(sent);
                    tally.locked_until = tally.locked_until.min(locked_until);
                    progress.send_modify(|progress| progress.add(entry.size, entry.plain));
                    whole = whole.or(pages.push(&entry).map_err(Error::Describe)?);
                }
            }
            // Pages have the same lines as in the source, so each ends where the source's does.
            if let Some(page) = whole.or_else(|| pages.finish()) {
                summaries.push(self.page(folder, page).await?);
            }
        }
        Ok(PartSummary { pages: summaries, ..part.clone() })
    }

    async fn page(&self, folder: &Folder, page: Page) -> Result<PageSummary, Error> {
        let Page { name, bytes, segments } = page;
        let bytes = Bytes::from(bytes);
        let version = self.put(&folder.key(DataObject::Page(name)).to_string(), &bytes).await?;
        Ok(PageSummary { key: name, version, size: bytes.len() as u64, blake3: Blake3::of(&bytes), segments })
    }

    /// What lies on top under the keys of a thousand segments, with its size.
    async fn there(
        &self,
        folder: &Folder,
        part: Part,
        group: &[Entry],
    ) -> Result<BTreeMap<SegmentName, (Option<Version>, u64)>, Error> {
        let Some(first) = group.first() else { return Ok(BTreeMap::new()) };
        let prefix = format!("{folder}{part}/{:05}", thousand(first));
        let listed = self.target.retries.ask(async || {
            let mut there = BTreeMap::new();
            let add = |line: ListedVersion| {
                if let (Ok(Key::Data { object: DataObject::Segment(name), .. }), Place::Latest) =
                    (line.key.parse(), line.place)
                    && let Content::Object { size_bytes } = line.content
                {
                    there.insert(name, (line.version, size_bytes));
                }
                true
            };
            self.target.each_version(&prefix, add).await.map(|()| there)
        });
        listed.await.map_err(|error| Error::Look(fetch::Error::Store(error)))
    }

    /// One segment, there if it is what was committed, else sent.
    async fn segment(
        &self,
        folder: &Folder,
        entry: &Entry,
        there: Option<&(Option<Version>, u64)>,
    ) -> Result<Lain, Error> {
        if let Some((version, size)) = there
            && *size == entry.size
        {
            let lain = Entry { version: version.clone(), ..entry.clone() };
            if self.target.digest_of(folder, &lain).await.map_err(Error::Look)? == Some(entry.blake3) {
                let key = folder.key(DataObject::Segment(entry.key)).to_string();
                let locked_until = self.target.locked_until(&key, lain.version.as_ref()).await;
                let locked_until = locked_until.map_err(|error| Error::Look(fetch::Error::Store(error)))?;
                // One that an earlier try left with a lock that ends too early, or with none, is put once more.
                if self.options.is_locked_by(locked_until) {
                    return Ok(Lain { entry: lain, sent: false, locked_until });
                }
            }
        }
        let buffer = self.source.buffers.take().await;
        let segment = self.source.segment(folder, entry.clone(), buffer).await.map_err(Error::Source)?;
        let version = self.put(&segment.key, &segment.bytes.freeze()).await?;
        let entry = Entry { version, ..entry.clone() };
        Ok(Lain { entry, sent: true, locked_until: self.options.retain_until })
    }

    /// Puts `bytes`, and tries again with the same.
    async fn put(&self, key: &str, bytes: &Bytes) -> Result<Option<Version>, Error> {
        let how = Put {
            retain_until: self.options.retain_until,
            lock_mode: self.options.lock_mode,
            pace: self.pace.clone(),
            ..Put::default()
        };
        let sent = self.retries.ask(|| self.writer.put(key, bytes.clone(), &how));
        sent.await.map_err(Error::Store)
    }
}

/// By which thousand the target is listed.
fn thousand(entry: &Entry) -> u32 {
    entry.key.number() / LISTED
}

/// Of a manifest what an original and its copy are compared by: it is kept while both stores are asked, and a manifest is
/// large.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Which backup, and by which attempt.
    pub folder: Folder,
    /// Number of all segments.
    pub segments: u64,
    parts: Vec<PartSummary>,
    bare: Blake3,
}

impl Outline {
    /// That of `manifest`.
    ///
    /// # Errors
    /// If it has no written form.
    pub fn of(manifest: Manifest) -> Result<Self, serde_json::Error> {
        let (folder, segments, parts) = (manifest.folder(), manifest.segments(), manifest.parts.clone());
        let mut hasher = blake3::Hasher::new();
        serde_json::to_writer(&mut hasher, &bare(manifest))?;
        Ok(Self { folder, segments, parts, bare: hasher.finalize().into() })
    }
}

/// In what a copy is not the backup that it should be a copy of; `None` if it is. Only versions may differ, and what
/// follows from them: size and digest of pages.
///
/// Both manifests were read by the digests that were named for them, and every page of both is, one at a time.
///
/// # Errors
/// If one of the two stores does not let us look.
pub async fn differs(
    source: (&Archive, &Outline),
    target: (&Archive, &Outline),
) -> Result<Option<String>, fetch::Error> {
    let ((source, original), (target, copy)) = (source, target);
    if original.bare != copy.bare {
        return Ok(Some("its manifest says otherwise than the original's".to_owned()));
    }
    let folder = &original.folder;
    for (original, copy) in original.parts.iter().zip(&copy.parts) {
        for (one, other) in original.pages.iter().zip(&copy.pages) {
            let mut lines = source.page(folder, one).await?;
            let mut copied = target.page(folder, other).await?;
            lines.iter_mut().chain(&mut copied).for_each(|entry| entry.version = None);
            if lines != copied {
                return Ok(Some(format!("its {} names other segments than the original's", one.key)));
            }
        }
    }
    Ok(None)
}

/// A manifest without what is another in each store.
fn bare(mut manifest: Manifest) -> Manifest {
    for page in manifest.parts.iter_mut().flat_map(|part| &mut part.pages) {
        page.version = None;
        page.size = 0;
        page.blake3 = Blake3::of(b"");
    }
    manifest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::layout::PageName;

    fn manifest(version: &str, segments: u32) -> Manifest {
        let page = PageSummary {
            key: PageName::new(Part::Database, 0).unwrap(),
            version: Some(Version::new(version)),
            size: 100 + version.len() as u64,
            blake3: Blake3::of(version.as_bytes()),
            segments,
        };
        let part = PartSummary {
            name: Part::Database,
            segments: segments.into(),
            bytes: 10,
            plain_bytes: 20,
            pages: vec![page],
        };
        Manifest { parts: vec![part], ..crate::archive::manifest::tests::empty() }
    }

    #[test]
    fn only_versions_and_what_follows_from_them_may_differ() {
        let (original, copy) = (manifest("helsinki", 3), manifest("frankfurt-2", 3));
        let sentinel = Manifest { sentinel: "11ee".into(), ..copy.clone() };
        let mut counted = copy.clone();
        counted.row_counts.end.insert("public.notes".into(), 1);
        let bare = |manifest: Manifest| Outline::of(manifest).unwrap().bare;
        let original = bare(original);

        assert_eq!(original, bare(copy));
        assert_ne!(original, bare(manifest("frankfurt-2", 4)));
        assert_ne!(original, bare(sentinel));
        assert_ne!(original, bare(counted));
    }
}
