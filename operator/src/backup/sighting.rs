//! A Job of an attempt and its pod, as they were seen. Pure.
//!
//! A Job counts by its UID, which the status has, and a pod by its owner's: names and labels anybody may write.

use std::time::Duration;

use jiff::Timestamp;
use kube::{ResourceExt, core::DynamicObject};
use serde_json::Value;
use valv_crds::backup::BackupReason;

use super::plain::{self, plain};
use crate::agent::last_words::{Failure, LastWords};

/// Jobs and pods come by two watches, without an order between them: a Job's end may be seen before its pod's words.
const GRACE: Duration = Duration::from_secs(60);

/// What is said of a pod on a node that is silent.
pub const NODE_SILENT: &str = "the agent's pod was to end and does not: its node does not answer";

/// A pod that was to end has ended by then, or its node answers nobody: the time that it was given to end comes before.
const ENDS_WITHIN: Duration = GRACE;

/// A pod that does not run by then is given up, so that there is time for another.
pub const STARTS_WITHIN: Duration = Duration::from_secs(600);

/// A Job, as it was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sighting {
    /// How it stands.
    pub job: JobSeen,
    /// When it was made.
    pub made: Option<Timestamp>,
    /// When it ended, or gave up.
    pub ended: Option<Timestamp>,
    /// Why it failed, in Kubernetes' word.
    pub why: Option<String>,
    /// Its pod.
    pub pod: Option<PodSeen>,
}

/// How a Job stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum JobSeen {
    /// It is not there.
    #[default]
    Absent,
    /// It runs, or waits to.
    Active,
    /// Its pod did its work.
    Succeeded,
    /// It gave up, and its pod is being ended. On a dead node it stays so: Kubernetes calls a Job failed only when its
    /// pods have ended.
    Failing,
    /// It gave up.
    Failed,
}

/// A pod, as it was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSeen {
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Whether its agent runs or ran.
    pub has_started: bool,
    /// What its agent said last; absent: it did not end.
    pub end: Option<PodEnd>,
    /// What keeps it from starting, in Kubernetes' words.
    pub waits_for: Option<String>,
    /// By when it was to end; absent: nobody ends it.
    pub ends_by: Option<Timestamp>,
}

/// How an agent ended.
#[derive(Clone, Debug, PartialEq)]
pub struct PodEnd {
    /// Its last words, if they can be read as such.
    pub words: Option<LastWords>,
    /// Its exit code.
    pub code: i64,
    /// Kubernetes' word for how.
    pub how: String,
}

/// How far a Job came.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// It is not over, or it cannot be known yet.
    NotYet,
    /// It failed.
    Failed(Failure),
    /// Its agent ended well, and said this.
    Said {
        /// UID of the pod.
        pod: String,
        /// What it said.
        words: LastWords,
    },
}

impl Sighting {
    /// What is seen of `job`, of all that are in the namespace of it `pods`.
    pub fn of<'a>(job: &DynamicObject, pods: impl Iterator<Item = &'a DynamicObject>) -> Self {
        let conditions = job.data.pointer("/status/conditions").and_then(Value::as_array);
        let is = |kind: &str| {
            let mut all = conditions.into_iter().flatten();
            all.find(|condition| condition["type"] == kind && condition["status"] == "True")
        };
        let (complete, failed, failing) = (is("Complete"), is("Failed"), is("FailureTarget"));
        let gave_up = failed.or(failing);
        let since = |condition: &Value| condition["lastTransitionTime"].as_str()?.parse().ok();
        let completion = job.data.pointer("/status/completionTime").and_then(Value::as_str);
        let uid = job.uid();
        let owned = pods.filter(|pod| uid.is_some() && controller(pod) == uid.as_deref());
        Self {
            job: match (complete, failed, failing) {
                (Some(_), _, _) => JobSeen::Succeeded,
                (None, Some(_), _) => JobSeen::Failed,
                (None, None, Some(_)) => JobSeen::Failing,
                (None, None, None) => JobSeen::Active,
            },
            made: job.creation_timestamp().map(|time| time.0),
            ended: completion.and_then(|time| time.parse().ok()).or_else(|| since(complete.or(gave_up)?)),
            why: gave_up.and_then(|gave_up| gave_up["reason"].as_str()).map(|why| plain(why, plain::WORD)),
            pod: owned.max_by_key(|pod| pod.creation_timestamp()).and_then(PodSeen::of),
        }
    }

    /// Whether the Job or its pod is over, or is to be, and what the pod said is not known: it is to be asked for once
    /// more.
    pub fn is_silent(&self) -> bool {
        let is_to_end = self.pod.as_ref().is_some_and(|pod| pod.ends_by.is_some());
        (is_to_end || matches!(self.job, JobSeen::Succeeded | JobSeen::Failing | JobSeen::Failed))
            && self.pod.as_ref().is_none_or(|pod| pod.end.is_none())
    }

    /// How far it came, at `now`.
    pub fn end(&self, now: Timestamp) -> End {
        let failed = |reason: BackupReason, message: String| End::Failed(Failure { reason, message });
        if let Some((pod, end)) = self.pod.as_ref().and_then(|pod| Some((pod, pod.end.as_ref()?))) {
            return match &end.words {
                Some(LastWords::Failed { failure }) => {
                    failed(failure.reason, plain(&failure.message, plain::SENTENCE))
                }
                Some(words) if end.code == 0 => End::Said { pod: pod.uid.clone(), words: words.clone() },
                _ if self.why.as_deref() == Some("DeadlineExceeded") => self.too_long(),
                _ => {
                    let how =
                        format!("the agent ended without a result: {}, exit code {}", end.how, end.code);
                    failed(BackupReason::AgentFailed, how)
                }
            };
        }
        let is_recent = |since: Option<Timestamp>| {
            since.is_some_and(|since| now < since.saturating_add(GRACE).unwrap_or(Timestamp::MAX))
        };
        if self.pod.as_ref().is_some_and(|pod| pod.is_lost(now)) {
            if self.why.as_deref() == Some("DeadlineExceeded") {
                return self.too_long();
            }
            let message = NODE_SILENT.to_owned();
            return failed(BackupReason::AgentFailed, message);
        }
        match self.job {
            JobSeen::Absent => failed(
                BackupReason::AgentFailed,
                "its Job was deleted before its result was known".to_owned(),
            ),
            JobSeen::Failed if self.why.as_deref() == Some("DeadlineExceeded") => self.too_long(),
            // It has its time to say why.
            JobSeen::Failing if self.pod.is_some() => End::NotYet,
            JobSeen::Failing if self.why.as_deref() == Some("DeadlineExceeded") => self.too_long(),
            JobSeen::Succeeded | JobSeen::Failing | JobSeen::Failed if is_recent(self.ended) => End::NotYet,
            JobSeen::Succeeded => {
                failed(BackupReason::AgentFailed, "its pod was deleted before its result was read".to_owned())
            }
            JobSeen::Failing | JobSeen::Failed => failed(
                BackupReason::AgentFailed,
                "the agent's pod is gone: its node ended, or somebody deleted it".to_owned(),
            ),
            JobSeen::Active => self.starts_in_time(now),
        }
    }

    fn too_long(&self) -> End {
        let message = "the Job was ended by Kubernetes: it ran for longer than its deadline".to_owned();
        End::Failed(Failure { reason: BackupReason::DeadlineExceeded, message })
    }

    fn starts_in_time(&self, now: Timestamp) -> End {
        let limit = self.made.and_then(|made| made.checked_add(STARTS_WITHIN).ok());
        let has_started = self.pod.as_ref().is_some_and(|pod| pod.has_started);
        if has_started || limit.is_none_or(|limit| now < limit) {
            return End::NotYet;
        }
        let why = self.pod.as_ref().map_or(Some("there is none"), |pod| pod.waits_for.as_deref());
        let message = format!(
            "its pod did not start within {} minutes: {}",
            STARTS_WITHIN.as_secs() / 60,
            why.unwrap_or("no reason is known")
        );
        End::Failed(Failure { reason: BackupReason::NotStarted, message })
    }
}

/// UID of what controls an object.
pub fn controller(object: &DynamicObject) -> Option<&str> {
    let owners = object.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

impl PodSeen {
    fn of(pod: &DynamicObject) -> Option<Self> {
        let agent = container(pod, "containerStatuses", "agent");
        let terminated = agent.and_then(|status| status.pointer("/state/terminated"));
        let is_running = agent.is_some_and(|status| status.pointer("/state/running").is_some());
        Some(Self {
            uid: pod.uid()?,
            name: pod.name_any(),
            has_started: is_running || terminated.is_some(),
            end: terminated.map(|end| PodEnd {
                words: end["message"].as_str().and_then(|words| serde_json::from_str(words).ok()),
                code: end["exitCode"].as_i64().unwrap_or(-1),
                how: plain(end["reason"].as_str().unwrap_or("Error"), plain::WORD),
            }),
            waits_for: waits_for(pod),
            ends_by: ends_by(pod),
        })
    }

    /// Whether it was to end a while ago and did not: nobody hears of its node, which may be dead. Should its agent run
    /// all the same, it writes under an id of its own, which no commit names.
    fn is_lost(&self, now: Timestamp) -> bool {
        self.end.is_none() && is_lost(self.ends_by, now)
    }
}

/// By when a pod that is being deleted was to end, by the API server's clock; absent: it is not.
pub fn ends_by(pod: &DynamicObject) -> Option<Timestamp> {
    pod.metadata.deletion_timestamp.as_ref().map(|time| time.0)
}

/// Whether a pod that was to end by then is beyond all hope of words.
pub fn is_lost(ends_by: Option<Timestamp>, now: Timestamp) -> bool {
    ends_by.is_some_and(|by| now >= by.saturating_add(ENDS_WITHIN).unwrap_or(Timestamp::MAX))
}

fn container<'a>(pod: &'a DynamicObject, statuses: &str, name: &str) -> Option<&'a Value> {
    let statuses = pod.data.pointer(&format!("/status/{statuses}"))?.as_array()?;
    statuses.iter().find(|status| status["name"] == name)
}

/// Why a pod does not start: a container's word, or the scheduler's.
fn waits_for(pod: &DynamicObject) -> Option<String> {
    let waiting = |statuses: &str, name: &str| {
        let waiting = container(pod, statuses, name)?.pointer("/state/waiting")?;
        let reason = waiting["reason"].as_str().filter(|reason| *reason != "PodInitializing")?;
        Some(format!("{reason} {}", waiting["message"].as_str().unwrap_or_default()))
    };
    let unscheduled = || {
        let conditions = pod.data.pointer("/status/conditions")?.as_array()?;
        let refused = conditions.iter().find(|condition| condition["status"] == "False")?;
        Some(format!("{} {}", refused["reason"].as_str()?, refused["message"].as_str().unwrap_or_default()))
    };
    let why = waiting("initContainerStatuses", "install").or_else(|| waiting("containerStatuses", "agent"));
    why.or_else(unscheduled).map(|why| plain(why.trim(), plain::SENTENCE))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub const JOB: &str = "5f6e7c1a-0000-4a67-9d0e-3a5d4c1b2a39";
    pub const POD: &str = "0191b6f0-7d3a-7c40-8e0a-1f2e3d4c5b6a";

    pub fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    pub fn job(status: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": { "name": "j", "namespace": "journal-ada", "uid": JOB, "creationTimestamp": at(0).to_string() },
            "status": status,
        }))
        .unwrap()
    }

    pub fn pod(owner: &str, status: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "j-x", "namespace": "journal-ada", "uid": POD,
                "labels": { "batch.kubernetes.io/job-name": "j" },
                "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": owner,
                    "controller": true }] },
            "status": status,
        }))
        .unwrap()
    }

    pub fn said(words: &str, code: i32) -> Value {
        json!({ "containerStatuses": [{ "name": "agent", "state": { "terminated": {
            "exitCode": code, "reason": "Completed", "message": words } } }] })
    }

    fn complete() -> Value {
        json!({ "completionTime": at(100).to_string(),
            "conditions": [{ "type": "Complete", "status": "True", "lastTransitionTime": at(100).to_string() }] })
    }

    const VERIFIED: &str = r#"{"verified":{"mode":"Full","segmentsRead":1,"segments":1,"at":"2026-11-22T01:05:00Z","tampered":0}}"#;

    fn end(job: &DynamicObject, pods: &[DynamicObject], now: Timestamp) -> End {
        Sighting::of(job, pods.iter()).end(now)
    }

    fn reason(end: &End) -> Option<BackupReason> {
        if let End::Failed(failure) = end { Some(failure.reason) } else { None }
    }

    #[test]
    fn a_job_that_is_complete_before_its_pod_s_words_are_seen_has_not_failed_for_a_minute() {
        let job = job(&complete());

        assert_eq!(end(&job, &[], at(159)), End::NotYet);
        assert_eq!(reason(&end(&job, &[], at(161))), Some(BackupReason::AgentFailed));
        assert!(Sighting::of(&job, [].iter()).is_silent());
        let pod = pod(JOB, &said(VERIFIED, 0));
        assert!(matches!(end(&job, &[pod], at(161)), End::Said { .. }));
    }

    #[test]
    fn a_pod_of_another_owner_says_nothing_whatever_its_labels_are() {
        let forged = pod("another", &said(VERIFIED, 0));
        let job = job(&json!({}));

        assert_eq!(end(&job, &[forged], at(10)), End::NotYet);
    }

    #[test]
    fn words_of_success_of_a_pod_that_failed_are_none() {
        let failed = pod(JOB, &said(VERIFIED, 137));

        assert_eq!(reason(&end(&job(&json!({})), &[failed], at(10))), Some(BackupReason::AgentFailed));
    }

    #[test]
    fn a_job_that_kubernetes_ended_for_its_deadline_is_told_as_such() {
        let ended = job(&json!({ "conditions": [{ "type": "Failed", "status": "True",
            "reason": "DeadlineExceeded", "lastTransitionTime": at(100).to_string() }] }));

        assert_eq!(reason(&end(&ended, &[], at(100))), Some(BackupReason::DeadlineExceeded));
    }

    /// A Job that gave up while its pod ends, as Kubernetes has it from 1.31 on.
    fn failing(why: &str) -> DynamicObject {
        job(
            &json!({ "active": 0, "terminating": 1, "conditions": [{ "type": "FailureTarget", "status": "True",
            "reason": why, "lastTransitionTime": at(100).to_string() }] }),
        )
    }

    /// A pod that is to end by the 130th second, and whose kubelet says nothing more.
    fn ending(status: &Value) -> DynamicObject {
        let mut pod = pod(JOB, status);
        pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(130)));
        pod
    }

    fn runs() -> Value {
        json!({ "containerStatuses": [{ "name": "agent", "state": { "running": {} } }] })
    }

    #[test]
    fn an_agent_whose_node_is_dead_has_failed_as_soon_as_its_pod_should_have_ended() {
        for job in [failing("BackoffLimitExceeded"), job(&json!({ "active": 1 }))] {
            assert_eq!(end(&job, &[ending(&runs())], at(189)), End::NotYet);
            let End::Failed(failure) = end(&job, &[ending(&runs())], at(190)) else {
                panic!("it waits for ever")
            };
            assert_eq!(failure.reason, BackupReason::AgentFailed);
            assert!(failure.message.contains("its node does not answer"), "{}", failure.message);
        }
        let too_long = end(&failing("DeadlineExceeded"), &[ending(&runs())], at(190));
        assert_eq!(reason(&too_long), Some(BackupReason::DeadlineExceeded));
    }

    #[test]
    fn an_agent_that_is_being_ended_may_say_why_and_one_that_did_its_work_did() {
        let failing = failing("BackoffLimitExceeded");
        let words = r#"{"failure":{"reason":"StoreFull","message":"full"}}"#;

        assert_eq!(end(&failing, &[pod(JOB, &runs())], at(999)), End::NotYet, "nobody ended it yet");
        assert_eq!(
            reason(&end(&failing, &[ending(&said(words, 1))], at(999))),
            Some(BackupReason::StoreFull)
        );
        assert!(matches!(end(&failing, &[ending(&said(VERIFIED, 0))], at(999)), End::Said { .. }));
    }

    #[test]
    fn a_job_that_gave_up_and_whose_pod_is_gone_has_failed_before_kubernetes_says_so() {
        assert_eq!(end(&failing("BackoffLimitExceeded"), &[], at(159)), End::NotYet);
        assert_eq!(
            reason(&end(&failing("BackoffLimitExceeded"), &[], at(160))),
            Some(BackupReason::AgentFailed)
        );
        assert_eq!(
            reason(&end(&failing("DeadlineExceeded"), &[], at(100))),
            Some(BackupReason::DeadlineExceeded)
        );
    }

    #[test]
    fn a_pod_that_does_not_start_within_ten_minutes_fails_the_attempt_with_its_reason() {
        let waiting = pod(
            JOB,
            &json!({ "containerStatuses": [{ "name": "agent", "state": { "waiting": {
            "reason": "ImagePullBackOff", "message": "no such image" } } }] }),
        );
        let running =
            pod(JOB, &json!({ "containerStatuses": [{ "name": "agent", "state": { "running": {} } }] }));
        let job = job(&json!({ "active": 1 }));

        assert_eq!(end(&job, std::slice::from_ref(&waiting), at(599)), End::NotYet);
        let End::Failed(failure) = end(&job, &[waiting], at(600)) else { panic!("it waits for ever") };
        assert_eq!(failure.reason, BackupReason::NotStarted);
        assert!(failure.message.contains("ImagePullBackOff no such image"), "{}", failure.message);
        assert_eq!(end(&job, &[running], at(9999)), End::NotYet);
        assert_eq!(reason(&end(&job, &[], at(600))), Some(BackupReason::NotStarted));
    }

    #[test]
    fn a_job_that_is_gone_is_a_failed_attempt() {
        assert_eq!(reason(&Sighting::default().end(at(0))), Some(BackupReason::AgentFailed));
    }

    #[test]
    fn what_a_pod_says_of_its_failure_is_cut_and_has_no_control_characters() {
        let words = format!(
            r#"{{"failure":{{"reason":"StoreFull","message":"full\u001b[31m\n{}"}}}}"#,
            "å".repeat(2000)
        );

        let End::Failed(failure) = end(&job(&json!({})), &[pod(JOB, &said(&words, 1))], at(1)) else {
            panic!()
        };

        assert_eq!(failure.reason, BackupReason::StoreFull);
        assert!(failure.message.starts_with("full [31m å"), "{}", failure.message);
        assert!(failure.message.chars().count() <= plain::SENTENCE);
    }
}
