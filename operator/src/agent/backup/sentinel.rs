//! The sentinel: a number that is in the database before the backup, and so in what is restored from it.
//!
//! The table is made by a superuser, and only the role that takes backups writes it: so it proves something.

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::{Client, error::SqlState};
use valv_crds::Slot;

use crate::agent::run_file::Nonce;

/// Rows that are kept.
const KEPT: i64 = 8;

/// A standby that does not answer holds nothing up: the backup is of this server, and the sentinel goes into its WAL
/// before it. And neither does a lock that somebody holds.
const LIMITS: &str = "SET LOCAL synchronous_commit = local; SET LOCAL statement_timeout = '60s'; \
                      SET LOCAL lock_timeout = '60s'";

/// The statements that make the table, for a superuser in the tenant's database. Running them twice is running
/// them once.
pub fn table_sql(writer: &str) -> String {
    let writer = escape_identifier(writer);
    format!(
        "CREATE SCHEMA IF NOT EXISTS valv;\n\
         ALTER SCHEMA valv OWNER TO CURRENT_USER;\n\
         CREATE TABLE IF NOT EXISTS valv.sentinel \
         (slot text NOT NULL, nonce text NOT NULL, written timestamptz NOT NULL);\n\
         ALTER TABLE valv.sentinel OWNER TO CURRENT_USER;\n\
         REVOKE ALL ON SCHEMA valv FROM PUBLIC;\n\
         REVOKE ALL ON valv.sentinel FROM PUBLIC;\n\
         GRANT USAGE ON SCHEMA valv TO {writer};\n\
         GRANT SELECT, INSERT, DELETE ON valv.sentinel TO {writer};\n"
    )
}

/// The sentinel was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no table for it, or it may not be written.
    #[error(
        "the database has no table valv.sentinel that {user} may write. A built-in database gets it when its \
         pod starts the next time; for another, run as its superuser, in the journal's database: {}",
        table_sql(user).replace('\n', " ").trim()
    )]
    NoTable {
        /// Who would write it.
        user: String,
        /// What the server said.
        source: tokio_postgres::Error,
    },
    /// Something stands before the table.
    #[error(
        "the table valv.sentinel took {rows} rows instead of one; it has a rule or a trigger, which its superuser must drop: \
         without the sentinel nobody can tell this backup from another"
    )]
    NotTaken {
        /// How many it took.
        rows: u64,
    },
    /// SQL.
    #[error("failed to write the sentinel")]
    Sql(#[source] tokio_postgres::Error),
}

/// Writes the sentinel of `slot`, and forgets the oldest ones.
pub async fn write(client: &mut Client, user: &str, slot: Slot, nonce: &Nonce) -> Result<(), Error> {
    let slot = slot.to_string();
    let written = async {
        let transaction = client.transaction().await?;
        transaction.batch_execute(LIMITS).await?;
        let insert = "INSERT INTO valv.sentinel (slot, nonce, written) VALUES ($1, $2, clock_timestamp())";
        let rows = transaction.execute(insert, &[&slot, &nonce.as_str()]).await?;
        let forget = "DELETE FROM valv.sentinel WHERE ctid <> ALL (ARRAY \
                      (SELECT ctid FROM valv.sentinel ORDER BY written DESC LIMIT $1))";
        transaction.execute(forget, &[&KEPT]).await?;
        transaction.commit().await?;
        Ok(rows)
    };
    let rows: Result<u64, tokio_postgres::Error> = written.await;
    let rows = rows.map_err(|error| match error.code() {
        Some(code)
            if [
                SqlState::UNDEFINED_TABLE,
                SqlState::INVALID_SCHEMA_NAME,
                SqlState::INSUFFICIENT_PRIVILEGE,
            ]
            .contains(code) =>
        {
            Error::NoTable { user: user.to_owned(), source: error }
        }
        _ => Error::Sql(error),
    })?;
    if rows == 1 { Ok(()) } else { Err(Error::NotTaken { rows }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_role_that_takes_backups_may_write_the_table() {
        let sql = table_sql("backup \"x\"");

        assert!(
            sql.contains("GRANT SELECT, INSERT, DELETE ON valv.sentinel TO \"backup \"\"x\"\"\";"),
            "{sql}"
        );
        assert_eq!(sql.matches("GRANT").count(), 2);
    }
}
