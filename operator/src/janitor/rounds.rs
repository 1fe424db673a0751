//! Says whose turn it is. Pure, but for the [`Memory`], which is lost with the process and missed by nobody.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use jiff::{Span, Timestamp, tz::TimeZone};
use kube::ResourceExt;
use sha2::{Digest, Sha256};
use valv_crds::JournalTenant;

use super::check::{self, Ward};
use crate::{archive::layout::ArchiveId, io::bucket::Version};

/// Time between two rounds.
pub const EVERY: Duration = Duration::from_secs(30);

/// How long after a commit the catalogue is looked at: others of the same night come first.
const AFTER_A_COMMIT: Duration = Duration::from_secs(600);

/// After a failure it is tried again no sooner; after several of a kind that lasts twice as long each time, up to a day.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1800);

/// So often all of an archive is looked at.
const WHOLE_EVERY: Duration = Duration::from_secs(7 * DAY);

/// Wards of one store that wait before it is seen anew whose turn it is.
pub const MOST_AT_ONE_GO: usize = 64;

/// Over this time wards of which nothing is known in the cluster are spread: all of them, after a cluster was lost.
const SPREAD: Duration = Duration::from_secs(900);

/// Seconds of a day.
const DAY: u64 = 86_400;

/// What the turn of a ward depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Store and archive.
    pub key: (String, ArchiveId),
    /// When the newest backup was committed there, as far as the cluster knows.
    pub committed: Option<Timestamp>,
    /// Digests that somebody acknowledged.
    pub acknowledged: Vec<String>,
    /// What somebody asked for a look with; another value asks for another.
    pub asked: Option<String>,
    /// Whether the cluster knows any backup of it.
    pub standing: Standing,
}

/// Whether the cluster knows any backup of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does, or the archive has no tenant.
    Known,
    /// It does not: the tenant is new, or the cluster is.
    Unknown,
}

impl Subject {
    /// That of an archive of `tenant`.
    pub fn of_tenant(
        key: (String, ArchiveId),
        tenant: &JournalTenant,
        committed: Option<Timestamp>,
        standing: Standing,
    ) -> Self {
        let (acknowledged, asked) = (check::acknowledged(tenant.annotations()), check::asked(tenant));
        Self { key, committed, acknowledged, asked, standing }
    }

    /// That of `ward`.
    pub fn of(ward: &Ward) -> Self {
        Self {
            key: ward.key(),
            committed: ward.committed,
            acknowledged: ward.acknowledged(),
            asked: ward.asked(),
            standing: ward.standing,
        }
    }
}

/// What is remembered of wards and stores.
#[derive(Debug, Default)]
pub struct Memory {
    wards: BTreeMap<(String, ArchiveId), Looked>,
    stocks: BTreeMap<String, (Timestamp, Vec<ArchiveId>)>,
    known: BTreeMap<(String, ArchiveId), Known>,
}

/// How much of a ward is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// What a new backup changes.
    Short,
    /// That, and which copies are missing.
    Daily,
    /// All: every manifest, and every folder of data.
    Whole,
}

/// What came of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// What waits to be acknowledged.
    pub awaits: Option<String>,
    /// What a person should look at, whatever it is: the next look has to see it too.
    pub finding: Option<String>,
}

/// Whether a failure may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The store does not answer: it may in a moment.
    Passing,
    /// It is as it is until somebody does something, or it is not known.
    Lasting,
}

/// What was read in a store and need not be read again: it cannot have changed. Some hundred bytes a ward.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The version of the register that counted.
    pub register: Option<Version>,
    /// The records of drills.
    pub records: Records,
    /// Manifests of backups that build on no other, by the beginning of their digest.
    pub manifests: HashSet<u64>,
}

/// Records that were read, or are older than those.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    oldest: Option<String>,
    newest: HashSet<u64>,
}

/// Records that are remembered one by one.
const MOST_RECORDS: usize = 64;

impl Records {
    /// All of `listed`, the newest first.
    pub fn of<'a>(listed: impl Iterator<Item = &'a str>) -> Self {
        let newest: Vec<&str> = listed.take(MOST_RECORDS).collect();
        // If these are all, nothing older was read: what comes to lie there yet is new.
        let is_cut = newest.len() == MOST_RECORDS;
        Self {
            oldest: newest.last().filter(|_| is_cut).map(|key| (*key).to_owned()),
            newest: newest.into_iter().map(beginning_of).collect(),
        }
    }

    /// Whether the record `key` was read.
    pub fn have(&self, key: &str) -> bool {
        self.oldest.as_deref().is_some_and(|oldest| key < oldest) || self.newest.contains(&beginning_of(key))
    }
}

/// The beginning of the digest of a text.
fn beginning_of(text: &str) -> u64 {
    number(&Sha256::digest(text.as_bytes()))
}

/// The number that begins `digest`.
pub fn number(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte))
}

#[derive(Clone, Debug)]
struct Looked {
    at: Timestamp,
    came: Came,
    asked: Option<String>,
    /// How long to wait after a failure; `None`: it did not fail.
    waits: Option<Duration>,
    /// When all of it was last looked at.
    whole: Option<Timestamp>,
}

impl Memory {
    /// Notes what came of a look at a ward.
    pub fn looked(&mut self, subject: &Subject, reach: Reach, at: Timestamp, came: Came) {
        let before = self.wards.get(&subject.key).and_then(|looked| looked.whole);
        let whole = if reach == Reach::Whole { Some(at) } else { before };
        let looked = Looked { at, came, asked: subject.asked.clone(), waits: None, whole };
        self.wards.insert(subject.key.clone(), looked);
    }

    /// Notes that a look failed.
    pub fn failed(&mut self, subject: &Subject, at: Timestamp, trouble: Trouble) {
        let before = self.wards.get(&subject.key);
        let waits = match (trouble, before.and_then(|looked| looked.waits)) {
            (Trouble::Passing, _) | (Trouble::Lasting, None) => AFTER_A_FAILURE,
            (Trouble::Lasting, Some(waited)) => waited.saturating_mul(2).min(Duration::from_secs(DAY)),
        };
        let looked = Looked {
            at,
            came: Came::default(),
            asked: subject.asked.clone(),
            waits: Some(waits),
            whole: before.and_then(|looked| looked.whole),
        };
        self.wards.insert(subject.key.clone(), looked);
    }

    /// What was read of an archive in a store.
    pub fn known(&self, key: &(String, ArchiveId)) -> Known {
        self.known.get(key).cloned().unwrap_or_default()
    }

    /// Notes what was read of an archive in a store.
    pub fn read(&mut self, key: (String, ArchiveId), known: Known) {
        self.known.insert(key, known);
    }

    /// Notes which archives a store has.
    pub fn took_stock(&mut self, store: &str, archives: Vec<ArchiveId>, at: Timestamp) {
        self.stocks.insert(store.to_owned(), (at, archives));
    }

    /// The archives that `store` had when stock was last taken.
    pub fn stock(&self, store: &str) -> &[ArchiveId] {
        self.stocks.get(store).map(|(_, archives)| archives.as_slice()).unwrap_or_default()
    }
}

/// When this process began to take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// Then.
    pub began: Timestamp,
}

impl Turns {
    /// Whether it is `subject`'s turn at `now`, and how much is looked at.
    ///
    /// Once a day at its moment; a while after a backup was committed; at once when somebody acknowledged what it waits
    /// for, or for a look; again a while after a failure; and soon if the cluster knows nothing of it. All of it is looked
    /// at first, once a week, when somebody asks, and while a question is open.
    pub fn turn(self, subject: &Subject, now: Timestamp, memory: &Memory) -> Option<Reach> {
        let looked = memory.wards.get(&subject.key);
        let since = looked.map_or(self.began, |looked| looked.at);
        if is_called_for(subject, looked) {
            return Some(Reach::Whole);
        }
        let waits = looked.and_then(|looked| looked.waits);
        let is_open = looked.is_some_and(|looked| looked.came != Came::default());
        let is_whole = is_open
            || looked.and_then(|looked| looked.whole).is_none_or(|whole| later(whole, WHOLE_EVERY) <= now);
        let daily = if is_whole { Reach::Whole } else { Reach::Daily };
        if let Some(waits) = waits {
            return (later(since, waits) <= now).then_some(daily);
        }
        let is_committed = subject
            .committed
            .is_some_and(|committed| committed >= since && later(committed, AFTER_A_COMMIT) <= now);
        let is_unknown = looked.is_none()
            && subject.standing == Standing::Unknown
            && later(self.began, share(SPREAD, &subject.key, 0)) <= now;
        let moments = [now, now.saturating_sub(Duration::from_secs(DAY)).unwrap_or(now)];
        let is_daily = moments
            .into_iter()
            .filter_map(|day| moment(&subject.key, day))
            .any(|moment| since < moment && moment <= now);
        match (is_unknown || is_daily, is_committed) {
            (true, _) => Some(daily),
            (false, true) if is_open => Some(Reach::Whole),
            (false, true) => Some(Reach::Short),
            (false, false) => None,
        }
    }

    /// Of `subjects` those whose turn it is, of each store so many as are looked at between two rounds: first what somebody
    /// asked for or acknowledged, and then what was not looked at for the longest.
    pub fn due(
        self,
        subjects: impl IntoIterator<Item = Subject>,
        now: Timestamp,
        memory: &Memory,
    ) -> Vec<((String, ArchiveId), Reach)> {
        let mut stores: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for subject in subjects {
            if let Some(reach) = self.turn(&subject, now, memory) {
                let looked = memory.wards.get(&subject.key);
                let waited = (!is_called_for(&subject, looked), looked.map(|looked| looked.at));
                stores.entry(subject.key.0.clone()).or_default().push((waited, subject.key, reach));
            }
        }
        let first = stores.into_values().flat_map(|mut due| {
            due.sort();
            due.into_iter().take(MOST_AT_ONE_GO).map(|(_, key, reach)| (key, reach))
        });
        first.collect()
    }

    /// Whether it is time to look which archives `store` has: when nobody knows, and daily.
    pub fn is_stocktaking_due(self, store: &str, now: Timestamp, memory: &Memory) -> bool {
        memory.stocks.get(store).is_none_or(|(at, _)| later(*at, Duration::from_secs(DAY)) <= now)
    }
}

/// Whether somebody asked for a look, or acknowledged what the last one asked.
fn is_called_for(subject: &Subject, looked: Option<&Looked>) -> bool {
    let is_acknowledged = looked
        .and_then(|looked| looked.came.awaits.as_ref())
        .is_some_and(|digest| subject.acknowledged.contains(digest));
    let is_asked = subject.asked.is_some() && looked.is_none_or(|looked| looked.asked != subject.asked);
    is_acknowledged || is_asked
}

/// The moment of the day of `time`, in UTC, at which a ward is looked at: another each day.
fn moment(key: &(String, ArchiveId), time: Timestamp) -> Option<Timestamp> {
    let day = time.as_second().div_euclid(i64::try_from(DAY).ok()?);
    let start = time.to_zoned(TimeZone::UTC).start_of_day().ok()?.timestamp();
    let within = share(Duration::from_secs(DAY), key, day);
    start.checked_add(Span::new().try_seconds(i64::try_from(within.as_secs()).ok()?).ok()?).ok()
}

/// A part of `whole`, drawn from the key and the day.
fn share(whole: Duration, (store, archive): &(String, ArchiveId), day: i64) -> Duration {
    let digest = Sha256::digest(format!("{store}/{archive}/{day}").as_bytes());
    Duration::from_secs(number(&digest).checked_rem(whole.as_secs()).unwrap_or_default())
}

fn later(time: Timestamp, span: Duration) -> Timestamp {
    time.saturating_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn subject(archive: &str) -> Subject {
        Subject {
            key: ("helsinki".to_owned(), archive.parse().unwrap()),
            committed: None,
            acknowledged: vec![],
            asked: None,
            standing: Standing::Known,
        }
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    const BEGAN: &str = "2026-11-20T00:00:00Z";

    fn turns() -> Turns {
        Turns { began: at(BEGAN) }
    }

    fn is_due(subject: &Subject, now: Timestamp, memory: &Memory) -> bool {
        turns().turn(subject, now, memory).is_some()
    }

    fn awaits(digest: &str) -> Came {
        Came { awaits: Some(digest.to_owned()), finding: None }
    }

    fn minutes(count: i64) -> SignedDuration {
        SignedDuration::from_mins(count)
    }

    #[test]
    fn each_ward_has_one_turn_a_day_and_all_are_spread_over_it() {
        let mut hours = [0; 24];
        for number in 0..500 {
            let (subject, mut memory, mut turn_count) =
                (subject(&format!("a{number}")), Memory::default(), 0);
            for minute in 0..3 * 24 * 60 {
                let now = at(BEGAN) + minutes(minute);
                if is_due(&subject, now, &memory) {
                    turn_count += 1;
                    hours[usize::try_from(minute / 60 % 24).unwrap()] += 1;
                    memory.looked(&subject, Reach::Whole, now, Came::default());
                }
            }
            assert!((2..=3).contains(&turn_count), "{turn_count}");
        }
        assert!(hours.iter().all(|count| (30..100).contains(count)), "{hours:?}");
    }

    #[test]
    fn no_hour_of_the_day_is_one_ward_s_for_ever() {
        let key = subject("ada").key;
        let hour = |day: i64| {
            let day = at(BEGAN) + SignedDuration::from_hours(24 * day);
            moment(&key, day).unwrap().to_zoned(TimeZone::UTC).hour()
        };

        assert!((1..10).any(|day| hour(day) != hour(0)));
    }

    #[test]
    fn a_commit_and_a_word_bring_the_turn_forward_once() {
        let mut memory = Memory::default();
        let mut ada = subject("ada");
        let now = moment(&ada.key, at(BEGAN)).unwrap() + minutes(1);
        memory.looked(&ada, Reach::Whole, now, awaits("d1"));
        let soon = now + minutes(20);
        assert!(!is_due(&ada, soon, &memory) || moment(&ada.key, soon).unwrap() > now);

        ada.acknowledged = vec!["d2".to_owned()];
        let quiet = is_due(&ada, now + minutes(1), &memory);
        ada.acknowledged = vec!["d1".to_owned()];
        assert!(!quiet && is_due(&ada, now + minutes(1), &memory));

        ada.acknowledged.clear();
        ada.committed = Some(now + minutes(1));
        assert!(!is_due(&ada, now + minutes(5), &memory));
        assert!(is_due(&ada, now + minutes(12), &memory));
        memory.looked(&ada, Reach::Short, now + minutes(12), Came::default());
        assert!(!is_due(&ada, now + minutes(13), &memory));

        ada.asked = Some("now".to_owned());
        assert!(is_due(&ada, now + minutes(13), &memory));
        memory.looked(&ada, Reach::Whole, now + minutes(13), Came::default());
        assert!(!is_due(&ada, now + minutes(14), &memory));
    }

    #[test]
    fn a_failed_look_is_tried_again_and_not_at_once() {
        let mut memory = Memory::default();
        let ada = subject("ada");
        let now = at("2026-11-20T12:00:00Z");
        memory.failed(&ada, now, Trouble::Passing);

        assert!(!is_due(&ada, now + minutes(29), &memory));
        assert!(is_due(&ada, now + minutes(30), &memory));
    }

    #[test]
    fn what_fails_again_and_again_is_looked_at_ever_more_seldom_and_once_a_day_at_least() {
        let mut memory = Memory::default();
        let mut ada = subject("ada");
        let waited = |memory: &mut Memory, now: Timestamp, trouble: Trouble| {
            memory.failed(&ada, now, trouble);
            (1..3000).find(|count| is_due(&ada, now + minutes(*count), memory)).unwrap()
        };
        let now = at("2026-11-20T12:00:00Z");

        let waits: Vec<i64> = (0..8).map(|_| waited(&mut memory, now, Trouble::Lasting)).collect();

        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1440, 1440]);
        assert_eq!(waited(&mut memory, now, Trouble::Passing), 30, "a store that is away comes back");
        memory.failed(&ada, now, Trouble::Lasting);
        ada.asked = Some("mended".to_owned());
        assert!(is_due(&ada, now + minutes(1), &memory), "and whoever mended it need not wait");
    }

    #[test]
    fn all_is_looked_at_first_and_weekly_and_while_a_question_is_open_and_less_between() {
        let mut memory = Memory::default();
        let mut ada = subject("ada");
        let day = |count: i64| moment(&ada.key, at(BEGAN) + SignedDuration::from_hours(24 * count)).unwrap();
        let days: Vec<Timestamp> = (0..9).map(day).collect();
        let turn = |ada: &Subject, memory: &Memory, now| turns().turn(ada, now, memory);

        assert_eq!(turn(&ada, &memory, days[0]), Some(Reach::Whole));
        memory.looked(&ada, Reach::Whole, days[0], Came::default());
        assert_eq!(turn(&ada, &memory, days[1]), Some(Reach::Daily));
        memory.looked(&ada, Reach::Daily, days[1], awaits("d1"));
        assert_eq!(turn(&ada, &memory, days[2]), Some(Reach::Whole));
        memory.looked(&ada, Reach::Daily, days[2], Came::default());
        ada.committed = Some(days[2] + minutes(1));
        let soon = days[2] + minutes(12);
        assert!(matches!(turn(&ada, &memory, soon), Some(Reach::Short | Reach::Daily)));
        ada.committed = None;
        memory.looked(&ada, Reach::Short, days[7], Came::default());
        assert_eq!(turn(&ada, &memory, days[8]), Some(Reach::Whole), "a week has passed");
    }

    #[test]
    fn a_record_that_was_read_is_known_and_so_is_what_is_older() {
        let keys: Vec<String> = (10..90).rev().map(|number| format!("drill-{number}")).collect();

        let read = Records::of(keys.iter().map(String::as_str));

        assert!(read.have("drill-89") && read.have("drill-26") && read.have("drill-11"));
        assert!(!read.have("drill-90") && !read.have("drill-50-late"));
        assert!(!Records::default().have("drill-10"));
        let few = Records::of(keys.iter().take(3).map(String::as_str));
        assert!(few.have("drill-87") && !few.have("drill-86"), "an older name that comes later was not read");
    }

    #[test]
    fn after_a_cluster_was_lost_all_have_their_turn_within_a_quarter_of_an_hour() {
        for number in 0..100 {
            let lost = Subject { standing: Standing::Unknown, ..subject(&format!("a{number}")) };

            assert!(is_due(&lost, at(BEGAN) + minutes(15), &Memory::default()));
        }
    }

    #[test]
    fn of_more_than_can_be_looked_at_the_longest_unlooked_comes_first_and_what_somebody_asked_for_before_it()
    {
        let mut memory = Memory::default();
        let began = at("2026-11-20T12:00:00Z");
        let mut all: Vec<Subject> = (100..200).map(|number| subject(&format!("a{number}"))).collect();
        for subject in &all {
            memory.failed(subject, began, Trouble::Passing);
        }
        all.push(Subject { standing: Standing::Unknown, ..subject("new") });
        let due = |all: &[Subject], after: i64, memory: &Memory| {
            turns().due(all.to_vec(), began + minutes(after), memory)
        };
        let first: BTreeMap<_, _> = due(&all, 30, &memory).into_iter().collect();
        for key in first.keys() {
            memory.failed(
                &all.iter().find(|subject| subject.key == *key).unwrap().clone(),
                began + minutes(31),
                Trouble::Passing,
            );
        }
        all[0].asked = Some("now".to_owned());

        let second = due(&all, 90, &memory);
        assert_eq!(second[0], (all[0].key.clone(), Reach::Whole), "it was asked for");
        let second: BTreeMap<_, _> = second.into_iter().collect();

        assert_eq!((first.len(), second.len()), (MOST_AT_ONE_GO, MOST_AT_ONE_GO));
        assert!(first.contains_key(&subject("new").key), "it was never looked at");
        assert!(!first.contains_key(&subject("a199").key));
        assert!(
            all.iter().all(|subject| first.contains_key(&subject.key) || second.contains_key(&subject.key))
        );
    }
}
