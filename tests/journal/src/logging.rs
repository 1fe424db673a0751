//! Structured logs: one JSON object a line, on standard error.

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, filter_fn};
use tracing_subscriber::prelude::*;

/// Starts the logs, at the levels that `RUST_LOG` asks for (default `info`).
///
/// # Guarantees
/// Crates other than this one never log below `info`, whatever `RUST_LOG` says: tokio-postgres logs the
/// parameters of statements at `debug`, and they are personnummer and notes.
pub fn start() {
    let asked_for = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(layer.with_filter(asked_for).with_filter(filter_fn(may_be_logged)))
        .init();
}

fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let own = metadata.target() == "journal" || metadata.target().starts_with("journal::");
    own || *metadata.level() <= Level::INFO
}
