//! The volumes of a tenant, and the other objects that its spec names.

use std::collections::BTreeSet;

use valv_crds::tenant::AccessMode;

use super::{check::Tenant, observe::Keep};
use crate::io::{
    difference::quantity,
    kind::{Key, Kind},
};

/// Name of the database's claim.
pub const DATABASE_CLAIM: &str = "database-0";

/// Name of the attachments' claim.
pub const ATTACHMENTS_CLAIM: &str = "attachments-0";

/// A volume that the spec asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// Name of the claim.
    pub name: String,
    /// Size, as the spec writes it.
    pub size: String,
    /// Storage class; absent: the operator's, or the cluster's default.
    pub class: Option<String>,
    /// Who may use it at once.
    pub access_mode: &'static str,
}

impl Claim {
    /// Size in thousandths of a byte, as [`quantity`] counts.
    pub fn bytes(&self) -> i128 {
        quantity(&self.size).unwrap_or_default()
    }
}

impl Tenant {
    /// The volumes that the spec asks for.
    pub fn claims(&self) -> Vec<Claim> {
        let database = self.database.size.as_ref().map(|size| Claim {
            name: DATABASE_CLAIM.to_owned(),
            size: size.0.clone(),
            class: self.database.storage_class_name.clone(),
            access_mode: "ReadWriteOnce",
        });
        let attachments = self.attachments.as_ref().map(|attachments| Claim {
            name: ATTACHMENTS_CLAIM.to_owned(),
            size: attachments.size.0.clone(),
            class: attachments.storage_class_name.clone(),
            access_mode: match attachments.access_mode {
                AccessMode::ReadWriteOnce => "ReadWriteOnce",
                AccessMode::ReadWriteMany => "ReadWriteMany",
            },
        });
        database.into_iter().chain(attachments).collect()
    }

    /// Secrets and ConfigMaps that the spec names and somebody else makes.
    pub fn referenced(&self) -> BTreeSet<Key> {
        let journal = &self.journal;
        let mut keys = BTreeSet::new();
        let mut secret = |name: &str| keys.insert(Key::new(Kind::Secret, name));
        for pull in &journal.image_pull_secrets {
            secret(&pull.name);
        }
        if let Some(certificate) = &self.certificates.journal_secret_ref {
            secret(&certificate.name);
        }
        if let Some(external) = self.external_database() {
            secret(&external.secret_ref.name);
            secret(&external.ca_secret_ref.name);
        }
        for name in journal.files.iter().filter_map(|files| files.secret_name.as_ref()) {
            secret(name);
        }
        let required = |optional: Option<bool>| optional != Some(true);
        for from in &journal.env_from {
            if let Some(source) = from.secret_ref.as_ref().filter(|source| required(source.optional)) {
                secret(&source.name);
            }
        }
        let value_sources = || journal.env.iter().filter_map(|variable| variable.value_from.as_ref());
        for source in value_sources().filter_map(|from| from.secret_key_ref.as_ref()) {
            if required(source.optional) {
                secret(&source.name);
            }
        }
        let mut map = |name: &str| keys.insert(Key::new(Kind::ConfigMap, name));
        for name in journal.files.iter().filter_map(|files| files.config_map_name.as_ref()) {
            map(name);
        }
        for from in &journal.env_from {
            if let Some(source) = from.config_map_ref.as_ref().filter(|source| required(source.optional)) {
                map(&source.name);
            }
        }
        for source in value_sources().filter_map(|from| from.config_map_key_ref.as_ref()) {
            if required(source.optional) {
                map(&source.name);
            }
        }
        keys
    }

    /// Whether the plan needs the values of the Secret `name`.
    pub fn reads(&self, name: &str) -> Keep {
        let certificate = self.certificates.journal_secret_ref.as_ref().map(|secret| &secret.name);
        let external = self.external_database();
        let login = external.map(|external| &external.secret_ref.name);
        let authority = external.map(|external| &external.ca_secret_ref.name);
        let read = [certificate, login, authority].into_iter().flatten().any(|read| read == name);
        if read { Keep::Values } else { Keep::Digest }
    }
}
