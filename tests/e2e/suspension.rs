//! A tenant that rests, and one that is left alone.

use std::time::Duration;

use anyhow::ensure;
use harness::journal::is_ready;
use harness::tenant::STEP;
use harness::{Seen, eventually, kind, run};
use tokio::time::{Instant, sleep};
use valv_crds::condition::{ConditionType, Reason};
use valv_crds::reference::PAUSED_ANNOTATION;

/// Within this time what is not paused is mended.
const MENDED: Duration = Duration::from_secs(10);

#[test]
fn a_suspended_tenant_has_no_pods_and_wakes_with_its_data() {
    run(async |test| {
        let tenant = test.tenant("resting")?;
        tenant.up().await?;
        tenant.journal().await?.write("Före vilan.").await?;

        tenant.edit("suspended: true").await?;
        tenant.says(ConditionType::Ready, "False", Reason::Suspended).await?;
        eventually("no pod is left", STEP, async || {
            let pods = tenant.list(kind::POD, "").await?;
            Ok(Seen::when(pods.is_empty().then_some(()), format_args!("{} pods", pods.len())))
        })
        .await?;
        let asleep = [ConditionType::Stalled, ConditionType::Reconciling];
        for kind in asleep {
            let said = tenant.condition(kind).await?;
            ensure!(said.is_none(), "{said:?}");
        }
        let begun = Instant::now();
        tenant.edit("suspended: false").await?;
        tenant.ready().await?;
        let awake = [tenant.pods("database").await?, tenant.pods("journal").await?].concat();

        ensure!(
            awake.len() == 2 && awake.iter().all(is_ready),
            "it said Ready while its pods were not: {}",
            tenant.picture().await
        );
        test.measured(format_args!("awake after {:.1} s", begun.elapsed().as_secs_f32()));
        ensure!(tenant.journal().await?.read().await? == ["Före vilan."]);
        Ok(())
    });
}

#[test]
fn a_paused_tenant_is_not_even_repaired_until_it_goes_on() {
    run(async |test| {
        let tenant = test.tenant("paused")?;
        tenant.up().await?;

        tenant.annotate(PAUSED_ANNOTATION, Some("")).await?;
        tenant.says(ConditionType::Ready, "Unknown", Reason::Paused).await?;
        let wall = tenant.get(kind::NETWORK_POLICY, "allow-dns").await?;
        tenant.remove(kind::NETWORK_POLICY, "allow-dns").await?;
        // A window, not a wait: nothing is to happen in it.
        sleep(MENDED).await;
        let left_alone = tenant.find(kind::NETWORK_POLICY, "allow-dns").await?.is_none();
        let begun = Instant::now();
        tenant.annotate(PAUSED_ANNOTATION, None).await?;
        tenant.is_replaced(kind::NETWORK_POLICY, &wall, STEP).await?;
        let took = begun.elapsed();
        tenant.ready().await?;

        test.measured(format_args!("repaired {} ms after it went on", took.as_millis()));
        ensure!(left_alone, "it was repaired though paused");
        ensure!(took < MENDED, "repaired only after {took:?}");
        Ok(())
    });
}
