//! A protected tenant whose backups are drilled: with a note and a file, and its key with the key holder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use age::secrecy::ExposeSecret;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use valv_crds::drill::{DrillCondition, DrillReason};
use valv_crds::slot::drill_namespace;

use crate::actor::Grace;
use crate::eventually::{Seen, eventually};
use crate::kind::{self, Kind};
use crate::manifest::merge;
use crate::probe::Probe;
use crate::process::PodProcess;
use crate::protected::{Protected, Wanted};
use crate::saying::{condition, says};
use crate::test::{Test, unique};

/// Two Jobs, a database, a journal, volumes that are deleted, and a drill before it that may be.
pub const DRILLED: Duration = Duration::from_secs(420);

/// The namespace of the keys, as the chart has it.
pub const KEYS: &str = "valv-keys";

/// The user of the image's PostgreSQL.
const DATABASE_USER: u32 = 999;

/// The test journal's query for its attachments.
const INVENTORY: &str = "SELECT path, sha256 FROM attachment";

/// A file of the store with other content, in place: the store keeps what it knows of an object beside its file.
pub struct Planted {
    file: PathBuf,
    before: Vec<u8>,
}

impl Planted {
    /// Writes `content` into `file`.
    ///
    /// # Errors
    /// If that is what it has.
    pub fn in_place_of(file: &Path, content: &[u8]) -> Result<Self> {
        let before = fs::read(file).with_context(|| file.display().to_string())?;
        ensure!(before != content, "{} has that content", file.display());
        fs::write(file, content)?;
        Ok(Self { file: file.to_owned(), before })
    }

    /// As it was.
    pub fn put_right(self) -> Result<()> {
        Ok(fs::write(&self.file, &self.before)?)
    }
}

/// A tenant with a note and a file, its key with the key holder, and a policy that drills.
pub struct Drilled<'a> {
    test: &'a Test,
    /// The tenant, its store and its keys.
    pub protected: Protected<'a>,
}

impl<'a> Drilled<'a> {
    /// One that is ready, with no backup yet; `policy` and `store` are said over their specs. Absent: there are no
    /// stores here.
    pub async fn bring(test: &'a Test, policy: Value, store: Value) -> Result<Option<Self>> {
        let mut spec = json!({
            "objectives": { "rpo": "4h", "rto": "4h" },
            "drill": {
                "schedule": { "cron": "0 5 1 1 *", "timeZone": "Europe/Stockholm", "deadline": "1h" },
            },
        });
        merge(&mut spec, policy);
        let wanted = Wanted { policy: spec, store, drill_key: true, ..Wanted::default() };
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

    /// The test that it is of.
    pub fn test(&self) -> &'a Test {
        self.test
    }

    /// Changes what the policy says of drills.
    pub async fn change_drills(&self, drill: Value) -> Result<()> {
        self.protected.change_policy(json!({ "drill": drill })).await
    }

    /// The folder of its archive, on the machine that the store runs on.
    pub fn archive(&self) -> PathBuf {
        self.protected.archive(self.protected.store())
    }

    /// The commits, oldest first.
    pub fn commits(&self) -> Result<Vec<PathBuf>> {
        let folder = self.archive().join("commits");
        let mut commits: Vec<_> =
            self.protected.commits()?.into_iter().map(|name| folder.join(name)).collect();
        commits.sort();
        Ok(commits)
    }

    /// Takes a backup, and returns the folder of its data.
    pub async fn back_up(&self) -> Result<PathBuf> {
        let name = self.protected.complete().await?;
        self.protected.data(&name).await
    }

    /// Runs SQL as the owner of the tenant's tables.
    pub async fn sql(&self, sql: &str) -> Result<()> {
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

    /// Runs SQL as the database's superuser, who comes from inside its pod only, and returns what was answered.
    ///
    /// # Errors
    /// If it is refused, or the processes of the nodes are not this machine's.
    pub async fn superuser(&self, sql: &str) -> Result<String> {
        let pods = self.protected.tenant.pods("database").await?;
        let uid = pods.first().and_then(|pod| pod["metadata"]["uid"].as_str()).context("a database")?;
        let process = PodProcess::find(uid, "--hba-file")?;
        process.beside(
            DATABASE_USER,
            &[
                "/usr/lib/postgresql/17/bin/psql",
                "--host=/valv/run",
                "--username=postgres",
                "--dbname=journal",
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
                "--set=ON_ERROR_STOP=1",
                "--command",
                sql,
            ],
        )
    }

    /// Runs a script on the volume of attachments, mounted at `/files`, as the journal's user beside its pod.
    pub async fn on_attachments(&self, script: &str) -> Result<()> {
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
        let ended = eventually(format!("{name} ends"), DRILLED, async || {
            let pod = admin.get(kind::POD, &tenant.namespace, &name).await?;
            let status = pod["status"].clone();
            let is_over = ["Succeeded", "Failed"].iter().any(|phase| status["phase"] == *phase);
            Ok(Seen::when(is_over.then(|| status.clone()), status))
        })
        .await?;
        ensure!(ended["phase"] == "Succeeded", "{script}: {ended}");
        admin.delete(kind::POD, &tenant.namespace, &name, Grace::None).await
    }

    /// Asks for a drill, and returns its name.
    pub async fn drill(&self, spec: Value) -> Result<String> {
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

    /// A drill, as it stands.
    pub async fn object(&self, name: &str) -> Result<Value> {
        self.test.world.admin.get(kind::RESTORE_DRILL, &self.protected.tenant.namespace, name).await
    }

    /// The namespace into which a drill restores.
    pub async fn namespace_of(&self, name: &str) -> Result<String> {
        let object = self.object(name).await?;
        let uid = object["metadata"]["uid"].as_str().context("it has a UID")?;
        Ok(drill_namespace(&self.protected.tenant.name, uid))
    }

    /// Waits until there is an object of this name.
    pub async fn is_there(&self, kind: Kind, namespace: &str, name: &str) -> Result<()> {
        eventually(format!("there is a {} {name}", kind.name), DRILLED, async || {
            let found = self.test.world.admin.find(kind, namespace, name).await?;
            Ok(Seen::when(found.map(drop), "there is none"))
        })
        .await
    }

    /// What a drill says of one kind.
    pub async fn condition(&self, name: &str, kind: DrillCondition) -> Result<Value> {
        Ok(condition(&self.object(name).await?, kind))
    }

    /// The verdict of a check.
    pub async fn verdict(&self, name: &str, check: &str) -> Result<Value> {
        let object = self.object(name).await?;
        let verdicts = object["status"]["verdicts"].as_array().cloned().unwrap_or_default();
        let found = verdicts.into_iter().find(|verdict| verdict["name"] == check);
        found.with_context(|| format!("{check} has no verdict"))
    }

    /// Waits until a condition has this status and reason, and returns its message.
    pub async fn says(
        &self,
        name: &str,
        kind: DrillCondition,
        status: &str,
        reason: DrillReason,
    ) -> Result<String> {
        says(name, (kind, status, reason), DRILLED, async || self.object(name).await).await
    }

    /// Waits until nothing of a drill is left: neither its namespace nor a volume.
    pub async fn leaves_nothing(&self, name: &str) -> Result<()> {
        self.says(name, DrillCondition::TornDown, "True", DrillReason::AsAsked).await?;
        let left = left_of(self.test, &self.namespace_of(name).await?).await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    }

    /// Waits until a drill is over, and asks that it passed or did not, and that nothing is left of it. Returns its reason
    /// and message.
    pub async fn ends(&self, name: &str, status: &str) -> Result<(String, String)> {
        let ended = self.ended(name).await?;
        self.leaves_nothing(name).await?;
        ensure!(ended["status"] == status, "{ended}");
        let text = |field: &str| ended[field].as_str().unwrap_or_default().to_owned();
        Ok((text("reason"), text("message")))
    }

    /// Waits until a drill is over: what it says of whether it passed.
    pub async fn ended(&self, name: &str) -> Result<Value> {
        eventually(format!("{name} is over"), DRILLED, async || {
            let object = self.object(name).await?;
            let closed = [DrillCondition::TornDown, DrillCondition::Recorded];
            let is_over = closed.iter().all(|kind| condition(&object, kind)["status"] == "True");
            let passed = condition(&object, DrillCondition::Passed);
            Ok(Seen::when(is_over.then_some(passed), object["status"].to_string()))
        })
        .await
    }

    /// Drills the newest backup, which must fail for `reason`, and returns what it says.
    pub async fn fails(&self, reason: DrillReason) -> Result<String> {
        let name = self.drill(json!({})).await?;
        let (found, message) = self.ends(&name, "False").await?;
        ensure!(found == format!("{reason:?}"), "it failed for {found}: {message}");
        Ok(message)
    }

    /// Drills the newest backup, which must pass, and returns the drill's name.
    pub async fn passes(&self) -> Result<String> {
        let name = self.drill(json!({})).await?;
        self.ends(&name, "True").await?;
        Ok(name)
    }
}

/// What there is of a drill that restored into this namespace: volumes of its claims, and the namespace.
///
/// # Errors
/// If the API server cannot be asked.
pub async fn left_of(test: &Test, into: &str) -> Result<Vec<String>> {
    let admin = &test.world.admin;
    let volumes = admin.list(kind::PERSISTENT_VOLUME, "", "").await?;
    let volumes = volumes.iter().filter(|volume| volume["spec"]["claimRef"]["namespace"] == into);
    let namespace = admin.find(kind::NAMESPACE, "", into).await?;
    Ok(volumes.chain(&namespace).map(|object| object["metadata"]["name"].to_string()).collect())
}
