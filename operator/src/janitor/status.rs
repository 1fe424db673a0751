//! Says what became of a ward: in the tenant's status, and in events where there is news.

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Resource, ResourceExt};
use tracing::warn;
use valv_crds::{
    JournalTenant, Slot,
    protection::{KeptIn, LastBackup, ProtectionStatus},
};

use super::{
    Context,
    apply::Outcome,
    check::Ward,
    observe::Seen,
    plan::{HeldBack, Plan, Waits, Why},
    rounds::Reach,
};
use crate::{
    error::chain,
    io::{
        cluster::Error,
        events::{self, News, Tone},
        kind::Kind,
    },
};

/// Of a failure so much is said.
const MOST_CHARS: usize = 1_000;

/// Missing backups that are named.
const NAMED: usize = 16;

/// A status that somebody else wrote meanwhile is read and written again so often.
const TRIES: usize = 3;

/// What is kept, as it is told.
pub fn kept(
    ward: &Ward,
    seen: &Seen,
    plan: &Plan,
    outcome: &Outcome,
    finding: Option<String>,
    now: Timestamp,
) -> KeptIn {
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
        uncopied: number(plan.uncopied.len()),
        held_back: plan.held_back.as_ref().map(|held| number(held.backups)).unwrap_or_default(),
        held_back_for: plan.held_back.as_ref().map(|held| held.why.chars().take(MOST_CHARS).collect()),
        looked: Timestamp::from_second(now.as_second()).ok().map(Time),
        failure: None,
        finding: finding.map(|finding| {
            format!("{finding}: somebody fills the store; what attempts left there is not deleted")
        }),
    }
}

/// What is news, when `before` was told last.
pub fn news(
    ward: &Ward,
    seen: &Seen,
    plan: &Plan,
    outcome: &Outcome,
    before: Option<&KeptIn>,
    kept_finding: Option<&String>,
) -> Vec<News> {
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
    if let Some(finding) =
        kept_finding.filter(|finding| before.and_then(|before| before.finding.as_ref()) != Some(*finding))
    {
        say(Tone::Warning, "StoreCrowded", format!("in {store}: {finding}"));
    }
    let was_held_back = before.is_some_and(|before| before.held_back > 0);
    if let Some(HeldBack { backups, why }) = plan.held_back.as_ref().filter(|_| !was_held_back) {
        let note = format!("{backups} backups of {archive} in {store} would be deleted, and are not: {why}");
        say(Tone::Warning, "DeletionHeldBack", note);
    }
    let was_damaged = seen.register.as_ref().map(|register| &register.damaged);
    let damaged = plan.register.as_ref().map(|register| &register.damaged);
    let newly = damaged
        .into_iter()
        .flatten()
        .filter(|(slot, _)| was_damaged.is_none_or(|was| !was.contains_key(slot)));
    for (slot, why) in newly.take(3) {
        let note =
            format!("{slot} of {archive} in {store} stands for nothing until a drill of it passes: {why}");
        say(Tone::Warning, "Damaged", note);
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
    let (archive, store) = (&ward.archive, &ward.store.name);
    let (what, answer) = match why {
        Why::Many => (
            format!(
                "retention would delete {deletions} of {of} backups of {archive} in {store}, which is more than usual"
            ),
            "if that is meant",
        ),
        Why::Tightened => (
            format!(
                "retention would delete {deletions} of {of} backups of {archive} in {store}, some of which the rules of before would have kept"
            ),
            "if that is meant",
        ),
        Why::Damaged => (
            format!(
                "retention would delete {deletions} of {of} backups of {archive} in {store}, which a drill or a copy found damaged"
            ),
            "when you know why and they are not needed",
        ),
        Why::Missing => (
            format!(
                "{deletions} backups of {archive} that were committed in {store} are gone, and nothing is deleted there until somebody has looked"
            ),
            "when you know why",
        ),
        Why::NeverCommitted => (
            format!(
                "{deletions} of {of} folders of data of {archive} in {store} have no commit; with a manifest, so that it may be their commit that was lost"
            ),
            "if they may be deleted",
        ),
        Why::Leftovers => (
            format!(
                "attempts left {deletions} folders of data of {archive} in {store}, which is more than usual"
            ),
            "if they may be deleted",
        ),
    };
    let whose = match &ward.tenant {
        Some(tenant) => format!("journaltenant {}", tenant.name_any()),
        None => format!("backupstore {}", ward.store.name),
    };
    format!("{what}; {answer}: kubectl annotate --overwrite {whose} valv.eu/acknowledge-deletion={digest}")
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
    finding: Option<String>,
    context: &Context,
) -> Result<(), Error> {
    let mut kept = kept(ward, seen, plan, outcome, finding, (context.now)());
    let finding = kept.finding.clone();
    let Some(tenant) = &ward.tenant else {
        let news = news(ward, seen, plan, outcome, None, finding.as_ref());
        events::publish(&context.recorder, &ward.store.object.object_ref(&()), news).await;
        return Ok(());
    };
    let replace = |standing: Option<&KeptIn>| {
        // What was not looked at is as it was.
        if ward.reach == Reach::Short {
            kept.uncopied = standing.map(|standing| standing.uncopied).unwrap_or_default();
        }
        if outcome.failure.is_some() {
            // Who looks next says why it stopped; when all was looked after last stands.
            kept.looked = standing.and_then(|standing| standing.looked.clone());
            kept.failure = standing.and_then(|standing| standing.failure.clone());
        }
        kept.clone()
    };
    let before = note(&tenant.name_any(), &ward.store.name, context, replace).await?;
    let news = news(ward, seen, plan, outcome, before.as_ref(), finding.as_ref());
    let of: ObjectReference = tenant.object_ref(&());
    events::publish(&context.recorder, &of, news).await;
    Ok(())
}

/// Tells that an archive could not be looked after, and why. What cannot be told is logged: the look failed already.
pub async fn tell_failure(ward: &Ward, error: &super::Error, context: &Context) {
    // Such a look asked nobody, and the store's own condition says it.
    if matches!(error, super::Error::Resting { .. }) {
        return;
    }
    let words: String = chain(error).chars().take(MOST_CHARS).collect();
    let news = || {
        let note = format!("{} in {} was not looked after: {words}", ward.archive, ward.store.name);
        vec![News { tone: Tone::Warning, reason: "NotLookedAfter".to_owned(), note }]
    };
    let Some(tenant) = &ward.tenant else {
        events::publish(&context.recorder, &ward.store.object.object_ref(&()), news()).await;
        return;
    };
    let failed = |standing: Option<&KeptIn>| with_failure(standing, &ward.store.name, &words);
    match note(&tenant.name_any(), &ward.store.name, context, failed).await {
        Ok(before) if before.as_ref().and_then(|before| before.failure.as_ref()) != Some(&words) => {
            events::publish(&context.recorder, &tenant.object_ref(&()), news()).await;
        }
        Ok(_) => {}
        Err(error) => warn!(
            archive = %ward.archive,
            store.name = ward.store.name,
            error = chain(&error),
            "failed to say that an archive was not looked after"
        ),
    }
}

/// Takes the backup of `slot`, which goes in the ward's store, out of what the tenant's status calls its newest one.
///
/// # Errors
/// If the cluster refuses it.
pub async fn forget_last(ward: &Ward, slot: Slot, context: &Context) -> Result<(), Error> {
    let Some(tenant) = &ward.tenant else { return Ok(()) };
    let last = |tenant: &JournalTenant| tenant.status.as_ref()?.backup.as_ref()?.last_backup.clone();
    if last(tenant).is_none_or(|last| last.slot != slot) {
        return Ok(());
    }
    change(&tenant.name_any(), context, |protection| {
        protection.last_backup =
            protection.last_backup.take().and_then(|last| without(last, slot, &ward.store.name));
    })
    .await
    .map(drop)
}

/// `last` without `store`, if it is of `slot`; `None`: it lies nowhere else.
fn without(mut last: LastBackup, slot: Slot, store: &str) -> Option<LastBackup> {
    if last.slot == slot {
        last.stores.retain(|name| name != store);
    }
    (!last.stores.is_empty()).then_some(last)
}

/// What stands, and that it could not be looked after since.
fn with_failure(standing: Option<&KeptIn>, store: &str, words: &str) -> KeptIn {
    let empty = || KeptIn {
        store: store.to_owned(),
        backups: 0,
        oldest: None,
        newest: None,
        locked: 0,
        locked_until: None,
        awaits_acknowledgement: None,
        missing: vec![],
        uncopied: 0,
        held_back: 0,
        held_back_for: None,
        looked: None,
        failure: None,
        finding: None,
    };
    KeptIn { failure: Some(words.to_owned()), ..standing.cloned().unwrap_or_else(empty) }
}

/// Writes it into the tenant's status, and returns what stood there.
async fn note(
    tenant: &str,
    store: &str,
    context: &Context,
    mut replace: impl FnMut(Option<&KeptIn>) -> KeptIn,
) -> Result<Option<KeptIn>, Error> {
    let mut before = None;
    let is_told = change(tenant, context, |protection| {
        before = protection.kept.iter().find(|standing| standing.store == store).cloned();
        protection.kept.retain(|standing| standing.store != store);
        protection.kept.push(replace(before.as_ref()));
        protection.kept.sort_by(|one, other| one.store.cmp(&other.store));
    });
    Ok(is_told.await?.and(before))
}

/// Changes what the tenant's status says of its backups; `None` if there is no status to change.
async fn change(
    tenant: &str,
    context: &Context,
    mut change: impl FnMut(&mut ProtectionStatus),
) -> Result<Option<()>, Error> {
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
        change(status.backup.get_or_insert_default());
        match context.cluster.set_status(Kind::JournalTenant, &object, &status).await {
            Ok(_) => return Ok(Some(())),
            Err(error) if error.is_conflict() && tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{
        archive::erase::Kept,
        janitor::{
            observe::tests::ward,
            plan::tests::{now, seen, slot},
        },
    };

    fn in_days(count: i64) -> Timestamp {
        now() + SignedDuration::from_hours(24 * count)
    }

    fn waits(digest: &str, why: Why) -> Waits {
        Waits { digest: digest.to_owned(), deletions: 12, of: 20, why }
    }

    /// What is told of five backups, of which `outcome` deleted some.
    fn told(plan: &Plan, outcome: &Outcome) -> KeptIn {
        kept(&ward(&[]), &seen(5), plan, outcome, None, now())
    }

    /// Reasons and notes of what is news of five backups.
    fn heard(ward: &Ward, plan: &Plan, outcome: &Outcome, before: Option<&KeptIn>) -> Vec<(String, String)> {
        let news = news(ward, &seen(5), plan, outcome, before, None);
        news.into_iter().map(|news| (news.reason, news.note)).collect()
    }

    #[test]
    fn what_is_kept_is_told_as_it_is_after_the_look() {
        let plan = Plan {
            // Stores keep whole seconds, and so is it told.
            blocked: [(slot(3), in_days(9) + SignedDuration::from_millis(500)), (slot(4), in_days(12))]
                .into(),
            uncopied: [slot(1)].into(),
            held_back: Some(HeldBack { backups: 2, why: "a drill failed. ".repeat(200) }),
            waits: Some(waits("d1", Why::Many)),
            ..Plan::default()
        };
        let outcome = Outcome { deleted: vec![slot(2), slot(4)], ..Outcome::default() };

        let kept = told(&plan, &outcome);

        assert_eq!((kept.store.as_str(), kept.backups), ("helsinki", 3));
        assert_eq!((kept.oldest, kept.newest), (Some(slot(3)), Some(slot(0))));
        assert_eq!((kept.locked, kept.locked_until), (2, Some(Time(in_days(9)))));
        assert_eq!(kept.awaits_acknowledgement.as_deref(), Some("d1"));
        assert_eq!((kept.uncopied, kept.held_back), (1, 2));
        assert_eq!(kept.held_back_for.unwrap().chars().count(), MOST_CHARS);
        assert_eq!((kept.looked, kept.failure, kept.finding), (Some(Time(now())), None, None));
    }

    #[test]
    fn of_backups_that_are_missing_the_first_few_are_named_and_where_there_is_nothing_nothing_is_told() {
        let plan = Plan { missing: (100..140).map(slot).collect(), ..Plan::default() };

        let oldest: Vec<Slot> = (124..140).rev().map(slot).collect();
        assert_eq!(told(&plan, &Outcome::default()).missing, oldest);
        let empty = kept(&ward(&[]), &seen(0), &Plan::default(), &Outcome::default(), None, now());
        let expected =
            KeptIn { looked: Some(Time(now())), failure: None, ..with_failure(None, "helsinki", "") };
        assert_eq!(empty, expected);
    }

    #[test]
    fn what_retention_deleted_is_news_with_the_first_few_and_how_many_are_left() {
        let outcome = Outcome { deleted: vec![slot(3), slot(4)], ..Outcome::default() };

        let heard = heard(&ward(&[]), &Plan::default(), &outcome, None);

        let note =
            format!("retention deleted 2 backups of ada in helsinki: {}, {}; 3 are left", slot(3), slot(4));
        assert_eq!(heard, [("RetentionDeleted".to_owned(), note)]);
        let many: Vec<Slot> = (0..7).map(slot).collect();
        assert!(listed(&many).ends_with(&format!("{} and 2 more", slot(4))), "{}", listed(&many));
        assert_eq!(super::tests::heard(&ward(&[]), &Plan::default(), &Outcome::default(), None), []);
    }

    #[test]
    fn what_a_lock_keeps_is_news_once_and_again_when_it_is_more() {
        let ward = ward(&[]);
        let blocked = |days: &[i64]| Plan {
            blocked: days.iter().map(|ago| (slot(*ago), in_days(20 - ago))).collect(),
            ..Plan::default()
        };
        let (one, two) = (blocked(&[4]), blocked(&[3, 4]));
        let before = told(&one, &Outcome::default());

        let first = heard(&ward, &one, &Outcome::default(), None);

        let note = format!(
            "retention would delete 1 backups of ada in helsinki which a lock keeps, the first until {}",
            in_days(16)
        );
        assert_eq!(first, [("KeptByLock".to_owned(), note)]);
        assert_eq!(heard(&ward, &one, &Outcome::default(), Some(&before)), []);
        let more = heard(&ward, &two, &Outcome::default(), Some(&before));
        assert_eq!(more.len(), 1);
        assert!(more[0].1.contains("2 backups") && more[0].1.ends_with(&in_days(16).to_string()), "{more:?}");
    }

    #[test]
    fn a_lock_that_the_catalogue_did_not_tell_of_is_news_and_until_when_as_far_as_the_store_says() {
        let kept = |until| Kept { key: "v1/ada/commits/x.json".to_owned(), until };
        let outcome = Outcome { kept: vec![kept(Some(in_days(3))), kept(None)], ..Outcome::default() };

        let heard = heard(&ward(&[]), &Plan::default(), &outcome, None);

        let notes: Vec<_> = heard.iter().map(|(reason, note)| (reason.as_str(), note.as_str())).collect();
        let until = format!("a lock keeps v1/ada/commits/x.json in helsinki until {}", in_days(3));
        let unsaid =
            "a lock keeps v1/ada/commits/x.json in helsinki until a time that the store does not say";
        assert_eq!(notes, [("KeptByLock", until.as_str()), ("KeptByLock", unsaid)]);
    }

    #[test]
    fn a_question_is_news_once_and_says_how_to_answer_it_on_the_tenant_or_on_the_store() {
        let asking = |digest: &str| Plan { waits: Some(waits(digest, Why::Many)), ..Plan::default() };
        let of_ada = ward(&[]);
        let of_nobody = Ward { tenant: None, ..of_ada.clone() };
        let asked = |ward: &Ward, plan: &Plan, before: Option<&KeptIn>| {
            heard(ward, plan, &Outcome::default(), before)
        };
        let before = told(&asking("d1"), &Outcome::default());

        let first = asked(&of_ada, &asking("d1"), None);

        assert_eq!(first.len(), 1);
        assert_eq!(first[0].0, "AcknowledgementNeeded");
        let command = "kubectl annotate --overwrite journaltenant ada valv.eu/acknowledge-deletion=d1";
        assert!(first[0].1.contains("12 of 20 backups") && first[0].1.ends_with(command), "{first:?}");
        assert_eq!(asked(&of_ada, &asking("d1"), Some(&before)), []);
        assert_eq!(asked(&of_ada, &asking("d2"), Some(&before)).len(), 1, "that is another question");
        let of_store = asked(&of_nobody, &asking("d1"), None);
        assert!(of_store[0].1.contains("annotate --overwrite backupstore helsinki "), "{of_store:?}");
    }

    #[test]
    fn each_question_has_its_own_words() {
        let all =
            [Why::Many, Why::Tightened, Why::Damaged, Why::Missing, Why::NeverCommitted, Why::Leftovers];

        let words: std::collections::BTreeSet<String> =
            all.into_iter().map(|why| question(&ward(&[]), &waits("d1", why))).collect();

        assert_eq!(words.len(), all.len());
        assert!(words.iter().all(|words| words.contains("12") && words.ends_with("=d1")), "{words:?}");
    }

    #[test]
    fn a_look_that_failed_is_said_and_what_was_known_before_stands() {
        let fresh = with_failure(None, "helsinki", "the clocks differ");
        assert_eq!((fresh.backups, fresh.failure.as_deref()), (0, Some("the clocks differ")));

        let looked = Some(Time("2026-11-22T12:00:00Z".parse().unwrap()));
        let before = KeptIn { backups: 9, looked: looked.clone(), failure: None, ..fresh };
        let after = with_failure(Some(&before), "helsinki", "the clocks differ");

        assert_eq!((after.backups, after.looked), (9, looked));
        assert_eq!(after.failure.as_deref(), Some("the clocks differ"));
    }

    #[test]
    fn what_retention_deletes_in_its_last_store_is_nobody_s_newest_backup_any_more() {
        let of = "20261122T010000Z".parse().unwrap();
        let at = Time("2026-11-22T01:05:00Z".parse().unwrap());
        let last = |stores: &[&str]| LastBackup {
            slot: of,
            taken: at.clone(),
            committed: at.clone(),
            bytes: 1,
            stores: stores.iter().map(|&store| store.to_owned()).collect(),
        };

        let left = without(last(&["helsinki", "frankfurt"]), of, "frankfurt").unwrap();
        assert_eq!(left.stores, ["helsinki"]);
        assert_eq!(without(last(&["helsinki"]), of, "helsinki"), None);
        let other = "20261121T010000Z".parse().unwrap();
        assert_eq!(without(last(&["helsinki"]), other, "helsinki"), Some(last(&["helsinki"])));
    }
}
