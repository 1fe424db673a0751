//! What a store or the way to it can do to a backup: delay it, or end it with a reason. Never is something complete
//! that is not, and the next run succeeds without a hand.
//!
//! The fault proxy stands between pods and the real store; it is a double, for faults of networks, that no real one can
//! be made to show. Keys are really revoked, and a disk is really full: at a bucket of the test's own.

use anyhow::{Context, Result, ensure};
use faults::{Fault, FaultProxy, Objects};
use futures::future::try_join_all;
use harness::bare_debian::restores;
use harness::manifest::merge;
use harness::protected::{BACKED_UP, Protected, Wanted};
use harness::store::stores;
use harness::{Seen, Test, eventually, proxy, run};
use serde_json::{Value, json};
use valv_cluster::{Identity, Validity};
use valv_crds::backup::{BackupCondition, BackupReason};
use valv_crds::store::{StoreCondition, StoreReason};

use crate::moments::{Moment, goes_on, held_at};

/// Patience for tests: seconds instead of minutes.
pub fn hurried(proxy: &FaultProxy, tries: u32) -> Value {
    json!({
        "endpoint": proxy.endpoint(),
        "timeouts": { "connect": "2s", "attempt": "10s", "stall": "5s" },
        "retry": { "perRequest": tries, "perRun": 20 },
    })
}

/// A tenant whose way to Helsinki is the double's: it retries each request so often, and a backup so often.
pub async fn bring<'a>(
    test: &'a Test,
    tries: u32,
    retries: u32,
) -> Result<Option<(Protected<'a>, FaultProxy)>> {
    bring_with(test, tries, retries, Wanted::default()).await
}

/// As [`bring`], of which something else is wanted too.
pub async fn bring_with<'a>(
    test: &'a Test,
    tries: u32,
    retries: u32,
    wanted: Wanted,
) -> Result<Option<(Protected<'a>, FaultProxy)>> {
    let Some([helsinki, _]) = stores(test)? else { return Ok(None) };
    let cluster = test.world.local().context("the stores are the local cluster's")?;
    let proxy = proxy::before(cluster, &helsinki)?;
    let wanted = Wanted { store: hurried(&proxy, tries), policy: json!({ "retries": retries }), ..wanted };
    let protected = Protected::bring(test, wanted).await?.context("the store is there")?;
    protected.tenant.up().await?;
    let journal = protected.tenant.journal().await?;
    journal.write("Patienten mår bra i dag").await?;
    journal.attach("remiss.pdf", &[7; 300_000]).await?;
    Ok(Some((protected, proxy)))
}

#[test]
fn a_store_that_is_busy_or_whose_answers_are_lost_only_delays_a_backup() {
    run(async |test| {
        // As often as by default: of requests side by side, the same one can be the third several times in a row.
        let Some((protected, proxy)) = bring(test, 5, 0).await? else { return Ok(()) };

        for fault in [Fault::BusyEveryThird, Fault::AnswerLostEveryThird] {
            proxy.set(fault);
            let name = protected.complete().await.with_context(|| format!("{fault:?}"))?;
            let intact = protected
                .says(&name, BackupCondition::Intact, "True", BackupReason::AsAsked)
                .await
                .with_context(|| format!("{fault:?}"))?;
            ensure!(proxy.puts(Objects::Data) >= 3, "no third object was put through the double: {intact}");
            restores(&protected, &name).await.with_context(|| format!("{fault:?}"))?;
        }

        test.measured("503 to every third request, and every third answer lost: both complete");
        Ok(())
    });
}

#[test]
fn a_store_that_is_gone_in_the_middle_ends_a_backup_with_its_reason_and_the_next_one_is_complete() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 2, 0).await? else { return Ok(()) };

        let name = held_at(&protected, &proxy, Moment::Before(Objects::Data, 1)).await?;
        proxy.set(Fault::Unreachable);
        let reason = BackupReason::StoreUnavailable;
        let said = protected.says(&name, BackupCondition::Stalled, "True", reason).await?;

        is_mended(&protected, &proxy, 0).await?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn a_store_that_is_slow_for_long_ends_a_backup_with_its_reason_and_the_next_one_is_complete() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 2, 0).await? else { return Ok(()) };

        proxy.set(Fault::Slow { bytes_per_second: 8 * 1024 });
        let name = protected.back_up(json!({})).await?;
        let reason = BackupReason::StoreUnavailable;
        let said = protected.says(&name, BackupCondition::Stalled, "True", reason).await?;

        is_mended(&protected, &proxy, 0).await?;
        test.measured(said);
        Ok(())
    });
}

/// Nothing more than so many was committed, and the next backup is complete, and can be restored without Valv.
async fn is_mended(protected: &Protected<'_>, proxy: &FaultProxy, commits: usize) -> Result<()> {
    ensure!(protected.commits()?.len() == commits, "something was committed: {:?}", protected.commits()?);
    proxy.set(Fault::None);
    let next = protected.complete().await.context("the next one")?;
    ensure!(
        protected.commits()?.len() == commits + 1,
        "{next} is not one commit: {:?}",
        protected.commits()?
    );
    restores(protected, &next).await
}

#[test]
fn keys_that_are_revoked_in_the_middle_are_told_and_when_they_are_valid_again_all_goes_on() {
    run(async |test| {
        let wanted = Wanted { own_bucket: true, ..Wanted::default() };
        let Some((protected, proxy)) = bring_with(test, 2, 0, wanted).await? else { return Ok(()) };
        let own = protected.store().own_bucket.as_ref().context("it has a bucket of its own")?;
        let refused = BackupReason::CredentialsRefused;

        // Agents' keys: the run ends, for no other comes with these keys.
        let moments =
            [(Identity::Writer, Moment::Before(Objects::Data, 1)), (Identity::Reader, Moment::ReadBack)];
        for (commits, (identity, moment)) in moments.into_iter().enumerate() {
            let name = held_at(&protected, &proxy, moment).await?;
            own.revoke(identity)?;
            proxy.set(Fault::None);
            let said = protected.says(&name, BackupCondition::Stalled, "True", refused).await;
            own.reinstate(identity)?;
            said.with_context(|| format!("{identity:?}"))?;
            is_mended(&protected, &proxy, commits).await.with_context(|| format!("{identity:?}"))?;
        }

        // The operator's own: what was written and read back waits for its commit.
        let name = held_at(&protected, &proxy, Moment::Before(Objects::Commits, 0)).await?;
        own.revoke(Identity::Committer)?;
        proxy.set(Fault::None);
        let said = protected.says(&name, BackupCondition::Complete, "False", refused).await;
        let commits = protected.commits()?;
        own.reinstate(Identity::Committer)?;
        ensure!(commits.len() == 2, "something was committed without a key: {commits:?}");
        let said = said?;
        goes_on(&protected, &proxy, &name, 3).await?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn a_disk_that_is_full_in_the_middle_is_told_and_when_it_has_room_again_all_goes_on() {
    run(async |test| {
        let wanted = Wanted { own_bucket: true, ..Wanted::default() };
        let Some((protected, proxy)) = bring_with(test, 2, 0, wanted).await? else { return Ok(()) };
        let own = protected.store().own_bucket.as_ref().context("it has a bucket of its own")?;
        let full = BackupReason::StoreFull;

        let name = held_at(&protected, &proxy, Moment::Before(Objects::Data, 1)).await?;
        let disk = own.fill()?;
        proxy.set(Fault::None);
        protected.says(&name, BackupCondition::Stalled, "True", full).await?;
        drop(disk);
        is_mended(&protected, &proxy, 0).await?;

        let name = held_at(&protected, &proxy, Moment::Before(Objects::Commits, 0)).await?;
        let disk = own.fill()?;
        proxy.set(Fault::None);
        let said = protected.says(&name, BackupCondition::Complete, "False", full).await?;
        ensure!(protected.commits()?.len() == 1, "something was committed: {:?}", protected.commits()?);
        drop(disk);
        goes_on(&protected, &proxy, &name, 2).await?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn what_the_operator_puts_is_put_once_though_the_answers_are_lost() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 5, 0).await? else { return Ok(()) };

        // The first backup alone says whose the archive is.
        for (commits, of) in [(1, Objects::Owners), (2, Objects::Commits)] {
            proxy.set(Fault::AnswerLost { of, put: 1 });
            let name = protected.complete().await.with_context(|| format!("{of:?}"))?;
            ensure!(proxy.puts(of) > 1, "no answer to {of:?} was lost, or nobody asked again");
            goes_on(&protected, &proxy, &name, commits).await.with_context(|| format!("{of:?}"))?;
            let attempt = protected.backup(&name).await?["status"]["attempt"]["number"].clone();
            ensure!(attempt == 1, "{of:?}: it took {attempt} attempts");
        }
        let owner = format!("v1/{}/records/owner.json", protected.tenant.name);
        let versions = protected.store().versions(&owner)?;
        ensure!(versions == 1, "it is said {versions} times whose the archive is");
        test.measured("a record and a commit whose answers were lost: one each");
        Ok(())
    });
}

#[test]
fn a_store_that_cannot_be_asked_is_waited_for_and_the_same_backup_goes_on_when_it_can() {
    run(async |test| {
        let waited =
            [(Fault::Unreachable, StoreReason::Unreachable), (Fault::AlwaysBusy, StoreReason::Failing)]
                .map(|(fault, reason)| waits(test, fault, reason));
        if try_join_all(waited).await?.iter().all(Option::is_some) {
            test.measured("unreachable, and 503 to everything: told apart, waited for, then complete");
        }
        Ok(())
    });
}

async fn waits(test: &Test, fault: Fault, reason: StoreReason) -> Result<Option<()>> {
    let Some((protected, proxy)) = bring(test, 2, 0).await? else { return Ok(None) };

    proxy.set(fault);
    let name = protected.back_up(json!({})).await?;
    waits_for_the_store(&protected, &name, BackupReason::StoreUnavailable)
        .await
        .with_context(|| format!("{fault:?}"))?;
    ensure!(protected.commits()?.is_empty(), "{fault:?}: something was committed");
    is_told_of_the_store(&protected, &proxy, reason).await.with_context(|| format!("{fault:?}"))?;

    proxy.set(Fault::None);
    let said = protected.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await;
    said.with_context(|| format!("after {fault:?}"))?;
    restores(&protected, &name).await.with_context(|| format!("after {fault:?}"))?;
    Ok(Some(()))
}

/// The store's own condition says why it cannot be asked. It is probed when its spec changes, and not only at the next
/// turn, which is hours away; another rule is another breaker, which lets the probe through.
async fn is_told_of_the_store(
    protected: &Protected<'_>,
    proxy: &FaultProxy,
    reason: StoreReason,
) -> Result<String> {
    let mut changed = hurried(proxy, 2);
    merge(&mut changed, json!({ "breaker": { "opensAfter": 50, "triesAfter": "10s" } }));
    protected.store().apply(changed).await?;
    protected.store().says(StoreCondition::Reachable, "False", reason).await
}

/// Waits until a backup says that it waits for its store, and returns what it says.
async fn waits_for_the_store(
    protected: &Protected<'_>,
    name: &str,
    by_itself: BackupReason,
) -> Result<String> {
    // By its own look first, and by the store's condition as soon as its breaker has opened.
    let reasons = [by_itself, BackupReason::StoreNotReady].map(|reason| format!("{reason:?}"));
    eventually(format!("{name} says that it waits for its store"), BACKED_UP, async || {
        let object = protected.backup(name).await?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let complete = conditions.iter().find(|said| said["type"] == "Complete");
        let complete = complete.filter(|said| reasons.iter().any(|reason| said["reason"] == reason.as_str()));
        let message = complete.and_then(|said| said["message"].as_str()).map(str::to_owned);
        let waits = message.filter(|_| !object["status"]["ended"].is_string());
        Ok(Seen::when(waits, object["status"].to_string()))
    })
    .await
}

#[test]
fn a_store_whose_certificate_has_expired_is_not_spoken_to() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 2, 0).await? else { return Ok(()) };
        let server = &protected.store().server;

        proxy.present(&proxy::certificate(server, Validity::Expired)?)?;
        let name = protected.back_up(json!({})).await?;
        let said = waits_for_the_store(&protected, &name, BackupReason::TlsRefused).await?;
        ensure!(protected.commits()?.is_empty(), "something was committed: {said}");
        let said = is_told_of_the_store(&protected, &proxy, StoreReason::TlsRefused).await?;

        proxy.present(&proxy::certificate(server, Validity::Valid)?)?;
        protected.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;
        restores(&protected, &name).await?;
        test.measured(&said);
        Ok(())
    });
}
