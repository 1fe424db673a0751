//! Amounts as people write them, `3h`, `180d`, `1%`, `200Mi`: checked by the schema, and typed once read.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::as_text::as_text;

/// A text is not an amount of the kind wanted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("failed to read {text:?} as {expected}")]
pub struct AmountError {
    text: String,
    expected: &'static str,
}

/// `text` as digits followed by one of `units`; leading zeroes and signs are refused, so that one amount with one
/// unit has one spelling.
fn amount(text: &str, units: &[(&str, u64)], expected: &'static str) -> Result<u64, AmountError> {
    let error = || AmountError { text: text.to_owned(), expected };
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
    if number.starts_with('0') {
        return Err(error());
    }
    let number: u64 = number.parse().map_err(|_| error())?;
    number.checked_mul(*factor).ok_or_else(error)
}

/// `value` in the largest of `units` (given largest first) that leaves no rest.
fn written(value: u64, units: &[(&str, u64)]) -> String {
    let fitting = units.iter().find(|(_, factor)| value.is_multiple_of(*factor));
    fitting.map_or_else(|| value.to_string(), |(name, factor)| format!("{}{name}", value / factor))
}

/// A span of time above zero: a whole number of hours, minutes or seconds, e.g. `90m`. Not of days, since a day of
/// the calendar may have 23 hours.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct Span {
    seconds: u64,
}

impl Span {
    const UNITS: [(&str, u64); 3] = [("h", 3600), ("m", 60), ("s", 1)];

    /// So many hours; zero becomes one.
    pub const fn hours(hours: u32) -> Self {
        Self::seconds(hours as u64 * 3600)
    }

    /// So many minutes; zero becomes one second.
    pub const fn minutes(minutes: u32) -> Self {
        Self::seconds(minutes as u64 * 60)
    }

    /// So many seconds; zero becomes one.
    pub const fn seconds(seconds: u64) -> Self {
        Self { seconds: if seconds == 0 { 1 } else { seconds } }
    }

    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// A number of days, e.g. `180d`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct Days(u32);

impl Days {
    /// So many days; zero becomes one.
    pub const fn new(days: u32) -> Self {
        Self(if days == 0 { 1 } else { days })
    }

    /// How many.
    pub const fn count(self) -> u32 {
        self.0
    }
}

/// A number of bytes above zero with a binary unit, e.g. `200Mi`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct ByteSize(u64);

impl ByteSize {
    const UNITS: [(&str, u64); 3] = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];

    /// So many mebibytes; zero becomes one.
    pub const fn mebibytes(mebibytes: u32) -> Self {
        Self((if mebibytes == 0 { 1 } else { mebibytes as u64 }) << 20)
    }

    /// How many bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// A share of a whole, from `0%` to `100%`, in hundredths of a percent.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct Share {
    hundredths_of_percent: u32,
}

impl Share {
    /// So many percent, at most 100.
    pub const fn percent(percent: u32) -> Self {
        Self { hundredths_of_percent: if percent > 100 { 10_000 } else { percent * 100 } }
    }

    /// This share of `whole`, rounded down.
    pub const fn of(self, whole: u64) -> u64 {
        (whole as u128 * self.hundredths_of_percent as u128 / 10_000) as u64
    }
}

impl FromStr for Span {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let seconds = amount(text, &Self::UNITS, "a span such as 90m: a whole number with h, m or s")?;
        Ok(Self { seconds })
    }
}

impl FromStr for Days {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let expected = "days such as 180d";
        let days = amount(text, &[("d", 1)], expected)?;
        u32::try_from(days).map(Self).map_err(|_| AmountError { text: text.to_owned(), expected })
    }
}

impl FromStr for ByteSize {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        amount(text, &Self::UNITS, "bytes such as 200Mi: a whole number with Ki, Mi or Gi").map(Self)
    }
}

impl FromStr for Share {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let error = || AmountError { text: text.to_owned(), expected: "a share such as 1% or 0.25%" };
        let number = text.strip_suffix('%').ok_or_else(error)?;
        let (percent, hundredths) = number.split_once('.').unwrap_or((number, "00"));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !(digits(percent) && digits(hundredths) && (1..=2).contains(&hundredths.len()))
            || percent.len() > 3
        {
            return Err(error());
        }
        let percent: u32 = percent.parse().map_err(|_| error())?;
        let tenths_too_few = if hundredths.len() == 1 { 10 } else { 1 };
        let hundredths: u32 = hundredths.parse().map_err(|_| error())?;
        let hundredths_of_percent = percent * 100 + hundredths * tenths_too_few;
        if hundredths_of_percent > 10_000 {
            return Err(error());
        }
        Ok(Self { hundredths_of_percent })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&written(self.seconds, &Self::UNITS))
    }
}

impl fmt::Display for Days {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}d", self.0)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&written(self.0, &Self::UNITS))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (percent, hundredths) = (self.hundredths_of_percent / 100, self.hundredths_of_percent % 100);
        match hundredths {
            0 => write!(out, "{percent}%"),
            _ => write!(out, "{percent}.{hundredths:02}%"),
        }
    }
}

as_text!(Span, { "type": "string", "minLength": 2, "maxLength": 7, "pattern": "^[1-9][0-9]{0,5}(s|m|h)$" });
as_text!(Days, { "type": "string", "minLength": 2, "maxLength": 6, "pattern": "^[1-9][0-9]{0,4}d$" });
as_text!(ByteSize, { "type": "string", "minLength": 2, "maxLength": 8, "pattern": "^[1-9][0-9]{0,5}(Ki|Mi|Gi)$" });
as_text!(Share, { "type": "string", "minLength": 2, "maxLength": 6, "pattern": "^(100|[1-9]?[0-9]([.][0-9]{1,2})?)%$" });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_in_the_largest_unit_that_fits() {
        let spans = [("3h", "3h"), ("90m", "90m"), ("60m", "1h"), ("45s", "45s"), ("7200s", "2h")];
        let sizes = [("200Mi", "200Mi"), ("1024Mi", "1Gi"), ("3Ki", "3Ki")];
        let shares = [("1%", "1%"), ("0.25%", "0.25%"), ("0.5%", "0.50%"), ("100%", "100%"), ("0%", "0%")];

        for (text, again) in spans {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), again);
        }
        for (text, again) in sizes {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), again);
        }
        for (text, again) in shares {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), again);
        }
        assert_eq!("180d".parse::<Days>().unwrap().to_string(), "180d");
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "0s", "0h", "3", "h", "3d", "-3h", "+3h", "3 h", "1h30m", "03h", "1.5h", "3H"] {
            assert!(text.parse::<Span>().is_err(), "{text:?} is no span");
        }
        for text in ["", "0d", "180", "180h", "99999999999d"] {
            assert!(text.parse::<Days>().is_err(), "{text:?} is no number of days");
        }
        for text in ["200", "200M", "0Mi", "99999999999999999999Gi", "18446744073709551615Gi"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?} is no size");
        }
        for text in ["1", "%", "101%", "100.01%", "1.%", ".5%", "0.125%", "-1%", "1.-5%"] {
            assert!(text.parse::<Share>().is_err(), "{text:?} is no share");
        }
    }

    #[test]
    fn a_share_of_a_whole_is_rounded_down() {
        assert_eq!(Share::percent(1).of(199), 1);
        assert_eq!("0.25%".parse::<Share>().unwrap().of(400), 1);
        assert_eq!(Share::percent(100).of(u64::MAX), u64::MAX);
    }
}
