//! Checks a tenant's spec for what the schema cannot say, and gives it the names that the rest works with.
//!
//! Input: the object. Output: a [`Tenant`], or a sentence for its author. Pure.

use std::{collections::BTreeSet, ops::Deref, sync::Arc};

use kube::ResourceExt;
use valv_crds::{
    JournalTenant, JournalTenantSpec,
    database::{External, Provider},
    journal::Tls,
    reference::{NAMESPACE_PREFIX, PAUSED_ANNOTATION, RETRY_MIGRATION_ANNOTATION},
};

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

    /// TCP port on which the pod serves HTTPS.
    pub fn serving_port(&self) -> i32 {
        match self.journal.tls {
            Tls::Own => self.journal.port,
            Tls::Proxy => self.journal.proxy_port,
        }
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

    /// Name under which its backups lie.
    pub fn archive_id(&self) -> &str {
        self.archive_id.as_deref().unwrap_or(&self.name)
    }
}

/// Checks `object`.
pub fn check(object: Arc<JournalTenant>) -> Result<Tenant, Invalid> {
    let name = object.name_any();
    let tenant = Tenant { namespace: format!("{NAMESPACE_PREFIX}{name}"), name, object };
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
    let all =
        attachments.chain(files).chain(journal.writable_folders.iter().cloned()).chain(folder).chain(ca);
    for folder in all {
        let folder = folder.trim_end_matches('/').to_owned();
        if !seen.insert(folder.clone()) {
            return Err(Invalid::FolderTwice(folder));
        }
    }
    Ok(())
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
