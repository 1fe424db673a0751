//! Checks a tenant's spec for what the schema cannot say, and gives it the names that the rest works with.
//!
//! Input: the object. Output: a [`Tenant`], or a sentence for its author. Pure.

use std::{collections::BTreeSet, ops::Deref, sync::Arc};

use kube::ResourceExt;
use valv_crds::{
    JournalTenant, JournalTenantSpec,
    database::{External, Provider},
    reference::{NAMESPACE_PREFIX, PAUSED_ANNOTATION, RETRY_MIGRATION_ANNOTATION},
};

use super::certificates::JOURNAL_TLS;
use crate::io::kind::Kind;

/// A tenant whose spec has been checked. Dereferences to the spec.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The object as it was read.
    pub object: Arc<JournalTenant>,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// The spec contradicts itself in a way that the schema cannot say.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// Two volumes in one folder.
    #[error("two volumes of the journal would be mounted at {0}: give each a folder of its own")]
    FolderTwice(String),
    /// A folder that lies where Valv puts its own, or whose path is not plain.
    #[error(
        "the journal's folder {0} cannot be: give one below / that is not below /etc/valv, without . and .."
    )]
    Folder(String),
    /// A name that no object can have.
    #[error("{0:?} cannot be the name of a {1}: use a-z, 0-9, - and .")]
    Name(String, Kind),
    /// Two environment variables of one name.
    #[error("the journal's environment variable {0} is given twice")]
    VariableTwice(String),
    /// The URL's template has an unknown placeholder.
    #[error(
        "journal.database.urlTemplate has an unknown placeholder {{{0}}}: known are user, password, host, port, database, caFile"
    )]
    UnknownPlaceholder(String),
    /// An address is not a CIDR block.
    #[error("database.external.addresses has {0:?}, which is no CIDR block such as 10.1.2.3/32")]
    NoCidr(String),
}

impl Deref for Tenant {
    type Target = JournalTenantSpec;

    fn deref(&self) -> &JournalTenantSpec {
        &self.object.spec
    }
}

impl Tenant {
    /// Under which name its backups lie.
    pub fn archive_id(&self) -> &str {
        self.object.spec.archive_id.as_deref().unwrap_or(&self.name)
    }

    /// Host name of the database, as the journal and its certificate have it.
    pub fn database_host(&self) -> String {
        match &self.database.external {
            Some(external) => external.host.clone(),
            None => format!("database.{}.svc", self.namespace),
        }
    }

    /// TCP port of the database.
    pub fn database_port(&self) -> i32 {
        self.database.external.as_ref().map_or(5432, |external| external.port)
    }

    /// Whether Valv runs the database.
    pub fn has_builtin_database(&self) -> bool {
        self.database.provider == Provider::Builtin
    }

    /// The server that somebody else runs.
    pub fn external_database(&self) -> Option<&External> {
        self.database.external.as_ref()
    }

    /// The Secret with the journal's certificate: the user's own, or the one that the tenant's authority signed.
    pub fn journal_tls(&self) -> &str {
        self.certificates.journal_secret_ref.as_ref().map_or(JOURNAL_TLS, |secret| &secret.name)
    }

    /// Names in the journal's certificate, its host first.
    pub fn journal_names(&self) -> Vec<String> {
        let service = format!("journal.{}.svc", self.namespace);
        vec![self.host.clone(), format!("{service}.cluster.local"), service, "localhost".to_owned()]
    }

    /// Names in the database's certificate.
    pub fn database_names(&self) -> Vec<String> {
        let service = self.database_host();
        vec![
            service.clone(),
            format!("{service}.cluster.local"),
            "database".to_owned(),
            "localhost".to_owned(),
        ]
    }

    /// Whether the operator is to write nothing for it.
    pub fn is_paused(&self) -> bool {
        self.object.annotations().contains_key(PAUSED_ANNOTATION)
    }

    /// What somebody wrote to have a failed migration run again.
    pub fn migration_retry(&self) -> &str {
        self.object.annotations().get(RETRY_MIGRATION_ANNOTATION).map_or("", String::as_str)
    }
}

/// Checks `object`.
pub fn check(object: Arc<JournalTenant>) -> Result<Tenant, Invalid> {
    let name = object.name_any();
    let tenant = Tenant { namespace: format!("{NAMESPACE_PREFIX}{name}"), name, object };
    names(&tenant)?;
    folders(&tenant)?;
    variables(&tenant)?;
    placeholders(&tenant.journal.database.url_template)?;
    if let Some(external) = tenant.external_database() {
        for address in &external.addresses {
            address.parse::<crate::settings::Cidr>().map_err(|_| Invalid::NoCidr(address.clone()))?;
        }
    }
    Ok(tenant)
}

fn folders(tenant: &Tenant) -> Result<(), Invalid> {
    let journal = &tenant.journal;
    let mut seen = BTreeSet::from(["/etc/valv/tls".to_owned()]);
    let attachments = tenant.attachments.iter().map(|attachments| attachments.mount_path.clone());
    let files = journal.files.iter().map(|files| files.mount_path.clone());
    let folder = journal.database.folder.iter().cloned();
    let ca = journal.database.ca_file.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let free: Vec<_> = attachments.chain(files).chain(journal.writable_folders.iter().cloned()).collect();
    let own: Vec<_> = folder.chain(ca).collect();
    for path in free.iter().chain(&own) {
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let is_reserved = free.contains(path) && parts.starts_with(&["etc", "valv"]);
        if parts.is_empty() || is_reserved || parts.iter().any(|part| [".", ".."].contains(part)) {
            return Err(Invalid::Folder(path.clone()));
        }
        let folder = format!("/{}", parts.join("/"));
        if !seen.insert(folder.clone()) {
            return Err(Invalid::FolderTwice(folder));
        }
    }
    Ok(())
}

/// What the spec names is asked of the API server: that needs names which it can be asked for.
fn names(tenant: &Tenant) -> Result<(), Invalid> {
    let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let is_name = |name: &str| {
        name.len() <= 253
            && name.starts_with(is_plain)
            && name.ends_with(is_plain)
            && name.chars().all(|letter| is_plain(letter) || letter == '-' || letter == '.')
    };
    match tenant.referenced().into_iter().find(|key| !is_name(&key.name)) {
        Some(key) => Err(Invalid::Name(key.name, key.kind)),
        None => Ok(()),
    }
}

fn variables(tenant: &Tenant) -> Result<(), Invalid> {
    let names = &tenant.journal.database.env;
    let connection =
        [&names.url, &names.host, &names.port, &names.database, &names.user, &names.password, &names.ca_file];
    let connection = connection.into_iter().flatten().map(|name| name.0.clone());
    let own = tenant.journal.env.iter().map(|variable| variable.name.clone());
    let mut seen = BTreeSet::new();
    for name in connection.chain(own) {
        if !seen.insert(name.clone()) {
            return Err(Invalid::VariableTwice(name));
        }
    }
    Ok(())
}

fn placeholders(template: &str) -> Result<(), Invalid> {
    let known = ["user", "password", "host", "port", "database", "caFile"];
    for part in template.split('{').skip(1) {
        let name = part.split('}').next().unwrap_or_default();
        if !known.contains(&name) {
            return Err(Invalid::UnknownPlaceholder(name.to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn why_not(field: &str, value: serde_json::Value) -> Option<Invalid> {
        let mut tenant: serde_json::Value = serde_yaml::from_str(crate::tenant::simulation::MINIMAL).unwrap();
        tenant["spec"]["journal"][field] = value;
        check(Arc::new(serde_json::from_value(tenant).unwrap())).err()
    }

    #[test]
    fn a_name_that_cannot_be_asked_for_is_refused() {
        for name in ["", "my secret", "a/b", "Ada"] {
            let named = json!({ "secretRef": { "name": name } });

            assert_eq!(why_not("envFrom", json!([named])), Some(Invalid::Name(name.into(), Kind::Secret)));
        }
        assert_eq!(why_not("imagePullSecrets", json!([{ "name": "registry.example-1" }])), None);
    }

    #[test]
    fn a_folder_is_plain_and_nobody_elses_however_it_is_written() {
        for folder in ["/etc//valv", "/etc/valv/tls/", "/var/../etc/valv", "//"] {
            assert_eq!(why_not("writableFolders", json!([folder])), Some(Invalid::Folder(folder.into())));
        }
        assert_eq!(
            why_not("writableFolders", json!(["/var/lib", "/var//lib/"])),
            Some(Invalid::FolderTwice("/var/lib".into()))
        );
        assert_eq!(why_not("writableFolders", json!(["/etc/valvet"])), None);
    }
}
