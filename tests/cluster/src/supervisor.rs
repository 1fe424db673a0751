//! What runs below a node's init: starts the node's parts in their order, and sees how they end.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::sethostname;

use crate::cache::Cache;
use crate::cgroup::Layout;
use crate::event::{Event, Milestone, Teller};
use crate::folder::NodeFolder;
use crate::kubectl::Kubectl;
use crate::network::with_prefix;
use crate::part::{self, Part};
use crate::parts::{Site, cilium, containerd, control_plane, kubelet};
use crate::process;
use crate::program::{Component, Programs};
use crate::settings::Settings;
use crate::wait::Wait;
use crate::{listing, mounts};

/// Everything here takes seconds on two cores; on a busy machine, much longer.
const DEADLINE: Duration = Duration::from_secs(120);

/// A program answers a question, or fails, within this; then it is asked again.
const INTERVAL: Duration = Duration::from_millis(100);

/// Brings node `number` up, and stays for as long as it lives.
///
/// # Errors
/// If it does not come up; then the init ends too, and everything in the node with it.
pub fn run(settings: &Settings, number: u8) -> Result<()> {
    let folder = NodeFolder::new(settings, number);
    let teller = Teller::new(folder.events());
    let brought_up = Site::new(number, folder, Programs::locate(&Cache::new(settings))?)
        .and_then(|site| Supervisor { site: &site, teller: &teller }.bring_up());
    if let Err(error) = brought_up {
        teller.tell(&Event::Failed(format!("{error:#}")))?;
        return Err(error);
    }
    loop {
        // The parts' own threads do the rest.
        std::thread::park();
    }
}

struct Supervisor<'a> {
    site: &'a Site,
    teller: &'a Teller,
}

impl Supervisor<'_> {
    fn bring_up(&self) -> Result<()> {
        self.prepare()?;
        if self.is_control() {
            self.start(control_plane::etcd(self.site)?)?;
            self.start(control_plane::apiserver(self.site)?)?;
        }
        self.start(containerd::containerd(self.site)?)?;
        self.await_containerd()?;
        self.start(kubelet::kubelet(self.site)?)?;
        self.await_apiserver()?;
        if self.is_control() {
            self.start(control_plane::controller_manager(self.site)?)?;
            self.start(control_plane::scheduler(self.site)?)?;
            self.apply_kinds_of_cilium()?;
        }
        self.await_registered()?;
        self.start(cilium::agent(self.site)?)?;
        self.await_network()?;
        cilium::write_network(self.site)?;
        self.await_ready()
    }

    fn is_control(&self) -> bool {
        self.site.number == 1
    }

    /// The node's own file system, name and network.
    fn prepare(&self) -> Result<()> {
        sethostname(self.site.name()).context("failed to set the host name")?;
        mounts::prepare(&self.site.folder, &Layout::detect()?.group(&self.site.name()))?;
        self.ip(&["link", "set", "lo", "up"])?;
        let link = Path::new("/proc/sys/net/ipv4/conf/eth0");
        Wait::new("the node is wired to the world", DEADLINE).until(|| Ok(link.exists().then_some(())))?;
        self.ip(&["address", "add", &with_prefix(&self.site.address()), "dev", "eth0"])?;
        self.ip(&["link", "set", "eth0", "up"])?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("failed to let the node forward")
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        process::output(self.site.command("ip")?.args(arguments)).map(drop)
    }

    fn start(&self, part: Part) -> Result<()> {
        part::start(part, &self.site.folder)
    }

    fn await_containerd(&self) -> Result<()> {
        let mut version = containerd::ctr(self.site)?;
        version.arg("version");
        self.wait(Milestone::Containerd, "containerd", || succeeds(&mut version))
    }

    fn await_apiserver(&self) -> Result<()> {
        // Another node has no API server of its own: what it has of it is in the kubelet's log.
        let part = if self.is_control() { "apiserver" } else { "kubelet" };
        self.wait_for_kubectl(Milestone::ApiServer, part, &["get", "--raw=/readyz"], "ok")
    }

    fn await_registered(&self) -> Result<()> {
        let name = format!("node/{}", self.site.name());
        let get = ["get", &name, "--output=name"];
        self.wait_for_kubectl(Milestone::Registered, "kubelet", &get, &name)
    }

    fn await_network(&self) -> Result<()> {
        self.wait(Milestone::Network, "cilium", cilium::is_healthy)
    }

    fn await_ready(&self) -> Result<()> {
        let name = format!("node/{}", self.site.name());
        let condition = "--output=jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        self.wait_for_kubectl(Milestone::Ready, "kubelet", &["get", &name, condition], "True")
    }

    fn wait_for_kubectl(
        &self,
        milestone: Milestone,
        part: &str,
        arguments: &[&str],
        answer: &str,
    ) -> Result<()> {
        let kubectl = self.kubectl()?;
        self.wait(milestone, part, || kubectl.output(arguments).is_ok_and(|printed| printed.trim() == answer))
    }

    /// Waits for a milestone and tells of it. If it does not come, or a part ends meanwhile, the error
    /// has the end of that part's log.
    fn wait(&self, milestone: Milestone, part: &str, mut reached: impl FnMut() -> bool) -> Result<()> {
        Wait::new(milestone.text(), DEADLINE).every(INTERVAL).showing(&self.site.folder.log(part)).until(
            || {
                part::check(&self.site.folder, self.site.number)?;
                Ok(reached().then_some(()))
            },
        )?;
        self.teller.tell(&Event::Reached(milestone))
    }

    fn kubectl(&self) -> Result<Kubectl> {
        let kubeconfig = self.site.folder.pki().kubeconfig("cilium");
        Ok(Kubectl::new(self.site.programs.find("kubectl")?, kubeconfig))
    }

    fn apply_kinds_of_cilium(&self) -> Result<()> {
        let mut kinds = String::new();
        for (_, folder) in listing::of(&self.site.programs.folder(Component::Cilium)?.join("crds"))? {
            // Beside the manifests lies the Go file that embeds them.
            for (_, file) in listing::of(&folder)?.iter().filter(|(name, _)| name.ends_with(".yaml")) {
                kinds.push_str(&fs::read_to_string(file)?);
                kinds.push('\n');
            }
        }
        self.kubectl()?.apply(&kinds)
    }
}

fn succeeds(command: &mut Command) -> bool {
    process::output(command).is_ok()
}
