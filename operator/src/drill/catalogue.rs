//! Reads the archive's commits, with the reader's identity, and settles which backup is drilled. Reads only.
//!
//! A commit that cannot be believed is chosen all the same: to say so is the drill's first verdict.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use valv_crds::{
    Slot,
    backup::ObjectDigest,
    drill::{Choice, DrilledBackup},
};

use super::choose::{self, Known, Refusal};
use crate::{
    archive::{
        Archive,
        commit::ManifestRef,
        envelope::PublicKey,
        fetch,
        layout::{ArchiveId, Key},
    },
    error::chain,
    io::bucket::{self, Bucket, Content, Kind},
};

/// How long a look may take. A drill waits, others do not wait for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Commits before the chosen one that are tried for the good backup before.
const PREDECESSORS: usize = 5;

/// What is drilled. Kept in the drill's namespace, so that every look after the first rests on the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chosen {
    /// The archive.
    pub archive: ArchiveId,
    /// The backup.
    pub backup: DrilledBackup,
    /// The good backup before it.
    pub previous: Option<Slot>,
    /// The image that the journal ran when it was taken.
    pub image: Option<String>,
    /// PostgreSQL's number of the database that it is of.
    pub system_identifier: Option<String>,
}

/// What a look came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Looked {
    /// This is drilled.
    Chosen(Box<Chosen>),
    /// There is nothing to drill, and another look finds no more.
    Refused(Refusal),
    /// The store did not say; another look may help.
    Trouble(String),
}

/// What is looked for.
pub struct Question<'a> {
    /// In which archive.
    pub archive: &'a ArchiveId,
    /// Name of the store.
    pub store: &'a str,
    /// Whose signatures count.
    pub trusted: &'a [PublicKey],
    /// Which backup.
    pub choice: Choice,
    /// The drill's slot.
    pub drill: Slot,
    /// Backups that are there by their objects.
    pub known: &'a [Known],
    /// Days for which nothing is deleted.
    pub floor_days: i32,
}

/// Looks into the bucket of `settings`.
pub async fn look(settings: &bucket::Settings, question: &Question<'_>, now: Timestamp) -> Looked {
    let bucket = match Bucket::open(settings) {
        Ok(bucket) => bucket,
        Err(error) => return Looked::Trouble(chain(&error)),
    };
    match timeout(PATIENCE, answer(bucket, question, now)).await {
        Ok(looked) => looked,
        Err(_) => Looked::Trouble(format!(
            "the store {} did not say within {} s which backups it has",
            question.store,
            PATIENCE.as_secs()
        )),
    }
}

async fn answer(bucket: Bucket, question: &Question<'_>, now: Timestamp) -> Looked {
    let Question { archive, store, trusted, choice, drill, known, floor_days } = question;
    let listed = match slots(&bucket, archive).await {
        Ok(listed) => listed,
        Err(error) => {
            return Looked::Trouble(format!("failed to list the backups in {store}: {}", chain(&error)));
        }
    };
    let slot = match choose::choose(*choice, *drill, &listed, known, *floor_days, now) {
        Ok(slot) => slot,
        Err(refusal) => return Looked::Refused(refusal),
    };
    let reader = Archive::new(bucket, fetch::Options::default());
    let mut chosen = Chosen {
        archive: (*archive).clone(),
        backup: DrilledBackup { slot, store: (*store).to_owned(), manifest: None },
        previous: None,
        image: None,
        system_identifier: None,
    };
    match reader.commit(archive, slot, trusted).await {
        Ok(found) => {
            chosen.backup.manifest = Some(digest(&found.commit.manifest));
            match reader.manifest(&found.commit.manifest).await {
                Ok(manifest) => {
                    chosen.image = manifest.images.get("journal").cloned();
                    chosen.system_identifier = Some(manifest.postgres.system_identifier);
                }
                Err(fetch::Error::Store(error)) => return Looked::Trouble(chain(&error)),
                Err(_) => {}
            }
        }
        Err(fetch::Error::Store(error)) => return Looked::Trouble(chain(&error)),
        Err(_) => {}
    }
    for before in listed.range(..slot).rev().take(PREDECESSORS) {
        match reader.commit(archive, *before, trusted).await {
            Ok(_) => {
                chosen.previous = Some(*before);
                break;
            }
            Err(fetch::Error::Store(error)) => return Looked::Trouble(chain(&error)),
            Err(_) => {}
        }
    }
    Looked::Chosen(Box::new(chosen))
}

/// The slots of which the archive has a commit in any version: a delete marker over one hides nothing here.
async fn slots(bucket: &Bucket, archive: &ArchiveId) -> Result<BTreeSet<Slot>, bucket::Error> {
    let prefix = Key::commits_prefix(archive);
    let mut slots = BTreeSet::new();
    let slot = |key: &str| match key.parse() {
        Ok(Key::Commit { slot, .. }) => Some(slot),
        _ => None,
    };
    let mut pages = bucket.list_versions(&prefix);
    loop {
        match pages.page().await {
            Ok(Some(page)) => {
                let objects = page.iter().filter(|listed| matches!(listed.content, Content::Object { .. }));
                slots.extend(objects.filter_map(|listed| slot(&listed.key)));
            }
            Ok(None) => return Ok(slots),
            // A store without versions need not have the question.
            Err(bucket::Error { kind: Kind::Other { .. }, .. }) => break,
            Err(error) => return Err(error),
        }
    }
    let mut pages = bucket.list(&prefix);
    while let Some(page) = pages.page().await? {
        slots.extend(page.iter().filter_map(|listed| slot(&listed.key)));
    }
    Ok(slots)
}

fn digest(manifest: &ManifestRef) -> ObjectDigest {
    ObjectDigest {
        key: manifest.key.clone(),
        version: manifest.version.as_ref().map(|version| version.as_str().to_owned()),
        blake3: manifest.blake3.to_string(),
    }
}
