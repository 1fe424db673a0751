//! `valv conformance` against a real store: one that is as claimed, and some that are not.

use std::collections::BTreeMap;

use serde_json::json;
use valv::{
    conformance::{
        file::Bucket,
        run,
        table::{Line, Report},
    },
    store::check::Identity,
};
use valv_crds::store::Answer;

use crate::{
    probe::{claimed, identities, now},
    store::{Keeps, Store},
};

async fn tried(server: &Store, keeps: Keeps, powerful: &[Identity], claims: &[(&str, Answer)]) -> Report {
    let lock = match keeps {
        Keeps::LockedVersions => json!({ "mode": "Compliance", "days": 1 }),
        Keeps::Latest => json!(null),
    };
    let bucket = Bucket {
        store: claimed(server, json!({ "objectLock": lock })),
        credentials: identities(server, keeps, powerful),
        claims: claims.iter().map(|(name, answer)| ((*name).to_owned(), *answer)).collect::<BTreeMap<_, _>>(),
    };
    run(&bucket, now).await.unwrap()
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
