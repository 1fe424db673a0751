//! Waiting for a condition: with a deadline, with the log that matters, and mostly ending at Ctrl-C.
//!
//! The only place that sleeps.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{interrupt, log};

/// Lines of a log that an error shows.
pub const TAIL_LINES: usize = 20;

/// How often a condition is looked at. Most are a file, a process or a socket, which costs nothing.
const INTERVAL: Duration = Duration::from_millis(50);

/// A wait for one condition.
#[derive(Clone, Debug)]
pub struct Wait {
    what: String,
    deadline: Duration,
    interval: Duration,
    log: Option<PathBuf>,
    at_signal: AtSignal,
}

/// What a wait does when a signal has asked the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtSignal {
    Fail,
    GoOn,
}

impl Wait {
    /// A wait for `what`, as it stands in the error ("the API server is ready").
    pub fn new(what: impl Into<String>, deadline: Duration) -> Self {
        Self { what: what.into(), deadline, interval: INTERVAL, log: None, at_signal: AtSignal::Fail }
    }

    /// Looks only this often: for conditions that start a program.
    pub fn every(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Goes on after a signal: for what must be waited for because of it.
    pub fn despite_signals(self) -> Self {
        Self { at_signal: AtSignal::GoOn, ..self }
    }

    /// Shows the end of this log if the deadline passes.
    pub fn showing(self, log: &Path) -> Self {
        Self { log: Some(log.to_path_buf()), ..self }
    }

    /// Waits until `condition` gives a value.
    ///
    /// # Errors
    /// The condition's own; "interrupted"; or that the deadline has passed, with the log's tail.
    pub fn until<T>(&self, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let started = Instant::now();
        loop {
            if self.at_signal == AtSignal::Fail {
                interrupt::check()?;
            }
            if let Some(value) = condition()? {
                return Ok(value);
            }
            if started.elapsed() > self.deadline {
                let tail = self.log.as_deref().map(|log| log::quote(log, TAIL_LINES)).unwrap_or_default();
                bail!("waited {} s in vain: {}{tail}", self.deadline.as_secs(), self.what);
            }
            std::thread::sleep(self.interval);
        }
    }
}
