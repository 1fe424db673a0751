//! Changes logins and passwords of a running database, as `valv_roles`, over verified TLS.
//!
//! Input: the roles file, the passwords that `valv_roles` may have now. Output: a [`Report`]. Sessions that
//! are open stay open; nothing restarts. Rights are not touched, and the volume's marker is not either: the
//! next start of the database's pod applies the same file once more, which changes nothing.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::{Client, Config, config::SslMode, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::warn;

use super::{
    durable::{self, FileError},
    rights,
    roles::{self, Role, Roles, RolesFile},
    termination::{Outcome, Report},
    trust,
};
use crate::error::chain;

/// Wait before the second try; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Wait between two tries at most.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// For the session: nothing of the tenant's is looked up.
const SESSION: &str = "-c search_path=pg_catalog -c default_transaction_read_only=off";

/// What `valv agent database roles` is told.
#[derive(Args, Clone, Debug)]
pub struct Rotate {
    /// The database's host, as its certificate names it
    #[arg(long)]
    pub host: String,

    /// The database's port
    #[arg(long, default_value_t = 5432)]
    pub port: u16,

    /// Who signs the database's certificate: PEM
    #[arg(long)]
    pub ca_file: PathBuf,

    /// A file with the password of `valv_roles`. Repeatable, since a try that was cut off may already have
    /// changed it: name the new one and the old one. One that is not there is skipped, but not all
    #[arg(long, required = true)]
    pub password_file: Vec<PathBuf>,

    /// Who may log in: JSON, written by the operator
    #[arg(long, default_value = "/etc/valv/roles/roles.json")]
    pub roles: PathBuf,

    /// How long to try to connect, e.g. `60s`
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub deadline: Duration,

    /// Where Kubernetes looks for the termination message
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// Why logins and passwords are as they were.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The roles file.
    #[error("failed to learn the roles")]
    RolesFile(#[source] roles::Error),

    /// It would leave nobody who can change it again.
    #[error("the roles file has no verifier for valv_roles, who could not change anything again: add one")]
    NoVerifier,

    /// Nobody says who we are.
    #[error("none of the files with a password for valv_roles is there; is the Secret mounted?")]
    NoPassword,

    /// A password.
    #[error("failed to read what is needed to connect; is the Secret mounted?")]
    File(#[source] FileError),

    /// The database's authority.
    #[error("failed to learn whom to trust")]
    Trust(#[source] trust::Error),

    /// None of the passwords is right.
    #[error(
        "the database accepts none of the passwords for valv_roles; restart the database's pod, \
         whose start sets the roles again from inside"
    )]
    Refused(#[source] tokio_postgres::Error),

    /// The database answered something that another try will not change.
    #[error("failed to connect to the database at {host}:{port}")]
    Connect {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// Why.
        source: tokio_postgres::Error,
    },

    /// The database did not answer in time.
    #[error("failed to connect to the database at {host}:{port} for {deadline:?}")]
    Deadline {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// How long it was tried.
        deadline: Duration,
        /// Why the last try failed, if one came to an end.
        source: Option<tokio_postgres::Error>,
    },

    /// SQL. All is as it was, but where the connection was lost in the moment of the commit.
    #[error("failed to {doing}; try again")]
    Sql {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: tokio_postgres::Error,
    },
}

impl Error {
    /// For `map_err` after SQL.
    fn sql(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Sql { doing, source }
    }
}

/// Sets all logins and passwords of the roles file, in one transaction.
pub async fn rotate(rotate: &Rotate) -> Result<Report, Error> {
    let RolesFile { roles, digest, .. } = RolesFile::read(&rotate.roles).map_err(Error::RolesFile)?;
    if !matches!(roles.roles.get(&Role::ValvRoles), Some(Some(_))) {
        return Err(Error::NoVerifier);
    }
    let passwords = Passwords::read(&rotate.password_file)?;
    let tls = MakeRustlsConnect::new(trust::client_config(&rotate.ca_file).map_err(Error::Trust)?);

    let mut client = connect(rotate, &roles, &passwords, &tls).await?;
    let doing = "set logins and passwords";
    let transaction = client.transaction().await.map_err(Error::sql(doing))?;
    transaction.batch_execute(&rights::logins_sql(&roles)).await.map_err(Error::sql(doing))?;
    transaction.commit().await.map_err(Error::sql(doing))?;
    describe(&client, digest).await
}

/// The passwords that `valv_roles` may have now.
struct Passwords {
    first: SecretString,
    others: Vec<SecretString>,
}

impl Passwords {
    /// Reads those that are there; a line break at a file's end is not part of a password.
    fn read(paths: &[PathBuf]) -> Result<Self, Error> {
        let there = paths.iter().filter(|path| path.exists());
        let mut passwords = there.map(|path| {
            let text = durable::read(path).map_err(Error::File)?;
            Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])))
        });
        let first = passwords.next().ok_or(Error::NoPassword)??;
        Ok(Self { first, others: passwords.collect::<Result<_, _>>()? })
    }
}

/// Which database it is that was changed.
async fn describe(client: &Client, roles_digest: String) -> Result<Report, Error> {
    let doing = "ask the database for its version and system identifier";
    let query = "SELECT system_identifier::text, current_setting('server_version') FROM pg_control_system()";
    let row = client.query_one(query, &[]).await.map_err(Error::sql(doing))?;
    let system_identifier = row.try_get(0).map_err(Error::sql(doing))?;
    let version: &str = row.try_get(1).map_err(Error::sql(doing))?;
    let version = version.split_whitespace().next().unwrap_or_default().to_owned();
    Ok(Report { system_identifier, version, outcome: Outcome::RolesApplied, roles_digest })
}

/// Connects as `valv_roles`, with the first of `passwords` that is right, before the deadline.
async fn connect(
    rotate: &Rotate,
    roles: &Roles,
    passwords: &Passwords,
    tls: &MakeRustlsConnect,
) -> Result<Client, Error> {
    let end = Instant::now() + rotate.deadline;
    let (host, port) = (rotate.host.clone(), rotate.port);
    let mut wait = FIRST_WAIT;
    let mut last = None;
    loop {
        let error = match timeout_at(end, try_passwords(rotate, roles, passwords, tls)).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => error,
            Err(_) => return Err(Error::Deadline { host, port, deadline: rotate.deadline, source: last }),
        };
        match Failure::of(&error) {
            Failure::Refused => return Err(Error::Refused(error)),
            Failure::Lasting => return Err(Error::Connect { host, port, source: error }),
            Failure::Passing if Instant::now() + wait >= end => {
                return Err(Error::Deadline { host, port, deadline: rotate.deadline, source: Some(error) });
            }
            Failure::Passing => {
                warn!(error = chain(&error), wait = ?wait, "failed to connect, trying again");
                last = Some(error);
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

/// Tries the passwords until one is not refused; the last answer counts.
async fn try_passwords(
    rotate: &Rotate,
    roles: &Roles,
    passwords: &Passwords,
    tls: &MakeRustlsConnect,
) -> Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config.host(&rotate.host).port(rotate.port).ssl_mode(SslMode::Require).user(Role::ValvRoles.name());
    config.dbname(roles.database.as_str()).application_name("valv agent").options(SESSION);

    let mut outcome = config.password(passwords.first.expose_secret()).connect(tls.clone()).await;
    for password in &passwords.others {
        if !outcome.as_ref().is_err_and(|error| Failure::of(error) == Failure::Refused) {
            break;
        }
        outcome = config.password(password.expose_secret()).connect(tls.clone()).await;
    }
    let (client, connection) = outcome?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            warn!(error = chain(&error), "lost the connection to the database");
        }
    });
    Ok(client)
}

/// What a failed try to connect says about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server is starting, full, or not to be reached: the next may succeed.
    Passing,
    /// The password is not right.
    Refused,
    /// The server is there and said no: the next will fail too.
    Lasting,
}

impl Failure {
    pub fn of(error: &tokio_postgres::Error) -> Self {
        match error.code() {
            None => Self::Passing,
            Some(code) if *code == SqlState::INVALID_PASSWORD => Self::Refused,
            // Class 53: insufficient resources. Class 57: the server starts or ends.
            Some(code) if code.code().starts_with("53") || code.code().starts_with("57") => Self::Passing,
            Some(_) => Self::Lasting,
        }
    }
}

/// Reads `60s`, `2m` and the like.
fn duration(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    duration.try_into().map_err(|_| "a deadline is not negative".to_owned())
}
