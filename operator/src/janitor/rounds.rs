//! Says whose turn it is. Pure, but for the [`Memory`], which is lost with the process and missed by nobody.

use std::{collections::BTreeMap, time::Duration};

use jiff::{Span, Timestamp, tz::TimeZone};
use sha2::{Digest, Sha256};

use super::check::Ward;
use crate::archive::layout::ArchiveId;

/// Time between two rounds.
pub const EVERY: Duration = Duration::from_secs(30);

/// How long after a commit the catalogue is looked at: others of the same night come first.
const AFTER_A_COMMIT: Duration = Duration::from_secs(600);

/// After a failure it is tried again no sooner.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1800);

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
}

#[derive(Clone, Debug)]
struct Looked {
    at: Timestamp,
    awaits: Option<String>,
    asked: Option<String>,
    failed: bool,
}

impl Memory {
    /// Notes that a ward was looked at, and what it waits for.
    pub fn looked(&mut self, subject: &Subject, at: Timestamp, awaits: Option<String>) {
        let asked = subject.asked.clone();
        self.wards.insert(subject.key.clone(), Looked { at, awaits, asked, failed: false });
    }

    /// Notes that a look failed.
    pub fn failed(&mut self, subject: &Subject, at: Timestamp) {
        let asked = subject.asked.clone();
        self.wards.insert(subject.key.clone(), Looked { at, awaits: None, asked, failed: true });
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
    /// Whether it is `subject`'s turn at `now`.
    ///
    /// Once a day at its moment; a while after a backup was committed; at once when somebody acknowledged what it waits
    /// for, or for a look; again a while after a failure; and soon if the cluster knows nothing of it.
    pub fn is_due(self, subject: &Subject, now: Timestamp, memory: &Memory) -> bool {
        let looked = memory.wards.get(&subject.key);
        let since = looked.map_or(self.began, |looked| looked.at);
        let is_acknowledged = looked
            .and_then(|looked| looked.awaits.as_ref())
            .is_some_and(|digest| subject.acknowledged.contains(digest));
        let is_asked = subject.asked.is_some() && looked.is_none_or(|looked| looked.asked != subject.asked);
        let is_failed = looked.is_some_and(|looked| looked.failed) && later(since, AFTER_A_FAILURE) <= now;
        let is_committed = subject
            .committed
            .is_some_and(|committed| committed >= since && later(committed, AFTER_A_COMMIT) <= now);
        let is_unknown = looked.is_none()
            && subject.standing == Standing::Unknown
            && later(self.began, share(SPREAD, &subject.key, 0)) <= now;
        let waits = looked.is_some_and(|looked| looked.failed) && !is_failed;
        let moments = [now, now.saturating_sub(Duration::from_secs(DAY)).unwrap_or(now)];
        let is_daily = moments
            .into_iter()
            .filter_map(|day| moment(&subject.key, day))
            .any(|moment| since < moment && moment <= now);
        is_acknowledged || is_asked || is_failed || !waits && (is_committed || is_unknown || is_daily)
    }

    /// Whether it is time to look which archives `store` has: when nobody knows, and daily.
    pub fn is_stocktaking_due(self, store: &str, now: Timestamp, memory: &Memory) -> bool {
        memory.stocks.get(store).is_none_or(|(at, _)| later(*at, Duration::from_secs(DAY)) <= now)
    }
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
    let drawn = digest.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    Duration::from_secs(drawn.checked_rem(whole.as_secs()).unwrap_or_default())
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
                if turns().is_due(&subject, now, &memory) {
                    turn_count += 1;
                    hours[usize::try_from(minute / 60 % 24).unwrap()] += 1;
                    memory.looked(&subject, now, None);
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
        memory.looked(&ada, now, Some("d1".to_owned()));
        let soon = now + minutes(20);
        assert!(!turns().is_due(&ada, soon, &memory) || moment(&ada.key, soon).unwrap() > now);

        ada.acknowledged = vec!["d2".to_owned()];
        let quiet = turns().is_due(&ada, now + minutes(1), &memory);
        ada.acknowledged = vec!["d1".to_owned()];
        assert!(!quiet && turns().is_due(&ada, now + minutes(1), &memory));

        ada.acknowledged.clear();
        ada.committed = Some(now + minutes(1));
        assert!(!turns().is_due(&ada, now + minutes(5), &memory));
        assert!(turns().is_due(&ada, now + minutes(12), &memory));
        memory.looked(&ada, now + minutes(12), None);
        assert!(!turns().is_due(&ada, now + minutes(13), &memory));

        ada.asked = Some("now".to_owned());
        assert!(turns().is_due(&ada, now + minutes(13), &memory));
        memory.looked(&ada, now + minutes(13), None);
        assert!(!turns().is_due(&ada, now + minutes(14), &memory));
    }

    #[test]
    fn a_failed_look_is_tried_again_and_not_at_once() {
        let mut memory = Memory::default();
        let ada = subject("ada");
        let now = at("2026-11-20T12:00:00Z");
        memory.failed(&ada, now);

        assert!(!turns().is_due(&ada, now + minutes(29), &memory));
        assert!(turns().is_due(&ada, now + minutes(30), &memory));
    }

    #[test]
    fn after_a_cluster_was_lost_all_have_their_turn_within_a_quarter_of_an_hour() {
        for number in 0..100 {
            let lost = Subject { standing: Standing::Unknown, ..subject(&format!("a{number}")) };

            assert!(turns().is_due(&lost, at(BEGAN) + minutes(15), &Memory::default()));
        }
    }
}
