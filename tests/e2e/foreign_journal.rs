//! Journals that know nothing of Valv: no TLS, their own names for everything, or files only.

use anyhow::{Context, Result, ensure};
use harness::manifest::{BY_FILES, PROXIED};
use harness::probe::{Probe, take_walls_down};
use harness::tenant::STEP;
use harness::{Seen, Tenant, Test, Writer, eventually, run};
use valv_crds::condition::{ConditionType, Reason};

#[test]
fn a_journal_without_tls_is_served_over_tls_by_the_proxy_alone() {
    run(async |test| {
        let tenant = test.tenant_of("proxied", PROXIED)?;
        tenant.apply().await?;
        tenant.bring_secret("accounts", &[("JOURNAL_ACCOUNTS", "SE2321000016-1003:e2e")]).await?;

        tenant.ready().await?;

        let journal = tenant.journal().await?;
        journal.write("Bakom proxyn.").await?;
        ensure!(journal.read().await? == ["Bakom proxyn."]);
        let pods = tenant.pods("journal").await?;
        let address = pods.first().and_then(|pod| pod["status"]["podIP"].as_str()).context("no pod")?;
        // The tenant's network policies would hide a listener.
        take_walls_down(&test.world.admin, &tenant).await?;
        ensure!(
            listens(test, &tenant, address, 10443).await?,
            "no positive control: the proxy does not listen"
        );
        ensure!(!listens(test, &tenant, address, 8080).await?, "the journal listens beyond loopback");
        test.measured("plain HTTP inside the pod, TLS outside, other names for everything");
        Ok(())
    });
}

#[test]
fn a_rollout_behind_the_proxy_fails_no_request() {
    run(async |test| {
        let tenant = test.tenant_of("replaced", PROXIED)?;
        tenant.apply().await?;
        tenant.bring_secret("accounts", &[("JOURNAL_ACCOUNTS", "SE2321000016-1003:e2e")]).await?;
        tenant.ready().await?;
        let journal = tenant.journal().await?;
        let writer = Writer::start(&journal).await?;

        tenant.edit("journal: {stopGraceSeconds: 20}").await?;
        tenant.ready().await?;
        // The pod of before has gone too.
        eventually("one pod is left", STEP, async || {
            let pods = tenant.pods("journal").await?;
            Ok(Seen::when((pods.len() == 1).then_some(()), format_args!("{} pods", pods.len())))
        })
        .await?;

        let report = writer.stop().await?;
        test.measured(&report);
        report.ensure_nothing_failed()
    });
}

#[test]
fn a_journal_that_reads_files_only_finds_its_database() {
    run(async |test| {
        let tenant = test.tenant_of("files", BY_FILES)?;

        tenant.up().await?;

        let page = tenant.journal().await?.page("/").await?;
        let found = format!("journal_app_a@database.{}.svc:5432/journal", tenant.namespace);
        ensure!(page.trim() == found, "{page}");
        tenant.says(ConditionType::SchemaCurrent, "True", Reason::NotManaged).await?;
        test.measured(found);
        Ok(())
    });
}

/// Whether a process in the pod listens on its address at this port.
async fn listens(test: &Test, tenant: &Tenant, address: &str, port: u16) -> Result<bool> {
    let probe = Probe::new(&tenant.namespace, test.world.image("busybox")?);
    let script = format!("timeout 5 nc {address} {port} </dev/null >/dev/null 2>&1 && echo listens; true");
    Ok(probe.run(&test.world.admin, &script).await?.contains("listens"))
}
