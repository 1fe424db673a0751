//! What was seen, for the end.

use std::fmt::Display;
use std::time::Duration;

/// A row for each thing that was shown.
#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 3]>,
}

impl Table {
    /// Adds a row.
    pub fn add(&mut self, what: &str, result: impl Display, took: Duration) {
        let took = match took {
            took if took < Duration::from_secs(1) => format!("{} ms", took.as_millis()),
            took => format!("{:.1} s", took.as_secs_f32()),
        };
        self.rows.push([what.to_owned(), result.to_string(), took]);
    }

    /// Prints it.
    pub fn print(&self) {
        if self.rows.is_empty() {
            return;
        }
        let head = ["what", "result", "took"].map(str::to_owned);
        let all = || [&head].into_iter().chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths = [width(0), width(1), width(2)];
        println!();
        for row in all() {
            println!("  {:1$}   {2:3$}   {4:>5$}", row[0], widths[0], row[1], widths[1], row[2], widths[2]);
        }
    }
}
