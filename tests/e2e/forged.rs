//! Whoever may write in some other namespace gains nothing by a tenant's label.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::test::unique;
use harness::{Seen, Tenant, Test, eventually, kind, run};
use serde_json::{Value, json};
use tokio::time::sleep;
use valv_crds::reference::TENANT_LABEL;

/// Longer than the operator takes to hear of an object and to act.
const HEARD: Duration = Duration::from_secs(10);

/// An image that no registry has.
const NOWHERE: &str = "registry.invalid/nobody:1";

#[test]
fn objects_elsewhere_that_say_to_be_a_tenants_change_nothing() {
    run(async |test| {
        let tenant = test.tenant("forged")?;
        tenant.up().await?;
        tenant.journal().await?.write("Äkta.").await?;
        let before = picture(&tenant).await?;

        let forger = Forger::new(test, &tenant).await?;
        let forged = forger.forge(test.world.image("busybox")?).await?;
        // Another reason to look: the forged objects alone should be none.
        tenant.annotate("e2e.valv.eu/look", Some("again")).await?;
        // A window, not a wait: nothing is to happen in it.
        sleep(HEARD).await;

        tenant.ready().await?;
        ensure!(picture(&tenant).await? == before, "the tenant is another: {before:#?}");
        ensure!(tenant.journal().await?.read().await? == ["Äkta."]);
        ensure!(forger.versions().await? == forged, "the operator wrote what is not the tenant's");
        // Pods elsewhere are none that a deletion waits for, and nothing there goes with it.
        tenant.delete().await?;
        let took = tenant.is_gone().await?;
        ensure!(forger.versions().await? == forged, "the operator deleted what is not the tenant's");
        test.measured(format_args!("{} forged objects, none heeded; gone after {took:?}", forged.len()));
        Ok(())
    });
}

/// What of a tenant somebody would like to forge.
async fn picture(tenant: &Tenant) -> Result<Vec<Value>> {
    let mut picture = vec![
        tenant.get(kind::CONFIG_MAP, "valv-state").await?["data"].clone(),
        tenant.get(kind::DEPLOYMENT, "journal").await?["spec"].clone(),
        tenant.get(kind::STATEFUL_SET, "database").await?["spec"].clone(),
    ];
    let pods = tenant.list(kind::POD, "valv.eu/serving=true").await?;
    picture.extend(pods.iter().map(|pod| pod["metadata"]["uid"].clone()));
    Ok(picture)
}

/// Somebody with a namespace of his own.
struct Forger<'a> {
    test: &'a Test,
    namespace: String,
    tenant: &'a Tenant,
}

impl<'a> Forger<'a> {
    async fn new(test: &'a Test, tenant: &'a Tenant) -> Result<Self> {
        let namespace = unique("forger");
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        test.made(kind::NAMESPACE, "", &namespace);
        test.world.admin.create(kind::NAMESPACE, "", object).await?;
        Ok(Self { test, namespace, tenant })
    }

    /// Makes what would take the tenant over, hold it up, or make it look unwell, and waits until it does so.
    async fn forge(&self, image: &str) -> Result<Vec<Value>> {
        let admin = &self.test.world.admin;
        let state = self.tenant.get(kind::CONFIG_MAP, "valv-state").await?;
        let mut data = state["data"].clone();
        let text = data["state.json"].as_str().unwrap_or_default();
        let mut remembered: Value = serde_json::from_str(text)?;
        remembered["serving"]["image"] = json!(image);
        remembered["migrated"] = json!([image]);
        data["state.json"] = json!(remembered.to_string());
        data["systemIdentifier"] = json!("1");
        let pod = |role: &str| {
            json!({
                "metadata": { "labels": self.labels(role) },
                "spec": { "restartPolicy": "Never", "containers": [{ "name": role, "image": NOWHERE }] },
            })
        };
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "valv-state", "labels": self.labels("state") }, "data": data,
        });
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": { "name": "migrate-forged", "labels": self.labels("migration") },
            "spec": { "template": pod("migration") },
        });
        let mut journal = pod("journal");
        journal["apiVersion"] = json!("v1");
        journal["kind"] = json!("Pod");
        journal["metadata"]["name"] = json!("journal-forged");
        admin.create(kind::CONFIG_MAP, &self.namespace, map).await?;
        admin.create(kind::JOB, &self.namespace, job).await?;
        admin.create(kind::POD, &self.namespace, journal).await?;
        eventually("the forged pods find no image", Duration::from_secs(60), async || {
            let pods = admin.list(kind::POD, &self.namespace, TENANT_LABEL).await?;
            let waits = |pod: &&Value| {
                let state = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
                state["reason"].as_str().is_some_and(|reason| reason.contains("ImagePull"))
            };
            let waiting = pods.iter().filter(waits).count();
            Ok(Seen::when((waiting == 2).then_some(()), format_args!("{waiting} of {}", pods.len())))
        })
        .await?;
        self.versions().await
    }

    fn labels(&self, role: &str) -> Value {
        json!({ TENANT_LABEL: self.tenant.name, "valv.eu/role": role, "valv.eu/serving": "true" })
    }

    /// What was forged, as it is but for what the cluster itself says of it.
    async fn versions(&self) -> Result<Vec<Value>> {
        let mut versions = vec![];
        for kind in [kind::CONFIG_MAP, kind::JOB, kind::POD] {
            for object in self.test.world.admin.list(kind, &self.namespace, TENANT_LABEL).await? {
                let metadata = &object["metadata"];
                versions.push(json!([
                    metadata["uid"],
                    metadata["deletionTimestamp"],
                    metadata["labels"],
                    object["data"]
                ]));
            }
        }
        Ok(versions)
    }
}
