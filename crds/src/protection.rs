//! `spec.backup` of a tenant, and what its status says about backups.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Slot, drill::Choice, schedule::MissedSlots, text};

/// How this tenant is backed up.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(cel)]
pub struct Protection {
    /// Name of the `BackupPolicy`.
    #[serde(default = "default_policy")]
    #[schemars(schema_with = "text::label_name")]
    pub policy: String,

    /// For whom its backups are encrypted. Each alone can open them.
    pub recipients: Recipients,

    /// Backups that retention must not delete, whatever their age.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["slot".into()]))]
    #[schemars(length(max = 64))]
    pub holds: Vec<Hold>,
}

/// For whom backups are encrypted: age X25519 recipients, the public halves. Their identities are held by people,
/// outside every cluster; only that of `drill` may lie in one.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.tenant != self.escrow && (!has(self.drill) || (self.drill != self.tenant && self.drill != self.escrow))", "the recipients are different keys: with one key lost, another must still open the backups"))]
pub struct Recipients {
    /// The care provider's key.
    #[schemars(schema_with = "text::recipient")]
    pub tenant: String,
    /// The key in escrow, for when the care provider's is lost.
    #[schemars(schema_with = "text::recipient")]
    pub escrow: String,
    /// The key of drills that run unattended; absent: drills need a person with one of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::recipient")]
    pub drill: Option<String>,
}

/// A backup that retention must not delete.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Which.
    pub slot: Slot,
    /// Why, and who decided it.
    #[schemars(length(min = 8, max = 500))]
    pub reason: String,
    /// Until when; absent: until the hold is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// What the operator last saw of a tenant's backups.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProtectionStatus {
    /// The newest slot that was taken on. It never goes back, so no slot runs twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_slot: Option<Slot>,

    /// When this tenant's turn in the next slot is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_start: Option<Time>,

    /// The newest slots that were not run: the operator was away, or the tenant rested. Forgotten after 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<MissedSlots>,

    /// The newest complete backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<LastBackup>,

    /// The newest drill that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_drill: Option<LastDrill>,

    /// The newest of `failedDrills`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_drill: Option<LastDrill>,

    /// Drills that failed, of each store that of the newest backup, until a later one from the same store passes with the
    /// same or a newer backup; and of each store the newest that failed before it had a backup, until a later one passes with
    /// the newest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub failed_drills: Vec<LastDrill>,

    /// The newest drill that came to a verdict on a backup: one that lacked its store, its key or its time has none. One
    /// of a backup that was named is not the one that was due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged_drill: Option<LastDrill>,

    /// Drills that found that what lies in a store was changed, the newest last. They stay when their objects go, until
    /// somebody who has looked says so by the annotation `valv.eu/acknowledge-tampering`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tampering: Vec<TamperingFound>,

    /// Slot of the newest backup that a drill found good, its row counts among it: those of later backups are
    /// compared with these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good_slot: Option<Slot>,

    /// The newest slot of drills that was taken on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_drill_slot: Option<Slot>,

    /// What is kept of this tenant's backups, by store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["store".into()]))]
    #[schemars(length(max = 8))]
    pub kept: Vec<KeptIn>,

    /// The keys, and when each was last proven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["role".into()]))]
    #[schemars(length(max = 3))]
    pub keys: Vec<KeyStatus>,

    /// The newest backup of which every segment was read back before it counted, by store: `verification.fullEvery` of
    /// the policy counts from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["store".into()]))]
    #[schemars(length(max = 8))]
    pub read_whole: Vec<ReadWhole>,
}

/// The newest backup that was read back whole in one store.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadWhole {
    /// Name of the `BackupStore`.
    pub store: String,
    /// Its slot.
    pub slot: Slot,
}

/// What is kept in one store, as the janitor last saw it.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptIn {
    /// Name of the `BackupStore`.
    pub store: String,
    /// Backups that are committed there.
    #[serde(default)]
    pub backups: i32,
    /// The oldest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Slot>,
    /// The newest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Slot>,
    /// Backups that retention would delete, and that a lock keeps.
    #[serde(default)]
    pub locked: i32,
    /// When the first of those locks ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Time>,
    /// Digest of a clean-up that waits for the annotation `valv.eu/acknowledge-deletion` with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits_acknowledgement: Option<String>,
    /// Backups that should be there and are not: the first few. Nothing is deleted there until somebody has looked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub missing: Vec<Slot>,
    /// Backups there that a further store of the policy should have, and has not, hours after they were committed. Of
    /// the policy's first store only.
    #[serde(default)]
    pub uncopied: i32,
    /// Backups that retention would delete, and that stay because the newest drill failed, or because nobody knows what a
    /// running one restores.
    #[serde(default)]
    pub held_back: i32,
    /// Why they stay, and until when; absent: none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub held_back_for: Option<String>,
    /// When all of it was last looked after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked: Option<Time>,
    /// Why it could not be looked after since; absent: it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub failure: Option<String>,
    /// What a person should look at there, and what is left undone for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub finding: Option<String>,
}

/// The newest complete backup.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastBackup {
    /// Its slot.
    pub slot: Slot,
    /// The moment that it holds.
    pub taken: Time,
    /// When it was committed.
    pub committed: Time,
    /// Bytes in the store.
    pub bytes: i64,
    /// Names of the `BackupStore`s that have it.
    #[schemars(length(max = 8))]
    pub stores: Vec<String>,
}

/// The newest drill that ended.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastDrill {
    /// Name of the `RestoreDrill`.
    pub name: String,
    /// What it was asked to restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
    /// Slot of the backup that it restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Slot>,
    /// Name of the `BackupStore` that it restored from, or looked in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// When it ended.
    pub ended: Time,
    /// `status` of its condition `Passed`.
    pub passed: String,
    /// `reason` of its condition `Passed`.
    pub reason: String,
    /// Recovery time that it measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<i64>,
    /// Recovery point that it measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo_seconds: Option<i64>,
}

/// A drill that found that what lies in a store was changed.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TamperingFound {
    /// Name of the `RestoreDrill`.
    pub drill: String,
    /// Name of the `BackupStore` that it restored from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Slot of the backup that it restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Slot>,
    /// `reason` of its first verdict that says so.
    pub reason: String,
    /// When its verdict stood; while it is under way, when it began.
    pub found: Time,
}

/// A key, and when it was last proven.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyStatus {
    /// Whose it is.
    pub role: KeyRole,
    /// The first 16 hex digits of the SHA-256 of its recipient.
    #[schemars(length(min = 16, max = 16), regex(pattern = r"^[0-9a-f]{16}$"))]
    pub fingerprint: String,
    /// When its holder last opened a backup with it; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<Time>,
}

/// Whose a key is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum KeyRole {
    /// The care provider's.
    Tenant,
    /// In escrow.
    Escrow,
    /// Of unattended drills.
    Drill,
}

fn default_policy() -> String {
    "default".to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::example::refusal;

    /// A recipient of the right shape, another for each letter.
    fn key(letter: &str) -> String {
        format!("age1{}", letter.repeat(58))
    }

    fn said(recipients: Value) -> String {
        refusal(Protection::validate_cel(&json!({ "policy": "default", "recipients": recipients }), None))
    }

    #[test]
    fn two_or_three_different_recipients_are_taken() {
        assert_eq!(said(json!({ "tenant": key("q"), "escrow": key("p") })), "");
        assert_eq!(said(json!({ "tenant": key("q"), "escrow": key("p"), "drill": key("z") })), "");
    }

    #[test]
    fn fewer_than_two_recipients_are_refused() {
        let alone = json!({ "policy": "default", "recipients": { "tenant": key("q") } });

        assert!(said(json!({ "tenant": key("q"), "escrow": key("q") })).contains("different keys"));
        assert!(
            said(json!({ "tenant": key("q"), "escrow": key("p"), "drill": key("p") }))
                .contains("different keys")
        );
        assert!(serde_json::from_value::<Protection>(alone).is_err());
    }

    #[test]
    fn what_is_no_recipient_is_refused() {
        let secret = "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ";
        let wrong = [secret, "age1", "ssh-ed25519 AAAA", &key("b"), &key("q")[1..], &key("Q")];

        for recipient in wrong {
            assert_ne!(said(json!({ "tenant": recipient, "escrow": key("p") })), "", "{recipient}");
        }
        assert!(said(json!({ "tenant": secret, "escrow": key("p") })).contains("the secret half"));
    }

    #[test]
    fn the_smallest_protection_has_the_default_policy_and_no_holds() {
        let smallest = json!({ "recipients": { "tenant": key("q"), "escrow": key("p") } });
        let protection: Protection = serde_json::from_value(smallest).unwrap();

        assert_eq!(protection.policy, "default");
        assert!(protection.holds.is_empty());
    }
}
