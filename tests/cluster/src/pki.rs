//! The cluster's certificates and kubeconfigs: new ones for each `up`, gone with `down`.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use serde_json::json;

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
    folder: PathBuf,
}

impl Pki {
    /// The one in `folder`, whether it is made or not.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Makes the authority, the control plane's certificates and the keys of service accounts.
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        let key = KeyPair::generate()?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, "valv-cluster");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        limit(&mut authority);
        self.write("ca.crt", &authority.self_signed(&key)?.pem())?;
        self.write("ca.key", &key.serialize_pem())?;

        let accounts = KeyPair::generate()?;
        self.write("service-accounts.key", &accounts.serialize_pem())?;
        self.write("service-accounts.pub", &accounts.public_key_pem())?;

        let service = "kubernetes.default.svc.cluster.local";
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", service, "localhost"];
        let addresses = [API_SERVICE.to_owned(), network::node_address(1), Ipv4Addr::LOCALHOST.to_string()];
        self.issue("apiserver", &Subject::server("kube-apiserver", &names, &addresses)?)?;
        for (name, user, group) in CLIENTS {
            self.issue(name, &Subject::client(user, group))?;
        }
        WITH_KUBECONFIG.iter().try_for_each(|name| self.write_kubeconfig(name))
    }

    /// Makes what the kubelet of node `number` needs.
    pub fn create_node(&self, number: u8) -> Result<()> {
        let name = network::node_name(number);
        let user = format!("system:node:{name}");
        let addresses = [network::node_address(number), Ipv4Addr::LOCALHOST.to_string()];
        self.issue(&format!("kubelet-server-{name}"), &Subject::server(&user, &[&name], &addresses)?)?;
        let client = format!("kubelet-{name}");
        self.issue(&client, &Subject::client(&user, Some("system:nodes")))?;
        self.write_kubeconfig(&client)
    }

    /// The file of this name, e.g. `ca.crt`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The kubeconfig of this client.
    pub fn kubeconfig(&self, client: &str) -> PathBuf {
        self.file(&format!("{client}.kubeconfig"))
    }

    fn issue(&self, name: &str, subject: &Subject) -> Result<()> {
        let authority_key = KeyPair::from_pem(&self.read("ca.key")?)?;
        let authority = Issuer::from_ca_cert_pem(&self.read("ca.crt")?, authority_key)?;
        let key = KeyPair::generate()?;
        self.write(&format!("{name}.crt"), &subject.certificate()?.signed_by(&key, &authority)?.pem())?;
        self.write(&format!("{name}.key"), &key.serialize_pem())
    }

    /// Everything a client needs in one file, so that it can be copied elsewhere.
    fn write_kubeconfig(&self, client: &str) -> Result<()> {
        let embedded = |name: &str| Ok::<_, anyhow::Error>(STANDARD.encode(self.read(name)?));
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "valv-cluster",
            "clusters": [{"name": "valv-cluster", "cluster": {
                "server": network::api_url(),
                "certificate-authority-data": embedded("ca.crt")?,
            }}],
            "users": [{"name": client, "user": {
                "client-certificate-data": embedded(&format!("{client}.crt"))?,
                "client-key-data": embedded(&format!("{client}.key"))?,
            }}],
            "contexts": [{"name": "valv-cluster", "context": {"cluster": "valv-cluster", "user": client}}],
        });
        self.write(&format!("{client}.kubeconfig"), &serde_yaml::to_string(&kubeconfig)?)
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.file(name);
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
    }

    fn write(&self, name: &str, content: &str) -> Result<()> {
        write_private(&self.file(name), content)
    }
}

/// Writes a file that only its owner reads.
fn write_private(path: &Path, content: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .with_context(|| format!("failed to write {}", path.display()))
}

/// Whom a certificate is for.
struct Subject {
    user: String,
    group: Option<String>,
    names: Vec<SanType>,
    purpose: ExtendedKeyUsagePurpose,
}

impl Subject {
    fn client(user: &str, group: Option<&str>) -> Self {
        let (user, group) = (user.to_owned(), group.map(str::to_owned));
        Self { user, group, names: Vec::new(), purpose: ExtendedKeyUsagePurpose::ClientAuth }
    }

    fn server(user: &str, names: &[&str], addresses: &[String]) -> Result<Self> {
        let mut sans = Vec::new();
        for name in names {
            sans.push(SanType::DnsName((*name).try_into()?));
        }
        for address in addresses {
            sans.push(SanType::IpAddress(address.parse::<IpAddr>()?));
        }
        let purpose = ExtendedKeyUsagePurpose::ServerAuth;
        Ok(Self { user: user.to_owned(), group: None, names: sans, purpose })
    }

    fn certificate(&self) -> Result<CertificateParams> {
        let mut certificate = CertificateParams::new(Vec::new())?;
        if let Some(group) = &self.group {
            certificate.distinguished_name.push(DnType::OrganizationName, group);
        }
        certificate.distinguished_name.push(DnType::CommonName, &self.user);
        certificate.subject_alt_names.clone_from(&self.names);
        certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        certificate.extended_key_usages = vec![self.purpose.clone()];
        limit(&mut certificate);
        Ok(certificate)
    }
}

/// Longer than any cluster lives, whatever its host's clock says.
fn limit(certificate: &mut CertificateParams) {
    certificate.not_before = date_time_ymd(2020, 1, 1);
    certificate.not_after = date_time_ymd(2049, 12, 31);
}
