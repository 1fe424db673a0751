//! Runs PostgreSQL until it or the pod ends.
//!
//! Passes on what Kubernetes says in its own words, in PostgreSQL's: a SIGTERM, which PostgreSQL would take as
//! "wait until every client has gone", becomes SIGINT, "end the sessions, write everything out, end". Makes
//! PostgreSQL read its files again when a mounted one has changed. As PID 1 it also buries the processes that
//! have nobody else to do it. Writes nothing.
//!
//! # Guarantees
//! The agent lives exactly as long as the postmaster, and ends with its status. If the agent is killed as
//! PID 1, the kernel ends everything in the container; if it is killed where it is not PID 1, PostgreSQL goes
//! on, and keeps the volume's lock, so that no second server is started.

use std::{
    io,
    path::PathBuf,
    process::{Child, Command},
    time::Duration,
};

use clap::Args;
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait},
};
use tokio::{
    signal::unix::{self, SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use super::{
    Database,
    durable::FileError,
    programs::{self, Programs},
    volume::{self, Volume},
    watch::Content,
};
use crate::error::chain;

/// How often the watched files are compared. Kubernetes itself takes up to a minute to change them.
const POLL: Duration = Duration::from_secs(1);

/// What `valv agent database run` is told.
#[derive(Args, Clone, Debug)]
pub struct Run {
    /// Which volume, and whose programs.
    #[command(flatten)]
    pub database: Database,

    /// PostgreSQL's settings
    #[arg(long, default_value = "/etc/valv/database/postgresql.conf")]
    pub config_file: PathBuf,

    /// Who may connect from where, and how
    #[arg(long, default_value = "/etc/valv/database/pg_hba.conf")]
    pub hba_file: PathBuf,

    /// A folder whose files PostgreSQL shall read again when one changes. Repeatable
    #[arg(long, value_name = "DIR")]
    pub watch: Vec<PathBuf>,
}

/// Why the database does not run any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("there is no database on volume {}; `valv agent database init` makes it", volume.display())]
    NoDatabase {
        /// Which volume.
        volume: PathBuf,
    },

    /// The volume.
    #[error("failed to use the volume")]
    Volume(#[source] volume::Error),

    /// A folder to be watched.
    #[error("failed to read a folder to be watched; is it mounted?")]
    Watch(#[source] FileError),

    /// The kernel refused a signal handler.
    #[error("failed to listen for signals")]
    Signal(#[source] io::Error),

    /// PostgreSQL was not started.
    #[error("failed to start PostgreSQL")]
    Start(#[source] programs::Error),

    /// The kernel does not tell about our children.
    #[error("failed to wait for PostgreSQL")]
    Wait(#[source] io::Error),

    /// PostgreSQL ended, and not well.
    #[error("PostgreSQL ended with status {code}; its own log lines above say why")]
    Ended {
        /// Its exit status; for a signal, 128 and the signal's number, as a shell has it.
        code: u8,
    },
}

/// Runs PostgreSQL until it ends.
pub async fn run(run: &Run) -> Result<(), Error> {
    // Before PostgreSQL is started, so that no signal is missed.
    let mut signals = Signals::listen().map_err(Error::Signal)?;
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut content = Content::of(&run.watch).map_err(Error::Watch)?;

    let volume = Volume::take(&run.database.volume).map_err(Error::Volume)?;
    let postmaster = Postmaster::start(run, &volume)?;
    // From here on the lock is PostgreSQL's alone: released when its last process has ended.
    drop(volume);

    loop {
        tokio::select! {
            biased;
            _ = signals.child.recv() => {
                if let Some(status) = bury(postmaster.pid).map_err(Error::Wait)? {
                    return ended(status);
                }
            }
            _ = signals.terminate.recv() => {
                info!(database.pid = postmaster.number(), "ending the database");
                break;
            }
            _ = signals.interrupt.recv() => break,
            _ = poll.tick() => match Content::of(&run.watch) {
                Ok(now) if now == content => {}
                Ok(now) => {
                    content = now;
                    info!(database.pid = postmaster.number(), "watched files changed, reloading");
                    postmaster.send(Signal::HUP);
                }
                Err(error) => warn!(error = chain(&error), "failed to read the watched files"),
            },
        }
    }

    // No reload any more.
    postmaster.send(Signal::INT);
    loop {
        signals.child.recv().await;
        if let Some(status) = bury(postmaster.pid).map_err(Error::Wait)? {
            return ended(status);
        }
    }
}

/// The signals that mean something to us.
struct Signals {
    child: unix::Signal,
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// The running PostgreSQL.
///
/// Not one of tokio's processes: those are waited for one by one, behind our back. Here one place waits for
/// all children, so that a stranger is buried and PostgreSQL's status is not lost.
struct Postmaster {
    pid: Pid,
    /// Never waited for through this.
    _process: Child,
}

impl Postmaster {
    fn start(run: &Run, volume: &Volume) -> Result<Self, Error> {
        if !volume.has_database().map_err(Error::Volume)? {
            return Err(Error::NoDatabase { volume: run.database.volume.clone() });
        }
        volume.tidy().map_err(Error::Volume)?;
        let program = Programs::of(&run.database).path("postgres");
        let process = Command::new(&program)
            .arg("-D")
            .arg(volume.data())
            .arg("-c")
            .arg(format!("config_file={}", run.config_file.display()))
            .arg("-c")
            .arg(format!("hba_file={}", run.hba_file.display()))
            .stdin(volume.handed_on().map_err(Error::Volume)?)
            .spawn()
            .map_err(|source| Error::Start(programs::Error::Start { program, source }))?;
        let pid = Pid::from_child(&process);
        info!(database.pid = pid.as_raw_pid(), "started the database");
        Ok(Self { pid, _process: process })
    }

    fn number(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    /// Sends `signal`. PostgreSQL has not been buried, so the number is still its own.
    fn send(&self, signal: Signal) {
        if let Err(errno) = kill_process(self.pid, signal) {
            warn!(database.pid = self.number(), error = chain(&errno), "failed to signal the database");
        }
    }
}

/// Buries every child that has ended, whoever it was; returns the status of `postmaster` if it was among them.
fn bury(postmaster: Pid) -> io::Result<Option<WaitStatus>> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == postmaster => ended = Some(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(ended),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What PostgreSQL's `status` means for us.
fn ended(status: WaitStatus) -> Result<(), Error> {
    let signal = status.terminating_signal().map(|signal| signal + 128);
    let code = status.exit_status().or(signal).unwrap_or(1);
    info!(database.exit_code = code, "the database ended");
    match u8::try_from(code).unwrap_or(1) {
        0 => Ok(()),
        code => Err(Error::Ended { code }),
    }
}
