//! Brings the cluster, and the target, to the next step.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use tracing::info;
use valv_crds::{backup::BackupReason, reference::TAKE_OVER_ARCHIVE_ANNOTATION};

use super::{Context, check::Copy, objects, plan::Step};
use crate::{
    agent::{copy::Arrived, last_words::Verified, verify::Depth},
    archive::{
        Archive, canonical, catalogue,
        commit::{self, Commit, ManifestRef},
        copy::{self, Outline},
        fetch::{self, FoundCommit},
        finding::{Finding, Flaw},
        manifest::FORMAT,
        retry::{self, RetryRule},
        verify::Mode,
    },
    backup::{
        claim,
        owner::{Owner, TakeOver},
    },
    error::chain,
    io::{
        bucket::{self, Bucket, Put, SettingsError},
        cluster::{self, Cluster},
        kind::{Key, Kind},
    },
    signing,
    signing::Keys,
    store::{
        check::{Identity, Store},
        observe::{self as identities, Unresolved},
    },
};

/// So much shorter may a lock be, counted from the commit, than the store's says: a copy takes a day at most, and what an
/// earlier try had locked half a day before is not sent again.
const LONGEST_COPY: SignedDuration = SignedDuration::from_hours(36);

/// A copy could not be brought further. The next round tries again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster refused or did not answer.
    #[error("failed to ask the cluster")]
    Cluster(#[source] cluster::Error),
    /// A store's credentials are not there.
    #[error("failed to find the credentials of {store}")]
    Credentials {
        /// Whose.
        store: String,
        /// Why not.
        source: Unresolved,
    },
    /// A store's settings cannot be used.
    #[error("failed to prepare the store {store}")]
    Settings {
        /// Which store.
        store: String,
        /// Why not.
        source: SettingsError,
    },
    /// The signing key could not be had.
    #[error("failed to get the signing key")]
    Signing(#[source] signing::Error),
    /// A store could not be read.
    #[error("failed to read {store}")]
    Read {
        /// Which store.
        store: String,
        /// Why not.
        source: Box<fetch::Error>,
    },
    /// What retention let go in the target cannot be read.
    #[error("failed to read what retention let go")]
    Register(#[source] Box<catalogue::Error>),
    /// The commit could not be put.
    #[error("failed to put the commit of the copy")]
    Put(#[source] bucket::Error),
    /// The commit has no canonical form.
    #[error("failed to write the commit of the copy down")]
    Canonical(#[source] canonical::Error),
}

/// What became of a step.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The copy's commit, which was put now or was there.
    pub committed: Option<Box<FoundCommit>>,
    /// Why what is there is not committed.
    pub refused: Option<(BackupReason, String)>,
    /// Whether a Job was made.
    pub begun: Option<i32>,
}

/// A store, as the operator asks it.
struct Access {
    reader: Archive,
    committer: Bucket,
}

/// Takes the step.
///
/// # Errors
/// If the cluster or a store refuses or does not answer.
pub async fn apply(copy: &Copy, step: &Step, context: &Context, now: Timestamp) -> Result<Outcome, Error> {
    match step {
        Step::Begins { number } => begin(copy, *number, context).await,
        Step::Commits { arrived, depth, .. } => commit(copy, arrived, *depth, context, now).await,
        Step::Done | Step::Rests | Step::Waits { .. } | Step::Runs { .. } | Step::Failed { .. } => {
            Ok(Outcome::default())
        }
    }
}

/// Takes away the Job whose copy is committed, or cannot be.
///
/// # Errors
/// If the cluster refuses or does not answer.
pub async fn tidy(step: &Step, outcome: &Outcome, context: &Context) -> Result<(), Error> {
    let Step::Commits { job, .. } = step else { return Ok(()) };
    if outcome.committed.is_none() && outcome.refused.is_none() {
        return Ok(());
    }
    let namespace = &context.settings.operator_namespace;
    let key = Key::new(Kind::Job, job);
    let found = context.cluster.get::<k8s_openapi::api::batch::v1::Job>(Kind::Job, namespace, job).await;
    let Some(found) = found.map_err(Error::Cluster)? else { return Ok(()) };
    let standing = serde_json::to_value(found).and_then(serde_json::from_value);
    match standing {
        Ok(standing) => context.cluster.delete(&key, &standing).await.map_err(Error::Cluster),
        Err(_) => Ok(()),
    }
}

/// Makes the Job, unless the target has the copy: a crash, or another cluster before this one, left it.
async fn begin(copy: &Copy, number: i32, context: &Context) -> Result<Outcome, Error> {
    let keys = signing_keys(context).await?;
    let (source, target) = (open(&copy.source, context).await?, open(&copy.target, context).await?);
    let original = match found(copy, &copy.source, &source, &keys, context).await? {
        Found::Commit(commit) => commit,
        Found::Nothing => {
            let message = format!("its commit is not in {} any more", copy.source.name);
            return Ok(refused(BackupReason::CatalogueRolledBack, message));
        }
        Found::Strange(message) => return Ok(refused(BackupReason::SignatureInvalid, message)),
    };
    match found(copy, &copy.target, &target, &keys, context).await? {
        Found::Commit(there) if there.commit.attempt == original.commit.attempt => Ok(adopted(there)),
        Found::Commit(there) => {
            let message = format!(
                "{} has another backup of this slot, of the attempt {}",
                copy.target.name, there.commit.attempt
            );
            Ok(refused(BackupReason::SlotTaken, message))
        }
        Found::Strange(message) => Ok(refused(BackupReason::SignatureInvalid, message)),
        Found::Nothing => {
            let trusted = keys.trusted();
            let register = target.reader.register(&copy.archive, &copy.target.name, &trusted, None).await;
            let register = register.map_err(|source| Error::Register(Box::new(source)))?.register;
            if register.is_some_and(|register| register.let_go.contains(&copy.slot)) {
                let message = format!("retention deleted it in {}", copy.target.name);
                return Ok(refused(BackupReason::Expired, message));
            }
            if let Some(refused) = claim(copy, &target, &keys, context).await? {
                return Ok(refused);
            }
            let job = objects::job(copy, &original.commit.manifest, &context.settings, number);
            context.cluster.apply(&job.key, &job.value, None).await.map_err(Error::Cluster)?;
            info!(object.kind = "Job", object.name = job.key.name, "began to copy");
            Ok(Outcome { begun: Some(number), ..Outcome::default() })
        }
    }
}

/// Compares what arrived with the original, and commits it.
async fn commit(
    copy: &Copy,
    arrived: &Arrived,
    depth: Depth,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let keys = signing_keys(context).await?;
    let (source, target) = (open(&copy.source, context).await?, open(&copy.target, context).await?);
    let original = match found(copy, &copy.source, &source, &keys, context).await? {
        Found::Commit(commit) => commit,
        Found::Nothing | Found::Strange(_) => {
            let message = format!("its commit is not in {} any more", copy.source.name);
            return Ok(refused(BackupReason::CatalogueRolledBack, message));
        }
    };
    let original_manifest = manifest(&copy.source, &source, &original.commit.manifest, context).await?;
    let arrived_manifest = manifest(&copy.target, &target, &arrived.manifest, context).await?;
    let (original_manifest, arrived_manifest) = match (original_manifest, arrived_manifest) {
        (Manifested::Whole(one), Manifested::Whole(other)) => (one, other),
        (Manifested::Broken(why), _) | (_, Manifested::Broken(why)) => {
            return Ok(refused(BackupReason::ManifestInvalid, why));
        }
    };
    if let Some(message) = doubt(copy, arrived, depth, &arrived_manifest) {
        return Ok(refused(BackupReason::ManifestInvalid, message));
    }
    if let Err(message) = copy.target.locks_long_enough(arrived.verified.locked_until, now, LONGEST_COPY) {
        return Ok(refused(BackupReason::LockTooShort, message));
    }
    let compared = copy::differs((&source.reader, &original_manifest), (&target.reader, &arrived_manifest));
    match compared.await {
        Ok(None) => {}
        Ok(Some(difference)) => return Ok(refused(BackupReason::ManifestInvalid, difference)),
        Err(fetch::Error::Broken(finding)) => {
            return Ok(refused(BackupReason::ManifestInvalid, finding.to_string()));
        }
        Err(error) => {
            return Err(Error::Read { store: copy.target.name.clone(), source: Box::new(error) });
        }
    }
    let wanted = commit_of(copy, &original.commit, arrived, now);
    let sealed = wanted.seal(&keys.signing).map_err(Error::Canonical)?;
    let name = Commit::key(&copy.archive, copy.slot).to_string();
    let put = Put {
        on_existing: copy.target.on_existing(),
        // Never longer than what it names: whoever looks at the commit alone knows of all.
        retain_until: wanted.retain_until,
        lock_mode: copy.target.claimed_mode().unwrap_or_default(),
        ..Put::default()
    };
    if let Some(refused) = claim(copy, &target, &keys, context).await? {
        return Ok(refused);
    }
    if let Found::Nothing = found(copy, &copy.target, &target, &keys, context).await? {
        leads(&context.cluster)?;
        match retry::put(&target.committer, &name, sealed.into(), &put, RetryRule::FEW).await {
            Ok(_) => {}
            Err(error) if error.kind == bucket::Kind::PreconditionFailed => {}
            Err(error) => return Err(Error::Put(error)),
        }
    }
    match found(copy, &copy.target, &target, &keys, context).await? {
        Found::Commit(there) if there.commit.attempt == wanted.attempt => {
            info!(slot = %copy.slot, "committed a copy");
            Ok(adopted(there))
        }
        Found::Commit(there) => Ok(refused(
            BackupReason::SlotTaken,
            format!(
                "{} has another backup of this slot, of the attempt {}",
                copy.target.name, there.commit.attempt
            ),
        )),
        Found::Strange(message) => Ok(refused(BackupReason::SignatureInvalid, message)),
        Found::Nothing => Ok(Outcome::default()),
    }
}

/// Whoever was replaced commits nothing more.
fn leads(cluster: &Cluster) -> Result<(), Error> {
    cluster.leads().map_err(|source| {
        Error::Cluster(cluster::Error::Fenced {
            verb: "commit",
            key: "a copy".to_owned(),
            namespace: "a store".to_owned(),
            source,
        })
    })
}

fn refused(reason: BackupReason, message: String) -> Outcome {
    Outcome { refused: Some((reason, message)), ..Outcome::default() }
}

fn adopted(there: Box<FoundCommit>) -> Outcome {
    Outcome { committed: Some(there), ..Outcome::default() }
}

/// A manifest that was read, or what is wrong with it.
enum Manifested {
    Whole(Box<Outline>),
    Broken(String),
}

/// The manifest that `named` names. One that is not what it should be is no failure of the store.
async fn manifest(
    store: &Store,
    access: &Access,
    named: &ManifestRef,
    context: &Context,
) -> Result<Manifested, Error> {
    let read = access.reader.of_manifest(named, Outline::of).await;
    note(context, store, read.as_ref().err());
    match read {
        Ok(Ok(outline)) => Ok(Manifested::Whole(Box::new(outline))),
        Ok(Err(error)) => Ok(Manifested::Broken(format!("in {}: {}", store.name, chain(&error)))),
        Err(fetch::Error::Broken(finding)) => Ok(Manifested::Broken(format!("in {}: {finding}", store.name))),
        Err(error @ fetch::Error::Manifest { .. }) => {
            Ok(Manifested::Broken(format!("in {}: {}", store.name, chain(&error))))
        }
        Err(
            source @ (fetch::Error::Store(_) | fetch::Error::Commit { .. } | fetch::Error::Worker { .. }),
        ) => Err(Error::Read { store: store.name.clone(), source: Box::new(source) }),
    }
}

fn note(context: &Context, store: &Store, error: Option<&fetch::Error>) {
    let ended = (context.now)();
    match error {
        Some(fetch::Error::Store(error)) if error.is_of_the_store() => {
            context.breakers.failed(&store.name, ended);
        }
        // What went wrong on this side says nothing of the store.
        Some(fetch::Error::Worker { .. }) => {}
        Some(_) | None => context.breakers.answered(&store.name, ended),
    }
}

/// What lies under the key of the slot's commit.
enum Found {
    Commit(Box<FoundCommit>),
    Nothing,
    Strange(String),
}

async fn found(
    copy: &Copy,
    store: &Store,
    access: &Access,
    keys: &Keys,
    context: &Context,
) -> Result<Found, Error> {
    let found = access.reader.commit(&copy.archive, copy.slot, &keys.trusted()).await;
    note(context, store, found.as_ref().err());
    match found {
        Ok(found) => Ok(Found::Commit(Box::new(found))),
        Err(fetch::Error::Broken(Finding { flaw: Flaw::Missing, .. })) => Ok(Found::Nothing),
        Err(fetch::Error::Commit { key, source }) => {
            Ok(Found::Strange(format!("in {}: {key} is not to be believed: {source}", store.name)))
        }
        Err(source) => Err(Error::Read { store: store.name.clone(), source: Box::new(source) }),
    }
}

/// What in the pod's words cannot be, when so much was to be read back.
fn doubt(copy: &Copy, arrived: &Arrived, depth: Depth, outline: &Outline) -> Option<String> {
    let Verified { mode, segments_read, segments, .. } = arrived.verified;
    let all = outline.segments;
    if (&outline.folder.archive, outline.folder.slot) != (&copy.archive, copy.slot) {
        return Some("the copy's manifest is of another backup".to_owned());
    }
    let (asked, wanted) = match depth {
        Depth::Full => (Mode::Full, all),
        Depth::Sample(segments) => (Mode::Sample, segments.min(all)),
        Depth::Metadata => (Mode::Metadata, 0),
    };
    if mode != asked && mode != Mode::Full {
        return Some(format!("{asked:?} was to be read back, and {mode:?} was"));
    }
    let wanted = if mode == Mode::Full { all } else { wanted };
    if segments != all || segments_read < wanted || segments_read > all {
        return Some(format!("{segments_read} of {segments} segments were read back, and there are {all}"));
    }
    None
}

/// The commit of the copy: the original's, but for what is another in each store.
fn commit_of(copy: &Copy, original: &Commit, arrived: &Arrived, now: Timestamp) -> Commit {
    let Verified { mode, seed, segments_read, segments, .. } = arrived.verified;
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Commit {
        manifest: arrived.manifest.clone(),
        // When, by the operator's clock: the pod's is not trusted.
        verified: commit::Verified { mode, seed, segments_read, segments, at: now },
        store: commit::Store {
            name: copy.target.name.clone(),
            region: copy.target.location.region.clone(),
            country: copy.target.location.country.clone(),
        },
        // What was seen when it was read back, not what was asked for.
        retain_until: arrived.verified.locked_until.filter(|_| copy.target.object_lock.is_some()),
        committed: now,
        ..original.clone()
    }
}

/// Whose the archive is, in the target too: two clusters with one second store must not commit into one archive.
async fn claim(
    copy: &Copy,
    target: &Access,
    keys: &Keys,
    context: &Context,
) -> Result<Option<Outcome>, Error> {
    let cluster = claim::cluster_id(&context.cluster, &context.cluster_id).await.map_err(Error::Cluster)?;
    let me = owner_of(copy, &cluster, &keys.signing.public().id().to_string(), (context.now)());
    let takes_over = match copy.tenant.annotations().get(TAKE_OVER_ARCHIVE_ANNOTATION) {
        Some(named) if *named == copy.archive.to_string() => TakeOver::Asked,
        Some(_) | None => TakeOver::NotAsked,
    };
    let on_existing = copy.target.on_existing();
    match claim::claim(&me, takes_over, &target.reader, &target.committer, on_existing, keys).await {
        Ok(_) => Ok(None),
        Err(claim::Error::Taken { by }) => {
            let message = format!("the archive {} in {} belongs to {by}", copy.archive, copy.target.name);
            Ok(Some(refused(BackupReason::ArchiveTaken, message)))
        }
        Err(claim::Error::Fetch(source)) => {
            Err(Error::Read { store: copy.target.name.clone(), source: Box::new(source) })
        }
        Err(claim::Error::Put(source)) => Err(Error::Put(source)),
        Err(claim::Error::Canonical(source)) => Err(Error::Canonical(source)),
    }
}

fn owner_of(copy: &Copy, cluster: &str, key_id: &str, now: Timestamp) -> Owner {
    let status = copy.tenant.status.as_ref();
    Owner {
        format: FORMAT,
        archive: copy.archive.clone(),
        tenant: copy.tenant.name_any(),
        tenant_uid: copy.tenant.uid().unwrap_or_default(),
        cluster: cluster.to_owned(),
        system_identifier: status.and_then(|status| status.database.system_identifier.clone()),
        key_id: key_id.to_owned(),
        since: Timestamp::from_second(now.as_second()).unwrap_or(now),
    }
}

async fn signing_keys(context: &Context) -> Result<Arc<Keys>, Error> {
    let namespace = &context.settings.operator_namespace;
    context.signing.keys(&context.cluster, namespace).await.map_err(Error::Signing)
}

async fn open(store: &Store, context: &Context) -> Result<Access, Error> {
    let namespace = &context.settings.operator_namespace;
    let found = identities::credentials(store, &context.cluster, namespace).await.map_err(Error::Cluster)?;
    let found = found.map_err(|source| Error::Credentials { store: store.name.clone(), source })?;
    let bucket = |identity| {
        Bucket::open(&store.settings(found.of(identity).clone()))
            .map_err(|source| Error::Settings { store: store.name.clone(), source })
    };
    // The next round tries again.
    let retry = RetryRule { tries: 4, budget: 20, ..RetryRule::default() };
    let options = fetch::Options { ahead: 1, retry };
    Ok(Access {
        reader: Archive::new(bucket(Identity::Reader)?, options),
        committer: bucket(Identity::Committer)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        archive::{
            digest::Blake3,
            manifest::{Manifest, tests::empty},
        },
        copy::{check::tests::copies_for, observe::tests::arrived},
    };

    fn copy() -> Copy {
        copies_for(&["helsinki", "frankfurt"]).remove(0)
    }

    #[test]
    fn a_copy_s_commit_is_the_original_s_but_for_what_is_another_in_each_store() {
        let now: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
        let empty = empty();
        let original = Commit {
            format: FORMAT,
            archive: empty.archive.clone(),
            slot: empty.slot,
            attempt: empty.attempt.clone(),
            manifest: arrived().manifest,
            verified: commit::Verified {
                mode: Mode::Full,
                seed: None,
                segments_read: 3,
                segments: 3,
                at: now,
            },
            store: commit::Store { name: "helsinki".into(), region: "r".into(), country: "FI".into() },
            retain_until: Some(now),
            committed: now,
        };
        let mut arrived = arrived();
        arrived.manifest.blake3 = Blake3::of(b"another");
        // It was asked for, and the store did not do it.
        (arrived.locked_until, arrived.verified.locked_until) = (Some(now), None);

        let copied = commit_of(&copy(), &original, &arrived, now);

        assert_eq!((&copied.attempt, copied.slot), (&original.attempt, original.slot));
        assert_eq!((copied.manifest, copied.store.name.as_str()), (arrived.manifest.clone(), "frankfurt"));
        assert_eq!(copied.retain_until, None, "what was not seen to be locked is not said to be");
        arrived.verified.locked_until = Some(now);
        assert_eq!(commit_of(&copy(), &original, &arrived, now).retain_until, Some(now));
    }

    #[test]
    fn the_record_in_the_target_says_whose_the_copies_are() {
        let now = "2026-11-22T03:00:00Z".parse().unwrap();

        let owner = owner_of(&copy(), "c1", "k1", now);

        assert_eq!((owner.tenant.as_str(), owner.tenant_uid.as_str()), ("ada", "t1"));
        assert_eq!((owner.cluster.as_str(), owner.archive.to_string().as_str()), ("c1", "ada"));
    }

    #[test]
    fn what_a_pod_says_of_its_reading_has_to_add_up() {
        let empty = empty();
        let mut whole = arrived();
        (whole.verified.segments, whole.verified.segments_read) = (0, 0);
        let mut part = whole.clone();
        part.verified.segments_read = 1;

        let mut sample = whole.clone();
        sample.verified.mode = Mode::Sample;
        let mut metadata = whole.clone();
        metadata.verified.mode = Mode::Metadata;

        let of = |manifest: &Manifest| Outline::of(manifest.clone()).unwrap();
        let doubt = |arrived: &Arrived, manifest: &Manifest| {
            super::doubt(&copy(), arrived, Depth::Sample(8), &of(manifest))
        };

        assert_eq!(doubt(&whole, &empty), None);
        assert_eq!(doubt(&sample, &empty), None);
        assert!(doubt(&metadata, &empty).unwrap().contains("Sample was to be read back"));
        assert!(doubt(&part, &empty).is_some());
        assert!(doubt(&arrived(), &empty).is_some());
        let full = super::doubt(&copy(), &sample, Depth::Full, &of(&empty));
        assert!(full.unwrap().contains("Full was to be read back"), "by what its Job was told");
        let other = Manifest { archive: "bo".parse().unwrap(), ..empty };
        assert!(doubt(&whole, &other).is_some());
    }
}
