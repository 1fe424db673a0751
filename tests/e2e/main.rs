//! Valv on a real cluster: each test is a sentence that somebody who runs journals relies on.
//!
//! `cargo run -p valv-tests --bin harness -- install` first; then `cargo test -p valv-tests --test e2e`, or
//! with `-- NAME` only those whose name has it. Tests run side by side; what disturbs everybody, or measures, asks to be
//! alone.

mod backup_faults;
mod backup_planted;
mod backups;
mod brought;
mod database;
mod deletion;
mod drain;
mod drift;
mod drill_faults;
mod drill_judges;
mod drill_store_faults;
mod drills;
mod events;
mod evidence;
mod foreign_journal;
mod forged;
mod hosts;
mod keys;
mod leaks;
mod lost_secrets;
mod moments;
mod nodes;
mod operator_rights;
mod operator_surface;
mod people;
mod progress;
mod protection;
mod ready;
mod references;
mod restored_without_valv;
mod retention;
mod rotation;
mod schema;
mod segmentation;
mod signing_key;
mod sole_trader;
mod storage;
mod store_faults;
mod stores;
mod suspension;
mod tls;
mod upgrade;
mod upheaval;
mod warm;
mod warped;
