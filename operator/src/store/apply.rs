//! Probes a store, if the plan says so and its breaker lets it, and remembers what came of it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::{sync::Semaphore, time::timeout};
use valv_crds::store::StoreReason;

use super::{
    breakers::Breakers,
    check::{Identities, Store},
    gate::{self, Held},
    judge::{Known, is_proven},
    memory::{Memory, Remembered},
    observe::Observed,
    plan,
    probe::{Extent, Trouble, probe},
    public_key::{self, KeepError},
};
use crate::{
    archive::envelope::PublicKey,
    backoff,
    error::chain,
    io::bucket::{Bucket, Credentials, SettingsError},
};

/// How long it may take to see to the public half of the signing key.
const KEEP: Duration = Duration::from_secs(60);

/// The public half of the signing key is not in the bucket.
#[derive(Debug, thiserror::Error)]
enum NotKept {
    /// A bucket could not be opened.
    #[error("failed to prepare the store")]
    Settings(#[source] SettingsError),
    /// It could not be kept there.
    #[error("failed to keep the signing key's public half in the bucket")]
    Keep(#[source] Box<KeepError>),
}

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
    let mut findings = probe(store, credentials, breakers, now).await.or_earlier(&earlier);
    if findings.extent == Extent::Whole
        && let Some(public) = observed.signing.key()
        && let Err(error) = keep(store, credentials, public, now()).await
    {
        findings.troubles.push(Trouble { reason: StoreReason::SigningKeyNotStored, message: chain(&error) });
    }
    let ended = now();
    let last_whole = match findings.extent {
        Extent::Whole => Timestamp::from_second(ended.as_second()).ok(),
        Extent::CutShort => plan::known(store, observed).last_whole,
    };
    let known = Known { findings: Some(findings.clone()), last_whole };
    let is_kept = !findings.troubles.iter().any(|trouble| trouble.reason == StoreReason::SigningKeyNotStored);
    let (failures, wait) = if is_proven(store, &known, ended) && is_kept {
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

/// Sees to it that the public half of the signing key lies in the bucket.
async fn keep(
    store: &Store,
    credentials: &Identities<Credentials>,
    public: PublicKey,
    now: Timestamp,
) -> Result<(), NotKept> {
    let open = |credentials: &Credentials| {
        Bucket::open(&store.settings(credentials.clone())).map_err(NotKept::Settings)
    };
    let (committer, reader) = (open(&credentials.committer)?, open(&credentials.reader)?);
    let kept = timeout(KEEP, public_key::keep(store, &committer, &reader, public, now)).await;
    kept.unwrap_or(Err(KeepError::TooLong(KEEP))).map_err(|error| NotKept::Keep(Box::new(error)))
}
