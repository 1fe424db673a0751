//! The index: one line a segment, in pages, so that no database is too large for anybody's memory.
//!
//! # Shape
//! A page is JSON Lines: each line the canonical JSON of an [`Entry`] and a line feed. The lines of a part's
//! pages, one page after the other, are the segments in the order of its tar stream. Every page but a part's
//! last has [`PAGE_SEGMENTS`] lines, and none has no line: so page `n` begins with segment `n` ×
//! [`PAGE_SEGMENTS`].

use serde::{Deserialize, Serialize};

use super::{
    canonical,
    digest::Blake3,
    layout::{PageName, Part, SegmentName},
    segment::SEGMENT_LIMIT_BYTES,
};
use crate::io::bucket::Version;

/// Lines in a page: 64 GiB of segments, in less than 1 MiB.
pub const PAGE_SEGMENTS: u32 = 4096;

/// The largest page that is read. S3 allows versions of 1024 bytes; the rest of a line is less than 256.
pub const PAGE_LIMIT_BYTES: u64 = PAGE_SEGMENTS as u64 * 1280;

/// What the index says of one segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its key within the attempt's folder.
    pub key: SegmentName,
    /// The version that the store made of it; `null` where it makes none.
    pub version: Option<Version>,
    /// Bytes of ciphertext.
    pub size: u64,
    /// Digest of the ciphertext: who has no key can verify it.
    pub blake3: Blake3,
    /// Bytes of the tar stream that are in it.
    pub plain: u64,
}

/// A page is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the page {what}")]
pub struct InvalidPage {
    /// Counted from 1; 0 for the page as a whole.
    line: usize,
    what: String,
}

/// A page that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its key within the attempt's folder.
    pub name: PageName,
    /// Its lines.
    pub bytes: Vec<u8>,
    /// How many.
    pub segments: u32,
}

/// Collects the entries of one part into pages. Holds one page at most.
#[derive(Debug)]
pub struct Pages {
    part: Part,
    next: u32,
    lines: Vec<u8>,
    segments: u32,
}

impl Pages {
    /// None yet.
    pub fn of(part: Part) -> Self {
        Self { part, next: 0, lines: Vec::new(), segments: 0 }
    }

    /// Adds `entry`, the next of its part, and returns the page that it completes.
    pub fn push(&mut self, entry: &Entry) -> Result<Option<Page>, canonical::Error> {
        self.lines.append(&mut canonical::to_vec(entry)?);
        self.lines.push(b'\n');
        self.segments += 1;
        Ok(if self.segments == PAGE_SEGMENTS { self.finish() } else { None })
    }

    /// The last page, if it has a line.
    pub fn finish(&mut self) -> Option<Page> {
        // There can be no more pages: segments run out of digits first.
        let name = PageName::new(self.part, self.next).filter(|_| self.segments > 0)?;
        self.next += 1;
        let segments = std::mem::take(&mut self.segments);
        Some(Page { name, bytes: std::mem::take(&mut self.lines), segments })
    }
}

/// The entries of the page `name`.
///
/// # Errors
/// If a line does not parse, is not the next segment of the part, or is of a size that no segment has.
pub fn parse(name: PageName, bytes: &[u8]) -> Result<Vec<Entry>, InvalidPage> {
    let whole = |what: &str| InvalidPage { line: 0, what: what.to_owned() };
    let lines = bytes.strip_suffix(b"\n").ok_or_else(|| whole("has no line feed at its end"))?;
    let first = u64::from(name.number()) * u64::from(PAGE_SEGMENTS);
    let mut entries = Vec::new();
    for (number, line) in lines.split(|byte| *byte == b'\n').enumerate() {
        let invalid = |what: String| InvalidPage { line: number + 1, what };
        if entries.len() == PAGE_SEGMENTS as usize {
            return Err(invalid("is one too many".to_owned()));
        }
        let entry: Entry =
            serde_json::from_slice(line).map_err(|error| invalid(format!("does not parse: {error}")))?;
        let expected = first + number as u64;
        if entry.key.part != name.part || u64::from(entry.key.number()) != expected {
            return Err(invalid(format!("is {} instead of segment {expected} of {}", entry.key, name.part)));
        }
        if entry.size == 0 || entry.size > SEGMENT_LIMIT_BYTES as u64 || entry.plain == 0 {
            return Err(invalid(format!("has the size {}", entry.size)));
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u32) -> Entry {
        Entry {
            key: SegmentName::new(Part::Database, number).unwrap(),
            version: Some(Version::new("01KAN")),
            size: 1000,
            blake3: Blake3::of(&number.to_be_bytes()),
            plain: 3000,
        }
    }

    fn pages(segments: u32) -> Vec<Page> {
        let mut pages = Pages::of(Part::Database);
        let mut whole: Vec<Page> =
            (0..segments).filter_map(|number| pages.push(&entry(number)).unwrap()).collect();
        whole.extend(pages.finish());
        whole
    }

    #[test]
    fn a_line_reads_as_documented() {
        let page = pages(1).remove(0);

        assert_eq!(page.name.to_string(), "index/database-00000.jsonl");
        assert_eq!(
            String::from_utf8(page.bytes).unwrap(),
            "{\"blake3\":\"ec2bd03bf86b935fa34d71ad7ebb049f1f10f87d343e521511d8f9e6625620cd\",\
             \"key\":\"database/00000000.age\",\"plain\":3000,\"size\":1000,\"version\":\"01KAN\"}\n",
        );
    }

    #[test]
    fn every_entry_is_in_one_page_in_order_and_only_the_last_page_is_short() {
        for segments in [0, 1, PAGE_SEGMENTS - 1, PAGE_SEGMENTS, PAGE_SEGMENTS + 1] {
            let pages = pages(segments);
            let read: Vec<Entry> =
                pages.iter().flat_map(|page| parse(page.name, &page.bytes).unwrap()).collect();

            assert_eq!(pages.len(), segments.div_ceil(PAGE_SEGMENTS) as usize);
            assert_eq!(read, (0..segments).map(entry).collect::<Vec<_>>());
            assert!(pages.iter().all(|page| page.segments > 0));
        }
    }

    #[test]
    fn a_page_whose_lines_are_not_the_part_s_next_segments_is_refused() {
        let page = pages(3).remove(0);
        let lines: Vec<&[u8]> = page.bytes.split_inclusive(|byte| *byte == b'\n').collect();
        let swapped = [lines[0], lines[2], lines[1]].concat();
        let missing = [lines[0], lines[2]].concat();
        let twice = [lines[0], lines[0]].concat();
        let truncated = &page.bytes[..page.bytes.len() - 1];
        let other_part = PageName::new(Part::Tenant, 0).unwrap();
        let later = PageName::new(Part::Database, 1).unwrap();

        for bytes in [&swapped[..], &missing, &twice, truncated, b"", b"\n", b"{}\n"] {
            assert!(parse(page.name, bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        assert!(parse(other_part, &page.bytes).is_err());
        assert!(parse(later, &page.bytes).is_err());
    }

    #[test]
    fn a_segment_that_would_not_fit_into_memory_is_refused() {
        let mut large = entry(0);
        large.size = SEGMENT_LIMIT_BYTES as u64 + 1;
        let mut pages = Pages::of(Part::Database);
        pages.push(&large).unwrap();
        let page = pages.finish().unwrap();

        assert!(parse(page.name, &page.bytes).is_err());
    }
}
