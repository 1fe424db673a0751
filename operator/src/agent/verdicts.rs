//! The verdicts of a drill, as they are reached.
//!
//! Pure but for the time that each took. What was not reached says so: it never looks like a pass.

use tokio::time::Instant;
use valv_crds::drill::{Check, DrillReason, Outcome, Verdict};

/// The verdicts that were reached so far, and since when the next one is worked on.
#[derive(Debug)]
pub struct Verdicts {
    reached: Vec<Verdict>,
    since: Instant,
}

impl Verdicts {
    /// None yet; the first one is worked on from now on.
    pub fn begin() -> Self {
        Self { reached: Vec::new(), since: Instant::now() }
    }

    /// `check` is as it must be.
    pub fn passed(&mut self, check: Check) {
        self.push(check.verdict_name(), Outcome::Passed, DrillReason::AsAsked, None);
    }

    /// `check` is as it must be, and this is to be known of it.
    pub fn passed_with(&mut self, check: Check, message: String) {
        self.push(check.verdict_name(), Outcome::Passed, DrillReason::AsAsked, Some(message));
    }

    /// `check` is as it must be, and somebody should look at what was found.
    pub fn warned(&mut self, check: Check, reason: DrillReason, message: String) {
        self.push(check.verdict_name(), Outcome::Warned, reason, Some(message));
    }

    /// `check` is not as it must be.
    pub fn failed(&mut self, check: Check, reason: DrillReason, message: String) {
        self.push(check.verdict_name(), Outcome::Failed, reason, Some(message));
    }

    /// Whether anything is not as it must be.
    pub fn has_failed(&self) -> bool {
        self.reached.iter().any(|verdict| verdict.outcome == Outcome::Failed)
    }

    /// The tenant or the policy has nothing of this kind.
    pub fn not_asked(&mut self, check: Check) {
        self.push(check.verdict_name(), Outcome::NotAsked, DrillReason::NotAskedFor, None);
    }

    /// The verdict on something that has a name of its own.
    pub fn push(&mut self, name: String, outcome: Outcome, reason: DrillReason, message: Option<String>) {
        let now = Instant::now();
        let seconds = i64::try_from(now.duration_since(self.since).as_secs()).ok();
        self.since = now;
        self.reached.push(Verdict { name, outcome, reason, message, seconds });
    }

    /// The verdicts called `names`, in this order; of what was not reached, that.
    pub fn finish(self, names: impl IntoIterator<Item = String>) -> Vec<Verdict> {
        let mut reached = self.reached;
        let verdict = |name: String| match reached.iter().position(|verdict| verdict.name == name) {
            Some(place) => reached.swap_remove(place),
            None => Verdict {
                name,
                outcome: Outcome::NotReached,
                reason: DrillReason::NotReached,
                message: None,
                seconds: None,
            },
        };
        names.into_iter().map(verdict).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_reached_is_no_pass() {
        let mut verdicts = Verdicts::begin();
        verdicts.failed(Check::Manifest, DrillReason::ManifestDiffers, "it is another".into());
        verdicts.passed(Check::CommitSignature);

        let all = verdicts
            .finish([Check::CommitSignature, Check::Manifest, Check::Segments].map(Check::verdict_name));

        let outcomes: Vec<_> = all.iter().map(|verdict| (verdict.name.as_str(), verdict.outcome)).collect();
        assert_eq!(
            outcomes,
            [
                ("CommitSignature", Outcome::Passed),
                ("Manifest", Outcome::Failed),
                ("Segments", Outcome::NotReached)
            ]
        );
        assert_eq!(all[2].reason, DrillReason::NotReached);
    }
}
