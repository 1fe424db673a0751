//! Decides whose drill has come and which backup it takes, and which old drills may go. [`plan`] and [`pruned`] are
//! pure, [`reconcile`] reads what is in memory and writes.

use std::{collections::HashMap, time::Duration};

use futures::{StreamExt, stream};
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

use super::{
    Context,
    plan::{LOOK_AGAIN, SHORTEST},
    slots,
};
use crate::{
    drill::{observe::dynamic, sweep},
    error::chain,
    io::{
        cluster::Error,
        kind::{Key, Kind},
    },
    schedule::{Due, Missed, Schedule, turns::Turns},
};

/// Drills that are made or deleted at once.
const AT_ONCE: usize = 32;

/// Drills that stay as objects, of each tenant, of the schedule and by hand each. Their records stay in the store.
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
    let turns = Turns::new(schedule, now);
    let mut choices: HashMap<Slot, Choice> = HashMap::new();
    let mut plan = Plan { orders: vec![], look_again_after: LOOK_AGAIN };
    for one in drilled {
        match turns.due(&one.tenant, one.taken_on) {
            Due::Now { slot, missed } => {
                // Counting a year's slots is not for each tenant.
                let choice = *choices.entry(slot).or_insert_with(|| choice(schedule, pick, slot));
                plan.orders.push(Order { tenant: one.tenant.clone(), slot, choice, missed });
            }
            Due::At { start, .. } => {
                let until = Duration::try_from(start.duration_since(now)).unwrap_or_default();
                plan.look_again_after = plan.look_again_after.min(until + Duration::from_millis(10));
            }
            Due::Never => {}
        }
    }
    plan.look_again_after = plan.look_again_after.max(SHORTEST);
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

/// Drills that may go, of those of one tenant: all but the newest [`KEPT`] of the schedule and of those by hand, so that none
/// by hand takes one of the schedule away; and none of which anything is left.
pub fn pruned(mut drills: Vec<&RestoreDrill>) -> Vec<&RestoreDrill> {
    drills.sort_by_cached_key(|drill| std::cmp::Reverse((drill.creation_timestamp(), drill.name_any())));
    let (due, by_hand): (Vec<_>, Vec<_>) =
        drills.into_iter().partition(|drill| drill.spec.origin == DrillOrigin::Scheduled);
    let old = due.into_iter().skip(KEPT).chain(by_hand.into_iter().skip(KEPT));
    old.filter(|drill| sweep::may_go(drill) && drill.metadata.deletion_timestamp.is_none()).collect()
}

/// Makes the drills of `policy` that are due, deletes old ones, and says when to look again.
///
/// # Errors
/// The first, after all others were tried: what fails for one tenant stops no other.
pub async fn reconcile(policy: &BackupPolicy, context: &Context, now: Timestamp) -> Result<Duration, Error> {
    let name = policy.name_any();
    let tenants = context.tenants.state();
    let tenants: Vec<&JournalTenant> = tenants
        .iter()
        .filter_map(|tenant| tenant.0.as_ref().ok())
        .filter(|tenant| tenant.spec.backup.as_ref().is_some_and(|backup| backup.policy == name))
        .collect();
    let drills = context.drills.state();
    let by_tenant = by_tenant(drills.iter().filter_map(|drill| drill.0.as_ref().ok()));
    let of =
        |tenant: &JournalTenant| by_tenant.get(tenant.name_any().as_str()).map_or(&[][..], Vec::as_slice);
    let old = tenants.iter().flat_map(|tenant| pruned(of(tenant).to_vec()));
    let mut first = all(old.map(|drill| prune(drill, context)).collect()).await;
    let Some(drill) = &policy.spec.drill else { return first.map_or(Ok(LOOK_AGAIN), Err) };
    // The status says it, and the next version of the policy brings the next look.
    let Ok(schedule) = Schedule::try_from(&drill.schedule) else {
        return first.map_or(Ok(LOOK_AGAIN), Err);
    };
    let drilled: Vec<Drilled> =
        tenants.iter().filter_map(|tenant| drilled(tenant, of(tenant), now)).collect();
    let plan = plan(&schedule, drill.pick, &drilled, now);
    let made = all(plan.orders.iter().map(|order| make(order, context)).collect()).await;
    first = first.or(made);
    first.map_or(Ok(plan.look_again_after), Err)
}

/// The drills by tenant, as their namespaces tell.
fn by_tenant<'a>(drills: impl Iterator<Item = &'a RestoreDrill>) -> HashMap<&'a str, Vec<&'a RestoreDrill>> {
    let mut by_tenant: HashMap<&str, Vec<&RestoreDrill>> = HashMap::new();
    for drill in drills {
        let namespace = drill.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(tenant) = namespace.strip_prefix(NAMESPACE_PREFIX) {
            by_tenant.entry(tenant).or_default().push(drill);
        }
    }
    by_tenant
}

/// Does all of it, some tens at a time, and returns the first error.
async fn all<F: Future<Output = Result<(), Error>>>(tasks: Vec<F>) -> Option<Error> {
    let mut done = stream::iter(tasks).buffer_unordered(AT_ONCE);
    let mut first = None;
    while let Some(result) = done.next().await {
        if let Err(error) = result {
            warn!(error = chain(&error), "failed to make or to prune a drill, trying again");
            first.get_or_insert(error);
        }
    }
    first
}

async fn prune(old: &RestoreDrill, context: &Context) -> Result<(), Error> {
    let Some(standing) = dynamic(old) else { return Ok(()) };
    match context.cluster.delete(&Key::new(Kind::RestoreDrill, old.name_any()), &standing).await {
        Err(error) if error.is_conflict() || error.is_refusal() => {
            warn!(object.name = old.name_any(), error = chain(&error), "failed to prune a drill");
            Ok(())
        }
        deleted => deleted,
    }
}

/// `tenant`, if it is to be drilled. One that is suspended is: its backups are what is left of it.
///
/// A slot that has not come was taken on by a wrong clock, and ends nothing.
fn drilled(tenant: &JournalTenant, drills: &[&RestoreDrill], now: Timestamp) -> Option<Drilled> {
    if tenant.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let name = tenant.name_any();
    let made = tenant.creation_timestamp()?.0;
    let told = tenant.status.as_ref().and_then(|status| status.backup.as_ref()?.last_drill_slot);
    let of_objects = drills.iter().filter(|drill| drill.spec.origin == DrillOrigin::Scheduled);
    let of_objects = of_objects.filter_map(|drill| {
        let (named, slot) = slot::parse_name(drill.metadata.name.as_deref()?).ok()?;
        (named == name).then_some(slot)
    });
    let come = told.into_iter().chain(of_objects).filter(|slot| slots::has_come(*slot, now));
    let newest = come.map(Slot::time).max();
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

        let names: Vec<_> = pruned(drills.iter().collect()).iter().map(|drill| drill.name_any()).collect();

        assert_eq!(names, ["d3", "d1"]);
    }

    #[test]
    fn no_number_of_drills_by_hand_takes_one_of_the_schedule_away() {
        let mut drills: Vec<_> = (1..=23).map(|number| drill(number, "True")).collect();
        drills[..11].iter_mut().for_each(|drill| drill.spec.origin = DrillOrigin::Scheduled);

        let names: Vec<_> = pruned(drills.iter().collect()).iter().map(|drill| drill.name_any()).collect();

        assert_eq!(names, ["d1", "d13", "d12"]);
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
        let now = at("2026-11-22T12:00:00Z");
        assert_eq!(drilled(&tenant, &[], now).unwrap().taken_on, at("2026-11-22T05:00:00Z"));

        tenant.status = None;
        let mut scheduled = drill(15, "True");
        scheduled.spec.origin = DrillOrigin::Scheduled;
        scheduled.metadata.name = Some("ada-20261115t050000z".into());
        assert_eq!(drilled(&tenant, &[&scheduled], now).unwrap().taken_on, at("2026-11-15T05:00:00Z"));
    }

    #[test]
    fn a_slot_that_a_wrong_clock_took_on_ends_no_drills() {
        let mut tenant: JournalTenant = serde_json::from_value(json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant",
            "metadata": { "name": "ada", "creationTimestamp": "2026-03-01T00:00:00Z" },
            "spec": { "host": "h", "journal": { "image": "j" }, "database": { "size": "1Gi" } },
            "status": { "journal": {}, "database": {}, "certificates": {}, "conditions": [],
                "backup": { "lastDrillSlot": "20991122T050000Z" } },
        }))
        .unwrap();
        let now = at("2026-11-22T12:00:00Z");
        assert_eq!(drilled(&tenant, &[], now).unwrap().taken_on, at("2026-03-01T00:00:00Z"));

        tenant.status = None;
        let mut future = drill(15, "True");
        future.spec.origin = DrillOrigin::Scheduled;
        future.metadata.name = Some("ada-20991115t050000z".into());
        assert_eq!(drilled(&tenant, &[&future], now).unwrap().taken_on, at("2026-03-01T00:00:00Z"));
    }

    #[test]
    fn ten_thousand_tenants_are_looked_at_every_ten_seconds_and_no_oftener() {
        let schedule = Schedule::new("0 5 * * 0", "UTC", 6 * HOUR, HOUR).unwrap();
        let all: Vec<_> = (0..10_000)
            .map(|number| Drilled { tenant: format!("t{number}"), taken_on: at("2026-11-15T05:00:00Z") })
            .collect();

        let plan = plan(&schedule, Pick::default(), &all, at("2026-11-22T06:00:00Z"));

        assert_eq!(plan.look_again_after, SHORTEST);
        assert!(plan.orders.len() > 1_000, "{}", plan.orders.len());
    }

    #[test]
    fn a_drill_is_counted_for_the_tenant_in_whose_namespace_it_is() {
        let (ada, mut bo) = (drill(1, "True"), drill(2, "True"));
        bo.metadata.namespace = Some("journal-bo".into());
        let drills = [ada, bo];

        let by_tenant = by_tenant(drills.iter());

        assert_eq!((by_tenant["ada"].len(), by_tenant["bo"][0].name_any()), (1, "d2".to_owned()));
    }

    #[tokio::test]
    async fn what_fails_for_one_is_returned_after_all_others_were_tried() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        let tried = AtomicUsize::new(0);
        let one = async |fails: bool| {
            tried.fetch_add(1, Ordering::SeqCst);
            let (key, namespace) = ("d1".to_owned(), "journal-ada".to_owned());
            let error = Error::TimedOut { verb: "create", key, namespace, after: HOUR };
            if fails { Err(error) } else { Ok(()) }
        };

        let first = all(vec![one(true), one(false), one(false)]).await;

        assert!(first.is_some());
        assert_eq!(tried.load(Ordering::SeqCst), 3);
    }
}
