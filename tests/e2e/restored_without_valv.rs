//! What the page on the format of backups says is enough: its block restores a tenant in a bare Debian, by the tools
//! that the page names, with a key, the operator's public key and the credentials of one who reads.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use age::secrecy::ExposeSecret;
use age::x25519;
use anyhow::{Context, Result, bail, ensure};
use harness::operator::NAMESPACE;
use harness::protected::{Protected, Wanted};
use harness::store::BackupStore;
use harness::{Test, kind, run};
use tempfile::TempDir;
use valv_cluster::{BUCKET, Identity};

/// The page that must be true.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/backup-format.md");

/// The section whose only block is run.
const SECTION: &str = "## Restore without Valv";

const NOTE: &str = "Läses om tio år.";

#[test]
fn the_page_s_block_restores_a_tenant_in_a_bare_debian() {
    run(async |test| {
        let Some(protected) = Protected::bring(test, Wanted::default()).await? else { return Ok(()) };
        let tenant = &protected.tenant;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        journal.write(NOTE).await?;
        journal.attach("remiss.pdf", &[7; 300_000]).await?;
        let name = protected.complete().await?;
        let slot = protected.backup(&name).await?["status"]["slot"].as_str().context("a slot")?.to_owned();

        let debian = Debian::new(test, protected.store(), &tenant.name, &slot).await?;
        for (part, key) in [
            ("database", &protected.escrow),
            ("attachments", &protected.owner),
            ("tenant", &protected.escrow),
        ] {
            debian.restores(part, key).with_context(|| part.to_owned())?;
        }

        debian.runs(DATABASE).context("the restored database")?;
        let told = debian.read("answers")?;
        ensure!(told == format!("{slot}\n{NOTE}\n"), "it has: {told}");
        let attachments = debian.runs("find /restored/attachments -type f -size 300000c | wc -l")?;
        ensure!(attachments.trim() == "1", "{attachments} attachments");
        let secrets = debian.runs("ls /restored/tenant /restored/tenant/secrets")?;
        ensure!(secrets.contains("tenant.yaml") && secrets.contains("login-owner"), "{secrets}");

        let stranger = x25519::Identity::generate();
        ensure!(debian.restores("tenant", &stranger).is_err(), "anybody can open it");
        debian.signed_by_another()?;
        let refused = debian.restores("tenant", &protected.escrow).err().context("any signature will do")?;
        ensure!(format!("{refused:#}").contains("not signed by this key"), "{refused:#}");
        test.measured(
            "three parts restored; database verified, started and read; no other key, no other signature",
        );
        Ok(())
    });
}

/// `pg_verifybackup`, and a server on the folder, whose answers are written down.
const DATABASE: &str = r#"
export PATH=/usr/lib/postgresql/17/bin:/usr/sbin:/usr/bin:/bin
cd /
chown -R postgres /restored/database
chmod 700 /restored/database
as() { chroot --userspec=postgres:postgres / "$@"; }
as pg_verifybackup --exit-on-error /restored/database
echo 'local all all trust' >/tmp/hba
chmod 644 /tmp/hba
as postgres -D /restored/database -c hba_file=/tmp/hba -c ssl=off -c archive_mode=off -c listen_addresses= \
    -c unix_socket_directories=/tmp >/tmp/log 2>&1 &
server=$!
ready=no
for _ in $(seq 120); do
    if pg_isready -q -h /tmp -U postgres; then ready=yes; break; fi
    kill -0 $server || break
    sleep 0.5
done
[ $ready = yes ] || { cat /tmp/log >&2; exit 1; }
psql -h /tmp -U postgres -d journal -qAt -v ON_ERROR_STOP=1 >/answers <<'END'
SELECT slot FROM valv.sentinel ORDER BY slot DESC LIMIT 1;
SELECT text FROM note;
END
as pg_ctl stop --silent --wait --mode fast --pgdata /restored/database
wait $server
"#;

/// A bare Debian with what the page says is needed. Nothing of Valv is in it.
struct Debian {
    folder: TempDir,
    cluster: &'static valv_cluster::Cluster,
    base: std::path::PathBuf,
    settings: Vec<(&'static str, String)>,
}

impl Debian {
    async fn new(test: &Test, store: &BackupStore, archive: &str, slot: &str) -> Result<Self> {
        let cluster = test.world.local().context("the stores are the local cluster's")?;
        let folder = TempDir::new()?;
        let public = test.world.admin.get(kind::CONFIG_MAP, NAMESPACE, "valv-signing-key-public").await?;
        let public =
            public["data"]["signing.pub"].as_str().context("the signing key is published")?.to_owned();
        let server = &store.server;
        let key = server.key(Identity::Reader)?;
        let settings = vec![
            ("PATH", "/usr/bin:/bin".to_owned()),
            ("S3_ENDPOINT", server.endpoint()),
            ("S3_REGION", server.region.to_owned()),
            ("S3_BUCKET", BUCKET.to_owned()),
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
        fs::write(debian.path("upper/restore.sh"), block()?)?;
        Ok(debian)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.path("upper").join(name))?)
    }

    /// From here on the operator's public key is another's.
    fn signed_by_another(&self) -> Result<()> {
        self.runs("openssl genpkey -algorithm ed25519 | openssl pkey -pubout -out /etc/operator.pem")
            .map(drop)
    }

    /// Restores `part` into an empty folder, as the page says.
    fn restores(&self, part: &str, key: &x25519::Identity) -> Result<()> {
        fs::write(self.path("upper/etc/identity"), key.to_string().expose_secret())?;
        let target = format!("/restored/{part}");
        let inside = self.path("upper").join(target.trim_start_matches('/'));
        if inside.exists() {
            fs::remove_dir_all(&inside)?;
        }
        fs::create_dir(&inside)?;
        self.run("bash /restore.sh", &[("PART", part), ("TARGET", &target)]).map(drop)
    }

    fn runs(&self, script: &str) -> Result<String> {
        self.run(script, &[])
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

/// The block, as it stands on the page.
fn block() -> Result<String> {
    let page = fs::read_to_string(Path::new(PAGE))?;
    let section = page.split(SECTION).nth(1).context("the page has no such section")?;
    let block = section.split("```bash\n").nth(1).context("the section has no block")?;
    Ok(block.split("```").next().unwrap_or_default().to_owned())
}
