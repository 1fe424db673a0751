//! The provider register that holds: the catalogue's entries, and over them those of the policy. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::civil::Date;
use valv_crds::{
    ProviderSpec,
    provider::{Fact, Region, StorageHost, Zone},
    sovereignty::{Country, RegisterEntry},
    units::Days,
};

/// The register: every organisation by its name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Register {
    entries: BTreeMap<String, ProviderSpec>,
}

/// Something in the register that cannot be so.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Problem {
    /// Each owns the next, and the last the first.
    Cycle(Vec<String>),
    /// It names an organisation that the register has not.
    Stranger {
        /// Whose entry.
        of: String,
        /// Whom it names.
        names: String,
    },
    /// Its owners hold more than the whole.
    MoreThanTheWhole {
        /// Whose entry.
        of: String,
        /// All shares together, in hundredths of a percent.
        hundredths_of_percent: u64,
    },
    /// It is in a country that there is not.
    NoCountry {
        /// Whose entry.
        of: String,
        /// What it says.
        code: String,
    },
    /// It was looked up on a day that has not come yet.
    Tomorrow {
        /// Whose entry.
        of: String,
        /// On which day.
        date: Date,
    },
    /// It names a zone or a region of its own that it does not list, or one that lies in another country.
    NoPlace {
        /// Whose entry.
        of: String,
        /// Which.
        place: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two say that an object store's host is theirs.
    TwoHosts {
        /// The host.
        host: String,
        /// Who say so.
        of: [String; 2],
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cycle(names) => {
                write!(out, "{} own each other in a circle", names.join(", "))
            }
            Self::Stranger { of, names } => {
                write!(out, "{of} names {names}, which the register has not: add an entry for it")
            }
            Self::MoreThanTheWhole { of, hundredths_of_percent } => {
                let (percent, rest) = (hundredths_of_percent / 100, hundredths_of_percent % 100);
                write!(
                    out,
                    "the owners of {of} hold {percent}.{rest:02}% of it together: correct their shares"
                )
            }
            Self::NoCountry { of, code } => {
                write!(out, "{of} is said to be in {code}, which is no country of ISO 3166-1")
            }
            Self::Tomorrow { of, date } => {
                write!(out, "a fact about {of} is dated {date}, which has not come yet in UTC")
            }
            Self::NoPlace { of, place, why } => write!(out, "{of}: {place} {why}"),
            Self::TwoHosts { host, of: [one, other] } => {
                write!(out, "{one} and {other} both say that {host} is theirs: correct one of them")
            }
        }
    }
}

impl Register {
    /// The entries of `catalogue`, and in place of any of them that of `policy` with its name.
    pub fn new(
        catalogue: impl IntoIterator<Item = (String, ProviderSpec)>,
        policy: &[RegisterEntry],
    ) -> Self {
        let mut entries: BTreeMap<_, _> = catalogue.into_iter().collect();
        entries.extend(policy.iter().map(|known| (known.name.clone(), known.entry.clone())));
        Self { entries }
    }

    /// What is known of `name`.
    pub fn get(&self, name: &str) -> Option<&ProviderSpec> {
        self.entries.get(name)
    }

    /// The region that a provider calls so.
    pub fn region(&self, provider: &str, name: &str) -> Option<&Region> {
        self.get(provider)?.regions.iter().find(|region| region.name == name)
    }

    /// The zone that a provider calls so.
    pub fn zone(&self, provider: &str, name: &str) -> Option<&Zone> {
        self.get(provider)?.zones.iter().find(|zone| zone.name == name)
    }

    /// Whose object store answers at `host`, by the entry that says most of its name.
    pub fn storage_host(&self, host: &str) -> Option<(&str, &StorageHost)> {
        let all = self.entries.iter();
        let known = all
            .flat_map(|(name, entry)| entry.object_storage.iter().map(move |known| (name.as_str(), known)));
        known.filter(|(_, known)| matches(&known.host, host)).max_by_key(|(_, known)| {
            // A whole name says more than any pattern, and a long one more than a short one.
            (!known.host.starts_with("*."), known.host.len())
        })
    }

    /// What cannot be so, each once, in order.
    pub fn problems(&self, today: Date) -> BTreeSet<Problem> {
        let mut problems: BTreeSet<_> =
            self.entries.iter().flat_map(|(name, entry)| self.problems_of(name, entry, today)).collect();
        problems.extend(self.cycles());
        problems.extend(self.two_hosts());
        problems
    }

    fn problems_of(&self, of: &str, entry: &ProviderSpec, today: Date) -> Vec<Problem> {
        let of = of.to_owned();
        let mut problems = Vec::new();
        let strangers = named(entry).filter(|name| !self.entries.contains_key(*name));
        problems.extend(strangers.map(|name| Problem::Stranger { of: of.clone(), names: name.to_owned() }));
        let shares =
            entry.ownership.iter().flat_map(|ownership| &ownership.owners).filter_map(|owner| owner.share);
        let hundredths_of_percent: u64 = shares.map(|share| share.of(10_000)).sum();
        if hundredths_of_percent > 10_000 {
            problems.push(Problem::MoreThanTheWhole { of: of.clone(), hundredths_of_percent });
        }
        let unknown = countries(entry).filter(|code| code.parse::<Country>().is_err());
        problems.extend(unknown.map(|code| Problem::NoCountry { of: of.clone(), code: code.to_owned() }));
        let coming = facts(entry).filter(|fact| fact.date > today);
        problems.extend(coming.map(|fact| Problem::Tomorrow { of: of.clone(), date: fact.date }));
        for region in &entry.regions {
            let Some(zone) = &region.primary_zone else { continue };
            let why = match entry.zones.iter().find(|known| known.name == *zone) {
                None => "has a primary zone that is not among the zones",
                Some(zone) if zone.country != region.country => {
                    "lies in another country than its primary zone"
                }
                Some(_) => continue,
            };
            problems.push(Problem::NoPlace { of: of.clone(), place: region.name.clone(), why });
        }
        for host in &entry.object_storage {
            if let Some(region) = &host.region
                && !entry.regions.iter().any(|known| known.name == *region)
            {
                let why = "is in a region that is not among the regions";
                problems.push(Problem::NoPlace { of: of.clone(), place: host.host.clone(), why });
            }
        }
        problems
    }

    /// Hosts that two claim.
    fn two_hosts(&self) -> Vec<Problem> {
        let mut known: BTreeMap<&str, &str> = BTreeMap::new();
        let mut found = Vec::new();
        for (name, entry) in &self.entries {
            for StorageHost { host, .. } in &entry.object_storage {
                match known.insert(host, name) {
                    Some(other) if other != name => {
                        let of = [other.to_owned(), name.clone()];
                        found.push(Problem::TwoHosts { host: host.clone(), of });
                    }
                    Some(_) | None => {}
                }
            }
        }
        found
    }

    /// Circles of owners, each once, from the first of its names on.
    fn cycles(&self) -> BTreeSet<Problem> {
        let mut found = BTreeSet::new();
        for start in self.entries.keys() {
            // From each, the shortest way back to it by later names alone: so a circle is told once, of its first name.
            let mut ways = vec![vec![start.as_str()]];
            let mut seen = BTreeSet::new();
            while let Some(way) = (!ways.is_empty()).then(|| ways.remove(0)) {
                let Some(owners) =
                    way.last().and_then(|last| self.get(last)).and_then(|entry| entry.ownership.as_ref())
                else {
                    continue;
                };
                for owner in &owners.owners {
                    if owner.name == *start {
                        found.insert(Problem::Cycle(way.iter().map(|&name| name.to_owned()).collect()));
                    } else if owner.name > *start && seen.insert(owner.name.as_str()) {
                        ways.push(way.iter().copied().chain([owner.name.as_str()]).collect());
                    }
                }
            }
        }
        found
    }

    /// The facts that are older than `most`, by whose they are: the oldest of each.
    pub fn stale(&self, today: Date, most: Days) -> BTreeMap<&str, &Fact> {
        let is_old = |fact: &&Fact| fact.date.until(today).is_ok_and(|age| age.get_days() > days(most));
        let oldest = |entry| facts(entry).filter(is_old).min_by_key(|fact| fact.date);
        self.entries.iter().filter_map(|(name, entry)| Some((name.as_str(), oldest(entry)?))).collect()
    }
}

fn days(span: Days) -> i32 {
    i32::try_from(span.count()).unwrap_or(i32::MAX)
}

/// Whether `host` is what `pattern` says: the whole name, or any name below what follows `*.`.
fn matches(pattern: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    match pattern.strip_prefix('*') {
        Some(end) => host.len() > end.len() && host.ends_with(end),
        None => host == pattern,
    }
}

/// Whom an entry names.
fn named(entry: &ProviderSpec) -> impl Iterator<Item = &str> {
    let owners =
        entry.ownership.iter().flat_map(|ownership| &ownership.owners).map(|owner| owner.name.as_str());
    let others = entry.subsidiaries.iter().chain(&entry.sub_processors).flat_map(|others| &others.names);
    owners.chain(others.map(String::as_str))
}

/// Every country that an entry names.
fn countries(entry: &ProviderSpec) -> impl Iterator<Item = &str> {
    let seat = entry.seat.iter().map(|seat| &seat.country);
    let reached = entry.reached_by.iter().map(|reach| &reach.country);
    let regions = entry.regions.iter().map(|region| &region.country);
    let zones = entry.zones.iter().map(|zone| &zone.country);
    seat.chain(reached).chain(regions).chain(zones).map(String::as_str)
}

/// Everything that an entry is known from.
fn facts(entry: &ProviderSpec) -> impl Iterator<Item = &Fact> {
    let seat = entry.seat.iter().map(|seat| &seat.fact);
    let owners = entry.ownership.iter().map(|ownership| &ownership.fact);
    let others = entry.subsidiaries.iter().chain(&entry.sub_processors).map(|others| &others.fact);
    let reached = entry.reached_by.iter().map(|reach| &reach.fact);
    let regions = entry.regions.iter().map(|region| &region.fact);
    let zones = entry.zones.iter().map(|zone| &zone.fact);
    let hosts = entry.object_storage.iter().map(|host| &host.fact);
    let volumes = entry.encrypted_volumes.iter().map(|volumes| &volumes.fact);
    seat.chain(owners).chain(others).chain(reached).chain(regions).chain(zones).chain(hosts).chain(volumes)
}
