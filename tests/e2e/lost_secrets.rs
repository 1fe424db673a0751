//! A generated Secret is lost.

use anyhow::{Context, ensure};
use harness::actor::Change;
use harness::tenant::STEP;
use harness::{Seen, Writer, eventually, kind, run};
use serde_json::{Value, json};
use valv_crds::condition::{ConditionType, Reason};

#[test]
fn a_lost_password_is_told_and_not_made_again_until_it_is_put_back() {
    run(async |test| {
        let tenant = test.tenant("lost")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        let secret = tenant.get(kind::SECRET, "login-app-a").await?;

        tenant.remove(kind::SECRET, "login-app-a").await?;
        let said = tenant.says(ConditionType::SecretsIntact, "False", Reason::SecretLost).await?;
        tenant.says(ConditionType::Ready, "False", Reason::SecretLost).await?;
        journal.write("Journalen går ändå.").await?;
        let made_again = tenant.find(kind::SECRET, "login-app-a").await?.is_some();
        test.world.admin.create(kind::SECRET, &tenant.namespace, restored(&secret)).await?;
        tenant.ready().await?;

        ensure!(said.message.contains("login-app-a"), "{}", said.message);
        ensure!(said.message.contains("put it back from a backup of the cluster"), "{}", said.message);
        ensure!(said.message.contains("raise spec.database.passwordRotation.generation"), "{}", said.message);
        ensure!(!made_again, "a new password was made silently");
        journal.write("Och efteråt.").await?;
        test.measured("told, served on, healed by the Secret of before");
        Ok(())
    });
}

#[test]
fn a_lost_password_is_replaced_when_new_ones_are_asked_for() {
    run(async |test| {
        let tenant = test.tenant("replaced")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        journal.write("Före.").await?;
        // The one that changes all the others is lost too.
        for name in ["login-app-a", "login-owner", "login-roles"] {
            tenant.remove(kind::SECRET, name).await?;
        }
        tenant.says(ConditionType::SecretsIntact, "False", Reason::SecretLost).await?;

        tenant.edit("database: {passwordRotation: {generation: 2}}").await?;
        tenant.shows("/status/database/passwordGeneration", &json!(2)).await?;
        tenant.ready().await?;

        journal.writes_again("Efter.").await?;
        ensure!(journal.read().await? == ["Efter.", "Före."]);
        test.measured("healed by a new generation");
        Ok(())
    });
}

#[test]
fn a_lost_login_of_the_journal_is_replaced_and_no_request_fails() {
    run(async |test| {
        let tenant = test.tenant("unbroken")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        tenant.remove(kind::SECRET, "login-app-a").await?;
        tenant.says(ConditionType::SecretsIntact, "False", Reason::SecretLost).await?;
        let writer = Writer::start(&journal).await?;

        tenant.edit("database: {passwordRotation: {generation: 2}}").await?;
        tenant.shows("/status/database/passwordGeneration", &json!(2)).await?;
        tenant.ready().await?;

        let report = writer.stop().await?;
        ensure!(tenant.secret("journal-database", "user").await? == "journal_app_b");
        test.measured(&report);
        report.ensure_nothing_failed()
    });
}

#[test]
fn a_lost_authority_disturbs_nobody_and_is_replaced_when_a_new_one_is_asked_for() {
    run(async |test| {
        let tenant = test.tenant("unsigned")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        let before = tenant.get(kind::CONFIG_MAP, "authorities").await?;
        let pods = names(&tenant.pods("journal").await?);
        let writer = Writer::start(&journal).await?;

        tenant.remove(kind::SECRET, "authority-1").await?;
        let said = tenant.says(ConditionType::SecretsIntact, "False", Reason::SecretLost).await?;
        let after = tenant.get(kind::CONFIG_MAP, "authorities").await?;
        ensure!(after["data"] == before["data"], "another authority is trusted");
        ensure!(names(&tenant.pods("journal").await?) == pods, "pods were replaced for nothing");
        tenant.edit("certificates: {rotation: {generation: 2}}").await?;
        tenant.shows("/status/certificates/generation", &json!(2)).await?;
        tenant.ready().await?;

        let report = writer.stop().await?;
        ensure!(said.message.contains("authority-1"), "{}", said.message);
        test.measured(&report);
        report.ensure_nothing_failed()
    });
}

fn names(pods: &[Value]) -> Vec<Value> {
    pods.iter().map(|pod| pod["metadata"]["name"].clone()).collect()
}

#[test]
fn an_edited_password_is_told_like_a_lost_one() {
    run(async |test| {
        let tenant = test.tenant("forged")?;
        tenant.up().await?;
        let before = tenant.get(kind::SECRET, "login-app-a").await?;
        let forged = json!({ "stringData": { "password": "guessed" } });

        tenant.meddle(kind::SECRET, "login-app-a", Change::Merge(&forged)).await?;
        let said = tenant.says(ConditionType::SecretsIntact, "False", Reason::SecretLost).await?;
        let put_back = json!({ "data": before["data"] });
        tenant.meddle(kind::SECRET, "login-app-a", Change::Merge(&put_back)).await?;
        tenant.ready().await?;

        ensure!(said.message.contains("login-app-a is gone or was edited"), "{}", said.message);
        test.measured("told, and healed when it was put back");
        Ok(())
    });
}

#[test]
fn a_computed_secret_is_written_again() {
    run(async |test| {
        let tenant = test.tenant("computed")?;
        tenant.up().await?;
        let before = tenant.secret("journal-database", "url").await?;

        tenant.remove(kind::SECRET, "journal-database").await?;
        eventually("the connection is there again", STEP, async || {
            let secret = tenant.find(kind::SECRET, "journal-database").await?.context("absent")?;
            Ok(Seen::Yes(secret))
        })
        .await?;

        ensure!(tenant.secret("journal-database", "url").await? == before);
        test.measured("the same connection as before");
        tenant.ready().await
    });
}

/// As a backup of the cluster would put it back.
fn restored(secret: &Value) -> Value {
    let metadata = &secret["metadata"];
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": metadata["name"], "labels": metadata["labels"], "annotations": metadata["annotations"],
        },
        "type": secret["type"],
        "data": secret["data"],
    })
}
