//! What a drill reads from a store before it restores, and the record that it leaves there.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use valv::{
    agent::drill_file::Because,
    archive::{
        commit::{Commit, ManifestRef, Store as CommitStore, Verified},
        digest::Blake3,
        envelope::SigningKey,
        layout::{DataObject, Folder},
        manifest::FORMAT,
        verify::Mode,
    },
    drill::{
        catalogue::{Chosen, Looked, Question, look},
        check,
        choose::Known,
        record::{self, Record},
    },
    io::bucket::{Bucket, Put},
    store::check::Identity,
};
use valv_crds::{
    RestoreDrill, RestoreDrillStatus, Slot,
    drill::{Choice, DrillReason},
};

use crate::{
    probe::{claimed, identities, now},
    store::{Keeps, Store},
};

fn slot(day: u32) -> Slot {
    format!("202611{day}T010000Z").parse().unwrap()
}

fn key() -> SigningKey {
    SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap()
}

/// Puts a commit of a backup whose data are not there.
async fn commit(bucket: &Bucket, day: u32, signing: &SigningKey) -> String {
    let folder = Folder {
        archive: "ada".parse().unwrap(),
        slot: slot(day),
        attempt: "00000000-0000-7000-8000-000000000001".parse().unwrap(),
    };
    let commit = Commit {
        format: FORMAT,
        archive: folder.archive.clone(),
        slot: folder.slot,
        attempt: folder.attempt.clone(),
        manifest: ManifestRef {
            key: folder.key(DataObject::Manifest).to_string(),
            version: None,
            size: 2,
            blake3: Blake3::of(b"{}"),
        },
        verified: Verified {
            mode: Mode::Metadata,
            seed: None,
            segments_read: 0,
            segments: 0,
            at: slot(day).time(),
        },
        store: CommitStore { name: "helsinki".into(), region: "fi-hel2".into(), country: "FI".into() },
        retain_until: None,
        committed: slot(day).time(),
    };
    let key = Commit::key(&commit.archive, commit.slot).to_string();
    bucket.put(&key, Bytes::from(commit.seal(signing).unwrap()), &Put::default()).await.unwrap();
    key
}

async fn looked(store: &Store, choice: Choice, known: &[Known], signing: &SigningKey) -> Looked {
    looked_with(store, choice, known, &BTreeSet::new(), signing).await
}

async fn looked_with(
    store: &Store,
    choice: Choice,
    known: &[Known],
    good: &BTreeSet<Slot>,
    signing: &SigningKey,
) -> Looked {
    let archive = "ada".parse().unwrap();
    let trusted = [signing.public()];
    let question = Question {
        archive: &archive,
        store: "helsinki",
        trusted: &trusted,
        choice,
        drill: slot(23),
        good,
        known,
        floor_days: 35,
    };
    look(&store.settings(), &question, slot(23).time()).await
}

fn chosen(looked: Looked) -> Chosen {
    let Looked::Chosen(chosen) = looked else { panic!("{looked:?}") };
    *chosen
}

#[tokio::test]
async fn a_drill_takes_the_newest_commit_also_one_that_a_delete_marker_hides() {
    for keeps in [Keeps::LockedVersions, Keeps::Latest] {
        let store = Store::start(keeps);
        let (bucket, own, other) = (store.bucket(), key(), key());
        commit(&bucket, 20, &other).await;
        commit(&bucket, 21, &own).await;
        let newest = commit(&bucket, 22, &own).await;
        if keeps == Keeps::LockedVersions {
            bucket.delete(&newest, None).await.unwrap();
        }

        let found = chosen(looked(&store, Choice::Newest, &[], &own).await);

        let earlier = found.earlier.unwrap();
        assert_eq!((found.backup.slot, earlier.slot), (slot(22), slot(21)));
        // The oldest is forged: that it was passed over is not kept quiet.
        assert_eq!((earlier.because, earlier.unbelieved), (Because::OldestKept, vec![slot(20)]));
        assert!(found.backup.manifest.unwrap().key.ends_with("/manifest.json"));
        // Where there is no other, it is named all the same: the drill says why it cannot be compared with.
        let alone = chosen(looked(&store, Choice::Of(slot(21)), &[], &own).await).earlier.unwrap();
        assert_eq!(alone.slot, slot(20));
        let forged = chosen(looked(&store, Choice::Of(slot(20)), &[], &own).await);
        assert_eq!((forged.backup.slot, forged.backup.manifest), (slot(20), None));
    }
}

#[tokio::test]
async fn a_backup_is_compared_with_the_last_that_a_drill_found_good_as_the_cluster_or_a_signed_record_says() {
    let server = Store::start(Keeps::Latest);
    let (bucket, own) = (server.bucket(), key());
    for day in [18, 19, 20, 21, 22] {
        commit(&bucket, day, &own).await;
    }
    let earlier = async |good: &[u32]| {
        let good = good.iter().map(|day| slot(*day)).collect();
        let looked = looked_with(&server, Choice::Newest, &[], &good, &own).await;
        let earlier = chosen(looked).earlier.unwrap();
        (earlier.slot, earlier.because)
    };

    assert_eq!(earlier(&[19, 20]).await, (slot(20), Because::FoundGood));
    // The cluster remembers nothing, or only what is gone: never yesterday's, which may be empty already.
    assert_eq!(earlier(&[]).await, (slot(18), Because::OldestKept));
    assert_eq!(earlier(&[11]).await, (slot(18), Because::OldestKept));

    let record = |drill: &str, backup: u32, outcome: &str| -> Record {
        serde_json::from_value(json!({
            "format": 1, "archive": "ada", "tenant": "ada",
            "drill": { "name": "d", "uid": "u", "slot": drill, "origin": "Manual" },
            "store": { "name": "helsinki", "region": "fi-hel2", "country": "FI" },
            "backup": { "slot": slot(backup), "manifest": null },
            "asked": "2026-11-22T00:00:00Z", "started": null, "ended": "2026-11-22T00:00:00Z",
            "passed": true, "reason": "AsAsked", "message": "",
            "verdicts": [{ "name": "RowCounts", "outcome": outcome, "reason": "AsAsked" }],
            "measured": { "rtoSeconds": null, "rpoSeconds": null, "bytes": null, "phases": [] },
            "objectives": null, "tool": { "name": "valv", "version": "1" },
        }))
        .unwrap()
    };
    let put = async |record: &Record, signing: &SigningKey| {
        let bytes = Bytes::from(record.seal(signing).unwrap());
        bucket.put(&record.key().unwrap().to_string(), bytes, &Put::default()).await.unwrap();
    };
    put(&record("20261119T050000Z", 19, "Passed"), &own).await;
    // One that could not compare, and one that somebody else signed.
    put(&record("20261120T050000Z", 20, "Warned"), &own).await;
    put(&record("20261121T050000Z", 21, "Passed"), &key()).await;

    assert_eq!(earlier(&[]).await, (slot(19), Because::FoundGood));
}

#[tokio::test]
async fn a_commit_that_is_gone_from_the_store_is_missed() {
    let store = Store::start(Keeps::Latest);
    let (bucket, own) = (store.bucket(), key());
    commit(&bucket, 21, &own).await;
    let newest = commit(&bucket, 22, &own).await;
    bucket.delete(&newest, None).await.unwrap();
    let known = [21, 22].map(|day| Known { slot: slot(day), committed: slot(day).time() });

    let Looked::Refused(refusal) = looked(&store, Choice::Newest, &known, &own).await else {
        panic!("it was not missed")
    };

    assert_eq!(refusal.reason, DrillReason::CatalogueRolledBack);
    assert!(refusal.message.contains("20261122T010000Z"), "{}", refusal.message);
}

#[tokio::test]
async fn a_record_lies_in_the_store_as_it_was_signed_and_is_not_written_over_anothers() {
    let server = Store::start(Keeps::LockedVersions);
    let may = identities(&server, Keeps::LockedVersions, &[Identity::Committer]);
    let mut store = claimed(&server, json!({}));
    let mut object = store.object.as_ref().clone();
    object.status = serde_json::from_value(json!({
        "capabilities": { "conditionalPut": { "answer": "Yes", "at": "2026-11-22T00:00:00Z" } },
        "conditions": [],
    }))
    .unwrap();
    store.object = Arc::new(object);
    let drill: RestoreDrill = serde_json::from_value(json!({
        "apiVersion": "valv.eu/v1alpha1", "kind": "RestoreDrill",
        "metadata": { "name": "by-hand", "namespace": "journal-ada", "uid": "u-1",
            "creationTimestamp": "2026-11-22T09:30:05Z" },
        "spec": {},
    }))
    .unwrap();
    let run = check::check(Arc::new(drill));
    let subject = run.subject.clone().unwrap();
    let status = RestoreDrillStatus::default();
    let document = record::record(&run, &subject, &status, &"ada".parse().unwrap(), &store, None);
    let (own, other) = (key(), key());
    let at: Timestamp = now();

    let first = record::write(&document, &store, &may, &own, at).await.unwrap();
    let again = record::write(&document, &store, &may, &own, at).await.unwrap();

    assert_eq!(first.object, again.object);
    assert_eq!(first.object.key, "v1/ada/records/drill-20261122T093005Z-u1.json");
    // Of a lock this server tells a HEAD, and not a GET.
    let head = server.bucket().head(&first.object.key, None).await.unwrap();
    assert!(head.retained_until.is_some(), "it is not locked");
    let found = server.bucket().get(&first.object.key, None).await.unwrap();
    let found = found.whole(1 << 20).await.unwrap();
    assert_eq!(Record::open(&found, &[own.public()]).unwrap(), document);
    let keys: BTreeSet<String> = server.keys().into_iter().collect();
    assert_eq!(keys, BTreeSet::from([first.object.key]));
    // What another signed lies there now, as far as this operator can tell.
    assert!(matches!(
        record::write(&document, &store, &may, &other, at).await,
        Err(record::Error::Differs { .. })
    ));
}
