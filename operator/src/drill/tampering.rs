//! What drills found of tampering, and who has looked at it. Pure.
//!
//! Whoever edits a tenant's namespace can delete a `RestoreDrill`; what one found is remembered in the tenant's own
//! status, where they cannot. No later drill takes it away, for one of another backup says nothing of this one: a person
//! who may edit the `JournalTenant` does, by an annotation with a moment.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use valv_crds::{
    JournalTenant, RestoreDrill,
    drill::{DrillReason, Outcome},
    protection::{ProtectionStatus, TamperingFound},
    reference::ACKNOWLEDGE_TAMPERING_ANNOTATION,
};

/// Drills of which is remembered what they found: the newest.
const MOST: usize = 16;

/// What `drills` found, and what is remembered of others, but what was `acknowledged`; the newest last.
pub fn found<'a>(
    drills: impl Iterator<Item = &'a RestoreDrill>,
    remembered: Option<&ProtectionStatus>,
    acknowledged: Option<Timestamp>,
) -> Vec<TamperingFound> {
    let remembered = remembered.into_iter().flat_map(|status| &status.tampering).cloned();
    // Those that are there come last: they know better when their verdict stood.
    let all = remembered.chain(drills.filter_map(found_by));
    let all: BTreeMap<String, TamperingFound> = all.map(|found| (found.drill.clone(), found)).collect();
    let mut all: Vec<_> =
        all.into_values().filter(|found| acknowledged.is_none_or(|until| found.found.0 > until)).collect();
    all.sort_by(|one, other| one.found.cmp(&other.found));
    all.split_off(all.len().saturating_sub(MOST))
}

/// What `drill` found so far: its verdict need not stand yet.
fn found_by(drill: &RestoreDrill) -> Option<TamperingFound> {
    let status = drill.status.as_ref()?;
    let says = status.verdicts.iter().find(|verdict| {
        [Outcome::Failed, Outcome::Warned].contains(&verdict.outcome) && is_tampering(verdict.reason)
    })?;
    let found = [&status.ended, &status.started, &status.seen].into_iter().find_map(Clone::clone);
    Some(TamperingFound {
        drill: drill.name_any(),
        store: status.backup.as_ref().map(|backup| backup.store.clone()).or_else(|| status.store.clone()),
        backup: status.backup.as_ref().map(|backup| backup.slot),
        reason: format!("{:?}", says.reason),
        found: found.unwrap_or(Time(Timestamp::UNIX_EPOCH)),
    })
}

/// Whether a verdict for `reason` means that somebody changed what lies in a store.
fn is_tampering(reason: DrillReason) -> bool {
    [
        DrillReason::Tampered,
        DrillReason::CatalogueRolledBack,
        DrillReason::SignatureMissing,
        DrillReason::SignatureInvalid,
        DrillReason::ManifestDiffers,
        DrillReason::SegmentsSwapped,
        DrillReason::SentinelDiffers,
        DrillReason::PreviousUnreadable,
    ]
    .contains(&reason)
}

/// Until when somebody has looked at what was found of `tenant`. A moment that has not come acknowledges nothing: it
/// would what nobody has seen yet.
pub fn acknowledged(tenant: &JournalTenant, now: Timestamp) -> Option<Timestamp> {
    let until = tenant.annotations().get(ACKNOWLEDGE_TAMPERING_ANNOTATION)?;
    until.trim().parse().ok().filter(|until| *until <= now)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::drill::{check::tests::drill, past::tests::past_drill};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// A drill that passed on a day of November, with a delete marker over a segment.
    fn warned(name: &str, day: u32) -> RestoreDrill {
        let mut drill = past_drill(name, day, Some(day), "True", "Tampered");
        let verdict = json!({ "name": "Segments", "outcome": "Warned", "reason": "Tampered" });
        drill.status.as_mut().unwrap().verdicts = vec![serde_json::from_value(verdict).unwrap()];
        drill
    }

    fn names(found: &[TamperingFound]) -> Vec<&str> {
        found.iter().map(|found| found.drill.as_str()).collect()
    }

    #[test]
    fn what_a_drill_found_stays_when_its_object_goes_and_other_drills_pass() {
        let told = found([&warned("first", 8)].into_iter(), None, None);
        let status = ProtectionStatus { tampering: told, ..ProtectionStatus::default() };
        let later = past_drill("later", 9, Some(9), "True", "AsAsked");

        let found = found([&later].into_iter(), Some(&status), None);

        assert_eq!(names(&found), ["first"]);
        assert_eq!((found[0].store.as_deref(), found[0].reason.as_str()), (Some("helsinki"), "Tampered"));
    }

    #[test]
    fn what_a_drill_that_is_under_way_found_is_remembered_before_somebody_can_take_it_away() {
        let mut running = warned("running", 8);
        let status = running.status.as_mut().unwrap();
        status.ended = None;
        status.started = Some(Time(at("2026-11-08T05:00:00Z")));
        let told = found([&running].into_iter(), None, None);
        assert_eq!(told[0].found.0, at("2026-11-08T05:00:00Z"));

        // It ends: one finding, and not two.
        let status = ProtectionStatus { tampering: told, ..ProtectionStatus::default() };
        let found = found([&warned("running", 8)].into_iter(), Some(&status), None);
        assert_eq!((names(&found), found[0].found.0), (vec!["running"], at("2026-11-08T06:00:00Z")));
    }

    #[test]
    fn what_somebody_has_looked_at_is_no_trouble_and_what_came_after_is() {
        let drills = [warned("first", 8), warned("second", 15)];
        let until = |moment: &str| found(drills.iter(), None, Some(at(moment)));

        assert_eq!(names(&until("2026-11-08T05:59:59Z")), ["first", "second"]);
        assert_eq!(names(&until("2026-11-08T06:00:00Z")), ["second"]);
        assert_eq!(names(&until("2026-11-15T06:00:00Z")), [""; 0]);
    }

    #[test]
    fn a_moment_that_has_not_come_acknowledges_nothing() {
        let acknowledged = |text: &str| {
            let tenant = json!({ "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant",
                "metadata": { "name": "ada", "annotations": { ACKNOWLEDGE_TAMPERING_ANNOTATION: text } },
                "spec": { "host": "h", "journal": { "image": "j" }, "database": { "size": "1Gi" } } });
            super::acknowledged(&serde_json::from_value(tenant).unwrap(), at("2026-11-22T12:00:00Z"))
        };

        assert_eq!(acknowledged("2026-11-22T12:00:00Z"), Some(at("2026-11-22T12:00:00Z")));
        for nothing in ["2026-11-22T12:00:01Z", "2099-01-01T00:00:00Z", "true", ""] {
            assert_eq!(acknowledged(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_manifest_that_is_not_the_one_that_was_committed_is_tampering() {
        let mut altered = warned("altered", 8);
        let verdict = &mut altered.status.as_mut().unwrap().verdicts[0];
        (verdict.name, verdict.outcome) = ("Manifest".to_owned(), Outcome::Failed);
        verdict.reason = DrillReason::ManifestDiffers;

        let found = found([&altered].into_iter(), None, None);

        assert_eq!((names(&found), found[0].reason.as_str()), (vec!["altered"], "ManifestDiffers"));
    }

    #[test]
    fn a_failure_that_is_no_tampering_is_none() {
        let mut differs = warned("differs", 8);
        let verdict = &mut differs.status.as_mut().unwrap().verdicts[0];
        (verdict.outcome, verdict.reason) = (Outcome::Failed, DrillReason::SegmentDiffers);
        let bare = drill("journal-ada", "bare", json!({}));

        assert_eq!(names(&found([&differs, &bare].into_iter(), None, None)), [""; 0]);
    }

    #[test]
    fn of_more_than_can_be_remembered_the_newest_are() {
        let drills: Vec<_> = (1..=20).map(|day| warned(&format!("d{day}"), day)).collect();

        let found = found(drills.iter(), None, None);

        assert_eq!((found.len(), found[0].drill.as_str(), found[15].drill.as_str()), (16, "d5", "d20"));
    }
}
