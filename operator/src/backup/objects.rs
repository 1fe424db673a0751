//! The objects of one attempt: what its pods read, and the Jobs. Pure.
//!
//! What writes is in the tenant's namespace, belongs to the `Backup` and goes with it; the Secret with the writer's
//! credentials goes as soon as it was used. What reads back is in the operator's namespace, where the reader's
//! credentials are: whoever may look into one tenant's namespace is not to read every tenant's archive. Each attempt
//! and each reading has objects of its own, which are never changed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::Resource;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use valv_crds::{
    backup::{Attempt, BackupReason, Order},
    policy::VerificationMode,
    reference::{ATTACHMENTS_LABEL, BACKUP_LABEL, ROLE_LABEL, TENANT_LABEL},
};

use super::{
    attempt,
    check::{Run, Subject},
    names::Part,
    plan::Setup,
};
use crate::{
    agent::{last_words::Failure, roles::Role as Login, run_file, verify::Depth},
    archive::{layout::ArchiveId, recipients::Recipients, write::LEVEL},
    error::chain,
    io::{
        bucket::Credentials,
        kind::{Key, Kind},
    },
    policy::depth,
    segmentation::Role,
    settings::Settings,
    store::check::Identity,
    tenant::{
        check::Tenant,
        claim::ATTACHMENTS_CLAIM,
        objects::{
            self, Serving, Wanted, container_security, journal, object, pod, pod_labels, pod_security, small,
        },
        secret::login_name,
    },
};

/// Memory of the agent's container: 128 MiB of its own at most, and PostgreSQL's programs beside it.
const AGENT_MEMORY: &str = "256Mi";

/// Where the pod's files are mounted.
const RUN: &str = "/valv/run";
const STORE: &str = "/valv/store";
const PASSWORDS: &str = "/valv/passwords";
const AUTHORITIES: &str = "/valv/authorities";
const ATTACHMENTS: &str = "/valv/attachments";
const TENANT: &str = "/valv/tenant";

/// The shortest time that a Job gets.
const SHORTEST_SECONDS: i64 = 60;

/// What is asked for only when objects are made.
pub struct Supplies {
    /// The writer's credentials.
    pub writer: Credentials,
    /// The Secrets that Valv made for the tenant and those that its spec names, with their keys.
    pub secrets: BTreeMap<String, Vec<String>>,
    /// The ConfigMaps that its spec names, with their keys.
    pub config_maps: BTreeMap<String, Vec<String>>,
    /// Whether a pod holds the tenant's attachments: a volume that one node can have at once is where it is.
    pub attachments_are_held: bool,
}

/// What an attempt for `slot` is begun with now.
///
/// # Errors
/// If no backup can be made for these recipients.
pub fn order(setup: &Setup<'_>, slot: Timestamp) -> Result<Order, Failure> {
    let recipients = recipients(setup)?;
    let whole = depth::newest_whole(&setup.tenant.object, &setup.store.name);
    let (verification, segments) = match depth::depth(setup.policy, whole, slot) {
        Depth::Full => (VerificationMode::Full, None),
        Depth::Sample(segments) => (VerificationMode::Sample, i32::try_from(segments).ok()),
        Depth::Metadata => (VerificationMode::Metadata, None),
    };
    Ok(Order {
        store: setup.store.name.clone(),
        recipients,
        verification,
        segments,
        attachments: setup.tenant.attachments.is_some(),
        journal_image: Some(image(setup.tenant)),
    })
}

/// For whom a backup is encrypted now.
///
/// # Errors
/// If no backup can be made for them.
pub fn recipients(setup: &Setup<'_>) -> Result<Vec<String>, Failure> {
    let keys = &setup.protection.recipients;
    let recipients: Vec<String> = [Some(&keys.tenant), Some(&keys.escrow), keys.drill.as_ref()]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    Recipients::parse(&recipients)
        .map_err(|error| Failure { reason: BackupReason::TooFewRecipients, message: chain(&error) })?;
    Ok(recipients)
}

/// What attempt `attempt` needs to write: the run file, credentials, the Job.
///
/// # Errors
/// What in tenant, policy or store no backup can be made of.
pub fn write(
    run: &Run,
    subject: &Subject,
    setup: &Setup<'_>,
    attempt: &Attempt,
    supplies: &Supplies,
    settings: &Settings,
) -> Result<Vec<Wanted>, Failure> {
    let name = Part::Write { number: attempt.number }.name(&run.uid());
    let config = run_config(run, subject, setup, attempt, &name)?;
    let credentials = credentials(run, setup.tenant, &supplies.writer, &name);
    let args = json!([
        "agent",
        "backup",
        "--run",
        format!("{RUN}/run.yaml"),
        "--store-credentials",
        STORE,
        "--database-passwords",
        PASSWORDS,
    ]);
    let tenant = setup.tenant;
    let journal = &tenant.journal;
    let mut volumes = vec![
        json!({ "name": "valv", "emptyDir": {} }),
        passwords(),
        journal::authorities(tenant, journal),
        belongings(supplies, &name),
    ];
    let mut mounts = vec![
        mount("valv", "/valv/bin"),
        mount("passwords", PASSWORDS),
        mount("authorities", AUTHORITIES),
        mount("tenant", TENANT),
    ];
    if tenant.attachments.is_some() {
        volumes.push(json!({ "name": "attachments", "persistentVolumeClaim": {
            "claimName": ATTACHMENTS_CLAIM, "readOnly": true } }));
        mounts.push(mount("attachments", ATTACHMENTS));
    }
    let install = json!({
        "name": "install",
        "image": settings.images.valv.as_str(),
        "imagePullPolicy": settings.image_pull_policy.as_str(),
        "args": ["agent", "install", "/valv/bin/valv"],
        "securityContext": container_security(),
        "resources": small(),
        "volumeMounts": [{ "name": "valv", "mountPath": "/valv/bin" }],
    });
    let mut agent = agent(settings.images.postgres.as_str(), settings, args, mounts);
    agent["command"] = json!(["/valv/bin/valv"]);
    let mut spec = pod(journal.scheduling.as_ref());
    spec["serviceAccountName"] = json!("database");
    job_pod(&mut spec, &name, &name, volumes, agent);
    spec["initContainers"] = json!([install]);
    // Whoever may read the attachments: their owner.
    spec["securityContext"] = pod_security(journal.run_as.user, journal.run_as.group);
    // A volume that nobody has can go to any node; with the journal scaled to zero nobody has it.
    if tenant.runs_on_one_node() && supplies.attachments_are_held {
        spec["affinity"] = json!({ "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": { "matchExpressions": [{ "key": ATTACHMENTS_LABEL, "operator": "Exists" }] },
            "topologyKey": "kubernetes.io/hostname",
        }]}});
    }
    let mut labels = pod_labels(tenant, Role::Backup, Serving::No);
    labels[BACKUP_LABEL] = json!(run.uid());
    let mut job = object(
        tenant,
        Kind::Job,
        &name,
        job_body(run, attempt.began.as_ref().map(|time| time.0), &labels, spec),
    );
    job.value["metadata"]["labels"] = labels;
    Ok(vec![config, credentials, owned(run, job)])
}

/// What reading `attempt` back needs: the run file and the Job, in the operator's namespace. Absent: nothing is to be
/// read back.
///
/// # Errors
/// As [`write()`].
pub fn read_back(
    run: &Run,
    subject: &Subject,
    setup: &Setup<'_>,
    attempt: &Attempt,
    settings: &Settings,
) -> Result<Vec<Wanted>, Failure> {
    let nothing = || Failure {
        reason: BackupReason::AgentFailed,
        message: "the status has nothing that was written".to_owned(),
    };
    let (wrote, reading) = attempt.wrote.as_ref().zip(attempt.reading.as_ref()).ok_or_else(nothing)?;
    let manifest = attempt::manifest(wrote).ok_or_else(nothing)?;
    let order = attempt.order.as_ref().ok_or_else(nothing)?;
    let name = Part::ReadBack { number: attempt.number, reading: reading.number }.name(&run.uid());
    let mut args = vec![
        "agent".to_owned(),
        "verify".to_owned(),
        format!("--run={RUN}/run.yaml"),
        format!("--store-credentials={STORE}"),
        format!("--manifest={}", manifest.key),
        format!("--blake3={}", manifest.blake3),
        format!("--depth={}", depth_of(order)),
    ];
    args.extend(manifest.version.iter().map(|version| format!("--version={version}")));
    let agent = agent(settings.images.valv.as_str(), settings, json!(args), vec![]);
    let mut spec = pod(None);
    // One without rights, whose Secrets for the registry are those of the operator.
    spec["serviceAccountName"] = json!(format!("{}-verification", settings.service_account));
    job_pod(&mut spec, &name, setup.store.secret(Identity::Reader), vec![], agent);
    spec["securityContext"] = pod_security(UNPRIVILEGED, UNPRIVILEGED);
    let labels = json!({
        TENANT_LABEL: setup.tenant.name,
        BACKUP_LABEL: run.uid(),
        ROLE_LABEL: Role::Verification.as_str(),
        "app.kubernetes.io/managed-by": "valv",
    });
    let file = run_file(run, subject, setup, order)?;
    let file = file.to_yaml().map_err(|error| unusable(chain(&error)))?;
    let at_home = |kind: Kind, mut body: Value| {
        body["apiVersion"] = json!(kind.api_version());
        body["kind"] = json!(kind.as_str());
        body["metadata"] =
            json!({ "name": name, "namespace": settings.operator_namespace, "labels": labels });
        Wanted { key: Key::new(kind, &name), value: body }
    };
    let began = reading.began.as_ref().map(|time| time.0);
    Ok(vec![
        at_home(Kind::ConfigMap, json!({ "immutable": true, "data": { "run.yaml": file } })),
        at_home(Kind::Job, job_body(run, began, &labels, spec)),
    ])
}

/// How much is read back, in the agent's words. What a sample is drawn with is chance, and drawn in the pod that reads:
/// whoever wrote could not know it.
fn depth_of(order: &Order) -> Depth {
    match order.verification {
        VerificationMode::Full => Depth::Full,
        VerificationMode::Metadata => Depth::Metadata,
        VerificationMode::Sample => {
            Depth::Sample(order.segments.and_then(|segments| segments.try_into().ok()).unwrap_or(1))
        }
    }
}

/// Nobody: who reads back needs no file of anybody's.
const UNPRIVILEGED: i64 = 65_532;

/// A Job of one pod that may run until the backup's deadline, as the status has it: the same whenever it is asked for.
fn job_body(run: &Run, began: Option<Timestamp>, labels: &Value, spec: Value) -> Value {
    let deadline = run.object.status.as_ref().and_then(|status| status.deadline.as_ref()).map(|time| time.0);
    let left = deadline.zip(began).map(|(deadline, began)| deadline.as_second() - began.as_second());
    json!({ "spec": {
        // Another pod would write under another id: that is another attempt, and the operator's to begin.
        "backoffLimit": 0,
        "activeDeadlineSeconds": left.unwrap_or(SHORTEST_SECONDS).max(SHORTEST_SECONDS),
        "template": { "metadata": { "labels": labels }, "spec": spec },
    }})
}

/// What both pods have: no token, the run file, and one identity of the store.
fn job_pod(spec: &mut Value, config: &str, secret: &str, mut volumes: Vec<Value>, agent: Value) {
    volumes.extend([
        json!({ "name": "run", "configMap": { "name": config,
            "items": [{ "key": "run.yaml", "path": "run.yaml" }] } }),
        json!({ "name": "store", "secret": { "secretName": secret, "defaultMode": 0o440, "items": [
            { "key": "accessKeyID", "path": "accessKeyID" },
            { "key": "secretAccessKey", "path": "secretAccessKey" },
        ] } }),
    ]);
    spec["restartPolicy"] = json!("Never");
    spec["containers"] = json!([agent]);
    spec["volumes"] = json!(volumes);
}

fn agent(image: &str, settings: &Settings, args: Value, mut mounts: Vec<Value>) -> Value {
    mounts.extend([mount("run", RUN), mount("store", STORE)]);
    json!({
        "name": "agent",
        "image": image,
        "imagePullPolicy": settings.image_pull_policy.as_str(),
        "args": args,
        "env": [{ "name": "POD_UID", "valueFrom": { "fieldRef": { "fieldPath": "metadata.uid" } } }],
        "securityContext": container_security(),
        "resources": {
            "requests": { "cpu": "100m", "memory": AGENT_MEMORY }, "limits": { "cpu": "2", "memory": AGENT_MEMORY },
        },
        "volumeMounts": mounts,
    })
}

fn mount(name: &str, path: &str) -> Value {
    json!({ "name": name, "mountPath": path, "readOnly": true })
}

/// The passwords of who takes the base backup and of who counts rows, in files named as the roles.
fn passwords() -> Value {
    let source = |login: Login| {
        json!({ "secret": {
            "name": login_name(login), "items": [{ "key": "password", "path": login.name() }] } })
    };
    json!({ "name": "passwords", "projected": {
        "defaultMode": 0o440, "sources": [source(Login::JournalReplication), source(Login::JournalCheck)] } })
}

/// The part `tenant`: the object, and every Secret and ConfigMap that a restore needs, each in a folder of its name.
fn belongings(supplies: &Supplies, config: &str) -> Value {
    let mut sources = vec![
        json!({ "configMap": { "name": config, "items": [{ "key": "tenant.yaml", "path": "tenant.yaml" }] } }),
    ];
    for (name, keys) in &supplies.secrets {
        let items: Vec<_> =
            keys.iter().map(|key| json!({ "key": key, "path": format!("secrets/{name}/{key}") })).collect();
        sources.push(json!({ "secret": { "name": name, "items": items } }));
    }
    for (name, keys) in &supplies.config_maps {
        let items: Vec<_> = keys
            .iter()
            .map(|key| json!({ "key": key, "path": format!("configmaps/{name}/{key}") }))
            .collect();
        sources.push(json!({ "configMap": { "name": name, "items": items } }));
    }
    json!({ "name": "tenant", "projected": { "defaultMode": 0o440, "sources": sources } })
}

fn unusable(message: String) -> Failure {
    Failure { reason: BackupReason::AgentFailed, message }
}

/// The run file, and the tenant as it is backed up.
fn run_config(
    run: &Run,
    subject: &Subject,
    setup: &Setup<'_>,
    attempt: &Attempt,
    name: &str,
) -> Result<Wanted, Failure> {
    let order = attempt.order.as_ref().ok_or_else(|| unusable("the status has no order".to_owned()))?;
    let file = run_file(run, subject, setup, order)?;
    let file = file.to_yaml().map_err(|error| unusable(chain(&error)))?;
    let object_of_tenant = json!({
        "apiVersion": "valv.eu/v1alpha1",
        "kind": "JournalTenant",
        "metadata": { "name": setup.tenant.name },
        "spec": setup.tenant.object.spec,
    });
    let tenant = serde_yaml::to_string(&object_of_tenant).map_err(|error| unusable(chain(&error)))?;
    let data = json!({ "immutable": true, "data": { "run.yaml": file, "tenant.yaml": tenant } });
    Ok(labelled(run, object(setup.tenant, Kind::ConfigMap, name, data)))
}

/// What the agent is told.
///
/// The sentinel is the object's UID: drawn by the API server, the same for every attempt, and of no other backup.
fn run_file(
    run: &Run,
    subject: &Subject,
    setup: &Setup<'_>,
    order: &Order,
) -> Result<run_file::Run, Failure> {
    let Setup { tenant, policy, store, .. } = setup;
    let wrong = |reason: BackupReason, message: String| Failure { reason, message };
    let archive: ArchiveId =
        tenant.archive_id().parse().map_err(|error| wrong(BackupReason::NameInvalid, chain(&error)))?;
    let sentinel = run.uid().replace('-', "");
    let sentinel = sentinel.parse().map_err(|error| wrong(BackupReason::AgentFailed, chain(&error)))?;
    let database_port = u16::try_from(tenant.database_port())
        .map_err(|_| wrong(BackupReason::DatabaseUnavailable, "the database's port is none".to_owned()))?;
    Ok(run_file::Run {
        archive,
        slot: subject.slot,
        store: store.spoken_to(store.share(policy.spec.limits.bytes_per_second), store.lock()),
        recipients: order.recipients.clone(),
        sentinel,
        database: run_file::Database {
            host: tenant.database_host(),
            port: database_port,
            name: tenant.database.name.clone(),
            ca_file: format!("{AUTHORITIES}/{}", ca_file_name(tenant)).into(),
            replication_user: Login::JournalReplication.name().to_owned(),
            check_user: Login::JournalCheck.name().to_owned(),
        },
        attachments: tenant
            .attachments
            .as_ref()
            .filter(|_| order.attachments)
            .map(|_| run_file::Attachments { folder: ATTACHMENTS.into() }),
        tenant_folder: Some(TENANT.into()),
        images: BTreeMap::from([
            // As it was when the attempt was begun: the commit is held to it.
            ("journal".to_owned(), order.journal_image.clone().unwrap_or_else(|| image(tenant))),
            ("database".to_owned(), database_image(tenant)),
        ]),
        compression_level: LEVEL,
        in_flight: 3,
    })
}

/// The file that [`journal::authorities`] mounts.
fn ca_file_name(tenant: &Tenant) -> &str {
    tenant.journal.database.ca_file.rsplit_once('/').map_or("ca.crt", |(_, file)| file)
}

/// The journal's image as it serves, by its digest where that is known.
fn image(tenant: &Tenant) -> String {
    let status = tenant.object.status.as_ref();
    let serving = status.and_then(|status| status.journal.image.clone());
    let digest = status.and_then(|status| status.journal.image_digest.clone());
    let image = serving.unwrap_or_else(|| tenant.journal.image.clone());
    digest.map_or(image.clone(), |digest| format!("{image}@{digest}"))
}

fn database_image(tenant: &Tenant) -> String {
    let status = tenant.object.status.as_ref();
    status.and_then(|status| status.database.image_digest.clone()).unwrap_or_default()
}

fn credentials(run: &Run, tenant: &Tenant, writer: &Credentials, name: &str) -> Wanted {
    let Credentials { access_key_id, secret_access_key } = writer;
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = json!({ "type": "Opaque", "immutable": true, "data": {
        "accessKeyID": bytes(access_key_id), "secretAccessKey": bytes(secret_access_key.expose_secret()),
    }});
    labelled(run, objects::object(tenant, Kind::Secret, name, data))
}

/// `wanted`, as the `Backup`'s, with its label.
fn labelled(run: &Run, mut wanted: Wanted) -> Wanted {
    wanted.value["metadata"]["labels"][BACKUP_LABEL] = json!(run.uid());
    owned(run, wanted)
}

/// `wanted`, as the `Backup`'s: it goes with it.
fn owned(run: &Run, mut wanted: Wanted) -> Wanted {
    let mut owner: Option<OwnerReference> = run.object.controller_owner_ref(&());
    // Else an API server that enforces it asks for a right to the Backup's finalizers.
    if let Some(owner) = &mut owner {
        owner.block_owner_deletion = None;
    }
    wanted.value["metadata"]["ownerReferences"] = json!(owner.into_iter().collect::<Vec<_>>());
    wanted
}
