//! What is kept on its way to the store: what reaches it when, and what never does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use faults::{Certificate, Fault, FaultProxy, Objects, Upstream};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

const COMMIT: &str = "/b/v1/ada/commits/20261122T010000Z.json";

/// For whatever is awaited.
const SOON: Duration = Duration::from_secs(10);

/// A server that takes all that is put whole, and the double before it.
struct Stage {
    proxy: FaultProxy,
    certificate: String,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Stage {
    async fn with(fault: Fault) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let shown = Certificate { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() };
        let taken = Arc::<Mutex<Vec<String>>>::default();
        let address = serve(&shown, taken.clone()).await;
        let upstream = Upstream::new(address, "localhost", &shown.certificate).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = FaultProxy::start(listener, &shown, upstream, fault).unwrap();
        Self { proxy, certificate: shown.certificate, taken }
    }

    /// Puts `body` at `path`: the connection, on which the answer comes.
    async fn put(&self, path: &str, body: &str) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection = TcpStream::connect(self.proxy.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = TlsConnector::from(Arc::new(config)).connect(name, connection).await.unwrap();
        let length = body.len();
        let request = format!("PUT {path} HTTP/1.1\r\nHost: s\r\nContent-Length: {length}\r\n\r\n{body}");
        connection.write_all(request.as_bytes()).await.unwrap();
        connection.flush().await.unwrap();
        connection
    }

    fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }

    async fn keeps_something(&self) {
        until(|| self.proxy.kept() > 0).await;
    }
}

async fn until(so: impl Fn() -> bool) {
    let awaited = async {
        while !so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, awaited).await.unwrap();
}

/// The first line of an answer; empty: the connection ended without one.
async fn answer(mut connection: impl AsyncRead + Unpin) -> String {
    let mut head = [0; 1024];
    let read = timeout(SOON, connection.read(&mut head)).await.unwrap().unwrap_or_default();
    String::from_utf8_lossy(&head[..read]).lines().next().unwrap_or_default().to_owned()
}

async fn serve(shown: &Certificate, taken: Arc<Mutex<Vec<String>>>) -> SocketAddr {
    let certificate = CertificateDer::from_pem_slice(shown.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let (acceptor, taken) = (acceptor.clone(), taken.clone());
            tokio::spawn(async move {
                let mut connection = acceptor.accept(connection).await.unwrap();
                let mut all = String::new();
                let body = loop {
                    let mut some = [0; 1024];
                    let read = connection.read(&mut some).await.unwrap_or_default();
                    if read == 0 {
                        return;
                    }
                    all.push_str(&String::from_utf8_lossy(&some[..read]));
                    let Some((head, body)) = all.split_once("\r\n\r\n") else { continue };
                    let head = head.to_ascii_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if length.is_some_and(|length| length.parse() == Ok(body.len())) {
                        break body.to_owned();
                    }
                };
                taken.lock().unwrap().push(body);
                let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            });
        }
    });
    address
}

#[tokio::test]
async fn what_is_held_reaches_the_store_when_it_is_let_go_and_is_answered() {
    let stage = Stage::with(Fault::HeldAfter { of: Objects::Commits, puts: 0 }).await;

    let connection = stage.put(COMMIT, "one").await;
    stage.keeps_something().await;
    let held = stage.taken();
    stage.proxy.set(Fault::None);

    assert_eq!(answer(connection).await, "HTTP/1.1 200 OK");
    assert!(held.is_empty(), "{held:?}");
    assert_eq!(stage.taken(), ["one"]);
}

#[tokio::test]
async fn what_its_sender_gave_up_while_it_was_held_never_reaches_the_store() {
    let stage = Stage::with(Fault::HeldAfter { of: Objects::Commits, puts: 0 }).await;

    let connection = stage.put(COMMIT, "one").await;
    stage.keeps_something().await;
    drop(connection);
    // Another comes after it. Then a window, not a wait: nothing tells that an end was noticed.
    let other = stage.put(COMMIT, "two").await;
    until(|| stage.proxy.kept() == 2).await;
    sleep(Duration::from_millis(200)).await;
    stage.proxy.set(Fault::None);

    assert_eq!(answer(other).await, "HTTP/1.1 200 OK");
    assert_eq!(stage.taken(), ["two"]);
}

#[tokio::test]
async fn what_is_halved_is_never_whole_in_the_store_and_never_answered() {
    let stage = Stage::with(Fault::HalvedAfter { of: Objects::Commits, puts: 0 }).await;

    let connection = stage.put(COMMIT, "one and more").await;
    stage.keeps_something().await;
    stage.proxy.set(Fault::None);

    assert_eq!(answer(connection).await, "");
    assert!(stage.taken().is_empty(), "{:?}", stage.taken());
}

#[tokio::test]
async fn what_is_in_the_store_is_not_answered_while_its_answer_is_held() {
    let stage = Stage::with(Fault::AnswersHeldAfter { of: Objects::Commits, puts: 0 }).await;

    let mut connection = stage.put(COMMIT, "one").await;
    stage.keeps_something().await;
    let taken = stage.taken();
    let early = timeout(Duration::from_millis(200), connection.read(&mut [0; 1])).await;
    stage.proxy.set(Fault::None);

    assert_eq!(taken, ["one"]);
    assert!(early.is_err(), "it was answered while its answer was held");
    assert_eq!(answer(connection).await, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn an_answer_is_lost_once_and_probes_are_not_counted() {
    let stage = Stage::with(Fault::AnswerLost { of: Objects::Commits, put: 1 }).await;

    let of_a_probe = answer(stage.put("/b/v1/.probe/commits/1-a/a", "probe").await).await;
    let lost = answer(stage.put(COMMIT, "one").await).await;
    let again = answer(stage.put(COMMIT, "one").await).await;

    assert_eq!([of_a_probe.as_str(), &lost, &again], ["HTTP/1.1 200 OK", "", "HTTP/1.1 200 OK"]);
    assert_eq!(stage.taken(), ["probe", "one", "one"]);
    assert_eq!(stage.proxy.puts(Objects::Commits), 2);
}
