use std::sync::Arc;

use serde_json::{Value, json};
use valv_crds::{JournalTenant, condition::Truth};

use super::*;
use crate::{policy::slots::tests::backup, tenant::check::check};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Noon of the day on which all these tests are.
fn noon() -> Timestamp {
    at("2026-11-22T12:00:00Z")
}

/// Daily at one, an hour of window, 24 hours of RPO; `more` beside it.
pub fn policy(more: &str) -> PolicySeen {
    let yaml = format!(
        "
        apiVersion: valv.eu/v1alpha1
        kind: BackupPolicy
        metadata: {{name: default}}
        spec:
          schedule: {{cron: '0 1 * * *', timeZone: UTC, window: 1h, deadline: 2h}}
          stores: [helsinki]
          retention: {{floor: {{days: 35, reason: decided 2026-09-01}}}}
          objectives: {{rpo: 24h, rto: 4h}}
          {more}"
    );
    PolicySeen::There(serde_yaml::from_str(&yaml).unwrap())
}

const DRILL: &str = "drill: {schedule: {cron: '0 5 * * 0', timeZone: UTC, window: 1h, deadline: 2h}}";

fn key(letter: &str) -> String {
    format!("age1{}", letter.repeat(58))
}

/// A tenant that is backed up, and what its status told of that before.
fn tenant(standing: &Value) -> Tenant {
    let tenant: JournalTenant = serde_json::from_value(json!({
        "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant",
        "metadata": { "name": "ada", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": {
            "host": "ada.journal.example", "journal": { "image": "registry.example/journal:1" },
            "database": { "size": "1Gi" },
            "backup": { "recipients": { "tenant": key("q"), "escrow": key("p") } },
        },
        "status": { "backup": standing },
    }))
    .unwrap();
    check(Arc::new(tenant)).unwrap()
}

/// A backup of the schedule that was committed.
pub fn committed(slot: &str, taken: &str) -> Backup {
    let mut backup = backup("ada", &format!("ada-{}", slot.to_ascii_lowercase()), "Scheduled");
    backup.status = serde_json::from_value(json!({
        "slot": slot, "taken": taken, "size": { "bytes": 7, "plainBytes": 9, "segments": 1 },
        "stores": [{
            "name": "helsinki", "committed": "2026-11-22T01:40:00Z",
            "commit": { "key": "v1/ada/commits/x.json", "blake3": "0".repeat(64) },
        }],
        "conditions": [{
            "type": "Complete", "status": "True", "reason": "Committed", "message": "",
            "lastTransitionTime": "2026-11-22T01:40:00Z",
        }],
    }))
    .unwrap();
    backup
}

/// A backup that was given up.
pub fn stalled(mut backup: Backup, slot: &str, reason: &str) -> Backup {
    backup.status = serde_json::from_value(json!({
        "slot": slot,
        "conditions": [{
            "type": "Stalled", "status": "True", "reason": reason, "message": "it would not",
            "lastTransitionTime": "2026-11-22T01:40:00Z",
        }],
    }))
    .unwrap();
    backup
}

fn drill(name: &str, passed: &str, ended: &str) -> RestoreDrill {
    let said = |kind: &str, status: &str, reason: &str| json!({ "type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": ended });
    serde_json::from_value(json!({
        "apiVersion": "valv.eu/v1alpha1", "kind": "RestoreDrill",
        "metadata": { "name": name, "namespace": "journal-ada" }, "spec": { "origin": "Scheduled" },
        "status": {
            "ended": ended, "backup": { "slot": "20261121T010000Z", "store": "helsinki" },
            "conditions": [
                said("Passed", passed, if passed == "True" { "AsAsked" } else { "SegmentDiffers" }),
                said("TornDown", "True", "AsAsked"), said("Recorded", "True", "AsAsked"),
            ],
        },
    }))
    .unwrap()
}

fn seen(backups: Vec<Backup>) -> Seen {
    Seen { policy: policy(""), backups, drills: vec![] }
}

fn says(protected: &Protected, kind: ConditionType) -> (Truth, Reason) {
    let said = protected.sayings.iter().find(|saying| saying.kind == kind).unwrap();
    (said.truth, said.reason)
}

fn last_slot(standing: &Value, backups: Vec<Backup>) -> Option<String> {
    let status = protect(&tenant(standing), &seen(backups), noon()).status.unwrap();
    status.last_slot.map(|slot| slot.to_string())
}

#[test]
fn the_last_slot_never_goes_back_and_survives_the_deletion_of_all_backups() {
    let last = json!({ "lastSlot": "20261122T010000Z" });
    let older = backup("ada", "ada-20261120t010000z", "Scheduled");
    let newer = backup("ada", "ada-20261122t010000z", "Scheduled");

    assert_eq!(last_slot(&last, vec![]), Some("20261122T010000Z".into()));
    assert_eq!(last_slot(&last, vec![older.clone()]), Some("20261122T010000Z".into()));
    assert_eq!(last_slot(&json!({}), vec![older, newer]), Some("20261122T010000Z".into()));
}

#[test]
fn a_slot_of_the_future_is_not_noted_whether_a_backup_or_a_status_has_it() {
    let future = backup("ada", "ada-20991231t010000z", "Scheduled");

    assert_eq!(
        last_slot(&json!({ "lastSlot": "20261121T010000Z" }), vec![future]),
        Some("20261121T010000Z".into())
    );
    assert_eq!(last_slot(&json!({ "lastSlot": "20991231T010000Z" }), vec![]), None);
}

#[test]
fn slots_between_the_last_and_the_newest_are_missed_and_told_of_for_thirty_days() {
    let last = json!({ "lastSlot": "20261119T010000Z" });
    let newest = backup("ada", "ada-20261122t010000z", "Scheduled");

    let status = protect(&tenant(&last), &seen(vec![newest.clone()]), noon()).status.unwrap();
    let same = protect(&tenant(&json!(status)), &seen(vec![newest]), noon()).status.unwrap();
    let month = protect(&tenant(&json!(status)), &seen(vec![]), at("2026-12-21T02:00:00Z")).status.unwrap();

    let missed = status.missed.clone().unwrap();
    let slots: Vec<_> = missed.slots.iter().map(ToString::to_string).collect();
    assert_eq!((slots, missed.oldest), (vec!["20261120T010000Z".into(), "20261121T010000Z".into()], None));
    assert_eq!(same, status, "what was told once is told the same");
    assert_eq!(month.missed, None);
}

#[test]
fn of_many_missed_slots_the_newest_are_listed_and_the_oldest_named() {
    let slot = |day: i64| Slot::at(noon() - SignedDuration::from_hours(24 * day)).unwrap();
    let before = MissedSlots { slots: (10..30).rev().map(slot).collect(), oldest: None };
    let newly = MissedSlots { slots: (1..3).rev().map(slot).collect(), oldest: None };

    let all = missed(Some(before), newly, noon()).unwrap();

    assert_eq!(all.slots.len(), MISSED_LISTED);
    assert_eq!((all.slots.last(), all.oldest), (Some(&slot(1)), Some(slot(29))));
}

#[test]
fn a_tenant_that_names_no_policy_is_not_protected_and_what_was_is_kept() {
    let standing = json!({ "lastSlot": "20261122T010000Z" });
    let mut object = tenant(&standing).object.as_ref().clone();
    object.spec.backup = None;

    let protected = protect(&check(Arc::new(object)).unwrap(), &Seen::default(), noon());

    for kind in [ConditionType::BackedUp, ConditionType::Drilled, ConditionType::KeysProven] {
        assert_eq!(says(&protected, kind), (Truth::False, Reason::NotProtected));
    }
    assert_eq!(json!(protected.status.unwrap()), standing);
}

#[test]
fn a_policy_that_is_not_there_is_told() {
    let protected = protect(&tenant(&json!({})), &Seen::default(), noon());

    assert_eq!(says(&protected, ConditionType::BackedUp), (Truth::False, Reason::PolicyMissing));
}

#[test]
fn a_complete_backup_is_enough_for_the_rpo_and_the_window_and_no_longer() {
    let backups = vec![committed("20261122T010000Z", "2026-11-22T01:30:00Z")];
    let of = |now: &str| protect(&tenant(&json!({})), &seen(backups.clone()), at(now));

    let young = of("2026-11-23T02:29:59Z");
    let old = of("2026-11-23T02:30:00Z");

    assert_eq!(says(&young, ConditionType::BackedUp), (Truth::True, Reason::AsAsked));
    assert_eq!(young.look_again_at, Some(at("2026-11-23T02:30:00Z")));
    assert_eq!(says(&old, ConditionType::BackedUp), (Truth::False, Reason::Overdue));
    let last = young.status.unwrap().last_backup.unwrap();
    assert_eq!((last.slot.to_string(), last.bytes), ("20261122T010000Z".into(), 7));
    assert_eq!(last.stores, ["helsinki"]);
}

#[test]
fn what_was_complete_stays_told_when_its_object_is_deleted() {
    let complete = seen(vec![committed("20261122T010000Z", "2026-11-22T01:30:00Z")]);
    let before = protect(&tenant(&json!({})), &complete, noon()).status.unwrap();

    let after = protect(&tenant(&json!(before)), &seen(vec![]), noon());

    assert_eq!(after.status.as_ref().unwrap().last_backup, before.last_backup);
    assert_eq!(says(&after, ConditionType::BackedUp), (Truth::True, Reason::AsAsked));
}

#[test]
fn a_backup_that_says_it_was_taken_after_it_was_committed_counts_from_the_commit() {
    let backups = vec![committed("20261122T010000Z", "2027-11-22T01:30:00Z")];

    let status = protect(&tenant(&json!({})), &seen(backups), noon()).status.unwrap();

    assert_eq!(status.last_backup.unwrap().taken.0, at("2026-11-22T01:40:00Z"));
}

#[test]
fn a_backup_that_failed_is_named_and_counts_when_there_is_no_younger_one() {
    let failed = stalled(
        backup("ada", "ada-20261122t010000z", "Scheduled"),
        "20261122T010000Z",
        "DatabaseUnavailable",
    );
    let good = committed("20261121T010000Z", "2026-11-21T11:30:00Z");
    let old = committed("20261120T010000Z", "2026-11-20T01:30:00Z");
    let of = |backups: Vec<Backup>| protect(&tenant(&json!({})), &seen(backups), noon());

    let never = of(vec![failed.clone()]);
    let still_good = of(vec![failed.clone(), good]);
    let too_old = of(vec![failed, old]);

    assert_eq!(says(&never, ConditionType::BackedUp), (Truth::False, Reason::BackupFailed));
    assert_eq!(says(&still_good, ConditionType::BackedUp), (Truth::True, Reason::AsAsked));
    assert!(still_good.sayings[0].message.contains("ada-20261122t010000z failed: DatabaseUnavailable"));
    assert_eq!(says(&too_old, ConditionType::BackedUp), (Truth::False, Reason::BackupFailed));
}

#[test]
fn what_was_cancelled_or_missed_is_no_failure() {
    for reason in ["Cancelled", "Missed"] {
        let name = "ada-20261122t010000z";
        let over = stalled(backup("ada", name, "Scheduled"), "20261122T010000Z", reason);

        let protected = protect(&tenant(&json!({})), &seen(vec![over]), noon());

        assert_eq!(
            says(&protected, ConditionType::BackedUp),
            (Truth::False, Reason::NeverBackedUp),
            "{reason}"
        );
    }
}

#[test]
fn a_slot_whose_name_a_person_took_is_told_of_until_it_is_free() {
    let good = committed("20261121T010000Z", "2026-11-22T00:30:00Z");
    let by_hand = |name: &str| backup("ada", name, "Manual");
    let of = |name: &str| {
        let protected = protect(&tenant(&json!({})), &seen(vec![good.clone(), by_hand(name)]), noon());
        says(&protected, ConditionType::BackedUp).1
    };

    assert_eq!(of("ada-20261122t010000z"), Reason::SlotBlocked);
    assert_eq!(of("ada-20261120t010000z"), Reason::AsAsked, "that slot was before");
    assert_eq!(of("by-hand"), Reason::AsAsked);
}

#[test]
fn a_tenant_that_rests_is_not_overdue_and_has_no_next_turn() {
    let mut object = tenant(&json!({})).object.as_ref().clone();
    object.spec.suspended = true;
    let backups = vec![committed("20261110T010000Z", "2026-11-10T01:30:00Z")];

    let protected = protect(&check(Arc::new(object)).unwrap(), &seen(backups), noon());

    assert_eq!(says(&protected, ConditionType::BackedUp), (Truth::Unknown, Reason::Suspended));
    assert_eq!(protected.status.unwrap().next_start, None);
}

#[test]
fn progress_changes_nothing_that_is_told() {
    let mut running = backup("ada", "ada-20261122t010000z", "Scheduled");
    let before = protect(&tenant(&json!({})), &seen(vec![running.clone()]), noon());
    running.status = serde_json::from_value(json!({
        "slot": "20261122T010000Z", "progress": { "stage": "Database", "bytes": 7, "percent": 3 },
    }))
    .unwrap();

    let after = protect(&tenant(&json!({})), &seen(vec![running]), noon());

    assert_eq!((after.status, after.sayings), (before.status, before.sayings));
}

#[test]
fn a_policy_without_a_drill_is_told_and_one_with_it_wants_one_that_passed_in_time() {
    let of = |policy: PolicySeen, drills: Vec<RestoreDrill>, now: &str| {
        let seen = Seen { policy, backups: vec![], drills };
        says(&protect(&tenant(&json!({})), &seen, at(now)), ConditionType::Drilled)
    };
    let passed = || vec![drill("ada-20261122t050000z", "True", "2026-11-22T05:40:00Z")];
    let failed = || vec![drill("ada-20261122t050000z", "False", "2026-11-22T05:40:00Z")];
    let later = "2026-11-29T08:00:00Z";

    assert_eq!(of(policy(""), vec![], "2026-11-22T12:00:00Z"), (Truth::False, Reason::NotAskedFor));
    assert_eq!(of(policy(DRILL), vec![], "2026-11-22T12:00:00Z"), (Truth::False, Reason::NeverDrilled));
    assert_eq!(of(policy(DRILL), failed(), "2026-11-22T12:00:00Z"), (Truth::False, Reason::DrillFailed));
    assert_eq!(of(policy(DRILL), passed(), "2026-11-29T04:59:00Z"), (Truth::True, Reason::AsAsked));
    assert_eq!(of(policy(DRILL), passed(), later), (Truth::False, Reason::Overdue));
}

#[test]
fn a_drill_that_is_not_torn_down_or_not_recorded_is_told_after_its_time() {
    let of = |kind: &str, now: &str| {
        let mut left = drill("ada-20261122t050000z", "True", "2026-11-22T05:40:00Z");
        let conditions = &mut left.status.as_mut().unwrap().conditions;
        conditions.iter_mut().filter(|said| said.type_ == kind).for_each(|said| said.status = "False".into());
        let seen = Seen { policy: policy(DRILL), backups: vec![], drills: vec![left] };
        let protected = protect(&tenant(&json!({})), &seen, at(now));
        (says(&protected, ConditionType::Drilled), protected.look_again_at)
    };

    let (said, again) = of("TornDown", "2026-11-22T05:45:00Z");
    assert_eq!((said, again), ((Truth::True, Reason::AsAsked), Some(at("2026-11-22T05:45:01Z"))));
    assert_eq!(of("TornDown", "2026-11-22T05:45:01Z").0, (Truth::False, Reason::DrillNotTornDown));
    assert_eq!(of("Recorded", "2026-11-22T05:50:00Z").0, (Truth::True, Reason::AsAsked));
    assert_eq!(of("Recorded", "2026-11-22T05:50:01Z").0, (Truth::False, Reason::DrillNotRecorded));
}

#[test]
fn tampering_that_a_drill_found_stays_in_the_status_until_somebody_has_looked() {
    let mut tampered = drill("ada-20261122t050000z", "True", "2026-11-22T05:40:00Z");
    let verdict = json!({ "name": "Segments", "outcome": "Warned", "reason": "Tampered" });
    tampered.status.as_mut().unwrap().verdicts = vec![serde_json::from_value(verdict).unwrap()];
    let found = Seen { policy: policy(DRILL), backups: vec![], drills: vec![tampered] };
    let status = protect(&tenant(&json!({})), &found, noon()).status.unwrap();
    assert_eq!(status.tampering[0].drill, "ada-20261122t050000z");

    let gone = Seen { policy: policy(DRILL), ..Seen::default() };
    let after = protect(&tenant(&json!(status)), &gone, noon()).status.unwrap();
    assert_eq!(after.tampering, status.tampering);

    let mut looked = tenant(&json!(status)).object.as_ref().clone();
    let said = ("valv.eu/acknowledge-tampering".to_owned(), "2026-11-22T05:40:00Z".to_owned());
    looked.metadata.annotations = Some([said].into());
    let after = protect(&check(Arc::new(looked)).unwrap(), &found, noon()).status.unwrap();
    assert_eq!(after.tampering, []);
}

#[test]
fn the_newest_drill_counts_and_stays_told_when_its_object_is_gone() {
    let two = vec![
        drill("ada-20261122t050000z", "False", "2026-11-22T05:40:00Z"),
        drill("ada-20261115t050000z", "True", "2026-11-15T05:40:00Z"),
    ];
    let seen = Seen { policy: policy(DRILL), backups: vec![], drills: two };
    let status = protect(&tenant(&json!({})), &seen, noon()).status.unwrap();

    let gone = Seen { policy: policy(DRILL), ..Seen::default() };
    let after = protect(&tenant(&json!(status)), &gone, noon()).status.unwrap();

    assert_eq!(status.last_drill.as_ref().unwrap().name, "ada-20261122t050000z");
    assert_eq!(status.last_drill_slot.unwrap().to_string(), "20261122T050000Z");
    assert_eq!((after.last_drill, after.last_drill_slot), (status.last_drill, status.last_drill_slot));
}

#[test]
fn a_proof_is_of_one_key_and_for_so_many_days() {
    let fresh = protect(&tenant(&json!({})), &seen(vec![]), noon());
    let mut status = fresh.status.clone().unwrap();
    for key in &mut status.keys {
        key.proven = Some(Time(at("2026-11-01T00:00:00Z")));
    }
    let of = |status: &ProtectionStatus, now: &str| {
        says(&protect(&tenant(&json!(status)), &seen(vec![]), at(now)), ConditionType::KeysProven)
    };
    let mut another = status.clone();
    another.keys[0].fingerprint = "0".repeat(16);

    assert_eq!(says(&fresh, ConditionType::KeysProven), (Truth::False, Reason::NeverProven));
    assert_eq!(
        status.keys.iter().map(|key| key.role).collect::<Vec<_>>(),
        [KeyRole::Tenant, KeyRole::Escrow]
    );
    assert_eq!(of(&status, "2026-11-22T12:00:00Z"), (Truth::True, Reason::AsAsked));
    assert_eq!(of(&status, "2027-05-01T00:00:00Z"), (Truth::False, Reason::Overdue));
    assert_eq!(of(&another, "2026-11-22T12:00:00Z"), (Truth::False, Reason::NeverProven));
}

#[test]
fn the_newest_that_was_read_back_whole_is_told_by_store_and_stays_when_its_object_goes() {
    let read = |slot: &str, mode: &str| {
        let mut backup = committed(slot, "2026-11-21T01:02:00Z");
        let stored = &mut backup.status.as_mut().unwrap().stores[0];
        stored.verification = serde_json::from_value(json!({
            "mode": mode, "segmentsRead": 1, "segments": 1, "at": "2026-11-21T01:30:00Z" }))
        .unwrap();
        backup
    };
    let told = |standing: Value, backups: Vec<Backup>| {
        let status = protect(&tenant(&standing), &seen(backups), noon()).status.unwrap();
        let slots = status.read_whole.into_iter().map(|read| format!("{} {}", read.store, read.slot));
        slots.collect::<Vec<_>>()
    };
    let standing = json!({ "readWhole": [
        { "store": "helsinki", "slot": "20261119T010000Z" }, { "store": "oslo", "slot": "20261118T010000Z" }] });

    let newer =
        told(standing.clone(), vec![read("20261120T010000Z", "Full"), read("20261121T010000Z", "Sample")]);
    let gone = told(standing, vec![]);
    let future = told(json!({ "readWhole": [{ "store": "helsinki", "slot": "20991231T010000Z" }] }), vec![]);

    assert_eq!(newer, ["helsinki 20261120T010000Z", "oslo 20261118T010000Z"]);
    assert_eq!(gone, ["helsinki 20261119T010000Z", "oslo 20261118T010000Z"]);
    assert_eq!(future, [""; 0], "a wrong clock puts nothing off");
}
