//! What is left behind for whoever asks later: events, metrics, and the backups of a tenant that is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use faults::Fault;
use harness::drilled::{Drilled, Planted};
use harness::protected::{BACKED_UP, Protected, Wanted, opened, segments};
use harness::store::stores;
use harness::{Seen, Test, eventually, kind, proxy, run};
use serde_json::{Value, json};
use valv_crds::drill::{DrillCondition, DrillReason};
use valv_crds::reference::{CONFIRM_DELETION_ANNOTATION, LOOK_AFTER_ANNOTATION};
use valv_crds::store::{StoreCondition, StoreReason};

/// An event, or a number that the leader tells.
const TOLD: Duration = Duration::from_secs(60);

#[test]
fn a_backup_and_a_drill_leave_events_and_numbers_that_are_theirs() {
    run(async |test| {
        let Some(drilled) = Drilled::bring(test, json!({}), json!({})).await? else { return Ok(()) };
        let (protected, tenant) = (&drilled.protected, &drilled.protected.tenant);
        // Counters begin with the first time that somebody asks: as Prometheus would have, long ago.
        is_told(test, "valv_backup_running", |_| true).await?;
        let backup = protected.complete().await?;
        let status = protected.backup(&backup).await?["status"].clone();
        let passed = drilled.passes().await?;
        let measured = drilled.object(&passed).await?["status"]["measured"].clone();

        event(test, &tenant.namespace, (kind::BACKUP.name, backup.as_str()), "Normal", "Committed").await?;
        for reason in ["PassedAsAsked", "TornDownAsAsked", "RecordedAsAsked"] {
            event(test, &tenant.namespace, (kind::RESTORE_DRILL.name, passed.as_str()), "Normal", reason)
                .await?;
        }
        let of = |name: &str| format!("{name}{{tenant=\"{}\"}}", tenant.name);
        let taken: jiff::Timestamp = status["taken"].as_str().context("it says when")?.parse()?;
        let number = |value: &Value| value.as_i64().map(|value| value as f64).context("a number");
        for (name, value) in [
            ("valv_backup_last_success_timestamp_seconds", taken.as_second() as f64),
            ("valv_backup_bytes", number(&status["size"]["bytes"])?),
            ("valv_drill_rto_seconds", number(&measured["rtoSeconds"])?),
            ("valv_drill_rpo_seconds", number(&measured["rpoSeconds"])?),
            ("valv_tampering", 0.0),
        ] {
            is_told(test, &of(name), |told| told == value).await.with_context(|| value.to_string())?;
        }

        is_told(test, &results("passed", "AsAsked"), |told| told >= 1.0).await?;

        // One that must fail.
        let segment = segments(&protected.data(&backup).await?.join("database"))?.remove(0);
        let mut bytes = fs::read(&segment)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Planted::in_place_of(&segment, &bytes)?;
        let name = drilled.drill(json!({})).await?;
        drilled.says(&name, DrillCondition::Passed, "False", DrillReason::SegmentDiffers).await?;
        drilled.leaves_nothing(&name).await?;
        let reason = "PassedSegmentDiffers";
        event(test, &tenant.namespace, (kind::RESTORE_DRILL.name, name.as_str()), "Warning", reason).await?;
        let failed = format!(
            "valv_drill_failed{{tenant=\"{}\",store=\"{}\",reason=\"SegmentDiffers\"}}",
            tenant.name,
            protected.store().name
        );
        is_told(test, &failed, |told| told == 1.0).await?;
        is_told(test, &results("failed", "SegmentDiffers"), |told| told >= 1.0).await?;
        test.measured(format_args!("{} bytes, taken at {taken}", status["size"]["bytes"]));
        Ok(())
    });
}

#[test]
fn a_store_that_is_away_opens_its_breaker_and_says_so_until_it_is_back() {
    run(async |test| {
        let Some([helsinki, _]) = stores(test)? else { return Ok(()) };
        let cluster = test.world.local().context("the stores are the local cluster's")?;
        let proxy = proxy::before(cluster, &helsinki)?;
        let impatient = json!({
            "endpoint": proxy.endpoint(),
            "timeouts": { "connect": "2s", "attempt": "10s", "stall": "5s" },
            "retry": { "perRequest": 2, "perRun": 20 },
            "breaker": { "opensAfter": 2, "triesAfter": "5s" },
        });
        let wanted = Wanted { store: impatient, ..Wanted::default() };
        let protected = Protected::bring(test, wanted).await?.context("the store is there")?;
        protected.tenant.up().await?;
        let store = protected.store();
        let open = format!("valv_store_breaker_open{{store=\"{}\"}}", store.name);
        is_told(test, &open, |told| told == 0.0).await?;

        proxy.set(Fault::Unreachable);
        // Somebody has to ask it.
        let name = protected.back_up(json!({})).await?;
        store.says(StoreCondition::BreakerClosed, "False", StoreReason::BreakerOpen).await?;
        is_told(test, &open, |told| told == 1.0).await?;
        let of = (kind::BACKUP_STORE.name, store.name.as_str());
        event(test, "default", of, "Warning", "BreakerOpen").await?;
        ensure!(protected.commits()?.is_empty(), "something was committed");

        proxy.set(Fault::None);
        store.says(StoreCondition::Ready, "True", StoreReason::AsAsked).await?;
        is_told(test, &open, |told| told == 0.0).await?;
        event(test, "default", of, "Normal", "AsAsked").await?;
        eventually("the backup that waited is complete", BACKED_UP, async || {
            let status = protected.backup(&name).await?["status"].clone();
            Ok(Seen::when(status["stores"][0]["commit"].is_object().then_some(()), status))
        })
        .await
    });
}

#[test]
fn the_backups_of_a_tenant_that_was_destroyed_stay_with_their_terms_and_can_be_opened() {
    run(async |test| {
        let Some(mut protected) = Protected::bring(test, Wanted::default()).await? else { return Ok(()) };
        protected.tenant = protected.tenant.with("deletionPolicy: Delete")?;
        let tenant = &protected.tenant;
        tenant.up().await?;
        tenant.journal().await?.write("Patienten mår bra i dag").await?;
        let name = protected.complete().await?;
        let data = protected.data(&name).await?;
        let archive = protected.archive(protected.store());
        // Once a day by itself.
        tenant.annotate(LOOK_AFTER_ANNOTATION, Some("so that the terms are written")).await?;
        eventually("the archive has its terms", 2 * TOLD, async || {
            let terms = archive.join("records/terms.json");
            Ok(Seen::when(terms.is_file().then_some(()), format!("no {}", terms.display())))
        })
        .await?;
        let before = files(&archive)?;

        tenant.annotate(CONFIRM_DELETION_ANNOTATION, Some(&tenant.name)).await?;
        tenant.delete().await?;
        tenant.is_gone().await?;
        tenant.namespace_is_gone().await?;

        let after = files(&archive)?;
        let lost: Vec<_> = before.iter().filter(|file| !after.contains(file)).collect();
        ensure!(lost.is_empty(), "with the tenant went {lost:?}");
        ensure!(protected.commits()?.len() == 1, "{:?}", protected.commits()?);
        for key in [&protected.owner, &protected.escrow] {
            ensure!(!opened(&data.join("database"), key)?.is_empty(), "it holds nothing");
        }
        // Whoever looks at the store alone finds the tenant's own object in it.
        let object = opened(&data.join("tenant"), &protected.escrow)?;
        let named = format!("name: {}", tenant.name);
        let has = |bytes: &[u8]| object.windows(bytes.len()).any(|window| window == bytes);
        ensure!(has(b"tenant.yaml") && has(named.as_bytes()), "the tenant is not in it");
        test.measured(format_args!("{} files stay", after.len()));
        Ok(())
    });
}

/// All files below `folder`.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).with_context(|| next.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    Ok(found)
}

/// Waits until the leader tells a number of which `is_it` says so.
async fn is_told(test: &Test, name: &str, is_it: impl Fn(f64) -> bool) -> Result<()> {
    eventually(format!("{name} is told"), TOLD, async || {
        let told = test.operator().metric(name).await?;
        Ok(Seen::when(is_it(told).then_some(()), told))
    })
    .await
}

/// The count of drills of all tenants that ended so.
fn results(verdict: &str, reason: &str) -> String {
    format!("valv_drill_results_total{{verdict=\"{verdict}\",reason=\"{reason}\"}}")
}

/// Waits for an event on an object. Those of objects without a namespace are in `default`.
async fn event(
    test: &Test,
    namespace: &str,
    (kind, name): (&str, &str),
    tone: &str,
    reason: &str,
) -> Result<()> {
    eventually(format!("{name} has the event {tone} {reason}"), TOLD, async || {
        let events = test.world.admin.list(kind::EVENT, namespace, "").await?;
        let of = events.iter().filter(|event| {
            event["involvedObject"]["name"] == name && event["involvedObject"]["kind"] == kind
        });
        let told: Vec<_> = of.map(|event| (event["type"].as_str(), event["reason"].as_str())).collect();
        let is_there = told.contains(&(Some(tone), Some(reason)));
        Ok(Seen::when(is_there.then_some(()), format!("{told:?}")))
    })
    .await
}
