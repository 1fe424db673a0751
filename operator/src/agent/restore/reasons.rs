//! Which verdict a failure is. Pure.
//!
//! `None`: it says nothing of the backup, and there is no verdict.

use valv_crds::drill::{Check, DrillReason};

use crate::archive::{
    commit::InvalidCommit,
    envelope::OpenError,
    fetch,
    finding::{Finding, Flaw},
    read,
};

/// Why a commit is not to be believed.
pub fn of_commit(error: &fetch::Error) -> Option<DrillReason> {
    Some(match error {
        fetch::Error::Broken(Finding { flaw: Flaw::Missing, .. }) => DrillReason::NoBackup,
        fetch::Error::Broken(_) => DrillReason::SignatureInvalid,
        fetch::Error::Commit { source, .. } => match source {
            InvalidCommit::Envelope(OpenError::Unsigned) => DrillReason::SignatureMissing,
            InvalidCommit::Envelope(_) | InvalidCommit::Misplaced { .. } => DrillReason::SignatureInvalid,
            InvalidCommit::Parse(_) | InvalidCommit::Format(_) | InvalidCommit::ForeignManifest { .. } => {
                DrillReason::ManifestInvalid
            }
        },
        fetch::Error::Store(_) | fetch::Error::Manifest { .. } | fetch::Error::Worker { .. } => return None,
    })
}

/// Why a manifest, or a page of its index, is not the one that was committed.
pub fn of_manifest(error: &fetch::Error) -> Option<DrillReason> {
    Some(match error {
        fetch::Error::Broken(Finding { flaw, .. }) => match flaw {
            Flaw::Missing | Flaw::Hidden => DrillReason::ManifestMissing,
            Flaw::Malformed { .. } => DrillReason::ManifestInvalid,
            Flaw::Size { .. }
            | Flaw::Altered { .. }
            | Flaw::Swapped { .. }
            | Flaw::OtherVersion { .. }
            | Flaw::Covered { .. } => DrillReason::ManifestDiffers,
        },
        fetch::Error::Manifest { .. } => DrillReason::ManifestInvalid,
        fetch::Error::Store(_) | fetch::Error::Commit { .. } | fetch::Error::Worker { .. } => return None,
    })
}

/// What is wrong with a segment.
pub fn of_segment(flaw: &Flaw) -> DrillReason {
    match flaw {
        Flaw::Missing | Flaw::Hidden => DrillReason::SegmentMissing,
        Flaw::Swapped { .. } => DrillReason::SegmentsSwapped,
        Flaw::Size { .. }
        | Flaw::Altered { .. }
        | Flaw::OtherVersion { .. }
        | Flaw::Malformed { .. }
        | Flaw::Covered { .. } => DrillReason::SegmentDiffers,
    }
}

/// Why a part could not be brought back, and which check that is. `opened`: segments that were opened before.
pub fn of_read(error: &read::Error, opened: u64) -> Option<(Check, DrillReason)> {
    Some(match error {
        read::Error::NoPart { .. } => (Check::Manifest, DrillReason::ManifestInvalid),
        read::Error::Fetch { source: fetch::Error::Broken(Finding { flaw, .. }), .. } => {
            (Check::Segments, of_segment(flaw))
        }
        read::Error::NoKey { .. } if opened == 0 => (Check::Decryption, DrillReason::WrongKey),
        read::Error::NoKey { .. }
        | read::Error::Open { .. }
        | read::Error::Content { .. }
        | read::Error::Length { .. } => (Check::Decryption, DrillReason::DecryptionFailed),
        read::Error::Fetch { .. } | read::Error::Sink { .. } | read::Error::Worker { .. } => return None,
    })
}

/// Whether so many recipients in the headers are as they should be, of `stated` by the manifest and `asked` by
/// whoever asked for the backup.
pub fn of_recipients(fewest: usize, most: usize, stated: usize, asked: usize) -> Option<DrillReason> {
    if fewest < asked || stated < asked {
        Some(DrillReason::TooFewRecipients)
    } else if fewest != stated || most != stated {
        Some(DrillReason::RecipientsDiffer)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::digest::Blake3;

    fn broken(flaw: Flaw) -> fetch::Error {
        fetch::Error::Broken(Finding { key: "v1/ada/data/0.age".into(), flaw })
    }

    fn altered() -> Flaw {
        Flaw::Altered { expected: Blake3::of(b"a"), found: Blake3::of(b"b") }
    }

    fn commit(source: InvalidCommit) -> fetch::Error {
        fetch::Error::Commit { key: "v1/ada/commits/0.json".into(), source }
    }

    #[test]
    fn each_way_of_not_being_committed_has_its_own_reason() {
        let forged = OpenError::Forged { key_id: "ed25519:00".into() };
        let unknown = OpenError::UnknownKey { key_ids: vec![] };
        let slot = "20261122T010000Z".parse().unwrap();
        let misplaced = InvalidCommit::Misplaced { archive: "bo".parse().unwrap(), slot };
        for (error, reason) in [
            (broken(Flaw::Missing), DrillReason::NoBackup),
            (commit(InvalidCommit::Envelope(OpenError::Unsigned)), DrillReason::SignatureMissing),
            (commit(InvalidCommit::Envelope(forged)), DrillReason::SignatureInvalid),
            (commit(InvalidCommit::Envelope(unknown)), DrillReason::SignatureInvalid),
            (commit(misplaced), DrillReason::SignatureInvalid),
            (commit(InvalidCommit::Format(2)), DrillReason::ManifestInvalid),
        ] {
            assert_eq!(of_commit(&error), Some(reason), "{error:?}");
        }
    }

    #[test]
    fn a_manifest_that_is_gone_one_that_is_another_and_one_that_is_nonsense_differ() {
        assert_eq!(of_manifest(&broken(Flaw::Missing)), Some(DrillReason::ManifestMissing));
        assert_eq!(of_manifest(&broken(altered())), Some(DrillReason::ManifestDiffers));
        let malformed = Flaw::Malformed { why: "it has no lines".into() };
        assert_eq!(of_manifest(&broken(malformed)), Some(DrillReason::ManifestInvalid));
    }

    #[test]
    fn a_key_that_opens_nothing_is_the_wrong_one_and_later_it_is_damage() {
        let error = read::Error::NoKey { key: "v1/ada/data/0.age".into() };

        assert_eq!(of_read(&error, 0), Some((Check::Decryption, DrillReason::WrongKey)));
        assert_eq!(of_read(&error, 3), Some((Check::Decryption, DrillReason::DecryptionFailed)));
        let swapped = Flaw::Swapped { with: "v1/ada/data/1.age".into() };
        assert_eq!(of_segment(&swapped), DrillReason::SegmentsSwapped);
    }

    #[test]
    fn headers_name_as_many_as_the_manifest_and_as_many_as_were_asked_for() {
        assert_eq!(of_recipients(2, 2, 2, 2), None);
        assert_eq!(of_recipients(1, 2, 2, 2), Some(DrillReason::TooFewRecipients));
        assert_eq!(of_recipients(2, 2, 2, 3), Some(DrillReason::TooFewRecipients));
        assert_eq!(of_recipients(2, 3, 3, 2), Some(DrillReason::RecipientsDiffer));
        assert_eq!(of_recipients(3, 3, 2, 2), Some(DrillReason::RecipientsDiffer));
    }
}
