//! The process of a store: starting it, ending it, and whether it is well.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secrecy::ExposeSecret;

use crate::log;
use crate::process::{self, Identity};
use crate::program::Programs;
use crate::s3::{Method, Request};
use crate::settings::Settings;
use crate::store::{Protection, Store};
use crate::wait::{TAIL_LINES, Wait};
use crate::world::{self, World};

/// It answers within a fifth of a second; on a busy machine, much later.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// A killed process is gone in milliseconds.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// How often it is asked whether it answers: a handshake each time.
const INTERVAL: Duration = Duration::from_millis(20);

/// The server of one store.
#[derive(Debug)]
pub struct Server<'a> {
    store: &'a Store,
    log: PathBuf,
}

impl<'a> Server<'a> {
    /// That of `store`, which is in the state folder of `settings`.
    pub fn of(store: &'a Store, settings: &Settings) -> Self {
        Self { store, log: world::log_of(settings, store.name) }
    }

    /// Starts it in the world and waits until it answers. One that runs stays as it is.
    ///
    /// # Errors
    /// If it ends or does not answer: with the end of its log.
    pub fn start(&self, world: &World, programs: &Programs) -> Result<()> {
        self.start_by(world.command(programs.find("versitygw")?))
    }

    /// The same, wherever `program` runs versitygw.
    pub fn start_by(&self, program: Command) -> Result<()> {
        if self.process().is_none_or(|process| !process.is_alive()) {
            let mut child = self.command(program)?.spawn().context("failed to start a store")?;
            fs::write(self.process_file(), serde_json::to_vec(&Identity::of(child.id())?)?)?;
            // So that it does not stay as a zombie if it ends before us.
            std::thread::spawn(move || child.wait());
        }
        self.await_answer()
    }

    /// Ends it like a power cut. It no longer counts as what should run.
    pub fn stop(&self) -> Result<()> {
        let Some(process) = self.process() else { return Ok(()) };
        if process.is_alive() {
            kill(Pid::from_raw(process.pid.try_into()?), Signal::SIGKILL)?;
            // A thread of it may hold the socket a little longer than its first one lives.
            Wait::new(format!("{} has ended", self.store.name), END_DEADLINE)
                .until(|| Ok((!process.is_alive() && self.refuses_connections()).then_some(())))?;
        }
        fs::remove_file(self.process_file()).context("failed to note that a store was stopped")
    }

    /// Fails unless it runs: with the end of its log if it has ended by itself.
    pub fn check(&self) -> Result<()> {
        match self.process() {
            Some(process) if process.is_alive() => Ok(()),
            Some(_) => bail!("{} has ended{}", self.store.name, log::quote(&self.log, TAIL_LINES)),
            None => bail!("{} was stopped; `cluster up` starts it", self.store.name),
        }
    }

    /// How it is, for a person.
    pub fn state(&self) -> String {
        match self.process() {
            Some(process) if process.is_alive() => {
                format!("runs, process {}, {} at {}", process.pid, self.store.endpoint(), self.store.address)
            }
            Some(_) => "has ended".to_owned(),
            None => "was stopped".to_owned(),
        }
    }

    /// The command has nothing of the caller's environment, and the secret in its own, where only root
    /// sees it. In a process group of its own, Ctrl-C at the caller's terminal does not reach it.
    fn command(&self, mut command: Command) -> Result<Command> {
        let store = self.store;
        let administrator = store.administrator_key()?;
        command.arg(format!("--port={}", store.address)).arg(format!("--region={}", store.region));
        command.arg("--cert").arg(store.certificate()).arg("--key").arg(store.certificate_key());
        // Without it every request is a connection and a handshake of its own.
        command.arg("--keep-alive");
        // Kept users are found under each other's names after one of them was changed (versitygw 1.8.0).
        command.arg("--iam-cache-disable");
        command.arg("--iam-dir").arg(store.folder("users")).arg("posix");
        if store.protection == Protection::VersionsAndLocks {
            command.arg("--versioning-dir").arg(store.folder("versions"));
        }
        command.arg(store.folder("objects"));
        command.env_clear().env("PATH", process::path_variable([])?).env("HOME", store.folder("users"));
        command.env("ROOT_ACCESS_KEY_ID", &administrator.id);
        command.env("ROOT_SECRET_ACCESS_KEY", administrator.secret.expose_secret());
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("failed to open {}", self.log.display()))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        Ok(command)
    }

    /// An answer to a signed request over TLS whose certificate holds.
    fn await_answer(&self) -> Result<()> {
        let administrator = self.store.administrator()?;
        let mut last = None;
        let answered = Wait::new(format!("{} answers", self.store.name), START_DEADLINE)
            .every(INTERVAL)
            .showing(&self.log)
            .until(|| {
                self.check()?;
                match administrator.must(&Request::new(Method::Get, "/")) {
                    Ok(_) => Ok(Some(())),
                    Err(error) => {
                        last = Some(error);
                        Ok(None)
                    }
                }
            });
        match (answered, last) {
            (Err(error), Some(last)) => Err(error.context(format!("{last:#}"))),
            (answered, _) => answered,
        }
    }

    fn refuses_connections(&self) -> bool {
        TcpStream::connect_timeout(&self.store.address, END_DEADLINE)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }

    fn process(&self) -> Option<Identity> {
        serde_json::from_slice(&fs::read(self.process_file()).ok()?).ok()
    }

    fn process_file(&self) -> PathBuf {
        self.store.folder("process.json")
    }
}
