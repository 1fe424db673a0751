//! A stream of bytes written, read back, committed, restored and altered, in a bucket that may be anybody's. By the same
//! code as agents and operator: nothing here knows how an object is written or read.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::{
    table::Line,
    trial::{AgeKey, CutShort, Trial},
};
use crate::{
    archive::{
        Writer,
        commit::{self, Commit, ManifestRef},
        fetch::{self, FoundCommit},
        layout::{Folder, Part},
        manifest::{FORMAT, Manifest, PartSummary, Postgres, RowCounts, Tool},
        read,
        recipients::Identities as AgeIdentities,
        retry::{self, RetryRule},
        segment::ContentMd5,
        verify::{self, Depth, Mode, Verdict},
        write,
    },
    error::chain,
    io::bucket::{Kind, OnExisting, Put},
    store::public_key,
};

/// Bytes of the sample that do not compress: three segments of 16 MiB.
const HARD_BYTES: usize = 40 << 20;

/// Bytes of it that do.
const EASY_BYTES: usize = 8 << 20;

/// What this is called in lines.
const AREA: &str = "archive";

/// Tries all of it.
pub async fn run(trial: &mut Trial<'_>) {
    // What was cut short has its line.
    let _: Result<(), CutShort> = trial.stream().await;
}

impl Trial<'_> {
    async fn stream(&mut self) -> Result<(), CutShort> {
        let sample = sample();
        let (manifest, named) = self.write(&sample).await?;
        let verdict = self
            .read_back(&manifest, "the reader reads every segment back, and it is what was written")
            .await?;
        self.locked(&verdict);
        self.commit(&manifest, &named, &verdict).await?;
        self.public_key().await;
        let both = [("tenant's", self.tenant.identities.clone()), ("escrow", self.escrow.identities.clone())];
        for (whose, identities) in both {
            let restored = self.restored(&manifest, &identities).await;
            let seen = match &restored {
                Ok(bytes) if *bytes == sample => format!("{} bytes, each as it was", bytes.len()),
                Ok(bytes) => format!("{} bytes, and not those that were written", bytes.len()),
                Err(error) => error.clone(),
            };
            let holds = restored.is_ok_and(|bytes| bytes == sample);
            self.lines.push(Line::must(AREA, format!("it is restored with the {whose} key"), holds, seen));
        }
        if let Ok(stranger) = AgeKey::make() {
            let restored = self.restored(&manifest, &stranger.identities).await;
            let seen = restored.as_ref().err().cloned().unwrap_or_else(|| "it is restored".to_owned());
            self.lines.push(Line::must(AREA, "another key opens nothing", restored.is_err(), seen));
        }
        self.flipped(&manifest).await
    }

    /// As the agent writes.
    async fn write(&mut self, sample: &[u8]) -> Result<(Manifest, ManifestRef), CutShort> {
        let what = "the writer puts segments, index and manifest";
        let started = (self.now)();
        let options = self.options(started);
        let recipients = self.recipients.clone();
        let folder = self.folder().map_err(|why| self.failed(AREA, what, why))?;
        let mut writer = Writer::new(self.writer.clone(), folder.clone(), recipients, options);
        let part = match writer.part(Part::Database, sample).await {
            Ok(part) => part,
            Err(error) => return Err(self.failed(AREA, what, chain(&error))),
        };
        let manifest = manifest(&folder, self.recipients.to_texts(), part, started, (self.now)());
        match writer.manifest(&manifest).await {
            Ok(named) => {
                let seen = format!("{} segments of {} bytes", manifest.segments(), sample.len());
                self.lines.push(Line::must(AREA, what, true, seen));
                Ok((manifest, named))
            }
            Err(error) => Err(self.failed(AREA, what, chain(&error))),
        }
    }

    fn options(&self, now: Timestamp) -> write::Options {
        let lock = self.store.lock();
        write::Options {
            content_md5: if lock.is_some() { ContentMd5::Computed } else { ContentMd5::Omitted },
            retain_until: lock.map(|lock| lock.until(now)),
            lock_mode: self.store.claimed_mode().unwrap_or_default(),
            ..write::Options::default()
        }
    }

    /// As the reading pod reads.
    async fn read_back(&mut self, manifest: &Manifest, what: &str) -> Result<Verdict, CutShort> {
        match self.verified(manifest).await {
            Ok(verdict) => {
                let all = verdict.segments_read == manifest.segments();
                let seen = format!(
                    "{} of {} segments, {} broken, {} covered",
                    verdict.segments_read,
                    manifest.segments(),
                    verdict.broken.total,
                    verdict.covered.total
                );
                self.lines.push(Line::must(AREA, what, all && verdict.is_whole(), seen));
                Ok(verdict)
            }
            Err(error) => Err(self.failed(AREA, what, chain(&error))),
        }
    }

    async fn verified(&self, manifest: &Manifest) -> Result<Verdict, fetch::Error> {
        verify::verify(&self.archive(), manifest, Depth::Full, &watch::Sender::default()).await
    }

    fn locked(&mut self, verdict: &Verdict) {
        let until = verdict.lock.until();
        let seen = until.map_or("not all objects are locked".to_owned(), |until| format!("until {until}"));
        let what = "every object is locked as the store claims";
        self.lines.push(match self.store.lock() {
            // An hour for clocks, and for the time that it took.
            Some(lock) => {
                let least = lock.until((self.now)()) - SignedDuration::from_hours(1);
                Line::must(AREA, what, until.is_some_and(|until| until >= least), seen)
            }
            None => Line::told(AREA, "objects are locked, though no lock is claimed", seen),
        });
    }

    /// As the operator commits.
    async fn commit(
        &mut self,
        manifest: &Manifest,
        named: &ManifestRef,
        verdict: &Verdict,
    ) -> Result<(), CutShort> {
        let what = "the committer puts a commit, and the reader gets it back with its signature";
        let now = (self.now)();
        let commit = Commit {
            format: FORMAT,
            archive: manifest.archive.clone(),
            slot: manifest.slot,
            attempt: manifest.attempt.clone(),
            manifest: named.clone(),
            verified: commit::Verified {
                mode: Mode::Full,
                seed: None,
                segments_read: verdict.segments_read,
                segments: manifest.segments(),
                at: now,
            },
            store: commit::Store {
                name: self.store.name.clone(),
                region: self.store.location.region.clone(),
                country: self.store.location.country.clone(),
            },
            retain_until: verdict.lock.until(),
            committed: now,
        };
        let key = Commit::key(&commit.archive, commit.slot).to_string();
        let sealed = match commit.seal(&self.keys.signing) {
            Ok(sealed) => bytes::Bytes::from(sealed),
            Err(error) => return Err(self.failed(AREA, what, chain(&error))),
        };
        let put = Put {
            on_existing: self.store.on_existing(),
            retain_until: self.store.lock().map(|lock| lock.until(now)),
            lock_mode: self.store.claimed_mode().unwrap_or_default(),
            ..Put::default()
        };
        if let Err(error) = retry::put(&self.committer, &key, sealed.clone(), &put, RetryRule::FEW).await {
            return Err(self.failed(AREA, what, chain(&error)));
        }
        match self.found(manifest).await {
            Ok(found) => {
                let holds = found.commit == commit;
                self.lines.push(Line::must(AREA, what, holds, format!("signed with {}", found.key_id)));
            }
            Err(error) => return Err(self.failed(AREA, what, chain(&error))),
        }
        let what = "a second commit over it is refused";
        if put.on_existing == OnExisting::Fail {
            let again = self.committer.put(&key, sealed, &put).await;
            let holds = again.as_ref().is_err_and(|error| error.kind == Kind::PreconditionFailed);
            let seen = again.err().map_or("it was taken".to_owned(), |error| chain(&error));
            self.lines.push(Line::must(AREA, what, holds, seen));
        } else {
            self.lines.push(Line::told(AREA, what, "not tried: the store heeds no precondition"));
        }
        Ok(())
    }

    async fn found(&self, manifest: &Manifest) -> Result<FoundCommit, fetch::Error> {
        self.archive().commit(&manifest.archive, manifest.slot, &[self.public()]).await
    }

    async fn public_key(&mut self) {
        let what = "the public half of the signing key lies in the bucket";
        let public = self.public();
        let kept = public_key::keep(self.store, &self.committer, &self.reader, public, (self.now)()).await;
        let seen = kept.as_ref().err().map_or_else(|| public_key::key_of(&public.id()), |error| chain(error));
        self.lines.push(Line::must(AREA, what, kept.is_ok(), seen));
    }

    /// As a drill restores.
    async fn restored(&self, manifest: &Manifest, identities: &AgeIdentities) -> Result<Vec<u8>, String> {
        let mut stream = Vec::new();
        let (archive, progress) = (self.archive(), watch::Sender::default());
        let read = read::part(&archive, manifest, Part::Database, identities, &mut stream, &progress);
        read.await.map(|_| stream).map_err(|error| chain(&error))
    }

    /// One bit of one segment is another, and then the manifest says that just this is what was written.
    async fn flipped(&mut self, manifest: &Manifest) -> Result<(), CutShort> {
        let what = "one bit of one segment can be altered as the writer";
        let altered = self.alter(manifest).await.map_err(|why| self.failed(AREA, what, why))?;
        if altered.is_version {
            let what = "a younger version over a segment is read through, and told";
            match self.verified(manifest).await {
                Ok(verdict) => {
                    let holds = verdict.is_whole() && verdict.covered.total > 0;
                    let seen = format!("{} broken, {} covered", verdict.broken.total, verdict.covered.total);
                    self.lines.push(Line::must(AREA, what, holds, seen));
                }
                Err(error) => return Err(self.failed(AREA, what, chain(&error))),
            }
        }
        let forged = self.forge(manifest, altered).await.map_err(|why| self.failed(AREA, what, why))?;
        let what = "an altered segment is found by its digest";
        match self.verified(&forged).await {
            Ok(verdict) => {
                let seen = verdict
                    .broken
                    .first
                    .first()
                    .map_or("nothing is found".to_owned(), |finding| finding.to_string());
                self.lines.push(Line::must(AREA, what, verdict.broken.total == 1, seen));
            }
            Err(error) => return Err(self.failed(AREA, what, chain(&error))),
        }
        let restored = self.restored(&forged, &self.tenant.identities).await;
        let seen = restored.as_ref().err().cloned().unwrap_or_else(|| "it is restored".to_owned());
        self.lines.push(Line::must(AREA, "a restore of it fails", restored.is_err(), seen));
        Ok(())
    }
}

/// Bytes that do not compress, and bytes that do.
fn sample() -> Vec<u8> {
    let mut bytes = noise(HARD_BYTES, rand::random());
    bytes.resize(HARD_BYTES + EASY_BYTES, b' ');
    bytes
}

/// So many bytes that do not compress, drawn with `seed`.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    // xorshift64*: it need not be unpredictable, only incompressible.
    let mut state = seed | 1;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        noise.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// A manifest of one part. There is no database: what stands of one is made up, and said to be.
fn manifest(
    folder: &Folder,
    recipients: Vec<String>,
    part: PartSummary,
    started: Timestamp,
    ended: Timestamp,
) -> Manifest {
    let none = |text: &str| text.to_owned();
    Manifest {
        format: FORMAT,
        archive: folder.archive.clone(),
        slot: folder.slot,
        attempt: folder.attempt.clone(),
        parent: None,
        tool: Tool { name: none("valv conformance"), version: none(env!("CARGO_PKG_VERSION")) },
        started,
        ended,
        postgres: Postgres {
            version: none("0"),
            system_identifier: none("0"),
            timeline: 1,
            start_lsn: none("0/0"),
            stop_lsn: none("0/0"),
        },
        recipients,
        parts: vec![part],
        sentinel: none("00"),
        row_counts: RowCounts::default(),
        attachments: None,
        images: BTreeMap::new(),
    }
}
