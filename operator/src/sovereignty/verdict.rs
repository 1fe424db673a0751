//! Whether something may hold, run or pass tenants' data: policy × register × subject → verdict. Pure.
//!
//! A verdict has every reason why not, each as a sentence that somebody can check who knows nothing of Valv: the rule, what is
//! known, and from where. What is not known is a reason.

use std::{collections::BTreeMap, fmt};

use jiff::{Timestamp, civil::Date};
use valv_crds::{
    SovereigntyPolicySpec,
    provider::{Fact, Position},
    sovereignty::{Country, Exception, Mode, Need, PassageKind, Territory},
};

use super::{
    reach::{self, End, Told},
    register::Register,
};

/// The registry of a reference that names none.
const DOCKER: &str = "docker.io";

/// The policy that judges, and what it knows.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// The policy's name.
    pub name: &'a str,
    /// What it says.
    pub policy: &'a SovereigntyPolicySpec,
    /// What is known of organisations.
    pub register: &'a Register,
    /// The day, in UTC: exceptions end.
    pub today: Date,
}

/// Where tenants are: the cluster, as its chart's values state it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Home<'a> {
    /// Who runs it, by its name in the register; absent: not stated.
    pub provider: Option<&'a str>,
    /// The provider's name of its region or zone.
    pub region: &'a str,
    /// The country.
    pub country: &'a str,
}

/// What is judged.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject<'a> {
    /// A place for backups of what is at `home`.
    Store {
        /// The store.
        store: Store<'a>,
        /// Where tenants are.
        home: Home<'a>,
    },
    /// Where tenants are.
    Tenant {
        /// Which tenant.
        name: &'a str,
        /// Where it is.
        home: Home<'a>,
    },
    /// An image that runs in a tenant's namespace.
    Image {
        /// Its reference.
        reference: &'a str,
    },
    /// A node that tenants' pods run on.
    Node {
        /// Its name.
        name: &'a str,
        /// Who runs it, by its name in the register.
        provider: Option<&'a str>,
        /// The zone that its label names.
        zone: Option<&'a str>,
    },
    /// A storage class that tenants' volumes are of.
    Class {
        /// Its name.
        name: &'a str,
        /// Who runs it, by its name in the register.
        provider: Option<&'a str>,
        /// Its provisioner.
        provisioner: &'a str,
        /// Its parameters.
        parameters: &'a BTreeMap<String, String>,
    },
    /// A system outside that tenants talk to.
    System {
        /// Its name.
        name: &'a str,
        /// The country of whoever owns it.
        country: &'a str,
        /// Who runs it, by its name in the register, if it is known there.
        provider: Option<&'a str>,
    },
    /// Something that tenants' traffic passes.
    Passage {
        /// What it is.
        kind: PassageKind,
        /// Its name.
        name: &'a str,
    },
}

/// A store, as its spec states it, and what was proven of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Store<'a> {
    /// Its name.
    pub name: &'a str,
    /// Who runs it, by its name in the register.
    pub provider: &'a str,
    /// The provider's name of its region.
    pub region: &'a str,
    /// The country.
    pub country: &'a str,
    /// The host of its endpoint.
    pub host: &'a str,
    /// What the provider's own API says of it, if that could be asked.
    pub proof: Option<Proof>,
}

/// What a provider's API says of a store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proof {
    /// The region in which it is.
    pub region: String,
    /// The zone in which its data rest.
    pub primary_zone: String,
    /// When that was asked.
    pub at: Timestamp,
}

/// How well it is known where something is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// Somebody says so.
    Stated,
    /// The provider's own API says so.
    Proven {
        /// When it was asked.
        at: Timestamp,
    },
}

/// A rule of a policy, by the word that reasons of conditions have.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Rule {
    /// `countries`: where data may rest.
    Country,
    /// `jurisdictions`: whose law may reach them.
    Jurisdiction,
    /// `backups`: how far they are from what they are of.
    Apart,
    /// `images.registries`.
    Registry,
    /// `storage.encryptionAtRest`.
    Encryption,
    /// `passes`.
    Passage,
    /// What is stated is not so.
    Contradiction,
    /// What is not known is refused.
    Unknown,
}

/// A reason why not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// By which rule.
    pub rule: Rule,
    /// What is wrong, for an auditor to read.
    pub sentence: String,
    /// The exception that lets it through all the same.
    pub exception: Option<Exception>,
}

/// Whether it may, and why not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// Of what: `store/helsinki`.
    pub subject: String,
    /// The policy that judged.
    pub policy: String,
    /// Whether the policy refuses.
    pub mode: Mode,
    /// Every reason why not.
    pub findings: Vec<Finding>,
    /// What it rests on, for whoever asks why it may.
    pub grounds: Vec<String>,
    /// How well it is known where it is.
    pub standing: Standing,
}

impl Verdict {
    /// Whether no rule refuses it, but for those that an exception lets through.
    pub fn complies(&self) -> bool {
        self.findings.iter().all(|finding| finding.exception.is_some())
    }

    /// Whether it may be used: it complies, or the policy only looks.
    pub fn is_allowed(&self) -> bool {
        self.mode == Mode::Audit || self.complies()
    }

    /// The reasons that count.
    pub fn refusals(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.exception.is_none())
    }
}

impl Subject<'_> {
    /// As exceptions name it: `store/helsinki`.
    pub fn name(&self) -> String {
        match self {
            Self::Store { store, .. } => format!("store/{}", store.name),
            Self::Tenant { name, .. } => format!("tenant/{name}"),
            Self::Image { reference } => format!("image/{reference}"),
            Self::Node { name, .. } => format!("node/{name}"),
            Self::Class { name, .. } => format!("class/{name}"),
            Self::System { name, .. } => format!("system/{name}"),
            Self::Passage { kind, name } => format!("passage/{kind:?}/{name}"),
        }
    }
}

/// What a verdict is made of.
struct Bench<'a> {
    judge: Judge<'a>,
    findings: Vec<(Rule, String)>,
    grounds: Vec<String>,
    standing: Standing,
}

impl Judge<'_> {
    /// Whether `subject` may be used.
    pub fn verdict(&self, subject: &Subject<'_>) -> Verdict {
        let mut bench = Bench { judge: *self, findings: vec![], grounds: vec![], standing: Standing::Stated };
        match subject {
            Subject::Store { store, home } => bench.store(store, *home),
            Subject::Tenant { home, .. } => bench.home(*home),
            Subject::Image { reference } => bench.image(reference),
            Subject::Node { name, provider, zone } => bench.node(name, *provider, *zone),
            Subject::Class { name, provider, provisioner, parameters } => {
                bench.class(name, *provider, provisioner, parameters);
            }
            Subject::System { name, country, provider } => bench.system(name, country, *provider),
            Subject::Passage { kind, name } => bench.passage(*kind, name),
        }
        let subject = subject.name();
        let exception = self.exception(&subject);
        let Bench { findings, grounds, standing, .. } = bench;
        let findings = findings
            .into_iter()
            .map(|(rule, sentence)| Finding { rule, sentence, exception: exception.cloned() })
            .collect();
        Verdict { subject, policy: self.name.to_owned(), mode: self.policy.mode, findings, grounds, standing }
    }

    /// The exception for `subject` that holds today.
    fn exception(&self, subject: &str) -> Option<&Exception> {
        self.policy.exceptions.iter().find(|one| one.subject == subject && self.today <= one.until)
    }
}

impl Bench<'_> {
    fn finds(&mut self, rule: Rule, sentence: impl Into<String>) {
        self.findings.push((rule, sentence.into()));
    }

    fn store(&mut self, store: &Store<'_>, home: Home<'_>) {
        let Judge { register, .. } = self.judge;
        let Store { name, provider, region, country, host, proof } = store;
        let title = self.title(provider);
        match register.storage_host(host) {
            None => self.finds(
                Rule::Unknown,
                format!("whose object store answers at {host} is not known: no provider of the register has that host"),
            ),
            Some((whose, _)) if whose != *provider => {
                let whose = self.title(whose);
                self.finds(
                    Rule::Contradiction,
                    format!("the store {name} is said to be {title}'s, and {host} is {whose}'s"),
                );
            }
            Some((_, known)) => {
                if let Some(there) = &known.region
                    && there != region
                {
                    let sentence = format!(
                        "the store {name} is said to be in {region}, and {host} is in {there} ({})",
                        Told(&known.fact)
                    );
                    self.finds(Rule::Contradiction, sentence);
                }
            }
        }
        match register.region(provider, region) {
            None => self
                .finds(Rule::Unknown, format!("where {region} of {title} is is not known to the register")),
            Some(known) if known.country != *country => {
                let sentence = format!(
                    "the store {name} is said to be in {country}, and {region} of {title} is in {} ({})",
                    known.country,
                    Told(&known.fact)
                );
                self.finds(Rule::Contradiction, sentence);
            }
            Some(known) => self.may_rest_in(&format!("{region} of {title}"), &known.country, &known.fact),
        }
        if let Some(proof) = proof {
            self.proof(store, proof);
        }
        self.may_reach(provider);
        self.apart(store, home);
    }

    /// What the provider's API says counts for more than what anybody stated.
    fn proof(&mut self, store: &Store<'_>, proof: &Proof) {
        let Store { name, provider, region, .. } = store;
        let title = self.title(provider);
        if proof.region != *region {
            let sentence = format!(
                "the store {name} is said to be in {region}, and {title} says that it is in {}",
                proof.region
            );
            self.finds(Rule::Contradiction, sentence);
        }
        match self.judge.register.zone(provider, &proof.primary_zone) {
            None => {
                let sentence = format!(
                    "{title} says that the data of {name} rest in {}, a zone that the register has not",
                    proof.primary_zone
                );
                self.finds(Rule::Unknown, sentence);
            }
            Some(zone) => {
                self.may_rest_in(&format!("{} of {title}", zone.name), &zone.country, &zone.fact);
                self.standing = Standing::Proven { at: proof.at };
            }
        }
    }

    fn home(&mut self, home: Home<'_>) {
        let Some(provider) = home.provider else {
            let sentence = "who runs the cluster is not stated: set location.provider in the chart's values";
            return self.finds(Rule::Unknown, sentence);
        };
        let title = self.title(provider);
        let Judge { register, .. } = self.judge;
        let zone = register.zone(provider, home.region).map(|zone| (&zone.country, &zone.fact));
        let place = zone
            .or_else(|| register.region(provider, home.region).map(|region| (&region.country, &region.fact)));
        match place {
            None => {
                let sentence = format!("where {} of {title} is is not known to the register", home.region);
                self.finds(Rule::Unknown, sentence);
            }
            Some((country, fact)) if country != home.country => {
                let sentence = format!(
                    "the cluster is said to be in {}, and {} of {title} is in {country} ({})",
                    home.country,
                    home.region,
                    Told(fact)
                );
                self.finds(Rule::Contradiction, sentence);
            }
            Some((country, fact)) => self.may_rest_in(&format!("{} of {title}", home.region), country, fact),
        }
        self.may_reach(provider);
    }

    fn image(&mut self, reference: &str) {
        let registries = &self.judge.policy.images.registries;
        let from = canonical(reference);
        let known = registries.iter().find(|registry| {
            let Some(rest) = from.strip_prefix(registry.as_str()) else { return false };
            // After a host a colon is a port, and that is another registry.
            rest.starts_with('/') || (registry.contains('/') && rest.starts_with([':', '@']))
        });
        match known {
            Some(registry) => {
                self.grounds.push(format!("{reference} comes from {registry}, which images.registries lists"))
            }
            None => self.finds(
                Rule::Registry,
                format!(
                    "{reference} comes from {from}, and images.registries lists {}",
                    registries.join(", ")
                ),
            ),
        }
    }

    fn node(&mut self, name: &str, provider: Option<&str>, zone: Option<&str>) {
        let (Some(provider), Some(zone)) = (provider, zone) else {
            let what =
                if provider.is_none() { "who runs it" } else { "its label topology.kubernetes.io/zone" };
            return self
                .finds(Rule::Unknown, format!("where the node {name} is is not known: {what} is missing"));
        };
        let title = self.title(provider);
        match self.judge.register.zone(provider, zone) {
            None => {
                let sentence =
                    format!("the node {name} is in {zone} of {title}, a zone that the register has not");
                self.finds(Rule::Unknown, sentence);
            }
            Some(known) => self.may_rest_in(&format!("{zone} of {title}"), &known.country, &known.fact),
        }
        self.may_reach(provider);
    }

    fn class(
        &mut self,
        name: &str,
        provider: Option<&str>,
        provisioner: &str,
        parameters: &BTreeMap<String, String>,
    ) {
        if self.judge.policy.storage.encryption_at_rest == Need::NotRequired {
            return;
        }
        let entry = provider.and_then(|provider| self.judge.register.get(provider));
        let known = entry
            .and_then(|entry| entry.encrypted_volumes.iter().find(|known| known.provisioner == provisioner));
        let Some(known) = known else {
            let sentence = format!(
                "whether volumes of the class {name} are encrypted at rest is not known: the register says nothing of {provisioner}"
            );
            return self.finds(Rule::Unknown, sentence);
        };
        let fact = Told(&known.fact);
        match &known.parameter {
            Some(wanted) if parameters.get(&wanted.name) != Some(&wanted.value) => {
                let has =
                    parameters.get(&wanted.name).map_or("none".to_owned(), |value| format!("{value:?}"));
                let sentence = format!(
                    "volumes of the class {name} are not encrypted at rest: {provisioner} encrypts only with {}: {}, and it has {has} ({fact})",
                    wanted.name, wanted.value
                );
                self.finds(Rule::Encryption, sentence);
            }
            Some(_) | None => {
                self.grounds.push(format!("volumes of the class {name} are encrypted at rest ({fact})"))
            }
        }
    }

    fn system(&mut self, name: &str, country: &str, provider: Option<&str>) {
        match country.parse::<Country>() {
            Err(error) => self.finds(Rule::Unknown, format!("the owner of {name}: {error}")),
            Ok(found) if !self.is_lawful(found) => self.finds(
                Rule::Jurisdiction,
                format!(
                    "{name} belongs to an owner in {found}, and jurisdictions.allowed lists {}",
                    self.allowed()
                ),
            ),
            Ok(found) => self.grounds.push(format!("{name} belongs to an owner in {found}")),
        }
        if let Some(provider) = provider {
            self.may_reach(provider);
        }
    }

    fn passage(&mut self, kind: PassageKind, name: &str) {
        let known = self.judge.policy.passes.iter().find(|known| known.kind == kind && known.name == name);
        match known {
            Some(known) => self.may_reach(&known.provider),
            None => self.finds(
                Rule::Passage,
                format!("traffic passes the {kind:?} {name}, and passes of the policy does not list it"),
            ),
        }
    }

    fn may_rest_in(&mut self, place: &str, country: &str, fact: &Fact) {
        let allowed = &self.judge.policy.countries;
        match country.parse::<Country>() {
            Err(error) => self.finds(Rule::Unknown, format!("{place}: {error} ({})", Told(fact))),
            Ok(found) if has(allowed, found) => {
                self.grounds.push(format!("{place} is in {found} ({})", Told(fact)));
            }
            Ok(found) => {
                let sentence = format!(
                    "{place} is in {found} ({}), and countries lists {}",
                    Told(fact),
                    listed(allowed)
                );
                self.finds(Rule::Country, sentence);
            }
        }
    }

    /// Every law that reaches `provider` must be one that may.
    fn may_reach(&mut self, provider: &str) {
        for way in reach::ways(self.judge.register, provider, &self.judge.policy.jurisdictions) {
            match &way.end {
                End::Law { country, .. } if self.is_lawful(*country) => self.grounds.push(way.to_string()),
                End::Law { .. } => {
                    let sentence = format!("{way}, and jurisdictions.allowed lists {}", self.allowed());
                    self.finds(Rule::Jurisdiction, sentence);
                }
                End::Unknown(_) => self.finds(Rule::Unknown, way.to_string()),
            }
        }
    }

    fn apart(&mut self, store: &Store<'_>, home: Home<'_>) {
        let rule = self.judge.policy.backups;
        // What is proven counts for more than what is stated.
        let proven = store
            .proof
            .as_ref()
            .and_then(|proof| self.judge.register.zone(store.provider, &proof.primary_zone));
        let country = proven.map_or(store.country, |zone| zone.country.as_str());
        if rule.other_country == Need::Required && country == home.country {
            let sentence = format!(
                "the store {} lies in {country}, as the tenants do, and backups.otherCountry is Required",
                store.name
            );
            self.finds(Rule::Apart, sentence);
        }
        let Some(wanted) = rule.distance_km else { return };
        let place = proven.map_or(store.region, |zone| zone.name.as_str());
        let (here, there) =
            (self.position(home.provider, home.region), self.position(Some(store.provider), place));
        let (Some(here), Some(there)) = (here, there) else {
            let missing = if here.is_none() { home.region } else { place };
            let sentence = format!(
                "how far the store {} is from the tenants is not known: the register has no position of {missing}",
                store.name
            );
            return self.finds(Rule::Unknown, sentence);
        };
        let distance = here.kilometres_to(there);
        if distance < f64::from(wanted) {
            let sentence = format!(
                "the store {} is {distance:.0} km from the tenants, and backups.distanceKm is {wanted}",
                store.name
            );
            self.finds(Rule::Apart, sentence);
        } else {
            self.grounds.push(format!("the store {} is {distance:.0} km from the tenants", store.name));
        }
    }

    /// Where a region or a zone is: a region where its data rest.
    fn position(&self, provider: Option<&str>, name: &str) -> Option<Position> {
        let (provider, register) = (provider?, self.judge.register);
        let zone =
            register.region(provider, name).and_then(|region| region.primary_zone.as_deref()).unwrap_or(name);
        register.zone(provider, zone)?.position
    }

    fn is_lawful(&self, country: Country) -> bool {
        has(&self.judge.policy.jurisdictions.allowed, country)
    }

    fn allowed(&self) -> String {
        listed(&self.judge.policy.jurisdictions.allowed)
    }

    fn title(&self, provider: &str) -> String {
        self.judge.register.get(provider).map_or_else(|| provider.to_owned(), |entry| entry.title.clone())
    }
}

fn has(allowed: &[Territory], country: Country) -> bool {
    allowed.iter().any(|territory| territory.has(country))
}

fn listed(territories: &[Territory]) -> String {
    territories.iter().map(Territory::to_string).collect::<Vec<_>>().join(", ")
}

/// A reference with all that a container runtime fills in: `nginx` is `docker.io/library/nginx`.
fn canonical(reference: &str) -> String {
    // As the reference's grammar has it: only what has a dot or a port, or is localhost, is a host.
    let is_host = |first: &str| first == "localhost" || first.contains(['.', ':']);
    let (host, path) =
        reference.split_once('/').filter(|(first, _)| is_host(first)).unwrap_or((DOCKER, reference));
    let library = if host == DOCKER && !path.contains('/') { "library/" } else { "" };
    format!("{host}/{library}{path}")
}

impl fmt::Display for Verdict {
    /// One line for people: allowed, or every reason why not.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<_> = self.refusals().map(|finding| finding.sentence.as_str()).collect();
        match reasons.as_slice() {
            [] => write!(out, "{}: allowed by the SovereigntyPolicy {}", self.subject, self.policy),
            reasons => write!(
                out,
                "{}: refused by the SovereigntyPolicy {}: {}",
                self.subject,
                self.policy,
                reasons.join("; ")
            ),
        }
    }
}
