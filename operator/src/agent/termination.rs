//! The pod's last words: one JSON object for the operator, which Kubernetes puts into the pod's status.
//!
//! The operator reads it as a claim, never as a proof. Writes the one file that Kubernetes provides.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::Error;
use crate::error::chain;

/// Kubernetes keeps no more of one container's message.
/// Source: <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>
pub const LIMIT_BYTES: usize = 4096;

/// What a command found or made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// PostgreSQL's own number of this database: made by `initdb`, kept for ever, in backups too. As text,
    /// since it does not fit into a JSON number that everybody reads exactly.
    pub system_identifier: String,

    /// PostgreSQL's version, e.g. `17.5`.
    pub version: String,

    /// What was done.
    pub outcome: Outcome,

    /// [`super::roles::digest`] of the roles file that is in force.
    #[serde(default)]
    pub roles_digest: String,
}

/// What a command did to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// There was none; now there is an empty one with its roles.
    Created,
    /// It was there and its roles were already applied; nothing was changed.
    Existing,
    /// It was there; its roles were brought to what the roles file says.
    RolesApplied,
}

/// What a termination message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Message {
    /// The command did its work.
    Done(Report),
    /// The command failed.
    Failed {
        /// The error and all its causes, on one line.
        error: String,
    },
}

/// Leaves `outcome` at `path`.
///
/// That it cannot be written is a warning only: what was done is done, and the exit code tells which it was.
pub fn write(path: &Path, outcome: &Result<Report, Error>) {
    let text = match outcome {
        Ok(report) => encode(&Message::Done(report.clone())),
        Err(error) => failed(chain(error)),
    };
    if let Err(error) = fs::write(path, text) {
        warn!(path = %path.display(), error = chain(&error), "failed to write the termination message");
    }
}

/// The message for `error`, cut at its end where it would be too long.
fn failed(error: String) -> String {
    cut_to_fit(error, |error| encode(&Message::Failed { error: error.to_owned() }))
}

/// What `encode` makes of `text`, or of as much of its beginning as Kubernetes keeps.
pub(super) fn cut_to_fit(mut text: String, encode: impl Fn(&str) -> String) -> String {
    loop {
        let encoded = encode(&text);
        let excess = encoded.len().saturating_sub(LIMIT_BYTES);
        if excess == 0 || text.is_empty() {
            return encoded;
        }
        // One byte of text is up to six of JSON, so this may take a few rounds; each removes at least one.
        let keep = text.floor_char_boundary(text.len().saturating_sub(excess.div_ceil(6)));
        text.truncate(keep);
    }
}

fn encode(message: &Message) -> String {
    serde_json::to_string(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_documented() {
        let report = Report {
            system_identifier: "7571234567890123456".into(),
            version: "17.5".into(),
            outcome: Outcome::RolesApplied,
            roles_digest: "ab12".into(),
        };

        assert_eq!(
            encode(&Message::Done(report)),
            r#"{"systemIdentifier":"7571234567890123456","version":"17.5","outcome":"RolesApplied","rolesDigest":"ab12"}"#,
        );
    }

    #[test]
    fn an_error_of_any_length_stays_readable_json_within_the_limit() {
        for error in ["short".to_owned(), "å".repeat(9000), "\u{1}".repeat(9000), "\n\"".repeat(2047)] {
            let text = failed(error.clone());

            let Message::Failed { error: kept } = serde_json::from_str(&text).unwrap() else {
                panic!("not an error: {text}");
            };
            assert!(text.len() <= LIMIT_BYTES, "{} bytes", text.len());
            assert!(error.starts_with(&kept) && kept.len() >= error.len().min(600));
        }
    }
}
