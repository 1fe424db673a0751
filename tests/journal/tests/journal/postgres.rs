//! A database server for one test.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, net};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::pki::Pair;

/// Debian's `nobody`: the server refuses to run as root.
const NOBODY: u32 = 65534;

/// A server in a folder of its own, on a loopback port. It goes when this does.
pub struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Postgres {
    /// A new server with a database `journal`, its owner `owner`, and a role `app` without DDL rights.
    pub async fn start() -> Self {
        let mut postgres = Self::prepare().await;
        postgres.run().await;
        postgres
    }

    /// The same, but only TLS connections are taken, with this certificate.
    pub async fn start_with_tls(pair: &Pair) -> Self {
        let mut postgres = Self::prepare().await;
        let data = postgres.data();
        fs::write(data.join("server.crt"), &pair.certificate).unwrap();
        fs::write(data.join("server.key"), &pair.key).unwrap();
        private(&data.join("server.key"));
        hand_over(&data.join("server.crt"));
        fs::write(data.join("pg_hba.conf"), "local all all trust\nhostssl all all 127.0.0.1/32 trust\n")
            .unwrap();
        fs::write(data.join("postgresql.auto.conf"), "ssl = on\n").unwrap();
        postgres.run().await;
        postgres
    }

    /// Takes up another certificate, for new connections.
    pub async fn replace_certificate(&self, pair: &Pair) {
        fs::write(self.data().join("server.crt"), &pair.certificate).unwrap();
        fs::write(self.data().join("server.key"), &pair.key).unwrap();
        self.connect("postgres").await.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    }

    /// For `DATABASE_URL`.
    pub fn url(&self, role: &str) -> String {
        format!("postgres://{role}:hemligt@localhost:{}/journal?hostaddr=127.0.0.1", self.port)
    }

    /// A connection of the test's own, through the socket.
    pub async fn connect(&self, role: &str) -> Client {
        let database = if role == "postgres" { "postgres" } else { "journal" };
        self.try_connect(role, database).await.unwrap()
    }

    /// Stops the server as Kubernetes does when it moves a pod.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // SIGINT is PostgreSQL's fast shutdown: it does not wait for clients.
        let asked = Command::new("kill").args(["-INT", &process.id().to_string()]).status().unwrap();
        assert!(asked.success());
        process.wait().unwrap();
    }

    /// Runs the server and waits until it answers.
    pub async fn run(&mut self) {
        let process = self
            .program("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=16MB"])
            .args(["-p", &self.port.to_string(), "-k", &self.folder.path().to_string_lossy()])
            .stderr(fs::File::create(self.folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        self.process = Some(process);
        for _ in 0..200 {
            if self.try_connect("postgres", "postgres").await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("PostgreSQL did not start: {}", fs::read_to_string(self.folder.path().join("log")).unwrap());
    }

    /// A copy of a server that was made once: copying takes a tenth of the time of making.
    async fn prepare() -> Self {
        let postgres = Self::in_new_folder();
        let template = Path::new(env!("CARGO_TARGET_TMPDIR")).join(postgres.version());
        if !template.exists() {
            let made = Self::make().await;
            // Under another name first: tests run at the same time, and one may be stopped halfway.
            let unfinished = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            copy(&made.data(), &unfinished.path().join("data"));
            let _ = fs::rename(unfinished.path().join("data"), &template);
        }
        copy(&template, &postgres.data());
        postgres
    }

    /// A server with its roles and its database, stopped.
    async fn make() -> Self {
        let mut postgres = Self::in_new_folder();
        let made = postgres
            .program("initdb")
            .arg("-D")
            .arg(postgres.data())
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "--no-sync",
                "--wal-segsize=1",
            ])
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        postgres.run().await;
        postgres.make_database().await;
        postgres.stop();
        postgres
    }

    fn in_new_folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        hand_over(folder.path());
        let port = free_port();
        Self { folder, programs: programs(), port, process: None }
    }

    /// `postgres-15-18-…`: as the program says it, fit for a file's name.
    fn version(&self) -> String {
        let said = self.program("postgres").arg("--version").stdout(Stdio::piped()).output().unwrap();
        let words = String::from_utf8(said.stdout).unwrap();
        words.trim().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    }

    async fn make_database(&self) {
        let server = self.connect("postgres").await;
        for sql in ["CREATE ROLE owner LOGIN", "CREATE ROLE app LOGIN", "CREATE DATABASE journal OWNER owner"]
        {
            server.batch_execute(sql).await.unwrap();
        }
        let grant = "ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO app";
        self.connect("owner").await.batch_execute(grant).await.unwrap();
    }

    async fn try_connect(&self, role: &str, database: &str) -> Result<Client, tokio_postgres::Error> {
        let socket = self.folder.path().to_string_lossy();
        let settings = format!("host={socket} port={} user={role} dbname={database}", self.port);
        let (client, connection) = tokio_postgres::connect(&settings, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The folder with `initdb` and `postgres`: the newest of Debian's, or one in PATH.
fn programs() -> PathBuf {
    let mut debian: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    debian.sort_by_key(|folder| {
        let version = folder.parent().and_then(Path::file_name).unwrap_or_default();
        version.to_string_lossy().parse::<u32>().unwrap_or_default()
    });
    let in_path = || {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .find(|folder| folder.join("initdb").exists())
    };
    debian.pop().or_else(in_path).expect(
        "these tests need PostgreSQL's initdb in /usr/lib/postgresql/*/bin or PATH: \
         install Debian's package postgresql (postgresql-15 or newer)",
    )
}

/// A port below those that Linux gives to clients, so that none takes it while the server is stopped.
fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let place = std::process::id() * 37 + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (place % 12_000) as u16;
        if net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// With owners and modes.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn hand_over(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    hand_over(path);
}
