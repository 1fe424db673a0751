//! Brings the schema to what the release needs.
//!
//! Each migration is one transaction, under one lock for the database, with a row in `schema_migration`. What
//! fails leaves the schema as it was before that migration. A database newer than the release is left alone.

use std::time::{Duration, Instant};

use clap::Args;
use deadpool_postgres::{Object, Transaction};
use serde_json::json;
use tokio_postgres::Row;

use crate::database::{Database, DatabaseArguments, DatabaseError, QueryError, Unavailable, cause};
use crate::release::{Migration, Release, ReleaseArguments, ReleaseError, SchemaVersion};

/// "valv-jou" read as a number: held while a migration runs, so that two never do.
const LOCK: i64 = i64::from_be_bytes(*b"valv-jou");

/// How to migrate.
#[derive(Args)]
pub struct MigrateArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    release: ReleaseArguments,
    /// How long to wait for a database that does not answer.
    #[arg(long, env = "JOURNAL_CONNECT_SECONDS", default_value_t = 60)]
    connect_seconds: u64,
}

/// The schema is not what the release needs.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("failed to read the release")]
    Release { source: ReleaseError },
    #[error("failed to use the database")]
    Database { source: DatabaseError },
    #[error("failed to reach the database")]
    Unavailable { source: Unavailable },
    #[error("failed to look at the schema")]
    Look { source: QueryError },
    #[error("migration {name} was changed after it was applied: it was {applied}, the release has {shipped}")]
    Changed { name: String, applied: String, shipped: String },
    #[error("failed to apply migration {name}, the schema stays at version {schema}: {cause}")]
    Apply { name: String, schema: SchemaVersion, cause: String },
}

/// What a migration run did.
struct Outcome {
    schema: SchemaVersion,
    applied: Vec<SchemaVersion>,
}

/// Runs all migrations that are missing, and prints what was done as one line of JSON.
#[expect(clippy::print_stdout, reason = "the answer of the command")]
pub async fn migrate(arguments: MigrateArguments) -> Result<(), MigrateError> {
    let release =
        Release::read(&arguments.release.release_dir).map_err(|source| MigrateError::Release { source })?;
    let database = Database::open(arguments.database).map_err(|source| MigrateError::Database { source })?;
    let mut connection = database
        .connection(Duration::from_secs(arguments.connect_seconds))
        .await
        .map_err(|source| MigrateError::Unavailable { source })?;
    let needed = release.needed_schema();

    let outcome = apply_missing(&mut connection, &release).await?;

    if outcome.schema > needed {
        tracing::info!(
            schema = outcome.schema,
            needed,
            "the database is newer than the release, nothing to do"
        );
    } else {
        tracing::info!(schema = outcome.schema, needed, "the schema is what the release needs");
    }
    println!("{}", json!({ "schema": outcome.schema, "needed": needed, "applied": outcome.applied }));
    Ok(())
}

async fn apply_missing(connection: &mut Object, release: &Release) -> Result<Outcome, MigrateError> {
    let mut schema = check_applied(connection, release).await?;
    let mut applied = Vec::new();
    for migration in &release.migrations {
        if migration.version <= schema {
            continue;
        }
        let begun = Instant::now();
        let failed = |error: tokio_postgres::Error| MigrateError::Apply {
            name: migration.name.clone(),
            schema,
            cause: cause(&error),
        };
        match apply(connection, migration).await.map_err(failed)? {
            Applied::Now => {
                tracing::info!(
                    migration.name,
                    duration_ms = begun.elapsed().as_millis() as u64,
                    "applied a migration"
                );
                applied.push(migration.version);
            }
            Applied::BySomebodyElse => tracing::info!(migration.name, "another process applied a migration"),
        }
        schema = migration.version;
    }
    Ok(Outcome { schema, applied })
}

/// Makes the table if need be, compares what is applied with what is shipped, and returns the schema's version.
async fn check_applied(connection: &mut Object, release: &Release) -> Result<SchemaVersion, MigrateError> {
    let look = |source| MigrateError::Look { source };
    let rows =
        applied(connection).await.map_err(QueryError::during("read schema_migration")).map_err(look)?;
    for row in &rows {
        let (version, applied): (SchemaVersion, String) = (row.get(0), row.get(1));
        match release.migrations.iter().find(|migration| migration.version == version) {
            Some(shipped) if shipped.sha256 != applied => {
                return Err(MigrateError::Changed {
                    name: shipped.name.clone(),
                    applied,
                    shipped: shipped.sha256.clone(),
                });
            }
            // Newer than the release, or unchanged.
            Some(_) | None => {}
        }
    }
    Ok(rows.iter().map(|row| row.get(0)).max().unwrap_or(0))
}

async fn applied(connection: &mut Object) -> Result<Vec<Row>, tokio_postgres::Error> {
    let transaction = connection.transaction().await?;
    lock(&transaction).await?;
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS schema_migration (
                version    integer PRIMARY KEY,
                name       text NOT NULL,
                sha256     text NOT NULL,
                applied_at timestamptz NOT NULL DEFAULT now()
            )",
        )
        .await?;
    let rows = transaction.query("SELECT version, sha256 FROM schema_migration", &[]).await?;
    transaction.commit().await?;
    Ok(rows)
}

/// Who applied a migration.
enum Applied {
    Now,
    /// While this process waited for the lock.
    BySomebodyElse,
}

async fn apply(connection: &mut Object, migration: &Migration) -> Result<Applied, tokio_postgres::Error> {
    const DONE: &str = "SELECT FROM schema_migration WHERE version = $1";
    const RECORD: &str = "INSERT INTO schema_migration (version, name, sha256) VALUES ($1, $2, $3)";
    let transaction = connection.transaction().await?;
    lock(&transaction).await?;
    if transaction.query_opt(DONE, &[&migration.version]).await?.is_some() {
        return Ok(Applied::BySomebodyElse);
    }
    transaction.batch_execute(&migration.sql).await?;
    transaction.execute(RECORD, &[&migration.version, &migration.name, &migration.sha256]).await?;
    transaction.commit().await?;
    Ok(Applied::Now)
}

/// Until the transaction ends.
async fn lock(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await.map(|_| ())
}
