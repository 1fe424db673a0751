//! What a lock is worth: an object is locked for minutes, and then whoever could be told to is told to break it.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use valv_crds::store::{Answer, Seen};

use super::{CutShort, Findings, Prober, Trouble, trouble::words};
use crate::{
    io::bucket::{Bypass, Error, Kind, LockMode, Meta, ObjectLock, Put, Version},
    store::check::Identity,
};

/// How long the probe's object is locked. Clocks that differ by more than 15 minutes are refused anyway, so that it is
/// locked by the store's clock too.
const LOCK: Duration = Duration::from_secs(20 * 60);

/// How long once the lock was extended. Shorter than what an hour later is taken away.
const EXTENDED: Duration = Duration::from_secs(30 * 60);

/// The lock that breaking it should leave.
const SHORTENED: Duration = Duration::from_secs(16 * 60);

/// A locked object.
struct Locked {
    key: String,
    version: Version,
    mode: LockMode,
    now: Timestamp,
}

impl Prober<'_> {
    /// Tries the lock that the spec claims. Where none is claimed none is tried: what is locked cannot be taken away.
    pub(super) async fn locked(&self, findings: &mut Findings) -> Result<(), CutShort> {
        let Some(mode) = self.store.claimed_mode() else { return self.unclaimed(findings).await };
        // That it says so proves no lock; that it says otherwise proves that there is none.
        let said = self.ask(|| self.buckets.reader.object_lock()).await;
        if let Ok(ObjectLock::Off) = self.survive(findings, Identity::Reader, said)? {
            return self.none(findings, "the bucket has no object lock".to_owned());
        }
        let (key, now) = (self.run.data("locked"), (self.now)());
        let how = Put { retain_until: Some(now + LOCK), lock_mode: mode, ..Put::default() };
        let put = self
            .ask(|| self.buckets.writer.put(&key, Bytes::from_static(b"a probe of Valv: locked\n"), &how))
            .await;
        let version = match self.survive(findings, Identity::Writer, put)? {
            Ok(Some(version)) => version,
            Ok(None) => return self.none(findings, "the locked object has no version".to_owned()),
            Err(error) if error.kind == Kind::Denied => {
                return Err(self.stop(findings, Trouble::of(Identity::Writer, &error)));
            }
            Err(error) => return self.none(findings, words(&error)),
        };
        let locked = Locked { key, version, mode, now };
        let deletion = self.deletion(findings, &locked).await?;
        let stands = deletion.answer == Answer::Yes;
        findings.capabilities.lock_refuses_deletion = Some(deletion);
        if stands {
            findings.capabilities.lock_extends = Some(self.extension(findings, &locked).await?);
            findings.capabilities.lock_refuses_shortening = Some(self.shortening(findings, &locked).await?);
        }
        Ok(())
    }

    /// What the bucket says of a lock that nobody claims.
    async fn unclaimed(&self, findings: &mut Findings) -> Result<(), CutShort> {
        let said = self.ask(|| self.buckets.reader.object_lock()).await;
        let said = self.survive(findings, Identity::Reader, said)?;
        findings.capabilities.lock_refuses_deletion = match said {
            Ok(ObjectLock::Off) => Some(self.seen(Answer::No, Some("the bucket has no object lock".into()))),
            Ok(ObjectLock::Enabled { .. }) => {
                let detail = "the bucket has object lock; spec.objectLock claims none, so none was tried";
                Some(self.seen(Answer::Unknown, Some(detail.into())))
            }
            Err(_) => None,
        };
        Ok(())
    }

    /// There is no lock.
    fn none(&self, findings: &mut Findings, why: String) -> Result<(), CutShort> {
        findings.capabilities.lock_refuses_deletion = Some(self.seen(Answer::No, Some(why)));
        Ok(())
    }

    /// Whether the janitor, who deletes what is not locked, is refused; by what became of it, not by what was answered.
    async fn deletion(&self, findings: &mut Findings, locked: &Locked) -> Result<Seen, CutShort> {
        let mut answered = None;
        for bypass in bypasses(locked.mode) {
            let deleted = self
                .ask(|| self.buckets.janitor.delete_with(&locked.key, Some(&locked.version), bypass))
                .await;
            answered = self.survive(findings, Identity::Janitor, deleted)?.err();
            match self.look_at(findings, locked).await? {
                Ok(_) => {}
                Err(error) if error.kind == Kind::NotFound => {
                    let detail = match bypass {
                        Bypass::Never => "the janitor deleted a locked version",
                        Bypass::IfAllowed => "the janitor may bypass the lock, and did",
                    };
                    return Ok(self.seen(Answer::No, Some(detail.to_owned())));
                }
                Err(error) => return Ok(self.unknown(&error)),
            }
        }
        Ok(self.seen(Answer::Yes, answered.map(|error| words(&error))))
    }

    /// Whether the committer can make it longer.
    async fn extension(&self, findings: &mut Findings, locked: &Locked) -> Result<Seen, CutShort> {
        let until = locked.now + EXTENDED;
        let extended = self
            .ask(|| {
                let (version, mode) = (Some(&locked.version), locked.mode);
                self.buckets.committer.retain_with(&locked.key, version, until, mode, Bypass::Never)
            })
            .await;
        if let Err(error) = self.survive(findings, Identity::Committer, extended)? {
            return Ok(self.seen(Answer::No, Some(words(&error))));
        }
        Ok(match self.look_at(findings, locked).await? {
            Ok(Meta { retained_until: Some(is), .. }) if is.as_second() < until.as_second() => {
                self.seen(Answer::No, Some(format!("it was said to be extended to {until}, and ends {is}")))
            }
            Ok(_) => self.seen(Answer::Yes, None),
            Err(error) => self.unknown(&error),
        })
    }

    /// Whether nobody can make it shorter, and it is of the mode that was asked for.
    async fn shortening(&self, findings: &mut Findings, locked: &Locked) -> Result<Seen, CutShort> {
        let mut refused = None;
        for who in [Identity::Committer, Identity::Writer] {
            for bypass in bypasses(locked.mode) {
                let shortened = self
                    .ask(|| {
                        let (version, until) = (Some(&locked.version), locked.now + SHORTENED);
                        self.buckets.of(who).retain_with(&locked.key, version, until, locked.mode, bypass)
                    })
                    .await;
                refused = self.survive(findings, who, shortened)?.err().or(refused);
                match self.look_at(findings, locked).await? {
                    Ok(Meta { lock_mode: Some(mode), .. }) if mode != locked.mode => {
                        return Ok(self.seen(Answer::No, Some(format!("the mode of the lock is {mode:?}"))));
                    }
                    Ok(Meta { retained_until: Some(is), .. })
                        if is.as_second() < (locked.now + LOCK).as_second() =>
                    {
                        return Ok(self.seen(Answer::No, Some(format!("the {who} shortened it to {is}"))));
                    }
                    Ok(Meta { retained_until: None, .. }) if refused.is_none() => {
                        let detail = "no refusal, and the reader may not see the lock";
                        return Ok(self.seen(Answer::Unknown, Some(detail.to_owned())));
                    }
                    Ok(_) => {}
                    Err(error) => return Ok(self.unknown(&error)),
                }
            }
        }
        Ok(self.seen(Answer::Yes, refused.map(|error| words(&error))))
    }

    async fn look_at(
        &self,
        findings: &mut Findings,
        locked: &Locked,
    ) -> Result<Result<Meta, Error>, CutShort> {
        let looked = self.ask(|| self.buckets.reader.head(&locked.key, Some(&locked.version))).await;
        self.survive(findings, Identity::Reader, looked)
    }
}

/// A lock that some may lift is also tried by saying so.
fn bypasses(mode: LockMode) -> impl Iterator<Item = Bypass> {
    let bypass = (mode == LockMode::Governance).then_some(Bypass::IfAllowed);
    [Bypass::Never].into_iter().chain(bypass)
}
