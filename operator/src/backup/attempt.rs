//! How an attempt stands, from what the status has of it and what is seen of its Jobs. Pure.
//!
//! An attempt is a Job whose pod writes, and then Jobs whose pods read back what was written, one after the other until
//! one of them saw all of it. Each Job has one pod, which is not started again: another pod would write under another
//! id. What a pod said is written into the status first, and acted on when it stands there.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use valv_crds::{
    backup::{self, AttemptFailure, BackupReason, ObjectDigest, ReadBack, Wrote},
    policy::VerificationMode,
};

use super::sighting::{End, Sighting};
use crate::{
    agent::last_words::{Failure, LastWords, Taken, Verified},
    archive::{commit::ManifestRef, verify::Mode},
    io::bucket::Version,
};

/// How far an attempt is.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// It was begun, and its Job is to be made.
    ToWrite,
    /// Its pod is being started, or writes.
    Writing,
    /// Its pod says that it wrote this: to be written down.
    HasWritten {
        /// UID of the pod: the folder that it wrote into.
        pod: String,
        /// What it says.
        taken: Taken,
    },
    /// Its pod failed: to be written down.
    HasFailed(Failure),
    /// It failed, as the status says.
    Failed(AttemptFailure),
    /// It is to be read back, for the how manieth time: to be written down.
    ToBeRead {
        /// The first is 1.
        reading: i32,
    },
    /// A reading was begun, and its Job is to be made.
    ToRead,
    /// It is being read back.
    Reading,
    /// The reading pod says that it is whole: to be written down.
    HasRead(Verified),
    /// The reading failed: to be written down.
    HasNotRead(Failure),
    /// The reading failed, as the status says, and says nothing against what was written.
    NotRead {
        /// The how manieth it was.
        reading: i32,
        /// How it failed.
        failure: AttemptFailure,
    },
    /// It was read back, as the status says.
    ReadBack,
}

/// How `attempt` stands at `now`, given what is seen of its writing Job and of its latest reading one.
pub fn standing(
    attempt: &backup::Attempt,
    writing: &Sighting,
    reading: &Sighting,
    now: Timestamp,
) -> Standing {
    if let Some(failed) = &attempt.failed {
        return Standing::Failed(failed.clone());
    }
    if attempt.wrote.is_none() {
        if attempt.job.is_none() {
            return Standing::ToWrite;
        }
        return match writing.end(now) {
            End::NotYet => Standing::Writing,
            End::Failed(failure) => Standing::HasFailed(failure),
            End::Said { pod, words: LastWords::Taken(taken) } => match unusable(&taken) {
                None => Standing::HasWritten { pod, taken },
                Some(failure) => Standing::HasFailed(failure),
            },
            End::Said { .. } => Standing::HasFailed(strange()),
        };
    }
    let Some(latest) = &attempt.reading else { return Standing::ToBeRead { reading: 1 } };
    if latest.verified.is_some() {
        return Standing::ReadBack;
    }
    if let Some(failure) = &latest.failed {
        return Standing::NotRead { reading: latest.number, failure: failure.clone() };
    }
    if latest.job.is_none() {
        return Standing::ToRead;
    }
    match reading.end(now) {
        End::NotYet => Standing::Reading,
        End::Failed(failure) if is_of_what_was_written(failure.reason) => Standing::HasFailed(failure),
        End::Failed(failure) => Standing::HasNotRead(failure),
        End::Said { words: LastWords::Verified { verified }, .. } => Standing::HasRead(verified),
        End::Said { .. } => Standing::HasNotRead(strange()),
    }
}

/// Whether a reading's failure says that what was written is no good: then all of it is written anew.
pub fn is_of_what_was_written(reason: BackupReason) -> bool {
    use BackupReason as Why;
    matches!(reason, Why::SegmentMissing | Why::SegmentDiffers | Why::ManifestMissing | Why::ManifestInvalid)
}

fn strange() -> Failure {
    let message =
        "the agent's last words are not those of this step: is it as new as the operator?".to_owned();
    Failure { reason: BackupReason::AgentFailed, message }
}

/// A version's name goes into a command line, in which Kubernetes would put variables.
fn unusable(taken: &Taken) -> Option<Failure> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._=+/~-".contains(&byte);
    let version = taken.manifest.version.as_ref().map_or("-", Version::as_str);
    if matches!(version.len(), 1..=1024) && version.bytes().all(is_plain) && taken.manifest.key.len() <= 1024
    {
        return None;
    }
    let message = "the agent names a version of its manifest that no store gives".to_owned();
    Some(Failure { reason: BackupReason::ManifestInvalid, message })
}

/// As the status has it.
pub fn wrote(taken: &Taken) -> Wrote {
    Wrote {
        manifest: ObjectDigest {
            key: taken.manifest.key.clone(),
            version: taken.manifest.version.as_ref().map(|version| version.as_str().to_owned()),
            blake3: taken.manifest.blake3.to_string(),
        },
        manifest_bytes: number(taken.manifest.size),
        bytes: number(taken.bytes),
        plain_bytes: number(taken.plain_bytes),
        segments: number(taken.segments),
        taken: time(taken.taken),
    }
}

/// The manifest that the status names; absent: what stands there is no digest.
pub fn manifest(wrote: &Wrote) -> Option<ManifestRef> {
    Some(ManifestRef {
        key: wrote.manifest.key.clone(),
        version: wrote.manifest.version.as_ref().map(Version::new),
        size: wrote.manifest_bytes.try_into().ok()?,
        blake3: wrote.manifest.blake3.parse().ok()?,
    })
}

/// As the status has it: heard at `now`, by the operator's own clock.
pub fn read_back(verified: &Verified, now: Timestamp) -> ReadBack {
    ReadBack {
        mode: match verified.mode {
            Mode::Full => VerificationMode::Full,
            Mode::Sample => VerificationMode::Sample,
            Mode::Metadata => VerificationMode::Metadata,
        },
        seed: verified.seed.map(i64::from),
        segments_read: number(verified.segments_read),
        segments: number(verified.segments),
        at: time(now),
        tampered: number(verified.tampered),
        locked_until: verified.locked_until.map(time),
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The API stores times to the second; anything finer would never compare equal again.
pub fn time(moment: Timestamp) -> Time {
    Time(Timestamp::from_second(moment.as_second()).unwrap_or(moment))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;
    use valv_crds::backup::{Attempt, Reading};

    use super::*;
    use crate::backup::sighting::{
        Sighting,
        tests::{JOB, POD, at, job, pod, said},
    };

    pub fn taken_words() -> String {
        json!({
            "manifest": {
                "key": format!("v1/ada/data/20261122T093005Z/{POD}/manifest.json"), "version": "v1", "size": 1200,
                "blake3": "a".repeat(64),
            },
            "bytes": 1000, "plainBytes": 9000, "segments": 3, "taken": at(50).to_string(),
        })
        .to_string()
    }

    fn seen(words: &str) -> Sighting {
        Sighting::of(&job(&json!({})), [pod(JOB, &said(words, 0))].iter())
    }

    fn begun() -> Attempt {
        Attempt { number: 1, job: Some(JOB.to_owned()), ..Attempt::default() }
    }

    fn written() -> Attempt {
        let taken = serde_json::from_str(&taken_words()).unwrap();
        Attempt { wrote: Some(wrote(&taken)), id: Some(POD.to_owned()), ..begun() }
    }

    #[test]
    fn what_the_status_says_counts_though_jobs_and_pods_are_gone() {
        let gone = Sighting::default();
        let read = Attempt {
            reading: Some(Reading { number: 1, job: Some("r".into()), ..Reading::default() }),
            ..written()
        };
        let mut verified = read.clone();
        verified.reading.as_mut().unwrap().verified = Some(ReadBack {
            mode: VerificationMode::Full,
            seed: None,
            segments_read: 3,
            segments: 3,
            at: time(at(60)),
            tampered: 0,
            locked_until: None,
        });

        assert_eq!(standing(&written(), &gone, &gone, at(99)), Standing::ToBeRead { reading: 1 });
        assert_eq!(standing(&verified, &gone, &gone, at(99)), Standing::ReadBack);
        assert!(matches!(standing(&read, &gone, &gone, at(99)), Standing::HasNotRead(_)));
        assert!(matches!(standing(&begun(), &gone, &gone, at(99)), Standing::HasFailed(_)));
    }

    #[test]
    fn a_manifest_goes_into_the_status_and_comes_out_as_it_was() {
        let Standing::HasWritten { taken, pod } =
            standing(&begun(), &seen(&taken_words()), &Sighting::default(), at(60))
        else {
            panic!("it is not seen")
        };

        assert_eq!(pod, POD);
        assert_eq!(manifest(&wrote(&taken)), Some(taken.manifest));
    }

    #[test]
    fn only_what_speaks_against_what_was_written_fails_the_attempt_and_the_rest_is_read_again() {
        let reading = Attempt {
            reading: Some(Reading { number: 2, job: Some(JOB.into()), ..Reading::default() }),
            ..written()
        };
        let failed = |reason: &str| {
            let words = format!(r#"{{"failure":{{"reason":"{reason}","message":"m"}}}}"#);
            standing(&reading, &Sighting::default(), &seen(&words), at(60))
        };

        assert!(matches!(failed("SegmentDiffers"), Standing::HasFailed(_)));
        assert!(matches!(failed("ManifestMissing"), Standing::HasFailed(_)));
        assert!(matches!(failed("CredentialsRefused"), Standing::HasNotRead(_)));
        assert!(matches!(failed("StoreUnavailable"), Standing::HasNotRead(_)));
    }

    #[test]
    fn a_version_that_kubernetes_would_expand_is_refused() {
        let words = taken_words().replace(r#""version":"v1""#, r#""version":"$(POD_UID)""#);

        let standing = standing(&begun(), &seen(&words), &Sighting::default(), at(60));

        assert!(matches!(
            standing,
            Standing::HasFailed(Failure { reason: BackupReason::ManifestInvalid, .. })
        ));
    }

    #[test]
    fn a_writer_that_speaks_as_a_reader_is_not_heard() {
        let words = r#"{"verified":{"mode":"Full","segmentsRead":1,"segments":1,"at":"2026-11-22T01:05:00Z","tampered":0}}"#;

        assert!(matches!(
            standing(&begun(), &seen(words), &Sighting::default(), at(60)),
            Standing::HasFailed(_)
        ));
    }
}
