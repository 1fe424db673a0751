//! The manifest: what the agent says that it wrote.
//!
//! Canonical JSON; its BLAKE3 is in the [commit](super::commit), which is signed. No personal data: names of
//! tables and counts, never a row. `docs/backup-format.md` explains each field.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use valv_crds::Slot;

use super::{
    canonical,
    digest::Blake3,
    index::PAGE_SEGMENTS,
    layout::{ArchiveId, Attempt, Folder, PageName, Part},
};
use crate::io::bucket::Version;

/// The version of the format that this code writes and reads.
pub const FORMAT: u32 = 1;

/// The largest manifest that is read: row counts of 25,000 tables. In memory it becomes some ten times as much.
pub const MANIFEST_LIMIT_BYTES: u64 = 4 * 1024 * 1024;

/// What the agent says that it wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose.
    pub archive: ArchiveId,
    /// For which moment.
    pub slot: Slot,
    /// By which run.
    pub attempt: Attempt,
    /// The slot of the backup that this one builds on; `null` if it is whole by itself.
    pub parent: Option<Slot>,
    /// What wrote it.
    pub tool: Tool,
    /// When the agent began, by its clock.
    pub started: Timestamp,
    /// When it had put the last index page, by its clock.
    pub ended: Timestamp,
    /// The database.
    pub postgres: Postgres,
    /// For whom the segments are encrypted: `age1…`.
    pub recipients: Vec<String>,
    /// What was written, in the order in which it is restored.
    pub parts: Vec<PartSummary>,
    /// The nonce that was written into the database before the backup: hexadecimal digits.
    pub sentinel: String,
    /// Rows of each table.
    pub row_counts: RowCounts,
    /// What the part `attachments` has in it; `null` if there is no such part.
    pub attachments: Option<Attachments>,
    /// The images that ran, by container.
    pub images: BTreeMap<String, String>,
}

/// A program and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// `valv`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The database that was backed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Postgres {
    /// The server's version.
    pub version: String,
    /// The database's own number: a string, for it has more digits than JSON keeps.
    pub system_identifier: String,
    /// The timeline.
    pub timeline: u32,
    /// Where replay begins: `0/3000028`.
    #[serde(rename = "startLSN")]
    pub start_lsn: String,
    /// Where the backup is consistent.
    #[serde(rename = "stopLSN")]
    pub stop_lsn: String,
}

/// What was written of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartSummary {
    /// Which part.
    pub name: Part,
    /// Number of segments.
    pub segments: u64,
    /// Bytes of ciphertext.
    pub bytes: u64,
    /// Bytes of the tar stream.
    pub plain_bytes: u64,
    /// The pages of its index, in order.
    pub pages: Vec<PageSummary>,
}

/// A page of the index, as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageSummary {
    /// Its key within the attempt's folder.
    pub key: PageName,
    /// The version that the store made of it; `null` where it makes none.
    pub version: Option<Version>,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub blake3: Blake3,
    /// Number of its lines.
    pub segments: u32,
}

/// Rows of each table, as `schema.table`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Before the backup began.
    pub start: BTreeMap<String, u64>,
    /// After it ended.
    pub end: BTreeMap<String, u64>,
}

/// The files of the part `attachments`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachments {
    /// How many.
    pub files: u64,
    /// Digest of the inventory: a line `<BLAKE3>  <path>` for each, in the order of the paths' bytes.
    pub digest: Blake3,
}

/// A manifest is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    /// It is no JSON, or lacks a field.
    #[error("failed to parse the manifest")]
    Parse(#[source] serde_json::Error),
    /// A later Valv wrote it.
    #[error("the manifest has format {0}, and this Valv reads format 1")]
    Format(u32),
    /// It contradicts itself.
    #[error("the manifest {0}")]
    Contradiction(String),
}

impl Manifest {
    /// The folder that it describes.
    pub fn folder(&self) -> Folder {
        Folder { archive: self.archive.clone(), slot: self.slot, attempt: self.attempt.clone() }
    }

    /// What it says of `part`.
    pub fn part(&self, part: Part) -> Option<&PartSummary> {
        self.parts.iter().find(|summary| summary.name == part)
    }

    /// Number of all segments.
    pub fn segments(&self) -> u64 {
        self.parts.iter().map(|part| part.segments).sum()
    }

    /// Its canonical form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, canonical::Error> {
        canonical::to_vec(self)
    }

    /// Reads a manifest and checks that it agrees with itself.
    ///
    /// Whether it is the one that was committed is for the caller to compare, by the digest of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidManifest> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let Versioned { format } = serde_json::from_slice(bytes).map_err(InvalidManifest::Parse)?;
        if format != FORMAT {
            return Err(InvalidManifest::Format(format));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(InvalidManifest::Parse)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), InvalidManifest> {
        let contradiction = |what: String| Err(InvalidManifest::Contradiction(what));
        for (index, part) in self.parts.iter().enumerate() {
            let name = part.name;
            if self.parts.iter().take(index).any(|earlier| earlier.name == name) {
                return contradiction(format!("names the part {name} twice"));
            }
            let last = part.pages.len().saturating_sub(1);
            for (number, page) in part.pages.iter().enumerate() {
                if PageName::new(name, u32::try_from(number).unwrap_or(u32::MAX)) != Some(page.key) {
                    return contradiction(format!("has {} as page {number} of {name}", page.key));
                }
                if !(1..=PAGE_SEGMENTS).contains(&page.segments)
                    || (number < last && page.segments != PAGE_SEGMENTS)
                {
                    return contradiction(format!("has {} lines in {}", page.segments, page.key));
                }
            }
            let listed: u64 = part.pages.iter().map(|page| u64::from(page.segments)).sum();
            if listed != part.segments {
                return contradiction(format!("has {} segments of {name} and {listed} lines", part.segments));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The manifest of an empty backup.
    pub fn empty() -> Manifest {
        Manifest {
            format: FORMAT,
            archive: "ada".parse().unwrap(),
            slot: "20261122T010000Z".parse().unwrap(),
            attempt: "0191b6f0-7d3a-7c40-8e0a-1f2e3d4c5b6a".parse().unwrap(),
            parent: None,
            tool: Tool { name: "valv".into(), version: "0.1.0".into() },
            started: "2026-11-22T01:00:03Z".parse().unwrap(),
            ended: "2026-11-22T01:09:00Z".parse().unwrap(),
            postgres: Postgres {
                version: "17.5".into(),
                system_identifier: "7571234567890123456".into(),
                timeline: 1,
                start_lsn: "0/3000028".into(),
                stop_lsn: "0/3000158".into(),
            },
            recipients: vec!["age1a".into(), "age1b".into()],
            parts: vec![],
            sentinel: "00ff".into(),
            row_counts: RowCounts::default(),
            attachments: None,
            images: BTreeMap::new(),
        }
    }

    fn part(segments: &[u32]) -> PartSummary {
        let page = |(number, segments): (usize, &u32)| PageSummary {
            key: PageName::new(Part::Database, number as u32).unwrap(),
            version: None,
            size: 100,
            blake3: Blake3::of(b""),
            segments: *segments,
        };
        PartSummary {
            name: Part::Database,
            segments: segments.iter().map(|segments| u64::from(*segments)).sum(),
            bytes: 0,
            plain_bytes: 0,
            pages: segments.iter().enumerate().map(page).collect(),
        }
    }

    #[test]
    fn a_manifest_reads_as_documented_and_parses_to_the_same() {
        let mut manifest = empty();
        manifest.parts = vec![part(&[4096, 1])];
        manifest.row_counts.start.insert("public.note".into(), 12);

        let bytes = manifest.to_bytes().unwrap();

        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.starts_with(r#"{"archive":"ada","attachments":null,"attempt":"0191b6f0-"#), "{text}");
        assert!(text.contains(r#""rowCounts":{"end":{},"start":{"public.note":12}}"#), "{text}");
        assert!(text.contains(r#""startLSN":"0/3000028","stopLSN":"0/3000158""#), "{text}");
        assert!(text.contains(r#""started":"2026-11-22T01:00:03Z""#), "{text}");
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
    }

    #[test]
    fn a_field_that_a_later_valv_added_does_not_stop_this_one() {
        let text = String::from_utf8(empty().to_bytes().unwrap()).unwrap();

        Manifest::parse(text.replacen('{', r#"{"added":1,"#, 1).as_bytes()).unwrap();
    }

    #[test]
    fn a_later_format_is_told_apart_from_garbage() {
        let later = br#"{"format":2}"#;

        assert!(matches!(Manifest::parse(later), Err(InvalidManifest::Format(2))));
        assert!(matches!(Manifest::parse(b"{}"), Err(InvalidManifest::Parse(_))));
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused() {
        let twice = vec![part(&[1]), part(&[1])];
        let short_page_in_the_middle = vec![part(&[1, 4096])];
        let empty_page = vec![part(&[0])];
        let mut miscounted = part(&[2]);
        miscounted.segments = 3;
        let mut out_of_order = part(&[4096, 1]);
        out_of_order.pages.swap(0, 1);

        for parts in [twice, short_page_in_the_middle, empty_page, vec![miscounted], vec![out_of_order]] {
            let mut manifest = empty();
            manifest.parts = parts;

            let parsed = Manifest::parse(&manifest.to_bytes().unwrap());

            assert!(matches!(parsed, Err(InvalidManifest::Contradiction(_))), "{:?}", manifest.parts);
        }
    }
}
