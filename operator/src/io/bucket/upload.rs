//! The body of a PUT: bytes handed out in chunks, at a pace, and counted.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::pace::Pace;

/// What is handed to the connection at once. Small enough that the connection's own buffers stay small and
/// progress is seen, large enough to cost nothing.
const CHUNK_BYTES: usize = 128 * 1024;

/// What has become of a body, for whoever watches the request.
#[derive(Debug, Default)]
pub(super) struct Progress {
    moved_bytes: AtomicU64,
    held_back_micros: AtomicU64,
}

impl Progress {
    /// Bytes that the connection took.
    pub fn moved_bytes(&self) -> u64 {
        self.moved_bytes.load(Ordering::Relaxed)
    }

    /// How long we, not the store, held it back.
    pub fn held_back(&self) -> Duration {
        Duration::from_micros(self.held_back_micros.load(Ordering::Relaxed))
    }
}

/// The body.
pub(super) struct Upload {
    rest: Bytes,
    pace: Option<Arc<Pace>>,
    pause: Option<Pause>,
    progress: Arc<Progress>,
}

struct Pause {
    since: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Upload {
    pub fn new(bytes: Bytes, pace: Option<Arc<Pace>>, progress: Arc<Progress>) -> Self {
        Self { rest: bytes, pace, pause: None, progress }
    }

    fn chunk_bytes(&self) -> usize {
        self.rest.len().min(CHUNK_BYTES)
    }

    /// Waits until the next chunk may go.
    fn poll_pace(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(pace) = &self.pace else { return Poll::Ready(()) };
        if self.pause.is_none() {
            let now = Instant::now();
            let wait = pace.take(self.chunk_bytes(), now);
            if wait.is_zero() {
                return Poll::Ready(());
            }
            self.pause = Some(Pause { since: now, sleep: Box::pin(sleep_until(now + wait)) });
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.sleep.as_mut().poll(context));
            let held_back = u64::try_from(pause.since.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.progress.held_back_micros.fetch_add(held_back, Ordering::Relaxed);
            self.pause = None;
        }
        Poll::Ready(())
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        ready!(self.poll_pace(context));
        let chunk_bytes = self.chunk_bytes();
        let chunk = self.rest.split_to(chunk_bytes);
        self.progress.moved_bytes.fetch_add(chunk_bytes as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, num::NonZeroU64};

    use super::*;

    async fn collect(mut upload: Upload) -> Vec<u8> {
        let mut all = vec![];
        while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut upload).poll_frame(context)).await {
            all.extend_from_slice(&frame.into_data().unwrap());
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn every_byte_goes_once_at_the_pace_and_is_counted() {
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
        let progress = Arc::new(Progress::default());
        let pace = Arc::new(Pace::new(NonZeroU64::new(100_000).unwrap()));
        let start = Instant::now();

        let sent = collect(Upload::new(bytes.clone().into(), Some(pace), progress.clone())).await;

        assert_eq!(sent, bytes);
        assert_eq!(progress.moved_bytes(), 1_000_000);
        // The last chunk goes when all before it are paid for.
        let seconds = start.elapsed().as_secs_f64();
        assert!((8.5..10.0).contains(&seconds), "{seconds}");
        assert!(progress.held_back().as_secs_f64() > 8.0);
    }
}
