use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{Date, date};
use proptest::prelude::*;
use serde_json::{Value, json};
use valv_crds::{ProviderSpec, SovereigntyPolicySpec, sovereignty::PassageKind};

use super::{
    reach,
    register::{Problem, Register},
    verdict::{Home, Judge, Proof, Rule, Standing, Store, Subject, Verdict},
};

const TODAY: Date = date(2026, 11, 23);

fn fact() -> Value {
    json!({ "source": "made up for a test", "date": "2026-11-01" })
}

/// One that is wholly known: a seat, these owners, nobody works for it, and it owns nobody.
fn known(title: &str, seat: &str, owners: &[(&str, &str)]) -> Value {
    let owners: Vec<_> = owners.iter().map(|(name, share)| json!({ "name": name, "share": share })).collect();
    json!({
        "title": title,
        "seat": { "country": seat, "fact": fact() },
        "ownership": { "owners": owners, "fact": fact() },
        "subsidiaries": { "names": [], "fact": fact() },
        "subProcessors": { "names": [], "fact": fact() },
    })
}

fn with(mut entry: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        entry[name] = value.clone();
    }
    entry
}

/// A Finnish provider with a region in Helsinki and one in Stockholm, whose zones are known.
fn northern() -> Value {
    with(
        known("Northern Oy", "FI", &[]),
        json!({
            "regions": [
                { "name": "north-1", "country": "FI", "primaryZone": "fi-1", "fact": fact() },
                { "name": "north-2", "country": "SE", "primaryZone": "se-1", "fact": fact() },
            ],
            "zones": [
                { "name": "fi-1", "country": "FI", "position": "60.17, 24.94", "fact": fact() },
                { "name": "se-1", "country": "SE", "position": "59.33, 18.07", "fact": fact() },
                { "name": "se-2", "country": "SE", "position": "57.71, 11.97", "fact": fact() },
                { "name": "uk-1", "country": "GB", "fact": fact() },
            ],
            "objectStorage": [{ "host": "*.objects.northern.example", "fact": fact() }],
            "encryptedVolumes": [{
                "provisioner": "storage.northern.example",
                "parameter": { "name": "encryption", "value": "data-at-rest" },
                "fact": fact(),
            }],
        }),
    )
}

/// A provider of which a US company has all, with a hall in Stockholm.
fn owned_abroad() -> Value {
    with(
        known("Stockholm Hosting AB", "SE", &[("parent", "100%")]),
        json!({
            "regions": [{ "name": "sto-1", "country": "SE", "fact": fact() }],
            "objectStorage": [{ "host": "sto-1.objects.example", "region": "sto-1", "fact": fact() }],
        }),
    )
}

fn register(entries: &[(&str, Value)]) -> Register {
    let entry = |(name, entry): &(&str, Value)| -> (String, ProviderSpec) {
        ((*name).to_owned(), serde_json::from_value(entry.clone()).unwrap())
    };
    Register::new(entries.iter().map(entry), &[])
}

fn all() -> Register {
    register(&[
        ("northern", northern()),
        ("stockholm", owned_abroad()),
        ("parent", known("Parent Inc.", "US", &[])),
    ])
}

fn policy(more: Value) -> SovereigntyPolicySpec {
    let eu = json!({
        "countries": ["EU"],
        "jurisdictions": { "allowed": ["EU"] },
        "images": { "registries": ["registry.example/valv", "registry.example:5000"] },
    });
    serde_json::from_value(with(eu, more)).unwrap()
}

fn at_home() -> Home<'static> {
    Home { provider: Some("northern"), region: "se-1", country: "SE" }
}

fn helsinki() -> Store<'static> {
    Store {
        name: "helsinki",
        provider: "northern",
        region: "north-1",
        country: "FI",
        host: "abc.objects.northern.example",
        proof: None,
    }
}

fn judged(policy: &SovereigntyPolicySpec, register: &Register, subject: &Subject<'_>) -> Verdict {
    Judge { name: "eu", policy, register, today: TODAY }.verdict(subject)
}

fn store(policy: &SovereigntyPolicySpec, store: Store<'static>) -> Verdict {
    judged(policy, &all(), &Subject::Store { store, home: at_home() })
}

/// The rules that refuse it.
fn rules(verdict: &Verdict) -> BTreeSet<Rule> {
    verdict.refusals().map(|finding| finding.rule).collect()
}

#[test]
fn a_store_of_a_known_provider_in_another_country_of_the_union_may_be_used_and_says_why() {
    let verdict = store(&policy(json!({})), helsinki());

    assert!(verdict.complies(), "{verdict}");
    assert_eq!(verdict.standing, Standing::Stated);
    assert_eq!(
        verdict.grounds,
        [
            "north-1 of Northern Oy is in FI (made up for a test, 2026-11-01)",
            "Northern Oy: under the law of FI (made up for a test, 2026-11-01)",
        ]
    );
}

#[test]
fn a_us_owned_store_in_stockholm_is_refused_although_it_is_in_sweden() {
    let there = Store {
        name: "stockholm",
        provider: "stockholm",
        region: "sto-1",
        country: "SE",
        host: "sto-1.objects.example",
        proof: None,
    };
    let verdict =
        store(&policy(json!({ "backups": { "otherCountry": "NotRequired", "distanceKm": 1 } })), there);

    assert_eq!(rules(&verdict), BTreeSet::from([Rule::Jurisdiction, Rule::Unknown]));
    let sentences: Vec<_> = verdict.findings.iter().map(|finding| finding.sentence.as_str()).collect();
    assert_eq!(
        sentences[0],
        "Stockholm Hosting AB, owned to 100% by Parent Inc.: under the law of US (made up for a test, 2026-11-01), and jurisdictions.allowed lists EU"
    );
    assert!(sentences[1].contains("no position of sto-1"), "{sentences:?}");
}

#[test]
fn a_zone_of_the_united_kingdom_is_refused_though_its_region_is_in_the_union() {
    let at = "2026-11-23T01:00:00Z".parse().unwrap();
    let proof = |region: &str, zone: &str| {
        Some(Proof { region: region.to_owned(), primary_zone: zone.to_owned(), at })
    };
    let policy = policy(json!({}));

    let there = store(&policy, Store { proof: proof("north-1", "fi-1"), ..helsinki() });
    let british = store(&policy, Store { proof: proof("north-1", "uk-1"), ..helsinki() });
    let elsewhere = store(&policy, Store { proof: proof("north-2", "se-1"), ..helsinki() });
    let nowhere = store(&policy, Store { proof: proof("north-1", "xx-1"), ..helsinki() });

    assert_eq!((there.complies(), there.standing), (true, Standing::Proven { at }));
    assert_eq!(rules(&british), BTreeSet::from([Rule::Country]));
    assert!(british.to_string().contains("uk-1 of Northern Oy is in GB"), "{british}");
    assert_eq!(rules(&elsewhere), BTreeSet::from([Rule::Contradiction, Rule::Apart]));
    assert!(
        elsewhere.to_string().contains("the store helsinki lies in SE, as the tenants do"),
        "{elsewhere}"
    );
    assert_eq!(rules(&nowhere), BTreeSet::from([Rule::Unknown]));
}

#[test]
fn what_is_stated_must_be_what_the_register_knows() {
    let policy = policy(json!({}));
    let refused = |change: Store<'static>| rules(&store(&policy, change));

    let contradiction = BTreeSet::from([Rule::Contradiction]);
    assert_eq!(refused(Store { country: "DK", ..helsinki() }), contradiction);
    assert!(refused(Store { host: "sto-1.objects.example", ..helsinki() }).contains(&Rule::Contradiction));
    assert_eq!(refused(Store { host: "abc.example", ..helsinki() }), BTreeSet::from([Rule::Unknown]));
    assert_eq!(
        refused(Store { host: "objects.northern.example", ..helsinki() }),
        BTreeSet::from([Rule::Unknown])
    );
    assert_eq!(refused(Store { region: "north-9", ..helsinki() }), BTreeSet::from([Rule::Unknown]));
    let own = Store { region: "north-2", country: "SE", ..helsinki() };
    assert_eq!(refused(own), BTreeSet::from([Rule::Apart]));
}

#[test]
fn what_nobody_stated_is_refused() {
    let without = |field: &str| {
        let mut entry = northern();
        entry.as_object_mut().unwrap().remove(field);
        let register = register(&[("northern", entry)]);
        judged(&policy(json!({})), &register, &Subject::Store { store: helsinki(), home: at_home() })
    };

    for (field, why) in [
        ("seat", "under whose law it is is not known"),
        ("ownership", "who owns it is not known"),
        ("subProcessors", "who works for it is not known"),
        ("objectStorage", "no provider of the register has that host"),
        ("regions", "where north-1 of Northern Oy is is not known"),
    ] {
        let verdict = without(field);
        assert_eq!(rules(&verdict), BTreeSet::from([Rule::Unknown]), "{field}");
        assert!(verdict.to_string().contains(why), "{field}: {verdict}");
    }
    // Only where the policy asks for them.
    assert!(without("subsidiaries").complies());
    let empty = judged(
        &policy(json!({})),
        &Register::default(),
        &Subject::Store { store: helsinki(), home: at_home() },
    );
    assert!(empty.to_string().contains("northern: it is not in the provider register"), "{empty}");
}

#[test]
fn owners_count_from_a_share_on_and_one_whose_share_nobody_knows_counts() {
    let with_owner = |share: Option<&str>, from: &str| {
        let owner =
            share.map_or(json!({ "name": "parent" }), |share| json!({ "name": "parent", "share": share }));
        let entry = with(northern(), json!({ "ownership": { "owners": [owner], "fact": fact() } }));
        let register = register(&[("northern", entry), ("parent", known("Parent Inc.", "US", &[]))]);
        let policy = policy(json!({ "jurisdictions": { "allowed": ["EU"], "ownersFrom": from } }));
        judged(&policy, &register, &Subject::Store { store: helsinki(), home: at_home() }).complies()
    };

    assert!(with_owner(Some("24.99%"), "25%"));
    assert!(!with_owner(Some("25%"), "25%"));
    assert!(!with_owner(None, "100%"));
    assert!(!with_owner(Some("1%"), "0%"));
}

#[test]
fn the_law_of_a_subsidiary_counts_where_the_policy_says_so() {
    let entry = with(northern(), json!({ "subsidiaries": { "names": ["daughter"], "fact": fact() } }));
    let register = register(&[("northern", entry), ("daughter", known("Daughter Inc.", "US", &[]))]);
    let judged = |subsidiaries: &str| {
        let policy = policy(json!({ "jurisdictions": { "allowed": ["EU"], "subsidiaries": subsidiaries } }));
        judged(&policy, &register, &Subject::Store { store: helsinki(), home: at_home() })
    };

    assert!(judged("Ignore").complies());
    assert_eq!(rules(&judged("Count")), BTreeSet::from([Rule::Jurisdiction]));
    assert!(
        judged("Count").to_string().contains("Northern Oy, which owns Daughter Inc.: under the law of US")
    );
}

#[test]
fn a_sub_processor_of_a_sub_processor_counts_with_its_owners_unless_the_policy_stops_at_the_first() {
    let works = |name: &str| json!({ "subProcessors": { "names": [name], "fact": fact() } });
    let register = register(&[
        ("northern", with(northern(), works("first"))),
        ("first", with(known("First AB", "SE", &[]), works("second"))),
        ("second", known("Second AB", "SE", &[("parent", "60%")])),
        ("parent", known("Parent Inc.", "US", &[])),
    ]);
    let judged = |depth: &str| {
        let policy = policy(json!({ "jurisdictions": { "allowed": ["EU"], "subProcessors": depth } }));
        judged(&policy, &register, &Subject::Store { store: helsinki(), home: at_home() })
    };

    assert!(judged("Direct").complies());
    let told = judged("AllLevels").to_string();
    assert!(
        told.contains("Northern Oy, for which works First AB, for which works Second AB, owned to 60% by Parent Inc.: under the law of US"),
        "{told}"
    );
}

#[test]
fn a_court_that_reached_it_counts_as_its_law() {
    let reached = json!({ "reachedBy": [{ "country": "CA", "why": "a court there ordered it to produce data", "fact": fact() }] });
    let register = register(&[("northern", with(northern(), reached))]);

    let verdict =
        judged(&policy(json!({})), &register, &Subject::Store { store: helsinki(), home: at_home() });

    assert!(
        verdict.to_string().contains("the law of CA reaches it, a court there ordered it to produce data"),
        "{verdict}"
    );
}

#[test]
fn only_sweden_means_that_even_a_finnish_provider_in_sweden_is_refused() {
    let strict = policy(json!({
        "countries": ["SE"],
        "jurisdictions": { "allowed": ["SE"], "subsidiaries": "Count" },
        "backups": { "otherCountry": "NotRequired", "distanceKm": 300 },
    }));
    let there = Store { region: "north-2", country: "SE", ..helsinki() };

    let verdict = store(&strict, there);

    assert_eq!(rules(&verdict), BTreeSet::from([Rule::Jurisdiction, Rule::Apart]));
    assert!(verdict.to_string().contains("Northern Oy: under the law of FI"), "{verdict}");
    assert!(verdict.to_string().contains("is 0 km from the tenants"), "{verdict}");
}

#[test]
fn images_come_from_listed_registries_or_from_below_them() {
    let policy = policy(json!({}));
    let complies = |reference: &str| judged(&policy, &all(), &Subject::Image { reference }).complies();

    for reference in [
        "registry.example/valv/journal:1",
        "registry.example/valv@sha256:00",
        "registry.example:5000/journal",
    ] {
        assert!(complies(reference), "{reference}");
    }
    for reference in [
        "nginx",
        "library/nginx:1",
        "registry.example/other/journal:1",
        "registry.example/valvet/journal:1",
        "registry.example.evil/valv/journal:1",
        "evil/registry.example/valv/journal:1",
        "registry.example:50001/journal",
    ] {
        assert!(!complies(reference), "{reference}");
    }
    for reference in ["nginx", "docker.io/nginx", "library/nginx"] {
        let told = judged(&policy, &all(), &Subject::Image { reference }).to_string();
        assert!(told.contains(&format!("{reference} comes from docker.io/library/nginx,")), "{told}");
    }
}

#[test]
fn a_listed_host_is_not_the_same_host_at_another_port() {
    let policy = policy(json!({ "images": { "registries": ["registry.example"] } }));
    let complies = |reference: &str| judged(&policy, &all(), &Subject::Image { reference }).complies();

    assert!(complies("registry.example/journal:1"));
    assert!(!complies("registry.example:5000/journal:1"));
}

#[test]
fn volumes_are_encrypted_by_the_one_value_that_counts_and_no_other() {
    let policy = policy(json!({}));
    let rule = |provisioner: &str, value: Option<&str>| {
        let parameters: BTreeMap<_, _> =
            value.iter().map(|value| ("encryption".to_owned(), (*value).to_owned())).collect();
        let subject =
            Subject::Class { name: "fast", provider: Some("northern"), provisioner, parameters: &parameters };
        rules(&judged(&policy, &all(), &subject))
    };

    let ours = "storage.northern.example";
    assert_eq!(rule(ours, Some("data-at-rest")), BTreeSet::new());
    for other in [Some("Data-At-Rest"), Some("true"), Some(""), None] {
        assert_eq!(rule(ours, other), BTreeSet::from([Rule::Encryption]), "{other:?}");
    }
    assert_eq!(rule("other.example", Some("data-at-rest")), BTreeSet::from([Rule::Unknown]));
}

#[test]
fn a_node_is_where_its_zone_is_and_one_without_a_zone_is_nowhere() {
    let policy = policy(json!({}));
    let rule =
        |provider, zone| rules(&judged(&policy, &all(), &Subject::Node { name: "node-1", provider, zone }));

    assert_eq!(rule(Some("northern"), Some("se-1")), BTreeSet::new());
    assert_eq!(rule(Some("northern"), Some("uk-1")), BTreeSet::from([Rule::Country]));
    for (provider, zone) in [(Some("northern"), Some("se-9")), (Some("northern"), None), (None, Some("se-1"))]
    {
        assert_eq!(rule(provider, zone), BTreeSet::from([Rule::Unknown]));
    }
}

#[test]
fn what_traffic_passes_is_listed_and_run_by_one_who_may() {
    let passes = json!([
        { "kind": "IngressClass", "name": "nginx", "provider": "northern" },
        { "kind": "Resolver", "name": "192.0.2.53", "provider": "parent" },
    ]);
    let policy = policy(json!({ "passes": passes }));
    let rule = |kind, name| rules(&judged(&policy, &all(), &Subject::Passage { kind, name }));

    assert_eq!(rule(PassageKind::IngressClass, "nginx"), BTreeSet::new());
    assert_eq!(rule(PassageKind::Resolver, "192.0.2.53"), BTreeSet::from([Rule::Jurisdiction]));
    assert_eq!(rule(PassageKind::Resolver, "nginx"), BTreeSet::from([Rule::Passage]));
}

#[test]
fn an_exception_lets_one_thing_through_until_its_last_day_and_is_shown() {
    let exception = |until: &str| json!({ "exceptions": [{ "subject": "image/nginx", "owner": "anna@example", "reason": "incident 42", "until": until }] });
    let verdict =
        |until: &str, reference| judged(&policy(exception(until)), &all(), &Subject::Image { reference });

    let today = verdict("2026-11-23", "nginx");
    assert!(today.complies());
    assert_eq!(today.findings[0].exception.as_ref().unwrap().owner, "anna@example");
    assert!(!verdict("2026-11-22", "nginx").complies());
    assert!(!verdict("2026-11-23", "httpd").complies());
}

#[test]
fn an_audit_lets_through_and_still_says_what_it_would_refuse() {
    let verdict = judged(&policy(json!({ "mode": "Audit" })), &all(), &Subject::Image { reference: "nginx" });

    assert!(verdict.is_allowed() && !verdict.complies());
    assert_eq!(rules(&verdict), BTreeSet::from([Rule::Registry]));
}

#[test]
fn tenants_are_where_the_register_says_that_their_region_is() {
    let policy = policy(json!({}));
    let rule = |home: Home<'static>| rules(&judged(&policy, &all(), &Subject::Tenant { name: "ada", home }));

    assert_eq!(rule(at_home()), BTreeSet::new());
    assert_eq!(rule(Home { country: "FI", ..at_home() }), BTreeSet::from([Rule::Contradiction]));
    assert_eq!(rule(Home { region: "uk-1", country: "GB", ..at_home() }), BTreeSet::from([Rule::Country]));
    assert_eq!(rule(Home { region: "se-9", ..at_home() }), BTreeSet::from([Rule::Unknown]));
    assert_eq!(rule(Home { provider: None, ..at_home() }), BTreeSet::from([Rule::Unknown]));
}

#[test]
fn every_circle_of_owners_is_told_once_also_where_a_shorter_way_leads_through_another() {
    let owned = |by: &[&str]| known("Any", "SE", &by.iter().map(|name| (*name, "1%")).collect::<Vec<_>>());
    let register = register(&[
        ("a", owned(&["d"])),
        ("b", owned(&["a", "c"])),
        ("c", owned(&["e"])),
        ("d", owned(&["b"])),
        ("e", owned(&["d"])),
    ]);

    let told: Vec<_> = register.problems(TODAY).iter().map(Problem::to_string).collect();

    assert_eq!(told, ["a, d, b own each other in a circle", "b, c, e, d own each other in a circle"]);
}

#[test]
fn a_register_that_cannot_be_so_says_where() {
    let future = json!({ "source": "made up for a test", "date": "2026-11-24" });
    let register = register(&[
        ("one", known("One", "SE", &[("two", "60%")])),
        ("two", known("Two", "SE", &[("three", "50%"), ("four", "50.01%")])),
        ("three", known("Three", "SE", &[("one", "10%")])),
        ("four", with(known("Four", "XX", &[]), json!({ "seat": { "country": "XX", "fact": future } }))),
        ("five", known("Five", "SE", &[("six", "1%")])),
    ]);

    let told: Vec<_> = register.problems(TODAY).iter().map(Problem::to_string).collect();

    assert_eq!(
        told,
        [
            "one, two, three own each other in a circle",
            "five names six, which the register has not: add an entry for it",
            "the owners of two hold 100.01% of it together: correct their shares",
            "four is said to be in XX, which is no country of ISO 3166-1",
            "a fact about four is dated 2026-11-24, which has not come yet in UTC",
        ]
    );
    let jurisdictions = policy(json!({})).jurisdictions;
    assert_eq!(
        reach::ways(&register, "one", &jurisdictions).len(),
        4,
        "a circle ends, and so does a way out of it"
    );
}

#[test]
fn places_and_hosts_of_the_register_must_fit_each_other() {
    let wrong = json!({
        "regions": [
            { "name": "north-1", "country": "FI", "primaryZone": "se-1", "fact": fact() },
            { "name": "north-2", "country": "SE", "primaryZone": "se-9", "fact": fact() },
        ],
        "objectStorage": [{ "host": "s3.example", "region": "north-9", "fact": fact() }],
    });
    let other = json!({ "objectStorage": [{ "host": "s3.example", "fact": fact() }] });
    let register =
        register(&[("northern", with(northern(), wrong)), ("other", with(known("Other", "SE", &[]), other))]);

    let told: Vec<_> = register.problems(TODAY).iter().map(Problem::to_string).collect();

    assert_eq!(
        told,
        [
            "northern: north-1 lies in another country than its primary zone",
            "northern: north-2 has a primary zone that is not among the zones",
            "northern: s3.example is in a region that is not among the regions",
            "northern and other both say that s3.example is theirs: correct one of them",
        ]
    );
    assert!(all().problems(TODAY).is_empty());
}

#[test]
fn facts_that_are_too_old_are_named_with_their_oldest() {
    let register = register(&[("northern", northern())]);

    assert!(register.stale(TODAY, "30d".parse().unwrap()).is_empty());
    let stale = register.stale(TODAY, "10d".parse().unwrap());
    assert_eq!(stale["northern"].date, date(2026, 11, 1));
}

/// Organisations `0` to `5`: of each its seat, its owners, those who work for it, and whether its owners are known.
type World = Vec<(usize, Vec<(usize, u32)>, Vec<usize>, bool)>;

const SEATS: [&str; 4] = ["SE", "FI", "US", "GB"];

fn worlds() -> impl Strategy<Value = World> {
    let owners = prop::collection::vec((0..6_usize, 0..=100_u32), 0..3);
    let workers = prop::collection::vec(0..6_usize, 0..2);
    prop::collection::vec((0..4_usize, owners, workers, prop::bool::weighted(0.9)), 6)
}

fn built(world: &World) -> Vec<(&'static str, Value)> {
    const NAMES: [&str; 6] = ["o0", "o1", "o2", "o3", "o4", "o5"];
    let entry = |number: usize| {
        let (seat, owners, workers, is_known) = &world[number];
        let owners: Vec<_> = owners
            .iter()
            .map(|(who, share)| json!({ "name": NAMES[*who], "share": format!("{share}%") }))
            .collect();
        let workers: Vec<_> = workers.iter().map(|who| NAMES[*who]).collect();
        let mut entry = known(NAMES[number], SEATS[*seat], &[]);
        entry["subProcessors"]["names"] = json!(workers);
        if *is_known {
            entry["ownership"]["owners"] = json!(owners);
        } else {
            entry.as_object_mut().unwrap().remove("ownership");
        }
        (NAMES[number], entry)
    };
    (0..NAMES.len()).map(entry).collect()
}

fn passage(entries: &[(&str, Value)]) -> Verdict {
    let policy = policy(json!({ "passes": [{ "kind": "LoginIssuer", "name": "it", "provider": "o0" }] }));
    judged(&policy, &register(entries), &Subject::Passage { kind: PassageKind::LoginIssuer, name: "it" })
}

proptest! {
    #[test]
    fn one_more_owner_can_only_make_it_stricter(world in worlds(), of in 0..6_usize, owner in 0..6_usize, share in 0..=100_u32) {
        let before = passage(&built(&world));
        let mut more = world;
        more[of].1.push((owner, share));
        let after = passage(&built(&more));

        prop_assert!(before.complies() || !after.complies(), "{before}\n{after}");
        prop_assert!(rules(&before).is_subset(&rules(&after)), "{before}\n{after}");
    }

    #[test]
    fn the_order_of_entries_owners_and_workers_does_not_matter(world in worlds()) {
        let forward = passage(&built(&world));
        let mut turned = world;
        for (_, owners, workers, _) in &mut turned {
            owners.reverse();
            workers.reverse();
        }
        let mut entries = built(&turned);
        entries.reverse();
        let backward = passage(&entries);

        prop_assert_eq!(forward.complies(), backward.complies());
        prop_assert_eq!(rules(&forward), rules(&backward));
    }

    #[test]
    fn a_register_of_circles_is_walked_to_its_end(world in worlds()) {
        let entries = built(&world);
        let _ = register(&entries).problems(TODAY);
        let verdict = passage(&entries);

        prop_assert!(verdict.findings.len() + verdict.grounds.len() <= 6 * 3 * 3);
    }
}
