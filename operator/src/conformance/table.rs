//! Verdicts, and how they are shown. Pure.

use crate::plugin::table::table;

/// What a line comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it must be, or as it is claimed.
    Holds,
    /// It is not.
    Fails,
    /// Nothing is claimed of it.
    Told,
}

impl From<bool> for Verdict {
    /// Whether it holds.
    fn from(holds: bool) -> Self {
        if holds { Self::Holds } else { Self::Fails }
    }
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Of which kind it is.
    pub area: &'static str,
    /// What was tried.
    pub what: String,
    /// What it should come to; absent: nothing is claimed of it.
    pub wanted: Option<String>,
    /// What it came to.
    pub seen: String,
    /// What that means.
    pub verdict: Verdict,
}

impl Line {
    /// Something that must be so with every store.
    pub fn must(
        area: &'static str,
        what: impl Into<String>,
        verdict: impl Into<Verdict>,
        seen: impl Into<String>,
    ) -> Self {
        Self::claimed(area, what, "Yes", verdict, seen)
    }

    /// Something that must be so, and is not.
    pub fn wrong(area: &'static str, what: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::must(area, what, Verdict::Fails, seen)
    }

    /// Something that is claimed.
    pub fn claimed(
        area: &'static str,
        what: impl Into<String>,
        wanted: impl Into<String>,
        verdict: impl Into<Verdict>,
        seen: impl Into<String>,
    ) -> Self {
        Self {
            area,
            what: what.into(),
            wanted: Some(wanted.into()),
            seen: seen.into(),
            verdict: verdict.into(),
        }
    }

    /// Something of which nothing is claimed.
    pub fn told(area: &'static str, what: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { area, what: what.into(), wanted: None, seen: seen.into(), verdict: Verdict::Told }
    }
}

/// All that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In the order in which it was tried.
    pub lines: Vec<Line>,
}

impl Report {
    /// What is not as it must be, or as it is claimed.
    pub fn failures(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.verdict == Verdict::Fails)
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .lines
            .iter()
            .map(|line| {
                let verdict = match line.verdict {
                    Verdict::Holds => "ok",
                    Verdict::Fails => "WRONG",
                    Verdict::Told => "-",
                };
                let wanted = line.wanted.clone().unwrap_or_else(|| "-".to_owned());
                let seen = line.seen.replace('\n', " ");
                vec![verdict.to_owned(), line.area.to_owned(), line.what.clone(), wanted, seen]
            })
            .collect();
        let table = table(&["VERDICT", "AREA", "WHAT", "WANTED", "SEEN"], &rows);
        let failures = self.failures().count();
        let tried = self.lines.iter().filter(|line| line.verdict != Verdict::Told).count();
        let end = match failures {
            0 => format!("all {tried} are as they must be, or as claimed"),
            _ => format!("{failures} of {tried} are not as they must be, or as claimed"),
        };
        format!("{table}\n\n{end}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_fails_is_counted_and_what_nobody_claims_is_not() {
        let report = Report {
            lines: vec![
                Line::must("archive", "it is written", true, "3 segments"),
                Line::claimed("capability", "versioning", "Yes", false, "No"),
                Line::told("capability", "tls", "Yes: TLSv1_3"),
            ],
        };

        let text = report.to_text();

        assert_eq!(report.failures().count(), 1);
        assert!(text.ends_with("1 of 2 are not as they must be, or as claimed"), "{text}");
        assert!(text.contains("WRONG    capability  versioning"), "{text}");
    }
}
