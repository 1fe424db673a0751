//! The whole of it against an API server in memory.

use std::{
    collections::BTreeMap,
    future::ready,
    sync::{Arc as StdArc, Mutex as StdMutex},
};

use ::http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::*;
use crate::fake_api;

/// The operator's namespace: Secrets and ConfigMaps by name.
#[derive(Clone, Default)]
struct Namespace {
    objects: StdArc<StdMutex<BTreeMap<String, Value>>>,
}

impl Namespace {
    fn cluster(&self) -> Cluster {
        let namespace = self.clone();
        fake_api::cluster(fake_api::client(move |request| ready(namespace.serve(&request))))
    }

    fn serve(&self, request: &Request<Value>) -> Response<Body> {
        let mut objects = self.objects.lock().unwrap();
        let path = request.uri().path().to_owned();
        let name = path.rsplit('/').next().unwrap().to_owned();
        match *request.method() {
            Method::GET => match objects.get(&name) {
                Some(object) => fake_api::respond(StatusCode::OK, object),
                None => fake_api::refuse(StatusCode::NOT_FOUND, "NotFound"),
            },
            Method::POST => {
                let mut object = request.body().clone();
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                assert!(!objects.contains_key(&name), "{name} is made twice");
                object["metadata"]["resourceVersion"] = json!("1");
                objects.insert(name, object.clone());
                fake_api::respond(StatusCode::CREATED, &object)
            }
            Method::PATCH => {
                let object =
                    objects.entry(name).or_insert(json!({ "metadata": { "annotations": {} }, "data": {} }));
                merge(object, request.body());
                fake_api::respond(StatusCode::OK, object)
            }
            _ => fake_api::refuse(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn get(&self, name: &str) -> Option<Value> {
        self.objects.lock().unwrap().get(name).cloned()
    }

    fn remove(&self, name: &str) -> Value {
        self.objects.lock().unwrap().remove(name).unwrap()
    }

    fn put(&self, name: &str, object: Value) {
        self.objects.lock().unwrap().insert(name.to_owned(), object);
    }

    fn annotate(&self, reason: &str) {
        let mut objects = self.objects.lock().unwrap();
        let map = objects.entry(PUBLISHED.to_owned()).or_insert(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": PUBLISHED, "annotations": {} },
        }));
        map["metadata"]["annotations"][NEW_SIGNING_KEY_ANNOTATION] = json!(reason);
    }

    /// The key that is published.
    fn published(&self) -> Option<String> {
        Some(self.get(PUBLISHED)?["data"]["id"].as_str()?.to_owned())
    }

    /// What the status of a store says after a look that went well.
    fn told(&self) -> SigningKeyStatus {
        let map = self.get(PUBLISHED).unwrap();
        let text = |name: &str| map["data"][name].as_str().unwrap().to_owned();
        SigningKeyStatus { id: text("id"), public_key: text("signing.pub") }
    }
}

/// As RFC 7396 says.
fn merge(object: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, part) in patch {
        if part.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut object[name], part);
        }
    }
}

async fn look(signing: &Signing, namespace: &Namespace, told: &[SigningKeyStatus]) -> Standing {
    signing.look(&namespace.cluster(), "valv-system", told).await.unwrap()
}

fn id(standing: &Standing) -> String {
    standing.key().unwrap().id().to_string()
}

#[tokio::test]
async fn the_first_look_makes_a_key_and_publishes_it_and_the_second_changes_nothing() {
    let namespace = Namespace::default();
    let signing = Signing::default();

    let first = look(&signing, &namespace, &[]).await;
    let before = (namespace.get(SECRET), namespace.get(PUBLISHED));
    let second = look(&signing, &namespace, &[]).await;
    let by_another = look(&Signing::default(), &namespace, &[namespace.told()]).await;

    assert!(matches!(first, Standing::Kept(_)), "{first:?}");
    assert_eq!((&first, &first), (&second, &by_another));
    assert_eq!(namespace.published(), Some(id(&first)));
    assert_eq!(before, (namespace.get(SECRET), namespace.get(PUBLISHED)));
    assert_eq!(namespace.get(SECRET).unwrap()["type"], "Opaque");
    let key = signing.key(&namespace.cluster(), "valv-system").await.unwrap();
    assert_eq!(key.public().id().to_string(), id(&first));
}

#[tokio::test]
async fn a_key_that_was_lost_is_missed_and_none_is_made_in_its_place() {
    for known_by in ["the ConfigMap", "the stores"] {
        let namespace = Namespace::default();
        let first = look(&Signing::default(), &namespace, &[]).await;
        let told = [namespace.told()];
        namespace.remove(SECRET);
        let told = if known_by == "the stores" {
            namespace.remove(PUBLISHED);
            &told[..]
        } else {
            &[]
        };

        let later = Signing::default();
        let standing = look(&later, &namespace, told).await;

        let Standing::Lost(said) = standing else { panic!("{known_by}: {standing:?}") };
        assert!(said.contains(&id(&first)) && said.contains(NEW_SIGNING_KEY_ANNOTATION), "{said}");
        assert_eq!(namespace.get(SECRET), None, "{known_by}");
        assert!(matches!(later.key(&namespace.cluster(), "valv-system").await, Err(Error::Refused(_))));
    }
}

#[tokio::test]
async fn a_key_that_is_in_memory_only_is_told_of_and_none_is_made() {
    let namespace = Namespace::default();
    let signing = Signing::default();
    let first = look(&signing, &namespace, &[]).await;
    let secret = namespace.remove(SECRET);

    let gone = look(&signing, &namespace, &[namespace.told()]).await;
    namespace.put(SECRET, secret);
    let back = look(&signing, &namespace, &[namespace.told()]).await;

    assert!(matches!(gone, Standing::Unsaved(_)), "{gone:?}");
    assert_eq!((id(&gone), back), (id(&first), first));
}

#[tokio::test]
async fn a_person_s_word_allows_one_new_key_and_what_the_old_one_signed_still_counts() {
    let namespace = Namespace::default();
    let old = look(&Signing::default(), &namespace, &[]).await;
    let told = [namespace.told()];
    namespace.remove(SECRET);
    namespace.annotate("the CISO, 2026-11-23: the cluster burnt, no copy was kept");

    let signing = Signing::default();
    let new = look(&signing, &namespace, &told).await;
    let trusted = signing.trusted(&namespace.cluster(), "valv-system").await.unwrap();
    let again = look(&Signing::default(), &namespace, &told).await;

    assert_ne!(id(&new), id(&old));
    assert_eq!(trusted, [new.key().unwrap(), old.key().unwrap()]);
    assert_eq!(namespace.published(), Some(id(&new)));
    assert_eq!(again, new, "what the stores told of before does not shake it");
    namespace.remove(SECRET);
    let lost = look(&Signing::default(), &namespace, &told).await;
    assert!(matches!(lost, Standing::Lost(_)), "the word was for one key: {lost:?}");
}

#[tokio::test]
async fn a_rotated_key_is_taken_up_if_the_one_before_it_stays_trusted_and_refused_if_not() {
    let namespace = Namespace::default();
    let signing = Signing::default();
    let old = look(&signing, &namespace, &[]).await;
    let told = [namespace.told()];
    let made = SigningKey::generate().unwrap();
    let public = SigningKey::from_pem(&made).unwrap().public();
    let secret = |older: &[PublicKey]| serde_json::to_value(objects::secret(&made, public, older)).unwrap();

    namespace.put(SECRET, secret(&[]));
    let alone = look(&signing, &namespace, &told).await;
    let refused = async |signing: &Signing| {
        matches!(signing.key(&namespace.cluster(), "valv-system").await, Err(Error::Refused(_)))
    };
    let signed = (refused(&signing).await, refused(&Signing::default()).await);
    namespace.put(SECRET, secret(&[old.key().unwrap()]));
    let both = look(&signing, &namespace, &told).await;
    let trusted = signing.trusted(&namespace.cluster(), "valv-system").await.unwrap();

    let Standing::Differs(said) = alone else { panic!("it was taken: {alone:?}") };
    assert_eq!(signed, (true, true), "nobody signs with a key that was slipped in");
    assert!(said.contains(&id(&old)) && said.contains("trusted.pub"), "{said}");
    assert_eq!(both, Standing::Kept(public));
    assert_eq!(trusted, [public, old.key().unwrap()]);
    assert_eq!(namespace.published(), Some(public.id().to_string()));
}

#[tokio::test]
async fn what_is_no_key_is_told_and_never_replaced() {
    let namespace = Namespace::default();
    look(&Signing::default(), &namespace, &[]).await;
    let good = namespace.get(SECRET).unwrap();
    let bytes = |text: &str| json!(k8s_openapi::ByteString(text.as_bytes().to_vec()));

    for (key, value) in [
        ("signing.key", bytes("nonsense")),
        ("signing.key", Value::Null),
        ("trusted.pub", bytes("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")),
    ] {
        let mut bad = good.clone();
        merge(&mut bad["data"], &json!({ key: value }));
        namespace.put(SECRET, bad.clone());

        let standing = look(&Signing::default(), &namespace, &[]).await;

        assert!(matches!(standing, Standing::Differs(_)), "{key}: {standing:?}");
        assert_eq!(namespace.get(SECRET), Some(bad));
    }
}

#[tokio::test]
async fn who_only_signs_makes_no_key_where_nobody_looked_at_a_store() {
    let namespace = Namespace::default();

    let key = Signing::default().key(&namespace.cluster(), "valv-system").await;

    assert!(matches!(key, Err(Error::Absent)));
    assert_eq!(namespace.get(SECRET), None);
}

#[test]
fn several_older_keys_stand_one_after_the_other() {
    let public = || SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap().public();
    let (one, two) = (public(), public());
    let made: SecretString = SigningKey::generate().unwrap();
    let own = SigningKey::from_pem(&made).unwrap().public();

    let keys = objects::keys(&objects::secret(&made, own, &[one, two])).unwrap();

    assert_eq!(keys.trusted(), [own, one, two]);
}
