//! A double: a proxy that stands between Valv and a real store and makes the network's faults.
//!
//! It ends TLS, reads one request of HTTP/1.1 at a time, and passes it on unchanged, `Host` included, so that
//! its signature stays true.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::store::Store;

/// What the network does to a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Every third is answered 503, and does not reach the store.
    BusyEveryThird,
    /// Every third reaches the store, and its answer is lost.
    AnswerLostEveryThird,
    /// All of them crawl.
    Slow { bytes_per_second: usize },
    /// All are answered 503.
    AlwaysBusy,
}

/// The double.
pub struct FaultProxy {
    pub port: u16,
    pub requests: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl FaultProxy {
    pub async fn before(store: &Store, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let (server, client) = (server(store), client(store));
        let (upstream, counter) = (store.port, requests.clone());
        let accepting = tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                let (server, client, counter) = (server.clone(), client.clone(), counter.clone());
                tokio::spawn(async move {
                    // A broken connection is what this is for.
                    let _ = serve(connection, server, client, upstream, fault, &counter).await;
                });
            }
        });
        Self { port, requests, accepting }
    }

    pub fn endpoint(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn server(store: &Store) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(store.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(store.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn client(store: &Store) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(store.authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn serve(
    connection: TcpStream,
    server: TlsAcceptor,
    client: TlsConnector,
    upstream: u16,
    fault: Fault,
    requests: &AtomicUsize,
) -> std::io::Result<()> {
    let mut from = server.accept(connection).await?;
    let head = head(&mut from).await?;
    let number = requests.fetch_add(1, Ordering::Relaxed) + 1;
    let third = number.is_multiple_of(3);
    let body_bytes = content_length(&head);
    if matches!(fault, Fault::AlwaysBusy) || (third && matches!(fault, Fault::BusyEveryThird)) {
        // A store that is busy reads the request all the same.
        tokio::io::copy(&mut (&mut from).take(body_bytes), &mut tokio::io::sink()).await?;
        let body = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>busy</Message></Error>";
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        from.write_all(answer.as_bytes()).await?;
        return from.shutdown().await;
    }

    let connection = TcpStream::connect(("127.0.0.1", upstream)).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut to = client.connect(name, connection).await?;
    to.write_all(&head).await?;
    if let Fault::Slow { bytes_per_second } = fault {
        crawl(&mut from, &mut to, body_bytes, bytes_per_second).await?;
    } else {
        tokio::io::copy(&mut (&mut from).take(body_bytes), &mut to).await?;
    }
    to.flush().await?;

    let mut answer = Vec::new();
    if third && matches!(fault, Fault::AnswerLostEveryThird) {
        let _ = to.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
        return Ok(());
    }
    tokio::io::copy(&mut to, &mut from).await?;
    from.shutdown().await
}

/// A request up to its empty line.
async fn head(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(from.read_u8().await?);
    }
    Ok(head)
}

fn content_length(head: &[u8]) -> u64 {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

async fn crawl(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: u64,
    bytes_per_second: usize,
) -> std::io::Result<()> {
    let mut chunk = vec![0; (bytes_per_second / 20).max(1)];
    while bytes > 0 {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&chunk[..read]).await?;
        bytes -= read as u64;
        tokio::time::sleep(Duration::from_secs_f64(read as f64 / bytes_per_second as f64)).await;
    }
    Ok(())
}
