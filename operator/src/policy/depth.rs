//! Decides how much of a backup is read back. Pure.

use jiff::Timestamp;
use valv_crds::{
    BackupPolicy,
    policy::{Verification, VerificationMode},
};

const DAY_SECONDS: i64 = 86_400;

/// How much of a backup is read back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Depth {
    /// Every byte of every segment.
    Full,
    /// Every byte of so many segments.
    Sample(i32),
    /// Manifest and index.
    Metadata,
}

/// How much of the backup that begins at `now` is read back by `policy`, when `last_full` is when all of one was read
/// back last.
pub fn depth(policy: &BackupPolicy, last_full: Option<Timestamp>, now: Timestamp) -> Depth {
    let Verification { mode, segments, full_every } = policy.spec.verification;
    let is_due = full_every.is_some_and(|days| {
        let whole = i64::from(days.count()).saturating_mul(DAY_SECONDS);
        // What lies in the future was written by a wrong clock.
        last_full.is_none_or(|last| last > now || now.as_second() - last.as_second() >= whole)
    });
    match mode {
        VerificationMode::Sample | VerificationMode::Metadata if is_due => Depth::Full,
        VerificationMode::Full => Depth::Full,
        VerificationMode::Sample => Depth::Sample(segments.unwrap_or(Verification::SAMPLE)),
        VerificationMode::Metadata => Depth::Metadata,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(verification: &str) -> BackupPolicy {
        let yaml = format!(
            "
            apiVersion: valv.eu/v1alpha1
            kind: BackupPolicy
            metadata: {{name: default}}
            spec:
              schedule: {{cron: '0 1 * * *', timeZone: UTC}}
              stores: [helsinki]
              retention: {{floor: {{days: 35, reason: decided 2026-09-01}}}}
              objectives: {{rpo: 24h, rto: 4h}}
              verification: {verification}"
        );
        serde_yaml::from_str(&yaml).unwrap()
    }

    fn of(verification: &str, last_full: Option<&str>) -> Depth {
        let last_full = last_full.map(|text| text.parse().unwrap());
        depth(&policy(verification), last_full, "2026-11-22T01:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_policy_says_how_much_is_read_back() {
        assert_eq!(of("{mode: Full}", None), Depth::Full);
        assert_eq!(of("{mode: Sample}", None), Depth::Sample(8));
        assert_eq!(of("{mode: Sample, segments: 3}", None), Depth::Sample(3));
        assert_eq!(of("{mode: Metadata}", None), Depth::Metadata);
    }

    #[test]
    fn the_first_backup_after_so_many_days_is_read_back_whole() {
        let weekly = "{mode: Sample, fullEvery: 7d}";

        assert_eq!(of(weekly, None), Depth::Full);
        assert_eq!(of(weekly, Some("2026-11-15T01:00:00Z")), Depth::Full);
        assert_eq!(of(weekly, Some("2026-11-15T01:00:01Z")), Depth::Sample(8));
        assert_eq!(of("{mode: Metadata, fullEvery: 7d}", Some("2026-11-01T01:00:00Z")), Depth::Full);
        assert_eq!(of(weekly, Some("2027-01-01T00:00:00Z")), Depth::Full, "a wrong clock puts nothing off");
    }
}
