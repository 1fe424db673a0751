//! Whole frames, encrypted: one age file, one object.
//!
//! # Shape
//! An age v1 file of at most [`SEGMENT_LIMIT_BYTES`]: header, 16 bytes of nonce, and then chunks of 64 KiB of
//! frames, each with a tag of 16 bytes, the last one shorter. The header's length is random (age adds a
//! stanza that means nothing, so that readers stay tolerant), so a segment asks how long it is before it says
//! what fits.
//!
//! # Source
//! <https://c2sp.org/age>, section "Payload"

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use age::stream::StreamWriter;
use bytes::Bytes;
use md5::{Digest, Md5};

use super::{buffers::Buffer, digest::Blake3, frame::Frame, layout::SegmentName, recipients::Recipients};

/// The largest segment. What is resent when a PUT fails, and the memory of each one in flight.
pub const SEGMENT_LIMIT_BYTES: usize = 16 * 1024 * 1024;

/// Frames in one encrypted chunk.
const CHUNK_BYTES: usize = 64 * 1024;

/// What authenticates a chunk.
const TAG_BYTES: usize = 16;

/// A segment could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// age refused the recipients.
    #[error("failed to begin segment {name}")]
    Begin {
        /// Which.
        name: SegmentName,
        /// Why.
        source: Box<age::EncryptError>,
    },
    /// age could not go on: a mistake in this program, for it writes to memory.
    #[error("failed to encrypt segment {name}")]
    Encrypt {
        /// Which.
        name: SegmentName,
        /// Why.
        source: io::Error,
    },
}

/// Which digests of a segment are made beside BLAKE3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentMd5 {
    /// None.
    #[default]
    Omitted,
    /// MD5, which a store with object lock asks for.
    Computed,
}

/// A segment that is being filled.
pub(super) struct OpenSegment {
    name: SegmentName,
    writer: StreamWriter<Ciphertext>,
    header_bytes: usize,
    frames_bytes: usize,
    plain_bytes: u64,
}

/// A segment that is ready to be put.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub name: SegmentName,
    pub bytes: Bytes,
    pub blake3: Blake3,
    pub md5: Option<[u8; 16]>,
    pub plain_bytes: u64,
}

impl OpenSegment {
    /// An empty segment in `buffer`.
    pub fn begin(
        name: SegmentName,
        buffer: Buffer,
        recipients: &Recipients,
        content_md5: ContentMd5,
    ) -> Result<Self, Error> {
        let encryptor = age::Encryptor::with_recipients(recipients.as_age())
            .map_err(|source| Error::Begin { name, source: Box::new(source) })?;
        let written_bytes = Arc::new(AtomicUsize::new(0));
        let ciphertext = Ciphertext {
            buffer,
            written_bytes: written_bytes.clone(),
            blake3: blake3::Hasher::new(),
            md5: (content_md5 == ContentMd5::Computed).then(Md5::new),
        };
        let writer = encryptor.wrap_output(ciphertext).map_err(|source| Error::Encrypt { name, source })?;
        // Header and nonce are written at once, the first chunk when the second begins.
        let header_bytes = written_bytes.load(Ordering::Relaxed);
        Ok(Self { name, writer, header_bytes, frames_bytes: 0, plain_bytes: 0 })
    }

    /// Whether `frame` fits in.
    pub fn fits(&self, frame: &Frame) -> bool {
        ciphertext_bytes(self.header_bytes, self.frames_bytes + frame.bytes.len()) <= SEGMENT_LIMIT_BYTES
    }

    /// Adds `frame`, which [fits](Self::fits).
    pub fn push(&mut self, frame: &Frame) -> Result<(), Error> {
        self.writer.write_all(&frame.bytes).map_err(|source| Error::Encrypt { name: self.name, source })?;
        self.frames_bytes += frame.bytes.len();
        self.plain_bytes += frame.plain_bytes;
        Ok(())
    }

    /// Ends it.
    pub fn seal(self) -> Result<Sealed, Error> {
        let Self { name, writer, plain_bytes, .. } = self;
        let ciphertext = writer.finish().map_err(|source| Error::Encrypt { name, source })?;
        Ok(Sealed {
            name,
            blake3: ciphertext.blake3.finalize().into(),
            md5: ciphertext.md5.map(|md5| md5.finalize().into()),
            bytes: ciphertext.buffer.freeze(),
            plain_bytes,
        })
    }
}

/// The size of a segment with so much in it.
fn ciphertext_bytes(header_bytes: usize, frames_bytes: usize) -> usize {
    header_bytes + frames_bytes + frames_bytes.div_ceil(CHUNK_BYTES).max(1) * TAG_BYTES
}

/// Where age writes to: a buffer that hashes while its content is still warm.
struct Ciphertext {
    buffer: Buffer,
    written_bytes: Arc<AtomicUsize>,
    blake3: blake3::Hasher,
    md5: Option<Md5>,
}

impl Write for Ciphertext {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.append(bytes).map_err(io::Error::other)?;
        self.written_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        self.blake3.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use age::x25519;
    use proptest::prelude::*;

    use super::*;
    use crate::archive::{
        buffers::Buffers,
        frame::{Compressors, SLICE_BYTES},
        layout::Part,
    };

    static KEYS: LazyLock<[x25519::Identity; 2]> =
        LazyLock::new(|| [x25519::Identity::generate(), x25519::Identity::generate()]);

    fn recipients() -> Recipients {
        Recipients::parse(KEYS.iter().map(|key| key.to_public().to_string())).unwrap()
    }

    fn begin(number: u32) -> OpenSegment {
        let buffer = futures::executor::block_on(Buffers::new(1).take());
        let name = SegmentName::new(Part::Database, number).unwrap();
        OpenSegment::begin(name, buffer, &recipients(), ContentMd5::Computed).unwrap()
    }

    /// As the pipeline does it.
    fn pack(frames: &[Frame]) -> Vec<Sealed> {
        let mut sealed = Vec::new();
        let mut open: Option<OpenSegment> = None;
        for frame in frames {
            if let Some(full) = open.take_if(|open| !open.fits(frame)) {
                sealed.push(full.seal().unwrap());
            }
            let open = open.get_or_insert_with(|| begin(sealed.len() as u32));
            open.push(frame).unwrap();
        }
        sealed.extend(open.map(|open| open.seal().unwrap()));
        sealed
    }

    fn frame(bytes: Vec<u8>) -> Frame {
        Frame { plain_bytes: 1, bytes }
    }

    #[test]
    fn a_segment_is_as_long_as_was_computed_and_both_recipients_open_it() {
        for frames_bytes in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let mut open = begin(0);
            let frame = frame(vec![7; frames_bytes]);
            open.push(&frame).unwrap();
            let expected = ciphertext_bytes(open.header_bytes, frames_bytes);

            let sealed = open.seal().unwrap();

            assert_eq!(sealed.bytes.len(), expected);
            assert_eq!(sealed.blake3, Blake3::of(&sealed.bytes));
            assert_eq!(sealed.md5, Some(Md5::digest(&sealed.bytes).into()));
            for key in KEYS.iter() {
                assert_eq!(age::decrypt(key, &sealed.bytes).unwrap(), frame.bytes);
            }
        }
    }

    #[test]
    fn a_frame_that_fits_to_the_last_byte_fits_and_one_byte_more_does_not() {
        let open = begin(0);
        let free = SEGMENT_LIMIT_BYTES - open.header_bytes;
        // So many whole chunks with their tags, and a last one.
        let most = free - free.div_ceil(CHUNK_BYTES + TAG_BYTES) * TAG_BYTES;

        assert!(open.fits(&frame(vec![0; most])));
        assert!(!open.fits(&frame(vec![0; most + 1])));

        let mut open = open;
        open.push(&frame(vec![0; most])).unwrap();
        assert_eq!(open.seal().unwrap().bytes.len(), SEGMENT_LIMIT_BYTES);
    }

    #[test]
    fn a_frame_of_a_slice_that_does_not_compress_fits_into_an_empty_segment() {
        let slice: Vec<u8> =
            (0..SLICE_BYTES as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();

        assert!(begin(0).fits(&Compressors::new(1).compress(&slice).unwrap()));
        assert!(zstd::zstd_safe::compress_bound(SLICE_BYTES) < SEGMENT_LIMIT_BYTES / 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        #[test]
        fn packing_never_exceeds_a_segment_and_loses_nothing(
            sizes in prop::collection::vec(prop_oneof![1..100_usize, 500_000..1_100_000_usize], 0..80)
        ) {
            let frames: Vec<Frame> = sizes
                .iter()
                .enumerate()
                .map(|(number, size)| frame(vec![number as u8; *size]))
                .collect();

            let sealed = pack(&frames);

            let mut decrypted = Vec::new();
            for (number, segment) in sealed.iter().enumerate() {
                prop_assert!(segment.bytes.len() <= SEGMENT_LIMIT_BYTES);
                prop_assert_eq!(segment.name.number() as usize, number);
                decrypted.extend(age::decrypt(&KEYS[0], &segment.bytes).unwrap());
            }
            let all: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes.clone()).collect();
            prop_assert!(decrypted == all);
            prop_assert_eq!(sealed.iter().map(|segment| segment.plain_bytes).sum::<u64>(), frames.len() as u64);
            // Each but the last is filled to within one frame.
            for pair in sealed.windows(2) {
                prop_assert!(pair[0].bytes.len() > SEGMENT_LIMIT_BYTES - 1_200_000);
            }
        }
    }
}
