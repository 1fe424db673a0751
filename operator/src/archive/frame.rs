//! Slices of a stream, and the zstd frames that they become.
//!
//! # Shape
//! A slice is exactly [`SLICE_BYTES`] of the stream, the last one shorter, none empty. A frame is one slice,
//! whole: with its size and a checksum of it, without a dictionary, with a window of at most [`SLICE_BYTES`].
//! Frames after one another are what `zstd -d` reads.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use zstd::bulk::Compressor;

/// Bytes of the stream in a frame. Large enough that compression hardly loses by it, small enough that
/// several at once take no memory to speak of, and that a segment is filled to within one of them.
pub const SLICE_BYTES: usize = 1024 * 1024;

/// Base-2 logarithm of [`SLICE_BYTES`], for the largest window that a reader needs.
pub(super) const SLICE_LOG: u32 = SLICE_BYTES.ilog2();

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
    idle: Mutex<Vec<Compressor<'static>>>,
}

impl Compressors {
    /// zstd's levels that are worth their memory here.
    pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

    /// For `level`, brought into [`LEVELS`](Self::LEVELS).
    pub fn new(level: i32) -> Self {
        let level = level.clamp(*Self::LEVELS.start(), *Self::LEVELS.end());
        Self { level, idle: Mutex::new(Vec::new()) }
    }

    /// The frame of `slice`.
    pub fn compress(&self, slice: &[u8]) -> io::Result<Frame> {
        // Making one takes a tenth as long as using it once.
        let idle = self.idle().pop();
        let mut compressor = match idle {
            Some(compressor) => compressor,
            None => {
                let mut compressor = Compressor::new(self.level)?;
                compressor.include_checksum(true)?;
                compressor
            }
        };
        let bytes = compressor.compress(slice)?;
        self.idle().push(compressor);
        Ok(Frame { bytes, plain_bytes: slice.len() as u64 })
    }

    /// Nothing in it can be half done.
    fn idle(&self) -> MutexGuard<'_, Vec<Compressor<'static>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Compressors {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Compressors").field("level", &self.level).finish_non_exhaustive()
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
            decoder.window_log_max(SLICE_LOG).unwrap();
            let mut read = Vec::new();

            io::Read::read_to_end(&mut decoder, &mut read).unwrap();

            assert_eq!(read.len(), SLICE_BYTES, "level {level}");
        }
    }
}
