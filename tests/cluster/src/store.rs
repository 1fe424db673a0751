//! Object storage in two countries: S3 servers in the world, each with a bucket for backups.
//!
//! | to find | open |
//! |---|---|
//! | who may do what | `store/policy.rs` |
//! | the users' secrets | `store/keys.rs` |
//! | how a server is started and ended | `store/server.rs` |
//! | how its users and its bucket are made | `store/bucket.rs` |
//! | one without a cluster | `store/here.rs` |

pub(crate) mod bucket;
pub(crate) mod here;
pub(crate) mod keys;
mod policy;
pub(crate) mod server;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::authority::{Authority, CERTIFICATE, Signed, Subject};
use crate::network::{FRANKFURT, HELSINKI, STORE_PORT};
use crate::s3::{AccessKey, Client};
use crate::settings::Settings;
use keys::Keys;

/// The bucket that each store has.
pub const BUCKET: &str = "valv-backups";

/// Where their names end.
const DOMAIN: &str = "store.example";

/// What a store can do against loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Protection {
    /// It keeps what is overwritten or deleted as a version, and locks versions until a date.
    VersionsAndLocks,
    /// Neither: what is overwritten or deleted is gone.
    None,
}

/// Whether a certificate is still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It is.
    Valid,
    /// It was, some years ago.
    Expired,
}

/// Those who use a bucket, besides the administrator, whom only this crate knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Puts data.
    Writer,
    /// Puts commits, keys and records, and extends locks.
    Committer,
    /// Reads and lists.
    Reader,
    /// Lists and deletes.
    Janitor,
}

impl Identity {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Writer, Self::Committer, Self::Reader, Self::Janitor];

    /// Its name, which is also the name of its access key.
    pub fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Committer => "committer",
            Self::Reader => "reader",
            Self::Janitor => "janitor",
        }
    }
}

/// One store. It may run or not.
#[derive(Clone, Debug)]
pub struct Store {
    /// `helsinki` or `frankfurt`; also the name of its log.
    pub name: &'static str,
    /// Where it says it is: an ISO 3166 code of two letters.
    pub country: &'static str,
    /// The region, as it calls itself.
    pub region: &'static str,
    /// Where it is in the world.
    pub address: SocketAddr,
    /// What it can do against loss.
    pub protection: Protection,
    state: PathBuf,
}

impl Store {
    /// Both, of the cluster that `settings` name.
    pub(crate) fn all(settings: &Settings) -> Result<[Self; 2]> {
        let store = |name, country, region, address: &str, protection| {
            let address = SocketAddr::new(address.parse::<IpAddr>()?, STORE_PORT);
            Ok::<_, anyhow::Error>(Self {
                name,
                country,
                region,
                address,
                protection,
                state: settings.state.join("stores"),
            })
        };
        Ok([
            store("helsinki", "FI", "fi-hel2", HELSINKI, Protection::VersionsAndLocks)?,
            store("frankfurt", "DE", "de-fra1", FRANKFURT, Protection::None)?,
        ])
    }

    /// The one of this name.
    pub(crate) fn named(settings: &Settings, name: &str) -> Result<Self> {
        let mut all = Self::all(settings)?.into_iter();
        all.find(|store| store.name == name).with_context(|| format!("there is no store {name}"))
    }

    /// The name under which pods find it.
    pub fn host(&self) -> String {
        format!("{}.{DOMAIN}", self.name)
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        match STORE_PORT {
            443 => format!("https://{}", self.host()),
            port => format!("https://{}:{port}", self.host()),
        }
    }

    /// The certificate of the authority that has signed its own.
    pub fn ca(&self) -> PathBuf {
        self.authority().file(CERTIFICATE)
    }

    /// What a server at `address` shows to be taken for this store: for tests that stand between.
    pub fn stand_in(&self, address: IpAddr, validity: Validity) -> Result<Signed> {
        let subject = Subject::server(self.name, &[&self.host()], &[address.to_string()])?;
        let subject = if validity == Validity::Expired { subject.expired() } else { subject };
        self.authority().sign(&subject)
    }

    /// The folder with the bucket's objects: each is the file that its key names, in its newest version.
    /// What is said about an object is in the file's extended attributes: to change a byte, write into
    /// the file; a new file in its place is another object.
    pub fn objects(&self) -> PathBuf {
        self.folder("objects").join(BUCKET)
    }

    /// The folder with the older versions, if it keeps any: `aa/bb/cc/<digest>/<version>`, where `<digest>`
    /// is the SHA-256 of the key and begins with `aabbcc`.
    pub fn older_versions(&self) -> Option<PathBuf> {
        match self.protection {
            Protection::VersionsAndLocks => Some(self.folder("versions").join(BUCKET)),
            Protection::None => None,
        }
    }

    /// The access key of one of its users.
    pub fn key(&self, identity: Identity) -> Result<AccessKey> {
        Keys::read(&self.keys_file())?.of(identity)
    }

    /// One of its users.
    pub fn client(&self, identity: Identity) -> Result<Client> {
        self.client_with(self.key(identity)?)
    }

    /// Whoever has this key.
    pub fn client_with(&self, key: AccessKey) -> Result<Client> {
        Client::new(&self.host(), self.address, self.region, &self.ca(), key)
    }

    /// The administrator: may do everything but break a lock. For tests that do what nobody else can,
    /// such as a delete marker over a backup, or a user's key revoked.
    pub fn administrator(&self) -> Result<Client> {
        self.client_with(self.administrator_key()?)
    }

    fn administrator_key(&self) -> Result<AccessKey> {
        Keys::read(&self.keys_file())?.administrator()
    }

    /// Makes what it needs before it first runs: folders, secrets and a certificate. What is there, stays.
    pub(crate) fn prepare(&self) -> Result<()> {
        let folders = match self.protection {
            Protection::VersionsAndLocks => ["objects", "users", "versions"].as_slice(),
            Protection::None => &["objects", "users"],
        };
        for folder in folders.iter().map(|name| self.folder(name)) {
            fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        }
        if !self.keys_file().exists() {
            Keys::random().write(&self.keys_file())?;
        }
        let authority = self.authority();
        if !self.ca().exists() {
            authority.create("valv-cluster stores")?;
        }
        if !self.certificate().exists() {
            let addresses = [self.address.ip().to_string()];
            authority.issue(self.name, &Subject::server(self.name, &[&self.host()], &addresses)?)?;
        }
        Ok(())
    }

    fn certificate(&self) -> PathBuf {
        self.authority().file(&format!("{}.crt", self.name))
    }

    fn certificate_key(&self) -> PathBuf {
        self.authority().file(&format!("{}.key", self.name))
    }

    fn keys_file(&self) -> PathBuf {
        self.folder("keys.json")
    }

    /// One authority for both stores, which is not that of the nodes.
    fn authority(&self) -> Authority {
        Authority::at(self.state.join("pki"))
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.state.join(self.name).join(name)
    }
}

/// Where pods find the stores, a line each, in the format of `/etc/hosts`.
pub(crate) fn hosts(settings: &Settings) -> Result<Vec<String>> {
    Ok(Store::all(settings)?.iter().map(|store| format!("{} {}", store.address.ip(), store.host())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { cache: PathBuf::from("/cache"), state: PathBuf::from("/state") }
    }

    #[test]
    fn each_store_is_found_under_a_name_of_its_own() {
        assert_eq!(
            hosts(&settings()).unwrap(),
            ["10.123.0.20 helsinki.store.example", "10.123.0.21 frankfurt.store.example"]
        );
    }

    #[test]
    fn only_a_store_with_versions_has_a_folder_of_older_ones() {
        let [helsinki, frankfurt] = Store::all(&settings()).unwrap();

        assert_eq!(
            helsinki.older_versions().unwrap(),
            PathBuf::from("/state/stores/helsinki/versions/valv-backups")
        );
        assert_eq!(frankfurt.older_versions(), None);
        assert_eq!(frankfurt.objects(), PathBuf::from("/state/stores/frankfurt/objects/valv-backups"));
    }

    #[test]
    fn a_store_that_does_not_exist_is_not_found() {
        assert_eq!(Store::named(&settings(), "oslo").unwrap_err().to_string(), "there is no store oslo");
    }
}
