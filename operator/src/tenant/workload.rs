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
        return Saying::no(kind, Reason::Suspended, "spec.suspended is true: the database is scaled to zero");
    }
    match observed.rollout(Kind::StatefulSet, "database") {
        Rollout::Complete { .. } => Saying::yes(kind, Reason::AsAsked, "the database answers"),
        Rollout::Absent => Saying::no(kind, Reason::Progressing, "the database is being made"),
        Rollout::Progressing { .. } => database_trouble(observed).unwrap_or_else(|| {
            Saying::no(
                kind,
                Reason::DatabaseUnavailable,
                match database_pod(observed) {
                    Some(pod) => format!(
                        "the pod {} is not ready yet{}",
                        pod.metadata.name.clone().unwrap_or_default(),
                        pending(pod)
                    ),
                    None => "the database's pod is not there yet".to_owned(),
                },
            )
        }),
    }
}

fn database_trouble(observed: &Observed) -> Option<Saying> {
    #[derive(Deserialize)]
    struct Failed {
        error: String,
    }
    let kind = ConditionType::DatabaseReady;
    let failed: Failed = serde_json::from_str(init_message(database_pod(observed)?)?).ok()?;
    let is_empty = failed.error.contains("is empty, but the tenant has a database");
    let reason = if is_empty { Reason::VolumeEmpty } else { Reason::DatabaseFailed };
    Some(Saying::no(kind, reason, failed.error))
}

/// Why a pod waits for a node, if it does.
fn pending(pod: &DynamicObject) -> String {
    let conditions = pod.data.pointer("/status/conditions").and_then(Value::as_array);
    let unscheduled = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False");
    let message = unscheduled.and_then(|condition| condition["message"].as_str());
    message.map(|message| format!(": {message}")).unwrap_or_default()
}

/// What `JournalReady` says.
pub fn journal(tenant: &Tenant, observed: &Observed) -> Saying {
    let kind = ConditionType::JournalReady;
    if tenant.suspended {
        return Saying::no(kind, Reason::Suspended, "spec.suspended is true: the journal is scaled to zero");
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
            let pending = pods(observed, Role::Journal).map(pending).find(|why| !why.is_empty());
            let why = refused.map(|why| format!(": {why}")).or(pending).unwrap_or_default();
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

/// What the Job's newest pod left as its last lines.
pub fn last_words(observed: &Observed, job: &str) -> String {
    let pods = observed.all(Kind::Pod).filter(|pod| {
        let labels = pod.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get("batch.kubernetes.io/job-name")).is_some_and(|name| name == job)
    });
    let newest = pods.max_by_key(|pod| pod.metadata.creation_timestamp.clone());
    newest
        .and_then(|pod| {
            let statuses = pod.data.pointer("/status/containerStatuses")?.as_array()?;
            statuses.iter().find_map(|status| {
                let message = status.pointer("/state/terminated/message")?.as_str()?;
                Some(last_lines(message))
            })
        })
        .unwrap_or_else(|| "none were left".to_owned())
}

/// The last lines of `text`, on one line and short enough for a condition.
fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(5)..].join(" | ");
    let start = last.char_indices().rev().nth(999).map_or(0, |(index, _)| index);
    last[start..].to_owned()
}
