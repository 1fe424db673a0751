//! A tenant that is backed up, and the keys to its backups.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use age::secrecy::ExposeSecret;
use age::x25519;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use valv_cluster::Identity;
use valv_crds::backup::{BackupCondition, BackupReason};
use valv_crds::store::{StoreCondition, StoreReason};

use crate::actor::Change;
use crate::eventually::{Seen, eventually};
use crate::kind;
use crate::manifest::merge;
use crate::own_bucket::OwnBucket;
use crate::saying::says;
use crate::store::{BackupStore, stores};
use crate::tenant::Tenant;
use crate::test::{Test, unique};

/// A small database, its attachments, two pods and a commit, on a machine on which other tests run too.
pub const BACKED_UP: Duration = Duration::from_secs(180);

/// A tenant that is backed up to Helsinki, or to both stores.
pub struct Protected<'a> {
    test: &'a Test,
    /// The stores, in the policy's order.
    pub stores: Vec<BackupStore>,
    /// The policy's name.
    pub policy: String,
    /// The tenant.
    pub tenant: Tenant,
    /// What its spec says of attachments and backups.
    pub protection: String,
    /// The care provider's key.
    pub owner: x25519::Identity,
    /// The key in escrow.
    pub escrow: x25519::Identity,
    /// The key of unattended drills.
    pub drill: x25519::Identity,
}

/// What differs from one protected tenant to another.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Over the policy's spec.
    pub policy: Value,
    /// Over the spec of the first store.
    pub store: Value,
    /// Whether Frankfurt gets a copy.
    pub both_stores: bool,
    /// Whether the first store has a bucket and users of its own, to be done things to.
    pub own_bucket: bool,
    /// Whether a key for unattended drills is among the recipients.
    pub drill_key: bool,
}

impl<'a> Protected<'a> {
    /// Stores that are ready, a policy, and a tenant that is not applied yet. Absent: there are no stores here.
    pub async fn bring(test: &'a Test, wanted: Wanted) -> Result<Option<Self>> {
        let Some([helsinki, frankfurt]) = stores(test)? else { return Ok(None) };
        let mut brought = vec![BackupStore::of(test, &helsinki, "helsinki")?];
        if wanted.own_bucket {
            brought[0].own_bucket = Some(OwnBucket::at(&helsinki)?);
        }
        if wanted.both_stores {
            brought.push(BackupStore::of(test, &frankfurt, "frankfurt")?);
        }
        for (place, store) in brought.iter().enumerate() {
            store.bring_secrets(&Identity::ALL).await?;
            store.apply(if place == 0 { wanted.store.clone() } else { json!({}) }).await?;
        }
        for store in &brought {
            store.says(StoreCondition::Ready, "True", StoreReason::AsAsked).await?;
        }
        let policy = unique("policy");
        test.made(kind::BACKUP_POLICY, "", &policy);
        let mut spec = json!({
            "schedule": { "cron": "0 1 * * *", "timeZone": "Europe/Stockholm" },
            "stores": brought.iter().map(|store| &store.name).collect::<Vec<_>>(),
            "verification": { "mode": "Full" },
            "retention": { "floor": { "days": 35, "reason": "decided for a test" } },
            "objectives": { "rpo": "24h", "rto": "4h" },
        });
        if !wanted.policy.is_null() {
            merge(&mut spec, wanted.policy);
        }
        let object = json!({
            "apiVersion": kind::BACKUP_POLICY.api_version(),
            "kind": kind::BACKUP_POLICY.name,
            "metadata": { "name": policy },
            "spec": spec,
        });
        test.world.admin.apply(kind::BACKUP_POLICY, "", &object).await?;
        let [owner, escrow, drill] = [(); 3].map(|()| x25519::Identity::generate());
        let third = if wanted.drill_key { format!(", drill: {}", drill.to_public()) } else { String::new() };
        let protection = format!(
            "
            attachments: {{size: 1Gi, mountPath: /var/lib/journal}}
            journal: {{writableFolders: [/tmp]}}
            backup:
              policy: {policy}
              recipients: {{tenant: {}, escrow: {}{third}}}
            ",
            owner.to_public(),
            escrow.to_public()
        );
        let tenant = test.tenant("saved")?.with(&protection)?;
        Ok(Some(Self { test, stores: brought, policy, tenant, protection, owner, escrow, drill }))
    }

    /// The test that it is of.
    pub fn test(&self) -> &'a Test {
        self.test
    }

    /// Changes its policy's spec.
    pub async fn change_policy(&self, spec: Value) -> Result<()> {
        let change = json!({ "spec": spec });
        let admin = &self.test.world.admin;
        admin.change(kind::BACKUP_POLICY, "", &self.policy, Change::Merge(&change)).await.map(drop)
    }

    /// The first store.
    pub fn store(&self) -> &BackupStore {
        &self.stores[0]
    }

    /// The folder of this tenant's archive in a store, on the machine that it runs on.
    pub fn archive(&self, store: &BackupStore) -> PathBuf {
        store.objects().join("v1").join(&self.tenant.name)
    }

    /// The commits in the first store, in the order of their names.
    pub fn commits(&self) -> Result<Vec<String>> {
        let folder = self.archive(self.store()).join("commits");
        if !folder.exists() {
            return Ok(vec![]);
        }
        let entries =
            fs::read_dir(&folder).with_context(|| format!("failed to list {}", folder.display()))?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<_> = names.collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    }

    /// Asks for a backup, and returns its name.
    pub async fn back_up(&self, spec: Value) -> Result<String> {
        self.back_up_of(&self.tenant, spec).await
    }

    /// Asks for a backup of another tenant, and returns its name.
    pub async fn back_up_of(&self, tenant: &Tenant, spec: Value) -> Result<String> {
        let name = unique("by-hand");
        let object = json!({
            "apiVersion": kind::BACKUP.api_version(),
            "kind": kind::BACKUP.name,
            "metadata": { "name": name },
            "spec": spec,
        });
        self.test.world.admin.create(kind::BACKUP, &tenant.namespace, object).await?;
        Ok(name)
    }

    /// A backup that is complete: its name.
    pub async fn complete(&self) -> Result<String> {
        let name = self.back_up(json!({})).await?;
        self.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;
        Ok(name)
    }

    /// A backup, as it stands.
    pub async fn backup(&self, name: &str) -> Result<Value> {
        self.test.world.admin.get(kind::BACKUP, &self.tenant.namespace, name).await
    }

    /// The UID of a backup.
    pub async fn uid(&self, name: &str) -> Result<String> {
        let uid = self.backup(name).await?["metadata"]["uid"].as_str().map(str::to_owned);
        uid.context("it has a UID")
    }

    /// The folder in the first store that a backup's attempt wrote into.
    pub async fn data(&self, name: &str) -> Result<PathBuf> {
        let status = self.backup(name).await?["status"].clone();
        let slot = status["slot"].as_str().context("it has a slot")?;
        let attempt = status["attempt"]["id"].as_str().context("it has an attempt")?;
        Ok(self.archive(self.store()).join(format!("data/{slot}/{attempt}")))
    }

    /// The slot of a backup.
    pub async fn slot(&self, name: &str) -> Result<String> {
        let slot = self.backup(name).await?["status"]["slot"].as_str().map(str::to_owned);
        slot.context("it has a slot")
    }

    /// How many versions and delete markers the first store has of a backup's commit.
    pub async fn versions_of_commit(&self, name: &str) -> Result<usize> {
        let slot = self.slot(name).await?;
        self.store().versions(&format!("v1/{}/commits/{slot}.json", self.tenant.name))
    }

    /// Waits until a part of a backup's status is `so`, and returns it.
    pub async fn shows(
        &self,
        name: &str,
        what: &str,
        pointer: &str,
        so: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        eventually(format!("{name}: {what}"), BACKED_UP, async || {
            let object = self.backup(name).await?;
            let found = object["status"].pointer(pointer).filter(|found| so(found)).cloned();
            Ok(Seen::when(found, object["status"].to_string()))
        })
        .await
    }

    /// Waits until the attempt of this number has failed for this reason, and returns what is said of it. It is said
    /// until the next attempt begins, which is some seconds.
    ///
    /// # Errors
    /// If it failed for another, or did not fail.
    pub async fn attempt_fails(&self, name: &str, number: i64, reason: BackupReason) -> Result<String> {
        let what = format!("attempt {number} fails");
        let is_failed = |attempt: &Value| attempt["number"] == number && attempt["failed"].is_object();
        let attempt = self.shows(name, &what, "/attempt", is_failed).await?;
        failed_for(&attempt["failed"], reason)
    }

    /// The same of the first reading back of a backup's first attempt.
    pub async fn reading_fails(&self, name: &str, reason: BackupReason) -> Result<String> {
        let is_failed = |reading: &Value| reading["number"] == 1 && reading["failed"].is_object();
        let reading = self.shows(name, "its first reading fails", "/attempt/reading", is_failed).await?;
        failed_for(&reading["failed"], reason)
    }

    /// Waits until a condition has this status and reason, and returns its message.
    pub async fn says(
        &self,
        name: &str,
        condition: BackupCondition,
        status: &str,
        reason: BackupReason,
    ) -> Result<String> {
        self.of_says(&self.tenant, name, condition, status, reason).await
    }

    /// As [`says`](Self::says), of another tenant's backup.
    pub async fn of_says(
        &self,
        tenant: &Tenant,
        name: &str,
        condition: BackupCondition,
        status: &str,
        reason: BackupReason,
    ) -> Result<String> {
        let look = async || self.test.world.admin.get(kind::BACKUP, &tenant.namespace, name).await;
        says(name, (condition, status, reason), BACKED_UP, look).await
    }
}

/// What a failure says, which must be for this reason.
fn failed_for(failure: &Value, reason: BackupReason) -> Result<String> {
    ensure!(failure["reason"] == format!("{reason:?}"), "it failed for another reason: {failure}");
    Ok(failure["message"].as_str().unwrap_or_default().to_owned())
}

/// The tar stream of the segments in `folder`, in their order, by `age` and `zstd` as anybody has them.
///
/// # Errors
/// If the key does not open them.
pub fn opened(folder: &Path, key: &x25519::Identity) -> Result<Vec<u8>> {
    let keys = tempfile::NamedTempFile::new()?;
    fs::write(keys.path(), key.to_string().expose_secret())?;
    let mut stream = vec![];
    for segment in segments(folder)? {
        let mut age = Command::new("age");
        age.arg("--decrypt").arg("--identity").arg(keys.path()).arg(&segment);
        let mut age = age.stdout(Stdio::piped()).spawn().context("age")?;
        let mut zstd = Command::new("zstd");
        zstd.args(["--decompress", "--stdout"]).stdin(age.stdout.take().context("a pipe")?);
        let zstd = zstd.output().context("zstd")?;
        if !age.wait()?.success() || !zstd.status.success() {
            bail!("failed to open {}", segment.display());
        }
        stream.extend(zstd.stdout);
    }
    Ok(stream)
}

/// The files of a part, in their order.
pub fn segments(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    let mut segments: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    segments.sort();
    Ok(segments)
}
