//! The breakers of all stores: one each, shared by all of this process who use it.

use std::{
    collections::{HashMap, VecDeque},
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
    /// Jobs whose pods told of a failure.
    told: VecDeque<String>,
}

/// So many Jobs are remembered: more than run at once.
const REMEMBERED: usize = 1024;

impl Breakers {
    /// Takes the rule of `store`'s spec. Another rule is another breaker, which is closed.
    pub fn heed(&self, store: &str, spec: store::Breaker) {
        let failures = u32::try_from(spec.opens_after).unwrap_or(1).max(1);
        let rule = Rule { failures, pause: spec.tries_after.duration() };
        let mut stores = self.stores();
        if stores.get(store).is_none_or(|entry| entry.rule != rule) {
            let breaker = Breaker::new(rule);
            stores.insert(
                store.to_owned(),
                Entry { rule, breaker, failures: 0, since: None, told: VecDeque::new() },
            );
        }
    }

    /// Whether a request to `store` may go at `now`. Whoever goes [notes](Self::note) what came of it.
    pub fn admit(&self, store: &str, now: Timestamp) -> Admission {
        self.change(store, now, |entry| entry.breaker.admit(now)).unwrap_or(Admission::Go)
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
        });
    }

    /// `store` did not answer, or with a failure of its own.
    pub fn failed(&self, store: &str, now: Timestamp) {
        self.change(store, now, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.breaker.failed(now);
        });
    }

    /// Whoever was admitted to `store` did not ask it: that closes nothing.
    pub fn unasked(&self, store: &str, now: Timestamp) {
        self.change(store, now, |entry| entry.breaker.unasked(now));
    }

    /// A pod told that `store` did not answer it: one failure a Job, however often it is looked at.
    ///
    /// No more than one, though the pod tried for minutes: what runs beside a tenant's database is believed little, and
    /// one that lies must not keep all others from their store.
    pub fn told(&self, store: &str, job: &str, now: Timestamp) {
        self.change(store, now, |entry| {
            if entry.told.iter().any(|known| known == job) {
                return;
            }
            entry.told.push_back(job.to_owned());
            if entry.told.len() > REMEMBERED {
                entry.told.pop_front();
            }
            entry.failures = entry.failures.saturating_add(1);
            entry.breaker.failed(now);
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

    #[test]
    fn pods_that_tell_of_a_dead_store_open_it_and_each_counts_once() {
        let breakers = Breakers::default();
        breakers.heed("helsinki", store::Breaker { opens_after: 3, ..store::Breaker::default() });
        let now = "2026-11-22T09:00:00Z".parse().unwrap();

        for _ in 0..9 {
            breakers.told("helsinki", "one", now);
        }
        breakers.told("helsinki", "two", now);
        assert_eq!(breakers.status("helsinki").state, BreakerState::Closed);
        breakers.told("helsinki", "three", now);

        assert_eq!(breakers.status("helsinki").state, BreakerState::Open);
    }

    #[test]
    fn one_store_s_failures_are_not_another_s() {
        let breakers = Breakers::default();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let rule = store::Breaker { opens_after: 2, tries_after: Span::seconds(60) };
        for name in ["helsinki", "frankfurt"] {
            breakers.heed(name, rule);
        }

        breakers.failed("helsinki", now);
        assert_eq!(breakers.status("helsinki"), BreakerStatus::default());
        breakers.failed("helsinki", now);

        let open = breakers.status("helsinki");
        assert_eq!((open.state, open.failures, open.since), (BreakerState::Open, 2, Some(Time(now))));
        assert_eq!(breakers.status("frankfurt").state, BreakerState::Closed);
        assert!(matches!(breakers.admit("helsinki", now), Admission::Wait { .. }));
        breakers.heed("helsinki", rule);
        assert_eq!(breakers.status("helsinki").state, BreakerState::Open, "the same rule changes nothing");
    }

    #[test]
    fn an_answer_closes_it_again() {
        let breakers = Breakers::default();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        breakers.heed("helsinki", store::Breaker { opens_after: 1, tries_after: Span::seconds(60) });
        breakers.failed("helsinki", now);

        breakers.answered("helsinki", now);

        assert_eq!(breakers.status("helsinki").state, BreakerState::Closed);
    }
}
