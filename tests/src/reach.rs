//! How somebody comes to a tenant's journal: to a node's port, or where no node can be reached from here,
//! through the API server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::eventually::{Seen, eventually};
use crate::journal::is_ready;
use crate::kind;
use crate::tenant::{STEP, Tenant};

/// What a node that can be reached needs to take a connection.
const NEAR: Duration = Duration::from_secs(3);

/// kubectl has found the pod by then.
const FORWARDED: Duration = Duration::from_secs(30);

/// Between a port-forward that ended with its pod, and the next.
const PAUSE: Duration = Duration::from_millis(200);

/// The way to a journal.
#[derive(Clone)]
pub(crate) struct Reach {
    /// Where its listener seems to be.
    pub address: SocketAddr,
    forward: Option<Arc<Forward>>,
}

/// `kubectl port-forward`, begun again whenever its pod goes, until this is dropped.
struct Forward(JoinHandle<()>);

impl Reach {
    /// Waits until the journal of `tenant` has a pod, and finds a way to it.
    pub async fn find(tenant: &Tenant) -> Result<Self> {
        let (port, pod) = eventually(format!("{} has an address", tenant.name), STEP, async || {
            let Some(service) = tenant.find(kind::SERVICE, "journal").await? else {
                return Ok(Seen::NotYet("the Service journal is not there".to_owned()));
            };
            let port = service["spec"]["ports"][0]["nodePort"].as_u64();
            let port = port.and_then(|port| u16::try_from(port).ok());
            let pods = tenant.pods("journal").await?;
            let count = pods.len();
            Ok(match port.zip(pods.into_iter().find(is_ready)) {
                Some(found) => Seen::Yes(found),
                None => Seen::NotYet(format!("node port {port:?}, {count} pods")),
            })
        })
        .await?;
        let host = pod["status"]["hostIP"].as_str().and_then(|host| host.parse().ok());
        if tenant.world().local().is_some() {
            let host = host.context("a pod that is ready has a node")?;
            return Ok(Self { address: SocketAddr::new(host, port), forward: None });
        }
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        let node = tenant.world().admin.find(kind::NODE, "", node).await?.unwrap_or_default();
        for host in host.into_iter().chain(external_addresses(&node)) {
            let address = SocketAddr::new(host, port);
            if matches!(timeout(NEAR, TcpStream::connect(address)).await, Ok(Ok(_))) {
                return Ok(Self { address, forward: None });
            }
        }
        let (address, forward) = Forward::begin(tenant).await?;
        Ok(Self { address, forward: Some(Arc::new(forward)) })
    }

    /// Whether it ends with the pod it leads to.
    pub fn is_forwarded(&self) -> bool {
        self.forward.is_some()
    }
}

/// Where the world comes to a node, if there is such an address.
fn external_addresses(node: &Value) -> Vec<std::net::IpAddr> {
    let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
    let external = addresses.iter().filter(|address| address["type"] == "ExternalIP");
    external.filter_map(|address| address["address"].as_str()?.parse().ok()).collect()
}

impl Forward {
    async fn begin(tenant: &Tenant) -> Result<(SocketAddr, Self)> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = free.local_addr()?;
        drop(free);
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(tenant.world().kubeconfig()).args(["--namespace", &tenant.namespace]);
        command.args(["port-forward", "service/journal", &format!("{}:https", address.port())]);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null()).kill_on_drop(true);
        let first = command.spawn().context("no node can be reached from here, and kubectl failed to run")?;
        let forward = Self(tokio::spawn(go_on(command, first)));
        eventually(format!("the journal of {} is forwarded", tenant.name), FORWARDED, async || {
            TcpStream::connect(address).await?;
            Ok(Seen::Yes(()))
        })
        .await?;
        Ok((address, forward))
    }
}

async fn go_on(mut command: Command, first: Child) {
    let mut child = Some(first);
    loop {
        if let Some(mut child) = child {
            // Why it ended does not matter: whoever comes next says what does not answer.
            let _ = child.wait().await;
        }
        sleep(PAUSE).await;
        child = command.spawn().ok();
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.0.abort();
    }
}
