//! What each part is started with.

pub mod cilium;
pub mod containerd;
pub mod control_plane;
pub mod kubelet;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::folder::NodeFolder;
use crate::network;
use crate::process;
use crate::program::Programs;

/// Where Debian keeps the compiler that Cilium calls by its plain name.
const COMPILER: &str = "/usr/lib/llvm-19/bin";

/// What every part of a node may need to know.
#[derive(Debug)]
pub struct Site {
    /// The node's number.
    pub number: u8,
    /// Its folder.
    pub folder: NodeFolder,
    /// The cluster's programs.
    pub programs: Programs,
    path: OsString,
}

impl Site {
    /// The site of node `number`.
    pub fn new(number: u8, folder: NodeFolder, programs: Programs) -> Result<Self> {
        let path = process::path_variable(programs.folders().chain([PathBuf::from(COMPILER)]))?;
        Ok(Self { number, folder, programs, path })
    }

    /// The node's name.
    pub fn name(&self) -> String {
        network::node_name(self.number)
    }

    /// The node's address.
    pub fn address(&self) -> String {
        network::node_address(self.number)
    }

    /// A command for one of the cluster's programs, or of Debian's. Nothing of the caller's environment
    /// reaches it: a proxy there would be used for the API server too.
    pub fn command(&self, program: &str) -> Result<Command> {
        let program = self.programs.find(program).or_else(|_| process::find(program))?;
        let mut command = Command::new(program);
        command.env_clear().env("PATH", &self.path).env("HOME", self.folder.path("etc"));
        // Each has a small heap, of which collecting garbage takes a sixth of its time.
        command.env("GOGC", "400").env("GOMEMLIMIT", "768MiB");
        Ok(command)
    }
}
