//! What a tenant's past drills say of its backups. Pure.
//!
//! Input: the drills that are there, and what the tenant's status remembers of those that are not. Who cancels a drill,
//! or drills an old backup, takes no alarm away: a failure stands until a later drill from the same store, of the same or
//! a newer backup, passes, and a drill without a verdict, or of a backup that somebody named, is not the one that was due.

use std::collections::BTreeMap;

use kube::ResourceExt;
use valv_crds::{
    RestoreDrill, Slot,
    drill::{Check, Choice, DrillCondition, DrillReason, Outcome, Verdict},
    protection::{LastDrill, ProtectionStatus},
};

use super::record::Record;

/// Failures that are remembered: of eight stores both sorts.
const MOST_FAILED: usize = 16;

/// What past drills come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// The newest that ended, and that nobody stopped.
    pub last: Option<LastDrill>,
    /// Those that failed, and that nothing has settled, the newest last: of each store that of the newest backup, and the
    /// newest that had none.
    pub failed: Vec<LastDrill>,
    /// The newest that was due and came to a verdict on a backup.
    pub judged: Option<LastDrill>,
    /// The newest that was due and measured a recovery time.
    pub timed: Option<LastDrill>,
    /// The newest that was due and measured a recovery point.
    pub pointed: Option<LastDrill>,
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
        .flat_map(|status| {
            let one_each = [&status.last_drill, &status.failed_drill, &status.judged_drill];
            one_each.into_iter().flatten().chain(&status.failed_drills)
        })
        .cloned()
        .collect();
    for drill in drills {
        good = good.max(self::good(drill));
        all.extend(ended(drill));
    }
    all.retain(|drill| !was_stopped(&drill.reason));
    all.sort_by(|one, other| one.ended.cmp(&other.ended));
    let newest_due = |is: fn(&LastDrill) -> bool| {
        all.iter().rev().find(|drill| was_due(drill.choice) && is(drill)).cloned()
    };
    Past {
        failed: failed(&all),
        judged: newest_due(|drill| has_verdict(&drill.passed, &drill.reason)),
        timed: newest_due(|drill| drill.rto_seconds.is_some()),
        pointed: newest_due(|drill| drill.rpo_seconds.is_some()),
        last: all.pop(),
        good,
    }
}

/// Of `all`, the oldest first, those that failed and that no later one settles: of each store the one of the newest
/// backup, which settles the others with it, and the newest that had no backup.
fn failed(all: &[LastDrill]) -> Vec<LastDrill> {
    let mut standing: BTreeMap<(&Option<String>, bool), &LastDrill> = BTreeMap::new();
    for (place, drill) in all.iter().enumerate().filter(|(_, drill)| has_failed(drill)) {
        let mut later = all.iter().skip(place + 1);
        if later.any(|later| has_passed(later) && settles(later, drill)) {
            continue;
        }
        let hardest = standing.entry((&drill.store, drill.backup.is_some())).or_insert(drill);
        if drill.backup >= hardest.backup {
            *hardest = drill;
        }
    }
    let mut standing: Vec<LastDrill> = standing.into_values().cloned().collect();
    standing.sort_by(|one, other| one.ended.cmp(&other.ended));
    standing.split_off(standing.len().saturating_sub(MOST_FAILED))
}

/// Those of `failed` that are of the `stores` of a policy, or of nobody knows which. From a store that it names no more
/// nothing is drilled any more, and nothing relies on it. Without a policy all are.
pub fn of_stores<'a>(
    failed: &'a [LastDrill],
    stores: Option<&'a [String]>,
) -> impl DoubleEndedIterator<Item = &'a LastDrill> {
    failed.iter().filter(move |drill| match (&drill.store, stores) {
        (Some(store), Some(stores)) => stores.contains(store),
        (None, _) | (_, None) => true,
    })
}

/// `drill`, if it ended.
fn ended(drill: &RestoreDrill) -> Option<LastDrill> {
    let status = drill.status.as_ref()?;
    let kind = format!("{:?}", DrillCondition::Passed);
    let passed = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    let backup = status.backup.as_ref();
    Some(LastDrill {
        name: drill.name_any(),
        choice: Some(drill.spec.backup),
        backup: backup.map(|backup| backup.slot),
        store: backup.map(|backup| backup.store.clone()).or_else(|| status.store.clone()),
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

/// Whether it failed, and that is somebody's trouble. That the store has none of the slot that somebody named is not: what
/// should be there, and is not, has another reason.
fn has_failed(drill: &LastDrill) -> bool {
    let is_mistyped =
        matches!(drill.choice, Some(Choice::Of(_))) && drill.reason == format!("{:?}", DrillReason::NoBackup);
    !has_passed(drill) && !is_mistyped
}

/// Whether `later`, which passed, says that what `failed` found is over: it restored the same or a newer backup from the
/// same store. Of one that found no backup, or commits gone, only the newest says that it is over: that one could be had. Of
/// any other that failed before it had a backup each that is due does, whatever the policy picks: it came further.
fn settles(later: &LastDrill, failed: &LastDrill) -> bool {
    let is_from_there = failed.store.is_none() || later.store == failed.store;
    is_from_there
        && match failed.backup {
            Some(slot) => later.backup >= Some(slot),
            None if found_none(&failed.reason) => later.choice == Some(Choice::Newest),
            None => was_due(later.choice),
        }
}

/// Whether it is the store's backups themselves that a drill did not find.
fn found_none(reason: &str) -> bool {
    [DrillReason::NoBackup, DrillReason::CatalogueRolledBack].iter().any(|none| format!("{none:?}") == reason)
}

/// Whether a drill of this choice is one of those that are due. A backup that somebody named may be one that is known to
/// be good. Of one that is remembered from before choices were, it is believed.
fn was_due(choice: Option<Choice>) -> bool {
    !matches!(choice, Some(Choice::Of(_)))
}

/// Whether somebody stopped it, or it was none.
pub fn was_stopped(reason: &str) -> bool {
    [DrillReason::Cancelled, DrillReason::NameInvalid].iter().any(|stopped| format!("{stopped:?}") == reason)
}

/// Whether it came to a verdict on a backup. One that lacked its store, its key, its room, its archive or its time did not:
/// nobody knows more than before.
pub fn has_verdict(passed: &str, reason: &str) -> bool {
    let none = [
        DrillReason::Cancelled,
        DrillReason::NameInvalid,
        DrillReason::CannotRestore,
        DrillReason::ArchiveTaken,
        DrillReason::VolumesKept,
        DrillReason::KeyMissing,
        DrillReason::DeadlineExceeded,
        DrillReason::NoBackup,
        DrillReason::NotReached,
    ];
    let mut none = none.into_iter().chain(DrillReason::OF_THE_STORE);
    passed == "True" || (passed == "False" && none.all(|none| format!("{none:?}") != reason))
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

    /// `drill`, of the backup that somebody named.
    fn named(mut drill: RestoreDrill) -> RestoreDrill {
        drill.spec.backup = Choice::Of(drill.status.as_ref().unwrap().backup.as_ref().unwrap().slot);
        drill
    }

    /// `drill`, from another store.
    fn from(store: &str, mut drill: RestoreDrill) -> RestoreDrill {
        let status = drill.status.as_mut().unwrap();
        status.store = Some(store.to_owned());
        if let Some(backup) = &mut status.backup {
            backup.store = store.to_owned();
        }
        drill
    }

    /// What a tenant's status remembers of `past`.
    fn memory(past: Past) -> ProtectionStatus {
        ProtectionStatus {
            last_drill: past.last,
            failed_drill: past.failed.last().cloned(),
            failed_drills: past.failed,
            judged_drill: past.judged,
            good_slot: past.good,
            ..ProtectionStatus::default()
        }
    }

    /// The last, the newest of those that failed, the newest with a verdict.
    fn names(past: &Past) -> [Option<&str>; 3] {
        [past.last.as_ref(), past.failed.last(), past.judged.as_ref()]
            .map(|drill| drill.map(|drill| drill.name.as_str()))
    }

    #[test]
    fn a_failure_stands_until_a_later_drill_of_the_same_or_a_newer_backup_passes() {
        let failed = past_drill("failed", 8, Some(8), "False", "RowCountsFell");
        let of_an_old_one = named(past_drill("old", 9, Some(2), "True", "AsAsked"));
        let stopped = past_drill("stopped", 10, Some(10), "False", "Cancelled");
        let before = [failed, of_an_old_one, stopped];

        let past = past(before.iter(), None);
        assert_eq!(names(&past), [Some("old"), Some("failed"), Some("failed")]);

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
        let old = named(past_drill("old", 9, Some(2), "True", "AsAsked"));

        let past = past([&old].into_iter(), Some(&memory(remembered)));

        assert_eq!(names(&past), [Some("old"), Some("failed"), Some("failed")]);
        assert_eq!(past.good, Some(slot(2)));
    }

    #[test]
    fn a_failure_is_settled_by_a_drill_from_the_same_store_only() {
        let failed = past_drill("failed", 8, Some(8), "False", "SegmentMissing");
        let elsewhere = from("frankfurt", past_drill("elsewhere", 15, Some(15), "True", "AsAsked"));
        let there = past_drill("there", 22, Some(22), "True", "AsAsked");

        assert_eq!(names(&past([&failed, &elsewhere].into_iter(), None))[1], Some("failed"));
        assert_eq!(names(&past([&failed, &elsewhere, &there].into_iter(), None))[1], None);
    }

    #[test]
    fn what_had_no_backup_is_settled_by_the_newest_and_by_none_that_was_named() {
        for reason in ["CatalogueRolledBack", "NoBackup"] {
            let failed = from("helsinki", past_drill("failed", 8, None, "False", reason));
            let by_hand = named(past_drill("by-hand", 9, Some(2), "True", "AsAsked"));
            let mut random = past_drill("random", 10, Some(10), "True", "AsAsked");
            random.spec.backup = Choice::Random;
            let newest = past_drill("newest", 15, Some(15), "True", "AsAsked");
            let before = [&failed, &by_hand, &random];

            assert_eq!(names(&past(before.into_iter(), None))[1], Some("failed"), "{reason}");
            let after = before.into_iter().chain([&newest]);
            assert_eq!(names(&past(after, None))[1], None, "{reason}");
        }
    }

    #[test]
    fn what_failed_before_it_had_a_backup_is_settled_by_any_that_is_due() {
        for reason in ["StoreUnavailable", "DeadlineExceeded", "CannotRestore", "KeyMissing"] {
            let failed = from("helsinki", past_drill("failed", 8, None, "False", reason));
            let by_hand = named(past_drill("by-hand", 9, Some(9), "True", "AsAsked"));
            let elsewhere = from("frankfurt", past_drill("elsewhere", 10, Some(10), "True", "AsAsked"));
            // Of a policy that never picks the newest.
            let mut random = past_drill("random", 15, Some(3), "True", "AsAsked");
            random.spec.backup = Choice::Random;
            let before = [&failed, &by_hand, &elsewhere];

            assert_eq!(names(&past(before.into_iter(), None))[1], Some("failed"), "{reason}");
            let after = before.into_iter().chain([&random]);
            assert_eq!(names(&past(after, None))[1], None, "{reason}");
        }
    }

    #[test]
    fn a_slot_that_was_named_and_is_not_there_fails_nobody() {
        let mistyped = |reason: &str| {
            let mut drill = from("helsinki", past_drill("mistyped", 8, None, "False", reason));
            drill.spec.backup = Choice::Of(slot(7));
            drill
        };
        let of = |drill: &RestoreDrill| past([drill].into_iter(), None).failed.len();

        assert_eq!(of(&mistyped("NoBackup")), 0);
        // One that a Backup names was taken away.
        assert_eq!(of(&mistyped("CatalogueRolledBack")), 1);
        assert_eq!(of(&past_drill("newest", 8, None, "False", "NoBackup")), 1);
    }

    #[test]
    fn failures_are_remembered_by_store_and_a_younger_one_without_a_backup_hides_none() {
        let segment = past_drill("segment", 15, Some(15), "False", "SegmentMissing");
        let random = past_drill("random", 16, Some(3), "False", "Corrupt");
        let key = from("helsinki", past_drill("key", 17, None, "False", "StoreUnavailable"));
        let other = from("frankfurt", past_drill("other", 18, Some(18), "False", "FilesDiffer"));
        let remembered = past([&segment, &random, &key, &other].into_iter(), None);
        let name = |past: &Past| past.failed.iter().map(|drill| drill.name.clone()).collect::<Vec<_>>();
        assert_eq!(name(&remembered), ["segment", "key", "other"]);

        // All objects are gone, and an old backup passes in the one, the newest in the other store.
        let old = named(past_drill("old", 19, Some(3), "True", "AsAsked"));
        let newest = from("frankfurt", past_drill("newest", 20, Some(20), "True", "AsAsked"));
        let after = past([&old, &newest].into_iter(), Some(&memory(remembered)));

        assert_eq!(name(&after), ["segment", "key"]);
    }

    #[test]
    fn a_failure_in_a_store_that_the_policy_names_no_more_is_nobodys() {
        let here = past_drill("here", 8, Some(8), "False", "SegmentMissing");
        let gone = from("oslo", past_drill("gone", 9, Some(9), "False", "SegmentMissing"));
        let failed = past([&here, &gone].into_iter(), None).failed;
        let of = |stores: Option<&[String]>| {
            of_stores(&failed, stores).map(|drill| drill.name.clone()).collect::<Vec<_>>()
        };

        assert_eq!(of(Some(&["helsinki".to_owned()])), ["here"]);
        assert_eq!(of(None), ["here", "gone"]);
    }

    #[test]
    fn a_backup_that_was_named_is_not_the_drill_that_was_due_and_measures_nothing() {
        let measured = |mut drill: RestoreDrill, rto: i64, rpo: Option<i64>| {
            let status = drill.status.as_mut().unwrap();
            let measured = json!({ "rtoSeconds": rto, "rpoSeconds": rpo });
            status.measured = serde_json::from_value(measured).unwrap();
            drill
        };
        let newest = measured(past_drill("newest", 1, Some(1), "True", "AsAsked"), 7200, Some(90_000));
        let mut random = measured(past_drill("random", 8, Some(3), "True", "AsAsked"), 3600, None);
        random.spec.backup = Choice::Random;
        let by_hand = measured(named(past_drill("by-hand", 9, Some(1), "True", "AsAsked")), 60, None);

        let past = past([&newest, &random, &by_hand].into_iter(), None);

        assert_eq!(names(&past), [Some("by-hand"), None, Some("random")]);
        let of = |drill: &Option<LastDrill>| drill.as_ref().map(|drill| drill.name.clone()).unwrap();
        assert_eq!((of(&past.timed), of(&past.pointed)), ("random".to_owned(), "newest".to_owned()));
    }

    #[test]
    fn a_drill_that_lacked_its_key_or_its_store_fails_and_is_no_verdict() {
        let good = past_drill("good", 1, Some(1), "True", "AsAsked");
        let none = [
            "KeyMissing",
            "StoreUnavailable",
            "CredentialsRefused",
            "TlsRefused",
            "ClockSkewed",
            "CannotRestore",
            "DeadlineExceeded",
            "ArchiveTaken",
            "VolumesKept",
            "NotReached",
        ];
        for reason in none {
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
