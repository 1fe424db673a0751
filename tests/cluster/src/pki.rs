//! The cluster's certificates and kubeconfigs: new ones for each `up`, gone with `down`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;
use serde_json::json;

use crate::authority::{Authority, CERTIFICATE, Subject};
use crate::network::{self, API_SERVICE};

/// Who may do everything.
const MASTERS: &str = "system:masters";

/// The components of the control plane that are clients of the API server, with their users' names.
/// Cilium has a user of its own so that the audit log can tell its reads from a person's.
const CLIENTS: [(&str, &str, Option<&str>); 6] = [
    ("admin", "admin", Some(MASTERS)),
    ("cilium", "cilium", Some(MASTERS)),
    ("controller-manager", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
    ("apiserver-kubelet", "kube-apiserver-kubelet-client", Some(MASTERS)),
    ("front-proxy", "front-proxy-client", None),
];

/// Those of them that read a kubeconfig.
const WITH_KUBECONFIG: [&str; 4] = ["admin", "cilium", "controller-manager", "scheduler"];

/// The folder with keys, certificates and kubeconfigs.
#[derive(Clone, Debug)]
pub struct Pki {
    authority: Authority,
}

impl Pki {
    /// The one in `folder`, whether it is made or not.
    pub fn at(folder: PathBuf) -> Self {
        Self { authority: Authority::at(folder) }
    }

    /// Makes the authority, the control plane's certificates and the keys of service accounts.
    pub fn create(&self) -> Result<()> {
        self.authority.create("valv-cluster")?;

        let accounts = KeyPair::generate()?;
        self.authority.write("service-accounts.key", &accounts.serialize_pem())?;
        self.authority.write("service-accounts.pub", &accounts.public_key_pem())?;

        let service = "kubernetes.default.svc.cluster.local";
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", service, "localhost"];
        let addresses = [API_SERVICE.to_owned(), network::node_address(1), Ipv4Addr::LOCALHOST.to_string()];
        self.authority.issue("apiserver", &Subject::server("kube-apiserver", &names, &addresses)?)?;
        for (name, user, group) in CLIENTS {
            self.authority.issue(name, &Subject::client(user, group))?;
        }
        WITH_KUBECONFIG.iter().try_for_each(|name| self.write_kubeconfig(name))
    }

    /// Makes what the kubelet of node `number` needs.
    pub fn create_node(&self, number: u8) -> Result<()> {
        let name = network::node_name(number);
        let user = format!("system:node:{name}");
        let addresses = [network::node_address(number), Ipv4Addr::LOCALHOST.to_string()];
        let server = Subject::server(&user, &[&name], &addresses)?;
        self.authority.issue(&format!("kubelet-server-{name}"), &server)?;
        let client = format!("kubelet-{name}");
        self.authority.issue(&client, &Subject::client(&user, Some("system:nodes")))?;
        self.write_kubeconfig(&client)
    }

    /// The file of this name, e.g. `ca.crt`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.authority.file(name)
    }

    /// The kubeconfig of this client.
    pub fn kubeconfig(&self, client: &str) -> PathBuf {
        self.file(&format!("{client}.kubeconfig"))
    }

    /// Everything a client needs in one file, so that it can be copied elsewhere.
    fn write_kubeconfig(&self, client: &str) -> Result<()> {
        let embedded = |name: &str| Ok::<_, anyhow::Error>(STANDARD.encode(self.authority.read(name)?));
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "valv-cluster",
            "clusters": [{"name": "valv-cluster", "cluster": {
                "server": network::api_url(),
                "certificate-authority-data": embedded(CERTIFICATE)?,
            }}],
            "users": [{"name": client, "user": {
                "client-certificate-data": embedded(&format!("{client}.crt"))?,
                "client-key-data": embedded(&format!("{client}.key"))?,
            }}],
            "contexts": [{"name": "valv-cluster", "context": {"cluster": "valv-cluster", "user": client}}],
        });
        self.authority.write(&format!("{client}.kubeconfig"), &serde_yaml::to_string(&kubeconfig)?)
    }
}
