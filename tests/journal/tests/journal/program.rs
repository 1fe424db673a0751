//! The program under test, as a process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long the program may take to do what it is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The settings of a process: nothing is inherited.
pub type Environment = BTreeMap<&'static str, String>;

/// What a command that ended left.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// What a command that succeeded printed.
    pub fn json(&self) -> Value {
        assert!(self.status.success(), "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// What a command that failed logged.
    pub fn refusal(&self) -> &str {
        assert!(!self.status.success(), "{}", self.stdout);
        &self.stderr
    }
}

/// Runs a command to its end.
pub fn run(arguments: &[&str], environment: &Environment) -> Ended {
    let output = command(arguments, environment).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Ended { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// A `journal serve` that goes when this does.
pub struct Serving {
    process: Child,
    log: Log,
    pub port: u16,
}

impl Serving {
    pub fn start(environment: &Environment) -> Self {
        let mut process = command(&["serve"], environment).spawn().unwrap();
        let log = Log::follow(&mut process);
        let line = log.wait_for("serving");
        let listen = line["listen"].as_str().unwrap();
        let port = listen.rsplit_once(':').unwrap().1.parse().unwrap();
        Self { process, log, port }
    }

    /// All lines so far, as one text.
    pub fn log(&self) -> String {
        self.log.lines.lock().unwrap().join("\n")
    }

    /// Waits for a line with this message.
    pub fn wait_for_log(&self, message: &str) -> Value {
        self.log.wait_for(message)
    }

    /// Sends SIGTERM.
    pub fn ask_to_stop(&self) {
        self.signal("TERM");
    }

    /// Takes the processor from it, until [`Self::thaw`].
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Waits until the process ended by itself.
    pub fn wait(mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Log {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Log {
    fn follow(process: &mut Child) -> Self {
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in stderr.lines() {
                shared.lock().unwrap().push(line.unwrap());
            }
        });
        Self { lines }
    }

    fn wait_for(&self, message: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let lines = self.lines.lock().unwrap().clone();
            let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(line) = parsed.into_iter().find(|line| line["message"] == message) {
                return line;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the log never said {message:?}: {}", self.lines.lock().unwrap().join("\n"));
    }
}

fn command(arguments: &[&str], environment: &Environment) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_journal")));
    command.args(arguments).env_clear().envs(environment);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
