//! Decides whether a store is probed now, and when it is looked at again.
//!
//! Input: the store, what was observed, the time. Output: a [`Plan`]. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use valv_crds::{
    BackupStore,
    store::{BreakerState, Capabilities, StoreCondition, StoreReason},
};

use super::{
    check::Store,
    judge::{Known, is_proven},
    memory::Remembered,
    observe::Observed,
    probe::{Extent, Findings},
};

/// Secrets are not watched: another key is seen within this time.
const SECRETS_EVERY: Duration = Duration::from_secs(60);

/// A Secret that is missing is waited for.
const MISSING_EVERY: Duration = Duration::from_secs(10);

/// A probe ends within five minutes, and clocks differ a little: what was changed while it ran counts as changed.
const LONGEST_PROBE: Duration = Duration::from_secs(600);

/// Nothing is looked at more often.
const SHORTEST: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Whether to probe.
    pub probe: Probe,
    /// When to look again if nothing is probed.
    pub look_again_after: Duration,
}

/// Whether to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Not now.
    No,
    /// What the status says is of another spec, of other credentials, or of nothing: that is said first.
    Anew,
    /// What the status says stands meanwhile.
    Again,
}

/// What to do for `store` at `now`.
pub fn plan(store: &Store, observed: &Observed, now: Timestamp) -> Plan {
    if observed.credentials.is_err() {
        return Plan { probe: Probe::No, look_again_after: MISSING_EVERY };
    }
    let probe = match (remembered(observed), observed.remembered.is_some()) {
        (Some(remembered), _) if remembered.next > now => {
            let until = Duration::try_from(remembered.next - now).unwrap_or_default();
            let most = match observed.breaker.state {
                BreakerState::Closed => SECRETS_EVERY,
                // Nothing that waits for the store asks it: whoever looks after it does, when its pause is over.
                BreakerState::Open | BreakerState::HalfOpen => {
                    store.breaker.tries_after.duration().clamp(SHORTEST, SECRETS_EVERY)
                }
            };
            return Plan { probe: Probe::No, look_again_after: until.clamp(SHORTEST, most) };
        }
        (Some(_), _) => Probe::Again,
        (None, false) if is_of_this_spec(&store.object) => Probe::Again,
        (None, _) => Probe::Anew,
    };
    Plan { probe, look_again_after: SECRETS_EVERY }
}

/// What a process before this one left of its last probe, if that still stands: the store was all that it should be, and
/// neither its spec, nor its Secrets, nor the signing key was changed since. The next probe is due when it would have been.
/// An older version may have left less than this one asks: then it is asked anew.
///
/// Secrets are remembered by their digest, which is not written down; what has none yet goes by the times of their changes.
pub fn left(store: &Store, observed: &Observed, now: Timestamp) -> Option<Remembered> {
    if observed.remembered.is_some() || observed.credentials.is_err() {
        return None;
    }
    let status = store.object.status.as_ref().filter(|_| is_of_this_spec(&store.object))?;
    let ready = format!("{:?}", StoreCondition::Ready);
    let as_asked = format!("{:?}", StoreReason::AsAsked);
    let is_well = |condition: &&Condition| {
        condition.type_ == ready && condition.status == "True" && condition.reason == as_asked
    };
    status.conditions.iter().find(is_well)?;
    let probed = status.last_probe.as_ref()?.0;
    let began = probed.saturating_sub(LONGEST_PROBE).ok()?;
    let is_same = observed.changed.is_some_and(|changed| changed < began);
    let key = observed.signing.key().map(|key| key.id().to_string());
    let is_same_key = key.is_some() && key == status.signing_key.as_ref().map(|told| told.id.clone());
    let next = probed.saturating_add(store.probe_every.duration()).ok()?;
    let is_due = next <= now || probed > now;
    if !is_same || !is_same_key || is_due {
        return None;
    }
    let findings =
        Findings { capabilities: status.capabilities.clone(), troubles: vec![], extent: Extent::Whole };
    let known = Known { findings: Some(findings.clone()), last_whole: Some(probed) };
    let left = Remembered {
        subject: observed.subject.clone(),
        findings,
        last_whole: Some(probed),
        failures: 0,
        next,
    };
    is_proven(store, &known, now).then_some(left)
}

/// What is known of `store` before anything is probed.
pub fn known(store: &Store, observed: &Observed) -> Known {
    if let Some(remembered) = remembered(observed) {
        return Known { findings: Some(remembered.findings.clone()), last_whole: remembered.last_whole };
    }
    let status = store.object.status.as_ref();
    match status.filter(|_| observed.remembered.is_none() && is_of_this_spec(&store.object)) {
        // Another process probed it. What stood in its way is not known here, and is found out at once.
        Some(status) => Known {
            findings: Some(Findings { capabilities: status.capabilities.clone(), ..Findings::default() }),
            last_whole: status.last_probe.as_ref().map(|time| time.0),
        },
        None => Known { findings: None, last_whole: None },
    }
}

/// What an earlier probe of the same subject saw: here, or in a process before this one.
pub fn earlier(store: &Store, observed: &Observed) -> Capabilities {
    known(store, observed).findings.map(|findings| findings.capabilities).unwrap_or_default()
}

/// What is remembered of this subject.
fn remembered(observed: &Observed) -> Option<&Remembered> {
    observed.remembered.as_ref().filter(|remembered| remembered.subject == observed.subject)
}

/// Whether the status is of a whole probe of the spec that stands.
fn is_of_this_spec(object: &BackupStore) -> bool {
    let status = object.status.as_ref().filter(|status| status.last_probe.is_some());
    status.is_some_and(|status| status.observed_generation == object.metadata.generation)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use valv_crds::{BackupStoreStatus, store::BreakerStatus};

    use super::*;
    use crate::{
        archive::envelope::SigningKey,
        io::bucket::Credentials,
        store::{
            check::{Identities, Identity, check, tests::store},
            judge::tests::good,
            observe::Unresolved,
        },
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn observed(remembered: Option<Remembered>) -> Observed {
        let credentials = Identities::try_from_fn(|_| {
            Ok(Credentials { access_key_id: "a".into(), secret_access_key: "s".to_owned().into() })
        });
        let breaker = BreakerStatus::default();
        let signing = crate::signing::Standing::Lost(String::new());
        Observed { credentials, subject: "now".into(), changed: None, remembered, breaker, signing }
    }

    fn remembered(subject: &str, next: Timestamp) -> Option<Remembered> {
        let findings = Findings::default();
        Some(Remembered { subject: subject.into(), findings, last_whole: None, failures: 0, next })
    }

    #[test]
    fn a_new_store_is_probed_and_so_is_one_whose_secret_or_spec_changed() {
        for remembered in [None, remembered("before", at(999))] {
            assert_eq!(plan(&store(), &observed(remembered), at(0)).probe, Probe::Anew);
        }
    }

    #[test]
    fn a_store_that_is_left_alone_is_looked_at_when_its_pause_is_over_and_not_with_the_next_probe() {
        let mut object = store().object.as_ref().clone();
        object.spec.breaker.tries_after = "20s".parse().unwrap();
        let store = crate::store::check::check(Arc::new(object));
        let mut observed = observed(remembered("now", at(3600)));
        observed.breaker.state = BreakerState::Open;

        let plan = plan(&store, &observed, at(0));

        assert_eq!(plan, Plan { probe: Probe::No, look_again_after: Duration::from_secs(20) });
    }

    #[test]
    fn a_store_is_probed_when_it_is_due_and_its_secrets_are_looked_at_each_minute_meanwhile() {
        let at_most_a_minute = plan(&store(), &observed(remembered("now", at(3600))), at(0));
        let soon = plan(&store(), &observed(remembered("now", at(20))), at(0));
        let due = plan(&store(), &observed(remembered("now", at(0))), at(0));

        assert_eq!(at_most_a_minute, Plan { probe: Probe::No, look_again_after: Duration::from_secs(60) });
        assert_eq!(soon.look_again_after, Duration::from_secs(20));
        assert_eq!(due.probe, Probe::Again);
    }

    #[test]
    fn a_new_operator_probes_at_once_and_lets_stand_what_was_said_of_the_same_spec() {
        let mut object = store().object.as_ref().clone();
        let status = BackupStoreStatus {
            observed_generation: Some(3),
            last_probe: Some(Time(at(-60))),
            ..BackupStoreStatus::default()
        };
        object.status = Some(status);
        let same = check(Arc::new(object.clone()));
        object.metadata.generation = Some(4);
        let changed = check(Arc::new(object));

        assert_eq!(plan(&same, &observed(None), at(0)).probe, Probe::Again);
        assert_eq!(known(&same, &observed(None)).last_whole, Some(at(-60)));
        assert_eq!(plan(&changed, &observed(None), at(0)).probe, Probe::Anew);
        assert_eq!(known(&changed, &observed(None)).findings, None);
    }

    #[test]
    fn a_new_operator_takes_over_a_probe_that_is_not_due_if_nothing_was_changed_since() {
        let key = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap().public();
        let of_version = |capabilities: &Capabilities,
                          ready: (&str, &str),
                          probed: i64,
                          changed: Option<i64>,
                          told: &str| {
            let mut object = store().object.as_ref().clone();
            object.status = serde_json::from_value(serde_json::json!({
                "observedGeneration": 3, "lastProbe": at(probed).to_string(),
                "signingKey": { "id": told, "publicKey": "" },
                "capabilities": capabilities,
                "conditions": [{ "type": "Ready", "status": ready.0, "reason": ready.1, "message": "",
                    "lastTransitionTime": "2026-11-22T01:00:00Z" }],
            }))
            .unwrap();
            let observed = Observed {
                changed: changed.map(at),
                signing: crate::signing::Standing::Kept(key),
                ..observed(None)
            };
            left(&check(Arc::new(object)), &observed, at(0))
        };
        let all = good().findings.unwrap().capabilities;
        let of = |ready, probed, changed, told: &str| of_version(&all, ready, probed, changed, told);
        let (well, id) = (("True", "AsAsked"), key.id().to_string());

        let left = of(well, -3600, Some(-9000), &id).unwrap();

        assert_eq!(left.next, at(-3600) + store().probe_every.duration());
        assert_eq!((left.subject.as_str(), left.last_whole), ("now", Some(at(-3600))));
        let taken_over = Observed { remembered: Some(left), ..observed(None) };
        assert_eq!(plan(&store(), &taken_over, at(0)).probe, Probe::No);
        assert_eq!(of(well, -3600, Some(-3700), &id), None, "a Secret was changed while it ran");
        assert_eq!(of(well, -3600, None, &id), None);
        assert_eq!(of(well, -3600, Some(-9000), "another"), None);
        assert_eq!(of(well, -90_000_000, Some(-99_000_000), &id), None, "it is due");
        assert_eq!(of(("False", "BreakerOpen"), -3600, Some(-9000), &id), None);
        assert_eq!(of(("True", "CertificateExpiring"), -3600, Some(-9000), &id), None);
        let before = Capabilities { janitor_can_hide: None, ..all.clone() };
        assert_eq!(
            of_version(&before, well, -3600, Some(-9000), &id),
            None,
            "it did not ask all that this one does"
        );
    }

    #[test]
    fn nothing_is_probed_without_four_identities_but_soon_looked_at_again() {
        let mut observed = observed(remembered("now", at(0)));
        observed.credentials = Err(Unresolved::Missing { identity: Identity::Reader, secret: "r".into() });

        let plan = plan(&store(), &observed, at(0));

        assert_eq!(plan, Plan { probe: Probe::No, look_again_after: MISSING_EVERY });
    }
}
