//! A real S3 server for one test, with TLS and a folder of its own.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use valv::io::bucket::{Addressing, AnsweredVersions, Bucket, Credentials, Patience, Settings, Trust};

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub const REGION: &str = "fi-hel2";
pub const BUCKET: &str = "valv-test";
pub const PREFIX: &str = "backups";
pub const ACCESS_KEY: &str = "root";
pub const SECRET_KEY: &str = "rootsecret";

/// What a bucket keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// The latest content of a key.
    Latest,
    /// All versions, and locks on them.
    LockedVersions,
}

/// How it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Tls,
    /// The same; and a bucket may stand in the host name, below [`DOMAIN`].
    Virtual,
    Plain,
}

/// A name that the store's certificate has, and no name server knows.
pub const DOMAIN: &str = "store.example";

/// versitygw, in a process of its own.
pub struct Store {
    process: Child,
    folder: TempDir,
    wire: Wire,
    pub port: u16,
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

impl Store {
    pub fn start(keeps: Keeps) -> Self {
        Self::start_with(keeps, Wire::Tls)
    }

    pub fn start_with(keeps: Keeps, wire: Wire) -> Self {
        let program = env::var_os("VALV_VERSITYGW")
            .expect("VALV_VERSITYGW: the path of versitygw, built by `cluster programs`");
        let folder = tempfile::tempdir().unwrap();
        let (authority, certificate, key) = certificates();
        for (name, content) in [("ca.pem", &authority), ("tls.crt", &certificate), ("tls.key", &key)] {
            fs::write(folder.path().join(name), content).unwrap();
        }
        for name in ["data", "versions", "users"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command
            .env("ROOT_ACCESS_KEY_ID", ACCESS_KEY)
            .env("ROOT_SECRET_ACCESS_KEY", SECRET_KEY)
            .args(["--region", REGION, "--port", &format!("127.0.0.1:{port}"), "--quiet"])
            .arg("--iam-dir")
            .arg(folder.path().join("users"))
            .current_dir(folder.path());
        let path = |name: &str| folder.path().join(name);
        if wire != Wire::Plain {
            command.arg("--cert").arg(path("tls.crt")).arg("--key").arg(path("tls.key"));
        }
        if wire == Wire::Virtual {
            command.args(["--virtual-domain", DOMAIN]);
        }
        command.arg("posix");
        if keeps == Keeps::LockedVersions {
            command.arg("--versioning-dir").arg(path("versions"));
        }
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = command
            .arg(path("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let store = Self { process, folder, wire, port, authority, certificate, key };
        store.make_bucket(BUCKET, keeps);
        store
    }

    /// Asks for a bucket, which at first waits for the server.
    pub fn make_bucket(&self, bucket: &str, keeps: Keeps) {
        let start = Instant::now();
        let header = (keeps == Keeps::LockedVersions).then_some("x-amz-bucket-object-lock-enabled: true");
        loop {
            let made = self.administer("PUT", &format!("/{bucket}"), header, "");
            let Err(error) = made else { return };
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(start.elapsed() < PATIENCE, "{error}\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes a user, whose access key is its name and whose secret key is [`SECRET_KEY`].
    pub fn make_user(&self, name: &str) {
        let account = format!(
            "<Account><Access>{name}</Access><Secret>{SECRET_KEY}</Secret><Role>user</Role></Account>"
        );
        self.administer("PATCH", "/create-user", None, &account).unwrap();
    }

    /// Sets the bucket's policy.
    pub fn set_policy(&self, policy: &str) {
        self.administer("PUT", &format!("/{BUCKET}?policy="), None, policy).unwrap();
    }

    /// Asks for something as the administrator.
    fn administer(&self, method: &str, path: &str, header: Option<&str>, body: &str) -> Result<(), String> {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--fail-with-body", "--request", method])
            .args(["--aws-sigv4", &format!("aws:amz:{REGION}:s3")])
            .args(["--user", &format!("{ACCESS_KEY}:{SECRET_KEY}")])
            // curl of Debian 12 does not send it by itself.
            .args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
            .args(["--cacert", "ca.pem"]);
        if !body.is_empty() {
            command.args(["--data-binary", body]);
        }
        if let Some(header) = header {
            command.args(["--header", header]);
        }
        let url = format!("{}{path}", self.endpoint());
        let asked = command.arg(url).current_dir(self.folder.path()).output().unwrap();
        let said = [asked.stdout, asked.stderr].concat();
        if asked.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
    }

    /// The server's process.
    #[allow(dead_code, reason = "only the race asks")]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn endpoint(&self) -> String {
        let scheme = if self.wire == Wire::Plain { "http" } else { "https" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub fn settings(&self) -> Settings {
        Settings {
            endpoint: self.endpoint(),
            region: REGION.into(),
            bucket: BUCKET.into(),
            prefix: PREFIX.into(),
            addressing: Addressing::Path,
            credentials: Credentials {
                access_key_id: ACCESS_KEY.into(),
                secret_access_key: SECRET_KEY.into(),
            },
            trust: Trust::Only(self.authority.clone()),
            proxy: None,
            patience: Patience::default(),
            answered_versions: AnsweredVersions::default(),
        }
    }

    pub fn bucket(&self) -> Bucket {
        Bucket::open(&self.settings()).unwrap()
    }

    /// The certificate of the authority, for other programs.
    pub fn authority_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Where the server keeps the latest content of `key`: for faults that it would not let anybody make.
    pub fn file(&self, key: &str) -> PathBuf {
        self.folder.path().join("data").join(BUCKET).join(PREFIX).join(key)
    }

    /// The keys that are there.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let root = self.file("");
        collect(&root, &root, &mut keys);
        keys.sort();
        keys
    }

    /// The bytes in one of its buckets.
    #[allow(dead_code, reason = "only the race asks")]
    pub fn bytes(&self, bucket: &str) -> u64 {
        let (root, mut keys) = (self.folder.path().join("data").join(bucket), Vec::new());
        collect(&root, &root, &mut keys);
        keys.iter().map(|key| fs::metadata(root.join(key)).unwrap().len()).sum()
    }
}

fn collect(root: &Path, folder: &Path, keys: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, keys);
        } else {
            keys.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An authority, and a certificate for 127.0.0.1 and [`DOMAIN`] with its key.
fn certificates() -> (String, String, String) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Not the name that the server's certificate has by default: openssl would take that for the authority.
    params.distinguished_name.push(DnType::CommonName, "the authority of a test");
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names =
        ["127.0.0.1".to_owned(), "localhost".to_owned(), DOMAIN.to_owned(), format!("{BUCKET}.{DOMAIN}")];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    (issuer.pem(), certificate.pem(), key.serialize_pem())
}
