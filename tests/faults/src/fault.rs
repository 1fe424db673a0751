//! What happens to requests. A PUT here is one of an agent's: a key with a folder `data` in it.

/// What the network or the store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: every request is passed on.
    None,
    /// Every third is answered 503 and does not reach the store.
    BusyEveryThird,
    /// All are answered 503.
    AlwaysBusy,
    /// Every third PUT reaches the store, succeeds, and its answer is lost.
    AnswerLostEveryThird,
    /// Every request's body crawls.
    Slow {
        /// So fast.
        bytes_per_second: usize,
    },
    /// After so many PUTs, every PUT is answered that the quota is used up.
    FullAfter {
        /// So many still get through.
        puts: usize,
    },
    /// After so many PUTs, every request is answered that its key is unknown.
    RevokedAfter {
        /// So many still get through.
        puts: usize,
    },
    /// After so many PUTs, requests are taken and never answered, until another fault is set.
    HeldAfter {
        /// So many still get through.
        puts: usize,
    },
    /// Every answer says that it is another time.
    ClockAhead {
        /// So much later.
        seconds: u64,
    },
    /// Connections are ended at once.
    Unreachable,
}

/// What is done with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Pass,
    Crawl { bytes_per_second: usize },
    LoseAnswer,
    Answer { status: u16, code: &'static str },
    Hold,
    HangUp,
}

impl Fault {
    /// For the request of that number, which is the PUT of that number if it is one. Both count from 1.
    pub(crate) fn act(self, request: usize, put: Option<usize>) -> Act {
        let beyond = |puts: usize, put: usize| put > puts;
        match (self, put) {
            (Self::BusyEveryThird, _) if request.is_multiple_of(3) => {
                Act::Answer { status: 503, code: "SlowDown" }
            }
            (Self::AlwaysBusy, _) => Act::Answer { status: 503, code: "SlowDown" },
            (Self::AnswerLostEveryThird, Some(put)) if put.is_multiple_of(3) => Act::LoseAnswer,
            (Self::Slow { bytes_per_second }, _) => Act::Crawl { bytes_per_second },
            (Self::FullAfter { puts }, Some(put)) if beyond(puts, put) => {
                Act::Answer { status: 403, code: "QuotaExceeded" }
            }
            (Self::RevokedAfter { puts }, Some(put)) if beyond(puts, put) => {
                Act::Answer { status: 403, code: "InvalidAccessKeyId" }
            }
            (Self::HeldAfter { puts }, Some(put)) if beyond(puts, put) => Act::Hold,
            (Self::Unreachable, _) => Act::HangUp,
            _ => Act::Pass,
        }
    }
}
