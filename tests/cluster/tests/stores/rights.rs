//! What each identity must be able to do in a store, and what it must not, tried with real requests.
//!
//! Where the stores are, says whoever has this module: in a cluster (`stores.rs`), or on this machine alone (`rights.rs`).

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use valv_cluster::s3::{AccessKey, Answer, Client, Method, Request};
use valv_cluster::{BUCKET, Identity, Protection, Store};

use crate::{frankfurt, helsinki, shared};

/// An hour: enough for this test, and the bucket goes with the cluster.
const LOCK: Duration = Duration::from_secs(3600);

/// An archive that no other test uses.
pub fn archive(test: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("{test}-{}", now.as_nanos())
}

pub fn in_an_hour() -> String {
    after(LOCK)
}

fn after(span: Duration) -> String {
    let moment = Timestamp::try_from(SystemTime::now() + span).unwrap();
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub fn to(method: Method, key: &str) -> Request {
    Request::new(method, &format!("/{BUCKET}/{key}"))
}

pub fn bucket(method: Method) -> Request {
    Request::new(method, &format!("/{BUCKET}"))
}

pub fn put(key: &str) -> Request {
    to(Method::Put, key).body("content")
}

pub fn get(key: &str) -> Request {
    to(Method::Get, key)
}

pub fn delete(key: &str) -> Request {
    to(Method::Delete, key)
}

/// With a lock that nobody can take away, where there are locks.
pub fn locked(store: &Store, request: Request) -> Request {
    match store.protection {
        Protection::None => request,
        Protection::VersionsAndLocks => request
            .checked()
            .header("x-amz-object-lock-mode", "COMPLIANCE")
            .header("x-amz-object-lock-retain-until-date", &in_an_hour()),
    }
}

fn retention(key: &str, until: &str) -> Request {
    let mode = "<Mode>COMPLIANCE</Mode>";
    let retention = format!("<Retention>{mode}<RetainUntilDate>{until}</RetainUntilDate></Retention>");
    to(Method::Put, key).query("retention", "").body(retention).checked()
}

pub fn version(answer: &Answer) -> String {
    answer.header("x-amz-version-id").unwrap().to_owned()
}

/// Puts as this identity, which must succeed.
pub fn done(store: &Store, who: Identity, request: &Request) -> Answer {
    store.client(who).unwrap().must(request).unwrap()
}

/// Sends as this identity, which must be refused for `code`. Returns the server's words.
pub fn refused(store: &Store, who: Identity, request: &Request, code: &str) -> String {
    refused_to(&store.client(who).unwrap(), request, code)
}

pub fn refused_to(client: &Client, request: &Request, code: &str) -> String {
    let answer = client.send(request).unwrap();
    assert_eq!(answer.code().as_deref(), Some(code), "{request}: {answer}");
    answer.to_string()
}

/// What must come of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Denied,
}

struct Attempt {
    who: Identity,
    request: Request,
    outcome: Outcome,
}

/// What one identity may do and what not.
fn attempts(who: Identity, may: Vec<Request>, may_not: Vec<Request>) -> Vec<Attempt> {
    let with = |outcome| move |request| Attempt { who, request, outcome };
    may.into_iter().map(with(Outcome::Done)).chain(may_not.into_iter().map(with(Outcome::Denied))).collect()
}

/// What is wrong with the answer to an attempt. The answer to a HEAD has no reason.
fn wrong(attempt: &Attempt, answer: &Answer) -> Option<String> {
    let denied = match attempt.request.method() {
        Method::Head => answer.status() == 403,
        Method::Get | Method::Put | Method::Post | Method::Delete | Method::Patch => {
            answer.code().as_deref() == Some("AccessDenied")
        }
    };
    let done = answer.is_success() && answer.code().is_none();
    let as_expected = match attempt.outcome {
        Outcome::Done => done,
        Outcome::Denied => denied && !answer.to_string().contains("object lock"),
    };
    (!as_expected).then(|| format!("{:?} {}: {answer}", attempt.who, attempt.request))
}

/// One object of each kind in one archive.
pub struct Keys {
    /// What only the writer puts.
    pub data: Vec<String>,
    /// What only the committer puts.
    commits: Vec<String>,
    /// What both put, at the place for probes.
    probe: String,
    /// What nobody puts: neither data nor commit, both at once, or in disguise.
    nobodys: Vec<String>,
}

impl Keys {
    pub fn new(prefix: &str, archive: &str) -> Self {
        let root = format!("{prefix}v1/{archive}");
        let attempt = format!("{root}/data/20261122T010000Z/0b0e1c9e-6f5c-4a55-8a58-0d3a8f2f7c11");
        let below = |folder: &str, names: &[&str]| -> Vec<String> {
            names.iter().map(|name| format!("{folder}/{name}")).collect()
        };
        let data = ["database/00000000.age", "index/database-00000.jsonl", "manifest.json"];
        let commits = ["commits/20261122T010000Z.json", "keys/0011.age", "ledger/1.json", "records/1.json"];
        let nobodys = ["commits/data/1", "data/commits/1", "keys/wal/1", "1", "database/1", "datas/1"];
        Self {
            data: [below(&attempt, &data), below(&root, &["wal/1/2.age"])].concat(),
            commits: below(&root, &commits),
            probe: format!("{prefix}v1/.probe/{archive}/1"),
            nobodys: [
                below(&root, &nobodys),
                vec![format!("{prefix}{archive}/data/1"), format!("{prefix}v2/{archive}/data/1")],
            ]
            .concat(),
        }
    }
}

/// What none of the four may do: with somebody's data, with the bucket, with users.
fn for_nobody(store: &Store, key: &str) -> Vec<Request> {
    let hold = "<LegalHold><Status>ON</Status></LegalHold>";
    let suspended = "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>";
    let lock = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>\
                </ObjectLockConfiguration>";
    let mut requests = vec![
        bucket(Method::Get).query("policy", ""),
        bucket(Method::Put).query("policy", "").body("{}"),
        bucket(Method::Delete).query("policy", ""),
        bucket(Method::Put).query("versioning", "").body(suspended),
        bucket(Method::Put).query("object-lock", "").body(lock).checked(),
        bucket(Method::Get).query("acl", ""),
        bucket(Method::Delete),
        Request::new(Method::Put, &format!("/another-bucket-in-{}", store.name)),
        to(Method::Put, key).query("legal-hold", "").body(hold).checked(),
        to(Method::Put, key).query("tagging", "").body("<Tagging><TagSet></TagSet></Tagging>"),
        to(Method::Get, key).query("acl", ""),
    ];
    if store.protection == Protection::VersionsAndLocks {
        // Below a version nobody may hide anything.
        requests.push(delete(key));
        requests.push(delete(key).query("versionId", ""));
        requests.push(bulk_delete(key));
    }
    requests
}

fn bulk_delete(key: &str) -> Request {
    let list = format!("<Delete><Object><Key>{key}</Key></Object></Delete>");
    bucket(Method::Post).query("delete", "").body(list).checked()
}

fn listings() -> Vec<Request> {
    vec![
        bucket(Method::Get).query("list-type", "2"),
        bucket(Method::Get).query("versions", ""),
        bucket(Method::Head),
    ]
}

fn copy(from: &str, key: &str) -> Request {
    to(Method::Put, key).header("x-amz-copy-source", &format!("/{BUCKET}/{from}"))
}

/// Everything that is tried in one archive, in this order.
fn all_attempts(store: &Store, keys: &Keys) -> Vec<Attempt> {
    let (data, commit, probe) = (&keys.data[0], &keys.commits[0], &keys.probe);
    let puts = |keys: &[String]| -> Vec<Request> { keys.iter().map(|key| locked(store, put(key))).collect() };
    let has_locks = store.protection == Protection::VersionsAndLocks;
    let reads = |key: &str| {
        let mut reads = vec![get(key), to(Method::Head, key)];
        if has_locks {
            reads.push(to(Method::Get, key).query("retention", ""));
        }
        reads
    };
    let extend = |key: &str| if has_locks { vec![retention(key, &after(2 * LOCK))] } else { vec![] };
    let nobody = || for_nobody(store, data);
    // A lock of an hour where there are none is refused: for rights, not for lack of locks.
    let foreign_lock = match store.protection {
        Protection::VersionsAndLocks => vec![],
        Protection::None => {
            vec![
                put(data)
                    .header("x-amz-object-lock-mode", "COMPLIANCE")
                    .header("x-amz-object-lock-retain-until-date", &in_an_hour()),
            ]
        }
    };
    let probe_of_commits = put(&probe.replace(".probe/", ".probe/commits/"));
    let probe_of_data = put(&probe.replace(".probe/", ".probe/data/"));
    [
        attempts(
            Identity::Writer,
            [puts(&keys.data), vec![put(probe)]].concat(),
            [
                puts(&keys.commits),
                puts(&keys.nobodys),
                vec![probe_of_commits],
                reads(data),
                listings(),
                vec![delete(data), bulk_delete(data), copy(data, &format!("{data}.copy"))],
                extend(commit),
                foreign_lock.clone(),
                nobody(),
            ]
            .concat(),
        ),
        attempts(
            Identity::Committer,
            [puts(&keys.commits), vec![put(probe)], extend(commit), extend(data)].concat(),
            [
                puts(&keys.data),
                puts(&keys.nobodys),
                vec![probe_of_data],
                reads(commit),
                listings(),
                vec![delete(commit), bulk_delete(commit), copy(commit, &format!("{commit}.copy"))],
                nobody(),
            ]
            .concat(),
        ),
        attempts(
            Identity::Reader,
            [
                reads(data),
                reads(commit),
                reads(probe).into_iter().take(2).collect(),
                listings(),
                vec![bucket(Method::Get).query("versioning", "")],
            ]
            .concat(),
            [
                puts(&keys.data),
                puts(&keys.commits),
                vec![put(probe), delete(data), delete(probe), bulk_delete(probe), copy(data, commit)],
                extend(data),
                nobody(),
            ]
            .concat(),
        ),
        attempts(
            Identity::Janitor,
            listings(),
            [
                puts(&keys.data),
                puts(&keys.commits),
                vec![put(probe), copy(data, commit)],
                reads(data),
                reads(commit),
                reads(probe),
                extend(data),
                nobody(),
            ]
            .concat(),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The keys below a prefix, each as often as it has versions; delete markers too.
fn listed(store: &Store, prefix: &str) -> Vec<String> {
    let list = bucket(Method::Get).query("versions", "").query("prefix", prefix);
    let text = done(store, Identity::Reader, &list).text();
    let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
    keys.map(|(key, _)| key.to_owned()).collect()
}

fn every_identity_does_its_own_thing_and_nothing_else(store: &Store, prefix: &str) {
    let archive = archive("rights");
    let keys = Keys::new(prefix, &archive);
    let attempts = all_attempts(store, &keys);

    let clients = Identity::ALL.map(|who| (who, store.client(who).unwrap()));
    let sent = attempts.iter().map(|attempt| {
        let (_, client) = clients.iter().find(|(who, _)| *who == attempt.who).unwrap();
        (attempt, client.send(&attempt.request).unwrap())
    });
    let failures: Vec<String> = sent.filter_map(|(attempt, answer)| wrong(attempt, &answer)).collect();

    let denied = attempts.iter().filter(|attempt| attempt.outcome == Outcome::Denied).count();
    println!("{} with prefix {prefix:?}: {} tried, {denied} of them denied", store.name, attempts.len());
    assert!(failures.is_empty(), "{failures:#?}");
    let mut expected = [keys.data, keys.commits].concat();
    expected.sort();
    assert_eq!(listed(store, &format!("{prefix}v1/{archive}/")), expected);
}

#[test]
fn in_helsinki_every_identity_does_its_own_thing_and_nothing_else() {
    let _shared = shared();
    every_identity_does_its_own_thing_and_nothing_else(&helsinki(), "");
    every_identity_does_its_own_thing_and_nothing_else(&helsinki(), "some/where/");
}

#[test]
fn in_frankfurt_every_identity_does_its_own_thing_and_nothing_else() {
    let _shared = shared();
    every_identity_does_its_own_thing_and_nothing_else(&frankfurt(), "");
    every_identity_does_its_own_thing_and_nothing_else(&frankfurt(), "some/where/");
}

#[test]
fn what_was_put_to_probe_a_store_can_be_taken_away_again() {
    let _shared = shared();
    for (store, prefix) in [(helsinki(), ""), (helsinki(), "pre/"), (frankfurt(), ""), (frankfurt(), "pre/")]
    {
        let key = Keys::new(prefix, &archive("probe")).probe;

        let versions: Vec<Option<String>> = [Identity::Writer, Identity::Committer]
            .map(|who| done(&store, who, &put(&key)).header("x-amz-version-id").map(str::to_owned))
            .to_vec();
        let before = listed(&store, &key);
        for version in &versions {
            let delete = match version {
                Some(version) => delete(&key).query("versionId", version),
                None => delete(&key),
            };
            done(&store, Identity::Janitor, &delete);
        }

        let kept = if store.protection == Protection::VersionsAndLocks { 2 } else { 1 };
        assert_eq!(before.len(), kept, "{before:?}");
        assert_eq!(listed(&store, &key), [""; 0]);
    }
}

#[test]
fn a_locked_version_stays_whoever_wants_it_gone() {
    let _shared = shared();
    let store = helsinki();
    let key = Keys::new("", &archive("locked")).data.remove(0);
    let (until, later) = (in_an_hour(), after(2 * LOCK));
    let of = |request: Request, version: &str| request.query("versionId", version);

    let first = version(&done(&store, Identity::Writer, &locked(&store, put(&key))));
    let younger = version(&done(&store, Identity::Writer, &put(&key).body("tampered")));
    let bypass = of(delete(&key), &first).header("x-amz-bypass-governance-retention", "true");
    let janitor = refused(&store, Identity::Janitor, &of(delete(&key), &first), "AccessDenied");
    refused(&store, Identity::Janitor, &bypass, "AccessDenied");
    refused_to(&store.administrator().unwrap(), &bypass, "AccessDenied");
    done(&store, Identity::Committer, &of(retention(&key, &later), &first));
    refused(&store, Identity::Committer, &of(retention(&key, &until), &first), "AccessDenied");
    done(&store, Identity::Janitor, &of(delete(&key), &younger));

    assert!(janitor.contains("object lock"), "{janitor}");
    assert_eq!(done(&store, Identity::Reader, &get(&key)).text(), "content");
    let shown = done(&store, Identity::Reader, &of(to(Method::Get, &key).query("retention", ""), &first));
    assert_eq!(shown.element("RetainUntilDate").unwrap(), later);
}

#[test]
fn what_a_delete_marker_hides_is_still_there_as_a_version() {
    let _shared = shared();
    let store = helsinki();
    let key = Keys::new("", &archive("hidden")).data.remove(0);
    let version = version(&done(&store, Identity::Writer, &put(&key)));

    store.administrator().unwrap().must(&delete(&key)).unwrap();

    refused(&store, Identity::Reader, &get(&key), "NoSuchKey");
    let whole = done(&store, Identity::Reader, &get(&key).query("versionId", &version));
    assert_eq!(whole.text(), "content");
    assert_eq!(listed(&store, &key), [key.clone(), key]);
}

#[test]
fn where_there_are_no_versions_the_last_writer_wins() {
    let _shared = shared();
    let store = frankfurt();
    let key = Keys::new("", &archive("overwritten")).data.remove(0);

    let first = done(&store, Identity::Writer, &put(&key));
    done(&store, Identity::Writer, &put(&key).body("tampered"));
    let read = done(&store, Identity::Reader, &get(&key)).text();
    done(&store, Identity::Janitor, &delete(&key));

    assert_eq!(first.header("x-amz-version-id"), None);
    assert_eq!(read, "tampered");
    refused(&store, Identity::Reader, &get(&key), "NoSuchKey");
}

#[test]
fn a_put_can_be_made_to_fail_where_something_is_already() {
    let _shared = shared();
    for store in [helsinki(), frankfurt()] {
        let key = Keys::new("", &archive("conditional")).commits.remove(0);
        let put = put(&key).header("if-none-match", "*");

        done(&store, Identity::Committer, &put);

        refused(&store, Identity::Committer, &put, "PreconditionFailed");
    }
}

#[test]
fn a_store_says_whether_it_has_versions_and_locks() {
    let _shared = shared();
    let versioning = bucket(Method::Get).query("versioning", "");
    let lock = bucket(Method::Get).query("object-lock", "");

    let status = done(&helsinki(), Identity::Reader, &versioning).element("Status");
    let enabled = done(&helsinki(), Identity::Reader, &lock).element("ObjectLockEnabled");

    assert_eq!((status.as_deref(), enabled.as_deref()), (Some("Enabled"), Some("Enabled")));
    assert_eq!(done(&frankfurt(), Identity::Reader, &versioning).element("Status"), None);
    refused(&frankfurt(), Identity::Reader, &lock, "ObjectLockConfigurationNotFoundError");
}

#[test]
fn who_is_not_who_he_says_is_refused_for_that_reason() {
    let _shared = shared();
    for store in [helsinki(), frankfurt()] {
        let list = bucket(Method::Get).query("list-type", "2");
        let as_somebody = |id: &str, secret: &str| {
            store.client_with(AccessKey { id: id.to_owned(), secret: secret.into() }).unwrap()
        };
        let other = if store.name == "helsinki" { frankfurt() } else { helsinki() };
        let foreign = store.client_with(other.key(Identity::Reader).unwrap()).unwrap();

        refused_to(&as_somebody("reader", "guessed"), &list, "SignatureDoesNotMatch");
        refused_to(&as_somebody("nobody", "guessed"), &list, "InvalidAccessKeyId");
        refused_to(&foreign, &list, "SignatureDoesNotMatch");
        for who in Identity::ALL {
            let users = Request::new(Method::Patch, "/list-users");
            refused(&store, who, &users, "XAdminAccessDenied");
        }
    }
}

#[test]
fn what_is_changed_on_disk_is_served_changed() {
    let _shared = shared();
    for store in [helsinki(), frankfurt()] {
        let key = Keys::new("", &archive("flipped")).data.remove(0);
        let put = done(&store, Identity::Writer, &locked(&store, put(&key)));

        let file = fs::OpenOptions::new().write(true).open(store.objects().join(&key)).unwrap();
        file.write_all_at(b"k", 0).unwrap();
        let read = done(&store, Identity::Reader, &get(&key));
        fs::remove_file(store.objects().join(&key)).unwrap();

        assert_eq!(read.text(), "kontent");
        assert_eq!(read.header("etag"), put.header("etag"));
        assert_eq!(read.header("x-amz-version-id"), put.header("x-amz-version-id"));
        refused(&store, Identity::Reader, &get(&key), "NoSuchKey");
    }
}

#[test]
fn an_older_version_lies_where_its_key_and_version_say() {
    let _shared = shared();
    let store = helsinki();
    let key = Keys::new("", &archive("older")).data.remove(0);
    let older = version(&done(&store, Identity::Writer, &put(&key).body("older")));
    done(&store, Identity::Writer, &put(&key).body("newer"));

    let digest = sha256(&key);
    let folder = store.older_versions().unwrap();
    let folder = folder.join(&digest[0..2]).join(&digest[2..4]).join(&digest[4..6]).join(&digest);

    assert_eq!(fs::read_to_string(folder.join(older)).unwrap(), "older");
    assert_eq!(fs::read_to_string(store.objects().join(&key)).unwrap(), "newer");
}

fn sha256(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
