//! Conditions: their types and reasons are API, their messages are not.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `type` of a condition. Scripts wait on these.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum ConditionType {
    /// The whole object is as its spec asks, by the rules of kstatus.
    Ready,
    /// The operator is still bringing the object there (kstatus; present only while it does).
    Reconciling,
    /// The operator cannot go on until somebody acts (kstatus; present only while it is so).
    Stalled,
    /// The namespace `journal-<name>` is there and is this tenant's.
    NamespaceReady,
    /// Every Secret, class and image the tenant needs is there.
    ReferencesResolved,
    /// Every generated Secret is there, unchanged since it was made.
    SecretsIntact,
    /// The certificates are valid and are renewed in time.
    CertificatesValid,
    /// The volumes are there and have the size that the spec asks for.
    VolumesReady,
    /// The database's server answers inside its pod; by network it takes TLS only.
    DatabaseReady,
    /// The schema is what the wanted image needs.
    SchemaCurrent,
    /// The wanted version of the journal answers its probes.
    JournalReady,
    /// Passwords are those of the wanted generation, everywhere.
    PasswordsCurrent,
    /// The host name is this tenant's alone.
    HostGranted,
    /// Its newest complete backup is no older than the policy's `objectives.rpo` and the window of its schedule. `Ready`
    /// speaks of the journal, and does not follow from this.
    BackedUp,
    /// Its last restore drill passed, and no later one is overdue. `Ready` does not follow from this.
    Drilled,
    /// The holder of each key has opened a backup with it within the policy's `keys.proveEvery`. `Ready` does not follow
    /// from this.
    KeysProven,
}

/// `reason` of a condition.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Reason {
    /// It is as the spec asks.
    AsAsked,
    /// It is being brought there; look again soon.
    Progressing,
    /// `spec.suspended` is true: journal and database are scaled to zero, the data are kept.
    Suspended,
    /// The annotation `valv.eu/paused` is there: the operator writes nothing for this tenant.
    Paused,
    /// The tenant is being deleted.
    Deleting,
    /// The namespace exists and was never this tenant's: it is neither adopted nor touched.
    NamespaceTaken,
    /// The namespace is being deleted; the tenant continues when it is gone.
    NamespaceTerminating,
    /// The volumes and Secrets of an earlier tenant of this name were taken over again.
    Adopted,
    /// Another tenant has the host name. This one goes on under the name that it had, if it had one.
    HostTaken,
    /// A Secret that the spec names is not there, or lacks a key.
    SecretMissing,
    /// A ConfigMap that the spec names is not there.
    ConfigMapMissing,
    /// A storage class, ingress class, gateway or their API is not there.
    ClassMissing,
    /// An image cannot be pulled.
    ImageMissing,
    /// A generated Secret is gone. No new password is made silently: put the Secret back, or ask for new
    /// passwords by raising `spec.database.passwordRotation.generation`.
    SecretLost,
    /// A certificate ends soon and was not renewed in time, or has ended.
    CertificateExpiring,
    /// The certificate in the named Secret cannot be used.
    CertificateInvalid,
    /// A new certificate authority is being trusted everywhere before it is used.
    AuthorityOverlapping,
    /// The storage class cannot expand volumes: restore into a tenant with a larger one.
    ExpansionUnsupported,
    /// The volume is being expanded.
    Expanding,
    /// The database's pod is not up.
    DatabaseUnavailable,
    /// A volume that held data is gone or empty: no new one is made silently.
    VolumeEmpty,
    /// The database refused to start; the message has its last words.
    DatabaseFailed,
    /// The database is an external server, which Valv does not run.
    External,
    /// The migration is running; the version before it serves.
    Migrating,
    /// The migration failed; the version before it serves. The message has the last log lines.
    MigrationFailed,
    /// An older image runs on a schema that a newer one made: a schema does not go back.
    SchemaNewer,
    /// `spec.journal.migrate` is absent: the journal migrates by itself, or not at all.
    NotManaged,
    /// The journal's pods are not up.
    JournalUnavailable,
    /// New passwords are being taken into use.
    Rotating,
    /// A step of the rotation failed and is tried again; the passwords before still work.
    RotationFailed,
    /// The apiserver refused an object (quota, admission, quantity); the message says which and why.
    Refused,
    /// The spec contradicts what runs, in a way only the cluster could show.
    InvalidSpec,
    /// The apiserver, or a webhook that it asks, fails again and again; the message has its words. It is tried
    /// again by itself.
    Failing,
    /// This was true and was not looked at now; `Ready` says why.
    Unobserved,
    /// `spec.backup` is absent: nothing of this tenant is kept anywhere else.
    NotProtected,
    /// The `BackupPolicy` that `spec.backup.policy` names is not there, or cannot be read.
    PolicyMissing,
    /// No backup of it was ever complete.
    NeverBackedUp,
    /// The last backup that ended is not complete; the message says which, and why. On `SchemaCurrent`: the backup before
    /// the migration failed, and nothing is migrated.
    BackupFailed,
    /// A backup is made before the schema is migrated; the version before it serves.
    BackingUp,
    /// A `Backup` that somebody made by hand has the name of a slot, which can therefore not be run: delete it.
    SlotBlocked,
    /// It was so, and has not been renewed in time.
    Overdue,
    /// The policy asks for none.
    NotAskedFor,
    /// No drill of it has ended yet.
    NeverDrilled,
    /// The last drill did not pass; its own conditions say why.
    DrillFailed,
    /// A drill ended, and something that it restored is still there.
    DrillNotTornDown,
    /// A drill ended, and its signed record does not lie in the store.
    DrillNotRecorded,
    /// A key was never proven to open a backup.
    NeverProven,
}

impl ConditionType {
    /// The name as it stands in `type`.
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }
}

/// `status` of a condition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Truth {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// It cannot be known now.
    Unknown,
}

/// What a condition says, before it is dated. `C` and `R` are the types and reasons of the kind's conditions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Saying<C = ConditionType, R = Reason> {
    /// Of what.
    pub kind: C,
    /// Whether it is so.
    pub truth: Truth,
    /// Why, as one word for machines.
    pub reason: R,
    /// Why, as a sentence for people.
    pub message: String,
}

impl<C: Debug, R: Debug> Saying<C, R> {
    /// `kind` is so.
    pub fn yes(kind: C, reason: R, message: impl Into<String>) -> Self {
        Self { kind, truth: Truth::True, reason, message: message.into() }
    }

    /// `kind` is not so.
    pub fn no(kind: C, reason: R, message: impl Into<String>) -> Self {
        Self { kind, truth: Truth::False, reason, message: message.into() }
    }

    /// Whether `kind` is so cannot be known.
    pub fn unknown(kind: C, reason: R, message: impl Into<String>) -> Self {
        Self { kind, truth: Truth::Unknown, reason, message: message.into() }
    }

    /// Whether it is so.
    pub fn is_true(&self) -> bool {
        self.truth == Truth::True
    }

    /// The condition to write, given those that stand now.
    ///
    /// `lastTransitionTime` moves only if `status` does, so that an unchanged tenant makes an unchanged
    /// object and no new watch event.
    pub fn dated(&self, standing: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
        let type_ = format!("{:?}", self.kind);
        let status = format!("{:?}", self.truth);
        let since = standing
            .iter()
            .find(|condition| condition.type_ == type_ && condition.status == status)
            .map_or(Time(seconds(now)), |condition| condition.last_transition_time.clone());
        Condition {
            type_,
            status,
            reason: format!("{:?}", self.reason),
            message: self.message.clone(),
            observed_generation: generation,
            last_transition_time: since,
        }
    }
}

/// The API stores times to the second; anything finer would never compare equal again.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stands() {
        let monday: Timestamp = "2026-03-02T00:00:00Z".parse().unwrap();
        let tuesday: Timestamp = "2026-03-03T00:00:00Z".parse().unwrap();
        let waiting = Saying::no(ConditionType::Ready, Reason::Progressing, "");
        let failed = Saying::no(ConditionType::Ready, Reason::MigrationFailed, "");
        let done = Saying::yes(ConditionType::Ready, Reason::AsAsked, "");

        let first = waiting.dated(&[], Some(1), monday);
        let same = failed.dated(std::slice::from_ref(&first), Some(2), tuesday);
        let changed = done.dated(std::slice::from_ref(&same), Some(2), tuesday);

        assert_eq!(same.last_transition_time.0, monday);
        assert_eq!(changed.last_transition_time.0, tuesday);
    }
}
