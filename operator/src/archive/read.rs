//! The way back: segments become the stream that they were.
//!
//! ```text
//! index pages ─→ fetch and verify, several ahead ─→ decrypt, decompress ─→ sink
//!                                                   one thread
//! ```
//!
//! Input: a manifest that was verified, identities. Output: a tar stream. A segment is decrypted only after
//! its size, version and digest were found to be what was committed. Memory is the same for any size.
//!
//! Dropping the future cancels.

use std::{
    collections::VecDeque,
    io::{self, BufReader, Read},
};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{mpsc, watch},
    task::{JoinError, spawn_blocking},
    try_join,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    fetch::{self, Archive, Segment},
    frame::{SLICE_BYTES, SLICE_LOG},
    layout::Part,
    manifest::{Manifest, PartSummary},
    progress::Progress,
    recipients::{Identities, x25519_stanzas},
};

/// Slices that wait for whoever takes them.
pub const SLICES_WAITING: usize = 4;

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

/// The same, for who takes the stream slice by slice: none of it is copied.
///
/// The stream is whole only when this returned `Ok`: that `taker` is dropped says nothing by itself.
pub async fn slices(
    archive: &Archive,
    manifest: &Manifest,
    part: Part,
    identities: &Identities,
    taker: mpsc::Sender<Vec<u8>>,
    progress: &watch::Sender<Progress>,
) -> Result<Restored, Error> {
    let summary = manifest.part(part).ok_or(Error::NoPart { part })?;
    progress.send_modify(|progress| progress.part = Some(part));
    let (to_open, fetched) = mpsc::channel(1);
    let opened = async {
        let opener = Opener { part, identities: identities.clone(), progress: progress.clone(), taker };
        match spawn_blocking(move || opener.open_all(fetched)).await {
            Ok(opened) => opened,
            Err(source) => Err(Error::Worker { part, source }),
        }
    };
    let ((), restored) = try_join!(fetch_all(archive, manifest, summary, to_open), opened)?;
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

/// Decrypts and decompresses segments, on a thread of its own.
struct Opener {
    part: Part,
    identities: Identities,
    progress: watch::Sender<Progress>,
    taker: mpsc::Sender<Vec<u8>>,
}

impl Opener {
    /// Ends without an error when whoever fetches has gone: that side says why.
    fn open_all(self, mut fetched: mpsc::Receiver<Message<Segment>>) -> Result<Restored, Error> {
        let mut restored = Restored::default();
        while let Some(Message::Next(segment)) = fetched.blocking_recv() {
            let recipients = x25519_stanzas(segment.bytes.as_ref()).unwrap_or(0);
            self.open(&segment)?;
            restored.segments += 1;
            restored.plain_bytes += segment.entry.plain;
            restored.note_recipients(recipients);
            self.progress.send_modify(|progress| progress.add(segment.entry.size, segment.entry.plain));
        }
        Ok(restored)
    }

    fn open(&self, segment: &Segment) -> Result<(), Error> {
        let Segment { key, entry, bytes } = segment;
        let content = |source| Error::Content { key: key.clone(), source };
        let opened = age::Decryptor::new_buffered(bytes.as_ref())
            .and_then(|decryptor| decryptor.decrypt(self.identities.as_age()));
        let frames = opened.map_err(|source| {
            if matches!(source, age::DecryptError::NoMatchingKeys) {
                Error::NoKey { key: key.clone() }
            } else {
                Error::Open { key: key.clone(), source }
            }
        })?;
        let mut stream = zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(1 << 16, frames))
            .map_err(content)?;
        stream.window_log_max(SLICE_LOG).map_err(content)?;

        let mut found = 0;
        loop {
            let mut slice = Vec::with_capacity(SLICE_BYTES);
            stream.by_ref().take(SLICE_BYTES as u64).read_to_end(&mut slice).map_err(content)?;
            found += slice.len() as u64;
            // Also before the end: so that a segment of zeros without end does not fill a disk.
            if found > entry.plain || (slice.is_empty() && found != entry.plain) {
                return Err(Error::Length { key: key.clone(), expected: entry.plain, found });
            }
            if slice.is_empty() {
                return Ok(());
            }
            let gone = |_| Error::Sink { part: self.part, source: io::ErrorKind::BrokenPipe.into() };
            self.taker.blocking_send(slice).map_err(gone)?;
        }
    }
}

async fn sink_all(
    part: Part,
    mut slices: mpsc::Receiver<Vec<u8>>,
    mut sink: impl AsyncWrite + Unpin,
) -> Result<(), Error> {
    let failed = |source| Error::Sink { part, source };
    while let Some(slice) = slices.recv().await {
        sink.write_all(&slice).await.map_err(failed)?;
    }
    sink.flush().await.map_err(failed)
}
