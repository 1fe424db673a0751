//! The challenge to the holder of a key, and its answer. Pure, but for the randomness that age takes.
//!
//! # What it proves
//! To the operator: that whoever answered could decrypt with the identity of exactly this recipient, now. To the holder's
//! own program, which refuses to answer otherwise: that the same identity opens the header of the newest backup. The operator
//! cannot see the second without a key; a program that was changed to skip it would deceive its own user alone.
//!
//! # Shape
//! The nonce is the SHA-256, in hex, of an envelope ([`SigningKey::sign`]) over archive, slot, recipient and the last proof. Ed25519
//! signs deterministically, so the operator needs no memory of it, and nobody else can compute it.

use std::fmt;

use age::x25519;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use valv_crds::Slot;

use crate::{
    archive::{
        canonical,
        envelope::SigningKey,
        recipients::{Identities, InvalidIdentity},
    },
    digest::hex,
};

/// What a nonce is signed as: a signature for another kind of document can never be taken for it.
const PAYLOAD_TYPE: &str = "application/vnd.valv.key-challenge.v1+json";

/// Bytes between an age header and its payload.
/// Source: <https://c2sp.org/age>, "Payload"
const AGE_NONCE_BYTES: usize = 16;

/// A challenge could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be written down.
    #[error("failed to write a challenge down")]
    Canonical(#[source] canonical::Error),
    /// The tenant's spec names something that is no recipient.
    #[error("{recipient:?} is no age X25519 recipient: {why}")]
    Recipient {
        /// What it names.
        recipient: String,
        /// Why not.
        why: &'static str,
    },
    /// It could not be encrypted.
    #[error("failed to encrypt a challenge")]
    Encrypt(#[source] age::EncryptError),
}

/// A challenge cannot be answered. Never says anything about the identity but its public half.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Standard input has no identity.
    #[error("failed to read an identity from standard input")]
    Identity(#[source] InvalidIdentity),
    /// The key opens no backup.
    #[error(
        "this key does NOT open the header of backup {slot}, although it is a recipient of the tenant: take this seriously, and drill a restore with another key"
    )]
    Header {
        /// Which backup.
        slot: Slot,
    },
    /// The key does not open the challenge.
    #[error(
        "the challenge is not for this key: it was damaged, or somebody changed it; delete it, and the operator makes another"
    )]
    Challenge,
    /// What is in the challenge contradicts what stands around it.
    #[error(
        "the challenge is of another backup or key than it says: somebody changed it; delete it, and the operator makes another"
    )]
    Contradiction,
}

/// The right answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Nonce(String);

impl Nonce {
    /// Whether `answer` is it.
    pub fn is(&self, answer: &str) -> bool {
        self.0 == answer.trim()
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What the holder of a key is given. Nothing in it is secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Challenge {
    /// Whose backup.
    pub archive: String,
    /// Which.
    pub slot: Slot,
    /// For which key.
    pub recipient: String,
    /// The header of a segment of it, with the 16 bytes after it.
    pub header: Vec<u8>,
    /// The nonce, encrypted for that key alone.
    pub sealed: Vec<u8>,
}

/// What is encrypted.
#[derive(Debug, Deserialize, Serialize)]
struct Sealed {
    archive: String,
    slot: Slot,
    recipient: String,
    nonce: String,
}

#[derive(Serialize)]
struct Signed<'a> {
    archive: &'a str,
    slot: Slot,
    recipient: &'a str,
    proven: Option<Timestamp>,
}

/// The right answer of the holder of `recipient`, whose last proof was at `proven`.
///
/// # Errors
/// [`Error::Canonical`], never in practice.
pub fn nonce(
    key: &SigningKey,
    archive: &str,
    slot: Slot,
    recipient: &str,
    proven: Option<Timestamp>,
) -> Result<Nonce, Error> {
    let signed = canonical::to_vec(&Signed { archive, slot, recipient, proven }).map_err(Error::Canonical)?;
    let envelope = key.sign(PAYLOAD_TYPE, &signed).to_bytes().map_err(Error::Canonical)?;
    Ok(Nonce(hex(&Sha256::digest(envelope))))
}

impl Challenge {
    /// A challenge for `recipient` alone, with the header of backup `slot`.
    ///
    /// # Errors
    /// [`Error::Recipient`] if it is none.
    pub fn make(
        archive: &str,
        slot: Slot,
        recipient: &str,
        header: &[u8],
        nonce: &Nonce,
    ) -> Result<Self, Error> {
        let to: x25519::Recipient =
            recipient.parse().map_err(|why| Error::Recipient { recipient: recipient.to_owned(), why })?;
        let sealed = Sealed {
            archive: archive.to_owned(),
            slot,
            recipient: recipient.to_owned(),
            nonce: nonce.to_string(),
        };
        let sealed = canonical::to_vec(&sealed).map_err(Error::Canonical)?;
        let sealed = age::encrypt(&to, &sealed).map_err(Error::Encrypt)?;
        Ok(Self {
            archive: archive.to_owned(),
            slot,
            recipient: recipient.to_owned(),
            header: header.to_vec(),
            sealed,
        })
    }

    /// The answer, if `identity` opens the backup's header and the challenge.
    ///
    /// # Errors
    /// By what it does not open.
    pub fn answer(&self, identity: &x25519::Identity) -> Result<String, Refusal> {
        if identity.to_public().to_string() != self.recipient {
            return Err(Refusal::Contradiction);
        }
        // The header's MAC is of the file key, which only a recipient's identity unwraps.
        let opened = age::Decryptor::new_buffered(self.header.as_slice())
            .and_then(|header| header.decrypt(std::iter::once(identity as &dyn age::Identity)).map(drop));
        opened.map_err(|_| Refusal::Header { slot: self.slot })?;
        let sealed = age::decrypt(identity, &self.sealed).map_err(|_| Refusal::Challenge)?;
        let sealed: Sealed = serde_json::from_slice(&sealed).map_err(|_| Refusal::Challenge)?;
        let is_same =
            sealed.archive == self.archive && sealed.slot == self.slot && sealed.recipient == self.recipient;
        if is_same { Ok(sealed.nonce) } else { Err(Refusal::Contradiction) }
    }
}

/// The identities in a file as `age-keygen` writes it.
///
/// # Errors
/// [`Refusal::Identity`], which never says what it is.
pub fn identities(file: &SecretString) -> Result<Identities, Refusal> {
    Identities::parse(file).map_err(Refusal::Identity)
}

/// The age header at the beginning of `file`, with the bytes that stand between it and the payload.
pub fn header(file: &[u8]) -> Option<&[u8]> {
    let mac = file.windows(5).position(|window| window == b"\n--- ")?;
    let end = file[mac + 1..].iter().position(|byte| *byte == b'\n')?;
    file.get(..mac + 1 + end + 1 + AGE_NONCE_BYTES)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::archive::recipients::x25519_stanzas;

    struct Holders {
        tenant: x25519::Identity,
        escrow: x25519::Identity,
        signing: SigningKey,
    }

    fn holders() -> Holders {
        let signing = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
        Holders { tenant: x25519::Identity::generate(), escrow: x25519::Identity::generate(), signing }
    }

    fn slot() -> Slot {
        "20261123T010000Z".parse().unwrap()
    }

    /// A segment for `recipients`.
    fn segment(recipients: &[&x25519::Identity]) -> Vec<u8> {
        use std::io::Write;
        let recipients: Vec<_> = recipients.iter().map(|identity| identity.to_public()).collect();
        let all = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
        let mut file = vec![];
        let mut writer = age::Encryptor::with_recipients(all).unwrap().wrap_output(&mut file).unwrap();
        writer.write_all(&[7; 200_000]).unwrap();
        writer.finish().unwrap();
        file
    }

    fn challenge(holders: &Holders, to: &x25519::Identity, segment: &[u8]) -> (Challenge, Nonce) {
        let recipient = to.to_public().to_string();
        let nonce = nonce(&holders.signing, "ada", slot(), &recipient, None).unwrap();
        let header = header(segment).unwrap();
        (Challenge::make("ada", slot(), &recipient, header, &nonce).unwrap(), nonce)
    }

    #[test]
    fn the_header_is_all_that_is_needed_to_open_it_and_has_nothing_of_the_payload() {
        let holders = holders();
        let segment = segment(&[&holders.tenant, &holders.escrow]);

        let header = header(&segment).unwrap();

        assert_eq!(x25519_stanzas(header), Ok(2));
        assert!(header.len() < 2048, "{}", header.len());
        assert_eq!(self::header(&segment[..header.len()]), Some(header));
        assert_eq!(self::header(&segment[..header.len() - 1]), None);
        assert_eq!(self::header(b"no age file"), None);
    }

    #[test]
    fn each_holder_answers_with_the_nonce_that_the_operator_computes_anew() {
        let holders = holders();
        let segment = segment(&[&holders.tenant, &holders.escrow]);

        for identity in [&holders.tenant, &holders.escrow] {
            let (challenge, nonce) = challenge(&holders, identity, &segment);
            let answer = challenge.answer(identity).unwrap();

            assert!(nonce.is(&answer));
            assert!(!nonce.is(""));
        }
    }

    #[test]
    fn a_key_that_opens_the_challenge_and_not_the_backup_proves_nothing() {
        let holders = holders();
        let (challenge, _) = challenge(&holders, &holders.escrow, &segment(&[&holders.tenant]));

        let refused = challenge.answer(&holders.escrow).unwrap_err();

        assert!(matches!(refused, Refusal::Header { .. }), "{refused}");
    }

    #[test]
    fn another_key_and_a_changed_challenge_are_refused() {
        let holders = holders();
        let segment = segment(&[&holders.tenant, &holders.escrow]);
        let (tenants, _) = challenge(&holders, &holders.tenant, &segment);
        let (escrows, _) = challenge(&holders, &holders.escrow, &segment);
        let swapped = Challenge { sealed: escrows.sealed, ..tenants.clone() };
        let renamed = Challenge { slot: "20261122T010000Z".parse().unwrap(), ..tenants.clone() };
        let mut damaged = tenants.clone();
        let middle = damaged.header.len() / 2;
        damaged.header[middle] ^= 1;

        assert!(matches!(tenants.answer(&holders.escrow), Err(Refusal::Contradiction)));
        assert!(matches!(swapped.answer(&holders.tenant), Err(Refusal::Challenge)));
        assert!(matches!(renamed.answer(&holders.tenant), Err(Refusal::Contradiction)));
        assert!(matches!(damaged.answer(&holders.tenant), Err(Refusal::Header { .. })));
    }

    #[test]
    fn the_nonce_is_the_same_for_the_same_question_and_for_no_other() {
        let holders = holders();
        let ask = |archive: &str, slot: &str, proven: Option<&str>| {
            let proven = proven.map(|text| text.parse().unwrap());
            nonce(&holders.signing, archive, slot.parse().unwrap(), "age1x", proven).unwrap()
        };
        let first = ask("ada", "20261123T010000Z", None);

        assert_eq!(ask("ada", "20261123T010000Z", None), first);
        assert_ne!(ask("bo", "20261123T010000Z", None), first);
        assert_ne!(ask("ada", "20261124T010000Z", None), first);
        assert_ne!(ask("ada", "20261123T010000Z", Some("2026-11-23T12:00:00Z")), first);
        let other = self::holders();
        assert_ne!(nonce(&other.signing, "ada", slot(), "age1x", None).unwrap(), first);
    }

    #[test]
    fn no_refusal_shows_the_identity() {
        let holders = holders();
        let secret = holders.tenant.to_string();
        let file = SecretString::from(format!("{}\nnonsense", secret.expose_secret()));

        let refused = format!("{:?}", identities(&file).unwrap_err());

        assert!(!refused.contains(secret.expose_secret()) && !refused.contains("nonsense"), "{refused}");
    }
}
