//! What the cluster can do to a backup while it is made: its agent killed at any stage, its database restarted, its node
//! drained and killed, its operator killed at any step, two operators at once. Never is something complete that is not,
//! and the same backup goes on without a hand.
//!
//! Each is caught at one moment. Where that is one of the way to the store, the fault proxy holds it there: a double, for
//! moments at which no real store can be made to stop.

use anyhow::{Context, Result, ensure};
use faults::{Fault, FaultProxy, Objects};
use harness::actor::Grace;
use harness::drilled::Drilled;
use harness::operator::NAMESPACE;
use harness::process::{PodProcess, cut_power};
use harness::protected::{BACKED_UP, Protected};
use harness::{Seen, Test, eventually, kind, run};
use serde_json::json;
use valv_crds::backup::{BackupCondition, BackupReason};

use crate::drill_store_faults::running;
use crate::moments::{Moment, goes_on, held_at, puts_of_a_backup, reading_pod, writing_pod};
use crate::store_faults::bring;

/// What `pg_basebackup` has written by then: it is in the middle, for there is much more.
const SOME: u64 = 1 << 20;

/// Makes 64 MiB that do not compress.
const FILLER: &str = "CREATE TABLE filler AS SELECT page, string_agg(sha512(convert_to(page || '-' || piece, 'UTF8')), \
                      ''::bytea) AS noise FROM generate_series(1, 1024) page, generate_series(1, 1024) piece \
                      GROUP BY page";

#[test]
fn an_agent_that_is_killed_at_any_stage_leaves_nothing_complete_and_the_next_attempt_is() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 5, 2).await? else { return Ok(()) };
        let last = puts_of_a_backup(&protected, &proxy).await? - 1;

        // Before the first object, after the first, and before, within and after the manifest, which is the last.
        let mut commits = 1;
        for moment in [
            Moment::Before(Objects::Data, 0),
            Moment::Before(Objects::Data, 1),
            Moment::Before(Objects::Data, last),
            Moment::Within(Objects::Data, last),
            Moment::After(Objects::Data, last),
        ] {
            let name = held_at(&protected, &proxy, moment).await?;
            let (_, pod) = writing_pod(&protected).await?;
            PodProcess::find(&pod, "backup")?.kill()?;
            let failed = protected.attempt_fails(&name, 1, BackupReason::AgentFailed).await;
            failed.with_context(|| format!("killed {moment:?}"))?;
            commits += 1;
            goes_on(&protected, &proxy, &name, commits).await.with_context(|| format!("{moment:?}"))?;
            let attempt = protected.backup(&name).await?["status"]["attempt"]["number"].clone();
            ensure!(attempt == 2, "killed {moment:?}, and complete by attempt {attempt}");
        }

        // What reads back is another agent: what was written stands, and is read once more.
        let name = held_at(&protected, &proxy, Moment::ReadBack).await?;
        let (_, pod) = reading_pod(test, &protected, &name).await?;
        PodProcess::find(&pod, "verify")?.kill()?;
        let said = protected.reading_fails(&name, BackupReason::AgentFailed).await?;
        goes_on(&protected, &proxy, &name, commits + 1).await.context("killed while it read back")?;
        let attempt = protected.backup(&name).await?["status"]["attempt"].clone();
        ensure!(attempt["number"] == 1 && attempt["reading"]["number"] == 2, "{attempt}");
        test.measured(said);
        Ok(())
    });
}

async fn kill(test: &Test, namespace: &str, pod: &str) -> Result<()> {
    test.world.admin.delete(kind::POD, namespace, pod, Grace::None).await
}

#[test]
fn a_database_that_is_restarted_in_the_middle_fails_the_attempt_and_the_next_one_is_complete() {
    run(async |test| {
        if test.world.local().is_none() {
            test.not_here("the processes of this cluster's nodes cannot be reached");
            return Ok(());
        }
        let Some(world) = Drilled::bring(test, json!({ "retries": 3 }), json!({})).await? else {
            return Ok(());
        };
        let (protected, tenant) = (&world.protected, &world.protected.tenant);
        world.superuser(FILLER).await?;

        let name = protected.back_up(json!({})).await?;
        let (_, agent) = writing_pod(protected).await?;
        let streaming = PodProcess::caught(&agent, "--pgdata=-", SOME, BACKED_UP).await?;
        let pods = tenant.pods("database").await?;
        let text = |field: &str| pods.first().and_then(|pod| pod["metadata"][field].as_str());
        let (database, uid) = text("name").zip(text("uid")).context("a database")?;
        kill(test, &tenant.namespace, database).await?;
        eventually("PostgreSQL is gone", BACKED_UP, async || {
            let is_gone = PodProcess::find(uid, "--hba-file").is_err();
            Ok(Seen::when(is_gone.then_some(()), "it runs"))
        })
        .await?;
        // While its server's end of the connection still stands: later only its keepalives would tell it, in minutes.
        streaming.thaw()?;

        let said = protected.attempt_fails(&name, 1, BackupReason::DatabaseUnavailable).await?;
        ensure!(protected.commits()?.is_empty(), "something was committed: {:?}", protected.commits()?);
        protected.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;
        ensure!(protected.commits()?.len() == 1, "{:?}", protected.commits()?);
        tenant.ready().await?;
        world.passes().await.context("a drill of what was written after the restart")?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn a_pod_that_is_drained_only_delays_a_backup() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 5, 2).await? else { return Ok(()) };

        let name = held_at(&protected, &proxy, Moment::Before(Objects::Data, 1)).await?;
        let (agent, _) = writing_pod(&protected).await?;
        test.world.admin.evict(&protected.tenant.namespace, &agent).await?;
        let said = protected.attempt_fails(&name, 1, BackupReason::AgentFailed).await?;
        goes_on(&protected, &proxy, &name, 1).await?;
        test.measured(said);
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

        let name = held_at(&protected, &proxy, Moment::Before(Objects::Data, 1)).await?;
        let (_, agent) = writing_pod(&protected).await?;
        PodProcess::find(&agent, "backup").context("it writes")?;
        let power_returns = async {
            cut_power()?;
            ensure!(PodProcess::find(&agent, "backup").is_err(), "it writes on: it is not on that node");
            proxy.set(Fault::None);
            operator.is_ready().await?;
            protected.tenant.ready().await
        };
        // Whoever looks all the time sees it, though the next attempt may begin before all is ready again.
        let (said, ()) =
            tokio::try_join!(protected.attempt_fails(&name, 1, BackupReason::AgentFailed), power_returns)?;
        goes_on(&protected, &proxy, &name, 1).await.context("a backup")?;

        let name = drilled.drill(json!({})).await?;
        let into = drilled.namespace_of(&name).await?;
        let (_, uid) = running(test, &into, "judge").await?;
        PodProcess::find(&uid, "judge").context("it judges")?;
        let ended = cut_power()?;
        ensure!(PodProcess::find(&uid, "judge").is_err(), "it judges on");
        operator.is_ready().await?;
        let passed = drilled.ended(&name).await?;
        ensure!(passed["status"] == "False" && passed["reason"] == "CannotRestore", "{passed}");
        drilled.leaves_nothing(&name).await?;
        drilled.protected.tenant.ready().await?;
        drilled.passes().await.context("the next drill")?;
        test.measured(format_args!(
            "{ended} processes; the backup in the middle: {said}; the drill: {}",
            passed["message"]
        ));
        Ok(())
    });
}

#[test]
fn an_operator_that_is_killed_at_any_step_of_a_backup_is_followed_by_one_that_goes_on() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 5, 2).await? else { return Ok(()) };
        test.alone().await?;

        // Of a tenant's first backup alone: the operator says whose the archive is.
        outlives_its_operator(test, &protected, &proxy, Moment::Before(Objects::Owners, 0), 1).await?;
        let all = puts_of_a_backup(&protected, &proxy).await?;
        // While agents work: at each object of one, and while another reads back. And at the operator's own commit.
        let of_agents = (0..all).map(|through| Moment::Before(Objects::Data, through));
        let of_operators = [
            Moment::ReadBack,
            Moment::Before(Objects::Commits, 0),
            Moment::Within(Objects::Commits, 0),
            Moment::After(Objects::Commits, 0),
        ];
        let mut commits = 2;
        for moment in of_agents.chain(of_operators) {
            commits += 1;
            outlives_its_operator(test, &protected, &proxy, moment, commits).await?;
        }
        test.measured(format_args!("killed at {} steps: complete each time, one commit each", commits - 1));
        Ok(())
    });
}

/// A backup whose operator is killed at this moment is complete all the same, and is the one of so many commits.
async fn outlives_its_operator(
    test: &Test,
    protected: &Protected<'_>,
    proxy: &FaultProxy,
    moment: Moment,
    commits: usize,
) -> Result<()> {
    let operator = test.operator();
    let leader = operator.is_ready().await?;
    let name = held_at(protected, proxy, moment).await?;
    kill(test, NAMESPACE, &leader.pod).await?;
    operator.is_led_by_another_than(&leader).await?;
    goes_on(protected, proxy, &name, commits).await.with_context(|| format!("killed {moment:?}"))
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

        let leader = operator.is_ready().await?;
        let pod = test.world.admin.get(kind::POD, NAMESPACE, &leader.pod).await?;
        let uid = pod["metadata"]["uid"].as_str().context("a pod has a UID")?;
        let process = PodProcess::find(uid, "operator")?;
        // The commit is on its way when the leader stops, and stays there.
        let name = held_at(&protected, &proxy, Moment::Before(Objects::Commits, 0)).await?;
        process.freeze()?;
        let of_the_first = proxy.kept();
        operator.is_led_by_another_than(&leader).await?;
        eventually("the other one puts the commit too", BACKED_UP, async || {
            let seen = format!("{} of {of_the_first}", proxy.kept());
            Ok(Seen::when((proxy.kept() > of_the_first).then_some(()), seen))
        })
        .await?;
        ensure!(PodProcess::find(uid, "operator").is_ok(), "the first one is gone: it was not frozen long");
        // Both reach the store, the first one's while it still stands and has not heard that it leads no more.
        proxy.set(Fault::None);
        protected.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;
        process.thaw()?;

        goes_on(&protected, &proxy, &name, 1).await?;
        operator.is_ready().await?;
        protected.complete().await.context("the next one")?;
        ensure!(protected.commits()?.len() == 2, "{:?}", protected.commits()?);
        test.measured("two put it, and one commit lies there");
        Ok(())
    });
}
