//! Decides whether a drill gets its key. Pure.
//!
//! Input: the drill's namespace, and what the cluster says of the drill and of its tenant. The namespace's word alone
//! is worth nothing: the drill must be there, be the one that the namespace was made for, and be under way.

use std::str::FromStr;

use age::x25519;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{ResourceExt, core::DynamicObject};
use valv_crds::{
    drill::Check,
    reference::{DRILL_LABEL, TENANT_LABEL},
};

use super::Seen;
use crate::{
    drill::{
        check,
        names::{ARCHIVE_ANNOTATION, KEY_FILE, OBJECT_ANNOTATION},
        verdicts,
    },
    tenant::observe::Access,
};

/// Who manages the Secrets that the key holder makes.
pub const MANAGER: &str = "valv-keyholder";

/// Label that says who manages an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// What is done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Nothing: no key is asked for.
    Nothing,
    /// Nothing yet: the key is there and in use, or the drill has not come so far.
    Wait,
    /// The key is brought.
    Bring(Request),
    /// The key that was brought is taken away.
    Withdraw,
    /// The drill gets no key, and somebody should look at why.
    Refuse(String),
}

/// Which key is brought, and for whom.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// The archive that it opens.
    pub archive: String,
    /// The tenant.
    pub tenant: String,
    /// `<namespace>/<name>` of the drill.
    pub drill: String,
    /// UID of the drill.
    pub uid: String,
    /// The recipient that the tenant's spec has for drills.
    pub recipient: String,
}

/// What is done about the drill that restores into `namespace`.
pub fn decide(namespace: &Namespace, seen: &Seen) -> Decision {
    let ours = seen.brought.as_ref().is_some_and(is_ours);
    let done = || if ours { Decision::Withdraw } else { Decision::Nothing };
    let (labels, annotations) = (namespace.labels(), namespace.annotations());
    let (Some(uid), Some(tenant_name), Some(archive), Some(named)) = (
        labels.get(DRILL_LABEL),
        labels.get(TENANT_LABEL),
        annotations.get(ARCHIVE_ANNOTATION),
        annotations.get(OBJECT_ANNOTATION),
    ) else {
        return done();
    };
    let Some(drill) = &seen.drill else { return done() };
    if drill.uid().as_ref() != Some(uid) || check::check(drill.clone().into()).key() != *named {
        return done();
    }
    let status = drill.status.clone().unwrap_or_default();
    let is_past = status.ended.is_some()
        || drill.metadata.deletion_timestamp.is_some()
        || namespace.metadata.deletion_timestamp.is_some()
        || drill.spec.cancel
        || verdicts::has(&status.verdicts, Check::CommitSignature);
    if is_past {
        return done();
    }
    let refuse = |why: String| if ours { Decision::Withdraw } else { Decision::Refuse(why) };
    let subject = match check::subject(drill) {
        Ok(subject) => subject,
        Err(invalid) => return refuse(invalid.to_string()),
    };
    if subject.into != namespace.name_any() || subject.tenant != *tenant_name {
        return refuse(format!("the drill {named} restores into {}, and not here", subject.into));
    }
    let Some(tenant) = &seen.tenant else {
        return refuse(format!("the tenant {tenant_name} is not there"));
    };
    let recipient = tenant.spec.backup.as_ref().and_then(|backup| backup.recipients.drill.clone());
    let Some(recipient) = recipient else { return done() };
    let own = tenant.spec.archive_id.clone().unwrap_or_else(|| tenant.name_any());
    if own != *archive {
        return refuse(format!("the tenant {tenant_name} has the archive {own}, and not {archive}"));
    }
    if seen.brought.is_some() || status.started.is_none() || seen.access == Access::Denied {
        return Decision::Wait;
    }
    Decision::Bring(Request {
        archive: own,
        tenant: tenant_name.clone(),
        drill: named.clone(),
        uid: uid.clone(),
        recipient,
    })
}

fn is_ours(secret: &Secret) -> bool {
    secret.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

/// A key cannot be brought. Never says what the key is.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unusable {
    /// An older tenant has the archive.
    #[error("the archive {archive} is the tenant {eldest}'s, which is older: no other is brought its key")]
    Rival {
        /// Which archive.
        archive: String,
        /// Whose it is.
        eldest: String,
    },
    /// It is not said to be this tenant's.
    #[error(
        "the Secret {key} has not the label {TENANT_LABEL}: {tenant}, which a key needs whose archive is called otherwise than its tenant"
    )]
    NotTheTenants {
        /// Name of the Secret.
        key: String,
        /// Who asks.
        tenant: String,
    },
    /// The Secret lacks it.
    #[error("the Secret {0} has no {KEY_FILE}")]
    Absent(String),
    /// It is another.
    #[error("the Secret {0} holds no age identity of the recipient in spec.backup.recipients.drill")]
    Another(String),
}

/// The older of two tenants that have the same archive.
pub fn elder(standing: Option<DynamicObject>, tenant: DynamicObject) -> Option<DynamicObject> {
    let age = |tenant: &DynamicObject| (tenant.creation_timestamp(), tenant.name_any());
    match standing {
        Some(standing) if age(&standing) <= age(&tenant) => Some(standing),
        _ => Some(tenant),
    }
}

/// Whether `tenant` has this archive.
pub fn has_archive(tenant: &DynamicObject, archive: &str) -> bool {
    let named = tenant.data.pointer("/spec/archiveID").and_then(serde_json::Value::as_str);
    named.map_or_else(|| tenant.name_any() == archive, |named| named == archive)
}

/// Whether `request` is of the tenant that has the archive, of which `eldest` is the oldest that names it.
///
/// # Errors
/// If it is another's.
pub fn is_the_tenants(request: &Request, eldest: Option<&DynamicObject>) -> Result<(), Unusable> {
    match eldest.map(ResourceExt::name_any).filter(|eldest| *eldest != request.tenant) {
        Some(eldest) => Err(Unusable::Rival { archive: request.archive.clone(), eldest }),
        None => Ok(()),
    }
}

/// The identity file in `key`, if one of the identities in it is of the recipient that `request` names. Older ones
/// beside it open older backups.
///
/// # Errors
/// If it is not there, or is somebody else's.
pub fn identity<'a>(key: &'a Secret, request: &Request) -> Result<&'a [u8], Unusable> {
    let name = key.name_any();
    let (tenant, labelled) = (&request.tenant, key.labels().get(TENANT_LABEL));
    // The recipient that is looked for below is public, and an archive's id is free text: by both alone a second tenant
    // could have another's key.
    let is_theirs = labelled.map_or(request.archive == *tenant, |label| label == tenant);
    if !is_theirs {
        return Err(Unusable::NotTheTenants { key: name, tenant: tenant.clone() });
    }
    let data = key.data.as_ref().and_then(|data| data.get(KEY_FILE));
    let data = data.ok_or_else(|| Unusable::Absent(name.clone()))?;
    let text = std::str::from_utf8(&data.0).map_err(|_| Unusable::Another(name.clone()))?;
    let is_of = |line: &str| {
        let identity = x25519::Identity::from_str(line.trim());
        identity.is_ok_and(|identity| identity.to_public().to_string() == request.recipient)
    };
    if text.lines().any(is_of) { Ok(&data.0) } else { Err(Unusable::Another(name)) }
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret;
    use k8s_openapi::ByteString;
    use serde_json::{Value, json};

    use super::*;

    const UID: &str = "0b0e7c1a-6f0e-4a67-9d0e-3a5d4c1b2a39";
    const INTO: &str = "drill-ada-0b0e7c1a6f0e4a67";

    fn namespace() -> Namespace {
        serde_json::from_value(json!({ "metadata": {
            "name": INTO,
            "labels": { DRILL_LABEL: UID, TENANT_LABEL: "ada" },
            "annotations": {
                ARCHIVE_ANNOTATION: "ada", OBJECT_ANNOTATION: "journal-ada/ada-20261122t050000z",
            },
        }}))
        .unwrap()
    }

    fn recipient() -> String {
        format!("age1{}", "q".repeat(58))
    }

    fn seen(change: impl FnOnce(&mut Value, &mut Value)) -> Seen {
        let mut drill = json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "RestoreDrill",
            "metadata": { "name": "ada-20261122t050000z", "namespace": "journal-ada", "uid": UID,
                "creationTimestamp": "2026-11-22T05:00:00Z" },
            "spec": { "origin": "Scheduled" },
            "status": { "started": "2026-11-22T05:00:00Z", "conditions": [] },
        });
        let mut tenant = json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant",
            "metadata": { "name": "ada" },
            "spec": { "host": "h", "journal": { "image": "j" }, "database": { "size": "1Gi" },
                "backup": { "policy": "default", "recipients": {
                    "tenant": "age1a", "escrow": "age1b", "drill": recipient(),
                }}},
        });
        change(&mut drill, &mut tenant);
        Seen {
            drill: serde_json::from_value(drill).unwrap(),
            tenant: serde_json::from_value(tenant).unwrap(),
            access: Access::Granted,
            brought: None,
        }
    }

    fn secret(manager: &str) -> Option<Secret> {
        serde_json::from_value(
            json!({ "metadata": { "name": "drill-key", "labels": { MANAGED_BY: manager } } }),
        )
        .unwrap()
    }

    #[test]
    fn a_drill_that_is_under_way_gets_the_key_of_its_tenant() {
        let Decision::Bring(request) = decide(&namespace(), &seen(|_, _| {})) else { panic!("no key") };

        assert_eq!((request.archive.as_str(), request.uid.as_str()), ("ada", UID));
        assert_eq!(request.recipient, recipient());
    }

    #[test]
    fn a_drill_that_is_not_there_or_another_or_over_gets_none() {
        let mut gone = seen(|_, _| {});
        gone.drill = None;
        assert_eq!(decide(&namespace(), &gone), Decision::Nothing);
        let changes: [(&str, Value); 5] = [
            ("/metadata/uid", json!("another")),
            ("/metadata/namespace", json!("journal-bo")),
            ("/spec/cancel", json!(true)),
            ("/metadata/deletionTimestamp", json!("2026-11-22T05:10:00Z")),
            ("/status/ended", json!("2026-11-22T05:10:00Z")),
        ];
        for (path, value) in changes {
            let (parent, field) = path.rsplit_once('/').unwrap();
            let seen = seen(|drill, _| drill.pointer_mut(parent).unwrap()[field] = value);
            assert_eq!(decide(&namespace(), &seen), Decision::Nothing, "{path}");
        }
    }

    #[test]
    fn a_drill_whose_namespace_is_being_made_is_looked_at_again() {
        let early = Seen { access: Access::Denied, ..seen(|_, _| {}) };

        assert_eq!(decide(&namespace(), &early), Decision::Wait);
    }

    #[test]
    fn a_namespace_that_was_made_for_another_drill_or_archive_is_refused() {
        let mut elsewhere = namespace();
        elsewhere.metadata.name = Some("drill-ada-1b0e7c1a6f0e4a67".into());
        let other = seen(|_, tenant| tenant["spec"]["archiveID"] = json!("bo"));

        assert!(matches!(decide(&elsewhere, &seen(|_, _| {})), Decision::Refuse(_)));
        assert!(matches!(decide(&namespace(), &other), Decision::Refuse(_)));
    }

    #[test]
    fn a_tenant_without_a_key_for_drills_is_left_to_people() {
        let attended = seen(|_, tenant| {
            tenant["spec"]["backup"]["recipients"].as_object_mut().unwrap().remove("drill");
        });

        assert_eq!(decide(&namespace(), &attended), Decision::Nothing);
    }

    #[test]
    fn the_key_is_taken_away_when_the_restore_has_ended_and_a_persons_key_is_not() {
        let restored = |drill: &mut Value, _: &mut Value| {
            drill["status"]["verdicts"] =
                json!([{ "name": "CommitSignature", "outcome": "Passed", "reason": "AsAsked" }]);
        };

        let ours = Seen { brought: secret(MANAGER), ..seen(restored) };
        let theirs = Seen { brought: secret("somebody"), ..seen(restored) };
        let in_use = Seen { brought: secret(MANAGER), ..seen(|_, _| {}) };

        assert_eq!(decide(&namespace(), &ours), Decision::Withdraw);
        assert_eq!(decide(&namespace(), &theirs), Decision::Nothing);
        assert_eq!(decide(&namespace(), &in_use), Decision::Wait);
    }

    fn request(archive: &str, tenant: &str, recipient: String) -> Request {
        let drill = format!("journal-{tenant}/x");
        Request { archive: archive.into(), tenant: tenant.into(), drill, uid: UID.into(), recipient }
    }

    #[test]
    fn a_younger_tenant_that_names_anothers_archive_is_not_brought_its_key() {
        let tenant = |name: &str, created: &str, archive: Value| -> DynamicObject {
            serde_json::from_value(json!({
                "metadata": { "name": name, "creationTimestamp": created }, "spec": { "archiveID": archive },
            }))
            .unwrap()
        };
        let all = [
            tenant("eve", "2026-04-01T00:00:00Z", json!("ada")),
            tenant("ada", "2026-03-01T00:00:00Z", Value::Null),
            tenant("bo", "2026-01-01T00:00:00Z", Value::Null),
        ];
        let of_archive = all.into_iter().filter(|tenant| has_archive(tenant, "ada"));
        let eldest = of_archive.fold(None, elder);

        assert_eq!(is_the_tenants(&request("ada", "ada", recipient()), eldest.as_ref()), Ok(()));
        let refused = is_the_tenants(&request("ada", "eve", recipient()), eldest.as_ref());
        assert_eq!(refused, Err(Unusable::Rival { archive: "ada".into(), eldest: "ada".into() }));
    }

    #[test]
    fn a_key_whose_archive_is_called_otherwise_than_its_tenant_says_whose_it_is() {
        let own = x25519::Identity::generate();
        let recipient = own.to_public().to_string();
        let mut secret = Secret::default();
        secret.metadata.name = Some("drill-key-ada".into());
        let file = own.to_string().expose_secret().to_owned();
        secret.data = Some([(KEY_FILE.to_owned(), ByteString(file.into_bytes()))].into());
        let refused = |secret: &Secret, tenant: &str| {
            matches!(
                identity(secret, &request("ada", tenant, recipient.clone())),
                Err(Unusable::NotTheTenants { .. })
            )
        };

        // The tenant ada is gone, and its archive is there.
        assert!(refused(&secret, "eve"));
        assert!(!refused(&secret, "ada"));
        secret.labels_mut().insert(TENANT_LABEL.to_owned(), "anna".to_owned());
        assert!(!refused(&secret, "anna"));
        assert!(refused(&secret, "ada"));
    }

    #[test]
    fn a_key_of_another_recipient_is_not_brought() {
        let (own, other) = (x25519::Identity::generate(), x25519::Identity::generate());
        let request = request("ada", "ada", own.to_public().to_string());
        let holding = |lines: &[&x25519::Identity]| {
            let lines: Vec<_> = lines.iter().map(|key| key.to_string().expose_secret().to_owned()).collect();
            let mut secret = Secret::default();
            secret.metadata.name = Some("drill-key-ada".into());
            let file = format!("# a comment\n{}\n", lines.join("\n"));
            secret.data = Some([(KEY_FILE.to_owned(), ByteString(file.into_bytes()))].into());
            secret
        };

        assert!(identity(&holding(&[&other, &own]), &request).is_ok());
        assert_eq!(identity(&holding(&[&other]), &request), Err(Unusable::Another("drill-key-ada".into())));
        assert!(matches!(identity(&Secret::default(), &request), Err(Unusable::Absent(_))));
    }
}
