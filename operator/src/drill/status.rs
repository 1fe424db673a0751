//! Tells how a drill stands. [`status`] is pure, [`tell`] writes it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{Resource, ResourceExt, core::DynamicObject};
use tracing::debug;
use valv_crds::{
    RestoreDrillStatus,
    condition::Saying,
    drill::{Choice, DrillCondition, DrillReason, Phase, ReadySeen},
    policy::Objectives,
};

use super::{
    Context,
    apply::Outcome,
    check::Run,
    measure, objects,
    observe::Observed,
    plan::{Begun, Ending, Learnt, Plan, Step, preparation},
    teardown::{self, Next},
    verdicts,
};
use crate::{
    io::{
        cluster::{Applied, Error},
        events::{self, News, Tone},
        kind::{Key, Kind},
    },
    tenant::observe::NamespaceSeen,
};

/// One thing that is said of a drill.
type Said = Saying<DrillCondition, DrillReason>;

/// The status of `run` after `plan`, which came to `outcome`.
pub fn status(
    run: &Run,
    observed: &Observed,
    plan: &Plan,
    outcome: &Outcome,
    now: Timestamp,
) -> RestoreDrillStatus {
    let mut status = run.status();
    status.observed_generation = run.object.metadata.generation;
    if let Ok(subject) = &run.subject {
        status.slot = Some(subject.slot);
    }
    status.seen.get_or_insert(time(now));
    status.jobs.retain(|job| outcome.jobs.iter().all(|made| made.name != job.name));
    status.jobs.extend(outcome.jobs.iter().cloned());
    status.volumes = volumes(&status.volumes, observed);
    if status.ended.is_none() && observed.store_name.is_some() {
        status.store.clone_from(&observed.store_name);
    }
    if status.backup.is_none() {
        status.backup = observed.chosen.as_ref().map(|chosen| chosen.backup.clone());
    }
    if observed.namespace == NamespaceSeen::Ours
        && let Ok(subject) = &run.subject
    {
        status.namespace = Some(subject.into.clone());
        let namespace = observed.objects.get(&Key::new(Kind::Namespace, &subject.into));
        if let Some(uid) = namespace.and_then(|namespace| namespace.uid()) {
            status.namespace_uid.get_or_insert(uid);
        }
    }
    let said = match &plan.step {
        Step::Over => return status,
        Step::Refused { message } => refused(&mut status, message, now),
        Step::Waits { reason, message, begun } => {
            if *begun == Begun::Yes {
                status.started.get_or_insert(time(now));
            }
            if *reason == DrillReason::KeyMissing {
                status.key_asked.get_or_insert(time(now));
            }
            under_way(*reason, outcome.refused.as_ref().unwrap_or(message))
        }
        Step::Runs { message, learnt } => {
            status.started.get_or_insert(time(now));
            learn(run, &mut status, learnt, outcome.prepared.as_ref(), now);
            under_way(DrillReason::Running, outcome.refused.as_ref().unwrap_or(message))
        }
        Step::Ends(ending) => ends(run, &mut status, observed, ending, now),
        Step::Closes => closes(&mut status, plan, outcome, now),
    };
    let standing = std::mem::take(&mut status.conditions);
    let generation = run.object.metadata.generation;
    let kept = standing.iter().filter(|condition| {
        // What is not said again stands, but for what is under way.
        said.iter().all(|said| format!("{:?}", said.kind) != condition.type_)
            && condition.type_ != format!("{:?}", DrillCondition::Reconciling)
    });
    let mut conditions: Vec<Condition> = kept.cloned().collect();
    conditions.extend(said.iter().map(|said| said.dated(&standing, generation, now)));
    conditions.sort_by_key(|condition| place(&condition.type_));
    status.conditions = conditions;
    status
}

fn place(kind: &str) -> usize {
    let all = ["Passed", "ObjectivesMet", "TornDown", "Recorded", "Reconciling", "Stalled"];
    all.iter().position(|known| *known == kind).unwrap_or(all.len())
}

/// The volumes that hold what was restored, as far as they were ever seen.
fn volumes(known: &[String], observed: &Observed) -> Vec<String> {
    let name = |claim: &DynamicObject| Some(claim.data.pointer("/spec/volumeName")?.as_str()?.to_owned());
    let claims = observed.objects.iter().filter(|(key, _)| key.kind == Kind::PersistentVolumeClaim);
    let left = observed.left.iter().flat_map(|left| &left.claims);
    let seen = claims.map(|(_, claim)| claim.as_ref()).chain(left).filter_map(name);
    let all: BTreeSet<String> = known.iter().cloned().chain(seen).filter(|name| !name.is_empty()).collect();
    all.into_iter().collect()
}

/// Takes in what is `learnt`; of what was chosen only if what it was written into stands, with the digest `prepared`.
fn learn(
    run: &Run,
    status: &mut RestoreDrillStatus,
    learnt: &[Learnt],
    prepared: Option<&String>,
    now: Timestamp,
) {
    let began = status.started.as_ref().map(|time| time.0);
    let mut measured = status.measured.take().unwrap_or_default();
    for learnt in learnt {
        match learnt {
            Learnt::Chosen(backup) => {
                if let Some(prepared) = prepared {
                    status.backup = Some(backup.clone());
                    status.prepared_with = Some(prepared.clone());
                }
            }
            Learnt::KeyCame => {
                if let (Some(asked), None) = (&status.key_asked, &status.key_came) {
                    let waited = measure::phase(Phase::Key, asked.0, now);
                    measured = measure::with_phases(measured, [waited]);
                    status.key_came = Some(time(now));
                }
            }
            Learnt::Restored(restored, started) => {
                status.verdicts = verdicts::merged(&status.verdicts, restored.verdicts.clone());
                measured.bytes = i64::try_from(restored.bytes).ok();
                let waited = measure::waited(&measured);
                let prepared =
                    began.zip(*started).map(|(began, started)| preparation(began, started, waited));
                let phases = prepared.into_iter().chain(restored.phases.iter().copied());
                measured = measure::with_phases(measured, phases);
                if let (Some(backup), Some(manifest)) = (&mut status.backup, &restored.manifest) {
                    backup.manifest = Some(manifest.clone());
                }
            }
            Learnt::Judged(judged) => {
                status.verdicts = verdicts::merged(&status.verdicts, judged.verdicts.clone());
                measured = measure::with_phases(measured, judged.phases.iter().copied());
                // What lies before an older backup is not lost.
                let is_newest = run.object.spec.backup == Choice::Newest;
                if let (Some(commit), Some(began)) = (judged.last_commit.filter(|_| is_newest), began) {
                    measured = measure::with_recovery_point(measured, commit, began);
                }
            }
            Learnt::SeenReady(since) => {
                if status.ready.as_ref().is_none_or(|ready| ready.since.0 != *since) {
                    status.ready = Some(ReadySeen { since: Time(*since), seen: time(now) });
                }
            }
            Learnt::Answers(since, begun) => {
                let start = begun.map(|begun| measure::phase(Phase::Start, begun, *since));
                measured = measure::with_phases(measured, start);
                if let Some(began) = began {
                    measured = measure::with_recovery_time(measured, began, *since);
                    measured = measure::with_pod_start(measured);
                }
            }
            Learnt::Key(key) => {
                status.key.get_or_insert_with(|| key.clone());
            }
            Learnt::Verdict(verdict) => {
                status.verdicts = verdicts::merged(&status.verdicts, vec![verdict.clone()]);
            }
        }
    }
    let is_empty = measured == valv_crds::drill::Measured::default();
    status.measured = (!is_empty).then_some(measured);
}

fn under_way(reason: DrillReason, message: &str) -> Vec<Said> {
    vec![
        Said::unknown(DrillCondition::Passed, reason, message),
        Said::unknown(DrillCondition::ObjectivesMet, DrillReason::NotReached, "it is not measured yet"),
        Said::no(DrillCondition::TornDown, DrillReason::NotReached, "it is under way"),
        Said::no(DrillCondition::Recorded, DrillReason::NotReached, "it is under way"),
        Said::yes(DrillCondition::Reconciling, reason, message),
    ]
}

fn refused(status: &mut RestoreDrillStatus, message: &str, now: Timestamp) -> Vec<Said> {
    status.ended.get_or_insert(time(now));
    let nothing = "nothing was restored";
    vec![
        Said::no(DrillCondition::Passed, DrillReason::NameInvalid, message),
        Said::unknown(DrillCondition::ObjectivesMet, DrillReason::NotReached, nothing),
        Said::yes(DrillCondition::TornDown, DrillReason::AsAsked, nothing),
        Said::no(DrillCondition::Recorded, DrillReason::NotAskedFor, "it was no drill"),
        Said::yes(DrillCondition::Stalled, DrillReason::NameInvalid, message),
    ]
}

fn ends(
    run: &Run,
    status: &mut RestoreDrillStatus,
    observed: &Observed,
    ending: &Ending,
    now: Timestamp,
) -> Vec<Said> {
    let policy = observed.policy.as_deref();
    if ending.because.is_none() {
        status.started.get_or_insert(time(now));
    }
    learn(run, status, &ending.learnt, None, now);
    status.verdicts = verdicts::whole(&status.verdicts, policy);
    status.ended = Some(time(now));
    let passed = passed(status, observed, ending);
    let objectives = policy.map(|policy| policy.spec.objectives);
    let objectives = objectives_met(status, &passed, objectives, run.object.spec.backup);
    let stalled = (!passed.is_true())
        .then(|| Said::yes(DrillCondition::Stalled, passed.reason, passed.message.clone()));
    let mut said = vec![
        passed,
        objectives,
        Said::no(DrillCondition::TornDown, DrillReason::TearingDown, "what was restored is being taken away"),
        Said::no(DrillCondition::Recorded, DrillReason::NotReached, "the record is being written"),
    ];
    said.extend(stalled);
    said
}

/// Whether it passed: only if every check was made, and none failed.
fn passed(status: &RestoreDrillStatus, observed: &Observed, ending: &Ending) -> Said {
    let kind = DrillCondition::Passed;
    let policy = observed.policy.as_deref();
    if let Some((reason, message)) = &ending.because {
        return Said::no(kind, *reason, message.clone());
    }
    if let Some(failed) = verdicts::failed(&status.verdicts) {
        let why = failed.message.clone().unwrap_or_default();
        return Said::no(kind, failed.reason, format!("{}: {why}", failed.name));
    }
    if let Some(missing) = verdicts::missing(&status.verdicts, policy) {
        let message = format!(
            "{missing} was not answered: if the policy asks for it since this drill began, drill again"
        );
        return Said::no(kind, DrillReason::NotReached, message);
    }
    let Some(judged) = objects::judged_by(observed) else {
        let message = "what it was judged by cannot be read any more: drill again";
        return Said::no(kind, DrillReason::NotReached, message);
    };
    if let Some(changed) = verdicts::changed(&judged, policy, observed.tenant.as_ref()) {
        let message = format!(
            "{changed} is asked otherwise by the policy, or by the tenant's spec, than when this drill began, which it passed: drill again"
        );
        return Said::no(kind, DrillReason::NotReached, message);
    }
    match verdicts::warned(&status.verdicts) {
        Some(warned) => {
            let why = warned.message.clone().unwrap_or_default();
            Said::yes(kind, warned.reason, format!("it was restored, and {}: {why}", warned.name))
        }
        None => {
            let slot = status.backup.as_ref().map(|backup| backup.slot.to_string()).unwrap_or_default();
            Said::yes(kind, DrillReason::AsAsked, format!("{slot} was restored, and every check passed"))
        }
    }
}

fn objectives_met(
    status: &RestoreDrillStatus,
    passed: &Said,
    promised: Option<Objectives>,
    choice: Choice,
) -> Said {
    let unknown = |message| Said::unknown(DrillCondition::ObjectivesMet, DrillReason::NotReached, message);
    match promised {
        _ if !passed.is_true() => unknown("a drill that did not pass shows no recovery"),
        None => unknown("the policy is gone, and with it what was promised"),
        Some(promised) => measure::objectives(&status.measured.clone().unwrap_or_default(), promised, choice),
    }
}

fn closes(status: &mut RestoreDrillStatus, plan: &Plan, outcome: &Outcome, now: Timestamp) -> Vec<Said> {
    let mut said = vec![];
    let kind = DrillCondition::Recorded;
    if let Some(record) = &outcome.record {
        said.push(Said::yes(kind, DrillReason::AsAsked, format!("it lies in {}", record.store)));
        status.record = Some(record.clone());
    } else if let Some(why) = &outcome.nothing_to_record {
        said.push(Said::no(kind, DrillReason::NotAskedFor, why.clone()));
    } else if let Some(why) = &outcome.not_recorded {
        said.push(Said::no(kind, DrillReason::RecordFailed, why.clone()));
    }
    let kind = DrillCondition::TornDown;
    let ended = status.ended.as_ref().map_or(now, |time| time.0);
    match &plan.teardown {
        None => {}
        Some(Next::Gone) => {
            said.push(Said::yes(kind, DrillReason::AsAsked, "nothing that was restored is left"));
            status.namespace = None;
            status.namespace_uid = None;
            status.volumes = vec![];
            let teardown = measure::phase(Phase::TearDown, ended, now);
            let measured = status.measured.take().unwrap_or_default();
            status.measured = Some(measure::with_phases(measured, [teardown]));
        }
        Some(Next::Deletes { left, .. }) => {
            let is_late = now.duration_since(ended) > teardown::LIMIT;
            let reason = if is_late { DrillReason::TearDownFailed } else { DrillReason::TearingDown };
            let message = match &outcome.not_torn_down {
                Some(why) => format!("{left} ({why})"),
                None => left.clone(),
            };
            said.push(Said::no(kind, reason, message));
        }
    }
    said
}

fn time(moment: Timestamp) -> Time {
    Time(Timestamp::from_second(moment.as_second()).unwrap_or(moment))
}

/// Writes the status if it changed, and an event if it is news.
///
/// # Errors
/// If the API server refuses it. That the object has moved on is none: its next version brings the next look.
pub async fn tell(run: &Run, status: &RestoreDrillStatus, context: &Context) -> Result<(), Error> {
    match context.cluster.set_status_in_namespace(Kind::RestoreDrill, run.object.as_ref(), status).await {
        Ok(Applied::Unchanged) => return Ok(()),
        Ok(Applied::Written) => {}
        Err(error) if error.is_conflict() || error.is_not_found() => {
            debug!("the drill has moved on");
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    let before = run.status();
    let kinds = [
        DrillCondition::Passed,
        DrillCondition::ObjectivesMet,
        DrillCondition::TornDown,
        DrillCondition::Recorded,
    ];
    let news = kinds.into_iter().filter_map(|kind| news(kind, &before.conditions, &status.conditions));
    events::publish(&context.recorder, &run.object.object_ref(&()), news.collect()).await;
    Ok(())
}

/// What a person should notice of `kind`: another reason than before.
fn news(kind: DrillCondition, before: &[Condition], after: &[Condition]) -> Option<News> {
    let name = format!("{kind:?}");
    let find = |conditions: &[Condition]| conditions.iter().find(|said| said.type_ == name).cloned();
    let (old, new) = (find(before), find(after)?);
    let not_reached = format!("{:?}", DrillReason::NotReached);
    if new.reason == not_reached
        || old.is_some_and(|old| old.reason == new.reason && old.status == new.status)
    {
        return None;
    }
    let is_bad = new.status == "False"
        && new.reason != format!("{:?}", DrillReason::TearingDown)
        && new.reason != format!("{:?}", DrillReason::NotAskedFor);
    let waits_for_key = new.reason == format!("{:?}", DrillReason::KeyMissing);
    let tone = if is_bad || waits_for_key { Tone::Warning } else { Tone::Normal };
    Some(News { tone, reason: format!("{name}{}", new.reason), note: new.message })
}
