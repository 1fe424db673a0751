//! What somebody could do who took the operator over.

use anyhow::{Result, ensure};
use harness::actor::{Change, Grace};
use harness::operator::{NAME, NAMESPACE, USER};
use harness::{kind, refusal, run};
use serde_json::{Value, json};

#[test]
fn the_operators_token_is_good_for_nothing_outside_valvs_namespaces() {
    run(async |test| {
        let tenant = test.tenant("confined")?.with("suspended: true")?;
        tenant.apply().await?;
        tenant.is_there(kind::CONFIG_MAP, "valv-state").await?;
        let token = test.world.admin.token(NAMESPACE, NAME).await?;
        let operator = test.world.with_token(&token)?;
        let mut refused = vec![];
        let mut say = |what: &str, answer: Result<()>| -> Result<()> {
            refused.push(refusal(answer).map_err(|error| error.context(format!("it could {what}")))?);
            Ok(())
        };

        // Positive control: the token is the operator's, and does the operator's work.
        operator.list(kind::JOURNAL_TENANT, "", "").await?;
        operator.list(kind::SECRET, &tenant.namespace, "").await?;
        let own = json!({ "metadata": { "annotations": { "valv.eu/e2e": "" } } });
        operator.change(kind::CONFIG_MAP, &tenant.namespace, "valv-state", Change::Merge(&own)).await?;
        for namespace in ["kube-system", "default", NAMESPACE] {
            for role in ["valv-tenant-manager", "cluster-admin"] {
                let bound = operator.apply(kind::ROLE_BINDING, namespace, &binding(role)).await.map(drop);
                say(&format!("bind {role} to itself in {namespace}"), bound)?;
            }
        }
        let everywhere = operator.create(kind::CLUSTER_ROLE_BINDING, "", cluster_binding()).await.map(drop);
        say("bind cluster-admin to itself everywhere", everywhere)?;
        for namespace in ["kube-system", "default"] {
            let secrets = operator.list(kind::SECRET, namespace, "").await.map(drop);
            say(&format!("list Secrets in {namespace}"), secrets)?;
            let secret = operator.find(kind::SECRET, namespace, "any").await.map(drop);
            say(&format!("read a Secret in {namespace}"), secret)?;
            let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "e2e" } });
            let map = operator.create(kind::CONFIG_MAP, namespace, map).await.map(drop);
            say(&format!("make a ConfigMap in {namespace}"), map)?;
        }
        for (name, sort) in [
            ("valv-signing-key-2", "Opaque"),
            ("verify-e2e", "kubernetes.io/service-account-token"),
            ("verify-e2e", "kubernetes.io/basic-auth"),
        ] {
            let made = operator.create(kind::SECRET, NAMESPACE, secret(name, sort)).await.map(drop);
            say(&format!("make the Secret {name} of type {sort} in its own namespace"), made)?;
        }
        let sort = "kubernetes.io/service-account-token";
        let token_of_another =
            operator.create(kind::SECRET, &tenant.namespace, secret("e2e", sort)).await.map(drop);
        say("have a token made in a tenant's namespace", token_of_another)?;
        let admin = test.world.with_token_as(&token, "system:admin")?;
        say("impersonate", admin.list(kind::NAMESPACE, "", "").await.map(drop))?;
        say("delete kube-public", operator.delete(kind::NAMESPACE, "", "kube-public", Grace::Usual).await)?;
        let owned = json!({ "metadata": { "labels": { "valv.eu/tenant": "public" } } });
        let owned =
            operator.change(kind::NAMESPACE, "", "kube-public", Change::Merge(&owned)).await.map(drop);
        say("label kube-public as its own", owned)?;
        for (name, tenant, level) in [
            ("e2e", "e2e", "restricted"),
            ("journal-e2e", "ada", "restricted"),
            ("journal-e2e", "e2e", "privileged"),
        ] {
            let made = operator.create(kind::NAMESPACE, "", namespace(name, tenant, level)).await.map(drop);
            say(&format!("make the namespace {name} of {tenant}, {level}"), made)?;
        }
        let spec = json!({ "spec": { "displayName": "Mallory" } });
        let asked = operator.change(kind::JOURNAL_TENANT, "", &tenant.name, Change::Merge(&spec)).await;
        say("change what a tenant asks for", asked.map(drop))?;
        let node = json!({ "metadata": { "labels": { "e2e": "" } } });
        let nodes = operator.list(kind::NODE, "", "").await.map(drop);
        say("list nodes", nodes)?;
        say("label a node", operator.change(kind::NODE, "", "node-1", Change::Merge(&node)).await.map(drop))?;

        let explained = refused.iter().filter(|words| words.contains("Valv")).count();
        ensure!(explained >= 5, "admission policies refused only {explained}: {refused:#?}");
        test.measured(format_args!("{} attempts refused, {explained} of them by admission", refused.len()));
        Ok(())
    });
}

#[test]
fn the_operators_token_makes_no_service_that_leads_out_of_the_cluster_or_takes_an_address() {
    run(async |test| {
        let tenant = test.tenant("services")?.with("suspended: true")?;
        tenant.apply().await?;
        tenant.is_there(kind::SERVICE, "journal").await?;
        let token = test.world.admin.token(NAMESPACE, NAME).await?;
        let operator = test.world.with_token(&token)?;
        let service = |spec: &Value| json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "e2e" }, "spec": spec });
        let port = json!([{ "port": 443 }]);

        for spec in [
            json!({ "type": "ExternalName", "externalName": "elsewhere.example" }),
            json!({ "type": "LoadBalancer", "ports": port }),
            json!({ "type": "ClusterIP", "ports": port, "externalIPs": ["192.0.2.1"] }),
        ] {
            let made = operator.create(kind::SERVICE, &tenant.namespace, service(&spec)).await;
            let refused = refusal(made).map_err(|error| error.context(format!("it could make {spec}")))?;
            ensure!(refused.contains("Valv"), "{refused}");
        }

        // Positive control: others it may make.
        let plain = service(&json!({ "type": "ClusterIP", "ports": port }));
        operator.create(kind::SERVICE, &tenant.namespace, plain).await?;
        test.measured("three kinds of Services refused");
        Ok(())
    });
}

#[test]
fn nobody_else_writes_a_tenants_status() {
    run(async |test| {
        let tenant = test.tenant("green")?.paused();
        tenant.apply().await?;

        let status = json!({ "status": { "url": "https://elsewhere.example" } });
        let refused =
            refusal(test.world.admin.change_status(kind::JOURNAL_TENANT, &tenant.name, &status).await)?;

        ensure!(refused.contains("only it writes it"), "{refused}");
        test.measured("refused even to the administrator");
        Ok(())
    });
}

fn binding(role: &str) -> Value {
    json!({
        "apiVersion": kind::ROLE_BINDING.api_version(),
        "kind": kind::ROLE_BINDING.name,
        "metadata": { "name": "valv-operator" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE }],
    })
}

fn secret(name: &str, sort: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": sort,
        "metadata": { "name": name, "annotations": { "kubernetes.io/service-account.name": "default" } },
        "stringData": { "username": "a", "password": "b" },
    })
}

fn cluster_binding() -> Value {
    json!({
        "apiVersion": kind::CLUSTER_ROLE_BINDING.api_version(),
        "kind": kind::CLUSTER_ROLE_BINDING.name,
        "metadata": { "name": "e2e" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER }],
    })
}

fn namespace(name: &str, tenant: &str, level: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": { "valv.eu/tenant": tenant, "pod-security.kubernetes.io/enforce": level },
        },
    })
}
