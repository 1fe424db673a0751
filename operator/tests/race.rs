//! A race: this pipeline against pgBackRest, on the same database, to the same store, on the same machine, in turns.
//!
//! `make race` (`SIZE=4` for 4 GiB; `ROUNDS=2` for fewer rounds, 0 for only the one whose time does not count). What it
//! measures, and what it found: docs/race.md. Needs root, `VALV_POSTGRES_ROOT` with pgBackRest in it, `VALV_VERSITYGW` and `VALV_JOURNAL`.
//!
//! Each of the two has a bucket of its own in the one store. Whatever was restored is started and compared, row by row, with
//! what was backed up; that is not part of the time. It fails if what does not depend on the machine is not as promised: the
//! memory that is taken, and the bytes that are stored. What time it takes is told.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that fails ends by panicking")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what it is for")]
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
#[path = "race/restored.rs"]
mod restored;
#[path = "archive/store.rs"]
#[allow(dead_code, reason = "the tests of the archive use the rest")]
mod store;
#[path = "race/table.rs"]
mod table;
#[path = "race/valv.rs"]
mod valv_pipeline;

use std::{env, process::ExitCode, sync::Arc};

use self::{
    journal::Journal,
    pgbackrest::PgBackRest,
    restored::Restored,
    store::{Keeps, Store},
    table::{Program, Table, Work},
    valv_pipeline::Valv,
};

/// Rounds whose time counts, after one whose time does not: each does all four, every other one beginning with the other program.
const ROUNDS: usize = 4;

fn main() -> ExitCode {
    let gibibytes: u64 = env::var("SIZE").map_or(1, |size| size.parse().expect("SIZE is a number of GiB"));
    let rounds = env::var("ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("ROUNDS is a number"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        println!("filling a journal's database with {gibibytes} GiB");
        let journal = Journal::of(gibibytes).await;
        println!("it has {} MiB, {} rows", journal.mebibytes().await, journal.count());
        let store = Arc::new(Store::start(Keeps::Latest));
        let mut valv = Valv::new(store.clone());
        let rest = PgBackRest::new(store, &journal).await;
        let (mut table, mut restored) = (Table::default(), Restored::default());
        for round in 0..=rounds {
            match round {
                0 => println!("a round whose time does not count, for memory is looked at often"),
                round => println!("round {round} of {rounds}"),
            }
            for turn in 0..2 {
                let program = if (round + turn) % 2 == 0 { Program::PgBackRest } else { Program::Valv };
                let run = match program {
                    Program::Valv => valv.back_up(round, &journal).await,
                    Program::PgBackRest => rest.back_up(round, &journal).await,
                };
                table.note(round, program, Work::Backup, run);
                let (run, pod) = match program {
                    Program::Valv => valv.restore(round, &journal).await,
                    Program::PgBackRest => rest.restore(round, &journal).await,
                };
                table.note(round, program, Work::Restore, run);
                restored.keep_files_of(pod);
            }
        }
        if rounds == 0 {
            return ExitCode::SUCCESS;
        }
        let broken = table.print();
        for promise in &broken {
            eprintln!("FAILED: {promise} is more than promised, and that is not the machine's doing");
        }
        if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    })
}
