//! What all of a trial have in common: the bucket as each of its identities, the keys, one archive, and what was found so
//! far. It takes away what was written, as the janitor deletes.

use age::{secrecy::ExposeSecret, x25519};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use valv_crds::Slot;

use super::table::Line;
use crate::{
    archive::{
        Archive,
        envelope::PublicKey,
        erase::{Erased, Eraser},
        fetch,
        layout::{ArchiveId, Attempt, Folder},
        recipients::{Identities as AgeIdentities, Recipients},
        retry::RetryRule,
    },
    backup::owner::Owner,
    error::chain,
    io::bucket::{self, Bucket, Credentials},
    signing::Keys,
    store::{
        check::{Identities, Identity, Store},
        public_key,
    },
};

/// What this is called in lines.
const AREA: &str = "clean-up";

/// Why the rest was not tried: what failed is a line already.
pub struct CutShort;

/// Who can open what is written.
pub struct AgeKey {
    /// For whom it is encrypted.
    pub recipient: String,
    /// What opens it, as a file has it.
    pub file: SecretString,
    /// The same, read.
    pub identities: AgeIdentities,
}

impl AgeKey {
    /// A new one.
    pub fn make() -> Result<Self, String> {
        let made = x25519::Identity::generate();
        let file: SecretString = made.to_string().expose_secret().to_owned().into();
        let identities = AgeIdentities::parse(&file).map_err(|error| chain(&error))?;
        Ok(Self { recipient: made.to_public().to_string(), file, identities })
    }
}

/// A trial of one bucket.
pub struct Trial<'a> {
    /// The store, with what the probe saw.
    pub store: &'a Store,
    /// Who may ask it.
    pub credentials: &'a Identities<Credentials>,
    /// The operator's keys.
    pub keys: &'a Keys,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// As agents write.
    pub writer: Bucket,
    /// As the operator commits.
    pub committer: Bucket,
    /// As drills read.
    pub reader: Bucket,
    janitor: Bucket,
    /// For whom all is encrypted.
    pub recipients: Recipients,
    /// The tenant's key.
    pub tenant: AgeKey,
    /// The escrow.
    pub escrow: AgeKey,
    archive: ArchiveId,
    began: Timestamp,
    /// Where something may lie.
    folders: Vec<Folder>,
    /// What was found so far.
    pub lines: Vec<Line>,
}

impl<'a> Trial<'a> {
    /// Opens the bucket, and makes keys for this one run.
    ///
    /// # Errors
    /// Why it cannot be tried, in words.
    pub fn prepare(
        store: &'a Store,
        credentials: &'a Identities<Credentials>,
        keys: &'a Keys,
        now: fn() -> Timestamp,
    ) -> Result<Self, String> {
        let open = |identity: Identity| {
            Bucket::open(&store.settings(credentials.of(identity).clone())).map_err(|error| chain(&error))
        };
        let (tenant, escrow) = (AgeKey::make()?, AgeKey::make()?);
        let recipients =
            Recipients::parse([&tenant.recipient, &escrow.recipient]).map_err(|error| chain(&error))?;
        let random = rand::random::<u64>();
        Ok(Self {
            store,
            credentials,
            keys,
            now,
            writer: open(Identity::Writer)?,
            committer: open(Identity::Committer)?,
            reader: open(Identity::Reader)?,
            janitor: open(Identity::Janitor)?,
            recipients,
            tenant,
            escrow,
            archive: format!("conformance-{random:016x}").parse().map_err(|error| chain(&error))?,
            began: now(),
            folders: vec![],
            lines: vec![],
        })
    }

    /// The key whose signatures count.
    pub fn public(&self) -> PublicKey {
        self.keys.signing.public()
    }

    /// The archive, as its reader.
    pub fn archive(&self) -> Archive {
        Archive::new(
            self.reader.clone(),
            fetch::Options { retry: RetryRule::FEW, ..fetch::Options::default() },
        )
    }

    /// Where one more backup goes. It has a slot of its own, and is taken away with the others.
    ///
    /// # Errors
    /// If no place can be named, in words.
    pub fn folder(&mut self) -> Result<Folder, String> {
        let number = i64::try_from(self.folders.len()).unwrap_or_default();
        let at = self.began.saturating_add(SignedDuration::from_secs(number)).unwrap_or(self.began);
        let attempt: Attempt = uuid(rand::random()).parse().map_err(|error| chain(&error))?;
        let slot = Slot::at(at).map_err(|error| chain(&error))?;
        let folder = Folder { archive: self.archive.clone(), slot, attempt };
        self.folders.push(folder.clone());
        Ok(folder)
    }

    /// Says that `what` is not as it must be, and that nothing after it is tried.
    pub fn failed(&mut self, area: &'static str, what: &str, why: impl Into<String>) -> CutShort {
        self.lines.push(Line::wrong(area, what, why));
        CutShort
    }

    /// Takes away what was written, as the janitor. What a lock keeps is told, with its end.
    pub async fn clean(&mut self) {
        let what = "the janitor takes away what this wrote";
        match self.erase().await {
            Err(why) => self.lines.push(Line::wrong(AREA, what, why)),
            Ok(all) => {
                let claimed = self.store.lock().is_some();
                let versions: u64 = all.iter().map(|erased| erased.versions).sum();
                let unkept = all.iter().filter(|erased| erased.kept.is_none() && erased.versions > 0).count();
                let kept = all.iter().find_map(|erased| erased.kept.as_ref());
                self.lines.push(match (kept, claimed) {
                    (_, true) if unkept > 0 => {
                        let seen = format!(
                            "{versions} versions went, and a lock is claimed that should keep backups"
                        );
                        Line::wrong(AREA, "what is locked cannot be deleted", seen)
                    }
                    (Some(kept), _) => {
                        let until = kept
                            .until
                            .map_or("a time that it does not say".to_owned(), |until| until.to_string());
                        let seen = format!("{} is locked until {until}", kept.key);
                        Line::must(AREA, "what is locked cannot be deleted", claimed, seen)
                    }
                    (None, _) => Line::must(AREA, what, true, format!("{versions} versions")),
                });
            }
        }
        let prefix = self.store.prefix.as_ref().map(|prefix| format!("{prefix}/")).unwrap_or_default();
        let key = public_key::key_of(&self.public().id());
        if self.store.lock().is_some() {
            let left = format!("{prefix}v1/{}/ and {prefix}{key}", self.archive);
            self.lines.push(Line::told(AREA, "left until its lock ends: delete it then", left));
            return;
        }
        let what = "nothing is left";
        self.lines.push(match self.left(&key).await {
            Ok(left) if left.is_empty() => Line::must(AREA, what, true, "no version, and no delete marker"),
            Ok(left) => {
                Line::wrong(AREA, what, format!("{} are there, the first {prefix}{}", left.len(), left[0]))
            }
            Err(error) => Line::wrong(AREA, what, chain(&error)),
        });
    }

    /// Deletes each backup, and then what belongs to none. What came of each backup.
    async fn erase(&self) -> Result<Vec<Erased>, String> {
        let reader = self.archive();
        let eraser = Eraser { reader: &reader, janitor: &self.janitor, now: (self.now)() };
        let mut all = vec![];
        for folder in &self.folders {
            let found = reader.commit(&folder.archive, folder.slot, &[self.public()]).await;
            let version = found.ok().and_then(|found| found.version);
            let erased = eraser.backup(folder, version.as_ref()).await;
            all.push(erased.map_err(|error| chain(&error))?);
        }
        if let Some(owner) = Owner::key(&self.archive) {
            eraser.object(&owner.to_string()).await.map_err(|error| chain(&error))?;
        }
        if self.store.lock().is_none() {
            let key = public_key::key_of(&self.public().id());
            eraser.object(&key).await.map_err(|error| chain(&error))?;
        }
        Ok(all)
    }

    /// The keys under which there still is a version or a delete marker.
    async fn left(&self, key: &str) -> Result<Vec<String>, bucket::Error> {
        let mut left = vec![];
        let archive = self.archive();
        for prefix in [&format!("v1/{}/", self.archive), key] {
            let found = archive.each_version(prefix, |line| {
                left.push(line.key);
                true
            });
            found.await?;
        }
        Ok(left)
    }
}

/// A UUID of `random`.
fn uuid(random: u128) -> String {
    let hex = format!("{random:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
