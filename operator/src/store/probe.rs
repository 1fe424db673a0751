//! Finds out what a store can do, by doing it: with small objects that are nobody's, as each of the four identities.
//!
//! Input: the store, four credentials, the clock. Output: [`Findings`]. A failure to find out is `Unknown`, never
//! `No`. What it puts it takes away again; what a lock of its own keeps goes with a later probe.
//!
//! | to find | open |
//! |---|---|
//! | where it puts things | `probe/keys.rs` |
//! | what a failure means | `probe/trouble.rs` |
//! | what each identity must and must not | `probe/rights.rs` |
//! | what a lock is worth | `probe/lock.rs` |
//! | what is taken away | `probe/sweep.rs` |

mod keys;
mod lock;
mod rights;
mod sweep;
mod trouble;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::{sleep, timeout};
use valv_crds::store::{Answer, Capabilities, Seen, SeenCertificate, SeenSkew};

use self::keys::Run;
pub use self::trouble::Trouble;
use super::{
    breakers::Breakers,
    check::{Identities, Identity, Store},
};
use crate::io::bucket::{
    Addressing, Bucket, Credentials, Error, Settings, Version,
    greeting::{GreetingError, greet},
};

/// No probe takes longer: some thirty requests, each of which has its own limit.
const LIMIT: Duration = Duration::from_secs(300);

/// A request that failed on the way is tried again so often at most, whatever the spec allows backups.
const RETRIES: u32 = 3;

/// The wait before the first retry; it doubles.
const PAUSE: Duration = Duration::from_millis(250);

/// The API takes no longer detail.
const DETAIL_CHARACTERS: usize = 500;

/// What a probe saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// What the store was seen to do.
    pub capabilities: Capabilities,
    /// What stood in the way.
    pub troubles: Vec<Trouble>,
    /// Whether it came to its end.
    pub extent: Extent,
}

/// How far a probe came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// Not to its end: the store failed under way.
    #[default]
    CutShort,
    /// To its end.
    Whole,
}

/// The store failed, or refused what nothing can be found out without: the trouble is noted, and nothing more is asked.
#[derive(Debug)]
struct CutShort;

/// The objects that the probe put.
#[derive(Debug)]
struct Objects {
    /// Of the writer.
    data: String,
    /// Its first version, where there are versions.
    first: Option<Version>,
    /// Its second.
    second: Option<Version>,
    /// Of the committer.
    commit: String,
    /// Its version.
    committed: Option<Version>,
}

/// One probe.
struct Prober<'a> {
    store: &'a Store,
    settings: Settings,
    buckets: Identities<Bucket>,
    breakers: &'a Breakers,
    now: fn() -> Timestamp,
    run: Run,
}

/// Probes `store`. Always ends, within minutes at the worst.
pub async fn probe(
    store: &Store,
    credentials: &Identities<Credentials>,
    breakers: &Breakers,
    now: fn() -> Timestamp,
) -> Findings {
    let mut findings = Findings::default();
    let opened =
        Identities::try_from_fn(|identity| Bucket::open(&store.settings(credentials.of(identity).clone())));
    let buckets = match opened {
        Ok(buckets) => buckets,
        Err(error) => {
            findings.troubles.push(Trouble::of_settings(&error));
            return findings;
        }
    };
    let run = Run::new(now(), rand::random());
    let settings = store.settings(credentials.reader.clone());
    let prober = Prober { store, settings, buckets, breakers, now, run };
    if timeout(LIMIT, prober.go(&mut findings)).await.is_err() {
        findings.troubles.push(Trouble::too_long(LIMIT));
        findings.extent = Extent::CutShort;
    }
    findings
}

impl Prober<'_> {
    async fn go(&self, findings: &mut Findings) {
        if self.enter(findings).await.is_err() {
            return;
        }
        let ended = self.look(findings).await;
        let swept = self.sweep_own(findings).await;
        if ended.is_ok() && swept.is_ok() {
            findings.extent = Extent::Whole;
        }
    }

    /// The way in: a connection, a certificate, a bucket. Takes away what earlier probes left.
    async fn enter(&self, findings: &mut Findings) -> Result<(), CutShort> {
        self.hear(findings).await?;
        let listed = self.ask(|| self.listing(&self.buckets.reader, keys::ALL)).await;
        let style = match self.settings.addressing {
            Addressing::Path => Some(Answer::Yes),
            Addressing::VirtualHost => None,
        };
        let left = match listed {
            Ok(left) => left,
            Err(error) => {
                let differs = self.other_addressing_works(&error).await;
                findings.capabilities.path_style = differs.then(|| {
                    let path = self.settings.addressing == Addressing::VirtualHost;
                    self.seen(if path { Answer::Yes } else { Answer::No }, None)
                });
                let trouble =
                    if differs { Trouble::addressing() } else { Trouble::of(Identity::Reader, &error) };
                return Err(self.stop(findings, trouble));
            }
        };
        findings.capabilities.path_style = Some(match style {
            Some(answer) => self.seen(answer, None),
            None => self.path_style().await,
        });
        self.sweep_old(&left).await;
        Ok(())
    }

    /// Everything behind the door.
    async fn look(&self, findings: &mut Findings) -> Result<(), CutShort> {
        let objects = self.needed(findings).await?;
        self.kept(findings, &objects).await?;
        self.forbidden(findings, &objects).await?;
        self.scope(findings).await?;
        self.deleted(findings, &objects).await?;
        self.hidden(findings, &objects).await?;
        self.locked(findings).await
    }

    /// Listens to what it says before it knows who asks.
    async fn hear(&self, findings: &mut Findings) -> Result<(), CutShort> {
        let heard = greet(&self.settings).await;
        let now = (self.now)();
        let capabilities = &mut findings.capabilities;
        match heard {
            Ok(heard) => {
                self.breakers.answered(&self.store.name, now);
                capabilities.reachable = Some(self.seen(Answer::Yes, None));
                capabilities.tls = Some(match &heard.certificate {
                    Some(certificate) => self.seen(Answer::Yes, Some(certificate.protocol.clone())),
                    None => self.seen(Answer::No, Some("it is asked by plain HTTP".to_owned())),
                });
                capabilities.certificate = heard.certificate.map(|certificate| SeenCertificate {
                    not_after: Time(certificate.not_after),
                    at: self.at(),
                });
                let ahead = heard.date.map(|date| date.as_second() - now.as_second());
                capabilities.clock_skew = ahead.map(|seconds| SeenSkew { seconds, at: self.at() });
                Ok(())
            }
            Err(error) => {
                self.breakers.failed(&self.store.name, now);
                let detail = Some(crate::error::chain(&error));
                if matches!(error, GreetingError::Tls { .. }) {
                    capabilities.reachable = Some(self.seen(Answer::Yes, None));
                    capabilities.tls = Some(self.seen(Answer::No, detail));
                } else {
                    capabilities.reachable = Some(self.seen(Answer::No, detail));
                }
                Err(self.stop(findings, Trouble::of_greeting(&error)))
            }
        }
    }

    /// Whether the bucket's name in the path would do too.
    async fn path_style(&self) -> Seen {
        match self.in_the_other_place().await {
            Some(Ok(())) => self.seen(Answer::Yes, None),
            Some(Err(error)) if error.is_of_the_store() => self.unknown(&error),
            Some(Err(error)) => self.seen(Answer::No, Some(trouble::words(&error))),
            None => self.seen(Answer::Unknown, None),
        }
    }

    /// Whether what failed as `error` works with the bucket's name in the other place.
    async fn other_addressing_works(&self, error: &Error) -> bool {
        trouble::may_be_the_address(error) && matches!(self.in_the_other_place().await, Some(Ok(())))
    }

    async fn in_the_other_place(&self) -> Option<Result<(), Error>> {
        let addressing = match self.settings.addressing {
            Addressing::Path => Addressing::VirtualHost,
            Addressing::VirtualHost => Addressing::Path,
        };
        let bucket = Bucket::open(&Settings { addressing, ..self.settings.clone() }).ok()?;
        Some(self.listing(&bucket, keys::ALL).await.map(drop))
    }

    /// Asks, and asks again where the store itself failed.
    async fn ask<T, F>(&self, request: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let most = u32::try_from(self.store.retry.per_request).unwrap_or_default().min(RETRIES);
        let mut retries = 0;
        loop {
            let answer = request().await;
            self.breakers.note(&self.store.name, &answer, (self.now)());
            match answer {
                Err(error) if error.can_retry() && retries < most => {
                    sleep(PAUSE.saturating_mul(1 << retries)).await;
                    retries += 1;
                }
                answer => return answer,
            }
        }
    }

    /// Notes `trouble`, and ends the probe.
    fn stop(&self, findings: &mut Findings, trouble: Trouble) -> CutShort {
        findings.troubles.push(trouble);
        CutShort
    }

    /// Ends the probe if the store itself failed; what it refused is an answer.
    fn survive<T>(
        &self,
        findings: &mut Findings,
        who: Identity,
        answer: Result<T, Error>,
    ) -> Result<Result<T, Error>, CutShort> {
        match answer {
            Err(error) if error.is_of_the_store() => Err(self.stop(findings, Trouble::of(who, &error))),
            answer => Ok(answer),
        }
    }

    fn seen(&self, answer: Answer, detail: Option<String>) -> Seen {
        let detail = detail.map(|detail| detail.chars().take(DETAIL_CHARACTERS).collect());
        Seen { answer, at: self.at(), detail }
    }

    fn unknown(&self, error: &Error) -> Seen {
        self.seen(Answer::Unknown, Some(trouble::words(error)))
    }

    /// Now, as the API stores it: to the second.
    fn at(&self) -> Time {
        let now = (self.now)();
        Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
    }
}

impl Findings {
    /// These, and where they know nothing what `earlier` knew: a store that fails now did not forget what it can.
    pub fn or_earlier(mut self, earlier: &Capabilities) -> Self {
        let now = &mut self.capabilities;
        let pairs = [
            (&mut now.path_style, &earlier.path_style),
            (&mut now.conditional_put, &earlier.conditional_put),
            (&mut now.versioning, &earlier.versioning),
            (&mut now.lock_refuses_deletion, &earlier.lock_refuses_deletion),
            (&mut now.lock_refuses_shortening, &earlier.lock_refuses_shortening),
            (&mut now.lock_extends, &earlier.lock_extends),
            (&mut now.writer_can_read, &earlier.writer_can_read),
            (&mut now.writer_can_list, &earlier.writer_can_list),
            (&mut now.writer_can_delete, &earlier.writer_can_delete),
            (&mut now.writer_can_overwrite, &earlier.writer_can_overwrite),
            (&mut now.writer_can_commit, &earlier.writer_can_commit),
            (&mut now.committer_can_write_data, &earlier.committer_can_write_data),
            (&mut now.committer_can_delete, &earlier.committer_can_delete),
            (&mut now.reader_can_write, &earlier.reader_can_write),
            (&mut now.janitor_can_read, &earlier.janitor_can_read),
            (&mut now.janitor_can_hide, &earlier.janitor_can_hide),
            (&mut now.read_after_write, &earlier.read_after_write),
        ];
        for (seen, before) in pairs {
            if seen.as_ref().is_none_or(|seen| seen.answer == Answer::Unknown)
                && before.as_ref().is_some_and(|before| before.answer != Answer::Unknown)
            {
                seen.clone_from(before);
            }
        }
        now.certificate = now.certificate.take().or_else(|| earlier.certificate.clone());
        now.writer_scope = now.writer_scope.take().or_else(|| earlier.writer_scope.clone());
        now.clock_skew = now.clock_skew.take().or_else(|| earlier.clock_skew.clone());
        self
    }
}

#[cfg(test)]
mod tests {
    use valv_crds::store::{StoreCondition, StoreReason};

    use super::*;
    use crate::{
        fake_store::{FakeStore, Flaw},
        store::judge::{Known, judge, tests::ground},
    };

    fn seen(answer: Answer, second: i64) -> Seen {
        Seen { answer, at: Time(Timestamp::from_second(second).unwrap()), detail: None }
    }

    fn noon() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    /// What a probe sees of a store with that flaw. It refuses nobody, so only what is of locks and reads is of interest.
    async fn seen_of(flaw: Flaw) -> (Capabilities, Store) {
        let fake = FakeStore::start(noon).await;
        fake.have(flaw);
        let store = fake.store("helsinki");
        let four = Identities::try_from_fn(|identity| {
            let access_key_id = identity.to_string();
            Ok::<_, ()>(Credentials { access_key_id, secret_access_key: "s".to_owned().into() })
        });

        let findings = probe(&store, &four.unwrap(), &Breakers::default(), noon).await;

        assert_eq!((findings.troubles.as_slice(), findings.extent), (&[][..], Extent::Whole), "{flaw:?}");
        (findings.capabilities, store)
    }

    #[tokio::test]
    async fn a_lock_that_does_not_do_what_it_says_is_found_out_by_what_became_of_it() {
        use StoreReason as R;
        type Of = fn(&Capabilities) -> &Option<Seen>;
        let deletion: Of = |can| &can.lock_refuses_deletion;
        let shortening: Of = |can| &can.lock_refuses_shortening;
        let extension: Of = |can| &can.lock_extends;
        let (sound, _) = seen_of(Flaw::Sound).await;
        for of in [deletion, shortening, extension] {
            assert_eq!(of(&sound).as_ref().unwrap().answer, Answer::Yes, "{sound:#?}");
        }

        for (flaw, of, reason, words) in [
            (Flaw::LocksNothing, deletion, R::LockMissing, "the janitor deleted a locked version"),
            (Flaw::Shortens, shortening, R::LockWeak, "the committer shortened it"),
            (Flaw::GovernsAll, shortening, R::LockWeak, "the mode of the lock is Governance"),
            (Flaw::NeverExtends, extension, R::LockNotExtendable, "it was said to be extended"),
        ] {
            let (can, store) = seen_of(flaw).await;

            let seen = of(&can).clone().unwrap();
            assert_eq!(seen.answer, Answer::No, "{flaw:?}: {can:#?}");
            assert!(seen.detail.as_ref().unwrap().contains(words), "{flaw:?}: {seen:?}");
            let findings = Findings { capabilities: can, troubles: vec![], extent: Extent::Whole };
            let known = Known { findings: Some(findings), last_whole: Some(noon()) };
            let sayings = judge(&store, &known, &ground(), noon());
            let said = sayings.iter().find(|saying| saying.kind == StoreCondition::CapabilitiesProven);
            assert_eq!(said.unwrap().reason, reason, "{flaw:?}: {said:?}");
        }
    }

    #[tokio::test]
    async fn a_store_that_shows_what_was_there_before_is_found_out() {
        let (sound, _) = seen_of(Flaw::Sound).await;
        let (stale, _) = seen_of(Flaw::Stale).await;

        assert_eq!(sound.read_after_write.unwrap().answer, Answer::Yes);
        let seen = stale.read_after_write.unwrap();
        assert_eq!(seen.answer, Answer::No);
        assert!(seen.detail.unwrap().contains("something else"));
    }

    #[test]
    fn what_a_probe_could_not_find_out_stays_as_it_was_seen_before_with_its_time() {
        let earlier = Capabilities {
            versioning: Some(seen(Answer::Yes, 1)),
            writer_can_delete: Some(seen(Answer::No, 1)),
            reachable: Some(seen(Answer::Yes, 1)),
            ..Capabilities::default()
        };
        let findings = Findings {
            capabilities: Capabilities {
                versioning: Some(seen(Answer::Unknown, 2)),
                writer_can_delete: Some(seen(Answer::Yes, 2)),
                ..Capabilities::default()
            },
            ..Findings::default()
        };

        let merged = findings.or_earlier(&earlier).capabilities;

        assert_eq!(merged.versioning, earlier.versioning);
        assert_eq!(merged.writer_can_delete, Some(seen(Answer::Yes, 2)));
        assert_eq!(merged.reachable, None, "whether it answers is a question of now");
    }
}
