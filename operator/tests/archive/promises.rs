//! What fails a race (`tests/race.rs`), which has no tests of its own: it is one program.

use std::time::Duration;

use crate::race_table::{Program, Run, Table, Work};

const MEBIBYTE: u64 = 1 << 20;

/// What is not kept when a run of Valv's took that much memory, and stored so many bytes for 100 of the other's.
fn broken(most_mebibytes: u64, largest_mebibytes: u64, stored: u64) -> Vec<&'static str> {
    let mut table = Table::default();
    for work in [Work::Backup, Work::Restore] {
        let other = Run { wall: Duration::from_secs(1), stored: 100, ..Run::default() };
        let ours = Run {
            wall: Duration::from_secs(9),
            most_bytes: most_mebibytes * MEBIBYTE,
            largest_bytes: largest_mebibytes * MEBIBYTE,
            stored,
            ..Run::default()
        };
        table.note(1, Program::PgBackRest, work, other);
        table.note(1, Program::Valv, work, ours);
    }
    table.print()
}

#[test]
fn memory_and_bytes_above_what_is_promised_fail_a_race_and_time_does_not() {
    let memory = ["backup, of 128 MiB", "restore, of 128 MiB"];

    assert_eq!(broken(128, 128, 105), [""; 0], "nine times slower, and told only");
    assert_eq!(broken(129, 1, 100), memory);
    assert_eq!(broken(1, 129, 100), memory, "one process had it, between two looks");
    assert_eq!(broken(1, 1, 106), ["backup, bytes stored"]);
}
