//! Connections to the database.
//!
//! TLS with full verification where certificate authorities are given, and none only to a database on this
//! machine. A database that restarts is waited for as long as a request can wait; after that the pool recovers
//! by itself, because every connection is tried before it is lent.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use futures::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::trust::{Trust, TrustError};

/// Connections of one process. Several processes share the server's, 100 by default.
const CONNECTIONS: usize = 8;
/// One attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that answers nothing for this long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The first wait between two attempts; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Where the database is.
#[derive(Args, Clone)]
pub struct DatabaseArguments {
    /// `postgres://user:password@host:port/database`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: SecretString,
    /// PEM bundle of the authorities that sign the database's certificate. Without it TLS is off, and the
    /// database must be on this machine.
    #[arg(long, env = "DATABASE_CA_FILE")]
    database_ca_file: Option<PathBuf>,
}

/// The database cannot be used as it was named.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("DATABASE_URL is not a PostgreSQL URL, as in postgres://user:password@host:5432/database")]
    Url,
    #[error("DATABASE_URL names no host")]
    NoHost,
    #[error(
        "DATABASE_CA_FILE is needed: without TLS only a database on this machine is connected to, not {host}"
    )]
    TlsNeeded { host: String },
    #[error("failed to trust the authorities of DATABASE_CA_FILE")]
    Trust { source: TrustError },
    #[error("failed to make the pool of connections")]
    Pool { source: deadpool_postgres::BuildError },
}

/// No connection could be had in time.
#[derive(Debug, thiserror::Error)]
#[error("failed to connect to the database within {patience:?}: {cause}")]
pub struct Unavailable {
    patience: Duration,
    cause: String,
}

/// A pool of connections.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
}

impl Database {
    /// Prepares connections; connects to nothing yet.
    pub fn open(arguments: DatabaseArguments) -> Result<Self, DatabaseError> {
        // The parser's error could quote the URL, so it is not passed on.
        let mut config: Config =
            arguments.database_url.expose_secret().parse().map_err(|_| DatabaseError::Url)?;
        let trust = match arguments.database_ca_file {
            Some(file) => Some(Trust::open(file).map_err(|source| DatabaseError::Trust { source })?),
            None => None,
        };
        check_hosts(&config, trust.as_ref())?;
        config
            .ssl_mode(if trust.is_some() { SslMode::Require } else { SslMode::Disable })
            .application_name("journal")
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(SILENCE_MAX)
            .keepalives_idle(SILENCE_MAX);
        let settings = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let manager = Manager::from_connect(config, Connector { trust }, settings);
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|source| DatabaseError::Pool { source })?;
        Ok(Self { pool })
    }

    /// A connection that answered just now; tries again, with backoff, for as long as `patience`.
    pub async fn connection(&self, patience: Duration) -> Result<Object, Unavailable> {
        let deadline = Instant::now() + patience;
        let mut backoff = BACKOFF_MIN;
        let mut cause = String::from("no connection is free");
        loop {
            match timeout_at(deadline, self.pool.get()).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => cause = pool_cause(&error),
                Err(_) => return Err(Unavailable { patience, cause }),
            }
            if Instant::now() + backoff >= deadline {
                return Err(Unavailable { patience, cause });
            }
            tracing::debug!(error = cause, "failed to connect to the database, trying again");
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

fn check_hosts(config: &Config, trust: Option<&Trust>) -> Result<(), DatabaseError> {
    if config.get_hosts().is_empty() {
        return Err(DatabaseError::NoHost);
    }
    if trust.is_some() {
        return Ok(());
    }
    for host in config.get_hosts() {
        if let Host::Tcp(name) = host
            && !is_this_machine(name)
        {
            return Err(DatabaseError::TlsNeeded { host: name.clone() });
        }
    }
    match config.get_hostaddrs().iter().find(|address| !address.is_loopback()) {
        Some(address) => Err(DatabaseError::TlsNeeded { host: address.to_string() }),
        None => Ok(()),
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Connects with what is trusted at that moment.
struct Connector {
    trust: Option<Trust>,
}

type Opened = Result<(Client, JoinHandle<()>), tokio_postgres::Error>;

impl Connect for Connector {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Opened> {
        let config = config.clone();
        match &self.trust {
            None => Box::pin(open(config, NoTls)),
            Some(trust) => Box::pin(open(config, MakeRustlsConnect::new(trust.current()))),
        }
    }
}

async fn open<T>(config: Config, tls: T) -> Opened
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(tls).await?;
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::warn!(error = cause(&error), "lost a connection to the database");
        }
    });
    Ok((client, task))
}

/// A statement failed.
///
/// The database's own text is kept without its `DETAIL`, which quotes rows, and so personnummer.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation}: {cause}")]
pub struct QueryError {
    operation: &'static str,
    cause: String,
    /// What the caller can do about it.
    pub remedy: Remedy,
}

/// What helps against a failed statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The database went away or shuts down: try again soon.
    TryAgain,
    /// The schema is older than this release needs: it has to be migrated.
    Migrate,
    /// Nothing that a caller can do.
    Report,
}

impl QueryError {
    /// For `map_err`: what was being done, as in "read the patient".
    pub fn during(operation: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |error| Self { operation, cause: cause(&error), remedy: remedy(&error) }
    }
}

fn remedy(error: &tokio_postgres::Error) -> Remedy {
    let Some(code) = error.code() else { return Remedy::TryAgain };
    let missing = [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN];
    // Class 08: connection; class 57: operator intervention, as in a shutdown; class 53: resources.
    if ["08", "57", "53"].iter().any(|class| code.code().starts_with(class)) {
        Remedy::TryAgain
    } else if missing.contains(code) {
        Remedy::Migrate
    } else {
        Remedy::Report
    }
}

/// The text of `error` that may be logged.
pub fn cause(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(refusal) => format!("{} {}", refusal.code().code(), refusal.message()),
        None => crate::error::chain(error),
    }
}

fn pool_cause(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => cause(error),
        PoolError::Timeout(_)
        | PoolError::Closed
        | PoolError::NoRuntimeSpecified
        | PoolError::PostCreateHook(_) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(url: &str) -> Result<(), DatabaseError> {
        let arguments = DatabaseArguments { database_url: url.into(), database_ca_file: None };
        Database::open(arguments).map(|_| ())
    }

    #[test]
    fn without_authorities_a_database_on_this_machine_is_connected_to() {
        for host in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"] {
            assert!(opened(&format!("postgres://anna:hemligt@{host}/journal")).is_ok(), "{host}");
        }
    }

    #[test]
    fn without_authorities_a_database_elsewhere_is_refused() {
        for url in [
            "postgres://anna:hemligt@database.journal-ada.svc/journal",
            "postgres://anna:hemligt@10.0.0.7/journal",
            "postgres://anna:hemligt@localhost,10.0.0.7/journal",
            "postgres://anna:hemligt@localhost/journal?hostaddr=10.0.0.7",
        ] {
            assert!(matches!(opened(url), Err(DatabaseError::TlsNeeded { .. })), "{url}");
        }
    }

    #[test]
    fn an_error_about_the_url_does_not_quote_it() {
        let error = opened("postgres://anna:hemligt@localhost:fel/journal").unwrap_err();

        assert!(!crate::error::chain(&error).contains("hemligt"));
    }
}
