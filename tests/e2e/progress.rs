//! What whoever waits is told, and what whoever looks sees of a tenant that is backed up and drilled.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use faults::{Fault, Objects};
use harness::drilled::Drilled;
use harness::plugin::{Plugin, Running, text};
use harness::protected::{BACKED_UP, Protected, Wanted};
use harness::store::stores;
use harness::{Seen, eventually, kind, proxy, run};
use serde_json::{Value, json};

/// An agent says every five seconds how far it is; the operator looks, and then the plugin.
const TOLD: Duration = Duration::from_secs(60);

/// So much that is yet to come while the database is done, in attachments of this size.
const ATTACHMENTS: [(&str, usize); 4] =
    [("a.bin", 16 << 20), ("b.bin", 16 << 20), ("c.bin", 16 << 20), ("d.bin", 16 << 20)];

#[test]
fn whoever_waits_for_a_backup_sees_how_far_it_is_and_when_it_is_complete() {
    run(async |test| {
        let Some([helsinki, _]) = stores(test)? else { return Ok(()) };
        let cluster = test.world.local().context("the stores are the local cluster's")?;
        let proxy = proxy::before(cluster, &helsinki)?;
        // Patience as by default: what is held back is not given up while somebody looks.
        let wanted = Wanted { store: json!({ "endpoint": proxy.endpoint() }), ..Wanted::default() };
        let protected = Protected::bring(test, wanted).await?.context("the store is there")?;
        let tenant = &protected.tenant;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        for (name, size) in ATTACHMENTS {
            journal.attach(name, &vec![7; size]).await?;
        }
        let plugin = Plugin::install(test.world)?;

        // The first segment is there, and the second does not come through.
        proxy.set(Fault::HeldAfter { of: Objects::Data, puts: 1 });
        let waits = plugin.starts(&["backup", "now", &tenant.name, "--wait"])?;
        let progress = eventually("the backup says how far it is", BACKED_UP, async || {
            let backups = tenant.list(kind::BACKUP, "").await?;
            let [backup] = backups.as_slice() else {
                return Ok(Seen::NotYet(format!("{} Backups", backups.len())));
            };
            let progress = &backup["status"]["progress"];
            let number = |field: &str| progress[field].as_i64().unwrap_or_default();
            let is_told = number("bytes") > 0
                && number("totalBytes") > number("bytes")
                && (1..100).contains(&number("percent"))
                && number("segment") == 1
                && number("bytesPerSecond") > 0
                && progress["left"].is_string();
            Ok(Seen::when(is_told.then(|| progress.clone()), &backup["status"]))
        })
        .await?;

        // Without a name, the one that runs.
        let watches = plugin.starts_on_a_terminal(&["backup", "watch", &tenant.name])?;
        prints(&watches, "a bar", |printed| {
            printed.contains("[#") && printed.contains("-] ") && printed.contains(" %  ")
        })
        .await?;
        for (running, what) in [(&watches, "the terminal"), (&waits, "a line")] {
            prints(running, what, |printed| printed.contains(" MiB of ") && printed.contains(", 1 segment"))
                .await?;
        }
        let page = text(&plugin.says(&["status", &tenant.name]).await?.stdout);
        let running = page.lines().find(|line| line.starts_with("running now")).unwrap_or_default();
        ensure!(running.contains(" %)"), "the status does not say how far it is: {page}");

        proxy.set(Fault::None);
        for running in [waits, watches] {
            let (code, printed) = running.ended().await?;
            ensure!(code == Some(0), "it ended with {code:?}: {printed}");
            ensure!(printed.contains("is complete: "), "{printed}");
        }
        let backups = tenant.list(kind::BACKUP, "").await?;
        let done = &backups[0]["status"]["progress"];
        ensure!(done["stage"] == "Done" && done["percent"] == 100, "{done}");
        test.measured(format_args!(
            "{} % after {} bytes, {} bytes/s, {} left; exit code 0 twice",
            progress["percent"], progress["bytes"], progress["bytesPerSecond"], progress["left"]
        ));
        Ok(())
    });
}

#[test]
fn a_drill_can_be_waited_for_and_the_status_has_all_that_it_showed() {
    run(async |test| {
        let Some(drilled) = Drilled::bring(test, json!({}), json!({})).await? else { return Ok(()) };
        let (tenant, store) = (&drilled.protected.tenant, drilled.protected.store());
        let plugin = Plugin::install(test.world)?;

        let backup = plugin.says(&["backup", "now", &tenant.name, "--wait"]).await?;
        ensure!(backup.status.code() == Some(0), "{backup:?}");
        let drill = plugin.says(&["drill", "now", &tenant.name, "--wait"]).await?;
        ensure!(drill.status.code() == Some(0), "{drill:?}");
        let told = text(&drill.stdout);
        ensure!(told.contains(" passed: ") && told.contains("recovery time "), "{told}");

        // The tenant's own status follows its drill's within a moment.
        let seen = eventually("the status says that all is well", TOLD, async || {
            let page = plugin.says(&["status", &tenant.name, "--output", "json"]).await?;
            let seen: Value = serde_json::from_slice(&page.stdout)?;
            let is_well = page.status.code() == Some(0) && seen["well"] == true;
            Ok(Seen::when(is_well.then(|| seen.clone()), seen["tenants"][0]["troubles"].to_string()))
        })
        .await?;
        let one = &seen["tenants"][0];
        let place = &one["lastBackup"]["stores"][0];
        ensure!(place["name"] == store.name.as_str() && place["country"] == store.server.country, "{place}");
        ensure!(place["lockedUntil"].is_string(), "{place}");
        ensure!(one["lastBackup"]["ageSeconds"].as_i64().is_some_and(|age| age < 900), "{one:#}");
        let last = &one["lastDrill"];
        ensure!(last["passed"] == "True" && last["store"] == store.name.as_str(), "{last}");
        ensure!(last["backup"] == one["lastBackup"]["slot"], "it was of another backup: {one:#}");
        ensure!(one["objectives"] == json!({ "rpoSeconds": 14_400, "rtoSeconds": 14_400 }), "{one:#}");
        for measured in ["recoveryTime", "recoveryPoint"] {
            ensure!(one[measured]["seconds"].is_i64() && one[measured]["drill"] == last["name"], "{one:#}");
        }
        let keys = one["keys"].as_array().context("it has keys")?;
        let roles: Vec<_> = keys.iter().filter_map(|key| key["role"].as_str()).collect();
        ensure!(roles == ["Tenant", "Escrow", "Drill"], "{roles:?}");
        ensure!(keys.iter().all(|key| key["proven"].is_null() && key["due"].is_string()), "{keys:?}");

        let page = plugin.says(&["status", &tenant.name]).await?;
        ensure!(page.status.code() == Some(0), "{page:?}");
        let page = text(&page.stdout);
        for (field, says) in [
            ("where", store.name.as_str()),
            ("last drill", "passed"),
            ("recovery time", "/4h (measured/promised)"),
            ("recovery point", "/4h (measured/promised)"),
            ("keys", "never proven"),
            ("wrong", "nothing"),
        ] {
            let line = page.lines().find(|line| line.starts_with(field));
            ensure!(line.is_some_and(|line| line.contains(says)), "{field} does not say {says}: {page}");
        }
        test.measured(told.lines().last().unwrap_or_default());
        Ok(())
    });
}

/// Waits until what runs has printed what is looked for.
async fn prints(running: &Running, what: &str, is_there: impl Fn(&str) -> bool) -> Result<()> {
    eventually(format!("{what} is printed"), TOLD, async || {
        let printed = running.printed();
        Ok(Seen::when(is_there(&printed).then_some(()), printed))
    })
    .await
}
