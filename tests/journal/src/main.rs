//! The journal: a small, real patient-journal system that tests deploy as a tenant.
//!
//! | command   | what it does                                     | database role | file          |
//! |-----------|--------------------------------------------------|---------------|---------------|
//! | `serve`   | serves the pages and the API                     | application   | `server.rs`   |
//! | `migrate` | brings the schema to the release's               | owner         | `migration.rs`|
//! | `fill`    | writes patients, the same for the same seed      | application   | `fill.rs`     |
//!
//! What a release is (its version and its migrations) is data, in `release.rs`. Everything that touches a
//! patient goes through `access.rs`, which writes who did it, in the same transaction.

mod access;
mod accounts;
mod attachments;
mod database;
mod digest;
mod error;
mod fill;
mod health;
mod logging;
mod migration;
mod notes;
mod patients;
mod personnummer;
mod release;
mod server;
mod tls;
mod trust;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A small patient journal for tests: test personnummer only.
#[derive(Parser)]
#[command(name = "journal")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the pages and the API. Never changes the schema.
    Serve(server::ServeArguments),
    /// Brings the schema to what the release needs, each migration in its own transaction.
    Migrate(migration::MigrateArguments),
    /// Writes patients with notes and attachments, the same for the same seed.
    Fill(fill::FillArguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    logging::start();
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = error::chain(error.as_ref()), "failed");
            ExitCode::FAILURE
        }
    }
}

/// The only place that reads the clock.
#[expect(clippy::disallowed_methods, reason = "main.rs reads the clock")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(arguments) => server::serve(arguments, now).await?,
        Command::Migrate(arguments) => migration::migrate(arguments).await?,
        Command::Fill(arguments) => fill::fill(arguments).await?,
    }
    Ok(())
}
