//! What users bring: a certificate of their own, a database server of their own.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use harness::test::unique;
use harness::{Seen, eventually, kind, run};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use valv_cluster::{Cluster, ELSEWHERE};
use valv_crds::condition::{ConditionType, Reason};

/// A place in the local cluster's world, outside all nodes.
const PLACE: &str = ELSEWHERE;

/// The user of PostgreSQL in the image.
const USER: u32 = 999;

#[test]
fn a_journal_serves_the_certificate_that_the_spec_names() {
    run(async |test| {
        let tenant = test.tenant("branded")?.with("certificates: {journalSecretRef: {name: brought}}")?;
        let authority = Authority::new()?;
        let (certificate, key) = authority.server(&tenant.host())?;
        tenant.apply().await?;
        let secret = [("tls.crt", &*certificate), ("tls.key", &*key), ("ca.crt", &*authority.pem())];
        tenant.bring_secret("brought", &secret).await?;

        tenant.ready().await?;

        let journal = tenant.journal().await?;
        let own = journal.trusting_only(&authority.pem())?;
        ensure!(own.version().await? == "1.0.0");
        ensure!(journal.version().await.is_err(), "the tenant's own authority vouches for it");
        let made = tenant.find(kind::SECRET, "journal-tls").await?;
        ensure!(made.is_none(), "a certificate was made that nobody asked for");
        test.measured("a client that trusts only the brought authority is served");
        Ok(())
    });
}

#[test]
fn a_journal_keeps_its_records_on_a_server_that_is_not_valvs() {
    run(async |test| {
        let Some(cluster) = test.world.local() else {
            test.not_here("no server can be put beside the nodes of this cluster");
            return Ok(());
        };
        let authority = Authority::new()?;
        let password = unique("password");
        let server = Server::start(cluster, &authority, &password).await?;
        let tenant = test.tenant("hosted")?.with(EXTERNAL)?;
        tenant.apply().await?;
        tenant.bring_secret("server", &[("user", "journal"), ("password", &password)]).await?;
        tenant.bring_secret("server-authority", &[("ca.crt", &authority.pem())]).await?;

        tenant.ready().await?;
        let journal = tenant.journal().await?;
        journal.write("På annan server.").await?;

        ensure!(journal.read().await? == ["På annan server."]);
        tenant.says(ConditionType::DatabaseReady, "True", Reason::External).await?;
        tenant.says(ConditionType::SchemaCurrent, "True", Reason::AsAsked).await?;
        ensure!(tenant.list(kind::STATEFUL_SET, "").await?.is_empty(), "a server was made beside it");
        let log = server.log()?;
        ensure!(log.contains("connection authorized: user=journal") && log.contains("SSL enabled"), "{log}");
        ensure!(!log.lines().any(is_in_plaintext), "somebody came in plaintext: {log}");
        test.measured("migrated and written to over verified TLS");
        Ok(())
    });
}

/// A server that Valv does not run.
const EXTERNAL: &str = "
database:
  provider: External
  size: null
  external:
    host: 10.123.0.30
    addresses: [10.123.0.30/32]
    secretRef: {name: server}
    caSecretRef: {name: server-authority}
";

fn is_in_plaintext(line: &str) -> bool {
    line.contains("connection authorized") && line.contains("host") && !line.contains("SSL enabled")
}

/// Somebody who signs certificates.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Certificate and key of a host or an address, PEM.
    fn server(&self, name: &str) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new([name.to_owned()])?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}

/// A PostgreSQL beside the nodes, with the database `journal` of the login `journal`. It ends when it is dropped.
struct Server {
    folder: TempDir,
    _process: Child,
}

impl Server {
    async fn start(cluster: &Cluster, authority: &Authority, password: &str) -> Result<Self> {
        let folder = TempDir::new()?;
        let root = folder.path();
        for name in ["usr", "dev", "proc", "etc", "tmp", "data"] {
            fs::create_dir(root.join(name))?;
        }
        for name in ["bin", "lib", "lib64", "sbin"] {
            symlink(format!("usr/{name}"), root.join(name))?;
        }
        fs::write(root.join("etc/passwd"), "postgres:x:999:999::/:/bin/sh\n")?;
        let (certificate, key) = authority.server(PLACE)?;
        let roles = format!(
            "CREATE ROLE journal LOGIN PASSWORD '{password}';\nCREATE DATABASE journal OWNER journal;\n"
        );
        private(root, "data/tls.crt", &certificate)?;
        private(root, "data/tls.key", &key)?;
        private(root, "data/hba", "hostssl journal journal all scram-sha-256\n")?;
        private(root, "data/roles", &roles)?;
        chown(root.join("data"), Some(USER), Some(USER))?;
        let log = fs::File::create(root.join("log"))?;
        let image = cluster.postgres_root()?;
        let mut command = Command::from(cluster.world_command("unshare")?);
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
        command.args(["sh", "-ec", IN_ITS_ROOT, "sh"]).arg(root).arg(image).arg(SERVE);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let server = Self { _process: command.spawn()?, folder };
        let address: SocketAddr = format!("{PLACE}:5432").parse()?;
        let up = eventually("the server takes connections", harness::tenant::STEP, async || {
            TcpStream::connect(address).await?;
            Ok(Seen::Yes(()))
        });
        match up.await {
            Ok(()) => Ok(server),
            Err(error) => Err(error.context(server.log()?)),
        }
    }

    fn log(&self) -> Result<String> {
        fs::read_to_string(self.folder.path().join("log")).context("the server has no log")
    }
}

/// Writes a file that only the server reads.
fn private(root: &Path, name: &str, text: &str) -> Result<()> {
    let path = root.join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(chown(&path, Some(USER), Some(USER))?)
}

/// `$1` becomes the root, with the programs of `$2`; `$3` runs in it as the server's user.
const IN_ITS_ROOT: &str = r#"
mount --bind "$2/usr" "$1/usr"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
exec chroot --userspec=999:999 --groups= "$1" /bin/sh -ec "$3"
"#;

/// Makes the database, and serves it over TLS alone.
const SERVE: &str = r#"
PATH=/usr/lib/postgresql/17/bin:/usr/bin
export PATH
initdb --pgdata=/data/pg --username=postgres --auth=reject --encoding=UTF8 --locale=C.UTF-8
postgres --single -D /data/pg postgres </data/roles
exec postgres -D /data/pg -c listen_addresses=10.123.0.30 -c unix_socket_directories=/data -c hba_file=/data/hba \
    -c ssl=on -c ssl_cert_file=/data/tls.crt -c ssl_key_file=/data/tls.key -c log_connections=on
"#;
