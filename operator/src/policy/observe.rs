//! Looks at who has a policy, and how its stores stand. Reads only what is in memory.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use kube::ResourceExt;
use valv_crds::{Backup, BackupPolicy, JournalTenant, Slot};

use super::{Context, plan::Protected, slots, status::StoreSeen};

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// All stores, by name.
    pub stores: BTreeMap<String, StoreSeen>,
    /// Tenants that have the policy.
    pub protected: Vec<Protected>,
}

/// Looks.
pub fn observe(policy: &BackupPolicy, context: &Context, now: Timestamp) -> Observed {
    let stores = context.stores.state();
    let stores = stores.iter().filter_map(|store| store.0.as_ref().ok());
    let backups = context.backups.state();
    let newest = newest_slots(backups.iter().filter_map(|backup| backup.0.as_ref().ok()), now);
    let name = policy.name_any();
    let tenants = context.tenants.state();
    let tenants = tenants.iter().filter_map(|tenant| tenant.0.as_ref().ok());
    Observed {
        stores: stores.map(|store| (store.name_any(), StoreSeen::of(store))).collect(),
        protected: tenants.filter_map(|tenant| protected(tenant, &name, &newest, now)).collect(),
    }
}

/// The newest slot that was taken on for each tenant, by the backups that are there.
fn newest_slots<'a>(backups: impl Iterator<Item = &'a Backup>, now: Timestamp) -> HashMap<String, Slot> {
    let mut newest = HashMap::new();
    for (tenant, slot) in backups.filter_map(|backup| slots::taken_on(backup, now)) {
        let standing = newest.entry(tenant).or_insert(slot);
        *standing = slot.max(*standing);
    }
    newest
}

fn protected(
    tenant: &JournalTenant,
    policy: &str,
    newest: &HashMap<String, Slot>,
    now: Timestamp,
) -> Option<Protected> {
    let name = tenant.name_any();
    if tenant.spec.backup.as_ref()?.policy != policy || tenant.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let told = tenant.status.as_ref().and_then(|status| status.backup.as_ref()?.last_slot);
    let told = told.filter(|slot| slots::has_come(*slot, now));
    Some(Protected {
        made: tenant.creation_timestamp()?.0,
        taken_on: told.max(newest.get(&name).copied()),
        is_awake: !tenant.spec.suspended,
        tenant: name,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::slots::tests::backup;

    const KEYS: [&str; 2] = ["q", "p"];

    fn tenant(last_slot: Option<&str>) -> JournalTenant {
        let [tenant, escrow] = KEYS.map(|letter| format!("age1{}", letter.repeat(58)));
        serde_json::from_value(json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant",
            "metadata": { "name": "ada", "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": {
                "host": "ada.journal.example", "journal": { "image": "registry.example/journal:1" },
                "database": { "size": "1Gi" },
                "backup": { "recipients": { "tenant": tenant, "escrow": escrow } },
            },
            "status": { "backup": { "lastSlot": last_slot } },
        }))
        .unwrap()
    }

    fn taken_on(last_slot: Option<&str>, backups: &[Backup]) -> Option<String> {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let newest = newest_slots(backups.iter(), now);
        protected(&tenant(last_slot), "default", &newest, now).unwrap().taken_on.map(|slot| slot.to_string())
    }

    #[test]
    fn a_slot_stays_taken_on_when_all_backups_are_deleted() {
        assert_eq!(taken_on(Some("20261122T010000Z"), &[]), Some("20261122T010000Z".into()));
    }

    #[test]
    fn the_newest_of_status_and_backups_counts() {
        let backups =
            ["ada-20261121t010000z", "ada-20261122t010000z"].map(|name| backup("ada", name, "Scheduled"));

        assert_eq!(taken_on(None, &backups), Some("20261122T010000Z".into()));
        assert_eq!(taken_on(Some("20261121T010000Z"), &backups), Some("20261122T010000Z".into()));
        assert_eq!(taken_on(Some("20261122T010000Z"), &backups[..1]), Some("20261122T010000Z".into()));
    }

    #[test]
    fn a_backup_that_is_dated_in_the_future_ends_nothing() {
        let future = backup("ada", "ada-20991231t010000z", "Scheduled");
        let past = backup("ada", "ada-20261122t010000z", "Scheduled");

        assert_eq!(taken_on(None, &[future.clone(), past]), Some("20261122T010000Z".into()));
        assert_eq!(taken_on(Some("20991231T010000Z"), &[future]), None);
    }
}
