//! The run file: what one backup is, as the operator tells the agent.
//!
//! The operator writes it (YAML or JSON, in an object that the Job mounts), `agent backup` and `agent verify`
//! read it. It holds no secret: credentials and passwords are in files of their own.

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroU64,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use valv_crds::{
    Slot,
    store::{Addressing, LockMode},
};

use super::durable::{self, FileError};
use crate::{
    archive::{
        layout::{ArchiveId, Attempt, Folder},
        retry::RetryRule,
        segment::ContentMd5,
        write,
    },
    io::bucket::{self, AnsweredVersions, Credentials, Patience, Trust},
};

/// The most segments that are put at the same time: five buffers of 16 MiB, of the 128 MiB that a run may take.
pub const MOST_IN_FLIGHT: usize = 4;

/// zstd's levels that are taken: above them it takes more memory than a run has.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=12;

/// One backup: what of, where to, for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Run {
    /// Whose archive.
    pub archive: ArchiveId,
    /// For which moment.
    pub slot: Slot,
    /// Where to.
    pub store: Store,
    /// For whom it is encrypted: `age1…`, at least two.
    pub recipients: Vec<String>,
    /// What is written into the database before, and must be in it after a restore.
    pub sentinel: Nonce,
    /// The database.
    pub database: Database,
    /// The journal's attachments; absent: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Attachments>,
    /// The folder with the tenant's object and its Secrets; absent: the backup has no part `tenant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_folder: Option<PathBuf>,
    /// The images that ran, by container, for the manifest.
    #[serde(default)]
    pub images: BTreeMap<String, String>,
    /// zstd's level: one of [`LEVELS`].
    #[serde(default = "default_level")]
    pub compression_level: i32,
    /// Segments that are put at the same time: 1 to [`MOST_IN_FLIGHT`].
    #[serde(default = "default_in_flight")]
    pub in_flight: usize,
}

/// A store, as the agent speaks to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Store {
    /// Name of the `BackupStore`.
    pub name: String,
    /// `https://host[:port]`.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// Folder in it; absent: the bucket itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The region's name in signatures.
    pub region: String,
    /// Where a request names the bucket.
    #[serde(default)]
    pub addressing: Addressing,
    /// Authorities of its certificate, PEM; absent: those of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// Proxy on the way there; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// How long a request may take.
    pub timeouts: Timeouts,
    /// How often a request is tried again.
    pub retry: Retry,
    /// Whether what it answers of versions is heeded; absent: it is.
    #[serde(default, skip_serializing_if = "AnsweredVersions::are_heeded")]
    pub answered_versions: AnsweredVersions,
    /// The most bytes of ciphertext a second; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<NonZeroU64>,
    /// The lock that each object gets; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
}

/// Limits of one request, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeouts {
    /// For a connection.
    pub connect: u32,
    /// In which too little moved.
    pub attempt: u32,
    /// Without a byte. Part of `attempt`, which is what the agent heeds.
    pub stall: u32,
}

/// How often a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// Retries of one request.
    pub per_request: u32,
    /// Retries that a run may be ahead of its successes.
    pub per_run: u32,
}

/// The lock of each object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    /// Who may lift it.
    pub mode: LockMode,
    /// For how many days.
    pub days: u32,
}

/// The tenant's database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Database {
    /// Its host, as its certificate names it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The tenant's database on that server.
    pub name: String,
    /// Who signs the server's certificate: a PEM file.
    pub ca_file: PathBuf,
    /// Who takes the base backup and writes the sentinel: `journal_replication`.
    pub replication_user: String,
    /// Who counts rows: `journal_check`.
    pub check_user: String,
}

/// The journal's attachments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attachments {
    /// Where their volume is mounted.
    pub folder: PathBuf,
}

/// A number drawn for one backup: 32 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce(String);

/// The text is not a nonce.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not 32 lower-case hexadecimal digits")]
pub struct InvalidNonce(String);

impl Nonce {
    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Nonce {
    type Err = InvalidNonce;

    fn from_str(text: &str) -> Result<Self, InvalidNonce> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let valid = text.len() == 32 && text.bytes().all(is_digit);
        valid.then(|| Self(text.to_owned())).ok_or_else(|| InvalidNonce(text.to_owned()))
    }
}

impl TryFrom<String> for Nonce {
    type Error = InvalidNonce;

    fn try_from(text: String) -> Result<Self, InvalidNonce> {
        text.parse()
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> Self {
        nonce.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The run file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("failed to read the run file; is it mounted?")]
    Read(#[source] FileError),
    /// It is not what the operator writes.
    #[error("failed to understand the run file {}; is the agent as new as the operator?", path.display())]
    Understand {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: serde_yaml::Error,
    },
    /// A number is out of its bounds.
    #[error("the run file has {name}: {found}, and it is between {least} and {most}")]
    Bounds {
        /// Which number.
        name: &'static str,
        /// What it is.
        found: i64,
        /// The least.
        least: i64,
        /// The most.
        most: i64,
    },
}

impl Run {
    /// Reads the run file at `path`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = durable::read(path).map_err(Error::Read)?;
        let run: Self = serde_yaml::from_str(&text)
            .map_err(|source| Error::Understand { path: path.to_owned(), source })?;
        let in_flight = i64::try_from(run.in_flight).unwrap_or(i64::MAX);
        within("inFlight", in_flight, 1, MOST_IN_FLIGHT as i64)?;
        within(
            "compressionLevel",
            run.compression_level.into(),
            (*LEVELS.start()).into(),
            (*LEVELS.end()).into(),
        )?;
        Ok(run)
    }

    /// As the operator writes it.
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        serde_yaml::to_string(self)
    }

    /// The folder that `attempt` writes into.
    pub fn folder(&self, attempt: Attempt) -> Folder {
        Folder { archive: self.archive.clone(), slot: self.slot, attempt }
    }

    /// How segments are written by a run that begins at `now`.
    pub fn write_options(&self, now: Timestamp) -> write::Options {
        write::Options {
            level: self.compression_level,
            in_flight: self.in_flight,
            // S3 wants it with what is locked.
            content_md5: if self.store.lock.is_some() { ContentMd5::Computed } else { ContentMd5::Omitted },
            retain_until: self.store.lock.map(|lock| lock.until(now)),
            lock_mode: self.store.lock.map(Lock::bucket_mode).unwrap_or_default(),
            bytes_per_second: self.store.bytes_per_second,
            retry: self.store.retry_rule(),
            ..write::Options::default()
        }
    }
}

impl Store {
    /// The bucket, as `credentials`.
    pub fn settings(&self, credentials: Credentials) -> bucket::Settings {
        bucket::Settings {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone().unwrap_or_default(),
            addressing: match self.addressing {
                Addressing::Path => bucket::Addressing::Path,
                Addressing::Virtual => bucket::Addressing::VirtualHost,
            },
            credentials,
            trust: self.ca_bundle.clone().map_or(Trust::System, Trust::Only),
            proxy: self.proxy.clone(),
            patience: Patience {
                connect: Duration::from_secs(self.timeouts.connect.max(1).into()),
                window: Duration::from_secs(self.timeouts.attempt.max(1).into()),
                ..Patience::default()
            },
            answered_versions: self.answered_versions,
        }
    }

    /// When a request is tried again.
    pub fn retry_rule(&self) -> RetryRule {
        RetryRule {
            tries: self.retry.per_request.saturating_add(1),
            budget: self.retry.per_run,
            ..RetryRule::default()
        }
    }
}

impl Lock {
    /// Until when what is put by a run that begins at `now` is locked.
    pub fn until(self, now: Timestamp) -> Timestamp {
        let span = SignedDuration::from_hours(24 * i64::from(self.days));
        now.saturating_add(span).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn bucket_mode(self) -> bucket::LockMode {
        match self.mode {
            LockMode::Compliance => bucket::LockMode::Compliance,
            LockMode::Governance => bucket::LockMode::Governance,
        }
    }
}

fn within(name: &'static str, found: i64, least: i64, most: i64) -> Result<(), Error> {
    if (least..=most).contains(&found) { Ok(()) } else { Err(Error::Bounds { name, found, least, most }) }
}

const fn default_level() -> i32 {
    write::LEVEL
}

const fn default_in_flight() -> usize {
    3
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run file as the operator writes it.
    pub const RUN: &str = r#"
archive: ada
slot: 20261122T010000Z
store:
  name: helsinki
  endpoint: https://store.example
  bucket: valv
  prefix: backups
  region: fi-hel2
  addressing: Path
  timeouts: { connect: 5, attempt: 60, stall: 20 }
  retry: { perRequest: 5, perRun: 200 }
  bytesPerSecond: 1048576
  lock: { mode: Governance, days: 30 }
recipients: [age1a, age1b]
sentinel: 00112233445566778899aabbccddeeff
database:
  host: database.journal-ada.svc
  port: 5432
  name: journal
  caFile: /etc/valv/authorities/ca.crt
  replicationUser: journal_replication
  checkUser: journal_check
attachments: { folder: /valv/attachments }
tenantFolder: /valv/tenant
images: { agent: "registry.example/valv@sha256:00" }
compressionLevel: 3
inFlight: 3
"#;

    fn read(text: &str) -> Result<Run, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.yaml");
        std::fs::write(&path, text).unwrap();
        Run::read(&path)
    }

    #[test]
    fn a_run_file_reads_as_it_was_written_as_yaml_and_as_json() {
        let run = read(RUN).unwrap();

        assert_eq!(read(&run.to_yaml().unwrap()).unwrap(), run);
        assert_eq!(read(&serde_json::to_string(&run).unwrap()).unwrap(), run);
        assert_eq!(run.attachments.unwrap().folder, Path::new("/valv/attachments"));
    }

    #[test]
    fn a_field_that_nobody_knows_is_refused() {
        let error = read(&RUN.replace("inFlight: 3", "inFlight: 3\nparent: null")).unwrap_err();

        assert!(matches!(error, Error::Understand { .. }), "{error:?}");
    }

    #[test]
    fn what_would_take_too_much_memory_is_refused() {
        for (from, to) in
            [("inFlight: 3", "inFlight: 9"), ("Level: 3", "Level: 22"), ("Flight: 3", "Flight: 0")]
        {
            assert!(matches!(read(&RUN.replace(from, to)), Err(Error::Bounds { .. })), "{to}");
        }
    }

    #[test]
    fn each_object_is_locked_from_the_beginning_of_the_run() {
        let options = read(RUN).unwrap().write_options("2026-11-22T01:00:03Z".parse().unwrap());

        assert_eq!(options.retain_until, Some("2026-12-22T01:00:03Z".parse().unwrap()));
        assert_eq!(options.lock_mode, bucket::LockMode::Governance);
        assert_eq!(options.content_md5, ContentMd5::Computed);
        assert_eq!((options.retry.tries, options.retry.budget), (6, 200));
    }

    #[test]
    fn a_nonce_is_32_digits_and_nothing_else() {
        assert!("00112233445566778899aabbccddeeff".parse::<Nonce>().is_ok());
        for text in ["", "00112233445566778899AABBCCDDEEFF", "00112233445566778899aabbccddeef'"] {
            assert!(text.parse::<Nonce>().is_err(), "{text}");
        }
    }
}
