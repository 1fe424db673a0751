//! What a store or the way to it can do to a backup: delay it, or end it with a reason. Never is something complete
//! that is not, and the next run succeeds without a hand.
//!
//! The fault proxy stands between pods and the real store; it is a double, for faults that no real one can be made
//! to show.

use anyhow::{Context, Result, ensure};
use faults::{Fault, FaultProxy};
use futures::future::try_join_all;
use harness::actor::Grace;
use harness::protected::{BACKED_UP, Protected, Wanted};
use harness::store::stores;
use harness::{Seen, Test, eventually, kind, proxy, run};
use serde_json::{Value, json};
use valv_cluster::Validity;
use valv_crds::backup::{BackupCondition, BackupReason};

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
    let Some([helsinki, _]) = stores(test)? else { return Ok(None) };
    let cluster = test.world.local().context("the stores are the local cluster's")?;
    let proxy = proxy::before(cluster, &helsinki)?;
    let wanted =
        Wanted { store: hurried(&proxy, tries), policy: json!({ "retries": retries }), ..Wanted::default() };
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
            ensure!(proxy.requests() > 3, "the double was not asked: {intact}");
        }

        test.measured("503 to every third request, and every third answer lost: both complete");
        Ok(())
    });
}

#[test]
fn a_store_that_fails_for_long_ends_a_backup_with_its_reason_and_the_next_one_is_complete() {
    run(async |test| {
        let faults = [
            (Fault::Slow { bytes_per_second: 8 * 1024 }, BackupReason::StoreUnavailable),
            (Fault::FullAfter { puts: 1 }, BackupReason::StoreFull),
            (Fault::RevokedAfter { puts: 1 }, BackupReason::CredentialsRefused),
        ];
        let mut tried = vec![];
        // Each of its own tenant, two at a time: all wait for pods most of the time.
        for pair in faults.chunks(2) {
            tried
                .extend(try_join_all(pair.iter().map(|(fault, reason)| fails(test, *fault, *reason))).await?);
        }
        if tried.iter().all(Option::is_some) {
            test.measured(format_args!("{} faults, each with its reason", tried.len()));
        }
        Ok(())
    });
}

#[test]
fn a_store_that_cannot_be_asked_is_waited_for_and_the_same_backup_goes_on_when_it_can() {
    run(async |test| {
        let waited = [Fault::Unreachable, Fault::AlwaysBusy].map(|fault| waits(test, fault));
        if try_join_all(waited).await?.iter().all(Option::is_some) {
            test.measured("unreachable, and 503 to everything: waited for, then complete");
        }
        Ok(())
    });
}

async fn waits(test: &Test, fault: Fault) -> Result<Option<()>> {
    let Some((protected, proxy)) = bring(test, 2, 0).await? else { return Ok(None) };

    proxy.set(fault);
    let name = protected.back_up(json!({})).await?;
    waits_for_the_store(&protected, &name).await.with_context(|| format!("{fault:?}"))?;
    ensure!(protected.commits()?.is_empty(), "{fault:?}: something was committed");

    proxy.set(Fault::None);
    let said = protected.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await;
    said.with_context(|| format!("after {fault:?}"))?;
    Ok(Some(()))
}

/// Waits until a backup says that it waits for its store, and returns what it says.
async fn waits_for_the_store(protected: &Protected<'_>, name: &str) -> Result<String> {
    // By its own look first, and by the store's condition as soon as its breaker has opened.
    let reasons = [BackupReason::StoreUnavailable, BackupReason::TlsRefused, BackupReason::StoreNotReady]
        .map(|reason| format!("{reason:?}"));
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

async fn fails(test: &Test, fault: Fault, reason: BackupReason) -> Result<Option<()>> {
    let Some((protected, proxy)) = bring(test, 2, 0).await? else { return Ok(None) };

    proxy.set(fault);
    let name = protected.back_up(json!({})).await?;
    let said = protected
        .says(&name, BackupCondition::Stalled, "True", reason)
        .await
        .with_context(|| format!("{fault:?}"))?;
    ensure!(protected.commits()?.is_empty(), "{fault:?}: something was committed: {said}");

    proxy.set(Fault::None);
    let next = protected.complete().await.with_context(|| format!("after {fault:?}"))?;
    ensure!(protected.commits()?.len() == 1, "after {fault:?}: {next} is not the only commit");
    Ok(Some(()))
}

#[test]
fn a_store_whose_certificate_has_expired_is_not_spoken_to() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 2, 0).await? else { return Ok(()) };
        let server = &protected.store().server;

        proxy.present(&proxy::certificate(server, Validity::Expired)?)?;
        let name = protected.back_up(json!({})).await?;
        let said = waits_for_the_store(&protected, &name).await?;
        ensure!(protected.commits()?.is_empty(), "something was committed: {said}");

        proxy.present(&proxy::certificate(server, Validity::Valid)?)?;
        protected.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;
        test.measured(&said);
        Ok(())
    });
}

#[test]
fn an_agent_that_is_killed_at_any_stage_leaves_nothing_complete_and_the_next_attempt_is() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 2, 2).await? else { return Ok(()) };
        let tenant = &protected.tenant;

        // Before the first object, after the first, and before the manifest, which is the last.
        proxy.set(Fault::None);
        protected.complete().await?;
        let all = proxy.puts();
        ensure!(all > 3, "a backup is {all} puts: there is no middle to kill it in");
        for through in [0, 1, all - 1] {
            let before = protected.commits()?;
            proxy.set(Fault::HeldAfter { puts: through });
            let name = protected.back_up(json!({})).await?;
            let pod = eventually(format!("the agent hangs at put {}", through + 1), BACKED_UP, async || {
                let pods = tenant.list(kind::POD, "valv.eu/role=backup").await?;
                let running = pods.iter().find(|pod| pod["status"]["phase"] == "Running");
                let name = running.and_then(|pod| pod["metadata"]["name"].as_str());
                let held = proxy.puts() > through;
                Ok(match name.filter(|_| held) {
                    Some(name) => Seen::Yes(name.to_owned()),
                    None => Seen::NotYet(format!("{} puts", proxy.puts())),
                })
            })
            .await?;
            let admin = &test.world.admin;
            admin.delete(kind::POD, &tenant.namespace, &pod, Grace::None).await?;
            ensure!(protected.commits()? == before, "something was committed by a dead agent");
            proxy.set(Fault::None);
            protected.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;
            ensure!(protected.commits()?.len() == before.len() + 1, "not one commit more");
        }
        test.measured(format_args!("killed at 3 of {all} puts"));
        Ok(())
    });
}
