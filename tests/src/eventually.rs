//! Waiting for a condition, never for a time.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Between two looks: a look is one or two reads, so several tests at once do not load the API server.
const INTERVAL: Duration = Duration::from_millis(200);

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// What is waited for.
    Yes(T),
    /// Something else: what, for whoever reads why the wait failed.
    NotYet(String),
}

impl<T> Seen<T> {
    /// `Yes` if there is what is waited for; else what was seen instead.
    pub fn when(done: Option<T>, instead: impl Display) -> Self {
        match done {
            Some(done) => Self::Yes(done),
            None => Self::NotYet(instead.to_string()),
        }
    }
}

/// Looks until `look` sees what is waited for. A look that fails is not yet it.
///
/// # Errors
/// After `deadline`: says `what` was waited for, and what was seen last.
pub async fn eventually<T>(
    what: impl Display,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<Seen<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        let state = match look().await {
            Ok(Seen::Yes(found)) => return Ok(found),
            Ok(Seen::NotYet(state)) => state,
            Err(error) => format!("failed to look: {error:#}"),
        };
        if begun.elapsed() >= deadline {
            bail!("{what}: not within {} s; last seen: {state}", deadline.as_secs());
        }
        sleep(INTERVAL).await;
    }
}
