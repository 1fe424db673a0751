//! Whole looks, at a store and a cluster in memory.

mod keeping;
mod loss;

use std::{
    collections::HashMap,
    future::ready,
    sync::atomic::{AtomicBool, Ordering},
};

use ::http::{Method, Request, StatusCode};
use bytes::Bytes;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    core::DeserializeGuard,
    runtime::{events::Reporter, reflector::store::Writer},
};
use serde_json::{Value, json};
use valv_crds::{
    Backup, JournalTenant,
    reference::{IDENTITY_LABEL, STORE_LABEL},
};

use super::{rounds::Subject, *};
use crate::{
    archive::{
        commit::{Commit, ManifestRef, Store as Where, Verified},
        digest::Blake3,
        envelope::SigningKey,
        layout::{DataObject, Folder},
        manifest::{FORMAT, Manifest, tests::empty},
        register::Register,
        verify::Mode,
    },
    backup::owner,
    fake_api,
    fake_cache::fill,
    fake_store::FakeStore,
    io::bucket::Put,
    janitor::plan::tests::{attempt, slot},
};

fn noon() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

/// What the cluster answers, and what it was asked.
#[derive(Clone, Default)]
struct Answers {
    secrets: Arc<Mutex<HashMap<String, Value>>>,
    /// The drills, one list for each time that they are asked for; the last stays.
    drills: Arc<Mutex<Vec<Value>>>,
    /// The events that were told.
    events: Arc<Mutex<Vec<Value>>>,
    /// Other objects, by path.
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    /// Whether it refuses to have `Backup`s changed.
    refuses: Arc<AtomicBool>,
    /// The UID of its namespace `kube-system`.
    cluster: String,
}

impl Answers {
    fn answer(&self, request: &Request<Value>) -> (StatusCode, Value) {
        let path = request.uri().path();
        let name = path.rsplit('/').next().unwrap_or_default();
        if name == "events" {
            self.events.lock().unwrap().push(request.body().clone());
        }
        if path.contains("/secrets/") {
            return match self.secrets.lock().unwrap().get(name) {
                Some(secret) => (StatusCode::OK, secret.clone()),
                None => (StatusCode::NOT_FOUND, Value::Null),
            };
        }
        if path.ends_with("/restoredrills") {
            let mut drills = self.drills.lock().unwrap();
            let now = if drills.len() > 1 {
                drills.remove(0)
            } else {
                drills.first().cloned().unwrap_or(json!([]))
            };
            return (
                StatusCode::OK,
                json!({ "apiVersion": "valv.eu/v1alpha1", "kind": "RestoreDrillList",
                "metadata": {}, "items": now }),
            );
        }
        if path.ends_with("/namespaces/kube-system") {
            return (StatusCode::OK, json!({ "metadata": { "name": "kube-system", "uid": self.cluster } }));
        }
        if let Some(answer) = self.of_objects(request) {
            return answer;
        }
        if request.method() == Method::GET {
            return (StatusCode::NOT_FOUND, Value::Null);
        }
        (StatusCode::OK, request.body().clone())
    }

    /// What is answered to a wish that concerns an object, which is carried out.
    fn of_objects(&self, request: &Request<Value>) -> Option<(StatusCode, Value)> {
        let (path, body) = (request.uri().path(), request.body());
        let mut objects = self.objects.lock().unwrap();
        let is_change = request.method() != Method::GET && path.contains("/backups/");
        if is_change && self.refuses.load(Ordering::SeqCst) {
            return Some((StatusCode::FORBIDDEN, Value::Null));
        }
        let done = |object: &Value| (StatusCode::OK, object.clone());
        match *request.method() {
            Method::POST if path.ends_with("/backups") => {
                let name = body["metadata"]["name"].as_str().unwrap();
                let key = format!("{path}/{name}");
                if objects.contains_key(&key) {
                    return Some((StatusCode::CONFLICT, Value::Null));
                }
                let mut made = body.clone();
                made["metadata"]["uid"] = json!(format!("uid-of-{name}"));
                objects.insert(key, made.clone());
                Some(done(&made))
            }
            Method::PUT => {
                let object = objects.get_mut(path.strip_suffix("/status")?)?;
                object["status"] = body["status"].clone();
                Some(done(object))
            }
            Method::DELETE => objects.remove(path).as_ref().map(done),
            _ => objects.get(path).map(done),
        }
    }
}

/// Under which path the API has an object.
fn path_of(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().unwrap();
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/apis/valv.eu/v1alpha1/namespaces/{namespace}/backups/{name}"),
        None => format!("/apis/valv.eu/v1alpha1/journaltenants/{name}"),
    }
}

/// A cluster with Ada, whose backups lie in Helsinki and in Frankfurt.
struct World {
    helsinki: FakeStore,
    frankfurt: FakeStore,
    key: Arc<SigningKey>,
    answers: Answers,
    backups: Writer<DeserializeGuard<Backup>>,
    tenants: Writer<DeserializeGuard<JournalTenant>>,
    context: Context,
}

/// The newest `last` backups are kept.
async fn world(last: i32) -> World {
    world_in("c1", last).await
}

/// The same in another cluster.
async fn world_in(cluster: &str, last: i32) -> World {
    let (helsinki, frankfurt) = (FakeStore::start(noon).await, FakeStore::start(noon).await);
    let pem = SigningKey::generate().unwrap();
    let key = Arc::new(SigningKey::from_pem(&pem).unwrap());
    let answers = Answers { cluster: cluster.to_owned(), ..Answers::default() };
    for (name, identity) in [("w", "writer"), ("c", "committer"), ("r", "reader"), ("j", "janitor")] {
        for store in ["helsinki", "frankfurt"] {
            let secret = json!({ "metadata": { "name": format!("{store}-{name}"),
                "labels": { STORE_LABEL: store, IDENTITY_LABEL: identity } } });
            let mut secret: Secret = serde_json::from_value(secret).unwrap();
            let entry = |key: &str, text: &str| (key.to_owned(), k8s_openapi::ByteString(text.into()));
            secret.data = Some([entry("accessKeyID", name), entry("secretAccessKey", "s")].into());
            let named = format!("{store}-{name}");
            answers.secrets.lock().unwrap().insert(named, serde_json::to_value(secret).unwrap());
        }
    }
    let signing = crate::signing::secret_for_tests(&pem, key.public());
    answers
        .secrets
        .lock()
        .unwrap()
        .insert("valv-signing-key".to_owned(), serde_json::to_value(signing).unwrap());
    let serving = answers.clone();
    let client = fake_api::client(move |request: Request<Value>| {
        let (status, body) = serving.answer(&request);
        ready(if status == StatusCode::OK {
            fake_api::respond(status, &body)
        } else {
            fake_api::refuse(
                status,
                if status == StatusCode::NOT_FOUND { "NotFound" } else { "as the test says" },
            )
        })
    });
    let (mut tenants, mut policies, mut stores, mut backups) =
        (Writer::default(), Writer::default(), Writer::default(), Writer::default());
    let object = |store: crate::store::check::Store| {
        let mut object = serde_json::to_value(store.object.as_ref()).unwrap();
        for name in ["writer", "committer", "reader", "janitor"] {
            let secret = format!("{}-{}", store.name, &name[..1]);
            object["spec"]["credentials"][name] = json!({ "name": secret });
        }
        object
    };
    fill(&mut stores, vec![object(helsinki.store("helsinki")), object(frankfurt.store("frankfurt"))]);
    let policy = crate::copy::check::tests::policy(&["helsinki", "frankfurt"]);
    let mut policy = serde_json::to_value(policy.as_ref()).unwrap();
    policy["spec"]["retention"] = json!({ "last": last, "daily": 0, "weekly": 0, "monthly": 0, "yearly": 0,
        "floor": { "days": 1, "reason": "decided in a test" } });
    fill(&mut policies, vec![policy]);
    fill(&mut tenants, vec![serde_json::to_value(crate::copy::check::tests::tenant().as_ref()).unwrap()]);
    fill(&mut backups, vec![]);
    let settings = "images: {valv: registry.example/valv:1, postgres: registry.example/postgres:17, proxy: registry.example/proxy:1}";
    let reporter = Reporter { controller: "test".to_owned(), instance: None };
    let context = Context {
        cluster: fake_api::cluster(client.clone()),
        tenants: tenants.as_reader(),
        policies: policies.as_reader(),
        stores: stores.as_reader(),
        backups: backups.as_reader(),
        signing: Signing::default(),
        settings: Arc::new(Settings::parse(settings, "valv-system").unwrap()),
        breakers: Breakers::default(),
        recorder: Recorder::new(client, reporter),
        memory: Mutex::default(),
        cluster_id: OnceCell::new(),
        now: noon,
    };
    // What reads them lives as long as the test.
    std::mem::forget((policies, stores));
    World { helsinki, frankfurt, key, answers, backups, tenants, context }
}

/// Ada, whom her own controller has told of, and whose newest backup is of so many days ago.
fn ada(days_ago: Option<i64>) -> Value {
    let mut ada = serde_json::to_value(crate::copy::check::tests::tenant().as_ref()).unwrap();
    let at = noon().to_string();
    let last = days_ago.map(
        |ago| json!({ "slot": slot(ago), "taken": at, "committed": at, "bytes": 1, "stores": ["helsinki"] }),
    );
    ada["metadata"]["annotations"] = json!({});
    ada["status"] = json!({ "backup": { "lastBackup": last } });
    ada
}

/// A `Backup` that is complete in these stores, and says that all have it.
fn complete(days_ago: i64, stores: &[&str]) -> Value {
    let slot = slot(days_ago);
    let said = |kind: &str| {
        json!({ "type": kind, "status": "True", "reason": "Committed", "message": "",
            "lastTransitionTime": "2026-11-22T01:00:00Z" })
    };
    let stored = |store: &&str| json!({ "name": store, "committed": slot.time(), "commit": { "key": "k", "blake3": "0".repeat(64) } });
    let name = valv_crds::slot::name("ada", slot);
    json!({
        "apiVersion": "valv.eu/v1alpha1", "kind": "Backup",
        "metadata": { "name": name, "namespace": "journal-ada", "uid": name },
        "spec": { "origin": "Scheduled" },
        "status": { "slot": slot, "archiveID": "ada", "conditions": [said("Complete"), said("Copied")],
            "stores": stores.iter().map(stored).collect::<Vec<_>>() },
    })
}

/// The folder of a backup of so many days ago.
fn folder(days_ago: i64, try_number: i64) -> Folder {
    Folder { archive: "ada".parse().unwrap(), slot: slot(days_ago), attempt: attempt(try_number) }
}

impl World {
    async fn put(&self, store: &FakeStore, key: &str, bytes: Vec<u8>) {
        store.bucket().put(key, Bytes::from(bytes), &Put::default()).await.unwrap();
    }

    /// Puts the manifest of a backup, and says what a commit says of it.
    async fn manifest(&self, store: &FakeStore, folder: &Folder) -> ManifestRef {
        let (slot, attempt) = (folder.slot, folder.attempt.clone());
        let manifest = Manifest { slot, attempt, ..empty() };
        let bytes = manifest.to_bytes().unwrap();
        let key = folder.key(DataObject::Manifest).to_string();
        let (size, blake3) = (bytes.len() as u64, Blake3::of(&bytes));
        let version = store.bucket().put(&key, Bytes::from(bytes), &Put::default()).await.unwrap();
        ManifestRef { key, version, size, blake3 }
    }

    /// A backup that is committed.
    async fn backup(&self, store: &FakeStore, days_ago: i64) {
        let folder = folder(days_ago, days_ago);
        let manifest = self.manifest(store, &folder).await;
        let commit = Commit {
            format: FORMAT,
            archive: folder.archive.clone(),
            slot: folder.slot,
            attempt: folder.attempt.clone(),
            manifest,
            verified: Verified {
                mode: Mode::Full,
                seed: None,
                segments_read: 0,
                segments: 0,
                at: folder.slot.time(),
            },
            store: Where { name: "helsinki".into(), region: "r".into(), country: "FI".into() },
            retain_until: None,
            committed: folder.slot.time(),
        };
        let key = Commit::key(&folder.archive, folder.slot).to_string();
        self.put(store, &key, commit.seal(&self.key).unwrap()).await;
    }

    async fn owner(&self, store: &FakeStore) {
        let owner = owner::tests::owner("ada", "t1", "c1", None);
        let key = owner::Owner::key(&owner.archive).unwrap().to_string();
        self.put(store, &key, owner.seal(&self.key).unwrap()).await;
    }

    /// All that lies there was put so many days ago.
    fn age(&self, store: &FakeStore, days: i64) {
        store.change(|stored| stored.put = noon() - SignedDuration::from_hours(24 * days));
    }

    /// Locked for as long as retention may ask for.
    fn lock(&self, store: &FakeStore) {
        store.change(|stored| stored.locked_until = Some(noon() + SignedDuration::from_hours(24 * 400)));
    }

    fn ward(&self, store: &str, reach: Reach) -> Ward {
        let all = observe::wards(&self.context, noon(), |_| Some(reach));
        all.into_iter().find(|ward| ward.store.name == store).unwrap()
    }

    /// Puts an object into the cluster, and what it is by now into the operator's memory.
    fn apply(&mut self, object: Value) {
        self.answers.objects.lock().unwrap().insert(path_of(&object), object);
        self.remember();
    }

    /// The operator hears of all that was changed.
    fn remember(&mut self) {
        let objects: Vec<Value> = self.answers.objects.lock().unwrap().values().cloned().collect();
        let of =
            |kind: &str| objects.iter().filter(|object| object["kind"] == kind).cloned().collect::<Vec<_>>();
        fill(&mut self.backups, of("Backup"));
        fill(&mut self.tenants, of("JournalTenant"));
    }

    /// Somebody annotates Ada.
    fn annotate(&mut self, key: &str, value: &str) {
        let mut ada = self.ada();
        ada["metadata"]["annotations"][key] = json!(value);
        self.apply(ada);
    }

    /// Ada as she is in the cluster.
    fn ada(&self) -> Value {
        self.answers.objects.lock().unwrap()["/apis/valv.eu/v1alpha1/journaltenants/ada"].clone()
    }

    /// What Ada's status says of what is kept in a store.
    fn kept(&self, store: &str) -> Value {
        let kept = self.ada()["status"]["backup"]["kept"].as_array().cloned().unwrap_or_default();
        kept.into_iter().find(|kept| kept["store"] == store).unwrap_or_default()
    }

    /// The `Backup`s as they are in the cluster, by slot.
    fn backups(&self) -> BTreeMap<valv_crds::Slot, Backup> {
        let objects = self.answers.objects.lock().unwrap();
        let backups = objects.values().filter(|object| object["kind"] == "Backup").cloned();
        let backups = backups.map(|object| serde_json::from_value::<Backup>(object).unwrap());
        backups.map(|backup| (observe::slot(&backup).unwrap(), backup)).collect()
    }

    /// The backups of how many days ago have a commit in a store, of the last hundred days.
    fn commits(store: &FakeStore) -> Vec<i64> {
        let keys = store.keys();
        let archive: ArchiveId = "ada".parse().unwrap();
        (0..100).filter(|ago| keys.contains(&Commit::key(&archive, slot(*ago)).to_string())).collect()
    }

    async fn look(&self, store: &str, reach: Reach) -> Came {
        let ward = self.ward(store, reach);
        let came = look(&ward, &self.context).await.unwrap();
        self.context.memory().looked(&Subject::of(&ward), reach, noon(), came.clone());
        came
    }

    async fn register(&self, store: &FakeStore) -> Register {
        let reader = crate::archive::Archive::new(store.bucket(), fetch::Options::default());
        let found = reader.register(&"ada".parse().unwrap(), "helsinki", &[self.key.public()], None).await;
        found.unwrap().register.unwrap()
    }
}

#[tokio::test]
async fn a_look_at_fifty_backups_asks_for_no_more_than_the_page_says() {
    let world = world(60).await;
    for store in [&world.helsinki, &world.frankfurt] {
        world.owner(store).await;
        for days_ago in 0..50 {
            world.backup(store, days_ago).await;
        }
        world.lock(store);
        store.asked();
    }
    let counts = async |reach: Reach| {
        world.look("helsinki", reach).await;
        (world.helsinki.asked().len(), world.frankfurt.asked().len())
    };

    world.look("frankfurt", Reach::Whole).await;
    world.frankfurt.asked();
    let first = counts(Reach::Whole).await;
    let (short, daily, whole) =
        (counts(Reach::Short).await, counts(Reach::Daily).await, counts(Reach::Whole).await);

    // As docs/architecture.md has it: change both.
    assert!(first.0 <= 165 && whole.0 <= 165, "{first:?} {whole:?}");
    assert!(short.0 <= 65 && daily.0 <= 65, "{short:?} {daily:?}");
    assert_eq!(short.1, 0, "after a commit nobody asks the second store");
    assert!(daily.1 <= 4, "{daily:?}");
}

#[tokio::test]
async fn a_backup_that_is_restored_by_now_stays_though_it_was_not_when_it_was_looked() {
    let world = world(2).await;
    world.owner(&world.helsinki).await;
    for days_ago in 0..4 {
        world.backup(&world.helsinki, days_ago).await;
    }
    let begun = json!([{ "apiVersion": "valv.eu/v1alpha1", "kind": "RestoreDrill",
        "metadata": { "name": "ada-now", "namespace": "journal-ada" }, "spec": { "origin": "Manual" },
        "status": { "backup": { "slot": slot(3), "store": "helsinki" } } }]);
    *world.answers.drills.lock().unwrap() = vec![json!([]), begun];

    world.look("helsinki", Reach::Whole).await;

    let keys = world.helsinki.keys();
    let commit = |days_ago: i64| Commit::key(&"ada".parse().unwrap(), slot(days_ago)).to_string();
    assert!(keys.contains(&commit(3)), "{keys:?}");
    assert!(!keys.contains(&commit(2)), "{keys:?}");
}

#[tokio::test]
async fn what_is_left_is_read_again_before_anything_goes_for_it() {
    let world = world(2).await;
    world.owner(&world.helsinki).await;
    for days_ago in 0..2 {
        world.backup(&world.helsinki, days_ago).await;
    }
    world.look("helsinki", Reach::Whole).await;
    world.backup(&world.helsinki, 3).await;
    let broken = folder(1, 1).key(DataObject::Manifest).to_string();
    world.helsinki.change(|stored| {
        if stored.key.ends_with(&broken) {
            stored.bytes[0] ^= 1;
        }
    });

    world.look("helsinki", Reach::Short).await;

    let commit = Commit::key(&"ada".parse().unwrap(), slot(3)).to_string();
    assert!(world.helsinki.keys().contains(&commit), "without the broken one it is the second that is good");
    let key = world.ward("helsinki", Reach::Short).key();
    let known = world.context.memory().known(&key);
    assert_eq!(known.manifests.len(), 2, "what is broken by now is not remembered as good");
}

#[tokio::test]
async fn what_was_put_lately_into_an_old_slot_s_folder_stays_and_so_does_what_is_to_be_copied() {
    let mut world = world(60).await;
    world.owner(&world.helsinki).await;
    world.backup(&world.helsinki, 0).await;
    let (old, late, wanted) = (folder(40, 1), folder(41, 1), folder(42, 1));
    let page = |folder: &Folder| format!("{folder}index/database-00000.jsonl");
    for folder in [&old, &late, &wanted] {
        world.put(&world.helsinki, &page(folder), b"left".to_vec()).await;
    }
    world.age(&world.helsinki, 30);
    world.put(&world.helsinki, &format!("{late}index/database-00001.jsonl"), b"now".to_vec()).await;
    // It is complete in Frankfurt, and Helsinki has none of it.
    let to_be_copied = json!({
        "apiVersion": "valv.eu/v1alpha1", "kind": "Backup",
        "metadata": { "name": "by-hand", "namespace": "journal-ada", "uid": "u9" }, "spec": {},
        "status": { "slot": wanted.slot, "archiveID": "ada",
            "conditions": [{ "type": "Complete", "status": "True", "reason": "Committed", "message": "",
                "lastTransitionTime": "2026-11-22T01:00:00Z" }],
            "stores": [{ "name": "frankfurt", "commit": { "key": "k", "blake3": "0".repeat(64) } }] },
    });
    fill(&mut world.backups, vec![to_be_copied]);

    world.look("helsinki", Reach::Whole).await;

    let keys = world.helsinki.keys();
    assert!(!keys.contains(&page(&old)), "{keys:?}");
    assert!(keys.contains(&page(&late)) && keys.contains(&page(&wanted)), "{keys:?}");
}

#[tokio::test]
async fn an_archive_without_a_tenant_and_without_a_record_of_whose_it_is_is_left_alone() {
    let world = world(60).await;
    world.backup(&world.helsinki, 0).await;
    world
        .put(&world.helsinki, &format!("{}index/database-00000.jsonl", folder(90, 1)), b"left".to_vec())
        .await;
    world.age(&world.helsinki, 30);
    let before = world.helsinki.keys();
    let orphan = Ward { tenant: None, terms: None, ..world.ward("helsinki", Reach::Whole) };

    look(&orphan, &world.context).await.unwrap();

    assert_eq!(world.helsinki.keys(), before);
    world.look("helsinki", Reach::Whole).await;
    assert_ne!(world.helsinki.keys(), before, "with its tenant it is looked after");
}

#[tokio::test]
async fn what_a_tenant_that_is_gone_left_is_kept_by_its_terms_and_the_store_tells_what_goes() {
    let world = world(60).await;
    world.owner(&world.helsinki).await;
    for days_ago in 0..3 {
        world.backup(&world.helsinki, days_ago).await;
    }
    world.look("helsinki", Reach::Whole).await;
    let terms = Terms::key(&"ada".parse().unwrap()).unwrap().to_string();
    assert!(world.helsinki.keys().contains(&terms), "its terms lie in the archive");
    // Nothing newer comes: the newest sixty stay for sixty days.
    world.backup(&world.helsinki, 70).await;
    let orphan = Ward { tenant: None, terms: None, ..world.ward("helsinki", Reach::Whole) };
    world.answers.events.lock().unwrap().clear();

    look(&orphan, &world.context).await.unwrap();

    let keys = world.helsinki.keys();
    let is_there =
        |days_ago| keys.contains(&Commit::key(&"ada".parse().unwrap(), slot(days_ago)).to_string());
    assert_eq!([0, 1, 2, 70].map(is_there), [true, true, true, false], "{keys:?}");
    let events = world.answers.events.lock().unwrap().clone();
    let told: Vec<_> = events.iter().map(|event| (&event["regarding"]["kind"], &event["reason"])).collect();
    let of_store = json!("BackupStore");
    let (deleted, extended) = (json!("RetentionDeleted"), json!("LocksExtended"));
    assert_eq!(told, [(&of_store, &deleted), (&of_store, &extended)]);
}

#[tokio::test]
async fn a_store_that_got_another_name_is_looked_after_and_what_it_had_is_still_missed() {
    let world = world(60).await;
    world.owner(&world.helsinki).await;
    world.backup(&world.helsinki, 0).await;
    let before = Register {
        number: 9,
        committed: [slot(0), slot(5)].into(),
        ..Register::empty(&"ada".parse().unwrap(), "hel", noon())
    };
    let key = Register::key(&before.archive).unwrap().to_string();
    world.put(&world.helsinki, &key, before.seal(&world.key).unwrap()).await;

    let asked = world.look("helsinki", Reach::Whole).await;

    assert!(asked.awaits.is_some(), "one of them is not there");
    let written = world.register(&world.helsinki).await;
    assert_eq!((written.store.as_str(), written.number), ("helsinki", 10));
    assert_eq!(written.committed, [slot(0), slot(5)].into());
}

#[tokio::test]
async fn whoever_is_looked_at_is_not_due_until_that_is_over() {
    let world = world(60).await;
    let turns = Turns { began: noon() - SignedDuration::from_hours(1) };
    let is_due = |is_looked_at: &str| {
        let due = due(&world.context, turns, noon(), |subject| subject.key.0 == is_looked_at);
        due.into_iter().map(|((store, _), _)| store).collect::<Vec<_>>()
    };

    let (nobody, helsinki) = (is_due("nobody"), is_due("helsinki"));

    assert_eq!(nobody.len(), 2, "{nobody:?}");
    assert_eq!(helsinki, ["frankfurt"]);
}

#[tokio::test]
async fn a_store_that_is_left_alone_is_asked_nothing() {
    let world = world(60).await;
    world.owner(&world.helsinki).await;
    world.context.breakers.heed(
        "helsinki",
        valv_crds::store::Breaker { opens_after: 1, ..valv_crds::store::Breaker::default() },
        noon(),
    );
    let ward = world.ward("helsinki", Reach::Whole);
    world.context.breakers.failed("helsinki", noon());
    world.helsinki.asked();

    let looked = look(&ward, &world.context).await;

    assert!(matches!(looked, Err(Error::Resting { .. })), "{looked:?}");
    assert_eq!(world.helsinki.asked(), Vec::<String>::new());
}

#[test]
fn only_what_may_be_another_in_a_moment_is_tried_again_as_soon_as_ever() {
    let archive = "ada".parse().unwrap();
    let another = Error::Another { archive, by: "somebody".to_owned() };

    assert_eq!(another.trouble(), Trouble::Lasting);
    assert_eq!(Error::Register { versions: 3 }.trouble(), Trouble::Lasting);
    let resting = Error::Resting { store: "helsinki".to_owned(), until: noon() };
    assert_eq!(resting.trouble(), Trouble::Passing);
}
