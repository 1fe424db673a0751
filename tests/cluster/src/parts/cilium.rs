//! The network: Cilium with its eBPF datapath, in place of kube-proxy.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::mounts::SOCKET_GROUP;
use crate::network::{POD_RANGE, api_url};
use crate::part::Part;
use crate::parts::Site;
use crate::process;
use crate::program::Component;

/// Where the agent says whether it is well.
const HEALTH_PORT: u16 = 9879;

/// The agent's answer is one line.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// The agent.
pub fn agent(site: &Site) -> Result<Part> {
    // It writes beside the sources that it compiles.
    let library = site.folder.path("cilium");
    fs::create_dir(&library)?;
    let sources = site.programs.folder(Component::Cilium)?.join("bpf");
    process::output(Command::new("cp").arg("--recursive").arg(sources).arg(&library))?;

    let mut command = site.command("daemon")?;
    // Without it the agent looks for a node of another name, for five minutes.
    command.env("K8S_NODE_NAME", site.name());
    command.arg(format!("--k8s-kubeconfig-path={}", site.folder.pki().kubeconfig("cilium").display()));
    command.arg(format!("--k8s-api-server-urls={}", api_url()));
    command.args(["--enable-ipv4=true", "--enable-ipv6=false", "--ipam=kubernetes", "--devices=eth0"]);
    command.args(["--routing-mode=native", "--auto-direct-node-routes=true"]);
    command
        .args([format!("--ipv4-native-routing-cidr={POD_RANGE}"), "--enable-ipv4-masquerade=false".into()]);
    command.args([
        "--kube-proxy-replacement=true",
        "--identity-allocation-mode=crd",
        "--cluster-name=default",
    ]);
    command.arg(format!("--lib-dir={}", library.display()));
    command.args([
        "--state-dir=/run/cilium",
        "--socket-path=/run/cilium/cilium.sock",
        "--bpf-root=/sys/fs/bpf",
    ]);
    command.arg(format!("--cgroup-root={SOCKET_GROUP}"));
    command.args(["--enable-health-checking=false", "--enable-endpoint-health-checking=false"]);
    command.args(["--enable-hubble=false", "--cni-exclusive=false", "--annotate-k8s-node=false"]);
    // busybox and musl give up at REFUSED, the default.
    command.args(["--enable-l7-proxy=true", "--tofqdns-dns-reject-response-code=nameError"]);
    command.arg(format!("--agent-health-port={HEALTH_PORT}"));
    Ok(Part { name: "cilium", command })
}

/// Whether the agent on this node says that it is well.
pub fn is_healthy() -> bool {
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn ask() -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, HEALTH_PORT))?;
    stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nbrief: true\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Tells containerd to use Cilium. The agent would do so itself by renaming a file, which containerd 1.6
/// does not notice.
pub fn write_network(site: &Site) -> Result<()> {
    let plugin = r#"{"type":"cilium-cni","log-file":"/run/cilium/cilium-cni.log"}"#;
    let network = format!(r#"{{"cniVersion":"1.0.0","name":"cilium","plugins":[{plugin}]}}"#);
    site.folder.write("cni/05-cilium.conflist", &network).map(drop)
}
