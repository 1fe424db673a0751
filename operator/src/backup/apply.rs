//! Brings the cluster, and the archive, to the plan.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{ResourceExt, core::DynamicObject, runtime::reflector};
use tokio::time::{error::Elapsed, timeout};
use tracing::{debug, warn};
use valv_crds::{
    backup::{BackupReason, Progress},
    reference::BACKUP_LABEL,
    store::BreakerState,
};

use super::{
    Context,
    check::{Run, Subject},
    claim,
    commission::{self, Commission, Committed, Found, Search, Visitor},
    ledger::{Limits, Place},
    names::Part,
    objects::{self, Supplies},
    observe::{self, Observed},
    plain::{self, plain},
    plan::{Note, Plan, Setup, Step, Swept, SweptJob},
    progress,
    sighting::{STARTS_WITHIN, Sighting, controller},
};
use crate::{
    agent::last_words::Failure,
    controllers::GuardedBackup,
    error::chain,
    io::{
        bucket::{Bucket, Credentials, Kind as BucketKind},
        cluster::{Cluster, Error as ClusterError},
        difference::difference,
        events::{News, Tone},
        kind::{Key, Kind},
    },
    signing::Keys,
    store::{
        check::{Identities, Store},
        gate, observe as identities,
    },
    tenant::{check::Tenant, objects::Wanted},
};

/// How long a visit to an archive may take.
const VISIT: Duration = Duration::from_secs(60);

/// How long credentials that were read are used.
const CREDENTIALS_FOR: Duration = Duration::from_secs(60);

/// How long what has ended stays, for whoever asks what happened.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// How soon a turn at a store is asked for again.
const AFTER_NO_TURN: Duration = Duration::from_secs(5);

/// Refusals in a row of a store, after which it is no passing trouble.
const REFUSALS: u32 = 10;

/// How often it is looked for a commit before a backup is given up without an answer.
const LOOKS: u32 = 10;

/// Lines of a log that are read: those of more than a minute.
const PROGRESS_LINES: i64 = 40;

/// The plan could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster refused or did not answer.
    #[error("failed to bring the cluster to the plan")]
    Cluster(#[source] ClusterError),
}

/// What became of the plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is committed.
    pub committed: Option<Box<Committed>>,
    /// Why it never will be.
    pub refused: Option<Failure>,
    /// Why the attempt, or the reading, is no good.
    pub failed: Option<Failure>,
    /// Why it was not done this time.
    pub postponed: Option<Failure>,
    /// UID of the Job that was made.
    pub job: Option<String>,
    /// How far the agent is.
    pub progress: Option<Progress>,
    /// What a person should notice.
    pub news: Vec<News>,
    /// When to look again, if not when the plan says.
    pub look_again_after: Option<Duration>,
}

impl Outcome {
    fn postponed(reason: BackupReason, message: &str) -> Self {
        let message = plain(message, plain::SENTENCE);
        Self { postponed: Some(Failure { reason, message }), ..Self::default() }
    }

    fn refused(reason: BackupReason, message: &str) -> Self {
        let message = plain(message, plain::SENTENCE);
        Self { refused: Some(Failure { reason, message }), ..Self::default() }
    }

    fn failed(reason: BackupReason, message: &str) -> Self {
        let message = plain(message, plain::SENTENCE);
        Self { failed: Some(Failure { reason, message }), ..Self::default() }
    }

    fn committed(committed: Committed) -> Self {
        Self { committed: Some(Box::new(committed)), ..Self::default() }
    }

    /// As many ask `store` for something as may.
    fn without_turn(store: &Store) -> Self {
        let message =
            format!("others ask the store {} for something, and it takes long to answer", store.name);
        let outcome = Self::postponed(BackupReason::AtLimit, &message);
        Self { look_again_after: Some(AFTER_NO_TURN), ..outcome }
    }
}

/// Does the plan's step, and takes away what has served.
///
/// # Errors
/// If the cluster cannot be written to. What it refuses, and what a store says, is in the [`Outcome`].
pub async fn apply(
    run: &Run,
    observed: &Observed,
    plan: &Plan,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let uid = run.uid();
    let outcome = match &plan.step {
        Step::Begins { search, .. } => begin(run, observed, search, context, now).await?,
        Step::Makes(part) => make(run, observed, *part, context, now).await?,
        Step::Runs { part } => {
            hold(run, observed, context);
            let (sighting, namespace) = match part {
                Part::Write { .. } => (&observed.writing, &run.namespace),
                Part::ReadBack { .. } => (&observed.reading, &context.settings.operator_namespace),
            };
            let progress = log(run, sighting, namespace, &context.cluster, now).await;
            Outcome { progress, ..Outcome::default() }
        }
        // It goes on.
        Step::Notes(note) => {
            hear(run, observed, note, context, now);
            Outcome::default()
        }
        Step::Commits { commission, until } => {
            context.ledger.release(&uid);
            match context.commits.turn(&commission.search.store.name).await {
                Some(_turn) => commit(run, commission, *until, context, now).await,
                None => Outcome::without_turn(&commission.search.store),
            }
        }
        Step::GivesUp { search, .. } => {
            context.ledger.release(&uid);
            give_up(run, search.as_deref(), context, now).await
        }
        Step::Over | Step::Waits { .. } | Step::Retries { .. } => {
            context.ledger.release(&uid);
            Outcome::default()
        }
    };
    // Before the status says that it is over: whoever looks at one that is over looks no further.
    if outcome.postponed.is_none() {
        for swept in &plan.sweep {
            sweep(run, swept, &context.settings.operator_namespace, &context.cluster)
                .await
                .map_err(Error::Cluster)?;
        }
    }
    Ok(outcome)
}

/// A visit to an archive.
struct Visit<'a> {
    run: &'a Run,
    store: &'a Store,
    context: &'a Context,
}

/// What a visit came to.
enum Answer<T> {
    Done(T),
    Error(commission::Error),
    /// The visit could not be paid, or had no end.
    Unasked(Failure),
}

/// What a visit needs.
struct Means {
    credentials: Identities<Credentials>,
    keys: Arc<Keys>,
    cluster: String,
}

impl Means {
    fn visitor(&self, now: Timestamp) -> Visitor<'_> {
        let Self { credentials, keys, cluster } = self;
        Visitor { credentials, keys, cluster, now }
    }
}

impl Visit<'_> {
    /// Gets what the visit needs, if the store's breaker lets it. Who gets it [ends](Self::end) the visit.
    async fn prepare(&self) -> Result<Means, Failure> {
        let Self { store, context, .. } = *self;
        let unasked = |reason: BackupReason, message: String| Failure { reason, message };
        let credentials = match credentials(store, context).await {
            Ok(Ok(credentials)) => credentials,
            Ok(Err(unresolved)) => return Err(unasked(BackupReason::StoreNotReady, unresolved)),
            Err(error) => return Err(unasked(BackupReason::ClusterRefused, chain(&error))),
        };
        let namespace = &context.settings.operator_namespace;
        let keys = context.signing.keys(&context.cluster, namespace).await;
        let keys = keys.map_err(|error| unasked(BackupReason::SignatureInvalid, chain(&error)))?;
        let cluster = claim::cluster_id(&context.cluster, &context.cluster_id).await;
        let cluster = cluster.map_err(|error| unasked(BackupReason::ClusterRefused, chain(&error)))?;
        enter(store, &credentials.reader, context).await?;
        Ok(Means { credentials, keys, cluster })
    }

    /// Tells the breaker what came of the visit.
    fn end<T>(&self, answer: Result<Result<T, commission::Error>, Elapsed>) -> Answer<T> {
        let Self { store, context, .. } = *self;
        let now = (context.now)();
        match answer {
            Ok(Ok(done)) => {
                context.breakers.answered(&store.name, now);
                Answer::Done(done)
            }
            Ok(Err(error)) => {
                match error.of_bucket() {
                    Some(error) if error.is_of_the_store() => context.breakers.failed(&store.name, now),
                    Some(_) => context.breakers.answered(&store.name, now),
                    // It may have answered, and may not have been asked: a lost turn or lost leadership says nothing.
                    None => {}
                }
                Answer::Error(error)
            }
            Err(_) => {
                context.breakers.failed(&store.name, now);
                let message =
                    format!("the store {} did not answer all within {} s", store.name, VISIT.as_secs());
                Answer::Unasked(Failure { reason: BackupReason::StoreUnavailable, message })
            }
        }
    }

    fn key(&self) -> String {
        format!("visit {}", self.run.key())
    }

    /// Counts a failure, and says when to try again.
    fn failed(&self) -> (u32, Duration) {
        let key = self.key();
        let wait = self.context.backoff.failed(&key, rand::random());
        (self.context.backoff.in_a_row(&key), wait)
    }

    fn succeeded(&self) {
        self.context.backoff.succeeded(&self.key());
    }
}

/// Past the store's breaker, with one request if it was left alone until now.
async fn enter(store: &Store, reader: &Credentials, context: &Context) -> Result<(), Failure> {
    let unavailable = |message: String| Failure { reason: BackupReason::StoreUnavailable, message };
    let bucket = Bucket::open(&store.settings(reader.clone()))
        .map_err(|error| Failure { reason: BackupReason::StoreNotReady, message: chain(&error) })?;
    let entered = gate::enter(&context.breakers, &store.name, &bucket, context.now).await;
    entered.map_err(|held| unavailable(held.to_string()))
}

/// What a pod says of its store counts for the store's breaker: of one tenant's pods once.
fn hear(run: &Run, observed: &Observed, note: &Note, context: &Context, now: Timestamp) {
    let (failure, sighting) = match note {
        Note::Failed(failure) => (failure, &observed.writing),
        Note::NotRead(failure) => (failure, &observed.reading),
        Note::Wrote { .. } | Note::Reads { .. } | Note::Read(_) => return,
    };
    if !is_of_the_store(failure.reason) {
        return;
    }
    if let Some(store) = &observed.store {
        context.breakers.told(&store.name, &run.namespace, sighting.ended.unwrap_or(now), now);
    }
}

/// Whether a pod that failed for `reason` had no answer from its store.
fn is_of_the_store(reason: BackupReason) -> bool {
    [BackupReason::StoreUnavailable, BackupReason::TlsRefused].contains(&reason)
}

/// The store's credentials: read again after a minute, or when the store was changed.
async fn credentials(
    store: &Store,
    context: &Context,
) -> Result<Result<Identities<Credentials>, String>, ClusterError> {
    let generation = store.object.metadata.generation;
    if let Some(known) = context.credentials.of(&store.name, generation, CREDENTIALS_FOR) {
        return Ok(Ok(known));
    }
    let namespace = &context.settings.operator_namespace;
    let found = identities::credentials(store, &context.cluster, namespace).await?;
    Ok(match found {
        Ok(found) => {
            context.credentials.keep(&store.name, generation, found.clone());
            Ok(found)
        }
        Err(unresolved) => Err(unresolved.to_string()),
    })
}

/// Gets a place, and looks at the archive: whose it is, and whether it has a backup of this slot.
async fn begin(
    run: &Run,
    observed: &Observed,
    search: &Search,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, Error> {
    if let Some(full) = admit(run, observed, context) {
        return Ok(full);
    }
    let Some(_turn) = context.visits.turn(&search.store.name).await else {
        context.ledger.release(&run.uid());
        return Ok(Outcome::without_turn(&search.store));
    };
    let visit = Visit { run, store: &search.store, context };
    let answer = match visit.prepare().await {
        Ok(means) => {
            let visitor = means.visitor(now);
            visit.end(timeout(VISIT, search.look_before_beginning(&visitor)).await)
        }
        Err(failure) => Answer::Unasked(failure),
    };
    let mut outcome = match answer {
        Answer::Done(Found::Clear { taken_over_from }) => {
            visit.succeeded();
            let news = taken_over_from.map(|from| News {
                tone: Tone::Warning,
                reason: "ArchiveTakenOver".to_owned(),
                note: plain(
                    &format!("the archive {} was taken over from {from}", search.archive),
                    plain::SENTENCE,
                ),
            });
            return Ok(Outcome { news: news.into_iter().collect(), ..Outcome::default() });
        }
        Answer::Done(Found::Committed(committed)) => Outcome::committed(*committed),
        Answer::Error(error) => match error.reason() {
            // Somebody can say otherwise, on the tenant.
            Some(BackupReason::ArchiveTaken) => {
                Outcome::postponed(BackupReason::ArchiveTaken, &chain(&error))
            }
            Some(reason) => Outcome::refused(reason, &chain(&error)),
            None => Outcome::postponed(reason_of(&error), &chain(&error)),
        },
        Answer::Unasked(failure) => Outcome::postponed(failure.reason, &failure.message),
    };
    context.ledger.release(&run.uid());
    if outcome.postponed.is_some() {
        outcome.look_again_after = Some(visit.failed().1.max(Duration::from_secs(5)));
    }
    Ok(outcome)
}

/// What the store's trouble is called.
fn reason_of(error: &commission::Error) -> BackupReason {
    match error.of_bucket().map(|error| &error.kind) {
        Some(BucketKind::Denied) => BackupReason::CredentialsRefused,
        Some(BucketKind::Full) => BackupReason::StoreFull,
        Some(BucketKind::Tls) => BackupReason::TlsRefused,
        Some(BucketKind::ClockSkew) => BackupReason::ClockSkewed,
        _ => BackupReason::StoreUnavailable,
    }
}

/// A place for the run, or why there is none.
fn admit(run: &Run, observed: &Observed, context: &Context) -> Option<Outcome> {
    let store = observed.store.as_ref()?;
    let place = Place { namespace: run.namespace.clone(), name: run.name.clone(), store: store.name.clone() };
    let limits = Limits {
        to_store: usize::try_from(store.limits.concurrent_backups).unwrap_or(1),
        in_all: context.settings.backups.concurrent.into(),
    };
    let admitted = context.ledger.admit(
        &run.uid(),
        place,
        limits,
        || standing(&context.backups),
        |uid, place| is_there(uid, place, &context.backups),
    );
    let full = admitted.err()?;
    let mut outcome = Outcome::postponed(BackupReason::AtLimit, &full.to_string());
    outcome.look_again_after = Some(Duration::from_secs(15));
    Some(outcome)
}

/// A Job that runs has its place, whatever the limits say by now.
fn hold(run: &Run, observed: &Observed, context: &Context) {
    let store = observed.store.as_ref().map(|store| store.name.clone()).unwrap_or_default();
    let place = Place { namespace: run.namespace.clone(), name: run.name.clone(), store };
    context.ledger.hold(&run.uid(), place, || standing(&context.backups));
}

/// What ran before this process began.
pub fn standing(backups: &reflector::Store<GuardedBackup>) -> Vec<(String, Place)> {
    let backups = backups.state();
    let backups = backups.iter().filter_map(|backup| backup.0.as_ref().ok());
    let active = backups.filter(|backup| observe::is_active(backup));
    let place = |backup: &valv_crds::Backup| {
        let attempt = backup.status.as_ref()?.attempt.as_ref()?;
        let store = attempt.order.as_ref().map(|order| order.store.clone()).unwrap_or_default();
        let namespace = backup.namespace().unwrap_or_default();
        Some((backup.uid()?, Place { namespace, name: backup.name_any(), store }))
    };
    active.filter_map(place).collect()
}

/// Whether the backup that has a `place` is still one that runs.
pub fn is_there(uid: &str, place: &Place, backups: &reflector::Store<GuardedBackup>) -> bool {
    let reference = reflector::ObjectRef::new(&place.name).within(&place.namespace);
    let Some(found) = backups.get(&reference) else { return false };
    let found = found.0.as_ref().ok();
    found.is_some_and(|backup| backup.uid().as_deref() == Some(uid) && !observe::is_over(backup))
}

/// Makes what a begun attempt, or a begun reading, needs: nothing is taken over that stands and is not just that.
async fn make(
    run: &Run,
    observed: &Observed,
    part: Part,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, Error> {
    if let Some(full) = admit(run, observed, context) {
        return Ok(full);
    }
    // A store that is left alone gets no new Job either.
    if let Some(held) = held(observed, context).await.map_err(Error::Cluster)? {
        context.ledger.release(&run.uid());
        let mut outcome = Outcome::postponed(held.reason, &held.message);
        outcome.look_again_after = Some(Duration::from_secs(15));
        return Ok(outcome);
    }
    let wanted = match wanted(run, observed, part, context).await.map_err(Error::Cluster)? {
        Ok(wanted) => wanted,
        Err(failure) => {
            context.ledger.release(&run.uid());
            return Ok(Outcome::failed(failure.reason, &failure.message));
        }
    };
    let mut job = None;
    for wanted in &wanted {
        match create(wanted, &context.cluster).await {
            Ok(Created::Made(object)) => job = object.uid(),
            Ok(Created::Anothers) => {
                context.ledger.release(&run.uid());
                let message = format!(
                    "{} stands in {} with another content or another owner: find out who made it, and delete it",
                    wanted.key,
                    wanted.value["metadata"]["namespace"].as_str().unwrap_or_default()
                );
                return Ok(Outcome::failed(BackupReason::ClusterRefused, &message));
            }
            Err(error) if error.is_fenced() => return Err(Error::Cluster(error)),
            Err(error) => {
                warn!(error = chain(&error), "failed to make what the backup needs");
                context.ledger.release(&run.uid());
                return Ok(refused_by_cluster(run, part, &error, context, now));
            }
        }
    }
    context.backoff.succeeded(&format!("make {}", run.key()));
    Ok(Outcome { job, ..Outcome::default() })
}

/// Why nothing is begun in the store now.
async fn held(observed: &Observed, context: &Context) -> Result<Option<Failure>, ClusterError> {
    let Some(store) = observed.store.as_ref() else { return Ok(None) };
    if context.breakers.status(&store.name).state == BreakerState::Closed {
        return Ok(None);
    }
    match credentials(store, context).await? {
        Ok(credentials) => Ok(enter(store, &credentials.reader, context).await.err()),
        // That is told where the Job's parts are made.
        Err(_) => Ok(None),
    }
}

/// What the API server refuses is told, tried again, and after a while an attempt that failed.
fn refused_by_cluster(
    run: &Run,
    part: Part,
    error: &ClusterError,
    context: &Context,
    now: Timestamp,
) -> Outcome {
    let attempt = run.object.status.as_ref().and_then(|status| status.attempt.as_ref());
    let began = match part {
        Part::Write { .. } => attempt.and_then(|attempt| attempt.began.as_ref()),
        Part::ReadBack { .. } => {
            attempt.and_then(|attempt| attempt.reading.as_ref()).and_then(|reading| reading.began.as_ref())
        }
    };
    let since = began
        .map_or(Duration::ZERO, |began| Duration::try_from(now.duration_since(began.0)).unwrap_or_default());
    if since > STARTS_WITHIN {
        return Outcome::failed(BackupReason::ClusterRefused, &chain(error));
    }
    let wait = context.backoff.failed(&format!("make {}", run.key()), rand::random());
    let mut outcome = Outcome::postponed(BackupReason::ClusterRefused, &chain(error));
    outcome.look_again_after = Some(wait.max(Duration::from_secs(2)));
    outcome
}

async fn wanted(
    run: &Run,
    observed: &Observed,
    part: Part,
    context: &Context,
) -> Result<Result<Vec<Wanted>, Failure>, ClusterError> {
    let missing = |what: &str| Failure {
        reason: BackupReason::AgentFailed,
        message: format!("{what} is gone since it was begun"),
    };
    let attempt = run.object.status.as_ref().and_then(|status| status.attempt.as_ref());
    let (Some(attempt), Ok(subject)) = (attempt, &run.subject) else {
        return Ok(Err(missing("the attempt")));
    };
    let setup = observed.tenant.there().zip(observed.policy.as_deref()).zip(observed.store.as_ref());
    let Some(((tenant, policy), store)) = setup else { return Ok(Err(missing("what it needs"))) };
    let Some(protection) = &tenant.backup else { return Ok(Err(missing("spec.backup"))) };
    let setup = Setup { tenant, protection, policy, store };
    let subject: &Subject = subject;
    match part {
        Part::Write { .. } => {
            let writer = match credentials(store, context).await? {
                Ok(credentials) => credentials.writer,
                Err(unresolved) => {
                    return Ok(Err(Failure { reason: BackupReason::StoreNotReady, message: unresolved }));
                }
            };
            let secrets = secrets(tenant, context).await?;
            let config_maps = config_maps(tenant, context).await?;
            let attachments_are_held = observed.attachments_are_held;
            let supplies = Supplies { writer, secrets, config_maps, attachments_are_held };
            Ok(objects::write(run, subject, &setup, attempt, &supplies, &context.settings))
        }
        Part::ReadBack { .. } => Ok(objects::read_back(run, subject, &setup, attempt, &context.settings)),
    }
}

/// The Secrets that Valv made for the tenant and those that its spec names, with their keys; those of backups apart.
async fn secrets(tenant: &Tenant, context: &Context) -> Result<BTreeMap<String, Vec<String>>, ClusterError> {
    let keys = |secret: &Secret| secret.data.iter().flatten().map(|(key, _)| key.clone()).collect();
    let own = context.cluster.own_secrets(&tenant.namespace).await?;
    let own = own.iter().filter(|secret| !secret.labels().contains_key(BACKUP_LABEL));
    let mut found: BTreeMap<_, _> = own.map(|secret| (secret.name_any(), keys(secret))).collect();
    for key in tenant.referenced().into_iter().filter(|key| key.kind == Kind::Secret) {
        if let Some(secret) =
            context.cluster.get::<Secret>(Kind::Secret, &tenant.namespace, &key.name).await?
        {
            found.insert(key.name, keys(&secret));
        }
    }
    Ok(found)
}

/// The ConfigMaps that the tenant's spec names, with their keys.
async fn config_maps(
    tenant: &Tenant,
    context: &Context,
) -> Result<BTreeMap<String, Vec<String>>, ClusterError> {
    let mut found = BTreeMap::new();
    for key in tenant.referenced().into_iter().filter(|key| key.kind == Kind::ConfigMap) {
        let map = context.cluster.get::<ConfigMap>(Kind::ConfigMap, &tenant.namespace, &key.name).await?;
        let Some(map) = map else { continue };
        let text = map.data.into_iter().flatten().map(|(key, _)| key);
        let binary = map.binary_data.into_iter().flatten().map(|(key, _)| key);
        found.insert(key.name, text.chain(binary).collect());
    }
    Ok(found)
}

/// What came of a creation.
enum Created {
    /// It is there, as it was wanted.
    Made(Box<DynamicObject>),
    /// Something else has its name.
    Anothers,
}

async fn create(wanted: &Wanted, cluster: &Cluster) -> Result<Created, ClusterError> {
    let error = match cluster.create(&wanted.key, &wanted.value).await {
        Ok(stored) => return Ok(Created::Made(Box::new(stored))),
        Err(error) if error.is_conflict() => error,
        Err(error) => return Err(error),
    };
    let namespace = wanted.value["metadata"]["namespace"].as_str().unwrap_or_default();
    // Made by a process that did not live to write it down, or by somebody else.
    match cluster.live(&wanted.key, namespace).await? {
        Some(standing) if is_wanted(wanted, &standing) => Ok(Created::Made(Box::new(standing))),
        Some(_) => Ok(Created::Anothers),
        None => Err(error),
    }
}

/// Whether what stands is what was to be made, and of the same owner.
fn is_wanted(wanted: &Wanted, standing: &DynamicObject) -> bool {
    let owner = wanted.value.pointer("/metadata/ownerReferences/0/uid").and_then(|uid| uid.as_str());
    let value = serde_json::to_value(standing).unwrap_or_default();
    controller(standing) == owner
        && standing.metadata.deletion_timestamp.is_none()
        && difference(&wanted.value, &value).is_none()
}

/// How far the agent is, if it was not asked just now.
async fn log(
    run: &Run,
    sighting: &Sighting,
    namespace: &str,
    cluster: &Cluster,
    now: Timestamp,
) -> Option<Progress> {
    let pod = sighting.pod.as_ref().filter(|pod| pod.has_started && pod.end.is_none())?;
    let told = run.object.status.as_ref().and_then(|status| status.progress.as_ref());
    if !progress::is_due(told, now) {
        return None;
    }
    match cluster.log_tail(namespace, &pod.name, "agent", PROGRESS_LINES).await {
        Ok(log) => progress::of_log(&log, now),
        Err(error) => {
            debug!(error = chain(&error), "failed to read how far the agent is");
            None
        }
    }
}

/// Visits the archive, and commits.
async fn commit(
    run: &Run,
    commission: &Commission,
    until: Timestamp,
    context: &Context,
    now: Timestamp,
) -> Outcome {
    let visit = Visit { run, store: &commission.search.store, context };
    let answer = match visit.prepare().await {
        Ok(means) => {
            let visitor = means.visitor(now);
            let leads = || context.cluster.leads();
            visit.end(timeout(VISIT, commission.carry_out(&visitor, leads)).await)
        }
        Err(failure) => Answer::Unasked(failure),
    };
    committed(run, answer, until, context, now)
}

/// What came of a commit.
fn committed(
    run: &Run,
    answer: Answer<Committed>,
    until: Timestamp,
    context: &Context,
    now: Timestamp,
) -> Outcome {
    let key = format!("visit {}", run.key());
    let (reason, message) = match answer {
        Answer::Done(committed) => {
            context.backoff.succeeded(&key);
            return Outcome::committed(committed);
        }
        Answer::Error(error) if error.is_of_what_was_written() => {
            let reason = error.reason().unwrap_or(BackupReason::ManifestInvalid);
            return Outcome::failed(reason, &chain(&error));
        }
        Answer::Error(error) => match error.reason() {
            // Somebody can say otherwise, on the tenant.
            Some(BackupReason::ArchiveTaken) => (BackupReason::ArchiveTaken, chain(&error)),
            Some(reason) => return Outcome::refused(reason, &chain(&error)),
            None => (reason_of(&error), chain(&error)),
        },
        Answer::Unasked(failure) => (failure.reason, failure.message),
    };
    warn!(error = message, "failed to commit");
    let wait = context.backoff.failed(&key, rand::random());
    let is_refused = reason == BackupReason::CredentialsRefused && context.backoff.in_a_row(&key) >= REFUSALS;
    if is_refused || now >= until {
        return Outcome::refused(reason, &message);
    }
    let mut outcome = Outcome::postponed(reason, &message);
    outcome.look_again_after = Some(wait);
    outcome
}

/// Looks whether it is committed all the same, before it is given up.
async fn give_up(run: &Run, search: Option<&Search>, context: &Context, now: Timestamp) -> Outcome {
    let Some(search) = search else { return Outcome::default() };
    let Some(_turn) = context.visits.turn(&search.store.name).await else {
        return Outcome::without_turn(&search.store);
    };
    let visit = Visit { run, store: &search.store, context };
    let answer = match visit.prepare().await {
        Ok(means) => {
            let visitor = means.visitor(now);
            visit.end(timeout(VISIT, search.look_for_commit(&visitor)).await)
        }
        Err(failure) => Answer::Unasked(failure),
    };
    let message = match answer {
        Answer::Done(Some(committed)) => return Outcome::committed(committed),
        Answer::Done(None) => return Outcome::default(),
        // Another's, or one that is not to be believed: it is not this backup's.
        Answer::Error(error) if error.reason().is_some() => return Outcome::default(),
        Answer::Error(error) => chain(&error),
        Answer::Unasked(failure) => failure.message,
    };
    let attempt = run.object.status.as_ref().and_then(|status| status.attempt.as_ref());
    let reading = attempt.and_then(|attempt| attempt.reading.as_ref());
    let may_be_committed = reading.is_some_and(|reading| reading.verified.is_some());
    let (times, wait) = visit.failed();
    if !may_be_committed || times >= LOOKS {
        warn!(error = message, "given up without knowing whether it is committed");
        return Outcome::default();
    }
    let message = format!("it is to be given up, and whether it is committed could not be seen: {message}");
    let mut outcome = Outcome::postponed(BackupReason::StoreUnavailable, &message);
    outcome.look_again_after = Some(wait);
    outcome
}

/// Takes away what was made for one Job: its credentials at once, the Job now or in a day.
async fn sweep(run: &Run, swept: &Swept, own_namespace: &str, cluster: &Cluster) -> Result<(), ClusterError> {
    let name = swept.part.name(&run.uid());
    let namespace = match swept.part {
        Part::Write { .. } => run.namespace.as_str(),
        Part::ReadBack { .. } => own_namespace,
    };
    let goes = match swept.part {
        Part::Write { .. } => Key::new(Kind::Secret, &name),
        Part::ReadBack { .. } => Key::new(Kind::ConfigMap, &name),
    };
    let uid = run.uid();
    let is_ours = |object: &DynamicObject| object.labels().get(BACKUP_LABEL) == Some(&uid);
    if let Some(standing) = live(&goes, namespace, cluster).await?.filter(is_ours) {
        cluster.delete(&goes, &standing).await?;
    }
    let key = Key::new(Kind::Job, &name);
    let is_the_one = |object: &DynamicObject| match &swept.job {
        SweptJob::Stopped(wanted) | SweptJob::Expires(wanted) => object.uid().as_ref() == Some(wanted),
        // The label is the operator's alone: admission refuses it to everybody else.
        SweptJob::Unknown => is_ours(object),
    };
    let Some(standing) = live(&key, namespace, cluster).await?.filter(is_the_one) else { return Ok(()) };
    match &swept.job {
        SweptJob::Stopped(_) | SweptJob::Unknown => cluster.delete(&key, &standing).await,
        SweptJob::Expires(_) if standing.data.pointer("/spec/ttlSecondsAfterFinished").is_some() => Ok(()),
        SweptJob::Expires(_) => cluster.expire_job(&key, &standing, KEPT).await,
    }
}

/// The object as it stands; nothing, where the operator has no access any more.
async fn live(key: &Key, namespace: &str, cluster: &Cluster) -> Result<Option<DynamicObject>, ClusterError> {
    match cluster.live(key, namespace).await {
        Err(error) if error.is_forbidden() => {
            warn!(object.kind = %key.kind, object.name = key.name, "may not look at what is to be taken away");
            Ok(None)
        }
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::ready,
        sync::{Arc, Mutex},
    };

    use ::http::{Method, Request, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        backup::{
            check::{self, tests::backup},
            sighting::PodSeen,
        },
        fake_api,
    };

    const UID: &str = "0b0e7c1a-6f0e-4a67-9d0e-3a5d4c1b2a39";

    #[test]
    fn a_store_that_did_not_answer_counts_for_its_breaker_and_one_that_refused_does_not() {
        for reason in [BackupReason::StoreUnavailable, BackupReason::TlsRefused] {
            assert!(is_of_the_store(reason), "{reason:?}");
        }
        for reason in [BackupReason::ClockSkewed, BackupReason::CredentialsRefused, BackupReason::StoreFull] {
            assert!(!is_of_the_store(reason), "{reason:?}");
        }
    }

    fn config(owner: &str, file: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "backup-1", "namespace": "journal-ada", "uid": "c", "ownerReferences": [{
                "apiVersion": "valv.eu/v1alpha1", "kind": "Backup", "name": "by-hand", "uid": owner,
                "controller": true }] },
            "immutable": true, "data": { "run.yaml": file },
        })
    }

    fn wanted() -> Wanted {
        Wanted { key: Key::new(Kind::ConfigMap, "backup-1"), value: config(UID, "ours") }
    }

    /// A server where `standing` has the name of what is to be made.
    fn with(standing: Value) -> Cluster {
        fake_api::cluster(fake_api::client(move |request: Request<Value>| {
            ready(if *request.method() == Method::POST {
                fake_api::refuse(StatusCode::CONFLICT, "AlreadyExists")
            } else {
                fake_api::respond(StatusCode::OK, &standing)
            })
        }))
    }

    #[tokio::test]
    async fn what_stands_under_the_name_is_used_only_if_it_is_just_what_was_to_be_made_and_ours() {
        let of = async |standing: Value| create(&wanted(), &with(standing)).await.unwrap();
        let mut going = config(UID, "ours");
        going["metadata"]["deletionTimestamp"] = json!("2026-11-22T09:30:05Z");
        let mut ownerless = config(UID, "ours");
        ownerless["metadata"]["ownerReferences"] = json!([]);
        let mut longer = config(UID, "ours");
        longer["data"]["tenant.yaml"] = json!("theirs");

        assert!(matches!(of(config(UID, "ours")).await, Created::Made(_)));
        for foreign in [config(UID, "theirs"), config("another", "ours"), going, ownerless, longer] {
            assert!(matches!(of(foreign.clone()).await, Created::Anothers), "{foreign}");
        }
    }

    #[tokio::test]
    async fn the_log_of_an_agent_is_read_every_five_seconds_while_it_runs() {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = asked.clone();
        let cluster = fake_api::cluster(fake_api::client(move |request: Request<Value>| {
            heard.lock().unwrap().push(request.uri().path().to_owned());
            let line = r#"{"timestamp":"2026-11-22T09:31:00Z","level":"INFO","message":"progress","stage":"Database","bytes":1,"total_bytes":2,"segments":3}"#;
            ready(::http::Response::new(line.to_owned().into_bytes().into()))
        }));
        let pod = PodSeen {
            uid: "p".to_owned(),
            name: "writer".to_owned(),
            has_started: true,
            end: None,
            waits_for: None,
            ends_by: None,
        };
        let running = Sighting { pod: Some(pod.clone()), ..Sighting::default() };
        let starting = Sighting { pod: Some(PodSeen { has_started: false, ..pod }), ..Sighting::default() };
        let told = |at: Option<&str>| {
            let mut object = backup("journal-ada", "by-hand", json!({})).as_ref().clone();
            let status = json!({ "progress": { "stage": "Database", "at": at } });
            object.status = Some(serde_json::from_value(status).unwrap());
            check::check(Arc::new(object))
        };
        let now = "2026-11-22T09:31:04Z".parse().unwrap();

        for (at, sighting, is_read) in [
            (None, &running, true),
            (Some("2026-11-22T09:30:59Z"), &running, true),
            (Some("2026-11-22T09:31:00Z"), &running, false),
            (None, &starting, false),
            (None, &Sighting::default(), false),
        ] {
            let seen = log(&told(at), sighting, "journal-ada", &cluster, now).await;

            assert_eq!(seen.and_then(|seen| seen.segment), is_read.then_some(3), "{at:?}");
            let asked = std::mem::take(&mut *asked.lock().unwrap());
            let path = "/api/v1/namespaces/journal-ada/pods/writer/log".to_owned();
            assert_eq!(asked, if is_read { vec![path] } else { vec![] }, "{at:?}");
        }
    }

    #[tokio::test]
    async fn a_job_whose_making_was_never_answered_is_stopped_by_its_name_and_its_label() {
        for (label, stopped) in [(UID, true), ("anothers", false)] {
            let asked: Arc<Mutex<Vec<String>>> = Arc::default();
            let heard = asked.clone();
            let cluster = fake_api::cluster(fake_api::client(move |request: Request<Value>| {
                let (path, method) = (request.uri().path().to_owned(), request.method().clone());
                heard.lock().unwrap().push(format!("{method} {path}"));
                let kind = if path.contains("/secrets/") { "Secret" } else { "Job" };
                ready(fake_api::respond(
                    StatusCode::OK,
                    &json!({
                        "apiVersion": "v1", "kind": kind,
                        "metadata": { "name": "x", "namespace": "journal-ada", "uid": "lost",
                            "resourceVersion": "1", "labels": { BACKUP_LABEL: label } },
                    }),
                ))
            }));
            let run = check::check(backup("journal-ada", "by-hand", json!({})));

            sweep(&run, &Swept { part: Part::Write { number: 1 }, job: SweptJob::Unknown }, "s", &cluster)
                .await
                .unwrap();

            let deleted = "DELETE /apis/batch/v1/namespaces/journal-ada/jobs/backup-0b0e7c1a6f0e4a67-1";
            assert_eq!(asked.lock().unwrap().iter().any(|one| one == deleted), stopped, "{label}");
        }
    }

    #[tokio::test]
    async fn credentials_go_by_name_and_only_the_job_that_the_status_names_is_stopped() {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = asked.clone();
        let cluster = fake_api::cluster(fake_api::client(move |request: Request<Value>| {
            let (path, method) = (request.uri().path().to_owned(), request.method().clone());
            heard.lock().unwrap().push(format!("{method} {path}"));
            let kind = if path.contains("/secrets/") { "Secret" } else { "Job" };
            ready(fake_api::respond(
                StatusCode::OK,
                &json!({
                    "apiVersion": "v1", "kind": kind,
                    "metadata": { "name": "x", "namespace": "journal-ada", "uid": "anothers", "resourceVersion": "1",
                        "labels": { BACKUP_LABEL: UID } },
                }),
            ))
        }));
        let run = check::check(backup("journal-ada", "by-hand", json!({})));
        let swept = Swept { part: Part::Write { number: 2 }, job: SweptJob::Stopped("ours".to_owned()) };

        sweep(&run, &swept, "valv-system", &cluster).await.unwrap();

        let name = "backup-0b0e7c1a6f0e4a67-2";
        assert_eq!(
            *asked.lock().unwrap(),
            [
                format!("GET /api/v1/namespaces/journal-ada/secrets/{name}"),
                format!("DELETE /api/v1/namespaces/journal-ada/secrets/{name}"),
                format!("GET /apis/batch/v1/namespaces/journal-ada/jobs/{name}"),
            ]
        );
    }
}
