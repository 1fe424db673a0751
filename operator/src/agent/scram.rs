//! What PostgreSQL keeps instead of a password.
//!
//! A verifier cannot be used to log in, but a weak password can be guessed from it, and with it a server can
//! pretend to be the right one: it is kept like a secret, and `Debug` does not print it.

use std::{fmt, str::FromStr};

use postgres_protocol::password::scram_sha_256;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

const SCHEME: &str = "SCRAM-SHA-256";

/// Characters of the Base64 of one of both keys: 32 bytes.
const KEY_CHARACTERS: usize = 44;

/// A SCRAM-SHA-256 verifier, as PostgreSQL writes it.
///
/// # Shape
/// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, the last three in Base64. It holds no
/// character that would need care in an SQL literal.
///
/// # Source
/// RFC 5802, RFC 7677; `pg_authid.rolpassword`, <https://www.postgresql.org/docs/17/catalog-pg-authid.html>.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Verifier(String);

/// A text that PostgreSQL would not take for a verifier, but for a password in clear.
#[derive(Debug, thiserror::Error)]
#[error("not a SCRAM-SHA-256 verifier")]
pub struct NotAVerifier;

/// A verifier of `password`, with a new random salt: another one each time, so make it once and keep it.
pub fn verifier(password: &SecretString) -> Verifier {
    Verifier(scram_sha_256(password.expose_secret().as_bytes()))
}

impl Verifier {
    /// For the one place that sends it to PostgreSQL.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Verifier {
    type Err = NotAVerifier;

    fn from_str(text: &str) -> Result<Self, NotAVerifier> {
        let is_base64 = |text: &str| {
            let digits = text.trim_end_matches('=');
            let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
            text.len().is_multiple_of(4) && text.len() - digits.len() <= 2 && digits.bytes().all(is_digit)
        };
        let is_key = |key: &str| key.len() == KEY_CHARACTERS && is_base64(key);
        let is_verifier = || {
            let (parameters, keys) = text.strip_prefix(SCHEME)?.strip_prefix('$')?.split_once('$')?;
            let (iterations, salt) = parameters.split_once(':')?;
            let (stored_key, server_key) = keys.split_once(':')?;
            let iterations: u32 = iterations.parse().ok()?;
            let is_salt = !salt.is_empty() && is_base64(salt);
            (iterations > 0 && is_salt && is_key(stored_key) && is_key(server_key)).then_some(())
        };
        is_verifier().map(|()| Self(text.to_owned())).ok_or(NotAVerifier)
    }
}

impl TryFrom<String> for Verifier {
    type Error = NotAVerifier;

    fn try_from(text: String) -> Result<Self, NotAVerifier> {
        text.parse()
    }
}

impl From<Verifier> for String {
    fn from(verifier: Verifier) -> Self {
        verifier.0
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Verifier([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn a_verifier_of_any_password_is_one(password in ".{1,100}") {
            let verifier = verifier(&SecretString::from(password));

            prop_assert_eq!(verifier.expose().parse::<Verifier>().unwrap(), verifier);
        }
    }

    #[test]
    fn what_postgresql_would_take_for_a_password_in_clear_is_no_verifier() {
        let right = verifier(&SecretString::from("pencil"));
        let right = right.expose();

        for wrong in [
            "pencil",
            "",
            "SCRAM-SHA-256$",
            &right.replace("SHA-256", "SHA-1"),
            &right.replace("4096", "many"),
            &right.replace("4096", "0"),
            &right[..right.len() - 4],
            &right.replace('=', "'"),
            &format!("{right}'; DROP ROLE postgres; --"),
        ] {
            assert!(wrong.parse::<Verifier>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_verifier_does_not_print() {
        assert_eq!(format!("{:?}", verifier(&SecretString::from("pencil"))), "Verifier([REDACTED])");
    }
}
