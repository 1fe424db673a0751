//! What the cluster can do to a backup while it is made: its database restarted, its node drained, its operator killed
//! at any step, two operators at once. Never is something complete that is not, and the same backup goes on without a
//! hand.
//!
//! Each is caught at one moment: the fault proxy between the pods and the real store holds a PUT back. It is a double,
//! for moments at which no real store can be made to stop.

use anyhow::{Context, Result, ensure};
use faults::{Fault, FaultProxy};
use harness::actor::Grace;
use harness::drilled::Drilled;
use harness::operator::NAMESPACE;
use harness::process::{PodProcess, cut_power};
use harness::protected::{BACKED_UP, Protected};
use harness::{Seen, eventually, kind, run};
use serde_json::json;
use valv_crds::backup::{BackupCondition, BackupReason};

use crate::drill_store_faults::running;
use crate::store_faults::bring;

#[test]
fn a_database_that_is_restarted_and_a_pod_that_is_drained_only_delay_a_backup() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 2, 2).await? else { return Ok(()) };
        let (tenant, admin) = (&protected.tenant, &test.world.admin);

        let name = held_at(&protected, &proxy, 1).await?;
        let pods = tenant.pods("database").await?;
        let database = pods.first().and_then(|pod| pod["metadata"]["name"].as_str()).context("a database")?;
        admin.delete(kind::POD, &tenant.namespace, database, Grace::None).await?;
        goes_on(&protected, &proxy, &name, 1).await.context("after its database was restarted")?;
        tenant.ready().await?;

        let name = held_at(&protected, &proxy, 1).await?;
        let pods = tenant.list(kind::POD, "valv.eu/role=backup").await?;
        let running = pods.iter().find(|pod| pod["status"]["phase"] == "Running");
        let agent = running.and_then(|pod| pod["metadata"]["name"].as_str()).context("an agent runs")?;
        admin.evict(&tenant.namespace, agent).await?;
        goes_on(&protected, &proxy, &name, 2).await.context("after its pod was drained")?;
        test.measured("complete without a hand, one commit each");
        Ok(())
    });
}

#[test]
fn a_node_that_loses_power_in_the_middle_of_a_backup_or_a_drill_leaves_nothing_half() {
    run(async |test| {
        if test.world.local().is_none() {
            test.not_here("the processes of this cluster's nodes cannot be reached");
            return Ok(());
        }
        let Some((protected, proxy)) = bring(test, 5, 2).await? else { return Ok(()) };
        let drilled = Drilled::bring(test, json!({}), json!({})).await?.context("the stores are there")?;
        drilled.back_up().await?;
        test.alone().await?;
        let operator = test.operator();

        let name = held_at(&protected, &proxy, 1).await?;
        cut_power()?;
        proxy.set(Fault::None);
        operator.is_ready().await?;
        protected.tenant.ready().await?;
        goes_on(&protected, &proxy, &name, 1).await.context("a backup")?;

        let name = drilled.drill(json!({})).await?;
        let into = drilled.namespace_of(&name).await?;
        let (_, uid) = running(test, &into, "judge").await?;
        PodProcess::find(&uid, "judge").context("it judges")?;
        let ended = cut_power()?;
        ensure!(PodProcess::find(&uid, "judge").is_err(), "it judges on");
        operator.is_ready().await?;
        let passed = drilled.ended(&name).await?;
        ensure!(passed["status"] == "False", "nobody judged it to the end: {passed}");
        drilled.leaves_nothing(&name).await?;
        drilled.protected.tenant.ready().await?;
        drilled.passes().await.context("the next drill")?;
        test.measured(format_args!("{ended} processes; the drill in the middle: {}", passed["reason"]));
        Ok(())
    });
}

#[test]
fn an_operator_that_is_killed_at_any_step_of_a_backup_is_followed_by_one_that_goes_on() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 5, 2).await? else { return Ok(()) };
        test.alone().await?;
        let operator = test.operator();
        let all = puts_of_a_backup(&protected, &proxy).await?;
        ensure!(all > 3, "a backup is {all} puts: there is no middle to kill the operator in");

        // At every PUT: the agent's objects, its manifest, and the operator's commit.
        let mut commits = 2;
        for through in 0..all {
            let leader = operator.is_ready().await?;
            let name = held_at(&protected, &proxy, through).await?;
            test.world.admin.delete(kind::POD, NAMESPACE, &leader.pod, Grace::None).await?;
            operator.is_led_by_another_than(&leader).await?;
            commits += 1;
            goes_on(&protected, &proxy, &name, commits)
                .await
                .with_context(|| format!("killed at put {} of {all}", through + 1))?;
        }
        test.measured(format_args!("killed at each of {all} puts: complete each time, one commit each"));
        Ok(())
    });
}

#[test]
fn of_two_operators_at_once_one_commits() {
    run(async |test| {
        if test.world.local().is_none() {
            test.not_here("the processes of this cluster's nodes cannot be reached");
            return Ok(());
        }
        let Some((protected, proxy)) = bring(test, 5, 2).await? else { return Ok(()) };
        test.alone().await?;
        let operator = test.operator();
        let last = puts_of_a_backup(&protected, &proxy).await? - 1;

        // The commit is the last: it is on its way when the leader stops, and another comes to the same point.
        let leader = operator.is_ready().await?;
        let pod = test.world.admin.get(kind::POD, NAMESPACE, &leader.pod).await?;
        let process =
            PodProcess::find(pod["metadata"]["uid"].as_str().context("a pod has a UID")?, "operator")?;
        let name = held_at(&protected, &proxy, last).await?;
        process.freeze()?;
        operator.is_led_by_another_than(&leader).await?;
        proxy.set(Fault::None);
        process.thaw()?;

        goes_on(&protected, &proxy, &name, 3).await?;
        operator.is_ready().await?;
        protected.complete().await.context("the next one")?;
        ensure!(protected.commits()?.len() == 4, "{:?}", protected.commits()?);
        test.measured("one commit, by the one that leads");
        Ok(())
    });
}

/// How many PUTs a backup is. The first of a tenant is one more: it says whose the archive is.
async fn puts_of_a_backup(protected: &Protected<'_>, proxy: &FaultProxy) -> Result<usize> {
    protected.complete().await?;
    proxy.set(Fault::None);
    protected.complete().await?;
    Ok(proxy.puts())
}

/// Asks for a backup, and waits until its PUT after `through` others is held back. Returns its name.
pub async fn held_at(protected: &Protected<'_>, proxy: &FaultProxy, through: usize) -> Result<String> {
    proxy.set(Fault::HeldAfter { puts: through });
    let name = protected.back_up(json!({})).await?;
    eventually(format!("put {} is held back", through + 1), BACKED_UP, async || {
        Ok(Seen::when((proxy.puts() > through).then_some(()), format!("{} puts", proxy.puts())))
    })
    .await?;
    Ok(name)
}

/// Lets the store answer again: the backup `name` is complete, without a hand, and there are so many commits.
pub async fn goes_on(
    protected: &Protected<'_>,
    proxy: &FaultProxy,
    name: &str,
    commits: usize,
) -> Result<()> {
    ensure!(protected.commits()?.len() < commits, "something was committed while it was held back");
    proxy.set(Fault::None);
    protected.says(name, BackupCondition::Complete, "True", BackupReason::Committed).await?;
    protected.says(name, BackupCondition::Intact, "True", BackupReason::AsAsked).await?;
    ensure!(protected.commits()?.len() == commits, "{:?}, not {commits}", protected.commits()?);
    Ok(())
}
