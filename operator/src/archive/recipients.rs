//! For whom a backup is encrypted, and who can open it.
//!
//! Recipients are public and all that the backup path ever holds. Identities are secret: they are read where
//! something is restored, and never printed.

use std::{fmt, sync::Arc};

use age::x25519;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::layout::{Fingerprint, InvalidName};
use crate::digest::hex;

/// The tenant's own key and the escrow: with one of them lost, the other still opens.
pub const FEWEST_RECIPIENTS: usize = 2;

/// The recipients are not as they must be. Never prints a text that is no recipient: it might be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecipients {
    /// One is not an X25519 recipient.
    #[error("recipient {number} is not an age X25519 recipient (age1…): {why}")]
    NoRecipient {
        /// Which of them, from 1.
        number: usize,
        /// Why not.
        why: &'static str,
    },
    /// One is there twice.
    #[error("the recipient {recipient} is named twice")]
    Twice {
        /// Which.
        recipient: String,
    },
    /// There are not enough.
    #[error("{found} recipients are named, and it takes at least {FEWEST_RECIPIENTS} different ones")]
    TooFew {
        /// How many there are.
        found: usize,
    },
}

/// At least [`FEWEST_RECIPIENTS`] different age X25519 recipients.
#[derive(Clone, Debug)]
pub struct Recipients(Arc<[x25519::Recipient]>);

impl Recipients {
    /// Reads recipients as `age-keygen -y` prints them.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, InvalidRecipients> {
        let mut recipients: Vec<x25519::Recipient> = Vec::new();
        for (index, text) in texts.into_iter().enumerate() {
            let text = text.as_ref();
            let refused = |why| InvalidRecipients::NoRecipient { number: index + 1, why };
            let recipient: x25519::Recipient = text.parse().map_err(refused)?;
            if recipient.to_string() != text {
                return Err(refused("it is not written in lower case"));
            }
            if recipients.contains(&recipient) {
                return Err(InvalidRecipients::Twice { recipient: text.to_owned() });
            }
            recipients.push(recipient);
        }
        if recipients.len() < FEWEST_RECIPIENTS {
            return Err(InvalidRecipients::TooFew { found: recipients.len() });
        }
        Ok(Self(recipients.into()))
    }

    /// As the manifest names them.
    pub fn to_texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Their fingerprints, in the same order: see [`fingerprint`].
    pub fn fingerprints(&self) -> Result<Vec<Fingerprint>, InvalidName> {
        self.0.iter().map(|recipient| fingerprint(&recipient.to_string())).collect()
    }

    /// As age takes them.
    pub(super) fn as_age(&self) -> impl Iterator<Item = &dyn age::Recipient> {
        self.0.iter().map(|recipient| recipient as _)
    }
}

/// The short name of a recipient: the first 32 digits of `printf %s age1… | sha256sum`.
pub fn fingerprint(recipient: &str) -> Result<Fingerprint, InvalidName> {
    hex(&Sha256::digest(recipient.as_bytes()))[..32].parse()
}

/// An identity could not be read. Never says what it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// A line is neither a comment nor an X25519 identity.
    #[error("line {line} of the identity file is not an age X25519 identity (AGE-SECRET-KEY-1…)")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// There is none.
    #[error("the identity file has no identity")]
    Empty,
}

/// Those who can open a segment: one or more age X25519 identities. Its `Debug` shows how many, and no more.
#[derive(Clone)]
pub struct Identities(Arc<[x25519::Identity]>);

impl Identities {
    /// Reads a file as `age-keygen` writes it: an identity a line, comments after `#`.
    pub fn parse(file: &SecretString) -> Result<Self, InvalidIdentity> {
        let mut identities = Vec::new();
        for (index, line) in file.expose_secret().lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            identities.push(line.parse().map_err(|_| InvalidIdentity::Line { line: index + 1 })?);
        }
        if identities.is_empty() { Err(InvalidIdentity::Empty) } else { Ok(Self(identities.into())) }
    }

    /// One after the other.
    pub fn each(&self) -> impl Iterator<Item = &x25519::Identity> {
        self.0.iter()
    }

    /// As age takes them.
    pub(super) fn as_age(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.0.iter().map(|identity| identity as _)
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identities({} of them)", self.0.len())
    }
}

/// What is given begins with no age header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no age v1 header")]
pub struct InvalidHeader;

/// How many X25519 recipients an age file names in its header. Who they are cannot be seen.
///
/// # Source
/// <https://c2sp.org/age>, sections "Header" and "The X25519 recipient type"
pub fn x25519_stanzas(file: &[u8]) -> Result<usize, InvalidHeader> {
    // Of 32 bytes, without padding.
    const SHARE_DIGITS: usize = 43;
    const BODY_COLUMNS: usize = 64;

    let mut lines = file.split(|byte| *byte == b'\n');
    let mut next = || lines.next().and_then(|line| std::str::from_utf8(line).ok()).ok_or(InvalidHeader);
    if next()? != "age-encryption.org/v1" {
        return Err(InvalidHeader);
    }
    let mut found = 0;
    loop {
        let line = next()?;
        if line.starts_with("--- ") {
            return Ok(found);
        }
        let arguments: Vec<&str> = line.strip_prefix("-> ").ok_or(InvalidHeader)?.split(' ').collect();
        let mut body = 0;
        loop {
            let columns = next()?.len();
            body += columns;
            if columns > BODY_COLUMNS {
                return Err(InvalidHeader);
            }
            if columns < BODY_COLUMNS {
                break;
            }
        }
        if let ["X25519", share] = arguments[..]
            && share.len() == SHARE_DIGITS
            && body == SHARE_DIGITS
        {
            found += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    const ADA_SECRET: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

    fn other() -> String {
        x25519::Identity::generate().to_public().to_string()
    }

    #[test]
    fn two_different_recipients_are_enough() {
        let escrow = other();

        let recipients = Recipients::parse([ADA, &escrow]).unwrap();

        assert_eq!(recipients.to_texts(), [ADA, &escrow]);
        assert_eq!(recipients.fingerprints().unwrap()[0], fingerprint(ADA).unwrap());
    }

    #[test]
    fn one_recipient_twice_is_not_two() {
        assert!(matches!(Recipients::parse([ADA, ADA]), Err(InvalidRecipients::Twice { .. })));
        assert!(matches!(Recipients::parse([ADA]), Err(InvalidRecipients::TooFew { found: 1 })));
        assert!(matches!(Recipients::parse([""; 0]), Err(InvalidRecipients::TooFew { found: 0 })));
    }

    #[test]
    fn what_is_no_recipient_is_refused_and_not_printed() {
        for text in [ADA_SECRET, "", "age1", "ssh-ed25519 AAAA", &ADA.to_uppercase(), &format!("{ADA} ")] {
            let error = Recipients::parse([ADA, text]).unwrap_err();

            assert!(matches!(error, InvalidRecipients::NoRecipient { number: 2, .. }), "{text}: {error}");
            assert!(!error.to_string().contains("GQ9778"));
        }
    }

    #[test]
    fn an_identity_file_is_read_as_age_keygen_writes_it() {
        let file = format!("# created: 2026-11-22T01:00:00Z\n# public key: {ADA}\n{ADA_SECRET}\n");

        let identities = Identities::parse(&file.into()).unwrap();

        assert_eq!(identities.0[0].to_public().to_string(), ADA);
        assert!(!format!("{identities:?}").contains("SECRET"));
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        let garbled = format!("{ADA_SECRET}\nAGE-SECRET-KEY-1GQ");

        assert_eq!(Identities::parse(&"# nothing\n\n".into()).unwrap_err(), InvalidIdentity::Empty);
        assert_eq!(Identities::parse(&garbled.into()).unwrap_err(), InvalidIdentity::Line { line: 2 });
    }

    #[test]
    fn the_recipients_of_a_header_are_counted_among_what_else_is_in_it() {
        for recipients in 1..6 {
            let keys: Vec<x25519::Recipient> = (0..recipients).map(|_| other().parse().unwrap()).collect();
            let mut file = Vec::new();
            let encryptor = age::Encryptor::with_recipients(keys.iter().map(|key| key as _)).unwrap();
            encryptor.wrap_output(&mut file).unwrap().finish().unwrap();

            // age adds a stanza of random shape to every header.
            assert_eq!(x25519_stanzas(&file), Ok(recipients));
        }
    }

    #[test]
    fn what_has_no_header_has_no_recipients_to_count() {
        let header = "age-encryption.org/v1\n-> X25519 ";
        for file in ["", "age-encryption.org/v2\n--- x\n", header, "not age\n--- x\n"] {
            assert_eq!(x25519_stanzas(file.as_bytes()), Err(InvalidHeader), "{file}");
        }
    }
}
