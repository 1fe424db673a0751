//! Signed documents: DSSE envelopes with Ed25519.
//!
//! Input: keys, bytes. Output: envelopes, and what is in them if a trusted key signed it. Touches nothing; a
//! new key takes randomness from the system.
//!
//! # Shape
//! `{"payload": base64, "payloadType": text, "signatures": [{"keyid": text, "sig": base64}]}`. What is signed
//! is not the JSON but `DSSEv1 <length> <payloadType> <length> <payload>`, lengths in bytes and decimal
//! digits. Keys are PKCS #8 and `SubjectPublicKeyInfo` in PEM, as openssl writes and reads them.
//!
//! # Source
//! <https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>, RFC 8032, RFC 8410

use std::fmt;

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE},
};
use pem::{EncodeConfig, LineEnding, Pem};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::canonical;
use crate::digest::hex;

/// What stands before the 32 bytes of a private key in its PKCS #8 document (RFC 8410, version 1, which every
/// openssl since 1.1.1 reads; ring's own writer makes version 2, which openssl refuses).
const PRIVATE_KEY_START: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// What stands before the 32 bytes of a public key in its `SubjectPublicKeyInfo` (RFC 8410).
const PUBLIC_KEY_START: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Signatures that are looked at in one envelope.
const MOST_SIGNATURES: usize = 16;

/// A key could not be made or read. Never says what the key is.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system has no randomness.
    #[error("failed to make a signing key: no randomness")]
    Randomness,
    /// It is not a PEM document of that kind.
    #[error("the signing key is not a PEM document `{expected}`")]
    Pem {
        /// Of which kind it should be.
        expected: &'static str,
    },
    /// It is no Ed25519 key.
    #[error("the signing key is not an Ed25519 key")]
    Kind,
}

/// A key that signs. Its `Debug` shows the public half only.
#[derive(Debug)]
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new key, as PEM.
    pub fn generate() -> Result<SecretString, KeyError> {
        let mut document = [0; 48];
        let (start, seed) = document.split_at_mut(PRIVATE_KEY_START.len());
        start.copy_from_slice(&PRIVATE_KEY_START);
        SystemRandom::new().fill(seed).map_err(|_| KeyError::Randomness)?;
        Ok(SecretString::from(to_pem("PRIVATE KEY", &document)))
    }

    /// Reads a key that [`generate`](Self::generate) or `openssl genpkey -algorithm ed25519` made.
    pub fn from_pem(text: &SecretString) -> Result<Self, KeyError> {
        let document = from_pem("PRIVATE KEY", text.expose_secret())?;
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&document).map(Self).map_err(|_| KeyError::Kind)
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(key)
    }

    /// Signs `payload` as a document of `payload_type`.
    pub fn sign(&self, payload_type: &str, payload: &[u8]) -> Envelope {
        let signature = self.0.sign(&signed_bytes(payload_type, payload));
        Envelope {
            payload: BASE64_STANDARD.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures: vec![Signature {
                key_id: self.public().id().0,
                signature: BASE64_STANDARD.encode(signature.as_ref()),
            }],
        }
    }
}

/// A key that verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads a key as `openssl pkey -pubout` writes it.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let document = from_pem("PUBLIC KEY", text)?;
        let key = document.strip_prefix(&PUBLIC_KEY_START).ok_or(KeyError::Kind)?;
        key.try_into().map(Self).map_err(|_| KeyError::Kind)
    }

    /// As openssl reads it.
    pub fn to_pem(self) -> String {
        to_pem("PUBLIC KEY", &self.document())
    }

    /// Its name: the first 16 bytes of the SHA-256 of its `SubjectPublicKeyInfo`.
    pub fn id(self) -> KeyId {
        let digest = Sha256::digest(self.document());
        KeyId(hex(&digest)[..32].to_owned())
    }

    fn document(self) -> Vec<u8> {
        [&PUBLIC_KEY_START[..], &self.0].concat()
    }
}

/// The name of a key: 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A document and its signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    /// Which key is said to have signed. Not signed itself: a hint.
    #[serde(rename = "keyid", default)]
    key_id: String,
    #[serde(rename = "sig")]
    signature: String,
}

/// An envelope is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is no envelope.
    #[error("failed to parse the envelope")]
    Parse(#[source] serde_json::Error),
    /// Its payload is no base64.
    #[error("failed to decode the envelope's payload")]
    Decode(#[source] base64::DecodeError),
    /// It holds another kind of document.
    #[error("the envelope holds {found:?} instead of {expected:?}")]
    PayloadType {
        /// What it says that it holds.
        found: String,
        /// What was looked for.
        expected: &'static str,
    },
    /// Nobody signed it.
    #[error("the envelope has no signature")]
    Unsigned,
    /// Whoever signed it is not trusted.
    #[error("the envelope is signed by none of the trusted keys, but by {}", key_ids.join(", "))]
    UnknownKey {
        /// Who is said to have signed.
        key_ids: Vec<String>,
    },
    /// It says that a trusted key signed it, and that key did not sign this.
    #[error("the envelope's signature is not of the key {key_id} that it names")]
    Forged {
        /// Whose signature it is said to be.
        key_id: String,
    },
}

impl Envelope {
    /// As it is stored: canonical JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, canonical::Error> {
        canonical::to_vec(self)
    }

    /// Reads an envelope, without believing it.
    pub fn parse(bytes: &[u8]) -> Result<Self, OpenError> {
        serde_json::from_slice(bytes).map_err(OpenError::Parse)
    }

    /// The document, if one of `trusted` signed it as `payload_type`, and which of them.
    pub fn open(
        &self,
        payload_type: &'static str,
        trusted: &[PublicKey],
    ) -> Result<(Vec<u8>, KeyId), OpenError> {
        if self.payload_type != payload_type {
            return Err(OpenError::PayloadType { found: self.payload_type.clone(), expected: payload_type });
        }
        let payload = decode(&self.payload).map_err(OpenError::Decode)?;
        let signed = signed_bytes(payload_type, &payload);
        let signatures = self.signatures.iter().take(MOST_SIGNATURES);
        for signature in signatures.clone() {
            // What does not decode is a signature of nobody.
            let bytes = decode(&signature.signature).unwrap_or_default();
            let of =
                |key: &&PublicKey| UnparsedPublicKey::new(&ED25519, key.0).verify(&signed, &bytes).is_ok();
            if let Some(key) = trusted.iter().find(of) {
                return Ok((payload, key.id()));
            }
        }
        let key_ids: Vec<String> = signatures.map(|signature| signature.key_id.clone()).collect();
        if let Some(key_id) = key_ids.iter().find(|named| trusted.iter().any(|key| key.id().0 == **named)) {
            return Err(OpenError::Forged { key_id: key_id.clone() });
        }
        if key_ids.is_empty() { Err(OpenError::Unsigned) } else { Err(OpenError::UnknownKey { key_ids }) }
    }
}

/// DSSE's pre-authentication encoding.
fn signed_bytes(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let start = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [start.as_bytes(), payload].concat()
}

/// DSSE allows both alphabets.
fn decode(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    BASE64_STANDARD.decode(text).or_else(|error| BASE64_URL_SAFE.decode(text).map_err(|_| error))
}

fn to_pem(tag: &str, document: &[u8]) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new(tag, document), config)
}

fn from_pem(expected: &'static str, text: &str) -> Result<Vec<u8>, KeyError> {
    let document = pem::parse(text).map_err(|_| KeyError::Pem { expected })?;
    if document.tag() == expected { Ok(document.into_contents()) } else { Err(KeyError::Pem { expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "application/vnd.valv.commit.v1+json";

    fn key() -> SigningKey {
        SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap()
    }

    #[test]
    fn what_a_trusted_key_signed_is_opened_and_says_which_key() {
        let (old, new) = (key(), key());
        let envelope = new.sign(TYPE, b"{}");

        let read = Envelope::parse(&envelope.to_bytes().unwrap()).unwrap();
        let opened = read.open(TYPE, &[old.public(), new.public()]).unwrap();

        assert_eq!(opened, (b"{}".to_vec(), new.public().id()));
    }

    #[test]
    fn what_a_stranger_signed_is_not_opened() {
        let envelope = key().sign(TYPE, b"{}");

        let opened = envelope.open(TYPE, &[key().public()]);

        assert!(matches!(opened, Err(OpenError::UnknownKey { .. })), "{opened:?}");
        assert!(matches!(envelope.open(TYPE, &[]), Err(OpenError::UnknownKey { .. })));
    }

    #[test]
    fn a_changed_document_and_a_borrowed_name_are_forgeries() {
        let (ours, stranger) = (key(), key());
        let mut changed = ours.sign(TYPE, b"{\"slot\":1}");
        changed.payload = BASE64_STANDARD.encode(b"{\"slot\":2}");
        let mut borrowed = stranger.sign(TYPE, b"{}");
        borrowed.signatures[0].key_id = ours.public().id().to_string();
        let mut garbled = ours.sign(TYPE, b"{}");
        garbled.signatures[0].signature = "?".into();

        for envelope in [changed, borrowed, garbled] {
            let opened = envelope.open(TYPE, &[ours.public()]);

            assert!(matches!(opened, Err(OpenError::Forged { .. })), "{opened:?}");
        }
    }

    #[test]
    fn a_signature_for_another_kind_of_document_does_not_count() {
        let ours = key();
        let record = ours.sign("application/vnd.valv.record.v1+json", b"{}");
        let mut renamed = record.clone();
        renamed.payload_type = TYPE.into();
        let mut unsigned = ours.sign(TYPE, b"{}");
        unsigned.signatures.clear();

        assert!(matches!(record.open(TYPE, &[ours.public()]), Err(OpenError::PayloadType { .. })));
        assert!(matches!(renamed.open(TYPE, &[ours.public()]), Err(OpenError::Forged { .. })));
        assert!(matches!(unsigned.open(TYPE, &[ours.public()]), Err(OpenError::Unsigned)));
    }

    #[test]
    fn what_is_signed_is_as_dsse_s_own_example() {
        // Source: the protocol's test vector.
        let signed = signed_bytes("http://example.com/HelloWorld", b"hello world");

        assert_eq!(signed, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn the_public_key_of_rfc_8410_is_read_and_written() {
        // RFC 8410, section 10.1.
        let text = "-----BEGIN PUBLIC KEY-----\n\
            MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
            -----END PUBLIC KEY-----\n";
        let private = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";

        let key = PublicKey::from_pem(text).unwrap();

        assert_eq!(key.to_pem(), text);
        assert_eq!(SigningKey::from_pem(&private.into()).unwrap().public(), key);
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        let rsa = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VuBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";

        for text in ["", "secret", rsa] {
            let error = SigningKey::from_pem(&text.into()).unwrap_err().to_string();

            assert!(!error.contains("secret") && !error.contains("INTu"), "{error}");
        }
    }
}
