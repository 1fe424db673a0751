//! Which slots were taken on, by the names of the backups that are there. Pure.
//!
//! A name is anybody's word: what lies in the future ends nothing, and what was made by hand takes nothing on.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use valv_crds::{Backup, Slot, backup::Origin, reference::NAMESPACE_PREFIX, slot};

/// How far another operator's clock may be ahead of this one's.
pub const AHEAD: Duration = Duration::from_secs(300);

/// Whether `slot` can have been taken on by `now`.
pub fn has_come(slot: Slot, now: Timestamp) -> bool {
    slot.time() <= now.saturating_add(AHEAD).unwrap_or(Timestamp::MAX)
}

/// Whose slot `backup` is named after, and which; whoever made it.
fn named(backup: &Backup) -> Option<(String, Slot)> {
    let name = backup.name_any();
    let (tenant, slot) = slot::parse_name(&name).ok()?;
    let is_home = backup.metadata.namespace.as_deref()?.strip_prefix(NAMESPACE_PREFIX) == Some(tenant);
    is_home.then(|| (tenant.to_owned(), slot))
}

/// The slot that the schedule took on with `backup`, and for which tenant; none if it lies in the future.
pub fn taken_on(backup: &Backup, now: Timestamp) -> Option<(String, Slot)> {
    named(backup).filter(|(_, slot)| backup.spec.origin == Origin::Scheduled && has_come(*slot, now))
}

/// The slot that cannot be run, since somebody gave its name to something else.
pub fn blocked(backup: &Backup) -> Option<Slot> {
    named(backup).filter(|_| backup.spec.origin == Origin::Manual).map(|(_, slot)| slot)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A backup as it was made, without any status.
    pub fn backup(tenant: &str, name: &str, origin: &str) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "Backup",
            "metadata": { "name": name, "namespace": format!("journal-{tenant}"), "uid": name },
            "spec": { "origin": origin },
        }))
        .unwrap()
    }

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_slot_in_the_future_is_taken_on_by_nobody() {
        let slot = |name: &str| taken_on(&backup("ada", name, "Scheduled"), now()).map(|(_, slot)| slot);

        assert_eq!(slot("ada-20991231t010000z"), None);
        assert_eq!(slot("ada-20261122t120501z"), None);
        assert!(slot("ada-20261122t120500z").is_some(), "a clock may be a little ahead");
        assert!(slot("ada-20261122t010000z").is_some());
    }

    #[test]
    fn what_another_tenant_or_a_person_made_takes_nothing_on() {
        let name = "ada-20261122t010000z";

        assert_eq!(taken_on(&backup("bo", name, "Scheduled"), now()), None);
        assert_eq!(taken_on(&backup("ada", name, "Manual"), now()), None);
        assert_eq!(taken_on(&backup("ada", name, "BeforeMigration"), now()), None);
        assert_eq!(blocked(&backup("ada", name, "Manual")).unwrap().to_string(), "20261122T010000Z");
        assert_eq!(blocked(&backup("bo", name, "Manual")), None);
        assert_eq!(blocked(&backup("ada", name, "Scheduled")), None);
        assert_eq!(blocked(&backup("ada", "by-hand", "Manual")), None);
    }
}
