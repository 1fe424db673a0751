//! The objects of one attempt: what its pods read, and the Jobs. Pure.
//!
//! All of them belong to the `Backup` and go with it; the Secrets with the store's credentials go as soon as it is
//! over.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::Resource;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use valv_crds::{
    Slot,
    backup::BackupReason,
    reference::{ATTACHMENTS_LABEL, ROLE_LABEL},
};

use super::{
    attempt::{BACKUP_LABEL, Part},
    check::{Run, Subject},
    observe::Observed,
    plan::Setup,
};
use crate::{
    agent::{
        last_words::Failure,
        roles::Role as Login,
        run_file::{self, Lock, Retry, Timeouts},
    },
    archive::{commit::ManifestRef, layout::ArchiveId, recipients::Recipients},
    error::chain,
    io::{bucket::Credentials, kind::Kind},
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

/// What is read back.
pub struct ReadBack<'a> {
    /// Of which attempt.
    pub number: i32,
    /// The manifest, as the agent named it.
    pub manifest: &'a ManifestRef,
    /// How much, in the agent's words.
    pub depth: String,
}

/// Names of the Secrets of a backup of `slot`: the writer's credentials, and the reader's.
pub fn secret_names(slot: Slot) -> [String; 2] {
    [Identity::Writer, Identity::Reader].map(|identity| secret_name(slot, identity))
}

fn secret_name(slot: Slot, identity: Identity) -> String {
    format!("{PREFIX}{}-{identity}", slot.lower_case())
}

/// What attempt `number` needs to write: credentials, the run file, the Job.
///
/// # Errors
/// What in tenant, policy or store no backup can be made of.
pub fn write(
    run: &Run,
    subject: &Subject,
    setup: &Setup<'_>,
    observed: &Observed,
    settings: &Settings,
    number: i32,
) -> Result<Vec<Wanted>, Failure> {
    let credentials = credentials(run, subject, setup, observed, Identity::Writer)?;
    let config = run_config(run, subject, setup)?;
    let name = Part::Write.job(subject.slot, number);
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
        belongings(observed, &config_name(subject.slot)),
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
    let mut spec = job_pod(subject, setup, Identity::Writer, volumes, agent);
    spec["initContainers"] = json!([install]);
    // Whoever may read the attachments: their owner.
    spec["securityContext"] = pod_security(journal.run_as.user, journal.run_as.group);
    if tenant.runs_on_one_node() {
        spec["affinity"] = json!({ "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": { "matchExpressions": [{ "key": ATTACHMENTS_LABEL, "operator": "Exists" }] },
            "topologyKey": "kubernetes.io/hostname",
        }]}});
    }
    let job = job(run, setup, &name, Role::Backup, spec);
    Ok(vec![credentials, config, job])
}

/// What attempt `number` needs to be read back: credentials, and the Job. The run file is there.
///
/// # Errors
/// As [`write()`].
pub fn read_back(
    run: &Run,
    subject: &Subject,
    setup: &Setup<'_>,
    observed: &Observed,
    settings: &Settings,
    order: &ReadBack<'_>,
) -> Result<Vec<Wanted>, Failure> {
    let credentials = credentials(run, subject, setup, observed, Identity::Reader)?;
    let manifest = order.manifest;
    let mut args = vec![
        "agent".to_owned(),
        "verify".to_owned(),
        format!("--run={RUN}/run.yaml"),
        format!("--store-credentials={STORE}"),
        format!("--manifest={}", manifest.key),
        format!("--blake3={}", manifest.blake3),
        format!("--depth={}", order.depth),
    ];
    args.extend(manifest.version.iter().map(|version| format!("--version={version}")));
    let agent = agent(settings.images.valv.as_str(), settings, json!(args), vec![]);
    let mut spec = job_pod(subject, setup, Identity::Reader, vec![], agent);
    spec["securityContext"] = pod_security(UNPRIVILEGED, UNPRIVILEGED);
    let name = Part::ReadBack.job(subject.slot, order.number);
    Ok(vec![credentials, job(run, setup, &name, Role::Verification, spec)])
}

/// Nobody: who reads back needs no file of anybody's.
const UNPRIVILEGED: i64 = 65_532;

fn job(run: &Run, setup: &Setup<'_>, name: &str, role: Role, spec: Value) -> Wanted {
    let mut labels = pod_labels(setup.tenant, role, Serving::No);
    labels[BACKUP_LABEL] = json!(run.uid());
    let deadline = setup.policy.spec.schedule.deadline.duration().as_secs();
    let mut job = object(
        setup.tenant,
        Kind::Job,
        name,
        json!({ "spec": {
            // Another pod would write under another id: that is another attempt, and the operator's to begin.
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline,
            "template": { "metadata": { "labels": labels }, "spec": spec },
        }}),
    );
    job.value["metadata"]["labels"][BACKUP_LABEL] = json!(run.uid());
    job.value["metadata"]["labels"][ROLE_LABEL] = json!(role.as_str());
    owned(run, job)
}

/// What both pods have: no token, the run file, and one identity of the store.
fn job_pod(
    subject: &Subject,
    setup: &Setup<'_>,
    identity: Identity,
    mut volumes: Vec<Value>,
    agent: Value,
) -> Value {
    volumes.extend([
        json!({ "name": "run", "configMap": { "name": config_name(subject.slot),
            "items": [{ "key": "run.yaml", "path": "run.yaml" }] } }),
        json!({ "name": "store", "secret": {
            "secretName": secret_name(subject.slot, identity), "defaultMode": 0o440 } }),
    ]);
    let mut spec = pod(setup.tenant.journal.scheduling.as_ref());
    spec["serviceAccountName"] = json!("database");
    spec["restartPolicy"] = json!("Never");
    spec["containers"] = json!([agent]);
    spec["volumes"] = json!(volumes);
    spec
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

/// The part `tenant`: the object, and every Secret that a restore needs, each in a folder of its name.
fn belongings(observed: &Observed, config: &str) -> Value {
    let mut sources = vec![
        json!({ "configMap": { "name": config, "items": [{ "key": "tenant.yaml", "path": "tenant.yaml" }] } }),
    ];
    for (name, keys) in observed.secrets.iter().filter(|(name, _)| !name.starts_with(PREFIX)) {
        let items: Vec<_> =
            keys.iter().map(|key| json!({ "key": key, "path": format!("secrets/{name}/{key}") })).collect();
        sources.push(json!({ "secret": { "name": name, "items": items } }));
    }
    json!({ "name": "tenant", "projected": { "defaultMode": 0o440, "sources": sources } })
}

/// What the names of all objects of a backup begin with.
const PREFIX: &str = "backup-";

fn config_name(slot: Slot) -> String {
    format!("{PREFIX}{}", slot.lower_case())
}

/// The run file, and the tenant as it is backed up.
fn run_config(run: &Run, subject: &Subject, setup: &Setup<'_>) -> Result<Wanted, Failure> {
    let unusable = |why: String| Failure { reason: BackupReason::AgentFailed, message: why };
    let file = run_file(run, subject, setup)?;
    let file = file.to_yaml().map_err(|error| unusable(chain(&error)))?;
    let object_of_tenant = json!({
        "apiVersion": "valv.eu/v1alpha1",
        "kind": "JournalTenant",
        "metadata": { "name": setup.tenant.name },
        "spec": setup.tenant.object.spec,
    });
    let tenant = serde_yaml::to_string(&object_of_tenant).map_err(|error| unusable(chain(&error)))?;
    let data = json!({ "data": { "run.yaml": file, "tenant.yaml": tenant } });
    Ok(owned(run, object(setup.tenant, Kind::ConfigMap, &config_name(subject.slot), data)))
}

/// What the agent is told.
///
/// The sentinel is the object's UID: drawn by the API server, the same for every attempt, and of no other backup.
fn run_file(run: &Run, subject: &Subject, setup: &Setup<'_>) -> Result<run_file::Run, Failure> {
    let Setup { tenant, protection, policy, store } = setup;
    let wrong = |reason: BackupReason, message: String| Failure { reason, message };
    let archive: ArchiveId =
        tenant.archive_id().parse().map_err(|error| wrong(BackupReason::NameInvalid, chain(&error)))?;
    let keys = &protection.recipients;
    let recipients: Vec<String> = [Some(&keys.tenant), Some(&keys.escrow), keys.drill.as_ref()]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    Recipients::parse(&recipients).map_err(|error| wrong(BackupReason::TooFewRecipients, chain(&error)))?;
    let sentinel = run.uid().replace('-', "");
    let sentinel = sentinel.parse().map_err(|error| wrong(BackupReason::AgentFailed, chain(&error)))?;
    let database_port = u16::try_from(tenant.database_port()).unwrap_or_default();
    let seconds = |span: valv_crds::units::Span| u32::try_from(span.duration().as_secs()).unwrap_or(u32::MAX);
    let share = policy.spec.limits.bytes_per_second.or(store.limits.bytes_per_second);
    Ok(run_file::Run {
        archive,
        slot: subject.slot,
        store: run_file::Store {
            name: store.name.clone(),
            endpoint: store.endpoint.clone(),
            bucket: store.bucket.clone(),
            prefix: store.prefix.clone(),
            region: store.signing_region.clone().unwrap_or_else(|| store.location.region.clone()),
            addressing: store.addressing,
            ca_bundle: store.ca_bundle.clone(),
            proxy: store.proxy.clone(),
            timeouts: Timeouts {
                connect: seconds(store.timeouts.connect),
                attempt: seconds(store.timeouts.attempt),
                stall: seconds(store.timeouts.stall),
            },
            retry: Retry {
                per_request: store.retry.per_request.unsigned_abs(),
                per_run: store.retry.per_run.unsigned_abs(),
            },
            bytes_per_second: share.and_then(|share| share.bytes().try_into().ok()),
            lock: store.object_lock.map(|lock| Lock { mode: lock.mode, days: lock.days.unsigned_abs() }),
            content_md5: false,
        },
        recipients,
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
            .map(|_| run_file::Attachments { folder: ATTACHMENTS.into() }),
        tenant_folder: Some(TENANT.into()),
        images: BTreeMap::from([
            ("journal".to_owned(), image(tenant)),
            ("database".to_owned(), database_image(tenant)),
        ]),
        compression_level: 3,
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

fn credentials(
    run: &Run,
    subject: &Subject,
    setup: &Setup<'_>,
    observed: &Observed,
    identity: Identity,
) -> Result<Wanted, Failure> {
    let Some(Ok(all)) = &observed.credentials else {
        let message = "the store's credentials are not there".to_owned();
        return Err(Failure { reason: BackupReason::CredentialsRefused, message });
    };
    let Credentials { access_key_id, secret_access_key } = all.of(identity);
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = json!({ "type": "Opaque", "data": {
        "accessKeyID": bytes(access_key_id), "secretAccessKey": bytes(secret_access_key.expose_secret()),
    }});
    let name = secret_name(subject.slot, identity);
    Ok(owned(run, objects::object(setup.tenant, Kind::Secret, &name, data)))
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
