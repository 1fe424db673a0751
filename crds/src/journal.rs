//! `spec.journal`: how a journal system is run. Nothing here knows any particular one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, LocalObjectReference, Probe, Toleration};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    reference::{ObjectName, ObjectReference},
    resources::Resources,
};

/// The journal system: any server in an image that keeps its records in PostgreSQL.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.tls != 'Proxy' || self.port != self.proxyPort", "journal.port is where the journal listens on loopback; it must differ from proxyPort when tls is Proxy"),
    validation = ("!has(self.writableFolders) || self.writableFolders.all(folder, !folder.matches('^/etc/valv(/|$)'))", "writableFolders may not lie below /etc/valv, where Valv puts certificates and credentials")
)]
pub struct Journal {
    /// Image of the journal, by tag or, better, by digest. A new one is migrated to before it serves.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[a-z0-9][a-zA-Z0-9._/:@-]*$"))]
    pub image: String,

    /// When the image is pulled; absent: the operator's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,

    /// Secrets in the tenant's namespace for the image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), with = "Vec<ObjectReference>")]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// Pods that serve at once.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 20))]
    pub replicas: i32,

    /// TCP port on which the journal listens: for HTTPS when `tls` is `Own`, for HTTP on loopback only when
    /// it is `Proxy`.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,

    /// TCP port on which the proxy serves HTTPS, when `tls` is `Proxy`.
    #[serde(default = "default_proxy_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub proxy_port: i32,

    /// Who terminates TLS. Plaintext never leaves the pod.
    #[serde(default)]
    pub tls: Tls,

    /// What happens when the certificate is renewed.
    #[serde(default)]
    pub on_new_certificate: OnNewCertificate,

    /// The image's entry point; absent: the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub command: Vec<String>,

    /// Arguments to the entry point; absent: the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub args: Vec<String>,

    /// How the schema is brought up to what the image needs. Absent: the journal does so by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrate: Option<Migrate>,

    /// How the journal learns where its database is.
    #[serde(default)]
    pub database: Connection,

    /// How the kubelet asks whether the journal is well. Absent: whether the port is open.
    #[serde(default)]
    pub probes: Probes,

    /// Folders, each an empty volume of its own: all else is read-only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 2, max = 256), regex(pattern = r"^/[^:]+$")))]
    pub writable_folders: Vec<String>,

    /// Further environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub env: Vec<EnvVar>,

    /// Secrets and ConfigMaps in the tenant's namespace whose keys become environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env_from: Vec<EnvFromSource>,

    /// Secrets and ConfigMaps in the tenant's namespace that become files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub files: Vec<Files>,

    /// CPU and memory of one pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// User and group that the journal runs as.
    #[serde(default)]
    pub run_as: RunAs,

    /// Where its pods may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,

    /// Seconds that a stopping pod may take to finish what it is doing, after it was told to stop: that is some
    /// seconds after new users are sent elsewhere.
    #[serde(default = "default_grace_seconds")]
    #[schemars(range(min = 1, max = 600))]
    pub stop_grace_seconds: i64,
}

impl Journal {
    /// TCP port on which its pods serve HTTPS.
    pub fn https_port(&self) -> i32 {
        match self.tls {
            Tls::Own => self.port,
            Tls::Proxy => self.proxy_port,
        }
    }
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node lacks it.
    IfNotPresent,
    /// Never: it must be there.
    Never,
}

/// Who terminates TLS.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Tls {
    /// The journal, with the files `tls.crt`, `tls.key` and `ca.crt` in `/etc/valv/tls`.
    #[default]
    Own,
    /// A proxy in the journal's pod; the journal listens on loopback.
    Proxy,
}

/// What happens to the journal when its certificate is renewed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnNewCertificate {
    /// Its pods are replaced one by one.
    #[default]
    Restart,
    /// Nothing: it reads its files again by itself.
    Reload,
}

/// How the schema is brought up to what an image needs: a Job that runs as the schema's owner.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Migrate {
    /// Command in the journal's image.
    #[schemars(length(min = 1, max = 64))]
    pub command: Vec<String>,

    /// Seconds after which it has failed.
    #[serde(default = "default_migrate_deadline")]
    #[schemars(range(min = 10, max = 86400))]
    pub deadline_seconds: i64,
}

/// How connection data reach the journal.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Names of environment variables, each for one datum.
    #[serde(default)]
    pub env: ConnectionEnv,

    /// What the URL looks like. `{user}`, `{password}`, `{host}`, `{port}`, `{database}` and `{caFile}` are
    /// replaced, user and password percent-encoded. The server refuses plaintext; that a client verifies the server's
    /// certificate is said in each driver's own way, as `?sslmode=verify-full&sslrootcert={caFile}` for libpq.
    #[serde(default = "default_url_template")]
    #[schemars(length(min = 1, max = 1024))]
    pub url_template: String,

    /// Folder in which each datum is a file: `url`, `user`, `password`, `host`, `port`, `database`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 256), regex(pattern = r"^/[^:]+$"))]
    pub folder: Option<String>,

    /// File with the authority of the server's certificate. Changes when the authority is renewed.
    #[serde(default = "default_ca_file")]
    #[schemars(length(min = 2, max = 256), regex(pattern = r"^/[^:]+/[^:/]+$"))]
    pub ca_file: String,
}

/// Names of environment variables that tell the journal where its database is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionEnv {
    /// The whole URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<EnvName>,
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<EnvName>,
    /// TCP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<EnvName>,
    /// Name of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<EnvName>,
    /// Login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<EnvName>,
    /// Its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<EnvName>,
    /// Path of the authority's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<EnvName>,
}

/// Name of an environment variable.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transparent)]
#[serde(transparent)]
pub struct EnvName(
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))] pub String,
);

/// How the kubelet asks whether the journal is well.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probes {
    /// May it get traffic? Absent: when the port is open, which with `tls: Own` does not show that TLS is spoken
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Probe>,
    /// Does it still live?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Probe>,
    /// Has it started?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
}

/// A Secret or ConfigMap in the tenant's namespace, as files.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.secretName) != has(self.configMapName)", "name either a Secret or a ConfigMap"),
    validation = ("!self.mountPath.matches('^/etc/valv(/|$)')", "files may not lie below /etc/valv, where Valv puts certificates and credentials")
)]
pub struct Files {
    /// Folder in which they stand.
    #[schemars(length(min = 2, max = 256), regex(pattern = r"^/[^:]+$"))]
    pub mount_path: String,
    /// The Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectName>")]
    pub secret_name: Option<String>,
    /// The ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectName>")]
    pub config_map_name: Option<String>,
}

/// User and group, never root.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunAs {
    /// User id.
    #[serde(default = "default_id")]
    #[schemars(range(min = 1, max = 4294967294i64))]
    pub user: i64,
    /// Group id; volumes are made writable for it.
    #[serde(default = "default_id")]
    #[schemars(range(min = 1, max = 4294967294i64))]
    pub group: i64,
}

impl Default for RunAs {
    fn default() -> Self {
        Self { user: default_id(), group: default_id() }
    }
}

/// Where pods may run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Labels that the node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that do not keep the pod away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            env: ConnectionEnv::default(),
            url_template: default_url_template(),
            folder: None,
            ca_file: default_ca_file(),
        }
    }
}

fn default_replicas() -> i32 {
    1
}

fn default_port() -> i32 {
    8443
}

fn default_proxy_port() -> i32 {
    9443
}

fn default_id() -> i64 {
    10_001
}

fn default_grace_seconds() -> i64 {
    30
}

fn default_migrate_deadline() -> i64 {
    1800
}

fn default_url_template() -> String {
    "postgresql://{user}:{password}@{host}:{port}/{database}".to_owned()
}

fn default_ca_file() -> String {
    "/etc/valv/database/ca.crt".to_owned()
}
