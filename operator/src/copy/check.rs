//! Which copies there should be and are not yet. Pure, but that it reads what is in memory.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt;
use valv_crds::{
    Backup, BackupPolicy, JournalTenant, Slot, backup::BackupCondition, reference::NAMESPACE_PREFIX,
};

use super::Context;
use crate::{
    agent::verify::Depth,
    archive::layout::ArchiveId,
    janitor::observe::{is_true, lies_in},
    policy::depth,
    store::check::{self as store, Store},
};

/// One backup that is to lie in one more store.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The backup, as it was read.
    pub backup: Arc<Backup>,
    /// Under which slot it lies.
    pub slot: Slot,
    /// Under which archive.
    pub archive: ArchiveId,
    /// Where it lies: in the first store that has it.
    pub source: Store,
    /// Where it should.
    pub target: Store,
    /// The policy that says so.
    pub policy: Arc<BackupPolicy>,
    /// Whose it is.
    pub tenant: Arc<JournalTenant>,
    /// How much of it is read back there.
    pub depth: Depth,
}

impl Copy {
    /// UID of the backup and name of the store: what no two share.
    pub fn key(&self) -> (String, String) {
        (self.backup.uid().unwrap_or_default(), self.target.name.clone())
    }
}

/// All copies that are to be made, the newest backups first: what was taken last is needed first.
pub fn copies(context: &Context) -> Vec<Copy> {
    let stores: HashMap<String, Store> = context
        .stores
        .state()
        .iter()
        .filter_map(|store| store.0.as_ref().ok())
        .map(|object| (object.name_any(), store::check(Arc::new(object.clone()))))
        .collect();
    let policies: HashMap<String, Arc<BackupPolicy>> = context
        .policies
        .state()
        .iter()
        .filter_map(|policy| policy.0.as_ref().ok())
        .map(|policy| (policy.name_any(), Arc::new(policy.clone())))
        .collect();
    let tenants = context.tenants.state();
    let followed: HashMap<String, (&str, &JournalTenant)> = tenants
        .iter()
        .filter_map(|tenant| tenant.0.as_ref().ok())
        .filter(|tenant| tenant.metadata.deletion_timestamp.is_none())
        .filter_map(|tenant| {
            let policy = tenant.spec.backup.as_ref()?.policy.as_str();
            Some((format!("{NAMESPACE_PREFIX}{}", tenant.name_any()), (policy, tenant)))
        })
        .collect();
    let mut copies = Vec::new();
    for backup in context.backups.state() {
        let Ok(backup) = &backup.0 else { continue };
        if !is_wanted(backup) {
            continue;
        }
        let followed = backup.namespace().and_then(|namespace| followed.get(&namespace));
        let Some((policy, tenant)) = followed else { continue };
        if let Some(policy) = policies.get(*policy) {
            // Of ten thousand tenants few have something to be copied just now.
            let (backup, tenant) = (Arc::new(backup.clone()), Arc::new((*tenant).clone()));
            let whole = |store: &str| depth::newest_whole(&tenant, store);
            copies.extend(of(&backup, policy, &tenant, &stores, whole));
        }
    }
    copies.sort_by_key(|copy| Reverse(copy.slot));
    copies
}

/// Whether `backup` is complete, and not said to be copied.
fn is_wanted(backup: &Backup) -> bool {
    is_true(backup, BackupCondition::Complete)
        && !is_true(backup, BackupCondition::Copied)
        && backup.metadata.deletion_timestamp.is_none()
}

/// The copies of one backup that are to be made. One with the target as its own source says that none is.
///
/// `whole` is the slot of the newest backup that was read back whole in a store.
fn of(
    backup: &Arc<Backup>,
    policy: &Arc<BackupPolicy>,
    tenant: &Arc<JournalTenant>,
    stores: &HashMap<String, Store>,
    whole: impl Fn(&str) -> Option<Timestamp>,
) -> Vec<Copy> {
    let Some(status) = &backup.status else { return vec![] };
    let archive = status.archive_id.as_ref().and_then(|id| id.parse().ok());
    let (Some(slot), Some(archive)) = (status.slot, archive) else { return vec![] };
    let source = status.stores.iter().find(|stored| stored.commit.is_some());
    let Some(source) = source.and_then(|stored| stores.get(&stored.name)) else { return vec![] };
    let copy = |target: &Store| Copy {
        backup: backup.clone(),
        slot,
        archive: ArchiveId::clone(&archive),
        source: source.clone(),
        target: target.clone(),
        policy: policy.clone(),
        tenant: tenant.clone(),
        depth: depth::of_copy(policy, whole(&target.name), slot.time()),
    };
    let missing: Vec<&String> = policy.spec.stores.iter().filter(|name| !lies_in(backup, name)).collect();
    if missing.is_empty() {
        return vec![copy(source)];
    }
    missing.into_iter().filter_map(|name| stores.get(name)).map(copy).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::check::tests::store;

    /// A backup that is complete in Helsinki.
    pub fn backup() -> Arc<Backup> {
        let said = |kind: &str, status: &str| {
            json!({ "type": kind, "status": status, "reason": "Committed", "message": "",
                "lastTransitionTime": "2026-11-22T09:30:05Z" })
        };
        Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "valv.eu/v1alpha1", "kind": "Backup",
                "metadata": { "name": "ada-20261122t010000z", "namespace": "journal-ada", "uid": "u1" },
                "spec": { "origin": "Scheduled" },
                "status": {
                    "archiveID": "ada", "slot": "20261122T010000Z",
                    "conditions": [said("Complete", "True"), said("Copied", "False")],
                    "stores": [{ "name": "helsinki", "commit": { "key": "k", "blake3": "0".repeat(64) } }],
                },
            }))
            .unwrap(),
        )
    }

    /// A policy with these stores.
    pub fn policy(stores: &[&str]) -> Arc<BackupPolicy> {
        Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "valv.eu/v1alpha1", "kind": "BackupPolicy", "metadata": { "name": "default", "generation": 1 },
                "spec": {
                    "schedule": { "cron": "0 1 * * *", "timeZone": "Europe/Stockholm" }, "stores": stores,
                    "retention": { "floor": { "days": 1, "reason": "decided in a test" } },
                    "objectives": { "rpo": "24h", "rto": "1h" },
                },
                "status": { "observedGeneration": 1, "tenants": 1, "conditions": [{
                    "type": "Ready", "status": "True", "reason": "AsAsked", "message": "",
                    "lastTransitionTime": "2026-11-22T09:30:05Z" }] },
            }))
            .unwrap(),
        )
    }

    /// Ada, who has them.
    pub fn tenant() -> Arc<JournalTenant> {
        let [tenant, escrow] = ["q", "p"].map(|letter| format!("age1{}", letter.repeat(58)));
        Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant",
                "metadata": { "name": "ada", "uid": "t1" },
                "spec": {
                    "host": "ada.journal.example", "journal": { "image": "registry.example/journal:1" },
                    "database": { "size": "1Gi" },
                    "backup": { "recipients": { "tenant": tenant, "escrow": escrow } },
                },
            }))
            .unwrap(),
        )
    }

    /// Helsinki, and others like it.
    pub fn stores(names: &[&str]) -> HashMap<String, Store> {
        let named = |name: &&str| {
            let mut object = store().object.as_ref().clone();
            object.metadata.name = Some((*name).to_owned());
            ((*name).to_owned(), crate::store::check::check(Arc::new(object)))
        };
        names.iter().map(named).collect()
    }

    /// The copies that `backup` needs for a policy with these stores.
    pub fn copies_for(names: &[&str]) -> Vec<Copy> {
        of(&backup(), &policy(names), &tenant(), &stores(names), |_| None)
    }

    #[test]
    fn every_further_store_of_the_policy_gets_a_copy_from_the_first_that_has_it() {
        let copies = copies_for(&["helsinki", "frankfurt", "oslo"]);

        let ways: Vec<_> =
            copies.iter().map(|copy| (copy.source.name.as_str(), copy.target.name.as_str())).collect();
        assert_eq!(ways, [("helsinki", "frankfurt"), ("helsinki", "oslo")]);
    }

    #[test]
    fn a_copy_is_read_back_as_much_as_the_policy_asks_for_in_its_own_store() {
        let mut policy = policy(&["helsinki", "frankfurt", "oslo"]).as_ref().clone();
        policy.spec.verification.full_every = serde_json::from_value(json!("7d")).unwrap();
        let whole = |store: &str| (store == "frankfurt").then(|| "2026-11-20T01:00:00Z".parse().unwrap());

        let copies =
            of(&backup(), &Arc::new(policy), &tenant(), &stores(&["helsinki", "frankfurt", "oslo"]), whole);

        let depths: Vec<_> = copies.iter().map(|copy| (copy.target.name.as_str(), copy.depth)).collect();
        assert_eq!(depths, [("frankfurt", Depth::Sample(8)), ("oslo", Depth::Full)]);
    }

    #[test]
    fn a_policy_with_one_store_needs_none_and_that_is_said() {
        let copies = copies_for(&["helsinki"]);

        assert_eq!(copies.len(), 1);
        assert_eq!(copies[0].source.name, copies[0].target.name);
    }

    #[test]
    fn what_is_not_complete_or_is_copied_is_left_alone() {
        let mut copied = backup().as_ref().clone();
        copied.status.as_mut().unwrap().conditions[1].status = "True".to_owned();
        let mut failed = backup().as_ref().clone();
        failed.status.as_mut().unwrap().conditions[0].status = "False".to_owned();

        assert!(is_wanted(&backup()));
        assert!(!is_wanted(&copied) && !is_wanted(&failed));
    }
}
