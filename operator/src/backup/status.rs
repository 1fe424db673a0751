//! Tells how a backup stands. [`status`] is pure, [`tell`] writes it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource;
use tracing::debug;
use valv_crds::{
    BackupStatus,
    backup::{
        Attempt as AttemptStatus, BackupCondition, BackupReason, BackupSize, ObjectDigest, Progress, Stage,
        StoredIn, Verified,
    },
    condition::Saying,
    policy::VerificationMode,
};

use super::{
    Context,
    apply::Outcome,
    attempt::{Attempt, Standing},
    check::Run,
    commission::Committed,
    observe::Observed,
    plan::{Plan, Step},
};
use crate::{
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
    status.observed_generation = run.object.metadata.generation;
    if matches!(plan.step, Step::Over) {
        return status;
    }
    if let Ok(subject) = &run.subject {
        status.slot = Some(subject.slot);
        let tenant = observed.tenant.as_ref();
        status.archive_id = tenant.map(|tenant| tenant.archive_id().to_owned()).or(status.archive_id);
    }
    if status.stores.is_empty()
        && let Some(store) = &observed.store
    {
        status.stores = vec![stored_in(&store.name)];
    }
    let said = match (&plan.step, outcome) {
        (_, Outcome { committed: Some(committed), .. }) => {
            complete(&mut status, committed, plan, now);
            vec![
                Said::yes(BackupCondition::Complete, BackupReason::Committed, sentence(committed)),
                intact(&plan.step),
                copied(observed),
            ]
        }
        (_, Outcome { refused: Some((reason, message)), .. }) => {
            failed(&mut status, *reason, message.clone(), now)
        }
        (Step::Fails { reason, message, number }, _) => {
            if let (Some(number), None) = (number, &status.attempt) {
                status.attempt = Some(AttemptStatus { number: *number, id: None });
            }
            failed(&mut status, *reason, message.clone(), now)
        }
        (Step::Waits { reason, message }, _) => under_way(*reason, message.clone()),
        (Step::Runs(attempt), _) => {
            runs(&mut status, attempt, now);
            let (reason, message) = running(attempt);
            under_way(reason, message)
        }
        (Step::Retries { attempt, failure, after }, _) => {
            runs(&mut status, attempt, now);
            let message = format!(
                "attempt {} failed ({:?}: {}); the next one comes in {} s",
                attempt.number,
                failure.reason,
                failure.message,
                after.as_secs()
            );
            under_way(BackupReason::Retrying, message)
        }
        (Step::Commits(_), Outcome { postponed, .. }) => {
            progress(&mut status, Stage::Committing, now);
            let message = postponed.clone().unwrap_or_else(|| "the commit is being put".to_owned());
            under_way(BackupReason::ReadingBack, message)
        }
        (Step::Over, _) => vec![],
    };
    let standing = std::mem::take(&mut status.conditions);
    status.conditions =
        said.into_iter().map(|said| said.dated(&standing, run.object.metadata.generation, now)).collect();
    status
}

/// One thing that is said of a backup.
type Said = Saying<BackupCondition, BackupReason>;

fn under_way(reason: BackupReason, message: String) -> Vec<Said> {
    vec![
        Said::no(BackupCondition::Complete, reason, message.clone()),
        Said::yes(BackupCondition::Reconciling, reason, message),
    ]
}

fn failed(status: &mut BackupStatus, reason: BackupReason, message: String, now: Timestamp) -> Vec<Said> {
    status.ended = Some(time(now));
    progress(status, Stage::Done, now);
    vec![
        Said::no(BackupCondition::Complete, reason, message.clone()),
        Said::yes(BackupCondition::Stalled, reason, message),
    ]
}

fn running(attempt: &Attempt) -> (BackupReason, String) {
    let number = attempt.number;
    match &attempt.standing {
        Standing::Writing { pod: None } => {
            (BackupReason::Running, format!("the pod of attempt {number} is being started"))
        }
        Standing::Writing { pod: Some(_) } => (BackupReason::Running, format!("attempt {number} writes")),
        Standing::Written { .. } | Standing::ReadingBack { .. } | Standing::ReadBack { .. } => {
            (BackupReason::ReadingBack, format!("what attempt {number} wrote is being read back"))
        }
        Standing::Failed { failure, .. } => (failure.reason, failure.message.clone()),
    }
}

fn runs(status: &mut BackupStatus, attempt: &Attempt, now: Timestamp) {
    status.started.get_or_insert(time(now));
    let (stage, id) = match &attempt.standing {
        Standing::Writing { pod: None } => (Stage::Waiting, None),
        Standing::Writing { pod } => (Stage::Database, pod.clone()),
        Standing::Written { pod, .. }
        | Standing::ReadingBack { pod, .. }
        | Standing::ReadBack { pod, .. } => (Stage::ReadingBack, Some(pod.clone())),
        Standing::Failed { .. } => (Stage::Waiting, None),
    };
    let standing = status.attempt.take().filter(|standing| standing.number == attempt.number);
    let id = id.or_else(|| standing.and_then(|standing| standing.id));
    status.attempt = Some(AttemptStatus { number: attempt.number, id });
    progress(status, stage, now);
}

/// The stage moves; what stands already is not written again.
fn progress(status: &mut BackupStatus, stage: Stage, now: Timestamp) {
    if status.progress.as_ref().is_none_or(|progress| progress.stage != stage) {
        let standing = status.progress.take().unwrap_or_default();
        status.progress = Some(Progress { stage, at: Some(time(now)), ..standing });
    }
}

fn stored_in(name: &str) -> StoredIn {
    StoredIn { name: name.to_owned(), commit: None, committed: None, verification: None, locked_until: None }
}

fn complete(status: &mut BackupStatus, committed: &Committed, plan: &Plan, now: Timestamp) {
    let Committed { found, key, blake3, manifest } = committed;
    let commit = &found.commit;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let sum =
        |of: fn(&crate::archive::manifest::PartSummary) -> u64| number(manifest.parts.iter().map(of).sum());
    status.size = Some(BackupSize {
        bytes: sum(|part| part.bytes),
        plain_bytes: sum(|part| part.plain_bytes),
        segments: number(manifest.segments()),
    });
    if let Step::Commits(commission) = &plan.step {
        status.taken = Some(time(commission.taken));
    }
    status.manifest = Some(ObjectDigest {
        key: commit.manifest.key.clone(),
        version: commit.manifest.version.as_ref().map(|version| version.as_str().to_owned()),
        blake3: commit.manifest.blake3.to_string(),
    });
    status.stores = vec![StoredIn {
        name: commit.store.name.clone(),
        commit: Some(ObjectDigest {
            key: key.clone(),
            version: found.version.as_ref().map(|version| version.as_str().to_owned()),
            blake3: blake3.clone(),
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

fn intact(step: &Step) -> Said {
    let tampered = if let Step::Commits(commission) = step { commission.tampered } else { 0 };
    if tampered == 0 {
        Said::yes(BackupCondition::Intact, BackupReason::AsAsked, "nothing lies over what the manifest names")
    } else {
        let message = format!(
            "a delete marker or a younger version lies over {tampered} objects: they are read through; find out who has the writer's credentials"
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

fn time(moment: Timestamp) -> Time {
    Time(Timestamp::from_second(moment.as_second()).unwrap_or(moment))
}

/// Writes the status if it changed, and an event if it is news.
///
/// # Errors
/// If the API server refuses it. That the object has moved on is none: its next version brings the next look.
pub async fn tell(run: &Run, status: &BackupStatus, context: &Context) -> Result<(), Error> {
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
