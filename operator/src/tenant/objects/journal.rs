//! The journal: its pods, by what the spec says of them.

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Value, json};
use valv_crds::{
    journal::{Connection, ConnectionEnv, Journal, OnNewCertificate, Tls},
    reference::ATTACHMENTS_LABEL,
    resources::Resources,
};

use super::{
    Serving, Wanted, container_security,
    credentials::{self, AUTHORITIES},
    database::merge,
    object, pod, pod_labels, pod_security, serving, small,
};
use crate::{
    digest,
    io::kind::{Key, Kind},
    segmentation::Role,
    settings::Settings,
    tenant::{check::Tenant, claim::ATTACHMENTS_CLAIM, observe::Observed, secret},
};

/// Annotation on the pod template: digest of the credentials that the pods read.
pub const CREDENTIALS_ANNOTATION: &str = "valv.eu/credentials";

/// Annotation on the pod template: digest of the authorities that the pods trust.
pub const AUTHORITIES_ANNOTATION: &str = "valv.eu/authorities";

/// Annotation on the pod template: digest of the certificate that the pods serve with.
const CERTIFICATE_ANNOTATION: &str = "valv.eu/certificate";

/// Annotation on the pod template: digest of the proxy's configuration.
const PROXY_ANNOTATION: &str = "valv.eu/proxy";

/// Name of the ConfigMap with the proxy's configuration.
const PROXY_CONFIG: &str = "proxy-config";

/// Annotation on the pod template: digest of what the spec names and the pods read.
const REFERENCES_ANNOTATION: &str = "valv.eu/references";

/// Name of the port on which a pod serves HTTPS. Service and walls go by it: during a change of the port the old
/// pods and the new ones are reached, each where it listens.
pub const HTTPS_PORT: &str = "https";

/// How long a pod that is to stop goes on serving: until every node knows that it gets no more traffic.
const LEAVING_SECONDS: i64 = 5;

/// A journal need not know how to leave gracefully: it is told to stop only when nobody comes any more. Behind a
/// proxy that is when the proxy has let go of its users, so as long again after the proxy was told.
fn leaving_seconds(journal: &Journal) -> i64 {
    match journal.tls {
        Tls::Own => LEAVING_SECONDS,
        Tls::Proxy => 2 * LEAVING_SECONDS,
    }
}

fn leaves_after(seconds: i64) -> Value {
    json!({ "preStop": { "sleep": { "seconds": seconds } } })
}

/// What the pods read, by digest.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// Of the connection Secret.
    pub credentials: String,
    /// Of the trusted authorities.
    pub authorities: String,
}

/// The journal's Deployment and disruption budget, serving as `journal` says.
pub fn journal(
    tenant: &Tenant,
    journal: &Journal,
    settings: &Settings,
    observed: &Observed,
    inputs: &Inputs,
    replicas: i32,
) -> Vec<Wanted> {
    let budget = object(
        tenant,
        Kind::PodDisruptionBudget,
        "journal",
        json!({ "spec": {
            // Pods of one node can leave it only together: one alone finds no other place.
            "maxUnavailable": if tenant.runs_on_one_node() { json!("100%") } else { json!(1) },
            "selector": { "matchLabels": serving(tenant, Role::Journal) },
        }}),
    );
    let mut annotations = json!({
        CREDENTIALS_ANNOTATION: inputs.credentials,
        AUTHORITIES_ANNOTATION: inputs.authorities,
        REFERENCES_ANNOTATION: references(tenant, observed),
    });
    // The proxy reads its certificate when it starts.
    if journal.on_new_certificate == OnNewCertificate::Restart || journal.tls == Tls::Proxy {
        annotations[CERTIFICATE_ANNOTATION] = json!(certificate(tenant, observed));
    }
    let mut template = pod_template(tenant, journal);
    let mut serving_container = container(tenant, journal, settings, Some(&journal.command));
    let leaving = leaving_seconds(journal);
    merge(&mut serving_container, json!({ "name": "journal", "lifecycle": leaves_after(leaving) }));
    if !journal.args.is_empty() {
        serving_container["args"] = json!(journal.args);
    }
    if journal.tls == Tls::Own {
        serving_container["ports"] =
            json!([{ "name": HTTPS_PORT, "containerPort": journal.port, "protocol": "TCP" }]);
    }
    let probes = &journal.probes;
    if let Some(probe) = &probes.ready {
        serving_container["readinessProbe"] = json!(probe);
    } else if journal.tls == Tls::Own {
        serving_container["readinessProbe"] =
            json!({ "tcpSocket": { "port": journal.port }, "periodSeconds": 2, "failureThreshold": 3 });
    }
    if let Some(probe) = &probes.live {
        serving_container["livenessProbe"] = json!(probe);
    }
    if let Some(probe) = &probes.startup {
        serving_container["startupProbe"] = json!(probe);
    }
    let proxy = (journal.tls == Tls::Proxy).then(|| proxy(journal, settings));
    if let (Some(_), Some(volumes)) = (&proxy, template["volumes"].as_array_mut()) {
        volumes.extend(proxy_volumes(tenant));
        annotations[PROXY_ANNOTATION] = json!(digest::of(haproxy_cfg(journal).as_bytes()));
    }
    template["containers"] = Value::Array([serving_container].into_iter().chain(proxy).collect());
    template["terminationGracePeriodSeconds"] = json!(journal.stop_grace_seconds + leaving);
    let deployment = object(
        tenant,
        Kind::Deployment,
        "journal",
        json!({ "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            "selector": { "matchLabels": serving(tenant, Role::Journal) },
            "template": {
                "metadata": { "labels": pod_labels(tenant, Role::Journal, Serving::Yes), "annotations": annotations },
                "spec": template,
            },
        }}),
    );
    let config = (journal.tls == Tls::Proxy).then(|| {
        let data = json!({ "data": { "haproxy.cfg": haproxy_cfg(journal) } });
        object(tenant, Kind::ConfigMap, PROXY_CONFIG, data)
    });
    config.into_iter().chain([budget, deployment]).collect()
}

/// What journal and migration have in common as pods.
pub fn pod_template(tenant: &Tenant, journal: &Journal) -> Value {
    let mut template = pod(journal.scheduling.as_ref());
    let mut volumes = vec![
        authorities(tenant, journal),
        json!({ "name": "tls", "secret": { "secretName": tenant.journal_tls(), "defaultMode": 0o440 } }),
    ];
    if journal.database.folder.is_some() {
        volumes.push(json!({ "name": "connection", "secret": {
            "secretName": credentials::JOURNAL_SECRET, "defaultMode": 0o440 } }));
    }
    if tenant.attachments.is_some() {
        volumes.push(
            json!({ "name": "attachments", "persistentVolumeClaim": { "claimName": ATTACHMENTS_CLAIM } }),
        );
    }
    for (index, files) in journal.files.iter().enumerate() {
        let name = format!("files-{index}");
        volumes.push(match (&files.secret_name, &files.config_map_name) {
            (Some(secret), _) => {
                json!({ "name": name, "secret": { "secretName": secret, "defaultMode": 0o440 } })
            }
            (None, map) => json!({ "name": name, "configMap": { "name": map } }),
        });
    }
    for index in 0..journal.writable_folders.len() {
        volumes.push(json!({ "name": format!("writable-{index}"), "emptyDir": { "sizeLimit": "1Gi" } }));
    }
    merge(
        &mut template,
        json!({
            "serviceAccountName": "journal",
            "securityContext": pod_security(journal.run_as.user, journal.run_as.group),
            "volumes": volumes,
        }),
    );
    if tenant.runs_on_one_node() {
        // The first pod satisfies its own term; the next ones go to where the volume is.
        template["affinity"] = json!({ "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": { "matchExpressions": [{ "key": ATTACHMENTS_LABEL, "operator": "Exists" }] },
            "topologyKey": "kubernetes.io/hostname",
        }]}});
    }
    if !journal.image_pull_secrets.is_empty() {
        template["imagePullSecrets"] = json!(journal.image_pull_secrets);
    }
    template
}

/// CPU and memory of the journal's container.
pub fn resources(journal: &Journal) -> ResourceRequirements {
    let default = Resources::of("20m", "2", "64Mi", "512Mi");
    journal.resources.clone().unwrap_or_default().or(&default)
}

/// What journal and migration have in common as containers.
pub fn container(
    tenant: &Tenant,
    journal: &Journal,
    settings: &Settings,
    command: Option<&Vec<String>>,
) -> Value {
    let policy = journal
        .image_pull_policy
        .map_or_else(|| settings.image_pull_policy.as_str().to_owned(), |policy| format!("{policy:?}"));
    let mut container = json!({
        "image": journal.image,
        "imagePullPolicy": policy,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": container_security(),
        "resources": resources(journal),
        "volumeMounts": mounts(tenant, journal),
    });
    if let Some(command) = command.filter(|command| !command.is_empty()) {
        container["command"] = json!(command);
    }
    let env = environment(journal, credentials::JOURNAL_SECRET);
    if !env.is_empty() {
        container["env"] = json!(env);
    }
    if !journal.env_from.is_empty() {
        container["envFrom"] = json!(journal.env_from);
    }
    container
}

/// Environment variables: the connection from `secret_name`, then the user's own.
pub fn environment(journal: &Journal, secret_name: &str) -> Vec<Value> {
    let ConnectionEnv { url, host, port, database, user, password, ca_file } = &journal.database.env;
    let from_secret = [
        ("url", url),
        ("host", host),
        ("port", port),
        ("database", database),
        ("user", user),
        ("password", password),
    ];
    let mut env: Vec<Value> = from_secret
        .into_iter()
        .filter_map(|(key, name)| {
            let name = &name.as_ref()?.0;
            Some(
                json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": secret_name, "key": key } } }),
            )
        })
        .collect();
    env.extend(ca_file.as_ref().map(|name| json!({ "name": name.0, "value": journal.database.ca_file })));
    env.extend(journal.env.iter().map(|variable| json!(variable)));
    env
}

fn mounts(tenant: &Tenant, journal: &Journal) -> Vec<Value> {
    let Connection { folder, ca_file, .. } = &journal.database;
    let (ca_folder, _) = ca_file.rsplit_once('/').unwrap_or(("/etc/valv/database", "ca.crt"));
    let mut mounts = vec![
        json!({ "name": "authorities", "mountPath": ca_folder, "readOnly": true }),
        json!({ "name": "tls", "mountPath": "/etc/valv/tls", "readOnly": true }),
    ];
    if let Some(folder) = folder {
        mounts.push(json!({ "name": "connection", "mountPath": folder, "readOnly": true }));
    }
    if let Some(attachments) = &tenant.attachments {
        mounts.push(json!({ "name": "attachments", "mountPath": attachments.mount_path }));
    }
    for (index, files) in journal.files.iter().enumerate() {
        mounts.push(
            json!({ "name": format!("files-{index}"), "mountPath": files.mount_path, "readOnly": true }),
        );
    }
    for (index, folder) in journal.writable_folders.iter().enumerate() {
        mounts.push(json!({ "name": format!("writable-{index}"), "mountPath": folder }));
    }
    mounts
}

/// The authorities of the database: of the tenant's own server, or of the external one.
pub fn authorities(tenant: &Tenant, journal: &Journal) -> Value {
    let path = journal.database.ca_file.rsplit_once('/').map_or("ca.crt", |(_, file)| file);
    let items = json!([{ "key": "ca.crt", "path": path }]);
    match tenant.external_database() {
        Some(external) => json!({ "name": "authorities", "secret": {
            "secretName": external.ca_secret_ref.name, "items": items, "defaultMode": 0o440 } }),
        None => json!({ "name": "authorities", "configMap": { "name": AUTHORITIES, "items": items } }),
    }
}

/// A proxy that serves HTTPS and speaks plain HTTP to the journal over loopback only.
fn proxy(journal: &Journal, settings: &Settings) -> Value {
    let read = |name: &str, path: &str| json!({ "name": name, "mountPath": path, "readOnly": true });
    json!({
        "name": "proxy",
        "image": settings.images.proxy.as_str(),
        "imagePullPolicy": settings.image_pull_policy.as_str(),
        "command": ["haproxy", "-db", "-f", "/etc/valv/proxy/haproxy.cfg"],
        "ports": [{ "name": HTTPS_PORT, "containerPort": journal.proxy_port, "protocol": "TCP" }],
        "readinessProbe": {
            "httpGet": { "path": PROXY_READY, "port": journal.proxy_port, "scheme": "HTTPS" },
            // By then the proxy has asked the journal for the first time, which it takes for well until then.
            "initialDelaySeconds": 1, "periodSeconds": 2, "failureThreshold": 3,
        },
        "lifecycle": leaves_after(LEAVING_SECONDS),
        "securityContext": container_security(),
        "resources": small(),
        "volumeMounts": [read("proxy", "/etc/valv/proxy"), read("proxy-tls", "/etc/valv/proxy-tls")],
    })
}

/// What the proxy reads: its configuration, and the certificate under the names that it looks for.
fn proxy_volumes(tenant: &Tenant) -> [Value; 2] {
    let items = json!([
        { "key": "tls.crt", "path": "tls.pem" },
        // ssl-load-extra-files finds the key beside the certificate.
        { "key": "tls.key", "path": "tls.pem.key" },
    ]);
    [
        json!({ "name": "proxy", "configMap": { "name": PROXY_CONFIG } }),
        json!({ "name": "proxy-tls", "secret": {
            "secretName": tenant.journal_tls(), "items": items, "defaultMode": 0o440 } }),
    ]
}

/// Path at which the proxy itself answers: whether the journal behind it takes connections, which on loopback
/// nobody but the proxy can ask.
const PROXY_READY: &str = "/.valv/ready";

/// The proxy's configuration. It tells the journal who came and how, and lets nobody else say so.
///
/// # Source
/// <https://docs.haproxy.org/3.0/configuration.html>
fn haproxy_cfg(journal: &Journal) -> String {
    let Journal { port, proxy_port, stop_grace_seconds, .. } = journal;
    format!(
        "global\n\
         \x20   log stdout format raw local0 notice\n\
         \x20   ssl-default-bind-options ssl-min-ver TLSv1.2\n\
         \x20   ssl-load-extra-files key\n\
         \x20   hard-stop-after {stop_grace_seconds}s\n\
         defaults\n\
         \x20   mode http\n\
         \x20   log global\n\
         \x20   timeout connect 5s\n\
         \x20   timeout http-request 15s\n\
         \x20   timeout client 5m\n\
         \x20   timeout server 5m\n\
         \x20   timeout tunnel 1h\n\
         \x20   option forwardfor\n\
         frontend https\n\
         \x20   bind :{proxy_port} ssl crt /etc/valv/proxy-tls/tls.pem alpn h2,http/1.1\n\
         \x20   http-request return status 200 if {{ path {PROXY_READY} }} {{ nbsrv(journal) ge 1 }}\n\
         \x20   http-request return status 503 if {{ path {PROXY_READY} }}\n\
         \x20   http-request del-header X-Forwarded- -m beg\n\
         \x20   http-request del-header Forwarded\n\
         \x20   http-request del-header X-Real-IP\n\
         \x20   http-request set-header X-Forwarded-Proto https\n\
         \x20   http-request set-header X-Forwarded-Host %[req.hdr(host)]\n\
         \x20   default_backend journal\n\
         backend journal\n\
         \x20   server journal 127.0.0.1:{port} check inter 500ms rise 1 fall 3\n"
    )
}

fn certificate(tenant: &Tenant, observed: &Observed) -> String {
    let name = tenant.journal_tls();
    if tenant.certificates.journal_secret_ref.is_some() {
        let found = observed.references.get(&Key::new(Kind::Secret, name));
        return found
            .and_then(Option::as_ref)
            .map(|found| digest::of(found.version.as_bytes()))
            .unwrap_or_default();
    }
    let data = observed.secrets.get(name).and_then(|secret| secret.data.as_ref());
    data.map(secret::digest).unwrap_or_default()
}

/// Digest of the versions of all that the spec names, but for what has an annotation of its own.
fn references(tenant: &Tenant, observed: &Observed) -> String {
    let certificate = tenant.certificates.journal_secret_ref.as_ref().map(|secret| secret.name.clone());
    let versions: Vec<_> = observed
        .references
        .iter()
        .filter(|(key, _)| Some(&key.name) != certificate.as_ref())
        .filter_map(|(key, found)| Some(format!("{key}={}", found.as_ref()?.version)))
        .collect();
    digest::of(versions.join("\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::simulation::Simulation;

    fn changed(change: impl FnOnce(&mut Simulation)) -> Simulation {
        let mut simulation = Simulation::new();
        change(&mut simulation);
        simulation.settle(|_| {});
        simulation
    }

    fn field(simulation: &Simulation, kind: Kind, pointer: &str) -> Value {
        simulation.observed.field(kind, "journal", pointer).cloned().unwrap_or_default()
    }

    const CONTAINER: &str = "/spec/template/spec/containers/0";

    #[test]
    fn the_version_that_serves_is_reached_where_it_listens_whatever_the_next_one_asks_for() {
        let mut simulation = changed(|_| {});
        let before = field(&simulation, Kind::Deployment, "/spec/template");

        simulation.migration_fails = true;
        let journal = &mut simulation.tenant.spec.journal;
        journal.image = "registry.example/journal:2".into();
        journal.port = 9443;
        journal.database.ca_file = "/etc/authorities/database.pem".into();
        simulation.settle(|_| {});

        assert_eq!(field(&simulation, Kind::Deployment, "/spec/template"), before);
        assert_eq!(field(&simulation, Kind::Deployment, &format!("{CONTAINER}/ports/0/name")), HTTPS_PORT);
        assert_eq!(field(&simulation, Kind::Service, "/spec/ports/0/targetPort"), HTTPS_PORT);
        let wall = simulation.observed.field(
            Kind::NetworkPolicy,
            "allow-users-to-journal",
            "/spec/ingress/0/ports/0/port",
        );
        assert_eq!(wall.unwrap(), HTTPS_PORT);
    }

    #[test]
    fn a_journal_is_told_to_stop_only_after_its_users_were_sent_elsewhere() {
        let own = changed(|_| {});
        let proxied = changed(|simulation| simulation.tenant.spec.journal.tls = Tls::Proxy);
        let sleep = |simulation: &Simulation, index: usize| {
            let pointer = format!("/spec/template/spec/containers/{index}/lifecycle/preStop/sleep/seconds");
            field(simulation, Kind::Deployment, &pointer).as_i64()
        };
        let grace = "/spec/template/spec/terminationGracePeriodSeconds";

        assert_eq!(sleep(&own, 0), Some(5));
        assert_eq!(field(&own, Kind::Deployment, grace), 35);
        assert_eq!((sleep(&proxied, 0), sleep(&proxied, 1)), (Some(10), Some(5)));
        assert_eq!(field(&proxied, Kind::Deployment, grace), 40);
    }

    #[test]
    fn behind_the_proxy_a_pod_is_ready_when_the_journal_is() {
        let proxied = changed(|simulation| simulation.tenant.spec.journal.tls = Tls::Proxy);
        let probe = |index: usize| {
            let pointer = format!("/spec/template/spec/containers/{index}/readinessProbe");
            field(&proxied, Kind::Deployment, &pointer)
        };
        let config = proxied.observed.text(Kind::ConfigMap, PROXY_CONFIG, "/data/haproxy.cfg").unwrap();

        assert_eq!(probe(0), Value::Null);
        assert_eq!(probe(1)["httpGet"]["scheme"], "HTTPS");
        assert!(config.contains("status 200 if { path /.valv/ready } { nbsrv(journal) ge 1 }"), "{config}");
    }

    #[test]
    fn pods_that_share_a_volume_of_one_node_run_together_and_leave_together() {
        let attachments = json!({ "size": "1Gi", "mountPath": "/attachments" });
        let simulation = changed(|simulation| {
            simulation.tenant.spec.attachments = serde_json::from_value(attachments).unwrap();
        });
        let job =
            super::super::migration::migration(&simulation.checked(), &simulation.settings, "migrate-1");
        let job = job.unwrap().value;
        let affinity = "/spec/template/spec/affinity/podAffinity";
        let label = "/spec/template/metadata/labels/valv.eu~1attachments";

        assert_ne!(field(&simulation, Kind::Deployment, affinity), Value::Null);
        assert_eq!(job.pointer(affinity), Some(&field(&simulation, Kind::Deployment, affinity)));
        assert_eq!(job.pointer(label), Some(&field(&simulation, Kind::Deployment, label)));
        assert_eq!(field(&simulation, Kind::PodDisruptionBudget, "/spec/maxUnavailable"), "100%");
        assert_eq!(
            field(&simulation, Kind::Deployment, "/spec/selector/matchLabels/valv.eu~1attachments"),
            Value::Null
        );
    }
}
