//! Starts the journal on what was restored: the tenant's own objects, in the drill's namespace. Pure.
//!
//! Logins and certificates are new: none of those of the tenant's own database are let near a copy of it. Nobody
//! comes in and nothing goes out: there is no Ingress, no Service before the journal, and the walls let it reach its
//! database alone, whose name stands in its `/etc/hosts`: no DNS is asked.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::{observe::Observed, words};
use crate::{
    digest,
    io::kind::{Key, Kind},
    segmentation::Role,
    settings::Settings,
    tenant::{
        certificates::{self, DATABASE_TLS},
        check::Tenant,
        objects::{Wanted, credentials, database, journal, labels},
        observe::{self, NamespaceSeen, Reference, STATE_NAME},
        passwords,
        secret::Order,
        workload,
    },
};

/// What is done about the journal.
#[derive(Debug)]
pub struct Start {
    /// Secrets to make first, which need randomness.
    pub orders: Vec<Order>,
    /// Objects to make, in this order.
    pub apply: Vec<Wanted>,
    /// How it stands.
    pub standing: Standing,
}

/// How the journal stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It is being started; in a sentence, how far it is.
    Starting(String),
    /// It answers, since then.
    Answers(Timestamp),
}

/// What is done about the journal of `guest`.
pub fn start(guest: &Tenant, observed: &Observed, settings: &Settings, now: Timestamp) -> Start {
    let view = view(observed);
    let passwords = passwords::passwords(guest, &view, &|_| true);
    let certificates = certificates::certificates(guest, &view, &settings.certificates, now);
    let orders: Vec<Order> = passwords.orders.iter().chain(&certificates.orders).cloned().collect();
    if !orders.is_empty() {
        let standing = Standing::Starting("logins and certificates are being made".to_owned());
        return Start { orders, apply: vec![], standing };
    }
    let mut apply = copies(guest, observed);
    apply.push(credentials::authorities(guest, &certificates));
    apply.extend(state(guest, observed));
    if let Some(roles) = &passwords.roles
        && view.secrets.contains_key(DATABASE_TLS)
    {
        apply.push(credentials::roles(guest, roles));
        // No budget: nobody waits for a copy to be moved gently.
        let wanted = database::database(guest, settings, &view, 1, passwords.recover);
        apply.extend(wanted.into_iter().filter(|wanted| wanted.key.kind != Kind::PodDisruptionBudget));
    }
    let connection =
        credentials::journal(guest, &guest.journal.database, &view, passwords.login, passwords.generation);
    // As after a disaster: the journal comes when its database is there.
    let database = workload::database(guest, &view);
    if let Some(connection) = connection.filter(|_| database.is_true()) {
        let inputs = journal::Inputs {
            credentials: credentials::data_digest(&connection),
            authorities: digest::of(certificates.bundle.as_bytes()),
        };
        let Some(address) = address(&view) else {
            let standing = Standing::Starting("the database's Service has no address yet".to_owned());
            return Start { orders, apply, standing };
        };
        apply.push(connection);
        let mut wanted = journal::journal(guest, &guest.journal, settings, &view, &inputs, 1);
        for wanted in wanted.iter_mut().filter(|wanted| wanted.key.kind == Kind::Deployment) {
            without_dns(&mut wanted.value["spec"]["template"]["spec"], &guest.database_host(), &address);
        }
        apply.extend(wanted.into_iter().filter(|wanted| wanted.key.kind != Kind::PodDisruptionBudget));
    }
    Start { orders, apply, standing: standing(guest, &view) }
}

/// The address of the database's Service.
fn address(view: &observe::Observed) -> Option<String> {
    let address = view.text(Kind::Service, "database", "/spec/clusterIP")?;
    (!["", "None"].contains(&address)).then(|| address.to_owned())
}

/// Lets `pod` know its database's name without asking anybody: DNS forwards every question, and a question can carry a
/// record out. What it asks all the same is refused at once, on its own machine, and not waited for.
fn without_dns(pod: &mut Value, host: &str, address: &str) {
    pod["hostAliases"] = json!([{ "ip": address, "hostnames": [host] }]);
    pod["dnsPolicy"] = json!("None");
    pod["dnsConfig"] = json!({ "nameservers": ["127.0.0.1"] });
}

fn standing(guest: &Tenant, view: &observe::Observed) -> Standing {
    let database = workload::database(guest, view);
    if !database.is_true() {
        return Standing::Starting(database.message);
    }
    let is_complete = view.rollout(Kind::Deployment, "journal").is_complete();
    match words::ready_since(&view.objects, Role::Journal.as_str()).filter(|_| is_complete) {
        Some(since) => Standing::Answers(since),
        // Not in the words of its container, which may be a line of its log: they would stand in the record.
        None => {
            let trouble = words::trouble_of(&view.objects, Role::Journal.as_str());
            let why = trouble.map(|why| format!(": {why}")).unwrap_or_default();
            Standing::Starting(format!("no pod of {} is ready{why}", guest.journal.image))
        }
    }
}

/// The drill's namespace, as the tenant's own functions look at theirs.
///
/// Without its claims: they would say that there was a tenant here before, whose logins are lost. There was none, and
/// all logins are new.
fn view(observed: &Observed) -> observe::Observed {
    let mut objects = observed.objects.clone();
    objects.retain(|key, _| key.kind != Kind::PersistentVolumeClaim);
    observe::Observed {
        namespace: NamespaceSeen::Ours,
        objects,
        secrets: observed.secrets.clone(),
        references: observed
            .references
            .iter()
            .map(|(key, object)| (key.clone(), Some(reference(object))))
            .collect(),
        ..observe::Observed::default()
    }
}

/// What the tenant's functions know of an object that the spec names.
fn reference(object: &DynamicObject) -> Reference {
    let secret: Option<Secret> =
        serde_json::to_value(object).ok().and_then(|value| serde_json::from_value(value).ok());
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let data: BTreeMap<_, _> = data.into_iter().map(|(key, value)| (key, value.0)).collect();
    Reference {
        keys: data.keys().cloned().collect(),
        version: object.metadata.uid.clone().unwrap_or_default(),
        data,
    }
}

/// Copies of the Secrets and ConfigMaps that the tenant's spec names.
fn copies(guest: &Tenant, observed: &Observed) -> Vec<Wanted> {
    let copy = |(key, object): (&Key, &DynamicObject)| {
        let mut value = json!({
            "apiVersion": key.kind.api_version(),
            "kind": key.kind.as_str(),
            "metadata": { "name": key.name, "namespace": guest.namespace, "labels": labels(guest) },
        });
        for field in ["data", "binaryData", "type"] {
            if let Some(part) = object.data.get(field).filter(|part| !part.is_null()) {
                value[field] = part.clone();
            }
        }
        Wanted { key: key.clone(), value }
    };
    observed.references.iter().map(copy).collect()
}

/// Which database the volume must hold: on another, or on none, the server does not start.
fn state(guest: &Tenant, observed: &Observed) -> Option<Wanted> {
    let identifier = observed.chosen.as_ref()?.system_identifier.clone()?;
    let data: Value = json!({ "data": { "systemIdentifier": identifier } });
    Some(crate::tenant::objects::object(guest, Kind::ConfigMap, STATE_NAME, data))
}
