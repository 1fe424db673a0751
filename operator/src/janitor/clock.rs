//! Compares the operator's clock with the store's, before anything that rests on the time is done there.
//!
//! A clock that is a year ahead would let every floor end, and would have every kept backup locked for a year more than
//! anybody asked for, which nobody can undo. The store's probe compares too, but only every few hours.

use jiff::Timestamp;

use crate::io::bucket::{Settings, greeting};

/// So far may two clocks be from each other.
const MOST_SECONDS: i64 = 300;

/// The two clocks cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They differ.
    #[error(
        "its clock is {ahead_seconds} s ahead of the operator's (below zero: behind): nothing was made longer and nothing deleted; set the clock that is wrong"
    )]
    Differs {
        /// So much the store's is ahead.
        ahead_seconds: i64,
    },
    /// The store has none.
    #[error(
        "it does not say what time it is: nobody knows whether the operator's clock is right; nothing was made longer and nothing deleted"
    )]
    Silent,
    /// It cannot be asked.
    #[error("failed to ask it for the time")]
    Ask(#[source] greeting::GreetingError),
}

/// Asks the store that `settings` name what time it is.
///
/// # Errors
/// Unless it is the same as `now` tells.
pub async fn compare(settings: &Settings, now: fn() -> Timestamp) -> Result<(), Error> {
    let heard = greeting::greet(settings).await.map_err(Error::Ask)?;
    judge(heard.date, now())
}

/// What the store's `date` says of `now`.
fn judge(date: Option<Timestamp>, now: Timestamp) -> Result<(), Error> {
    let ahead_seconds = date.ok_or(Error::Silent)?.as_second().saturating_sub(now.as_second());
    if ahead_seconds.abs() > MOST_SECONDS { Err(Error::Differs { ahead_seconds }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_minutes_are_no_difference_and_more_are() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let at = |text: &str| judge(Some(text.parse().unwrap()), now);

        assert!(at("2026-11-22T12:05:00Z").is_ok() && at("2026-11-22T11:55:00Z").is_ok());
        assert!(matches!(at("2026-11-22T11:54:59Z"), Err(Error::Differs { ahead_seconds: -301 })));
        assert!(matches!(at("2027-11-22T12:00:00Z"), Err(Error::Differs { .. })));
        assert!(matches!(judge(None, now), Err(Error::Silent)));
    }
}
