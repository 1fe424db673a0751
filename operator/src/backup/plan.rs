//! Decides a backup's next step. Pure.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use valv_crds::{
    BackupPolicy, backup::BackupReason, policy::VerificationMode, protection::Protection,
    store::StoreCondition,
};

use super::{
    attempt::{self, Attempt, Standing},
    check::{Run, Subject},
    commission::Commission,
    objects::{self, ReadBack},
    observe::{self, Observed},
};
use crate::{
    agent::last_words::Failure,
    backoff,
    io::kind::{Key, Kind},
    settings::Settings,
    store::check::Store,
    tenant::{check::Tenant, objects::Wanted},
};

/// Between two looks at a run that is under way. A look reads what is in memory, and three Secrets.
const WHILE_RUNNING: Duration = Duration::from_secs(2);

/// Between two looks at one that waits for something that somebody does.
const WHILE_WAITING: Duration = Duration::from_secs(15);

/// What is done now.
#[derive(Debug)]
pub struct Plan {
    /// What the status says of it.
    pub step: Step,
    /// Objects to make, in this order.
    pub apply: Vec<Wanted>,
    /// Objects that have served.
    pub delete: Vec<Key>,
    /// When to look again; absent: when something changes.
    pub look_again_after: Option<Duration>,
}

/// Where a backup stands.
#[derive(Debug)]
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
    /// It is given up.
    Fails {
        /// Why.
        reason: BackupReason,
        /// In a sentence.
        message: String,
        /// The attempt that was the last.
        number: Option<i32>,
    },
    /// An attempt is under way.
    Runs(Attempt),
    /// An attempt failed, and the next one comes.
    Retries {
        /// The attempt that failed.
        attempt: Attempt,
        /// How.
        failure: Failure,
        /// In how long the next one comes.
        after: Duration,
    },
    /// What was written was read back: the operator looks at the manifest itself, and commits.
    Commits(Box<Commission>),
}

/// All that a backup needs, once all of it is there.
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
        return Plan { step: Step::Over, apply: vec![], delete: vec![], look_again_after: None };
    }
    let subject = match &run.subject {
        Ok(subject) => subject,
        Err(invalid) => return fails(run, observed, None, invalid.reason(), invalid.to_string()),
    };
    let newest = attempt::newest(observed, &run.uid(), subject.slot);
    let number = newest.as_ref().map(|attempt| attempt.number);
    if run.object.spec.cancel {
        let message = "spec.cancel was set; what it had written is garbage that the janitor finds";
        return fails(run, observed, number, BackupReason::Cancelled, message.to_owned());
    }
    if subject.slot.time() > now {
        let message = format!("its slot {} lies in the future", subject.slot);
        return fails(run, observed, number, BackupReason::SlotInFuture, message);
    }
    let setup = match setup(observed) {
        Ok(setup) => setup,
        Err(obstacle) if obstacle.is_final => {
            return fails(run, observed, number, obstacle.reason, obstacle.message);
        }
        Err(obstacle) => return waits(obstacle),
    };
    let began = run.object.status.as_ref().and_then(|status| status.started.clone()).map(|time| time.0);
    let deadline = setup.policy.spec.schedule.deadline.duration();
    if let Some(began) =
        began.filter(|began| now.duration_since(*began).unsigned_abs() > deadline && now > *began)
    {
        let message = format!("it was begun at {began} and did not end within {} s", deadline.as_secs());
        return fails(run, observed, number, BackupReason::DeadlineExceeded, message);
    }
    let Some(attempt) = newest else { return first(run, observed, settings, subject, &setup) };
    goes_on(run, observed, settings, subject, &setup, attempt, now)
}

/// Begins the first attempt, when it is this backup's turn.
fn first(run: &Run, observed: &Observed, settings: &Settings, subject: &Subject, setup: &Setup<'_>) -> Plan {
    if let Some(other) = &observed.before {
        let message = format!("the backup {other} of this tenant comes first");
        return waits(Obstacle::passing(BackupReason::WaitingForTurn, message));
    }
    let most = setup.store.limits.concurrent_backups;
    if observed.running >= most {
        let message = format!("{} backups run, and {most} may", observed.running);
        return waits(Obstacle::passing(BackupReason::AtLimit, message));
    }
    begin(run, observed, settings, subject, setup, 1)
}

fn begin(
    run: &Run,
    observed: &Observed,
    settings: &Settings,
    subject: &Subject,
    setup: &Setup<'_>,
    number: i32,
) -> Plan {
    let attempt = Attempt { number, standing: Standing::Writing { pod: None } };
    match objects::write(run, subject, setup, observed, settings, number) {
        Ok(apply) => {
            Plan { step: Step::Runs(attempt), apply, delete: vec![], look_again_after: Some(WHILE_RUNNING) }
        }
        Err(failure) => fails(run, observed, Some(number), failure.reason, failure.message),
    }
}

fn goes_on(
    run: &Run,
    observed: &Observed,
    settings: &Settings,
    subject: &Subject,
    setup: &Setup<'_>,
    attempt: Attempt,
    now: Timestamp,
) -> Plan {
    let runs = |attempt: Attempt, apply: Vec<Wanted>| Plan {
        step: Step::Runs(attempt),
        apply,
        delete: vec![],
        look_again_after: Some(WHILE_RUNNING),
    };
    match &attempt.standing {
        Standing::Writing { .. } | Standing::ReadingBack { .. } => runs(attempt, vec![]),
        Standing::Written { taken, .. } => {
            let order =
                ReadBack { number: attempt.number, manifest: &taken.manifest, depth: depth(setup.policy) };
            match objects::read_back(run, subject, setup, observed, settings, &order) {
                Ok(apply) => runs(attempt, apply),
                Err(failure) => fails(run, observed, Some(attempt.number), failure.reason, failure.message),
            }
        }
        Standing::ReadBack { pod, taken, verified } => {
            let commission = Commission::of(run, subject, setup, pod, taken, verified);
            match commission {
                Ok(commission) => Plan {
                    step: Step::Commits(Box::new(commission)),
                    apply: vec![],
                    delete: leftovers(run, observed),
                    look_again_after: Some(WHILE_RUNNING),
                },
                Err(failure) => fails(run, observed, Some(attempt.number), failure.reason, failure.message),
            }
        }
        Standing::Failed { failure, at } => {
            let failure = failure.clone();
            if attempt.number > setup.policy.spec.retries {
                return fails(run, observed, Some(attempt.number), failure.reason, failure.message);
            }
            // Ten times as long as other things wait: what an attempt needs takes minutes to be mended.
            let wait = 10 * backoff::wait(u32::try_from(attempt.number).unwrap_or(1), 0.5);
            let since = at.map_or(Duration::ZERO, |at| now.duration_since(at).unsigned_abs());
            match wait.checked_sub(since).filter(|left| !left.is_zero()) {
                None => begin(run, observed, settings, subject, setup, attempt.number + 1),
                Some(after) => Plan {
                    step: Step::Retries { attempt, failure, after },
                    apply: vec![],
                    delete: vec![],
                    look_again_after: Some(after),
                },
            }
        }
    }
}

/// How much is read back, in the agent's words. What a sample is drawn with is chance, and drawn in the pod that reads:
/// whoever wrote could not know it.
fn depth(policy: &BackupPolicy) -> String {
    let verification = policy.spec.verification;
    match verification.mode {
        VerificationMode::Full => "full".to_owned(),
        VerificationMode::Metadata => "metadata".to_owned(),
        VerificationMode::Sample => {
            format!("sample:{}", verification.segments.unwrap_or(valv_crds::policy::Verification::SAMPLE))
        }
    }
}

/// What keeps a backup from being begun.
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

/// All that a backup needs, or the first thing that is not there.
fn setup(observed: &Observed) -> Result<Setup<'_>, Obstacle> {
    use BackupReason as Why;
    let tenant = observed.tenant.as_ref();
    let tenant =
        tenant.ok_or_else(|| Obstacle::lasting(Why::NotATenant, "this namespace's tenant is not there"))?;
    let protection = tenant.backup.as_ref();
    let protection = protection.ok_or_else(|| {
        Obstacle::lasting(Why::NotATenant, "the tenant has no spec.backup: it asks for no backups")
    })?;
    if tenant.suspended {
        return Err(Obstacle::lasting(
            Why::TenantSuspended,
            "the tenant is suspended: its database does not run",
        ));
    }
    let policy = observed.policy.as_deref().ok_or_else(|| {
        Obstacle::passing(Why::PolicyMissing, format!("the BackupPolicy {} is not there", protection.policy))
    })?;
    let store = observed.store.as_ref().ok_or_else(|| {
        let first = policy.spec.stores.first().map_or("", String::as_str);
        Obstacle::passing(Why::StoreNotReady, format!("the BackupStore {first} is not there"))
    })?;
    let conditions =
        store.object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == format!("{:?}", StoreCondition::Ready));
    let is_current = store.object.status.as_ref().and_then(|status| status.observed_generation)
        == store.object.metadata.generation;
    if ready.is_none_or(|ready| ready.status != "True") || !is_current {
        let why = ready.map_or_else(|| "it was not probed yet".to_owned(), |ready| ready.message.clone());
        let message = format!("the BackupStore {} is not ready: {why}", store.name);
        return Err(Obstacle::passing(Why::StoreNotReady, message));
    }
    match &observed.credentials {
        Some(Ok(_)) => Ok(Setup { tenant, protection, policy, store }),
        Some(Err(unresolved)) => Err(Obstacle::passing(Why::StoreNotReady, unresolved.to_string())),
        None => Err(Obstacle::passing(Why::StoreNotReady, "its credentials were not looked at yet")),
    }
}

fn waits(obstacle: Obstacle) -> Plan {
    Plan {
        step: Step::Waits { reason: obstacle.reason, message: obstacle.message },
        apply: vec![],
        delete: vec![],
        look_again_after: Some(WHILE_WAITING),
    }
}

fn fails(run: &Run, observed: &Observed, number: Option<i32>, reason: BackupReason, message: String) -> Plan {
    Plan {
        step: Step::Fails { reason, message, number },
        apply: vec![],
        delete: leftovers(run, observed),
        look_again_after: None,
    }
}

/// What a backup that is over needs no more: its Secrets with the store's credentials, and a Job that still runs.
/// What has ended stays with the `Backup`, for whoever asks what happened.
fn leftovers(run: &Run, observed: &Observed) -> Vec<Key> {
    let Ok(subject) = &run.subject else { return vec![] };
    let secrets =
        objects::secret_names(subject.slot).into_iter().filter(|name| observed.secrets.contains_key(name));
    let uid = run.uid();
    let jobs = observed
        .all(Kind::Job)
        .filter(|job| job.labels().get(attempt::BACKUP_LABEL) == Some(&uid))
        .filter(|job| observed.job(&job.name_any()) == attempt::JobSeen::Active)
        .map(|job| Key::new(Kind::Job, job.name_any()));
    secrets.map(|name| Key::new(Kind::Secret, name)).chain(jobs).collect()
}
