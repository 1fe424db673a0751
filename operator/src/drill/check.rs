//! Gives a `RestoreDrill` the names that the rest works with: its tenant, its slot, its namespace. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use valv_crds::{
    RestoreDrill, RestoreDrillStatus, Slot,
    drill::{DrillCondition, DrillOrigin, DrillReason},
    reference::{DRILL_FINALIZER, NAMESPACE_PREFIX},
    slot,
};

use super::teardown;

/// One drill.
#[derive(Clone, Debug)]
pub struct Run {
    /// The object as it was read.
    pub object: Arc<RestoreDrill>,
    /// Its name.
    pub name: String,
    /// Its namespace, which is the tenant's.
    pub namespace: String,
    /// What is drilled, or why that cannot be said.
    pub subject: Result<Subject, Invalid>,
}

/// What is drilled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subject {
    /// The tenant's name.
    pub tenant: String,
    /// The drill's own slot.
    pub slot: Slot,
    /// When it was asked for.
    pub asked: Timestamp,
    /// Namespace into which it restores.
    pub into: String,
}

/// Where it stands, or how it is called, says nothing that can be drilled.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// The namespace is no tenant's.
    #[error("{0} is no tenant's namespace: make the RestoreDrill in journal-<tenant>")]
    NotATenant(String),
    /// The name has no slot.
    #[error("{0} is not <tenant>-<slot>, such as ada-20261122t010000z; with origin: Manual any name will do")]
    Name(String),
    /// The name has another tenant's name.
    #[error("{name} is made from the tenant {named}, and this is {tenant}'s namespace")]
    Another {
        /// The drill's name.
        name: String,
        /// Whom it names.
        named: String,
        /// Whose namespace it is in.
        tenant: String,
    },
    /// The object has no moment of its own yet.
    #[error("the RestoreDrill has no creationTimestamp or no UID")]
    NotCreated,
}

impl Run {
    /// Namespace and name: what no two share.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The object's UID.
    pub fn uid(&self) -> String {
        self.object.uid().unwrap_or_default()
    }

    /// Its status, as it stands.
    pub fn status(&self) -> RestoreDrillStatus {
        self.object.status.clone().unwrap_or_default()
    }

    /// When its verdict stood.
    pub fn ended(&self) -> Option<Timestamp> {
        ended(&self.object)
    }

    /// Whether somebody deletes it.
    pub fn is_deleted(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    /// Whether it has the finalizer.
    pub fn is_held(&self) -> bool {
        self.object.finalizers().iter().any(|finalizer| finalizer == DRILL_FINALIZER)
    }
}

/// Whether a condition of `drill` is true.
pub fn is_true(drill: &RestoreDrill, kind: DrillCondition) -> bool {
    says(drill, kind).is_some_and(|(status, _)| status == "True")
}

/// Status and reason of a condition of `drill`.
pub fn says(drill: &RestoreDrill, kind: DrillCondition) -> Option<(&str, &str)> {
    let name = format!("{kind:?}");
    let conditions = drill.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let found = conditions.iter().find(|condition| condition.type_ == name)?;
    Some((found.status.as_str(), found.reason.as_str()))
}

/// Whether the record of `drill` is written, or there is none to write.
pub fn is_recorded(drill: &RestoreDrill) -> bool {
    let not_asked = format!("{:?}", DrillReason::NotAskedFor);
    says(drill, DrillCondition::Recorded)
        .is_some_and(|(status, reason)| status == "True" || reason == not_asked)
}

/// Whether nothing of what `drill` restored is left.
pub fn is_torn_down(drill: &RestoreDrill) -> bool {
    is_true(drill, DrillCondition::TornDown)
}

/// Since when something that `drill` restored should be gone: since it ended. Absent: nothing is left, or it has not ended.
/// Whatever its status says of why: what hangs says nothing.
pub fn left_since(drill: &RestoreDrill) -> Option<Timestamp> {
    ended(drill).filter(|_| !is_torn_down(drill))
}

/// Since when the record of `drill` should lie in the store. Absent: it does, or there is none, or it has not ended.
pub fn unrecorded_since(drill: &RestoreDrill) -> Option<Timestamp> {
    ended(drill).filter(|_| !is_recorded(drill))
}

fn ended(drill: &RestoreDrill) -> Option<Timestamp> {
    drill.status.as_ref()?.ended.as_ref().map(|time| time.0)
}

/// Whether nothing more happens to `drill`.
pub fn is_over(drill: &RestoreDrill) -> bool {
    ended(drill).is_some() && is_torn_down(drill) && is_recorded(drill)
}

/// Whether `drill` works at `now`, and takes the room of a tenant. One that waits for a person, for a store or for its turn
/// does not; nor does one of which something is left for too long, whatever its status says of why, or it would hold up all
/// others until somebody helps.
pub fn works(drill: &RestoreDrill, now: Timestamp) -> bool {
    let Some(status) = drill.status.as_ref().filter(|status| status.started.is_some()) else { return false };
    if status.ended.is_some() {
        return left_since(drill).is_some_and(|ended| now.duration_since(ended) <= teardown::LIMIT);
    }
    let mut waits =
        [DrillReason::KeyMissing, DrillReason::NotReached].into_iter().chain(DrillReason::OF_THE_STORE);
    let reason = says(drill, DrillCondition::Passed).map(|(_, reason)| reason).unwrap_or_default();
    waits.all(|wait| format!("{wait:?}") != reason)
}

/// Checks `object`.
pub fn check(object: Arc<RestoreDrill>) -> Run {
    let name = object.name_any();
    let namespace = object.namespace().unwrap_or_default();
    let subject = subject(&object);
    Run { object, name, namespace, subject }
}

/// What `object` drills.
///
/// # Errors
/// If neither its name nor its namespace says it.
pub fn subject(object: &RestoreDrill) -> Result<Subject, Invalid> {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let tenant = namespace
        .strip_prefix(NAMESPACE_PREFIX)
        .ok_or_else(|| Invalid::NotATenant(namespace.clone()))?
        .to_owned();
    let asked = object.creation_timestamp().ok_or(Invalid::NotCreated)?.0;
    let slot = if object.spec.origin == DrillOrigin::Manual {
        Slot::at(asked).map_err(|_| Invalid::NotCreated)?
    } else {
        let (named, slot) = slot::parse_name(&name).map_err(|_| Invalid::Name(name.clone()))?;
        if named != tenant {
            return Err(Invalid::Another { named: named.to_owned(), name, tenant });
        }
        slot
    };
    let uid = object.uid().filter(|uid| !slot::short_uid(uid).is_empty()).ok_or(Invalid::NotCreated)?;
    let into = slot::drill_namespace(&tenant, &uid);
    Ok(Subject { tenant, slot, asked, into })
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub fn drill(namespace: &str, name: &str, spec: serde_json::Value) -> RestoreDrill {
        serde_json::from_value(json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "RestoreDrill",
            "metadata": {
                "name": name, "namespace": namespace, "uid": "0b0e7c1a-6f0e-4a67-9d0e-3a5d4c1b2a39",
                "generation": 1, "creationTimestamp": "2026-11-22T09:30:05Z",
                "finalizers": [DRILL_FINALIZER],
            },
            "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn a_drill_restores_into_a_namespace_of_its_tenant_and_uid() {
        let scheduled = drill("journal-ada", "ada-20261122t050000z", json!({ "origin": "Scheduled" }));
        let manual = drill("journal-ada", "by-hand", json!({}));

        assert_eq!(subject(&scheduled).unwrap().into, "drill-ada-0b0e7c1a6f0e4a67");
        assert_eq!(subject(&manual).unwrap().slot.to_string(), "20261122T093005Z");
    }

    #[test]
    fn two_drills_in_one_second_share_neither_namespace_nor_record() {
        let one = drill("journal-ada", "by-hand", json!({}));
        let mut other = drill("journal-ada", "by-hand-too", json!({}));
        other.metadata.uid = Some("1b0e7c1a-6f0e-4a67-9d0e-3a5d4c1b2a39".into());
        let record = |drill: &RestoreDrill| {
            let subject = subject(drill).unwrap();
            crate::drill::objects::record_name(subject.slot, &drill.uid().unwrap())
        };

        assert_eq!(subject(&one).unwrap().slot, subject(&other).unwrap().slot);
        assert_ne!(subject(&one).unwrap().into, subject(&other).unwrap().into);
        assert_ne!(record(&one), record(&other));
    }

    #[test]
    fn a_drill_that_waits_for_somebody_does_not_work() {
        let now = |text: &str| text.parse::<Timestamp>().unwrap();
        let standing = |passed: &str, ended: bool, at: &str| {
            let mut drill = drill("journal-ada", "by-hand", json!({}));
            let said = |kind: &str, status: &str, reason: &str| {
                json!({ "type": kind, "status": status, "reason": reason, "message": "",
                    "lastTransitionTime": "2026-11-22T09:30:05Z" })
            };
            let mut status = json!({ "started": "2026-11-22T09:30:05Z", "conditions": [
                said("Passed", "Unknown", passed), said("TornDown", "False", "TearingDown"),
            ]});
            if ended {
                status["ended"] = json!("2026-11-22T10:30:05Z");
            }
            drill.status = serde_json::from_value(status).unwrap();
            works(&drill, now(at))
        };
        let early = "2026-11-22T10:35:05Z";

        assert!(!works(&drill("journal-ada", "by-hand", json!({})), now(early)), "it has not begun");
        assert!(standing("Running", false, early));
        assert!(standing("Running", true, early));
        for waits in [
            "KeyMissing",
            "StoreUnavailable",
            "CredentialsRefused",
            "TlsRefused",
            "ClockSkewed",
            "NotReached",
        ] {
            assert!(!standing(waits, false, early), "{waits}");
        }
        // What hangs need not have said so.
        assert!(!standing("Cancelled", true, "2026-11-22T10:35:06Z"));
    }

    #[test]
    fn a_drill_that_is_not_where_or_called_what_it_should_be_is_refused() {
        let refused =
            |namespace: &str, name: &str| subject(&drill(namespace, name, json!({ "origin": "Scheduled" })));

        assert!(matches!(refused("default", "ada-20261122t050000z"), Err(Invalid::NotATenant(_))));
        assert!(matches!(refused("journal-ada", "ada"), Err(Invalid::Name(_))));
        assert!(matches!(refused("journal-ada", "bo-20261122t050000z"), Err(Invalid::Another { .. })));
    }
}
