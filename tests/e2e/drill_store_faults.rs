//! What a store or the way to it can do to a drill: delay it, or end it without a word about the backup. Never does one
//! pass that is not, nothing that was restored is left, and the next drill passes without a hand.
//!
//! The fault proxy stands between pods and the real store; it is a double, for faults that no real one can be made
//! to show.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use faults::{Fault, FaultProxy, Objects};
use futures::future::try_join_all;
use harness::actor::Change;
use harness::drilled::{DRILLED, Drilled};
use harness::operator::NAMESPACE;
use harness::process::PodProcess;
use harness::store::stores;
use harness::{Seen, Test, eventually, kind, proxy, run};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use valv_cluster::Validity;
use valv_crds::condition::{ConditionType, Reason};
use valv_crds::drill::{DrillCondition, DrillReason};

use crate::store_faults::hurried;

/// Drills that may wait for those of other tests, one after the other, until their time is over.
const TURNS: usize = 10;

/// A tenant with a backup, whose way to Helsinki is the double's.
pub async fn bring<'a>(
    test: &'a Test,
    policy: Value,
    tries: u32,
) -> Result<Option<(Drilled<'a>, FaultProxy)>> {
    let Some([helsinki, _]) = stores(test)? else { return Ok(None) };
    let cluster = test.world.local().context("the stores are the local cluster's")?;
    let proxy = proxy::before(cluster, &helsinki)?;
    let drilled =
        Drilled::bring(test, policy, hurried(&proxy, tries)).await?.context("the store is there")?;
    drilled.back_up().await?;
    Ok(Some((drilled, proxy)))
}

#[test]
fn a_store_that_is_busy_or_whose_answers_are_cut_off_only_delays_a_drill() {
    run(async |test| {
        let Some((world, proxy)) = bring(test, json!({}), 5).await? else { return Ok(()) };
        for fault in [Fault::BusyEveryThird, Fault::ReadLostEveryThird] {
            proxy.set(fault);
            world.passes().await.with_context(|| format!("{fault:?}"))?;
            ensure!(proxy.reads() >= 3, "{fault:?}: no third read was asked of the double");
        }
        test.measured("503 to every third request, and every third answer cut off: both pass");
        Ok(())
    });
}

#[test]
fn a_store_that_fails_for_long_ends_a_drill_with_its_reason_and_the_next_one_passes() {
    run(async |test| {
        let faults = [
            (Trouble::Of(Fault::Slow { bytes_per_second: 8 * 1024 }), DrillReason::StoreUnavailable),
            (Trouble::Of(Fault::ReadsHeldAfter { reads: 1 }), DrillReason::StoreUnavailable),
            (Trouble::Of(Fault::Unreachable), DrillReason::StoreUnavailable),
            (Trouble::Of(Fault::AlwaysBusy), DrillReason::StoreUnavailable),
            (Trouble::Of(Fault::RevokedAfterReads { reads: 1 }), DrillReason::CredentialsRefused),
            (Trouble::ExpiredCertificate, DrillReason::TlsRefused),
        ];
        let mut tried = vec![];
        for pair in faults.chunks(2) {
            tried.extend(
                try_join_all(pair.iter().map(|(trouble, reason)| fails(test, *trouble, *reason))).await?,
            );
        }
        if tried.iter().all(Option::is_some) {
            test.measured(format_args!("{} faults, each with its reason", tried.len()));
        }
        Ok(())
    });
}

/// What is done to the way to the store.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Of(Fault),
    ExpiredCertificate,
}

impl Trouble {
    fn begins(self, world: &Drilled<'_>, proxy: &FaultProxy) -> Result<()> {
        match self {
            Self::Of(fault) => proxy.set(fault),
            Self::ExpiredCertificate => {
                let server = &world.protected.store().server;
                proxy.present(&proxy::certificate(server, Validity::Expired)?)?;
            }
        }
        Ok(())
    }

    fn ends(self, world: &Drilled<'_>, proxy: &FaultProxy) -> Result<()> {
        proxy.set(Fault::None);
        proxy.present(&proxy::certificate(&world.protected.store().server, Validity::Valid)?)
    }
}

async fn fails(test: &Test, trouble: Trouble, reason: DrillReason) -> Result<Option<()>> {
    let Some((world, proxy)) = bring(test, json!({}), 2).await? else { return Ok(None) };

    let name = world.drill(json!({})).await?;
    // The operator has chosen by then: what the store does from now on is done to the agent.
    let into = world.namespace_of(&name).await?;
    world.is_there(kind::JOB, &into, "restore").await?;
    trouble.begins(&world, &proxy)?;
    world
        .says(&name, DrillCondition::Passed, "False", reason)
        .await
        .with_context(|| format!("{trouble:?}"))?;

    trouble.ends(&world, &proxy)?;
    world.leaves_nothing(&name).await?;
    world.passes().await.with_context(|| format!("after {trouble:?}"))?;
    let tenant = &world.protected.tenant;
    tenant
        .says(ConditionType::Drilled, "True", Reason::AsAsked)
        .await
        .with_context(|| format!("after {trouble:?}"))?;
    Ok(Some(()))
}

#[test]
fn a_record_that_cannot_be_put_is_put_as_soon_as_it_can() {
    run(async |test| {
        let Some((world, proxy)) = bring(test, json!({}), 2).await? else { return Ok(()) };

        let name = world.drill(json!({})).await?;
        let into = world.namespace_of(&name).await?;
        world.is_there(kind::JOB, &into, "judge").await?;
        // All was read by then.
        proxy.set(Fault::Unreachable);
        let said = world.says(&name, DrillCondition::Recorded, "False", DrillReason::RecordFailed).await?;
        world.says(&name, DrillCondition::Passed, "True", DrillReason::AsAsked).await?;

        proxy.set(Fault::None);
        world.ends(&name, "True").await?;

        // It is there, and nobody was told so: it is put once all the same.
        proxy.set(Fault::AnswerLost { of: Objects::Records, put: 1 });
        let name = world.passes().await?;
        ensure!(proxy.puts(Objects::Records) > 1, "no answer was lost, or nobody asked again");
        let record = world.object(&name).await?["status"]["record"]["object"]["key"].clone();
        let versions = world.protected.store().versions(record.as_str().context("it has a record")?)?;
        ensure!(versions == 1, "there are {versions} of one record");
        test.measured(said);
        Ok(())
    });
}

#[test]
fn a_drill_that_takes_too_long_is_ended_and_leaves_nothing() {
    run(async |test| {
        let policy = json!({ "drill": { "schedule": { "deadline": "1m" } } });
        let Some((world, proxy)) = bring(test, policy, 5).await? else { return Ok(()) };

        // Faster than what counts as no answer.
        proxy.set(Fault::Slow { bytes_per_second: 40 * 1024 });
        let mut said = String::new();
        for _ in 0..TURNS {
            let name = world.drill(json!({})).await?;
            said = world.says(&name, DrillCondition::Passed, "False", DrillReason::DeadlineExceeded).await?;
            world.leaves_nothing(&name).await?;
            // One that waited for those of other tests until its time was over did not begin.
            if !said.contains("turn") {
                break;
            }
        }
        ensure!(!said.contains("turn"), "none of {TURNS} drills got its turn: {said}");
        proxy.set(Fault::None);
        world.change_drills(json!({ "schedule": { "deadline": "1h" } })).await?;
        world.passes().await.context("with time enough")?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn what_keeps_a_drill_from_being_torn_down_is_told_until_it_is() {
    run(async |test| {
        let Some((world, _proxy)) = bring(test, json!({}), 5).await? else { return Ok(()) };
        let admin = &test.world.admin;

        let name = world.drill(json!({})).await?;
        let into = world.namespace_of(&name).await?;
        world.is_there(kind::JOB, &into, "judge").await?;
        let held =
            json!({ "metadata": { "finalizers": ["example.org/held", "kubernetes.io/pvc-protection"] } });
        let claims = admin.list(kind::PERSISTENT_VOLUME_CLAIM, &into, "").await?;
        let claim = claims.first().and_then(|claim| claim["metadata"]["name"].as_str()).context("a claim")?;
        admin.change(kind::PERSISTENT_VOLUME_CLAIM, &into, claim, Change::Merge(&held)).await?;

        world.says(&name, DrillCondition::Passed, "True", DrillReason::AsAsked).await?;
        let said = world.says(&name, DrillCondition::TornDown, "False", DrillReason::TearDownFailed).await?;
        ensure!(said.contains(claim), "it does not say what is left: {said}");
        let free = json!({ "metadata": { "finalizers": null } });
        admin.change(kind::PERSISTENT_VOLUME_CLAIM, &into, claim, Change::Merge(&free)).await?;
        world.leaves_nothing(&name).await?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn an_agent_that_is_killed_ends_its_drill_which_leaves_nothing_and_the_next_one_passes() {
    run(async |test| {
        if test.world.local().is_none() {
            test.not_here("the processes of this cluster's nodes cannot be reached");
            return Ok(());
        }
        let Some((world, proxy)) = bring(test, json!({}), 5).await? else { return Ok(()) };
        let mut said = vec![];
        for (job, how) in [("restore", "killed"), ("restore", "drained"), ("judge", "killed")] {
            let name = world.drill(json!({})).await?;
            let into = world.namespace_of(&name).await?;
            world.is_there(kind::JOB, &into, job).await?;
            // So that it is in the middle: the operator has chosen, and what the agent reads does not come.
            let fault = if job == "restore" { Fault::ReadsHeldAfter { reads: 2 } } else { Fault::None };
            proxy.set(fault);
            let (pod, uid) = running(test, &into, job).await?;
            match how {
                "killed" => PodProcess::find(&uid, job)?.kill()?,
                _ => test.world.admin.evict(&into, &pod).await?,
            }
            let what = format!("{job} was {how}");
            let ended = world
                .says(&name, DrillCondition::Passed, "False", DrillReason::CannotRestore)
                .await
                .with_context(|| what.clone())?;
            proxy.set(Fault::None);
            world.leaves_nothing(&name).await.with_context(|| what.clone())?;
            world.passes().await.with_context(|| format!("after {what}"))?;
            said.push(format!("{what}: {ended}"));
        }
        test.measured(said.join("; "));
        Ok(())
    });
}

#[test]
fn what_a_drill_restored_reaches_neither_store_nor_names_nor_cluster_nor_the_tenants_database() {
    run(async |test| {
        // So that the judge's pod is there for as long as it is tried.
        let policy = json!({ "drill": { "checks": [
            { "name": "takes-its-time", "sql": "SELECT count(*) = 1 FROM pg_sleep(20)", "timeout": "60s" },
        ]}});
        let Some((world, proxy)) = bring(test, policy, 5).await? else { return Ok(()) };
        let places = Places::of(test, &world).await?;
        let name = world.drill(json!({})).await?;
        let into = world.namespace_of(&name).await?;

        world.is_there(kind::JOB, &into, "restore").await?;
        proxy.set(Fault::ReadsHeldAfter { reads: 1 });
        let (_, restore) = running(test, &into, "restore").await?;
        // The positive control to the store and to names, and a wall to the rest.
        let restoring = places.reached_from(&restore).await?;
        proxy.set(Fault::None);
        ensure!(
            restoring == ["store", "names by UDP", "names by TCP"],
            "the pod that restores: {restoring:?}"
        );

        let (_, judge) = running(test, &into, "judge").await?;
        let judging = places.reached_from(&judge).await?;
        ensure!(judging.is_empty(), "the pod that judges: {judging:?}");

        let journal = eventually("the restored journal runs", DRILLED, async || {
            let pods = test.world.admin.list(kind::POD, &into, "valv.eu/role=journal").await?;
            let pod = pods.iter().find(|pod| pod["status"]["phase"] == "Running");
            let uid = pod.and_then(|pod| pod["metadata"]["uid"].as_str()).map(str::to_owned);
            Ok(Seen::when(uid, format!("{} pods", pods.len())))
        })
        .await?;
        let restored = places.reached_from(&journal).await?;
        ensure!(restored.is_empty(), "the restored journal: {restored:?}");
        world.ends(&name, "True").await?;

        // And the positive controls to the rest, by the same means.
        let of_tenant = places.reached_from(&uid_of(&world.protected.tenant.pods("journal").await?)?).await?;
        ensure!(
            of_tenant == ["names by UDP", "names by TCP", "database"],
            "the tenant's journal: {of_tenant:?}"
        );
        let leader = test.operator().leader().await?;
        let pod = test.world.admin.get(kind::POD, NAMESPACE, &leader.pod).await?;
        let of_operator = places.reached_from(&uid_of(&[pod])?).await?;
        ensure!(
            of_operator.contains(&"API server"),
            "no positive control: the operator reaches {of_operator:?}"
        );
        test.measured("the restoring pod: store and names only; the judge and the restored journal: nothing");
        Ok(())
    });
}

/// Where a pod of a drill might go.
struct Places {
    store: SocketAddr,
    names: SocketAddr,
    cluster: SocketAddr,
    database: SocketAddr,
}

impl Places {
    async fn of(test: &Test, world: &Drilled<'_>) -> Result<Self> {
        let cluster = test.world.local().context("the stores are the local cluster's")?;
        let address = |pods: &[Value]| -> Result<IpAddr> {
            let address =
                pods.first().and_then(|pod| pod["status"]["podIP"].as_str()).context("a pod's address")?;
            Ok(address.parse()?)
        };
        let names = test.world.admin.list(kind::POD, "kube-system", "k8s-app=kube-dns").await?;
        let database = world.protected.tenant.pods("database").await?;
        Ok(Self {
            store: world.protected.store().server.address,
            names: SocketAddr::new(address(&names)?, 53),
            cluster: SocketAddr::new(cluster.node_ip(1).parse()?, 6443),
            database: SocketAddr::new(address(&database)?, 5432),
        })
    }

    /// All at once: each that is walled off takes the whole time.
    async fn reached_from(&self, uid: &str) -> Result<Vec<&'static str>> {
        let process = PodProcess::any(uid)?;
        let Self { store, names, cluster, database } = *self;
        let (store, by_udp, by_tcp, cluster, database) = tokio::try_join!(
            spawn_blocking(move || process.reaches(store)),
            spawn_blocking(move || process.asks_for_names(names)),
            spawn_blocking(move || process.reaches(names)),
            spawn_blocking(move || process.reaches(cluster)),
            spawn_blocking(move || process.reaches(database)),
        )?;
        let tried = [
            ("store", store?),
            ("names by UDP", by_udp?),
            ("names by TCP", by_tcp?),
            ("API server", cluster?),
            ("database", database?),
        ];
        Ok(tried.into_iter().filter(|(_, is_reached)| *is_reached).map(|(name, _)| name).collect())
    }
}

fn uid_of(pods: &[Value]) -> Result<String> {
    let uid = pods.first().and_then(|pod| pod["metadata"]["uid"].as_str());
    uid.map(str::to_owned).context("a pod with a UID")
}

/// Waits until a drill's Job has a pod that runs: its name and its UID.
pub async fn running(test: &Test, into: &str, job: &str) -> Result<(String, String)> {
    eventually(format!("a pod of {job} runs"), Duration::from_secs(180), async || {
        let pods =
            test.world.admin.list(kind::POD, into, &format!("batch.kubernetes.io/job-name={job}")).await?;
        let pod = pods.iter().find(|pod| pod["status"]["phase"] == "Running");
        let text = |field: &str| pod.and_then(|pod| pod["metadata"][field].as_str()).map(str::to_owned);
        Ok(Seen::when(text("name").zip(text("uid")), format!("{} pods", pods.len())))
    })
    .await
}
