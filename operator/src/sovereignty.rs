//! Where data may rest, whose law may reach them, and what they may pass. Pure.
//!
//! The policy and the provider register in, verdicts out: nothing here asks a cluster, a clock or a provider.

pub mod reach;
pub mod register;
pub mod stricter;
pub mod verdict;

#[cfg(test)]
mod tests;
