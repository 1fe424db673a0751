//! `spec.database`: the tenant's PostgreSQL, Valv's own or somebody else's.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::LocalObjectReference, apimachinery::pkg::api::resource::Quantity};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    journal::Scheduling,
    reference::{ObjectName, ObjectReference},
    resources::Resources,
};

/// The tenant's database.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.provider != 'Builtin' || has(self.size)", "database.size is required when provider is Builtin"),
    validation = ("(self.provider == 'External') == has(self.external)", "database.external and provider: External belong together"),
    validation = ("self.provider != 'External' || (!has(self.size) && !has(self.parameters) && !has(self.storageClassName) && !has(self.resources) && !has(self.scheduling))", "size, parameters, storageClassName, resources and scheduling are for provider: Builtin; an external server is not Valv's to set up"),
    validation = ("self.provider != 'External' || (self.passwordRotation.generation == 1 && self.applicationRights == 'DataOnly')", "passwordRotation and applicationRights are for provider: Builtin; an external server's logins are not Valv's to change"),
    validation = ("self.provider != 'Builtin' || !(self.name in ['postgres', 'template0', 'template1', 'replication', 'all', 'sameuser', 'samerole', 'samegroup'])", "database.name is one of PostgreSQL's own: name it otherwise"),
    validation = ("!has(self.size) || quantity(self.size).compareTo(quantity('256Mi')) >= 0", "database.size is too small for a database: give it 256Mi or more"),
    validation = ("self.provider == oldSelf.provider", "database.provider is immutable: restore into a new tenant"),
    validation = ("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)", "database.storageClassName is immutable: restore into a new tenant"),
    validation = ("!has(oldSelf.size) || (has(self.size) && quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0)", "database.size cannot shrink: a smaller volume could not hold the data; restore into a new tenant")
)]
pub struct Database {
    /// Who runs the server.
    #[serde(default)]
    pub provider: Provider,

    /// PostgreSQL's major version. Immutable: a new major is a restore into a new tenant.
    #[serde(default = "default_version")]
    #[schemars(range(min = 17, max = 17))]
    #[x_kube(validation = ("self == oldSelf", "the PostgreSQL major version is immutable: restore into a new tenant of that version"))]
    pub version: i32,

    /// Name of the database on the server. Immutable.
    #[serde(default = "default_name")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z_][a-z0-9_]*$"))]
    #[x_kube(validation = ("self == oldSelf", "database.name is immutable: restore into a new tenant"))]
    pub name: String,

    /// Size of the volume. May grow where the storage class can expand, and never shrinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Size>")]
    pub size: Option<Quantity>,

    /// Storage class of the volume; absent: the operator's, or the cluster's default. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectName>")]
    pub storage_class_name: Option<String>,

    /// PostgreSQL parameters, of those that cannot weaken what Valv promises (TLS, checksums, WAL,
    /// durability and logging of statements are not among them).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "parameters_schema")]
    pub parameters: BTreeMap<String, String>,

    /// What the journal's login may do.
    #[serde(default)]
    pub application_rights: ApplicationRights,

    /// Ask for new passwords by raising the generation.
    #[serde(default)]
    pub password_rotation: PasswordRotation,

    /// CPU and memory of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Where the server's pod may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,

    /// The server, when Valv does not run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// A size that a volume can have, e.g. `20Gi`: a whole number, above zero, with a binary or decimal unit.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "names the schema only")]
#[schemars(transparent)]
pub struct Size(
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[1-9][0-9]*(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)$"))]
    String,
);

/// Parameters that may be set, with their bounds left to PostgreSQL.
pub const PARAMETERS: [&str; 34] = [
    "autovacuum_analyze_scale_factor",
    "autovacuum_max_workers",
    "autovacuum_naptime",
    "autovacuum_vacuum_cost_limit",
    "autovacuum_vacuum_scale_factor",
    "checkpoint_completion_target",
    "checkpoint_timeout",
    "deadlock_timeout",
    "default_statistics_target",
    "effective_cache_size",
    "effective_io_concurrency",
    "hash_mem_multiplier",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "jit",
    "lock_timeout",
    "log_autovacuum_min_duration",
    "log_lock_waits",
    "log_temp_files",
    "maintenance_work_mem",
    "max_connections",
    "max_locks_per_transaction",
    "max_parallel_maintenance_workers",
    "max_parallel_workers",
    "max_parallel_workers_per_gather",
    "max_wal_size",
    "max_worker_processes",
    "min_wal_size",
    "random_page_cost",
    "shared_buffers",
    "statement_timeout",
    "temp_buffers",
    "wal_buffers",
    "work_mem",
];

fn parameters_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": PARAMETERS.len(),
        "additionalProperties": { "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9_.+-]+$" },
        "x-kubernetes-validations": [{
            "rule": format!("self.all(key, key in [{}])", PARAMETERS.map(|name| format!("'{name}'")).join(", ")),
            "message": "a parameter is not among those that may be set: see docs/api.md, database.parameters",
        }],
    })
}

/// Who runs the database server.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Provider {
    /// Valv, as a StatefulSet in the tenant's namespace.
    #[default]
    Builtin,
    /// Somebody else; Valv only tells the journal where it is.
    External,
}

/// What the journal's own login may do in its database.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ApplicationRights {
    /// Read and write rows. Tables are made by the migration, as the owner.
    #[default]
    DataOnly,
    /// All that the owner may: for a journal that changes its own schema when it starts.
    Owner,
}

/// Asks for new passwords.
#[derive(Clone, Copy, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PasswordRotation {
    /// Raise it by one for new passwords. It never goes back.
    #[serde(default = "default_generation")]
    #[schemars(range(min = 1))]
    #[x_kube(validation = ("self >= oldSelf", "passwordRotation.generation never goes back"))]
    pub generation: i64,
}

impl Default for PasswordRotation {
    fn default() -> Self {
        Self { generation: default_generation() }
    }
}

/// A PostgreSQL server that Valv does not run.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Host name, as its certificate has it.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub host: String,

    /// TCP port.
    #[serde(default = "default_postgres_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,

    /// CIDR blocks that the host name may resolve to: what the tenant's network policy opens.
    #[schemars(length(min = 1, max = 16))]
    pub addresses: Vec<String>,

    /// Secret in the tenant's namespace with `user` and `password` of the journal, and, where they differ,
    /// `ownerUser` and `ownerPassword` for the migration.
    #[schemars(with = "ObjectReference")]
    pub secret_ref: LocalObjectReference,

    /// Secret in the tenant's namespace with `ca.crt`, the authority of the server's certificate.
    #[schemars(with = "ObjectReference")]
    pub ca_secret_ref: LocalObjectReference,
}

fn default_version() -> i32 {
    17
}

fn default_name() -> String {
    "journal".to_owned()
}

fn default_generation() -> i64 {
    1
}

fn default_postgres_port() -> i32 {
    5432
}
