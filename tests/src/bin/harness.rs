//! `harness`: what is done once before the tests, and after them.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use harness::helm::Helm;
use harness::operator::Operator;
use harness::ownership::sweep;
use harness::test::{block_on, world};
use serde_json::json;

/// Installs Valv on the cluster that the tests run on
#[derive(Parser)]
#[command(name = "harness")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the chart with the images that the cluster has, or upgrade it; take away what killed tests left
    Install,
    /// Take away the tenants that tests left, and wait until they are gone
    Sweep,
    /// Remove the chart; tenants stay
    Uninstall,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let ended = block_on(async {
        let world = world().await?;
        let helm = Helm::of(world);
        match command {
            Command::Install => {
                helm.install(&json!({})).await?;
                Operator::of(world).is_ready().await?;
                for name in sweep(world).await? {
                    println!("    took away {name}, which a run before left");
                }
                Ok(())
            }
            Command::Sweep => sweep(world).await.map(drop),
            Command::Uninstall => helm.uninstall().await,
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
