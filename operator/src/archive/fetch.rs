//! Gets commits, manifests, index pages and segments, and believes none of them before it is verified.
//!
//! Every object is asked for by the version that was committed, so what lies over it does no harm. Nothing
//! here needs a key.

use std::{convert::identity, sync::Arc};

use tokio::sync::{Semaphore, SemaphorePermit};
use valv_crds::Slot;

use super::{
    buffers::{Buffer, Buffers},
    commit::{COMMIT_LIMIT_BYTES, Commit, InvalidCommit, ManifestRef},
    digest::Blake3,
    envelope::{KeyId, PublicKey},
    finding::{Finding, Findings, Flaw},
    index::{self, Entry, PAGE_LIMIT_BYTES},
    layout::{ArchiveId, DataObject, Folder},
    manifest::{InvalidManifest, MANIFEST_LIMIT_BYTES, Manifest, PageSummary},
    retry::{Retries, RetryRule},
    segment::SEGMENT_LIMIT_BYTES,
};
use crate::{
    error::chain,
    io::bucket::{self, Bucket, Content, Kind, Meta, Place, Version},
};

/// Versions of one commit that are looked at.
const MOST_COMMITS: usize = 64;

/// Room for parsed manifests in this process, whoever asks and of whichever store: for two of the largest, or for many.
/// Nobody has room while a store is asked: one that is slow would stop all others.
static ROOM: Semaphore = Semaphore::const_new(ROOM_KIB as usize);

/// That room, in KiB.
const ROOM_KIB: u32 = 80 * 1024;

/// What a manifest becomes in memory, as a multiple of its size in the store: see [`MANIFEST_LIMIT_BYTES`].
const GROWTH: u64 = 10;

/// How to read.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Segments that are fetched ahead of the one that is being restored. Two more are in memory.
    pub ahead: usize,
    /// When to try again.
    pub retry: RetryRule,
}

impl Default for Options {
    /// Three ahead: 80 MiB of segments.
    fn default() -> Self {
        Self { ahead: 3, retry: RetryRule::default() }
    }
}

/// Something could not be had from the bucket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error("failed to read the archive")]
    Store(#[source] bucket::Error),
    /// What is there is not what was committed.
    #[error("the archive is broken")]
    Broken(#[source] Finding),
    /// The commit is not to be believed.
    #[error("failed to believe {key}")]
    Commit {
        /// Which.
        key: String,
        /// Why not.
        source: InvalidCommit,
    },
    /// The manifest is what was committed, and cannot be read.
    #[error("failed to read {key}")]
    Manifest {
        /// Which.
        key: String,
        /// Why not.
        source: InvalidManifest,
    },
    /// A thread of ours ended early.
    #[error("failed to verify {key}")]
    Worker {
        /// What it was at.
        key: String,
        /// How it ended.
        source: tokio::task::JoinError,
    },
}

/// A commit that a trusted key signed.
#[derive(Clone, Debug)]
pub struct FoundCommit {
    /// What it says.
    pub commit: Commit,
    /// Which key signed it.
    pub key_id: KeyId,
    /// Which version of its object it is.
    pub version: Option<Version>,
    /// The digest of its bytes, as they were read.
    pub blake3: Blake3,
    /// What lies over it, or beside it under the same key.
    pub covered: Findings,
}

/// A document that nobody vouches for yet.
#[derive(Clone, Debug)]
pub struct FoundDocument {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Which version of its object it is.
    pub version: Option<Version>,
}

/// A segment that is what was committed.
#[derive(Debug)]
pub(super) struct Segment {
    pub key: String,
    pub entry: Entry,
    pub bytes: Buffer,
}

/// A bucket to be read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Archive {
    pub(super) bucket: Bucket,
    pub(super) options: Options,
    pub(super) retries: Arc<Retries>,
    pub(super) buffers: Buffers,
}

impl Archive {
    /// The archive in `bucket`. Asks nobody yet.
    pub fn new(bucket: Bucket, options: Options) -> Self {
        let options = Options { ahead: options.ahead.max(1), ..options };
        Self {
            bucket,
            options,
            retries: Arc::new(Retries::new(options.retry)),
            buffers: Buffers::new(options.ahead + 2),
        }
    }

    /// The commit of `archive` for `slot`: of all that lies under its key, what one of `trusted` signed.
    ///
    /// A delete marker or a forgery over it is seen through and reported. If several are signed, the first
    /// that was committed counts, by the time that was signed with it.
    ///
    /// # Errors
    /// [`Flaw::Missing`] if there is none; [`Error::Commit`] with what is wrong with the latest, if none is to
    /// be believed.
    pub async fn commit(
        &self,
        archive: &ArchiveId,
        slot: Slot,
        trusted: &[PublicKey],
    ) -> Result<FoundCommit, Error> {
        let key = Commit::key(archive, slot).to_string();
        let versions = self.versions_of(&key).await?;
        let mut found: Option<FoundCommit> = None;
        let mut refused: Option<InvalidCommit> = None;
        for version in &versions.objects {
            let bytes = match self.document(&key, version.as_ref(), COMMIT_LIMIT_BYTES).await {
                Ok(bytes) => bytes,
                // One of them was taken away since the listing: the others count all the same.
                Err(Error::Broken(Finding { flaw: Flaw::Missing, .. })) => continue,
                Err(error) => return Err(error),
            };
            match Commit::open(&bytes, archive, slot, trusted) {
                Ok((commit, key_id))
                    if found.as_ref().is_none_or(|found| commit.committed < found.commit.committed) =>
                {
                    let (version, blake3) = (version.clone(), Blake3::of(&bytes));
                    found =
                        Some(FoundCommit { commit, key_id, version, blake3, covered: Findings::default() });
                }
                Ok(_) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match (found, refused) {
            (Some(mut found), _) => {
                let others = versions.objects.into_iter().filter(|version| *version != found.version);
                others.for_each(|by| found.covered.push(Finding::of(&key, Flaw::Covered { by })));
                (0..versions.markers).for_each(|_| found.covered.push(Finding::of(&key, Flaw::Hidden)));
                Ok(found)
            }
            (None, Some(source)) => Err(Error::Commit { key, source }),
            (None, None) => Err(Error::Broken(Finding::of(&key, Flaw::Missing))),
        }
    }

    /// What lies under `key`, the latest first as far as the store's word goes.
    async fn versions_of(&self, key: &str) -> Result<Lying, Error> {
        let listed = self.retries.ask(async || match self.list_versions_of(key).await {
            // A store without versions need not have the question.
            Err(bucket::Error { kind: Kind::Other { .. }, .. }) => {
                Ok(Lying { objects: vec![None], markers: 0 })
            }
            listed => listed,
        });
        listed.await.map_err(Error::Store)
    }

    async fn list_versions_of(&self, key: &str) -> Result<Lying, bucket::Error> {
        let mut lying = Lying { objects: Vec::new(), markers: 0 };
        let mut pages = self.bucket.list_versions(key);
        while let Some(page) = pages.page().await? {
            for listed in page.into_iter().filter(|listed| listed.key == key) {
                match listed.content {
                    Content::DeleteMarker => lying.markers += 1,
                    Content::Object { .. } if listed.place == Place::Latest => {
                        lying.objects.insert(0, listed.version);
                    }
                    Content::Object { .. } => lying.objects.push(listed.version),
                }
            }
            // The latest and the oldest: whoever lays many over it must not push the true one out.
            while lying.objects.len() > MOST_COMMITS {
                lying.objects.remove(1);
            }
        }
        Ok(lying)
    }

    /// The latest that lies under `key`, be there a delete marker over it or not; absent: nothing does.
    pub async fn latest_document(&self, key: &str, limit_bytes: u64) -> Result<Option<FoundDocument>, Error> {
        let versions = self.versions_of(key).await?;
        let Some(version) = versions.objects.into_iter().next() else { return Ok(None) };
        match self.document(key, version.as_ref(), limit_bytes).await {
            Ok(bytes) => Ok(Some(FoundDocument { bytes, version })),
            Err(Error::Broken(Finding { flaw: Flaw::Missing, .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The manifest that a commit names, as a whole: for a pod, which has one or two. Whoever looks after many tenants
    /// [takes](Self::of_manifest) from it what is needed.
    pub async fn manifest(&self, named: &ManifestRef) -> Result<Manifest, Error> {
        self.of_manifest(named, identity).await
    }

    /// What `take` takes from the manifest that a commit names. The rest is gone when this returns: how many of them are in
    /// memory at once is bounded by their size, for all stores together.
    pub async fn of_manifest<T>(
        &self,
        named: &ManifestRef,
        take: impl FnOnce(Manifest) -> T,
    ) -> Result<T, Error> {
        let key = &named.key;
        let bytes = self
            .committed_document(key, named.version.as_ref(), named.size, named.blake3, MANIFEST_LIMIT_BYTES)
            .await?;
        let _room = room(named.size).await;
        let manifest = parsed(key, &bytes)?;
        if manifest.folder().key(DataObject::Manifest).to_string() != *key {
            let source = InvalidManifest::Contradiction("is of another backup".to_owned());
            return Err(Error::Manifest { key: key.clone(), source });
        }
        Ok(take(manifest))
    }

    /// The manifest of an attempt that is not committed yet, as it lies there, and what a commit says of it.
    pub async fn uncommitted_manifest(&self, folder: &Folder) -> Result<(Manifest, ManifestRef), Error> {
        let key = folder.key(DataObject::Manifest).to_string();
        let version = self.latest_version(&key).await?;
        let bytes = self.document(&key, version.as_ref(), MANIFEST_LIMIT_BYTES).await?;
        let named = ManifestRef { key, version, size: bytes.len() as u64, blake3: Blake3::of(&bytes) };
        let _room = room(named.size).await;
        let manifest = parsed(&named.key, &bytes)?;
        if manifest.folder() != *folder {
            let source = InvalidManifest::Contradiction("is of another backup".to_owned());
            return Err(Error::Manifest { key: named.key, source });
        }
        Ok((manifest, named))
    }

    /// What the store says of an object without giving it out.
    pub async fn meta_of(&self, key: &str, version: Option<&Version>) -> Result<Meta, bucket::Error> {
        self.retries.ask(|| self.bucket.head(key, version)).await
    }

    async fn latest_version(&self, key: &str) -> Result<Option<Version>, Error> {
        match self.meta_of(key, None).await {
            Ok(meta) => Ok(meta.version),
            Err(error) if error.kind == Kind::NotFound => Err(Error::Broken(Finding::of(key, Flaw::Missing))),
            Err(error) => Err(Error::Store(error)),
        }
    }

    /// Whether every page of the index is what `manifest` names, and as much as it says.
    pub async fn check_index(&self, manifest: &Manifest) -> Result<(), Error> {
        let folder = manifest.folder();
        for part in &manifest.parts {
            let (mut bytes, mut plain_bytes) = (0_u64, 0_u64);
            for page in &part.pages {
                for entry in self.page(&folder, page).await? {
                    bytes = bytes.saturating_add(entry.size);
                    plain_bytes = plain_bytes.saturating_add(entry.plain);
                }
            }
            if (bytes, plain_bytes) != (part.bytes, part.plain_bytes) {
                let why = format!("has other sizes of {} than its index", part.name);
                let key = folder.key(DataObject::Manifest).to_string();
                return Err(Error::Manifest { key, source: InvalidManifest::Contradiction(why) });
            }
        }
        Ok(())
    }

    /// The first segment of which `page`, the first of its part, tells; verified by its digest.
    pub async fn first_segment(&self, folder: &Folder, page: &PageSummary) -> Result<Option<Vec<u8>>, Error> {
        let entries = self.page(folder, page).await?;
        let Some(entry) = entries.into_iter().next() else { return Ok(None) };
        let key = folder.key(DataObject::Segment(entry.key)).to_string();
        let version = entry.version.as_ref();
        self.committed_document(&key, version, entry.size, entry.blake3, SEGMENT_LIMIT_BYTES as u64)
            .await
            .map(Some)
    }

    /// The entries of one page.
    pub(super) async fn page(&self, folder: &Folder, page: &PageSummary) -> Result<Vec<Entry>, Error> {
        let key = folder.key(DataObject::Page(page.key)).to_string();
        let bytes = self
            .committed_document(&key, page.version.as_ref(), page.size, page.blake3, PAGE_LIMIT_BYTES)
            .await?;
        let malformed = |why: String| Error::Broken(Finding::of(&key, Flaw::Malformed { why }));
        let entries = index::parse(page.key, &bytes).map_err(|error| malformed(chain(&error)))?;
        if entries.len() != page.segments as usize {
            return Err(malformed(format!(
                "it has {} lines, and {} were committed",
                entries.len(),
                page.segments
            )));
        }
        Ok(entries)
    }

    /// A document of which size and digest were committed.
    async fn committed_document(
        &self,
        key: &str,
        version: Option<&Version>,
        size: u64,
        digest: Blake3,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, Error> {
        if size > limit_bytes {
            let why = format!("it has {size} bytes, and at most {limit_bytes} are read");
            return Err(Error::Broken(Finding::of(key, Flaw::Malformed { why })));
        }
        // One byte more, to see that there is more.
        let bytes = self.document(key, version, size + 1).await?;
        let found = bytes.len() as u64;
        if found != size {
            return Err(Error::Broken(Finding::of(key, Flaw::Size { expected: size, found })));
        }
        match Blake3::of(&bytes) {
            found if found == digest => Ok(bytes),
            found => Err(Error::Broken(Finding::of(key, Flaw::Altered { expected: digest, found }))),
        }
    }

    /// All of a small object, at most `limit_bytes` of it.
    async fn document(
        &self,
        key: &str,
        version: Option<&Version>,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, Error> {
        self.read(|| self.document_once(key, version, limit_bytes)).await
    }

    /// Has `once` read until the store does not fail it. What is wrong with what was read stays wrong.
    async fn read<T, F>(&self, once: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let read = self.retries.ask(async || match once().await {
            Err(Error::Store(error)) => Err(error),
            read => Ok(read),
        });
        read.await.map_err(Error::Store)?
    }

    async fn document_once(
        &self,
        key: &str,
        version: Option<&Version>,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, Error> {
        let mut object = self.get(key, version).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = object.chunk().await.map_err(Error::Store)? {
            let room = usize::try_from(limit_bytes).unwrap_or(usize::MAX) - bytes.len();
            bytes.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            if chunk.len() >= room {
                break;
            }
        }
        Ok(bytes)
    }

    /// Begins to read an object, and checks that it is the version that was asked for.
    async fn get(&self, key: &str, version: Option<&Version>) -> Result<bucket::Object, Error> {
        let object = match self.bucket.get(key, version).await {
            Ok(object) => object,
            Err(error) if error.kind == Kind::NotFound => {
                return Err(Error::Broken(Finding::of(key, Flaw::Missing)));
            }
            Err(error) => return Err(Error::Store(error)),
        };
        if version.is_some() && object.meta.version.as_ref() != version {
            let found = object.meta.version;
            return Err(Error::Broken(Finding::of(key, Flaw::OtherVersion { found })));
        }
        Ok(object)
    }

    /// A segment, verified, in `buffer`.
    pub(super) async fn segment(
        &self,
        folder: &Folder,
        entry: Entry,
        mut buffer: Buffer,
    ) -> Result<Segment, Error> {
        let key = folder.key(DataObject::Segment(entry.key)).to_string();
        let mut tries = self.retries.begin();
        loop {
            buffer.clear();
            match self.segment_once(&key, &entry, &mut buffer).await {
                Ok(()) => break,
                Err(Error::Store(error)) => tries.again_after(error).await.map_err(Error::Store)?,
                Err(error) => return Err(error),
            }
        }
        tries.succeeded();
        let hashed = tokio::task::spawn_blocking(move || (Blake3::of(buffer.as_ref()), buffer)).await;
        let (found, bytes) = match hashed {
            Ok(hashed) => hashed,
            Err(source) => return Err(Error::Worker { key, source }),
        };
        if found != entry.blake3 {
            let flaw = Flaw::Altered { expected: entry.blake3, found };
            return Err(Error::Broken(Finding::of(&key, flaw)));
        }
        Ok(Segment { key, entry, bytes })
    }

    /// The digest of what lies where a segment should, for whoever asks whose it is. `None` if it cannot be
    /// had. Hashed as it comes, for it has no place in memory.
    pub(super) async fn digest_of(&self, folder: &Folder, entry: &Entry) -> Result<Option<Blake3>, Error> {
        let key = folder.key(DataObject::Segment(entry.key)).to_string();
        match self.read(|| self.digest_once(&key, entry.version.as_ref())).await {
            Ok(digest) => Ok(Some(digest)),
            Err(Error::Broken(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn digest_once(&self, key: &str, version: Option<&Version>) -> Result<Blake3, Error> {
        let mut object = self.get(key, version).await?;
        let mut hasher = blake3::Hasher::new();
        while let Some(chunk) = object.chunk().await.map_err(Error::Store)? {
            hasher.update(&chunk);
        }
        Ok(hasher.finalize().into())
    }

    async fn segment_once(&self, key: &str, entry: &Entry, buffer: &mut Buffer) -> Result<(), Error> {
        let wrong_size = |found| Error::Broken(Finding::of(key, Flaw::Size { expected: entry.size, found }));
        let mut object = self.get(key, entry.version.as_ref()).await?;
        if object.meta.size_bytes != entry.size {
            return Err(wrong_size(object.meta.size_bytes));
        }
        while let Some(chunk) = object.chunk().await.map_err(Error::Store)? {
            let found = buffer.as_ref().len() as u64 + chunk.len() as u64;
            if found > entry.size {
                return Err(wrong_size(found));
            }
            buffer.append(&chunk).map_err(|_| wrong_size(found))?;
        }
        match buffer.as_ref().len() as u64 {
            found if found == entry.size => Ok(()),
            found => Err(wrong_size(found)),
        }
    }
}

/// Room for a manifest of `size` bytes, when it is its turn.
async fn room(size: u64) -> Option<SemaphorePermit<'static>> {
    // It is closed only with the process.
    ROOM.acquire_many(room_kib(size)).await.ok()
}

/// How much that is: never more than there is, or nobody would ever have it.
fn room_kib(size: u64) -> u32 {
    let kib = size.saturating_mul(GROWTH).div_ceil(1024);
    u32::try_from(kib).unwrap_or(u32::MAX).clamp(1, ROOM_KIB)
}

/// The manifest that lay under `key`. Who has room for it asks.
fn parsed(key: &str, bytes: &[u8]) -> Result<Manifest, Error> {
    Manifest::parse(bytes).map_err(|source| Error::Manifest { key: key.to_owned(), source })
}

/// What lies under one key.
struct Lying {
    objects: Vec<Option<Version>>,
    markers: u32,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Router;
    use tokio::{
        net::TcpListener,
        sync::mpsc::{UnboundedReceiver, unbounded_channel},
        time::timeout,
    };

    use super::*;
    use crate::{
        archive::manifest::tests::empty,
        fake_store::FakeStore,
        io::bucket::{Credentials, Put, Settings},
        store::check::tests::store,
    };

    /// A server that takes requests and answers none; and word of each.
    async fn silent() -> (Bucket, UnboundedReceiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (asked, heard) = unbounded_channel();
        let router = Router::new().fallback(move || {
            asked.send(()).unwrap();
            std::future::pending::<()>()
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        let credentials = Credentials { access_key_id: "r".into(), secret_access_key: "s".to_owned().into() };
        let settings = Settings { endpoint, ..store().settings(credentials) };
        (Bucket::open(&settings).unwrap(), heard)
    }

    #[test]
    fn room_is_by_size_and_the_largest_fits_twice() {
        assert_eq!((room_kib(0), room_kib(100), room_kib(100_000)), (1, 1, 977));
        assert_eq!(room_kib(MANIFEST_LIMIT_BYTES) * 2, ROOM_KIB);
        assert_eq!(room_kib(u64::MAX), ROOM_KIB, "who asked for more would wait for ever");
    }

    #[tokio::test]
    async fn what_is_parsed_takes_room_by_its_size_as_long_as_somebody_looks_at_it() {
        let store = FakeStore::start(|| "2026-11-22T12:00:00Z".parse().unwrap()).await;
        let mut manifest = empty();
        manifest.row_counts.end =
            (0..10_000).map(|number| (format!("public.table_{number:05}"), 1)).collect();
        let bytes = manifest.to_bytes().unwrap();
        let key = manifest.folder().key(DataObject::Manifest).to_string();
        let (size, blake3) = (bytes.len() as u64, Blake3::of(&bytes));
        let version = store.bucket().put(&key, bytes.into(), &Put::default()).await.unwrap();
        let named = ManifestRef { key, version, size, blake3 };
        let archive = Archive::new(store.bucket(), Options::default());

        let left = archive.of_manifest(&named, |_| ROOM.available_permits()).await.unwrap();

        assert!(size > 200_000);
        assert!(left + size as usize * 10 / 1024 <= ROOM_KIB as usize, "{left} KiB are left");
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_keeps_nobody_from_another_s_manifests() {
        let helsinki = FakeStore::start(|| "2026-11-22T12:00:00Z".parse().unwrap()).await;
        let (manifest, bytes) = (empty(), empty().to_bytes().unwrap());
        let key = manifest.folder().key(DataObject::Manifest).to_string();
        let (size, blake3) = (bytes.len() as u64, Blake3::of(&bytes));
        let version = helsinki.bucket().put(&key, bytes.into(), &Put::default()).await.unwrap();
        let named = ManifestRef { key, version, size, blake3 };
        let (silent, mut heard) = silent().await;
        // More than there is room for, were they there.
        let large = ManifestRef { size: MANIFEST_LIMIT_BYTES, ..named.clone() };
        let (frankfurt, helsinki) =
            (Archive::new(silent, Options::default()), Archive::new(helsinki.bucket(), Options::default()));
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let (frankfurt, large) = (frankfurt.clone(), large.clone());
                tokio::spawn(async move { frankfurt.manifest(&large).await.map(drop) })
            })
            .collect();
        for _ in 0..2 {
            heard.recv().await.unwrap();
        }

        let read = timeout(Duration::from_secs(10), helsinki.manifest(&named)).await;

        assert_eq!(read.unwrap().unwrap(), manifest);
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "they wait for an answer");
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
