//! Says how a copy stands, in the `Backup`'s status: its store's entry, and the condition `Copied`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};
use tracing::debug;
use valv_crds::{
    Backup, BackupPolicy,
    backup::{BackupCondition, BackupReason, BackupStatus, ObjectDigest, StoredIn, Verified},
    condition::Saying,
    policy::VerificationMode,
};

use super::{Context, apply::Outcome, check::Copy, plan::Step};
use crate::{
    archive::{commit::Commit, verify::Mode},
    io::{
        cluster::Error,
        events::{self, News, Tone},
        kind::Kind,
    },
    janitor::observe::{is_true, lies_in},
};

/// One thing that is said of a backup.
type Said = Saying<BackupCondition, BackupReason>;

/// The status of `backup` after `step`; `None` if nothing is to be said.
pub fn status(
    copy: &Copy,
    backup: &Backup,
    step: &Step,
    outcome: &Outcome,
    now: Timestamp,
) -> Option<BackupStatus> {
    let standing = backup.status.as_ref()?;
    // Somebody else said so meanwhile, or retention let it go.
    if !is_true(backup, BackupCondition::Complete) || is_true(backup, BackupCondition::Copied) {
        return None;
    }
    let mut status = standing.clone();
    if let Some(stored) = stored(copy, outcome) {
        status.stores.retain(|standing| standing.name != stored.name);
        status.stores.push(stored);
        let place = |name: &str| copy.policy.spec.stores.iter().position(|other| other == name);
        status.stores.sort_by_key(|stored| place(&stored.name).unwrap_or(usize::MAX));
    }
    let said = said(copy, &status, step, outcome)?;
    let dated = said.dated(&standing.conditions, backup.metadata.generation, now);
    status.conditions.retain(|condition| condition.type_ != dated.type_);
    status.conditions.push(dated);
    (status != *standing).then_some(status)
}

fn stored(copy: &Copy, outcome: &Outcome) -> Option<StoredIn> {
    let found = outcome.committed.as_ref()?;
    let Commit { archive, slot, verified, retain_until, committed, .. } = &found.commit;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    Some(StoredIn {
        name: copy.target.name.clone(),
        commit: Some(ObjectDigest {
            key: Commit::key(archive, *slot).to_string(),
            version: found.version.as_ref().map(|version| version.as_str().to_owned()),
            blake3: found.blake3.to_string(),
        }),
        committed: Some(Time(*committed)),
        verification: Some(Verified {
            mode: match verified.mode {
                Mode::Full => VerificationMode::Full,
                Mode::Sample => VerificationMode::Sample,
                Mode::Metadata => VerificationMode::Metadata,
            },
            segments_read: number(verified.segments_read),
            segments: number(verified.segments),
            at: Time(verified.at),
        }),
        locked_until: retain_until.map(Time),
    })
}

/// What is said of all copies after this step of one; `None` if what stands is as good.
fn said(copy: &Copy, status: &BackupStatus, step: &Step, outcome: &Outcome) -> Option<Said> {
    let target = &copy.target.name;
    let no = |reason, message: String| Some(Said::no(BackupCondition::Copied, reason, message));
    if let Some((reason, message)) = &outcome.refused {
        return no(*reason, format!("{target} has no copy: {message}"));
    }
    let missing = missing(&copy.policy, status);
    match (step, missing.as_slice()) {
        (_, []) if copy.policy.spec.stores.len() < 2 => {
            Some(Said::yes(BackupCondition::Copied, BackupReason::NotAskedFor, "the policy has one store"))
        }
        (_, []) => {
            let message = format!("every store of the policy has it: {}", copy.policy.spec.stores.join(", "));
            Some(Said::yes(BackupCondition::Copied, BackupReason::Committed, message))
        }
        (Step::Failed { number, failure }, _) => no(
            failure.reason,
            format!("attempt {number}{}, another comes: {}", failed_to(target), failure.message),
        ),
        // It may wait for as long as many others: that is no news while another store is waited for.
        (Step::Waits { reason, message }, [only]) if only == target => no(*reason, message.clone()),
        (_, missing) if outcome.committed.is_some() || outcome.begun.is_some() => {
            no(BackupReason::Copying, format!("to be copied to {}", missing.join(", ")))
        }
        (Step::Runs { number }, [only]) if only == target => {
            no(BackupReason::Copying, format!("attempt {number} copies it to {target}"))
        }
        (
            Step::Done
            | Step::Rests
            | Step::Waits { .. }
            | Step::Begins { .. }
            | Step::Runs { .. }
            | Step::Commits { .. },
            _,
        ) => None,
    }
}

/// How it is said of an attempt that it failed.
pub fn failed_to(target: &str) -> String {
    format!(" to copy it to {target} failed")
}

/// The stores of the policy that have no commit.
fn missing(policy: &BackupPolicy, status: &BackupStatus) -> Vec<String> {
    let has =
        |name: &String| status.stores.iter().any(|stored| stored.name == *name && stored.commit.is_some());
    policy.spec.stores.iter().filter(|name| !has(name)).cloned().collect()
}

/// Writes it, on the object as it is now: others may have written since, and what they wrote stays.
///
/// # Errors
/// If the cluster refuses it. That the object moved on once more is none: the next round says it again.
pub async fn tell(
    copy: &Copy,
    step: &Step,
    outcome: &Outcome,
    context: &Context,
    now: Timestamp,
) -> Result<(), Error> {
    if status(copy, &copy.backup, step, outcome, now).is_none() {
        return Ok(());
    }
    let (namespace, name) = (copy.backup.namespace().unwrap_or_default(), copy.backup.name_any());
    let found = context.cluster.get::<Backup>(Kind::Backup, &namespace, &name).await?;
    let Some(found) = found.filter(|found| found.uid() == copy.backup.uid()) else { return Ok(()) };
    let Some(status) = status(copy, &found, step, outcome, now) else { return Ok(()) };
    context.cluster.set_status_in_namespace(Kind::Backup, &found, &status).await?;
    debug!(object.name = name, "said how its copies stand");
    let news = news(copy, &found, step, outcome);
    events::publish(&context.recorder, &found.object_ref(&()), news).await;
    Ok(())
}

fn news(copy: &Copy, before: &Backup, step: &Step, outcome: &Outcome) -> Vec<News> {
    let target = &copy.target.name;
    let one = |tone, reason: String, note| vec![News { tone, reason, note }];
    match (outcome, step) {
        (Outcome { committed: Some(found), .. }, _) if !lies_in(before, target) => one(
            Tone::Normal,
            "Copied".to_owned(),
            format!("{target} has a copy, committed {}", found.commit.committed),
        ),
        (Outcome { refused: Some((reason, message)), .. }, _) => {
            one(Tone::Warning, format!("{reason:?}"), format!("{target} has no copy: {message}"))
        }
        (_, Step::Failed { number, failure }) => one(
            Tone::Warning,
            format!("{:?}", failure.reason),
            format!("attempt {number} to copy it to {target} failed: {}", failure.message),
        ),
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::last_words::Failure,
        archive::{
            commit::{self, ManifestRef},
            digest::Blake3,
            fetch::FoundCommit,
            finding::Findings,
            manifest::{FORMAT, tests::empty},
        },
        copy::check::tests::copies_for,
    };

    fn now() -> Timestamp {
        "2026-11-22T03:00:00Z".parse().unwrap()
    }

    fn committed() -> Outcome {
        let empty = empty();
        let key = crate::archive::envelope::SigningKey::from_pem(
            &crate::archive::envelope::SigningKey::generate().unwrap(),
        )
        .unwrap();
        let commit = Commit {
            format: FORMAT,
            archive: empty.archive,
            slot: empty.slot,
            attempt: empty.attempt,
            manifest: ManifestRef { key: "k".into(), version: None, size: 2, blake3: Blake3::of(b"") },
            verified: commit::Verified {
                mode: Mode::Full,
                seed: None,
                segments_read: 3,
                segments: 3,
                at: now(),
            },
            store: commit::Store { name: "frankfurt".into(), region: "r".into(), country: "DE".into() },
            retain_until: None,
            committed: now(),
        };
        let found = FoundCommit {
            commit,
            key_id: key.public().id(),
            version: None,
            blake3: Blake3::of(b""),
            covered: Findings::default(),
        };
        Outcome { committed: Some(Box::new(found)), ..Outcome::default() }
    }

    fn told(copy: &Copy, step: &Step, outcome: &Outcome) -> Option<BackupStatus> {
        status(copy, &copy.backup, step, outcome, now())
    }

    fn copied(status: &BackupStatus) -> (String, String) {
        let condition = status.conditions.iter().find(|condition| condition.type_ == "Copied").unwrap();
        (condition.status.clone(), condition.reason.clone())
    }

    fn pair(status: &str, reason: &str) -> (String, String) {
        (status.to_owned(), reason.to_owned())
    }

    #[test]
    fn it_is_copied_when_every_store_has_its_own_commit_and_not_before() {
        let step = Step::Begins { number: 1 };
        let two = copies_for(&["helsinki", "frankfurt"]).remove(0);
        let three = copies_for(&["helsinki", "frankfurt", "oslo"]).remove(0);

        let all = told(&two, &step, &committed()).unwrap();
        let some = told(&three, &step, &committed()).unwrap();

        assert_eq!(copied(&all), pair("True", "Committed"));
        assert_eq!(copied(&some), pair("False", "Copying"));
        let names: Vec<_> = all.stores.iter().map(|stored| stored.name.as_str()).collect();
        assert_eq!(names, ["helsinki", "frankfurt"]);
    }

    #[test]
    fn what_the_backup_s_own_controller_said_stays() {
        let two = copies_for(&["helsinki", "frankfurt"]).remove(0);

        let status = told(&two, &Step::Begins { number: 1 }, &committed()).unwrap();

        let before = two.backup.status.as_ref().unwrap();
        assert_eq!(status.stores[0].commit, before.stores[0].commit);
        assert!(status.conditions.contains(&before.conditions[0]));
    }

    #[test]
    fn a_failure_is_said_with_its_own_reason_and_once() {
        let mut two = copies_for(&["helsinki", "frankfurt"]).remove(0);
        let failure = Failure { reason: BackupReason::StoreFull, message: "it is full".to_owned() };
        let step = Step::Failed { number: 2, failure };

        let status = told(&two, &step, &Outcome::default()).unwrap();
        assert_eq!(copied(&status), pair("False", "StoreFull"));

        let mut backup = two.backup.as_ref().clone();
        backup.status = Some(status);
        two.backup = std::sync::Arc::new(backup);
        assert_eq!(told(&two, &step, &Outcome::default()), None);
    }

    #[test]
    fn a_policy_with_one_store_asks_for_no_copy() {
        let one = copies_for(&["helsinki"]).remove(0);

        let status = told(&one, &Step::Done, &Outcome::default()).unwrap();

        assert_eq!(copied(&status), pair("True", "NotAskedFor"));
    }
}
