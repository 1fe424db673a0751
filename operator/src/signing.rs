//! The key that commits are signed with: made once, in the operator's namespace, and nowhere else.
//!
//! A key that was lost cannot be made again, and with it nobody can tell a true commit from a forged one: its Secret
//! is to be backed up (`docs/operations/signing-key.md`). So its public half is published as soon as there is one, in a
//! ConfigMap beside it and in the status of every `BackupStore`; and as long as any of them names a key, no other is
//! made or taken in silence.
//!
//! | to find | open |
//! |---|---|
//! | what is decided, by what is there | `signing/decision.rs` |
//! | the Secret and the ConfigMap | `signing/objects.rs` |

mod decision;
mod objects;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde::Serialize;
use tokio::sync::Mutex;
use tracing::{info, warn};
use valv_crds::{reference::NEW_SIGNING_KEY_ANNOTATION, store::SigningKeyStatus};

use self::decision::{Decision, Seen, decide};
pub use self::objects::{PUBLISHED, SECRET};
use crate::{
    archive::envelope::{KeyError, PublicKey, SigningKey},
    io::{
        cluster::{self, Cluster},
        kind::{Key, Kind},
    },
};

/// The key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster refused or did not answer.
    #[error("failed to read or write the Secret {SECRET} or the ConfigMap {PUBLISHED}")]
    Cluster(#[source] cluster::Error),
    /// The Secret holds something else.
    #[error(
        "the Secret {SECRET} holds no signing key: put the backed up one back; a new one would make every backup so far unverifiable"
    )]
    Unusable(#[source] KeyError),
    /// One of the older public halves is none.
    #[error(
        "the Secret {SECRET} has a {} that is not a list of Ed25519 public keys in PEM",
        objects::TRUSTED
    )]
    Untrusted(#[source] KeyError),
    /// The Secret has not the key.
    #[error("the Secret {SECRET} has no {}: put the backed up one back", objects::PRIVATE)]
    Incomplete,
    /// The Secret is not there, and no store was looked at yet.
    #[error("the Secret {SECRET} is not there: it is made when the first BackupStore is looked at")]
    Absent,
    /// It is not the one that was published.
    #[error("the signing key is not used: {0}")]
    Refused(String),
    /// No key could be made.
    #[error("failed to make a signing key")]
    Make(#[source] KeyError),
}

/// The key that signs, and those that signed before it.
#[derive(Debug)]
pub struct Keys {
    /// That of now.
    pub signing: Arc<SigningKey>,
    /// Older ones, by their public halves.
    older: Vec<PublicKey>,
}

impl Keys {
    /// `signing`, and none before it.
    pub fn alone(signing: SigningKey) -> Self {
        Self { signing: Arc::new(signing), older: vec![] }
    }

    /// All whose signatures count: that of now first.
    pub fn trusted(&self) -> Vec<PublicKey> {
        [self.signing.public()].into_iter().chain(self.older.iter().copied()).collect()
    }
}

/// How the key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is there, and is the one that was published.
    Kept(PublicKey),
    /// This process has it in memory, and its Secret is gone.
    Unsaved(PublicKey),
    /// One was published, and is not there. What to do, in a sentence.
    Lost(String),
    /// What is there is no key, or another than was published. What to do, in a sentence.
    Differs(String),
}

impl Standing {
    /// The key that signs, if one does.
    pub fn key(&self) -> Option<PublicKey> {
        match self {
            Self::Kept(key) | Self::Unsaved(key) => Some(*key),
            Self::Lost(_) | Self::Differs(_) => None,
        }
    }
}

/// The key, once it was seen. All clones have the same.
#[derive(Clone, Default)]
pub struct Signing {
    seen: Arc<Mutex<Memory>>,
}

/// What the last look of this process came to.
#[derive(Debug, Default)]
enum Memory {
    /// Nobody looked.
    #[default]
    Nothing,
    /// The key can be used.
    Keys(Arc<Keys>),
    /// It cannot. What to do, in a sentence.
    Refused(String),
}

/// What to do where no key was ever told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhereNone {
    /// Make one.
    Make,
    /// Leave it so: whoever looks now cannot know what the stores tell of.
    Leave,
}

impl Signing {
    /// The key that signs. None is made here: see [`look`](Self::look).
    ///
    /// # Errors
    /// If it is not there, is not the one that was published, or cannot be used.
    pub async fn key(&self, cluster: &Cluster, namespace: &str) -> Result<Arc<SigningKey>, Error> {
        Ok(self.keys(cluster, namespace).await?.signing.clone())
    }

    /// The keys whose signatures count: that of now first, then those of `trusted.pub` in the Secret.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    pub async fn trusted(&self, cluster: &Cluster, namespace: &str) -> Result<Vec<PublicKey>, Error> {
        Ok(self.keys(cluster, namespace).await?.trusted())
    }

    /// Both.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    pub async fn keys(&self, cluster: &Cluster, namespace: &str) -> Result<Arc<Keys>, Error> {
        let mut memory = self.seen.lock().await;
        if matches!(*memory, Memory::Nothing) {
            memory.look(cluster, namespace, &[], WhereNone::Leave).await?;
        }
        match &*memory {
            Memory::Keys(keys) => Ok(keys.clone()),
            Memory::Refused(why) => Err(Error::Refused(why.clone())),
            Memory::Nothing => Err(Error::Absent),
        }
    }

    /// Looks how the key stands, and sees to it: makes one where none was ever `told` of, and publishes it.
    ///
    /// # Errors
    /// If the cluster refused or did not answer, or no randomness was to be had.
    pub async fn look(
        &self,
        cluster: &Cluster,
        namespace: &str,
        told: &[SigningKeyStatus],
    ) -> Result<Standing, Error> {
        let mut memory = self.seen.lock().await;
        memory.look(cluster, namespace, told, WhereNone::Make).await
    }
}

impl Memory {
    async fn look(
        &mut self,
        cluster: &Cluster,
        namespace: &str,
        told: &[SigningKeyStatus],
        where_none: WhereNone,
    ) -> Result<Standing, Error> {
        let secret = secret(cluster, namespace).await?;
        let published = cluster.get::<ConfigMap>(Kind::ConfigMap, namespace, PUBLISHED).await;
        let published = published.map_err(Error::Cluster)?;
        let held = if let Self::Keys(keys) = self { Some(keys.clone()) } else { None };
        let decision = decide(Seen {
            secret: secret.as_ref().map(objects::keys),
            published: published.as_ref().map(objects::published),
            told: told.iter().map(objects::told).collect(),
            held,
        });
        let (keys, standing): (_, fn(PublicKey) -> Standing) = match decision {
            Decision::Kept(keys) => (keys, Standing::Kept),
            Decision::Unsaved(keys) => (keys, Standing::Unsaved),
            Decision::Publish(keys) => {
                publish(cluster, namespace, published.as_ref(), keys.signing.public()).await?;
                (keys, Standing::Kept)
            }
            Decision::Make { .. } if where_none == WhereNone::Leave => return Err(Error::Absent),
            Decision::Make { older } => {
                let keys = Arc::new(make(cluster, namespace, older).await?);
                publish(cluster, namespace, published.as_ref(), keys.signing.public()).await?;
                (keys, Standing::Kept)
            }
            // What was in memory is not what anybody published: nothing more is signed with it.
            Decision::Differs(message) => {
                *self = Self::Refused(message.clone());
                return Ok(Standing::Differs(message));
            }
            Decision::Lost(message) => {
                *self = Self::Refused(message.clone());
                return Ok(Standing::Lost(message));
            }
        };
        let key = keys.signing.public();
        *self = Self::Keys(keys);
        Ok(standing(key))
    }
}

/// Makes a key. If another operator was first, its key is the key, and the next look sees it.
async fn make(cluster: &Cluster, namespace: &str, older: Vec<PublicKey>) -> Result<Keys, Error> {
    let made = SigningKey::generate().map_err(Error::Make)?;
    let signing = SigningKey::from_pem(&made).map_err(Error::Make)?;
    let secret = objects::secret(&made, signing.public(), &older);
    cluster.create_secret(namespace, &secret).await.map_err(Error::Cluster)?;
    warn!(key.id = %signing.public().id(), "made the signing key: back its Secret up, outside this cluster");
    Ok(Keys { signing: Arc::new(signing), older })
}

/// Publishes `key`, and takes the word away that allowed another: it was for this one.
async fn publish(
    cluster: &Cluster,
    namespace: &str,
    standing: Option<&ConfigMap>,
    key: PublicKey,
) -> Result<(), Error> {
    let name = Key::new(Kind::ConfigMap, PUBLISHED);
    let wanted = objects::publication(namespace, key);
    let seen = standing.and_then(as_dynamic);
    cluster.apply(&name, &wanted, seen.as_ref()).await.map_err(Error::Cluster)?;
    info!(key.id = %key.id(), "published the signing key's public half");
    let now =
        cluster.get::<ConfigMap>(Kind::ConfigMap, namespace, PUBLISHED).await.map_err(Error::Cluster)?;
    let allows = |map: &&ConfigMap| {
        let annotations = map.metadata.annotations.as_ref();
        annotations.is_some_and(|annotations| annotations.contains_key(NEW_SIGNING_KEY_ANNOTATION))
    };
    if let Some(map) = now.as_ref().filter(allows).and_then(as_dynamic) {
        let used = [(NEW_SIGNING_KEY_ANNOTATION, None)];
        cluster.annotate(&name, &map, &used).await.map_err(Error::Cluster)?;
    }
    Ok(())
}

async fn secret(cluster: &Cluster, namespace: &str) -> Result<Option<Secret>, Error> {
    cluster.get::<Secret>(Kind::Secret, namespace, SECRET).await.map_err(Error::Cluster)
}

fn as_dynamic<K: Serialize>(object: K) -> Option<kube::core::DynamicObject> {
    serde_json::from_value(serde_json::to_value(object).ok()?).ok()
}

/// The Secret with a key, as it lies in a cluster.
#[cfg(test)]
pub fn secret_for_tests(made: &secrecy::SecretString, public: PublicKey) -> Secret {
    objects::secret(made, public, &[])
}

#[cfg(test)]
mod tests;
