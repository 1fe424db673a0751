//! PostgreSQL's own programs, as the tenant's image has them.
//!
//! Starts them with the volume's lock as standard input (see [`super::volume`]), and reads what they print.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
};

use jiff::Timestamp;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};
use tracing::debug;

use super::{
    Database,
    volume::{self, Volume},
};

/// As much of a program's complaint as goes into an error.
const COMPLAINT_BYTES: usize = 1024;

/// A program of PostgreSQL did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It did not start.
    #[error("failed to start {}; say with --programs where the image has PostgreSQL's programs", program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// It could not be given the volume.
    #[error("failed to give the volume to a program")]
    Volume(#[source] volume::Error),

    /// It ran and failed.
    #[error("{} ended with {status}: {complaint}", program.display())]
    Failed {
        /// Which.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to standard error.
        complaint: String,
    },

    /// It ran, and what it printed has not what we look for.
    #[error("failed to find {what} in what {} printed", program.display())]
    Output {
        /// Which.
        program: PathBuf,
        /// What we look for.
        what: &'static str,
    },

    /// The image is not the tenant's.
    #[error(
        "the image has PostgreSQL {version}, the tenant runs {major}; use an image of PostgreSQL {major}"
    )]
    OtherMajor {
        /// What the image has.
        version: String,
        /// What the tenant runs.
        major: u16,
    },
}

/// What becomes of a base backup's WAL while it is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wal {
    /// It is read, from the start of the backup to its end.
    Verified,
    /// Another run reads it.
    LeftOut,
}

/// Where PostgreSQL's programs are, and which major they should be.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
    major: u16,
}

impl Programs {
    /// The programs that `database` names.
    pub fn of(database: &Database) -> Self {
        Self::of_major(database.major, database.programs.clone())
    }

    /// The programs of `major` in `folder`; without one, where Debian and the official image keep them.
    pub fn of_major(major: u16, folder: Option<PathBuf>) -> Self {
        Self { folder: folder.unwrap_or_else(|| format!("/usr/lib/postgresql/{major}/bin").into()), major }
    }

    /// The path of `program`.
    pub fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }

    /// PostgreSQL's version, e.g. `17.5`.
    ///
    /// # Errors
    /// [`Error::OtherMajor`] if it is not the tenant's.
    pub async fn version(&self) -> Result<String, Error> {
        let text = self.output("postgres", &["--version"], Stdio::null()).await?;
        let version = version(&text)
            .ok_or_else(|| Error::Output { program: self.path("postgres"), what: "a version" })?
            .to_owned();
        let digits = version.find(|character: char| !character.is_ascii_digit()).unwrap_or(version.len());
        if version[..digits] == self.major.to_string() {
            Ok(version)
        } else {
            Err(Error::OtherMajor { version, major: self.major })
        }
    }

    /// Makes an empty database in the folder `data`, with checksums, and without any way to log in.
    ///
    /// The locale is PostgreSQL's own C.UTF-8: the order of text does not change when the image's C library
    /// does, so no index ever becomes wrong. A journal sorts for people with a collation of its own.
    pub async fn initdb(&self, volume: &Volume, data: &Path) -> Result<(), Error> {
        let data = format!("--pgdata={}", data.display());
        let args = [
            data.as_str(),
            "--username=postgres",
            "--auth-local=reject",
            "--auth-host=reject",
            "--data-checksums",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        ];
        let text = self.output("initdb", &args, volume.handed_on().map_err(Error::Volume)?).await?;
        debug!(output = text, "made an empty database");
        Ok(())
    }

    /// Makes lasting everything in the folder `data`.
    pub async fn sync(&self, volume: &Volume, data: &Path) -> Result<(), Error> {
        let data = format!("--pgdata={}", data.display());
        let args = [data.as_str(), "--sync-only"];
        self.output("initdb", &args, volume.handed_on().map_err(Error::Volume)?).await.map(drop)
    }

    /// Whether the base backup in the folder `data` is whole: its files as its own list names them, but for those
    /// `left_out` (paths below it), and its WAL. Must run before anything in it is changed.
    ///
    /// # Errors
    /// [`Error::Failed`] with what it found.
    pub async fn verify_backup(
        &self,
        volume: &Volume,
        data: &Path,
        left_out: &[String],
        wal: Wal,
    ) -> Result<(), Error> {
        let stdin = volume.handed_on().map_err(Error::Volume)?;
        let left_out: Vec<String> = left_out.iter().map(|path| format!("--ignore={path}")).collect();
        let data = data.display().to_string();
        let mut args = vec!["--quiet"];
        match wal {
            Wal::Verified => {}
            Wal::LeftOut => args.push("--no-parse-wal"),
        }
        args.extend(left_out.iter().map(String::as_str));
        args.push(&data);
        self.output("pg_verifybackup", &args, stdin).await.map(drop)
    }

    /// What `pg_controldata` says of the database in the folder `data`, by its own names.
    pub async fn control_data(&self, data: &Path) -> Result<BTreeMap<String, String>, Error> {
        let data = format!("--pgdata={}", data.display());
        let text = self.output("pg_controldata", &[&data], Stdio::null()).await?;
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Ok(pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect())
    }

    /// The newest transaction in the WAL of the base backup in the folder `data`, from `start` on `timeline` to its
    /// end. `None` if there is none.
    pub async fn newest_commit(
        &self,
        data: &Path,
        timeline: u32,
        start: &str,
    ) -> Result<Option<Timestamp>, Error> {
        let program = self.path("pg_waldump");
        let mut child = Command::new(&program)
            .args(["--rmgr=Transaction", "--start", start, "--timeline", &timeline.to_string(), "--path"])
            .arg(data.join("pg_wal"))
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Start { program, source })?;
        let mut newest = None;
        if let Some(printed) = child.stdout.take() {
            let mut lines = BufReader::new(printed).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                newest = newest.max(commit_time(&line));
            }
        }
        // Where the WAL ends it always ends with a complaint; what it printed until then is true.
        let _ = child.wait().await;
        Ok(newest)
    }

    /// The number that `initdb` gave the database in the folder `data`.
    pub async fn system_identifier(&self, data: &Path) -> Result<u64, Error> {
        let data = format!("--pgdata={}", data.display());
        let text = self.output("pg_controldata", &[&data], Stdio::null()).await?;
        system_identifier(&text).ok_or_else(|| Error::Output {
            program: self.path("pg_controldata"),
            what: "a system identifier",
        })
    }

    /// Runs `program` and returns what it printed.
    ///
    /// Killed if the caller loses interest; then what it wrote is worth nothing.
    async fn output(&self, program: &str, args: &[&str], stdin: Stdio) -> Result<String, Error> {
        let program = self.path(program);
        let output = Command::new(&program)
            .args(args)
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .stdin(stdin)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|source| Error::Start { program: program.clone(), source })?;
        let Output { status, stdout, stderr } = output;
        if status.success() {
            Ok(String::from_utf8_lossy(&stdout).into_owned())
        } else {
            Err(Error::Failed { program, status, complaint: end_of(&stderr) })
        }
    }
}

/// `17.5` of `postgres (PostgreSQL) 17.5 (Debian 17.5-1)`.
fn version(text: &str) -> Option<&str> {
    text.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()
}

/// The time in a line of `pg_waldump` about a commit, with `TZ=UTC`.
fn commit_time(line: &str) -> Option<Timestamp> {
    let (_, rest) = line.split_once("desc: COMMIT ")?;
    let (text, _) = rest.split_once(" UTC")?;
    format!("{text}Z").parse().ok()
}

/// The number of the line `Database system identifier:           7571234567890123456`.
fn system_identifier(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("Database system identifier:"))?.trim().parse().ok()
}

/// The last of `bytes`, on one line.
pub(super) fn end_of(bytes: &[u8]) -> String {
    let end = &bytes[bytes.len().saturating_sub(COMPLAINT_BYTES)..];
    String::from_utf8_lossy(end).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_distributions_print_it() {
        assert_eq!(version("postgres (PostgreSQL) 17.5 (Debian 17.5-1.pgdg13+1)\n"), Some("17.5"));
        assert_eq!(version("postgres (PostgreSQL) 18beta1\n"), Some("18beta1"));
        assert_eq!(version("initdb (PostgreSQL) 17.5\n"), None);
    }

    #[test]
    fn the_time_of_a_commit_is_read_as_pg_waldump_prints_it() {
        let line = "rmgr: Transaction len (rec/tot):     34/    34, tx:        738, lsn: 0/01543E50, prev 0/01543E18, \
                    desc: COMMIT 2026-11-22 01:04:59.123456 UTC; inval msgs: catcache 55";

        assert_eq!(commit_time(line), Some("2026-11-22T01:04:59.123456Z".parse().unwrap()));
        assert_eq!(commit_time("desc: ABORT 2026-11-22 01:04:59.123456 UTC"), None);
    }

    #[test]
    fn a_system_identifier_is_read_as_pg_controldata_prints_it() {
        let text = "pg_control version number:            1700\n\
                    Database system identifier:           7571234567890123456\n";

        assert_eq!(system_identifier(text), Some(7_571_234_567_890_123_456));
        assert_eq!(system_identifier(""), None);
    }
}
