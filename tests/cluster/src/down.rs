//! Taking the cluster down: whole or broken, up or half-way up.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cgroup::Layout;
use crate::listing;
use crate::progress::Progress;
use crate::settings::Settings;
use crate::{folder, world};

/// Ends everything of the cluster and removes its state; its logs stay in [`Settings::last_logs`].
///
/// Does not need to know what runs: everything of ours is in one control group, which the kernel ends.
/// Mounts, links, routes, rules and eBPF programs are in namespaces, which end with their processes.
///
/// # Errors
/// If the state folder is somebody else's: nothing has been touched then.
pub fn down(settings: &Settings, progress: &Progress) -> Result<()> {
    folder::require_ours(&settings.state)?;
    let layout = Layout::detect()?;
    if layout.any_exists() {
        let step = progress.step("ending every process of the cluster");
        layout.end_all()?;
        world::await_unwired()?;
        step.done();
    }
    if settings.state.exists() {
        let step = progress.step("removing the cluster's state");
        keep_logs(settings)?;
        fs::remove_dir_all(&settings.state)
            .with_context(|| format!("failed to remove {}", settings.state.display()))?;
        step.done();
    }
    Ok(())
}

/// Moves the logs of every node to where they outlive the state, in place of those of the time before.
fn keep_logs(settings: &Settings) -> Result<()> {
    let kept = settings.last_logs();
    if kept.exists() {
        fs::remove_dir_all(&kept).with_context(|| format!("failed to remove {}", kept.display()))?;
    }
    fs::create_dir_all(&kept).with_context(|| format!("failed to create {}", kept.display()))?;
    for (member, path) in listing::of(&settings.state)? {
        let logs = path.join("log");
        if logs.is_dir() {
            rename(&logs, &kept.join(member))?;
        }
    }
    let audit = folder::audit_log(&settings.state);
    if audit.exists() { rename(&audit, &kept.join("audit.log")) } else { Ok(()) }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("failed to move {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_else_is_not_removed() {
        let home = std::env::temp_dir().join(format!("valv-cluster-home-{}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("thesis.txt"), "").unwrap();
        let settings = Settings { cache: home.join("cache"), state: home.clone() };

        let refused = down(&settings, &Progress::new()).unwrap_err().to_string();

        assert!(refused.contains("is not empty and not a cluster's"), "{refused}");
        assert!(home.join("thesis.txt").exists());
        fs::remove_dir_all(home).unwrap();
    }
}
