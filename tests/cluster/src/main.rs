//! `cluster`: brings the local cluster up and down.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use valv_cluster::cache::Cache;
use valv_cluster::catalogue::Catalogue;
use valv_cluster::debian::Root;
use valv_cluster::lock::Lock;
use valv_cluster::program::Programs;
use valv_cluster::progress::Progress;
use valv_cluster::settings::Settings;
use valv_cluster::{
    Cluster, debian, down, interrupt, logs, namespaces, node, status, stores, supervisor, target, up,
};

/// Runs a real Kubernetes cluster on this machine, in namespaces: `up` brings it up, `down` leaves the
/// machine as it was. `VALV_CACHE` and `VALV_STATE` name its two folders.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Brings the cluster up, building first what is missing (20 minutes when nothing is cached).
    Up {
        /// How many nodes it has at least.
        #[arg(long, default_value_t = 1)]
        nodes: u8,
    },
    /// Takes the cluster down and removes its state.
    Down,
    /// Makes the cluster ready that tests run on: the local one, or that of KUBECONFIG.
    Ready,
    /// Does the same, runs a command, and takes down what it has brought up.
    Run {
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Shows what runs; fails if something does not.
    Status,
    /// Prints a part's log, or the end of every log.
    Logs {
        /// etcd, apiserver, kubelet, cilium …
        part: Option<String>,
        /// node-1, node-2 … or world.
        #[arg(long)]
        node: Option<String>,
    },
    /// Shows the S3 servers: where they are, and what they can do.
    Stores {
        /// Prints a JSON array, with the users' access keys and secrets.
        #[arg(long)]
        json: bool,
    },
    /// Prints the path of the administrator's kubeconfig.
    Kubeconfig,
    /// Builds the programs, and prints where they are.
    Programs {
        /// Prints the path of this one only.
        #[arg(long)]
        path: Option<String>,
    },
    /// Prints a folder with the root file system of the `PostgreSQL` image, for tests that need no cluster.
    PostgresRoot,
    /// The same with pgBackRest in it, for `make race`.
    RaceRoot,
    /// Builds the images and prints their references, for loading them into another cluster.
    Images {
        /// Also writes the OCI archives to this folder, one an image.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Prints a JSON object of name and reference.
        #[arg(long)]
        json: bool,
    },
    /// Runs a command in the network of the world outside the nodes.
    ExecWorld {
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    #[command(hide = true, name = namespaces::INSIDE)]
    Inside {
        member: String,
        #[arg(last = true, required = true)]
        init: Vec<OsString>,
    },
    #[command(hide = true, name = node::SUPERVISE)]
    Supervise { number: u8 },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let settings = Settings::from_env()?;
    let progress = Progress::new();
    match command {
        Command::Up { nodes } => {
            interrupt::watch()?;
            let program = std::env::current_exe()?;
            let cluster = up::up(&settings, &program, nodes, &progress)?;
            println!("KUBECONFIG={}", cluster.kubeconfig().display());
        }
        Command::Down => {
            debian::require_root("down")?;
            let _lock = Lock::take(&settings, &progress)?;
            down::down(&settings, &progress)?;
        }
        Command::Ready => {
            interrupt::watch()?;
            target::make_ready(&settings, &std::env::current_exe()?, &progress)?;
        }
        Command::Run { command } => {
            interrupt::watch()?;
            target::run_with(&settings, &std::env::current_exe()?, &mut split(&command)?, &progress)?;
        }
        Command::Status => {
            let cluster = Cluster::open()?;
            print!("{}", status::text(&cluster)?);
            cluster.check()?;
        }
        Command::Logs { part, node } => {
            print!("{}", logs::text(&settings, part.as_deref(), node.as_deref())?)
        }
        Command::Stores { json } => {
            let stores = Cluster::open()?.stores()?;
            print!("{}", if json { stores::json(&stores)? } else { stores::text(&stores)? });
        }
        Command::Kubeconfig => println!("{}", Cluster::open()?.kubeconfig().display()),
        Command::Programs { path } => {
            interrupt::watch()?;
            let _lock = Lock::take(&settings, &progress)?;
            let cache = Cache::new(&settings);
            debian::install_host_packages(&cache, &progress)?;
            let programs = Programs::build(&cache, &progress)?;
            match path {
                Some(name) => println!("{}", programs.find(&name)?.display()),
                None => programs.all().for_each(|(name, path)| println!("{name} {}", path.display())),
            }
        }
        Command::PostgresRoot => print_root(Root::Postgres, &settings, &progress)?,
        Command::RaceRoot => print_root(Root::Race, &settings, &progress)?,
        Command::Images { out, json } => {
            interrupt::watch()?;
            let catalogue = build_images(&settings, &progress)?;
            if let Some(out) = out {
                catalogue.copy_to(&out)?;
            }
            print_references(&catalogue, if json { Format::Json } else { Format::Lines })?;
        }
        Command::ExecWorld { command } => {
            debian::require_root("exec-world")?;
            let (program, arguments) = command.split_first().context("a command has a program")?;
            let mut command = Cluster::open()?.world_command(program)?;
            Err(command.args(arguments).exec()).context("failed to run the command")?;
        }
        Command::Inside { member, init } => match namespaces::become_init(&member, &init)? {},
        Command::Supervise { number } => supervisor::run(&settings, number)?,
    }
    Ok(())
}

fn print_root(root: Root, settings: &Settings, progress: &Progress) -> Result<()> {
    interrupt::watch()?;
    let _lock = Lock::take(settings, progress)?;
    let cache = Cache::new(settings);
    debian::install_host_packages(&cache, progress)?;
    println!("{}", root.folder(&cache, progress)?.display());
    Ok(())
}

fn split(words: &[OsString]) -> Result<process::Command> {
    let (program, arguments) = words.split_first().context("a command has a program")?;
    let mut command = process::Command::new(program);
    command.args(arguments);
    Ok(command)
}

fn build_images(settings: &Settings, progress: &Progress) -> Result<Catalogue> {
    let _lock = Lock::take(settings, progress)?;
    let cache = Cache::new(settings);
    debian::install_host_packages(&cache, progress)?;
    Catalogue::build(&cache, progress)
}

/// How references are printed.
#[derive(Clone, Copy, Debug)]
enum Format {
    Lines,
    Json,
}

fn print_references(catalogue: &Catalogue, format: Format) -> Result<()> {
    let references = catalogue.references();
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&references)?),
        Format::Lines => references.iter().for_each(|(name, reference)| println!("{name} {reference}")),
    }
    Ok(())
}
