//! The images there are, and what each is made of.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Error, Result};

use crate::binaries::Binaries;
use crate::cache::Cache;
use crate::checkout;
use crate::debian::Root;
use crate::digest::{Hasher, Inputs};
use crate::image::{Image, Layer, Mode, Start};
use crate::process;
use crate::program::Programs;
use crate::progress::Progress;

/// Changes when the way images are written does: it is part of every key.
const SHAPE: &str = "3";

/// The registry part of every reference. No such registry exists: what is not imported is not there.
const REGISTRY: &str = "valv.local";

/// The releases of the journal that are made into images.
const JOURNAL_RELEASES: [u32; 3] = [1, 2, 3];

/// A double, for clocks that are wrong: whatever loads it sees another time than the machine's.
const FAKETIME: &str = "usr/lib/faketime/libfaketimeMT.so.1";

/// An hour later. What is measured, and what is said of files, stays as it is.
const AN_HOUR_AHEAD: [(&str, &str); 5] = [
    ("LD_PRELOAD", "/usr/lib/faketime/libfaketimeMT.so.1"),
    ("FAKETIME", "+1h"),
    ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ("FAKETIME_DISABLE_SHM", "1"),
    ("NO_FAKE_STAT", "1"),
];

/// Enough that no two contents of one image share a key.
const KEY_DIGITS: usize = 12;

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
        bench.postgres_ahead()?;
        bench.haproxy()?;
        Ok(Self { images: bench.images })
    }

    /// The images with what this workspace builds.
    pub fn of_workspace(cache: &Cache, progress: &Progress) -> Result<Self> {
        let binaries = Binaries::build(cache, progress)?;
        let mut bench = Bench { cache, progress, images: Vec::new() };
        bench.valv(&binaries.valv)?;
        bench.valv_ahead(&binaries.valv)?;
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

/// What an image is made of. All of it goes into the image's key.
struct Recipe<'a> {
    name: String,
    /// The names under which it is imported. The first is the one that pods use.
    references: Vec<Reference>,
    root: Option<Root>,
    start: Start,
    /// Puts the image's own files on top of the root. Called twice, and the same both times.
    fill: &'a dyn Fn(&mut Layer<&mut dyn Write>) -> Result<()>,
}

/// A name under which an image is imported, without its registry.
#[derive(Clone, Debug)]
enum Reference {
    /// The same whatever is in the image.
    Fixed(String),
    /// With the image's key at the end: another name for another content.
    WithKey(String),
}

impl Reference {
    fn with_key(&self, key: &str) -> String {
        match self {
            Self::Fixed(name) => format!("{REGISTRY}/{name}"),
            Self::WithKey(name) => format!("{REGISTRY}/{name}{key}"),
        }
    }
}

impl Recipe<'_> {
    fn key(&self) -> Result<String> {
        let mut layer = Hasher::default();
        self.write_layer(&mut layer)?;
        let mut inputs = Inputs::default().add(SHAPE).add(layer.digest().as_str());
        inputs = inputs.add(self.root.map(Root::key).transpose()?.unwrap_or_default());
        inputs = inputs.add(serde_json::to_vec(&self.start.config())?);
        for reference in &self.references {
            inputs = inputs.add(reference.with_key(""));
        }
        Ok(inputs.digest()?.short(KEY_DIGITS).to_owned())
    }

    fn write_layer(&self, out: &mut dyn Write) -> Result<()> {
        let mut layer = Layer::new(out);
        (self.fill)(&mut layer)?;
        layer.finish()
    }
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
        let file = program.file_name().context("a program has a name")?.to_string_lossy();
        self.make(&Recipe {
            name: name.to_owned(),
            references: vec![Reference::Fixed(format!("{name}:1"))],
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
        self.make(&Recipe {
            name: "busybox".to_owned(),
            references: vec![Reference::Fixed("busybox:1".to_owned())],
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
        self.make(&Recipe {
            name: "postgres".to_owned(),
            references: vec![Reference::Fixed("postgres:17".to_owned())],
            root: Some(Root::Postgres),
            start: postgres_start(),
            fill: &|layer| layer.folder("tmp", Mode::Scratch),
        })
    }

    /// [`Self::postgres`] whose clock is an hour ahead: for tests.
    fn postgres_ahead(&mut self) -> Result<()> {
        let faketime = self.faketime()?;
        self.make(&Recipe {
            name: "postgres-ahead".to_owned(),
            references: vec![Reference::Fixed("postgres-ahead:17".to_owned())],
            root: Some(Root::Postgres),
            start: Start { environment: AN_HOUR_AHEAD.to_vec(), ..postgres_start() },
            fill: &|layer| {
                layer.folder("tmp", Mode::Scratch)?;
                layer.file(FAKETIME, &faketime, Mode::Read)
            },
        })
    }

    /// [`Self::valv`] whose clock is an hour ahead: for tests.
    fn valv_ahead(&mut self, binary: &Path) -> Result<()> {
        let faketime = self.faketime()?;
        self.make(&Recipe {
            name: "valv-ahead".to_owned(),
            references: vec![Reference::WithKey("valv-ahead:".to_owned())],
            root: Some(Root::Base),
            start: Start { environment: AN_HOUR_AHEAD.to_vec(), ..valv_start() },
            fill: &|layer| {
                valv_files(layer, binary)?;
                layer.file(FAKETIME, &faketime, Mode::Read)
            },
        })
    }

    /// The file that shows a program another time.
    fn faketime(&self) -> Result<PathBuf> {
        let root = Root::Faketime.folder(self.cache, self.progress)?;
        let folder = format!("usr/lib/{}-linux-gnu/faketime", std::env::consts::ARCH);
        Ok(root.join(folder).join("libfaketimeMT.so.1"))
    }

    fn haproxy(&mut self) -> Result<()> {
        self.make(&Recipe {
            name: "haproxy".to_owned(),
            references: vec![Reference::Fixed("haproxy:3".to_owned())],
            root: Some(Root::Haproxy),
            start: Start {
                entrypoint: vec!["/usr/sbin/haproxy".to_owned()],
                user: Some(NOBODY_IN_PARTICULAR),
                // At SIGTERM it cuts off whoever it serves; as in its makers' image.
                stop_signal: Some("SIGUSR1".to_owned()),
                ..Start::default()
            },
            fill: &|layer| layer.folder("tmp", Mode::Scratch),
        })
    }

    fn valv(&mut self, binary: &Path) -> Result<()> {
        self.make(&Recipe {
            name: "valv".to_owned(),
            references: vec![Reference::WithKey("valv:".to_owned())],
            root: Some(Root::Base),
            start: valv_start(),
            fill: &|layer| valv_files(layer, binary),
        })
    }

    /// A release of the journal: the same binary each time, with that release's migrations.
    fn journal(&mut self, number: u32, binary: &Path) -> Result<()> {
        let release = checkout::journal_release(number);
        self.make(&Recipe {
            name: format!("journal-{number}"),
            references: vec![
                Reference::WithKey(format!("journal:{number}-")),
                Reference::Fixed(format!("journal:{number}")),
            ],
            root: Some(Root::Shell),
            start: Start {
                entrypoint: vec!["journal".to_owned()],
                user: Some(JOURNAL_USER),
                ..Start::default()
            },
            fill: &|layer| {
                layer.folder("tmp", Mode::Scratch)?;
                layer.file("usr/local/bin/journal", binary, Mode::Run)?;
                layer.tree("usr/share/journal", &release)
            },
        })
    }

    fn make(&mut self, recipe: &Recipe<'_>) -> Result<()> {
        let (name, key) = (&recipe.name, recipe.key()?);
        let references: Vec<_> = recipe.references.iter().map(|reference| reference.with_key(&key)).collect();
        let reference = references.first().context("every image has a reference")?.clone();
        let archive = self.cache.image(name, &key);
        let root = recipe.root.map(|root| root.tar(self.cache, self.progress)).transpose()?;
        self.cache.fill(&archive, |draft| {
            let step = self.progress.step(&format!("writing image {name}"));
            let own = draft.with_extension("layer");
            let written = File::create(&own)
                .map_err(Error::from)
                .and_then(|file| recipe.write_layer(&mut BufWriter::new(file)))
                .and_then(|()| {
                    let layers = root.into_iter().chain([own.clone()]).collect();
                    Image { references, layers, start: recipe.start.clone() }.write(draft)
                });
            fs::remove_file(own)?;
            written?;
            step.done();
            Ok(())
        })?;
        self.images.push(Built { name: name.clone(), reference, archive });
        Ok(())
    }
}

fn postgres_start() -> Start {
    Start {
        entrypoint: vec!["/usr/lib/postgresql/17/bin/postgres".to_owned()],
        user: Some(999),
        path: Some("/usr/lib/postgresql/17/bin".to_owned()),
        ..Start::default()
    }
}

fn valv_start() -> Start {
    Start { entrypoint: vec!["valv".to_owned()], user: Some(NOBODY_IN_PARTICULAR), ..Start::default() }
}

fn valv_files(layer: &mut Layer<&mut dyn Write>, binary: &Path) -> Result<()> {
    layer.folder("tmp", Mode::Scratch)?;
    layer.file("usr/local/bin/valv", binary, Mode::Run)?;
    layer.link("usr/local/bin/kubectl-valv", "valv")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(start: Start, fill: &dyn Fn(&mut Layer<&mut dyn Write>) -> Result<()>) -> String {
        let references = vec![Reference::WithKey("a:".to_owned())];
        Recipe { name: "a".to_owned(), references, root: None, start, fill }.key().unwrap()
    }

    #[test]
    fn whatever_changes_in_an_image_changes_its_key() {
        let shell = Start { entrypoint: vec!["/bin/sh".to_owned()], ..Start::default() };
        let scratch = |layer: &mut Layer<&mut dyn Write>| layer.folder("tmp", Mode::Scratch);
        let nothing = |_: &mut Layer<&mut dyn Write>| Ok(());

        let first = key(shell.clone(), &scratch);

        assert_eq!(key(shell.clone(), &scratch), first);
        assert_ne!(key(shell.clone(), &nothing), first);
        assert_ne!(key(Start { user: Some(1), ..shell }, &scratch), first);
    }
}
