//! How long a store is waited for.
//!
//! A time limit for a whole request would be wrong for one of 16 MiB on a slow line and far too long for a
//! dead connection. So what is limited is the time without progress: within each window enough bytes must
//! move, in either direction. A request without a body therefore has one window in all.

use std::time::Duration;

/// The limits of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// Within each window of this length …
    pub window: Duration,
    /// … so many bytes a second must have moved on average.
    pub least_bytes_per_second: u64,
}

impl Default for Patience {
    /// 5 s, and 10 KiB/s over each minute: below that a day would not do for 1 GiB.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            window: Duration::from_secs(60),
            least_bytes_per_second: 10 * 1024,
        }
    }
}

/// The window that a request is in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    waited: Duration,
    moved_bytes: u64,
}

/// Too little moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{moved_bytes} bytes moved in {} s", waited.as_secs())]
pub(super) struct TooSlow {
    waited: Duration,
    moved_bytes: u64,
}

impl Window {
    /// What is left of the window.
    pub fn left(&self, patience: &Patience) -> Duration {
        patience.window.saturating_sub(self.waited)
    }

    /// Notes that in `waited` of waiting for the store `moved_bytes` moved.
    ///
    /// # Errors
    /// When the window is over, and too little moved in it.
    pub fn note(&mut self, patience: &Patience, waited: Duration, moved_bytes: u64) -> Result<(), TooSlow> {
        self.waited += waited;
        self.moved_bytes += moved_bytes;
        if self.waited < patience.window {
            return Ok(());
        }
        let least = patience.least_bytes_per_second.saturating_mul(patience.window.as_secs()).max(1);
        if self.moved_bytes < least {
            return Err(TooSlow { waited: self.waited, moved_bytes: self.moved_bytes });
        }
        *self = Self::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn patience() -> Patience {
        Patience { connect: SECOND, window: 10 * SECOND, least_bytes_per_second: 100 }
    }

    #[test]
    fn a_request_that_moves_enough_in_each_window_may_take_for_ever() {
        let mut window = Window::default();

        for _ in 0..1000 {
            window.note(&patience(), SECOND, 100).unwrap();
        }
    }

    #[test]
    fn a_request_that_moves_nothing_ends_with_its_window() {
        let mut window = Window::default();
        window.note(&patience(), 9 * SECOND, 0).unwrap();
        assert_eq!(window.left(&patience()), SECOND);

        let error = window.note(&patience(), SECOND, 0).unwrap_err();

        assert_eq!(error.to_string(), "0 bytes moved in 10 s");
    }

    #[test]
    fn what_moved_in_an_earlier_window_does_not_count() {
        let mut window = Window::default();
        window.note(&patience(), 10 * SECOND, 1_000_000).unwrap();

        window.note(&patience(), 10 * SECOND, 999).unwrap_err();
    }
}
