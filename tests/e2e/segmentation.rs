//! Tenants are walled off from each other, and their pods from the API.

use anyhow::{Context, Result, ensure};
use harness::probe::{Probe, take_walls_down};
use harness::tenant::STEP;
use harness::{Seen, Tenant, Test, eventually, kind, refusal, run};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// What the service account of nobody in particular may do anywhere: ask who it is and what it may.
const HARMLESS_GROUPS: [&str; 2] = ["authorization.k8s.io", "authentication.k8s.io"];

/// A place in the local cluster's world, outside all nodes.
const PLACE: &str = "10.123.0.20";

/// A port there that nothing else uses.
const PORT: i64 = 18080;

#[test]
fn a_pod_of_one_tenant_reaches_its_own_database_and_nothing_else() {
    run(async |test| {
        let (one, other) = (test.tenant("one")?, test.tenant("other")?);
        tokio::try_join!(one.up(), other.up())?;
        let (own, foreign) = tokio::try_join!(targets(&one), targets(&other))?;
        let outside = Outside::of(test).await?;
        let targets = [&own[..], &foreign[..], &outside.targets[..]].concat();

        let (of_journal, of_database, of_nobody, of_other_journal) = tokio::try_join!(
            reached(test, &one, Some("journal"), &targets),
            reached(test, &one, Some("database"), &targets),
            reached(test, &one, None, &targets),
            reached(test, &other, Some("journal"), &targets),
        )?;
        for tenant in [&one, &other] {
            take_walls_down(&test.world.admin, tenant).await?;
        }
        // The wall falls a moment after its policy is there.
        let all = names(&targets);
        eventually("without walls a pod reaches every listener", STEP, async || {
            let reached = reached(test, &one, None, &targets).await?;
            let missing: Vec<_> = all.iter().filter(|name| !reached.contains(name)).collect();
            Ok(Seen::when(missing.is_empty().then_some(()), format_args!("not reached: {missing:?}")))
        })
        .await
        .context("no positive control")?;

        // The journal's pod may reach its database, by address and by name; not the journal itself.
        ensure!(of_journal == databases(&own), "a pod like the journal's reached {of_journal:?}");
        ensure!(of_other_journal == databases(&foreign), "one like the other's reached {of_other_journal:?}");
        ensure!(of_database.is_empty(), "a pod like the database's reached {of_database:?}");
        ensure!(of_nobody.is_empty(), "a pod without a role reached {of_nobody:?}");
        test.measured(format_args!(
            "{} listeners, {} of them outside the tenants, tried from four places with walls and one without",
            targets.len(),
            outside.targets.len()
        ));
        Ok(())
    });
}

#[test]
fn the_service_accounts_of_a_tenant_can_do_nothing() {
    run(async |test| {
        let tenant = test.tenant("rights")?.with("suspended: true")?;
        tenant.apply().await?;
        tenant.is_there(kind::SERVICE_ACCOUNT, "journal").await?;

        for account in ["default", "journal", "database"] {
            let actor = test.world.as_service_account(&tenant.namespace, account)?;
            let review = json!({
                "apiVersion": kind::SELF_SUBJECT_RULES_REVIEW.api_version(),
                "kind": kind::SELF_SUBJECT_RULES_REVIEW.name,
                "metadata": { "name": "" },
                "spec": { "namespace": tenant.namespace },
            });
            let answer = actor.create(kind::SELF_SUBJECT_RULES_REVIEW, "", review).await?;
            let rules = answer["status"]["resourceRules"].as_array().context("no rules")?.clone();
            let harmful: Vec<_> = rules.iter().filter(|rule| !is_harmless(rule)).collect();
            ensure!(harmful.is_empty(), "{account} may {harmful:?}");
            for kind in [kind::SECRET, kind::POD, kind::CONFIG_MAP, kind::SERVICE_ACCOUNT] {
                refusal(actor.list(kind, &tenant.namespace, "").await)?;
            }
        }
        test.measured("three accounts, no rights");
        Ok(())
    });
}

fn is_harmless(rule: &Value) -> bool {
    let groups = rule["apiGroups"].as_array().cloned().unwrap_or_default();
    groups.iter().all(|group| group.as_str().is_some_and(|group| HARMLESS_GROUPS.contains(&group)))
}

/// A listener.
#[derive(Clone, Debug)]
struct Target {
    host: String,
    port: i64,
}

impl Target {
    fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// The listeners of a tenant: journal and database, by pod and by Service, by address and by name.
async fn targets(tenant: &Tenant) -> Result<Vec<Target>> {
    let mut targets = vec![];
    for (role, listener, port) in [("journal", 8443, 443), ("database", 5432, 5432)] {
        let pods = tenant.pods(role).await?;
        let pod = pods.first().and_then(|pod| pod["status"]["podIP"].as_str());
        let pod = pod.with_context(|| format!("no pod of {role}"))?.to_owned();
        let service = tenant.get(kind::SERVICE, role).await?["spec"]["clusterIP"].clone();
        let service = service.as_str().context("the Service has no address")?.to_owned();
        targets.push(Target { host: pod, port: listener });
        targets.push(Target { host: service, port });
        targets.push(Target { host: format!("{role}.{}.svc.cluster.local", tenant.namespace), port });
    }
    Ok(targets)
}

/// Listeners that are no tenant's, for as long as this lives.
struct Outside {
    targets: Vec<Target>,
    _world: Option<(Child, TempDir)>,
}

impl Outside {
    /// The API server; on the local cluster also the node's kubelet, and a place in the world.
    async fn of(test: &Test) -> Result<Self> {
        let service = test.world.admin.get(kind::SERVICE, "default", "kubernetes").await?;
        let service = service["spec"]["clusterIP"].as_str().context("the API server has no Service")?;
        let mut targets = vec![Target { host: service.to_owned(), port: 443 }];
        let Some(cluster) = test.world.local() else {
            return Ok(Self { targets, _world: None });
        };
        let node = cluster.node_ip(1);
        targets.push(Target { host: node.clone(), port: 6443 });
        targets.push(Target { host: node, port: 10250 });
        let mut world = Command::from(cluster.world_command("busybox")?);
        let empty = tempfile::tempdir()?;
        world.args(["httpd", "-f", "-p", &format!("{PLACE}:{PORT}"), "-h"]).arg(empty.path());
        targets.push(Target { host: PLACE.to_owned(), port: PORT });
        let world = world.kill_on_drop(true).spawn()?;
        Ok(Self { targets, _world: Some((world, empty)) })
    }
}

fn names(targets: &[Target]) -> Vec<String> {
    targets.iter().map(Target::name).collect()
}

fn databases(targets: &[Target]) -> Vec<String> {
    targets.iter().filter(|target| target.port == 5432).map(Target::name).collect()
}

/// Those of `targets` to which a pod in the namespace of `tenant` gets a connection.
async fn reached(
    test: &Test,
    tenant: &Tenant,
    role: Option<&str>,
    targets: &[Target],
) -> Result<Vec<String>> {
    let mut probe = Probe::new(&tenant.namespace, test.world.image("busybox")?);
    if let Some(role) = role {
        probe = probe.in_role(role);
    }
    // All at once: each that is walled off takes the whole time.
    let tries = targets.iter().map(|Target { host, port }| {
        format!("(timeout 5 nc {host} {port} </dev/null >/dev/null 2>&1 && echo {host}:{port}) &")
    });
    let script = format!("{}\nwait\necho done", tries.collect::<Vec<_>>().join("\n"));
    let printed = probe.run(&test.world.admin, &script).await?;
    ensure!(printed.contains("done"), "the probe did not end: {printed}");
    let names = names(targets).into_iter();
    Ok(names.filter(|name| printed.lines().any(|line| line == name)).collect())
}
