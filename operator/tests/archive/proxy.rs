//! The fault proxy before a store of one test.

use std::net::TcpListener;

use faults::{Certificate, Fault, FaultProxy, Upstream};

use super::store::Store;

/// The double before `store`.
pub fn before(store: &Store, fault: Fault) -> FaultProxy {
    let certificate = Certificate { certificate: store.certificate.clone(), key: store.key.clone() };
    let upstream = format!("127.0.0.1:{}", store.port).parse().unwrap();
    let upstream = Upstream::new(upstream, "127.0.0.1", &store.authority).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    FaultProxy::start(listener, &certificate, upstream, fault).unwrap()
}
