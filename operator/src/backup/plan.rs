//! Decides a backup's next step. Pure.
//!
//! What is decided is written into the status first and done when it stands there: so a crash between the two, a pod
//! that is gone, or an answer that was lost changes nothing.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use valv_crds::{
    BackupPolicy,
    backup::{self, BackupReason, Order, Origin},
    protection::Protection,
    store::StoreCondition,
};

use super::{
    attempt::{self, Standing},
    check::{Run, Subject},
    commission::{Commission, Search},
    names::Part,
    objects,
    observe::{self, Observed, TenantSeen},
    sighting::{JobSeen, Sighting},
};
use crate::{
    agent::last_words::{Failure, Taken, Verified},
    backoff,
    policy::slots,
    residency,
    settings::Settings,
    store::check::Store,
    tenant::check::Tenant,
};

/// Between two looks at a run that is under way. A look reads what is in memory.
const WHILE_RUNNING: Duration = Duration::from_secs(2);

/// After something was written down: the next look acts on it.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Between two looks at one that waits for something that somebody does.
const WHILE_WAITING: Duration = Duration::from_secs(15);

/// A slot that lies further in the future than this is a mistake, and not a clock that is ahead.
const FURTHEST_AHEAD: SignedDuration = SignedDuration::from_hours(6);

/// How long one that never began may wait where no policy says how long a run may take.
const WITHOUT_POLICY: SignedDuration = SignedDuration::from_hours(24);

/// Backups by hand of one tenant that may wait or run at once.
const MOST_BY_HAND: usize = 3;

/// How long a commit is tried at least, after what is to be committed was read back.
const COMMIT_FOR: SignedDuration = SignedDuration::from_hours(24);

/// What is done now.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the status says of it.
    pub step: Step,
    /// What has served, and goes.
    pub sweep: Vec<Swept>,
    /// When to look again; absent: when something changes.
    pub look_again_after: Option<Duration>,
}

/// What goes, of one Job and what was made for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Swept {
    /// Whose.
    pub part: Part,
    /// What becomes of the Job.
    pub job: SweptJob,
}

/// What becomes of a Job.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SweptJob {
    /// The status names none. One may have been made all the same, and its answer lost: then it is stopped, by its name.
    Unknown,
    /// It is stopped: its UID.
    Stopped(String),
    /// It stays for a day, for whoever asks what happened: its UID.
    Expires(String),
}

/// Where a backup stands.
#[derive(Clone, Debug)]
pub enum Step {
    /// It is over.
    Over,
    /// It comes to its turn later.
    Waits {
        /// Why.
        reason: BackupReason,
        /// In a sentence.
        message: String,
    },
    /// It is given up, unless the archive has its commit.
    GivesUp {
        /// Why.
        reason: BackupReason,
        /// In a sentence.
        message: String,
        /// What is looked for before; absent: nothing can be there.
        search: Option<Box<Search>>,
    },
    /// An attempt is begun: the archive is looked at, and then it is written down.
    Begins {
        /// Its number.
        number: i32,
        /// With what.
        order: Order,
        /// Until when, from now on, all of it may take.
        deadline: Duration,
        /// What is looked at in the archive.
        search: Box<Search>,
    },
    /// What was begun gets its objects.
    Makes(Part),
    /// A Job runs.
    Runs {
        /// Which.
        part: Part,
    },
    /// Something is written down.
    Notes(Note),
    /// Something failed, and is done again.
    Retries {
        /// What failed.
        failure: backup::AttemptFailure,
        /// The number of the attempt that failed.
        number: i32,
        /// In how long it is done again.
        after: Duration,
    },
    /// What was written was read back: the operator looks at the manifest itself, and commits.
    Commits {
        /// What.
        commission: Box<Commission>,
        /// Until when it is tried.
        until: Timestamp,
    },
}

/// What is written down, and nothing else done.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// What the agent wrote.
    Wrote {
        /// UID of its pod.
        pod: String,
        /// What it says.
        taken: Taken,
    },
    /// The attempt failed.
    Failed(Failure),
    /// A reading begins.
    Reads {
        /// The how manieth.
        reading: i32,
    },
    /// What the reading pod saw.
    Read(Verified),
    /// The reading failed.
    NotRead(Failure),
}

/// All that a backup needs, once all of it is there.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// Whose.
    pub tenant: &'a Tenant,
    /// What the tenant asks for.
    pub protection: &'a Protection,
    /// By which policy.
    pub policy: &'a BackupPolicy,
    /// Where to.
    pub store: &'a Store,
}

/// The plan for `run` at `now`.
pub fn plan(run: &Run, observed: &Observed, settings: &Settings, now: Timestamp) -> Plan {
    if observe::is_over(&run.object) {
        return Plan { step: Step::Over, sweep: vec![], look_again_after: None };
    }
    let subject = match &run.subject {
        Ok(subject) => subject,
        Err(invalid) => return gives_up(run, observed, None, invalid.reason(), invalid.to_string()),
    };
    let status = run.object.status.as_ref();
    let attempt = status.and_then(|status| status.attempt.as_ref());
    let standing = attempt
        .map(|attempt| (attempt, attempt::standing(attempt, &observed.writing, &observed.reading, now)));
    if run.object.metadata.deletion_timestamp.is_some() {
        return Plan { step: Step::Over, sweep: leftovers(run, observed), look_again_after: None };
    }
    if run.object.spec.cancel {
        let message = "spec.cancel was set; what it had written is garbage that the janitor finds";
        return gives_up(run, observed, Some(subject), BackupReason::Cancelled, message.to_owned());
    }
    // Before the deadline: what needs only its commit is not thrown away.
    if let Some((attempt, Standing::ReadBack)) = &standing {
        return commits(run, observed, subject, attempt, now);
    }
    let deadline = status.and_then(|status| status.deadline.as_ref()).map(|deadline| deadline.0);
    if let Some(deadline) = deadline.filter(|deadline| now >= *deadline) {
        let why = last_failure(attempt).map_or_else(String::new, |why| format!("; at last: {why}"));
        let message = format!("it did not end by its deadline {deadline}{why}");
        return gives_up(run, observed, Some(subject), BackupReason::DeadlineExceeded, message);
    }
    if let Some(obstacle) = lasting(observed) {
        return gives_up(run, observed, Some(subject), obstacle.reason, obstacle.message);
    }
    match standing {
        None => first(run, observed, subject, settings, now),
        Some((attempt, standing)) => goes_on(run, observed, settings, subject, attempt, standing, now),
    }
}

fn last_failure(attempt: Option<&backup::Attempt>) -> Option<String> {
    let attempt = attempt?;
    let reading = attempt.reading.as_ref().and_then(|reading| reading.failed.as_ref());
    attempt.failed.as_ref().or(reading).map(|failure| format!("{:?}: {}", failure.reason, failure.message))
}

/// Begins the first attempt, when it is this backup's turn.
fn first(run: &Run, observed: &Observed, subject: &Subject, settings: &Settings, now: Timestamp) -> Plan {
    let slot = subject.slot.time();
    let is_manual = run.object.spec.origin == Origin::Manual;
    if is_manual && observed.by_hand_before >= MOST_BY_HAND {
        let message = format!(
            "{} backups by hand of this tenant wait or run already, and {MOST_BY_HAND} may: delete it, and ask again when one of them is over",
            observed.by_hand_before
        );
        return gives_up(run, observed, Some(subject), BackupReason::TooManyByHand, message);
    }
    if let Some(newer) = &observed.newer {
        let message = format!("it never began, and {newer} is newer: the newest slot is what is caught up");
        return gives_up(run, observed, Some(subject), BackupReason::Missed, message);
    }
    if slot > now && !is_manual {
        let ahead = slot.duration_since(now);
        let message = format!("its slot {} lies in the future", subject.slot);
        if ahead > FURTHEST_AHEAD {
            return gives_up(run, observed, Some(subject), BackupReason::SlotInFuture, message);
        }
        return waits(Obstacle::passing(BackupReason::SlotInFuture, message));
    }
    let policy = observed.policy.as_deref();
    let most = policy.map_or(WITHOUT_POLICY, |policy| {
        // A turn comes anywhere in the window after the slot.
        let Span { window, deadline } = spans(policy);
        window.saturating_add(deadline)
    });
    // A migration waits for its backup, whatever comes in between: a store that is away for a day takes nobody's hand.
    let is_waited_for = run.object.spec.origin == Origin::BeforeMigration;
    let since = due_since(run, observed, subject, now);
    let begun_by = since.saturating_add(most).ok().filter(|_| !is_waited_for).unwrap_or(Timestamp::MAX);
    if now >= begun_by {
        let message = match setup(observed, settings) {
            Err(obstacle) => format!("it did not begin by {begun_by}: {}", obstacle.message),
            Ok(_) => format!("it did not begin by {begun_by}: others ran"),
        };
        return gives_up(run, observed, Some(subject), BackupReason::Missed, message);
    }
    let setup = match setup(observed, settings) {
        Ok(setup) => setup,
        Err(obstacle) => return waits(obstacle),
    };
    if let Some(other) = &observed.before {
        let message = format!("the backup {other} of this tenant comes first");
        return waits(Obstacle::passing(BackupReason::WaitingForTurn, message));
    }
    begin(run, observed, subject, &setup, 1)
}

/// Since when a backup could have begun: since its slot; or, of one that is caught up, since it was made. So an outage takes
/// nothing of its time.
fn due_since(run: &Run, observed: &Observed, subject: &Subject, now: Timestamp) -> Timestamp {
    let slot = subject.slot.time();
    let tenant = observed.tenant.there();
    let status = tenant.and_then(|tenant| tenant.object.status.as_ref()?.backup.as_ref());
    let taken_on = status.and_then(|status| status.last_slot).filter(|last| slots::has_come(*last, now));
    // One that is made again, when newer slots were taken on long since, is not what is caught up.
    let is_outdated = taken_on.is_some_and(|last| last > subject.slot);
    let made = run.object.metadata.creation_timestamp.as_ref().filter(|_| !is_outdated);
    made.map_or(slot, |made| made.0.max(slot))
}

struct Span {
    window: SignedDuration,
    deadline: SignedDuration,
}

fn spans(policy: &BackupPolicy) -> Span {
    let signed =
        |span: valv_crds::units::Span| SignedDuration::try_from(span.duration()).unwrap_or(WITHOUT_POLICY);
    let schedule = &policy.spec.schedule;
    Span { window: signed(schedule.window), deadline: signed(schedule.deadline) }
}

fn begin(run: &Run, observed: &Observed, subject: &Subject, setup: &Setup<'_>, number: i32) -> Plan {
    let order = match objects::order(setup, subject.slot.time()) {
        Ok(order) => order,
        Err(failure) => return gives_up(run, observed, Some(subject), failure.reason, failure.message),
    };
    let search = match Search::of(run, subject, setup.tenant, setup.store) {
        Ok(search) => Box::new(search),
        Err(failure) => return gives_up(run, observed, Some(subject), failure.reason, failure.message),
    };
    let deadline = setup.policy.spec.schedule.deadline.duration();
    // What an attempt before left.
    let sweep = if number > 1 { leftovers(run, observed) } else { vec![] };
    Plan { step: Step::Begins { number, order, deadline, search }, sweep, look_again_after: Some(AT_ONCE) }
}

fn goes_on(
    run: &Run,
    observed: &Observed,
    settings: &Settings,
    subject: &Subject,
    attempt: &backup::Attempt,
    standing: Standing,
    now: Timestamp,
) -> Plan {
    let number = attempt.number;
    let write = Part::Write { number };
    let read =
        Part::ReadBack { number, reading: attempt.reading.as_ref().map_or(1, |reading| reading.number) };
    let does = |step: Step, look_again_after: Duration| Plan {
        step,
        sweep: vec![],
        look_again_after: Some(look_again_after),
    };
    let notes = |note: Note| does(Step::Notes(note), AT_ONCE);
    match standing {
        // Handled before the deadline.
        Standing::ReadBack => commits(run, observed, subject, attempt, now),
        Standing::Writing => does(Step::Runs { part: write }, WHILE_RUNNING),
        Standing::Reading => does(Step::Runs { part: read }, WHILE_RUNNING),
        Standing::HasWritten { pod, taken } => Plan {
            sweep: swept(write, attempt.job.as_ref(), Ends::WithIt),
            ..notes(Note::Wrote { pod, taken })
        },
        Standing::HasRead(verified) => {
            Plan { sweep: swept(read, reading_job(attempt), Ends::WithIt), ..notes(Note::Read(verified)) }
        }
        Standing::HasFailed(failure) => {
            Plan { sweep: leftovers(run, observed), ..notes(Note::Failed(failure)) }
        }
        Standing::HasNotRead(failure) => {
            Plan { sweep: leftovers(run, observed), ..notes(Note::NotRead(failure)) }
        }
        Standing::ToWrite | Standing::ToBeRead { .. } | Standing::ToRead => {
            let setup = match setup(observed, settings) {
                Ok(setup) => setup,
                Err(obstacle) => return waits(obstacle),
            };
            if let Some(what) = changed(attempt, &setup) {
                let failure = Failure { reason: BackupReason::SetupChanged, message: what };
                return Plan { sweep: leftovers(run, observed), ..notes(Note::Failed(failure)) };
            }
            if let Standing::ToBeRead { reading } = standing {
                return notes(Note::Reads { reading });
            }
            does(Step::Makes(if standing == Standing::ToWrite { write } else { read }), AT_ONCE)
        }
        Standing::NotRead { reading, failure } => {
            retries(run, observed, settings, subject, attempt, &failure, reading, now)
        }
        Standing::Failed(failure) => {
            retries(run, observed, settings, subject, attempt, &failure, number, now)
        }
    }
}

/// Does again what failed for the `times`-th time, when it has waited: the reading alone, or all of it.
#[expect(clippy::too_many_arguments, reason = "all of them are what a decision rests on")]
fn retries(
    run: &Run,
    observed: &Observed,
    settings: &Settings,
    subject: &Subject,
    attempt: &backup::Attempt,
    failure: &backup::AttemptFailure,
    times: i32,
    now: Timestamp,
) -> Plan {
    use BackupReason as Why;
    let setup = match setup(observed, settings) {
        Ok(setup) => setup,
        Err(obstacle) => return waits(obstacle),
    };
    let is_of_setup = failure.reason == Why::SetupChanged;
    // Another attempt would find the same.
    let is_final = matches!(failure.reason, Why::DatabaseDiffers | Why::TooFewRecipients);
    if is_final || (!is_of_setup && times > setup.policy.spec.retries) {
        return gives_up(run, observed, Some(subject), failure.reason, failure.message.clone());
    }
    // Ten times as long as other things wait: what an attempt needs takes minutes to be mended.
    let wait =
        if is_of_setup { Duration::ZERO } else { 10 * backoff::wait(u32::try_from(times).unwrap_or(1), 0.5) };
    let since = Duration::try_from(now.duration_since(failure.at.0)).unwrap_or_default();
    if let Some(after) = wait.checked_sub(since).filter(|left| !left.is_zero()) {
        let step = Step::Retries { failure: failure.clone(), number: attempt.number, after };
        return Plan { step, sweep: vec![], look_again_after: Some(after) };
    }
    if attempt.failed.is_none() {
        let note = Note::Reads { reading: times.saturating_add(1) };
        return Plan { step: Step::Notes(note), sweep: vec![], look_again_after: Some(AT_ONCE) };
    }
    begin(run, observed, subject, &setup, attempt.number.saturating_add(1))
}

/// What is asked for now that the attempt was not begun with.
fn changed(attempt: &backup::Attempt, setup: &Setup<'_>) -> Option<String> {
    let ordered = attempt.order.as_ref()?;
    let recipients = objects::recipients(setup).ok()?;
    let first = setup.policy.spec.stores.first();
    let what = if first != Some(&ordered.store) {
        "the policy's first store is another"
    } else if recipients != ordered.recipients {
        "the tenant's recipients are others"
    } else if setup.tenant.attachments.is_some() != ordered.attachments {
        "the tenant got attachments, or has them no more"
    } else {
        return None;
    };
    Some(format!("{what} than when attempt {} began", attempt.number))
}

/// Commits what was read back, whatever the deadline says, as long as there is a tenant and a store.
fn commits(
    run: &Run,
    observed: &Observed,
    subject: &Subject,
    attempt: &backup::Attempt,
    now: Timestamp,
) -> Plan {
    let status = run.object.status.as_ref();
    let deadline = status.and_then(|status| status.deadline.as_ref()).map(|deadline| deadline.0);
    let read = attempt.reading.as_ref().and_then(|reading| reading.verified.as_ref()).map(|read| read.at.0);
    let read = read.unwrap_or(now).saturating_add(COMMIT_FOR).unwrap_or(Timestamp::MAX);
    let until = deadline.map_or(read, |deadline| deadline.max(read));
    let (tenant, protection, store) = match essentials(observed) {
        Ok(needed) => needed,
        Err(obstacle) if obstacle.is_final || now >= until => {
            return gives_up(run, observed, Some(subject), obstacle.reason, obstacle.message);
        }
        Err(obstacle) => return waits(obstacle),
    };
    // For others than now asked for: made anew, as long as there is time. Later it is better than none.
    if let Some(policy) = observed.policy.as_deref()
        && let Some(what) = changed(attempt, &Setup { tenant, protection, policy, store })
        && deadline.is_none_or(|deadline| now < deadline)
    {
        let failure = Failure { reason: BackupReason::SetupChanged, message: what };
        let step = Step::Notes(Note::Failed(failure));
        return Plan { step, sweep: leftovers(run, observed), look_again_after: Some(AT_ONCE) };
    }
    match Commission::of(run, subject, tenant, store, attempt, now) {
        Ok(commission) => Plan {
            step: Step::Commits { commission: Box::new(commission), until },
            sweep: leftovers(run, observed),
            look_again_after: Some(WHILE_RUNNING),
        },
        Err(failure) => Plan {
            step: Step::Notes(Note::Failed(failure)),
            sweep: leftovers(run, observed),
            look_again_after: Some(AT_ONCE),
        },
    }
}

/// What keeps a backup from being begun.
#[derive(Clone, Debug, PartialEq)]
struct Obstacle {
    reason: BackupReason,
    message: String,
    is_final: bool,
}

impl Obstacle {
    fn passing(reason: BackupReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), is_final: false }
    }

    fn lasting(reason: BackupReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), is_final: true }
    }
}

/// What keeps a backup from being made for good, and stops one that runs.
fn lasting(observed: &Observed) -> Option<Obstacle> {
    let not_a_tenant = |message: &str| Some(Obstacle::lasting(BackupReason::NotATenant, message));
    let tenant = match &observed.tenant {
        TenantSeen::Absent => return not_a_tenant("this namespace's tenant is not there"),
        TenantSeen::Unknown | TenantSeen::Unreadable(_) => return None,
        TenantSeen::There(tenant) => tenant,
    };
    if tenant.object.metadata.deletion_timestamp.is_some() {
        return not_a_tenant("the tenant is being deleted");
    }
    if tenant.backup.is_none() {
        return not_a_tenant("the tenant has no spec.backup: it asks for no backups");
    }
    let message = "the tenant is suspended: its database does not run";
    tenant.suspended.then(|| Obstacle::lasting(BackupReason::TenantSuspended, message))
}

/// Whose backup it is and where it goes, or the first thing that is not there.
fn essentials(observed: &Observed) -> Result<(&Tenant, &Protection, &Store), Obstacle> {
    use BackupReason as Why;
    let tenant = match &observed.tenant {
        TenantSeen::There(tenant) => tenant,
        TenantSeen::Absent => {
            return Err(Obstacle::lasting(Why::NotATenant, "this namespace's tenant is not there"));
        }
        TenantSeen::Unknown => return Err(Obstacle::passing(Why::NotATenant, "the tenant is not known yet")),
        TenantSeen::Unreadable(why) => {
            return Err(Obstacle::passing(Why::NotATenant, format!("the tenant cannot be read: {why}")));
        }
    };
    let protection = tenant.backup.as_ref();
    let protection = protection.ok_or_else(|| {
        Obstacle::lasting(Why::NotATenant, "the tenant has no spec.backup: it asks for no backups")
    })?;
    let store = observed.store.as_ref().ok_or_else(|| match observed.policy.as_deref() {
        None => Obstacle::passing(
            Why::PolicyMissing,
            format!("the BackupPolicy {} is not there", protection.policy),
        ),
        Some(policy) => {
            let first = policy.spec.stores.first().map_or("", String::as_str);
            Obstacle::passing(Why::StoreNotReady, format!("the BackupStore {first} is not there"))
        }
    })?;
    Ok((tenant, protection, store))
}

/// All that a backup needs, or the first thing that is not there.
fn setup<'a>(observed: &'a Observed, settings: &Settings) -> Result<Setup<'a>, Obstacle> {
    use BackupReason as Why;
    if let Some(obstacle) = lasting(observed) {
        return Err(obstacle);
    }
    let (tenant, protection, store) = essentials(observed)?;
    let policy = observed.policy.as_deref().ok_or_else(|| {
        Obstacle::passing(Why::PolicyMissing, format!("the BackupPolicy {} is not there", protection.policy))
    })?;
    if let Some(rival) = &observed.rival {
        let message = format!(
            "the tenant {rival}, which is older, has the archive {}: give this one another spec.archiveID",
            tenant.archive_id()
        );
        return Err(Obstacle::passing(Why::ArchiveTaken, message));
    }
    residency::may_lie_in(&store.name, &store.location, policy, settings.location.as_ref())
        .map_err(|refused| Obstacle::passing(refused.reason(), refused.to_string()))?;
    let status = store.object.status.as_ref();
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let seen = status.and_then(|status| status.observed_generation);
    let ready = format!("{:?}", StoreCondition::Ready);
    if let Some(why) = not_ready(conditions, &ready, seen, store.object.metadata.generation) {
        let message = format!("the BackupStore {} is not ready: {why}", store.name);
        return Err(Obstacle::passing(Why::StoreNotReady, message));
    }
    // That a store for copies is away is no reason to have no backup.
    residency::may_be_followed(policy)
        .map_err(|refused| Obstacle::passing(refused.reason(), refused.to_string()))?;
    Ok(Setup { tenant, protection, policy, store })
}

/// Why an object of `generation` cannot be used: its own condition's words.
fn not_ready(
    conditions: &[Condition],
    ready: &str,
    observed: Option<i64>,
    generation: Option<i64>,
) -> Option<String> {
    let ready = conditions.iter().find(|condition| condition.type_ == ready);
    let is_current = observed == generation;
    match ready {
        Some(ready) if ready.status == "True" && is_current => None,
        Some(ready) if is_current => Some(ready.message.clone()),
        Some(_) => Some("it was changed, and not looked at since".to_owned()),
        None => Some("it was not looked at yet".to_owned()),
    }
}

fn waits(obstacle: Obstacle) -> Plan {
    Plan {
        step: Step::Waits { reason: obstacle.reason, message: obstacle.message },
        sweep: vec![],
        look_again_after: Some(WHILE_WAITING),
    }
}

/// Gives up. Where an attempt may have been committed, the archive is asked first.
fn gives_up(
    run: &Run,
    observed: &Observed,
    subject: Option<&Subject>,
    reason: BackupReason,
    message: String,
) -> Plan {
    let attempt = run.object.status.as_ref().and_then(|status| status.attempt.as_ref());
    let search = subject.filter(|_| attempt.is_some()).and_then(|subject| {
        let tenant = observed.tenant.there()?;
        Search::of(run, subject, tenant, observed.store.as_ref()?).ok()
    });
    Plan {
        step: Step::GivesUp { reason, message, search: search.map(Box::new) },
        sweep: leftovers(run, observed),
        look_again_after: None,
    }
}

/// How a Job that is swept stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ends {
    /// It is over, or about to be.
    WithIt,
    /// It runs.
    Stopped,
}

fn swept(part: Part, job: Option<&String>, ends: Ends) -> Vec<Swept> {
    let job = job.map_or(SweptJob::Unknown, |uid| match ends {
        Ends::WithIt => SweptJob::Expires(uid.clone()),
        Ends::Stopped => SweptJob::Stopped(uid.clone()),
    });
    vec![Swept { part, job }]
}

fn reading_job(attempt: &backup::Attempt) -> Option<&String> {
    attempt.reading.as_ref().and_then(|reading| reading.job.as_ref())
}

/// What the attempt needs no more: by its names, whatever is known of the tenant. Jobs that still run are stopped;
/// what has ended stays for a day.
fn leftovers(run: &Run, observed: &Observed) -> Vec<Swept> {
    let Some(attempt) = run.object.status.as_ref().and_then(|status| status.attempt.as_ref()) else {
        return vec![];
    };
    let ends = |seen: &Sighting, is_recorded: bool| {
        let has_ended = matches!(seen.job, JobSeen::Succeeded | JobSeen::Failed)
            || seen.pod.as_ref().is_some_and(|pod| pod.end.is_some());
        if is_recorded || has_ended { Ends::WithIt } else { Ends::Stopped }
    };
    let number = attempt.number;
    let has_written = attempt.wrote.is_some();
    let mut all = swept(Part::Write { number }, attempt.job.as_ref(), ends(&observed.writing, has_written));
    if let Some(reading) = &attempt.reading {
        let part = Part::ReadBack { number, reading: reading.number };
        let is_recorded = reading.verified.is_some() || reading.failed.is_some();
        all.extend(swept(part, reading.job.as_ref(), ends(&observed.reading, is_recorded)));
    }
    all
}

#[cfg(test)]
#[path = "simulation.rs"]
mod simulation;
