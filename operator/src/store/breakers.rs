//! The breakers of all stores: one each, shared by all of this process who use it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use valv_crds::store::{self, BreakerState, BreakerStatus};

use crate::io::bucket::{
    Error,
    breaker::{Admission, Breaker, Rule, Standing},
};

/// The breakers, by store. Cheap to clone; every clone is the same ones.
#[derive(Clone, Debug, Default)]
pub struct Breakers {
    stores: Arc<Mutex<HashMap<String, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    rule: Rule,
    breaker: Breaker,
    failures: i32,
    since: Option<Timestamp>,
    /// Who told of a failure since then.
    told: BTreeSet<String>,
    /// When the store last answered, or was found to be away: what ended before says nothing of now.
    heard: Timestamp,
}

impl Entry {
    /// Something is known of the store since `now`.
    fn hear(&mut self, now: Timestamp) {
        self.heard = now;
        self.told.clear();
    }
}

impl Breakers {
    /// Takes the rule of `store`'s spec at `now`. Another rule is another breaker, which is closed.
    pub fn heed(&self, store: &str, spec: store::Breaker, now: Timestamp) {
        let failures = u32::try_from(spec.opens_after).unwrap_or(1).max(1);
        let rule = Rule { failures, pause: spec.tries_after.duration() };
        let mut stores = self.stores();
        if stores.get(store).is_none_or(|entry| entry.rule != rule) {
            let breaker = Breaker::new(rule);
            let told = BTreeSet::new();
            let entry = Entry { rule, breaker, failures: 0, since: None, told, heard: now };
            stores.insert(store.to_owned(), entry);
        }
    }

    /// Whether a request to `store` may go at `now`. Whoever goes [notes](Self::note) what came of it.
    pub fn admit(&self, store: &str, now: Timestamp) -> Admission {
        self.change(store, now, |entry| entry.breaker.admit(now)).unwrap_or(Admission::Go)
    }

    /// Until when `store` is left alone; `None`: somebody may ask it at `now`, and if only to try. Changes nothing.
    pub fn left_alone_until(&self, store: &str, now: Timestamp) -> Option<Timestamp> {
        self.stores().get(store)?.breaker.left_alone_until(now)
    }

    /// Notes what came of a request to `store` that ended at `now`.
    pub fn note<T>(&self, store: &str, answer: &Result<T, Error>, now: Timestamp) {
        match answer {
            Err(error) if error.is_of_the_store() => self.failed(store, now),
            Ok(_) | Err(_) => self.answered(store, now),
        }
    }

    /// `store` answered, be it with a refusal.
    pub fn answered(&self, store: &str, now: Timestamp) {
        self.change(store, now, |entry| {
            entry.failures = 0;
            entry.breaker.answered();
            entry.hear(now);
        });
    }

    /// `store` did not answer, or with a failure of its own.
    pub fn failed(&self, store: &str, now: Timestamp) {
        self.change(store, now, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.breaker.failed(now);
        });
    }

    /// A pod of `teller` whose Job ended at `ended` told that `store` did not answer it: one failure a teller, until the
    /// store answers.
    ///
    /// No more than one, though the pod tried for minutes: what runs beside a tenant's database is believed little, and
    /// one tenant that lies must not keep all others from their store. What ended before the store was last heard of, or
    /// before this process began, is old news.
    pub fn told(&self, store: &str, teller: &str, ended: Timestamp, now: Timestamp) {
        self.change(store, now, |entry| {
            let is_news = ended >= entry.heard && entry.breaker.standing() == Standing::Closed;
            if is_news && entry.told.insert(teller.to_owned()) {
                entry.failures = entry.failures.saturating_add(1);
                entry.breaker.failed(now);
            }
        });
    }

    /// How the breaker of `store` stands.
    pub fn status(&self, store: &str) -> BreakerStatus {
        let stores = self.stores();
        let Some(entry) = stores.get(store) else { return BreakerStatus::default() };
        let state = match entry.breaker.standing() {
            Standing::Closed => BreakerState::Closed,
            Standing::HalfOpen => BreakerState::HalfOpen,
            Standing::Open => BreakerState::Open,
        };
        // While it is closed nobody needs to know how often it counted, and each count would be a write.
        let failures = if state == BreakerState::Closed { 0 } else { entry.failures };
        BreakerStatus { state, since: entry.since.map(Time), failures }
    }

    /// Forgets all stores but those for which `is_there` says so.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.stores().retain(|name, _| is_there(name));
    }

    /// Changes a breaker, and notes when it came to stand otherwise.
    fn change<T>(&self, store: &str, now: Timestamp, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut stores = self.stores();
        let entry = stores.get_mut(store)?;
        let before = entry.breaker.standing();
        let changed = change(entry);
        if entry.breaker.standing() != before {
            entry.since = Timestamp::from_second(now.as_second()).ok();
            entry.hear(now);
        }
        Some(changed)
    }

    /// A panic elsewhere leaves nothing half done in it.
    fn stores(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use valv_crds::units::Span;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// Helsinki, which three failures in a row open.
    fn helsinki() -> Breakers {
        let breakers = Breakers::default();
        breakers.heed("helsinki", store::Breaker { opens_after: 3, ..store::Breaker::default() }, at(0));
        breakers
    }

    #[test]
    fn pods_that_tell_of_a_dead_store_open_it_and_each_tenant_counts_once() {
        let breakers = helsinki();

        for second in 1..9 {
            breakers.told("helsinki", "journal-ada", at(second), at(second));
        }
        breakers.told("helsinki", "journal-bo", at(9), at(9));
        assert_eq!(breakers.status("helsinki").state, BreakerState::Closed);
        breakers.told("helsinki", "journal-cy", at(9), at(9));

        assert_eq!(breakers.status("helsinki").state, BreakerState::Open);
    }

    #[test]
    fn jobs_that_ended_before_the_store_was_last_heard_of_open_nothing() {
        let breakers = helsinki();
        let tenants = ["journal-ada", "journal-bo", "journal-cy"];

        for tenant in tenants {
            breakers.told("helsinki", tenant, at(-21_600), at(1));
        }
        assert_eq!(breakers.status("helsinki").state, BreakerState::Closed, "before this process began");

        breakers.answered("helsinki", at(60));
        for tenant in tenants {
            breakers.told("helsinki", tenant, at(59), at(61));
        }
        assert_eq!(breakers.status("helsinki").state, BreakerState::Closed, "it has answered since");
    }

    #[test]
    fn one_store_s_failures_are_not_another_s() {
        let breakers = Breakers::default();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let rule = store::Breaker { opens_after: 2, tries_after: Span::seconds(60) };
        for name in ["helsinki", "frankfurt"] {
            breakers.heed(name, rule, now);
        }

        breakers.failed("helsinki", now);
        assert_eq!(breakers.status("helsinki"), BreakerStatus::default());
        breakers.failed("helsinki", now);

        let open = breakers.status("helsinki");
        assert_eq!((open.state, open.failures, open.since), (BreakerState::Open, 2, Some(Time(now))));
        assert_eq!(breakers.status("frankfurt").state, BreakerState::Closed);
        assert!(matches!(breakers.admit("helsinki", now), Admission::Wait { .. }));
        breakers.heed("helsinki", rule, now);
        assert_eq!(breakers.status("helsinki").state, BreakerState::Open, "the same rule changes nothing");
    }

    #[test]
    fn an_answer_closes_it_again() {
        let breakers = Breakers::default();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        breakers.heed("helsinki", store::Breaker { opens_after: 1, tries_after: Span::seconds(60) }, now);
        breakers.failed("helsinki", now);

        breakers.answered("helsinki", now);

        assert_eq!(breakers.status("helsinki").state, BreakerState::Closed);
    }
}
