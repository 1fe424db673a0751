//! A process in a pod of the local cluster, as the node sees it: to stop it and let it go on.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};
use valv_cluster::ProcessIdentity;

/// The control group of the pods of the local cluster's first node.
const PODS: &str = "/valv/node-1/kubepods";

/// Between two looks for a process that lives for less than a second.
const GLANCE: Duration = Duration::from_millis(2);

/// Asks for the address of `kube-dns.kube-system.svc.cluster.local`, and says yes if anything is answered.
const NAME_QUERY: &str = r#"
exec 3<>"/dev/udp/$0/$1"
printf '\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08kube-dns\x0bkube-system\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01' >&3
[ "$(timeout 3 dd bs=512 count=1 <&3 2>/dev/null | wc -c)" -gt 12 ] && echo yes
"#;

/// Between two looks for a process that is to be gone.
const BLINK: Duration = Duration::from_millis(1);

/// A killed process gives its memory back before it is gone.
const GONE: Duration = Duration::from_secs(10);

/// Ends every process of every pod of the local cluster's first node at once, as when it loses power, and returns how
/// many, once they are gone. Its kubelet stays, and starts the pods again.
///
/// # Errors
/// If a process cannot be ended.
pub fn cut_power() -> Result<usize> {
    let mut running = vec![];
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        let pid = folder.file_name().and_then(|name| name.to_str()?.parse().ok());
        // One that has ended meanwhile has no group.
        let group = fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
        if group.contains(PODS) {
            running.extend(pid.and_then(|pid| ProcessIdentity::of(pid).ok()));
        }
    }
    let ended = end(&running)?;
    ensure!(ended > 0, "no process is in a control group of {PODS}");
    Ok(ended)
}

/// Kills these processes, and returns how many of them were there, once none runs any more.
fn end(running: &[ProcessIdentity]) -> Result<usize> {
    let mut killed = vec![];
    for process in running {
        if kill(Pid::from_raw(process.pid.try_into()?), Signal::SIGKILL).is_ok() {
            killed.push(process);
        }
    }
    let begun = Instant::now();
    while let Some(process) = killed.iter().find(|process| process.is_alive()) {
        let (pid, waited) = (process.pid, GONE.as_secs());
        ensure!(begun.elapsed() < GONE, "the process {pid} was killed {waited} s ago and runs on");
        thread::sleep(BLINK);
    }
    Ok(killed.len())
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

    /// Waits until the pod with this UID has a process with this argument, which has written so many bytes, and stops
    /// it in the middle.
    ///
    /// # Errors
    /// If there is none by then, or it has ended by itself.
    pub async fn caught(uid: &str, argument: &str, written: u64, deadline: Duration) -> Result<Self> {
        let begun = Instant::now();
        loop {
            let found = Self::find(uid, argument);
            if let Ok(process) = found
                && process.has_written().is_ok_and(|bytes| bytes >= written)
            {
                process.freeze()?;
                process.is_frozen().await?;
                return Ok(process);
            }
            if begun.elapsed() > deadline {
                bail!("the pod {uid} had no process with {argument} that wrote {written} bytes");
            }
            sleep(GLANCE).await;
        }
    }

    /// Bytes that it has written, wherever to.
    fn has_written(self) -> Result<u64> {
        let counts = fs::read_to_string(format!("/proc/{}/io", self.pid))?;
        let written = counts.lines().find_map(|line| line.strip_prefix("wchar: "));
        Ok(written.context("the kernel counts what is written")?.parse()?)
    }

    /// Waits until it stands still: it was told so.
    async fn is_frozen(self) -> Result<()> {
        loop {
            let status = fs::read_to_string(format!("/proc/{}/status", self.pid));
            let status = status.context("the process ended before it could be stopped")?;
            let state =
                status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or_default().trim();
            match state.chars().next() {
                Some('T' | 't') => return Ok(()),
                Some('Z' | 'X') | None => bail!("the process ended before it could be stopped"),
                Some(_) => sleep(GLANCE).await,
            }
        }
    }

    /// Any process of the pod with this UID: they share its network.
    ///
    /// # Errors
    /// If it has none.
    pub fn any(uid: &str) -> Result<Self> {
        let spellings = [uid.to_owned(), uid.replace('-', "_")];
        let found = fs::read_dir("/proc")?.find_map(|entry| {
            let folder = entry.ok()?.path();
            let pid: i32 = folder.file_name()?.to_str()?.parse().ok()?;
            let group = fs::read_to_string(folder.join("cgroup")).ok()?;
            spellings.iter().any(|uid| group.contains(uid.as_str())).then(|| Self { pid: Pid::from_raw(pid) })
        });
        found.with_context(|| format!("the pod {uid} has no process"))
    }

    /// Whether a connection to this listener comes about from its pod's network.
    ///
    /// # Errors
    /// If it cannot be tried there.
    pub fn reaches(self, listener: SocketAddr) -> Result<bool> {
        self.tries(r#"exec 3<>"/dev/tcp/$0/$1"; echo yes"#, listener)
    }

    /// Whether this server of names answers a question from its pod's network, by UDP.
    ///
    /// # Errors
    /// If it cannot be tried there.
    pub fn asks_for_names(self, server: SocketAddr) -> Result<bool> {
        self.tries(NAME_QUERY, server)
    }

    /// Whether `script`, run by the host's bash in its pod's network, says yes within seconds.
    fn tries(self, script: &str, place: SocketAddr) -> Result<bool> {
        let mut enter = Command::new("nsenter");
        enter.args(["--net", &format!("--target={}", self.pid), "--", "timeout", "5", "bash", "-c"]);
        // So that not to come so far is told from being kept out.
        enter.arg(format!("echo tried; {script}")).args([place.ip().to_string(), place.port().to_string()]);
        let output = enter.output().context("failed to run nsenter")?;
        let printed = String::from_utf8_lossy(&output.stdout);
        ensure!(printed.contains("tried"), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(printed.contains("yes"))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// So many that one which is only told to end, and not waited for, is seen.
    const PROCESSES: usize = 50;

    #[test]
    fn what_was_ended_runs_no_more() {
        for _ in 0..PROCESSES {
            let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
            assert_eq!(end(&[ProcessIdentity::of(sleeper.id()).unwrap()]).unwrap(), 1);
            assert!(sleeper.try_wait().unwrap().is_some(), "it runs on");
        }
    }
}
