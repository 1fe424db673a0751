//! Valv on a real cluster: each test is a sentence that somebody who runs journals relies on.
//!
//! `cargo run -p valv-tests --bin harness -- install` first; then `cargo test -p valv-tests --test e2e`, or
//! with `-- NAME` only those whose name has it. Tests run side by side. Those in `upheaval.rs` disturb
//! everybody: they wait for the others, run one by one, and come last because of their module's name.

mod database;
mod deletion;
mod drift;
mod foreign_journal;
mod hosts;
mod leaks;
mod lost_secrets;
mod operator_rights;
mod ready;
mod references;
mod rotation;
mod schema;
mod segmentation;
mod storage;
mod suspension;
mod tls;
mod upgrade;
mod upheaval;
