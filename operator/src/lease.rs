//! Which one of several operators works: leader election over one `coordination.k8s.io/v1` Lease.
//!
//! | file                | what                                              | may touch |
//! |---------------------|---------------------------------------------------|-----------|
//! | `lease/decision.rs` | record, when it was seen, now → what to do        | nothing   |
//! | `lease/elector.rs`  | reads and writes the Lease; tells [`Leadership`]  | the Lease |
//! | `lease/term.rs`     | one term: acquire, work, stop or lose, release    | nothing   |
//!
//! # Guarantees
//! - **At most one writes.** A contender takes over no earlier than the Lease's duration after it *saw*
//!   the record change, or vanish, by its own monotonic clock; clocks of machines are never compared. A leader's
//!   [`Leadership::check`] fails [`SAFETY_MARGIN`] before that, counted from the *start* of the last renewal
//!   that succeeded, which is no later than anybody can have seen it. The check is made before every write,
//!   so a process that was frozen (`SIGSTOP`, a starved node) and thawed writes nothing more.
//! - **What the fence cannot do.** A request that was sent before the fence fell may be carried out after it,
//!   by as much as the network and the API server delay it. The margin is for that; a request that got no answer
//!   within 10 s is given up (`io/cluster.rs`), a process that has not renewed for as long ends, and none is resent
//!   by the client library (`main.rs` turns that off). What is replaced, marked or taken away carries the version or
//!   the UID that was seen. A creation cannot: arriving late, it is drift, which the next leader mends. A *suspended*
//!   machine stops its monotonic clock too; after it resumes, the next renewal meets a conflict and the term ends.
//! - **Nothing is written but what is needed.** Followers only read. The leader's one write is its renewal.
//! - **Losing is final.** A process that lost the Lease does not try again: its caches, its reconciliations
//!   in flight and its idea of the world belong to a term that is over. It exits, and the kubelet starts it as
//!   a follower with nothing to unlearn. So [`Leadership`] goes one way only: none, leading, ended.

mod decision;
mod elector;
mod term;

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep_until};

pub use self::{
    decision::{Decision, Record, decide},
    elector::{Elector, Error, Lost},
    term::{End, Stop, lead},
};

/// How long before a contender may take over a leader ceases to write: time for a write that is on its way
/// to arrive.
pub const SAFETY_MARGIN: Duration = Duration::from_secs(3);

/// The times of the election. The defaults are client-go's, but for the renewal, which is rarer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a Lease that is not renewed still holds. Written to the Lease, rounded up to whole seconds.
    pub duration: Duration,
    /// Time between two renewals.
    pub renew_every: Duration,
    /// A leader that has not renewed for this long gives up. Less than `duration` − `safety_margin`.
    pub renew_deadline: Duration,
    /// Longest time between two tries, of a follower to acquire and of a leader to renew; the actual time is
    /// between half of it and all of it, at random, so that contenders do not walk in step.
    pub retry: Duration,
    /// How long one request may take.
    pub request: Duration,
    /// See [`SAFETY_MARGIN`].
    pub safety_margin: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_every: Duration::from_secs(5),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
            request: Duration::from_secs(3),
            safety_margin: SAFETY_MARGIN,
        }
    }
}

/// Where this process stands in the election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The Lease was not read yet, or cannot be read.
    Unknown,
    /// Another leads, or nobody yet; this process waits.
    Following {
        /// The holder that the Lease names.
        leader: Option<String>,
        /// When the Lease was last read.
        read_at: std::time::Instant,
    },
    /// This process leads, and may write until then.
    Leading {
        /// When writing must cease, unless the Lease is renewed before.
        until: std::time::Instant,
    },
    /// This process led and does so no more. Final.
    Ended,
}

/// The right to write. Cheap to clone; every clone says the same.
#[derive(Clone, Debug)]
pub struct Leadership {
    standing: watch::Receiver<Standing>,
    /// Keeps the channel of a leadership without an elector open.
    _kept: Option<Arc<watch::Sender<Standing>>>,
}

impl Leadership {
    pub(crate) fn new(standing: watch::Receiver<Standing>) -> Self {
        Self { standing, _kept: None }
    }

    /// A leadership that no Lease stands behind and that lasts until `until`: for unit tests.
    #[cfg(test)]
    pub fn lasting_until(until: std::time::Instant) -> Self {
        let (kept, standing) = watch::channel(Standing::Leading { until });
        Self { standing, _kept: Some(Arc::new(kept)) }
    }

    /// The fence: whether this process may write *now*. To be asked right before every single write.
    ///
    /// # Errors
    /// [`NotLeader`] if it may not: it never led, could not renew in time, stood still for too long, or ended
    /// its term.
    pub fn check(&self) -> Result<(), NotLeader> {
        let now = std::time::Instant::now();
        match *self.standing.borrow() {
            Standing::Leading { until } if now < until => Ok(()),
            Standing::Leading { until } => Err(NotLeader::NotRenewed { since: now - until }),
            Standing::Unknown | Standing::Following { .. } => Err(NotLeader::Following),
            Standing::Ended => Err(NotLeader::Ended),
        }
    }

    /// Where this process stands, for health pages.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Completes once this process led and does so no more, or can never lead any more.
    ///
    /// A future for a controller's shutdown; it is the fence, [`Leadership::check`], that keeps writes out.
    pub async fn lost(&self) {
        let mut standing = self.standing.clone();
        loop {
            let current = standing.borrow_and_update().clone();
            match current {
                Standing::Ended => return,
                Standing::Leading { until } if std::time::Instant::now() >= until => return,
                Standing::Leading { until } => {
                    tokio::select! {
                        changed = standing.changed() => if changed.is_err() { return },
                        () = sleep_until(until.into()) => {}
                    }
                }
                Standing::Unknown | Standing::Following { .. } => {
                    if standing.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// A write was refused here, in this process: it is not the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLeader {
    /// It never led.
    #[error("this operator is not the leader")]
    Following,
    /// It led, and its right to write ran out before it was renewed.
    #[error("this operator's leadership ran out {} ms ago without a renewal", since.as_millis())]
    NotRenewed {
        /// How long ago.
        since: Duration,
    },
    /// Its term is over.
    #[error("this operator's term as leader is over")]
    Ended,
}

#[cfg(test)]
mod tests;
