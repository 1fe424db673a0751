//! Decides which backup a drill restores, and from which store. Pure.
//!
//! The commits in the store decide. `Backup` objects are asked only for what should be there: a commit that one of
//! them names and the store has not was taken away.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use sha2::{Digest, Sha256};
use valv_crds::{
    Backup, BackupPolicy, RestoreDrill, Slot,
    backup::BackupCondition,
    drill::{Choice, DrillReason},
};

/// Why nothing can be restored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// As a word.
    pub reason: DrillReason,
    /// As a sentence.
    pub message: String,
}

/// A backup that is complete by its object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Known {
    /// Its slot.
    pub slot: Slot,
    /// When it was committed.
    pub committed: Timestamp,
}

/// The backups of `namespace` that `store` has, as their objects say.
pub fn known<'a>(backups: impl Iterator<Item = &'a Backup>, namespace: &str, store: &str) -> Vec<Known> {
    let complete = format!("{:?}", BackupCondition::Complete);
    backups
        .filter(|backup| backup.namespace().as_deref() == Some(namespace))
        .filter_map(|backup| {
            let status = backup.status.as_ref()?;
            status
                .conditions
                .iter()
                .find(|condition| condition.type_ == complete && condition.status == "True")?;
            let there = status.stores.iter().find(|there| there.name == store)?;
            there.commit.as_ref()?;
            Some(Known { slot: status.slot?, committed: there.committed.as_ref()?.0 })
        })
        .collect()
}

/// The slot that `choice` means among those that the store has a commit of.
///
/// Of backups that are `known` by their objects, those younger than the floor of the policy's retention must be
/// there: nothing may have deleted them. The newest must be there whatever its age, for retention keeps it. One that
/// somebody names and that is there is restored all the same: whoever looks what is left needs it then.
///
/// # Errors
/// [`DrillReason::CatalogueRolledBack`] if one that must be there is not; [`DrillReason::NoBackup`] if there is none
/// that was asked for.
pub fn choose(
    choice: Choice,
    drill: Slot,
    listed: &BTreeSet<Slot>,
    known: &[Known],
    floor_days: i32,
    now: Timestamp,
) -> Result<Slot, Refusal> {
    if let Choice::Of(named) = choice
        && listed.contains(&named)
    {
        return Ok(named);
    }
    let newest_known = known.iter().map(|backup| backup.slot).max();
    let floor = SignedDuration::from_hours(24 * i64::from(floor_days));
    let must_be = |backup: &&Known| {
        Some(backup.slot) == newest_known
            || backup.committed.checked_add(floor).is_ok_and(|until| until > now)
            || choice == Choice::Of(backup.slot)
    };
    let missing: BTreeSet<Slot> = known.iter().filter(must_be).map(|backup| backup.slot).collect();
    let missing: Vec<String> = missing.difference(listed).map(ToString::to_string).collect();
    if !missing.is_empty() {
        let message = format!(
            "the store has no commit of {}, which were committed there and may not have been deleted: somebody took them away",
            missing.join(", ")
        );
        return Err(Refusal { reason: DrillReason::CatalogueRolledBack, message });
    }
    let found = match choice {
        Choice::Newest => listed.last().copied(),
        Choice::Random => listed.iter().nth(lot(drill, listed.len())).copied(),
        Choice::Of(_) => None,
    };
    found.ok_or_else(|| {
        let message = match choice {
            Choice::Of(slot) => format!("the store has no backup of {slot}"),
            Choice::Newest | Choice::Random => "the store has no backup of this tenant yet".to_owned(),
        };
        Refusal { reason: DrillReason::NoBackup, message }
    })
}

/// A place below `count` that the drill's slot alone decides.
fn lot(drill: Slot, count: usize) -> usize {
    let digest = Sha256::digest(drill.to_string().as_bytes());
    let head = digest.iter().take(8).fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
    usize::try_from((head * count as u128) >> 64).unwrap_or_default()
}

/// The store from which a drill restores: the one that it names, or the policy's in turn, after that of the newest
/// drill before. Of one that ended, the one that it looked in last, whatever the policy has become: there its record lies.
pub fn store(drill: &RestoreDrill, policy: Option<&BackupPolicy>, before: Option<&str>) -> Option<String> {
    if let Some(status) = &drill.status {
        if let Some(chosen) = &status.backup {
            return Some(chosen.store.clone());
        }
        if status.ended.is_some() {
            return status.store.clone();
        }
    }
    let policy = policy?;
    if let Some(named) = &drill.spec.store {
        return Some(named.clone());
    }
    let stores = &policy.spec.stores;
    let place = before.and_then(|before| stores.iter().position(|store| store == before));
    let next = place.map_or(0, |place| (place + 1) % stores.len().max(1));
    stores.get(next).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(day: u32) -> Slot {
        format!("202611{day:02}T010000Z").parse().unwrap()
    }

    fn days(days: &[u32]) -> BTreeSet<Slot> {
        days.iter().map(|day| slot(*day)).collect()
    }

    fn known_of(days: &[u32]) -> Vec<Known> {
        days.iter().map(|day| Known { slot: slot(*day), committed: slot(*day).time() }).collect()
    }

    fn now() -> Timestamp {
        "2026-11-22T05:00:00Z".parse().unwrap()
    }

    fn chosen(choice: Choice, listed: &[u32], known: &[u32]) -> Result<Slot, DrillReason> {
        choose(choice, slot(22), &days(listed), &known_of(known), 7, now()).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn the_newest_backup_is_the_newest_that_the_store_has() {
        assert_eq!(chosen(Choice::Newest, &[20, 21, 22], &[21]), Ok(slot(22)));
        assert_eq!(chosen(Choice::Newest, &[], &[]), Err(DrillReason::NoBackup));
    }

    #[test]
    fn a_commit_that_a_backup_names_and_the_store_has_not_was_taken_away() {
        assert_eq!(chosen(Choice::Newest, &[20, 21], &[20, 21, 22]), Err(DrillReason::CatalogueRolledBack));
        assert_eq!(chosen(Choice::Newest, &[20, 22], &[20, 21, 22]), Err(DrillReason::CatalogueRolledBack));
        assert_eq!(chosen(Choice::Of(slot(2)), &[21, 22], &[2, 22]), Err(DrillReason::CatalogueRolledBack));
    }

    #[test]
    fn while_others_were_taken_away_a_named_one_that_is_there_is_restored_and_nothing_else() {
        assert_eq!(chosen(Choice::Of(slot(21)), &[20, 21], &[20, 21, 22]), Ok(slot(21)));
        assert_eq!(chosen(Choice::Of(slot(20)), &[20, 21], &[21, 22]), Ok(slot(20)));
        assert_eq!(chosen(Choice::Of(slot(22)), &[20, 21], &[21, 22]), Err(DrillReason::CatalogueRolledBack));
        assert_eq!(chosen(Choice::Random, &[20, 21], &[21, 22]), Err(DrillReason::CatalogueRolledBack));
    }

    #[test]
    fn a_backup_that_retention_may_have_deleted_is_not_missed() {
        assert_eq!(chosen(Choice::Newest, &[21, 22], &[2, 3, 22]), Ok(slot(22)));
        assert_eq!(chosen(Choice::Of(slot(2)), &[21, 22], &[22]), Err(DrillReason::NoBackup));
    }

    #[test]
    fn a_random_backup_is_the_same_at_every_look_and_every_one_comes_up() {
        let listed = days(&[1, 5, 9, 13, 17]);
        let pick = |drill: Slot| choose(Choice::Random, drill, &listed, &[], 7, now()).unwrap();

        let picked: BTreeSet<Slot> = (1..=28).map(slot).map(pick).collect();

        assert_eq!(pick(slot(3)), pick(slot(3)));
        assert_eq!(picked, listed);
    }

    #[test]
    fn the_stores_of_the_policy_take_turns() {
        let policy: BackupPolicy = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "default" },
            "spec": {
                "schedule": { "cron": "0 1 * * *", "timeZone": "UTC" },
                "stores": ["helsinki", "frankfurt"],
                "retention": { "floor": { "days": 7, "reason": "decided for a test" } },
                "objectives": { "rpo": "24h", "rto": "1h" },
            },
        }))
        .unwrap();
        let policy = Some(&policy);
        let mut drill = RestoreDrill::new("a", valv_crds::RestoreDrillSpec::default());

        assert_eq!(store(&drill, policy, None).as_deref(), Some("helsinki"));
        assert_eq!(store(&drill, policy, Some("helsinki")).as_deref(), Some("frankfurt"));
        assert_eq!(store(&drill, policy, Some("frankfurt")).as_deref(), Some("helsinki"));
        assert_eq!(store(&drill, policy, Some("gone")).as_deref(), Some("helsinki"));
        assert_eq!(store(&drill, None, Some("helsinki")), None);
        // Its record lies where it looked, whosever turn it is since, and whatever became of the policy.
        drill.status = serde_json::from_value(serde_json::json!({
            "store": "helsinki", "ended": "2026-11-22T06:00:00Z", "conditions": [],
        }))
        .unwrap();
        assert_eq!(store(&drill, policy, Some("helsinki")).as_deref(), Some("helsinki"));
        assert_eq!(store(&drill, None, Some("helsinki")).as_deref(), Some("helsinki"));
        drill.status = None;
        drill.spec.store = Some("elsewhere".into());
        assert_eq!(store(&drill, policy, Some("helsinki")).as_deref(), Some("elsewhere"));
    }
}
