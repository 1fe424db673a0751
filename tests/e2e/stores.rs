//! What a bucket is claimed to be is proven before anything goes there.

use anyhow::ensure;
use harness::actor::{Change, Grace};
use harness::operator::NAMESPACE;
use harness::store::{BackupStore, stores};
use harness::{kind, refusal, run};
use secrecy::ExposeSecret;
use serde_json::json;
use valv_cluster::Identity;
use valv_crds::reference::STORE_LABEL;
use valv_crds::store::{StoreCondition, StoreReason};

#[test]
fn both_stores_are_proven_to_be_what_they_are_claimed_to_be() {
    run(async |test| {
        let Some([helsinki, frankfurt]) = stores(test)? else { return Ok(()) };
        let locked = BackupStore::of(test, &helsinki, "helsinki")?;
        let plain = BackupStore::of(test, &frankfurt, "frankfurt")?;

        for store in [&locked, &plain] {
            store.bring_secrets(&Identity::ALL).await?;
            store.apply(json!({})).await?;
        }
        locked.says(StoreCondition::Ready, "True", StoreReason::AsAsked).await?;
        plain.says(StoreCondition::Ready, "True", StoreReason::AsAsked).await?;

        let (locked, plain) = (locked.capabilities().await?, plain.capabilities().await?);
        let yes = [
            "tls",
            "conditionalPut",
            "versioning",
            "lockRefusesDeletion",
            "lockRefusesShortening",
            "lockExtends",
        ];
        for name in yes {
            ensure!(locked[name]["answer"] == "Yes", "{name}: {locked:#}");
        }
        let forbidden = [
            "writerCanRead",
            "writerCanList",
            "writerCanDelete",
            "writerCanCommit",
            "committerCanWriteData",
            "committerCanDelete",
            "readerCanWrite",
            "janitorCanRead",
        ];
        for name in forbidden {
            ensure!(
                locked[name]["answer"] == "No" && plain[name]["answer"] == "No",
                "{name}: {locked:#} {plain:#}"
            );
        }
        ensure!(locked["janitorCanHide"]["answer"] == "No" && plain["janitorCanHide"].is_null());
        ensure!(plain["writerCanOverwrite"]["answer"] == "Yes", "{plain:#}");
        ensure!(plain["lockRefusesDeletion"]["answer"] == "No", "{plain:#}");
        test.measured("Helsinki with its lock, Frankfurt without");
        Ok(())
    });
}

#[test]
fn a_lock_that_is_claimed_and_not_there_is_missed() {
    run(async |test| {
        let Some([_, frankfurt]) = stores(test)? else { return Ok(()) };
        let store = BackupStore::of(test, &frankfurt, "boasting")?;

        store.bring_secrets(&Identity::ALL).await?;
        store.apply(json!({ "objectLock": { "mode": "Compliance", "days": 35 } })).await?;
        store.says(StoreCondition::Ready, "False", StoreReason::LockMissing).await?;
        let said = store.says(StoreCondition::Stalled, "True", StoreReason::LockMissing).await?;

        test.measured(&said);
        Ok(())
    });
}

#[test]
fn credentials_that_the_store_refuses_are_named_and_the_right_ones_taken_up() {
    run(async |test| {
        let Some([helsinki, _]) = stores(test)? else { return Ok(()) };
        let store = BackupStore::of(test, &helsinki, "refused")?;
        store.bring_secrets(&Identity::ALL).await?;
        store.change_secret(Identity::Committer, "wrong").await?;

        store.apply(json!({})).await?;
        let said = store.says(StoreCondition::Ready, "False", StoreReason::CredentialsRefused).await?;
        ensure!(said.contains("committer"), "{said}");
        ensure!(!said.contains("wrong"), "a secret is shown: {said}");
        let right = helsinki.key(Identity::Committer)?;
        store.change_secret(Identity::Committer, right.secret.expose_secret()).await?;
        store.says(StoreCondition::Ready, "True", StoreReason::AsAsked).await?;

        test.measured(&said);
        Ok(())
    });
}

#[test]
fn a_missing_secret_of_a_store_is_named_and_taken_up_when_it_appears() {
    run(async |test| {
        let Some([helsinki, _]) = stores(test)? else { return Ok(()) };
        let store = BackupStore::of(test, &helsinki, "waiting")?;
        store.bring_secrets(&[Identity::Writer, Identity::Committer, Identity::Reader]).await?;

        store.apply(json!({})).await?;
        let said = store.says(StoreCondition::Ready, "False", StoreReason::CredentialsMissing).await?;
        ensure!(said.contains(&store.secret(Identity::Janitor)), "{said}");
        store.bring_secrets(&[Identity::Janitor]).await?;
        store.says(StoreCondition::Ready, "True", StoreReason::AsAsked).await?;

        test.measured(&said);
        Ok(())
    });
}

#[test]
fn a_secret_that_is_not_labelled_as_this_store_s_is_refused_with_what_to_label() {
    run(async |test| {
        let Some([helsinki, _]) = stores(test)? else { return Ok(()) };
        let store = BackupStore::of(test, &helsinki, "unlabelled")?;
        store.bring_secrets(&Identity::ALL).await?;
        store.relabel_secret(Identity::Writer, STORE_LABEL, Some("another")).await?;

        store.apply(json!({})).await?;
        let said = store.says(StoreCondition::Ready, "False", StoreReason::CredentialsUnlabelled).await?;
        ensure!(said.contains(&format!("valv.eu/store={}", store.name)), "{said}");
        store.relabel_secret(Identity::Writer, STORE_LABEL, Some(&store.name)).await?;
        store.says(StoreCondition::Ready, "True", StoreReason::AsAsked).await?;

        test.measured(&said);
        Ok(())
    });
}

#[test]
fn the_signing_key_is_published_and_nobody_else_says_which_it_is() {
    run(async |test| {
        let Some([helsinki, _]) = stores(test)? else { return Ok(()) };
        let store = BackupStore::of(test, &helsinki, "signed")?;
        store.bring_secrets(&Identity::ALL).await?;
        store.apply(json!({})).await?;
        store.says(StoreCondition::SigningKeyKept, "True", StoreReason::AsAsked).await?;

        let admin = &test.world.admin;
        let map = admin.get(kind::CONFIG_MAP, NAMESPACE, "valv-signing-key-public").await?;
        let told = store.object().await?["status"]["signingKey"].clone();
        ensure!(told["id"].is_string() && told["id"] == map["data"]["id"], "{told} {map:#}");
        ensure!(told["publicKey"] == map["data"]["signing.pub"], "{told} {map:#}");
        let other = json!({ "data": { "id": "0".repeat(32) } });
        let name = "valv-signing-key-public";
        let changed = admin.change(kind::CONFIG_MAP, NAMESPACE, name, Change::Merge(&other)).await;
        ensure!(refusal(changed)?.contains("Valv's to say"), "it was changed");
        let deleted = admin.delete(kind::CONFIG_MAP, NAMESPACE, name, Grace::Usual).await;
        ensure!(refusal(deleted)?.contains("replaced in silence"), "it was deleted");

        test.measured(told["id"].as_str().unwrap_or_default());
        Ok(())
    });
}

#[test]
fn nobody_else_writes_a_store_s_status() {
    run(async |test| {
        let Some([helsinki, _]) = stores(test)? else { return Ok(()) };
        let store = BackupStore::of(test, &helsinki, "green")?;
        store.apply(json!({})).await?;

        let status = json!({ "status": { "observedGeneration": 99 } });
        let refused =
            refusal(test.world.admin.change_status(kind::BACKUP_STORE, &store.name, &status).await)?;

        ensure!(refused.contains("only it writes it"), "{refused}");
        test.measured("refused even to the administrator");
        Ok(())
    });
}
