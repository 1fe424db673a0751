//! An S3 server in memory, for unit tests of what a real one cannot be made to show: what is asked of it, how often, and
//! what happens in between. It has versions and locks, keeps whatever clock a test wants, and refuses nobody but a lock.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{Method, Response, StatusCode},
};
use jiff::{Timestamp, fmt::rfc2822};
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;

use crate::{
    io::bucket::{Bucket, Credentials},
    store::check::{Store, check, tests::store},
};

/// The store, and what is known of it. Cheap to clone.
#[derive(Clone)]
pub struct FakeStore {
    inner: Arc<Mutex<Inner>>,
    endpoint: String,
}

struct Inner {
    objects: Vec<Stored>,
    asked: Vec<String>,
    made: u64,
    locks: Locks,
    now: fn() -> Timestamp,
}

/// What it does when a lock is to be longer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Locks {
    /// It makes it longer.
    Heeded,
    /// It says so only.
    Unheeded,
}

/// One version of an object.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its key, with the store's prefix.
    pub key: String,
    /// Which version.
    pub version: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// When it was put.
    pub put: Timestamp,
    /// Until when it is locked.
    pub locked_until: Option<Timestamp>,
}

impl FakeStore {
    /// A server of its own, whose clock is `now`.
    pub async fn start(now: fn() -> Timestamp) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let inner = Inner { objects: vec![], asked: vec![], made: 0, locks: Locks::Heeded, now };
        let this = Self { inner: Arc::new(Mutex::new(inner)), endpoint };
        let serving = this.clone();
        let router = Router::new().fallback(move |request: Request| serving.clone().answer(request));
        tokio::spawn(async move { axum::serve(listener, router).await });
        this
    }

    /// The `BackupStore` of that `name` that is this one, proven to be what it should.
    pub fn store(&self, name: &str) -> Store {
        let mut object = store().object.as_ref().clone();
        object.metadata.name = Some(name.to_owned());
        object.spec.endpoint.clone_from(&self.endpoint);
        object.status = serde_json::from_value(serde_json::json!({
            "observedGeneration": 3, "conditions": [{ "type": "Ready", "status": "True", "reason": "AsAsked",
                "message": "", "lastTransitionTime": "2026-11-22T01:00:00Z" }],
        }))
        .unwrap();
        check(Arc::new(object))
    }

    /// It, as its owner asks it.
    pub fn bucket(&self) -> Bucket {
        let credentials = Credentials { access_key_id: "o".into(), secret_access_key: "s".to_owned().into() };
        Bucket::open(&self.store("helsinki").settings(credentials)).unwrap()
    }

    /// How often it was asked since it was asked that last: method and path each.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().asked)
    }

    /// From now on it says that it makes locks longer, and does not.
    pub fn heed_no_locks(&self) {
        self.inner().locks = Locks::Unheeded;
    }

    /// Changes all that lies there.
    pub fn change(&self, change: impl FnMut(&mut Stored)) {
        self.inner().objects.iter_mut().for_each(change);
    }

    /// The keys that have an object, below the prefix.
    pub fn keys(&self) -> BTreeSet<String> {
        let prefix = self.store("helsinki").prefix.clone().unwrap_or_default();
        let keys = self.inner().objects.iter().map(|stored| stored.key.clone()).collect::<Vec<_>>();
        keys.iter().filter_map(|key| key.strip_prefix(&format!("{prefix}/"))).map(str::to_owned).collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self, request: Request) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        let path = parts.uri.path().trim_start_matches('/').to_owned();
        let query: Vec<(String, String)> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.to_owned(), decoded(value)))
            .collect();
        let asked = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let key = path.split_once('/').map(|(_, key)| decoded(key)).unwrap_or_default();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let mut inner = self.inner();
        inner.asked.push(format!("{} {path}?{}", parts.method, parts.uri.query().unwrap_or_default()));
        let date = rfc2822::to_string(&(inner.now)().to_zoned(jiff::tz::TimeZone::UTC)).unwrap();
        let mut response = match (&parts.method, key.is_empty()) {
            (&Method::GET, true) => inner.list(asked("prefix").unwrap_or_default(), asked("delimiter")),
            (&Method::GET | &Method::HEAD, false) => inner.get(&key, asked("versionId"), &parts.method),
            (&Method::PUT, false) if asked("retention").is_some() => {
                inner.retain(&key, asked("versionId"), &String::from_utf8(body).unwrap())
            }
            (&Method::PUT, false) => {
                let until = header("x-amz-object-lock-retain-until-date");
                inner.put(key, body, until.and_then(|until| until.parse().ok()))
            }
            (&Method::DELETE, false) => inner.delete(&key, asked("versionId").unwrap_or_default()),
            _ => status(StatusCode::NOT_IMPLEMENTED),
        };
        response.headers_mut().insert("date", date.parse().unwrap());
        response
    }
}

impl Inner {
    fn put(&mut self, key: String, bytes: Vec<u8>, locked_until: Option<Timestamp>) -> Response<Body> {
        self.made += 1;
        let version = format!("v{}", self.made);
        let put = (self.now)();
        self.objects.push(Stored { key, version: version.clone(), bytes, put, locked_until });
        Response::builder().header("x-amz-version-id", version).body(Body::empty()).unwrap()
    }

    /// Locks a version until what stands in `body`.
    fn retain(&mut self, key: &str, version: Option<&str>, body: &str) -> Response<Body> {
        let until = body.split_once("<RetainUntilDate>").and_then(|(_, rest)| rest.split_once('<'));
        let until = until.map(|(until, _)| until.parse().unwrap());
        let found = self
            .objects
            .iter_mut()
            .rev()
            .find(|stored| stored.key == key && version.is_none_or(|version| stored.version == version));
        let Some(found) = found else { return status(StatusCode::NOT_FOUND) };
        if self.locks == Locks::Heeded {
            found.locked_until = found.locked_until.max(until);
        }
        status(StatusCode::OK)
    }

    fn get(&self, key: &str, version: Option<&str>, method: &Method) -> Response<Body> {
        let found = self
            .objects
            .iter()
            .rev()
            .find(|stored| stored.key == key && version.is_none_or(|version| stored.version == version));
        let Some(found) = found else { return status(StatusCode::NOT_FOUND) };
        let mut response = Response::builder()
            .header("x-amz-version-id", &found.version)
            .header("content-length", found.bytes.len());
        if let Some(until) = found.locked_until {
            response = response.header("x-amz-object-lock-retain-until-date", until.to_string());
        }
        let body = if method == Method::HEAD { Body::empty() } else { Body::from(found.bytes.clone()) };
        response.body(body).unwrap()
    }

    fn delete(&mut self, key: &str, version: &str) -> Response<Body> {
        let now = (self.now)();
        let is_it = |stored: &Stored| stored.key == key && stored.version == version;
        let locked = |stored: &Stored| stored.locked_until.is_some_and(|until| until > now);
        if self.objects.iter().any(|stored| is_it(stored) && locked(stored)) {
            let body = "<Error><Code>AccessDenied</Code><Message>protected by object lock</Message></Error>";
            return Response::builder().status(StatusCode::FORBIDDEN).body(Body::from(body)).unwrap();
        }
        self.objects.retain(|stored| !is_it(stored));
        status(StatusCode::NO_CONTENT)
    }

    /// One page of all: versions, the latest of each key first; or folders.
    fn list(&self, prefix: &str, delimiter: Option<&str>) -> Response<Body> {
        let mut found: Vec<&Stored> =
            self.objects.iter().rev().filter(|stored| stored.key.starts_with(prefix)).collect();
        found.sort_by(|one, other| one.key.cmp(&other.key));
        let mut text = String::new();
        if delimiter.is_some() {
            let folder = |stored: &&Stored| {
                let (name, _) = stored.key.strip_prefix(prefix)?.split_once('/')?;
                Some(format!("{prefix}{name}/"))
            };
            for folder in found.iter().filter_map(folder).collect::<BTreeSet<_>>() {
                write!(text, "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>").unwrap();
            }
            let body = format!("<ListBucketResult><IsTruncated>false</IsTruncated>{text}</ListBucketResult>");
            return Response::new(Body::from(body));
        }
        let mut before = "";
        for Stored { key, version, bytes, put, .. } in found {
            let latest = before != key;
            before = key;
            write!(
                text,
                "<Version><Key>{key}</Key><VersionId>{version}</VersionId><IsLatest>{latest}</IsLatest><LastModified>{put}</LastModified><Size>{}</Size></Version>",
                bytes.len(),
            )
            .unwrap();
        }
        let body = format!("<ListVersionsResult><IsTruncated>false</IsTruncated>{text}</ListVersionsResult>");
        Response::new(Body::from(body))
    }
}

fn status(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(Body::empty()).unwrap()
}

/// A text, as it was before it was written into an address.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().unwrap().into_owned()
}
