//! What is built once. An entry is whole or absent: it is made beside its place and then renamed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::settings::Settings;

/// The folder of what is built once.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache that `settings` name.
    pub fn new(settings: &Settings) -> Self {
        Self { root: settings.cache.clone() }
    }

    /// Where the programs of `component` with this key are.
    pub fn programs(&self, component: &str, key: &str) -> PathBuf {
        self.root.join("programs").join(format!("{component}-{key}"))
    }

    /// Where the Debian root file system `name` with this key is.
    pub fn root(&self, name: &str, key: &str) -> PathBuf {
        self.root.join("roots").join(format!("{name}-{key}.tar"))
    }

    /// Where the image `name` with this key is.
    pub fn image(&self, name: &str, key: &str) -> PathBuf {
        self.root.join("images").join(format!("{name}-{key}.tar"))
    }

    /// Where the build of `name` writes what it prints.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("log").join(format!("{name}.log"))
    }

    /// Makes the entry at `place` by calling `make` with a path beside it, unless it is there already.
    ///
    /// # Errors
    /// Those of `make`; what it has begun is removed then. What a killed process has begun is removed
    /// by the next one.
    pub fn fill(&self, place: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if place.exists() {
            return Ok(());
        }
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let draft = place.with_file_name(format!(".draft-{name}"));
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        }
        remove(&draft)?;
        if let Err(error) = make(&draft) {
            remove(&draft)?;
            return Err(error);
        }
        fs::rename(&draft, place).with_context(|| format!("failed to move {} in", place.display()))
    }
}

/// Removes a file or a folder with all that is in it, if it exists.
fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    removed.with_context(|| format!("failed to remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache of its own for each test.
    fn cache(test: &str) -> Cache {
        let root = std::env::temp_dir().join(format!("valv-cluster-cache-{test}-{}", std::process::id()));
        Cache { root }
    }

    #[test]
    fn an_entry_is_made_once() {
        let cache = cache("once");
        let place = cache.image("a", "1");

        cache.fill(&place, |draft| Ok(fs::write(draft, "first")?)).unwrap();
        cache.fill(&place, |draft| Ok(fs::write(draft, "second")?)).unwrap();

        assert_eq!(fs::read_to_string(&place).unwrap(), "first");
        fs::remove_dir_all(cache.root).unwrap();
    }

    #[test]
    fn a_build_that_fails_leaves_nothing_that_looks_complete() {
        let cache = cache("fails");
        let place = cache.programs("a", "1");

        let failed = cache.fill(&place, |draft| {
            fs::create_dir(draft)?;
            fs::write(draft.join("half"), "")?;
            anyhow::bail!("killed")
        });

        assert!(failed.is_err());
        assert_eq!(fs::read_dir(place.parent().unwrap()).unwrap().count(), 0);
        fs::remove_dir_all(cache.root).unwrap();
    }
}
