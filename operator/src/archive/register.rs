//! The register: which backups an archive has in one store, by the operator's own word.
//!
//! A commit is two kilobytes. Whoever can take one away, or bring a store back to what it was last month, makes the data
//! of that backup look like what a failed attempt left. So the operator writes down, in the archive itself and signed,
//! which slots it saw committed there. What is in the register and not in the [catalogue](super::catalogue) is missing;
//! and what retention deletes is written down before its commit goes, so that it is not missed.
//!
//! A signed [envelope](super::envelope) whose payload is canonical JSON, at `records/register.json`. Of several the one
//! with the highest number counts: an older one that is laid over it changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use valv_crds::Slot;

use super::{
    canonical,
    catalogue::Error,
    envelope::{Envelope, OpenError, PublicKey, SigningKey},
    fetch::Archive,
    layout::{ArchiveId, Key},
    manifest::FORMAT,
};
use crate::io::bucket::Version;

/// The kind of document, as it stands in the envelope.
pub const REGISTER_TYPE: &str = "application/vnd.valv.register.v1+json";

/// The largest register that is read: 20,000 lines, and a reason for some.
const REGISTER_LIMIT_BYTES: u64 = 4 * 1024 * 1024;

/// Versions of it that are looked at. A new one is written once a day or twice, and old ones are deleted when no lock
/// keeps them any more.
const MOST_VERSIONS: usize = 64;

/// What one store should have of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Register {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose.
    pub archive: ArchiveId,
    /// Name of the `BackupStore`: one that was carried over from another store says nothing of this one.
    pub store: String,
    /// One more than that of the one before.
    pub number: u64,
    /// Backups that were seen committed, and that retention did not let go.
    pub committed: BTreeSet<Slot>,
    /// Backups that retention let go, while something of them is there yet.
    pub let_go: BTreeSet<Slot>,
    /// Backups that cannot be restored, and what said so.
    pub damaged: BTreeMap<Slot, String>,
    /// When it was written, by the operator's clock. For people.
    pub written: Timestamp,
}

/// A register is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRegister {
    /// Its envelope.
    #[error("failed to open the register")]
    Envelope(#[source] OpenError),
    /// It is signed, and no register.
    #[error("failed to parse the register")]
    Parse(#[source] serde_json::Error),
    /// It is of another archive or store, and was laid here; or a later Valv wrote it.
    #[error(
        "the register is of {archive} in {store} in format {format}, and was found where another belongs"
    )]
    Misplaced {
        /// Of whose.
        archive: ArchiveId,
        /// Of which store.
        store: String,
        /// In which format.
        format: u32,
    },
}

/// What lies under the key of a register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The one that counts; `None`: there is none to be believed.
    pub register: Option<Register>,
    /// Versions that a later one has replaced, of those that are to be believed.
    pub replaced: Vec<Version>,
    /// So many that are not.
    pub refused: usize,
}

impl Register {
    /// One without a line.
    pub fn empty(archive: &ArchiveId, store: &str, now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            archive: archive.clone(),
            store: store.to_owned(),
            number: 0,
            committed: BTreeSet::new(),
            let_go: BTreeSet::new(),
            damaged: BTreeMap::new(),
            written: whole_seconds(now),
        }
    }

    /// Where it lies.
    pub fn key(archive: &ArchiveId) -> Option<Key> {
        Some(Key::Record { archive: archive.clone(), name: "register".parse().ok()? })
    }

    /// The next one, if it says otherwise than this.
    pub fn next(&self, mut wanted: Self, now: Timestamp) -> Option<Self> {
        (wanted.number, wanted.written) = (self.number, self.written);
        if wanted == *self {
            return None;
        }
        (wanted.number, wanted.written) = (self.number.saturating_add(1), whole_seconds(now));
        Some(wanted)
    }

    /// Signs it: what is to be put at its [`key`](Self::key).
    ///
    /// # Errors
    /// If it cannot be written down.
    pub fn seal(&self, key: &SigningKey) -> Result<Vec<u8>, canonical::Error> {
        key.sign(REGISTER_TYPE, &canonical::to_vec(self)?).to_bytes()
    }

    /// Reads what was found at the key of `archive` in `store`, if one of `trusted` signed it.
    ///
    /// # Errors
    /// If it is not to be believed.
    pub fn open(
        bytes: &[u8],
        archive: &ArchiveId,
        store: &str,
        trusted: &[PublicKey],
    ) -> Result<Self, InvalidRegister> {
        let (payload, _) = Envelope::parse(bytes)
            .and_then(|envelope| envelope.open(REGISTER_TYPE, trusted))
            .map_err(InvalidRegister::Envelope)?;
        let register: Self = serde_json::from_slice(&payload).map_err(InvalidRegister::Parse)?;
        if register.archive != *archive || register.store != store || register.format != FORMAT {
            let Self { archive, store, format, .. } = register;
            return Err(InvalidRegister::Misplaced { archive, store, format });
        }
        Ok(register)
    }
}

impl Archive {
    /// The register of `archive` in `store`, of those that one of `trusted` signed the one with the highest number.
    ///
    /// # Errors
    /// If the store does not let us look.
    pub async fn register(
        &self,
        archive: &ArchiveId,
        store: &str,
        trusted: &[PublicKey],
    ) -> Result<Found, Error> {
        let Some(key) = Register::key(archive).map(|key| key.to_string()) else {
            return Ok(Found::default());
        };
        let versions = self.recorded(archive, &key, REGISTER_LIMIT_BYTES, MOST_VERSIONS).await?;
        let mut opened = Vec::new();
        let mut refused = 0;
        for recorded in versions {
            match Register::open(&recorded.bytes, archive, store, trusted) {
                Ok(register) => opened.push((register, recorded.version)),
                Err(_) => refused += 1,
            }
        }
        opened.sort_by_key(|(register, _)| register.number);
        let newest = opened.pop();
        Ok(Found {
            register: newest.map(|(register, _)| register),
            replaced: opened.into_iter().filter_map(|(_, version)| version).collect(),
            refused,
        })
    }
}

fn whole_seconds(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn register() -> Register {
        let slot: Slot = "20261122T010000Z".parse().unwrap();
        Register {
            committed: BTreeSet::from([slot]),
            damaged: BTreeMap::from([(slot, "a drill: Corrupt".to_owned())]),
            ..Register::empty(&"ada".parse().unwrap(), "helsinki", now())
        }
    }

    #[test]
    fn a_register_opens_to_what_was_sealed_and_only_where_it_belongs() {
        let key = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
        let stranger = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
        let (register, trusted) = (register(), [key.public()]);
        let sealed = register.seal(&key).unwrap();
        let open = |archive: &str, store: &str, trusted: &[PublicKey]| {
            Register::open(&sealed, &archive.parse().unwrap(), store, trusted)
        };

        assert_eq!(open("ada", "helsinki", &trusted).unwrap(), register);
        assert!(matches!(open("bo", "helsinki", &trusted), Err(InvalidRegister::Misplaced { .. })));
        assert!(matches!(open("ada", "frankfurt", &trusted), Err(InvalidRegister::Misplaced { .. })));
        assert!(matches!(open("ada", "helsinki", &[stranger.public()]), Err(InvalidRegister::Envelope(_))));
    }

    #[test]
    fn the_next_one_has_the_next_number_and_is_written_only_if_it_says_otherwise() {
        let before = register();
        let mut after = before.clone();
        after.let_go = std::mem::take(&mut after.committed);

        assert_eq!(before.next(before.clone(), now()), None);
        assert_eq!(before.next(after, now()).unwrap().number, 1);
    }
}
