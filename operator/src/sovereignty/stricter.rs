//! Whether a tenant's policy is at least as strict as the one in force. Pure.
//!
//! A tenant has both: what the one in force refuses stays refused whatever the other says. So a looser one would do no harm; it is
//! refused all the same, for whoever wrote it believes that it holds.

use std::fmt;

use valv_crds::{
    SovereigntyPolicySpec,
    sovereignty::{Apart, Mode, Need, SubProcessors, Subsidiaries, Territory},
};

/// Where a policy is looser than the one in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Looser {
    /// The field of the spec.
    pub field: &'static str,
    /// What is said there.
    pub says: String,
    /// What the one in force says.
    pub in_force: String,
}

impl fmt::Display for Looser {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, says, in_force } = self;
        write!(out, "spec.{field} says {says}, and the policy in force {in_force}")
    }
}

/// Everywhere that `own` lets through what `in_force` refuses.
pub fn looser(own: &SovereigntyPolicySpec, in_force: &SovereigntyPolicySpec) -> Vec<Looser> {
    let mut found = Vec::new();
    let mut find = |is_looser: bool, field, says: String, in_force: String| {
        if is_looser {
            found.push(Looser { field, says, in_force });
        }
    };
    find(
        own.mode == Mode::Audit && in_force.mode == Mode::Enforce,
        "mode",
        format!("{:?}", own.mode),
        format!("{:?}", in_force.mode),
    );
    let (mine, theirs) = (&own.jurisdictions, &in_force.jurisdictions);
    for (field, mine, theirs) in [
        ("countries", &own.countries, &in_force.countries),
        ("jurisdictions.allowed", &mine.allowed, &theirs.allowed),
    ] {
        let more = beyond(mine, theirs);
        find(!more.is_empty(), field, more, listed(theirs));
    }
    find(
        mine.owners_from > theirs.owners_from,
        "jurisdictions.ownersFrom",
        mine.owners_from.to_string(),
        theirs.owners_from.to_string(),
    );
    find(
        mine.subsidiaries == Subsidiaries::Ignore && theirs.subsidiaries == Subsidiaries::Count,
        "jurisdictions.subsidiaries",
        format!("{:?}", mine.subsidiaries),
        format!("{:?}", theirs.subsidiaries),
    );
    find(
        mine.sub_processors == SubProcessors::Direct && theirs.sub_processors == SubProcessors::AllLevels,
        "jurisdictions.subProcessors",
        format!("{:?}", mine.sub_processors),
        format!("{:?}", theirs.sub_processors),
    );
    let Apart { other_country, distance_km } = own.backups;
    find(
        other_country == Need::NotRequired && in_force.backups.other_country == Need::Required,
        "backups.otherCountry",
        format!("{other_country:?}"),
        format!("{:?}", in_force.backups.other_country),
    );
    find(
        distance_km.unwrap_or_default() < in_force.backups.distance_km.unwrap_or_default(),
        "backups.distanceKm",
        distance_km.map_or("nothing".to_owned(), |distance| distance.to_string()),
        in_force.backups.distance_km.unwrap_or_default().to_string(),
    );
    let is_below = |one: &str, other: &String| {
        one.strip_prefix(other.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let theirs = &in_force.images.registries;
    for registry in &own.images.registries {
        let is_looser = !theirs.iter().any(|other| is_below(registry, other));
        find(is_looser, "images.registries", registry.clone(), theirs.join(", "));
    }
    find(
        own.storage.encryption_at_rest == Need::NotRequired
            && in_force.storage.encryption_at_rest == Need::Required,
        "storage.encryptionAtRest",
        format!("{:?}", own.storage.encryption_at_rest),
        format!("{:?}", in_force.storage.encryption_at_rest),
    );
    for passage in &own.passes {
        let says = format!("{:?} {} of {}", passage.kind, passage.name, passage.provider);
        find(!in_force.passes.contains(passage), "passes", says, "does not list it so".to_owned());
    }
    for known in &own.providers {
        let is_other = !in_force.providers.contains(known);
        find(is_other, "providers", known.name.clone(), "believes another entry of it".to_owned());
    }
    for exception in &own.exceptions {
        let is_other = !in_force.exceptions.contains(exception);
        find(is_other, "exceptions", exception.subject.clone(), "makes no such exception".to_owned());
    }
    find(
        own.facts_expire_after > in_force.facts_expire_after,
        "factsExpireAfter",
        own.facts_expire_after.to_string(),
        in_force.facts_expire_after.to_string(),
    );
    found
}

/// The countries of `own` that are not of `in_force`.
fn beyond(own: &[Territory], in_force: &[Territory]) -> String {
    let mut countries: Vec<_> = own.iter().flat_map(|territory| territory.countries()).collect();
    countries.retain(|country| !in_force.iter().any(|territory| territory.has(*country)));
    countries.sort_unstable();
    countries.dedup();
    countries.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn listed(territories: &[Territory]) -> String {
    territories.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy(change: &Value) -> SovereigntyPolicySpec {
        let mut spec = json!({
            "countries": ["EU"],
            "jurisdictions": { "allowed": ["EU"], "ownersFrom": "25%", "subsidiaries": "Count" },
            "backups": { "otherCountry": "Required", "distanceKm": 300 },
            "images": { "registries": ["registry.example/valv"] },
            "passes": [{ "kind": "IngressClass", "name": "nginx", "provider": "upcloud" }],
        });
        for (field, value) in change.as_object().unwrap() {
            spec[field] = value.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    fn fields(change: &Value) -> Vec<&'static str> {
        looser(&policy(change), &policy(&json!({}))).iter().map(|looser| looser.field).collect()
    }

    #[test]
    fn the_same_and_what_is_stricter_everywhere_is_no_looser() {
        assert!(fields(&json!({})).is_empty());
        let stricter = json!({
            "countries": ["SE", "FI"],
            "jurisdictions": { "allowed": ["SE"], "ownersFrom": "1%", "subsidiaries": "Count" },
            "backups": { "otherCountry": "Required", "distanceKm": 500 },
            "images": { "registries": ["registry.example/valv/signed"] },
            "passes": [],
            "factsExpireAfter": "30d",
        });
        assert!(fields(&stricter).is_empty());
    }

    #[test]
    fn whatever_is_looser_is_named_by_its_field() {
        let entry = json!({ "name": "upcloud", "entry": { "title": "Another" } });
        let exception = json!({ "subject": "image/nginx", "owner": "anna@example", "reason": "incident 42", "until": "2026-12-31" });
        for (change, field) in [
            (json!({ "mode": "Audit" }), "mode"),
            (json!({ "countries": ["EEA"] }), "countries"),
            (
                json!({ "jurisdictions": { "allowed": ["SE", "US"], "subsidiaries": "Count" } }),
                "jurisdictions.allowed",
            ),
            (
                json!({ "jurisdictions": { "allowed": ["SE"], "ownersFrom": "25.01%", "subsidiaries": "Count" } }),
                "jurisdictions.ownersFrom",
            ),
            (json!({ "jurisdictions": { "allowed": ["SE"] } }), "jurisdictions.subsidiaries"),
            (
                json!({ "jurisdictions": { "allowed": ["SE"], "subsidiaries": "Count", "subProcessors": "Direct" } }),
                "jurisdictions.subProcessors",
            ),
            (
                json!({ "backups": { "otherCountry": "NotRequired", "distanceKm": 300 } }),
                "backups.otherCountry",
            ),
            (json!({ "backups": { "distanceKm": 299 } }), "backups.distanceKm"),
            (json!({ "backups": {} }), "backups.distanceKm"),
            (json!({ "images": { "registries": ["registry.example"] } }), "images.registries"),
            (json!({ "images": { "registries": ["registry.example/valvet"] } }), "images.registries"),
            (json!({ "storage": { "encryptionAtRest": "NotRequired" } }), "storage.encryptionAtRest"),
            (
                json!({ "passes": [{ "kind": "IngressClass", "name": "nginx", "provider": "other" }] }),
                "passes",
            ),
            (json!({ "providers": [entry] }), "providers"),
            (json!({ "exceptions": [exception] }), "exceptions"),
            (json!({ "factsExpireAfter": "366d" }), "factsExpireAfter"),
        ] {
            assert_eq!(fields(&change), [field], "{change}");
        }
    }

    #[test]
    fn it_says_where_and_what_holds() {
        let told = looser(&policy(&json!({ "countries": ["SE", "NO", "EU"] })), &policy(&json!({})));

        assert_eq!(told[0].to_string(), "spec.countries says NO, and the policy in force EU");
    }
}
