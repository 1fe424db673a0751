//! Content digests: the keys of everything that is cached.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of some inputs, in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest(String);

impl Digest {
    /// The digest of what `bytes` gives.
    pub fn of_reader(mut bytes: impl Read) -> io::Result<Self> {
        let mut written = Hasher::default();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read = bytes.read(&mut buffer)?;
            if read == 0 {
                return Ok(written.digest());
            }
            written.write_all(&buffer[..read])?;
        }
    }

    /// The digest of a file's content.
    pub fn of_file(path: &Path) -> Result<Self> {
        File::open(path)
            .and_then(Self::of_reader)
            .with_context(|| format!("failed to read {}", path.display()))
    }

    /// The whole digest.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first `digits` digits, for names.
    pub fn short(&self, digits: usize) -> &str {
        self.0.get(..digits).unwrap_or(&self.0)
    }
}

/// Takes what is written, and keeps nothing but its digest.
#[derive(Debug, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// The digest of what was written.
    pub fn digest(self) -> Digest {
        Digest(self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What goes into a digest, piece by piece. Each piece is preceded by its length, so that no two lists
/// of pieces read the same.
#[derive(Debug, Default)]
pub struct Inputs(Vec<u8>);

impl Inputs {
    /// Adds a piece.
    pub fn add(mut self, piece: impl AsRef<[u8]>) -> Self {
        let piece = piece.as_ref();
        self.0.extend((piece.len() as u64).to_le_bytes());
        self.0.extend(piece);
        self
    }

    /// Adds a file's content.
    pub fn add_file(self, path: &Path) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        Ok(self.add(content))
    }

    /// The digest of all pieces.
    pub fn digest(&self) -> Result<Digest> {
        Ok(Digest::of_reader(self.0.as_slice())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_sha256() {
        let digest = Digest::of_reader(&b"abc"[..]).unwrap();

        assert_eq!(digest.as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.short(12), "ba7816bf8f01");
    }

    #[test]
    fn moving_a_byte_from_one_piece_to_the_next_changes_the_digest() {
        let one = Inputs::default().add("ab").add("c").digest().unwrap();
        let other = Inputs::default().add("a").add("bc").digest().unwrap();

        assert_ne!(one, other);
    }
}
