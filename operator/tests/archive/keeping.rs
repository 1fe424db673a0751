//! Catalogue, copies, longer locks and deletion, against a real S3 server.

use std::fs;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use valv::{
    archive::{
        Writer,
        commit::{Commit, ManifestRef},
        copy::{self, Copied, Copier, Outline},
        digest::Blake3,
        envelope::PublicKey,
        erase::{self, Eraser, Stillness},
        layout::{DataObject, Folder, Key, Part, SegmentName},
        lock,
        manifest::Manifest,
        register::Register,
        terms::Terms,
        verify::{Depth, verify},
    },
    io::bucket::{Bucket, LockMode, Put},
};
use valv_crds::Slot;

use super::{
    backup::{self, Backup, Keys, archive, committed, hurried, manifest, restored},
    data::mixed,
    store::{Keeps, Store},
};

const MEBIBYTE: usize = 1024 * 1024;

/// A committed backup of `name` for `slot`, locked until `until`.
async fn kept(
    bucket: &Bucket,
    name: &str,
    slot: &str,
    data: &[u8],
    keys: &Keys,
    until: Option<Timestamp>,
) -> Backup {
    let attempt = format!("00000000-0000-7000-9000-{}", &Blake3::of(slot.as_bytes()).to_string()[..12]);
    let folder = Folder {
        archive: name.parse().unwrap(),
        slot: slot.parse().unwrap(),
        attempt: attempt.parse().unwrap(),
    };
    let options = valv::archive::write::Options { retain_until: until, ..hurried() };
    let mut writer = Writer::new(bucket.clone(), folder.clone(), keys.recipients.clone(), options);
    let part = writer.part(Part::Database, data).await.unwrap();
    let manifest = manifest(folder, keys.recipients.to_texts(), part);
    let named = writer.manifest(&manifest).await.unwrap();
    let backup = Backup { manifest, named };
    commit(bucket, &backup, keys, until).await;
    backup
}

/// Commits `backup`, and locks the commit.
async fn commit(bucket: &Bucket, backup: &Backup, keys: &Keys, until: Option<Timestamp>) -> Commit {
    let commit = committed(bucket, backup, keys).await;
    if let Some(until) = until {
        let key = Commit::key(&commit.archive, commit.slot).to_string();
        let version = bucket.head(&key, None).await.unwrap().version;
        bucket.retain(&key, version.as_ref(), until).await.unwrap();
    }
    commit
}

fn segment_key(manifest: &Manifest, number: u32) -> String {
    let name = SegmentName::new(Part::Database, number).unwrap();
    manifest.folder().key(DataObject::Segment(name)).to_string()
}

/// In so long, in whole seconds: stores keep no fractions.
#[expect(clippy::disallowed_methods, reason = "the server has a clock of its own, which is this one")]
fn from_now(seconds: i64) -> Timestamp {
    let then = Timestamp::now() + SignedDuration::from_secs(seconds);
    Timestamp::from_second(then.as_second()).unwrap()
}

async fn copied(from: &Bucket, to: &Bucket, named: &ManifestRef, until: Option<Timestamp>) -> Copied {
    let options = copy::Options {
        in_flight: 3,
        retain_until: until,
        lock_mode: LockMode::Compliance,
        bytes_per_second: None,
        retry: hurried().retry,
    };
    let copier = Copier::new(archive(from), archive(to), to.clone(), options);
    copier.copy(named, &watch::Sender::default()).await.unwrap()
}

fn outline(manifest: &Manifest) -> Outline {
    Outline::of(manifest.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_has_what_was_signed_whatever_lies_over_it() {
    let (store, keys) = (Store::start(Keeps::LockedVersions), Keys::new());
    let bucket = store.bucket();
    let (ada, slots) = ("ada".parse().unwrap(), ["20261120T010000Z", "20261121T010000Z", "20261122T010000Z"]);
    for slot in slots {
        kept(&bucket, "ada", slot, b"data", &keys, None).await;
    }
    kept(&bucket, "bo", slots[0], b"data", &keys, None).await;
    let stranger = Keys::new();
    kept(&bucket, "ada", "20261119T010000Z", b"forged", &stranger, None).await;
    let key = |slot: &str| format!("v1/ada/commits/{slot}.json");
    bucket.delete(&key(slots[0]), None).await.unwrap();
    bucket.put(&key(slots[1]), Bytes::from_static(b"{}"), &Put::default()).await.unwrap();
    bucket.put("v1/ada/commits/notes.txt", Bytes::from_static(b"x"), &Put::default()).await.unwrap();

    let catalogue = archive(&bucket).catalogue(&ada, &[keys.public()]).await.unwrap();

    let found: Vec<String> = catalogue.entries.keys().map(ToString::to_string).collect();
    assert_eq!(found, slots);
    assert_eq!(catalogue.refused.keys().map(ToString::to_string).collect::<Vec<_>>(), ["20261119T010000Z"]);
    assert_eq!((catalogue.covered.total, catalogue.strangers), (2, 1), "{:?}", catalogue.covered);
    let mut archives = archive(&bucket).archives().await.unwrap();
    archives.sort();
    assert_eq!(archives.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ada", "bo"]);
    assert_eq!(archive(&bucket).data_folders(&ada, |_| true).await.unwrap().folders.len(), 4);
    // What the catalogue says of a commit is what is signed, of the very bytes that lie there.
    let entry = &catalogue.entries[&slots[2].parse().unwrap()];
    assert_eq!(entry.blake3, Blake3::of(&fs::read(store.file(&key(slots[2]))).unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_the_catalogue_has_what_either_signing_key_signed_and_no_third() {
    let (store, old) = (Store::start(Keeps::LockedVersions), Keys::new());
    let (bucket, ada) = (store.bucket(), "ada".parse().unwrap());
    kept(&bucket, "ada", "20261120T010000Z", b"data", &old, None).await;
    let former = old.public();
    let new = Keys { signing: Keys::new().signing, ..old };
    kept(&bucket, "ada", "20261121T010000Z", b"data", &new, None).await;
    let stranger = Keys::new();
    kept(&bucket, "ada", "20261122T010000Z", b"forged", &stranger, None).await;
    let judged = async |trusted: &[PublicKey]| {
        let catalogue = archive(&bucket).catalogue(&ada, trusted).await.unwrap();
        let days = |slots: Vec<&Slot>| slots.iter().map(|slot| slot.to_string()[6..8].to_owned()).collect();
        let of: [Vec<String>; 2] =
            [days(catalogue.entries.keys().collect()), days(catalogue.refused.keys().collect())];
        of
    };

    let both = judged(&[new.public(), former]).await;
    let only_new = judged(&[new.public()]).await;

    assert_eq!(both, [vec!["20", "21"], vec!["22"]]);
    // Taken out of `trusted.pub`, for it was stolen: nothing that it signed counts.
    assert_eq!(only_new, [vec!["21"], vec!["20", "22"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_needs_no_versions() {
    let (store, keys) = (Store::start(Keeps::Latest), Keys::new());
    let bucket = store.bucket();
    kept(&bucket, "ada", "20261122T010000Z", b"data", &keys, None).await;

    let catalogue = archive(&bucket).catalogue(&"ada".parse().unwrap(), &[keys.public()]).await.unwrap();

    assert_eq!(catalogue.entries.len(), 1);
    assert!(catalogue.entries.values().all(|entry| entry.version.is_none() && entry.locked_until.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_the_same_backup_in_another_store() {
    let (helsinki, keys) = (Store::start(Keeps::LockedVersions), Keys::new());
    let data = mixed(50 * MEBIBYTE, 11);
    let original = kept(&helsinki.bucket(), "ada", "20261122T010000Z", &data, &keys, None).await;
    for keeps in [Keeps::Latest, Keeps::LockedVersions] {
        let frankfurt = Store::start(keeps);
        let (from, to) = (helsinki.bucket(), frankfurt.bucket());

        let Copied { named, manifest, sent, locked_until } = copied(&from, &to, &original.named, None).await;

        assert_eq!((sent, locked_until), (original.manifest.segments(), None));
        let copy = Backup { manifest, named };
        let differs = copy::differs(
            (&archive(&from), &outline(&original.manifest)),
            (&archive(&to), &outline(&copy.manifest)),
        )
        .await;
        assert_eq!(differs.unwrap(), None);
        let verdict =
            verify(&archive(&to), &copy.manifest, Depth::Full, &watch::Sender::default()).await.unwrap();
        assert!(verdict.is_whole() && verdict.covered.is_empty(), "{verdict:?}");
        assert_eq!(verdict.segments_read, sent);
        assert!(restored(&to, &copy, &keys.tenant).await.unwrap().0 == data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_interrupted_sends_only_what_is_not_there_as_it_was_committed() {
    let (helsinki, keys) = (Store::start(Keeps::Latest), Keys::new());
    let frankfurt = Store::start(Keeps::LockedVersions);
    let (from, to) = (helsinki.bucket(), frankfurt.bucket());
    let original = kept(&from, "ada", "20261122T010000Z", &mixed(70 * MEBIBYTE, 12), &keys, None).await;
    let until = from_now(3600);
    copied(&from, &to, &original.named, Some(until)).await;
    // One has another content of the same size, one is gone.
    let (altered, gone) = (segment_key(&original.manifest, 0), segment_key(&original.manifest, 1));
    let mut bytes = fs::read(frankfurt.file(&altered)).unwrap();
    bytes[1000] ^= 1;
    fs::write(frankfurt.file(&altered), bytes).unwrap();
    to.delete(&gone, None).await.unwrap();

    let again = copied(&from, &to, &original.named, Some(until)).await;

    assert_eq!((again.sent, again.locked_until), (2, Some(until)));
    let verdict =
        verify(&archive(&to), &again.manifest, Depth::Full, &watch::Sender::default()).await.unwrap();
    assert!(verdict.is_whole(), "{verdict:?}");
    // What lies over the earlier try is this one, which the new index names.
    assert!(verdict.covered.is_empty(), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_try_locked_too_short_is_sent_again_with_the_lock_that_is_asked_for() {
    let (helsinki, keys) = (Store::start(Keeps::Latest), Keys::new());
    let frankfurt = Store::start(Keeps::LockedVersions);
    let (from, to) = (helsinki.bucket(), frankfurt.bucket());
    let original = kept(&from, "ada", "20261122T010000Z", &mixed(20 * MEBIBYTE, 12), &keys, None).await;
    copied(&from, &to, &original.named, Some(from_now(3600))).await;
    let until = from_now(2 * 86_400);

    let again = copied(&from, &to, &original.named, Some(until)).await;

    assert_eq!(again.sent, original.manifest.segments());
    let verdict =
        verify(&archive(&to), &again.manifest, Depth::Full, &watch::Sender::default()).await.unwrap();
    assert_eq!(verdict.lock.until(), Some(until), "as it is seen, and not as it was asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_registers_the_one_with_the_highest_number_counts_and_of_another_store_s_what_was_committed()
 {
    for keeps in [Keeps::Latest, Keeps::LockedVersions] {
        let (store, keys) = (Store::start(keeps), Keys::new());
        let (bucket, ada) = (store.bucket(), "ada".parse().unwrap());
        let key = Register::key(&ada).unwrap().to_string();
        let slot = "20261122T010000Z".parse().unwrap();
        let register =
            |number: u64, store: &str| Register { number, ..Register::empty(&ada, store, from_now(0)) };
        let put = async |register: &Register| {
            let sealed = register.seal(&keys.signing).unwrap().into();
            bucket.put(&key, sealed, &Put::default()).await.unwrap()
        };
        let found =
            async || archive(&bucket).register(&ada, "helsinki", &[keys.public()], None).await.unwrap();
        assert_eq!(found().await, Default::default());

        let newest = register(2, "helsinki");
        let version = put(&newest).await;
        assert_eq!((found().await.register, found().await.version), (Some(newest.clone()), version.clone()));
        put(&register(1, "helsinki")).await;
        let older_over_it = found().await;
        let renamed = Register { committed: [slot].into(), let_go: [slot].into(), ..register(9, "hel") };
        put(&renamed).await;
        let another_s_over_it = found().await;

        if keeps == Keeps::LockedVersions {
            assert_eq!((older_over_it.register, older_over_it.replaced.len()), (Some(newest.clone()), 1));
            assert!(older_over_it.replaced[0].put.is_some(), "the store says when");
            assert_eq!(another_s_over_it.register, Some(newest.clone()));
            // What lay there before the one that counted last is not read again.
            let known = archive(&bucket).register(&ada, "helsinki", &[keys.public()], version.as_ref()).await;
            assert_eq!(known.unwrap().register, Some(newest));
        } else {
            let carried_over = another_s_over_it.register.unwrap();
            assert_eq!((carried_over.store.as_str(), carried_over.number), ("hel", 9));
            assert_eq!(carried_over.committed, renamed.committed, "what was there under its other name");
            assert!(carried_over.let_go.is_empty());
        }
        bucket.put(&key, Bytes::from_static(b"{}"), &Put::default()).await.unwrap();
        assert_eq!(found().await.refused, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_more_attempts_than_anybody_makes_is_left_and_the_others_are_looked_at() {
    let (store, keys) = (Store::start(Keeps::Latest), Keys::new());
    let (bucket, ada) = (store.bucket(), "ada".parse().unwrap());
    let backup = kept(&bucket, "ada", "20261122T010000Z", b"data", &keys, None).await;
    // As files: a thousand requests would take a while.
    let crowd = store.file("v1/ada/data/20261121T010000Z");
    for number in 0..1_001 {
        let folder = crowd.join(format!("00000000-0000-7000-8000-{number:012}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("x"), b"x").unwrap();
    }

    let found = archive(&bucket).data_folders(&ada, |_| true).await.unwrap();

    assert_eq!(found.folders, [backup.manifest.folder()]);
    assert!(found.crowded.unwrap().contains("20261121T010000Z"));
    assert!(archive(&bucket).has_manifest(&backup.manifest.folder()).await.unwrap());
    let other = Folder { slot: "20261120T010000Z".parse().unwrap(), ..backup.manifest.folder() };
    assert!(!archive(&bucket).has_manifest(&other).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_drills_are_found_the_newest_first_whatever_lies_over_them() {
    let (store, keys) = (Store::start(Keeps::LockedVersions), Keys::new());
    let (bucket, ada) = (store.bucket(), "ada".parse().unwrap());
    let key = |day: u32| format!("v1/ada/records/drill-202611{day:02}t050000z.json");
    for day in 1..=5 {
        bucket.put(&key(day), Bytes::from(format!("{day}")), &Put::default()).await.unwrap();
    }
    bucket.put(&key(5), Bytes::from_static(b"over"), &Put::default()).await.unwrap();
    bucket.delete(&key(4), None).await.unwrap();
    drop(keys);

    let reader = archive(&bucket);
    let mut texts: Vec<Vec<String>> = Vec::new();
    for record in reader.newest_records(&ada, "drill-", 3).await.unwrap() {
        let versions = reader.record(&ada, &record, 1024).await.unwrap();
        texts.push(versions.into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect());
    }
    texts[0].sort();
    assert_eq!(texts, [vec!["5", "over"], vec!["4"], vec!["3"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_in_the_source_is_not_copied() {
    let (helsinki, keys) = (Store::start(Keeps::Latest), Keys::new());
    let frankfurt = Store::start(Keeps::Latest);
    let (from, to) = (helsinki.bucket(), frankfurt.bucket());
    let original = kept(&from, "ada", "20261122T010000Z", &mixed(20 * MEBIBYTE, 13), &keys, None).await;
    let file = helsinki.file(&segment_key(&original.manifest, 0));
    let mut bytes = fs::read(&file).unwrap();
    bytes[5000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let options = copy::Options {
        in_flight: 2,
        retain_until: None,
        lock_mode: LockMode::Compliance,
        bytes_per_second: None,
        retry: hurried().retry,
    };

    let copied = Copier::new(archive(&from), archive(&to), to.clone(), options)
        .copy(&original.named, &watch::Sender::default())
        .await;

    assert!(matches!(copied, Err(copy::Error::Source(_))), "{copied:?}");
    assert!(!frankfurt.keys().iter().any(|key| key.ends_with("manifest.json")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_backup_is_locked_as_a_whole_and_cannot_be_deleted_before_that_ends() {
    let (store, keys) = (Store::start(Keeps::LockedVersions), Keys::new());
    let bucket = store.bucket();
    let slot = "20261122T010000Z";
    let backup = kept(&bucket, "ada", slot, &mixed(20 * MEBIBYTE, 14), &keys, Some(from_now(600))).await;
    let reader = archive(&bucket);
    let ada = "ada".parse().unwrap();
    let entry = async || {
        let catalogue = reader.catalogue(&ada, &[keys.public()]).await.unwrap();
        catalogue.entries[&slot.parse().unwrap()].clone()
    };
    let until = from_now(3600);

    let looked_at =
        lock::extend(&reader, &bucket, &entry().await, until, LockMode::Compliance).await.unwrap();

    // Segments, one page, the manifest, the commit.
    assert_eq!(looked_at, backup.manifest.segments() + 3);
    for key in store.keys() {
        assert_eq!(bucket.head(&key, None).await.unwrap().retained_until, Some(until), "{key}");
    }
    assert_eq!(entry().await.locked_until, Some(until));

    let eraser = Eraser { reader: &reader, janitor: &bucket, now: from_now(0) };
    let version = entry().await.version;
    let erased = eraser.backup(&backup.manifest.folder(), version.as_ref()).await.unwrap();
    assert_eq!(erased.versions, 0);
    assert_eq!(erased.kept.unwrap().until, Some(until));
    assert_eq!(store.keys().len(), usize::try_from(looked_at).unwrap(), "nothing is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_of_what_something_lies_over_are_seen_and_extended() {
    let (store, keys) = (Store::start(Keeps::LockedVersions), Keys::new());
    let bucket = store.bucket();
    let (slot, locked) = ("20261122T010000Z", from_now(600));
    let backup = kept(&bucket, "ada", slot, &mixed(40 * MEBIBYTE, 15), &keys, Some(locked)).await;
    assert!(backup.manifest.segments() > 1);
    let manifest_key = backup.named.key.clone();
    bucket
        .put(&segment_key(&backup.manifest, 0), Bytes::from_static(b"younger"), &Put::default())
        .await
        .unwrap();
    bucket.delete(&segment_key(&backup.manifest, 1), None).await.unwrap();
    bucket.put(&manifest_key, Bytes::from_static(b"{}"), &Put::default()).await.unwrap();
    let reader = archive(&bucket);

    let verdict =
        verify(&reader, &backup.manifest, Depth::Metadata, &watch::Sender::default()).await.unwrap();
    assert_eq!((verdict.covered.total, verdict.lock.until()), (2, Some(locked)));

    let until = from_now(3600);
    let catalogue = reader.catalogue(&"ada".parse().unwrap(), &[keys.public()]).await.unwrap();
    let entry = &catalogue.entries[&slot.parse().unwrap()];
    lock::extend(&reader, &bucket, entry, until, LockMode::Compliance).await.unwrap();
    let verdict =
        verify(&reader, &backup.manifest, Depth::Metadata, &watch::Sender::default()).await.unwrap();
    assert_eq!(verdict.lock.until(), Some(until));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_backup_is_gone_in_all_versions_and_its_neighbours_are_not() {
    for keeps in [Keeps::Latest, Keeps::LockedVersions] {
        let (store, keys) = (Store::start(keeps), Keys::new());
        let bucket = store.bucket();
        let doomed = kept(&bucket, "ada", "20261121T010000Z", &mixed(20 * MEBIBYTE, 15), &keys, None).await;
        let stays = kept(&bucket, "ada", "20261122T010000Z", b"data", &keys, None).await;
        let stranger = format!("{}notes.txt", doomed.manifest.folder());
        bucket.put(&stranger, Bytes::from_static(b"x"), &Put::default()).await.unwrap();
        let reader = archive(&bucket);
        let ada = "ada".parse().unwrap();
        let commit = format!("v1/ada/commits/{}.json", doomed.manifest.slot);
        let version = bucket.head(&commit, None).await.unwrap().version;
        if keeps == Keeps::LockedVersions {
            // Somebody lays a marker and a younger version over it.
            bucket.delete(&segment_key(&doomed.manifest, 0), None).await.unwrap();
            bucket.put(&commit, Bytes::from_static(b"{}"), &Put::default()).await.unwrap();
        }

        let eraser = Eraser { reader: &reader, janitor: &bucket, now: from_now(0) };
        let erased = eraser.backup(&doomed.manifest.folder(), version.as_ref()).await.unwrap();

        assert_eq!((erased.kept, erased.strangers), (None, 1));
        let mut left = Vec::new();
        let mut pages = bucket.list_versions("");
        while let Some(page) = pages.page().await.unwrap() {
            left.extend(page.into_iter().map(|line| line.key));
        }
        left.retain(|key| key.contains("20261121"));
        assert_eq!(left, [stranger]);
        let catalogue = reader.catalogue(&ada, &[keys.public()]).await.unwrap();
        assert_eq!(catalogue.entries.keys().collect::<Vec<_>>(), [&stays.manifest.slot]);
        assert!(restored(&bucket, &stays, &keys.tenant).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_asked_for_its_commit_right_before_it_goes() {
    let (store, keys) = (Store::start(Keeps::LockedVersions), Keys::new());
    let bucket = store.bucket();
    let reader = archive(&bucket);
    let good = kept(&bucket, "ada", "20261122T010000Z", b"data", &keys, None).await;
    let garbage = backup::back_up(&bucket, "ada", b"left by a crash", &keys).await;
    let strangers = Keys::new();
    let theirs = kept(&bucket, "ada", "20261120T010000Z", b"data", &strangers, None).await;
    let eraser = Eraser { reader: &reader, janitor: &bucket, now: from_now(0) };
    let trusted = [keys.public()];

    let of = async |backup: &Backup, since: i64, is_still: bool| {
        let stillness = Stillness { since: from_now(since), is_still: &|| is_still };
        eraser.garbage(&backup.manifest.folder(), &trusted, stillness).await.unwrap()
    };

    assert_eq!(of(&good, 60, true).await, None);
    assert_eq!(
        of(&theirs, 60, true).await,
        None,
        "who signed it is not known, and it may be somebody's backup"
    );
    assert_eq!(of(&garbage, -3600, true).await, None, "it was put a moment ago: somebody may be at it");
    assert_eq!(of(&garbage, 60, false).await, None, "somebody is about to write there");
    assert!(of(&garbage, 60, true).await.unwrap().versions >= 3);
    assert!(!store.keys().iter().any(|key| key.starts_with(&garbage.manifest.folder().to_string())));
    assert!(restored(&bucket, &good, &keys.tenant).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_begins_to_write_to_while_it_goes_is_left() {
    let (store, keys) = (Store::start(Keeps::LockedVersions), Keys::new());
    let bucket = store.bucket();
    let reader = archive(&bucket);
    let garbage = backup::back_up(&bucket, "ada", &mixed(20 * MEBIBYTE, 19), &keys).await;
    let eraser = Eraser { reader: &reader, janitor: &bucket, now: from_now(0) };
    let asked = std::sync::atomic::AtomicUsize::new(0);
    // Before the listing, and before the manifest.
    let is_still = || asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2;

    let stillness = Stillness { since: from_now(60), is_still: &is_still };
    let disturbed = eraser.garbage(&garbage.manifest.folder(), &[keys.public()], stillness).await;

    assert!(matches!(disturbed, Err(erase::Error::Disturbed)), "{disturbed:?}");
    let left = store.keys();
    assert!(!left.iter().any(|key| key.ends_with("manifest.json")), "the manifest goes first");
    assert!(left.contains(&segment_key(&garbage.manifest, 0)), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_terms_the_last_that_were_signed_count() {
    let (store, keys) = (Store::start(Keeps::LockedVersions), Keys::new());
    let bucket = store.bucket();
    let ada = "ada".parse().unwrap();
    let terms = |days: i32, written: &str| -> Terms {
        serde_json::from_value(serde_json::json!({
            "format": 1, "archive": "ada", "policy": "default", "timeZone": "Europe/Stockholm",
            "retention": { "floor": { "days": days, "reason": "decided in a test" } },
            "deadlineSeconds": 7200, "holds": [], "written": written,
        }))
        .unwrap()
    };
    let key = Terms::key(&ada).unwrap().to_string();
    let (older, newer) = (terms(1, "2026-11-21T00:00:00Z"), terms(35, "2026-11-22T00:00:00Z"));
    let forged = terms(1, "2026-11-23T00:00:00Z").seal(&Keys::new().signing).unwrap();
    let latest = "2026-11-23T12:00:00Z".parse().unwrap();
    assert_eq!(archive(&bucket).terms(&ada, &[keys.public()], latest).await.unwrap(), None);

    for sealed in [newer.seal(&keys.signing).unwrap(), older.seal(&keys.signing).unwrap(), forged] {
        bucket.put(&key, Bytes::from(sealed), &Put::default()).await.unwrap();
    }

    assert_eq!(archive(&bucket).terms(&ada, &[keys.public()], latest).await.unwrap(), Some(newer));
    assert!(matches!(key.parse::<Key>(), Ok(Key::Record { .. })));
}

/// As the agent is called in its pod.
async fn agent_copies(
    backup: &Backup,
    from: &Store,
    to: &Store,
) -> Result<valv::agent::copy::Arrived, valv::agent::copy::Error> {
    use valv::agent::{
        copy::{Copy, Order},
        run_file::{self, Retry, Timeouts},
    };

    let credentials = tempfile::tempdir().unwrap();
    fs::write(credentials.path().join("accessKeyID"), super::store::ACCESS_KEY).unwrap();
    fs::write(credentials.path().join("secretAccessKey"), super::store::SECRET_KEY).unwrap();
    let store = |store: &Store, name: &str| run_file::Store {
        name: name.to_owned(),
        endpoint: store.endpoint(),
        bucket: super::store::BUCKET.to_owned(),
        prefix: Some(super::store::PREFIX.to_owned()),
        region: super::store::REGION.to_owned(),
        addressing: valv_crds::store::Addressing::Path,
        ca_bundle: Some(store.authority.clone()),
        proxy: None,
        timeouts: Timeouts { connect: 5, attempt: 60, stall: 20 },
        retry: Retry { per_request: 2, per_run: 10 },
        answered_versions: valv::io::bucket::AnsweredVersions::default(),
        bytes_per_second: None,
        lock: None,
    };
    let copy = Copy {
        order: Order {
            archive: backup.manifest.archive.clone(),
            slot: backup.manifest.slot,
            manifest: backup.named.clone(),
            source: store(from, "helsinki"),
            target: store(to, "frankfurt"),
        },
        source_reader: credentials.path().to_owned(),
        target_reader: credentials.path().to_owned(),
        target_writer: credentials.path().to_owned(),
        depth: "full".parse().unwrap(),
        termination_log: credentials.path().join("log"),
    };
    valv::agent::copy::copy(&copy, || from_now(0)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_copies_and_reads_back_what_it_copied() {
    let (helsinki, frankfurt) = (Store::start(Keeps::LockedVersions), Store::start(Keeps::Latest));
    let keys = Keys::new();
    let original =
        kept(&helsinki.bucket(), "ada", "20261122T010000Z", &mixed(40 * MEBIBYTE, 16), &keys, None).await;

    let arrived = agent_copies(&original, &helsinki, &frankfurt).await.unwrap();

    let segments = original.manifest.segments();
    assert_eq!((arrived.sent, arrived.verified.segments_read), (segments, segments));
    let manifest = archive(&frankfurt.bucket()).manifest(&arrived.manifest).await.unwrap();
    let (from, to) = (archive(&helsinki.bucket()), archive(&frankfurt.bucket()));
    let differs = copy::differs((&from, &outline(&original.manifest)), (&to, &outline(&manifest))).await;
    assert_eq!(differs.unwrap(), None);
    assert_eq!(agent_copies(&original, &helsinki, &frankfurt).await.unwrap().sent, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_copies_no_other_backup_than_it_was_told() {
    let (helsinki, frankfurt) = (Store::start(Keeps::Latest), Store::start(Keeps::Latest));
    let keys = Keys::new();
    let mut bo = kept(&helsinki.bucket(), "bo", "20261122T010000Z", b"data", &keys, None).await;
    bo.manifest.archive = "ada".parse().unwrap();

    let refused = agent_copies(&bo, &helsinki, &frankfurt).await;

    assert!(matches!(refused, Err(valv::agent::copy::Error::Foreign { .. })), "{refused:?}");
    assert!(frankfurt.keys().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_with_a_segment_of_another_s_is_no_copy() {
    let (helsinki, frankfurt) = (Store::start(Keeps::Latest), Store::start(Keeps::Latest));
    let keys = Keys::new();
    let (from, to) = (helsinki.bucket(), frankfurt.bucket());
    let original = kept(&from, "ada", "20261122T010000Z", &mixed(40 * MEBIBYTE, 17), &keys, None).await;
    let Copied { manifest, .. } = copied(&from, &to, &original.named, None).await;
    // Whoever can write to the target writes an index that fits what it wrote.
    let page = manifest.folder().key("index/database-00000.jsonl".parse().unwrap()).to_string();
    let lines = fs::read_to_string(frankfurt.file(&page)).unwrap();
    let first = Blake3::of(&fs::read(frankfurt.file(&segment_key(&manifest, 0))).unwrap()).to_string();
    let forged = lines.replace(&first, &Blake3::of(b"another").to_string());
    assert_ne!(forged, lines);
    to.put(&page, Bytes::from(forged.clone().into_bytes()), &Put::default()).await.unwrap();
    let mut forged_manifest = manifest.clone();
    forged_manifest.parts[0].pages[0].blake3 = Blake3::of(forged.as_bytes());
    forged_manifest.parts[0].pages[0].size = forged.len() as u64;

    let differs = copy::differs(
        (&archive(&from), &outline(&original.manifest)),
        (&archive(&to), &outline(&forged_manifest)),
    )
    .await;

    assert!(differs.unwrap().unwrap().contains("names other segments"));
}
