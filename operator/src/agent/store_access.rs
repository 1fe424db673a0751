//! The bucket of a run, as the identity whose credentials are mounted.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::{
    durable::{self, FileError},
    run_file::Store,
};
use crate::io::bucket::{Bucket, Credentials, SettingsError};

/// The store cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the credentials.
    #[error("failed to read the store's credentials; is the Secret mounted?")]
    Credentials(#[source] FileError),
    /// One of them is empty.
    #[error("the store's credentials are empty: {}", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// What the run file says of the store.
    #[error("failed to use the settings of the store {store}")]
    Settings {
        /// Which store.
        store: String,
        /// Why.
        source: SettingsError,
    },
}

/// The bucket of `store`, with the credentials in `folder`: the files `accessKeyID` and `secretAccessKey`.
pub fn bucket(store: &Store, folder: &Path) -> Result<Bucket, Error> {
    let credentials = Credentials {
        access_key_id: line(folder.join("accessKeyID"))?,
        secret_access_key: SecretString::from(line(folder.join("secretAccessKey"))?),
    };
    Bucket::open(&store.settings(credentials))
        .map_err(|source| Error::Settings { store: store.name.clone(), source })
}

/// What is in a file; a line break at its end is not part of it.
fn line(path: PathBuf) -> Result<String, Error> {
    let text = durable::read(&path).map_err(Error::Credentials)?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() { Err(Error::Empty { path }) } else { Ok(text.to_owned()) }
}
