//! BLAKE3 digests: 64 lower-case hexadecimal digits, as `b3sum` prints them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The BLAKE3 digest of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blake3(blake3::Hash);

impl Blake3 {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes))
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl From<blake3::Hash> for Blake3 {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash)
    }
}

/// The text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not 64 lower-case hexadecimal digits")]
pub struct InvalidDigest(String);

impl FromStr for Blake3 {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let parsed = blake3::Hash::from_hex(text).ok().filter(|hash| hash.to_hex().as_str() == text);
        parsed.map(Self).ok_or_else(|| InvalidDigest(text.to_owned()))
    }
}

impl fmt::Display for Blake3 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.to_hex())
    }
}

impl Serialize for Blake3 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Blake3 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: <https://github.com/BLAKE3-team/BLAKE3>, the digest of nothing.
    const NOTHING: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn a_digest_reads_and_prints_as_b3sum_has_it() {
        assert_eq!(Blake3::of(b"").to_string(), NOTHING);
        assert_eq!(NOTHING.parse(), Ok(Blake3::of(b"")));
        assert!(NOTHING.to_uppercase().parse::<Blake3>().is_err());
        assert!("af13".parse::<Blake3>().is_err());
    }
}
