//! Looks at what a store's probe depends on: its four Secrets, what is remembered of it, its breaker.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use secrecy::ExposeSecret;
use valv_crds::{
    reference::{IDENTITY_LABEL, STORE_LABEL},
    store::BreakerStatus,
};

use super::{
    breakers::Breakers,
    check::{Identities, Identity, Store},
    memory::{Memory, Remembered},
};
use crate::{
    archive::envelope::PublicKey,
    digest,
    io::{
        bucket::Credentials,
        cluster::{Cluster, Error},
        kind::Kind,
    },
    signing,
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
    /// When one of the Secrets was last changed, as the API server notes it; `None`: it cannot be known.
    pub changed: Option<Timestamp>,
    /// What the last probe came to: in this process, or in one before it whose probe still stands.
    pub remembered: Option<Remembered>,
    /// Whether requests go there.
    pub breaker: BreakerStatus,
    /// How the key stands that commits are signed with.
    pub signing: signing::Standing,
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
    /// One does not say whose it is. Without that a store could name another's, and have it copied to where it is not
    /// meant to be.
    #[error(
        "the {identity}'s Secret {secret} is not labelled as this store's {identity}: whoever may write Secrets in the operator's namespace labels it, kubectl label secret {secret} {STORE_LABEL}={store} {IDENTITY_LABEL}={identity}"
    )]
    Unlabelled {
        /// Whose.
        identity: Identity,
        /// Its name.
        secret: String,
        /// The store that names it.
        store: String,
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
    signing: signing::Standing,
) -> Result<Observed, Error> {
    let secrets = secrets(store, cluster, namespace).await?;
    let credentials = resolve(store, &secrets);
    Ok(Observed {
        changed: changed(&secrets),
        subject: subject(store, credentials.as_ref().ok(), signing.key()),
        credentials,
        remembered: memory.of(&store.name),
        breaker: breakers.status(&store.name),
        signing,
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
    Ok(resolve(store, &secrets(store, cluster, namespace).await?))
}

/// The Secrets that `store` names, in the order of [`Identity::ALL`].
async fn secrets(store: &Store, cluster: &Cluster, namespace: &str) -> Result<Vec<Option<Secret>>, Error> {
    let mut secrets = Vec::with_capacity(Identity::ALL.len());
    for identity in Identity::ALL {
        secrets.push(cluster.get::<Secret>(Kind::Secret, namespace, store.secret(identity)).await?);
    }
    Ok(secrets)
}

/// When the last of `secrets` was changed: each change is noted with its time, by whoever made it.
fn changed(secrets: &[Option<Secret>]) -> Option<Timestamp> {
    let of = |secret: &Option<Secret>| {
        let metadata = &secret.as_ref()?.metadata;
        let noted =
            metadata.managed_fields.iter().flatten().map(|noted| noted.time.as_ref().map(|time| time.0));
        // One that was written without a time may have been written at any.
        let noted: Option<Vec<Timestamp>> = noted.collect();
        let noted = noted.filter(|noted| !noted.is_empty())?;
        noted.into_iter().chain(metadata.creation_timestamp.as_ref().map(|time| time.0)).max()
    };
    secrets.iter().map(of).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// Four identities from four Secrets, in the order of [`Identity::ALL`].
fn resolve(store: &Store, secrets: &[Option<Secret>]) -> Result<Identities<Credentials>, Unresolved> {
    let none = BTreeMap::new();
    let mut secrets = secrets.iter();
    let found = Identities::try_from_fn(|identity| {
        let secret = store.secret(identity).to_owned();
        let Some(Some(found)) = secrets.next() else { return Err(Unresolved::Missing { identity, secret }) };
        let says = |label: &str, value: &str| found.labels().get(label).is_some_and(|said| said == value);
        if !says(STORE_LABEL, &store.name) || !says(IDENTITY_LABEL, &identity.to_string()) {
            return Err(Unresolved::Unlabelled { identity, secret, store: store.name.clone() });
        }
        let data = found.data.as_ref().unwrap_or(&none);
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

/// A digest of the spec, the credentials and the key whose public half lies there. It stays in memory.
fn subject(
    store: &Store,
    credentials: Option<&Identities<Credentials>>,
    signing: Option<PublicKey>,
) -> String {
    let spec = serde_json::to_string(&store.object.spec).unwrap_or_default();
    let uid = store.object.metadata.uid.clone().unwrap_or_default();
    let key = signing.map(|key| key.id().to_string()).unwrap_or_default();
    let mut entries = vec![("uid".to_owned(), uid), ("spec".to_owned(), spec), ("signing".to_owned(), key)];
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
    use k8s_openapi::ByteString;
    use kube::api::ObjectMeta;

    use super::*;
    use crate::{archive::envelope::SigningKey, store::check::tests::store};

    /// A Secret that says to be helsinki's `identity`.
    fn secret(identity: Identity, id: &str, key: &str) -> Option<Secret> {
        let entry = |name: &str, value: &str| (name.to_owned(), ByteString(value.as_bytes().to_vec()));
        let label = |name: &str, value: String| (name.to_owned(), value);
        let labels = [label(STORE_LABEL, "helsinki".into()), label(IDENTITY_LABEL, identity.to_string())];
        Some(Secret {
            metadata: ObjectMeta { labels: Some(labels.into_iter().collect()), ..ObjectMeta::default() },
            data: Some([entry(ACCESS_KEY_ID, id), entry(SECRET_ACCESS_KEY, key)].into_iter().collect()),
            ..Secret::default()
        })
    }

    fn four() -> Vec<Option<Secret>> {
        let ids = ["w", "c", "r", "j"];
        Identity::ALL.into_iter().zip(ids).map(|(identity, id)| secret(identity, id, "s")).collect()
    }

    #[test]
    fn a_secret_of_another_store_or_of_another_identity_is_refused_with_what_to_label() {
        let said = |label: &str, value: Option<&str>| {
            let mut secrets = four();
            let labels = secrets[0].as_mut().unwrap().metadata.labels.as_mut().unwrap();
            match value {
                Some(value) => labels.insert(label.to_owned(), value.to_owned()),
                None => labels.remove(label),
            };
            resolve(&store(), &secrets).map(drop)
        };
        let refused = Unresolved::Unlabelled {
            identity: Identity::Writer,
            secret: "w".into(),
            store: "helsinki".into(),
        };

        assert_eq!(said(STORE_LABEL, Some("helsinki")), Ok(()));
        for (label, value) in [
            (STORE_LABEL, None),
            (STORE_LABEL, Some("frankfurt")),
            (IDENTITY_LABEL, None),
            (IDENTITY_LABEL, Some("janitor")),
        ] {
            assert_eq!(said(label, value), Err(refused.clone()), "{label}={value:?}");
        }
        let words = refused.to_string();
        assert!(
            words.contains("kubectl label secret w valv.eu/store=helsinki valv.eu/identity=writer"),
            "{words}"
        );
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
        empty[3] = secret(Identity::Janitor, "j", " \n");

        let said = |secrets: &[_]| resolve(&store(), secrets).unwrap_err().to_string();

        assert_eq!(said(&absent), "the reader's Secret r is not in the operator's namespace");
        assert_eq!(said(&empty), "the janitor's Secret j has no secretAccessKey");
    }

    #[test]
    fn one_access_key_in_two_secrets_is_one_identity_too_few() {
        let mut secrets = four();
        secrets[3] = secret(Identity::Janitor, "w", "another");

        let error = resolve(&store(), &secrets).unwrap_err();

        assert_eq!(error, Unresolved::Shared { one: Identity::Writer, other: Identity::Janitor });
    }

    #[test]
    fn another_key_or_another_spec_is_another_subject() {
        let signed = |secrets: &[_], key| subject(&store(), resolve(&store(), secrets).ok().as_ref(), key);
        let of = |secrets: &[_]| signed(secrets, None);
        let made = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
        let mut rotated = four();
        rotated[0] = secret(Identity::Writer, "w", "new");

        assert_eq!(of(&four()), of(&four()));
        assert_ne!(of(&four()), of(&rotated));
        assert_ne!(of(&four()), signed(&four(), Some(made.public())), "its public half is to be put there");
    }

    #[test]
    fn the_last_change_of_a_secret_is_the_last_that_anybody_noted() {
        let with = |times: &[Option<&str>]| {
            let mut secret = secret(Identity::Reader, "r", "k").unwrap();
            secret.metadata.creation_timestamp =
                serde_json::from_value(serde_json::json!("2026-11-01T00:00:00Z")).unwrap();
            let noted = times.iter().map(|time| serde_json::json!({ "manager": "kubectl", "time": time }));
            secret.metadata.managed_fields =
                serde_json::from_value(serde_json::Value::Array(noted.collect())).unwrap();
            Some(secret)
        };
        let (old, new) = (Some("2026-11-02T00:00:00Z"), Some("2026-11-20T00:00:00Z"));

        assert_eq!(changed(&[with(&[old]), with(&[old, new])]), new.unwrap().parse().ok());
        assert_eq!(changed(&[with(&[old]), with(&[None])]), None);
        assert_eq!(changed(&[with(&[])]), None);
        assert_eq!(changed(&[with(&[old]), None]), None);
    }
}
