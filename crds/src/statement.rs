//! What a condition of any kind says, before it is dated.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::condition::Truth;

/// What a condition of type `C` says, for a reason of `R`. Both are enums whose variants are the words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Statement<C, R> {
    /// Of what.
    pub kind: C,
    /// Whether it is so.
    pub truth: Truth,
    /// Why, as one word for machines.
    pub reason: R,
    /// Why, as a sentence for people.
    pub message: String,
}

impl<C: Debug, R: Debug> Statement<C, R> {
    /// `kind` is so.
    pub fn yes(kind: C, reason: R, message: impl Into<String>) -> Self {
        Self { kind, truth: Truth::True, reason, message: message.into() }
    }

    /// `kind` is not so.
    pub fn no(kind: C, reason: R, message: impl Into<String>) -> Self {
        Self { kind, truth: Truth::False, reason, message: message.into() }
    }

    /// Whether `kind` is so cannot be known.
    pub fn unknown(kind: C, reason: R, message: impl Into<String>) -> Self {
        Self { kind, truth: Truth::Unknown, reason, message: message.into() }
    }

    /// Whether it is so.
    pub fn is_true(&self) -> bool {
        self.truth == Truth::True
    }

    /// The condition to write, given those that stand now.
    ///
    /// `lastTransitionTime` moves only if `status` does, so that an unchanged object makes no new watch event.
    pub fn dated(&self, standing: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
        let type_ = format!("{:?}", self.kind);
        let status = format!("{:?}", self.truth);
        // The API stores times to the second; anything finer would never compare equal again.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let since = standing
            .iter()
            .find(|condition| condition.type_ == type_ && condition.status == status)
            .map_or(Time(now), |condition| condition.last_transition_time.clone());
        Condition {
            type_,
            status,
            reason: format!("{:?}", self.reason),
            message: self.message.clone(),
            observed_generation: generation,
            last_transition_time: since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreCondition, StoreReason};

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stands() {
        let monday: Timestamp = "2026-03-02T00:00:00.5Z".parse().unwrap();
        let tuesday: Timestamp = "2026-03-03T00:00:00Z".parse().unwrap();
        let waiting = Statement::no(StoreCondition::Ready, StoreReason::NotProbedYet, "");
        let failed = Statement::no(StoreCondition::Ready, StoreReason::Unreachable, "");
        let done = Statement::yes(StoreCondition::Ready, StoreReason::AsAsked, "");

        let first = waiting.dated(&[], Some(1), monday);
        let same = failed.dated(std::slice::from_ref(&first), Some(2), tuesday);
        let changed = done.dated(std::slice::from_ref(&same), Some(2), tuesday);

        assert_eq!(same.last_transition_time.0, "2026-03-02T00:00:00Z".parse().unwrap());
        assert_eq!((same.status.as_str(), same.reason.as_str()), ("False", "Unreachable"));
        assert_eq!(changed.last_transition_time.0, tuesday);
    }
}
