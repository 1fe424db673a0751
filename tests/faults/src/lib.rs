//! A double: a proxy that stands between Valv and a real S3 server, and makes the faults of networks and stores.
//!
//! It ends TLS and passes each request on as it came, `Host` included, so that its signature stays true. What it
//! does to requests can be changed while it runs.
//!
//! | to find | open |
//! |---|---|
//! | which faults there are | `fault.rs` |
//! | how a request is passed on | `serve.rs` |
//! | both sides' TLS | `tls.rs` |

mod fault;
mod serve;
mod tls;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub use self::fault::{Fault, Objects};
pub use self::tls::{Certificate, Upstream};

/// The double. It ends when it is dropped.
pub struct FaultProxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What every connection looks at.
struct Shared {
    fault: Mutex<Fault>,
    certificate: Mutex<TlsAcceptor>,
    requests: AtomicUsize,
    /// Of each kind of objects.
    puts: [AtomicUsize; Objects::ALL.len()],
    reads: AtomicUsize,
    /// Requests and answers that are kept, or were.
    kept: AtomicUsize,
    upstream: Upstream,
}

impl FaultProxy {
    /// Answers at `listener` with `certificate`, before `upstream`.
    ///
    /// # Errors
    /// If the socket is not usable, or a certificate cannot be read.
    pub fn start(
        listener: TcpListener,
        certificate: &Certificate,
        upstream: Upstream,
        fault: Fault,
    ) -> Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let shared = Arc::new(Shared {
            fault: Mutex::new(fault),
            certificate: Mutex::new(certificate.acceptor()?),
            requests: AtomicUsize::new(0),
            puts: Objects::ALL.map(|_| AtomicUsize::new(0)),
            reads: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            upstream,
        });
        let for_connections = shared.clone();
        let accepting = tokio::spawn(async move {
            // It fails if the process has no more files: then nothing can be proven here.
            while let Ok((connection, _)) = listener.accept().await {
                let shared = for_connections.clone();
                tokio::spawn(async move {
                    // A broken connection is what this is for.
                    let _ = serve::connection(connection, shared).await;
                });
            }
        });
        Ok(Self { address, shared, accepting })
    }

    /// Does this to requests from now on. Each fault counts anew.
    pub fn set(&self, fault: Fault) {
        self.shared.requests.store(0, Ordering::SeqCst);
        self.shared.puts.iter().for_each(|puts| puts.store(0, Ordering::SeqCst));
        self.shared.reads.store(0, Ordering::SeqCst);
        self.shared.kept.store(0, Ordering::SeqCst);
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Shows this certificate from now on.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn present(&self, certificate: &Certificate) -> Result<()> {
        *self.shared.certificate.lock().unwrap_or_else(PoisonError::into_inner) = certificate.acceptor()?;
        Ok(())
    }

    /// Requests that came since the fault was set.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// PUTs of these objects that came since the fault was set, whether they reached the store or not.
    pub fn puts(&self, of: Objects) -> usize {
        self.shared.puts[of.number()].load(Ordering::SeqCst)
    }

    /// Reads of agents' data that came since the fault was set.
    pub fn reads(&self) -> usize {
        self.shared.reads.load(Ordering::SeqCst)
    }

    /// Requests, rests of requests and answers that came to be kept since the fault was set.
    pub fn kept(&self) -> usize {
        self.shared.kept.load(Ordering::SeqCst)
    }

    /// As a `BackupStore` names it.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
