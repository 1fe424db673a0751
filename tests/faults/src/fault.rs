//! What happens to requests. A PUT or a read here is one of an agent's: a key with a folder `data` in it.

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
    /// Every third read reaches the store, and its answer is cut off.
    ReadLostEveryThird,
    /// Every body crawls, of requests and of answers.
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
    /// After so many reads, every request is answered that its key is unknown.
    RevokedAfterReads {
        /// So many still get through.
        reads: usize,
    },
    /// After so many reads, reads are taken and never answered, until another fault is set.
    ReadsHeldAfter {
        /// So many still get through.
        reads: usize,
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
    CutAnswer,
    Answer { status: u16, code: &'static str },
    Hold,
    HangUp,
}

/// What an agent does with an object, with its number among those of its kind, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Put(usize),
    Read(usize),
}

impl Fault {
    /// For the request of that number, which is this to an object of an agent's if it is one. It counts from 1.
    pub(crate) fn act(self, request: usize, data: Option<Data>) -> Act {
        match (self, data) {
            (Self::BusyEveryThird, _) if request.is_multiple_of(3) => {
                Act::Answer { status: 503, code: "SlowDown" }
            }
            (Self::AlwaysBusy, _) => Act::Answer { status: 503, code: "SlowDown" },
            (Self::AnswerLostEveryThird, Some(Data::Put(put))) if put.is_multiple_of(3) => Act::LoseAnswer,
            (Self::ReadLostEveryThird, Some(Data::Read(read))) if read.is_multiple_of(3) => Act::CutAnswer,
            (Self::Slow { bytes_per_second }, _) => Act::Crawl { bytes_per_second },
            (Self::FullAfter { puts }, Some(Data::Put(put))) if put > puts => {
                Act::Answer { status: 403, code: "QuotaExceeded" }
            }
            (Self::RevokedAfter { puts }, Some(Data::Put(put))) if put > puts => {
                Act::Answer { status: 403, code: "InvalidAccessKeyId" }
            }
            (Self::HeldAfter { puts }, Some(Data::Put(put))) if put > puts => Act::Hold,
            (Self::RevokedAfterReads { reads }, Some(Data::Read(read))) if read > reads => {
                Act::Answer { status: 403, code: "InvalidAccessKeyId" }
            }
            (Self::ReadsHeldAfter { reads }, Some(Data::Read(read))) if read > reads => Act::Hold,
            (Self::Unreachable, _) => Act::HangUp,
            _ => Act::Pass,
        }
    }
}
