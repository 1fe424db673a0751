//! Decides what a tenant needs next.
//!
//! Input: the checked tenant, what was observed, the settings, the time. Output: a [`Plan`].
//! Pure: no client, no clock, no randomness. Same input, same plan.
//!
//! What waits for something else is left out of the plan, and a condition says for what; so a plan never has
//! to be carried out in part.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use serde_json::json;
use valv_crds::{
    Slot,
    condition::{ConditionType, Reason, Saying},
    reference::{FINALIZER, RETAINED_ANNOTATION},
    tenant::{CertificateStatus, DeletionPolicy},
};

use super::{
    before_migration::{Before, before, fresh_for},
    certificates::{self, Certificates},
    check::Tenant,
    objects::{self, Wanted, access, credentials, database, foundation, journal, migration},
    observe::{Access, JobSeen, NamespaceSeen, Observed, STATE_NAME, State, granted_host},
    passwords::{self, Passwords},
    resolve,
    secret::{Order, login_name},
    upgrade::{self, Start},
    volumes::{self, Volumes},
    workload,
};
use crate::{
    agent::roles::{self, Roles},
    digest,
    io::{
        cluster::Finalizer,
        difference::difference,
        kind::{Key, Kind},
    },
    settings::Settings,
};

/// Images that the status shows as migrated to.
const SHOWN: usize = 20;

/// Everything to do for one tenant now, what to say, and when to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The finalizer to set or to take away.
    pub finalizer: Option<Finalizer>,
    /// The namespace to create.
    pub namespace: Option<Namespace>,
    /// Secrets to make, which need randomness.
    pub orders: Vec<Order>,
    /// Objects to apply, in this order.
    pub apply: Vec<Wanted>,
    /// Backups to ask for before a migration, by their slots, once what is remembered of them was applied.
    pub backups: Vec<Slot>,
    /// Objects to delete.
    pub delete: Vec<Key>,
    /// Objects to mark as kept after their tenant.
    pub retain: Vec<Key>,
    /// Objects that were kept after an earlier tenant and are taken over: the mark is taken off.
    pub adopt: Vec<Key>,
    /// What the conditions say; `Ready` follows from the others where it is not among them.
    pub sayings: Vec<Saying>,
    /// The certificates in use.
    pub certificates: CertificateStatus,
    /// Images whose migration succeeded, the newest of them, for the status.
    pub migrated: Vec<String>,
    /// Generation of the passwords that are in use everywhere.
    pub password_generation: Option<i64>,
    /// PostgreSQL's identifier of the database.
    pub system_identifier: Option<String>,
    /// When the next decision falls due.
    pub look_again_after: Duration,
}

/// How soon to look again while something is under way that no watch tells of.
const SOON: Duration = Duration::from_secs(1);

/// How often to look for something that the user is to bring.
const WAITING: Duration = Duration::from_secs(5);

/// How often to look whether a host name has become free.
const HOST: Duration = Duration::from_secs(30);

/// How long a Job that could not change the roles stands, so that a person can read why, before another tries.
const NEXT_TRY: Duration = Duration::from_secs(300);

/// What a plan is made from.
#[derive(Clone, Copy)]
struct View<'a> {
    tenant: &'a Tenant,
    observed: &'a Observed,
    settings: &'a Settings,
    now: Timestamp,
}

/// The plan for `tenant` at `now`.
pub fn plan(tenant: &Tenant, observed: &Observed, settings: &Settings, now: Timestamp) -> Plan {
    if tenant.is_paused() {
        let message =
            "the annotation valv.eu/paused is there: nothing is written for this tenant, not even repairs";
        return Plan::only(
            Saying::unknown(ConditionType::Ready, Reason::Paused, message),
            settings.reconcile.resync,
        );
    }
    if tenant.object.metadata.deletion_timestamp.is_some() {
        return farewell(tenant, observed, settings);
    }
    if !tenant.object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Plan { finalizer: Some(Finalizer::Present), look_again_after: SOON, ..Plan::default() };
    }
    let view = View { tenant, observed, settings, now };
    match &observed.host_owner {
        Some(owner) => without_its_host(view, owner),
        None => in_its_namespace(view),
    }
}

/// The plan for a tenant whose host name another has: it is cared for under the name that it had. One that had
/// none is not begun.
fn without_its_host(view: View<'_>, owner: &str) -> Plan {
    let View { tenant, settings, .. } = view;
    let message = format!("the tenant {owner} has the host {}: give this one another", tenant.host);
    let Some(before) = granted_host(&tenant.object) else {
        let saying = Saying::no(ConditionType::HostGranted, Reason::HostTaken, message);
        return Plan::only(saying, settings.reconcile.resync.min(HOST));
    };
    let saying = Saying::no(
        ConditionType::HostGranted,
        Reason::HostTaken,
        format!("{message}; it goes on under {before}"),
    );
    let mut object = tenant.object.as_ref().clone();
    before.clone_into(&mut object.spec.host);
    let before = Tenant { object: Arc::new(object), ..tenant.clone() };
    let mut plan = in_its_namespace(View { tenant: &before, ..view });
    plan.sayings.retain(|said| said.kind != saying.kind);
    plan.sayings.insert(0, saying);
    plan.look_again_after = plan.look_again_after.min(HOST);
    plan
}

/// The plan for a tenant that has its host name: first its namespace, and the operator's access to it.
fn in_its_namespace(view: View<'_>) -> Plan {
    let View { tenant, observed, settings, .. } = view;
    match observed.namespace {
        NamespaceSeen::Absent => Plan {
            namespace: Some(foundation::new_namespace(tenant)),
            apply: vec![foundation::role_binding(tenant, settings)],
            ..Plan::only(
                Saying::no(ConditionType::NamespaceReady, Reason::Progressing, "the namespace is being made"),
                SOON,
            )
        },
        NamespaceSeen::Foreign => Plan::only(
            Saying::no(
                ConditionType::NamespaceReady,
                Reason::NamespaceTaken,
                format!(
                    "the namespace {} was not made for this tenant and is not touched: remove it, or name the tenant otherwise",
                    tenant.namespace
                ),
            ),
            WAITING,
        ),
        NamespaceSeen::Terminating => Plan::only(
            Saying::no(
                ConditionType::NamespaceReady,
                Reason::NamespaceTerminating,
                format!(
                    "the namespace {} is being deleted; the tenant is made again when it is gone",
                    tenant.namespace
                ),
            ),
            WAITING,
        ),
        NamespaceSeen::Ours if observed.access == Access::Denied => Plan {
            apply: vec![foundation::namespace(tenant), foundation::role_binding(tenant, settings)],
            ..Plan::only(
                Saying::no(
                    ConditionType::NamespaceReady,
                    Reason::Progressing,
                    "the operator's access is being made",
                ),
                SOON,
            )
        },
        NamespaceSeen::Ours => inside(view),
    }
}

/// What is decided before any object is named.
struct Decided {
    passwords: Option<Passwords>,
    /// Whether the database knows its roles as they are wanted.
    roles_in_force: bool,
    certificates: Certificates,
    volumes: Volumes,
    references: Saying,
    adopted: Vec<Key>,
}

impl Decided {
    fn new(view: View<'_>, state: &State) -> Self {
        let View { tenant, observed, settings, now } = view;
        let report = workload::database_report(observed);
        let in_force = |roles: &Roles| {
            let digest = roles::digest(&credentials::roles_file(roles));
            let job = observed.job(&database::roles_job_name(roles)) == JobSeen::Succeeded;
            let at_start = report.as_ref().is_some_and(|report| report.roles_digest == digest);
            state.roles_applied.as_deref() == Some(&digest) || job || at_start
        };
        let passwords =
            tenant.has_builtin_database().then(|| passwords::passwords(tenant, observed, &in_force));
        let roles = passwords.as_ref().and_then(|passwords| passwords.roles.as_ref());
        Self {
            roles_in_force: passwords.is_none() || roles.is_some_and(in_force),
            passwords,
            certificates: certificates::certificates(tenant, observed, &settings.certificates, now),
            volumes: volumes::volumes(tenant, observed, settings, &state.volumes),
            references: resolve::references(tenant, observed, settings),
            adopted: adopt(tenant, observed),
        }
    }

    /// What is said of what everything rests on.
    fn sayings(&self, tenant: &Tenant) -> Vec<Saying> {
        let has_host = format!("{} is this tenant's", tenant.host);
        vec![
            Saying::yes(ConditionType::HostGranted, Reason::AsAsked, has_host),
            namespace_saying(tenant, &self.adopted),
            self.references.clone(),
            secrets_intact(self.passwords.as_ref(), &self.certificates),
            self.certificates.saying.clone(),
            self.volumes.saying.clone(),
        ]
    }
}

/// The plan inside a namespace that is the tenant's.
fn inside(view: View<'_>) -> Plan {
    let View { tenant, observed, settings, .. } = view;
    let mut state = remembered(tenant, observed);
    let decided = Decided::new(view, &state);
    state.volumes.clone_from(&decided.volumes.seen);
    let mut plan = Plan {
        sayings: decided.sayings(tenant),
        certificates: decided.certificates.status.clone(),
        adopt: decided.adopted.clone(),
        look_again_after: settings.reconcile.resync,
        ..Plan::default()
    };
    the_ground(&mut plan, view, &decided);
    let start = the_database(&mut plan, view, &decided, &mut state);
    the_journal(&mut plan, view, &decided, start, &mut state);
    plan.sayings.push(workload::journal(tenant, observed));
    plan.apply.push(state_object(tenant, &state));
    plan.system_identifier = state.system_identifier;
    if !decided.references.is_true() || decided.volumes.saying.reason == Reason::ClassMissing {
        plan.look_again_after = plan.look_again_after.min(WAITING);
    }
    plan
}

/// What stands before anything runs: walls, Secrets, volumes, the way in.
fn the_ground(plan: &mut Plan, view: View<'_>, decided: &Decided) {
    let View { tenant, observed, settings, now } = view;
    let Decided { passwords, certificates, volumes, .. } = decided;
    plan.apply.push(foundation::namespace(tenant));
    plan.apply.push(foundation::role_binding(tenant, settings));
    plan.apply.extend(foundation::foundation(tenant, settings, observed));
    plan.orders.extend(passwords.iter().flat_map(|passwords| passwords.orders.clone()));
    plan.orders.extend(certificates.orders.clone());
    if !plan.orders.is_empty() {
        plan.look_again_after = SOON;
    }
    if let Some(at) = certificates.look_again_at {
        plan.look_by(at, now);
    }
    if !certificates.bundle.is_empty() && certificates.lost.is_empty() {
        plan.apply.push(credentials::authorities(tenant, certificates));
    }
    plan.delete.extend(certificates.retired.iter().map(|name| Key::new(Kind::Secret, name.clone())));
    plan.apply.extend(foundation::claims(tenant, settings, observed, &volumes.wanted()));
    plan.apply.extend(
        access::access(tenant, observed)
            .into_iter()
            .filter(|wanted| observed.has_gateway_api || !Kind::GATEWAY.contains(&wanted.key.kind)),
    );
    plan.delete.extend(obsolete_access(tenant, observed));
}

/// What is known of the tenant's past: from its namespace, and from its status where that was lost.
fn remembered(tenant: &Tenant, observed: &Observed) -> State {
    let mut state = observed.state();
    if let Some(status) = &tenant.object.status {
        state.system_identifier =
            state.system_identifier.or_else(|| status.database.system_identifier.clone());
        if state.migrated.is_empty() {
            state.migrated.clone_from(&status.journal.migrated);
        }
    }
    state
}

/// The database, its roles, and what is left over of earlier ones. Says whether a migration may start on it.
fn the_database(plan: &mut Plan, view: View<'_>, decided: &Decided, state: &mut State) -> Start {
    let View { tenant, observed, settings, .. } = view;
    if let Some(report) = workload::database_report(observed) {
        state.system_identifier.get_or_insert(report.system_identifier);
    }
    let said = workload::database(tenant, observed);
    let mut is_settled = true;
    if let Some(passwords) = &decided.passwords {
        plan.sayings.push(passwords.saying.clone());
        if passwords.saying.is_true() {
            plan.password_generation = Some(passwords.generation);
        }
        plan.delete.extend(passwords.retired.iter().map(|role| Key::new(Kind::Secret, login_name(*role))));
        let has_certificate = observed.secrets.contains_key(certificates::DATABASE_TLS);
        // Without every login the file would lock somebody out: it stands as it is, and so does the database.
        let is_whole = match &passwords.roles {
            Some(roles) => {
                plan.apply.push(credentials::roles(tenant, roles));
                has_certificate
            }
            None => observed.has(Kind::StatefulSet, "database") && passwords.orders.is_empty(),
        };
        let replicas = if tenant.suspended { 0 } else { 1 };
        let wanted = database::database(tenant, settings, observed, replicas, passwords.recover);
        is_settled = passwords.orders.is_empty() && wanted.iter().all(|wanted| stands(observed, wanted));
        if is_whole {
            plan.apply.extend(wanted.into_iter().filter(|wanted| !is_held(observed, wanted)));
            plan.delete.extend(database::stuck_pod(observed));
        }
        if let Some(roles) = &passwords.roles {
            the_roles(plan, view, decided, roles);
            if decided.roles_in_force {
                state.roles_applied = Some(roles::digest(&credentials::roles_file(roles)));
            }
        }
    }
    let is_ready = said.is_true()
        && decided.roles_in_force
        && is_settled
        && decided.references.is_true()
        && !tenant.suspended;
    plan.sayings.push(said);
    if is_ready { Start::Now } else { Start::Later }
}

/// Whether the database's pod has to stay as it is: a migration that runs would be cut off with it.
fn is_held(observed: &Observed, wanted: &Wanted) -> bool {
    wanted.key.kind == Kind::StatefulSet
        && observed.objects.contains_key(&wanted.key)
        && !upgrade::running(observed).is_empty()
}

/// Whether the object stands as it is wanted.
fn stands(observed: &Observed, wanted: &Wanted) -> bool {
    let standing =
        observed.objects.get(&wanted.key).and_then(|standing| serde_json::to_value(standing.as_ref()).ok());
    standing.is_some_and(|standing| difference(&wanted.value, &standing).is_none())
}

/// The Job that brings `wanted` into force, if they are not.
fn the_roles(plan: &mut Plan, view: View<'_>, decided: &Decided, wanted: &Roles) {
    let View { tenant, observed, settings, now } = view;
    let job = database::roles_job_name(wanted);
    match observed.job(&job) {
        JobSeen::Failed if !decided.roles_in_force => {
            let next = observed.failed_at(&job).unwrap_or(now) + NEXT_TRY;
            if next <= now {
                plan.delete.push(Key::new(Kind::Job, job.clone()));
            } else {
                plan.look_by(next, now);
            }
            let words = workload::last_words(observed, &job).unwrap_or_else(|| "none were left".to_owned());
            plan.sayings.retain(|saying| saying.kind != ConditionType::PasswordsCurrent);
            plan.sayings.push(Saying::no(
                ConditionType::PasswordsCurrent,
                Reason::RotationFailed,
                format!(
                    "the Job {job} could not change the database's logins and another tries in a few minutes; those before still work. Last words: {words}"
                ),
            ));
        }
        JobSeen::Absent if !decided.roles_in_force && workload::database(tenant, observed).is_true() => {
            plan.apply.push(database::roles_job(tenant, settings, wanted));
        }
        JobSeen::Absent | JobSeen::Active | JobSeen::Succeeded | JobSeen::Failed => {}
    }
    // A Job is kept until what it did is recorded.
    let recorded = observed.state().roles_applied;
    let digest = roles::digest(&credentials::roles_file(wanted));
    let old_jobs = observed.all(Kind::Job).filter_map(|job| job.metadata.name.clone()).filter(|name| {
        name.starts_with(database::ROLES_PREFIX) && (*name != job || recorded.as_deref() == Some(&digest))
    });
    plan.delete.extend(old_jobs.map(|name| Key::new(Kind::Job, name)));
}

/// The journal as it serves, and its migration.
fn the_journal(plan: &mut Plan, view: View<'_>, decided: &Decided, start: Start, state: &mut State) {
    let View { tenant, observed, settings, now } = view;
    let Decided { passwords, certificates, references, .. } = decided;
    let is_connected = connection(tenant, &tenant.journal.database, observed, passwords.as_ref()).is_some();
    let mut start = if is_connected { start } else { Start::Later };
    if start == Start::Now && upgrade::is_next(tenant, observed, state) {
        let protection = &observed.protection;
        let Before { start: allowed, order } =
            before(tenant, &protection.backups, state, fresh_for(&protection.policy), now);
        if allowed != Start::Now {
            plan.look_again_after = plan.look_again_after.min(WAITING);
        }
        start = allowed;
        plan.backups.extend(order);
    }
    let upgrade = upgrade::upgrade(tenant, observed, state, start);
    plan.sayings.push(upgrade.saying.clone());
    if upgrade.claimed != state.migrating {
        plan.look_again_after = SOON;
    }
    plan.delete.extend(upgrade.finished.iter().map(|name| Key::new(Kind::Job, name.clone())));
    let shown = upgrade.migrated.len().saturating_sub(SHOWN);
    plan.migrated = upgrade.migrated[shown..].to_vec();
    // While an earlier version serves, it is told of its database in its own way.
    let shape = upgrade.serving.as_ref().unwrap_or(&tenant.journal).database.clone();
    if let Some(connection) = connection(tenant, &shape, observed, passwords.as_ref()) {
        let inputs = journal::Inputs {
            credentials: credentials::data_digest(&connection.journal),
            authorities: digest::of(certificates.bundle.as_bytes()),
        };
        plan.apply.push(connection.journal);
        plan.apply.push(connection.migration);
        if let Some(name) = &upgrade.migration {
            plan.apply.extend(migration::migration(tenant, settings, name));
        }
        let has_certificate = tenant.certificates.journal_secret_ref.is_some()
            || observed.secrets.contains_key(certificates::JOURNAL_TLS);
        let lacks = [Reason::SecretMissing, Reason::ConfigMapMissing].contains(&references.reason);
        if let Some(serving) = upgrade.serving.as_ref().filter(|_| has_certificate && !lacks) {
            let replicas = if tenant.suspended { 0 } else { tenant.journal.replicas };
            plan.apply.extend(journal::journal(tenant, serving, settings, observed, &inputs, replicas));
        }
    }
    state.migrating = upgrade.claimed;
    state.migrated = upgrade.migrated;
    state.served = upgrade.served;
    if references.is_true() || state.serving.is_none() {
        state.serving = upgrade.serving;
    }
}

/// The Secrets by which journal and migration reach the database.
struct Connection {
    journal: Wanted,
    migration: Wanted,
}

fn connection(
    tenant: &Tenant,
    shape: &valv_crds::journal::Connection,
    observed: &Observed,
    passwords: Option<&Passwords>,
) -> Option<Connection> {
    let Some(passwords) = passwords else {
        let [journal, migration] = credentials::external(tenant, shape, observed)?.try_into().ok()?;
        return Some(Connection { journal, migration });
    };
    Some(Connection {
        journal: credentials::journal(tenant, shape, observed, passwords.login, passwords.generation)?,
        migration: credentials::migration(tenant, observed)?,
    })
}

fn secrets_intact(passwords: Option<&Passwords>, certificates: &Certificates) -> Saying {
    let kind = ConditionType::SecretsIntact;
    let lost: Vec<_> = passwords.iter().flat_map(|passwords| passwords.lost.iter().copied()).collect();
    if let Some(first) = lost.first() {
        return Saying::no(
            kind,
            Reason::SecretLost,
            format!(
                "the Secret {} is gone or was edited: put it back from a backup of the cluster, or raise spec.database.passwordRotation.generation to have new passwords made; what runs goes on with the ones it has",
                if lost.len() == 1 { (*first).to_owned() } else { lost.join(", ") }
            ),
        );
    }
    if let Some(first) = certificates.lost.first() {
        return Saying::no(
            kind,
            Reason::SecretLost,
            format!(
                "the Secret {first} is gone or was edited: put it back from a backup of the cluster, or raise spec.certificates.rotation.generation to have a new authority made"
            ),
        );
    }
    Saying::yes(kind, Reason::AsAsked, "every generated Secret is there as it was made")
}

fn state_object(tenant: &Tenant, state: &State) -> Wanted {
    let mut data = json!({ "state.json": serde_json::to_string(state).unwrap_or_default() });
    if let Some(identifier) = &state.system_identifier {
        data["systemIdentifier"] = json!(identifier);
    }
    objects::object(tenant, Kind::ConfigMap, STATE_NAME, json!({ "data": data }))
}

/// Routes of a kind that the spec no longer asks for.
fn obsolete_access(tenant: &Tenant, observed: &Observed) -> Vec<Key> {
    let wanted: Vec<_> = access::access(tenant, observed).into_iter().map(|wanted| wanted.key).collect();
    let routes = [Kind::Ingress, Kind::HttpRoute, Kind::BackendTlsPolicy];
    let authority = Key::new(Kind::ConfigMap, access::JOURNAL_AUTHORITY);
    let keys = routes.into_iter().map(|kind| Key::new(kind, "journal")).chain([authority]);
    keys.filter(|key| observed.objects.contains_key(key) && !wanted.contains(key)).collect()
}

/// What is done for a tenant that is being deleted.
fn farewell(tenant: &Tenant, observed: &Observed, settings: &Settings) -> Plan {
    let waiting =
        |message: String| Plan::only(Saying::no(ConditionType::Ready, Reason::Deleting, message), SOON);
    let done =
        Plan { finalizer: Some(Finalizer::Absent), ..waiting("what stays is being marked".to_owned()) };
    match (observed.namespace.clone(), tenant.deletion_policy) {
        (NamespaceSeen::Absent | NamespaceSeen::Foreign, _) => done,
        (NamespaceSeen::Terminating, DeletionPolicy::Delete) => {
            waiting(format!("waiting until the namespace {} is gone", tenant.namespace))
        }
        (NamespaceSeen::Terminating, DeletionPolicy::Retain) => done,
        (NamespaceSeen::Ours, DeletionPolicy::Delete) => Plan {
            delete: vec![Key::new(Kind::Namespace, &tenant.namespace)],
            ..waiting(format!("deleting the namespace {} and all that is in it", tenant.namespace))
        },
        // What stays can be marked only by who may look at it.
        (NamespaceSeen::Ours, DeletionPolicy::Retain) if observed.access == Access::Denied => Plan {
            apply: vec![foundation::role_binding(tenant, settings)],
            ..waiting("the operator's access to the namespace is being made again".to_owned())
        },
        (NamespaceSeen::Ours, DeletionPolicy::Retain) => retain(observed, &tenant.namespace, done, waiting),
    }
}

fn namespace_saying(tenant: &Tenant, adopted: &[Key]) -> Saying {
    let kind = ConditionType::NamespaceReady;
    let status = tenant.object.status.as_ref();
    let mut said = status.into_iter().flat_map(|status| &status.conditions);
    let was_adopted = said.any(|condition| {
        condition.type_ == kind.as_str() && condition.reason == format!("{:?}", Reason::Adopted)
    });
    if adopted.is_empty() && !was_adopted {
        return Saying::yes(kind, Reason::AsAsked, format!("{} is this tenant's", tenant.namespace));
    }
    Saying::yes(
        kind,
        Reason::Adopted,
        format!(
            "{} was kept after an earlier tenant of this name; its volumes and Secrets were taken over",
            tenant.namespace
        ),
    )
}

/// What an earlier tenant left, if it did: the namespace last, by whose mark it is known.
fn adopt(tenant: &Tenant, observed: &Observed) -> Vec<Key> {
    let namespace = Key::new(Kind::Namespace, &tenant.namespace);
    let is_marked = observed
        .objects
        .get(&namespace)
        .is_some_and(|namespace| namespace.annotations().contains_key(RETAINED_ANNOTATION));
    if is_marked { kept(observed).chain([namespace]).collect() } else { vec![] }
}

/// Claims and Secrets: what outlives a tenant.
fn kept(observed: &Observed) -> impl Iterator<Item = Key> {
    let claims = observed.objects.keys().filter(|key| key.kind == Kind::PersistentVolumeClaim).cloned();
    let secrets = observed.secrets.keys().map(|name| Key::new(Kind::Secret, name.clone()));
    claims.chain(secrets)
}

/// Stops what runs, marks what stays, and only then lets the tenant go.
fn retain(observed: &Observed, namespace: &str, done: Plan, waiting: impl Fn(String) -> Plan) -> Plan {
    let stops = [
        Kind::Deployment,
        Kind::StatefulSet,
        Kind::Job,
        Kind::Service,
        Kind::PodDisruptionBudget,
        Kind::Ingress,
        Kind::HttpRoute,
        Kind::BackendTlsPolicy,
    ];
    let delete: Vec<_> = observed.objects.keys().filter(|key| stops.contains(&key.kind)).cloned().collect();
    if !delete.is_empty() {
        return Plan { delete, ..waiting("stopping the journal and its database; the data stay".to_owned()) };
    }
    if observed.all(Kind::Pod).next().is_some() {
        return waiting("waiting until the last pod has stopped".to_owned());
    }
    let retain = [Key::new(Kind::Namespace, namespace)].into_iter().chain(kept(observed)).collect();
    Plan { retain, ..done }
}

impl Plan {
    /// Nothing to do, one thing to say.
    fn only(saying: Saying, look_again_after: Duration) -> Self {
        Self { sayings: vec![saying], look_again_after, ..Self::default() }
    }

    fn look_by(&mut self, at: Timestamp, now: Timestamp) {
        let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default().max(SOON);
        self.look_again_after = self.look_again_after.min(wait);
    }
}

/// The volumes decide which claims are applied.
impl Volumes {
    fn wanted(&self) -> Vec<&str> {
        self.apply.iter().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use valv_crds::{JournalTenantStatus, condition::Truth};

    use super::*;
    use crate::tenant::simulation::Simulation;

    const OTHERS: &str = "bo.journal.example";

    /// A tenant that asks for the host of another.
    fn rival(mut simulation: Simulation) -> Simulation {
        simulation.tenant.spec.host = OTHERS.into();
        simulation.observed.host_owner = Some("bo".into());
        simulation
    }

    #[test]
    fn a_tenant_that_asks_for_anothers_host_is_cared_for_under_its_own() {
        let mut simulation = Simulation::running();
        let url = Some("https://ada.journal.example:30443".into());
        simulation.tenant.status = Some(JournalTenantStatus { url, ..JournalTenantStatus::default() });
        let mut simulation = rival(simulation);
        simulation.observed.objects.remove(&Key::new(Kind::NetworkPolicy, "deny-all"));

        simulation.settle(|_| {});

        assert_eq!(simulation.says(ConditionType::HostGranted), (Truth::False, Reason::HostTaken));
        assert_eq!(simulation.says(ConditionType::JournalReady), (Truth::True, Reason::AsAsked));
        assert!(simulation.observed.has(Kind::NetworkPolicy, "deny-all"), "drift is mended");
        assert!(simulation.plan().apply.iter().all(|wanted| !wanted.value.to_string().contains(OTHERS)));
    }

    #[test]
    fn a_tenant_that_never_had_a_host_is_not_begun_under_anothers() {
        let simulation = rival(Simulation::new());

        let plan = simulation.plan();

        assert_eq!((plan.namespace, plan.apply, plan.orders), (None, vec![], vec![]));
        assert_eq!(plan.sayings[0].reason, Reason::HostTaken);
    }

    #[test]
    fn a_tenant_is_let_go_though_somebody_took_the_operators_access_away() {
        let mut simulation = Simulation::running();
        simulation.tenant.metadata.deletion_timestamp = Some(Time(simulation.now));
        simulation.observed.access = Access::Denied;

        let plan = simulation.plan();

        assert_eq!((plan.finalizer, plan.delete, plan.retain), (None, vec![], vec![]));
        assert_eq!(plan.apply[0].key, Key::new(Kind::RoleBinding, foundation::ROLE_BINDING));
    }

    #[test]
    fn a_claim_that_had_a_volume_is_not_made_anew() {
        let mut simulation = Simulation::running();
        let claim = Key::new(Kind::PersistentVolumeClaim, "database-0");
        simulation.observed.objects.remove(&claim);

        simulation.settle(|_| {});

        assert!(!simulation.observed.objects.contains_key(&claim));
        let said = simulation.saying(ConditionType::VolumesReady);
        assert_eq!(said.reason, Reason::VolumeEmpty);
        assert!(said.message.contains("pv-database-0"), "{}", said.message);
    }

    #[test]
    fn a_job_that_could_not_change_the_roles_can_be_read_for_minutes_before_another_tries() {
        let mut simulation = Simulation::running();
        simulation.tenant.spec.database.password_rotation.generation = 2;
        let job = loop {
            let plan = simulation.look();
            let made = plan.apply.into_iter().find(|wanted| wanted.key.kind == Kind::Job);
            if let Some(job) = made {
                break job.key;
            }
        };
        let failed = simulation.now.to_string();
        simulation.edit(Kind::Job, &job.name, |job| {
            job.data["status"] =
                json!({ "conditions": [{ "type": "Failed", "status": "True", "lastTransitionTime": failed }] });
        });

        let at_once = simulation.plan();
        let said = simulation.saying(ConditionType::PasswordsCurrent);
        simulation.now += NEXT_TRY;
        let later = simulation.plan();

        assert_eq!(said.reason, Reason::RotationFailed);
        assert!(!at_once.delete.contains(&job));
        assert!(at_once.look_again_after <= NEXT_TRY);
        assert!(later.delete.contains(&job));
    }

    #[test]
    fn a_suspended_tenant_is_said_to_rest_only_when_its_pods_have_stopped() {
        let mut simulation = Simulation::running();
        simulation.tenant.spec.suspended = true;

        simulation.look();
        let stopping = simulation.says(ConditionType::DatabaseReady);
        simulation.settle(|_| {});

        assert_eq!(stopping, (Truth::False, Reason::Progressing));
        assert_eq!(simulation.says(ConditionType::DatabaseReady), (Truth::False, Reason::Suspended));
    }

    #[test]
    fn other_rights_of_the_journal_restart_the_database_which_alone_can_set_them() {
        let mut simulation = Simulation::running();
        let template = |simulation: &Simulation| {
            simulation.observed.field(Kind::StatefulSet, "database", "/spec/template").cloned()
        };
        let before = template(&simulation);

        simulation.tenant.spec.database.application_rights = valv_crds::database::ApplicationRights::Owner;
        simulation.settle(|_| {});

        assert_ne!(template(&simulation), before);
    }

    #[test]
    fn a_plan_that_is_printed_shows_no_secret() {
        let simulation = Simulation::running();
        let password = simulation.secret("journal-database", "password").unwrap();

        let printed = format!("{:?} {:?}", simulation.plan(), simulation.observed);

        assert!(printed.contains("Secret journal-database"));
        assert!(!printed.contains(&password));
    }
}
