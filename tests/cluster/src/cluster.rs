//! The cluster that is up, as tests use it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::catalogue::Catalogue;
use crate::debian;
use crate::folder;
use crate::kubectl::Kubectl;
use crate::lock::Lock;
use crate::network;
use crate::node::Node;
use crate::pki::Pki;
use crate::program::Programs;
use crate::progress::Progress;
use crate::record::{NodeRecord, Record, Stage};
use crate::settings::Settings;
use crate::store::server::Server;
use crate::store::{Store, bucket};
use crate::world::World;

/// The local cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    settings: Settings,
    programs: Programs,
}

impl Cluster {
    /// The cluster that is up.
    ///
    /// # Errors
    /// If none is: says how to bring it up. Whether all of it is well, [`Self::check`] says.
    pub fn open() -> Result<Self> {
        let settings = Settings::from_env()?;
        let cluster = Self::at(settings)?;
        cluster.record()?;
        Ok(cluster)
    }

    /// The cluster of `settings`, up or not.
    pub(crate) fn at(settings: Settings) -> Result<Self> {
        let programs = Programs::locate(&Cache::new(&settings))?;
        Ok(Self { settings, programs })
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        Pki::at(folder::pki_folder(&self.settings.state)).kubeconfig("admin")
    }

    /// The API server's audit log: JSON, a line a request, without the reads of the cluster's own parts.
    pub fn audit_log(&self) -> PathBuf {
        folder::audit_log(&self.settings.state)
    }

    /// The reference of each image that was loaded last, by name: `valv`, `postgres`, `journal-1` ….
    ///
    /// # Errors
    /// If none was loaded, or the list cannot be read.
    pub fn images(&self) -> Result<BTreeMap<String, String>> {
        let list = self.images_file();
        let text = fs::read(&list).with_context(|| format!("failed to read {}", list.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Builds what has changed and imports it on every node. Returns the new [`Self::images`].
    pub fn load_images(&self) -> Result<BTreeMap<String, String>> {
        let progress = Progress::new();
        let _lock = Lock::take(&self.settings, &progress)?;
        let catalogue = Catalogue::build(&Cache::new(&self.settings), &progress)?;
        for node in self.record()?.nodes {
            self.node(node.number).load(&catalogue, &self.programs, &progress)?;
        }
        self.note_images(&catalogue)?;
        self.images()
    }

    /// Gives an image that every node has one more reference.
    pub fn tag_image(&self, reference: &str, further: &str) -> Result<()> {
        for number in self.nodes()? {
            self.node(number).tag_image(&self.programs, reference, further)?;
        }
        Ok(())
    }

    /// Fails unless everything of the cluster runs: names the part that does not, with the end of its log.
    pub fn check(&self) -> Result<()> {
        let record = self.record()?;
        if !record.world.is_alive() {
            bail!("the world has ended: its init is gone");
        }
        for store in self.stores()? {
            Server::of(&store, &self.settings).check()?;
        }
        for node in &record.nodes {
            self.check_node(node)?;
        }
        self.kubectl().output(&["get", "--raw=/readyz"]).context("the API server is not ready").map(drop)
    }

    /// Fails unless this node came up and still runs.
    pub(crate) fn check_node(&self, node: &NodeRecord) -> Result<()> {
        match node.stage {
            Stage::Ready => self.node(node.number).check(node.init),
            Stage::Starting => bail!("{} was not brought up to its end", node.name()),
        }
    }

    /// The address of node `number`, from 1.
    pub fn node_ip(&self, number: u8) -> String {
        network::node_address(number)
    }

    /// The nodes' numbers.
    pub fn nodes(&self) -> Result<Vec<u8>> {
        Ok(self.record()?.nodes.iter().map(|node| node.number).collect())
    }

    /// A socket that listens at `address` in the world's network, wherever the process that holds it runs.
    pub fn listen_in_world(&self, address: SocketAddr) -> Result<TcpListener> {
        World::of(self.record()?.world)?.listen(address)
    }

    /// A command that runs `program` in the world's network: a server that stands for another place, or
    /// a client there. The process is the program's own. It ends with the cluster at the latest.
    pub fn world_command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        Ok(World::of(self.record()?.world)?.command(program))
    }

    /// The S3 servers, whether they run or not.
    pub fn stores(&self) -> Result<[Store; 2]> {
        Store::all(&self.settings)
    }

    /// The one of this name: `helsinki` or `frankfurt`.
    pub fn store(&self, name: &str) -> Result<Store> {
        Store::named(&self.settings, name)
    }

    /// Ends a store like a power cut. From then on [`Self::check`] fails, until [`Self::start_store`] or
    /// `cluster up`.
    pub fn stop_store(&self, name: &str) -> Result<()> {
        let _lock = Lock::take(&self.settings, &Progress::new())?;
        Server::of(&self.store(name)?, &self.settings).stop()
    }

    /// Starts a store that was stopped, with what it holds, and waits until it answers. One that runs
    /// stays; users who were changed are again what they should be, and so is the bucket's policy.
    pub fn start_store(&self, name: &str) -> Result<()> {
        let _lock = Lock::take(&self.settings, &Progress::new())?;
        self.bring_up(&self.store(name)?)
    }

    pub(crate) fn bring_up(&self, store: &Store) -> Result<()> {
        let world = World::of(self.record()?.world)?;
        store.prepare()?;
        Server::of(store, &self.settings).start(&world, &self.programs)?;
        bucket::make(store)
    }

    /// How a store is, for a person.
    pub(crate) fn store_state(&self, store: &Store) -> String {
        Server::of(store, &self.settings).state()
    }

    /// Ends node `number` like a power cut. From then on [`Self::check`] fails; `cluster up` replaces it.
    pub fn kill_node(&self, number: u8) -> Result<()> {
        self.node(number).kill()
    }

    /// Gives node `number` up, running or not: it ends like a power cut, and the cluster forgets it.
    pub fn remove_node(&self, number: u8) -> Result<()> {
        let _lock = Lock::take(&self.settings, &Progress::new())?;
        self.forget_node(number)
    }

    /// The same, for who has the lock.
    pub(crate) fn forget_node(&self, number: u8) -> Result<()> {
        self.kill_node(number)?;
        let name = network::node_name(number);
        self.kubectl().output(&["delete", "node", &name, "--ignore-not-found", "--wait=false"])?;
        let mut record = self.record()?;
        record.nodes.retain(|node| node.number != number);
        record.write(&self.settings)
    }

    /// One of the cluster's programs: `helm`, `kubectl`, `versitygw` ….
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        self.programs.find(name)
    }

    /// A folder with the root of the image `postgres`: for a server beyond the nodes.
    pub fn postgres_root(&self) -> Result<PathBuf> {
        let progress = Progress::new();
        let _lock = Lock::take(&self.settings, &progress)?;
        debian::Root::Postgres.folder(&Cache::new(&self.settings), &progress)
    }

    /// A folder with a bare Debian that has what a restore without Valv needs.
    pub fn restore_root(&self) -> Result<PathBuf> {
        let progress = Progress::new();
        let _lock = Lock::take(&self.settings, &progress)?;
        debian::Root::Restore.folder(&Cache::new(&self.settings), &progress)
    }

    /// kubectl as the administrator, to be completed.
    pub fn kubectl_command(&self) -> Result<Command> {
        Ok(self.kubectl().command())
    }

    pub(crate) fn kubectl(&self) -> Kubectl {
        let program = self.programs.find("kubectl").unwrap_or_else(|_| PathBuf::from("kubectl"));
        Kubectl::new(program, self.kubeconfig())
    }

    pub(crate) fn record(&self) -> Result<Record> {
        Record::read(&self.settings)
            .context("the local cluster is not up: `cargo run -p valv-cluster -- up` brings it up")
    }

    pub(crate) fn node(&self, number: u8) -> Node {
        Node::new(&self.settings, number)
    }

    /// Notes what `catalogue` has; what it does not have stays as it was loaded before.
    pub(crate) fn note_images(&self, catalogue: &Catalogue) -> Result<()> {
        let list = self.images_file();
        let mut images = self.images().unwrap_or_default();
        images.extend(catalogue.references());
        fs::write(&list, serde_json::to_vec_pretty(&images)?)
            .with_context(|| format!("failed to write {}", list.display()))
    }

    fn images_file(&self) -> PathBuf {
        self.settings.state.join("images.json")
    }
}
