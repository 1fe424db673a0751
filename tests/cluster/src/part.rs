//! The parts of a node: long-running programs, each with its log.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::folder::NodeFolder;
use crate::log;
use crate::wait::TAIL_LINES;

/// The parts of the first node: the control plane, and what every node has.
pub const OF_CONTROL_NODE: [&str; 7] =
    ["etcd", "apiserver", "containerd", "kubelet", "controller-manager", "scheduler", "cilium"];

/// The parts of every other node.
pub const OF_WORKER_NODE: [&str; 3] = ["containerd", "kubelet", "cilium"];

/// The parts of node `number`.
pub fn names(number: u8) -> &'static [&'static str] {
    if number == 1 { &OF_CONTROL_NODE } else { &OF_WORKER_NODE }
}

/// A part that is to be started.
#[derive(Debug)]
pub struct Part {
    /// One of [`names`].
    pub name: &'static str,
    /// The program with all its arguments.
    pub command: Command,
}

/// Starts `part`, and from then on notes how it ends, in a file beside its log. Parts are not started
/// again: one that ends is a failure that must be seen.
pub fn start(part: Part, folder: &NodeFolder) -> Result<()> {
    let Part { name, mut command } = part;
    let log = File::create(folder.log(name))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn().with_context(|| format!("failed to start {name}"))?;
    fs::write(folder.path("exits").join(format!(".{name}.pid")), child.id().to_string())?;
    let exit = folder.exit(name);
    std::thread::spawn(move || {
        let ended = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        note(&exit, &ended);
    });
    Ok(())
}

/// If the note cannot be written, the disk is full or gone, and the part's log says so too.
fn note(exit: &PathBuf, ended: &str) {
    if let Err(error) = fs::write(exit, ended) {
        eprintln!("failed to note in {} that the part has ended ({ended}): {error}", exit.display());
    }
}

/// Fails if a part of node `number` has ended: names it, with the end of its log.
pub fn check(folder: &NodeFolder, number: u8) -> Result<()> {
    for name in names(number) {
        if let Ok(ended) = fs::read_to_string(folder.exit(name)) {
            let node = crate::network::node_name(number);
            let tail = log::quote(&folder.log(name), TAIL_LINES);
            bail!("{name} on {node} has ended ({ended}){tail}");
        }
    }
    Ok(())
}

/// The number of a part's process inside its node, if it was started.
pub fn inner_pid(folder: &NodeFolder, name: &str) -> Option<u32> {
    fs::read_to_string(folder.path("exits").join(format!(".{name}.pid"))).ok()?.parse().ok()
}

/// How a part is, for a person.
pub fn state(folder: &NodeFolder, name: &str) -> String {
    match (fs::read_to_string(folder.exit(name)), inner_pid(folder, name)) {
        (Ok(ended), _) => format!("has ended ({ended})"),
        (Err(_), Some(pid)) => format!("runs, process {pid} of the node"),
        (Err(_), None) => "was not started".to_owned(),
    }
}
