//! The certificate that readers see.
//!
//! Input: a certificate chain and a key in two PEM files, which may change at any time. Both are looked at once
//! a second; a new pair is taken up by the next connection, a pair that cannot be used keeps the one before it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

use crate::error::chain;

/// How soon a changed file is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where certificate and key are.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// PEM, the leaf first.
    pub certificate: PathBuf,
    /// PEM, PKCS#8 or the older forms.
    pub key: PathBuf,
}

/// What was in the two files.
#[derive(PartialEq, Eq)]
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// The certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("failed to read {file}")]
    Read { file: PathBuf, source: io::Error },
    #[error("failed to read {file} as PEM")]
    Pem { file: PathBuf, source: pem::Error },
    #[error("failed to use the certificate with the key")]
    Unusable { source: rustls::Error },
}

/// The cryptography of every connection.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Reads the files, and keeps reading them for as long as the program runs.
pub fn watch_certificate(
    files: CertificateFiles,
) -> Result<watch::Receiver<Arc<ServerConfig>>, CertificateError> {
    let pair = files.read()?;
    let (sender, receiver) = watch::channel(files.configure(&pair)?);
    tokio::spawn(follow(files, pair, sender));
    Ok(receiver)
}

async fn follow(files: CertificateFiles, mut seen: Pair, sender: watch::Sender<Arc<ServerConfig>>) {
    let mut unread = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match files.read() {
            Ok(pair) if pair != seen => {
                // A pair is tried once, good or bad.
                match files.configure(&pair) {
                    Ok(config) => {
                        tracing::info!("took up a new certificate");
                        sender.send_replace(config);
                    }
                    Err(error) => tracing::error!(
                        error = chain(&error),
                        "failed to take up a new certificate, the old one stays"
                    ),
                }
                seen = pair;
                unread = None;
            }
            Ok(_) => unread = None,
            Err(error) => {
                let text = chain(&error);
                if unread.as_ref() != Some(&text) {
                    tracing::error!(error = text, "failed to read the certificate again, the old one stays");
                }
                unread = Some(text);
            }
        }
    }
}

impl CertificateFiles {
    fn read(&self) -> Result<Pair, CertificateError> {
        let read = |file: &Path| {
            fs::read(file).map_err(|source| CertificateError::Read { file: file.to_owned(), source })
        };
        Ok(Pair { certificate: read(&self.certificate)?, key: read(&self.key)? })
    }

    fn configure(&self, pair: &Pair) -> Result<Arc<ServerConfig>, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(&pair.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| CertificateError::Pem { file: self.certificate.clone(), source })?;
        let key = PrivateKeyDer::from_pem_slice(&pair.key)
            .map_err(|source| CertificateError::Pem { file: self.key.clone(), source })?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|source| CertificateError::Unusable { source })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
