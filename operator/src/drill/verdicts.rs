//! The verdicts of a drill, and what they come to. Pure.

use valv_crds::{
    BackupPolicy,
    drill::{Check, DrillReason, Outcome, Verdict},
};

/// A verdict of the operator's own.
pub fn verdict(check: Check, outcome: Outcome, reason: DrillReason, message: impl Into<String>) -> Verdict {
    let message: String = message.into();
    let message: String = message.chars().take(1000).collect();
    Verdict {
        name: check.verdict_name(),
        outcome,
        reason,
        message: Some(message).filter(|text| !text.is_empty()),
        seconds: None,
    }
}

/// `standing`, with the `newer` ones in their places.
pub fn merged(standing: &[Verdict], newer: Vec<Verdict>) -> Vec<Verdict> {
    let is_old = |verdict: &&Verdict| newer.iter().all(|newer| newer.name != verdict.name);
    let mut all: Vec<Verdict> = standing.iter().filter(is_old).cloned().collect();
    all.extend(newer);
    all.sort_by_key(place);
    all
}

/// Whether there is a verdict of `check`.
pub fn has(verdicts: &[Verdict], check: Check) -> bool {
    let name = check.verdict_name();
    verdicts.iter().any(|verdict| verdict.name == name)
}

/// All verdicts that a drill has: those that were not reached say so.
pub fn whole(verdicts: &[Verdict], policy: Option<&BackupPolicy>) -> Vec<Verdict> {
    let questions = policy.and_then(|policy| policy.spec.drill.as_ref());
    let questions = questions.map(|drill| drill.checks.as_slice()).unwrap_or_default();
    let built_in = Check::ALL.into_iter().filter(|check| *check != Check::Sql).map(Check::verdict_name);
    let own = questions.iter().map(|question| Check::sql_verdict_name(&question.name));
    let missing = built_in.chain(own).filter(|name| verdicts.iter().all(|verdict| verdict.name != *name));
    let missing = missing.map(|name| Verdict {
        name,
        outcome: Outcome::NotReached,
        reason: DrillReason::NotReached,
        message: None,
        seconds: None,
    });
    merged(verdicts, missing.collect())
}

/// The first that failed.
pub fn failed(verdicts: &[Verdict]) -> Option<&Verdict> {
    verdicts.iter().find(|verdict| verdict.outcome == Outcome::Failed)
}

/// The first that was not so much as asked for an answer, of those that every pass needs.
pub fn missing(verdicts: &[Verdict]) -> Option<Check> {
    let answered = |check: Check| {
        let name = check.verdict_name();
        let found = verdicts.iter().find(|verdict| verdict.name == name);
        found.is_some_and(|verdict| {
            [Outcome::Passed, Outcome::Warned, Outcome::NotAsked].contains(&verdict.outcome)
        })
    };
    Check::ALL.into_iter().filter(|check| *check != Check::Sql).find(|check| !answered(*check))
}

/// The first that warns.
pub fn warned(verdicts: &[Verdict]) -> Option<&Verdict> {
    verdicts.iter().find(|verdict| verdict.outcome == Outcome::Warned)
}

/// Where a verdict stands among the others.
fn place(verdict: &Verdict) -> usize {
    let sql = format!("{}/", Check::Sql.verdict_name());
    let is = |check: &Check| {
        check.verdict_name() == verdict.name || (*check == Check::Sql && verdict.name.starts_with(&sql))
    };
    Check::ALL.iter().position(is).unwrap_or(Check::ALL.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(check: Check) -> Verdict {
        verdict(check, Outcome::Passed, DrillReason::AsAsked, "")
    }

    fn all_passed() -> Vec<Verdict> {
        Check::ALL.into_iter().filter(|check| *check != Check::Sql).map(passed).collect()
    }

    #[test]
    fn a_check_that_was_not_reached_is_no_pass() {
        let whole = whole(&[passed(Check::CommitSignature)], None);

        assert_eq!(whole.len(), Check::ALL.len() - 1);
        assert_eq!(missing(&whole), Some(Check::Manifest));
        assert_eq!(missing(&all_passed()), None);
    }

    #[test]
    fn a_newer_verdict_takes_the_place_of_the_older_and_the_order_is_that_of_the_checks() {
        let failed_one = verdict(Check::Manifest, Outcome::Failed, DrillReason::ManifestDiffers, "why");
        let own = Verdict { name: Check::sql_verdict_name("a"), ..passed(Check::Sql) };

        let all = merged(
            &[passed(Check::JournalStarts), passed(Check::Manifest)],
            vec![own, failed_one.clone(), passed(Check::CommitSignature)],
        );

        let names: Vec<_> = all.iter().map(|verdict| verdict.name.as_str()).collect();
        assert_eq!(names, ["CommitSignature", "Manifest", "Sql/a", "JournalStarts"]);
        assert_eq!(failed(&all), Some(&failed_one));
    }
}
