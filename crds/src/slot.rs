//! A slot: the moment of a schedule for which something is done, and the names that are made from it.
//!
//! Names come from the slot, never from the moment of looking: a crashed or a second operator asks for the same
//! object.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, civil::DateTime, tz::Offset};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use crate::{as_text::as_text, reference::DRILL_NAMESPACE_PREFIX, text::SLOT_PATTERN};

/// A slot, to the second, in UTC: `20261122T010000Z`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct Slot(Timestamp);

/// A text is no slot, or a name was not made from a tenant and a slot.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SlotError {
    /// Not `YYYYMMDDTHHMMSSZ`.
    #[error("failed to read {0:?} as a slot such as 20261122T010000Z")]
    NotASlot(String),
    /// Not a tenant's name, `-` and a slot in lower case.
    #[error("failed to read {0:?} as the name of a tenant and a slot, such as ada-20261122t010000z")]
    NotAName(String),
}

impl Slot {
    /// The slot at `time`, which loses what is finer than a second.
    ///
    /// # Errors
    /// [`SlotError::NotASlot`] if the year has not four digits.
    pub fn at(time: Timestamp) -> Result<Self, SlotError> {
        let error = || SlotError::NotASlot(time.to_string());
        let second = Timestamp::from_second(time.as_nanosecond().div_euclid(1_000_000_000) as i64)
            .map_err(|_| error())?;
        let year = Offset::UTC.to_datetime(second).year();
        if (0..=9999).contains(&year) { Ok(Self(second)) } else { Err(error()) }
    }

    /// The moment it stands for.
    pub const fn time(self) -> Timestamp {
        self.0
    }

    /// The moment it stands for, as a status has it.
    pub const fn as_time(self) -> Time {
        Time(self.0)
    }

    /// In lower case, `20261122t010000z`, as names of objects have it.
    pub fn lower_case(self) -> String {
        self.to_string().to_ascii_lowercase()
    }

    /// From lower case.
    fn from_lower_case(text: &str) -> Option<Self> {
        let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        is_lower.then(|| text.to_ascii_uppercase().parse().ok()).flatten()
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Offset::UTC.to_datetime(self.0);
        let (date, clock) = (time.date(), time.time());
        write!(out, "{:04}{:02}{:02}T", date.year(), date.month(), date.day())?;
        write!(out, "{:02}{:02}{:02}Z", clock.hour(), clock.minute(), clock.second())
    }
}

impl FromStr for Slot {
    type Err = SlotError;

    fn from_str(text: &str) -> Result<Self, SlotError> {
        let error = || SlotError::NotASlot(text.to_owned());
        let bytes = text.as_bytes();
        let digits = |from: usize, to: usize| {
            let part = bytes.get(from..to)?;
            part.iter()
                .try_fold(0_i16, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i16::from(byte - b'0')))
        };
        let small = |from: usize| i8::try_from(digits(from, from + 2)?).ok();
        if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
            return Err(error());
        }
        let time = || {
            let (year, month, day) = (digits(0, 4)?, small(4)?, small(6)?);
            let (hour, minute, second) = (small(9)?, small(11)?, small(13)?);
            let time = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
            Offset::UTC.to_timestamp(time).ok()
        };
        time().map(Self).ok_or_else(error)
    }
}

as_text!(Slot, { "type": "string", "maxLength": 16, "pattern": SLOT_PATTERN });

/// Name of the `Backup` or the `RestoreDrill` of `tenant` for `slot`: `<tenant>-20261122t010000z`.
///
/// # Shape
/// At most 57 characters, since a tenant's name has at most 40.
pub fn name(tenant: &str, slot: Slot) -> String {
    format!("{tenant}-{}", slot.lower_case())
}

/// The tenant and the slot that `name` was made from.
///
/// # Errors
/// [`SlotError::NotAName`] for every text that [`name`] does not make from a tenant's name.
pub fn parse_name(name: &str) -> Result<(&str, Slot), SlotError> {
    let parts = || {
        let (tenant, slot) = name.rsplit_once('-')?;
        let is_tenant = (1..=40).contains(&tenant.len())
            && !tenant.starts_with('-')
            && !tenant.ends_with('-')
            && tenant.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        is_tenant.then_some((tenant, Slot::from_lower_case(slot)?))
    };
    parts().ok_or_else(|| SlotError::NotAName(name.to_owned()))
}

/// What of a drill's UID stands in names: two drills can be of one slot, and never of one UID.
///
/// # Shape
/// The first 16 letters and digits of `uid`, in lower case.
pub fn short_uid(uid: &str) -> String {
    uid.chars()
        .filter(char::is_ascii_alphanumeric)
        .take(16)
        .map(|letter| letter.to_ascii_lowercase())
        .collect()
}

/// Namespace into which the drill of `tenant` with this UID restores: `drill-<tenant>-0b0e7c1a6f0e4a67`.
///
/// # Shape
/// At most 63 characters, which is what a namespace may have.
pub fn drill_namespace(tenant: &str, uid: &str) -> String {
    format!("{DRILL_NAMESPACE_PREFIX}{tenant}-{}", short_uid(uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_reads_back_as_it_was_written() {
        let first: Timestamp = "0000-01-01T00:00:00Z".parse().unwrap();
        let last: Timestamp = "9999-12-30T22:00:00Z".parse().unwrap();
        // A prime step, so that every field takes every value.
        let seconds = (first.as_second()..=last.as_second()).step_by(86_400 * 11 + 7_919);

        for second in seconds {
            let slot = Slot::at(Timestamp::from_second(second).unwrap()).unwrap();

            assert_eq!(slot.to_string().parse(), Ok(slot));
            assert_eq!(parse_name(&name("ada-2", slot)), Ok(("ada-2", slot)));
        }
    }

    #[test]
    fn a_slot_loses_what_is_finer_than_a_second() {
        let slot = Slot::at("2026-11-22T01:00:00.999Z".parse().unwrap()).unwrap();
        let before_the_epoch = Slot::at("1969-12-31T23:59:58.5Z".parse().unwrap()).unwrap();

        assert_eq!(slot.to_string(), "20261122T010000Z");
        assert_eq!(before_the_epoch.to_string(), "19691231T235958Z");
    }

    #[test]
    fn what_is_no_slot_is_refused() {
        let wrong = [
            "",
            "20261122",
            "20261122t010000z",
            "20261122T010000",
            "20261122T0100000Z",
            "20261322T010000Z",
            "20260230T010000Z",
            "20261122T240000Z",
            "20261122T016000Z",
            "20261122T010060Z",
            "2026-1122T01000Z",
            "+0261122T010000Z",
            "20261122T01000éZ",
        ];

        for text in wrong {
            assert!(text.parse::<Slot>().is_err(), "{text:?} is no slot");
        }
    }

    #[test]
    fn what_is_no_name_of_tenant_and_slot_is_refused() {
        let too_long = format!("{}-20261122t010000z", "a".repeat(41));
        let wrong = [
            "",
            "ada",
            "ada-",
            "-20261122t010000z",
            "ada--20261122t010000z",
            "-ada-20261122t010000z",
            "Ada-20261122t010000z",
            "a.b-20261122t010000z",
            "ada-20261122T010000Z",
            "ada-20261122T010000z",
            "ada-20261122t010000z-x",
            "ada/20261122t010000z",
            "../ada-20261122t010000z",
            &too_long,
        ];

        for text in wrong {
            assert!(parse_name(text).is_err(), "{text:?} is no name");
        }
    }

    #[test]
    fn the_longest_names_fit_kubernetes() {
        let slot = "20261122T010000Z".parse().unwrap();
        let tenant = "a".repeat(40);

        assert_eq!(name(&tenant, slot).len(), 57);
        assert_eq!(drill_namespace(&tenant, "0b0e7c1a-6f0e-4a67-9d0e-3a5d4c1b2a39").len(), 63);
    }

    #[test]
    fn two_drills_of_one_tenant_have_two_namespaces() {
        let one = drill_namespace("ada", "0b0e7c1a-6f0e-4a67-9d0e-3a5d4c1b2a39");
        let other = drill_namespace("ada", "0b0e7c1a-6f0e-4a68-9d0e-3a5d4c1b2a39");

        assert_eq!(one, "drill-ada-0b0e7c1a6f0e4a67");
        assert_ne!(one, other);
    }
}
