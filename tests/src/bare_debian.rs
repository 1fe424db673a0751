//! A bare Debian in which the blocks of the page on the format of backups are run: what restores there needs no Valv.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use age::secrecy::ExposeSecret;
use age::x25519;
use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use valv_cluster::{Cluster, Identity};

use crate::kind;
use crate::operator::NAMESPACE;
use crate::page;
use crate::protected::Protected;
use crate::store::BackupStore;
use crate::test::Test;

/// The page that must be true.
pub const PAGE: &str = "backup-format.md";

/// The section whose block restores.
const SECTION: &str = "## Restore without Valv";

/// What the page needs of PostgreSQL: its own judgement of the folder.
const VERIFY: &str = "export PATH=/usr/lib/postgresql/17/bin:/usr/sbin:/usr/bin:/bin; cd /
chown -R postgres /restored/database
chroot --userspec=postgres:postgres / pg_verifybackup --exit-on-error /restored/database";

/// A bare Debian with what the page says is needed. Nothing of Valv is in it.
pub struct BareDebian {
    folder: TempDir,
    cluster: &'static Cluster,
    base: PathBuf,
    settings: Vec<(&'static str, String)>,
}

/// Restores the backup `name` without Valv, with the key in escrow: each part, and `pg_verifybackup` of the database.
///
/// # Errors
/// If any of it fails: then it is not the backup that it says to be.
pub async fn restores(protected: &Protected<'_>, name: &str) -> Result<()> {
    let slot = protected.slot(name).await?;
    let debian = BareDebian::new(protected.test(), protected.store(), &protected.tenant.name, &slot).await?;
    for part in ["database", "attachments", "tenant"] {
        debian.restores(part, &protected.escrow).with_context(|| format!("{part} of {name}"))?;
    }
    debian.runs(VERIFY).with_context(|| format!("the restored database of {name}")).map(drop)
}

impl BareDebian {
    /// One that is to restore `slot` of `archive` from `store`.
    ///
    /// # Errors
    /// If the cluster is not the local one, or a root cannot be made.
    pub async fn new(test: &Test, store: &BackupStore, archive: &str, slot: &str) -> Result<Self> {
        let cluster = test.world.local().context("the stores are the local cluster's")?;
        let folder = TempDir::new()?;
        let public = test.world.admin.get(kind::CONFIG_MAP, NAMESPACE, "valv-signing-key-public").await?;
        let public =
            public["data"]["signing.pub"].as_str().context("the signing key is published")?.to_owned();
        let server = &store.server;
        let key = store.key(Identity::Reader)?;
        let settings = vec![
            ("PATH", "/usr/bin:/bin".to_owned()),
            ("S3_ENDPOINT", server.endpoint()),
            ("S3_REGION", server.region.to_owned()),
            ("S3_BUCKET", store.bucket().to_owned()),
            ("S3_PREFIX", store.name.clone()),
            ("S3_ACCESS_KEY_ID", key.id.clone()),
            ("S3_SECRET_ACCESS_KEY", key.secret.expose_secret().to_owned()),
            ("S3_CA_FILE", "/etc/store.pem".to_owned()),
            ("ARCHIVE", archive.to_owned()),
            ("SLOT", slot.to_owned()),
            ("PUBLIC_KEY", "/etc/operator.pem".to_owned()),
            ("IDENTITY", "/etc/identity".to_owned()),
        ];
        let debian = Self { folder, cluster, base: cluster.restore_root()?, settings };
        for name in ["upper/etc", "upper/restored", "upper/tmp", "work", "root"] {
            fs::create_dir_all(debian.path(name))?;
        }
        fs::set_permissions(debian.path("upper/tmp"), Permissions::from_mode(0o1777))?;
        fs::set_permissions(debian.folder.path(), Permissions::from_mode(0o755))?;
        fs::copy(server.ca(), debian.path("upper/etc/store.pem"))?;
        fs::write(debian.path("upper/etc/operator.pem"), public)?;
        fs::write(debian.path("upper/etc/hosts"), format!("{} {}\n", server.address.ip(), server.host()))?;
        fs::write(debian.path("upper/restore.sh"), page::block(PAGE, SECTION)?)?;
        Ok(debian)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a file says that the scripts left.
    ///
    /// # Errors
    /// If it is not there.
    pub fn read(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.path("upper").join(name))?)
    }

    /// From here on the operator's public key is another's.
    ///
    /// # Errors
    /// If none can be made.
    pub fn signed_by_another(&self) -> Result<()> {
        self.runs("openssl genpkey -algorithm ed25519 | openssl pkey -pubout -out /etc/operator.pem")
            .map(drop)
    }

    /// Restores `part` into an empty folder, as the page says.
    ///
    /// # Errors
    /// If the page's block fails; with what it says of that.
    pub fn restores(&self, part: &str, key: &x25519::Identity) -> Result<()> {
        fs::write(self.path("upper/etc/identity"), key.to_string().expose_secret())?;
        let target = format!("/restored/{part}");
        let inside = self.path("upper").join(target.trim_start_matches('/'));
        if inside.exists() {
            fs::remove_dir_all(&inside)?;
        }
        fs::create_dir(&inside)?;
        self.run("bash /restore.sh", &[("PART", part), ("TARGET", &target)]).map(drop)
    }

    /// Runs a script, and returns what it prints.
    ///
    /// # Errors
    /// If it fails; with what it says of that.
    pub fn runs(&self, script: &str) -> Result<String> {
        self.run(script, &[])
    }

    /// From here on the commit is asked for by this version.
    pub fn with_commit_version(&mut self, version: &str) {
        self.settings.push(("COMMIT_VERSION", version.to_owned()));
    }

    /// What `script` prints, run by bash with nothing in its environment but what the page asks for.
    fn run(&self, script: &str, more: &[(&str, &str)]) -> Result<String> {
        let mut command: Command = self.cluster.world_command("unshare")?;
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
        command.args(["sh", "-ec", IN_ITS_ROOT, "sh"]).arg(self.folder.path()).arg(&self.base).arg(script);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let settings = self.settings.iter().map(|(name, value)| (*name, value.as_str()));
        command.args(settings.chain(more.iter().copied()).map(|(name, value)| format!("{name}={value}")));
        let output = command.output()?;
        if !output.status.success() {
            bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// The folder `$1` over the root `$2`; the script `$3` runs in it with the rest as its environment.
const IN_ITS_ROOT: &str = r#"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --rbind /dev "$1/root/dev"
mount -t proc proc "$1/root/proc"
root=$1/root script=$3
shift 3
exec chroot "$root" /usr/bin/env -i "$@" bash -euo pipefail -c "$script"
"#;
