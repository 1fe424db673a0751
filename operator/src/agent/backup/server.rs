//! The server that is backed up, and whether it can be.

use tokio_postgres::Client;

/// The oldest major that is backed up: its `pg_verifybackup` and WAL summaries are what restores rely on.
const OLDEST_MAJOR: u32 = 17;

/// What every server has beside the tenant's database: two templates, `postgres`, and what belongs to all.
const OTHER_DATABASES_BYTES: u64 = 32 * 1024 * 1024;

/// Everything in one row. Whoever can connect may ask it.
const QUESTION: &str = "SELECT current_setting('server_version_num')::int4, \
     current_setting('server_version'), current_setting('wal_level'), pg_is_in_recovery(), \
     (SELECT system_identifier::text FROM pg_control_system()), \
     (SELECT coalesce(array_agg(spcname::text ORDER BY spcname), '{}') FROM pg_tablespace \
      WHERE spcname NOT IN ('pg_default', 'pg_global')), \
     pg_database_size(current_database())";

/// A server that can be backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its version, e.g. `17.5`.
    pub version: String,
    /// The first part of it.
    pub major: u16,
    /// PostgreSQL's own number of it.
    pub system_identifier: String,
    /// About how many bytes a base backup of it has.
    pub estimated_bytes: u64,
}

/// Why it cannot be backed up as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    /// An older major.
    #[error("the server is PostgreSQL {version}, and backups need {OLDEST_MAJOR} or later: upgrade it")]
    Old {
        /// What it is.
        version: String,
    },
    /// Without enough WAL no backup is consistent.
    #[error("the server has wal_level = {found}, and backups need replica or logical: change it and restart")]
    WalLevel {
        /// What it has.
        found: String,
    },
    /// Nothing can be written into a standby.
    #[error("the server is a standby: name the primary, for the sentinel is written before the backup")]
    Standby,
    /// Data outside the data folder.
    #[error(
        "the server has tablespaces of its own ({}), which a stream cannot hold: move what is in them to \
         pg_default, and drop them",
        names.join(", ")
    )]
    Tablespaces {
        /// Their names.
        names: Vec<String>,
    },
}

/// What the server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    version_number: i32,
    version: String,
    wal_level: String,
    in_recovery: bool,
    system_identifier: String,
    tablespaces: Vec<String>,
    database_bytes: i64,
}

impl Answer {
    /// Asks the server.
    pub async fn of(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let row = client.query_one(QUESTION, &[]).await?;
        Ok(Self {
            version_number: row.try_get(0)?,
            version: row.try_get(1)?,
            wal_level: row.try_get(2)?,
            in_recovery: row.try_get(3)?,
            system_identifier: row.try_get(4)?,
            tablespaces: row.try_get(5)?,
            database_bytes: row.try_get(6)?,
        })
    }

    /// The server, if it can be backed up.
    pub fn judge(self) -> Result<Server, Unsuitable> {
        let version = self.version.split_whitespace().next().unwrap_or_default().to_owned();
        let major = u32::try_from(self.version_number).unwrap_or_default() / 10_000;
        if major < OLDEST_MAJOR {
            return Err(Unsuitable::Old { version });
        }
        if self.in_recovery {
            return Err(Unsuitable::Standby);
        }
        if !["replica", "logical"].contains(&self.wal_level.as_str()) {
            return Err(Unsuitable::WalLevel { found: self.wal_level });
        }
        if !self.tablespaces.is_empty() {
            return Err(Unsuitable::Tablespaces { names: self.tablespaces });
        }
        Ok(Server {
            version,
            major: u16::try_from(major).unwrap_or(u16::MAX),
            system_identifier: self.system_identifier,
            estimated_bytes: u64::try_from(self.database_bytes).unwrap_or_default() + OTHER_DATABASES_BYTES,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        Answer {
            version_number: 170_005,
            version: "17.5 (Debian 17.5-1)".into(),
            wal_level: "replica".into(),
            in_recovery: false,
            system_identifier: "7571234567890123456".into(),
            tablespaces: vec![],
            database_bytes: 1000,
        }
    }

    #[test]
    fn an_ordinary_server_can_be_backed_up() {
        let server = answer().judge().unwrap();

        assert_eq!((server.version.as_str(), server.major), ("17.5", 17));
        assert!(server.estimated_bytes > 1000);
    }

    #[test]
    fn what_cannot_be_backed_up_is_refused_with_what_to_do() {
        let names = vec!["fast".to_owned()];
        let cases = [
            (Answer { version_number: 160_009, ..answer() }, Unsuitable::Old { version: "17.5".into() }),
            (Answer { in_recovery: true, ..answer() }, Unsuitable::Standby),
            (
                Answer { wal_level: "minimal".into(), ..answer() },
                Unsuitable::WalLevel { found: "minimal".into() },
            ),
            (Answer { tablespaces: names.clone(), ..answer() }, Unsuitable::Tablespaces { names }),
        ];

        for (answer, expected) in cases {
            assert_eq!(answer.judge(), Err(expected));
        }
    }
}
