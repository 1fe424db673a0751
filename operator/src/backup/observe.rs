//! Looks at what a decision about a backup rests on. Reads only, and of what is asked for: only what memory cannot
//! say for sure.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kube::{ResourceExt, core::DynamicObject, runtime::reflector::ObjectRef};
use valv_crds::{
    Backup, BackupPolicy, JournalTenant,
    backup::{BackupCondition, Origin},
    reference::ATTACHMENTS_LABEL,
    slot,
};

use super::{
    Context,
    check::{Run, awaits_catalogue},
    names::Part,
    sighting::{JobSeen, Sighting},
};
use crate::{
    io::{
        cache::Objects,
        cluster::Error,
        kind::{Key, Kind},
    },
    policy::slots,
    store::check::{self as store, Store},
    tenant::check::{self as tenant, Tenant},
};

/// What was seen.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The tenant.
    pub tenant: TenantSeen,
    /// Its policy, if it is there.
    pub policy: Option<Arc<BackupPolicy>>,
    /// The store: that of the attempt that is under way, else the policy's first, if it is there.
    pub store: Option<Store>,
    /// The Job that writes, and its pod.
    pub writing: Sighting,
    /// The Job that reads back, and its pod.
    pub reading: Sighting,
    /// Whether a pod that holds the tenant's attachments is there.
    pub attachments_are_held: bool,
    /// Another backup of this tenant that runs, or whose turn is before this one's.
    pub before: Option<String>,
    /// A newer scheduled backup of this tenant.
    pub newer: Option<String>,
    /// Backups by hand of this tenant that were asked for before this one and are not over.
    pub by_hand_before: usize,
    /// An older tenant with the same archive.
    pub rival: Option<String>,
}

/// How the tenant was seen.
#[derive(Clone, Debug)]
pub enum TenantSeen {
    /// It is there.
    There(Box<Tenant>),
    /// It is there, and cannot be understood.
    Unreadable(String),
    /// It is not known yet.
    Unknown,
    /// It is not there: the API server says so.
    Absent,
}

impl TenantSeen {
    /// The tenant, if it can be understood.
    pub fn there(&self) -> Option<&Tenant> {
        if let Self::There(tenant) = self { Some(tenant) } else { None }
    }
}

impl Observed {
    fn nothing() -> Self {
        Self {
            tenant: TenantSeen::Unknown,
            policy: None,
            store: None,
            writing: Sighting::default(),
            reading: Sighting::default(),
            attachments_are_held: false,
            before: None,
            newer: None,
            by_hand_before: 0,
            rival: None,
        }
    }
}

/// Looks.
///
/// # Errors
/// If the API server refuses or does not answer.
pub async fn observe(run: &Run, context: &Context) -> Result<Observed, Error> {
    let mut observed = Observed::nothing();
    let Some(name) = run.tenant() else { return Ok(observed) };
    if is_over(&run.object) {
        return Ok(observed);
    }
    observed.tenant = tenant_seen(name, context).await?;
    let attempt = run.object.status.as_ref().and_then(|status| status.attempt.as_ref());
    let protection = observed.tenant.there().and_then(|tenant| tenant.backup.as_ref());
    let policy = protection.and_then(|protection| context.policies.get(&ObjectRef::new(&protection.policy)));
    observed.policy = policy.and_then(|policy| policy.0.as_ref().ok().cloned()).map(Arc::new);
    let ordered =
        attempt.filter(|attempt| attempt.failed.is_none()).and_then(|attempt| attempt.order.as_ref());
    let first = observed.policy.as_ref().and_then(|policy| policy.spec.stores.first());
    let wanted = ordered.map(|order| &order.store).or(first);
    let found = wanted.and_then(|name| context.stores.get(&ObjectRef::new(name)));
    observed.store =
        found.and_then(|found| found.0.as_ref().ok().cloned()).map(|object| store::check(Arc::new(object)));
    let objects = context.cache.of(name);
    observed.attachments_are_held = objects.iter().any(|(key, object)| holds_attachments(key, object));
    if let Some(attempt) = attempt.filter(|attempt| attempt.failed.is_none()) {
        let part = Part::Write { number: attempt.number };
        let at = (run.namespace.as_str(), &objects);
        if let (Some(job), true) = (&attempt.job, attempt.wrote.is_none()) {
            observed.writing = sight(run, part, job, at, context).await?;
        }
        if let Some(reading) = attempt.reading.as_ref().filter(|reading| reading.verified.is_none())
            && let Some(job) = &reading.job
        {
            let part = Part::ReadBack { number: attempt.number, reading: reading.number };
            let own = context.cache.of_operator_for(name);
            let at = (context.settings.operator_namespace.as_str(), &own);
            observed.reading = sight(run, part, job, at, context).await?;
        }
    }
    let others = context.others.now(context);
    let now = (context.now)();
    others.of(&run.namespace).for_each(|other| compare(run, other, now, &mut observed));
    observed.rival = observed.tenant.there().and_then(|tenant| others.rival_of(tenant));
    Ok(observed)
}

/// What is not in memory may not have come there yet: only the API server says that a tenant is gone.
async fn tenant_seen(name: &str, context: &Context) -> Result<TenantSeen, Error> {
    match context.tenants.get(&ObjectRef::new(name)) {
        Some(found) => Ok(match &found.0 {
            Ok(object) => match tenant::check(Arc::new(object.clone())) {
                Ok(tenant) => TenantSeen::There(Box::new(tenant)),
                Err(invalid) => TenantSeen::Unreadable(invalid.to_string()),
            },
            Err(_) => {
                TenantSeen::Unreadable("it was written by a newer version, or past the schema".to_owned())
            }
        }),
        None if context.cluster.tenant_is_there(name).await? => Ok(TenantSeen::Unknown),
        None => Ok(TenantSeen::Absent),
    }
}

/// The Job with the UID that the status has, and its pod: from memory, and where that says that something is gone, or
/// over without a word, from the API server.
async fn sight(
    run: &Run,
    part: Part,
    job: &str,
    (namespace, objects): (&str, &Objects),
    context: &Context,
) -> Result<Sighting, Error> {
    let key = Key::new(Kind::Job, part.name(&run.uid()));
    let is_ours = |object: &DynamicObject| object.uid().as_deref() == Some(job);
    let pods = || objects.iter().filter(|(key, _)| key.kind == Kind::Pod).map(|(_, pod)| pod.as_ref());
    let sighting = match objects.get(&key).filter(|object| is_ours(object)) {
        Some(object) => Sighting::of(object, pods()),
        None => match context.cluster.live(&key, namespace).await? {
            Some(object) if is_ours(&object) => Sighting::of(&object, pods()),
            Some(_) | None => Sighting::default(),
        },
    };
    if !sighting.is_silent() && sighting.job != JobSeen::Absent {
        return Ok(sighting);
    }
    let live = context.cluster.pods_of_job(namespace, job).await?;
    let Some(object) = context.cluster.live(&key, namespace).await?.filter(is_ours) else {
        return Ok(Sighting::default());
    };
    Ok(Sighting::of(&object, live.iter()))
}

fn holds_attachments(key: &Key, object: &DynamicObject) -> bool {
    let phase = object.data.pointer("/status/phase").and_then(|phase| phase.as_str());
    key.kind == Kind::Pod
        && object.labels().contains_key(ATTACHMENTS_LABEL)
        && object.metadata.deletion_timestamp.is_none()
        && matches!(phase, Some("Pending" | "Running"))
}

/// What another backup of the same tenant means to this one.
///
/// One whose slot has not come is not newer: a clock that was wrong for a minute must not end the schedule.
fn compare(run: &Run, other: &Backup, now: Timestamp, observed: &mut Observed) {
    if other.uid() == run.object.uid() || other.metadata.deletion_timestamp.is_some() {
        return;
    }
    let slot_of = |backup: &Backup| {
        let scheduled = backup.spec.origin == Origin::Scheduled;
        slot::parse_name(&backup.name_any()).ok().filter(|_| scheduled).map(|(_, slot)| slot)
    };
    if let (Some(own), Some(others)) = (slot_of(&run.object), slot_of(other))
        && others > own
        && slots::has_come(others, now)
        && !other.spec.cancel
    {
        observed.newer = Some(other.name_any());
    }
    // One that is made from the catalogue is run by nobody, and holds nobody up while the janitor has not told it.
    if is_over(other) || awaits_catalogue(other) {
        return;
    }
    let age = |backup: &Backup| (backup.creation_timestamp(), backup.uid());
    if other.spec.origin == Origin::Manual && age(other) < age(&run.object) {
        observed.by_hand_before += 1;
    }
    // Its turn has not come: a clock that was wrong for a minute holds up nobody.
    if slot_of(other).is_some_and(|slot| !slots::has_come(slot, now)) && !is_active(other) {
        return;
    }
    // What people ask for by hand holds up nothing that is due.
    let turn = |backup: &Backup| (backup.spec.origin == Origin::Manual, age(backup));
    if is_active(other) || turn(other) < turn(&run.object) {
        observed.before = Some(other.name_any());
    }
}

/// Whether an attempt of `backup` has Jobs that run, or is about to.
pub fn is_active(backup: &Backup) -> bool {
    let attempt = backup.status.as_ref().and_then(|status| status.attempt.as_ref());
    let is_waiting = |attempt: &valv_crds::backup::Attempt| {
        let reading = attempt.reading.as_ref();
        attempt.failed.is_some()
            || reading.is_some_and(|reading| reading.verified.is_some() || reading.failed.is_some())
    };
    !is_over(backup) && attempt.is_some_and(|attempt| !is_waiting(attempt))
}

/// Whether nothing more happens to `backup`: it is complete, or was given up.
pub fn is_over(backup: &Backup) -> bool {
    let status = backup.status.as_ref();
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let is_true = |kind: BackupCondition| {
        let name = format!("{kind:?}");
        conditions.iter().any(|condition| condition.type_ == name && condition.status == "True")
    };
    is_true(BackupCondition::Complete) || is_true(BackupCondition::Stalled)
}

/// The oldest tenant of each archive.
pub fn eldest<'a>(tenants: impl Iterator<Item = &'a JournalTenant>) -> BTreeMap<String, String> {
    let mut eldest: BTreeMap<String, &JournalTenant> = BTreeMap::new();
    let age = |tenant: &JournalTenant| (tenant.creation_timestamp(), tenant.name_any());
    for tenant in tenants {
        let archive = tenant.spec.archive_id.clone().unwrap_or_else(|| tenant.name_any());
        let standing = eldest.entry(archive).or_insert(tenant);
        if age(tenant) < age(standing) {
            *standing = tenant;
        }
    }
    eldest.into_iter().map(|(archive, tenant)| (archive, tenant.name_any())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::backup::check::{self, tests::backup};

    fn newer(name: &str) -> Option<String> {
        let scheduled = json!({ "origin": "Scheduled" });
        let run = check::check(backup("journal-ada", "ada-20261122t010000z", scheduled.clone()));
        let mut other = backup("journal-ada", name, scheduled).as_ref().clone();
        other.metadata.uid = Some("another".to_owned());
        let mut observed = Observed::nothing();
        compare(&run, &other, "2026-11-24T02:00:00Z".parse().unwrap(), &mut observed);
        observed.newer
    }

    /// What is seen of others by a backup with `own` spec.
    fn seen(own: serde_json::Value, others: &[(&str, serde_json::Value)]) -> Observed {
        let made = |name: &str, spec: serde_json::Value, second: usize| {
            let mut backup = backup("journal-ada", name, spec).as_ref().clone();
            backup.metadata.uid = Some(name.to_owned());
            let at = format!("2026-11-22T01:00:{second:02}Z");
            backup.metadata.creation_timestamp = Some(serde_json::from_value(json!(at)).unwrap());
            backup
        };
        let run = check::check(Arc::new(made("ada-20261122t010000z", own, 30)));
        let mut observed = Observed::nothing();
        for (second, (name, spec)) in others.iter().enumerate() {
            let other = made(name, spec.clone(), second);
            compare(&run, &other, "2026-11-22T02:00:00Z".parse().unwrap(), &mut observed);
        }
        observed
    }

    #[test]
    fn what_is_due_waits_for_nothing_that_was_asked_for_by_hand() {
        let scheduled = json!({ "origin": "Scheduled" });
        let before_migration = json!({ "origin": "BeforeMigration" });
        let by_hand = json!({ "origin": "Manual" });

        assert_eq!(seen(scheduled.clone(), &[("one", by_hand.clone())]).before, None);
        assert_eq!(seen(before_migration.clone(), &[("one", by_hand.clone())]).before, None);
        assert_eq!(seen(by_hand.clone(), &[("one", by_hand.clone())]).before.as_deref(), Some("one"));
        let due = ("ada-20261121t010000z", scheduled.clone());
        assert_eq!(seen(before_migration, std::slice::from_ref(&due)).before.as_deref(), Some(due.0));
    }

    #[test]
    fn a_slot_that_has_not_come_holds_nobody_up() {
        let scheduled = json!({ "origin": "Scheduled" });
        let before = |name: &str| seen(scheduled.clone(), &[(name, scheduled.clone())]).before;

        assert_eq!(before("ada-20261123t010000z"), None);
        assert_eq!(before("ada-20261121t010000z").as_deref(), Some("ada-20261121t010000z"));
    }

    #[test]
    fn those_by_hand_that_were_asked_for_before_are_counted() {
        let by_hand = json!({ "origin": "Manual" });
        let others =
            [("one", by_hand.clone()), ("two", by_hand.clone()), ("x", json!({ "origin": "Scheduled" }))];

        assert_eq!(seen(by_hand, &others).by_hand_before, 2);
    }

    #[test]
    fn a_slot_that_has_not_come_takes_nobody_s_place() {
        assert_eq!(newer("ada-20261124t010000z").as_deref(), Some("ada-20261124t010000z"));
        assert_eq!(newer("ada-20991231t010000z"), None);
        assert_eq!(newer("ada-20261121t010000z"), None);
    }
}
