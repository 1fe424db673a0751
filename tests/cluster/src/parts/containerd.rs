//! The container runtime.

use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context, Result};

use crate::part::Part;
use crate::parts::Site;
use crate::process;

/// Where Debian keeps the plugin for the loopback interface.
const LOOPBACK: &str = "/usr/lib/cni/loopback";

/// Every pod's first container. Imported, like all images.
const SANDBOX_IMAGE: &str = "valv.local/pause:1";

/// containerd, with the network's plugin.
pub fn containerd(site: &Site) -> Result<Part> {
    let plugins = site.folder.path("cni-bin");
    for (plugin, program) in
        [("cilium-cni", site.programs.find("cilium-cni")?), ("loopback", LOOPBACK.into())]
    {
        symlink(program, plugins.join(plugin)).with_context(|| format!("failed to link {plugin}"))?;
    }
    let config = site.folder.write("etc/containerd.toml", &config(site)?)?;
    let mut command = site.command("containerd")?;
    command.arg("--config").arg(config);
    Ok(Part { name: "containerd", command })
}

/// `ctr` for the node's containerd: inside the node or outside, for its socket is a file that both see.
pub fn ctr(site: &Site) -> Result<Command> {
    let mut command = site.command("ctr")?;
    command.arg("--address").arg(site.folder.containerd_socket()).args(["--namespace", "k8s.io"]);
    Ok(command)
}

/// Plugins that need what the kernel or the node lacks are off; so is moving `oom_score_adj` below our
/// own, which is not ours to move.
fn config(site: &Site) -> Result<String> {
    let folder = |name: &str| site.folder.path(name).display().to_string();
    Ok(format!(
        r#"version = 2
root = "{root}"
state = "{state}"
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{SANDBOX_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_hugetlb_controller = true
  disable_apparmor = true
  enable_unprivileged_ports = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        BinaryName = "{runc}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{networks}"
"#,
        root = folder("containerd"),
        state = folder("containerd-state"),
        socket = site.folder.containerd_socket().display(),
        runc = process::find("runc")?.display(),
        plugins = folder("cni-bin"),
        networks = folder("cni"),
    ))
}
