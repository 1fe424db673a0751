//! Headers of a tar stream: POSIX ustar, with pax records for what does not fit.
//!
//! Pure: what a file is in, blocks out.
//! Source: <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html>, "pax Header Block" and
//! "ustar Interchange Format"

/// Everything in a tar stream comes in blocks of this size.
pub const BLOCK_BYTES: usize = 512;

/// The end of a stream: two blocks of zeros.
pub const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// Of a path or a link's target in the header itself.
const NAME_BYTES: usize = 100;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A file with so many bytes.
    File {
        /// Its size.
        bytes: u64,
    },
    /// A folder.
    Folder,
    /// A symbolic link, with what it says.
    Link {
        /// Where it points to: not looked at.
        target: &'a [u8],
    },
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its path in the folder; a folder's without a slash at its end.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind<'a>,
    /// Its permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was changed, in seconds of Unix time.
    pub modified: i64,
}

impl Entry<'_> {
    /// Its header, with what goes before.
    pub fn header(&self) -> Vec<u8> {
        let (kind, bytes, target) = match self.kind {
            Kind::File { bytes } => (b'0', bytes, &b""[..]),
            Kind::Folder => (b'5', 0, &b""[..]),
            Kind::Link { target } => (b'2', 0, target),
        };
        let mut path = self.path.to_vec();
        if self.kind == Kind::Folder {
            path.push(b'/');
        }
        let modified = u64::try_from(self.modified).unwrap_or_default();
        let mut records = Vec::new();
        if path.len() > NAME_BYTES {
            record(&mut records, "path", &path);
        }
        if target.len() > NAME_BYTES {
            record(&mut records, "linkpath", target);
        }
        for (name, number, digits) in [
            ("size", bytes, 11),
            ("uid", self.uid.into(), 7),
            ("gid", self.gid.into(), 7),
            ("mtime", modified, 11),
        ] {
            if octal(number, digits).is_none() {
                record(&mut records, name, number.to_string().as_bytes());
            }
        }

        let mut header = Vec::with_capacity(3 * BLOCK_BYTES);
        if !records.is_empty() {
            let size = records.len() as u64;
            header.extend_from_slice(&block(b"pax", b'x', size, &[], 0o644, 0, 0, 0));
            header.extend_from_slice(&records);
            pad(&mut header);
        }
        header.extend_from_slice(&block(
            &path,
            kind,
            bytes,
            target,
            self.mode,
            self.uid.into(),
            self.gid.into(),
            modified,
        ));
        header
    }
}

/// Zeros up to the end of a block.
pub fn pad(stream: &mut Vec<u8>) {
    stream.resize(stream.len().next_multiple_of(BLOCK_BYTES), 0);
}

/// How many zeros come after a file with so many bytes.
pub fn padding(bytes: u64) -> usize {
    const BLOCK: u64 = BLOCK_BYTES as u64;
    // Less than a block.
    usize::try_from(bytes.next_multiple_of(BLOCK) - bytes).unwrap_or_default()
}

/// One pax record: its own length, a space, `name=value`, a line break.
fn record(records: &mut Vec<u8>, name: &str, value: &[u8]) {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {name}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// `number` as so many octal digits, if they do.
fn octal(number: u64, digits: usize) -> Option<String> {
    let text = format!("{number:0digits$o}");
    (text.len() == digits).then_some(text)
}

#[expect(clippy::too_many_arguments, reason = "they are the fields of a header")]
fn block(
    path: &[u8],
    kind: u8,
    bytes: u64,
    target: &[u8],
    mode: u32,
    uid: u64,
    gid: u64,
    modified: u64,
) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, content: &[u8]| {
        for (place, byte) in block.iter_mut().skip(at).zip(content) {
            *place = *byte;
        }
    };
    let cut = |text: &[u8]| text.get(..NAME_BYTES).unwrap_or(text).to_vec();
    // What does not fit is in a pax record.
    let number = |number, digits| octal(number, digits).unwrap_or_else(|| "0".repeat(digits));
    put(0, &cut(path));
    put(100, number((mode & 0o7777).into(), 7).as_bytes());
    put(108, number(uid, 7).as_bytes());
    put(116, number(gid, 7).as_bytes());
    put(124, number(bytes, 11).as_bytes());
    put(136, number(modified, 11).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &cut(target));
    put(257, b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    for (place, byte) in block.iter_mut().skip(148).zip(sum.as_bytes()) {
        *place = *byte;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(path: &'a [u8], kind: Kind<'a>) -> Entry<'a> {
        Entry { path, kind, mode: 0o100_640, uid: 999, gid: 999, modified: 1_795_000_000 }
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for length in [1, 80, 92, 93, 94, 991, 992, 1000] {
            let mut records = Vec::new();

            record(&mut records, "path", &vec![b'a'; length]);

            let text = String::from_utf8(records.clone()).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), records.len());
        }
    }

    #[test]
    fn an_ordinary_file_takes_one_block_and_a_long_name_three() {
        let file = Kind::File { bytes: 1234 };

        assert_eq!(entry(b"a/b.pdf", file).header().len(), BLOCK_BYTES);
        assert_eq!(entry(&[b'a'; 101], file).header().len(), 3 * BLOCK_BYTES);
        assert_eq!(entry(b"a", Kind::File { bytes: 1 << 33 }).header().len(), 3 * BLOCK_BYTES);
        assert_eq!(Entry { uid: 1_000_680_000, ..entry(b"a", file) }.header().len(), 3 * BLOCK_BYTES);
    }

    #[test]
    fn a_file_is_filled_up_to_the_next_block() {
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }
}
