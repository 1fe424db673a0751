//! A pod for one test: a root folder, and processes in it that are apart from all others.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use secrecy::SecretString;
use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use valv::{
    agent::{
        roles::{Role, Roles},
        scram,
    },
    pki::{self, Issued},
};

/// The user of the official PostgreSQL image.
const USER: u32 = 999;

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than a test.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// What Kubernetes does before it starts a container, and then becomes that container's first process.
/// Process 2 is another container's of the same user, as in a pod whose containers share their processes.
const CONTAINER: &str = r#"
    setpriv --reuid=999 --regid=999 --clear-groups tail -f /dev/null > /dev/null 2>&1 &
    mount --bind "$POSTGRES_ROOT/usr" "$ROOT/usr"
    mount --rbind /dev "$ROOT/dev"
    mount -t proc proc "$ROOT/proc"
    mount --bind "$VALV" "$ROOT/valv/valv"
    exec chroot --userspec=999:999 --groups= "$ROOT" "$@"
"#;

/// Asks `look` until it has an answer.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = look().await {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The children of the process `parent`: name and state, `Z` for one that nobody has buried.
pub fn children(parent: u32) -> Vec<(String, char)> {
    let text = |path: String| fs::read_to_string(path).unwrap_or_default();
    fs::read_dir(format!("/proc/{parent}/task"))
        .unwrap()
        .flat_map(|thread| {
            let list = text(format!("{}/children", thread.unwrap().path().display()));
            list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        })
        .filter_map(|pid| {
            let stat = text(format!("/proc/{pid}/stat"));
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
            Some((name.to_owned(), rest.trim_start().chars().next()?))
        })
        .collect()
}

/// Signs a server's certificate, as a tenant's own authority does.
pub struct Authority(Issued);

impl Authority {
    pub fn new() -> Self {
        Self(pki::authority("the authority of a test", now(), CERTIFICATE_LIFETIME).unwrap())
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.0.certificate.clone()
    }

    /// Certificate and key for `127.0.0.1`, PEM.
    fn server(&self) -> (String, String) {
        let names = ["127.0.0.1".to_owned()];
        let issued = pki::server(&names, &self.0, now(), CERTIFICATE_LIFETIME).unwrap();
        (issued.certificate, issued.key)
    }
}

fn now() -> Timestamp {
    SystemTime::now().try_into().unwrap()
}

/// How a command of the agent ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub message: Value,
    pub log: String,
}

/// A pod's files. Gone when dropped.
pub struct Pod {
    folder: TempDir,
    postgres_root: PathBuf,
    pub port: u16,
    pub authority: Authority,
}

impl Pod {
    /// A pod with an empty volume, settings for a test, and no roles file.
    pub fn new() -> Self {
        let postgres_root = std::env::var_os("VALV_POSTGRES_ROOT").map(PathBuf::from).expect(
            "set VALV_POSTGRES_ROOT to the root folder of a Debian trixie with PostgreSQL 17 \
             (`make test` makes one): these tests need a real server, and are not skipped",
        );
        assert!(
            postgres_root.join("usr/lib/postgresql/17/bin/postgres").exists(),
            "there is no PostgreSQL 17 in VALV_POSTGRES_ROOT, {}",
            postgres_root.display(),
        );
        assert!(rustix::process::geteuid().is_root(), "run these tests as root: they make pods");

        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let pod =
            Self { folder: tempfile::tempdir().unwrap(), postgres_root, port, authority: Authority::new() };
        let root = pod.root();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["usr", "dev", "proc", "etc/valv/database", "etc/valv/tls", "etc/valv/roles"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for name in ["bin", "lib", "lib64", "sbin"] {
            symlink(format!("usr/{name}"), root.join(name)).unwrap();
        }
        for folder in ["var/lib/postgresql/data", "valv/run"] {
            fs::create_dir_all(root.join(folder)).unwrap();
            chown(root.join(folder), Some(USER), Some(USER)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "postgres:x:999:999::/:/bin/false\n").unwrap();
        fs::write(root.join("valv/valv"), "").unwrap();
        pod.write_tls(&pod.authority);
        pod.write_settings();
        pod
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn volume(&self) -> PathBuf {
        self.root().join("var/lib/postgresql/data")
    }

    pub fn roles_file(&self) -> PathBuf {
        self.root().join("etc/valv/roles/roles.json")
    }

    /// Settings like a tenant's, but that the superuser may come in, and that every statement is logged.
    fn write_settings(&self) {
        let folder = self.root().join("etc/valv/database");
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '/valv/run'\n\
             ssl = on\nssl_cert_file = '/etc/valv/tls/tls.crt'\nssl_key_file = '/etc/valv/tls/tls.key'\n\
             log_statement = 'all'\n",
            self.port,
        );
        fs::write(folder.join("postgresql.conf"), settings).unwrap();
        let rules = "local all postgres trust\nlocal all all scram-sha-256\nlocal replication all scram-sha-256\n\
                     hostssl all all 127.0.0.1/32 scram-sha-256\n\
                     hostssl replication journal_replication 127.0.0.1/32 scram-sha-256\n";
        fs::write(folder.join("pg_hba.conf"), rules).unwrap();
    }

    /// Mounts a certificate of `authority`, the way Kubernetes changes a Secret: by turning a link.
    pub fn write_tls(&self, authority: &Authority) {
        let folder = self.root().join("etc/valv/tls");
        let version = tempfile::Builder::new().prefix("..").tempdir_in(&folder).unwrap().keep();
        fs::set_permissions(&version, fs::Permissions::from_mode(0o755)).unwrap();
        let (certificate, key) = authority.server();
        for (name, content) in [("tls.crt", certificate), ("tls.key", key)] {
            let path = version.join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            chown(&path, Some(USER), Some(USER)).unwrap();
            if !folder.join(name).is_symlink() {
                symlink(format!("..data/{name}"), folder.join(name)).unwrap();
            }
        }
        symlink(version.file_name().unwrap(), folder.join("..data.new")).unwrap();
        fs::rename(folder.join("..data.new"), folder.join("..data")).unwrap();
    }

    /// Mounts a roles file: `None` for a role that may not log in.
    pub fn write_roles(&self, grant: &str, passwords: &BTreeMap<Role, Option<String>>) {
        let verifier = |password: &String| scram::verifier(&SecretString::from(password.as_str()));
        let roles = Roles {
            database: "journal".parse().unwrap(),
            application_grant: serde_json::from_value(grant.into()).unwrap(),
            roles: passwords
                .iter()
                .map(|(role, password)| (*role, password.as_ref().map(verifier)))
                .collect(),
        };
        fs::write(self.roles_file(), serde_json::to_string(&roles).unwrap()).unwrap();
    }

    /// A command that runs `program` in the pod, in a container of its own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--ipc", "--fork", "--propagation", "private"])
            .args(["sh", "-ec", CONTAINER, "container", program])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("ROOT", self.root())
            .env("POSTGRES_ROOT", &self.postgres_root)
            .env("VALV", env!("CARGO_BIN_EXE_valv"))
            .stdin(Stdio::null());
        command
    }

    /// Starts `valv agent` with `args`.
    pub fn start(&self, args: &[&str]) -> Started {
        self.start_with(args, &[])
    }

    fn start_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Started {
        let all: Vec<&str> = ["agent"].iter().chain(args).copied().collect();
        self.start_program_with("/valv/valv", &all, environment)
    }

    /// Starts another program.
    pub fn start_program(&self, program: &str, args: &[&str]) -> Started {
        self.start_program_with(program, args, &[])
    }

    fn start_program_with(&self, program: &str, args: &[&str], environment: &[(&str, &str)]) -> Started {
        let number = fs::read_dir(self.root()).unwrap().count();
        let log = self.root().join(format!("log-{number}"));
        let message = self.root().join("valv/run/termination-log");
        let file = fs::File::create(&log).unwrap();
        let mut command = self.command(program);
        command.args(args).envs(environment.iter().copied());
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Started { child: command.spawn().unwrap(), log, message }
    }

    /// Starts `valv agent database init`.
    pub fn start_init(&self, args: &[&str]) -> Started {
        self.start_init_with(args, &[])
    }

    fn start_init_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Started {
        let _ = fs::remove_file(self.root().join("valv/run/termination-log"));
        let all = [&["database", "init", "--termination-log", "/valv/run/termination-log"], args].concat();
        self.start_with(&all, environment)
    }

    /// Runs `valv agent database init` to its end.
    pub fn init(&self, args: &[&str]) -> Ended {
        self.start_init(args).finish()
    }

    /// The same, told by the environment which database is expected.
    pub fn init_expecting(&self, system_identifier: &str) -> Ended {
        self.start_init_with(&[], &[("VALV_EXPECT_SYSTEM_IDENTIFIER", system_identifier)]).finish()
    }

    /// Starts `valv agent database run`.
    pub fn run(&self) -> Started {
        let watch = ["--watch", "/etc/valv/database", "--watch", "/etc/valv/tls"];
        self.start(&[&["database", "run"], &watch[..]].concat())
    }

    /// Runs `valv agent database roles` to its end, with `passwords` and trust in `authority`.
    pub fn rotate(&self, passwords: &[&str], authority: &Authority, deadline: &str) -> Ended {
        let folder = self.root().join("etc/valv/roles");
        fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
        let port = self.port.to_string();
        let mut args =
            vec!["database", "roles", "--host", "127.0.0.1", "--port", &port, "--deadline", deadline];
        args.extend([
            "--ca-file",
            "/etc/valv/roles/ca.crt",
            "--termination-log",
            "/valv/run/termination-log",
        ]);
        let names = passwords.iter().enumerate().map(|(number, password)| {
            fs::write(folder.join(format!("password-{number}")), format!("{password}\n")).unwrap();
            format!("/etc/valv/roles/password-{number}")
        });
        let names = names.collect::<Vec<_>>();
        args.extend(names.iter().flat_map(|name| ["--password-file", name]));
        let _ = fs::remove_file(self.root().join("valv/run/termination-log"));
        self.start(&args).finish()
    }

    /// Connects over the socket.
    pub async fn connect(
        &self,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host_path(self.root().join("valv/run")).port(self.port).dbname(database);
        let (client, connection) = config.user(user).password(password).connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Connects over the socket, as soon as the server is there.
    pub async fn connected(&self, user: &str, password: &str, database: &str) -> Client {
        eventually("the server", async || match self.connect(user, password, database).await {
            Ok(client) => Some(client),
            Err(error) => {
                let code = error.code().map(|code| code.code().to_owned());
                assert!(code.as_deref().is_none_or(|code| code.starts_with("57")), "{user}: {error:?}");
                None
            }
        })
        .await
    }

    /// Connects over TLS, to a server that `authority` vouches for.
    pub async fn connect_tls(
        &self,
        user: &str,
        password: &str,
        authority: &Authority,
    ) -> Result<Client, tokio_postgres::Error> {
        let mut roots = RootCertStore::empty();
        let pem = authority.pem();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).dbname("journal").ssl_mode(SslMode::Require);
        let connect = config.user(user).password(password).connect(MakeRustlsConnect::new(tls));
        let (client, connection) = connect.await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// A command of the agent that was started in the pod. Killed, with all that it started, when dropped.
pub struct Started {
    child: Child,
    log: PathBuf,
    message: PathBuf,
}

impl Started {
    /// The process that all of it is below.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The agent's process, as this process sees it.
    pub fn agent(&self) -> u32 {
        let start = Instant::now();
        let list = format!("/proc/{0}/task/{0}/children", self.child.id());
        loop {
            let pid = fs::read_to_string(&list).unwrap().trim().parse::<u32>().ok();
            let is_agent = |pid: &u32| {
                fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "valv")
            };
            if let Some(pid) = pid.filter(is_agent) {
                return pid;
            }
            assert!(start.elapsed() < PATIENCE, "the agent did not start");
            std::thread::yield_now();
        }
    }

    /// What Kubernetes does when a pod ends.
    pub fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.agent().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Sends a signal to a process, by its number in the pod.
    pub fn signal(&self, signal: &str, pid: &str) {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.agent().to_string(), "--pid", "--mount"]);
        let status = command.args(["--", "kill", &format!("-{signal}"), pid]).status().unwrap();
        assert!(status.success());
    }

    /// What a power cut does.
    pub fn kill(self) {
        self.agent();
        drop(self);
    }

    /// Ends the database, well.
    pub fn end(self) {
        self.terminate();
        let ended = self.finish();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Ended {
        let code = self.child.wait().unwrap().code();
        let read = |path: &Path| fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned());
        let message = read(&self.message).ok().and_then(|text| serde_json::from_str(&text).ok());
        Ended { code, message: message.unwrap_or_default(), log: read(&self.log).unwrap() }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // The pod's first process, and with it all of the pod; `unshare` waits for it and ends.
        let list = format!("/proc/{0}/task/{0}/children", self.child.id());
        while matches!(self.child.try_wait(), Ok(None)) {
            for pid in fs::read_to_string(&list).unwrap_or_default().split_whitespace() {
                let _ = Command::new("kill").args(["-KILL", pid]).stderr(Stdio::null()).status();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
