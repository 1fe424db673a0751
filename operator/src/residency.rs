//! Where a backup may lie. Pure.
//!
//! One law for all who write into a store: the policy's own status, whoever takes a backup, and whoever copies one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use valv_crds::{
    BackupPolicy,
    backup::BackupReason,
    policy::{PolicyCondition, PolicyReason},
    store,
};

use crate::settings;

/// Why a backup may not lie in a store.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The tenants are there themselves: what takes the one away takes the other.
    #[error(
        "the BackupStore {store} lies in {region} ({country}), where the tenants are: a backup lies in another region"
    )]
    OwnRegion {
        /// Which store.
        store: String,
        /// Its region.
        region: String,
        /// Its country.
        country: String,
    },
    /// The policy lists countries, and this is none of them.
    #[error(
        "the BackupStore {store} lies in {country}, which spec.countries of the policy does not list: name another, or list it"
    )]
    Country {
        /// Which store.
        store: String,
        /// Its country.
        country: String,
    },
    /// The policy cannot be followed.
    #[error("the BackupPolicy {policy} is not ready: {why}")]
    Policy {
        /// Which policy.
        policy: String,
        /// Its own condition's words.
        why: String,
    },
}

impl Refused {
    /// As a condition of a `Backup` says it.
    pub fn reason(&self) -> BackupReason {
        match self {
            Self::OwnRegion { .. } | Self::Country { .. } => BackupReason::StoreRefused,
            Self::Policy { .. } => BackupReason::PolicyMissing,
        }
    }
}

/// Whether backups of tenants with `policy` may lie in `store`, which is at `location`, when the tenants are at `own`.
///
/// # Errors
/// The first reason why not.
pub fn may_lie_in(
    store: &str,
    location: &store::Location,
    policy: &BackupPolicy,
    own: Option<&settings::Location>,
) -> Result<(), Refused> {
    let store::Location { region, country } = location;
    if own.is_some_and(|own| own.region.eq_ignore_ascii_case(region)) {
        let (store, region, country) = (store.to_owned(), region.clone(), country.clone());
        return Err(Refused::OwnRegion { store, region, country });
    }
    let listed = &policy.spec.countries;
    if !listed.is_empty() && !listed.contains(country) {
        return Err(Refused::Country { store: store.to_owned(), country: country.clone() });
    }
    Ok(())
}

/// Whether `policy` may be followed for a store that is itself ready. That another of its stores is not is no reason to
/// keep a copy from this one.
///
/// # Errors
/// [`Refused::Policy`].
pub fn may_be_followed(policy: &BackupPolicy) -> Result<(), Refused> {
    let status = policy.status.as_ref();
    let conditions: &[Condition] = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let kind = format!("{:?}", PolicyCondition::Ready);
    let ready = conditions.iter().find(|condition| condition.type_ == kind);
    let is_current = status.and_then(|status| status.observed_generation) == policy.metadata.generation;
    let passing = format!("{:?}", PolicyReason::StoreNotReady);
    let why = match ready {
        Some(ready) if is_current && (ready.status == "True" || ready.reason == passing) => return Ok(()),
        Some(ready) if is_current => ready.message.clone(),
        Some(_) => "it was changed, and not looked at since".to_owned(),
        None => "it was not looked at yet".to_owned(),
    };
    Err(Refused::Policy { policy: policy.metadata.name.clone().unwrap_or_default(), why })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(countries: &[&str]) -> BackupPolicy {
        serde_json::from_value(json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "BackupPolicy",
            "metadata": { "name": "default", "generation": 2 },
            "spec": {
                "schedule": { "cron": "0 1 * * *", "timeZone": "Europe/Stockholm" }, "stores": ["helsinki"],
                "countries": countries,
                "retention": { "floor": { "days": 1, "reason": "decided in a test" } },
                "objectives": { "rpo": "24h", "rto": "1h" },
            },
        }))
        .unwrap()
    }

    fn at(region: &str, country: &str) -> store::Location {
        store::Location { region: region.to_owned(), country: country.to_owned() }
    }

    fn judged(countries: &[&str], own: Option<&str>) -> Option<BackupReason> {
        let own =
            own.map(|region| settings::Location { region: region.to_owned(), country: "SE".to_owned() });
        let judged = may_lie_in("frankfurt", &at("eu-de-1", "DE"), &policy(countries), own.as_ref());
        judged.err().map(|refused| refused.reason())
    }

    #[test]
    fn a_store_in_a_country_that_is_not_listed_or_in_the_tenants_own_region_is_refused() {
        assert_eq!(judged(&[], None), None);
        assert_eq!(judged(&["FI", "DE"], Some("se-sto1")), None);
        assert_eq!(judged(&["FI"], None), Some(BackupReason::StoreRefused));
        assert_eq!(judged(&["DE"], Some("EU-de-1")), Some(BackupReason::StoreRefused));
    }

    #[test]
    fn a_policy_is_followed_if_it_was_looked_at_and_only_another_store_is_amiss() {
        let said = |generation: i64, status: &str, reason: &str| {
            let mut policy = policy(&[]);
            let condition = json!({ "type": "Ready", "status": status, "reason": reason, "message": "words",
                "lastTransitionTime": "2026-11-22T01:00:00Z" });
            let status = json!({ "observedGeneration": generation, "tenants": 1, "conditions": [condition] });
            policy.status = Some(serde_json::from_value(status).unwrap());
            may_be_followed(&policy).err().map(|refused| refused.to_string())
        };

        assert_eq!(said(2, "True", "AsAsked"), None);
        assert_eq!(said(2, "False", "StoreNotReady"), None);
        assert_eq!(said(2, "False", "LockMissing").unwrap(), "the BackupPolicy default is not ready: words");
        assert!(said(1, "True", "AsAsked").unwrap().contains("changed"));
        assert!(may_be_followed(&policy(&[])).unwrap_err().to_string().contains("not looked at yet"));
    }
}
