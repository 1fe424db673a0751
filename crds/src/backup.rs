//! `Backup`: one run for one tenant. The bucket is the catalogue; of these objects only the newest few stay.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Slot, policy::VerificationMode};

/// One backup of the tenant whose namespace this is. Immutable, but that it can be cancelled.
///
/// It is `Complete` when manifest and segments were read back from the store and the commit was put, and not before.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "valv.eu",
    version = "v1alpha1",
    kind = "Backup",
    namespaced,
    shortname = "jb",
    category = "valv",
    cel,
    status = "BackupStatus",
    printcolumn(name = "Complete", type_ = "string", json_path = ".status.conditions[?(@.type=='Complete')].status", description = "Can it be restored?"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.conditions[?(@.type=='Complete')].reason", description = "The reason for that"),
    printcolumn(name = "Copied", type_ = "string", json_path = ".status.conditions[?(@.type=='Copied')].status", description = "Has every further store of the policy a copy?"),
    printcolumn(name = "Intact", type_ = "string", json_path = ".status.conditions[?(@.type=='Intact')].status", description = "False: something in a store is not as it was committed"),
    printcolumn(name = "Percent", type_ = "integer", json_path = ".status.progress.percent", description = "How far it is"),
    printcolumn(name = "Taken", type_ = "date", json_path = ".status.taken", description = "The moment that it holds"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.size.bytes", description = "What lies in the store"),
    printcolumn(name = "Store", type_ = "string", json_path = ".status.stores[0].name", description = "Where it lies first"),
    printcolumn(name = "Left", type_ = "string", json_path = ".status.progress.left", description = "How long it will take yet", priority = 1),
    printcolumn(name = "Origin", type_ = "string", json_path = ".spec.origin", priority = 1),
    printcolumn(name = "Attempt", type_ = "integer", json_path = ".status.attempt.number", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Complete')].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec.origin != 'Manual' || !self.metadata.name.matches('-[0-9]{8}t[0-9]{6}z$')").message("a name that ends like a slot (-20261122t010000z) is the schedule's: with it that slot would never be run. Give this one any other name"),
    validation = Rule::new("self.spec.origin == 'Manual' || self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?-[0-9]{8}t[0-9]{6}z$')").message("only a backup with origin: Manual may have any name: the others are named <tenant>-<slot>, e.g. ada-20261122t010000z")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.origin == oldSelf.origin", "a Backup is immutable: make a new one"),
    validation = ("self.cancel || !oldSelf.cancel", "what was cancelled stays cancelled: make a new Backup")
)]
pub struct BackupSpec {
    /// Who asked for it.
    #[serde(default)]
    pub origin: Origin,

    /// Set to stop it. What it wrote is garbage, which the janitor finds. Never goes back.
    #[serde(default)]
    pub cancel: bool,
}

/// Who asked for a backup.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Origin {
    /// The schedule. Its slot is in its name.
    Scheduled,
    /// The operator, before it migrates the schema; the migration waits for it. Its slot is in its name.
    BeforeMigration,
    /// A person. Its slot is when the object was made.
    #[default]
    Manual,
}

/// What the operator last saw. Written by the operator only.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// `metadata.generation` that the rest of this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Under which slot it lies in the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,

    /// Under which archive.
    #[serde(default, rename = "archiveID", skip_serializing_if = "Option::is_none")]
    pub archive_id: Option<String>,

    /// The attempt that counts, or the one that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,

    /// How far the agent is; renewed at most every five seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,

    /// When its first attempt was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,

    /// When it is given up, if it was not read back by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,

    /// The moment of the database that it holds: its backup's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Time>,

    /// When it was committed, or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,

    /// How large it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<BackupSize>,

    /// The manifest, as it was read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<ObjectDigest>,

    /// Where it lies, in the order of the policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub stores: Vec<StoredIn>,

    /// One entry a type.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// One run of the agent, and what its pods said: what is decided is decided from here, for pods are gone at any time.
/// Each attempt writes under an id of its own.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The first is 1.
    #[schemars(range(min = 1))]
    pub number: i32,
    /// UID of its pod: the folder under which it writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When it was begun: written before anything is made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Time>,
    /// What it was begun with. What the policy or the tenant asks for by now may differ: then another attempt begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// UID of the Job whose pod writes: a pod counts only if it is this Job's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// What the pod said that it wrote: written before it is read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrote: Option<Wrote>,
    /// How it is read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
    /// How it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<AttemptFailure>,
}

/// What an attempt was begun with.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Name of the `BackupStore`.
    pub store: String,
    /// For whom it is encrypted, in this order.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// How much is read back.
    #[serde(default)]
    pub verification: VerificationMode,
    /// Of `Sample`: how many segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<i32>,
    /// Whether the tenant has attachments.
    #[serde(default)]
    pub attachments: bool,
    /// The image that the journal ran, which the manifest must name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal_image: Option<String>,
}

/// What an agent said that it wrote. A claim: the operator reads the manifest itself before it commits.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wrote {
    /// The manifest.
    pub manifest: ObjectDigest,
    /// The manifest's size.
    pub manifest_bytes: i64,
    /// Bytes of ciphertext.
    pub bytes: i64,
    /// Bytes of the tar streams.
    pub plain_bytes: i64,
    /// Segments.
    pub segments: i64,
    /// The moment that it holds.
    pub taken: Time,
}

/// One reading back of what an attempt wrote. It is repeated alone: what was written stays.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reading {
    /// The first is 1.
    #[schemars(range(min = 1))]
    pub number: i32,
    /// When it was begun: written before its Job is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Time>,
    /// UID of its Job, in the operator's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// What its pod saw: written before the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<ReadBack>,
    /// How it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<AttemptFailure>,
}

/// What a reading pod saw.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadBack {
    /// How much it read.
    pub mode: VerificationMode,
    /// What a sample was drawn with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Segments that were read and whose digest was right.
    pub segments_read: i64,
    /// Segments that there are.
    pub segments: i64,
    /// When the operator heard of it.
    pub at: Time,
    /// Objects over which something lies.
    #[serde(default)]
    pub tampered: i64,
    /// Until when all objects are locked: the least that was seen. Absent: one of them is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Time>,
}

/// How an attempt, or a reading back, failed.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptFailure {
    /// Why.
    pub reason: BackupReason,
    /// In a sentence.
    pub message: String,
    /// When.
    pub at: Time,
}

/// How far an agent is.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What it does.
    #[serde(default)]
    pub stage: Stage,
    /// Bytes that it has read.
    #[serde(default)]
    pub bytes: i64,
    /// Bytes that it expects to read in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<i64>,
    /// The share of both, 0 to 100. It is an estimate until 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    /// Segments that it has put, or read, over all parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<i64>,
    /// Bytes a second, over the last minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<i64>,
    /// How long it will take yet, e.g. `12m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// When the agent said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// What a backup is doing.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Stage {
    /// Waiting for its turn, or for its pod.
    #[default]
    Waiting,
    /// The agent reads the database.
    Database,
    /// The agent reads the attachments.
    Attachments,
    /// The agent reads the tenant and its Secrets.
    Tenant,
    /// Segments are read back.
    ReadingBack,
    /// The commit is put.
    Committing,
    /// Nothing more is done.
    Done,
}

/// How large a backup is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupSize {
    /// Bytes in the store: compressed and encrypted.
    #[serde(default)]
    pub bytes: i64,
    /// Bytes of the tar streams within.
    #[serde(default)]
    pub plain_bytes: i64,
    /// Segments.
    #[serde(default)]
    pub segments: i64,
}

/// An object in a store.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectDigest {
    /// Its key, below the store's prefix.
    pub key: String,
    /// Its version, where the store has versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its BLAKE3, in hex.
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub blake3: String,
}

/// A backup in one store.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredIn {
    /// Name of the `BackupStore`.
    pub name: String,
    /// The commit in it. Absent: it is not there yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<ObjectDigest>,
    /// When it was committed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<Time>,
    /// How it was read back there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verified>,
    /// Until when a lock keeps it; absent: nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Time>,
}

/// How a backup was read back.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// How much of it.
    pub mode: VerificationMode,
    /// Segments that were read and whose digest was right.
    pub segments_read: i64,
    /// Segments that there are.
    pub segments: i64,
    /// When.
    pub at: Time,
}

/// `type` of a backup's condition.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum BackupCondition {
    /// It was read back and committed in the first store: it can be restored.
    Complete,
    /// The other stores of the policy have it too, each with a commit.
    Copied,
    /// Nothing hides or replaces what the manifest names: no delete marker, no younger version.
    Intact,
    /// It is under way (kstatus; present only while it is).
    Reconciling,
    /// It has failed for good (kstatus; present only then).
    Stalled,
}

/// `reason` of a backup's condition.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum BackupReason {
    /// Manifest and segments were read back, and the commit was put.
    Committed,
    /// It is as it was committed.
    AsAsked,
    /// The policy has one store only.
    NotAskedFor,
    /// The slot's turn for this tenant has not come.
    WaitingForTurn,
    /// As many backups run as may, in all or to this store.
    AtLimit,
    /// The agent runs.
    Running,
    /// An attempt failed; the next one comes.
    Retrying,
    /// What the agent wrote is being read back.
    ReadingBack,
    /// The other stores are getting their copies.
    Copying,
    /// `spec.cancel` was set.
    Cancelled,
    /// It never began: a newer slot is there, or its time passed while it waited.
    Missed,
    /// As many backups by hand of this tenant wait or run already as may.
    TooManyByHand,
    /// Its name was not made from this tenant and a slot.
    NameInvalid,
    /// Its slot lies in the future.
    SlotInFuture,
    /// The archive has another backup of this slot.
    SlotTaken,
    /// This namespace is not a tenant's, or the tenant asks for no backups.
    NotATenant,
    /// The policy that the tenant names is not there or not ready.
    PolicyMissing,
    /// The tenant is suspended: its database does not run.
    TenantSuspended,
    /// Fewer than two recipients, or two that are the same.
    TooFewRecipients,
    /// The store is not ready: its own condition says why.
    StoreNotReady,
    /// The store lies where this tenant's backups may not.
    StoreRefused,
    /// The store did not answer, or failed too often.
    StoreUnavailable,
    /// The store is full, or its quota is.
    StoreFull,
    /// The store refused the credentials.
    CredentialsRefused,
    /// The store's certificate is not to be trusted, or TLS failed otherwise.
    TlsRefused,
    /// The store's clock, and that of the node of the agent or of the operator, differ too much.
    ClockSkewed,
    /// The database did not answer, or ended in the middle.
    DatabaseUnavailable,
    /// The database cannot be backed up as it is: tablespaces of its own, or checksums that are wrong.
    DatabaseUnsuitable,
    /// The attachments could not be read.
    AttachmentsUnreadable,
    /// The agent ended without a result; the message has its last words.
    AgentFailed,
    /// It took longer than the policy's deadline.
    DeadlineExceeded,
    /// The manifest is not in the store.
    ManifestMissing,
    /// The manifest contradicts itself, the slot, or what the agent said.
    ManifestInvalid,
    /// A segment that the manifest names is not in the store.
    SegmentMissing,
    /// A segment differs from what the manifest says of it: size, version or digest.
    SegmentDiffers,
    /// The commit's signature is missing or wrong.
    SignatureInvalid,
    /// A delete marker or a younger version lies over what the manifest names. It is read through.
    Tampered,
    /// Retention has deleted it.
    Expired,
    /// The API server refused what an attempt needs (quota, admission, an object of that name that is another's); the
    /// message has its words.
    ClusterRefused,
    /// A pod could not be scheduled, pulled or mounted within ten minutes.
    NotStarted,
    /// Store, recipients or attachments are others than those that the attempt was begun with: another begins.
    SetupChanged,
    /// The database that was backed up is not the one that the tenant's status names.
    DatabaseDiffers,
    /// An object is not locked, or not for as long as the store's lock says.
    LockTooShort,
    /// The archive is another tenant's, or another cluster's.
    ArchiveTaken,
    /// Its commit was in a store and is not there any more, and retention did not delete it.
    CatalogueRolledBack,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        example::{BACKUP, changed, refusal},
        slot,
    };

    fn backup(changes: &[(&str, &str)]) -> Backup {
        changed(BACKUP, changes)
    }

    #[test]
    fn a_backup_of_the_schedule_has_the_name_of_its_slot() {
        let right = backup(&[]);
        let wrong = backup(&[("/metadata/name", "ostra-now")]);
        let by_hand = backup(&[("/metadata/name", "ostra-now"), ("/spec", "{}")]);

        assert_eq!(refusal(right.validate_cel()), "");
        assert_eq!(slot::parse_name("ostra-20261122t010000z").unwrap().0, "ostra");
        assert!(refusal(wrong.validate_cel()).contains("named <tenant>-<slot>"));
        assert_eq!(refusal(by_hand.validate_cel()), "");
        assert_eq!(by_hand.spec.origin, Origin::Manual);
    }

    #[test]
    fn what_is_asked_for_by_hand_takes_no_slot_s_name() {
        let in_the_way = backup(&[("/spec", "{}")]);

        assert!(refusal(in_the_way.validate_cel()).contains("that slot would never be run"));
    }

    #[test]
    fn only_cancel_may_change_and_never_back() {
        let running = backup(&[]);
        let cancelled = backup(&[("/spec/cancel", "true")]);
        let other = backup(&[("/spec/origin", "BeforeMigration")]);

        assert_eq!(refusal(cancelled.validate_cel_update(&running)), "");
        assert!(refusal(running.validate_cel_update(&cancelled)).contains("stays cancelled"));
        assert!(refusal(other.validate_cel_update(&running)).contains("immutable"));
    }
}
