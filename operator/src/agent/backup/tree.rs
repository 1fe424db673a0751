//! A folder as a tar stream, with an inventory of what was in it.
//!
//! # Shape
//! Entries in the order of their paths, byte by byte, a folder's with a slash at its end: the same folder is
//! the same stream. The inventory is a line `<BLAKE3>  <path>` for each file, in that order, as
//! `find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 b3sum` prints it.
//!
//! # Guarantees
//! - No symbolic link is followed, anywhere below the folder, whoever changes the tree meanwhile: each folder
//!   is opened from the one above it. A link is stored as a link. Sockets, pipes and devices are left out.
//! - A file whose size or time changes while it is read is sent again at once, up to [`TRIES`] times in all: with
//!   `tar` the last wins. Its length is always that of its header: what grew meanwhile is cut, what shrank is filled
//!   up with zeros. The inventory has what was sent last. One that goes between the listing of its folder and its
//!   turn is left out.
//! - No error and no log line has a name in it: names of attachments are data. An entry is told by its number, in the
//!   order of the paths.
//! - Memory: the names of the folders on one path, 256 KiB of each file.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};

use bytes::{Buf, Bytes};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat},
    io::Errno,
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::mpsc,
    task::spawn_blocking,
};
use tracing::{info, warn};

use super::tar::{self, Entry, Kind};
use crate::archive::digest::Blake3;

/// Bytes that are handed on at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Chunks that wait.
const CHUNKS_WAITING: usize = 2;

/// How often a file that does not stand still is sent.
const TRIES: u32 = 4;

/// Time between two tries.
const BETWEEN_TRIES: Duration = Duration::from_millis(200);

/// Folders within folders: each holds one file descriptor.
const DEEPEST: usize = 200;

/// A folder cannot be read whole.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The folder itself.
    #[error("failed to {doing} the folder {}", path.display())]
    Folder {
        /// What was being done.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// A file or folder in it.
    #[error("failed to {doing} entry {entry} of {}, counted in the order of the paths", root.display())]
    Entry {
        /// What was being done.
        doing: &'static str,
        /// In which folder.
        root: PathBuf,
        /// Which entry, from 1.
        entry: u64,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// A file became something else.
    #[error("entry {entry} of {} became something else while the folder was read", root.display())]
    Changed {
        /// In which folder.
        root: PathBuf,
        /// Which entry, from 1.
        entry: u64,
    },
    /// Folders within folders, without end.
    #[error("entry {entry} of {} lies deeper than {DEEPEST} folders", root.display())]
    TooDeep {
        /// In which folder.
        root: PathBuf,
        /// Which entry, from 1.
        entry: u64,
    },
    /// A thread of ours ended early.
    #[error("failed to finish reading the folder")]
    Worker,
}

/// What was in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Files.
    pub files: u64,
    /// Digest of the inventory's lines.
    pub digest: Blake3,
}

enum Message {
    Chunk(Bytes),
    End(Inventory),
    Failed(Error),
}

/// The tar stream of a folder. Read on a thread of its own, which ends when this value is dropped.
#[derive(Debug)]
pub struct TarStream {
    chunks: mpsc::Receiver<Message>,
    chunk: Bytes,
    inventory: Option<Inventory>,
    failed: Option<Error>,
}

impl TarStream {
    /// Begins to read the folder at `path`.
    pub fn of(path: PathBuf) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
        spawn_blocking(move || {
            let mut writer = Writer::of(path, sender);
            let outcome = match writer.all() {
                Ok(inventory) => Message::End(inventory),
                Err(Stop::Failed(error)) => Message::Failed(error),
                Err(Stop::Gone) => return,
            };
            let _ = writer.chunks.blocking_send(outcome);
        });
        Self { chunks, chunk: Bytes::new(), inventory: None, failed: None }
    }

    /// What was in the folder, after the end of the stream; before, or after a failure, nothing.
    pub fn inventory(&self) -> Option<Inventory> {
        self.inventory
    }

    /// Why the stream failed, if it did.
    pub fn failure(&self) -> Option<Error> {
        self.failed.clone()
    }
}

impl AsyncRead for TarStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.chunk.is_empty() && self.inventory.is_none() {
            let message = ready!(self.chunks.poll_recv(context));
            match message {
                Some(Message::Chunk(chunk)) => self.chunk = chunk,
                Some(Message::End(inventory)) => self.inventory = Some(inventory),
                Some(Message::Failed(error)) => {
                    self.failed = Some(error.clone());
                    return Poll::Ready(Err(io::Error::other(error)));
                }
                None => {
                    self.failed = Some(Error::Worker);
                    return Poll::Ready(Err(io::Error::other(Error::Worker)));
                }
            }
        }
        let bytes = buffer.remaining().min(self.chunk.len());
        buffer.put_slice(&self.chunk[..bytes]);
        self.chunk.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

/// About how many bytes the files in the folder at `path` have. What is below it and cannot be looked at counts
/// nothing.
///
/// # Errors
/// If the folder itself cannot be listed.
pub fn estimated_bytes(path: &Path) -> Result<u64, Error> {
    std::fs::read_dir(path).map_err(|source| Error::Folder {
        doing: "list",
        path: path.to_owned(),
        source: Arc::new(source),
    })?;
    let mut bytes = 0;
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) if meta.is_file() => bytes += meta.len(),
                _ => {}
            }
        }
    }
    Ok(bytes)
}

/// Why the walk ends early.
enum Stop {
    Failed(Error),
    /// Nobody reads the stream any more.
    Gone,
}

/// The names in one folder: all in one piece of memory, since there may be a million.
#[derive(Default)]
struct Names {
    bytes: Vec<u8>,
    ends: Vec<(usize, usize)>,
}

impl Names {
    /// Adds a name; a folder's with a slash, so that they sort as their paths do.
    fn push(&mut self, name: &[u8], kind: FileType) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        if kind == FileType::Directory {
            self.bytes.push(b'/');
        }
        self.ends.push((start, self.bytes.len()));
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.ends.sort_unstable_by_key(|(start, end)| bytes.get(*start..*end));
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ends.iter().filter_map(|(start, end)| self.bytes.get(*start..*end))
    }
}

struct Writer {
    root: PathBuf,
    chunks: mpsc::Sender<Message>,
    pending: Vec<u8>,
    lines: blake3::Hasher,
    files: u64,
    /// The entry that is read, counted from 1.
    entry: u64,
    left_out: u64,
    gone: u64,
    restless: u64,
}

impl Writer {
    fn of(root: PathBuf, chunks: mpsc::Sender<Message>) -> Self {
        let pending = Vec::with_capacity(CHUNK_BYTES);
        let lines = blake3::Hasher::new();
        Self { root, chunks, pending, lines, files: 0, entry: 0, left_out: 0, gone: 0, restless: 0 }
    }

    /// Writes the whole stream.
    fn all(&mut self) -> Result<Inventory, Stop> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &self.root, flags, Mode::empty())
            .map_err(|error| self.failed("open", error.into()))?;
        self.folder(root, &mut Vec::new(), 0)?;
        self.write(&tar::END)?;
        self.flush()?;
        if self.left_out > 0 {
            warn!(files = self.left_out, "left out sockets, pipes and devices");
        }
        if self.gone > 0 {
            info!(files = self.gone, "left out files that went while the folder was read");
        }
        if self.restless > 0 {
            warn!(
                files = self.restless,
                "files changed each time that they were read, and are as they were last"
            );
        }
        Ok(Inventory { files: self.files, digest: self.lines.finalize().into() })
    }

    /// Writes what is in `folder`, whose path is `path`.
    fn folder(&mut self, folder: OwnedFd, path: &mut Vec<u8>, depth: usize) -> Result<(), Stop> {
        if depth > DEEPEST {
            return Err(Stop::Failed(Error::TooDeep { root: self.root.clone(), entry: self.entry }));
        }
        let names = self.names(&folder)?;
        for name in names.iter() {
            self.entry += 1;
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            match name.strip_suffix(b"/") {
                Some(name) => {
                    path.extend_from_slice(name);
                    self.subfolder(&folder, name, path, depth)?;
                }
                None => {
                    path.extend_from_slice(name);
                    self.leaf(&folder, name, path)?;
                }
            }
            path.truncate(length);
        }
        Ok(())
    }

    /// The names in a folder, sorted.
    fn names(&self, folder: &OwnedFd) -> Result<Names, Stop> {
        let failed = |error: Errno| self.failed("list", error.into());
        let mut names = Names::default();
        for entry in Dir::read_from(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let mut kind = entry.file_type();
            // Some file systems do not say.
            if kind == FileType::Unknown
                && let Ok(stat) = statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            {
                kind = FileType::from_raw_mode(stat.st_mode);
            }
            names.push(name, kind);
        }
        names.sort();
        Ok(names)
    }

    fn subfolder(
        &mut self,
        above: &OwnedFd,
        name: &[u8],
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Stop> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match openat(above, name, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => {
                self.gone += 1;
                return Ok(());
            }
            Err(error) => return Err(self.failed("open", error.into())),
        };
        let stat = rustix::fs::fstat(&folder).map_err(|error| self.failed("look at", error.into()))?;
        self.header(path, Kind::Folder, &stat)?;
        self.folder(folder, path, depth + 1)
    }

    fn leaf(&mut self, folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), Stop> {
        let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => {
                self.gone += 1;
                return Ok(());
            }
            Err(error) => return Err(self.failed("look at", error.into())),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(folder, name, path),
            FileType::Symlink => {
                let target = readlinkat(folder, name, Vec::new())
                    .map_err(|error| self.failed("read the link", error.into()))?;
                self.header(path, Kind::Link { target: target.as_bytes() }, &stat)
            }
            FileType::Directory => Err(self.changed()),
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {
                self.left_out += 1;
                Ok(())
            }
        }
    }

    /// Sends a file, again and again while it does not stand still. What was sent last is in the inventory.
    fn file(&mut self, folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), Stop> {
        let mut sent: Option<Blake3> = None;
        for attempt in 1..=TRIES {
            match self.file_once(folder, name, path)? {
                Sent::Still(digest) => {
                    sent = Some(digest);
                    break;
                }
                Sent::Moving(digest) => {
                    sent = Some(digest);
                    if attempt == TRIES {
                        self.restless += 1;
                    } else {
                        thread::sleep(BETWEEN_TRIES);
                    }
                }
                Sent::Gone => break,
            }
        }
        match sent {
            Some(digest) => {
                self.files += 1;
                self.lines.update(&inventory_line(digest, path));
            }
            None => self.gone += 1,
        }
        Ok(())
    }

    fn file_once(&mut self, folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Sent, Stop> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = match openat(folder.as_fd(), name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(Sent::Gone),
            Err(error) => return Err(self.failed("open", error.into())),
        };
        let look =
            |writer: &Self, file: &File| file.metadata().map_err(|error| writer.failed("look at", error));
        let before = look(self, &file)?;
        if !before.is_file() {
            return Err(self.changed());
        }
        self.write(
            &Entry {
                path,
                kind: Kind::File { bytes: before.len() },
                mode: before.mode(),
                uid: before.uid(),
                gid: before.gid(),
                modified: before.mtime(),
            }
            .header(),
        )?;

        let mut hasher = blake3::Hasher::new();
        let mut left = before.len();
        let mut ended = false;
        while left > 0 {
            self.flush_if_full()?;
            let start = self.pending.len();
            let most = left.min((CHUNK_BYTES - start) as u64);
            let read = match ended {
                true => 0,
                false => (&mut file)
                    .take(most)
                    .read_to_end(&mut self.pending)
                    .map_err(|error| self.failed("read", error))?,
            };
            if read == 0 {
                // It became shorter: the header has said how long it is.
                ended = true;
                self.pending.resize(start + usize::try_from(most).unwrap_or_default(), 0);
            }
            let written = self.pending.get(start..).unwrap_or_default();
            hasher.update(written);
            left -= written.len() as u64;
        }
        self.write(&vec![0; tar::padding(before.len())])?;
        let after = look(self, &file)?;
        let times = |meta: &std::fs::Metadata| (meta.len(), meta.mtime(), meta.mtime_nsec());
        let digest = hasher.finalize().into();
        Ok(if times(&before) == times(&after) && !ended { Sent::Still(digest) } else { Sent::Moving(digest) })
    }

    fn header(&mut self, path: &[u8], kind: Kind<'_>, stat: &Stat) -> Result<(), Stop> {
        let header = Entry {
            path,
            kind,
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            modified: stat.st_mtime,
        }
        .header();
        self.write(&header)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        for piece in bytes.chunks(CHUNK_BYTES) {
            if self.pending.len() + piece.len() > CHUNK_BYTES {
                self.flush()?;
            }
            self.pending.extend_from_slice(piece);
        }
        Ok(())
    }

    fn flush_if_full(&mut self) -> Result<(), Stop> {
        if self.pending.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        let full = std::mem::replace(&mut self.pending, Vec::with_capacity(CHUNK_BYTES));
        self.chunks.blocking_send(Message::Chunk(full.into())).map_err(|_| Stop::Gone)
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> Stop {
        let (root, entry, source) = (self.root.clone(), self.entry, Arc::new(source));
        Stop::Failed(match entry {
            0 => Error::Folder { doing, path: root, source },
            entry => Error::Entry { doing, root, entry, source },
        })
    }

    fn changed(&self) -> Stop {
        Stop::Failed(Error::Changed { root: self.root.clone(), entry: self.entry })
    }
}

/// How a file was sent.
enum Sent {
    /// As it was before and after.
    Still(Blake3),
    /// It changed meanwhile.
    Moving(Blake3),
    /// It was not there any more.
    Gone,
}

/// A line of the inventory, as `b3sum` prints it: with a backslash before it where the path has one, or a line
/// break.
fn inventory_line(digest: Blake3, path: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(path.len() + 67);
    if path.iter().any(|byte| matches!(byte, b'\\' | b'\n')) {
        line.push(b'\\');
    }
    line.extend_from_slice(format!("{digest}  ").as_bytes());
    for byte in path {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            byte => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, process::Command};

    use tokio::io::AsyncReadExt;

    use super::*;

    async fn read(path: &Path) -> (Vec<u8>, TarStream, Option<io::Error>) {
        let (mut bytes, mut stream) = (Vec::new(), TarStream::of(path.to_owned()));
        let error = stream.read_to_end(&mut bytes).await.err();
        (bytes, stream, error)
    }

    #[tokio::test]
    async fn tar_extracts_what_was_in_the_folder() {
        let (folder, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("ab/å/empty")).unwrap();
        fs::write(path("ab.txt"), "before the folder").unwrap();
        fs::write(path("ab/å/none"), "").unwrap();
        fs::write(path("ab/large"), vec![7; 3 * CHUNK_BYTES + 1]).unwrap();
        let long = format!("ab/{}", "x".repeat(200));
        fs::write(path(&long), "a long name").unwrap();
        symlink("/etc/passwd", path("link")).unwrap();
        symlink("y".repeat(150), path("long link")).unwrap();

        let (bytes, stream, error) = read(folder.path()).await;

        assert!(error.is_none(), "{error:?}");
        fs::write(target.path().with_extension("tar"), &bytes).unwrap();
        let archive = target.path().with_extension("tar");
        let run = |args: &[&str]| {
            let output =
                Command::new("tar").arg("-f").arg(&archive).arg("-C").arg(target.path()).args(args).output();
            let output = output.unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        run(&["-x"]);
        let names = run(&["-t", "--quoting-style=literal"]);
        fs::remove_file(&archive).unwrap();
        let mut names: Vec<_> = names.lines().collect();
        assert_eq!(names.first(), Some(&"ab.txt"));
        let unsorted = names.clone();
        names.sort_unstable();
        assert_eq!(names, unsorted);
        let (one, other) = (folder.path(), target.path());
        let compared = Command::new("diff").args(["-r", "--no-dereference"]).args([one, other]).status();
        assert!(compared.unwrap().success());
        let inventory = stream.inventory().unwrap();
        assert_eq!(inventory.files, 4);
        let listed = Command::new("sh")
            .args([
                "-c",
                "find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 b3sum | b3sum --no-names",
            ])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(listed.stdout).unwrap().trim(), inventory.digest.to_string());
        assert_eq!(read(folder.path()).await.0, bytes, "the same folder is the same stream");
    }

    #[tokio::test]
    async fn an_empty_folder_is_an_empty_archive() {
        let folder = tempfile::tempdir().unwrap();

        let (bytes, stream, _) = read(folder.path()).await;

        assert_eq!(bytes, tar::END);
        assert_eq!(stream.inventory(), Some(Inventory { files: 0, digest: Blake3::of(b"") }));
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_an_error_and_no_empty_archive() {
        let (bytes, stream, error) = read(Path::new("/no/such/folder")).await;

        assert!(bytes.is_empty() && error.is_some() && stream.inventory().is_none());
        assert!(matches!(stream.failure(), Some(Error::Folder { doing: "open", .. })));
    }

    /// What `tar` extracts from `bytes`, and the digest of the inventory of that.
    fn extracted(bytes: &[u8]) -> (tempfile::TempDir, String) {
        let target = tempfile::tempdir().unwrap();
        let files = tempfile::tempdir().unwrap();
        let archive = files.path().join("tar");
        fs::write(&archive, bytes).unwrap();
        let tar = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(target.path()).status().unwrap();
        assert!(tar.success());
        let list = "find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 b3sum | b3sum --no-names";
        let listed = Command::new("sh").args(["-c", list]).current_dir(target.path()).output().unwrap();
        (target, String::from_utf8(listed.stdout).unwrap().trim().to_owned())
    }

    #[tokio::test]
    async fn a_file_that_grows_or_shrinks_while_it_is_read_is_sent_again() {
        for bytes_after in [9 << 20, 100] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("growing");
            fs::write(&path, vec![1; 8 * CHUNK_BYTES]).unwrap();
            fs::write(folder.path().join("later"), "still").unwrap();
            let mut stream = TarStream::of(folder.path().to_owned());
            let mut bytes = vec![0; 1024];

            // The reader is held back by what nobody takes.
            stream.read_exact(&mut bytes).await.unwrap();
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes_after).unwrap();
            stream.read_to_end(&mut bytes).await.unwrap();

            let (target, digest) = extracted(&bytes);
            assert_eq!(fs::read(target.path().join("growing")).unwrap(), fs::read(&path).unwrap());
            assert_eq!(fs::read(target.path().join("later")).unwrap(), b"still");
            let inventory = stream.inventory().unwrap();
            assert_eq!((inventory.files, inventory.digest.to_string()), (2, digest));
        }
    }

    #[tokio::test]
    async fn a_file_that_never_stands_still_does_not_fail_the_backup() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        let appended = path.clone();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let appending = thread::spawn(move || {
            let mut file = fs::OpenOptions::new().append(true).open(appended).unwrap();
            while stopped.try_recv().is_err() {
                io::Write::write_all(&mut file, b"a line\n").unwrap();
                thread::sleep(Duration::from_micros(50));
            }
        });

        let (bytes, stream, error) = read(folder.path()).await;
        stop.send(()).unwrap();
        appending.join().unwrap();

        assert!(error.is_none(), "{error:?}");
        let (target, digest) = extracted(&bytes);
        let (all, kept) = (fs::read(&path).unwrap(), fs::read(target.path().join("log")).unwrap());
        assert!(kept.len() >= 1 << 20 && all.starts_with(&kept), "it is the beginning of what is there");
        assert_eq!(stream.inventory().unwrap().digest.to_string(), digest);
    }

    #[tokio::test]
    async fn no_error_has_the_name_of_an_attachment() {
        let folder = tempfile::tempdir().unwrap();
        let deep: PathBuf = (0..DEEPEST + 2).map(|_| "19121212-1212").collect();
        fs::write(folder.path().join("first"), "").unwrap();
        fs::create_dir_all(folder.path().join("z").join(deep)).unwrap();

        let (_, stream, error) = read(folder.path()).await;

        let text = format!("{} {}", error.unwrap(), crate::error::chain(&stream.failure().unwrap()));
        assert!(text.contains("lies deeper") && !text.contains("1212"), "{text}");
        let source = Arc::new(io::Error::from(io::ErrorKind::PermissionDenied));
        let refused = Error::Entry { doing: "open", root: "/valv/attachments".into(), entry: 17, source };
        let text = crate::error::chain(&refused);
        assert!(text.starts_with("failed to open entry 17 of /valv/attachments"), "{text}");
    }

    #[test]
    fn a_line_of_the_inventory_is_b3sum_s_also_for_strange_names() {
        let line = inventory_line(Blake3::of(b""), b"a\\b\nc");

        assert!(line.starts_with(b"\\af1349b9") && line.ends_with(b"  a\\\\b\\nc\n"));
    }
}
