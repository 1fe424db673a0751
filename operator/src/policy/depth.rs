//! Decides how much of a backup, or of a copy of it, is read back in a store. Pure.

use std::time::Duration;

use jiff::Timestamp;
use valv_crds::{
    BackupPolicy, JournalTenant,
    policy::{Verification, VerificationMode},
};

use crate::{agent::verify::Depth, archive::verify::MOST_SAMPLED};

const DAY: Duration = Duration::from_secs(86_400);

/// Slots that are whole days apart by the calendar are an hour less apart where the clocks are put forward: that puts
/// nothing off for a day.
const SHORTER_BY: Duration = Duration::from_secs(2 * 3600);

/// How much `policy` has read back of the backup of `slot`, when `whole` is the slot of the newest one of which all was
/// read in the same store.
pub fn depth(policy: &BackupPolicy, whole: Option<Timestamp>, slot: Timestamp) -> Depth {
    // One that is dated after this was dated by a wrong clock. This one itself, tried again, stays what it was.
    let is_due = |span| whole.is_none_or(|whole| whole >= slot || is_since(whole, slot, span));
    when_due(policy, is_due)
}

/// How much `policy` has read back of a copy of the backup of `slot`. As [`depth`], but that older backups are copied
/// after newer ones: what is older than the newest one of which all was read there puts nothing off.
pub fn of_copy(policy: &BackupPolicy, whole: Option<Timestamp>, slot: Timestamp) -> Depth {
    let is_due = |span| whole.is_none_or(|whole| whole == slot || is_since(whole, slot, span));
    when_due(policy, is_due)
}

fn is_since(whole: Timestamp, slot: Timestamp, span: Duration) -> bool {
    Duration::try_from(slot.duration_since(whole)).unwrap_or_default() >= span
}

fn when_due(policy: &BackupPolicy, is_due: impl Fn(Duration) -> bool) -> Depth {
    let Verification { mode, segments, full_every } = policy.spec.verification;
    let is_due =
        full_every.is_some_and(|days| is_due(DAY.saturating_mul(days.count()).saturating_sub(SHORTER_BY)));
    match mode {
        VerificationMode::Sample | VerificationMode::Metadata if is_due => Depth::Full,
        VerificationMode::Full => Depth::Full,
        VerificationMode::Sample => match u64::try_from(segments.unwrap_or(Verification::SAMPLE)) {
            Ok(segments @ 1..=MOST_SAMPLED) => Depth::Sample(segments),
            // More than can be drawn: then all are read.
            Ok(_) | Err(_) => Depth::Full,
        },
        VerificationMode::Metadata => Depth::Metadata,
    }
}

/// The slot of the newest backup of `tenant` that was read back whole in `store`, as the tenant's status tells.
pub fn newest_whole(tenant: &JournalTenant, store: &str) -> Option<Timestamp> {
    let protection = tenant.status.as_ref()?.backup.as_ref()?;
    protection.read_whole.iter().find(|read| read.store == store).map(|read| read.slot.time())
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

    fn of(verification: &str, whole: Option<&str>) -> Depth {
        let whole = whole.map(|text| text.parse().unwrap());
        depth(&policy(verification), whole, "2026-11-22T01:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_policy_says_how_much_is_read_back() {
        assert_eq!(of("{mode: Full}", None), Depth::Full);
        assert_eq!(of("{mode: Sample}", None), Depth::Sample(8));
        assert_eq!(of("{mode: Sample, segments: 3}", None), Depth::Sample(3));
        assert_eq!(of("{mode: Metadata}", None), Depth::Metadata);
    }

    #[test]
    fn more_segments_than_can_be_drawn_are_all_of_them() {
        assert_eq!(of("{mode: Sample, segments: 10000}", None), Depth::Sample(10_000));
        assert_eq!(of("{mode: Sample, segments: 10001}", None), Depth::Full);
    }

    #[test]
    fn the_first_backup_after_so_many_days_is_read_back_whole() {
        let weekly = "{mode: Sample, fullEvery: 7d}";

        assert_eq!(of(weekly, None), Depth::Full);
        assert_eq!(of(weekly, Some("2026-11-15T01:00:00Z")), Depth::Full);
        assert_eq!(of(weekly, Some("2026-11-16T01:00:00Z")), Depth::Sample(8));
        assert_eq!(of("{mode: Metadata, fullEvery: 7d}", Some("2026-11-01T01:00:00Z")), Depth::Full);
        assert_eq!(of(weekly, Some("2027-01-01T00:00:00Z")), Depth::Full, "a wrong clock puts nothing off");
        assert_eq!(of(weekly, Some("2026-11-22T01:00:00Z")), Depth::Full, "the same one, tried again");
    }

    #[test]
    fn a_copy_of_an_older_backup_is_not_read_whole_because_a_newer_one_was() {
        let of_copy = |whole: &str| {
            let whole = Some(whole.parse().unwrap());
            let slot = "2026-11-22T01:00:00Z".parse().unwrap();
            of_copy(&policy("{mode: Sample, fullEvery: 7d}"), whole, slot)
        };

        assert_eq!(of_copy("2026-11-23T01:00:00Z"), Depth::Sample(8));
        assert_eq!(of_copy("2026-11-22T01:00:00Z"), Depth::Full, "the same one, tried again");
        assert_eq!(of_copy("2026-11-15T01:00:00Z"), Depth::Full);
    }

    #[test]
    fn a_week_with_an_hour_less_is_a_week() {
        assert_eq!(of("{mode: Sample, fullEvery: 7d}", Some("2026-11-15T02:00:00Z")), Depth::Full);
        assert_eq!(of("{mode: Sample, fullEvery: 1d}", Some("2026-11-21T05:00:00Z")), Depth::Sample(8));
    }
}
