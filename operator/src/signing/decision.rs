//! Decides what becomes of the signing key, by what is there. Pure.

use std::sync::Arc;

use valv_crds::reference::NEW_SIGNING_KEY_ANNOTATION;

use super::{
    Error, Keys,
    objects::{PUBLISHED, Published, SECRET, TRUSTED, Told},
};
use crate::{archive::envelope::PublicKey, error::chain};

/// What is there.
pub struct Seen {
    /// The Secret, as it can be used; absent: it is not there.
    pub secret: Option<Result<Keys, Error>>,
    /// The ConfigMap; absent: it is not there.
    pub published: Option<Published>,
    /// What the stores' statuses tell of.
    pub told: Vec<Told>,
    /// What this process has in memory.
    pub held: Option<Arc<Keys>>,
}

/// What becomes of the key.
#[derive(Debug)]
pub enum Decision {
    /// It is there, and published.
    Kept(Arc<Keys>),
    /// It is there, and is to be published.
    Publish(Arc<Keys>),
    /// There never was one, or a person said that another may take its place: what `older` ones signed counts.
    Make {
        /// Those that were published before.
        older: Vec<PublicKey>,
    },
    /// It is in memory only.
    Unsaved(Arc<Keys>),
    /// It was published, and is not there.
    Lost(String),
    /// It is not the one that was published.
    Differs(String),
}

/// What becomes of the key.
pub fn decide(seen: Seen) -> Decision {
    let Seen { secret, published, told, held } = seen;
    let published = published.unwrap_or_default();
    let is_allowed = published.allows_new.is_some();
    match secret {
        Some(Err(error)) => Decision::Differs(chain(&error)),
        Some(Ok(keys)) => {
            let id = keys.signing.public().id().to_string();
            let keys = Arc::new(keys);
            if published.id.as_ref() == Some(&id) {
                // A word that allowed a new key was for this one, or came too early: it does not stay.
                return if is_allowed { Decision::Publish(keys) } else { Decision::Kept(keys) };
            }
            match stranger(&keys, &published, &told).filter(|_| !is_allowed) {
                None => Decision::Publish(keys),
                Some(other) => Decision::Differs(format!(
                    "the Secret {SECRET} holds the key {id}, and {other} was published: put {other} back; or, if it is to be another on purpose, lay the public half of {other} into {TRUSTED} of the Secret (docs/operations/signing-key.md)"
                )),
            }
        }
        None => absent(&published, &told, held),
    }
}

fn absent(published: &Published, told: &[Told], held: Option<Arc<Keys>>) -> Decision {
    let known = published.id.iter().chain(told.iter().map(|told| &told.id)).next();
    let held_keys = held.iter().flat_map(|held| held.trusted());
    if published.allows_new.is_some() || (known.is_none() && held.is_none()) {
        let keys = published.key.into_iter().chain(told.iter().filter_map(|told| told.key)).chain(held_keys);
        let mut older = vec![];
        for key in keys {
            if !older.contains(&key) {
                older.push(key);
            }
        }
        return Decision::Make { older };
    }
    match (held, known) {
        (Some(held), _) => Decision::Unsaved(held),
        (None, known) => {
            let id = known.map_or("that was published", String::as_str);
            Decision::Lost(format!(
                "the Secret {SECRET} with the key {id} is gone: put it back from where it was kept. Without it no backup can be committed. Only if it is lost for good: kubectl annotate configmap {PUBLISHED} {NEW_SIGNING_KEY_ANNOTATION}=WHO-AND-WHY (docs/operations/signing-key.md)"
            ))
        }
    }
}

/// A key that was published, and is none of `keys`. The ConfigMap has the last word: only the operator writes it.
fn stranger<'a>(keys: &Keys, published: &'a Published, told: &'a [Told]) -> Option<&'a String> {
    let trusted: Vec<_> = keys.trusted().into_iter().map(|key| key.id().to_string()).collect();
    let named = published.id.iter();
    let named: Vec<_> =
        if published.id.is_some() { named.collect() } else { told.iter().map(|told| &told.id).collect() };
    named.into_iter().find(|id| !trusted.contains(id))
}
