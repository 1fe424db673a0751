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
//! - A file whose size or time changes while it is read is an error. One that goes between the listing of its
//!   folder and its turn is left out.
//! - Memory: the names of the folders on one path, 256 KiB of each file.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
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

/// Folders within folders: each holds one file descriptor.
const DEEPEST: usize = 200;

/// A folder cannot be read whole.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder.
    #[error("failed to {doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// A file was not the same before and after.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// Folders within folders, without end.
    #[error("{} lies deeper than {DEEPEST} folders", path.display())]
    TooDeep {
        /// Which.
        path: PathBuf,
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
    std::fs::read_dir(path).map_err(|source| Error::File {
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
    left_out: u64,
    gone: u64,
}

impl Writer {
    fn of(root: PathBuf, chunks: mpsc::Sender<Message>) -> Self {
        let pending = Vec::with_capacity(CHUNK_BYTES);
        Self { root, chunks, pending, lines: blake3::Hasher::new(), files: 0, left_out: 0, gone: 0 }
    }

    /// Writes the whole stream.
    fn all(&mut self) -> Result<Inventory, Stop> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &self.root, flags, Mode::empty())
            .map_err(|error| self.failed("open", b"", error.into()))?;
        self.folder(root, &mut Vec::new(), 0)?;
        self.write(&tar::END)?;
        self.flush()?;
        if self.left_out > 0 {
            warn!(files = self.left_out, "left out sockets, pipes and devices");
        }
        if self.gone > 0 {
            info!(files = self.gone, "left out files that went while the folder was read");
        }
        Ok(Inventory { files: self.files, digest: self.lines.finalize().into() })
    }

    /// Writes what is in `folder`, whose path is `path`.
    fn folder(&mut self, folder: OwnedFd, path: &mut Vec<u8>, depth: usize) -> Result<(), Stop> {
        if depth > DEEPEST {
            return Err(Stop::Failed(Error::TooDeep { path: self.full(path) }));
        }
        let names = self.names(&folder, path)?;
        for name in names.iter() {
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
    fn names(&self, folder: &OwnedFd, path: &[u8]) -> Result<Names, Stop> {
        let failed = |error: Errno| self.failed("list", path, error.into());
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
            Err(error) => return Err(self.failed("open", path, error.into())),
        };
        let stat = rustix::fs::fstat(&folder).map_err(|error| self.failed("look at", path, error.into()))?;
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
            Err(error) => return Err(self.failed("look at", path, error.into())),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(folder, name, path),
            FileType::Symlink => {
                let target = readlinkat(folder, name, Vec::new())
                    .map_err(|error| self.failed("read the link", path, error.into()))?;
                self.header(path, Kind::Link { target: target.as_bytes() }, &stat)
            }
            FileType::Directory => Err(Stop::Failed(Error::Changed { path: self.full(path) })),
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

    fn file(&mut self, folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), Stop> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = match openat(folder.as_fd(), name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => {
                self.gone += 1;
                return Ok(());
            }
            Err(error) => return Err(self.failed("open", path, error.into())),
        };
        let look = |writer: &Self, file: &File| {
            file.metadata().map_err(|error| writer.failed("look at", path, error))
        };
        let changed = |writer: &Self| Err(Stop::Failed(Error::Changed { path: writer.full(path) }));
        let before = look(self, &file)?;
        if !before.is_file() {
            return changed(self);
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
        while left > 0 {
            self.flush_if_full()?;
            let start = self.pending.len();
            let most = left.min((CHUNK_BYTES - start) as u64);
            let read = (&mut file).take(most).read_to_end(&mut self.pending);
            let read = read.map_err(|error| self.failed("read", path, error))?;
            if read == 0 {
                return changed(self);
            }
            hasher.update(self.pending.get(start..).unwrap_or_default());
            left -= read as u64;
        }
        self.write(&vec![0; tar::padding(before.len())])?;
        let after = look(self, &file)?;
        let times = |meta: &std::fs::Metadata| (meta.len(), meta.mtime(), meta.mtime_nsec());
        if times(&before) != times(&after) {
            return changed(self);
        }
        self.files += 1;
        self.lines.update(&inventory_line(hasher.finalize().into(), path));
        Ok(())
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

    fn failed(&self, doing: &'static str, path: &[u8], source: io::Error) -> Stop {
        Stop::Failed(Error::File { doing, path: self.full(path), source: Arc::new(source) })
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        self.root.join(std::ffi::OsStr::from_bytes(path))
    }
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
        assert!(matches!(stream.failure(), Some(Error::File { doing: "open", .. })));
    }

    #[tokio::test]
    async fn a_file_that_grows_while_it_is_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("growing");
        fs::write(&path, vec![1; 8 * CHUNK_BYTES]).unwrap();
        let mut stream = TarStream::of(folder.path().to_owned());

        // The reader is held back by what nobody takes.
        stream.read_exact(&mut [0; 1024]).await.unwrap();
        fs::OpenOptions::new().append(true).open(&path).unwrap().set_len(9 << 20).unwrap();
        let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();

        assert!(error.to_string().ends_with("growing changed while it was read"), "{error}");
        assert!(stream.inventory().is_none());
    }

    #[test]
    fn a_line_of_the_inventory_is_b3sum_s_also_for_strange_names() {
        let line = inventory_line(Blake3::of(b""), b"a\\b\nc");

        assert!(line.starts_with(b"\\af1349b9") && line.ends_with(b"  a\\\\b\\nc\n"));
    }
}
