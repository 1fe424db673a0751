//! TLS that trusts the authorities of one file and nobody else.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::durable::{self, FileError};

/// There is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("failed to read the authorities; are they mounted?")]
    Read(#[source] FileError),

    /// What is in it.
    #[error("failed to understand the certificates in {}", path.display())]
    Certificates {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The TLS library.
    #[error("failed to prepare TLS")]
    Tls(#[source] rustls::Error),
}

/// TLS that trusts the authorities in the PEM file at `path`, and verifies the server's name.
pub fn client_config(path: &Path) -> Result<ClientConfig, Error> {
    let text = durable::read(path).map_err(Error::Read)?;
    let failed = |source| Error::Certificates { path: path.to_owned(), source };

    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|error| failed(error.into()))?;
        roots.add(certificate).map_err(|error| failed(error.into()))?;
    }
    if roots.is_empty() {
        return Err(failed("there is none".into()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
