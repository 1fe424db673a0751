//! What a program takes: time, processor, memory.

use std::{
    fs,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};

use super::{
    journal::Journal,
    pod::{Ended, Started},
    store::Store,
    table::Run,
};

/// How often memory is looked at in the round whose time does not count. Each look stops the program for a while, the
/// longer the more memory it has.
const OFTEN: Duration = Duration::from_millis(25);

/// How often in the others.
const SELDOM: Duration = Duration::from_millis(250);

/// Programs of the pod that are not what is measured.
const HARNESS: [&str; 5] = ["unshare", "sh", "tail", "setpriv", "chroot"];

/// Measures what runs beside the server of a journal, with a store.
pub struct Gauge {
    postmaster: u32,
    store: u32,
    interval: Duration,
}

impl Gauge {
    /// `round` 0 is the one whose time does not count.
    pub fn of(round: usize, journal: &Journal, store: &Store) -> Self {
        let interval = if round == 0 { OFTEN } else { SELDOM };
        Self { postmaster: journal.postmaster(), store: store.id(), interval }
    }

    /// Waits for `started`, which must end well.
    pub fn measure(&self, start: impl FnOnce() -> Started) -> (Run, Ended) {
        // What an earlier run left to be written out is not paid for by this one.
        assert!(Command::new("sync").status().unwrap().success());
        let (processor, server, store) = (children_time(), tree_time(self.postmaster), tree_time(self.store));
        let begun = Instant::now();
        let started = start();
        let watch = Memory::of(started.id(), self.interval);
        let ended = started.finish();
        let wall = begun.elapsed();
        let seen = watch.seen();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let run = Run {
            wall,
            processor: children_time().saturating_sub(processor),
            server: tree_time(self.postmaster).saturating_sub(server),
            store: tree_time(self.store).saturating_sub(store),
            most_bytes: seen.together,
            largest_bytes: seen.largest,
            stored: 0,
        };
        (run, ended)
    }
}

/// Of all processes of ours that have ended, and of theirs.
fn children_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let duration = |time: nix::sys::time::TimeVal| {
        Duration::from_micros(
            u64::try_from(time.tv_sec()).unwrap() * 1_000_000 + u64::try_from(time.tv_usec()).unwrap(),
        )
    };
    duration(usage.user_time()) + duration(usage.system_time())
}

/// Of a process and of all below it, be they still there or have they ended.
fn tree_time(root: u32) -> Duration {
    let ticks: u64 = tree(root)
        .iter()
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (_, rest) = stat.rsplit_once(')')?;
            Some(
                rest.split_whitespace()
                    .skip(11)
                    .take(4)
                    .filter_map(|ticks| ticks.parse::<u64>().ok())
                    .sum::<u64>(),
            )
        })
        .sum();
    // The kernel's unit for these is a hundredth of a second, on all that we run on.
    Duration::from_millis(ticks * 10)
}

/// A process and all below it.
fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(children(pid));
        at += 1;
    }
    found
}

/// The children of all threads of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .flat_map(|thread| {
            let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

/// What was seen of a program's memory.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    together: u64,
    largest: u64,
}

/// Looks at the memory of a process and of all below it.
struct Memory {
    is_over: Arc<AtomicBool>,
    most: Arc<Mutex<Seen>>,
    looking: JoinHandle<()>,
}

impl Memory {
    fn of(process: u32, interval: Duration) -> Self {
        let (is_over, most) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let (until, seen) = (is_over.clone(), most.clone());
        let looking = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                let now = look(process);
                let mut seen = seen.lock().unwrap();
                seen.together = seen.together.max(now.together);
                seen.largest = seen.largest.max(now.largest);
                drop(seen);
                thread::sleep(interval);
            }
        });
        Self { is_over, most, looking }
    }

    fn seen(self) -> Seen {
        self.is_over.store(true, Ordering::Relaxed);
        self.looking.join().unwrap();
        *self.most.lock().unwrap()
    }
}

fn look(root: u32) -> Seen {
    let text = |pid: u32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let measured = tree(root).into_iter().filter(|pid| !HARNESS.contains(&text(*pid, "comm").trim()));
    measured.fold(Seen::default(), |seen, pid| Seen {
        together: seen.together + bytes(&text(pid, "smaps_rollup"), "Pss:"),
        largest: seen.largest.max(bytes(&text(pid, "status"), "VmHWM:")),
    })
}

/// What `name` says in a file of `/proc`; 0 if it is not there, as of a process that has ended.
fn bytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}
