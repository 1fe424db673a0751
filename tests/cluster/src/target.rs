//! Which cluster tests run on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::down::down;
use crate::lock::Lock;
use crate::progress::Progress;
use crate::settings::{self, Settings};
use crate::up::up;
use crate::{interrupt, process};

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
    ///
    /// # Errors
    /// If the local one is meant and it is not up.
    pub fn from_env() -> Result<Self> {
        match elsewhere(&Settings::from_env()?)? {
            Some(kubeconfig) => Ok(Self::Foreign { kubeconfig }),
            None => Ok(Self::Local(Box::new(Cluster::open()?))),
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

/// What `KUBECONFIG` names, unless that is the local cluster, up or not.
fn elsewhere(settings: &Settings) -> Result<Option<PathBuf>> {
    let local = Cluster::at(settings.clone())?.kubeconfig();
    Ok(settings::kubeconfig_of_caller().filter(|chosen| !same(chosen, &local)))
}

/// Makes the cluster ready that tests run on: brings the local one up, with the images of what has
/// changed. One that `KUBECONFIG` names is left as it is. `program` is as for [`up`].
pub fn make_ready(settings: &Settings, program: &Path, progress: &Progress) -> Result<()> {
    match elsewhere(settings)? {
        Some(kubeconfig) => {
            progress.say(&format!("using the cluster of KUBECONFIG={}", kubeconfig.display()))
        }
        None => drop(up(settings, program, 1, progress)?),
    }
    Ok(())
}

/// Runs `command` with the cluster ready that tests run on, and then takes the local one down unless it
/// was up and well before.
///
/// # Errors
/// If the cluster does not come up, or the command fails; it is taken down then too.
pub fn run_with(
    settings: &Settings,
    program: &Path,
    command: &mut Command,
    progress: &Progress,
) -> Result<()> {
    let stays = elsewhere(settings)?.is_some() || Cluster::open().is_ok_and(|before| before.check().is_ok());
    let ran = make_ready(settings, program, progress).and_then(|()| process::run_shown(command));
    if !stays {
        interrupt::forget();
        let _lock = Lock::take(settings, progress)?;
        down(settings, progress)?;
    }
    ran
}

/// Whether two paths are one file.
fn same(one: &PathBuf, other: &PathBuf) -> bool {
    one == other
        || fs::canonicalize(one).is_ok_and(|one| fs::canonicalize(other).is_ok_and(|other| one == other))
}
