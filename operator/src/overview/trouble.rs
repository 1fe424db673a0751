//! What is wrong with a tenant's protection, the worst first. Pure.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::Timestamp;
use serde::Serialize;
use valv_crds::{BackupPolicy, BackupStore, JournalTenant, reference::ACKNOWLEDGE_TAMPERING_ANNOTATION};

use super::{ArchiveView, MeasuredBy, Overview, find};

/// Something that is wrong.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// One word, for machines.
    pub code: TroubleCode,
    /// A sentence, for people.
    pub message: String,
}

/// What is wrong, as one word.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum TroubleCode {
    /// The tenant names no policy: it is not backed up.
    Unprotected,
    /// The policy is not there, or cannot be followed.
    PolicyUnusable,
    /// Somebody changed what lies in a store.
    Tampering,
    /// Backups that were committed in a store are not there any more.
    CatalogueRolledBack,
    /// A drill ended, and something that it restored is still there.
    DrillNotTornDown,
    /// A store of the policy takes no backups.
    StoreNotReady,
    /// No complete backup came in time.
    BackupOverdue,
    /// The newest backup failed.
    BackupFailed,
    /// A store of the policy lacks copies that it should have.
    NotCopied,
    /// Nobody makes locks longer, or deletes what is too old, in a store.
    NotLookedAfter,
    /// A drill did not pass, and none of the same or a newer backup from that store has since.
    DrillFailed,
    /// A drill ended, and its signed record lies in no store.
    DrillNotRecorded,
    /// No drill came to a verdict in time.
    DrillOverdue,
    /// The policy asks for no drills.
    NotDrilled,
    /// The newest drill that was due took longer, or would have lost more, than was promised.
    ObjectivesMissed,
    /// A key was not proven in time.
    KeyProofOverdue,
    /// What would be deleted in a store waits for somebody's word.
    CleanUpWaits,
    /// What retention would delete stays, for nobody knows what could be restored without it.
    DeletionHeldBack,
    /// The journal itself is not as its spec asks.
    NotReady,
}

/// What is wrong with the tenant that `seen` is of.
pub fn troubles(
    seen: &Overview,
    tenant: &JournalTenant,
    policy: Option<&BackupPolicy>,
    stores: &BTreeMap<String, &BackupStore>,
    now: Timestamp,
) -> Vec<Trouble> {
    let mut found = vec![];
    let mut say = |code, message: String| found.push(Trouble { code, message });
    match (&seen.policy, policy) {
        (None, _) => say(
            TroubleCode::Unprotected,
            "it is not backed up: spec.backup names no policy and no recipients".to_owned(),
        ),
        (Some(name), None) => {
            say(TroubleCode::PolicyUnusable, format!("its policy {name} is not there"));
        }
        (Some(name), Some(policy)) => {
            let conditions = policy.status.as_ref().map(|status| status.conditions.as_slice());
            let ready = find(conditions.unwrap_or_default(), "Ready");
            if let Some(ready) = ready.filter(|ready| ready.status != "True") {
                let message = format!("its policy {name} is not ready ({}): {}", ready.reason, ready.message);
                say(TroubleCode::PolicyUnusable, message);
            }
        }
    }
    if !seen.tampering.is_empty() {
        let reports = seen.tampering.join(", ");
        let mut message = format!("what lies in a store was changed, as these report: {reports}");
        if let Some(newest) = seen.tampering_found.last() {
            let until = format!("{ACKNOWLEDGE_TAMPERING_ANNOTATION}={}", newest.found.0);
            let _ = write!(
                message,
                "; what drills found stays until somebody who has looked says so: kubectl annotate --overwrite journaltenant {} {until}",
                seen.tenant
            );
        }
        say(TroubleCode::Tampering, message);
    }
    for archive in seen.archives.iter().filter(|archive| !archive.missing.is_empty()) {
        let slots: Vec<String> = archive.missing.iter().take(3).map(ToString::to_string).collect();
        let message = format!(
            "backups that were committed in {} are not there any more, among them {}: nothing is deleted there until somebody has looked",
            archive.store,
            slots.join(", ")
        );
        say(TroubleCode::CatalogueRolledBack, message);
    }
    for drill in &seen.not_torn_down {
        let message = format!(
            "what drill {} restored is still there, though it ended {}: {}",
            drill.name, drill.ended, drill.message
        );
        say(TroubleCode::DrillNotTornDown, message);
    }
    for name in policy.map(|policy| policy.spec.stores.as_slice()).unwrap_or_default() {
        let Some(store) = stores.get(name) else { continue };
        let view = super::store_view(store);
        if view.ready != "True" {
            let message = format!("the store {name} is not ready ({}): {}", view.reason, view.message);
            say(TroubleCode::StoreNotReady, message);
        }
    }
    if let Some(due) = seen.backup_due.filter(|due| *due < now) {
        let message = match &seen.last_backup {
            Some(last) => format!("no backup since {}: the next one was due at {due}", last.slot),
            None => format!("it has no backup: the first one was due at {due}"),
        };
        say(TroubleCode::BackupOverdue, message);
    }
    if let Some(failed) = &seen.failed_backup {
        let message = format!("backup {} failed ({}): {}", failed.name, failed.reason, failed.message);
        say(TroubleCode::BackupFailed, message);
    }
    if seen.copies_missing > 0 {
        let message = format!(
            "{} backups have no copy in every store of the policy: the condition Copied of the Backups says why",
            seen.copies_missing
        );
        say(TroubleCode::NotCopied, message);
    }
    for archive in &seen.archives {
        if let Some(message) = not_looked_after(archive, now) {
            say(TroubleCode::NotLookedAfter, message);
        }
    }
    // The newest first.
    for drill in seen.failed_drills.iter().rev() {
        let from = drill.store.as_ref().map(|store| format!(" from {store}")).unwrap_or_default();
        let message = format!("drill {}{from} did not pass: {}", drill.name, drill.reason);
        say(TroubleCode::DrillFailed, message);
    }
    for drill in &seen.not_recorded {
        let message = format!(
            "the record of drill {} lies in no store, though it ended {}: {}",
            drill.name, drill.ended, drill.message
        );
        say(TroubleCode::DrillNotRecorded, message);
    }
    if let Some(due) = seen.drill_due.filter(|due| *due < now) {
        say(TroubleCode::DrillOverdue, format!("no drill came to a verdict in time: one was due at {due}"));
    }
    if policy.is_some_and(|policy| policy.spec.drill.is_none()) {
        say(
            TroubleCode::NotDrilled,
            "its policy asks for no drills: nobody knows that its backups can be restored".to_owned(),
        );
    }
    if let Some(message) = missed(seen) {
        say(TroubleCode::ObjectivesMissed, message);
    }
    for key in seen.keys.iter().filter(|key| key.due.is_some_and(|due| due < now)) {
        let message = match key.proven {
            Some(proven) => format!("the {:?} key was last proven at {proven}", key.role),
            None => format!("the {:?} key was never proven to open a backup", key.role),
        };
        say(TroubleCode::KeyProofOverdue, message);
    }
    for archive in &seen.archives {
        if let Some(digest) = &archive.awaits_acknowledgement {
            let message = format!(
                "a clean-up in {} waits for somebody's word (valv.eu/acknowledge-deletion={digest}): the tenant's events say what would go",
                archive.store
            );
            say(TroubleCode::CleanUpWaits, message);
        }
        if let Some(finding) = &archive.finding {
            say(TroubleCode::CleanUpWaits, format!("in {}: {finding}", archive.store));
        }
        if archive.held_back > 0 {
            let message = format!(
                "{} backups in {} are older than retention keeps them, and are not deleted: {}",
                archive.held_back,
                archive.store,
                archive.held_back_for.as_deref().unwrap_or("the next look says why")
            );
            say(TroubleCode::DeletionHeldBack, message);
        }
    }
    let conditions = tenant.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if let Some(ready) = find(conditions, "Ready").filter(|ready| ready.status != "True" && !seen.suspended) {
        say(TroubleCode::NotReady, format!("the journal is not ready ({}): {}", ready.reason, ready.message));
    }
    found
}

/// Why nobody looks after `archive`; `None`: it was looked after lately.
fn not_looked_after(archive: &ArchiveView, now: Timestamp) -> Option<String> {
    let store = &archive.store;
    if let Some(failure) = &archive.failure {
        return Some(format!(
            "its archive in {store} is not looked after, no lock is made longer there: {failure}"
        ));
    }
    let looked = archive.looked?;
    let is_long_ago = now.as_second().saturating_sub(looked.as_second()) > LOOKED_AFTER_SECONDS;
    is_long_ago.then(|| format!("its archive in {store} was last looked after at {looked}"))
}

/// An archive is looked after once a day, at a moment that is another each day: two days are the longest between.
const LOOKED_AFTER_SECONDS: i64 = 50 * 3600;

/// What the newest drills that were due measured above what was promised.
fn missed(seen: &Overview) -> Option<String> {
    let promised = seen.objectives?;
    let above = |name: &str, measured: &Option<MeasuredBy>, promised: i64| {
        let MeasuredBy { drill, seconds } =
            measured.as_ref().filter(|measured| measured.seconds > promised)?;
        Some(format!("drill {drill} measured {name} {seconds} s instead of {promised} s"))
    };
    let both = [
        above("recovery time", &seen.recovery_time, promised.rto_seconds),
        above("recovery point", &seen.recovery_point, promised.rpo_seconds),
    ];
    let both: Vec<String> = both.into_iter().flatten().collect();
    (!both.is_empty()).then(|| both.join("; "))
}
