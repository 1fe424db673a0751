//! The key that commits are signed with: made once, in the operator's namespace, and nowhere else.
//!
//! A key that was lost cannot be made again, and with it nobody can tell a true commit from a forged one: its Secret
//! is to be backed up (`docs/operations/signing-key.md`), and a second key is never made beside one that is there but
//! cannot be read.

use std::sync::Arc;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::ObjectMeta;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::OnceCell;
use tracing::warn;

use crate::{
    archive::envelope::{KeyError, SigningKey},
    io::{
        cluster::{self, Cluster},
        kind::Kind,
    },
};

/// Name of its Secret.
pub const SECRET: &str = "valv-signing-key";

/// Key of the Secret under which it stands, as PKCS #8 in PEM.
const PRIVATE: &str = "signing.key";

/// Key of the Secret under which its public half stands, for whoever verifies.
const PUBLIC: &str = "signing.pub";

/// The key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster refused or did not answer.
    #[error("failed to get or make the Secret {SECRET}")]
    Cluster(#[source] cluster::Error),
    /// The Secret holds something else.
    #[error(
        "the Secret {SECRET} holds no signing key: put the backed up one back; a new one would make every backup so far unverifiable"
    )]
    Unusable(#[source] KeyError),
    /// The Secret has not the key.
    #[error("the Secret {SECRET} has no {PRIVATE}: put the backed up one back")]
    Incomplete,
    /// No key could be made.
    #[error("failed to make a signing key")]
    Make(#[source] KeyError),
}

/// The key, once it was asked for.
#[derive(Default)]
pub struct Signing {
    key: OnceCell<Arc<SigningKey>>,
}

impl Signing {
    /// The key; made, where there is none.
    ///
    /// # Errors
    /// If it is there and cannot be used: no other is made then.
    pub async fn key(&self, cluster: &Cluster, namespace: &str) -> Result<Arc<SigningKey>, Error> {
        self.key.get_or_try_init(|| load(cluster, namespace)).await.cloned()
    }
}

async fn load(cluster: &Cluster, namespace: &str) -> Result<Arc<SigningKey>, Error> {
    if let Some(found) = read(cluster, namespace).await? {
        return parse(&found).map(Arc::new);
    }
    let made = SigningKey::generate().map_err(Error::Make)?;
    let key = SigningKey::from_pem(&made).map_err(Error::Make)?;
    let entry = |name: &str, text: &str| (name.to_owned(), ByteString(text.as_bytes().to_vec()));
    let secret = Secret {
        metadata: ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() },
        data: Some(
            [entry(PRIVATE, made.expose_secret()), entry(PUBLIC, &key.public().to_pem())]
                .into_iter()
                .collect(),
        ),
        immutable: Some(true),
        ..Secret::default()
    };
    match cluster.create_secret(namespace, &secret).await {
        Ok(()) => {
            warn!(key.id = %key.public().id(), "made the signing key: back its Secret up, outside this cluster");
            Ok(Arc::new(key))
        }
        // Another operator was first: its key is the key.
        Err(error) if error.is_conflict() => {
            let found = read(cluster, namespace).await?.ok_or(Error::Cluster(error))?;
            parse(&found).map(Arc::new)
        }
        Err(error) => Err(Error::Cluster(error)),
    }
}

async fn read(cluster: &Cluster, namespace: &str) -> Result<Option<Secret>, Error> {
    cluster.get::<Secret>(Kind::Secret, namespace, SECRET).await.map_err(Error::Cluster)
}

fn parse(secret: &Secret) -> Result<SigningKey, Error> {
    let data = secret.data.as_ref().and_then(|data| data.get(PRIVATE)).ok_or(Error::Incomplete)?;
    let text = String::from_utf8(data.0.clone()).map_err(|_| Error::Incomplete)?;
    SigningKey::from_pem(&SecretString::from(text)).map_err(Error::Unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(name: &str, text: &str) -> Secret {
        let data = [(name.to_owned(), ByteString(text.as_bytes().to_vec()))].into_iter().collect();
        Secret { data: Some(data), ..Secret::default() }
    }

    #[test]
    fn what_stands_in_the_secret_is_the_key_or_an_error_and_never_a_new_key() {
        let made = SigningKey::generate().unwrap();
        let id = SigningKey::from_pem(&made).unwrap().public().id();

        assert_eq!(parse(&holding(PRIVATE, made.expose_secret())).unwrap().public().id(), id);
        assert!(matches!(parse(&holding(PRIVATE, "nonsense")), Err(Error::Unusable(_))));
        assert!(matches!(parse(&holding("other", made.expose_secret())), Err(Error::Incomplete)));
    }
}
