//! A user of a tenant's journal: signs in, writes notes, reads them, over TLS that is verified.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Certificate, Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::eventually::{Seen, eventually};
use crate::kind;
use crate::reach::Reach;
use crate::tenant::{STEP, Tenant};

/// Who signs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// An HSA-id.
    pub user: String,
    /// The password.
    pub password: String,
}

impl Default for Account {
    /// The one in the manifests of the tests.
    fn default() -> Self {
        Self { user: "SE2321000016-1003".to_owned(), password: "e2e".to_owned() }
    }
}

/// A test personnummer that Skatteverket publishes.
const PERSONNUMMER: &str = "18900101-9802";

/// Longer than the journal itself waits for its database.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// A node notices within this time that a pod serves no more.
const SETTLED: Duration = Duration::from_secs(10);

/// Somebody who uses a journal.
#[derive(Clone)]
pub struct JournalClient {
    site: Site,
    client: Client,
    authorities: String,
    keeping: Keeping,
}

/// Where she comes, and as whom.
#[derive(Clone)]
struct Site {
    tenant: Tenant,
    account: Account,
    reach: Reach,
}

/// What becomes of a connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// It is used again, as by a browser.
    Connections,
    /// It is closed, as by a script.
    Nothing,
}

impl JournalClient {
    /// Waits until the journal of `tenant` can be reached, and trusts what the tenant's ConfigMap names.
    pub async fn connect(tenant: &Tenant) -> Result<Self> {
        Self::signed_in(tenant, Account::default()).await
    }

    /// The same, with an account of its own.
    pub async fn signed_in(tenant: &Tenant, account: Account) -> Result<Self> {
        let reach = Reach::find(tenant).await?;
        let authorities = authorities(tenant).await?;
        Site { tenant: tenant.clone(), account, reach }.visited(authorities, Keeping::Connections)
    }

    /// The same user, with connections of another kind.
    pub fn keeping(&self, keeping: Keeping) -> Result<Self> {
        self.site.clone().visited(self.authorities.clone(), keeping)
    }

    /// The same user, who trusts these authorities alone.
    pub fn trusting_only(&self, authorities: &str) -> Result<Self> {
        self.site.clone().visited(authorities.to_owned(), self.keeping)
    }

    /// Trusts what the tenant's ConfigMap names now.
    pub async fn read_authorities_again(&mut self) -> Result<()> {
        let authorities = authorities(&self.site.tenant).await?;
        if authorities != self.authorities {
            *self = self.trusting_only(&authorities)?;
        }
        Ok(())
    }

    /// The address behind the host name.
    pub fn address(&self) -> SocketAddr {
        self.site.reach.address
    }

    /// Whether requests come by a way that ends with the pod it leads to: then some fail that no user would see.
    pub fn is_forwarded(&self) -> bool {
        self.site.reach.is_forwarded()
    }

    /// Writes a note, and returns its number.
    pub async fn write(&self, text: &str) -> Result<i64> {
        let patient = self.patient().await?;
        self.write_of(patient, text).await
    }

    /// Writes a note of a patient, and returns its number.
    pub async fn write_of(&self, patient: i64, text: &str) -> Result<i64> {
        let path = format!("/api/patients/{patient}/notes");
        let answer = self.request(Method::POST, &path).json(&json!({ "text": text }));
        let note = expect(answer, StatusCode::CREATED).await?;
        note["id"].as_i64().context("the journal gave the note no number")
    }

    /// The texts of all notes, newest first.
    pub async fn read(&self) -> Result<Vec<String>> {
        let patient = self.patient().await?;
        let notes =
            expect(self.request(Method::GET, &format!("/api/patients/{patient}/notes")), StatusCode::OK);
        let notes = notes.await?;
        let texts = notes.as_array().context("the notes are no list")?.iter();
        Ok(texts.filter_map(|note| note["text"].as_str().map(str::to_owned)).collect())
    }

    /// Attaches a file to the patient, and returns its number.
    pub async fn attach(&self, name: &str, bytes: &[u8]) -> Result<i64> {
        let patient = self.patient().await?;
        let path = format!("/api/patients/{patient}/attachments?name={name}");
        let request = self.request(Method::POST, &path).body(bytes.to_vec());
        let attachment = expect(request, StatusCode::CREATED).await?;
        attachment["id"].as_i64().context("the journal gave the attachment no number")
    }

    /// The bytes of an attachment.
    pub async fn attachment(&self, number: i64) -> Result<Vec<u8>> {
        let answer = self.request(Method::GET, &format!("/api/attachments/{number}")).send().await?;
        Ok(answer.error_for_status()?.bytes().await?.to_vec())
    }

    /// Waits until a note can be written. Returns its number.
    pub async fn writes_again(&self, text: &str) -> Result<i64> {
        eventually(format!("the journal of {} takes a note", self.site.tenant.name), STEP, async || {
            Ok(Seen::Yes(self.write(text).await?))
        })
        .await
    }

    /// The version that answers: `2.0.0`.
    pub async fn version(&self) -> Result<String> {
        let answer = expect(self.request(Method::GET, "/version"), StatusCode::OK).await?;
        Ok(answer["version"].as_str().context("no version")?.to_owned())
    }

    /// Waits until this version answers to new connections: one that stops still answers to those it has.
    pub async fn is_version(&self, version: &str) -> Result<()> {
        let anew = self.keeping(Keeping::Nothing)?;
        let what = format!("the journal of {} is of version {version}", self.site.tenant.name);
        eventually(what, SETTLED, async || {
            let answered = anew.version().await?;
            Ok(Seen::when((answered == version).then_some(()), answered))
        })
        .await
    }

    /// A page, as it is served to nobody in particular.
    pub async fn page(&self, path: &str) -> Result<String> {
        let answer = self.request(Method::GET, path).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// The one patient, made if there is none.
    pub async fn patient(&self) -> Result<i64> {
        let asked = json!({ "personnummer": PERSONNUMMER });
        let found = self.request(Method::POST, "/api/patients/find").json(&asked).send().await?;
        let patient: Value = match found.status() {
            StatusCode::OK => found.json().await?,
            StatusCode::NOT_FOUND => {
                let new = json!({ "personnummer": PERSONNUMMER, "name": "Tova Testsson" });
                expect(self.request(Method::POST, "/api/patients").json(&new), StatusCode::CREATED).await?
            }
            other => bail!("the journal answered {other}: {}", found.text().await?),
        };
        patient["id"].as_i64().context("the patient has no number")
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("https://{}:{}{path}", self.site.tenant.host(), self.address().port());
        let Account { user, password } = &self.site.account;
        self.client.request(method, url).basic_auth(user, Some(password))
    }
}

impl Site {
    fn visited(self, authorities: String, keeping: Keeping) -> Result<JournalClient> {
        let certificates = Certificate::from_pem_bundle(authorities.as_bytes())?;
        let mut client = Client::builder()
            .no_proxy()
            .http1_only()
            .timeout(REQUEST_TIMEOUT)
            .resolve(&self.tenant.host(), self.reach.address)
            .tls_certs_only(certificates);
        if keeping == Keeping::Nothing {
            client = client.pool_max_idle_per_host(0);
        }
        Ok(JournalClient { site: self, client: client.build()?, authorities, keeping })
    }
}

/// Whether a pod gets traffic.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions
            .is_some_and(|all| all.iter().any(|said| said["type"] == "Ready" && said["status"] == "True"))
}

async fn authorities(tenant: &Tenant) -> Result<String> {
    let map = tenant.get(kind::CONFIG_MAP, "authorities").await?;
    Ok(map["data"]["ca.crt"].as_str().context("the ConfigMap authorities has no ca.crt")?.to_owned())
}

async fn expect(request: RequestBuilder, wanted: StatusCode) -> Result<Value> {
    let answer = request.send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    if status != wanted {
        bail!("the journal answered {status}: {text}");
    }
    Ok(serde_json::from_str(&text)?)
}
