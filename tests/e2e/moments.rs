//! Moments of a backup at which something is done to it. The fault proxy, a double, holds it there: no real store can be
//! made to stop at one.

use anyhow::{Context, Result, ensure};
use faults::{Fault, FaultProxy, Objects};
use harness::bare_debian::restores;
use harness::operator::NAMESPACE;
use harness::protected::{BACKED_UP, Protected};
use harness::{Seen, Test, eventually, kind};
use serde_json::{Value, json};
use valv_crds::backup::{BackupCondition, BackupReason};

/// A moment of a backup.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// After so many objects of these, the next one has not reached the store.
    Before(Objects, usize),
    /// After so many objects of these, half of the next one has reached the store.
    Within(Objects, usize),
    /// After so many objects of these, the next one is in the store, and nobody knows.
    After(Objects, usize),
    /// What was written is being read back: nothing of it was read.
    ReadBack,
}

impl Moment {
    fn fault(self) -> Fault {
        match self {
            Self::Before(of, puts) => Fault::HeldAfter { of, puts },
            Self::Within(of, puts) => Fault::HalvedAfter { of, puts },
            Self::After(of, puts) => Fault::AnswersHeldAfter { of, puts },
            Self::ReadBack => Fault::ReadsHeldAfter { reads: 0 },
        }
    }
}

/// Asks for a backup, and waits until it is at this moment, where it stays until another fault is set. Returns its name.
pub async fn held_at(protected: &Protected<'_>, proxy: &FaultProxy, moment: Moment) -> Result<String> {
    let before = protected.commits()?;
    proxy.set(moment.fault());
    let name = protected.back_up(json!({})).await?;
    if matches!(moment, Moment::ReadBack) {
        // Others may read too: who looks after the archive.
        protected.shows(&name, "it is read back", "/attempt/reading/job", Value::is_string).await?;
    }
    eventually(format!("{name} is held at {moment:?}"), BACKED_UP, async || {
        let seen = format!("{} requests, {:?}", proxy.requests(), Objects::ALL.map(|of| proxy.puts(of)));
        Ok(Seen::when((proxy.kept() > 0).then_some(()), seen))
    })
    .await?;
    let is_committed = matches!(moment, Moment::After(Objects::Commits, _));
    ensure!(is_committed || protected.commits()? == before, "something was committed before {moment:?}");
    Ok(name)
}

/// Lets the store answer again: the backup `name` is complete, without a hand, there are so many commits, one of each
/// backup, and it can be restored without Valv.
pub async fn goes_on(
    protected: &Protected<'_>,
    proxy: &FaultProxy,
    name: &str,
    commits: usize,
) -> Result<()> {
    proxy.set(Fault::None);
    protected.says(name, BackupCondition::Complete, "True", BackupReason::Committed).await?;
    protected.says(name, BackupCondition::Intact, "True", BackupReason::AsAsked).await?;
    ensure!(protected.commits()?.len() == commits, "{:?}, not {commits}", protected.commits()?);
    let versions = protected.versions_of_commit(name).await?;
    ensure!(versions == 1, "its commit was put {versions} times");
    restores(protected, name).await
}

/// How many objects an agent puts. The last is the manifest.
pub async fn puts_of_a_backup(protected: &Protected<'_>, proxy: &FaultProxy) -> Result<usize> {
    proxy.set(Fault::None);
    protected.complete().await?;
    let all = proxy.puts(Objects::Data);
    ensure!(all > 3, "a backup is {all} puts: it has no middle");
    Ok(all)
}

/// The pod that writes a tenant's backup: its name and its UID.
pub async fn writing_pod(protected: &Protected<'_>) -> Result<(String, String)> {
    let tenant = &protected.tenant;
    eventually("an agent writes", BACKED_UP, async || {
        let pods = tenant.list(kind::POD, "valv.eu/role=backup").await?;
        Ok(Seen::when(running(&pods), format!("{} pods", pods.len())))
    })
    .await
}

/// The pod that reads a backup back: its name and its UID.
pub async fn reading_pod(test: &Test, protected: &Protected<'_>, backup: &str) -> Result<(String, String)> {
    let labels = format!("valv.eu/backup={}", protected.uid(backup).await?);
    eventually("a pod reads back", BACKED_UP, async || {
        let pods = test.world.admin.list(kind::POD, NAMESPACE, &labels).await?;
        Ok(Seen::when(running(&pods), format!("{} pods", pods.len())))
    })
    .await
    .context("nothing reads back")
}

fn running(pods: &[Value]) -> Option<(String, String)> {
    let pod = pods.iter().find(|pod| pod["status"]["phase"] == "Running")?;
    let text = |field: &str| pod["metadata"][field].as_str().map(str::to_owned);
    text("name").zip(text("uid"))
}
