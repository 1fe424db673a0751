//! The restored copy: a server on it, and who asks.
//!
//! Two sessions and no more. The superuser's makes and drops the reader, and the extension that looks for damage;
//! it never runs what the tenant or the policy wrote. The reader's runs everything else: it is no superuser, may
//! read every row and write none, and finds the tenant's tables by their own names only after PostgreSQL's.

use std::path::Path;

use jiff::Timestamp;
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

use crate::agent::{
    durable::{self, FileError},
    postmaster::{self, Purpose, Settings, Temporary},
    programs::{self, Programs},
    volume::Volume,
};

/// Who asks. Made for one judgement; no database that runs has it.
pub const READER: &str = "valv_drill";

/// For sessions of the reader, beside its `search_path`. Rows that are hidden from it are an error, and no zero.
const READER_SESSION: &str = "-c default_transaction_read_only=on -c row_security=off -c role=none \
                              -c statement_timeout=0 -c lock_timeout=60s -c client_min_messages=error \
                              -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0";

/// What of `pg_controldata` a server must be started with.
const NEEDED: [(&str, &str); 3] = [
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
    ("track_commit_timestamp setting", "track_commit_timestamp"),
];

/// The copy cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image's programs.
    #[error("failed to look at the restored database")]
    Programs(#[source] programs::Error),
    /// A file for the server.
    #[error("failed to prepare the server")]
    File(#[source] FileError),
    /// The server.
    #[error("failed to run a server on the restored database")]
    Server(#[source] postmaster::Error),
    /// SQL of ours.
    #[error("failed to {doing}")]
    Sql {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: tokio_postgres::Error,
    },
}

fn sql(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Error {
    move |source| Error::Sql { doing, source }
}

/// A server on the restored copy.
#[derive(Debug)]
pub struct Copy {
    server: Temporary,
    database: String,
    superuser: Client,
    search_path: String,
}

impl Copy {
    /// Starts the server and waits until the copy is consistent. What it had replayed comes with it.
    pub async fn start(
        programs: &Programs,
        volume: &Volume,
        scratch: &Path,
        database: &str,
    ) -> Result<(Self, Option<Timestamp>), Error> {
        let data = volume.data();
        let control = programs.control_data(&data).await.map_err(Error::Programs)?;
        let settings: Vec<_> =
            NEEDED.iter().filter_map(|(theirs, ours)| Some((*ours, control.get(*theirs)?.clone()))).collect();
        // None of the tenant's: they may name what is not here.
        let config_file = scratch.join("valv-judge.conf");
        durable::write(&config_file, &b""[..], 0o600).map_err(Error::File)?;
        let settings = Settings {
            data: &data,
            config_file: Some(&config_file),
            scratch,
            purpose: Purpose::Judgement { reader: READER, settings: &settings },
        };
        let mut server = Temporary::start(programs, volume, settings).map_err(Error::Server)?;
        let superuser = server.connect(database).await.map_err(Error::Server)?;
        // Before anything else is committed.
        let committed = last_committed(&superuser).await.map_err(sql("ask for the newest transaction"))?;
        let search_path = String::new();
        let copy = Self { server, database: database.to_owned(), superuser, search_path };
        Ok((copy, committed))
    }

    /// The newest transaction that was found in the WAL.
    pub fn last_replayed(&self) -> Option<Timestamp> {
        self.server.last_replayed()
    }

    /// The folder of the server's socket.
    pub fn socket_folder(&self) -> &Path {
        self.server.socket_folder()
    }

    /// Makes the reader. Its unqualified names are looked for among PostgreSQL's own first, then where those of
    /// `journal_role` are.
    pub async fn make_reader(&mut self, journal_role: Option<&str>) -> Result<(), Error> {
        let doing = "make the role that asks";
        let role = escape_identifier(READER);
        // One that an earlier judgement left.
        self.remove_reader().await?;
        let database = escape_identifier(&self.database);
        self.superuser
            .batch_execute(&format!(
                "CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS \
                 CONNECTION LIMIT 4;\n\
                 GRANT pg_read_all_data TO {role} WITH ADMIN FALSE, INHERIT TRUE, SET FALSE;\n\
                 ALTER ROLE {role} IN DATABASE {database} SET event_triggers = off;\n\
                 GRANT CONNECT ON DATABASE {database} TO {role}"
            ))
            .await
            .map_err(sql(doing))?;
        let schemas =
            self.schemas(journal_role).await.map_err(sql("learn where the journal's tables are"))?;
        self.search_path = search_path(&schemas);
        Ok(())
    }

    /// The schemas in which `role` finds its tables; none of PostgreSQL's own.
    async fn schemas(&mut self, role: Option<&str>) -> Result<Vec<String>, tokio_postgres::Error> {
        const SETTINGS: &str = "SELECT split_part(entry, '=', 1), substr(entry, strpos(entry, '=') + 1) \
             FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) entry \
             LEFT JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole \
             WHERE (d.datname = current_database() OR s.setdatabase = 0) \
             AND (r.rolname = $1 OR s.setrole = 0) AND split_part(entry, '=', 1) IN ('search_path', 'role') \
             ORDER BY s.setrole <> 0, s.setdatabase <> 0";
        let mut path = r#""$user", public"#.to_owned();
        let mut acting = role.map(str::to_owned);
        // The more specific come later, and win.
        for row in self.superuser.query(SETTINGS, &[&role.unwrap_or_default()]).await? {
            let (name, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            if name == "role" { acting = Some(value) } else { path = value }
        }
        let transaction = self.superuser.transaction().await?;
        if let Some(acting) = acting {
            let query = "SELECT FROM pg_roles WHERE rolname = $1";
            if transaction.query_opt(query, &[&acting]).await?.is_some() {
                transaction.batch_execute(&format!("SET LOCAL ROLE {}", escape_identifier(&acting))).await?;
            }
        }
        transaction.query_one("SELECT set_config('search_path', $1, true)", &[&path]).await?;
        let row = transaction.query_one("SELECT current_schemas(false)::text[]", &[]).await?;
        let schemas = row.try_get(0)?;
        transaction.rollback().await?;
        Ok(schemas)
    }

    /// A session of the reader.
    pub async fn reader(&self) -> Result<Client, Error> {
        let options = format!("{READER_SESSION} -c search_path={}", escaped(&self.search_path));
        self.server.connect_as(READER, &self.database, &options).await.map_err(Error::Server)
    }

    /// A session of the superuser.
    pub fn superuser(&self) -> &Client {
        &self.superuser
    }

    /// Removes what was made for the judgement, and stops the server, cleanly.
    pub async fn end(self) -> Result<(), Error> {
        let removed = self.remove_reader().await;
        let stopped = self.server.stop().await.map_err(Error::Server);
        removed.and(stopped)
    }

    async fn remove_reader(&self) -> Result<(), Error> {
        let failed = sql("remove the role that asks");
        let removed = async {
            let found =
                self.superuser.query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&READER]).await?;
            let role = escape_identifier(READER);
            // It owns nothing; so this takes its rights away.
            let drop = format!("DROP OWNED BY {role};\nDROP ROLE {role}");
            if found.is_some() { self.superuser.batch_execute(&drop).await } else { Ok(()) }
        };
        removed.await.map_err(failed)
    }
}

/// The newest transaction, where the database keeps their times.
async fn last_committed(superuser: &Client) -> Result<Option<Timestamp>, tokio_postgres::Error> {
    let keeps = "SELECT current_setting('track_commit_timestamp')::bool";
    if !superuser.query_one(keeps, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let row = superuser.query_one("SELECT timestamp FROM pg_last_committed_xact()", &[]).await?;
    timestamp(&row, 0)
}

/// A `timestamptz` in the answer.
pub fn timestamp(
    row: &tokio_postgres::Row,
    column: usize,
) -> Result<Option<Timestamp>, tokio_postgres::Error> {
    let found: Option<std::time::SystemTime> = row.try_get(column)?;
    Ok(found.and_then(|time| Timestamp::try_from(time).ok()))
}

/// PostgreSQL's own first, so that nothing takes the place of what it has; temporary tables last.
fn search_path(schemas: &[String]) -> String {
    let is_own = |schema: &&String| !schema.starts_with("pg_");
    let named = schemas.iter().filter(is_own).map(|schema| escape_identifier(schema));
    let all: Vec<_> =
        ["pg_catalog".to_owned()].into_iter().chain(named).chain(["pg_temp".to_owned()]).collect();
    all.join(",")
}

/// A setting as the start of a session takes it: spaces and backslashes with a backslash before them.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(' ', "\\ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_tenant_s_comes_before_postgresql_s_own() {
        let schemas = ["journal \"x\"".to_owned(), "pg_temp_3".to_owned(), "public".to_owned()];

        assert_eq!(search_path(&schemas), "pg_catalog,\"journal \"\"x\"\"\",\"public\",pg_temp");
        assert_eq!(search_path(&[]), "pg_catalog,pg_temp");
        assert_eq!(escaped("a b\\c"), "a\\ b\\\\c");
    }
}
