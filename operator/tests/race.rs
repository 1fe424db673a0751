//! A race: this pipeline against pgBackRest, on the same database, to the same store, on the same machine, in turns.
//!
//! `make race` (`SIZE=4` for 4 GiB). Needs root, `VALV_POSTGRES_ROOT` with pgBackRest in it, `VALV_VERSITYGW` and
//! `VALV_JOURNAL`. Both compress with zstd at level 3, encrypt, speak TLS, and use two processes or workers for it.
//!
//! What is counted: the time by the wall; the processor time of the program and all that it starts, and beside it
//! that of the database's server (pgBackRest reads the files itself, this pipeline lets the server send them); the
//! most memory that all processes of the program had at a time (Pss: shared pages are counted once); and the bytes
//! in the store.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that fails ends by panicking")]
#![allow(clippy::print_stdout, reason = "the table is what it is for")]
#![allow(clippy::disallowed_methods, reason = "its settings are the environment's")]

#[path = "archive/backup.rs"]
#[allow(dead_code, reason = "the tests of the archive use the rest")]
mod backup;
#[path = "race/gauge.rs"]
mod gauge;
#[path = "race/journal.rs"]
mod journal;
#[path = "race/pgbackrest.rs"]
mod pgbackrest;
#[path = "agent/pod.rs"]
#[allow(dead_code, reason = "the tests of the agent use the rest")]
mod pod;
#[path = "archive/store.rs"]
#[allow(dead_code, reason = "the tests of the archive use the rest")]
mod store;
#[path = "race/table.rs"]
mod table;
#[path = "race/valv.rs"]
mod valv_pipeline;

use std::env;

use self::{
    gauge::Gauge,
    journal::Journal,
    pgbackrest::PgBackRest,
    store::{Keeps, Store},
    table::Table,
    valv_pipeline::Valv,
};

/// Rounds: each does all four, beginning with another program.
const ROUNDS: usize = 3;

fn main() {
    let gibibytes: u64 = env::var("SIZE").map_or(1, |size| size.parse().expect("SIZE is a number of GiB"));
    let rounds = env::var("ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("ROUNDS is a number"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        println!("filling a journal's database with {gibibytes} GiB");
        let journal = Journal::of(gibibytes).await;
        println!("it has {} MiB", journal.mebibytes().await);
        let (ours, theirs) = (Store::start(Keeps::Latest), Store::start(Keeps::Latest));
        let mut valv = Valv::new(ours);
        let rest = PgBackRest::new(theirs, &journal).await;
        let mut table = Table::default();
        for round in 0..rounds {
            println!("round {} of {rounds}", round + 1);
            for turn in 0..2 {
                let gauge = Gauge::of(&journal);
                if (round + turn) % 2 == 0 {
                    table.note("valv", "backup", valv.back_up(&journal, &gauge).await);
                    table.note("valv", "restore", valv.restore(&journal, &gauge).await);
                } else {
                    table.note("pgbackrest", "backup", rest.back_up(&journal, &gauge).await);
                    table.note("pgbackrest", "restore", rest.restore(&journal, &gauge).await);
                }
            }
        }
        table.print();
    });
}
