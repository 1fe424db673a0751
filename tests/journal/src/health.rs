//! Whether this process can serve: what the kubelet asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::database::{Database, QueryError, Remedy, Unavailable};
use crate::release::{Release, SchemaVersion};

/// Shorter than the kubelet's default of one second between giving up and the next look.
const PATIENCE: Duration = Duration::from_millis(800);

/// Whether the process has been asked to stop.
#[derive(Debug, Default)]
pub struct Lifecycle {
    stopping: AtomicBool,
}

impl Lifecycle {
    /// From now on the process is not ready, but serves on.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Where the process is in its life.
    pub fn phase(&self) -> Phase {
        if self.stopping.load(Ordering::Relaxed) { Phase::Stopping } else { Phase::Serving }
    }
}

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Serving,
    /// Asked to stop; serves what still comes.
    Stopping,
}

/// The answer to `/readyz`.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Readiness {
    /// Requests can be served.
    Ready { schema: SchemaVersion, needed: SchemaVersion },
    /// The schema has to be migrated first.
    SchemaTooOld { schema: SchemaVersion, needed: SchemaVersion },
    /// The database does not answer.
    DatabaseUnreachable,
    /// The process is about to stop.
    Stopping,
}

/// The schema could not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(transparent)]
    Unavailable(Unavailable),
    #[error(transparent)]
    Query(QueryError),
}

/// Whether requests can be served now.
pub async fn readiness(lifecycle: &Lifecycle, database: &Database, release: &Release) -> Readiness {
    if lifecycle.phase() == Phase::Stopping {
        return Readiness::Stopping;
    }
    let needed = release.needed_schema();
    match tokio::time::timeout(PATIENCE, schema(database)).await {
        Ok(Ok(schema)) if schema >= needed => Readiness::Ready { schema, needed },
        Ok(Ok(schema)) => Readiness::SchemaTooOld { schema, needed },
        Ok(Err(error)) => {
            tracing::warn!(error = crate::error::chain(&error), "not ready");
            Readiness::DatabaseUnreachable
        }
        Err(_) => Readiness::DatabaseUnreachable,
    }
}

/// The newest migration applied to the database.
async fn schema(database: &Database) -> Result<SchemaVersion, SchemaError> {
    const SQL: &str = "SELECT coalesce(max(version), 0) FROM schema_migration";
    let connection = database.connection(PATIENCE).await.map_err(SchemaError::Unavailable)?;
    match connection.query_one(SQL, &[]).await.map_err(QueryError::during("read the schema's version")) {
        Ok(row) => Ok(row.get(0)),
        // There is no such table in an empty database.
        Err(error) if error.remedy == Remedy::Migrate => Ok(0),
        Err(error) => Err(SchemaError::Query(error)),
    }
}
