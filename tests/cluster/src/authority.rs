//! A certificate authority: its key, its certificate and all it has signed, in one folder.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::secret_file;

/// The authority's own certificate.
pub const CERTIFICATE: &str = "ca.crt";

const KEY: &str = "ca.key";

/// The authority of one folder.
#[derive(Clone, Debug)]
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// The one in `folder`, whether it is made or not.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Makes it.
    pub fn create(&self, name: &str) -> Result<()> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("failed to create {}", self.folder.display()))?;
        let key = KeyPair::generate()?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, name);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        limit(&mut authority);
        self.write(KEY, &key.serialize_pem())?;
        self.write(CERTIFICATE, &authority.self_signed(&key)?.pem())
    }

    /// Makes a key and signs a certificate for it: `<name>.key` and `<name>.crt`.
    pub fn issue(&self, name: &str, subject: &Subject) -> Result<()> {
        let signed = self.sign(subject)?;
        self.write(&format!("{name}.key"), &signed.key)?;
        self.write(&format!("{name}.crt"), &signed.certificate)
    }

    /// Makes a key and signs a certificate for it.
    pub fn sign(&self, subject: &Subject) -> Result<Signed> {
        let authority_key = KeyPair::from_pem(&self.read(KEY)?)?;
        let authority = Issuer::from_ca_cert_pem(&self.read(CERTIFICATE)?, authority_key)?;
        let key = KeyPair::generate()?;
        let certificate = subject.certificate()?.signed_by(&key, &authority)?.pem();
        Ok(Signed { certificate, key: key.serialize_pem() })
    }

    /// The file of this name, e.g. `ca.crt`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What is in a file.
    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.file(name);
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
    }

    /// Puts something beside the certificates.
    pub fn write(&self, name: &str, content: &str) -> Result<()> {
        secret_file::write(&self.file(name), content)
    }
}

/// A certificate and its key: PEM.
pub struct Signed {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// Whom a certificate is for.
#[derive(Debug)]
pub struct Subject {
    user: String,
    group: Option<String>,
    names: Vec<SanType>,
    purpose: ExtendedKeyUsagePurpose,
    has_expired: bool,
}

impl Subject {
    /// A client called `user`.
    pub fn client(user: &str, group: Option<&str>) -> Self {
        let (user, group) = (user.to_owned(), group.map(str::to_owned));
        Self {
            user,
            group,
            names: Vec::new(),
            purpose: ExtendedKeyUsagePurpose::ClientAuth,
            has_expired: false,
        }
    }

    /// A server that is found under `names` and `addresses`.
    pub fn server(user: &str, names: &[&str], addresses: &[String]) -> Result<Self> {
        let mut sans = Vec::new();
        for name in names {
            sans.push(SanType::DnsName((*name).try_into()?));
        }
        for address in addresses {
            sans.push(SanType::IpAddress(address.parse::<IpAddr>()?));
        }
        let purpose = ExtendedKeyUsagePurpose::ServerAuth;
        Ok(Self { user: user.to_owned(), group: None, names: sans, purpose, has_expired: false })
    }

    /// The same, but that it is no longer valid.
    pub fn expired(self) -> Self {
        Self { has_expired: true, ..self }
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
        if self.has_expired {
            certificate.not_after = date_time_ymd(2020, 12, 31);
        }
        Ok(certificate)
    }
}

/// Longer than any cluster lives, whatever its host's clock says.
fn limit(certificate: &mut CertificateParams) {
    certificate.not_before = date_time_ymd(2020, 1, 1);
    certificate.not_after = date_time_ymd(2049, 12, 31);
}
