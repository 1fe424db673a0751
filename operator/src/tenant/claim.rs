//! The volumes of a tenant, and the other objects that its spec names.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use valv_crds::tenant::AccessMode;

use super::check::Tenant;
use crate::{
    io::{
        difference::units,
        kind::{Key, Kind},
    },
    settings::Settings,
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
    /// Storage class, of the spec or else of the settings; absent: the cluster's default.
    pub class: Option<String>,
    /// Who may use it at once.
    pub access_mode: &'static str,
}

impl Claim {
    /// Size in bytes.
    pub fn bytes(&self) -> i128 {
        bytes(&self.size).unwrap_or_default()
    }
}

/// Bytes of a size as people write it; `None` if it is none.
pub fn bytes(size: &str) -> Option<i128> {
    units(&Quantity(size.to_owned()))
}

impl Tenant {
    /// The volumes that the spec asks for.
    pub fn claims(&self, settings: &Settings) -> Vec<Claim> {
        let class = |own: &Option<String>| own.clone().or_else(|| settings.storage_class_name.clone());
        let database = self.database.size.as_ref().map(|size| Claim {
            name: DATABASE_CLAIM.to_owned(),
            size: size.0.clone(),
            class: class(&self.database.storage_class_name),
            access_mode: "ReadWriteOnce",
        });
        let attachments = self.attachments.as_ref().map(|attachments| Claim {
            name: ATTACHMENTS_CLAIM.to_owned(),
            size: attachments.size.0.clone(),
            class: class(&attachments.storage_class_name),
            access_mode: match attachments.access_mode {
                AccessMode::ReadWriteOnce => "ReadWriteOnce",
                AccessMode::ReadWriteMany => "ReadWriteMany",
            },
        });
        database.into_iter().chain(attachments).collect()
    }

    /// Whether pods that use the attachments have to run on one node.
    pub fn runs_on_one_node(&self) -> bool {
        self.attachments.as_ref().is_some_and(|volume| volume.access_mode == AccessMode::ReadWriteOnce)
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
}
