//! What people run: `kubectl valv …` where the binary is installed as `kubectl-valv`, and `valv …` otherwise.
//!
//! Input: a command, the person's own kubeconfig, the time. Output: text on standard output, an exit code. It asks the
//! API server, as that person, and makes `Backup`s and `RestoreDrill`s; it never talks to a store, a database or the
//! operator, and prints no secret. What it prints is decided in pure functions; [`api`] is the only file that asks.

pub mod amount;
pub mod api;
pub mod backup;
pub mod drill;
pub mod keys;
pub mod status;
pub mod table;
pub mod watch;

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand};
use jiff::Timestamp;

pub use api::{Api, Error};

/// What people run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Last backup, where it lies, last drill, promises, keys, and what is wrong. Exit code 0: all is well; 1: something
    /// is wrong; 2: it could not be asked
    Status(status::Arguments),

    /// Take a backup now, watch one, cancel one, list them
    #[command(subcommand)]
    Backup(backup::Command),

    /// Drill a restore now, watch one, list them
    #[command(subcommand)]
    Drill(drill::Command),

    /// Prove that a key is still there
    #[command(subcommand)]
    Keys(keys::Command),
}

/// Which cluster, as whom.
#[derive(Args, Clone, Debug, Default)]
pub struct Connection {
    /// The kubeconfig file. Absent: as kubectl does, $KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The context in it. Absent: the current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// All is well; what was asked for was done.
    Well,
    /// It was asked, and something is wrong.
    Wrong,
}

impl Verdict {
    /// The exit code. What could not be asked at all is [`COULD_NOT_ASK`].
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Wrong => 1,
        }
    }
}

/// Time between two looks at what is watched: less than the operator's five seconds between two reports.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Exit code of a command that could not ask; also of one that was called in a wrong way.
pub const COULD_NOT_ASK: u8 = 2;

/// What standard output is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Screen {
    /// A terminal: a bar is drawn over itself.
    Terminal,
    /// A file or a pipe: plain lines.
    Lines,
}

/// Standard input.
pub enum Input<'a> {
    /// A terminal, which would show what is typed.
    Terminal,
    /// A file or a pipe.
    Stream(&'a mut dyn Read),
}

/// What every command is given.
pub struct Surroundings<'a> {
    /// Standard input.
    pub input: Input<'a>,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// What that is.
    pub screen: Screen,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// Time between two looks.
    pub look_every: Duration,
}

impl Surroundings<'_> {
    /// Prints a line.
    pub fn say(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).map_err(Error::Print)
    }
}

/// Runs `command`.
///
/// # Errors
/// If it could not ask, or not print. What it found to be wrong is no error but [`Verdict::Wrong`].
pub async fn run(command: &Command, surroundings: &mut Surroundings<'_>) -> Result<Verdict, Error> {
    match command {
        Command::Status(arguments) => {
            let api = Api::connect(&arguments.connection).await?;
            status::run(&api, arguments, surroundings).await
        }
        Command::Backup(command) => {
            let api = Api::connect(command.connection()).await?;
            backup::run(&api, command, surroundings).await
        }
        Command::Drill(command) => {
            let api = Api::connect(command.connection()).await?;
            drill::run(&api, command, surroundings).await
        }
        Command::Keys(command) => {
            let api = Api::connect(command.connection()).await?;
            keys::run(&api, command, surroundings).await
        }
    }
}

/// Whether `error` says only that nobody reads what is printed any more, as with `| head`.
pub fn is_closed_pipe(error: &Error) -> bool {
    matches!(error, Error::Print(source) if source.kind() == io::ErrorKind::BrokenPipe)
}
