//! Copies a committed backup to another store, and reads the copy back: ciphertext only, without a key.
//!
//! Input: the order (which backup, from where, to where), the source's reader, the target's writer and reader. Output:
//! log lines and a termination message, see [`LastWords`]. It runs in the operator's namespace, where the credentials
//! lie; nothing is written to a disk.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::{info, instrument, warn};
use valv_crds::{Slot, backup::BackupReason};

use super::{
    backup::reason_of_store,
    last_words::{Failure, Verified},
    pulse, run_file, store_access,
    termination::{LIMIT_BYTES, cut_to_fit},
    verify::Depth,
};
use crate::{
    archive::{
        Archive,
        commit::ManifestRef,
        copy::{self, Copied, Copier},
        fetch,
        finding::{Finding, Flaw},
        layout::{ArchiveId, DataObject, Key},
        progress::Progress,
        verify::{self, Verdict},
    },
    error::chain,
};

/// Segments that are copied at the same time: with one more, 64 MiB.
const IN_FLIGHT: usize = 3;

/// What its log lines say that it does. In no status: how a copy stands is the condition `Copied`.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Copying,
    ReadingBack,
}

/// What `valv agent copy` is told.
#[derive(Args, Clone, Debug)]
pub struct Copy {
    /// Which backup, from where, to where: JSON, written by the operator
    #[arg(long, value_name = "JSON")]
    pub order: Order,

    /// A folder with the credentials of the source's reader: the files accessKeyID and secretAccessKey
    #[arg(long, value_name = "DIR")]
    pub source_reader: PathBuf,

    /// A folder with the credentials of the target's reader
    #[arg(long, value_name = "DIR")]
    pub target_reader: PathBuf,

    /// A folder with the credentials of the target's writer
    #[arg(long, value_name = "DIR")]
    pub target_writer: PathBuf,

    /// How much of the copy is read back: `full`, `sample:N` or `metadata`
    #[arg(long, default_value = "sample:8")]
    pub depth: Depth,

    /// Where Kubernetes looks for the termination message
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// Which backup, from where, to where. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Whose archive.
    pub archive: ArchiveId,
    /// Which backup.
    pub slot: Slot,
    /// Its manifest in the source.
    pub manifest: ManifestRef,
    /// Where it is read.
    pub source: run_file::Store,
    /// Where it goes.
    pub target: run_file::Store,
}

/// The text is no order.
#[derive(Clone, Debug, thiserror::Error)]
#[error("failed to understand the order; is the agent as new as the operator? {0}")]
pub struct InvalidOrder(String);

impl FromStr for Order {
    type Err = InvalidOrder;

    fn from_str(text: &str) -> Result<Self, InvalidOrder> {
        serde_json::from_str(text).map_err(|error| InvalidOrder(error.to_string()))
    }
}

impl Order {
    /// As an argument of a container.
    ///
    /// # Shape
    /// JSON without a dollar sign: Kubernetes would put its own values where an argument says `$(NAME)`.
    pub fn to_argument(&self) -> String {
        serde_json::to_string(self).unwrap_or_default().replace('$', "\\u0024")
    }
}

/// What a termination message says. A claim: the operator reads the copy's manifest and index itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LastWords {
    /// It is there, and was read back.
    Copied(Arrived),
    /// It failed.
    Failure(Failed),
}

/// How it failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// Why.
    #[serde(flatten)]
    pub failure: Failure,
    /// The store that did not answer: one of two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered: Option<String>,
}

/// A copy that is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arrived {
    /// Its manifest, in the target.
    pub manifest: ManifestRef,
    /// Segments that were sent; the others were there from an earlier try.
    pub sent: u64,
    /// Until when all of it is locked; `None`: nothing is.
    pub locked_until: Option<Timestamp>,
    /// How it was read back.
    pub verified: Verified,
}

/// Why a backup is not copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Credentials or settings of a store.
    #[error("failed to prepare the store {store}")]
    Store {
        /// Which store.
        store: String,
        /// Why not.
        source: store_access::Error,
    },
    /// It could not be copied.
    #[error("failed to copy from {from} to {to}")]
    Copy {
        /// From where.
        from: String,
        /// To where.
        to: String,
        /// Why not.
        source: Box<copy::Error>,
    },
    /// The manifest is of another backup than the order.
    #[error("the manifest {key} is of another backup than the order")]
    Foreign {
        /// Its key.
        key: String,
    },
    /// The target does not let us read the copy back.
    #[error("failed to read the copy back")]
    ReadBack(#[source] fetch::Error),
    /// The copy is not what was sent.
    #[error("{total} objects of the copy are not what was sent, the first of them")]
    Broken {
        /// How many.
        total: u64,
        /// The first.
        #[source]
        first: Finding,
    },
    /// Not all segments could be looked at.
    #[error("{seen} of {segments} segments of the copy could be looked at")]
    Unseen {
        /// How many were.
        seen: u64,
        /// How many there are.
        segments: u64,
    },
    /// The pod was told to end.
    #[error("interrupted by the end of the pod; what is in the target is found by the next try")]
    Interrupted,
    /// The kernel refused a signal handler.
    #[error("failed to listen for the end of the pod")]
    Signal(#[source] std::io::Error),
}

impl Error {
    /// The reason that the condition gets.
    pub fn reason(&self) -> BackupReason {
        let of_fetch = |error: &fetch::Error| match error {
            fetch::Error::Store(error) => reason_of_store(&error.kind),
            fetch::Error::Broken(Finding { flaw: Flaw::Missing, .. }) => BackupReason::SegmentMissing,
            fetch::Error::Broken(_) => BackupReason::SegmentDiffers,
            fetch::Error::Commit { .. } => BackupReason::SignatureInvalid,
            fetch::Error::Manifest { .. } => BackupReason::ManifestInvalid,
            fetch::Error::Worker { .. } => BackupReason::AgentFailed,
        };
        match self {
            Self::Copy { source, .. } => match source.as_ref() {
                copy::Error::Source(error) | copy::Error::Look(error) => of_fetch(error),
                copy::Error::Store(error) => reason_of_store(&error.kind),
                copy::Error::Describe(_) => BackupReason::AgentFailed,
            },
            Self::ReadBack(error) => of_fetch(error),
            Self::Foreign { .. } => BackupReason::ManifestInvalid,
            Self::Broken { first: Finding { flaw: Flaw::Missing, .. }, .. } | Self::Unseen { .. } => {
                BackupReason::SegmentMissing
            }
            Self::Broken { .. } => BackupReason::SegmentDiffers,
            Self::Store { .. } | Self::Interrupted | Self::Signal(_) => BackupReason::AgentFailed,
        }
    }

    /// Which of the stores of `order` did not answer, if that was it.
    fn unanswered(&self, order: &Order) -> Option<String> {
        let (error, store) = match self {
            Self::Copy { source, .. } => match source.as_ref() {
                copy::Error::Source(fetch::Error::Store(error)) => (error, &order.source),
                copy::Error::Look(fetch::Error::Store(error)) | copy::Error::Store(error) => {
                    (error, &order.target)
                }
                copy::Error::Source(_) | copy::Error::Look(_) | copy::Error::Describe(_) => return None,
            },
            Self::ReadBack(fetch::Error::Store(error)) => (error, &order.target),
            Self::ReadBack(_)
            | Self::Store { .. }
            | Self::Foreign { .. }
            | Self::Broken { .. }
            | Self::Unseen { .. }
            | Self::Interrupted
            | Self::Signal(_) => return None,
        };
        error.is_of_the_store().then(|| store.name.clone())
    }
}

/// Copies the backup, unless the pod ends first.
///
/// # Errors
/// What was put by then is named by no manifest that anybody commits.
pub async fn copy(copy: &Copy, now: fn() -> Timestamp) -> Result<Arrived, Error> {
    let mut end = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    tokio::select! {
        arrived = Box::pin(run(copy, now)) => arrived,
        _ = end.recv() => Err(Error::Interrupted),
    }
}

#[instrument(name = "copy", skip_all, fields(
    archive = %arguments.order.archive,
    slot = %arguments.order.slot,
    store = arguments.order.target.name,
))]
async fn run(arguments: &Copy, now: fn() -> Timestamp) -> Result<Arrived, Error> {
    let Order { archive, slot, manifest, source, target } = &arguments.order;

    match manifest.key.parse() {
        Ok(Key::Data { folder, object: DataObject::Manifest })
            if folder.archive == *archive && folder.slot == *slot => {}
        Ok(_) | Err(_) => return Err(Error::Foreign { key: manifest.key.clone() }),
    }
    let open = |store: &run_file::Store, folder| {
        store_access::bucket(store, folder)
            .map_err(|source| Error::Store { store: store.name.clone(), source })
    };
    let reading = |store: &run_file::Store, folder, ahead| {
        let options = fetch::Options { ahead, retry: store.retry_rule() };
        Ok::<_, Error>(Archive::new(open(store, folder)?, options))
    };
    let from = reading(source, &arguments.source_reader, IN_FLIGHT.saturating_sub(1))?;
    let to = reading(target, &arguments.target_reader, 1)?;
    let writer = open(target, &arguments.target_writer)?;
    let options = copy::Options {
        in_flight: IN_FLIGHT,
        retain_until: target.lock.map(|lock| lock.until(now())),
        lock_mode: target.lock.map(run_file::Lock::bucket_mode).unwrap_or_default(),
        bytes_per_second: target.bytes_per_second,
        retry: target.retry_rule(),
    };
    let copier = Copier::new(from, to.clone(), writer, options);
    let progress = watch::Sender::default();
    let stage = |_: &Progress| Doing::Copying;
    let copied = pulse::with_lines(progress.subscribe(), 0, stage, copier.copy(manifest, &progress));
    let copied = copied.await.map_err(|error| Error::Copy {
        from: source.name.clone(),
        to: target.name.clone(),
        source: Box::new(error),
    })?;
    // Its buffers are not needed any more.
    drop(copier);
    let Copied { named, manifest, sent, locked_until } = copied;
    info!(segments = manifest.segments(), sent, "copied; the copy is read back");
    let depth = arguments.depth.with(rand::random());
    let progress = watch::Sender::default();
    let stage = |_: &Progress| Doing::ReadingBack;
    let looking = verify::verify(&to, &manifest, depth, &progress);
    let looking = pulse::with_lines(progress.subscribe(), 0, stage, looking);
    let verified = judge(looking.await.map_err(Error::ReadBack)?, depth.seed(), now())?;
    Ok(Arrived { manifest: named, sent, locked_until, verified })
}

fn judge(verdict: Verdict, seed: Option<u32>, at: Timestamp) -> Result<Verified, Error> {
    let whole = verdict.is_whole();
    let Verdict { mode, segments, segments_seen, segments_read, broken, covered, lock, .. } = verdict;
    for finding in &covered.first {
        warn!(object.key = finding.key, flaw = %finding.flaw, "something lies over an object of the copy");
    }
    if let Some(first) = broken.first.into_iter().next() {
        return Err(Error::Broken { total: broken.total, first });
    }
    if !whole {
        return Err(Error::Unseen { seen: segments_seen, segments });
    }
    let (tampered, locked_until) = (covered.total, lock.until());
    Ok(Verified { mode, seed, segments_read, segments, at, tampered, locked_until })
}

/// Leaves the outcome where the operator reads it.
pub(super) fn report(copy: &Copy, outcome: &Result<Arrived, Error>) {
    let encode = |words: &LastWords| serde_json::to_string(words).unwrap_or_default();
    let text = match outcome {
        Ok(arrived) => encode(&LastWords::Copied(arrived.clone())),
        Err(error) => cut_to_fit(chain(error), |message| {
            let failure = Failure { reason: error.reason(), message: message.to_owned() };
            encode(&LastWords::Failure(Failed { failure, unanswered: error.unanswered(&copy.order) }))
        }),
    };
    debug_assert!(text.len() <= LIMIT_BYTES, "{} bytes", text.len());
    if let Err(error) = std::fs::write(&copy.termination_log, text) {
        warn!(error = chain(&error), "failed to write the termination message");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{archive::digest::Blake3, io::bucket};

    fn order() -> Order {
        let run: run_file::Run = serde_yaml::from_str(run_file::tests::RUN).unwrap();
        Order {
            archive: run.archive,
            slot: run.slot,
            manifest: ManifestRef {
                key: "v1/ada/data/x/manifest.json".into(),
                version: Some(crate::io::bucket::Version::new("$(POD_UID)")),
                size: 2,
                blake3: Blake3::of(b"{}"),
            },
            source: run.store.clone(),
            target: run_file::Store { name: "frankfurt".into(), ..run.store },
        }
    }

    #[test]
    fn an_order_reads_as_it_was_written_and_has_nothing_that_kubernetes_would_replace() {
        let argument = order().to_argument();

        assert!(!argument.contains('$'), "{argument}");
        assert_eq!(argument.parse::<Order>().unwrap(), order());
    }

    #[test]
    fn last_words_read_as_they_were_written() {
        let failure = Failure { reason: BackupReason::StoreFull, message: "failed to store".into() };
        let failed = LastWords::Failure(Failed { failure: failure.clone(), unanswered: None });
        let text = serde_json::to_string(&failed).unwrap();

        assert_eq!(text, r#"{"failure":{"reason":"StoreFull","message":"failed to store"}}"#);
        assert_eq!(serde_json::from_str::<LastWords>(&text).unwrap(), failed);
        let away = LastWords::Failure(Failed { failure, unanswered: Some("helsinki".into()) });
        let text = serde_json::to_string(&away).unwrap();
        assert_eq!(serde_json::from_str::<LastWords>(&text).unwrap(), away);
    }

    #[test]
    fn the_store_is_named_that_did_not_answer_and_none_that_did() {
        let copying = |source: copy::Error| Error::Copy {
            from: "helsinki".into(),
            to: "frankfurt".into(),
            source: Box::new(source),
        };
        let store = |kind| bucket::Error::for_tests(bucket::Operation::Get, kind);
        let reading = |kind| copying(copy::Error::Source(fetch::Error::Store(store(kind))));
        let of = |error: Error| error.unanswered(&order());

        let source = order().source.name;
        assert_eq!(of(reading(bucket::Kind::Timeout)), Some(source), "the source, and not the target");
        assert_eq!(of(copying(copy::Error::Store(store(bucket::Kind::Tls)))).as_deref(), Some("frankfurt"));
        let read_back = Error::ReadBack(fetch::Error::Store(store(bucket::Kind::Unavailable)));
        assert_eq!(of(read_back).as_deref(), Some("frankfurt"));
        for kind in [bucket::Kind::ClockSkew, bucket::Kind::Denied, bucket::Kind::NotFound] {
            assert_eq!(of(reading(kind.clone())), None, "{kind:?} is an answer");
        }
    }
}
