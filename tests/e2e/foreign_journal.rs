//! A journal that knows nothing of Valv: no TLS, its own names for everything, its own migration.

use anyhow::{Context, ensure};
use harness::manifest::FOREIGN;
use harness::probe::Probe;
use harness::{kind, run};
use valv_crds::condition::{ConditionType, Reason};

#[test]
fn a_journal_without_tls_is_served_over_tls_by_the_proxy_alone() {
    run(async |test| {
        let tenant = test.tenant_of("foreign", FOREIGN)?;
        tenant.apply().await?;
        tenant.bring_secret("accounts", &[("JOURNAL_ACCOUNTS", "SE2321000016-1003:e2e")]).await?;

        tenant.ready().await?;

        let journal = tenant.journal().await?;
        journal.write("Bakom proxyn.").await?;
        ensure!(journal.read().await? == ["Bakom proxyn."]);
        tenant.says(ConditionType::SchemaCurrent, "True", Reason::NotManaged).await?;
        let pods = tenant.pods("journal").await?;
        let address = pods.first().and_then(|pod| pod["status"]["podIP"].as_str()).context("no pod")?;
        ensure!(
            listens(test, &tenant, address, 9443).await?,
            "no positive control: the proxy does not listen"
        );
        ensure!(!listens(test, &tenant, address, 8080).await?, "the journal listens beyond loopback");
        test.measured("plain HTTP inside the pod, TLS outside, connection by files");
        Ok(())
    });
}

/// Whether a process in the pod listens on its address at this port.
///
/// Tried in the pod's own network policies, which would hide a listener: so the pod is let in by one more.
async fn listens(
    test: &harness::Test,
    tenant: &harness::Tenant,
    address: &str,
    port: u16,
) -> anyhow::Result<bool> {
    let policy = serde_json::json!({
        "apiVersion": kind::NETWORK_POLICY.api_version(),
        "kind": kind::NETWORK_POLICY.name,
        "metadata": { "name": "e2e-probe" },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}] },
    });
    test.world.admin.apply(kind::NETWORK_POLICY, &tenant.namespace, &policy).await?;
    let probe = Probe::new(&tenant.namespace, test.world.image("busybox")?);
    let script = format!("timeout 5 nc {address} {port} </dev/null >/dev/null 2>&1 && echo listens; true");
    Ok(probe.run(&test.world.admin, &script).await?.contains("listens"))
}
