//! A backup is complete when it was read back and committed, and its keys open it.

use std::fs;
use std::process::Command;

use age::x25519;
use anyhow::{Context, Result, ensure};
use harness::actor::{Change, Grace};
use harness::operator::NAMESPACE;
use harness::protected::{BACKED_UP, Protected, Wanted, opened};
use harness::{Seen, eventually, kind, refusal, run};
use serde_json::json;
use valv_crds::backup::{BackupCondition, BackupReason};

#[test]
fn a_backup_by_hand_is_read_back_committed_and_opened_by_each_of_its_keys() {
    run(async |test| {
        let Some(protected) = Protected::bring(test, Wanted::default()).await? else { return Ok(()) };
        let tenant = &protected.tenant;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        journal.write("Patienten mår bra i dag").await?;
        journal.attach("remiss.pdf", &[7; 300_000]).await?;

        let name = protected.back_up(json!({})).await?;
        let said = protected.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;

        let status = protected.backup(&name).await?["status"].clone();
        ensure!(status["stores"][0]["verification"]["mode"] == "Full", "{status:#}");
        ensure!(status["stores"][0]["lockedUntil"].is_string(), "{status:#}");
        let slot = status["slot"].as_str().context("it has a slot")?;
        ensure!(protected.commits()? == [format!("{slot}.json")], "{:?}", protected.commits()?);
        let data = protected.data(&name).await?;
        for key in [&protected.owner, &protected.escrow] {
            let database = opened(&data.join("database"), key)?;
            ensure!(listed(&database)?.iter().any(|name| name.ends_with("PG_VERSION")), "no database in it");
            let attachments = opened(&data.join("attachments"), key)?;
            ensure!(contains(&attachments, &[7; 100_000]), "the attachment is not in it");
            let tenant_part = opened(&data.join("tenant"), key)?;
            let names = listed(&tenant_part)?;
            ensure!(names.iter().any(|name| name.ends_with("tenant.yaml")), "{names:?}");
            ensure!(names.iter().any(|name| name.contains("secrets/login-owner/")), "{names:?}");
        }
        let stranger = x25519::Identity::generate();
        ensure!(opened(&data.join("database"), &stranger).is_err(), "anybody can open it");
        // The store's credentials do not stay in the tenant's namespace.
        eventually("the credentials are gone", BACKED_UP, async || {
            let left = tenant.list(kind::SECRET, "").await?;
            let left: Vec<_> = left
                .iter()
                .filter_map(|secret| secret["metadata"]["name"].as_str())
                .filter(|name| name.starts_with("backup-"))
                .map(str::to_owned)
                .collect();
            Ok(Seen::when(left.is_empty().then_some(()), format!("{left:?}")))
        })
        .await?;

        test.measured(&said);
        Ok(())
    });
}

#[test]
fn a_backup_that_cannot_be_made_says_why() {
    run(async |test| {
        let Some(protected) = Protected::bring(test, Wanted::default()).await? else { return Ok(()) };
        let tenant = &protected.tenant;
        tenant.edit("suspended: true").await?;
        tenant.apply().await?;
        tenant.namespace_is_there().await?;

        let name = protected.back_up(json!({})).await?;
        let said =
            protected.says(&name, BackupCondition::Stalled, "True", BackupReason::TenantSuspended).await?;

        let change = json!({ "spec": { "origin": "Scheduled" } });
        let admin = &test.world.admin;
        let refused = admin.change(kind::BACKUP, &tenant.namespace, &name, Change::Merge(&change)).await;
        ensure!(refusal(refused)?.contains("immutable"), "its origin can be changed");
        test.measured(&said);
        Ok(())
    });
}

#[test]
fn what_reads_back_is_in_the_operator_s_namespace_and_no_reader_s_credentials_are_in_a_tenant_s() {
    run(async |test| {
        let Some(protected) = Protected::bring(test, Wanted::default()).await? else { return Ok(()) };
        let tenant = &protected.tenant;
        tenant.up().await?;

        let name = protected.back_up(json!({})).await?;
        let uid = protected.uid(&name).await?;
        let labels = format!("valv.eu/backup={uid}");
        let pod = eventually("a pod reads back", BACKED_UP, async || {
            let pods = test.world.admin.list(kind::POD, NAMESPACE, &labels).await?;
            Ok(pods.into_iter().next().map_or_else(|| Seen::NotYet("none".to_owned()), Seen::Yes))
        })
        .await?;
        ensure!(pod["spec"]["automountServiceAccountToken"] == false, "{pod:#}");
        ensure!(pod["metadata"]["labels"]["valv.eu/role"] == "verification", "{pod:#}");
        let said = protected.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;

        let jobs = tenant.list(kind::JOB, &labels).await?;
        ensure!(jobs.len() == 1, "one Job writes in the tenant's namespace: {jobs:#?}");
        let secrets = tenant.list(kind::SECRET, "").await?;
        ensure!(
            !secrets.iter().any(|secret| secret["metadata"]["labels"]["valv.eu/backup"].is_string()),
            "credentials of a store stay in the tenant's namespace"
        );
        test.measured(&said);
        Ok(())
    });
}

#[test]
fn a_cancelled_backup_ends_and_leaves_no_job_and_no_credentials() {
    run(async |test| {
        let Some(protected) = Protected::bring(test, Wanted::default()).await? else { return Ok(()) };
        let tenant = &protected.tenant;
        tenant.up().await?;

        let name = protected.back_up(json!({})).await?;
        let uid = protected.uid(&name).await?;
        let change = json!({ "spec": { "cancel": true } });
        test.world.admin.change(kind::BACKUP, &tenant.namespace, &name, Change::Merge(&change)).await?;
        let said = protected.says(&name, BackupCondition::Stalled, "True", BackupReason::Cancelled).await?;

        let labels = format!("valv.eu/backup={uid}");
        eventually("nothing of it runs", BACKED_UP, async || {
            let pods = tenant.list(kind::POD, &labels).await?;
            let secrets = tenant.list(kind::SECRET, &labels).await?;
            let left = pods.len() + secrets.len();
            Ok(Seen::when((left == 0).then_some(()), format!("{left} objects")))
        })
        .await?;
        ensure!(protected.commits()?.is_empty(), "a cancelled backup has a commit");
        test.measured(&said);
        Ok(())
    });
}

#[test]
fn two_backups_of_one_second_are_one_that_is_complete_and_one_that_says_why_not() {
    run(async |test| {
        let Some(protected) = Protected::bring(test, Wanted::default()).await? else { return Ok(()) };
        protected.tenant.up().await?;

        let (one, two) = tokio::try_join!(protected.back_up(json!({})), protected.back_up(json!({})))?;
        let mut reasons = vec![];
        for name in [&one, &two] {
            let reason = eventually(format!("{name} is over"), 2 * BACKED_UP, async || {
                let object = protected.backup(name).await?;
                let over = object["status"]["ended"].is_string();
                let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
                let complete = conditions.iter().find(|said| said["type"] == "Complete").cloned();
                let reason = complete.map(|said| said["reason"].as_str().unwrap_or_default().to_owned());
                Ok(match reason.filter(|_| over) {
                    Some(reason) => Seen::Yes(reason),
                    None => Seen::NotYet(object["status"].to_string()),
                })
            })
            .await?;
            reasons.push(reason);
        }

        let slots = (
            protected.backup(&one).await?["status"]["slot"].clone(),
            protected.backup(&two).await?["status"]["slot"].clone(),
        );
        reasons.sort();
        if slots.0 == slots.1 {
            ensure!(reasons == ["Committed", "SlotTaken"], "{reasons:?}");
        } else {
            ensure!(reasons == ["Committed", "Committed"], "{reasons:?}");
        }
        test.measured(format!("{reasons:?}"));
        Ok(())
    });
}

#[test]
fn an_archive_that_another_tenant_has_gets_no_backup_of_this_one() {
    run(async |test| {
        let Some(protected) = Protected::bring(test, Wanted::default()).await? else { return Ok(()) };
        let tenant = &protected.tenant;
        tenant.up().await?;
        let name = protected.back_up(json!({})).await?;
        protected.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;
        let owner = protected.archive(protected.store()).join("records/owner.json");
        ensure!(owner.is_file(), "nobody said whose the archive is");

        let thief = test
            .tenant("thief")?
            .with(&protected.protection)?
            .with(&format!("archiveID: {}", tenant.name))?;
        thief.up().await?;
        let stolen = protected.back_up_of(&thief, json!({})).await?;
        let said = protected
            .of_says(&thief, &stolen, BackupCondition::Complete, "False", BackupReason::ArchiveTaken)
            .await?;

        ensure!(said.contains(&tenant.name), "it does not say whose the archive is: {said}");
        test.measured(&said);
        Ok(())
    });
}

#[test]
fn an_agent_that_is_killed_is_followed_by_another_attempt() {
    run(async |test| {
        let Some(protected) = Protected::bring(test, Wanted::default()).await? else { return Ok(()) };
        let tenant = &protected.tenant;
        tenant.up().await?;

        let name = protected.back_up(json!({})).await?;
        let uid = protected.uid(&name).await?;
        let labels = format!("valv.eu/backup={uid}");
        let pod = eventually("its pod is there", BACKED_UP, async || {
            let pods = tenant.list(kind::POD, &labels).await?;
            let name = pods.first().and_then(|pod| pod["metadata"]["name"].as_str().map(str::to_owned));
            Ok(name.map_or_else(|| Seen::NotYet("none".to_owned()), Seen::Yes))
        })
        .await?;
        test.world.admin.delete(kind::POD, &tenant.namespace, &pod, Grace::None).await?;
        let said = protected.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;

        ensure!(
            protected.backup(&name).await?["status"]["attempt"]["number"] == 2,
            "it was not the second attempt"
        );
        test.measured(&said);
        Ok(())
    });
}

/// Names in a tar stream.
fn listed(stream: &[u8]) -> Result<Vec<String>> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), stream)?;
    let tar = Command::new("tar").arg("--list").arg("--file").arg(file.path()).output().context("tar")?;
    ensure!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    Ok(String::from_utf8_lossy(&tar.stdout).lines().map(str::to_owned).collect())
}

fn contains(stream: &[u8], part: &[u8]) -> bool {
    stream.windows(part.len()).step_by(1).any(|window| window == part)
}
