//! The programs that are Go modules: built once from a folder with `go.mod` and `go.sum`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::checkout;
use crate::digest::Inputs;
use crate::image;
use crate::process;
use crate::progress::Progress;

/// Without debugging information: a third of the size.
const LINK_FLAGS: &str = "-s -w";

/// One Go module, of which some programs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The control plane, kubelet and kubectl.
    Kubernetes,
    /// The network.
    Cilium,
    /// The cluster's names.
    CoreDns,
    /// The cluster's volumes.
    LocalPath,
    /// Helm, for those who install charts.
    Helm,
    /// A server that speaks S3, for those who need object storage.
    VersityGw,
}

impl Component {
    /// All of them, in the order in which they are built.
    pub const ALL: [Self; 6] =
        [Self::Kubernetes, Self::Cilium, Self::CoreDns, Self::LocalPath, Self::Helm, Self::VersityGw];

    /// The folder below `components/`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Cilium => "cilium",
            Self::CoreDns => "coredns",
            Self::LocalPath => "local-path",
            Self::Helm => "helm",
            Self::VersityGw => "versitygw",
        }
    }

    /// The programs, as files in the component's folder.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Kubernetes => {
                &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet"]
            }
            Self::Cilium => &["cilium-cni", "cilium-dbg", "daemon"],
            Self::CoreDns => &["coredns"],
            Self::LocalPath => &["local-path-provisioner"],
            Self::Helm => &["helm"],
            Self::VersityGw => &["versitygw"],
        }
    }

    /// As measured on two cores with nothing cached.
    fn cold_build(self) -> Duration {
        Duration::from_secs(match self {
            Self::Kubernetes => 300,
            Self::Cilium => 340,
            Self::CoreDns => 140,
            Self::LocalPath => 100,
            Self::Helm => 175,
            Self::VersityGw => 75,
        })
    }

    fn link_flags(self) -> String {
        match self {
            // Without it the API server calls itself v0.0.0, and clients refuse it.
            Self::Kubernetes => {
                format!("{LINK_FLAGS} -X k8s.io/component-base/version.gitVersion=v1.35.4")
            }
            Self::Cilium | Self::CoreDns | Self::LocalPath | Self::Helm | Self::VersityGw => {
                LINK_FLAGS.to_owned()
            }
        }
    }

    fn key(self) -> Result<String> {
        let folder = checkout::component(self.name());
        let inputs = Inputs::default()
            .add_file(&folder.join("go.mod"))?
            .add_file(&folder.join("go.sum"))?
            .add(self.link_flags());
        Ok(inputs.digest()?.short(16).to_owned())
    }

    fn build(self, folder: &Path, cache: &Cache, progress: &Progress) -> Result<()> {
        let step = progress.long_step(&format!("building {}", self.name()), self.cold_build());
        let source = checkout::component(self.name());
        let mut install = go(&source);
        install.args(["install", "-trimpath", "-v", "-ldflags", &self.link_flags(), "tool"]);
        install.env("GOBIN", folder);
        process::run_logged(&mut install, &cache.log(self.name()), &step)?;
        if self == Self::Cilium {
            copy_datapath(&source, folder)?;
        }
        step.done();
        Ok(())
    }
}

/// `go` in a component's folder, as all builds call it, whatever the caller has set: the same flags find
/// the same build cache, and no other toolchain is downloaded.
fn go(folder: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(folder).env("CGO_ENABLED", "0").env("GOFLAGS", "-buildvcs=false");
    go.env("GOTOOLCHAIN", "local").env("GOWORK", "off");
    go.env("GOOS", "linux").env("GOARCH", image::architecture());
    go
}

/// Fails at once, and not after half an hour, if Go is not there or is too old for the module in `folder`.
fn require_go(folder: &Path) -> Result<()> {
    process::output(go(folder).args(["list", "-m"]))
        .map(drop)
        .context("the cluster's programs are built with Go, which must be there and new enough")
}

/// Lays what Cilium compiles at run time, and the kinds it stores in the API server, beside its programs.
fn copy_datapath(source: &Path, folder: &Path) -> Result<()> {
    let mut list = go(source);
    list.args(["list", "-m", "-f", "{{.Dir}}", "github.com/cilium/cilium"]);
    let module = PathBuf::from(process::output(&mut list)?.trim());
    let kinds = module.join("pkg/k8s/apis/cilium.io/client/crds");
    for (from, to) in [(module.join("bpf"), "bpf"), (kinds, "crds")] {
        // The module cache is read-only; the copy is not, so that it can be removed.
        let mut copy = Command::new("cp");
        copy.args(["--recursive", "--no-preserve=mode"]).arg(from).arg(folder.join(to));
        process::output(&mut copy)?;
    }
    Ok(())
}

/// The programs that were built, and where they are.
#[derive(Clone, Debug)]
pub struct Programs {
    folders: Vec<(Component, PathBuf)>,
}

impl Programs {
    /// Where the programs of this checkout are, or will be when they are built.
    pub fn locate(cache: &Cache) -> Result<Self> {
        let folder =
            |component: Component| Ok((component, cache.programs(component.name(), &component.key()?)));
        Ok(Self { folders: Component::ALL.into_iter().map(folder).collect::<Result<_>>()? })
    }

    /// Builds what is not there. A second call builds nothing.
    pub fn build(cache: &Cache, progress: &Progress) -> Result<Self> {
        let programs = Self::locate(cache)?;
        for (component, _) in programs.folders.iter().filter(|(_, place)| !place.exists()) {
            require_go(&checkout::component(component.name()))?;
        }
        for (component, place) in &programs.folders {
            cache.fill(place, |draft| {
                fs::create_dir(draft)?;
                component.build(draft, cache, progress)
            })?;
        }
        Ok(programs)
    }

    /// The folder of one component.
    pub fn folder(&self, component: Component) -> Result<&Path> {
        let found = self.folders.iter().find(|(candidate, _)| *candidate == component);
        found.map(|(_, folder)| folder.as_path()).context("every component has a folder")
    }

    /// The program of this name, of any component.
    pub fn find(&self, name: &str) -> Result<PathBuf> {
        self.folders
            .iter()
            .find(|(component, _)| component.programs().contains(&name))
            .map(|(_, folder)| folder.join(name))
            .with_context(|| format!("{name} is not among the cluster's programs"))
    }

    /// Where each is, by its name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        self.folders.iter().flat_map(|(component, folder)| {
            component.programs().iter().map(|name| (*name, folder.join(name)))
        })
    }

    /// The folders of all components.
    pub fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.folders.iter().map(|(_, folder)| folder.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_that_is_too_old_is_refused_before_anything_is_built() {
        let folder = std::env::temp_dir().join(format!("valv-cluster-go-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("go.mod"), "module example.invalid/newer\n\ngo 1.999\n").unwrap();

        let refused = format!("{:#}", require_go(&folder).unwrap_err());

        assert!(refused.contains("requires go >= 1.999"), "{refused}");
        fs::remove_dir_all(folder).unwrap();
    }
}
