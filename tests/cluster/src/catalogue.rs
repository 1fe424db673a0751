//! The images there are, and what each is made of.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::binaries::Binaries;
use crate::cache::Cache;
use crate::checkout;
use crate::debian::Root;
use crate::digest::{Digest, Inputs};
use crate::image::{self, Image, Layer, Mode, Start};
use crate::process;
use crate::program::Programs;
use crate::progress::Progress;

/// Changes when the way images are written does: it is part of every key.
const SHAPE: &str = "2";

/// The registry part of every reference. No such registry exists: what is not imported is not there.
const REGISTRY: &str = "valv.local";

/// The releases of the journal that are made into images.
const JOURNAL_RELEASES: [u32; 3] = [1, 2, 3];

/// The user of images that need none of their own.
const NOBODY_IN_PARTICULAR: u32 = 65532;

/// The user of the journal.
const JOURNAL_USER: u32 = 10001;

/// An image that is there: its archive, and the name to use for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// What it is called here: `valv`, `postgres`, `journal-1`.
    pub name: String,
    /// The reference that pods use. It changes with the content of what this workspace builds.
    pub reference: String,
    /// The OCI archive.
    pub archive: PathBuf,
}

/// All images.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    images: Vec<Built>,
}

impl Catalogue {
    /// Makes what is not there. A second call makes nothing but what has changed.
    pub fn build(cache: &Cache, progress: &Progress) -> Result<Self> {
        let mut catalogue = Self::of_cluster(cache, &Programs::build(cache, progress)?, progress)?;
        catalogue.extend(Self::of_packages(cache, progress)?);
        catalogue.extend(Self::of_workspace(cache, progress)?);
        Ok(catalogue)
    }

    /// The images that the cluster itself needs.
    pub fn of_cluster(cache: &Cache, programs: &Programs, progress: &Progress) -> Result<Self> {
        let mut bench = Bench { cache, progress, images: Vec::new() };
        bench.cluster_images(programs)?;
        Ok(Self { images: bench.images })
    }

    /// The images that are made of Debian's packages.
    pub fn of_packages(cache: &Cache, progress: &Progress) -> Result<Self> {
        let mut bench = Bench { cache, progress, images: Vec::new() };
        bench.postgres()?;
        bench.haproxy()?;
        Ok(Self { images: bench.images })
    }

    /// The images with what this workspace builds.
    pub fn of_workspace(cache: &Cache, progress: &Progress) -> Result<Self> {
        let binaries = Binaries::build(cache, progress)?;
        let mut bench = Bench { cache, progress, images: Vec::new() };
        bench.valv(&binaries.valv)?;
        for number in JOURNAL_RELEASES {
            bench.journal(number, &binaries.journal)?;
        }
        Ok(Self { images: bench.images })
    }

    /// Adds the images of another.
    pub fn extend(&mut self, other: Self) {
        self.images.extend(other.images);
    }

    /// Every image, those that the cluster itself needs first.
    pub fn images(&self) -> &[Built] {
        &self.images
    }

    /// The reference of each, by name.
    pub fn references(&self) -> BTreeMap<String, String> {
        self.images.iter().map(|image| (image.name.clone(), image.reference.clone())).collect()
    }

    /// Copies the archives to `folder`, named for their images.
    pub fn copy_to(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        for image in &self.images {
            let copy = folder.join(format!("{}.tar", image.name));
            fs::copy(&image.archive, &copy).with_context(|| format!("failed to write {}", copy.display()))?;
        }
        Ok(())
    }
}

/// Where images are made.
struct Bench<'a> {
    cache: &'a Cache,
    progress: &'a Progress,
    images: Vec<Built>,
}

/// What an image is made of.
struct Recipe<'a> {
    name: String,
    /// The first is the one that pods use.
    references: Vec<String>,
    /// The key of everything that goes in.
    key: String,
    root: Option<Root>,
    start: Start,
    /// Puts the image's own files on top of the root.
    fill: &'a dyn Fn(&mut Layer<BufWriter<File>>) -> Result<()>,
}

impl Bench<'_> {
    /// What the cluster itself runs: one program each, and nothing else.
    fn cluster_images(&mut self, programs: &Programs) -> Result<()> {
        let catatonit = process::find("catatonit")?;
        self.single_program("pause", &catatonit, &["catatonit", "-P"])?;
        self.busybox()?;
        let coredns = programs.find("coredns")?;
        self.single_program("coredns", &coredns, &["coredns"])?;
        let provisioner = programs.find("local-path-provisioner")?;
        self.single_program("local-path-provisioner", &provisioner, &["local-path-provisioner"])
    }

    /// An image with nothing but one statically linked program.
    fn single_program(&mut self, name: &str, program: &Path, entrypoint: &[&str]) -> Result<()> {
        let key = Inputs::default().add(SHAPE).add(content(program)?).digest()?;
        let file = program.file_name().context("a program has a name")?.to_string_lossy();
        self.make(&Recipe {
            name: name.to_owned(),
            references: vec![plain(name, "1")],
            key: key.short(16).to_owned(),
            root: None,
            start: Start {
                entrypoint: entrypoint.iter().map(ToString::to_string).collect(),
                ..Start::default()
            },
            fill: &|layer| {
                layer.folder("tmp", Mode::Scratch)?;
                layer.file(&format!("usr/local/bin/{file}"), program, Mode::Run)
            },
        })
    }

    /// A shell with all its tools: for local volumes' helper pods, and for tests.
    fn busybox(&mut self) -> Result<()> {
        let program = process::find("busybox")?;
        let tools = process::output(Command::new(&program).arg("--list"))?;
        let key = Inputs::default().add(SHAPE).add_file(&program)?.digest()?;
        self.make(&Recipe {
            name: "busybox".to_owned(),
            references: vec![plain("busybox", "1")],
            key: key.short(16).to_owned(),
            root: None,
            start: Start { entrypoint: vec!["/bin/sh".to_owned()], ..Start::default() },
            fill: &|layer| {
                layer.folder("tmp", Mode::Scratch)?;
                layer.bytes("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")?;
                layer.bytes("etc/group", b"root:x:0:\n")?;
                layer.file("bin/busybox", &program, Mode::Run)?;
                for tool in tools.lines().filter(|tool| *tool != "busybox") {
                    layer.link(&format!("bin/{tool}"), "/bin/busybox")?;
                }
                Ok(())
            },
        })
    }

    fn postgres(&mut self) -> Result<()> {
        let key = Inputs::default().add(SHAPE).add(Root::Postgres.key()?).digest()?;
        self.make(&Recipe {
            name: "postgres".to_owned(),
            references: vec![plain("postgres", "17")],
            key: key.short(16).to_owned(),
            root: Some(Root::Postgres),
            start: Start {
                entrypoint: vec!["/usr/lib/postgresql/17/bin/postgres".to_owned()],
                user: Some(999),
                path: Some("/usr/lib/postgresql/17/bin".to_owned()),
            },
            fill: &|layer| layer.folder("tmp", Mode::Scratch),
        })
    }

    fn haproxy(&mut self) -> Result<()> {
        let key = Inputs::default().add(SHAPE).add(Root::Haproxy.key()?).digest()?;
        self.make(&Recipe {
            name: "haproxy".to_owned(),
            references: vec![plain("haproxy", "3")],
            key: key.short(16).to_owned(),
            root: Some(Root::Haproxy),
            start: Start {
                entrypoint: vec!["/usr/sbin/haproxy".to_owned()],
                user: Some(NOBODY_IN_PARTICULAR),
                path: None,
            },
            fill: &|layer| layer.folder("tmp", Mode::Scratch),
        })
    }

    fn valv(&mut self, binary: &Path) -> Result<()> {
        let key = Inputs::default().add(SHAPE).add(Root::Base.key()?).add(content(binary)?).digest()?;
        let key = key.short(12);
        self.make(&Recipe {
            name: "valv".to_owned(),
            references: vec![plain("valv", key)],
            key: key.to_owned(),
            root: Some(Root::Base),
            start: Start {
                entrypoint: vec!["valv".to_owned()],
                user: Some(NOBODY_IN_PARTICULAR),
                path: None,
            },
            fill: &|layer| {
                layer.folder("tmp", Mode::Scratch)?;
                layer.file("usr/local/bin/valv", binary, Mode::Run)?;
                layer.link("usr/local/bin/kubectl-valv", "valv")
            },
        })
    }

    /// A release of the journal: the same binary each time, with that release's migrations.
    fn journal(&mut self, number: u32, binary: &Path) -> Result<()> {
        let release = checkout::journal_release(number);
        let mut inputs = Inputs::default().add(SHAPE).add(Root::Shell.key()?).add(content(binary)?);
        inputs = add_tree(inputs, &release)?;
        let digest = inputs.digest()?;
        let key = digest.short(12);
        let tag = number.to_string();
        self.make(&Recipe {
            name: format!("journal-{number}"),
            references: vec![plain("journal", &format!("{tag}-{key}")), plain("journal", &tag)],
            key: key.to_owned(),
            root: Some(Root::Shell),
            start: Start { entrypoint: vec!["journal".to_owned()], user: Some(JOURNAL_USER), path: None },
            fill: &|layer| {
                layer.folder("tmp", Mode::Scratch)?;
                layer.file("usr/local/bin/journal", binary, Mode::Run)?;
                if release.is_dir() {
                    layer.tree("usr/share/journal", &release)?;
                }
                Ok(())
            },
        })
    }

    fn make(&mut self, recipe: &Recipe<'_>) -> Result<()> {
        let Recipe { name, references, key, root, start, fill } = recipe;
        let archive = self.cache.image(name, key);
        let root = root.map(|root| root.tar(self.cache, self.progress)).transpose()?;
        self.cache.fill(&archive, |draft| {
            let step = self.progress.step(&format!("writing image {name}"));
            let own = draft.with_extension("layer");
            let mut layer = Layer::new(BufWriter::new(File::create(&own)?));
            let filled = fill(&mut layer).and_then(|()| layer.finish());
            let layers = root.into_iter().chain([own.clone()]).collect();
            let image = Image { references: references.clone(), layers, start: start.clone() };
            let written = filled.and_then(|()| image.write(draft));
            fs::remove_file(own)?;
            written?;
            step.done();
            Ok(())
        })?;
        remove_older(&archive, name)?;
        let reference = references.first().context("every image has a reference")?.clone();
        self.images.push(Built { name: name.clone(), reference, archive });
        Ok(())
    }
}

fn plain(name: &str, tag: &str) -> String {
    format!("{REGISTRY}/{name}:{tag}")
}

fn content(binary: &Path) -> Result<String> {
    Ok(Digest::of_file(binary)?.as_str().to_owned())
}

/// Adds every file of a folder, with its path. A folder that is not there adds nothing.
fn add_tree(mut inputs: Inputs, folder: &Path) -> Result<Inputs> {
    if !folder.is_dir() {
        return Ok(inputs);
    }
    for (name, path) in image::sorted(folder)? {
        inputs = inputs.add(&name);
        inputs = if path.is_dir() { add_tree(inputs, &path)? } else { inputs.add_file(&path)? };
    }
    Ok(inputs)
}

/// Removes the archives that `newest` replaces: every build of `valv` would leave one otherwise.
fn remove_older(newest: &Path, name: &str) -> Result<()> {
    let Some(folder) = newest.parent() else { return Ok(()) };
    for (file, path) in image::sorted(folder)? {
        let key = file.strip_suffix(".tar").and_then(|stem| stem.strip_prefix(name)?.strip_prefix('-'));
        let is_key =
            key.is_some_and(|key| key.chars().all(|digit| digit.is_ascii_hexdigit()) && key.len() >= 12);
        if is_key && path != newest {
            fs::remove_file(&path).with_context(|| format!("failed to remove {}", path.display()))?;
        }
    }
    Ok(())
}
