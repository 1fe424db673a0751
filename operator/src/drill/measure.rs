//! What a drill measured, and whether that was promised. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use valv_crds::{
    condition::Saying,
    drill::{Choice, DrillCondition, DrillReason, Measured, Phase, PhaseTime},
    policy::Objectives,
};

/// `measured`, with the phases in their order; one that stands already is kept.
pub fn with_phases(mut measured: Measured, phases: impl IntoIterator<Item = PhaseTime>) -> Measured {
    for phase in phases {
        if measured.phases.iter().all(|standing| standing.phase != phase.phase) {
            measured.phases.push(phase);
        }
    }
    measured.phases.sort_by_key(|phase| phase.phase);
    measured
}

/// A phase from one moment to another.
pub fn phase(phase: Phase, from: Timestamp, until: Timestamp) -> PhaseTime {
    PhaseTime { phase, seconds: seconds(from, until) }
}

/// From one moment to another; none, if a clock was wrong.
pub fn seconds(from: Timestamp, until: Timestamp) -> i64 {
    until.duration_since(from).max(SignedDuration::ZERO).as_secs()
}

/// Seconds that the drill waited for its key, and then for room.
pub fn waited(measured: &Measured) -> i64 {
    measured.phases.iter().filter(|time| time.phase == Phase::Key).map(|time| time.seconds).sum()
}

/// `measured`, with the recovery time: from when its turn came until the journal answered, without the time that
/// the checks took, for after a disaster nobody would wait for them; nor what it waited for a person with a key, which
/// says nothing of the backup.
pub fn with_recovery_time(mut measured: Measured, asked: Timestamp, answered: Timestamp) -> Measured {
    let checks = measured.phases.iter().filter(|time| time.phase == Phase::Check);
    let checks: i64 = checks.map(|time| time.seconds).sum();
    let rto = (seconds(asked, answered) - checks - waited(&measured)).max(0);
    measured.rto_seconds = Some(rto);
    measured.rto = Some(people(rto));
    measured
}

/// `measured`, with the phase `PodStart`: what of the recovery time is in no other phase, so that they sum up to it. None
/// is left where the pods' clocks said more than the operator's.
pub fn with_pod_start(measured: Measured) -> Measured {
    let Some(rto) = measured.rto_seconds else { return measured };
    let is_part = |time: &&PhaseTime| ![Phase::Key, Phase::Check, Phase::TearDown].contains(&time.phase);
    let others: i64 = measured.phases.iter().filter(is_part).map(|time| time.seconds).sum();
    let rest = PhaseTime { phase: Phase::PodStart, seconds: (rto - others).max(0) };
    with_phases(measured, [rest])
}

/// `measured`, with the recovery point: from the newest transaction that was restored until the drill began.
pub fn with_recovery_point(mut measured: Measured, last_commit: Timestamp, began: Timestamp) -> Measured {
    let rpo = seconds(last_commit, began);
    measured.rpo_seconds = Some(rpo);
    measured.rpo = Some(people(rpo));
    measured
}

/// A length of time as people read it: its two largest units.
pub fn people(seconds: i64) -> String {
    let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let mut left = seconds.max(0);
    let mut parts = vec![];
    for (name, length) in units {
        let count = left / length;
        left %= length;
        if count > 0 || (name == "s" && parts.is_empty()) {
            parts.push(format!("{count}{name}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    parts.concat()
}

/// What `ObjectivesMet` says of a drill that passed. How much would have been lost only the newest backup shows: of
/// another the recovery point is not asked for.
pub fn objectives(
    measured: &Measured,
    promised: Objectives,
    choice: Choice,
) -> Saying<DrillCondition, DrillReason> {
    let kind = DrillCondition::ObjectivesMet;
    let is_missed = |measured: Option<i64>, promised: Duration| {
        measured.is_none_or(|seconds| u64::try_from(seconds).unwrap_or_default() > promised.as_secs())
    };
    let shown = |measured: &Option<String>| measured.clone().unwrap_or_else(|| "not measured".to_owned());
    let promise =
        |span: valv_crds::units::Span| people(i64::try_from(span.duration().as_secs()).unwrap_or(i64::MAX));
    let message = format!("recovery time {} (promised {})", shown(&measured.rto), promise(promised.rto));
    let time = is_missed(measured.rto_seconds, promised.rto.duration());
    if choice != Choice::Newest {
        let message =
            format!("{message}; the recovery point is not asked for, as this was not the newest backup");
        return match time {
            true => Saying::no(kind, DrillReason::RecoveryTimeMissed, message),
            false => Saying::yes(kind, DrillReason::NotAskedFor, message),
        };
    }
    let message =
        format!("{message}, recovery point {} (promised {})", shown(&measured.rpo), promise(promised.rpo));
    let point = is_missed(measured.rpo_seconds, promised.rpo.duration());
    match (time, point) {
        (false, false) => Saying::yes(kind, DrillReason::AsAsked, message),
        (true, false) => Saying::no(kind, DrillReason::RecoveryTimeMissed, message),
        (false, true) => Saying::no(kind, DrillReason::RecoveryPointMissed, message),
        (true, true) => Saying::no(kind, DrillReason::BothMissed, message),
    }
}

#[cfg(test)]
mod tests {
    use valv_crds::units::Span;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_time_of_the_checks_is_no_part_of_the_recovery_time() {
        let check = PhaseTime { phase: Phase::Check, seconds: 600 };
        let measured = with_phases(Measured::default(), [check]);

        let measured = with_recovery_time(measured, at("2026-11-22T05:00:00Z"), at("2026-11-22T05:51:07Z"));

        assert_eq!(measured.rto_seconds, Some(41 * 60 + 7));
        assert_eq!(measured.rto.as_deref(), Some("41m7s"));
    }

    #[test]
    fn the_wait_for_a_persons_key_is_no_part_of_the_recovery_time() {
        let key = PhaseTime { phase: Phase::Key, seconds: 3600 };
        let measured = with_phases(Measured::default(), [key]);

        let measured = with_recovery_time(measured, at("2026-11-22T05:00:00Z"), at("2026-11-22T06:10:00Z"));

        assert_eq!(measured.rto_seconds, Some(600));
    }

    #[test]
    fn the_phases_sum_up_to_the_recovery_time() {
        let phases = [
            (Phase::Prepare, 20),
            (Phase::Key, 3600),
            (Phase::Fetch, 100),
            (Phase::Check, 60),
            (Phase::Start, 30),
        ];
        let phases = phases.map(|(phase, seconds)| PhaseTime { phase, seconds });
        let measured = with_phases(Measured::default(), phases);
        let measured = with_recovery_time(measured, at("2026-11-22T05:00:00Z"), at("2026-11-22T06:04:00Z"));

        let measured = with_pod_start(measured);

        assert_eq!(measured.rto_seconds, Some(180));
        let rest = measured.phases.iter().find(|time| time.phase == Phase::PodStart).unwrap();
        assert_eq!(rest.seconds, 180 - 20 - 100 - 30);
        // Without a recovery time nothing is left of it.
        assert_eq!(with_pod_start(Measured::default()), Measured::default());
        let ahead =
            Measured { rto_seconds: Some(10), phases: measured.phases[..1].to_vec(), ..Measured::default() };
        assert_eq!(with_pod_start(ahead).phases[1].seconds, 0, "a pod's clock was ahead");
    }

    #[test]
    fn what_was_promised_and_missed_is_told_which() {
        let promised = Objectives { rpo: Span::hours(24), rto: Span::hours(1) };
        let reason = |rto: Option<i64>, rpo: Option<i64>| {
            let measured = Measured { rto_seconds: rto, rpo_seconds: rpo, ..Measured::default() };
            objectives(&measured, promised, Choice::Newest).reason
        };

        assert_eq!(reason(Some(3600), Some(86_400)), DrillReason::AsAsked);
        assert_eq!(reason(Some(3601), Some(0)), DrillReason::RecoveryTimeMissed);
        assert_eq!(reason(Some(0), Some(86_401)), DrillReason::RecoveryPointMissed);
        assert_eq!(reason(Some(3601), None), DrillReason::BothMissed);
    }

    #[test]
    fn a_backup_that_is_not_the_newest_misses_no_recovery_point() {
        let promised = Objectives { rpo: Span::hours(24), rto: Span::hours(1) };
        for choice in [Choice::Random, Choice::Of("20261101T010000Z".parse().unwrap())] {
            let said = |rto| {
                let measured = Measured { rto_seconds: Some(rto), ..Measured::default() };
                objectives(&measured, promised, choice)
            };

            assert!(said(3600).is_true());
            assert_eq!(said(3600).reason, DrillReason::NotAskedFor);
            assert_eq!(said(3601).reason, DrillReason::RecoveryTimeMissed);
        }
    }

    #[test]
    fn a_length_of_time_is_told_in_its_two_largest_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m"), (86_400 + 3 * 3600, "1d3h"), (3601, "1h")]
        {
            assert_eq!(people(seconds), text);
        }
    }
}
