//! Tells how a backup stands. [`status`] is pure, [`tell`] writes it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use tracing::debug;
use valv_crds::{
    BackupStatus,
    backup::{
        Attempt, AttemptFailure, BackupCondition, BackupReason, ObjectDigest, Progress, Reading, Stage,
        StoredIn, Verified,
    },
    condition::Saying,
    policy::VerificationMode,
};

use super::{
    Context,
    apply::Outcome,
    attempt::{self, time},
    check::Run,
    commission::Committed,
    names::Part,
    observe::Observed,
    plain::{self, plain},
    plan::{Note, Plan, Step},
};
use crate::{
    agent::last_words::Failure,
    archive::{commit, verify::Mode},
    io::{
        cluster::{Applied, Error},
        events::{self, News, Tone},
        kind::Kind,
    },
};

/// The status of `run` after `plan`, which came to `outcome`.
pub fn status(
    run: &Run,
    observed: &Observed,
    plan: &Plan,
    outcome: &Outcome,
    now: Timestamp,
) -> BackupStatus {
    let mut status = run.object.status.clone().unwrap_or_default();
    if matches!(plan.step, Step::Over) {
        return status;
    }
    status.observed_generation = run.object.metadata.generation;
    if let Ok(subject) = &run.subject {
        status.slot = Some(subject.slot);
        let tenant = observed.tenant.there();
        status.archive_id = tenant.map(|tenant| tenant.archive_id().to_owned()).or(status.archive_id);
    }
    let said = if let Some(committed) = &outcome.committed {
        complete(&mut status, committed, now);
        vec![
            Said::yes(BackupCondition::Complete, BackupReason::Committed, sentence(committed)),
            intact(&status, committed),
            copied(observed),
        ]
    } else if let Some(Failure { reason, message }) = &outcome.refused {
        given_up(&mut status, *reason, message.clone(), now)
    } else if let Some(Failure { reason, message }) = &outcome.postponed {
        under_way(*reason, message.clone())
    } else if let Some(failure) = &outcome.failed {
        failed(&mut status, failure, plan, now);
        under_way(BackupReason::Retrying, format!("{:?}: {}", failure.reason, failure.message))
    } else {
        went_on(&mut status, plan, outcome, now)
    };
    let standing = std::mem::take(&mut status.conditions);
    status.conditions =
        said.into_iter().map(|said| said.dated(&standing, run.object.metadata.generation, now)).collect();
    status
}

/// What is said of a step that was done.
fn went_on(status: &mut BackupStatus, plan: &Plan, outcome: &Outcome, now: Timestamp) -> Vec<Said> {
    match &plan.step {
        Step::Over => vec![],
        Step::Waits { reason, message } => under_way(*reason, message.clone()),
        Step::GivesUp { reason, message, .. } => given_up(status, *reason, message.clone(), now),
        Step::Begins { number, order, deadline, .. } => {
            status.started.get_or_insert(time(now));
            let until = now.saturating_add(*deadline).unwrap_or(Timestamp::MAX);
            status.deadline.get_or_insert(time(until));
            status.stores = vec![stored_in(&order.store)];
            let (number, began) = (*number, Some(time(now)));
            status.attempt =
                Some(Attempt { number, began, order: Some(order.clone()), ..Attempt::default() });
            progress(status, Stage::Waiting, now);
            under_way(BackupReason::Running, format!("attempt {number} begins"))
        }
        Step::Makes(part) => {
            let attempt = status.attempt.as_mut();
            match part {
                Part::Write { number } => {
                    attempt.into_iter().for_each(|attempt| attempt.job.clone_from(&outcome.job));
                    under_way(BackupReason::Running, format!("the pod of attempt {number} is being started"))
                }
                Part::ReadBack { number, .. } => {
                    let reading = attempt.and_then(|attempt| attempt.reading.as_mut());
                    reading.into_iter().for_each(|reading| reading.job.clone_from(&outcome.job));
                    under_way(
                        BackupReason::ReadingBack,
                        format!("what attempt {number} wrote is to be read back"),
                    )
                }
            }
        }
        Step::Runs { part } => {
            if let Some(seen) = &outcome.progress {
                status.progress = Some(seen.clone());
            }
            match part {
                Part::Write { number } => {
                    under_way(BackupReason::Running, format!("attempt {number} writes"))
                }
                Part::ReadBack { number, .. } => {
                    progress(status, Stage::ReadingBack, now);
                    let message = format!("what attempt {number} wrote is being read back");
                    under_way(BackupReason::ReadingBack, message)
                }
            }
        }
        Step::Notes(note) => noted(status, note, now),
        Step::Retries { failure, number, after } => {
            let message = format!(
                "attempt {number} failed ({:?}: {}); the next one comes within {} s of {}",
                failure.reason,
                failure.message,
                wait_of(failure, *after, now),
                failure.at.0
            );
            under_way(BackupReason::Retrying, message)
        }
        Step::Commits { .. } => {
            progress(status, Stage::Committing, now);
            under_way(BackupReason::ReadingBack, "the commit is being put".to_owned())
        }
    }
}

/// The whole wait: the same, whenever it is looked.
fn wait_of(failure: &AttemptFailure, left: std::time::Duration, now: Timestamp) -> i64 {
    let since = now.as_second() - failure.at.0.as_second();
    since.saturating_add(i64::try_from(left.as_secs()).unwrap_or(0)).saturating_add(1) / 10 * 10 + 10
}

fn noted(status: &mut BackupStatus, note: &Note, now: Timestamp) -> Vec<Said> {
    let number = status.attempt.as_ref().map_or(0, |attempt| attempt.number);
    match note {
        Note::Wrote { pod, taken } => {
            if let Some(attempt) = &mut status.attempt {
                attempt.id = Some(pod.clone());
                attempt.wrote = Some(attempt::wrote(taken));
            }
            progress(status, Stage::ReadingBack, now);
            under_way(BackupReason::ReadingBack, format!("attempt {number} wrote a manifest"))
        }
        Note::Failed(failure) => {
            if let Some(attempt) = &mut status.attempt {
                attempt.failed = Some(at(failure, now));
            }
            progress(status, Stage::Waiting, now);
            let message = format!("attempt {number} failed ({:?}: {})", failure.reason, failure.message);
            under_way(BackupReason::Retrying, plain(&message, plain::SENTENCE))
        }
        Note::Reads { reading } => {
            if let Some(attempt) = &mut status.attempt {
                let began = Some(time(now));
                attempt.reading = Some(Reading { number: *reading, began, ..Reading::default() });
            }
            progress(status, Stage::ReadingBack, now);
            under_way(BackupReason::ReadingBack, format!("what attempt {number} wrote is to be read back"))
        }
        Note::Read(verified) => {
            if let Some(reading) = status.attempt.as_mut().and_then(|attempt| attempt.reading.as_mut()) {
                reading.verified = Some(attempt::read_back(verified, now));
            }
            progress(status, Stage::Committing, now);
            under_way(BackupReason::ReadingBack, format!("what attempt {number} wrote was read back"))
        }
        Note::NotRead(failure) => {
            if let Some(reading) = status.attempt.as_mut().and_then(|attempt| attempt.reading.as_mut()) {
                reading.failed = Some(at(failure, now));
            }
            let message = format!("reading back failed ({:?}: {})", failure.reason, failure.message);
            under_way(BackupReason::Retrying, plain(&message, plain::SENTENCE))
        }
    }
}

/// What could not be made, or was found not to be what it should be, has failed.
fn failed(status: &mut BackupStatus, failure: &Failure, plan: &Plan, now: Timestamp) {
    let Some(attempt) = &mut status.attempt else { return };
    match (&plan.step, &mut attempt.reading) {
        (Step::Makes(Part::ReadBack { .. }), Some(reading)) => reading.failed = Some(at(failure, now)),
        _ => attempt.failed = Some(at(failure, now)),
    }
}

fn at(failure: &Failure, now: Timestamp) -> AttemptFailure {
    let message = plain(&failure.message, plain::SENTENCE);
    AttemptFailure { reason: failure.reason, message, at: time(now) }
}

/// One thing that is said of a backup.
type Said = Saying<BackupCondition, BackupReason>;

fn under_way(reason: BackupReason, message: String) -> Vec<Said> {
    vec![
        Said::no(BackupCondition::Complete, reason, message.clone()),
        Said::yes(BackupCondition::Reconciling, reason, message),
    ]
}

fn given_up(status: &mut BackupStatus, reason: BackupReason, message: String, now: Timestamp) -> Vec<Said> {
    status.ended = Some(time(now));
    progress(status, Stage::Done, now);
    vec![
        Said::no(BackupCondition::Complete, reason, message.clone()),
        Said::yes(BackupCondition::Stalled, reason, message),
    ]
}

/// The stage moves; what stands already is not written again.
fn progress(status: &mut BackupStatus, stage: Stage, now: Timestamp) {
    if status.progress.as_ref().is_none_or(|progress| progress.stage != stage) {
        let standing = status.progress.take().unwrap_or_default();
        let (bytes_per_second, left) = (None, None);
        status.progress = Some(Progress { stage, at: Some(time(now)), bytes_per_second, left, ..standing });
    }
}

fn stored_in(name: &str) -> StoredIn {
    StoredIn { name: name.to_owned(), commit: None, committed: None, verification: None, locked_until: None }
}

fn complete(status: &mut BackupStatus, committed: &Committed, now: Timestamp) {
    let Committed { found, key, size, started } = committed;
    let commit = &found.commit;
    let version =
        |version: Option<&crate::io::bucket::Version>| version.map(|version| version.as_str().to_owned());
    status.size = Some(*size);
    let id = commit.attempt.to_string();
    let ours = status.attempt.as_ref().filter(|attempt| attempt.id.as_ref() == Some(&id));
    let wrote = ours.and_then(|attempt| attempt.wrote.as_ref());
    // Of one that was found in the archive only the beginning is known: what it holds is no older.
    status.taken = Some(wrote.map_or_else(|| time(*started), |wrote| wrote.taken.clone()));
    status.started.get_or_insert(time(*started));
    if ours.is_none() {
        let number = status.attempt.as_ref().map_or(1, |attempt| attempt.number);
        status.attempt = Some(Attempt { number, id: Some(id), ..Attempt::default() });
    }
    status.manifest = Some(ObjectDigest {
        key: commit.manifest.key.clone(),
        version: version(commit.manifest.version.as_ref()),
        blake3: commit.manifest.blake3.to_string(),
    });
    status.stores = vec![StoredIn {
        name: commit.store.name.clone(),
        commit: Some(ObjectDigest {
            key: key.clone(),
            version: version(found.version.as_ref()),
            blake3: found.blake3.to_string(),
        }),
        committed: Some(time(commit.committed)),
        verification: Some(verified(&commit.verified)),
        locked_until: commit.retain_until.map(time),
    }];
    status.ended = Some(time(now));
    progress(status, Stage::Done, now);
    if let Some(progress) = &mut status.progress {
        progress.percent = Some(100);
    }
}

fn verified(verified: &commit::Verified) -> Verified {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    Verified {
        mode: match verified.mode {
            Mode::Full => VerificationMode::Full,
            Mode::Sample => VerificationMode::Sample,
            Mode::Metadata => VerificationMode::Metadata,
        },
        segments_read: number(verified.segments_read),
        segments: number(verified.segments),
        at: time(verified.at),
    }
}

fn sentence(committed: &Committed) -> String {
    let commit = &committed.found.commit;
    format!(
        "{} segments in {} ({}), {} of them read back; committed {}",
        commit.verified.segments,
        commit.store.name,
        commit.store.country,
        commit.verified.segments_read,
        commit.committed
    )
}

/// What the reading pod saw over what the manifest names, and the operator over the commit.
fn intact(status: &BackupStatus, committed: &Committed) -> Said {
    let reading = status.attempt.as_ref().and_then(|attempt| attempt.reading.as_ref());
    let over_data: i64 =
        reading.and_then(|reading| reading.verified.as_ref()).map_or(0, |read| read.tampered);
    let tampered = over_data.saturating_add_unsigned(committed.found.covered.total);
    if tampered == 0 {
        Said::yes(
            BackupCondition::Intact,
            BackupReason::AsAsked,
            "nothing lies over the commit and what the manifest names",
        )
    } else {
        let message = format!(
            "a delete marker or another version lies over {tampered} objects: they are read through; find out who has the writer's credentials"
        );
        Said::no(BackupCondition::Intact, BackupReason::Tampered, message)
    }
}

fn copied(observed: &Observed) -> Said {
    let others = observed.policy.as_ref().map_or(0, |policy| policy.spec.stores.len().saturating_sub(1));
    if others == 0 {
        Said::yes(BackupCondition::Copied, BackupReason::NotAskedFor, "the policy has one store")
    } else {
        Said::no(
            BackupCondition::Copied,
            BackupReason::Copying,
            format!("{others} more stores have no copy yet"),
        )
    }
}

/// Writes the status if it changed, and an event if it is news.
///
/// # Errors
/// If the API server refuses it. That the object has moved on is none: its next version brings the next look.
pub async fn tell(run: &Run, status: &BackupStatus, news: Vec<News>, context: &Context) -> Result<(), Error> {
    events::publish(&context.recorder, &run.object.object_ref(&()), news).await;
    match context.cluster.set_status_in_namespace(Kind::Backup, run.object.as_ref(), status).await {
        Ok(Applied::Unchanged) => return Ok(()),
        Ok(Applied::Written) => {}
        Err(error) if error.is_conflict() => {
            debug!("the backup has moved on");
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    let before = run.object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let said = |conditions: &[Condition]| {
        let complete = format!("{:?}", BackupCondition::Complete);
        let found = conditions.iter().find(|condition| condition.type_ == complete);
        found.map(|condition| (condition.status.clone(), condition.reason.clone(), condition.message.clone()))
    };
    let (Some((truth, reason, message)), old) = (said(&status.conditions), said(before)) else {
        return Ok(());
    };
    if old.is_some_and(|(_, old, _)| old == reason) {
        return Ok(());
    }
    let is_over = status.ended.is_some();
    let tone = if truth == "True" || !is_over { Tone::Normal } else { Tone::Warning };
    events::publish(
        &context.recorder,
        &run.object.object_ref(&()),
        vec![News { tone, reason, note: message }],
    )
    .await;
    Ok(())
}
