//! Decides a drill's next step. Pure.
//!
//! A drill has two halves. In the first it comes to its verdict: chosen, prepared, restored, judged, started. In the
//! second, which always comes, the verdict is recorded and all that was restored is taken away. What ends the first
//! half (a verdict, a cancellation, a deadline, a deletion) does not touch the second.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::Time};
use kube::{ResourceExt, core::DynamicObject};
use valv_crds::{
    BackupPolicy, RestoreDrillStatus,
    drill::{Check, DrillReason, DrilledBackup, KeyBringer, KeyUse, Outcome, Phase, PhaseTime, Verdict},
};

use super::{
    catalogue::{Chosen, Looked},
    check::{self, Run, Subject},
    journal::{self, Standing},
    measure,
    names::{CONFIG, JUDGE, KEY_FILE, KEY_SECRET, RESTORE, STORE_SECRET},
    objects,
    observe::{self, Config, Observed},
    teardown,
    turns::Room,
    verdicts::{self, verdict},
    words::{self, Stood},
};
use crate::{
    agent::{
        drill_words::{DrillWords, Judged, Restored},
        judge, restore,
    },
    io::{
        cluster::Finalizer,
        kind::{Key, Kind},
    },
    keyholder::decide::{MANAGED_BY, MANAGER},
    settings::Settings,
    tenant::{check::Tenant, objects::Wanted, observe::NamespaceSeen, secret::Order},
};

/// Between two looks at a drill that is under way.
const WHILE_RUNNING: Duration = Duration::from_secs(2);

/// Between two looks at one that waits for something that somebody does.
const WHILE_WAITING: Duration = Duration::from_secs(10);

/// Before the next look at one of which the next step is known.
const AT_ONCE: Duration = Duration::from_millis(100);

/// What Kubernetes gives a Job beyond the drill's deadline: it is the operator that says that it is over, and why.
const BEYOND: Duration = Duration::from_secs(120);

/// A pod's volumes are mounted, and its images pulled, within this, or something about them is wrong.
const MOUNTED_WITHIN: SignedDuration = SignedDuration::from_mins(2);

/// For so long the journal stays ready before it counts as started: one that answers once and falls over has not.
const STAYS_READY: SignedDuration = SignedDuration::from_secs(10);

/// How long the record is tried before what was restored is taken away all the same.
const RECORD_FIRST: SignedDuration = SignedDuration::from_mins(5);

/// The same of a drill that somebody stops: who uninstalls the operator does not wait for longer than two minutes.
const RECORD_BEFORE_STOP: SignedDuration = SignedDuration::from_secs(30);

/// How long the record is tried every few seconds. After that its store is away for long, or for good.
const RECORD_SOON: SignedDuration = SignedDuration::from_hours(1);

/// Between two tries after that.
const WHILE_IN_VAIN: Duration = Duration::from_secs(300);

/// How long the record of a drill that is being deleted is tried.
const RECORD_AT_LAST: SignedDuration = SignedDuration::from_mins(10);

/// How long it is tried where the store's object is not there either: nothing says that it comes back.
const RECORD_WITHOUT_STORE: SignedDuration = SignedDuration::from_secs(20);

/// How long a drill may take where no policy says it.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// What is done now.
#[derive(Debug)]
pub struct Plan {
    /// What the status says of it.
    pub step: Step,
    /// The finalizer to set or to take away.
    pub finalizer: Option<Finalizer>,
    /// The namespace to create.
    pub namespace: Option<Namespace>,
    /// Secrets to make, which need randomness.
    pub orders: Vec<Order>,
    /// Objects to make, in this order.
    pub apply: Vec<Wanted>,
    /// Objects that have served, in the drill's namespace.
    pub delete: Vec<Key>,
    /// Whether the record is written now.
    pub record: Record,
    /// What is taken away of what was restored.
    pub teardown: Option<teardown::Next>,
    /// When to look again; absent: when something changes.
    pub look_again_after: Option<Duration>,
}

/// Whether the record is written now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Record {
    /// It is.
    Now,
    /// It is not: there is none, or it is written, or there is nothing to say yet.
    NotNow,
}

/// Where a drill stands.
#[derive(Debug)]
pub enum Step {
    /// It is over.
    Over,
    /// It is not one.
    Refused {
        /// In a sentence.
        message: String,
    },
    /// It comes to its turn, or to what it needs, later.
    Waits {
        /// Why.
        reason: DrillReason,
        /// In a sentence.
        message: String,
        /// Whether it has begun.
        begun: Begun,
    },
    /// It is under way.
    Runs {
        /// How far it is, in a sentence.
        message: String,
        /// What is known since now.
        learnt: Vec<Learnt>,
    },
    /// Its verdict stands.
    Ends(Box<Ending>),
    /// It is being recorded and torn down.
    Closes,
}

/// Whether a drill has begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Begun {
    /// It waits for its turn: its time does not count yet.
    NotYet,
    /// It has.
    Yes,
}

/// What is known since now.
#[derive(Clone, Debug, PartialEq)]
pub enum Learnt {
    /// What is drilled, once what it was written into stands.
    Chosen(DrilledBackup),
    /// The key is there, and room to go on.
    KeyCame,
    /// What `agent restore` said, and when its container started.
    Restored(Box<Restored>, Option<Timestamp>),
    /// What `agent judge` said.
    Judged(Box<Judged>),
    /// The journal is ready since then, by its node's clock.
    SeenReady(Timestamp),
    /// The journal answers: since when, and when it was begun to be started.
    Answers(Timestamp, Option<Timestamp>),
    /// The key that it restores with.
    Key(KeyUse),
    /// A verdict of the operator's own.
    Verdict(Verdict),
}

/// How the first half ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// What is known since now.
    pub learnt: Vec<Learnt>,
    /// Why it came to no verdicts, if it did not.
    pub because: Option<(DrillReason, String)>,
}

impl Plan {
    fn of(step: Step, look_again_after: Option<Duration>) -> Self {
        Self {
            step,
            finalizer: None,
            namespace: None,
            orders: vec![],
            apply: vec![],
            delete: vec![],
            record: Record::NotNow,
            teardown: None,
            look_again_after,
        }
    }

    fn runs(message: impl Into<String>) -> Self {
        Self::of(Step::Runs { message: message.into(), learnt: vec![] }, Some(WHILE_RUNNING))
    }

    fn waits(reason: DrillReason, message: impl Into<String>, begun: Begun) -> Self {
        Self::of(Step::Waits { reason, message: message.into(), begun }, Some(WHILE_WAITING))
    }

    fn ends(because: DrillReason, message: impl Into<String>) -> Self {
        let ending = Ending { learnt: vec![], because: Some((because, message.into())) };
        Self::of(Step::Ends(Box::new(ending)), Some(AT_ONCE))
    }

    fn ends_with(learnt: Vec<Learnt>) -> Self {
        let ending = Ending { learnt, because: None };
        Self::of(Step::Ends(Box::new(ending)), Some(AT_ONCE))
    }
}

/// The plan for `run` at `now`.
pub fn plan(run: &Run, observed: &Observed, settings: &Settings, now: Timestamp) -> Plan {
    if check::is_over(&run.object) {
        let finalizer = run.is_held().then_some(Finalizer::Absent);
        return Plan { finalizer, ..Plan::of(Step::Over, None) };
    }
    let subject = match &run.subject {
        Ok(subject) => subject,
        Err(invalid) => return Plan::of(Step::Refused { message: invalid.to_string() }, None),
    };
    if run.ended().is_some() {
        return closes(run, subject, observed, settings, now);
    }
    let mut plan = first_half(run, subject, observed, settings, now);
    if matches!(plan.step, Step::Ends(_)) {
        plan.apply.clear();
        plan.delete.extend(secrets_that_open(observed));
    }
    plan
}

fn first_half(
    run: &Run,
    subject: &Subject,
    observed: &Observed,
    settings: &Settings,
    now: Timestamp,
) -> Plan {
    if let Some(why) = stopped_by(run) {
        return stopped(run, observed, why, now);
    }
    let Some(tenant) = &observed.tenant else {
        return Plan::ends(DrillReason::CannotRestore, "this namespace's tenant is not there");
    };
    if tenant.object.metadata.deletion_timestamp.is_some() {
        return stopped(run, observed, "the tenant is being deleted", now);
    }
    if !run.is_held() {
        let waits = Plan::waits(DrillReason::Running, "it is being taken on", Begun::NotYet);
        return Plan { finalizer: Some(Finalizer::Present), look_again_after: Some(AT_ONCE), ..waits };
    }
    let next = under_way(run, subject, tenant, observed, settings, now);
    let deadline = deadline(observed.policy.as_deref());
    let is_late = is_late(&run.status(), deadline, now);
    match next.step {
        Step::Waits { reason, message, .. }
            if is_late && (reason == DrillReason::KeyMissing || reason.is_of_the_store()) =>
        {
            Plan::ends(
                reason,
                format!("{message}; it did not come until the deadline of {} s", deadline.as_secs()),
            )
        }
        Step::Waits { message, begun: Begun::NotYet, .. } if is_late => {
            let late = format!("its turn did not come within {} s: {message}", deadline.as_secs());
            Plan::ends(DrillReason::DeadlineExceeded, late)
        }
        // It came to nothing because its time was over: so it says.
        Step::Ends(ending) if is_late && matches!(ending.because, Some((DrillReason::CannotRestore, _))) => {
            let so_far = ending.because.map(|(_, message)| message).unwrap_or_default();
            let late = format!("it did not end within {} s: {so_far}", deadline.as_secs());
            Plan::ends(DrillReason::DeadlineExceeded, late)
        }
        Step::Waits { message, .. } | Step::Runs { message, .. } if is_late => {
            // What was told last may be what the API server refused.
            let told = run.status().conditions.into_iter().find(|said| said.type_ == "Passed");
            let so_far = told.map_or(message, |said| said.message);
            let late = format!("it did not end within {} s; it was so far: {so_far}", deadline.as_secs());
            Plan::ends(DrillReason::DeadlineExceeded, late)
        }
        Step::Over
        | Step::Refused { .. }
        | Step::Waits { .. }
        | Step::Runs { .. }
        | Step::Ends(_)
        | Step::Closes => next,
    }
}

/// Why somebody wants `run` to end.
fn stopped_by(run: &Run) -> Option<&'static str> {
    if run.is_deleted() {
        return Some("the RestoreDrill was deleted");
    }
    run.object.spec.cancel.then_some("spec.cancel was set")
}

/// The end of `run` because of `why`: with the verdict that an agent has left already, if that is one that failed. What
/// was found out is not taken away by who stops what finds it.
fn stopped(run: &Run, observed: &Observed, why: &str, now: Timestamp) -> Plan {
    let failed = |verdicts: &[Verdict]| verdicts::failed(verdicts).is_some();
    for name in [RESTORE, JUDGE] {
        let Stood::Said { words, times } = stood(run, observed, name, now) else { continue };
        match *words {
            DrillWords::Restored(mut restored) if name == RESTORE => {
                restored.verdicts = verdicts::of(restored.verdicts, &restore::CHECKS);
                if failed(&restored.verdicts) {
                    let started = times.map(|(started, _)| started);
                    return Plan::ends_with(vec![Learnt::Restored(Box::new(restored), started)]);
                }
            }
            DrillWords::Judged(mut judged) if name == JUDGE => {
                judged.verdicts = verdicts::of(judged.verdicts, &judge_checks());
                if failed(&judged.verdicts) {
                    return Plan::ends_with(vec![Learnt::Judged(Box::new(judged))]);
                }
            }
            DrillWords::Restored(_) | DrillWords::Judged(_) | DrillWords::Failure(_) => {}
        }
    }
    Plan::ends(DrillReason::Cancelled, why)
}

/// What the agent that judges is asked.
fn judge_checks() -> Vec<Check> {
    judge::CHECKS.into_iter().chain([Check::Sql]).collect()
}

/// What ends `run` although not all could be seen, because of `trouble`: nothing that the API server refuses may keep
/// what was restored, and the key to it, for longer than was allowed.
pub fn stops(run: &Run, observed: &Observed, trouble: &str, now: Timestamp) -> Option<Plan> {
    if run.subject.is_err() || run.ended().is_some() {
        return None;
    }
    let deadline = deadline(observed.policy.as_deref());
    let mut plan = if let Some(why) = stopped_by(run) {
        stopped(run, observed, why, now)
    } else if is_late(&run.status(), deadline, now) {
        let late = format!("it did not end within {} s; at last: {trouble}", deadline.as_secs());
        Plan::ends(DrillReason::DeadlineExceeded, late)
    } else {
        return None;
    };
    plan.delete.extend(secrets_that_open(observed));
    Some(plan)
}

/// Whether a drill has had `deadline`: for its turn, then for its key, then for its work. What it waits for somebody is
/// not taken from the time that it works.
fn is_late(status: &RestoreDrillStatus, deadline: Duration, now: Timestamp) -> bool {
    let since = |moment: &Option<Time>| moment.as_ref().map(|time| measure::seconds(time.0, now));
    let spent = match (&status.started, &status.key_asked, &status.key_came) {
        (None, _, _) => since(&status.seen),
        (Some(_), Some(_), None) => since(&status.key_asked),
        (Some(began), _, _) => Some(worked(status, began.0, now)),
    };
    spent.is_some_and(|spent| u64::try_from(spent).unwrap_or_default() > deadline.as_secs())
}

/// Seconds since `began` that were not spent waiting for a key.
fn worked(status: &RestoreDrillStatus, began: Timestamp, now: Timestamp) -> i64 {
    let waited = match (&status.key_asked, &status.key_came) {
        (Some(asked), Some(came)) => measure::seconds(asked.0, came.0),
        _ => 0,
    };
    (measure::seconds(began, now) - waited).max(0)
}

/// How long a drill may take.
fn deadline(policy: Option<&BackupPolicy>) -> Duration {
    policy.map_or(DEADLINE, |policy| {
        let schedule = policy.spec.drill.as_ref().map_or(&policy.spec.schedule, |drill| &drill.schedule);
        schedule.deadline.duration()
    })
}

/// The time that a Job begun now has: a little more than the drill.
fn left(run: &Run, observed: &Observed, now: Timestamp) -> Duration {
    let mut status = run.status();
    if status.key_asked.is_some() {
        status.key_came.get_or_insert(Time(now));
    }
    let began = status.started.as_ref().map_or(now, |time| time.0);
    let spent = Duration::from_secs(u64::try_from(worked(&status, began, now)).unwrap_or_default());
    deadline(observed.policy.as_deref()).saturating_sub(spent) + BEYOND
}

/// How the Job `name` stands at `now`. One whose UID is not in the status is not listened to: it is made, or found to be as it
/// was made, first.
fn stood(run: &Run, observed: &Observed, name: &str, now: Timestamp) -> Stood {
    let known = run.status().jobs.into_iter().find(|job| job.name == name);
    let standing = observed.objects.get(&Key::new(Kind::Job, name)).and_then(|job| job.uid());
    match known.filter(|known| Some(&known.uid) == standing.as_ref()) {
        Some(_) => words::stood(&observed.objects, name, now),
        None => Stood::Absent,
    }
}

fn under_way(
    run: &Run,
    subject: &Subject,
    tenant: &Tenant,
    observed: &Observed,
    settings: &Settings,
    now: Timestamp,
) -> Plan {
    let standing = run.status().verdicts;
    let has_begun = run.status().started.is_some();
    if observed.namespace == NamespaceSeen::Foreign {
        let message = format!(
            "the namespace {} was not made for this drill, and is not touched: remove it, and drill again",
            subject.into
        );
        return Plan::ends(DrillReason::CannotRestore, message);
    }
    let is_lost = match observed.namespace {
        NamespaceSeen::Absent => run.status().namespace.is_some(),
        NamespaceSeen::Terminating => true,
        NamespaceSeen::Ours | NamespaceSeen::Foreign => false,
    };
    if is_lost {
        let message = format!("somebody deleted the namespace {} while it was drilled in", subject.into);
        return Plan::ends(DrillReason::CannotRestore, message);
    }
    if !has_begun && let Some(wait) = turn(observed, settings) {
        return wait;
    }
    if let Some(prepared) = run.status().prepared_with {
        if observed.config == Config::Unknown {
            let plan = Plan::runs(format!("the operator's way into {} is being made", subject.into));
            return Plan { apply: vec![objects::access(&subject.into, &subject.tenant, settings)], ..plan };
        }
        if !observed.config.is(&prepared) || observed.chosen.is_none() {
            let message = format!(
                "the ConfigMap {CONFIG} in {} is not the one that was prepared: somebody changed it or took it away",
                subject.into
            );
            return Plan::ends(DrillReason::CannotRestore, message);
        }
    }
    let plan = match &observed.chosen {
        None => return chooses(run, subject, tenant, observed, settings),
        Some(chosen) if !verdicts::has(&standing, Check::CommitSignature) => {
            restores(run, subject, tenant, observed, settings, chosen, now)
        }
        Some(_) if !verdicts::has(&standing, Check::DatabaseStarts) => {
            judges(run, subject, tenant, observed, settings, now)
        }
        Some(_) => starts(run, subject, tenant, observed, settings, now),
    };
    // What somebody took away of the walls stands again, before anything else is made.
    let mut apply = vec![objects::access(&subject.into, &subject.tenant, settings)];
    let guest = objects::guest(tenant, subject, observed);
    apply.extend(objects::walls(&guest, observed.store_name.as_deref(), settings));
    let keys: Vec<Key> = apply.iter().map(|wanted| wanted.key.clone()).collect();
    apply.extend(plan.apply.into_iter().filter(|wanted| !keys.contains(&wanted.key)));
    Plan { apply, ..plan }
}

/// Why it is not this drill's turn.
fn turn(observed: &Observed, settings: &Settings) -> Option<Plan> {
    let message = match (&observed.before, observed.room) {
        (Some(other), _) => format!("the drill {other} of this tenant comes first"),
        (None, Room::Full(others)) => full(others, settings),
        (None, Room::Free) => return None,
    };
    Some(Plan::waits(DrillReason::NotReached, message, Begun::NotYet))
}

fn full(others: usize, settings: &Settings) -> String {
    format!(
        "{others} drills work, and {} may (the chart's value drills.concurrent)",
        settings.drills.concurrent
    )
}

/// Settles what is drilled, and lays the ground.
fn chooses(run: &Run, subject: &Subject, tenant: &Tenant, observed: &Observed, settings: &Settings) -> Plan {
    let lacks = |message: &str| Plan::ends(DrillReason::CannotRestore, message);
    if tenant.backup.is_none() {
        let message = "the tenant has no spec.backup: there is nothing to drill";
        return Plan::ends(DrillReason::NoBackup, message);
    }
    if !tenant.has_builtin_database() {
        return lacks(
            "the tenant's database is somebody else's server: a drill restores into Valv's own only",
        );
    }
    if observed.policy.is_none() {
        let message = "the tenant's BackupPolicy is not there";
        return Plan::waits(DrillReason::StoreUnavailable, message, Begun::Yes);
    }
    let name = observed.store_name.as_deref().unwrap_or("(none)");
    if let Some(policy) =
        observed.policy.as_deref().filter(|policy| !policy.spec.stores.iter().any(|store| store == name))
    {
        let message = format!(
            "the BackupStore {name} is none of the policy's ({}): nothing of this tenant is read or written there",
            policy.spec.stores.join(", ")
        );
        return Plan::ends(DrillReason::StoreUnavailable, message);
    }
    let Some(store) = &observed.store else {
        let message = format!("the BackupStore {name} is not there");
        return Plan::waits(DrillReason::StoreUnavailable, message, Begun::Yes);
    };
    if !observe::is_ready(store) {
        let message = format!("the BackupStore {name} is not ready: its own condition says why");
        return Plan::waits(DrillReason::StoreUnavailable, message, Begun::Yes);
    }
    if let Some(Err(unresolved)) = &observed.credentials {
        return Plan::waits(DrillReason::StoreUnavailable, unresolved.to_string(), Begun::Yes);
    }
    if let Some(class) = &observed.keeps {
        let message = format!(
            "the storage class {class} keeps the volumes of deleted claims (reclaimPolicy: Retain), so what would be restored could not be taken away again: set the chart's value drills.storageClassName to a class that deletes them"
        );
        return Plan::ends(DrillReason::VolumesKept, message);
    }
    let chosen = match &observed.looked {
        None => return Plan::runs("the store is being asked for its backups"),
        Some(Looked::Trouble(trouble)) => {
            return Plan::waits(trouble.reason, trouble.message.clone(), Begun::Yes);
        }
        Some(Looked::Refused(refusal)) if refusal.reason == DrillReason::CatalogueRolledBack => {
            let verdict =
                verdict(Check::CommitSignature, Outcome::Failed, refusal.reason, refusal.message.clone());
            return Plan::ends_with(vec![Learnt::Verdict(verdict)]);
        }
        Some(Looked::Refused(refusal)) => return Plan::ends(refusal.reason, refusal.message.clone()),
        Some(Looked::Chosen(chosen)) => chosen,
    };
    let ground = match objects::ground(run, subject, tenant, observed, settings, chosen) {
        Ok(ground) => ground,
        Err((reason, message)) => return Plan::ends(reason, message),
    };
    // Of a look whose end was not seen, and which chose otherwise; or somebody else's.
    let wanted = objects::digest_among(&ground).unwrap_or_default();
    if matches!(observed.config, Config::There { .. }) && !observed.config.is(&wanted) {
        let plan = Plan::runs("run files that this drill was not prepared with are being taken away");
        let delete = vec![Key::new(Kind::ConfigMap, CONFIG)];
        return Plan { delete, look_again_after: Some(AT_ONCE), ..plan };
    }
    let namespace = (observed.namespace == NamespaceSeen::Absent)
        .then(|| objects::namespace(run, subject, tenant.archive_id()));
    let message = format!("{} from {} is being prepared", chosen.backup.slot, chosen.backup.store);
    let learnt = vec![Learnt::Chosen(chosen.backup.clone())];
    let step = Step::Runs { message, learnt };
    Plan { namespace, apply: ground, ..Plan::of(step, Some(AT_ONCE)) }
}

/// Waits for the key, and restores.
fn restores(
    run: &Run,
    subject: &Subject,
    tenant: &Tenant,
    observed: &Observed,
    settings: &Settings,
    chosen: &Chosen,
    now: Timestamp,
) -> Plan {
    let stood = stood(run, observed, RESTORE, now);
    if stood == Stood::Absent {
        // The key holder's way in is made after what was chosen was written down: a crash between is caught up here.
        let ground = objects::ground(run, subject, tenant, observed, settings, chosen).unwrap_or_default();
        let ground: Vec<_> = ground.into_iter().filter(|wanted| wanted.key.kind != Kind::ConfigMap).collect();
        let Some(key) = &observed.key else {
            let waits =
                Plan::waits(DrillReason::KeyMissing, key_missing(subject, tenant, settings), Begun::Yes);
            // A person takes hours, and the operator's own steps bring looks of their own.
            let is_soon = settings.keyholder.is_some() && objects::is_unattended(tenant);
            let wait = if is_soon { WHILE_RUNNING } else { WHILE_WAITING };
            return Plan { apply: ground, look_again_after: Some(wait), ..waits };
        };
        // A pod would wait for what is not in it, and hold the place of a tenant.
        if !observe::has_identity(key) {
            let message = format!(
                "the Secret {KEY_SECRET} in {} has no key {KEY_FILE}: delete it, and make it anew: {}",
                subject.into,
                bring_key(subject)
            );
            return Plan { apply: ground, ..Plan::waits(DrillReason::KeyMissing, message, Begun::Yes) };
        }
        if let Room::Full(others) = observed.room {
            let message = format!("the key is there; {}", full(others, settings));
            return Plan { apply: ground, ..Plan::waits(DrillReason::NotReached, message, Begun::Yes) };
        }
        let guest = objects::guest(tenant, subject, observed);
        let Some(job) = objects::restore(run, &guest, observed, settings, left(run, observed, now)) else {
            let message = "the store's credentials are not there";
            return Plan::waits(DrillReason::StoreUnavailable, message, Begun::Yes);
        };
        let apply = ground.into_iter().chain(job).collect();
        let message = format!("{} is being restored", chosen.backup.slot);
        let learnt = vec![Learnt::KeyCame, Learnt::Key(key_use(key, now))];
        let step = Step::Runs { message, learnt };
        return Plan { apply, ..Plan::of(step, Some(WHILE_RUNNING)) };
    }
    match stood {
        Stood::Runs { trouble: None } if has_no_volumes(observed, now) => Plan::runs(format!(
            "the pod that restores has not begun: an image or a volume is late, or the Secret {KEY_SECRET} in {} has no key {KEY_FILE}. If so delete it, and make it anew: {}",
            subject.into,
            bring_key(subject)
        )),
        Stood::Absent | Stood::Runs { trouble: None } => {
            Plan::runs(format!("{} is being restored", chosen.backup.slot))
        }
        Stood::Runs { trouble: Some(why) } => {
            Plan::runs(format!("the pod that restores does not start: {why}"))
        }
        Stood::Silent { how } => {
            Plan::ends(DrillReason::CannotRestore, format!("the agent that restores left no verdict: {how}"))
        }
        Stood::Said { words, times } => match *words {
            DrillWords::Restored(mut restored) => {
                restored.verdicts = verdicts::of(restored.verdicts, &restore::CHECKS);
                let failed = verdicts::failed(&restored.verdicts).is_some();
                let is_whole = verdicts::has(&restored.verdicts, Check::VerifyBackup);
                let learnt = Learnt::Restored(Box::new(restored), times.map(|(started, _)| started));
                if failed {
                    return Plan::ends_with(vec![learnt]);
                }
                if !is_whole {
                    let message = "the agent that restores left no verdict on the extracted files";
                    return Plan::ends(DrillReason::CannotRestore, message);
                }
                let step = Step::Runs { message: "it is restored".to_owned(), learnt: vec![learnt] };
                // Nothing that judges or starts may have them.
                Plan { delete: secrets_that_open(observed), ..Plan::of(step, Some(AT_ONCE)) }
            }
            DrillWords::Failure(failure) => Plan::ends(failure.reason, failure.message),
            DrillWords::Judged(_) => {
                Plan::ends(DrillReason::CannotRestore, "the agent that restores said what another would")
            }
        },
    }
}

/// Whether the pod that restores has had its node and no trouble for a while, and has not begun: a volume of it cannot be
/// mounted, which only events tell of.
fn has_no_volumes(observed: &Observed, now: Timestamp) -> bool {
    let job = observed.objects.get(&Key::new(Kind::Job, RESTORE));
    let made = job.and_then(|job| job.creation_timestamp());
    let is_long = made.is_some_and(|made| now.duration_since(made.0) > MOUNTED_WITHIN);
    is_long && !words::has_begun(&observed.objects, RESTORE)
}

/// Who brought `key`, by its metadata: what it is the operator does not read.
fn key_use(key: &DynamicObject, now: Timestamp) -> KeyUse {
    let is_holders = key.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER);
    let first = key.managed_fields().iter().min_by_key(|entry| entry.time.clone());
    KeyUse {
        by: if is_holders { KeyBringer::KeyHolder } else { KeyBringer::Person },
        brought: key.creation_timestamp().unwrap_or(Time(now)),
        with: first
            .and_then(|entry| entry.manager.clone())
            .map(|manager| manager.chars().take(128).collect()),
    }
}

fn key_missing(subject: &Subject, tenant: &Tenant, settings: &Settings) -> String {
    let by_hand = bring_key(subject);
    match settings.keyholder.as_ref().filter(|_| objects::is_unattended(tenant)) {
        Some(keyholder) => format!(
            "the key holder has not brought the key: is the Secret drill-key-{} in the namespace {}, and does the key holder run there? Or bring it: {by_hand}",
            tenant.archive_id(),
            keyholder.namespace
        ),
        None => format!("it waits for a person with a key that opens the backup (age identity): {by_hand}"),
    }
}

/// How a person brings a key.
fn bring_key(subject: &Subject) -> String {
    format!("kubectl -n {} create secret generic {KEY_SECRET} --from-file={KEY_FILE}=FILE", subject.into)
}

/// The Secrets with which backups could be read and opened.
fn secrets_that_open(observed: &Observed) -> Vec<Key> {
    let store = observed.secrets.contains_key(STORE_SECRET).then_some(STORE_SECRET);
    let key = observed.key.is_some().then_some(KEY_SECRET);
    [store, key].into_iter().flatten().map(|name| Key::new(Kind::Secret, name)).collect()
}

/// Judges, once what opens backups is gone.
fn judges(
    run: &Run,
    subject: &Subject,
    tenant: &Tenant,
    observed: &Observed,
    settings: &Settings,
    now: Timestamp,
) -> Plan {
    let opens = secrets_that_open(observed);
    if !opens.is_empty() {
        let plan = Plan::runs("key and credentials are being taken away");
        return Plan { delete: opens, look_again_after: Some(AT_ONCE), ..plan };
    }
    match stood(run, observed, JUDGE, now) {
        Stood::Absent => {
            let guest = objects::guest(tenant, subject, observed);
            let job = objects::judge(run, &guest, settings, left(run, observed, now));
            Plan { apply: vec![job], ..Plan::runs("it is being judged") }
        }
        Stood::Runs { trouble: None } => Plan::runs("it is being judged"),
        Stood::Runs { trouble: Some(why) } => {
            Plan::runs(format!("the pod that judges does not start: {why}"))
        }
        Stood::Silent { how } => {
            Plan::ends(DrillReason::CannotRestore, format!("the agent that judges left no verdict: {how}"))
        }
        Stood::Said { words, .. } => match *words {
            DrillWords::Judged(mut judged) => {
                judged.verdicts = verdicts::of(judged.verdicts, &judge_checks());
                let failed = verdicts::failed(&judged.verdicts).is_some();
                let is_whole = verdicts::has(&judged.verdicts, Check::DatabaseStarts);
                let learnt = Learnt::Judged(Box::new(judged));
                if failed {
                    return Plan::ends_with(vec![learnt]);
                }
                if !is_whole {
                    let message = "the agent that judges left no verdict on the database";
                    return Plan::ends(DrillReason::CannotRestore, message);
                }
                let step = Step::Runs { message: "it is judged".to_owned(), learnt: vec![learnt] };
                Plan::of(step, Some(AT_ONCE))
            }
            DrillWords::Failure(failure) => Plan::ends(failure.reason, failure.message),
            DrillWords::Restored(_) => {
                Plan::ends(DrillReason::CannotRestore, "the agent that judges said what another would")
            }
        },
    }
}

/// Starts the journal on what was judged.
fn starts(
    run: &Run,
    subject: &Subject,
    tenant: &Tenant,
    observed: &Observed,
    settings: &Settings,
    now: Timestamp,
) -> Plan {
    let guest = objects::guest(tenant, subject, observed);
    let start = journal::start(&guest, observed, settings, now);
    let judged = match stood(run, observed, JUDGE, now) {
        Stood::Said { times, .. } => times.map(|(_, ended)| ended),
        Stood::Absent | Stood::Runs { .. } | Stood::Silent { .. } => None,
    };
    let message = match start.standing {
        Standing::Answers(since) if has_stayed(run, since, now) => {
            let verdict = journal_starts(&guest);
            return Plan::ends_with(vec![Learnt::Answers(since, judged), Learnt::Verdict(verdict)]);
        }
        Standing::Answers(_) => "it answers, and is watched for a moment".to_owned(),
        Standing::Starting(ref message) => message.clone(),
    };
    // The judge's pod may be gone: then since its database was asked for.
    let database = observed.objects.get(&Key::new(Kind::StatefulSet, "database"));
    let begun = judged.or_else(|| Some(database?.creation_timestamp()?.0));
    let limit = settings.drills.journal_limit;
    let (until, learnt) = match start.standing {
        Standing::Answers(since) => (since, vec![Learnt::SeenReady(since)]),
        Standing::Starting(_) => (now, vec![]),
    };
    let is_late = begun.is_some_and(|begun| {
        u64::try_from(measure::seconds(begun, until)).unwrap_or_default() > limit.as_secs()
    });
    if is_late {
        let message = format!("the journal did not answer within {} s: {message}", limit.as_secs());
        let verdict = verdict(Check::JournalStarts, Outcome::Failed, DrillReason::JournalFailed, message);
        return Plan::ends_with(vec![Learnt::Verdict(verdict)]);
    }
    let wait = if start.orders.is_empty() { WHILE_RUNNING } else { AT_ONCE };
    let step = Step::Runs { message: format!("the journal is being started: {message}"), learnt };
    Plan { orders: start.orders, apply: start.apply, ..Plan::of(step, Some(wait)) }
}

/// Whether what is ready `since` then, by its node's clock, has stayed so for a while by the operator's own: the two may
/// differ.
fn has_stayed(run: &Run, since: Timestamp, now: Timestamp) -> bool {
    let seen = run.status().ready.filter(|ready| ready.since.0 == since);
    seen.is_some_and(|ready| now.duration_since(ready.seen.0) >= STAYS_READY)
}

/// What it says that a journal is ready, which depends on what it was asked.
fn journal_starts(guest: &Tenant) -> Verdict {
    let image = &guest.journal.image;
    if guest.journal.probes.ready.is_some() {
        let message = format!("{image} answers its probe on the restored data, and stays ready");
        return verdict(Check::JournalStarts, Outcome::Passed, DrillReason::AsAsked, message);
    }
    let message = format!(
        "{image} has no readiness probe, so only its port was tried: give it one (spec.journal.probes.ready) that asks the database"
    );
    verdict(Check::JournalStarts, Outcome::Warned, DrillReason::NoProbe, message)
}

/// Records the verdict, and takes away what was restored.
fn closes(run: &Run, subject: &Subject, observed: &Observed, settings: &Settings, now: Timestamp) -> Plan {
    let ended = run.ended().unwrap_or(now);
    let is_recorded = check::is_recorded(&run.object);
    let is_torn_down = check::is_torn_down(&run.object);
    let waited = now.duration_since(ended);
    let mut plan = Plan::of(Step::Closes, Some(WHILE_RUNNING));
    if !is_recorded {
        plan.record = Record::Now;
    }
    // Records of patients do not lie about because a store does not answer.
    let is_stopped = run.object.spec.cancel && waited > RECORD_BEFORE_STOP;
    let is_time = is_recorded || is_stopped || waited > RECORD_FIRST || run.is_deleted();
    // And what opens backups not for as much as the record takes.
    let is_time = |left: &&teardown::Left| is_time || !left.secrets.is_empty();
    let left = observed.left.as_ref().filter(|_| !is_torn_down);
    // Before it is time, too: without it nobody sees whether what opens backups is still there.
    if left.is_some_and(|left| left.namespace == NamespaceSeen::Ours) {
        plan.apply = vec![objects::access(&subject.into, &subject.tenant, settings)];
    }
    if let Some(left) = left.filter(is_time) {
        plan.teardown = Some(teardown::next(left, waited));
    }
    if is_torn_down && !is_recorded {
        let is_long_ago = waited > RECORD_SOON;
        plan.look_again_after = Some(if is_long_ago { WHILE_IN_VAIN } else { WHILE_WAITING });
        let patience = if observed.store.is_some() { RECORD_AT_LAST } else { RECORD_WITHOUT_STORE };
        if run.is_deleted() && waited > patience {
            plan.finalizer = Some(Finalizer::Absent);
        }
    }
    plan
}

/// The phase that ends when the agent that restores starts, less the seconds that it `waited` for its key.
pub fn preparation(began: Timestamp, started: Timestamp, waited: i64) -> PhaseTime {
    let PhaseTime { phase, seconds } = measure::phase(Phase::Prepare, began, started);
    PhaseTime { phase, seconds: (seconds - waited).max(0) }
}

#[cfg(test)]
mod tests;
