//! Streams as journals have them: rows that compress well, and scanned pages that do not.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Numbers that look random and are the same every time (`SplitMix64`).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

const WORDS: [&str; 16] = [
    "blodtryck",
    "patienten",
    "remiss",
    "vaccination",
    "läkemedel",
    "kontroll",
    "uppföljning",
    "smärta",
    "provtagning",
    "återbesök",
    "journal",
    "diagnos",
    "allergi",
    "ordination",
    "mottagning",
    "sjuksköterska",
];

/// `bytes` of rows, with a stretch of noise of 32 KiB in every 128 KiB.
pub fn mixed(bytes: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let mut data = Vec::with_capacity(bytes + 256 * 1024);
    while data.len() < bytes {
        let rows_end = data.len() + 96 * 1024;
        while data.len() < rows_end {
            let (number, words) = (numbers.next(), numbers.next());
            data.extend_from_slice(
                format!("{}\t2026-11-{:02}\t", number % 10_000_000, number % 28 + 1).as_bytes(),
            );
            for shift in 0..8 {
                data.extend_from_slice(WORDS[(words >> (shift * 4)) as usize & 15].as_bytes());
                data.push(b' ');
            }
            data.push(b'\n');
        }
        for _ in 0..32 * 1024 / 8 {
            data.extend_from_slice(&numbers.next().to_le_bytes());
        }
    }
    data.truncate(bytes);
    data
}

/// The same stretch again and again, up to a length. Holds the stretch only.
pub struct Repeated {
    pub stretch: Vec<u8>,
    pub at: usize,
    pub left: u64,
}

impl Repeated {
    pub fn new(stretch: Vec<u8>, bytes: u64) -> Self {
        Self { stretch, at: 0, left: bytes }
    }
}

impl AsyncRead for Repeated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let bytes = buffer.remaining().min(self.stretch.len() - self.at).min(left);
        buffer.put_slice(&self.stretch[self.at..self.at + bytes]);
        self.at = (self.at + bytes) % self.stretch.len();
        self.left -= bytes as u64;
        Poll::Ready(Ok(()))
    }
}

/// Counts and hashes what it is given, and forgets it.
#[derive(Default)]
pub struct Hashing {
    pub bytes: u64,
    pub hasher: blake3::Hasher,
}

impl AsyncWrite for Hashing {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.bytes += buffer.len() as u64;
        self.hasher.update(buffer);
        Poll::Ready(Ok(buffer.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
