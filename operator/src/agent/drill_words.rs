//! What `agent restore` and `agent judge` leave in their termination message.
//!
//! # Shape
//! One JSON object, at most [`LIMIT_BYTES`]; what is too long is cut at the ends of its sentences:
//! ```json
//! {"restored": {"verdicts": [{"name": "CommitSignature", "outcome": "Passed", "reason": "AsAsked"}],
//!  "phases": [{"phase": "Fetch", "seconds": 61}, {"phase": "Verify", "seconds": 9}], "bytes": 1000,
//!  "manifest": {"key": "…", "version": "…", "blake3": "…"}, "lastBackupEnd": "2026-11-22T01:09:00Z"}}
//! {"judged": {"verdicts": [{"name": "Sql/no-future-notes", "outcome": "Failed", "reason": "SqlFalse",
//!  "message": "…", "seconds": 1}], "phases": [{"phase": "Recover", "seconds": 4}, {"phase": "Check",
//!  "seconds": 30}], "lastCommit": "2026-11-22T01:04:59Z", "lastCommitFrom": "Replay"}}
//! {"failure": {"reason": "StoreUnavailable", "message": "failed to …"}}
//! ```
//! Verdicts stand in the order of [`Check::ALL`](valv_crds::drill::Check::ALL), and each of the command's own is
//! there: a check that was not reached says so. No datum of a journal is in any sentence: tables by their names
//! and rows by their number, attachments by their place in the inventory.

use std::{fs, path::Path};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;
use valv_crds::{
    backup::ObjectDigest,
    drill::{DrillReason, PhaseTime, Verdict},
};

use super::termination::LIMIT_BYTES;
use crate::{error::chain, io::bucket};

/// How many bytes a sentence may have, the longest try first. The schema takes no more than 1024 characters.
const SENTENCES: [usize; 8] = [1000, 600, 400, 250, 150, 80, 30, 0];

/// What a termination message says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DrillWords {
    /// `agent restore` came to verdicts. The backup is restored only if none of them failed.
    Restored(Restored),
    /// `agent judge` came to verdicts.
    Judged(Judged),
    /// It failed in a way that says nothing of the backup.
    Failure(Failure),
}

/// What `agent restore` came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// From `CommitSignature` to `VerifyBackup`.
    pub verdicts: Vec<Verdict>,
    /// `Fetch` and `Verify`, as far as it came.
    pub phases: Vec<PhaseTime>,
    /// Bytes of ciphertext that were read from the store.
    pub bytes: u64,
    /// The manifest that the commit names, if there is one to be believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<ObjectDigest>,
    /// When the agent that took the backup had put the last of it, by its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup_end: Option<Timestamp>,
}

/// What `agent judge` came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// From `DatabaseStarts` to `Sql/…`, one for each question.
    pub verdicts: Vec<Verdict>,
    /// `Recover` and `Check`, as far as it came.
    pub phases: Vec<PhaseTime>,
    /// The newest transaction that was restored, by the clock of the database that committed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit: Option<Timestamp>,
    /// How that is known; absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit_from: Option<LastCommitFrom>,
}

/// How the newest restored transaction is known: the first of these that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LastCommitFrom {
    /// The database keeps the times of its commits.
    CommitTimestamps,
    /// PostgreSQL said it at the end of its replay.
    Replay,
    /// Nothing was committed while the backup was taken: when the sentinel was written, just before.
    Sentinel,
    /// The sentinel is not there either: when the backup was begun.
    Manifest,
}

/// Why there are no verdicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// `CannotRestore`, `KeyMissing`, or one [of the store](reason_of_store).
    pub reason: DrillReason,
    /// The error and all its causes, on one line.
    pub message: String,
}

/// The reason for a request to the store that failed for good.
pub fn reason_of_store(kind: &bucket::Kind) -> DrillReason {
    use bucket::Kind;
    match kind {
        Kind::Denied => DrillReason::CredentialsRefused,
        Kind::Tls => DrillReason::TlsRefused,
        Kind::ClockSkew => DrillReason::ClockSkewed,
        Kind::NotFound
        | Kind::PreconditionFailed
        | Kind::Locked
        | Kind::Full
        | Kind::Unavailable
        | Kind::Timeout
        | Kind::Other { .. } => DrillReason::StoreUnavailable,
    }
}

impl DrillWords {
    /// The message, with sentences cut where it would be too long.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        for sentence_bytes in SENTENCES {
            text = serde_json::to_string(&self.cut(sentence_bytes)).unwrap_or_default();
            if text.len() <= LIMIT_BYTES {
                break;
            }
        }
        text
    }

    /// These words, each sentence with at most so many bytes.
    fn cut(&self, sentence_bytes: usize) -> Self {
        let mut words = self.clone();
        let verdicts = match &mut words {
            Self::Restored(restored) => &mut restored.verdicts,
            Self::Judged(judged) => &mut judged.verdicts,
            Self::Failure(failure) => {
                // It stands alone, and may have more.
                failure.message = cut(&failure.message, sentence_bytes * 4);
                return words;
            }
        };
        for verdict in verdicts {
            let message = verdict.message.take().map(|message| cut(&message, sentence_bytes));
            verdict.message = message.filter(|message| !message.is_empty());
        }
        words
    }

    /// Leaves them at `path`. That they cannot be written is a warning only.
    pub fn write(&self, path: &Path) {
        if let Err(error) = fs::write(path, self.encode()) {
            warn!(path = %path.display(), error = chain(&error), "failed to write the termination message");
        }
    }
}

/// At most so many bytes of `text`; where something is missing, that is shown.
fn cut(text: &str, bytes: usize) -> String {
    const MORE: char = '…';
    if text.len() <= bytes {
        return text.to_owned();
    }
    let Some(room) = bytes.checked_sub(MORE.len_utf8()) else { return String::new() };
    let mut short = text[..text.floor_char_boundary(room)].to_owned();
    short.push(MORE);
    short
}

#[cfg(test)]
mod tests {
    use valv_crds::drill::{Check, Outcome, Phase};

    use super::*;

    fn verdict(name: String, message: &str) -> Verdict {
        Verdict {
            name,
            outcome: Outcome::Failed,
            reason: DrillReason::RowCountsDiffer,
            message: Some(message.to_owned()),
            seconds: Some(100_000),
        }
    }

    #[test]
    fn a_store_that_refuses_or_is_not_itself_or_of_another_time_is_told_apart_from_one_that_is_away() {
        use bucket::Kind;

        assert_eq!(reason_of_store(&Kind::Denied), DrillReason::CredentialsRefused);
        assert_eq!(reason_of_store(&Kind::Tls), DrillReason::TlsRefused);
        assert_eq!(reason_of_store(&Kind::ClockSkew), DrillReason::ClockSkewed);
        for kind in [Kind::Unavailable, Kind::Timeout, Kind::NotFound] {
            assert_eq!(reason_of_store(&kind), DrillReason::StoreUnavailable, "{kind:?}");
        }
    }

    #[test]
    fn words_read_as_documented() {
        let at: Timestamp = "2026-11-22T01:05:00Z".parse().unwrap();
        let passed = Verdict {
            name: Check::Sentinel.verdict_name(),
            outcome: Outcome::Passed,
            reason: DrillReason::AsAsked,
            message: None,
            seconds: None,
        };
        let judged = DrillWords::Judged(Judged {
            verdicts: vec![passed],
            phases: vec![PhaseTime { phase: Phase::Recover, seconds: 4 }],
            last_commit: Some(at),
            last_commit_from: Some(LastCommitFrom::Replay),
        });
        let restored = DrillWords::Restored(Restored { bytes: 7, ..Restored::default() });
        let failure = Failure { reason: DrillReason::KeyMissing, message: "no key".into() };
        let failure = DrillWords::Failure(failure);

        assert_eq!(
            judged.encode(),
            r#"{"judged":{"verdicts":[{"name":"Sentinel","outcome":"Passed","reason":"AsAsked"}],"phases":[{"phase":"Recover","seconds":4}],"lastCommit":"2026-11-22T01:05:00Z","lastCommitFrom":"Replay"}}"#,
        );
        assert_eq!(restored.encode(), r#"{"restored":{"verdicts":[],"phases":[],"bytes":7}}"#);
        assert_eq!(failure.encode(), r#"{"failure":{"reason":"KeyMissing","message":"no key"}}"#);
        for words in [judged, restored, failure] {
            assert_eq!(serde_json::from_str::<DrillWords>(&words.encode()).unwrap(), words);
        }
    }

    #[test]
    fn the_most_verdicts_with_the_longest_sentences_stay_readable_json_within_the_limit() {
        for sentence in ["å".repeat(2000), "\u{1}".repeat(1024), "\"".repeat(900)] {
            let built_in = Check::ALL.iter().map(|check| verdict(check.verdict_name(), &sentence));
            let own = (10..26).map(|number| {
                verdict(Check::sql_verdict_name(&format!("{number}{}", "x".repeat(61))), &sentence)
            });
            let judged = Judged { verdicts: built_in.take(6).chain(own).collect(), ..Judged::default() };

            let text = DrillWords::Judged(judged.clone()).encode();

            assert!(text.len() <= LIMIT_BYTES, "{} bytes", text.len());
            let Ok(DrillWords::Judged(read)) = serde_json::from_str(&text) else { panic!("{text}") };
            let names = |judged: &Judged| {
                judged.verdicts.iter().map(|verdict| verdict.name.clone()).collect::<Vec<_>>()
            };
            assert_eq!(names(&read), names(&judged));
        }
    }

    #[test]
    fn what_was_cut_shows_it() {
        assert_eq!(cut("whole", 5), "whole");
        assert_eq!(cut("too long", 7), "too …");
        assert_eq!(cut("åäö", 5), "å…");
        assert_eq!(cut("gone", 2), "");
        let failure = Failure { reason: DrillReason::CannotRestore, message: "\n".repeat(9000) };
        assert!(DrillWords::Failure(failure).encode().len() <= LIMIT_BYTES);
    }
}
