//! The database's pod dies.

use anyhow::ensure;
use harness::actor::Grace;
use harness::tenant::STEP;
use harness::{kind, run};
use tokio::time::Instant;

#[test]
fn a_note_survives_the_death_of_the_database_pod() {
    run(async |test| {
        let tenant = test.tenant("killed")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        journal.write("Före.").await?;

        let before = tenant.get(kind::POD, "database-0").await?;
        let begun = Instant::now();
        test.world.admin.delete(kind::POD, &tenant.namespace, "database-0", Grace::None).await?;
        // Until then a note may still get into the pod that goes.
        tenant.is_replaced(kind::POD, &before, STEP).await?;
        journal.writes_again("Efter.").await?;

        let took = begun.elapsed();
        ensure!(journal.read().await? == ["Efter.", "Före."]);
        test.measured(format_args!("a note is taken again after {:.1} s", took.as_secs_f32()));
        tenant.ready().await
    });
}
