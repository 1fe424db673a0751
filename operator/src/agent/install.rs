//! Copies this very program to where other containers can run it.
//!
//! An init container with Valv's image runs it onto an `emptyDir`; the containers after it have the tenant's
//! PostgreSQL image, and with it the tools that match the server, and start the copy. Writes one file.

use std::{env, fs::File, io, path::Path};

use tracing::info;

use super::durable::{self, FileError};

/// Everybody may read and run it, only its owner may change it.
const MODE: u32 = 0o755;

/// The program could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel does not say which file this process runs.
    #[error("failed to find the running program; is /proc mounted?")]
    Program(#[source] io::Error),

    /// One of both files.
    #[error("failed to copy the running program")]
    Copy(#[source] FileError),
}

/// Copies the running program to `path`, whole or not at all.
pub fn install(path: &Path) -> Result<(), Error> {
    let program = env::current_exe().map_err(Error::Program)?;
    let content = File::open(&program).map_err(FileError::of("read", &program)).map_err(Error::Copy)?;
    durable::write(path, content, MODE).map_err(Error::Copy)?;
    info!(path = %path.display(), "installed the agent");
    Ok(())
}
