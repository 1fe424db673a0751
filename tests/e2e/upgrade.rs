//! A new version of the journal.

use anyhow::{Context, Result, ensure};
use harness::journal::is_ready;
use harness::tenant::STEP;
use harness::{Seen, Tenant, Test, Writer, eventually, kind, run};
use serde_json::Value;
use tokio::time::Instant;
use valv_crds::condition::{ConditionType, Reason};

#[test]
fn an_upgrade_and_the_way_back_lose_no_request() {
    run(async |test| {
        let tenant = test.tenant("upgrade")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        let writer = Writer::start(&journal).await?;

        let begun = Instant::now();
        tenant.edit("journal: {image: journal-2}").await?;
        the_migration_comes_first(&tenant, test.world.image("journal-2")?).await?;
        tenant.ready().await?;
        let took = begun.elapsed();
        journal.is_version("2.0.0").await?;
        tenant.edit("journal: {image: journal-1}").await?;
        tenant.ready().await?;
        let newer = tenant.says(ConditionType::SchemaCurrent, "True", Reason::SchemaNewer).await?;
        journal.is_version("1.0.0").await?;

        let report = writer.stop().await?;
        test.measured(format_args!("upgraded after {:.1} s; {report}", took.as_secs_f32()));
        report.ensure_nothing_failed()?;
        ensure!(newer.message.contains("a schema does not go back"), "{}", newer.message);
        Ok(())
    });
}

#[test]
fn a_migration_that_fails_leaves_the_version_before_it_serving() {
    run(async |test| {
        let tenant = test.tenant("failing")?.with("journal: {image: journal-2}")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        let writer = Writer::start(&journal).await?;

        tenant.edit("journal: {image: journal-3}").await?;
        let said = tenant.says(ConditionType::Ready, "False", Reason::MigrationFailed).await?;
        journal.is_version("2.0.0").await?;
        tenant.edit("journal: {image: journal-2}").await?;
        tenant.ready().await?;

        let report = writer.stop().await?;
        test.measured(&report);
        report.ensure_nothing_failed()?;
        let words = ["0003_care_unit", "care_unit", test.world.image("journal-2")?, "serves"];
        for word in words {
            ensure!(said.message.contains(word), "no {word} in: {}", said.message);
        }
        tenant.says(ConditionType::SchemaCurrent, "True", Reason::AsAsked).await.map(drop)
    });
}

#[test]
fn what_is_edited_while_an_upgrade_runs_is_not_lost() {
    run(async |test| {
        let tenant = test.tenant("hurried")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        let writer = Writer::start(&journal).await?;

        tenant.edit("journal: {image: journal-2}").await?;
        a_migration_runs(&tenant).await?;
        tenant.edit("journal: {replicas: 2}").await?;
        tenant.ready().await?;
        let serving = tenant.pods("journal").await?.iter().filter(|pod| is_ready(pod)).count();

        let report = writer.stop().await?;
        test.measured(&report);
        report.ensure_nothing_failed()?;
        ensure!(serving == 2, "it said Ready while {serving} of 2 pods answered");
        journal.is_version("2.0.0").await
    });
}

#[test]
fn an_upgrade_that_is_taken_back_while_it_migrates_is_told_as_a_newer_schema() {
    run(async |test| {
        let tenant = test.tenant("undecided")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        let writer = Writer::start(&journal).await?;

        tenant.edit("journal: {image: journal-2}").await?;
        a_migration_runs(&tenant).await?;
        tenant.edit("journal: {image: journal-1}").await?;
        let said = tenant.says(ConditionType::SchemaCurrent, "True", Reason::SchemaNewer).await;
        tenant.ready().await?;

        let report = writer.stop().await?;
        test.measured(&report);
        report.ensure_nothing_failed()?;
        ensure!(said?.message.contains(test.world.image("journal-2")?));
        journal.is_version("1.0.0").await
    });
}

#[test]
fn two_images_given_at_once_are_not_migrated_to_at_once() {
    run(async |test| {
        let tenant = test.tenant("restless")?.with(SLOW)?;
        tenant.up().await?;

        tenant.edit("journal: {image: journal-2}").await?;
        tenant.edit("journal: {image: journal-1, args: [serve]}").await?;
        tenant.edit("journal: {image: journal-2}").await?;
        migrates_one_at_a_time_until_ready(test, &tenant).await
    });
}

#[test]
fn a_migration_whose_job_is_deleted_begins_again_when_its_pod_has_stopped() {
    run(async |test| {
        let tenant = test.tenant("cutoff")?.with(SLOW)?;
        tenant.up().await?;

        tenant.edit("journal: {image: journal-2}").await?;
        a_migration_runs(&tenant).await?;
        eventually("its pod runs", STEP, async || {
            let running = migrating(&tenant).await?;
            Ok(Seen::when((running == 1).then_some(()), format_args!("{running} run")))
        })
        .await?;
        let job = migration(&tenant).await?.context("there is none")?;
        tenant.remove(kind::JOB, job["metadata"]["name"].as_str().unwrap_or_default()).await?;
        migrates_one_at_a_time_until_ready(test, &tenant).await
    });
}

#[test]
fn a_tenant_that_is_suspended_while_it_migrates_migrates_to_the_end() {
    run(async |test| {
        let tenant = test.tenant("tired")?.with(SLOW)?;
        tenant.up().await?;
        let database = tenant.pods("database").await?;

        tenant.edit("journal: {image: journal-2}").await?;
        a_migration_runs(&tenant).await?;
        tenant.edit("{suspended: true, database: {parameters: {max_connections: '77'}}}").await?;
        let mut replaced = false;
        eventually("it is migrated", STEP, async || {
            let pods = tenant.pods("database").await?;
            let is_running = migrating(&tenant).await? > 0;
            let same = |pod: &Value| pod["metadata"]["uid"] == database[0]["metadata"]["uid"];
            replaced |= is_running && !pods.iter().any(|pod| same(pod) && is_ready(pod));
            let migrated = tenant.object().await?["status"]["journal"]["migrated"].clone();
            let is_there = migrated.as_array().is_some_and(|images| images.len() == 2);
            Ok(Seen::when(is_there.then_some(()), format_args!("migrated to {migrated}")))
        })
        .await?;
        tenant.says(ConditionType::Ready, "False", Reason::Suspended).await?;

        ensure!(!replaced, "the database was stopped under a migration");
        tenant.edit("suspended: false").await?;
        tenant.ready().await?;
        tenant.journal().await?.is_version("2.0.0").await
    });
}

/// A migration that can be watched at work.
const SLOW: &str = "journal: {migrate: {command: [/bin/sh, -c, 'sleep 4; exec journal migrate']}}";

/// Waits until the tenant is ready with the second version. Fails if two migrations were at work at once, or none was
/// seen.
async fn migrates_one_at_a_time_until_ready(test: &Test, tenant: &Tenant) -> Result<()> {
    let mut most = 0;
    eventually(format!("{} is ready", tenant.name), STEP, async || {
        most = most.max(migrating(tenant).await?);
        let ready = tenant.condition(ConditionType::Ready).await?;
        let is_current = tenant.get(kind::DEPLOYMENT, "journal").await?["spec"]["template"]["spec"]["containers"]
            [0]["image"]
            == tenant.object().await?["spec"]["journal"]["image"];
        let is_ready = ready.is_some_and(|ready| ready.status == "True");
        Ok(Seen::when((is_current && is_ready).then_some(()), "it is not"))
    })
    .await?;
    tenant.journal().await?.is_version("2.0.0").await?;
    test.measured(format_args!("at most {most} migration at a time"));
    ensure!(most == 1, "{most} migrations ran at once");
    Ok(())
}

/// How many pods of migrations run.
async fn migrating(tenant: &Tenant) -> Result<usize> {
    let pods = tenant.list(kind::POD, "valv.eu/role=migration").await?;
    Ok(pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count())
}

/// Waits until the image serves, and fails if it was rolled out before its migration had ended.
async fn the_migration_comes_first(tenant: &Tenant, image: &str) -> Result<()> {
    let mut migrated_beside_the_old = false;
    eventually(format!("{image} serves"), STEP, async || {
        let migration = migration(tenant).await?;
        let deployment = tenant.get(kind::DEPLOYMENT, "journal").await?;
        let serving = deployment["spec"]["template"]["spec"]["containers"][0]["image"].clone();
        let runs = migration.is_some_and(|job| job["status"]["completionTime"].is_null());
        migrated_beside_the_old |= runs && serving != image;
        Ok(match serving == image {
            true if runs => Seen::Yes(Err("it was rolled out while its migration ran")),
            true => Seen::Yes(Ok(())),
            false => Seen::NotYet(format!("{serving} serves, migrating: {runs}")),
        })
    })
    .await?
    .map_err(anyhow::Error::msg)?;
    ensure!(migrated_beside_the_old, "no migration was seen while the version before served");
    Ok(())
}

async fn a_migration_runs(tenant: &Tenant) -> Result<()> {
    eventually(format!("a migration of {} runs", tenant.name), STEP, async || {
        let job = migration(tenant).await?.context("there is none")?;
        Ok(Seen::when(job["status"]["completionTime"].is_null().then_some(()), "it has ended"))
    })
    .await
}

/// The Job of a migration, if there is one.
async fn migration(tenant: &Tenant) -> Result<Option<Value>> {
    let jobs = tenant.list(kind::JOB, "").await?;
    let is_migration =
        |job: &Value| job["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("migrate-"));
    Ok(jobs.into_iter().find(is_migration))
}
