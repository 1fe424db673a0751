//! Slices of a stream, the zstd frames that they become, and back.
//!
//! # Shape
//! A slice is exactly [`SLICE_BYTES`] of the stream, the last one shorter, none empty. A frame is one slice,
//! whole: with its size and a checksum of it, without a dictionary, with a window of at most [`SLICE_BYTES`].
//! Frames after one another are what `zstd -d` reads.

use std::io::{self, Read};

use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe,
};

use super::{
    idle::Idle,
    slice::{Slice, Slices},
};

/// Bytes of the stream in a frame. Large enough that compression hardly loses by it, small enough that
/// several at once take no memory to speak of, and that a segment is filled to within one of them.
pub const SLICE_BYTES: usize = 1024 * 1024;

/// What is read of a stream of frames at a time: of a database that compresses well, about one.
const READ_BYTES: u64 = 128 * 1024;

/// A frame, and how much of the stream is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The frame.
    pub bytes: Vec<u8>,
    /// Bytes of the stream.
    pub plain_bytes: u64,
}

/// Compresses slices, any number at a time.
pub struct Compressors {
    level: i32,
    // Making one takes a tenth as long as using it once.
    idle: Idle<Compressor<'static>>,
}

impl Compressors {
    /// zstd's levels that are worth their memory here.
    pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

    /// For `level`, brought into [`LEVELS`](Self::LEVELS).
    pub fn new(level: i32) -> Self {
        let level = level.clamp(*Self::LEVELS.start(), *Self::LEVELS.end());
        Self { level, idle: Idle::new() }
    }

    /// The frame of `slice`.
    pub fn compress(&self, slice: &[u8]) -> io::Result<Frame> {
        let mut compressor = match self.idle.take() {
            Some(compressor) => compressor,
            None => {
                let mut compressor = Compressor::new(self.level)?;
                compressor.include_checksum(true)?;
                compressor
            }
        };
        let bytes = compressor.compress(slice)?;
        self.idle.put(compressor);
        Ok(Frame { bytes, plain_bytes: slice.len() as u64 })
    }
}

impl std::fmt::Debug for Compressors {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Compressors").field("level", &self.level).finish_non_exhaustive()
    }
}

/// Frames that come one after the other, cut apart and not yet decompressed.
///
/// Never more than one frame and [`READ_BYTES`] in memory.
pub struct Frames<R> {
    stream: R,
    waiting: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl<R: Read> Frames<R> {
    /// Those in `stream`.
    pub fn of(stream: R) -> Self {
        Self { stream, waiting: Vec::new(), taken: 0, ended: false }
    }

    /// The next one, or `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream's own; `UnexpectedEof` if it ends within a frame; `InvalidData` if what comes is no frame, or a
    /// larger one than a slice ever becomes.
    pub fn next_frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let waiting = self.waiting.get(self.taken..).unwrap_or_default();
            if let Ok(bytes) = zstd_safe::find_frame_compressed_size(waiting)
                && let Some(frame) = waiting.get(..bytes)
                && bytes > 0
            {
                let frame = frame.to_vec();
                self.taken += bytes;
                return Ok(Some(frame));
            }
            if self.ended && waiting.is_empty() {
                return Ok(None);
            }
            if self.ended {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "ends within a zstd frame"));
            }
            if waiting.len() > zstd_safe::compress_bound(SLICE_BYTES) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "is no zstd frame of one slice"));
            }
            self.read_on()?;
        }
    }

    fn read_on(&mut self) -> io::Result<()> {
        self.waiting.drain(..self.taken);
        self.taken = 0;
        let read = self.stream.by_ref().take(READ_BYTES).read_to_end(&mut self.waiting)?;
        self.ended = read == 0;
        Ok(())
    }
}

/// Decompresses frames, any number at a time.
pub struct Decompressors {
    idle: Idle<Decompressor<'static>>,
    slices: Slices,
}

impl Decompressors {
    /// None yet.
    pub fn new() -> Self {
        Self { idle: Idle::new(), slices: Slices::new() }
    }

    /// The slice that became `frame`.
    ///
    /// # Errors
    /// It is no frame, it is not what was compressed, or there is more in it than a slice.
    pub fn decompress(&self, frame: &[u8]) -> io::Result<Slice> {
        let mut decompressor = match self.idle.take() {
            Some(decompressor) => decompressor,
            None => Decompressor::new()?,
        };
        let mut slice = self.slices.take();
        decompressor.decompress_to_buffer(frame, slice.room())?;
        self.idle.put(decompressor);
        Ok(slice)
    }
}

impl Default for Decompressors {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Decompressors {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Decompressors").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_one_after_the_other_are_the_slices_one_after_the_other() {
        let compressors = Compressors::new(3);
        let slices: Vec<Vec<u8>> = vec![vec![7; SLICE_BYTES], b"journal".to_vec(), vec![0; 1]];

        let frames: Vec<u8> =
            slices.iter().flat_map(|slice| compressors.compress(slice).unwrap().bytes).collect();

        assert_eq!(zstd::stream::decode_all(&frames[..]).unwrap(), slices.concat());
    }

    #[test]
    fn a_flipped_bit_in_a_frame_is_noticed() {
        let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut frame = Compressors::new(3).compress(&noise).unwrap().bytes;
        let middle = frame.len() / 2;
        frame[middle] ^= 1;

        assert!(zstd::stream::decode_all(&frame[..]).is_err());
    }

    #[test]
    fn a_frame_of_any_level_needs_no_larger_window_than_a_slice() {
        let slice: Vec<u8> = (0..SLICE_BYTES).map(|n| (n % 251) as u8).collect();
        for level in [-5, 1, 3, 19, 22] {
            let frame = Compressors::new(level).compress(&slice).unwrap();
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&frame.bytes[..]).unwrap();
            decoder.window_log_max(SLICE_BYTES.ilog2()).unwrap();
            let mut read = Vec::new();

            io::Read::read_to_end(&mut decoder, &mut read).unwrap();

            assert_eq!(read.len(), SLICE_BYTES, "level {level}");
        }
    }

    /// Bytes that hardly compress.
    fn noise(bytes: u32) -> Vec<u8> {
        (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (n >> 7) as u8).collect()
    }

    #[test]
    fn frames_are_cut_apart_wherever_they_end() {
        let compressors = Compressors::new(3);
        let slices = [vec![7; SLICE_BYTES], noise(SLICE_BYTES as u32), b"journal".to_vec(), vec![0; 1]];
        let frames: Vec<Vec<u8>> =
            slices.iter().map(|slice| compressors.compress(slice).unwrap().bytes).collect();

        let stream = frames.concat();
        let mut cut = Frames::of(&stream[..]);
        let decompressors = Decompressors::new();
        for (frame, slice) in frames.iter().zip(&slices) {
            let found = cut.next_frame().unwrap().unwrap();
            assert_eq!(&found, frame);
            assert_eq!(decompressors.decompress(&found).unwrap()[..], slice[..]);
        }
        assert!(cut.next_frame().unwrap().is_none());
    }

    #[test]
    fn what_is_no_frame_or_no_whole_one_is_an_error() {
        let frame = Compressors::new(3).compress(&noise(300_000)).unwrap().bytes;
        let kind_of = |bytes: &[u8]| {
            let mut frames = Frames::of(bytes);
            loop {
                match frames.next_frame() {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(error) => return Some(error.kind()),
                }
            }
        };

        assert_eq!(kind_of(&[]), None);
        assert_eq!(kind_of(&frame), None);
        assert_eq!(kind_of(&frame[..frame.len() - 1]), Some(io::ErrorKind::UnexpectedEof));
        assert_eq!(kind_of(&[&frame[..], b"x"].concat()), Some(io::ErrorKind::UnexpectedEof));
        assert_eq!(kind_of(&vec![b'x'; 3 * SLICE_BYTES]), Some(io::ErrorKind::InvalidData));
        let larger = zstd::bulk::compress(&vec![0; SLICE_BYTES + 1], 3).unwrap();
        assert!(Decompressors::new().decompress(&larger).is_err(), "more than a slice");
    }
}
