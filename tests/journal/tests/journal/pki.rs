//! Certificate authorities and certificates, made for one test.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// PEM, for `DATABASE_CA_FILE` and for clients.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `localhost`.
    pub fn issue(&self) -> Pair {
        self.issue_for("localhost")
    }

    /// A certificate for `host`.
    pub fn issue_for(&self, host: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A folder with files as Kubernetes mounts a Secret: all change at once, by one symbolic link.
pub struct Mount {
    folder: PathBuf,
    generation: u32,
}

impl Mount {
    /// Mounts `files` (name and content) in `folder`.
    pub fn new(folder: PathBuf, files: &[(&str, &str)]) -> Self {
        fs::create_dir(&folder).unwrap();
        let mut mount = Self { folder, generation: 0 };
        mount.replace(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), mount.path(name)).unwrap();
        }
        mount
    }

    /// Where the file `name` is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Swaps all files for `files`.
    pub fn replace(&mut self, files: &[(&str, &str)]) {
        self.generation += 1;
        let content = format!("..{}", self.generation);
        fs::create_dir(self.path(&content)).unwrap();
        for (name, text) in files {
            fs::write(self.path(&content).join(name), text).unwrap();
        }
        symlink(&content, self.path("..new")).unwrap();
        fs::rename(self.path("..new"), self.path("..data")).unwrap();
    }
}
