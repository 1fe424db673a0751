//! The Secret with the key, and the ConfigMap that tells of it. Pure.

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{ResourceExt, api::ObjectMeta};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::sync::Arc;
use valv_crds::{reference::NEW_SIGNING_KEY_ANNOTATION, store::SigningKeyStatus};

use super::{Error, Keys};
use crate::archive::envelope::{PublicKey, SigningKey};

/// Name of the Secret with the key.
pub const SECRET: &str = "valv-signing-key";

/// Name of the ConfigMap with its public half.
pub const PUBLISHED: &str = "valv-signing-key-public";

/// Key of the Secret under which the key stands, as PKCS #8 in PEM.
pub const PRIVATE: &str = "signing.key";

/// Key of Secret and ConfigMap under which the public half stands, for whoever verifies.
const PUBLIC: &str = "signing.pub";

/// Key of the Secret under which older public halves stand, one after the other: what they signed counts.
pub const TRUSTED: &str = "trusted.pub";

/// Key of the ConfigMap under which the key's name stands.
const ID: &str = "id";

/// Where a public key in PEM ends.
const END: &str = "-----END PUBLIC KEY-----";

/// What the ConfigMap says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The key's name. Absent: somebody made the ConfigMap only to allow a new key.
    pub id: Option<String>,
    /// The public half, if it is the one of that name.
    pub key: Option<PublicKey>,
    /// Why another may take its place; absent: none may.
    pub allows_new: Option<String>,
}

/// A key that the status of a store tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its name.
    pub id: String,
    /// Its public half, if it is the one of that name.
    pub key: Option<PublicKey>,
}

/// The Secret with the key `made`, whose public half is `public`.
pub fn secret(made: &SecretString, public: PublicKey, older: &[PublicKey]) -> Secret {
    let entry = |name: &str, text: &str| (name.to_owned(), ByteString(text.as_bytes().to_vec()));
    let mut data = vec![entry(PRIVATE, made.expose_secret()), entry(PUBLIC, &public.to_pem())];
    if !older.is_empty() {
        let texts: String = older.iter().map(|key| key.to_pem()).collect();
        data.push(entry(TRUSTED, &texts));
    }
    Secret {
        metadata: ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() },
        data: Some(data.into_iter().collect()),
        immutable: Some(true),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

/// The keys in `secret`.
///
/// # Errors
/// If there is none in it, or something else.
pub fn keys(secret: &Secret) -> Result<Keys, Error> {
    let text = |name: &str| {
        let data = secret.data.as_ref().and_then(|data| data.get(name));
        data.map(|data| String::from_utf8(data.0.clone()).map_err(|_| Error::Incomplete)).transpose()
    };
    let private = text(PRIVATE)?.ok_or(Error::Incomplete)?;
    let signing = SigningKey::from_pem(&SecretString::from(private)).map_err(Error::Unusable)?;
    let older = text(TRUSTED)?.unwrap_or_default();
    let older = older.split_inclusive(END).filter(|part| !part.trim().is_empty());
    let older = older.map(|pem| PublicKey::from_pem(pem.trim()).map_err(Error::Untrusted));
    Ok(Keys { signing: Arc::new(signing), older: older.collect::<Result<_, _>>()? })
}

/// The ConfigMap that tells of `key`.
pub fn publication(namespace: &str, key: PublicKey) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": PUBLISHED,
            "namespace": namespace,
            "labels": { "app.kubernetes.io/managed-by": "valv" },
        },
        "data": { ID: key.id().to_string(), PUBLIC: key.to_pem() },
    })
}

/// What the ConfigMap says.
pub fn published(map: &ConfigMap) -> Published {
    let text = |name: &str| map.data.as_ref().and_then(|data| data.get(name)).cloned();
    let id = text(ID);
    let allows = map.annotations().get(NEW_SIGNING_KEY_ANNOTATION).filter(|reason| !reason.trim().is_empty());
    Published {
        key: text(PUBLIC).and_then(|pem| of_name(&pem, id.as_deref()?)),
        id,
        allows_new: allows.cloned(),
    }
}

/// What the status of a store says.
pub fn told(status: &SigningKeyStatus) -> Told {
    Told { key: of_name(&status.public_key, &status.id), id: status.id.clone() }
}

/// The key in `pem`, if its name is `id`.
fn of_name(pem: &str, id: &str) -> Option<PublicKey> {
    PublicKey::from_pem(pem).ok().filter(|key| key.id().to_string() == id)
}
