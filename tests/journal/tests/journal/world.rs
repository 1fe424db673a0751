//! What a test needs around the program: a database, a volume, a release, and somebody who signs in.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::{Certificate, Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::postgres::Postgres;
use crate::program::{Ended, Environment, PATIENCE, Serving, run};

pub const ANNA: &str = "SE2321000016-1003";
pub const PASSWORD: &str = "mycket-hemligt";
/// Published by Skatteverket.
pub const PERSONNUMMER: &str = "189001019802";

/// A database and a volume.
pub struct World {
    pub postgres: Postgres,
    pub folder: TempDir,
}

impl World {
    /// With an empty database.
    pub async fn empty() -> Self {
        Self::around(Postgres::start().await)
    }

    /// With the schema of `release`.
    pub async fn of_release(release: u32) -> Self {
        let world = Self::empty().await;
        world.migrate(release).json();
        world
    }

    pub fn around(postgres: Postgres) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("attachments")).unwrap();
        Self { postgres, folder }
    }

    pub fn attachments(&self) -> PathBuf {
        self.folder.path().join("attachments")
    }

    /// Runs `journal migrate` of `release`, as the schema's owner.
    pub fn migrate(&self, release: u32) -> Ended {
        run(&["migrate"], &self.migration(&shipped(release)))
    }

    /// The settings of `journal migrate`.
    pub fn migration(&self, release: &Path) -> Environment {
        Environment::from([
            ("DATABASE_URL", self.postgres.url("owner")),
            ("JOURNAL_RELEASE_DIR", release.display().to_string()),
            ("JOURNAL_CONNECT_SECONDS", String::from("5")),
        ])
    }

    /// The settings of `journal serve`.
    pub fn service(&self, release: u32) -> Environment {
        Environment::from([
            ("DATABASE_URL", self.postgres.url("app")),
            ("JOURNAL_RELEASE_DIR", shipped(release).display().to_string()),
            ("JOURNAL_ATTACHMENTS_DIR", self.attachments().display().to_string()),
            ("JOURNAL_ACCOUNTS", format!("{ANNA}:{PASSWORD}")),
            ("JOURNAL_LISTEN", String::from("127.0.0.1:0")),
            ("JOURNAL_DRAIN_SECONDS", String::from("0")),
        ])
    }

    /// Serves `release` over plain HTTP.
    pub fn serve(&self, release: u32) -> Site {
        Site::over_http(Serving::start(&self.service(release)))
    }
}

/// The release as it is shipped.
pub fn shipped(release: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("releases/{release}"))
}

/// A journal that is served, and a client who is Anna.
pub struct Site {
    pub serving: Serving,
    pub client: Client,
    base: String,
}

impl Site {
    pub fn over_http(serving: Serving) -> Self {
        let base = format!("http://127.0.0.1:{}", serving.port);
        install_cryptography();
        Self { serving, client: Client::builder().no_proxy().build().unwrap(), base }
    }

    pub fn over_https(serving: Serving, authority: &str) -> Self {
        let base = format!("https://localhost:{}", serving.port);
        let client = https_client(authority);
        Self { serving, client, base }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A request of nobody.
    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// A request of Anna.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).basic_auth(ANNA, Some(PASSWORD))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    /// Creates the patient whose number is [`PERSONNUMMER`].
    pub async fn create_patient(&self) -> i64 {
        let new = json!({ "personnummer": PERSONNUMMER, "name": "Tova Testsson" });
        let (status, patient) = self.post("/api/patients", new).await;
        assert_eq!(status, StatusCode::CREATED, "{patient}");
        patient["id"].as_i64().unwrap()
    }
}

/// A client that trusts `authority` alone.
pub fn https_client(authority: &str) -> Client {
    install_cryptography();
    let authority = Certificate::from_pem(authority.as_bytes()).unwrap();
    Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap()
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Status and JSON, if it is JSON.
pub async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
}

fn install_cryptography() {
    // Fails where another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
