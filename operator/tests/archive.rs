//! The backup format, against a real S3 server (versitygw) and the standard tools.
//!
//! The agent's own backups ([`pod_backup`]) need what `tests/agent.rs` needs too: root, and `VALV_POSTGRES_ROOT`.
//!
//! Needs `VALV_VERSITYGW`, the path of that program, and Debian's `age`, `b3sum`, `curl`, `jq`, `openssl`,
//! `tar` and `zstd`. Each test has a server of its own, on 127.0.0.1, with a folder that is gone afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

#[path = "archive/backup.rs"]
mod backup;
#[path = "archive/conformance.rs"]
mod conformance;
#[path = "archive/connect.rs"]
mod connect;
#[path = "archive/data.rs"]
mod data;
#[path = "archive/drill.rs"]
mod drill;
#[path = "archive/drills.rs"]
mod drills;
#[path = "archive/keeping.rs"]
mod keeping;
#[path = "archive/key_proof.rs"]
mod key_proof;
#[path = "archive/memory.rs"]
mod memory;
#[path = "agent/pod.rs"]
#[allow(dead_code, reason = "the tests of the agent use the rest")]
mod pod;
#[path = "archive/pod_backup.rs"]
mod pod_backup;
#[path = "archive/probe.rs"]
mod probe;
#[path = "archive/promises.rs"]
mod promises;
#[path = "archive/proxy.rs"]
mod proxy;
#[path = "archive/public_key.rs"]
mod public_key;
#[path = "race/table.rs"]
#[allow(dead_code, clippy::print_stdout, reason = "the race prints it and uses the rest")]
mod race_table;
#[path = "archive/store.rs"]
mod store;
#[path = "archive/tools.rs"]
mod tools;

use std::{
    fs, io,
    num::NonZeroU64,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use faults::{Fault, FaultProxy};
use jiff::Timestamp;
use tokio::{
    io::AsyncReadExt,
    sync::{mpsc, watch},
};
use valv::{
    archive::{
        commit::InvalidCommit,
        envelope::OpenError,
        fetch,
        finding::Flaw,
        layout::{DataObject, Part, SegmentName},
        read,
        retry::RetryRule,
        segment::{ContentMd5, SEGMENT_LIMIT_BYTES},
        verify::{Depth, Mode, Verdict, verify},
        write,
    },
    io::bucket::{Bucket, Content, Kind, ObjectLock, OnExisting, Patience, Place, Put, Versioning},
};

use self::{
    backup::{Backup, Keys, archive, back_up, committed, folder, hurried, restored, writer},
    data::mixed,
    store::{Keeps, Store, Wire},
};

const MEBIBYTE: usize = 1024 * 1024;

async fn verified(bucket: &Bucket, backup: &Backup, depth: Depth) -> Verdict {
    verify(&archive(bucket), &backup.manifest, depth, &watch::Sender::default()).await.unwrap()
}

/// The only finding, without its key.
fn only_flaw(verdict: &Verdict) -> &Flaw {
    assert_eq!(verdict.broken.total, 1, "{:?}", verdict.broken);
    assert!(!verdict.is_whole());
    &verdict.broken.first[0].flaw
}

fn segment_key(backup: &Backup, number: u32) -> String {
    let name = SegmentName::new(Part::Database, number).unwrap();
    backup.manifest.folder().key(DataObject::Segment(name)).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_any_size_come_back_as_they_were() {
    for keeps in [Keeps::Latest, Keeps::LockedVersions] {
        let (store, keys) = (Store::start(keeps), Keys::new());
        let bucket = store.bucket();
        for (name, bytes) in [("none", 0), ("one", 1), ("slice", MEBIBYTE), ("more", 100 * MEBIBYTE)] {
            let data = mixed(bytes, 7);

            let backup = back_up(&bucket, name, &data, &keys).await;

            let part = backup.manifest.part(Part::Database).unwrap();
            assert_eq!(part.plain_bytes, bytes as u64);
            assert_eq!(part.segments == 0, bytes == 0, "{part:?}");
            assert!(part.bytes <= part.segments * SEGMENT_LIMIT_BYTES as u64);
            for identities in [&keys.tenant, &keys.escrow] {
                let (stream, summary) = restored(&bucket, &backup, identities).await.unwrap();
                assert!(stream == data, "{bytes} bytes are not what they were");
                assert_eq!(summary.segments, part.segments);
                assert_eq!(summary.fewest_recipients, (bytes > 0).then_some(2));
            }
            let verdict = verified(&bucket, &backup, Depth::Full).await;
            assert!(verdict.is_whole(), "{verdict:?}");
            assert!(verdict.covered.is_empty(), "{verdict:?}");
            assert_eq!((verdict.segments_read, verdict.bytes_read), (part.segments, part.bytes));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_plain_http_payloads_are_signed_and_come_back() {
    let (store, keys) = (Store::start_with(Keeps::Latest, Wire::Plain), Keys::new());
    let data = mixed(3 * MEBIBYTE, 8);

    let backup = back_up(&store.bucket(), "ada", &data, &keys).await;

    assert!(restored(&store.bucket(), &backup, &keys.tenant).await.unwrap().0 == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_tools_restore_what_valv_wrote() {
    let (store, keys) = (Store::start(Keeps::LockedVersions), Keys::new());
    let (tree, stream) = tools::tree_and_its_tar();
    let backup = back_up(&store.bucket(), "ada", &stream, &keys).await;
    committed(&store.bucket(), &backup, &keys).await;
    assert!(backup.manifest.segments() > 1);

    for identity in [&keys.tenant_file, &keys.escrow_file] {
        let target = tempfile::tempdir().unwrap();
        let outcome = tools::run_the_page_s_block(&store, &keys, identity, target.path());

        assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
        tools::assert_same(tree.path(), target.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_tools_refuse_what_is_not_what_was_committed() {
    let (store, keys) = (Store::start(Keeps::Latest), Keys::new());
    let (_tree, stream) = tools::tree_and_its_tar();
    let backup = back_up(&store.bucket(), "ada", &stream, &keys).await;
    committed(&store.bucket(), &backup, &keys).await;
    let folder = backup.manifest.folder();
    let commit = "v1/ada/commits/20261122T010000Z.json".to_owned();
    let files = [
        commit.clone(),
        folder.key(DataObject::Manifest).to_string(),
        folder.key("index/database-00000.jsonl".parse().unwrap()).to_string(),
        segment_key(&backup, 1),
    ];

    for key in files {
        let before = fs::read(store.file(&key)).unwrap();
        flip_a_bit(&store, &key);
        let target = tempfile::tempdir().unwrap();

        let outcome = tools::run_the_page_s_block(&store, &keys, &keys.tenant_file, target.path());

        assert!(!outcome.status.success(), "{key} was altered, and it was restored");
        fs::write(store.file(&key), before).unwrap();
    }

    let stranger = Keys::new();
    let target = tempfile::tempdir().unwrap();
    let forged = tools::run_the_page_s_block(&store, &stranger, &keys.tenant_file, target.path());
    assert!(!forged.status.success(), "the commit is not signed by that key");
}

/// Changes the middle byte, as a disk might.
fn flip_a_bit(store: &Store, key: &str) {
    let file = fs::OpenOptions::new().read(true).write(true).open(store.file(key)).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_damage_has_its_own_verdict() {
    let (store, keys) = (Store::start(Keeps::Latest), Keys::new());
    let bucket = store.bucket();
    let ada = back_up(&bucket, "ada", &mixed(90 * MEBIBYTE, 1), &keys).await;
    let bo = back_up(&bucket, "bo", &mixed(40 * MEBIBYTE, 2), &keys).await;
    let (first, second) = (segment_key(&ada, 0), segment_key(&ada, 1));
    let keep = |key: &str| (store.file(key), fs::read(store.file(key)).unwrap());
    let ((first_file, first_bytes), (second_file, second_bytes)) = (keep(&first), keep(&second));
    let (page_file, page_bytes) =
        keep(&ada.manifest.folder().key("index/database-00000.jsonl".parse().unwrap()).to_string());
    let put_right = || {
        fs::write(&first_file, &first_bytes).unwrap();
        fs::write(&second_file, &second_bytes).unwrap();
        fs::write(&page_file, &page_bytes).unwrap();
    };

    flip_a_bit(&store, &first);
    let verdict = verified(&bucket, &ada, Depth::Full).await;
    assert!(matches!(only_flaw(&verdict), Flaw::Altered { .. }), "{verdict:?}");
    assert_eq!(verdict.broken.first[0].key, first);
    let error = restored(&bucket, &ada, &keys.tenant).await.unwrap_err();
    assert!(matches!(broken(&error), Some(Flaw::Altered { .. })), "{error:?}");
    let metadata = verified(&bucket, &ada, Depth::Metadata).await;
    assert!(metadata.is_whole(), "a look at sizes cannot see it: {metadata:?}");

    put_right();
    fs::remove_file(&first_file).unwrap();
    for depth in [Depth::Full, Depth::Metadata, Depth::Sample { segments: 100, seed: 1 }] {
        let verdict = verified(&bucket, &ada, depth).await;
        assert_eq!(only_flaw(&verdict), &Flaw::Missing, "{depth:?}");
    }
    let error = restored(&bucket, &ada, &keys.tenant).await.unwrap_err();
    assert_eq!(broken(&error), Some(&Flaw::Missing), "{error:?}");

    put_right();
    fs::write(&first_file, &second_bytes).unwrap();
    fs::write(&second_file, &first_bytes).unwrap();
    let verdict = verified(&bucket, &ada, Depth::Full).await;
    let mut swapped: Vec<_> =
        verdict.broken.first.iter().map(|found| (&*found.key, found.flaw.clone())).collect();
    swapped.sort_by_key(|(key, _)| *key);
    let with = |with: &str| Flaw::Swapped { with: with.to_owned() };
    assert_eq!(swapped, [(&*first, with(&second)), (&*second, with(&first))]);
    assert!(broken(&restored(&bucket, &ada, &keys.tenant).await.unwrap_err()).is_some());

    put_right();
    fs::write(&first_file, fs::read(store.file(&segment_key(&bo, 0))).unwrap()).unwrap();
    let verdict = verified(&bucket, &ada, Depth::Full).await;
    assert!(matches!(only_flaw(&verdict), Flaw::Size { .. } | Flaw::Altered { .. }), "{verdict:?}");

    put_right();
    fs::write(&first_file, &first_bytes[..first_bytes.len() - 1]).unwrap();
    let verdict = verified(&bucket, &ada, Depth::Metadata).await;
    let expected = first_bytes.len() as u64;
    assert_eq!(only_flaw(&verdict), &Flaw::Size { expected, found: expected - 1 });

    put_right();
    flip_a_bit(&store, page_file.strip_prefix(store.file("")).unwrap().to_str().unwrap());
    let verdict = verified(&bucket, &ada, Depth::Full).await;
    assert!(matches!(only_flaw(&verdict), Flaw::Altered { .. }), "{verdict:?}");
    assert_eq!(verdict.segments_seen, 0);

    put_right();
    assert!(verified(&bucket, &ada, Depth::Full).await.is_whole());
}

/// What a restore says is broken.
fn broken(error: &read::Error) -> Option<&Flaw> {
    if let read::Error::Fetch { source: fetch::Error::Broken(finding), .. } = error {
        Some(&finding.flaw)
    } else {
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_manifest_and_a_forged_commit_are_told_apart() {
    let (store, keys) = (Store::start(Keeps::Latest), Keys::new());
    let bucket = store.bucket();
    let backup = back_up(&bucket, "ada", &mixed(MEBIBYTE, 3), &keys).await;
    let commit = committed(&bucket, &backup, &keys).await;
    let look = async || archive(&bucket).commit(&"ada".parse().unwrap(), commit.slot, &[keys.public()]).await;
    let manifest_file = store.file(&commit.manifest.key);
    let commit_file = store.file("v1/ada/commits/20261122T010000Z.json");
    assert_eq!(look().await.unwrap().commit, commit);

    // Altered, with all that is inside made to fit.
    let manifest = fs::read_to_string(&manifest_file).unwrap();
    fs::write(&manifest_file, manifest.replace(r#""sentinel":"00ff""#, r#""sentinel":"11ee""#)).unwrap();
    let error = archive(&bucket).manifest(&commit.manifest).await.unwrap_err();
    assert!(
        matches!(&error, fetch::Error::Broken(finding) if matches!(finding.flaw, Flaw::Altered { .. })),
        "{error:?}"
    );

    let mut altered = commit.clone();
    altered.manifest.blake3 = valv::archive::digest::Blake3::of(&fs::read(&manifest_file).unwrap());
    let stranger = Keys::new();
    fs::write(&commit_file, altered.seal(&stranger.signing).unwrap()).unwrap();
    let refused = |error: fetch::Error| {
        if let fetch::Error::Commit { source: InvalidCommit::Envelope(error), .. } = error {
            error
        } else {
            panic!("{error:?}")
        }
    };
    assert!(matches!(refused(look().await.unwrap_err()), OpenError::UnknownKey { .. }));

    let envelope = commit.seal(&keys.signing).unwrap();
    let unsigned = String::from_utf8(envelope).unwrap();
    let unsigned = format!("{}\"signatures\":[]}}", &unsigned[..unsigned.find("\"signatures\"").unwrap()]);
    fs::write(&commit_file, unsigned).unwrap();
    assert!(matches!(refused(look().await.unwrap_err()), OpenError::Unsigned));

    fs::remove_file(&commit_file).unwrap();
    let error = look().await.unwrap_err();
    assert!(matches!(&error, fetch::Error::Broken(finding) if finding.flaw == Flaw::Missing), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_over_a_backup_is_read_through_and_reported() {
    let (store, keys) = (Store::start(Keeps::LockedVersions), Keys::new());
    let bucket = store.bucket();
    let data = mixed(60 * MEBIBYTE, 4);
    let backup = back_up(&bucket, "ada", &data, &keys).await;
    let commit = committed(&bucket, &backup, &keys).await;
    let (first, second) = (segment_key(&backup, 0), segment_key(&backup, 1));

    bucket.put(&first, Bytes::from_static(b"a younger one"), &Put::default()).await.unwrap();
    bucket.delete(&second, None).await.unwrap();
    let page = backup.manifest.folder().key("index/database-00000.jsonl".parse().unwrap()).to_string();
    bucket.delete(&page, None).await.unwrap();
    bucket.put(&commit.manifest.key, Bytes::from_static(b"{}"), &Put::default()).await.unwrap();
    let commit_key = "v1/ada/commits/20261122T010000Z.json";
    bucket.put(commit_key, Bytes::from_static(b"{}"), &Put::default()).await.unwrap();
    bucket.delete(commit_key, None).await.unwrap();

    let found =
        archive(&bucket).commit(&"ada".parse().unwrap(), commit.slot, &[keys.public()]).await.unwrap();
    assert_eq!(found.commit, commit);
    assert_eq!(found.covered.total, 2, "{:?}", found.covered);
    let manifest = archive(&bucket).manifest(&found.commit.manifest).await.unwrap();
    assert_eq!(manifest, backup.manifest);
    assert!(restored(&bucket, &backup, &keys.tenant).await.unwrap().0 == data);
    for depth in [Depth::Full, Depth::Metadata] {
        let verdict = verified(&bucket, &backup, depth).await;
        assert!(verdict.is_whole(), "{verdict:?}");
        let mut covered: Vec<_> =
            verdict.covered.first.iter().map(|found| (&*found.key, &found.flaw)).collect();
        covered.sort_by_key(|(key, _)| *key);
        assert_eq!(covered.len(), 3, "{covered:?}");
        assert!(matches!(covered[0], (key, Flaw::Covered { .. }) if key == first), "{covered:?}");
        assert_eq!(covered[1..], [(&*second, &Flaw::Hidden), (&*page, &Flaw::Hidden)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_reads_as_many_as_it_says_and_looks_at_all() {
    let (store, keys) = (Store::start(Keeps::LockedVersions), Keys::new());
    let bucket = store.bucket();
    let backup = back_up(&bucket, "ada", &mixed(100 * MEBIBYTE, 5), &keys).await;

    let verdict = verified(&bucket, &backup, Depth::Sample { segments: 2, seed: 7 }).await;

    assert!(verdict.is_whole());
    assert_eq!((verdict.mode, verdict.segments_read), (Mode::Sample, 2));
    assert!(verdict.segments_seen > 2, "{verdict:?}");
    assert_eq!(verdict.segments_seen, verdict.segments);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_busy_every_third_time_delays_a_backup_and_a_restore_only() {
    let (store, keys) = (Store::start(Keeps::Latest), Keys::new());
    let proxy = proxy::before(&store, Fault::BusyEveryThird);
    let bucket = Bucket::open(&with_endpoint(&store, &proxy)).unwrap();
    let data = mixed(120 * MEBIBYTE, 6);

    let backup = back_up(&bucket, "ada", &data, &keys).await;

    assert!(restored(&bucket, &backup, &keys.tenant).await.unwrap().0 == data);
    assert!(verified(&bucket, &backup, Depth::Full).await.is_whole());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_makes_a_second_version_and_the_index_names_the_one_that_answered() {
    for keeps in [Keeps::Latest, Keeps::LockedVersions] {
        let (store, keys) = (Store::start(keeps), Keys::new());
        let proxy = proxy::before(&store, Fault::AnswerLostEveryThird);
        let data = mixed(120 * MEBIBYTE, 6);

        let backup =
            back_up(&Bucket::open(&with_endpoint(&store, &proxy)).unwrap(), "ada", &data, &keys).await;

        let bucket = store.bucket();
        assert!(restored(&bucket, &backup, &keys.tenant).await.unwrap().0 == data);
        let verdict = verified(&bucket, &backup, Depth::Full).await;
        assert!(verdict.is_whole(), "{verdict:?}");
        assert!(verdict.covered.is_empty(), "{verdict:?}");
        if keeps == Keeps::LockedVersions {
            let mut versions = bucket.list_versions("v1/ada/data/");
            let mut places = Vec::new();
            while let Some(page) = versions.page().await.unwrap() {
                places.extend(page.into_iter().map(|listed| listed.place));
            }
            assert!(places.contains(&Place::Covered), "no answer was lost: {places:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_is_waited_for_and_one_below_the_least_rate_is_not() {
    let (store, keys) = (Store::start(Keeps::Latest), Keys::new());
    let data = mixed(2 * MEBIBYTE, 9);
    let patience = Patience {
        window: Duration::from_secs(2),
        least_bytes_per_second: 100 * 1024,
        ..Patience::default()
    };

    let slow = proxy::before(&store, Fault::Slow { bytes_per_second: 300 * 1024 });
    let settings = valv::io::bucket::Settings { patience, ..with_endpoint(&store, &slow) };
    let start = Instant::now();
    back_up(&Bucket::open(&settings).unwrap(), "ada", &data, &keys).await;
    assert!(start.elapsed() > patience.window, "it was not slow");

    let dead = proxy::before(&store, Fault::Slow { bytes_per_second: 5 * 1024 });
    let settings = valv::io::bucket::Settings { patience, ..with_endpoint(&store, &dead) };
    let options = write::Options { retry: RetryRule { tries: 2, ..hurried().retry }, ..hurried() };
    let mut writer = writer(&Bucket::open(&settings).unwrap(), "bo", &keys, options);
    let error = writer.part(Part::Database, &data[..]).await.unwrap_err();
    let write::Error::Store(error) = error else { panic!("{error:?}") };
    assert_eq!(error.kind, Kind::Timeout, "{error:?}");
    assert_eq!(store.keys().iter().filter(|key| key.starts_with("v1/bo")).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_never_answers_ends_a_backup_within_its_budget() {
    let (store, keys) = (Store::start(Keeps::Latest), Keys::new());
    let proxy = proxy::before(&store, Fault::AlwaysBusy);
    let bucket = Bucket::open(&with_endpoint(&store, &proxy)).unwrap();
    let retry = RetryRule { budget: 5, ..hurried().retry };

    let mut writer = writer(&bucket, "ada", &keys, write::Options { retry, ..hurried() });
    let error = writer.part(Part::Database, &mixed(200 * MEBIBYTE, 1)[..]).await.unwrap_err();

    let write::Error::Store(error) = error else { panic!("{error:?}") };
    assert_eq!(error.kind, Kind::Unavailable);
    let requests = proxy.requests();
    assert!((6..=5 + 3).contains(&requests), "{requests} requests");
}

fn with_endpoint(store: &Store, proxy: &FaultProxy) -> valv::io::bucket::Settings {
    valv::io::bucket::Settings { endpoint: proxy.endpoint(), ..store.settings() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_identity_opens_nothing() {
    let (store, keys) = (Store::start(Keeps::Latest), Keys::new());
    let backup = back_up(&store.bucket(), "ada", &mixed(MEBIBYTE, 1), &keys).await;

    let error = restored(&store.bucket(), &backup, &Keys::new().tenant).await.unwrap_err();

    assert!(matches!(error, read::Error::NoKey { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_no_more_of_a_stream_has_not_restored_it() {
    let (store, keys) = (Store::start(Keeps::Latest), Keys::new());
    let bucket = store.bucket();
    let data = mixed(40 * MEBIBYTE, 9);
    let backup = back_up(&bucket, "ada", &data, &keys).await;
    let (taker, mut slices) = mpsc::channel(1);
    let (archive, progress) = (archive(&bucket), watch::Sender::default());
    let reading = read::slices(&archive, &backup.manifest, Part::Database, &keys.tenant, taker, &progress);

    let taking = async {
        let first = slices.recv().await.unwrap();
        drop(slices);
        first
    };
    let (read, first) = tokio::join!(reading, taking);

    assert!(first[..] == data[..first.len()]);
    assert!(matches!(read, Err(read::Error::Sink { part: Part::Database, .. })), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_backup_leaves_no_manifest_and_can_be_followed_by_another() {
    let (store, keys) = (Store::start(Keeps::Latest), Keys::new());
    let bucket = store.bucket();
    let data = mixed(150 * MEBIBYTE, 1);
    let limit = NonZeroU64::new(20 * MEBIBYTE as u64);
    let mut cancelled = writer(
        &bucket,
        "ada",
        &keys,
        write::Options { bytes_per_second: limit, ..write::Options::default() },
    );
    let mut progress = cancelled.progress();

    tokio::select! {
        done = cancelled.part(Part::Database, &data[..]) => panic!("it was not cancelled: {done:?}"),
        _ = progress.wait_for(|progress| progress.segments > 0) => {}
    }
    let twice = cancelled.part(Part::Database, &data[..]).await.unwrap_err();

    assert!(matches!(twice, write::Error::Twice { .. }), "{twice:?}");
    let keys_there = store.keys();
    assert!(!keys_there.is_empty());
    assert!(keys_there.iter().all(|key| !key.ends_with("manifest.json")), "{keys_there:?}");
    let again = back_up(&bucket, "ada", &data, &keys).await;
    assert!(restored(&bucket, &again, &keys.tenant).await.unwrap().0 == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_breaks_is_the_cause_that_is_reported() {
    let (store, keys) = (Store::start(Keeps::Latest), Keys::new());
    let data = mixed(40 * MEBIBYTE, 1);
    let broken = tokio_test_reader(io::Error::other("the database went away"));
    let source = (&data[..]).chain(broken);

    let mut writer = writer(&store.bucket(), "ada", &keys, hurried());
    let error = writer.part(Part::Database, source).await.unwrap_err();

    assert!(
        matches!(&error, write::Error::Source { source, .. } if source.to_string() == "the database went away"),
        "{error:?}"
    );
}

/// A stream that fails at once.
fn tokio_test_reader(error: io::Error) -> impl tokio::io::AsyncRead + Unpin {
    struct Broken(Option<io::Error>);
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(self.0.take().map_or(Ok(()), Err))
        }
    }
    Broken(Some(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_keeps_the_pace_that_it_is_given() {
    let (store, keys) = (Store::start(Keeps::Latest), Keys::new());
    let limit = NonZeroU64::new(2 * MEBIBYTE as u64);
    let options = write::Options { bytes_per_second: limit, ..hurried() };
    let start = Instant::now();

    let mut writer = writer(&store.bucket(), "ada", &keys, options);
    let summary = writer.part(Part::Database, &mixed(16 * MEBIBYTE, 1)[..]).await.unwrap();

    let least = (summary.bytes as f64 / (2 * MEBIBYTE) as f64) * 0.9;
    assert!(start.elapsed().as_secs_f64() > least, "{:?} for {} bytes", start.elapsed(), summary.bytes);
    assert_eq!(writer.progress().borrow().bytes, summary.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_backup_cannot_be_deleted_and_its_lock_only_be_extended() {
    let (store, keys) = (Store::start(Keeps::LockedVersions), Keys::new());
    let bucket = store.bucket();
    // The store refuses a lock in the past, and goes by its own clock.
    let now = Timestamp::try_from(std::time::SystemTime::now()).unwrap();
    let now = Timestamp::from_second(now.as_second()).unwrap();
    let (soon, later) = (now + Duration::from_secs(3600), now + Duration::from_secs(7200));
    let options = write::Options { retain_until: Some(soon), content_md5: ContentMd5::Computed, ..hurried() };
    let mut writer = writer(&bucket, "ada", &keys, options);
    writer.part(Part::Database, &mixed(MEBIBYTE, 1)[..]).await.unwrap();
    let key = folder("ada").key("database/00000000.age".parse().unwrap()).to_string();
    let version = bucket.head(&key, None).await.unwrap().version;

    assert!(version.is_some());
    assert_eq!(bucket.delete(&key, version.as_ref()).await.unwrap_err().kind, Kind::Locked);
    let retained_until = async || bucket.head(&key, version.as_ref()).await.unwrap().retained_until;
    assert_eq!(retained_until().await, Some(soon));
    bucket.retain(&key, version.as_ref(), later).await.unwrap();
    assert_eq!(retained_until().await, Some(later));
    let shortened = bucket.retain(&key, version.as_ref(), soon).await.unwrap_err();
    assert!(matches!(shortened.kind, Kind::Locked | Kind::Denied), "{shortened:?}");
    assert_eq!(bucket.versioning().await.unwrap(), Versioning::Enabled);
    assert!(matches!(bucket.object_lock().await.unwrap(), ObjectLock::Enabled { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_says_what_is_there_and_why_something_is_refused() {
    let store = Store::start(Keeps::Latest);
    let bucket = store.bucket();
    let only_new = Put { on_existing: OnExisting::Fail, ..Put::default() };
    for key in ["v1/ada/records/a.json", "v1/ada/records/b.json", "v1/bo/records/a.json"] {
        bucket.put(key, Bytes::from_static(b"{}"), &only_new).await.unwrap();
    }

    let again = bucket.put("v1/ada/records/a.json", Bytes::from_static(b"x"), &only_new).await.unwrap_err();
    assert_eq!(again.kind, Kind::PreconditionFailed);
    let mut listing = bucket.list("v1/ada/");
    let mut keys = Vec::new();
    while let Some(page) = listing.page().await.unwrap() {
        keys.extend(page.into_iter().map(|listed| (listed.key, listed.size_bytes)));
    }
    assert_eq!(keys, [("v1/ada/records/a.json".to_owned(), 2), ("v1/ada/records/b.json".to_owned(), 2)]);
    assert_eq!(bucket.get("v1/ada/records/c.json", None).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(bucket.head("v1/ada/records/c.json", None).await.unwrap_err().kind, Kind::NotFound);
    let read = bucket.get("v1/ada/records/a.json", None).await.unwrap().whole(2).await.unwrap();
    assert_eq!(read, b"{}");
    let too_large = bucket.get("v1/ada/records/a.json", None).await.unwrap().whole(1).await.unwrap_err();
    assert_eq!(too_large.kind, Kind::Other { status: 200, code: "TooLarge".into() });
    assert_eq!(bucket.versioning().await.unwrap(), Versioning::Off);
    assert_eq!(bucket.object_lock().await.unwrap(), ObjectLock::Off);

    let mut stranger = store.settings();
    stranger.credentials.secret_access_key = "another".into();
    let refused = Bucket::open(&stranger).unwrap().get("v1/ada/records/a.json", None).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Denied);
    assert!(!format!("{refused:?}").contains("another"), "{refused:?}");

    let mut other_authority = store.settings();
    other_authority.trust = valv::io::bucket::Trust::Only(Store::start(Keeps::Latest).authority.clone());
    let untrusted =
        Bucket::open(&other_authority).unwrap().get("v1/ada/records/a.json", None).await.unwrap_err();
    assert_eq!(untrusted.kind, Kind::Tls, "{untrusted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_versions_lists_them_with_what_lies_over_them() {
    let store = Store::start(Keeps::LockedVersions);
    let bucket = store.bucket();
    let key = "v1/ada/records/a.json";
    let first = bucket.put(key, Bytes::from_static(b"1"), &Put::default()).await.unwrap();
    let second = bucket.put(key, Bytes::from_static(b"22"), &Put::default()).await.unwrap();
    bucket.delete(key, None).await.unwrap();

    let listed = bucket.list_versions("v1/ada/").page().await.unwrap().unwrap();

    let objects: Vec<_> = listed
        .iter()
        .filter(|listed| listed.content != Content::DeleteMarker)
        .map(|listed| (listed.version.clone(), listed.place))
        .collect();
    assert_eq!(listed.len(), 3, "{listed:?}");
    assert_eq!(objects.len(), 2);
    assert!(
        objects.contains(&(first.clone(), Place::Covered)) && objects.contains(&(second, Place::Covered))
    );
    assert_eq!(bucket.get(key, None).await.unwrap_err().kind, Kind::NotFound);
    let read = bucket.get(key, first.as_ref()).await.unwrap().whole(10).await.unwrap();
    assert_eq!(read, b"1");
    bucket.delete(key, first.as_ref()).await.unwrap();
    assert_eq!(bucket.get(key, first.as_ref()).await.unwrap_err().kind, Kind::NotFound);
}
