//! What runs inside the pods: the same binary as the operator, as `valv agent …`.
//!
//! Input: flags, files that the pod mounts, the database volume. Output: a database that is ready or a
//! refusal, and a [termination message](termination) for the operator. It has no Kubernetes token and never
//! calls the API server; no secret appears in a log line, an error or a termination message.
//!
//! | command                     | runs as                              | file            |
//! |-----------------------------|--------------------------------------|-----------------|
//! | `agent install PATH`        | init container, Valv's own image     | [`install`]     |
//! | `agent database init`       | init container, the PostgreSQL image | [`init`]        |
//! | `agent database run`        | the database container, as PID 1     | [`run`](mod@run) |
//! | `agent database roles`      | Job                                  | [`rotate`]      |
//! | `agent backup`              | Job, the PostgreSQL image            | [`backup`](mod@backup) |
//! | `agent verify`              | Job                                  | [`verify`](mod@verify) |
//!
//! There is no readiness command: the pod's probe is `pg_isready -h <socket folder>`, which speaks only the
//! start of the protocol, so that a probe needs no role and no password, and adds no log line of ours.
//!
//! What they stand on: [`roles`] is the file that says who may log in, [`rights`] the SQL that makes it so,
//! [`scram`] the verifiers in it; [`volume`] who may use the volume and what lies where; [`programs`]
//! PostgreSQL's own tools; [`postmaster`] the temporary server of `init`; [`watch`] mounted files that
//! change; [`durable`] files that survive a crash; [`trust`] whom TLS believes. `backup` and `verify` are told
//! by a [`run_file`], speak to the bucket of [`store_access`], say how far they are by [`pulse`] and how it
//! ended by their [`last_words`].

#![allow(clippy::doc_markdown, reason = "PostgreSQL and ConfigMap are names, not code")]

pub mod backup;
pub mod drill_file;
pub mod drill_words;
pub mod durable;
mod error;
pub mod init;
pub mod install;
pub mod last_words;
pub mod postmaster;
pub mod programs;
pub mod pulse;
pub mod rights;
pub mod roles;
pub mod rotate;
pub mod run;
pub mod run_file;
pub mod scram;
pub mod store_access;
pub mod termination;
pub mod trust;
pub mod verify;
pub mod volume;
pub mod watch;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use tracing::info;

pub use self::error::Error;
use self::termination::Report;

/// `valv agent …`: what the containers of a tenant run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy this program to PATH, for the containers that come after this one
    Install {
        /// Where to: a file on a volume that the next containers mount
        path: PathBuf,
    },
    /// Prepare, run or change the database
    #[command(subcommand)]
    Database(DatabaseCommand),
    /// Back the tenant up to a store
    Backup(backup::Backup),
    /// Read a backup back from its store, and compare it with its manifest
    Verify(verify::Verify),
}

/// `valv agent database …`.
#[derive(Debug, Subcommand)]
pub enum DatabaseCommand {
    /// Make the database where there is none, and its roles as the roles file says; else check it
    Init(init::Init),
    /// Run the database until it or the pod ends
    Run(run::Run),
    /// Change logins and passwords of the running database, over TLS
    Roles(rotate::Rotate),
}

/// Which volume, and whose programs.
#[derive(Args, Clone, Debug)]
pub struct Database {
    /// The volume that holds the database: a mounted folder
    #[arg(long, default_value = "/var/lib/postgresql/data")]
    pub volume: PathBuf,

    /// The PostgreSQL major that the tenant runs. From 17 on: that has the built-in C.UTF-8 locale
    #[arg(long, default_value_t = 17, value_parser = clap::value_parser!(u16).range(17..))]
    pub major: u16,

    /// The folder of PostgreSQL's programs. Absent: where Debian and the official image keep them
    #[arg(long)]
    pub programs: Option<PathBuf>,
}

/// Does what `command` says. `now` is the clock.
///
/// # Errors
/// The operation that failed, with its causes as sources; what has a termination message has said it there
/// too. [`Error::exit_code`] is what the process should end with.
pub async fn run(command: Command, now: fn() -> Timestamp) -> Result<(), Error> {
    match command {
        Command::Install { path } => install::install(&path).map_err(Error::Install),
        Command::Database(DatabaseCommand::Init(init)) => {
            let outcome = init::init(&init).await.map_err(Error::Init);
            report(&init.termination_log, outcome)
        }
        Command::Database(DatabaseCommand::Run(run)) => run::run(&run).await.map_err(Error::Run),
        Command::Database(DatabaseCommand::Roles(rotate)) => {
            let outcome = rotate::rotate(&rotate).await.map_err(Error::Roles);
            report(&rotate.termination_log, outcome)
        }
        Command::Backup(backup) => {
            let outcome = backup::backup(&backup, now).await;
            backup::report(&backup, &outcome);
            let taken = outcome.map_err(Error::Backup)?;
            info!(object.key = taken.manifest.key, bytes = taken.bytes, "wrote the manifest");
            Ok(())
        }
        Command::Verify(verify) => {
            let outcome = verify::verify(&verify, now).await;
            verify::report(&verify, &outcome);
            outcome.map(drop).map_err(Error::Verify)
        }
    }
}

/// Leaves `outcome` where the operator reads it.
fn report(termination_log: &Path, outcome: Result<Report, Error>) -> Result<(), Error> {
    termination::write(termination_log, &outcome);
    let report = outcome?;
    info!(
        database.system_identifier = report.system_identifier,
        database.version = report.version,
        outcome = ?report.outcome,
        "the database is as the roles file says"
    );
    Ok(())
}
