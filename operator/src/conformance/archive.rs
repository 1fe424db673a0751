//! A backup, its read-back, its commit, its restore and its end, in a bucket that may be anybody's. By the same code as
//! agents and operator: nothing here knows how an object is written or read.

use std::collections::BTreeMap;

use age::{secrecy::ExposeSecret, x25519};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use valv_crds::Slot;

use super::table::Line;
use crate::{
    archive::{
        Archive, Writer,
        commit::{self, Commit, ManifestRef},
        digest::Blake3,
        envelope::SigningKey,
        erase::Eraser,
        fetch::{self, FoundCommit},
        index,
        layout::{Attempt, DataObject, Folder, Part},
        manifest::{FORMAT, Manifest, PartSummary, Postgres, RowCounts, Tool},
        read,
        recipients::{Identities as AgeIdentities, Recipients},
        retry::{self, RetryRule},
        segment::ContentMd5,
        verify::{self, Depth, Mode, Verdict},
        write,
    },
    error::chain,
    io::bucket::{Bucket, Credentials, Kind, OnExisting, Put},
    store::{
        check::{Identities, Identity, Store},
        public_key,
    },
};

/// Bytes of the sample that do not compress: three segments of 16 MiB.
const HARD_BYTES: usize = 40 << 20;

/// Bytes of it that do.
const EASY_BYTES: usize = 8 << 20;

/// What this is called in lines.
const AREA: &str = "archive";

/// Why the rest was not tried: what failed is a line already.
struct CutShort;

struct Trial<'a> {
    store: &'a Store,
    signing: &'a SigningKey,
    now: fn() -> Timestamp,
    writer: Bucket,
    committer: Bucket,
    reader: Bucket,
    janitor: Bucket,
    recipients: Recipients,
    tenant: AgeIdentities,
    escrow: AgeIdentities,
    folder: Folder,
    lines: Vec<Line>,
}

/// Tries all of it with `store`, and takes away what it wrote.
pub async fn run(
    store: &Store,
    credentials: &Identities<Credentials>,
    signing: &SigningKey,
    now: fn() -> Timestamp,
) -> Vec<Line> {
    let mut trial = match prepare(store, credentials, signing, now) {
        Ok(trial) => trial,
        Err(why) => return vec![Line::wrong(AREA, "the bucket can be opened", why)],
    };
    // What was cut short has its line; what was written goes all the same.
    let _: Result<(), CutShort> = trial.go().await;
    trial.clean().await;
    trial.lines
}

fn prepare<'a>(
    store: &'a Store,
    credentials: &Identities<Credentials>,
    signing: &'a SigningKey,
    now: fn() -> Timestamp,
) -> Result<Trial<'a>, String> {
    let open = |identity: Identity| {
        Bucket::open(&store.settings(credentials.of(identity).clone())).map_err(|error| chain(&error))
    };
    let key = || {
        let made = x25519::Identity::generate();
        let parsed = AgeIdentities::parse(&made.to_string().expose_secret().to_owned().into());
        parsed.map(|parsed| (made.to_public().to_string(), parsed)).map_err(|error| chain(&error))
    };
    let ((one, tenant), (other, escrow)) = (key()?, key()?);
    let random = rand::random::<u64>();
    let archive = format!("conformance-{random:016x}").parse().map_err(|error| chain(&error))?;
    let attempt: Attempt = uuid(rand::random()).parse().map_err(|error| chain(&error))?;
    let slot = Slot::at(now()).map_err(|error| chain(&error))?;
    Ok(Trial {
        store,
        signing,
        now,
        writer: open(Identity::Writer)?,
        committer: open(Identity::Committer)?,
        reader: open(Identity::Reader)?,
        janitor: open(Identity::Janitor)?,
        recipients: Recipients::parse([one, other]).map_err(|error| chain(&error))?,
        tenant,
        escrow,
        folder: Folder { archive, slot, attempt },
        lines: vec![],
    })
}

fn uuid(random: u128) -> String {
    let hex = format!("{random:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

impl Trial<'_> {
    async fn go(&mut self) -> Result<(), CutShort> {
        let sample = sample(rand::random());
        let (manifest, named) = self.write(&sample).await?;
        let verdict = self
            .read_back(&manifest, "the reader reads every segment back, and it is what was written")
            .await?;
        self.locked(&verdict);
        self.commit(&manifest, &named, &verdict).await?;
        self.public_key().await;
        for (whose, identities) in [("tenant's", self.tenant.clone()), ("escrow", self.escrow.clone())] {
            let restored = self.restored(&manifest, &identities).await;
            let seen = match &restored {
                Ok(bytes) if *bytes == sample => format!("{} bytes, each as it was", bytes.len()),
                Ok(bytes) => format!("{} bytes, and not those that were written", bytes.len()),
                Err(error) => error.clone(),
            };
            let holds = restored.is_ok_and(|bytes| bytes == sample);
            self.lines.push(Line::must(AREA, format!("it is restored with the {whose} key"), holds, seen));
        }
        let stranger =
            AgeIdentities::parse(&x25519::Identity::generate().to_string().expose_secret().to_owned().into());
        if let Ok(stranger) = stranger {
            let restored = self.restored(&manifest, &stranger).await;
            let seen = restored.as_ref().err().cloned().unwrap_or_else(|| "it is restored".to_owned());
            self.lines.push(Line::must(AREA, "another key opens nothing", restored.is_err(), seen));
        }
        self.flipped(&manifest).await
    }

    fn failed<E: std::error::Error>(&mut self, what: &str, error: &E) -> CutShort {
        self.lines.push(Line::wrong(AREA, what, chain(error)));
        CutShort
    }

    /// As the agent writes.
    async fn write(&mut self, sample: &[u8]) -> Result<(Manifest, ManifestRef), CutShort> {
        let what = "the writer puts segments, index and manifest";
        let started = (self.now)();
        let options = self.options(started);
        let recipients = self.recipients.clone();
        let mut writer = Writer::new(self.writer.clone(), self.folder.clone(), recipients, options);
        let part = match writer.part(Part::Database, sample).await {
            Ok(part) => part,
            Err(error) => return Err(self.failed(what, &error)),
        };
        let manifest = manifest(&self.folder, self.recipients.to_texts(), part, started, (self.now)());
        match writer.manifest(&manifest).await {
            Ok(named) => {
                let seen = format!("{} segments of {} bytes", manifest.segments(), sample.len());
                self.lines.push(Line::must(AREA, what, true, seen));
                Ok((manifest, named))
            }
            Err(error) => Err(self.failed(what, &error)),
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
            Err(error) => Err(self.failed(what, &error)),
        }
    }

    async fn verified(&self, manifest: &Manifest) -> Result<Verdict, fetch::Error> {
        verify::verify(&self.archive(), manifest, Depth::Full, &watch::Sender::default()).await
    }

    fn archive(&self) -> Archive {
        Archive::new(
            self.reader.clone(),
            fetch::Options { retry: RetryRule::FEW, ..fetch::Options::default() },
        )
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
        let sealed = match commit.seal(self.signing) {
            Ok(sealed) => bytes::Bytes::from(sealed),
            Err(error) => return Err(self.failed(what, &error)),
        };
        let put = Put {
            on_existing: self.store.on_existing(),
            retain_until: self.store.lock().map(|lock| lock.until(now)),
            lock_mode: self.store.claimed_mode().unwrap_or_default(),
            ..Put::default()
        };
        if let Err(error) = retry::put(&self.committer, &key, sealed.clone(), &put, RetryRule::FEW).await {
            return Err(self.failed(what, &error));
        }
        match self.found(manifest).await {
            Ok(found) => {
                let holds = found.commit == commit;
                self.lines.push(Line::must(AREA, what, holds, format!("signed with {}", found.key_id)));
            }
            Err(error) => return Err(self.failed(what, &error)),
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
        self.archive().commit(&manifest.archive, manifest.slot, &[self.signing.public()]).await
    }

    async fn public_key(&mut self) {
        let what = "the public half of the signing key lies in the bucket";
        let public = self.signing.public();
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
        let (entries, page) = match self.index(manifest).await {
            Ok(found) => found,
            Err(why) => {
                self.lines.push(Line::wrong(AREA, "the index is read back", why));
                return Err(CutShort);
            }
        };
        let altered = match self.alter(manifest, entries).await {
            Ok(altered) => altered,
            Err(why) => {
                self.lines.push(Line::wrong(AREA, what, why));
                return Err(CutShort);
            }
        };
        if altered.is_version {
            let what = "a younger version over a segment is read through, and told";
            match self.verified(manifest).await {
                Ok(verdict) => {
                    let holds = verdict.is_whole() && verdict.covered.total > 0;
                    let seen = format!("{} broken, {} covered", verdict.broken.total, verdict.covered.total);
                    self.lines.push(Line::must(AREA, what, holds, seen));
                }
                Err(error) => return Err(self.failed(what, &error)),
            }
        }
        let forged = match self.forge(manifest, page, altered).await {
            Ok(forged) => forged,
            Err(why) => {
                self.lines.push(Line::wrong(AREA, what, why));
                return Err(CutShort);
            }
        };
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
            Err(error) => return Err(self.failed(what, &error)),
        }
        let restored = self.restored(&forged, &self.tenant.clone()).await;
        let seen = restored.as_ref().err().cloned().unwrap_or_else(|| "it is restored".to_owned());
        self.lines.push(Line::must(AREA, "a restore of it fails", restored.is_err(), seen));
        Ok(())
    }

    /// The entries of the one page of the database's index.
    async fn index(&self, manifest: &Manifest) -> Result<(Vec<index::Entry>, usize), String> {
        let part = manifest.part(Part::Database).ok_or("the manifest has no database")?;
        let page = part.pages.first().ok_or("the index has no page")?;
        let key = manifest.folder().key(DataObject::Page(page.key)).to_string();
        let object = self.reader.get(&key, page.version.as_ref()).await.map_err(|error| chain(&error))?;
        let bytes = object.whole(index::PAGE_LIMIT_BYTES).await.map_err(|error| chain(&error))?;
        let entries = index::parse(page.key, &bytes).map_err(|error| chain(&error))?;
        Ok((entries, 0))
    }

    async fn alter(&self, manifest: &Manifest, mut entries: Vec<index::Entry>) -> Result<Altered, String> {
        let entry = entries.get_mut(1).ok_or("the sample has one segment only")?;
        let key = manifest.folder().key(DataObject::Segment(entry.key)).to_string();
        let object = self.reader.get(&key, entry.version.as_ref()).await.map_err(|error| chain(&error))?;
        let mut bytes = object.whole(entry.size).await.map_err(|error| chain(&error))?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let version =
            self.writer.put(&key, bytes.into(), &Put::default()).await.map_err(|error| chain(&error))?;
        let is_version = version.is_some();
        entry.version = version;
        Ok(Altered { entries, is_version })
    }

    /// A manifest that names the altered object with the digest of the true one.
    async fn forge(&self, manifest: &Manifest, page: usize, altered: Altered) -> Result<Manifest, String> {
        let mut pages = index::Pages::of(Part::Database);
        for entry in &altered.entries {
            pages.push(entry).map_err(|error| chain(&error))?;
        }
        let written = pages.finish().ok_or("the index has no page")?;
        let mut forged = manifest.clone();
        let part = forged.parts.iter_mut().find(|part| part.name == Part::Database);
        let named = part.and_then(|part| part.pages.get_mut(page)).ok_or("the index has no page")?;
        let key = manifest.folder().key(DataObject::Page(named.key)).to_string();
        named.size = written.bytes.len() as u64;
        named.blake3 = Blake3::of(&written.bytes);
        named.version = self
            .writer
            .put(&key, written.bytes.into(), &Put::default())
            .await
            .map_err(|error| chain(&error))?;
        Ok(forged)
    }

    /// As the janitor deletes. What a lock keeps is told, with its end.
    async fn clean(&mut self) {
        let what = "the janitor takes away what this wrote";
        let reader = self.archive();
        let eraser = Eraser { reader: &reader, janitor: &self.janitor, now: (self.now)() };
        let version = reader
            .commit(&self.folder.archive, self.folder.slot, &[self.signing.public()])
            .await
            .ok()
            .and_then(|found| found.version);
        let erased = eraser.backup(&self.folder, version.as_ref()).await;
        let line = match erased {
            Ok(erased) => match (erased.kept, self.store.lock()) {
                (None, None) => Line::must(AREA, what, true, format!("{} versions", erased.versions)),
                (None, Some(_)) => {
                    let seen =
                        format!("{} versions, and a lock is claimed that should keep them", erased.versions);
                    Line::wrong(AREA, "what is locked cannot be deleted", seen)
                }
                (Some(kept), lock) => {
                    let until = kept
                        .until
                        .map_or("a time that it does not say".to_owned(), |until| until.to_string());
                    let seen = format!("{} is locked until {until}", kept.key);
                    Line::must(AREA, "what is locked cannot be deleted", lock.is_some(), seen)
                }
            },
            Err(error) => Line::wrong(AREA, what, chain(&error)),
        };
        self.lines.push(line);
        let left = format!(
            "{}v1/{}/ and {}",
            self.store.prefix.as_ref().map(|prefix| format!("{prefix}/")).unwrap_or_default(),
            self.folder.archive,
            public_key::key_of(&self.signing.public().id())
        );
        if self.store.lock().is_some() {
            self.lines.push(Line::told(AREA, "left until its lock ends: delete it then", left));
            return;
        }
        let key = public_key::key_of(&self.signing.public().id());
        let gone = self.janitor.delete(&key, None).await;
        let seen = gone.as_ref().err().map_or_else(|| key.clone(), |error| chain(error));
        self.lines.push(Line::must(AREA, "nothing is left", gone.is_ok(), seen));
    }
}

/// The index with one segment altered.
struct Altered {
    entries: Vec<index::Entry>,
    /// Whether the store keeps the true one as an older version.
    is_version: bool,
}

/// Bytes that do not compress, drawn with `seed`, and bytes that do.
fn sample(seed: u64) -> Vec<u8> {
    // xorshift64*: it need not be unpredictable, only incompressible.
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(HARD_BYTES + EASY_BYTES);
    while bytes.len() < HARD_BYTES {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.resize(HARD_BYTES + EASY_BYTES, b' ');
    bytes
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
