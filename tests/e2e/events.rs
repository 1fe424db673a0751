//! What a person should notice is an event on the tenant.

use anyhow::{Result, ensure};
use harness::tenant::STEP;
use harness::{Seen, Tenant, Test, eventually, kind, run};
use serde_json::Value;
use valv_crds::condition::{ConditionType, Reason};

#[test]
fn a_failed_migration_and_its_end_are_events() {
    run(async |test| {
        let tenant = test.tenant("noticed")?.with("journal: {image: journal-3}")?;
        tenant.apply().await?;
        tenant.says(ConditionType::Ready, "False", Reason::MigrationFailed).await?;
        tenant.edit("journal: {image: journal-2}").await?;
        tenant.ready().await?;

        let failed = event(test, &tenant, "Warning", "MigrationFailed").await?;
        let ready = event(test, &tenant, "Normal", "AsAsked").await?;

        let said = failed["message"].as_str().unwrap_or_default();
        ensure!(said.contains("care_unit"), "the event does not say why: {said}");
        ensure!(failed["involvedObject"]["kind"] == kind::JOURNAL_TENANT.name, "{failed}");
        test.measured(format_args!("{} and {}", failed["reason"], ready["reason"]));
        Ok(())
    });
}

/// Waits for an event on the tenant. Those of objects without a namespace are in `default`.
async fn event(test: &Test, tenant: &Tenant, tone: &str, reason: &str) -> Result<Value> {
    eventually(format!("{} has the event {tone} {reason}", tenant.name), STEP, async || {
        let events = test.world.admin.list(kind::EVENT, "default", "").await?;
        let mut of_tenant = events.into_iter().filter(|event| event["involvedObject"]["name"] == tenant.name);
        let found = of_tenant.find(|event| event["type"] == tone && event["reason"] == reason);
        Ok(found.map_or(Seen::NotYet("there is none".to_owned()), Seen::Yes))
    })
    .await
}
