//! Brings the cluster to the plan.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret},
};
use kube::{ResourceExt, api::ObjectMeta, core::DynamicObject};
use rand::{RngExt, distr::Alphanumeric};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tracing::info;
use valv_crds::reference::{CONFIRM_DELETION_ANNOTATION, RETAINED_ANNOTATION, TENANT_LABEL};

use super::{
    before_migration,
    certificates::{ISSUER, PREVIOUS_ISSUER},
    check::Tenant,
    observe::Observed,
    plan::Plan,
    secret::{self, Order, authority_name, login_name},
};
use crate::{
    agent::scram,
    io::{
        cluster::{Applied, Cluster, Error as ClusterError, Finalizer, bytes},
        kind::{Key, Kind},
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
    /// The finalizer, if it was set or taken away.
    pub finalizer: Option<Finalizer>,
}

/// What keeps a tenant's pods from others and others from them: without these as they are wanted nothing is started.
const WALLS: [Kind; 4] = [Kind::Namespace, Kind::NetworkPolicy, Kind::ResourceQuota, Kind::LimitRange];

/// Deletes the namespace that was `created` a moment ago for a tenant that is gone: nobody else would.
///
/// The apiserver lets an object go that had no finalizer when its deletion began, also if one was set meanwhile and
/// answered for: what is seen of a tenant is not enough to make it a namespace that only its finalizer takes away.
async fn take_back(created: &Namespace, cluster: &Cluster) -> Result<(), Error> {
    let key = Key::new(Kind::Namespace, created.name_any());
    let standing = DynamicObject { types: None, metadata: created.metadata.clone(), data: Value::Null };
    info!(object.name = key.name, "the tenant was deleted while its namespace was being made");
    cluster.delete(&key, &standing).await.map_err(Error::Cluster)
}

/// Brings the cluster to `plan`: the namespace and the operator's access to it first, then Secrets (nothing that
/// reads them is started before they are there), then the objects in their order, then what is to go. Where a wall
/// could not be put up, what comes after it is not done. The finalizer is last: as long as it stands, the rest is
/// tried again.
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
        backups,
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
        let created = cluster.create_namespace(namespace).await;
        if let Ok(created) = &created
            && !cluster.has(&tenant.object).await.map_err(Error::Cluster)?
        {
            take_back(created, cluster).await?;
            return Ok(outcome);
        }
        outcome.heed(created.map(drop))?;
        if !outcome.is_clean() {
            return Ok(outcome);
        }
    }
    for order in orders {
        match fulfil(tenant, order, cluster, settings, now).await {
            Err(Error::Cluster(error)) if is_there_already(&error) => {
                outcome.refused.push(unlabelled(tenant, order));
            }
            Err(Error::Cluster(error)) => outcome.heed(Err(error))?,
            done => done?,
        }
    }
    for wanted in apply {
        let standing = standing(observed, &wanted.key);
        if wanted.key.kind == Kind::Job && standing.is_some() {
            continue;
        }
        let applied = cluster.apply(&wanted.key, &wanted.value, standing.as_ref()).await;
        if applied.as_ref().is_ok_and(|applied| *applied == Applied::Written)
            && [Kind::StatefulSet, Kind::Deployment].contains(&wanted.key.kind)
        {
            outcome.changed.push(wanted.key.kind);
        }
        let is_well = applied.is_ok();
        outcome.heed(applied.map(drop))?;
        if !is_well && WALLS.contains(&wanted.key.kind) {
            return Ok(outcome);
        }
    }
    for slot in backups {
        // Its slot is remembered before it is asked for: what was not written down is not asked for.
        if outcome.is_clean() {
            match cluster.create_backup(&before_migration::order(tenant, *slot)).await {
                // It is there, and not seen yet.
                Err(error) if is_there_already(&error) => {}
                made => outcome.heed(made)?,
            }
        }
    }
    for key in delete {
        if let Some(standing) = standing(observed, key) {
            outcome.heed(cluster.delete(key, &standing).await)?;
        }
    }
    let since = [(RETAINED_ANNOTATION, Some(now.to_string()))];
    let taken_over = [(RETAINED_ANNOTATION, None), (CONFIRM_DELETION_ANNOTATION, None)];
    let marks =
        retain.iter().map(|key| (key, &since[..])).chain(adopt.iter().map(|key| (key, &taken_over[..])));
    for (key, annotations) in marks {
        // The namespace's mark, by which the others are known, is the last to be taken off.
        if outcome.stale {
            break;
        }
        if let Some(standing) = standing(observed, key) {
            outcome.heed(cluster.annotate(key, &standing, annotations).await)?;
        }
    }
    // What could not be marked or stopped keeps the tenant: the next look tries again.
    if let Some(finalizer) = finalizer
        && outcome.is_clean()
    {
        let set = cluster.set_finalizer(&tenant.object, *finalizer).await;
        outcome.finalizer = set.is_ok().then_some(*finalizer);
        outcome.heed(set)?;
    }
    Ok(outcome)
}

impl Outcome {
    /// Whether all was done.
    fn is_clean(&self) -> bool {
        self.refused.is_empty() && !self.stale
    }

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

/// Whether an object that was to be created is there. A Secret is then not one of Valv's, or it would have been seen.
fn is_there_already(error: &ClusterError) -> bool {
    error.status().is_some_and(|status| status.reason == "AlreadyExists")
}

/// What to do about a Secret that has the name of one of Valv's and not its label.
fn unlabelled(tenant: &Tenant, order: &Order) -> String {
    format!(
        "the Secret {} is in {} without the label {TENANT_LABEL}={}: delete it, or put the label back if it is the one that Valv made",
        order.name(),
        tenant.namespace,
        tenant.name
    )
}

/// The object as it was seen.
fn standing(observed: &Observed, key: &Key) -> Option<DynamicObject> {
    if key.kind == Kind::Secret {
        return observed.secrets.get(&key.name).and_then(as_dynamic);
    }
    observed.objects.get(key).map(|object| object.as_ref().clone())
}

fn as_dynamic(secret: &Secret) -> Option<DynamicObject> {
    let mut value = serde_json::to_value(secret).ok()?;
    value["metadata"]["managedFields"] = Value::Null;
    serde_json::from_value(value).ok()
}

/// Makes the Secret that `order` asks for.
///
/// # Errors
/// If the cluster refuses it, or a certificate cannot be made.
pub async fn fulfil(
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
pub fn make<'a>(
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
            let intact = replaces.as_ref().filter(|replaces| secret::is_intact(replaces));
            let previous = intact.and_then(|replaces| secret::value(replaces, ISSUER));
            if let Some(previous) = previous.filter(|previous| *previous != signing.certificate) {
                data.insert(PREVIOUS_ISSUER.to_owned(), bytes(previous));
            }
            data.insert(ISSUER.to_owned(), bytes(&signing.certificate));
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

#[cfg(test)]
mod tests {
    use std::{
        future::ready,
        sync::{Arc, Mutex},
    };

    use ::http::{Method, Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::json;

    use valv_crds::reference::FINALIZER;

    use super::*;
    use crate::{fake_api, tenant::simulation::Simulation};

    /// An API server that refuses one resource, stores the others, and remembers what was written.
    #[derive(Clone)]
    struct FakeApiServer {
        refused: &'static str,
        refusal: (StatusCode, &'static str),
        written: Arc<Mutex<Vec<String>>>,
    }

    impl FakeApiServer {
        fn refusing(refused: &'static str, code: StatusCode, reason: &'static str) -> Self {
            Self { refused, refusal: (code, reason), written: Arc::default() }
        }

        fn cluster(&self) -> Cluster {
            let server = self.clone();
            fake_api::cluster(fake_api::client(move |request| ready(server.serve(&request))))
        }

        fn serve(&self, request: &Request<Value>) -> Response<Body> {
            let path = request.uri().path();
            if request.method() != Method::GET {
                self.written.lock().unwrap().push(path.to_owned());
            }
            let (code, reason) = self.refusal;
            if path.contains(self.refused) {
                fake_api::refuse(code, reason)
            } else {
                fake_api::respond(StatusCode::OK, request.body())
            }
        }

        fn has_written(&self, resource: &str) -> bool {
            self.written.lock().unwrap().iter().any(|path| path.contains(resource))
        }
    }

    async fn apply_to(server: &FakeApiServer, simulation: &Simulation) -> Outcome {
        let plan = simulation.plan();
        let Simulation { observed, settings, now, .. } = simulation;
        apply(&simulation.checked(), observed, &plan, &server.cluster(), settings, *now).await.unwrap()
    }

    /// A tenant of which only Secrets, claims and ConfigMaps stand.
    fn swept() -> Simulation {
        let mut simulation = Simulation::running();
        let kept = [Kind::PersistentVolumeClaim, Kind::ConfigMap];
        simulation.observed.objects.retain(|key, _| kept.contains(&key.kind));
        simulation
    }

    #[tokio::test]
    async fn nothing_is_started_behind_a_wall_that_was_refused() {
        for wall in ["networkpolicies", "resourcequotas", "limitranges"] {
            let server = FakeApiServer::refusing(wall, StatusCode::FORBIDDEN, "Forbidden");

            let outcome = apply_to(&server, &swept()).await;

            assert_eq!(outcome.refused.len(), 1, "{wall}: {:?}", outcome.refused);
            assert!(!server.has_written("statefulsets") && !server.has_written("deployments"), "{wall}");
        }
        let whole = FakeApiServer::refusing("nothing", StatusCode::FORBIDDEN, "Forbidden");
        apply_to(&whole, &swept()).await;
        assert!(whole.has_written("statefulsets") && whole.has_written("deployments"));
    }

    /// What is written for a tenant that has its finalizer and no namespace yet, if this is the tenant that the
    /// apiserver has by then.
    async fn written_beside(found: Value) -> Vec<String> {
        let mut simulation = Simulation::new();
        simulation.tenant.metadata.uid = Some("one".to_owned());
        simulation.tenant.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        let written = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&written);
        let client = fake_api::client(move |request| {
            let path = request.uri().path().to_owned();
            let is_read = request.method() == Method::GET;
            if !is_read {
                noted.lock().unwrap().push(format!("{} {path}", request.method()));
            }
            ready(match (is_read, found.is_null()) {
                (true, true) => fake_api::refuse(StatusCode::NOT_FOUND, "NotFound"),
                (true, false) => fake_api::respond(StatusCode::OK, &found),
                (false, _) => fake_api::respond(StatusCode::OK, request.body()),
            })
        });
        let plan = simulation.plan();
        assert!(plan.namespace.is_some(), "{plan:?}");
        let Simulation { observed, settings, now, .. } = &simulation;
        let cluster = fake_api::cluster(client);
        apply(&simulation.checked(), observed, &plan, &cluster, settings, *now).await.unwrap();
        let written = written.lock().unwrap().clone();
        written.into_iter().filter(|request| request.contains("namespaces")).collect()
    }

    #[tokio::test]
    async fn a_tenant_that_was_deleted_while_its_namespace_was_made_leaves_none() {
        let tenant = |uid: &str| {
            json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": { "name": "ada", "uid": uid },
            })
        };
        let taken_back = ["POST /api/v1/namespaces", "DELETE /api/v1/namespaces/journal-ada"];
        assert_eq!(written_beside(Value::Null).await, taken_back);
        assert_eq!(written_beside(tenant("another of this name")).await, taken_back);

        let kept = written_beside(tenant("one")).await;
        assert!(kept[1..].iter().all(|request| request.starts_with("PATCH")), "{kept:?}");
        assert!(kept[1].ends_with("/journal-ada/rolebindings/valv-operator"), "{kept:?}");
    }

    #[tokio::test]
    async fn a_secret_that_has_a_name_of_valvs_and_not_its_label_is_told_by_name() {
        let mut simulation = Simulation::new();
        simulation.look();
        simulation.let_time_pass();
        let server = FakeApiServer::refusing("/secrets", StatusCode::CONFLICT, "AlreadyExists");

        let outcome = apply_to(&server, &simulation).await;

        assert!(!outcome.stale);
        assert!(outcome.refused[0].contains("without the label valv.eu/tenant=ada"), "{:?}", outcome.refused);
    }

    #[tokio::test]
    async fn a_tenant_whose_mark_was_refused_keeps_its_finalizer() {
        let mut simulation = Simulation::running();
        simulation.observed.objects.retain(|key, _| {
            [Kind::Namespace, Kind::PersistentVolumeClaim, Kind::RoleBinding].contains(&key.kind)
        });
        simulation.tenant.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(simulation.now));
        let server = FakeApiServer::refusing("persistentvolumeclaims", StatusCode::FORBIDDEN, "Forbidden");

        let outcome = apply_to(&server, &simulation).await;

        assert_eq!(outcome.finalizer, None);
        assert!(!server.has_written("journaltenants"));
        assert_eq!(outcome.refused.len(), 1);
    }
}
