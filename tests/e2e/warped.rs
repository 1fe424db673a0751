//! Clocks that are wrong: the operator's an hour ahead, the agents' and the database's an hour ahead. Nothing is complete
//! that is not, nothing is deleted, what is wrong is said, and when the clocks are right again all goes on by itself.
//!
//! The clock is a double: libfaketime, in images that are made for these tests.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::drilled::Drilled;
use harness::operator::NAMESPACE;
use harness::protected::BACKED_UP;
use harness::{Seen, Test, eventually, kind, run};
use serde_json::json;
use valv_crds::backup::{BackupCondition, BackupReason};
use valv_crds::store::{StoreCondition, StoreReason};

/// An operator with the right clock probes again after at most a minute.
const RIGHTED: Duration = Duration::from_secs(180);

#[test]
fn an_operator_whose_clock_is_an_hour_ahead_backs_nothing_up_and_says_why() {
    run(async |test| {
        let Some(world) = Drilled::bring(test, json!({}), json!({})).await? else { return Ok(()) };
        world.back_up().await?;
        test.alone().await?;
        test.changes_the_installation();
        let before = world.commits()?;

        operator_runs(test, "valv-ahead").await?;
        let waited = backs_nothing_up(&world, &before).await;
        // Also if it did not: others come after this test.
        operator_runs(test, "valv").await?;
        let (name, said) = waited?;
        world.protected.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;
        ensure!(world.commits()?.len() == before.len() + 1, "{:?}", world.commits()?);
        world.passes().await?;
        test.measured(said);
        Ok(())
    });
}

/// While the operator's clock is wrong: the name of a backup that waits, and what the store says.
async fn backs_nothing_up(world: &Drilled<'_>, before: &[PathBuf]) -> Result<(String, String)> {
    let store = world.protected.store();
    let said = store.says(StoreCondition::Ready, "False", StoreReason::ClockSkewed).await?;
    let name = world.protected.back_up(json!({})).await?;
    waits(world, &name).await?;
    ensure!(world.commits()? == before, "something was committed or deleted: {:?}", world.commits()?);
    Ok((name, said))
}

#[test]
fn agents_whose_clock_is_an_hour_ahead_leave_nothing_complete_and_the_next_backup_is() {
    run(async |test| {
        let Some(world) = Drilled::bring(test, json!({ "retries": 0 }), json!({})).await? else {
            return Ok(());
        };
        world.back_up().await?;
        test.alone().await?;
        test.changes_the_installation();
        let before = world.commits()?;

        let ahead = json!({ "images": {
            "valv": test.world.image("valv-ahead")?, "postgres": test.world.image("postgres-ahead")?,
        }});
        test.helm().install(&ahead).await?;
        // Only the agents: the operator's own pods run as before.
        operator_runs(test, "valv").await?;
        world.protected.tenant.ready().await?;
        let name = world.protected.back_up(json!({})).await?;
        let said =
            world.protected.says(&name, BackupCondition::Stalled, "True", BackupReason::ClockSkewed).await?;
        ensure!(said.contains("clock"), "it does not say why: {said}");
        ensure!(world.commits()? == before, "something was committed or deleted: {:?}", world.commits()?);
        let drill = world.drill(json!({})).await?;
        let (reason, message) = world.ends(&drill, "False").await?;
        ensure!(reason == "ClockSkewed", "{reason}: {message}");

        test.helm().install(&json!({})).await?;
        test.operator().is_ready().await?;
        world.protected.tenant.ready().await?;
        world.protected.complete().await?;
        world.passes().await?;
        test.measured(said);
        Ok(())
    });
}

/// Lets the operator's pods run another image, and waits until they do.
async fn operator_runs(test: &Test, image: &str) -> Result<()> {
    let image = test.world.image(image)?;
    let deployments = test.world.admin.list(kind::DEPLOYMENT, NAMESPACE, "").await?;
    let named = |found: &&serde_json::Value| found["metadata"]["name"] == "valv";
    let deployment = deployments.iter().find(named).context("there is the operator's Deployment")?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0]["name"];
    let change = json!({ "spec": { "template": { "spec": {
        "containers": [{ "name": container, "image": image }],
    }}}});
    let admin = &test.world.admin;
    admin.change(kind::DEPLOYMENT, NAMESPACE, "valv", harness::actor::Change::Strategic(&change)).await?;
    eventually(format!("the operator runs {image}"), RIGHTED, async || {
        let pods = test.operator().pods().await?;
        let is_old = |pod: &&serde_json::Value| pod["spec"]["containers"][0]["image"] != image;
        let old = pods.iter().filter(is_old).count();
        Ok(Seen::when((old == 0).then_some(()), format!("{old} of {} pods run another", pods.len())))
    })
    .await?;
    test.operator().is_ready().await.map(drop)
}

/// Waits until a backup says why it does not begin.
async fn waits(world: &Drilled<'_>, name: &str) -> Result<()> {
    eventually(format!("{name} waits for its store"), BACKED_UP, async || {
        let object = world.protected.backup(name).await?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let waits = conditions.iter().any(|said| {
            said["type"] == "Complete"
                && ["StoreNotReady", "StoreUnavailable", "ClockSkewed"]
                    .iter()
                    .any(|reason| said["reason"] == *reason)
        });
        ensure!(
            !conditions.iter().any(|said| said["type"] == "Complete" && said["status"] == "True"),
            "{object}"
        );
        Ok(Seen::when(waits.then_some(()), object["status"].to_string()))
    })
    .await
}
