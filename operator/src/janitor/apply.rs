//! Brings a ward to the plan: locks, then terms and the register, then `Backup` objects, then what goes; and garbage last.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tracing::{debug, info, warn};
use valv_crds::Slot;

use super::{
    Context, Error,
    check::Ward,
    history,
    observe::{Access, Lineage, Seen},
    plan::Plan,
};
use crate::{
    archive::{
        erase::{Erased, Eraser, Kept},
        layout::Folder,
        lock,
        register::Register,
        terms::Terms,
    },
    error::chain,
    io::bucket::{LockMode, Put},
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
        record,
        register,
    } = plan;
    let mode = ward.store.claimed_mode().unwrap_or(LockMode::Compliance);
    let mut lost = None;
    for (slot, until) in extend {
        if !still_leads(context) {
            return Ok(());
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
    if !still_leads(context) {
        return Ok(());
    }
    if let Some(terms) = record {
        write_down(terms, access).await?;
    }
    // Before anything goes: what is not let go there is missed.
    if let Some(register) = register {
        enter(ward, register, seen, access, now).await?;
    }
    let gone = history::Gone { missing, forgotten, uncopied };
    outcome.history = history::apply(ward, access, seen, &gone, context, now).await?;
    let eraser = Eraser { reader: &access.reader, janitor: &access.janitor, now };
    for slot in delete {
        let Some(entry) = seen.catalogue.entries.get(slot) else { continue };
        if !still_leads(context) {
            return Ok(());
        }
        history::let_go(ward, seen, *slot, context, now).await?;
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

/// Deletes `garbage`, asking for each folder once more whether it is committed.
///
/// # Errors
/// If the store refuses for another reason than a lock.
pub async fn erase(
    garbage: &[Folder],
    access: &Access,
    context: &Context,
    now: Timestamp,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let eraser = Eraser { reader: &access.reader, janitor: &access.janitor, now };
    let trusted = access.keys.trusted();
    for folder in garbage {
        if !still_leads(context) {
            return Ok(());
        }
        let erased = eraser.garbage(folder, &trusted).await;
        let erased =
            erased.map_err(|source| Error::Erase { what: folder.to_string(), source: Box::new(source) })?;
        match erased {
            None => warn!(%folder, "what looked like garbage is committed; it stays"),
            Some(Erased { kept: Some(kept), .. }) => outcome.kept.push(kept),
            Some(Erased { versions, .. }) => {
                info!(%folder, versions, "deleted what an attempt had left");
                outcome.garbage += 1;
            }
        }
    }
    Ok(())
}

/// Whoever was replaced deletes nothing more.
fn still_leads(context: &Context) -> bool {
    match context.cluster.leads() {
        Ok(()) => true,
        Err(reason) => {
            warn!(?reason, "this operator no longer leads: the rest is left to the one that does");
            false
        }
    }
}

/// Puts the terms into the archive.
async fn write_down(terms: &Terms, access: &Access) -> Result<(), Error> {
    let Some(key) = Terms::key(&terms.archive) else { return Ok(()) };
    let bytes = terms.seal(&access.keys.signing).map_err(Error::Describe)?;
    access.committer.put(&key.to_string(), bytes.into(), &Put::default()).await.map_err(Error::Record)?;
    info!(policy = terms.policy, holds = terms.holds.len(), "wrote the terms of the archive down");
    Ok(())
}

/// Puts the register into the archive, and takes away what it replaces, as far as no lock keeps that.
async fn enter(
    ward: &Ward,
    register: &Register,
    seen: &Seen,
    access: &Access,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(key) = Register::key(&register.archive).map(|key| key.to_string()) else { return Ok(()) };
    let bytes = register.seal(&access.keys.signing).map_err(Error::Describe)?;
    let days = ward.store.object_lock.map(|lock| i64::from(lock.days));
    let put = Put {
        retain_until: days
            .and_then(|days| now.checked_add(SignedDuration::from_hours(24 * days)).ok())
            .and_then(|until| Timestamp::from_second(until.as_second()).ok()),
        lock_mode: ward.store.claimed_mode().unwrap_or(LockMode::Compliance),
        ..Put::default()
    };
    access.committer.put(&key, bytes.into(), &put).await.map_err(Error::Record)?;
    info!(committed = register.committed.len(), number = register.number, "wrote the register down");
    // The newest of those that are replaced stay, for whoever asks what was there.
    let old = seen.replaced.len().saturating_sub(REPLACED_KEPT);
    for version in seen.replaced.iter().take(old) {
        if let Err(error) = access.janitor.delete(&key, Some(version)).await {
            debug!(error = chain(&error), "an old register stays: a lock keeps it");
        }
    }
    Ok(())
}

/// So many registers that were replaced stay.
const REPLACED_KEPT: usize = 8;
