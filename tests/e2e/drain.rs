//! A node is drained: the disruption budgets let the pods go, and nothing is lost.

use anyhow::{Context, Result, ensure};
use harness::journal::is_ready;
use harness::tenant::STEP;
use harness::{Seen, Tenant, Test, eventually, run};
use tokio::time::Instant;

/// Attachments on a volume of their own.
const WITH_ATTACHMENTS: &str = "
attachments: {size: 1Gi, mountPath: /var/lib/journal}
journal: {writableFolders: null}
";

#[test]
fn a_drain_moves_journal_and_database_and_loses_no_attachment() {
    run(async |test| {
        let tenant = test.tenant("drained")?.with(WITH_ATTACHMENTS)?;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        let picture: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let number = journal.attach("rontgen.bin", &picture).await?;
        journal.write("Röntgen bifogad.").await?;

        let begun = Instant::now();
        for role in ["journal", "database"] {
            leaves_its_node(test, &tenant, role).await?;
        }
        journal.writes_again("Efter flytten.").await?;
        let took = begun.elapsed();

        ensure!(journal.attachment(number).await? == picture, "the attachment is not what it was");
        ensure!(journal.read().await?.contains(&"Röntgen bifogad.".to_owned()), "a note is lost");
        test.measured(format_args!(
            "two pods evicted and back after {:.1} s, {} bytes unchanged",
            took.as_secs_f32(),
            picture.len()
        ));
        tenant.ready().await
    });
}

/// Evicts the pod of a role, and waits until another is ready.
async fn leaves_its_node(test: &Test, tenant: &Tenant, role: &str) -> Result<()> {
    // The disruption controller counts what is ready, a moment after it is.
    let before = eventually(format!("the pod of {role} may be evicted"), STEP, async || {
        let pods = tenant.pods(role).await?;
        let pod = pods.first().context("there is none")?;
        let name = pod["metadata"]["name"].as_str().context("every pod has a name")?;
        test.world.admin.evict(&tenant.namespace, name).await?;
        Ok(Seen::Yes(pod["metadata"]["uid"].clone()))
    })
    .await?;
    eventually(format!("another pod of {role} is ready"), STEP, async || {
        let pods = tenant.pods(role).await?;
        let another = pods.iter().any(|pod| pod["metadata"]["uid"] != before && is_ready(pod));
        Ok(Seen::when(another.then_some(()), format_args!("{} pods", pods.len())))
    })
    .await
}
