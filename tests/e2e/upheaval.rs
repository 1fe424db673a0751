//! What disturbs everybody: the operator restarted, killed, frozen, upgraded, taken away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use faults::Fault;
use harness::actor::{Change, Grace};
use harness::audit::Mark;
use harness::drilled::Drilled;
use harness::operator::{NAMESPACE, is_work};
use harness::process::PodProcess;
use harness::tenant::STEP;
use harness::{Seen, Tenant, Test, Writer, eventually, kind, run};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use valv_cluster::BUCKET;
use valv_cluster::s3::{Method, Request};
use valv_crds::drill::{DrillCondition, DrillReason};
use valv_crds::reference::FINALIZER;

use crate::drill_store_faults;

/// What the issue asks for: how long nothing may be written after a restart.
const QUIET: Duration = Duration::from_secs(60);

/// What the issue asks for: how soon another leads after a leader died.
const TAKEN_OVER: Duration = Duration::from_secs(20);

/// What the issue asks for: how long a leader is frozen. Longer than its Lease lasts.
const FROZEN: Duration = Duration::from_secs(30);

/// What an operator exits with that has lost its Lease.
const LOST_THE_LEASE: u64 = 3;

#[test]
fn a_drill_whose_operator_is_killed_at_any_step_is_finished_by_the_next() {
    run(async |test| {
        let Some(world) = Drilled::bring(test, json!({}), json!({})).await? else { return Ok(()) };
        world.back_up().await?;
        test.alone().await?;
        let name = world.drill(json!({})).await?;
        let into = world.namespace_of(&name).await?;
        let operator = test.operator();
        let steps = [
            (kind::NAMESPACE, "", into.as_str()),
            (kind::JOB, into.as_str(), "restore"),
            (kind::JOB, into.as_str(), "judge"),
            (kind::DEPLOYMENT, into.as_str(), "journal"),
        ];
        for (kind, namespace, of) in steps {
            world.is_there(kind, namespace, of).await?;
            kill_the_leader(test).await?;
        }
        world.says(&name, DrillCondition::Passed, "True", DrillReason::AsAsked).await?;
        // It is being recorded and torn down.
        kill_the_leader(test).await?;

        world.ends(&name, "True").await?;
        world.leaves_nothing(&name).await?;
        ensure!(records(&world)? == 1, "{} records of one drill", records(&world)?);
        operator.is_ready().await?;
        test.measured("killed at namespace, restore, judge, journal and end: passed, one record");
        Ok(())
    });
}

#[test]
fn of_two_operators_at_once_a_drill_has_one_verdict() {
    run(async |test| {
        if test.world.local().is_none() {
            test.not_here("the processes of this cluster's nodes cannot be reached");
            return Ok(());
        }
        let Some(world) = Drilled::bring(test, json!({}), json!({})).await? else { return Ok(()) };
        world.back_up().await?;
        test.alone().await?;
        let operator = test.operator();
        let leader = operator.is_ready().await?;
        let pod = test.world.admin.get(kind::POD, NAMESPACE, &leader.pod).await?;
        let process = process_of(&pod)?;
        let name = world.drill(json!({})).await?;
        let into = world.namespace_of(&name).await?;
        world.is_there(kind::JOB, &into, "judge").await?;

        process.freeze()?;
        operator.is_led_by_another_than(&leader).await?;
        process.thaw()?;

        world.ends(&name, "True").await?;
        world.leaves_nothing(&name).await?;
        ensure!(records(&world)? == 1, "{} records of one drill", records(&world)?);
        operator.is_ready().await?;
        Ok(())
    });
}

#[test]
fn of_two_operators_at_once_a_drill_has_one_record_and_leaves_nothing() {
    run(async |test| {
        if test.world.local().is_none() {
            test.not_here("the processes of this cluster's nodes cannot be reached");
            return Ok(());
        }
        let Some((world, proxy)) = drill_store_faults::bring(test, json!({}), 2).await? else {
            return Ok(());
        };
        test.alone().await?;
        let name = world.drill(json!({})).await?;
        let into = world.namespace_of(&name).await?;
        world.is_there(kind::JOB, &into, "judge").await?;
        // All was read by then. What records is held up, and what takes away.
        proxy.set(Fault::Unreachable);
        let admin = &test.world.admin;
        let claims = admin.list(kind::PERSISTENT_VOLUME_CLAIM, &into, "").await?;
        let claim = claims.first().and_then(|claim| claim["metadata"]["name"].as_str()).context("a claim")?;
        let held =
            json!({ "metadata": { "finalizers": ["example.org/held", "kubernetes.io/pvc-protection"] } });
        admin.change(kind::PERSISTENT_VOLUME_CLAIM, &into, claim, Change::Merge(&held)).await?;
        world.says(&name, DrillCondition::Recorded, "False", DrillReason::RecordFailed).await?;

        // While it records: the one that takes over may record as soon as the other does.
        let frozen = freeze_the_leader(test).await?;
        proxy.set(Fault::None);
        frozen.thaw()?;
        world.says(&name, DrillCondition::Recorded, "True", DrillReason::AsAsked).await?;
        test.operator().is_ready().await?;

        // While it takes away.
        eventually("it is taken away but for the claim", Duration::from_secs(180), async || {
            let pods = admin.list(kind::POD, &into, "").await?;
            let claim = admin.find(kind::PERSISTENT_VOLUME_CLAIM, &into, claim).await?;
            let is_going = claim.is_some_and(|claim| claim["metadata"]["deletionTimestamp"].is_string());
            Ok(Seen::when((is_going && pods.is_empty()).then_some(()), format!("{} pods", pods.len())))
        })
        .await?;
        let frozen = freeze_the_leader(test).await?;
        let free = json!({ "metadata": { "finalizers": null } });
        admin.change(kind::PERSISTENT_VOLUME_CLAIM, &into, claim, Change::Merge(&free)).await?;
        frozen.thaw()?;

        world.ends(&name, "True").await?;
        world.leaves_nothing(&name).await?;
        ensure!(records(&world)? == 1, "{} records of one drill", records(&world)?);
        test.operator().is_ready().await?;
        test.measured("two at once while it records and while it takes away: one record, nothing left");
        Ok(())
    });
}

/// Stops the leader's process, and waits until another leads: once it goes on, there are two.
async fn freeze_the_leader(test: &Test) -> Result<PodProcess> {
    let operator = test.operator();
    let leader = operator.is_ready().await?;
    let process = process_of(&test.world.admin.get(kind::POD, NAMESPACE, &leader.pod).await?)?;
    process.freeze()?;
    operator.is_led_by_another_than(&leader).await?;
    Ok(process)
}

/// Ends the leader as a node that loses power does, and waits for the next.
async fn kill_the_leader(test: &Test) -> Result<()> {
    let operator = test.operator();
    let leader = operator.leader().await?;
    test.world.admin.delete(kind::POD, NAMESPACE, &leader.pod, Grace::None).await?;
    operator.is_led_by_another_than(&leader).await.map(drop)
}

/// How often a record of a drill was put: a second time would be another version, or another object.
fn records(world: &Drilled<'_>) -> Result<usize> {
    let store = world.protected.store();
    let prefix = format!("{}/v1/{}/records/drill-", store.name, world.protected.tenant.name);
    let list =
        Request::new(Method::Get, &format!("/{BUCKET}")).query("versions", "").query("prefix", &prefix);
    Ok(store.server.administrator()?.must(&list)?.text().matches("<VersionId>").count())
}

#[test]
fn a_restarted_operator_writes_nothing_but_its_lease() {
    run(async |test| {
        let Some(audit) = test.world.audit() else {
            test.not_here("the audit log of this cluster cannot be read");
            return Ok(());
        };
        let (one, other) = (test.tenant("settled")?, test.tenant("resting")?.with("suspended: true")?);
        one.up().await?;
        other.apply().await?;
        test.alone().await?;
        let operator = test.operator();
        operator.is_settled().await?;

        let before = audit.mark()?;
        let begun = Instant::now();
        for pod in operator.pods().await? {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            test.world.admin.delete(kind::POD, NAMESPACE, name, Grace::Usual).await?;
        }
        operator.is_ready().await?;
        let ready = begun.elapsed();
        // A window, not a wait: nothing is to happen in it.
        sleep(QUIET).await;

        let requests = audit.since(before)?;
        let renewals = requests.iter().filter(|request| request.is_about("leases", "valv-operator")).count();
        let writes: Vec<_> =
            requests.iter().filter(|request| is_work(request)).map(ToString::to_string).collect();
        test.measured(format_args!(
            "ready after {:.1} s; then and for {} s: {} writes, {renewals} requests about its Lease",
            ready.as_secs_f32(),
            QUIET.as_secs(),
            writes.len()
        ));
        ensure!(renewals > 0, "the audit log does not show what the operator does");
        ensure!(writes.is_empty(), "it wrote: {writes:#?}");
        Ok(())
    });
}

#[test]
fn when_the_leader_is_killed_another_leads_within_twenty_seconds() {
    run(async |test| {
        test.alone().await?;
        let operator = test.operator();
        let leader = operator.is_ready().await?;
        let pod = test.world.admin.get(kind::POD, NAMESPACE, &leader.pod).await?;

        let begun = Instant::now();
        if test.world.local().is_some() {
            process_of(&pod)?.kill()?;
        } else {
            test.world.admin.delete(kind::POD, NAMESPACE, &leader.pod, Grace::None).await?;
        }
        let next = operator.is_led_by_another_than(&leader).await?;
        let took = begun.elapsed();

        test.measured(format_args!(
            "{} took over from {} after {:.1} s",
            next.pod,
            leader.pod,
            took.as_secs_f32()
        ));
        operator.is_ready().await?;
        ensure!(took < TAKEN_OVER, "only after {took:?}");
        Ok(())
    });
}

#[test]
fn a_leader_that_was_frozen_writes_nothing_once_another_leads() {
    run(async |test| {
        let Some(audit) = test.world.audit() else {
            test.not_here("the processes of this cluster's nodes cannot be reached");
            return Ok(());
        };
        let tenant = test.tenant("watched")?;
        tenant.up().await?;
        test.alone().await?;
        let operator = test.operator();
        let frozen = operator.is_ready().await?;
        let pod = test.world.admin.get(kind::POD, NAMESPACE, &frozen.pod).await?;
        let process = process_of(&pod)?;

        let begun = Instant::now();
        process.freeze()?;
        // Something to do, of which the frozen one hears when it thaws.
        tenant.remove(kind::CONFIG_MAP, "authorities").await?;
        let next = operator.is_led_by_another_than(&frozen).await?;
        let taken_over = audit.mark()?;
        let after = begun.elapsed();
        tenant.is_there(kind::CONFIG_MAP, "authorities").await?;
        sleep(FROZEN.saturating_sub(begun.elapsed())).await;
        tenant.remove(kind::NETWORK_POLICY, "allow-dns").await?;
        process.thaw()?;
        let exit = exit_code(test, &pod).await?;
        tenant.is_there(kind::NETWORK_POLICY, "allow-dns").await?;
        operator.is_ready().await?;
        operator.is_settled().await?;

        let (asked, written) = requests_of(test, &frozen.pod, taken_over)?;
        let (_, by_next) = requests_of(test, &next.pod, taken_over)?;
        test.measured(format_args!(
            "another led after {:.1} s; frozen {} s, then: {asked} requests, {} writes, exit code {exit}",
            after.as_secs_f32(),
            FROZEN.as_secs(),
            written.len()
        ));
        ensure!(exit == LOST_THE_LEASE, "the one that was frozen exited with {exit}");
        ensure!(written.is_empty(), "it wrote: {written:#?}");
        ensure!(!by_next.is_empty(), "no positive control: nothing was written by the one that leads");
        ensure!(operator.leader().await? == next, "another leads than the one that took over");
        Ok(())
    });
}

#[test]
fn an_upgrade_to_another_operator_leaves_tenants_untouched() {
    run(async |test| {
        let Some((cluster, audit)) = test.world.local().zip(test.world.audit()) else {
            test.not_here("another image cannot be brought to the nodes of this cluster");
            return Ok(());
        };
        let image = test.world.image("valv")?;
        let next = format!("{image}-next");
        cluster.tag_image(image, &next)?;
        let tenant = test.tenant("untouched")?;
        tenant.up().await?;
        test.alone().await?;
        let operator = test.operator();
        operator.is_settled().await?;
        let before = running(&tenant).await?;
        test.changes_the_installation();

        let mark = audit.mark()?;
        let begun = Instant::now();
        test.helm().install(&json!({ "images": { "valv": next } })).await?;
        let leader = operator.is_ready().await?;
        let took = begun.elapsed();
        operator.is_settled().await?;

        let after = running(&tenant).await?;
        let images: Vec<_> = operator.pods().await?.iter().map(image_of).collect();
        let requests = audit.since(mark)?;
        let looked = requests.iter().filter(|request| request.is_by_pod(&leader.pod)).count();
        let writes: Vec<_> =
            requests.iter().filter(|request| is_work(request)).map(ToString::to_string).collect();
        test.measured(format_args!(
            "upgraded after {:.0} s, {} pods untouched, {} writes",
            took.as_secs_f32(),
            before.len(),
            writes.len()
        ));
        ensure!(images.iter().all(|image| *image == next), "the operator runs from {images:?}");
        ensure!(looked > 0, "the audit log does not show what the new operator does");
        ensure!(writes.is_empty(), "it wrote: {writes:#?}");
        ensure!(after == before, "before: {before:#?}, after: {after:#?}");
        tenant.ready().await
    });
}

#[test]
fn tenants_run_on_without_the_operator_and_are_taken_up_again() {
    run(async |test| {
        let tenant = test.tenant("orphaned")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        test.alone().await?;
        let before = running(&tenant).await?;
        let writer = Writer::start(&journal).await?;
        test.changes_the_installation();

        let begun = Instant::now();
        test.helm().uninstall().await?;
        let gone = begun.elapsed();
        let left = finalizers(test).await;
        let defined = tenant.object().await.is_ok();
        test.helm().install(&json!({})).await?;
        let begun = Instant::now();
        eventually("the operator holds its tenant again", STEP, async || {
            let object = tenant.object().await?;
            Ok(Seen::when(holds(&object).then_some(()), &object["metadata"]["finalizers"]))
        })
        .await?;
        tenant.ready().await?;

        let report = writer.stop().await?;
        test.measured(format_args!(
            "uninstalled after {:.0} s, held again {:.0} s after it was back; {report}",
            gone.as_secs_f32(),
            begun.elapsed().as_secs_f32()
        ));
        ensure!(defined, "the tenants went with the chart");
        ensure!(left?.is_empty(), "tenants were left that nobody could delete");
        ensure!(running(&tenant).await? == before, "the tenant's pods are others");
        report.ensure_nothing_failed()
    });
}

fn process_of(pod: &Value) -> Result<PodProcess> {
    PodProcess::find(pod["metadata"]["uid"].as_str().context("a pod has a UID")?, "operator")
}

/// How many requests a pod made after a moment, and which of them were to write.
fn requests_of(test: &Test, pod: &str, since: Mark) -> Result<(usize, Vec<String>)> {
    let audit = test.world.audit().context("no audit log")?;
    let requests: Vec<_> = audit.since(since)?.into_iter().filter(|request| request.is_by_pod(pod)).collect();
    let writes = requests.iter().filter(|request| request.is_write()).map(ToString::to_string).collect();
    Ok((requests.len(), writes))
}

/// Waits until the operator's container in `pod` has ended and was started again. Returns its exit code.
async fn exit_code(test: &Test, pod: &Value) -> Result<Value> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
    eventually(format!("{name} starts again"), STEP, async || {
        let now = test.world.admin.get(kind::POD, NAMESPACE, name).await?;
        let status = &now["status"]["containerStatuses"][0];
        let ended =
            (status["restartCount"] != *restarts).then(|| &status["lastState"]["terminated"]["exitCode"]);
        Ok(ended.map_or(Seen::NotYet(status["state"].to_string()), |code| Seen::Yes(code.clone())))
    })
    .await
}

/// UID and restarts of every pod of a tenant.
async fn running(tenant: &Tenant) -> Result<Vec<String>> {
    let pods = tenant.list(kind::POD, "valv.eu/serving=true").await?;
    ensure!(pods.len() == 2, "{} pods run", pods.len());
    Ok(pods.iter().map(run_of).collect())
}

fn image_of(pod: &Value) -> String {
    pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
}

fn run_of(pod: &Value) -> String {
    let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    let restarts: Vec<_> = statuses.iter().map(|status| status["restartCount"].to_string()).collect();
    format!("{} {} {}", pod["metadata"]["name"], pod["metadata"]["uid"], restarts.join(" "))
}

/// Tenants that the operator still holds.
async fn finalizers(test: &Test) -> Result<Vec<String>> {
    let tenants = test.world.admin.list(kind::JOURNAL_TENANT, "", "").await?;
    Ok(tenants
        .iter()
        .filter(|tenant| holds(tenant))
        .map(|tenant| tenant["metadata"]["name"].to_string())
        .collect())
}

fn holds(tenant: &Value) -> bool {
    let finalizers = tenant["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|all| all.iter().any(|finalizer| finalizer == FINALIZER))
}
