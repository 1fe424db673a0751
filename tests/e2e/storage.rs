//! Volumes that cannot be what somebody asks for.

use anyhow::ensure;
use harness::{kind, refusal, run};
use valv_crds::condition::{ConditionType, Reason};

#[test]
fn a_volume_that_cannot_grow_says_so_and_serves_on() {
    run(async |test| {
        let classes = test.world.admin.list(kind::STORAGE_CLASS, "", "").await?;
        if classes.iter().any(|class| class["allowVolumeExpansion"] == true) {
            test.not_here("volumes can grow on this cluster");
            return Ok(());
        }
        let tenant = test.tenant("full")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;

        tenant.edit("database: {size: 2Gi}").await?;
        let said = tenant.says(ConditionType::VolumesReady, "False", Reason::ExpansionUnsupported).await?;
        tenant.says(ConditionType::Ready, "False", Reason::ExpansionUnsupported).await?;
        journal.write("Volymen är som den var.").await?;
        let claim = tenant.get(kind::PERSISTENT_VOLUME_CLAIM, "database-0").await?;
        let back = refusal(tenant.try_edit("database: {size: 1Gi}").await)?;

        ensure!(said.message.contains("cannot expand volumes"), "{}", said.message);
        ensure!(claim["spec"]["resources"]["requests"]["storage"] == "1Gi", "{claim}");
        ensure!(back.contains("database.size cannot shrink"), "{back}");
        // What is refused is not given as advice.
        ensure!(!said.message.contains("set the size back"), "{}", said.message);
        test.measured(said.message);
        Ok(())
    });
}
