//! Which cluster tests run on.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::settings;

/// The cluster that tests run on.
#[derive(Clone, Debug)]
pub enum Target {
    /// The local one: its world, nodes and audit log can be reached.
    Local(Box<Cluster>),
    /// Another, of which only the kubeconfig is known.
    Foreign {
        /// As `KUBECONFIG` names it.
        kubeconfig: PathBuf,
    },
}

impl Target {
    /// The cluster that `KUBECONFIG` names, or the local one if it names none, or that.
    pub fn from_env() -> Result<Self> {
        let Some(chosen) = settings::kubeconfig_of_caller() else {
            return Ok(Self::Local(Box::new(Cluster::open()?)));
        };
        match Cluster::open() {
            Ok(local) if same(&chosen, &local.kubeconfig()) => Ok(Self::Local(Box::new(local))),
            Ok(_) | Err(_) => Ok(Self::Foreign { kubeconfig: chosen }),
        }
    }

    /// The kubeconfig to use.
    pub fn kubeconfig(&self) -> PathBuf {
        match self {
            Self::Local(cluster) => cluster.kubeconfig(),
            Self::Foreign { kubeconfig } => kubeconfig.clone(),
        }
    }
}

/// Whether two paths are one file.
fn same(one: &PathBuf, other: &PathBuf) -> bool {
    one == other
        || fs::canonicalize(one).is_ok_and(|one| fs::canonicalize(other).is_ok_and(|other| one == other))
}
