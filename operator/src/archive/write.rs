//! The way out: a stream becomes segments in a bucket.
//!
//! ```text
//! source ─ slices ─→ compress ─→ pack: encrypt, hash ─→ put ─→ index
//!          1 MiB     several      one thread            several in flight
//! ```
//!
//! Input: a tar stream, recipients. Output: segments, index pages and what the manifest says of them. Every
//! queue is bounded and segments lie in a fixed number of [buffers](super::buffers): memory is the same for
//! any size. Nothing is written to a disk.
//!
//! # Guarantees
//! - A failed PUT is tried again with the same bytes. Its answer may have been lost and a version made, so
//!   the index names the version that the last, successful PUT returned.
//! - The first failure ends everything and is what is returned. What was put by then is named by no manifest.
//! - Dropping the future cancels: nothing is put after that, but for what a store has already taken in.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    num::NonZeroU64,
    sync::Arc,
};

use bytes::{BufMut, Bytes};
use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet, spawn_blocking},
    try_join,
};

use super::{
    buffers::Buffers,
    canonical,
    commit::ManifestRef,
    digest::Blake3,
    frame::{Compressors, Frame, SLICE_BYTES},
    index::{Entry, Page, Pages},
    layout::{DataObject, Folder, Part, SegmentName},
    manifest::{Manifest, PageSummary, PartSummary},
    progress::Progress,
    recipients::Recipients,
    retry::{Retries, RetryRule},
    segment::{self, ContentMd5, OpenSegment, Sealed},
    slice::Slices,
};
use crate::io::bucket::{self, Bucket, LockMode, Pace, Put, Version};

/// Segments that are put and wait for an earlier one, before no more are begun. Only their index lines are
/// kept.
const MOST_AHEAD: usize = 1024;

/// zstd's level, where nobody says another: `docs/adr/0016-archive.md`.
pub const LEVEL: i32 = 2;

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// zstd's level.
    pub level: i32,
    /// Slices that are compressed at the same time.
    pub compressing: usize,
    /// Segments that are put at the same time.
    pub in_flight: usize,
    /// Whether a segment's MD5 is sent with it.
    pub content_md5: ContentMd5,
    /// Locked until then, on a store with object lock.
    pub retain_until: Option<Timestamp>,
    /// Who may lift that lock.
    pub lock_mode: LockMode,
    /// The most bytes of ciphertext a second.
    pub bytes_per_second: Option<NonZeroU64>,
    /// When to try again.
    pub retry: RetryRule,
}

impl Default for Options {
    /// Measured on two cores: `docs/adr/0016-archive.md`.
    fn default() -> Self {
        Self {
            level: LEVEL,
            compressing: 3,
            in_flight: 3,
            content_md5: ContentMd5::Omitted,
            retain_until: None,
            lock_mode: LockMode::default(),
            bytes_per_second: None,
            retry: RetryRule::default(),
        }
    }
}

/// A part, or the manifest, could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream that was to be backed up.
    #[error("failed to read the stream of {part}")]
    Source {
        /// Of which part.
        part: Part,
        /// Why.
        source: io::Error,
    },
    /// zstd.
    #[error("failed to compress {part}")]
    Compress {
        /// Which part.
        part: Part,
        /// Why.
        source: io::Error,
    },
    /// age.
    #[error("failed to encrypt {part}")]
    Encrypt {
        /// Which part.
        part: Part,
        /// Why.
        source: segment::Error,
    },
    /// The store.
    #[error("failed to store the backup")]
    Store(#[source] bucket::Error),
    /// The index or the manifest has no canonical form.
    #[error("failed to describe the backup")]
    Describe(#[source] canonical::Error),
    /// More segments than keys have digits for.
    #[error("{part} has more segments than the format allows")]
    TooLarge {
        /// Which part.
        part: Part,
    },
    /// This attempt has begun to write the part before; another attempt may.
    #[error("{part} was begun before in this attempt")]
    Twice {
        /// Which part.
        part: Part,
    },
    /// A manifest was to be put that describes another attempt.
    #[error("the manifest is of another attempt")]
    ForeignManifest,
    /// A thread of ours ended early.
    #[error("failed to finish the work on {part}")]
    Worker {
        /// Which part.
        part: Part,
        /// How it ended; `None` if it was told to.
        source: Option<JoinError>,
    },
}

/// Writes the parts of one attempt.
#[derive(Debug)]
pub struct Writer {
    run: Arc<Run>,
    begun: BTreeSet<Part>,
    progress: watch::Sender<Progress>,
}

/// What all the work of one attempt shares.
#[derive(Debug)]
struct Run {
    bucket: Bucket,
    folder: Folder,
    recipients: Recipients,
    options: Options,
    pace: Option<Arc<Pace>>,
    retries: Retries,
    buffers: Buffers,
    compressors: Compressors,
}

/// What goes from one stage to the next. A stage that ends early says nothing more, so that the end of a
/// queue is not taken for the end of the stream.
enum Message<T> {
    Next(T),
    End,
}

impl Writer {
    /// Writes into `folder` of `bucket`, for `recipients`.
    pub fn new(bucket: Bucket, folder: Folder, recipients: Recipients, options: Options) -> Self {
        let options = Options {
            compressing: options.compressing.max(1),
            in_flight: options.in_flight.max(1),
            ..options
        };
        let run = Run {
            bucket,
            folder,
            recipients,
            options,
            pace: options.bytes_per_second.map(|limit| Arc::new(Pace::new(limit))),
            retries: Retries::new(options.retry),
            // One more is being filled.
            buffers: Buffers::new(options.in_flight + 1),
            compressors: Compressors::new(options.level),
        };
        Self { run: Arc::new(run), begun: BTreeSet::new(), progress: watch::Sender::default() }
    }

    /// How far it has come.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Writes all of `source` as `part`. An end of `source` is taken for the end of the part: whoever feeds
    /// it from a program asks afterwards how that program ended, before it writes the manifest.
    pub async fn part(&mut self, part: Part, source: impl AsyncRead + Unpin) -> Result<PartSummary, Error> {
        if !self.begun.insert(part) {
            return Err(Error::Twice { part });
        }
        self.progress.send_modify(|progress| progress.part = Some(part));
        let run = &self.run;
        let (to_pack, frames) = mpsc::channel(run.options.compressing);
        let (to_put, sealed) = mpsc::channel(1);
        let packer = Packer { run: run.clone(), part, runtime: Handle::current() };
        let packed = async {
            match spawn_blocking(move || packer.pack(frames, to_put)).await {
                Ok(packed) => packed,
                Err(source) => Err(Error::Worker { part, source: Some(source) }),
            }
        };
        let ((), (), summary) =
            try_join!(slice(run, part, source, to_pack), packed, self.put_all(part, sealed))?;
        Ok(summary)
    }

    /// Puts `manifest`, the last object of an attempt, and returns what a commit says of it.
    pub async fn manifest(&self, manifest: &Manifest) -> Result<ManifestRef, Error> {
        if manifest.folder() != self.run.folder {
            return Err(Error::ForeignManifest);
        }
        let bytes = Bytes::from(manifest.to_bytes().map_err(Error::Describe)?);
        let key = self.run.folder.key(DataObject::Manifest).to_string();
        let version = self.run.put(&key, &bytes, None).await?;
        Ok(ManifestRef { key, version, size: bytes.len() as u64, blake3: Blake3::of(&bytes) })
    }

    /// Puts segments as they come, several at a time, and writes the index in their order.
    async fn put_all(
        &self,
        part: Part,
        mut sealed: mpsc::Receiver<Message<Sealed>>,
    ) -> Result<PartSummary, Error> {
        let run = &self.run;
        let mut in_flight = JoinSet::new();
        let mut ahead: BTreeMap<u32, Entry> = BTreeMap::new();
        let mut index = Index::of(part);
        let mut more = true;
        while more || !in_flight.is_empty() {
            let room = in_flight.len() < run.options.in_flight && ahead.len() < MOST_AHEAD;
            tokio::select! {
                message = sealed.recv(), if more && room => match message {
                    Some(Message::Next(segment)) => {
                        let run = run.clone();
                        in_flight.spawn(async move { run.put_segment(segment).await });
                    }
                    Some(Message::End) => more = false,
                    // The packer ended early, and says why.
                    None => std::future::pending().await,
                },
                Some(done) = in_flight.join_next() => {
                    let entry = done.map_err(|source| Error::Worker { part, source: Some(source) })??;
                    ahead.insert(entry.key.number(), entry);
                    while let Some(entry) = ahead.remove(&index.next) {
                        self.progress.send_modify(|progress| progress.add(entry.size, entry.plain));
                        index.push(run, &entry).await?;
                    }
                }
            }
        }
        index.finish(run).await
    }
}

/// The index of one part, on its way.
struct Index {
    pages: Pages,
    next: u32,
    summary: PartSummary,
}

impl Index {
    fn of(part: Part) -> Self {
        let summary = PartSummary { name: part, segments: 0, bytes: 0, plain_bytes: 0, pages: Vec::new() };
        Self { pages: Pages::of(part), next: 0, summary }
    }

    async fn push(&mut self, run: &Run, entry: &Entry) -> Result<(), Error> {
        self.next += 1;
        self.summary.segments += 1;
        self.summary.bytes += entry.size;
        self.summary.plain_bytes += entry.plain;
        match self.pages.push(entry).map_err(Error::Describe)? {
            Some(page) => self.put(run, page).await,
            None => Ok(()),
        }
    }

    async fn finish(mut self, run: &Run) -> Result<PartSummary, Error> {
        if let Some(page) = self.pages.finish() {
            self.put(run, page).await?;
        }
        Ok(self.summary)
    }

    async fn put(&mut self, run: &Run, page: Page) -> Result<(), Error> {
        let Page { name, bytes, segments } = page;
        let bytes = Bytes::from(bytes);
        let key = run.folder.key(DataObject::Page(name)).to_string();
        let version = run.put(&key, &bytes, None).await?;
        self.summary.pages.push(PageSummary {
            key: name,
            version,
            size: bytes.len() as u64,
            blake3: Blake3::of(&bytes),
            segments,
        });
        Ok(())
    }
}

impl Run {
    async fn put_segment(&self, segment: Sealed) -> Result<Entry, Error> {
        let key = self.folder.key(DataObject::Segment(segment.name)).to_string();
        let version = self.put(&key, &segment.bytes, segment.md5).await?;
        Ok(Entry {
            key: segment.name,
            version,
            size: segment.bytes.len() as u64,
            blake3: segment.blake3,
            plain: segment.plain_bytes,
        })
    }

    /// Puts `bytes`, and tries again with the same.
    async fn put(
        &self,
        key: &str,
        bytes: &Bytes,
        content_md5: Option<[u8; 16]>,
    ) -> Result<Option<Version>, Error> {
        let how = Put {
            content_md5,
            retain_until: self.options.retain_until,
            lock_mode: self.options.lock_mode,
            pace: self.pace.clone(),
            ..Put::default()
        };
        let sent = self.retries.ask(|| self.bucket.put(key, bytes.clone(), &how));
        sent.await.map_err(Error::Store)
    }
}

/// A frame that is being made.
type Coming = oneshot::Receiver<io::Result<Frame>>;

/// Cuts `source` into slices and has them compressed, several at a time, in order.
async fn slice(
    run: &Arc<Run>,
    part: Part,
    mut source: impl AsyncRead + Unpin,
    to_pack: mpsc::Sender<Message<Coming>>,
) -> Result<(), Error> {
    let slices = Slices::new();
    loop {
        let mut slice = slices.take();
        while slice.len() < SLICE_BYTES {
            let left = SLICE_BYTES - slice.len();
            let mut room = slice.room().limit(left);
            let read = source.read_buf(&mut room).await;
            if read.map_err(|source| Error::Source { part, source })? == 0 {
                break;
            }
        }
        if slice.is_empty() {
            // If nobody listens any more, whoever ended early says why.
            let _ = to_pack.send(Message::End).await;
            return Ok(());
        }
        // The place in the queue comes first: it is what limits how many are compressed at once.
        let Ok(place) = to_pack.reserve().await else { return Ok(()) };
        let (answer, frame) = oneshot::channel();
        place.send(Message::Next(frame));
        let run = run.clone();
        spawn_blocking(move || answer.send(run.compressors.compress(&slice)));
    }
}

/// Fills segments with frames, on a thread of its own.
struct Packer {
    run: Arc<Run>,
    part: Part,
    runtime: Handle,
}

impl Packer {
    /// Ends without an error when either side has gone: that side says why.
    fn pack(
        &self,
        mut frames: mpsc::Receiver<Message<Coming>>,
        to_put: mpsc::Sender<Message<Sealed>>,
    ) -> Result<(), Error> {
        let part = self.part;
        let encrypt = |source| Error::Encrypt { part, source };
        let mut open: Option<OpenSegment> = None;
        let mut next = 0;
        while let Some(message) = frames.blocking_recv() {
            let Message::Next(coming) = message else {
                if let Some(last) = open.take() {
                    let _ = to_put.blocking_send(Message::Next(last.seal().map_err(encrypt)?));
                }
                let _ = to_put.blocking_send(Message::End);
                return Ok(());
            };
            let frame = coming.blocking_recv().map_err(|_| Error::Worker { part, source: None })?;
            let frame = frame.map_err(|source| Error::Compress { part, source })?;
            if let Some(full) = open.take_if(|open| !open.fits(&frame)) {
                let sealed = full.seal().map_err(encrypt)?;
                if to_put.blocking_send(Message::Next(sealed)).is_err() {
                    return Ok(());
                }
            }
            let mut segment = match open.take() {
                Some(segment) => segment,
                None => {
                    let name = SegmentName::new(part, next).ok_or(Error::TooLarge { part })?;
                    next += 1;
                    self.begin(name).map_err(encrypt)?
                }
            };
            segment.push(&frame).map_err(encrypt)?;
            open = Some(segment);
        }
        Ok(())
    }

    /// Waits for a buffer: this is where a slow store holds everything back.
    fn begin(&self, name: SegmentName) -> Result<OpenSegment, segment::Error> {
        let buffer = self.runtime.block_on(self.run.buffers.take());
        OpenSegment::begin(name, buffer, &self.run.recipients, self.run.options.content_md5)
    }
}
