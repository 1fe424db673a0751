//! `pg_basebackup`: the tar stream of the database, and what is said about it.
//!
//! Its standard output is the stream. An end of that is not the end of a backup: [`BaseBackup::finish`] says
//! whether there is one. Killed when dropped.

use std::{
    fmt::Write as _,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use rustix::pipe::fcntl_setpipe_size;
use secrecy::SecretString;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, ChildStderr, ChildStdout, Command},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{
    pass_file::PassFile,
    wal_range::{Found, WalRange},
};
use crate::agent::{
    programs::{Programs, end_of},
    run_file::Database,
};

/// Of the stream between it and us: the most that Linux grants to everybody, instead of 64 KiB.
const PIPE_BYTES: usize = 1024 * 1024;

/// Of one line of its talk.
const LINE_BYTES: usize = 1024;

/// Lines of its talk that an error shows.
const COMPLAINT_LINES: usize = 8;

/// There is no base backup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The password cannot be handed over.
    #[error("failed to hand the password to pg_basebackup")]
    PassFile(#[source] io::Error),
    /// It did not start.
    #[error("failed to start {}; say with --programs where the image has PostgreSQL's programs", program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not tell.
    #[error("failed to wait for pg_basebackup")]
    Wait(#[source] io::Error),
    /// It failed.
    #[error("pg_basebackup ended with {status}: {complaint}")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        complaint: String,
    },
    /// A page of the database is not what was written.
    #[error("pg_basebackup found a page whose checksum is wrong: {complaint}")]
    Checksum {
        /// The end of what it said.
        complaint: String,
    },
    /// It succeeded, and did not say where the backup begins and ends.
    #[error("failed to find the start and end of the backup in what pg_basebackup said: {talk}")]
    NoRange {
        /// The end of what it said.
        talk: String,
    },
}

/// A running `pg_basebackup`.
#[derive(Debug)]
pub struct BaseBackup {
    child: Child,
    stream: ChildStdout,
    talk: AbortOnDropHandle<io::Result<Talk>>,
    _password: PassFile,
}

impl BaseBackup {
    /// Starts it.
    pub fn start(programs: &Programs, database: &Database, password: &SecretString) -> Result<Self, Error> {
        let program = programs.path("pg_basebackup");
        let file = PassFile::of(password).map_err(Error::PassFile)?;
        let failed = |source| Error::Start { program: program.clone(), source };
        let mut child = Command::new(&program)
            .arg("--dbname")
            .arg(connection(database))
            .args(["--format=tar", "--pgdata=-", "--wal-method=fetch", "--checkpoint=fast"])
            .args(["--manifest-checksums=CRC32C", "--no-password", "--verbose"])
            // Nothing that the pod's environment may have for libpq.
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("PGPASSFILE", file.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(stream), Some(talk)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(io::Error::other("it has no output")));
        };
        // What the kernel does not grant only makes more and smaller reads.
        let _ = fcntl_setpipe_size(&stream, PIPE_BYTES);
        let talk = AbortOnDropHandle::new(tokio::spawn(Talk::listen(talk)));
        Ok(Self { child, stream, talk, _password: file })
    }

    /// The tar stream.
    pub fn stream(&mut self) -> impl AsyncRead + Unpin {
        &mut self.stream
    }

    /// Waits for its end, after the end of its stream, and says what the backup is.
    pub async fn finish(mut self) -> Result<WalRange, Error> {
        // It may have more to say than we read; then it shall not wait for us.
        drop(self.stream);
        let status = self.child.wait().await.map_err(Error::Wait)?;
        let talk = match self.talk.await {
            Ok(talk) => talk.map_err(Error::Wait)?,
            Err(error) => return Err(Error::Wait(error.into())),
        };
        if !status.success() {
            let complaint = talk.end();
            return Err(if talk.of_checksums {
                Error::Checksum { complaint }
            } else {
                Error::Failed { status, complaint }
            });
        }
        talk.found.whole().ok_or_else(|| Error::NoRange { talk: talk.end() })
    }
}

/// Whom to connect to: all that is not secret.
fn connection(database: &Database) -> String {
    let mut text = String::new();
    let port = database.port.to_string();
    let authority = database.ca_file.display().to_string();
    for (name, value) in [
        ("host", database.host.as_str()),
        ("port", &port),
        ("user", &database.replication_user),
        ("sslmode", "verify-full"),
        ("sslrootcert", &authority),
        ("sslcertmode", "disable"),
        ("gssencmode", "disable"),
        ("connect_timeout", "10"),
        ("keepalives_idle", "30"),
        ("keepalives_interval", "10"),
        ("keepalives_count", "6"),
        ("application_name", "valv agent"),
    ] {
        let value = value.replace('\\', "\\\\").replace('\'', "\\'");
        let _ = write!(text, "{name}='{value}' ");
    }
    text
}

/// What it said.
#[derive(Debug, Default)]
struct Talk {
    found: Found,
    of_checksums: bool,
    last: Vec<String>,
}

impl Talk {
    async fn listen(mut pipe: ChildStderr) -> io::Result<Self> {
        let mut talk = Self::default();
        let mut line = Vec::new();
        let mut bytes = [0; 1024];
        loop {
            let read = pipe.read(&mut bytes).await?;
            for byte in &bytes[..read] {
                if *byte == b'\n' {
                    talk.hear(&line);
                    line.clear();
                } else if line.len() < LINE_BYTES {
                    line.push(*byte);
                }
            }
            if read == 0 {
                talk.hear(&line);
                return Ok(talk);
            }
        }
    }

    fn hear(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).trim().to_owned();
        if line.is_empty() {
            return;
        }
        debug!(line, "pg_basebackup");
        self.found.read(&line);
        self.of_checksums |= line.contains("checksum error") || line.contains("checksum verification failed");
        if self.last.len() == COMPLAINT_LINES {
            self.last.remove(0);
        }
        self.last.push(line);
    }

    /// The end of it, on one line.
    fn end(&self) -> String {
        end_of(self.last.join(" ").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_verifies_the_server_and_holds_no_quote_open() {
        let database = Database {
            host: "database.journal-ada.svc".into(),
            port: 5432,
            name: "journal".into(),
            ca_file: "/etc/valv/o'clock/ca.crt".into(),
            replication_user: "back\\up' sslmode='disable".into(),
            check_user: "journal_check".into(),
        };

        let text = connection(&database);

        assert!(text.starts_with("host='database.journal-ada.svc' port='5432' "), "{text}");
        assert!(text.contains(r"user='back\\up\' sslmode=\'disable' sslmode='verify-full'"), "{text}");
        assert!(text.contains(r"sslrootcert='/etc/valv/o\'clock/ca.crt'"), "{text}");
    }

    #[test]
    fn only_the_end_of_a_long_talk_is_kept() {
        let mut talk = Talk::default();

        (0..100).for_each(|number| talk.hear(format!("line {number}").as_bytes()));
        talk.hear(b"pg_basebackup: error: checksum error occurred");

        assert!(talk.of_checksums);
        assert!(talk.end().ends_with("line 99 pg_basebackup: error: checksum error occurred"));
        assert!(!talk.end().contains("line 92 "), "{}", talk.end());
    }
}
