//! The terms: how long an archive is kept, in the bucket itself, so that they outlive the tenant.
//!
//! A signed [envelope](super::envelope) whose payload is canonical JSON, at `records/terms.json` of the archive. It is
//! written anew when the policy's retention or the tenant's holds change. Of several the one that was written last
//! counts, by the time that was signed with it: an older one that is laid over it changes nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use valv_crds::{protection::Hold, retention::Retention};

use super::{
    canonical,
    catalogue::Error,
    envelope::{Envelope, OpenError, PublicKey, SigningKey},
    fetch::Archive,
    layout::{ArchiveId, Key, RecordName},
    manifest::FORMAT,
};

/// The kind of document, as it stands in the envelope.
pub const TERMS_TYPE: &str = "application/vnd.valv.terms.v1+json";

/// The largest terms that are read: 64 holds with their reasons.
const TERMS_LIMIT_BYTES: u64 = 256 * 1024;

/// Versions of them that are looked at.
const MOST_VERSIONS: usize = 256;

/// How long an archive is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose.
    pub archive: ArchiveId,
    /// Name of the `BackupPolicy` that they come from.
    pub policy: String,
    /// Its rules.
    pub retention: Retention,
    /// Whose days, weeks, months and years: a name of the IANA database.
    pub time_zone: String,
    /// How long a backup may run: what is younger than twice that and a day is no garbage.
    pub deadline_seconds: u64,
    /// Backups that must not be deleted.
    pub holds: Vec<Hold>,
    /// When they were written, by the operator's clock.
    pub written: Timestamp,
}

/// Terms are not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTerms {
    /// Their envelope.
    #[error("failed to open the terms")]
    Envelope(#[source] OpenError),
    /// They are signed, and no terms.
    #[error("failed to parse the terms")]
    Parse(#[source] serde_json::Error),
    /// They are of another archive, and were laid here; or a later Valv wrote them.
    #[error("the terms are of {archive} in format {format}, and were found where others belong")]
    Misplaced {
        /// Of whose.
        archive: ArchiveId,
        /// In which format.
        format: u32,
    },
}

impl Terms {
    /// Where they lie.
    pub fn key(archive: &ArchiveId) -> Option<Key> {
        let name: RecordName = "terms".parse().ok()?;
        Some(Key::Record { archive: archive.clone(), name })
    }

    /// Whether `other` says the same, whenever it was written.
    pub fn says_as(&self, other: &Self) -> bool {
        Self { written: other.written, ..self.clone() } == *other
    }

    /// Signs them: what is to be put at their [`key`](Self::key).
    pub fn seal(&self, key: &SigningKey) -> Result<Vec<u8>, canonical::Error> {
        key.sign(TERMS_TYPE, &canonical::to_vec(self)?).to_bytes()
    }

    /// Reads what was found at the key of `archive`, if one of `trusted` signed it.
    pub fn open(bytes: &[u8], archive: &ArchiveId, trusted: &[PublicKey]) -> Result<Self, InvalidTerms> {
        let (payload, _) = Envelope::parse(bytes)
            .and_then(|envelope| envelope.open(TERMS_TYPE, trusted))
            .map_err(InvalidTerms::Envelope)?;
        let terms: Self = serde_json::from_slice(&payload).map_err(InvalidTerms::Parse)?;
        if terms.archive != *archive || terms.format != FORMAT {
            return Err(InvalidTerms::Misplaced { archive: terms.archive, format: terms.format });
        }
        Ok(terms)
    }
}

impl Archive {
    /// The terms of `archive` that were written last, of those that one of `trusted` signed.
    ///
    /// # Errors
    /// If the store does not let us look. What is not to be believed counts as none.
    pub async fn terms(&self, archive: &ArchiveId, trusted: &[PublicKey]) -> Result<Option<Terms>, Error> {
        let Some(key) = Terms::key(archive).map(|key| key.to_string()) else { return Ok(None) };
        let mut tries = self.retries.begin();
        let versions = loop {
            let mut versions = Vec::new();
            let listed = self.each_version(&key, |line| {
                if line.key == key && matches!(line.content, crate::io::bucket::Content::Object { .. }) {
                    versions.push(line.version);
                }
                versions.len() < MOST_VERSIONS
            });
            match listed.await {
                Ok(()) => break versions,
                Err(error) => tries
                    .again_after(error)
                    .await
                    .map_err(|source| Error::List { archive: archive.clone(), source })?,
            }
        };
        tries.succeeded();
        let mut newest: Option<Terms> = None;
        for version in versions {
            let found = self.small(&key, version.as_ref(), TERMS_LIMIT_BYTES).await;
            let found = found.map_err(|source| Error::Read { archive: archive.clone(), source })?;
            let terms = found.and_then(|bytes| Terms::open(&bytes, archive, trusted).ok());
            newest = newest.into_iter().chain(terms).max_by_key(|terms| terms.written);
        }
        Ok(newest)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Terms for tests: the schema's defaults, and a floor of a day.
    pub fn terms() -> Terms {
        Terms {
            format: FORMAT,
            archive: "ada".parse().unwrap(),
            policy: "default".into(),
            retention: serde_json::from_value(
                serde_json::json!({ "floor": { "days": 1, "reason": "decided in a test" } }),
            )
            .unwrap(),
            time_zone: "Europe/Stockholm".into(),
            deadline_seconds: 7200,
            holds: vec![],
            written: "2026-11-22T01:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn terms_open_to_what_was_sealed_and_only_where_they_belong() {
        let key = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
        let stranger = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
        let terms = terms();
        let sealed = terms.seal(&key).unwrap();

        assert_eq!(Terms::open(&sealed, &terms.archive, &[key.public()]).unwrap(), terms);
        let elsewhere = Terms::open(&sealed, &"bo".parse().unwrap(), &[key.public()]);
        assert!(matches!(elsewhere, Err(InvalidTerms::Misplaced { .. })), "{elsewhere:?}");
        let forged = Terms::open(&sealed, &terms.archive, &[stranger.public()]);
        assert!(matches!(forged, Err(InvalidTerms::Envelope(_))), "{forged:?}");
    }

    #[test]
    fn when_they_were_written_is_no_difference() {
        let later = Terms { written: "2026-11-23T01:00:00Z".parse().unwrap(), ..terms() };
        let mut other = later.clone();
        other.retention.daily += 1;

        assert!(terms().says_as(&later));
        assert!(!terms().says_as(&other));
    }
}
