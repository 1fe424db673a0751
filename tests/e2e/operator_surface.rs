//! What the operator shows, to whom, and what its roles say.

use anyhow::{Context, ensure};
use harness::operator::NAME;
use harness::probe::Probe;
use harness::{kind, run};

/// Where a pod is that nobody knows.
const ELSEWHERE: &str = "default";

#[test]
fn the_operator_answers_probes_and_metrics_and_only_whom_it_should() {
    run(async |test| {
        let operator = test.operator();
        let pods = operator.pods().await?;

        let mut leading = 0;
        let mut tries = vec![];
        for pod in &pods {
            let name = pod["metadata"]["name"].as_str().context("every pod has a name")?;
            for page in ["livez", "readyz"] {
                operator.page(name, page).await.with_context(|| format!("{name}/{page}"))?;
            }
            let metrics = operator.page(name, "metrics").await?;
            ensure!(metrics.contains("valv_build_info"), "{metrics}");
            leading += metrics.lines().filter(|line| *line == "valv_leader 1").count();
            let address = pod["status"]["podIP"].as_str().context("a pod that is ready has an address")?;
            tries.push(format!("timeout 5 nc {address} 8080 </dev/null >/dev/null 2>&1 && echo reached &"));
        }
        let probe = Probe::new(ELSEWHERE, test.world.image("busybox")?);
        let script = format!("{}\nwait\necho done", tries.join("\n"));
        let printed = probe.run(&test.world.admin, &script).await?;

        ensure!(leading == 1, "{leading} of {} pods say that they lead", pods.len());
        ensure!(printed.trim() == "done", "somebody's pod reached the operator: {printed}");
        test.measured(format_args!("{} pods answer, to the API server alone", pods.len()));
        Ok(())
    });
}

#[test]
fn no_role_of_the_chart_has_a_wildcard() {
    run(async |test| {
        let labels = format!("app.kubernetes.io/name={NAME}");
        let mut roles = test.world.admin.list(kind::CLUSTER_ROLE, "", &labels).await?;
        roles.extend(test.world.admin.list(kind::ROLE, "", &labels).await?);

        let mut rules = 0;
        for role in &roles {
            for rule in role["rules"].as_array().into_iter().flatten() {
                rules += 1;
                ensure!(!rule.to_string().contains("\"*\""), "{}: {rule}", role["metadata"]["name"]);
            }
        }
        ensure!(roles.len() > 2 && rules > 5, "{} roles with {rules} rules were found", roles.len());
        test.measured(format_args!("{} roles, {rules} rules", roles.len()));
        Ok(())
    });
}
