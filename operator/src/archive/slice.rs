//! Slices of a stream, in memory that is used again.
//!
//! A slice is a mebibyte, which an allocator takes from the kernel and gives back: filling one then costs as much in
//! page faults as in copying.

use std::{fmt, mem, ops::Deref, sync::Arc};

use super::{frame::SLICE_BYTES, idle::Idle};

/// Where slices come from, and where they go when nobody has them any more.
#[derive(Clone)]
pub struct Slices(Arc<Idle<Vec<u8>>>);

impl Slices {
    /// None yet.
    pub fn new() -> Self {
        Self(Arc::new(Idle::new()))
    }

    /// An empty one, with room for [`SLICE_BYTES`].
    pub fn take(&self) -> Slice {
        let bytes = self.0.take().unwrap_or_else(|| Vec::with_capacity(SLICE_BYTES));
        Slice { bytes, home: self.clone() }
    }
}

impl Default for Slices {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Slices {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Slices").finish_non_exhaustive()
    }
}

/// Some bytes of a stream.
pub struct Slice {
    bytes: Vec<u8>,
    home: Slices,
}

impl Slice {
    /// To fill it: never beyond its capacity, which is [`SLICE_BYTES`].
    pub fn room(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Slice").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        let mut bytes = mem::take(&mut self.bytes);
        bytes.clear();
        self.home.0.put(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_used_again_and_comes_back_empty() {
        let slices = Slices::new();
        let mut first = slices.take();
        first.room().extend_from_slice(b"journal");
        let at = first.as_ptr();
        assert_eq!(&first[..], b"journal");
        drop(first);

        let (again, other) = (slices.take(), slices.take());

        assert_eq!(again.as_ptr(), at);
        assert!(again.is_empty() && other.is_empty());
        assert_ne!(other.as_ptr(), at);
    }
}
