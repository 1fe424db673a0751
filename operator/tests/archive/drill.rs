//! `valv agent restore` and `valv agent judge`, in a pod, with a real PostgreSQL 17 and a real store: what a drill
//! does, and that it fails when it should, each time with its own reason.

use std::{
    fs,
    os::unix::fs::{FileExt, chown},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use valv::{
    agent::roles::Role,
    archive::{
        commit::{Commit, ManifestRef},
        envelope::SigningKey,
        layout::{DataObject, Part, SegmentName},
        manifest::Manifest,
    },
    io::bucket::{Bucket, Put},
};

use super::{
    backup::{Backup, Keys, archive, back_up, committed},
    data::mixed,
    pod::{Ended, Pod},
    pod_backup::{NOTES, SENTINEL, Tenant, USER, ask, password},
    store::{ACCESS_KEY, BUCKET, Keeps, PREFIX, REGION, SECRET_KEY, Store},
};

const SLOT: &str = "20261122T010000Z";

/// What is promised for a database of any size.
const LIMIT_KIBIBYTES: u64 = 128 * 1024;

/// A pod with empty volumes, and all that a drill is told.
struct Drill {
    pod: Pod,
    restore: Value,
    judge: Value,
}

impl Drill {
    fn of(store: &Store, keys: &Keys) -> Self {
        let pod = Pod::new();
        let root = pod.root();
        let write = |path: &str, content: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write("etc/valv/drill/store/accessKeyID", ACCESS_KEY);
        write("etc/valv/drill/store/secretAccessKey", SECRET_KEY);
        write("etc/valv/drill/identity", &keys.escrow_file);
        for folder in ["valv/attachments", "valv/tenant"] {
            fs::create_dir_all(root.join(folder)).unwrap();
            chown(root.join(folder), Some(USER), Some(USER)).unwrap();
        }
        let restore = json!({
            "archive": "ada",
            "slot": SLOT,
            "store": {
                "name": "helsinki",
                "endpoint": store.endpoint(),
                "bucket": BUCKET,
                "prefix": PREFIX,
                "region": REGION,
                "caBundle": store.authority,
                "timeouts": { "connect": 5, "attempt": 60, "stall": 20 },
                "retry": { "perRequest": 2, "perRun": 20 },
            },
            "trustedKeys": [keys.public().to_pem()],
            "recipients": 2,
            "databaseVolume": "/var/lib/postgresql/data",
            "attachmentsFolder": "/valv/attachments",
            "tenantFolder": "/valv/tenant",
            "major": 17,
        });
        let judge = json!({
            "databaseVolume": "/var/lib/postgresql/data",
            "attachmentsFolder": "/valv/attachments",
            "database": "journal",
            "journalRole": "journal_app_a",
            "inventorySQL": "SELECT path, sha256 FROM attachment",
            "major": 17,
        });
        Self { pod, restore, judge }
    }

    async fn run(&self, command: &str, run: &Value, args: &[&str]) -> Ended {
        let root = self.pod.root();
        fs::write(root.join("etc/valv/drill/run.json"), run.to_string()).unwrap();
        let _ = fs::remove_file(root.join("valv/run/termination-log"));
        let common =
            [command, "--run=/etc/valv/drill/run.json", "--termination-log=/valv/run/termination-log"];
        let started = self.pod.start(&[&common, args].concat());
        let ended = tokio::task::spawn_blocking(|| started.finish()).await.unwrap();
        let text = format!("{}{}", ended.log, ended.message);
        for secret in [SECRET_KEY, "AGE-SECRET-KEY", "röntgen", "large", "a picture", "a Secret's value"] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
        ended
    }

    async fn restored(&self, run: &Value) -> Ended {
        let args = ["--store-credentials=/etc/valv/drill/store", "--identity=/etc/valv/drill/identity"];
        self.run("restore", run, &args).await
    }

    async fn judged(&self, run: &Value) -> Ended {
        self.run("judge", run, &["--scratch=/valv/run"]).await
    }

    /// Restores what must fail; the first verdict that is not a pass, and that all after it were not reached.
    async fn refused(&self, run: &Value) -> (String, String, String) {
        let ended = self.restored(run).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let verdicts = ended.message["restored"]["verdicts"].as_array().unwrap().clone();
        assert_eq!(verdicts.len(), 7, "{verdicts:?}");
        let failed = verdicts.iter().position(|verdict| verdict["outcome"] == "Failed").expect("a failure");
        let not_reached = verdicts[failed + 1..].iter().all(|verdict| verdict["outcome"] == "NotReached");
        assert!(not_reached, "{verdicts:?}");
        assert!(!self.pod.volume().join("pgdata").exists(), "half a database has its name");
        let text = |name: &str| verdicts[failed][name].as_str().unwrap_or_default().to_owned();
        (text("name"), text("reason"), text("message"))
    }
}

/// Outcome and reason of the verdict called `name`.
fn verdict(ended: &Ended, name: &str) -> (String, String) {
    let words =
        if ended.message["judged"].is_null() { &ended.message["restored"] } else { &ended.message["judged"] };
    let verdicts = words["verdicts"].as_array().unwrap_or_else(|| panic!("{ended:?}"));
    let found = verdicts
        .iter()
        .find(|verdict| verdict["name"] == name)
        .unwrap_or_else(|| panic!("{name}: {ended:?}"));
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    (text("outcome"), text("reason"))
}

fn pair(one: &str, other: &str) -> (String, String) {
    (one.to_owned(), other.to_owned())
}

/// Backs `tenant` up for `slot`, with attachments that its database names, and commits it.
async fn backed_up(tenant: &Tenant, slot: &str, sentinel: &str) -> Backup {
    let mut run = tenant.run_file();
    run["slot"] = json!(slot);
    run["sentinel"] = json!(sentinel);
    run["store"]["lock"] = Value::Null;
    let taken = tenant.back_up(&run, &[]).await;
    assert_eq!(taken.code, Some(0), "{taken:?}");
    let named: ManifestRef = serde_json::from_value(taken.message["manifest"].clone()).unwrap();
    let bucket = tenant.store.bucket();
    let manifest = archive(&bucket).manifest(&named).await.unwrap();
    let backup = Backup { manifest, named };
    committed(&bucket, &backup, &tenant.keys).await;
    backup
}

/// A tenant whose database names its attachments.
async fn tenant(keeps: Keeps) -> Tenant {
    let tenant = Tenant::start(Store::start(keeps)).await;
    let owner = tenant.connected(Role::JournalOwner).await;
    owner
        .batch_execute("CREATE TABLE attachment (path text PRIMARY KEY, sha256 text NOT NULL)")
        .await
        .unwrap();
    for path in ["ab/röntgen.txt", "large"] {
        let content = fs::read(tenant.pod.root().join("valv/attachments").join(path)).unwrap();
        let insert = "INSERT INTO attachment SELECT $1, encode(sha256($2), 'hex')";
        owner.execute(insert, &[&path, &content]).await.unwrap();
    }
    tenant
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_judged_and_then_starts_as_any_database_does() {
    let tenant = tenant(Keeps::LockedVersions).await;
    let owner = tenant.connected(Role::JournalOwner).await;
    // What is hidden from everybody else is counted all the same.
    owner
        .batch_execute(
            "CREATE TABLE visited (at timestamptz); CREATE TABLE hidden (id int); \
             INSERT INTO hidden VALUES (1), (2), (3); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY",
        )
        .await
        .unwrap();
    // The journal goes on while it is backed up.
    let writing = tokio::spawn(async move {
        loop {
            owner.batch_execute("INSERT INTO visited VALUES (now())").await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let backup = backed_up(&tenant, SLOT, SENTINEL).await;
    writing.abort();
    assert_eq!(backup.manifest.row_counts.end["public.hidden"], 3);
    let mut drill = Drill::of(&tenant.store, &tenant.keys);

    let restored = drill.restored(&drill.restore).await;

    assert_eq!(restored.code, Some(0), "{restored:?}");
    println!("{}", restored.message);
    for check in
        ["CommitSignature", "Manifest", "Segments", "Recipients", "Decryption", "Tenant", "VerifyBackup"]
    {
        assert_eq!(verdict(&restored, check), pair("Passed", "AsAsked"), "{restored:?}");
    }
    let words = &restored.message["restored"];
    let bytes: u64 = backup.manifest.parts.iter().map(|part| part.bytes).sum();
    assert_eq!(words["bytes"], bytes);
    assert_eq!(words["manifest"]["blake3"], backup.named.blake3.to_string());
    assert_eq!(words["lastBackupEnd"], backup.manifest.ended.to_string());
    let phases: Vec<_> =
        words["phases"].as_array().unwrap().iter().map(|phase| phase["phase"].clone()).collect();
    assert_eq!(phases, ["Fetch", "Verify"]);
    super::tools::assert_same(
        &tenant.pod.root().join("valv/attachments"),
        &drill.pod.root().join("valv/attachments"),
    );

    drill.judge["checks"] = json!([
        { "name": "notes", "sql": format!("SELECT count(*) = {NOTES} FROM note"), "timeoutSeconds": 30 },
        { "name": "hidden", "sql": "SELECT count(*) = 3 FROM hidden", "timeoutSeconds": 30 },
    ]);
    let judged = drill.judged(&drill.judge).await;
    assert_eq!(judged.code, Some(0), "{judged:?}");
    println!("{}", judged.message);
    for check in ["DatabaseStarts", "Sentinel", "RowCounts", "Amcheck", "Attachments", "Sql/notes"] {
        assert_eq!(verdict(&judged, check), pair("Passed", "AsAsked"), "{judged:?}");
    }
    let words = &judged.message["judged"];
    let last: jiff::Timestamp = words["lastCommit"].as_str().unwrap().parse().unwrap();
    assert!(last > backup.manifest.started && last <= backup.manifest.ended, "{words}");
    assert_eq!(words["lastCommitFrom"], "Replay", "{words}");
    // A second judgement finds it as the first did.
    let again = drill.judged(&drill.judge).await;
    assert_eq!(verdict(&again, "Amcheck"), pair("Passed", "AsAsked"), "{again:?}");

    let passwords = Role::ALL.into_iter().map(|role| (role, Some(password(role)))).collect();
    drill.pod.write_roles("DataOnly", &passwords);
    let made = drill.pod.init(&[]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let _running = drill.pod.run();
    let check = drill.pod.connected("journal_check", &password(Role::JournalCheck), "journal").await;
    assert_eq!(ask(&check, "SELECT count(*) FROM note").await, NOTES.to_string());
    let left = "SELECT count(*) FROM pg_roles WHERE rolname = 'valv_drill'";
    assert_eq!(ask(&check, left).await, "0", "who asked is gone");
    let left = "SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'";
    assert_eq!(ask(&check, left).await, "0", "what was made to ask is gone");
}

/// Changes the middle byte, as a disk might.
fn flip_a_bit(file: &PathBuf) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
}

fn segment(manifest: &Manifest, part: Part, number: u32) -> String {
    let name = SegmentName::new(part, number).unwrap();
    manifest.folder().key(DataObject::Segment(name)).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_damage_in_the_store_fails_the_drill_with_its_own_reason() {
    let tenant = tenant(Keeps::Latest).await;
    let (store, bucket) = (&tenant.store, tenant.store.bucket());
    let ada = backed_up(&tenant, SLOT, SENTINEL).await;
    // Another tenant of the same store.
    let bo = back_up(&bucket, "bo", &mixed(3 << 20, 2), &tenant.keys).await;
    let drill = Drill::of(store, &tenant.keys);
    let run = &drill.restore;
    let database = store.file(&segment(&ada.manifest, Part::Database, 0));
    let attachments = store.file(&segment(&ada.manifest, Part::Attachments, 0));
    let foreign = store.file(&segment(&bo.manifest, Part::Database, 0));
    let manifest = store.file(&ada.named.key);
    let commit = store.file(&Commit::key(&ada.manifest.archive, ada.manifest.slot).to_string());
    let page = "index/database-00000.jsonl".parse().unwrap();
    let page = store.file(&ada.manifest.folder().key(page).to_string());
    let files = [&database, &attachments, &manifest, &commit, &page];
    let contents = files.map(|file| fs::read(file).unwrap());
    let put_right = || {
        files.iter().zip(&contents).for_each(|(file, content)| fs::write(file, content).unwrap());
    };
    let reason = async |name: &str, reason: &str| {
        let (found_name, found_reason, message) = drill.refused(run).await;
        assert_eq!((found_name.as_str(), found_reason.as_str()), (name, reason), "{message}");
        put_right();
        message
    };

    flip_a_bit(&database);
    reason("Segments", "SegmentDiffers").await;
    fs::remove_file(&database).unwrap();
    reason("Segments", "SegmentMissing").await;
    fs::write(&database, &contents[1]).unwrap();
    fs::write(&attachments, &contents[0]).unwrap();
    let message = reason("Segments", "SegmentsSwapped").await;
    assert!(message.contains("has the content of"), "{message}");
    fs::write(&database, fs::read(&foreign).unwrap()).unwrap();
    reason("Segments", "SegmentDiffers").await;

    flip_a_bit(&page);
    reason("Manifest", "ManifestDiffers").await;
    fs::remove_file(&page).unwrap();
    reason("Manifest", "ManifestMissing").await;
    fs::remove_file(&manifest).unwrap();
    reason("Manifest", "ManifestMissing").await;
    // Altered, and in itself consistent: only the commit knows.
    let mut altered = ada.manifest.clone();
    altered.sentinel = "ff".repeat(16);
    fs::write(&manifest, altered.to_bytes().unwrap()).unwrap();
    reason("Manifest", "ManifestDiffers").await;

    fs::remove_file(&commit).unwrap();
    reason("CommitSignature", "NoBackup").await;
    let signed: Value = serde_json::from_slice(&contents[3]).unwrap();
    let mut unsigned = signed.clone();
    unsigned["signatures"] = json!([]);
    fs::write(&commit, unsigned.to_string()).unwrap();
    reason("CommitSignature", "SignatureMissing").await;
    fs::write(&commit, forged(&ada)).unwrap();
    reason("CommitSignature", "SignatureInvalid").await;

    // All of it was put right: it is the damage that failed.
    let restored = drill.restored(run).await;
    assert_eq!(verdict(&restored, "VerifyBackup"), pair("Passed", "AsAsked"), "{restored:?}");
}

/// The commit of `backup`, signed by somebody else.
fn forged(backup: &Backup) -> Vec<u8> {
    let stranger = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
    commit_of(backup).seal(&stranger).unwrap()
}

fn commit_of(backup: &Backup) -> Commit {
    let manifest = &backup.manifest;
    serde_json::from_value(json!({
        "format": 1,
        "archive": manifest.archive,
        "slot": manifest.slot,
        "attempt": manifest.attempt,
        "manifest": backup.named,
        "verified": { "mode": "Metadata", "seed": null, "segmentsRead": 0, "segments": manifest.segments(),
            "at": "2026-11-22T01:10:00Z" },
        "store": { "name": "helsinki", "region": "fi-hel2", "country": "FI" },
        "retainUntil": null,
        "committed": "2026-11-22T01:10:01Z",
    }))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_too_few_recipients_and_a_missing_key_are_told_apart() {
    let tenant = tenant(Keeps::Latest).await;
    backed_up(&tenant, SLOT, SENTINEL).await;
    let drill = Drill::of(&tenant.store, &tenant.keys);

    let mut three = drill.restore.clone();
    three["recipients"] = json!(3);
    let (name, reason, message) = drill.refused(&three).await;
    assert_eq!((name.as_str(), reason.as_str()), ("Recipients", "TooFewRecipients"), "{message}");

    let identity = drill.pod.root().join("etc/valv/drill/identity");
    fs::write(&identity, Keys::new().tenant_file).unwrap();
    let (name, reason, message) = drill.refused(&drill.restore).await;
    assert_eq!((name.as_str(), reason.as_str()), ("Decryption", "WrongKey"), "{message}");

    fs::remove_file(&identity).unwrap();
    let ended = drill.restored(&drill.restore).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.message["failure"]["reason"], "KeyMissing", "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_could_not_be_made_again_fails_the_drill_and_a_changed_one_is_told() {
    let tenant = tenant(Keeps::Latest).await;
    let before = "20261121T010000Z";
    // Of this one the commit is forged: it cannot be compared with.
    let forged_one = backed_up(&tenant, before, &"ab".repeat(16)).await;
    let commit = Commit::key(&forged_one.manifest.archive, forged_one.manifest.slot).to_string();
    fs::write(tenant.store.file(&commit), forged(&forged_one)).unwrap();
    backed_up(&tenant, SLOT, SENTINEL).await;
    let live = json!({ "spec": "0", "secrets": { "letters": { "key": "0".repeat(64) } }, "configMaps": {} });
    let mut drill = Drill::of(&tenant.store, &tenant.keys);
    drill.restore["previous"] = json!(before);
    fs::write(drill.pod.root().join("etc/valv/drill/live.json"), live.to_string()).unwrap();
    let args = [
        "--store-credentials=/etc/valv/drill/store",
        "--identity=/etc/valv/drill/identity",
        "--live=/etc/valv/drill/live.json",
    ];

    let restored = drill.run("restore", &drill.restore, &args).await;

    assert_eq!(verdict(&restored, "Tenant"), pair("Warned", "TenantDiffers"), "{restored:?}");
    assert_eq!(verdict(&restored, "Manifest"), pair("Passed", "AsAsked"), "{restored:?}");
    let judged = drill.judged(&drill.judge).await;
    assert_eq!(verdict(&judged, "RowCounts"), pair("Warned", "PreviousUnreadable"), "{judged:?}");

    // One whose commit is there and whose manifest is not: somebody took it away, and retention did not.
    let next = "20261122T020000Z";
    let earlier =
        tenant.store.keys().into_iter().find(|key| key.contains(SLOT) && key.ends_with("manifest.json"));
    fs::remove_file(tenant.store.file(&earlier.unwrap())).unwrap();
    backed_up(&tenant, next, &"ef".repeat(16)).await;
    let mut robbed = Drill::of(&tenant.store, &tenant.keys);
    (robbed.restore["slot"], robbed.restore["previous"]) = (json!(next), json!(SLOT));
    robbed.restored(&robbed.restore).await;
    let left = fs::read(robbed.pod.volume().join("drill/previous-unreadable.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&left).unwrap()["reason"], "ManifestMissing");

    // A Secret that was backed up with nothing in it.
    let secret = tenant.pod.root().join("valv/tenant/..2026/secrets/letters/key");
    fs::write(secret, "").unwrap();
    backed_up(&tenant, "20261123T010000Z", &"cd".repeat(16)).await;
    let mut again = Drill::of(&tenant.store, &tenant.keys);
    again.restore["slot"] = json!("20261123T010000Z");
    let (name, reason, message) = again.refused(&again.restore).await;
    assert_eq!((name.as_str(), reason.as_str()), ("Tenant", "TenantIncomplete"), "{message}");
    assert!(message.contains("Secret letters"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_over_a_backup_is_read_through_and_told() {
    let tenant = tenant(Keeps::LockedVersions).await;
    // A standby that never answers: neither the sentinel waits for it, nor what is restored.
    let superuser = tenant.superuser().await;
    superuser.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    superuser.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let backup = backed_up(&tenant, SLOT, SENTINEL).await;
    let bucket: Bucket = tenant.store.bucket();
    let younger = segment(&backup.manifest, Part::Tenant, 0);
    bucket.put(&younger, Bytes::from_static(b"a younger one"), &Put::default()).await.unwrap();
    let hidden = segment(&backup.manifest, Part::Database, 0);
    bucket.delete(&hidden, None).await.unwrap();
    let commit = Commit::key(&backup.manifest.archive, backup.manifest.slot).to_string();
    bucket.put(&commit, Bytes::from(forged(&backup)), &Put::default()).await.unwrap();
    bucket.put(&backup.named.key, Bytes::from_static(b"{}"), &Put::default()).await.unwrap();
    let drill = Drill::of(&tenant.store, &tenant.keys);

    let restored = drill.restored(&drill.restore).await;

    for check in ["CommitSignature", "Manifest", "Segments"] {
        assert_eq!(verdict(&restored, check), pair("Warned", "Tampered"), "{restored:?}");
    }
    for check in ["Recipients", "Decryption", "VerifyBackup"] {
        assert_eq!(verdict(&restored, check), pair("Passed", "AsAsked"), "{restored:?}");
    }
    let judged = drill.judged(&drill.judge).await;
    assert_eq!(verdict(&judged, "Sentinel"), pair("Passed", "AsAsked"), "{judged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_that_is_not_what_it_should_be_fails_the_drill_with_its_own_reason() {
    let tenant = tenant(Keeps::Latest).await;
    let before = "20261121T010000Z";
    backed_up(&tenant, before, &"ab".repeat(16)).await;
    let owner = tenant.connected(Role::JournalOwner).await;
    owner
        .batch_execute(
            "DELETE FROM note; \
             CREATE SCHEMA evil; \
             CREATE FUNCTION public.lower(text) RETURNS text LANGUAGE sql AS $$SELECT 'shadow'::text$$; \
             CREATE FUNCTION public.who() RETURNS text LANGUAGE sql AS $$SELECT current_user::text$$",
        )
        .await
        .unwrap();
    backed_up(&tenant, SLOT, SENTINEL).await;
    let mut drill = Drill::of(&tenant.store, &tenant.keys);
    drill.restore["previous"] = json!(before);
    let restored = drill.restored(&drill.restore).await;
    assert_eq!(verdict(&restored, "VerifyBackup"), pair("Passed", "AsAsked"), "{restored:?}");

    let check = |name: &str, sql: &str| json!({ "name": name, "sql": sql, "timeoutSeconds": 2 });
    drill.judge["checks"] = json!([
        check("true", "SELECT true"),
        check("false", "SELECT count(*) > 0 FROM note"),
        check("null", "SELECT NULL::boolean"),
        check("number", "SELECT 1"),
        check("many", "SELECT true FROM generate_series(1, 3)"),
        check("none", "SELECT true WHERE false"),
        check("two", "SELECT true; SELECT true"),
        check("writes", "WITH gone AS (DELETE FROM attachment RETURNING 1) SELECT count(*) > 0 FROM gone"),
        check("sleeps", "SELECT pg_sleep(60) IS NOT NULL"),
        check("rises", "SELECT set_config('role', 'postgres', true) = 'postgres'"),
        check("reads-a-file", "SELECT pg_read_file('PG_VERSION') IS NOT NULL"),
        check("not-shadowed", "SELECT lower('A') = 'a'"),
        check(
            "not-super",
            "SELECT who() = 'valv_drill' AND NOT rolsuper FROM pg_roles WHERE rolname = current_user"
        ),
    ]);
    let judged = drill.judged(&drill.judge).await;

    assert_eq!(judged.code, Some(0), "{judged:?}");
    println!("{}", judged.message);
    assert_eq!(verdict(&judged, "RowCounts"), pair("Failed", "RowCountsFell"));
    for passed in [
        "DatabaseStarts",
        "Sentinel",
        "Amcheck",
        "Attachments",
        "Sql/true",
        "Sql/not-shadowed",
        "Sql/not-super",
    ] {
        assert_eq!(verdict(&judged, passed), pair("Passed", "AsAsked"), "{passed}: {judged:?}");
    }
    for (names, reason) in [
        (&["false", "null", "number", "many", "none"][..], "SqlFalse"),
        (&["two", "writes", "sleeps", "rises", "reads-a-file"], "SqlFailed"),
    ] {
        for name in names {
            assert_eq!(
                verdict(&judged, &format!("Sql/{name}")),
                pair("Failed", reason),
                "{name}: {judged:?}"
            );
        }
    }

    // The tenant's own question for attachments may not keep a drill up for ever.
    let asked = drill.judge["inventorySQL"].clone();
    drill.judge["inventorySQL"] = json!("SELECT 'a'::text, 'b'::text FROM pg_sleep(60)");
    drill.judge["inventoryTimeoutSeconds"] = json!(1);
    drill.judge["checks"] = json!([]);
    let judged = drill.judged(&drill.judge).await;
    assert_eq!(verdict(&judged, "Attachments"), pair("Failed", "SqlFailed"), "{judged:?}");
    // One that names nothing proves nothing.
    drill.judge["inventorySQL"] = json!("SELECT path, sha256 FROM attachment WHERE false");
    let judged = drill.judged(&drill.judge).await;
    assert_eq!(verdict(&judged, "Attachments"), pair("Warned", "AttachmentsUnnamed"), "{judged:?}");
    drill.judge["inventorySQL"] = asked;

    // The earlier backup was there, and cannot be read: that is neither none nor a pass without a word.
    let left = drill.pod.volume().join("drill");
    fs::rename(left.join("previous-manifest.json"), left.join("previous.away")).unwrap();
    let judged = drill.judged(&drill.judge).await;
    assert_eq!(verdict(&judged, "RowCounts"), pair("Passed", "AsAsked"), "{judged:?}");
    let unreadable = json!({ "reason": "SignatureInvalid", "why": "somebody else signed it" });
    fs::write(left.join("previous-unreadable.json"), unreadable.to_string()).unwrap();
    let judged = drill.judged(&drill.judge).await;
    assert_eq!(verdict(&judged, "RowCounts"), pair("Warned", "PreviousUnreadable"), "{judged:?}");

    // An old backup that is offered as a new one: all is as it was, but for the sentinel.
    let manifest = drill.pod.volume().join("drill/manifest.json");
    let mut other: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    other["sentinel"] = json!("cd".repeat(16));
    other["rowCounts"]["start"]["public.attachment"] = json!(3);
    other["rowCounts"]["end"]["public.attachment"] = json!(4);
    fs::write(&manifest, other.to_string()).unwrap();
    fs::write(drill.pod.root().join("valv/attachments/ab/röntgen.txt"), "A picture").unwrap();
    drill.judge["checks"] = json!([]);
    let judged = drill.judged(&drill.judge).await;
    assert_eq!(verdict(&judged, "Sentinel"), pair("Failed", "SentinelDiffers"), "{judged:?}");
    assert_eq!(verdict(&judged, "RowCounts"), pair("Failed", "RowCountsDiffer"), "{judged:?}");
    assert_eq!(verdict(&judged, "Attachments"), pair("Failed", "AttachmentDiffers"), "{judged:?}");

    fs::remove_file(drill.pod.root().join("valv/attachments/ab/röntgen.txt")).unwrap();
    let judged = drill.judged(&drill.judge).await;
    assert_eq!(verdict(&judged, "Attachments"), pair("Failed", "AttachmentMissing"), "{judged:?}");

    // A page of the table of attachments, damaged as a disk does it.
    damage_a_table(&drill.pod);
    let judged = drill.judged(&drill.judge).await;
    assert_eq!(verdict(&judged, "Amcheck"), pair("Failed", "Corrupt"), "{judged:?}");

    fs::remove_file(drill.pod.volume().join("pgdata/global/pg_control")).unwrap();
    let judged = drill.judged(&drill.judge).await;
    assert_eq!(judged.code, Some(0), "{judged:?}");
    assert_eq!(verdict(&judged, "DatabaseStarts"), pair("Failed", "DatabaseFailed"), "{judged:?}");
    assert_eq!(verdict(&judged, "Sentinel"), pair("NotReached", "NotReached"), "{judged:?}");
}

/// Changes a byte in the largest table of the journal's.
fn damage_a_table(pod: &Pod) {
    let base = pod.volume().join("pgdata/base");
    let files = fs::read_dir(base).unwrap().flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let largest = files.max_by_key(|file| file.as_ref().unwrap().metadata().unwrap().len()).unwrap().unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(largest.path()).unwrap();
    file.write_all_at(&[0xff; 64], 4096).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_backup_is_restored_within_the_memory_that_is_promised() {
    let (store, keys) = (Store::start(Keeps::LockedVersions), Keys::new());
    let bucket = store.bucket();
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("base")).unwrap();
    fs::write(tree.path().join("base/1"), mixed(384 << 20, 3)).unwrap();
    let tar =
        std::process::Command::new("tar").arg("-C").arg(tree.path()).args(["-c", "."]).output().unwrap();
    let mut backup = back_up(&bucket, "ada", &tar.stdout, &keys).await;
    drop(tar);
    // The same stream as the tenant's, so that there is one.
    let mut writer = valv::archive::Writer::new(
        bucket.clone(),
        backup.manifest.folder(),
        keys.recipients.clone(),
        super::backup::hurried(),
    );
    backup.manifest.parts.push(writer.part(Part::Tenant, &valv::agent::backup::tar::END[..]).await.unwrap());
    backup.named = writer.manifest(&backup.manifest).await.unwrap();
    committed(&bucket, &backup, &keys).await;
    let drill = Drill::of(&store, &keys);
    let root = drill.pod.root();
    fs::write(root.join("etc/valv/drill/run.json"), drill.restore.to_string()).unwrap();

    let started = drill.pod.start(&[
        "restore",
        "--run=/etc/valv/drill/run.json",
        "--store-credentials=/etc/valv/drill/store",
        "--identity=/etc/valv/drill/identity",
        "--termination-log=/valv/run/termination-log",
    ]);
    let status = format!("/proc/{}/status", started.agent());
    let watching = tokio::spawn(async move {
        let mut peak = 0;
        while let Ok(text) = fs::read_to_string(&status) {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let Some(kibibytes) = line else { break };
            peak = kibibytes.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        peak
    });
    let ended = tokio::task::spawn_blocking(|| started.finish()).await.unwrap();
    let peak = watching.await.unwrap();

    println!("the restore took {peak} KiB at most: {}", ended.message);
    let restored = fs::metadata(drill.pod.volume().join("pgdata.new/base/1")).unwrap();
    assert_eq!(restored.len(), 384 << 20, "{ended:?}");
    assert_eq!(verdict(&ended, "Tenant"), pair("Failed", "TenantIncomplete"), "it has no tenant: {ended:?}");
    assert!(peak > 16 * 1024 && peak <= LIMIT_KIBIBYTES, "{peak} KiB");
}
