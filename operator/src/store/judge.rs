//! Holds what a store is claimed to be against what it was seen to do: one saying a condition.
//!
//! Input: the store, what is known of it, the time. Output: sayings. Pure.

use jiff::{Timestamp, ToSpan};
use valv_crds::{
    condition::Saying,
    store::{
        Answer, BreakerState, BreakerStatus, Capabilities, Seen, StoreCondition, StoreReason, WriterScope,
    },
};

use super::{
    check::Store,
    observe::Unresolved,
    probe::{Extent, Findings, Trouble},
    profile::{Quirks, Support},
};
use crate::signing;

/// What a store says of one of its conditions.
pub type StoreSaying = Saying<StoreCondition, StoreReason>;

/// A certificate that ends sooner is told of while there is time.
const CERTIFICATE_DAYS: i64 = 14;

/// S3 refuses signatures at 15 minutes: a third of that is told of.
const SKEW_LIMIT_SECONDS: u64 = 300;

/// Countries in which the GDPR is law: the Union, and the EEA. Until a sovereignty policy says which of them, all.
const COUNTRIES: [&str; 30] = [
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IS", "IT",
    "LI", "LT", "LU", "LV", "MT", "NL", "NO", "PL", "PT", "RO", "SE", "SI", "SK",
];

/// What is known of a store.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// What its last probe saw; absent before the first of this spec and these credentials.
    pub findings: Option<Findings>,
    /// When one last came to its end.
    pub last_whole: Option<Timestamp>,
}

/// What a store stands on besides itself.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Why its Secrets are not its four identities; absent: they are.
    pub unresolved: Option<Unresolved>,
    /// Whether requests go there.
    pub breaker: BreakerStatus,
    /// Whether pods are let out to any store.
    pub egress: Egress,
    /// How the key stands that commits are signed with.
    pub signing: signing::Standing,
}

/// Whether pods are let out to any store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// The chart's `stores.egress` names addresses.
    Open,
    /// It names none.
    Closed,
}

/// All conditions but those of kstatus, in the order in which `Ready` repeats the first that is not so; but
/// `WriterConfined`, which says something and stops nothing.
pub fn judge(store: &Store, known: &Known, ground: &Ground, now: Timestamp) -> Vec<StoreSaying> {
    vec![
        credentials(ground.unresolved.as_ref(), known),
        location(store),
        way(known, ground.egress, now),
        capabilities(store, known, now),
        closed(&ground.breaker),
        signing_key(&ground.signing, known),
        confined(known),
    ]
}

/// Whether the next probe has time: this one proved all that it should.
pub fn is_proven(store: &Store, known: &Known, now: Timestamp) -> bool {
    known.findings.as_ref().is_some_and(|findings| findings.extent == Extent::Whole)
        && [credentials(None, known), reachable(known, now), capabilities(store, known, now)]
            .iter()
            .all(StoreSaying::is_true)
}

fn credentials(unresolved: Option<&Unresolved>, known: &Known) -> StoreSaying {
    use StoreCondition::CredentialsResolved;
    match unresolved {
        Some(missing @ (Unresolved::Missing { .. } | Unresolved::Incomplete { .. })) => {
            Saying::no(CredentialsResolved, StoreReason::CredentialsMissing, missing.to_string())
        }
        Some(unlabelled @ Unresolved::Unlabelled { .. }) => {
            Saying::no(CredentialsResolved, StoreReason::CredentialsUnlabelled, unlabelled.to_string())
        }
        Some(shared @ Unresolved::Shared { .. }) => {
            Saying::no(CredentialsResolved, StoreReason::CredentialsShared, shared.to_string())
        }
        None => match trouble(known, |reason| reason == StoreReason::CredentialsRefused) {
            Some(trouble) => Saying::no(CredentialsResolved, trouble.reason, &trouble.message),
            None => Saying::yes(CredentialsResolved, StoreReason::AsAsked, "four Secrets, four identities"),
        },
    }
}

fn location(store: &Store) -> StoreSaying {
    let country = &store.location.country;
    if COUNTRIES.contains(&country.as_str()) {
        return Saying::yes(
            StoreCondition::LocationAllowed,
            StoreReason::AsAsked,
            format!("it lies in {country}"),
        );
    }
    let message = format!("{country} is not in the European Economic Area");
    Saying::no(StoreCondition::LocationAllowed, StoreReason::LocationRefused, message)
}

/// Whether operator and pods reach it.
fn way(known: &Known, egress: Egress, now: Timestamp) -> StoreSaying {
    match egress {
        Egress::Open => reachable(known, now),
        Egress::Closed => {
            let message = "the chart's stores.egress is empty, so no pod that writes or reads backups is let out: name the addresses and ports of every store there, or of the proxy on the way";
            Saying::no(StoreCondition::Reachable, StoreReason::EgressClosed, message)
        }
    }
}

fn reachable(known: &Known, now: Timestamp) -> StoreSaying {
    use StoreCondition::Reachable;
    let Some(findings) = &known.findings else { return unprobed(Reachable) };
    if let Some(trouble) = trouble(known, is_of_the_way) {
        return Saying::no(Reachable, trouble.reason, &trouble.message);
    }
    let ends = findings.capabilities.certificate.as_ref().map(|certificate| certificate.not_after.0);
    match ends {
        Some(ends) if ends < now + (CERTIFICATE_DAYS * 24).hours() => {
            let message = format!("it answers over TLS, with a certificate that ends {ends}");
            Saying::yes(Reachable, StoreReason::CertificateExpiring, message)
        }
        _ => Saying::yes(Reachable, StoreReason::AsAsked, "it answers over TLS"),
    }
}

fn capabilities(store: &Store, known: &Known, now: Timestamp) -> StoreSaying {
    use StoreCondition::CapabilitiesProven;
    let quirks = Quirks::of(store.profile);
    let Quirks { product, lock, versions, .. } = quirks;
    if store.object_lock.is_some() && [lock, versions].contains(&Support::No) {
        let message = format!("spec.objectLock claims a lock, and {product}, as spec.profile says, has none");
        return Saying::no(CapabilitiesProven, StoreReason::LockMissing, message);
    }
    let Some(findings) = &known.findings else { return unprobed(CapabilitiesProven) };
    let is_elsewhere = [StoreReason::CredentialsRefused, StoreReason::SigningKeyNotStored];
    if let Some(trouble) = trouble(known, |reason| !is_of_the_way(reason) && !is_elsewhere.contains(&reason))
    {
        return Saying::no(CapabilitiesProven, trouble.reason, &trouble.message);
    }
    let seen = &findings.capabilities;
    let claims = claims(store, seen);
    for claim in &claims {
        if let Some(broken) = claim.seen.filter(|seen| seen.answer == claim.wrong) {
            let detail = broken.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
            return Saying::no(CapabilitiesProven, claim.reason, format!("{}{detail}", claim.sentence));
        }
    }
    if let Some(skew) =
        seen.clock_skew.as_ref().filter(|skew| skew.seconds.unsigned_abs() > SKEW_LIMIT_SECONDS)
    {
        let message = format!("its clock is {} s from the operator's (below zero: behind)", skew.seconds);
        return Saying::no(CapabilitiesProven, StoreReason::ClockSkewed, message);
    }
    for claim in &claims {
        if claim.seen.is_none_or(|seen| seen.answer == Answer::Unknown) {
            let detail = claim.seen.and_then(|seen| seen.detail.clone());
            let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
            let message = format!("it could not be found out whether {}{detail}", claim.sentence);
            let reason =
                findings.troubles.first().map_or(StoreReason::NotProbedYet, |trouble| trouble.reason);
            return Saying::unknown(CapabilitiesProven, reason, message);
        }
    }
    match known.last_whole {
        None => unprobed(CapabilitiesProven),
        Some(whole) if whole + store.probe_every.duration() * 2 < now => {
            let message = format!("the last complete probe ended {whole}");
            Saying::unknown(CapabilitiesProven, StoreReason::ProbeOutdated, message)
        }
        Some(_) => {
            let message = "what the spec claims was seen, and no identity can do what it must not";
            let put = seen.conditional_put.as_ref().map(|seen| seen.answer);
            match put.and_then(|put| quirks.difference(put)) {
                Some(differs) => {
                    let message = format!("{message}; but is spec.profile right? {differs}");
                    Saying::yes(CapabilitiesProven, StoreReason::AsAsked, message)
                }
                None => Saying::yes(CapabilitiesProven, StoreReason::AsAsked, message),
            }
        }
    }
}

/// Something that must not be.
struct Claim<'a> {
    seen: Option<&'a Seen>,
    wrong: Answer,
    reason: StoreReason,
    sentence: &'static str,
}

/// What must not be, the worst first. What the spec does not claim is not among it.
fn claims<'a>(store: &Store, seen: &'a Capabilities) -> Vec<Claim<'a>> {
    use StoreReason as R;
    let claim = |seen: &'a Option<Seen>, wrong, reason, sentence| Claim {
        seen: seen.as_ref(),
        wrong,
        reason,
        sentence,
    };
    let mut claims = vec![];
    if store.object_lock.is_some() {
        claims.extend([
            claim(
                &seen.versioning,
                Answer::No,
                R::LockMissing,
                "spec.objectLock claims a lock, and versions are not kept",
            ),
            claim(
                &seen.lock_refuses_deletion,
                Answer::No,
                R::LockMissing,
                "spec.objectLock claims a lock, and there is none",
            ),
            claim(
                &seen.lock_refuses_shortening,
                Answer::No,
                R::LockWeak,
                "spec.objectLock claims a lock, and it is weaker than claimed",
            ),
            claim(&seen.lock_extends, Answer::No, R::LockNotExtendable, "the committer cannot extend a lock"),
        ]);
    }
    claims.extend([
        claim(&seen.writer_can_delete, Answer::Yes, R::WriterCanDelete, "the writer can delete"),
        claim(&seen.committer_can_delete, Answer::Yes, R::CommitterCanDelete, "the committer can delete"),
        claim(
            &seen.writer_can_commit,
            Answer::Yes,
            R::WriterCanCommit,
            "the writer can put objects under commits/, keys/ or records/",
        ),
        claim(
            &seen.committer_can_write_data,
            Answer::Yes,
            R::CommitterCanWriteData,
            "the committer can put objects under data/",
        ),
        claim(&seen.writer_can_read, Answer::Yes, R::WriterCanRead, "the writer can read objects"),
        claim(&seen.writer_can_list, Answer::Yes, R::WriterCanList, "the writer can list the bucket"),
        claim(&seen.reader_can_write, Answer::Yes, R::ReaderCanWrite, "the reader can write or delete"),
        claim(&seen.janitor_can_read, Answer::Yes, R::JanitorCanRead, "the janitor can read objects"),
    ]);
    // Where there are no versions, that is how the janitor deletes.
    if seen.versioning.as_ref().is_some_and(|seen| seen.answer != Answer::No) {
        claims.push(claim(
            &seen.janitor_can_hide,
            Answer::Yes,
            R::JanitorCanHide,
            "the janitor can delete without naming a version: it can hide a backup as well as destroy it, so take DeleteObject from it and leave it DeleteObjectVersion",
        ));
    }
    claims.push(claim(
        &seen.read_after_write,
        Answer::No,
        R::StaleReads,
        "what was put is not there for the reader at once",
    ));
    claims
}

fn closed(breaker: &BreakerStatus) -> StoreSaying {
    use StoreCondition::BreakerClosed;
    let failures = breaker.failures;
    match breaker.state {
        BreakerState::Closed => Saying::yes(BreakerClosed, StoreReason::AsAsked, "requests go there"),
        BreakerState::Open => {
            let message = format!("{failures} failures in a row: nothing goes there for a while");
            Saying::no(BreakerClosed, StoreReason::BreakerOpen, message)
        }
        BreakerState::HalfOpen => {
            let message = format!("{failures} failures in a row: one request is tried");
            Saying::no(BreakerClosed, StoreReason::BreakerHalfOpen, message)
        }
    }
}

fn signing_key(standing: &signing::Standing, known: &Known) -> StoreSaying {
    use StoreCondition::SigningKeyKept;
    match standing {
        signing::Standing::Kept(key) => {
            let message = format!("commits are signed with the key {}", key.id());
            match trouble(known, |reason| reason == StoreReason::SigningKeyNotStored) {
                Some(Trouble { reason, message: why }) => {
                    Saying::yes(SigningKeyKept, *reason, format!("{message}; {why}"))
                }
                None => Saying::yes(SigningKeyKept, StoreReason::AsAsked, message),
            }
        }
        signing::Standing::Unsaved(key) => {
            let message = format!(
                "the Secret {} is gone, and this operator still has the key {} in memory: put the Secret back before the operator ends (docs/operations/signing-key.md)",
                signing::SECRET,
                key.id()
            );
            Saying::yes(SigningKeyKept, StoreReason::SigningKeyUnsaved, message)
        }
        signing::Standing::Lost(message) => Saying::no(SigningKeyKept, StoreReason::SigningKeyLost, message),
        signing::Standing::Differs(message) => {
            Saying::no(SigningKeyKept, StoreReason::SigningKeyDiffers, message)
        }
    }
}

/// What the writer could do to others' data, and to its own. Locks, versions and commits stand against that; a store
/// without them has only the commit's word for what was there.
fn confined(known: &Known) -> StoreSaying {
    use StoreCondition::WriterConfined;
    let Some(findings) = &known.findings else { return unprobed(WriterConfined) };
    let seen = &findings.capabilities;
    let overwrites = seen.writer_can_overwrite.as_ref().map(|seen| seen.answer);
    let scope = seen.writer_scope.as_ref().map(|seen| seen.scope);
    match (overwrites, scope) {
        (Some(Answer::Yes), _) => {
            let message = "versions are not kept: whoever has the writer's credentials can replace what lies in the archives that it reaches, which the next drill or verification finds, and nothing brings back";
            Saying::no(WriterConfined, StoreReason::WriterCanOverwrite, message)
        }
        (Some(Answer::No), Some(WriterScope::Shared)) => {
            let message = "all tenants' agents have the same writer: one that was taken over could add objects to another's archive, which no commit names";
            Saying::no(WriterConfined, StoreReason::WriterShared, message)
        }
        (Some(Answer::No), Some(WriterScope::PerTenant)) => {
            Saying::yes(WriterConfined, StoreReason::AsAsked, "the writer reaches its own archive only")
        }
        _ => unprobed(WriterConfined),
    }
}

fn unprobed(condition: StoreCondition) -> StoreSaying {
    Saying::unknown(
        condition,
        StoreReason::NotProbedYet,
        "the probe of this spec and these credentials has not ended",
    )
}

fn trouble(known: &Known, is: impl Fn(StoreReason) -> bool) -> Option<&Trouble> {
    let troubles = known.findings.as_ref().map(|findings| findings.troubles.as_slice()).unwrap_or_default();
    troubles.iter().find(|trouble| is(trouble.reason))
}

/// Whether a trouble is of the way to the bucket, and not of what it can do.
fn is_of_the_way(reason: StoreReason) -> bool {
    matches!(
        reason,
        StoreReason::Unreachable
            | StoreReason::TimedOut
            | StoreReason::Failing
            | StoreReason::TlsRefused
            | StoreReason::BucketMissing
            | StoreReason::RegionDiffers
            | StoreReason::AddressingDiffers
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use valv_crds::store::{Profile, SeenCertificate, SeenScope, SeenSkew};

    use super::*;
    use crate::{
        archive::envelope::SigningKey,
        signing::Standing,
        store::check::{Identity, check, tests::store},
    };

    pub(crate) fn noon() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn seen(answer: Answer) -> Option<Seen> {
        Some(Seen { answer, at: Time(noon()), detail: None })
    }

    /// A store that is all that it is claimed to be.
    pub(crate) fn good() -> Known {
        let capabilities = Capabilities {
            reachable: seen(Answer::Yes),
            tls: seen(Answer::Yes),
            certificate: Some(SeenCertificate { not_after: Time(noon() + 2400.hours()), at: Time(noon()) }),
            path_style: seen(Answer::Yes),
            conditional_put: seen(Answer::Yes),
            versioning: seen(Answer::Yes),
            lock_refuses_deletion: seen(Answer::Yes),
            lock_refuses_shortening: seen(Answer::Yes),
            lock_extends: seen(Answer::Yes),
            writer_can_read: seen(Answer::No),
            writer_can_list: seen(Answer::No),
            writer_can_delete: seen(Answer::No),
            writer_can_overwrite: seen(Answer::No),
            writer_scope: Some(SeenScope { scope: WriterScope::PerTenant, at: Time(noon()) }),
            writer_can_commit: seen(Answer::No),
            committer_can_write_data: seen(Answer::No),
            committer_can_delete: seen(Answer::No),
            reader_can_write: seen(Answer::No),
            janitor_can_read: seen(Answer::No),
            janitor_can_hide: seen(Answer::No),
            read_after_write: seen(Answer::Yes),
            clock_skew: Some(SeenSkew { seconds: -3, at: Time(noon()) }),
        };
        let findings = Findings { capabilities, troubles: vec![], extent: Extent::Whole };
        Known { findings: Some(findings), last_whole: Some(noon()) }
    }

    /// The first that is not so; or, if all is, what is worth telling of it all the same.
    fn worst(
        store: &Store,
        unresolved: Option<&Unresolved>,
        known: &Known,
        breaker: BreakerState,
    ) -> StoreReason {
        let breaker = BreakerStatus { state: breaker, ..BreakerStatus::default() };
        worst_on(store, known, &Ground { unresolved: unresolved.cloned(), breaker, ..ground() })
    }

    /// Nothing stands in the way.
    pub(crate) fn ground() -> Ground {
        let key = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap().public();
        Ground {
            unresolved: None,
            breaker: BreakerStatus::default(),
            egress: Egress::Open,
            signing: Standing::Kept(key),
        }
    }

    fn worst_on(store: &Store, known: &Known, ground: &Ground) -> StoreReason {
        let sayings = judge(store, known, ground, noon());
        let wrong = sayings.iter().find(|saying| !saying.is_true());
        let noted = || sayings.iter().find(|saying| saying.reason != StoreReason::AsAsked);
        wrong.or_else(noted).map_or(StoreReason::AsAsked, |saying| saying.reason)
    }

    fn reason_of(known: &Known) -> StoreReason {
        worst(&store(), None, known, BreakerState::Closed)
    }

    fn with(change: impl FnOnce(&mut Capabilities)) -> Known {
        let mut known = good();
        change(&mut known.findings.as_mut().unwrap().capabilities);
        known
    }

    #[test]
    fn a_store_that_is_as_claimed_is_so() {
        assert_eq!(reason_of(&good()), StoreReason::AsAsked);
        assert!(is_proven(&store(), &good(), noon()));
    }

    #[test]
    fn whatever_differs_from_the_claim_has_its_reason() {
        use StoreReason as R;
        let table: Vec<(R, Known)> = vec![
            (R::LockMissing, with(|can| can.versioning = seen(Answer::No))),
            (R::LockMissing, with(|can| can.lock_refuses_deletion = seen(Answer::No))),
            (R::LockWeak, with(|can| can.lock_refuses_shortening = seen(Answer::No))),
            (R::LockNotExtendable, with(|can| can.lock_extends = seen(Answer::No))),
            (R::WriterCanRead, with(|can| can.writer_can_read = seen(Answer::Yes))),
            (R::WriterCanList, with(|can| can.writer_can_list = seen(Answer::Yes))),
            (R::WriterCanDelete, with(|can| can.writer_can_delete = seen(Answer::Yes))),
            (R::WriterCanCommit, with(|can| can.writer_can_commit = seen(Answer::Yes))),
            (R::CommitterCanWriteData, with(|can| can.committer_can_write_data = seen(Answer::Yes))),
            (R::CommitterCanDelete, with(|can| can.committer_can_delete = seen(Answer::Yes))),
            (R::ReaderCanWrite, with(|can| can.reader_can_write = seen(Answer::Yes))),
            (R::JanitorCanRead, with(|can| can.janitor_can_read = seen(Answer::Yes))),
            (R::JanitorCanHide, with(|can| can.janitor_can_hide = seen(Answer::Yes))),
            (R::StaleReads, with(|can| can.read_after_write = seen(Answer::No))),
            (R::ClockSkewed, with(|can| can.clock_skew.as_mut().unwrap().seconds = -301)),
        ];

        for (reason, known) in table {
            assert_eq!(reason_of(&known), reason);
            assert!(!is_proven(&store(), &known, noon()), "{reason:?}");
        }
        let ends = Time(noon() + 100.hours());
        let expiring = with(|can| can.certificate.as_mut().unwrap().not_after = ends);
        assert_eq!(reason_of(&expiring), R::CertificateExpiring);
        assert!(is_proven(&store(), &expiring, noon()), "it is told of, and still good");
    }

    #[test]
    fn a_writer_that_reaches_more_than_its_own_archive_is_told_of() {
        let shared = with(|can| can.writer_scope.as_mut().unwrap().scope = WriterScope::Shared);
        let overwrites = with(|can| can.writer_can_overwrite = seen(Answer::Yes));
        let unknown = with(|can| can.writer_scope = None);

        let said = |known: &Known| {
            let said = confined(known);
            (said.kind, said.truth, said.reason)
        };

        use valv_crds::condition::Truth;
        let kind = StoreCondition::WriterConfined;
        assert_eq!(said(&good()), (kind, Truth::True, StoreReason::AsAsked));
        assert_eq!(said(&shared), (kind, Truth::False, StoreReason::WriterShared));
        assert_eq!(said(&overwrites), (kind, Truth::False, StoreReason::WriterCanOverwrite));
        assert_eq!(said(&unknown), (kind, Truth::Unknown, StoreReason::NotProbedYet));
    }

    #[test]
    fn a_store_that_no_pod_is_let_out_to_is_not_reachable_whatever_the_probe_saw() {
        let closed = Ground { egress: Egress::Closed, ..ground() };

        assert_eq!(worst_on(&store(), &good(), &closed), StoreReason::EgressClosed);
    }

    #[test]
    fn a_signing_key_that_is_lost_or_another_is_told() {
        let with = |signing| worst_on(&store(), &good(), &Ground { signing, ..ground() });
        let Standing::Kept(key) = ground().signing else { panic!("it is kept") };

        assert_eq!(with(Standing::Lost(String::new())), StoreReason::SigningKeyLost);
        assert_eq!(with(Standing::Differs(String::new())), StoreReason::SigningKeyDiffers);
        assert_eq!(with(Standing::Unsaved(key)), StoreReason::SigningKeyUnsaved, "noted, and still good");
    }

    #[test]
    fn what_could_not_be_found_out_is_not_known_and_never_wrong() {
        for known in [
            with(|can| can.lock_refuses_deletion = seen(Answer::Unknown)),
            with(|can| can.writer_can_delete = None),
            with(|can| can.janitor_can_hide = None),
        ] {
            let saying = capabilities(&store(), &known, noon());

            assert_eq!(
                (saying.truth, saying.reason),
                (valv_crds::condition::Truth::Unknown, StoreReason::NotProbedYet)
            );
            assert!(saying.message.contains("could not be found out"), "{}", saying.message);
        }
    }

    #[test]
    fn a_store_that_is_not_as_its_profile_is_known_to_be_says_so() {
        let said = |profile, answer| {
            let mut object = store().object.as_ref().clone();
            (object.spec.profile, object.spec.object_lock) = (profile, None);
            let known = with(|can| can.conditional_put = seen(answer));
            let saying = capabilities(&check(Arc::new(object)), &known, noon());
            assert!(saying.is_true(), "what was seen counts: {}", saying.message);
            saying.message
        };

        assert!(
            said(Profile::CephRgw, Answer::No).contains("is spec.profile right? Ceph's RADOS Gateway heeds")
        );
        assert!(said(Profile::Garage, Answer::Yes).contains("it is not relied on"));
        for (profile, answer) in [
            (Profile::CephRgw, Answer::Yes),
            (Profile::Garage, Answer::No),
            (Profile::UpCloud, Answer::No),
            (Profile::Generic, Answer::No),
        ] {
            assert!(!said(profile, answer).contains("profile"), "{profile:?}");
        }
    }

    #[test]
    fn a_lock_that_nobody_claims_is_not_missed() {
        let mut object = store().object.as_ref().clone();
        object.spec.object_lock = None;
        let known = with(|can| {
            (can.versioning, can.janitor_can_hide) = (seen(Answer::No), None);
            can.lock_refuses_deletion = seen(Answer::No);
            (can.lock_refuses_shortening, can.lock_extends) = (None, None);
        });

        assert_eq!(worst(&check(Arc::new(object)), None, &known, BreakerState::Closed), StoreReason::AsAsked);
    }

    #[test]
    fn whatever_stood_in_the_way_is_the_reason() {
        use StoreReason as R;
        for reason in [
            R::CredentialsRefused,
            R::Unreachable,
            R::TimedOut,
            R::Failing,
            R::TlsRefused,
            R::BucketMissing,
            R::RegionDiffers,
            R::AddressingDiffers,
            R::Full,
            R::ClockSkewed,
        ] {
            let mut known = good();
            let findings = known.findings.as_mut().unwrap();
            findings.troubles = vec![Trouble { reason, message: "so it was".into() }];
            findings.extent = Extent::CutShort;

            assert_eq!(reason_of(&known), reason);
            assert!(!is_proven(&store(), &known, noon()));
        }
    }

    #[test]
    fn credentials_location_breaker_and_age_have_their_reasons() {
        use StoreReason as R;
        let missing = Unresolved::Missing { identity: Identity::Writer, secret: "w".into() };
        let shared = Unresolved::Shared { one: Identity::Writer, other: Identity::Janitor };
        let mut abroad = store().object.as_ref().clone();
        abroad.spec.location.country = "US".into();
        let old = Known { last_whole: Some(noon() - 13.hours()), ..good() };
        let never = Known { findings: None, last_whole: None };

        for (said, reason) in [
            (worst(&store(), Some(&missing), &good(), BreakerState::Closed), R::CredentialsMissing),
            (worst(&store(), Some(&shared), &good(), BreakerState::Closed), R::CredentialsShared),
            (worst(&check(Arc::new(abroad)), None, &good(), BreakerState::Closed), R::LocationRefused),
            (worst(&store(), None, &good(), BreakerState::Open), R::BreakerOpen),
            (worst(&store(), None, &good(), BreakerState::HalfOpen), R::BreakerHalfOpen),
            (reason_of(&old), R::ProbeOutdated),
            (reason_of(&never), R::NotProbedYet),
        ] {
            assert_eq!(said, reason);
        }
    }
}
