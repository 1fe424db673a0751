//! What each identity must be able to do, and what it must not.
//!
//! What is forbidden is tried on objects of the probe's own, so that the worst that comes of it is one of them gone.

use bytes::Bytes;
use valv_crds::store::{Answer, Seen, SeenScope, WriterScope};

use super::{CutShort, Findings, Objects, Prober, Trouble, sweep::is_not_done, trouble::words};
use crate::{
    io::bucket::{Bucket, Error, Kind, OnExisting, Put, Version},
    store::check::Identity,
};

const FIRST: &[u8] = b"a probe of Valv: first\n";
const SECOND: &[u8] = b"a probe of Valv: second\n";

/// More than a probe puts anywhere.
const LIMIT_BYTES: u64 = 4096;

impl Prober<'_> {
    /// What nothing works without: the writer and the committer put.
    pub(super) async fn needed(&self, findings: &mut Findings) -> Result<Objects, CutShort> {
        let (data, commit) = (self.run.data("object"), self.run.commit("object"));
        let first = self.put(&self.buckets.writer, &data, FIRST, OnExisting::Replace).await;
        let first = self.must(findings, Identity::Writer, first)?;
        let second = self.put(&self.buckets.writer, &data, SECOND, OnExisting::Replace).await;
        let second = self.must(findings, Identity::Writer, second)?;
        let committed = self.committed(findings, &commit).await?;
        Ok(Objects { data, first, second, commit, committed })
    }

    /// Puts the committer's object, only if it is not there; and again, which must fail.
    async fn committed(&self, findings: &mut Findings, key: &str) -> Result<Option<Version>, CutShort> {
        let bucket = &self.buckets.committer;
        let put = self.put(bucket, key, FIRST, OnExisting::Fail).await;
        let version = match self.survive(findings, Identity::Committer, put)? {
            Ok(version) => version,
            // A retry of a put whose answer was lost.
            Err(error) if error.kind == Kind::PreconditionFailed => None,
            Err(error) if error.kind != Kind::Denied => {
                findings.capabilities.conditional_put = Some(self.seen(Answer::No, Some(words(&error))));
                let put = self.put(bucket, key, FIRST, OnExisting::Replace).await;
                return self.must(findings, Identity::Committer, put);
            }
            Err(error) => return self.must(findings, Identity::Committer, Err(error)),
        };
        let again = self.put(bucket, key, SECOND, OnExisting::Fail).await;
        findings.capabilities.conditional_put =
            Some(match self.survive(findings, Identity::Committer, again)? {
                Ok(_) => self.seen(Answer::No, Some("a second put was taken".to_owned())),
                Err(error) if error.kind == Kind::PreconditionFailed => self.seen(Answer::Yes, None),
                Err(error) => self.unknown(&error),
            });
        Ok(version)
    }

    /// What the store made of two puts of one key.
    pub(super) async fn kept(&self, findings: &mut Findings, objects: &Objects) -> Result<(), CutShort> {
        let latest = self.read(&self.buckets.reader, &objects.data, None).await;
        let latest = match self.survive(findings, Identity::Reader, latest)? {
            Err(error) if error.kind != Kind::NotFound => {
                return Err(self.stop(findings, Trouble::of(Identity::Reader, &error)));
            }
            latest => latest.unwrap_or_default(),
        };
        let fresh = latest == SECOND;
        let detail = (!fresh).then(|| format!("the reader got {} bytes of something else", latest.len()));
        findings.capabilities.read_after_write =
            Some(self.seen(if fresh { Answer::Yes } else { Answer::No }, detail));

        let seen = match (&objects.first, &objects.second) {
            (Some(first), Some(second)) if first != second => {
                let older = self.read(&self.buckets.reader, &objects.data, Some(first)).await;
                match self.survive(findings, Identity::Reader, older)? {
                    Ok(bytes) if bytes == FIRST => self.seen(Answer::Yes, None),
                    Ok(_) => self.seen(Answer::No, Some("an older version is not what was put".to_owned())),
                    Err(error) if error.kind == Kind::NotFound => self.seen(Answer::No, Some(words(&error))),
                    Err(error) if error.kind == Kind::Denied => {
                        return Err(self.stop(findings, Trouble::of(Identity::Reader, &error)));
                    }
                    Err(error) => self.unknown(&error),
                }
            }
            _ => self.seen(Answer::No, Some("the store gave no versions".to_owned())),
        };
        findings.capabilities.writer_can_overwrite = Some(match seen.answer {
            Answer::Yes => {
                self.seen(Answer::No, Some("what it puts over another is a younger version".into()))
            }
            Answer::No => self.seen(Answer::Yes, None),
            Answer::Unknown => self.seen(Answer::Unknown, None),
        });
        findings.capabilities.versioning = Some(seen);
        Ok(())
    }

    /// What must be refused.
    pub(super) async fn forbidden(&self, findings: &mut Findings, objects: &Objects) -> Result<(), CutShort> {
        let Objects { data, second, commit, committed, .. } = objects;
        let buckets = &self.buckets;
        let (writer, committer) = (&buckets.writer, &buckets.committer);
        let (reader, janitor) = (&buckets.reader, &buckets.janitor);

        let attempts = self.reading(writer, data, second.as_ref()).await;
        findings.capabilities.writer_can_read = Some(self.may(findings, Identity::Writer, attempts)?);
        let attempts = self.reading(janitor, data, second.as_ref()).await;
        findings.capabilities.janitor_can_read = Some(self.may(findings, Identity::Janitor, attempts)?);

        let attempts = vec![
            self.ask(async || writer.list_versions(super::keys::ALL).page().await.map(drop)).await,
            self.ask(async || writer.list(super::keys::ALL).page().await.map(drop)).await,
        ];
        findings.capabilities.writer_can_list = Some(self.may(findings, Identity::Writer, attempts)?);

        let mut attempts = self.deleting(writer, data, second.as_ref()).await;
        attempts.extend(self.deleting(writer, commit, committed.as_ref()).await);
        findings.capabilities.writer_can_delete = Some(self.may(findings, Identity::Writer, attempts)?);
        let mut attempts = self.deleting(committer, data, second.as_ref()).await;
        attempts.extend(self.deleting(committer, commit, committed.as_ref()).await);
        findings.capabilities.committer_can_delete =
            Some(self.may(findings, Identity::Committer, attempts)?);

        let mut attempts = vec![];
        let run = &self.run;
        for key in [run.commit("by-the-writer"), run.key("by-the-writer"), run.record("by-the-writer")] {
            attempts.push(self.put(writer, &key, FIRST, OnExisting::Replace).await.map(drop));
        }
        findings.capabilities.writer_can_commit = Some(self.may(findings, Identity::Writer, attempts)?);
        let attempt = self.put(committer, &run.data("by-the-committer"), FIRST, OnExisting::Replace).await;
        findings.capabilities.committer_can_write_data =
            Some(self.may(findings, Identity::Committer, vec![attempt.map(drop)])?);

        let mut attempts = vec![];
        for key in [self.run.data("by-the-reader"), self.run.commit("by-the-reader")] {
            attempts.push(self.put(reader, &key, FIRST, OnExisting::Replace).await.map(drop));
        }
        attempts.extend(self.deleting(reader, data, second.as_ref()).await);
        findings.capabilities.reader_can_write = Some(self.may(findings, Identity::Reader, attempts)?);
        Ok(())
    }

    /// Whether the writer may write in any archive.
    pub(super) async fn scope(&self, findings: &mut Findings) -> Result<(), CutShort> {
        let key = self.run.scope("object");
        let put = self.put(&self.buckets.writer, &key, FIRST, OnExisting::Replace).await;
        let scope = match self.survive(findings, Identity::Writer, put)? {
            Ok(_) => Some(WriterScope::Shared),
            Err(error) if error.kind == Kind::Denied => Some(WriterScope::PerTenant),
            Err(_) => None,
        };
        findings.capabilities.writer_scope = scope.map(|scope| SeenScope { scope, at: self.at() });
        Ok(())
    }

    /// The janitor deletes what nothing keeps: without that a refused deletion would prove no lock.
    pub(super) async fn deleted(&self, findings: &mut Findings, objects: &Objects) -> Result<(), CutShort> {
        let Objects { data, first, .. } = objects;
        let deleted = self.ask(|| self.buckets.janitor.delete(data, first.as_ref())).await;
        match self.survive(findings, Identity::Janitor, deleted)? {
            // A bucket that locks all it takes lets nobody try.
            Ok(()) | Err(Error { kind: Kind::NotFound | Kind::Locked, .. }) => Ok(()),
            Err(error) => Err(self.stop(findings, Trouble::of(Identity::Janitor, &error))),
        }
    }

    /// Whether the janitor, who deletes versions, also lays delete markers over what is there. Where there are no versions
    /// that is how it deletes, and nothing is tried. A marker of the probe's own goes with the rest of what it put.
    pub(super) async fn hidden(&self, findings: &mut Findings, objects: &Objects) -> Result<(), CutShort> {
        let versioning = findings.capabilities.versioning.as_ref().map(|seen| seen.answer);
        findings.capabilities.janitor_can_hide = match versioning {
            Some(Answer::Yes) => {
                let hidden = self.ask(|| self.buckets.janitor.delete(&objects.data, None)).await;
                Some(match self.survive(findings, Identity::Janitor, hidden)? {
                    // The bucket's own lock keeps what it should: then nobody hides it.
                    Err(error) if error.kind == Kind::Locked => self.seen(Answer::No, Some(words(&error))),
                    hidden => self.may(findings, Identity::Janitor, vec![hidden])?,
                })
            }
            Some(Answer::Unknown) => Some(self.seen(Answer::Unknown, None)),
            Some(Answer::No) | None => None,
        };
        Ok(())
    }

    /// What `who` must be able to do.
    fn must<T>(
        &self,
        findings: &mut Findings,
        who: Identity,
        answer: Result<T, Error>,
    ) -> Result<T, CutShort> {
        answer.map_err(|error| self.stop(findings, Trouble::of(who, &error)))
    }

    /// Whether any of `attempts` succeeded: `Yes`; whether all were refused: `No`.
    fn may(
        &self,
        findings: &mut Findings,
        who: Identity,
        attempts: Vec<Result<(), Error>>,
    ) -> Result<Seen, CutShort> {
        let mut refusals = vec![];
        let mut unknown = None;
        for attempt in attempts {
            match self.survive(findings, who, attempt)? {
                Ok(()) => return Ok(self.seen(Answer::Yes, None)),
                Err(error) => match answer_of(&error) {
                    Answer::No => refusals.push(error),
                    Answer::Yes | Answer::Unknown => unknown = Some(error),
                },
            }
        }
        Ok(match unknown {
            Some(error) => self.unknown(&error),
            None => {
                self.seen(Answer::No, refusals.first().and_then(Error::reply).map(|reply| reply.code.clone()))
            }
        })
    }

    async fn put(
        &self,
        bucket: &Bucket,
        key: &str,
        bytes: &'static [u8],
        on_existing: OnExisting,
    ) -> Result<Option<Version>, Error> {
        let how = Put { on_existing, ..Put::default() };
        self.ask(|| bucket.put(key, Bytes::from_static(bytes), &how)).await
    }

    async fn read(&self, bucket: &Bucket, key: &str, version: Option<&Version>) -> Result<Vec<u8>, Error> {
        self.ask(async || bucket.get(key, version).await?.whole(LIMIT_BYTES).await).await
    }

    async fn reading(&self, who: &Bucket, key: &str, version: Option<&Version>) -> Vec<Result<(), Error>> {
        let mut attempts = vec![self.read(who, key, None).await.map(drop)];
        if version.is_some() {
            attempts.push(self.read(who, key, version).await.map(drop));
        }
        attempts
    }

    async fn deleting(&self, who: &Bucket, key: &str, version: Option<&Version>) -> Vec<Result<(), Error>> {
        let mut attempts = vec![self.ask(|| who.delete(key, None)).await];
        if version.is_some() {
            attempts.push(self.ask(|| who.delete(key, version)).await);
        }
        attempts
    }
}

/// Whether an attempt at something forbidden that failed so was refused.
fn answer_of(error: &Error) -> Answer {
    if error.kind == Kind::Denied || is_not_done(error) { Answer::No } else { Answer::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::bucket::Operation;

    #[test]
    fn only_a_refusal_says_no() {
        let of = |kind| answer_of(&Error::for_tests(Operation::Get, kind));

        assert_eq!(of(Kind::Denied), Answer::No);
        assert_eq!(of(Kind::Other { status: 501, code: "NotImplemented".into() }), Answer::No);
        for kind in [Kind::NotFound, Kind::Full, Kind::Other { status: 400, code: "Odd".into() }] {
            assert_eq!(of(kind), Answer::Unknown);
        }
    }
}
