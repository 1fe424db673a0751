//! Notices that mounted files have changed.
//!
//! Kubernetes changes a mounted ConfigMap or Secret by turning a link (`..data`) to a new folder, without a
//! change of any file's time that could be relied on. So what is compared is the content. Reads only.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::durable::FileError;

/// A digest of the names and contents of all files below some folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content([u8; 32]);

impl Content {
    /// What is in `folders` now.
    ///
    /// Names that begin with `..` are Kubernetes' own, and are reached through the links beside them.
    pub fn of(folders: &[PathBuf]) -> Result<Self, FileError> {
        let mut digest = Sha256::new();
        for folder in folders {
            add_folder(&mut digest, folder)?;
        }
        Ok(Self(digest.finalize().into()))
    }
}

fn add_folder(digest: &mut Sha256, folder: &Path) -> Result<(), FileError> {
    let entries = fs::read_dir(folder)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(FileError::of("list", folder))?;
    let mut paths = entries.iter().map(fs::DirEntry::path).collect::<Vec<_>>();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.starts_with(b"..") {
            continue;
        }
        if path.is_dir() {
            add_folder(digest, &path)?;
        } else {
            let content = fs::read(&path).map_err(FileError::of("read", &path))?;
            // Lengths first, so that no two different folders are the same bytes.
            for part in [path.as_os_str().as_encoded_bytes(), &content] {
                digest.update(part.len().to_be_bytes());
                digest.update(part);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn turning_the_link_as_kubernetes_does_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, content) in [("..1", "old"), ("..2", "new"), ("..3", "new")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("tls.crt"), content).unwrap();
        }
        let turn = |version: &str| {
            symlink(version, at("..data.new")).unwrap();
            fs::rename(at("..data.new"), at("..data")).unwrap();
            Content::of(&[folder.path().to_owned()]).unwrap()
        };
        symlink("..data/tls.crt", at("tls.crt")).unwrap();

        let (first, second, third) = (turn("..1"), turn("..2"), turn("..3"));

        assert_ne!(first, second);
        assert_eq!(second, third);
    }

    #[test]
    fn a_file_that_moves_its_content_to_another_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let content = |a: &str, b: &str| {
            fs::write(folder.path().join("a"), a).unwrap();
            fs::write(folder.path().join("b"), b).unwrap();
            Content::of(&[folder.path().to_owned()]).unwrap()
        };

        assert_ne!(content("xy", ""), content("x", "y"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        Content::of(&["/nonexistent".into()]).unwrap_err();
    }
}
