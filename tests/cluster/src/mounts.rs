//! What a node sees of the file system: the host's, with everything that it writes to replaced.
//!
//! Called inside the node's mount namespace only.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::folder::NodeFolder;

/// The node's own control group, as a mount: Cilium would otherwise mount the root of the hierarchy over
/// it, hook into the sockets of every process of the host, and hide from the runtime where its pods are.
pub const SOCKET_GROUP: &str = "/run/valv/sockets";

/// Kernel settings that are the whole machine's and that kubelet or Cilium set: in the node they are
/// files, so that the host keeps its own.
const SHARED_SETTINGS: [&str; 8] = [
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/timer_migration",
    "kernel/unprivileged_bpf_disabled",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

/// Mounts everything that a node needs whose v2 control group is `group`.
pub fn prepare(folder: &NodeFolder, group: &Path) -> Result<()> {
    // Containers' mounts must come and go in the kubelet's view too.
    let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
    mount(None::<&str>, "/", None::<&str>, shared, None::<&str>).context("failed to share mounts")?;
    fresh("proc", "/proc", None)?;
    fresh("bpf", "/sys/fs/bpf", None)?;
    fresh("tmpfs", "/run", Some("mode=755"))?;
    fs::create_dir_all(SOCKET_GROUP)?;
    bind(group, Path::new(SOCKET_GROUP))?;
    bind(&folder.path("var-log"), Path::new("/var/log"))?;
    bind(&folder.path("volumes"), &folder.volumes_mount())?;
    let (up, work) = (folder.path("overlay/up"), folder.path("overlay/work"));
    let layers = format!("lowerdir=/var/lib,upperdir={},workdir={}", up.display(), work.display());
    fresh("overlay", "/var/lib", Some(&layers))?;
    hold_back_settings(folder)
}

fn hold_back_settings(folder: &NodeFolder) -> Result<()> {
    for setting in SHARED_SETTINGS {
        let real = Path::new("/proc/sys").join(setting);
        // Not every kernel has every one.
        if let Ok(value) = fs::read_to_string(&real) {
            let held = folder.write(&format!("etc/{}", setting.replace('/', ".")), &value)?;
            bind(&held, &real)?;
        }
    }
    Ok(())
}

fn fresh(kind: &str, target: &str, options: Option<&str>) -> Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("failed to mount {kind} on {target}"))
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("failed to mount {} on {}", source.display(), target.display()))
}
