//! Decides what to do about a Lease that was read.
//!
//! Input: the record, when it was first seen as it is, now, who asks. Output: a [`Decision`].
//! Pure: no client, no clock. Times of other machines, such as the record's `renewTime`, are not looked at.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::LeaseSpec;

/// What matters of a Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; `None` if it was released or never held.
    pub holder: Option<String>,
    /// How long it holds after a renewal, as its holder promised.
    pub duration: Duration,
}

impl Record {
    /// The record of `spec`; a `spec` without a duration gets `default_duration`.
    pub fn of(spec: &LeaseSpec, default_duration: Duration) -> Self {
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Self { holder, duration: seconds.map_or(default_duration, Duration::from_secs) }
    }
}

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take it: nobody holds it, or its holder did not renew it.
    Acquire,
    /// Renew it: it is ours.
    Renew,
    /// Leave it to its holder, who may renew it until then.
    Wait {
        /// When it expires, unless it changes before.
        until: Instant,
    },
}

/// What `identity` does at `now` about `record`, which has not changed since `observed_at`.
///
/// `observed_at` is when *this* process first saw the record as it is. It is never earlier than the holder's
/// own renewal, so a Lease that has expired here has expired for its holder.
pub fn decide(record: &Record, observed_at: Instant, now: Instant, identity: &str) -> Decision {
    let until = observed_at + record.duration;
    match record.holder.as_deref() {
        None => Decision::Acquire,
        Some(holder) if holder == identity => Decision::Renew,
        Some(_) if now >= until => Decision::Acquire,
        Some(_) => Decision::Wait { until },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn held_by(holder: &str) -> Record {
        Record { holder: Some(holder.to_owned()), duration: DURATION }
    }

    #[test]
    fn a_lease_that_nobody_holds_is_acquired() {
        let now = Instant::now();

        assert_eq!(decide(&Record::default(), now, now, "a"), Decision::Acquire);
    }

    #[test]
    fn ones_own_lease_is_renewed_even_after_it_expired() {
        let seen = Instant::now();

        assert_eq!(decide(&held_by("a"), seen, seen, "a"), Decision::Renew);
        assert_eq!(decide(&held_by("a"), seen, seen + 2 * DURATION, "a"), Decision::Renew);
    }

    #[test]
    fn anothers_lease_is_left_alone_until_it_was_seen_unchanged_for_its_duration() {
        let seen = Instant::now();
        let until = seen + DURATION;

        let just_before = until - Duration::from_millis(1);

        assert_eq!(decide(&held_by("b"), seen, seen, "a"), Decision::Wait { until });
        assert_eq!(decide(&held_by("b"), seen, just_before, "a"), Decision::Wait { until });
        assert_eq!(decide(&held_by("b"), seen, until, "a"), Decision::Acquire);
    }

    #[test]
    fn the_holders_duration_counts_not_the_contenders() {
        let spec = LeaseSpec {
            holder_identity: Some("b".to_owned()),
            lease_duration_seconds: Some(60),
            ..LeaseSpec::default()
        };

        assert_eq!(Record::of(&spec, DURATION).duration, Duration::from_secs(60));
        assert_eq!(Record::of(&LeaseSpec::default(), DURATION).duration, DURATION);
    }

    #[test]
    fn an_empty_holder_is_no_holder() {
        let released = LeaseSpec { holder_identity: Some(String::new()), ..LeaseSpec::default() };

        assert_eq!(Record::of(&released, DURATION).holder, None);
    }
}
