//! Listens, serves, and stops without losing a request.
//!
//! On SIGTERM or SIGINT: `/readyz` turns false; everything is served on for the drain delay, so that load balancers
//! notice; then nothing new is accepted, and what has come until then is finished, for at most [`FINISH_MAX`]. What has
//! come is also a request on a connection that nobody has looked at yet: this process may have been without a processor.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::{io, iter};

use axum::Router;
use clap::Args;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use rustls::ServerConfig;
use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::accounts::{Accounts, AccountsError, SignIn};
use crate::attachments::store::AttachmentStore;
use crate::database::{Database, DatabaseArguments, DatabaseError};
use crate::health::Lifecycle;
use crate::release::{Release, ReleaseArguments, ReleaseError};
use crate::tls::{CertificateError, CertificateFiles, watch_certificate};
use crate::web::{self, Journal, Scheme};

/// What is in flight may take this long after the drain delay.
const FINISH_MAX: Duration = Duration::from_secs(20);
/// A client that does not finish its handshake, or the head of its request, is dropped.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// A connection without a request may take this long to send one when the process stops.
const LATE_MAX: Duration = Duration::from_secs(1);
/// The wait after a failed accept: the process may be out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How to serve.
#[derive(Args)]
pub struct ServeArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    release: ReleaseArguments,
    /// Where to listen.
    #[arg(long, env = "JOURNAL_LISTEN", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// PEM certificate chain. Without certificate and key only a loopback address is listened on.
    #[arg(long, env = "JOURNAL_TLS_CERT_FILE", requires = "tls_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// PEM private key.
    #[arg(long, env = "JOURNAL_TLS_KEY_FILE", requires = "tls_cert_file")]
    tls_key_file: Option<PathBuf>,
    /// The volume with the attachments.
    #[arg(long, env = "JOURNAL_ATTACHMENTS_DIR")]
    attachments_dir: PathBuf,
    /// Accounts, as user:password, by line or comma. The user is an HSA-id.
    #[arg(long, env = "JOURNAL_ACCOUNTS", hide_env_values = true)]
    accounts: Option<SecretString>,
    /// How long to serve on after being asked to stop.
    #[arg(long, env = "JOURNAL_DRAIN_SECONDS", default_value_t = 3)]
    drain_seconds: u64,
}

/// The journal cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("failed to read the release")]
    Release { source: ReleaseError },
    #[error("failed to use the database")]
    Database { source: DatabaseError },
    #[error("failed to use JOURNAL_ATTACHMENTS_DIR {folder}")]
    Attachments { folder: PathBuf, source: io::Error },
    #[error("failed to read JOURNAL_ACCOUNTS")]
    Accounts { source: AccountsError },
    #[error(
        "JOURNAL_TLS_CERT_FILE and JOURNAL_TLS_KEY_FILE are needed: without TLS only a loopback address is listened on, not {listen}"
    )]
    TlsNeeded { listen: SocketAddr },
    #[error("failed to use the certificate of JOURNAL_TLS_CERT_FILE")]
    Certificate { source: CertificateError },
    #[error("failed to listen on {listen}")]
    Listen { listen: SocketAddr, source: io::Error },
    #[error("failed to wait for signals")]
    Signals { source: io::Error },
}

/// Serves until a signal.
pub async fn serve(arguments: ServeArguments, now: fn() -> Timestamp) -> Result<(), ServeError> {
    let drain = Duration::from_secs(arguments.drain_seconds);
    let listen = arguments.listen;
    let certificate = certificate(&arguments)?;
    let scheme = if certificate.is_some() { Scheme::Https } else { Scheme::Http };
    let journal = Arc::new(journal(arguments, now, scheme)?);
    let mut stop = Stop::listen().map_err(|source| ServeError::Signals { source })?;
    let listener = TcpListener::bind(listen).await.map_err(|source| ServeError::Listen { listen, source })?;
    let listen = listener.local_addr().map_err(|source| ServeError::Listen { listen, source })?;
    tracing::info!(%listen, ?scheme, release.version = journal.release.version, "serving");

    let connections = Connections {
        router: web::router(Arc::clone(&journal)),
        certificate,
        stage: watch::Sender::new(Stage::Open),
    };
    connections.accept_until(&listener, stop.asked()).await;
    journal.lifecycle.stop();
    tracing::info!(drain_s = drain.as_secs(), "asked to stop, serving on");
    connections.accept_until(&listener, sleep(drain)).await;
    connections.accept_the_last(listener);
    tracing::info!("finishing what is in flight");
    match timeout(FINISH_MAX, connections.finish()).await {
        Ok(()) => tracing::info!("stopped"),
        Err(_) => tracing::warn!("stopped with requests unfinished"),
    }
    Ok(())
}

fn certificate(arguments: &ServeArguments) -> Result<Option<watch::Receiver<Arc<ServerConfig>>>, ServeError> {
    match (&arguments.tls_cert_file, &arguments.tls_key_file) {
        (Some(certificate), Some(key)) => {
            let files = CertificateFiles { certificate: certificate.clone(), key: key.clone() };
            watch_certificate(files).map(Some).map_err(|source| ServeError::Certificate { source })
        }
        _ if arguments.listen.ip().is_loopback() => Ok(None),
        _ => Err(ServeError::TlsNeeded { listen: arguments.listen }),
    }
}

fn journal(arguments: ServeArguments, now: fn() -> Timestamp, scheme: Scheme) -> Result<Journal, ServeError> {
    let release =
        Release::read(&arguments.release.release_dir).map_err(|source| ServeError::Release { source })?;
    let database = Database::open(arguments.database).map_err(|source| ServeError::Database { source })?;
    let folder = arguments.attachments_dir;
    let attachments =
        AttachmentStore::open(folder.clone()).map_err(|source| ServeError::Attachments { folder, source })?;
    let accounts = Accounts::parse(&arguments.accounts.unwrap_or_default())
        .map_err(|source| ServeError::Accounts { source })?;
    if accounts.sign_in() == SignIn::Closed {
        tracing::warn!("JOURNAL_ACCOUNTS has no account, nobody can sign in");
    }
    Ok(Journal { release, database, attachments, accounts, now, scheme, lifecycle: Lifecycle::default() })
}

/// All that is needed to serve a connection.
struct Connections {
    router: Router,
    certificate: Option<watch::Receiver<Arc<ServerConfig>>>,
    /// Each connection has a receiver.
    stage: watch::Sender<Stage>,
}

/// What may still be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// It ends with the request that it has, or is about to have.
    Finishing,
}

impl Connections {
    async fn accept_until(&self, listener: &TcpListener, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.serve(stream),
                    Err(error) => {
                        tracing::warn!(%error, "failed to accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    /// Takes the connections that the kernel has made already, which it would reset otherwise, and listens no more.
    fn accept_the_last(&self, listener: TcpListener) {
        let streams = listener.into_std().map(|listener| iter::from_fn(move || listener.accept().ok()));
        for (stream, _) in streams.into_iter().flatten() {
            match stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                Ok(stream) => self.serve(stream),
                Err(error) => tracing::warn!(%error, "failed to accept a connection"),
            }
        }
    }

    /// Ends when the last connection has.
    async fn finish(&self) {
        self.stage.send_replace(Stage::Finishing);
        self.stage.closed().await;
    }

    fn serve(&self, stream: TcpStream) {
        // From here on, so that a stop waits for the handshake too.
        let stage = self.stage.subscribe();
        let router = self.router.clone();
        // Answers are written whole; waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        match self.certificate.as_ref().map(|current| Arc::clone(&current.borrow())) {
            None => drop(tokio::spawn(exchange(stream, router, stage))),
            Some(config) => drop(tokio::spawn(async move {
                match timeout(HEAD_MAX, TlsAcceptor::from(config).accept(stream)).await {
                    Ok(Ok(stream)) => exchange(stream, router, stage).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                }
            })),
        }
    }
}

/// hyper closes a connection that has not read anything when it is asked to finish. So it gets one that has something to
/// be read, reads that, and only then is asked.
async fn exchange<S>(stream: S, router: Router, mut stage: watch::Receiver<Stage>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stream = BufReader::new(stream);
    let mut finishing = stage.clone();
    tokio::select! {
        biased;
        first = timeout(HEAD_MAX, stream.fill_buf()) => match first {
            Ok(Ok([_, ..])) => {}
            Ok(Ok([]) | Err(_)) | Err(_) => return,
        },
        () = async { is_finishing(&mut finishing).await; sleep(LATE_MAX).await } => return,
    }
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_MAX);
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        () = is_finishing(&mut stage) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = crate::error::chain(error.as_ref()), "a connection broke");
    }
}

async fn is_finishing(stage: &mut watch::Receiver<Stage>) {
    // It fails when there is no sender any more: then the process is at its end.
    let _ = stage.wait_for(|stage| *stage == Stage::Finishing).await;
}

/// The signals that ask the process to stop.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
