//! Says how a store stands: conditions by the rules of kstatus, what was seen, and events for what changed.
//!
//! Input: the store, what is known of it, its breaker, the time. Output: a status. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use valv_crds::{
    BackupStoreStatus,
    condition::{Saying, Truth},
    store::{SigningKeyStatus, StoreCondition, StoreReason},
};

use super::{
    check::Store,
    judge::{Ground, Known, StoreSaying, judge},
};
use crate::io::events::{News, Tone};

/// The status of `store`.
pub fn status(store: &Store, known: &Known, ground: Ground, now: Timestamp) -> BackupStoreStatus {
    let standing =
        store.object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let sayings = judge(store, known, &ground, now);
    let signing_key = ground
        .signing
        .key()
        .map(|key| SigningKeyStatus { id: key.id().to_string(), public_key: key.to_pem() });
    let ready = ready(&sayings);
    let all = [ready.clone()].into_iter().chain(kstatus(&ready)).chain(sayings);
    let generation = store.object.metadata.generation;
    BackupStoreStatus {
        observed_generation: generation,
        last_probe: known.last_whole.map(Time),
        capabilities: known
            .findings
            .as_ref()
            .map(|findings| findings.capabilities.clone())
            .unwrap_or_default(),
        breaker: ground.breaker,
        // What was published once stays, so that a key that is lost is missed.
        signing_key: signing_key.or_else(|| store.object.status.as_ref()?.signing_key.clone()),
        conditions: all.map(|saying| saying.dated(standing, generation, now)).collect(),
    }
}

/// Whether backups may go there.
pub fn is_ready(status: &BackupStoreStatus) -> bool {
    let ready = format!("{:?}", StoreCondition::Ready);
    status.conditions.iter().any(|condition| condition.type_ == ready && condition.status == "True")
}

/// The first thing that is not so; or what is worth telling although all is.
fn ready(sayings: &[StoreSaying]) -> StoreSaying {
    let ready = StoreCondition::Ready;
    let mut sayings = sayings.iter().filter(|saying| saying.kind != StoreCondition::WriterConfined);
    let told = |saying: &StoreSaying| format!("{:?}: {}", saying.kind, saying.message);
    if let Some(wrong) = sayings.clone().find(|saying| !saying.is_true()) {
        return Saying::no(ready, wrong.reason, told(wrong));
    }
    match sayings.find(|saying| saying.reason != StoreReason::AsAsked) {
        Some(noted) => Saying::yes(ready, noted.reason, told(noted)),
        None => Saying::yes(ready, StoreReason::AsAsked, "backups may go there"),
    }
}

/// What kstatus wants beside `Ready`.
fn kstatus(ready: &StoreSaying) -> Option<StoreSaying> {
    let kind = match ready.truth {
        Truth::True => return None,
        Truth::False | Truth::Unknown if is_stuck(ready.reason) => StoreCondition::Stalled,
        Truth::False | Truth::Unknown => StoreCondition::Reconciling,
    };
    Some(Saying { kind, truth: Truth::True, reason: ready.reason, message: ready.message.clone() })
}

/// Whether nothing goes there until somebody acts.
fn is_stuck(reason: StoreReason) -> bool {
    use StoreReason as R;
    match reason {
        R::CredentialsMissing
        | R::CredentialsUnlabelled
        | R::CredentialsShared
        | R::CredentialsRefused
        | R::TlsRefused
        | R::BucketMissing
        | R::RegionDiffers
        | R::AddressingDiffers
        | R::LockMissing
        | R::LockWeak
        | R::LockNotExtendable
        | R::WriterCanRead
        | R::WriterCanList
        | R::WriterCanDelete
        | R::WriterCanCommit
        | R::CommitterCanWriteData
        | R::CommitterCanDelete
        | R::ReaderCanWrite
        | R::JanitorCanRead
        | R::JanitorCanHide
        | R::ClockSkewed
        | R::Full
        | R::LocationRefused
        | R::EgressClosed
        | R::SigningKeyLost
        | R::SigningKeyDiffers => true,
        R::AsAsked
        | R::NotProbedYet
        | R::ProbeOutdated
        | R::Unreachable
        | R::TimedOut
        | R::Failing
        | R::CertificateExpiring
        | R::StaleReads
        | R::SigningKeyUnsaved
        | R::SigningKeyNotStored
        | R::WriterShared
        | R::WriterCanOverwrite
        | R::BreakerOpen
        | R::BreakerHalfOpen => false,
    }
}

/// What a person should notice: conditions that changed.
pub fn news(before: &[Condition], after: &[Condition]) -> Vec<News> {
    let derived = [StoreCondition::Reconciling, StoreCondition::Stalled].map(|kind| format!("{kind:?}"));
    let unprobed = format!("{:?}", StoreReason::NotProbedYet);
    let as_asked = format!("{:?}", StoreReason::AsAsked);
    let changed = after.iter().filter(|condition| {
        let standing = before.iter().find(|standing| standing.type_ == condition.type_);
        match standing {
            Some(standing) => (&standing.status, &standing.reason) != (&condition.status, &condition.reason),
            None => condition.reason != as_asked,
        }
    });
    changed
        .filter(|condition| !derived.contains(&condition.type_) && condition.reason != unprobed)
        .map(|condition| News {
            tone: if condition.reason == as_asked { Tone::Normal } else { Tone::Warning },
            reason: condition.reason.clone(),
            note: format!("{}: {}", condition.type_, condition.message),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::ToSpan;
    use valv_crds::store::WriterScope;

    use super::*;
    use crate::{
        archive::envelope::PublicKey,
        signing::Standing,
        store::{
            check::{check, tests::store},
            judge::tests::{good, ground, noon},
            probe::{Extent, Trouble},
        },
    };

    fn said(known: &Known) -> BackupStoreStatus {
        status(&store(), known, ground(), noon())
    }

    #[test]
    fn what_a_writer_reaches_is_said_and_keeps_no_backup_away() {
        let mut shared = good();
        let findings = shared.findings.as_mut().unwrap();
        findings.capabilities.writer_scope.as_mut().unwrap().scope = WriterScope::Shared;

        let status = said(&shared);

        assert!(is_ready(&status));
        assert_eq!(condition(&status, StoreCondition::Ready), pair("True", "AsAsked"));
        assert_eq!(condition(&status, StoreCondition::WriterConfined), pair("False", "WriterShared"));
    }

    #[test]
    fn the_key_that_was_published_stays_in_the_status_when_it_is_lost() {
        let first = said(&good());
        let mut object = store().object.as_ref().clone();
        object.status = Some(first.clone());
        let lost = Ground { signing: Standing::Lost("it is lost".into()), ..ground() };

        let later = status(&check(Arc::new(object)), &good(), lost, noon());

        assert!(first.signing_key.as_ref().is_some_and(|key| key.public_key.contains("PUBLIC KEY")));
        assert_eq!(later.signing_key, first.signing_key);
        assert_eq!(condition(&later, StoreCondition::Stalled), pair("True", "SigningKeyLost"));
    }

    fn condition(status: &BackupStoreStatus, kind: StoreCondition) -> Option<(String, String)> {
        let found = status.conditions.iter().find(|condition| condition.type_ == format!("{kind:?}"))?;
        Some((found.status.clone(), found.reason.clone()))
    }

    fn troubled(reason: StoreReason) -> Known {
        let mut known = good();
        let findings = known.findings.as_mut().unwrap();
        findings.troubles = vec![Trouble { reason, message: "so it was".into() }];
        findings.extent = Extent::CutShort;
        known
    }

    fn pair(status: &str, reason: &str) -> Option<(String, String)> {
        Some((status.to_owned(), reason.to_owned()))
    }

    #[test]
    fn a_store_that_is_as_claimed_is_ready_and_nothing_else_is_said() {
        let status = said(&good());

        assert!(is_ready(&status));
        assert_eq!(status.observed_generation, Some(3));
        assert_eq!(status.last_probe, Some(Time(noon())));
        assert_eq!(condition(&status, StoreCondition::Stalled), None);
        assert_eq!(condition(&status, StoreCondition::Reconciling), None);
    }

    #[test]
    fn what_a_person_must_mend_is_stalled_and_what_is_tried_again_is_reconciling() {
        let refused = said(&troubled(StoreReason::CredentialsRefused));
        let away = said(&troubled(StoreReason::Unreachable));

        assert_eq!(condition(&refused, StoreCondition::Ready), pair("False", "CredentialsRefused"));
        assert_eq!(condition(&refused, StoreCondition::Stalled), pair("True", "CredentialsRefused"));
        assert_eq!(condition(&away, StoreCondition::Ready), pair("False", "Unreachable"));
        assert_eq!(condition(&away, StoreCondition::Reconciling), pair("True", "Unreachable"));
    }

    #[test]
    fn a_store_that_was_never_probed_is_not_ready_and_no_news() {
        let status = said(&Known { findings: None, last_whole: None });

        assert_eq!(condition(&status, StoreCondition::Ready), pair("False", "NotProbedYet"));
        assert_eq!(condition(&status, StoreCondition::Reconciling), pair("True", "NotProbedYet"));
        assert_eq!(news(&[], &status.conditions), []);
    }

    #[test]
    fn an_unchanged_store_is_an_unchanged_status() {
        let first = said(&good());
        let mut object = store().object.as_ref().clone();
        object.status = Some(first.clone());
        let later = noon() + 60.minutes();

        let mut same = ground();
        let key = PublicKey::from_pem(&first.signing_key.as_ref().unwrap().public_key).unwrap();
        same.signing = Standing::Kept(key);
        let again = status(&check(Arc::new(object)), &good(), same, later);

        assert_eq!(again, first);
    }

    #[test]
    fn what_changed_is_told_once() {
        let (well, ill) = (said(&good()), said(&troubled(StoreReason::Unreachable)));

        let bad = news(&well.conditions, &ill.conditions);
        let good = news(&ill.conditions, &well.conditions);

        let reasons =
            |news: &[News]| news.iter().map(|news| (news.tone, news.reason.clone())).collect::<Vec<_>>();
        assert_eq!(reasons(&bad), vec![(Tone::Warning, "Unreachable".to_owned()); 2]);
        assert_eq!(reasons(&good), vec![(Tone::Normal, "AsAsked".to_owned()); 2]);
        assert_eq!(news(&well.conditions, &well.conditions), []);
    }
}
