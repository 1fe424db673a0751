//! The run files of a drill: what is restored, and what it is judged by, as the operator tells the agent.
//!
//! The operator writes them (YAML or JSON, in an object that the Jobs mount), `agent restore` and `agent judge`
//! read one each. They hold no secret: credentials and the age identity are in files of their own.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use valv_crds::{Slot, policy::RowCounts};

use super::{
    durable,
    run_file::{Error, MOST_IN_FLIGHT, Store},
};
use crate::archive::layout::ArchiveId;

/// The fewest recipients that a backup has, whatever anybody asks for: with one key lost, another opens it.
pub const FEWEST_RECIPIENTS: u32 = 2;

/// The longest that one question may take, in seconds: an hour.
pub const LONGEST_QUESTION_SECONDS: u32 = 3600;

/// One restore: of what, from where, to where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Restore {
    /// Whose archive.
    pub archive: ArchiveId,
    /// The backup.
    pub slot: Slot,
    /// Where it lies. Its lock, rate and digest settings are for writers: they are not looked at.
    pub store: Store,
    /// Whose signature on a commit is believed: Ed25519 public keys, PEM.
    pub trusted_keys: Vec<String>,
    /// For how many recipients it must be encrypted at least: [`FEWEST_RECIPIENTS`] or more.
    #[serde(default = "fewest_recipients")]
    pub recipients: u32,
    /// The earlier backup whose row counts this one's are compared with; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Slot>,
    /// The volume of the new database: empty, and where `agent database run` finds it later.
    pub database_volume: PathBuf,
    /// The volume of the attachments: empty; absent: the tenant has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments_folder: Option<PathBuf>,
    /// An empty folder for the tenant's object and its Secrets.
    pub tenant_folder: PathBuf,
    /// Segments that are fetched at the same time: 1 to [`MOST_IN_FLIGHT`].
    #[serde(default = "default_in_flight")]
    pub in_flight: usize,
    /// The tenant's PostgreSQL major, whose programs verify the files.
    pub major: u16,
}

/// An earlier backup, with whose row counts those of the restored one are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Earlier {
    /// Its slot.
    pub slot: Slot,
    /// Why it is that one.
    pub because: Because,
    /// Better ones, whose commits cannot be believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unbelieved: Vec<Slot>,
}

/// Why an earlier backup is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Because {
    /// It is the newest before that a drill found good.
    FoundGood,
    /// No drill found one good that is still there, and it is the oldest.
    OldestKept,
}

impl Earlier {
    /// In words, to go on after "compared with".
    pub fn words(&self) -> String {
        match self.because {
            Because::FoundGood => format!("{}, the newest before it that a drill found good", self.slot),
            Because::OldestKept => {
                format!("{}, the oldest that is kept: no drill found one before it good", self.slot)
            }
        }
    }
}

/// One judgement: of what, by what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Judge {
    /// The volume of the restored database, with the manifests that `agent restore` left on it.
    pub database_volume: PathBuf,
    /// The volume of the restored attachments, which is only read; absent: the tenant has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments_folder: Option<PathBuf>,
    /// The tenant's database on the server.
    pub database: String,
    /// Who owns the journal's tables: as its unqualified names resolve for this role, so they do in questions.
    /// Absent or unknown in the restored database: as for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal_role: Option<String>,
    /// The journal's query for its attachments: rows of a path below the folder, and its SHA-256 in hexadecimal.
    /// Absent: it has none, and nobody can say which there should be.
    #[serde(default, rename = "inventorySQL", skip_serializing_if = "Option::is_none")]
    pub inventory_sql: Option<String>,
    /// How long that query may keep the database busy: 1 to [`LONGEST_QUESTION_SECONDS`]. What its attachments take to
    /// be read is no part of it.
    #[serde(default = "default_inventory_timeout")]
    pub inventory_timeout_seconds: u32,
    /// The earlier backup whose manifest the restore was told to leave; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Earlier>,
    /// How far row counts may differ.
    #[serde(default)]
    pub row_counts: RowCounts,
    /// The policy's own questions.
    #[serde(default)]
    pub checks: Vec<Question>,
    /// The tenant's PostgreSQL major.
    pub major: u16,
}

/// A question to the restored database: one query with one row of one boolean, which must be true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// Its name, which is also in its verdict.
    pub name: String,
    /// The query.
    pub sql: String,
    /// How long it may take: 1 to [`LONGEST_QUESTION_SECONDS`].
    pub timeout_seconds: u32,
}

impl Restore {
    /// Reads the run file at `path`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let run: Self = parse(path)?;
        within("recipients", run.recipients.into(), FEWEST_RECIPIENTS.into(), i64::from(u32::MAX))?;
        let in_flight = i64::try_from(run.in_flight).unwrap_or(i64::MAX);
        within("inFlight", in_flight, 1, MOST_IN_FLIGHT as i64)?;
        Ok(run)
    }

    /// As the operator writes it.
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        serde_yaml::to_string(self)
    }
}

impl Judge {
    /// Reads the run file at `path`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let run: Self = parse(path)?;
        let limit = run.inventory_timeout_seconds.into();
        within("inventoryTimeoutSeconds", limit, 1, LONGEST_QUESTION_SECONDS.into())?;
        for Question { timeout_seconds, .. } in &run.checks {
            within("timeoutSeconds", (*timeout_seconds).into(), 1, LONGEST_QUESTION_SECONDS.into())?;
        }
        Ok(run)
    }

    /// As the operator writes it.
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        serde_yaml::to_string(self)
    }
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = durable::read(path).map_err(Error::Read)?;
    serde_yaml::from_str(&text).map_err(|source| Error::Understand { path: path.to_owned(), source })
}

fn within(name: &'static str, found: i64, least: i64, most: i64) -> Result<(), Error> {
    if (least..=most).contains(&found) { Ok(()) } else { Err(Error::Bounds { name, found, least, most }) }
}

const fn fewest_recipients() -> u32 {
    FEWEST_RECIPIENTS
}

/// A thousand rows take a millisecond: after so long it is not slow, but stuck.
pub const fn default_inventory_timeout() -> u32 {
    600
}

const fn default_in_flight() -> usize {
    3
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the operator writes it.
    const RESTORE: &str = r"
archive: ada
slot: 20261122T010000Z
store:
  name: helsinki
  endpoint: https://store.example
  bucket: valv
  region: fi-hel2
  timeouts: { connect: 5, attempt: 60, stall: 20 }
  retry: { perRequest: 5, perRun: 200 }
trustedKeys: ['-----BEGIN PUBLIC KEY-----']
recipients: 3
previous: 20261121T010000Z
databaseVolume: /valv/database
attachmentsFolder: /valv/attachments
tenantFolder: /valv/tenant
inFlight: 3
major: 17
";

    /// As the operator writes it.
    const JUDGE: &str = r"
databaseVolume: /valv/database
attachmentsFolder: /valv/attachments
database: journal
journalRole: journal_app_a
inventorySQL: SELECT path, sha256 FROM attachment
rowCounts: { tolerance: 0%, mayFallBy: 1% }
checks: [{ name: no-future-notes, sql: SELECT true, timeoutSeconds: 30 }]
major: 17
";

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.yaml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn restore(text: &str) -> Result<Restore, Error> {
        let (_folder, path) = file(text);
        Restore::read(&path)
    }

    fn judge(text: &str) -> Result<Judge, Error> {
        let (_folder, path) = file(text);
        Judge::read(&path)
    }

    #[test]
    fn a_run_file_reads_as_it_was_written_as_yaml_and_as_json() {
        let run = restore(RESTORE).unwrap();
        assert_eq!(restore(&run.to_yaml().unwrap()).unwrap(), run);
        assert_eq!(restore(&serde_json::to_string(&run).unwrap()).unwrap(), run);
        assert_eq!((run.recipients, run.in_flight, run.major), (3, 3, 17));

        let run = judge(JUDGE).unwrap();
        assert_eq!(judge(&run.to_yaml().unwrap()).unwrap(), run);
        assert_eq!(judge(&serde_json::to_string(&run).unwrap()).unwrap(), run);
        assert_eq!(run.inventory_sql.as_deref(), Some("SELECT path, sha256 FROM attachment"));
    }

    #[test]
    fn a_field_that_nobody_knows_is_refused() {
        let forced = RESTORE.replace("major: 17", "major: 17\nforce: true");
        assert!(matches!(restore(&forced), Err(Error::Understand { .. })));
        assert!(matches!(judge(&JUDGE.replace("major: 17", "minor: 1")), Err(Error::Understand { .. })));
    }

    #[test]
    fn one_recipient_is_never_enough_and_a_question_has_a_limit() {
        for (from, to) in [("recipients: 3", "recipients: 1"), ("inFlight: 3", "inFlight: 9")] {
            assert!(matches!(restore(&RESTORE.replace(from, to)), Err(Error::Bounds { .. })), "{to}");
        }
        for seconds in ["0", "3601"] {
            let endless = JUDGE.replace("timeoutSeconds: 30", &format!("timeoutSeconds: {seconds}"));
            assert!(matches!(judge(&endless), Err(Error::Bounds { .. })), "{seconds}");
        }
    }

    #[test]
    fn what_need_not_be_said_has_the_values_of_a_careful_operator() {
        let short: String = RESTORE
            .lines()
            .filter(|line| !line.starts_with("recipients") && !line.starts_with("inFlight"))
            .map(|line| format!("{line}\n"))
            .collect();

        assert_eq!(restore(&short).unwrap().recipients, FEWEST_RECIPIENTS);
    }
}
