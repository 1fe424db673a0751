//! Reads a backup back, without a key: whether what the manifest names is in the store, as it names it.
//!
//! Input: the run file (for the store only), the reader's credentials, the manifest's key and digest. Output:
//! log lines and a [termination message](super::last_words). It writes nothing anywhere.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::Args;
use jiff::Timestamp;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::{info, instrument, warn};
use valv_crds::backup::{BackupReason, Stage};

use super::{
    backup::reason_of_store,
    last_words::{Failure, LastWords, Verified},
    pulse,
    run_file::{self, Run},
    store_access,
};
use crate::{
    archive::{
        Archive,
        commit::ManifestRef,
        digest::Blake3,
        fetch,
        finding::{Finding, Flaw},
        manifest::Manifest,
        progress::Progress,
        verify::{self, MOST_SAMPLED, Verdict},
    },
    error::chain,
    io::bucket::{self, Kind, Version},
};

/// What `valv agent verify` is told.
#[derive(Args, Clone, Debug)]
pub struct Verify {
    /// Which backup and which store: YAML or JSON, written by the operator
    #[arg(long)]
    pub run: PathBuf,

    /// A folder with the reader's credentials: the files accessKeyID and secretAccessKey
    #[arg(long, value_name = "DIR")]
    pub store_credentials: PathBuf,

    /// The manifest's key, below the store's prefix
    #[arg(long, value_name = "KEY")]
    pub manifest: String,

    /// The manifest's version. Absent: the store has none
    #[arg(long = "version", id = "object-version", value_name = "VERSION")]
    pub version: Option<String>,

    /// The manifest's BLAKE3
    #[arg(long, value_name = "HEX")]
    pub blake3: Blake3,

    /// How much is read: `full`, `sample:N` (N segments drawn by chance) or `metadata`
    #[arg(long, default_value = "full")]
    pub depth: Depth,

    /// What a sample is drawn with. Absent: chance
    #[arg(long)]
    pub seed: Option<u32>,

    /// Where Kubernetes looks for the termination message
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every segment.
    Full,
    /// So many, drawn by chance.
    Sample(u64),
    /// None.
    Metadata,
}

/// The text is no depth.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not full, sample:N with N from 1 to {MOST_SAMPLED}, or metadata")]
pub struct InvalidDepth(String);

impl fmt::Display for Depth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => formatter.write_str("full"),
            Self::Sample(segments) => write!(formatter, "sample:{segments}"),
            Self::Metadata => formatter.write_str("metadata"),
        }
    }
}

impl FromStr for Depth {
    type Err = InvalidDepth;

    fn from_str(text: &str) -> Result<Self, InvalidDepth> {
        let sample = |text: &str| text.strip_prefix("sample:")?.parse().ok();
        match text {
            "full" => Ok(Self::Full),
            "metadata" => Ok(Self::Metadata),
            text => match sample(text) {
                Some(segments @ 1..=MOST_SAMPLED) => Ok(Self::Sample(segments)),
                _ => Err(InvalidDepth(text.to_owned())),
            },
        }
    }
}

impl Depth {
    pub(super) fn with(self, seed: u32) -> verify::Depth {
        match self {
            Self::Full => verify::Depth::Full,
            Self::Sample(segments) => verify::Depth::Sample { segments, seed },
            Self::Metadata => verify::Depth::Metadata,
        }
    }
}

/// Why a backup is not verified.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run file.
    #[error("failed to learn what to verify")]
    RunFile(#[source] run_file::Error),
    /// The store's credentials or settings.
    #[error("failed to prepare the store")]
    Store(#[source] store_access::Error),
    /// The manifest cannot be looked at.
    #[error("failed to look at the manifest")]
    Look(#[source] bucket::Error),
    /// The manifest.
    #[error("failed to read the manifest")]
    Manifest(#[source] fetch::Error),
    /// The manifest is of another backup.
    #[error("the manifest {key} is of another backup than the run file")]
    Foreign {
        /// Its key.
        key: String,
    },
    /// The store does not let us look.
    #[error("failed to read the backup back")]
    Read(#[source] fetch::Error),
    /// Something is lost or altered.
    #[error("{total} objects of the backup are not what the manifest says, the first of them")]
    Broken {
        /// How many.
        total: u64,
        /// The first.
        #[source]
        first: Finding,
    },
    /// Not all segments could be looked at.
    #[error("{seen} of {segments} segments could be looked at")]
    Unseen {
        /// How many were.
        seen: u64,
        /// How many there are.
        segments: u64,
    },
    /// The pod was told to end.
    #[error("interrupted by the end of the pod; nothing was changed")]
    Interrupted,
    /// The kernel refused a signal handler.
    #[error("failed to listen for the end of the pod")]
    Signal(#[source] std::io::Error),
}

impl Error {
    /// The reason that the condition gets.
    pub fn reason(&self) -> BackupReason {
        match self {
            Self::RunFile(_) | Self::Store(_) | Self::Interrupted | Self::Signal(_) => {
                BackupReason::AgentFailed
            }
            Self::Look(error) if error.kind == Kind::NotFound => BackupReason::ManifestMissing,
            Self::Look(error)
            | Self::Manifest(fetch::Error::Store(error))
            | Self::Read(fetch::Error::Store(error)) => reason_of_store(&error.kind),
            Self::Manifest(fetch::Error::Broken(Finding { flaw: Flaw::Missing, .. })) => {
                BackupReason::ManifestMissing
            }
            Self::Manifest(_) | Self::Foreign { .. } => BackupReason::ManifestInvalid,
            Self::Broken { first: Finding { flaw: Flaw::Missing, .. }, .. } | Self::Unseen { .. } => {
                BackupReason::SegmentMissing
            }
            Self::Broken { .. } => BackupReason::SegmentDiffers,
            Self::Read(_) => BackupReason::AgentFailed,
        }
    }
}

/// Verifies the backup, unless the pod ends first.
pub async fn verify(verify: &Verify, now: fn() -> Timestamp) -> Result<Verified, Error> {
    let mut end = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    tokio::select! {
        verified = Box::pin(read_back(verify, now)) => verified,
        _ = end.recv() => Err(Error::Interrupted),
    }
}

#[instrument(name = "verify", skip_all, fields(object.key = arguments.manifest))]
async fn read_back(arguments: &Verify, now: fn() -> Timestamp) -> Result<Verified, Error> {
    let run = Run::read(&arguments.run).map_err(Error::RunFile)?;
    let bucket = store_access::bucket(&run.store, &arguments.store_credentials).map_err(Error::Store)?;
    let options = fetch::Options { retry: run.store.retry_rule(), ..fetch::Options::default() };
    let archive = Archive::new(bucket, options);
    let (manifest, locked_until) = manifest(arguments, &archive).await?;
    if (&manifest.archive, manifest.slot) != (&run.archive, run.slot) {
        return Err(Error::Foreign { key: arguments.manifest.clone() });
    }

    let depth = arguments.depth.with(arguments.seed.unwrap_or_else(rand::random));
    let progress = watch::Sender::default();
    let total_bytes = manifest.parts.iter().map(|part| part.plain_bytes).sum();
    let stage = |_: &Progress| Stage::ReadingBack;
    let looking = verify::verify(&archive, &manifest, depth, &progress);
    let looking = pulse::with_lines(progress.subscribe(), total_bytes, stage, looking);
    let mut verdict = looking.await.map_err(Error::Read)?;
    verdict.lock = verdict.lock.and(locked_until);
    judge(verdict, depth.seed(), now())
}

/// The manifest, if it is the one that was named, and until when it is locked. Its size is the store's word, and the digest
/// proves it.
async fn manifest(arguments: &Verify, archive: &Archive) -> Result<(Manifest, Option<Timestamp>), Error> {
    let version = arguments.version.as_deref().filter(|version| !version.is_empty()).map(Version::new);
    let key = arguments.manifest.clone();
    let meta = archive.meta_of(&key, version.as_ref()).await.map_err(Error::Look)?;
    let locked_until = archive.lock_of(&key, version.as_ref(), &meta).await.map_err(Error::Look)?;
    let named = ManifestRef { key, version, size: meta.size_bytes, blake3: arguments.blake3 };
    Ok((archive.manifest(&named).await.map_err(Error::Manifest)?, locked_until))
}

fn judge(verdict: Verdict, seed: Option<u32>, at: Timestamp) -> Result<Verified, Error> {
    if verdict.broken.total > 0 {
        warn!(objects = verdict.broken.total, "the backup is broken");
    }
    let whole = verdict.is_whole();
    let Verdict { mode, segments, segments_seen, segments_read, broken, covered, lock, .. } = verdict;
    for finding in &covered.first {
        warn!(object.key = finding.key, flaw = %finding.flaw, "something lies over an object of the backup");
    }
    if let Some(first) = broken.first.into_iter().next() {
        return Err(Error::Broken { total: broken.total, first });
    }
    if !whole {
        return Err(Error::Unseen { seen: segments_seen, segments });
    }
    info!(?mode, segments, segments_read, tampered = covered.total, "the backup is what its manifest says");
    let (tampered, locked_until) = (covered.total, lock.until());
    Ok(Verified { mode, seed, segments_read, segments, at, tampered, locked_until })
}

/// Leaves the outcome where the operator reads it.
pub(super) fn report(verify: &Verify, outcome: &Result<Verified, Error>) {
    let words = match outcome {
        Ok(verified) => LastWords::Verified { verified: verified.clone() },
        Err(error) => {
            LastWords::Failed { failure: Failure { reason: error.reason(), message: chain(error) } }
        }
    };
    words.write(&verify.termination_log);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{
        finding::Findings,
        verify::{Lock, Mode},
    };

    fn verdict() -> Verdict {
        Verdict {
            mode: Mode::Full,
            segments: 3,
            segments_seen: 3,
            segments_read: 3,
            bytes_read: 100,
            broken: Findings::default(),
            covered: Findings::default(),
            lock: Lock::Unseen,
        }
    }

    fn at() -> Timestamp {
        "2026-11-22T01:09:00Z".parse().unwrap()
    }

    fn finding(flaw: Flaw) -> Finding {
        Finding { key: "v1/ada/data/0.age".into(), flaw }
    }

    #[test]
    fn a_depth_reads_as_documented() {
        assert_eq!("full".parse(), Ok(Depth::Full));
        assert_eq!("sample:25".parse(), Ok(Depth::Sample(25)));
        assert_eq!("metadata".parse(), Ok(Depth::Metadata));
        for text in ["", "Full", "sample", "sample:", "sample:0", "sample:-1", "sample:10001"] {
            assert!(text.parse::<Depth>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_lies_over_a_backup_is_counted_and_is_no_failure() {
        let mut covered = verdict();
        covered.covered.push(finding(Flaw::Hidden));

        let verified = judge(covered, None, at()).unwrap();

        assert_eq!((verified.segments_read, verified.tampered), (3, 1));
    }

    #[test]
    fn until_when_all_is_locked_is_told_and_nothing_where_one_object_is_not() {
        let locked = Verdict { lock: Lock::Until(at()), ..verdict() };
        let unlocked = Verdict { lock: Lock::None, ..verdict() };

        assert_eq!(judge(locked, None, at()).unwrap().locked_until, Some(at()));
        assert_eq!(judge(unlocked, None, at()).unwrap().locked_until, None);
    }

    #[test]
    fn what_is_lost_and_what_is_altered_have_reasons_of_their_own() {
        let found = Blake3::of(b"");
        for (flaw, reason) in [
            (Flaw::Missing, BackupReason::SegmentMissing),
            (Flaw::Size { expected: 1, found: 2 }, BackupReason::SegmentDiffers),
            (Flaw::Altered { expected: found, found }, BackupReason::SegmentDiffers),
        ] {
            let mut broken = verdict();
            broken.broken.push(finding(flaw));

            assert_eq!(judge(broken, None, at()).unwrap_err().reason(), reason);
        }
        let unseen = Verdict { segments_seen: 2, ..verdict() };
        assert_eq!(judge(unseen, None, at()).unwrap_err().reason(), BackupReason::SegmentMissing);
    }
}
