//! The table, and whether the targets were met.

use std::time::Duration;

use super::gauge::Run;

/// All runs.
#[derive(Default)]
pub struct Table {
    runs: Vec<(&'static str, &'static str, Run)>,
}

impl Table {
    pub fn note(&mut self, program: &'static str, what: &'static str, run: Run) {
        println!("    {program} {what}: {}", line(&run));
        self.runs.push((program, what, run));
    }

    /// The median of each figure.
    fn median(&self, program: &str, what: &str) -> Run {
        let runs: Vec<&Run> = self
            .runs
            .iter()
            .filter(|(of, kind, _)| (*of, *kind) == (program, what))
            .map(|(_, _, run)| run)
            .collect();
        let middle = |of: fn(&Run) -> u64| {
            let mut figures: Vec<u64> = runs.iter().map(|run| of(run)).collect();
            figures.sort_unstable();
            figures[figures.len() / 2]
        };
        let time = |of: fn(&Run) -> u64| Duration::from_micros(middle(of));
        Run {
            wall: time(|run| run.wall.as_micros() as u64),
            processor: time(|run| run.processor.as_micros() as u64),
            server: time(|run| run.server.as_micros() as u64),
            most_bytes: middle(|run| run.most_bytes),
            stored: middle(|run| run.stored),
        }
    }

    pub fn print(&self) {
        println!("\nmedians                 wall s   processor s  (server s)  most MiB  stored MiB");
        for what in ["backup", "restore"] {
            for program in ["valv", "pgbackrest"] {
                println!("{what:<8} {program:<12} {}", line(&self.median(program, what)));
            }
        }
        let of = |program, what| self.median(program, what);
        let ratio =
            |what, figure: fn(&Run) -> f64| figure(&of("valv", what)) / figure(&of("pgbackrest", what));
        let wall: fn(&Run) -> f64 = |run| run.wall.as_secs_f64();
        let stored: fn(&Run) -> f64 = |run| run.stored as f64;
        let most = of("valv", "backup").most_bytes.max(of("valv", "restore").most_bytes) >> 20;
        let targets = [
            ("backup, wall", ratio("backup", wall), 1.0),
            ("backup, stored bytes", ratio("backup", stored), 1.05),
            ("restore, wall", ratio("restore", wall), 0.8),
            ("memory, of 128 MiB", most as f64 / 128.0, 1.0),
        ];
        println!();
        for (name, found, target) in targets {
            let verdict = if found <= target { "met" } else { "MISSED" };
            println!("{name:<22} {found:.2} x (target {target:.2} x): {verdict}");
        }
    }
}

fn line(run: &Run) -> String {
    format!(
        "{:>10.1} {:>12.1} {:>11.1} {:>9} {:>11}",
        run.wall.as_secs_f64(),
        run.processor.as_secs_f64(),
        run.server.as_secs_f64(),
        run.most_bytes >> 20,
        run.stored >> 20
    )
}
