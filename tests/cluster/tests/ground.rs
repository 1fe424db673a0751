//! The ground that the cluster stands on: what `up` and `down` do to this machine.
//!
//! Needs root and no cluster that anybody uses, and takes minutes: run by name only, `make ground`. Tests
//! that can leave their cluster to the next one, which saves its bring-up; `make ground` ends the last.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

/// The tests share one machine.
static MACHINE: Mutex<()> = Mutex::new(());

/// The machine for one test.
fn machine() -> MutexGuard<'static, ()> {
    assert!(Uid::effective().is_root(), "run as root");
    MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The machine for one test, without a cluster or anything that one has left.
fn bare_machine() -> MutexGuard<'static, ()> {
    let guard = machine();
    cluster("down");
    cluster("programs");
    assert_eq!(ground()["ours"], BTreeSet::new());
    guard
}

/// The folder to which a cluster writes here.
fn state() -> PathBuf {
    valv_cluster::settings::Settings::from_env().unwrap().state
}

fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
    command.args(arguments.split_whitespace());
    command
}

/// Runs `cluster`, which must succeed.
fn cluster(arguments: &str) -> String {
    let output = command(arguments).output().unwrap();
    assert!(output.status.success(), "cluster {arguments}: {}", errors(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What of this machine the cluster could have changed, by kind.
type Ground = BTreeMap<&'static str, BTreeSet<String>>;

/// Fails unless this machine is as it was `before`: shows only what differs.
fn assert_as_it_was(before: &Ground) {
    for (kind, now) in ground() {
        let added: Vec<_> = now.difference(&before[kind]).collect();
        let removed: Vec<_> = before[kind].difference(&now).collect();
        assert!(added.is_empty() && removed.is_empty(), "{kind}: added {added:#?}, removed {removed:#?}");
    }
}

/// This machine now.
fn ground() -> Ground {
    BTreeMap::from([
        ("links", printed("ip", &["-oneline", "link"])),
        ("addresses", printed("ip", &["-oneline", "address"])),
        ("routes", printed("ip", &["-4", "route", "show", "table", "all"])),
        ("routes of v6", printed("ip", &["-6", "route", "show", "table", "all"])),
        ("rules", printed("ip", &["-4", "rule"])),
        ("rules of v6", printed("ip", &["-6", "rule"])),
        ("nftables", printed("nft", &["--stateless", "list", "ruleset"])),
        ("filters", printed("iptables-save", &[])),
        ("filters of v6", printed("ip6tables-save", &[])),
        ("mounts", fs::read_to_string("/proc/self/mountinfo").unwrap().lines().map(str::to_owned).collect()),
        ("control groups", groups()),
        ("ours", ours()),
        ("settings", settings()),
    ])
}

/// What a program prints, line by line, without what changes by itself: times that run out, counts of packets.
fn printed(program: &str, arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(program).args(arguments).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", errors(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(lasting).collect()
}

fn lasting(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if ["valid_lft", "preferred_lft", "expires"].contains(&word) {
            words.next();
        } else if !(word.starts_with('[') && word.contains(':')) {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// The groups below each hierarchy's root. Deeper ones are made by whoever made these.
fn groups() -> BTreeSet<String> {
    folders(Path::new("/sys/fs/cgroup")).iter().flat_map(|hierarchy| folders(hierarchy)).map(shown).collect()
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.filter(|path| path.is_dir()).collect()
}

fn shown(path: PathBuf) -> String {
    path.display().to_string()
}

/// What only a cluster makes: its control groups; processes in them, with its state folder in what they
/// were started with, or in a network that is not the host's.
fn ours() -> BTreeSet<String> {
    let network = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|net| net.ino());
    let text = |pid: &str, file: &str| {
        fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default().replace('\0', " ")
    };
    let (host, state) = (network("self"), state().display().to_string());
    let is_ours = |pid: &String| {
        text(pid, "cgroup").lines().any(|line| line.split('/').nth(1) == Some("valv"))
            || text(pid, "cmdline").contains(&state)
            || network(pid).is_some_and(|network| Some(network) != host)
    };
    let entries =
        fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let pids = entries.filter(|name| name.bytes().all(|digit| digit.is_ascii_digit()));
    // What has ended and was not yet asked how has no command line any more.
    let processes = pids.filter(is_ours).map(|pid| text(&pid, "cmdline")).filter(|line| !line.is_empty());
    processes.chain(groups().into_iter().filter(|group| group.ends_with("/valv"))).collect()
}

/// Kernel settings that are the whole machine's and that kubelet or Cilium would set.
fn settings() -> BTreeSet<String> {
    let names = [
        "kernel/keys/root_maxbytes",
        "kernel/keys/root_maxkeys",
        "kernel/panic",
        "kernel/panic_on_oops",
        "kernel/timer_migration",
        "kernel/unprivileged_bpf_disabled",
        "net/core/bpf_jit_enable",
        "net/ipv4/ip_forward",
        "vm/overcommit_memory",
        "vm/panic_on_oom",
    ];
    let value = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default();
    names.iter().map(|name| format!("{name} {}", value(name).trim())).collect()
}

/// Starts `up`, however it is called, and waits until it says `sign`.
fn up_until(up: &str, sign: &str) -> Child {
    let log = std::env::temp_dir().join(format!("valv-cluster-ground-{}", std::process::id()));
    let up = command(up).stderr(fs::File::create(&log).unwrap()).stdout(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !fs::read_to_string(&log).unwrap().contains(sign) {
        assert!(started.elapsed() < Duration::from_secs(120), "{}", fs::read_to_string(&log).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::remove_file(log).unwrap();
    up
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

/// The number of node-1's init, from `status`.
fn init_of_first_node() -> u32 {
    let status = cluster("status");
    let line = status.lines().find(|line| line.starts_with("node-1")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

/// Kills a part of node-1 from inside: its number is the node's.
fn kill_part(name: &str) {
    let status = cluster("status");
    let line = status.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
    let inner = line.split_whitespace().nth(3).unwrap().to_owned();
    let target = init_of_first_node().to_string();
    let enter = ["--target", &target, "--pid", "--mount", "--", "/bin/kill", "-KILL", &inner];
    assert!(Command::new("nsenter").args(enter).status().unwrap().success());
}

/// Asserts that `status` comes to fail for this reason: an end is noted some milliseconds after it, and
/// the parts of a node do not end in one instant.
fn assert_status_fails(why: &str) {
    let started = Instant::now();
    loop {
        let output = command("status").output().unwrap();
        if !output.status.success() && errors(&output).contains(why) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{why}: {}", errors(&output));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn down_leaves_the_machine_as_it_was() {
    let _machine = bare_machine();
    let before = ground();

    cluster("up --nodes 2");
    let during = ground();
    let world = valv_cluster::Cluster::open().unwrap();
    let mut server = world.world_command("busybox").unwrap().args(["sleep", "3600"]).spawn().unwrap();
    cluster("down");

    assert!(during["ours"].len() > 20, "{:#?}", during["ours"]);
    assert_eq!(during["settings"], before["settings"]);
    assert!(!server.wait().unwrap().success());
    assert_as_it_was(&before);
    assert!(!state().exists());
}

#[test]
fn a_cluster_that_is_up_is_left_as_it_is_and_quickly() {
    let _machine = machine();
    cluster("up");
    let init = init_of_first_node();

    let started = Instant::now();
    cluster("up");
    cluster("run -- true");

    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(init_of_first_node(), init);
}

#[test]
fn a_cluster_that_was_brought_up_for_a_command_goes_with_it() {
    let _machine = bare_machine();
    let before = ground();

    let failed = command("run -- false").output().unwrap();

    assert!(errors(&failed).contains("false: exit status: 1"), "{}", errors(&failed));
    assert_as_it_was(&before);
}

#[test]
fn a_part_that_dies_makes_status_fail_and_the_next_up_starts_clean() {
    let _machine = machine();
    cluster("up");

    kill_part("scheduler");

    assert_status_fails("scheduler on node-1 has ended");
    cluster("up");
    cluster("status");
}

#[test]
fn after_the_init_is_killed_the_next_up_starts_clean() {
    let _machine = machine();
    cluster("up");

    signal(init_of_first_node(), Signal::SIGKILL);

    assert_status_fails("node-1 has ended");
    cluster("up");
    cluster("status");
}

#[test]
fn an_interrupted_up_leaves_nothing() {
    assert_interrupted_up_leaves_nothing("up", "node-1: containerd answers");
}

#[test]
fn an_up_interrupted_at_its_second_node_leaves_nothing() {
    assert_interrupted_up_leaves_nothing("up --nodes 2", "node-2: containerd answers");
}

#[test]
fn an_up_interrupted_at_its_last_images_leaves_nothing() {
    assert_interrupted_up_leaves_nothing("up", "node-1: image valv.local/postgres");
}

fn assert_interrupted_up_leaves_nothing(up: &str, sign: &str) {
    let _machine = bare_machine();
    let before = ground();

    let mut up = up_until(up, sign);
    signal(up.id(), Signal::SIGINT);

    assert!(!up.wait().unwrap().success());
    assert_as_it_was(&before);
    assert!(!state().exists());
}

#[test]
fn after_up_itself_is_killed_the_next_up_starts_clean() {
    let _machine = bare_machine();

    let mut up = up_until("up", "node-1: containerd answers");
    signal(up.id(), Signal::SIGKILL);
    up.wait().unwrap();

    cluster("up");
    cluster("status");
}

#[test]
fn a_node_that_is_killed_is_named_and_replaced() {
    let _machine = machine();
    cluster("up --nodes 2");
    let first = init_of_first_node();

    valv_cluster::Cluster::open().unwrap().kill_node(2).unwrap();

    assert_status_fails("node-2 has ended");
    cluster("up");
    cluster("status");
    assert_eq!(init_of_first_node(), first);
}

#[test]
fn a_server_in_the_world_is_reached_from_the_host() {
    let _machine = machine();
    cluster("up");
    let world = valv_cluster::Cluster::open().unwrap();
    let mut server = world.world_command("busybox").unwrap();

    let mut server = server.args(["nc", "-l", "-p", "8333", "-e", "/bin/echo", "hello"]).spawn().unwrap();
    let mut stream = connected("10.123.0.20:8333");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();

    assert_eq!(answer, "hello\n");
    assert!(server.wait().unwrap().success());
}

fn connected(address: &str) -> TcpStream {
    let started = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(10), "{address}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
