//! What becomes of a backup and of a drill when the node that they run on is drained, or dies and does not come back. On a
//! second node, so that the operator goes on beside it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use faults::{Fault, Objects};
use harness::drilled::Drilled;
use harness::operator::NAMESPACE;
use harness::saying::says;
use harness::second_node::{FIRST, SECOND, SecondNode};
use harness::{Seen, Test, eventually, kind, run};
use serde_json::{Value, json};
use valv_crds::backup::BackupReason;
use valv_crds::drill::{DrillCondition, DrillReason};

use crate::drill_store_faults::running;
use crate::moments::{Moment, goes_on, held_at, reading_pod};
use crate::store_faults::bring;

/// A node is missed after 50 s, its pods are to go 20 s later, and count as gone a minute and a half after that.
const MISSED: Duration = Duration::from_secs(360);

#[test]
fn a_node_that_is_drained_delays_a_backup_and_ends_a_drill() {
    run(async |test| {
        let Some(node) = second_node(test).await? else { return Ok(()) };

        node.cordon(FIRST).await?;
        let Some((protected, proxy)) = bring(test, 2, 2).await? else { return Ok(()) };
        node.uncordon(FIRST).await?;
        let name = held_at(&protected, &proxy, Moment::Before(Objects::Data, 1)).await?;
        let asked = node.drain(&[&protected.tenant.namespace]).await?;
        ensure!(asked >= 3, "a journal, its database and an agent were to go, and {asked} pods were asked");
        proxy.set(Fault::None);
        node.uncordon(SECOND).await?;
        let drained = protected.attempt_fails(&name, 1, BackupReason::AgentFailed).await?;
        goes_on(&protected, &proxy, &name, 1).await.context("a backup")?;
        protected.tenant.ready().await?;
        // Its volumes are that node's.
        protected.tenant.destroy().await?;

        let (world, name, into) = drill_on_second(test, &node).await?;
        ensure!(node.drain(&[&into]).await? >= 1, "nothing of the drill was there");
        let (reason, message) = world.ends(&name, "False").await?;
        ensure!(reason == "CannotRestore", "{reason}: {message}");
        world.passes().await.context("the next drill, on the other node")?;
        test.measured(format_args!("a backup that was drained: {drained}; a drill: {message}"));
        Ok(())
    });
}

#[test]
fn a_backup_that_is_read_back_on_a_node_that_dies_is_read_back_on_another() {
    run(async |test| {
        let Some(node) = second_node(test).await? else { return Ok(()) };
        node.cordon(SECOND).await?;
        let Some((protected, proxy)) = bring(test, 5, 2).await? else { return Ok(()) };
        // The agent runs where the tenant's volumes are; whoever reads back needs none.
        let name = held_at(&protected, &proxy, Moment::Before(Objects::Data, 1)).await?;
        node.cordon(FIRST).await?;
        node.uncordon(SECOND).await?;
        proxy.set(Fault::ReadsHeldAfter { reads: 0 });
        let (pod, _) = reading_pod(test, &protected, &name).await?;
        let pod = test.world.admin.get(kind::POD, NAMESPACE, &pod).await?;
        ensure!(pod["spec"]["nodeName"] == SECOND, "it runs on {}", pod["spec"]["nodeName"]);
        node.uncordon(FIRST).await?;

        node.dies()?;

        let failed = eventually("whoever reads back is missed", MISSED, async || {
            let status = protected.backup(&name).await?["status"].clone();
            let failed = status["attempt"]["reading"]["failed"].clone();
            Ok(Seen::when(failed.is_object().then_some(failed), status))
        })
        .await?;
        ensure!(failed["reason"] == "AgentFailed", "{failed}");
        goes_on(&protected, &proxy, &name, 1).await?;
        node.is_given_up().await?;
        test.measured(failed["message"].to_string());
        Ok(())
    });
}

#[test]
fn a_drill_whose_node_dies_fails_and_is_torn_down_when_the_node_is_given_up() {
    run(async |test| {
        let Some(node) = second_node(test).await? else { return Ok(()) };
        let (world, name, into) = drill_on_second(test, &node).await?;

        node.dies()?;

        let (failed, left) = (DrillCondition::Passed, DrillCondition::TornDown);
        let said = says(&name, (failed, "False", DrillReason::CannotRestore), MISSED, async || {
            world.object(&name).await
        })
        .await?;
        ensure!(
            world.condition(&name, left).await?["status"] != "True",
            "its volumes are on a node that is gone"
        );
        node.is_given_up().await?;
        world.leaves_nothing(&name).await.with_context(|| format!("{into}, after its node was given up"))?;
        world.passes().await.context("the next drill, on the other node")?;
        test.measured(said);
        Ok(())
    });
}

/// Adds a node, while nobody else tests. Absent: these nodes are somebody else's.
async fn second_node(test: &Test) -> Result<Option<SecondNode<'_>>> {
    if test.world.local().is_none() {
        test.not_here("this cluster's nodes are not ours to add");
        return Ok(None);
    }
    test.alone().await?;
    SecondNode::add(test.world).map(Some)
}

/// A drill of a tenant of the first node, whose judge runs on the second: who drills, the drill, its namespace.
async fn drill_on_second<'a>(test: &'a Test, node: &SecondNode<'_>) -> Result<(Drilled<'a>, String, String)> {
    node.cordon(SECOND).await?;
    let world = Drilled::bring(test, json!({}), json!({})).await?.context("the stores are there")?;
    world.back_up().await?;
    node.cordon(FIRST).await?;
    node.uncordon(SECOND).await?;
    let name = world.drill(json!({})).await?;
    let into = world.namespace_of(&name).await?;
    let (pod, _) = running(test, &into, "judge").await?;
    let pod: Value = test.world.admin.get(kind::POD, &into, &pod).await?;
    ensure!(pod["spec"]["nodeName"] == SECOND, "it runs on {}", pod["spec"]["nodeName"]);
    node.uncordon(FIRST).await?;
    Ok((world, name, into))
}
