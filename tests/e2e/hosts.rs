//! A host name is one tenant's, and a namespace is its owner's.

use anyhow::ensure;
use harness::tenant::STEP;
use harness::{kind, run};
use serde_json::json;
use valv_crds::condition::{ConditionType, Reason};

#[test]
fn of_two_tenants_with_one_host_the_older_keeps_it_until_it_goes() {
    run(async |test| {
        // By their names the younger comes first.
        let older = test.tenant("zacharias")?.with("suspended: true")?;
        older.apply().await?;
        older.says(ConditionType::HostGranted, "True", Reason::AsAsked).await?;
        let younger =
            test.tenant("adam")?.with("suspended: true")?.with(&format!("host: {}", older.host()))?;

        younger.apply().await?;
        let said = younger.says(ConditionType::HostGranted, "False", Reason::HostTaken).await?;
        younger.says(ConditionType::Ready, "False", Reason::HostTaken).await?;
        let namespace = test.world.admin.find(kind::NAMESPACE, "", &younger.namespace).await?;
        older.says(ConditionType::HostGranted, "True", Reason::AsAsked).await?;
        younger.edit("host: NAME.journal.test").await?;
        younger.says(ConditionType::HostGranted, "True", Reason::AsAsked).await?;
        younger.edit(&format!("host: {}", older.host())).await?;
        younger.says(ConditionType::HostGranted, "False", Reason::HostTaken).await?;
        older.delete().await?;
        older.is_gone().await?;
        younger.says(ConditionType::HostGranted, "True", Reason::AsAsked).await?;

        ensure!(said.message.contains(&format!("the tenant {}", older.name)), "{}", said.message);
        ensure!(namespace.is_none(), "something was made for a tenant without a host");
        test.measured(said.message);
        Ok(())
    });
}

#[test]
fn an_older_tenant_cannot_take_the_host_of_one_that_serves_and_goes_on_under_its_own() {
    run(async |test| {
        let older = test.tenant("envious")?.with("suspended: true")?;
        older.apply().await?;
        older.says(ConditionType::HostGranted, "True", Reason::AsAsked).await?;
        let own = older.host();
        let younger = test.tenant("serving")?.with("suspended: true")?;
        younger.apply().await?;
        younger.says(ConditionType::HostGranted, "True", Reason::AsAsked).await?;

        older.edit(&format!("host: {}", younger.host())).await?;
        let said = older.says(ConditionType::HostGranted, "False", Reason::HostTaken).await?;
        younger.annotate("tests.valv.eu/look", Some("again")).await?;
        younger.says(ConditionType::HostGranted, "True", Reason::AsAsked).await?;
        let wall = older.get(kind::NETWORK_POLICY, "deny-all").await?;
        older.remove(kind::NETWORK_POLICY, "deny-all").await?;
        older.is_replaced(kind::NETWORK_POLICY, &wall, STEP).await?;
        let url = older.object().await?["status"]["url"].clone();

        ensure!(said.message.contains(&format!("goes on under {own}")), "{}", said.message);
        ensure!(url.as_str().is_some_and(|url| url.contains(&own)), "{url}");
        test.measured(said.message);
        Ok(())
    });
}

#[test]
fn a_namespace_that_was_never_valvs_is_neither_adopted_nor_touched() {
    run(async |test| {
        let admin = &test.world.admin;
        let tenant = test.tenant("squatted")?;
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": tenant.namespace },
        });
        admin.create(kind::NAMESPACE, "", namespace).await?;
        test.made(kind::NAMESPACE, "", &tenant.namespace);
        tenant.is_there(kind::SERVICE_ACCOUNT, "default").await?;
        tenant.is_there(kind::CONFIG_MAP, "kube-root-ca.crt").await?;
        let before = admin.get(kind::NAMESPACE, "", &tenant.namespace).await?;

        tenant.apply().await?;
        let said = tenant.says(ConditionType::NamespaceReady, "False", Reason::NamespaceTaken).await?;
        tenant.says(ConditionType::Ready, "False", Reason::NamespaceTaken).await?;
        tenant.delete().await?;
        tenant.is_gone().await?;

        let after = admin.get(kind::NAMESPACE, "", &tenant.namespace).await?;
        let version = |namespace: &serde_json::Value| namespace["metadata"]["resourceVersion"].clone();
        ensure!(version(&after) == version(&before), "it was written to: {after}");
        for kind in kind::IN_A_NAMESPACE {
            for object in tenant.list(kind, "").await? {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                ensure!(["default", "kube-root-ca.crt"].contains(&name), "{} {name} was made", kind.name);
            }
        }
        ensure!(said.message.contains("was not made for this tenant and is not touched"), "{}", said.message);
        test.measured(said.message);
        Ok(())
    });
}
