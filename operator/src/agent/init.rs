//! Makes the database where there is none, checks the one that there is, and brings its roles to what the
//! roles file says.
//!
//! Input: the volume, the roles file, what the operator knows of the database. Output: a [`Report`].
//! Touches the volume and a scratch folder; opens no network. It never makes a new database where there was
//! one, and never repairs what it does not understand: it refuses.
//!
//! # Guarantees
//! Killed at any moment, and run again, it ends the same. A database is made beside its final name and renamed
//! when it is whole and on disk; roles are transactions; the marker that says "applied" is written last.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use super::{
    Database,
    durable::{self, FileError},
    postmaster::{self, Purpose, Settings, Temporary},
    programs::{self, Programs},
    rights,
    roles::{self, Roles, RolesFile},
    termination::{Outcome, Report},
    volume::{self, Volume},
};

/// Files that say that a restore is not finished: a server started with one of them replays WAL, and may
/// follow another server.
const RECOVERY_FILES: [&str; 2] = ["recovery.signal", "standby.signal"];

/// What `valv agent database init` is told.
#[derive(Args, Clone, Debug)]
pub struct Init {
    /// Which volume, and whose programs.
    #[command(flatten)]
    pub database: Database,

    /// Who may log in: JSON, written by the operator
    #[arg(long, default_value = "/etc/valv/roles/roles.json")]
    pub roles: PathBuf,

    /// A folder that only this container sees, for the temporary server's socket
    #[arg(long, default_value = "/valv/run")]
    pub scratch: PathBuf,

    /// The tenant's settings, for the temporary server on a database that exists. Absent: those that the
    /// database was made with
    #[arg(long)]
    pub config_file: Option<PathBuf>,

    /// The number of the tenant's database. Absent: the tenant never had one, and an empty one may be made
    #[arg(long, env = "VALV_EXPECT_SYSTEM_IDENTIFIER")]
    pub expect_system_identifier: Option<u64>,

    /// Where Kubernetes looks for the termination message
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// Why there is no database that is ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The volume lost its database, or is another volume.
    #[error(
        "volume {} is empty, but the tenant has a database, system identifier {expected}: an empty one is not \
         made in its place; put the right volume back, or restore from a backup; to begin with an empty \
         database on purpose, delete the tenant with its data and create it anew",
        volume.display()
    )]
    Lost {
        /// Which volume.
        volume: PathBuf,
        /// The number of the database that was there.
        expected: u64,
    },

    /// The volume is another tenant's, or another restore's.
    #[error(
        "the database on volume {} has system identifier {found}, the tenant's has {expected}: \
         put the right volume back, or restore from a backup",
        volume.display()
    )]
    OtherDatabase {
        /// Which volume.
        volume: PathBuf,
        /// What is there.
        found: u64,
        /// What should be.
        expected: u64,
    },

    /// The database was made by another major.
    #[error(
        "the database at {} is PostgreSQL {found}, the tenant's spec says {expected}: set the version back to \
         {found}; an upgrade is a dump and restore into a new tenant",
        data.display()
    )]
    OtherMajor {
        /// The database's folder.
        data: PathBuf,
        /// What it was made by.
        found: String,
        /// What the tenant runs.
        expected: u16,
    },

    /// Roles cannot be applied in the middle of a recovery.
    #[error(
        "the database at {} is in the middle of a recovery ({file} is there), and its roles must be set: \
         finish the restore first",
        data.display()
    )]
    InRecovery {
        /// The database's folder.
        data: PathBuf,
        /// The file that says so.
        file: &'static str,
    },

    /// A cluster without the journal's database: the name was changed, or it is not the tenant's.
    #[error(
        "the server on this volume has no database {name:?}, and an empty one is not made in its place: \
         set the name back"
    )]
    NoSuchDatabase {
        /// The roles file's name for it.
        name: String,
    },

    /// The pod was told to end.
    #[error("interrupted by the end of the pod; nothing is lost, the next start does it again")]
    Interrupted,

    /// The volume.
    #[error("failed to use the volume")]
    Volume(#[source] volume::Error),

    /// A file in the database's folder.
    #[error("failed to look at the database; is it one, and whole?")]
    Data(#[source] FileError),

    /// The roles file.
    #[error("failed to learn the roles")]
    RolesFile(#[source] roles::Error),

    /// A program of PostgreSQL.
    #[error("failed to use PostgreSQL's programs")]
    Programs(#[source] programs::Error),

    /// The temporary server.
    #[error("failed to run the temporary server")]
    Server(#[source] postmaster::Error),

    /// SQL.
    #[error("failed to {doing}")]
    Sql {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: tokio_postgres::Error,
    },

    /// The kernel refused a signal handler.
    #[error("failed to listen for the end of the pod")]
    Signal(#[source] io::Error),
}

impl Error {
    /// For `map_err` after SQL.
    fn sql(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Sql { doing, source }
    }
}

/// Whether the journal's database may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfNoDatabase {
    /// The cluster is new: make it.
    Make,
    /// The cluster has data: refuse.
    Refuse,
}

/// Brings the volume to a database with the roles file's roles, or refuses.
pub async fn init(init: &Init) -> Result<Report, Error> {
    // From here on a SIGTERM ends nothing by itself, which as PID 1 it would not do anyway.
    let mut end = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let volume = Volume::take(&init.database.volume).map_err(Error::Volume)?;
    let programs = Programs::of(&init.database);
    let version = until(&mut end, programs.version()).await?.map_err(Error::Programs)?;
    let file = RolesFile::read(&init.roles).map_err(Error::RolesFile)?;

    let outcome = if volume.has_database().map_err(Error::Volume)? {
        existing(init, &volume, &programs, &file, &mut end).await?
    } else {
        create(init, &volume, &programs, &file, &mut end).await?
    };

    let system_identifier = programs.system_identifier(&volume.data()).await.map_err(Error::Programs)?;
    Ok(Report {
        system_identifier: system_identifier.to_string(),
        version,
        outcome,
        roles_digest: file.digest,
    })
}

/// Makes the database, where there never was one.
async fn create(
    init: &Init,
    volume: &Volume,
    programs: &Programs,
    file: &RolesFile,
    end: &mut Signal,
) -> Result<Outcome, Error> {
    if let Some(expected) = init.expect_system_identifier {
        return Err(Error::Lost { volume: init.database.volume.clone(), expected });
    }
    let data = volume.unfinished();
    durable::remove_folder_if_there(&data).map_err(Error::Data)?;
    info!(path = %data.display(), "making an empty database");
    until(end, programs.initdb(volume, &data)).await?.map_err(Error::Programs)?;

    // With the settings that it was made with: the tenant's could name what is not there yet.
    let settings =
        Settings { data: &data, config_file: None, scratch: &init.scratch, purpose: Purpose::Roles };
    apply_on_temporary_server(programs, volume, settings, &file.roles, IfNoDatabase::Make, end).await?;

    until(end, programs.sync(volume, &data)).await?.map_err(Error::Programs)?;
    volume.finish().map_err(Error::Volume)?;
    volume.mark(&file.marker).map_err(Error::Volume)?;
    Ok(Outcome::Created)
}

/// Checks the database that is there, and sets its roles where the roles file has changed.
async fn existing(
    init: &Init,
    volume: &Volume,
    programs: &Programs,
    file: &RolesFile,
    end: &mut Signal,
) -> Result<Outcome, Error> {
    let data = volume.data();
    check_major(&data, init.database.major)?;
    if let Some(expected) = init.expect_system_identifier {
        let found = programs.system_identifier(&data).await.map_err(Error::Programs)?;
        if found != expected {
            return Err(Error::OtherDatabase { volume: init.database.volume.clone(), found, expected });
        }
    }
    // Half of a database that was being made before this one came, from a restore.
    durable::remove_folder_if_there(&volume.unfinished()).map_err(Error::Data)?;
    volume.tidy().map_err(Error::Volume)?;
    if volume.is_marked(&file.marker).map_err(Error::Volume)? {
        return Ok(Outcome::Existing);
    }

    if let Some(file) = RECOVERY_FILES.into_iter().find(|file| data.join(file).exists()) {
        return Err(Error::InRecovery { data, file });
    }
    info!(path = %data.display(), "setting the roles of the database");
    let settings = Settings {
        data: &data,
        config_file: init.config_file.as_deref(),
        scratch: &init.scratch,
        purpose: Purpose::Roles,
    };
    apply_on_temporary_server(programs, volume, settings, &file.roles, IfNoDatabase::Refuse, end).await?;
    volume.mark(&file.marker).map_err(Error::Volume)?;
    Ok(Outcome::RolesApplied)
}

/// Refuses a database of another major: its files mean nothing to this one's server.
fn check_major(data: &Path, expected: u16) -> Result<(), Error> {
    let found = durable::read(&data.join("PG_VERSION")).map_err(Error::Data)?.trim().to_owned();
    if found == expected.to_string() {
        Ok(())
    } else {
        Err(Error::OtherMajor { data: data.to_owned(), found, expected })
    }
}

/// Starts the temporary server, applies `roles`, and stops it again, cleanly also if applying failed.
async fn apply_on_temporary_server(
    programs: &Programs,
    volume: &Volume,
    settings: Settings<'_>,
    roles: &Roles,
    if_no_database: IfNoDatabase,
    end: &mut Signal,
) -> Result<(), Error> {
    let mut server = Temporary::start(programs, volume, settings).map_err(Error::Server)?;
    let applied = until(end, apply(&mut server, roles, if_no_database)).await.flatten();
    let stopped = server.stop().await.map_err(Error::Server);
    // If applying failed, that is the reason of whatever stopping says.
    applied.and(stopped)
}

/// Makes and sets what the roles file says: roles, the journal's database, and the rights in it.
async fn apply(server: &mut Temporary, roles: &Roles, if_no_database: IfNoDatabase) -> Result<(), Error> {
    let mut client = server.connect("postgres").await.map_err(Error::Server)?;

    let doing = "set the roles";
    let transaction = client.transaction().await.map_err(Error::sql(doing))?;
    let rows =
        transaction.query("SELECT rolname::text FROM pg_roles", &[]).await.map_err(Error::sql(doing))?;
    let existing = rows.iter().map(|row| row.try_get(0)).collect::<Result<BTreeSet<String>, _>>();
    let create = rights::create_roles(&existing.map_err(Error::sql(doing))?);
    transaction.batch_execute(&create).await.map_err(Error::sql(doing))?;
    transaction.batch_execute(&rights::roles_sql(roles)).await.map_err(Error::sql(doing))?;
    transaction.commit().await.map_err(Error::sql(doing))?;

    let name = roles.database.as_str();
    let doing = "look for the journal's database";
    let query = "SELECT FROM pg_database WHERE datname = $1";
    let found = client.query_opt(query, &[&name]).await.map_err(Error::sql(doing))?;
    match (found, if_no_database) {
        (Some(_), IfNoDatabase::Make | IfNoDatabase::Refuse) => {}
        (None, IfNoDatabase::Make) => client
            .batch_execute(&rights::create_database(roles))
            .await
            .map_err(Error::sql("make the journal's database"))?,
        (None, IfNoDatabase::Refuse) => return Err(Error::NoSuchDatabase { name: name.to_owned() }),
    }

    let doing = "set the rights in the journal's database";
    let mut client = server.connect(name).await.map_err(Error::Server)?;
    let transaction = client.transaction().await.map_err(Error::sql(doing))?;
    transaction.batch_execute(&rights::grants_sql(roles)).await.map_err(Error::sql(doing))?;
    transaction.commit().await.map_err(Error::sql(doing))
}

/// What `work` comes to, unless the pod ends first.
async fn until<T>(end: &mut Signal, work: impl Future<Output = T>) -> Result<T, Error> {
    tokio::select! {
        done = work => Ok(done),
        _ = end.recv() => Err(Error::Interrupted),
    }
}
