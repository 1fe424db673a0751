//! The checkout that this program was built from: what it reads there.

use std::path::{Path, PathBuf};

/// The folder of this crate.
const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// The folder with the `go.mod` and `go.sum` of a Go component.
pub fn component(name: &str) -> PathBuf {
    Path::new(CRATE).join("components").join(name)
}

/// The workspace.
pub fn workspace() -> PathBuf {
    Path::new(CRATE).ancestors().nth(2).unwrap_or(Path::new(CRATE)).to_path_buf()
}

/// What is laid into the image of the journal's release `number`, besides its binary.
pub fn journal_release(number: u32) -> PathBuf {
    workspace().join("tests/journal/releases").join(number.to_string())
}
