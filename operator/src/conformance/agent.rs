//! The agent, as the containers of a pod run it: a process of its own for each command, told by arguments and files, and
//! heard by the last words that it leaves.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use tokio::process::{Child, Command};

/// How long a command that is told to end may take: PostgreSQL writes everything out.
const END_WITHIN: Duration = Duration::from_secs(30);

/// How often it is looked whether it has ended.
const POLL: Duration = Duration::from_millis(20);

/// As much of its log as an error shows.
const LOG_BYTES: usize = 400;

/// With what a database is tried.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This program, which has the agent in it.
    pub valv: PathBuf,
    /// The folder of PostgreSQL's programs.
    pub postgres: PathBuf,
    /// Where a folder for the database, its copies and keys can be made.
    pub scratch: PathBuf,
}

/// The agent did not do its work, and did not say why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was not started.
    #[error("failed to start valv agent {command}")]
    Start {
        /// Which command.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody tells how it ended.
    #[error("failed to wait for valv agent {command}")]
    Wait {
        /// Which command.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It left no last words.
    #[error("valv agent {command} ended with {status}, and left no word: {log}")]
    Silent {
        /// Which command.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
}

/// The agent.
#[derive(Clone, Debug)]
pub struct Agent {
    programs: Programs,
    folder: PathBuf,
}

impl Agent {
    /// That of `programs`, which leaves its logs and last words in `folder`.
    pub fn new(programs: &Programs, folder: PathBuf) -> Self {
        Self { programs: programs.clone(), folder }
    }

    /// Runs `command` to its end, and returns its last words.
    ///
    /// # Errors
    /// If there are none.
    pub async fn run<T: DeserializeOwned>(&self, command: &str, arguments: &[OsString]) -> Result<T, Error> {
        let words = self.folder.join("termination-log");
        let _ = fs::remove_file(&words);
        let own = option("--termination-log", &words);
        let mut started = self.start(command, &[arguments, &[own]].concat())?;
        let status = started.child.wait().await;
        let status = status.map_err(|source| Error::Wait { command: command.to_owned(), source })?;
        let said = fs::read_to_string(&words).unwrap_or_default();
        serde_json::from_str(&said).map_err(|_| Error::Silent {
            command: command.to_owned(),
            status,
            log: self.end_of_log(command),
        })
    }

    /// Starts `command`, which is told to end when what is returned is dropped.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, command: &str, arguments: &[OsString]) -> Result<Started, Error> {
        let start = || {
            let log = fs::File::create(self.log(command))?;
            Command::new(&self.programs.valv)
                .args(["--log-filter=info", "agent"])
                .args(command.split(' '))
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
        };
        let child = start().map_err(|source| Error::Start { command: command.to_owned(), source })?;
        Ok(Started { child })
    }

    /// Where PostgreSQL's programs are, for the commands that use them.
    pub fn postgres(&self) -> OsString {
        option("--programs", &self.programs.postgres)
    }

    /// The end of what `command` logged, on one line.
    pub fn end_of_log(&self, command: &str) -> String {
        let bytes = fs::read(self.log(command)).unwrap_or_default();
        let end = &bytes[bytes.len().saturating_sub(LOG_BYTES)..];
        String::from_utf8_lossy(end).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn log(&self, command: &str) -> PathBuf {
        self.folder.join(format!("{}.log", command.replace(' ', "-")))
    }
}

/// `name=path`, as one argument.
pub fn option(name: &str, path: &Path) -> OsString {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(path);
    text
}

/// A command of the agent that was started. As a pod does, it tells it to end when it is dropped, and waits.
#[derive(Debug)]
pub struct Started {
    child: Child,
}

impl Drop for Started {
    fn drop(&mut self) {
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else {
            // It has ended.
            return;
        };
        let _ = kill_process(pid, Signal::TERM);
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if asked.elapsed() > END_WITHIN {
                let _ = self.child.start_kill();
            }
            sleep(POLL);
        }
    }
}
