//! Probes a store, if the plan says so and its breaker lets it, and remembers what came of it.

use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::{
    breakers::Breakers,
    check::Store,
    gate::{self, Held},
    judge::{Known, is_proven},
    memory::{Memory, Remembered},
    observe::Observed,
    plan,
    probe::{Extent, probe},
};
use crate::{backoff, io::bucket::Bucket};

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was probed.
    Probed(Box<Remembered>),
    /// The breaker is open: nobody asks before then.
    Held {
        /// When one may.
        until: Timestamp,
    },
}

/// Probes `store` and remembers what was seen. At most as many at once as `turns` has.
pub async fn apply(
    store: &Store,
    observed: &Observed,
    memory: &Memory,
    breakers: &Breakers,
    turns: &Semaphore,
    now: fn() -> Timestamp,
) -> Option<Outcome> {
    let credentials = observed.credentials.as_ref().ok()?;
    // It is closed only with the process.
    let _turn = turns.acquire().await.ok()?;
    // A store whose settings open no bucket is nobody's to wait for: the probe says why.
    if let Ok(bucket) = Bucket::open(&store.settings(credentials.reader.clone()))
        && let Err(Held { until, .. }) = gate::enter(breakers, &store.name, &bucket, now).await
    {
        return Some(Outcome::Held { until });
    }
    let earlier = plan::earlier(store, observed);
    let before = observed.remembered.as_ref().filter(|before| before.subject == observed.subject);
    let findings = probe(store, credentials, breakers, now).await.or_earlier(&earlier);
    let ended = now();
    let last_whole = match findings.extent {
        Extent::Whole => Timestamp::from_second(ended.as_second()).ok(),
        Extent::CutShort => plan::known(store, observed).last_whole,
    };
    let known = Known { findings: Some(findings.clone()), last_whole };
    let (failures, wait) = if is_proven(store, &known, ended) {
        (0, store.probe_every.duration())
    } else {
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        (failures, backoff::wait(failures, rand::random()).min(store.probe_every.duration()))
    };
    let subject = observed.subject.clone();
    let remembered = Remembered { subject, findings, last_whole, failures, next: ended + wait };
    memory.note(&store.name, remembered.clone());
    Some(Outcome::Probed(Box::new(remembered)))
}
