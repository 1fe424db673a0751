//! The verdicts of a drill, and what they come to. Pure.

use valv_crds::{
    BackupPolicy,
    drill::{Check, DrillReason, Outcome, Verdict},
};

use super::objects;
use crate::{
    agent::drill_file::{Judge, Question},
    tenant::check::Tenant,
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
    let built_in = Check::ALL.into_iter().filter(|check| *check != Check::Sql).map(Check::verdict_name);
    let missing =
        built_in.chain(questions(policy)).filter(|name| verdicts.iter().all(|verdict| verdict.name != *name));
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

/// Of what an agent said, what it was asked for: the others' verdicts are not its to give.
pub fn of(verdicts: Vec<Verdict>, checks: &[Check]) -> Vec<Verdict> {
    let sql = Check::sql_verdict_name("");
    let is_its = |verdict: &Verdict| {
        checks.iter().any(|check| {
            let is_question = *check == Check::Sql && verdict.name.starts_with(&sql);
            is_question || verdict.name == check.verdict_name()
        })
    };
    verdicts.into_iter().filter(is_its).collect()
}

/// The first that every pass needs, and that has no answer: one of Valv's own, or a question of the policy. Nothing but
/// attachments can be there or not, so only of them an agent may say that it was not asked; and a question has the answer
/// yes, or it is none.
pub fn missing(verdicts: &[Verdict], policy: Option<&BackupPolicy>) -> Option<String> {
    let outcome = |name: &str| Some(verdicts.iter().find(|verdict| verdict.name == name)?.outcome);
    let is_answered = |check: Check| match outcome(&check.verdict_name()) {
        Some(Outcome::Passed | Outcome::Warned) => true,
        Some(Outcome::NotAsked) => check == Check::Attachments,
        Some(Outcome::Failed | Outcome::NotReached) | None => false,
    };
    let built_in = Check::ALL.into_iter().filter(|check| *check != Check::Sql);
    let built_in = built_in.filter(|check| !is_answered(*check)).map(Check::verdict_name);
    let own = questions(policy).filter(|name| outcome(name) != Some(Outcome::Passed));
    built_in.chain(own).next()
}

/// What `policy` and `tenant` ask now otherwise than `judged` was asked when the drill began: the answer is to another
/// question. What the policy asks anew has no answer at all; one that is gone asks nothing.
pub fn changed(judged: &Judge, policy: Option<&BackupPolicy>, tenant: Option<&Tenant>) -> Option<String> {
    let attachments = tenant.and_then(|tenant| tenant.attachments.as_ref());
    let inventory = attachments.and_then(|attachments| attachments.inventory_sql.as_ref());
    if inventory.is_some() && inventory != judged.inventory_sql.as_ref() {
        return Some(Check::Attachments.verdict_name());
    }
    let (asked, row_counts) = objects::questions(Some(policy?));
    let is_another =
        |now: &&Question| judged.checks.iter().any(|then| then.name == now.name && then.sql != now.sql);
    let another = asked.iter().find(is_another).map(|question| Check::sql_verdict_name(&question.name));
    another.or_else(|| (judged.row_counts != row_counts).then(|| Check::RowCounts.verdict_name()))
}

/// Names of the verdicts on the policy's own questions.
fn questions(policy: Option<&BackupPolicy>) -> impl Iterator<Item = String> {
    let questions = policy.and_then(|policy| policy.spec.drill.as_ref());
    let questions = questions.map(|drill| drill.checks.as_slice()).unwrap_or_default();
    questions.iter().map(|question| Check::sql_verdict_name(&question.name))
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
        assert_eq!(missing(&whole, None).as_deref(), Some("Manifest"));
        assert_eq!(missing(&all_passed(), None), None);
    }

    #[test]
    fn a_question_of_the_policy_that_was_not_answered_with_yes_is_no_pass() {
        let policy: BackupPolicy = serde_json::from_value(serde_json::json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "BackupPolicy", "metadata": { "name": "default" },
            "spec": {
                "schedule": { "cron": "0 1 * * *", "timeZone": "UTC" }, "stores": ["helsinki"],
                "retention": { "floor": { "days": 35, "reason": "decided for a test" } },
                "objectives": { "rpo": "24h", "rto": "4h" },
                "drill": {
                    "schedule": { "cron": "0 5 * * 0", "timeZone": "UTC" },
                    "checks": [{ "name": "a", "sql": "SELECT true" }, { "name": "late", "sql": "SELECT true" }],
                },
            },
        }))
        .unwrap();
        let answered = |outcome: Outcome| {
            let own = ["a", "late"].map(Check::sql_verdict_name);
            let own = own.map(|name| Verdict { name, ..passed(Check::Sql) });
            let mut all = merged(&all_passed(), own.to_vec());
            all.iter_mut()
                .filter(|verdict| verdict.name == "Sql/late")
                .for_each(|late| late.outcome = outcome);
            missing(&all, Some(&policy))
        };

        // The policy gained it while the drill ran, or the agent left it out.
        assert_eq!(missing(&whole(&all_passed(), Some(&policy)), Some(&policy)).as_deref(), Some("Sql/a"));
        assert_eq!(answered(Outcome::Passed), None);
        for outcome in [Outcome::NotAsked, Outcome::NotReached, Outcome::Warned] {
            assert_eq!(answered(outcome).as_deref(), Some("Sql/late"), "{outcome:?}");
        }
    }

    #[test]
    fn only_of_attachments_an_agent_may_say_that_it_was_not_asked() {
        for check in Check::ALL.into_iter().filter(|check| *check != Check::Sql) {
            let not_asked = verdict(check, Outcome::NotAsked, DrillReason::NotAskedFor, "");

            let missing = missing(&merged(&all_passed(), vec![not_asked]), None);

            let expected = (check != Check::Attachments).then(|| check.verdict_name());
            assert_eq!(missing, expected);
        }
    }

    #[test]
    fn an_agent_gives_no_verdicts_that_are_not_its_own() {
        let own = Verdict { name: Check::sql_verdict_name("a"), ..passed(Check::Sql) };
        let said = vec![
            passed(Check::CommitSignature),
            passed(Check::Sentinel),
            own.clone(),
            passed(Check::JournalStarts),
        ];

        assert_eq!(of(said.clone(), &[Check::CommitSignature]), [passed(Check::CommitSignature)]);
        assert_eq!(of(said, &[Check::Sentinel, Check::Sql]), [passed(Check::Sentinel), own]);
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
