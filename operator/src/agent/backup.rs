//! Backs a tenant up: database, attachments, tenant, as segments in a bucket, and a manifest last.
//!
//! Input: the [run file](super::run_file), the writer's credentials, passwords of two roles. Output: objects
//! in the store, log lines, a [termination message](super::last_words). It writes nothing to a disk, and into
//! the database only the sentinel. It reads nothing from the store: it may not.
//!
//! # Guarantees
//! - A manifest is put only if everything before it succeeded, `pg_basebackup` included: its standard output
//!   ending proves nothing.
//! - The attachments are read after the database's stop LSN: whatever a restored row names is in them.
//! - The first failure ends everything; so does the end of the pod, at once. What was put by then is named by
//!   no manifest.

mod pass_file;
pub mod row_counts;
pub mod sentinel;
pub mod server;
pub mod session;
pub mod slot;
pub mod source;
pub mod tar;
pub mod tree;
pub mod wal_range;

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
};
use tokio_postgres::Client;
use tracing::{info, instrument, warn};
use valv_crds::backup::BackupReason;

use self::{
    server::{Answer, Server},
    session::Access,
    source::BaseBackup,
    tree::{Inventory, TarStream},
    wal_range::WalRange,
};
use super::{
    last_words::{Failure, LastWords, Taken},
    programs::{self, Programs},
    pulse,
    run_file::{self, Run},
    store_access,
};
use crate::{
    archive::{
        Writer,
        layout::{Attempt, Part},
        manifest::{Attachments, FORMAT, Manifest, PartSummary, Postgres, RowCounts, Tool},
        recipients::{InvalidRecipients, Recipients},
        write,
    },
    error::chain,
    io::bucket::Kind,
};

/// What `valv agent backup` is told.
#[derive(Args, Clone, Debug)]
pub struct Backup {
    /// What to back up and where to: YAML or JSON, written by the operator
    #[arg(long)]
    pub run: PathBuf,

    /// A folder with the writer's credentials: the files accessKeyID and secretAccessKey
    #[arg(long, value_name = "DIR")]
    pub store_credentials: PathBuf,

    /// A folder with a file for each role that logs in, named as the role, with its password
    #[arg(long, value_name = "DIR")]
    pub database_passwords: PathBuf,

    /// The id of this run, under which it writes: the pod's UID
    #[arg(long, value_name = "UID", env = "POD_UID")]
    pub attempt: Attempt,

    /// The folder of PostgreSQL's programs. Absent: where Debian and the official image keep those of the
    /// server's major
    #[arg(long)]
    pub programs: Option<PathBuf>,

    /// Where Kubernetes looks for the termination message
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run file.
    #[error("failed to learn what to back up")]
    RunFile(#[source] run_file::Error),
    /// The recipients in it.
    #[error("failed to learn for whom to encrypt")]
    Recipients(#[source] InvalidRecipients),
    /// The store's credentials or settings.
    #[error("failed to prepare the store")]
    Store(#[source] store_access::Error),
    /// A session in the database.
    #[error("failed to enter the database")]
    Session(#[source] session::Error),
    /// SQL.
    #[error("failed to {doing}")]
    Sql {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: tokio_postgres::Error,
    },
    /// The server is not one that is backed up.
    #[error("the database cannot be backed up as it is")]
    Unsuitable(#[source] server::Unsuitable),
    /// The sentinel.
    #[error("failed to prepare the proof of a later restore")]
    Sentinel(#[source] sentinel::Error),
    /// Row counts.
    #[error("failed to count rows")]
    RowCounts(#[source] row_counts::Error),
    /// The image's programs.
    #[error("failed to use PostgreSQL's programs")]
    Programs(#[source] programs::Error),
    /// The base backup.
    #[error("failed to take a base backup")]
    BaseBackup(#[source] source::Error),
    /// The attachments.
    #[error("failed to read the attachments")]
    Attachments(#[source] tree::Error),
    /// The tenant's folder.
    #[error("failed to read the tenant's folder")]
    Tenant(#[source] tree::Error),
    /// The pipeline to the store.
    #[error("failed to write the backup")]
    Write(#[source] write::Error),
    /// A thread of ours ended early.
    #[error("failed to look at the attachments")]
    Worker(#[source] tokio::task::JoinError),
    /// The pod was told to end.
    #[error("interrupted by the end of the pod; what was written is in no manifest")]
    Interrupted,
    /// The kernel refused a signal handler.
    #[error("failed to listen for the end of the pod")]
    Signal(#[source] io::Error),
}

impl Error {
    /// The reason that the condition gets.
    pub fn reason(&self) -> BackupReason {
        match self {
            Self::RunFile(_)
            | Self::Store(_)
            | Self::Programs(_)
            | Self::Tenant(_)
            | Self::Worker(_)
            | Self::Interrupted
            | Self::Signal(_)
            | Self::BaseBackup(
                source::Error::PassFile(_) | source::Error::Start { .. } | source::Error::NoRange { .. },
            ) => BackupReason::AgentFailed,
            Self::Recipients(_) => BackupReason::TooFewRecipients,
            Self::Unsuitable(_)
            | Self::Sentinel(sentinel::Error::NoTable { .. } | sentinel::Error::NotTaken { .. })
            | Self::BaseBackup(source::Error::Checksum { .. }) => BackupReason::DatabaseUnsuitable,
            Self::Session(_)
            | Self::Sql { .. }
            | Self::Sentinel(sentinel::Error::Sql(_))
            | Self::RowCounts(_)
            | Self::BaseBackup(source::Error::Wait(_) | source::Error::Failed { .. }) => {
                BackupReason::DatabaseUnavailable
            }
            Self::Attachments(_) => BackupReason::AttachmentsUnreadable,
            Self::Write(error) => reason_of_write(error),
        }
    }

    /// For `map_err` after SQL.
    fn sql(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Sql { doing, source }
    }
}

fn reason_of_write(error: &write::Error) -> BackupReason {
    match error {
        write::Error::Store(error) => reason_of_store(&error.kind),
        write::Error::Source { part: Part::Database, .. } => BackupReason::DatabaseUnavailable,
        write::Error::Source { part: Part::Attachments, .. } => BackupReason::AttachmentsUnreadable,
        write::Error::Source { part: Part::Tenant, .. }
        | write::Error::Compress { .. }
        | write::Error::Encrypt { .. }
        | write::Error::Describe(_)
        | write::Error::TooLarge { .. }
        | write::Error::Twice { .. }
        | write::Error::ForeignManifest
        | write::Error::Worker { .. } => BackupReason::AgentFailed,
    }
}

/// The reason for a request that failed for good. `StoreUnavailable` and `TlsRefused` only where the store did not answer:
/// that counts for its breaker.
pub(super) fn reason_of_store(kind: &Kind) -> BackupReason {
    match kind {
        Kind::Denied => BackupReason::CredentialsRefused,
        Kind::Full => BackupReason::StoreFull,
        Kind::Unavailable | Kind::Timeout => BackupReason::StoreUnavailable,
        Kind::Tls => BackupReason::TlsRefused,
        // Of this pod's node, or of the store: it counts for no breaker, as one node's clock is not the store.
        Kind::ClockSkew => BackupReason::ClockSkewed,
        // It answered, and what it said is of its settings: its own conditions say which.
        Kind::NotFound | Kind::PreconditionFailed | Kind::Locked | Kind::Other { .. } => {
            BackupReason::StoreNotReady
        }
    }
}

/// Takes the backup, unless the pod ends first.
pub async fn backup(backup: &Backup, now: fn() -> Timestamp) -> Result<Taken, Error> {
    // From here on a SIGTERM ends nothing by itself, which as PID 1 it would not do anyway.
    let mut end = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    tokio::select! {
        taken = Box::pin(take(backup, now)) => taken,
        _ = end.recv() => Err(Error::Interrupted),
    }
}

#[instrument(name = "backup", skip_all, fields(archive, backup.slot, backup.attempt = %arguments.attempt))]
async fn take(arguments: &Backup, now: fn() -> Timestamp) -> Result<Taken, Error> {
    let started = now();
    let run = Run::read(&arguments.run).map_err(Error::RunFile)?;
    let span = tracing::Span::current();
    span.record("archive", run.archive.to_string()).record("backup.slot", run.slot.to_string());
    let recipients = Recipients::parse(&run.recipients).map_err(Error::Recipients)?;
    let bucket = store_access::bucket(&run.store, &arguments.store_credentials).map_err(Error::Store)?;
    let folder = run.folder(arguments.attempt.clone());
    let mut writer = Writer::new(bucket, folder, recipients.clone(), run.write_options(started));

    let attachments_bytes = estimated_bytes(&run).await?;
    let mut database = Database::enter(arguments, &run).await?;
    sentinel::write(&mut database.session, &run.database.replication_user, run.slot, &run.sentinel)
        .await
        .map_err(Error::Sentinel)?;
    info!("wrote the sentinel");
    let counted_at_start =
        row_counts::count(&mut database.reader(&run).await?).await.map_err(Error::RowCounts)?;
    slot::hold(&database.session, &arguments.attempt).await.map_err(Error::sql("hold the WAL"))?;

    let total_bytes = database.server.estimated_bytes + attachments_bytes;
    let progress = writer.progress();
    let written = Box::pin(pulse::with_lines(
        progress,
        total_bytes,
        pulse::stage_of,
        write_parts(&mut writer, &run, &database, now),
    ));
    let Written { parts, range, inventory, taken } = written.await?;

    let counted_at_end = row_counts::count_again(&mut database.reader(&run).await?, &counted_at_start)
        .await
        .map_err(Error::RowCounts)?;
    let manifest = Manifest {
        format: FORMAT,
        archive: run.archive,
        slot: run.slot,
        attempt: arguments.attempt.clone(),
        parent: None,
        tool: Tool { name: "valv".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        started,
        ended: now(),
        postgres: Postgres {
            version: database.server.version,
            system_identifier: database.server.system_identifier,
            timeline: range.timeline,
            start_lsn: range.start.to_string(),
            stop_lsn: range.stop.to_string(),
        },
        recipients: recipients.to_texts(),
        sentinel: run.sentinel.to_string(),
        row_counts: RowCounts { start: counted_at_start.rows, end: counted_at_end.rows },
        attachments: inventory.map(|Inventory { files, digest }| Attachments { files, digest }),
        images: run.images,
        parts,
    };
    let named = writer.manifest(&manifest).await.map_err(Error::Write)?;
    let sum = |of: fn(&PartSummary) -> u64| manifest.parts.iter().map(of).sum();
    Ok(Taken {
        manifest: named,
        bytes: sum(|part| part.bytes),
        plain_bytes: sum(|part| part.plain_bytes),
        segments: manifest.segments(),
        taken,
    })
}

/// The database.
struct Database {
    server: Server,
    programs: Programs,
    /// Of the role that replicates.
    password: SecretString,
    /// Of the role that reads everything.
    check_password: SecretString,
    /// As the role that replicates: it writes the sentinel, and holds the WAL.
    session: Client,
}

impl Database {
    /// Enters it, and refuses what cannot be backed up.
    async fn enter(arguments: &Backup, run: &Run) -> Result<Self, Error> {
        let place = &run.database;
        let password = |user: &str| session::password(&arguments.database_passwords, user);
        let check_password = password(&place.check_user).map_err(Error::Session)?;
        let password = password(&place.replication_user).map_err(Error::Session)?;
        let session = session::open(place, &place.replication_user, &password, Access::Write)
            .await
            .map_err(Error::Session)?;

        let answer = Answer::of(&session).await.map_err(Error::sql("ask the server what it is"))?;
        let server = answer.judge().map_err(Error::Unsuitable)?;
        let programs = Programs::of_major(server.major, arguments.programs.clone());
        let version = programs.version().await.map_err(Error::Programs)?;
        info!(
            database.version = server.version,
            database.system_identifier = server.system_identifier,
            programs.version = version,
            "entered the database"
        );
        Ok(Self { server, programs, password, check_password, session })
    }

    /// A session to count in, each time anew: between two counts lies a whole backup, and a session that is silent
    /// for so long may be lost.
    async fn reader(&self, run: &Run) -> Result<Client, Error> {
        let place = &run.database;
        session::open(place, &place.check_user, &self.check_password, Access::Read)
            .await
            .map_err(Error::Session)
    }
}

/// What was written.
struct Written {
    parts: Vec<PartSummary>,
    range: WalRange,
    inventory: Option<Inventory>,
    taken: Timestamp,
}

/// Writes one part after the other.
async fn write_parts(
    writer: &mut Writer,
    run: &Run,
    database: &Database,
    now: fn() -> Timestamp,
) -> Result<Written, Error> {
    let mut base = BaseBackup::start(&database.programs, &run.database, &database.password)
        .map_err(Error::BaseBackup)?;
    let part = writer.part(Part::Database, base.stream()).await.map_err(Error::Write)?;
    let range = base.finish().await.map_err(Error::BaseBackup)?;
    let taken = now();
    info!(
        start_lsn = %range.start,
        stop_lsn = %range.stop,
        bytes = part.plain_bytes,
        "wrote the database"
    );
    let mut parts = vec![part];

    let mut inventory = None;
    if let Some(attachments) = &run.attachments {
        let (part, found) =
            write_folder(writer, Part::Attachments, &attachments.folder, Error::Attachments).await?;
        info!(files = found.files, bytes = part.plain_bytes, "wrote the attachments");
        parts.push(part);
        inventory = Some(found);
    }
    if let Some(folder) = &run.tenant_folder {
        let (part, _) = write_folder(writer, Part::Tenant, &mounted(folder), Error::Tenant).await?;
        parts.push(part);
    }
    Ok(Written { parts, range, inventory, taken })
}

/// Writes all of `folder` as `part`. A failure of the folder is reported as what `failed` makes of it.
async fn write_folder(
    writer: &mut Writer,
    part: Part,
    folder: &Path,
    failed: fn(tree::Error) -> Error,
) -> Result<(PartSummary, Inventory), Error> {
    let mut stream = TarStream::of(folder.to_owned());
    let written = writer.part(part, &mut stream).await;
    match (written, stream.failure()) {
        (Ok(summary), _) => {
            let inventory = stream.inventory().ok_or_else(|| failed(tree::Error::Worker))?;
            Ok((summary, inventory))
        }
        (Err(write::Error::Source { .. }), Some(error)) => Err(failed(error)),
        (Err(error), _) => Err(Error::Write(error)),
    }
}

/// Where the files of a mounted Secret or ConfigMap really are: Kubernetes mounts links to them, and changes
/// all of them at once by turning `..data`.
fn mounted(folder: &Path) -> PathBuf {
    folder.join("..data").canonicalize().unwrap_or_else(|_| folder.to_owned())
}

/// About how many bytes the attachments have. Refuses a folder that cannot be read, before hours are spent on
/// the database.
async fn estimated_bytes(run: &Run) -> Result<u64, Error> {
    let Some(attachments) = &run.attachments else { return Ok(0) };
    let folder = attachments.folder.clone();
    let estimated = spawn_blocking(move || tree::estimated_bytes(&folder)).await;
    estimated.map_err(Error::Worker)?.map_err(Error::Attachments)
}

/// Leaves the outcome where the operator reads it.
pub(super) fn report(backup: &Backup, outcome: &Result<Taken, Error>) {
    let words = match outcome {
        Ok(taken) => LastWords::Taken(taken.clone()),
        Err(error) => {
            warn!(reason = ?error.reason(), "there is no backup");
            LastWords::Failed { failure: Failure { reason: error.reason(), message: chain(error) } }
        }
    };
    words.write(&backup.termination_log);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::bucket::{self, Operation};

    #[test]
    fn each_failure_has_the_reason_that_its_condition_gets() {
        let store =
            |kind| Error::Write(write::Error::Store(bucket::Error::for_tests(Operation::Put, kind))).reason();
        let source = |part| {
            let source = io::Error::other("broken pipe");
            Error::Write(write::Error::Source { part, source }).reason()
        };

        assert_eq!(store(Kind::Denied), BackupReason::CredentialsRefused);
        assert_eq!(store(Kind::Full), BackupReason::StoreFull);
        assert_eq!(store(Kind::Timeout), BackupReason::StoreUnavailable);
        assert_eq!(store(Kind::Tls), BackupReason::TlsRefused);
        assert_eq!(store(Kind::ClockSkew), BackupReason::ClockSkewed, "one node's clock is not the store");
        let other = Kind::Other { status: 400, code: "InvalidArgument".to_owned() };
        for kind in [Kind::NotFound, Kind::Locked, other] {
            assert_eq!(store(kind.clone()), BackupReason::StoreNotReady, "{kind:?} is an answer");
        }
        assert_eq!(source(Part::Database), BackupReason::DatabaseUnavailable);
        assert_eq!(source(Part::Attachments), BackupReason::AttachmentsUnreadable);
        let checksum = source::Error::Checksum { complaint: String::new() };
        assert_eq!(Error::BaseBackup(checksum).reason(), BackupReason::DatabaseUnsuitable);
        assert_eq!(Error::Interrupted.reason(), BackupReason::AgentFailed);
    }

    #[test]
    fn a_mounted_secret_is_read_where_its_files_are() {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("..2026");
        std::fs::create_dir(&version).unwrap();

        assert_eq!(mounted(folder.path()), folder.path());
        std::os::unix::fs::symlink("..2026", folder.path().join("..data")).unwrap();
        assert_eq!(mounted(folder.path()), version.canonicalize().unwrap());
    }
}
