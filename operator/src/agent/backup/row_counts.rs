//! Rows of each of the journal's tables, in one snapshot.

use std::collections::BTreeMap;

use tokio_postgres::{Client, IsolationLevel, error::SqlState};
use tracing::warn;

/// How often counting begins anew, when a table was dropped meanwhile.
const TRIES: u32 = 3;

/// For each count: far more than a count takes, so that one that hangs ends. And rows that are hidden from who
/// counts are an error, and no smaller number.
const LIMITS: &str = "SET LOCAL statement_timeout = '1h'; SET LOCAL lock_timeout = '60s'; \
                      SET LOCAL row_security = off";

/// The tables that a base backup holds with their rows: not unlogged and not temporary ones, each partition by
/// itself, nothing of PostgreSQL's and Valv's own. Quoted by PostgreSQL where it must be.
const TABLES: &str = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind = 'r' AND c.relpersistence = 'p' \
     AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'valv') \
     AND n.nspname !~ '^pg_(toast|temp)' ORDER BY 1";

/// `xmin:xmax:xip,…`, of the whole server: the transactions whose rows are seen are those below `xmax` that are not
/// in the list. A row that comes or goes has one of its own.
const SNAPSHOT: &str = "SELECT pg_current_snapshot()::text";

/// Rows could not be counted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list of tables.
    #[error("failed to list the tables")]
    List(#[source] tokio_postgres::Error),
    /// One of them.
    #[error("failed to count the rows of {table}; who counts must see all of them (BYPASSRLS)")]
    Count {
        /// Which.
        table: String,
        /// Why.
        source: tokio_postgres::Error,
    },
}

/// How many rows there are, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// By `schema.table`.
    pub rows: BTreeMap<String, u64>,
    /// Which transactions were seen, in PostgreSQL's words.
    snapshot: String,
}

/// Counts the rows of all tables: exactly, in one snapshot.
pub async fn count(client: &mut Client) -> Result<Counted, Error> {
    count_unless_same(client, None).await
}

/// Counts again. Who sees the same transactions as before sees the same rows, and reads none of them.
pub async fn count_again(client: &mut Client, before: &Counted) -> Result<Counted, Error> {
    count_unless_same(client, Some(before)).await
}

async fn count_unless_same(client: &mut Client, before: Option<&Counted>) -> Result<Counted, Error> {
    let mut tries = 1;
    loop {
        match count_once(client, before).await {
            Err(Error::Count { table, source })
                if source.code() == Some(&SqlState::UNDEFINED_TABLE) && tries < TRIES =>
            {
                warn!(database.table = table, "a table went while rows were counted, counting again");
                tries += 1;
            }
            counted => return counted,
        }
    }
}

async fn count_once(client: &mut Client, before: Option<&Counted>) -> Result<Counted, Error> {
    let begun = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction = begun.start().await.map_err(Error::List)?;
    transaction.batch_execute(LIMITS).await.map_err(Error::List)?;
    let seen = transaction.query_one(SNAPSHOT, &[]).await.map_err(Error::List)?;
    let snapshot: String = seen.try_get(0).map_err(Error::List)?;
    if let Some(same) = before.filter(|before| before.snapshot == snapshot) {
        return Ok(same.clone());
    }
    let tables = transaction.query(TABLES, &[]).await.map_err(Error::List)?;
    let mut rows = BTreeMap::new();
    for row in tables {
        let table: String = row.try_get(0).map_err(Error::List)?;
        let failed = |source| Error::Count { table: table.clone(), source };
        // Quoted by PostgreSQL itself, in the same snapshot.
        let row = transaction.query_one(&format!("SELECT count(*) FROM ONLY {table}"), &[]).await;
        let count: i64 = row.and_then(|row| row.try_get(0)).map_err(failed)?;
        rows.insert(table, u64::try_from(count).unwrap_or_default());
    }
    transaction.commit().await.map_err(Error::List)?;
    Ok(Counted { rows, snapshot })
}
