//! A tenant is deleted.

use anyhow::{Context, Result, ensure};
use harness::actor::{Change, Grace};
use harness::manifest::SMALLEST;
use harness::tenant::STEP;
use harness::{Seen, Tenant, World, eventually, kind, refusal, run};
use serde_json::{Value, json};
use valv_crds::condition::{ConditionType, Reason};
use valv_crds::reference::{CONFIRM_DELETION_ANNOTATION, PAUSED_ANNOTATION, RETAINED_ANNOTATION};

/// Secrets with what cannot be made again.
const LOGINS: [&str; 2] = ["login-app-a", "login-owner"];

#[test]
fn what_is_retained_is_taken_up_again_by_a_tenant_of_the_same_name() {
    run(async |test| {
        let tenant = test.tenant("retained")?.with(WITH_ATTACHMENTS)?;
        tenant.up().await?;
        tenant.journal().await?.write("Före.").await?;
        let before = passwords(&tenant).await?;

        tenant.delete().await?;
        let gone = tenant.is_gone().await?;
        everything_that_stays_is_marked(&tenant).await?;
        let running = tenant.list(kind::POD, "").await?.len();
        let again = test.tenant_named(&tenant.name, SMALLEST)?.with(WITH_ATTACHMENTS)?;
        let back = again.up().await?;

        test.measured(format_args!(
            "let go after {:.1} s, ready again after {:.1} s",
            gone.as_secs_f32(),
            back.as_secs_f32()
        ));
        ensure!(running == 0, "{running} pods run on after their tenant");
        ensure!(again.journal().await?.read().await? == ["Före."]);
        ensure!(passwords(&again).await? == before, "the passwords are others");
        let namespace = test.world.admin.get(kind::NAMESPACE, "", &again.namespace).await?;
        let mark = &namespace["metadata"]["annotations"][RETAINED_ANNOTATION];
        ensure!(mark.is_null(), "the namespace is still marked as left behind, since {mark}");
        Ok(())
    });
}

#[test]
fn a_tenant_whose_records_would_be_destroyed_goes_only_when_that_is_confirmed() {
    run(async |test| {
        let tenant = test.tenant("destroyed")?.with("deletionPolicy: Delete")?;
        tenant.up().await?;

        let refused = refusal(tenant.delete().await)?;
        tenant.annotate(CONFIRM_DELETION_ANNOTATION, Some("somebody-else")).await?;
        let mistaken = refusal(tenant.delete().await)?;
        tenant.annotate(CONFIRM_DELETION_ANNOTATION, Some(&tenant.name)).await?;
        let volumes = volumes_of(test.world, &tenant).await?;
        tenant.delete().await?;
        let took = tenant.is_gone().await?;

        test.measured(format_args!("all is gone after {:.1} s", took.as_secs_f32()));
        let asks = format!("kubectl annotate journaltenant {0} valv.eu/confirm-deletion={0}", tenant.name);
        ensure!(refused.contains(&asks), "{refused}");
        ensure!(mistaken.contains(&asks), "{mistaken}");
        let namespace = test.world.admin.find(kind::NAMESPACE, "", &tenant.namespace).await?;
        ensure!(namespace.is_none(), "the tenant was let go before its namespace was gone");
        ensure!(!volumes.is_empty(), "the test saw no volume");
        eventually("the volumes are gone", STEP, async || {
            let left = volumes_of(test.world, &tenant).await?;
            Ok(Seen::when(left.is_empty().then_some(()), format_args!("{} are left", left.len())))
        })
        .await
    });
}

#[test]
fn a_tenants_namespace_and_claims_cannot_be_deleted_by_hand() {
    run(async |test| {
        let tenant = test.tenant("guarded")?.with("suspended: true")?;
        tenant.apply().await?;
        tenant.is_there(kind::PERSISTENT_VOLUME_CLAIM, "database-0").await?;
        let admin = &test.world.admin;

        let namespace = refusal(admin.delete(kind::NAMESPACE, "", &tenant.namespace, Grace::Usual).await)?;
        let claim = refusal(tenant.remove(kind::PERSISTENT_VOLUME_CLAIM, "database-0").await)?;
        let unlabelled = json!({ "metadata": { "labels": { "valv.eu/tenant": null } } });
        let label =
            refusal(admin.change(kind::NAMESPACE, "", &tenant.namespace, Change::Merge(&unlabelled)).await)?;

        let instead =
            format!("delete the JournalTenant instead: kubectl delete journaltenant {}", tenant.name);
        ensure!(namespace.contains(&instead), "{namespace}");
        ensure!(claim.contains(&instead), "{claim}");
        ensure!(label.contains("leave it as it is"), "{label}");
        ensure!(tenant.find(kind::PERSISTENT_VOLUME_CLAIM, "database-0").await?.is_some());
        test.measured("namespace, claim and label are guarded");
        Ok(())
    });
}

#[test]
fn a_tenant_whose_spec_became_invalid_can_still_be_deleted() {
    run(async |test| {
        let tenant = test.tenant("muddled")?.with("suspended: true")?;
        tenant.apply().await?;
        tenant.is_there(kind::PERSISTENT_VOLUME_CLAIM, "database-0").await?;
        tenant.says(ConditionType::NamespaceReady, "True", Reason::AsAsked).await?;

        tenant.edit("journal: {writableFolders: [/var/lib/journal, /var/lib/journal/]}").await?;
        let said = tenant.says(ConditionType::Ready, "False", Reason::InvalidSpec).await?;
        let before = tenant.condition(ConditionType::NamespaceReady).await?;
        tenant.delete().await?;
        let took = tenant.is_gone().await?;

        test.measured(format_args!("let go after {:.1} s: {}", took.as_secs_f32(), said.message));
        let before = before.context("there was a condition")?;
        ensure!(
            before.reason == format!("{:?}", Reason::Unobserved),
            "said of what was not looked at: {before:?}"
        );
        ensure!(tenant.find(kind::PERSISTENT_VOLUME_CLAIM, "database-0").await?.is_some());
        Ok(())
    });
}

#[test]
fn a_tenant_whose_access_for_the_operator_was_taken_away_can_still_be_deleted() {
    run(async |test| {
        let tenant = test.tenant("locked")?.with("suspended: true")?;
        tenant.apply().await?;
        tenant.is_there(kind::SECRET, "login-owner").await?;

        tenant.annotate(PAUSED_ANNOTATION, Some("")).await?;
        tenant.says(ConditionType::Ready, "Unknown", Reason::Paused).await?;
        tenant.remove(kind::ROLE_BINDING, "valv-operator").await?;
        tenant.delete().await?;
        tenant.annotate(PAUSED_ANNOTATION, None).await?;
        let took = tenant.is_gone().await?;

        test.measured(format_args!("let go after {:.1} s", took.as_secs_f32()));
        let login = tenant.get(kind::SECRET, "login-owner").await?;
        ensure!(login["metadata"]["annotations"][RETAINED_ANNOTATION].is_string(), "it was not marked");
        Ok(())
    });
}

/// A second volume.
const WITH_ATTACHMENTS: &str = "
attachments: {size: 1Gi, mountPath: /var/lib/journal}
journal: {writableFolders: null}
";

async fn passwords(tenant: &Tenant) -> Result<Vec<String>> {
    let mut all = vec![];
    for login in LOGINS {
        all.push(tenant.secret(login, "password").await?);
    }
    Ok(all)
}

async fn everything_that_stays_is_marked(tenant: &Tenant) -> Result<()> {
    let mut left = tenant.list(kind::PERSISTENT_VOLUME_CLAIM, "").await?;
    ensure!(left.len() == 2, "{} claims are left of 2", left.len());
    let secrets = tenant.list(kind::SECRET, "").await?;
    for name in LOGINS {
        ensure!(secrets.iter().any(|secret| secret["metadata"]["name"] == name), "the Secret {name} is gone");
    }
    left.extend(secrets);
    for object in left {
        let metadata = &object["metadata"];
        let name = &metadata["name"];
        ensure!(
            metadata["annotations"][RETAINED_ANNOTATION].is_string(),
            "{name} is not marked as left behind"
        );
        ensure!(metadata["ownerReferences"].is_null(), "{name} would be collected with its owner");
    }
    Ok(())
}

async fn volumes_of(world: &World, tenant: &Tenant) -> Result<Vec<Value>> {
    let volumes = world.admin.list(kind::PERSISTENT_VOLUME, "", "").await?;
    Ok(volumes
        .into_iter()
        .filter(|volume| volume["spec"]["claimRef"]["namespace"] == tenant.namespace)
        .collect())
}
