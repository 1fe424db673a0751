//! Tests of [`super`], and objects that other modules' tests tell of too.

use serde_json::{Value, json};

use super::*;

/// The recipients of [`World`]'s tenant.
pub const TENANT_KEY: &str = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq";
/// The escrow's.
pub const ESCROW_KEY: &str = "age1pppppppppppppppppppppppppppppppppppppppppppppppppppppppppp";

/// One tenant with all that belongs to it, as YAML would have it.
#[derive(Clone)]
pub struct World {
    /// The tenant.
    pub tenant: Value,
    /// Its policy.
    pub policy: Value,
    /// Its store.
    pub store: Value,
    /// Its backups.
    pub backups: Vec<Value>,
    /// Its drills.
    pub drills: Vec<Value>,
}

/// The typed objects of a [`World`].
pub struct Typed {
    tenants: Vec<JournalTenant>,
    policies: Vec<BackupPolicy>,
    stores: Vec<BackupStore>,
    backups: Vec<Backup>,
    drills: Vec<RestoreDrill>,
}

impl Typed {
    /// To be looked at.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            tenants: self.tenants.iter().collect(),
            policies: self.policies.iter().collect(),
            stores: self.stores.iter().collect(),
            backups: self.backups.iter().collect(),
            drills: self.drills.iter().collect(),
        }
    }
}

impl World {
    /// All is well at [`noon`]: backed up at one o'clock, drilled last Sunday, both keys proven.
    pub fn well() -> Self {
        let proven = |role: &str, key: &str| json!({ "role": role, "fingerprint": key_fingerprint(key), "proven": "2026-11-01T00:00:00Z" });
        Self {
            tenant: json!({
                "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant",
                "metadata": { "name": "ada", "creationTimestamp": "2026-10-01T00:00:00Z" },
                "spec": {
                    "host": "ada.example", "journal": { "image": "registry.example/journal:1" },
                    "database": { "size": "1Gi" },
                    "backup": { "policy": "default", "recipients": { "tenant": TENANT_KEY, "escrow": ESCROW_KEY } },
                },
                "status": {
                    "conditions": [condition("Ready", "True", "AsAsked")],
                    "backup": { "keys": [proven("Tenant", TENANT_KEY), proven("Escrow", ESCROW_KEY)] },
                },
            }),
            policy: json!({
                "apiVersion": "valv.eu/v1alpha1", "kind": "BackupPolicy", "metadata": { "name": "default" },
                "spec": {
                    "schedule": { "cron": "0 1 * * *", "timeZone": "UTC", "window": "1s", "deadline": "2h" },
                    "stores": ["helsinki"],
                    "retention": { "floor": { "days": 35, "reason": "decided 2026-09-01" } },
                    "objectives": { "rpo": "24h", "rto": "1h" },
                    "drill": { "schedule": { "cron": "0 5 * * 0", "timeZone": "UTC", "window": "1s", "deadline": "2h" } },
                },
                "status": { "conditions": [condition("Ready", "True", "AsAsked")] },
            }),
            store: json!({
                "apiVersion": "valv.eu/v1alpha1", "kind": "BackupStore", "metadata": { "name": "helsinki" },
                "spec": {
                    "provider": "upcloud", "location": { "region": "europe-1", "country": "FI" },
                    "endpoint": "https://s3.example", "bucket": "backups",
                    "credentials": {
                        "writer": { "name": "w" }, "committer": { "name": "c" }, "reader": { "name": "r" },
                        "janitor": { "name": "j" },
                    },
                },
                "status": { "conditions": [condition("Ready", "True", "AsAsked")] },
            }),
            backups: vec![complete("20261123T010000Z", "2026-11-23T01:10:00Z")],
            drills: vec![drill("ada-20261122t050000z", "2026-11-22T05:41:00Z", "True", "AsAsked")],
        }
    }

    /// Sets what stands at `pointer` of the tenant.
    pub fn tenant(mut self, pointer: &str, value: Value) -> Self {
        set(&mut self.tenant, pointer, value);
        self
    }

    /// Sets what stands at `pointer` of the policy.
    pub fn policy(mut self, pointer: &str, value: Value) -> Self {
        set(&mut self.policy, pointer, value);
        self
    }

    /// The objects.
    pub fn typed(&self) -> Typed {
        let read = |values: &[Value]| {
            values.iter().map(|value| serde_json::from_value(value.clone()).unwrap()).collect()
        };
        Typed {
            tenants: vec![serde_json::from_value(self.tenant.clone()).unwrap()],
            policies: vec![serde_json::from_value(self.policy.clone()).unwrap()],
            stores: vec![serde_json::from_value(self.store.clone()).unwrap()],
            backups: read(&self.backups),
            drills: self.drills.iter().map(|value| serde_json::from_value(value.clone()).unwrap()).collect(),
        }
    }

    fn seen(&self) -> Overview {
        self.seen_at("2026-11-23T12:00:00Z")
    }

    fn seen_at(&self, now: &str) -> Overview {
        let typed = self.typed();
        tenants(&typed.snapshot(), now.parse().unwrap()).remove(0)
    }
}

fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[field] = value;
}

/// Noon of the day on which all is well.
pub fn noon() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// A condition.
pub fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": format!("because of {reason}"),
        "lastTransitionTime": "2026-11-01T00:00:00Z",
    })
}

/// A complete backup of `slot` that ended ten minutes after it began.
pub fn complete(slot: &str, taken: &str) -> Value {
    let ended: Timestamp = taken.parse().unwrap();
    let began = ended.checked_sub(std::time::Duration::from_secs(600)).unwrap();
    json!({
        "apiVersion": "valv.eu/v1alpha1", "kind": "Backup",
        "metadata": { "name": format!("ada-{}", slot.to_lowercase()), "namespace": "journal-ada", "uid": slot },
        "spec": { "origin": "Scheduled" },
        "status": {
            "slot": slot, "started": began, "taken": taken, "ended": taken,
            "size": { "bytes": 4096 },
            "stores": [{
                "name": "helsinki", "committed": taken, "lockedUntil": "2026-12-28T01:10:00Z",
                "commit": { "key": "v1/ada/commits/x.json", "blake3": "0".repeat(64) },
            }],
            "conditions": [condition("Complete", "True", "Committed"), condition("Intact", "True", "AsAsked")],
        },
    })
}

/// A backup that failed for good.
pub fn failed(slot: &str, ended: &str, reason: &str) -> Value {
    json!({
        "apiVersion": "valv.eu/v1alpha1", "kind": "Backup",
        "metadata": { "name": format!("ada-{}", slot.to_lowercase()), "namespace": "journal-ada", "uid": slot },
        "spec": { "origin": "Scheduled" },
        "status": {
            "slot": slot, "started": ended, "ended": ended,
            "conditions": [condition("Complete", "False", reason), condition("Stalled", "True", reason)],
        },
    })
}

/// A drill that ended.
pub fn drill(name: &str, ended: &str, passed: &str, reason: &str) -> Value {
    json!({
        "apiVersion": "valv.eu/v1alpha1", "kind": "RestoreDrill",
        "metadata": { "name": name, "namespace": "journal-ada", "uid": name },
        "spec": { "origin": "Scheduled" },
        "status": {
            "ended": ended, "measured": { "rtoSeconds": 2460, "rpoSeconds": 14_400 },
            "conditions": [
                condition("Passed", passed, reason), condition("TornDown", "True", "AsAsked"),
                condition("Recorded", "True", "AsAsked"),
            ],
        },
    })
}

fn codes(overview: &Overview) -> Vec<TroubleCode> {
    overview.troubles.iter().map(|trouble| trouble.code).collect()
}

#[test]
fn a_tenant_that_is_backed_up_drilled_and_whose_keys_are_proven_has_no_troubles() {
    let seen = World::well().seen();

    assert_eq!(seen.troubles, []);
    let last = seen.last_backup.unwrap();
    assert_eq!((last.age_seconds, last.duration_seconds), (10 * 3600 + 50 * 60, Some(600)));
    assert_eq!(last.stores[0].country.as_deref(), Some("FI"));
    assert_eq!(seen.last_drill.unwrap().rto_seconds, Some(2460));
}

#[test]
fn a_tenant_without_a_policy_is_unprotected_and_nothing_else_is_said_of_its_backups() {
    let mut world = World::well();
    world.tenant["spec"].as_object_mut().unwrap().remove("backup");
    world.tenant["status"]["backup"] = Value::Null;
    (world.backups, world.drills) = (vec![], vec![]);

    let seen = world.seen();

    assert_eq!(codes(&seen), [TroubleCode::Unprotected]);
    assert_eq!((seen.backup_due, seen.keys.len()), (None, 0));
}

#[test]
fn a_policy_that_is_not_there_or_not_ready_is_told() {
    let gone = World::well().tenant("/spec/backup/policy", json!("other"));
    let stuck =
        World::well().policy("/status/conditions", json!([condition("Ready", "False", "LockMissing")]));

    assert_eq!(codes(&gone.seen()), [TroubleCode::PolicyUnusable]);
    let seen = stuck.seen();
    assert_eq!(codes(&seen), [TroubleCode::PolicyUnusable]);
    assert!(seen.troubles[0].message.contains("LockMissing"));
}

#[test]
fn a_backup_is_overdue_when_the_next_slot_s_deadline_has_passed_and_not_before() {
    let world = World::well();

    assert_eq!(world.seen().backup_due, Some("2026-11-24T03:00:00Z".parse().unwrap()));
    assert_eq!(codes(&world.seen_at("2026-11-24T03:00:00Z")), []);
    assert_eq!(codes(&world.seen_at("2026-11-24T03:00:01Z")), [TroubleCode::BackupOverdue]);
}

#[test]
fn a_weekly_schedule_that_cannot_keep_a_daily_promise_is_overdue_by_the_promise() {
    let world = World::well().policy("/spec/schedule/cron", json!("0 1 * * 1"));

    // Taken at 01:10, 24 h promised, 2 h for a run.
    assert_eq!(world.seen().backup_due, Some("2026-11-24T03:10:00Z".parse().unwrap()));
}

#[test]
fn a_first_backup_is_due_after_the_first_slot_of_the_tenant_s_life() {
    let mut world = World::well().tenant("/metadata/creationTimestamp", json!("2026-11-23T00:30:00Z"));
    world.backups = vec![];

    assert_eq!(codes(&world.seen_at("2026-11-23T02:59:00Z")), []);
    let seen = world.seen_at("2026-11-23T03:01:00Z");
    assert_eq!(codes(&seen), [TroubleCode::BackupOverdue]);
    assert!(seen.troubles[0].message.contains("no backup"));
}

#[test]
fn nothing_is_due_for_a_tenant_that_rests() {
    let world = World::well().tenant("/spec/suspended", json!(true));

    let seen = world.seen_at("2026-11-30T00:00:00Z");

    assert_eq!((seen.backup_due, seen.drill_due), (None, None));
    assert_eq!(codes(&seen), []);
}

#[test]
fn the_status_of_the_tenant_remembers_a_backup_whose_object_was_pruned() {
    let mut world = World::well();
    world.backups = vec![];
    world.tenant["status"]["backup"]["lastBackup"] = json!({
        "slot": "20261123T010000Z", "taken": "2026-11-23T01:10:00Z", "committed": "2026-11-23T01:11:00Z",
        "bytes": 7, "stores": ["helsinki"],
    });

    let last = world.seen().last_backup.unwrap();

    assert_eq!((last.bytes, last.stores[0].country.as_deref()), (7, Some("FI")));
}

#[test]
fn a_failed_backup_is_told_until_a_complete_one_comes_after_it() {
    let mut world = World::well();
    world.backups.push(failed("20261123T080000Z", "2026-11-23T08:10:00Z", "StoreFull"));
    let seen = world.seen();
    assert_eq!(codes(&seen), [TroubleCode::BackupFailed]);
    assert!(seen.troubles[0].message.contains("StoreFull"));

    world.backups.push(complete("20261123T090000Z", "2026-11-23T09:10:00Z"));

    assert_eq!(codes(&world.seen()), []);
}

#[test]
fn what_was_cancelled_missed_or_expired_did_not_fail() {
    for reason in ["Cancelled", "Missed", "Expired"] {
        let mut world = World::well();
        world.backups.push(failed("20261123T080000Z", "2026-11-23T08:10:00Z", reason));

        assert_eq!(codes(&world.seen()), [], "{reason}");
    }
}

#[test]
fn a_drill_that_did_not_pass_is_told_and_one_that_was_cancelled_is_not() {
    let mut world = World::well();
    world.drills.push(drill("ada-now", "2026-11-23T08:00:00Z", "False", "SegmentDiffers"));
    assert_eq!(codes(&world.seen()), [TroubleCode::DrillFailed]);
    assert_eq!(world.seen().last_drill_passed, Some("2026-11-22T05:41:00Z".parse().unwrap()));

    world.drills[1] = drill("ada-now", "2026-11-23T08:00:00Z", "False", "Cancelled");

    assert_eq!(codes(&world.seen()), []);
}

#[test]
fn a_drill_is_overdue_when_the_next_one_should_have_ended() {
    let mut world = World::well();
    world.backups.push(complete("20261129T010000Z", "2026-11-29T01:10:00Z"));

    assert_eq!(codes(&world.seen_at("2026-11-29T07:00:00Z")), []);
    assert_eq!(codes(&world.seen_at("2026-11-29T07:00:01Z")), [TroubleCode::DrillOverdue]);
}

#[test]
fn a_policy_without_drills_is_told_of_each_of_its_tenants() {
    let mut world = World::well();
    world.policy["spec"].as_object_mut().unwrap().remove("drill");
    world.drills = vec![];

    assert_eq!(codes(&world.seen()), [TroubleCode::NotDrilled]);
}

#[test]
fn a_drill_above_the_promise_is_told_though_it_passed() {
    let world = World::well().policy("/spec/objectives", json!({ "rpo": "3h", "rto": "30m" }));

    let seen = world.seen();

    assert!(codes(&seen).contains(&TroubleCode::ObjectivesMissed));
    let told = seen.troubles.iter().find(|one| one.code == TroubleCode::ObjectivesMissed).unwrap();
    assert!(told.message.contains("recovery time 2460 s instead of 1800 s"), "{}", told.message);
    assert!(told.message.contains("recovery point 14400 s"), "{}", told.message);
}

#[test]
fn a_rotated_key_is_unproven_though_the_one_before_it_was_proven() {
    let other = TENANT_KEY.replace("qqqq", "zzzz");
    let world = World::well().tenant("/spec/backup/recipients/tenant", json!(other));

    let seen = world.seen();

    assert_eq!(seen.keys[0].proven, None);
    // The tenant is older than a week.
    assert_eq!(codes(&seen), [TroubleCode::KeyProofOverdue]);
}

#[test]
fn a_proof_is_overdue_after_the_policy_s_time() {
    let world = World::well().policy("/spec/keys", json!({ "proveEvery": "22d" }));
    assert_eq!(codes(&world.seen()), [TroubleCode::KeyProofOverdue; 2]);

    let world = World::well().policy("/spec/keys", json!({ "proveEvery": "23d" }));
    assert_eq!(codes(&world.seen()), []);
}

#[test]
fn a_delete_marker_over_a_segment_is_told_by_the_backup_and_by_the_drill() {
    let mut world = World::well();
    world.backups[0]["status"]["conditions"][1] = condition("Intact", "False", "Tampered");
    world.drills[0]["status"]["verdicts"] =
        json!([{ "name": "Segments", "outcome": "Warned", "reason": "Tampered" }]);

    let seen = world.seen();

    assert_eq!(seen.tampering, ["Backup/ada-20261123t010000z", "RestoreDrill/ada-20261122t050000z"]);
    assert_eq!(codes(&seen), [TroubleCode::Tampering]);
}

#[test]
fn what_a_drill_found_is_told_when_its_object_is_gone_until_somebody_has_looked() {
    let found = json!([{ "drill": "ada-gone", "store": "helsinki", "backup": "20261115T010000Z",
        "reason": "Tampered", "found": "2026-11-15T05:41:00Z" }]);
    let world = World::well().tenant("/status/backup/tampering", found);

    let seen = world.seen();
    assert_eq!(seen.tampering, ["RestoreDrill/ada-gone"]);
    assert_eq!(codes(&seen), [TroubleCode::Tampering]);
    let command =
        "kubectl annotate --overwrite journaltenant ada valv.eu/acknowledge-tampering=2026-11-15T05:41:00Z";
    assert!(seen.troubles[0].message.ends_with(command), "{}", seen.troubles[0].message);

    let said = json!({ "valv.eu/acknowledge-tampering": "2026-11-15T05:41:00Z" });
    assert_eq!(codes(&world.clone().tenant("/metadata/annotations", said).seen()), []);
    let early = json!({ "valv.eu/acknowledge-tampering": "2026-11-15T05:40:59Z" });
    assert_eq!(codes(&world.tenant("/metadata/annotations", early).seen()), [TroubleCode::Tampering]);
}

#[test]
fn what_is_left_of_a_drill_is_told_by_when_it_ended_whatever_its_status_says() {
    for reason in ["TearingDown", "TearDownFailed", "NotReached"] {
        let mut world = World::well();
        world.drills[0]["status"]["conditions"][1] = condition("TornDown", "False", reason);

        assert_eq!(codes(&world.seen_at("2026-11-22T05:46:00Z")), [], "it has its time: {reason}");
        let seen = world.seen_at("2026-11-22T05:46:01Z");
        assert_eq!(codes(&seen), [TroubleCode::DrillNotTornDown], "{reason}");
        assert!(seen.troubles[0].message.contains(&format!("because of {reason}")), "{:?}", seen.troubles);
    }
}

#[test]
fn a_record_that_lies_in_no_store_is_told_and_one_that_nobody_asked_for_is_not() {
    let mut world = World::well();
    world.drills[0]["status"]["conditions"][2] = condition("Recorded", "False", "RecordFailed");
    assert_eq!(codes(&world.seen_at("2026-11-22T05:51:00Z")), []);
    assert_eq!(codes(&world.seen_at("2026-11-22T05:51:01Z")), [TroubleCode::DrillNotRecorded]);

    world.drills[0]["status"]["conditions"][2] = condition("Recorded", "False", "NotAskedFor");
    assert_eq!(codes(&world.seen_at("2026-11-22T05:51:01Z")), []);
}

#[test]
fn failures_in_two_stores_are_two_troubles() {
    let mut world = World::well().policy("/spec/stores", json!(["helsinki", "frankfurt"]));
    for (store, reason) in [("helsinki", "SegmentMissing"), ("frankfurt", "FilesDiffer")] {
        let mut failed = drill(&format!("ada-{store}"), "2026-11-23T08:00:00Z", "False", reason);
        failed["status"]["store"] = json!(store);
        world.drills.push(failed);
    }

    let seen = world.seen();

    assert_eq!(codes(&seen), [TroubleCode::DrillFailed, TroubleCode::DrillFailed]);
    assert!(
        seen.troubles.iter().any(|told| told.message.contains("from frankfurt did not pass: FilesDiffer"))
    );
    assert_eq!(seen.failed_drills.len(), 2);
}

#[test]
fn an_old_backup_that_was_named_hides_no_objective_that_was_missed_and_is_not_what_was_due() {
    let mut world = World::well().policy("/spec/objectives", json!({ "rpo": "3h", "rto": "1h" }));
    let mut by_hand = drill("ada-old", "2026-11-23T08:00:00Z", "True", "AsAsked");
    by_hand["spec"] = json!({ "backup": "20261101T010000Z" });
    by_hand["status"]["measured"] = json!({ "rtoSeconds": 60 });
    let due = world.seen().drill_due;
    world.drills.push(by_hand);

    let seen = world.seen();

    assert!(codes(&seen).contains(&TroubleCode::ObjectivesMissed), "{:?}", seen.troubles);
    assert_eq!(seen.recovery_time.unwrap().seconds, 2460);
    assert_eq!(seen.drill_due, due);
    assert_eq!(seen.last_drill.unwrap().name, "ada-old");
}

#[test]
fn a_store_that_takes_no_backups_is_told_of_the_tenants_that_need_it() {
    let mut world = World::well();
    world.store["status"]["conditions"] = json!([condition("Ready", "False", "LockMissing")]);

    assert_eq!(codes(&world.seen()), [TroubleCode::StoreNotReady]);
    assert_eq!(stores(&world.typed().snapshot())[0].reason, "LockMissing");
}

#[test]
fn objects_in_another_namespace_are_nobody_s() {
    let mut world = World::well();
    world.backups[0]["metadata"]["namespace"] = json!("default");
    world.drills[0]["metadata"]["namespace"] = json!("journal-bo");

    let seen = world.seen();

    assert_eq!((seen.last_backup, seen.last_drill), (None, None));
}

#[test]
fn ten_thousand_tenants_are_told_of_while_a_scrape_waits() {
    let typed = World::well().typed();
    let mut tenants: Vec<JournalTenant> = vec![];
    let mut backups: Vec<Backup> = vec![];
    for number in 0..10_000 {
        let name = format!("t{number}");
        let mut tenant = typed.tenants[0].clone();
        tenant.metadata.name = Some(name.clone());
        tenants.push(tenant);
        for _ in 0..3 {
            let mut backup = typed.backups[0].clone();
            backup.metadata.namespace = Some(format!("journal-{name}"));
            backups.push(backup);
        }
    }
    let snapshot =
        Snapshot { tenants: tenants.iter().collect(), backups: backups.iter().collect(), ..typed.snapshot() };

    let began = std::time::Instant::now();
    let seen = super::tenants(&snapshot, noon());
    let took = began.elapsed();

    assert_eq!(seen.len(), 10_000);
    // Prometheus waits for 10 s. This is for a debug build on a machine that has other things to do.
    assert!(took < std::time::Duration::from_secs(5), "it took {took:?}");
    eprintln!("10,000 tenants in {took:?}");
}

/// The tenant of [`World::well`], whose archive in Helsinki stands so.
fn kept(more: &Value) -> World {
    let mut kept = json!({ "store": "helsinki", "backups": 9, "looked": "2026-11-23T02:00:00Z" });
    kept.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    World::well().tenant("/status/backup/kept", json!([kept]))
}

fn troubles_of(world: &World) -> Vec<TroubleCode> {
    let typed = world.typed();
    let overview = tenants(&typed.snapshot(), noon()).remove(0);
    overview.troubles.iter().map(|trouble| trouble.code).collect()
}

#[test]
fn an_archive_that_is_looked_after_and_complete_is_no_trouble() {
    assert_eq!(troubles_of(&kept(&json!({}))), []);
}

#[test]
fn what_is_missing_waits_or_is_not_looked_after_in_a_store_is_a_trouble() {
    let missing = kept(&json!({ "missing": ["20260101T010000Z"] }));
    let waits = kept(&json!({ "awaitsAcknowledgement": "0123456789abcdef" }));
    let failed = kept(&json!({ "failure": "its clock is 301 s ahead" }));
    let long_ago = kept(&json!({ "looked": "2026-11-20T02:00:00Z" }));
    let crowded = kept(&json!({ "finding": "more folders than anybody makes" }));
    let uncopied = kept(&json!({ "uncopied": 3 }));

    assert_eq!(troubles_of(&missing), [TroubleCode::Tampering, TroubleCode::CatalogueRolledBack]);
    assert_eq!(troubles_of(&waits), [TroubleCode::CleanUpWaits]);
    assert_eq!(troubles_of(&failed), [TroubleCode::NotLookedAfter]);
    assert_eq!(troubles_of(&long_ago), [TroubleCode::NotLookedAfter]);
    let held_back = kept(&json!({ "heldBack": 40, "heldBackFor": "the newest drill failed" }));
    assert_eq!(troubles_of(&held_back), [TroubleCode::DeletionHeldBack]);
    assert_eq!(troubles_of(&crowded), [TroubleCode::CleanUpWaits]);
    assert_eq!(troubles_of(&uncopied), [TroubleCode::NotCopied]);
}

#[test]
fn a_store_that_the_policy_names_no_more_is_no_trouble() {
    let mut elsewhere = kept(&json!({ "failure": "gone" }));
    elsewhere.tenant["status"]["backup"]["kept"][0]["store"] = json!("oslo");

    assert_eq!(troubles_of(&elsewhere), []);
}

#[test]
fn a_copy_that_is_hours_late_is_a_trouble_and_one_that_just_began_is_not() {
    let with = |ended: &str, reason: &str| {
        let mut world = World::well();
        let mut backup = complete("20261123T010000Z", ended);
        backup["status"]["conditions"].as_array_mut().unwrap().push(condition("Copied", "False", reason));
        world.backups = vec![backup];
        troubles_of(&world)
    };

    assert_eq!(with("2026-11-23T01:10:00Z", "StoreFull"), [TroubleCode::NotCopied]);
    assert_eq!(with("2026-11-23T11:10:00Z", "Copying"), []);
    assert_eq!(with("2026-11-23T01:10:00Z", "Expired"), []);
}
