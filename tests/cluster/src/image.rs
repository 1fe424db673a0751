//! OCI images, written without a registry or a daemon.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::digest::Digest;
use crate::listing;

/// Where containerd finds the name under which an image is imported.
const NAME_ANNOTATION: &str = "io.containerd.image.name";

/// How a container of the image starts.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// The user, as a number.
    pub user: Option<u32>,
    /// Folders in front of the usual search path.
    pub path: Option<String>,
    /// The signal that asks it to stop; absent: SIGTERM.
    pub stop_signal: Option<String>,
    /// Variables of its environment, besides the usual ones.
    pub environment: Vec<(&'static str, &'static str)>,
}

impl Start {
    /// As the image's configuration has it.
    pub fn config(&self) -> Value {
        let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let path = self.path.as_ref().map_or_else(|| usual.to_owned(), |first| format!("{first}:{usual}"));
        let mut environment = vec![format!("PATH={path}"), "LANG=C.UTF-8".to_owned()];
        environment.extend(self.environment.iter().map(|(name, value)| format!("{name}={value}")));
        let mut config = json!({
            "Entrypoint": self.entrypoint,
            "Env": environment,
            "User": self.user.map(|user| user.to_string()).unwrap_or_default(),
            "WorkingDir": "/",
        });
        if let Some(signal) = &self.stop_signal {
            config["StopSignal"] = json!(signal);
        }
        config
    }
}

/// An image: its layers, lowest first, as uncompressed tars.
#[derive(Debug)]
pub struct Image {
    /// The names under which it is imported.
    pub references: Vec<String>,
    /// The layers.
    pub layers: Vec<PathBuf>,
    /// How it starts.
    pub start: Start,
}

impl Image {
    /// Writes the image to `archive`.
    ///
    /// # Shape
    /// A tar of an OCI image layout; `index.json` lists the image once for each reference. Same layers,
    /// same bytes.
    ///
    /// # Source
    /// <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>
    pub fn write(&self, archive: &Path) -> Result<()> {
        let mut layers = Vec::new();
        for layer in &self.layers {
            layers.push((layer, Digest::of_file(layer)?, fs::metadata(layer)?.len()));
        }
        let digests: Vec<String> = layers.iter().map(|(_, digest, _)| sha256(digest)).collect();
        let config = Blob::new(&json!({
            "architecture": architecture(),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": self.start.config(),
            "rootfs": {"type": "layers", "diff_ids": digests},
        }))?;
        let described: Vec<Value> = layers
            .iter()
            .map(|(_, digest, size)| descriptor("application/vnd.oci.image.layer.v1.tar", digest, *size))
            .collect();
        let manifest = Blob::new(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": described,
        }))?;
        let index = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": self.references.iter().map(|name| manifest.named(name)).collect::<Vec<_>>(),
        }))?;

        let out = File::create(archive).with_context(|| format!("failed to create {}", archive.display()))?;
        let mut layout = Layer::new(BufWriter::new(out));
        layout.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        layout.bytes("index.json", &index)?;
        for blob in [&config, &manifest] {
            layout.bytes(&blob_path(&blob.digest), &blob.bytes)?;
        }
        for (path, digest, _) in &layers {
            layout.file(&blob_path(digest), path, Mode::Read)?;
        }
        layout.finish()
    }
}

/// A small JSON document in the archive.
struct Blob {
    bytes: Vec<u8>,
    digest: Digest,
}

impl Blob {
    fn new(document: &Value) -> Result<Self> {
        let bytes = serde_json::to_vec(document)?;
        let digest = Digest::of_reader(bytes.as_slice())?;
        Ok(Self { bytes, digest })
    }

    fn descriptor(&self, media_type: &str) -> Value {
        descriptor(media_type, &self.digest, self.bytes.len() as u64)
    }

    /// The descriptor of a manifest that is imported as `reference`.
    fn named(&self, reference: &str) -> Value {
        let mut named = self.descriptor("application/vnd.oci.image.manifest.v1+json");
        let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        named["platform"] = json!({"architecture": architecture(), "os": "linux"});
        named["annotations"] = json!({NAME_ANNOTATION: reference, "org.opencontainers.image.ref.name": tag});
        named
    }
}

fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": sha256(digest), "size": size})
}

fn sha256(digest: &Digest) -> String {
    format!("sha256:{}", digest.as_str())
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.as_str())
}

/// Go's name for the architecture.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What may be done with a file in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Read by everybody.
    Read,
    /// Run by everybody.
    Run,
    /// A folder that everybody may write to, each their own.
    Scratch,
}

impl Mode {
    fn bits(self) -> u32 {
        match self {
            Self::Read => 0o644,
            Self::Run => 0o755,
            Self::Scratch => 0o1777,
        }
    }
}

/// A tar whose bytes depend on nothing but what is put into it: no times, no owners.
pub struct Layer<W: Write> {
    tar: Builder<W>,
}

impl<W: Write> Layer<W> {
    /// An empty layer, written to `out`.
    pub fn new(out: W) -> Self {
        Self { tar: Builder::new(out) }
    }

    /// Adds the file at `from` as `path`.
    pub fn file(&mut self, path: &str, from: &Path, mode: Mode) -> Result<()> {
        let mut file = File::open(from).with_context(|| format!("failed to open {}", from.display()))?;
        let size = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        self.entry(path, EntryType::Regular, mode, size, file)
    }

    /// Adds a file with these bytes.
    pub fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.entry(path, EntryType::Regular, Mode::Read, bytes.len() as u64, bytes)
    }

    /// Adds an empty folder.
    pub fn folder(&mut self, path: &str, mode: Mode) -> Result<()> {
        self.entry(&format!("{path}/"), EntryType::Directory, mode, 0, io::empty())
    }

    /// Adds all files of the folder `from`, and of those below it, in `path`. Sorted: the order in which
    /// a file system lists them does not show.
    pub fn tree(&mut self, path: &str, from: &Path) -> Result<()> {
        for (name, entry) in listing::of(from)? {
            let inside = format!("{path}/{name}");
            if entry.is_dir() {
                self.tree(&inside, &entry)?;
            } else {
                self.file(&inside, &entry, Mode::Read)?;
            }
        }
        Ok(())
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = header(EntryType::Symlink, Mode::Run, 0);
        self.tar.append_link(&mut header, path, target).with_context(|| format!("failed to add {path}"))
    }

    /// Writes the end of the tar.
    pub fn finish(mut self) -> Result<()> {
        self.tar.finish()?;
        self.tar.into_inner()?.flush()?;
        Ok(())
    }

    fn entry(
        &mut self,
        path: &str,
        kind: EntryType,
        mode: Mode,
        size: u64,
        data: impl io::Read,
    ) -> Result<()> {
        let mut header = header(kind, mode, size);
        self.tar.append_data(&mut header, path, data).with_context(|| format!("failed to add {path}"))
    }
}

fn header(kind: EntryType, mode: Mode, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode.bits());
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with one layer in it.
    fn folder_with_layer(test: &str) -> (PathBuf, PathBuf) {
        let folder = std::env::temp_dir().join(format!("valv-cluster-image-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let layer = folder.join("layer.tar");
        let mut tar = Layer::new(File::create(&layer).unwrap());
        tar.bytes("etc/motd", b"hello").unwrap();
        tar.link("bin/sh", "/bin/busybox").unwrap();
        tar.finish().unwrap();
        (folder, layer)
    }

    fn image(layer: &Path) -> Image {
        let references = vec!["valv.local/a:1".to_owned(), "valv.local/a:1-abc".to_owned()];
        Image { references, layers: vec![layer.to_path_buf()], start: Start::default() }
    }

    #[test]
    fn the_same_layers_give_the_same_archive() {
        let (folder, layer) = folder_with_layer("same");

        image(&layer).write(&folder.join("1.tar")).unwrap();
        image(&layer).write(&folder.join("2.tar")).unwrap();

        assert_eq!(fs::read(folder.join("1.tar")).unwrap(), fs::read(folder.join("2.tar")).unwrap());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_index_names_every_reference_and_every_blob_has_its_digest_as_name() {
        let (folder, layer) = folder_with_layer("index");
        let archive = folder.join("image.tar");

        image(&layer).write(&archive).unwrap();

        let mut tar = tar::Archive::new(File::open(&archive).unwrap());
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            if let Some(digest) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(Digest::of_reader(&mut entry).unwrap().as_str(), digest);
            } else if path == "index.json" {
                let index: Value = serde_json::from_reader(&mut entry).unwrap();
                let names = [0, 1].map(|at| index["manifests"][at]["annotations"][NAME_ANNOTATION].clone());
                assert_eq!(names, ["valv.local/a:1", "valv.local/a:1-abc"]);
            }
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
