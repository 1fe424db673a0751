//! What is built once. An entry is whole or absent: it is made beside its place and then renamed.
//!
//! An entry is named `<what>-<key>`, and of each thing the newest [`KEPT`] are kept. Who makes one holds
//! the [`Lock`](crate::lock::Lock).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::listing;
use crate::process::Identity;
use crate::settings::Settings;

/// How many entries of one thing are kept: two checkouts with one cache do not undo each other's work.
const KEPT: usize = 2;

/// The least length of a key, in hexadecimal digits.
const KEY_DIGITS: usize = 12;

/// What an entry that is being made is called, with the number of the process that makes it.
const DRAFT: &str = ".draft-";

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
    /// Then older ones of the same thing go, and what killed processes have begun beside it.
    ///
    /// # Errors
    /// Those of `make`; what it has begun is removed then.
    pub fn fill(&self, place: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if place.exists() {
            return Ok(());
        }
        let folder = place.parent().context("an entry is in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        sweep(folder)?;
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let draft = folder.join(format!("{DRAFT}{}-{name}", std::process::id()));
        remove(&draft)?;
        if let Err(error) = make(&draft) {
            remove(&draft)?;
            return Err(error);
        }
        fs::rename(&draft, place).with_context(|| format!("failed to move {} in", place.display()))?;
        prune(folder, &name)
    }
}

/// Removes what processes have begun in `folder` that have ended since. A program that one of them had
/// started may still write to it: ours is called otherwise.
fn sweep(folder: &Path) -> Result<()> {
    for (name, path) in listing::of(folder)? {
        let Some(draft) = name.strip_prefix(DRAFT) else { continue };
        let maker = draft.split('-').next().and_then(|pid| pid.parse().ok());
        if !maker.is_some_and(|pid| Identity::of(pid).is_ok_and(|process| process.is_alive())) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes all but the newest [`KEPT`] of the thing of which `newest` is an entry.
fn prune(folder: &Path, newest: &str) -> Result<()> {
    let Some(thing) = thing(newest) else { return Ok(()) };
    let mut entries = Vec::new();
    for (name, path) in listing::of(folder)? {
        if self::thing(&name) == Some(thing) && name != newest {
            entries.push((fs::metadata(&path)?.modified()?, path));
        }
    }
    entries.sort();
    let surplus = (entries.len() + 1).saturating_sub(KEPT);
    entries.iter().take(surplus).try_for_each(|(_, path)| remove(path))
}

/// What the entry `name` is an entry of, and whether it is a file or a folder; nothing if it is no entry.
fn thing(name: &str) -> Option<(&str, Option<&str>)> {
    let (stem, suffix) = name.split_once('.').map_or((name, None), |(stem, suffix)| (stem, Some(suffix)));
    let (thing, key) = stem.rsplit_once('-')?;
    let is_key = key.len() >= KEY_DIGITS && key.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_key.then_some((thing, suffix))
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

    #[test]
    fn the_newest_two_of_a_thing_are_kept_and_nothing_else_is_touched() {
        let cache = cache("prune");
        let make = |name: &str, key: &str| {
            cache.fill(&cache.image(name, key), |draft| Ok(fs::write(draft, "")?)).unwrap();
        };
        make("journal", "000000000000");
        for key in ["aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"] {
            make("journal-1", key);
        }

        let names: Vec<_> =
            listing::of(&cache.root.join("images")).unwrap().into_iter().map(|(name, _)| name).collect();

        let kept = ["journal-000000000000.tar", "journal-1-bbbbbbbbbbbb.tar", "journal-1-cccccccccccc.tar"];
        assert_eq!(names, kept);
        fs::remove_dir_all(cache.root).unwrap();
    }

    #[test]
    fn what_a_killed_process_has_begun_goes_and_what_another_begins_stays() {
        let cache = cache("sweep");
        let place = cache.image("a", "1");
        let folder = place.parent().unwrap().to_path_buf();
        let begun = |pid: u32| folder.join(format!("{DRAFT}{pid}-b-2.tar"));
        let (killed, other) = (begun(u32::MAX), begun(1));
        fs::create_dir_all(&killed).unwrap();
        fs::write(&other, "").unwrap();

        cache.fill(&place, |draft| Ok(fs::write(draft, "")?)).unwrap();

        assert_eq!((killed.exists(), other.exists()), (false, true));
        fs::remove_dir_all(cache.root).unwrap();
    }
}
