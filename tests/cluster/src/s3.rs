//! S3, one request at a time over a connection of its own: what making a bucket and trying its policy
//! takes, as any user and with the reason of every refusal.
//!
//! Not `curl --aws-sigv4`: that of Debian 12 does not send `x-amz-content-sha256`, which S3 requires, nor
//! sort the query that it signs. Not an SDK: this crate sends a dozen requests, and is built before all
//! else.

mod answer;
mod request;
mod signature;

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use secrecy::SecretString;

pub use answer::Answer;
pub use request::{Method, Request};
use signature::Signer;

/// The servers are on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// No answer is longer than a listing of a thousand objects.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Who asks: an access key with its secret, which no `Debug` shows.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// Its name, which requests show.
    pub id: String,
    /// What requests are signed with.
    pub secret: SecretString,
}

/// A user at one server.
#[derive(Clone, Debug)]
pub struct Client {
    host: String,
    address: SocketAddr,
    region: String,
    key: AccessKey,
    tls: Arc<ClientConfig>,
}

impl Client {
    /// The user with `key` at the server `host`, which is at `address` and whose certificate the
    /// authority in the file `ca` has signed.
    pub fn new(host: &str, address: SocketAddr, region: &str, ca: &Path, key: AccessKey) -> Result<Self> {
        let mut trusted = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(ca)
            .with_context(|| format!("failed to read the certificate {}", ca.display()))?;
        trusted.add(certificate)?;
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        Ok(Self { host: host.to_owned(), address, region: region.to_owned(), key, tls: Arc::new(tls) })
    }

    /// Sends `request` and reads the answer, whatever it says.
    ///
    /// # Errors
    /// If there is no answer: no connection, no handshake, or not HTTP.
    pub fn send(&self, request: &Request) -> Result<Answer> {
        self.exchange(request).with_context(|| format!("{request} to {}", self.host))
    }

    /// Sends `request`, which must succeed.
    ///
    /// # Errors
    /// Those of [`Self::send`], or what the server says against it.
    pub fn must(&self, request: &Request) -> Result<Answer> {
        let answer = self.send(request)?;
        if !answer.is_success() {
            bail!("{request} to {}: {answer}", self.host);
        }
        Ok(answer)
    }

    fn exchange(&self, request: &Request) -> Result<Answer> {
        let now = Timestamp::try_from(SystemTime::now())?;
        let signer = Signer { region: &self.region, key: &self.key, at: now };
        let head = request.head(&self.host, &signer.headers(&self.host, request)?);
        let stream = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let host = ServerName::try_from(self.host.clone())?;
        let connection = ClientConnection::new(Arc::clone(&self.tls), host)?;
        let mut stream = StreamOwned::new(connection, stream);
        stream.write_all(&[head.as_bytes(), request.content()].concat())?;
        stream.flush()?;
        Answer::read(BufReader::new(stream), request.method())
    }
}
