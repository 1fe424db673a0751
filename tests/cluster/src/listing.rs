//! What is in a folder, in an order that does not depend on the file system.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The names and paths of what is in `folder`, by name.
pub fn of(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    found.sort();
    Ok(found)
}
