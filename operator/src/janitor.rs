//! The janitor: what is kept, for how long, and what goes. Check, observe, plan, apply, status.
//!
//! | step    | file                 | may touch                                        |
//! |---------|----------------------|--------------------------------------------------|
//! | rounds  | `janitor/rounds.rs`  | nothing: says whose turn it is                   |
//! | places  | `janitor/places.rs`  | nothing: says who is looked at, and who waits    |
//! | check   | `janitor/check.rs`   | nothing                                          |
//! | observe | `janitor/observe.rs` | the store as its reader, the cluster, reading    |
//! | plan    | `janitor/plan.rs`    | nothing                                          |
//! |         | `janitor/garbage.rs`, `janitor/damage.rs` | nothing                     |
//! | clock   | `janitor/clock.rs`   | the store, as nobody                             |
//! | apply   | `janitor/apply.rs`   | locks as committer, deletes as janitor           |
//! | status  | `janitor/status.rs`  | nothing                                          |
//!
//! Its subject is a *ward*: one archive in one store. A tenant's archive is a ward in each store of its policy. An
//! archive that no tenant has is one too, kept by the [terms](crate::archive::terms) that lie in it. Each ward is looked
//! at once a day, at a moment that is drawn anew for each day, so that no hour in which the operator is away strikes the
//! same ones; and soon after a backup was committed there. Nothing needs to be remembered but in the bucket.
//!
//! [`history`] is what the catalogue means for the `Backup` objects: old ones go, lost ones come back.
//!
//! # Guarantees
//! - Locks are extended before anything is deleted, and a lock that cannot be extended ends the look.
//! - Nothing is made longer or deleted while the operator's clock is not the store's, or in another cluster's archive.
//! - Nothing is deleted where the catalogue could not be read as a whole, or lacks what should be in it.
//! - What looks as if its commit had been lost is deleted by somebody's word only.
//! - What was never judged is not deleted: see [`crate::archive::erase`].

pub mod apply;
pub mod check;
pub mod clock;
pub mod damage;
pub mod garbage;
pub mod history;
pub mod observe;
pub mod places;
pub mod plan;
pub mod rounds;
pub mod status;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::runtime::{events::Recorder, reflector::Store};
use tokio::{sync::OnceCell, time::timeout};
use tracing::{info, instrument, warn};
use valv_crds::reference::TAKE_OVER_ARCHIVE_ANNOTATION;

use self::{
    check::Ward,
    garbage::Garbage,
    observe::{Access, Seen, Whose},
    places::{Errand, Places},
    plan::Plan,
    rounds::{Came, Memory, Reach, Subject, Trouble, Turns},
};
use crate::{
    archive::{
        canonical,
        catalogue::{self, DataFolders},
        erase, fetch,
        layout::ArchiveId,
        lock,
        terms::Terms,
    },
    controllers::{Guarded, GuardedBackup, GuardedPolicy, GuardedStore},
    error::chain,
    io::{
        bucket::{self, SettingsError},
        cluster::{self, Cluster},
        filled::Filled,
    },
    schedule::ScheduleError,
    settings::Settings,
    signing::{self, Signing},
    store::{
        breakers::Breakers,
        check::Store as CheckedStore,
        errands::Errands,
        gate::{self, Held},
        observe::Unresolved,
    },
};

/// The longest look: one that makes the locks of a terabyte longer asks for 65,000 objects.
const LOOK: Duration = Duration::from_secs(3600);

/// What all looks share.
pub struct Context {
    /// The cluster, to write to.
    pub cluster: Cluster,
    /// All tenants.
    pub tenants: Store<Guarded>,
    /// All policies.
    pub policies: Store<GuardedPolicy>,
    /// All stores.
    pub stores: Store<GuardedStore>,
    /// All backups.
    pub backups: Store<GuardedBackup>,
    /// What commits and terms are signed with.
    pub signing: Signing,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// Whether each store is asked at all.
    pub breakers: Breakers,
    /// Tells people what changed.
    pub recorder: Recorder,
    /// Whose turn was when. Lost with the process, and needed by nobody else.
    pub memory: Mutex<Memory>,
    /// What tells this cluster from others, once it was asked for.
    pub cluster_id: OnceCell<String>,
    /// The clock, so that a test can hold it.
    pub now: fn() -> Timestamp,
}

/// Why one look stopped. What was done by then stands, and the next look goes on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster could not be read or written.
    #[error("failed to ask the cluster")]
    Cluster(#[source] cluster::Error),
    /// The store's credentials are not there.
    #[error("failed to find the store's credentials")]
    Credentials(#[source] Unresolved),
    /// The store's settings cannot be used.
    #[error("failed to prepare the store {store}")]
    Settings {
        /// Which store.
        store: String,
        /// Why not.
        source: SettingsError,
    },
    /// The signing key could not be had: nobody can say what is a commit.
    #[error("failed to get the signing key")]
    Signing(#[source] signing::Error),
    /// The archive could not be read as a whole.
    #[error("failed to read the catalogue")]
    Catalogue(#[source] Box<catalogue::Error>),
    /// A manifest could not be read.
    #[error("failed to read what a backup builds on")]
    Lineage(#[source] Box<fetch::Error>),
    /// The record of whose it is could not be read.
    #[error("failed to find out whose the archive is")]
    Owner(#[source] Box<fetch::Error>),
    /// What there is could not be listed.
    #[error("failed to list the store")]
    List(#[source] bucket::Error),
    /// The calendar of the terms.
    #[error("failed to find the time zone of the terms")]
    TimeZone(#[source] ScheduleError),
    /// A lock could not be made longer, so nothing was deleted.
    #[error("failed to extend the locks of {slot}; nothing was deleted")]
    Extend {
        /// Of which backup.
        slot: valv_crds::Slot,
        /// Why not.
        source: Box<lock::Error>,
    },
    /// Something could not be deleted, for another reason than a lock.
    #[error("failed to delete {what}")]
    Erase {
        /// What.
        what: String,
        /// Why not.
        source: Box<erase::Error>,
    },
    /// The store failed too often lately.
    #[error("{store} failed too often and is left alone until {until}")]
    Resting {
        /// Which store.
        store: String,
        /// Until when.
        until: Timestamp,
    },
    /// It takes too long.
    #[error("failed to do all within {} s; the next look goes on", LOOK.as_secs())]
    TooLong,
    /// The terms could not be written.
    #[error("failed to write the terms")]
    Record(#[source] bucket::Error),
    /// The operator's clock or the store's is wrong.
    #[error("failed to rely on the time")]
    Clock(#[source] Box<clock::Error>),
    /// The archive is another cluster's.
    #[error(
        "the archive {archive} belongs to {by}: it is left alone; if this tenant is to go on with it, give the tenant the annotation {TAKE_OVER_ARCHIVE_ANNOTATION}: {archive}"
    )]
    Another {
        /// Which archive.
        archive: ArchiveId,
        /// Whose it is, in words.
        by: String,
    },
    /// What should be there cannot be known.
    #[error(
        "{versions} versions of the register lie there and none is to be believed: is the signing key the one that signed them?"
    )]
    Register {
        /// So many.
        versions: usize,
    },
    /// The terms have no canonical form.
    #[error("failed to describe the terms")]
    Describe(#[source] canonical::Error),
}

impl Error {
    /// Whether the store was asked for the time and did not answer.
    fn is_unanswered(&self) -> bool {
        matches!(self, Self::Clock(source) if matches!(source.as_ref(), clock::Error::Ask(_)))
    }

    /// Whether it may be another in a moment: then it is tried again soon.
    fn trouble(&self) -> Trouble {
        let is_of_the_store = self.of_store().is_some_and(bucket::Error::is_of_the_store);
        let is_passing = is_of_the_store
            || self.is_unanswered()
            || matches!(self, Self::Resting { .. } | Self::TooLong | Self::Cluster(_));
        if is_passing { Trouble::Passing } else { Trouble::Lasting }
    }

    /// What the store answered, if it was the store.
    fn of_store(&self) -> Option<&bucket::Error> {
        match self {
            Self::Catalogue(source) => source.of_store(),
            Self::Lineage(source) | Self::Owner(source) => match source.as_ref() {
                fetch::Error::Store(error) => Some(error),
                fetch::Error::Broken(_)
                | fetch::Error::Commit { .. }
                | fetch::Error::Manifest { .. }
                | fetch::Error::Worker { .. } => None,
            },
            Self::List(error) | Self::Record(error) => Some(error),
            Self::Extend { source, .. } => source.of_store(),
            Self::Erase { source, .. } => source.of_store(),
            Self::Cluster(_)
            | Self::Resting { .. }
            | Self::TooLong
            | Self::Credentials(_)
            | Self::Settings { .. }
            | Self::Signing(_)
            | Self::TimeZone(_)
            | Self::Clock(_)
            | Self::Another { .. }
            | Self::Register { .. }
            | Self::Describe(_) => None,
        }
    }
}

/// Looks at each ward when its turn comes. Never ends.
pub async fn run(context: Arc<Context>, filled: Filled) {
    // A backup that runs must not look as if it did not.
    filled.wait().await;
    let context = context.as_ref();
    let turns = Turns { began: (context.now)() };
    let places = Places::default();
    let look = move |ward: Ward| async move { take_turn(&ward, context).await };
    let mut errands = Errands::default();
    loop {
        let now = (context.now)();
        places.queue(due(context, turns, now, |subject| places.is_looked_at(&subject.key)));
        for store in observe::stores(context) {
            let stocktaking = Errand::Stocktaking { store: store.name.clone() };
            let is_due = turns.is_stocktaking_due(&store.name, now, &context.memory());
            let is_left_alone = context.breakers.left_alone_until(&store.name, now).is_some();
            places.fill(&store.name, &mut errands, look);
            if is_due && !is_left_alone && !errands.is_under_way(&stocktaking) {
                errands.begin(stocktaking, take_stock(store, context));
            }
        }
        errands.go_on_for(rounds::EVERY).await;
    }
}

/// Those whose turn it is and who are not looked at yet, of each store a few, for what is seen of a ward is soon old; who
/// is to be looked at first comes first.
fn due(
    context: &Context,
    turns: Turns,
    now: Timestamp,
    is_looked_at: impl Fn(&Subject) -> bool,
) -> Vec<((String, ArchiveId), Ward)> {
    let mut subjects = Vec::new();
    observe::wards(context, now, |subject| {
        // Most are not due: those are not kept.
        if !is_looked_at(subject) && turns.turn(subject, now, &context.memory()).is_some() {
            subjects.push(subject.clone());
        }
        None
    });
    if subjects.is_empty() {
        return vec![];
    }
    let first = turns.due(subjects, now, &context.memory());
    let first: BTreeMap<_, _> =
        first.into_iter().enumerate().map(|(rank, (key, reach))| (key, (rank, reach))).collect();
    let wards = observe::wards(context, now, |subject| first.get(&subject.key).map(|(_, reach)| *reach));
    let mut due: Vec<_> = wards.into_iter().map(|ward| (ward.key(), ward)).collect();
    due.sort_by_key(|(key, _)| first.get(key).map(|(rank, _)| *rank));
    due
}

/// Looks which archives a store has.
async fn take_stock(store: CheckedStore, context: &Context) {
    let now = (context.now)();
    match observe::archives(context, &store).await {
        Ok(archives) => context.memory().took_stock(&store.name, archives, now),
        Err(error) => warn!(
            store.name = store.name,
            error = chain(&error),
            "failed to list the archives of a store, trying again"
        ),
    }
}

async fn take_turn(ward: &Ward, context: &Context) {
    let subject = Subject::of(ward);
    let looked = look(ward, context).await;
    let ended = (context.now)();
    match looked {
        Ok(came) => context.memory().looked(&subject, ward.reach, ended, came),
        Err(error) => {
            context.memory().failed(&subject, ended, error.trouble());
            status::tell_failure(ward, &error, context).await;
            warn!(
                archive = %ward.archive,
                store.name = ward.store.name,
                error = chain(&error),
                "failed to look after an archive, trying again"
            );
        }
    }
}

/// Looks at one ward, and brings it to what its terms say. Says what waits for somebody.
///
/// # Errors
/// What was done by then stands.
#[instrument(name = "janitor", skip_all, fields(
    archive = %ward.archive,
    store.name = ward.store.name,
    reach = ?ward.reach,
))]
pub async fn look(ward: &Ward, context: &Context) -> Result<Came, Error> {
    let now = (context.now)();
    let store = &ward.store.name;
    // Before anything is asked for it, in the cluster too.
    if let Some(until) = context.breakers.left_alone_until(store, now) {
        return Err(Error::Resting { store: store.clone(), until });
    }
    let access = observe::access(ward, context).await?;
    gate::enter(&context.breakers, store, &access.committer, context.now)
        .await
        .map_err(|Held { store, until }| Error::Resting { store, until })?;
    let looked = timeout(LOOK, look_once(ward, &access, context, now)).await.unwrap_or(Err(Error::TooLong));
    let ended = (context.now)();
    match &looked {
        Ok(_) => context.breakers.answered(store, ended),
        Err(error) => match error.of_store() {
            Some(error) if error.is_of_the_store() => context.breakers.failed(store, ended),
            Some(_) => context.breakers.answered(store, ended),
            // It was not asked, or nobody knows whether it answered.
            None if error.is_unanswered() => context.breakers.failed(store, ended),
            // What went wrong on this side says nothing of the store.
            None => {}
        },
    }
    looked
}

async fn look_once(
    ward: &Ward,
    access: &observe::Access,
    context: &Context,
    now: Timestamp,
) -> Result<Came, Error> {
    clock::compare(&access.settings, context.now).await.map_err(|source| Error::Clock(Box::new(source)))?;
    let whose = observe::whose(ward, access, context).await?;
    if let (Whose::Another(by), None) = (&whose, &ward.tenant) {
        info!(by, "the archive is another cluster's: it is left alone");
        return Ok(Came::default());
    }
    let mut seen = observe::observe(ward, access, context).await?;
    let lifted = seen.recorded.clone().map(|terms| check::without_lifted(terms, &ward.store));
    let Some(terms) = ward.terms.clone().or(lifted) else {
        info!("an archive without a tenant has no terms that this operator signed: it is left alone");
        return Ok(Came::default());
    };
    let mut plan = plan::plan(&terms, &ward.store, &seen, now).map_err(Error::TimeZone)?;
    if !plan.delete.is_empty() && ward.reach != Reach::Whole {
        // Nothing goes because of a manifest that was read last week: what is left must be good now.
        seen.lineage = observe::lineage(&seen.catalogue, access, &HashSet::new()).await?;
        // Nor is what was read last week remembered: what is broken by now is read, and said, at each look.
        seen.read.manifests = observe::alone(&seen.catalogue, &seen.lineage);
        plan = plan::plan(&terms, &ward.store, &seen, now).map_err(Error::TimeZone)?;
    }
    if let Whose::Another(by) = &whose {
        plan.leave_alone();
        let outcome = apply::apply(ward, access, &seen, &plan, context, now).await;
        outcome.failure.map_or(Ok(()), Err)?;
        return Err(Error::Another { archive: ward.archive.clone(), by: by.clone() });
    }
    let mut outcome = apply::apply(ward, access, &seen, &plan, context, now).await;
    let mut finding = None;
    if outcome.failure.is_none() && plan.missing.is_empty() {
        let swept = sweep(ward, access, &terms, (&seen, &plan), context, &mut outcome).await;
        match swept {
            // One question at a time: the backups first.
            Ok(Swept { waits, crowded }) => {
                plan.waits = plan.waits.take().or(waits);
                finding = crowded;
            }
            Err(error) => outcome.failure = Some(error),
        }
    }
    if outcome.failure.is_none() {
        remember(ward, &seen, &plan, &outcome, context);
    }
    let came =
        Came { awaits: plan.waits.as_ref().map(|waits| waits.digest.clone()), finding: finding.clone() };
    let told = status::tell(ward, &seen, &plan, &outcome, finding, context).await;
    outcome.failure.map_or(Ok(()), Err)?;
    told.map_err(Error::Cluster)?;
    Ok(came)
}

/// Notes what need not be read again: only when what it led to is written down.
fn remember(ward: &Ward, seen: &Seen, plan: &Plan, outcome: &apply::Outcome, context: &Context) {
    let mut known = seen.read.clone();
    match (&plan.register, &outcome.registered) {
        (_, Some(version)) => known.register.clone_from(version),
        (None, None) => {}
        // It was to be written, and another leads by now.
        (Some(_), None) => return,
    }
    context.memory().read(ward.key(), known);
}

/// What came of looking for what nobody committed.
struct Swept {
    waits: Option<plan::Waits>,
    crowded: Option<String>,
}

/// Takes away what attempts left. Last of all: however much somebody has put there, the rest is done by then.
async fn sweep(
    ward: &Ward,
    access: &Access,
    terms: &Terms,
    (seen, plan): (&Seen, &Plan),
    context: &Context,
    outcome: &mut apply::Outcome,
) -> Result<Swept, Error> {
    let now = (context.now)();
    let DataFolders { folders, slots, crowded } = observe::folders(ward, seen, access).await?;
    let register = plan.register.as_ref().or(seen.register.as_ref());
    let mut candidates = garbage::candidates(terms, seen, &folders, now);
    candidates.truncate(garbage::MOST);
    let whole = observe::whole(&candidates, access).await?;
    let Garbage { delete, waits, word } =
        garbage::plan(&ward.store.name, terms, seen, register, &candidates, &whole);
    let is_listed = crowded.is_none();
    let next =
        register.and_then(|register| garbage::settle(register, word, is_listed.then_some(&slots), now));
    // Before anything goes: if the rest fails, somebody is asked anew.
    if let Some(next) = next
        && context.cluster.leads().is_ok()
    {
        outcome.registered = Some(apply::enter(ward, &next, seen, access, now).await?);
    }
    apply::erase(&delete, garbage::age(terms), ward, access, context, outcome).await?;
    Ok(Swept { waits, crowded })
}

impl Context {
    /// A panic elsewhere leaves nothing half done in it.
    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
