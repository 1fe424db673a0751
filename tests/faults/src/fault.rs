//! What happens to requests. What probes put is nobody's here.

/// Whose objects a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objects {
    /// Agents' data: segments, pages of the index, manifests.
    Data,
    /// The operator's commits.
    Commits,
    /// The operator's records of whose an archive is.
    Owners,
    /// The operator's records of drills.
    Records,
}

impl Objects {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Data, Self::Commits, Self::Owners, Self::Records];

    /// What the object at `path` is; absent: something else. A probe's objects lie under names that no archive can have.
    pub(crate) fn at(path: &str) -> Option<Self> {
        if path.contains("/.probe") {
            return None;
        }
        let (_, in_archive) = path.split_once("/v1/")?;
        let (_, in_folder) = in_archive.split_once('/')?;
        match in_folder.split_once('/')? {
            ("data", _) => Some(Self::Data),
            ("commits", _) => Some(Self::Commits),
            ("records", "owner.json") => Some(Self::Owners),
            ("records", name) if name.starts_with("drill-") => Some(Self::Records),
            _ => None,
        }
    }

    /// Its place among all.
    pub(crate) fn number(self) -> usize {
        self as usize
    }
}

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
    /// The PUT of this number of these objects, the first is 1, reaches the store, succeeds, and its answer is lost.
    AnswerLost {
        /// Of which.
        of: Objects,
        /// Which.
        put: usize,
    },
    /// After so many reads, every request is answered that its key is unknown.
    RevokedAfterReads {
        /// So many still get through.
        reads: usize,
    },
    /// After so many reads of agents' data, reads are taken and kept, until another fault is set. Then those for whose
    /// answer somebody still waits go on to the store.
    ReadsHeldAfter {
        /// So many still get through.
        reads: usize,
    },
    /// After so many PUTs of these objects, they are taken and kept, until another fault is set. Then those for whose
    /// answer somebody still waits go on to the store.
    HeldAfter {
        /// Of which.
        of: Objects,
        /// So many still get through.
        puts: usize,
    },
    /// After so many PUTs of these objects, half of each reaches the store and the rest never does. The connections
    /// stay until another fault is set.
    HalvedAfter {
        /// Of which.
        of: Objects,
        /// So many still get through.
        puts: usize,
    },
    /// After so many PUTs of these objects, they reach the store, and its answers are kept, until another fault is set.
    AnswersHeldAfter {
        /// Of which.
        of: Objects,
        /// So many are still answered.
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
    Halve,
    HoldAnswer,
    HangUp,
}

/// What somebody does with an object, with its number among those of its kind, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Put(Objects, usize),
    /// Of an agent's data.
    Read(usize),
}

impl Fault {
    /// For the request of that number, which is this to such an object if it is one. It counts from 1.
    pub(crate) fn act(self, request: usize, deed: Option<Deed>) -> Act {
        match (self, deed) {
            (Self::BusyEveryThird, _) if request.is_multiple_of(3) => {
                Act::Answer { status: 503, code: "SlowDown" }
            }
            (Self::AlwaysBusy, _) => Act::Answer { status: 503, code: "SlowDown" },
            (Self::AnswerLostEveryThird, Some(Deed::Put(Objects::Data, put))) if put.is_multiple_of(3) => {
                Act::LoseAnswer
            }
            (Self::AnswerLost { of, put: lost }, Some(Deed::Put(these, put)))
                if of == these && put == lost =>
            {
                Act::LoseAnswer
            }
            (Self::HeldAfter { of, puts }, Some(Deed::Put(these, put))) if of == these && put > puts => {
                Act::Hold
            }
            (Self::HalvedAfter { of, puts }, Some(Deed::Put(these, put))) if of == these && put > puts => {
                Act::Halve
            }
            (Self::AnswersHeldAfter { of, puts }, Some(Deed::Put(these, put)))
                if of == these && put > puts =>
            {
                Act::HoldAnswer
            }
            (Self::ReadLostEveryThird, Some(Deed::Read(read))) if read.is_multiple_of(3) => Act::CutAnswer,
            (Self::RevokedAfterReads { reads }, Some(Deed::Read(read))) if read > reads => {
                Act::Answer { status: 403, code: "InvalidAccessKeyId" }
            }
            (Self::ReadsHeldAfter { reads }, Some(Deed::Read(read))) if read > reads => Act::Hold,
            (Self::Slow { bytes_per_second }, _) => Act::Crawl { bytes_per_second },
            (Self::Unreachable, _) => Act::HangUp,
            _ => Act::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_object_is_told_by_its_key_whatever_the_store_s_prefix_and_a_probe_s_are_nobody_s() {
        for (path, of) in [
            ("/b/hel/v1/ada/data/20261122T010000Z/a/manifest.json", Some(Objects::Data)),
            ("/b/v1/ada/commits/20261122T010000Z.json", Some(Objects::Commits)),
            ("/b/hel/v1/ada/records/owner.json", Some(Objects::Owners)),
            ("/b/hel/v1/ada/records/register.json", None),
            ("/b/hel/v1/data/commits/20261122T010000Z.json", Some(Objects::Commits)),
            ("/b/hel/v1/.probe/data/1-00000000/a", None),
            ("/b/hel/v1/.probe/commits/1-00000000/a", None),
            ("/b/hel/v1/.probe-scope/data/1-00000000/a", None),
            ("/b", None),
        ] {
            assert_eq!(Objects::at(path), of, "{path}");
        }
    }

    #[test]
    fn a_fault_of_some_objects_leaves_the_others_and_those_that_still_get_through() {
        let fault = Fault::HeldAfter { of: Objects::Commits, puts: 1 };

        assert_eq!(fault.act(9, Some(Deed::Put(Objects::Commits, 1))), Act::Pass);
        assert_eq!(fault.act(9, Some(Deed::Put(Objects::Commits, 2))), Act::Hold);
        assert_eq!(fault.act(9, Some(Deed::Put(Objects::Data, 2))), Act::Pass);
        assert_eq!(fault.act(9, Some(Deed::Read(2))), Act::Pass);
        assert_eq!(fault.act(9, None), Act::Pass);
    }

    #[test]
    fn one_answer_is_lost_and_the_next_is_given() {
        let fault = Fault::AnswerLost { of: Objects::Commits, put: 1 };

        assert_eq!(fault.act(9, Some(Deed::Put(Objects::Commits, 1))), Act::LoseAnswer);
        assert_eq!(fault.act(9, Some(Deed::Put(Objects::Commits, 2))), Act::Pass);
    }

    #[test]
    fn a_fault_of_every_request_strikes_puts_and_reads_too() {
        for deed in [None, Some(Deed::Read(1)), Some(Deed::Put(Objects::Data, 1))] {
            assert_eq!(Fault::Unreachable.act(1, deed), Act::HangUp);
            assert_eq!(Fault::BusyEveryThird.act(2, deed), Act::Pass);
            assert_eq!(Fault::BusyEveryThird.act(3, deed), Act::Answer { status: 503, code: "SlowDown" });
        }
    }
}
