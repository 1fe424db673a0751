//! Says whether a policy can be followed. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use valv_crds::{
    BackupPolicy, BackupPolicyStatus, BackupStore,
    condition::{Saying, Truth},
    policy::{PolicyCondition, PolicyReason, Writers},
    store::{Answer, Location, StoreCondition},
};

use crate::{
    error::chain,
    io::events::{News, Tone},
    residency,
    schedule::{Schedule, ScheduleError},
    settings,
};

/// What is known of a store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreSeen {
    /// Why it is not ready; absent: it is.
    pub trouble: Option<String>,
    /// Whether the deletion of what is locked there was refused.
    pub is_locked: bool,
    /// Whether its writer was seen to reach one archive only, and to replace nothing.
    pub is_confined: bool,
    /// Where it lies.
    pub location: Location,
}

impl StoreSeen {
    /// As `store`'s own status says.
    pub fn of(store: &BackupStore) -> Self {
        let status = store.status.as_ref();
        let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let ready =
            conditions.iter().find(|condition| condition.type_ == format!("{:?}", StoreCondition::Ready));
        let trouble = match ready {
            None => Some("it was not probed yet".to_owned()),
            Some(ready) if ready.status == "True" => None,
            Some(ready) => Some(ready.message.clone()),
        };
        let seen = status.and_then(|status| status.capabilities.lock_refuses_deletion.as_ref());
        let is_locked =
            store.spec.object_lock.is_some() && seen.is_some_and(|seen| seen.answer == Answer::Yes);
        let confined = format!("{:?}", StoreCondition::WriterConfined);
        let is_confined =
            conditions.iter().any(|condition| condition.type_ == confined && condition.status == "True");
        Self { trouble, is_locked, is_confined, location: store.spec.location.clone() }
    }
}

/// The status of `policy`, which so many `tenants` have, with `stores` as they are known, in a cluster that is at `own`.
pub fn status(
    policy: &BackupPolicy,
    stores: &BTreeMap<String, StoreSeen>,
    tenants: usize,
    own: Option<&settings::Location>,
    now: Timestamp,
) -> BackupPolicyStatus {
    let schedule = Schedule::try_from(&policy.spec.schedule);
    let drill = policy.spec.drill.as_ref().map(|drill| Schedule::try_from(&drill.schedule)).transpose();
    let next =
        |schedule: &Result<Schedule, ScheduleError>| schedule.as_ref().ok().and_then(|it| it.next(now));
    let next_slot = next(&schedule);
    let next_drill_slot = drill.as_ref().ok().and_then(|drill| drill.as_ref()?.next(now));
    let calendar = said_of_schedules(schedule.err().or(drill.err()));
    let usable = said_of_stores(policy, stores, own);
    let worst = [&calendar, &usable].into_iter().find(|said| !said.is_true());
    let ready = match worst {
        Some(said) => Said { kind: PolicyCondition::Ready, ..said.clone() },
        None => Said::yes(PolicyCondition::Ready, PolicyReason::AsAsked, "it can be followed"),
    };
    let stalled = (!ready.is_true())
        .then(|| Said { kind: PolicyCondition::Stalled, truth: Truth::True, ..ready.clone() })
        .filter(|said| said.reason != PolicyReason::StoreNotReady);
    let standing = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let generation = policy.metadata.generation;
    BackupPolicyStatus {
        observed_generation: generation,
        next_slot,
        next_drill_slot,
        tenants: i32::try_from(tenants).unwrap_or(i32::MAX),
        conditions: [Some(ready), Some(calendar), Some(usable), stalled]
            .into_iter()
            .flatten()
            .map(|said| said.dated(standing, generation, now))
            .collect(),
    }
}

fn said_of_schedules(error: Option<ScheduleError>) -> Said {
    let kind = PolicyCondition::ScheduleValid;
    let Some(error) = error else { return Said::yes(kind, PolicyReason::AsAsked, "slots come round") };
    let reason = match &error {
        ScheduleError::Cron { .. } => PolicyReason::CronInvalid,
        ScheduleError::NeverDue { .. } => PolicyReason::NeverDue,
        ScheduleError::TimeZone { .. } => PolicyReason::TimeZoneUnknown,
    };
    Said::no(kind, reason, chain(&error))
}

fn said_of_stores(
    policy: &BackupPolicy,
    stores: &BTreeMap<String, StoreSeen>,
    own: Option<&settings::Location>,
) -> Said {
    let kind = PolicyCondition::StoresUsable;
    let mut is_locked = false;
    for name in &policy.spec.stores {
        match stores.get(name) {
            None => {
                return Said::no(
                    kind,
                    PolicyReason::StoreMissing,
                    format!("the BackupStore {name} is not there"),
                );
            }
            Some(seen) if let Err(refused) = residency::may_lie_in(name, &seen.location, policy, own) => {
                return Said::no(kind, PolicyReason::StoreRefused, refused.to_string());
            }
            Some(StoreSeen { trouble: Some(why), .. }) => {
                let message = format!("the BackupStore {name} is not ready: {why}");
                return Said::no(kind, PolicyReason::StoreNotReady, message);
            }
            Some(seen) if policy.spec.writers == Writers::Confined && !seen.is_confined => {
                let message = format!(
                    "spec.writers is Confined, and the writer of the BackupStore {name} was not seen to be: its condition WriterConfined says what it reaches"
                );
                return Said::no(kind, PolicyReason::WriterNotConfined, message);
            }
            Some(seen) => is_locked |= seen.is_locked,
        }
    }
    if !is_locked && policy.spec.without_lock.is_none() {
        let message = "none of its stores was seen to refuse the deletion of what is locked: whoever has the janitor's credentials could delete every backup; name a store with a lock, or say in spec.withoutLock who decided that none is needed";
        return Said::no(kind, PolicyReason::LockMissing, message);
    }
    Said::yes(kind, PolicyReason::AsAsked, "its stores are ready")
}

/// One thing that is said of a policy.
type Said = Saying<PolicyCondition, PolicyReason>;

/// What a person should notice: that it can be followed, or no more.
pub fn news(before: &[Condition], after: &[Condition]) -> Vec<News> {
    let ready = |conditions: &[Condition]| {
        let found =
            conditions.iter().find(|condition| condition.type_ == format!("{:?}", PolicyCondition::Ready));
        found.map(|condition| (condition.status.clone(), condition.reason.clone(), condition.message.clone()))
    };
    match (ready(before), ready(after)) {
        (Some((_, old, _)), Some((_, new, _))) if old == new => vec![],
        (None, Some((status, ..))) if status == "True" => vec![],
        (_, Some((status, reason, note))) => {
            let tone = if status == "True" { Tone::Normal } else { Tone::Warning };
            vec![News { tone, reason, note }]
        }
        (_, None) => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(more: &str) -> BackupPolicy {
        let yaml = format!(
            "
            apiVersion: valv.eu/v1alpha1
            kind: BackupPolicy
            metadata: {{name: default, generation: 2}}
            spec:
              schedule: {{cron: '0 1 * * *', timeZone: Europe/Stockholm}}
              stores: [helsinki]
              retention: {{floor: {{days: 35, reason: decided 2026-09-01}}}}
              objectives: {{rpo: 24h, rto: 4h}}
              {more}"
        );
        serde_yaml::from_str(&yaml).unwrap()
    }

    fn stores(trouble: Option<&str>, lock: Answer) -> BTreeMap<String, StoreSeen> {
        let seen = StoreSeen {
            trouble: trouble.map(str::to_owned),
            is_locked: lock == Answer::Yes,
            location: Location { region: "europe-1".into(), country: "FI".into() },
            is_confined: false,
        };
        BTreeMap::from([("helsinki".to_owned(), seen)])
    }

    fn said(policy: &BackupPolicy, stores: &BTreeMap<String, StoreSeen>) -> (String, String, usize) {
        let status = status(policy, stores, 3, None, "2026-11-22T12:00:00Z".parse().unwrap());
        let ready = status.conditions[0].clone();
        (ready.status, ready.reason, status.conditions.len())
    }

    #[test]
    fn a_policy_with_a_locked_store_and_a_calendar_can_be_followed() {
        let status =
            status(&policy(""), &stores(None, Answer::Yes), 3, None, "2026-11-22T12:00:00Z".parse().unwrap());

        assert_eq!(status.next_slot.unwrap().to_string(), "20261123T000000Z");
        assert_eq!((status.tenants, status.observed_generation), (3, Some(2)));
        assert!(
            status.conditions.iter().all(|condition| condition.status == "True"),
            "{:?}",
            status.conditions
        );
    }

    #[test]
    fn what_is_wrong_with_its_stores_is_told() {
        let no = |reason: &str, conditions| ("False".to_owned(), reason.to_owned(), conditions);

        assert_eq!(said(&policy(""), &BTreeMap::new()), no("StoreMissing", 4));
        assert_eq!(
            said(&policy(""), &stores(Some("it was not probed yet"), Answer::Yes)),
            no("StoreNotReady", 3)
        );
        assert_eq!(said(&policy(""), &stores(None, Answer::No)), no("LockMissing", 4));
        assert_eq!(said(&policy("countries: [SE, DE]"), &stores(None, Answer::Yes)), no("StoreRefused", 4));
        assert_eq!(said(&policy("countries: [SE, FI]"), &stores(None, Answer::Yes)).0, "True");
        let decided = policy("withoutLock: {reason: 'the board decided so, 2026-10-01'}");
        assert_eq!(said(&decided, &stores(None, Answer::No)).0, "True");
    }

    #[test]
    fn a_store_in_the_tenants_own_region_is_refused_wherever_it_stands_in_the_policy() {
        let mut both = stores(None, Answer::Yes);
        let mut second = both["helsinki"].clone();
        second.location.region = "se-sto1".into();
        both.insert("stockholm".into(), second);
        let mut policy = policy("");
        policy.spec.stores.push("stockholm".into());
        let own = settings::Location { region: "se-sto1".into(), also_named: vec![], country: "SE".into() };
        let now = "2026-11-22T12:00:00Z".parse().unwrap();

        assert_eq!(status(&policy, &both, 1, None, now).conditions[0].status, "True");
        assert_eq!(status(&policy, &both, 1, Some(&own), now).conditions[0].reason, "StoreRefused");
    }

    #[test]
    fn a_policy_can_ask_for_writers_that_reach_one_archive_only() {
        let mut confined = stores(None, Answer::Yes);
        confined.get_mut("helsinki").unwrap().is_confined = true;

        assert_eq!(said(&policy("writers: Confined"), &stores(None, Answer::Yes)).1, "WriterNotConfined");
        assert_eq!(said(&policy("writers: Confined"), &confined).0, "True");
        assert_eq!(said(&policy("writers: Any"), &stores(None, Answer::Yes)).0, "True");
    }

    #[test]
    fn a_calendar_that_never_comes_round_is_told() {
        let mut never = policy("");
        never.spec.schedule.cron = "0 1 30 2 *".into();
        let mut nowhere = policy("");
        nowhere.spec.schedule.time_zone = "Europe/Atlantis".into();

        assert_eq!(said(&never, &stores(None, Answer::Yes)).1, "NeverDue");
        assert_eq!(said(&nowhere, &stores(None, Answer::Yes)).1, "TimeZoneUnknown");
    }
}
