//! A drill restores the newest backup behind walls, judges it, leaves a signed record and nothing else; and it fails
//! when it should.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use age::secrecy::ExposeSecret;
use age::x25519;
use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::actor::{Change, Grace};
use harness::drilled::left_of;
use harness::operator::NAMESPACE;
use harness::page;
use harness::saying::says;
use harness::store::{BackupStore, stores};
use harness::test::unique;
use harness::{Seen, Tenant, Test, eventually, kind, refusal, run};
use serde_json::{Value, json};
use valv_cluster::Identity;
use valv_crds::backup::{BackupCondition, BackupReason};
use valv_crds::drill::{DrillCondition, DrillReason};
use valv_crds::slot::drill_namespace;
use valv_crds::store::{StoreCondition, StoreReason};

/// A small database, its attachments, two pods and a commit.
const BACKED_UP: Duration = Duration::from_secs(120);

/// Two Jobs, a database, a journal, and volumes that are deleted.
const DRILLED: Duration = Duration::from_secs(300);

/// The page on records, which must be true.
const RECORDS: &str = "drill-record.md";

/// The namespace of the keys, as the chart has it.
const KEYS: &str = "valv-keys";

#[test]
fn a_drill_restores_judges_and_measures_and_leaves_nothing_but_its_record() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        world.bring_key(&world.drill).await?;
        world.tenant.up().await?;
        let journal = world.tenant.journal().await?;
        journal.write("Patienten mår bra i dag").await?;
        journal.attach("remiss.pdf", &[7; 300_000]).await?;
        world.back_up().await?;

        let name = world.drill().await?;
        world.says(&name, DrillCondition::Passed, "True", DrillReason::AsAsked).await?;
        world.says(&name, DrillCondition::Recorded, "True", DrillReason::AsAsked).await?;
        world.says(&name, DrillCondition::TornDown, "True", DrillReason::AsAsked).await?;

        let status = world.object(&name).await?["status"].clone();
        let verdicts = status["verdicts"].as_array().cloned().unwrap_or_default();
        for verdict in &verdicts {
            ensure!(["Passed", "NotAsked"].iter().any(|good| verdict["outcome"] == *good), "{verdict}");
        }
        for check in ["Segments", "VerifyBackup", "Sentinel", "Sql/notes-can-be-counted", "JournalStarts"] {
            ensure!(verdicts.iter().any(|verdict| verdict["name"] == check), "{check} has no verdict");
        }
        ensure!(status["measured"]["rtoSeconds"].as_i64() > Some(0), "{status:#}");
        ensure!(status["measured"]["rpoSeconds"].is_i64(), "{status:#}");
        sums_up(&status["measured"])?;
        let key = status["record"]["object"]["key"].as_str().context("it has a record")?;
        let record = fs::read(world.folder().join(key)).context("the record does not lie in the store")?;
        let said = verified(test, &record).await.context("by the block of the page")?;
        for field in ["rtoSeconds", "rpoSeconds", "bytes"] {
            ensure!(said["measured"][field] == status["measured"][field], "{field}: {said}");
        }
        ensure!(said["passed"] == true && said["reason"] == "AsAsked", "{said}");
        let mut altered: Value = serde_json::from_slice(&record)?;
        let payload = altered["payload"].as_str().context("it has a payload")?.to_owned();
        let payload =
            String::from_utf8(STANDARD.decode(payload)?)?.replace("\"passed\":true", "\"passed\":false");
        altered["payload"] = json!(STANDARD.encode(payload));
        ensure!(verified(test, altered.to_string().as_bytes()).await.is_err(), "an altered record verifies");
        world.leaves_nothing(&name).await?;

        test.measured(format_args!(
            "recovery time {}, recovery point {}",
            status["measured"]["rto"], status["measured"]["rpo"]
        ));
        Ok(())
    });
}

#[test]
fn a_bit_that_was_flipped_in_a_segment_fails_the_drill() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        world.bring_key(&world.drill).await?;
        world.tenant.up().await?;
        let data = world.back_up().await?;
        let segment = data.join("database/00000000.age");
        let mut bytes = fs::read(&segment).with_context(|| segment.display().to_string())?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        // In place: the store keeps what it knows of an object beside its file.
        let mut file = fs::OpenOptions::new().write(true).open(&segment)?;
        file.seek(SeekFrom::Start(u64::try_from(middle)?))?;
        file.write_all(&bytes[middle..=middle])?;

        let name = world.drill().await?;
        let said = world.says(&name, DrillCondition::Passed, "False", DrillReason::SegmentDiffers).await?;

        world.says(&name, DrillCondition::Recorded, "True", DrillReason::AsAsked).await?;
        world.leaves_nothing(&name).await?;
        // And without a hand:
        world.back_up().await?;
        world.passes_and_leaves_nothing().await.context("the next backup is whole")?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn a_commit_that_was_taken_away_fails_the_drill() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        world.bring_key(&world.drill).await?;
        world.tenant.up().await?;
        world.back_up().await?;
        let commits = world.folder().join("v1").join(&world.tenant.name).join("commits");
        let [commit] = fs::read_dir(&commits)?
            .collect::<Result<Vec<_>, _>>()?
            .try_into()
            .map_err(|found: Vec<_>| anyhow::anyhow!("there is not one commit, but {}", found.len()))?;
        // Beside the store's folders, on the same file system: with what the store knows of it.
        let beside = world.store.server.objects().parent().and_then(Path::parent).map(Path::to_owned);
        let away = tempfile::tempdir_in(beside.context("a store has a folder")?)?;
        fs::rename(commit.path(), away.path().join("commit"))?;

        let name = world.drill().await?;
        world.says(&name, DrillCondition::Passed, "False", DrillReason::CatalogueRolledBack).await?;
        world.leaves_nothing(&name).await?;

        // The next backup is complete without a hand. The drill fails until somebody has seen to the commit: no younger
        // backup makes good that one was taken away.
        world.back_up().await?;
        let name = world.drill().await?;
        world.says(&name, DrillCondition::Passed, "False", DrillReason::CatalogueRolledBack).await?;
        world.leaves_nothing(&name).await?;
        fs::rename(away.path().join("commit"), commit.path())?;
        world.passes_and_leaves_nothing().await.context("the commit is back")
    });
}

#[test]
fn a_drill_with_another_key_or_none_says_so() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        world.tenant.up().await?;
        world.back_up().await?;

        let name = world.drill().await?;
        world.says(&name, DrillCondition::Passed, "Unknown", DrillReason::KeyMissing).await?;
        let into = world.namespace_of(&name).await?;
        let stranger = x25519::Identity::generate();
        test.world.admin.create(kind::SECRET, &into, key("drill-key", &stranger)).await?;

        world.says(&name, DrillCondition::Passed, "False", DrillReason::WrongKey).await?;
        world.says(&name, DrillCondition::Recorded, "True", DrillReason::AsAsked).await?;
        world.leaves_nothing(&name).await?;
        world.bring_key(&world.drill).await?;
        world.passes_and_leaves_nothing().await.context("with the right key")
    });
}

#[test]
fn a_drill_that_is_cancelled_in_the_middle_is_torn_down() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        world.tenant.up().await?;
        world.back_up().await?;
        let name = world.drill().await?;
        world.says(&name, DrillCondition::Passed, "Unknown", DrillReason::KeyMissing).await?;
        let into = world.namespace_of(&name).await?;
        world.bring_key(&world.drill).await?;
        eventually("it restores", DRILLED, async || {
            let jobs = test.world.admin.list(kind::JOB, &into, "").await?;
            Ok(Seen::when((!jobs.is_empty()).then_some(()), "there is no Job"))
        })
        .await?;

        let cancel = json!({ "spec": { "cancel": true } });
        let admin = &test.world.admin;
        admin.change(kind::RESTORE_DRILL, &world.tenant.namespace, &name, Change::Merge(&cancel)).await?;

        world.says(&name, DrillCondition::Passed, "False", DrillReason::Cancelled).await?;
        world.leaves_nothing(&name).await
    });
}

#[test]
fn a_drill_that_is_deleted_goes_only_when_what_it_restored_is_gone() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        world.tenant.up().await?;
        world.back_up().await?;
        let name = world.drill().await?;
        world.says(&name, DrillCondition::Passed, "Unknown", DrillReason::KeyMissing).await?;
        world.bring_key(&world.drill).await?;
        let into = world.namespace_of(&name).await?;
        let admin = &test.world.admin;
        eventually("it was restored", DRILLED, async || {
            let judge = admin.find(kind::JOB, &into, "judge").await?;
            Ok(Seen::when(judge.map(drop), "nothing is judged yet"))
        })
        .await?;

        admin.delete(kind::RESTORE_DRILL, &world.tenant.namespace, &name, Grace::Usual).await?;
        let left = eventually("the drill is gone", DRILLED, async || {
            let drill = admin.find(kind::RESTORE_DRILL, &world.tenant.namespace, &name).await?;
            if drill.is_some() {
                return Ok(Seen::NotYet("it is there".to_owned()));
            }
            Ok(Seen::Yes(left_of(test, &into).await?))
        })
        .await?;
        ensure!(left.is_empty(), "the drill went before what it restored: {left:?}");
        Ok(())
    });
}

#[test]
fn neither_the_operator_nor_a_tenants_pod_may_read_the_keys() {
    run(async |test| {
        let tenant = test.tenant("curious")?.with("suspended: true")?;
        tenant.apply().await?;
        tenant.is_there(kind::SERVICE_ACCOUNT, "journal").await?;
        let may = async |namespace: &str, account: &str, verb: &str| {
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "spec": {
                    "user": format!("system:serviceaccount:{namespace}:{account}"),
                    "groups": [
                        "system:serviceaccounts", format!("system:serviceaccounts:{namespace}"),
                        "system:authenticated",
                    ],
                    "resourceAttributes": { "namespace": KEYS, "verb": verb, "resource": "secrets" },
                },
            });
            let answer = test.world.admin.create(kind::SUBJECT_ACCESS_REVIEW, "", review).await?;
            answer["status"]["allowed"].as_bool().context("an answer")
        };
        let others = [
            ("valv-system", "valv"),
            (tenant.namespace.as_str(), "default"),
            (tenant.namespace.as_str(), "journal"),
            (tenant.namespace.as_str(), "database"),
        ];
        for (namespace, account) in others {
            for verb in ["get", "list", "watch", "create", "update", "patch", "delete"] {
                ensure!(!may(namespace, account, verb).await?, "{namespace}/{account} may {verb} keys");
            }
        }
        // And with the request itself, as a pod's account makes it.
        for account in ["default", "journal", "database"] {
            let pod = test.world.as_service_account(&tenant.namespace, account)?;
            refusal(pod.list(kind::SECRET, KEYS, "").await)?;
        }
        ensure!(may(KEYS, "valv-keyholder", "get").await?, "no positive control: nobody may read them");
        test.measured(
            "the operator and a tenant's three accounts may do nothing there; the key holder reads",
        );
        Ok(())
    });
}

/// That every phase of a drill that passed is there, and that those of the recovery time sum up to it.
fn sums_up(measured: &Value) -> Result<()> {
    let phases = measured["phases"].as_array().context("there are phases")?;
    for phase in ["Prepare", "Fetch", "Verify", "Recover", "Check", "Start", "PodStart", "TearDown"] {
        ensure!(phases.iter().any(|found| found["phase"] == phase), "{phase} is not there: {measured}");
    }
    let is_part = |found: &&Value| ["Key", "Check", "TearDown"].iter().all(|other| found["phase"] != *other);
    let parts: Option<i64> = phases.iter().filter(is_part).map(|found| found["seconds"].as_i64()).sum();
    ensure!(parts == measured["rtoSeconds"].as_i64(), "the phases sum up to {parts:?}: {measured}");
    Ok(())
}

/// What the block of the page on records says of one, with the operator's public key; its payload, if it verifies.
async fn verified(test: &Test, record: &[u8]) -> Result<Value> {
    let block = page::block(RECORDS, "## Verify it")?;
    let public = test.world.admin.get(kind::CONFIG_MAP, NAMESPACE, "valv-signing-key-public").await?;
    let public = public["data"]["signing.pub"].as_str().context("the signing key is published")?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("record.json"), record)?;
    fs::write(folder.path().join("valv-signing.pub"), public)?;
    let shell = Command::new("bash").args(["-c", &block]).current_dir(folder.path()).output()?;
    let printed = String::from_utf8_lossy(&shell.stdout);
    ensure!(shell.status.success(), "{printed}{}", String::from_utf8_lossy(&shell.stderr));
    ensure!(printed.contains("Signature Verified Successfully"), "{printed}");
    Ok(serde_json::from_slice(&fs::read(folder.path().join("payload.json"))?)?)
}

/// A tenant that is backed up to Helsinki and drilled by a policy, and the keys to that.
pub(crate) struct World<'a> {
    pub(crate) test: &'a Test,
    store: BackupStore,
    pub(crate) tenant: Tenant,
    /// What the tenant's spec says of backups.
    pub(crate) protection: String,
    pub(crate) drill: x25519::Identity,
}

impl<'a> World<'a> {
    /// The tenant is not applied yet, and its key for drills is not in the cluster.
    pub(crate) async fn bring(test: &'a Test) -> Result<Option<Self>> {
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
                "drill": {
                    "schedule": { "cron": "0 5 1 1 *", "timeZone": "Europe/Stockholm", "deadline": "1h" },
                    "checks": [{ "name": "notes-can-be-counted", "sql": "SELECT count(*) >= 0 FROM note" }],
                },
            },
        });
        test.world.admin.apply(kind::BACKUP_POLICY, "", &object).await?;
        let keys = [(); 3].map(|()| x25519::Identity::generate());
        let protection = format!(
            "
            backup:
              policy: {policy}
              recipients: {{tenant: {}, escrow: {}, drill: {}}}
            ",
            keys[0].to_public(),
            keys[1].to_public(),
            keys[2].to_public()
        );
        let own =
            "{attachments: {size: 1Gi, mountPath: /var/lib/journal}, journal: {writableFolders: [/tmp]}}";
        let tenant = test.tenant("drilled")?.with(own)?.with(&protection)?;
        let [_, _, drill] = keys;
        Ok(Some(Self { test, store, tenant, protection, drill }))
    }

    /// Gives the key holder a key for this tenant.
    pub(crate) async fn bring_key(&self, identity: &x25519::Identity) -> Result<()> {
        let name = format!("drill-key-{}", self.tenant.name);
        self.test.made(kind::SECRET, KEYS, &name);
        self.test.world.admin.create(kind::SECRET, KEYS, key(&name, identity)).await.map(drop)
    }

    /// The store's folder of this test, on the machine that it runs on.
    fn folder(&self) -> PathBuf {
        self.store.server.objects().join(&self.store.name)
    }

    /// Takes a backup, and returns the folder of its data.
    pub(crate) async fn back_up(&self) -> Result<PathBuf> {
        let name = unique("by-hand");
        let object = json!({
            "apiVersion": kind::BACKUP.api_version(),
            "kind": kind::BACKUP.name,
            "metadata": { "name": name },
            "spec": {},
        });
        let admin = &self.test.world.admin;
        admin.create(kind::BACKUP, &self.tenant.namespace, object).await?;
        let look = async || admin.get(kind::BACKUP, &self.tenant.namespace, &name).await;
        let complete = (BackupCondition::Complete, "True", BackupReason::Committed);
        says(&name, complete, BACKED_UP, &look).await?;
        let backup = look().await?;
        let status = &backup["status"];
        let slot = status["slot"].as_str().context("it has a slot")?;
        let attempt = status["attempt"]["id"].as_str().context("it has an attempt")?;
        Ok(self.folder().join("v1").join(&self.tenant.name).join(format!("data/{slot}/{attempt}")))
    }

    /// Asks for a drill, and returns its name.
    pub(crate) async fn drill(&self) -> Result<String> {
        self.drill_of(&self.tenant).await
    }

    /// Asks for a drill of another tenant, and returns its name.
    pub(crate) async fn drill_of(&self, tenant: &Tenant) -> Result<String> {
        let name = unique("by-hand");
        let object = json!({
            "apiVersion": kind::RESTORE_DRILL.api_version(),
            "kind": kind::RESTORE_DRILL.name,
            "metadata": { "name": name },
            "spec": {},
        });
        self.test.world.admin.create(kind::RESTORE_DRILL, &tenant.namespace, object).await?;
        Ok(name)
    }

    pub(crate) async fn object(&self, name: &str) -> Result<Value> {
        self.object_of(&self.tenant, name).await
    }

    async fn object_of(&self, tenant: &Tenant, name: &str) -> Result<Value> {
        self.test.world.admin.get(kind::RESTORE_DRILL, &tenant.namespace, name).await
    }

    /// The namespace into which a drill restores.
    pub(crate) async fn namespace_of(&self, name: &str) -> Result<String> {
        let object = self.object(name).await?;
        let uid = object["metadata"]["uid"].as_str().context("it has a UID")?;
        Ok(drill_namespace(&self.tenant.name, uid))
    }

    /// Waits until nothing of a drill is left: neither its namespace nor a volume.
    pub(crate) async fn leaves_nothing(&self, name: &str) -> Result<()> {
        self.says(name, DrillCondition::TornDown, "True", DrillReason::AsAsked).await?;
        let left = left_of(self.test, &self.namespace_of(name).await?).await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    }

    /// Drills the newest backup, which must pass.
    async fn passes_and_leaves_nothing(&self) -> Result<()> {
        let name = self.drill().await?;
        self.says(&name, DrillCondition::Passed, "True", DrillReason::AsAsked).await?;
        self.leaves_nothing(&name).await
    }

    /// Waits until a condition has this status and reason, and returns its message.
    pub(crate) async fn says(
        &self,
        name: &str,
        kind: DrillCondition,
        status: &str,
        reason: DrillReason,
    ) -> Result<String> {
        self.of_says(&self.tenant, name, kind, status, reason).await
    }

    /// As [`says`](Self::says), of a drill of another tenant.
    pub(crate) async fn of_says(
        &self,
        tenant: &Tenant,
        name: &str,
        kind: DrillCondition,
        status: &str,
        reason: DrillReason,
    ) -> Result<String> {
        says(name, (kind, status, reason), DRILLED, async || self.object_of(tenant, name).await).await
    }
}

/// A Secret with an age identity.
fn key(name: &str, identity: &x25519::Identity) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name },
        "stringData": { "identity": identity.to_string().expose_secret() },
    })
}
