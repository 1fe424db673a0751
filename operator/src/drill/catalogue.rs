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
    drill::{Choice, DrillReason, DrilledBackup},
};

use super::{
    choose::{self, Known, Refusal},
    past,
    record::{RECORD_LIMIT_BYTES, Record},
};
use crate::{
    agent::{
        drill_file::{Because, Earlier},
        drill_words::reason_of_store,
    },
    archive::{
        Archive,
        commit::ManifestRef,
        envelope::PublicKey,
        fetch,
        layout::{ArchiveId, Key},
        manifest::Manifest,
        retry::{self, RetryRule},
    },
    error::chain,
    io::bucket::{self, Bucket, Content, Kind},
};

/// How long a look may take. A drill waits, others do not wait for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Commits before the chosen one that are tried for the backup to compare with, of those that a drill found good and of
/// the oldest each.
const TRIED: usize = 5;

/// Records of drills that are read, from the newest on, where the cluster remembers no drill that passed.
const RECORDS: usize = 12;

/// What is drilled. Kept in the drill's namespace, so that every look after the first rests on the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chosen {
    /// The archive.
    pub archive: ArchiveId,
    /// The backup.
    pub backup: DrilledBackup,
    /// The earlier backup whose row counts its own are compared with.
    #[serde(default)]
    pub earlier: Option<Earlier>,
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
    Trouble(Trouble),
}

/// Why a store did not say what was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// As one word.
    pub reason: DrillReason,
    /// In a sentence.
    pub message: String,
}

impl Trouble {
    /// With a store that could not be asked, or not to the end.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { reason: DrillReason::StoreUnavailable, message: message.into() }
    }

    /// With a request that failed, while it did what `doing` says.
    pub fn of(error: &bucket::Error, doing: &str) -> Self {
        let message = if doing.is_empty() { chain(error) } else { format!("{doing}: {}", chain(error)) };
        Self { reason: reason_of_store(&error.kind), message }
    }
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
    /// Backups that a drill found good, as the cluster remembers them.
    pub good: &'a BTreeSet<Slot>,
    /// Backups that are there by their objects.
    pub known: &'a [Known],
    /// Days for which nothing is deleted.
    pub floor_days: i32,
}

/// Looks into the bucket of `settings`.
pub async fn look(settings: &bucket::Settings, question: &Question<'_>, now: Timestamp) -> Looked {
    let bucket = match Bucket::open(settings) {
        Ok(bucket) => bucket,
        Err(error) => return Looked::Trouble(Trouble::unavailable(chain(&error))),
    };
    match timeout(PATIENCE, answer(bucket, question, now)).await {
        Ok(looked) => looked,
        Err(_) => Looked::Trouble(Trouble::unavailable(format!(
            "the store {} did not say within {} s which backups it has",
            question.store,
            PATIENCE.as_secs()
        ))),
    }
}

async fn answer(bucket: Bucket, question: &Question<'_>, now: Timestamp) -> Looked {
    let Question { archive, store, trusted, choice, drill, good, known, floor_days } = question;
    let listed = match retry::ask(RetryRule::FEW, || slots(&bucket, archive)).await {
        Ok(listed) => listed,
        Err(error) => {
            return Looked::Trouble(Trouble::of(&error, &format!("failed to list the backups in {store}")));
        }
    };
    let slot = match choose::choose(*choice, *drill, &listed, known, *floor_days, now) {
        Ok(slot) => slot,
        Err(refusal) => return Looked::Refused(refusal),
    };
    let reader = Archive::new(bucket.clone(), fetch::Options::default());
    let mut chosen = Chosen {
        archive: (*archive).clone(),
        backup: DrilledBackup { slot, store: (*store).to_owned(), manifest: None },
        earlier: None,
        image: None,
        system_identifier: None,
    };
    match reader.commit(archive, slot, trusted).await {
        Ok(found) => {
            chosen.backup.manifest = Some(digest(&found.commit.manifest));
            let said = |mut manifest: Manifest| {
                (manifest.images.remove("journal"), manifest.postgres.system_identifier)
            };
            match reader.of_manifest(&found.commit.manifest, said).await {
                Ok((image, system_identifier)) => {
                    chosen.image = image;
                    chosen.system_identifier = Some(system_identifier);
                }
                Err(fetch::Error::Store(error)) => return Looked::Trouble(Trouble::of(&error, "")),
                Err(_) => {}
            }
        }
        Err(fetch::Error::Store(error)) => return Looked::Trouble(Trouble::of(&error, "")),
        Err(_) => {}
    }
    let before: BTreeSet<Slot> = listed.range(..slot).copied().collect();
    let mut good: BTreeSet<Slot> = before.intersection(good).copied().collect();
    if good.is_empty() && !before.is_empty() {
        match retry::ask(RetryRule::FEW, || recorded(&bucket, archive, trusted, &before)).await {
            Ok(slot) => good.extend(slot),
            Err(error) => return Looked::Trouble(Trouble::of(&error, "")),
        }
    }
    match earlier(&reader, archive, trusted, &before, &good).await {
        Ok(earlier) => chosen.earlier = earlier,
        Err(error) => return Looked::Trouble(Trouble::of(&error, "")),
    }
    Looked::Chosen(Box::new(chosen))
}

/// Which of the backups `before` one is compared with, the best first: the newest that a drill found good, and where
/// there is none, the oldest. What was lost since yesterday was lost for ever if yesterday's were enough.
fn candidates(before: &BTreeSet<Slot>, good: &BTreeSet<Slot>) -> Vec<(Slot, Because)> {
    let is_good = |slot: &&Slot| good.contains(slot);
    let passed = before.iter().rev().filter(is_good).take(TRIED).map(|slot| (*slot, Because::FoundGood));
    let oldest = before.difference(good).take(TRIED).map(|slot| (*slot, Because::OldestKept));
    passed.chain(oldest).collect()
}

/// The first of the candidates whose commit can be believed; if none can, the first, of which the drill will say why.
async fn earlier(
    reader: &Archive,
    archive: &ArchiveId,
    trusted: &[PublicKey],
    before: &BTreeSet<Slot>,
    good: &BTreeSet<Slot>,
) -> Result<Option<Earlier>, bucket::Error> {
    let candidates = candidates(before, good);
    let mut unbelieved = vec![];
    for (slot, because) in &candidates {
        match reader.commit(archive, *slot, trusted).await {
            Ok(_) => return Ok(Some(Earlier { slot: *slot, because: *because, unbelieved })),
            Err(fetch::Error::Store(error)) => return Err(error),
            Err(_) => unbelieved.push(*slot),
        }
    }
    let first = candidates.first();
    Ok(first.map(|(slot, because)| Earlier { slot: *slot, because: *because, unbelieved }))
}

/// The backup `before` that the newest signed record of a drill calls good. After the loss of a cluster nothing else
/// remembers it.
async fn recorded(
    bucket: &Bucket,
    archive: &ArchiveId,
    trusted: &[PublicKey],
    before: &BTreeSet<Slot>,
) -> Result<Option<Slot>, bucket::Error> {
    let prefix = format!("{}records/drill-", Key::archive_prefix(archive));
    let mut keys = BTreeSet::new();
    let mut pages = bucket.list(&prefix);
    while let Some(page) = pages.page().await? {
        keys.extend(page.into_iter().map(|listed| listed.key));
    }
    for key in keys.iter().rev().take(RECORDS) {
        let found = match bucket.get(key, None).await {
            Ok(found) => found.whole(RECORD_LIMIT_BYTES).await,
            Err(error) => Err(error),
        };
        let bytes = match found {
            Ok(bytes) => bytes,
            Err(error) if error.kind == Kind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // One that nobody trusted signed says nothing.
        let Ok(record) = Record::open(&bytes, trusted) else { continue };
        if record.archive == *archive
            && let Some(slot) = past::good_of_record(&record)
            && before.contains(&slot)
        {
            return Ok(Some(slot));
        }
    }
    Ok(None)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(days: &[u32]) -> BTreeSet<Slot> {
        days.iter().map(|day| format!("202611{day:02}T010000Z").parse().unwrap()).collect()
    }

    fn first(before: &[u32], good: &[u32]) -> Option<(String, Because)> {
        let candidates = candidates(&slots(before), &slots(good));
        candidates.first().map(|(slot, because)| (slot.to_string()[6..8].to_owned(), *because))
    }

    #[test]
    fn a_backup_is_compared_with_the_last_that_a_drill_found_good_and_not_with_yesterdays() {
        let week = [16, 17, 18, 19, 20, 21];

        assert_eq!(first(&week, &[2, 9, 17]), Some(("17".to_owned(), Because::FoundGood)));
        // Found good, and no more there: what is there is older than yesterday's all the same.
        assert_eq!(first(&week, &[2, 9]), Some(("16".to_owned(), Because::OldestKept)));
        assert_eq!(first(&[], &[2]), None);
    }
}
