//! Starts a restored database for nobody but itself, and judges it.
//!
//! Input: the [run file](super::drill_file), the volumes and manifests that [`restore`](mod@super::restore) left.
//! Output: a [termination message](super::drill_words). It has no network, no key and no store. On the volume it
//! changes what a server changes that starts, and takes away again what it made to ask.
//!
//! # Guarantees
//! - All verdicts are told: one that failed does not hide the next. Only of a database that does not start nothing
//!   can be asked.
//! - What the tenant or the policy wrote runs as a role that is no superuser and may only read.
//! - No message has a datum in it: not what a row holds, not what a query was answered with, no attachment's name.
//! - The server is stopped cleanly, so that any other can start on the volume after it.

pub mod attachments;
pub mod copy;
pub mod questions;
pub mod rows;

use std::{io, path::PathBuf, process::Stdio, time::Duration};

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
    time::Instant,
};
use tokio_postgres::error::SqlState;
use tracing::{info, instrument, warn};
use valv_crds::drill::{Check, DrillReason, Outcome, Phase, PhaseTime};

use self::copy::Copy;
use super::{
    backup::{row_counts, tree},
    drill_file::{self, Earlier},
    drill_words::{DrillWords, Failure, Judged, LastCommitFrom},
    durable::{self, FileError},
    programs::{self, Programs},
    restore::{self, Unreadable},
    run_file,
    verdicts::Verdicts,
    volume::{self, Volume},
};
use crate::{
    archive::manifest::{InvalidManifest, Manifest},
    error::chain,
};

/// The checks that are made here, in their order. `Sql` has one verdict a question.
pub const CHECKS: [Check; 5] =
    [Check::DatabaseStarts, Check::Sentinel, Check::RowCounts, Check::Amcheck, Check::Attachments];

/// The clock of a database, and that of the agent that took the backup, differ by no more.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);

/// Where the extension that looks for damage is made, where the tenant has it not.
const AMCHECK_SCHEMA: &str = "valv_drill_amcheck";

/// What `valv agent judge` is told.
#[derive(Args, Clone, Debug)]
pub struct Judge {
    /// What to judge, and by what: YAML or JSON, written by the operator
    #[arg(long)]
    pub run: PathBuf,

    /// The folder of PostgreSQL's programs. Absent: where Debian and the official image keep those of the
    /// tenant's major
    #[arg(long)]
    pub programs: Option<PathBuf>,

    /// A folder that only this container sees, for the server's socket
    #[arg(long, default_value = "/tmp")]
    pub scratch: PathBuf,

    /// Where Kubernetes looks for the termination message
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// Why there are no verdicts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run file.
    #[error("failed to learn what to judge")]
    RunFile(#[source] run_file::Error),
    /// The volume.
    #[error("failed to use the database volume")]
    Volume(#[source] volume::Error),
    /// Nothing was restored.
    #[error("there is no database on the volume {}: `valv agent restore` puts it there", path.display())]
    NoDatabase {
        /// Which volume.
        path: PathBuf,
    },
    /// A manifest's file.
    #[error("failed to read a manifest that the restore left")]
    ManifestFile(#[source] FileError),
    /// What is in it.
    #[error("failed to understand a manifest that the restore left")]
    Manifest(#[source] InvalidManifest),
    /// Why another manifest could not be left.
    #[error("failed to understand what the restore left of the earlier backup")]
    Unreadable(#[source] serde_json::Error),
    /// The image's programs.
    #[error("failed to use PostgreSQL's programs")]
    Programs(#[source] programs::Error),
    /// The restored copy cannot be asked, or not be put away.
    #[error("failed to ask the restored database")]
    Copy(#[source] copy::Error),
    /// The attachments cannot be read.
    #[error("failed to read the attachments")]
    Attachments(#[source] tree::Error),
    /// The pod was told to end.
    #[error("interrupted by the end of the pod")]
    Interrupted,
    /// The kernel refused a signal handler.
    #[error("failed to listen for the end of the pod")]
    Signal(#[source] io::Error),
}

impl Error {
    /// The reason that the drill's condition gets.
    pub fn reason(&self) -> DrillReason {
        DrillReason::CannotRestore
    }
}

/// Judges the copy, unless the pod ends first.
pub async fn judge(judge: &Judge) -> Result<Judged, Error> {
    // From here on a SIGTERM ends nothing by itself, which as PID 1 it would not do anyway.
    let mut end = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    tokio::select! {
        judged = Box::pin(look(judge)) => judged,
        _ = end.recv() => Err(Error::Interrupted),
    }
}

#[instrument(name = "judge", skip_all)]
async fn look(arguments: &Judge) -> Result<Judged, Error> {
    let run = drill_file::Judge::read(&arguments.run).map_err(Error::RunFile)?;
    let volume = Volume::take(&run.database_volume).map_err(Error::Volume)?;
    if !volume.has_database().map_err(Error::Volume)? {
        return Err(Error::NoDatabase { path: run.database_volume });
    }
    let manifest = manifest(&volume, restore::MANIFEST)?;
    let is_left = |name: &str| volume.drill().join(name).exists();
    let previous = match is_left(restore::PREVIOUS_MANIFEST) {
        true => Some(self::manifest(&volume, restore::PREVIOUS_MANIFEST)?),
        false => None,
    };
    let unreadable = match is_left(restore::PREVIOUS_UNREADABLE) {
        true => Some(unreadable(&volume)?),
        false => None,
    };
    let programs = Programs::of_major(run.major, arguments.programs.clone());
    programs.version().await.map_err(Error::Programs)?;
    volume.tidy().map_err(Error::Volume)?;

    let mut case = Case {
        run,
        programs,
        manifest,
        previous,
        unreadable,
        replayed: None,
        verdicts: Verdicts::begin(),
        judged: Judged::default(),
    };
    let postgres = &case.manifest.postgres;
    case.replayed = case
        .programs
        .newest_commit(&volume.data(), postgres.timeline, &postgres.start_lsn)
        .await
        .map_err(Error::Programs)?;

    let started = Instant::now();
    let copy = Copy::start(&case.programs, &volume, &arguments.scratch, &case.run.database).await;
    case.phase(Phase::Recover, started);
    match copy {
        Ok((copy, committed)) => {
            case.verdicts.passed(Check::DatabaseStarts);
            let started = Instant::now();
            let asked = Box::pin(case.ask(copy, committed)).await;
            case.phase(Phase::Check, started);
            match asked {
                Ok(()) => {}
                // What was found by then is told: a page that is broken can end the server, and with it the next question.
                Err(error) if case.verdicts.has_failed() => {
                    warn!(error = chain(&error), "failed to ask on, after something was found");
                }
                Err(error) => return Err(error),
            }
        }
        Err(error) => {
            let message = format!("PostgreSQL did not start, or not become consistent: {}", chain(&error));
            case.verdicts.failed(Check::DatabaseStarts, DrillReason::DatabaseFailed, message);
        }
    }
    Ok(case.end())
}

fn manifest(volume: &Volume, name: &str) -> Result<Manifest, Error> {
    let text = durable::read(&volume.drill().join(name)).map_err(Error::ManifestFile)?;
    Manifest::parse(text.as_bytes()).map_err(Error::Manifest)
}

fn unreadable(volume: &Volume) -> Result<Unreadable, Error> {
    let text =
        durable::read(&volume.drill().join(restore::PREVIOUS_UNREADABLE)).map_err(Error::ManifestFile)?;
    serde_json::from_str(&text).map_err(Error::Unreadable)
}

/// What is judged, and what was found so far.
struct Case {
    run: drill_file::Judge,
    programs: Programs,
    manifest: Manifest,
    previous: Option<Manifest>,
    /// Why there is no `previous` though there was to be.
    unreadable: Option<Unreadable>,
    /// The newest transaction in the WAL that is replayed.
    replayed: Option<Timestamp>,
    verdicts: Verdicts,
    judged: Judged,
}

impl Case {
    fn phase(&mut self, phase: Phase, started: Instant) {
        let seconds = i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
        self.judged.phases.push(PhaseTime { phase, seconds });
    }

    fn end(self) -> Judged {
        let own = self.run.checks.iter().map(|question| Check::sql_verdict_name(&question.name));
        let names: Vec<_> = CHECKS.map(Check::verdict_name).into_iter().chain(own).collect();
        Judged { verdicts: self.verdicts.finish(names), ..self.judged }
    }

    /// Asks everything, and stops the server.
    async fn ask(&mut self, mut copy: Copy, committed: Option<Timestamp>) -> Result<(), Error> {
        let asked = self.ask_all(&mut copy, committed).await;
        let ended = copy.end().await.map_err(Error::Copy);
        asked.and(ended)
    }

    async fn ask_all(&mut self, copy: &mut Copy, committed: Option<Timestamp>) -> Result<(), Error> {
        copy.make_reader(self.run.journal_role.as_deref()).await.map_err(Error::Copy)?;
        let sentinel_written = self.sentinel(copy).await?;
        self.last_commit(copy, committed, sentinel_written);
        self.row_counts(copy).await?;
        self.amcheck(copy).await?;
        self.attachments(copy).await?;
        for question in self.run.checks.clone() {
            let mut reader = copy.reader().await.map_err(Error::Copy)?;
            let (outcome, reason, message) = match questions::ask(&mut reader, &question).await {
                Ok(()) => (Outcome::Passed, DrillReason::AsAsked, None),
                Err(refusal) => (Outcome::Failed, refusal.reason, Some(refusal.message)),
            };
            info!(check = question.name, ?outcome, ?reason, "asked a question of the policy");
            self.verdicts.push(Check::sql_verdict_name(&question.name), outcome, reason, message);
        }
        Ok(())
    }

    /// Whether the newest nonce is that of this backup; when it was written.
    async fn sentinel(&mut self, copy: &Copy) -> Result<Option<Timestamp>, Error> {
        const ALL: &str = "SELECT nonce, slot, written FROM valv.sentinel";
        let reader = copy.reader().await.map_err(Error::Copy)?;
        let rows = match reader.query(ALL, &[]).await {
            Ok(rows) => rows,
            Err(error)
                if error.code().is_some_and(|code| {
                    [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME, SqlState::UNDEFINED_COLUMN]
                        .contains(code)
                }) =>
            {
                vec![]
            }
            Err(source) => {
                return Err(Error::Copy(copy::Error::Sql { doing: "ask for the sentinel", source }));
            }
        };
        let read = |row: &tokio_postgres::Row| {
            Ok(Nonce { nonce: row.try_get(0)?, slot: row.try_get(1)?, written: copy::timestamp(row, 2)? })
        };
        let nonces: Result<Vec<Nonce>, tokio_postgres::Error> = rows.iter().map(read).collect();
        let nonces =
            nonces.map_err(|source| Error::Copy(copy::Error::Sql { doing: "read the sentinel", source }))?;
        let (own, flaw) = sentinel(&nonces, &self.manifest);
        match flaw {
            None => self.verdicts.passed(Check::Sentinel),
            Some((reason, message)) => self.verdicts.failed(Check::Sentinel, reason, message),
        }
        Ok(own)
    }

    /// The newest transaction, by what is known best.
    fn last_commit(&mut self, copy: &Copy, committed: Option<Timestamp>, sentinel: Option<Timestamp>) {
        let known = [
            (committed, LastCommitFrom::CommitTimestamps),
            (self.replayed.max(copy.last_replayed()), LastCommitFrom::Replay),
            (sentinel, LastCommitFrom::Sentinel),
            (Some(self.manifest.started), LastCommitFrom::Manifest),
        ];
        // A database whose clock is ahead would show that nothing is lost.
        let latest = self.manifest.ended.saturating_add(CLOCKS_DIFFER).unwrap_or(Timestamp::MAX);
        let known = known.into_iter().filter_map(|(at, from)| Some((at?, from)));
        let first = known.into_iter().find(|(at, _)| *at <= latest);
        (self.judged.last_commit, self.judged.last_commit_from) = first.unzip();
    }

    async fn row_counts(&mut self, copy: &Copy) -> Result<(), Error> {
        let mut reader = copy.reader().await.map_err(Error::Copy)?;
        let found = match row_counts::count(&mut reader).await {
            Ok(found) => found.rows,
            // A table that cannot be read to its end is damaged.
            Err(row_counts::Error::Count { table, source }) => {
                let message = format!("the rows of {table} cannot be counted: {}", questions::cause(&source));
                self.verdicts.failed(Check::RowCounts, DrillReason::RowCountsDiffer, message);
                return Ok(());
            }
            Err(row_counts::Error::List(source)) => {
                return Err(Error::Copy(copy::Error::Sql { doing: "list the tables", source }));
            }
        };
        let previous = self.previous.as_ref().map(|previous| &previous.row_counts);
        let (outcome, reason, message) =
            match rows::judge(&found, &self.manifest.row_counts, previous, self.run.row_counts) {
                Some((reason, message)) => {
                    let with = self.previous.as_ref().map(|previous| self.compared_with(previous));
                    let with = with.filter(|_| reason == DrillReason::RowCountsFell);
                    let with = with.map(|with| format!("; compared with {with}")).unwrap_or_default();
                    (Outcome::Failed, reason, format!("{message}{with}"))
                }
                None => self.compared(),
            };
        self.verdicts.push(Check::RowCounts.verdict_name(), outcome, reason, Some(message));
        Ok(())
    }

    /// With what row counts that did not differ were compared. An earlier backup that cannot be read is not none: whoever
    /// makes it unreadable must not turn the comparison off unseen.
    fn compared(&self) -> (Outcome, DrillReason, String) {
        let as_taken = "as when the backup was taken";
        if let Some(Unreadable { reason, why }) = &self.unreadable {
            let slot = self.run.earlier.as_ref().map(|earlier| earlier.slot.to_string()).unwrap_or_default();
            // Retention may have deleted it a moment ago.
            let reason =
                if *reason == DrillReason::NoBackup { *reason } else { DrillReason::PreviousUnreadable };
            let message = format!("{as_taken}; they could not be compared with those of {slot}: {why}");
            return (Outcome::Warned, reason, message);
        }
        let Some(previous) = &self.previous else {
            let message = format!("{as_taken}; there is no earlier backup to compare with");
            return (Outcome::Passed, DrillReason::AsAsked, message);
        };
        let message = format!("{as_taken}; compared with {}", self.compared_with(previous));
        let unbelieved = self.run.earlier.as_ref().map(|earlier| earlier.unbelieved.as_slice());
        match unbelieved.unwrap_or_default() {
            [] => (Outcome::Passed, DrillReason::AsAsked, message),
            some => {
                let slots: Vec<_> = some.iter().map(ToString::to_string).collect();
                let message = format!("{message}; the commits of {} cannot be believed", slots.join(", "));
                (Outcome::Warned, DrillReason::PreviousUnreadable, message)
            }
        }
    }

    fn compared_with(&self, previous: &Manifest) -> String {
        let earlier = self.run.earlier.as_ref().filter(|earlier| earlier.slot == previous.slot);
        earlier.map_or_else(|| previous.slot.to_string(), Earlier::words)
    }

    /// Whether tables and indexes are undamaged, as PostgreSQL's own program says.
    async fn amcheck(&mut self, copy: &Copy) -> Result<(), Error> {
        let failed =
            |source| Error::Copy(copy::Error::Sql { doing: "look for the extension amcheck", source });
        let superuser = copy.superuser();
        let there = "SELECT FROM pg_extension WHERE extname = 'amcheck'";
        let was_there = superuser.query_opt(there, &[]).await.map_err(failed)?.is_some();
        let remove = format!("DROP EXTENSION IF EXISTS amcheck; DROP SCHEMA IF EXISTS {AMCHECK_SCHEMA}");
        if !was_there {
            let make = format!(
                "CREATE SCHEMA {AMCHECK_SCHEMA}; CREATE EXTENSION amcheck WITH SCHEMA {AMCHECK_SCHEMA}"
            );
            if let Err(error) = superuser.batch_execute(&make).await {
                let message = format!("the extension amcheck cannot be made: {}", questions::cause(&error));
                self.verdicts.failed(Check::Amcheck, DrillReason::DatabaseFailed, message);
                return Ok(());
            }
        }
        match self.run_amcheck(copy).await? {
            None => self.verdicts.passed(Check::Amcheck),
            Some(message) => self.verdicts.failed(Check::Amcheck, DrillReason::Corrupt, message),
        }
        if !was_there {
            superuser.batch_execute(&remove).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn run_amcheck(&self, copy: &Copy) -> Result<Option<String>, Error> {
        let program = self.programs.path("pg_amcheck");
        let output = Command::new(&program)
            .args([
                "--heapallindexed",
                "--no-password",
                "--no-strict-names",
                "--username=postgres",
                "--port=5432",
            ])
            .arg("--host")
            .arg(copy.socket_folder())
            .env("PGDATABASE", &self.run.database)
            .env("PGOPTIONS", "-c event_triggers=off -c log_min_messages=panic -c statement_timeout=0")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|source| Error::Programs(programs::Error::Start { program: program.clone(), source }))?;
        if output.status.success() {
            return Ok(None);
        }
        // The objects' names only: what is said of them may quote what is in them.
        let text = [output.stdout, output.stderr].concat();
        let damaged = damaged(&String::from_utf8_lossy(&text));
        warn!(status = %output.status, objects = damaged.len(), "pg_amcheck is not content");
        Ok(Some(match damaged.first() {
            None => format!("pg_amcheck ended with {}, and named no object", output.status),
            Some(first) => {
                format!("pg_amcheck found damage in {} objects, the first of them {first}", damaged.len())
            }
        }))
    }

    async fn attachments(&mut self, copy: &Copy) -> Result<(), Error> {
        let (folder, query) = (self.run.attachments_folder.clone(), self.run.inventory_sql.clone());
        let expected = self.manifest.attachments.clone();
        if expected.is_none() && query.is_none() {
            self.verdicts.not_asked(Check::Attachments);
            return Ok(());
        }
        if let (Some(expected), Some(folder)) = (&expected, &folder)
            && let Some(flaw) =
                attachments::compare_with_manifest(folder, expected).await.map_err(Error::Attachments)?
        {
            // The database knows better which are lost.
            let named = self.named_attachments(copy).await?;
            let flaw = named.err().filter(|flaw| flaw.reason != DrillReason::SqlFailed).unwrap_or(flaw);
            self.verdicts.failed(Check::Attachments, flaw.reason, flaw.message);
            return Ok(());
        }
        match self.named_attachments(copy).await? {
            Ok(Some(named)) => match attachments::unnamed(expected.as_ref(), named) {
                None => self.verdicts.passed(Check::Attachments),
                Some(message) => {
                    self.verdicts.warned(Check::Attachments, DrillReason::AttachmentsUnnamed, message);
                }
            },
            Ok(None) => {
                let message =
                    "as in the manifest; the tenant names no inventorySQL, so the database was not asked \
                               which there should be"
                        .to_owned();
                self.verdicts.passed_with(Check::Attachments, message);
            }
            Err(flaw) => self.verdicts.failed(Check::Attachments, flaw.reason, flaw.message),
        }
        Ok(())
    }

    /// What the database says of attachments: how many there are; `None` if there is no query.
    async fn named_attachments(&self, copy: &Copy) -> Result<Result<Option<u64>, attachments::Flaw>, Error> {
        let Some(query) = &self.run.inventory_sql else { return Ok(Ok(None)) };
        let mut reader = copy.reader().await.map_err(Error::Copy)?;
        let folder = self.run.attachments_folder.as_deref();
        let limit = Duration::from_secs(self.run.inventory_timeout_seconds.into());
        Ok(attachments::compare_with_database(&mut reader, query, limit, folder).await.map(Some))
    }
}

/// One row of the sentinel's table.
#[derive(Clone, Debug)]
struct Nonce {
    nonce: String,
    slot: String,
    written: Option<Timestamp>,
}

/// When the sentinel of the backup that `manifest` is of was written, and what is wrong, if anything is.
///
/// Its own nonce must be there, and none of a newer slot that was written after it. Not by the time alone: the clock of a
/// database may have been wrong at the backup before. And not by the slot alone: one that was late came after a newer one.
fn sentinel(nonces: &[Nonce], manifest: &Manifest) -> (Option<Timestamp>, Option<(DrillReason, String)>) {
    let newest = |nonces: &mut dyn Iterator<Item = &Nonce>| -> Option<Nonce> {
        nonces.max_by(|one, other| (&one.slot, one.written).cmp(&(&other.slot, other.written))).cloned()
    };
    let Some(last) = newest(&mut nonces.iter()) else {
        let message = "the database has no sentinel at all".to_owned();
        return (None, Some((DrillReason::SentinelMissing, message)));
    };
    let own_slot = manifest.slot.to_string();
    let own = nonces.iter().filter(|row| row.nonce == manifest.sentinel && row.slot == own_slot);
    let Some(own) = own.max_by_key(|row| row.written) else {
        let message = format!(
            "the sentinel of this backup, {own_slot}, is not in the database; the newest there is of {}",
            last.slot
        );
        return (last.written, Some((DrillReason::SentinelDiffers, message)));
    };
    let after = nonces.iter().filter(|row| row.slot > own_slot && row.written > own.written);
    let flaw = newest(&mut after.into_iter()).map(|after| {
        let message =
            format!("the database is that of {}, which came after this backup, {own_slot}", after.slot);
        (DrillReason::SentinelDiffers, message)
    });
    (own.written, flaw)
}

/// The tables and indexes that `pg_amcheck` names as damaged.
fn damaged(printed: &str) -> Vec<String> {
    let named = |line: &str| {
        let rest = line.strip_prefix("heap table ").or_else(|| line.strip_prefix("btree index "))?;
        let kind = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        Some(format!("{kind} {}", rest.split_once('"')?.1.split_once('"')?.0))
    };
    let mut objects: Vec<_> = printed.lines().filter_map(named).collect();
    objects.sort_unstable();
    objects.dedup();
    objects
}

/// Leaves the outcome where the operator reads it.
pub(super) fn report(judge: &Judge, outcome: &Result<Judged, Error>) {
    let words = match outcome {
        Ok(judged) => DrillWords::Judged(judged.clone()),
        Err(error) => DrillWords::Failure(Failure { reason: error.reason(), message: chain(error) }),
    };
    words.write(&judge.termination_log);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::tests::empty;

    /// Nonces by the day and hour of their slots, and the hour at which they were written by the database's clock.
    fn nonces(rows: &[(&str, &str, &str)]) -> Vec<Nonce> {
        let row = |(nonce, slot, written): &(&str, &str, &str)| Nonce {
            nonce: (*nonce).to_owned(),
            slot: format!("202611{slot}0000Z"),
            written: Some(format!("2026-11-{written}:00:00Z").parse().unwrap()),
        };
        rows.iter().map(row).collect()
    }

    fn of_sentinel(rows: &[(&str, &str, &str)]) -> Option<DrillReason> {
        let slot = "20261122T010000Z".parse().unwrap();
        let manifest = Manifest { slot, sentinel: "own".to_owned(), ..empty() };
        sentinel(&nonces(rows), &manifest).1.map(|(reason, _)| reason)
    }

    #[test]
    fn the_sentinel_is_that_of_this_backup_whatever_clock_wrote_the_one_before() {
        assert_eq!(of_sentinel(&[]), Some(DrillReason::SentinelMissing));
        assert_eq!(of_sentinel(&[("own", "22T01", "22T01"), ("old", "21T01", "21T01")]), None);
        // The database's clock was an hour ahead at the backup before.
        assert_eq!(of_sentinel(&[("old", "22T00", "22T02"), ("own", "22T01", "22T01")]), None);
        // A slot that was caught up after a backup by hand.
        assert_eq!(of_sentinel(&[("hand", "22T02", "22T02"), ("own", "22T01", "22T03")]), None);
    }

    #[test]
    fn an_old_database_that_is_offered_as_this_backup_has_not_its_sentinel() {
        assert_eq!(of_sentinel(&[("old", "21T01", "21T01")]), Some(DrillReason::SentinelDiffers));
        let younger = [("own", "22T01", "22T01"), ("younger", "23T01", "23T01")];
        assert_eq!(of_sentinel(&younger), Some(DrillReason::SentinelDiffers));
        // The nonce of this backup under another slot proves nothing.
        assert_eq!(of_sentinel(&[("own", "21T01", "21T01")]), Some(DrillReason::SentinelDiffers));
    }

    #[test]
    fn damage_is_told_by_the_names_of_what_is_damaged() {
        let printed = "heap table \"journal.public.note\", block 0, offset 2:\n    xmin 4026531839 precedes\n\
                       btree index \"journal.public.note_pkey\":\n    ERROR:  row (Anna) lacks\n\
                       heap table \"journal.public.note\", block 1:\n    something\n";

        assert_eq!(
            damaged(printed),
            ["btree index journal.public.note_pkey", "heap table journal.public.note"]
        );
    }
}
