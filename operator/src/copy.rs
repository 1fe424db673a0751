//! Copies of complete backups in the further stores of a policy. Check, observe, plan, apply, status; in rounds.
//!
//! | step    | file              | may touch                                        |
//! |---------|-------------------|--------------------------------------------------|
//! | check   | `copy/check.rs`   | nothing                                          |
//! | observe | `copy/observe.rs` | the cluster, reading                             |
//! | plan    | `copy/plan.rs`    | nothing                                          |
//! | plan    | `copy/room.rs`    | nothing: how many beside the backups             |
//! | objects | `copy/objects.rs` | nothing                                          |
//! | apply   | `copy/apply.rs`   | the cluster, the stores as reader and committer  |
//! | status  | `copy/status.rs`  | nothing                                          |
//!
//! The backup's own controller holds a backup for over once it is committed in the first store. What comes then is here:
//! for each further store a Job in the operator's namespace, where the credentials are, copies the ciphertext and reads it
//! back. The operator believes it nothing: it reads both manifests and every page of both indexes, and puts the store's
//! own commit when they are of the same backup. All that is remembered is in the Jobs, the `Backup`s and the buckets.
//!
//! One round looks at all: two listings of Jobs and pods, whatever the number of tenants.

pub mod apply;
pub mod check;
pub mod objects;
pub mod observe;
pub mod plan;
pub mod room;
pub mod status;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use kube::{
    ResourceExt,
    runtime::{events::Recorder, reflector::Store},
};
use tokio::{sync::OnceCell, time::timeout};
use tracing::{debug, instrument, warn};

use self::{check::Copy, plan::Step};
use crate::{
    backup::{
        apply::{is_there, standing},
        ledger::Ledger,
    },
    controllers::{Guarded, GuardedBackup, GuardedPolicy, GuardedStore},
    error::chain,
    io::{
        cluster::{self, Cluster},
        filled::Filled,
    },
    settings::Settings,
    signing::Signing,
    store::{breakers::Breakers, errands::Errands},
};

/// Time between two rounds.
const EVERY: Duration = Duration::from_secs(10);

/// Copies that are begun or committed side by side, from one store to another.
const AT_ONCE: usize = 4;

/// What may be done by a plan is done within this time.
const STALE_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// The longest step, the commit, reads every page of two indexes: some hundred requests for a terabyte.
const STEP: Duration = Duration::from_secs(600);

/// What this side could not do is tried again after this time.
const AFTER_A_FAILURE: Duration = Duration::from_secs(60);

/// What lies in a store and is not what it should be seldom changes by itself.
const AFTER_A_REFUSAL: Duration = Duration::from_secs(3600);

/// What all rounds share.
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
    /// What commits are signed with.
    pub signing: Signing,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// Whether each store is asked at all.
    pub breakers: Breakers,
    /// How many backups run to each store: copies take their room from the same limit.
    pub ledger: Ledger,
    /// Tells people what changed.
    pub recorder: Recorder,
    /// Copies that were refused or failed on this side, and when each is tried again. Lost with the process.
    pub resting: Mutex<BTreeMap<(String, String), Timestamp>>,
    /// Copies that an errand begins or is about to, and until when at the latest: their Jobs may not be there yet.
    pub beginning: Mutex<BTreeMap<(String, String), Timestamp>>,
    /// What tells this cluster from others, once it was asked for.
    pub cluster_id: OnceCell<String>,
    /// The clock, so that a test can hold it.
    pub now: fn() -> Timestamp,
}

impl Context {
    /// A panic elsewhere leaves nothing half done in it.
    fn resting(&self) -> MutexGuard<'_, BTreeMap<(String, String), Timestamp>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rest(&self, copy: &Copy, span: Duration) {
        let until = (self.now)().saturating_add(span).unwrap_or(Timestamp::MAX);
        self.resting().insert(copy.key(), until);
    }

    /// A panic elsewhere leaves nothing half done in it.
    fn beginning(&self) -> MutexGuard<'_, BTreeMap<(String, String), Timestamp>> {
        self.beginning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `copy` takes a place until then, if it is to be begun.
    fn begins(&self, copy: &Copy, step: &Step, until: Timestamp) {
        if matches!(step, Step::Begins { .. }) {
            self.beginning().insert(copy.key(), until);
        }
    }
}

/// From which store to which: what is slow there keeps no other copies waiting.
type Way = (String, String);

fn way(copy: &Copy) -> Way {
    (copy.source.name.clone(), copy.target.name.clone())
}

/// Takes rounds. Never ends.
pub async fn run(context: Arc<Context>, filled: Filled) {
    filled.wait().await;
    let context = context.as_ref();
    let mut errands = Errands::default();
    loop {
        take_round(context, &mut errands).await;
        errands.go_on_for(EVERY).await;
    }
}

/// Looks at all copies and begins what is next on each way that is free. What is under way goes on meanwhile: a cluster that
/// is slow to say which Jobs there are must not keep the stores waiting.
async fn take_round<'a>(context: &'a Context, errands: &mut Errands<'a, Way>) {
    let under_way = errands.under_way();
    match errands.go_on_until(round(context, |way| under_way.contains(way))).await {
        Ok(ways) => {
            // What is left undone on the others is planned anew when that is over.
            for (way, steps) in ways.into_iter().filter(|(way, _)| !under_way.contains(way)) {
                errands.begin(way, go(steps, context));
            }
        }
        Err(error) => warn!(error = chain(&error), "failed to look at the copies, trying again"),
    }
}

/// The next step of every copy, by the way that it goes. Those of a way that is under way rest: a place that is given to
/// one that nobody begins is taken from the others, and from the backups.
///
/// # Errors
/// If Jobs or pods cannot be listed: then nothing is known of any copy.
async fn round(
    context: &Context,
    is_under_way: impl Fn(&Way) -> bool,
) -> Result<BTreeMap<Way, Vec<(Copy, Step)>>, cluster::Error> {
    let now = (context.now)();
    let copies = check::copies(context);
    if copies.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut jobs = observe::observe(context, now).await?;
    let resting = {
        let mut resting = context.resting();
        resting.retain(|_, until| *until > now);
        resting.clone()
    };
    let rests = |copy: &Copy| resting.contains_key(&copy.key()) || is_under_way(&way(copy));
    for (copy, seen) in copies.iter().filter_map(|copy| Some((copy, jobs.get(&copy.key())?))) {
        if let Some((store, ended)) = seen.unanswered([&copy.source.name, &copy.target.name]) {
            context.breakers.told(store, &seen.name, ended.unwrap_or(now), now);
        }
    }
    let beginning: Vec<(String, String)> = {
        let mut beginning = context.beginning();
        beginning.retain(|_, until| *until > now);
        beginning.keys().cloned().collect()
    };
    observe::count_as_begun(&mut jobs, beginning);
    let steps = plan::plan(
        copies,
        &jobs,
        |store| context.breakers.status(store).state,
        rests,
        context.settings.location.as_ref(),
        context.settings.backups.concurrent_copies.into(),
        now,
    );
    let steps = context.ledger.copies(
        || standing(&context.backups),
        |uid, place| is_there(uid, place, &context.backups),
        |backups| room::heed(steps, &jobs, backups),
    );
    let mut ways: BTreeMap<Way, Vec<(Copy, Step)>> = BTreeMap::new();
    for (copy, step) in steps {
        ways.entry(way(&copy)).or_default().push((copy, step));
    }
    Ok(ways)
}

/// Brings the copies of one way one step further.
async fn go(steps: Vec<(Copy, Step)>, context: &Context) {
    let planned = (context.now)();
    let stale = planned.saturating_add(STALE_AFTER).unwrap_or(Timestamp::MAX);
    for (copy, step) in &steps {
        context.begins(copy, step, stale);
    }
    stream::iter(steps)
        .for_each_concurrent(AT_ONCE, async |(copy, step)| {
            let now = (context.now)();
            // It was planned by what was seen then: the next round looks again.
            if now > stale {
                return;
            }
            context.begins(&copy, &step, now.saturating_add(STEP).unwrap_or(Timestamp::MAX));
            let stepped = timeout(STEP, step_on(&copy, &step, context, now)).await;
            // Its Job is there by now, or there is none.
            context.beginning().remove(&copy.key());
            let why = match stepped {
                Ok(Ok(())) => return,
                Ok(Err(error)) => chain(&error),
                Err(_) => format!("the stores did not answer all within {} s", STEP.as_secs()),
            };
            context.rest(&copy, AFTER_A_FAILURE);
            warn!(
                object.kind = "Backup",
                object.namespace = copy.backup.namespace().unwrap_or_default(),
                object.name = copy.backup.name_any(),
                store.name = copy.target.name,
                error = why,
                "failed to bring a copy further, trying again"
            );
        })
        .await;
}

#[instrument(name = "copies", skip_all, fields(
    object.kind = "Backup",
    object.name = copy.backup.name_any(),
    object.namespace = copy.backup.namespace().unwrap_or_default(),
    store.name = copy.target.name,
))]
async fn step_on(copy: &Copy, step: &Step, context: &Context, now: Timestamp) -> Result<(), apply::Error> {
    debug!(?step, "a copy");
    let outcome = apply::apply(copy, step, context, now).await?;
    if outcome.refused.is_some() {
        context.rest(copy, AFTER_A_REFUSAL);
    }
    status::tell(copy, step, &outcome, context, now).await.map_err(apply::Error::Cluster)?;
    // Only what was told is taken away: a crash before finds the Job again.
    apply::tidy(step, &outcome, context).await
}

#[cfg(test)]
mod tests;
