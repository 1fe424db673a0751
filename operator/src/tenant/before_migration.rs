//! A schema is migrated only when what it was is safe: decides about the backup before a migration.
//!
//! Input: the tenant, its backups, what is remembered, the time. Output: whether the migration may start, and the
//! backup to make. Pure.
//!
//! The slot of that backup is remembered in the [`State`] before the `Backup` is made, so that it is asked for once for
//! each image and each try, whatever becomes of the object.

use std::time::Duration;

use jiff::Timestamp;
use kube::{ResourceExt, api::ObjectMeta};
use serde::{Deserialize, Serialize};
use valv_crds::{
    Backup, BackupSpec, Slot,
    backup::{BackupCondition, Origin},
    condition::Reason,
    reference::{MIGRATE_WITHOUT_BACKUP_ANNOTATION, RETRY_MIGRATION_ANNOTATION},
    slot,
};

use super::{
    check::Tenant,
    observe::State,
    protection::{PolicySeen, found},
    upgrade::Start,
};

/// The backup before one migration.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Saving {
    /// The image that is migrated to.
    pub image: String,
    /// Which try.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub retry: String,
    /// The backup's slot.
    pub slot: Slot,
    /// When it was seen complete: its object may go after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<Timestamp>,
}

/// What comes of a migration that could start now.
#[derive(Clone, Debug, PartialEq)]
pub struct Before {
    /// Whether it may.
    pub start: Start,
    /// The backup to ask for, by its slot.
    pub order: Option<Slot>,
}

/// Whether the migration of `tenant` to the image that it asks for may start at `now`, and what comes before it. What
/// is to be remembered is put into `state`.
///
/// A backup that was complete longer ago than `fresh_for` is not the one before the migration: another is made.
pub fn before(
    tenant: &Tenant,
    backups: &[Backup],
    state: &mut State,
    fresh_for: Duration,
    now: Timestamp,
) -> Before {
    let image = &tenant.journal.image;
    let goes = Before { start: Start::Now, order: None };
    // Of what never served there is nothing to lose.
    let is_first = state.serving.is_none() && state.migrated.is_empty() && state.served.is_empty();
    if tenant.backup.is_none() || is_first || is_waived(tenant) {
        state.saving = None;
        return goes;
    }
    let retry = tenant.migration_retry();
    let is_fresh = |complete: Timestamp| {
        Duration::try_from(now.duration_since(complete)).unwrap_or_default() <= fresh_for
    };
    let is_this = |saving: &Saving| {
        saving.image == *image && saving.retry == retry && saving.complete.is_none_or(is_fresh)
    };
    let mut saving = match state.saving.take().filter(is_this) {
        Some(saving) => saving,
        None => match slot_at(now) {
            Some(slot) => Saving { image: image.clone(), retry: retry.to_owned(), slot, complete: None },
            None => return held(Reason::BackingUp, "the clock shows no time that a slot can have", None),
        },
    };
    let name = slot::name(&tenant.name, saving.slot);
    let there = backups.iter().find(|backup| backup.name_any() == name);
    let before = if saving.complete.is_some() {
        goes
    } else {
        match there.map(standing) {
            Some(Standing::Complete) => {
                saving.complete = Some(now);
                goes
            }
            Some(Standing::Failed(why)) => held(
                Reason::BackupFailed,
                &format!(
                    "the backup {name} before the migration to {image} failed, and nothing is migrated: {why}. To have another made, annotate the tenant with {RETRY_MIGRATION_ANNOTATION}=<anything new>; to go without: kubectl annotate journaltenant {} {MIGRATE_WITHOUT_BACKUP_ANNOTATION}={image}",
                    tenant.name
                ),
                None,
            ),
            Some(Standing::UnderWay) => held(
                Reason::BackingUp,
                &format!("the migration to {image} waits for the backup {name}"),
                None,
            ),
            None => held(
                Reason::BackingUp,
                &format!("the migration to {image} waits for the backup {name}"),
                Some(saving.slot),
            ),
        }
    };
    state.saving = Some(saving);
    before
}

/// How old the backup before a migration may be: what the policy promises to lose at most. Without one a day, as a policy
/// that nobody wrote would say.
pub fn fresh_for(policy: &PolicySeen) -> Duration {
    match policy {
        PolicySeen::There(policy) => policy.spec.objectives.rpo.duration(),
        PolicySeen::Missing => Duration::from_secs(24 * 3600),
    }
}

fn held(reason: Reason, message: &str, order: Option<Slot>) -> Before {
    Before { start: Start::Held { reason, message: message.to_owned() }, order }
}

/// Whether somebody decided to go without. Their word is for one image.
fn is_waived(tenant: &Tenant) -> bool {
    let said = tenant.object.annotations().get(MIGRATE_WITHOUT_BACKUP_ANNOTATION);
    said.is_some_and(|image| *image == tenant.journal.image)
}

/// A slot at `now` that no schedule has: those of a schedule are whole minutes.
fn slot_at(now: Timestamp) -> Option<Slot> {
    let off = if now.as_second().rem_euclid(60) == 0 { Duration::from_secs(1) } else { Duration::ZERO };
    Slot::at(now.checked_sub(off).ok()?).ok()
}

/// The backup of `tenant` before a migration, for `slot`.
pub fn order(tenant: &Tenant, slot: Slot) -> Backup {
    Backup {
        metadata: ObjectMeta {
            name: Some(slot::name(&tenant.name, slot)),
            namespace: Some(tenant.namespace.clone()),
            ..ObjectMeta::default()
        },
        spec: BackupSpec { origin: Origin::BeforeMigration, ..BackupSpec::default() },
        status: None,
    }
}

/// Where the backup stands.
enum Standing {
    Complete,
    UnderWay,
    Failed(String),
}

fn standing(backup: &Backup) -> Standing {
    if backup.spec.origin != Origin::BeforeMigration {
        let origin = backup.spec.origin;
        return Standing::Failed(format!(
            "a Backup of this name was made by somebody else, as {origin:?}: delete it"
        ));
    }
    let conditions = backup.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let says = |kind| found(conditions, kind).filter(|said| said.status == "True");
    if says(BackupCondition::Complete).is_some() {
        return Standing::Complete;
    }
    match says(BackupCondition::Stalled) {
        Some(stalled) => Standing::Failed(format!("{}: {}", stalled.reason, stalled.message)),
        None => Standing::UnderWay,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use valv_crds::condition::{ConditionType, Truth};

    use super::*;
    use crate::{
        io::kind::Kind,
        tenant::{
            plan::Plan,
            protection::tests::{committed, stalled},
            simulation::Simulation,
            upgrade::MIGRATE_PREFIX,
        },
    };

    const TWO: &str = "registry.example/journal:2";

    /// A tenant that is backed up and runs, and asks for another image.
    fn asking() -> Simulation {
        let mut simulation = Simulation::new();
        let [tenant, escrow] = ["q", "p"].map(|letter| format!("age1{}", letter.repeat(58)));
        simulation.tenant.spec.backup = serde_json::from_value(json!({
            "recipients": { "tenant": tenant, "escrow": escrow },
        }))
        .unwrap();
        simulation.settle(|_| {});
        assert!(simulation.observed.protection.backups.is_empty(), "there was nothing to lose at first");
        simulation.tenant.spec.journal.image = TWO.into();
        simulation
    }

    /// A look whose backups are made, as the API server would.
    fn look(simulation: &mut Simulation) -> Plan {
        let plan = simulation.look();
        for slot in &plan.backups {
            let backup = order(&simulation.checked(), *slot);
            let made = &mut simulation.observed.protection.backups;
            assert!(made.iter().all(|there| there.name_any() != backup.name_any()), "it is made twice");
            made.push(backup);
        }
        plan
    }

    fn migration(plan: &Plan) -> bool {
        let mut names = plan.apply.iter().filter(|wanted| wanted.key.kind == Kind::Job);
        names.any(|wanted| wanted.key.name.starts_with(MIGRATE_PREFIX))
    }

    fn schema(simulation: &Simulation) -> (Truth, Reason) {
        simulation.says(ConditionType::SchemaCurrent)
    }

    /// The backup that was asked for, complete.
    fn complete(backup: &Backup) -> Backup {
        let status = committed("20260301T115959Z", "2026-03-01T12:00:30Z").status;
        Backup { status, ..backup.clone() }
    }

    /// Looks until a migration is made, with time passing in between.
    fn migrates(simulation: &mut Simulation) -> bool {
        (0..4).any(|_| migration(&look(simulation)))
    }

    #[test]
    fn a_backup_is_asked_for_once_and_waited_for_before_a_schema_is_migrated() {
        let mut simulation = asking();

        let first = look(&mut simulation);
        simulation.now += Duration::from_secs(90);
        let waiting = migrates(&mut simulation);

        assert_eq!(first.backups.len(), 1);
        assert_eq!(first.backups[0].to_string(), "20260301T115959Z", "no schedule has such a slot");
        assert!(!waiting, "it did not wait");
        assert_eq!(schema(&simulation), (Truth::False, Reason::BackingUp));
        assert_eq!(simulation.observed.protection.backups.len(), 1);
        assert_eq!(simulation.observed.protection.backups[0].spec.origin, Origin::BeforeMigration);
        let backup = simulation.observed.protection.backups[0].clone();
        simulation.observed.protection.backups = vec![complete(&backup)];
        assert!(migrates(&mut simulation));
        simulation.settle(|_| {});
        assert_eq!(schema(&simulation), (Truth::True, Reason::AsAsked));
    }

    #[test]
    fn a_backup_that_was_seen_complete_may_be_pruned_before_the_migration_starts() {
        let mut simulation = asking();
        look(&mut simulation);
        let backup = simulation.observed.protection.backups[0].clone();
        simulation.observed.protection.backups = vec![complete(&backup)];

        let seen = look(&mut simulation);
        simulation.observed.protection.backups.clear();
        let after = migrates(&mut simulation);

        assert!(!migration(&seen), "the claim is written first");
        assert!(after);
        assert_eq!(simulation.observed.protection.backups.len(), 0, "no second one is made");
    }

    #[test]
    fn a_backup_that_is_older_than_what_may_be_lost_when_the_migration_starts_is_taken_anew() {
        let mut simulation = asking();
        look(&mut simulation);
        let backup = simulation.observed.protection.backups[0].clone();
        simulation.observed.protection.backups = vec![complete(&backup)];
        look(&mut simulation);

        simulation.now += Duration::from_secs(2 * 24 * 3600);
        simulation.observed.protection.backups.clear();
        let migrated = migrates(&mut simulation);

        assert!(!migrated, "what was written since the backup would be lost");
        assert_eq!(simulation.observed.protection.backups.len(), 1, "another is asked for");
        assert_eq!(schema(&simulation), (Truth::False, Reason::BackingUp));
    }

    #[test]
    fn a_backup_that_fails_stops_the_migration_until_somebody_decides() {
        let mut simulation = asking();
        look(&mut simulation);
        let backup = simulation.observed.protection.backups.pop().unwrap();
        let failed = stalled(backup, "20260301T115959Z", "StoreUnavailable");
        simulation.observed.protection.backups = vec![failed];

        assert!(!migrates(&mut simulation));
        assert_eq!(schema(&simulation), (Truth::False, Reason::BackupFailed));
        let said = simulation.saying(ConditionType::SchemaCurrent).message;
        assert!(said.contains("StoreUnavailable: it would not"), "{said}");
        assert!(said.contains(&format!("valv.eu/migrate-without-backup={TWO}")), "{said}");

        let annotations = simulation.tenant.metadata.annotations.get_or_insert_default();
        annotations.insert(MIGRATE_WITHOUT_BACKUP_ANNOTATION.into(), "registry.example/journal:3".into());
        assert!(!migrates(&mut simulation), "that word was for another image");
        let annotations = simulation.tenant.metadata.annotations.get_or_insert_default();
        annotations.insert(MIGRATE_WITHOUT_BACKUP_ANNOTATION.into(), TWO.into());
        assert!(migrates(&mut simulation));
    }

    #[test]
    fn another_try_has_another_backup() {
        let mut simulation = asking();
        look(&mut simulation);
        let backup = simulation.observed.protection.backups.pop().unwrap();
        simulation.observed.protection.backups =
            vec![stalled(backup, "20260301T115959Z", "StoreUnavailable")];
        look(&mut simulation);

        simulation.now += Duration::from_secs(61);
        let annotations = simulation.tenant.metadata.annotations.get_or_insert_default();
        annotations.insert(RETRY_MIGRATION_ANNOTATION.into(), "1".into());
        let plan = look(&mut simulation);

        assert_eq!(plan.backups[0].to_string(), "20260301T120101Z");
        assert_eq!(schema(&simulation), (Truth::False, Reason::BackingUp));
    }

    #[test]
    fn what_somebody_else_made_under_the_name_is_not_taken_for_the_backup() {
        let mut simulation = asking();
        look(&mut simulation);
        let mut foreign = complete(&simulation.observed.protection.backups.pop().unwrap());
        foreign.spec.origin = Origin::Manual;
        simulation.observed.protection.backups = vec![foreign];

        assert!(!migrates(&mut simulation));
        assert_eq!(schema(&simulation), (Truth::False, Reason::BackupFailed));
    }

    #[test]
    fn a_tenant_that_is_not_backed_up_migrates_at_once() {
        let mut simulation = Simulation::running();
        simulation.tenant.spec.journal.image = TWO.into();

        assert!(migrates(&mut simulation));
        assert!(simulation.observed.protection.backups.is_empty());
    }
}
