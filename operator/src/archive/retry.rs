//! How often a request to a store is tried again, and when that is given up.
//!
//! The bucket's client tries everything once. A run has a budget above it: each retry takes one from it, each
//! success gives one back. So a store that fails one request in three slows a backup down and does not stop
//! it, and a store that is gone stops it in minutes.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tracing::warn;

use crate::{
    error::chain,
    io::bucket::{Bucket, Error, Put, Version},
};

/// When to try again, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryRule {
    /// How often one request is tried, the first time included.
    pub tries: u32,
    /// The wait after its first failure; doubled after each further one.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
    /// Retries that a run may be ahead of its successes.
    pub budget: u32,
}

impl RetryRule {
    /// For a look of the operator's, which others wait for: three tries in about two seconds.
    pub const FEW: Self = Self {
        tries: 3,
        first_wait: Duration::from_millis(500),
        longest_wait: Duration::from_secs(2),
        budget: 20,
    };
}

impl Default for RetryRule {
    /// Ten tries in about two minutes, which a store needs for a restart; a hundred retries ahead.
    fn default() -> Self {
        Self {
            tries: 10,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            budget: 100,
        }
    }
}

impl RetryRule {
    /// The wait after the `failures`-th failure of one request, spread by `random` (0 to 1) between half of
    /// it and all of it.
    fn wait(&self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let whole = self.first_wait.saturating_mul(1 << doublings).min(self.longest_wait);
        whole.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }
}

/// The retries of one run.
#[derive(Debug)]
pub(super) struct Retries {
    rule: RetryRule,
    left: Mutex<u32>,
}

impl Retries {
    /// With its whole budget.
    pub fn new(rule: RetryRule) -> Self {
        Self { rule, left: Mutex::new(rule.budget) }
    }

    /// The tries of one request: for what [`ask`](Self::ask) cannot send.
    pub fn begin(&self) -> Tries<'_> {
        Tries { retries: self, failures: 0 }
    }

    /// Sends `request` until it is answered.
    ///
    /// # Errors
    /// As [`Tries::again_after`].
    pub async fn ask<T, F>(&self, request: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut tries = self.begin();
        loop {
            // In a box: in each other, futures of all these layers are too deep for the compiler.
            match Box::pin(request()).await {
                Ok(answer) => {
                    tries.succeeded();
                    return Ok(answer);
                }
                Err(error) => tries.again_after(error).await?,
            }
        }
    }

    /// Takes one retry out of the budget, if there is one.
    fn take(&self) -> bool {
        let mut left = self.left();
        let taken = *left > 0;
        *left = left.saturating_sub(1);
        taken
    }

    fn give_back(&self) {
        let mut left = self.left();
        *left = self.rule.budget.min(*left + 1);
    }

    /// Nothing in it can be half done.
    fn left(&self) -> MutexGuard<'_, u32> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tries of one request.
pub(super) struct Tries<'a> {
    retries: &'a Retries,
    failures: u32,
}

impl Tries<'_> {
    /// Waits until the request should be sent again.
    ///
    /// # Errors
    /// `error` itself, if another try cannot help, if this request was tried often enough, or if the budget
    /// of the run is used up.
    pub async fn again_after(&mut self, error: Error) -> Result<(), Error> {
        self.failures += 1;
        if !error.can_retry() || self.failures >= self.retries.rule.tries || !self.retries.take() {
            return Err(error);
        }
        let wait = self.retries.rule.wait(self.failures, rand::random());
        warn!(
            object.key = error.key,
            error = chain(&error),
            failures = self.failures,
            wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "a request to the store failed, trying again"
        );
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// The request succeeded.
    pub fn succeeded(self) {
        self.retries.give_back();
    }
}

/// Asks as often as `rule` lets it.
///
/// # Errors
/// The last, if another try cannot help or there were enough.
pub async fn ask<T, F>(rule: RetryRule, request: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    Retries::new(rule).ask(request).await
}

/// Puts one small object, as often as `rule` lets it. An answer that was lost makes the next try find what it put itself:
/// whoever puts what must not be there yet reads it back.
///
/// # Errors
/// As [`ask`].
pub async fn put(
    bucket: &Bucket,
    key: &str,
    bytes: Bytes,
    how: &Put,
    rule: RetryRule,
) -> Result<Option<Version>, Error> {
    ask(rule, || bucket.put(key, bytes.clone(), how)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::bucket::{Kind, Operation};

    const RULE: RetryRule = RetryRule {
        tries: 4,
        first_wait: Duration::from_secs(1),
        longest_wait: Duration::from_secs(3),
        budget: 5,
    };

    fn busy() -> Error {
        Error::for_tests(Operation::Put, Kind::Unavailable)
    }

    #[test]
    fn the_wait_doubles_up_to_the_longest_and_chance_halves_it_at_most() {
        let waits: Vec<u64> = (1..=4).map(|failures| RULE.wait(failures, 1.0).as_secs()).collect();

        assert_eq!(waits, [1, 2, 3, 3]);
        assert_eq!(RULE.wait(2, 0.0), Duration::from_secs(1));
        assert_eq!(RULE.wait(u32::MAX, 7.0), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_is_given_up_after_its_tries() {
        let retries = Retries::new(RULE);
        let mut tries = retries.begin();

        for _ in 1..RULE.tries {
            tries.again_after(busy()).await.unwrap();
        }

        tries.again_after(busy()).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_busy_now_and_then_is_asked_again() {
        let asked = Mutex::new(0);

        let answer = ask(RULE, || {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            std::future::ready(if *asked < 3 { Err(busy()) } else { Ok("here") })
        });

        assert_eq!(answer.await.unwrap(), "here");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_tried_again() {
        let retries = Retries::new(RULE);

        let error = Error::for_tests(Operation::Put, Kind::Denied);

        assert_eq!(retries.begin().again_after(error).await.unwrap_err().kind, Kind::Denied);
        assert_eq!(*retries.left(), RULE.budget);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_every_other_request_does_not_use_the_budget_up() {
        let retries = Retries::new(RULE);

        for _ in 0..1000 {
            let mut tries = retries.begin();
            tries.again_after(busy()).await.unwrap();
            tries.succeeded();
        }

        assert_eq!(*retries.left(), RULE.budget);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_every_request_uses_the_budget_up() {
        let retries = Retries::new(RULE);
        let mut outcomes = Vec::new();

        for _ in 0..7 {
            outcomes.push(retries.begin().again_after(busy()).await.is_ok());
        }

        assert_eq!(outcomes, [true, true, true, true, true, false, false]);
    }
}
