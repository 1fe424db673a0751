//! Where a backup may lie. Pure.
//!
//! One law for all who write into a store: the policy's own status, whoever takes a backup, and whoever copies one.
//!
//! Regions are names, and a provider may give one place two: its servers are in `se-sto1`, its object store is `europe-3`. So
//! three things are asked of a store, and each alone refuses it: whether its region has one of the names of the tenants' own,
//! whether it is known to lie in the same place, and whether it lies in the tenants' own country although no policy says
//! that it may.

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
    /// It is in the tenants' own country, and the policy does not say that it may be.
    #[error(
        "the BackupStore {store} lies in {country}, as the tenants do, in a region that may be theirs by another name: name a store in another country, or list {country} in spec.countries of the policy and all names of the tenants' region in location.alsoNamed of the chart"
    )]
    OwnCountry {
        /// Which store.
        store: String,
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
            Self::OwnRegion { .. } | Self::OwnCountry { .. } | Self::Country { .. } => {
                BackupReason::StoreRefused
            }
            Self::Policy { .. } => BackupReason::PolicyMissing,
        }
    }
}

/// Names of one place each: that of `UpCloud`'s object store, and that of the zone in which it lies.
///
/// # Source
/// `UpCloud`'s API, `GET /1.3/object-storage-2/regions`: the `primary_zone` of each region in the Union, 2025-12-29.
const SAME_PLACE: [[&str; 2]; 3] =
    [["europe-1", "fi-hel2"], ["europe-2", "de-fra1"], ["europe-3", "se-sto1"]];

/// Whether two names of regions are known to stand for one place.
fn is_one_place(one: &str, other: &str) -> bool {
    let has = |names: &[&str; 2], name: &str| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    one.eq_ignore_ascii_case(other) || SAME_PLACE.iter().any(|names| has(names, one) && has(names, other))
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
    if own.is_some_and(|own| own.names().any(|name| is_one_place(name, region))) {
        let (store, region, country) = (store.to_owned(), region.clone(), country.clone());
        return Err(Refused::OwnRegion { store, region, country });
    }
    let listed = &policy.spec.countries;
    if own.is_some_and(|own| own.country == *country) && !listed.contains(country) {
        return Err(Refused::OwnCountry { store: store.to_owned(), country: country.clone() });
    }
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

    fn own(region: &str, also_named: &[&str]) -> settings::Location {
        let also_named = also_named.iter().map(|&name| name.to_owned()).collect();
        settings::Location { region: region.to_owned(), also_named, country: "SE".to_owned() }
    }

    fn judged(countries: &[&str], own: Option<&str>) -> Option<BackupReason> {
        let own = own.map(|region| self::own(region, &[]));
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
    fn a_store_in_the_tenants_own_region_is_refused_by_whatever_name_it_is_known() {
        let refused = |own: &settings::Location, region: &str, country: &str| {
            // A policy that lists the tenants' own country lets it lie there, and still not beside them.
            may_lie_in("stockholm", &at(region, country), &policy(&["SE", "FI"]), Some(own)).err()
        };
        let is_own = |refused: Option<Refused>| matches!(refused, Some(Refused::OwnRegion { .. }));

        assert!(is_own(refused(&own("se-sto1", &[]), "europe-3", "SE")), "UpCloud's store of that zone");
        assert!(is_own(refused(&own("europe-3", &[]), "SE-sto1", "SE")));
        assert!(is_own(refused(&own("sto-a", &["arn-1", "sto-objects"]), "STO-objects", "SE")));
        assert!(is_own(refused(&own("sto-a", &["se-sto1"]), "europe-3", "SE")));
        assert_eq!(refused(&own("se-sto1", &[]), "europe-1", "FI"), None);
        assert_eq!(
            refused(&own("sto-a", &[]), "got-b", "SE"),
            None,
            "another region of a country that is listed"
        );
    }

    #[test]
    fn a_store_in_the_tenants_own_country_is_refused_unless_the_policy_lists_that_country() {
        let refused = |countries: &[&str]| {
            let own = own("sto-a", &[]);
            may_lie_in("gothenburg", &at("got-b", "SE"), &policy(countries), Some(&own)).err()
        };

        let said = refused(&[]).unwrap();
        assert!(matches!(said, Refused::OwnCountry { .. }), "no list allows all the EEA, but not this");
        assert_eq!(said.reason(), BackupReason::StoreRefused);
        assert!(said.to_string().contains("location.alsoNamed"), "{said}");
        assert!(refused(&["FI", "DE"]).is_some());
        assert_eq!(refused(&["FI", "SE"]), None);
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
