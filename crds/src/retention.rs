//! `retention` of a policy: how long backups are kept.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long backups are kept. A backup that any rule keeps is kept; the newest good one always is.
///
/// Days, weeks (from Monday), months and years are those of the schedule's time zone. Of each, the newest good
/// backup stands for the whole.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// The newest so many.
    #[serde(default = "default_last")]
    #[schemars(range(min = 1, max = 1000))]
    pub last: i32,

    /// One for each of the newest so many days that have one.
    #[serde(default = "default_daily")]
    #[schemars(range(min = 0, max = 3660))]
    pub daily: i32,

    /// One for each of the newest so many weeks that have one.
    #[serde(default = "default_weekly")]
    #[schemars(range(min = 0, max = 520))]
    pub weekly: i32,

    /// One for each of the newest so many months that have one.
    #[serde(default = "default_monthly")]
    #[schemars(range(min = 0, max = 1200))]
    pub monthly: i32,

    /// One for each of the newest so many years that have one.
    #[serde(default = "default_yearly")]
    #[schemars(range(min = 0, max = 100))]
    pub yearly: i32,

    /// Below this age nothing is deleted, whatever the other rules say.
    pub floor: Floor,

    /// A clean-up of more backups of one tenant than this, or of more than half of them, waits until somebody
    /// acknowledges it.
    #[serde(default = "default_acknowledge_above")]
    #[schemars(range(min = 1, max = 10_000))]
    pub acknowledge_above: i32,
}

/// The age below which nothing is deleted, and who says so: auditors ask.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Floor {
    /// So many days of 24 hours after the backup was taken.
    #[schemars(range(min = 1, max = 36_500))]
    pub days: i32,

    /// The law or the decision that it rests on, e.g. `HSLF-FS 2016:40 3 kap. 13 §, decided 2026-09-01`.
    #[schemars(length(min = 8, max = 500))]
    pub reason: String,
}

const fn default_last() -> i32 {
    3
}

const fn default_daily() -> i32 {
    14
}

const fn default_weekly() -> i32 {
    8
}

const fn default_monthly() -> i32 {
    12
}

const fn default_yearly() -> i32 {
    10
}

const fn default_acknowledge_above() -> i32 {
    10
}
