//! A backup of a real database, its read-back, its commit, a drill of it, and a drill that must fail. By the agent, in a
//! process of its own for each command, and by the operator's own commit.

use std::{collections::BTreeMap, ffi::OsString};

use age::secrecy::ExposeSecret;
use jiff::SignedDuration;
use valv_crds::drill::{Check, DrillReason, Outcome, Verdict};

use super::{
    agent::{Agent, Programs, option},
    journal::{ATTACHMENTS, Journal, NOTES},
    scratch::Scratch,
    table::Line,
    trial::{CutShort, Trial},
};
use crate::{
    agent::{
        drill_file::{self, FEWEST_RECIPIENTS, Question, default_inventory_timeout},
        drill_words::{DrillWords, Restored},
        durable::FileError,
        last_words::{LastWords, Taken, Verified},
        roles::Role,
        run_file,
    },
    archive::{
        commit::{self, ManifestRef},
        digest::Blake3,
        layout::{DataObject, Folder},
        write::LEVEL,
    },
    backup::{
        commission::{Commission, Search, Visitor},
        owner::TakeOver,
    },
    error::chain,
    io::bucket::Put,
    store::check::Identity,
};

/// What a backup is called in lines.
const BACKUP: &str = "backup";

/// What a drill is called in lines.
const DRILL: &str = "drill";

/// The PostgreSQL that is tried with.
const MAJOR: u16 = 17;

/// How far clocks may be apart, and how long a backup may take.
const TOLERATED: SignedDuration = SignedDuration::from_hours(1);

/// Says that no database was tried, and how to try one.
pub fn untried(why: &str) -> Vec<Line> {
    let backup = Line::untried(BACKUP, "a real PostgreSQL is backed up, read back and committed", why);
    let drill = Line::untried(DRILL, "it is restored and judged, and fails with one bit altered", why);
    vec![backup, drill]
}

/// Tries all of it.
pub async fn run(trial: &mut Trial<'_>, programs: &Programs) {
    if rustix::process::geteuid().is_root() {
        let why = "PostgreSQL does not run as root: run this as somebody else, or `make conformance`";
        trial.lines.extend(untried(why));
        return;
    }
    // What was cut short has its line.
    let _: Result<(), CutShort> = trial.database(programs).await;
}

/// What the agent is given. In this order it goes: the database ends before its folder does.
struct Ground {
    journal: Journal,
    agent: Agent,
    scratch: Scratch,
}

/// Whether what holds is told: a second backup is told of only if it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    All,
    Failures,
}

/// A backup that was read back.
struct BackedUp {
    folder: Folder,
    sentinel: String,
    taken: Taken,
    verified: Verified,
}

impl Trial<'_> {
    async fn database(&mut self, programs: &Programs) -> Result<(), CutShort> {
        let what = "a PostgreSQL with a journal's rows and attachments";
        let ground = match self.ground(programs).await {
            Ok(ground) => ground,
            Err(why) => {
                self.lines.extend(untried(&why));
                return Err(CutShort);
            }
        };
        let journal = &ground.journal;
        let seen = format!(
            "PostgreSQL {}, {NOTES} notes, {} attachments of {} bytes",
            journal.version,
            ATTACHMENTS.len(),
            journal.attachment_bytes
        );
        self.lines.push(Line::told(BACKUP, what, seen));

        let backup = self.back_up(&ground, Telling::All).await?;
        self.commission(&ground, &backup, backup.taken.manifest.clone(), Telling::All).await?;
        self.drill(&ground, &backup.folder).await?;
        let what = "the journal's image starts on it";
        self.lines.push(Line::told(DRILL, what, "not tried: it needs a cluster, where each drill does it"));

        // Another one, of which one bit is altered before its drill.
        let backup = self.back_up(&ground, Telling::Failures).await?;
        let what = "a backup is committed, and one bit of one of its segments is another";
        let altered = self.altered(&backup).await;
        let manifest = altered.map_err(|why| self.failed(DRILL, what, why))?;
        self.commission(&ground, &backup, manifest, Telling::Failures).await?;
        self.drill_of_the_altered(&ground, &backup.folder).await
    }

    async fn ground(&self, programs: &Programs) -> Result<Ground, String> {
        let scratch = Scratch::make(&programs.scratch).map_err(|error| chain(&error))?;
        let agent = Agent::new(programs, scratch.path(""));
        self.write_keys(&scratch).map_err(|error| chain(&error))?;
        let keys = [self.tenant.recipient.as_str(), &self.escrow.recipient];
        let journal = Journal::start(&agent, &scratch, keys, (self.now)()).await;
        Ok(Ground { journal: journal.map_err(|error| chain(&error))?, scratch, agent })
    }

    /// What a pod has mounted of Secrets.
    fn write_keys(&self, scratch: &Scratch) -> Result<(), FileError> {
        for identity in [Identity::Writer, Identity::Reader] {
            let credentials = self.credentials.of(identity);
            scratch.write(&format!("{identity}/accessKeyID"), &credentials.access_key_id)?;
            let secret = credentials.secret_access_key.expose_secret();
            scratch.write(&format!("{identity}/secretAccessKey"), secret)?;
        }
        scratch.write("identity", self.tenant.file.expose_secret())?;
        Ok(())
    }

    /// Takes a backup and reads it back, as the Jobs of a `Backup` do.
    async fn back_up(&mut self, ground: &Ground, telling: Telling) -> Result<BackedUp, CutShort> {
        let Ground { scratch, agent, journal } = ground;
        let what = "the agent backs it up as the writer";
        let folder = self.folder().map_err(|why| self.failed(BACKUP, what, why))?;
        let sentinel = format!("{:032x}", rand::random::<u128>());
        let run = self.run_file(journal, &folder, &sentinel);
        let run = run.and_then(|text| scratch.write("backup.yaml", text).map_err(|error| chain(&error)));
        let run = option("--run", &run.map_err(|why| self.failed(BACKUP, what, why))?);
        let arguments = [
            run.clone(),
            option("--store-credentials", &scratch.path("writer")),
            option("--database-passwords", &journal.passwords),
            OsString::from(format!("--attempt={}", folder.attempt)),
            agent.postgres(),
        ];
        let taken = match agent.run("backup", &arguments).await {
            Ok(LastWords::Taken(taken)) => taken,
            Ok(words) => return Err(self.failed(BACKUP, what, in_words(&words))),
            Err(error) => return Err(self.failed(BACKUP, what, chain(&error))),
        };
        let seen = format!("{} segments, {} bytes of {}", taken.segments, taken.bytes, taken.plain_bytes);
        self.tell(telling, Line::must(BACKUP, what, true, seen));

        let what = "the agent reads every segment back as the reader";
        let named = &taken.manifest;
        let mut arguments = vec![
            run,
            option("--store-credentials", &scratch.path("reader")),
            OsString::from(format!("--manifest={}", named.key)),
            OsString::from(format!("--blake3={}", named.blake3)),
            OsString::from("--depth=full"),
        ];
        arguments.extend(
            named.version.iter().map(|version| OsString::from(format!("--version={}", version.as_str()))),
        );
        let verified = match agent.run("verify", &arguments).await {
            Ok(LastWords::Verified { verified }) => verified,
            Ok(words) => return Err(self.failed(BACKUP, what, in_words(&words))),
            Err(error) => return Err(self.failed(BACKUP, what, chain(&error))),
        };
        let Verified { segments_read, segments, tampered, .. } = verified;
        let holds = segments_read == segments && segments == taken.segments && tampered == 0;
        let seen = format!("{segments_read} of {segments} segments, {tampered} covered");
        self.tell(telling, Line::must(BACKUP, what, holds, seen));
        let what = "all of it is locked as the store claims";
        if self.store.lock().is_some() {
            let locked = self.store.locks_long_enough(verified.locked_until, (self.now)(), TOLERATED);
            let until = verified.locked_until.map(|until| format!("until {until}")).unwrap_or_default();
            let seen = locked.as_ref().err().cloned().unwrap_or(until);
            self.tell(telling, Line::must(BACKUP, what, locked.is_ok(), seen));
        }
        Ok(BackedUp { folder, sentinel, taken, verified })
    }

    fn tell(&mut self, telling: Telling, line: Line) {
        if telling == Telling::All || line.verdict == super::table::Verdict::Fails {
            self.lines.push(line);
        }
    }

    fn run_file(&self, journal: &Journal, folder: &Folder, sentinel: &str) -> Result<String, String> {
        let run = run_file::Run {
            archive: folder.archive.clone(),
            slot: folder.slot,
            store: self.store.spoken_to(None, self.store.lock()),
            recipients: self.recipients.to_texts(),
            sentinel: sentinel.parse().map_err(|error| chain(&error))?,
            database: journal.database.clone(),
            attachments: Some(run_file::Attachments { folder: journal.attachments.clone() }),
            tenant_folder: Some(journal.tenant.clone()),
            images: BTreeMap::new(),
            compression_level: LEVEL,
            in_flight: 3,
        };
        run.to_yaml().map_err(|error| chain(&error))
    }

    /// Commits `backup` with `manifest`, as the operator does.
    async fn commission(
        &mut self,
        ground: &Ground,
        backup: &BackedUp,
        manifest: ManifestRef,
        telling: Telling,
    ) -> Result<(), CutShort> {
        let what = "the operator commits it as the committer, and reads the commit back";
        let BackedUp { folder, sentinel, taken, verified } = backup;
        let commission = Commission {
            search: Search {
                archive: folder.archive.clone(),
                slot: folder.slot,
                sentinel: sentinel.clone(),
                store: self.store.clone(),
                tenant: "conformance".to_owned(),
                tenant_uid: "conformance".to_owned(),
                system_identifier: Some(ground.journal.system_identifier.clone()),
                takes_over: TakeOver::NotAsked,
            },
            folder: folder.clone(),
            manifest,
            verified: commit::Verified {
                mode: verified.mode,
                seed: verified.seed,
                segments_read: verified.segments_read,
                segments: verified.segments,
                at: verified.at,
            },
            locked_until: verified.locked_until,
            recipients: self.recipients.to_texts(),
            attachments: true,
            journal_image: None,
            taken: taken.taken,
        };
        let visitor = Visitor {
            credentials: self.credentials,
            keys: self.keys,
            cluster: "conformance",
            now: (self.now)(),
        };
        // Nobody else is there to lead.
        match commission.carry_out(&visitor, || Ok(())).await {
            Ok(committed) => {
                let seen = format!("{}, signed with {}", committed.key, committed.found.key_id);
                self.tell(telling, Line::must(BACKUP, what, true, seen));
                Ok(())
            }
            Err(error) => Err(self.failed(BACKUP, what, chain(&error))),
        }
    }

    /// Restores the backup in `folder` and judges it, as the Jobs of a `RestoreDrill` do.
    async fn drill(&mut self, ground: &Ground, folder: &Folder) -> Result<(), CutShort> {
        let what = "the agent restores it as the reader, with the tenant's key";
        let restored = self.restore(ground, folder, "restored").await;
        let restored = restored.map_err(|why| self.failed(DRILL, what, why))?;
        let seen = format!("{} bytes were read", restored.bytes);
        self.lines.push(Line::told(DRILL, what, seen));
        self.conclude(&restored.verdicts)?;

        let what = "the agent judges what was restored";
        let judged = self.judge(ground, "restored").await;
        let judged = judged.map_err(|why| self.failed(DRILL, what, why))?;
        self.conclude(&judged)
    }

    /// A line for each verdict. The rest is tried only if all of them passed.
    fn conclude(&mut self, verdicts: &[Verdict]) -> Result<(), CutShort> {
        for verdict in verdicts {
            let passed = verdict.outcome == Outcome::Passed;
            self.lines.push(Line::claimed(DRILL, verdict.name.clone(), "Passed", passed, said(verdict)));
        }
        let passed = verdicts.iter().all(|verdict| verdict.outcome == Outcome::Passed);
        if passed { Ok(()) } else { Err(CutShort) }
    }

    async fn restore(&self, ground: &Ground, folder: &Folder, name: &str) -> Result<Restored, String> {
        let Ground { scratch, agent, journal } = ground;
        let make = |what: &str| scratch.folder(&format!("{name}/{what}")).map_err(|error| chain(&error));
        let run = drill_file::Restore {
            archive: folder.archive.clone(),
            slot: folder.slot,
            store: self.store.spoken_to(None, None),
            trusted_keys: vec![self.public().to_pem()],
            recipients: FEWEST_RECIPIENTS,
            previous: None,
            database_volume: make("database")?,
            attachments_folder: Some(make("attachments")?),
            tenant_folder: make("tenant")?,
            in_flight: 3,
            major: MAJOR,
        };
        let run = run.to_yaml().map_err(|error| chain(&error))?;
        let run = scratch.write("restore.yaml", run).map_err(|error| chain(&error))?;
        let arguments = [
            option("--run", &run),
            option("--store-credentials", &scratch.path("reader")),
            option("--identity", &scratch.path("identity")),
            option("--live", &journal.live),
            agent.postgres(),
        ];
        match agent.run("restore", &arguments).await.map_err(|error| chain(&error))? {
            DrillWords::Restored(restored) => Ok(restored),
            DrillWords::Failure(failure) => Err(format!("{:?}: {}", failure.reason, failure.message)),
            DrillWords::Judged(_) => Err("it judged, and did not restore".to_owned()),
        }
    }

    async fn judge(&self, ground: &Ground, name: &str) -> Result<Vec<Verdict>, String> {
        let Ground { scratch, agent, .. } = ground;
        let question = |name: &str, sql: String| Question { name: name.to_owned(), sql, timeout_seconds: 60 };
        let run = drill_file::Judge {
            database_volume: scratch.path(&format!("{name}/database")),
            attachments_folder: Some(scratch.path(&format!("{name}/attachments"))),
            database: ground.journal.database.name.clone(),
            journal_role: Some(Role::JournalOwner.name().to_owned()),
            inventory_sql: Some("SELECT path, sha256 FROM attachment".to_owned()),
            inventory_timeout_seconds: default_inventory_timeout(),
            earlier: None,
            row_counts: valv_crds::policy::RowCounts::default(),
            checks: vec![
                question("notes", format!("SELECT count(*) = {NOTES} FROM note")),
                question("texts", "SELECT bool_and(text = repeat(md5(id::text), 10)) FROM note".to_owned()),
            ],
            major: MAJOR,
        };
        let run = run.to_yaml().map_err(|error| chain(&error))?;
        let run = scratch.write("judge.yaml", run).map_err(|error| chain(&error))?;
        let socket = scratch.folder(&format!("{name}/run")).map_err(|error| chain(&error))?;
        let arguments = [option("--run", &run), option("--scratch", &socket), agent.postgres()];
        match agent.run("judge", &arguments).await.map_err(|error| chain(&error))? {
            DrillWords::Judged(judged) => Ok(judged.verdicts),
            DrillWords::Failure(failure) => Err(format!("{:?}: {}", failure.reason, failure.message)),
            DrillWords::Restored(_) => Err("it restored, and did not judge".to_owned()),
        }
    }

    /// Alters one bit of one segment of `backup`, and names what then lies there as its manifest: where the store keeps
    /// versions, the true segment is another version.
    async fn altered(&self, backup: &BackedUp) -> Result<ManifestRef, String> {
        let manifest =
            self.archive().manifest(&backup.taken.manifest).await.map_err(|error| chain(&error))?;
        let altered = self.alter(&manifest).await?;
        let forged = self.forge(&manifest, altered).await?;
        let bytes = forged.to_bytes().map_err(|error| chain(&error))?;
        let (size, blake3) = (bytes.len() as u64, Blake3::of(&bytes));
        let key = forged.folder().key(DataObject::Manifest).to_string();
        let version = self.writer.put(&key, bytes.into(), &Put::default()).await;
        Ok(ManifestRef { version: version.map_err(|error| chain(&error))?, key, size, blake3 })
    }

    /// A drill of a backup that was altered. It must fail over just that, and reach nothing after it.
    async fn drill_of_the_altered(&mut self, ground: &Ground, folder: &Folder) -> Result<(), CutShort> {
        let what = "with one bit of one segment altered it fails";
        let restored = self.restore(ground, folder, "altered").await;
        let verdicts = restored.map_err(|why| self.failed(DRILL, what, why))?.verdicts;
        let failed: Vec<&Verdict> =
            verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Failed).collect();
        let seen = failed
            .first()
            .map_or("it passed".to_owned(), |verdict| format!("{}: {}", verdict.name, said(verdict)));
        let holds = is_only_over_a_segment(&verdicts);
        self.lines.push(Line::claimed(DRILL, what, "Segments: SegmentDiffers", holds, seen));

        let what = "half a database has no name";
        let is_there = ground.scratch.path("altered/database/pgdata").exists();
        let seen = if is_there { "there is one to start" } else { "there is none to start" };
        self.lines.push(Line::must(DRILL, what, !is_there, seen));
        Ok(())
    }
}

/// Whether the drill failed since a segment differs, with all before that passed and nothing after it reached.
fn is_only_over_a_segment(verdicts: &[Verdict]) -> bool {
    let segments = Check::Segments.verdict_name();
    let Some(place) = verdicts.iter().position(|verdict| verdict.name == segments) else { return false };
    let is = |outcome: Outcome| move |verdict: &Verdict| verdict.outcome == outcome;
    verdicts[place].outcome == Outcome::Failed
        && verdicts[place].reason == DrillReason::SegmentDiffers
        && verdicts[..place].iter().all(is(Outcome::Passed))
        && verdicts[place + 1..].iter().all(is(Outcome::NotReached))
}

/// A verdict in words.
fn said(verdict: &Verdict) -> String {
    let message = verdict.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    match verdict.outcome {
        Outcome::Passed | Outcome::NotReached | Outcome::NotAsked => {
            format!("{:?}{message}", verdict.outcome)
        }
        Outcome::Failed | Outcome::Warned => format!("{:?}{message}", verdict.reason),
    }
}

/// The last words of a command that did not do what was asked.
fn in_words(words: &LastWords) -> String {
    match words {
        LastWords::Failed { failure } => format!("{:?}: {}", failure.reason, failure.message),
        LastWords::Verified { .. } => "it verified, and did not back up".to_owned(),
        LastWords::Taken(_) => "it backed up, and did not verify".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(check: Check, outcome: Outcome, reason: DrillReason) -> Verdict {
        Verdict { name: check.verdict_name(), outcome, reason, message: None, seconds: None }
    }

    #[test]
    fn only_a_drill_that_fails_over_a_segment_and_goes_no_further_is_the_one_that_is_wanted() {
        let first = verdict(Check::Manifest, Outcome::Passed, DrillReason::AsAsked);
        let differs = verdict(Check::Segments, Outcome::Failed, DrillReason::SegmentDiffers);
        let missing = verdict(Check::Segments, Outcome::Failed, DrillReason::SegmentMissing);
        let warned = verdict(Check::Manifest, Outcome::Warned, DrillReason::Tampered);
        let unreached = verdict(Check::Recipients, Outcome::NotReached, DrillReason::NotReached);
        let reached = verdict(Check::Recipients, Outcome::Passed, DrillReason::AsAsked);

        assert!(is_only_over_a_segment(&[first.clone(), differs.clone(), unreached.clone()]));
        assert!(!is_only_over_a_segment(&[first.clone(), missing, unreached.clone()]));
        assert!(!is_only_over_a_segment(&[warned, differs.clone(), unreached]));
        assert!(!is_only_over_a_segment(&[first.clone(), differs, reached]));
        assert!(!is_only_over_a_segment(&[first]));
        assert!(!is_only_over_a_segment(&[]));
    }
}
