//! The stores of a cluster that is up: what each identity must be able to do there, and what it must not,
//! tried with real requests.
//!
//! `make stores`, which is a part of `make test-all`. What it writes is under names of its own and stays until
//! `cluster down`: it is locked. It stops stores, so nothing else may use them meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

#[path = "stores/rights.rs"]
mod rights;

use std::fs;
use std::process::{Command, Output};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secrecy::ExposeSecret;
use valv_cluster::s3::{Client, Method, Request};
use valv_cluster::{Cluster, Identity, Store};

use rights::{Keys, archive, bucket, delete, done, get, locked, put, refused, version};

/// Most tests use the stores side by side; one that stops a store has them alone.
static STORES: RwLock<()> = RwLock::new(());

fn shared() -> RwLockReadGuard<'static, ()> {
    STORES.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn alone() -> RwLockWriteGuard<'static, ()> {
    STORES.write().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn cluster() -> Cluster {
    Cluster::open().unwrap()
}

fn helsinki() -> Store {
    cluster().store("helsinki").unwrap()
}

fn frankfurt() -> Store {
    cluster().store("frankfurt").unwrap()
}

#[test]
fn only_the_authority_of_the_stores_vouches_for_them() {
    let _shared = shared();
    let store = helsinki();
    let nodes = cluster().kubeconfig().with_file_name("ca.crt");
    let key = || store.key(Identity::Reader).unwrap();
    let list = bucket(Method::Get).query("list-type", "2");
    let found_as = |host: &str| Client::new(host, store.address, store.region, &store.ca(), key()).unwrap();

    let by_address = found_as("10.123.0.20").send(&list);
    let as_another = found_as(&frankfurt().host()).send(&list);
    let of_nodes =
        Client::new(&store.host(), store.address, store.region, &nodes, key()).unwrap().send(&list);

    assert!(by_address.is_ok(), "{by_address:?}");
    assert!(format!("{:#}", as_another.unwrap_err()).contains("not valid for name"));
    assert!(format!("{:#}", of_nodes.unwrap_err()).contains("UnknownIssuer"));
}

#[test]
fn a_store_that_was_stopped_is_gone_and_comes_back_with_what_it_held() {
    let _alone = alone();
    let (cluster, store) = (cluster(), helsinki());
    let key = Keys::new("", &archive("stopped")).data.remove(0);
    let version = version(&done(&store, Identity::Writer, &locked(&store, put(&key))));

    cluster.stop_store("helsinki").unwrap();
    let gone = store.client(Identity::Reader).unwrap().send(&get(&key)).unwrap_err();
    let why = cluster.check().unwrap_err();
    let other = done(&frankfurt(), Identity::Reader, &bucket(Method::Head));
    let started = Instant::now();
    cluster.start_store("helsinki").unwrap();
    println!("started again in {:?}", started.elapsed());

    assert!(format!("{gone:#}").contains("Connection refused"), "{gone:#}");
    assert!(why.to_string().contains("helsinki was stopped"), "{why:#}");
    assert!(other.is_success());
    let read = done(&store, Identity::Reader, &get(&key).query("versionId", &version));
    assert_eq!(read.text(), "content");
    let of_version = delete(&key).query("versionId", &version);
    refused(&store, Identity::Janitor, &of_version, "AccessDenied");
    cluster.check().unwrap();
}

#[test]
fn a_store_that_dies_is_named_with_its_log_and_up_starts_it_again() {
    let _alone = alone();
    let key = Keys::new("", &archive("died")).data.remove(0);
    done(&frankfurt(), Identity::Writer, &put(&key));
    let node = line_of("node-1");

    kill(Pid::from_raw(process_of("frankfurt")), Signal::SIGKILL).unwrap();
    let failed = until_status_fails();
    let up = command(&["up"]);

    assert!(failed.contains("frankfurt has ended\n--- the end of"), "{failed}");
    assert!(failed.contains("| vgw |"), "{failed}");
    assert!(up.status.success(), "{}", errors(&up));
    assert_eq!(done(&frankfurt(), Identity::Reader, &get(&key)).text(), "content");
    assert_eq!(line_of("node-1"), node);
}

#[test]
fn a_key_that_was_revoked_is_refused_until_the_store_is_put_right() {
    let _alone = alone();
    let (cluster, store) = (cluster(), frankfurt());
    let key = Keys::new("", &archive("revoked")).data.remove(0);
    let revoke = Request::new(Method::Patch, "/delete-user").query("access", "writer");

    done(&store, Identity::Writer, &put(&key));
    store.administrator().unwrap().must(&revoke).unwrap();
    refused(&store, Identity::Writer, &put(&key), "InvalidAccessKeyId");
    cluster.start_store("frankfurt").unwrap();

    done(&store, Identity::Writer, &put(&key));
}

#[test]
fn pods_find_both_stores_by_name_and_no_other() {
    let _shared = shared();
    let cluster = cluster();
    let image = cluster.images().unwrap().remove("postgres").unwrap();
    let connect = "for host in helsinki.store.example frankfurt.store.example oslo.store.example; do \
                   if (exec 3<>/dev/tcp/$host/443) 2>/dev/null; then echo $host; fi; done";
    let name = archive("stores");
    let kubectl = |arguments: &[&str]| {
        let output = cluster.kubectl_command().unwrap().args(arguments).output().unwrap();
        assert!(output.status.success(), "kubectl {arguments:?}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    };

    let image = format!("--image={image}");
    kubectl(&["run", &name, &image, "--restart=Never", "--command", "--", "/bin/bash", "-c", connect]);
    let pod = format!("pod/{name}");
    let ended = "--for=jsonpath={.status.phase}=Succeeded";
    kubectl(&["wait", &pod, ended, "--timeout=60s", "--request-timeout=0"]);
    let reached = kubectl(&["logs", &name]);
    kubectl(&["delete", &pod, "--wait=false"]);

    assert_eq!(reached, "helsinki.store.example\nfrankfurt.store.example\n");
}

#[test]
fn secrets_are_printed_only_when_asked_for_and_the_administrators_never() {
    let _shared = shared();
    let (mut users, mut administrators) = (Vec::new(), Vec::new());
    for store in [helsinki(), frankfurt()] {
        users.extend(Identity::ALL.map(|who| store.key(who).unwrap().secret.expose_secret().to_owned()));
        administrators.push(administrators_secret(&store));
    }
    let shown = |arguments: &[&str]| String::from_utf8(command(arguments).stdout).unwrap();
    let shows = |text: &str, secret: &String| text.contains(secret.as_str());

    let (text, json) = (shown(&["stores"]), shown(&["stores", "--json"]));
    let (helsinki, frankfurt) = (shown(&["logs", "helsinki"]), shown(&["logs", "frankfurt"]));

    assert!(text.contains("https://helsinki.store.example at 10.123.0.20:443"), "{text}");
    assert!(helsinki.contains("VersityGW") && frankfurt.contains("VersityGW"));
    assert!(users.iter().all(|secret| shows(&json, secret)));
    assert!(!administrators.iter().any(|secret| shows(&json, secret)));
    for text in [text, helsinki, frankfurt, shown(&["status"]), shown(&["logs"])] {
        assert!(!users.iter().chain(&administrators).any(|secret| shows(&text, secret)));
    }
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed[0]["protection"], "VersionsAndLocks");
    assert_eq!(parsed[1]["keys"]["reader"]["accessKeyID"], "reader");
    assert_eq!(parsed[0]["keys"].as_object().unwrap().len(), 4);
}

/// From the file that only root reads: it is what the library does not give.
fn administrators_secret(store: &Store) -> String {
    let file = store.objects().join("../../keys.json");
    let keys: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    keys["root"].as_str().unwrap().to_owned()
}

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cluster")).args(arguments).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The line of `cluster status` that begins with `name`.
fn line_of(name: &str) -> String {
    let status = String::from_utf8(command(&["status"]).stdout).unwrap();
    status.lines().find(|line| line.trim_start().starts_with(name)).unwrap().to_owned()
}

/// The number of a store's process, from `status`.
fn process_of(store: &str) -> i32 {
    line_of(store).split_whitespace().nth(3).unwrap().trim_end_matches(',').parse().unwrap()
}

/// What `status` says when it has come to fail: a process ends some milliseconds after its signal.
fn until_status_fails() -> String {
    let started = Instant::now();
    loop {
        let status = command(&["status"]);
        if !status.status.success() {
            return errors(&status);
        }
        assert!(started.elapsed() < Duration::from_secs(10), "status does not fail");
        std::thread::sleep(Duration::from_millis(20));
    }
}
