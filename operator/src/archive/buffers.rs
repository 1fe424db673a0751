//! A fixed number of buffers of one segment each: what keeps the memory of a backup the same for any size.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::segment::SEGMENT_LIMIT_BYTES;

/// A pool of buffers. Each is allocated when it is first needed, and kept.
#[derive(Clone)]
pub(super) struct Buffers {
    permits: Arc<Semaphore>,
    idle: Arc<Idle>,
}

#[derive(Default)]
struct Idle(Mutex<Vec<Vec<u8>>>);

impl Idle {
    /// Nothing in it can be half done.
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffers {
    /// A pool of `number` buffers.
    pub fn new(number: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(number)), idle: Arc::default() }
    }

    /// An empty buffer, as soon as one is free. First come, first served.
    pub async fn take(&self) -> Buffer {
        // The semaphore is never closed.
        let permit = self.permits.clone().acquire_owned().await.ok();
        let bytes = self.idle.lock().pop().unwrap_or_else(|| Vec::with_capacity(SEGMENT_LIMIT_BYTES));
        Buffer { bytes, idle: self.idle.clone(), _permit: permit }
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Buffers({} free)", self.permits.available_permits())
    }
}

/// Up to one segment. Returns to its pool when it is dropped.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    idle: Arc<Idle>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Buffer {
    /// Appends `bytes`, if all of it then fits into a segment.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Overflow> {
        if self.bytes.len() + bytes.len() > SEGMENT_LIMIT_BYTES {
            return Err(Overflow);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Forgets its content.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// As bytes that can be held in several places. The buffer returns to its pool with the last of them.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        // Before the permit is dropped, so that whoever waits for it finds this one.
        self.idle.lock().push(bytes);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Buffer({} bytes)", self.bytes.len())
    }
}

/// More than a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a segment would be larger than {SEGMENT_LIMIT_BYTES} bytes")]
pub(super) struct Overflow;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_than_the_pool_has() {
        let buffers = Buffers::new(2);
        let (first, second) = (buffers.take().await, buffers.take().await.freeze());
        let copy = second.clone();
        drop(second);

        assert!(timeout(Duration::from_secs(60), buffers.take()).await.is_err());
        drop(copy);

        let mut third = buffers.take().await;
        third.append(b"new").unwrap();
        assert_eq!(third.as_ref(), b"new");
        drop(first);
    }

    #[tokio::test]
    async fn a_buffer_never_grows() {
        let mut buffer = Buffers::new(1).take().await;
        buffer.append(&vec![0; SEGMENT_LIMIT_BYTES]).unwrap();

        assert_eq!(buffer.append(b"x"), Err(Overflow));
        assert_eq!(buffer.bytes.capacity(), SEGMENT_LIMIT_BYTES);
    }
}
