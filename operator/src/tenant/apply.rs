//! Brings the cluster to the plan.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{ResourceExt, api::ObjectMeta};
use rand::{RngExt, distr::Alphanumeric};
use secrecy::{ExposeSecret, SecretString};
use valv_crds::reference::{CONFIRM_DELETION_ANNOTATION, RETAINED_ANNOTATION, TENANT_LABEL};

use super::{
    check::Tenant,
    observe::Observed,
    plan::Plan,
    secret::{self, Order, authority_name, login_name},
};
use crate::{
    agent::scram,
    io::{
        cluster::{Applied, Cluster, Error as ClusterError, bytes},
        kind::Kind,
    },
    pki,
    settings::Settings,
};

/// Letters and digits of a password: 32 of 62 are 190 bits, and need no escaping anywhere.
const PASSWORD_LENGTH: usize = 32;

/// The plan could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster refused or did not answer.
    #[error("failed to bring the cluster to the plan")]
    Cluster(#[source] ClusterError),
    /// A certificate could not be made.
    #[error("failed to make the certificate for the Secret {name}")]
    Certificate {
        /// Name of the Secret.
        name: String,
        /// Why not.
        source: pki::Error,
    },
}

/// What became of the plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Objects that the apiserver refused, and its words: somebody has to act.
    pub refused: Vec<String>,
    /// Whether an object had moved on, so that it is looked at again at once.
    pub stale: bool,
    /// Workloads that were changed just now: what was seen of them before says nothing any more.
    pub changed: Vec<Kind>,
}

/// Brings the cluster to `plan`: the namespace and the operator's access to it first, then Secrets (nothing that
/// reads them is started before they are there), then the objects in their order, then what is to go. The
/// finalizer is last: as long as it stands, the rest is tried again.
pub async fn apply(
    tenant: &Tenant,
    observed: &Observed,
    plan: &Plan,
    cluster: &Cluster,
    settings: &Settings,
    now: Timestamp,
) -> Result<Outcome, Error> {
    // No `..`: a new part of the plan does not compile until somebody decides when it is applied.
    let Plan {
        finalizer,
        namespace,
        orders,
        apply,
        delete,
        retain,
        adopt,
        sayings: _,
        certificates: _,
        migrated: _,
        password_generation: _,
        system_identifier: _,
        look_again_after: _,
    } = plan;
    let mut outcome = Outcome::default();
    if let Some(namespace) = namespace {
        cluster.create_namespace(namespace).await.map_err(Error::Cluster)?;
    }
    for order in orders {
        fulfil(tenant, order, cluster, settings, now).await?;
    }
    for wanted in apply {
        let secret = observed.secrets.get(&wanted.key.name).filter(|_| wanted.key.kind == Kind::Secret);
        let standing = match secret.map(as_dynamic) {
            Some(standing) => standing,
            None => observed.objects.get(&wanted.key).map(|object| object.as_ref().clone()),
        };
        if wanted.key.kind == Kind::Job && standing.is_some() {
            continue;
        }
        let applied = cluster.apply(&wanted.key, &wanted.value, standing.as_ref()).await;
        if applied.as_ref().is_ok_and(|applied| *applied == Applied::Written)
            && [Kind::StatefulSet, Kind::Deployment].contains(&wanted.key.kind)
        {
            outcome.changed.push(wanted.key.kind);
        }
        outcome.heed(applied.map(drop))?;
    }
    for key in delete {
        let secret =
            observed.secrets.get(&key.name).filter(|_| key.kind == Kind::Secret).and_then(as_dynamic);
        let standing = secret.or_else(|| observed.objects.get(key).map(|object| object.as_ref().clone()));
        if let Some(standing) = standing {
            outcome.heed(cluster.delete(key, &standing).await)?;
        }
    }
    let since = [(RETAINED_ANNOTATION, Some(now.to_string()))];
    let taken_over = [(RETAINED_ANNOTATION, None), (CONFIRM_DELETION_ANNOTATION, None)];
    let marks =
        retain.iter().map(|key| (key, &since[..])).chain(adopt.iter().map(|key| (key, &taken_over[..])));
    for (key, annotations) in marks {
        let namespace = (key.kind != Kind::Namespace).then_some(tenant.namespace.as_str());
        // No version: a claim's status may have moved, and what is said of it is true all the same.
        outcome.heed(cluster.annotate(key, namespace, annotations).await)?;
    }
    // What could not be marked or stopped keeps the tenant: the next look tries again.
    if let Some(finalizer) = finalizer
        && outcome.refused.is_empty()
        && !outcome.stale
    {
        cluster.set_finalizer(&tenant.object, *finalizer).await.map_err(Error::Cluster)?;
    }
    Ok(outcome)
}

impl Outcome {
    /// A refusal is told in the status and does not keep the rest from being done.
    fn heed(&mut self, result: Result<(), ClusterError>) -> Result<(), Error> {
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.is_conflict() => {
                self.stale = true;
                Ok(())
            }
            Err(error) if error.is_refusal() => {
                self.refused.push(crate::error::chain(&error));
                Ok(())
            }
            Err(error) => Err(Error::Cluster(error)),
        }
    }
}

fn as_dynamic(secret: &Secret) -> Option<kube::core::DynamicObject> {
    let mut value = serde_json::to_value(secret).ok()?;
    value["metadata"]["managedFields"] = serde_json::Value::Null;
    serde_json::from_value(value).ok()
}

async fn fulfil(
    tenant: &Tenant,
    order: &Order,
    cluster: &Cluster,
    settings: &Settings,
    now: Timestamp,
) -> Result<(), Error> {
    let (mut secret, replaces) = make(tenant, order, settings, now)?;
    match replaces {
        None => cluster.create_secret(&tenant.namespace, &secret).await,
        Some(standing) => {
            secret.metadata.resource_version = standing.resource_version();
            cluster.replace_secret(&tenant.namespace, &secret).await
        }
    }
    .map_err(Error::Cluster)
}

/// The Secret that `order` asks for, and the one that it replaces.
pub(super) fn make<'a>(
    tenant: &Tenant,
    order: &'a Order,
    settings: &Settings,
    now: Timestamp,
) -> Result<(Secret, Option<&'a Secret>), Error> {
    Ok(match order {
        Order::Login { role, generation, replaces } => {
            (login(tenant, *role, *generation, replaces.as_ref()), replaces.as_ref())
        }
        Order::Authority { number, asked } => {
            let name = authority_name(*number);
            let issued = pki::authority(
                &format!("{} authority {number}", tenant.namespace),
                now,
                settings.certificates.ca_lifetime,
            )
            .map_err(|source| Error::Certificate { name: name.clone(), source })?;
            let data = certificate_data(&issued);
            let notes = [(secret::ASKED_ANNOTATION, asked.to_string())];
            (generated(tenant, &name, *number, data, &notes), None)
        }
        Order::Certificate { name, names, signer, authority, replaces } => {
            let failed = |source| Error::Certificate { name: (*name).to_owned(), source };
            let signing = pki::Issued {
                certificate: secret::value(authority, "tls.crt").unwrap_or_default(),
                key: secret::value(authority, "tls.key").unwrap_or_default(),
            };
            let issued = pki::server(names, &signing, now, settings.certificates.lifetime).map_err(failed)?;
            let mut data = certificate_data(&issued);
            data.insert("ca.crt".to_owned(), bytes(&signing.certificate));
            let asked = secret::number(authority, secret::ASKED_ANNOTATION).unwrap_or_default();
            let notes = [
                (secret::SIGNED_BY_ANNOTATION, signer.to_string()),
                (secret::ASKED_ANNOTATION, asked.to_string()),
            ];
            (generated(tenant, name, *signer, data, &notes), replaces.as_ref())
        }
    })
}

/// A login with a new password. The one before it stays beside it: a change of the role's own password may have
/// been cut off before or after it was made.
fn login(
    tenant: &Tenant,
    role: crate::agent::roles::Role,
    generation: i64,
    replaces: Option<&Secret>,
) -> Secret {
    let name = login_name(role);
    let password = password();
    let verifier = scram::verifier(&password);
    let mut data = BTreeMap::from([
        ("user".to_owned(), bytes(role.name())),
        ("password".to_owned(), bytes(password.expose_secret())),
        ("verifier".to_owned(), bytes(verifier.expose())),
    ]);
    let intact = replaces.filter(|replaces| secret::is_intact(replaces));
    let previous = intact.and_then(|replaces| secret::value(replaces, "password"));
    if let Some(previous) = &previous {
        data.insert("previous-password".to_owned(), bytes(previous));
    }
    let lost = generation > 1 && previous.is_none() && role == crate::agent::roles::Role::ValvRoles;
    let notes = [(secret::RECOVERED_ANNOTATION, generation.to_string())];
    generated(tenant, name, generation, data, if lost { &notes } else { &[] })
}

fn password() -> SecretString {
    let letters = rand::rng().sample_iter(Alphanumeric).take(PASSWORD_LENGTH).map(char::from);
    SecretString::from(letters.collect::<String>())
}

fn certificate_data(issued: &pki::Issued) -> BTreeMap<String, ByteString> {
    BTreeMap::from([
        ("tls.crt".to_owned(), bytes(&issued.certificate)),
        ("tls.key".to_owned(), bytes(&issued.key)),
    ])
}

fn generated(
    tenant: &Tenant,
    name: &str,
    generation: i64,
    data: BTreeMap<String, ByteString>,
    notes: &[(&str, String)],
) -> Secret {
    let mut annotations: BTreeMap<_, _> =
        notes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    annotations.insert(secret::DIGEST_ANNOTATION.to_owned(), secret::digest(&data));
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(tenant.namespace.clone()),
            labels: Some(BTreeMap::from([
                (TENANT_LABEL.to_owned(), tenant.name.clone()),
                ("app.kubernetes.io/managed-by".to_owned(), "valv".to_owned()),
                (secret::GENERATED_LABEL.to_owned(), "true".to_owned()),
                (secret::GENERATION_LABEL.to_owned(), generation.to_string()),
            ])),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        data: Some(data),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}
