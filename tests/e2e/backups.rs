//! A backup is complete when it was read back and committed, and its keys open it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use age::secrecy::ExposeSecret;
use age::x25519;
use anyhow::{Context, Result, bail, ensure};
use harness::actor::{Change, Grace};
use harness::operator::NAMESPACE;
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

#[test]
fn what_reads_back_is_in_the_operator_s_namespace_and_no_reader_s_credentials_are_in_a_tenant_s() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        let tenant = &world.tenant;
        tenant.up().await?;

        let name = world.back_up(json!({})).await?;
        let uid = world.uid(&name).await?;
        let labels = format!("valv.eu/backup={uid}");
        let pod = eventually("a pod reads back", BACKED_UP, async || {
            let pods = test.world.admin.list(kind::POD, NAMESPACE, &labels).await?;
            Ok(pods.into_iter().next().map_or_else(|| Seen::NotYet("none".to_owned()), Seen::Yes))
        })
        .await?;
        ensure!(pod["spec"]["automountServiceAccountToken"] == false, "{pod:#}");
        ensure!(pod["metadata"]["labels"]["valv.eu/role"] == "verification", "{pod:#}");
        let said = world.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;

        let jobs = tenant.list(kind::JOB, &labels).await?;
        ensure!(jobs.len() == 1, "one Job writes in the tenant's namespace: {jobs:#?}");
        let secrets = tenant.list(kind::SECRET, "").await?;
        ensure!(
            !secrets.iter().any(|secret| secret["metadata"]["labels"]["valv.eu/backup"].is_string()),
            "credentials of a store stay in the tenant's namespace"
        );
        test.measured(&said);
        Ok(())
    });
}

#[test]
fn a_cancelled_backup_ends_and_leaves_no_job_and_no_credentials() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        let tenant = &world.tenant;
        tenant.up().await?;

        let name = world.back_up(json!({})).await?;
        let uid = world.uid(&name).await?;
        let change = json!({ "spec": { "cancel": true } });
        test.world.admin.change(kind::BACKUP, &tenant.namespace, &name, Change::Merge(&change)).await?;
        let said = world.says(&name, BackupCondition::Stalled, "True", BackupReason::Cancelled).await?;

        let labels = format!("valv.eu/backup={uid}");
        eventually("nothing of it runs", BACKED_UP, async || {
            let pods = tenant.list(kind::POD, &labels).await?;
            let secrets = tenant.list(kind::SECRET, &labels).await?;
            let left = pods.len() + secrets.len();
            Ok(Seen::when((left == 0).then_some(()), format!("{left} objects")))
        })
        .await?;
        let archive = world.folder().join("v1").join(&tenant.name).join("commits");
        ensure!(
            !archive.exists() || fs::read_dir(&archive)?.next().is_none(),
            "a cancelled backup has a commit"
        );
        test.measured(&said);
        Ok(())
    });
}

#[test]
fn two_backups_of_one_second_are_one_that_is_complete_and_one_that_says_why_not() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        world.tenant.up().await?;

        let (one, two) = tokio::try_join!(world.back_up(json!({})), world.back_up(json!({})))?;
        let mut reasons = vec![];
        for name in [&one, &two] {
            let reason = eventually(format!("{name} is over"), 2 * BACKED_UP, async || {
                let object = world.backup(name).await?;
                let over = object["status"]["ended"].is_string();
                let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
                let complete = conditions.iter().find(|said| said["type"] == "Complete").cloned();
                let reason = complete.map(|said| said["reason"].as_str().unwrap_or_default().to_owned());
                Ok(match reason.filter(|_| over) {
                    Some(reason) => Seen::Yes(reason),
                    None => Seen::NotYet(object["status"].to_string()),
                })
            })
            .await?;
            reasons.push(reason);
        }

        let slots = (
            world.backup(&one).await?["status"]["slot"].clone(),
            world.backup(&two).await?["status"]["slot"].clone(),
        );
        reasons.sort();
        if slots.0 == slots.1 {
            ensure!(reasons == ["Committed", "SlotTaken"], "{reasons:?}");
        } else {
            ensure!(reasons == ["Committed", "Committed"], "{reasons:?}");
        }
        test.measured(&format!("{reasons:?}"));
        Ok(())
    });
}

#[test]
fn an_archive_that_another_tenant_has_gets_no_backup_of_this_one() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        let tenant = &world.tenant;
        tenant.up().await?;
        let name = world.back_up(json!({})).await?;
        world.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;
        let owner = world.folder().join("v1").join(&tenant.name).join("records/owner.json");
        ensure!(owner.is_file(), "nobody said whose the archive is");

        let thief =
            test.tenant("thief")?.with(&world.protection)?.with(&format!("archiveID: {}", tenant.name))?;
        thief.up().await?;
        let stolen = world.back_up_of(&thief, json!({})).await?;
        let said = world
            .of_says(&thief, &stolen, BackupCondition::Complete, "False", BackupReason::ArchiveTaken)
            .await?;

        ensure!(said.contains(&tenant.name), "it does not say whose the archive is: {said}");
        test.measured(&said);
        Ok(())
    });
}

#[test]
fn an_agent_that_is_killed_is_followed_by_another_attempt() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        let tenant = &world.tenant;
        tenant.up().await?;

        let name = world.back_up(json!({})).await?;
        let uid = world.uid(&name).await?;
        let labels = format!("valv.eu/backup={uid}");
        let pod = eventually("its pod is there", BACKED_UP, async || {
            let pods = tenant.list(kind::POD, &labels).await?;
            let name = pods.first().and_then(|pod| pod["metadata"]["name"].as_str().map(str::to_owned));
            Ok(name.map_or_else(|| Seen::NotYet("none".to_owned()), Seen::Yes))
        })
        .await?;
        test.world.admin.delete(kind::POD, &tenant.namespace, &pod, Grace::None).await?;
        let said = world.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;

        ensure!(
            world.backup(&name).await?["status"]["attempt"]["number"] == 2,
            "it was not the second attempt"
        );
        test.measured(&said);
        Ok(())
    });
}

/// A tenant that is backed up to Helsinki, and the keys to that.
struct World<'a> {
    test: &'a Test,
    store: BackupStore<'a>,
    tenant: Tenant,
    /// What its spec says of backups.
    protection: String,
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
        let protection = format!(
            "
            attachments: {{size: 1Gi, mountPath: /var/lib/journal}}
            journal: {{writableFolders: [/tmp]}}
            backup:
              policy: {policy}
              recipients: {{tenant: {}, escrow: {}}}
            ",
            owner.to_public(),
            escrow.to_public()
        );
        let tenant = test.tenant("saved")?.with(&protection)?;
        Ok(Some(Self { test, store, tenant, protection, owner, escrow }))
    }

    /// The store's folder of this test, on the machine that it runs on.
    fn folder(&self) -> PathBuf {
        self.store.server.objects().join(&self.store.name)
    }

    /// Asks for a backup, and returns its name.
    async fn back_up(&self, spec: Value) -> Result<String> {
        self.back_up_of(&self.tenant, spec).await
    }

    /// Asks for a backup of `tenant`, and returns its name.
    async fn back_up_of(&self, tenant: &Tenant, spec: Value) -> Result<String> {
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

    async fn uid(&self, name: &str) -> Result<String> {
        let uid = self.backup(name).await?["metadata"]["uid"].as_str().map(str::to_owned);
        uid.context("it has a UID")
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
        self.of_says(&self.tenant, name, condition, status, reason).await
    }

    /// As [`says`](Self::says), of another tenant's backup.
    async fn of_says(
        &self,
        tenant: &Tenant,
        name: &str,
        condition: BackupCondition,
        status: &str,
        reason: BackupReason,
    ) -> Result<String> {
        let (kind, wanted) = (format!("{condition:?}"), format!("{reason:?}"));
        eventually(format!("{name} says {kind} {status} {wanted}"), BACKED_UP, async || {
            let object = self.test.world.admin.get(kind::BACKUP, &tenant.namespace, name).await?;
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
