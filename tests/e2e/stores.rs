//! What a bucket is claimed to be is proven before anything goes there.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::actor::Change;
use harness::operator::NAMESPACE;
use harness::test::unique;
use harness::{Seen, Test, eventually, kind, refusal, run};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use valv_cluster::{BUCKET, Identity, Protection, Store};
use valv_crds::store::{StoreCondition, StoreReason};

/// A probe is some thirty requests; a Secret is looked for every ten seconds.
const PROBED: Duration = Duration::from_secs(90);

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

/// The local cluster's stores. A cluster of one's own has none that may be tried.
fn stores(test: &Test) -> Result<Option<[Store; 2]>> {
    let Some(cluster) = test.world.local() else {
        test.not_here("there are no stores here");
        return Ok(None);
    };
    Ok(Some(cluster.stores()?))
}

/// A `BackupStore` of one test.
struct BackupStore<'a> {
    test: &'a Test,
    server: Store,
    name: String,
}

impl<'a> BackupStore<'a> {
    /// Not applied yet.
    fn of(test: &'a Test, server: &Store, stem: &str) -> Result<Self> {
        let name = unique(stem);
        test.made(kind::BACKUP_STORE, "", &name);
        Ok(Self { test, server: server.clone(), name })
    }

    fn secret(&self, identity: Identity) -> String {
        format!("{}-{}", self.name, identity.name())
    }

    async fn bring_secrets(&self, identities: &[Identity]) -> Result<()> {
        for identity in identities {
            let (name, key) = (self.secret(*identity), self.server.key(*identity)?);
            self.test.made(kind::SECRET, NAMESPACE, &name);
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name },
                "stringData": {
                    "accessKeyID": key.id,
                    "secretAccessKey": key.secret.expose_secret(),
                },
            });
            self.test.world.admin.create(kind::SECRET, NAMESPACE, secret).await?;
        }
        Ok(())
    }

    async fn change_secret(&self, identity: Identity, key: &str) -> Result<()> {
        let change = json!({ "stringData": { "secretAccessKey": key } });
        let admin = &self.test.world.admin;
        admin.change(kind::SECRET, NAMESPACE, &self.secret(identity), Change::Merge(&change)).await.map(drop)
    }

    /// Applies it, with something said differently.
    async fn apply(&self, changes: Value) -> Result<()> {
        let server = &self.server;
        let secret = |identity| json!({ "name": self.secret(identity) });
        let mut spec = json!({
            "provider": "here",
            "location": { "region": server.region, "country": server.country },
            "profile": "Versitygw",
            "endpoint": server.endpoint(),
            "bucket": BUCKET,
            "prefix": self.name,
            "caBundle": fs::read_to_string(server.ca()).context("the stores' authority")?,
            "credentials": {
                "writer": secret(Identity::Writer), "committer": secret(Identity::Committer),
                "reader": secret(Identity::Reader), "janitor": secret(Identity::Janitor),
            },
        });
        if server.protection == Protection::VersionsAndLocks {
            spec["objectLock"] = json!({ "mode": "Compliance", "days": 1 });
        }
        for (field, value) in changes.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let object = json!({
            "apiVersion": kind::BACKUP_STORE.api_version(),
            "kind": kind::BACKUP_STORE.name,
            "metadata": { "name": self.name },
            "spec": spec,
        });
        self.test.world.admin.apply(kind::BACKUP_STORE, "", &object).await.map(drop)
    }

    async fn object(&self) -> Result<Value> {
        self.test.world.admin.get(kind::BACKUP_STORE, "", &self.name).await
    }

    async fn capabilities(&self) -> Result<Value> {
        Ok(self.object().await?["status"]["capabilities"].clone())
    }

    /// Waits until a condition has this status and reason, and returns its message.
    async fn says(&self, condition: StoreCondition, status: &str, reason: StoreReason) -> Result<String> {
        let (kind, wanted) = (format!("{condition:?}"), format!("{reason:?}"));
        eventually(format!("{} says {kind} {status} {wanted}", self.name), PROBED, async || {
            let object = self.object().await?;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let said = conditions.iter().find(|said| said["type"] == kind.as_str());
            Ok(match said {
                Some(said) if said["status"] == status && said["reason"] == wanted.as_str() => {
                    Seen::Yes(said["message"].as_str().unwrap_or_default().to_owned())
                }
                _ => Seen::NotYet(object["status"].to_string()),
            })
        })
        .await
    }
}
