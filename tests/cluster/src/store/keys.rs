//! The secrets of a store's users: made once for a cluster, and kept in a file that only root reads.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};

use crate::s3::AccessKey;
use crate::secret_file;
use crate::store::Identity;

/// Who may do everything; the name of the access key too.
const ADMINISTRATOR: &str = "root";

/// As many as Amazon's secrets have bits, 240.
const SECRET_BYTES: usize = 30;

/// The secrets of one store, by the users' names.
#[derive(Debug)]
pub struct Keys(BTreeMap<String, SecretString>);

impl Keys {
    /// New ones.
    pub fn random() -> Self {
        let names = Identity::ALL.map(Identity::name).into_iter().chain([ADMINISTRATOR]);
        let secret = || URL_SAFE_NO_PAD.encode(rand::random::<[u8; SECRET_BYTES]>());
        Self(names.map(|name| (name.to_owned(), secret().into())).collect())
    }

    /// Those in a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        let secrets: BTreeMap<String, String> = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not what was written there", path.display()))?;
        Ok(Self(secrets.into_iter().map(|(name, secret)| (name, secret.into())).collect()))
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let secrets: BTreeMap<_, _> =
            self.0.iter().map(|(name, secret)| (name, secret.expose_secret())).collect();
        secret_file::write(path, &serde_json::to_string_pretty(&secrets)?)
    }

    /// That of a user.
    pub fn of(&self, identity: Identity) -> Result<AccessKey> {
        self.named(identity.name())
    }

    /// That of the administrator.
    pub fn administrator(&self) -> Result<AccessKey> {
        self.named(ADMINISTRATOR)
    }

    fn named(&self, name: &str) -> Result<AccessKey> {
        let secret = self.0.get(name).with_context(|| format!("{name} has no secret"))?;
        Ok(AccessKey { id: name.to_owned(), secret: secret.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_are_random_and_read_back_from_a_file_that_only_its_owner_reads() {
        let path = std::env::temp_dir().join(format!("valv-cluster-keys-{}", std::process::id()));
        let keys = Keys::random();

        keys.write(&path).unwrap();
        let back = Keys::read(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();

        fs::remove_file(&path).unwrap();
        let secret = |key: AccessKey| key.secret.expose_secret().to_owned();
        let all: Vec<String> =
            Identity::ALL.iter().map(|identity| secret(back.of(*identity).unwrap())).collect();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(all[0], secret(keys.of(Identity::Writer).unwrap()));
        assert_eq!(all[0].len(), 40);
        assert!(all.iter().skip(1).all(|other| *other != all[0]));
        assert!(!all.contains(&secret(back.administrator().unwrap())));
    }
}
