//! One `cluster` command at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::progress::Progress;
use crate::settings::Settings;
use crate::wait::Wait;

/// A cold build of everything takes about 20 minutes; on a slow machine, longer.
const DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Held while the cluster is changed or built for; given back when dropped or when the process ends,
/// however it ends.
#[derive(Debug)]
pub struct Lock {
    _files: [File; 2],
}

impl Lock {
    /// Takes the lock of the state and that of the cache, waiting for another command that holds one.
    pub fn take(settings: &Settings, progress: &Progress) -> Result<Self> {
        let files = [take(&settings.lock(), progress)?, take(&settings.cache.join("lock"), progress)?];
        Ok(Self { _files: files })
    }
}

fn take(path: &Path, progress: &Progress) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    }
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("failed to open {}", path.display()))?;
    if !try_take(&file)? {
        let holder = fs::read_to_string(path).unwrap_or_default();
        let step =
            progress.step(&format!("waiting for another cluster command (process {}) to end", holder.trim()));
        Wait::new("the other cluster command ends", DEADLINE).until(|| Ok(try_take(&file)?.then_some(())))?;
        step.done();
    }
    file.set_len(0)?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

fn try_take(file: &File) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).context("failed to lock"),
    }
}
