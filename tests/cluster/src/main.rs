//! `cluster`: brings the local cluster up and down.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use nix::unistd::Uid;
use valv_cluster::cache::Cache;
use valv_cluster::catalogue::Catalogue;
use valv_cluster::lock::Lock;
use valv_cluster::program::Programs;
use valv_cluster::progress::Progress;
use valv_cluster::settings::Settings;
use valv_cluster::{Cluster, debian, down, interrupt, logs, namespaces, node, status, supervisor, up};

/// Runs a real Kubernetes cluster on this machine, in namespaces: `up` brings it up, `down` leaves the
/// machine as it was. `VALV_CACHE` and `VALV_STATE` name its two folders.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Brings the cluster up, building first what is missing (half an hour when nothing is cached).
    Up {
        /// How many nodes it has at least.
        #[arg(long, default_value_t = 1)]
        nodes: u8,
    },
    /// Takes the cluster down and removes its state.
    Down,
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
            require_root("up")?;
            interrupt::watch()?;
            let program = std::env::current_exe()?;
            let cluster = up::up(&settings, &program, nodes, &progress)?;
            println!("KUBECONFIG={}", cluster.kubeconfig().display());
        }
        Command::Down => {
            require_root("down")?;
            let _lock = Lock::take(&settings, &progress)?;
            down::down(&settings, &progress)?;
        }
        Command::Status => {
            let cluster = Cluster::open()?;
            print!("{}", status::text(&cluster)?);
            cluster.check()?;
        }
        Command::Logs { part, node } => {
            print!("{}", logs::text(&settings, part.as_deref(), node.as_deref())?)
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
        Command::PostgresRoot => {
            interrupt::watch()?;
            let _lock = Lock::take(&settings, &progress)?;
            let cache = Cache::new(&settings);
            debian::install_host_packages(&cache, &progress)?;
            println!("{}", debian::Root::Postgres.folder(&cache, &progress)?.display());
        }
        Command::Images { out, json } => {
            interrupt::watch()?;
            let catalogue = build_images(&settings, &progress)?;
            if let Some(out) = out {
                catalogue.copy_to(&out)?;
            }
            print_references(&catalogue, if json { Format::Json } else { Format::Lines })?;
        }
        Command::ExecWorld { command } => {
            require_root("exec-world")?;
            let (program, arguments) = command.split_first().context("exec-world needs a command")?;
            let mut command = Cluster::open()?.world_command(program)?;
            Err(command.args(arguments).exec()).context("failed to run the command")?;
        }
        Command::Inside { member, init } => match namespaces::become_init(&member, &init)? {},
        Command::Supervise { number } => supervisor::run(&settings, number)?,
    }
    Ok(())
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

fn require_root(command: &str) -> Result<()> {
    if !Uid::effective().is_root() {
        let missing = debian::missing_packages()?;
        let install = if missing.is_empty() {
            String::new()
        } else {
            format!("; it would install these Debian packages: {}", missing.join(" "))
        };
        bail!("`cluster {command}` makes namespaces and mounts, so it needs root{install}");
    }
    Ok(())
}
