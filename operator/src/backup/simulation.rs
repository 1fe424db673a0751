//! A backup that is followed step by step: plans are made, their statuses written, Jobs and pods end when a test says
//! so. What the cluster and the archive answer is what each test says.

use std::sync::Arc;

use age::x25519;
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};
use valv_crds::{Backup, BackupPolicy, BackupStatus, backup::BackupReason, slot};

use super::{Note, Plan, Step, SweptJob, plan};
use crate::{
    agent::last_words::Failure,
    backup::{
        apply::Outcome,
        attempt::tests::taken_words,
        check::{self, Run},
        names::Part,
        objects::{self, Supplies},
        observe::{self, Observed, TenantSeen},
        plan::Setup,
        sighting::{
            Sighting,
            tests::{JOB, POD, job, pod, said},
        },
        status::status,
    },
    io::{bucket::Credentials, kind::Kind},
    policy::plan::Protected,
    schedule::Schedule,
    settings::{Location, Settings},
    store::check::{Store, check as checked_store},
    tenant::check::Tenant,
};

const SETTINGS: &str = "images: {valv: registry.example/valv:1, postgres: registry.example/postgres:17, proxy: registry.example/proxy:1}";

/// When the backup was made.
const MADE: &str = "2026-11-22T09:30:05Z";

struct Simulation {
    backup: Backup,
    observed: Observed,
    settings: Settings,
    now: Timestamp,
}

fn recipient() -> String {
    x25519::Identity::generate().to_public().to_string()
}

fn tenant(changes: &Value) -> Tenant {
    let mut object = json!({
        "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant",
        "metadata": { "name": "ada", "uid": "u-1", "generation": 1, "creationTimestamp": "2026-03-01T00:00:00Z" },
        "spec": {
            "host": "ada.journal.example",
            "journal": { "image": "registry.example/journal:1" },
            "database": { "size": "1Gi" },
            "backup": { "recipients": { "tenant": recipient(), "escrow": recipient() } },
        },
        "status": { "database": { "systemIdentifier": "7" } },
    });
    merge(&mut object, changes);
    crate::tenant::check::check(Arc::new(serde_json::from_value(object).unwrap())).unwrap()
}

fn merge(object: &mut Value, changes: &Value) {
    match (object, changes) {
        (Value::Object(object), Value::Object(changes)) => {
            for (field, value) in changes {
                merge(object.entry(field).or_insert(Value::Null), value);
            }
        }
        (object, changes) => *object = changes.clone(),
    }
}

fn ready(generation: i64) -> Value {
    json!({ "observedGeneration": generation, "conditions": [{
        "type": "Ready", "status": "True", "reason": "AsAsked", "message": "it is",
        "lastTransitionTime": "2026-11-01T00:00:00Z" }] })
}

fn policy() -> BackupPolicy {
    serde_json::from_value(json!({
        "apiVersion": "valv.eu/v1alpha1", "kind": "BackupPolicy",
        "metadata": { "name": "default", "generation": 1 },
        "spec": {
            "schedule": { "cron": "0 1 * * *", "timeZone": "Europe/Stockholm", "window": "1h", "deadline": "2h" },
            "stores": ["helsinki"], "verification": { "mode": "Sample", "segments": 2 },
            "retention": { "floor": { "days": 35, "reason": "decided for a test" } },
            "objectives": { "rpo": "24h", "rto": "1h" },
        },
        "status": ready(1),
    }))
    .unwrap()
}

fn store() -> Store {
    let mut object = crate::store::check::tests::store().object.as_ref().clone();
    object.status = Some(serde_json::from_value(ready(3)).unwrap());
    checked_store(Arc::new(object))
}

fn failure(reason: BackupReason) -> String {
    json!({ "failure": { "reason": reason, "message": "so it was" } }).to_string()
}

fn verified() -> String {
    json!({ "verified": { "mode": "Sample", "seed": 7, "segmentsRead": 2, "segments": 3, "at": MADE, "tampered": 0,
        "lockedUntil": "2026-12-27T09:31:00Z" } })
    .to_string()
}

impl Simulation {
    fn new() -> Self {
        Self::of(check::tests::backup("journal-ada", "by-hand", json!({})).as_ref().clone())
    }

    fn scheduled() -> Self {
        let spec = json!({ "origin": "Scheduled" });
        Self::of(check::tests::backup("journal-ada", "ada-20261122t090000z", spec).as_ref().clone())
    }

    fn of(backup: Backup) -> Self {
        Self {
            backup,
            observed: Observed {
                tenant: TenantSeen::There(Box::new(tenant(&json!({})))),
                policy: Some(Arc::new(policy())),
                store: Some(store()),
                writing: Sighting::default(),
                reading: Sighting::default(),
                attachments_are_held: false,
                before: None,
                newer: None,
                by_hand_before: 0,
                rival: None,
            },
            settings: Settings::parse(SETTINGS, "valv-system").unwrap(),
            now: MADE.parse().unwrap(),
        }
    }

    fn run(&self) -> Run {
        check::check(Arc::new(self.backup.clone()))
    }

    fn plan(&self) -> Plan {
        plan(&self.run(), &self.observed, &self.settings, self.now)
    }

    /// One look to which the cluster and the archive answer with `outcome`.
    fn look_with(&mut self, outcome: &Outcome) -> Plan {
        let plan = self.plan();
        self.backup.status = Some(status(&self.run(), &self.observed, &plan, outcome, self.now));
        self.now += std::time::Duration::from_secs(1);
        plan
    }

    /// One look to which all say yes.
    fn look(&mut self) -> Plan {
        let makes = matches!(self.plan().step, Step::Makes(_));
        self.look_with(&Outcome { job: makes.then(|| JOB.to_owned()), ..Outcome::default() })
    }

    fn status(&self) -> &BackupStatus {
        self.backup.status.as_ref().unwrap()
    }

    fn attempt(&self) -> &valv_crds::backup::Attempt {
        self.status().attempt.as_ref().unwrap()
    }

    fn reason(&self) -> String {
        let conditions = &self.status().conditions;
        conditions.iter().find(|condition| condition.type_ == "Complete").unwrap().reason.clone()
    }

    fn later(&mut self, seconds: u64) {
        self.now += std::time::Duration::from_secs(seconds);
    }

    /// The writing Job was made, and runs.
    fn writing(&mut self) {
        assert!(matches!(self.look().step, Step::Begins { .. }));
        assert!(matches!(self.look().step, Step::Makes(Part::Write { .. })));
        self.observed.writing = Sighting::of(&job(&json!({ "active": 1 })), [].iter());
    }

    /// The writing pod says `words`.
    fn writer_says(&mut self, words: &str) {
        let code = i32::from(words.contains("failure"));
        self.observed.writing = Sighting::of(&job(&json!({})), [pod(JOB, &said(words, code))].iter());
    }

    /// The reading pod says `words`.
    fn reader_says(&mut self, words: &str) {
        let code = i32::from(words.contains("failure"));
        self.observed.reading = Sighting::of(&job(&json!({})), [pod(JOB, &said(words, code))].iter());
    }

    /// What was written is in the status, and its reading Job runs.
    fn reading(&mut self) {
        self.writing();
        self.writer_says(&taken_words());
        assert!(matches!(self.look().step, Step::Notes(Note::Wrote { .. })));
        assert!(matches!(self.look().step, Step::Notes(Note::Reads { reading: 1 })));
        assert!(matches!(self.look().step, Step::Makes(Part::ReadBack { number: 1, reading: 1 })));
        self.observed.writing = Sighting::default();
        self.observed.reading = Sighting::of(&job(&json!({ "active": 1 })), [].iter());
    }

    /// What was read back is in the status, and nothing of its Jobs is left.
    fn read(&mut self) {
        self.reading();
        self.reader_says(&verified());
        assert!(matches!(self.look().step, Step::Notes(Note::Read(_))));
        self.observed.reading = Sighting::default();
    }

    fn gives_up(&self) -> Option<BackupReason> {
        if let Step::GivesUp { reason, .. } = self.plan().step { Some(reason) } else { None }
    }

    fn waits(&self) -> Option<BackupReason> {
        if let Step::Waits { reason, .. } = self.plan().step { Some(reason) } else { None }
    }
}

#[test]
fn what_is_decided_stands_in_the_status_before_it_is_done_and_so_does_what_pods_said() {
    let mut simulation = Simulation::new();

    simulation.look();
    assert!(simulation.status().started.is_some() && simulation.status().deadline.is_some());
    assert_eq!((simulation.attempt().number, &simulation.attempt().job), (1, &None));
    simulation.look();
    assert_eq!(simulation.attempt().job.as_deref(), Some(JOB));
    simulation.writer_says(&taken_words());
    simulation.look();
    let wrote = simulation.attempt().wrote.clone().unwrap();
    assert_eq!((wrote.segments, simulation.attempt().id.as_deref()), (3, Some(POD)));
    assert_eq!(simulation.attempt().reading, None);
    simulation.look();
    simulation.look();
    simulation.reader_says(&verified());
    simulation.look();
    let read = simulation.attempt().reading.as_ref().unwrap().verified.clone().unwrap();
    assert_eq!((read.segments_read, read.locked_until.is_some()), (2, true));
    assert!(matches!(simulation.plan().step, Step::Commits { .. }));
}

#[test]
fn a_drained_node_after_the_agent_ended_loses_nothing() {
    let mut simulation = Simulation::new();
    simulation.reading();

    simulation.observed.writing = Sighting::default();

    assert!(matches!(simulation.plan().step, Step::Runs { part: Part::ReadBack { .. } }));
    simulation.reader_says(&verified());
    simulation.look();
    simulation.observed.reading = Sighting::default();
    assert!(matches!(simulation.plan().step, Step::Commits { .. }));
}

#[test]
fn a_job_that_somebody_deleted_is_a_failed_attempt_and_the_next_has_the_next_number() {
    let mut simulation = Simulation::new();
    simulation.writing();

    simulation.observed.writing = Sighting::default();

    assert!(matches!(simulation.look().step, Step::Notes(Note::Failed(_))));
    assert!(matches!(simulation.look().step, Step::Retries { number: 1, .. }));
    simulation.later(60);
    assert!(matches!(simulation.look().step, Step::Begins { number: 2, .. }));
    assert_eq!((simulation.attempt().number, &simulation.attempt().job), (2, &None));
}

#[test]
fn after_its_last_attempt_a_backup_is_given_up_with_the_reason_of_that() {
    let mut simulation = Simulation::new();
    for attempt in 1..=3 {
        simulation.writing();
        simulation.writer_says(&failure(BackupReason::StoreFull));
        simulation.look();
        simulation.later(600);
        assert_eq!(simulation.attempt().number, attempt);
    }

    assert_eq!(simulation.gives_up(), Some(BackupReason::StoreFull));
}

#[test]
fn a_reading_that_failed_is_repeated_alone() {
    let mut simulation = Simulation::new();
    simulation.reading();
    simulation.reader_says(&failure(BackupReason::StoreUnavailable));

    assert!(matches!(simulation.look().step, Step::Notes(Note::NotRead(_))));
    simulation.later(60);

    assert!(matches!(simulation.look().step, Step::Notes(Note::Reads { reading: 2 })));
    assert_eq!(simulation.attempt().number, 1);
    assert!(simulation.attempt().wrote.is_some());
    assert!(matches!(simulation.plan().step, Step::Makes(Part::ReadBack { number: 1, reading: 2 })));
}

#[test]
fn a_segment_that_differs_is_written_anew() {
    let mut simulation = Simulation::new();
    simulation.reading();
    simulation.reader_says(&failure(BackupReason::SegmentDiffers));

    assert!(matches!(simulation.look().step, Step::Notes(Note::Failed(_))));
    simulation.later(60);

    assert!(matches!(simulation.plan().step, Step::Begins { number: 2, .. }));
}

#[test]
fn recipients_that_changed_meanwhile_begin_another_attempt_for_the_new_ones_at_once() {
    let mut simulation = Simulation::new();
    simulation.read();

    simulation.observed.tenant = TenantSeen::There(Box::new(tenant(&json!({}))));

    let Step::Notes(Note::Failed(Failure { reason, message })) = simulation.look().step else { panic!() };
    assert_eq!((reason, message.contains("recipients")), (BackupReason::SetupChanged, true));
    let Step::Begins { number: 2, order, .. } = simulation.plan().step else { panic!() };
    let keys = simulation.observed.tenant.there().unwrap().backup.as_ref().unwrap().recipients.clone();
    assert_eq!(order.recipients, [keys.tenant, keys.escrow]);
}

#[test]
fn a_begun_backup_has_its_deadline_though_its_store_is_gone_and_what_was_read_back_is_committed_after_it() {
    let mut gone = Simulation::new();
    gone.writing();
    gone.observed.store = None;
    gone.observed.policy = None;
    assert!(matches!(gone.plan().step, Step::Runs { .. }));
    gone.later(7200);
    assert_eq!(gone.gives_up(), Some(BackupReason::DeadlineExceeded));

    let mut read = Simulation::new();
    read.read();
    read.later(8000);
    assert!(matches!(read.plan().step, Step::Commits { .. }));
}

#[test]
fn a_backup_that_never_began_is_missed_when_a_newer_is_there_or_its_time_has_passed() {
    let mut superseded = Simulation::scheduled();
    superseded.observed.newer = Some("ada-20261123t010000z".to_owned());
    let mut waiting = Simulation::scheduled();
    waiting.observed.store = None;

    assert_eq!(superseded.gives_up(), Some(BackupReason::Missed));
    // Its slot is half an hour older than it is: the window and the deadline, three hours, count from when it was made.
    waiting.later(3 * 3600 - 1);
    assert_eq!(waiting.waits(), Some(BackupReason::StoreNotReady));
    waiting.later(1);
    assert_eq!(waiting.gives_up(), Some(BackupReason::Missed));
    let Step::GivesUp { message, .. } = waiting.plan().step else { panic!() };
    assert!(message.contains("BackupStore helsinki is not there"), "{message}");
}

/// What is there when an operator comes back at 05:00, after an outage in which the slot of 01:00 passed.
fn after_an_outage() -> Simulation {
    let now: Timestamp = "2026-11-22T05:00:00Z".parse().unwrap();
    let hours = |count: u64| std::time::Duration::from_secs(count * 3600);
    let schedule = Schedule::new("0 1 * * *", "UTC", hours(1), hours(2)).unwrap();
    let ada = Protected {
        tenant: "ada".to_owned(),
        made: "2026-03-01T00:00:00Z".parse().unwrap(),
        taken_on: Some("20261121T010000Z".parse().unwrap()),
        is_awake: true,
    };
    let orders = crate::policy::plan::plan(&schedule, &[ada], now).orders;
    let name = slot::name(&orders[0].tenant, orders[0].slot);
    let spec = json!({ "origin": "Scheduled" });
    let mut backup = check::tests::backup("journal-ada", &name, spec).as_ref().clone();
    backup.metadata.creation_timestamp = Some(crate::backup::attempt::time(now));
    let mut simulation = Simulation::of(backup);
    simulation.now = now;
    simulation
}

#[test]
fn the_newest_slot_of_a_long_outage_is_run_when_the_operator_is_back_under_its_own_name() {
    let mut simulation = after_an_outage();
    assert_eq!(simulation.backup.name_any(), "ada-20261122t010000z");

    let begun = simulation.look();

    assert!(matches!(begun.step, Step::Begins { number: 1, .. }), "{:?}", begun.step);
    assert_eq!(simulation.status().slot.unwrap().to_string(), "20261122T010000Z");
    // It may take as long as any other, from now on.
    assert_eq!(simulation.status().deadline.as_ref().unwrap().0, "2026-11-22T07:00:00Z".parse().unwrap());
}

#[test]
fn what_is_caught_up_waits_for_its_turn_as_long_as_what_was_made_in_time_and_no_longer() {
    let mut simulation = after_an_outage();
    simulation.observed.before = Some("earlier".to_owned());

    simulation.later(3 * 3600 - 1);
    assert_eq!(simulation.waits(), Some(BackupReason::WaitingForTurn));
    simulation.later(1);
    assert_eq!(simulation.gives_up(), Some(BackupReason::Missed));
}

#[test]
fn an_old_slot_that_somebody_makes_again_is_not_caught_up() {
    let told = |last_slot: &str| {
        let mut simulation = after_an_outage();
        let mut tenant = tenant(&json!({}));
        let mut object = tenant.object.as_ref().clone();
        object.status = serde_json::from_value(json!({ "backup": { "lastSlot": last_slot } })).unwrap();
        tenant.object = Arc::new(object);
        simulation.observed.tenant = TenantSeen::There(Box::new(tenant));
        simulation.gives_up()
    };

    assert_eq!(told("20261122T020000Z"), Some(BackupReason::Missed), "a newer one was taken on since");
    assert_eq!(told("20261122T010000Z"), None);
    assert_eq!(told("20991231T010000Z"), None, "a clock was wrong: that slot has not come");
}

#[test]
fn the_backup_before_a_migration_waits_for_a_store_that_is_away_as_long_as_it_takes() {
    let spec = json!({ "origin": "BeforeMigration" });
    let backup = check::tests::backup("journal-ada", "ada-20261122t090001z", spec);
    let mut waiting = Simulation::of(backup.as_ref().clone());
    let store = waiting.observed.store.take();

    waiting.later(3 * 24 * 3600);

    assert_eq!(waiting.waits(), Some(BackupReason::StoreNotReady));
    waiting.observed.store = store;
    assert!(matches!(waiting.plan().step, Step::Begins { number: 1, .. }));
}

#[test]
fn of_backups_by_hand_three_are_open_and_the_fourth_is_refused_at_once() {
    let by_hand = |before: usize| {
        let mut simulation =
            Simulation::of(check::tests::backup("journal-ada", "by-hand", json!({})).as_ref().clone());
        simulation.observed.by_hand_before = before;
        simulation.gives_up()
    };

    assert_eq!(by_hand(2), None);
    assert_eq!(by_hand(3), Some(BackupReason::TooManyByHand));
    let mut due = Simulation::scheduled();
    due.observed.by_hand_before = 3;
    assert_eq!(due.gives_up(), None, "what is due is counted by nobody");
}

#[test]
fn every_so_often_a_backup_is_read_back_whole() {
    let ordered = |whole: Option<&str>| {
        let mut simulation = Simulation::scheduled();
        let mut policy = simulation.observed.policy.as_deref().unwrap().clone();
        policy.spec.verification.full_every = Some("7d".parse().unwrap());
        simulation.observed.policy = Some(Arc::new(policy));
        let read = whole.map(|slot| json!([{ "store": "helsinki", "slot": slot }]));
        let mut tenant = tenant(&json!({}));
        let mut object = tenant.object.as_ref().clone();
        let status = json!({ "backup": { "readWhole": read.unwrap_or_default() } });
        object.status = whole.map(|_| serde_json::from_value(status).unwrap());
        tenant.object = Arc::new(object);
        simulation.observed.tenant = TenantSeen::There(Box::new(tenant));
        let Step::Begins { order, .. } = simulation.plan().step else { panic!("it does not begin") };
        (order.verification, order.segments)
    };

    assert_eq!(ordered(None), (valv_crds::policy::VerificationMode::Full, None));
    assert_eq!(ordered(Some("20261115T090000Z")).0, valv_crds::policy::VerificationMode::Full);
    assert_eq!(ordered(Some("20261121T090000Z")), (valv_crds::policy::VerificationMode::Sample, Some(2)));
}

#[test]
fn a_clock_that_is_behind_makes_a_slot_wait_and_a_person_s_backup_not_even_that() {
    let mut manual = Simulation::new();
    manual.now = "2026-11-22T09:29:00Z".parse().unwrap();
    let mut scheduled = Simulation::scheduled();
    scheduled.now = "2026-11-22T08:59:00Z".parse().unwrap();

    assert!(matches!(manual.plan().step, Step::Begins { .. }));
    assert_eq!(scheduled.waits(), Some(BackupReason::SlotInFuture));
    scheduled.now = "2026-11-20T08:59:00Z".parse().unwrap();
    assert_eq!(scheduled.gives_up(), Some(BackupReason::SlotInFuture));
}

#[test]
fn a_tenant_that_goes_stops_its_backup_and_its_secret_goes_too() {
    let mut simulation = Simulation::new();
    simulation.writing();
    let deleted = json!({ "metadata": { "deletionTimestamp": "2026-11-22T09:31:00Z", "finalizers": ["valv.eu/tenant"] } });

    for seen in [TenantSeen::There(Box::new(tenant(&deleted))), TenantSeen::Absent] {
        simulation.observed.tenant = seen;
        let plan = simulation.plan();

        assert_eq!(simulation.gives_up(), Some(BackupReason::NotATenant));
        assert_eq!(plan.sweep.len(), 1);
        assert_eq!(plan.sweep[0].part, Part::Write { number: 1 });
        assert_eq!(plan.sweep[0].job, SweptJob::Stopped(JOB.to_owned()));
    }
}

#[test]
fn a_tenant_that_cannot_be_read_for_a_while_stops_nothing() {
    for seen in [TenantSeen::Unreadable("a folder twice".to_owned()), TenantSeen::Unknown] {
        let mut running = Simulation::new();
        running.writing();
        let mut new = Simulation::new();
        running.observed.tenant = seen.clone();
        new.observed.tenant = seen;

        assert!(matches!(running.plan().step, Step::Runs { .. }));
        assert_eq!(new.waits(), Some(BackupReason::NotATenant));
    }
}

#[test]
fn what_the_setup_lacks_is_waited_for_and_said() {
    let mut unready = Simulation::new();
    let mut policy = policy();
    policy.status.as_mut().unwrap().conditions[0].status = "False".to_owned();
    unready.observed.policy = Some(Arc::new(policy.clone()));
    let mut outdated = Simulation::new();
    policy.status = Some(serde_json::from_value(ready(1)).unwrap());
    policy.metadata.generation = Some(2);
    outdated.observed.policy = Some(Arc::new(policy));
    let mut without_copies = Simulation::new();
    let mut policy = self::policy();
    let told = &mut policy.status.as_mut().unwrap().conditions[0];
    (told.status, told.reason) = ("False".to_owned(), "StoreNotReady".to_owned());
    without_copies.observed.policy = Some(Arc::new(policy));
    let mut near = Simulation::new();
    near.settings.location =
        Some(Location { region: "Europe-1".to_owned(), also_named: vec![], country: "FI".to_owned() });
    let mut shared = Simulation::new();
    shared.observed.rival = Some("bo".to_owned());
    let mut second = Simulation::new();
    second.observed.before = Some("earlier".to_owned());

    assert_eq!(unready.waits(), Some(BackupReason::PolicyMissing));
    assert_eq!(outdated.waits(), Some(BackupReason::PolicyMissing));
    assert_eq!(without_copies.waits(), None, "its own store is ready: another's outage holds up copies only");
    assert_eq!(near.waits(), Some(BackupReason::StoreRefused));
    assert_eq!(shared.waits(), Some(BackupReason::ArchiveTaken));
    assert_eq!(second.waits(), Some(BackupReason::WaitingForTurn));
}

#[test]
fn before_a_cancelled_backup_is_given_up_the_archive_is_asked_for_its_commit() {
    let mut simulation = Simulation::new();
    simulation.read();
    simulation.backup.spec.cancel = true;

    let Step::GivesUp { reason, search: Some(search), .. } = simulation.plan().step else { panic!() };

    assert_eq!(reason, BackupReason::Cancelled);
    assert_eq!(search.sentinel, "0b0e7c1a6f0e4a679d0e3a5d4c1b2a39");
    let asked = Failure { reason: BackupReason::StoreUnavailable, message: "it is away".to_owned() };
    simulation.look_with(&Outcome { postponed: Some(asked), ..Outcome::default() });
    assert!(!observe::is_over(&simulation.backup), "without an answer it is not given up");
    simulation.look();
    assert!(observe::is_over(&simulation.backup));
    assert_eq!(simulation.reason(), "Cancelled");
}

#[test]
fn what_the_api_server_refuses_is_told_and_the_attempt_stands_until_its_deadline() {
    let mut simulation = Simulation::new();
    simulation.look();
    let quota = Failure { reason: BackupReason::ClusterRefused, message: "exceeded quota".to_owned() };

    simulation.look_with(&Outcome { postponed: Some(quota.clone()), ..Outcome::default() });

    assert_eq!(simulation.reason(), "ClusterRefused");
    assert!(matches!(simulation.plan().step, Step::Makes(Part::Write { number: 1 })));
    assert!(simulation.status().deadline.is_some());
    simulation.look_with(&Outcome { failed: Some(quota), ..Outcome::default() });
    assert_eq!(simulation.attempt().failed.as_ref().unwrap().reason, BackupReason::ClusterRefused);
    simulation.later(8000);
    let Step::GivesUp { reason, message, .. } = simulation.plan().step else { panic!() };
    assert_eq!(reason, BackupReason::DeadlineExceeded);
    assert!(message.contains("exceeded quota"), "{message}");
}

#[test]
fn a_place_is_needed_while_jobs_run_and_not_while_one_waits_or_commits() {
    let mut simulation = Simulation::new();
    assert!(!observe::is_active(&simulation.backup));
    simulation.writing();
    assert!(observe::is_active(&simulation.backup));
    let mut failed = Simulation::new();
    failed.writing();
    failed.writer_says(&failure(BackupReason::StoreFull));
    failed.look();
    assert!(!observe::is_active(&failed.backup));
    let mut read = Simulation::new();
    read.read();
    assert!(!observe::is_active(&read.backup));
}

#[test]
fn a_commission_is_for_what_was_asked_and_locked() {
    let mut simulation = Simulation::new();
    simulation.read();
    let with = |change: &dyn Fn(&mut valv_crds::backup::ReadBack)| {
        let mut backup = simulation.backup.clone();
        let attempt = backup.status.as_mut().unwrap().attempt.as_mut().unwrap();
        change(attempt.reading.as_mut().unwrap().verified.as_mut().unwrap());
        let changed = Simulation {
            backup,
            observed: simulation.observed.clone(),
            settings: simulation.settings.clone(),
            now: simulation.now,
        };
        match changed.plan().step {
            Step::Notes(Note::Failed(failure)) => Some(failure.reason),
            Step::Commits { .. } => None,
            Step::Over
            | Step::Waits { .. }
            | Step::GivesUp { .. }
            | Step::Begins { .. }
            | Step::Makes(_)
            | Step::Runs { .. }
            | Step::Notes(_)
            | Step::Retries { .. } => panic!("it is neither committed nor refused"),
        }
    };

    assert_eq!(with(&|_| {}), None);
    assert_eq!(with(&|read| read.segments_read = 1), Some(BackupReason::AgentFailed));
    assert_eq!(
        with(&|read| read.mode = valv_crds::policy::VerificationMode::Metadata),
        Some(BackupReason::AgentFailed)
    );
    assert_eq!(with(&|read| read.segments = 4), Some(BackupReason::ManifestInvalid));
    assert_eq!(with(&|read| read.locked_until = None), Some(BackupReason::LockTooShort));
    let a_day_less = "2026-12-26T09:31:00Z".parse::<Timestamp>().unwrap();
    let shorter = |read: &mut valv_crds::backup::ReadBack| {
        read.locked_until = Some(crate::backup::attempt::time(a_day_less));
    };
    assert_eq!(with(&shorter), Some(BackupReason::LockTooShort));
}

#[test]
fn what_reads_back_and_the_reader_s_credentials_are_in_the_operator_s_namespace_only() {
    let mut simulation = Simulation::new();
    simulation.reading();
    let run = simulation.run();
    let Ok(subject) = &run.subject else { panic!() };
    let tenant = simulation.observed.tenant.there().unwrap();
    let (policy, store) = (policy(), store());
    let setup = Setup { tenant, protection: tenant.backup.as_ref().unwrap(), policy: &policy, store: &store };
    let credentials = Credentials { access_key_id: "w".into(), secret_access_key: "s".to_owned().into() };
    let config_maps = [("colours".to_owned(), vec!["theme.css".to_owned()])].into();
    let supplies =
        Supplies { writer: credentials, secrets: [].into(), config_maps, attachments_are_held: false };

    let written =
        objects::write(&run, subject, &setup, simulation.attempt(), &supplies, &simulation.settings).unwrap();
    let read = objects::read_back(&run, subject, &setup, simulation.attempt(), &simulation.settings).unwrap();

    let names = |all: &[crate::tenant::objects::Wanted]| -> Vec<String> {
        all.iter()
            .map(|wanted| {
                format!("{}/{}", wanted.value["metadata"]["namespace"].as_str().unwrap(), wanted.key)
            })
            .collect()
    };
    let write = "backup-0b0e7c1a6f0e4a67-1";
    assert_eq!(
        names(&written),
        [
            format!("journal-ada/ConfigMap {write}"),
            format!("journal-ada/Secret {write}"),
            format!("journal-ada/Job {write}"),
        ]
    );
    let verify = "verify-0b0e7c1a6f0e4a67-1-1";
    assert_eq!(
        names(&read),
        [format!("valv-system/ConfigMap {verify}"), format!("valv-system/Job {verify}")]
    );
    let job = &read.iter().find(|wanted| wanted.key.kind == Kind::Job).unwrap().value;
    let pod = &job["spec"]["template"];
    assert_eq!(job["metadata"].get("ownerReferences"), None);
    assert_eq!(pod["metadata"]["labels"]["valv.eu/role"], "verification");
    assert_eq!(pod["metadata"]["labels"]["valv.eu/backup"], run.uid());
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    assert_eq!(pod["spec"]["serviceAccountName"], "valv-operator-verification");
    assert_eq!(pod["spec"]["volumes"][1]["secret"]["secretName"], "r");
    for wanted in written.iter().chain(&read).filter(|wanted| wanted.key.kind != Kind::Job) {
        assert_eq!(wanted.value["immutable"], true, "{}", wanted.key);
    }
    for wanted in &written {
        assert_eq!(wanted.value["metadata"]["ownerReferences"][0]["uid"], run.uid(), "{}", wanted.key);
    }
    assert_eq!(simulation.backup.name_any(), "by-hand");
}
