//! `valv`: the operator, what its pods run, and what people run.
//!
//! The only file that reads the clock, the environment, the command line and the operator's settings, and the
//! only one that knows `anyhow`. What it reads it hands down as arguments.

use std::{
    env,
    future::Future,
    io::{self, IsTerminal},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use kube::{Client, Config};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::{sleep, timeout},
};
use tracing::{error, info, warn};
use valv::{
    agent, conformance, controllers,
    error::chain,
    http::{self, Health},
    keyholder,
    lease::{self, Elector, End, Lost, Timing},
    log,
    metrics::Metrics,
    plugin::{self, Input, Screen, Surroundings},
    settings::Settings,
    store::breakers::Breakers,
    uninstall,
};

/// The Lease of the operators of one cluster, in their namespace.
const LEASE: &str = "valv-operator";

/// Threads of the operator, and of a backup. Both wait far more than they compute there; two keep health alive
/// while one computes.
const THREADS: usize = 2;

/// How long reconciliations under way may take to finish. With the release of the Lease and the last answers
/// over HTTP it must stay below the pod's `terminationGracePeriodSeconds`: 40 there leaves room.
const GRACE: Duration = Duration::from_secs(20);

/// How long the last requests over HTTP may take.
const HTTP_GRACE: Duration = Duration::from_secs(3);

/// Time between two beats of the heart that `/livez` listens to.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How long a connection to the API server may take, so that a dead address does not use up a whole term.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer of the API server may be silent: longer than the longest silence of a healthy watch, which
/// the server ends after 290 s.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// Exit code of an operator that lost its Lease. The kubelet starts it again, as a follower.
const LOST_THE_LEASE: u8 = 3;

/// Journals for many care providers, each walled off, backed up and proven restorable
#[derive(Debug, Parser)]
#[command(name = "valv", version, about)]
struct Valv {
    /// How log lines look. They go to standard error
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: log::Format,

    /// Which log lines are written, e.g. `info,valv::tenant=debug`. Absent: `info`; none of commands for people
    #[arg(long, global = true, env = "VALV_LOG")]
    log_filter: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Cluster(InCluster),

    #[command(flatten)]
    People(plugin::Command),
}

/// What runs in the cluster.
#[derive(Debug, Subcommand)]
enum InCluster {
    /// Bring every tenant to what it asks for, for as long as this runs
    Operator(Operator),

    /// What the containers of a tenant run
    #[command(subcommand)]
    Agent(agent::Command),

    /// Bring the keys of unattended drills, for as long as this runs
    Keyholder(Keyholder),

    /// Try a bucket of anybody's as Valv uses one, and say whether it is as claimed. Exit code 0: it is; 1: it is not;
    /// 2: it could not be tried; 3: what was tried is, and not all was tried
    Conformance(Conformance),

    /// Stop the operator and let go of the tenants, which stay: run before the chart is removed
    Uninstall(Uninstall),
}

/// See how tenants are backed up and drilled, and take backups and drills now
#[derive(Debug, Parser)]
#[command(name = "kubectl-valv", bin_name = "kubectl valv", version, about)]
struct KubectlValv {
    #[command(subcommand)]
    command: plugin::Command,
}

#[derive(Args, Debug)]
struct Operator {
    /// The settings, a YAML file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// The namespace that the operator runs in
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,

    /// The name that the Lease shows while this process leads; a suffix makes it unique to the process
    #[arg(long, env = "POD_NAME")]
    identity: String,

    /// Where health and metrics are served
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
}

#[derive(Args, Debug)]
struct Keyholder {
    /// The namespace of the keys, in which it runs
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
}

#[derive(Args, Debug)]
struct Conformance {
    /// The file that names the bucket, four identities and what is claimed: docs/conformance.md
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The folder of PostgreSQL 17's programs. Absent: no database is backed up and restored, and the exit code says so
    #[arg(long, value_name = "DIR", env = "VALV_POSTGRES_PROGRAMS")]
    programs: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Uninstall {
    /// The namespace that the operator runs in
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,

    /// How many seconds the operator's pods have to go
    #[arg(long, default_value_t = 60)]
    patience_seconds: u32,
}

fn main() -> ExitCode {
    if is_plugin() {
        return people(&KubectlValv::parse().command, "off");
    }
    let Valv { log_format, log_filter, command } = Valv::parse();
    let command = match command {
        Command::People(command) => return people(&command, log_filter.as_deref().unwrap_or("off")),
        Command::Cluster(command) => command,
    };
    // What is tried is told line by line, at the end.
    let by_itself = if let InCluster::Conformance(_) = command { "off" } else { "info" };
    let log_filter = log_filter.as_deref().unwrap_or(by_itself);
    match log::start(log_format, log_filter).context("failed to start").and_then(|()| run(command)) {
        Ok(code) => code,
        Err(failure) => {
            let error = chain(failure.as_ref());
            // The log may be what failed.
            if tracing::enabled!(tracing::Level::ERROR) {
                error!(error, "failed");
            } else {
                eprintln!("{error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether this binary was started by the name under which kubectl finds it as a plugin.
fn is_plugin() -> bool {
    let name = env::args_os().next().map(PathBuf::from);
    name.as_deref().and_then(Path::file_stem).is_some_and(|name| name == "kubectl-valv")
}

/// Runs a command of people: errors are sentences on standard error, and the exit code says what came of it.
fn people(command: &plugin::Command, log_filter: &str) -> ExitCode {
    let run = || -> anyhow::Result<Result<plugin::Verdict, plugin::Error>> {
        log::start(log::Format::Text, log_filter).context("failed to start")?;
        choose_tls()?;
        let mut out = io::stdout();
        let screen = if out.is_terminal() { Screen::Terminal } else { Screen::Lines };
        let mut stdin = io::stdin();
        let input = if stdin.is_terminal() { Input::Terminal } else { Input::Stream(&mut stdin) };
        let look_every = plugin::LOOK_EVERY;
        let mut surroundings = Surroundings { input, out: &mut out, screen, now, look_every };
        Ok(one_thread()?.block_on(async {
            tokio::select! {
                ended = plugin::run(command, &mut surroundings) => ended,
                // What was asked for goes on in the cluster.
                _ = tokio::signal::ctrl_c() => Err(plugin::Error::Interrupted),
            }
        }))
    };
    let error = match run() {
        Ok(Ok(verdict)) => return ExitCode::from(verdict.exit_code()),
        // Whoever reads does not any more: there is nobody to tell.
        Ok(Err(error)) if plugin::is_closed_pipe(&error) => return ExitCode::from(plugin::COULD_NOT_ASK),
        Ok(Err(error)) => chain(&error),
        Err(error) => chain(error.as_ref()),
    };
    eprintln!("error: {error}");
    ExitCode::from(plugin::COULD_NOT_ASK)
}

fn choose_tls() -> anyhow::Result<()> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        bail!("failed to choose ring for TLS: something else was chosen before");
    }
    Ok(())
}

fn run(command: InCluster) -> anyhow::Result<ExitCode> {
    choose_tls()?;
    match command {
        InCluster::Operator(arguments) => {
            let runtime = several_threads()?;
            let code = runtime.block_on(operator(arguments));
            // Whatever still runs was given its time.
            runtime.shutdown_background();
            code
        }
        InCluster::Agent(command) => {
            let runtime = match &command {
                agent::Command::Backup(_)
                | agent::Command::Verify(_)
                | agent::Command::Copy(_)
                | agent::Command::Restore(_)
                | agent::Command::Judge(_) => several_threads()?,
                agent::Command::Install { .. } | agent::Command::Database(_) => one_thread()?,
            };
            let code = match runtime.block_on(agent::run(command, now)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    error!(error = chain(&error), "the agent failed");
                    ExitCode::from(error.exit_code())
                }
            };
            // A thread that reads or compresses does not keep a pod that ends.
            runtime.shutdown_background();
            Ok(code)
        }
        InCluster::Keyholder(arguments) => one_thread()?.block_on(async {
            let stop = asked_to_stop()?;
            keyholder::run(client().await?, arguments.namespace, stop).await;
            info!("stopped");
            Ok(ExitCode::SUCCESS)
        }),
        InCluster::Conformance(arguments) => {
            let report = match several_threads()?.block_on(conformance(&arguments)) {
                Ok(report) => report,
                Err(failure) => {
                    eprintln!("error: {}", chain(failure.as_ref()));
                    return Ok(ExitCode::from(plugin::COULD_NOT_ASK));
                }
            };
            println!("{}", report.to_text());
            Ok(ExitCode::from(report.exit_code()))
        }
        InCluster::Uninstall(arguments) => one_thread()?.block_on(async {
            let patience = Duration::from_secs(arguments.patience_seconds.into());
            let report = uninstall::run(&client().await?, &arguments.namespace, patience).await?;
            print!("{report}");
            Ok(ExitCode::SUCCESS)
        }),
    }
}

async fn conformance(arguments: &Conformance) -> anyhow::Result<conformance::table::Report> {
    let bucket = conformance::file::read(&arguments.file)?;
    let valv = env::current_exe().context("failed to find this program")?;
    let programs = arguments.programs.clone().map(|postgres| conformance::agent::Programs {
        valv,
        postgres,
        scratch: env::temp_dir(),
    });
    let stop = asked_to_stop()?;
    Ok(conformance::run(&bucket, programs.as_ref(), stop, now).await?)
}

fn several_threads() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("valv")
        .enable_all()
        .build()
        .context("failed to start the runtime")
}

fn one_thread() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("failed to start the runtime")
}

async fn operator(arguments: Operator) -> anyhow::Result<ExitCode> {
    let stop = asked_to_stop()?;
    let settings = Arc::new(read_settings(&arguments.config, &arguments.namespace)?);
    let client = client().await?;
    let identity = format!("{}_{:08x}", arguments.identity, rand::random::<u32>());
    let elector =
        Elector::new(client.clone(), &arguments.namespace, LEASE, &identity, Timing::default(), now);
    let leadership = elector.leadership();
    let metrics = Arc::new(Metrics::new(leadership.clone()));
    let health = Arc::new(Health::new(leadership.clone()));

    let listener = http::listen(arguments.listen).await?;
    let (stop_serving, asked) = oneshot::channel::<()>();
    let mut server =
        tokio::spawn(http::serve(listener, health.clone(), metrics.clone(), async { drop(asked.await) }));
    tokio::spawn(beat(health.clone()));
    info!(
        version = env!("CARGO_PKG_VERSION"),
        lease.identity = identity,
        address = %arguments.listen,
        "started"
    );

    let runtime = controllers::Runtime {
        client,
        settings,
        leadership,
        metrics,
        now,
        health,
        breakers: Breakers::default(),
        ledger: valv::backup::ledger::Ledger::default(),
    };
    let term = lease::lead(elector, stop, GRACE, |stop| controllers::run(runtime, stop));
    let end = tokio::select! {
        end = term => end,
        served = &mut server => {
            served.context("failed to keep the server of health and metrics running")??;
            bail!("the server of health and metrics ended by itself");
        }
    };

    // Last of all, so that whoever asks meanwhile is told that this process is not ready.
    drop(stop_serving);
    if timeout(HTTP_GRACE, server).await.is_err() {
        warn!("some requests over http were not answered in time");
    }
    match end {
        End::Stopped => {
            info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        End::StoppedUnfinished => {
            warn!("stopped before all reconciliations were done; the lease is left to expire");
            Ok(ExitCode::SUCCESS)
        }
        End::Lost(lost) => {
            let why = match &lost {
                Lost::TakenOver { .. } => "the lease names another",
                Lost::NotRenewed { .. } => "the lease could not be renewed in time",
            };
            warn!(reason = why, ?lost, "lost the leadership; ending, to start again as a follower");
            Ok(ExitCode::from(LOST_THE_LEASE))
        }
        End::WorkEnded(Err(error)) => Err(error).context("failed to run the controllers"),
        End::WorkEnded(Ok(())) => bail!("the controllers ended though nobody asked them to"),
    }
}

fn read_settings(path: &Path, namespace: &str) -> anyhow::Result<Settings> {
    let yaml = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    Settings::parse(&yaml, namespace).with_context(|| format!("failed to use {}", path.display()))
}

/// The client of everything.
///
/// It resends nothing by itself, as kube's would after 429, 503 and 504: a write that is resent seconds after
/// the fence let it pass may be that of a leader no more. Reconciliations have a backoff of their own.
async fn client() -> anyhow::Result<Client> {
    let mut config = Config::infer().await.context("failed to find the cluster")?;
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    Client::try_from(config).context("failed to make a client of the cluster")
}

/// Completes at the first SIGTERM (the kubelet) or SIGINT (a terminal).
fn asked_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => info!("asked to stop by SIGTERM"),
            _ = interrupt.recv() => info!("asked to stop by SIGINT"),
        }
    })
}

async fn beat(health: Arc<Health>) {
    loop {
        health.beat();
        sleep(HEARTBEAT).await;
    }
}

/// The clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_plugin_has_the_commands_of_people_and_valv_has_them_too() {
        KubectlValv::command().debug_assert();
        Valv::command().debug_assert();

        for line in [
            "status",
            "status ada -o json --context x",
            "backup now ada --wait",
            "backup watch ada",
            "backup cancel ada ada-x7k2p",
            "drill now ada --backup 20261122T010000Z --store helsinki",
            "drill list ada --kubeconfig file",
            "keys prove ada",
        ] {
            let words = || line.split(' ');
            assert!(
                KubectlValv::try_parse_from(["kubectl-valv"].into_iter().chain(words())).is_ok(),
                "{line}"
            );
            assert!(Valv::try_parse_from(["valv"].into_iter().chain(words())).is_ok(), "{line}");
        }
        assert!(KubectlValv::try_parse_from(["kubectl-valv", "operator"]).is_err());
        assert!(
            KubectlValv::try_parse_from(["kubectl-valv", "drill", "now", "ada", "--backup", "oldest"])
                .is_err()
        );
    }
}
