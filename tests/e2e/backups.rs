//! A backup is complete when it was read back and committed, and its keys open it.

use std::fs;
use std::process::Command;

use age::x25519;
use anyhow::{Context, Result, ensure};
use harness::actor::Change;
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
