//! Proof that those who hold keys still have them.
//!
//! A recipient is public: that its backups are encrypted for the escrow says nothing about whether anybody still has the
//! escrow's identity. So each holder proves it from time to time, with `kubectl valv keys prove`, without the identity
//! leaving the terminal (`docs/adr/0015-proving-keys.md`).
//!
//! For each key that is to be proven soon, a ConfigMap in the tenant's namespace has a challenge: the header of a segment
//! of the newest backup, and a nonce for that key alone. The holder's program opens both, and writes the nonce on the
//! ConfigMap. Here the answer is checked, and dated in the tenant's status.
//!
//! | step    | file            | may touch                         |
//! |---------|-----------------|-----------------------------------|
//! | plan    | `keys/plan.rs`  | nothing                           |
//! | proof   | `keys/proof.rs` | nothing (randomness of age)       |
//! | the rest| here            | the cluster; the store, as reader |

pub mod plan;
pub mod proof;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Resource, ResourceExt,
    core::DynamicObject,
    runtime::{
        events::Recorder,
        reflector::{ObjectRef, Store},
    },
};
use serde_json::{Value, json};
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};
use tracing::{info, instrument, warn};
use valv_crds::{
    Backup, JournalTenant, JournalTenantStatus,
    protection::KeyStatus,
    reference::{NAMESPACE_PREFIX, TENANT_LABEL},
    store::BreakerState,
};

use self::{
    plan::{Asked, Standing, Step},
    proof::{Challenge, Nonce},
};
use crate::{
    archive::{
        Archive,
        commit::ManifestRef,
        envelope::SigningKey,
        fetch::{self, Options},
        layout::Part,
        recipients::x25519_stanzas,
        retry::RetryRule,
    },
    controllers::{Guarded, GuardedBackup, GuardedPolicy, GuardedStore},
    error::chain,
    io::{
        bucket::{Bucket, SettingsError, Version},
        cache::Cache,
        cluster::{self, Cluster},
        events::{self, News, Tone},
        filled::Filled,
        kind::{Key, Kind},
    },
    overview::find,
    settings::Settings,
    signing::{self, Signing},
    store::{
        breakers::Breakers,
        check as store_check,
        check::Identity,
        gate::{self, Held},
        observe as identities,
    },
};

/// Tenants that are looked at side by side: one whose store is slow holds up no other's holder.
const AT_ONCE: usize = 8;

/// How long a look at one tenant may take.
const LOOK: Duration = Duration::from_secs(60);

/// Between two looks at all tenants: a holder waits at a terminal for the answer to be seen.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long a tenant is left alone after a failure: a store that is away is asked for nothing that can wait.
const REST: Duration = Duration::from_secs(120);

/// Annotation on a challenge: the holder's answer.
pub const ANSWER_ANNOTATION: &str = "valv.eu/key-answer";

/// What the names of challenges begin with; the key's fingerprint follows.
pub const CHALLENGE_PREFIX: &str = "key-challenge-";

/// What every look shares.
pub struct Context {
    /// The cluster, to write to.
    pub cluster: Cluster,
    /// What stands in the tenants' namespaces.
    pub cache: Cache,
    /// All tenants.
    pub tenants: Store<Guarded>,
    /// All policies.
    pub policies: Store<GuardedPolicy>,
    /// All stores.
    pub stores: Store<GuardedStore>,
    /// All backups.
    pub backups: Store<GuardedBackup>,
    /// The operator's key: nonces are made with it, so that nobody must remember them.
    pub signing: Signing,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// Whether each store is asked at all. Shared with all who use stores.
    pub breakers: Breakers,
    /// Tells people what changed.
    pub recorder: Recorder,
    /// The clock.
    pub now: fn() -> Timestamp,
}

/// A look at one tenant stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster refused or did not answer.
    #[error("failed to write a challenge, or that a key was proven")]
    Cluster(#[source] cluster::Error),
    /// The operator's key could not be had.
    #[error("failed to make a challenge")]
    Signing(#[source] signing::Error),
    /// The challenge could not be made.
    #[error("failed to make a challenge")]
    Proof(#[source] proof::Error),
    /// The store cannot be asked.
    #[error("failed to prepare the store {store}")]
    Settings {
        /// Which.
        store: String,
        /// Why not.
        source: SettingsError,
    },
    /// The store's reader has no credentials.
    #[error("failed to find the reader's credentials of the store {store}: its own condition says more")]
    Credentials {
        /// Which.
        store: String,
    },
    /// The store is left alone.
    #[error("failed to make a challenge")]
    Held(#[source] Held),
    /// It took too long.
    #[error("the look did not end within {} s", LOOK.as_secs())]
    TooLong,
    /// The backup could not be read.
    #[error("failed to read the header of backup {backup}")]
    Fetch {
        /// Which.
        backup: String,
        /// Why not.
        source: fetch::Error,
    },
    /// The backup's header is not as it was committed to be.
    #[error("the header of backup {backup} is not as it must be: {what}")]
    Header {
        /// Which.
        backup: String,
        /// What is wrong.
        what: String,
    },
}

/// Looks at all tenants, again and again. Ends never.
pub async fn run(context: Context, filled: Filled) {
    // What is not known yet is not taken to be absent.
    filled.wait().await;
    // Whose look failed, and when they are looked at again.
    let mut resting: HashMap<String, Instant> = HashMap::new();
    loop {
        let backups = context.backups.state();
        let newest = newest(backups.iter().filter_map(|backup| backup.0.as_ref().ok()));
        resting.retain(|_, until| *until > Instant::now());
        let tenants = context.tenants.state();
        let tenants = tenants.iter().filter_map(|tenant| tenant.0.as_ref().ok());
        let looks: Vec<_> = tenants
            .filter(|tenant| !resting.contains_key(&tenant.name_any()))
            .map(|tenant| {
                let newest = newest.get(&format!("{NAMESPACE_PREFIX}{}", tenant.name_any())).copied();
                limited(tenant.name_any(), look(tenant, newest, &context))
            })
            .collect();
        let mut looks = stream::iter(looks).buffer_unordered(AT_ONCE);
        while let Some((name, looked)) = looks.next().await {
            if let Err(error) = looked {
                warn!(tenant.name = name, error = chain(&error), "failed to look after keys, trying again");
                resting.insert(name, Instant::now() + REST);
            }
            // Ten thousand tenants of whom nothing is asked hold up nobody.
            yield_now().await;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The look at the tenant `name`, with an end.
async fn limited(name: String, look: impl Future<Output = Result<(), Error>>) -> (String, Result<(), Error>) {
    let looked = timeout(LOOK, look).await.unwrap_or(Err(Error::TooLong));
    (name, looked)
}

/// Offers challenges, checks answers, and takes away what is not needed, for one tenant.
#[instrument(skip_all, fields(tenant.name = tenant.name_any()))]
async fn look(tenant: &JournalTenant, newest: Option<&Backup>, context: &Context) -> Result<(), Error> {
    if tenant.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let name = tenant.name_any();
    let policy = tenant.spec.backup.as_ref().map(|backup| backup.policy.as_str());
    let policy = policy.and_then(|policy| context.policies.get(&ObjectRef::new(policy)));
    let policy = policy.as_ref().and_then(|policy| policy.0.as_ref().ok());
    let asked = plan::asked(tenant, policy, (context.now)());
    let objects = context.cache.of(&name);
    let challenges: Vec<_> = objects
        .iter()
        .filter(|(key, _)| key.kind == Kind::ConfigMap && key.name.starts_with(CHALLENGE_PREFIX))
        .collect();
    for (key, object) in &challenges {
        let fingerprint = &key.name[CHALLENGE_PREFIX.len()..];
        if !asked.iter().any(|asked| asked.fingerprint == fingerprint) {
            context.cluster.delete(key, object).await.map_err(Error::Cluster)?;
        }
    }
    if asked
        .iter()
        .all(|asked| !asked.is_due && !challenges.iter().any(|(key, _)| key.name == asked.object()))
    {
        return Ok(());
    }
    let slot = newest.and_then(|newest| newest.status.as_ref()?.slot);
    if newest.is_none() && challenges.is_empty() {
        return Ok(());
    }
    // There is a backup, so there is a key: none is made here that was not made for a commit.
    let signing = context
        .signing
        .key(&context.cluster, &context.settings.operator_namespace)
        .await
        .map_err(Error::Signing)?;
    let mut header = None;
    for asked in &asked {
        let object = challenges.iter().find(|(key, _)| key.name == asked.object()).map(|(_, object)| *object);
        let standing = object.and_then(|object| standing(object));
        let expected = |slot| nonce(&signing, tenant, asked, slot);
        match plan::decide(asked, standing.as_ref(), slot, expected).map_err(Error::Proof)? {
            Step::Nothing => {}
            Step::Proven => proven(tenant, asked, context).await?,
            Step::Refuse => refuse(tenant, asked, object, context).await?,
            Step::Withdraw => {
                if let Some(object) = object {
                    let key = Key::new(Kind::ConfigMap, asked.object());
                    context.cluster.delete(&key, object).await.map_err(Error::Cluster)?;
                }
            }
            Step::Offer(slot) => {
                let Some(newest) = newest else { continue };
                let known = match header.take() {
                    Some(known) => known,
                    None => header_of(newest, context).await?,
                };
                let nonce = nonce(&signing, tenant, asked, slot).map_err(Error::Proof)?;
                let archive = archive_id(tenant);
                let challenge = Challenge::make(&archive, slot, &asked.recipient, &known, &nonce)
                    .map_err(Error::Proof)?;
                header = Some(known);
                let key = Key::new(Kind::ConfigMap, asked.object());
                let wanted = config_map(&name, asked, &challenge);
                context
                    .cluster
                    .apply(&key, &wanted, object.map(AsRef::as_ref))
                    .await
                    .map_err(Error::Cluster)?;
            }
        }
    }
    Ok(())
}

/// The newest complete backup of each namespace.
fn newest<'a>(backups: impl Iterator<Item = &'a Backup>) -> HashMap<String, &'a Backup> {
    let slot = |backup: &Backup| backup.status.as_ref().and_then(|status| status.slot);
    let is_complete = |backup: &&Backup| {
        let status = backup.status.as_ref();
        let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        find(conditions, "Complete").is_some_and(|complete| complete.status == "True")
    };
    let mut newest: HashMap<String, &Backup> = HashMap::new();
    for backup in backups.filter(is_complete) {
        let standing = newest.entry(backup.namespace().unwrap_or_default()).or_insert(backup);
        if slot(standing) < slot(backup) {
            *standing = backup;
        }
    }
    newest
}

fn archive_id(tenant: &JournalTenant) -> String {
    tenant.spec.archive_id.clone().unwrap_or_else(|| tenant.name_any())
}

fn nonce(
    signing: &SigningKey,
    tenant: &JournalTenant,
    asked: &Asked,
    slot: valv_crds::Slot,
) -> Result<Nonce, proof::Error> {
    proof::nonce(signing, &archive_id(tenant), slot, &asked.recipient, asked.proven)
}

/// What stands in the cluster; absent: it is no challenge, and is made anew.
fn standing(object: &DynamicObject) -> Option<Standing> {
    let slot = object.data.pointer("/data/slot")?.as_str()?.parse().ok()?;
    Some(Standing { slot, answer: object.annotations().get(ANSWER_ANNOTATION).cloned() })
}

/// The first bytes of the first segment of the newest backup's smallest part: the header, and no payload.
async fn header_of(backup: &Backup, context: &Context) -> Result<Vec<u8>, Error> {
    let name = backup.name_any();
    let broken = |what: &str| Error::Header { backup: name.clone(), what: what.to_owned() };
    let status = backup.status.as_ref().ok_or_else(|| broken("it has no status"))?;
    let manifest = status.manifest.as_ref().ok_or_else(|| broken("its status names no manifest"))?;
    let stores = status.stores.iter().filter(|store| store.commit.is_some());
    let store = stores
        .filter_map(|store| context.stores.get(&ObjectRef::new(&store.name)))
        .filter_map(|store| store.0.as_ref().ok().cloned())
        .find(|store| store.status.as_ref().is_none_or(|status| status.breaker.state == BreakerState::Closed))
        .ok_or_else(|| broken("no store that has it can be asked now"))?;
    let store = store_check::check(Arc::new(store));
    let namespace = &context.settings.operator_namespace;
    let credentials =
        identities::credentials(&store, &context.cluster, namespace).await.map_err(Error::Cluster)?;
    let credentials = credentials.map_err(|_| Error::Credentials { store: store.name.clone() })?;
    let settings = store.settings(credentials.of(Identity::Reader).clone());
    let bucket =
        Bucket::open(&settings).map_err(|source| Error::Settings { store: store.name.clone(), source })?;
    gate::enter(&context.breakers, &store.name, &bucket, context.now).await.map_err(Error::Held)?;
    let archive = Archive::new(bucket, Options { ahead: 1, retry: RetryRule::FEW });
    let fetched = |source| Error::Fetch { backup: name.clone(), source };
    let version = manifest.version.as_deref().map(Version::new);
    let meta = archive.meta_of(&manifest.key, version.as_ref()).await;
    context.breakers.note(&store.name, &meta, (context.now)());
    let size = meta.map_err(|error| fetched(fetch::Error::Store(error)))?.size_bytes;
    let blake3 = manifest.blake3.parse().map_err(|_| broken("its status names no digest of the manifest"))?;
    let named = ManifestRef { key: manifest.key.clone(), version, size, blake3 };
    let (folder, page, recipients) = archive
        .of_manifest(&named, |manifest| {
            let page = manifest.part(Part::Tenant).and_then(|part| part.pages.first().cloned());
            (manifest.folder(), page, manifest.recipients.len())
        })
        .await
        .map_err(fetched)?;
    let empty = || broken("its part tenant is empty");
    let segment = archive.first_segment(&folder, &page.ok_or_else(empty)?).await.map_err(fetched)?;
    let segment = segment.ok_or_else(empty)?;
    let header = proof::header(&segment).ok_or_else(|| broken("a segment has no age header"))?;
    match x25519_stanzas(header) {
        Ok(found) if found >= recipients => Ok(header.to_vec()),
        Ok(found) => {
            let what = format!("it names {found} recipients, and the manifest {recipients}");
            Err(broken(&what))
        }
        Err(_) => Err(broken("a segment has no age header")),
    }
}

/// The challenge, as it stands in the tenant's namespace. Nothing in it is secret.
fn config_map(tenant: &str, asked: &Asked, challenge: &Challenge) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": asked.object(),
            "namespace": format!("{NAMESPACE_PREFIX}{tenant}"),
            "labels": { TENANT_LABEL: tenant, "app.kubernetes.io/managed-by": "valv" },
        },
        "data": {
            "archive": challenge.archive,
            "slot": challenge.slot.to_string(),
            "recipient": challenge.recipient,
            "header": BASE64_STANDARD.encode(&challenge.header),
            "challenge": BASE64_STANDARD.encode(&challenge.sealed),
        },
    })
}

/// Reads what [`config_map`] wrote.
pub fn read_config_map(data: &std::collections::BTreeMap<String, String>) -> Option<Challenge> {
    let text = |name: &str| data.get(name);
    let bytes = |name: &str| BASE64_STANDARD.decode(data.get(name)?).ok();
    Some(Challenge {
        archive: text("archive")?.clone(),
        slot: text("slot")?.parse().ok()?,
        recipient: text("recipient")?.clone(),
        header: bytes("header")?,
        sealed: bytes("challenge")?,
    })
}

/// The status of `tenant` with the proof of `asked` at `now`, and otherwise as it stands.
fn with_proof(tenant: &JournalTenant, asked: &Asked, now: Timestamp) -> JournalTenantStatus {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut status = tenant.status.clone().unwrap_or_default();
    let keys = &mut status.backup.get_or_insert_default().keys;
    keys.retain(|key| key.role != asked.role);
    keys.push(KeyStatus {
        role: asked.role,
        fingerprint: asked.fingerprint.clone(),
        proven: Some(Time(now)),
    });
    keys.sort_by_key(|key| key.role);
    status
}

/// Dates the proof in the tenant's status. The challenge goes at the next look.
async fn proven(tenant: &JournalTenant, asked: &Asked, context: &Context) -> Result<(), Error> {
    let status = with_proof(tenant, asked, (context.now)());
    match context.cluster.set_status(Kind::JournalTenant, tenant, &status).await {
        Ok(_) => {}
        // The answer is still there, and is looked at again.
        Err(error) if error.is_conflict() => return Ok(()),
        Err(error) => return Err(Error::Cluster(error)),
    }
    info!(key.role = ?asked.role, key.fingerprint = asked.fingerprint, "a key was proven");
    let note = format!("the holder of the {:?} key ({}) proved it", asked.role, asked.fingerprint);
    let news = News { tone: Tone::Normal, reason: "KeyProven".to_owned(), note };
    events::publish(&context.recorder, &tenant.object_ref(&()), vec![news]).await;
    Ok(())
}

/// Takes a wrong answer away, and says so.
async fn refuse(
    tenant: &JournalTenant,
    asked: &Asked,
    object: Option<&Arc<DynamicObject>>,
    context: &Context,
) -> Result<(), Error> {
    let Some(object) = object else { return Ok(()) };
    let key = Key::new(Kind::ConfigMap, asked.object());
    context.cluster.annotate(&key, object, &[(ANSWER_ANNOTATION, None)]).await.map_err(Error::Cluster)?;
    let note = format!(
        "an answer for the {:?} key ({}) was wrong: nothing is proven",
        asked.role, asked.fingerprint
    );
    let news = News { tone: Tone::Warning, reason: "KeyAnswerWrong".to_owned(), note };
    events::publish(&context.recorder, &tenant.object_ref(&()), vec![news]).await;
    Ok(())
}

#[cfg(test)]
mod tests;
