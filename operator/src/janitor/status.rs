//! Says what became of a ward: in the tenant's status, and in events where there is news.

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Resource, ResourceExt};
use valv_crds::{JournalTenant, Slot, protection::KeptIn};

use super::{
    Context,
    apply::Outcome,
    check::Ward,
    observe::Seen,
    plan::{Plan, Waits, Why},
};
use crate::io::{
    cluster::Error,
    events::{self, News, Tone},
    kind::Kind,
};

/// Missing backups that are named.
const NAMED: usize = 16;

/// A status that somebody else wrote meanwhile is read and written again so often.
const TRIES: usize = 3;

/// What is kept, as it is told.
pub fn kept(ward: &Ward, seen: &Seen, plan: &Plan, outcome: &Outcome) -> KeptIn {
    let left = || seen.catalogue.entries.keys().filter(|slot| !outcome.deleted.contains(slot));
    let first_lock = plan.blocked.values().copied().min();
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    KeptIn {
        store: ward.store.name.clone(),
        backups: number(left().count()),
        oldest: left().next().copied(),
        newest: left().next_back().copied(),
        locked: number(plan.blocked.len()),
        locked_until: first_lock
            .map(|until| Time(Timestamp::from_second(until.as_second()).unwrap_or(until))),
        awaits_acknowledgement: plan.waits.as_ref().map(|waits| waits.digest.clone()),
        missing: plan.missing.iter().take(NAMED).copied().collect(),
    }
}

/// What is news, when `before` was told last.
pub fn news(ward: &Ward, seen: &Seen, plan: &Plan, outcome: &Outcome, before: Option<&KeptIn>) -> Vec<News> {
    let (store, archive) = (&ward.store.name, &ward.archive);
    let mut news = Vec::new();
    let mut say = |tone, reason: &str, note| news.push(News { tone, reason: reason.to_owned(), note });
    if !outcome.deleted.is_empty() {
        let note = format!(
            "retention deleted {} backups of {archive} in {store}: {}; {} are left",
            outcome.deleted.len(),
            listed(&outcome.deleted),
            seen.catalogue.entries.len() - outcome.deleted.len(),
        );
        say(Tone::Normal, "RetentionDeleted", note);
    }
    if !outcome.extended.is_empty() {
        let slots: Vec<Slot> = outcome.extended.keys().copied().collect();
        let note = format!("the locks of {} in {store} were made longer", listed(&slots));
        say(Tone::Normal, "LocksExtended", note);
    }
    let was_locked = before.map(|before| before.locked).unwrap_or_default();
    if let Some(until) = plan.blocked.values().min().filter(|_| !is_as_before(was_locked, plan.blocked.len()))
    {
        let note = format!(
            "retention would delete {} backups of {archive} in {store} which a lock keeps, the first until {until}",
            plan.blocked.len()
        );
        say(Tone::Normal, "KeptByLock", note);
    }
    for kept in outcome.kept.iter().take(3) {
        let until =
            kept.until.map_or_else(|| "a time that the store does not say".to_owned(), |at| at.to_string());
        say(Tone::Normal, "KeptByLock", format!("a lock keeps {} in {store} until {until}", kept.key));
    }
    let asked = before.and_then(|before| before.awaits_acknowledgement.as_ref());
    if let Some(waits) = plan.waits.as_ref().filter(|waits| asked != Some(&waits.digest)) {
        say(Tone::Warning, "AcknowledgementNeeded", question(ward, waits));
    }
    let was_missing = before.map(|before| before.missing.len()).unwrap_or_default();
    if !plan.missing.is_empty() && was_missing != plan.missing.len().min(NAMED) {
        let slots: Vec<Slot> = plan.missing.iter().copied().collect();
        let note = format!(
            "{} backups of {archive} that were committed in {store} are not in its catalogue: {}; nothing is deleted there until somebody has looked",
            slots.len(),
            listed(&slots)
        );
        say(Tone::Warning, "CatalogueRolledBack", note);
    }
    if seen.catalogue.covered.total > 0 {
        let note = format!(
            "something lies over commits of {archive} in {store}, and is seen through: {}",
            seen.catalogue.covered
        );
        say(Tone::Warning, "Tampered", note);
    }
    if let Some((slot, why)) = seen.catalogue.refused.first_key_value() {
        let note = format!(
            "{} commits of {archive} in {store} are not to be believed, the first of {slot}: {why}",
            seen.catalogue.refused.len()
        );
        say(Tone::Warning, "SignatureInvalid", note);
    }
    if !outcome.history.rebuilt.is_empty() {
        let note = format!("made from the catalogue in {store}: {}", listed(&outcome.history.rebuilt));
        say(Tone::Normal, "RebuiltFromCatalogue", note);
    }
    news
}

fn is_as_before(before: i32, now: usize) -> bool {
    usize::try_from(before).is_ok_and(|before| before == now)
}

/// What somebody is asked, and how to answer.
fn question(ward: &Ward, waits: &Waits) -> String {
    let Waits { digest, deletions, of, why } = waits;
    let why = match why {
        Why::Many => "which is more than usual",
        Why::Tightened => "some of which the rules of before would have kept",
    };
    let whose = match &ward.tenant {
        Some(tenant) => format!("journaltenant {}", tenant.name_any()),
        None => format!("backupstore {}", ward.store.name),
    };
    format!(
        "retention would delete {deletions} of {of} backups of {} in {}, {why}; if that is meant: kubectl annotate --overwrite {whose} valv.eu/acknowledge-deletion={digest}",
        ward.archive, ward.store.name
    )
}

/// The first few, and how many more.
fn listed(slots: &[Slot]) -> String {
    let first: Vec<String> = slots.iter().take(5).map(ToString::to_string).collect();
    match slots.len().saturating_sub(5) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Tells it.
///
/// # Errors
/// If the cluster refuses it.
pub async fn tell(
    ward: &Ward,
    seen: &Seen,
    plan: &Plan,
    outcome: &Outcome,
    context: &Context,
) -> Result<(), Error> {
    let kept = kept(ward, seen, plan, outcome);
    let Some(tenant) = &ward.tenant else {
        let news = news(ward, seen, plan, outcome, None);
        events::publish(&context.recorder, &ward.store.object.object_ref(&()), news).await;
        return Ok(());
    };
    let before = note(&tenant.name_any(), kept, context).await?;
    let news = news(ward, seen, plan, outcome, before.as_ref());
    let of: ObjectReference = tenant.object_ref(&());
    events::publish(&context.recorder, &of, news).await;
    Ok(())
}

/// Writes it into the tenant's status, and returns what stood there.
async fn note(tenant: &str, kept: KeptIn, context: &Context) -> Result<Option<KeptIn>, Error> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let found = context.cluster.get_cluster_scoped::<JournalTenant>("JournalTenant", tenant).await?;
        // One that has no status yet gets one from its own controller first.
        let Some((object, mut status)) =
            found.and_then(|object| object.status.clone().map(|status| (object, status)))
        else {
            return Ok(None);
        };
        let protection = status.backup.get_or_insert_default();
        let before = protection.kept.iter().find(|standing| standing.store == kept.store).cloned();
        protection.kept.retain(|standing| standing.store != kept.store);
        protection.kept.push(kept.clone());
        protection.kept.sort_by(|one, other| one.store.cmp(&other.store));
        match context.cluster.set_status(Kind::JournalTenant, &object, &status).await {
            Ok(_) => return Ok(before),
            Err(error) if error.is_conflict() && tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}
