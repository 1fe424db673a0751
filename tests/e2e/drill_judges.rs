//! A drill fails when it should, each time with its own reason: each fault is planted in what the store or the database
//! really holds, and put right again, so that it is known to be the fault that failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use age::secrecy::ExposeSecret;
use anyhow::{Context, Result, ensure};
use harness::actor::Grace;
use harness::probe::Probe;
use harness::protected::{Protected, Wanted};
use harness::test::unique;
use harness::{Seen, Test, eventually, kind, run};
use serde_json::{Value, json};
use valv_crds::condition::{ConditionType, Reason};
use valv_crds::drill::{DrillCondition, DrillReason};

/// Two Jobs, a database, a journal, volumes that are deleted, and a drill before it that may be.
const DRILLED: Duration = Duration::from_secs(420);

/// The namespace of the keys, as the chart has it.
const KEYS: &str = "valv-keys";

/// The test journal's query for its attachments.
const INVENTORY: &str = "SELECT path, sha256 FROM attachment";

#[test]
fn segments_that_are_missing_swapped_or_anothers_fail_the_drill_each_with_its_reason() {
    run(async |test| {
        let Some(world) = World::bring(test, json!([]), "4h").await? else { return Ok(()) };
        let older = world.back_up().await?;
        // Another tenant of the same store, encrypted for the same keys: only its bytes are others.
        let other = test.tenant("other")?.with(&world.protected.protection)?;
        other.up().await?;
        let name = world.protected.back_up_of(&other, json!({})).await?;
        let (complete, committed) =
            (valv_crds::backup::BackupCondition::Complete, valv_crds::backup::BackupReason::Committed);
        world.protected.of_says(&other, &name, complete, "True", committed).await?;
        let status = test.world.admin.get(kind::BACKUP, &other.namespace, &name).await?["status"].clone();
        let (slot, attempt) = (status["slot"].as_str(), status["attempt"]["id"].as_str());
        let (slot, attempt) = slot.zip(attempt).context("it has a slot and an attempt")?;
        let archives = world.archive().parent().map(Path::to_owned).context("archives lie in a folder")?;
        let foreign = archives.join(&other.name).join(format!("data/{slot}/{attempt}"));
        let data = world.back_up().await?;
        let [database, attachments] =
            ["database/00000000.age", "attachments/00000000.age"].map(|name| data.join(name));

        let planted = Planted::in_place_of(&database, &fs::read(foreign.join("database/00000000.age"))?)?;
        world.fails(DrillReason::SegmentDiffers).await.context("a segment of another tenant")?;
        planted.put_right()?;

        let planted = Planted::in_place_of(&database, &fs::read(older.join("database/00000000.age"))?)?;
        world.fails(DrillReason::SegmentDiffers).await.context("a segment of another backup")?;
        planted.put_right()?;

        let (one, two) = (fs::read(&database)?, fs::read(&attachments)?);
        let planted = [Planted::in_place_of(&database, &two)?, Planted::in_place_of(&attachments, &one)?];
        let said = world.fails(DrillReason::SegmentsSwapped).await.context("two segments swapped")?;
        planted.into_iter().try_for_each(Planted::put_right)?;

        world.passes().await.context("all was put right")?;
        // The last: the store forgets with the file what it knows of it.
        fs::remove_file(&database)?;
        world.fails(DrillReason::SegmentMissing).await.context("a segment is gone")?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn a_manifest_or_a_commit_that_was_altered_fails_the_drill_each_with_its_reason() {
    run(async |test| {
        let Some(world) = World::bring(test, json!([]), "4h").await? else { return Ok(()) };
        world.back_up().await?;
        let data = world.back_up().await?;
        let manifest = data.join("manifest.json");
        let commits = world.commits()?;
        let [older, newest] = commits.as_slice() else { anyhow::bail!("there are not two: {commits:?}") };

        // In itself it is consistent: only the commit knows.
        let mut altered: Value = serde_json::from_slice(&fs::read(&manifest)?)?;
        altered["sentinel"] = json!("f".repeat(32));
        let planted = Planted::in_place_of(&manifest, altered.to_string().as_bytes())?;
        world.fails(DrillReason::ManifestDiffers).await.context("an altered manifest")?;
        planted.put_right()?;

        let signed: Value = serde_json::from_slice(&fs::read(newest)?)?;
        let mut unsigned = signed.clone();
        unsigned["signatures"] = json!([]);
        let planted = Planted::in_place_of(newest, unsigned.to_string().as_bytes())?;
        world.fails(DrillReason::SignatureMissing).await.context("a commit without a signature")?;
        planted.put_right()?;

        let mut forged = signed.clone();
        let signature = signed["signatures"][0]["sig"].as_str().context("it has a signature")?;
        let first = if signature.starts_with('A') { "B" } else { "A" };
        forged["signatures"][0]["sig"] = json!(format!("{first}{}", &signature[1..]));
        let planted = Planted::in_place_of(newest, forged.to_string().as_bytes())?;
        world.fails(DrillReason::SignatureInvalid).await.context("a broken signature")?;
        planted.put_right()?;

        // Signed by the operator, for another slot: rolled back.
        let planted = Planted::in_place_of(newest, &fs::read(older)?)?;
        let said =
            world.fails(DrillReason::SignatureInvalid).await.context("an older commit as the newest")?;
        planted.put_right()?;

        // The failure stands: a drill of the older backup, which is as it was, takes no alarm away.
        let slot = older.file_stem().map(|stem| stem.to_string_lossy().into_owned()).context("a slot")?;
        let name = world.drill(json!({ "backup": slot })).await?;
        world.ends(&name, "True").await?;
        world.protected.tenant.says(ConditionType::Drilled, "False", Reason::DrillFailed).await?;
        world.passes().await.context("all was put right")?;
        world.protected.tenant.says(ConditionType::Drilled, "True", Reason::AsAsked).await?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn a_table_that_was_emptied_long_before_fails_every_drill_until_it_is_explained() {
    run(async |test| {
        let Some(world) = World::bring(test, json!([]), "4h").await? else { return Ok(()) };
        world.back_up().await?;
        world.passes().await?;
        world
            .sql(
                "ALTER TABLE note DISABLE TRIGGER note_append_only; DELETE FROM note; \
                 ALTER TABLE note ENABLE TRIGGER note_append_only",
            )
            .await?;
        // Three more: yesterday's and the one before it are as empty as the newest.
        for _ in 0..3 {
            world.back_up().await?;
        }

        let said = world.fails(DrillReason::RowCountsFell).await?;

        ensure!(said.contains("that a drill found good"), "it does not say with which: {said}");
        world.fails(DrillReason::RowCountsFell).await.context("and again")?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn an_attachment_that_is_missing_or_altered_fails_the_drill_each_with_its_reason() {
    run(async |test| {
        let Some(world) = World::bring(test, json!([]), "4h").await? else { return Ok(()) };
        world.back_up().await?;
        world.passes().await?;

        world
            .on_attachments(
                "file=$(find /files -type f | head -n 1); printf X | dd of=$file bs=1 conv=notrunc",
            )
            .await?;
        world.back_up().await?;
        let differs = world.fails(DrillReason::AttachmentDiffers).await?;

        world.on_attachments("rm $(find /files -type f | head -n 1)").await?;
        world.back_up().await?;
        let missing = world.fails(DrillReason::AttachmentMissing).await?;

        for said in [&differs, &missing] {
            ensure!(!said.contains("remiss"), "it names a file: {said}");
        }
        test.measured(format_args!("{differs}; {missing}"));
        Ok(())
    });
}

#[test]
fn a_question_of_the_policy_that_is_false_writes_or_does_not_end_fails_the_drill() {
    run(async |test| {
        let checks = json!([
            { "name": "true", "sql": "SELECT count(*) >= 0 FROM note" },
            { "name": "false", "sql": "SELECT count(*) < 0 FROM note" },
            { "name": "writes", "sql": "WITH gone AS (DELETE FROM note RETURNING 1) SELECT count(*) = 0 FROM gone" },
            { "name": "sleeps", "sql": "SELECT pg_sleep(600) IS NOT NULL", "timeout": "2s" },
        ]);
        let Some(world) = World::bring(test, checks, "4h").await? else { return Ok(()) };
        world.back_up().await?;

        let name = world.drill(json!({})).await?;
        world.ends(&name, "False").await?;

        let reasons =
            [("true", "AsAsked"), ("false", "SqlFalse"), ("writes", "SqlFailed"), ("sleeps", "SqlFailed")];
        for (check, reason) in reasons {
            let verdict = world.verdict(&name, &format!("Sql/{check}")).await?;
            ensure!(verdict["reason"] == reason, "{check}: {verdict}");
        }
        test.measured("false, writes and sleeps: each fails with its reason");
        Ok(())
    });
}

#[test]
fn a_journal_that_does_not_answer_on_the_restored_data_fails_the_drill() {
    run(async |test| {
        let Some(world) = World::bring(test, json!([]), "4h").await? else { return Ok(()) };
        // Its probe asks for the schema's version. The tables stay: one that is gone would fail the drill before.
        world.sql("ALTER TABLE schema_migration RENAME COLUMN version TO away").await?;
        world.back_up().await?;
        world.sql("ALTER TABLE schema_migration RENAME COLUMN away TO version").await?;

        let said = world.fails(DrillReason::JournalFailed).await?;

        world.back_up().await?;
        world.passes().await.context("of a database that is whole")?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn promises_that_were_missed_are_told_although_the_drill_passed() {
    run(async |test| {
        let Some(world) = World::bring(test, json!([]), "1m").await? else { return Ok(()) };
        world.back_up().await?;
        // Older than the promised minute.
        tokio::time::sleep(Duration::from_secs(65)).await;

        let name = world.passes().await?;
        let met = world.condition(&name, DrillCondition::ObjectivesMet).await?;
        ensure!(met["status"] == "False", "{met}");
        let reasons =
            [DrillReason::RecoveryPointMissed, DrillReason::BothMissed].map(|reason| format!("{reason:?}"));
        ensure!(reasons.iter().any(|reason| met["reason"] == reason.as_str()), "{met}");

        // Of one that somebody named there is no recovery point to miss.
        let slot = world.object(&name).await?["status"]["backup"]["slot"].clone();
        let named = world.drill(json!({ "backup": slot })).await?;
        world.ends(&named, "True").await?;
        let of_named = world.condition(&named, DrillCondition::ObjectivesMet).await?;
        ensure!(
            of_named["reason"] != "RecoveryPointMissed" && of_named["reason"] != "BothMissed",
            "{of_named}"
        );
        ensure!(world.object(&named).await?["status"]["measured"]["rpoSeconds"].is_null());
        test.measured(met["message"].as_str().unwrap_or_default());
        Ok(())
    });
}

#[test]
fn a_tenants_own_secret_and_configmap_are_in_its_backup_or_the_drill_says_so() {
    run(async |test| {
        let Some(world) = World::bring(test, json!([]), "4h").await? else { return Ok(()) };
        let tenant = &world.protected.tenant;
        tenant.bring_secret("letters", &[("key", "hemligt")]).await?;
        tenant.edit("journal: {envFrom: [{secretRef: {name: letters}}]}").await?;
        tenant.ready().await?;
        world.back_up().await?;
        let name = world.passes().await?;
        let verdict = world.verdict(&name, "Tenant").await?;
        ensure!(verdict["outcome"] == "Passed", "{verdict}");

        // Changed since: the drill passes, and says which.
        let changed = json!({ "stringData": { "key": "annat" } });
        tenant.meddle(kind::SECRET, "letters", harness::actor::Change::Merge(&changed)).await?;
        let name = world.drill(json!({})).await?;
        world.ends(&name, "True").await?;
        let verdict = world.verdict(&name, "Tenant").await?;
        ensure!(verdict["reason"] == "TenantDiffers", "{verdict}");
        ensure!(verdict["message"].as_str().unwrap_or_default().contains("Secret letters"), "{verdict}");

        // Backed up with nothing in it.
        let emptied = json!({ "stringData": { "key": "" } });
        tenant.meddle(kind::SECRET, "letters", harness::actor::Change::Merge(&emptied)).await?;
        world.back_up().await?;
        let said = world.fails(DrillReason::TenantIncomplete).await?;
        ensure!(said.contains("Secret letters"), "{said}");
        test.measured(said);
        Ok(())
    });
}

/// A file of the store with other content, in place: the store keeps what it knows of an object beside its file.
struct Planted {
    file: PathBuf,
    before: Vec<u8>,
}

impl Planted {
    fn in_place_of(file: &Path, content: &[u8]) -> Result<Self> {
        let before = fs::read(file).with_context(|| file.display().to_string())?;
        ensure!(before != content, "{} has that content", file.display());
        fs::write(file, content)?;
        Ok(Self { file: file.to_owned(), before })
    }

    fn put_right(self) -> Result<()> {
        Ok(fs::write(&self.file, &self.before)?)
    }
}

/// A tenant with a note and a file, its key with the key holder, and a policy that drills.
struct World<'a> {
    test: &'a Test,
    protected: Protected<'a>,
}

impl<'a> World<'a> {
    async fn bring(test: &'a Test, checks: Value, promised: &str) -> Result<Option<Self>> {
        let drill = json!({
            "schedule": { "cron": "0 5 1 1 *", "timeZone": "Europe/Stockholm", "deadline": "1h" },
            "checks": checks,
        });
        let wanted = Wanted {
            policy: json!({ "drill": drill, "objectives": { "rpo": promised, "rto": "4h" } }),
            drill_key: true,
            ..Wanted::default()
        };
        let Some(mut protected) = Protected::bring(test, wanted).await? else { return Ok(None) };
        let inventory = format!("attachments: {{inventorySQL: '{INVENTORY}'}}");
        protected.tenant = protected.tenant.with(&inventory)?;
        let name = format!("drill-key-{}", protected.tenant.name);
        test.made(kind::SECRET, KEYS, &name);
        let key = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name },
            "stringData": { "identity": protected.drill.to_string().expose_secret() },
        });
        test.world.admin.create(kind::SECRET, KEYS, key).await?;
        protected.tenant.up().await?;
        let journal = protected.tenant.journal().await?;
        journal.write("Patienten mår bra i dag").await?;
        journal.attach("remiss.pdf", &[7; 300_000]).await?;
        Ok(Some(Self { test, protected }))
    }

    fn archive(&self) -> PathBuf {
        self.protected.archive(self.protected.store())
    }

    /// The commits, oldest first.
    fn commits(&self) -> Result<Vec<PathBuf>> {
        let folder = self.archive().join("commits");
        let mut commits: Vec<_> =
            self.protected.commits()?.into_iter().map(|name| folder.join(name)).collect();
        commits.sort();
        Ok(commits)
    }

    /// Takes a backup, and returns the folder of its data.
    async fn back_up(&self) -> Result<PathBuf> {
        let name = self.protected.complete().await?;
        self.protected.data(&name).await
    }

    /// Runs SQL as the owner of the tenant's tables.
    async fn sql(&self, sql: &str) -> Result<()> {
        let tenant = &self.protected.tenant;
        let probe = Probe::new(&tenant.namespace, self.test.world.image("postgres")?)
            .in_role("journal")
            .with_secret("PGPASSWORD", "login-owner", "password")
            .with_env("PGUSER", "journal_owner")
            .with_env("PGHOST", &format!("database.{}.svc", tenant.namespace))
            .with_env("PGSSLROOTCERT", "/trust/ca.crt")
            .with_env("SQL", sql)
            .with_folder("authorities", "/trust");
        let script = r#"psql "dbname=journal sslmode=verify-full connect_timeout=10" --no-psqlrc --quiet \
            --set ON_ERROR_STOP=1 --command "$SQL" 2>&1 && echo DONE"#;
        let printed = probe.run(&self.test.world.admin, script).await?;
        ensure!(printed.trim_end().ends_with("DONE"), "{sql}: {printed}");
        Ok(())
    }

    /// Runs a script on the volume of attachments, mounted at `/files`, as the journal's user beside its pod.
    async fn on_attachments(&self, script: &str) -> Result<()> {
        let (tenant, admin) = (&self.protected.tenant, &self.test.world.admin);
        let node = tenant.pods("journal").await?.first().map(|pod| pod["spec"]["nodeName"].clone());
        let name = unique("meddler");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": "meddler" } },
            "spec": {
                "nodeName": node, "restartPolicy": "Never", "automountServiceAccountToken": false,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001,
                    "seccompProfile": { "type": "RuntimeDefault" },
                },
                "containers": [{
                    "name": "meddler", "image": self.test.world.image("postgres")?,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/bin/sh", "-euc", script],
                    "volumeMounts": [{ "name": "files", "mountPath": "/files" }],
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
                    },
                    "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
                }],
                "volumes": [{ "name": "files", "persistentVolumeClaim": { "claimName": "attachments-0" } }],
            },
        });
        admin.create(kind::POD, &tenant.namespace, pod).await?;
        eventually(format!("{name} ends"), DRILLED, async || {
            let pod = admin.get(kind::POD, &tenant.namespace, &name).await?;
            ensure!(pod["status"]["phase"] != "Failed", "{script}: {}", pod["status"]);
            let is_done = pod["status"]["phase"] == "Succeeded";
            Ok(Seen::when(is_done.then_some(()), pod["status"].to_string()))
        })
        .await?;
        admin.delete(kind::POD, &tenant.namespace, &name, Grace::None).await
    }

    /// Asks for a drill, and returns its name.
    async fn drill(&self, spec: Value) -> Result<String> {
        let name = unique("by-hand");
        let object = json!({
            "apiVersion": kind::RESTORE_DRILL.api_version(),
            "kind": kind::RESTORE_DRILL.name,
            "metadata": { "name": name },
            "spec": spec,
        });
        self.test.world.admin.create(kind::RESTORE_DRILL, &self.protected.tenant.namespace, object).await?;
        Ok(name)
    }

    async fn object(&self, name: &str) -> Result<Value> {
        self.test.world.admin.get(kind::RESTORE_DRILL, &self.protected.tenant.namespace, name).await
    }

    async fn condition(&self, name: &str, kind: DrillCondition) -> Result<Value> {
        let (object, kind) = (self.object(name).await?, format!("{kind:?}"));
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|said| said["type"] == kind.as_str()).context("it has that condition")
    }

    async fn verdict(&self, name: &str, check: &str) -> Result<Value> {
        let object = self.object(name).await?;
        let verdicts = object["status"]["verdicts"].as_array().cloned().unwrap_or_default();
        let found = verdicts.into_iter().find(|verdict| verdict["name"] == check);
        found.with_context(|| format!("{check} has no verdict"))
    }

    /// Waits until a drill is over, and asks that it passed or did not. Returns its reason and message.
    async fn ends(&self, name: &str, status: &str) -> Result<(String, String)> {
        let ended = eventually(format!("{name} is over"), DRILLED, async || {
            let object = self.object(name).await?;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_true =
                |kind: &str| conditions.iter().any(|said| said["type"] == kind && said["status"] == "True");
            let is_over = is_true("TornDown") && is_true("Recorded");
            let passed = conditions.iter().find(|said| said["type"] == "Passed").cloned();
            Ok(Seen::when(passed.filter(|_| is_over), object["status"].to_string()))
        })
        .await?;
        ensure!(ended["status"] == status, "{ended}");
        let text = |field: &str| ended[field].as_str().unwrap_or_default().to_owned();
        Ok((text("reason"), text("message")))
    }

    /// Drills the newest backup, which must fail for `reason`, and returns what it says.
    async fn fails(&self, reason: DrillReason) -> Result<String> {
        let name = self.drill(json!({})).await?;
        let (found, message) = self.ends(&name, "False").await?;
        ensure!(found == format!("{reason:?}"), "it failed for {found}: {message}");
        Ok(message)
    }

    /// Drills the newest backup, which must pass, and returns the drill's name.
    async fn passes(&self) -> Result<String> {
        let name = self.drill(json!({})).await?;
        self.ends(&name, "True").await?;
        Ok(name)
    }
}
