//! One bucket of one S3 store, as one identity.
//!
//! Input: settings, keys, bytes. Output: versions, bytes, typed [errors](error). It tries everything once:
//! who may try again, and how often, is decided above it ([`crate::archive`] has a budget a run, [`breaker`]
//! one a store). A key here is always the part below the store's prefix; nothing outside the prefix can be
//! named.
//!
//! # Guarantees
//! - The region is what the settings say, never what a host name seems to say.
//! - Over TLS payloads are not signed (their digest is in the manifest, and SHA-256 costs more than
//!   encryption on processors without instructions for it); over plain HTTP they are.
//! - Checksums of S3's newer kind are neither sent nor asked for: old stores refuse them. What a lock needs
//!   is `Content-MD5`, which all understand.
//! - A request moves enough bytes within each window of [`Patience`], or ends with [`Kind::Timeout`].

pub mod breaker;
mod error;
pub mod greeting;
mod pace;
mod patience;
mod upload;

use std::{fmt, sync::Arc, time::Duration};

use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Credentials as Signer, Region, RequestChecksumCalculation,
        ResponseChecksumValidation, StalledStreamProtectionConfig, http::HttpResponse, retry::RetryConfig,
        timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    primitives::{ByteStream, DateTime, SdkBody},
    types::{
        BucketVersioningStatus, ObjectLockEnabled, ObjectLockMode, ObjectLockRetention,
        ObjectLockRetentionMode,
    },
};
use aws_smithy_http_client::{
    Connector,
    proxy::{ProxyConfig, ProxyError},
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::{
    HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use jiff::Timestamp;
use md5::{Digest, Md5};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

pub use self::{
    error::{Error, Kind, Operation, Reply},
    pace::Pace,
    patience::Patience,
};
use self::{
    patience::{TooSlow, Window},
    upload::{Progress, Upload},
};

/// Code of an error of ours: a listing has more than it was asked for.
pub const TOO_MANY: &str = "TooMany";

/// How often a request's progress is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Which bucket, where, and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the store answers: `https://host[:port]`, or `http://…`.
    pub endpoint: String,
    /// The region's name, as requests are signed for it.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What all keys begin with, without a slash at either end. May be empty.
    pub prefix: String,
    /// Where in a request the bucket is named.
    pub addressing: Addressing,
    /// As whom.
    pub credentials: Credentials,
    /// Whose word on the store's certificate counts.
    pub trust: Trust,
    /// The proxy that leads out: `http://host:port`.
    pub proxy: Option<String>,
    /// How long to wait.
    pub patience: Patience,
    /// Whether what the store answers of versions is heeded.
    pub answered_versions: AnsweredVersions,
}

/// Whether what a store answers of versions is heeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnsweredVersions {
    /// It is.
    #[default]
    Heeded,
    /// It is not: the product has none, and names one all the same when something is put.
    Ignored,
}

impl AnsweredVersions {
    /// Whether it is [`Heeded`](Self::Heeded): what need not be said.
    pub fn are_heeded(&self) -> bool {
        *self == Self::Heeded
    }
}

/// Where in a request the bucket is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// In the path: `https://host/bucket/key`. Every store that is not Amazon's takes it.
    #[default]
    Path,
    /// In the host name: `https://bucket.host/key`.
    VirtualHost,
}

/// An S3 identity.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The access key's id: a name, no secret.
    pub access_key_id: String,
    /// The secret key.
    pub secret_access_key: SecretString,
}

/// Whose word on a certificate counts.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// The authorities that the system trusts.
    #[default]
    System,
    /// These alone: certificates, PEM.
    Only(String),
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not `https://…` or `http://…`.
    #[error("the endpoint {endpoint:?} is not https://host[:port] or http://host[:port]")]
    Endpoint {
        /// What it is instead.
        endpoint: String,
    },
    /// No certificate can be read from the bundle.
    #[error("the certificate bundle has no certificate that can be read")]
    Bundle(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The system trusts nobody.
    #[error("the system has no trusted certificates; name a certificate bundle")]
    NoTrust,
    /// The proxy's address.
    #[error("the proxy's address cannot be used")]
    Proxy(#[source] ProxyError),
    /// The TLS library.
    #[error("failed to prepare TLS")]
    Tls(#[source] aws_smithy_http_client::HttpClientError),
}

/// The name that a store gave to one content of one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(String);

impl Bypass {
    /// The header's value; absent, it is not sent.
    fn said(self) -> Option<bool> {
        match self {
            Self::Never => None,
            Self::IfAllowed => Some(true),
        }
    }
}

impl Version {
    /// A version by its name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a store answered. `null` stands for "none": the next PUT overwrites it.
    fn of_answer(name: Option<&str>) -> Option<Self> {
        name.filter(|name| !name.is_empty() && *name != "null").map(Self::new)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// How an object is put.
#[derive(Clone, Debug, Default)]
pub struct Put {
    /// What to do if the key is there.
    pub on_existing: OnExisting,
    /// Locked until then. The store must have object lock.
    pub retain_until: Option<Timestamp>,
    /// Who may lift that lock.
    pub lock_mode: LockMode,
    /// MD5 of the bytes, if it is known. Needed with a lock; computed then if it is not.
    pub content_md5: Option<[u8; 16]>,
    /// The pace that it keeps.
    pub pace: Option<Arc<Pace>>,
}

/// Who may lift a lock before it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockMode {
    /// Nobody.
    #[default]
    Compliance,
    /// Whoever has the right to bypass it, and says so.
    Governance,
}

/// Whether a request says that it would bypass a lock of [`LockMode::Governance`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bypass {
    /// It does not.
    #[default]
    Never,
    /// It does. Only to find out whether an identity has a right that it must not have.
    IfAllowed,
}

/// What a PUT does if the key is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExisting {
    /// Replace it, or lay a younger version over it.
    #[default]
    Replace,
    /// Fail with [`Kind::PreconditionFailed`]. Only on stores that were seen to heed it.
    Fail,
}

/// What a store says of an object without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Its version, where the store has versions.
    pub version: Option<Version>,
    /// Its size.
    pub size_bytes: u64,
    /// The store's own time of it. For people: a store's clock is never trusted.
    pub modified: Option<Timestamp>,
    /// Until when it is locked, if the identity may know.
    pub retained_until: Option<Timestamp>,
    /// How it is locked, if the identity may know.
    pub lock_mode: Option<LockMode>,
}

/// One line of a listing of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key below the prefix.
    pub key: String,
    /// Its size.
    pub size_bytes: u64,
    /// When it was put, by the store's clock.
    pub modified: Option<Timestamp>,
}

/// One line of a listing of versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedVersion {
    /// Its key below the prefix.
    pub key: String,
    /// Which version.
    pub version: Option<Version>,
    /// What it is.
    pub content: Content,
    /// Where it lies.
    pub place: Place,
    /// When it was put, by the store's clock.
    pub modified: Option<Timestamp>,
}

/// What a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// An object.
    Object {
        /// Its size.
        size_bytes: u64,
    },
    /// A mark that makes the key look absent.
    DeleteMarker,
}

/// Where a version lies among those of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is what a request without a version gets.
    Latest,
    /// A younger one lies over it.
    Covered,
}

/// Whether a bucket keeps versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioning {
    /// It keeps them all.
    Enabled,
    /// It kept them once, and does not now.
    Suspended,
    /// It never did.
    Off,
}

/// What a bucket says of its object lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectLock {
    /// Objects can be locked.
    Enabled {
        /// For how many days each is locked by itself.
        default_days: Option<u32>,
    },
    /// They cannot.
    Off,
}

/// A bucket, as one identity. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    place: Arc<Address>,
}

#[derive(Debug)]
struct Address {
    bucket: String,
    /// Empty, or with a slash at its end.
    prefix: String,
    scheme: Scheme,
    patience: Patience,
    answered_versions: AnsweredVersions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Https,
    Http,
}

impl Bucket {
    /// The bucket that `settings` name. Asks nobody yet.
    pub fn open(settings: &Settings) -> Result<Self, SettingsError> {
        let scheme = scheme(&settings.endpoint)?;
        let signer = Signer::new(
            &settings.credentials.access_key_id,
            settings.credentials.secret_access_key.expose_secret(),
            None,
            None,
            "valv",
        );
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&settings.endpoint)
            .region(Region::new(settings.region.clone()))
            .credentials_provider(signer)
            .force_path_style(settings.addressing == Addressing::Path)
            // A bucket's name is never an address of its own.
            .use_arn_region(false)
            .disable_multi_region_access_points(true)
            .disable_s3_express_session_auth(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(RetryConfig::disabled())
            .disable_clock_skew_correction(true)
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .http_client(http_client(settings)?)
            .build();
        let prefix = settings.prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let place = Address {
            bucket: settings.bucket.clone(),
            prefix,
            scheme,
            patience: settings.patience,
            answered_versions: settings.answered_versions,
        };
        Ok(Self { client: Client::from_conf(config), place: Arc::new(place) })
    }

    /// The bucket's name.
    pub fn name(&self) -> &str {
        &self.place.bucket
    }

    /// Puts `bytes` at `key`, and returns the version that the store made of them, where it has versions.
    ///
    /// # Errors
    /// Whether the object is there is then not known, but for [`Kind::PreconditionFailed`]: the answer may
    /// have been lost.
    pub async fn put(&self, key: &str, bytes: Bytes, how: &Put) -> Result<Option<Version>, Error> {
        let operation = Operation::Put;
        let mut request = self
            .client
            .put_object()
            .bucket(&self.place.bucket)
            .key(self.full(key))
            .content_length(i64::try_from(bytes.len()).unwrap_or(i64::MAX))
            .content_type("application/octet-stream");
        if how.on_existing == OnExisting::Fail {
            request = request.if_none_match("*");
        }
        if let Some(until) = how.retain_until {
            let mode = match how.lock_mode {
                LockMode::Compliance => ObjectLockMode::Compliance,
                LockMode::Governance => ObjectLockMode::Governance,
            };
            request = request
                .object_lock_mode(mode)
                .object_lock_retain_until_date(DateTime::from_secs(until.as_second()));
        }
        let digest = match (how.content_md5, how.retain_until) {
            (Some(digest), _) => Some(digest),
            (None, Some(_)) => Some(self.md5(operation, key, bytes.clone()).await?),
            (None, None) => None,
        };
        if let Some(digest) = digest {
            request = request.content_md5(BASE64_STANDARD.encode(digest));
        }

        let progress = Arc::new(Progress::default());
        let answer = match self.place.scheme {
            Scheme::Https => {
                let body = SdkBody::from_body_1_x(Upload::new(bytes, how.pace.clone(), progress.clone()));
                let request = request.body(ByteStream::new(body)).customize().disable_payload_signing();
                self.attempt(operation, key, Some(&progress), request.send()).await?
            }
            Scheme::Http => {
                if let Some(pace) = &how.pace {
                    tokio::time::sleep(pace.take(bytes.len(), Instant::now())).await;
                }
                self.attempt(operation, key, None, request.body(bytes.into()).send()).await?
            }
        };
        Ok(self.answered(answer.version_id()))
    }

    /// The version that an answer names.
    fn answered(&self, version: Option<&str>) -> Option<Version> {
        match self.place.answered_versions {
            AnsweredVersions::Heeded => Version::of_answer(version),
            AnsweredVersions::Ignored => None,
        }
    }

    async fn md5(&self, operation: Operation, key: &str, bytes: Bytes) -> Result<[u8; 16], Error> {
        tokio::task::spawn_blocking(move || Md5::digest(&bytes).into())
            .await
            .map_err(|error| self.failed(operation, key, Kind::Unavailable, Some(Box::new(error))))
    }

    /// Gets `key`: its `version`, or what is latest.
    pub async fn get(&self, key: &str, version: Option<&Version>) -> Result<Object, Error> {
        let request = self
            .client
            .get_object()
            .bucket(&self.place.bucket)
            .key(self.full(key))
            .set_version_id(version.map(|version| version.0.clone()));
        let answer = self.attempt(Operation::Get, key, None, request.send()).await?;
        Ok(Object {
            meta: Meta {
                version: self.answered(answer.version_id()),
                size_bytes: size(answer.content_length()),
                modified: time(answer.last_modified()),
                retained_until: time(answer.object_lock_retain_until_date()),
                lock_mode: lock_mode(answer.object_lock_mode()),
            },
            body: answer.body,
            key: key.to_owned(),
            bucket: self.clone(),
            window: Window::default(),
        })
    }

    /// Looks at `key`: its `version`, or what is latest.
    pub async fn head(&self, key: &str, version: Option<&Version>) -> Result<Meta, Error> {
        let request = self
            .client
            .head_object()
            .bucket(&self.place.bucket)
            .key(self.full(key))
            .set_version_id(version.map(|version| version.0.clone()));
        let answer = self.attempt(Operation::Head, key, None, request.send()).await?;
        Ok(Meta {
            version: self.answered(answer.version_id()),
            size_bytes: size(answer.content_length()),
            modified: time(answer.last_modified()),
            retained_until: time(answer.object_lock_retain_until_date()),
            lock_mode: lock_mode(answer.object_lock_mode()),
        })
    }

    /// The keys that begin with `prefix`, page by page. A listing proves nothing: it says what to look at.
    pub fn list(&self, prefix: &str) -> Keys {
        Keys { bucket: self.clone(), prefix: prefix.to_owned(), next: Next::First }
    }

    /// The names of the folders in `prefix`, which ends with a slash or is empty. As with any listing: they say what to
    /// look at, and prove nothing.
    ///
    /// # Errors
    /// Code [`TOO_MANY`] if there are more than `limit`.
    pub async fn folders(&self, prefix: &str, limit: usize) -> Result<Vec<String>, Error> {
        let mut folders = Vec::new();
        let mut token = None;
        loop {
            let request = self
                .client
                .list_objects_v2()
                .bucket(&self.place.bucket)
                .prefix(self.full(prefix))
                .delimiter("/")
                .set_continuation_token(token);
            let answer = self.attempt(Operation::List, prefix, None, request.send()).await?;
            let names = answer.common_prefixes().iter().filter_map(|folder| {
                let name = self.below(folder.prefix())?;
                Some(name.strip_prefix(prefix)?.strip_suffix('/')?.to_owned())
            });
            folders.extend(names);
            if folders.len() > limit {
                let kind = Kind::Other { status: 200, code: TOO_MANY.to_owned() };
                return Err(self.failed(Operation::List, prefix, kind, None));
            }
            token = match (answer.is_truncated(), answer.next_continuation_token) {
                (Some(true), Some(token)) => Some(token),
                _ => return Ok(folders),
            };
        }
    }

    /// The versions of the keys that begin with `prefix`, page by page.
    pub fn list_versions(&self, prefix: &str) -> Versions {
        Versions { bucket: self.clone(), prefix: prefix.to_owned(), next: Next::First }
    }

    /// Deletes one version of `key` for ever; without a version, lays a delete marker over it where the store
    /// has versions, and deletes it where it has none.
    pub async fn delete(&self, key: &str, version: Option<&Version>) -> Result<(), Error> {
        self.delete_with(key, version, Bypass::Never).await
    }

    /// [`delete`](Self::delete), and says whether it would bypass a lock.
    pub async fn delete_with(
        &self,
        key: &str,
        version: Option<&Version>,
        bypass: Bypass,
    ) -> Result<(), Error> {
        let request = self
            .client
            .delete_object()
            .bucket(&self.place.bucket)
            .key(self.full(key))
            .set_bypass_governance_retention(bypass.said())
            .set_version_id(version.map(|version| version.0.clone()));
        self.attempt(Operation::Delete, key, None, request.send()).await?;
        Ok(())
    }

    /// Locks a version of `key` (compliance mode) until `until`. A store lets it be made longer, never
    /// shorter.
    pub async fn retain(&self, key: &str, version: Option<&Version>, until: Timestamp) -> Result<(), Error> {
        self.retain_with(key, version, until, LockMode::Compliance, Bypass::Never).await
    }

    /// [`retain`](Self::retain) in any mode, and says whether it would bypass the lock that is there.
    pub async fn retain_with(
        &self,
        key: &str,
        version: Option<&Version>,
        until: Timestamp,
        mode: LockMode,
        bypass: Bypass,
    ) -> Result<(), Error> {
        let mode = match mode {
            LockMode::Compliance => ObjectLockRetentionMode::Compliance,
            LockMode::Governance => ObjectLockRetentionMode::Governance,
        };
        let retention = ObjectLockRetention::builder()
            .mode(mode)
            .retain_until_date(DateTime::from_secs(until.as_second()))
            .build();
        let request = self
            .client
            .put_object_retention()
            .bucket(&self.place.bucket)
            .key(self.full(key))
            .set_bypass_governance_retention(bypass.said())
            .set_version_id(version.map(|version| version.0.clone()))
            .retention(retention);
        self.attempt(Operation::Retain, key, None, request.send()).await?;
        Ok(())
    }

    /// Until when a version of `key` is locked, asked for itself: versitygw's HEAD tells it of the latest version alone.
    ///
    /// `None` if it is not locked, or the store or its rights do not tell.
    pub async fn retained_until(&self, key: &str, version: &Version) -> Result<Option<Timestamp>, Error> {
        let request = self
            .client
            .get_object_retention()
            .bucket(&self.place.bucket)
            .key(self.full(key))
            .version_id(&version.0);
        let asked = async {
            match request.send().await {
                Ok(answer) => Ok(time(answer.retention().and_then(ObjectLockRetention::retain_until_date))),
                // versitygw gives the answer's root a name that the SDK does not read.
                Err(error) => match error.raw_response().filter(|answer| answer.status().is_success()) {
                    Some(answer) => Ok(answer.body().bytes().and_then(date_within)),
                    None => Err(error),
                },
            }
        };
        match self.attempt(Operation::Retention, key, None, asked).await {
            Err(Error { kind: Kind::NotFound | Kind::Denied | Kind::Other { .. }, .. }) => Ok(None),
            answered => answered,
        }
    }

    /// Whether the bucket keeps versions.
    pub async fn versioning(&self) -> Result<Versioning, Error> {
        let request = self.client.get_bucket_versioning().bucket(&self.place.bucket);
        let answer = self.attempt(Operation::Versioning, "", None, request.send()).await?;
        Ok(match answer.status() {
            Some(BucketVersioningStatus::Enabled) => Versioning::Enabled,
            Some(BucketVersioningStatus::Suspended) => Versioning::Suspended,
            _ => Versioning::Off,
        })
    }

    /// What the bucket says of its object lock. That it says so is no proof that it keeps its word.
    pub async fn object_lock(&self) -> Result<ObjectLock, Error> {
        let request = self.client.get_object_lock_configuration().bucket(&self.place.bucket);
        let answer = match self.attempt(Operation::ObjectLock, "", None, request.send()).await {
            Ok(answer) => answer,
            Err(Error { kind: Kind::NotFound, .. }) => return Ok(ObjectLock::Off),
            Err(Error { kind: Kind::Other { code, .. }, .. }) if code.starts_with("ObjectLockConf") => {
                return Ok(ObjectLock::Off);
            }
            Err(error) => return Err(error),
        };
        let configuration = answer.object_lock_configuration();
        let enabled = configuration.and_then(|configuration| configuration.object_lock_enabled());
        if enabled != Some(&ObjectLockEnabled::Enabled) {
            return Ok(ObjectLock::Off);
        }
        let default = configuration
            .and_then(|configuration| configuration.rule())
            .and_then(|rule| rule.default_retention());
        let days = default.and_then(|default| {
            let years = default.years().map(|years| years.saturating_mul(365));
            default.days().or(years).and_then(|days| u32::try_from(days).ok())
        });
        Ok(ObjectLock::Enabled { default_days: days })
    }

    /// The key as the store has it.
    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.place.prefix)
    }

    /// The key below the prefix. What the store lists beside it is not ours.
    fn below(&self, full: Option<&str>) -> Option<String> {
        full.and_then(|full| full.strip_prefix(&self.place.prefix)).map(str::to_owned)
    }

    /// Awaits `request` for as long as it makes progress.
    async fn attempt<T, E>(
        &self,
        operation: Operation,
        key: &str,
        progress: Option<&Progress>,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Error>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let patience = &self.place.patience;
        let start = Instant::now();
        let mut window = Window::default();
        let (mut waited, mut moved_bytes) = (Duration::ZERO, 0);
        tokio::pin!(request);
        loop {
            match timeout(window.left(patience).min(LOOK), &mut request).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => {
                    let (kind, cause) = error::classify(error);
                    return Err(self.failed(operation, key, kind, cause));
                }
                Err(_) => {
                    // The time that our own pace took is not the store's.
                    let held_back = progress.map(Progress::held_back).unwrap_or_default();
                    let waited_now = start.elapsed().saturating_sub(held_back).max(waited);
                    let moved_now = progress.map(Progress::moved_bytes).unwrap_or_default();
                    window
                        .note(patience, waited_now - waited, moved_now - moved_bytes)
                        .map_err(|slow| self.too_slow(operation, key, slow))?;
                    (waited, moved_bytes) = (waited_now, moved_now);
                }
            }
        }
    }

    fn too_slow(&self, operation: Operation, key: &str, slow: TooSlow) -> Error {
        self.failed(operation, key, Kind::Timeout, Some(Box::new(slow)))
    }

    fn failed(
        &self,
        operation: Operation,
        key: &str,
        kind: Kind,
        cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error { operation, bucket: self.place.bucket.clone(), key: key.to_owned(), kind, cause }
    }
}

/// An object whose content is on its way.
#[derive(Debug)]
pub struct Object {
    /// What it is.
    pub meta: Meta,
    body: ByteStream,
    key: String,
    bucket: Bucket,
    window: Window,
}

impl Object {
    /// The next bytes of it; `None` after the last.
    ///
    /// # Errors
    /// [`Kind::Timeout`] if too few come, [`Kind::Unavailable`] if the connection breaks, also when fewer
    /// came than were announced.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let patience = self.bucket.place.patience;
        loop {
            let start = Instant::now();
            let next = timeout(self.window.left(&patience), self.body.next()).await;
            let moved_bytes = match &next {
                Ok(Some(Ok(bytes))) => bytes.len() as u64,
                _ => 0,
            };
            let noted = self.window.note(&patience, start.elapsed(), moved_bytes);
            match next {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(bytes))) => {
                    noted.map_err(|slow| self.bucket.too_slow(Operation::Get, &self.key, slow))?;
                    return Ok(Some(bytes));
                }
                Ok(Some(Err(error))) => {
                    let kind = error::of_connection(Some(&error));
                    return Err(self.bucket.failed(Operation::Get, &self.key, kind, Some(Box::new(error))));
                }
                Err(_) => noted.map_err(|slow| self.bucket.too_slow(Operation::Get, &self.key, slow))?,
            }
        }
    }

    /// All of it, if it is at most `limit_bytes`.
    ///
    /// # Errors
    /// Code `TooLarge` if it is more; those of [`chunk`](Self::chunk).
    pub async fn whole(mut self, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            whole.extend_from_slice(&chunk);
            if whole.len() as u64 > limit_bytes {
                let kind = Kind::Other { status: 200, code: "TooLarge".to_owned() };
                return Err(self.bucket.failed(Operation::Get, &self.key, kind, None));
            }
        }
        Ok(whole)
    }
}

/// Where a listing goes on.
#[derive(Clone, Debug)]
enum Next<T> {
    First,
    After(T),
    Nothing,
}

/// A listing of keys.
#[derive(Debug)]
pub struct Keys {
    bucket: Bucket,
    prefix: String,
    next: Next<String>,
}

impl Keys {
    /// The next page, at most 1000 keys; `None` after the last.
    pub async fn page(&mut self) -> Result<Option<Vec<Listed>>, Error> {
        let token = match &self.next {
            Next::First => None,
            Next::After(token) => Some(token.clone()),
            Next::Nothing => return Ok(None),
        };
        let bucket = &self.bucket;
        let request = bucket
            .client
            .list_objects_v2()
            .bucket(&bucket.place.bucket)
            .prefix(bucket.full(&self.prefix))
            .set_continuation_token(token);
        let answer = bucket.attempt(Operation::List, &self.prefix, None, request.send()).await?;
        let listed = answer.contents().iter().filter_map(|object| {
            Some(Listed {
                key: bucket.below(object.key())?,
                size_bytes: size(object.size()),
                modified: time(object.last_modified()),
            })
        });
        let listed = listed.collect();
        self.next = match (answer.is_truncated(), answer.next_continuation_token) {
            (Some(true), Some(token)) => Next::After(token),
            _ => Next::Nothing,
        };
        Ok(Some(listed))
    }
}

/// A listing of versions.
#[derive(Debug)]
pub struct Versions {
    bucket: Bucket,
    prefix: String,
    next: Next<(Option<String>, Option<String>)>,
}

impl Versions {
    /// The next page, at most 1000 versions; `None` after the last.
    pub async fn page(&mut self) -> Result<Option<Vec<ListedVersion>>, Error> {
        let (key, version) = match &self.next {
            Next::First => (None, None),
            Next::After(marker) => marker.clone(),
            Next::Nothing => return Ok(None),
        };
        let bucket = &self.bucket;
        let request = bucket
            .client
            .list_object_versions()
            .bucket(&bucket.place.bucket)
            .prefix(bucket.full(&self.prefix))
            .set_key_marker(key)
            .set_version_id_marker(version);
        let answer = bucket.attempt(Operation::ListVersions, &self.prefix, None, request.send()).await?;
        let place = |is_latest| if is_latest == Some(true) { Place::Latest } else { Place::Covered };
        let objects = answer.versions().iter().filter_map(|object| {
            Some(ListedVersion {
                key: bucket.below(object.key())?,
                version: Version::of_answer(object.version_id()),
                content: Content::Object { size_bytes: size(object.size()) },
                place: place(object.is_latest()),
                modified: time(object.last_modified()),
            })
        });
        let markers = answer.delete_markers().iter().filter_map(|marker| {
            Some(ListedVersion {
                key: bucket.below(marker.key())?,
                version: Version::of_answer(marker.version_id()),
                content: Content::DeleteMarker,
                place: place(marker.is_latest()),
                modified: time(marker.last_modified()),
            })
        });
        let listed = objects.chain(markers).collect();
        self.next = if answer.is_truncated() == Some(true) && answer.next_key_marker.is_some() {
            Next::After((answer.next_key_marker, answer.next_version_id_marker))
        } else {
            Next::Nothing
        };
        Ok(Some(listed))
    }
}

fn scheme(endpoint: &str) -> Result<Scheme, SettingsError> {
    let schemes = [("https://", Scheme::Https), ("http://", Scheme::Http)];
    let found = schemes.into_iter().find(|(start, _)| {
        endpoint.strip_prefix(start).is_some_and(|host| !host.trim_end_matches('/').is_empty())
    });
    found.map(|(_, scheme)| scheme).ok_or_else(|| SettingsError::Endpoint { endpoint: endpoint.to_owned() })
}

/// One pool of connections for all that a bucket is asked.
fn http_client(settings: &Settings) -> Result<SharedHttpClient, SettingsError> {
    let tls = TlsContext::builder()
        .with_trust_store(trust_store(&settings.trust)?)
        .build()
        .map_err(SettingsError::Tls)?;
    let proxy = match &settings.proxy {
        Some(proxy) => ProxyConfig::all(proxy.as_str()).map_err(SettingsError::Proxy)?,
        None => ProxyConfig::disabled(),
    };
    let connector = Connector::builder()
        .connector_settings(
            HttpConnectorSettings::builder().connect_timeout(settings.patience.connect).build(),
        )
        .proxy_config(proxy)
        .tls_provider(Provider::rustls(CryptoMode::Ring))
        .tls_context(tls)
        .build();
    let connector = SharedHttpConnector::new(connector);
    Ok(http_client_fn(move |_, _| connector.clone()))
}

/// Checks what the SDK would panic over.
fn trust_store(trust: &Trust) -> Result<TrustStore, SettingsError> {
    match trust {
        Trust::System => {
            let usable = RootCertStore::empty()
                .add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if usable.0 == 0 { Err(SettingsError::NoTrust) } else { Ok(TrustStore::default()) }
        }
        Trust::Only(bundle) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
                let certificate =
                    certificate.map_err(|error| SettingsError::Bundle(Some(Box::new(error))))?;
                roots.add(certificate).map_err(|error| SettingsError::Bundle(Some(Box::new(error))))?;
            }
            if roots.is_empty() {
                return Err(SettingsError::Bundle(None));
            }
            Ok(TrustStore::empty().with_pem_certificate(bundle.as_bytes()))
        }
    }
}

fn size(answer: Option<i64>) -> u64 {
    answer.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default()
}

fn lock_mode(answer: Option<&ObjectLockMode>) -> Option<LockMode> {
    match answer {
        Some(ObjectLockMode::Compliance) => Some(LockMode::Compliance),
        Some(ObjectLockMode::Governance) => Some(LockMode::Governance),
        _ => None,
    }
}

fn time(answer: Option<&DateTime>) -> Option<Timestamp> {
    answer.and_then(|time| Timestamp::from_second(time.secs()).ok())
}

/// The date of an `ObjectLockRetention`, whatever its root is called.
fn date_within(body: &[u8]) -> Option<Timestamp> {
    let text = str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("<RetainUntilDate>")?;
    let (date, _) = rest.split_once('<')?;
    date.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: &str, trust: Trust) -> Settings {
        Settings {
            endpoint: endpoint.into(),
            region: "fi-hel2".into(),
            bucket: "valv".into(),
            prefix: "/backups/".into(),
            addressing: Addressing::Path,
            credentials: Credentials {
                access_key_id: "writer".into(),
                secret_access_key: "not to be seen".into(),
            },
            trust,
            proxy: None,
            patience: Patience::default(),
            answered_versions: AnsweredVersions::default(),
        }
    }

    #[test]
    fn neither_settings_nor_a_bucket_print_the_secret_key() {
        let settings = settings("https://store.example", trusted());

        let text = format!("{settings:?} {:?}", Bucket::open(&settings).unwrap());

        assert!(text.contains("writer"));
        assert!(!text.contains("not to be seen"));
    }

    #[test]
    fn a_bundle_without_certificates_is_an_error_and_no_panic() {
        for bundle in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let opened = Bucket::open(&settings("https://store.example", Trust::Only(bundle.into())));

            assert!(matches!(opened, Err(SettingsError::Bundle(_))), "{bundle:?}");
        }
    }

    #[test]
    fn an_endpoint_without_a_scheme_is_refused() {
        for endpoint in ["store.example", "ftp://store.example", "https://", ""] {
            assert!(matches!(scheme(endpoint), Err(SettingsError::Endpoint { .. })), "{endpoint}");
        }
    }

    #[test]
    fn keys_are_below_the_prefix_and_what_is_beside_it_is_not_ours() {
        let bucket = Bucket::open(&settings("http://127.0.0.1:1", trusted())).unwrap();

        assert_eq!(bucket.full("v1/ada"), "backups/v1/ada");
        assert_eq!(bucket.below(Some("backups/v1/ada")), Some("v1/ada".into()));
        assert_eq!(bucket.below(Some("backups2/v1/ada")), None);
    }

    fn trusted() -> Trust {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["store.example".to_owned()]).unwrap();
        Trust::Only(params.self_signed(&key).unwrap().pem())
    }

    #[tokio::test]
    async fn a_store_that_nobody_listens_for_is_unavailable() {
        let bucket = Bucket::open(&settings("https://127.0.0.1:1", trusted())).unwrap();

        let error = bucket.get("v1/ada", None).await.unwrap_err();

        assert_eq!(error.kind, Kind::Unavailable, "{error:?}");
        assert!(error.is_of_the_store());
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_answers_nothing_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let bucket = Bucket::open(&settings(&endpoint, trusted())).unwrap();

        let error = bucket.get("v1/ada", None).await.unwrap_err();

        assert_eq!(error.kind, Kind::Timeout, "{error:?}");
    }
}
