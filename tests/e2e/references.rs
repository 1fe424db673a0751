//! What a tenant names and is not there: it says so, and goes on when it comes.

use anyhow::ensure;
use harness::tenant::STEP;
use harness::{Seen, Tenant, eventually, kind, run};
use serde_json::json;
use tokio::time::Instant;
use valv_crds::condition::{ConditionType, Reason};

/// Accounts from a Secret that somebody brings.
const ACCOUNTS_FROM_A_SECRET: &str = "
journal:
  env:
    - {name: JOURNAL_TLS_CERT_FILE, value: /etc/valv/tls/tls.crt}
    - {name: JOURNAL_TLS_KEY_FILE, value: /etc/valv/tls/tls.key}
    - {name: JOURNAL_ATTACHMENTS_DIR, value: /var/lib/journal}
    - {name: JOURNAL_ACCOUNTS, valueFrom: {secretKeyRef: {name: accounts, key: accounts}}}
";

#[test]
fn a_missing_secret_is_named_and_taken_up_when_it_appears() {
    run(async |test| {
        let tenant = test.tenant("waiting")?.with(ACCOUNTS_FROM_A_SECRET)?;
        let pods = pods_of_the_operator(test).await?;
        tenant.apply().await?;

        let said = tenant.says(ConditionType::ReferencesResolved, "False", Reason::SecretMissing).await?;
        tenant.says(ConditionType::Ready, "False", Reason::SecretMissing).await?;
        tenant.condition(ConditionType::Stalled).await?;
        tenant.bring_secret("accounts", &[("accounts", "SE2321000016-1003:e2e")]).await?;
        let begun = Instant::now();
        tenant.ready().await?;

        test.measured(format_args!("ready {:.1} s after the Secret came", begun.elapsed().as_secs_f32()));
        let sentence = format!("the Secret accounts is not in the namespace {}", tenant.namespace);
        ensure!(said.message.contains(&sentence), "{}", said.message);
        tenant.journal().await?.write("Kontot finns.").await?;
        ensure!(pods_of_the_operator(test).await? == pods, "the operator was restarted meanwhile");
        Ok(())
    });
}

#[test]
fn a_missing_storage_class_is_named_and_taken_up_when_it_appears() {
    run(async |test| {
        let class = harness::test::unique("e2e");
        let tenant = test.tenant("classless")?.with(&format!("database: {{storageClassName: {class}}}"))?;
        tenant.apply().await?;

        let said = tenant.says(ConditionType::VolumesReady, "False", Reason::ClassMissing).await?;
        tenant.says(ConditionType::Ready, "False", Reason::ClassMissing).await?;
        let claim = tenant.find(kind::PERSISTENT_VOLUME_CLAIM, "database-0").await?;
        test.made(kind::STORAGE_CLASS, "", &class);
        let classes = test.world.admin.list(kind::STORAGE_CLASS, "", "").await?;
        let like = classes.first().cloned().unwrap_or_default();
        let made = json!({
            "apiVersion": kind::STORAGE_CLASS.api_version(),
            "kind": kind::STORAGE_CLASS.name,
            "metadata": { "name": class },
            "provisioner": like["provisioner"],
            "parameters": like["parameters"],
            "volumeBindingMode": like["volumeBindingMode"],
        });
        test.world.admin.create(kind::STORAGE_CLASS, "", made).await?;
        let begun = Instant::now();
        tenant.ready().await?;

        test.measured(format_args!("ready {:.1} s after the class came", begun.elapsed().as_secs_f32()));
        ensure!(
            said.message.contains(&format!("the storage class {class} is not there")),
            "{}",
            said.message
        );
        ensure!(claim.is_none(), "a claim was made that would wait for ever");
        Ok(())
    });
}

#[test]
fn a_missing_ingress_class_is_named_and_taken_up_when_it_appears() {
    run(async |test| {
        let class = harness::test::unique("e2e");
        let tenant =
            test.tenant("unreachable")?.with(&format!("access: {{ingress: {{className: {class}}}}}"))?;
        let tenant = tenant.with("suspended: true")?;
        tenant.apply().await?;

        let said = tenant.says(ConditionType::ReferencesResolved, "False", Reason::ClassMissing).await?;
        test.made(kind::INGRESS_CLASS, "", &class);
        let made = json!({
            "apiVersion": kind::INGRESS_CLASS.api_version(),
            "kind": kind::INGRESS_CLASS.name,
            "metadata": { "name": class },
            "spec": { "controller": "valv.eu/e2e" },
        });
        test.world.admin.create(kind::INGRESS_CLASS, "", made).await?;
        let begun = Instant::now();
        // These tests name no ingress controllers: that is what is missing next.
        eventually("the walls are spoken of", STEP, async || {
            let said = tenant.condition(ConditionType::ReferencesResolved).await?.unwrap_or_default();
            let next = said.message.contains("network.ingressControllers");
            Ok(Seen::when(next.then_some(()), &said.message))
        })
        .await?;
        let took = begun.elapsed();
        let ingress = tenant.is_there(kind::INGRESS, "journal").await?;

        let sentence = format!("the IngressClass {class} is not there");
        ensure!(said.message.contains(&sentence), "{}", said.message);
        ensure!(ingress["spec"]["ingressClassName"] == class, "{ingress}");
        ensure!(ingress["spec"]["rules"][0]["host"] == tenant.host(), "{ingress}");
        test.measured(format_args!("taken up {:.1} s after the class came", took.as_secs_f32()));
        Ok(())
    });
}

#[test]
fn a_missing_gateway_api_is_named() {
    run(async |test| {
        let tenant = test.tenant("gateless")?.with("access: {gateway: {name: edge, namespace: edge}}")?;
        let tenant = tenant.with("suspended: true")?;
        tenant.apply().await?;

        let said = tenant.says(ConditionType::ReferencesResolved, "False", Reason::ClassMissing).await?;

        ensure!(said.message.contains("this cluster has no Gateway API"), "{}", said.message);
        test.measured(said.message);
        Ok(())
    });
}

#[test]
fn a_missing_image_is_named_and_taken_up_when_it_appears() {
    run(async |test| {
        let journal = test.world.image("journal-1")?;
        let image = format!("{journal}-{}", harness::test::unique("late"));
        let tenant = test.tenant("imageless")?.with(&format!("journal: {{image: '{image}'}}"))?;
        let pods = pods_of_the_operator(test).await?;
        tenant.apply().await?;

        let said = tenant.says(ConditionType::ReferencesResolved, "Unknown", Reason::ImageMissing).await?;
        tenant.says(ConditionType::Ready, "False", Reason::ImageMissing).await?;
        match test.world.local() {
            Some(cluster) => cluster.tag_image(journal, &image)?,
            // Nobody can bring an image to the nodes of another cluster: another one is asked for.
            None => tenant.edit("journal: {image: journal-1}").await?,
        }
        let begun = Instant::now();
        tenant.ready().await?;

        ensure!(said.message.contains(&image), "{}", said.message);
        ensure!(pods_of_the_operator(test).await? == pods, "the operator was restarted meanwhile");
        test.measured(format_args!("ready {:.1} s after the image came", begun.elapsed().as_secs_f32()));
        Ok(())
    });
}

#[test]
fn what_the_schema_cannot_say_is_told_in_the_status() {
    run(async |test| {
        let tenant = test.tenant("contradictory")?;
        let twice = "journal: {writableFolders: [/var/lib/journal, /var/lib/journal/]}";
        let tenant = tenant.with(twice)?;
        tenant.apply().await?;

        let said = tenant.says(ConditionType::Ready, "False", Reason::InvalidSpec).await?;

        ensure!(said.message.contains("/var/lib/journal"), "{}", said.message);
        ensure!(is_untouched(&tenant, test).await?, "something was made of a spec that contradicts itself");
        test.measured(said.message);
        Ok(())
    });
}

async fn is_untouched(tenant: &Tenant, test: &harness::Test) -> anyhow::Result<bool> {
    Ok(test.world.admin.find(kind::NAMESPACE, "", &tenant.namespace).await?.is_none())
}

/// Name and restarts of each of the operator's pods.
async fn pods_of_the_operator(test: &harness::Test) -> anyhow::Result<Vec<String>> {
    let pods = test.operator().pods().await?;
    Ok(pods
        .iter()
        .map(|pod| {
            format!("{} {}", pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
        })
        .collect())
}
