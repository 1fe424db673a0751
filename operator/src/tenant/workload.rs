//! Tells how database and journal stand, from what their pods say. Pure.

use kube::core::DynamicObject;
use serde::Deserialize;
use serde_json::Value;
use valv_crds::{
    condition::{ConditionType, Reason, Saying},
    database::Provider,
    reference::ROLE_LABEL,
};

use super::{
    check::Tenant,
    observe::{Observed, Rollout},
    redact::redact,
};
use crate::{io::kind::Kind, segmentation::Role};

/// What the database's pod said when it started.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseReport {
    /// PostgreSQL's identifier of the database.
    pub system_identifier: String,
    /// PostgreSQL's version.
    pub version: String,
    /// Digest of the roles file that it applied.
    #[serde(default)]
    pub roles_digest: String,
}

/// What the database's pod said when it started; absent until it did.
pub fn database_report(observed: &Observed) -> Option<DatabaseReport> {
    let message = init_message(database_pod(observed)?)?;
    serde_json::from_str(message).ok()
}

/// The database's pod.
pub fn database_pod(observed: &Observed) -> Option<&DynamicObject> {
    pods(observed, Role::Database).next()
}

/// Pods that play `role`.
pub fn pods(observed: &Observed, role: Role) -> impl Iterator<Item = &DynamicObject> {
    observed.all(Kind::Pod).map(AsRef::as_ref).filter(move |pod| {
        let labels = pod.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(ROLE_LABEL)).is_some_and(|value| value == role.as_str())
    })
}

fn init_message(pod: &DynamicObject) -> Option<&str> {
    let statuses = pod.data.pointer("/status/initContainerStatuses")?.as_array()?;
    let status = statuses.iter().find(|status| status["name"] == "initialise")?;
    let states = ["/state/terminated/message", "/lastState/terminated/message"];
    states.iter().find_map(|state| status.pointer(state)?.as_str())
}

/// What `DatabaseReady` says.
pub fn database(tenant: &Tenant, observed: &Observed) -> Saying {
    let kind = ConditionType::DatabaseReady;
    if tenant.database.provider == Provider::External {
        return Saying::yes(
            kind,
            Reason::External,
            format!(
                "{} is somebody else's to run; the journal's readiness shows whether it answers",
                tenant.database_host()
            ),
        );
    }
    if tenant.suspended {
        return suspended(kind, observed, Role::Database);
    }
    match observed.rollout(Kind::StatefulSet, "database") {
        Rollout::Complete { .. } => Saying::yes(
            kind,
            Reason::AsAsked,
            "the server answers inside its pod; by network it takes TLS only",
        ),
        Rollout::Absent => Saying::no(kind, Reason::Progressing, "the database is being made"),
        Rollout::Progressing { .. } => refusal(observed).unwrap_or_else(|| {
            let message = match database_pod(observed) {
                Some(pod) => format!("the pod {} is not ready yet{}", name(pod), trouble(pod, observed)),
                None => format!(
                    "the database's pod is not there: kubectl -n {} describe statefulset database says why",
                    tenant.namespace
                ),
            };
            Saying::no(kind, Reason::DatabaseUnavailable, message)
        }),
    }
}

/// What is said of pods that are to rest: only when the last has stopped do they.
fn suspended(kind: ConditionType, observed: &Observed, role: Role) -> Saying {
    match pods(observed, role).next() {
        Some(pod) => Saying::no(
            kind,
            Reason::Progressing,
            format!("spec.suspended is true: the pod {} is there until it has stopped", name(pod)),
        ),
        None => Saying::no(kind, Reason::Suspended, "spec.suspended is true: it is scaled to zero"),
    }
}

/// Whether no pod of journal or database is there.
pub fn is_at_rest(observed: &Observed) -> bool {
    [Role::Journal, Role::Database].iter().all(|&role| pods(observed, role).next().is_none())
}

/// Why `initialise` would not start the database, if it did not.
fn refusal(observed: &Observed) -> Option<Saying> {
    #[derive(Deserialize)]
    struct Failed {
        error: String,
    }
    let kind = ConditionType::DatabaseReady;
    let failed: Failed = serde_json::from_str(init_message(database_pod(observed)?)?).ok()?;
    let is_empty = failed.error.contains("is empty, but the tenant has a database");
    let reason = if is_empty { Reason::VolumeEmpty } else { Reason::DatabaseFailed };
    Some(Saying::no(kind, reason, redact(&failed.error, observed.secret_values())))
}

/// What keeps `pod` from being ready, to be put behind a sentence: no node, or a container that does not run.
fn trouble(pod: &DynamicObject, observed: &Observed) -> String {
    let unscheduled = items(pod, "/status/conditions")
        .find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False")
        .and_then(|condition| condition["message"].as_str());
    let lists = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let mut containers = lists.iter().flat_map(|list| items(pod, list));
    let why = unscheduled
        .map(str::to_owned)
        .or_else(|| containers.find_map(|container| stopped(container, observed)));
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

/// Why a container does not run, as the kubelet says it: what it waits for, and how it ended before.
fn stopped(container: &Value, observed: &Observed) -> Option<String> {
    let clean = |words: &str| redact(words, observed.secret_values());
    let waiting = container.pointer("/state/waiting");
    let reason = waiting.and_then(|waiting| waiting["reason"].as_str());
    let is_starting = ["ContainerCreating", "PodInitializing"];
    let reason = reason.filter(|reason| !is_starting.contains(reason));
    let ended = ["/state/terminated", "/lastState/terminated"].iter().find_map(|end| container.pointer(end));
    let ended = ended.filter(|ended| ended["exitCode"] != 0 && container["ready"] != true).map(|ended| {
        let words = ended["message"].as_str().map(|words| format!(": {}", last_lines(&clean(words))));
        format!("ended with exit code {}{}", ended["exitCode"], words.unwrap_or_default())
    });
    // The back-off's own message only counts seconds.
    let message = waiting.filter(|_| ended.is_none()).and_then(|waiting| waiting["message"].as_str());
    let name = container["name"].as_str().unwrap_or_default();
    let all: Vec<_> = [reason.map(str::to_owned), message.map(clean), ended].into_iter().flatten().collect();
    (!all.is_empty()).then(|| format!("{name}: {}", all.join(", ")))
}

fn items<'a>(pod: &'a DynamicObject, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    pod.data.pointer(list).and_then(Value::as_array).into_iter().flatten()
}

fn name(pod: &DynamicObject) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

/// What `JournalReady` says.
pub fn journal(tenant: &Tenant, observed: &Observed) -> Saying {
    let kind = ConditionType::JournalReady;
    if tenant.suspended {
        return suspended(kind, observed, Role::Journal);
    }
    let serving = observed.text(Kind::Deployment, "journal", IMAGE).unwrap_or_default();
    match observed.rollout(Kind::Deployment, "journal") {
        Rollout::Absent => Saying::no(kind, Reason::Progressing, "the journal is not started yet"),
        Rollout::Complete { ready } if serving == tenant.journal.image => {
            Saying::yes(kind, Reason::AsAsked, format!("{ready} of {ready} pods of {serving} answer"))
        }
        Rollout::Complete { ready } => Saying::no(
            kind,
            Reason::Progressing,
            format!("{ready} pods of {serving} answer; {} does not serve yet", tenant.journal.image),
        ),
        Rollout::Progressing { ready } => {
            let refused = replica_failure(observed);
            let reason = if refused.is_some() { Reason::Refused } else { Reason::JournalUnavailable };
            let mut troubles = pods(observed, Role::Journal).map(|pod| trouble(pod, observed));
            let trouble = troubles.find(|why| !why.is_empty());
            let why = refused.map(|why| format!(": {why}")).or(trouble).unwrap_or_default();
            Saying::no(
                kind,
                reason,
                format!(
                    "{ready} of {} pods answer; {serving} is being rolled out{why}",
                    tenant.journal.replicas
                ),
            )
        }
    }
}

/// Where the image of the journal stands in its Deployment.
pub const IMAGE: &str = "/spec/template/spec/containers/0/image";

/// Why no pod could be made: quota, admission.
fn replica_failure(observed: &Observed) -> Option<String> {
    let conditions = observed.field(Kind::Deployment, "journal", "/status/conditions")?.as_array()?;
    let failure = conditions
        .iter()
        .find(|condition| condition["type"] == "ReplicaFailure" && condition["status"] == "True")?;
    failure["message"].as_str().map(str::to_owned)
}

/// The pods of the Job `job`.
pub fn pods_of<'a>(observed: &'a Observed, job: &'a str) -> impl Iterator<Item = &'a DynamicObject> {
    observed.all(Kind::Pod).map(AsRef::as_ref).filter(move |pod| job_of(pod) == job)
}

/// What keeps a Job from its work, to be put behind a sentence.
pub fn job_trouble(tenant: &Tenant, observed: &Observed, job: &str) -> String {
    match pods_of(observed, job).next() {
        Some(pod) => trouble(pod, observed),
        None => format!(
            ": its pod is not there; if it stays so, kubectl -n {} describe job {job} says why",
            tenant.namespace
        ),
    }
}

/// Name of the Job that made `pod`; of the pod itself if none did.
pub fn job_of(pod: &DynamicObject) -> String {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get("batch.kubernetes.io/job-name")).cloned().unwrap_or_else(|| name(pod))
}

/// Whether no container of `pod` runs or will run.
pub fn has_ended(pod: &DynamicObject) -> bool {
    pod.data.pointer("/status/phase").is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
}

/// What the Job's newest pod left as its last lines, without what is secret.
pub fn last_words(observed: &Observed, job: &str) -> Option<String> {
    let newest = pods_of(observed, job).max_by_key(|pod| pod.metadata.creation_timestamp.clone())?;
    items(newest, "/status/containerStatuses").find_map(|status| {
        let message = status.pointer("/state/terminated/message")?.as_str()?;
        Some(last_lines(&redact(message, observed.secret_values())))
    })
}

/// The last lines of `text`, on one line and short enough for a condition.
fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(5)..].join(" | ");
    let start = last.char_indices().rev().nth(999).map_or(0, |(index, _)| index);
    last[start..].to_owned()
}
