//! A server for nobody but the agent: on a socket in a folder of its own, for the time of one task.
//!
//! It is how the agent is superuser in a tenant's database: without a password, without the network, and
//! with no rule in the real server for it. Nobody else may enter the socket's folder.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    time::sleep,
};
use tokio_postgres::{Client, Config, NoTls, error::SqlState};
use tracing::{debug, warn};

use super::{
    durable::{self, FileError},
    programs::{self, Programs},
    volume::Volume,
};
use crate::error::chain;

/// How often a server that is starting is asked whether it has started. It says so to nobody by itself.
const POLL: Duration = Duration::from_millis(50);

/// For every session: what a tenant's owner may have set for the database must not change what we do in it.
const SESSION: &str = "-c search_path=pg_catalog -c default_transaction_read_only=off -c role=none \
                       -c event_triggers=off -c statement_timeout=0 -c client_min_messages=error \
                       -c log_min_messages=error";

/// The temporary server failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its folder.
    #[error("failed to prepare a folder for the temporary server's socket")]
    Folder(#[source] FileError),

    /// It was not started.
    #[error("failed to start the temporary server")]
    Start(#[source] programs::Error),

    /// It ended before it was asked to.
    #[error("the temporary server ended by itself, with {0}; its own log lines above say why")]
    Died(ExitStatus),

    /// It let us not in.
    #[error("failed to connect to database {database:?} of the temporary server")]
    Connect {
        /// Which database.
        database: String,
        /// Why.
        source: tokio_postgres::Error,
    },

    /// It could not be asked to stop, or not be waited for.
    #[error("failed to stop the temporary server")]
    Stop(#[source] std::io::Error),

    /// It did not write everything out before it ended.
    #[error("the temporary server did not stop cleanly, but with {0}; its own log lines above say why")]
    Unclean(ExitStatus),
}

/// What the temporary server runs with.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The database's folder.
    pub data: &'a Path,
    /// The tenant's own settings, if they are to be used: a database that was run with them may not start
    /// without them (prepared transactions, logical slots). What opens it to others is overridden.
    pub config_file: Option<&'a Path>,
    /// A folder that only this container sees.
    pub scratch: &'a Path,
    /// What for.
    pub purpose: Purpose<'a>,
}

/// What a temporary server is for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// The tenant's own database is brought to its roles file.
    Roles,
    /// A restored copy is judged. Nothing of what is found goes into the log, and nothing works by itself.
    Judgement {
        /// Who asks, besides the superuser: a role that may only read.
        reader: &'a str,
        /// Settings without which this copy does not start, or forgets what it knows.
        settings: &'a [(&'static str, String)],
    },
}

/// For [`Purpose::Judgement`]. The level `log` leaves errors out: they may quote what is in a row.
const JUDGEMENT: [(&str, &str); 8] = [
    ("log_min_messages", "log"),
    ("log_error_verbosity", "terse"),
    ("lc_messages", "C"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("autovacuum", "off"),
    ("restart_after_crash", "off"),
    ("shared_buffers", "64MB"),
];

/// A running temporary server.
#[derive(Debug)]
pub struct Temporary {
    server: Child,
    folder: PathBuf,
    replayed: watch::Receiver<Option<Timestamp>>,
}

impl Temporary {
    /// Starts the server. If this value is dropped, the server is killed; to lose nothing, call [`Self::stop`].
    pub fn start(programs: &Programs, volume: &Volume, settings: Settings<'_>) -> Result<Self, Error> {
        let folder = settings.scratch.join("valv-temporary-server");
        durable::remove_folder_if_there(&folder).map_err(Error::Folder)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(FileError::of("make", &folder))
            .map_err(Error::Folder)?;
        let rules = folder.join("pg_hba.conf");
        let mut rule = "local all postgres trust\n".to_owned();
        if let Purpose::Judgement { reader, .. } = settings.purpose {
            rule += &format!("local all {reader} trust\n");
        }
        durable::write(&rules, rule.as_bytes(), 0o600).map_err(Error::Folder)?;

        let mut command = Command::new(programs.path("postgres"));
        command.arg("-D").arg(settings.data);
        if let Some(file) = settings.config_file {
            command.arg("-c").arg(format!("config_file={}", file.display()));
        }
        for (name, value) in [
            ("data_directory", settings.data.display().to_string()),
            ("hba_file", rules.display().to_string()),
            ("unix_socket_directories", folder.display().to_string()),
            ("unix_socket_permissions", "0700".to_owned()),
            ("listen_addresses", String::new()),
            ("port", "5432".to_owned()),
            ("ssl", "off".to_owned()),
            // What is to be archived stays so, and waits for the real server.
            ("archive_command", String::new()),
            ("logging_collector", "off".to_owned()),
            // No verifier into the log, not even of a statement that fails.
            ("log_statement", "none".to_owned()),
            ("log_min_error_statement", "panic".to_owned()),
            ("log_min_duration_statement", "-1".to_owned()),
            ("log_min_duration_sample", "-1".to_owned()),
            ("log_transaction_sample_rate", "0".to_owned()),
        ] {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        if let Purpose::Judgement { settings, .. } = settings.purpose {
            let fixed = JUDGEMENT.map(|(name, value)| (name, value.to_owned()));
            for (name, value) in fixed.iter().chain(settings) {
                command.arg("-c").arg(format!("{name}={value}"));
            }
            command.stderr(Stdio::piped());
        }
        let stdin = volume.handed_on().map_err(programs::Error::Volume).map_err(Error::Start)?;
        let mut server = command.stdin(stdin).kill_on_drop(true).spawn().map_err(|source| {
            Error::Start(programs::Error::Start { program: programs.path("postgres"), source })
        })?;
        debug!(database.pid = server.id(), "started the temporary server");
        let (found, replayed) = watch::channel(None);
        if let Some(log) = server.stderr.take() {
            tokio::spawn(pass_on(log, found));
        }
        Ok(Self { server, folder, replayed })
    }

    /// The newest transaction that the server found in its WAL when it started, if it found one, and if its log is
    /// read: see [`Purpose::Judgement`].
    pub fn last_replayed(&self) -> Option<Timestamp> {
        *self.replayed.borrow()
    }

    /// The folder of the server's socket.
    pub fn socket_folder(&self) -> &Path {
        &self.folder
    }

    /// Connects as `user`, with `options` for the session, to a server that [`Self::connect`] has found started.
    pub async fn connect_as(&self, user: &str, database: &str, options: &str) -> Result<Client, Error> {
        let mut config = Config::new();
        config.host_path(&self.folder).port(5432).user(user).dbname(database);
        config.application_name("valv agent").options(options);
        let connected = config.connect(NoTls).await;
        let (client, connection) =
            connected.map_err(|source| Error::Connect { database: database.to_owned(), source })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(error = chain(&error), "lost the connection to the temporary server");
            }
        });
        Ok(client)
    }

    /// Connects as superuser to `database`, once the server has started.
    ///
    /// Waits as long as it takes: a server that was killed first recovers, and that has no limit that we know.
    pub async fn connect(&mut self, database: &str) -> Result<Client, Error> {
        let mut config = Config::new();
        config.host_path(&self.folder).port(5432).user("postgres").dbname(database);
        config.application_name("valv agent").options(SESSION);
        loop {
            if let Some(status) = self.server.try_wait().map_err(Error::Stop)? {
                return Err(Error::Died(status));
            }
            match config.connect(NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(async move {
                        if let Err(error) = connection.await {
                            warn!(error = chain(&error), "lost the connection to the temporary server");
                        }
                    });
                    return Ok(client);
                }
                Err(error) if is_starting(&error) => sleep(POLL).await,
                Err(source) => return Err(Error::Connect { database: database.to_owned(), source }),
            }
        }
    }

    /// Stops the server, and waits until it has written everything out. Sessions end.
    pub async fn stop(mut self) -> Result<(), Error> {
        if let Some(pid) = self.server.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            // SIGINT is PostgreSQL's "fast": end the sessions, write everything out, end.
            kill_process(pid, Signal::INT).map_err(|error| Error::Stop(error.into()))?;
        }
        let status = self.server.wait().await.map_err(Error::Stop)?;
        durable::remove_folder_if_there(&self.folder).map_err(Error::Folder)?;
        if status.success() { Ok(()) } else { Err(Error::Unclean(status)) }
    }
}

/// Passes the server's log lines on, and looks for the newest transaction in them.
async fn pass_on(log: impl AsyncRead + Unpin, found: watch::Sender<Option<Timestamp>>) {
    let mut lines = BufReader::new(log).lines();
    while let Ok(Some(mut line)) = lines.next_line().await {
        if let Some(at) = last_transaction(&line) {
            found.send_replace(Some(at));
        }
        line.push('\n');
        // As its own lines would stand there; that nobody reads them is no reason to stop.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

/// The time in a line as PostgreSQL writes it at the end of its replay.
fn last_transaction(line: &str) -> Option<Timestamp> {
    let (_, text) = line.split_once("last completed transaction was at log time ")?;
    text.trim().parse().ok()
}

/// Whether `error` is what a server answers, or what the socket's folder answers for it, while it starts.
fn is_starting(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => *code == SqlState::CANNOT_CONNECT_NOW,
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_transaction_is_read_as_postgresql_prints_it() {
        let line = "2026-11-22 01:06:00.123 UTC [7] LOG:  last completed transaction was at log time \
                    2026-11-22 01:04:59.123456+00";

        assert_eq!(last_transaction(line), Some("2026-11-22T01:04:59.123456Z".parse().unwrap()));
        assert_eq!(last_transaction("LOG:  redo done at 0/3000158"), None);
    }
}
