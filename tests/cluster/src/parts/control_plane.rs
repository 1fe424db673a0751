//! etcd, the API server, the controller manager and the scheduler.

use std::process::Command;

use anyhow::Result;

use crate::network::{POD_RANGE, SERVICE_RANGE};
use crate::part::Part;
use crate::parts::Site;

/// Where etcd listens for the API server: inside the node only, and not on etcd's usual port.
const ETCD: &str = "http://127.0.0.1:23790";

/// Where etcd would listen for other members.
const ETCD_PEERS: &str = "http://127.0.0.1:23800";

/// What the audit log holds.
const AUDIT_POLICY: &str = include_str!("../../manifests/audit-policy.yaml");

/// The API server's store.
pub fn etcd(site: &Site) -> Result<Part> {
    let mut command = site.command("etcd")?;
    command.arg("--name=valv").arg(format!("--data-dir={}", site.folder.path("etcd").display()));
    command.args([format!("--listen-client-urls={ETCD}"), format!("--advertise-client-urls={ETCD}")]);
    command.arg(format!("--listen-peer-urls={ETCD_PEERS}"));
    command.arg(format!("--initial-advertise-peer-urls={ETCD_PEERS}"));
    command.arg(format!("--initial-cluster=valv={ETCD_PEERS}"));
    command.args(["--logger=zap", "--log-level=warn"]);
    Ok(Part { name: "etcd", command })
}

/// The API server, with the admission plugins that are on by default, and `NodeRestriction`.
pub fn apiserver(site: &Site) -> Result<Part> {
    let policy = site.folder.write("etc/audit-policy.yaml", AUDIT_POLICY)?;
    let pki = site.folder.pki();
    let file = |flag: &str, name: &str| format!("--{flag}={}", pki.file(name).display());
    let mut command = site.command("kube-apiserver")?;
    command.arg(format!("--etcd-servers={ETCD}"));
    command.arg(format!("--bind-address={}", site.address()));
    command.arg(format!("--advertise-address={}", site.address()));
    command.arg("--secure-port=6443");
    command.args([file("tls-cert-file", "apiserver.crt"), file("tls-private-key-file", "apiserver.key")]);
    command.arg(file("client-ca-file", "ca.crt"));
    command.args(["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"]);
    command.args(["--allow-privileged=true", &format!("--service-cluster-ip-range={SERVICE_RANGE}")]);
    command.arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local");
    command.arg(file("service-account-signing-key-file", "service-accounts.key"));
    command.arg(file("service-account-key-file", "service-accounts.pub"));
    command.arg(file("kubelet-client-certificate", "apiserver-kubelet.crt"));
    command.arg(file("kubelet-client-key", "apiserver-kubelet.key"));
    command.arg(file("kubelet-certificate-authority", "ca.crt"));
    command.arg("--kubelet-preferred-address-types=InternalIP");
    command.arg(file("requestheader-client-ca-file", "ca.crt"));
    command.arg("--requestheader-allowed-names=front-proxy-client");
    command.arg("--requestheader-username-headers=X-Remote-User");
    command.arg("--requestheader-group-headers=X-Remote-Group");
    command.arg("--requestheader-extra-headers-prefix=X-Remote-Extra-");
    command.args([
        file("proxy-client-cert-file", "front-proxy.crt"),
        file("proxy-client-key-file", "front-proxy.key"),
    ]);
    command.arg(format!("--audit-policy-file={}", policy.display()));
    command.arg(format!("--audit-log-path={}", site.folder.audit_log().display()));
    // Five minutes by default. Whoever tests what a dead node leaves need not wait for that.
    command.arg("--default-unreachable-toleration-seconds=20");
    // Tests read it from its beginning: it is not rotated below a gigabyte.
    command.args(["--audit-log-maxsize=1024", "--v=1"]);
    Ok(Part { name: "apiserver", command })
}

/// The controllers.
pub fn controller_manager(site: &Site) -> Result<Part> {
    let pki = site.folder.pki();
    let mut command = client(site, "kube-controller-manager", "controller-manager")?;
    command
        .args([format!("--cluster-cidr={POD_RANGE}"), format!("--service-cluster-ip-range={SERVICE_RANGE}")]);
    command.args(["--allocate-node-cidrs=true", "--node-cidr-mask-size=24"]);
    let account_key = pki.file("service-accounts.key");
    command.arg(format!("--service-account-private-key-file={}", account_key.display()));
    command.arg(format!("--root-ca-file={}", pki.file("ca.crt").display()));
    command.arg("--use-service-account-credentials=true");
    command.arg(format!("--cluster-signing-cert-file={}", pki.file("ca.crt").display()));
    command.arg(format!("--cluster-signing-key-file={}", pki.file("ca.key").display()));
    command.arg(format!("--flex-volume-plugin-dir={}", site.folder.path("kubelet/plugins").display()));
    Ok(Part { name: "controller-manager", command })
}

/// The scheduler.
pub fn scheduler(site: &Site) -> Result<Part> {
    Ok(Part { name: "scheduler", command: client(site, "kube-scheduler", "scheduler")? })
}

/// What the two have in common. There is one of each, so none must be elected.
fn client(site: &Site, program: &str, user: &str) -> Result<Command> {
    let kubeconfig = site.folder.pki().kubeconfig(user);
    let mut command = site.command(program)?;
    for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        command.arg(format!("--{flag}={}", kubeconfig.display()));
    }
    command.args(["--bind-address=127.0.0.1", "--leader-elect=false", "--v=1"]);
    Ok(command)
}
