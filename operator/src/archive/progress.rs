//! How far a run has come, for log lines and bars.

use serde::{Deserialize, Serialize};

use super::layout::Part;

/// How far a run has come. Counts everything since its beginning, over all parts; only what is safely done
/// counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The part that it is at.
    pub part: Option<Part>,
    /// Segments put, or restored, or verified.
    pub segments: u64,
    /// Bytes of ciphertext put, or read.
    pub bytes: u64,
    /// Bytes of the tar streams.
    pub plain_bytes: u64,
}

impl Progress {
    /// One more segment.
    pub(super) fn add(&mut self, bytes: u64, plain_bytes: u64) {
        self.segments += 1;
        self.bytes += bytes;
        self.plain_bytes += plain_bytes;
    }
}
