//! Decides what a tenant needs next.
//!
//! Input: the checked tenant, what was observed, the settings, the time. Output: a [`Plan`].
//! Pure: no client, no clock, no randomness. Same input, same plan.
//!
//! What waits for something else is left out of the plan, and a condition says for what; so a plan never has
//! to be carried out in part.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use serde_json::json;
use valv_crds::{
    condition::{ConditionType, Reason, Saying},
    reference::{FINALIZER, RETAINED_ANNOTATION},
    tenant::{CertificateStatus, DeletionPolicy},
};

use super::{
    certificates::{self, Certificates},
    check::Tenant,
    objects::{self, Wanted, access, credentials, database, foundation, journal, migration},
    observe::{Access, JobSeen, NamespaceSeen, Observed, STATE_NAME, State},
    passwords::{self, Passwords},
    resolve,
    secret::{Order, login_name},
    upgrade::{self, Start, Upgrade},
    volumes::{self, Volumes},
    workload,
};
use crate::{
    agent::roles::{self, Roles},
    io::{
        cluster::Finalizer,
        kind::{Key, Kind},
    },
    settings::Settings,
};

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
    /// Objects to delete.
    pub delete: Vec<Key>,
    /// Objects to mark as kept after their tenant.
    pub retain: Vec<Key>,
    /// Objects that were kept after an earlier tenant and are taken over: the mark is taken off.
    pub adopt: Vec<Key>,
    /// What the conditions say, but for `Ready`.
    pub sayings: Vec<Saying>,
    /// The certificates in use.
    pub certificates: CertificateStatus,
    /// Images whose migration succeeded.
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
        return farewell(tenant, observed);
    }
    if !tenant.object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Plan { finalizer: Some(Finalizer::Present), look_again_after: SOON, ..Plan::default() };
    }
    if let Some(owner) = &observed.host_owner {
        let message =
            format!("the tenant {owner} is older and has the host {}: give this one another", tenant.host);
        let saying = Saying::no(ConditionType::HostGranted, Reason::HostTaken, message);
        return Plan::only(saying, settings.reconcile.resync.min(Duration::from_secs(30)));
    }
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
        NamespaceSeen::Ours => inside(tenant, observed, settings, now),
    }
}

/// The plan inside a namespace that is the tenant's.
fn inside(tenant: &Tenant, observed: &Observed, settings: &Settings, now: Timestamp) -> Plan {
    let mut state = remembered(tenant, observed);
    let report = workload::database_report(observed);
    if let Some(report) = &report {
        state.system_identifier.get_or_insert_with(|| report.system_identifier.clone());
    }
    let applied = state.roles_applied.clone();
    let in_force = |roles: &Roles| {
        let digest = roles::digest(&credentials::roles_file(roles));
        let job = observed.job(&database::roles_job_name(roles)) == JobSeen::Succeeded;
        let at_start = report.as_ref().is_some_and(|report| report.roles_digest == digest);
        applied.as_deref() == Some(&digest) || job || at_start
    };
    let passwords = tenant.has_builtin_database().then(|| passwords::passwords(tenant, observed, &in_force));
    let certificates = certificates::certificates(tenant, observed, &settings.certificates, now);
    let volumes = volumes::volumes(tenant, observed);
    let references = resolve::references(tenant, observed);

    let adopted = adopt(tenant, observed);
    let mut plan = Plan {
        sayings: vec![
            Saying::yes(
                ConditionType::HostGranted,
                Reason::AsAsked,
                format!("{} is this tenant's", tenant.host),
            ),
            namespace_saying(tenant, &adopted),
            references.clone(),
            secrets_intact(passwords.as_ref(), &certificates),
            certificates.saying.clone(),
            volumes.saying.clone(),
        ],
        certificates: certificates.status.clone(),
        migrated: state.migrated.clone(),
        look_again_after: settings.reconcile.resync,
        ..Plan::default()
    };
    if let Some(at) = certificates.look_again_at {
        plan.look_by(at, now);
    }
    plan.adopt = adopted;
    plan.apply.push(foundation::namespace(tenant));
    plan.apply.push(foundation::role_binding(tenant, settings));
    plan.apply.extend(foundation::foundation(tenant, settings));
    plan.orders.extend(passwords.iter().flat_map(|passwords| passwords.orders.clone()));
    plan.orders.extend(certificates.orders.clone());
    let waits_for_secrets = !plan.orders.is_empty();
    if waits_for_secrets {
        plan.look_again_after = SOON;
    }
    if !certificates.bundle.is_empty() && certificates.lost.is_empty() {
        plan.apply.push(credentials::authorities(tenant, &certificates.bundle));
    }
    plan.delete.extend(certificates.retired.iter().map(|name| Key::new(Kind::Secret, name.clone())));
    plan.apply.extend(foundation::claims(tenant, settings, &volumes.wanted()));
    plan.apply.extend(
        access::access(tenant)
            .into_iter()
            .filter(|wanted| observed.has_gateway_api || !Kind::GATEWAY.contains(&wanted.key.kind)),
    );
    plan.delete.extend(obsolete_access(tenant, observed));

    let replicas = |wanted: i32| if tenant.suspended { 0 } else { wanted };
    if let Some(passwords) = &passwords {
        the_database(&mut plan, tenant, observed, settings, passwords, &mut state, replicas(1), &in_force);
    }
    let database = workload::database(tenant, observed);
    let roles_in_force =
        passwords.as_ref().is_none_or(|passwords| passwords.roles.as_ref().is_some_and(in_force));
    let settled = passwords.as_ref().is_none_or(|passwords| passwords.orders.is_empty());
    let resolved = references.is_true();
    let connected = connection(tenant, &tenant.journal.database, observed, passwords.as_ref()).is_some();
    let is_ready = database.is_true() && roles_in_force && settled && resolved && connected;
    let start = if is_ready && !tenant.suspended { Start::Now } else { Start::Later };
    let upgrade = upgrade::upgrade(tenant, observed, &state, start);
    // While an earlier version serves, it is told of its database in its own way.
    let shape = upgrade.serving.as_ref().unwrap_or(&tenant.journal).database.clone();
    let connection = connection(tenant, &shape, observed, passwords.as_ref());
    the_journal(
        &mut plan,
        tenant,
        observed,
        settings,
        &certificates,
        &upgrade,
        connection,
        replicas(tenant.journal.replicas),
    );

    state.migrated.clone_from(&upgrade.migrated);
    if resolved || state.serving.is_none() {
        state.serving.clone_from(&upgrade.serving);
    }
    plan.apply.push(state_object(tenant, &state));
    plan.migrated = upgrade.migrated;
    plan.system_identifier = state.system_identifier;
    if !resolved || volumes.saying.reason == Reason::ClassMissing {
        plan.look_again_after = plan.look_again_after.min(WAITING);
    }
    plan.sayings.push(database);
    plan.sayings.push(upgrade.saying);
    plan.sayings.push(workload::journal(tenant, observed));
    plan
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

/// The database, its roles, and what is left over of earlier ones.
#[expect(clippy::too_many_arguments, reason = "each is a decision that was taken before")]
fn the_database(
    plan: &mut Plan,
    tenant: &Tenant,
    observed: &Observed,
    settings: &Settings,
    passwords: &Passwords,
    state: &mut State,
    replicas: i32,
    in_force: passwords::InForce<'_>,
) {
    plan.sayings.push(passwords.saying.clone());
    if passwords.saying.is_true() {
        plan.password_generation = Some(passwords.generation);
    }
    plan.delete.extend(passwords.retired.iter().map(|role| Key::new(Kind::Secret, login_name(*role))));
    let Some(wanted) = &passwords.roles else {
        // Without every login the file would lock somebody out: it stands as it is.
        if observed.has(Kind::StatefulSet, "database") && passwords.orders.is_empty() {
            plan.apply.extend(database::database(tenant, settings, observed, replicas, passwords.recover));
        }
        return;
    };
    plan.apply.push(credentials::roles(tenant, wanted));
    let has_certificate = observed.secrets.contains_key(certificates::DATABASE_TLS);
    if has_certificate {
        plan.apply.extend(database::database(tenant, settings, observed, replicas, passwords.recover));
    }
    let job = database::roles_job_name(wanted);
    let applied = in_force(wanted);
    if observed.job(&job) == JobSeen::Failed {
        // Its tries are used up: it is made anew, and tried again.
        plan.delete.push(Key::new(Kind::Job, job.clone()));
        plan.sayings.retain(|saying| saying.kind != ConditionType::PasswordsCurrent);
        plan.sayings.push(Saying::no(ConditionType::PasswordsCurrent, Reason::RotationFailed, format!(
            "the Job {job} could not change the database's logins and is tried again; those before still work. Last words: {}",
            workload::last_words(observed, &job)
        )));
    }
    if applied {
        state.roles_applied = Some(roles::digest(&credentials::roles_file(wanted)));
    } else if workload::database(tenant, observed).is_true() && observed.job(&job) == JobSeen::Absent {
        plan.apply.push(database::roles_job(tenant, settings, wanted));
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
#[expect(clippy::too_many_arguments, reason = "each is a decision that was taken before")]
fn the_journal(
    plan: &mut Plan,
    tenant: &Tenant,
    observed: &Observed,
    settings: &Settings,
    certificates: &Certificates,
    upgrade: &Upgrade,
    connection: Option<Connection>,
    replicas: i32,
) {
    plan.delete.extend(upgrade.finished.iter().map(|name| Key::new(Kind::Job, name.clone())));
    let Some(connection) = connection else { return };
    let inputs = journal::Inputs {
        credentials: credentials::data_digest(&connection.journal),
        authorities: objects::digest(certificates.bundle.as_bytes()),
    };
    plan.apply.push(connection.journal);
    plan.apply.push(connection.migration);
    if let Some(name) = &upgrade.migration
        && observed.job(name) == JobSeen::Absent
    {
        plan.apply.extend(migration::migration(tenant, settings, name));
    }
    let has_certificate = tenant.certificates.journal_secret_ref.is_some()
        || observed.secrets.contains_key(certificates::JOURNAL_TLS);
    if let Some(serving) = &upgrade.serving
        && has_certificate
        && resolve::references(tenant, observed).reason != Reason::SecretMissing
        && resolve::references(tenant, observed).reason != Reason::ConfigMapMissing
    {
        plan.apply.extend(journal::journal(tenant, serving, settings, observed, &inputs, replicas));
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
    let wanted: Vec<_> = access::access(tenant).into_iter().map(|wanted| wanted.key).collect();
    let routes = [Kind::Ingress, Kind::HttpRoute, Kind::BackendTlsPolicy];
    let keys = routes.into_iter().map(|kind| Key::new(kind, "journal"));
    keys.filter(|key| observed.objects.contains_key(key) && !wanted.contains(key)).collect()
}

/// What is done for a tenant that is being deleted.
fn farewell(tenant: &Tenant, observed: &Observed) -> Plan {
    let waiting =
        |message: String| Plan::only(Saying::no(ConditionType::Ready, Reason::Deleting, message), SOON);
    let done = Plan { finalizer: Some(Finalizer::Absent), look_again_after: SOON, ..Plan::default() };
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
        (NamespaceSeen::Ours, DeletionPolicy::Retain) => retain(observed, &tenant.namespace, done, waiting),
    }
}

fn namespace_saying(tenant: &Tenant, adopted: &[Key]) -> Saying {
    let kind = ConditionType::NamespaceReady;
    if adopted.is_empty() {
        return Saying::yes(kind, Reason::AsAsked, format!("{} is this tenant's", tenant.namespace));
    }
    Saying::yes(
        kind,
        Reason::Adopted,
        format!(
            "{} was kept after an earlier tenant of this name; its volumes and Secrets are taken over",
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
