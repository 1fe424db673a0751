//! `RestoreDrill`: a restore into a quarantined namespace that is judged, measured, torn down and recorded.

use std::{fmt, str::FromStr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Slot, as_text::as_text, backup::ObjectDigest, slot::SlotError, text};

/// One drill of a restore, for the tenant whose namespace this is. Immutable, but that it can be cancelled.
///
/// What it restored is always torn down: also when it failed, was cancelled, or the operator died in the middle.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "valv.eu",
    version = "v1alpha1",
    kind = "RestoreDrill",
    namespaced,
    shortname = "drill",
    category = "valv",
    cel,
    status = "RestoreDrillStatus",
    printcolumn(name = "Passed", type_ = "string", json_path = ".status.conditions[?(@.type=='Passed')].status", description = "Could the backup be restored, and was all there?"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.conditions[?(@.type=='Passed')].reason", description = "The reason for that"),
    printcolumn(name = "Backup", type_ = "string", json_path = ".status.backup.slot", description = "What was restored"),
    printcolumn(name = "RTO", type_ = "string", json_path = ".status.measured.rto", description = "How long it took until the journal answered"),
    printcolumn(name = "RPO", type_ = "string", json_path = ".status.measured.rpo", description = "How much would have been lost"),
    printcolumn(name = "Objectives", type_ = "string", json_path = ".status.conditions[?(@.type=='ObjectivesMet')].status", description = "Were both within what was promised?"),
    printcolumn(name = "Torn down", type_ = "string", json_path = ".status.conditions[?(@.type=='TornDown')].status", priority = 1),
    printcolumn(name = "Store", type_ = "string", json_path = ".status.backup.store", priority = 1),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".status.namespace", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Passed')].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec.origin == 'Manual' || self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?-[0-9]{8}t[0-9]{6}z$')").message("only a drill with origin: Manual may have any name: the others are named <tenant>-<slot>, e.g. ada-20261122t010000z")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.origin == oldSelf.origin && self.backup == oldSelf.backup && has(self.store) == has(oldSelf.store) && (!has(self.store) || self.store == oldSelf.store)", "a RestoreDrill is immutable: make a new one"),
    validation = ("self.cancel || !oldSelf.cancel", "what was cancelled stays cancelled: make a new RestoreDrill")
)]
pub struct RestoreDrillSpec {
    /// Who asked for it.
    #[serde(default)]
    pub origin: DrillOrigin,

    /// What is restored: `newest`, `random`, or a slot such as `20261122T010000Z`.
    #[serde(default)]
    pub backup: Choice,

    /// From which `BackupStore`; absent: the stores of the policy take turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::label_name")]
    pub store: Option<String>,

    /// Set to stop it; it is torn down. Never goes back.
    #[serde(default)]
    pub cancel: bool,
}

/// Who asked for a drill.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum DrillOrigin {
    /// The schedule. Its slot is in its name.
    Scheduled,
    /// A person. Its slot is when the object was made.
    #[default]
    Manual,
}

/// Which backup a drill restores.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(into = "String", try_from = "String")]
pub enum Choice {
    /// The newest complete one.
    #[default]
    Newest,
    /// A complete one that is kept, picked by the drill's own slot, so that a second look picks the same.
    Random,
    /// That of this slot.
    Of(Slot),
}

impl fmt::Display for Choice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => out.write_str("newest"),
            Self::Random => out.write_str("random"),
            Self::Of(slot) => slot.fmt(out),
        }
    }
}

impl FromStr for Choice {
    type Err = SlotError;

    fn from_str(text: &str) -> Result<Self, SlotError> {
        match text {
            "newest" => Ok(Self::Newest),
            "random" => Ok(Self::Random),
            slot => slot.parse().map(Self::Of),
        }
    }
}

as_text!(Choice, {
    "type": "string",
    "maxLength": 16,
    "x-kubernetes-validations": [{
        "rule": "self in ['newest', 'random'] || self.matches('^[0-9]{8}T[0-9]{6}Z$')",
        "message": "backup is newest, random, or a slot such as 20261122T010000Z",
    }],
});

/// What the operator last saw. Written by the operator only.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreDrillStatus {
    /// `metadata.generation` that the rest of this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The drill's own slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,

    /// Namespace into which it restores, while that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,

    /// UID of that namespace: another of the same name is not this drill's.
    #[serde(default, rename = "namespaceUID", skip_serializing_if = "Option::is_none")]
    pub namespace_uid: Option<String>,

    /// Names of the persistent volumes that hold what was restored, while they may be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub volumes: Vec<String>,

    /// BLAKE3 of the run files in the ConfigMap `drill` of that namespace: none with another is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared_with: Option<String>,

    /// The Jobs that it made there: no other of their names is listened to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(max = 8))]
    pub jobs: Vec<DrillJob>,

    /// Name of the `BackupStore` that it restores from, or that it looked in last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,

    /// What it restores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<DrilledBackup>,

    /// When the operator first saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Time>,

    /// When its turn came: its time counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,

    /// Since when it waited for its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_asked: Option<Time>,

    /// When it had its key, and room to go on. Its deadline does not count from `keyAsked` until here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_came: Option<Time>,

    /// Since when the restored journal is ready: it must stay so for a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<ReadySeen>,

    /// When its verdict stood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,

    /// The key that it restored with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyUse>,

    /// The verdicts, in the order in which they are reached. One that was not reached is not a pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(max = 64))]
    pub verdicts: Vec<Verdict>,

    /// What was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,

    /// The signed record of it in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordReference>,

    /// One entry a type.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The backup that a drill restores.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DrilledBackup {
    /// Its slot.
    pub slot: Slot,
    /// Name of the `BackupStore` that it is read from.
    pub store: String,
    /// Its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<ObjectDigest>,
}

/// A Job of a drill.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct DrillJob {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its UID.
    #[schemars(length(min = 1, max = 63))]
    pub uid: String,
}

/// That the restored journal is ready.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ReadySeen {
    /// Since when, by its node's clock.
    pub since: Time,
    /// When the operator first saw that, by its own.
    pub seen: Time,
}

/// A key that was brought for a drill. Never what it is.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyUse {
    /// Who brought it.
    pub by: KeyBringer,
    /// When.
    pub brought: Time,
    /// The program that made the Secret, as the API server notes it, e.g. `kubectl-create`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub with: Option<String>,
}

/// Who brought a key.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum KeyBringer {
    /// The key holder, from the namespace of the keys.
    KeyHolder,
    /// Somebody else, by hand: the API server's audit log has the name.
    Person,
}

/// The verdict of one check.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Which check: the name of a built-in one, or `Sql/<name>` of the policy's own.
    #[schemars(length(min = 1, max = 80))]
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Why, as one word for machines.
    pub reason: DrillReason,
    /// Why, as a sentence for people; without any datum from a journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Outcome {
    /// It is as it must be.
    Passed,
    /// It is not.
    Failed,
    /// It is, and something was found that somebody should look at: the drill passes.
    Warned,
    /// An earlier check failed, or the drill was cancelled.
    NotReached,
    /// The tenant has nothing to check here, e.g. no attachments.
    NotAsked,
}

/// The checks that every drill makes, in their order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Check {
    /// The commit is signed by the operator's key, for this archive and slot.
    CommitSignature,
    /// The manifest is the one that the commit names, and agrees with itself.
    Manifest,
    /// Every segment is there in the version, size and digest that the index names.
    Segments,
    /// The headers name at least two recipients, and as many as the manifest.
    Recipients,
    /// Every segment decrypts with the drill's key.
    Decryption,
    /// The tenant's own object is in it, and every Secret and ConfigMap that it names, as they are now.
    Tenant,
    /// `pg_verifybackup` agrees with the extracted files.
    VerifyBackup,
    /// PostgreSQL starts on them and becomes consistent.
    DatabaseStarts,
    /// The nonce written before this backup is the newest in the database.
    Sentinel,
    /// Every table has the rows that it should.
    RowCounts,
    /// `pg_amcheck` finds no damage.
    Amcheck,
    /// Every attachment that the database names is there with its digest.
    Attachments,
    /// The policy's own questions, each with a verdict `Sql/<name>`.
    Sql,
    /// The journal starts on the restored data, and its probe answers.
    JournalStarts,
}

impl Check {
    /// All, in their order.
    pub const ALL: [Self; 14] = [
        Self::CommitSignature,
        Self::Manifest,
        Self::Segments,
        Self::Recipients,
        Self::Decryption,
        Self::Tenant,
        Self::VerifyBackup,
        Self::DatabaseStarts,
        Self::Sentinel,
        Self::RowCounts,
        Self::Amcheck,
        Self::Attachments,
        Self::Sql,
        Self::JournalStarts,
    ];

    /// The name of its verdict.
    pub fn verdict_name(self) -> String {
        format!("{self:?}")
    }

    /// The name of the verdict on the policy's own check `name`.
    pub fn sql_verdict_name(name: &str) -> String {
        format!("{:?}/{name}", Self::Sql)
    }
}

/// What was measured.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// From when its turn came until the journal answered, less the checks and the wait for its key, as people read it,
    /// e.g. `41m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<String>,
    /// The same, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<i64>,
    /// From the last transaction restored until the drill began, as people read it, e.g. `23h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo: Option<String>,
    /// The same, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo_seconds: Option<i64>,
    /// What the time went to, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub phases: Vec<PhaseTime>,
    /// Bytes that were read from the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
}

/// What one phase took.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// So many seconds.
    pub seconds: i64,
}

/// The phases of a restore, in their order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Phase {
    /// Namespace and volumes are made ready.
    Prepare,
    /// It waits for its key, and then for room to go on. Not a part of the recovery time.
    Key,
    /// Segments are read, decrypted and extracted.
    Fetch,
    /// `pg_verifybackup` reads what was extracted.
    Verify,
    /// PostgreSQL replays its WAL and becomes consistent.
    Recover,
    /// The database is checked. Not a part of the recovery time.
    Check,
    /// The journal starts and answers.
    Start,
    /// What of the recovery time is in no other phase: pods are scheduled and started, and one waits for the other.
    PodStart,
    /// All of it is deleted. Not a part of the recovery time.
    TearDown,
}

/// The signed record of a drill.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordReference {
    /// Name of the `BackupStore` that it lies in.
    pub store: String,
    /// The object.
    pub object: ObjectDigest,
    /// When it was written.
    pub written: Time,
}

/// `type` of a drill's condition.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum DrillCondition {
    /// The backup was restored, and every check passed.
    Passed,
    /// Recovery time and recovery point were within what the policy promises.
    ObjectivesMet,
    /// Nothing that was restored is left.
    TornDown,
    /// The signed record lies in a store.
    Recorded,
    /// It is under way (kstatus; present only while it is).
    Reconciling,
    /// It has ended without a pass (kstatus; present only then).
    Stalled,
}

/// `reason` of a drill's condition, or of a verdict.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum DrillReason {
    /// It is as it must be.
    AsAsked,
    /// The drill runs.
    Running,
    /// The drill has not come so far.
    NotReached,
    /// The tenant or the policy has nothing of this kind.
    NotAskedFor,
    /// `spec.cancel` was set.
    Cancelled,
    /// It took longer than the policy's deadline.
    DeadlineExceeded,
    /// Its name was not made from this tenant and a slot.
    NameInvalid,
    /// There is no complete backup to restore, or to compare with.
    NoBackup,
    /// Slots that should be in the catalogue are not: commits were taken away.
    CatalogueRolledBack,
    /// The store is not ready, did not answer, was too slow, or failed too often.
    StoreUnavailable,
    /// The store refused the credentials.
    CredentialsRefused,
    /// The store's certificate is not to be trusted, or TLS failed otherwise.
    TlsRefused,
    /// The store's clock, and that of the node of the agent or of the operator, differ too much.
    ClockSkewed,
    /// The namespace, a volume or a pod could not be made; the message says which and why.
    CannotRestore,
    /// The archive is another tenant's, or nobody's by the record in the store: it is not restored for this one.
    ArchiveTaken,
    /// The storage class keeps the volumes of deleted claims: what would be restored could not be taken away.
    VolumesKept,
    /// There is no key to drill with, or it could not be had.
    KeyMissing,
    /// The commit has no signature.
    SignatureMissing,
    /// The commit's signature is not of the operator's key, or the commit is for another archive or slot.
    SignatureInvalid,
    /// The manifest that the commit names is not there.
    ManifestMissing,
    /// The manifest is not the one that the commit names.
    ManifestDiffers,
    /// The manifest contradicts itself or the commit.
    ManifestInvalid,
    /// A segment is not there.
    SegmentMissing,
    /// A segment has another size or digest than the index says.
    SegmentDiffers,
    /// A segment lies at the place of another.
    SegmentsSwapped,
    /// A delete marker or a younger version lies over an object. The right version was read.
    Tampered,
    /// The headers name fewer than two recipients.
    TooFewRecipients,
    /// The headers name another number of recipients than the manifest.
    RecipientsDiffer,
    /// The key opens no segment: it is not of a recipient.
    WrongKey,
    /// A segment could not be decrypted or decompressed.
    DecryptionFailed,
    /// The tenant's object, or a Secret or ConfigMap that it names, is not in the backup, or is empty there.
    TenantIncomplete,
    /// The tenant's object, a Secret or a ConfigMap differs from what is there now: it was changed since the backup.
    TenantDiffers,
    /// `pg_verifybackup` found files that are missing, or that differ.
    FilesDiffer,
    /// PostgreSQL did not start, or did not become consistent.
    DatabaseFailed,
    /// The nonce of this backup is not in the database.
    SentinelMissing,
    /// The newest nonce in the database is of another backup: an old one was offered as new.
    SentinelDiffers,
    /// A table has fewer or more rows than when the backup was taken.
    RowCountsDiffer,
    /// A table has lost more rows than the policy allows, since the backup that a drill last found good.
    RowCountsFell,
    /// The backup with which row counts are to be compared cannot be believed or read.
    PreviousUnreadable,
    /// `pg_amcheck` found damage.
    Corrupt,
    /// An attachment that the database names is not there.
    AttachmentMissing,
    /// An attachment has another digest than the database says.
    AttachmentDiffers,
    /// `inventorySQL` names no attachment, and there are some: nobody asked the database about any of them.
    AttachmentsUnnamed,
    /// The policy's question was answered with false, or with no boolean.
    SqlFalse,
    /// The policy's question failed or took too long.
    SqlFailed,
    /// The journal did not start, or its probe did not answer, on the restored data.
    JournalFailed,
    /// The journal has no readiness probe: nobody knows more than that its port answers.
    NoProbe,
    /// The recovery took longer than promised.
    RecoveryTimeMissed,
    /// More would have been lost than promised.
    RecoveryPointMissed,
    /// Both were missed.
    BothMissed,
    /// What was restored is being deleted.
    TearingDown,
    /// Something that was restored could not be deleted yet; the message says what.
    TearDownFailed,
    /// The record could not be written yet.
    RecordFailed,
}

impl DrillReason {
    /// Those of a store that could not be had or read. They say nothing of a backup.
    pub const OF_THE_STORE: [Self; 4] =
        [Self::StoreUnavailable, Self::CredentialsRefused, Self::TlsRefused, Self::ClockSkewed];

    /// Whether it is of a store that could not be had or read.
    pub fn is_of_the_store(self) -> bool {
        Self::OF_THE_STORE.contains(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::{DRILL, changed, refusal};

    #[test]
    fn a_choice_reads_back_as_it_was_written() {
        for text in ["newest", "random", "20261122T010000Z"] {
            assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
        }
        assert!("oldest".parse::<Choice>().is_err());
        assert!("".parse::<Choice>().is_err());
    }

    #[test]
    fn a_verdict_on_a_question_of_the_policy_cannot_be_taken_for_a_built_in_one() {
        let names: Vec<_> = Check::ALL.iter().map(|check| check.verdict_name()).collect();

        assert_eq!(Check::sql_verdict_name("no-future-notes"), "Sql/no-future-notes");
        assert!(names.iter().all(|name| !name.contains('/')));
    }

    #[test]
    fn the_checks_stand_in_their_order() {
        assert!(Check::ALL.is_sorted());
    }

    fn drill(changes: &[(&str, &str)]) -> RestoreDrill {
        changed(DRILL, changes)
    }

    #[test]
    fn a_drill_restores_the_newest_a_random_one_or_a_slot() {
        for choice in ["newest", "random", "20261122T010000Z"] {
            assert_eq!(refusal(drill(&[("/spec/backup", choice)]).validate_cel()), "");
        }
        assert_eq!(drill(&[("/spec", "{}")]).spec.backup, Choice::Newest);
    }

    #[test]
    fn only_cancel_may_change_and_never_back() {
        let running = drill(&[("/spec/store", "helsinki")]);
        let cancelled = drill(&[("/spec/store", "helsinki"), ("/spec/cancel", "true")]);
        let elsewhere = drill(&[("/spec/store", "frankfurt")]);
        let anywhere = drill(&[]);

        assert_eq!(refusal(cancelled.validate_cel_update(&running)), "");
        assert!(refusal(running.validate_cel_update(&cancelled)).contains("stays cancelled"));
        assert!(refusal(elsewhere.validate_cel_update(&running)).contains("immutable"));
        assert!(refusal(anywhere.validate_cel_update(&running)).contains("immutable"));
    }

    #[test]
    fn a_drill_of_the_schedule_has_the_name_of_its_slot() {
        let wrong = drill(&[("/spec/origin", "Scheduled")]);
        let right = drill(&[("/spec/origin", "Scheduled"), ("/metadata/name", "ostra-20261122t010000z")]);

        assert!(refusal(wrong.validate_cel()).contains("named <tenant>-<slot>"));
        assert_eq!(refusal(right.validate_cel()), "");
    }
}
