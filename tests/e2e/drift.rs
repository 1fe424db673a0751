//! What somebody else does to a tenant's objects does not last.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::actor::Change;
use harness::kind::{self, Kind};
use harness::{Seen, Tenant, Test, eventually, run};
use serde_json::{Value, json};
use tokio::time::Instant;
use valv_crds::condition::{ConditionType, Reason};
use valv_crds::reference::{PAUSED_ANNOTATION, TENANT_LABEL};

/// What the issue asks for.
const TARGET: Duration = Duration::from_secs(10);

/// Longer, so that what is slow is told from what is never mended.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything of a tenant but its namespace, its volumes' claims and its Secrets.
const OWNED: [(Kind, &str); 20] = [
    (kind::ROLE_BINDING, "valv-operator"),
    (kind::RESOURCE_QUOTA, "tenant"),
    (kind::LIMIT_RANGE, "tenant"),
    (kind::NETWORK_POLICY, "deny-all"),
    (kind::NETWORK_POLICY, "allow-dns"),
    (kind::NETWORK_POLICY, "allow-users-to-journal"),
    (kind::NETWORK_POLICY, "allow-to-database"),
    (kind::NETWORK_POLICY, "allow-database-clients"),
    (kind::NETWORK_POLICY, "allow-to-stores"),
    (kind::SERVICE_ACCOUNT, "journal"),
    (kind::SERVICE_ACCOUNT, "database"),
    (kind::CONFIG_MAP, "authorities"),
    (kind::CONFIG_MAP, "database-config"),
    (kind::CONFIG_MAP, "valv-state"),
    (kind::SERVICE, "journal"),
    (kind::SERVICE, "database"),
    (kind::POD_DISRUPTION_BUDGET, "journal"),
    (kind::POD_DISRUPTION_BUDGET, "database"),
    (kind::STATEFUL_SET, "database"),
    (kind::DEPLOYMENT, "journal"),
];

#[test]
fn what_somebody_deletes_comes_back_within_ten_seconds() {
    run(async |test| {
        let tenant = test.tenant("deleted")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        journal.write("Före.").await?;
        every_owned_kind_is_listed(&tenant).await?;

        let mut times = vec![];
        for (kind, name) in OWNED.into_iter().filter(|owned| is_made(test, owned.1)) {
            let before = tenant.get(kind, name).await?;
            tenant.remove(kind, name).await?;
            let begun = Instant::now();
            let back = tenant.is_replaced(kind, &before, PATIENCE).await;
            times.push((format!("{} {name}", kind.name), back.map(|_| begun.elapsed())));
        }

        let worst = worst(times)?;
        test.measured(format_args!("{} objects, at worst {worst}", OWNED.len()));
        tenant.ready().await?;
        ensure!(tenant.journal().await?.read().await? == ["Före."]);
        Ok(())
    });
}

#[test]
fn what_somebody_edits_is_put_right_within_ten_seconds() {
    run(async |test| {
        let tenant = test.tenant("edited")?;
        tenant.up().await?;

        let mut times = vec![];
        let edits = edits(test.world.image("busybox")?);
        for (kind, name, what, edit) in edits.into_iter().filter(|edit| is_made(test, edit.1)) {
            let before = substance(&tenant.get(kind, name).await?);
            tenant.meddle(kind, name, Change::Strategic(&edit)).await?;
            let begun = Instant::now();
            let what = format!("{} {name} ({what})", kind.name);
            let back = eventually(format!("{what} is put right"), PATIENCE, async || {
                let now = tenant.find(kind, name).await?.map(|object| substance(&object));
                Ok(Seen::when((now.as_ref() == Some(&before)).then_some(()), "as it was edited"))
            });
            times.push((what, back.await.map(|()| begun.elapsed())));
        }

        let count = times.len();
        let worst = worst(times)?;
        test.measured(format_args!("{count} edits, at worst {worst}"));
        tenant.ready().await
    });
}

#[test]
fn what_somebody_relabels_is_put_right_within_ten_seconds() {
    run(async |test| {
        let tenant = test.tenant("relabelled")?;
        tenant.up().await?;

        let mut times = vec![];
        for (kind, name) in OWNED.into_iter().filter(|owned| is_made(test, owned.1)) {
            let before = tenant.get(kind, name).await?;
            for label in [json!("nobody"), Value::Null] {
                let what = format!("{} {name} labelled {label}", kind.name);
                let change = json!({ "metadata": { "labels": { TENANT_LABEL: label } } });
                tenant.meddle(kind, name, Change::Merge(&change)).await?;
                let begun = Instant::now();
                let back = eventually(format!("{what} is put right"), PATIENCE, async || {
                    let now = tenant.get(kind, name).await?;
                    ensure!(now["metadata"]["uid"] == before["metadata"]["uid"], "it is another");
                    let right = now["metadata"]["labels"][TENANT_LABEL] == *tenant.name;
                    Ok(Seen::when(right.then_some(()), &now["metadata"]["labels"]))
                });
                times.push((what, back.await.map(|()| begun.elapsed())));
            }
        }

        let count = times.len();
        let worst = worst(times)?;
        test.measured(format_args!("{count} labels, at worst {worst}"));
        tenant.ready().await
    });
}

#[test]
fn a_role_binding_that_binds_another_role_is_made_anew() {
    run(async |test| {
        let tenant = test.tenant("bound")?.with("suspended: true")?;
        tenant.apply().await?;
        let mut binding = tenant.is_there(kind::ROLE_BINDING, "valv-operator").await?;
        tenant.says(ConditionType::Ready, "False", Reason::Suspended).await?;
        // What a binding binds cannot be edited, only made anew: while nobody looks.
        tenant.annotate(PAUSED_ANNOTATION, Some("")).await?;
        tenant.says(ConditionType::Ready, "Unknown", Reason::Paused).await?;
        let right = binding["roleRef"].clone();
        binding["roleRef"]["name"] = json!("view");
        binding["metadata"] = json!({ "name": "valv-operator", "labels": { TENANT_LABEL: tenant.name } });
        tenant.remove(kind::ROLE_BINDING, "valv-operator").await?;
        test.world.admin.create(kind::ROLE_BINDING, &tenant.namespace, binding).await?;

        tenant.annotate(PAUSED_ANNOTATION, None).await?;
        let begun = Instant::now();
        eventually("the binding binds the operator's role", PATIENCE, async || {
            let now = tenant.get(kind::ROLE_BINDING, "valv-operator").await?;
            Ok(Seen::when((now["roleRef"] == right).then_some(()), &now["roleRef"]))
        })
        .await?;
        let took = begun.elapsed();

        tenant.says(ConditionType::Ready, "False", Reason::Suspended).await?;
        test.measured(format_args!("made anew after {} ms", took.as_millis()));
        ensure!(took < TARGET, "only after {took:?}");
        Ok(())
    });
}

/// Whether the installation has the operator make this one: without stores there is no way to them.
fn is_made(test: &Test, name: &str) -> bool {
    test.world.local().is_some() || name != "allow-to-stores"
}

/// So that an object which the operator learns to make is tried here too.
async fn every_owned_kind_is_listed(tenant: &Tenant) -> Result<()> {
    let kept =
        [kind::PERSISTENT_VOLUME_CLAIM, kind::POD, kind::JOB, kind::REPLICA_SET, kind::CONTROLLER_REVISION];
    for kind in kind::IN_A_NAMESPACE {
        if kept.contains(&kind) {
            continue;
        }
        for object in tenant.list(kind, &format!("valv.eu/tenant={}", tenant.name)).await? {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let derived = kind == kind::ENDPOINT_SLICE || kind == kind::EVENT;
            ensure!(derived || OWNED.contains(&(kind, name)), "{} {name} is not tried", kind.name);
        }
    }
    Ok(())
}

/// Edits that would hurt: each opens a wall, cuts somebody off, or runs something else.
fn edits(image: &str) -> Vec<(Kind, &'static str, &'static str, Value)> {
    let nobody = json!({ "spec": { "podSelector": { "matchLabels": { "app": "nobody" } } } });
    let opened = json!({ "spec": { "ingress": [{}] } });
    let elsewhere = json!({ "spec": { "selector": { "valv.eu/role": "probe" } } });
    let narrowed = json!({ "spec": { "selector": { "app": "nobody" } } });
    let undrainable = json!({ "spec": { "maxUnavailable": 0 } });
    let mounted = json!({ "automountServiceAccountToken": true });
    let container = |name: &str| json!({ "name": name, "image": image });
    let runs =
        |name: &str| json!({ "spec": { "template": { "spec": { "containers": [container(name)] } } } });
    let variable = json!([{ "name": "E2E", "value": "1" }]);
    let with_variable = |name: &str| {
        let container = json!({ "name": name, "env": variable });
        json!({ "spec": { "template": { "spec": { "containers": [container] } } } })
    };
    let volume = json!([{ "name": "e2e", "emptyDir": {} }]);
    let with_volume = json!({ "spec": { "template": { "spec": { "volumes": volume } } } });
    let with_port = json!({ "spec": { "ports": [{ "name": "e2e", "port": 8080, "targetPort": 8080 }] } });
    let with_key = json!({ "data": { "e2e": "1" } });
    let mallory = json!([{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "mallory" }]);
    vec![
        (kind::ROLE_BINDING, "valv-operator", "somebody else's", json!({ "subjects": mallory })),
        (kind::RESOURCE_QUOTA, "tenant", "more pods", json!({ "spec": { "hard": { "pods": "500" } } })),
        (kind::LIMIT_RANGE, "tenant", "no limits", json!({ "spec": { "limits": [] } })),
        (kind::NETWORK_POLICY, "deny-all", "opened", opened.clone()),
        (kind::NETWORK_POLICY, "deny-all", "of nobody", nobody.clone()),
        (kind::NETWORK_POLICY, "allow-dns", "to anywhere", json!({ "spec": { "egress": [{}] } })),
        (kind::NETWORK_POLICY, "allow-users-to-journal", "opened", opened.clone()),
        (kind::NETWORK_POLICY, "allow-to-database", "to anywhere", json!({ "spec": { "egress": [{}] } })),
        (kind::NETWORK_POLICY, "allow-to-stores", "to anywhere", json!({ "spec": { "egress": [{}] } })),
        (kind::NETWORK_POLICY, "allow-database-clients", "opened", opened),
        (kind::SERVICE_ACCOUNT, "journal", "with a token", mounted.clone()),
        (kind::SERVICE_ACCOUNT, "database", "with a token", mounted),
        (kind::CONFIG_MAP, "authorities", "trusting nobody", json!({ "data": { "ca.crt": "" } })),
        (
            kind::CONFIG_MAP,
            "database-config",
            "letting all in",
            json!({ "data": { "pg_hba.conf": "host all all all trust" } }),
        ),
        (kind::CONFIG_MAP, "valv-state", "forged", json!({ "data": { "systemIdentifier": "1" } })),
        (kind::CONFIG_MAP, "database-config", "with one more file", with_key.clone()),
        (kind::CONFIG_MAP, "valv-state", "with one more key", with_key),
        (kind::SERVICE, "journal", "with one more port", with_port.clone()),
        (kind::SERVICE, "database", "with one more port", with_port),
        (kind::SERVICE, "journal", "to another role", elsewhere.clone()),
        (kind::SERVICE, "journal", "to nobody", narrowed.clone()),
        (kind::SERVICE, "database", "to another role", elsewhere),
        (kind::SERVICE, "database", "to nobody", narrowed),
        (kind::POD_DISRUPTION_BUDGET, "journal", "no drain", undrainable.clone()),
        (kind::POD_DISRUPTION_BUDGET, "database", "no drain", undrainable),
        (kind::STATEFUL_SET, "database", "another image", runs("postgresql")),
        (kind::STATEFUL_SET, "database", "with a sidecar", runs("sidecar")),
        (kind::DEPLOYMENT, "journal", "another image", runs("journal")),
        (kind::DEPLOYMENT, "journal", "with a sidecar", runs("sidecar")),
        (kind::DEPLOYMENT, "journal", "with one more variable", with_variable("journal")),
        (kind::DEPLOYMENT, "journal", "with one more volume", with_volume),
    ]
}

/// An object without what others write on it all the time.
fn substance(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("metadata");
        fields.remove("status");
    }
    object
}

/// The longest time, if all are within the target.
fn worst(times: Vec<(String, Result<Duration>)>) -> Result<String> {
    let wrong: Vec<_> = times
        .iter()
        .filter_map(|(what, took)| match took {
            Ok(took) if *took < TARGET => None,
            Ok(took) => Some(format!("{what} only after {:.1} s", took.as_secs_f32())),
            Err(_) => Some(format!("{what} not within {} s", PATIENCE.as_secs())),
        })
        .collect();
    ensure!(wrong.is_empty(), "not mended in time: {}", wrong.join("; "));
    let (what, took) = times
        .into_iter()
        .filter_map(|(what, took)| Some((what, took.ok()?)))
        .max_by_key(|(_, took)| *took)
        .unwrap_or_default();
    Ok(format!("{} ms for {what}", took.as_millis()))
}
