//! TLS to both sides.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

/// What the proxy shows to Valv: PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Certificate {
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor> {
        let certificate =
            CertificateDer::from_pem_slice(self.certificate.as_bytes()).context("the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).context("the certificate's key")?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The real server.
#[derive(Clone)]
pub struct Upstream {
    address: SocketAddr,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl Upstream {
    /// The server at `address`, whose certificate is for `name` and signed by `authority` (PEM).
    ///
    /// # Errors
    /// If the name or the authority cannot be read.
    pub fn new(address: SocketAddr, name: &str, authority: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).context("the authority")?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned())?;
        Ok(Self { address, name, connector: TlsConnector::from(Arc::new(config)) })
    }

    pub(crate) async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let connection = TcpStream::connect(self.address).await?;
        Ok(self.connector.connect(self.name.clone(), connection).await?)
    }
}
