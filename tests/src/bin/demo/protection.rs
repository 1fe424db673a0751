//! Two stores in two countries, a backup, a drill that passes, and one that must not.

use std::env::current_exe;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use age::secrecy::ExposeSecret;
use age::x25519;
use anyhow::{Context, Result, bail, ensure};
use harness::actor::Grace;
use harness::store::BackupStore;
use harness::{Seen, Tenant, World, eventually, kind};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::Instant;
use valv_cluster::{Identity, Store};
use valv_crds::slot::drill_namespace;
use valv_crds::store::{StoreCondition, StoreReason};

use crate::say;
use crate::table::Table;

/// The policy's name.
const POLICY: &str = "demo";

/// Where the keys of unattended drills lie.
const KEYS: &str = "valv-keys";

/// The tenant's own, the escrow's, and that of unattended drills.
const RECIPIENTS: usize = 3;

/// The Secret of the tenant's drill key, as the key holder looks for it: after the archive.
const KEY: &str = "drill-key-stadskliniken";

/// A copy, two Jobs and a commit.
const COPIED: Duration = Duration::from_secs(180);

/// Takes away what this part made besides the tenant. What lies in the buckets stays until the cluster goes.
pub async fn take_away(world: &'static World) -> Result<()> {
    let Some(stores) = stores(world)? else { return Ok(()) };
    for (kind, namespace, name) in [(kind::BACKUP_POLICY, "", POLICY), (kind::SECRET, KEYS, KEY)] {
        if world.admin.find(kind, namespace, name).await?.is_some() {
            world.admin.delete(kind, namespace, name, Grace::None).await?;
        }
    }
    for store in &stores {
        store.take_away().await?;
    }
    Ok(())
}

fn stores(world: &'static World) -> Result<Option<[BackupStore; 2]>> {
    let Some(cluster) = world.local() else { return Ok(None) };
    let named = |store: Store| BackupStore::named(world, &store, store.name);
    Ok(Some(cluster.stores()?.map(named)))
}

/// Shows it for `tenant`, whose journal runs.
///
/// # Errors
/// Also if the drill passes that must not.
pub async fn show(world: &'static World, tenant: &Tenant, table: &mut Table) -> Result<()> {
    let Some(stores) = stores(world)? else {
        say("backups are shown on the local cluster only: it has two stores of its own");
        return Ok(());
    };
    take_away(world).await.context("failed to take away what a run before left")?;

    say("two object stores: Helsinki with versions and locks, Frankfurt with neither");
    let begun = Instant::now();
    for store in &stores {
        store.bring_secrets(&Identity::ALL).await?;
        store.apply(json!({})).await?;
    }
    for store in &stores {
        store.says(StoreCondition::Ready, "True", StoreReason::AsAsked).await?;
    }
    table.add(
        "two stores are proven",
        "who may write cannot read or delete; the lock holds",
        begun.elapsed(),
    );

    bring_policy(world, &stores, tenant).await?;
    say("kubectl valv backup now stadskliniken --wait");
    let begun = Instant::now();
    valv(world, &["backup", "now", &tenant.name, "--wait"]).await?.well()?;
    table.add("a backup lies in Helsinki", "encrypted, read back, signed", begun.elapsed());

    say("waiting for its copy in Frankfurt");
    let begun = Instant::now();
    let backup = copied(world, tenant).await?;
    table.add("its copy lies in Frankfurt", "the same ciphertext, by digest, without a key", begun.elapsed());

    say("looking at the stores' own files: is all of it encrypted?");
    let begun = Instant::now();
    let here = encrypted(&stores[0], tenant, &backup)?;
    let there = encrypted(&stores[1], tenant, &backup)?;
    ensure!(here == there, "{here} segments lie in Helsinki, and {there} in Frankfurt");
    let seen = format!("{here} segments in each, all age files for {RECIPIENTS} recipients");
    table.add("what lies there is encrypted", seen, begun.elapsed());

    say("kubectl valv drill now stadskliniken --wait");
    let begun = Instant::now();
    valv(world, &["drill", "now", &tenant.name, "--store", "helsinki", "--wait"]).await?.well()?;
    let drill = newest_drill(world, tenant).await?;
    let measured = &drill["status"]["measured"];
    let text = |field: &str| measured[field].as_str().unwrap_or("?").to_owned();
    let passed = format!("passed: recovery time {}, recovery point {}", text("rto"), text("rpo"));
    table.add("a drill restores and judges it", passed, begun.elapsed());

    say("looking for what it restored");
    let begun = Instant::now();
    let (namespaces, volumes) = left_of(world, tenant, &drill).await?;
    ensure!(namespaces + volumes == 0, "{namespaces} namespaces and {volumes} volumes of the drill are left");
    table.add("it is torn down", "no namespace and no volume of it is left", begun.elapsed());

    say("flipping one bit in one segment, in the store's own files");
    corrupt(&stores[0], tenant, &backup)?;
    say("kubectl valv drill now stadskliniken --wait");
    let begun = Instant::now();
    let ended = valv(world, &["drill", "now", &tenant.name, "--store", "helsinki", "--wait"]).await?;
    let drill = newest_drill(world, tenant).await?;
    let reason = reason(&drill);
    ensure!(!ended.is_well() && reason == "SegmentDiffers", "the corruption was not found: {reason}");
    table.add("one bit is flipped in Helsinki", format!("the next drill fails: {reason}"), begun.elapsed());

    say("kubectl valv status stadskliniken");
    // It ends with 1: the last drill failed.
    let status = valv(world, &["status", &tenant.name]).await?;
    ensure!(!status.is_well(), "the status says that all is well after a drill that failed");
    Ok(())
}

/// The policy, the tenant's three recipients, and the drill's identity where only the key holder reads it.
async fn bring_policy(world: &World, stores: &[BackupStore], tenant: &Tenant) -> Result<()> {
    let admin = &world.admin;
    let policy = json!({
        "apiVersion": kind::BACKUP_POLICY.api_version(),
        "kind": kind::BACKUP_POLICY.name,
        "metadata": { "name": POLICY },
        "spec": {
            "schedule": { "cron": "0 1 * * *", "timeZone": "Europe/Stockholm", "window": "3h", "deadline": "2h" },
            "stores": stores.iter().map(|store| &store.name).collect::<Vec<_>>(),
            "verification": { "mode": "Full" },
            "retention": {
                "last": 3, "daily": 14, "weekly": 8, "monthly": 12, "yearly": 10,
                "floor": { "days": 35, "reason": "HSLF-FS 2016:40 3 kap. 13 §, decided for the demo" },
            },
            "objectives": { "rpo": "24h", "rto": "1h" },
            "drill": {
                "schedule": { "cron": "0 5 * * 0", "timeZone": "Europe/Stockholm" },
                "checks": [{ "name": "notes-are-there", "sql": "SELECT count(*) > 0 FROM note" }],
            },
        },
    });
    admin.apply(kind::BACKUP_POLICY, "", &policy).await?;
    let [owner, escrow, drill] = [(); 3].map(|()| x25519::Identity::generate());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": KEY },
        "stringData": { "identity": drill.to_string().expose_secret() },
    });
    admin.apply(kind::SECRET, KEYS, &secret).await?;
    tenant
        .edit(&format!(
            "backup: {{policy: {POLICY}, recipients: {{tenant: {}, escrow: {}, drill: {}}}}}",
            owner.to_public(),
            escrow.to_public(),
            drill.to_public()
        ))
        .await
}

/// Waits until the newest backup is in both stores, and returns it.
async fn copied(world: &World, tenant: &Tenant) -> Result<Value> {
    eventually("the backup is in both stores", COPIED, async || {
        let mut backups = world.admin.list(kind::BACKUP, &tenant.namespace, "").await?;
        backups.sort_by_key(|backup| backup["metadata"]["creationTimestamp"].to_string());
        let Some(newest) = backups.pop() else { return Ok(Seen::NotYet("no backup".to_owned())) };
        let conditions = newest["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let copied = conditions.iter().find(|condition| condition["type"] == "Copied");
        let is_copied = copied.is_some_and(|condition| condition["status"] == "True");
        Ok(if is_copied { Seen::Yes(newest) } else { Seen::NotYet(newest["status"].to_string()) })
    })
    .await
}

async fn newest_drill(world: &World, tenant: &Tenant) -> Result<Value> {
    let mut drills = world.admin.list(kind::RESTORE_DRILL, &tenant.namespace, "").await?;
    drills.sort_by_key(|drill| drill["metadata"]["creationTimestamp"].to_string());
    drills.pop().context("there is no drill")
}

/// The reason of its condition `Passed`.
fn reason(drill: &Value) -> String {
    let conditions = drill["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let passed = conditions.iter().find(|condition| condition["type"] == "Passed");
    passed.and_then(|passed| passed["reason"].as_str()).unwrap_or("none").to_owned()
}

/// So many segments of `backup` lie in `store`, in its own files, each of which begins as an age file for all recipients.
///
/// # Errors
/// If one does not, or there are none.
fn encrypted(store: &BackupStore, tenant: &Tenant, backup: &Value) -> Result<usize> {
    let data = data(store, tenant, backup)?;
    let mut segments = 0;
    for part in ["database", "attachments", "tenant"] {
        let folder = data.join(part);
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let mut start = vec![];
            fs::File::open(&path)?.take(4096).read_to_end(&mut start)?;
            let recipients = age_recipients(&start);
            ensure!(recipients == Some(RECIPIENTS), "{}: {recipients:?} recipients", path.display());
            segments += 1;
        }
    }
    ensure!(segments > 2, "only {segments} segments lie in {}", data.display());
    Ok(segments)
}

/// The folder of a backup's data in a store, on this machine.
fn data(store: &BackupStore, tenant: &Tenant, backup: &Value) -> Result<PathBuf> {
    let field =
        |pointer: &str| backup.pointer(pointer).and_then(Value::as_str).context("the backup's status");
    let (slot, attempt) = (field("/status/slot")?, field("/status/attempt/id")?);
    let archive = store.server.objects().join(&store.name).join("v1").join(&tenant.name);
    Ok(archive.join(format!("data/{slot}/{attempt}")))
}

/// For how many X25519 recipients the age file is that begins with `start`; absent: it is none.
/// Source: <https://c2sp.org/age>, "Header"
fn age_recipients(start: &[u8]) -> Option<usize> {
    let end = start.windows(5).position(|bytes| bytes == b"\n--- ")?;
    let header = std::str::from_utf8(&start[..end]).ok()?;
    let mut lines = header.lines();
    (lines.next() == Some("age-encryption.org/v1")).then_some(())?;
    Some(lines.filter(|line| line.starts_with("-> X25519 ")).count())
}

/// Namespaces and volumes of `drill` that are there.
async fn left_of(world: &World, tenant: &Tenant, drill: &Value) -> Result<(usize, usize)> {
    let uid = drill["metadata"]["uid"].as_str().context("the drill has a UID")?;
    let into = drill_namespace(&tenant.name, uid);
    let namespace = world.admin.find(kind::NAMESPACE, "", &into).await?;
    let volumes = world.admin.list(kind::PERSISTENT_VOLUME, "", "").await?;
    let of_it = volumes.iter().filter(|volume| volume["spec"]["claimRef"]["namespace"] == into.as_str());
    Ok((usize::from(namespace.is_some()), of_it.count()))
}

/// One bit of the first segment of the database, in place: the store knows of nothing.
fn corrupt(store: &BackupStore, tenant: &Tenant, backup: &Value) -> Result<()> {
    let segment = data(store, tenant, backup)?.join("database/00000000.age");
    let middle = fs::metadata(&segment).with_context(|| segment.display().to_string())?.len() / 2;
    let mut file = OpenOptions::new().read(true).write(true).open(&segment)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(middle))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(middle))?;
    file.write_all(&[byte[0] ^ 1])?;
    Ok(())
}

/// How a command of the plugin ended.
struct Ended {
    code: Option<i32>,
}

impl Ended {
    fn is_well(&self) -> bool {
        self.code == Some(0)
    }

    fn well(self) -> Result<()> {
        if self.is_well() { Ok(()) } else { bail!("it ended with {:?}", self.code) }
    }
}

/// Runs `kubectl valv …`, whose words are shown as they come.
async fn valv(world: &World, args: &[&str]) -> Result<Ended> {
    let mut command = Command::new(plugin()?);
    command.args(args).arg("--kubeconfig").arg(world.kubeconfig()).stdin(Stdio::null());
    let status = command.status().await.context("failed to run valv")?;
    ensure!(status.code() != Some(2), "valv {} could not ask", args.join(" "));
    Ok(Ended { code: status.code() })
}

/// The binary, beside this one.
fn plugin() -> Result<PathBuf> {
    Ok(current_exe()?.parent().context("a program is in a folder")?.join("valv"))
}
