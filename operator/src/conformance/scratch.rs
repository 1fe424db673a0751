//! A folder of our own for the time of a trial. It holds keys: nobody else may enter it, and it goes when it is dropped.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use tracing::warn;

use crate::{
    agent::durable::{FileError, remove_folder_if_there},
    error::chain,
};

/// The folder.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it in the folder `parent`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn make(parent: &Path) -> Result<Self, FileError> {
        // Short: a socket's path in it may have no more than 107 bytes.
        let path = parent.join(format!("valv-{:016x}", rand::random::<u64>()));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(FileError::of("make", &path))?;
        Ok(Self(path))
    }

    /// Where `name` is in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes the folder `name` in it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, FileError> {
        let path = self.path(name);
        fs::create_dir_all(&path).map_err(FileError::of("make", &path))?;
        Ok(path)
    }

    /// Writes the file `name`, which only we may read.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf, FileError> {
        let path = self.path(name);
        let write = || {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            io::Write::write_all(&mut file, content.as_ref())
        };
        write().map_err(FileError::of("write", &path))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_folder_if_there(&self.0) {
            warn!(error = chain(&error), "a folder with keys is left: remove it");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_written_only_we_may_read_and_it_goes() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::make(parent.path()).unwrap();

        let file = scratch.write("store/secretAccessKey", "s").unwrap();

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&scratch.path("")), mode(&file)), (0o700, 0o600));
        drop(scratch);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
