//! What is kept, and for how long: locks that are made longer, and what a tenant that is gone left.

use valv_crds::reference::ACKNOWLEDGE_DELETION_ANNOTATION;

use super::*;
use crate::{fake_store::Flaw, store::check::check as checked_store};

#[tokio::test]
async fn locks_are_made_longer_the_commit_s_last_and_all_before_anything_is_deleted() {
    let world = world(2).await;
    world.owner(&world.helsinki).await;
    for days_ago in 0..4 {
        world.backup(&world.helsinki, days_ago).await;
    }
    let is_kept = |key: &str| [0, 1].iter().any(|ago| key.contains(&slot(*ago).to_string()));
    let soon = noon() + SignedDuration::from_hours(24 * 5);
    world.helsinki.change(|stored| stored.locked_until = is_kept(&stored.key).then_some(soon));
    world.helsinki.asked();

    world.look("helsinki", Reach::Whole).await;

    // The store's days from now on, and the second that stores cut off.
    let wanted = noon() + SignedDuration::from_hours(24 * 35) + SignedDuration::from_secs(1);
    let mut locks = Vec::new();
    world.helsinki.change(|stored| {
        if is_kept(&stored.key) {
            locks.push(stored.locked_until);
        }
    });
    assert_eq!(locks, [Some(wanted); 4], "a manifest and a commit of each");
    assert_eq!(World::commits(&world.helsinki), [0, 1]);
    let asked = world.helsinki.asked();
    let locked: Vec<usize> = (0..asked.len())
        .filter(|place| asked[*place].starts_with("PUT") && asked[*place].contains("retention"))
        .collect();
    let kinds: Vec<bool> = locked.iter().map(|place| asked[*place].contains("/commits/")).collect();
    assert_eq!(kinds, [false, true, false, true], "{asked:#?}");
    let deleted = asked.iter().position(|asked| asked.starts_with("DELETE")).unwrap();
    assert!(locked.iter().all(|place| *place < deleted), "{asked:#?}");
    let told = world.answers.events.lock().unwrap();
    assert_eq!(told.iter().filter(|event| event["reason"] == "LocksExtended").count(), 1, "{told:?}");
}

#[tokio::test]
async fn while_a_lock_cannot_be_made_longer_nothing_is_deleted() {
    let world = world(2).await;
    world.owner(&world.helsinki).await;
    for days_ago in 0..4 {
        world.backup(&world.helsinki, days_ago).await;
    }
    world.helsinki.have(Flaw::NeverExtends);

    let looked = look(&world.ward("helsinki", Reach::Whole), &world.context).await;

    assert!(matches!(looked, Err(Error::Extend { .. })), "{looked:?}");
    assert_eq!(World::commits(&world.helsinki), [0, 1, 2, 3]);
}

impl World {
    /// Puts terms into an archive: one backup for each of the last so many days.
    async fn daily(&self, store: &FakeStore, daily: i32) {
        let mut terms = crate::janitor::plan::tests::rules_of(0, 5);
        terms.retention.daily = daily;
        let key = Terms::key(&terms.archive).unwrap().to_string();
        self.put(store, &key, terms.seal(&self.key).unwrap()).await;
    }

    /// The archive in Helsinki without its tenant, and what somebody has acknowledged.
    fn orphan(&self, acknowledged: &str) -> Ward {
        let ward = self.ward("helsinki", Reach::Whole);
        let mut object = ward.store.object.as_ref().clone();
        let annotations = [(ACKNOWLEDGE_DELETION_ANNOTATION.to_owned(), acknowledged.to_owned())];
        object.metadata.annotations = Some(annotations.into());
        Ward { tenant: None, terms: None, store: checked_store(Arc::new(object)), ..ward }
    }
}

#[tokio::test]
async fn what_a_tenant_that_is_gone_left_is_kept_by_its_terms_and_goes_when_it_is_old_enough() {
    let world = world(60).await;
    world.owner(&world.helsinki).await;
    for days_ago in 40..44 {
        world.backup(&world.helsinki, days_ago).await;
    }
    world.daily(&world.helsinki, 42).await;

    let came = look(&world.orphan(""), &world.context).await.unwrap();

    assert_eq!(came, Came::default());
    assert_eq!(World::commits(&world.helsinki), [40, 41], "the newest, and not for ever");
    let mut locks: Vec<Timestamp> = Vec::new();
    world.helsinki.change(|stored| {
        if stored.key.contains("/commits/") {
            locks.push(stored.locked_until.unwrap());
        }
    });
    // Until the midnight in Stockholm at which 42 days have passed, and the second that stores cut off.
    let [first, second] = ["2026-11-23T23:00:01Z", "2026-11-22T23:00:01Z"].map(|at| at.parse().unwrap());
    assert_eq!(locks, [first, second]);
}

#[tokio::test]
async fn the_last_of_what_a_tenant_that_is_gone_left_goes_by_somebody_s_word_on_the_store() {
    let world = world(60).await;
    world.owner(&world.helsinki).await;
    for days_ago in [50, 51] {
        world.backup(&world.helsinki, days_ago).await;
    }
    world.daily(&world.helsinki, 42).await;

    let asked = look(&world.orphan(""), &world.context).await.unwrap().awaits.unwrap();
    let meanwhile = World::commits(&world.helsinki);
    let acknowledged = look(&world.orphan(&asked), &world.context).await.unwrap();

    assert_eq!(meanwhile, [50, 51]);
    assert_eq!(acknowledged, Came::default());
    assert_eq!(World::commits(&world.helsinki), Vec::<i64>::new());
    let told = world.answers.events.lock().unwrap();
    let command =
        format!("kubectl annotate --overwrite backupstore helsinki valv.eu/acknowledge-deletion={asked}");
    let question = told.iter().find(|event| event["reason"] == "AcknowledgementNeeded").unwrap();
    assert!(question["note"].as_str().unwrap().ends_with(&command), "{question:?}");
}
