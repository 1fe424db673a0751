//! `bench`: the operator's memory and speed, with one running tenant and with many that rest.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use harness::helm::Helm;
use harness::manifest::SMALLEST;
use harness::operator::Operator;
use harness::ownership::sweep;
use harness::test::{block_on, unique, world};
use harness::{Seen, Tenant, World, eventually};
use serde_json::json;
use tokio::time::{Instant, sleep};
use valv_crds::condition::{ConditionType, Reason};

/// What the issue asks for: the operator's memory with 1 running and 50 suspended tenants is below it.
const MEMORY_TARGET_MEBIBYTES: f64 = 60.0;

/// Tenants that are applied, or touched, at the same time: more than the operator works on at once.
const AT_ONCE: usize = 16;

/// Over which time an idle operator's processor time is measured.
const IDLE: Duration = Duration::from_secs(30);

/// How often every tenant is touched, to give the operator more than it can do at once.
const ROUNDS: usize = 10;

/// Without a reconciliation for this long the operator has done what there was.
const DONE: Duration = Duration::from_secs(2);

/// What was touched last is looked at by then.
const DEADLINE: Duration = Duration::from_secs(120);

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
    for name in sweep(world).await? {
        println!("  … took away {name}, which a run before left");
    }
    let mut tenants = vec![];
    let measured = measure(world, suspended, &mut tenants).await;
    println!("  … taking {} tenants away", tenants.len());
    let ends = join_all(tenants.iter().map(Tenant::destroy)).await;
    let Measured { rows, mebibytes } = measured?;
    for (what, value) in rows {
        println!("  {what:64} {value:>14}");
    }
    ends.into_iter().collect::<Result<Vec<()>>>()?;
    ensure!(
        mebibytes < MEMORY_TARGET_MEBIBYTES,
        "the operator needs {mebibytes:.1} MiB: the target is below {MEMORY_TARGET_MEBIBYTES} MiB"
    );
    Ok(())
}

/// What was measured, and the figure that has a target: the operator's memory with all tenants.
struct Measured {
    rows: Vec<(String, String)>,
    mebibytes: f64,
}

async fn measure(world: &'static World, suspended: usize, tenants: &mut Vec<Tenant>) -> Result<Measured> {
    let operator = Operator::of(world);
    let mut rows = vec![];
    let mut row = |what: &str, value: String| rows.push((what.to_owned(), value));

    println!("  … one tenant comes up");
    let running = Tenant::new(world, &unique("bench"), SMALLEST)?;
    tenants.push(running.clone());
    row("one tenant, applied until ready", seconds(running.up().await?));
    row("memory of the leader, 1 running tenant", format!("{:.1} MiB", mebibytes(operator).await?));

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
    let memory = mebibytes(operator).await?;
    row(
        &format!("memory of the leader, 1 running and {suspended} suspended"),
        format!("{memory:.1} MiB (target: below {MEMORY_TARGET_MEBIBYTES})"),
    );

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
    let touches = (ROUNDS * tenants.len()) as f64 / begun.elapsed().as_secs_f64();
    let (last, working) = counted_to_the_end(operator, begun).await?;
    let done = last - count;
    let busy = operator.metric(TIME).await? - time;
    row(
        "reconciliations a second, by the operator's counter",
        format!("{:.0}", done / working.as_secs_f64()),
    );
    row("… while this bench touched tenants, a second", format!("{touches:.0}"));
    row(
        "one reconciliation that finds nothing to do, in this crowd",
        format!("{:.1} ms", 1000.0 * busy / done),
    );
    Ok(Measured { rows, mebibytes: memory })
}

/// Waits until the operator's counter of reconciliations stands still. Returns it, and how long after `begun` it
/// moved last.
async fn counted_to_the_end(operator: Operator, begun: Instant) -> Result<(f64, Duration)> {
    let (mut count, mut moved) = (reconciled(operator).await?, Instant::now());
    eventually("the operator has done what there was", DEADLINE, async || {
        let now = reconciled(operator).await?;
        if now > count {
            (count, moved) = (now, Instant::now());
        }
        Ok(Seen::when((moved.elapsed() >= DONE).then_some(()), now))
    })
    .await?;
    Ok((count, moved - begun))
}

/// How long all reconciliations took together.
const TIME: &str = "valv_reconcile_duration_seconds_sum";

async fn reconciled(operator: Operator) -> Result<f64> {
    operator.metric("valv_reconcile_total").await
}

async fn mebibytes(operator: Operator) -> Result<f64> {
    Ok(operator.metric("process_resident_memory_bytes").await? / f64::from(1 << 20))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f32())
}
