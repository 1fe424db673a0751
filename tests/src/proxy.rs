//! The fault proxy between pods and a store of the local cluster. It runs in the test's process, with its
//! socket in the world.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use faults::{Certificate, Fault, FaultProxy, Upstream};
use valv_cluster::{Cluster, ELSEWHERE, Signed, Store, Validity};

/// Ports that pods may go to there, one for each proxy that runs at a time.
pub const PORTS: std::ops::Range<u16> = 9441..9473;

/// The double before `server`, with no fault yet.
///
/// # Errors
/// If all ports are taken.
pub fn before(cluster: &Cluster, server: &Store) -> Result<FaultProxy> {
    let certificate = certificate(server, Validity::Valid)?;
    let authority = fs::read_to_string(server.ca()).context("the stores' authority")?;
    let mut last = None;
    for port in PORTS {
        let upstream = Upstream::new(server.address, &server.host(), &authority)?;
        match cluster.listen_in_world(SocketAddr::new(address()?, port)) {
            Ok(listener) => return FaultProxy::start(listener, &certificate, upstream, Fault::None),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error.context("no port is free for a fault proxy")),
        None => bail!("there are no ports for fault proxies"),
    }
}

/// What it shows.
pub fn certificate(server: &Store, validity: Validity) -> Result<Certificate> {
    let Signed { certificate, key } = server.stand_in(address()?, validity)?;
    Ok(Certificate { certificate, key })
}

fn address() -> Result<IpAddr> {
    Ok(ELSEWHERE.parse()?)
}
