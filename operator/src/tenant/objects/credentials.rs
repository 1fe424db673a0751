//! What tells the journal, its migration and the database who may log in. Computed from the generated Secrets.

use std::collections::BTreeMap;

use serde_json::json;
use valv_crds::journal::Connection;

use super::{Wanted, object};
use crate::{
    agent::roles::{Role, Roles},
    io::kind::Kind,
    percent,
    tenant::{
        certificates::{Certificates, NEWEST_ANNOTATION},
        check::Tenant,
        observe::Observed,
        secret::{self, ASKED_ANNOTATION, GENERATION_LABEL, login_name},
    },
};

/// Name of the Secret with the journal's connection.
pub const JOURNAL_SECRET: &str = "journal-database";

/// Name of the Secret with the migration's connection.
pub const MIGRATION_SECRET: &str = "migration-database";

/// Name of the Secret with the roles file.
pub const ROLES_SECRET: &str = "database-roles";

/// Name of the ConfigMap with the authorities that are trusted.
pub const AUTHORITIES: &str = "authorities";

/// The roles file, as the database reads it.
pub fn roles_file(roles: &Roles) -> String {
    serde_json::to_string(roles).unwrap_or_default()
}

/// The Secret with the roles file.
pub fn roles(tenant: &Tenant, roles: &Roles) -> Wanted {
    secret(
        tenant,
        ROLES_SECRET,
        0,
        BTreeMap::from([("roles.json".to_owned(), roles_file(roles).into_bytes())]),
    )
}

/// The connection of the journal, which logs in as `role`.
pub fn journal(
    tenant: &Tenant,
    connection: &Connection,
    observed: &Observed,
    role: Role,
    generation: i64,
) -> Option<Wanted> {
    let login = observed.login(role)?;
    let user = role.name().to_owned();
    let data = data(tenant, connection, &user, &secret::value(login, "password")?);
    Some(secret(tenant, JOURNAL_SECRET, generation, data))
}

/// The connection of the migration, which logs in as the schema's owner.
pub fn migration(tenant: &Tenant, observed: &Observed) -> Option<Wanted> {
    let login = observed.secrets.get(login_name(Role::JournalOwner))?;
    let user = Role::JournalOwner.name().to_owned();
    let data = data(tenant, &tenant.journal.database, &user, &secret::value(login, "password")?);
    Some(secret(tenant, MIGRATION_SECRET, secret::generation(login), data))
}

/// Both connections to an external server, whose logins the user brings.
pub fn external(tenant: &Tenant, connection: &Connection, observed: &Observed) -> Option<Vec<Wanted>> {
    let external = tenant.external_database()?;
    let key = crate::io::kind::Key::new(Kind::Secret, external.secret_ref.name.clone());
    let login = observed.references.get(&key)?.as_ref()?;
    let text = |name: &str| String::from_utf8(login.data.get(name)?.clone()).ok();
    let (user, password) = (text("user")?, text("password")?);
    let owner = text("ownerUser").unwrap_or_else(|| user.clone());
    let owner_password = text("ownerPassword").unwrap_or_else(|| password.clone());
    Some(vec![
        secret(tenant, JOURNAL_SECRET, 0, data(tenant, connection, &user, &password)),
        secret(tenant, MIGRATION_SECRET, 0, data(tenant, connection, &owner, &owner_password)),
    ])
}

/// The authorities that the journal trusts for its database.
pub fn authorities(tenant: &Tenant, certificates: &Certificates) -> Wanted {
    let data = json!({ "data": { "ca.crt": certificates.bundle } });
    let mut wanted = object(tenant, Kind::ConfigMap, AUTHORITIES, data);
    wanted.value["metadata"]["annotations"] = json!({
        NEWEST_ANNOTATION: certificates.newest.to_string(),
        ASKED_ANNOTATION: certificates.asked.to_string(),
    });
    wanted
}

/// Digest of what is in a computed Secret, for the pods that read it.
pub fn data_digest(wanted: &Wanted) -> String {
    let data = serde_json::from_value(wanted.value["data"].clone()).unwrap_or_default();
    secret::digest(&data)
}

fn data(tenant: &Tenant, connection: &Connection, user: &str, password: &str) -> BTreeMap<String, Vec<u8>> {
    let host = tenant.database_host();
    let port = tenant.database_port().to_string();
    let database = tenant.database.name.clone();
    let url = connection
        .url_template
        .replace("{user}", &percent::encode(user))
        .replace("{password}", &percent::encode(password))
        .replace("{host}", &host)
        .replace("{port}", &port)
        .replace("{database}", &database)
        .replace("{caFile}", &connection.ca_file);
    let named = [
        ("url", url.as_str()),
        ("user", user),
        ("password", password),
        ("host", &host),
        ("port", &port),
        ("database", &database),
    ];
    named.into_iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect()
}

fn secret(tenant: &Tenant, name: &str, generation: i64, data: BTreeMap<String, Vec<u8>>) -> Wanted {
    let data: BTreeMap<_, _> =
        data.into_iter().map(|(key, value)| (key, k8s_openapi::ByteString(value))).collect();
    let mut wanted = object(tenant, Kind::Secret, name, json!({ "type": "Opaque", "data": data }));
    if generation > 0 {
        wanted.value["metadata"]["labels"][GENERATION_LABEL] = json!(generation.to_string());
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::simulation::Simulation;

    #[test]
    fn a_password_that_somebody_chose_stays_one_part_of_its_url() {
        let tenant = Simulation::new().checked();
        let url_template = "postgres://{user}:{password}@{host}:{port}/{database}".to_owned();
        let connection = Connection { url_template, ..tenant.journal.database.clone() };

        let url = data(&tenant, &connection, "ada", "p@ss/w").remove("url").unwrap();

        assert_eq!(
            String::from_utf8(url).unwrap(),
            "postgres://ada:p%40ss%2Fw@database.journal-ada.svc:5432/journal"
        );
    }
}
