//! Control groups: one group for everything of ours, in each hierarchy; below it one a node, and one
//! for the world.
//!
//! On cgroup v1 with a v2 hierarchy beside it (hybrid), pods are limited in the v1 hierarchies and all
//! processes are found in the v2 one; on pure v2 both are the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait::Wait;

/// Where Linux distributions mount the hierarchies.
const MOUNT: &str = "/sys/fs/cgroup";

/// The group of everything of ours, in each hierarchy.
const OURS: &str = "valv";

/// Below a node's group: where its own processes are, beside those of its pods. On v2 a group either
/// has processes or limits what is below it.
const PROCESSES: &str = "init";

/// Killed processes are gone in milliseconds; a pod with a gigabyte of page tables takes a second.
const DEADLINE: Duration = Duration::from_secs(30);

/// How the hierarchies are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One hierarchy for everything.
    V2,
    /// One a controller, and a v2 hierarchy without controllers beside them.
    Hybrid,
}

impl Layout {
    /// The layout of this machine.
    pub fn detect() -> Result<Self> {
        let has = |folder: &str| Path::new(MOUNT).join(folder).join("cgroup.controllers").exists();
        if has("") {
            Ok(Self::V2)
        } else if has("unified") {
            Ok(Self::Hybrid)
        } else {
            bail!("no cgroup v2 hierarchy is mounted at {MOUNT} or {MOUNT}/unified")
        }
    }

    /// The v2 hierarchy.
    fn v2(self) -> PathBuf {
        match self {
            Self::V2 => PathBuf::from(MOUNT),
            Self::Hybrid => Path::new(MOUNT).join("unified"),
        }
    }

    /// All hierarchies.
    fn hierarchies(self) -> Result<Vec<PathBuf>> {
        match self {
            Self::V2 => Ok(vec![self.v2()]),
            Self::Hybrid => {
                let entries = fs::read_dir(MOUNT)?.collect::<Result<Vec<_>, _>>()?;
                let paths = entries.into_iter().map(|entry| entry.path());
                Ok(paths.filter(|path| path.is_dir() && !path.is_symlink()).collect())
            }
        }
    }

    /// The v2 group of `member`, a node or the world.
    pub fn group(self, member: &str) -> PathBuf {
        self.v2().join(OURS).join(member)
    }

    /// The group that the processes of `member` are in.
    pub fn processes(self, member: &str) -> PathBuf {
        self.group(member).join(PROCESSES)
    }

    /// Makes the groups of `member`.
    pub fn create(self, member: &str) -> Result<()> {
        for hierarchy in self.hierarchies()? {
            let mut group = hierarchy.clone();
            for name in [OURS, member] {
                delegate(&group)?;
                group.push(name);
                create(&group)?;
            }
            delegate(&group)?;
        }
        create(&self.processes(member))
    }

    /// Moves this process to the group of `member`, by way of the root so that its cgroup namespace is
    /// that of the host: paths below [`MOUNT`] mean the same inside and outside. Calls
    /// `enter_namespace` in between.
    pub fn join(self, member: &str, enter_namespace: impl FnOnce() -> Result<()>) -> Result<()> {
        move_here(&self.v2())?;
        enter_namespace()?;
        move_here(&self.processes(member))
    }

    /// The cgroup that a kubelet is to put its pods in, as kubelet names it.
    pub fn kubelet_root(self, member: &str) -> String {
        format!("/{OURS}/{member}")
    }

    /// Ends every process of `member`, waits until they are gone, and removes its groups.
    pub fn end(self, member: &str) -> Result<()> {
        self.end_below(&Path::new(OURS).join(member))
    }

    /// Ends every process of ours, and removes every group of ours.
    pub fn end_all(self) -> Result<()> {
        self.end_below(Path::new(OURS))
    }

    fn end_below(self, group: &Path) -> Result<()> {
        let kill = self.v2().join(group).join("cgroup.kill");
        if kill.exists() {
            fs::write(&kill, "1").with_context(|| format!("failed to write {}", kill.display()))?;
        }
        for hierarchy in self.hierarchies()? {
            let group = hierarchy.join(group);
            Wait::new(format!("{} is empty", group.display()), DEADLINE)
                .until(|| Ok(remove(&group).then_some(())))?;
        }
        Ok(())
    }

    /// Whether a group of `member` is left.
    pub fn exists(self, member: &str) -> bool {
        self.group(member).exists()
    }

    /// Whether anything of ours is left.
    pub fn any_exists(self) -> bool {
        self.v2().join(OURS).exists()
    }
}

fn create(group: &Path) -> Result<()> {
    fs::create_dir_all(group).with_context(|| format!("failed to create {}", group.display()))
}

fn move_here(group: &Path) -> Result<()> {
    let file = group.join("cgroup.procs");
    fs::write(&file, "0").with_context(|| format!("failed to join {}", group.display()))
}

/// Lets groups below `group` use what it can use: on v2 its controllers, and on v1's cpuset its
/// processors and memory, which a new group has none of.
fn delegate(group: &Path) -> Result<()> {
    if let Ok(controllers) = fs::read_to_string(group.join("cgroup.controllers")) {
        for controller in controllers.split_whitespace() {
            // One that cannot be handed down is one the kubelet does without, or names in its error.
            let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
    let Some(parent) = group.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (own, above) = (group.join(file), parent.join(file));
        let is_empty = fs::read_to_string(&own).is_ok_and(|value| value.trim().is_empty());
        // On v2 empty means "as above", and the file of the root does not exist.
        if is_empty
            && let Ok(value) = fs::read_to_string(above)
            && !value.trim().is_empty()
        {
            fs::write(&own, value).with_context(|| format!("failed to write {}", own.display()))?;
        }
    }
    Ok(())
}

/// Removes a group and those below it, as far as they are empty. Whether nothing is left.
fn remove(group: &Path) -> bool {
    let below = fs::read_dir(group).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    for child in below.filter(|path| path.is_dir()) {
        remove(&child);
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}
