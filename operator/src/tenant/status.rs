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

use super::{
    apply::Outcome, check::Tenant, observe::Observed, plan::Plan, protection::Protected, redact::redact,
    workload,
};
use crate::{
    io::{
        events::{News, Tone},
        kind::Kind,
    },
    segmentation::Role,
};

/// The status of `tenant` after `plan` was carried out with `outcome`.
pub fn status(
    tenant: &Tenant,
    observed: &Observed,
    plan: &Plan,
    outcome: &Outcome,
    protected: &Protected,
    now: Timestamp,
) -> JournalTenantStatus {
    let standing = tenant.object.status.clone().unwrap_or_default();
    let mut sayings = plan.sayings.clone();
    outdate(&mut sayings, outcome);
    let ready = ready(tenant, observed, &sayings, outcome);
    sayings.retain(|saying| saying.kind != ConditionType::Ready);
    sayings.extend(kstatus(&ready));
    sayings.insert(0, ready.clone());
    // Ready speaks of the journal: whether it serves has nothing to do with whether it could be restored.
    sayings.extend(protected.sayings.iter().cloned());
    let has_host = sayings.iter().any(|saying| saying.kind == ConditionType::HostGranted && saying.is_true());
    let generation = tenant.object.metadata.generation;
    let mut conditions: Vec<Condition> =
        sayings.iter().map(|saying| saying.dated(&standing.conditions, generation, now)).collect();
    // What this plan did not come to speak of is not called true any more; what is only present while it is so goes.
    let transient = [ConditionType::Reconciling.as_str(), ConditionType::Stalled.as_str()];
    let unspoken = standing.conditions.iter().filter(|condition| {
        !transient.contains(&condition.type_) && !conditions.iter().any(|said| said.type_ == condition.type_)
    });
    let unspoken: Vec<_> =
        unspoken.map(|condition| unobserved(condition, &ready, &standing.conditions, now)).collect();
    conditions.extend(unspoken);
    let node_port =
        observed.field(Kind::Service, "journal", "/spec/ports/0/nodePort").and_then(Value::as_i64);
    let through_node =
        tenant.access.as_ref().is_none_or(|access| access.gateway.is_none() && access.ingress.is_none());
    let node_port = node_port.filter(|_| through_node).and_then(|port| i32::try_from(port).ok());
    let url = match node_port {
        Some(port) => format!("https://{}:{port}", tenant.host),
        None => format!("https://{}", tenant.host),
    };
    let journal = running(observed, Role::Journal, "journal")
        .unwrap_or(Running { image: standing.journal.image, digest: standing.journal.image_digest });
    JournalTenantStatus {
        observed_generation: generation,
        namespace: Some(tenant.namespace.clone()),
        // Also the record of the host name that the tenant has: another is written when another was granted.
        url: if has_host { Some(url) } else { standing.url },
        journal: JournalStatus {
            image: journal.image,
            image_digest: journal.digest,
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
            image_digest: running(observed, Role::Database, "postgresql")
                .map_or(standing.database.image_digest, |running| running.digest),
            system_identifier: plan.system_identifier.clone().or(standing.database.system_identifier),
            password_generation: plan.password_generation.or(standing.database.password_generation),
        },
        certificates: if plan.certificates.generation.is_some() {
            plan.certificates.clone()
        } else {
            standing.certificates
        },
        backup: protected.status.clone(),
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
        | ConditionType::HostGranted
        | ConditionType::BackedUp
        | ConditionType::Drilled
        | ConditionType::KeysProven => None,
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
fn ready(tenant: &Tenant, observed: &Observed, sayings: &[Saying], outcome: &Outcome) -> Saying {
    if let Some(refusal) = outcome.refused.first() {
        let refusal = redact(refusal, observed.secret_values());
        return Saying::no(ConditionType::Ready, Reason::Refused, refusal);
    }
    if let Some(said) = sayings.iter().find(|saying| saying.kind == ConditionType::Ready) {
        return said.clone();
    }
    let mut wrong = sayings.iter().filter(|saying| saying.truth != Truth::True);
    let stuck = wrong.clone().find(|saying| is_stuck(saying.reason));
    if stuck.is_none() && tenant.suspended && workload::is_at_rest(observed) {
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
            | Reason::BackupFailed
            | Reason::Refused
            | Reason::InvalidSpec
    )
}

/// What a container really runs, as its node says.
struct Running {
    image: Option<String>,
    digest: Option<String>,
}

/// What the newest ready pod of `role` runs.
fn running(observed: &Observed, role: Role, container: &str) -> Option<Running> {
    let ready = workload::pods(observed, role).filter_map(|pod| {
        let statuses = pod.data.pointer("/status/containerStatuses")?.as_array()?;
        let status = statuses.iter().find(|status| status["name"] == container && status["ready"] == true)?;
        let specs = pod.data.pointer("/spec/containers")?.as_array()?;
        let spec = specs.iter().find(|spec| spec["name"] == container)?;
        Some((pod.metadata.creation_timestamp.clone(), spec, status))
    });
    let (_, spec, status) = ready.max_by_key(|(created, ..)| created.clone())?;
    let id = status["imageID"].as_str();
    Some(Running {
        image: spec["image"].as_str().map(str::to_owned),
        digest: id.map(|id| id.rsplit_once('@').map_or(id, |(_, digest)| digest).to_owned()),
    })
}

/// A condition that this plan did not come to speak of: what was true, or on its way, is not known to be so any more.
fn unobserved(condition: &Condition, ready: &Saying, standing: &[Condition], now: Timestamp) -> Condition {
    let kind = serde_json::from_value::<ConditionType>(Value::String(condition.type_.clone()));
    match kind {
        Ok(kind) if condition.status == "True" || condition.reason == "Progressing" => {
            let message = format!("not looked at: {}", ready.message);
            Saying::unknown(kind, Reason::Unobserved, message).dated(
                standing,
                condition.observed_generation,
                now,
            )
        }
        _ => condition.clone(),
    }
}

/// What a person should notice: conditions that changed.
pub fn news(before: &[Condition], after: &[Condition]) -> Vec<News> {
    let derived = [ConditionType::Reconciling.as_str(), ConditionType::Stalled.as_str()];
    // A new tenant was never backed up, drilled or proven, which is no news: alerts give it its time.
    let of_protection = [ConditionType::BackedUp, ConditionType::Drilled, ConditionType::KeysProven]
        .map(ConditionType::as_str);
    let [unobserved, adopted] = [Reason::Unobserved, Reason::Adopted].map(|reason| format!("{reason:?}"));
    after
        .iter()
        .filter(|condition| !derived.contains(&condition.type_))
        // Ready says why nobody looked, and what was not looked at is no news when it is as it was.
        .filter(|condition| condition.reason != unobserved)
        .filter(|condition| {
            let standing = before.iter().find(|standing| standing.type_ == condition.type_);
            let is_new = condition.status != "True"
                && condition.reason != "Progressing"
                && !of_protection.contains(&condition.type_)
                || condition.reason == adopted;
            match standing {
                Some(standing) if standing.reason == unobserved => condition.status != "True",
                Some(standing) => {
                    (&standing.status, &standing.reason) != (&condition.status, &condition.reason)
                }
                None => is_new,
            }
        })
        .map(|condition| {
            let bad = condition.status != "True"
                && !["Progressing", "Suspended", "Deleting"].contains(&condition.reason.as_str());
            let tone = if bad { Tone::Warning } else { Tone::Normal };
            let note = format!("{}: {}", condition.type_, condition.message);
            News { tone, reason: condition.reason.clone(), note }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tenant::{check::check, protection::protect, simulation::Simulation};

    fn protected(simulation: &Simulation) -> Protected {
        protect(&simulation.checked(), &simulation.observed.protection, simulation.now)
    }

    #[test]
    fn a_journal_that_serves_is_ready_though_nothing_backs_it_up() {
        let status = told(&Simulation::running());

        assert_eq!(truth(&status, ConditionType::Ready), "True");
        assert_eq!(truth(&status, ConditionType::BackedUp), "False");
        assert_eq!(truth(&status, ConditionType::Stalled), "");
        assert_eq!(notes(&JournalTenantStatus::default(), &status), Vec::<String>::new());
    }

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
            status(
                &tenant,
                &simulation.observed,
                &simulation.plan(),
                outcome,
                &protected(&simulation),
                simulation.now,
            )
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

    /// A tenant that is ready, with the status that says so.
    fn ready() -> Simulation {
        let mut simulation = Simulation::running();
        simulation.tenant.status = Some(told(&simulation));
        simulation
    }

    fn told(simulation: &Simulation) -> JournalTenantStatus {
        let outcome = Outcome::default();
        status(
            &simulation.checked(),
            &simulation.observed,
            &simulation.plan(),
            &outcome,
            &protected(simulation),
            simulation.now,
        )
    }

    fn notes(before: &JournalTenantStatus, after: &JournalTenantStatus) -> Vec<String> {
        news(&before.conditions, &after.conditions).into_iter().map(|news| news.reason).collect()
    }

    #[test]
    fn what_was_not_looked_at_is_called_true_no_more_and_is_no_news() {
        let mut simulation = ready();
        let before = simulation.tenant.status.clone().unwrap();

        simulation.observed.namespace = super::super::observe::NamespaceSeen::Terminating;
        let during = told(&simulation);
        simulation.tenant.status = Some(during.clone());
        simulation.observed.namespace = super::super::observe::NamespaceSeen::Ours;
        let after = told(&simulation);

        assert_eq!(truth(&during, ConditionType::JournalReady), "Unknown");
        assert_eq!(truth(&during, ConditionType::NamespaceReady), "False");
        assert_eq!(notes(&before, &during), ["NamespaceTerminating"; 2]);
        assert_eq!(truth(&after, ConditionType::JournalReady), "True");
        assert_eq!(notes(&during, &after), ["AsAsked"; 2]);
    }

    #[test]
    fn what_was_on_its_way_is_not_said_to_be_so_once_nobody_looks() {
        let mut simulation = Simulation::new();
        let before = told(&simulation);
        simulation.tenant.status = Some(before.clone());

        let invalid = Saying::no(ConditionType::Ready, Reason::InvalidSpec, "two volumes in one folder");
        let plan = Plan { sayings: vec![invalid], ..Plan::default() };
        let after = status(
            &simulation.checked(),
            &simulation.observed,
            &plan,
            &Outcome::default(),
            &protected(&simulation),
            simulation.now,
        );

        assert_eq!(truth(&before, ConditionType::NamespaceReady), "False");
        assert_eq!(truth(&after, ConditionType::NamespaceReady), "Unknown");
        assert_eq!(notes(&before, &after), ["InvalidSpec"]);
    }

    #[test]
    fn a_refusal_is_told_before_the_wait_that_it_causes() {
        let mut simulation = ready();
        simulation.tenant.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(simulation.now));
        let outcome = Outcome { refused: vec!["it may not".into()], ..Outcome::default() };

        let status = status(
            &simulation.checked(),
            &simulation.observed,
            &simulation.plan(),
            &outcome,
            &protected(&simulation),
            simulation.now,
        );

        let said = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        assert_eq!((said.reason.as_str(), said.message.as_str()), ("Refused", "it may not"));
    }

    #[test]
    fn image_and_digest_are_those_of_one_pod() {
        let mut simulation = ready();
        let pod = |name: &str, created: &str, image: &str, is_ready: bool| {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": name, "creationTimestamp": created, "labels": { "valv.eu/role": "journal" },
                },
                "spec": { "containers": [{ "name": "journal", "image": image }] },
                "status": { "containerStatuses": [{
                    "name": "journal", "ready": is_ready, "imageID": format!("{image}@sha256:{name}"),
                }]},
            }))
        };
        let pods = [
            pod("a", "2026-03-01T01:00:00Z", "journal:1", true),
            pod("b", "2026-03-01T02:00:00Z", "journal:2", true),
            pod("c", "2026-03-01T03:00:00Z", "journal:3", false),
        ];
        for (name, pod) in ["a", "b", "c"].into_iter().zip(pods) {
            simulation
                .observed
                .objects
                .insert(crate::io::kind::Key::new(Kind::Pod, name), Arc::new(pod.unwrap()));
        }

        let JournalStatus { image, image_digest, .. } = told(&simulation).journal;

        assert_eq!((image.as_deref(), image_digest.as_deref()), (Some("journal:2"), Some("sha256:b")));
    }

    #[test]
    fn that_an_earlier_tenants_volumes_were_taken_over_is_told_and_stays_said() {
        let mut simulation = Simulation::running();
        simulation.edit(Kind::Namespace, "journal-ada", |namespace| {
            namespace.metadata.annotations =
                Some([("valv.eu/retained-since".to_owned(), String::new())].into());
        });

        let first = told(&simulation);
        simulation.edit(Kind::Namespace, "journal-ada", |namespace| namespace.metadata.annotations = None);
        simulation.tenant.status = Some(first.clone());
        let second = told(&simulation);

        assert_eq!(notes(&JournalTenantStatus::default(), &first), ["Adopted"]);
        assert_eq!(notes(&first, &second), Vec::<String>::new());
        assert!(second.conditions.iter().any(|condition| condition.reason == "Adopted"));
    }
}
