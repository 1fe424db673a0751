//! What `agent backup` and `agent verify` leave in their termination message.
//!
//! # Shape
//! One JSON object, at most [`LIMIT_BYTES`]:
//! ```json
//! {"manifest": {"key": "…", "version": "…", "size": 1200, "blake3": "…"},
//!  "bytes": 1000, "plainBytes": 9000, "segments": 1, "taken": "2026-11-22T01:05:00Z"}
//! {"verified": {"mode": "Sample", "seed": 7, "segmentsRead": 10, "segments": 90, "at": "2026-11-22T01:09:00Z",
//!  "tampered": 0, "lockedUntil": "2026-12-22T01:00:03Z"}}
//! {"failure": {"reason": "StoreFull", "message": "failed to …"}}
//! ```
//! A claim, never a proof: the operator reads the manifest itself.

use std::{fs, path::Path};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;
use valv_crds::backup::BackupReason;

use super::termination::{LIMIT_BYTES, cut_to_fit};
use crate::{
    archive::{commit::ManifestRef, verify::Mode},
    error::chain,
};

/// What a termination message says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LastWords {
    /// It failed.
    Failed {
        /// How.
        failure: Failure,
    },
    /// `agent verify` found the backup whole.
    Verified {
        /// How it looked.
        verified: Verified,
    },
    /// `agent backup` wrote a manifest.
    Taken(Taken),
}

/// A backup that was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// Its manifest.
    pub manifest: ManifestRef,
    /// Bytes of ciphertext.
    pub bytes: u64,
    /// Bytes of the tar streams.
    pub plain_bytes: u64,
    /// Segments of all parts.
    pub segments: u64,
    /// The moment that it holds, by the agent's clock: when the base backup had ended.
    pub taken: Timestamp,
}

/// A backup that was read back, and is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// How much of it.
    pub mode: Mode,
    /// What a sample was drawn with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// Segments that were read.
    pub segments_read: u64,
    /// Segments that there are.
    pub segments: u64,
    /// When, by the agent's clock.
    pub at: Timestamp,
    /// Objects over which something lies: tampering, and no loss.
    pub tampered: u64,
    /// Until when manifest, pages and segments are locked: the least that was seen. Absent: one of them is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Timestamp>,
}

/// How a command failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The condition's reason.
    pub reason: BackupReason,
    /// The error and all its causes, on one line.
    pub message: String,
}

impl LastWords {
    /// The message, cut where it would be too long.
    fn encode(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        match self {
            Self::Failed { failure } if text.len() > LIMIT_BYTES => {
                cut_to_fit(failure.message.clone(), |message| {
                    let failure = Failure { reason: failure.reason, message: message.to_owned() };
                    serde_json::to_string(&Self::Failed { failure }).unwrap_or_default()
                })
            }
            Self::Failed { .. } | Self::Verified { .. } | Self::Taken(_) => text,
        }
    }

    /// Leaves them at `path`. That they cannot be written is a warning only.
    pub fn write(&self, path: &Path) {
        if let Err(error) = fs::write(path, self.encode()) {
            warn!(path = %path.display(), error = chain(&error), "failed to write the termination message");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::digest::Blake3;

    #[test]
    fn last_words_read_as_documented() {
        let at: Timestamp = "2026-11-22T01:05:00Z".parse().unwrap();
        let key = format!("v1/{}/data/manifest.json", "a".repeat(63));
        let manifest = ManifestRef { key, version: None, size: 1200, blake3: Blake3::of(b"") };
        let taken =
            LastWords::Taken(Taken { manifest, bytes: 1000, plain_bytes: 9000, segments: 1, taken: at });
        let verified = Verified {
            mode: Mode::Sample,
            seed: Some(7),
            segments_read: 10,
            segments: 90,
            at,
            tampered: 0,
            locked_until: Some(at),
        };
        let verified = LastWords::Verified { verified };

        assert_eq!(
            verified.encode(),
            r#"{"verified":{"mode":"Sample","seed":7,"segmentsRead":10,"segments":90,"at":"2026-11-22T01:05:00Z","tampered":0,"lockedUntil":"2026-11-22T01:05:00Z"}}"#,
        );
        for words in [taken, verified] {
            assert!(words.encode().len() < LIMIT_BYTES);
            assert_eq!(serde_json::from_str::<LastWords>(&words.encode()).unwrap(), words);
        }
    }

    #[test]
    fn a_failure_of_any_length_stays_readable_json_within_the_limit() {
        for message in ["short".to_owned(), "å".repeat(9000), "\u{1}".repeat(9000), "\n\"".repeat(2047)] {
            let failure = Failure { reason: BackupReason::DatabaseUnsuitable, message: message.clone() };

            let text = LastWords::Failed { failure }.encode();

            assert!(text.len() <= LIMIT_BYTES, "{} bytes", text.len());
            let Ok(LastWords::Failed { failure }) = serde_json::from_str(&text) else { panic!("{text}") };
            assert_eq!(failure.reason, BackupReason::DatabaseUnsuitable);
            assert!(message.starts_with(&failure.message));
        }
    }
}
