//! The probe of a store, against a real one: what is claimed, and what is there.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use valv::{
    archive::envelope::SigningKey,
    io::bucket::{Addressing, Bucket, Credentials, Put, Settings},
    signing::Standing,
    store::{
        breakers::Breakers,
        check::{self, Identities, Identity},
        judge::{Egress, Ground, Known, is_proven, judge},
        probe::{Extent, Findings, probe},
    },
};
use valv_crds::store::{Answer, BreakerStatus, Seen, StoreCondition, StoreReason, WriterScope};

use crate::{
    connect::Proxy,
    store::{ACCESS_KEY, BUCKET, DOMAIN, Keeps, PREFIX, REGION, SECRET_KEY, Store, Wire},
};

#[expect(clippy::disallowed_methods, reason = "a test's clock is the real one")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// A store as a user would describe it, with something said differently.
pub fn claimed(store: &Store, changes: Value) -> check::Store {
    let mut object = json!({
        "apiVersion": "valv.eu/v1alpha1",
        "kind": "BackupStore",
        "metadata": { "name": "helsinki" },
        "spec": {
            "provider": "here",
            "location": { "region": REGION, "country": "FI" },
            "profile": "Versitygw",
            "endpoint": store.endpoint(),
            "bucket": BUCKET,
            "prefix": PREFIX,
            "caBundle": store.authority,
            "objectLock": { "mode": "Compliance", "days": 35 },
            "retry": { "perRequest": 0, "perRun": 0 },
            "credentials": {
                "writer": { "name": "w" }, "committer": { "name": "c" },
                "reader": { "name": "r" }, "janitor": { "name": "j" },
            },
        },
    });
    for (field, value) in changes.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    check::check(Arc::new(serde_json::from_value(object).unwrap()))
}

/// Four users with the rights that they should have. Those in `powerful` have all there are.
pub fn identities(store: &Store, keeps: Keeps, powerful: &[Identity]) -> Identities<Credentials> {
    for identity in Identity::ALL {
        store.make_user(&identity.to_string());
    }
    store.set_policy(&policy(keeps, powerful).to_string());
    Identities::try_from_fn(|identity| Ok::<_, ()>(credentials(&identity.to_string(), SECRET_KEY))).unwrap()
}

fn credentials(id: &str, secret: &str) -> Credentials {
    Credentials { access_key_id: id.into(), secret_access_key: secret.to_owned().into() }
}

fn allow(who: Identity, actions: &[&str], resources: &[&str]) -> Value {
    let resources: Vec<_> = resources.iter().map(|name| format!("arn:aws:s3:::{BUCKET}{name}")).collect();
    json!({
        "Effect": "Allow", "Principal": { "AWS": [who.to_string()] },
        "Action": actions, "Resource": resources,
    })
}

/// As in `tests/cluster/src/store/policy.rs`.
fn policy(keeps: Keeps, powerful: &[Identity]) -> Value {
    let locks = keeps == Keeps::LockedVersions;
    let put: &[&str] = if locks { &["s3:PutObject", "s3:PutObjectRetention"] } else { &["s3:PutObject"] };
    let delete = if locks { "s3:DeleteObjectVersion" } else { "s3:DeleteObject" };
    let list = ["s3:ListBucket", "s3:ListBucketVersions"];
    let mut statements = vec![
        allow(Identity::Writer, put, &["/*/v1/*/data/*"]),
        allow(Identity::Committer, put, &["/*/v1/*/commits/*", "/*/v1/*/keys/*", "/*/v1/*/records/*"]),
        allow(Identity::Reader, &["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention"], &["/*"]),
        allow(
            Identity::Reader,
            &[&list[..], &["s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration"]].concat(),
            &[""],
        ),
        allow(Identity::Janitor, &list, &[""]),
        allow(Identity::Janitor, &[delete], &["/*"]),
    ];
    if locks {
        statements.push(allow(Identity::Committer, &["s3:PutObjectRetention"], &["/*"]));
    }
    for who in powerful {
        statements.push(allow(*who, &["s3:*"], &["", "/*"]));
    }
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// The rights that they should have on a bucket with locks, and more for one of them.
fn policy_with(who: Identity, actions: &[&str], resources: &[&str]) -> Value {
    let mut policy = policy(Keeps::LockedVersions, &[]);
    policy["Statement"].as_array_mut().unwrap().push(allow(who, actions, resources));
    policy
}

async fn probed(store: &check::Store, credentials: &Identities<Credentials>) -> Findings {
    probe(store, credentials, &Breakers::default(), now).await
}

/// The reasons of all that is not as it should be.
fn reasons(store: &check::Store, findings: &Findings) -> Vec<StoreReason> {
    let known = Known { findings: Some(findings.clone()), last_whole: Some(now()) };
    let key = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap().public();
    let ground = Ground {
        unresolved: None,
        breaker: BreakerStatus::default(),
        egress: Egress::Open,
        signing: Standing::Kept(key),
    };
    let sayings = judge(store, &known, &ground, now());
    let stops = sayings.iter().filter(|saying| saying.kind != StoreCondition::WriterConfined);
    stops.filter(|saying| !saying.is_true()).map(|saying| saying.reason).collect()
}

fn answer(seen: &Option<Seen>) -> Option<Answer> {
    seen.as_ref().map(|seen| seen.answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_a_lock_and_four_identities_is_proven() {
    let server = Store::start(Keeps::LockedVersions);
    let (store, four) = (claimed(&server, json!({})), identities(&server, Keeps::LockedVersions, &[]));

    let findings = probed(&store, &four).await;

    let can = &findings.capabilities;
    assert_eq!(findings.troubles, [], "{can:#?}");
    assert_eq!(reasons(&store, &findings), [], "{can:#?}");
    let known = Known { findings: Some(findings.clone()), last_whole: Some(now()) };
    assert!(is_proven(&store, &known, now()));
    for seen in [
        &can.reachable,
        &can.tls,
        &can.path_style,
        &can.conditional_put,
        &can.versioning,
        &can.lock_refuses_deletion,
        &can.lock_refuses_shortening,
        &can.lock_extends,
        &can.read_after_write,
    ] {
        assert_eq!(answer(seen), Some(Answer::Yes), "{can:#?}");
    }
    for seen in [
        &can.writer_can_read,
        &can.writer_can_list,
        &can.writer_can_delete,
        &can.writer_can_overwrite,
        &can.writer_can_commit,
        &can.committer_can_write_data,
        &can.committer_can_delete,
        &can.reader_can_write,
        &can.janitor_can_read,
        &can.janitor_can_hide,
    ] {
        assert_eq!(answer(seen), Some(Answer::No), "{can:#?}");
    }
    assert_eq!(can.writer_scope.as_ref().unwrap().scope, WriterScope::Shared);
    assert!(can.clock_skew.as_ref().unwrap().seconds.abs() <= 2);
    assert!(can.certificate.as_ref().unwrap().not_after.0 > now());
    let left = server.keys();
    assert_eq!(left.len(), 1, "one locked object, which the next probe takes away: {left:?}");
    assert_eq!(versions(&server).await, left, "and no marker");
    assert!(left[0].starts_with("v1/.probe/data/") && left[0].ends_with("/locked"), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_versions_is_proven_if_no_lock_is_claimed_and_missing_one_if_it_is() {
    let server = Store::start(Keeps::Latest);
    let four = identities(&server, Keeps::Latest, &[]);
    let honest = claimed(&server, json!({ "objectLock": null }));
    let boasting = claimed(&server, json!({}));

    let (plain, wrong) = (probed(&honest, &four).await, probed(&boasting, &four).await);

    let can = &plain.capabilities;
    assert_eq!(plain.troubles, [], "{can:#?}");
    assert_eq!(reasons(&honest, &plain), [], "{can:#?}");
    assert_eq!(answer(&can.versioning), Some(Answer::No));
    assert_eq!(answer(&can.writer_can_overwrite), Some(Answer::Yes));
    assert_eq!(answer(&can.lock_refuses_deletion), Some(Answer::No));
    assert_eq!(reasons(&boasting, &wrong), [StoreReason::LockMissing], "{wrong:#?}");
    assert_eq!(server.keys(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_can_do_more_than_it_should_is_named() {
    for keeps in [Keeps::LockedVersions, Keeps::Latest] {
        for (who, reason) in [
            (Identity::Writer, StoreReason::WriterCanDelete),
            (Identity::Committer, StoreReason::CommitterCanDelete),
            (Identity::Reader, StoreReason::ReaderCanWrite),
            (Identity::Janitor, StoreReason::JanitorCanRead),
        ] {
            let server = Store::start(keeps);
            let four = identities(&server, keeps, &[who]);
            let lock = (keeps == Keeps::LockedVersions).then(|| json!({ "mode": "Compliance", "days": 35 }));
            let store = claimed(&server, json!({ "objectLock": lock }));

            let findings = probed(&store, &four).await;

            assert_eq!(reasons(&store, &findings), [reason], "{keeps:?} {who}: {findings:#?}");
            let left = server.keys();
            assert!(left.iter().all(|key| key.ends_with("/locked")), "{keeps:?} {who}: {left:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_can_put_where_another_identity_does_is_named() {
    let keeps = Keeps::LockedVersions;
    for (who, folder, reason) in [
        (Identity::Writer, "commits", StoreReason::WriterCanCommit),
        (Identity::Writer, "keys", StoreReason::WriterCanCommit),
        (Identity::Writer, "records", StoreReason::WriterCanCommit),
        (Identity::Committer, "data", StoreReason::CommitterCanWriteData),
    ] {
        let server = Store::start(keeps);
        let four = identities(&server, keeps, &[]);
        let there = format!("/*/v1/*/{folder}/*");
        server.set_policy(&policy_with(who, &["s3:PutObject"], &[&there]).to_string());
        let store = claimed(&server, json!({}));

        let findings = probed(&store, &four).await;

        assert_eq!(reasons(&store, &findings), [reason], "{who} {folder}: {findings:#?}");
        let left = server.keys();
        assert!(left.iter().all(|key| key.ends_with("/locked")), "{who} {folder}: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_janitor_that_can_hide_what_it_can_destroy_is_named_and_its_marker_taken_away() {
    let server = Store::start(Keeps::LockedVersions);
    let four = identities(&server, Keeps::LockedVersions, &[]);
    server.set_policy(&policy_with(Identity::Janitor, &["s3:DeleteObject"], &["/*"]).to_string());
    for lock in [json!({ "mode": "Compliance", "days": 35 }), json!(null)] {
        let store = claimed(&server, json!({ "objectLock": lock }));

        let findings = probed(&store, &four).await;

        assert_eq!(answer(&findings.capabilities.janitor_can_hide), Some(Answer::Yes), "{findings:#?}");
        assert_eq!(reasons(&store, &findings), [StoreReason::JanitorCanHide], "{lock}: {findings:#?}");
        assert!(versions(&server).await.iter().all(|key| key.ends_with("/locked")), "{lock}");
    }
}

/// The keys that are there, each as often as it has versions and delete markers.
async fn versions(server: &Store) -> Vec<String> {
    let bucket = server.bucket();
    let (mut keys, mut pages) = (vec![], bucket.list_versions(""));
    while let Some(page) = pages.page().await.unwrap() {
        keys.extend(page.into_iter().map(|version| version.key));
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn the_administrator_as_writer_can_do_everything_and_is_told() {
    let server = Store::start(Keeps::LockedVersions);
    let mut four = identities(&server, Keeps::LockedVersions, &[]);
    four.writer = credentials(ACCESS_KEY, SECRET_KEY);
    let store = claimed(&server, json!({}));

    let findings = probed(&store, &four).await;

    let can = &findings.capabilities;
    for seen in [&can.writer_can_delete, &can.writer_can_read, &can.writer_can_list] {
        assert_eq!(answer(seen), Some(Answer::Yes), "{can:#?}");
    }
    assert_eq!(reasons(&store, &findings), [StoreReason::WriterCanDelete]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_is_told_apart() {
    let server = Store::start(Keeps::Latest);
    let other = Store::start(Keeps::Latest);
    let four = identities(&server, Keeps::Latest, &[]);
    let wrong = |who: Identity| {
        Identities::try_from_fn(|identity| {
            let secret = if identity == who { "wrong" } else { SECRET_KEY };
            Ok::<_, ()>(credentials(&identity.to_string(), secret))
        })
        .unwrap()
    };
    let region = json!({ "region": "se-sto1", "country": "SE" });
    let said = |changes: Value| {
        let mut all = json!({ "objectLock": null });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        claimed(&server, all)
    };

    for (store, credentials, reason) in [
        (said(json!({ "bucket": "valv-nowhere" })), four.clone(), StoreReason::BucketMissing),
        (said(json!({ "location": region })), four.clone(), StoreReason::RegionDiffers),
        (said(json!({ "endpoint": "https://127.0.0.1:1" })), four.clone(), StoreReason::Unreachable),
        (said(json!({ "caBundle": other.authority })), four.clone(), StoreReason::TlsRefused),
        (said(json!({})), wrong(Identity::Writer), StoreReason::CredentialsRefused),
        (said(json!({})), wrong(Identity::Committer), StoreReason::CredentialsRefused),
        (said(json!({})), wrong(Identity::Reader), StoreReason::CredentialsRefused),
        (said(json!({})), wrong(Identity::Janitor), StoreReason::CredentialsRefused),
    ] {
        let findings = probed(&store, &credentials).await;

        assert_eq!(reasons(&store, &findings).first(), Some(&reason), "{findings:#?}");
        assert_eq!(findings.extent, Extent::CutShort);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_some_may_lift_is_seen_to_be_no_compliance() {
    let server = Store::start(Keeps::LockedVersions);
    let four = identities(&server, Keeps::LockedVersions, &[]);
    let store = claimed(&server, json!({ "objectLock": { "mode": "Governance", "days": 35 } }));

    let findings = probed(&store, &four).await;

    assert_eq!(reasons(&store, &findings), [], "{findings:#?}");
    assert_eq!(answer(&findings.capabilities.lock_refuses_shortening), Some(Answer::Yes));
}

/// What the probe of a claimed lock says of it: the reason, and the words.
async fn lock_said(store: &check::Store, four: &Identities<Credentials>, of: Lock) -> (StoreReason, String) {
    let findings = probed(store, four).await;

    let can = &findings.capabilities;
    let seen = match of {
        Lock::RefusesDeletion => &can.lock_refuses_deletion,
        Lock::RefusesShortening => &can.lock_refuses_shortening,
        Lock::Extends => &can.lock_extends,
    };
    let seen = seen.clone().unwrap();
    assert_eq!(seen.answer, Answer::No, "{findings:#?}");
    let reasons = reasons(store, &findings);
    assert_eq!(reasons.len(), 1, "{findings:#?}");
    (reasons[0], seen.detail.unwrap_or_default())
}

/// What a lock is worth.
#[derive(Clone, Copy)]
enum Lock {
    RefusesDeletion,
    RefusesShortening,
    Extends,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_one_of_the_four_may_lift_or_shorten_is_no_lock() {
    let bypass = &["s3:BypassGovernanceRetention"][..];
    for (who, of, reason, words) in [
        (
            Identity::Janitor,
            Lock::RefusesDeletion,
            StoreReason::LockMissing,
            "the janitor may bypass the lock",
        ),
        (Identity::Committer, Lock::RefusesShortening, StoreReason::LockWeak, "the committer shortened it"),
    ] {
        let server = Store::start(Keeps::LockedVersions);
        let four = identities(&server, Keeps::LockedVersions, &[]);
        server.set_policy(&policy_with(who, bypass, &["/*"]).to_string());
        let governed = claimed(&server, json!({ "objectLock": { "mode": "Governance", "days": 35 } }));
        let strict = claimed(&server, json!({}));

        let (said, detail) = lock_said(&governed, &four, of).await;

        assert_eq!(said, reason, "{who}");
        assert!(detail.contains(words), "{who}: {detail}");
        let findings = probed(&strict, &four).await;
        assert_eq!(reasons(&strict, &findings), [], "nobody lifts a lock of mode Compliance: {findings:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_the_committer_cannot_make_longer_is_told() {
    let server = Store::start(Keeps::LockedVersions);
    let four = identities(&server, Keeps::LockedVersions, &[]);
    let mut policy = policy(Keeps::LockedVersions, &[]);
    let everywhere = json!([format!("arn:aws:s3:::{BUCKET}/*")]);
    let statements = policy["Statement"].as_array_mut().unwrap();
    statements
        .retain(|said| said["Principal"]["AWS"] != json!(["committer"]) || said["Resource"] != everywhere);
    server.set_policy(&policy.to_string());

    let (said, detail) = lock_said(&claimed(&server, json!({})), &four, Lock::Extends).await;

    assert_eq!(said, StoreReason::LockNotExtendable);
    assert!(detail.contains("AccessDenied"), "{detail}");
}

/// A store that is known only by a name that no name server knows, behind a proxy.
fn behind(server: &Store, proxy: &Proxy, addressing: &str) -> check::Store {
    let endpoint = format!("https://{DOMAIN}");
    claimed(server, json!({ "endpoint": endpoint, "proxy": proxy.url, "addressing": addressing }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_behind_a_proxy_is_probed_and_written_through_it_and_no_other_way() {
    let server = Store::start(Keeps::LockedVersions);
    let (proxy, four) = (Proxy::before(server.port).await, identities(&server, Keeps::LockedVersions, &[]));
    let store = behind(&server, &proxy, "Path");

    let findings = probed(&store, &four).await;

    assert_eq!(reasons(&store, &findings), [], "{findings:#?}");
    let asked = proxy.asked();
    assert!(asked.len() > 1 && asked.iter().all(|host| *host == format!("{DOMAIN}:443")), "{asked:?}");
    let settings = Settings {
        proxy: Some(proxy.url.clone()),
        endpoint: format!("https://{DOMAIN}"),
        ..server.settings()
    };
    let bucket = Bucket::open(&settings).unwrap();
    bucket.put("v1/ada/one", "content".into(), &Put::default()).await.unwrap();
    assert!(proxy.asked().contains(&format!("{DOMAIN}:443")));
    assert!(server.keys().contains(&"v1/ada/one".to_owned()));

    let mut other = store.object.as_ref().clone();
    other.spec.endpoint = "https://elsewhere.example".to_owned();
    let refused = probed(&check::check(Arc::new(other)), &four).await;
    assert_eq!(refused.troubles[0].reason, StoreReason::Unreachable, "{refused:#?}");
    assert!(refused.troubles[0].message.contains("403 Not that one"), "{refused:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_has_the_bucket_in_its_host_name_is_probed_and_written_so() {
    let server = Store::start_with(Keeps::LockedVersions, Wire::Virtual);
    let (proxy, four) = (Proxy::before(server.port).await, identities(&server, Keeps::LockedVersions, &[]));
    let store = behind(&server, &proxy, "Virtual");

    let findings = probed(&store, &four).await;

    assert_eq!(reasons(&store, &findings), [], "{findings:#?}");
    assert_eq!(answer(&findings.capabilities.path_style), Some(Answer::Yes), "this server takes both");
    let asked = proxy.asked();
    let virtually = format!("{BUCKET}.{DOMAIN}:443");
    assert!(
        asked.iter().filter(|host| **host == virtually).count() > 4,
        "as each identity, and to greet: {asked:?}"
    );
    let settings = Settings {
        proxy: Some(proxy.url.clone()),
        endpoint: format!("https://{DOMAIN}"),
        addressing: Addressing::VirtualHost,
        ..server.settings()
    };
    let bucket = Bucket::open(&settings).unwrap();
    let key = "v1/ada/data/a b+ö/one";
    bucket.put(key, "content".into(), &Put::default()).await.unwrap();
    assert_eq!(bucket.get(key, None).await.unwrap().whole(100).await.unwrap(), b"content");
    let asked = proxy.asked();
    assert!(!asked.is_empty() && asked.iter().all(|host| *host == virtually), "{asked:?}");
    assert!(server.keys().contains(&key.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_sought_in_the_host_name_and_stands_in_the_path_is_told() {
    let server = Store::start(Keeps::LockedVersions);
    let (proxy, four) = (Proxy::before(server.port).await, identities(&server, Keeps::LockedVersions, &[]));

    let findings = probed(&behind(&server, &proxy, "Virtual"), &four).await;

    assert_eq!(findings.troubles.len(), 1, "{findings:#?}");
    assert_eq!(findings.troubles[0].reason, StoreReason::AddressingDiffers, "{findings:#?}");
    assert_eq!(answer(&findings.capabilities.path_style), Some(Answer::Yes));
    assert_eq!(server.keys(), Vec::<String>::new(), "nothing is put where it does not belong");
}
