//! A process in a pod of the local cluster, as the node sees it: to stop it and let it go on.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The control group of the pods of the local cluster's first node.
const PODS: &str = "/valv/node-1/kubepods";

/// Ends every process of every pod of the local cluster's first node at once, as when it loses power, and returns how
/// many. Its kubelet stays, and starts the pods again.
///
/// # Errors
/// If a process cannot be ended.
pub fn cut_power() -> Result<usize> {
    let mut ended = 0;
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        let number = folder.file_name().and_then(|name| name.to_str()?.parse().ok());
        let Some(pid) = number.map(Pid::from_raw) else { continue };
        // One that has ended meanwhile has no group.
        let group = fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
        if group.contains(PODS) && kill(pid, Signal::SIGKILL).is_ok() {
            ended += 1;
        }
    }
    ensure!(ended > 0, "no process is in a control group of {PODS}");
    Ok(ended)
}

/// A process in a pod. The node's processes are this machine's.
#[derive(Clone, Copy, Debug)]
pub struct PodProcess {
    pid: Pid,
}

impl PodProcess {
    /// The process in the pod with this UID whose command line has `argument` as an argument.
    pub fn find(uid: &str, argument: &str) -> Result<Self> {
        // On control groups of systemd's making the UID has underscores.
        let spellings = [uid.to_owned(), uid.replace('-', "_")];
        let found = fs::read_dir("/proc")?.filter_map(|entry| {
            let folder = entry.ok()?.path();
            let pid: i32 = folder.file_name()?.to_str()?.parse().ok()?;
            let group = fs::read_to_string(folder.join("cgroup")).ok()?;
            let command = fs::read_to_string(folder.join("cmdline")).ok()?;
            let is_of_pod = spellings.iter().any(|uid| group.contains(uid.as_str()));
            let has_argument = command.split('\0').any(|given| given == argument);
            (is_of_pod && has_argument).then(|| Self { pid: Pid::from_raw(pid) })
        });
        found.into_iter().next().with_context(|| format!("the pod {uid} has no process with {argument}"))
    }

    /// Ends it, like a node that loses power.
    pub fn kill(self) -> Result<()> {
        kill(self.pid, Signal::SIGKILL).context("failed to kill the process")
    }

    /// Stops it, like a machine that is starved.
    pub fn freeze(self) -> Result<()> {
        kill(self.pid, Signal::SIGSTOP).context("failed to stop the process")
    }

    /// Lets it go on.
    pub fn thaw(self) -> Result<()> {
        kill(self.pid, Signal::SIGCONT).context("failed to let the process go on")
    }

    /// Runs a program of its image beside it, as `user`, and returns what it prints.
    ///
    /// # Errors
    /// If it fails: says what it printed.
    pub fn beside(self, user: u32, command: &[&str]) -> Result<String> {
        let mut enter = Command::new("nsenter");
        enter.args(["--mount", "--net", "--ipc"]).arg(format!("--target={}", self.pid));
        enter.arg(format!("--setuid={user}")).arg(format!("--setgid={user}")).arg("--").args(command);
        let output = enter.output().context("failed to run nsenter")?;
        let printed = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(output.status.success(), "{command:?}: {}", printed(&output.stderr));
        Ok(printed(&output.stdout))
    }
}
