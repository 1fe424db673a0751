//! What a program takes: time, processor, memory.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};

use super::{
    journal::Journal,
    pod::{Ended, Started},
};

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(40);

/// Programs of the pod that are not what is measured.
const HARNESS: [&str; 4] = ["unshare", "sh", "tail", "setpriv"];

/// One run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    pub wall: Duration,
    pub processor: Duration,
    /// The server's, while it ran.
    pub server: Duration,
    pub most_bytes: u64,
    /// Bytes in the store, for a backup.
    pub stored: u64,
}

/// Measures what runs beside the server of a journal.
pub struct Gauge {
    postmaster: u32,
}

impl Gauge {
    pub fn of(journal: &Journal) -> Self {
        Self { postmaster: journal.postmaster() }
    }

    /// Waits for `started`, which must end well.
    pub fn measure(&self, start: impl FnOnce() -> Started) -> (Run, Ended) {
        let (processor, server) = (children_time(), self.server_time());
        let begun = Instant::now();
        let started = start();
        let watch = Memory::of(started.id());
        let ended = started.finish();
        let wall = begun.elapsed();
        let most_bytes = watch.most();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let run = Run {
            wall,
            processor: children_time().saturating_sub(processor),
            server: self.server_time().saturating_sub(server),
            most_bytes,
            stored: 0,
        };
        (run, ended)
    }

    /// Of the server and of its processes that have ended.
    fn server_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.postmaster)).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let ticks: u64 =
            rest.split_whitespace().skip(11).take(4).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // The kernel's unit for these is a hundredth of a second, on all that we run on.
        Duration::from_millis(ticks * 10)
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

/// Looks at the memory of a process and of all below it.
struct Memory {
    is_over: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    looking: JoinHandle<()>,
}

impl Memory {
    fn of(process: u32) -> Self {
        let (is_over, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, seen) = (is_over.clone(), most.clone());
        let looking = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                seen.fetch_max(resident(process), Ordering::Relaxed);
                thread::sleep(INTERVAL);
            }
        });
        Self { is_over, most, looking }
    }

    fn most(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.looking.join().unwrap();
        self.most.load(Ordering::Relaxed)
    }
}

fn resident(root: u32) -> u64 {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let parent = rest.split_whitespace().nth(1).and_then(|parent| parent.parse::<u32>().ok());
        parents.insert(pid, parent.unwrap_or_default());
    }
    let is_below = |mut pid: u32| {
        while pid > 1 {
            if pid == root {
                return true;
            }
            pid = parents.get(&pid).copied().unwrap_or_default();
        }
        false
    };
    parents.keys().filter(|pid| is_below(**pid)).map(|pid| proportional(*pid)).sum()
}

fn proportional(pid: u32) -> u64 {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if HARNESS.contains(&name.trim()) {
        return 0;
    }
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}
