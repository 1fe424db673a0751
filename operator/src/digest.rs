//! Short names for contents: to tell whether something changed, never to keep it secret.

use sha2::{Digest, Sha256};

/// Hexadecimal digits of a digest: 64 bits, so that two contents of one tenant do not meet by accident.
const DIGITS: usize = 16;

/// Digest of `bytes`, short enough for an annotation or a name.
///
/// # Shape
/// The first 16 digits of its SHA-256 in lower-case hexadecimal.
pub fn of(bytes: &[u8]) -> String {
    short(&Sha256::digest(bytes))
}

/// Digest of keys and their values, in the order in which they are given.
///
/// # Shape
/// As [`of`] of each key and each value, each after its length in 8 bytes, big-endian: no byte can move from one
/// to the next unseen.
pub fn of_entries<'a>(entries: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hash = Sha256::new();
    for (key, value) in entries {
        for part in [key.as_bytes(), value] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
    }
    short(&hash.finalize())
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn short(hash: &[u8]) -> String {
    hex(hash)[..DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_beginning_of_a_sha_256() {
        assert_eq!(of(b""), "e3b0c44298fc1c14");
    }

    #[test]
    fn a_byte_that_moves_from_key_to_value_is_another_digest() {
        let one = of_entries([("ab", b"c".as_slice())]);
        let other = of_entries([("a", b"bc".as_slice())]);

        assert_ne!(one, other);
        assert_eq!(one, of_entries([("ab", b"c".as_slice())]));
    }
}
