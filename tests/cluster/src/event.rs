//! What a node's supervisor tells whoever brings the node up: a file with a line an event.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Something that has happened in a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A step of the bring-up is done.
    Reached(Milestone),
    /// The bring-up has failed, and the node with it.
    Failed(String),
}

/// The steps, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Milestone {
    /// Images can be imported.
    Containerd,
    /// Objects can be applied.
    ApiServer,
    /// The node's kubelet has registered it.
    Registered,
    /// Pods can have addresses.
    Network,
    /// Pods can run.
    Ready,
}

impl Milestone {
    /// As a person reads it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Containerd => "containerd answers",
            Self::ApiServer => "the API server is ready",
            Self::Registered => "the node is registered",
            Self::Network => "Cilium is healthy",
            Self::Ready => "the node is ready",
        }
    }
}

/// The end of the file that the supervisor writes to.
#[derive(Debug)]
pub struct Teller {
    path: PathBuf,
}

impl Teller {
    /// Tells in the file at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Adds a line.
    pub fn tell(&self, event: &Event) -> Result<()> {
        let line = format!("{}\n", serde_json::to_string(event)?);
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.write_all(line.as_bytes()).with_context(|| format!("failed to write {}", self.path.display()))
    }
}

/// The events of which `told` have been seen already; the rest, oldest first. A line that is not yet
/// whole is for the next call.
pub fn after(path: &Path, told: usize) -> Vec<Event> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().skip(told).map_while(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_read_once_and_in_order() {
        let path = std::env::temp_dir().join(format!("valv-cluster-events-{}", std::process::id()));
        let teller = Teller::new(path.clone());
        teller.tell(&Event::Reached(Milestone::Containerd)).unwrap();
        teller.tell(&Event::Failed("no".to_owned())).unwrap();

        let (all, rest) = (after(&path, 0), after(&path, 1));

        fs::remove_file(path).unwrap();
        assert_eq!(all, [Event::Reached(Milestone::Containerd), Event::Failed("no".to_owned())]);
        assert_eq!(rest, [Event::Failed("no".to_owned())]);
    }
}
