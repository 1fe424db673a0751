//! The roles file: who may log in to a tenant's database, and what the journal may do there.
//!
//! The operator writes it (`roles.json`, in a Secret), the agent reads it. No passwords: verifiers.

use std::{collections::BTreeMap, fmt, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    durable::{self, FileError},
    scram::Verifier,
};

/// Changes when the rights that [`super::rights`] grants change, so that a database that had the older ones
/// gets the newer ones at its next start.
const RIGHTS_REVISION: u32 = 2;

/// What `roles.json` holds.
///
/// # Shape
/// ```json
/// {"database": "journal", "applicationGrant": "DataOnly",
///  "roles": {"journal_owner": "SCRAM-SHA-256$…", "journal_app_a": "SCRAM-SHA-256$…", "journal_app_b": null}}
/// ```
/// A role that is `null` or absent exists, and cannot log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Roles {
    /// The journal's database.
    pub database: DatabaseName,

    /// What the journal's own roles may do in it.
    pub application_grant: ApplicationGrant,

    /// The verifier of each role that may log in.
    pub roles: BTreeMap<Role, Option<Verifier>>,
}

/// What the journal's own roles, `journal_app_a` and `journal_app_b`, may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApplicationGrant {
    /// Read and write rows, use sequences, call functions: all in schema `public`, all that the owner made or
    /// will make. Not change what tables there are: that is for the migration, which logs in as the owner.
    DataOnly,
    /// Everything that the owner may: for a journal that migrates its own database. What it makes belongs to
    /// the owner.
    Owner,
}

/// A role that may log in. There is one more, the group `journal_app`, and the superuser `postgres`, who has
/// no password and can only come from inside the volume's own pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Owns the database and its schema: the migration's role.
    JournalOwner,
    /// The journal, first of two logins, so that one can be replaced while the other is in use.
    JournalAppA,
    /// The journal, second of two logins.
    JournalAppB,
    /// Takes base backups and WAL; in the journal's database it may write the sentinel, and nothing else.
    JournalReplication,
    /// Reads everything, writes nothing: counts of backups, checks of drills and restores.
    JournalCheck,
    /// Changes the passwords of the others. No superuser.
    ValvRoles,
}

impl Role {
    /// All, in the order in which they are set: [`Role::ValvRoles`] last, since it may be the one that sets.
    pub const ALL: [Self; 6] = [
        Self::JournalOwner,
        Self::JournalAppA,
        Self::JournalAppB,
        Self::JournalReplication,
        Self::JournalCheck,
        Self::ValvRoles,
    ];

    /// Its name in PostgreSQL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::JournalOwner => "journal_owner",
            Self::JournalAppA => "journal_app_a",
            Self::JournalAppB => "journal_app_b",
            Self::JournalReplication => "journal_replication",
            Self::JournalCheck => "journal_check",
            Self::ValvRoles => "valv_roles",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The name of a tenant's database: 1 to 63 bytes, PostgreSQL's limit, and none of PostgreSQL's own.
/// Source: `NAMEDATALEN`, <https://www.postgresql.org/docs/17/limits.html>
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatabaseName(String);

/// The reason that a name cannot be a tenant's database.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} cannot be the journal's database: use 1 to 63 bytes, and none of PostgreSQL's own names")]
pub struct InvalidDatabaseName(String);

impl DatabaseName {
    /// The name, unquoted.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatabaseName {
    type Err = InvalidDatabaseName;

    fn from_str(name: &str) -> Result<Self, InvalidDatabaseName> {
        let own =
            ["postgres", "template0", "template1", "replication", "all", "sameuser", "samerole", "samegroup"];
        let usable =
            (1..=63).contains(&name.len()) && !name.contains(char::is_control) && !own.contains(&name);
        usable.then(|| Self(name.to_owned())).ok_or_else(|| InvalidDatabaseName(name.to_owned()))
    }
}

impl TryFrom<String> for DatabaseName {
    type Error = InvalidDatabaseName;

    fn try_from(name: String) -> Result<Self, InvalidDatabaseName> {
        name.parse()
    }
}

impl From<DatabaseName> for String {
    fn from(name: DatabaseName) -> Self {
        name.0
    }
}

/// The roles file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("failed to read the roles file; is the Secret mounted?")]
    Read(#[source] FileError),

    /// It is not what the operator writes. The position is told, the content is not.
    #[error(
        "failed to understand the roles file {path:?} at line {line}, column {column} ({category:?}); \
         is the agent as new as the operator that wrote it?"
    )]
    Understand {
        /// Which file.
        path: String,
        /// Where in it, from 1.
        line: usize,
        /// Where in it, from 1.
        column: usize,
        /// Kind of error.
        category: serde_json::error::Category,
    },
}

/// What a roles file says, and how to know it again.
#[derive(Debug)]
pub struct RolesFile {
    /// What it says.
    pub roles: Roles,
    /// The text of the marker that says that these roles were applied.
    pub marker: String,
    /// The file's [`digest`].
    pub digest: String,
}

impl RolesFile {
    /// Reads the roles file at `path`.
    ///
    /// # Errors
    /// None of them holds anything of the file's content.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = durable::read(path).map_err(Error::Read)?;
        // serde_json's own text may quote a value, and a value here may be a password somebody put in clear.
        let roles = serde_json::from_str(&text).map_err(|error| Error::Understand {
            path: path.display().to_string(),
            line: error.line(),
            column: error.column(),
            category: error.classify(),
        })?;
        Ok(Self { roles, marker: marker(&text), digest: digest(&text) })
    }
}

/// What says that the roles in `text` were applied: the SHA-256 of the file, as `sha256sum` writes it, and
/// which rights came with them.
fn marker(text: &str) -> String {
    format!("{}  roles.json\nrights {RIGHTS_REVISION}\n", digest(text))
}

/// SHA-256 of a roles file, in lower-case hexadecimal: by it operator and agent know which file was applied.
pub fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use secrecy::SecretString;

    use super::*;
    use crate::agent::scram::verifier;

    #[test]
    fn the_roles_file_reads_as_documented() {
        let owner = verifier(&SecretString::from("pencil"));
        let roles = Roles {
            database: "journal".parse().unwrap(),
            application_grant: ApplicationGrant::DataOnly,
            roles: BTreeMap::from([
                (Role::JournalOwner, Some(owner.clone())),
                (Role::JournalAppB, None),
                (Role::ValvRoles, None),
            ]),
        };

        let text = serde_json::to_string(&roles).unwrap();

        assert_eq!(
            text,
            format!(
                r#"{{"database":"journal","applicationGrant":"DataOnly","roles":{{"journal_owner":"{}","journal_app_b":null,"valv_roles":null}}}}"#,
                owner.expose(),
            ),
        );
        assert_eq!(serde_json::from_str::<Roles>(&text).unwrap(), roles);
    }

    #[test]
    fn a_role_is_named_the_same_in_the_file_and_in_the_database() {
        for role in Role::ALL {
            assert_eq!(serde_json::to_value(role).unwrap(), role.name());
        }
    }

    #[test]
    fn a_password_in_clear_is_refused_and_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roles.json");
        fs::write(
            &path,
            r#"{"database":"journal","applicationGrant":"Owner","roles":{"journal_owner":"hunter2"}}"#,
        )
        .unwrap();

        let error = RolesFile::read(&path).unwrap_err();

        assert!(!crate::error::chain(&error).contains("hunter2"));
        assert!(matches!(error, Error::Understand { line: 1, .. }));
    }

    #[test]
    fn a_role_that_nobody_knows_is_refused() {
        let text = r#"{"database":"journal","applicationGrant":"Owner","roles":{"postgres":null}}"#;

        assert!(serde_json::from_str::<Roles>(text).is_err());
    }

    #[test]
    fn the_databases_of_postgresql_itself_are_refused() {
        for name in ["", "postgres", "template1", "a\0b", &"å".repeat(32)] {
            assert!(name.parse::<DatabaseName>().is_err(), "{name:?}");
        }
        assert_eq!("journal \"ö\"".parse::<DatabaseName>().unwrap().as_str(), "journal \"ö\"");
    }

    #[test]
    fn the_marker_starts_as_sha256sum_would_write_it() {
        assert_eq!(
            marker("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  roles.json\nrights 2\n",
        );
    }
}
