//! Brings a backup back from its store onto empty volumes, and says whether it was what was committed.
//!
//! Input: the [run file](super::drill_file), the reader's credentials, an age identity. Output: the database where
//! `agent database run` finds it, attachments and the tenant's own object beside it, manifests for
//! [`judge`](mod@super::judge), and a [termination message](super::drill_words). It writes nothing to the store.
//!
//! # Guarantees
//! - Nothing is believed before it was verified: the commit by its signature, the manifest by the commit, the
//!   index by the manifest, and a segment by its size, version and digest before it is decrypted.
//! - The database has its name on the volume only when every check here has passed: until then it is "not whole".
//! - `pg_verifybackup` sees the files as they were in the backup, before any of them is changed.
//! - The first check that fails ends it. Those after it were not reached, and are not said to have passed.
//! - Segments are read once. Only when one fails to decrypt are all read again, without a key, so that it is known
//!   whether they are what was committed.
//! - Memory is the same for any size.

pub mod extract;
pub mod halves;
pub mod reasons;
pub mod tenant;
pub mod untar;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use clap::Args;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::Instant,
};
use tracing::{info, instrument, warn};
use valv_crds::{
    Slot,
    backup::ObjectDigest,
    drill::{Check, DrillReason, Phase, PhaseTime},
};

use self::extract::{Extracted, Rules};
use super::{
    drill_file,
    drill_words::{DrillWords, Failure, Restored, reason_of_store},
    durable::{self, FileError},
    programs::{self, Programs, Wal},
    pulse, run_file, store_access,
    verdicts::Verdicts,
    volume::{self, Volume},
};
use crate::{
    archive::{
        Archive, Progress, canonical,
        envelope::{KeyError, PublicKey},
        fetch::{self, FoundCommit},
        finding::Findings,
        layout::Part,
        manifest::Manifest,
        read::{self, SLICES_WAITING},
        recipients::{Identities, InvalidIdentity},
        slice::Slice,
        verify::{self, Depth},
    },
    error::chain,
};

/// The checks that are made here, in their order.
pub const CHECKS: [Check; 7] = [
    Check::CommitSignature,
    Check::Manifest,
    Check::Segments,
    Check::Recipients,
    Check::Decryption,
    Check::Tenant,
    Check::VerifyBackup,
];

/// What is left for whoever judges, in the volume's own folder for it.
pub const MANIFEST: &str = "manifest.json";
/// The manifest of the earlier backup.
pub const PREVIOUS_MANIFEST: &str = "previous-manifest.json";
/// Why that cannot be had: an [`Unreadable`].
pub const PREVIOUS_UNREADABLE: &str = "previous-unreadable.json";

/// The most segments that are fetched ahead. Two more are in memory, of 16 MiB each: with a fourth it would be more
/// than the 128 MiB that are promised.
const MOST_AHEAD: usize = 3;

/// What a base backup may bring along that makes a later server start as something else: a standby, or one that
/// recovers to another moment.
const FOREIGN_FILES: [&str; 4] = ["standby.signal", "recovery.signal", "recovery.conf", "recovery.done"];

/// What `valv agent restore` is told.
#[derive(Args, Clone, Debug)]
pub struct Restore {
    /// Which backup, from which store, to which volumes: YAML or JSON, written by the operator
    #[arg(long)]
    pub run: PathBuf,

    /// A folder with the reader's credentials: the files accessKeyID and secretAccessKey
    #[arg(long, value_name = "DIR")]
    pub store_credentials: PathBuf,

    /// A file with the age identity that opens the backup
    #[arg(long)]
    pub identity: PathBuf,

    /// A file with digests of what the tenant has now, to compare the backed-up tenant with. Absent: it is only looked
    /// at whether all is there
    #[arg(long, value_name = "FILE")]
    pub live: Option<PathBuf>,

    /// The folder of PostgreSQL's programs. Absent: where Debian and the official image keep those of the
    /// tenant's major
    #[arg(long)]
    pub programs: Option<PathBuf>,

    /// Where Kubernetes looks for the termination message
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// Why there are no verdicts on the backup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run file.
    #[error("failed to learn what to restore")]
    RunFile(#[source] run_file::Error),
    /// A key in it.
    #[error("failed to learn whose commits to believe")]
    TrustedKey(#[source] KeyError),
    /// What the tenant has now.
    #[error("failed to read what the tenant has now")]
    Live(#[source] FileError),
    /// It is nonsense.
    #[error("failed to understand what the tenant has now")]
    LiveContent(#[source] serde_json::Error),
    /// Nobody is trusted.
    #[error("the run file names no trusted key")]
    NobodyTrusted,
    /// The identity's file.
    #[error("failed to read the age identity; is the Secret mounted?")]
    IdentityFile(#[source] FileError),
    /// What is in it.
    #[error("failed to use the age identity")]
    Identity(#[source] InvalidIdentity),
    /// The store's credentials or settings.
    #[error("failed to prepare the store")]
    Store(#[source] store_access::Error),
    /// The archive cannot be read.
    #[error("failed to {doing}")]
    Read {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: Box<fetch::Error>,
    },
    /// A part cannot be brought back, for a reason that is not the backup's.
    #[error("failed to bring {part} back")]
    Part {
        /// Which.
        part: Part,
        /// Why.
        source: Box<read::Error>,
    },
    /// The volume of the database.
    #[error("failed to use the database volume")]
    Volume(#[source] volume::Error),
    /// There is a database on it already.
    #[error("there is a database on the volume {}: restore onto an empty one", path.display())]
    Occupied {
        /// Which volume.
        path: PathBuf,
    },
    /// Another folder.
    #[error("failed to prepare the volumes")]
    Folder(#[source] FileError),
    /// There is no place for attachments.
    #[error("the backup has attachments, and the run file names no volume for them")]
    NoAttachmentsVolume,
    /// What was backed up cannot be written to the volume.
    #[error("failed to write {part} to its volume")]
    Extract {
        /// Which.
        part: Part,
        /// Why.
        source: extract::Error,
    },
    /// The image's programs.
    #[error("failed to use PostgreSQL's programs")]
    Programs(#[source] programs::Error),
    /// A manifest cannot be written.
    #[error("failed to write a manifest")]
    Describe(#[source] crate::archive::canonical::Error),
    /// A thread of ours ended early.
    #[error("failed to finish the work on a volume")]
    Worker(#[source] tokio::task::JoinError),
    /// The pod was told to end.
    #[error("interrupted by the end of the pod; what is on the volumes is not whole")]
    Interrupted,
    /// The kernel refused a signal handler.
    #[error("failed to listen for the end of the pod")]
    Signal(#[source] io::Error),
}

impl Error {
    /// The reason that the drill's condition gets.
    pub fn reason(&self) -> DrillReason {
        let of_fetch = |error: &fetch::Error| match error {
            fetch::Error::Store(error) => reason_of_store(&error.kind),
            fetch::Error::Broken(_)
            | fetch::Error::Commit { .. }
            | fetch::Error::Manifest { .. }
            | fetch::Error::Worker { .. } => DrillReason::CannotRestore,
        };
        match self {
            Self::IdentityFile(_) | Self::Identity(_) => DrillReason::KeyMissing,
            Self::Store(_) => DrillReason::StoreUnavailable,
            Self::Read { source, .. } => of_fetch(source),
            Self::Part { source, .. } => {
                if let read::Error::Fetch { source, .. } = source.as_ref() {
                    of_fetch(source)
                } else {
                    DrillReason::CannotRestore
                }
            }
            Self::RunFile(_)
            | Self::TrustedKey(_)
            | Self::NobodyTrusted
            | Self::Live(_)
            | Self::LiveContent(_)
            | Self::Volume(_)
            | Self::Occupied { .. }
            | Self::Folder(_)
            | Self::NoAttachmentsVolume
            | Self::Extract { .. }
            | Self::Programs(_)
            | Self::Describe(_)
            | Self::Worker(_)
            | Self::Interrupted
            | Self::Signal(_) => DrillReason::CannotRestore,
        }
    }
}

/// Why the restore does not go on.
enum Stop {
    /// A verdict says why.
    Verdict,
    /// It says nothing of the backup.
    Failed(Error),
}

/// Restores the backup, unless the pod ends first.
pub async fn restore(restore: &Restore) -> Result<Restored, Error> {
    // From here on a SIGTERM ends nothing by itself, which as PID 1 it would not do anyway.
    let mut end = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    tokio::select! {
        restored = Box::pin(bring_back(restore)) => restored,
        _ = end.recv() => Err(Error::Interrupted),
    }
}

#[instrument(name = "restore", skip_all, fields(archive, backup.slot))]
async fn bring_back(arguments: &Restore) -> Result<Restored, Error> {
    let run = drill_file::Restore::read(&arguments.run).map_err(Error::RunFile)?;
    let span = tracing::Span::current();
    span.record("archive", run.archive.to_string()).record("backup.slot", run.slot.to_string());
    let mut course = Course::prepare(arguments, run).await?;
    match Box::pin(course.all()).await {
        Ok(()) | Err(Stop::Verdict) => Ok(course.end()),
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// A restore, as far as it has come.
struct Course {
    run: drill_file::Restore,
    trusted: Vec<PublicKey>,
    identities: Identities,
    archive: Archive,
    volume: Volume,
    programs: Programs,
    live: Option<tenant::Live>,
    verdicts: Verdicts,
    phases: Vec<PhaseTime>,
    progress: watch::Sender<Progress>,
    manifest: Option<ObjectDigest>,
    last_backup_end: Option<jiff::Timestamp>,
}

impl Course {
    /// Whatever can be refused before the store is asked.
    async fn prepare(arguments: &Restore, run: drill_file::Restore) -> Result<Self, Error> {
        let trusted: Result<Vec<_>, _> =
            run.trusted_keys.iter().map(|pem| PublicKey::from_pem(pem)).collect();
        let trusted = trusted.map_err(Error::TrustedKey)?;
        if trusted.is_empty() {
            return Err(Error::NobodyTrusted);
        }
        let identity = durable::read(&arguments.identity).map_err(Error::IdentityFile)?;
        let identities = Identities::parse(&SecretString::from(identity)).map_err(Error::Identity)?;
        let live = match &arguments.live {
            Some(path) => {
                let text = durable::read(path).map_err(Error::Live)?;
                Some(serde_json::from_str(&text).map_err(Error::LiveContent)?)
            }
            None => None,
        };
        let bucket = store_access::bucket(&run.store, &arguments.store_credentials).map_err(Error::Store)?;
        let options = fetch::Options { ahead: run.in_flight.min(MOST_AHEAD), retry: run.store.retry_rule() };
        let volume = Volume::take(&run.database_volume).map_err(Error::Volume)?;
        if volume.has_database().map_err(Error::Volume)? {
            return Err(Error::Occupied { path: run.database_volume });
        }
        let programs = Programs::of_major(run.major, arguments.programs.clone());
        let version = programs.version().await.map_err(Error::Programs)?;
        info!(programs.version = version, "begins to restore");
        Ok(Self {
            archive: Archive::new(bucket, options),
            run,
            trusted,
            identities,
            volume,
            programs,
            live,
            verdicts: Verdicts::begin(),
            phases: Vec::new(),
            progress: watch::Sender::default(),
            manifest: None,
            last_backup_end: None,
        })
    }

    fn end(self) -> Restored {
        Restored {
            verdicts: self.verdicts.finish(CHECKS.map(Check::verdict_name)),
            phases: self.phases,
            bytes: self.progress.borrow().bytes,
            manifest: self.manifest,
            last_backup_end: self.last_backup_end,
        }
    }

    /// All checks, one after the other.
    async fn all(&mut self) -> Result<(), Stop> {
        let started = Instant::now();
        let fetched = self.fetch_all().await;
        self.phases.push(PhaseTime { phase: Phase::Fetch, seconds: seconds_since(started) });
        let manifest = fetched?;

        let started = Instant::now();
        let verified = match self.verify_backup().await {
            Ok(()) => self.hand_over(&manifest).await,
            Err(stop) => Err(stop),
        };
        self.phases.push(PhaseTime { phase: Phase::Verify, seconds: seconds_since(started) });
        verified
    }

    async fn fetch_all(&mut self) -> Result<Manifest, Stop> {
        let FoundCommit { commit, covered, .. } = self.commit().await?;
        let named = &commit.manifest;
        self.manifest = Some(ObjectDigest {
            key: named.key.clone(),
            version: named.version.as_ref().map(|version| version.as_str().to_owned()),
            blake3: named.blake3.to_string(),
        });
        if covered.is_empty() {
            self.verdicts.passed(Check::CommitSignature);
        } else {
            self.tampered(Check::CommitSignature, &covered);
        }

        let manifest = match self.archive.manifest(named).await {
            Ok(manifest) => manifest,
            Err(error) => return Err(self.manifest_refused("read the manifest", error)),
        };
        if let Err(error) = self.archive.check_index(&manifest).await {
            return Err(self.manifest_refused("read the index", error));
        }
        if let Some(why) = unfit(&manifest, &self.run) {
            self.verdicts.failed(Check::Manifest, DrillReason::ManifestInvalid, why);
            return Err(Stop::Verdict);
        }
        self.last_backup_end = Some(manifest.ended);
        let over = verify::covering(&self.archive, &named.key, named.version.as_ref()).await;
        let mut covered = Findings::default();
        over.map_err(read_failed("look at the manifest"))?
            .into_iter()
            .for_each(|finding| covered.push(finding));
        let previous = self.previous().await?;
        self.leave(&manifest, &previous).map_err(Stop::Failed)?;
        if covered.is_empty() {
            self.verdicts.passed(Check::Manifest);
        } else {
            self.tampered(Check::Manifest, &covered);
        }

        let covered = self.look(&manifest).await?;
        self.read(&manifest, covered).await?;
        Ok(manifest)
    }

    async fn commit(&mut self) -> Result<FoundCommit, Stop> {
        match self.archive.commit(&self.run.archive, self.run.slot, &self.trusted).await {
            Ok(found) => Ok(found),
            Err(error) => match reasons::of_commit(&error) {
                Some(reason) => {
                    self.verdicts.failed(Check::CommitSignature, reason, chain(&error));
                    Err(Stop::Verdict)
                }
                None => Err(read_failed("read the commit")(error)),
            },
        }
    }

    fn manifest_refused(&mut self, doing: &'static str, error: fetch::Error) -> Stop {
        match reasons::of_manifest(&error) {
            Some(reason) => {
                self.verdicts.failed(Check::Manifest, reason, chain(&error));
                Stop::Verdict
            }
            None => read_failed(doing)(error),
        }
    }

    fn tampered(&mut self, check: Check, covered: &Findings) {
        let message = format!("the right version was read, and something lies over it: {covered}");
        warn!(objects = covered.total, first = %covered, "something lies over objects of the backup");
        self.verdicts.warned(check, DrillReason::Tampered, message);
    }

    /// The manifest of the earlier backup, if one is named. That it cannot be had is no flaw of this backup: whoever
    /// counts rows says it.
    async fn previous(&self) -> Result<Previous, Stop> {
        let Some(slot) = self.run.previous else { return Ok(Previous::None) };
        let (reason, error) = match self.commit_of(slot).await {
            Ok(found) => match self.archive.manifest(&found.commit.manifest).await {
                Ok(manifest) => return Ok(Previous::Read(Box::new(manifest))),
                // Retention deletes the commit first: where that is gone by now, nobody tampered.
                Err(error) => match self.commit_of(slot).await {
                    Err(gone) if reasons::of_commit(&gone) == Some(DrillReason::NoBackup) => {
                        (Some(DrillReason::NoBackup), gone)
                    }
                    _ => (reasons::of_manifest(&error), error),
                },
            },
            Err(error) => (reasons::of_commit(&error), error),
        };
        match reason {
            Some(reason) => Ok(Previous::Unreadable(Unreadable { reason, why: chain(&error) })),
            None => Err(read_failed("read the manifest of the backup before")(error)),
        }
    }

    async fn commit_of(&self, slot: Slot) -> Result<FoundCommit, fetch::Error> {
        self.archive.commit(&self.run.archive, slot, &self.trusted).await
    }

    /// Leaves the manifests for whoever judges the database.
    fn leave(&self, manifest: &Manifest, previous: &Previous) -> Result<(), Error> {
        let folder = self.volume.drill();
        durable::remove_folder_if_there(&folder).map_err(Error::Folder)?;
        make_folder(&folder)?;
        let put = |name: &str, bytes: Vec<u8>| {
            durable::write(&folder.join(name), bytes.as_slice(), 0o600).map_err(Error::Folder)
        };
        put(MANIFEST, manifest.to_bytes().map_err(Error::Describe)?)?;
        match previous {
            Previous::None => Ok(()),
            Previous::Read(previous) => put(PREVIOUS_MANIFEST, previous.to_bytes().map_err(Error::Describe)?),
            Previous::Unreadable(unreadable) => {
                put(PREVIOUS_UNREADABLE, canonical::to_vec(unreadable).map_err(Error::Describe)?)
            }
        }
    }

    /// Whether every segment is there in its version and size, and what lies over them. Nothing is read yet.
    async fn look(&mut self, manifest: &Manifest) -> Result<Findings, Stop> {
        let seen = self.verify(manifest, Depth::Metadata).await?;
        if seen.is_whole() {
            return Ok(seen.covered);
        }
        // It is lost already: time to find out how.
        Err(self.segments_failed(manifest).await)
    }

    async fn verify(&self, manifest: &Manifest, depth: Depth) -> Result<verify::Verdict, Stop> {
        let verdict = verify::verify(&self.archive, manifest, depth, &watch::Sender::default()).await;
        verdict.map_err(read_failed("look at the segments"))
    }

    /// Reads all segments without a key, and says what is wrong with them.
    async fn segments_failed(&mut self, manifest: &Manifest) -> Stop {
        let seen = match self.verify(manifest, Depth::Full).await {
            Ok(seen) => seen,
            Err(stop) => return stop,
        };
        let reason = seen
            .broken
            .first
            .first()
            .map_or(DrillReason::SegmentDiffers, |first| reasons::of_segment(&first.flaw));
        let message = if seen.broken.is_empty() {
            "a segment was not what was committed, and is when it is read again: the store is not to be relied on"
                .to_owned()
        } else {
            format!("of {} segments, {} are broken: {}", seen.segments, seen.broken.total, seen.broken)
        };
        self.verdicts.failed(Check::Segments, reason, message);
        Stop::Verdict
    }

    /// Reads, decrypts and extracts all parts.
    async fn read(&mut self, manifest: &Manifest, covered: Findings) -> Result<(), Stop> {
        let data = self.volume.unfinished();
        durable::remove_folder_if_there(&data).map_err(|error| Stop::Failed(Error::Folder(error)))?;
        make_folder(&data).map_err(Stop::Failed)?;
        let mut headers = Headers::default();
        for summary in &manifest.parts {
            let part = summary.name;
            let (target, rules) = match (part, &self.run.attachments_folder) {
                (Part::Database, _) => (data.clone(), Rules::Private),
                (Part::Attachments, Some(folder)) => (folder.clone(), Rules::Shared),
                (Part::Attachments, None) => return Err(Stop::Failed(Error::NoAttachmentsVolume)),
                (Part::Tenant, _) => (self.run.tenant_folder.clone(), Rules::Private),
            };
            let opened_before = self.progress.borrow().segments;
            match Box::pin(self.part(manifest, part, &target, rules)).await? {
                Ok(restored) => headers.add(&restored),
                Err(Broken::Read(error)) => {
                    let opened = self.progress.borrow().segments - opened_before;
                    return Err(self
                        .unreadable(manifest, covered, part, error, opened_before + opened)
                        .await);
                }
                Err(Broken::Stream(error)) => {
                    let why = format!("{part} decrypts, and cannot be extracted: {}", chain(&error));
                    self.conclude_segments(&covered);
                    self.recipients(manifest, &self.count(manifest).await?)?;
                    self.verdicts.failed(Check::Decryption, DrillReason::DecryptionFailed, why);
                    return Err(Stop::Verdict);
                }
            }
        }
        self.conclude_segments(&covered);
        self.recipients(manifest, &headers)?;
        self.verdicts.passed(Check::Decryption);
        match tenant::check(&self.run.tenant_folder, self.live.as_ref()) {
            Ok(differing) if differing.is_empty() => self.verdicts.passed(Check::Tenant),
            Ok(differing) => {
                let message = format!(
                    "changed since the backup, or backed up otherwise than it is: {}",
                    differing.join("; ")
                );
                self.verdicts.warned(Check::Tenant, DrillReason::TenantDiffers, message);
            }
            Err(error) => {
                self.verdicts.failed(Check::Tenant, DrillReason::TenantIncomplete, chain(&error));
                return Err(Stop::Verdict);
            }
        }
        Ok(())
    }

    /// Brings one part back into `target`.
    async fn part(
        &self,
        manifest: &Manifest,
        part: Part,
        target: &Path,
        rules: Rules,
    ) -> Result<Result<read::Restored, Broken>, Stop> {
        let (taker, coming) = mpsc::channel(SLICES_WAITING);
        let target = target.to_owned();
        let extracting = spawn_blocking(move || extract::extract(Slices::of(coming), &target, rules));
        let total_bytes = manifest.parts.iter().map(|part| part.plain_bytes).sum();
        let reading = read::slices(&self.archive, manifest, part, &self.identities, taker, &self.progress);
        let reading = pulse::with_lines(self.progress.subscribe(), total_bytes, pulse::stage_of, reading);
        let read = reading.await;
        // The stream has ended either way: nobody has more of it.
        let extracted = extracting.await.map_err(|error| Stop::Failed(Error::Worker(error)))?;
        match (read, extracted) {
            (Ok(restored), Ok(Extracted { files, left_out })) => {
                info!(part = %part, files, left_out, bytes = restored.plain_bytes, "brought a part back");
                Ok(Ok(restored))
            }
            // Whoever took the stream says why it took no more.
            (Ok(_) | Err(read::Error::Sink { .. }), Err(error)) if error.is_of_the_backup() => {
                Ok(Err(Broken::Stream(error)))
            }
            (Ok(_) | Err(read::Error::Sink { .. }), Err(source)) => {
                Err(Stop::Failed(Error::Extract { part, source }))
            }
            (Err(error), _) => Ok(Err(Broken::Read(error))),
        }
    }

    /// Says what of the backup cannot be read, and what of it is as it must be all the same.
    async fn unreadable(
        &mut self,
        manifest: &Manifest,
        covered: Findings,
        part: Part,
        error: read::Error,
        opened: u64,
    ) -> Stop {
        let Some((check, reason)) = reasons::of_read(&error, opened) else {
            return Stop::Failed(Error::Part { part, source: Box::new(error) });
        };
        if check == Check::Segments {
            return self.segments_failed(manifest).await;
        }
        let counted = match self.count(manifest).await {
            Ok(counted) => counted,
            Err(Stop::Verdict) => return self.segments_failed(manifest).await,
            Err(stop) => return stop,
        };
        self.conclude_segments(&covered);
        if let Err(stop) = self.recipients(manifest, &counted) {
            return stop;
        }
        self.verdicts.failed(check, reason, chain(&error));
        Stop::Verdict
    }

    /// The recipients in all headers. Reads every segment, without a key; [`Stop::Verdict`], and no verdict yet, if
    /// one is broken.
    async fn count(&self, manifest: &Manifest) -> Result<Headers, Stop> {
        let mut headers = Headers::default();
        for summary in &manifest.parts {
            match read::headers(&self.archive, manifest, summary.name).await {
                Ok(counted) => headers.add(&counted),
                Err(error) if reasons::of_read(&error, 0).is_some() => return Err(Stop::Verdict),
                Err(error) => {
                    let part = summary.name;
                    return Err(Stop::Failed(Error::Part { part, source: Box::new(error) }));
                }
            }
        }
        Ok(headers)
    }

    fn conclude_segments(&mut self, covered: &Findings) {
        if covered.is_empty() {
            self.verdicts.passed(Check::Segments);
        } else {
            self.tampered(Check::Segments, covered);
        }
    }

    fn recipients(&mut self, manifest: &Manifest, headers: &Headers) -> Result<(), Stop> {
        let stated = manifest.recipients.len();
        let asked = usize::try_from(self.run.recipients).unwrap_or(usize::MAX);
        // As many as the tenant had when it was backed up, as far as its object is back.
        let asked = tenant::recipients(&self.run.tenant_folder).unwrap_or_default().max(asked);
        let (fewest, most) = (headers.fewest.unwrap_or(0), headers.most.unwrap_or(0));
        let Some(reason) = reasons::of_recipients(fewest, most, stated, asked) else {
            self.verdicts.passed(Check::Recipients);
            return Ok(());
        };
        let message = format!(
            "the headers name {fewest} to {most} recipients, the manifest {stated}, and at least {asked} were asked for"
        );
        self.verdicts.failed(Check::Recipients, reason, message);
        Err(Stop::Verdict)
    }

    /// Whether the files are those of the base backup, as PostgreSQL's own program says. What was written is made
    /// lasting meanwhile.
    async fn verify_backup(&mut self) -> Result<(), Stop> {
        let data = self.volume.unfinished();
        let share = |source| Stop::Failed(Error::Folder(FileError::of("read", &data)(source)));
        let [first, second] = halves::of(&data).map_err(share)?;
        let (programs, volume) = (&self.programs, &self.volume);
        let (one, other, lasting) = tokio::join!(
            programs.verify_backup(volume, &data, &first, Wal::Verified),
            programs.verify_backup(volume, &data, &second, Wal::LeftOut),
            programs.sync(volume, &data)
        );
        match one.and(other) {
            Ok(()) => {
                lasting.map_err(|error| Stop::Failed(Error::Programs(error)))?;
                self.verdicts.passed(Check::VerifyBackup);
                Ok(())
            }
            Err(programs::Error::Failed { complaint, .. }) => {
                let message = format!("pg_verifybackup: {complaint}");
                self.verdicts.failed(Check::VerifyBackup, DrillReason::FilesDiffer, message);
                Err(Stop::Verdict)
            }
            Err(error) => Err(Stop::Failed(Error::Programs(error))),
        }
    }

    /// Makes the database one that starts as any other does, and gives it its name.
    async fn hand_over(&self, manifest: &Manifest) -> Result<(), Stop> {
        let data = self.volume.unfinished();
        let failed = |error| Stop::Failed(Error::Folder(error));
        for name in FOREIGN_FILES {
            durable::remove_if_there(&data.join(name)).map_err(failed)?;
        }
        // Where it was, somebody may have set what does not hold here: another server, a moment to recover to.
        let emptied = &b"# What was set here before the backup is not restored.\n"[..];
        durable::write(&data.join("postgresql.auto.conf"), emptied, 0o600).map_err(failed)?;
        self.programs
            .sync(&self.volume, &data)
            .await
            .map_err(|error| Stop::Failed(Error::Programs(error)))?;
        self.volume.finish().map_err(|error| Stop::Failed(Error::Volume(error)))?;
        info!(database.system_identifier = manifest.postgres.system_identifier, "the database is restored");
        Ok(())
    }
}

/// The earlier backup's manifest.
enum Previous {
    None,
    Read(Box<Manifest>),
    Unreadable(Unreadable),
}

/// Why the earlier backup's manifest cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// As a word.
    pub reason: DrillReason,
    /// As a sentence.
    pub why: String,
}

/// Why a part is not back, for a reason that may be the backup's.
enum Broken {
    Read(read::Error),
    Stream(extract::Error),
}

/// How many recipients the headers of all parts name.
#[derive(Clone, Copy, Debug, Default)]
struct Headers {
    fewest: Option<usize>,
    most: Option<usize>,
}

impl Headers {
    fn add(&mut self, restored: &read::Restored) {
        self.fewest = [self.fewest, restored.fewest_recipients].into_iter().flatten().min();
        self.most = self.most.max(restored.most_recipients);
    }
}

/// Why `manifest` is not one that this run restores.
fn unfit(manifest: &Manifest, run: &drill_file::Restore) -> Option<String> {
    for part in [Part::Database, Part::Tenant] {
        if manifest.part(part).is_none_or(|part| part.segments == 0) {
            return Some(format!("the manifest has no part {part}"));
        }
    }
    if manifest.attachments.is_some() != manifest.part(Part::Attachments).is_some() {
        return Some("the manifest has a part attachments, or an inventory of them, and not both".to_owned());
    }
    if manifest.parent.is_some() {
        return Some("the backup builds on another, and this Valv restores whole ones only".to_owned());
    }
    let major = manifest.postgres.version.split(|character: char| !character.is_ascii_digit()).next();
    if major != Some(run.major.to_string().as_str()) {
        let version = &manifest.postgres.version;
        return Some(format!("the backup is of PostgreSQL {version}, and the tenant runs {}", run.major));
    }
    None
}

fn read_failed(doing: &'static str) -> impl FnOnce(fetch::Error) -> Stop {
    move |source| Stop::Failed(Error::Read { doing, source: Box::new(source) })
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().mode(0o700).create(path).map_err(FileError::of("make", path)).map_err(Error::Folder)
}

fn seconds_since(started: Instant) -> i64 {
    i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX)
}

/// A stream that comes in slices, read on a thread of its own.
struct Slices {
    coming: mpsc::Receiver<Slice>,
    slice: Option<Slice>,
    taken: usize,
}

impl Slices {
    fn of(coming: mpsc::Receiver<Slice>) -> Self {
        Self { coming, slice: None, taken: 0 }
    }
}

impl io::BufRead for Slices {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.slice.as_ref().is_none_or(|slice| self.taken == slice.len()) {
            // Before the next comes: so that there is never one more in memory.
            self.slice = None;
            self.taken = 0;
            self.slice = self.coming.blocking_recv();
            if self.slice.is_none() {
                break;
            }
        }
        Ok(self.slice.as_ref().and_then(|slice| slice.get(self.taken..)).unwrap_or_default())
    }

    fn consume(&mut self, bytes: usize) {
        self.taken += bytes;
    }
}

impl io::Read for Slices {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = io::Read::read(&mut io::BufRead::fill_buf(self)?, buffer)?;
        io::BufRead::consume(self, read);
        Ok(read)
    }
}

/// Leaves the outcome where the operator reads it.
pub(super) fn report(restore: &Restore, outcome: &Result<Restored, Error>) {
    let words = match outcome {
        Ok(restored) => DrillWords::Restored(restored.clone()),
        Err(error) => DrillWords::Failure(Failure { reason: error.reason(), message: chain(error) }),
    };
    words.write(&restore.termination_log);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::archive::slice::Slices as Memory;

    #[test]
    fn a_store_that_refuses_is_told_apart_from_one_that_is_away_and_from_what_is_no_store() {
        use crate::io::bucket::{self, Kind, Operation};
        let of = |kind| fetch::Error::Store(bucket::Error::for_tests(Operation::Get, kind));
        let reading = |kind| Error::Read { doing: "read the manifest", source: Box::new(of(kind)) }.reason();
        let bringing = |kind| {
            let source = read::Error::Fetch { part: Part::Database, source: of(kind) };
            Error::Part { part: Part::Database, source: Box::new(source) }.reason()
        };

        assert_eq!(reading(Kind::Denied), DrillReason::CredentialsRefused);
        assert_eq!(bringing(Kind::Tls), DrillReason::TlsRefused);
        assert_eq!(bringing(Kind::ClockSkew), DrillReason::ClockSkewed);
        assert_eq!(bringing(Kind::Timeout), DrillReason::StoreUnavailable);
        let source = Box::new(read::Error::NoPart { part: Part::Database });
        assert_eq!(Error::Part { part: Part::Database, source }.reason(), DrillReason::CannotRestore);
    }

    #[test]
    fn slices_are_one_stream() {
        let (taker, coming) = mpsc::channel(8);
        let slices = Memory::new();
        for bytes in [&b"a jour"[..], b"", b"nal", b"'s"] {
            let mut slice = slices.take();
            slice.room().extend_from_slice(bytes);
            taker.try_send(slice).unwrap();
        }
        drop(taker);
        let (mut start, mut rest) = ([0; 8], String::new());
        let mut stream = Slices::of(coming);

        stream.read_exact(&mut start).unwrap();
        stream.read_to_string(&mut rest).unwrap();

        assert_eq!((&start[..], rest.as_str()), (&b"a journa"[..], "l's"));
        assert_eq!(stream.read(&mut start).unwrap(), 0);
    }
}
