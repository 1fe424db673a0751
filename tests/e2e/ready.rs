//! A tenant comes up, and says what it is.

use anyhow::{Context, ensure};
use harness::{kind, run};

#[test]
fn a_ready_tenant_says_where_it_is_and_what_runs() {
    run(async |test| {
        let tenant = test.tenant("status")?;

        tenant.up().await?;

        let status = tenant.object().await?["status"].clone();
        let port = tenant.get(kind::SERVICE, "journal").await?["spec"]["ports"][0]["nodePort"].clone();
        ensure!(status["url"] == format!("https://{}:{port}", tenant.host()), "{status}");
        ensure!(status["namespace"] == tenant.namespace, "{status}");
        ensure!(status["journal"]["image"] == test.world.image("journal-1")?, "{status}");
        let digest =
            |part: &str| status[part]["imageDigest"].as_str().is_some_and(|text| text.starts_with("sha256:"));
        ensure!(digest("journal") && digest("database"), "{status}");
        let version = status["database"]["version"].as_str().context("no version of the database")?;
        ensure!(version.starts_with("17"), "{version}");
        let conditions = status["conditions"].as_array().context("no conditions")?;
        let names: Vec<_> = conditions.iter().filter_map(|said| said["type"].as_str()).collect();
        ensure!(!names.contains(&"Reconciling") && !names.contains(&"Stalled"), "{names:?}");
        test.measured(format_args!("{} conditions, PostgreSQL {version}", names.len()));
        Ok(())
    });
}
