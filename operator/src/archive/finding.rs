//! What can be wrong with an object in a bucket.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::Blake3;
use crate::io::bucket::Version;

/// Something is wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its key below the store's prefix.
    pub key: String,
    /// What is wrong.
    pub flaw: Flaw,
}

impl Finding {
    pub(super) fn of(key: &str, flaw: Flaw) -> Self {
        Self { key: key.to_owned(), flaw }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.key, self.flaw)
    }
}

impl std::error::Error for Finding {}

/// What is wrong with an object.
///
/// The last two are not losses: what was committed is still there, and is read through. They are tampering
/// all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Flaw {
    /// The version that was committed is not there.
    Missing,
    /// It has another size.
    Size {
        /// Bytes that were committed.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// It has the size, and not the content.
    Altered {
        /// The digest that was committed.
        expected: Blake3,
        /// The digest that there is.
        found: Blake3,
    },
    /// It has the content of another segment of the same backup.
    Swapped {
        /// Of which.
        with: String,
    },
    /// The store gave another version than it was asked for.
    OtherVersion {
        /// Which.
        found: Option<Version>,
    },
    /// It is what was committed, and not what this Valv can read.
    Malformed {
        /// Why not.
        why: String,
    },
    /// A delete marker lies over it.
    Hidden,
    /// A younger version lies over it.
    Covered {
        /// Which.
        by: Option<Version>,
    },
}

impl fmt::Display for Flaw {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => formatter.write_str("the committed version is not there"),
            Self::Size { expected, found } => {
                write!(formatter, "it has {found} bytes, and {expected} were committed")
            }
            Self::Altered { expected, found } => {
                write!(formatter, "its BLAKE3 is {found}, and {expected} was committed")
            }
            Self::Swapped { with } => write!(formatter, "it has the content of {with}"),
            Self::OtherVersion { found: Some(found) } => {
                write!(formatter, "the store answered with the version {found}")
            }
            Self::OtherVersion { found: None } => {
                formatter.write_str("the store answered with an object without a version")
            }
            Self::Malformed { why } => write!(formatter, "it cannot be read: {why}"),
            Self::Hidden => formatter.write_str("a delete marker lies over it"),
            Self::Covered { by: Some(by) } => write!(formatter, "a younger version lies over it: {by}"),
            Self::Covered { by: None } => formatter.write_str("a younger version lies over it"),
        }
    }
}

/// Findings that are kept of one kind. The rest is counted: a bucket that lost a million segments must not
/// fill the memory of whoever looks.
pub const KEPT_FINDINGS: usize = 32;

/// The first few findings, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// The first [`KEPT_FINDINGS`].
    pub first: Vec<Finding>,
    /// How many in all.
    pub total: u64,
}

impl Findings {
    /// Adds one.
    pub fn push(&mut self, finding: Finding) {
        self.total += 1;
        if self.first.len() < KEPT_FINDINGS {
            self.first.push(finding);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

impl fmt::Display for Findings {
    /// The first, and how many more.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.first.first() else { return formatter.write_str("nothing") };
        match self.total - 1 {
            0 => first.fmt(formatter),
            more => write!(formatter, "{first}, and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_findings_are_counted_and_a_few_are_kept() {
        let mut findings = Findings::default();
        for number in 0..1_000_000 {
            findings.push(Finding::of(&format!("database/{number:08}.age"), Flaw::Missing));
        }

        assert_eq!(findings.first.len(), KEPT_FINDINGS);
        assert_eq!(
            findings.to_string(),
            "database/00000000.age: the committed version is not there, and 999999 more"
        );
    }

    #[test]
    fn a_finding_is_read_as_it_was_written() {
        let finding = Finding::of("a", Flaw::Covered { by: Some(Version::new("01KAN")) });

        let text = serde_json::to_string(&finding).unwrap();

        assert_eq!(text, r#"{"key":"a","flaw":{"kind":"Covered","by":"01KAN"}}"#);
        assert_eq!(serde_json::from_str::<Finding>(&text).unwrap(), finding);
    }
}
