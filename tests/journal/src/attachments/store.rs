//! The folder that attachments lie in.
//!
//! # Shape
//! `<first 2 hex of the SHA-256>/<SHA-256>`, one file for each content, mode 0440. `.incoming-<random>` is a file
//! that is still being written, or was when the process died; no row names it.
//!
//! # Guarantees
//! A file is complete and on disk before its name exists, and a name that exists is never written again.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use axum::body::Bytes;
use futures::{Stream, StreamExt};
use ring::rand::SecureRandom;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::task::spawn_blocking;

use crate::digest::finish;

/// The largest file that is taken.
pub const SIZE_MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Read at once when a digest is checked.
const CHUNK_BYTES: usize = 256 * 1024;

/// The folder.
#[derive(Clone, Debug)]
pub struct AttachmentStore {
    folder: PathBuf,
}

/// What is now on the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub sha256: String,
    pub size_bytes: u64,
}

impl Kept {
    /// Below the folder.
    pub fn path(&self) -> String {
        path(&self.sha256)
    }
}

/// A file was not kept. Nothing of it is visible.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("failed to receive the attachment")]
    Receive { source: axum::BoxError },
    #[error("the attachment is larger than {SIZE_MAX_BYTES} bytes")]
    TooLarge,
    #[error("failed to write the attachment")]
    Write { source: io::Error },
    #[error("failed to keep the attachment: another file has its name")]
    Occupied { source: ReadError },
}

/// A file is not what its row says.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("failed to read attachment {path}")]
    Read { path: String, source: io::Error },
    #[error("attachment {path} is damaged: its SHA-256 is {found}")]
    Damaged { path: String, found: String },
}

fn path(sha256: &str) -> String {
    format!("{}/{sha256}", sha256.get(..2).unwrap_or_default())
}

impl AttachmentStore {
    /// Checks that `folder` is one.
    pub fn open(folder: PathBuf) -> Result<Self, io::Error> {
        match fs::metadata(&folder)?.is_dir() {
            true => Ok(Self { folder }),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Writes `content` to the volume, and returns when it will survive a power cut.
    pub async fn keep<E>(&self, content: impl Stream<Item = Result<Bytes, E>>) -> Result<Kept, KeepError>
    where
        E: Into<axum::BoxError>,
    {
        let (incoming, mut file) = self.incoming().await.map_err(|source| KeepError::Write { source })?;
        let mut content = std::pin::pin!(content);
        let (mut hasher, mut size_bytes) = (Sha256::new(), 0);
        while let Some(bytes) = content.next().await {
            let bytes = bytes.map_err(|source| KeepError::Receive { source: source.into() })?;
            size_bytes += bytes.len() as u64;
            if size_bytes > SIZE_MAX_BYTES {
                return Err(KeepError::TooLarge);
            }
            hasher.update(&bytes);
            file.write_all(&bytes).await.map_err(|source| KeepError::Write { source })?;
        }
        file.flush().await.map_err(|source| KeepError::Write { source })?;
        let file = file.into_std().await;
        let kept = Kept { sha256: finish(hasher), size_bytes };
        let name = self.folder.join(kept.path());
        let named = spawn_blocking(move || {
            file.set_permissions(fs::Permissions::from_mode(0o440))?;
            file.sync_all()?;
            incoming.take_name(&name)
        });
        match named.await.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(Name::Taken) => Ok(kept),
            Ok(Name::InUse) => match self.open_verified(&kept.sha256).await {
                Ok(_) => Ok(kept),
                Err(source) => Err(KeepError::Occupied { source }),
            },
            Err(source) => Err(KeepError::Write { source }),
        }
    }

    /// Opens the file with this digest, after reading all of it once to see that it still has it.
    pub async fn open_verified(&self, sha256: &str) -> Result<File, ReadError> {
        let path = path(sha256);
        let failed = |source| ReadError::Read { path: path.clone(), source };
        let mut file = File::open(self.folder.join(&path)).await.map_err(failed)?;
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk).await.map_err(failed)? {
                0 => break,
                read => hasher.update(&chunk[..read]),
            }
        }
        file.rewind().await.map_err(failed)?;
        match finish(hasher) {
            found if found == sha256 => Ok(file),
            found => Err(ReadError::Damaged { path, found }),
        }
    }

    async fn incoming(&self) -> io::Result<(Incoming, File)> {
        let mut random = [0; 16];
        ring::rand::SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
        let path = self.folder.join(format!(".incoming-{:032x}", u128::from_ne_bytes(random)));
        let file = OpenOptions::new().write(true).create_new(true).open(&path).await?;
        Ok((Incoming { path, folder: self.folder.clone() }, file))
    }
}

/// A file without a name of its own; it goes when this does.
struct Incoming {
    path: PathBuf,
    folder: PathBuf,
}

/// What came of giving a name.
enum Name {
    Taken,
    /// A file had it already, and has it still.
    InUse,
}

impl Incoming {
    fn take_name(self, name: &Path) -> io::Result<Name> {
        let shelf = name.parent().unwrap_or(&self.folder);
        match fs::create_dir(shelf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        match renameat_with(CWD, &self.path, CWD, name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => return Ok(Name::InUse),
            renamed => renamed?,
        }
        fs::File::open(shelf)?.sync_all()?;
        fs::File::open(&self.folder)?.sync_all()?;
        Ok(Name::Taken)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            // It took its name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "failed to remove an unfinished attachment"),
            Ok(()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(chunks: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes, io::Error>> {
        futures::stream::iter(chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk))).collect::<Vec<_>>())
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .flat_map(|entry| {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect()
                } else {
                    vec![path]
                }
            })
            .map(|path| path.strip_prefix(folder).unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_file_is_named_after_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let store = AttachmentStore::open(folder.path().to_owned()).unwrap();

        let kept = store.keep(content(&[b"a", b"bc"])).await.unwrap();

        assert_eq!(kept.sha256, crate::digest::sha256(b"abc"));
        assert_eq!(kept.size_bytes, 3);
        assert_eq!(files(folder.path()), [kept.path()]);
    }

    #[tokio::test]
    async fn the_same_content_is_kept_once_and_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = AttachmentStore::open(folder.path().to_owned()).unwrap();
        let kept = store.keep(content(&[b"abc"])).await.unwrap();
        let before = fs::metadata(folder.path().join(kept.path())).unwrap();

        assert_eq!(store.keep(content(&[b"abc"])).await.unwrap(), kept);

        let after = fs::metadata(folder.path().join(kept.path())).unwrap();
        assert_eq!(files(folder.path()), [kept.path()]);
        assert_eq!(after.modified().unwrap(), before.modified().unwrap());
    }

    #[tokio::test]
    async fn a_damaged_file_is_neither_opened_nor_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let store = AttachmentStore::open(folder.path().to_owned()).unwrap();
        let kept = store.keep(content(&[b"abc"])).await.unwrap();
        let file = folder.path().join(kept.path());
        fs::remove_file(&file).unwrap();
        fs::write(&file, b"abd").unwrap();

        assert!(matches!(store.open_verified(&kept.sha256).await, Err(ReadError::Damaged { .. })));
        assert!(matches!(store.keep(content(&[b"abc"])).await, Err(KeepError::Occupied { .. })));
        assert_eq!(fs::read(&file).unwrap(), b"abd");
    }

    #[tokio::test]
    async fn an_upload_that_breaks_off_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = AttachmentStore::open(folder.path().to_owned()).unwrap();
        let broken =
            content(&[b"abc"]).chain(futures::stream::iter([Err(io::ErrorKind::ConnectionReset.into())]));

        assert!(matches!(store.keep(broken).await, Err(KeepError::Receive { .. })));

        assert!(files(folder.path()).is_empty());
    }
}
