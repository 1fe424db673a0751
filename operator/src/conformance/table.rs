//! Verdicts, and how they are shown. Pure.

use crate::plugin::table::table;

/// Something is not as it must be, or as it is claimed.
const NOT_AS_CLAIMED: u8 = 1;

/// What was tried is as it must be, and not all was tried. Not 2: that is for what could not be tried at all.
const NOT_ALL_TRIED: u8 = 3;

/// What a line comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it must be, or as it is claimed.
    Holds,
    /// It is not.
    Fails,
    /// Nothing is claimed of it.
    Told,
    /// It could have been tried, and was not.
    Untried,
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

    /// Something that must be so, and was not tried.
    pub fn untried(area: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::must(area, what, Verdict::Untried, why)
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
        self.with(Verdict::Fails)
    }

    /// What was not tried.
    pub fn untried(&self) -> impl Iterator<Item = &Line> {
        self.with(Verdict::Untried)
    }

    fn with(&self, verdict: Verdict) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.verdict == verdict)
    }

    /// What the process should end with: 0 only if all was tried, and is as it must be.
    pub fn exit_code(&self) -> u8 {
        let (fails, untried) = (self.failures().next().is_some(), self.untried().next().is_some());
        if fails {
            NOT_AS_CLAIMED
        } else if untried {
            NOT_ALL_TRIED
        } else {
            0
        }
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
                    Verdict::Untried => "NOT TRIED",
                };
                let wanted = line.wanted.clone().unwrap_or_else(|| "-".to_owned());
                let seen = line.seen.replace('\n', " ");
                vec![verdict.to_owned(), line.area.to_owned(), line.what.clone(), wanted, seen]
            })
            .collect();
        let table = table(&["VERDICT", "AREA", "WHAT", "WANTED", "SEEN"], &rows);
        let (failures, untried) = (self.failures().count(), self.untried().count());
        let tried = self.with(Verdict::Holds).count() + failures;
        let end = match failures {
            0 => format!("all {tried} are as they must be, or as claimed"),
            _ => format!("{failures} of {tried} are not as they must be, or as claimed"),
        };
        let end = match untried {
            0 => end,
            _ => format!("{end}; not tried: {untried}"),
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
        assert_eq!(report.exit_code(), 1);
    }

    #[test]
    fn what_was_not_tried_is_no_success() {
        let tried = Line::must("archive", "it is written", true, "3 segments");
        let untried = Line::untried("backup", "a real PostgreSQL is backed up", "not tried");
        let mut report = Report { lines: vec![tried] };
        assert_eq!(report.exit_code(), 0);

        report.lines.push(untried);

        let text = report.to_text();
        assert_eq!((report.exit_code(), report.failures().count()), (3, 0));
        assert!(text.ends_with("all 1 are as they must be, or as claimed; not tried: 1"), "{text}");
        assert!(text.contains("NOT TRIED  backup"), "{text}");
        report.lines.push(Line::wrong("archive", "it is restored", "no"));
        assert_eq!(report.exit_code(), 1);
    }
}
