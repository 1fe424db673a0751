//! Tenants are walled off from each other, and their pods from the API.

use anyhow::{Context, Result, ensure};
use harness::probe::Probe;
use harness::{Tenant, Test, kind, refusal, run};
use serde_json::{Value, json};

/// What the service account of nobody in particular may do anywhere: ask who it is and what it may.
const HARMLESS_GROUPS: [&str; 2] = ["authorization.k8s.io", "authentication.k8s.io"];

#[test]
fn a_pod_of_one_tenant_reaches_nothing_of_another() {
    run(async |test| {
        let (one, other) = (test.tenant("one")?, test.tenant("other")?);
        tokio::try_join!(one.up(), other.up())?;
        let targets = [targets(&one).await?, targets(&other).await?].concat();
        let (own, foreign) = targets.split_at(targets.len() / 2);

        let of_journal = reached(test, &one, Some("journal"), &targets).await?;
        let from_own_side = reached(test, &other, Some("journal"), foreign).await?;
        let of_nobody = reached(test, &one, None, &targets).await?;

        // The journal's pod may reach its database, by address and by name; not the journal itself.
        let databases = |all: &[Target]| -> Vec<String> {
            all.iter().filter(|target| target.port == 5432).map(Target::name).collect()
        };
        ensure!(of_journal == databases(own), "a pod like the journal's reached {of_journal:?}");
        ensure!(from_own_side == databases(foreign), "no positive control: {from_own_side:?}");
        ensure!(of_nobody.is_empty(), "a pod without a role reached {of_nobody:?}");
        test.measured(format_args!(
            "{} listeners tried from two places, {} reached, all of them the tenant's own",
            targets.len(),
            of_journal.len()
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
    let names = targets.iter().map(Target::name);
    Ok(names.filter(|name| printed.lines().any(|line| line == name)).collect())
}
