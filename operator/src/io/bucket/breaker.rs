//! Whether a store is asked at all: after several failures in a row it is left alone for a while.
//!
//! Input: what the last requests came to, and the time. Output: whether the next one may go. Pure: no clock
//! and no client. One breaker a store, shared by all who use it.

use std::time::Duration;

use jiff::Timestamp;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// So many failures in a row open it.
    pub failures: u32,
    /// So long nobody asks; then one may try.
    pub pause: Duration,
}

impl Default for Rule {
    /// Five failures, half a minute: a store that restarts is noticed soon, and met by one request.
    fn default() -> Self {
        Self { failures: 5, pause: Duration::from_secs(30) }
    }
}

/// What the breaker says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Go.
    Go,
    /// Go, alone: what comes of it decides for all.
    Try,
    /// Not before then.
    Wait {
        /// When to ask again.
        until: Timestamp,
    },
}

/// How the breaker stands, for a condition and a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everybody may ask.
    Closed,
    /// Nobody may.
    Open,
    /// One asks.
    HalfOpen,
}

/// The breaker of one store.
#[derive(Clone, Debug)]
pub struct Breaker {
    rule: Rule,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Timestamp },
    HalfOpen { until: Timestamp },
}

impl Breaker {
    /// A closed breaker.
    pub fn new(rule: Rule) -> Self {
        Self { rule, state: State::Closed { failures: 0 } }
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        match self.state {
            State::Closed { .. } => Standing::Closed,
            State::Open { .. } => Standing::Open,
            State::HalfOpen { .. } => Standing::HalfOpen,
        }
    }

    /// Until when nobody asks; `None`: somebody may at `now`, and if only to try.
    pub fn left_alone_until(&self, now: Timestamp) -> Option<Timestamp> {
        match self.state {
            State::Open { until } | State::HalfOpen { until } if now < until => Some(until),
            State::Open { .. } | State::HalfOpen { .. } | State::Closed { .. } => None,
        }
    }

    /// Asks whether a request may go at `now`. Whoever goes says afterwards what came of it; who did not ask after all, or
    /// does not know, says nothing.
    ///
    /// Whoever tries and never says what came of it is given up after the rule's pause.
    pub fn admit(&mut self, now: Timestamp) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Go,
            State::Open { until } | State::HalfOpen { until } if now < until => Admission::Wait { until },
            State::Open { .. } | State::HalfOpen { .. } => {
                self.state = State::HalfOpen { until: now + self.rule.pause };
                Admission::Try
            }
        }
    }

    /// The store answered: with what was asked for, or with a refusal, which is an answer too.
    pub fn answered(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// The store did not answer in time, or with a failure of its own
    /// ([`Error::is_of_the_store`](super::Error::is_of_the_store)).
    pub fn failed(&mut self, now: Timestamp) {
        let open = State::Open { until: now + self.rule.pause };
        self.state = match self.state {
            State::Closed { failures } if failures + 1 < self.rule.failures => {
                State::Closed { failures: failures + 1 }
            }
            // A request that was under way when the breaker opened does not make the pause longer.
            State::Open { until } => State::Open { until },
            State::Closed { .. } | State::HalfOpen { .. } => open,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(Rule { failures: 3, pause: PAUSE });
        for second in 0..3 {
            breaker.failed(at(second));
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_between_them_does_not() {
        let mut breaker = Breaker::new(Rule { failures: 3, pause: PAUSE });
        for failed in [true, true, false, true, true] {
            assert_eq!(breaker.admit(at(0)), Admission::Go);
            if failed { breaker.failed(at(0)) } else { breaker.answered() }
        }
        assert_eq!(breaker.standing(), Standing::Closed);

        breaker.failed(at(0));

        assert_eq!(breaker.standing(), Standing::Open);
        assert_eq!(breaker.admit(at(29)), Admission::Wait { until: at(30) });
        assert_eq!(
            (breaker.left_alone_until(at(29)), breaker.left_alone_until(at(30))),
            (Some(at(30)), None)
        );
    }

    #[test]
    fn after_the_pause_one_tries_and_the_others_wait() {
        let mut breaker = opened();

        assert_eq!(breaker.admit(at(32)), Admission::Try);

        assert_eq!(breaker.admit(at(33)), Admission::Wait { until: at(62) });
        assert_eq!(breaker.standing(), Standing::HalfOpen);
    }

    #[test]
    fn what_comes_of_the_try_decides() {
        let mut breaker = opened();
        breaker.admit(at(32));
        breaker.failed(at(33));
        assert_eq!(breaker.admit(at(62)), Admission::Wait { until: at(63) });

        assert_eq!(breaker.admit(at(63)), Admission::Try);
        breaker.answered();

        assert_eq!(breaker.admit(at(63)), Admission::Go);
    }

    #[test]
    fn a_try_that_nobody_heard_of_again_is_followed_by_another() {
        let mut breaker = opened();
        breaker.admit(at(32));

        assert_eq!(breaker.admit(at(62)), Admission::Try);
    }

    #[test]
    fn requests_that_were_under_way_do_not_make_the_pause_longer() {
        let mut breaker = opened();

        breaker.failed(at(20));

        assert_eq!(breaker.admit(at(32)), Admission::Try);
    }
}
