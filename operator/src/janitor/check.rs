//! Gives what the janitor looks after the names that the rest works with. Pure.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt;
use valv_crds::{
    BackupPolicy, JournalTenant,
    reference::{
        ACKNOWLEDGE_DELETION_ANNOTATION, LIFT_HOLDS_ANNOTATION, LOOK_AFTER_ANNOTATION, NAMESPACE_PREFIX,
    },
    store::StoreCondition,
};

use super::rounds::{Reach, Standing};
use crate::{
    archive::{layout::ArchiveId, manifest::FORMAT, terms::Terms},
    store::check::Store,
};

/// One archive in one store.
#[derive(Clone, Debug)]
pub struct Ward {
    /// Which archive.
    pub archive: ArchiveId,
    /// Where.
    pub store: Store,
    /// Whose; `None` if no tenant has it any more.
    pub tenant: Option<Arc<JournalTenant>>,
    /// Whether the store is the first of the tenant's policy: its catalogue is that of the `Backup` objects.
    pub place: Place,
    /// When the newest backup was committed there, as far as the cluster knows.
    pub committed: Option<Timestamp>,
    /// Whether the cluster knows any backup of it.
    pub standing: Standing,
    /// For how long it is to be kept, as the tenant and its policy say; `None`: as the terms in the archive say.
    pub terms: Option<Terms>,
    /// The further stores of the policy, where it is the first.
    pub others: Vec<Store>,
    /// How much of it is looked at this time.
    pub reach: Reach,
}

/// Where a store stands in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is written from the database.
    First,
    /// It gets copies, or nobody's policy names it.
    Later,
}

impl Ward {
    /// Store and archive: what no two share.
    pub fn key(&self) -> (String, ArchiveId) {
        (self.store.name.clone(), self.archive.clone())
    }

    /// The namespace of the tenant's objects.
    pub fn namespace(&self) -> Option<String> {
        self.tenant.as_ref().map(|tenant| format!("{NAMESPACE_PREFIX}{}", tenant.name_any()))
    }

    /// What somebody asked for a look with.
    pub fn asked(&self) -> Option<String> {
        self.tenant.as_deref().and_then(asked)
    }

    /// Digests that somebody acknowledged: on the tenant, or on the store if there is none.
    pub fn acknowledged(&self) -> Vec<String> {
        acknowledged(match &self.tenant {
            Some(tenant) => tenant.annotations(),
            None => self.store.object.annotations(),
        })
    }
}

/// What somebody asked for a look at `tenant`'s archives with.
pub fn asked(tenant: &JournalTenant) -> Option<String> {
    tenant.annotations().get(LOOK_AFTER_ANNOTATION).cloned()
}

/// Digests that somebody acknowledged with `annotations`.
pub fn acknowledged(annotations: &BTreeMap<String, String>) -> Vec<String> {
    let said = annotations.get(ACKNOWLEDGE_DELETION_ANNOTATION).map(String::as_str).unwrap_or_default();
    said.split(',').map(str::trim).filter(|digest| !digest.is_empty()).map(str::to_owned).collect()
}

/// `terms` without the holds that an annotation of `store` lifts. Only of an archive whose tenant is gone: the others'
/// are in the tenant's spec.
pub fn without_lifted(mut terms: Terms, store: &Store) -> Terms {
    let lifted = store.object.annotations().get(LIFT_HOLDS_ANNOTATION).cloned().unwrap_or_default();
    let lifted: Vec<&str> = lifted.split(',').map(str::trim).collect();
    let archive = terms.archive.to_string();
    terms.holds.retain(|hold| !lifted.contains(&format!("{archive}/{}", hold.slot).as_str()));
    terms
}

/// Under which name the tenant's backups lie, if it can be one.
pub fn archive_of(tenant: &JournalTenant) -> Option<ArchiveId> {
    tenant.spec.archive_id.clone().unwrap_or_else(|| tenant.name_any()).parse().ok()
}

/// What `tenant` and `policy` say of the archive at `now`; `None` if the tenant asks for no backups: then the terms that
/// lie in the archive count.
pub fn terms(tenant: &JournalTenant, policy: &BackupPolicy, now: Timestamp) -> Option<Terms> {
    let protection = tenant.spec.backup.as_ref()?;
    Some(Terms {
        format: FORMAT,
        archive: archive_of(tenant)?,
        policy: policy.name_any(),
        retention: policy.spec.retention.clone(),
        time_zone: policy.spec.schedule.time_zone.clone(),
        deadline_seconds: policy.spec.schedule.deadline.duration().as_secs(),
        holds: protection.holds.clone(),
        written: Timestamp::from_second(now.as_second()).unwrap_or(now),
    })
}

/// Whether a store was proven to be what its spec says, at this generation.
pub fn is_ready(store: &Store) -> bool {
    let Some(status) = &store.object.status else { return false };
    let ready = format!("{:?}", StoreCondition::Ready);
    status.observed_generation == store.object.metadata.generation
        && status.conditions.iter().any(|condition| condition.type_ == ready && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{archive::terms::tests::terms, store::check::tests::store};

    #[test]
    fn a_hold_of_a_tenant_that_is_gone_is_lifted_by_its_archive_and_slot_alone() {
        let mut held = terms();
        held.holds = ["20261122T010000Z", "20261121T010000Z"]
            .map(|slot| {
                serde_json::from_value(serde_json::json!({ "slot": slot, "reason": "a lawsuit, decided" }))
                    .unwrap()
            })
            .into();
        let left = |lifted: &str| {
            let mut object = store().object.as_ref().clone();
            let annotations = [(LIFT_HOLDS_ANNOTATION.to_owned(), lifted.to_owned())];
            object.metadata.annotations = Some(annotations.into());
            without_lifted(held.clone(), &crate::store::check::check(Arc::new(object))).holds.len()
        };

        assert_eq!(left("bo/20261122T010000Z, ada"), 2);
        assert_eq!(left("bo/20261122T010000Z, ada/20261122T010000Z"), 1);
        assert_eq!(without_lifted(held.clone(), &store()).holds.len(), 2);
    }
}
