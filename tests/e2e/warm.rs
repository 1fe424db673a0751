//! How long things take when nothing else runs, on a cluster that has the images.

use std::time::Duration;

use anyhow::ensure;
use harness::run;

/// What the issue asks for.
const TARGET: Duration = Duration::from_secs(60);

#[test]
fn the_smallest_tenant_is_ready_within_a_minute() {
    run(async |test| {
        let tenant = test.tenant("ready")?;
        test.alone().await?;

        let took = tenant.up().await?;

        test.measured(format_args!("ready after {:.1} s", took.as_secs_f32()));
        let journal = tenant.journal().await?;
        journal.write("Första besöket.").await?;
        ensure!(journal.read().await? == ["Första besöket."]);
        ensure!(took < TARGET, "it took {took:?}");
        Ok(())
    });
}
