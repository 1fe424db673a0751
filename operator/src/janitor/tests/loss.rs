//! What is gone: commits that somebody took away, and a whole cluster.

use valv_crds::{
    backup::BackupCondition,
    drill::{Choice, DrillReason},
    reference::{ACKNOWLEDGE_DELETION_ANNOTATION, FROM_CATALOGUE_ANNOTATION, TAKE_OVER_ARCHIVE_ANNOTATION},
};

use super::*;
use crate::drill::choose::{choose, known};

/// Two commits were taken away in Helsinki, the newest two; three are left.
async fn robbed() -> World {
    let mut world = world(2).await;
    world.owner(&world.helsinki).await;
    for days_ago in 2..5 {
        world.backup(&world.helsinki, days_ago).await;
    }
    world.apply(ada(Some(0)));
    world.apply(complete(0, &["helsinki"]));
    world.apply(complete(1, &["helsinki", "frankfurt"]));
    world
}

/// What a condition of a backup says.
fn said(backup: &Backup, condition: BackupCondition) -> (String, String) {
    let name = format!("{condition:?}");
    let conditions = &backup.status.as_ref().unwrap().conditions;
    let found = conditions.iter().find(|condition| condition.type_ == name).unwrap();
    (found.status.clone(), found.reason.clone())
}

fn words(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

/// What a drill of the newest backup in Helsinki would restore.
fn drilled(world: &World) -> Result<valv_crds::Slot, DrillReason> {
    let backups = world.backups();
    let known = known(backups.values(), "journal-ada", "helsinki");
    let listed = World::commits(&world.helsinki).into_iter().map(slot).collect();
    choose(Choice::Newest, slot(0), &listed, &known, 30, noon()).map_err(|refusal| refusal.reason)
}

#[tokio::test]
async fn commits_that_are_gone_are_missed_by_nobody_any_more_once_somebody_has_acknowledged_it() {
    let mut world = robbed().await;
    let digest = world.look("helsinki", Reach::Whole).await.awaits.unwrap();
    world.remember();
    assert_eq!(world.kept("helsinki")["missing"], json!([slot(1), slot(0)]));
    assert_eq!(World::commits(&world.helsinki), [2, 3, 4], "nothing is deleted meanwhile");
    for backup in world.backups().values() {
        assert_eq!(said(backup, BackupCondition::Intact), words("False", "CatalogueRolledBack"));
    }
    assert_eq!(drilled(&world), Err(DrillReason::CatalogueRolledBack));

    world.annotate(ACKNOWLEDGE_DELETION_ANNOTATION, &digest);
    world.look("helsinki", Reach::Whole).await;
    world.remember();

    let backups = world.backups();
    assert!(!backups.contains_key(&slot(0)), "it lay nowhere else");
    let left = &backups[&slot(1)];
    let stores: Vec<_> =
        left.status.as_ref().unwrap().stores.iter().map(|stored| stored.name.as_str()).collect();
    assert_eq!(stores, ["frankfurt"]);
    assert_eq!(said(left, BackupCondition::Intact), words("True", "AsAsked"));
    assert_eq!(said(left, BackupCondition::Copied), words("False", "Copying"), "it can be had from there");
    assert_eq!(world.ada()["status"]["backup"]["lastBackup"], Value::Null);
    assert_eq!(World::commits(&world.helsinki), [2, 3], "retention goes on");
    assert_eq!(drilled(&world), Ok(slot(2)));
    for _ in 0..2 {
        assert_eq!(world.look("helsinki", Reach::Whole).await, Came::default());
        world.remember();
        assert_eq!(world.kept("helsinki")["missing"], Value::Null);
    }
}

#[tokio::test]
async fn a_word_that_could_not_be_carried_out_is_heeded_at_the_next_look() {
    let mut world = robbed().await;
    let digest = world.look("helsinki", Reach::Whole).await.awaits.unwrap();
    world.annotate(ACKNOWLEDGE_DELETION_ANNOTATION, &digest);
    let before = world.register(&world.helsinki).await;

    world.answers.refuses.store(true, Ordering::SeqCst);
    let refused = look(&world.ward("helsinki", Reach::Whole), &world.context).await;
    let meanwhile = world.register(&world.helsinki).await;
    world.answers.refuses.store(false, Ordering::SeqCst);
    world.remember();
    world.look("helsinki", Reach::Whole).await;
    world.remember();

    assert!(matches!(refused, Err(Error::Cluster(_))), "{refused:?}");
    assert_eq!(meanwhile, before);
    assert_eq!(world.look("helsinki", Reach::Whole).await, Came::default());
    assert_eq!(world.register(&world.helsinki).await.acknowledged, 1);
}

/// All that lies in a store: its keys and versions, and until when each is locked.
fn lying(store: &FakeStore) -> BTreeMap<(String, String), Option<Timestamp>> {
    let mut lying = BTreeMap::new();
    store.change(|stored| {
        lying.insert((stored.key.clone(), stored.version.clone()), stored.locked_until);
    });
    lying
}

#[tokio::test]
async fn in_a_new_cluster_backups_come_back_and_nothing_is_touched_until_the_archive_is_taken_over() {
    let mut world = world_in("c2", 2).await;
    world.owner(&world.helsinki).await;
    for days_ago in 0..4 {
        world.backup(&world.helsinki, days_ago).await;
    }
    world.apply(ada(None));
    let before = lying(&world.helsinki);

    let looked = look(&world.ward("helsinki", Reach::Whole), &world.context).await;
    world.remember();

    assert!(matches!(looked, Err(Error::Another { .. })), "{looked:?}");
    assert_eq!(lying(&world.helsinki), before);
    let rebuilt = world.backups();
    assert_eq!(rebuilt.keys().rev().copied().collect::<Vec<_>>(), [0, 1, 2].map(slot));
    for backup in rebuilt.values() {
        assert_eq!(said(backup, BackupCondition::Complete), words("True", "Committed"));
        assert!(backup.metadata.annotations.as_ref().unwrap().contains_key(FROM_CATALOGUE_ANNOTATION));
        let status = backup.status.as_ref().unwrap();
        // When the agent began, and not when it ended: what it holds is that old.
        assert_eq!(status.taken.as_ref().unwrap().0, empty().started);
        assert!(empty().started < empty().ended && status.stores[0].commit.is_some());
    }

    world.annotate(TAKE_OVER_ARCHIVE_ANNOTATION, "ada");
    world.look("helsinki", Reach::Whole).await;

    assert_eq!(World::commits(&world.helsinki), [0, 1]);
    assert_eq!(world.register(&world.helsinki).await.committed, [0, 1].map(slot).into());
    assert_eq!(world.kept("helsinki")["backups"], 2);
}
