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
use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::{events::Recorder, reflector::Store},
};
use tokio::{sync::OnceCell, time::sleep};
use tracing::{debug, instrument, warn};
use valv_crds::backup::BackupReason;

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
    store::breakers::Breakers,
};

/// Time between two rounds.
const EVERY: Duration = Duration::from_secs(10);

/// Copies that are begun or committed side by side: each asks two stores.
const AT_ONCE: usize = 4;

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
}

/// Takes rounds. Never ends.
pub async fn run(context: Arc<Context>, filled: Filled) {
    filled.wait().await;
    loop {
        if let Err(error) = round(&context).await {
            warn!(error = chain(&error), "failed to look at the copies, trying again");
        }
        sleep(EVERY).await;
    }
}

/// Brings every copy one step further.
///
/// # Errors
/// If Jobs or pods cannot be listed: then nothing is known of any copy.
pub async fn round(context: &Context) -> Result<(), cluster::Error> {
    let now = (context.now)();
    let copies = check::copies(context);
    if copies.is_empty() {
        return Ok(());
    }
    let jobs = observe::observe(context).await?;
    let resting = {
        let mut resting = context.resting();
        resting.retain(|_, until| *until > now);
        resting.clone()
    };
    let rests = |copy: &Copy| resting.contains_key(&copy.key());
    let steps = plan::plan(
        copies,
        &jobs,
        |store| context.breakers.status(store).state,
        rests,
        context.settings.location.as_ref(),
        now,
    );
    for (copy, step) in &steps {
        if let Step::Failed { number, failure } = step
            && failure.reason == BackupReason::StoreUnavailable
        {
            let (backup, store) = copy.key();
            context.breakers.told(&store, &format!("copy {backup} {number}"), now);
        }
    }
    let steps = context.ledger.copies(
        || standing(&context.backups),
        |uid, place| is_there(uid, place, &context.backups),
        |backups| room::heed(steps, &jobs, backups),
    );
    stream::iter(steps)
        .for_each_concurrent(AT_ONCE, async |(copy, step)| {
            if let Err(error) = step_on(&copy, &step, context, now).await {
                context.rest(&copy, AFTER_A_FAILURE);
                warn!(
                    object.kind = "Backup",
                    object.namespace = copy.backup.namespace().unwrap_or_default(),
                    object.name = copy.backup.name_any(),
                    store.name = copy.target.name,
                    error = chain(&error),
                    "failed to bring a copy further, trying again"
                );
            }
        })
        .await;
    Ok(())
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
