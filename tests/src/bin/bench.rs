//! `bench`: the operator's memory and speed, with one running tenant and with many that rest.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use harness::helm::Helm;
use harness::manifest::SMALLEST;
use harness::operator::Operator;
use harness::test::{block_on, unique, world};
use harness::{Tenant, World};
use serde_json::json;
use tokio::time::{Instant, sleep};
use valv_crds::condition::{ConditionType, Reason};

/// Tenants that are applied, or touched, at the same time.
const AT_ONCE: usize = 8;

/// Over which time an idle operator's processor time is measured.
const IDLE: Duration = Duration::from_secs(30);

/// How often every tenant is touched, to measure how many reconciliations a second there can be.
const ROUNDS: usize = 10;

/// Measures the operator with 1 running and many suspended tenants, and takes them away again
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Tenants that are suspended
    #[arg(long, default_value_t = 50)]
    suspended: usize,
}

fn main() -> ExitCode {
    let Arguments { suspended } = Arguments::parse();
    match block_on(bench(suspended)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(suspended: usize) -> Result<()> {
    let world = world().await?;
    Helm::of(world).install(&json!({})).await?;
    Operator::of(world).is_ready().await?;
    let mut tenants = vec![];
    let measured = measure(world, suspended, &mut tenants).await;
    println!("  … taking {} tenants away", tenants.len());
    let ends = join_all(tenants.iter().map(Tenant::destroy)).await;
    for (what, value) in measured? {
        println!("  {what:64} {value:>14}");
    }
    ends.into_iter().collect::<Result<Vec<()>>>().map(drop)
}

/// What was measured, row by row.
type Rows = Vec<(String, String)>;

async fn measure(world: &'static World, suspended: usize, tenants: &mut Vec<Tenant>) -> Result<Rows> {
    let operator = Operator::of(world);
    let mut rows = Rows::new();
    let mut row = |what: &str, value: String| rows.push((what.to_owned(), value));

    println!("  … one tenant comes up");
    let running = Tenant::new(world, &unique("bench"), SMALLEST)?;
    tenants.push(running.clone());
    row("one tenant, applied until ready", seconds(running.up().await?));
    row("memory of the leader, 1 running tenant", mebibytes(operator).await?);

    println!("  … {suspended} suspended tenants");
    let resting: Vec<_> = (0..suspended)
        .map(|_| Tenant::new(world, &unique("bench"), SMALLEST)?.with("suspended: true"))
        .collect::<Result<_>>()?;
    tenants.extend(resting.clone());
    let begun = Instant::now();
    stream::iter(&resting).map(Tenant::apply).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    stream::iter(&resting)
        .map(|tenant| tenant.says(ConditionType::Ready, "False", Reason::Suspended))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    row(&format!("{suspended} suspended tenants, applied until all of them rest"), seconds(begun.elapsed()));
    row(&format!("memory of the leader, 1 running and {suspended} suspended"), mebibytes(operator).await?);

    println!("  … an idle operator, for {} s", IDLE.as_secs());
    let before = operator.metric("process_cpu_seconds_total").await?;
    // A window, not a wait: what an operator costs that has nothing to do.
    sleep(IDLE).await;
    let used = operator.metric("process_cpu_seconds_total").await? - before;
    row("processor time of an idle leader", format!("{:.2} %", 100.0 * used / IDLE.as_secs_f64()));

    println!("  … every tenant touched {ROUNDS} times");
    let (count, time) = (reconciled(operator).await?, operator.metric(TIME).await?);
    let begun = Instant::now();
    for round in 0..ROUNDS {
        let round = round.to_string();
        let touches = tenants.iter().map(|tenant| tenant.annotate("valv.eu/bench", Some(&round)));
        stream::iter(touches).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    }
    let touched = begun.elapsed();
    let done = reconciled(operator).await? - count;
    let busy = operator.metric(TIME).await? - time;
    row("reconciliations a second, as touched by this bench", format!("{:.0}", done / touched.as_secs_f64()));
    row("one reconciliation that finds nothing to do", format!("{:.1} ms", 1000.0 * busy / done));
    Ok(rows)
}

/// How long all reconciliations took together.
const TIME: &str = "valv_reconcile_duration_seconds_sum";

async fn reconciled(operator: Operator) -> Result<f64> {
    operator.metric("valv_reconcile_total").await
}

async fn mebibytes(operator: Operator) -> Result<String> {
    let bytes = operator.metric("process_resident_memory_bytes").await?;
    Ok(format!("{:.1} MiB", bytes / f64::from(1 << 20)))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f32())
}
