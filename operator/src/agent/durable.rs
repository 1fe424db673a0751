//! Files that are either as they were or as they should be, also after a power cut.
//!
//! Each function touches the one path that it is given (and a neighbour that it renames over it).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// One file or folder could not be used.
#[derive(Debug, thiserror::Error)]
#[error("failed to {doing} {}", path.display())]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// For `map_err`: what was being done, to which path.
    pub fn of(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { doing, path: path.to_owned(), source }
    }
}

/// Reads all of the text file at `path`.
pub fn read(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(FileError::of("read", path))
}

/// Makes `content` the content of `path`, which nobody ever sees half written.
///
/// # Shape
/// The file gets the permissions `mode` (less the umask). A neighbour with `.new` after its name is used on
/// the way, and whatever was there is lost.
pub fn write(path: &Path, mut content: impl Read, mode: u32) -> Result<(), FileError> {
    let mut neighbour = path.as_os_str().to_owned();
    neighbour.push(".new");
    let neighbour = PathBuf::from(neighbour);
    let failed = |source| FileError::of("write", &neighbour)(source);

    remove_if_there(&neighbour)?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&neighbour).map_err(failed)?;
    io::copy(&mut content, &mut file).and_then(|_| file.flush()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    rename(&neighbour, path)
}

/// Renames `from` to `to` in the same folder, and makes that last.
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::of("rename to its final name", from))?;
    match to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(folder) => sync_folder(folder),
        None => sync_folder(Path::new(".")),
    }
}

/// Removes the file at `path`. That it was not there is no error.
pub fn remove_if_there(path: &Path) -> Result<(), FileError> {
    absent_is_fine(fs::remove_file(path)).map_err(FileError::of("remove", path))
}

/// Removes the folder at `path` and all in it. That it was not there is no error.
pub fn remove_folder_if_there(path: &Path) -> Result<(), FileError> {
    absent_is_fine(fs::remove_dir_all(path)).map_err(FileError::of("remove", path))
}

/// Makes lasting which names are in the folder at `path`.
pub fn sync_folder(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(FileError::of("sync", path))
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_neighbour() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marker");
        fs::write(folder.path().join("marker.new"), "half of an earlier try").unwrap();

        write(&path, &b"first"[..], 0o644).unwrap();
        write(&path, &b"second"[..], 0o600).unwrap();

        assert_eq!(read(&path).unwrap(), "second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_there_is_removed_without_error() {
        let folder = tempfile::tempdir().unwrap();

        remove_if_there(&folder.path().join("file")).unwrap();
        remove_folder_if_there(&folder.path().join("folder")).unwrap();
    }
}
