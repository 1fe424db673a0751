//! A tenant that is made up for one trial: a running PostgreSQL with a journal's rows, attachments, the tenant's own object
//! with a Secret that it names. Nothing in it is of anybody.

use std::{collections::BTreeMap, net::TcpListener, path::PathBuf, time::Duration};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    agent::{self, Agent, Started, option},
    archive::noise,
    scratch::Scratch,
};
use crate::{
    agent::{
        backup::session::{self, Access},
        durable::FileError,
        restore::tenant::{Live, spec_digest},
        roles::{ApplicationGrant, Role, Roles},
        run_file::Database,
        scram,
        termination::Message,
    },
    archive::{canonical, digest::Blake3},
    digest::hex,
    pki,
};

/// Rows of its table of notes.
pub const NOTES: u32 = 20_000;

/// Bytes of its largest attachment, which does not compress: two segments.
const SCAN_BYTES: usize = 18 << 20;

/// Name of its database.
const NAME: &str = "journal";

/// Longer than a trial.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// There is no such tenant.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of it.
    #[error("failed to prepare the folder of a database")]
    File(#[source] FileError),
    /// No port is free.
    #[error("failed to find a port for a database")]
    Port(#[source] std::io::Error),
    /// Its certificate.
    #[error("failed to make the certificate of a database")]
    Certificate(#[source] pki::Error),
    /// A document.
    #[error("failed to write a document down")]
    Document(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The agent.
    #[error("failed to make a database")]
    Agent(#[source] agent::Error),
    /// The agent says why.
    #[error("failed to make a database: {0}")]
    Made(String),
    /// It lets nobody in.
    #[error("failed to enter the database; its log ends with: {log}")]
    Enter {
        /// The end of its log.
        log: String,
        /// Why.
        source: session::Error,
    },
    /// SQL.
    #[error("failed to write a journal's rows")]
    Rows(#[source] tokio_postgres::Error),
}

fn document(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Document(Box::new(error))
}

/// The tenant. Its database ends when it is dropped.
pub struct Journal {
    /// Where its database is.
    pub database: Database,
    /// PostgreSQL's version.
    pub version: String,
    /// PostgreSQL's own number of its database.
    pub system_identifier: String,
    /// A folder with a password for each role that a backup logs in as.
    pub passwords: PathBuf,
    /// Its attachments.
    pub attachments: PathBuf,
    /// Bytes of them.
    pub attachment_bytes: usize,
    /// Its object and its Secret.
    pub tenant: PathBuf,
    /// What a drill is told that the tenant has now.
    pub live: PathBuf,
    _server: Started,
}

impl Journal {
    /// Makes it in `scratch`, encrypted for the `tenant` and the `escrow`.
    ///
    /// # Errors
    /// If there is no such tenant in the end.
    pub async fn start(
        agent: &Agent,
        scratch: &Scratch,
        [tenant, escrow]: [&str; 2],
        now: Timestamp,
    ) -> Result<Self, Error> {
        let passwords: BTreeMap<Role, SecretString> = Role::ALL
            .into_iter()
            .map(|role| (role, SecretString::from(format!("{:032x}", rand::random::<u128>()))))
            .collect();
        for role in [Role::JournalReplication, Role::JournalCheck] {
            let password = passwords[&role].expose_secret();
            scratch.write(&format!("passwords/{role}"), password).map_err(Error::File)?;
        }
        let database = Database {
            host: "127.0.0.1".to_owned(),
            port: free_port().map_err(Error::Port)?,
            name: NAME.to_owned(),
            ca_file: scratch.path("ca.crt"),
            replication_user: Role::JournalReplication.name().to_owned(),
            check_user: Role::JournalCheck.name().to_owned(),
        };
        write_settings(scratch, database.port, now)?;
        let (version, system_identifier) = make(agent, scratch, &passwords).await?;
        let server = agent
            .start(
                "database run",
                &[
                    option("--volume", &scratch.path("database")),
                    option("--config-file", &scratch.path("postgresql.conf")),
                    option("--hba-file", &scratch.path("pg_hba.conf")),
                    agent.postgres(),
                ],
            )
            .map_err(Error::Agent)?;
        let attachment_bytes = write_attachments(scratch)?;
        write_tenant(scratch, tenant, escrow)?;
        let journal = Self {
            database,
            version,
            system_identifier,
            passwords: scratch.path("passwords"),
            attachments: scratch.path("attachments"),
            attachment_bytes,
            tenant: scratch.path("tenant"),
            live: scratch.path("live.json"),
            _server: server,
        };
        journal.write_rows(agent, &passwords[&Role::JournalOwner]).await?;
        Ok(journal)
    }

    /// What its journal would have written.
    async fn write_rows(&self, agent: &Agent, password: &SecretString) -> Result<(), Error> {
        let owner = session::open(&self.database, Role::JournalOwner.name(), password, Access::Write).await;
        let owner = owner.map_err(|source| Error::Enter { log: agent.end_of_log("database run"), source })?;
        let tables = format!(
            "CREATE TABLE public.note (id int PRIMARY KEY, text text NOT NULL);
             INSERT INTO public.note SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, {NOTES}) n;
             CREATE TABLE public.attachment (path text PRIMARY KEY, sha256 text NOT NULL)"
        );
        owner.batch_execute(&tables).await.map_err(Error::Rows)?;
        for name in ATTACHMENTS {
            let path = self.attachments.join(name);
            let content = std::fs::read(&path);
            let content = content.map_err(FileError::of("read", &path)).map_err(Error::File)?;
            let digest = hex(&Sha256::digest(content));
            let insert = "INSERT INTO public.attachment VALUES ($1, $2)";
            owner.execute(insert, &[&name, &digest]).await.map_err(Error::Rows)?;
        }
        Ok(())
    }
}

/// Names of the attachments.
pub const ATTACHMENTS: [&str; 2] = ["ab/röntgen.txt", "scan"];

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// PostgreSQL's settings, and its certificate.
fn write_settings(scratch: &Scratch, port: u16, now: Timestamp) -> Result<(), Error> {
    let authority = pki::authority("the authority of a trial", now, CERTIFICATE_LIFETIME);
    let authority = authority.map_err(Error::Certificate)?;
    let names = ["127.0.0.1".to_owned()];
    let issued = pki::server(&names, &authority, now, CERTIFICATE_LIFETIME).map_err(Error::Certificate)?;
    let quoted = |name: &str| scratch.path(name).display().to_string().replace('\'', "''");
    let settings = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nssl = on\n\
         ssl_cert_file = '{}'\nssl_key_file = '{}'\n",
        quoted("tls.crt"),
        quoted("tls.key"),
    );
    let rules = "hostssl all all 127.0.0.1/32 scram-sha-256\n\
                 hostssl replication journal_replication 127.0.0.1/32 scram-sha-256\n";
    for (name, content) in [
        ("ca.crt", authority.certificate.as_str()),
        ("tls.crt", &issued.certificate),
        ("tls.key", &issued.key),
        ("postgresql.conf", &settings),
        ("pg_hba.conf", rules),
    ] {
        scratch.write(name, content).map_err(Error::File)?;
    }
    Ok(())
}

/// Makes the database with its roles: PostgreSQL's version, and its number of the database.
async fn make(
    agent: &Agent,
    scratch: &Scratch,
    passwords: &BTreeMap<Role, SecretString>,
) -> Result<(String, String), Error> {
    let verifiers = passwords.iter().map(|(role, password)| (*role, Some(scram::verifier(password))));
    let roles = Roles {
        database: NAME.parse().map_err(document)?,
        application_grant: ApplicationGrant::DataOnly,
        roles: verifiers.collect(),
    };
    let roles = serde_json::to_string(&roles).map_err(document)?;
    let arguments = [
        option("--volume", &scratch.folder("database").map_err(Error::File)?),
        option("--scratch", &scratch.folder("run").map_err(Error::File)?),
        option("--roles", &scratch.write("roles.json", roles).map_err(Error::File)?),
        agent.postgres(),
    ];
    match agent.run("database init", &arguments).await.map_err(Error::Agent)? {
        Message::Done(report) => Ok((report.version, report.system_identifier)),
        Message::Failed { error } => Err(Error::Made(error)),
    }
}

/// Writes the attachments, and says how many bytes they have.
fn write_attachments(scratch: &Scratch) -> Result<usize, Error> {
    let contents = [b"a picture".to_vec(), noise(SCAN_BYTES, rand::random())];
    let mut bytes = 0;
    for (name, content) in ATTACHMENTS.iter().zip(contents) {
        bytes += content.len();
        scratch.write(&format!("attachments/{name}"), content).map_err(Error::File)?;
    }
    Ok(bytes)
}

/// Writes the part `tenant` as it is mounted, and what of it the operator saw last.
fn write_tenant(scratch: &Scratch, tenant: &str, escrow: &str) -> Result<(), Error> {
    let secret = format!("{:032x}", rand::random::<u128>());
    let spec = json!({
        "journal": { "files": [{ "mountPath": "/letters", "secretName": "letters" }] },
        "backup": { "recipients": { "tenant": tenant, "escrow": escrow } },
    });
    let live = Live {
        spec: spec_digest(&spec).map_err(|error: canonical::Error| document(error))?,
        secrets: [("letters".into(), [("key".into(), Blake3::of(secret.as_bytes()).to_string())].into())]
            .into(),
        config_maps: BTreeMap::new(),
    };
    let object = json!({
        "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant",
        "metadata": { "name": "conformance" }, "spec": spec,
    });
    for (name, content) in [
        ("tenant/tenant.yaml", serde_yaml::to_string(&object).map_err(document)?),
        ("tenant/secrets/letters/key", secret),
        ("live.json", serde_json::to_string(&live).map_err(document)?),
    ] {
        scratch.write(name, content).map_err(Error::File)?;
    }
    Ok(())
}
