//! kubectl: how the bring-up talks to the API server.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::wait::Wait;

/// A call costs some 60 ms of a processor, so conditions are looked at less often than files are.
const INTERVAL: Duration = Duration::from_millis(250);

/// kubectl as one user.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// As the user of `kubeconfig`.
    pub fn new(program: PathBuf, kubeconfig: PathBuf) -> Self {
        Self { program, kubeconfig }
    }

    /// A command, to be completed. It uses no proxy, and keeps what it learns beside its kubeconfig.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().arg(format!("--kubeconfig={}", self.kubeconfig.display()));
        let folder = self.kubeconfig.parent().unwrap_or(Path::new("/"));
        command.arg(format!("--cache-dir={}", folder.join("kubectl").display())).arg("--request-timeout=10s");
        command
    }

    /// What kubectl prints.
    pub fn output(&self, arguments: &[&str]) -> Result<String> {
        process::output(self.command().args(arguments))
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let mut command = self.command();
        command.args(["apply", "--server-side", "--force-conflicts", "--filename=-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().context("kubectl takes its manifest on standard input")?;
        input.write_all(manifest.as_bytes())?;
        drop(input);
        let ended = child.wait_with_output()?;
        if !ended.status.success() {
            bail!("kubectl apply: {}", String::from_utf8_lossy(&ended.stderr).trim());
        }
        Ok(())
    }

    /// Waits until kubectl, called like this, prints what `accept` accepts. A call that fails is not yet
    /// what is waited for.
    pub fn wait(&self, wait: Wait, arguments: &[&str], accept: impl Fn(&str) -> bool) -> Result<String> {
        wait.every(INTERVAL).until(|| Ok(self.output(arguments).ok().filter(|printed| accept(printed))))
    }
}
