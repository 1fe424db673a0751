//! Takes away what probes put. Only what [`keys`](super::keys) recognises is ever touched.

use super::{CutShort, Findings, Prober, Trouble, keys};
use crate::{
    io::bucket::{Bucket, Error, Kind, Version},
    store::check::Identity,
};

/// So much of what earlier probes left is taken away in one go. A probe leaves one object at most, as a rule.
const MOST: usize = 200;

/// One version of an object of a probe.
#[derive(Clone, Debug)]
pub(super) struct Left {
    key: String,
    version: Option<Version>,
}

impl Prober<'_> {
    /// What lies below `prefix`: its first page is all that is needed.
    pub(super) async fn listing(&self, bucket: &Bucket, prefix: &str) -> Result<Vec<Left>, Error> {
        match bucket.list_versions(prefix).page().await {
            Ok(page) => {
                let versions = page.unwrap_or_default().into_iter();
                Ok(versions.map(|listed| Left { key: listed.key, version: listed.version }).collect())
            }
            // Some stores have no versions, nor a list of them.
            Err(error) if is_not_done(&error) => {
                let keys = bucket.list(prefix).page().await?.unwrap_or_default().into_iter();
                Ok(keys.map(|listed| Left { key: listed.key, version: None }).collect())
            }
            Err(error) => Err(error),
        }
    }

    /// Takes away what earlier probes left, whose locks have ended by now. What stays goes with the next.
    pub(super) async fn sweep_old(&self, left: &[Left]) {
        let now = (self.now)();
        for left in left.iter().filter(|left| keys::is_old(&left.key, now)).take(MOST) {
            let deleted = self.delete(left).await;
            // A bucket's own lock may keep it for long.
            if deleted.is_err_and(|error| error.kind != Kind::Locked && error.kind != Kind::Denied) {
                return;
            }
        }
    }

    /// Takes away what this probe put, but for what its lock keeps.
    pub(super) async fn sweep_own(&self, findings: &mut Findings) -> Result<(), CutShort> {
        for folder in self.run.folders() {
            let listed = self.ask(|| self.listing(&self.buckets.janitor, &folder)).await;
            let listed = match self.survive(findings, Identity::Janitor, listed)? {
                Ok(listed) => listed,
                Err(error) => return Err(self.stop(findings, Trouble::of(Identity::Janitor, &error))),
            };
            for left in listed.iter().filter(|left| self.run.owns(&left.key)) {
                let deleted = self.delete(left).await;
                // What it may not is told where its rights are tried; here a lock keeps what it should.
                let _ = self.survive(findings, Identity::Janitor, deleted)?;
            }
        }
        Ok(())
    }

    async fn delete(&self, left: &Left) -> Result<(), Error> {
        self.ask(|| self.buckets.janitor.delete(&left.key, left.version.as_ref())).await
    }
}

/// Whether the store does not do this at all.
pub(super) fn is_not_done(error: &Error) -> bool {
    matches!(&error.kind, Kind::Other { status: 405 | 501, .. })
        || error.reply().is_some_and(|reply| reply.status == 501)
}
