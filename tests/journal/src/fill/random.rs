//! Pseudo-random numbers that stay the same: a seed makes the same journal whatever version of a crate is used.

use sha2::{Digest, Sha256};

/// `SplitMix64`. Not for secrets.
///
/// # Source
/// Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014); <https://prng.di.unimi.it/splitmix64.c>
pub struct Random(u64);

impl Random {
    /// The numbers of `seed` for `purpose`.
    pub fn of(seed: u64, purpose: &str) -> Self {
        let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(purpose).finalize();
        let mut state = [0; 8];
        state.copy_from_slice(&digest[..8]);
        Self(u64::from_le_bytes(state))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to `end`, which is not 0. The bias is below `end` / 2⁶⁴.
    pub fn below(&mut self, end: usize) -> usize {
        let product = u128::from(self.any()) * end as u128;
        (product >> 64) as usize
    }

    /// One of `choices`, which are not none.
    pub fn choose<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// Bytes that do not compress.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| self.any().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }

    /// Any order of `items`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_generator() {
        // From state 0, as printed by the C source named above.
        let mut random = Random(0);

        assert_eq!(random.any(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.any(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn bytes_are_as_many_as_asked_for() {
        for count in [0, 1, 8, 13] {
            assert_eq!(Random::of(1, "x").bytes(count).len(), count);
        }
    }
}
