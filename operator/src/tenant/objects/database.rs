//! The built-in PostgreSQL: configuration, Service, StatefulSet, disruption budget, and the Job that changes
//! who may log in.

use std::fmt::Write as _;

use kube::{ResourceExt, core::DynamicObject};
use serde_json::{Value, json};

use super::{
    Serving, Wanted, container_security, credentials, object, pod, pod_labels, pod_security, serving, small,
};
use crate::{
    agent::roles::Roles,
    digest,
    io::kind::{Key, Kind},
    segmentation::Role,
    settings::Settings,
    tenant::{
        certificates::DATABASE_TLS,
        check::Tenant,
        claim::DATABASE_CLAIM,
        observe::{Observed, STATE_NAME},
        secret::login_name,
        workload,
    },
};

/// Annotation on the pod template: digest of the settings that need a restart.
const RESTART_ANNOTATION: &str = "valv.eu/restart-settings";

/// Annotation on the pod template: generation of the roles that only a restart can bring in.
const RECOVER_ANNOTATION: &str = "valv.eu/recover-roles";

/// Prefix of the name of a Job that changes roles.
pub const ROLES_PREFIX: &str = "roles-";

/// Where the volume is mounted.
const VOLUME: &str = "/var/lib/postgresql/data";

/// Parameters of ours that need a restart, and those of the user that do.
/// Source: <https://www.postgresql.org/docs/17/view-pg-settings.html>, context `postmaster`.
const NEEDS_RESTART: [&str; 6] = [
    "autovacuum_max_workers",
    "max_connections",
    "max_locks_per_transaction",
    "max_worker_processes",
    "shared_buffers",
    "wal_buffers",
];

/// `postgresql.conf`: what Valv promises, after what the user may choose, so that a promise wins.
fn postgresql_conf(tenant: &Tenant) -> String {
    let mut text = String::from("# Written by Valv. Parameters are set in spec.database.parameters.\n");
    for (name, value) in &tenant.database.parameters {
        let _ = writeln!(text, "{name} = '{value}'");
    }
    text.push_str(
        "listen_addresses = '*'\n\
         port = 5432\n\
         unix_socket_directories = '/valv/run'\n\
         password_encryption = 'scram-sha-256'\n\
         ssl = on\n\
         ssl_cert_file = '/etc/valv/tls/tls.crt'\n\
         ssl_key_file = '/etc/valv/tls/tls.key'\n\
         ssl_min_protocol_version = 'TLSv1.2'\n\
         wal_level = 'replica'\n\
         max_wal_senders = 10\n\
         max_replication_slots = 10\n\
         summarize_wal = on\n\
         fsync = on\n\
         full_page_writes = on\n\
         synchronous_commit = on\n\
         hot_standby = on\n\
         log_destination = 'stderr'\n\
         logging_collector = off\n\
         log_line_prefix = '%m [%p] %u@%d '\n\
         log_connections = off\n\
         log_parameter_max_length = 0\n\
         log_parameter_max_length_on_error = 0\n\
         log_min_error_statement = panic\n\
         log_statement = 'none'\n\
         log_min_duration_statement = -1\n\
         log_timezone = 'UTC'\n\
         timezone = 'UTC'\n\
         dynamic_shared_memory_type = 'posix'\n",
    );
    text
}

/// `pg_hba.conf`: TLS and passwords for everybody who comes by network; the superuser only from inside.
fn hba_conf(tenant: &Tenant) -> String {
    let database = &tenant.database.name;
    format!(
        "# type    database     user                          address  method\n\
         local     all          postgres                               peer\n\
         hostssl   all          postgres                      all      reject\n\
         hostssl   replication  journal_replication           all      scram-sha-256\n\
         hostssl   replication  all                           all      reject\n\
         hostssl   {database}   journal_owner,journal_app_a,journal_app_b,journal_replication,journal_check,valv_roles  all  scram-sha-256\n\
         host      all          all                           all      reject\n"
    )
}

/// Everything of the built-in database but its volume and Secrets.
pub fn database(
    tenant: &Tenant,
    settings: &Settings,
    observed: &Observed,
    replicas: i32,
    recover: Option<i64>,
) -> Vec<Wanted> {
    let config = object(
        tenant,
        Kind::ConfigMap,
        "database-config",
        json!({ "data": {
            "postgresql.conf": postgresql_conf(tenant),
            "pg_hba.conf": hba_conf(tenant),
        }}),
    );
    let service = object(
        tenant,
        Kind::Service,
        "database",
        json!({ "spec": {
            "type": "ClusterIP",
            "selector": serving(tenant, Role::Database),
            "ports": [{ "name": "postgresql", "port": 5432, "targetPort": 5432, "protocol": "TCP" }],
        }}),
    );
    let budget = object(
        tenant,
        Kind::PodDisruptionBudget,
        "database",
        json!({ "spec": {
            "maxUnavailable": 1,
            "selector": { "matchLabels": serving(tenant, Role::Database) },
        }}),
    );
    let stateful_set = |agent_image: &str| stateful_set(tenant, settings, agent_image, replicas, recover);
    // A new operator alone restarts no database: the agent's image is renewed with the next change.
    let standing = observed.get(Kind::StatefulSet, "database");
    let kept = standing.and_then(|standing| {
        let image = standing.data.pointer("/spec/template/spec/initContainers/0/image")?.as_str()?;
        let wanted = stateful_set(image);
        let standing = serde_json::to_value(standing.as_ref()).ok()?;
        let template = |value: &Value| value.pointer("/spec/template").cloned().unwrap_or_default();
        crate::io::difference::difference(&template(&wanted.value), &template(&standing))
            .is_none()
            .then_some(wanted)
    });
    let stateful_set = kept.unwrap_or_else(|| stateful_set(settings.images.valv.as_str()));
    vec![config, service, budget, stateful_set]
}

fn stateful_set(
    tenant: &Tenant,
    settings: &Settings,
    agent_image: &str,
    replicas: i32,
    recover: Option<i64>,
) -> Wanted {
    let restart: Vec<_> = tenant
        .database
        .parameters
        .iter()
        .filter(|(name, _)| NEEDS_RESTART.contains(&name.as_str()))
        .collect();
    // Rights are set when the pod starts, and only then.
    let restart = json!([restart, tenant.database.application_rights]);
    let restart = digest::of(restart.to_string().as_bytes());
    let mut annotations = json!({ RESTART_ANNOTATION: restart });
    if let Some(generation) = recover {
        annotations[RECOVER_ANNOTATION] = json!(generation.to_string());
    }
    let uid = i64::from(settings.database.uid.get());
    let policy = settings.image_pull_policy.as_str();
    let postgres = settings.images.postgres.as_str();
    let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path });
    let read = |name: &str, path: &str| json!({ "name": name, "mountPath": path, "readOnly": true });
    let resources = json!(settings.database.resources_of(&tenant.database));
    let mut spec = pod(tenant.database.scheduling.as_ref());
    let parts = json!({
        "serviceAccountName": "database",
        "securityContext": pod_security(uid, uid),
        "terminationGracePeriodSeconds": 120,
        "initContainers": [
            {
                "name": "agent",
                "image": agent_image,
                "imagePullPolicy": policy,
                "args": ["agent", "install", "/valv/bin/valv"],
                "securityContext": container_security(),
                "resources": small(),
                "volumeMounts": [mount("agent", "/valv/bin")],
            },
            {
                "name": "initialise",
                "image": postgres,
                "imagePullPolicy": policy,
                "command": ["/valv/bin/valv", "agent", "database", "init",
                    "--volume", VOLUME, "--major", tenant.database.version.to_string(),
                    "--config-file", "/etc/valv/database/postgresql.conf",
                    "--roles", "/etc/valv/roles/roles.json", "--scratch", "/valv/run"],
                "env": [{ "name": "VALV_EXPECT_SYSTEM_IDENTIFIER", "valueFrom": { "configMapKeyRef": {
                    "name": STATE_NAME, "key": "systemIdentifier", "optional": true,
                }}}],
                "securityContext": container_security(),
                "resources": resources,
                "volumeMounts": [
                    read("agent", "/valv/bin"), mount("data", VOLUME), read("roles", "/etc/valv/roles"),
                    mount("run", "/valv/run"), mount("temporary", "/tmp"), mount("shared-memory", "/dev/shm"),
                    read("config", "/etc/valv/database"), read("tls", "/etc/valv/tls"),
                ],
            },
        ],
        "containers": [{
            "name": "postgresql",
            "image": postgres,
            "imagePullPolicy": policy,
            "command": ["/valv/bin/valv", "agent", "database", "run",
                "--volume", VOLUME, "--major", tenant.database.version.to_string(),
                "--config-file", "/etc/valv/database/postgresql.conf",
                "--hba-file", "/etc/valv/database/pg_hba.conf",
                "--watch", "/etc/valv/database", "--watch", "/etc/valv/tls"],
            "ports": [{ "name": "postgresql", "containerPort": 5432, "protocol": "TCP" }],
            "startupProbe": probe(LIVES, 1, 600),
            "readinessProbe": probe(ANSWERS, 2, 3),
            "livenessProbe": probe(LIVES, 10, 6),
            "securityContext": container_security(),
            "resources": resources,
            "volumeMounts": [
                read("agent", "/valv/bin"), mount("data", VOLUME), mount("run", "/valv/run"),
                mount("temporary", "/tmp"), mount("shared-memory", "/dev/shm"),
                read("config", "/etc/valv/database"), read("tls", "/etc/valv/tls"),
            ],
        }],
        "volumes": [
            { "name": "data", "persistentVolumeClaim": { "claimName": DATABASE_CLAIM } },
            { "name": "agent", "emptyDir": {} },
            { "name": "run", "emptyDir": { "medium": "Memory", "sizeLimit": "16Mi" } },
            { "name": "temporary", "emptyDir": { "sizeLimit": "256Mi" } },
            { "name": "shared-memory", "emptyDir": { "medium": "Memory", "sizeLimit": "256Mi" } },
            { "name": "config", "configMap": { "name": "database-config" } },
            { "name": "roles", "secret": { "secretName": credentials::ROLES_SECRET, "defaultMode": 0o440 } },
            { "name": "tls", "secret": { "secretName": DATABASE_TLS, "defaultMode": 0o440 } },
        ],
    });
    merge(&mut spec, parts);
    object(
        tenant,
        Kind::StatefulSet,
        "database",
        json!({ "spec": {
            "replicas": replicas,
            "serviceName": "database",
            "selector": { "matchLabels": serving(tenant, Role::Database) },
            "template": {
                "metadata": { "labels": pod_labels(tenant, Role::Database, Serving::Yes), "annotations": annotations },
                "spec": spec,
            },
        }}),
    )
}

/// The server takes connections. `pg_isready` speaks only the first bytes of the protocol: it logs in as nobody.
const ANSWERS: &str = "pg_isready --quiet --host /valv/run";

/// The server is there: one that rejects connections (exit code 1) is recovering from a crash, which may take as
/// long as its WAL is long, and would begin anew if it were killed.
/// Source: <https://www.postgresql.org/docs/17/app-pg-isready.html>
const LIVES: &str = "pg_isready --quiet --host /valv/run || test $? -eq 1";

fn probe(question: &str, period_seconds: i32, failures: i32) -> Value {
    json!({
        "exec": { "command": ["sh", "-c", question] },
        "periodSeconds": period_seconds,
        "failureThreshold": failures,
        "timeoutSeconds": 3,
    })
}

/// The database's pod, if it has never come up as an older template asks and the StatefulSet has a newer one: the
/// StatefulSet would wait for ever until it is ready, as `OrderedReady` since ever and as `Parallel` in 1.35.
/// Source: <https://github.com/kubernetes/kubernetes/issues/67250>,
/// <https://github.com/kubernetes/kubernetes/issues/137409>
pub fn stuck_pod(observed: &Observed) -> Option<Key> {
    let set = observed.get(Kind::StatefulSet, "database")?;
    let seen = set.data.pointer("/status/observedGeneration").and_then(Value::as_i64);
    let revision = set.data.pointer("/status/updateRevision").and_then(Value::as_str)?;
    let pod = workload::database_pod(observed)?;
    let is_old = pod.labels().get("controller-revision-hash").is_some_and(|own| own != revision);
    let goes = pod.metadata.deletion_timestamp.is_some();
    (seen == set.metadata.generation && is_old && !goes && cannot_start(pod))
        .then(|| Key::new(Kind::Pod, pod.name_any()))
}

/// Whether a pod waits for what time alone does not bring: a node, an image, or the end of a back-off.
fn cannot_start(pod: &DynamicObject) -> bool {
    let list = |pointer: &str| pod.data.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let unscheduled = list("/status/conditions")
        .any(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False");
    let mut statuses = list("/status/initContainerStatuses").chain(list("/status/containerStatuses"));
    unscheduled
        || statuses.any(|status| {
            let reason = status.pointer("/state/waiting/reason").and_then(Value::as_str);
            reason.is_some_and(|reason| !["PodInitializing", "ContainerCreating"].contains(&reason))
        })
}

/// Name of the Job that brings `roles` into force.
pub fn roles_job_name(roles: &Roles) -> String {
    format!("{ROLES_PREFIX}{}", &digest::of(credentials::roles_file(roles).as_bytes())[..10])
}

/// The Job that brings `roles` into force in the running database.
pub fn roles_job(tenant: &Tenant, settings: &Settings, roles: &Roles) -> Wanted {
    let name = roles_job_name(roles);
    let read = |name: &str, path: &str| json!({ "name": name, "mountPath": path, "readOnly": true });
    let mut spec = pod(tenant.database.scheduling.as_ref());
    merge(
        &mut spec,
        json!({
            "serviceAccountName": "database",
            "restartPolicy": "Never",
            "securityContext": pod_security(65_532, 65_532),
            "containers": [{
                "name": "roles",
                "image": settings.images.valv.as_str(),
                "imagePullPolicy": settings.image_pull_policy.as_str(),
                "args": ["agent", "database", "roles",
                    "--host", tenant.database_host(), "--ca-file", "/etc/valv/authorities/ca.crt",
                    "--password-file", "/etc/valv/login/password",
                    "--password-file", "/etc/valv/login/previous-password",
                    "--roles", "/etc/valv/roles/roles.json", "--deadline", "60s"],
                "securityContext": container_security(),
                "resources": small(),
                "volumeMounts": [
                    read("authorities", "/etc/valv/authorities"), read("login", "/etc/valv/login"),
                    read("roles", "/etc/valv/roles"),
                ],
            }],
            "volumes": [
                { "name": "authorities", "configMap": { "name": credentials::AUTHORITIES } },
                { "name": "login", "secret": {
                    "secretName": login_name(crate::agent::roles::Role::ValvRoles), "defaultMode": 0o440 } },
                { "name": "roles", "secret": { "secretName": credentials::ROLES_SECRET, "defaultMode": 0o440 } },
            ],
        }),
    );
    object(
        tenant,
        Kind::Job,
        &name,
        json!({ "spec": {
            "backoffLimit": 6,
            "template": {
                "metadata": { "labels": pod_labels(tenant, Role::Roles, Serving::No) },
                "spec": spec,
            },
        }}),
    )
}

/// Puts the fields of `more` into `value`.
pub fn merge(value: &mut Value, more: Value) {
    if let (Some(fields), Value::Object(more)) = (value.as_object_mut(), more) {
        fields.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tenant::simulation::Simulation;

    #[test]
    fn a_pod_that_cannot_start_gives_way_to_a_newer_template_and_one_that_recovers_does_not() {
        let mut simulation = Simulation::new();
        simulation.settle(|_| {});
        let key = Key::new(Kind::Pod, "database-0");
        let mut has = |revision: &str, status: Value| {
            let mut pod = simulation.observed.objects[&key].as_ref().clone();
            pod.labels_mut().insert("controller-revision-hash".into(), revision.into());
            pod.data["status"] = status;
            simulation.observed.objects.insert(key.clone(), Arc::new(pod));
            stuck_pod(&simulation.observed)
        };
        let unscheduled = json!({ "conditions": [{ "type": "PodScheduled", "status": "False" }] });
        let unpulled =
            json!({ "initContainerStatuses": [{ "state": { "waiting": { "reason": "ErrImagePull" } } }] });
        let recovering = json!({ "containerStatuses": [{ "ready": false, "state": { "running": {} } }] });

        assert_eq!(has("r", unscheduled.clone()), None, "it is as the StatefulSet asks");
        assert_eq!(has("q", unscheduled), Some(key.clone()));
        assert_eq!(has("q", unpulled), Some(key.clone()));
        assert_eq!(has("q", recovering), None);
    }
}
