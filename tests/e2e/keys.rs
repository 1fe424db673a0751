//! Who holds a key proves it, and who rotates one loses no backup.

use std::time::Duration;

use age::secrecy::ExposeSecret;
use age::x25519;
use anyhow::{Context, Result, ensure};
use harness::actor::Change;
use harness::drilled::{Drilled, KEYS};
use harness::plugin::{Plugin, text};
use harness::protected::{Protected, Wanted, opened};
use harness::test::unique;
use harness::{Seen, Test, eventually, kind, run};
use serde_json::{Value, json};
use valv_crds::condition::{ConditionType, Reason};

/// The operator looks at all keys every ten seconds, and two minutes after a look that failed.
const LOOKED: Duration = Duration::from_secs(180);

/// Where a holder answers.
const ANSWER: &str = "valv.eu/key-answer";

#[test]
fn each_holder_proves_a_key_and_a_wrong_answer_proves_nothing() {
    run(async |test| {
        let Some(protected) = Protected::bring(test, Wanted::default()).await? else { return Ok(()) };
        let tenant = &protected.tenant;
        tenant.up().await?;
        protected.complete().await?;
        tenant.says(ConditionType::KeysProven, "False", Reason::NeverProven).await?;
        // With the rights that docs/operations/keys.md names, and no others.
        let plugin = with_the_rights_of_the_page(test, &tenant.name).await?;
        let proves = async |identity: &x25519::Identity| {
            let secret = identity.to_string();
            let said = plugin
                .told(&["keys", "prove", &tenant.name], &format!("{}\n", secret.expose_secret()))
                .await?;
            let all = text(&said.stdout) + &text(&said.stderr);
            ensure!(!all.contains(secret.expose_secret()), "it shows the key");
            anyhow::Ok((said.status.code(), all))
        };

        let stranger = x25519::Identity::generate();
        eventually("the API server knows of the holder's rights", LOOKED, async || {
            let (code, said) = proves(&stranger).await?;
            Ok(Seen::when((code != Some(2)).then_some(()), said))
        })
        .await?;
        let (code, said) = proves(&stranger).await?;
        ensure!(code == Some(1) && said.contains("none of the recipients"), "{code:?}: {said}");

        // An answer that proves nothing, by somebody who may write there.
        let challenge = eventually("the escrow is challenged", LOOKED, async || {
            let all = tenant.list(kind::CONFIG_MAP, "").await?;
            let recipient = protected.escrow.to_public().to_string();
            let found = all.into_iter().find(|one| one["data"]["recipient"] == recipient.as_str());
            Ok(Seen::when(found, "there is no challenge for it"))
        })
        .await?;
        let name = challenge["metadata"]["name"].as_str().context("it has a name")?;
        let wrong = json!({ "metadata": { "annotations": { ANSWER: "0".repeat(64) } } });
        tenant.meddle(kind::CONFIG_MAP, name, Change::Merge(&wrong)).await?;
        eventually("the wrong answer is told", LOOKED, async || {
            let events = test.world.admin.list(kind::EVENT, "default", "").await?;
            let told = events.iter().find(|event| {
                event["involvedObject"]["name"] == tenant.name.as_str() && event["reason"] == "KeyAnswerWrong"
            });
            Ok(Seen::when(told.filter(|event| event["type"] == "Warning").map(drop), "there is no event"))
        })
        .await?;
        let after = tenant.get(kind::CONFIG_MAP, name).await?;
        ensure!(after["metadata"]["annotations"][ANSWER].is_null(), "it stands there yet: {after}");
        ensure!(proven(&tenant.object().await?).is_empty(), "something is proven");

        for (identity, so_far) in
            [(&protected.escrow, vec!["Escrow"]), (&protected.owner, vec!["Tenant", "Escrow"])]
        {
            let (code, said) = proves(identity).await?;
            ensure!(code == Some(0) && said.contains("proven at "), "{code:?}: {said}");
            let object = tenant.object().await?;
            let now = proven(&object);
            ensure!(now == so_far, "{now:?} are proven, and not {so_far:?}");
        }
        tenant.says(ConditionType::KeysProven, "True", Reason::AsAsked).await?;
        let (code, said) = proves(&protected.owner).await?;
        ensure!(code == Some(0), "once more: {code:?}: {said}");
        test.measured("two holders; a stranger and a wrong answer were refused");
        Ok(())
    });
}

#[test]
fn a_recipient_that_is_rotated_opens_the_next_backup_and_the_old_key_only_what_was_before() {
    run(async |test| {
        let Some(protected) = Protected::bring(test, Wanted::default()).await? else { return Ok(()) };
        let tenant = &protected.tenant;
        tenant.up().await?;
        let before = protected.data(&protected.complete().await?).await?;

        let successor = x25519::Identity::generate();
        tenant.edit(&format!("backup: {{recipients: {{tenant: {}}}}}", successor.to_public())).await?;
        // Said of the spec as it stands: from here on the operator knows of it.
        tenant.says(ConditionType::KeysProven, "False", Reason::NeverProven).await?;
        let after = protected.data(&protected.complete().await?).await?;

        for (folder, opens, does_not) in
            [(&before, &protected.owner, &successor), (&after, &successor, &protected.owner)]
        {
            ensure!(!opened(&folder.join("tenant"), opens)?.is_empty(), "nothing is in {folder:?}");
            ensure!(!opened(&folder.join("tenant"), &protected.escrow)?.is_empty(), "the escrow's");
            ensure!(opened(&folder.join("tenant"), does_not).is_err(), "the other key opens {folder:?}");
        }
        let manifest: Value = serde_json::from_slice(&std::fs::read(after.join("manifest.json"))?)?;
        let mut wanted =
            [successor.to_public(), protected.escrow.to_public()].map(|recipient| recipient.to_string());
        let named = manifest["recipients"].as_array().context("a manifest names its recipients")?;
        let mut named: Vec<_> = named.iter().filter_map(Value::as_str).collect();
        wanted.sort();
        named.sort_unstable();
        ensure!(named == wanted, "the manifest names {named:?}");
        Ok(())
    });
}

#[test]
fn a_drill_key_that_is_rotated_with_both_in_its_file_drills_old_backups_and_new_ones() {
    run(async |test| {
        let Some(drilled) = Drilled::bring(test, json!({}), json!({})).await? else { return Ok(()) };
        let (protected, tenant) = (&drilled.protected, &drilled.protected.tenant);
        let old = protected.complete().await?;
        let slot = protected.backup(&old).await?["status"]["slot"].clone();

        // As docs/operations/drills.md says: both into the file first, and then the recipient.
        let successor = x25519::Identity::generate();
        let both = [&successor, &protected.drill].map(|key| key.to_string().expose_secret().to_owned());
        let file = json!({ "stringData": { "identity": both.join("\n") } });
        let secret = format!("drill-key-{}", tenant.name);
        test.world.admin.change(kind::SECRET, KEYS, &secret, Change::Merge(&file)).await?;
        tenant.edit(&format!("backup: {{recipients: {{drill: {}}}}}", successor.to_public())).await?;
        tenant.says(ConditionType::KeysProven, "False", Reason::NeverProven).await?;

        let name = drilled.drill(json!({ "backup": slot })).await?;
        drilled.ends(&name, "True").await.context("a backup from before")?;
        ensure!(drilled.object(&name).await?["status"]["backup"]["slot"] == slot, "another was drilled");
        let newest = protected.complete().await?;
        let opens = opened(&protected.data(&newest).await?.join("tenant"), &protected.drill);
        ensure!(opens.is_err(), "the next backup is encrypted for the old key");
        drilled.passes().await.context("a backup from after")?;
        test.measured("one from before and one from after");
        Ok(())
    });
}

/// The roles whose keys the tenant's status calls proven.
fn proven(tenant: &Value) -> Vec<&str> {
    let keys = tenant["status"]["backup"]["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    keys.iter().filter(|key| key["proven"].is_string()).filter_map(|key| key["role"].as_str()).collect()
}

/// The plugin of somebody who may read tenants, and read and annotate ConfigMaps in this tenant's namespace.
async fn with_the_rights_of_the_page(test: &Test, tenant: &str) -> Result<Plugin> {
    let (admin, name) = (&test.world.admin, unique("holder"));
    let namespace = format!("journal-{tenant}");
    let rules = |group: &str, resource: &str, verbs: &[&str]| json!([{ "apiGroups": [group], "resources": [resource], "verbs": verbs }]);
    let role = |kind: kind::Kind, rules: Value| {
        json!({
            "apiVersion": kind.api_version(), "kind": kind.name, "metadata": { "name": name }, "rules": rules,
        })
    };
    let binding = |kind: kind::Kind, of: kind::Kind| {
        json!({
            "apiVersion": kind.api_version(), "kind": kind.name, "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": of.name, "name": name },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": "default" }],
        })
    };
    let account =
        json!({ "apiVersion": "v1", "kind": kind::SERVICE_ACCOUNT.name, "metadata": { "name": name } });
    let of_tenants = role(kind::CLUSTER_ROLE, rules("valv.eu", "journaltenants", &["get"]));
    let of_challenges = role(kind::ROLE, rules("", "configmaps", &["get", "patch"]));
    for (kind, namespace, object) in [
        (kind::SERVICE_ACCOUNT, "default", account),
        (kind::CLUSTER_ROLE, "", of_tenants),
        (kind::CLUSTER_ROLE_BINDING, "", binding(kind::CLUSTER_ROLE_BINDING, kind::CLUSTER_ROLE)),
        (kind::ROLE, namespace.as_str(), of_challenges),
        (kind::ROLE_BINDING, namespace.as_str(), binding(kind::ROLE_BINDING, kind::ROLE)),
    ] {
        test.made(kind, namespace, &name);
        admin.create(kind, namespace, object).await?;
    }
    Plugin::with_token(test.world, &admin.token("default", &name).await?)
}
