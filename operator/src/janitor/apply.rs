//! Brings a ward to the plan: locks, then terms and the register, then `Backup` objects, then what goes; and garbage last.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tracing::{debug, info, warn};
use valv_crds::Slot;

use super::{
    Context, Error,
    check::Ward,
    history::{self, Departure},
    observe::{self, Access, InUse, Lineage, Seen},
    plan::Plan,
};
use crate::{
    archive::{
        erase::{self, Erased, Eraser, Kept, Stillness},
        layout::Folder,
        lock,
        records::RecordVersion,
        register::Register,
        terms::Terms,
    },
    error::chain,
    io::bucket::{LockMode, Put, Version},
};

/// What became of the plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Whose locks are longer now.
    pub extended: BTreeMap<Slot, Timestamp>,
    /// Backups that are gone.
    pub deleted: Vec<Slot>,
    /// What attempts had left, and is gone: so many folders.
    pub garbage: u64,
    /// What a lock keeps, though the catalogue did not say so.
    pub kept: Vec<Kept>,
    /// The version of the register that was written; the latter absent: the store has no versions.
    pub registered: Option<Option<Version>>,
    /// What became of the `Backup` objects.
    pub history: history::Outcome,
    /// What stopped the rest.
    pub failure: Option<Error>,
}

/// Carries `plan` out. Nothing is deleted after anything failed, but that something of one backup is gone.
pub async fn apply(
    ward: &Ward,
    access: &Access,
    seen: &Seen,
    plan: &Plan,
    context: &Context,
    now: Timestamp,
) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.failure = carry_out(ward, access, seen, plan, context, now, &mut outcome).await.err();
    outcome
}

async fn carry_out(
    ward: &Ward,
    access: &Access,
    seen: &Seen,
    plan: &Plan,
    context: &Context,
    now: Timestamp,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    // No `..`: a new part of the plan does not compile until somebody decides when it is done.
    let Plan {
        keep: _,
        extend,
        delete,
        blocked: _,
        missing,
        forgotten,
        uncopied,
        waits: _,
        held_back: _,
        record,
        register,
    } = plan;
    let mode = ward.store.claimed_mode().unwrap_or(LockMode::Compliance);
    let mut lost = None;
    for (slot, until) in extend {
        if let Some(end) = ends(ward, context) {
            return end;
        }
        let Some(entry) = seen.catalogue.entries.get(slot) else { continue };
        // Stores keep whole seconds.
        let until = Timestamp::from_second(until.as_second().saturating_add(1)).unwrap_or(*until);
        // What retention has counted as lost has nothing to be locked by; the rest goes on.
        if seen.lineage.get(slot) == Some(&Lineage::Damaged) {
            warn!(%slot, "the manifest of a backup is not what was committed: its locks are not extended");
            continue;
        }
        match lock::extend(&access.reader, &access.committer, entry, until, mode).await {
            Ok(_) => {}
            // One that lost something keeps no other from being locked and looked after: it is told at the end.
            Err(source) if source.is_of_this_backup() => {
                warn!(%slot, error = chain(&source), "what a backup has lost cannot be locked; the others are");
                lost.get_or_insert(Error::Extend { slot: *slot, source: Box::new(source) });
                continue;
            }
            Err(source) => return Err(Error::Extend { slot: *slot, source: Box::new(source) }),
        }
        info!(%slot, %until, "extended the locks of a backup");
        history::note_lock(ward, seen, *slot, until, context).await?;
        outcome.extended.insert(*slot, until);
    }
    if let Some(end) = ends(ward, context) {
        return end;
    }
    if let Some(terms) = record {
        write_down(terms, access).await?;
    }
    // Before the register forgets them: if this fails, the same word is heeded at the next look.
    for slot in forgotten {
        history::depart(ward, seen, *slot, Departure::Forgotten, context, now).await?;
        info!(%slot, "a commit that is gone is missed no more: somebody has acknowledged it");
    }
    // Before anything goes: what is not let go there is missed.
    if let Some(register) = register {
        outcome.registered = Some(enter(ward, register, seen, access, now).await?);
    }
    let gone = history::Gone { missing, forgotten, uncopied };
    outcome.history = history::apply(ward, access, seen, &gone, context, now).await?;
    let eraser = Eraser { reader: &access.reader, janitor: &access.janitor, now };
    for slot in delete {
        let Some(entry) = seen.catalogue.entries.get(slot) else { continue };
        if let Some(end) = ends(ward, context) {
            return end;
        }
        // Minutes have passed since it was looked: a drill may have begun.
        let InUse { slots, unknown } = observe::in_use(ward, context).await;
        if slots.contains_key(slot) || unknown.is_some() {
            info!(%slot, "a backup that retention lets go may be being restored: it stays this time");
            continue;
        }
        history::depart(ward, seen, *slot, Departure::LetGo, context, now).await?;
        let erased = eraser.backup(&entry.commit.folder(), entry.version.as_ref()).await;
        let Erased { versions, strangers, kept } = erased.map_err(|source| Error::Erase {
            what: format!("the backup {slot}"),
            source: Box::new(source),
        })?;
        info!(%slot, versions, strangers, kept = kept.is_some(), "retention deleted a backup");
        match kept {
            None => outcome.deleted.push(*slot),
            Some(kept) => outcome.kept.push(kept),
        }
    }
    lost.map_or(Ok(()), Err)
}

/// Deletes `garbage`, asking for each folder once more whether it is committed, whether somebody may write there, and
/// whether anything was put there since `age` ago.
///
/// # Errors
/// If the store refuses for another reason than a lock.
pub async fn erase(
    garbage: &[Folder],
    age: Duration,
    ward: &Ward,
    access: &Access,
    context: &Context,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let trusted = access.keys.trusted();
    for folder in garbage {
        if let Some(end) = ends(ward, context) {
            return end;
        }
        let now = (context.now)();
        let eraser = Eraser { reader: &access.reader, janitor: &access.janitor, now };
        let is_still = is_still(ward, folder.slot, context);
        let since = now.saturating_sub(age).unwrap_or(Timestamp::MIN);
        let erased = eraser.garbage(folder, &trusted, Stillness { since, is_still: &is_still }).await;
        match erased {
            Ok(None) => {
                info!(%folder, "what looked like garbage is committed, or somebody wrote there lately; it stays")
            }
            Ok(Some(Erased { kept: Some(kept), .. })) => outcome.kept.push(kept),
            Ok(Some(Erased { versions, .. })) => {
                info!(%folder, versions, "deleted what an attempt had left");
                outcome.garbage += 1;
            }
            Err(erase::Error::Disturbed) => {
                info!(%folder, "somebody is about to write there: what is left of it stays");
            }
            Err(source) => {
                return Err(Error::Erase { what: folder.to_string(), source: Box::new(source) });
            }
        }
    }
    Ok(())
}

/// Says whether nobody is about to write a backup of `slot` to the ward's store. All that is in memory is gone through
/// for it: once a second at most.
fn is_still<'a>(ward: &'a Ward, slot: Slot, context: &'a Context) -> impl Fn() -> bool + Sync + 'a {
    let answer = Mutex::new((Timestamp::MIN, true));
    move || {
        let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (context.now)();
        if now.duration_since(answer.0) >= AGAIN_AFTER {
            *answer = (now, !observe::is_being_written(ward, slot, context));
        }
        answer.1
    }
}

/// How the look ends before it is done, if it does: whoever was replaced does nothing more, and a store that fails others
/// is left alone.
fn ends(ward: &Ward, context: &Context) -> Option<Result<(), Error>> {
    if let Err(reason) = context.cluster.leads() {
        warn!(?reason, "this operator no longer leads: the rest is left to the one that does");
        return Some(Ok(()));
    }
    let store = ward.store.name.clone();
    let until = context.breakers.left_alone_until(&store, (context.now)())?;
    Some(Err(Error::Resting { store, until }))
}

/// Puts the terms into the archive.
async fn write_down(terms: &Terms, access: &Access) -> Result<(), Error> {
    let Some(key) = Terms::key(&terms.archive) else { return Ok(()) };
    let bytes = terms.seal(&access.keys.signing).map_err(Error::Describe)?;
    access.committer.put(&key.to_string(), bytes.into(), &Put::default()).await.map_err(Error::Record)?;
    info!(policy = terms.policy, holds = terms.holds.len(), "wrote the terms of the archive down");
    Ok(())
}

/// Puts the register into the archive, and takes away what it replaces, as far as no lock keeps that. Says which version
/// it is.
///
/// # Errors
/// If it could not be put.
pub async fn enter(
    ward: &Ward,
    register: &Register,
    seen: &Seen,
    access: &Access,
    now: Timestamp,
) -> Result<Option<Version>, Error> {
    let Some(key) = Register::key(&register.archive).map(|key| key.to_string()) else { return Ok(None) };
    let bytes = register.seal(&access.keys.signing).map_err(Error::Describe)?;
    let days = ward.store.object_lock.map(|lock| SignedDuration::from_hours(24 * i64::from(lock.days)));
    let put = Put {
        retain_until: days
            .and_then(|days| now.checked_add(days).ok())
            .and_then(|until| Timestamp::from_second(until.as_second()).ok()),
        lock_mode: ward.store.claimed_mode().unwrap_or(LockMode::Compliance),
        ..Put::default()
    };
    let version = access.committer.put(&key, bytes.into(), &put).await.map_err(Error::Record)?;
    info!(committed = register.committed.len(), number = register.number, "wrote the register down");
    for old in outdated(&seen.replaced, days.unwrap_or_default(), now) {
        if let Err(error) = access.janitor.delete(&key, old.version.as_ref()).await {
            debug!(error = chain(&error), "an old register stays");
        }
    }
    Ok(version)
}

/// Of the registers that were `replaced`, the newest first, those that go: which no lock of so many `days` keeps any more,
/// the oldest first.
fn outdated(replaced: &[RecordVersion], days: SignedDuration, now: Timestamp) -> Vec<&RecordVersion> {
    // The newest of those that are replaced stay, for whoever asks what was there.
    let old = replaced.iter().skip(REPLACED_KEPT);
    let is_free = |old: &&RecordVersion| {
        // The clocks differ by minutes at most.
        old.put.is_some_and(|put| now.duration_since(put) > days + SignedDuration::from_hours(1))
    };
    let mut outdated: Vec<_> = old.filter(is_free).collect();
    outdated.reverse();
    outdated.truncate(MOST_OUTDATED);
    outdated
}

/// So many registers that were replaced stay.
const REPLACED_KEPT: usize = 8;

/// So many go with one that is written: there is one a day.
const MOST_OUTDATED: usize = 32;

/// How often it is asked who is about to write to what goes.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_that_no_lock_keeps_any_more_go_and_the_newest_of_them_stay() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let day = |count: i64| SignedDuration::from_hours(24 * count);
        // One a day, the newest first.
        let replaced: Vec<RecordVersion> = (1..=100)
            .map(|ago| RecordVersion {
                version: Some(Version::new(format!("v{ago}"))),
                put: Some(now - day(ago)),
            })
            .collect();
        let names = |days: i64| {
            let gone = outdated(&replaced, day(days), now);
            gone.iter().map(|old| old.version.as_ref().unwrap().as_str().to_owned()).collect::<Vec<_>>()
        };

        assert_eq!(names(97), ["v100", "v99", "v98"], "what is locked is not asked for");
        assert_eq!(names(0).len(), MOST_OUTDATED);
        assert!(outdated(&replaced[..8], day(0), now).is_empty());
    }
}
