//! Whose law can reach what an organisation holds: through its seat, its owners, those it owns and those who work for it, to any
//! depth. Pure.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
};

use valv_crds::{
    ProviderSpec,
    provider::Fact,
    sovereignty::{Country, Jurisdictions, SubProcessors, Subsidiaries},
    units::Share,
};

use super::register::Register;

/// One way to an organisation, and what is at its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Way {
    /// From the organisation that was asked about: each step to the next.
    pub steps: Vec<Step>,
    /// What is there.
    pub end: End,
}

/// One step of a way: to which organisation, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// Whom it leads to, by its name in the register.
    pub to: String,
    /// Its full name, if the register has it.
    pub title: Option<String>,
    /// What it is to the one before.
    pub link: Link,
    /// Known from where; the first step is what was asked.
    pub fact: Option<Fact>,
}

/// What an organisation is to the one before it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Link {
    /// It is what was asked about.
    Itself,
    /// It owns so much of it; not known how much.
    Owner(Option<Share>),
    /// It is owned by it.
    Subsidiary,
    /// It works for it.
    SubProcessor,
}

/// What is at the end of a way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// A country whose law reaches it.
    Law {
        /// Which.
        country: Country,
        /// In which way, if it is not its seat.
        why: Option<String>,
        /// Known from where.
        fact: Fact,
    },
    /// Something that nobody stated.
    Unknown(Unknown),
}

/// What is not known of an organisation.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Unknown {
    /// The register does not have it at all.
    Entry,
    /// Under whose law it is.
    Seat,
    /// It is said to be in what is no country.
    Country(String),
    /// Who owns it.
    Owners,
    /// Whom it owns.
    Subsidiaries,
    /// Who works for it.
    SubProcessors,
}

impl fmt::Display for Unknown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry => out.write_str("it is not in the provider register"),
            Self::Seat => out.write_str("under whose law it is is not known"),
            Self::Country(code) => write!(out, "it is said to be in {code}, which is no country"),
            Self::Owners => out.write_str("who owns it is not known"),
            Self::Subsidiaries => out.write_str("whom it owns is not known"),
            Self::SubProcessors => out.write_str("who works for it is not known"),
        }
    }
}

/// As what an organisation was come to: from there other ways lead on.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum As {
    /// It holds data: all that is known of it counts.
    Holder {
        /// Whether those who work for it count too.
        with_sub_processors: bool,
    },
    /// It owns one that does: its owners count.
    Owner,
    /// It is owned by one that does: those it owns count.
    Subsidiary,
}

/// Every law that can reach `provider`, and all that is not known of that: to each organisation by a shortest way, nearest first.
pub fn ways(register: &Register, provider: &str, rules: &Jurisdictions) -> Vec<Way> {
    let first = Step {
        to: provider.to_owned(),
        title: register.get(provider).map(|entry| entry.title.clone()),
        link: Link::Itself,
        fact: None,
    };
    let holder = As::Holder { with_sub_processors: true };
    let mut seen = BTreeSet::from([(provider.to_owned(), holder)]);
    let mut queue = VecDeque::from([(vec![first], holder)]);
    let mut ways = Vec::new();
    while let Some((steps, reached_as)) = queue.pop_front() {
        let Some(last) = steps.last() else { continue };
        let Some(entry) = register.get(&last.to) else {
            ways.push(Way { steps, end: End::Unknown(Unknown::Entry) });
            continue;
        };
        let (next, unknown) = onward(entry, reached_as, rules);
        let ends = laws(entry).into_iter().chain(unknown.into_iter().map(End::Unknown));
        ways.extend(ends.map(|end| Way { steps: steps.clone(), end }));
        for (to, link, fact, next_as) in next {
            if seen.insert((to.to_owned(), next_as)) {
                let title = register.get(to).map(|entry| entry.title.clone());
                let step = Step { to: to.to_owned(), title, link, fact: Some(fact.clone()) };
                queue.push_back((steps.iter().cloned().chain([step]).collect(), next_as));
            }
        }
    }
    ways
}

/// The laws that reach an organisation itself.
fn laws(entry: &ProviderSpec) -> Vec<End> {
    let law = |code: &str, why: Option<String>, fact: &Fact| match code.parse() {
        Ok(country) => End::Law { country, why, fact: fact.clone() },
        Err(_) => End::Unknown(Unknown::Country(code.to_owned())),
    };
    let seat = match &entry.seat {
        Some(seat) => law(&seat.country, None, &seat.fact),
        None => End::Unknown(Unknown::Seat),
    };
    let reached =
        entry.reached_by.iter().map(|reach| law(&reach.country, Some(reach.why.clone()), &reach.fact));
    [seat].into_iter().chain(reached).collect()
}

/// A step onward: to whom, as what, known from where, and how it counts there.
type Onward<'a> = (&'a str, Link, &'a Fact, As);

fn onward<'a>(
    entry: &'a ProviderSpec,
    reached_as: As,
    rules: &Jurisdictions,
) -> (Vec<Onward<'a>>, Vec<Unknown>) {
    let (mut next, mut unknown) = (Vec::new(), Vec::new());
    if matches!(reached_as, As::Holder { .. } | As::Owner) {
        match &entry.ownership {
            None => unknown.push(Unknown::Owners),
            Some(ownership) => {
                // Whose share nobody knows may hold all of it.
                let counts = ownership
                    .owners
                    .iter()
                    .filter(|owner| owner.share.is_none_or(|share| share >= rules.owners_from));
                next.extend(counts.map(|owner| {
                    (owner.name.as_str(), Link::Owner(owner.share), &ownership.fact, As::Owner)
                }));
            }
        }
    }
    if rules.subsidiaries == Subsidiaries::Count && matches!(reached_as, As::Holder { .. } | As::Subsidiary) {
        match &entry.subsidiaries {
            None => unknown.push(Unknown::Subsidiaries),
            Some(others) => next.extend(
                others
                    .names
                    .iter()
                    .map(|name| (name.as_str(), Link::Subsidiary, &others.fact, As::Subsidiary)),
            ),
        }
    }
    if let As::Holder { with_sub_processors: true } = reached_as {
        let with_sub_processors = rules.sub_processors == SubProcessors::AllLevels;
        match &entry.sub_processors {
            None => unknown.push(Unknown::SubProcessors),
            Some(others) => next.extend(others.names.iter().map(|name| {
                (name.as_str(), Link::SubProcessor, &others.fact, As::Holder { with_sub_processors })
            })),
        }
    }
    (next, unknown)
}

impl fmt::Display for Way {
    /// The way as one sentence: `cleura, owned by iver (100%), owned by icg (share not known): under the law of GB`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.steps.iter().enumerate() {
            let name = step.title.as_deref().unwrap_or(&step.to);
            match step.link {
                Link::Itself => {}
                Link::Owner(Some(share)) => write!(out, "owned to {share} by ")?,
                Link::Owner(None) => out.write_str("owned, nobody knows how much of it, by ")?,
                Link::Subsidiary => out.write_str("which owns ")?,
                Link::SubProcessor => out.write_str("for which works ")?,
            }
            out.write_str(name)?;
            if number + 1 < self.steps.len() {
                out.write_str(", ")?;
            }
        }
        match &self.end {
            End::Law { country, why: None, fact } => {
                write!(out, ": under the law of {country} ({fact})", fact = Told(fact))
            }
            End::Law { country, why: Some(why), fact } => {
                write!(out, ": the law of {country} reaches it, {why} ({fact})", fact = Told(fact))
            }
            End::Unknown(unknown) => write!(out, ": {unknown}"),
        }
    }
}

/// A fact as a sentence has it.
pub struct Told<'a>(pub &'a Fact);

impl fmt::Display for Told<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}, {}", self.0.source, self.0.date)
    }
}
