//! The operator, in the order in which it works.
//!
//! | step    | file                | may touch            |
//! |---------|---------------------|----------------------|
//! | check   | `tenant/check.rs`   | nothing              |
//! | observe | `tenant/observe.rs` | the cluster, reading |
//! | plan    | `tenant/plan.rs`    | nothing              |
//! | apply   | `tenant/apply.rs`   | the cluster          |
//! | status  | `tenant/status.rs`  | nothing              |
//!
//! `store`, `backup`, `copy`, `drill` and `janitor` have the same five.
//!
//! All clients are in [`io`]; the clock and the environment are read in `main.rs` only. What runs inside the
//! tenants' pods is [`agent`]: the same binary, and nothing of the rest.

pub mod agent;
pub mod archive;
pub mod backoff;
pub mod backup;
pub mod conformance;
pub mod controllers;
pub mod copy;
pub mod digest;
pub mod drill;
pub mod error;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "only tests use it, and they fail by panicking")]
mod fake_api;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "only tests use it, and they fail by panicking")]
mod fake_cache;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "only tests use it, and they fail by panicking")]
mod fake_store;
pub mod http;
pub mod io;
pub mod janitor;
pub mod keyholder;
pub mod keys;
pub mod lease;
pub mod log;
pub mod metrics;
pub mod overview;
pub mod percent;
pub mod pki;
pub mod plugin;
pub mod policy;
pub mod residency;
pub mod retention;
pub mod schedule;
pub mod segmentation;
pub mod settings;
pub mod signing;
pub mod sovereignty;
pub mod store;
pub mod tenant;
pub mod uninstall;
