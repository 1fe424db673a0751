//! Running programs, and knowing whether a process is still the one that was started.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::log;
use crate::progress::Step;
use crate::settings::search_path;
use crate::wait::{TAIL_LINES, Wait};

/// No single build takes longer than this, even on a slow machine.
const BUILD_DEADLINE: Duration = Duration::from_secs(45 * 60);

/// How long a program that was asked to end may take until it is made to.
const GRACE: Duration = Duration::from_secs(10);

/// The program `name` in the search path or in root's folders.
pub fn find(name: &str) -> Result<PathBuf> {
    search_path()
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is not installed"))
}

/// Folders as the value of `PATH`: `first`, then the caller's.
pub fn path_variable(first: impl IntoIterator<Item = PathBuf>) -> Result<std::ffi::OsString> {
    Ok(std::env::join_paths(first.into_iter().chain(search_path()))?)
}

/// Runs `command` and returns what it prints.
///
/// # Errors
/// If it does not exit with 0: with what it printed on standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("failed to run {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a long `command` with what it prints in `log`, showing the newest line of it in `step`.
///
/// # Errors
/// If it fails, with the log's tail; or at Ctrl-C, when it is ended with all it has started.
pub fn run_logged(command: &mut Command, log: &Path, step: &Step<'_>) -> Result<()> {
    let file = create(log)?;
    run_long(command.stdout(file.try_clone()?).stderr(file), log, step)
}

/// Like [`run_logged`], with standard output in a file of its own.
pub fn run_into(command: &mut Command, output: &Path, log: &Path, step: &Step<'_>) -> Result<()> {
    run_long(command.stdout(create(output)?).stderr(create(log)?), log, step)
}

fn create(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    }
    File::create(path).with_context(|| format!("failed to create {}", path.display()))
}

fn run_long(command: &mut Command, log: &Path, step: &Step<'_>) -> Result<()> {
    let shown = show(command);
    let child = command.stdin(Stdio::null()).process_group(0).spawn();
    let child = child.with_context(|| format!("failed to run {shown}"))?;
    let wait = Wait::new(format!("{shown} ends"), BUILD_DEADLINE).showing(log);
    let status = finish(child, &wait, || step.at(log::tail(log, 1).trim()))?;
    if !status.success() {
        bail!("{shown}: {status}{}", log::quote(log, TAIL_LINES));
    }
    Ok(())
}

/// Runs `command` for as long as it takes; what it prints, a person sees.
///
/// # Errors
/// If it fails; or at Ctrl-C, when it is ended with all it has started.
pub fn run_shown(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let child = command.stdin(Stdio::null()).process_group(0).spawn();
    let child = child.with_context(|| format!("failed to run {shown}"))?;
    let status = finish(child, &Wait::new(format!("{shown} ends"), Duration::MAX), || ())?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Waits for `child`, the leader of its own process group, calling `meanwhile` all the time. Ends the
/// group if the wait fails.
fn finish(mut child: Child, wait: &Wait, mut meanwhile: impl FnMut()) -> Result<ExitStatus> {
    let ended = wait.until(|| {
        meanwhile();
        Ok(child.try_wait()?)
    });
    if ended.is_err() {
        end(&mut child, GRACE)?;
    }
    ended
}

/// Ends the process group that `child` leads, by force if it has not ended within `grace`.
fn end(child: &mut Child, grace: Duration) -> Result<()> {
    let group = Pid::from_raw(i32::try_from(child.id())?);
    // It may have ended meanwhile; then there is nothing left to end.
    let _ = killpg(group, Signal::SIGTERM);
    let wait = Wait::new("a program that was asked to end ends", grace).despite_signals();
    if wait.until(|| Ok(child.try_wait()?)).is_err() {
        let _ = killpg(group, Signal::SIGKILL);
        child.wait()?;
    }
    Ok(())
}

fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let arguments = command.get_args().take(4).map(|argument| format!(" {}", argument.to_string_lossy()));
    format!("{}{}", program.to_string_lossy(), arguments.collect::<String>())
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number outside the node.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    started_ticks: u64,
}

impl Identity {
    /// The process that has the number `pid` now.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = Stat::read(pid).with_context(|| format!("process {pid} is gone"))?;
        Ok(Self { pid, started_ticks: stat.started_ticks })
    }

    /// Whether it still runs. A zombie does not.
    pub fn is_alive(&self) -> bool {
        Stat::read(self.pid)
            .is_some_and(|stat| stat.started_ticks == self.started_ticks && !matches!(stat.state, 'Z' | 'X'))
    }
}

/// What `/proc/<pid>/stat` says. Source: proc(5).
struct Stat {
    state: char,
    started_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name in parentheses may itself hold spaces and parentheses: count from the last one.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self { state: fields.first()?.chars().next()?, started_ticks: fields.get(19)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_process_is_itself_while_it_runs() {
        assert!(Identity::of(std::process::id()).unwrap().is_alive());
    }

    #[test]
    fn a_later_process_with_the_same_number_is_another() {
        let earlier = Identity { pid: std::process::id(), started_ticks: 1 };

        assert!(!earlier.is_alive());
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = Stat::parse("7 (a) b)) S 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4711 0").unwrap();

        assert_eq!((stat.state, stat.started_ticks), ('S', 4711));
    }

    #[test]
    fn a_program_that_fails_says_why() {
        let error = output(Command::new("sh").args(["-c", "echo no >&2; exit 3"])).unwrap_err();

        assert!(error.to_string().ends_with("exit status: 3: no"), "{error}");
    }

    #[test]
    fn a_program_that_does_not_end_when_asked_is_made_to() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' TERM; echo deaf; sleep 60"]).process_group(0).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let mut said = [0; 4];
        child.stdout.take().unwrap().read_exact(&mut said).unwrap();

        end(&mut child, Duration::from_millis(100)).unwrap();

        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}
