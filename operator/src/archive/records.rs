//! Reads the records of an archive: small signed documents, of which later versions replace earlier ones.
//!
//! Input: a bucket as its reader, the key of a record. Output: what lies there, every version of it, so that whoever
//! lays something over a record hides nothing. Believes nothing: the signature is for whoever asked to check.

use std::collections::BTreeMap;

use super::{
    catalogue::Error,
    fetch::Archive,
    layout::{ArchiveId, Key},
};
use crate::io::bucket::{Content, Version};

/// One version of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    /// Which.
    pub version: Option<Version>,
    /// Its bytes, one more than the limit at most.
    pub bytes: Vec<u8>,
}

impl Archive {
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
        let mut tries = self.retries.begin();
        let versions = loop {
            let mut versions = Vec::new();
            let listed = self.each_version(key, |line| {
                if line.key == key && matches!(line.content, Content::Object { .. }) {
                    versions.push(line.version);
                }
                versions.len() < most
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
        let mut all = Vec::with_capacity(versions.len());
        for version in versions {
            let found = self.small(key, version.as_ref(), limit_bytes).await;
            let found = found.map_err(|source| Error::Read { archive: archive.clone(), source })?;
            all.extend(found.map(|bytes| Recorded { version, bytes }));
        }
        Ok(all)
    }

    /// The newest `most` records of `archive` whose names begin with `beginning`, by name, the newest first, whatever
    /// lies over them: of each all versions, up to a few.
    ///
    /// # Errors
    /// If the store does not let us look.
    pub async fn newest_records(
        &self,
        archive: &ArchiveId,
        beginning: &str,
        limit_bytes: u64,
        most: usize,
    ) -> Result<Vec<Vec<Vec<u8>>>, Error> {
        let prefix = format!("{}records/{beginning}", Key::archive_prefix(archive));
        let mut tries = self.retries.begin();
        let records = loop {
            let mut records: BTreeMap<String, Vec<Option<Version>>> = BTreeMap::new();
            let listed = self.each_version(&prefix, |line| {
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
            });
            match listed.await {
                Ok(()) => break records,
                Err(error) => tries
                    .again_after(error)
                    .await
                    .map_err(|source| Error::List { archive: archive.clone(), source })?,
            }
        };
        tries.succeeded();
        let mut all = Vec::with_capacity(records.len());
        for (key, versions) in records.iter().rev() {
            let mut texts = Vec::with_capacity(versions.len());
            for version in versions {
                let found = self.small(key, version.as_ref(), limit_bytes).await;
                texts.extend(found.map_err(|source| Error::Read { archive: archive.clone(), source })?);
            }
            all.push(texts);
        }
        Ok(all)
    }
}

/// Versions of one record of a series that are looked at: there should be one. Half of them the first that were listed,
/// half the last.
const MOST_VERSIONS: usize = 8;
