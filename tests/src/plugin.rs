//! `kubectl valv`, as people run it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::world::World;

/// The binary that the tests were built with, under the name by which kubectl finds it.
pub struct Plugin {
    folder: TempDir,
    kubeconfig: PathBuf,
}

/// One that was started, and may run yet. It ends with this.
pub struct Running {
    child: Child,
    printed: Arc<Mutex<Vec<u8>>>,
    reads: JoinHandle<()>,
}

impl Plugin {
    /// As the administrator.
    pub fn install(world: &World) -> Result<Self> {
        let this = std::env::current_exe()?;
        let built = this.ancestors().nth(2).context("a test lies in target/debug/deps")?.join("valv");
        ensure!(built.is_file(), "{} is not built", built.display());
        let folder = tempfile::tempdir()?;
        symlink(built, folder.path().join("kubectl-valv"))?;
        Ok(Self { folder, kubeconfig: world.kubeconfig() })
    }

    /// As whoever has `token`, and nothing else.
    pub fn with_token(world: &World, token: &str) -> Result<Self> {
        let mut plugin = Self::install(world)?;
        let mut config: Value = serde_yaml::from_str(&fs::read_to_string(&plugin.kubeconfig)?)?;
        for user in config["users"].as_array_mut().context("a kubeconfig has users")? {
            user["user"] = json!({ "token": token });
        }
        plugin.kubeconfig = plugin.folder.path().join("kubeconfig");
        fs::write(&plugin.kubeconfig, serde_json::to_vec(&config)?)?;
        Ok(plugin)
    }

    /// What it prints, and how it ends.
    pub async fn says(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).stdin(Stdio::null()).output().await.context("failed to run the plugin")
    }

    /// What it prints, and how it ends, with `input` on its standard input.
    pub async fn told(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("failed to run the plugin")?;
        let mut stdin = child.stdin.take().context("a pipe")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        child.wait_with_output().await.context("failed to run the plugin")
    }

    /// Starts it, with lines for an output.
    pub fn starts(&self, arguments: &[&str]) -> Result<Running> {
        Running::of(self.command(arguments))
    }

    /// Starts it on a terminal.
    pub fn starts_on_a_terminal(&self, arguments: &[&str]) -> Result<Running> {
        let command = self.command(arguments);
        let words = [command.as_std().get_program()].into_iter().chain(command.as_std().get_args());
        // None of them has a quote in it.
        let line: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
        Running::of(script)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.folder.path().join("kubectl-valv"));
        command.args(arguments).arg("--kubeconfig").arg(&self.kubeconfig).kill_on_drop(true);
        command
    }
}

impl Running {
    fn of(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("failed to run {:?}", command.as_std()))?;
        let mut stdout = child.stdout.take().context("a pipe")?;
        let printed: Arc<Mutex<Vec<u8>>> = Arc::default();
        let heard = printed.clone();
        let reads = tokio::spawn(async move {
            let mut bytes = vec![0; 4096];
            while let Ok(read @ 1..) = stdout.read(&mut bytes).await {
                heard.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..read]);
            }
        });
        Ok(Self { child, printed, reads })
    }

    /// What it printed so far.
    pub fn printed(&self) -> String {
        text(&self.printed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until it has ended: its exit code, and all that it printed.
    pub async fn ended(mut self) -> Result<(Option<i32>, String)> {
        let status = self.child.wait().await?;
        (&mut self.reads).await?;
        Ok((status.code(), self.printed()))
    }
}

/// As text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
