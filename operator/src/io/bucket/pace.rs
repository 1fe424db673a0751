//! A limit on bytes a second, shared by all requests of one run.

use std::{
    num::NonZeroU64,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Lets so many bytes a second through, evenly: nothing is saved up while nobody sends.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: NonZeroU64,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// A limit of `bytes_per_second`.
    pub fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second, next: Mutex::new(None) }
    }

    /// Takes `bytes` out of what may be sent, and says how long after `now` they may go.
    ///
    /// The wait is of those who come later: the first goes at once.
    pub fn take(&self, bytes: usize, now: Instant) -> Duration {
        let seconds = bytes as f64 / self.bytes_per_second.get() as f64;
        // Nothing in it can be half done.
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let start = next.map_or(now, |next| next.max(now));
        *next = Some(start + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 4));
        start - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_send_together_share_the_pace() {
        let pace = Pace::new(NonZeroU64::new(1000).unwrap());
        let now = Instant::now();

        let waits: Vec<Duration> = (0..4).map(|_| pace.take(500, now)).collect();

        assert_eq!(waits, [0, 500, 1000, 1500].map(Duration::from_millis));
    }

    #[test]
    fn a_pause_is_not_saved_up() {
        let pace = Pace::new(NonZeroU64::new(1000).unwrap());
        let now = Instant::now();
        pace.take(1000, now);

        let later = now + Duration::from_secs(60);

        assert_eq!(pace.take(1000, later), Duration::ZERO);
        assert_eq!(pace.take(1000, later), Duration::from_secs(1));
    }
}
