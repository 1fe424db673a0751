//! Looks at who has a policy, and how its stores stand. Reads only what is in memory.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt;
use valv_crds::{Backup, BackupPolicy, JournalTenant, backup::Origin, reference::NAMESPACE_PREFIX, slot};

use super::{Context, plan::Protected, status::StoreSeen};

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// All stores, by name.
    pub stores: BTreeMap<String, StoreSeen>,
    /// Tenants that have the policy.
    pub protected: Vec<Protected>,
}

/// Looks.
pub fn observe(policy: &BackupPolicy, context: &Context) -> Observed {
    let stores = context.stores.state();
    let stores = stores.iter().filter_map(|store| store.0.as_ref().ok());
    let backups = context.backups.state();
    let newest = newest_slots(backups.iter().filter_map(|backup| backup.0.as_ref().ok()));
    let name = policy.name_any();
    let tenants = context.tenants.state();
    let tenants = tenants.iter().filter_map(|tenant| tenant.0.as_ref().ok());
    Observed {
        stores: stores.map(|store| (store.name_any(), StoreSeen::of(store))).collect(),
        protected: tenants.filter_map(|tenant| protected(tenant, &name, &newest)).collect(),
    }
}

/// The newest slot that was taken on for each tenant, by the backups that are there.
fn newest_slots<'a>(backups: impl Iterator<Item = &'a Backup>) -> BTreeMap<String, Timestamp> {
    let mut newest = BTreeMap::new();
    for backup in backups.filter(|backup| backup.spec.origin == Origin::Scheduled) {
        let name = backup.name_any();
        let Ok((tenant, slot)) = slot::parse_name(&name) else { continue };
        let namespace = backup.namespace().unwrap_or_default();
        if namespace.strip_prefix(NAMESPACE_PREFIX) == Some(tenant) {
            let standing = newest.entry(tenant.to_owned()).or_insert(slot.time());
            *standing = slot.time().max(*standing);
        }
    }
    newest
}

fn protected(
    tenant: &JournalTenant,
    policy: &str,
    newest: &BTreeMap<String, Timestamp>,
) -> Option<Protected> {
    let name = tenant.name_any();
    if tenant.spec.backup.as_ref()?.policy != policy || tenant.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let made = tenant.creation_timestamp()?.0;
    let taken_on = newest.get(&name).copied().map_or(made, |slot| slot.max(made));
    Some(Protected { taken_on, is_awake: !tenant.spec.suspended, tenant: name })
}
