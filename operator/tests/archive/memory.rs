//! How much memory a backup and a restore take, measured in a process of their own.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use secrecy::SecretString;
use tokio::sync::watch;
use valv::{
    archive::{
        layout::Part,
        read,
        recipients::{Identities, Recipients},
        write,
    },
    io::bucket::{Bucket, Trust},
};

use super::{
    backup::{self, Keys},
    data::{Hashing, Repeated, mixed},
    store::{Keeps, Store},
};

/// What is promised for a database of any size.
const LIMIT_KIBIBYTES: u64 = 128 * 1024;

/// What is measured with: more than the process may take by far.
const STREAM_MEBIBYTES: u64 = 1024;

#[test]
fn a_gibibyte_is_backed_up_and_restored_within_the_memory_that_is_promised() {
    let store = Store::start(Keeps::LockedVersions);
    let files = tempfile::tempdir().unwrap();
    let keys = Keys::new();
    fs::write(files.path().join("identity"), &keys.tenant_file).unwrap();
    fs::write(files.path().join("recipients"), keys.recipients.to_texts().join("\n")).unwrap();
    fs::write(files.path().join("authority"), &store.authority).unwrap();
    fs::write(files.path().join("endpoint"), store.endpoint()).unwrap();

    for work in ["back up", "restore"] {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "memory::the_process_that_is_measured", "--nocapture"])
            .env("VALV_TEST_FILES", files.path())
            .env("VALV_TEST_WORK", work)
            .stdin(Stdio::null())
            .output()
            .unwrap();

        let text = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{text}\n{}", String::from_utf8_lossy(&child.stderr));
        let line = text.lines().find(|line| line.starts_with("measured: ")).expect("a measurement");
        println!("{work}: {line}");
        let peak: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(peak <= LIMIT_KIBIBYTES, "{work} took {peak} KiB");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test above, in a process of its own"]
async fn the_process_that_is_measured() {
    let files = PathBuf::from(env::var_os("VALV_TEST_FILES").expect("VALV_TEST_FILES"));
    let work = env::var_os("VALV_TEST_WORK").expect("VALV_TEST_WORK");
    let text = |name: &str| fs::read_to_string(files.join(name)).unwrap();
    let bucket = Bucket::open(&valv::io::bucket::Settings {
        endpoint: text("endpoint"),
        region: super::store::REGION.into(),
        bucket: super::store::BUCKET.into(),
        prefix: String::new(),
        addressing: valv::io::bucket::Addressing::Path,
        credentials: valv::io::bucket::Credentials {
            access_key_id: super::store::ACCESS_KEY.into(),
            secret_access_key: super::store::SECRET_KEY.into(),
        },
        trust: Trust::Only(text("authority")),
        proxy: None,
        patience: valv::io::bucket::Patience::default(),
        answered_versions: valv::io::bucket::AnsweredVersions::default(),
    })
    .unwrap();
    let stretch = mixed(8 << 20, 1);
    let bytes = STREAM_MEBIBYTES << 20;
    let (start, ours) = (Instant::now(), cpu_seconds());
    if work == "back up" {
        let recipients = Recipients::parse(text("recipients").lines()).unwrap();
        let options = options();
        let mut writer = write::Writer::new(bucket, backup::folder("ada"), recipients.clone(), options);
        let part = writer.part(Part::Database, Repeated::new(stretch, bytes)).await.unwrap();
        assert_eq!(part.plain_bytes, bytes);
        let manifest = backup::manifest(backup::folder("ada"), recipients.to_texts(), part);
        writer.manifest(&manifest).await.unwrap();
    } else {
        let archive = backup::archive(&bucket);
        let (manifest, _) = archive.uncommitted_manifest(&backup::folder("ada")).await.unwrap();
        let identities = Identities::parse(&SecretString::from(text("identity"))).unwrap();
        let mut sink = Hashing::default();
        let progress = watch::Sender::default();
        read::part(&archive, &manifest, Part::Database, &identities, &mut sink, &progress).await.unwrap();
        let mut expected = blake3::Hasher::new();
        (0..bytes / stretch.len() as u64).for_each(|_| {
            expected.update(&stretch);
        });
        assert_eq!(sink.hasher.finalize(), expected.finalize());
    }
    let (elapsed, ours) = (start.elapsed().as_secs_f64(), cpu_seconds() - ours);
    println!(
        "measured: {} KiB at most, {:.0} MiB/s of the stream, {elapsed:.1} s, {ours:.1} s of processor time",
        peak_kibibytes(),
        STREAM_MEBIBYTES as f64 / elapsed,
    );
}

/// For measurements by hand: `VALV_TEST_IN_FLIGHT`, `VALV_TEST_COMPRESSING`.
fn options() -> write::Options {
    let number = |name: &str| env::var_os(name).and_then(|text| text.to_str()?.parse().ok());
    let defaults = write::Options::default();
    write::Options {
        in_flight: number("VALV_TEST_IN_FLIGHT").unwrap_or(defaults.in_flight),
        compressing: number("VALV_TEST_COMPRESSING").unwrap_or(defaults.compressing),
        ..defaults
    }
}

/// The largest that this process has been.
fn peak_kibibytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    ticks as f64 / 100.0
}
