//! A backup is complete when it was read back and committed, and its keys open it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use age::secrecy::ExposeSecret;
use age::x25519;
use anyhow::{Context, Result, bail, ensure};
use harness::actor::Change;
use harness::store::{BackupStore, stores};
use harness::test::unique;
use harness::{Seen, Tenant, Test, eventually, kind, refusal, run};
use serde_json::{Value, json};
use valv_cluster::Identity;
use valv_crds::backup::{BackupCondition, BackupReason};
use valv_crds::store::{StoreCondition, StoreReason};

/// A small database, its attachments, two pods and a commit.
const BACKED_UP: Duration = Duration::from_secs(120);

#[test]
fn a_backup_by_hand_is_read_back_committed_and_opened_by_each_of_its_keys() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        let tenant = &world.tenant;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        journal.write("Patienten mår bra i dag").await?;
        journal.attach("remiss.pdf", &[7; 300_000]).await?;

        let name = world.back_up(json!({})).await?;
        let said = world.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;

        let status = world.backup(&name).await?["status"].clone();
        ensure!(status["stores"][0]["verification"]["mode"] == "Full", "{status:#}");
        ensure!(status["stores"][0]["lockedUntil"].is_string(), "{status:#}");
        let archive = world.folder().join("v1").join(&tenant.name);
        let slot = status["slot"].as_str().context("it has a slot")?;
        ensure!(archive.join(format!("commits/{slot}.json")).is_file(), "there is no commit of {slot}");
        let attempt = status["attempt"]["id"].as_str().context("it has an attempt")?;
        let data = archive.join(format!("data/{slot}/{attempt}"));
        for key in [&world.owner, &world.escrow] {
            let database = opened(&data.join("database"), key)?;
            ensure!(listed(&database)?.iter().any(|name| name.ends_with("PG_VERSION")), "no database in it");
            let attachments = opened(&data.join("attachments"), key)?;
            ensure!(contains(&attachments, &[7; 100_000]), "the attachment is not in it");
            let tenant_part = opened(&data.join("tenant"), key)?;
            let names = listed(&tenant_part)?;
            ensure!(names.iter().any(|name| name.ends_with("tenant.yaml")), "{names:?}");
            ensure!(names.iter().any(|name| name.contains("secrets/login-owner/")), "{names:?}");
        }
        let stranger = x25519::Identity::generate();
        ensure!(opened(&data.join("database"), &stranger).is_err(), "anybody can open it");
        // The store's credentials do not stay in the tenant's namespace.
        eventually("the credentials are gone", BACKED_UP, async || {
            let left = tenant.list(kind::SECRET, "").await?;
            let left: Vec<_> = left
                .iter()
                .filter_map(|secret| secret["metadata"]["name"].as_str())
                .filter(|name| name.starts_with("backup-"))
                .map(str::to_owned)
                .collect();
            Ok(Seen::when(left.is_empty().then_some(()), format!("{left:?}")))
        })
        .await?;

        test.measured(&said);
        Ok(())
    });
}

#[test]
fn a_backup_that_cannot_be_made_says_why() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        let tenant = &world.tenant;
        tenant.edit("suspended: true").await?;
        tenant.apply().await?;
        tenant.namespace_is_there().await?;

        let name = world.back_up(json!({})).await?;
        let said = world.says(&name, BackupCondition::Stalled, "True", BackupReason::TenantSuspended).await?;

        let change = json!({ "spec": { "origin": "Scheduled" } });
        let admin = &test.world.admin;
        let refused = admin.change(kind::BACKUP, &tenant.namespace, &name, Change::Merge(&change)).await;
        ensure!(refusal(refused)?.contains("immutable"), "its origin can be changed");
        test.measured(&said);
        Ok(())
    });
}

/// A tenant that is backed up to Helsinki, and the keys to that.
struct World<'a> {
    test: &'a Test,
    store: BackupStore<'a>,
    tenant: Tenant,
    owner: x25519::Identity,
    escrow: x25519::Identity,
}

impl<'a> World<'a> {
    /// The tenant is not applied yet.
    async fn bring(test: &'a Test) -> Result<Option<Self>> {
        let Some([helsinki, _]) = stores(test)? else { return Ok(None) };
        let store = BackupStore::of(test, &helsinki, "helsinki")?;
        store.bring_secrets(&Identity::ALL).await?;
        store.apply(json!({})).await?;
        store.says(StoreCondition::Ready, "True", StoreReason::AsAsked).await?;
        let policy = unique("policy");
        test.made(kind::BACKUP_POLICY, "", &policy);
        let object = json!({
            "apiVersion": kind::BACKUP_POLICY.api_version(),
            "kind": kind::BACKUP_POLICY.name,
            "metadata": { "name": policy },
            "spec": {
                "schedule": { "cron": "0 1 * * *", "timeZone": "Europe/Stockholm" },
                "stores": [store.name],
                "verification": { "mode": "Full" },
                "retention": { "floor": { "days": 35, "reason": "decided for a test" } },
                "objectives": { "rpo": "24h", "rto": "4h" },
            },
        });
        test.world.admin.apply(kind::BACKUP_POLICY, "", &object).await?;
        let (owner, escrow) = (x25519::Identity::generate(), x25519::Identity::generate());
        let tenant = test.tenant("saved")?.with(&format!(
            "
            attachments: {{size: 1Gi, mountPath: /var/lib/journal}}
            journal: {{writableFolders: [/tmp]}}
            backup:
              policy: {policy}
              recipients: {{tenant: {}, escrow: {}}}
            ",
            owner.to_public(),
            escrow.to_public()
        ))?;
        Ok(Some(Self { test, store, tenant, owner, escrow }))
    }

    /// The store's folder of this test, on the machine that it runs on.
    fn folder(&self) -> PathBuf {
        self.store.server.objects().join(&self.store.name)
    }

    /// Asks for a backup, and returns its name.
    async fn back_up(&self, spec: Value) -> Result<String> {
        let name = unique("by-hand");
        let object = json!({
            "apiVersion": kind::BACKUP.api_version(),
            "kind": kind::BACKUP.name,
            "metadata": { "name": name },
            "spec": spec,
        });
        self.test.world.admin.create(kind::BACKUP, &self.tenant.namespace, object).await?;
        Ok(name)
    }

    async fn backup(&self, name: &str) -> Result<Value> {
        self.test.world.admin.get(kind::BACKUP, &self.tenant.namespace, name).await
    }

    /// Waits until a condition has this status and reason, and returns its message.
    async fn says(
        &self,
        name: &str,
        condition: BackupCondition,
        status: &str,
        reason: BackupReason,
    ) -> Result<String> {
        let (kind, wanted) = (format!("{condition:?}"), format!("{reason:?}"));
        eventually(format!("{name} says {kind} {status} {wanted}"), BACKED_UP, async || {
            let object = self.backup(name).await?;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            Ok(match conditions.iter().find(|said| said["type"] == kind.as_str()) {
                Some(said) if said["status"] == status && said["reason"] == wanted.as_str() => {
                    Seen::Yes(said["message"].as_str().unwrap_or_default().to_owned())
                }
                _ => Seen::NotYet(object["status"].to_string()),
            })
        })
        .await
    }
}

/// The tar stream of the segments in `folder`, in their order, by `age` and `zstd` as anybody has them.
fn opened(folder: &Path, key: &x25519::Identity) -> Result<Vec<u8>> {
    let keys = tempfile::NamedTempFile::new()?;
    fs::write(keys.path(), key.to_string().expose_secret())?;
    let mut segments: Vec<_> = fs::read_dir(folder)
        .with_context(|| format!("failed to list {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    segments.sort();
    let mut stream = vec![];
    for segment in segments {
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

/// Names in a tar stream.
fn listed(stream: &[u8]) -> Result<Vec<String>> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), stream)?;
    let tar = Command::new("tar").arg("--list").arg("--file").arg(file.path()).output().context("tar")?;
    ensure!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    Ok(String::from_utf8_lossy(&tar.stdout).lines().map(str::to_owned).collect())
}

fn contains(stream: &[u8], part: &[u8]) -> bool {
    stream.windows(part.len()).step_by(1).any(|window| window == part)
}
