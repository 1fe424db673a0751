//! The record of a drill: one signed document in the store, which says what was drilled and what it came to.
//!
//! # Shape
//! A DSSE envelope ([`crate::archive::envelope`]) whose payload is canonical JSON of a [`Record`]; under
//! `v1/<archive>/records/drill-<slot>-<uid>.json`. `docs/drill-record.md` explains each field for whoever reads it without
//! Valv. No person and no patient is named in it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use valv_crds::{
    BackupPolicy, RestoreDrillStatus, Slot,
    backup::ObjectDigest,
    drill::{
        DrillCondition, DrillOrigin, DrillReason, KeyBringer, Measured, PhaseTime, RecordReference, Verdict,
    },
};

use super::{
    check::{Run, Subject},
    objects::record_name,
};
use crate::{
    archive::{
        canonical,
        digest::Blake3,
        envelope::{Envelope, OpenError, PublicKey, SigningKey},
        layout::{ArchiveId, InvalidName, Key},
        manifest::Tool,
        retry::{self, RetryRule},
    },
    io::bucket::{self, Bucket, Credentials, Put, SettingsError},
    store::check::{Identities, Identity, Store},
};

/// The kind of document, as it stands in the envelope.
pub const RECORD_TYPE: &str = "application/vnd.valv.drill.v1+json";

/// The version of this document that this code writes.
pub const FORMAT: u32 = 1;

/// The largest record that is read: 64 verdicts with all that they may say.
pub const RECORD_LIMIT_BYTES: u64 = 512 * 1024;

/// What was drilled, and what it came to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// Which archive.
    pub archive: ArchiveId,
    /// Whose.
    pub tenant: String,
    /// The drill.
    pub drill: Drill,
    /// The store that was read from, and in which this lies.
    pub store: Place,
    /// The backup that was restored; `null` if there was none.
    pub backup: Option<Backup>,
    /// When it was asked for.
    pub asked: Timestamp,
    /// When its turn came; `null` if it never did.
    pub started: Option<Timestamp>,
    /// The key that it restored with; `null` if none came.
    #[serde(default)]
    pub key: Option<KeyUsed>,
    /// When its verdict stood.
    pub ended: Timestamp,
    /// Whether the backup was restored, and every check passed.
    pub passed: bool,
    /// Why, as one word.
    pub reason: String,
    /// Why, as a sentence.
    pub message: String,
    /// Every check, and what came of it.
    pub verdicts: Vec<Verdict>,
    /// What was measured.
    pub measured: Figures,
    /// What was promised; `null` if the policy was gone.
    pub objectives: Option<Objectives>,
    /// What wrote this.
    pub tool: Tool,
}

/// Which drill.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Drill {
    /// Name of the `RestoreDrill`.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its slot.
    pub slot: Slot,
    /// Who asked for it: the schedule, or a person.
    pub origin: DrillOrigin,
}

/// A store.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Place {
    /// The `BackupStore`'s name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Its country, ISO 3166-1 alpha-2.
    pub country: String,
}

/// Which backup.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Backup {
    /// Its slot.
    pub slot: Slot,
    /// Its manifest; `null` if there was none to be believed.
    pub manifest: Option<ObjectDigest>,
}

/// A key that was used. Never what it is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct KeyUsed {
    /// Who brought it.
    pub by: KeyBringer,
    /// When.
    pub brought: Timestamp,
    /// The program that made its Secret, as the API server noted it.
    pub with: Option<String>,
}

/// What was measured.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Recovery time; `null` if the journal did not answer.
    pub rto_seconds: Option<i64>,
    /// Recovery point; `null` if the database did not start.
    pub rpo_seconds: Option<i64>,
    /// Bytes that were read from the store.
    pub bytes: Option<i64>,
    /// What the time went to. `TearDown` is never among them: this is written before.
    pub phases: Vec<PhaseTime>,
}

/// What was promised.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Objectives {
    /// Recovery time.
    pub rto_seconds: i64,
    /// Recovery point.
    pub rpo_seconds: i64,
    /// `True`, `False`, or `Unknown` for a drill that did not pass.
    pub met: String,
}

/// The record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket could not be opened.
    #[error("failed to prepare the store {store}")]
    Settings {
        /// Which store.
        store: String,
        /// Why not.
        source: SettingsError,
    },
    /// The record has no name.
    #[error("failed to name the record")]
    Name(#[source] InvalidName),
    /// The record could not be written down.
    #[error("failed to write the record down")]
    Canonical(#[source] canonical::Error),
    /// The store.
    #[error("failed to {doing} the record {key}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// With which object.
        key: String,
        /// Why it failed.
        source: Box<bucket::Error>,
    },
    /// Something else lies there.
    #[error("{key} holds something else than the record that was put there: somebody wrote over it")]
    Differs {
        /// Which object.
        key: String,
    },
}

/// Whether the archive is another's than the tenant's: nothing is written there.
pub fn is_of_another(status: &RestoreDrillStatus) -> bool {
    let (passed, taken) =
        (format!("{:?}", DrillCondition::Passed), format!("{:?}", DrillReason::ArchiveTaken));
    status.conditions.iter().any(|said| said.type_ == passed && said.reason == taken)
}

/// The record of `run`, whose verdict stands in `status`.
pub fn record(
    run: &Run,
    subject: &Subject,
    status: &RestoreDrillStatus,
    archive: &ArchiveId,
    store: &Store,
    policy: Option<&BackupPolicy>,
) -> Record {
    let said = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
    let passed = said("Passed");
    let met = said("ObjectivesMet").map_or_else(|| "Unknown".to_owned(), |said| said.status.clone());
    let seconds = |span: valv_crds::units::Span| i64::try_from(span.duration().as_secs()).unwrap_or(i64::MAX);
    let Measured { rto_seconds, rpo_seconds, phases, bytes, rto: _, rpo: _ } =
        status.measured.clone().unwrap_or_default();
    Record {
        format: FORMAT,
        archive: archive.clone(),
        tenant: subject.tenant.clone(),
        drill: Drill {
            name: run.name.clone(),
            uid: run.uid(),
            slot: subject.slot,
            origin: run.object.spec.origin,
        },
        store: Place {
            name: store.name.clone(),
            region: store.location.region.clone(),
            country: store.location.country.clone(),
        },
        backup: status
            .backup
            .as_ref()
            .map(|backup| Backup { slot: backup.slot, manifest: backup.manifest.clone() }),
        asked: subject.asked,
        started: status.started.as_ref().map(|time| time.0),
        key: status.key.as_ref().map(|key| KeyUsed {
            by: key.by,
            brought: key.brought.0,
            with: key.with.clone(),
        }),
        ended: status.ended.as_ref().map_or(subject.asked, |time| time.0),
        passed: passed.is_some_and(|said| said.status == "True"),
        reason: passed.map(|said| said.reason.clone()).unwrap_or_default(),
        message: passed.map(|said| said.message.clone()).unwrap_or_default(),
        verdicts: status.verdicts.clone(),
        measured: Figures {
            rto_seconds,
            rpo_seconds,
            bytes,
            phases: phases
                .into_iter()
                .filter(|time| time.phase != valv_crds::drill::Phase::TearDown)
                .collect(),
        },
        objectives: policy.map(|policy| Objectives {
            rto_seconds: seconds(policy.spec.objectives.rto),
            rpo_seconds: seconds(policy.spec.objectives.rpo),
            met,
        }),
        tool: Tool { name: "valv".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
    }
}

impl Record {
    /// Where it lies.
    ///
    /// # Errors
    /// Never, as slots are; the name is checked all the same.
    pub fn key(&self) -> Result<Key, InvalidName> {
        Ok(Key::Record {
            archive: self.archive.clone(),
            name: record_name(self.drill.slot, &self.drill.uid).parse()?,
        })
    }

    /// Signs it: what is to be put at its [`key`](Self::key). The same record has the same bytes.
    ///
    /// # Errors
    /// If it cannot be written down.
    pub fn seal(&self, key: &SigningKey) -> Result<Vec<u8>, canonical::Error> {
        key.sign(RECORD_TYPE, &canonical::to_vec(self)?).to_bytes()
    }

    /// Reads what was found, if one of `trusted` signed it.
    ///
    /// # Errors
    /// If none did, or it is no record.
    pub fn open(bytes: &[u8], trusted: &[PublicKey]) -> Result<Self, OpenError> {
        let (payload, _) = Envelope::parse(bytes)?.open(RECORD_TYPE, trusted)?;
        serde_json::from_slice(&payload).map_err(OpenError::Parse)
    }
}

/// Puts `record` as the committer, and reads it back as the reader.
///
/// # Errors
/// If it does not lie there afterwards as it was signed. Another try puts the same bytes.
pub async fn write(
    record: &Record,
    store: &Store,
    credentials: &Identities<Credentials>,
    key: &SigningKey,
    now: Timestamp,
) -> Result<RecordReference, Error> {
    let name = record.key().map_err(Error::Name)?.to_string();
    let bytes = record.seal(key).map_err(Error::Canonical)?;
    let open = |identity: Identity| {
        let settings = store.settings(credentials.of(identity).clone());
        Bucket::open(&settings).map_err(|source| Error::Settings { store: store.name.clone(), source })
    };
    let failed = |doing: &'static str| {
        let key = name.clone();
        move |source| Error::Store { doing, key, source: Box::new(source) }
    };
    let days = store.object_lock.map(|lock| i64::from(lock.days));
    let put = Put {
        on_existing: store.on_existing(),
        retain_until: days
            .and_then(|days| now.checked_add(SignedDuration::from_hours(24 * days)).ok())
            .and_then(|until| Timestamp::from_second(until.as_second()).ok()),
        lock_mode: store.claimed_mode().unwrap_or_default(),
        ..Put::default()
    };
    let committer = open(Identity::Committer)?;
    let put = retry::put(&committer, &name, bytes.clone().into(), &put, RetryRule::FEW);
    let version = match put.await {
        Ok(version) => version,
        // Ours, whose answer was lost; or somebody else's, which is seen below.
        Err(error) if error.kind == bucket::Kind::PreconditionFailed => None,
        Err(error) => return Err(failed("put")(error)),
    };
    let found = open(Identity::Reader)?.get(&name, version.as_ref()).await.map_err(failed("read back"))?;
    let version = version.or_else(|| found.meta.version.clone());
    let found = found.whole(RECORD_LIMIT_BYTES).await.map_err(failed("read back"))?;
    // One that was put before an answer was lost may have been sealed when the policy still promised something else.
    let is_ours = |found: &[u8]| {
        Record::open(found, &[key.public()])
            .is_ok_and(|found| found.drill == record.drill && found.ended == record.ended)
    };
    if found != bytes && !is_ours(&found) {
        return Err(Error::Differs { key: name });
    }
    Ok(RecordReference {
        store: store.name.clone(),
        object: ObjectDigest {
            key: name,
            version: version.map(|version| version.as_str().to_owned()),
            blake3: Blake3::of(&found).to_string(),
        },
        written: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            Timestamp::from_second(now.as_second()).unwrap_or(now),
        ),
    })
}

#[cfg(test)]
mod schema;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use serde_json::Value;

    use super::*;
    use crate::drill::check::{check, tests::drill};

    const PAGE: &str = include_str!("../../../docs/drill-record.md");

    pub(super) fn example() -> Value {
        let (_, rest) = PAGE.split_once("```json\n").unwrap();
        serde_json::from_str(rest.split_once("```").unwrap().0).unwrap()
    }

    /// Names of all fields in `value`, but those that only some verdicts have.
    fn fields(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields_of) => {
                for (name, part) in fields_of {
                    found.insert(name.clone());
                    fields(part, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| fields(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn key() -> SigningKey {
        SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap()
    }

    #[test]
    fn the_example_of_the_page_is_a_record_with_every_field_and_each_is_explained() {
        let record: Record = serde_json::from_value(example()).unwrap();

        assert_eq!(serde_json::to_value(&record).unwrap(), example());
        let mut names = BTreeSet::new();
        fields(&example(), &mut names);
        let (_, table) = PAGE.split_once("| field |").unwrap();
        for name in names {
            assert!(table.contains(&name), "{name} is not explained");
        }
        let key = record.key().unwrap().to_string();
        assert_eq!(key, "v1/ostra-vardcentralen/records/drill-20261122T040000Z-0b0e7c1a6f0e4a67.json");
    }

    #[test]
    fn a_record_opens_for_who_trusts_its_key_and_its_bytes_are_always_the_same() {
        let record: Record = serde_json::from_value(example()).unwrap();
        let (own, other) = (key(), key());

        let sealed = record.seal(&own).unwrap();

        assert_eq!(record.seal(&own).unwrap(), sealed);
        assert_eq!(Record::open(&sealed, &[own.public()]).unwrap(), record);
        assert!(Record::open(&sealed, &[other.public()]).is_err());
        let forged = String::from_utf8(sealed).unwrap().replace("eyJ", "eyI");
        assert!(Record::open(forged.as_bytes(), &[own.public()]).is_err());
    }

    #[test]
    fn a_drill_that_came_to_nothing_has_a_record_that_says_so() {
        let object =
            drill("journal-ada", "ada-20261122t050000z", serde_json::json!({ "origin": "Scheduled" }));
        let run = check(Arc::new(object));
        let subject = run.subject.clone().unwrap();
        let store = crate::store::check::tests::store();

        let record =
            record(&run, &subject, &RestoreDrillStatus::default(), &"ada".parse().unwrap(), &store, None);

        assert!(!record.passed);
        assert_eq!((record.backup.clone(), record.objectives.clone()), (None, None));
        let written = serde_json::to_value(&record).unwrap();
        assert_eq!(written["backup"], Value::Null);
        assert_eq!(written["measured"]["rtoSeconds"], Value::Null);
    }

    #[test]
    fn the_commands_of_the_page_verify_a_record_with_openssl_and_jq() {
        let record: Record = serde_json::from_value(example()).unwrap();
        let key = key();
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        put("record.json", &record.seal(&key).unwrap());
        put("valv-signing.pub", key.public().to_pem().as_bytes());
        let (_, rest) = PAGE.split_once("```bash\n").unwrap();
        let script = rest.split_once("```").unwrap().0;
        let run = || {
            let shell = std::process::Command::new("bash")
                .args(["-euo", "pipefail", "-c", script])
                .current_dir(folder.path())
                .output();
            shell.unwrap()
        };

        let verified = run();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert!(
            said.contains("Signature Verified Successfully") && said.contains("\"passed\": true"),
            "{said}"
        );

        let mut altered = record.clone();
        altered.passed = false;
        let payload = canonical::to_vec(&altered).unwrap();
        let sealed = key.sign(RECORD_TYPE, &payload);
        let mut forged: Value = serde_json::from_slice(&record.seal(&key).unwrap()).unwrap();
        forged["payload"] = serde_json::to_value(&sealed).unwrap()["payload"].clone();
        put("record.json", forged.to_string().as_bytes());
        assert!(!run().status.success(), "a forged record verified");
    }
}
