//! Where the cluster keeps what it builds and what it runs.
//!
//! The only file that reads the environment.

use std::env::{var_os, vars_os};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Where programs and images are built once. Environment: `VALV_CACHE`.
pub const CACHE_VARIABLE: &str = "VALV_CACHE";

/// Where a running cluster writes. Environment: `VALV_STATE`.
pub const STATE_VARIABLE: &str = "VALV_STATE";

const DEFAULT_STATE: &str = "/var/tmp/valv-cluster";

/// What a node has of its own: what the machine has there, the node does not see.
const OF_THE_NODE: [&str; 6] = ["/proc", "/run", "/sys", "/var/lib", "/var/log", "/var/run"];

/// What separates paths in the options of a mount, and in a search path.
const SEPARATORS: [char; 3] = [':', ',', '\\'];

/// The two folders of the local cluster, both outside the checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Programs and images: built once, keyed by the content of their inputs.
    pub cache: PathBuf,
    /// Everything that a run writes; `down` removes it.
    pub state: PathBuf,
}

impl Settings {
    /// The folders that the environment names, or the defaults: `$XDG_CACHE_HOME/valv`, else
    /// `$HOME/.cache/valv`, and `/var/tmp/valv-cluster`.
    ///
    /// # Errors
    /// If a folder is where a node could not use it.
    pub fn from_env() -> Result<Self> {
        let cache = match path(CACHE_VARIABLE) {
            Some(cache) => cache,
            None => path("XDG_CACHE_HOME")
                .or_else(|| path("HOME").map(|home| home.join(".cache")))
                .map(|caches| caches.join("valv"))
                .context("HOME is not set: name a folder for the cluster's programs with VALV_CACHE")?,
        };
        let state = path(STATE_VARIABLE).unwrap_or_else(|| PathBuf::from(DEFAULT_STATE));
        Self { cache: std::path::absolute(cache)?, state: std::path::absolute(state)? }.usable()
    }

    fn usable(self) -> Result<Self> {
        for (variable, folder) in [(CACHE_VARIABLE, &self.cache), (STATE_VARIABLE, &self.state)] {
            let shown = folder.display();
            if let Some(own) = OF_THE_NODE.iter().find(|own| folder.starts_with(own)) {
                bail!("{variable} must not be below {own}, of which a node has its own: {shown}");
            }
            if folder.to_string_lossy().contains(SEPARATORS) {
                bail!("{variable} must not have a colon, a comma or a backslash in it: {shown}");
            }
        }
        if self.cache.starts_with(&self.state) {
            bail!("{CACHE_VARIABLE} must not be in {STATE_VARIABLE}, which `cluster down` removes");
        }
        Ok(self)
    }

    /// The lock of the state: beside it, for it outlives it.
    pub(crate) fn lock(&self) -> PathBuf {
        self.beside_state(".lock")
    }

    /// The logs of the last cluster that was taken down.
    pub fn last_logs(&self) -> PathBuf {
        self.beside_state(".last-logs")
    }

    fn beside_state(&self, suffix: &str) -> PathBuf {
        let mut path = self.state.clone().into_os_string();
        path.push(suffix);
        PathBuf::from(path)
    }
}

/// The kubeconfig that the caller chose, if any.
pub(crate) fn kubeconfig_of_caller() -> Option<PathBuf> {
    path("KUBECONFIG")
}

/// The cargo that runs us, or the one on the path, as if called by hand: it does not inherit what cargo tells a program that
/// it runs, as it does a test. Build scripts that look at that (ring's) would run again, and half of all be built anew.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(path("CARGO").unwrap_or_else(|| PathBuf::from("cargo")));
    let told = [
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_BIN_",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "OUT_DIR",
    ];
    for (name, _) in vars_os() {
        if told.iter().any(|told| name.as_encoded_bytes().starts_with(told.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// The caller's search path, with the folders where Debian keeps what only root runs.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    folders.extend(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    folders
}

fn path(variable: &str) -> Option<PathBuf> {
    var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_called_as_if_by_hand_and_not_by_a_test_of_this_crate() {
        let cargo = cargo();

        let removed: Vec<_> =
            cargo.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        assert!(
            ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME"].iter().all(|name| removed.contains(&name.as_ref())),
            "{removed:?}"
        );
        assert!(
            !removed.iter().any(|name| *name == "CARGO_TARGET_DIR" || *name == "CARGO_HOME"),
            "{removed:?}"
        );
    }

    fn settings(cache: &str, state: &str) -> Result<Settings> {
        Settings { cache: PathBuf::from(cache), state: PathBuf::from(state) }.usable()
    }

    #[test]
    fn a_folder_that_a_node_could_not_use_is_refused() {
        assert!(settings("/home/ada/.cache/valv", "/var/tmp/valv-cluster").is_ok());
        for state in ["/run/valv", "/var/lib/valv", "/home/ada/a:b", "/home/ada/a,b"] {
            let refused = settings("/home/ada/.cache/valv", state).unwrap_err().to_string();
            assert!(refused.starts_with("VALV_STATE must not"), "{refused}");
        }
    }

    #[test]
    fn a_cache_that_down_would_remove_is_refused() {
        assert!(settings("/home/ada/valv/cache", "/home/ada/valv").is_err());
    }
}
