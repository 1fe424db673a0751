//! The journal: its pods, by what the spec says of them.

use serde_json::{Value, json};
use valv_crds::{
    journal::{Connection, ConnectionEnv, Journal, OnNewCertificate, Tls},
    resources::Resources,
};

use super::{
    Serving, Wanted, container_security,
    credentials::{self, AUTHORITIES},
    database::merge,
    object, pod, pod_labels, pod_security, serving,
};
use crate::{
    io::kind::{Key, Kind},
    segmentation::Role,
    settings::Settings,
    tenant::{certificates::JOURNAL_TLS, check::Tenant, claim::ATTACHMENTS_CLAIM, observe::Observed, secret},
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

/// How long a pod that is to stop goes on serving: until every node knows that it gets no more traffic.
const LEAVING_SECONDS: i64 = 5;

/// A journal need not know how to leave gracefully: it is told to stop only when nobody comes any more.
fn leaving() -> Value {
    json!({ "preStop": { "sleep": { "seconds": LEAVING_SECONDS } } })
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
            "maxUnavailable": 1,
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
    let mut template = pod_template(tenant, journal, settings);
    let mut serving_container = container(tenant, journal, settings, Some(&journal.command));
    merge(&mut serving_container, json!({ "name": "journal" }));
    if !journal.args.is_empty() {
        serving_container["args"] = json!(journal.args);
    }
    if journal.tls == Tls::Own {
        serving_container["ports"] =
            json!([{ "name": "https", "containerPort": journal.port, "protocol": "TCP" }]);
    }
    let open =
        json!({ "tcpSocket": { "port": tenant.serving_port() }, "periodSeconds": 2, "failureThreshold": 3 });
    let probes = &journal.probes;
    serving_container["readinessProbe"] = probes.ready.as_ref().map_or(open, |probe| json!(probe));
    if let Some(probe) = &probes.live {
        serving_container["livenessProbe"] = json!(probe);
    }
    if let Some(probe) = &probes.startup {
        serving_container["startupProbe"] = json!(probe);
    }
    let proxy = (journal.tls == Tls::Proxy).then(|| proxy(journal, settings));
    if let (Some(_), Some(volumes)) = (&proxy, template["volumes"].as_array_mut()) {
        volumes.extend(proxy_volumes(tenant));
        annotations[PROXY_ANNOTATION] = json!(super::digest(haproxy_cfg(journal).as_bytes()));
    }
    template["containers"] = Value::Array([serving_container].into_iter().chain(proxy).collect());
    template["terminationGracePeriodSeconds"] = json!(journal.stop_grace_seconds + LEAVING_SECONDS);
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
pub fn pod_template(tenant: &Tenant, journal: &Journal, settings: &Settings) -> Value {
    let mut template = pod(journal.scheduling.as_ref());
    let mut volumes = vec![
        authorities(tenant),
        json!({ "name": "tls", "secret": { "secretName": tls_secret(tenant), "defaultMode": 0o440 } }),
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
    if !journal.image_pull_secrets.is_empty() {
        template["imagePullSecrets"] = json!(journal.image_pull_secrets);
    }
    let _ = settings;
    template
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
    let default = Resources::of("20m", "2", "64Mi", "512Mi");
    let resources = journal.resources.clone().unwrap_or_default().or(&default);
    let mut container = json!({
        "image": journal.image,
        "imagePullPolicy": policy,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": container_security(),
        "resources": resources,
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
fn authorities(tenant: &Tenant) -> Value {
    let path = tenant.journal.database.ca_file.rsplit_once('/').map_or("ca.crt", |(_, file)| file);
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
        "ports": [{ "name": "https", "containerPort": journal.proxy_port, "protocol": "TCP" }],
        "readinessProbe": {
            "tcpSocket": { "port": journal.proxy_port }, "periodSeconds": 2, "failureThreshold": 3,
        },
        "lifecycle": leaving(),
        "securityContext": container_security(),
        "resources": {
            "requests": { "cpu": "10m", "memory": "32Mi" }, "limits": { "cpu": "1", "memory": "128Mi" },
        },
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
            "secretName": tls_secret(tenant), "items": items, "defaultMode": 0o440 } }),
    ]
}

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
         \x20   http-request del-header X-Forwarded-For\n\
         \x20   http-request set-header X-Forwarded-Proto https\n\
         \x20   http-request set-header X-Forwarded-Host %[req.hdr(host)]\n\
         \x20   default_backend journal\n\
         backend journal\n\
         \x20   server journal 127.0.0.1:{port}\n"
    )
}

fn tls_secret(tenant: &Tenant) -> String {
    let own = tenant.certificates.journal_secret_ref.as_ref();
    own.map_or_else(|| JOURNAL_TLS.to_owned(), |secret| secret.name.clone())
}

fn certificate(tenant: &Tenant, observed: &Observed) -> String {
    let name = tls_secret(tenant);
    if tenant.certificates.journal_secret_ref.is_some() {
        let found = observed.references.get(&Key::new(Kind::Secret, name));
        return found.and_then(Option::as_ref).map(|found| found.digest.clone()).unwrap_or_default();
    }
    let data = observed.secrets.get(&name).and_then(|secret| secret.data.as_ref());
    data.map(secret::digest).unwrap_or_default()
}

/// Digest of all that the spec names, but for what has an annotation of its own.
fn references(tenant: &Tenant, observed: &Observed) -> String {
    let certificate = tenant.certificates.journal_secret_ref.as_ref().map(|secret| secret.name.clone());
    let digests: Vec<_> = observed
        .references
        .iter()
        .filter(|(key, _)| Some(&key.name) != certificate.as_ref())
        .filter_map(|(key, found)| Some(format!("{key}={}", found.as_ref()?.digest)))
        .collect();
    super::digest(digests.join("\n").as_bytes())
}
