//! The objects of a drill, up to the judgement: the ground, and the two Jobs. Pure.
//!
//! All of them are in the drill's own namespace and go with it. The credentials of the store and the key go as soon
//! as the Job that restores has ended.

use std::time::Duration;

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Namespace},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use valv_crds::{
    BackupPolicy, Slot,
    drill::{Choice, DrillReason},
    policy::{RowCounts, SqlCheck},
    reference::{DRILL_LABEL, ROLE_LABEL, TENANT_LABEL},
    slot::short_uid,
};

use super::{
    catalogue::Chosen,
    check::{Run, Subject},
    names::{
        ARCHIVE_ANNOTATION, CONFIG, JUDGE, KEY_FILE, KEY_SECRET, KEYHOLDER_BINDING, OBJECT_ANNOTATION,
        RESTORE, STORE_SECRET,
    },
    observe::Observed,
};
use crate::{
    agent::{
        drill_file::{FEWEST_RECIPIENTS, Judge, Question, Restore, default_inventory_timeout},
        restore::tenant::{Live, spec_digest},
        roles::Role as Login,
    },
    archive::digest::Blake3,
    error::chain,
    io::{
        bucket::Credentials,
        kind::{Key, Kind},
    },
    segmentation::{self, Role},
    settings::Settings,
    store::check::Store,
    tenant::{
        check::Tenant,
        claim::{ATTACHMENTS_CLAIM, DATABASE_CLAIM},
        objects::{
            Serving, Wanted, container_security,
            foundation::{self, ROLE_BINDING},
            object, pod, pod_labels, pod_security, small,
        },
        observe,
    },
};

/// Memory of the agent that restores: 128 MiB of its own at most, and `pg_verifybackup` beside it.
const RESTORE_MEMORY: &str = "256Mi";

/// The file with digests of what the tenant has now. It goes with the credentials: a digest of a short password is as
/// good as the password.
const LIVE: &str = "tenant.json";

/// Where the pods' files are mounted.
const RUN: &str = "/valv/run";
const STORE: &str = "/valv/store";
const KEY: &str = "/valv/key";
const DATABASE: &str = "/valv/database";
const ATTACHMENTS: &str = "/valv/attachments";
const TENANT: &str = "/valv/tenant";

/// The tenant as it stands in the drill's namespace: alone, with one pod of its journal.
pub fn guest(tenant: &Tenant, subject: &Subject, observed: &Observed) -> Tenant {
    let mut object = tenant.object.as_ref().clone();
    // What it is in its own namespace says nothing of this one.
    object.status = None;
    object.spec.access = None;
    object.spec.suspended = false;
    if let Some(serving) = serving(observed) {
        object.spec.journal = serving;
    }
    object.spec.journal.replicas = 1;
    if let Some(image) = observed.chosen.as_ref().and_then(|chosen| chosen.image.as_deref()) {
        object.spec.journal.image = image_of(tenant, &object.spec.journal.image, image);
    }
    Tenant { object: std::sync::Arc::new(object), name: tenant.name.clone(), namespace: subject.into.clone() }
}

/// The journal as it serves in the tenant's own namespace: what a newer image would make of it was not backed up.
fn serving(observed: &Observed) -> Option<valv_crds::journal::Journal> {
    let own = observe::Observed { objects: observed.tenant_objects.clone(), ..observe::Observed::default() };
    own.state().serving
}

/// The image that ran when the backup was taken. Where that is the one that serves now it is named as it is there:
/// a node that has it by its tag need not know it by its digest.
fn image_of(tenant: &Tenant, serving: &str, backed_up: &str) -> String {
    let status = tenant.object.status.as_ref();
    let digest = status.and_then(|status| status.journal.image_digest.clone());
    let now = digest.map_or_else(|| serving.to_owned(), |digest| format!("{serving}@{digest}"));
    let is_same = now == backed_up || serving == backed_up;
    if is_same {
        return serving.to_owned();
    }
    // What was asked for by its digest has the digest that ran behind it: they are one.
    match backed_up.split_once('@') {
        Some((name, digests)) => format!("{name}@{}", digests.split('@').next().unwrap_or_default()),
        None => backed_up.to_owned(),
    }
}

/// The drill's namespace, to create: everything in it is walled before anything is.
pub fn namespace(run: &Run, subject: &Subject, archive: &str) -> Namespace {
    let value = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": subject.into,
            "labels": {
                TENANT_LABEL: subject.tenant,
                DRILL_LABEL: run.uid(),
                "app.kubernetes.io/managed-by": "valv",
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/audit": "restricted",
                "pod-security.kubernetes.io/warn": "restricted",
            },
            "annotations": { ARCHIVE_ANNOTATION: archive, OBJECT_ANNOTATION: run.key() },
        },
    });
    serde_json::from_value(value).unwrap_or_default()
}

/// What lets the operator work in the drill's namespace.
pub fn access(namespace: &str, tenant: &str, settings: &Settings) -> Wanted {
    binding(
        namespace,
        tenant,
        ROLE_BINDING,
        &settings.drill_role,
        [&settings.service_account, &settings.operator_namespace],
    )
}

fn binding(namespace: &str, tenant: &str, name: &str, role: &str, to: [&str; 2]) -> Wanted {
    let [account, home] = to;
    let key = Key::new(Kind::RoleBinding, name);
    let value = json!({
        "apiVersion": Kind::RoleBinding.api_version(),
        "kind": Kind::RoleBinding.as_str(),
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": { TENANT_LABEL: tenant, "app.kubernetes.io/managed-by": "valv" },
        },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": home }],
    });
    Wanted { key, value }
}

/// The walls of the drill's namespace, with an opening to `store` and no other.
pub fn walls(guest: &Tenant, store: Option<&str>, settings: &Settings) -> Vec<Wanted> {
    let policies = segmentation::drill_policies(&settings.network, store).into_iter();
    policies.map(|(name, spec)| object(guest, Kind::NetworkPolicy, name, json!({ "spec": spec }))).collect()
}

/// The volumes that it restores into: as large as the tenant's own, and of their class where the settings name none.
pub fn claims(guest: &Tenant, observed: &Observed, settings: &Settings) -> Vec<Wanted> {
    let own = observe::Observed { objects: observed.tenant_objects.clone(), ..observe::Observed::default() };
    let mut claims = foundation::claims(guest, settings, &own, &[DATABASE_CLAIM, ATTACHMENTS_CLAIM]);
    if let Some(class) = &settings.drills.storage_class_name {
        for claim in &mut claims {
            claim.value["spec"]["storageClassName"] = json!(class);
        }
    }
    claims
}

/// What stands before anything is restored: the operator's way in, the walls, accounts, volumes, the run files; and
/// the key holder's way in, where the tenant has a key for unattended drills.
///
/// # Errors
/// What in tenant, policy or store cannot be drilled.
pub fn ground(
    run: &Run,
    subject: &Subject,
    tenant: &Tenant,
    observed: &Observed,
    settings: &Settings,
    chosen: &Chosen,
) -> Result<Vec<Wanted>, (DrillReason, String)> {
    let guest = guest(tenant, subject, observed);
    let mut wanted = vec![access(&subject.into, &subject.tenant, settings)];
    wanted.extend(walls(&guest, observed.store_name.as_deref(), settings));
    let account = |name: &str| {
        object(&guest, Kind::ServiceAccount, name, json!({ "automountServiceAccountToken": false }))
    };
    wanted.extend([account("journal"), account("database")]);
    wanted.extend(claims(&guest, observed, settings));
    wanted.push(config(run, &guest, observed, chosen)?);
    if let Some(keyholder) = settings.keyholder.as_ref().filter(|_| is_unattended(tenant)) {
        wanted.push(binding(
            &subject.into,
            &subject.tenant,
            KEYHOLDER_BINDING,
            &keyholder.delivery_role,
            [&keyholder.service_account, &keyholder.namespace],
        ));
    }
    Ok(wanted)
}

/// Whether a key of this tenant may lie in the cluster.
pub fn is_unattended(tenant: &Tenant) -> bool {
    tenant.backup.as_ref().is_some_and(|protection| protection.recipients.drill.is_some())
}

/// The run files, and what was chosen.
fn config(
    run: &Run,
    guest: &Tenant,
    observed: &Observed,
    chosen: &Chosen,
) -> Result<Wanted, (DrillReason, String)> {
    let unusable = |why: String| (DrillReason::CannotRestore, why);
    let store = observed.store.as_ref();
    let store = store.ok_or_else(|| unusable(format!("the BackupStore {} is gone", chosen.backup.store)))?;
    let restore = restore_file(guest, observed, chosen, store);
    let restore = restore.to_yaml().map_err(|error| unusable(chain(&error)))?;
    let judge = judge_file(guest, observed, chosen).to_yaml().map_err(|error| unusable(chain(&error)))?;
    let chosen = serde_json::to_string(chosen).map_err(|error| unusable(chain(&error)))?;
    let data = json!({ "data": { "restore.yaml": restore, "judge.yaml": judge, "chosen.json": chosen } });
    let mut wanted = object(guest, Kind::ConfigMap, CONFIG, data);
    // It is believed for hours by name: it is made once, and its digest is in the status.
    wanted.value["immutable"] = json!(true);
    wanted.value["metadata"]["labels"][DRILL_LABEL] = json!(run.uid());
    Ok(wanted)
}

/// BLAKE3 of the run files in `config`: of each name and each text, each after its length in 8 bytes, big-endian.
pub fn config_digest(config: &ConfigMap) -> String {
    let mut bytes = vec![];
    for (name, text) in config.data.iter().flatten() {
        for part in [name, text] {
            bytes.extend(part.len().to_be_bytes());
            bytes.extend(part.as_bytes());
        }
    }
    Blake3::of(&bytes).to_string()
}

/// [`config_digest`] of what is among `wanted`.
pub fn digest_among(wanted: &[Wanted]) -> Option<String> {
    let config = wanted.iter().find(|wanted| wanted.key == Key::new(Kind::ConfigMap, CONFIG))?;
    let config: ConfigMap = serde_json::from_value(config.value.clone()).ok()?;
    Some(config_digest(&config))
}

fn restore_file(guest: &Tenant, observed: &Observed, chosen: &Chosen, store: &Store) -> Restore {
    Restore {
        archive: chosen.archive.clone(),
        slot: chosen.backup.slot,
        store: store.spoken_to(None, None),
        trusted_keys: observed.trusted.clone(),
        recipients: FEWEST_RECIPIENTS,
        previous: chosen.earlier.as_ref().map(|earlier| earlier.slot),
        database_volume: DATABASE.into(),
        attachments_folder: guest.attachments.as_ref().map(|_| ATTACHMENTS.into()),
        tenant_folder: TENANT.into(),
        in_flight: 3,
        major: major(guest),
    }
}

fn major(guest: &Tenant) -> u16 {
    guest.database.version.try_into().unwrap_or(17)
}

/// What the agent that judges was told, if the run files are those that this drill was prepared with.
pub fn judged_by(observed: &Observed) -> Option<Judge> {
    observed.chosen.as_ref()?;
    let config = observed.objects.get(&Key::new(Kind::ConfigMap, CONFIG))?;
    serde_yaml::from_str(config.data.pointer("/data/judge.yaml")?.as_str()?).ok()
}

/// The questions of `policy`, and how far it lets row counts differ.
pub fn questions(policy: Option<&BackupPolicy>) -> (Vec<Question>, RowCounts) {
    let plan = policy.and_then(|policy| policy.spec.drill.as_ref());
    let checks = plan.map(|plan| plan.checks.as_slice()).unwrap_or_default();
    let question = |check: &SqlCheck| Question {
        name: check.name.clone(),
        sql: check.sql.clone(),
        timeout_seconds: u32::try_from(check.timeout.duration().as_secs()).unwrap_or(1).max(1),
    };
    (checks.iter().map(question).collect(), plan.map_or_else(RowCounts::default, |plan| plan.row_counts))
}

fn judge_file(guest: &Tenant, observed: &Observed, chosen: &Chosen) -> Judge {
    let (checks, row_counts) = questions(observed.policy.as_deref());
    let attachments = guest.attachments.as_ref();
    Judge {
        database_volume: DATABASE.into(),
        attachments_folder: attachments.map(|_| ATTACHMENTS.into()),
        database: guest.database.name.clone(),
        journal_role: Some(Login::JournalOwner.name().to_owned()),
        inventory_sql: attachments.and_then(|attachments| attachments.inventory_sql.clone()),
        inventory_timeout_seconds: default_inventory_timeout(),
        earlier: chosen.earlier.clone(),
        row_counts,
        checks,
        major: major(guest),
    }
}

/// The Job that restores, and the credentials that it reads with. `left` is the time that it has.
pub fn restore(
    run: &Run,
    guest: &Tenant,
    observed: &Observed,
    settings: &Settings,
    left: Duration,
) -> Option<Vec<Wanted>> {
    let Some(Ok(all)) = &observed.credentials else { return None };
    let Credentials { access_key_id, secret_access_key } = &all.reader;
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut data = json!({ "type": "Opaque", "data": {
        "accessKeyID": bytes(access_key_id), "secretAccessKey": bytes(secret_access_key.expose_secret()),
    }});
    let mut args = vec![json!("agent")];
    // What an older backup has may differ from what is there now: of the newest it is told.
    if run.object.spec.backup == Choice::Newest
        && let Some(live) = live(observed).and_then(|live| serde_json::to_string(&live).ok())
    {
        data["data"][LIVE] = json!(bytes(&live));
        args.push(json!(format!("--live={STORE}/{LIVE}")));
    }
    let credentials = object(guest, Kind::Secret, STORE_SECRET, data);
    args.splice(
        1..1,
        [
            "restore".to_owned(),
            "--run".to_owned(),
            format!("{RUN}/restore.yaml"),
            "--store-credentials".to_owned(),
            STORE.to_owned(),
            "--identity".to_owned(),
            format!("{KEY}/{KEY_FILE}"),
        ]
        .map(|text: String| json!(text)),
    );
    let secret = |name: &str, secret: &str| json!({ "name": name, "secret": { "secretName": secret, "defaultMode": 0o440 } });
    let mut volumes = vec![secret("store", STORE_SECRET), secret("key", KEY_SECRET)];
    // By its key: a Secret that a person made without it is waited past, until it is made anew.
    volumes[1]["secret"]["items"] = json!([{ "key": KEY_FILE, "path": KEY_FILE }]);
    volumes.push(json!({ "name": "tenant", "emptyDir": { "medium": "Memory", "sizeLimit": "32Mi" } }));
    let mut mounts =
        vec![read("store", STORE), read("key", KEY), json!({ "name": "tenant", "mountPath": TENANT })];
    if guest.attachments.is_some() {
        mounts.push(json!({ "name": "attachments", "mountPath": ATTACHMENTS }));
    }
    let resources = json!({
        "requests": { "cpu": "100m", "memory": RESTORE_MEMORY }, "limits": { "cpu": "2", "memory": "512Mi" },
    });
    let job = job(
        run,
        guest,
        settings,
        &Part { name: RESTORE, role: Role::Restore, args: json!(args), volumes, mounts, resources, left },
    );
    Some(vec![credentials, job])
}

/// What the tenant has now, of what its backup must have: digests only.
fn live(observed: &Observed) -> Option<Live> {
    let spec = spec_digest(&observed.tenant.as_ref()?.object.spec).ok()?;
    let mut live = Live { spec, ..Live::default() };
    for (key, found) in &observed.references {
        let field = |name: &str| found.data.get(name).and_then(Value::as_object).into_iter().flatten();
        let decoded =
            |value: &Value| serde_json::from_value::<ByteString>(value.clone()).ok().map(|bytes| bytes.0);
        let digest = |content: Vec<u8>| Blake3::of(&content).to_string();
        if key.kind == Kind::Secret {
            let keys =
                field("data").filter_map(|(name, value)| Some((name.clone(), digest(decoded(value)?))));
            live.secrets.insert(key.name.clone(), keys.collect());
        } else {
            let text = field("data").filter_map(|(name, value)| {
                Some((name.clone(), digest(value.as_str()?.as_bytes().to_vec())))
            });
            let binary =
                field("binaryData").filter_map(|(name, value)| Some((name.clone(), digest(decoded(value)?))));
            live.config_maps.insert(key.name.clone(), text.chain(binary).collect());
        }
    }
    Some(live)
}

/// The Job that judges. It has no key, no credentials, and reaches nobody.
pub fn judge(run: &Run, guest: &Tenant, settings: &Settings, left: Duration) -> Wanted {
    let mut mounts = vec![json!({ "name": "shared-memory", "mountPath": "/dev/shm" })];
    if guest.attachments.is_some() {
        mounts.push(read("attachments", ATTACHMENTS));
    }
    let volumes =
        vec![json!({ "name": "shared-memory", "emptyDir": { "medium": "Memory", "sizeLimit": "256Mi" } })];
    job(
        run,
        guest,
        settings,
        &Part {
            name: JUDGE,
            role: Role::Judge,
            args: json!(["agent", "judge", "--run", format!("{RUN}/judge.yaml")]),
            volumes,
            mounts,
            // It is the server that the tenant's database has.
            resources: json!(settings.database.resources_of(&guest.database)),
            left,
        },
    )
}

/// What the two Jobs do not have in common.
struct Part {
    name: &'static str,
    role: Role,
    args: Value,
    volumes: Vec<Value>,
    mounts: Vec<Value>,
    resources: Value,
    left: Duration,
}

/// One pod, not started again, without a token; it runs as the database's server does, whose files these are.
fn job(run: &Run, guest: &Tenant, settings: &Settings, part: &Part) -> Wanted {
    let Part { name, role, args, volumes, mounts, resources, left } = part;
    let policy = settings.image_pull_policy.as_str();
    let install = json!({
        "name": "install",
        "image": settings.images.valv.as_str(),
        "imagePullPolicy": policy,
        "args": ["agent", "install", "/valv/bin/valv"],
        "securityContext": container_security(),
        "resources": small(),
        "volumeMounts": [{ "name": "valv", "mountPath": "/valv/bin" }],
    });
    let mut mounts = mounts.clone();
    mounts.extend([
        read("valv", "/valv/bin"),
        read("run", RUN),
        json!({ "name": "database", "mountPath": DATABASE }),
        json!({ "name": "temporary", "mountPath": "/tmp" }),
    ]);
    let agent = json!({
        "name": "agent",
        "image": settings.images.postgres.as_str(),
        "imagePullPolicy": policy,
        "command": ["/valv/bin/valv"],
        "args": args,
        "env": [{ "name": "POD_UID", "valueFrom": { "fieldRef": { "fieldPath": "metadata.uid" } } }],
        "securityContext": container_security(),
        "resources": resources,
        "volumeMounts": mounts,
    });
    let claim =
        |name: &str, claim: &str| json!({ "name": name, "persistentVolumeClaim": { "claimName": claim } });
    let mut volumes = volumes.clone();
    volumes.extend([
        json!({ "name": "valv", "emptyDir": {} }),
        json!({ "name": "run", "configMap": { "name": CONFIG } }),
        json!({ "name": "temporary", "emptyDir": { "sizeLimit": "256Mi" } }),
        claim("database", DATABASE_CLAIM),
    ]);
    if guest.attachments.is_some() {
        volumes.push(claim("attachments", ATTACHMENTS_CLAIM));
    }
    let uid = i64::from(settings.database.uid.get());
    let mut spec = pod(guest.database.scheduling.as_ref());
    spec["serviceAccountName"] = json!("database");
    spec["restartPolicy"] = json!("Never");
    spec["securityContext"] = pod_security(uid, uid);
    if guest.attachments.is_some() {
        // So that the attachments can be handed to the journal's group.
        spec["securityContext"]["supplementalGroups"] = json!([guest.journal.run_as.group]);
    }
    spec["initContainers"] = json!([install]);
    spec["containers"] = json!([agent]);
    spec["volumes"] = json!(volumes);
    if guest.runs_on_one_node() {
        spec["affinity"] = json!({ "podAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "labelSelector": { "matchExpressions": [{ "key": DRILL_LABEL, "operator": "Exists" }] },
                "topologyKey": "kubernetes.io/hostname",
            },
        }]}});
    }
    let mut labels = pod_labels(guest, *role, Serving::No);
    labels[DRILL_LABEL] = json!(run.uid());
    let mut job = object(
        guest,
        Kind::Job,
        name,
        json!({ "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": left.as_secs().max(1),
            "template": { "metadata": { "labels": labels }, "spec": spec },
        }}),
    );
    job.value["metadata"]["labels"][DRILL_LABEL] = json!(run.uid());
    job.value["metadata"]["labels"][ROLE_LABEL] = json!(role.as_str());
    job
}

fn read(name: &str, path: &str) -> Value {
    json!({ "name": name, "mountPath": path, "readOnly": true })
}

/// Name of the record of the drill for `slot` with this UID: two drills can be of one slot.
pub fn record_name(slot: Slot, uid: &str) -> String {
    format!("drill-{slot}-{}", short_uid(uid))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_image_that_was_backed_up_is_named_so_that_a_node_finds_it() {
        let object = serde_json::from_value(json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant", "metadata": { "name": "ada" },
            "spec": { "host": "h", "journal": { "image": "r.example/j:2" }, "database": { "size": "1Gi" } },
            "status": { "journal": { "image": "r.example/j:2", "imageDigest": "sha256:22" }, "database": {},
                "certificates": {}, "conditions": [] },
        }))
        .unwrap();
        let tenant = crate::tenant::check::check(Arc::new(object)).unwrap();
        let image = |backed_up: &str| image_of(&tenant, "r.example/j:2", backed_up);

        assert_eq!(image("r.example/j:2@sha256:22"), "r.example/j:2");
        assert_eq!(image("r.example/j:2"), "r.example/j:2");
        assert_eq!(image("r.example/j:2@sha256:11"), "r.example/j:2@sha256:11");
        assert_eq!(image("r.example/j@sha256:11@sha256:11"), "r.example/j@sha256:11");
    }
}
