//! The way back: segments become the stream that they were.
//!
//! ```text
//! index pages ─→ fetch and verify ─→ decrypt, cut into frames ─→ decompress ─→ sink
//!                several ahead       one thread                  several at once, handed on in order
//! ```
//!
//! Input: a manifest that was verified, identities. Output: a tar stream. A segment is decrypted only after
//! its size, version and digest were found to be what was committed. Memory is the same for any size.
//!
//! Dropping the future cancels.

use std::{collections::VecDeque, io, sync::Arc};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{mpsc, watch},
    task::{JoinError, spawn_blocking},
    try_join,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    fetch::{self, Archive, Segment},
    frame::{Decompressors, Frames},
    layout::Part,
    manifest::{Manifest, PartSummary},
    progress::Progress,
    recipients::{Identities, x25519_stanzas},
    slice::Slice,
};

/// Slices that wait for whoever takes them.
pub const SLICES_WAITING: usize = 2;

/// Slices that wait to be decompressed, or for those before them. One more is taken, and one more given.
const SLICES_OPENING: usize = 2;

/// A part could not be restored. What reached the sink is the true beginning of its stream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backup has no such part.
    #[error("the backup has no {part}")]
    NoPart {
        /// Which.
        part: Part,
    },
    /// A segment could not be had, or is not what was committed.
    #[error("failed to fetch {part}")]
    Fetch {
        /// Of which part.
        part: Part,
        /// Why.
        source: fetch::Error,
    },
    /// None of the identities opens it.
    #[error("none of the identities opens {key}")]
    NoKey {
        /// Which segment.
        key: String,
    },
    /// Its header or its recipients' stanzas cannot be read.
    #[error("failed to open {key}")]
    Open {
        /// Which segment.
        key: String,
        /// Why.
        source: age::DecryptError,
    },
    /// It opens, and what is in it does not decrypt or decompress.
    #[error("failed to read what is in {key}")]
    Content {
        /// Which segment.
        key: String,
        /// Why.
        source: io::Error,
    },
    /// It has more or less in it than was committed.
    #[error("{key} has {found} bytes of the stream in it, and {expected} were committed")]
    Length {
        /// Which segment.
        key: String,
        /// Bytes that were committed.
        expected: u64,
        /// Bytes that there are; of too many, those up to where it was noticed.
        found: u64,
    },
    /// Whoever takes the stream.
    #[error("failed to hand on the stream of {part}")]
    Sink {
        /// Of which part.
        part: Part,
        /// Why.
        source: io::Error,
    },
    /// A thread of ours ended early.
    #[error("failed to finish the work on {part}")]
    Worker {
        /// Which part.
        part: Part,
        /// How it ended.
        source: JoinError,
    },
}

/// What was restored of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Segments.
    pub segments: u64,
    /// Bytes of the stream.
    pub plain_bytes: u64,
    /// The smallest number of recipients that a segment's header names; `None` without segments.
    pub fewest_recipients: Option<usize>,
    /// The largest number of recipients that a segment's header names; `None` without segments.
    pub most_recipients: Option<usize>,
}

impl Restored {
    /// Notes that a segment's header names so many recipients.
    fn note_recipients(&mut self, found: usize) {
        self.fewest_recipients = Some(self.fewest_recipients.map_or(found, |fewest| fewest.min(found)));
        self.most_recipients = Some(self.most_recipients.map_or(found, |most| most.max(found)));
    }
}

enum Message<T> {
    Next(T),
    End,
}

/// Writes the stream of `part` of the backup that `manifest` describes to `sink`, and flushes it.
///
/// `manifest` is one that [`Archive::manifest`] returned: the index is verified against it.
pub async fn part(
    archive: &Archive,
    manifest: &Manifest,
    part: Part,
    identities: &Identities,
    sink: impl AsyncWrite + Unpin,
    progress: &watch::Sender<Progress>,
) -> Result<Restored, Error> {
    let (to_sink, taken) = mpsc::channel(SLICES_WAITING);
    let (restored, ()) = try_join!(
        slices(archive, manifest, part, identities, to_sink, progress),
        sink_all(part, taken, sink)
    )?;
    Ok(restored)
}

/// The same, for who takes the stream slice by slice: none of it is copied. The memory of a slice that is dropped is
/// used again.
///
/// The stream is whole only when this returned `Ok`: that `taker` is dropped says nothing by itself.
pub async fn slices(
    archive: &Archive,
    manifest: &Manifest,
    part: Part,
    identities: &Identities,
    taker: mpsc::Sender<Slice>,
    progress: &watch::Sender<Progress>,
) -> Result<Restored, Error> {
    let summary = manifest.part(part).ok_or(Error::NoPart { part })?;
    progress.send_modify(|progress| progress.part = Some(part));
    let (to_open, fetched) = mpsc::channel(1);
    let (opening, in_order) = mpsc::channel(SLICES_OPENING);
    let opened = async {
        let opener =
            Opener { identities: identities.clone(), decompressors: Arc::new(Decompressors::new()), opening };
        match spawn_blocking(move || opener.open_all(fetched)).await {
            Ok(opened) => opened,
            Err(source) => Err(Error::Worker { part, source }),
        }
    };
    let fetched = fetch_all(archive, manifest, summary, to_open);
    let ((), (), restored) = try_join!(fetched, opened, hand_on_all(part, in_order, taker, progress))?;
    Ok(restored)
}

/// Reads every segment of `part` without a key, and counts the recipients in their headers.
///
/// For whoever could not decrypt them, and must still say whether they are whole. `plain_bytes` is what the index
/// says.
pub async fn headers(archive: &Archive, manifest: &Manifest, part: Part) -> Result<Restored, Error> {
    let summary = manifest.part(part).ok_or(Error::NoPart { part })?;
    let (to_count, mut fetched) = mpsc::channel(1);
    let counted = async {
        let mut counted = Restored::default();
        while let Some(Message::Next::<Segment>(segment)) = fetched.recv().await {
            counted.note_recipients(x25519_stanzas(segment.bytes.as_ref()).unwrap_or(0));
            counted.segments += 1;
            counted.plain_bytes += segment.entry.plain;
        }
        Ok(counted)
    };
    let ((), counted) = try_join!(fetch_all(archive, manifest, summary, to_count), counted)?;
    Ok(counted)
}

/// Fetches the segments of a part, several at a time, and hands them on in order.
async fn fetch_all(
    archive: &Archive,
    manifest: &Manifest,
    summary: &PartSummary,
    to_open: mpsc::Sender<Message<Segment>>,
) -> Result<(), Error> {
    let part = summary.name;
    let failed = |source| Error::Fetch { part, source };
    let folder = manifest.folder();
    let mut coming: VecDeque<AbortOnDropHandle<Result<Segment, fetch::Error>>> = VecDeque::new();
    for page in &summary.pages {
        for entry in archive.page(&folder, page).await.map_err(failed)? {
            if coming.len() == archive.options.ahead
                && let Gone::Yes = hand_on(part, &mut coming, &to_open).await?
            {
                return Ok(());
            }
            // The buffer before the task: so that those who come first have theirs.
            let buffer = archive.buffers.take().await;
            let (archive, folder) = (archive.clone(), folder.clone());
            let fetching = async move { archive.segment(&folder, entry, buffer).await };
            coming.push_back(AbortOnDropHandle::new(tokio::spawn(fetching)));
        }
    }
    while !coming.is_empty() {
        if let Gone::Yes = hand_on(part, &mut coming, &to_open).await? {
            return Ok(());
        }
    }
    let _ = to_open.send(Message::End).await;
    Ok(())
}

/// Whether the next stage has gone. It says itself why.
enum Gone {
    Yes,
    No,
}

async fn hand_on(
    part: Part,
    coming: &mut VecDeque<AbortOnDropHandle<Result<Segment, fetch::Error>>>,
    to_open: &mpsc::Sender<Message<Segment>>,
) -> Result<Gone, Error> {
    let Some(first) = coming.pop_front() else { return Ok(Gone::No) };
    let fetched = first.await.map_err(|source| Error::Worker { part, source })?;
    let segment = fetched.map_err(|source| Error::Fetch { part, source })?;
    match to_open.send(Message::Next(segment)).await {
        Ok(()) => Ok(Gone::No),
        Err(_) => Ok(Gone::Yes),
    }
}

/// Decrypts segments on a thread of its own, and has their frames decompressed on others.
struct Opener {
    identities: Identities,
    decompressors: Arc<Decompressors>,
    opening: mpsc::Sender<Opening>,
}

/// A slice that is being decompressed.
type Coming = AbortOnDropHandle<io::Result<Slice>>;

/// A slice that is being decompressed, or the end of its segment.
struct Opening {
    of: Arc<Opened>,
    slice: Option<Coming>,
}

/// The segment that a slice is of.
struct Opened {
    key: String,
    size: u64,
    plain: u64,
    recipients: usize,
}

impl Opened {
    fn wrong_length(&self, found: u64) -> Error {
        Error::Length { key: self.key.clone(), expected: self.plain, found }
    }
}

impl Opener {
    /// Ends without an error when whoever fetches or takes has gone: that side says why.
    fn open_all(self, mut fetched: mpsc::Receiver<Message<Segment>>) -> Result<(), Error> {
        while let Some(Message::Next(segment)) = fetched.blocking_recv() {
            if let Gone::Yes = self.open(&segment)? {
                break;
            }
        }
        Ok(())
    }

    fn open(&self, segment: &Segment) -> Result<Gone, Error> {
        let Segment { key, entry, bytes } = segment;
        let recipients = x25519_stanzas(bytes.as_ref()).unwrap_or(0);
        let of = Arc::new(Opened { key: key.clone(), size: entry.size, plain: entry.plain, recipients });
        let opened = age::Decryptor::new_buffered(bytes.as_ref())
            .and_then(|decryptor| decryptor.decrypt(self.identities.as_age()));
        let opened = opened.map_err(|source| {
            if matches!(source, age::DecryptError::NoMatchingKeys) {
                Error::NoKey { key: key.clone() }
            } else {
                Error::Open { key: key.clone(), source }
            }
        })?;
        let mut frames = Frames::of(opened);
        let content = |source| Error::Content { key: key.clone(), source };
        while let Some(frame) = frames.next_frame().map_err(content)? {
            let decompressors = Arc::clone(&self.decompressors);
            let slice = AbortOnDropHandle::new(spawn_blocking(move || decompressors.decompress(&frame)));
            if let Gone::Yes = self.hand_on(&of, Some(slice)) {
                return Ok(Gone::Yes);
            }
        }
        Ok(self.hand_on(&of, None))
    }

    fn hand_on(&self, of: &Arc<Opened>, slice: Option<Coming>) -> Gone {
        match self.opening.blocking_send(Opening { of: Arc::clone(of), slice }) {
            Ok(()) => Gone::No,
            Err(_) => Gone::Yes,
        }
    }
}

/// Hands slices on in the order of the stream, each when it is there.
///
/// Ends without an error when the opener has gone: that side says why.
async fn hand_on_all(
    part: Part,
    mut in_order: mpsc::Receiver<Opening>,
    taker: mpsc::Sender<Slice>,
    progress: &watch::Sender<Progress>,
) -> Result<Restored, Error> {
    let mut restored = Restored::default();
    let mut found = 0;
    while let Some(Opening { of, slice }) = in_order.recv().await {
        let Some(slice) = slice else {
            if found != of.plain {
                return Err(of.wrong_length(found));
            }
            restored.segments += 1;
            restored.plain_bytes += found;
            restored.note_recipients(of.recipients);
            progress.send_modify(|progress| progress.add(of.size, of.plain));
            found = 0;
            continue;
        };
        let slice = slice.await.map_err(|source| Error::Worker { part, source })?;
        let slice = slice.map_err(|source| Error::Content { key: of.key.clone(), source })?;
        found += slice.len() as u64;
        // Already before its end: so that a segment of zeros without end does not fill a disk.
        if found > of.plain {
            return Err(of.wrong_length(found));
        }
        let gone = |_| Error::Sink { part, source: io::ErrorKind::BrokenPipe.into() };
        taker.send(slice).await.map_err(gone)?;
    }
    Ok(restored)
}

async fn sink_all(
    part: Part,
    mut slices: mpsc::Receiver<Slice>,
    mut sink: impl AsyncWrite + Unpin,
) -> Result<(), Error> {
    let failed = |source| Error::Sink { part, source };
    while let Some(slice) = slices.recv().await {
        sink.write_all(&slice).await.map_err(failed)?;
    }
    sink.flush().await.map_err(failed)
}
