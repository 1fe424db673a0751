//! Gives a `Backup` the names that the rest works with: its tenant, its slot. Pure.

use std::sync::Arc;

use super::observe::is_over;
use kube::ResourceExt;
use valv_crds::{
    Backup, Slot,
    backup::{BackupReason, Origin},
    reference::{FROM_CATALOGUE_ANNOTATION, NAMESPACE_PREFIX},
    slot,
};

/// One run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The object as it was read.
    pub object: Arc<Backup>,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What it is a backup of, or why that cannot be said.
    pub subject: Result<Subject, Invalid>,
}

/// What a backup is of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subject {
    /// The tenant's name.
    pub tenant: String,
    /// For which moment.
    pub slot: Slot,
}

/// Where it stands, or how it is called, says nothing that can be backed up.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// The namespace is no tenant's.
    #[error("{0} is no tenant's namespace: make the Backup in journal-<tenant>")]
    NotATenant(String),
    /// The name has no slot.
    #[error("{0} is not <tenant>-<slot>, such as ada-20261122t010000z; with origin: Manual any name will do")]
    Name(String),
    /// The name has another tenant's name.
    #[error("{name} is made from the tenant {named}, and this is {tenant}'s namespace")]
    Another {
        /// The Backup's name.
        name: String,
        /// Whom it names.
        named: String,
        /// Whose namespace it is in.
        tenant: String,
    },
    /// The object has no moment of its own yet.
    #[error("the Backup has no creationTimestamp")]
    NotCreated,
}

impl Invalid {
    /// The condition's reason.
    pub fn reason(&self) -> BackupReason {
        match self {
            Self::NotATenant(_) => BackupReason::NotATenant,
            Self::Name(_) | Self::Another { .. } | Self::NotCreated => BackupReason::NameInvalid,
        }
    }
}

impl Run {
    /// Namespace and name: what no two share.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The tenant's name, as far as it is known.
    pub fn tenant(&self) -> Option<&str> {
        self.subject.as_ref().ok().map(|subject| subject.tenant.as_str())
    }

    /// The object's UID.
    pub fn uid(&self) -> String {
        self.object.uid().unwrap_or_default()
    }
}

/// Whether `object` was made from the catalogue and does not say yet how it ended: the janitor, which made it, is about
/// to. Nothing is run for it, and nothing is written that the janitor's status would collide with.
pub fn awaits_catalogue(object: &Backup) -> bool {
    let is_begun = object.status.as_ref().is_some_and(|status| status.attempt.is_some());
    !is_begun && !is_over(object) && object.annotations().contains_key(FROM_CATALOGUE_ANNOTATION)
}

/// Checks `object`.
pub fn check(object: Arc<Backup>) -> Run {
    let name = object.name_any();
    let namespace = object.namespace().unwrap_or_default();
    let subject = subject(&object, &name, &namespace);
    Run { object, name, namespace, subject }
}

fn subject(object: &Backup, name: &str, namespace: &str) -> Result<Subject, Invalid> {
    let tenant = namespace
        .strip_prefix(NAMESPACE_PREFIX)
        .ok_or_else(|| Invalid::NotATenant(namespace.to_owned()))?
        .to_owned();
    if object.spec.origin == Origin::Manual {
        let created = object.creation_timestamp().ok_or(Invalid::NotCreated)?;
        let slot = Slot::at(created.0).map_err(|_| Invalid::NotCreated)?;
        return Ok(Subject { tenant, slot });
    }
    let (named, slot) = slot::parse_name(name).map_err(|_| Invalid::Name(name.to_owned()))?;
    if named != tenant {
        return Err(Invalid::Another { name: name.to_owned(), named: named.to_owned(), tenant });
    }
    Ok(Subject { tenant, slot })
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub fn backup(namespace: &str, name: &str, spec: serde_json::Value) -> Arc<Backup> {
        Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "valv.eu/v1alpha1", "kind": "Backup",
                "metadata": {
                    "name": name, "namespace": namespace, "uid": "0b0e7c1a-6f0e-4a67-9d0e-3a5d4c1b2a39",
                    "generation": 1, "creationTimestamp": "2026-11-22T09:30:05Z",
                },
                "spec": spec,
            }))
            .unwrap(),
        )
    }

    #[test]
    fn the_slot_of_a_scheduled_backup_is_in_its_name_and_that_of_a_persons_is_when_it_was_made() {
        let scheduled =
            check(backup("journal-ada", "ada-20261122t010000z", json!({ "origin": "Scheduled" })));
        let manual = check(backup("journal-ada", "before-the-move", json!({})));

        assert_eq!(scheduled.subject.unwrap().slot.to_string(), "20261122T010000Z");
        assert_eq!(manual.subject.unwrap().slot.to_string(), "20261122T093005Z");
    }

    #[test]
    fn a_backup_that_is_not_where_or_called_what_it_should_be_is_refused() {
        let reason = |namespace: &str, name: &str| {
            check(backup(namespace, name, json!({ "origin": "Scheduled" }))).subject.unwrap_err().reason()
        };

        assert_eq!(reason("default", "ada-20261122t010000z"), BackupReason::NotATenant);
        assert_eq!(reason("journal-ada", "ada"), BackupReason::NameInvalid);
        assert_eq!(reason("journal-ada", "bo-20261122t010000z"), BackupReason::NameInvalid);
    }

    #[test]
    fn what_came_from_the_catalogue_is_left_to_it() {
        let mut rebuilt =
            backup("journal-ada", "ada-20261122t010000z", json!({ "origin": "Scheduled" })).as_ref().clone();
        assert!(!awaits_catalogue(&rebuilt));

        rebuilt.metadata.annotations =
            Some([(FROM_CATALOGUE_ANNOTATION.to_owned(), "true".to_owned())].into());
        assert!(awaits_catalogue(&rebuilt));

        let status = json!({ "attempt": { "number": 1 }, "conditions": [] });
        rebuilt.status = serde_json::from_value(status).unwrap();
        assert!(!awaits_catalogue(&rebuilt));
    }
}
