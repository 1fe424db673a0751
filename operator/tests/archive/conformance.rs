//! `valv conformance` against a real store: one that is as claimed, and some that are not.

use std::{
    collections::BTreeMap,
    fs,
    future::pending,
    os::unix::fs::{PermissionsExt, chown},
};

use bytes::Bytes;
use serde_json::{Value, json};
use valv::{
    conformance::{
        file, run,
        table::{Line, Report},
    },
    io::bucket::{AnsweredVersions, Bucket, Put, Settings},
    store::check::Identity,
};
use valv_crds::store::Answer;

use crate::{
    pod::Pod,
    pod_backup::USER,
    probe::{claimed, identities, now},
    store::{BUCKET, Keeps, PREFIX, REGION, SECRET_KEY, Store},
};

async fn tried(server: &Store, keeps: Keeps, powerful: &[Identity], claims: &[(&str, Answer)]) -> Report {
    let lock = match keeps {
        Keeps::LockedVersions => json!({ "mode": "Compliance", "days": 1 }),
        Keeps::Latest => json!(null),
    };
    tried_with(server, keeps, lock, powerful, claims).await
}

async fn tried_with(
    server: &Store,
    keeps: Keeps,
    lock: Value,
    powerful: &[Identity],
    claims: &[(&str, Answer)],
) -> Report {
    let bucket = file::Bucket {
        store: claimed(server, json!({ "objectLock": lock })),
        credentials: identities(server, keeps, powerful),
        claims: claims.iter().map(|(name, answer)| ((*name).to_owned(), *answer)).collect::<BTreeMap<_, _>>(),
    };
    run(&bucket, None, pending(), now).await.unwrap()
}

fn failures(report: &Report) -> Vec<&str> {
    report.failures().map(|line| line.what.as_str()).collect()
}

fn line<'a>(report: &'a Report, what: &str) -> &'a Line {
    report.lines.iter().find(|line| line.what.contains(what)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_locks_and_versions_is_as_claimed() {
    let server = Store::start(Keeps::LockedVersions);
    let claims =
        [("versioning", Answer::Yes), ("conditionalPut", Answer::Yes), ("writerCanDelete", Answer::No)];

    let report = tried(&server, Keeps::LockedVersions, &[], &claims).await;

    assert_eq!(failures(&report), [""; 0], "{}", report.to_text());
    assert!(line(&report, "an altered segment is found").seen.contains("database/00000001.age"));
    assert!(line(&report, "a second commit over it is refused").wanted.is_some());
    assert!(line(&report, "a younger version over a segment").seen.contains("1 covered"));
    assert!(line(&report, "what is locked cannot be deleted").seen.contains("is locked until"));
    assert_eq!(report.exit_code(), 3, "no database was tried: {}", report.to_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_store_with_versions_and_no_lock_nothing_is_left_no_version_and_no_marker() {
    let server = Store::start(Keeps::LockedVersions);

    let report = tried_with(&server, Keeps::LockedVersions, json!(null), &[], &[]).await;

    assert_eq!(failures(&report), [""; 0], "{}", report.to_text());
    assert!(line(&report, "a younger version over a segment").seen.contains("1 covered"));
    let mut left = vec![];
    let bucket = server.bucket();
    let mut pages = bucket.list_versions("v1/");
    while let Some(page) = pages.page().await.unwrap() {
        left.extend(page.into_iter().map(|version| version.key));
    }
    // What the probe leaves is its own: it says so in the status.
    left.retain(|key| !key.starts_with("v1/.probe/"));
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_a_product_without_versions_names_is_not_asked_for() {
    let server = Store::start(Keeps::LockedVersions);
    let settings = Settings { answered_versions: AnsweredVersions::Ignored, ..server.settings() };
    let bucket = Bucket::open(&settings).unwrap();
    let content = Bytes::from_static(b"content");

    let version = bucket.put("one", content.clone(), &Put::default()).await.unwrap();

    assert_eq!(version, None);
    assert_eq!(bucket.get("one", None).await.unwrap().meta.version, None);
    assert_eq!(bucket.head("one", None).await.unwrap().version, None);
    assert!(server.bucket().put("one", content, &Put::default()).await.unwrap().is_some());
}

/// `valv conformance` in a pod, with PostgreSQL's programs where that pod has them or has not.
async fn in_a_pod(server: &Store, keeps: Keeps, programs: &str) -> (Option<i32>, String) {
    identities(server, keeps, &[]);
    let keys = |who: Identity| json!({ "accessKeyID": who.to_string(), "secretAccessKey": SECRET_KEY });
    let lock = match keeps {
        Keeps::LockedVersions => json!({ "mode": "Compliance", "days": 1 }),
        Keeps::Latest => json!(null),
    };
    let file = json!({
        "store": {
            "provider": "here", "location": { "region": REGION, "country": "FI" }, "profile": "Versitygw",
            "endpoint": server.endpoint(), "bucket": BUCKET, "prefix": PREFIX, "caBundle": server.authority,
            "objectLock": lock,
        },
        "credentials": Identity::ALL.map(|who| (who.to_string(), keys(who))).into_iter().collect::<BTreeMap<_, _>>(),
    });
    let pod = Pod::new();
    let path = pod.root().join("etc/valv/store.yaml");
    fs::write(&path, file.to_string()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(pod.root().join("tmp")).unwrap();
    for path in [path, pod.root().join("tmp")] {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    let programs = format!("--programs={programs}");
    let started = pod.start_program("/valv/valv", &["conformance", "/etc/valv/store.yaml", &programs]);
    let ended = tokio::task::spawn_blocking(|| started.finish()).await.unwrap();
    println!("{}", ended.log);
    assert!(!ended.log.contains(SECRET_KEY), "{}", ended.log);
    let left: Vec<_> =
        fs::read_dir(pod.root().join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "what held keys is left: {left:?}");
    (ended.code, ended.log)
}

/// The words of the one line about `what` in `area`.
fn printed<'a>(log: &'a str, area: &str, what: &str) -> &'a str {
    let found = log.lines().find(|line| line.contains(&format!("  {area} ")) && line.contains(what));
    found.unwrap_or_else(|| panic!("no line of {area} about {what}: {log}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_backed_up_drilled_and_a_drill_of_an_altered_one_fails() {
    for keeps in [Keeps::LockedVersions, Keeps::Latest] {
        let server = Store::start(keeps);

        let (code, log) = in_a_pod(&server, keeps, "/usr/lib/postgresql/17/bin").await;

        assert_eq!(code, Some(0), "{log}");
        let holds = |area: &str, what: &str| {
            let line = printed(&log, area, what);
            assert!(line.starts_with("ok "), "{line}");
            line
        };
        holds("backup", "the agent backs it up as the writer");
        holds("backup", "the agent reads every segment back");
        assert!(holds("backup", "the operator commits it").contains("signed with"));
        for check in [
            "CommitSignature",
            "Manifest",
            "Segments",
            "Recipients",
            "Decryption",
            "Tenant",
            "VerifyBackup",
            "DatabaseStarts",
            "Sentinel",
            "RowCounts",
            "Amcheck",
            "Attachments",
            "Sql/notes",
            "Sql/texts",
        ] {
            holds("drill", check);
        }
        let line = holds("drill", "with one bit of one segment altered it fails");
        assert!(line.contains("SegmentDiffers: of ") && line.contains("database/0000000"), "{line}");
        assert!(printed(&log, "drill", "the journal's image starts").contains("it needs a cluster"));
        if keeps == Keeps::Latest {
            assert_eq!(server.keys(), Vec::<String>::new());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_versions_is_as_claimed_if_none_are_and_nothing_is_left() {
    let server = Store::start(Keeps::Latest);

    let report = tried(&server, Keeps::Latest, &[], &[("versioning", Answer::No)]).await;

    assert_eq!(failures(&report), [""; 0], "{}", report.to_text());
    assert!(line(&report, "an altered segment is found").seen.contains("database/00000001.age"));
    assert_eq!(server.keys(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_not_so_fails_by_its_name() {
    let server = Store::start(Keeps::Latest);

    let report = tried(&server, Keeps::Latest, &[], &[("versioning", Answer::Yes)]).await;

    assert_eq!(failures(&report), ["versioning"], "{}", report.to_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_can_do_more_than_it_should_fails() {
    let server = Store::start(Keeps::LockedVersions);

    let report = tried(&server, Keeps::LockedVersions, &[Identity::Writer], &[]).await;

    assert_eq!(failures(&report), ["CapabilitiesProven"], "{}", report.to_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_to_try_with_the_lines_and_the_exit_code_say_so() {
    let server = Store::start(Keeps::Latest);

    let (code, log) = in_a_pod(&server, Keeps::Latest, "/nowhere").await;

    assert_eq!(code, Some(3), "{log}");
    for area in ["backup", "drill"] {
        let line = printed(&log, area, "");
        assert!(line.starts_with("NOT TRIED ") && line.contains("/nowhere"), "{line}");
    }
    assert_eq!(server.keys(), Vec::<String>::new());
}
