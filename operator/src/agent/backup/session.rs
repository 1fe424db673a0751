//! SQL sessions in the tenant's database, over verified TLS.
//!
//! Nothing of the tenant's is looked up by name, and nothing that its owner set for the database changes what
//! a session of ours does.

use std::{path::Path, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Config, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::warn;

use crate::{
    agent::{
        durable::{self, FileError},
        rotate::Failure,
        run_file::Database,
        trust,
    },
    error::chain,
};

/// How long a database that starts, or cannot be reached, is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two tries.
const WAIT: Duration = Duration::from_secs(2);

/// How long one try may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one try may take in all: a server that takes the connection and then says nothing must not be waited
/// for.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// After so much silence it is asked whether the other side still lives. A session lasts as long as the base
/// backup, and says nothing meanwhile.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// For every session.
const SETTINGS: &str = "-c search_path=pg_catalog -c role=none -c idle_session_timeout=0 -c statement_timeout=0 \
                        -c lock_timeout=60s -c default_transaction_isolation=read\\ committed \
                        -c client_min_messages=warning";

/// There is no session.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The password.
    #[error("failed to read the password of {user}; is the Secret mounted?")]
    Password {
        /// Whose.
        user: String,
        /// Why.
        source: FileError,
    },
    /// A password with a line break cannot be handed to PostgreSQL's programs.
    #[error("the password of {user} is empty, or has a line break or a zero byte in it: choose another")]
    PasswordUnusable {
        /// Whose.
        user: String,
    },
    /// The server's authority.
    #[error("failed to learn whom to trust")]
    Trust(#[source] trust::Error),
    /// The server said no, or nothing for too long.
    #[error("failed to connect to database {name:?} at {host}:{port} as {user}")]
    Connect {
        /// Which database.
        name: String,
        /// The server's host.
        host: String,
        /// Its port.
        port: u16,
        /// As whom.
        user: String,
        /// Why.
        source: tokio_postgres::Error,
    },
    /// The server took the connection, and let nobody in.
    #[error(
        "failed to log in to database {name:?} at {host}:{port} as {user}: no answer within {} s",
        LOGIN_TIMEOUT.as_secs()
    )]
    Silent {
        /// Which database.
        name: String,
        /// The server's host.
        host: String,
        /// Its port.
        port: u16,
        /// As whom.
        user: String,
    },
}

/// What a session may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Write too.
    Write,
}

impl Access {
    fn setting(self) -> &'static str {
        match self {
            Self::Read => "-c default_transaction_read_only=on",
            Self::Write => "-c default_transaction_read_only=off",
        }
    }
}

/// The password of `user`: the file of that name in `folder`. A line break at its end is not part of it.
pub fn password(folder: &Path, user: &str) -> Result<SecretString, Error> {
    let text = durable::read(&folder.join(user))
        .map_err(|source| Error::Password { user: user.to_owned(), source })?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() || text.contains(['\r', '\n', '\0']) {
        return Err(Error::PasswordUnusable { user: user.to_owned() });
    }
    Ok(SecretString::from(text))
}

/// Opens a session as `user`. Waits for a database that starts.
pub async fn open(
    database: &Database,
    user: &str,
    password: &SecretString,
    access: Access,
) -> Result<Client, Error> {
    let tls = MakeRustlsConnect::new(trust::client_config(&database.ca_file).map_err(Error::Trust)?);
    let mut config = Config::new();
    config
        .host(&database.host)
        .port(database.port)
        .dbname(&database.name)
        .user(user)
        .password(password.expose_secret())
        .ssl_mode(SslMode::Require)
        .application_name("valv agent")
        .options(format!("{SETTINGS} {}", access.setting()))
        .connect_timeout(CONNECT_TIMEOUT)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE)
        .keepalives_interval(KEEPALIVE / 3)
        .keepalives_retries(3);
    let end = Instant::now() + PATIENCE;
    loop {
        let connected = timeout(LOGIN_TIMEOUT, config.connect(tls.clone())).await;
        let Ok(connected) = connected else {
            if Instant::now() + WAIT >= end {
                let Database { name, host, port, .. } = database.clone();
                return Err(Error::Silent { name, host, port, user: user.to_owned() });
            }
            warn!("the database took the connection and said nothing, trying again");
            continue;
        };
        let source = match connected {
            Ok((client, connection)) => {
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        warn!(error = chain(&error), "lost the connection to the database");
                    }
                });
                return Ok(client);
            }
            Err(error) => error,
        };
        if Failure::of(&source) != Failure::Passing || Instant::now() + WAIT >= end {
            let Database { name, host, port, .. } = database.clone();
            return Err(Error::Connect { name, host, port, user: user.to_owned(), source });
        }
        warn!(error = chain(&source), "failed to connect to the database, trying again");
        sleep(WAIT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_the_connection_and_says_nothing_is_not_waited_for() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let now = "2026-11-22T01:00:00Z".parse().unwrap();
        let authority = pki::authority("a test", now, Duration::from_secs(3600)).unwrap();
        let ca_file = folder.path().join("ca.crt");
        std::fs::write(&ca_file, authority.certificate).unwrap();
        let database = Database {
            host: "127.0.0.1".into(),
            port: listener.local_addr().unwrap().port(),
            name: "journal".into(),
            ca_file,
            replication_user: "journal_replication".into(),
            check_user: "journal_check".into(),
        };

        let begun = Instant::now();
        let opened = open(&database, "journal_check", &SecretString::from("x"), Access::Read).await;

        assert!(opened.is_err());
        assert!(begun.elapsed() <= PATIENCE + LOGIN_TIMEOUT, "{:?}", begun.elapsed());
        drop(listener);
    }
}
