//! `valv agent backup` and `valv agent verify`, in a pod, with a real PostgreSQL 17 and a real store.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_postgres::Client;
use valv::{
    agent::{backup::row_counts, roles::Role},
    archive::{
        commit::ManifestRef,
        digest::Blake3,
        layout::{DataObject, Part, SegmentName},
        manifest::Manifest,
        read,
    },
    io::bucket::Put,
};

use super::{
    backup::{Keys, archive},
    data::mixed,
    pod::{Ended, Pod, Started, eventually},
    store::{ACCESS_KEY, BUCKET, Keeps, PREFIX, REGION, SECRET_KEY, Store},
};

pub const SENTINEL: &str = "00112233445566778899aabbccddeeff";
const ATTEMPT: &str = "0191b6f0-7d3a-7c40-8e0a-1f2e3d4c5b6a";
pub const NOTES: u64 = 20_000;

/// The tenant's own object, with a Secret that it names.
const TENANT: &str =
    "kind: JournalTenant\nspec: {journal: {files: [{mountPath: /a, secretName: letters}]}}\n";

/// The user that the pods run as.
pub const USER: u32 = 999;

/// A tenant with a running database, attachments, and all that a backup is told.
pub struct Tenant {
    pub pod: Pod,
    pub store: Store,
    pub keys: Keys,
    _running: Started,
}

impl Tenant {
    pub async fn start(store: Store) -> Self {
        let pod = Pod::new();
        let passwords: BTreeMap<Role, Option<String>> =
            Role::ALL.into_iter().map(|role| (role, Some(password(role)))).collect();
        pod.write_roles("DataOnly", &passwords);
        let made = pod.init(&[]);
        assert_eq!(made.code, Some(0), "{made:?}");
        let running = pod.run();
        let tenant = Self { pod, store, keys: Keys::new(), _running: running };
        let owner = tenant.connected(Role::JournalOwner).await;
        owner
            .batch_execute(&format!(
                "CREATE TABLE note (id int PRIMARY KEY, text text); \
                 INSERT INTO note SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, {NOTES}) n; \
                 CREATE TABLE \"Odd \"\"name\"\"\" (id int); \
                 CREATE UNLOGGED TABLE draft (id int); \
                 CREATE TABLE visit (day date) PARTITION BY RANGE (day); \
                 CREATE TABLE visit_2026 PARTITION OF visit FOR VALUES FROM ('2026-01-01') TO ('2027-01-01'); \
                 INSERT INTO visit VALUES ('2026-11-22')"
            ))
            .await
            .unwrap();
        tenant.write_files();
        tenant
    }

    /// What Kubernetes mounts.
    fn write_files(&self) {
        let root = self.pod.root();
        let write = |path: &str, content: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write("etc/valv/backup/ca.crt", &self.pod.authority.pem());
        write("etc/valv/backup/store/accessKeyID", ACCESS_KEY);
        write("etc/valv/backup/store/secretAccessKey", &format!("{SECRET_KEY}\n"));
        for role in [Role::JournalReplication, Role::JournalCheck] {
            write(&format!("etc/valv/backup/passwords/{role}"), &password(role));
        }
        write("valv/tenant/..2026/tenant.json", r#"{"kind":"JournalTenant"}"#);
        write("valv/tenant/..2026/tenant.yaml", TENANT);
        write("valv/tenant/..2026/secrets/letters/key", "a Secret's value");
        std::os::unix::fs::symlink("..2026", root.join("valv/tenant/..data")).unwrap();
        std::os::unix::fs::symlink("..data/tenant.json", root.join("valv/tenant/tenant.json")).unwrap();
        write("valv/attachments/ab/röntgen.txt", "a picture");
        fs::write(root.join("valv/attachments/large"), mixed(3 << 20, 5)).unwrap();
    }

    pub fn run_file(&self) -> Value {
        json!({
            "archive": "ada",
            "slot": "20261122T010000Z",
            "store": {
                "name": "helsinki",
                "endpoint": self.store.endpoint(),
                "bucket": BUCKET,
                "prefix": PREFIX,
                "region": REGION,
                "caBundle": self.store.authority,
                "timeouts": { "connect": 5, "attempt": 60, "stall": 20 },
                "retry": { "perRequest": 2, "perRun": 20 },
                "lock": { "mode": "Governance", "days": 1 },
            },
            "recipients": self.keys.recipients.to_texts(),
            "sentinel": SENTINEL,
            "database": {
                "host": "127.0.0.1",
                "port": self.pod.port,
                "name": "journal",
                "caFile": "/etc/valv/backup/ca.crt",
                "replicationUser": "journal_replication",
                "checkUser": "journal_check",
            },
            "attachments": { "folder": "/valv/attachments" },
            "tenantFolder": "/valv/tenant",
            "images": { "agent": "registry.example/valv:test" },
        })
    }

    pub async fn connected(&self, role: Role) -> Client {
        self.pod.connected(role.name(), &password(role), "journal").await
    }

    pub async fn superuser(&self) -> Client {
        self.pod.connected("postgres", "", "journal").await
    }

    /// Starts `valv agent <command>` with the run file `run`.
    fn start_agent(&self, command: &str, run: &Value, args: &[&str]) -> Started {
        let root = self.pod.root();
        fs::write(root.join("etc/valv/backup/run.json"), run.to_string()).unwrap();
        let _ = fs::remove_file(root.join("valv/run/termination-log"));
        let common = [
            command,
            "--run=/etc/valv/backup/run.json",
            "--store-credentials=/etc/valv/backup/store",
            "--termination-log=/valv/run/termination-log",
        ];
        self.pod.start(&[&common, args].concat())
    }

    fn start_backup(&self, run: &Value, args: &[&str]) -> Started {
        let attempt = format!("--attempt={ATTEMPT}");
        let own = ["--database-passwords=/etc/valv/backup/passwords", &attempt];
        self.start_agent("backup", run, &[&own, args].concat())
    }

    pub async fn back_up(&self, run: &Value, args: &[&str]) -> Ended {
        let started = self.start_backup(run, args);
        let ended = tokio::task::spawn_blocking(|| started.finish()).await.unwrap();
        self.assert_no_secret_in(&ended);
        ended
    }

    async fn verify(&self, manifest: &ManifestRef, depth: &str) -> Ended {
        let manifest_key = format!("--manifest={}", manifest.key);
        let version =
            format!("--version={}", manifest.version.as_ref().map_or("", |version| version.as_str()));
        let digest = format!("--blake3={}", manifest.blake3);
        let depth = format!("--depth={depth}");
        let started =
            self.start_agent("verify", &self.run_file(), &[&manifest_key, &version, &digest, &depth]);
        tokio::task::spawn_blocking(|| started.finish()).await.unwrap()
    }

    fn assert_no_secret_in(&self, ended: &Ended) {
        let text = format!("{}{}", ended.log, ended.message);
        for secret in [SECRET_KEY, &password(Role::JournalReplication), &password(Role::JournalCheck)] {
            assert!(!text.contains(secret), "{text}");
        }
    }

    fn has_manifest(&self) -> bool {
        self.store.keys().iter().any(|key| key.ends_with("/manifest.json"))
    }
}

pub fn password(role: Role) -> String {
    format!(r"secret:of\{role}'s")
}

/// Why there is no backup.
fn failure(ended: &Ended) -> (&str, &str) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let text = |name: &str| ended.message["failure"][name].as_str().unwrap_or_default();
    (text("reason"), text("message"))
}

pub async fn ask(client: &Client, query: &str) -> String {
    client.query_one(&format!("SELECT ({query})::text"), &[]).await.unwrap().get(0)
}

/// Restores `part` into `target`, with tar.
async fn restore(tenant: &Tenant, manifest: &Manifest, part: Part, target: &Path) {
    let mut tar = tokio::process::Command::new("tar")
        .args(["--extract", "--numeric-owner", "--same-permissions", "--directory"])
        .arg(target)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let sink = tar.stdin.take().unwrap();
    let bucket = archive(&tenant.store.bucket());
    read::part(&bucket, manifest, part, &tenant.keys.escrow, sink, &watch::Sender::default()).await.unwrap();
    assert!(tar.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_backed_up_and_what_is_restored_has_its_sentinel_its_rows_and_its_attachments() {
    let tenant = Tenant::start(Store::start(Keeps::LockedVersions)).await;

    let taken = tenant.back_up(&tenant.run_file(), &[]).await;

    assert_eq!(taken.code, Some(0), "{taken:?}");
    println!("{}", taken.log);
    let named: ManifestRef = serde_json::from_value(taken.message["manifest"].clone()).unwrap();
    let bucket = tenant.store.bucket();
    let manifest = archive(&bucket).manifest(&named).await.unwrap();
    let names: Vec<Part> = manifest.parts.iter().map(|part| part.name).collect();
    assert_eq!(names, [Part::Database, Part::Attachments, Part::Tenant]);
    assert_eq!(taken.message["segments"], manifest.segments());
    assert_eq!(manifest.attempt.to_string(), ATTEMPT);
    assert!(manifest.postgres.version.starts_with("17."), "{:?}", manifest.postgres);
    assert_eq!(manifest.postgres.timeline, 1);
    let counted = BTreeMap::from([
        ("public.note".to_owned(), NOTES),
        (r#"public."Odd ""name""""#.to_owned(), 0),
        ("public.visit_2026".to_owned(), 1),
    ]);
    assert_eq!((&manifest.row_counts.start, &manifest.row_counts.end), (&counted, &counted));
    let locked = bucket.head(&named.key, named.version.as_ref()).await.unwrap().retained_until;
    assert!(locked.is_some(), "the manifest is not locked");
    assert!(taken.log.contains("Database") && taken.log.contains("total_bytes"), "{}", taken.log);
    let superuser = tenant.superuser().await;
    let slots = "SELECT count(*) FROM pg_replication_slots";
    eventually("the end of the slot", async || (ask(&superuser, slots).await == "0").then_some(())).await;

    for (depth, mode) in [("full", "Full"), ("sample:1", "Sample"), ("metadata", "Metadata")] {
        let verified = tenant.verify(&named, depth).await;
        assert_eq!(verified.code, Some(0), "{verified:?}");
        assert_eq!(verified.message["verified"]["mode"], mode);
        assert_eq!(verified.message["verified"]["segments"], manifest.segments());
        assert_eq!(verified.message["verified"]["tampered"], 0);
    }

    let segment = DataObject::Segment(SegmentName::new(Part::Tenant, 0).unwrap());
    let segment = manifest.folder().key(segment).to_string();
    bucket.put(&segment, Bytes::from_static(b"a younger one"), &Put::default()).await.unwrap();
    let verified = tenant.verify(&named, "full").await;
    assert_eq!(verified.message["verified"]["tampered"], 1, "{verified:?}");
    let other = ManifestRef { blake3: Blake3::of(b"another"), ..named.clone() };
    assert_eq!(failure(&tenant.verify(&other, "full").await).0, "ManifestInvalid");
    let absent = ManifestRef { key: named.key.replace("manifest", "absent"), ..named.clone() };
    assert_eq!(failure(&tenant.verify(&absent, "full").await).0, "ManifestMissing");

    let target = tempfile::tempdir().unwrap();
    restore(&tenant, &manifest, Part::Attachments, target.path()).await;
    super::tools::assert_same(&tenant.pod.root().join("valv/attachments"), target.path());
    let inventory = Command::new("sh")
        .args(["-c", "find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 b3sum | b3sum --no-names"])
        .current_dir(target.path())
        .output()
        .unwrap();
    let attachments = manifest.attachments.as_ref().unwrap();
    assert_eq!(String::from_utf8(inventory.stdout).unwrap().trim(), attachments.digest.to_string());
    assert_eq!(attachments.files, 2);
    let target = tempfile::tempdir().unwrap();
    restore(&tenant, &manifest, Part::Tenant, target.path()).await;
    let object = fs::read_to_string(target.path().join("tenant.json")).unwrap();
    assert_eq!(object, r#"{"kind":"JournalTenant"}"#);

    let restored = Pod::new();
    let data = restored.volume().join("pgdata");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&data, Some(USER), Some(USER)).unwrap();
    restore(&tenant, &manifest, Part::Database, &data).await;
    // pg_basebackup itself adds the last file of the stream, and gives it to nobody that there is.
    let owned = Command::new("chown").arg("-R").arg(format!("{USER}:{USER}")).arg(&data).status();
    assert!(owned.unwrap().success());
    let whole = restored
        .command("/usr/lib/postgresql/17/bin/pg_verifybackup")
        .arg("/var/lib/postgresql/data/pgdata")
        .output()
        .unwrap();
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    let _running = restored.run();
    let check = restored.connected("journal_check", &password(Role::JournalCheck), "journal").await;
    let sentinel = "SELECT string_agg(slot || ' ' || nonce, ',') FROM valv.sentinel";
    assert_eq!(ask(&check, sentinel).await, format!("20261122T010000Z {SENTINEL}"));
    assert_eq!(ask(&check, "SELECT count(*) FROM note").await, NOTES.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_counted_again_only_if_somebody_wrote() {
    let tenant = Tenant::start(Store::start(Keeps::Latest)).await;
    let superuser = tenant.superuser().await;
    superuser.batch_execute("ALTER SYSTEM SET autovacuum = off").await.unwrap();
    superuser.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let mut reader = tenant.connected(Role::JournalCheck).await;
    let counted = row_counts::count(&mut reader).await.unwrap();

    // Who counted would wait for this lock until the count fails.
    superuser.batch_execute("BEGIN; LOCK TABLE note IN ACCESS EXCLUSIVE MODE").await.unwrap();
    assert_eq!(row_counts::count_again(&mut reader, &counted).await.unwrap(), counted);
    superuser
        .batch_execute("COMMIT; DELETE FROM note WHERE ctid = (SELECT min(ctid) FROM note)")
        .await
        .unwrap();

    let again = row_counts::count_again(&mut reader, &counted).await.unwrap();
    assert_eq!((counted.rows["public.note"], again.rows["public.note"]), (NOTES, NOTES - 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_backup_that_is_killed_midway_leaves_no_manifest() {
    let tenant = Tenant::start(Store::start(Keeps::Latest)).await;
    // Its standard output ends, as that of one that succeeded does.
    let programs = tenant.pod.root().join("valv/programs");
    fs::create_dir(&programs).unwrap();
    std::os::unix::fs::symlink("/usr/lib/postgresql/17/bin/postgres", programs.join("postgres")).unwrap();
    let script =
        "#!/bin/sh\n/usr/lib/postgresql/17/bin/pg_basebackup \"$@\" | head -c 8000000\nkill -KILL $$\n";
    fs::write(programs.join("pg_basebackup"), script).unwrap();
    fs::set_permissions(programs.join("pg_basebackup"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut run = tenant.run_file();
    run["store"]["lock"] = Value::Null;

    let ended = tenant.back_up(&run, &["--programs=/valv/programs"]).await;

    let (reason, message) = failure(&ended);
    assert_eq!(reason, "DatabaseUnavailable", "{message}");
    assert!(message.contains("pg_basebackup ended with signal: 9"), "{message}");
    assert!(!tenant.has_manifest(), "{:?}", tenant.store.keys());
    assert!(!tenant.store.keys().is_empty(), "the part was written as far as it came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_ends_at_once_with_its_pod() {
    let tenant = Tenant::start(Store::start(Keeps::Latest)).await;
    let mut run = tenant.run_file();
    run["store"]["lock"] = Value::Null;
    run["store"]["bytesPerSecond"] = json!(1000);
    let superuser = tenant.superuser().await;
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE temporary AND restart_lsn IS NOT NULL";

    let started = tenant.start_backup(&run, &[]);
    eventually("the slot", async || (ask(&superuser, slots).await == "1").then_some(())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = Instant::now();
    started.terminate();
    let ended = tokio::task::spawn_blocking(|| started.finish()).await.unwrap();

    assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
    let (reason, message) = failure(&ended);
    assert_eq!(reason, "AgentFailed");
    assert!(message.contains("interrupted by the end of the pod"), "{message}");
    assert!(!tenant.has_manifest());
    eventually("the end of the slot", async || (ask(&superuser, slots).await == "0").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_backed_up_is_refused_before_anything_is_stored() {
    let tenant = Tenant::start(Store::start(Keeps::Latest)).await;
    let superuser = tenant.superuser().await;
    let run = tenant.run_file();

    let mut one_recipient = run.clone();
    one_recipient["recipients"] = json!([tenant.keys.recipients.to_texts()[0]]);
    let ended = tenant.back_up(&one_recipient, &[]).await;
    assert_eq!(failure(&ended).0, "TooFewRecipients", "{ended:?}");

    let mut no_attachments = run.clone();
    no_attachments["attachments"]["folder"] = json!("/valv/not-mounted");
    let ended = tenant.back_up(&no_attachments, &[]).await;
    assert_eq!(failure(&ended).0, "AttachmentsUnreadable", "{ended:?}");

    let check = tenant.pod.root().join("etc/valv/backup/passwords/journal_check");
    fs::write(&check, "not it").unwrap();
    let ended = tenant.back_up(&run, &[]).await;
    let (reason, message) = failure(&ended);
    assert_eq!(reason, "DatabaseUnavailable", "{message}");
    assert!(message.contains("as journal_check") && !message.contains("not it"), "{message}");
    fs::write(check, password(Role::JournalCheck)).unwrap();

    let folder = tenant.pod.volume().join("fast");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(USER), Some(USER)).unwrap();
    superuser.batch_execute("CREATE TABLESPACE fast LOCATION '/var/lib/postgresql/data/fast'").await.unwrap();
    let ended = tenant.back_up(&run, &[]).await;
    let (reason, message) = failure(&ended);
    assert_eq!(reason, "DatabaseUnsuitable", "{message}");
    assert!(message.contains("tablespaces of its own (fast)"), "{message}");

    superuser.batch_execute("DROP TABLESPACE fast").await.unwrap();
    let swallow = "CREATE RULE swallow AS ON INSERT TO valv.sentinel DO INSTEAD NOTHING";
    superuser.batch_execute(swallow).await.unwrap();
    let ended = tenant.back_up(&run, &[]).await;
    let (reason, message) = failure(&ended);
    assert_eq!(reason, "DatabaseUnsuitable", "{message}");
    assert!(message.contains("valv.sentinel took 0 rows"), "{message}");

    superuser.batch_execute("DROP SCHEMA valv CASCADE").await.unwrap();
    let ended = tenant.back_up(&run, &[]).await;
    let (reason, message) = failure(&ended);
    assert_eq!(reason, "DatabaseUnsuitable", "{message}");
    assert!(message.contains("CREATE TABLE IF NOT EXISTS valv.sentinel"), "{message}");

    assert_eq!(tenant.store.keys(), [""; 0]);
}
