//! Which backups cannot be restored, as drills and copies say, and what that means for what is kept. Pure.
//!
//! Input: the records of drills that lie in the archive, signed; the `Backup` objects. Output: [`Drilled`], and the
//! backups whose copy could not be read. What is damaged counts for nothing until a later drill of it passes, or that copy is
//! made after all.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde::Deserialize;
use valv_crds::{
    Backup, Slot,
    backup::{BackupCondition, BackupReason},
};

use crate::{
    archive::{
        envelope::{Envelope, PublicKey},
        layout::ArchiveId,
        register::Verdicts,
    },
    copy,
    drill::record::RECORD_TYPE,
    janitor::observe::{lies_in, slot as slot_of},
};

/// Records of drills with a verdict that are read: the newest. What older ones said is in the register.
pub const MOST_RECORDS: usize = 16;

/// Records that are listed: whoever makes drills and cancels them must not push out what another drill said.
pub const MOST_LISTED: usize = 256;

/// What the names of drills' records begin with.
pub const RECORDS: &str = "drill-";

/// What an operator's clock may be ahead of another's.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);

/// Verdicts that say that the bytes of the backup are not those that were committed. Whatever else fails a drill may be
/// the fault of a cluster, an image, a key or a check: it keeps deletions back, and marks no backup.
const DAMAGE: [&str; 8] = [
    "ManifestMissing",
    "ManifestDiffers",
    "ManifestInvalid",
    "SegmentMissing",
    "SegmentDiffers",
    "SegmentsSwapped",
    "DecryptionFailed",
    "FilesDiffer",
];

/// What a drill came to, as far as it matters here. Whatever else the record says is for others.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Told {
    archive: ArchiveId,
    backup: Option<Of>,
    ended: Timestamp,
    passed: bool,
    reason: String,
    #[serde(default)]
    verdicts: Vec<Verdict>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Of {
    slot: Slot,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Verdict {
    outcome: String,
    reason: String,
}

/// What the drills of an archive say, of each backup the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drilled {
    /// Backups that a drill restored, and since when that is known.
    pub passed: BTreeMap<Slot, Timestamp>,
    /// Backups that a drill found damaged, and what it found.
    pub damaged: BTreeMap<Slot, String>,
    /// Whether the newest drill failed.
    pub failing: Option<Failing>,
    /// What is to be remembered of it.
    pub verdicts: Option<Verdicts>,
}

/// The newest drill did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// The newest backup that is there and that a drill restored; none: there is none.
    pub restorable: Option<Slot>,
}

impl Failing {
    /// What it keeps back, and until when.
    pub fn words(&self) -> String {
        let restorable = match self.restorable {
            Some(slot) => format!("{slot} and all before it stay, for a drill restored that one last"),
            None => "all stay, for no drill has restored one that is there".to_owned(),
        };
        format!("the newest drill failed: {restorable}; it ends when a drill passes")
    }
}

impl Drilled {
    /// Whether the backup of `slot` stays because the newest drill failed.
    pub fn holds_back(&self, slot: Slot) -> bool {
        let failing = self.failing.as_ref();
        failing.is_some_and(|failing| failing.restorable.is_none_or(|restorable| slot <= restorable))
    }
}

impl Told {
    /// Whether it says something of the backup. Whoever cancelled a drill gave no verdict.
    pub fn is_verdict(&self) -> bool {
        self.passed || self.reason != "Cancelled"
    }

    /// Reads what was found, if one of `trusted` signed it for `archive`.
    pub fn open(bytes: &[u8], archive: &ArchiveId, trusted: &[PublicKey]) -> Option<Self> {
        let (payload, _) = Envelope::parse(bytes).and_then(|found| found.open(RECORD_TYPE, trusted)).ok()?;
        let told: Self = serde_json::from_slice(&payload).ok()?;
        (told.archive == *archive).then_some(told)
    }

    /// What it found damaged, as one word.
    fn damage(&self) -> Option<&str> {
        let failed = self.verdicts.iter().filter(|verdict| verdict.outcome == "Failed");
        let reasons = failed.map(|verdict| verdict.reason.as_str()).chain([self.reason.as_str()]);
        reasons.into_iter().find(|reason| !self.passed && DAMAGE.contains(reason))
    }
}

/// What `records` say together at `now`, after what is `remembered` of others; of the backups that `is_there` says are
/// there. A record that is dated in the future counts for nothing yet.
pub fn drilled(
    mut records: Vec<Told>,
    remembered: Option<&Verdicts>,
    is_there: impl Fn(Slot) -> bool,
    now: Timestamp,
) -> Drilled {
    let latest = now.saturating_add(CLOCKS_DIFFER).unwrap_or(Timestamp::MAX);
    records.retain(|told| told.ended <= latest && told.is_verdict());
    records.sort_by_key(|told| told.ended);
    let restored = remembered.map(|remembered| remembered.restored.clone());
    let mut drilled = Drilled { passed: restored.unwrap_or_default(), ..Drilled::default() };
    for told in &records {
        let Some(Of { slot }) = told.backup else { continue };
        let passed = drilled.passed.get(&slot).copied().unwrap_or(Timestamp::MIN);
        if told.passed {
            drilled.damaged.remove(&slot);
            drilled.passed.insert(slot, told.ended.max(passed));
        } else if let Some(reason) = told.damage().filter(|_| passed < told.ended) {
            drilled.damaged.insert(slot, format!("a drill that ended {}: {reason}", told.ended));
            drilled.passed.remove(&slot);
        }
    }
    drilled.passed.retain(|slot, _| is_there(*slot));
    let newest = records.last().map(|told| (told.ended, told.passed));
    let newest = newest.max(remembered.map(|remembered| (remembered.ended, remembered.passed)));
    if let Some((ended, passed)) = newest {
        let restorable = drilled.passed.keys().next_back().copied();
        drilled.failing = (!passed).then_some(Failing { restorable });
        drilled.verdicts = Some(Verdicts { ended, passed, restored: drilled.passed.clone() });
    }
    drilled
}

/// Backups that lie in `store` and that a copy from there, or a reading there, found damaged; and since when.
pub fn reported(backups: &[Backup], store: &str) -> BTreeMap<Slot, (String, Timestamp)> {
    let all = backups.iter().filter(|backup| lies_in(backup, store));
    all.filter_map(|backup| Some((slot_of(backup)?, report(backup, store)?))).collect()
}

fn report(backup: &Backup, store: &str) -> Option<(String, Timestamp)> {
    use BackupReason as R;
    let damage = [R::ManifestMissing, R::ManifestInvalid, R::SegmentMissing, R::SegmentDiffers];
    let conditions = backup.status.iter().flat_map(|status| &status.conditions);
    let found = conditions.into_iter().find(|said| {
        let is_of = |condition: BackupCondition| said.type_ == format!("{condition:?}");
        // Of a copy that failed it is known which of the two stores it was: its message names it.
        let is_here = is_of(BackupCondition::Intact)
            || is_of(BackupCondition::Copied)
                && (said.message.contains(UNREADABLE) || said.message.contains(&format!("in {store}: ")));
        said.status == "False" && is_here && damage.iter().any(|reason| said.reason == format!("{reason:?}"))
    })?;
    let said = format!("the Backup {} says {}: {}", backup.name_any(), found.reason, found.message);
    Some((said.chars().take(MOST_CHARS).collect(), found.last_transition_time.0))
}

/// Whether a report is of an attempt to copy the backup to `store`. It is made while that store has none: once it has one,
/// a later attempt has read and compared all that the one before did not bring there.
pub fn is_of_copy_to(report: &str, store: &str) -> bool {
    report.contains(&copy::status::failed_to(store))
}

/// Of a report so much is written down.
const MOST_CHARS: usize = 300;

/// What an agent says of a copy whose source it could not read: [`crate::archive::copy::Error::Source`].
const UNREADABLE: &str = "failed to read the backup that is to be copied";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::archive::{
        copy,
        envelope::SigningKey,
        fetch,
        finding::{Finding, Flaw},
    };

    fn slot(day: u32) -> Slot {
        format!("202611{day:02}T010000Z").parse().unwrap()
    }

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn drilled(records: Vec<Told>, now: Timestamp) -> Drilled {
        super::drilled(records, None, |_| true, now)
    }

    fn told(of: u32, ended: &str, reason: &str) -> Told {
        serde_json::from_value(json!({
            "format": 1, "archive": "ada", "backup": { "slot": slot(of), "manifest": null },
            "ended": format!("2026-11-{ended}:00:00Z"), "passed": reason == "AsAsked", "reason": reason,
            "verdicts": [{ "check": "SegmentsRead", "outcome": "Passed", "reason": "AsAsked" }],
        }))
        .unwrap()
    }

    #[test]
    fn a_backup_that_a_drill_found_damaged_is_so_until_a_later_drill_of_it_passes() {
        let failed = told(20, "21T05", "SegmentDiffers");
        let (before, after) = (told(20, "21T04", "AsAsked"), told(20, "21T06", "AsAsked"));

        let damaged = |records: &[&Told]| {
            let records = records.iter().map(|told| (*told).clone()).collect();
            drilled(records, now()).damaged.contains_key(&slot(20))
        };

        assert!(damaged(&[&failed, &before]));
        assert!(!damaged(&[&after, &failed]));
    }

    #[test]
    fn what_a_cluster_or_a_person_is_to_blame_for_is_no_damage_and_a_failure_all_the_same() {
        let passed = told(18, "19T05", "AsAsked");
        let of = |reason: &str| drilled(vec![passed.clone(), told(20, "21T05", reason)], now());

        for reason in ["CannotRestore", "DatabaseFailed", "Corrupt", "SentinelDiffers", "AttachmentMissing"] {
            assert_eq!(of(reason).damaged, BTreeMap::new(), "{reason}");
            assert!(of(reason).failing.is_some(), "{reason}");
        }
        assert_eq!(of("CannotRestore").failing, Some(Failing { restorable: Some(slot(18)) }));
        assert_eq!(of("Cancelled").failing, None);
        let never = drilled(vec![told(20, "21T05", "SegmentDiffers")], now());
        assert_eq!(never.failing, Some(Failing { restorable: None }));
    }

    #[test]
    fn what_was_remembered_of_a_failure_stands_until_a_drill_passes_whatever_was_cancelled_since() {
        let failed = drilled(vec![told(18, "19T05", "AsAsked"), told(20, "21T05", "Corrupt")], now());
        let remembered = failed.verdicts.clone().unwrap();
        let later = |records| super::drilled(records, Some(&remembered), |_| true, now());
        let cancelled = (0..16).map(|_| told(20, "22T05", "Cancelled")).collect();

        assert_eq!(later(cancelled).failing, failed.failing);
        assert_eq!(later(vec![]).verdicts, failed.verdicts, "nothing new is nothing new");
        assert_eq!(later(vec![told(20, "22T05", "AsAsked")]).failing, None);
        let again = later(vec![told(18, "18T05", "SegmentDiffers")]);
        assert!(again.damaged.is_empty(), "an older record says nothing against a newer one");
    }

    #[test]
    fn what_was_restored_and_is_gone_can_be_restored_no_more() {
        let records = vec![told(18, "19T05", "AsAsked"), told(20, "21T05", "Corrupt")];

        let gone = super::drilled(records, None, |other| other != slot(18), now());

        assert_eq!(gone.failing, Some(Failing { restorable: None }), "all that is left stays");
    }

    #[test]
    fn a_record_of_the_future_says_nothing_yet() {
        let future = told(20, "25T05", "AsAsked");
        let failed = told(20, "21T05", "SegmentDiffers");

        let drilled = drilled(vec![future, failed], now());

        assert!(drilled.damaged.contains_key(&slot(20)) && drilled.failing.is_some());
    }

    #[test]
    fn only_what_the_operator_signed_for_this_archive_is_heard() {
        let key = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
        let stranger = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
        let record = json!({ "archive": "ada", "backup": null, "ended": "2026-11-21T05:00:00Z", "passed": true, "reason": "AsAsked" });
        let sealed = key.sign(RECORD_TYPE, &serde_json::to_vec(&record).unwrap()).to_bytes().unwrap();
        let open = |archive: &str, key: &SigningKey| {
            Told::open(&sealed, &archive.parse().unwrap(), &[key.public()]).is_some()
        };

        assert!(open("ada", &key));
        assert!(!open("bo", &key) && !open("ada", &stranger));
    }

    #[test]
    fn a_copy_that_could_not_read_its_source_reports_damage_there_and_one_that_differs_in_the_target_does_not()
     {
        let backup = |message: &str| -> Backup {
            serde_json::from_value(json!({
                "apiVersion": "valv.eu/v1alpha1", "kind": "Backup",
                "metadata": { "name": "ada-20261120t010000z", "namespace": "journal-ada" },
                "spec": { "origin": "Scheduled" },
                "status": {
                    "slot": slot(20),
                    "stores": [{ "name": "helsinki", "commit": { "key": "k", "blake3": "0".repeat(64) } }],
                    "conditions": [{ "type": "Copied", "status": "False", "reason": "SegmentDiffers",
                        "message": message, "lastTransitionTime": "2026-11-21T05:00:00Z" }],
                },
            }))
            .unwrap()
        };
        let flaw = Flaw::Malformed { why: "in a test".to_owned() };
        let source = fetch::Error::Broken(Finding { key: "k".to_owned(), flaw });
        let words = copy::Error::Source(source).to_string();

        let here = reported(&[backup(&format!("attempt 1 to copy it failed: {words}: broken"))], "helsinki");
        assert!(here[&slot(20)].0.contains("SegmentDiffers"), "{here:?}");
        assert!(reported(&[backup("failed to read the copy back")], "helsinki").is_empty());
        assert!(reported(&[backup(&words)], "frankfurt").is_empty(), "it does not lie there");
    }
}
