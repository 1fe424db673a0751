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
    observe::Observed,
    secret::{self, Order, login_name},
    upgrade, workload,
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
    let (in_use, generation) = in_use(tenant, observed);
    let rotating = generation < wanted;
    let target = if rotating { other(in_use) } else { in_use };
    let rolled_out = journal_rolled_out(observed);
    let migrating = migrates(observed);
    // A migration logs in with what would be replaced, and pods on their way out use what would be made anew.
    let held = rotating && (migrating || !rolled_out);

    let may_make = rotating || !is_initialised(observed);
    let mut orders = vec![];
    let mut lost = vec![];
    for role in needed(target) {
        let order = || Order::Login {
            role,
            generation: wanted,
            replaces: observed.secrets.get(login_name(role)).cloned(),
        };
        match observed.login(role) {
            Some(standing) if !may_make || secret::generation(standing) >= wanted => {}
            // It holds the password before it, by which the next change logs in: that must be one that was taken.
            Some(_) if role != target && !is_taken(observed, role, in_force) => {}
            Some(_) | None if may_make && !held => orders.push(order()),
            Some(_) => {}
            None if rotating && role == target => {}
            None => lost.push(login_name(role)),
        }
    }
    let both = if rotating || !rolled_out { vec![in_use, other(in_use)] } else { vec![target] };
    let complete = orders.is_empty() && (lost.is_empty() || held);
    let journals = if held { in_use } else { target };
    let roles = complete.then(|| roles(tenant, observed, journals, &both)).flatten();
    let applied = roles.as_ref().is_some_and(in_force);

    // The journal moves to the new login once the database takes it.
    let made = needed(target)
        .all(|role| observed.login(role).is_some_and(|standing| secret::generation(standing) >= wanted));
    let moves = rotating && made && applied && !migrating;
    let retired: Vec<_> = [other(in_use)]
        .into_iter()
        .filter(|_| !rotating && rolled_out)
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

/// Whether there may be a database that knows passwords.
fn is_initialised(observed: &Observed) -> bool {
    observed.has(Kind::PersistentVolumeClaim, super::claim::DATABASE_CLAIM)
}

/// Logins without which there are no roles.
fn needed(journals: Role) -> impl Iterator<Item = Role> {
    STANDING.into_iter().chain([journals])
}

/// Whether a migration is under way, or about to be.
fn migrates(observed: &Observed) -> bool {
    observed.state().migrating.is_some() || !upgrade::running(observed).is_empty()
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
fn in_use(tenant: &Tenant, observed: &Observed) -> (Role, i64) {
    let journal = observed.secrets.get(super::objects::credentials::JOURNAL_SECRET);
    let user = journal.and_then(|journal| secret::value(journal, "user"));
    match (user.as_deref(), journal.map(secret::generation)) {
        (Some("journal_app_a"), Some(generation)) => return (Role::JournalAppA, generation),
        (Some("journal_app_b"), Some(generation)) => return (Role::JournalAppB, generation),
        // Not written yet, or gone.
        _ => {}
    }
    let made = |role: Role| observed.login(role).map(secret::generation);
    let newest =
        [Role::JournalAppA, Role::JournalAppB].into_iter().filter_map(|role| Some((made(role)?, role)));
    if let Some((generation, role)) = newest.max() {
        return (role, generation);
    }
    // Both logins are gone too: only a generation above all that were ever made asks for new ones.
    let wanted = tenant.database.password_rotation.generation;
    let told = tenant.object.status.as_ref().and_then(|status| status.database.password_generation);
    let known = STANDING.into_iter().filter_map(made).chain(told).max();
    (Role::JournalAppA, known.filter(|_| is_initialised(observed)).unwrap_or(wanted))
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

/// The roles file as it stands.
fn standing_roles(observed: &Observed) -> Option<Roles> {
    let file = observed.secrets.get(super::objects::credentials::ROLES_SECRET)?;
    serde_json::from_str(&secret::value(file, "roles.json")?).ok()
}

/// The verifier of the password in the login's Secret.
fn verifier(observed: &Observed, role: Role) -> Option<Verifier> {
    let text = secret::value(observed.login(role)?, "verifier")?;
    serde_json::from_value(serde_json::Value::String(text)).ok()
}

/// Whether the database takes the password in the login's Secret.
fn is_taken(observed: &Observed, role: Role, in_force: InForce<'_>) -> bool {
    standing_roles(observed).is_some_and(|standing| {
        in_force(&standing) && standing.roles.get(&role) == Some(&verifier(observed, role))
    })
}

/// Who may log in: of the journal's two, those in `let_in`. A login whose Secret is gone keeps the password that
/// the database has of it; without any of one that is needed there is no answer, for it would be locked out.
fn roles(tenant: &Tenant, observed: &Observed, journals: Role, let_in: &[Role]) -> Option<Roles> {
    let standing = standing_roles(observed);
    let known = |role: Role| {
        let standing = || standing.as_ref()?.roles.get(&role).cloned().flatten();
        verifier(observed, role).or_else(standing)
    };
    let roles: BTreeMap<_, _> = Role::ALL
        .into_iter()
        .map(|role| {
            let may = STANDING.contains(&role) || let_in.contains(&role);
            (role, may.then(|| known(role)).flatten())
        })
        .collect();
    if needed(journals).any(|role| roles.get(&role).is_none_or(Option::is_none)) {
        return None;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use valv_crds::{ConditionType, Reason, condition::Truth};

    use super::*;
    use crate::{io::kind::Key, tenant::simulation::Simulation};

    fn ask_for(simulation: &mut Simulation, generation: i64) {
        simulation.tenant.spec.database.password_rotation.generation = generation;
    }

    fn annotate(
        simulation: &mut Simulation,
        kind: Kind,
        name: &str,
        pointer: &str,
        value: serde_json::Value,
    ) {
        let key = Key::new(kind, name);
        let mut object = simulation.observed.objects[&key].as_ref().clone();
        *object.data.pointer_mut(pointer).unwrap() = value;
        simulation.observed.objects.insert(key, Arc::new(object));
    }

    #[test]
    fn pods_that_use_a_login_whose_secret_is_lost_are_let_in_until_they_are_replaced() {
        let mut simulation = Simulation::running();
        let used = simulation.secret("login-app-a", "verifier").unwrap();
        let owners = simulation.secret("login-owner", "verifier").unwrap();
        simulation.observed.secrets.remove("login-app-a");
        assert_eq!(simulation.plan().orders, [], "nothing is made in silence");

        ask_for(&mut simulation, 2);
        let mut moved = false;
        simulation.settle(|simulation| {
            moved |= simulation.secret("journal-database", "user").as_deref() == Some("journal_app_b");
            if !moved {
                assert_eq!(simulation.accepted.get(&Role::JournalAppA), Some(&used));
            }
        });

        assert!(moved);
        assert_ne!(simulation.accepted.get(&Role::JournalOwner), Some(&owners));
        assert!(!simulation.accepted.contains_key(&Role::JournalAppA));
        assert_eq!(simulation.says(ConditionType::PasswordsCurrent), (Truth::True, Reason::AsAsked));
    }

    #[test]
    fn a_running_migration_keeps_its_login_though_its_secret_is_lost_and_new_ones_are_asked_for() {
        let mut simulation = Simulation::running();
        simulation.tenant.spec.journal.image = "registry.example/journal:2".into();
        let plan = simulation.plan();
        simulation.carry_out(&plan);
        let plan = simulation.plan();
        simulation.carry_out(&plan);
        assert!(migrates(&simulation.observed));
        simulation.observed.secrets.remove("login-owner");

        ask_for(&mut simulation, 2);
        let observed = &simulation.observed;
        let passwords = passwords(&simulation.checked(), observed, &|_| true);

        assert_eq!(passwords.orders, []);
        let standing = standing_roles(observed).unwrap();
        let roles = passwords.roles.unwrap().roles;
        assert!(roles[&Role::JournalOwner].is_some());
        assert_eq!(roles, standing.roles);
    }

    #[test]
    fn no_login_is_made_anew_while_pods_may_still_use_it() {
        let mut simulation = Simulation::running();
        ask_for(&mut simulation, 2);
        // One pod is not replaced yet.
        let ready = "/status/readyReplicas";
        let mut met = false;
        simulation.settle(|simulation| {
            if simulation.secret("journal-database", "user").as_deref() == Some("journal_app_b") && !met {
                met = true;
                let mut rolling = Simulation { observed: simulation.observed.clone(), ..Simulation::new() };
                rolling.tenant = simulation.tenant.clone();
                annotate(&mut rolling, Kind::Deployment, "journal", ready, json!(0));
                ask_for(&mut rolling, 3);

                let plan = rolling.plan();

                assert_eq!(plan.orders, []);
                assert!(plan.delete.iter().all(|key| key.kind != Kind::Secret), "{:?}", plan.delete);
            }
        });
        assert!(met);
    }

    #[test]
    fn a_password_that_the_database_never_took_is_not_what_the_next_change_logs_in_with() {
        let mut simulation = Simulation::running();
        let first = simulation.secret("login-roles", "password");
        ask_for(&mut simulation, 2);
        let plan = simulation.plan();
        simulation.carry_out(&plan);
        let second = simulation.secret("login-roles", "password");
        assert_eq!(simulation.secret("login-roles", "previous-password"), first);

        ask_for(&mut simulation, 3);
        simulation.settle(|simulation| {
            let password = simulation.secret("login-roles", "password");
            if password != second {
                assert_eq!(simulation.secret("login-roles", "previous-password"), second);
            }
        });

        assert_ne!(simulation.secret("login-roles", "password"), second);
        assert_eq!(simulation.plan().password_generation, Some(3));
        assert_eq!(simulation.says(ConditionType::PasswordsCurrent), (Truth::True, Reason::AsAsked));
    }

    #[test]
    fn all_of_the_journals_logins_lost_at_once_are_made_anew_only_when_asked_for() {
        let mut simulation = Simulation::running();
        for name in ["journal-database", "login-app-a"] {
            simulation.observed.secrets.remove(name);
        }
        simulation.settle(|_| {});
        assert_eq!(simulation.says(ConditionType::SecretsIntact), (Truth::False, Reason::SecretLost));

        ask_for(&mut simulation, 2);
        simulation.settle(|_| {});

        assert_eq!(simulation.says(ConditionType::PasswordsCurrent), (Truth::True, Reason::AsAsked));
        assert_eq!(simulation.secret("journal-database", "user").as_deref(), Some("journal_app_b"));
    }
}
