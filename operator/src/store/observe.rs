//! Looks at what a store's probe depends on: its four Secrets, what is remembered of it, its breaker.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use secrecy::ExposeSecret;
use valv_crds::store::BreakerStatus;

use super::{
    breakers::Breakers,
    check::{Identities, Identity, Store},
    memory::{Memory, Remembered},
};
use crate::{
    digest,
    io::{
        bucket::Credentials,
        cluster::{Cluster, Error},
        kind::Kind,
    },
};

/// Keys of a Secret.
const ACCESS_KEY_ID: &str = "accessKeyID";
const SECRET_ACCESS_KEY: &str = "secretAccessKey";

/// What was seen. The credentials live for one look.
#[derive(Debug)]
pub struct Observed {
    /// Who may ask.
    pub credentials: Result<Identities<Credentials>, Unresolved>,
    /// What a probe of now would be a probe of: another spec or other credentials make another subject.
    pub subject: String,
    /// What the last probe came to, in this process.
    pub remembered: Option<Remembered>,
    /// Whether requests go there.
    pub breaker: BreakerStatus,
}

/// The four Secrets are not four identities.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// One is not there.
    #[error("the {identity}'s Secret {secret} is not in the operator's namespace")]
    Missing {
        /// Whose.
        identity: Identity,
        /// Its name.
        secret: String,
    },
    /// One lacks a key, or it is empty or no text.
    #[error("the {identity}'s Secret {secret} has no {key}")]
    Incomplete {
        /// Whose.
        identity: Identity,
        /// Its name.
        secret: String,
        /// What it lacks.
        key: &'static str,
    },
    /// Two have the same access key.
    #[error("{one} and {other} have the same access key: each needs an identity of its own")]
    Shared {
        /// The one.
        one: Identity,
        /// The other.
        other: Identity,
    },
}

/// Looks.
///
/// # Errors
/// If the API server refuses a Secret, or does not answer.
pub async fn observe(
    store: &Store,
    cluster: &Cluster,
    namespace: &str,
    memory: &Memory,
    breakers: &Breakers,
) -> Result<Observed, Error> {
    let credentials = credentials(store, cluster, namespace).await?;
    Ok(Observed {
        subject: subject(store, credentials.as_ref().ok()),
        credentials,
        remembered: memory.of(&store.name),
        breaker: breakers.status(&store.name),
    })
}

/// Who may ask `store`, by the Secrets in `namespace`.
///
/// # Errors
/// If the API server refuses a Secret, or does not answer.
pub async fn credentials(
    store: &Store,
    cluster: &Cluster,
    namespace: &str,
) -> Result<Result<Identities<Credentials>, Unresolved>, Error> {
    let mut secrets = Vec::with_capacity(Identity::ALL.len());
    for identity in Identity::ALL {
        let secret = cluster.get::<Secret>(Kind::Secret, namespace, store.secret(identity)).await?;
        secrets.push(secret.map(|secret| secret.data.unwrap_or_default()));
    }
    Ok(resolve(store, &secrets))
}

/// Four identities from four Secrets, in the order of [`Identity::ALL`].
fn resolve(
    store: &Store,
    secrets: &[Option<BTreeMap<String, ByteString>>],
) -> Result<Identities<Credentials>, Unresolved> {
    let mut secrets = secrets.iter();
    let found = Identities::try_from_fn(|identity| {
        let secret = store.secret(identity).to_owned();
        let Some(Some(data)) = secrets.next() else { return Err(Unresolved::Missing { identity, secret }) };
        let text = |key: &'static str| {
            let value = data.get(key).and_then(|value| std::str::from_utf8(&value.0).ok()).map(str::trim);
            value.filter(|value| !value.is_empty()).ok_or_else(|| Unresolved::Incomplete {
                identity,
                secret: secret.clone(),
                key,
            })
        };
        Ok(Credentials {
            access_key_id: text(ACCESS_KEY_ID)?.to_owned(),
            secret_access_key: text(SECRET_ACCESS_KEY)?.to_owned().into(),
        })
    })?;
    for (index, one) in Identity::ALL.into_iter().enumerate() {
        for other in Identity::ALL.into_iter().skip(index + 1) {
            if found.of(one).access_key_id == found.of(other).access_key_id {
                return Err(Unresolved::Shared { one, other });
            }
        }
    }
    Ok(found)
}

/// A digest of the spec and the credentials. It stays in memory.
fn subject(store: &Store, credentials: Option<&Identities<Credentials>>) -> String {
    let spec = serde_json::to_string(&store.object.spec).unwrap_or_default();
    let uid = store.object.metadata.uid.clone().unwrap_or_default();
    let mut entries = vec![("uid".to_owned(), uid), ("spec".to_owned(), spec)];
    for identity in credentials.iter().flat_map(|_| Identity::ALL) {
        if let Some(credentials) = credentials.map(|credentials| credentials.of(identity)) {
            let secret = credentials.secret_access_key.expose_secret().to_owned();
            entries.push((format!("{identity}/{}", credentials.access_key_id), secret));
        }
    }
    digest::of_entries(entries.iter().map(|(key, value)| (key.as_str(), value.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::check::tests::store;

    fn secret(id: &str, key: &str) -> Option<BTreeMap<String, ByteString>> {
        let entry = |name: &str, value: &str| (name.to_owned(), ByteString(value.as_bytes().to_vec()));
        Some(BTreeMap::from([entry(ACCESS_KEY_ID, id), entry(SECRET_ACCESS_KEY, key)]))
    }

    fn four() -> Vec<Option<BTreeMap<String, ByteString>>> {
        ["w", "c", "r", "j"].map(|id| secret(id, "s")).to_vec()
    }

    #[test]
    fn four_secrets_with_four_keys_are_four_identities() {
        let found = resolve(&store(), &four()).unwrap();

        assert_eq!(
            Identity::ALL.map(|identity| found.of(identity).access_key_id.clone()),
            ["w", "c", "r", "j"]
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut absent = four();
        absent[2] = None;
        let mut empty = four();
        empty[3] = secret("j", " \n");

        let said = |secrets: &[_]| resolve(&store(), secrets).unwrap_err().to_string();

        assert_eq!(said(&absent), "the reader's Secret r is not in the operator's namespace");
        assert_eq!(said(&empty), "the janitor's Secret j has no secretAccessKey");
    }

    #[test]
    fn one_access_key_in_two_secrets_is_one_identity_too_few() {
        let mut secrets = four();
        secrets[3] = secret("w", "another");

        let error = resolve(&store(), &secrets).unwrap_err();

        assert_eq!(error, Unresolved::Shared { one: Identity::Writer, other: Identity::Janitor });
    }

    #[test]
    fn another_key_or_another_spec_is_another_subject() {
        let of = |secrets: &[_]| subject(&store(), resolve(&store(), secrets).ok().as_ref());
        let mut rotated = four();
        rotated[0] = secret("w", "new");

        assert_eq!(of(&four()), of(&four()));
        assert_ne!(of(&four()), of(&rotated));
    }
}
