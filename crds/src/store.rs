//! `BackupStore`: one S3 bucket, what is claimed of it, and what it was seen to do.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    text,
    units::{ByteSize, Span},
};

/// One S3 bucket, or one folder of it, for the backups of many tenants. What the spec claims is probed; where claim
/// and proof differ, no backup goes there.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "valv.eu",
    version = "v1alpha1",
    kind = "BackupStore",
    shortname = "bst",
    category = "valv",
    cel,
    status = "BackupStoreStatus",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "May backups go there?"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", description = "The reason for that"),
    printcolumn(name = "Country", type_ = "string", json_path = ".spec.location.country", description = "Where it lies, as stated"),
    printcolumn(name = "Locked", type_ = "string", json_path = ".status.capabilities.lockRefusesDeletion.answer", description = "Was the deletion of a locked object refused?"),
    printcolumn(name = "Probed", type_ = "date", json_path = ".status.lastProbe", description = "When it was last probed"),
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider", priority = 1),
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.location.region", priority = 1),
    printcolumn(name = "Writer", type_ = "string", json_path = ".status.capabilities.writerScope.scope", description = "Whom the writer's credentials are for", priority = 1),
    printcolumn(name = "Overwrites", type_ = "string", json_path = ".status.capabilities.writerCanOverwrite.answer", description = "Can the writer replace an object so that what was there is lost?", priority = 1),
    printcolumn(name = "Bucket", type_ = "string", json_path = ".spec.bucket", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')").message("a store's name is a label of RFC 1123, a-z, 0-9 and '-', at most 63: it stands in labels and metrics")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.bucket == oldSelf.bucket && has(self.prefix) == has(oldSelf.prefix) && (!has(self.prefix) || self.prefix == oldSelf.prefix)", "bucket and prefix are immutable, for backups lie there: make a new store, and let the policy name both for as long as the old backups are kept"),
    validation = ("self.location == oldSelf.location && self.provider == oldSelf.provider", "provider and location are immutable: they stand in every record of every backup; make a new store"),
    validation = ("self.profile != 'Garage' || !has(self.objectLock)", "Garage has no object lock: leave objectLock out, and let another store of the policy have one"),
    validation = ("self.addressing != 'Virtual' || !self.bucket.contains('.')", "a bucket with a dot in its name needs addressing: Path, since the certificate of a virtual host covers one label only")
)]
pub struct BackupStoreSpec {
    /// Who runs it, by its name in the provider register, e.g. `upcloud`. Immutable.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub provider: String,

    /// Where it lies. Immutable.
    pub location: Location,

    /// Which product answers. What a product is known to lack is never relied on, and its name of the region is used where
    /// none is given: today that is Garage alone, and all others are treated as `Generic`, by what the probe sees. What is
    /// known, and where the probe sees otherwise, is told.
    #[serde(default)]
    pub profile: Profile,

    /// `https://host` or `https://host:port`.
    #[schemars(schema_with = "text::endpoint")]
    pub endpoint: String,

    /// Name of the bucket. Immutable.
    #[schemars(schema_with = "text::bucket")]
    pub bucket: String,

    /// Folder in the bucket; absent: the bucket itself. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::prefix")]
    pub prefix: Option<String>,

    /// Whether the bucket's name stands in the path or in the host name.
    #[serde(default)]
    pub addressing: Addressing,

    /// Name of the region in signatures; absent: that of the profile (`garage` for Garage), else `location.region`. Never
    /// taken from the host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub signing_region: Option<String>,

    /// Authorities of the server's certificate, in PEM; absent: those of the operator's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::certificates")]
    pub ca_bundle: Option<String>,

    /// Proxy on the way there, `http://host:port`; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::proxy_url")]
    pub proxy: Option<String>,

    /// The lock that the bucket is claimed to have; absent: none. Proven by the probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_lock: Option<ObjectLock>,

    /// Who may do what: four identities, so that none can both hide a backup and destroy it.
    pub credentials: Credentials,

    /// How much at once.
    #[serde(default)]
    pub limits: StoreLimits,

    /// How long one request may take.
    #[serde(default)]
    pub timeouts: Timeouts,

    /// How often a request is tried again.
    #[serde(default)]
    pub retry: Retry,

    /// When to leave it alone for a while.
    #[serde(default)]
    pub breaker: Breaker,

    /// How often it is probed, besides when it is new and when it changes.
    #[serde(default = "default_probe_every")]
    #[x_kube(validation = ("duration(self) >= duration('10m') && duration(self) <= duration('168h')", "probeEvery is between 10m and 168h"))]
    pub probe_every: Span,
}

/// Where a bucket lies, as its owner states it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Location {
    /// The provider's name of the region, e.g. `europe-1`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub region: String,

    /// The country, two letters of ISO 3166-1, e.g. `FI`.
    #[schemars(schema_with = "text::country")]
    pub country: String,
}

/// Products of which something is known: see docs/conformance.md.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Profile {
    /// `UpCloud` Managed Object Storage.
    UpCloud,
    /// `OVHcloud` Object Storage.
    #[serde(rename = "OVHcloud")]
    OvhCloud,
    /// Scaleway Object Storage.
    Scaleway,
    /// Ceph's RADOS Gateway.
    CephRgw,
    /// Garage.
    Garage,
    /// `versitygw`.
    Versitygw,
    /// Any other: nothing is taken for granted.
    #[default]
    Generic,
}

/// Where the bucket's name stands.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Addressing {
    /// `https://host/bucket/key`.
    #[default]
    Path,
    /// `https://bucket.host/key`.
    Virtual,
}

/// The lock of a bucket.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectLock {
    /// Who may lift it.
    pub mode: LockMode,
    /// Days for which every object is locked when it is written. Retention extends the lock of what it keeps longer.
    #[schemars(range(min = 1, max = 36_500))]
    pub days: i32,
}

/// Who may lift a lock.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum LockMode {
    /// Nobody, before it ends.
    Compliance,
    /// Whoever has the right to bypass it. None of the four identities may have that.
    Governance,
}

/// Four identities, each a Secret in the operator's namespace with `accessKeyID` and `secretAccessKey`, and with the labels
/// `valv.eu/store` (this store's name) and `valv.eu/identity` (`writer`, `committer`, `reader` or `janitor`): without them a
/// store could name another's.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.writer.name != self.committer.name && self.writer.name != self.reader.name && self.writer.name != self.janitor.name && self.committer.name != self.reader.name && self.committer.name != self.janitor.name && self.reader.name != self.janitor.name", "the four credentials are four Secrets: one identity with two parts could both hide a backup and destroy it"))]
pub struct Credentials {
    /// For agents: puts objects under `data/` and `wal/`; cannot read, list or delete.
    pub writer: SecretName,
    /// For the operator: puts commits, key challenges and records, and extends locks; cannot delete.
    pub committer: SecretName,
    /// For verification, restores and drills: reads and lists all versions; cannot write.
    pub reader: SecretName,
    /// For the clean-up: deletes versions; cannot read, and deletes nothing that is locked.
    pub janitor: SecretName,
}

/// A Secret in the operator's namespace.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretName {
    /// Its name.
    #[schemars(schema_with = "text::object_name")]
    pub name: String,
}

/// How much at once, over all tenants.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreLimits {
    /// Backups and copies of backups that may be written there at once, counted together.
    #[serde(default = "default_concurrent_backups")]
    #[schemars(range(min = 1, max = 1000))]
    pub concurrent_backups: i32,

    /// Bytes a second that are written there. Each backup and each copy may write this divided by `concurrentBackups`,
    /// however many there are just then. Reading back, drills and restores read as fast as the store answers. Absent: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<ByteSize>,
}

/// How long one request may take. What is limited is the time without progress: 16 MiB on a slow line may take as long
/// as they move.
#[derive(Clone, Copy, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("duration(self.connect) <= duration(self.attempt) && duration(self.stall) <= duration(self.attempt)", "timeouts.connect and timeouts.stall are part of an attempt, and not longer"),
    validation = ("duration(self.attempt) <= duration('1h')", "timeouts.attempt is at most 1h")
)]
pub struct Timeouts {
    /// Until a connection stands.
    #[serde(default = "default_connect")]
    pub connect: Span,
    /// Agents, which move segments: within each stretch of this length 10 KiB a second have to move, or the request is
    /// tried again.
    #[serde(default = "default_attempt")]
    pub attempt: Span,
    /// The operator, whose requests are small: the same, with this length where it is the shorter one.
    #[serde(default = "default_stall")]
    pub stall: Span,
}

/// How often a request is tried again: with the same bytes, after a wait that doubles each time. For agents, which
/// write, read back, copy and restore. The operator's own requests are tried up to four times, since others wait for it,
/// and its visits come again by themselves.
#[derive(Clone, Copy, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.perRequest <= self.perRun", "retry.perRequest is part of retry.perRun, and not above it"))]
pub struct Retry {
    /// Retries of one request.
    #[serde(default = "default_per_request")]
    #[schemars(range(min = 0, max = 20))]
    pub per_request: i32,
    /// Retries that a run may be ahead of its successes: each retry takes one, each request that succeeds gives one back. So a
    /// store that fails every third request makes a run slow and does not end it, and one that is gone ends it within minutes.
    #[serde(default = "default_per_run")]
    #[schemars(range(min = 0, max = 10_000))]
    pub per_run: i32,
}

/// When a store is left alone for a while, for all tenants.
#[derive(Clone, Copy, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// Opens after so many failures in a row: timeouts, refused connections, answers of 500 and above.
    #[serde(default = "default_opens_after")]
    #[schemars(range(min = 1, max = 1000))]
    pub opens_after: i32,
    /// Then lets one request through after this long, and closes when that succeeds.
    #[serde(default = "default_tries_after")]
    #[x_kube(validation = ("duration(self) <= duration('1h')", "breaker.triesAfter is at most 1h"))]
    pub tries_after: Span,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { concurrent_backups: default_concurrent_backups(), bytes_per_second: None }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: default_connect(), attempt: default_attempt(), stall: default_stall() }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { per_request: default_per_request(), per_run: default_per_run() }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self { opens_after: default_opens_after(), tries_after: default_tries_after() }
    }
}

const fn default_probe_every() -> Span {
    Span::hours(6)
}

const fn default_concurrent_backups() -> i32 {
    8
}

const fn default_connect() -> Span {
    Span::seconds(5)
}

const fn default_attempt() -> Span {
    Span::seconds(60)
}

const fn default_stall() -> Span {
    Span::seconds(20)
}

const fn default_per_request() -> i32 {
    5
}

const fn default_per_run() -> i32 {
    200
}

const fn default_opens_after() -> i32 {
    5
}

const fn default_tries_after() -> Span {
    Span::seconds(60)
}

/// What the operator last saw. Written by the operator only.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupStoreStatus {
    /// `metadata.generation` that the rest of this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// When the store was last probed to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe: Option<Time>,

    /// What the probe saw. What it could not find out is absent or `Unknown`, never `No`.
    #[serde(default)]
    pub capabilities: Capabilities,

    /// Whether requests go there now.
    #[serde(default)]
    pub breaker: BreakerStatus,

    /// The key that the commits there are signed with. It stays when the key is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<SigningKeyStatus>,

    /// One entry a type.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The public half of the operator's signing key.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SigningKeyStatus {
    /// Its name in signatures: the first 32 hex digits of the SHA-256 of its `SubjectPublicKeyInfo`.
    #[schemars(length(min = 32, max = 32), regex(pattern = r"^[0-9a-f]{32}$"))]
    pub id: String,
    /// The key, in PEM.
    #[schemars(length(max = 512))]
    pub public_key: String,
}

/// What a store was seen to do.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// It answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<Seen>,
    /// It speaks TLS 1.2 or newer, with a certificate that is valid for its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Seen>,
    /// When its certificate ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<SeenCertificate>,
    /// It takes the bucket's name in the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<Seen>,
    /// A put with `If-None-Match: *` over an object that is there is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditional_put: Option<Seen>,
    /// An object that is put again keeps its older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versioning: Option<Seen>,
    /// The deletion of a locked version is refused, to the janitor too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_refuses_deletion: Option<Seen>,
    /// The shortening of a lock is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_refuses_shortening: Option<Seen>,
    /// The committer can make a lock longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_extends: Option<Seen>,
    /// The writer can read objects. It must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_can_read: Option<Seen>,
    /// The writer can list the bucket. It must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_can_list: Option<Seen>,
    /// The writer can delete objects or versions. It must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_can_delete: Option<Seen>,
    /// The writer can replace an object so that what was there is lost. It cannot where versions are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_can_overwrite: Option<Seen>,
    /// Whom the writer's credentials are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_scope: Option<SeenScope>,
    /// The writer can put objects under `commits/`, `keys/` or `records/`. It must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_can_commit: Option<Seen>,
    /// The committer can put objects under `data/`. It must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committer_can_write_data: Option<Seen>,
    /// The committer can delete objects or versions. It must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committer_can_delete: Option<Seen>,
    /// The reader can write or delete. It must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader_can_write: Option<Seen>,
    /// The janitor can read objects. It must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub janitor_can_read: Option<Seen>,
    /// The janitor, who deletes versions, can also delete without naming one, which lays a delete marker over an object. It must
    /// not, where versions are kept: whoever can destroy could then also hide. Absent where none are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub janitor_can_hide: Option<Seen>,
    /// What was put is there for a reader at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_after_write: Option<Seen>,
    /// How far its clock is ahead of the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew: Option<SeenSkew>,
}

/// What was seen, and when.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Whether it is so.
    pub answer: Answer,
    /// When that was seen.
    pub at: Time,
    /// What was seen, in the store's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub detail: Option<String>,
}

/// Whether something is so.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Answer {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// It could not be found out: the reason is in `detail`.
    #[default]
    Unknown,
}

/// A certificate, as it was seen.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenCertificate {
    /// When it ends.
    pub not_after: Time,
    /// When that was seen.
    pub at: Time,
}

/// Whom the writer's credentials are for, as it was seen.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenScope {
    /// For whom.
    pub scope: WriterScope,
    /// When that was seen.
    pub at: Time,
}

/// Whom the writer's credentials are for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum WriterScope {
    /// All tenants share them: one tenant's agent could add objects to another's archive, which no commit names.
    Shared,
    /// Each tenant has its own, for its own archive.
    PerTenant,
}

/// How far a clock is ahead, as it was seen.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenSkew {
    /// By so many seconds; below zero: it is behind.
    pub seconds: i64,
    /// When that was seen.
    pub at: Time,
}

/// Whether requests go to a store now.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BreakerStatus {
    /// Whether they do.
    #[serde(default)]
    pub state: BreakerState,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Failures in a row, up to now.
    #[serde(default)]
    pub failures: i32,
}

/// Whether requests go to a store.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum BreakerState {
    /// All do.
    #[default]
    Closed,
    /// One does, to see whether it answers again.
    HalfOpen,
    /// None does.
    Open,
}

/// `type` of a store's condition.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum StoreCondition {
    /// Backups may go there (kstatus): all of the below are so, but for `WriterConfined`.
    Ready,
    /// It is being probed for the first time or after a change, or tried again by itself (kstatus; present only while
    /// it is so).
    Reconciling,
    /// Nothing goes there until somebody acts (kstatus; present only while it is so).
    Stalled,
    /// The four Secrets are there, and hold four identities.
    CredentialsResolved,
    /// It answered the last probe, over TLS.
    Reachable,
    /// What the spec claims was seen, and none of the identities can do what it must not.
    CapabilitiesProven,
    /// It lies where backups may.
    LocationAllowed,
    /// Requests go there.
    BreakerClosed,
    /// The operator has the key that the commits are signed with, and it is the one that was published.
    SigningKeyKept,
    /// The writer reaches one archive only, and nothing that it puts is lost under what it puts later. Where it is not so,
    /// locks, versions and commits still tell what is true; `Ready` does not follow from this.
    WriterConfined,
}

/// `reason` of a store's condition.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum StoreReason {
    /// It is as the spec claims.
    AsAsked,
    /// The first probe, or the one after a change, has not ended.
    NotProbedYet,
    /// The last complete probe is older than twice `spec.probeEvery`.
    ProbeOutdated,
    /// A Secret that `spec.credentials` names is not there, or lacks `accessKeyID` or `secretAccessKey`.
    CredentialsMissing,
    /// A Secret that `spec.credentials` names does not say by its labels that this store may use it so.
    CredentialsUnlabelled,
    /// Two of the four Secrets hold the same access key.
    CredentialsShared,
    /// The store refused one of the identities: revoked, expired, or without the right it needs. The message says which.
    CredentialsRefused,
    /// No connection: name, network or firewall.
    Unreachable,
    /// A connection, but no answer in time.
    TimedOut,
    /// Answers of 500 and above.
    Failing,
    /// The certificate has ended, is for another name, or its authority is unknown.
    TlsRefused,
    /// The certificate ends within 14 days.
    CertificateExpiring,
    /// There is no such bucket.
    BucketMissing,
    /// The region in signatures is not the bucket's.
    RegionDiffers,
    /// The store takes the bucket's name only in the other place than `spec.addressing` says.
    AddressingDiffers,
    /// `spec.objectLock` claims a lock, and a locked version could be deleted, or versions are not kept.
    LockMissing,
    /// `spec.objectLock` claims a lock, and it could be shortened or its mode differs.
    LockWeak,
    /// The committer cannot extend a lock: what retention promotes would lose its lock too early.
    LockNotExtendable,
    /// The writer can read objects.
    WriterCanRead,
    /// The writer can list the bucket.
    WriterCanList,
    /// The writer can delete.
    WriterCanDelete,
    /// The writer can put objects where commits, key challenges or records lie.
    WriterCanCommit,
    /// The committer can put objects where data lie.
    CommitterCanWriteData,
    /// The committer can delete.
    CommitterCanDelete,
    /// The reader can write or delete.
    ReaderCanWrite,
    /// The janitor can read objects.
    JanitorCanRead,
    /// The store keeps versions, and the janitor can delete without naming one: it can hide an object as well as destroy it.
    JanitorCanHide,
    /// What was put was not there for the reader, or an older version of it was.
    StaleReads,
    /// Its clock differs from the operator's by more than five minutes: S3 refuses signatures beyond 15.
    ClockSkewed,
    /// It is full, or its quota is.
    Full,
    /// It lies outside the European Economic Area; once there are sovereignty policies: none lists its country, or its
    /// provider is not in the register.
    LocationRefused,
    /// Too many failures in a row: nothing goes there for a while.
    BreakerOpen,
    /// One request is tried.
    BreakerHalfOpen,
    /// The chart's `stores.egress` names no addresses: no pod that writes or reads backups is let out.
    EgressClosed,
    /// The signing key that was published is not there, and no other is made in silence.
    SigningKeyLost,
    /// The operator still has the signing key in memory, and its Secret is gone: put it back before the operator ends.
    SigningKeyUnsaved,
    /// The Secret with the signing key holds no key, or another than was published.
    SigningKeyDiffers,
    /// The signing key is kept, and its public half could not be put into the bucket: whoever finds the bucket without the
    /// cluster needs it from elsewhere. It is tried again.
    SigningKeyNotStored,
    /// All tenants' agents have the same credentials: one could add objects to another's archive, which no commit names.
    WriterShared,
    /// Versions are not kept: the writer can replace what it or another agent has put.
    WriterCanOverwrite,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::{STORE, changed, refusal};

    fn store(changes: &[(&str, &str)]) -> BackupStore {
        changed(STORE, changes)
    }

    fn said(changes: &[(&str, &str)]) -> String {
        refusal(store(changes).validate_cel())
    }

    fn said_of_change(changes: &[(&str, &str)]) -> String {
        refusal(store(changes).validate_cel_update(&store(&[])))
    }

    #[test]
    fn the_store_of_the_sketch_is_valid_and_its_defaults_are_the_safe_ones() {
        let store = store(&[]);

        assert_eq!(refusal(store.validate_cel()), "");
        assert_eq!(store.spec.addressing, Addressing::Path);
        assert_eq!(store.spec.limits.bytes_per_second.map(ByteSize::bytes), Some(200 << 20));
        assert_eq!(store.spec.timeouts.attempt, Span::seconds(60));
        assert_eq!(store.spec.probe_every, Span::hours(6));
    }

    #[test]
    fn a_name_that_could_stand_in_no_label_is_refused() {
        let too_long = "a".repeat(64);
        for name in ["hel.sinki", "Helsinki", "-helsinki", too_long.as_str()] {
            let said = said(&[("/metadata/name", name)]);
            assert!(said.contains("a store's name is a label"), "{name}: {said}");
        }
    }

    #[test]
    fn every_profile_has_the_name_that_its_maker_gives_it() {
        for name in ["UpCloud", "OVHcloud", "Scaleway", "CephRgw", "Garage", "Versitygw", "Generic"] {
            assert_eq!(said(&[("/spec/profile", name), ("/spec/objectLock", "null")]), "");
        }
    }

    #[test]
    fn a_lock_of_a_product_that_has_none_is_refused() {
        let lock = ("/spec/objectLock", "{mode: Compliance, days: 35}");

        assert!(said(&[("/spec/profile", "Garage"), lock]).contains("Garage has no object lock"));
        assert_eq!(said(&[("/spec/profile", "Garage"), ("/spec/objectLock", "null")]), "");
    }

    #[test]
    fn an_endpoint_that_is_not_https_is_refused() {
        for endpoint in ["http://abcd.example", "http://127.0.0.1:9000", "abcd.example", "ftp://abcd.example"]
        {
            let said = said(&[("/spec/endpoint", endpoint)]);
            assert!(said.contains("endpoint is https: credentials"), "{endpoint}: {said}");
        }
    }

    #[test]
    fn an_endpoint_with_more_than_a_host_is_refused() {
        let wrong = [
            "https://user:secret@abcd.example",
            "https://abcd.example/",
            "https://abcd.example/bucket",
            "https://abcd.example?x=1",
            "https://ABCD.example",
            "https://abcd.example:0",
            "https://",
            "https://-abcd.example",
        ];

        for endpoint in wrong {
            let said = said(&[("/spec/endpoint", endpoint)]);
            assert!(said.contains("no user, no path, no bucket"), "{endpoint}: {said}");
        }
        for endpoint in ["https://s3.example:9000", "https://192.0.2.7", "https://a"] {
            assert_eq!(said(&[("/spec/endpoint", endpoint)]), "");
        }
    }

    #[test]
    fn a_bucket_that_s3_would_not_have_is_refused() {
        let wrong =
            ["ab", "Valv", "valv_backups", "-valv", "valv-", "a..b", "192.0.2.7", "xn--valv", "valv-s3alias"];
        let too_long = "a".repeat(64);

        for bucket in wrong.into_iter().chain([too_long.as_str()]) {
            assert!(said(&[("/spec/bucket", &format!("'{bucket}'"))]).contains("bucket"), "{bucket}");
        }
        for bucket in ["abc", "valv-backups", "valv.backups", "1a2"] {
            assert_eq!(said(&[("/spec/bucket", bucket)]), "");
        }
    }

    #[test]
    fn a_prefix_that_could_leave_its_folder_is_refused() {
        for prefix in ["/a", "a/", "a//b", "../a", "a/../b", "a/.hidden", "ä", "a b"] {
            let said = said(&[("/spec/prefix", &format!("'{prefix}'"))]);
            assert!(said.contains("prefix is folders"), "{prefix}: {said}");
        }
        assert_eq!(said(&[("/spec/prefix", "a/b-2/C_3.4")]), "");
        assert_eq!(said(&[("/spec/prefix", "null")]), "");
    }

    #[test]
    fn what_backups_rest_on_is_immutable() {
        assert!(said_of_change(&[("/spec/bucket", "other")]).contains("bucket and prefix are immutable"));
        assert!(said_of_change(&[("/spec/prefix", "other")]).contains("bucket and prefix are immutable"));
        assert!(said_of_change(&[("/spec/prefix", "null")]).contains("bucket and prefix are immutable"));
        assert!(
            said_of_change(&[("/spec/provider", "other")]).contains("provider and location are immutable")
        );
        assert!(said_of_change(&[("/spec/location/country", "SE")]).contains("provider and location"));
        assert_eq!(said_of_change(&[("/spec/endpoint", "https://other.example")]), "");
        assert_eq!(said_of_change(&[("/spec/credentials/writer/name", "helsinki-writer-2")]), "");
    }

    #[test]
    fn two_parts_in_one_secret_are_refused() {
        let parts = ["writer", "committer", "reader", "janitor"];
        for (one, other) in parts.iter().flat_map(|one| parts.iter().map(move |other| (one, other))) {
            let name = format!("helsinki-{other}");
            let said = said(&[(&format!("/spec/credentials/{one}/name"), name.as_str())]);
            assert_eq!(said.contains("four Secrets"), one != other, "{one} as {other}: {said}");
        }
    }

    #[test]
    fn what_is_no_country_is_refused() {
        for country in ["fi", "F1", "UK", "EU", "EL"] {
            assert_ne!(said(&[("/spec/location/country", country)]), "", "{country}");
        }
    }

    #[test]
    fn a_dot_in_the_bucket_and_a_virtual_host_exclude_each_other() {
        let dotted = ("/spec/bucket", "valv.backups");

        assert!(said(&[dotted, ("/spec/addressing", "Virtual")]).contains("needs addressing: Path"));
        assert_eq!(said(&[("/spec/addressing", "Virtual")]), "");
    }

    #[test]
    fn a_ca_bundle_with_a_key_in_it_is_refused() {
        let certificate = "'-----BEGIN CERTIFICATE-----'";
        let key = "'-----BEGIN CERTIFICATE-----, -----BEGIN PRIVATE KEY-----'";

        assert_eq!(said(&[("/spec/caBundle", certificate)]), "");
        assert!(said(&[("/spec/caBundle", key)]).contains("holds a private key"));
        assert!(said(&[("/spec/caBundle", "ca.crt")]).contains("certificates in PEM"));
    }

    #[test]
    fn a_proxy_with_a_password_is_refused() {
        assert_eq!(said(&[("/spec/proxy", "http://proxy.example:3128")]), "");
        assert_ne!(said(&[("/spec/proxy", "http://ada:secret@proxy.example:3128")]), "");
        assert_ne!(said(&[("/spec/proxy", "socks5://proxy.example:1080")]), "");
    }

    #[test]
    fn times_that_contradict_each_other_are_refused() {
        assert!(said(&[("/spec/timeouts", "{connect: 2m}")]).contains("part of an attempt"));
        assert!(said(&[("/spec/timeouts", "{attempt: 2h}")]).contains("at most 1h"));
        assert!(said(&[("/spec/retry", "{perRequest: 9, perRun: 8}")]).contains("retry.perRequest"));
        assert!(said(&[("/spec/probeEvery", "5m")]).contains("between 10m and 168h"));
        assert_eq!(said(&[("/spec/timeouts", "{connect: 2s}")]), "");
    }
}
