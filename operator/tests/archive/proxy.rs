//! The fault proxy before a store of one test.

use faults::{Certificate, Fault, FaultProxy, Upstream};

use super::store::Store;

/// The double before `store`.
pub async fn before(store: &Store, fault: Fault) -> FaultProxy {
    let certificate = Certificate { certificate: store.certificate.clone(), key: store.key.clone() };
    let upstream = format!("127.0.0.1:{}", store.port).parse().unwrap();
    let upstream = Upstream::new(upstream, "127.0.0.1", &store.authority).unwrap();
    FaultProxy::start("127.0.0.1:0".parse().unwrap(), &certificate, upstream, fault).await.unwrap()
}
