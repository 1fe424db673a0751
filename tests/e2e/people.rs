//! What people see and may: the auditor's role, and `kubectl valv`.

use std::time::Duration;

use anyhow::{Context, ensure};
use harness::plugin::{Plugin, text};
use harness::test::unique;
use harness::{Seen, eventually, kind, refusal, run};
use serde_json::{Value, json};

/// An API server takes a moment to hear of a binding.
const KNOWN: Duration = Duration::from_secs(20);

#[test]
fn an_auditor_reads_every_kind_of_valv_and_its_events_and_nothing_of_a_journal() {
    run(async |test| {
        let tenant = test.tenant("audited")?.with("suspended: true")?;
        tenant.apply().await?;
        tenant.is_there(kind::CONFIG_MAP, "valv-state").await?;
        let name = unique("auditor");
        test.made(kind::CLUSTER_ROLE_BINDING, "", &name);
        test.world.admin.create(kind::CLUSTER_ROLE_BINDING, "", binding(&name)).await?;
        let auditor = test.world.as_service_account("default", &name)?;

        // Positive control: the role is bound, and lets an auditor do the work, as soon as the API server knows of it.
        eventually("the auditor may read", KNOWN, async || {
            auditor.list(kind::JOURNAL_TENANT, "", "").await?;
            Ok(Seen::Yes(()))
        })
        .await?;
        for readable in kind::OF_VALV {
            auditor
                .list(readable, "", "")
                .await
                .with_context(|| format!("it cannot list {}", readable.name))?;
        }
        // None that was added later is forgotten here: the API server knows them all.
        let served = test.world.admin.text("/apis/valv.eu/v1alpha1").await?;
        let served: Value = serde_json::from_str(&served)?;
        let served = served["resources"].as_array().context("the API server lists what it serves")?;
        let kinds = served.iter().filter(|one| !one["name"].as_str().unwrap_or_default().contains('/'));
        let mut kinds: Vec<_> = kinds.filter_map(|one| one["kind"].as_str()).collect();
        let mut tried = kind::OF_VALV.map(|kind| kind.name);
        kinds.sort_unstable();
        tried.sort_unstable();
        ensure!(kinds == tried, "of {kinds:?} only {tried:?} were tried");
        auditor.list(kind::EVENT, &tenant.namespace, "").await?;
        auditor.get(kind::JOURNAL_TENANT, "", &tenant.name).await?;

        let mut refused = 0;
        for hidden in [kind::SECRET, kind::CONFIG_MAP, kind::POD, kind::JOB, kind::SERVICE_ACCOUNT] {
            let answer = auditor.list(hidden, &tenant.namespace, "").await;
            refusal(answer).with_context(|| format!("an auditor lists {}", hidden.name))?;
            refused += 1;
        }
        let backup = json!({
            "apiVersion": kind::BACKUP.api_version(), "kind": kind::BACKUP.name,
            "metadata": { "generateName": "audit-" }, "spec": {},
        });
        refusal(auditor.create(kind::BACKUP, &tenant.namespace, backup).await)
            .context("it makes a backup")?;
        let url = json!({ "status": { "url": "https://elsewhere.example" } });
        refusal(auditor.change_status(kind::JOURNAL_TENANT, &tenant.name, &url).await)
            .context("it writes a status")?;
        test.measured(format_args!("{} attempts refused", refused + 2));
        Ok(())
    });
}

#[test]
fn the_plugin_says_what_is_wrong_in_words_in_json_and_by_its_exit_code() {
    run(async |test| {
        let tenant = test.tenant("unguarded")?.with("suspended: true")?;
        tenant.apply().await?;
        tenant.is_there(kind::CONFIG_MAP, "valv-state").await?;
        let plugin = Plugin::install(test.world)?;

        let table = plugin.says(&["status"]).await?;
        ensure!(table.status.code() == Some(1), "{table:?}");
        ensure!(text(&table.stdout).lines().any(|line| line.starts_with(&tenant.name)), "{table:?}");

        let page = plugin.says(&["status", &tenant.name, "--output", "json"]).await?;
        ensure!(page.status.code() == Some(1), "{page:?}");
        let seen: Value = serde_json::from_slice(&page.stdout)?;
        ensure!(seen["tenants"][0]["troubles"][0]["code"] == "Unprotected", "{seen:#}");

        let nobody = plugin.says(&["status", "nobody-at-all"]).await?;
        ensure!(nobody.status.code() == Some(2), "{nobody:?}");
        ensure!(text(&nobody.stderr).contains("there is no JournalTenant nobody-at-all"), "{nobody:?}");

        let backup = plugin.says(&["backup", "now", &tenant.name, "--wait"]).await?;
        ensure!(backup.status.code() == Some(1), "{backup:?}");
        ensure!(text(&backup.stdout).contains("is not backed up"), "{backup:?}");
        let made = test.world.admin.list(kind::BACKUP, &tenant.namespace, "").await?;
        ensure!(made.is_empty(), "a backup was made that nobody could take: {made:?}");
        test.measured("exit codes 1 and 2, in words and in JSON");
        Ok(())
    });
}

fn binding(name: &str) -> Value {
    json!({
        "apiVersion": kind::CLUSTER_ROLE_BINDING.api_version(),
        "kind": kind::CLUSTER_ROLE_BINDING.name,
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "valv-auditor" },
        "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": "default" }],
    })
}
