//! The table, and whether the targets were met.

use std::{fmt, time::Duration};

/// Who races.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Valv,
    PgBackRest,
}

/// At what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Backup,
    Restore,
}

/// What Valv promises to take at most, in memory.
const MEMORY_BYTES: f64 = 128.0 * 1024.0 * 1024.0;

/// One run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    pub wall: Duration,
    pub processor: Duration,
    /// The database's server's, while it ran.
    pub server: Duration,
    /// The store's, while it ran.
    pub store: Duration,
    /// The most that all its processes had at a time, shared pages counted once.
    pub most_bytes: u64,
    /// The most that its largest process had, by the kernel's own count.
    pub largest_bytes: u64,
    /// Bytes in the store, for a backup.
    pub stored: u64,
}

/// What a target is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Another machine, or a busy one, has another answer: it is told.
    Told,
    /// It does not depend on the machine: the race fails if it is missed.
    Promised,
}

/// All runs. Of round 0 only the memory counts, which is looked at more often there.
#[derive(Default)]
pub struct Table {
    runs: Vec<(usize, Program, Work, Run)>,
}

impl Table {
    /// Notes a run.
    pub fn note(&mut self, round: usize, program: Program, work: Work, run: Run) {
        if round == 0 && (program, work) == (Program::PgBackRest, Work::Backup) {
            println!("{:<20} {HEADINGS}", "");
        }
        println!("{:<20} {}", format!("{program} {work}"), line(&run));
        self.runs.push((round, program, work, run));
    }

    /// Those whose time counts.
    fn of(&self, program: Program, work: Work) -> impl Iterator<Item = &Run> {
        let counts = move |run: &&(usize, Program, Work, Run)| run.0 > 0 && (run.1, run.2) == (program, work);
        self.runs.iter().filter(counts).map(|(.., run)| run)
    }

    /// The most of its memory that was seen in any round.
    fn memory(&self, program: Program, work: Work) -> f64 {
        let runs = self.runs.iter().filter(|run| (run.1, run.2) == (program, work));
        runs.map(|(.., run)| run.most_bytes.max(run.largest_bytes) as f64).fold(0.0, f64::max)
    }

    /// The median of each figure.
    fn middle(&self, program: Program, work: Work) -> Run {
        let figure = |of: fn(&Run) -> f64| median(self.of(program, work).map(of).collect());
        let time = |of: fn(&Run) -> f64| Duration::from_secs_f64(figure(of));
        Run {
            wall: time(|run| run.wall.as_secs_f64()),
            processor: time(|run| run.processor.as_secs_f64()),
            server: time(|run| run.server.as_secs_f64()),
            store: time(|run| run.store.as_secs_f64()),
            most_bytes: figure(|run| run.most_bytes as f64) as u64,
            largest_bytes: figure(|run| run.largest_bytes as f64) as u64,
            stored: figure(|run| run.stored as f64) as u64,
        }
    }

    /// Valv's figure by pgBackRest's, in each round.
    fn ratios(&self, work: Work, figure: fn(&Run) -> f64) -> Vec<f64> {
        self.of(Program::Valv, work)
            .zip(self.of(Program::PgBackRest, work))
            .map(|(valv, rest)| figure(valv) / figure(rest))
            .collect()
    }

    /// Prints what was found, and returns the names of the promises that were not kept.
    pub fn print(&self) -> Vec<&'static str> {
        println!("\n{:<20} {HEADINGS}", "medians");
        for work in [Work::Backup, Work::Restore] {
            for program in [Program::Valv, Program::PgBackRest] {
                println!("{:<20} {}", format!("{work} {program}"), line(&self.middle(program, work)));
            }
        }
        let wall = |run: &Run| run.wall.as_secs_f64();
        let memory =
            [Work::Backup, Work::Restore].map(|work| self.memory(Program::Valv, work) / MEMORY_BYTES);
        let targets = [
            ("backup, wall", self.ratios(Work::Backup, wall), 1.0, Kind::Told),
            (
                "backup, bytes stored",
                self.ratios(Work::Backup, |run| run.stored as f64),
                1.05,
                Kind::Promised,
            ),
            ("restore, wall", self.ratios(Work::Restore, wall), 0.8, Kind::Told),
            ("backup, of 128 MiB", vec![memory[0]], 1.0, Kind::Promised),
            ("restore, of 128 MiB", vec![memory[1]], 1.0, Kind::Promised),
        ];
        println!("\n{:<22} {:>6} {:>14} {:>14}", "valv by pgbackrest", "ratio", "rounds", "target");
        let mut broken = vec![];
        for (name, ratios, target, kind) in targets {
            let found = median(ratios.clone());
            let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
            let most = ratios.iter().copied().fold(0.0, f64::max);
            // What is no number was not measured, and is not met.
            let is_met = found <= target;
            let verdict = if is_met { "met" } else { "MISSED" };
            if !is_met && kind == Kind::Promised {
                broken.push(name);
            }
            let rounds = format!("{least:.2} to {most:.2}");
            println!(
                "{name:<22} {found:>6.2} {rounds:>14} {:>14}  {verdict}",
                format!("at most {target:.2}")
            );
        }
        broken
    }
}

/// Of an even number, the mean of the two in the middle.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 { figures[middle] } else { f64::midpoint(figures[middle - 1], figures[middle]) }
}

const HEADINGS: &str = "  wall s  processor s  server s  store s  memory MiB  largest MiB  stored MiB";

fn line(run: &Run) -> String {
    format!(
        "{:>8.2} {:>12.2} {:>9.2} {:>8.2} {:>11} {:>12} {:>11}",
        run.wall.as_secs_f64(),
        run.processor.as_secs_f64(),
        run.server.as_secs_f64(),
        run.store.as_secs_f64(),
        run.most_bytes >> 20,
        run.largest_bytes >> 20,
        run.stored >> 20
    )
}

impl fmt::Display for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Valv => "valv",
            Self::PgBackRest => "pgbackrest",
        })
    }
}

impl fmt::Display for Work {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
        })
    }
}
