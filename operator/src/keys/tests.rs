//! Tests of [`super`]: whole looks, at a store and a cluster in memory.

use std::{
    collections::BTreeMap,
    future::ready,
    sync::{Mutex, PoisonError},
};

use ::http::{Method, Request, Response, StatusCode};
use age::x25519;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{client::Body, runtime::events::Reporter};
use serde_json::json;
use valv_crds::{
    protection::KeyRole,
    reference::{IDENTITY_LABEL, STORE_LABEL},
};

use super::*;
use crate::{
    archive::{
        layout::Folder,
        manifest::{Manifest, tests::empty},
        recipients::Recipients,
        write,
    },
    fake_api,
    fake_cache::filled,
    fake_store::FakeStore,
    overview::tests::{ESCROW_KEY, World, complete, condition, noon},
};

#[test]
fn the_newest_complete_backup_of_each_namespace_is_asked_about() {
    let mut running = complete("20261124T010000Z", "2026-11-24T01:10:00Z");
    running["status"]["conditions"] = json!([condition("Complete", "False", "Running")]);
    let mut other = complete("20261125T010000Z", "2026-11-25T01:10:00Z");
    other["metadata"]["namespace"] = json!("journal-bo");
    let backups: Vec<Backup> = [
        complete("20261123T010000Z", "2026-11-23T01:10:00Z"),
        complete("20261122T010000Z", "2026-11-22T01:10:00Z"),
        running,
        other,
    ]
    .into_iter()
    .map(|value| serde_json::from_value(value).unwrap())
    .collect();

    let newest = newest(backups.iter());

    assert_eq!(newest["journal-ada"].name_any(), "ada-20261123t010000z");
    assert_eq!(newest["journal-bo"].name_any(), "ada-20261125t010000z");
}

#[test]
fn a_proof_is_dated_for_the_key_that_was_proven_and_nothing_else_changes() {
    let tenant: JournalTenant = serde_json::from_value(World::well().tenant).unwrap();
    let asked = Asked {
        role: KeyRole::Escrow,
        recipient: ESCROW_KEY.to_owned(),
        fingerprint: crate::overview::key_fingerprint(ESCROW_KEY),
        proven: None,
        is_due: true,
    };

    let after = with_proof(&tenant, &asked, noon());

    let before = tenant.status.clone().unwrap();
    let (old, new) = (before.backup.clone().unwrap().keys, after.backup.clone().unwrap().keys);
    assert_eq!((&new[0], new.len()), (&old[0], 2));
    assert_eq!(new[1].proven, Some(Time(noon())));
    assert_eq!(new[1].fingerprint, old[1].fingerprint);
    assert_eq!(valv_crds::JournalTenantStatus { backup: before.backup.clone(), ..after }, before);
    let unseen = JournalTenant { status: None, ..tenant };
    assert_eq!(with_proof(&unseen, &asked, noon()).backup.unwrap().keys, [new[1].clone()]);
}

#[test]
fn a_challenge_reads_back_as_it_was_written_and_belongs_to_its_tenant() {
    let asked = Asked {
        role: KeyRole::Escrow,
        recipient: "age1x".to_owned(),
        fingerprint: "0123456789abcdef".to_owned(),
        proven: None,
        is_due: true,
    };
    let challenge = Challenge {
        archive: "ada".to_owned(),
        slot: "20261123T010000Z".parse().unwrap(),
        recipient: "age1x".to_owned(),
        header: vec![0, 255],
        sealed: vec![7],
    };

    let written = config_map("ada", &asked, &challenge);

    assert_eq!(written["metadata"]["name"], "key-challenge-0123456789abcdef");
    assert_eq!(written["metadata"]["labels"][TENANT_LABEL], "ada");
    let data = serde_json::from_value(written["data"].clone()).unwrap();
    assert_eq!(read_config_map(&data), Some(challenge));
    let object: DynamicObject = serde_json::from_value(written).unwrap();
    let expected = Standing { slot: "20261123T010000Z".parse().unwrap(), answer: None };
    assert_eq!(standing(&object), Some(expected));
}

/// An API server that keeps what is written.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// By path.
    objects: BTreeMap<String, Value>,
    events: Vec<String>,
    versions: u64,
}

impl Server {
    fn answer(&self, request: &Request<Value>) -> Response<Body> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let path = request.uri().path().trim_end_matches("/status").to_owned();
        if path.contains("/events") {
            kept.events.push(request.body()["reason"].as_str().unwrap().to_owned());
            return fake_api::respond(StatusCode::CREATED, request.body());
        }
        let standing = kept.objects.get(&path).cloned();
        let mut now = match *request.method() {
            Method::GET => {
                return standing.map_or_else(
                    || fake_api::refuse(StatusCode::NOT_FOUND, "NotFound"),
                    |object| fake_api::respond(StatusCode::OK, &object),
                );
            }
            Method::DELETE => {
                kept.objects.remove(&path);
                return fake_api::respond(StatusCode::OK, &json!({ "kind": "Status", "status": "Success" }));
            }
            Method::PATCH => {
                let mut now = standing.clone().unwrap_or_else(|| json!({}));
                merge(&mut now, request.body());
                now
            }
            _ => request.body().clone(),
        };
        // As the API server does: whoever names a version means that one.
        let (meant, stands) = (&request.body()["metadata"]["resourceVersion"], &standing);
        if !meant.is_null() && stands.as_ref().is_some_and(|it| it["metadata"]["resourceVersion"] != *meant) {
            return fake_api::refuse(StatusCode::CONFLICT, "Conflict");
        }
        kept.versions += 1;
        now["metadata"]["resourceVersion"] = json!(kept.versions.to_string());
        kept.objects.insert(path, now.clone());
        fake_api::respond(StatusCode::OK, &now)
    }

    fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().objects.insert(path.to_owned(), object);
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    /// The challenges that stand.
    fn challenges(&self) -> Vec<Value> {
        let kept = self.0.lock().unwrap();
        let all = kept.objects.iter().filter(|(path, _)| path.contains(CHALLENGE_PREFIX));
        all.map(|(_, object)| object.clone()).collect()
    }

    /// What was told since it was asked that last.
    fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().events)
    }
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        object.clone_from(patch);
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut object[name], value);
        }
    }
}

const TENANT: &str = "/apis/valv.eu/v1alpha1/journaltenants/ada";
const CONFIG_MAPS: &str = "/api/v1/namespaces/journal-ada/configmaps";
const SECRETS: &str = "/api/v1/namespaces/valv-system/secrets";

/// Ada, whose one backup lies in a store in memory, and the holders of her keys.
struct Looked {
    server: Server,
    store: FakeStore,
    context: Context,
    backup: Backup,
    owner: x25519::Identity,
    escrow: x25519::Identity,
}

impl Looked {
    /// Nothing was proven yet. The backup is encrypted for `readers` of the two: owner and escrow.
    async fn with(readers: impl FnOnce([&x25519::Identity; 2]) -> Vec<x25519::Recipient>) -> Self {
        let [owner, escrow] = [(); 2].map(|()| x25519::Identity::generate());
        let store = FakeStore::start(noon).await;
        let backup = written(&store, &readers([&owner, &escrow])).await;
        let server = Server::default();
        let mut tenant = World::well().tenant;
        tenant["metadata"]["resourceVersion"] = json!("0");
        tenant["spec"]["backup"]["recipients"] =
            json!({ "tenant": owner.to_public().to_string(), "escrow": escrow.to_public().to_string() });
        tenant["status"]["backup"]["keys"] = json!([]);
        server.put(TENANT, tenant);
        let mut helsinki = serde_json::to_value(store.store("helsinki").object.as_ref()).unwrap();
        for identity in ["writer", "committer", "reader", "janitor"] {
            helsinki["spec"]["credentials"][identity] = json!({ "name": identity });
            let secret = json!({ "metadata": { "name": identity,
                "labels": { STORE_LABEL: "helsinki", IDENTITY_LABEL: identity } } });
            let mut secret: Secret = serde_json::from_value(secret).unwrap();
            let entry = |key: &str, text: &str| (key.to_owned(), ByteString(text.into()));
            secret.data = Some([entry("accessKeyID", identity), entry("secretAccessKey", "s")].into());
            server.put(&format!("{SECRETS}/{identity}"), serde_json::to_value(secret).unwrap());
        }
        let pem = SigningKey::generate().unwrap();
        let signing = SigningKey::from_pem(&pem).unwrap();
        let secret = crate::signing::secret_for_tests(&pem, signing.public());
        server.put(&format!("{SECRETS}/valv-signing-key"), serde_json::to_value(secret).unwrap());
        let serving = server.clone();
        let client = fake_api::client(move |request: Request<Value>| ready(serving.answer(&request)));
        let settings = "images: {valv: registry.example/valv:1, postgres: registry.example/postgres:17, proxy: registry.example/proxy:1}";
        let reporter = Reporter { controller: "test".to_owned(), instance: None };
        let context = Context {
            cluster: fake_api::cluster(client.clone()),
            cache: Cache::empty(),
            tenants: filled([]),
            policies: filled(vec![World::well().policy]),
            stores: filled(vec![helsinki]),
            backups: filled([]),
            signing: Signing::default(),
            settings: Arc::new(Settings::parse(settings, "valv-system").unwrap()),
            breakers: Breakers::default(),
            recorder: Recorder::new(client, reporter),
            now: noon,
        };
        Self { server, store, context, backup, owner, escrow }
    }

    /// A backup for both.
    async fn for_both() -> Self {
        Self::with(|both| both.map(x25519::Identity::to_public).to_vec()).await
    }

    fn tenant(&self) -> JournalTenant {
        serde_json::from_value(self.server.get(TENANT).unwrap()).unwrap()
    }

    /// One look, at what stands in the cluster now.
    async fn look(&mut self) -> Result<(), Error> {
        self.context.cache = Cache::empty();
        for challenge in self.server.challenges() {
            self.context.cache.put(Kind::ConfigMap, serde_json::from_value(challenge).unwrap());
        }
        super::look(&self.tenant(), Some(&self.backup), &self.context).await
    }

    fn path(identity: &x25519::Identity) -> String {
        let fingerprint = crate::overview::key_fingerprint(&identity.to_public().to_string());
        format!("{CONFIG_MAPS}/{CHALLENGE_PREFIX}{fingerprint}")
    }

    /// The challenge to the holder of `identity`.
    fn challenge(&self, identity: &x25519::Identity) -> Option<Challenge> {
        let object = self.server.get(&Self::path(identity))?;
        read_config_map(&serde_json::from_value(object["data"].clone()).unwrap())
    }

    /// The holder of `identity` writes `answer`.
    fn answers(&self, identity: &x25519::Identity, answer: &str) {
        let mut object = self.server.get(&Self::path(identity)).unwrap();
        object["metadata"]["annotations"][ANSWER_ANNOTATION] = json!(answer);
        self.server.put(&Self::path(identity), object);
    }

    /// Roles whose keys the tenant's status calls proven.
    fn proven(&self) -> Vec<(KeyRole, Timestamp)> {
        let status = self.tenant().status.and_then(|status| status.backup).unwrap_or_default();
        let proven = |key: KeyStatus| Some((key.role, key.proven?.0));
        status.keys.into_iter().filter_map(proven).collect()
    }
}

/// A backup in `store`, encrypted for `readers`: its object.
async fn written(store: &FakeStore, readers: &[x25519::Recipient]) -> Backup {
    let folder: Folder = empty().folder();
    let texts: Vec<String> = readers.iter().map(ToString::to_string).collect();
    let recipients = Recipients::parse(&texts).unwrap();
    let mut writer =
        write::Writer::new(store.bucket(), folder.clone(), recipients.clone(), write::Options::default());
    let part = writer.part(Part::Tenant, &b"the tenant's own object"[..]).await.unwrap();
    let manifest = Manifest { recipients: recipients.to_texts(), parts: vec![part], ..empty() };
    let named = writer.manifest(&manifest).await.unwrap();
    let mut backup = complete(&folder.slot.to_string(), "2026-11-22T01:10:00Z");
    backup["status"]["manifest"] = json!({
        "key": named.key, "version": named.version.map(|version| version.as_str().to_owned()),
        "blake3": named.blake3.to_string(),
    });
    serde_json::from_value(backup).unwrap()
}

#[tokio::test]
async fn each_holder_is_challenged_with_the_newest_backup_and_proves_only_their_own_key() {
    let mut ada = Looked::for_both().await;

    ada.look().await.unwrap();
    assert_eq!(ada.server.challenges().len(), 2);
    let challenge = ada.challenge(&ada.escrow).unwrap();
    assert_eq!(challenge.slot, empty().slot);
    ada.answers(&ada.escrow, &challenge.answer(&ada.escrow).unwrap());
    ada.look().await.unwrap();

    assert_eq!(ada.proven(), [(KeyRole::Escrow, noon())]);
    assert_eq!(ada.server.events(), ["KeyProven"]);
    // Its challenge goes, and the owner's stays.
    ada.look().await.unwrap();
    assert!(ada.challenge(&ada.escrow).is_none() && ada.challenge(&ada.owner).is_some());
    assert!(ada.server.events().is_empty(), "it is told once");
}

#[tokio::test]
async fn a_wrong_answer_is_told_taken_away_and_proves_nothing() {
    let mut ada = Looked::for_both().await;
    ada.look().await.unwrap();

    // The answer of another's challenge, and no answer at all.
    let owners = ada.challenge(&ada.owner).unwrap().answer(&ada.owner).unwrap();
    for wrong in [owners.as_str(), ""] {
        ada.answers(&ada.escrow, wrong);
        ada.look().await.unwrap();

        assert_eq!(ada.proven(), []);
        assert_eq!(ada.server.events(), ["KeyAnswerWrong"]);
        let left = ada.server.get(&Looked::path(&ada.escrow)).unwrap();
        assert!(left["metadata"]["annotations"].get(ANSWER_ANNOTATION).is_none(), "{left}");
    }
    // The challenge is still good.
    let answer = ada.challenge(&ada.escrow).unwrap().answer(&ada.escrow).unwrap();
    ada.answers(&ada.escrow, &answer);
    ada.look().await.unwrap();
    assert_eq!(ada.proven(), [(KeyRole::Escrow, noon())]);
}

#[tokio::test]
async fn what_stands_is_not_made_again_and_what_is_no_challenge_is() {
    let mut ada = Looked::for_both().await;
    ada.look().await.unwrap();
    let before = ada.server.get(&Looked::path(&ada.owner)).unwrap();
    ada.store.asked();

    ada.look().await.unwrap();
    assert_eq!(ada.server.get(&Looked::path(&ada.owner)).unwrap(), before);
    assert_eq!(ada.store.asked(), Vec::<String>::new(), "the store was asked for nothing new");

    let mut spoiled = before.clone();
    spoiled["data"]["slot"] = json!("yesterday");
    ada.server.put(&Looked::path(&ada.owner), spoiled);
    ada.look().await.unwrap();
    let again = ada.challenge(&ada.owner).unwrap();
    assert!(again.answer(&ada.owner).is_ok());
}

#[tokio::test]
async fn a_key_that_is_rotated_takes_its_challenge_with_it_and_the_new_one_is_asked_for() {
    let mut ada = Looked::for_both().await;
    ada.look().await.unwrap();
    let successor = x25519::Identity::generate();
    let mut tenant = ada.server.get(TENANT).unwrap();
    tenant["spec"]["backup"]["recipients"]["escrow"] = json!(successor.to_public().to_string());
    ada.server.put(TENANT, tenant);

    ada.look().await.unwrap();

    assert!(ada.challenge(&ada.escrow).is_none());
    // The newest backup is not yet encrypted for it: its holder cannot prove what is not so.
    let refused = ada.challenge(&successor).unwrap().answer(&successor).unwrap_err();
    assert!(matches!(refused, proof::Refusal::Header { .. }), "{refused}");
}

#[tokio::test]
async fn whoever_a_backup_is_not_for_cannot_answer_and_a_changed_one_is_no_challenge() {
    let mut ada =
        Looked::with(|[owner, _]| vec![owner.to_public(), x25519::Identity::generate().to_public()]).await;
    ada.look().await.unwrap();
    let refused = ada.challenge(&ada.escrow).unwrap().answer(&ada.escrow).unwrap_err();
    assert!(matches!(refused, proof::Refusal::Header { .. }), "{refused}");

    // A segment that was changed is none of that backup.
    let mut other = Looked::for_both().await;
    other.store.change(|stored| {
        if stored.key.ends_with(".age") {
            stored.bytes[40] ^= 1;
        }
    });
    let error = other.look().await.unwrap_err();
    assert!(matches!(error, Error::Fetch { .. }), "{error}");
    assert!(other.server.challenges().is_empty());
}

#[tokio::test]
async fn nothing_is_asked_of_a_tenant_without_a_backup_or_that_is_going() {
    let mut ada = Looked::for_both().await;
    super::look(&ada.tenant(), None, &ada.context).await.unwrap();
    assert!(ada.server.challenges().is_empty());

    let mut tenant = ada.server.get(TENANT).unwrap();
    tenant["metadata"]["deletionTimestamp"] = json!("2026-11-23T11:00:00Z");
    ada.server.put(TENANT, tenant);
    ada.look().await.unwrap();
    assert!(ada.server.challenges().is_empty());
}
