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
    records::RecordVersion,
};
use crate::io::bucket::Version;

/// The kind of document, as it stands in the envelope.
pub const REGISTER_TYPE: &str = "application/vnd.valv.register.v1+json";

/// The largest register that is read: 20,000 lines, and a reason for some.
const REGISTER_LIMIT_BYTES: u64 = 4 * 1024 * 1024;

/// Versions of it that are read by whoever does not know which one counted last. A new one is written once a day or twice,
/// and old ones are deleted when no lock keeps them any more.
const MOST_VERSIONS: usize = 64;

/// What one store should have of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Register {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose.
    pub archive: ArchiveId,
    /// Name of the `BackupStore`. One of another name was written when the store had that name, or was carried over from
    /// another store: what stood in it as committed is missed until somebody has looked, and it says nothing else.
    pub store: String,
    /// One more than that of the one before.
    pub number: u64,
    /// Backups that were seen committed, and that retention did not let go.
    pub committed: BTreeSet<Slot>,
    /// Backups that retention let go, while something of them is there yet.
    pub let_go: BTreeSet<Slot>,
    /// Backups that cannot be restored, and what said so.
    pub damaged: BTreeMap<Slot, String>,
    /// What the drills said whose records were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drilled: Option<Verdicts>,
    /// Clean-ups that somebody has acknowledged. Whoever acknowledges one names this number too, so a word counts once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub acknowledged: u64,
    /// When it was written, by the operator's clock. For people.
    pub written: Timestamp,
}

/// What the drills of an archive came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// When the newest ended that gave a verdict.
    pub ended: Timestamp,
    /// Whether it passed.
    pub passed: bool,
    /// Backups that are there yet and that a drill restored, and when the last one of each ended.
    pub restored: BTreeMap<Slot, Timestamp>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
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
    /// It is of another archive, and was laid here; or a later Valv wrote it.
    #[error("the register is of {archive} in format {format}, and was found where another belongs")]
    Misplaced {
        /// Of whose.
        archive: ArchiveId,
        /// In which format.
        format: u32,
    },
}

/// What lies under the key of a register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The one that counts; `None`: there is none to be believed.
    pub register: Option<Register>,
    /// Which version of its object it is, if it is this store's.
    pub version: Option<Version>,
    /// Versions that a later one has replaced, the newest first; of those that were read only what is to be believed.
    pub replaced: Vec<RecordVersion>,
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
            drilled: None,
            acknowledged: 0,
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

    /// This, which was written under another name of the store, as far as it counts under a new one: only what is missed. It
    /// keeps its name, so that the next one, which has the new name, says otherwise.
    fn carried_over(self) -> Self {
        let Self { committed, number, written, archive, store, .. } = self;
        Self { committed, number, ..Self::empty(&archive, &store, written) }
    }

    /// Reads what was found at the key of `archive`, if one of `trusted` signed it.
    ///
    /// # Errors
    /// If it is not to be believed.
    pub fn open(bytes: &[u8], archive: &ArchiveId, trusted: &[PublicKey]) -> Result<Self, InvalidRegister> {
        let (payload, _) = Envelope::parse(bytes)
            .and_then(|envelope| envelope.open(REGISTER_TYPE, trusted))
            .map_err(InvalidRegister::Envelope)?;
        let register: Self = serde_json::from_slice(&payload).map_err(InvalidRegister::Parse)?;
        if register.archive != *archive || register.format != FORMAT {
            let Self { archive, format, .. } = register;
            return Err(InvalidRegister::Misplaced { archive, format });
        }
        Ok(register)
    }
}

impl Archive {
    /// The register of `archive` in `store`, of those that one of `trusted` signed the one with the highest number. If
    /// there is none of this store: what one that was written under another name says was committed.
    ///
    /// `known` is the version that counted last: what lay there before it is not read again.
    ///
    /// # Errors
    /// If the store does not let us look.
    pub async fn register(
        &self,
        archive: &ArchiveId,
        store: &str,
        trusted: &[PublicKey],
        known: Option<&Version>,
    ) -> Result<Found, Error> {
        let Some(key) = Register::key(archive).map(|key| key.to_string()) else {
            return Ok(Found::default());
        };
        let mut found = Found::default();
        let mut carried_over: Option<Register> = None;
        let mut is_read_on = true;
        for (number, listed) in self.versions_of_record(archive, &key).await?.into_iter().enumerate() {
            if !is_read_on || number >= MOST_VERSIONS {
                found.replaced.push(listed);
                continue;
            }
            is_read_on = known.is_none() || listed.version.as_ref() != known;
            let small = self.small(&key, listed.version.as_ref(), REGISTER_LIMIT_BYTES).await;
            let small = small.map_err(|source| Error::Read { archive: archive.clone(), source })?;
            let Some(small) = small else { continue };
            match Register::open(&small.bytes, archive, trusted) {
                Ok(other) if other.store != store => {
                    if carried_over.as_ref().is_none_or(|standing| standing.number < other.number) {
                        carried_over = Some(other);
                    }
                }
                Ok(register) if found.register.as_ref().is_none_or(|best| best.number < register.number) => {
                    found.register = Some(register);
                    found.version.clone_from(&listed.version);
                    found.replaced.push(listed);
                }
                Ok(_) => found.replaced.push(listed),
                Err(_) => found.refused += 1,
            }
        }
        let counts = found.version.clone();
        found.replaced.retain(|listed| listed.version.is_some() && listed.version != counts);
        found.register = found.register.or_else(|| carried_over.map(Register::carried_over));
        Ok(found)
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
        let open = |archive: &str, trusted: &[PublicKey]| {
            Register::open(&sealed, &archive.parse().unwrap(), trusted)
        };

        assert_eq!(open("ada", &trusted).unwrap(), register);
        assert!(matches!(open("bo", &trusted), Err(InvalidRegister::Misplaced { .. })));
        assert!(matches!(open("ada", &[stranger.public()]), Err(InvalidRegister::Envelope(_))));
    }

    #[test]
    fn of_a_register_under_another_name_of_the_store_only_what_was_committed_counts() {
        let slot: Slot = "20261121T010000Z".parse().unwrap();
        let before = Register { number: 9, let_go: BTreeSet::from([slot]), acknowledged: 3, ..register() };

        let carried = before.clone().carried_over();

        assert_eq!((carried.number, &carried.committed), (9, &before.committed));
        let renamed = Register { store: "hel".to_owned(), ..carried.clone() };
        assert_eq!(carried.next(renamed, now()).unwrap().number, 10, "the new name is worth an object");
        assert!(carried.let_go.is_empty() && carried.damaged.is_empty(), "nothing goes for it");
    }

    #[test]
    fn what_an_older_operator_wrote_is_read() {
        let text = r#"{"format":1,"archive":"ada","store":"helsinki","number":1,"committed":[],"letGo":[],
            "damaged":{},"written":"2026-11-22T12:00:00Z"}"#;

        let read: Register = serde_json::from_str(text).unwrap();

        assert_eq!((read.drilled.clone(), read.acknowledged), (None, 0));
        let written = serde_json::to_string(&read).unwrap();
        assert!(!written.contains("drilled") && !written.contains("acknowledged"), "{written}");
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
