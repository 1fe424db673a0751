//! Decides what to do about a Lease that was read.
//!
//! Input: the record, when it was first seen as it is, now, who asks. Output: a [`Decision`].
//! Pure: no client, no clock. Times of other machines, such as the record's `renewTime`, are not looked at.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;

/// What matters of a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// It is not there. It may have been deleted while somebody held it, who may write until the time is over that
    /// he was promised.
    Absent,
    /// Nobody holds it: whoever did said that he writes no more.
    Free,
    /// Somebody holds it.
    Held {
        /// Who.
        by: String,
        /// How long it holds after a renewal, as its holder promised.
        duration: Duration,
    },
}

impl Record {
    /// The record of `lease`; a holder who promised nothing gets `default_duration`.
    pub fn of(lease: Option<&Lease>, default_duration: Duration) -> Self {
        let Some(lease) = lease else { return Self::Absent };
        let spec = lease.spec.clone().unwrap_or_default();
        let Some(by) = spec.holder_identity.filter(|holder| !holder.is_empty()) else { return Self::Free };
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Self::Held { by, duration: seconds.map_or(default_duration, Duration::from_secs) }
    }

    /// Who holds it.
    pub fn holder(&self) -> Option<&str> {
        if let Self::Held { by, .. } = self { Some(by) } else { None }
    }
}

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take it: nobody holds it, its holder did not renew it, or it is gone for long enough.
    Acquire,
    /// Renew it: it is ours.
    Renew,
    /// Leave it to its holder, who may write until then.
    Wait {
        /// When it expires, unless it changes before.
        until: Instant,
    },
}

/// What `identity` does at `now` about `record`, which has not changed since `observed_at`. A Lease that is not there
/// is left alone for `default_duration`.
///
/// `observed_at` is when *this* process first saw the record as it is. It is never earlier than the holder's
/// own renewal, so a Lease that has expired here has expired for its holder.
pub fn decide(
    record: &Record,
    observed_at: Instant,
    now: Instant,
    identity: &str,
    default_duration: Duration,
) -> Decision {
    let until = match record {
        Record::Free => return Decision::Acquire,
        Record::Held { by, .. } if by == identity => return Decision::Renew,
        Record::Held { duration, .. } => observed_at + *duration,
        Record::Absent => observed_at + default_duration,
    };
    if now >= until { Decision::Acquire } else { Decision::Wait { until } }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn held_by(holder: &str) -> Record {
        Record::Held { by: holder.to_owned(), duration: DURATION }
    }

    fn lease(holder: Option<&str>, seconds: Option<i32>) -> Lease {
        let spec = LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[test]
    fn a_lease_that_nobody_holds_is_acquired() {
        let now = Instant::now();

        assert_eq!(decide(&Record::Free, now, now, "a", DURATION), Decision::Acquire);
    }

    #[test]
    fn ones_own_lease_is_renewed_even_after_it_expired() {
        let seen = Instant::now();

        assert_eq!(decide(&held_by("a"), seen, seen, "a", DURATION), Decision::Renew);
        assert_eq!(decide(&held_by("a"), seen, seen + 2 * DURATION, "a", DURATION), Decision::Renew);
    }

    #[test]
    fn anothers_lease_and_one_that_is_gone_are_left_alone_until_seen_unchanged_for_the_duration() {
        let seen = Instant::now();
        let until = seen + DURATION;
        let just_before = until - Duration::from_millis(1);

        for record in [held_by("b"), Record::Absent] {
            assert_eq!(decide(&record, seen, seen, "a", DURATION), Decision::Wait { until });
            assert_eq!(decide(&record, seen, just_before, "a", DURATION), Decision::Wait { until });
            assert_eq!(decide(&record, seen, until, "a", DURATION), Decision::Acquire);
        }
    }

    #[test]
    fn the_holders_duration_counts_not_the_contenders() {
        let promised = Record::of(Some(&lease(Some("b"), Some(60))), DURATION);
        let silent = Record::of(Some(&lease(Some("b"), None)), DURATION);

        assert_eq!(promised, Record::Held { by: "b".to_owned(), duration: Duration::from_secs(60) });
        assert_eq!(silent, held_by("b"));
    }

    #[test]
    fn an_empty_holder_is_no_holder() {
        assert_eq!(Record::of(Some(&lease(Some(""), None)), DURATION), Record::Free);
        assert_eq!(Record::of(None, DURATION), Record::Absent);
    }
}
