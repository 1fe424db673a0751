//! A release: its version, and the migrations that make the schema it needs.
//!
//! Input: a folder with `VERSION` and `migrations/0001_<name>.sql`, `0002_<name>.sql` …
//! The same binary is every release; only this folder differs.

use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::Args;

use crate::digest::sha256;

/// Where the release is.
#[derive(Args, Clone, Debug)]
pub struct ReleaseArguments {
    /// The folder with VERSION and migrations/.
    #[arg(long, env = "JOURNAL_RELEASE_DIR", default_value = "/usr/share/journal")]
    pub release_dir: PathBuf,
}

/// The number of a schema: that of the newest migration applied to it. 0 is an empty database.
pub type SchemaVersion = i32;

/// The schema from which on notes can be signed.
const NOTES_ARE_SIGNED_FROM: SchemaVersion = 2;

/// What this release is, and needs.
#[derive(Clone, Debug)]
pub struct Release {
    /// For people, e.g. `2.0.0`.
    pub version: String,
    /// Oldest first; the numbers are 1, 2, 3 … without a gap.
    pub migrations: Vec<Migration>,
}

/// One step of the schema.
#[derive(Clone, Debug)]
pub struct Migration {
    /// The schema's version after it.
    pub version: SchemaVersion,
    /// The file's name without `.sql`.
    pub name: String,
    /// What it executes.
    pub sql: String,
    /// Of the file, lower-case hexadecimal.
    pub sha256: String,
}

/// The release cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    #[error("failed to read {path} of the release")]
    Read { path: PathBuf, source: io::Error },
    #[error("{file} is no migration: it should be named like 0001_journal.sql")]
    Name { file: String },
    #[error("migration {expected:04} is missing, the next found is {found:04}")]
    Gap { expected: SchemaVersion, found: SchemaVersion },
    #[error("the release in {folder} has no migrations")]
    Empty { folder: PathBuf },
}

impl Release {
    /// Reads the release in `folder`.
    pub fn read(folder: &Path) -> Result<Self, ReleaseError> {
        let version = read_text(&folder.join("VERSION"))?.trim().to_owned();
        let migrations = read_migrations(&folder.join("migrations"))?;
        if migrations.is_empty() {
            return Err(ReleaseError::Empty { folder: folder.to_owned() });
        }
        Ok(Self { version, migrations })
    }

    /// The schema that this release needs: that of its newest migration.
    pub fn needed_schema(&self) -> SchemaVersion {
        self.migrations.last().map_or(0, |migration| migration.version)
    }

    /// What this release does with signatures.
    pub fn signing(&self) -> Signing {
        if self.needed_schema() >= NOTES_ARE_SIGNED_FROM { Signing::Offered } else { Signing::Unknown }
    }
}

/// Whether a release knows of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// Notes can be signed, and are shown as signed or not.
    Offered,
    /// The release is older than signatures: it neither asks for nor shows them.
    Unknown,
}

fn read_migrations(folder: &Path) -> Result<Vec<Migration>, ReleaseError> {
    let failed = |source| ReleaseError::Read { path: folder.to_owned(), source };
    let mut migrations = fs::read_dir(folder)
        .map_err(failed)?
        .map(|entry| read_migration(&entry.map_err(failed)?.path()))
        .collect::<Result<Vec<_>, _>>()?;
    migrations.sort_by_key(|migration| migration.version);
    for (expected, migration) in (1..).zip(&migrations) {
        if migration.version != expected {
            return Err(ReleaseError::Gap { expected, found: migration.version });
        }
    }
    Ok(migrations)
}

fn read_migration(path: &Path) -> Result<Migration, ReleaseError> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (version, name) = parse_name(&file).ok_or_else(|| ReleaseError::Name { file: file.clone() })?;
    let sql = read_text(path)?;
    let sha256 = sha256(sql.as_bytes());
    Ok(Migration { version, name, sql, sha256 })
}

/// `0001_journal.sql` is `(1, "0001_journal")`.
fn parse_name(file: &str) -> Option<(SchemaVersion, String)> {
    let name = file.strip_suffix(".sql")?;
    let (number, words) = name.split_once('_')?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let well_formed = number.len() == 4 && !words.is_empty() && words.chars().all(plain);
    well_formed.then(|| Some((number.parse().ok()?, name.to_owned()))).flatten()
}

fn read_text(path: &Path) -> Result<String, ReleaseError> {
    fs::read_to_string(path).map_err(|source| ReleaseError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(number: u32) -> Release {
        Release::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("releases/{number}"))).unwrap()
    }

    #[test]
    fn every_release_needs_the_schema_of_its_own_number() {
        for number in 1..=3 {
            assert_eq!(shipped(number).needed_schema(), number as SchemaVersion);
        }
    }

    #[test]
    fn a_release_ships_the_migrations_of_the_releases_before_it_unchanged() {
        for number in 2..=3 {
            let (older, newer) = (shipped(number - 1), shipped(number));
            for (before, after) in older.migrations.iter().zip(&newer.migrations) {
                assert_eq!(before.sha256, after.sha256, "{}", before.name);
            }
        }
    }

    #[test]
    fn signatures_are_known_from_the_second_release_on() {
        assert_eq!(shipped(1).signing(), Signing::Unknown);
        assert_eq!(shipped(2).signing(), Signing::Offered);
    }

    #[test]
    fn a_file_that_is_not_named_like_a_migration_is_refused() {
        for name in ["1_journal.sql", "0001.sql", "0001_.sql", "0001_Journal.sql", "README.md"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
