//! The terms: how long an archive is kept, in the bucket itself, so that they outlive the tenant.
//!
//! A signed [envelope](super::envelope) whose payload is canonical JSON, at `records/terms.json` of the archive. It is
//! written anew when the policy's retention or the tenant's holds change. Of several the one that was written last
//! counts, by the time that was signed with it: an older one that is laid over it changes nothing.

use jiff::{SignedDuration, Timestamp};
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

/// What an operator's clock may be ahead of another's.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);

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

    /// Those of `all` that were written last. What was written in the future was written by a clock that was wrong: it
    /// would be the last for as long, and counts for nothing before its time.
    pub fn newest(all: impl Iterator<Item = Self>, now: Timestamp) -> Option<Self> {
        let latest = now.saturating_add(CLOCKS_DIFFER).unwrap_or(Timestamp::MAX);
        all.filter(|terms| terms.written <= latest).max_by_key(|terms| terms.written)
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
    /// The terms of `archive` that were written last before `now`, of those that one of `trusted` signed.
    ///
    /// # Errors
    /// If the store does not let us look. What is not to be believed counts as none.
    pub async fn terms(
        &self,
        archive: &ArchiveId,
        trusted: &[PublicKey],
        now: Timestamp,
    ) -> Result<Option<Terms>, Error> {
        let Some(key) = Terms::key(archive).map(|key| key.to_string()) else { return Ok(None) };
        let versions = self.recorded(archive, &key, TERMS_LIMIT_BYTES, MOST_VERSIONS).await?;
        let opened = versions.iter().filter_map(|found| Terms::open(&found.bytes, archive, trusted).ok());
        Ok(Terms::newest(opened, now))
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
    fn terms_that_were_written_in_the_future_count_for_nothing() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let at = |written: &str| Terms { written: written.parse().unwrap(), ..terms() };
        let (past, just_ahead) = (at("2026-11-22T01:00:00Z"), at("2026-11-22T12:04:00Z"));
        let future = at("2027-11-22T01:00:00Z");
        let newest = |all: &[&Terms]| Terms::newest(all.iter().map(|terms| (*terms).clone()), now);

        assert_eq!(newest(&[&future, &past]), Some(past.clone()));
        assert_eq!(newest(&[&just_ahead, &past]), Some(just_ahead.clone()));
        assert_eq!(newest(&[&future]), None);
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
