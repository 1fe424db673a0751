//! The certificate authorities that the database's certificate is checked against.
//!
//! Input: a PEM bundle in a file, which may change at any time (Kubernetes swaps mounted Secrets). It is read
//! again for each new connection; a bundle that cannot be used keeps the one before it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};

use crate::error::chain;

/// The bundle, and what was last made of it.
pub struct Trust {
    file: PathBuf,
    last: Mutex<Loaded>,
}

struct Loaded {
    bundle: Vec<u8>,
    config: ClientConfig,
}

/// The bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("failed to read the database's certificate authorities in {file}")]
    Read { file: PathBuf, source: io::Error },
    #[error("failed to read {file} as PEM")]
    Pem { file: PathBuf, source: pem::Error },
    #[error("failed to take a certificate of {file} as an authority")]
    Authority { file: PathBuf, source: rustls::Error },
    #[error("{file} has no certificate")]
    Empty { file: PathBuf },
    #[error("failed to make a TLS configuration")]
    Tls { source: rustls::Error },
}

impl Trust {
    /// Reads `file` for the first time.
    pub fn open(file: PathBuf) -> Result<Self, TrustError> {
        let bundle = read(&file)?;
        let config = client_config(&file, &bundle)?;
        Ok(Self { file, last: Mutex::new(Loaded { bundle, config }) })
    }

    /// What to connect with now: chain and host name are verified.
    pub fn current(&self) -> ClientConfig {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match self.changed(&last.bundle) {
            Ok(Some(loaded)) => {
                tracing::info!("the database's certificate authorities changed");
                *last = loaded;
            }
            Ok(None) => {}
            Err(error) => tracing::error!(
                error = chain(&error),
                "failed to read the database's certificate authorities again, the old ones stay"
            ),
        }
        last.config.clone()
    }

    fn changed(&self, bundle: &[u8]) -> Result<Option<Loaded>, TrustError> {
        let now = read(&self.file)?;
        if now == bundle {
            return Ok(None);
        }
        let config = client_config(&self.file, &now)?;
        Ok(Some(Loaded { bundle: now, config }))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TrustError> {
    fs::read(file).map_err(|source| TrustError::Read { file: file.to_owned(), source })
}

fn client_config(file: &Path, bundle: &[u8]) -> Result<ClientConfig, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        let certificate = certificate.map_err(|source| TrustError::Pem { file: file.to_owned(), source })?;
        roots.add(certificate).map_err(|source| TrustError::Authority { file: file.to_owned(), source })?;
    }
    if roots.is_empty() {
        return Err(TrustError::Empty { file: file.to_owned() });
    }
    let config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TrustError::Tls { source })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
