//! A bucket of a test's own at a store's server, with users of its own: what is done to them harms nobody else.
//!
//! It stays when the test has ended, as all stays that lies in a store, until the cluster goes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use valv_cluster::s3::{AccessKey, Method, Request};
use valv_cluster::{BUCKET, Identity, Store};

use crate::test::unique;

/// Where the server writes what is not whole yet, in each bucket: its disk is where these files are.
const UNFINISHED: &str = ".sgwtmp";

/// The smallest disk: one page.
const DISK_BYTES: usize = 4096;

/// A bucket, and its users.
pub struct OwnBucket {
    /// Its name.
    pub name: String,
    server: Store,
    secrets: BTreeMap<&'static str, SecretString>,
}

impl OwnBucket {
    /// A new one at `server`, with versions and locks, and with the rights of the common one.
    ///
    /// # Errors
    /// If the server refuses it.
    pub fn at(server: &Store) -> Result<Self> {
        let secret = || SecretString::from(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 30]>()));
        let secrets = Identity::ALL.map(|identity| (identity.name(), secret())).into_iter().collect();
        let own = Self { name: unique("valv-own"), server: server.clone(), secrets };
        for identity in Identity::ALL {
            own.reinstate(identity)?;
        }
        let administrator = server.administrator()?;
        let create = Request::new(Method::Put, &format!("/{}", own.name));
        administrator.must(&create.header("x-amz-bucket-object-lock-enabled", "true"))?;
        let common = Request::new(Method::Get, &format!("/{BUCKET}")).query("policy", "");
        let policy = own.policy(&administrator.must(&common)?.text())?;
        let put = Request::new(Method::Put, &format!("/{}", own.name)).query("policy", "");
        administrator.must(&put.body(policy))?;
        Ok(own)
    }

    /// The policy of the common bucket, for this one and its users.
    fn policy(&self, common: &str) -> Result<String> {
        let mut policy: Value = serde_json::from_str(common).context("the common bucket's policy")?;
        for statement in policy["Statement"].as_array_mut().context("a policy has statements")? {
            let who = statement["Principal"]["AWS"][0].as_str().context("a statement is of a user")?;
            statement["Principal"]["AWS"] = json!([self.user(who)]);
            for resource in statement["Resource"].as_array_mut().context("a statement has resources")? {
                let name = resource.as_str().context("a resource is a name")?;
                *resource = json!(name.replacen(BUCKET, &self.name, 1));
            }
        }
        Ok(policy.to_string())
    }

    /// The access key of one of its users.
    ///
    /// # Errors
    /// If it has none.
    pub fn key(&self, identity: Identity) -> Result<AccessKey> {
        let secret = self.secrets.get(identity.name()).context("it has a secret for each identity")?;
        Ok(AccessKey { id: self.user(identity.name()), secret: secret.clone() })
    }

    /// Takes a user away: from now on the server knows its key no more.
    ///
    /// # Errors
    /// If the server refuses it.
    pub fn revoke(&self, identity: Identity) -> Result<()> {
        let delete = Request::new(Method::Patch, "/delete-user");
        self.server.administrator()?.must(&delete.query("access", &self.user(identity.name()))).map(drop)
    }

    /// Makes a user, with the same key as ever.
    ///
    /// # Errors
    /// If the server refuses it.
    pub fn reinstate(&self, identity: Identity) -> Result<()> {
        let AccessKey { id, secret } = self.key(identity)?;
        let account = format!(
            "<Account><Access>{id}</Access><Secret>{}</Secret><Role>user</Role></Account>",
            secret.expose_secret()
        );
        let create = Request::new(Method::Patch, "/create-user").body(account);
        self.server.administrator()?.must(&create).map(drop)
    }

    /// Fills the disk on which the server writes what is put into this bucket.
    ///
    /// # Errors
    /// If nothing can be mounted here.
    pub fn fill(&self) -> Result<FullDisk> {
        FullDisk::over(self.server.objects().with_file_name(&self.name).join(UNFINISHED))
    }

    fn user(&self, who: &str) -> String {
        format!("{}-{who}", self.name)
    }
}

/// A disk without room, over the server's own. It goes when it is dropped, and there is room again.
pub struct FullDisk {
    folder: PathBuf,
}

impl FullDisk {
    fn over(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        let size = format!("size={DISK_BYTES}");
        run("mount", &["-t", "tmpfs", "-o", &size, "full"], &folder)?;
        let disk = Self { folder };
        fs::write(disk.folder.join("all-of-it"), [0; DISK_BYTES]).context("failed to fill a disk")?;
        Ok(disk)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // What is still being written there ends with its own disk.
        if let Err(error) = run("umount", &["--lazy"], &self.folder) {
            eprintln!("a disk stays full: {error:#}");
        }
    }
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<()> {
    let output = Command::new(program).args(arguments).arg(folder).output();
    let output = output.with_context(|| format!("failed to run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        folder.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
