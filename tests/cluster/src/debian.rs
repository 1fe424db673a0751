//! What comes from Debian: programs for the host, and root file systems for images.
//!
//! The mirror is the one that the host's apt uses, asked for at run time; the host's own sources are
//! read and never changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use crate::cache::Cache;
use crate::digest::Inputs;
use crate::process;
use crate::progress::Progress;

/// What the cluster runs of Debian's, on the host, a line each. Debian 12 and later have all of it.
const HOST_PACKAGES: &str = include_str!("../packages.txt");

/// The release that images are made of. Its libc is newer than that of any host we build on, so what
/// was linked there runs here.
const IMAGE_SUITE: &str = "trixie";

/// While this answers 101, Debian's packages start no service when they are installed.
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

/// Ours says so, so that one which a killed run has left is known again.
const NONE_STARTS: &str = "#!/bin/sh\n# Made by Valv's local cluster while it installs packages.\nexit 101\n";

/// Installs what the host lacks.
///
/// # Errors
/// If something is missing and we are not root: names it.
pub fn install_host_packages(cache: &Cache, progress: &Progress) -> Result<()> {
    ServicePolicy::remove_left()?;
    let missing = missing_packages()?;
    if missing.is_empty() {
        return Ok(());
    }
    if !Uid::effective().is_root() {
        bail!("these Debian packages are missing, and only root can install them: {}", missing.join(" "));
    }
    let what = format!("installing Debian packages: {}", missing.join(" "));
    let step = progress.long_step(&what, Duration::from_secs(60));
    let log = cache.log("apt");
    let _policy = ServicePolicy::none_starts()?;
    let mut complete = Command::new("dpkg");
    complete.env("DEBIAN_FRONTEND", "noninteractive").args(["--configure", "--pending"]);
    process::run_logged(&mut complete, &log, &step).context("failed to complete an earlier installation")?;
    process::run_logged(Command::new("apt-get").args(["-q", "update"]), &log, &step)?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install.args(["-q", "install", "--yes", "--no-install-recommends"]).args(&missing);
    process::run_logged(&mut install, &log, &step)?;
    step.done();
    Ok(())
}

/// Fails unless we are root: names what root would install.
pub fn require_root(command: &str) -> Result<()> {
    if !Uid::effective().is_root() {
        let missing = missing_packages()?;
        let install = if missing.is_empty() {
            String::new()
        } else {
            format!("; it would install these Debian packages: {}", missing.join(" "))
        };
        bail!("`cluster {command}` makes namespaces and mounts, so it needs root{install}");
    }
    Ok(())
}

/// What the cluster needs of Debian's and the host does not have.
pub fn missing_packages() -> Result<Vec<&'static str>> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Package} ${db:Status-Status}\n"]).args(HOST_PACKAGES.lines());
    // It exits with 1 if it does not know one of them, and still prints the others.
    let known = query.output().context("failed to run dpkg-query: the local cluster needs a Debian host")?;
    let known = String::from_utf8_lossy(&known.stdout).into_owned();
    let installed = |package: &&str| known.lines().any(|line| line == format!("{package} installed"));
    Ok(HOST_PACKAGES.lines().filter(|package| !installed(package)).collect())
}

/// Keeps packages from starting their services while it lives: the cluster starts what it needs itself.
struct ServicePolicy {
    ours: bool,
}

impl ServicePolicy {
    fn none_starts() -> Result<Self> {
        if Path::new(SERVICE_POLICY).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(SERVICE_POLICY, NONE_STARTS).context("failed to hold services back")?;
        let policy = Self { ours: true };
        fs::set_permissions(SERVICE_POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(policy)
    }

    /// Removes one that a killed run has left: with it, packages that somebody else installs start nothing.
    fn remove_left() -> Result<()> {
        if fs::read_to_string(SERVICE_POLICY).is_ok_and(|text| text == NONE_STARTS) {
            fs::remove_file(SERVICE_POLICY)
                .with_context(|| format!("failed to remove {SERVICE_POLICY}, which a killed run has left"))?;
        }
        Ok(())
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if self.ours {
            // Nothing can be done about a failure here, and the next install does not depend on it.
            let _ = fs::remove_file(SERVICE_POLICY);
        }
    }
}

/// A root file system of Debian packages, none of whose maintainer scripts has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// libc and certificates: what a Rust program needs. No shell.
    Base,
    /// The same with a shell: a journal may be started by a script.
    Shell,
    /// `PostgreSQL` 17 with its client programs, and a shell with the usual tools.
    Postgres,
    /// The same with another program that backs `PostgreSQL` up, to compare with.
    Race,
    /// What the page on the format of backups says that a restore without Valv needs, and nothing of Valv.
    Restore,
    /// The proxy that gives TLS to a journal which has none.
    Haproxy,
    /// What shows a program another time than the machine's.
    Faketime,
}

impl Root {
    fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Shell => "shell",
            Self::Postgres => "postgres",
            Self::Race => "race",
            Self::Restore => "restore",
            Self::Haproxy => "haproxy",
            Self::Faketime => "faketime",
        }
    }

    fn packages(self) -> &'static str {
        match self {
            Self::Base => "base-files,ca-certificates,libc6,libgcc-s1,netbase,tzdata",
            Self::Shell => "base-files,ca-certificates,coreutils,dash,libc6,libgcc-s1,netbase,tzdata",
            Self::Postgres => {
                "base-files,bash,ca-certificates,coreutils,dash,diffutils,findutils,grep,gzip,hostname,libc-bin,\
                 netbase,postgresql-17,postgresql-client-17,procps,sed,tar,tzdata,util-linux,zstd"
            }
            Self::Race => {
                "base-files,bash,ca-certificates,coreutils,dash,diffutils,findutils,grep,gzip,hostname,libc-bin,\
                 netbase,pgbackrest,postgresql-17,postgresql-client-17,procps,sed,tar,tzdata,util-linux,zstd"
            }
            Self::Restore => {
                "age,b3sum,base-files,bash,ca-certificates,coreutils,curl,dash,findutils,grep,jq,libc-bin,netbase,openssl,\
                 postgresql-17,sed,tar,tzdata,zstd"
            }
            Self::Haproxy => "base-files,ca-certificates,haproxy,libc-bin,netbase,tzdata",
            Self::Faketime => "base-files,ca-certificates,libfaketime",
        }
    }

    /// Of the recipe, not of what the mirror has today: a root is made once and stays.
    pub fn key(self) -> Result<String> {
        let inputs = Inputs::default().add(IMAGE_SUITE).add(self.packages()).add(FINISH);
        Ok(inputs.digest()?.short(16).to_owned())
    }

    /// The root as a tar, made if it is not there.
    pub fn tar(self, cache: &Cache, progress: &Progress) -> Result<PathBuf> {
        let name = self.name();
        let place = cache.root(name, &self.key()?);
        cache.fill(&place, |draft| {
            let what = format!("making a root of Debian packages: {name}");
            let step = progress.long_step(&what, Duration::from_secs(20));
            let mut make = Command::new("mmdebstrap");
            make.args(["--variant=extract", "--format=tar"]);
            make.arg(format!("--include={}", self.packages()));
            make.arg(format!("--extract-hook={FINISH}"));
            make.arg(IMAGE_SUITE).arg(draft).arg(mirror()?);
            make.env("SOURCE_DATE_EPOCH", "0");
            process::run_logged(&mut make, &cache.log(name), &step)?;
            step.done();
            Ok(())
        })?;
        Ok(place)
    }

    /// The root as a folder, unpacked if it is not there.
    pub fn folder(self, cache: &Cache, progress: &Progress) -> Result<PathBuf> {
        let tar = self.tar(cache, progress)?;
        let place = tar.with_extension("");
        cache.fill(&place, |draft| {
            fs::create_dir_all(draft).with_context(|| format!("failed to create {}", draft.display()))?;
            let mut unpack = Command::new("tar");
            unpack.arg("--extract").arg("--file").arg(&tar).arg("--directory").arg(draft);
            process::output(&mut unpack).map(|_| ())
        })?;
        Ok(place)
    }
}

/// What makes an extracted root usable.
const FINISH: &str = include_str!("../roots/base.sh");

/// The mirror from which the host itself takes Debian.
fn mirror() -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(LABEL) $(COMPONENT) $(REPO_URI)", "Identifier: Packages"]);
    let targets = process::output(&mut targets)?;
    targets
        .lines()
        .find_map(|line| line.strip_prefix("Debian main "))
        .map(|mirror| mirror.trim_end_matches('/').to_owned())
        .context("the host's apt knows no Debian mirror")
}
