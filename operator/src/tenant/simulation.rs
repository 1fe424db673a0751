//! A cluster that does at once what real ones do in time, so that plans can be followed to their end without one.
//!
//! A test double: it keeps what plans ask for, and lets workloads roll out and Jobs end when a test says so.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt, core::DynamicObject};
use serde_json::{Value, json};
use valv_crds::JournalTenant;

use super::{
    apply,
    check::{Tenant, check},
    objects::credentials,
    observe::{NamespaceSeen, Observed},
    plan::{Plan, plan},
};
use crate::{
    agent::roles::{Role, Roles},
    io::kind::{Key, Kind},
    settings::Settings,
};

/// The cluster, one tenant in it, and what its database accepts.
pub struct Simulation {
    pub tenant: JournalTenant,
    pub observed: Observed,
    pub settings: Settings,
    pub now: Timestamp,
    /// Verifiers that the running database accepts.
    pub accepted: BTreeMap<Role, String>,
    /// Certificates that clients met, as numbers of the authorities that signed them.
    pub migration_fails: bool,
}

pub const MINIMAL: &str = r"
apiVersion: valv.eu/v1alpha1
kind: JournalTenant
metadata: {name: ada, uid: u-1, generation: 1, creationTimestamp: '2026-03-01T00:00:00Z', finalizers: [valv.eu/tenant]}
spec:
  host: ada.journal.example
  journal: {image: 'registry.example/journal:1', migrate: {command: [journal, migrate]}}
  database: {size: 1Gi}
";

impl Simulation {
    pub fn new() -> Self {
        let settings = "images: {valv: registry.example/valv:1, postgres: registry.example/postgres:17, proxy: registry.example/proxy:1}";
        Self {
            tenant: serde_yaml::from_str(MINIMAL).unwrap(),
            observed: Observed {
                classes: BTreeMap::from([(
                    String::new(),
                    Some(super::observe::Class { name: "local".into(), can_expand: false }),
                )]),
                ..Observed::default()
            },
            settings: Settings::parse(settings, "valv-system").unwrap(),
            now: "2026-03-01T12:00:00Z".parse().unwrap(),
            accepted: BTreeMap::new(),
            migration_fails: false,
        }
    }

    pub fn checked(&self) -> Tenant {
        check(Arc::new(self.tenant.clone())).unwrap()
    }

    pub fn plan(&self) -> Plan {
        plan(&self.checked(), &self.observed, &self.settings, self.now)
    }

    /// Plans and applies until a plan changes nothing; each state on the way is shown to `look`.
    pub fn settle(&mut self, mut look: impl FnMut(&Self)) {
        for _ in 0..40 {
            let before = self.fingerprint();
            let plan = self.plan();
            self.carry_out(&plan);
            look(self);
            self.let_time_pass();
            look(self);
            if self.fingerprint() == before {
                return;
            }
        }
        panic!("the plans do not settle: {:#?}", self.plan().sayings);
    }

    fn fingerprint(&self) -> String {
        let objects: Vec<_> = self.observed.objects.values().map(|object| json!(object.as_ref())).collect();
        let secrets: Vec<_> = self.observed.secrets.values().map(|secret| json!(secret)).collect();
        json!([objects, secrets]).to_string()
    }

    pub fn carry_out(&mut self, plan: &Plan) {
        let tenant = self.checked();
        if let Some(namespace) = &plan.namespace {
            self.put(Kind::Namespace, &json!(namespace));
            self.observed.namespace = NamespaceSeen::Ours;
        }
        for order in &plan.orders {
            let (secret, _) = apply::make(&tenant, order, &self.settings, self.now).unwrap();
            self.observed.secrets.insert(secret.name_any(), secret);
        }
        for wanted in &plan.apply {
            let kind = wanted.key.kind;
            if kind == Kind::Secret {
                let secret: Secret = serde_json::from_value(wanted.value.clone()).unwrap();
                self.observed.secrets.insert(wanted.key.name.clone(), secret);
            } else if kind != Kind::Job || !self.observed.objects.contains_key(&wanted.key) {
                self.put(kind, &wanted.value);
            }
        }
        for key in &plan.delete {
            self.observed.objects.remove(key);
            if key.kind == Kind::Secret {
                self.observed.secrets.remove(&key.name);
            }
        }
    }

    fn put(&mut self, kind: Kind, value: &Value) {
        let mut object: DynamicObject = serde_json::from_value(value.clone()).unwrap();
        let key = Key::new(kind, object.name_any());
        if let Some(standing) = self.observed.objects.get(&key) {
            if let Some(volume) = standing.data.pointer("/spec/volumeName") {
                object.data["spec"]["volumeName"] = volume.clone();
            }
            let same = object.data.get("spec") == standing.data.get("spec");
            if let Some(status) = standing.data.get("status") {
                object.data["status"] = status.clone();
            }
            let generation = standing.metadata.generation.unwrap_or(1);
            object.metadata.generation = Some(if same { generation } else { generation + 1 });
        } else {
            object.metadata.generation = Some(1);
        }
        self.observed.objects.insert(key, Arc::new(object));
    }

    /// Claims are bound, workloads roll out, Jobs end.
    pub fn let_time_pass(&mut self) {
        if self.observed.has(Kind::RoleBinding, super::objects::foundation::ROLE_BINDING) {
            self.observed.access = super::observe::Access::Granted;
        }
        let keys: Vec<_> = self.observed.objects.keys().cloned().collect();
        for key in keys {
            let mut object = self.observed.objects[&key].as_ref().clone();
            let replicas = object.data.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
            if key.kind == Kind::PersistentVolumeClaim {
                object.data["spec"]["volumeName"] = json!(format!("pv-{}", key.name));
            }
            let status = if key.kind == Kind::PersistentVolumeClaim {
                json!({ "phase": "Bound", "capacity": object.data["spec"]["resources"]["requests"] })
            } else if [Kind::Deployment, Kind::StatefulSet].contains(&key.kind) {
                json!({
                    "observedGeneration": object.metadata.generation, "replicas": replicas,
                    "updatedReplicas": replicas, "readyReplicas": replicas,
                    "updateRevision": "r", "currentRevision": "r",
                })
            } else if key.kind == Kind::Job {
                let fails = key.name.starts_with("migrate-") && self.migration_fails;
                if key.name.starts_with("roles-") {
                    self.accept_roles();
                }
                json!({ "conditions": [{ "type": if fails { "Failed" } else { "Complete" }, "status": "True" }] })
            } else {
                continue;
            };
            object.data["status"] = status;
            self.observed.objects.insert(key, Arc::new(object));
        }
        let database = Key::new(Kind::StatefulSet, "database");
        let pod = Key::new(Kind::Pod, "database-0");
        if self.observed.field(Kind::StatefulSet, "database", "/spec/replicas") == Some(&json!(0)) {
            self.observed.objects.remove(&pod);
            return;
        }
        if self.observed.objects.contains_key(&database) && !self.observed.objects.contains_key(&pod) {
            let digest = self.accept_roles();
            let report = json!({ "systemIdentifier": "7", "version": "17.5", "outcome": "Created", "rolesDigest": digest });
            self.put(Kind::Pod, &json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": "database-0", "labels": { "valv.eu/tenant": "ada", "valv.eu/role": "database" } },
                "status": { "initContainerStatuses": [{
                    "name": "initialise", "state": { "terminated": { "message": report.to_string() } },
                }]},
            }));
        }
    }

    /// The database takes the roles file as it stands.
    fn accept_roles(&mut self) -> String {
        let file =
            super::secret::value(&self.observed.secrets[credentials::ROLES_SECRET], "roles.json").unwrap();
        let roles: Roles = serde_json::from_str(&file).unwrap();
        self.accepted = roles
            .roles
            .into_iter()
            .filter_map(|(role, verifier)| Some((role, verifier?.expose().to_owned())))
            .collect();
        crate::agent::roles::digest(&file)
    }

    /// A tenant that came up.
    pub fn running() -> Self {
        let mut simulation = Self::new();
        simulation.settle(|_| {});
        simulation
    }

    /// One look, and no time passes.
    pub fn look(&mut self) -> Plan {
        let plan = self.plan();
        self.carry_out(&plan);
        plan
    }

    /// Changes an object as somebody else would.
    pub fn edit(&mut self, kind: Kind, name: &str, change: impl FnOnce(&mut DynamicObject)) {
        let object = self.observed.objects.get_mut(&Key::new(kind, name)).unwrap();
        change(Arc::make_mut(object));
    }

    /// A pod that a Job made.
    pub fn pod_of(&mut self, job: &str, status: &Value) {
        self.observed.objects.remove(&Key::new(Kind::Pod, format!("{job}-pod")));
        self.put(
            Kind::Pod,
            &json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": format!("{job}-pod"), "labels": {
                    "valv.eu/tenant": "ada", "valv.eu/role": "migration", "batch.kubernetes.io/job-name": job,
                }},
                "status": status,
            }),
        );
    }

    /// What the plan says of `kind`.
    pub fn saying(&self, kind: valv_crds::ConditionType) -> valv_crds::condition::Saying {
        self.plan().sayings.into_iter().find(|saying| saying.kind == kind).unwrap()
    }

    /// A value of a Secret.
    pub fn secret(&self, name: &str, key: &str) -> Option<String> {
        super::secret::value(self.observed.secrets.get(name)?, key)
    }

    /// Whether what the plan says of `kind` is true.
    pub fn says(&self, kind: valv_crds::ConditionType) -> (valv_crds::condition::Truth, valv_crds::Reason) {
        let saying = self.saying(kind);
        (saying.truth, saying.reason)
    }
}

mod tests {
    use valv_crds::{ConditionType, Reason, condition::Truth};

    use super::*;

    /// The journal's pods run with what is in their Secret: the database must take it.
    fn journal_can_log_in(simulation: &Simulation) {
        let (Some(user), Some(_)) =
            (simulation.secret("journal-database", "user"), simulation.observed.get(Kind::Pod, "database-0"))
        else {
            return;
        };
        let role = if user == "journal_app_a" { Role::JournalAppA } else { Role::JournalAppB };
        let login = super::super::secret::login_name(role);
        assert_eq!(simulation.accepted.get(&role), simulation.secret(login, "verifier").as_ref(), "{user}");
        assert_eq!(simulation.secret("journal-database", "password"), simulation.secret(login, "password"));
    }

    #[test]
    fn a_new_tenant_comes_up_and_then_nothing_more_is_asked_for() {
        let mut simulation = Simulation::new();

        simulation.settle(journal_can_log_in);

        let wrong: Vec<_> =
            simulation.plan().sayings.into_iter().filter(|saying| saying.truth != Truth::True).collect();
        assert_eq!(wrong, []);
        assert_eq!(simulation.plan().orders, []);
        assert_eq!(simulation.plan().delete, []);
    }

    #[test]
    fn looking_twice_asks_for_the_same() {
        let simulation = Simulation::running();
        let once = simulation.plan();

        let mut later = simulation;
        later.now += std::time::Duration::from_secs(1);
        let mut twice = later.plan();

        twice.look_again_after = once.look_again_after;
        assert_eq!(once, twice);
    }

    #[test]
    fn passwords_rotate_without_a_moment_at_which_the_journal_is_locked_out() {
        let mut simulation = Simulation::running();
        let before = simulation.secret("journal-database", "password").unwrap();

        simulation.tenant.spec.database.password_rotation.generation = 2;
        simulation.settle(journal_can_log_in);

        assert_eq!(simulation.secret("journal-database", "user").unwrap(), "journal_app_b");
        assert_ne!(simulation.secret("journal-database", "password").unwrap(), before);
        assert!(!simulation.accepted.contains_key(&Role::JournalAppA), "the old login is locked out");
        assert!(!simulation.observed.secrets.contains_key("login-app-a"));
        assert_eq!(simulation.says(ConditionType::PasswordsCurrent), (Truth::True, Reason::AsAsked));
        assert_eq!(simulation.plan().password_generation, Some(2));
    }

    #[test]
    fn a_lost_login_is_said_and_never_made_anew_in_silence() {
        let mut simulation = Simulation::running();
        let lost = simulation.observed.secrets.remove("login-app-a").unwrap();

        simulation.settle(|_| {});

        assert!(!simulation.observed.secrets.contains_key("login-app-a"));
        assert_eq!(simulation.says(ConditionType::SecretsIntact), (Truth::False, Reason::SecretLost));
        simulation.observed.secrets.insert("login-app-a".into(), lost);
        simulation.settle(journal_can_log_in);
        assert_eq!(simulation.says(ConditionType::SecretsIntact), (Truth::True, Reason::AsAsked));
    }

    #[test]
    fn a_lost_login_is_replaced_when_new_passwords_are_asked_for() {
        let mut simulation = Simulation::running();
        simulation.observed.secrets.remove("login-app-a");
        simulation.observed.secrets.remove("login-owner");

        simulation.tenant.spec.database.password_rotation.generation = 2;
        simulation.settle(|_| {});

        assert_eq!(simulation.says(ConditionType::SecretsIntact), (Truth::True, Reason::AsAsked));
        assert_eq!(simulation.says(ConditionType::PasswordsCurrent), (Truth::True, Reason::AsAsked));
        journal_can_log_in(&simulation);
    }

    #[test]
    fn an_edited_login_counts_as_lost() {
        let mut simulation = Simulation::running();
        let secret = simulation.observed.secrets.get_mut("login-owner").unwrap();
        secret.data.as_mut().unwrap().insert("password".into(), k8s_openapi::ByteString(b"guess".to_vec()));

        assert_eq!(simulation.says(ConditionType::SecretsIntact), (Truth::False, Reason::SecretLost));
    }

    #[test]
    fn a_new_authority_is_trusted_before_it_signs_and_the_old_one_until_it_signs_no_more() {
        let mut simulation = Simulation::running();
        let bundle = |simulation: &Simulation| {
            let text = simulation.observed.text(Kind::ConfigMap, "authorities", "/data/ca.crt");
            text.unwrap_or_default().matches("BEGIN CERTIFICATE").count()
        };
        assert_eq!(bundle(&simulation), 1);

        simulation.tenant.spec.certificates.rotation.generation = 2;
        simulation.settle(|simulation| {
            let trusted = simulation.observed.text(Kind::ConfigMap, "authorities", "/data/ca.crt").unwrap();
            let signer = simulation.secret("database-tls", "ca.crt").unwrap();
            assert!(trusted.contains(&signer), "the journal meets a certificate that it does not trust");
        });
        assert_eq!(bundle(&simulation), 2);

        simulation.now += std::time::Duration::from_secs(3600);
        simulation.settle(|_| {});
        assert_eq!(bundle(&simulation), 1);
        assert_eq!(simulation.plan().certificates.generation, Some(2));
    }

    #[test]
    fn certificates_are_renewed_in_time_and_the_authority_too() {
        let mut simulation = Simulation::running();
        let first = simulation.secret("database-tls", "tls.crt");

        simulation.now += std::time::Duration::from_secs(61 * 86_400);
        simulation.settle(|_| {});

        assert_ne!(simulation.secret("database-tls", "tls.crt"), first);
        assert_eq!(simulation.says(ConditionType::CertificatesValid), (Truth::True, Reason::AsAsked));
        simulation.now += std::time::Duration::from_secs(3_600 * 86_400);
        simulation.settle(|_| {});
        assert_eq!(simulation.plan().certificates.generation, Some(2));
    }

    #[test]
    fn a_new_image_serves_only_after_its_migration() {
        let mut simulation = Simulation::running();
        let serving = |simulation: &Simulation| {
            let image = simulation.observed.text(Kind::Deployment, "journal", super::super::workload::IMAGE);
            image.unwrap_or_default().to_owned()
        };

        simulation.tenant.spec.journal.image = "registry.example/journal:2".into();
        simulation.settle(|simulation| {
            if serving(simulation).ends_with(":2") {
                let migrated = simulation.observed.state().migrated;
                assert_eq!(migrated.last().unwrap(), "registry.example/journal:2");
            }
        });
        assert_eq!(serving(&simulation), "registry.example/journal:2");

        simulation.migration_fails = true;
        simulation.tenant.spec.journal.image = "registry.example/journal:3".into();
        simulation.tenant.spec.journal.args = vec!["--new".into()];
        simulation.settle(|simulation| assert_eq!(serving(simulation), "registry.example/journal:2"));
        assert_eq!(simulation.says(ConditionType::SchemaCurrent), (Truth::False, Reason::MigrationFailed));

        simulation.tenant.spec.journal.image = "registry.example/journal:1".into();
        simulation.settle(|_| {});
        assert_eq!(serving(&simulation), "registry.example/journal:1");
        assert_eq!(simulation.says(ConditionType::SchemaCurrent), (Truth::True, Reason::SchemaNewer));
    }

    #[test]
    fn a_lost_state_is_remembered_from_the_status() {
        let mut simulation = Simulation::running();
        simulation.tenant.status = Some(valv_crds::JournalTenantStatus::default());
        let status = simulation.tenant.status.as_mut().unwrap();
        status.database.system_identifier = Some("7".into());
        status.journal.migrated = vec!["registry.example/journal:1".into()];
        simulation.observed.objects.remove(&Key::new(Kind::ConfigMap, "valv-state"));
        simulation.observed.objects.remove(&Key::new(Kind::Pod, "database-0"));

        let plan = simulation.plan();

        let state = plan.apply.iter().find(|wanted| wanted.key.name == "valv-state").unwrap();
        assert_eq!(state.value["data"]["systemIdentifier"], "7");
        assert_eq!(plan.migrated, ["registry.example/journal:1"]);
    }

    #[test]
    fn a_suspended_tenant_has_no_pods_and_keeps_its_volumes() {
        let mut simulation = Simulation::running();

        simulation.tenant.spec.suspended = true;
        simulation.settle(|_| {});

        for (kind, name) in [(Kind::Deployment, "journal"), (Kind::StatefulSet, "database")] {
            assert_eq!(simulation.observed.field(kind, name, "/spec/replicas").unwrap(), 0);
        }
        assert!(simulation.observed.has(Kind::PersistentVolumeClaim, "database-0"));
        assert_eq!(simulation.says(ConditionType::JournalReady), (Truth::False, Reason::Suspended));
    }

    #[test]
    fn a_namespace_of_somebody_else_is_not_touched() {
        let mut simulation = Simulation::new();
        simulation.observed.namespace = NamespaceSeen::Foreign;

        let plan = simulation.plan();

        assert_eq!((plan.namespace, plan.apply, plan.delete, plan.orders), (None, vec![], vec![], vec![]));
        assert_eq!(plan.sayings[0].reason, Reason::NamespaceTaken);
    }

    #[test]
    fn a_paused_tenant_is_left_as_it_is() {
        let mut simulation = Simulation::running();
        simulation.tenant.annotations_mut().insert("valv.eu/paused".into(), String::new());
        simulation.tenant.spec.journal.replicas = 3;

        let plan = simulation.plan();

        assert_eq!((plan.apply, plan.delete, plan.orders), (vec![], vec![], vec![]));
    }

    #[test]
    fn a_deleted_tenant_stops_and_what_it_kept_is_marked_before_it_is_let_go() {
        let mut simulation = Simulation::running();
        simulation.tenant.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(simulation.now));

        let stopping = simulation.plan();
        assert_eq!(stopping.finalizer, None);
        assert!(
            stopping
                .delete
                .iter()
                .all(|key| key.kind != Kind::PersistentVolumeClaim && key.kind != Kind::Namespace)
        );
        for key in stopping.delete {
            simulation.observed.objects.remove(&key);
        }
        simulation.observed.objects.remove(&Key::new(Kind::Pod, "database-0"));

        let farewell = simulation.plan();
        assert_eq!(farewell.finalizer, Some(crate::io::cluster::Finalizer::Absent));
        assert!(farewell.retain.contains(&Key::new(Kind::PersistentVolumeClaim, "database-0")));
        assert!(farewell.retain.contains(&Key::new(Kind::Secret, "login-owner")));
        assert_eq!(farewell.delete, vec![]);
    }

    #[test]
    fn a_new_operator_alone_restarts_no_database() {
        let mut simulation = Simulation::running();
        let pods = |simulation: &Simulation| {
            simulation.observed.field(Kind::StatefulSet, "database", "/spec/template").cloned()
        };
        let before = pods(&simulation);

        simulation.settings.images.valv = serde_json::from_value(json!("registry.example/valv:2")).unwrap();
        simulation.settle(|_| {});

        assert_eq!(pods(&simulation), before);
    }
}
