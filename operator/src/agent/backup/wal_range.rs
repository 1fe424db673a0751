//! Which WAL a base backup needs, as `pg_basebackup --verbose` tells it.

use std::{fmt, str::FromStr};

/// A position in the WAL: `0/3000028`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(u64);

/// The text is not a position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a position in the WAL")]
pub struct InvalidLsn(String);

impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let number = |digits: &str| {
            let valid = matches!(digits.len(), 1..=8) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            valid.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
        };
        let parsed = text.split_once('/').and_then(|(high, low)| Some((number(high)?, number(low)?)));
        let (high, low) = parsed.ok_or_else(|| InvalidLsn(text.to_owned()))?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// From where to where a base backup replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// On which timeline.
    pub timeline: u32,
    /// Where replay begins.
    pub start: Lsn,
    /// Where the backup is consistent.
    pub stop: Lsn,
}

/// What was read of it so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    start: Option<(Lsn, u32)>,
    stop: Option<Lsn>,
}

impl Found {
    /// Looks for it in one line. The program's name before it, and what may come after it, does not matter.
    pub fn read(&mut self, line: &str) {
        let after = |what: &str| line.split_once(what).map(|(_, rest)| rest.split_whitespace());
        if let Some(mut words) = after("write-ahead log start point: ") {
            let lsn = words.next().and_then(|word| word.parse().ok());
            let timeline =
                words.skip_while(|word| *word != "timeline").nth(1).and_then(|word| word.parse().ok());
            self.start = lsn.zip(timeline).or(self.start);
        } else if let Some(mut words) = after("write-ahead log end point: ") {
            self.stop = words.next().and_then(|word| word.parse().ok()).or(self.stop);
        }
    }

    /// All of it, if it is there and makes sense.
    pub fn whole(self) -> Option<WalRange> {
        let ((start, timeline), stop) = (self.start?, self.stop?);
        (start < stop && timeline > 0).then_some(WalRange { timeline, start, stop })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What PostgreSQL 17.5 prints.
    const PRINTED: &str = "pg_basebackup: initiating base backup, waiting for checkpoint to complete\n\
        pg_basebackup: checkpoint completed\n\
        pg_basebackup: write-ahead log start point: 0/2000028 on timeline 3\n\
        NOTICE:  something else\n\
        pg_basebackup: write-ahead log end point: 0/20001A0\n\
        pg_basebackup: base backup completed\n";

    fn read(text: &str) -> Option<WalRange> {
        let mut found = Found::default();
        text.lines().for_each(|line| found.read(line));
        found.whole()
    }

    #[test]
    fn the_range_is_read_as_pg_basebackup_prints_it() {
        let range = read(PRINTED).unwrap();

        assert_eq!(range.timeline, 3);
        assert_eq!(
            (range.start.to_string(), range.stop.to_string()),
            ("0/2000028".into(), "0/20001A0".into())
        );
    }

    #[test]
    fn half_a_range_is_none() {
        for missing in ["start point", "end point", "timeline 3"] {
            let without: Vec<_> = PRINTED.lines().filter(|line| !line.contains(missing)).collect();

            assert_eq!(read(&without.join("\n")), None, "{missing}");
        }
        assert_eq!(read(&PRINTED.replace("0/20001A0", "0/2000028")), None);
        assert_eq!(read(&PRINTED.replace("0/20001A0", "soon")), None);
    }

    #[test]
    fn a_position_prints_as_it_was_read() {
        for text in ["0/0", "0/3000028", "1A/FFFFFFFF", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        for text in ["", "/", "0/", "0", "0/100000000", "0/-1", "0/+1", "x/1"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
