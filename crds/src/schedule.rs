//! `schedule` of a policy: when something is due, for every tenant that has the policy.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Slot, text, units::Span};

/// When something is due.
///
/// The calendar says the slots, in local time. A slot in an hour that daylight saving time skips is due when the
/// clocks have moved on; a slot in an hour that it repeats is due the first time only: each exactly once.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Five fields of cron: minute, hour, day of month, month, day of week (0 or 7 is Sunday). Where both days are
    /// limited, either suffices.
    #[schemars(schema_with = "text::cron")]
    pub cron: String,

    /// In which time zone: a name of the IANA database, e.g. `Europe/Stockholm`.
    #[schemars(schema_with = "text::time_zone")]
    pub time_zone: String,

    /// Tenants start spread over this time after the slot, each always at the same place in it.
    #[serde(default = "default_window")]
    #[x_kube(validation = ("duration(self) <= duration('24h')", "window is at most 24h"))]
    pub window: Span,

    /// How long one run may take, from its beginning and with its retries, before it has failed.
    #[serde(default = "default_deadline")]
    #[x_kube(validation = ("duration(self) >= duration('1m') && duration(self) <= duration('72h')", "deadline is between 1m and 72h"))]
    pub deadline: Span,
}

/// Slots that nobody ran: the operator was away, and a newer one was due when it came back.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MissedSlots {
    /// The newest of them, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub slots: Vec<Slot>,

    /// The oldest, if there are more than are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Slot>,
}

const fn default_window() -> Span {
    Span::hours(1)
}

const fn default_deadline() -> Span {
    Span::hours(2)
}
