//! A node, seen from outside.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};

use crate::catalogue::Catalogue;
use crate::cgroup::Layout;
use crate::event::{self, Event, Milestone};
use crate::folder::NodeFolder;
use crate::log;
use crate::namespaces::{self, Apart};
use crate::network;
use crate::part;
use crate::parts::{Site, containerd};
use crate::process::{self, Identity};
use crate::program::Programs;
use crate::progress::Progress;
use crate::settings::Settings;
use crate::wait::{TAIL_LINES, Wait};
use crate::world::World;

/// The hidden command with which this program becomes the supervisor of a node.
pub const SUPERVISE: &str = "supervise";

/// Longer than the supervisor's own deadline, whose error says more.
const DEADLINE: Duration = Duration::from_secs(150);

/// A node of this number, running or not.
#[derive(Clone, Debug)]
pub struct Node {
    number: u8,
    folder: NodeFolder,
}

impl Node {
    /// Node `number` of the cluster that `settings` name.
    pub fn new(settings: &Settings, number: u8) -> Self {
        Self { number, folder: NodeFolder::new(settings, number) }
    }

    /// Its name.
    pub fn name(&self) -> String {
        network::node_name(self.number)
    }

    /// Its folder.
    pub fn folder(&self) -> &NodeFolder {
        &self.folder
    }

    /// Starts its init and wires it to the world. What comes then, [`Self::follow`] tells.
    pub fn start(&self, program: &Path, world: &World) -> Result<Identity> {
        let name = self.name();
        Layout::detect()?.create(&name)?;
        self.folder.create()?;
        self.folder.pki().create_node(self.number)?;
        let number = self.number.to_string();
        let mut init = vec![process::find("catatonit")?.into_os_string(), OsString::from("--")];
        init.extend([program.as_os_str().to_owned(), SUPERVISE.into(), number.into()]);
        let init = namespaces::start(program, &name, Apart::Node, &init, &self.folder.log("init"))?;
        world.wire(&name, init)?;
        Ok(init)
    }

    /// Waits for the node's milestones up to the last, calling `reached` at each.
    ///
    /// # Errors
    /// Those of `reached`, or that the node does not come up, with the end of the log that tells why.
    pub fn follow(
        &self,
        init: Identity,
        progress: &Progress,
        mut reached: impl FnMut(Milestone) -> Result<()>,
    ) -> Result<()> {
        let mut told = 0;
        let mut next = Milestone::Containerd;
        while told == 0 || next != Milestone::Ready {
            let step = progress.step(&format!("{}: waiting", self.name()));
            let event = Wait::new(format!("{} comes up", self.name()), DEADLINE)
                .showing(&self.folder.log("init"))
                .until(|| self.next_event(init, told))?;
            drop(step);
            told += 1;
            match event {
                Event::Failed(why) => bail!("{} did not come up: {why}", self.name()),
                Event::Reached(milestone) => {
                    progress.say(&format!("{}: {}", self.name(), milestone.text()));
                    reached(milestone).map_err(|error| self.own_failure(told).unwrap_or(error))?;
                    next = milestone;
                }
            }
        }
        Ok(())
    }

    /// Why the node has failed, if it has: what was done with it then fails too, and says less.
    fn own_failure(&self, told: usize) -> Option<Error> {
        event::after(&self.folder.events(), told).into_iter().find_map(|event| match event {
            Event::Failed(why) => Some(anyhow!("{} did not come up: {why}", self.name())),
            Event::Reached(_) => None,
        })
    }

    fn next_event(&self, init: Identity, told: usize) -> Result<Option<Event>> {
        let alive = init.is_alive();
        let event = event::after(&self.folder.events(), told).into_iter().next();
        if event.is_none() && !alive {
            bail!("{} has ended{}", self.name(), log::quote(&self.folder.log("init"), TAIL_LINES));
        }
        Ok(event)
    }

    /// Fails if the node or a part of it has ended: names it.
    pub fn check(&self, init: Identity) -> Result<()> {
        if !init.is_alive() {
            bail!("{} has ended: its init is gone", self.name());
        }
        part::check(&self.folder, self.number)
    }

    /// Imports the images that the node does not have.
    pub fn load(&self, catalogue: &Catalogue, programs: &Programs, progress: &Progress) -> Result<()> {
        let mut loaded = self.loaded();
        let site = Site::new(self.number, self.folder.clone(), programs.clone())?;
        for image in catalogue.images() {
            if loaded.contains(&image.archive) {
                continue;
            }
            let step = progress.step(&format!("{}: image {}", self.name(), image.reference));
            let mut import = containerd::ctr(&site)?;
            import.args(["images", "import"]).arg(&image.archive);
            process::run_logged(&mut import, &self.folder.log("images"), &step)?;
            step.done();
            loaded.push(image.archive.clone());
            self.folder.write("images.json", &serde_json::to_string(&loaded)?)?;
        }
        Ok(())
    }

    /// Gives an image that the node has one more reference.
    pub fn tag_image(&self, programs: &Programs, reference: &str, further: &str) -> Result<()> {
        let site = Site::new(self.number, self.folder.clone(), programs.clone())?;
        process::output(containerd::ctr(&site)?.args(["images", "tag", "--force", reference, further]))
            .map(drop)
    }

    /// The archives that were imported.
    fn loaded(&self) -> Vec<PathBuf> {
        let list = fs::read(self.folder.path("images.json")).unwrap_or_default();
        serde_json::from_slice(&list).unwrap_or_default()
    }

    /// Ends the node, like a power cut: everything in it, at once.
    pub fn kill(&self) -> Result<()> {
        Layout::detect()?.end(&self.name()).with_context(|| format!("failed to end {}", self.name()))
    }
}
