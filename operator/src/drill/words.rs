//! How the Jobs of a drill stand, from the Jobs and what their pods said last. Pure.

use jiff::Timestamp;
use kube::{ResourceExt, core::DynamicObject};
use serde_json::Value;

use crate::{
    agent::drill_words::DrillWords,
    backup::sighting::{controller, ends_by, is_lost},
    io::{
        cache::Objects,
        kind::{Key, Kind},
    },
};

/// How a Job stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Stood {
    /// It is not there.
    Absent,
    /// It runs, or waits to.
    Runs {
        /// What keeps its pod from starting.
        trouble: Option<String>,
    },
    /// Its pod ended and left words.
    Said {
        /// What it said.
        words: Box<DrillWords>,
        /// When its container started, and ended.
        times: Option<(Timestamp, Timestamp)>,
    },
    /// Its pod ended and left none.
    Silent {
        /// How, in the kubelet's words.
        how: String,
    },
}

/// How the Job `name` stands at `now`.
pub fn stood(objects: &Objects, name: &str, now: Timestamp) -> Stood {
    let Some(job) = objects.get(&Key::new(Kind::Job, name)) else { return Stood::Absent };
    let pods = objects.iter().filter(|(key, _)| key.kind == Kind::Pod).map(|(_, pod)| pod.as_ref());
    // By the Job's UID: names and labels anybody may write.
    let uid = job.uid();
    let of_job = pods.filter(|pod| uid.is_some() && controller(pod) == uid.as_deref());
    let pod = of_job.max_by_key(|pod| pod.creation_timestamp());
    if let Some(terminated) = pod.and_then(|pod| agent(pod)?.pointer("/state/terminated")) {
        let time = |field: &str| terminated[field].as_str().and_then(|text| text.parse().ok());
        let words = terminated["message"].as_str().and_then(|text| serde_json::from_str(text).ok());
        return match words
            .filter(|words| terminated["exitCode"] == 0 || matches!(words, DrillWords::Failure(_)))
        {
            Some(words) => {
                Stood::Said { words: Box::new(words), times: time("startedAt").zip(time("finishedAt")) }
            }
            None => Stood::Silent {
                how: format!(
                    "{}, exit code {}",
                    terminated["reason"].as_str().unwrap_or("no reason is known"),
                    terminated["exitCode"]
                ),
            },
        };
    }
    if has_failed(job) {
        let how = pod.and_then(|pod| pod.data.pointer("/status/message")?.as_str().map(str::to_owned));
        let how = how.or_else(|| condition(job, "Failed")?["message"].as_str().map(str::to_owned));
        return Stood::Silent { how: how.unwrap_or_else(|| "its pod is gone".to_owned()) };
    }
    // Kubernetes calls its Job failed only when it has ended, which on a dead node it never does.
    if is_lost(pod.and_then(ends_by), now) {
        return Stood::Silent { how: "its pod was to end and does not: its node does not answer".to_owned() };
    }
    Stood::Runs { trouble: pod.and_then(trouble) }
}

/// Whether a container of the Job `name` has begun: its pod has a node, its images, and all its volumes.
pub fn has_begun(objects: &Objects, name: &str) -> bool {
    let uid = objects.get(&Key::new(Kind::Job, name)).and_then(|job| job.uid());
    let pods = objects.iter().filter(|(key, _)| key.kind == Kind::Pod).map(|(_, pod)| pod.as_ref());
    let mut of_job = pods.filter(|pod| uid.is_some() && controller(pod) == uid.as_deref());
    of_job.any(|pod| {
        let lists = ["/status/initContainerStatuses", "/status/containerStatuses"];
        let statuses = lists.iter().filter_map(|list| pod.data.pointer(list)?.as_array()).flatten();
        let begun =
            |status: &Value| ["running", "terminated"].iter().any(|state| status["state"][state].is_object());
        statuses.into_iter().any(begun)
    })
}

fn condition<'a>(job: &'a DynamicObject, kind: &str) -> Option<&'a Value> {
    let conditions = job.data.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Whether a Job ended without a pod that says how. One that is complete has a pod that says it, sooner or later.
fn has_failed(job: &DynamicObject) -> bool {
    condition(job, "Failed").is_some()
}

fn agent(pod: &DynamicObject) -> Option<&Value> {
    let statuses = pod.data.pointer("/status/containerStatuses")?.as_array()?;
    statuses.iter().find(|status| status["name"] == "agent")
}

/// What keeps `pod` from starting, as the scheduler or the kubelet says it.
fn trouble(pod: &DynamicObject) -> Option<String> {
    let list = |pointer: &str| pod.data.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let unscheduled = list("/status/conditions")
        .find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False")
        .and_then(|condition| condition["message"].as_str());
    let waiting = ["/status/initContainerStatuses", "/status/containerStatuses"]
        .into_iter()
        .flat_map(list)
        .filter_map(|status| status.pointer("/state/waiting"))
        .filter(|waiting| {
            !["ContainerCreating", "PodInitializing"]
                .contains(&waiting["reason"].as_str().unwrap_or_default())
        })
        .find_map(|waiting| waiting["message"].as_str().or_else(|| waiting["reason"].as_str()));
    unscheduled.or(waiting).map(|words| words.chars().take(500).collect())
}

/// What keeps the pods of `role` from being ready, as the scheduler or the kubelet says it; of a container that ended
/// its exit code, and none of its own words.
pub fn trouble_of(objects: &Objects, role: &str) -> Option<String> {
    let pods = objects.iter().filter(|(key, _)| key.kind == Kind::Pod).map(|(_, pod)| pod.as_ref());
    let mut of_role =
        pods.filter(|pod| pod.labels().get(valv_crds::reference::ROLE_LABEL).is_some_and(|its| its == role));
    of_role.find_map(|pod| {
        let statuses = pod.data.pointer("/status/containerStatuses").and_then(Value::as_array);
        let ended = statuses.into_iter().flatten().find_map(|status| {
            let states = ["/state/terminated", "/lastState/terminated"];
            let ended = states.iter().find_map(|state| status.pointer(state))?;
            Some(format!("{} ended with exit code {}", status["name"].as_str()?, ended["exitCode"]))
        });
        let all: Vec<String> = [ended, trouble(pod)].into_iter().flatten().collect();
        (!all.is_empty()).then(|| all.join(", "))
    })
}

/// When the newest pod of `role` became ready.
pub fn ready_since(objects: &Objects, role: &str) -> Option<Timestamp> {
    let pods = objects.iter().filter(|(key, _)| key.kind == Kind::Pod).map(|(_, pod)| pod);
    let of_role =
        pods.filter(|pod| pod.labels().get(valv_crds::reference::ROLE_LABEL).is_some_and(|its| its == role));
    let ready = of_role.filter_map(|pod| {
        let conditions = pod.data.pointer("/status/conditions")?.as_array()?;
        let ready = conditions.iter().find(|said| said["type"] == "Ready" && said["status"] == "True")?;
        ready["lastTransitionTime"].as_str()?.parse().ok()
    });
    ready.max()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    pub fn put(objects: &mut Objects, kind: Kind, name: &str, value: Value) {
        let mut object = json!({
            "apiVersion": kind.api_version(), "kind": kind.as_str(),
            "metadata": { "name": name, "namespace": "drill-ada-20261122t050000z", "uid": format!("{name}-uid") },
        });
        for (field, part) in value.as_object().unwrap() {
            if field == "metadata" {
                for (field, part) in part.as_object().unwrap() {
                    object["metadata"][field] = part.clone();
                }
            } else {
                object[field] = part.clone();
            }
        }
        objects.insert(Key::new(kind, name), Arc::new(serde_json::from_value(object).unwrap()));
    }

    /// A Job whose pod ended with `message`.
    pub fn ended(objects: &mut Objects, job: &str, message: &str) {
        put(objects, Kind::Job, job, json!({}));
        let terminated = json!({ "exitCode": 0, "reason": "Completed", "message": message,
            "startedAt": "2026-11-22T09:31:00Z", "finishedAt": "2026-11-22T09:33:00Z" });
        put(
            objects,
            Kind::Pod,
            &format!("{job}-x"),
            json!({
                "metadata": { "ownerReferences": [{
                    "apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": format!("{job}-uid"), "controller": true,
                }]},
                "status": { "containerStatuses": [{ "name": "agent", "state": { "terminated": terminated } }] },
            }),
        );
    }

    #[test]
    fn a_pod_that_left_no_words_is_told_in_the_kubelets_words_and_not_in_its_own() {
        let mut objects = Objects::default();
        ended(&mut objects, "restore", "thread 'main' panicked: Patienten");

        let Stood::Silent { how } = stood(&objects, "restore", at(0)) else { panic!("it said something") };

        assert_eq!(how, "Completed, exit code 0");
    }

    #[test]
    fn a_pod_that_only_says_to_be_the_jobs_is_not_listened_to() {
        let mut objects = Objects::default();
        put(&mut objects, Kind::Job, "judge", json!({}));
        let words = json!({ "failure": { "reason": "CannotRestore", "message": "so it says" } }).to_string();
        let pod = json!({
            "metadata": { "labels": { "batch.kubernetes.io/job-name": "judge" } },
            "status": { "containerStatuses": [{ "name": "agent", "state": { "terminated": {
                "exitCode": 0, "message": words } } }] },
        });
        put(&mut objects, Kind::Pod, "judge-y", pod);

        assert_eq!(stood(&objects, "judge", at(0)), Stood::Runs { trouble: None });
    }

    #[test]
    fn a_journal_that_crashes_is_told_by_its_exit_code_and_not_by_its_log() {
        let mut objects = Objects::default();
        let terminated = json!({ "exitCode": 101, "message": "panicked at Anna Andersson" });
        let waiting =
            json!({ "reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container" });
        let pod = json!({
            "metadata": { "labels": { "valv.eu/role": "journal" } },
            "status": { "containerStatuses": [
                { "name": "journal", "state": { "waiting": waiting }, "lastState": { "terminated": terminated } },
            ]},
        });
        put(&mut objects, Kind::Pod, "journal-x", pod);

        let trouble = trouble_of(&objects, "journal").unwrap();

        assert_eq!(trouble, "journal ended with exit code 101, back-off 10s restarting failed container");
        assert_eq!(trouble_of(&objects, "database"), None);
    }

    #[test]
    fn a_job_that_is_there_and_whose_pod_runs_is_waited_for() {
        let mut objects = Objects::default();
        assert_eq!(stood(&objects, "judge", at(0)), Stood::Absent);

        put(&mut objects, Kind::Job, "judge", json!({}));
        assert_eq!(stood(&objects, "judge", at(0)), Stood::Runs { trouble: None });

        let failed = json!({ "status": { "conditions": [
            { "type": "Failed", "status": "True", "message": "Job was active longer than specified deadline" },
        ]}});
        put(&mut objects, Kind::Job, "judge", failed);
        let Stood::Silent { how } = stood(&objects, "judge", at(0)) else { panic!("it runs") };
        assert!(how.contains("longer than"), "{how}");
    }

    #[test]
    fn an_agent_whose_node_is_dead_left_no_words_as_soon_as_its_pod_should_have_ended() {
        let mut objects = Objects::default();
        put(
            &mut objects,
            Kind::Job,
            "restore",
            json!({ "status": { "conditions": [
                { "type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded" },
            ]}}),
        );
        let pod = json!({
            "metadata": {
                "deletionTimestamp": at(30).to_string(),
                "ownerReferences": [{
                    "apiVersion": "batch/v1", "kind": "Job", "name": "restore", "uid": "restore-uid", "controller": true,
                }],
            },
            "status": { "containerStatuses": [{ "name": "agent", "state": { "running": {} } }] },
        });
        put(&mut objects, Kind::Pod, "restore-x", pod);

        assert_eq!(stood(&objects, "restore", at(89)), Stood::Runs { trouble: None }, "it may say why");
        let Stood::Silent { how } = stood(&objects, "restore", at(90)) else { panic!("it is waited for") };
        assert!(how.contains("its node does not answer"), "{how}");

        // Its words come all the same, and count.
        ended(
            &mut objects,
            "restore",
            r#"{ "failure": { "reason": "CannotRestore", "message": "so it says" } }"#,
        );
        assert!(matches!(stood(&objects, "restore", at(90)), Stood::Said { .. }));
    }
}
