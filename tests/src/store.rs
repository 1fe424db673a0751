//! Object stores, as platform engineers bring them: four Secrets and a `BackupStore`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use valv_cluster::s3::{AccessKey, Method, Request};
use valv_cluster::{BUCKET, Identity, Protection, Store};
use valv_crds::reference::{IDENTITY_LABEL, STORE_LABEL};
use valv_crds::store::{StoreCondition, StoreReason};

use crate::actor::{Change, Grace, is_not_found};
use crate::kind;
use crate::operator::NAMESPACE;
use crate::own_bucket::OwnBucket;
use crate::saying::says;
use crate::test::{Test, unique};
use crate::world::World;

/// A probe is some thirty requests; a Secret is looked for every ten seconds.
const PROBED: Duration = Duration::from_secs(90);

/// The local cluster's stores. A cluster of one's own has none that may be tried.
pub fn stores(test: &Test) -> Result<Option<[Store; 2]>> {
    let Some(cluster) = test.world.local() else {
        test.not_here("there are no stores here");
        return Ok(None);
    };
    Ok(Some(cluster.stores()?))
}

/// A `BackupStore`.
pub struct BackupStore {
    world: &'static World,
    /// The server.
    pub server: Store,
    /// Its name, which is also its folder in the bucket.
    pub name: String,
    /// Its bucket, if it is not the one that all tests have in common.
    pub own_bucket: Option<OwnBucket>,
}

impl BackupStore {
    /// One of this test, which takes it away. Not applied yet.
    pub fn of(test: &Test, server: &Store, stem: &str) -> Result<Self> {
        let store = Self::named(test.world, server, &unique(stem));
        test.made(kind::BACKUP_STORE, "", &store.name);
        for identity in Identity::ALL {
            test.made(kind::SECRET, NAMESPACE, &store.secret(identity));
        }
        Ok(store)
    }

    /// One with exactly this name. Not applied yet; whoever applies it takes it away.
    pub fn named(world: &'static World, server: &Store, name: &str) -> Self {
        Self { world, server: server.clone(), name: name.to_owned(), own_bucket: None }
    }

    /// The name of its bucket.
    pub fn bucket(&self) -> &str {
        self.own_bucket.as_ref().map_or(BUCKET, |own| &own.name)
    }

    /// The key of one of its identities.
    pub fn key(&self, identity: Identity) -> Result<AccessKey> {
        match &self.own_bucket {
            Some(own) => own.key(identity),
            None => self.server.key(identity),
        }
    }

    /// The folder with its objects, on the machine that it runs on.
    pub fn objects(&self) -> PathBuf {
        self.server.objects().with_file_name(self.bucket()).join(&self.name)
    }

    /// How many versions and delete markers lie under a key, which begins below its folder in the bucket.
    pub fn versions(&self, key: &str) -> Result<usize> {
        let key = format!("{}/{key}", self.name);
        let list = Request::new(Method::Get, &format!("/{}", self.bucket()));
        let list = list.query("versions", "").query("prefix", &key);
        let listed = self.server.administrator()?.must(&list)?.text();
        Ok(listed.matches(&format!("<Key>{key}</Key>")).count())
    }

    /// Takes the object and its Secrets away. What lies in the bucket stays.
    pub async fn take_away(&self) -> Result<()> {
        let admin = &self.world.admin;
        let secrets = Identity::ALL.map(|identity| (kind::SECRET, NAMESPACE, self.secret(identity)));
        for (kind, namespace, name) in
            [(kind::BACKUP_STORE, "", self.name.clone())].into_iter().chain(secrets)
        {
            match admin.delete(kind, namespace, &name, Grace::None).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Name of the Secret of an identity.
    pub fn secret(&self, identity: Identity) -> String {
        format!("{}-{}", self.name, identity.name())
    }

    /// Makes the Secrets of these identities.
    pub async fn bring_secrets(&self, identities: &[Identity]) -> Result<()> {
        for identity in identities {
            let key = self.key(*identity)?;
            let name = self.secret(*identity);
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": { "name": name, "labels": {
                    STORE_LABEL: self.name, IDENTITY_LABEL: identity.name(),
                }},
                "stringData": {
                    "accessKeyID": key.id,
                    "secretAccessKey": key.secret.expose_secret(),
                },
            });
            self.world.admin.create(kind::SECRET, NAMESPACE, secret).await?;
        }
        Ok(())
    }

    /// Says of the Secret of an identity that it is another's, or of another store.
    pub async fn relabel_secret(&self, identity: Identity, label: &str, value: Option<&str>) -> Result<()> {
        let change = json!({ "metadata": { "labels": { label: value } } });
        let admin = &self.world.admin;
        admin.change(kind::SECRET, NAMESPACE, &self.secret(identity), Change::Merge(&change)).await.map(drop)
    }

    /// Changes the secret key of one.
    pub async fn change_secret(&self, identity: Identity, key: &str) -> Result<()> {
        let change = json!({ "stringData": { "secretAccessKey": key } });
        let admin = &self.world.admin;
        admin.change(kind::SECRET, NAMESPACE, &self.secret(identity), Change::Merge(&change)).await.map(drop)
    }

    /// Applies it, with something said differently.
    pub async fn apply(&self, changes: Value) -> Result<()> {
        let server = &self.server;
        let secret = |identity| json!({ "name": self.secret(identity) });
        let mut spec = json!({
            "provider": "here",
            "location": { "region": server.region, "country": server.country },
            "profile": "Versitygw",
            "endpoint": server.endpoint(),
            "bucket": self.bucket(),
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
        self.world.admin.apply(kind::BACKUP_STORE, "", &object).await.map(drop)
    }

    /// The object, as it stands.
    pub async fn object(&self) -> Result<Value> {
        self.world.admin.get(kind::BACKUP_STORE, "", &self.name).await
    }

    /// What the probe saw.
    pub async fn capabilities(&self) -> Result<Value> {
        Ok(self.object().await?["status"]["capabilities"].clone())
    }

    /// Waits until a condition has this status and reason, and returns its message.
    pub async fn says(&self, condition: StoreCondition, status: &str, reason: StoreReason) -> Result<String> {
        says(&self.name, (condition, status, reason), PROBED, async || self.object().await).await
    }
}
