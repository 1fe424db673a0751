//! Drills followed to their end, in a cluster that does at once what real ones do in time.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{ResourceExt, core::DynamicObject};
use serde_json::{Value, json};
use valv_crds::{
    JournalTenant, RestoreDrill,
    drill::{Choice, DrillCondition, DrillJob},
    reference::DRILL_LABEL,
};

use super::*;
use crate::{
    agent::drill_file::{Because, Earlier},
    drill::{
        apply::Outcome as Applied,
        catalogue::Trouble,
        check::{check, tests::drill},
        choose::Refusal,
        names::{CONFIG, KEYHOLDER_BINDING},
        status,
        teardown::{Left, Next},
        words::tests::{ended, put},
    },
    io::bucket::Credentials,
    store::check::Identities,
    tenant,
};

const TENANT: &str = r"
apiVersion: valv.eu/v1alpha1
kind: JournalTenant
metadata: {name: ada, uid: u-1, creationTimestamp: '2026-03-01T00:00:00Z'}
spec:
  host: ada.journal.example
  journal: {image: 'registry.example/journal:2', migrate: {command: [journal, migrate]}, probes: {ready: {httpGet: {path: /ready, port: 8443}}}}
  database: {size: 1Gi}
  attachments: {size: 2Gi, mountPath: /var/lib/journal, inventorySQL: 'SELECT path, sha256 FROM attachment'}
  access: {ingress: {className: nginx}}
  backup: {recipients: {tenant: age1a, escrow: age1b, drill: age1c}}
status: {journal: {image: 'registry.example/journal:2', imageDigest: 'sha256:22'}, database: {}, certificates: {}, conditions: []}
";

const POLICY: &str = "
apiVersion: valv.eu/v1alpha1
kind: BackupPolicy
metadata: {name: default}
spec:
  schedule: {cron: '0 1 * * *', timeZone: UTC}
  stores: [helsinki]
  retention: {floor: {days: 35, reason: decided for a test}}
  objectives: {rpo: 24h, rto: 1h}
  drill:
    schedule: {cron: '0 5 * * 0', timeZone: UTC, deadline: 4h}
    checks: [{name: no-future-notes, sql: 'SELECT true'}]
";

/// One drill, and the cluster around it.
struct World {
    drill: RestoreDrill,
    observed: Observed,
    settings: Settings,
    now: Timestamp,
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

impl World {
    /// A drill that was asked for just now, of a tenant with a backup.
    fn new() -> Self {
        let tenant: JournalTenant = serde_yaml::from_str(TENANT).unwrap();
        let store = crate::store::check::tests::store();
        let mut object = store.object.as_ref().clone();
        object.status = serde_json::from_value(json!({
            "observedGeneration": 3,
            "conditions": [{ "type": "Ready", "status": "True", "reason": "AsAsked", "message": "",
                "lastTransitionTime": "2026-11-22T00:00:00Z" }],
        }))
        .unwrap();
        let key = |id: &str| Credentials {
            access_key_id: id.into(),
            secret_access_key: format!("secret of {id}").into(),
        };
        let credentials =
            Identities { writer: key("w"), committer: key("c"), reader: key("r"), janitor: key("j") };
        let chosen = Chosen {
            archive: "ada".parse().unwrap(),
            backup: DrilledBackup {
                slot: "20261122T010000Z".parse().unwrap(),
                store: "helsinki".into(),
                manifest: None,
            },
            earlier: Some(Earlier {
                slot: "20261115T010000Z".parse().unwrap(),
                because: Because::FoundGood,
                unbelieved: vec![],
            }),
            image: Some("registry.example/journal:1@sha256:11".into()),
            system_identifier: Some("7391".into()),
        };
        let settings = "
images: {valv: registry.example/valv:1, postgres: registry.example/postgres:17, proxy: registry.example/proxy:1}
network: {stores: [{cidr: 203.0.113.0/24, ports: [443]}]}
keyholder: {namespace: valv-keys, serviceAccount: valv-keyholder, deliveryRole: valv-keyholder-delivery}
";
        Self {
            drill: drill("journal-ada", "ada-20261122t050000z", json!({ "origin": "Scheduled" })),
            observed: Observed {
                tenant: Some(tenant::check::check(Arc::new(tenant)).unwrap()),
                policy: Some(Arc::new(serde_yaml::from_str(POLICY).unwrap())),
                store_name: Some("helsinki".into()),
                store: Some(crate::store::check::check(Arc::new(object))),
                credentials: Some(Ok(credentials)),
                trusted: vec!["PEM".into()],
                looked: Some(Looked::Chosen(Box::new(chosen))),
                ..Observed::default()
            },
            settings: Settings::parse(settings, "valv-system").unwrap(),
            now: at("2026-11-22T09:30:10Z"),
        }
    }

    fn plan(&self) -> Plan {
        plan(&check(Arc::new(self.drill.clone())), &self.observed, &self.settings, self.now)
    }

    /// One look, carried out.
    fn look(&mut self) -> Plan {
        let plan = self.plan();
        self.carry_out(&plan, &Applied::default());
        plan
    }

    fn carry_out(&mut self, plan: &Plan, outcome: &Applied) {
        let mut outcome = outcome.clone();
        let run = check(Arc::new(self.drill.clone()));
        if let Some(namespace) = &plan.namespace {
            self.put(Kind::Namespace, &namespace.name_any(), &json!(namespace));
            self.observed.namespace = NamespaceSeen::Ours;
        }
        for order in &plan.orders {
            let subject = run.subject.as_ref().unwrap();
            let guest = objects::guest(self.observed.tenant.as_ref().unwrap(), subject, &self.observed);
            let (secret, _) = tenant::apply::make(&guest, order, &self.settings, self.now).unwrap();
            self.observed.secrets.insert(secret.name_any(), secret);
        }
        for wanted in &plan.apply {
            if wanted.key.kind == Kind::Secret {
                let secret: Secret = serde_json::from_value(wanted.value.clone()).unwrap();
                self.observed.secrets.insert(wanted.key.name.clone(), secret);
            } else if !self.observed.objects.contains_key(&wanted.key) {
                let mut value = wanted.value.clone();
                let uid = format!("{}-uid", wanted.key.name);
                value["metadata"]["uid"] = json!(uid);
                self.put(wanted.key.kind, &wanted.key.name, &value);
                if wanted.key.kind == Kind::Job {
                    outcome.jobs.push(DrillJob { name: wanted.key.name.clone(), uid });
                }
            }
        }
        outcome.prepared = objects::digest_among(&plan.apply).filter(|_| outcome.refused.is_none());
        for key in &plan.delete {
            self.observed.objects.remove(key);
            self.observed.secrets.remove(&key.name);
            if key.name == KEY_SECRET {
                self.observed.key = None;
            }
        }
        self.drill.status = Some(status::status(&run, &self.observed, plan, &outcome, self.now));
        self.read_config();
    }

    /// What a look sees of the ConfigMap with the run files.
    fn read_config(&mut self) {
        let run = check(Arc::new(self.drill.clone()));
        let config = self.observed.objects.get(&Key::new(Kind::ConfigMap, CONFIG));
        let config: Option<ConfigMap> =
            config.map(|config| serde_json::from_value(json!(config.as_ref())).unwrap());
        self.observed.config =
            config.as_ref().map_or(Config::Absent, |config| Config::of(config, &run.uid()));
        let is_prepared = run.status().prepared_with.is_some_and(|digest| self.observed.config.is(&digest));
        self.observed.chosen = config
            .filter(|_| is_prepared)
            .map(|config| serde_json::from_str(&config.data.unwrap()["chosen.json"]).unwrap());
    }

    /// Somebody changes the ConfigMap with the run files, or takes it away.
    fn tamper(&mut self, change: impl FnOnce(&mut Value)) {
        let key = Key::new(Kind::ConfigMap, CONFIG);
        let mut value = json!(self.observed.objects[&key].as_ref());
        change(&mut value);
        if value.is_null() {
            self.observed.objects.remove(&key);
        } else {
            self.put(Kind::ConfigMap, CONFIG, &value);
        }
        self.read_config();
    }

    fn put(&mut self, kind: Kind, name: &str, value: &Value) {
        let object: DynamicObject = serde_json::from_value(value.clone()).unwrap();
        self.observed.objects.insert(Key::new(kind, name), Arc::new(object));
    }

    fn bring_key(&mut self) {
        let key = json!({ "metadata": {
            "name": KEY_SECRET, "creationTimestamp": "2026-11-22T09:30:08Z",
            "managedFields": [{ "manager": "kubectl-create", "time": "2026-11-22T09:30:08Z" }],
        }});
        self.observed.key = Some(serde_json::from_value(key).unwrap());
    }

    fn says(&self, kind: DrillCondition) -> (String, String) {
        let (status, reason) = check::says(&self.drill, kind).unwrap_or(("", ""));
        (status.to_owned(), reason.to_owned())
    }

    fn passed(&self) -> (String, String) {
        self.says(DrillCondition::Passed)
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        self.observed.objects.contains_key(&Key::new(kind, name))
    }

    /// Up to the end of the Job that restores, which said `words`.
    fn restored(words: &Value) -> Self {
        let mut world = Self::new();
        world.look();
        world.bring_key();
        world.look();
        ended(&mut world.observed.objects, RESTORE, &words.to_string());
        world.look();
        world
    }

    /// Up to the end of the Job that judges, which said `words`.
    fn judged(words: &Value) -> Self {
        let mut world = Self::restored(&restored_well());
        world.look();
        ended(&mut world.observed.objects, JUDGE, &words.to_string());
        world.look();
        world
    }

    /// What runs comes up.
    fn let_time_pass(&mut self) {
        for (kind, name, role) in
            [(Kind::StatefulSet, "database", "database"), (Kind::Deployment, "journal", "journal")]
        {
            let Some(standing) = self.observed.objects.get(&Key::new(kind, name)) else { continue };
            let mut object = standing.as_ref().clone();
            object.data["status"] = json!({ "observedGeneration": 0, "replicas": 1, "updatedReplicas": 1,
                "readyReplicas": 1, "updateRevision": "r", "currentRevision": "r" });
            self.observed.objects.insert(Key::new(kind, name), Arc::new(object));
            if let Some(service) = self.observed.objects.get(&Key::new(Kind::Service, name)) {
                let mut service = json!(service.as_ref());
                service["spec"]["clusterIP"] = json!("10.96.0.7");
                self.put(Kind::Service, name, &service);
            }
            let pod = json!({
                "metadata": { "labels": { "valv.eu/role": role } },
                "status": { "conditions": [
                    { "type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T09:45:05Z" },
                ]},
            });
            put(&mut self.observed.objects, Kind::Pod, &format!("{name}-0"), pod);
        }
    }
}

fn verdicts(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({ "name": name, "outcome": "Passed", "reason": "AsAsked" })).collect()
}

const RESTORED: [&str; 7] =
    ["CommitSignature", "Manifest", "Segments", "Recipients", "Decryption", "Tenant", "VerifyBackup"];

const JUDGED: [&str; 6] =
    ["DatabaseStarts", "Sentinel", "RowCounts", "Amcheck", "Attachments", "Sql/no-future-notes"];

fn restored_well() -> Value {
    json!({ "restored": {
        "verdicts": verdicts(&RESTORED), "bytes": 1000,
        "phases": [{ "phase": "Fetch", "seconds": 100 }, { "phase": "Verify", "seconds": 10 }],
        "manifest": { "key": "v1/ada/data/x/manifest.json", "blake3": "0".repeat(64) },
    }})
}

fn judged_well() -> Value {
    json!({ "judged": {
        "verdicts": verdicts(&JUDGED),
        "phases": [{ "phase": "Recover", "seconds": 5 }, { "phase": "Check", "seconds": 120 }],
        "lastCommit": "2026-11-22T01:05:00Z", "lastCommitFrom": "Replay",
    }})
}

/// A failed verdict in place of the one of its name.
fn failing(mut words: Value, name: &str, reason: &str) -> Value {
    let parts = words.as_object_mut().unwrap().values_mut();
    let all = parts.flat_map(|part| part["verdicts"].as_array_mut().unwrap());
    for verdict in all.filter(|verdict| verdict["name"] == name) {
        *verdict = json!({ "name": name, "outcome": "Failed", "reason": reason, "message": "why" });
    }
    words
}

#[test]
fn a_drill_passes_when_it_was_restored_judged_and_the_journal_answers() {
    let world = ended_well(World::judged(&judged_well()));

    assert_eq!(world.passed(), ("True".into(), "AsAsked".into()));
    let status = world.drill.status.clone().unwrap();
    let measured = status.measured.unwrap();
    // From 09:30:10, when it was first looked at, until 09:45:05, less the two minutes of the checks.
    assert_eq!(measured.rto_seconds, Some(12 * 60 + 55));
    // From 01:05:00 until 09:30:10.
    assert_eq!(measured.rpo_seconds, Some(8 * 3600 + 25 * 60 + 10));
    assert_eq!(world.says(DrillCondition::ObjectivesMet).1, "AsAsked");
    assert_eq!(status.verdicts.len(), RESTORED.len() + JUDGED.len() + 1);
    assert_eq!(status.namespace.as_deref(), Some("drill-ada-0b0e7c1a6f0e4a67"));
    assert!(status.ended.is_some());
}

#[test]
fn what_no_phase_has_of_the_recovery_time_is_the_start_of_pods() {
    let mut words = restored_well();
    words["restored"]["phases"] =
        json!([{ "phase": "Fetch", "seconds": 20 }, { "phase": "Verify", "seconds": 10 }]);
    let mut world = World::restored(&words);
    world.look();
    let mut words = judged_well();
    words["judged"]["phases"] =
        json!([{ "phase": "Recover", "seconds": 5 }, { "phase": "Check", "seconds": 60 }]);
    ended(&mut world.observed.objects, JUDGE, &words.to_string());
    let world = ended_well(world);

    let measured = world.drill.status.unwrap().measured.unwrap();
    // From 09:30:10 until 09:45:05, less a minute of checks.
    assert_eq!(measured.rto_seconds, Some(13 * 60 + 55));
    let of = |phase: Phase| measured.phases.iter().find(|time| time.phase == phase).unwrap().seconds;
    assert_eq!((of(Phase::Prepare), of(Phase::Start)), (50, 12 * 60 + 5));
    assert_eq!(of(Phase::PodStart), (13 * 60 + 55) - 50 - 20 - 10 - 5 - (12 * 60 + 5));
}

#[test]
fn nothing_is_in_the_namespace_before_its_walls_are() {
    let plan = World::new().plan();

    let kinds: Vec<_> = plan.apply.iter().map(|wanted| wanted.key.kind).collect();
    let last_wall = kinds.iter().rposition(|kind| *kind == Kind::NetworkPolicy).unwrap();
    let first_else = kinds.iter().position(|kind| ![Kind::NetworkPolicy, Kind::RoleBinding].contains(kind));
    assert!(first_else.unwrap() > last_wall);
    let namespace = plan.namespace.unwrap();
    assert_eq!(namespace.labels()["pod-security.kubernetes.io/enforce"], "restricted");
    assert_eq!(namespace.labels()[DRILL_LABEL], "0b0e7c1a-6f0e-4a67-9d0e-3a5d4c1b2a39");
    assert!(plan.apply.iter().all(|wanted| {
        wanted.key.kind == Kind::Namespace || wanted.value["metadata"]["namespace"] == namespace.name_any()
    }));
}

#[test]
fn the_restoring_pod_reaches_the_stores_and_the_judging_pod_nobody() {
    let plan = World::new().plan();
    let selected = |name: &str| {
        let wall =
            plan.apply.iter().find(|wanted| wanted.key == Key::new(Kind::NetworkPolicy, name)).unwrap();
        wall.value["spec"]["podSelector"].to_string()
    };

    assert!(selected("allow-to-stores").contains("drill-restore"));
    let all: String = plan
        .apply
        .iter()
        .filter(|wanted| wanted.key.kind == Kind::NetworkPolicy)
        .map(|wanted| wanted.value["spec"].to_string())
        .collect();
    assert!(!all.contains("drill-judge"));
    assert!(!selected("allow-to-stores").contains("\"journal\""));
}

#[test]
fn without_a_key_a_drill_waits_and_says_how_to_bring_one() {
    let mut world = World::new();
    world.look();
    world.look();

    assert_eq!(world.passed(), ("Unknown".into(), "KeyMissing".into()));
    assert!(!world.has(Kind::Job, RESTORE));
    assert!(!world.observed.secrets.contains_key(STORE_SECRET), "the store's credentials are not needed yet");
    assert!(world.has(Kind::RoleBinding, KEYHOLDER_BINDING));

    let mut attended = World::new();
    let tenant = attended.observed.tenant.as_mut().unwrap();
    let mut object = tenant.object.as_ref().clone();
    object.spec.backup.as_mut().unwrap().recipients.drill = None;
    tenant.object = Arc::new(object);
    attended.look();
    attended.look();
    assert!(!attended.has(Kind::RoleBinding, KEYHOLDER_BINDING));
    let conditions = attended.drill.status.unwrap().conditions;
    let said = conditions.iter().find(|condition| condition.type_ == "Passed").unwrap();
    assert!(said.message.contains("-n drill-ada-0b0e7c1a6f0e4a67 create secret generic drill-key"));
}

#[test]
fn a_key_that_does_not_come_until_the_deadline_ends_the_drill() {
    let mut world = World::new();
    world.look();
    world.look();
    world.now = at("2026-11-22T13:31:00Z");

    world.look();

    assert_eq!(world.passed(), ("False".into(), "KeyMissing".into()));
}

#[test]
fn key_and_credentials_are_gone_before_anything_judges() {
    let mut world = World::new();
    world.look();
    world.bring_key();
    world.look();
    assert!(world.observed.secrets.contains_key(STORE_SECRET));

    ended(&mut world.observed.objects, RESTORE, &restored_well().to_string());
    let plan = world.look();

    let gone: Vec<_> = plan.delete.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(gone, [STORE_SECRET, KEY_SECRET]);
    // One that cannot be deleted keeps the judgement waiting.
    world.bring_key();
    let plan = world.look();
    assert!(!world.has(Kind::Job, JUDGE));
    assert_eq!(plan.delete.len(), 1);
    world.look();
    assert!(world.has(Kind::Job, JUDGE));
}

#[test]
fn the_first_verdict_that_failed_is_the_drills() {
    for (name, reason) in [("Segments", "SegmentDiffers"), ("CommitSignature", "SignatureInvalid")] {
        let world = World::restored(&failing(restored_well(), name, reason));

        assert_eq!(world.passed(), ("False".into(), reason.into()));
        assert!(!world.has(Kind::Job, JUDGE));
        assert!(world.observed.key.is_none());
    }
    for (name, reason) in [("Sentinel", "SentinelDiffers"), ("Sql/no-future-notes", "SqlFalse")] {
        let world = World::judged(&failing(judged_well(), name, reason));

        assert_eq!(world.passed(), ("False".into(), reason.into()));
        assert!(!world.has(Kind::StatefulSet, "database"));
    }
}

#[test]
fn words_without_a_verdict_are_no_pass() {
    let silent = World::restored(&json!("nothing"));
    assert_eq!(silent.passed(), ("False".into(), "CannotRestore".into()));
    let half = World::restored(&json!({ "restored": {
        "verdicts": verdicts(&RESTORED[..6]), "phases": [], "bytes": 0,
    }}));
    assert_eq!(half.passed(), ("False".into(), "CannotRestore".into()));

    // All but one check of the judgement: the journal answers, and it is no pass all the same.
    let words = json!({ "judged": { "verdicts": verdicts(&JUDGED[..4]), "phases": [] } });
    let world = ended_well(World::judged(&words));
    assert_eq!(world.passed(), ("False".into(), "NotReached".into()));
}

#[test]
fn tampering_that_was_read_through_passes_and_is_told() {
    let mut words = restored_well();
    words["restored"]["verdicts"][2] = json!({ "name": "Segments", "outcome": "Warned", "reason": "Tampered", "message": "a delete marker" });
    let mut world = World::restored(&words);
    world.look();
    ended(&mut world.observed.objects, JUDGE, &judged_well().to_string());
    let world = ended_well(world);

    assert_eq!(world.passed(), ("True".into(), "Tampered".into()));
}

#[test]
fn a_commit_that_was_taken_away_fails_the_drill() {
    let mut world = World::new();
    let refusal = Refusal { reason: DrillReason::CatalogueRolledBack, message: "20261122T010000Z".into() };
    world.observed.looked = Some(Looked::Refused(refusal));

    world.look();

    assert_eq!(world.passed(), ("False".into(), "CatalogueRolledBack".into()));
    let verdicts = world.drill.status.unwrap().verdicts;
    assert_eq!((verdicts[0].name.as_str(), verdicts[0].outcome), ("CommitSignature", Outcome::Failed));
    assert!(verdicts[1..].iter().all(|verdict| verdict.outcome == Outcome::NotReached));
}

#[test]
fn the_restored_journal_is_the_one_that_was_backed_up_behind_no_door() {
    let mut world = World::judged(&judged_well());
    for _ in 0..5 {
        world.look();
        world.let_time_pass();
    }

    let deployment = &world.observed.objects[&Key::new(Kind::Deployment, "journal")];
    let image = deployment.data.pointer("/spec/template/spec/containers/0/image").unwrap();
    assert_eq!(image, "registry.example/journal:1@sha256:11");
    assert_eq!(deployment.namespace().as_deref(), Some("drill-ada-0b0e7c1a6f0e4a67"));
    for kind in [Kind::Ingress, Kind::HttpRoute] {
        assert!(world.observed.objects.keys().all(|key| key.kind != kind));
    }
    assert!(!world.has(Kind::Service, "journal"));
    let pod = deployment.data.pointer("/spec/template/spec").unwrap();
    let database = json!([{ "ip": "10.96.0.7", "hostnames": ["database.drill-ada-0b0e7c1a6f0e4a67.svc"] }]);
    assert_eq!((&pod["hostAliases"], &pod["dnsPolicy"]), (&database, &json!("None")));
    let state = &world.observed.objects[&Key::new(Kind::ConfigMap, "valv-state")];
    assert_eq!(state.data.pointer("/data/systemIdentifier").unwrap(), "7391");
    // Its logins are not those of the tenant.
    assert!(world.observed.secrets.contains_key("login-owner"));
}

/// Until the journal has come up and was watched.
fn ended_well(mut world: World) -> World {
    for _ in 0..8 {
        world.look();
        world.let_time_pass();
        world.now += Duration::from_secs(5);
    }
    world.look();
    world
}

#[test]
fn a_journal_without_a_probe_passes_with_a_warning_and_not_as_one_that_answered() {
    let mut world = World::judged(&judged_well());
    let tenant = world.observed.tenant.as_mut().unwrap();
    let mut object = tenant.object.as_ref().clone();
    object.spec.journal.probes.ready = None;
    tenant.object = Arc::new(object);

    let world = ended_well(world);

    assert_eq!(world.passed(), ("True".into(), "NoProbe".into()));
    let verdicts = world.drill.status.unwrap().verdicts;
    let starts = verdicts.iter().find(|verdict| verdict.name == "JournalStarts").unwrap();
    assert_eq!(starts.outcome, Outcome::Warned);
    assert!(starts.message.as_ref().unwrap().contains("only its port was tried"));
}

#[test]
fn a_journal_that_answers_is_watched_before_it_counts_whatever_the_operators_clock_says() {
    // It is ready since 09:45:05 by its node's clock.
    for now in ["2026-11-22T09:45:08Z", "2026-11-22T09:40:00Z", "2026-11-22T10:00:00Z"] {
        let mut world = World::judged(&judged_well());
        world.now = at(now);
        // Its judge ended at 09:33:00.
        world.settings.drills.journal_limit = Duration::from_secs(3600);
        for _ in 0..8 {
            world.look();
            world.let_time_pass();
        }
        assert_eq!(world.passed(), ("Unknown".into(), "Running".into()), "{now}");
        world.now += Duration::from_secs(9);
        world.look();
        assert_eq!(world.passed(), ("Unknown".into(), "Running".into()), "{now}");

        world.now += Duration::from_secs(1);
        world.look();

        assert_eq!(world.passed(), ("True".into(), "AsAsked".into()), "{now}");
    }
}

#[test]
fn a_question_that_the_policy_asks_otherwise_meanwhile_is_no_pass() {
    let changes: [(&str, Value, &str); 3] = [
        ("/spec/drill/checks/0/sql", json!("SELECT count(*) > 0 FROM note"), "Sql/no-future-notes"),
        ("/spec/drill/rowCounts", json!({ "tolerance": "0%", "mayFallBy": "0%" }), "RowCounts"),
        ("/spec/drill/checks", json!([]), ""),
    ];
    for (pointer, value, changed) in changes {
        let mut world = World::judged(&judged_well());
        let mut policy = json!(world.observed.policy.as_deref());
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        policy.pointer_mut(parent).unwrap()[field] = value;
        world.observed.policy = Some(Arc::new(serde_json::from_value(policy).unwrap()));

        let world = ended_well(world);

        if changed.is_empty() {
            assert_eq!(world.passed(), ("True".into(), "AsAsked".into()), "nothing is asked any more");
            continue;
        }
        assert_eq!(world.passed(), ("False".into(), "NotReached".into()), "{pointer}");
        let conditions = world.drill.status.unwrap().conditions;
        let said = conditions.iter().find(|condition| condition.type_ == "Passed").unwrap();
        assert!(said.message.contains(changed), "{}", said.message);
    }
}

#[test]
fn an_inventory_of_attachments_that_is_asked_otherwise_meanwhile_is_no_pass() {
    let another = Some("SELECT path, sha256 FROM attachment WHERE NOT draft".to_owned());
    for (inventory, passed) in [(another, ("False", "NotReached")), (None, ("True", "AsAsked"))] {
        let mut world = World::judged(&judged_well());
        let tenant = world.observed.tenant.as_mut().unwrap();
        let mut object = tenant.object.as_ref().clone();
        object.spec.attachments.as_mut().unwrap().inventory_sql = inventory;
        tenant.object = Arc::new(object);

        let world = ended_well(world);

        assert_eq!(world.passed(), (passed.0.into(), passed.1.into()));
    }
}

#[test]
fn a_verdict_that_failed_and_was_left_already_is_not_cancelled_away() {
    let stops: [fn(&mut World); 2] = [
        |world| world.drill.spec.cancel = true,
        |world| world.drill.metadata.deletion_timestamp = Some(Time(world.now)),
    ];
    for stop in stops {
        let mut world = World::restored(&restored_well());
        world.look();
        let words = failing(judged_well(), "Amcheck", "Corrupt");
        ended(&mut world.observed.objects, JUDGE, &words.to_string());
        stop(&mut world);
        world.look();
        assert_eq!(world.passed(), ("False".into(), "Corrupt".into()));

        // What passed so far is no verdict.
        let mut world = World::restored(&restored_well());
        world.look();
        ended(&mut world.observed.objects, JUDGE, &judged_well().to_string());
        stop(&mut world);
        world.look();
        assert_eq!(world.passed(), ("False".into(), "Cancelled".into()));
    }
}

#[test]
fn a_store_that_is_none_of_the_policys_is_not_drilled() {
    let mut world = World::new();
    world.observed.store_name = Some("elsewhere".into());

    let plan = world.look();

    assert_eq!(world.passed(), ("False".into(), "StoreUnavailable".into()));
    assert!(plan.namespace.is_none());
    assert_eq!(world.drill.status.unwrap().store.as_deref(), Some("elsewhere"));
}

#[test]
fn a_store_that_does_not_let_itself_be_read_is_waited_for_and_names_why_at_the_deadline() {
    for reason in DrillReason::OF_THE_STORE {
        let mut world = World::new();
        world.observed.looked = Some(Looked::Trouble(Trouble { reason, message: "so it says".into() }));
        world.look();
        assert_eq!(world.passed(), ("Unknown".into(), format!("{reason:?}")));
        assert!(!check::works(&world.drill, world.now), "it holds the place of another");

        world.now += SignedDuration::from_hours(5);
        world.look();
        assert_eq!(world.passed(), ("False".into(), format!("{reason:?}")));
    }
}

#[test]
fn a_key_without_its_key_is_waited_past_and_told() {
    let mut world = World::new();
    world.look();
    world.bring_key();
    world.look();
    let job = &world.observed.objects[&Key::new(Kind::Job, RESTORE)];
    let volumes = job.data.pointer("/spec/template/spec/volumes").unwrap().as_array().unwrap();
    let key = volumes.iter().find(|volume| volume["name"] == "key").unwrap();
    assert_eq!(key["secret"]["items"], json!([{ "key": "identity", "path": "identity" }]));
    let mut made = job.as_ref().clone();
    made.metadata.creation_timestamp = Some(Time(world.now));
    world.observed.objects.insert(Key::new(Kind::Job, RESTORE), Arc::new(made));
    let owner = json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": RESTORE, "uid": "restore-uid", "controller": true }]);
    let waiting = |state: Value| {
        json!({ "metadata": { "ownerReferences": owner }, "status": {
            "initContainerStatuses": [{ "name": "install", "state": state }],
        }})
    };
    let creating = waiting(json!({ "waiting": { "reason": "PodInitializing" } }));
    put(&mut world.observed.objects, Kind::Pod, "restore-x", creating);
    let message = |world: &mut World| {
        world.look();
        let conditions = world.drill.status.as_ref().unwrap().conditions.clone();
        conditions.into_iter().find(|condition| condition.type_ == "Passed").unwrap().message
    };
    assert!(message(&mut world).ends_with("is being restored"));

    world.now += Duration::from_secs(121);
    let told = message(&mut world);
    assert!(told.contains("has no key identity") && told.contains("--from-file=identity=FILE"), "{told}");

    let begun = waiting(json!({ "running": { "startedAt": "2026-11-22T09:32:00Z" } }));
    put(&mut world.observed.objects, Kind::Pod, "restore-x", begun);
    assert!(message(&mut world).ends_with("is being restored"));
}

#[test]
fn a_key_that_is_seen_to_be_without_its_key_takes_no_room() {
    let mut world = World::new();
    world.look();
    let bring = |world: &mut World, fields: Value| {
        world.bring_key();
        let mut key = json!(world.observed.key.as_ref().unwrap());
        key["metadata"]["managedFields"][0]["fieldsV1"] = fields;
        world.observed.key = Some(serde_json::from_value(key).unwrap());
        world.look();
    };

    for fields in [json!({ "f:data": { ".": {}, "f:key.txt": {} }, "f:type": {} }), json!({ "f:type": {} })] {
        bring(&mut world, fields);

        assert!(!world.has(Kind::Job, RESTORE) && !check::works(&world.drill, world.now));
        assert_eq!(world.passed(), ("Unknown".into(), "KeyMissing".into()));
        let conditions = world.drill.status.as_ref().unwrap().conditions.clone();
        let said = conditions.into_iter().find(|condition| condition.type_ == "Passed").unwrap().message;
        assert!(said.contains("has no key identity") && said.contains("--from-file=identity=FILE"), "{said}");
    }
    assert_eq!(world.drill.status.as_ref().unwrap().key_came, None);

    bring(&mut world, json!({ "f:data": { ".": {}, "f:identity": {} }, "f:type": {} }));
    assert!(world.has(Kind::Job, RESTORE) && check::works(&world.drill, world.now));
}

#[test]
fn how_long_a_journal_may_take_is_a_setting_and_holds_without_its_judges_pod() {
    let mut world = World::judged(&judged_well());
    world.settings.drills.journal_limit = Duration::from_secs(60);
    world.look();
    world.look();
    world.look();
    world.observed.objects.remove(&Key::new(Kind::Pod, "judge-x"));
    let key = Key::new(Kind::StatefulSet, "database");
    let mut database = world.observed.objects[&key].as_ref().clone();
    database.metadata.creation_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at("2026-11-22T09:35:00Z")));
    world.observed.objects.insert(key, Arc::new(database));
    world.now = at("2026-11-22T09:36:00Z");
    world.look();
    assert_eq!(world.passed(), ("Unknown".into(), "Running".into()));

    world.now = at("2026-11-22T09:36:01Z");
    world.look();

    assert_eq!(world.passed(), ("False".into(), "JournalFailed".into()));
}

#[test]
fn an_agent_is_not_believed_what_it_was_not_asked() {
    // A judge that says that the journal starts, and that the commit is signed.
    let mut words = judged_well();
    let said = words["judged"]["verdicts"].as_array_mut().unwrap();
    said.extend(verdicts(&["JournalStarts", "CommitSignature"]));

    let world = World::judged(&words);

    let names: Vec<_> =
        world.drill.status.unwrap().verdicts.into_iter().map(|verdict| verdict.name).collect();
    assert!(!names.contains(&"JournalStarts".to_owned()), "{names:?}");
    // And one that restores cannot answer for the judge.
    let mut words = restored_well();
    words["restored"]["verdicts"].as_array_mut().unwrap().extend(verdicts(&JUDGED));
    let mut world = World::restored(&words);
    world.look();
    assert!(world.has(Kind::Job, JUDGE), "it is judged all the same");
}

#[test]
fn a_drill_of_a_random_backup_misses_no_recovery_point() {
    let mut world = World::new();
    world.drill.spec.backup = Choice::Random;
    world.look();
    world.bring_key();
    world.look();
    ended(&mut world.observed.objects, RESTORE, &restored_well().to_string());
    world.look();
    world.look();
    let mut old = judged_well();
    old["judged"]["lastCommit"] = json!("2026-01-01T00:00:00Z");
    ended(&mut world.observed.objects, JUDGE, &old.to_string());

    let world = ended_well(world);

    assert_eq!(world.passed(), ("True".into(), "AsAsked".into()));
    assert_eq!(world.says(DrillCondition::ObjectivesMet), ("True".into(), "NotAskedFor".into()));
    let measured = world.drill.status.unwrap().measured.unwrap();
    assert!(measured.rto_seconds.is_some());
    assert_eq!((measured.rpo, measured.rpo_seconds), (None, None));
}

#[test]
fn who_brought_the_key_is_told_and_the_key_itself_is_never_looked_at() {
    let mut world = World::new();
    world.look();
    world.bring_key();
    world.look();

    let key = world.drill.status.as_ref().unwrap().key.clone().unwrap();
    assert_eq!((key.by, key.with.as_deref()), (KeyBringer::Person, Some("kubectl-create")));
    assert_eq!(key.brought.0, at("2026-11-22T09:30:08Z"));

    let holders = json!({ "metadata": { "name": KEY_SECRET, "labels": { MANAGED_BY: MANAGER } } });
    let holders = serde_json::from_value(holders).unwrap();
    assert_eq!(key_use(&holders, world.now).by, KeyBringer::KeyHolder);
}

#[test]
fn the_agent_is_told_what_to_compare_with_and_of_secrets_digests_only() {
    let mut world = World::new();
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "letters" },
        "data": { "key": "aGVtbGlndA==" } });
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "colours" },
        "data": { "theme": "green" } });
    for (kind, object) in [(Kind::Secret, secret), (Kind::ConfigMap, map)] {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        world.observed.references.insert(Key::new(kind, object.name_any()), object);
    }
    world.look();
    let config = &world.observed.objects[&Key::new(Kind::ConfigMap, CONFIG)];
    let restore = config.data.pointer("/data/restore.yaml").unwrap().as_str().unwrap();
    assert!(restore.contains("previous: 20261115T010000Z"), "{restore}");
    let judge = config.data.pointer("/data/judge.yaml").unwrap().as_str().unwrap();
    assert!(judge.contains("because: FoundGood"), "{judge}");
    world.bring_key();

    world.look();

    let job = &world.observed.objects[&Key::new(Kind::Job, RESTORE)];
    let args = job.data.pointer("/spec/template/spec/containers/0/args").unwrap();
    assert_eq!((args[0].as_str(), args[1].as_str()), (Some("agent"), Some("restore")));
    assert_eq!(args.as_array().unwrap().last().unwrap(), "--live=/valv/store/tenant.json");
    let told = world.observed.secrets[STORE_SECRET].data.as_ref().unwrap()["tenant.json"].0.clone();
    let told = String::from_utf8(told).unwrap();
    let live: restore::tenant::Live = serde_json::from_str(&told).unwrap();
    let digest = |text: &[u8]| crate::archive::digest::Blake3::of(text).to_string();
    assert_eq!(live.secrets["letters"]["key"], digest(b"hemligt"));
    assert_eq!(live.config_maps["colours"]["theme"], digest(b"green"));
    assert!(!told.contains("hemligt") && !told.contains("aGVtbGlndA"));
}

#[test]
fn a_journal_that_does_not_answer_fails_the_drill() {
    let mut world = World::judged(&judged_well());
    for _ in 0..5 {
        world.look();
    }
    // Its judge ended at 09:33:00.
    world.now = at("2026-11-22T09:48:01Z");
    world.look();

    assert_eq!(world.passed(), ("False".into(), "JournalFailed".into()));
}

#[test]
fn whatever_stops_a_drill_takes_key_and_credentials_away_at_once() {
    let stops: [fn(&mut World); 4] = [
        |world| world.drill.spec.cancel = true,
        |world| world.drill.metadata.deletion_timestamp = Some(Time(world.now)),
        |world| world.observed.tenant = None,
        |world| world.now = at("2026-11-23T00:00:00Z"),
    ];
    let reasons = ["Cancelled", "Cancelled", "CannotRestore", "DeadlineExceeded"];
    for (stop, reason) in stops.into_iter().zip(reasons) {
        let mut world = World::new();
        world.look();
        world.bring_key();
        world.look();
        stop(&mut world);

        world.look();

        assert_eq!(world.passed(), ("False".into(), reason.into()));
        assert!(world.observed.key.is_none() && !world.observed.secrets.contains_key(STORE_SECRET));
    }
}

#[test]
fn a_namespace_of_that_name_that_is_somebody_elses_is_not_touched() {
    let mut world = World::new();
    world.observed.namespace = NamespaceSeen::Foreign;

    let plan = world.look();

    assert_eq!(world.passed(), ("False".into(), "CannotRestore".into()));
    assert!(plan.namespace.is_none() && plan.apply.is_empty());
}

#[test]
fn the_record_is_written_before_anything_is_torn_down_but_not_waited_for_for_ever() {
    let mut world = World::restored(&failing(restored_well(), "Segments", "SegmentDiffers"));
    world.observed.left = Some(Left { namespace: NamespaceSeen::Ours, ..Left::default() });

    let first = world.plan();
    assert_eq!(first.record, Record::Now);
    assert!(first.teardown.is_none());

    let failed = Applied { not_recorded: Some("the store does not answer".into()), ..Applied::default() };
    world.carry_out(&first, &failed);
    assert_eq!(world.says(DrillCondition::Recorded).1, "RecordFailed");
    world.now = at("2026-11-22T09:36:00Z");
    assert!(matches!(world.plan().teardown, Some(Next::Deletes { .. })));

    // Nothing is left, and the record is still tried.
    world.observed.left = Some(Left::default());
    world.observed.namespace = NamespaceSeen::Absent;
    let plan = world.plan();
    world.carry_out(&plan, &failed);
    assert_eq!(world.says(DrillCondition::TornDown), ("True".into(), "AsAsked".into()));
    assert_eq!(world.drill.status.as_ref().unwrap().namespace, None);
    let plan = world.plan();
    assert_eq!((plan.record, plan.finalizer), (Record::Now, None));
    assert_eq!(plan.look_again_after, Some(WHILE_WAITING));
    // A store that is gone for good is not asked every few seconds for ever.
    world.now = at("2026-11-22T11:00:00Z");
    assert_eq!((world.plan().record, world.plan().look_again_after), (Record::Now, Some(WHILE_IN_VAIN)));
}

#[test]
fn a_drill_that_is_cancelled_waits_half_a_minute_for_its_record_and_no_more() {
    let mut world = World::restored(&failing(restored_well(), "Segments", "SegmentDiffers"));
    world.observed.left = Some(Left { namespace: NamespaceSeen::Ours, ..Left::default() });
    world.now += Duration::from_secs(31);
    assert!(world.plan().teardown.is_none(), "nobody stops it");

    world.drill.spec.cancel = true;

    let plan = world.plan();
    assert!(matches!(plan.teardown, Some(Next::Deletes { .. })));
    assert_eq!(plan.record, Record::Now, "it is tried on");
    world.now -= Duration::from_secs(2);
    assert!(world.plan().teardown.is_none());
}

#[test]
fn the_way_in_is_made_again_while_the_record_is_tried() {
    let mut world = World::restored(&failing(restored_well(), "Segments", "SegmentDiffers"));
    world.observed.left = Some(Left { namespace: NamespaceSeen::Ours, ..Left::default() });

    let plan = world.plan();

    let names: Vec<_> = plan.apply.iter().map(|wanted| wanted.key.kind).collect();
    assert_eq!((plan.teardown.is_none(), names), (true, vec![Kind::RoleBinding]));
}

#[test]
fn a_drill_is_let_go_when_nothing_is_left_and_its_record_lies_in_the_store() {
    let mut world = World::restored(&failing(restored_well(), "Segments", "SegmentDiffers"));
    let plan = world.plan();
    let record = valv_crds::drill::RecordReference {
        store: "helsinki".into(),
        object: valv_crds::backup::ObjectDigest {
            key: "v1/ada/records/drill-20261122T050000Z-0b0e7c1a6f0e4a67.json".into(),
            version: None,
            blake3: "0".repeat(64),
        },
        written: Time(world.now),
    };
    world.carry_out(&plan, &Applied { record: Some(record), ..Applied::default() });
    assert_eq!(world.plan().record, Record::NotNow);
    assert_eq!(world.plan().finalizer, None);

    world.observed.left = Some(Left::default());
    world.observed.namespace = NamespaceSeen::Absent;
    world.look();

    assert!(check::is_over(&world.drill));
    assert_eq!(world.plan().finalizer, Some(Finalizer::Absent));
}

#[test]
fn what_cannot_be_taken_away_is_told_and_tried_on() {
    let mut world = World::restored(&failing(restored_well(), "Segments", "SegmentDiffers"));
    world.now = at("2026-11-22T09:50:00Z");
    let left = Left {
        namespace: NamespaceSeen::Ours,
        object: Some(
            serde_json::from_value(json!({ "metadata": { "name": "drill-ada-0b0e7c1a6f0e4a67",
            "annotations": { "valv.eu/drill-volumes": "pv-1" } }}))
            .unwrap(),
        ),
        volumes: vec![("pv-1".into(), "Retain".into())],
        ..Left::default()
    };
    world.observed.left = Some(left);

    world.look();

    assert_eq!(world.says(DrillCondition::TornDown), ("False".into(), "TearDownFailed".into()));
    assert!(world.plan().look_again_after.is_some());
}

#[test]
fn a_drill_waits_for_its_turn_and_its_time_counts_from_then() {
    let mut world = World::new();
    world.observed.before = Some("ada-20261115t050000z".into());
    world.look();
    assert_eq!(world.passed(), ("Unknown".into(), "NotReached".into()));
    assert_eq!(world.drill.status.as_ref().unwrap().started, None);

    world.observed.before = None;
    world.now = at("2026-11-22T10:00:00Z");
    world.look();

    assert_eq!(world.drill.status.unwrap().started.unwrap().0, at("2026-11-22T10:00:00Z"));
}

#[test]
fn nothing_is_made_before_the_finalizer_is_there() {
    let mut world = World::new();
    world.drill.metadata.finalizers = None;

    let plan = world.plan();

    assert_eq!(plan.finalizer, Some(Finalizer::Present));
    assert!(plan.namespace.is_none() && plan.apply.is_empty());
}

#[test]
fn what_was_chosen_is_said_only_when_what_it_was_written_into_stands() {
    let mut world = World::new();
    let refused = Applied { refused: Some("exceeded quota".into()), ..Applied::default() };

    let plan = world.plan();
    world.observed.objects.clear();
    let run = check(Arc::new(world.drill.clone()));
    world.drill.status = Some(status::status(&run, &world.observed, &plan, &refused, world.now));
    let status = world.drill.status.clone().unwrap();
    assert_eq!((status.backup, status.prepared_with), (None, None));

    world.look();
    let status = world.drill.status.clone().unwrap();
    assert_eq!(status.backup.unwrap().slot.to_string(), "20261122T010000Z");
    assert!(status.prepared_with.is_some());
}

#[test]
fn run_files_that_were_not_prepared_are_not_believed() {
    let changes: [fn(&mut Value); 4] = [
        |value| value["data"]["restore.yaml"] = json!("trustedKeys: [mine]"),
        |value| value["immutable"] = json!(false),
        |value| value["metadata"]["labels"]["valv.eu/drill"] = json!("another"),
        |value| *value = Value::Null,
    ];
    for change in changes {
        let mut world = World::new();
        world.look();
        world.bring_key();
        world.tamper(change);

        world.look();

        assert_eq!(world.passed(), ("False".into(), "CannotRestore".into()));
        assert!(!world.has(Kind::Job, RESTORE) && world.observed.key.is_none());
    }
}

#[test]
fn run_files_of_somebody_else_are_taken_away_before_this_drills_own_are_made() {
    let mut world = World::new();
    let forged = json!({ "metadata": { "name": CONFIG }, "data": { "chosen.json": "{}" } });
    world.put(Kind::ConfigMap, CONFIG, &forged);
    world.read_config();

    let plan = world.look();
    assert_eq!(plan.delete, [Key::new(Kind::ConfigMap, CONFIG)]);
    assert!(plan.apply.is_empty() && world.drill.status.as_ref().unwrap().prepared_with.is_none());

    world.look();
    assert!(world.observed.chosen.is_some());
}

#[test]
fn a_job_of_the_right_name_that_the_drill_did_not_make_is_not_listened_to() {
    let mut world = World::restored(&restored_well());
    ended(&mut world.observed.objects, JUDGE, &judged_well().to_string());

    let plan = world.plan();

    assert!(plan.apply.iter().any(|wanted| wanted.key == Key::new(Kind::Job, JUDGE)), "it makes its own");
    world.carry_out(&plan, &Applied::default());
    assert!(!verdicts::has(&world.drill.status.unwrap().verdicts, Check::DatabaseStarts));
}

#[test]
fn a_drill_waits_where_others_work_and_takes_no_room_while_it_waits_for_its_key() {
    let mut world = World::new();
    world.observed.room = Room::Full(4);
    world.look();
    assert_eq!(world.passed(), ("Unknown".into(), "NotReached".into()));
    assert_eq!(world.drill.status.as_ref().unwrap().started, None);

    world.observed.room = Room::Free;
    world.look();
    world.look();
    assert_eq!(world.passed().1, "KeyMissing");
    assert!(!check::works(&world.drill, world.now));

    // The key comes when others have taken its place.
    world.bring_key();
    world.observed.room = Room::Full(4);
    world.look();
    assert!(!world.has(Kind::Job, RESTORE));
    assert_eq!(world.passed(), ("Unknown".into(), "NotReached".into()));

    world.observed.room = Room::Free;
    world.look();
    assert!(world.has(Kind::Job, RESTORE) && check::works(&world.drill, world.now));
}

#[test]
fn a_drill_whose_turn_does_not_come_ends_at_its_deadline() {
    let mut world = World::new();
    world.observed.before = Some("ada-20261115t050000z".into());
    world.look();
    world.now = at("2026-11-22T13:30:00Z");
    world.look();
    assert_eq!(world.passed(), ("Unknown".into(), "NotReached".into()));

    world.now = at("2026-11-22T13:30:11Z");
    world.look();

    assert_eq!(world.passed(), ("False".into(), "DeadlineExceeded".into()));
}

#[test]
fn the_time_that_nobody_looked_is_not_a_drills_own() {
    let mut world = World::new();
    // The operator was away for two days.
    world.now = at("2026-11-24T09:30:10Z");
    world.look();
    world.bring_key();
    world.look();
    world.look();

    assert_eq!(world.passed(), ("Unknown".into(), "Running".into()));
    assert!(world.has(Kind::Job, RESTORE));
}

#[test]
fn a_person_who_brings_the_key_late_leaves_the_drill_its_whole_time() {
    let mut world = World::new();
    world.look();
    world.look();
    world.now = at("2026-11-22T13:20:10Z");
    world.bring_key();
    world.look();
    assert!(world.has(Kind::Job, RESTORE));
    let job = &world.observed.objects[&Key::new(Kind::Job, RESTORE)];
    let limit = job.data.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_u64).unwrap();
    assert!((4 * 3600..5 * 3600).contains(&limit), "{limit}");

    world.now = at("2026-11-22T17:00:00Z");
    world.look();
    assert_eq!(world.passed(), ("Unknown".into(), "Running".into()));
    let measured = world.drill.status.as_ref().unwrap().measured.clone().unwrap();
    assert_eq!(measured.phases, [PhaseTime { phase: Phase::Key, seconds: 3 * 3600 + 50 * 60 }]);

    world.now = at("2026-11-22T17:21:00Z");
    world.look();
    assert_eq!(world.passed(), ("False".into(), "DeadlineExceeded".into()));
}

#[test]
fn nothing_is_restored_onto_volumes_that_could_not_be_taken_away() {
    let mut world = World::new();
    world.observed.keeps = Some("kept".into());

    let plan = world.look();

    assert_eq!(world.passed(), ("False".into(), "VolumesKept".into()));
    assert!(plan.namespace.is_none() && plan.apply.is_empty());
    let said = world.drill.status.unwrap().conditions;
    let said = said.iter().find(|said| said.type_ == "Passed").unwrap();
    assert!(said.message.contains("drills.storageClassName"), "{}", said.message);
}

#[test]
fn drills_restore_into_the_storage_class_of_the_settings() {
    let mut world = World::new();
    world.settings.drills.storage_class_name = Some("deleted".into());

    let plan = world.plan();

    let claims: Vec<_> =
        plan.apply.iter().filter(|wanted| wanted.key.kind == Kind::PersistentVolumeClaim).collect();
    assert_eq!(claims.len(), 2);
    assert!(claims.iter().all(|claim| claim.value["spec"]["storageClassName"] == "deleted"));
}

#[test]
fn an_error_of_the_api_server_keeps_no_drill_past_its_deadline_or_its_cancellation() {
    let mut world = World::new();
    world.look();
    world.bring_key();
    world.look();
    let stops = |world: &World| {
        let run = check(Arc::new(world.drill.clone()));
        stops(&run, &world.observed, "403", world.now)
    };
    assert!(stops(&world).is_none(), "it is in time, and the error is tried again");

    world.now = at("2026-11-22T14:00:00Z");
    let plan = stops(&world).unwrap();
    assert_eq!(plan.delete.len(), 2, "{:?}", plan.delete);
    world.carry_out(&plan, &Applied::default());
    assert_eq!(world.passed(), ("False".into(), "DeadlineExceeded".into()));
    assert!(world.drill.status.as_ref().unwrap().ended.is_some());

    let mut cancelled = World::new();
    cancelled.look();
    cancelled.drill.spec.cancel = true;
    let plan = stops(&cancelled).unwrap();
    cancelled.carry_out(&plan, &Applied::default());
    assert_eq!(cancelled.passed(), ("False".into(), "Cancelled".into()));
}

#[test]
fn walls_that_somebody_took_away_are_put_up_again_at_every_step() {
    let wall = Key::new(Kind::NetworkPolicy, "deny-all");
    let mut restoring = World::new();
    restoring.look();
    restoring.bring_key();
    restoring.look();
    for mut world in [restoring, World::restored(&restored_well()), World::judged(&judged_well())] {
        world.observed.objects.remove(&wall);

        let plan = world.plan();

        assert!(plan.apply.iter().any(|wanted| wanted.key == wall), "{:?}", plan.step);
    }
}

#[test]
fn a_key_that_is_brought_after_the_end_is_not_left_for_the_record() {
    let mut world = World::restored(&failing(restored_well(), "Segments", "SegmentDiffers"));
    let secret = serde_json::from_value(json!({ "metadata": { "name": KEY_SECRET } })).unwrap();
    world.observed.left =
        Some(Left { namespace: NamespaceSeen::Ours, secrets: vec![secret], ..Left::default() });

    let Some(Next::Deletes { delete, .. }) = world.plan().teardown else { panic!("it is left") };

    let names: Vec<_> = delete.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(names, ["Secret drill-key"]);
}

#[test]
fn the_volumes_that_were_seen_are_remembered_until_they_are_gone() {
    let mut world = World::new();
    world.look();
    let claim = json!({ "metadata": { "name": "database-0" }, "spec": { "volumeName": "pv-1" } });
    world.put(Kind::PersistentVolumeClaim, "database-0", &claim);
    world.look();
    assert_eq!(world.drill.status.as_ref().unwrap().volumes, ["pv-1"]);
    assert_eq!(
        world.drill.status.as_ref().unwrap().namespace_uid.as_deref(),
        None,
        "the namespace has no UID here"
    );

    world.observed.objects.clear();
    world.drill.spec.cancel = true;
    world.look();
    assert_eq!(world.drill.status.as_ref().unwrap().volumes, ["pv-1"]);
}
