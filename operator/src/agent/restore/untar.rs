//! Entries of a tar stream: what [`tar`](crate::agent::backup::tar) and PostgreSQL's `pg_basebackup` write.
//!
//! Reads POSIX ustar with pax records, and sizes in base 256 as GNU and PostgreSQL write them. Believes no path:
//! that is for [`extract`](super::extract). Holds one block and the records of one entry.
//! Source: <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html>

use std::io::{self, BufRead, Read};

use crate::agent::backup::tar::{BLOCK_BYTES, padding};

/// The most bytes of one entry's pax records: a path and a link's target, with room.
const RECORDS_LIMIT_BYTES: u64 = 64 * 1024;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with so many bytes, which come next in the stream.
    File {
        /// Its size.
        bytes: u64,
    },
    /// A folder.
    Folder,
    /// A symbolic link.
    Link {
        /// Where it points to.
        target: Vec<u8>,
    },
}

/// One entry, as the stream has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path, not yet believed.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Its permissions.
    pub mode: u32,
    /// When it was changed, in seconds of Unix time.
    pub modified: i64,
}

/// The stream is not one that a backup has.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It ends early.
    #[error("the tar stream ends early, in entry {entry}")]
    Truncated {
        /// Counted from 1.
        entry: u64,
    },
    /// It cannot be read.
    #[error("failed to read the tar stream")]
    Read(#[source] io::Error),
    /// Something in it is not as it must be. Says where, and never a name: names of attachments are data.
    #[error("entry {entry} of the tar stream {what}")]
    Malformed {
        /// Counted from 1.
        entry: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Reads entries, one after the other.
#[derive(Debug)]
pub struct Entries<R> {
    stream: R,
    number: u64,
    /// Bytes of the last file's padding.
    skip: usize,
}

impl<R: BufRead> Entries<R> {
    /// The entries of `stream`.
    pub fn of(stream: R) -> Self {
        Self { stream, number: 0, skip: 0 }
    }

    /// Which entry [`next_entry`](Self::next_entry) returned last, counted from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next entry; `None` at the end. A file's bytes must be read from [`content`](Self::content) before the
    /// next call.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        self.number += 1;
        let mut padding_bytes = [0; BLOCK_BYTES];
        let skip = std::mem::take(&mut self.skip);
        self.fill(padding_bytes.get_mut(..skip).unwrap_or_default())?;
        let mut records = Records::default();
        loop {
            let mut block = [0; BLOCK_BYTES];
            self.fill(&mut block)?;
            if block.iter().all(|byte| *byte == 0) {
                self.drain()?;
                return Ok(None);
            }
            self.check_sum(&block)?;
            let size = number(field(&block, 124, 12)).ok_or_else(|| self.malformed("has no size"))?;
            match block[156] {
                b'x' => records = self.records(size)?,
                // Of the whole stream; nothing in it concerns us.
                b'g' => drop(self.records(size)?),
                kind => return self.entry(&block, kind, size, records).map(Some),
            }
        }
    }

    /// The bytes of the file that came last; its reader must take all of them.
    pub fn content(&mut self, bytes: u64) -> impl BufRead + '_ {
        self.skip = padding(bytes);
        (&mut self.stream).take(bytes)
    }

    fn entry(&self, block: &[u8], kind: u8, size: u64, records: Records) -> Result<Entry, Error> {
        let path = records.path.unwrap_or_else(|| text(field(block, 0, 100)).to_vec());
        let kind = match kind {
            b'0' | 0 => Kind::File { bytes: records.size.unwrap_or(size) },
            b'5' => Kind::Folder,
            b'2' => {
                Kind::Link { target: records.target.unwrap_or_else(|| text(field(block, 157, 100)).to_vec()) }
            }
            _ => return Err(self.malformed("is neither a file nor a folder nor a symbolic link")),
        };
        let prefix = text(field(block, 345, 155));
        if !prefix.is_empty() && block.get(257..263) == Some(b"ustar\0") {
            return Err(self.malformed("has its path in two pieces, which no backup has"));
        }
        let mode = number(field(block, 100, 8)).and_then(|mode| u32::try_from(mode).ok());
        let modified = records.modified.or_else(|| number(field(block, 136, 12))).unwrap_or_default();
        Ok(Entry {
            path,
            kind,
            mode: mode.ok_or_else(|| self.malformed("has no permissions"))?,
            modified: i64::try_from(modified).unwrap_or_default(),
        })
    }

    fn check_sum(&self, block: &[u8; BLOCK_BYTES]) -> Result<(), Error> {
        let found: u64 = block
            .iter()
            .enumerate()
            .map(|(place, byte)| if (148..156).contains(&place) { 32 } else { u64::from(*byte) })
            .sum();
        if number(field(block, 148, 8)) == Some(found) {
            Ok(())
        } else {
            Err(self.malformed("has a header with a wrong sum"))
        }
    }

    fn records(&mut self, size: u64) -> Result<Records, Error> {
        if size > RECORDS_LIMIT_BYTES {
            return Err(self.malformed("has too many records"));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default() + padding(size)];
        self.fill(&mut bytes)?;
        bytes.truncate(usize::try_from(size).unwrap_or_default());
        Records::parse(&bytes).ok_or_else(|| self.malformed("has records that cannot be read"))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.stream.read_exact(bytes).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                Error::Truncated { entry: self.number }
            } else {
                Error::Read(error)
            }
        })
    }

    /// Whatever comes after the end: more zeros.
    fn drain(&mut self) -> Result<(), Error> {
        io::copy(&mut self.stream, &mut io::sink()).map(drop).map_err(Error::Read)
    }

    fn malformed(&self, what: &'static str) -> Error {
        Error::Malformed { entry: self.number, what }
    }
}

/// What pax records say of the next entry.
#[derive(Debug, Default, PartialEq, Eq)]
struct Records {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<u64>,
}

impl Records {
    /// Reads `<length> <name>=<value>\n`, again and again.
    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
            let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (record.get(..equals)?, record.get(equals + 1..)?);
            let digits =
                || std::str::from_utf8(value).ok().and_then(|text| text.split('.').next()?.parse().ok());
            match name {
                b"path" => records.path = Some(value.to_vec()),
                b"linkpath" => records.target = Some(value.to_vec()),
                b"size" => records.size = Some(digits()?),
                b"mtime" => records.modified = digits(),
                _ => {}
            }
            bytes = bytes.get(length..)?;
        }
        Some(records)
    }
}

fn field(block: &[u8], at: usize, length: usize) -> &[u8] {
    block.get(at..at + length).unwrap_or_default()
}

/// Up to the first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits; or, with the first bit set, the rest in base 256.
fn number(field: &[u8]) -> Option<u64> {
    if field.first().is_some_and(|byte| byte & 0x80 != 0) {
        let mut number: u64 = 0;
        for (place, byte) in field.iter().enumerate() {
            let byte = if place == 0 { byte & 0x7f } else { *byte };
            number = number.checked_mul(256)?.checked_add(byte.into())?;
        }
        return Some(number);
    }
    let digits = std::str::from_utf8(text(field)).ok()?.trim();
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::backup::tar;

    fn header(path: &[u8], kind: tar::Kind<'_>) -> Vec<u8> {
        tar::Entry { path, kind, mode: 0o100_640, uid: 999, gid: 999, modified: 1_795_000_000 }.header()
    }

    #[test]
    fn entries_come_back_as_they_were_written() {
        let (long, target) = (vec![b'a'; 300], vec![b'b'; 200]);
        let mut stream = header(b"folder", tar::Kind::Folder);
        stream.extend(header(&long, tar::Kind::File { bytes: 3 }));
        stream.extend(b"abc");
        tar::pad(&mut stream);
        stream.extend(header(b"link", tar::Kind::Link { target: &target }));
        stream.extend(tar::END);
        let mut entries = Entries::of(&stream[..]);

        let folder = entries.next_entry().unwrap().unwrap();
        let file = entries.next_entry().unwrap().unwrap();
        let mut content = Vec::new();
        entries.content(3).read_to_end(&mut content).unwrap();
        let link = entries.next_entry().unwrap().unwrap();

        assert_eq!((folder.path.as_slice(), folder.kind), (&b"folder/"[..], Kind::Folder));
        assert_eq!((file.path, file.kind, content), (long, Kind::File { bytes: 3 }, b"abc".to_vec()));
        assert_eq!((file.mode & 0o777, file.modified), (0o640, 1_795_000_000));
        assert_eq!(link.kind, Kind::Link { target });
        assert_eq!(entries.next_entry().unwrap(), None);
    }

    #[test]
    fn a_stream_that_ends_early_or_is_no_tar_is_an_error() {
        let whole = [header(b"a", tar::Kind::Folder), tar::END.to_vec()].concat();
        let mut wrong_sum = whole.clone();
        wrong_sum[0] ^= 1;
        let mut device = header(b"a", tar::Kind::Folder);
        device[156] = b'3';
        // The sum counts the changed byte.
        let sum: u64 = device
            .iter()
            .enumerate()
            .map(|(n, b)| if (148..156).contains(&n) { 32 } else { u64::from(*b) })
            .sum();
        device[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());

        let all = |bytes: &[u8]| {
            let mut entries = Entries::of(bytes);
            loop {
                match entries.next_entry() {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(error) => return Some(error),
                }
            }
        };
        assert!(all(&whole).is_none());
        assert!(matches!(all(&whole[..512]), Some(Error::Truncated { entry: 2 })));
        assert!(matches!(all(&wrong_sum), Some(Error::Malformed { entry: 1, .. })));
        assert!(matches!(all(&device), Some(Error::Malformed { .. })));
    }

    #[test]
    fn numbers_are_read_in_both_ways() {
        assert_eq!(number(b"00000001750\0"), Some(1000));
        assert_eq!(number(b"       17 \0"), Some(15));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]), Some((2 << 32) + 1));
        assert_eq!(number(b"9"), None);
    }
}
