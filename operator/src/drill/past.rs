//! What a tenant's past drills say of its backups. Pure.
//!
//! Input: the drills that are there, and what the tenant's status remembers of those that are not. Who cancels a drill,
//! or drills an old backup, takes no alarm away: a failure stands until a later drill of the same or a newer backup
//! passes, and a drill without a verdict is none.

use kube::ResourceExt;
use valv_crds::{
    RestoreDrill, Slot,
    drill::{Check, DrillCondition, DrillReason, Outcome, Verdict},
    protection::{LastDrill, ProtectionStatus},
};

use super::record::Record;

/// What past drills come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// The newest that ended, and that nobody stopped.
    pub last: Option<LastDrill>,
    /// The newest that failed, unless a later one of the same or a newer backup passed.
    pub failed: Option<LastDrill>,
    /// The newest that came to a verdict on a backup.
    pub judged: Option<LastDrill>,
    /// The newest backup that one found good, row counts and all.
    pub good: Option<Slot>,
}

/// What `drills` and what is remembered of others come to.
pub fn past<'a>(
    drills: impl Iterator<Item = &'a RestoreDrill>,
    remembered: Option<&ProtectionStatus>,
) -> Past {
    let mut good = remembered.and_then(|status| status.good_slot);
    // Those that are there come last: of the same drill they know it best.
    let mut all: Vec<LastDrill> = remembered
        .into_iter()
        .flat_map(|status| [&status.last_drill, &status.failed_drill, &status.judged_drill])
        .flatten()
        .cloned()
        .collect();
    for drill in drills {
        good = good.max(self::good(drill));
        all.extend(ended(drill));
    }
    all.retain(|drill| !was_stopped(&drill.reason));
    all.sort_by(|one, other| one.ended.cmp(&other.ended));
    let failed = all.iter().enumerate().rev().find(|(place, drill)| {
        let later = all.iter().skip(place + 1);
        !has_passed(drill) && !later.into_iter().any(|later| has_passed(later) && settles(later, drill))
    });
    Past {
        failed: failed.map(|(_, drill)| drill.clone()),
        judged: all.iter().rev().find(|drill| has_verdict(&drill.passed, &drill.reason)).cloned(),
        last: all.pop(),
        good,
    }
}

/// `drill`, if it ended.
fn ended(drill: &RestoreDrill) -> Option<LastDrill> {
    let status = drill.status.as_ref()?;
    let kind = format!("{:?}", DrillCondition::Passed);
    let passed = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some(LastDrill {
        name: drill.name_any(),
        backup: status.backup.as_ref().map(|backup| backup.slot),
        ended: status.ended.clone()?,
        passed: passed.status.clone(),
        reason: passed.reason.clone(),
        rto_seconds: status.measured.as_ref().and_then(|measured| measured.rto_seconds),
        rpo_seconds: status.measured.as_ref().and_then(|measured| measured.rpo_seconds),
    })
}

fn has_passed(drill: &LastDrill) -> bool {
    drill.passed == "True"
}

/// Whether `later`, which passed, says that what `failed` found is over: it restored the same or a newer backup. Where
/// it failed before it had one, any does.
fn settles(later: &LastDrill, failed: &LastDrill) -> bool {
    later.backup >= failed.backup
}

/// Whether somebody stopped it, or it was none.
pub fn was_stopped(reason: &str) -> bool {
    [DrillReason::Cancelled, DrillReason::NameInvalid].iter().any(|stopped| format!("{stopped:?}") == reason)
}

/// Whether it came to a verdict on a backup. One that lacked its store, its key, its room or its time did not: nobody
/// knows more than before.
pub fn has_verdict(passed: &str, reason: &str) -> bool {
    let none = [
        DrillReason::Cancelled,
        DrillReason::NameInvalid,
        DrillReason::StoreUnavailable,
        DrillReason::CannotRestore,
        DrillReason::KeyMissing,
        DrillReason::DeadlineExceeded,
        DrillReason::NoBackup,
        DrillReason::NotReached,
    ];
    passed == "True" || (passed == "False" && none.iter().all(|none| format!("{none:?}") != reason))
}

/// The backup that `drill` found good, its row counts among it.
pub fn good(drill: &RestoreDrill) -> Option<Slot> {
    let status = drill.status.as_ref()?;
    let kind = format!("{:?}", DrillCondition::Passed);
    let has_passed = status.conditions.iter().any(|said| said.type_ == kind && said.status == "True");
    let slot = status.backup.as_ref()?.slot;
    (status.ended.is_some() && has_passed && were_counted(&status.verdicts)).then_some(slot)
}

/// The same, of a signed record.
pub fn good_of_record(record: &Record) -> Option<Slot> {
    let slot = record.backup.as_ref()?.slot;
    (record.passed && were_counted(&record.verdicts)).then_some(slot)
}

/// A drill that could not compare row counts passes with a warning. What came after it would be compared with what it
/// did not see.
fn were_counted(verdicts: &[Verdict]) -> bool {
    let name = Check::RowCounts.verdict_name();
    verdicts.iter().any(|verdict| verdict.name == name && verdict.outcome == Outcome::Passed)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::drill::check::tests::drill;

    /// A drill that ended on a day of November, and what it came to.
    pub fn past_drill(name: &str, day: u32, backup: Option<u32>, passed: &str, reason: &str) -> RestoreDrill {
        let mut object = drill("journal-ada", name, json!({}));
        let backup = backup.map(|day| json!({ "slot": slot(day), "store": "helsinki" }));
        object.status = serde_json::from_value(json!({
            "ended": format!("2026-11-{day:02}T06:00:00Z"),
            "backup": backup,
            "verdicts": [{ "name": "RowCounts", "outcome": "Passed", "reason": "AsAsked" }],
            "conditions": [{ "type": "Passed", "status": passed, "reason": reason, "message": "",
                "lastTransitionTime": format!("2026-11-{day:02}T06:00:00Z") }],
        }))
        .unwrap();
        object
    }

    fn slot(day: u32) -> Slot {
        format!("202611{day:02}T010000Z").parse().unwrap()
    }

    fn names(past: &Past) -> [Option<&str>; 3] {
        [&past.last, &past.failed, &past.judged].map(|drill| drill.as_ref().map(|drill| drill.name.as_str()))
    }

    #[test]
    fn a_failure_stands_until_a_later_drill_of_the_same_or_a_newer_backup_passes() {
        let failed = past_drill("failed", 8, Some(8), "False", "RowCountsFell");
        let of_an_old_one = past_drill("old", 9, Some(2), "True", "AsAsked");
        let stopped = past_drill("stopped", 10, Some(10), "False", "Cancelled");
        let before = [failed, of_an_old_one, stopped];

        let past = past(before.iter(), None);
        assert_eq!(names(&past), [Some("old"), Some("failed"), Some("old")]);

        for (backup, stands) in [(7, Some("failed")), (8, None), (11, None)] {
            let good = past_drill("good", 11, Some(backup), "True", "AsAsked");
            let after = before.iter().chain([&good]);
            assert_eq!(names(&super::past(after, None))[1], stands, "{backup}");
        }
    }

    #[test]
    fn a_failure_is_remembered_when_its_object_is_gone() {
        let failed = past_drill("failed", 8, Some(8), "False", "SegmentMissing");
        let remembered = past([&failed].into_iter(), None);
        let status = ProtectionStatus {
            last_drill: remembered.last,
            failed_drill: remembered.failed,
            judged_drill: remembered.judged,
            good_slot: remembered.good,
            ..ProtectionStatus::default()
        };
        let old = past_drill("old", 9, Some(2), "True", "AsAsked");

        let past = past([&old].into_iter(), Some(&status));

        assert_eq!(names(&past), [Some("old"), Some("failed"), Some("old")]);
        assert_eq!(past.good, Some(slot(2)));
    }

    #[test]
    fn a_drill_that_lacked_its_key_or_its_store_fails_and_is_no_verdict() {
        let good = past_drill("good", 1, Some(1), "True", "AsAsked");
        for reason in ["KeyMissing", "StoreUnavailable", "CannotRestore", "DeadlineExceeded"] {
            let lacked = past_drill("lacked", 8, None, "False", reason);

            let past = past([&good, &lacked].into_iter(), None);

            assert_eq!(names(&past), [Some("lacked"), Some("lacked"), Some("good")], "{reason}");
        }
        // With its key there, the newest passes.
        let lacked = past_drill("lacked", 8, None, "False", "KeyMissing");
        let again = past_drill("again", 9, Some(8), "True", "AsAsked");
        assert_eq!(names(&past([&lacked, &again].into_iter(), None))[1], None);
    }

    #[test]
    fn a_backup_whose_rows_could_not_be_compared_is_none_to_compare_with() {
        let counted = past_drill("counted", 1, Some(1), "True", "AsAsked");
        let mut uncounted = past_drill("uncounted", 8, Some(8), "True", "PreviousUnreadable");
        let status = uncounted.status.as_mut().unwrap();
        status.verdicts[0].outcome = Outcome::Warned;
        let failed = past_drill("failed", 9, Some(9), "False", "Corrupt");

        assert_eq!(past([&counted, &uncounted, &failed].into_iter(), None).good, Some(slot(1)));
    }
}
