//! What a store says before it knows who asks: its certificate, and its clock.
//!
//! Input: settings, of which the credentials are not used. Output: a [`Greeting`]. One connection of its own, since
//! the SDK shows neither certificate nor `Date`.

use std::{io, sync::Arc};

use jiff::{Timestamp, fmt::rfc2822};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Addressing, Scheme, Settings, SettingsError, Trust, scheme};

/// A head of an answer that is longer is none.
const HEAD_LIMIT_BYTES: u64 = 16 * 1024;

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The certificate, where the store speaks TLS.
    pub certificate: Option<Certificate>,
    /// The store's clock when it answered, if it says it. To the second.
    pub date: Option<Timestamp>,
}

/// A certificate that is valid for the store's name, and trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// When it ends.
    pub not_after: Timestamp,
    /// The version of TLS that was spoken.
    pub protocol: String,
}

/// The store greeted nobody.
#[derive(Debug, thiserror::Error)]
pub enum GreetingError {
    /// The settings cannot be used.
    #[error("the settings cannot be used")]
    Settings(#[source] SettingsError),
    /// The endpoint's host is no name.
    #[error("{host:?} is not a host name")]
    Host {
        /// What it is.
        host: String,
        /// Why not.
        source: InvalidDnsNameError,
    },
    /// No connection.
    #[error("failed to connect to {address}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The proxy did not let it through.
    #[error("the proxy does not lead to {address}: {answer}")]
    Proxy {
        /// Where to.
        address: String,
        /// The first line of the proxy's answer.
        answer: String,
    },
    /// No TLS: the certificate is refused, or something else.
    #[error("failed to speak TLS with {host}")]
    Tls {
        /// With whom.
        host: String,
        /// Why not.
        source: io::Error,
    },
    /// It took too long.
    #[error("{address} did not answer in time")]
    TimedOut {
        /// Who.
        address: String,
    },
}

/// Connects, shakes hands, and asks for nothing in particular.
pub async fn greet(settings: &Settings) -> Result<Greeting, GreetingError> {
    let scheme = scheme(&settings.endpoint).map_err(GreetingError::Settings)?;
    let (host, address) = host_and_address(settings, scheme);
    let late = || GreetingError::TimedOut { address: address.clone() };
    let patience = &settings.patience;
    let connection = timeout(patience.connect, connect(settings, &address)).await.map_err(|_| late())??;
    if scheme == Scheme::Http {
        let date = timeout(patience.window, date(connection, &host)).await.unwrap_or_default();
        return Ok(Greeting { certificate: None, date });
    }
    let config = client_config(&settings.trust).map_err(GreetingError::Settings)?;
    let name = ServerName::try_from(host.clone())
        .map_err(|source| GreetingError::Host { host: host.clone(), source })?;
    let shaken = timeout(patience.connect, TlsConnector::from(Arc::new(config)).connect(name, connection));
    let stream = shaken.await.map_err(|_| late())?.map_err(|source| not_shaken(&host, &address, source))?;
    let (_, session) = stream.get_ref();
    let not_after = session.peer_certificates().and_then(|chain| chain.first()).and_then(not_after);
    let protocol = session.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default();
    let certificate = not_after.map(|not_after| Certificate { not_after, protocol });
    // Whoever shakes hands and then says nothing has no clock to compare.
    let date = timeout(patience.window, date(stream, &host)).await.unwrap_or_default();
    Ok(Greeting { certificate, date })
}

/// Whoever hangs up in the middle of a handshake has refused nothing: it is not there, like one that does not listen.
fn not_shaken(host: &str, address: &str, source: io::Error) -> GreetingError {
    if source.get_ref().is_some_and(|cause| cause.is::<rustls::Error>()) {
        GreetingError::Tls { host: host.to_owned(), source }
    } else {
        GreetingError::Connect { address: address.to_owned(), source }
    }
}

/// The name that the certificate must have, and `host:port`.
fn host_and_address(settings: &Settings, scheme: Scheme) -> (String, String) {
    let (_, rest) = settings.endpoint.split_once("://").unwrap_or_default();
    let rest = rest.trim_end_matches('/');
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ if scheme == Scheme::Http => (rest, "80"),
        _ => (rest, "443"),
    };
    let host = match settings.addressing {
        Addressing::Path => host.to_owned(),
        Addressing::VirtualHost => format!("{}.{host}", settings.bucket),
    };
    let address = format!("{host}:{port}");
    (host, address)
}

async fn connect(settings: &Settings, address: &str) -> Result<TcpStream, GreetingError> {
    let failed = |address: &str| {
        let address = address.to_owned();
        move |source| GreetingError::Connect { address, source }
    };
    let Some(proxy) = &settings.proxy else {
        return TcpStream::connect(address).await.map_err(failed(address));
    };
    let proxy = proxy.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(proxy).await.map_err(failed(proxy))?;
    let request = format!("CONNECT {address} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed(proxy))?;
    let head = head(&mut stream).await.map_err(failed(proxy))?;
    let first = head.lines().next().unwrap_or_default();
    if first.split(' ').nth(1) != Some("200") {
        return Err(GreetingError::Proxy { address: address.to_owned(), answer: first.to_owned() });
    }
    Ok(stream)
}

fn client_config(trust: &Trust) -> Result<ClientConfig, SettingsError> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::System => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(SettingsError::NoTrust);
            }
        }
        Trust::Only(bundle) => {
            for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
                let unread =
                    |error: Box<dyn std::error::Error + Send + Sync>| SettingsError::Bundle(Some(error));
                let certificate = certificate.map_err(|error| unread(Box::new(error)))?;
                roots.add(certificate).map_err(|error| unread(Box::new(error)))?;
            }
            if roots.is_empty() {
                return Err(SettingsError::Bundle(None));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SettingsError::Bundle(Some(Box::new(error))))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// The `Date` of the answer to a request that nobody signed. A refusal has one too.
async fn date(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str) -> Option<Timestamp> {
    let request = format!("HEAD / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    date_of(&head(&mut stream).await.ok()?)
}

/// All before the empty line.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = vec![];
    let mut stream = stream.take(HEAD_LIMIT_BYTES);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// # Source
/// RFC 9110, 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date_of(head: &str) -> Option<Timestamp> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let (_, date) = lines.find(|(name, _)| name.eq_ignore_ascii_case("date"))?;
    rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(date.trim()).ok()
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::io::bucket::{AnsweredVersions, Credentials, Patience};

    fn settings(endpoint: &str, addressing: Addressing) -> Settings {
        Settings {
            endpoint: endpoint.into(),
            region: "fi-hel2".into(),
            bucket: "valv".into(),
            prefix: String::new(),
            addressing,
            credentials: Credentials {
                access_key_id: String::new(),
                secret_access_key: SecretString::default(),
            },
            trust: Trust::System,
            proxy: None,
            patience: Patience::default(),
            answered_versions: AnsweredVersions::default(),
        }
    }

    #[test]
    fn the_bucket_stands_in_the_host_only_where_it_is_asked_to() {
        let of = |endpoint: &str, addressing| {
            host_and_address(&settings(endpoint, addressing), scheme(endpoint).unwrap()).1
        };

        assert_eq!(of("https://store.example", Addressing::Path), "store.example:443");
        assert_eq!(of("https://store.example:9000", Addressing::Path), "store.example:9000");
        assert_eq!(of("https://store.example", Addressing::VirtualHost), "valv.store.example:443");
        assert_eq!(of("http://127.0.0.1", Addressing::Path), "127.0.0.1:80");
    }

    #[test]
    fn a_date_is_read_whatever_the_case_of_its_name() {
        let head = "HTTP/1.1 403 Forbidden\r\nserver: x\r\ndAtE: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";

        assert_eq!(date_of(head), Some("1994-11-06T08:49:37Z".parse().unwrap()));
        assert_eq!(date_of("HTTP/1.1 200 OK\r\ndate: soon\r\n\r\n"), None);
    }

    #[tokio::test]
    async fn a_store_that_nobody_listens_for_greets_nobody() {
        let error = greet(&settings("https://127.0.0.1:1", Addressing::Path)).await.unwrap_err();

        assert!(matches!(error, GreetingError::Connect { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn one_that_hangs_up_is_not_there_and_one_that_speaks_no_tls_is_refused() {
        let greeted = async |answer: &'static [u8]| {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("https://{}", listener.local_addr().unwrap());
            tokio::spawn(async move {
                let (mut connection, _) = listener.accept().await.unwrap();
                // All of the greeting, so that the end of the connection is no reset.
                let _ = connection.read(&mut [0; 4096]).await;
                let _ = connection.write_all(answer).await;
            });
            greet(&settings(&endpoint, Addressing::Path)).await.unwrap_err()
        };

        let (away, strange) = (greeted(b"").await, greeted(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);

        assert!(matches!(away, GreetingError::Connect { .. }), "{away:?}");
        assert!(matches!(strange, GreetingError::Tls { .. }), "{strange:?}");
    }
}
