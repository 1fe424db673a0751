//! Decides the next step of every copy. Pure.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use valv_crds::{backup::BackupReason, store::BreakerState};

use super::{
    check::Copy,
    observe::{Jobs, Seen, Standing},
};
use crate::{
    agent::{copy::Arrived, last_words::Failure, verify::Depth},
    janitor::check::is_ready,
    residency,
    settings::Location,
};

/// The wait after the first failure; doubled after each further one.
const FIRST_WAIT: Duration = Duration::from_secs(300);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);

/// What is done with a copy.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// There is none to make: all stores of the policy have it.
    Done,
    /// The last try was refused, or failed on this side, and the next comes later. What was said of it stands.
    Rests,
    /// It comes later.
    Waits {
        /// Why.
        reason: BackupReason,
        /// In a sentence.
        message: String,
    },
    /// An attempt is begun, unless the target has it already.
    Begins {
        /// Which.
        number: i32,
    },
    /// An attempt is under way.
    Runs {
        /// Which.
        number: i32,
    },
    /// It is there, and was read back: the operator compares, and commits.
    Commits {
        /// What the pod says.
        arrived: Box<Arrived>,
        /// The Job that made it.
        job: String,
        /// How much of it was to be read back.
        depth: Depth,
    },
    /// An attempt failed, and the next one comes later.
    Failed {
        /// Which.
        number: i32,
        /// How.
        failure: Failure,
    },
}

/// The next step of each of `copies`, in their order. No more are begun than may run: `most` in all, and to each store.
pub fn plan(
    copies: Vec<Copy>,
    jobs: &Jobs,
    breaker: impl Fn(&str) -> BreakerState,
    rests: impl Fn(&Copy) -> bool,
    own: Option<&Location>,
    most: usize,
    now: Timestamp,
) -> Vec<(Copy, Step)> {
    let mut running: BTreeMap<String, usize> = BTreeMap::new();
    for ((_, store), _) in jobs.iter().filter(|(_, seen)| seen.standing == Standing::Active) {
        *running.entry(store.clone()).or_default() += 1;
    }
    let mut steps = Vec::with_capacity(copies.len());
    for copy in copies {
        let step =
            if rests(&copy) { Step::Rests } else { step(&copy, jobs.get(&copy.key()), &breaker, own, now) };
        let step = match step {
            Step::Begins { number } => {
                let here = running.entry(copy.target.name.clone()).or_default();
                let most_here = usize::try_from(copy.target.limits.concurrent_backups).unwrap_or(1);
                let is_free = *here < most_here;
                *here += usize::from(is_free);
                if is_free && running.values().sum::<usize>() <= most {
                    Step::Begins { number }
                } else {
                    waits(BackupReason::AtLimit, "as many copies run as may".to_owned())
                }
            }
            step @ (Step::Done
            | Step::Rests
            | Step::Waits { .. }
            | Step::Runs { .. }
            | Step::Commits { .. }
            | Step::Failed { .. }) => step,
        };
        steps.push((copy, step));
    }
    steps
}

fn step(
    copy: &Copy,
    seen: Option<&Seen>,
    breaker: &impl Fn(&str) -> BreakerState,
    own: Option<&Location>,
    now: Timestamp,
) -> Step {
    if copy.source.name == copy.target.name {
        return Step::Done;
    }
    // Also what is on its way or there already is not committed where it may not lie.
    let target = &copy.target;
    let allowed = residency::may_lie_in(&target.name, &target.location, &copy.policy, own)
        .and_then(|()| residency::may_be_followed(&copy.policy));
    if let Err(refused) = allowed {
        return waits(refused.reason(), refused.to_string());
    }
    for store in [&copy.source, &copy.target] {
        if !is_ready(store) {
            let message = format!("the BackupStore {} is not ready: its own conditions say why", store.name);
            return waits(BackupReason::StoreNotReady, message);
        }
        // Also while one request decides whether it answers again.
        if breaker(&store.name) != BreakerState::Closed {
            let message = format!("{} failed too often and is left alone for a while", store.name);
            return waits(BackupReason::StoreUnavailable, message);
        }
    }
    let Some(Seen { name, number, depth, standing }) = seen else { return Step::Begins { number: 1 } };
    match standing {
        Standing::Active => Step::Runs { number: *number },
        Standing::Arrived(arrived) => Step::Commits {
            arrived: Box::new(arrived.clone()),
            job: name.clone(),
            depth: depth.unwrap_or(copy.depth),
        },
        Standing::Failed { failure, unanswered: _, at } => {
            let doublings = u32::try_from(number.saturating_sub(1)).unwrap_or_default().min(16);
            let wait = FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT);
            // Without a time it has waited long enough: nobody waits for ever.
            let is_over = at.is_none_or(|at| at.saturating_add(wait).is_ok_and(|then| then <= now));
            if is_over {
                Step::Begins { number: number.saturating_add(1) }
            } else {
                Step::Failed { number: *number, failure: failure.clone() }
            }
        }
    }
}

fn waits(reason: BackupReason, message: String) -> Step {
    Step::Waits { reason, message }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::SignedDuration;

    use super::*;
    use crate::copy::{check::tests::copies_for, observe::tests::arrived};

    const MOST: usize = 16;

    const STORES: [&str; 3] = ["helsinki", "frankfurt", "oslo"];

    fn now() -> Timestamp {
        "2026-11-22T03:00:00Z".parse().unwrap()
    }

    /// Copies whose stores are all ready.
    fn copies() -> Vec<Copy> {
        let ready = |store: &mut crate::store::check::Store| {
            let mut object = store.object.as_ref().clone();
            object.status = serde_json::from_value(serde_json::json!({
                "observedGeneration": 3, "conditions": [{ "type": "Ready", "status": "True", "reason": "AsAsked",
                    "message": "", "lastTransitionTime": "2026-11-22T01:00:00Z" }],
            }))
            .unwrap();
            store.object = Arc::new(object);
        };
        let mut copies = copies_for(&STORES);
        copies.iter_mut().for_each(|copy| {
            ready(&mut copy.source);
            ready(&mut copy.target);
        });
        copies
    }

    fn planned(jobs: &Jobs) -> Vec<Step> {
        let closed = |_: &str| BreakerState::Closed;
        plan(copies(), jobs, closed, |_| false, None, MOST, now()).into_iter().map(|(_, step)| step).collect()
    }

    fn frankfurt(number: i32, standing: Standing) -> Jobs {
        let seen = Seen { name: format!("copy-x-{number}"), number, depth: None, standing };
        Jobs::from([(("u1".to_owned(), "frankfurt".to_owned()), seen)])
    }

    fn failed(minutes_ago: i64) -> Standing {
        let failure = Failure { reason: BackupReason::StoreFull, message: "it is full".to_owned() };
        let at = Some(now() - SignedDuration::from_mins(minutes_ago));
        Standing::Failed { failure, unanswered: None, at }
    }

    #[test]
    fn each_store_has_its_own_next_step() {
        let begins = Step::Begins { number: 1 };

        assert_eq!(planned(&Jobs::new()), [begins.clone(), begins.clone()]);
        assert_eq!(planned(&frankfurt(1, Standing::Active)), [Step::Runs { number: 1 }, begins.clone()]);
        let arrived = Standing::Arrived(arrived());
        assert!(matches!(planned(&frankfurt(2, arrived))[0], Step::Commits { .. }));
    }

    #[test]
    fn a_failed_copy_is_tried_again_later_each_time_and_never_given_up() {
        let first = |jobs: &Jobs| planned(jobs).remove(0);

        assert!(matches!(first(&frankfurt(1, failed(4))), Step::Failed { number: 1, .. }));
        assert_eq!(first(&frankfurt(1, failed(6))), Step::Begins { number: 2 });
        assert!(matches!(first(&frankfurt(3, failed(19))), Step::Failed { .. }));
        assert_eq!(first(&frankfurt(90, failed(361))), Step::Begins { number: 91 });
        let timeless = Standing::Failed {
            failure: Failure { reason: BackupReason::AgentFailed, message: String::new() },
            unanswered: None,
            at: None,
        };
        assert_eq!(first(&frankfurt(1, timeless)), Step::Begins { number: 2 });
    }

    #[test]
    fn no_more_are_begun_than_may_run_and_one_full_store_stops_no_other() {
        let mut copies = copies();
        for copy in &mut copies {
            let mut object = copy.target.object.as_ref().clone();
            object.spec.limits.concurrent_backups = 1;
            copy.target.object = Arc::new(object);
        }
        let other = Seen { name: "copy-y-1".to_owned(), number: 1, depth: None, standing: Standing::Active };
        let jobs = Jobs::from([(("u2".to_owned(), "frankfurt".to_owned()), other)]);

        let steps = plan(copies, &jobs, |_| BreakerState::Closed, |_| false, None, MOST, now());

        assert!(matches!(steps[0].1, Step::Waits { reason: BackupReason::AtLimit, .. }));
        assert_eq!(steps[1].1, Step::Begins { number: 1 });
    }

    #[test]
    fn no_more_are_begun_in_all_than_the_setting_says() {
        let begun = |most: usize| {
            let closed = |_: &str| BreakerState::Closed;
            let steps = plan(copies(), &Jobs::new(), closed, |_| false, None, most, now());
            steps.iter().filter(|(_, step)| matches!(step, Step::Begins { .. })).count()
        };

        assert_eq!((begun(1), begun(2)), (1, 2));
    }

    #[test]
    fn what_was_refused_rests_and_the_other_store_does_not() {
        let rests = |copy: &Copy| copy.target.name == "frankfurt";

        let steps = plan(copies(), &Jobs::new(), |_| BreakerState::Closed, rests, None, MOST, now());

        assert_eq!((&steps[0].1, &steps[1].1), (&Step::Rests, &Step::Begins { number: 1 }));
    }

    #[test]
    fn nothing_is_copied_or_committed_where_the_policy_does_not_let_it_lie() {
        let first = |countries: &[&str], own: Option<&Location>| {
            let mut copies = copies();
            for copy in &mut copies {
                let mut policy = copy.policy.as_ref().clone();
                policy.spec.countries = countries.iter().map(|&country| country.to_owned()).collect();
                copy.policy = Arc::new(policy);
            }
            let closed = |_: &str| BreakerState::Closed;
            let jobs = frankfurt(1, Standing::Arrived(arrived()));
            plan(copies, &jobs, closed, |_| false, own, MOST, now()).remove(0).1
        };
        let refused = |step: &Step| matches!(step, Step::Waits { reason: BackupReason::StoreRefused, .. });
        let own = |region: &str| Location {
            region: region.to_owned(),
            also_named: vec![],
            country: "SE".to_owned(),
        };

        assert!(matches!(first(&["FI"], Some(&own("se-sto1"))), Step::Commits { .. }));
        assert!(refused(&first(&["SE", "DE"], None)));
        assert!(refused(&first(&[], Some(&own("europe-1")))));
    }

    #[test]
    fn a_policy_that_cannot_be_followed_has_nothing_copied() {
        let mut copies = copies();
        for copy in &mut copies {
            let mut policy = copy.policy.as_ref().clone();
            policy.metadata.generation = Some(9);
            copy.policy = Arc::new(policy);
        }

        let steps = plan(copies, &Jobs::new(), |_| BreakerState::Closed, |_| false, None, MOST, now());

        assert!(matches!(steps[0].1, Step::Waits { reason: BackupReason::PolicyMissing, .. }));
    }

    #[test]
    fn a_store_that_is_not_ready_or_left_alone_is_waited_for() {
        let unproven =
            plan(copies_for(&STORES), &Jobs::new(), |_| BreakerState::Closed, |_| false, None, MOST, now());
        assert!(matches!(unproven[0].1, Step::Waits { reason: BackupReason::StoreNotReady, .. }));
        for state in [BreakerState::Open, BreakerState::HalfOpen] {
            let left_alone = plan(copies(), &Jobs::new(), |_| state, |_| false, None, MOST, now());

            assert!(matches!(left_alone[0].1, Step::Waits { reason: BackupReason::StoreUnavailable, .. }));
        }
    }
}
