//! Decides whose drill has come and which backup it takes, and which old drills may go. [`plan`] and [`pruned`] are
//! pure, [`reconcile`] reads what is in memory and writes.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use kube::{ResourceExt, api::ObjectMeta};
use tracing::{info, warn};
use valv_crds::{
    BackupPolicy, JournalTenant, RestoreDrill, RestoreDrillSpec, Slot,
    drill::{Choice, DrillOrigin},
    policy::Pick,
    reference::NAMESPACE_PREFIX,
    slot,
};

use super::{Context, plan::LOOK_AGAIN};
use crate::{
    drill::{observe::dynamic, sweep},
    error::chain,
    io::{
        cluster::Error,
        kind::{Key, Kind},
    },
    schedule::{Due, Missed, Schedule},
};

/// Drills that stay as objects, of each tenant. Their records stay in the store.
const KEPT: usize = 10;

/// A tenant that is drilled by the policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Drilled {
    /// Its name.
    pub tenant: String,
    /// The newest slot of drills that was taken on; if none was, when the tenant was made.
    pub taken_on: Timestamp,
}

/// A drill that is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Order {
    /// Whose.
    pub tenant: String,
    /// For which slot.
    pub slot: Slot,
    /// Which backup it takes.
    pub choice: Choice,
    /// Older slots that nobody ran.
    pub missed: Missed,
}

/// What is done now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Drills to make.
    pub orders: Vec<Order>,
    /// When to look again.
    pub look_again_after: Duration,
}

/// The plan for all that are drilled by `schedule`, at `now`.
pub fn plan(schedule: &Schedule, pick: Pick, drilled: &[Drilled], now: Timestamp) -> Plan {
    let mut plan = Plan { orders: vec![], look_again_after: LOOK_AGAIN };
    for one in drilled {
        match schedule.due(&one.tenant, one.taken_on, now) {
            Due::Now { slot, missed } => {
                let choice = choice(schedule, pick, slot);
                plan.orders.push(Order { tenant: one.tenant.clone(), slot, choice, missed });
            }
            Due::At { start, .. } => {
                let until = Duration::try_from(start.duration_since(now)).unwrap_or_default();
                plan.look_again_after = plan.look_again_after.min(until + Duration::from_millis(10));
            }
            Due::Never => {}
        }
    }
    plan
}

/// Which backup the drill of `slot` takes: of as many slots as both shares are, counted from the first of the slot's
/// year, the first take the newest and the others a random one. The slot alone decides, so that every look agrees,
/// whatever drills are still there as objects.
fn choice(schedule: &Schedule, pick: Pick, slot: Slot) -> Choice {
    let (newest, random) = (count(pick.newest), count(pick.random));
    let round = newest + random;
    if round == 0 {
        return Choice::Newest;
    }
    if ordinal(schedule, slot) % round < newest { Choice::Newest } else { Choice::Random }
}

fn count(share: i32) -> usize {
    usize::try_from(share).unwrap_or_default()
}

/// How many slots of its year are before `slot`.
fn ordinal(schedule: &Schedule, slot: Slot) -> usize {
    let year = slot.to_string();
    let first = format!("{}0101T000000Z", &year[..4]);
    let Ok(first) = first.parse::<Slot>() else { return 0 };
    let before = first.time().checked_sub(Duration::from_secs(1)).unwrap_or(Timestamp::MIN);
    std::iter::successors(schedule.next(before), |slot| schedule.next(slot.time()))
        .take_while(|other| *other < slot)
        .count()
}

/// Drills that may go: of each tenant all but the newest [`KEPT`], and none of which anything is left.
pub fn pruned<'a>(drills: impl Iterator<Item = &'a RestoreDrill>) -> Vec<&'a RestoreDrill> {
    let mut by_tenant: BTreeMap<String, Vec<&RestoreDrill>> = BTreeMap::new();
    for drill in drills {
        by_tenant.entry(drill.namespace().unwrap_or_default()).or_default().push(drill);
    }
    let of_one = |mut drills: Vec<&'a RestoreDrill>| {
        drills.sort_by_key(|drill| std::cmp::Reverse((drill.creation_timestamp(), drill.name_any())));
        drills.into_iter().skip(KEPT)
    };
    let old = by_tenant.into_values().flat_map(of_one);
    old.filter(|drill| sweep::may_go(drill) && drill.metadata.deletion_timestamp.is_none()).collect()
}

/// Makes the drills of `policy` that are due, deletes old ones, and says when to look again.
///
/// # Errors
/// The first that is of the API server as a whole. What it refuses of one tenant stops no other.
pub async fn reconcile(policy: &BackupPolicy, context: &Context, now: Timestamp) -> Result<Duration, Error> {
    let name = policy.name_any();
    let tenants = context.tenants.state();
    let tenants: Vec<&JournalTenant> = tenants
        .iter()
        .filter_map(|tenant| tenant.0.as_ref().ok())
        .filter(|tenant| tenant.spec.backup.as_ref().is_some_and(|backup| backup.policy == name))
        .collect();
    let drills = context.drills.state();
    let drills: Vec<&RestoreDrill> = drills.iter().filter_map(|drill| drill.0.as_ref().ok()).collect();
    let is_ours = |drill: &&&RestoreDrill| {
        let namespace = drill.namespace().unwrap_or_default();
        let tenant = namespace.strip_prefix(NAMESPACE_PREFIX);
        tenants.iter().any(|own| Some(own.name_any().as_str()) == tenant)
    };
    for old in pruned(drills.iter().filter(is_ours).copied()) {
        let key = Key::new(Kind::RestoreDrill, old.name_any());
        if let Some(standing) = dynamic(old) {
            match context.cluster.delete(&key, &standing).await {
                Err(error) if error.is_conflict() || error.is_refusal() => {
                    warn!(object.name = old.name_any(), error = chain(&error), "failed to prune a drill");
                }
                deleted => deleted?,
            }
        }
    }
    let Some(drill) = &policy.spec.drill else { return Ok(LOOK_AGAIN) };
    // The status says it, and the next version of the policy brings the next look.
    let Ok(schedule) = Schedule::try_from(&drill.schedule) else { return Ok(LOOK_AGAIN) };
    let drilled: Vec<Drilled> = tenants.iter().filter_map(|tenant| drilled(tenant, &drills)).collect();
    let plan = plan(&schedule, drill.pick, &drilled, now);
    for order in &plan.orders {
        make(order, context).await?;
    }
    Ok(plan.look_again_after)
}

/// `tenant`, if it is to be drilled. One that is suspended is: its backups are what is left of it.
fn drilled(tenant: &JournalTenant, drills: &[&RestoreDrill]) -> Option<Drilled> {
    if tenant.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let name = tenant.name_any();
    let made = tenant.creation_timestamp()?.0;
    let told = tenant.status.as_ref().and_then(|status| status.backup.as_ref()?.last_drill_slot);
    let of_objects = drills
        .iter()
        .filter(|drill| drill.spec.origin == DrillOrigin::Scheduled)
        .filter_map(|drill| {
            let object = drill.name_any();
            let (named, slot) = slot::parse_name(&object).ok()?;
            let home = drill.namespace()?;
            (named == name && home.strip_prefix(NAMESPACE_PREFIX) == Some(named)).then_some(slot)
        })
        .max();
    let newest = told.into_iter().chain(of_objects).map(Slot::time).max();
    Some(Drilled { taken_on: newest.map_or(made, |slot| slot.max(made)), tenant: name })
}

async fn make(order: &Order, context: &Context) -> Result<(), Error> {
    let name = slot::name(&order.tenant, order.slot);
    let drill = RestoreDrill {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(format!("{NAMESPACE_PREFIX}{}", order.tenant)),
            ..ObjectMeta::default()
        },
        spec: RestoreDrillSpec {
            origin: DrillOrigin::Scheduled,
            backup: order.choice,
            ..RestoreDrillSpec::default()
        },
        status: None,
    };
    match context.cluster.create_drill(&drill).await {
        Ok(()) => {
            info!(tenant.name = order.tenant, object.name = name, "took a drill on");
            for missed in &order.missed.listed {
                warn!(tenant.name = order.tenant, slot = %missed, "a drill's slot passed and was not run");
            }
            Ok(())
        }
        // Made by somebody who came to the same plan.
        Err(error) if error.is_conflict() => Ok(()),
        Err(error) if error.is_not_found() || error.is_refusal() => {
            warn!(tenant.name = order.tenant, error = chain(&error), "failed to make a drill that is due");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn weekly() -> Schedule {
        Schedule::new("0 5 * * 0", "UTC", Duration::ZERO, HOUR).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn ada(taken_on: &str) -> Vec<Drilled> {
        vec![Drilled { tenant: "ada".into(), taken_on: at(taken_on) }]
    }

    #[test]
    fn a_drill_is_ordered_once() {
        let now = at("2026-11-22T05:00:00Z");

        let first = plan(&weekly(), Pick::default(), &ada("2026-11-15T05:00:00Z"), now);
        let second = plan(&weekly(), Pick::default(), &ada("2026-11-22T05:00:00Z"), now);

        assert_eq!(first.orders[0].slot.to_string(), "20261122T050000Z");
        assert_eq!(second.orders, []);
    }

    #[test]
    fn three_of_four_drills_take_the_newest_backup_and_one_a_random_one() {
        let slots = std::iter::successors(weekly().next(at("2026-01-01T00:00:00Z")), |slot| {
            weekly().next(slot.time())
        });

        let choices: Vec<_> =
            slots.take(8).map(|slot| choice(&weekly(), Pick { newest: 3, random: 1 }, slot)).collect();

        let round = [Choice::Newest, Choice::Newest, Choice::Newest, Choice::Random];
        assert_eq!(choices, [round, round].concat());
        let slot = "20261122T050000Z".parse().unwrap();
        assert_eq!(choice(&weekly(), Pick { newest: 0, random: 1 }, slot), Choice::Random);
        assert_eq!(choice(&weekly(), Pick { newest: 1, random: 0 }, slot), Choice::Newest);
    }

    fn drill(number: u32, torn_down: &str) -> RestoreDrill {
        let condition = |kind: &str, status: &str| {
            json!({ "type": kind, "status": status, "reason": "AsAsked", "message": "",
                "lastTransitionTime": "2026-11-22T06:00:00Z" })
        };
        serde_json::from_value(json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "RestoreDrill",
            "metadata": {
                "name": format!("d{number}"), "namespace": "journal-ada",
                "creationTimestamp": format!("2026-11-{number:02}T05:00:00Z"),
            },
            "spec": {},
            "status": {
                "ended": "2026-11-22T06:00:00Z",
                "conditions": [condition("TornDown", torn_down), condition("Recorded", "True")],
            },
        }))
        .unwrap()
    }

    #[test]
    fn old_drills_go_but_never_one_of_which_something_is_left() {
        let mut drills: Vec<_> = (1..=13).map(|number| drill(number, "True")).collect();
        drills[1] = drill(2, "False");

        let names: Vec<_> = pruned(drills.iter()).iter().map(|drill| drill.name_any()).collect();

        assert_eq!(names, ["d3", "d1"]);
    }

    #[test]
    fn a_slot_that_the_tenants_status_remembers_is_not_run_again() {
        let mut tenant: JournalTenant = serde_json::from_value(json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant",
            "metadata": { "name": "ada", "creationTimestamp": "2026-03-01T00:00:00Z" },
            "spec": { "host": "h", "journal": { "image": "j" }, "database": { "size": "1Gi" } },
            "status": { "journal": {}, "database": {}, "certificates": {}, "conditions": [],
                "backup": { "lastDrillSlot": "20261122T050000Z" } },
        }))
        .unwrap();
        assert_eq!(drilled(&tenant, &[]).unwrap().taken_on, at("2026-11-22T05:00:00Z"));

        tenant.status = None;
        let mut scheduled = drill(15, "True");
        scheduled.spec.origin = DrillOrigin::Scheduled;
        scheduled.metadata.name = Some("ada-20261115t050000z".into());
        assert_eq!(drilled(&tenant, &[&scheduled]).unwrap().taken_on, at("2026-11-15T05:00:00Z"));
    }
}
