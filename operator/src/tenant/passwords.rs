//! Decides which passwords there are, which login the journal uses, and when an old one is locked out.
//!
//! Input: the tenant and its Secrets. Output: a [`Passwords`]. Pure: new passwords are ordered, not made.
//!
//! The journal has two logins that take turns. To rotate: the idle one gets a new password in a Secret; the
//! database lets both in; the journal's pods are replaced and use the new one; the old one is locked out. At no
//! moment is there a pod whose password is not accepted.

use std::collections::BTreeMap;

use valv_crds::{
    condition::{ConditionType, Reason, Saying},
    database::ApplicationRights,
};

use super::{
    check::Tenant,
    observe::{JobSeen, Observed},
    secret::{self, Order, login_name},
    workload,
};
use crate::{
    agent::{
        roles::{ApplicationGrant, Role, Roles},
        scram::Verifier,
    },
    io::kind::Kind,
    segmentation,
};

/// What is to happen with passwords.
#[derive(Clone, Debug, PartialEq)]
pub struct Passwords {
    /// Secrets to make first; nothing else is done before they are there.
    pub orders: Vec<Order>,
    /// Secrets that are gone or were edited.
    pub lost: Vec<&'static str>,
    /// The login that the journal is to use now.
    pub login: Role,
    /// The generation of that login.
    pub generation: i64,
    /// Who may log in.
    pub roles: Option<Roles>,
    /// Logins that nobody uses any more.
    pub retired: Vec<Role>,
    /// What `PasswordsCurrent` says.
    pub saying: Saying,
    /// The database's pod must apply the roles itself, as of this generation.
    pub recover: Option<i64>,
}

/// Logins that every database has, apart from the journal's own two.
const STANDING: [Role; 4] =
    [Role::JournalOwner, Role::JournalReplication, Role::JournalCheck, Role::ValvRoles];

/// Whether the roles of a digest are in force in the database.
pub type InForce<'a> = &'a dyn Fn(&Roles) -> bool;

/// What is to happen with the passwords of `tenant`.
pub fn passwords(tenant: &Tenant, observed: &Observed, in_force: InForce<'_>) -> Passwords {
    let wanted = tenant.database.password_rotation.generation;
    let initialised = observed.has(Kind::PersistentVolumeClaim, super::claim::DATABASE_CLAIM);
    let (in_use, generation) = in_use(observed, wanted);
    let rotating = generation < wanted;
    let target = if rotating { other(in_use) } else { in_use };

    let needed = STANDING.into_iter().chain([target]);
    let may_make = rotating || !initialised;
    let mut orders = vec![];
    let mut lost = vec![];
    for role in needed {
        let standing = observed.login(role);
        match standing {
            Some(standing) if secret::generation(standing) >= wanted => {}
            Some(_) | None if may_make => orders.push(Order::Login {
                role,
                generation: wanted,
                replaces: observed.secrets.get(login_name(role)).cloned(),
            }),
            Some(_) => {}
            None => lost.push(login_name(role)),
        }
    }
    let migrating = observed.all(Kind::Job).any(|job| {
        let name = job.metadata.name.clone().unwrap_or_default();
        name.starts_with("migrate-") && observed.job(&name) == JobSeen::Active
    });
    if rotating && migrating {
        orders.clear();
    }
    let both =
        if rotating || !journal_rolled_out(observed) { vec![in_use, other(in_use)] } else { vec![target] };
    let roles = (lost.is_empty() && orders.is_empty()).then(|| roles(tenant, observed, &both)).flatten();
    let applied = roles.as_ref().is_some_and(in_force);

    // The journal moves to the new login once the database takes it.
    let moves = rotating && orders.is_empty() && applied && !migrating;
    let retired: Vec<_> = [other(in_use)]
        .into_iter()
        .filter(|_| !rotating && journal_rolled_out(observed))
        .filter(|role| observed.secrets.contains_key(login_name(*role)))
        .collect();
    let settled = !rotating && applied && retired.is_empty() && both.len() == 1;
    let settled_before =
        tenant.object.status.as_ref().is_some_and(|status| status.database.password_generation.is_some());
    Passwords {
        login: if moves { target } else { in_use },
        generation: if moves { wanted } else { generation },
        saying: if settled && lost.is_empty() {
            let message = format!("passwords of generation {wanted} are in use everywhere");
            Saying::yes(ConditionType::PasswordsCurrent, Reason::AsAsked, message)
        } else {
            unsettled(&lost, settled_before.then_some(wanted))
        },
        recover: observed
            .secrets
            .get(login_name(Role::ValvRoles))
            .and_then(|roles| secret::number(roles, secret::RECOVERED_ANNOTATION)),
        orders,
        lost,
        roles,
        retired,
    }
}

/// What is said while not everybody uses the wanted passwords; `rotating` is absent while there are none yet.
fn unsettled(lost: &[&str], rotating: Option<i64>) -> Saying {
    let kind = ConditionType::PasswordsCurrent;
    match rotating {
        _ if !lost.is_empty() => {
            Saying::unknown(kind, Reason::SecretLost, "cannot be known while a login's Secret is lost")
        }
        None => Saying::no(kind, Reason::Progressing, "the first passwords are being taken into use"),
        Some(generation) => Saying::no(
            kind,
            Reason::Rotating,
            format!(
                "passwords of generation {generation} are being taken into use; the ones before still work"
            ),
        ),
    }
}

/// The login that the journal's Secret has now, and its generation.
fn in_use(observed: &Observed, wanted: i64) -> (Role, i64) {
    let journal = observed.secrets.get(super::objects::credentials::JOURNAL_SECRET);
    let user = journal.and_then(|journal| secret::value(journal, "user"));
    match (user.as_deref(), journal.map(secret::generation)) {
        (Some("journal_app_a"), Some(generation)) => (Role::JournalAppA, generation),
        (Some("journal_app_b"), Some(generation)) => (Role::JournalAppB, generation),
        // Not written yet, or gone: the newest login is the one to use.
        _ => {
            let newest = [Role::JournalAppA, Role::JournalAppB]
                .into_iter()
                .filter_map(|role| observed.login(role).map(|secret| (secret::generation(secret), role)));
            newest.max().map_or((Role::JournalAppA, wanted), |(generation, role)| (role, generation))
        }
    }
}

fn other(role: Role) -> Role {
    if role == Role::JournalAppA { Role::JournalAppB } else { Role::JournalAppA }
}

/// Whether all pods of the journal use the login in its Secret.
fn journal_rolled_out(observed: &Observed) -> bool {
    let Some(secret) = observed.secrets.get(super::objects::credentials::JOURNAL_SECRET) else { return true };
    let Some(deployment) = observed.get(Kind::Deployment, "journal") else { return true };
    let wanted = secret.data.as_ref().map(secret::digest).unwrap_or_default();
    let standing = deployment
        .data
        .pointer("/spec/template/metadata/annotations")
        .and_then(|annotations| annotations.get(super::objects::journal::CREDENTIALS_ANNOTATION))
        .and_then(|digest| digest.as_str());
    // A pod on its way out still serves: it may open one more connection.
    let old_pods = workload::pods(observed, segmentation::Role::Journal).any(|pod| {
        let annotations = pod.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(super::objects::journal::CREDENTIALS_ANNOTATION)) != Some(&wanted)
    });
    let stopped = deployment.data.pointer("/status/replicas").is_none_or(|replicas| replicas == 0);
    standing == Some(wanted.as_str())
        && !old_pods
        && (stopped || observed.rollout(Kind::Deployment, "journal").is_complete())
}

fn roles(tenant: &Tenant, observed: &Observed, logins: &[Role]) -> Option<Roles> {
    let verifier = |role: Role| -> Option<Verifier> {
        let text = secret::value(observed.login(role)?, "verifier")?;
        serde_json::from_value(serde_json::Value::String(text)).ok()
    };
    let mut roles: BTreeMap<_, _> = STANDING.into_iter().map(|role| (role, verifier(role))).collect();
    for role in [Role::JournalAppA, Role::JournalAppB] {
        roles.insert(role, if logins.contains(&role) { verifier(role) } else { None });
    }
    Some(Roles {
        database: tenant.database.name.parse().ok()?,
        application_grant: match tenant.database.application_rights {
            ApplicationRights::DataOnly => ApplicationGrant::DataOnly,
            ApplicationRights::Owner => ApplicationGrant::Owner,
        },
        roles,
    })
}
