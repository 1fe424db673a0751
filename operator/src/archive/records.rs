//! Reads the records of an archive: small signed documents, of which later versions replace earlier ones.
//!
//! Input: a bucket as its reader, the key of a record. Output: what lies there, every version of it, so that whoever
//! lays something over a record hides nothing. Believes nothing: the signature is for whoever asked to check.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    catalogue::Error,
    fetch::Archive,
    layout::{ArchiveId, Key},
};
use crate::io::bucket::{Content, ListedVersion, Version};

/// One version of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    /// Its bytes, one more than the limit at most.
    pub bytes: Vec<u8>,
}

/// A version of a record, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordVersion {
    /// Which.
    pub version: Option<Version>,
    /// When it was put, by the store's clock.
    pub put: Option<Timestamp>,
}

/// A record of a series: its key, and the versions of it, up to a few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordListed {
    /// Its key.
    pub key: String,
    versions: Vec<Option<Version>>,
}

impl Archive {
    /// All versions of the record `key`, as the store lists them: the latest first, in S3.
    ///
    /// # Errors
    /// If the store does not let us look.
    pub(super) async fn versions_of_record(
        &self,
        archive: &ArchiveId,
        key: &str,
    ) -> Result<Vec<RecordVersion>, Error> {
        let listed = self.retries.ask(async || {
            let mut versions = Vec::new();
            let add = |line: ListedVersion| {
                if line.key == key && matches!(line.content, Content::Object { .. }) {
                    versions.push(RecordVersion { version: line.version, put: line.modified });
                }
                versions.len() < MOST_LISTED
            };
            self.each_version(key, add).await.map(|()| versions)
        });
        listed.await.map_err(|source| Error::List { archive: archive.clone(), source })
    }

    /// The first `most` versions of the record `key`, as the store lists them: the latest first, in S3.
    ///
    /// # Errors
    /// If the store does not let us look.
    pub(super) async fn recorded(
        &self,
        archive: &ArchiveId,
        key: &str,
        limit_bytes: u64,
        most: usize,
    ) -> Result<Vec<Recorded>, Error> {
        let versions = self.versions_of_record(archive, key).await?;
        let mut all = Vec::with_capacity(versions.len().min(most));
        for RecordVersion { version, put: _ } in versions.into_iter().take(most) {
            let found = self.small(key, version.as_ref(), limit_bytes).await;
            let found = found.map_err(|source| Error::Read { archive: archive.clone(), source })?;
            all.extend(found.map(|found| Recorded { bytes: found.bytes }));
        }
        Ok(all)
    }

    /// The newest `most` records of `archive` whose names begin with `beginning`, by name, the newest first, whatever
    /// lies over them.
    ///
    /// # Errors
    /// If the store does not let us look.
    pub async fn newest_records(
        &self,
        archive: &ArchiveId,
        beginning: &str,
        most: usize,
    ) -> Result<Vec<RecordListed>, Error> {
        let prefix = format!("{}records/{beginning}", Key::archive_prefix(archive));
        let listed = self.retries.ask(async || {
            let mut records: BTreeMap<String, Vec<Option<Version>>> = BTreeMap::new();
            let add = |line: ListedVersion| {
                let is_record =
                    matches!(line.key.parse(), Ok(Key::Record { archive: whose, .. }) if whose == *archive);
                if is_record && matches!(line.content, Content::Object { .. }) {
                    let versions = records.entry(line.key).or_default();
                    versions.push(line.version);
                    // Whoever lays many over it must not push the true one out.
                    if versions.len() > MOST_VERSIONS {
                        versions.remove(MOST_VERSIONS / 2);
                    }
                    // By name the newest are the last.
                    if records.len() > most {
                        records.pop_first();
                    }
                }
                true
            };
            self.each_version(&prefix, add).await.map(|()| records)
        });
        let records = listed.await.map_err(|source| Error::List { archive: archive.clone(), source })?;
        Ok(records.into_iter().rev().map(|(key, versions)| RecordListed { key, versions }).collect())
    }

    /// What lies under the key of a listed record: of each of its versions the bytes.
    ///
    /// # Errors
    /// If the store does not let us look.
    pub async fn record(
        &self,
        archive: &ArchiveId,
        RecordListed { key, versions }: &RecordListed,
        limit_bytes: u64,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let mut texts = Vec::with_capacity(versions.len());
        for version in versions {
            let found = self.small(key, version.as_ref(), limit_bytes).await;
            let found = found.map_err(|source| Error::Read { archive: archive.clone(), source })?;
            texts.extend(found.map(|found| found.bytes));
        }
        Ok(texts)
    }
}

/// Versions of one record that are listed: somebody fills the store if there are more.
const MOST_LISTED: usize = 10_000;

/// Versions of one record of a series that are looked at: there should be one. Half of them the first that were listed,
/// half the last.
const MOST_VERSIONS: usize = 8;
