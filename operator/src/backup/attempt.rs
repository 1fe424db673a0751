//! How a backup's attempts stand, from its Jobs and what their pods said last. Pure.
//!
//! An attempt is two Jobs: one whose pod writes, and then one whose pod reads back what was written. Each Job has
//! one pod, which is not started again: another pod would write under another id.

use jiff::Timestamp;
use kube::{ResourceExt, core::DynamicObject};
use serde_json::Value;
use valv_crds::{Slot, backup::BackupReason};

use super::observe::Observed;
use crate::{
    agent::last_words::{Failure, LastWords, Taken, Verified},
    io::kind::Kind,
};

/// Label on a Job and its pod: the UID of the `Backup`.
pub const BACKUP_LABEL: &str = "valv.eu/backup";

/// Label of Kubernetes on a pod: the name of its Job.
const JOB_LABEL: &str = "batch.kubernetes.io/job-name";

/// Which of an attempt's Jobs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// Its pod writes.
    Write,
    /// Its pod reads back.
    ReadBack,
}

impl Part {
    /// Name of the Job of attempt `number` for `slot`.
    pub fn job(self, slot: Slot, number: i32) -> String {
        let part = match self {
            Self::Write => "backup",
            Self::ReadBack => "verify",
        };
        format!("{part}-{}-{number}", slot.lower_case())
    }
}

/// The newest attempt, and how far it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Its number; the first is 1.
    pub number: i32,
    /// How far it is.
    pub standing: Standing,
}

/// How far an attempt is.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// Its pod is being started, or writes.
    Writing {
        /// UID of the pod: the folder that it writes into. Absent: there is none yet.
        pod: Option<String>,
    },
    /// The manifest was written, as the pod says.
    Written {
        /// UID of the pod.
        pod: String,
        /// What it says.
        taken: Taken,
    },
    /// It is being read back.
    ReadingBack {
        /// UID of the pod that wrote.
        pod: String,
        /// What it said.
        taken: Taken,
    },
    /// It was read back and is whole, as the reading pod says.
    ReadBack {
        /// UID of the pod that wrote.
        pod: String,
        /// What it said.
        taken: Taken,
        /// What the reading pod says.
        verified: Verified,
    },
    /// It failed.
    Failed {
        /// How.
        failure: Failure,
        /// When its Job gave up.
        at: Option<Timestamp>,
    },
}

/// The newest attempt of the backup `uid` for `slot`, if one was begun.
pub fn newest(observed: &Observed, uid: &str, slot: Slot) -> Option<Attempt> {
    let number = observed
        .all(Kind::Job)
        .filter(|job| job.labels().get(BACKUP_LABEL).is_some_and(|owner| owner == uid))
        .filter_map(|job| number(&job.name_any(), slot))
        .max()?;
    Some(Attempt { number, standing: standing(observed, slot, number) })
}

/// The attempt's number in the name of a writing Job.
fn number(name: &str, slot: Slot) -> Option<i32> {
    name.strip_prefix(&format!("backup-{}-", slot.lower_case()))?.parse().ok()
}

fn standing(observed: &Observed, slot: Slot, number: i32) -> Standing {
    let (pod, taken) = match ended(observed, &Part::Write.job(slot, number)) {
        End::NotYet { pod } => return Standing::Writing { pod },
        End::Failed { failure, at } => return Standing::Failed { failure, at },
        End::Said { pod, words: LastWords::Taken(taken) } => (pod, taken),
        End::Said { words, .. } => return strange(&words),
    };
    match ended(observed, &Part::ReadBack.job(slot, number)) {
        End::NotYet { .. } if !observed.has(Kind::Job, &Part::ReadBack.job(slot, number)) => {
            Standing::Written { pod, taken }
        }
        End::NotYet { .. } => Standing::ReadingBack { pod, taken },
        End::Failed { failure, at } => Standing::Failed { failure, at },
        End::Said { words: LastWords::Verified { verified }, .. } => {
            Standing::ReadBack { pod, taken, verified }
        }
        End::Said { words, .. } => strange(&words),
    }
}

fn strange(words: &LastWords) -> Standing {
    let message = format!("the agent's last words are not those of this step: {words:?}");
    Standing::Failed { failure: Failure { reason: BackupReason::AgentFailed, message }, at: None }
}

/// How a Job's pod ended.
enum End {
    NotYet { pod: Option<String> },
    Failed { failure: Failure, at: Option<Timestamp> },
    Said { pod: String, words: LastWords },
}

fn ended(observed: &Observed, job: &str) -> End {
    let pod = observed
        .all(Kind::Pod)
        .filter(|pod| pod.labels().get(JOB_LABEL).is_some_and(|owner| owner == job))
        .max_by_key(|pod| pod.creation_timestamp());
    let uid = pod.and_then(|pod| pod.uid());
    let words = pod.and_then(|pod| last_words(pod));
    let failed = |failure: Failure| End::Failed { failure, at: observed.failed_at(job) };
    let silent = |what: &str| Failure { reason: BackupReason::AgentFailed, message: what.to_owned() };
    match (observed.job(job), uid, words) {
        (JobSeen::Absent | JobSeen::Active, pod, _) => End::NotYet { pod },
        (_, _, Some(LastWords::Failed { failure })) => failed(failure),
        (JobSeen::Succeeded, Some(pod), Some(words)) => End::Said { pod, words },
        (JobSeen::Succeeded, ..) => failed(silent("the agent ended well and left no result")),
        (JobSeen::Failed, None, _) => {
            failed(silent("the agent's pod is gone: its node ended, or somebody deleted it"))
        }
        (JobSeen::Failed, Some(_), _) => {
            let how =
                pod.and_then(|pod| how_it_ended(pod)).unwrap_or_else(|| "no reason is known".to_owned());
            failed(silent(&format!("the agent ended without a result: {how}")))
        }
    }
}

/// How a Job stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum JobSeen {
    /// It is not there.
    Absent,
    /// It runs, or waits to.
    Active,
    /// Its pod did its work.
    Succeeded,
    /// It gave up.
    Failed,
}

fn agent_status(pod: &DynamicObject) -> Option<&Value> {
    let statuses = pod.data.pointer("/status/containerStatuses")?.as_array()?;
    statuses.iter().find(|status| status["name"] == "agent")
}

fn last_words(pod: &DynamicObject) -> Option<LastWords> {
    serde_json::from_str(agent_status(pod)?.pointer("/state/terminated/message")?.as_str()?).ok()
}

/// In the kubelet's words: never those of the agent, which may hold what nobody checked.
fn how_it_ended(pod: &DynamicObject) -> Option<String> {
    let terminated = agent_status(pod).and_then(|status| status.pointer("/state/terminated"));
    let of_container = terminated.map(|end| {
        let reason = end["reason"].as_str().unwrap_or("Error");
        format!("{reason}, exit code {}", end["exitCode"])
    });
    of_container.or_else(|| pod.data.pointer("/status/message")?.as_str().map(str::to_owned))
}
