//! Says how a tenant stands: conditions by the rules of kstatus, versions, digests, and events for what changed.
//!
//! Input: the tenant, what was observed, the plan, what became of it. Output: a status. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;
use valv_crds::{
    JournalTenantStatus,
    condition::{ConditionType, Reason, Saying, Truth},
    tenant::{DatabaseStatus, JournalStatus},
};

use super::{apply::Outcome, check::Tenant, observe::Observed, plan::Plan, workload};
use crate::{io::kind::Kind, segmentation::Role};

/// The status of `tenant` after `plan` was carried out with `outcome`.
pub fn status(
    tenant: &Tenant,
    observed: &Observed,
    plan: &Plan,
    outcome: &Outcome,
    now: Timestamp,
) -> JournalTenantStatus {
    let standing = tenant.object.status.clone().unwrap_or_default();
    let mut sayings = plan.sayings.clone();
    outdate(&mut sayings, outcome);
    let ready = ready(tenant, &sayings, outcome);
    sayings.retain(|saying| saying.kind != ConditionType::Ready);
    sayings.extend(kstatus(&ready));
    sayings.insert(0, ready);
    let generation = tenant.object.metadata.generation;
    let mut conditions: Vec<Condition> =
        sayings.iter().map(|saying| saying.dated(&standing.conditions, generation, now)).collect();
    // What this plan did not come to speak of stands as it was said last, but for what is only present while it is so.
    let transient = [ConditionType::Reconciling.as_str(), ConditionType::Stalled.as_str()];
    let unspoken = standing.conditions.iter().filter(|condition| {
        !transient.contains(&condition.type_) && !conditions.iter().any(|said| said.type_ == condition.type_)
    });
    let unspoken: Vec<_> = unspoken.cloned().collect();
    conditions.extend(unspoken);
    let node_port =
        observed.field(Kind::Service, "journal", "/spec/ports/0/nodePort").and_then(Value::as_i64);
    let through_node =
        tenant.access.as_ref().is_none_or(|access| access.gateway.is_none() && access.ingress.is_none());
    let node_port = node_port.filter(|_| through_node).and_then(|port| i32::try_from(port).ok());
    JournalTenantStatus {
        observed_generation: generation,
        namespace: Some(tenant.namespace.clone()),
        url: Some(match node_port {
            Some(port) => format!("https://{}:{port}", tenant.host),
            None => format!("https://{}", tenant.host),
        }),
        journal: JournalStatus {
            image: observed.text(Kind::Deployment, "journal", workload::IMAGE).map(str::to_owned),
            image_digest: image_digest(observed, Role::Journal, "journal").or(standing.journal.image_digest),
            migrated: if plan.migrated.is_empty() {
                standing.journal.migrated
            } else {
                plan.migrated.clone()
            },
            ready_replicas: i32::try_from(observed.rollout(Kind::Deployment, "journal").ready())
                .unwrap_or_default(),
            node_port,
        },
        database: DatabaseStatus {
            version: workload::database_report(observed)
                .map(|report| report.version)
                .or(standing.database.version),
            image_digest: image_digest(observed, Role::Database, "postgresql")
                .or(standing.database.image_digest),
            system_identifier: plan.system_identifier.clone().or(standing.database.system_identifier),
            password_generation: plan.password_generation.or(standing.database.password_generation),
        },
        certificates: if plan.certificates.generation.is_some() {
            plan.certificates.clone()
        } else {
            standing.certificates
        },
        conditions,
    }
}

/// What was seen of a workload before it was changed is not said of it afterwards.
fn outdate(sayings: &mut [Saying], outcome: &Outcome) {
    let of = |kind: ConditionType| match kind {
        ConditionType::DatabaseReady => Some(Kind::StatefulSet),
        ConditionType::JournalReady => Some(Kind::Deployment),
        ConditionType::Ready
        | ConditionType::Reconciling
        | ConditionType::Stalled
        | ConditionType::NamespaceReady
        | ConditionType::ReferencesResolved
        | ConditionType::SecretsIntact
        | ConditionType::CertificatesValid
        | ConditionType::VolumesReady
        | ConditionType::SchemaCurrent
        | ConditionType::PasswordsCurrent
        | ConditionType::HostGranted => None,
    };
    for saying in sayings.iter_mut().filter(|saying| saying.is_true()) {
        if of(saying.kind).is_some_and(|workload| outcome.changed.contains(&workload)) {
            *saying = Saying::no(
                saying.kind,
                Reason::Progressing,
                "a change was applied just now and is being rolled out",
            );
        }
    }
}

/// The whole: the first thing that is not as asked, and nobody needs to look further.
fn ready(tenant: &Tenant, sayings: &[Saying], outcome: &Outcome) -> Saying {
    if let Some(said) = sayings.iter().find(|saying| saying.kind == ConditionType::Ready) {
        return said.clone();
    }
    if let Some(refusal) = outcome.refused.first() {
        return Saying::no(ConditionType::Ready, Reason::Refused, refusal.clone());
    }
    let mut wrong = sayings.iter().filter(|saying| saying.truth != Truth::True);
    let stuck = wrong.clone().find(|saying| is_stuck(saying.reason));
    if stuck.is_none() && tenant.suspended {
        let message = "spec.suspended is true: journal and database are scaled to zero, the data are kept";
        return Saying::no(ConditionType::Ready, Reason::Suspended, message);
    }
    let worst = stuck.or_else(|| wrong.next());
    match worst {
        Some(saying) => {
            Saying::no(ConditionType::Ready, saying.reason, format!("{:?}: {}", saying.kind, saying.message))
        }
        None if sayings.is_empty() => {
            Saying::no(ConditionType::Ready, Reason::Progressing, "the tenant is being taken up")
        }
        None if outcome.stale => Saying::no(
            ConditionType::Ready,
            Reason::Progressing,
            "something changed under way: it is looked at again",
        ),
        None => Saying::yes(ConditionType::Ready, Reason::AsAsked, "all is as the spec asks"),
    }
}

/// What kstatus wants beside `Ready`.
fn kstatus(ready: &Saying) -> Option<Saying> {
    let said =
        |kind| Saying { kind, truth: Truth::True, reason: ready.reason, message: ready.message.clone() };
    match (ready.truth, ready.reason) {
        (Truth::True, _) | (_, Reason::Suspended | Reason::Paused) => None,
        (_, reason) if is_stuck(reason) => Some(said(ConditionType::Stalled)),
        _ => Some(said(ConditionType::Reconciling)),
    }
}

/// Whether nothing more will happen until somebody acts.
fn is_stuck(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NamespaceTaken
            | Reason::HostTaken
            | Reason::SecretMissing
            | Reason::ConfigMapMissing
            | Reason::ClassMissing
            | Reason::ImageMissing
            | Reason::SecretLost
            | Reason::CertificateInvalid
            | Reason::ExpansionUnsupported
            | Reason::VolumeEmpty
            | Reason::DatabaseFailed
            | Reason::MigrationFailed
            | Reason::RotationFailed
            | Reason::Refused
            | Reason::InvalidSpec
    )
}

/// What a container really runs, as its node says.
fn image_digest(observed: &Observed, role: Role, container: &str) -> Option<String> {
    workload::pods(observed, role).find_map(|pod| {
        let statuses = pod.data.pointer("/status/containerStatuses")?.as_array()?;
        let status = statuses.iter().find(|status| status["name"] == container && status["ready"] == true)?;
        let id = status["imageID"].as_str()?;
        Some(id.rsplit_once('@').map_or(id, |(_, digest)| digest).to_owned())
    })
}

/// What a person should notice: conditions that changed, as `(is it bad, reason, sentence)`.
pub fn news(before: &[Condition], after: &[Condition]) -> Vec<(Tone, String, String)> {
    let derived = [ConditionType::Reconciling.as_str(), ConditionType::Stalled.as_str()];
    after
        .iter()
        .filter(|condition| !derived.contains(&condition.type_))
        .filter(|condition| {
            let standing = before.iter().find(|standing| standing.type_ == condition.type_);
            standing.is_some_and(|standing| {
                (&standing.status, &standing.reason) != (&condition.status, &condition.reason)
            }) || standing.is_none() && condition.status != "True" && condition.reason != "Progressing"
        })
        .map(|condition| {
            let bad = condition.status != "True"
                && !["Progressing", "Suspended", "Deleting"].contains(&condition.reason.as_str());
            let tone = if bad { Tone::Warning } else { Tone::Normal };
            (tone, condition.reason.clone(), format!("{}: {}", condition.type_, condition.message))
        })
        .collect()
}

/// How an event sounds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tone {
    /// Good to know.
    Normal,
    /// Somebody may have to act.
    Warning,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tenant::{check::check, simulation::Simulation};

    fn truth(status: &JournalTenantStatus, kind: ConditionType) -> String {
        let condition = status.conditions.iter().find(|condition| condition.type_ == kind.as_str());
        condition.map(|condition| condition.status.clone()).unwrap_or_default()
    }

    #[test]
    fn a_workload_that_was_changed_just_now_is_not_called_ready_by_what_was_seen_before() {
        let mut simulation = Simulation::new();
        simulation.settle(|_| {});
        let tenant = check(Arc::new(simulation.tenant.clone())).unwrap();
        let said = |outcome: &Outcome| {
            status(&tenant, &simulation.observed, &simulation.plan(), outcome, simulation.now)
        };

        let unchanged = said(&Outcome::default());
        let resized = said(&Outcome { changed: vec![Kind::Deployment], ..Outcome::default() });
        let stale = said(&Outcome { stale: true, ..Outcome::default() });

        assert_eq!(truth(&unchanged, ConditionType::Ready), "True");
        assert_eq!(truth(&resized, ConditionType::JournalReady), "False");
        assert_eq!(truth(&resized, ConditionType::Ready), "False");
        assert_eq!(truth(&resized, ConditionType::Reconciling), "True");
        assert_eq!(truth(&stale, ConditionType::Ready), "False");
    }
}
