//! The commit: the operator's word that a backup is complete. No commit, no backup.
//!
//! A signed [envelope](super::envelope) whose payload is canonical JSON. It names the manifest by its digest,
//! the manifest names the pages, the pages name the segments: one signature covers all. The signing key is in
//! the operator's namespace only, so an agent cannot forge another's backup.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use valv_crds::Slot;

use super::{
    canonical,
    digest::Blake3,
    envelope::{Envelope, KeyId, OpenError, PublicKey, SigningKey},
    layout::{ArchiveId, Attempt, DataObject, Folder, Key},
    manifest::FORMAT,
    verify::Mode,
};
use crate::io::bucket::Version;

/// The kind of document, as it stands in the envelope.
pub const COMMIT_TYPE: &str = "application/vnd.valv.commit.v1+json";

/// The largest commit that is read.
pub const COMMIT_LIMIT_BYTES: u64 = 64 * 1024;

/// The operator's word that a backup is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Commit {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose.
    pub archive: ArchiveId,
    /// For which moment.
    pub slot: Slot,
    /// Which run wrote it.
    pub attempt: Attempt,
    /// Its manifest.
    pub manifest: ManifestRef,
    /// What the operator read back before it committed.
    pub verified: Verified,
    /// Where it lies.
    pub store: Store,
    /// Until when its objects were locked when it was committed; `null` if they were not.
    pub retain_until: Option<Timestamp>,
    /// When, by the operator's clock.
    pub committed: Timestamp,
}

/// The manifest, as the commit names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRef {
    /// Its key below the store's prefix.
    pub key: String,
    /// The version that the store made of it; `null` where it makes none.
    pub version: Option<Version>,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub blake3: Blake3,
}

/// What was read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// How much was to be read.
    pub mode: Mode,
    /// What a sample was drawn with; `null` if it was none.
    pub seed: Option<u32>,
    /// How many segments were read and hashed.
    pub segments_read: u64,
    /// How many there are; of all of them size and version were seen.
    pub segments: u64,
    /// When it ended.
    pub at: Timestamp,
}

/// A store, as it was called when the backup was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// The `BackupStore`'s name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Its country, ISO 3166-1 alpha-2.
    pub country: String,
}

/// A commit is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCommit {
    /// Its envelope.
    #[error("failed to open the commit")]
    Envelope(#[source] OpenError),
    /// It is signed, and no commit.
    #[error("failed to parse the commit")]
    Parse(#[source] serde_json::Error),
    /// A later Valv wrote it.
    #[error("the commit has format {0}, and this Valv reads format 1")]
    Format(u32),
    /// It is of another backup, and was laid here.
    #[error("the commit is of {archive} {slot}, and was found where that of another backup belongs")]
    Misplaced {
        /// Of whose.
        archive: ArchiveId,
        /// Of which moment.
        slot: Slot,
    },
    /// It names a manifest outside its own attempt's folder.
    #[error("the commit names {key:?} as its manifest")]
    ForeignManifest {
        /// Which.
        key: String,
    },
}

impl Commit {
    /// Where it lies.
    pub fn key(archive: &ArchiveId, slot: Slot) -> Key {
        Key::Commit { archive: archive.clone(), slot }
    }

    /// The folder of the attempt that it commits.
    pub fn folder(&self) -> Folder {
        Folder { archive: self.archive.clone(), slot: self.slot, attempt: self.attempt.clone() }
    }

    /// Signs it: what is to be put at its [`key`](Self::key).
    pub fn seal(&self, key: &SigningKey) -> Result<Vec<u8>, canonical::Error> {
        key.sign(COMMIT_TYPE, &canonical::to_vec(self)?).to_bytes()
    }

    /// Reads what was found at the key of `archive` and `slot`, if one of `trusted` signed it, and says
    /// which.
    pub fn open(
        bytes: &[u8],
        archive: &ArchiveId,
        slot: Slot,
        trusted: &[PublicKey],
    ) -> Result<(Self, KeyId), InvalidCommit> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let (payload, key_id) = Envelope::parse(bytes)
            .and_then(|envelope| envelope.open(COMMIT_TYPE, trusted))
            .map_err(InvalidCommit::Envelope)?;
        let Versioned { format } = serde_json::from_slice(&payload).map_err(InvalidCommit::Parse)?;
        if format != FORMAT {
            return Err(InvalidCommit::Format(format));
        }
        let commit: Self = serde_json::from_slice(&payload).map_err(InvalidCommit::Parse)?;
        if commit.archive != *archive || commit.slot != slot {
            return Err(InvalidCommit::Misplaced { archive: commit.archive, slot: commit.slot });
        }
        if commit.manifest.key != commit.folder().key(DataObject::Manifest).to_string() {
            return Err(InvalidCommit::ForeignManifest { key: commit.manifest.key });
        }
        Ok((commit, key_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit() -> Commit {
        let folder = "v1/ada/data/20261122T010000Z/0191b6f0-7d3a-7c40-8e0a-1f2e3d4c5b6a";
        Commit {
            format: FORMAT,
            archive: "ada".parse().unwrap(),
            slot: "20261122T010000Z".parse().unwrap(),
            attempt: "0191b6f0-7d3a-7c40-8e0a-1f2e3d4c5b6a".parse().unwrap(),
            manifest: ManifestRef {
                key: format!("{folder}/manifest.json"),
                version: None,
                size: 2,
                blake3: Blake3::of(b"{}"),
            },
            verified: Verified {
                mode: Mode::Full,
                seed: None,
                segments_read: 3,
                segments: 3,
                at: "2026-11-22T01:10:00Z".parse().unwrap(),
            },
            store: Store { name: "helsinki".into(), region: "fi-hel2".into(), country: "FI".into() },
            retain_until: None,
            committed: "2026-11-22T01:10:01Z".parse().unwrap(),
        }
    }

    fn key() -> SigningKey {
        SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_commit_opens_to_what_was_sealed() {
        let (commit, key) = (commit(), key());

        let (opened, key_id) =
            Commit::open(&commit.seal(&key).unwrap(), &commit.archive, commit.slot, &[key.public()]).unwrap();

        assert_eq!(opened, commit);
        assert_eq!(key_id, key.public().id());
    }

    #[test]
    fn a_true_commit_laid_where_another_belongs_is_refused() {
        let (commit, key) = (commit(), key());
        let sealed = commit.seal(&key).unwrap();
        let (bo, later) = ("bo".parse().unwrap(), "20261123T010000Z".parse().unwrap());

        for (archive, slot) in [(&bo, commit.slot), (&commit.archive, later)] {
            let opened = Commit::open(&sealed, archive, slot, &[key.public()]);

            assert!(matches!(opened, Err(InvalidCommit::Misplaced { .. })), "{opened:?}");
        }
    }

    #[test]
    fn a_commit_that_points_into_another_tenant_s_folder_is_refused() {
        let (mut commit, key) = (commit(), key());
        commit.manifest.key = commit.manifest.key.replace("/ada/", "/bo/");

        let opened = Commit::open(&commit.seal(&key).unwrap(), &commit.archive, commit.slot, &[key.public()]);

        assert!(matches!(opened, Err(InvalidCommit::ForeignManifest { .. })), "{opened:?}");
    }

    #[test]
    fn openssl_verifies_what_we_sign() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let key = key();
        let envelope = Envelope::parse(&commit().seal(&key).unwrap()).unwrap();
        let text = serde_json::to_value(&envelope).unwrap();
        let decoded = |field: &serde_json::Value| {
            use base64::{Engine, prelude::BASE64_STANDARD};
            BASE64_STANDARD.decode(field.as_str().unwrap()).unwrap()
        };
        let payload = decoded(&text["payload"]);
        let signed = [format!("DSSEv1 35 {COMMIT_TYPE} {} ", payload.len()).as_bytes(), &payload].concat();
        std::fs::write(path("public.pem"), key.public().to_pem()).unwrap();
        std::fs::write(path("signed"), signed).unwrap();
        std::fs::write(path("signature"), decoded(&text["signatures"][0]["sig"])).unwrap();

        let verified = std::process::Command::new("openssl")
            .args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"])
            .arg(path("public.pem"))
            .arg("-in")
            .arg(path("signed"))
            .arg("-sigfile")
            .arg(path("signature"))
            .output()
            .unwrap();

        assert!(verified.status.success(), "{verified:?}");
    }
}
