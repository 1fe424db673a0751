//! Bringing the cluster up: builds what is missing, starts what does not run, loads what has changed.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::addons;
use crate::cache::Cache;
use crate::catalogue::Catalogue;
use crate::cgroup::Layout;
use crate::cluster::Cluster;
use crate::debian;
use crate::down::down;
use crate::event::Milestone;
use crate::folder;
use crate::interrupt;
use crate::lock::Lock;
use crate::network::{self, MOST_NODES};
use crate::pki::Pki;
use crate::program::Programs;
use crate::progress::Progress;
use crate::record::{NodeRecord, Record, Stage};
use crate::settings::Settings;
use crate::store::Store;
use crate::world::{self, World};

/// Brings the cluster up with at least `nodes` nodes. What is up and well stays as it is.
///
/// `program` is this crate's own binary, which becomes the inits' child.
///
/// # Errors
/// If it fails or is interrupted, what it has begun is taken back: a node that it was adding, or the
/// whole cluster if there was none before. But if only this workspace does not compile, the cluster is up
/// when the error comes, without the images that need it.
pub fn up(settings: &Settings, program: &Path, nodes: u8, progress: &Progress) -> Result<Cluster> {
    if nodes == 0 || nodes > MOST_NODES {
        bail!("a cluster has 1 to {MOST_NODES} nodes, not {nodes}");
    }
    debian::require_root("up")?;
    folder::require_ours(&settings.state)?;
    let _lock = Lock::take(settings, progress)?;
    let cache = Cache::new(settings);
    debian::install_host_packages(&cache, progress)?;
    let programs = Programs::build(&cache, progress)?;
    let needed = Catalogue::of_cluster(&cache, &programs, progress)?;
    let mut catalogue = needed.clone();
    catalogue.extend(Catalogue::of_packages(&cache, progress)?);
    let of_workspace = Catalogue::of_workspace(&cache, progress);
    interrupt::check()?;
    let failed = of_workspace.map(|images| catalogue.extend(images)).err();
    if let Some(error) = &failed {
        progress.say(&format!("going on without the images of this workspace: {error:#}"));
    }
    let cluster = Cluster::at(settings.clone())?;
    let builder = Builder { settings, program, progress, cluster: &cluster, programs, needed, catalogue };
    builder.bring_up(nodes)?;
    match failed {
        Some(error) => Err(error.context("the cluster is up, without the images of this workspace")),
        None => Ok(cluster),
    }
}

struct Builder<'a> {
    settings: &'a Settings,
    program: &'a Path,
    progress: &'a Progress,
    cluster: &'a Cluster,
    programs: Programs,
    /// The images without which no node comes up.
    needed: Catalogue,
    /// All images.
    catalogue: Catalogue,
}

impl Builder<'_> {
    /// Completes a cluster whose first node is well, and begins anew otherwise: what was begun anew and
    /// fails is taken back whole.
    fn bring_up(&self, nodes: u8) -> Result<()> {
        if let Ok(record) = self.cluster.record() {
            match self.check_first(&record) {
                Ok(()) => return self.stores().and_then(|()| self.complete(nodes)),
                Err(error) => self.progress.say(&format!("starting anew: {error:#}")),
            }
        } else if !self.settings.state.exists() {
            self.refuse_another_cluster()?;
        }
        down(self.settings, self.progress)?;
        self.start_cluster()
            .and_then(|()| self.complete(nodes))
            .inspect_err(|_| self.take_back(|| down(self.settings, self.progress)))
    }

    fn complete(&self, nodes: u8) -> Result<()> {
        self.further_nodes(nodes)?;
        self.load_images()
    }

    fn check_first(&self, record: &Record) -> Result<()> {
        let first = record.nodes.first().context("it has no node")?;
        if !record.world.is_alive() {
            bail!("the world has ended");
        }
        self.cluster.check_node(first)
    }

    /// The addresses, the host's link and the control group are one for the whole machine.
    fn refuse_another_cluster(&self) -> Result<()> {
        if world::is_wired()? {
            bail!("a cluster is up whose state is in another folder; `cluster down` ends it");
        }
        Ok(())
    }

    fn start_cluster(&self) -> Result<()> {
        let state = &self.settings.state;
        folder::create_state(state)?;
        Pki::at(folder::pki_folder(state)).create()?;
        let world = World::start(self.program, self.settings)?;
        self.progress.say("the world is there");
        Record { world: world.init(), nodes: Vec::new() }.write(self.settings)?;
        self.stores()?;
        self.start_node(1)?;
        addons::await_ready(&self.cluster.kubectl(), self.progress)
    }

    /// Starts the stores that do not run, and brings all to what they should be. What they hold stays.
    fn stores(&self) -> Result<()> {
        for store in Store::all(self.settings)? {
            let step = self.progress.step(&format!("the store {} answers", store.name));
            self.cluster.bring_up(&store)?;
            step.done();
        }
        Ok(())
    }

    /// Replaces every further node that is not well, and adds those that are missing.
    fn further_nodes(&self, nodes: u8) -> Result<()> {
        let highest = self.cluster.nodes()?.into_iter().max().unwrap_or_default().max(nodes);
        for number in 2..=highest {
            let record = self.cluster.record()?;
            let node = record.nodes.iter().find(|node| node.number == number);
            if node.is_some_and(|node| self.cluster.check_node(node).is_ok()) {
                continue;
            }
            if node.is_some() || Layout::detect()?.exists(&network::node_name(number)) {
                self.progress.say(&format!("{}: starting anew", network::node_name(number)));
                self.cluster.forget_node(number)?;
            }
            self.start_node(number).inspect_err(|_| self.take_back(|| self.cluster.forget_node(number)))?;
        }
        Ok(())
    }

    fn start_node(&self, number: u8) -> Result<()> {
        let node = self.cluster.node(number);
        let mut record = self.cluster.record()?;
        let init = node.start(self.program, &World::of(record.world)?)?;
        record.nodes.push(NodeRecord { number, init, stage: Stage::Starting });
        record.write(self.settings)?;
        node.follow(init, self.progress, |milestone| match milestone {
            Milestone::Containerd => node.load(&self.needed, &self.programs, self.progress),
            Milestone::ApiServer if number == 1 => addons::apply(&self.cluster.kubectl(), self.settings),
            Milestone::ApiServer | Milestone::Registered | Milestone::Network | Milestone::Ready => Ok(()),
        })?;
        self.route_pods(number, &World::of(record.world)?)?;
        for node in record.nodes.iter_mut().filter(|node| node.number == number) {
            node.stage = Stage::Ready;
        }
        record.write(self.settings)
    }

    /// The range of a node's pods is known only now: the controller manager chooses it.
    fn route_pods(&self, number: u8, world: &World) -> Result<()> {
        let name = network::node_name(number);
        let get = ["get", "node", &name, "--output=jsonpath={.spec.podCIDR}"];
        world.route(self.cluster.kubectl().output(&get)?.trim(), number)
    }

    /// Imports what has changed since the nodes came up.
    fn load_images(&self) -> Result<()> {
        for number in self.cluster.nodes()? {
            self.cluster.node(number).load(&self.catalogue, &self.programs, self.progress)?;
        }
        self.cluster.note_images(&self.catalogue)
    }

    /// Undoes what has failed. A failure of this too is shown, and the first error stays the error.
    fn take_back(&self, undo: impl FnOnce() -> Result<()>) {
        interrupt::forget();
        if let Err(error) = undo() {
            self.progress.say(&format!("failed to take back what was begun: {error:#}"));
        }
    }
}
