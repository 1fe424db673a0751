//! Where a node keeps its things: one folder, the same path outside and inside.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::listing;
use crate::network;
use crate::pki::Pki;
use crate::settings::Settings;

/// In every state folder: `down` removes no folder without it.
const MARKER: &str = ".valv-cluster";

/// The folder of one node.
#[derive(Clone, Debug)]
pub struct NodeFolder {
    state: PathBuf,
    node: PathBuf,
}

impl NodeFolder {
    /// The folder of node `number`.
    pub fn new(settings: &Settings, number: u8) -> Self {
        Self { state: settings.state.clone(), node: settings.state.join(network::node_name(number)) }
    }

    /// Makes it, empty.
    pub fn create(&self) -> Result<()> {
        if self.node.exists() {
            fs::remove_dir_all(&self.node)
                .with_context(|| format!("failed to empty {}", self.node.display()))?;
        }
        for folder in ["cni", "cni-bin", "etc", "exits", "log/pods", "volumes", "var-log"] {
            self.make(folder)?;
        }
        for folder in
            ["containerd", "containerd-state", "etcd", "kubelet/plugins", "overlay/up", "overlay/work"]
        {
            self.make(folder)?;
        }
        fs::create_dir_all(self.volumes_mount())?;
        Ok(())
    }

    fn make(&self, folder: &str) -> Result<()> {
        let path = self.path(folder);
        fs::create_dir_all(&path).with_context(|| format!("failed to create {}", path.display()))
    }

    /// Something in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.node.join(name)
    }

    /// The log of a part.
    pub fn log(&self, part: &str) -> PathBuf {
        self.path("log").join(format!("{part}.log"))
    }

    /// How a part has ended, if it has.
    pub fn exit(&self, part: &str) -> PathBuf {
        self.path("exits").join(part)
    }

    /// What the supervisor has to tell, a line each.
    pub fn events(&self) -> PathBuf {
        self.path("events")
    }

    /// What containerd listens on.
    pub fn containerd_socket(&self) -> PathBuf {
        self.path("containerd.sock")
    }

    /// Where local volumes are, inside every node: each has its own folder mounted there.
    pub fn volumes_mount(&self) -> PathBuf {
        volumes_mount(&self.state)
    }

    /// The cluster's certificates.
    pub fn pki(&self) -> Pki {
        Pki::at(pki_folder(&self.state))
    }

    /// The API server's audit log.
    pub fn audit_log(&self) -> PathBuf {
        audit_log(&self.state)
    }

    /// Writes a file into it and returns its path.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("failed to write {}", path.display()))?;
        Ok(path)
    }
}

/// Makes the state folder of a cluster.
pub fn create_state(state: &Path) -> Result<()> {
    require_ours(state)?;
    fs::create_dir_all(state).with_context(|| format!("failed to create {}", state.display()))?;
    let marker = state.join(MARKER);
    fs::write(&marker, "The state of a local cluster. `cluster down` removes this folder.\n")
        .with_context(|| format!("failed to write {}", marker.display()))
}

/// Fails if `state` holds what no cluster has put there.
pub fn require_ours(state: &Path) -> Result<()> {
    if state.exists() && !state.join(MARKER).exists() && !listing::of(state)?.is_empty() {
        bail!(
            "{} is not empty and not a cluster's: name another folder with VALV_STATE, or remove it yourself",
            state.display()
        );
    }
    Ok(())
}

/// Where local volumes are, inside every node of the cluster with this state folder.
pub fn volumes_mount(state: &Path) -> PathBuf {
    state.join("volumes")
}

/// Where the certificates of the cluster with this state folder are.
pub fn pki_folder(state: &Path) -> PathBuf {
    state.join("pki")
}

/// Where the API server of the cluster with this state folder writes its audit log.
pub fn audit_log(state: &Path) -> PathBuf {
    state.join("audit.log")
}
