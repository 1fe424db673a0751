//! Whether each table has the rows that it should. Pure.
//!
//! A base backup is consistent at one moment between the counts before and after it, so a table may have what it
//! had at either, and what is between. Messages name tables and numbers, never a row.

use std::collections::BTreeMap;

use valv_crds::{drill::DrillReason, policy::RowCounts};

use crate::archive::manifest::RowCounts as Counted;

/// Tables that a message names. The rest is counted.
const NAMED: usize = 8;

/// A table that has not the rows that it should.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrong {
    table: String,
    why: String,
}

/// What is wrong with `found`, rows by table, if anything is: less or more than when the backup was taken, or more
/// lost since the earlier backup `previous` than `rule` lets.
pub fn judge(
    found: &BTreeMap<String, u64>,
    counted: &Counted,
    previous: Option<&Counted>,
    rule: RowCounts,
) -> Option<(DrillReason, String)> {
    let differing = differing(found, counted, rule);
    if !differing.is_empty() {
        return Some((
            DrillReason::RowCountsDiffer,
            sentence("differ from when the backup was taken", &differing),
        ));
    }
    let fallen = previous.map(|previous| fallen(found, previous, rule)).unwrap_or_default();
    if !fallen.is_empty() {
        return Some((DrillReason::RowCountsFell, sentence("fell", &fallen)));
    }
    None
}

fn differing(found: &BTreeMap<String, u64>, counted: &Counted, rule: RowCounts) -> Vec<Wrong> {
    let mut tables: Vec<&String> = counted.start.keys().chain(counted.end.keys()).collect();
    tables.sort_unstable();
    tables.dedup();
    let mut wrong = Vec::new();
    for table in tables {
        let (start, end) = (counted.start.get(table), counted.end.get(table));
        let counts = [start, end].into_iter().flatten().copied();
        let (least, most) = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
        let Some(rows) = found.get(table) else {
            // Made or dropped while the backup was taken: it may be in it, or not.
            if start.is_some() && end.is_some() {
                wrong.push(Wrong { table: table.clone(), why: "is not there".to_owned() });
            }
            continue;
        };
        let (least, most) =
            (least.saturating_sub(rule.tolerance.of(least)), most.saturating_add(rule.tolerance.of(most)));
        if !(least..=most).contains(rows) {
            let why = format!("has {rows} rows, and there were {least} to {most}");
            wrong.push(Wrong { table: table.clone(), why });
        }
    }
    // Whoever leaves a table out when it is backed up leaves it out of every comparison after that.
    for (table, rows) in found.iter().filter(|(_, rows)| **rows > 0) {
        if !counted.start.contains_key(table) && !counted.end.contains_key(table) {
            let why = format!("has {rows} rows, and was not counted");
            wrong.push(Wrong { table: table.clone(), why });
        }
    }
    wrong
}

fn fallen(found: &BTreeMap<String, u64>, previous: &Counted, rule: RowCounts) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for (table, before) in &previous.end {
        let rows = found.get(table).copied().unwrap_or(0);
        if rows < before.saturating_sub(rule.may_fall_by.of(*before)) {
            let why = format!("has {rows} rows, and had {before}");
            wrong.push(Wrong { table: table.clone(), why });
        }
    }
    wrong
}

fn sentence(what: &str, wrong: &[Wrong]) -> String {
    let named: Vec<_> =
        wrong.iter().take(NAMED).map(|wrong| format!("{} {}", wrong.table, wrong.why)).collect();
    let more = wrong.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("row counts {what}: {}{more}", named.join("; "))
}

#[cfg(test)]
mod tests {
    use valv_crds::units::Share;

    use super::*;

    fn rows(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|(table, rows)| ((*table).to_owned(), *rows)).collect()
    }

    fn counted(start: &[(&str, u64)], end: &[(&str, u64)]) -> Counted {
        Counted { start: rows(start), end: rows(end) }
    }

    fn rule(tolerance: u32, may_fall_by: u32) -> RowCounts {
        RowCounts { tolerance: Share::percent(tolerance), may_fall_by: Share::percent(may_fall_by) }
    }

    fn reason(judged: Option<(DrillReason, String)>) -> Option<DrillReason> {
        judged.map(|(reason, _)| reason)
    }

    #[test]
    fn a_table_has_what_it_had_before_or_after_or_between() {
        let counted = counted(&[("public.note", 100)], &[("public.note", 120)]);
        for (found, expected) in [
            (100, None),
            (110, None),
            (120, None),
            (99, Some(DrillReason::RowCountsDiffer)),
            (121, Some(DrillReason::RowCountsDiffer)),
        ] {
            assert_eq!(reason(judge(&rows(&[("public.note", found)]), &counted, None, rule(0, 1))), expected);
        }
        assert_eq!(judge(&rows(&[("public.note", 90)]), &counted, None, rule(10, 1)), None);
    }

    #[test]
    fn a_table_that_is_gone_differs_unless_it_came_or_went_meanwhile() {
        let table = [("public.note", 1)];
        assert_eq!(
            reason(judge(&rows(&[]), &counted(&table, &table), None, rule(0, 1))),
            Some(DrillReason::RowCountsDiffer)
        );
        assert_eq!(judge(&rows(&[]), &counted(&table, &[]), None, rule(0, 1)), None);
        assert_eq!(judge(&rows(&table), &counted(&[], &table), None, rule(0, 1)), None);
    }

    #[test]
    fn a_table_that_was_not_counted_differs_if_it_has_rows() {
        let note = [("public.note", 1)];
        let judged = |found: &[(&str, u64)]| judge(&rows(found), &counted(&note, &note), None, rule(0, 1));

        let (why, message) = judged(&[("public.note", 1), ("public.patient", 7)]).unwrap();

        assert_eq!(why, DrillReason::RowCountsDiffer);
        assert!(message.contains("public.patient has 7 rows, and was not counted"), "{message}");
        assert_eq!(judged(&[("public.note", 1), ("public.fresh", 0)]), None);
    }

    #[test]
    fn a_table_that_was_emptied_before_the_backup_fell() {
        let empty = counted(&[("public.note", 0)], &[("public.note", 0)]);
        let before = counted(&[], &[("public.note", 20_000)]);
        let found = rows(&[("public.note", 0)]);

        let judged = judge(&found, &empty, Some(&before), rule(0, 1)).unwrap();

        assert_eq!(judged.0, DrillReason::RowCountsFell);
        assert!(judged.1.ends_with("public.note has 0 rows, and had 20000"), "{}", judged.1);
        assert_eq!(judge(&found, &empty, None, rule(0, 1)), None);
        assert_eq!(judge(&found, &empty, Some(&before), rule(0, 100)), None);
    }

    #[test]
    fn a_table_may_lose_as_much_as_the_policy_lets() {
        let before = counted(&[], &[("public.note", 1000)]);
        for (rows_now, expected) in [(990, None), (989, Some(DrillReason::RowCountsFell))] {
            let now = [("public.note", rows_now)];
            let judged = judge(&rows(&now), &counted(&now, &now), Some(&before), rule(0, 1));

            assert_eq!(reason(judged), expected);
        }
    }

    #[test]
    fn a_few_tables_are_named_and_the_rest_is_counted() {
        let names: Vec<_> = (10..30).map(|number| format!("public.t{number}")).collect();
        let full: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();

        let (_, message) = judge(&rows(&[]), &counted(&full, &full), None, rule(0, 1)).unwrap();

        assert!(
            message.contains("public.t10 is not there") && message.ends_with("; and 12 more"),
            "{message}"
        );
    }
}
