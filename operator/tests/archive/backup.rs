//! Backups for tests: keys, a writer in a hurry, manifests and commits.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use age::secrecy::ExposeSecret;
use bytes::Bytes;
use tokio::sync::watch;
use valv::{
    archive::{
        Archive, Writer,
        commit::{Commit, ManifestRef, Store, Verified},
        envelope::{PublicKey, SigningKey},
        fetch,
        layout::{Attempt, Folder, Part},
        manifest::{FORMAT, Manifest, PartSummary, Postgres, RowCounts, Tool},
        read::{self, Restored},
        recipients::{Identities, Recipients},
        retry::RetryRule,
        verify::Mode,
        write,
    },
    io::bucket::{Bucket, OnExisting, Put},
};

/// The keys around one tenant.
pub struct Keys {
    pub recipients: Recipients,
    pub tenant: Identities,
    pub escrow: Identities,
    /// As `age-keygen` writes them.
    pub tenant_file: String,
    pub escrow_file: String,
    pub signing: SigningKey,
}

impl Keys {
    pub fn new() -> Self {
        let identity = || {
            let key = age::x25519::Identity::generate();
            let file = format!("# public key: {}\n{}\n", key.to_public(), key.to_string().expose_secret());
            (key.to_public().to_string(), Identities::parse(&file.clone().into()).unwrap(), file)
        };
        let ((tenant_recipient, tenant, tenant_file), (escrow_recipient, escrow, escrow_file)) =
            (identity(), identity());
        Self {
            recipients: Recipients::parse([tenant_recipient, escrow_recipient]).unwrap(),
            tenant,
            escrow,
            tenant_file,
            escrow_file,
            signing: SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap(),
        }
    }

    pub fn public(&self) -> PublicKey {
        self.signing.public()
    }
}

/// What was written.
pub struct Backup {
    pub manifest: Manifest,
    pub named: ManifestRef,
}

/// Tests do not wait long for a store that is made to fail.
fn hurried_retry() -> RetryRule {
    RetryRule {
        tries: 10,
        first_wait: Duration::from_millis(20),
        longest_wait: Duration::from_millis(500),
        budget: 100,
    }
}

pub fn hurried() -> write::Options {
    write::Options { retry: hurried_retry(), ..write::Options::default() }
}

pub fn archive(bucket: &Bucket) -> Archive {
    Archive::new(bucket.clone(), fetch::Options { retry: hurried_retry(), ..fetch::Options::default() })
}

static ATTEMPTS: AtomicU64 = AtomicU64::new(1);

fn folder_of(archive: &str, attempt: u64) -> Folder {
    let attempt: Attempt = format!("00000000-0000-7000-8000-{attempt:012x}").parse().unwrap();
    Folder { archive: archive.parse().unwrap(), slot: "20261122T010000Z".parse().unwrap(), attempt }
}

/// The folder of those who write by hand, once a store.
pub fn folder(archive: &str) -> Folder {
    folder_of(archive, 0)
}

pub fn writer(bucket: &Bucket, archive: &str, keys: &Keys, options: write::Options) -> Writer {
    Writer::new(bucket.clone(), folder(archive), keys.recipients.clone(), options)
}

/// Writes `data` as the database of `name`, with its manifest.
pub async fn back_up(bucket: &Bucket, name: &str, data: &[u8], keys: &Keys) -> Backup {
    let folder = folder_of(name, ATTEMPTS.fetch_add(1, Ordering::Relaxed));
    let mut writer = Writer::new(bucket.clone(), folder.clone(), keys.recipients.clone(), hurried());
    let part = writer.part(Part::Database, data).await.unwrap();
    let manifest = manifest(folder, keys.recipients.to_texts(), part);
    let named = writer.manifest(&manifest).await.unwrap();
    Backup { manifest, named }
}

/// A manifest of one part.
pub fn manifest(folder: Folder, recipients: Vec<String>, part: PartSummary) -> Manifest {
    Manifest {
        format: FORMAT,
        archive: folder.archive,
        slot: folder.slot,
        attempt: folder.attempt,
        parent: None,
        tool: Tool { name: "valv".into(), version: env!("CARGO_PKG_VERSION").into() },
        started: "2026-11-22T01:00:03Z".parse().unwrap(),
        ended: "2026-11-22T01:09:00Z".parse().unwrap(),
        postgres: Postgres {
            version: "17.5".into(),
            system_identifier: "7571234567890123456".into(),
            timeline: 1,
            start_lsn: "0/3000028".into(),
            stop_lsn: "0/3000158".into(),
        },
        recipients,
        parts: vec![part],
        sentinel: "00ff".into(),
        row_counts: RowCounts::default(),
        attachments: None,
        images: BTreeMap::new(),
    }
}

/// Commits `backup`, as the operator does.
pub async fn committed(bucket: &Bucket, backup: &Backup, keys: &Keys) -> Commit {
    let manifest = &backup.manifest;
    let commit = Commit {
        format: FORMAT,
        archive: manifest.archive.clone(),
        slot: manifest.slot,
        attempt: manifest.attempt.clone(),
        manifest: backup.named.clone(),
        verified: Verified {
            mode: Mode::Metadata,
            seed: None,
            segments_read: 0,
            segments: manifest.segments(),
            at: "2026-11-22T01:10:00Z".parse().unwrap(),
        },
        store: Store { name: "helsinki".into(), region: "fi-hel2".into(), country: "FI".into() },
        retain_until: None,
        committed: "2026-11-22T01:10:01Z".parse().unwrap(),
    };
    let key = Commit::key(&commit.archive, commit.slot).to_string();
    let sealed = Bytes::from(commit.seal(&keys.signing).unwrap());
    let only_new = Put { on_existing: OnExisting::Fail, ..Put::default() };
    bucket.put(&key, sealed, &only_new).await.unwrap();
    commit
}

/// The database's stream, restored.
pub async fn restored(
    bucket: &Bucket,
    backup: &Backup,
    identities: &Identities,
) -> Result<(Vec<u8>, Restored), read::Error> {
    let mut stream = Vec::new();
    let progress = watch::Sender::default();
    let summary =
        read::part(&archive(bucket), &backup.manifest, Part::Database, identities, &mut stream, &progress)
            .await?;
    assert_eq!(progress.borrow().plain_bytes, stream.len() as u64);
    assert_eq!(summary.plain_bytes, stream.len() as u64);
    Ok((stream, summary))
}
