//! `BackupPolicy`: when tenants are backed up, to where, for how long, and how that is proven.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Slot,
    retention::Retention,
    schedule::Schedule,
    text,
    units::{ByteSize, Days, Share, Span},
};

/// When tenants are backed up, to which stores, how long backups are kept, how often a restore is drilled, and what
/// was promised. A tenant that names no policy has the one called `default`.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "valv.eu",
    version = "v1alpha1",
    kind = "BackupPolicy",
    plural = "backuppolicies",
    shortname = "bp",
    category = "valv",
    cel,
    status = "BackupPolicyStatus",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "Can it be followed?"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", description = "The reason for that"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule.cron", description = "When backups are due"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextSlot", description = "The next slot, in UTC"),
    printcolumn(name = "RPO", type_ = "string", json_path = ".spec.objectives.rpo", description = "How much time may be lost, as promised"),
    printcolumn(name = "RTO", type_ = "string", json_path = ".spec.objectives.rto", description = "How long a restore may take, as promised"),
    printcolumn(name = "Tenants", type_ = "integer", json_path = ".status.tenants", description = "How many tenants have it"),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.schedule.timeZone", priority = 1),
    printcolumn(name = "Drill", type_ = "string", json_path = ".spec.drill.schedule.cron", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')").message("a policy's name is a label of RFC 1123, a-z, 0-9 and '-', at most 63: it stands in labels and metrics")
)]
#[serde(rename_all = "camelCase")]
pub struct BackupPolicySpec {
    /// When backups are due.
    pub schedule: Schedule,

    /// How often a backup that failed is tried again before its deadline. A drill is not: its verdict stands.
    #[serde(default = "default_retries")]
    #[schemars(range(min = 0, max = 10))]
    pub retries: i32,

    /// `BackupStore`s, by name. The first is written from the database; the others get a verified copy of the
    /// ciphertext, store to store.
    #[schemars(schema_with = "text::store_names")]
    pub stores: Vec<String>,

    /// Countries in which its backups may lie, two letters of ISO 3166-1 each; absent: any in which a store may, but
    /// the tenants' own. A store that lies elsewhere is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "text::countries")]
    pub countries: Vec<String>,

    /// Says why no store with a proven lock is needed. Absent: at least one of `stores` must have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_lock: Option<WithoutLock>,

    /// What its stores' writers may reach.
    #[serde(default)]
    pub writers: Writers,

    /// How much of each backup is read back before it counts.
    #[serde(default)]
    pub verification: Verification,

    /// How long backups are kept.
    pub retention: Retention,

    /// What was promised to the care providers. A drill that misses it says so, though it passed.
    pub objectives: Objectives,

    /// How often a restore is drilled, and what it is judged by. Absent: never, and the tenants' condition `Drilled`
    /// says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillPlan>,

    /// What is asked of those who hold keys.
    #[serde(default)]
    pub keys: Keys,

    /// How much one backup may take.
    #[serde(default)]
    pub limits: BackupLimits,
}

/// Why no store with a lock is needed: in so many words, since whoever gets hold of the janitor's credentials could
/// then delete every backup.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WithoutLock {
    /// Who decided so, when, and why.
    #[schemars(length(min = 8, max = 500))]
    pub reason: String,
}

/// What the writers of a policy's stores may reach.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Writers {
    /// Whatever they reach: locks, versions and commits tell what is true.
    #[default]
    Any,
    /// One archive only, and nothing that was put is lost under what is put later: each store's condition
    /// `WriterConfined` is to be `True`.
    Confined,
}

/// How much of a backup is read back, by digest and without any key, before it is `Complete`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.mode == 'Sample' || !has(self.segments)", "verification.segments belongs to mode: Sample"),
    validation = ("self.mode != 'Full' || !has(self.fullEvery)", "verification.fullEvery belongs to the modes that do not read everything each time")
)]
pub struct Verification {
    /// How much.
    #[serde(default)]
    pub mode: VerificationMode,

    /// With `mode: Sample`: how many segments, picked anew each time; absent: 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub segments: Option<i32>,

    /// Read all segments of the first backup whose slot is so long after that of the last one that was read whole, in each
    /// store by itself; absent: never besides drills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_every: Option<Days>,
}

/// How much of a backup is read back. Size and version of every segment are looked at in each mode.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum VerificationMode {
    /// Every byte of every segment.
    Full,
    /// Every byte of some segments.
    #[default]
    Sample,
    /// The manifest and the index only.
    Metadata,
}

impl Verification {
    /// Segments that are read, when `segments` is absent.
    pub const SAMPLE: i32 = 8;
}

/// What was promised.
#[derive(Clone, Copy, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("duration(self.rpo) <= duration('8784h') && duration(self.rto) <= duration('8784h')", "an objective is at most 8784h, a year"))]
pub struct Objectives {
    /// Recovery point: how much time before a disaster may be lost.
    pub rpo: Span,
    /// Recovery time: how long it may take until the journal answers again.
    pub rto: Span,
}

/// How often a restore is drilled, and what it is judged by besides what every drill is.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.checks) || self.checks.all(one, self.checks.exists_one(other, other.name == one.name))", "two checks have the same name"))]
pub struct DrillPlan {
    /// When drills are due.
    pub schedule: Schedule,

    /// Which backups are drilled.
    #[serde(default)]
    pub pick: Pick,

    /// Questions to the restored database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub checks: Vec<SqlCheck>,

    /// How far row counts may differ.
    #[serde(default)]
    pub row_counts: RowCounts,
}

/// In which proportion backups are picked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.newest + self.random >= 1", "pick: at least one of newest and random is above zero"))]
pub struct Pick {
    /// So many drills take the newest,
    #[serde(default = "default_newest")]
    #[schemars(range(min = 0, max = 100))]
    pub newest: i32,
    /// then so many take a random retained one.
    #[serde(default = "default_random")]
    #[schemars(range(min = 0, max = 100))]
    pub random: i32,
}

/// A question to the restored database.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SqlCheck {
    /// Its name, in verdicts and records.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// One query with one row of one boolean, which must be true. It runs read-only, as a role that may only read,
    /// with a pinned `search_path`. Name no person in it: it stands in records.
    #[schemars(length(min = 8, max = 4096))]
    pub sql: String,

    /// How long it may take.
    #[serde(default = "default_check_timeout")]
    #[x_kube(validation = ("duration(self) <= duration('1h')", "timeout is at most 1h"))]
    pub timeout: Span,
}

/// How far row counts may differ.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RowCounts {
    /// A restored table may differ by this much from what was counted when the backup began and ended.
    #[serde(default = "default_tolerance")]
    pub tolerance: Share,
    /// A table may have lost this much since the last backup that a drill found good: more is a failed drill.
    #[serde(default = "default_may_fall_by")]
    pub may_fall_by: Share,
}

/// What is asked of those who hold keys.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// Each key is proven to open backups at least this often; later it is overdue.
    #[serde(default = "default_prove_every")]
    pub prove_every: Days,
}

/// How much one backup may take.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupLimits {
    /// Bytes a second that one backup, or one copy of it, may write; absent: its share of what the store allows. It is
    /// never more than that share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<ByteSize>,
}

impl Default for Pick {
    fn default() -> Self {
        Self { newest: default_newest(), random: default_random() }
    }
}

impl Default for RowCounts {
    fn default() -> Self {
        Self { tolerance: default_tolerance(), may_fall_by: default_may_fall_by() }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self { prove_every: default_prove_every() }
    }
}

const fn default_retries() -> i32 {
    2
}

const fn default_newest() -> i32 {
    3
}

const fn default_random() -> i32 {
    1
}

const fn default_check_timeout() -> Span {
    Span::seconds(30)
}

const fn default_tolerance() -> Share {
    Share::percent(0)
}

const fn default_may_fall_by() -> Share {
    Share::percent(1)
}

const fn default_prove_every() -> Days {
    Days::new(180)
}

/// What the operator last saw. Written by the operator only.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupPolicyStatus {
    /// `metadata.generation` that the rest of this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The next slot of the schedule, before tenants are spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_slot: Option<Slot>,

    /// The next slot of the drills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_drill_slot: Option<Slot>,

    /// How many tenants have this policy.
    #[serde(default)]
    pub tenants: i32,

    /// One entry a type.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// `type` of a policy's condition.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum PolicyCondition {
    /// It can be followed (kstatus): both of the below are so.
    Ready,
    /// It cannot be followed until somebody acts (kstatus; present only while it is so).
    Stalled,
    /// The calendars can be read and come round.
    ScheduleValid,
    /// Its stores are there and ready, and one of them has a proven lock, or none is needed.
    StoresUsable,
}

/// `reason` of a policy's condition.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum PolicyReason {
    /// It is as the spec asks.
    AsAsked,
    /// A cron line cannot be read; the message says where.
    CronInvalid,
    /// A calendar never comes round, such as the 30th of February.
    NeverDue,
    /// A time zone is not in the IANA database that this operator has.
    TimeZoneUnknown,
    /// A store that it names is not there.
    StoreMissing,
    /// A store that it names is not ready: its own condition says why.
    StoreNotReady,
    /// None of its stores has a proven lock, and `spec.withoutLock` does not say that none is needed.
    LockMissing,
    /// `spec.writers` asks for writers that are confined, and that of a store is not, or it is not known.
    WriterNotConfined,
    /// A store that it names lies in a country that `spec.countries` does not list, or in the tenants' own region, or in their
    /// own country without being listed.
    StoreRefused,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::{POLICY, changed, refusal};

    fn policy(changes: &[(&str, &str)]) -> BackupPolicy {
        changed(POLICY, changes)
    }

    fn said(changes: &[(&str, &str)]) -> String {
        refusal(policy(changes).validate_cel())
    }

    #[test]
    fn the_policy_of_the_sketch_is_valid_and_reads_as_it_was_meant() {
        let policy = policy(&[]);

        assert_eq!(refusal(policy.validate_cel()), "");
        assert_eq!(policy.spec.schedule.window, Span::hours(3));
        assert_eq!(policy.spec.keys.prove_every.count(), 180);
        let drill = policy.spec.drill.unwrap();
        assert_eq!(drill.row_counts.may_fall_by, Share::percent(1));
        assert_eq!(drill.checks[0].timeout, Span::seconds(30));
    }

    #[test]
    fn the_smallest_policy_has_the_safe_defaults() {
        let smallest = [
            ("/spec/schedule", "{cron: '0 1 * * *', timeZone: Europe/Lisbon}"),
            ("/spec/retention", "{floor: {days: 35, reason: decided 2026-09-01}}"),
            ("/spec/verification", "null"),
            ("/spec/drill", "null"),
            ("/spec/keys", "null"),
        ];
        let policy = policy(&smallest);

        assert_eq!(refusal(policy.validate_cel()), "");
        assert_eq!(policy.spec.verification.mode, VerificationMode::Sample);
        assert_eq!(policy.spec.retention.last, 3);
        assert_eq!(policy.spec.schedule.window, Span::hours(1));
        assert_eq!(policy.spec.retries, 2);
    }

    #[test]
    fn a_cron_line_of_five_fields_is_taken_and_others_are_refused() {
        let right = [
            "0 1 * * *",
            "*/15 0-6/2,22 1,15 JAN-MAR,DEC MON-FRI",
            "59 23 31 12 7",
            "00 01 * * 0",
            "5-55/10 * * * *",
        ];
        let wrong = [
            "@daily",
            "0 1 * *",
            "0 0 1 * * *",
            "60 1 * * *",
            "0 24 * * *",
            "0 1 32 * *",
            "0 1 0 * *",
            "0 1 * 13 *",
            "0 1 * * 8",
            "0 1 L * *",
            "0 1 * * MON#1",
            "0  1 * * *",
            " 0 1 * * *",
            "5/10 1 * * *",
            "*-5 1 * * *",
            "0 1 ? * *",
            "a b c d e",
        ];

        for cron in right {
            assert_eq!(said(&[("/spec/schedule/cron", &format!("'{cron}'"))]), "", "{cron}");
        }
        for cron in wrong {
            let said = said(&[("/spec/schedule/cron", &format!("'{cron}'"))]);
            assert!(said.contains("cron has five fields"), "{cron}: {said}");
        }
    }

    #[test]
    fn an_abbreviation_is_no_time_zone() {
        for zone in [
            "UTC",
            "Europe/Stockholm",
            "America/Argentina/Buenos_Aires",
            "Etc/GMT+1",
            "America/Port-au-Prince",
        ] {
            assert_eq!(said(&[("/spec/schedule/timeZone", zone)]), "", "{zone}");
        }
        for zone in [
            "CET",
            "CEST",
            "+01:00",
            "Europe",
            "Europe/",
            "/Stockholm",
            "Europe/Stockholm/",
            "europe/stockholm",
        ] {
            let said = said(&[("/spec/schedule/timeZone", &format!("'{zone}'"))]);
            assert!(said.contains("IANA"), "{zone}: {said}");
        }
    }

    #[test]
    fn a_window_and_a_deadline_have_bounds() {
        assert!(said(&[("/spec/schedule/window", "25h")]).contains("at most 24h"));
        assert!(said(&[("/spec/schedule/deadline", "59s")]).contains("between 1m and 72h"));
        assert!(said(&[("/spec/schedule/deadline", "73h")]).contains("between 1m and 72h"));
        assert!(said(&[("/spec/drill/schedule/window", "25h")]).contains("at most 24h"));
    }

    #[test]
    fn a_store_named_twice_is_refused() {
        assert!(said(&[("/spec/stores", "[helsinki, helsinki]")]).contains("stands twice"));
    }

    #[test]
    fn verification_says_only_what_its_mode_heeds() {
        assert!(said(&[("/spec/verification", "{mode: Full, segments: 8}")]).contains("mode: Sample"));
        assert!(said(&[("/spec/verification", "{mode: Full, fullEvery: 7d}")]).contains("fullEvery"));
        assert_eq!(said(&[("/spec/verification", "{mode: Metadata, fullEvery: 7d}")]), "");
        assert_eq!(said(&[("/spec/verification", "{mode: Full}")]), "");
    }

    #[test]
    fn a_drill_that_picks_nothing_is_refused() {
        assert!(said(&[("/spec/drill/pick", "{newest: 0, random: 0}")]).contains("above zero"));
    }

    #[test]
    fn two_checks_of_one_name_are_refused() {
        let twice = "[{name: a, sql: SELECT true}, {name: a, sql: SELECT false}]";

        assert!(said(&[("/spec/drill/checks", twice)]).contains("two checks have the same name"));
    }

    #[test]
    fn a_floor_without_a_reason_cannot_be_read() {
        let mut value: serde_json::Value = serde_yaml::from_str(POLICY).unwrap();
        value["spec"]["retention"]["floor"] = serde_json::json!({ "days": 35 });

        assert!(serde_json::from_value::<BackupPolicy>(value).is_err());
    }

    #[test]
    fn an_objective_above_a_year_is_refused() {
        assert!(said(&[("/spec/objectives/rpo", "9000h")]).contains("a year"));
    }
}
