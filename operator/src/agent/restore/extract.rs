//! Puts the entries of a tar stream into a folder, and nowhere else.
//!
//! # Guarantees
//! - Nothing outside the folder is touched, whatever the stream says: a path that is absolute or has `..` in it is
//!   an error, and each folder on the way is opened from the one above it without following a link.
//! - Of several entries with the same path the last wins, as with `tar`.
//! - A link that points out of the folder is left out and counted: what it pointed to is not in the backup.
//! - Files belong to whoever runs this. No message has a path in it: names of attachments are data.
//! - Memory: one piece of a file.

use std::{
    fs::File,
    io::{self, BufRead, Write},
    num::NonZeroU64,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        Advice, AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, fadvise, fchmod, futimens, mkdirat, openat,
        symlinkat, unlinkat,
    },
    io::Errno,
};

use super::untar::{self, Entries, Entry, Kind};

/// Bytes of a file that are written before the volume is told to begin with them.
const WRITE_BEHIND_BYTES: u64 = 8 << 20;

/// Folders within folders, as many as a backup has at most.
const DEEPEST: usize = 256;

/// How files are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// As PostgreSQL wants its own: for nobody else, and without links.
    Private,
    /// As they were; and what their owner may, their group may too, since another user of the same group reads
    /// them. Links stay, as far as they point to something in the folder.
    Shared,
}

/// What was put into the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Files, one that came twice counted twice.
    pub files: u64,
    /// Links that pointed out of the folder.
    pub left_out: u64,
}

/// The stream could not be put into the folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream.
    #[error("failed to understand what was backed up")]
    Stream(#[source] untar::Error),
    /// An entry that no backup has.
    #[error("entry {entry} of the tar stream {what}")]
    Refused {
        /// Counted from 1.
        entry: u64,
        /// What it is.
        what: &'static str,
    },
    /// The folder.
    #[error("failed to {doing} entry {entry} of the tar stream; is the volume large enough?")]
    Write {
        /// What was being done.
        doing: &'static str,
        /// Counted from 1; 0 for the folder itself.
        entry: u64,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// Whether it is the backup that is not as it must be, and not the volume.
    pub fn is_of_the_backup(&self) -> bool {
        match self {
            Self::Stream(untar::Error::Read(_)) | Self::Write { .. } => false,
            Self::Stream(_) | Self::Refused { .. } => true,
        }
    }
}

/// Puts all of `stream` into the folder at `root`, which is there.
pub fn extract(stream: impl BufRead, root: &Path, rules: Rules) -> Result<Extracted, Error> {
    let failed =
        |source: Errno| Error::Write { doing: "open the folder for", entry: 0, source: source.into() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, root, flags, Mode::empty()).map_err(failed)?;
    let mut entries = Entries::of(stream);
    let mut target = Target { root, rules, open: None, extracted: Extracted::default() };
    while let Some(entry) = entries.next_entry().map_err(Error::Stream)? {
        target.put(&entry, &mut entries)?;
    }
    Ok(target.extracted)
}

struct Target {
    root: OwnedFd,
    rules: Rules,
    /// The folder that the last entry was put into: the next one mostly goes there too.
    open: Option<(Vec<u8>, OwnedFd)>,
    extracted: Extracted,
}

impl Target {
    fn put<R: BufRead>(&mut self, entry: &Entry, entries: &mut Entries<R>) -> Result<(), Error> {
        let number = entries.number();
        let refused = |what| Error::Refused { entry: number, what };
        let pieces = pieces(&entry.path).map_err(refused)?;
        match &entry.kind {
            Kind::Folder => {
                let mode = match self.rules {
                    Rules::Private => 0o700,
                    Rules::Shared => shared(entry.mode) | 0o770,
                };
                let folder = self.folder(&pieces, number)?;
                // The folder itself is the volume's, and stays as it is.
                if pieces.is_empty() {
                    return Ok(());
                }
                fchmod(folder, Mode::from_raw_mode(mode)).map_err(write("make", number))
            }
            Kind::File { bytes } => {
                let (name, above) = pieces.split_last().ok_or_else(|| refused("is a file without a name"))?;
                let rules = self.rules;
                let folder = self.folder(above, number)?;
                let mut file = create(folder, name, number)?;
                let copied = copy(entries.content(*bytes), &mut file);
                let copied =
                    copied.map_err(|source| Error::Write { doing: "write", entry: number, source })?;
                if copied != *bytes {
                    return Err(Error::Stream(untar::Error::Truncated { entry: number }));
                }
                let mode = match rules {
                    Rules::Private => 0o600,
                    Rules::Shared => shared(entry.mode) | 0o660,
                };
                fchmod(&file, Mode::from_raw_mode(mode)).map_err(write("finish", number))?;
                let modified = Timespec { tv_sec: entry.modified, tv_nsec: 0 };
                let times = Timestamps { last_access: modified, last_modification: modified };
                futimens(&file, &times).map_err(write("finish", number))?;
                self.extracted.files += 1;
                Ok(())
            }
            Kind::Link { target } => {
                if self.rules == Rules::Private {
                    return Err(refused("is a link, which no backup of a database has"));
                }
                let (name, above) = pieces.split_last().ok_or_else(|| refused("is a link without a name"))?;
                if !stays_inside(above.len(), target) {
                    self.extracted.left_out += 1;
                    return Ok(());
                }
                let folder = self.folder(above, number)?;
                remove(folder, name, number)?;
                symlinkat(target.as_slice(), folder, *name).map_err(write("make", number))
            }
        }
    }

    /// The folder at `pieces`, made where it is missing.
    fn folder(&mut self, pieces: &[&[u8]], number: u64) -> Result<&OwnedFd, Error> {
        let path = pieces.join(&b'/');
        if self.open.as_ref().is_none_or(|(open, _)| *open != path) {
            let dup = self.root.try_clone();
            let mut folder =
                dup.map_err(|source| Error::Write { doing: "open the folder for", entry: number, source })?;
            for piece in pieces {
                folder = enter(&folder, piece, number)?;
            }
            self.open = Some((path, folder));
        }
        match &self.open {
            Some((_, folder)) => Ok(folder),
            None => Ok(&self.root),
        }
    }
}

/// Writes all of `content` to `file`, from where it lies, and has the volume begin with it at once: what is made
/// lasting at the end has then mostly been written.
fn copy(mut content: impl BufRead, file: &mut File) -> io::Result<u64> {
    let (mut written, mut begun) = (0, 0);
    loop {
        let piece = content.fill_buf()?;
        let bytes = piece.len();
        if bytes > 0 {
            file.write_all(piece)?;
            content.consume(bytes);
            written += bytes as u64;
        }
        if written - begun >= WRITE_BEHIND_BYTES || (bytes == 0 && written > begun) {
            write_out(file, begun, written);
            begun = written;
        }
        if bytes == 0 {
            return Ok(written);
        }
    }
}

/// Has the kernel begin to write these bytes of `file` to its volume, and waits for nothing. What cannot be begun
/// is written later.
///
/// # Source
/// `posix_fadvise(2)`, `POSIX_FADV_DONTNEED`: pages that are not written yet are begun with, and stay in memory.
fn write_out(file: &File, from: u64, to: u64) {
    let _ = fadvise(file, from, NonZeroU64::new(to - from), Advice::DontNeed);
}

fn enter(above: &OwnedFd, name: &[u8], number: u64) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(above, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            mkdirat(above, name, Mode::from_raw_mode(0o770)).map_err(write("make the folder of", number))?;
            openat(above, name, flags, Mode::empty()).map_err(write("open the folder of", number))
        }
        opened => opened.map_err(write("open the folder of", number)),
    }
}

/// A new file, in the place of whatever has its name.
fn create(folder: &OwnedFd, name: &[u8], number: u64) -> Result<File, Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    match openat(folder, name, flags, mode) {
        Err(Errno::EXIST) => {
            remove(folder, name, number)?;
            openat(folder, name, flags, mode).map(File::from).map_err(write("make", number))
        }
        opened => opened.map(File::from).map_err(write("make", number)),
    }
}

fn remove(folder: &OwnedFd, name: &[u8], number: u64) -> Result<(), Error> {
    match unlinkat(folder.as_fd(), name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(write("replace", number)(errno)),
    }
}

fn write(doing: &'static str, entry: u64) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Write { doing, entry, source: errno.into() }
}

/// The names on a path below the folder.
fn pieces(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.first() == Some(&b'/') {
        return Err("has an absolute path");
    }
    if path.contains(&0) {
        return Err("has a zero byte in its path");
    }
    let pieces: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|piece| !piece.is_empty() && *piece != b".").collect();
    if pieces.contains(&&b".."[..]) {
        return Err("has a path that leads out of the folder");
    }
    if pieces.len() > DEEPEST {
        return Err("lies too deep");
    }
    Ok(pieces)
}

/// Whether a link so many folders deep points to something in the folder.
fn stays_inside(depth: usize, target: &[u8]) -> bool {
    if target.first() == Some(&b'/') || target.contains(&0) || target.is_empty() {
        return false;
    }
    let mut depth = depth;
    for piece in target.split(|byte| *byte == b'/') {
        match piece {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    true
}

/// What the owner may, the group may too. Nothing that changes who a program runs as.
fn shared(mode: u32) -> u32 {
    let mode = mode & 0o777;
    mode | (mode & 0o700) >> 3
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;
    use crate::agent::backup::tar;

    fn stream(entries: &[(&[u8], tar::Kind<'_>, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (path, kind, content) in entries {
            let entry =
                tar::Entry { path, kind: *kind, mode: 0o104_640, uid: 0, gid: 0, modified: 1_795_000_000 };
            bytes.extend(entry.header());
            bytes.extend_from_slice(content);
            tar::pad(&mut bytes);
        }
        bytes.extend(tar::END);
        bytes
    }

    fn file(bytes: u64) -> tar::Kind<'static> {
        tar::Kind::File { bytes }
    }

    fn link(target: &[u8]) -> tar::Kind<'_> {
        tar::Kind::Link { target }
    }

    #[test]
    fn files_get_the_permissions_that_their_readers_need() {
        for (rules, file_mode, folder_mode) in [(Rules::Private, 0o600, 0o700), (Rules::Shared, 0o660, 0o770)]
        {
            let folder = tempfile::tempdir().unwrap();
            let stream = stream(&[
                (b"ab", tar::Kind::Folder, b""),
                (b"ab/c", file(3), b"abc"),
                (b"d/e", file(0), b""),
            ]);

            let extracted = extract(&stream[..], folder.path(), rules).unwrap();

            assert_eq!(extracted, Extracted { files: 2, left_out: 0 });
            let mode =
                |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o7777;
            assert_eq!((mode("ab/c"), mode("ab")), (file_mode, folder_mode));
            assert_eq!(fs::read(folder.path().join("ab/c")).unwrap(), b"abc");
            assert!(folder.path().join("d/e").exists());
        }
    }

    #[test]
    fn nothing_leaves_the_folder() {
        let outside = tempfile::tempdir().unwrap();
        let at = |name: &str| outside.path().join(name);
        let absolute = at("absolute").into_os_string().into_encoded_bytes();
        for path in [&b"../up"[..], b"a/../../up", b"a/..", &absolute] {
            let folder = outside.path().join("folder");
            fs::create_dir_all(&folder).unwrap();

            let error = extract(&stream(&[(path, file(1), b"x")])[..], &folder, Rules::Shared).unwrap_err();

            assert!(
                matches!(error, Error::Refused { entry: 1, .. }) && error.is_of_the_backup(),
                "{error:?}"
            );
        }
        // Whoever made a link beforehand is not followed either.
        let folder = at("folder");
        symlink(outside.path(), folder.join("out")).unwrap();
        let through = extract(&stream(&[(b"out/up", file(1), b"x")])[..], &folder, Rules::Shared);
        assert!(through.is_err());
        assert!(!at("up").exists() && !at("absolute").exists());
    }

    #[test]
    fn links_that_point_out_are_left_out_and_a_database_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let entries = [
            (&b"a/in"[..], link(b"../b/c"), &b""[..]),
            (b"a/up", link(b"../../x"), b""),
            (b"root", link(b"/etc/passwd"), b""),
        ];

        let extracted = extract(&stream(&entries)[..], folder.path(), Rules::Shared).unwrap();

        assert_eq!(extracted.left_out, 2);
        assert_eq!(fs::read_link(folder.path().join("a/in")).unwrap(), Path::new("../b/c"));
        assert!(!folder.path().join("a/up").is_symlink() && !folder.path().join("root").is_symlink());
        assert!(extract(&stream(&entries)[..], folder.path(), Rules::Private).is_err());
    }

    #[test]
    fn of_two_entries_with_one_path_the_last_wins() {
        let folder = tempfile::tempdir().unwrap();
        let entries = [(&b"log"[..], file(3), &b"old"[..]), (b"log", file(5), b"newer")];

        extract(&stream(&entries)[..], folder.path(), Rules::Shared).unwrap();

        assert_eq!(fs::read(folder.path().join("log")).unwrap(), b"newer");
    }

    #[test]
    fn a_file_of_many_pieces_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = usize::try_from(2 * WRITE_BEHIND_BYTES).unwrap() + 5000;
        let content: Vec<u8> = (0..bytes).map(|number| (number % 251) as u8).collect();
        let stream = stream(&[(b"large", file(bytes as u64), &content), (b"after", file(1), b"x")]);
        let pieces = io::BufReader::with_capacity(100_003, &stream[..]);

        extract(pieces, folder.path(), Rules::Private).unwrap();

        assert!(fs::read(folder.path().join("large")).unwrap() == content);
        assert_eq!(fs::read(folder.path().join("after")).unwrap(), b"x");
    }

    #[test]
    fn a_stream_that_ends_within_a_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let whole = stream(&[(b"a", file(2000), &[7; 2000])]);

        let error = extract(&whole[..1024], folder.path(), Rules::Private).unwrap_err();

        assert!(matches!(error, Error::Stream(untar::Error::Truncated { .. })), "{error:?}");
    }
}
