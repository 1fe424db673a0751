//! Looks how the Jobs that copy stand. Reads only.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::ResourceExt;
use valv_crds::{backup::BackupReason, reference::ROLE_LABEL};

use super::{Context, objects};
use crate::{
    agent::{
        copy::{Arrived, Failed, LastWords},
        last_words::Failure,
        verify::Depth,
    },
    backup::sighting,
    io::{cluster::Error, kind::Kind},
    segmentation::Role,
};

/// The newest Job of each copy, by UID of the backup and name of the store.
pub type Jobs = BTreeMap<(String, String), Seen>;

/// A Job that copies.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Its number; the first is 1.
    pub number: i32,
    /// How much it reads back; `None`: an older operator made it.
    pub depth: Option<Depth>,
    /// How it stands.
    pub standing: Standing,
}

impl Seen {
    /// Which of `stores` did not answer, and since when the Job that says so is over. Whoever names another is not heard.
    pub fn unanswered(&self, stores: [&str; 2]) -> Option<(&str, Option<Timestamp>)> {
        let Standing::Failed { unanswered: Some(named), at, .. } = &self.standing else { return None };
        stores.contains(&named.as_str()).then_some((named, *at))
    }
}

/// How a Job stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// It runs, or waits to.
    Active,
    /// It is there, and read back, as its pod says.
    Arrived(Arrived),
    /// It failed.
    Failed {
        /// How.
        failure: Failure,
        /// The store that did not answer, as its pod says.
        unanswered: Option<String>,
        /// When.
        at: Option<Timestamp>,
    },
}

/// Looks: Jobs first, and then pods. A pod has said its last words before its Job is over, so they are seen.
///
/// # Errors
/// If the API server refuses it, or does not answer.
pub async fn observe(context: &Context, now: Timestamp) -> Result<Jobs, Error> {
    let namespace = &context.settings.operator_namespace;
    let labels = format!("{ROLE_LABEL}={}", Role::Copy.as_str());
    let jobs = context.cluster.list_in::<Job>(Kind::Job, namespace, &labels).await?;
    let pods = context.cluster.list_in::<Pod>(Kind::Pod, namespace, &labels).await?;
    Ok(newest(&jobs, &pods, now))
}

/// Has copies that are being begun take their places, as if their Jobs were there.
pub fn count_as_begun(jobs: &mut Jobs, beginning: impl IntoIterator<Item = (String, String)>) {
    for key in beginning {
        let number = jobs.get(&key).map_or(1, |seen| seen.number.saturating_add(1));
        let begun = Seen { name: String::new(), number, depth: None, standing: Standing::Active };
        jobs.insert(key, begun);
    }
}

/// The newest Job of each copy.
fn newest(jobs: &[Job], pods: &[Pod], now: Timestamp) -> Jobs {
    let mut newest = Jobs::new();
    for job in jobs {
        let label = |name: &str| job.labels().get(name).cloned();
        let number = label(objects::ATTEMPT_LABEL).and_then(|number| number.parse().ok());
        let (Some(backup), Some(store), Some(number)) =
            (label(objects::BACKUP_LABEL), label(objects::STORE_LABEL), number)
        else {
            continue;
        };
        let key = (backup, store);
        if newest.get(&key).is_none_or(|seen: &Seen| seen.number < number) {
            let depth = job.annotations().get(objects::DEPTH_ANNOTATION);
            let depth = depth.and_then(|depth| depth.parse().ok());
            let standing = standing(job, pods, now);
            newest.insert(key, Seen { name: job.name_any(), number, depth, standing });
        }
    }
    newest
}

fn standing(job: &Job, pods: &[Pod], now: Timestamp) -> Standing {
    let status = job.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ended = conditions.iter().find(|condition| {
        ["Complete", "Failed"].contains(&condition.type_.as_str()) && condition.status == "True"
    });
    // By its owner's UID: a name can be another's.
    let is_its =
        |pod: &&Pod| pod.owner_references().iter().any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref());
    let pod = pods.iter().find(is_its);
    let words = pod.and_then(last_words);
    let silent = |message: String, at: Option<Timestamp>| Standing::Failed {
        failure: Failure { reason: BackupReason::AgentFailed, message },
        unanswered: None,
        at,
    };
    let Some(ended) = ended else {
        // A Job whose pod is on a dead node does not end before somebody takes the node away. Should its agent run all the
        // same, it puts the same bytes.
        let ends_by = pod.and_then(|pod| pod.metadata.deletion_timestamp.as_ref()).map(|time| time.0);
        if words.is_none() && sighting::is_lost(ends_by, now) {
            return silent(sighting::NODE_SILENT.to_owned(), ends_by);
        }
        return Standing::Active;
    };
    let at = ended.last_transition_time.as_ref().map(|time| time.0);
    match words {
        Some(LastWords::Failure(Failed { failure, unanswered })) => {
            Standing::Failed { failure, unanswered, at }
        }
        Some(LastWords::Copied(arrived)) if ended.type_ == "Complete" => Standing::Arrived(arrived),
        Some(LastWords::Copied(_)) | None => {
            let why = ended.reason.clone().unwrap_or_default();
            silent(format!("the copying pod left no result: the Job ended as {} {why}", ended.type_), at)
        }
    }
}

fn last_words(pod: &Pod) -> Option<LastWords> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let agent = statuses.iter().find(|status| status.name == objects::CONTAINER)?;
    let message = agent.state.as_ref()?.terminated.as_ref()?.message.as_ref()?;
    serde_json::from_str(message).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// The words of a pod that copied.
    pub fn arrived() -> Arrived {
        let blake3 = "0".repeat(64);
        serde_json::from_value(json!({
            "manifest": { "key": "k", "version": null, "size": 2, "blake3": blake3 },
            "sent": 3, "lockedUntil": null,
            "verified": { "mode": "Full", "segmentsRead": 3, "segments": 3, "at": "2026-11-22T02:00:00Z",
                "tampered": 0 },
        }))
        .unwrap()
    }

    fn job(number: i32, ended: Option<&str>) -> Job {
        let conditions = ended.map(
            |kind| json!([{ "type": kind, "status": "True", "lastTransitionTime": "2026-11-22T02:00:00Z" }]),
        );
        serde_json::from_value(json!({
            "metadata": { "name": format!("copy-x-{number}"), "uid": format!("job-{number}"), "labels": {
                "valv.eu/backup": "u1", "valv.eu/store": "frankfurt", "valv.eu/attempt": number.to_string() },
                "annotations": { "valv.eu/depth": "sample:3" } },
            "status": { "conditions": conditions },
        }))
        .unwrap()
    }

    fn pod(owner: &str, words: &LastWords) -> Pod {
        let message = serde_json::to_string(words).unwrap();
        serde_json::from_value(json!({
            "metadata": { "name": "p", "ownerReferences": [
                { "apiVersion": "batch/v1", "kind": "Job", "name": "copy-x-1", "uid": owner }] },
            "status": { "containerStatuses": [{
                "name": "agent", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
                "state": { "terminated": { "exitCode": 0, "message": message } } }] },
        }))
        .unwrap()
    }

    fn seen(jobs: &[Job], pods: &[Pod]) -> Seen {
        seen_at("2026-11-22T03:00:00Z", jobs, pods)
    }

    fn seen_at(now: &str, jobs: &[Job], pods: &[Pod]) -> Seen {
        newest(jobs, pods, now.parse().unwrap())[&("u1".to_owned(), "frankfurt".to_owned())].clone()
    }

    #[test]
    fn the_newest_attempt_counts_and_its_own_pod_s_words() {
        let words = LastWords::Copied(arrived());
        let jobs = [job(1, Some("Failed")), job(2, Some("Complete"))];

        let found = seen(&jobs, &[pod("job-1", &words), pod("job-2", &words)]);

        assert_eq!((found.number, found.depth), (2, Some(Depth::Sample(3))));
        assert_eq!(found.standing, Standing::Arrived(arrived()));
        assert_eq!(seen(&[job(1, None)], &[]).standing, Standing::Active);
    }

    #[test]
    fn a_store_that_did_not_answer_is_one_of_the_two_that_were_asked() {
        let said = |unanswered: Option<&str>| {
            let failure = Failure { reason: BackupReason::StoreUnavailable, message: String::new() };
            let unanswered = unanswered.map(str::to_owned);
            let words = LastWords::Failure(Failed { failure, unanswered });
            let seen = seen(&[job(1, Some("Failed"))], &[pod("job-1", &words)]);
            seen.unanswered(["helsinki", "frankfurt"]).map(|(store, at)| (store.to_owned(), at))
        };
        let ended = "2026-11-22T02:00:00Z".parse().ok();

        assert_eq!(said(Some("helsinki")), Some(("helsinki".to_owned(), ended)));
        assert_eq!(said(Some("oslo")), None);
        assert_eq!(said(None), None, "it answered, and refused");
    }

    #[test]
    fn words_of_another_s_pod_or_of_a_failed_job_are_no_copy() {
        let words = LastWords::Copied(arrived());

        for (job, pod) in [
            (job(1, Some("Complete")), pod("another", &words)),
            (job(1, Some("Failed")), pod("job-1", &words)),
        ] {
            let standing = seen(&[job], &[pod]).standing;
            assert!(matches!(standing, Standing::Failed { .. }), "{standing:?}");
        }
    }

    #[test]
    fn a_copy_on_a_dead_node_has_failed_although_its_job_never_says_so() {
        let mut job = job(1, None);
        let ending = json!([{ "type": "FailureTarget", "status": "True" }]);
        job.status = Some(serde_json::from_value(json!({ "conditions": ending })).unwrap());
        let mut pod = pod("job-1", &LastWords::Copied(arrived()));
        pod.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-11-22T02:00:00Z")).unwrap());
        pod.status = None;

        let at = |now: &str| seen_at(now, &[job.clone()], &[pod.clone()]).standing;

        assert_eq!(at("2026-11-22T02:00:30Z"), Standing::Active);
        let Standing::Failed { failure, at, .. } = at("2026-11-22T02:01:00Z") else {
            panic!("it waits for ever")
        };
        assert_eq!((failure.reason, at), (BackupReason::AgentFailed, "2026-11-22T02:00:00Z".parse().ok()));
    }
}
