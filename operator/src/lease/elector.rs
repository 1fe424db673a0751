//! Reads and writes the Lease, and tells every [`Leadership`] what came of it.

use std::{collections::BTreeMap, future::Future, time::Duration, time::Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{Decision, Leadership, Record, Standing, Timing, decide};
use crate::error::chain;

/// Owner of the Lease's fields.
const FIELD_MANAGER: &str = "valv-lease";

/// How often a release that meets a conflict is tried again: its one honest cause is our own renewal that was
/// still under way.
const RELEASE_TRIES: u8 = 3;

/// The Lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read.
    #[error("failed to read Lease {namespace}/{name}")]
    Read {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// It could not be written.
    #[error("failed to write Lease {namespace}/{name}")]
    Write {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// It was changed by somebody else since it was read.
    #[error("failed to write Lease {namespace}/{name}: it changed since it was read")]
    Conflict {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// No answer came in time. A write may have been carried out all the same.
    #[error("failed to get an answer about Lease {namespace}/{name} within {} ms", after.as_millis())]
    TimedOut {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// How long was waited.
        after: Duration,
    },
}

/// The Lease as it was last seen.
struct Seen {
    /// `None` if it was not there.
    lease: Option<Lease>,
    /// When it was first seen with the `spec` it has, or gone.
    at: Instant,
}

/// One contender for the Lease.
pub struct Elector {
    leases: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    timing: Timing,
    /// For the times in the Lease, which people read; no decision hangs on them.
    clock: fn() -> Timestamp,
    standing: watch::Sender<Standing>,
    seen: Option<Seen>,
    /// When the last renewal that succeeded began.
    renewed_at: Option<Instant>,
}

impl Elector {
    /// A contender named `identity` for the Lease `namespace`/`name`.
    ///
    /// `identity` must be unique to this *process*, not to its pod: a container that is restarted in its pod
    /// must not take the Lease of the process before it, or of a copy that somebody runs elsewhere, for its own.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        timing: Timing,
        clock: fn() -> Timestamp,
    ) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            timing,
            clock,
            standing: watch::Sender::new(Standing::Unknown),
            seen: None,
            renewed_at: None,
        }
    }

    /// The right to write that this contender wins, or does not.
    pub fn leadership(&self) -> Leadership {
        Leadership::new(self.standing.subscribe())
    }

    /// Completes once this process leads. Errors are logged, and tried again for ever.
    pub async fn acquire(&mut self) {
        let mut failing = false;
        loop {
            let started = Instant::now();
            let wait = match self.try_to_acquire().await {
                Ok(Decision::Wait { until }) => {
                    failing = false;
                    self.pause().min(until.saturating_duration_since(Instant::now()))
                }
                Ok(Decision::Acquire | Decision::Renew) => {
                    self.lead_since(started);
                    info!(lease.identity = self.identity, "became the leader");
                    return;
                }
                Err(Error::Conflict { .. }) => {
                    debug!("another contender changed the lease first");
                    self.pause()
                }
                Err(error) => {
                    if failing {
                        debug!(error = chain(&error), "failed to acquire the lease");
                    } else {
                        warn!(error = chain(&error), "failed to acquire the lease; trying on");
                    }
                    failing = true;
                    self.pause()
                }
            };
            sleep(wait).await;
        }
    }

    /// Reads the Lease and takes it if it is free. [`Decision::Wait`] if it is not.
    async fn try_to_acquire(&mut self) -> Result<Decision, Error> {
        self.read().await?;
        let now = Instant::now();
        let (record, at) = match &self.seen {
            Some(Seen { lease, at }) => (Record::of(lease.as_ref(), self.timing.duration), *at),
            None => (Record::Absent, now),
        };
        let leader = record.holder().map(str::to_owned);
        let knew =
            matches!(&*self.standing.borrow(), Standing::Following { leader: known, .. } if *known == leader);
        if let Some(leader) = leader.as_deref().filter(|_| !knew) {
            info!(lease.holder = leader, "following the leader");
        }
        self.standing.send_replace(Standing::Following { leader, read_at: now });
        let decision = decide(&record, at, now, &self.identity, self.timing.duration);
        match decision {
            Decision::Wait { .. } => {}
            Decision::Acquire | Decision::Renew => self.write(Holder::Us).await?,
        }
        Ok(decision)
    }

    /// Renews the Lease for as long as that works. Completes when leadership is lost, with the reason; the
    /// fence is down by then.
    pub async fn hold(&mut self) -> Lost {
        let lost = self.renew_until_lost().await;
        self.standing.send_replace(Standing::Ended);
        lost
    }

    async fn renew_until_lost(&mut self) -> Lost {
        loop {
            let renewed_at = self.renewed_at.unwrap_or_else(Instant::now);
            sleep(self.timing.renew_every).await;
            let give_up_at = renewed_at + self.timing.renew_deadline;
            let started = loop {
                // First of all, for whoever was frozen: others have waited long enough.
                if Instant::now() >= give_up_at {
                    return Lost::NotRenewed { for_at_least: self.timing.renew_deadline };
                }
                let started = Instant::now();
                match self.renew().await {
                    Ok(None) => break started,
                    Ok(Some(lost)) => return lost,
                    Err(error) => {
                        warn!(error = chain(&error), "failed to renew the lease");
                        let left = give_up_at.saturating_duration_since(Instant::now());
                        sleep(self.pause().min(left)).await;
                    }
                }
            };
            self.lead_since(started);
        }
    }

    /// Renews once. A conflict may be an earlier renewal of ours whose answer did not come, so the Lease is read
    /// and, if it still names us, renewed.
    async fn renew(&mut self) -> Result<Option<Lost>, Error> {
        match self.write(Holder::Us).await {
            Ok(()) => return Ok(None),
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
        self.read().await?;
        let holder = self.holder();
        if holder.as_deref() == Some(&self.identity) {
            self.write(Holder::Us).await?;
            return Ok(None);
        }
        Ok(Some(Lost::TakenOver { by: holder }))
    }

    /// Ends the term, and frees the Lease if it is ours, so that another takes over at its next look.
    ///
    /// # Errors
    /// If it could not be freed. It then expires, and another takes over after its duration.
    pub async fn release(&mut self) -> Result<(), Error> {
        // The fence falls first: nothing may be written once others may.
        self.standing.send_replace(Standing::Ended);
        for _ in 1..RELEASE_TRIES {
            match self.try_to_release().await {
                Err(Error::Conflict { .. }) => {}
                outcome => return outcome,
            }
        }
        self.try_to_release().await
    }

    async fn try_to_release(&mut self) -> Result<(), Error> {
        self.read().await?;
        if self.holder().as_deref() == Some(&self.identity) {
            self.write(Holder::Nobody).await?;
            info!(lease.identity = self.identity, "released the lease");
        }
        Ok(())
    }

    fn holder(&self) -> Option<String> {
        let lease = self.seen.as_ref()?.lease.as_ref();
        Record::of(lease, self.timing.duration).holder().map(str::to_owned)
    }

    /// The renewal that began then has succeeded.
    fn lead_since(&mut self, started: Instant) {
        self.renewed_at = Some(started);
        let until = started + self.timing.duration - self.timing.safety_margin;
        self.standing.send_replace(Standing::Leading { until });
    }

    /// Between half of the longest wait and all of it.
    fn pause(&self) -> Duration {
        self.timing.retry.mul_f64(0.5 + 0.5 * rand::random::<f64>())
    }

    async fn read(&mut self) -> Result<(), Error> {
        let lease = self.in_time(self.leases.get_opt(&self.name)).await?.map_err(|source| Error::Read {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            source: Box::new(source),
        })?;
        self.saw(lease);
        Ok(())
    }

    fn saw(&mut self, lease: Option<Lease>) {
        // Only the record counts: an annotation that somebody sets is no sign of life. That the Lease is gone is
        // none of death.
        let unchanged = self.seen.as_ref().filter(|seen| {
            let (before, now) = (seen.lease.as_ref(), lease.as_ref());
            before.map(|lease| &lease.spec) == now.map(|lease| &lease.spec)
        });
        let at = unchanged.map_or_else(Instant::now, |seen| seen.at);
        self.seen = Some(Seen { lease, at });
    }

    /// The one write of the election: makes `holder` the holder of the Lease as it was last seen.
    ///
    /// Replaces with the `resourceVersion` that was seen, or creates what was not there: of two that try, one
    /// meets a conflict.
    #[expect(
        clippy::disallowed_methods,
        reason = "the Lease decides who may write, so it cannot be written through the fence that it feeds"
    )]
    async fn write(&mut self, holder: Holder) -> Result<(), Error> {
        let lease = self.desired(holder);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match lease.metadata.resource_version {
            Some(_) => self.in_time(self.leases.replace(&self.name, &params, &lease)).await?,
            None => self.in_time(self.leases.create(&params, &lease)).await?,
        };
        match written {
            Ok(lease) => {
                self.saw(Some(lease));
                Ok(())
            }
            // 404 to a replacement: it was deleted since it was read. To a creation: there is no such namespace.
            Err(kube::Error::Api(status))
                if status.code == 409
                    || (status.code == 404 && lease.metadata.resource_version.is_some()) =>
            {
                Err(Error::Conflict { namespace: self.namespace.clone(), name: self.name.clone() })
            }
            Err(source) => Err(Error::Write {
                namespace: self.namespace.clone(),
                name: self.name.clone(),
                source: Box::new(source),
            }),
        }
    }

    /// The Lease as it was seen, but for the `spec`.
    fn desired(&self, holder: Holder) -> Lease {
        let now = MicroTime((self.clock)());
        let seen = self.seen.as_ref().and_then(|seen| seen.lease.clone());
        let previous = seen.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let ours = previous.holder_identity.as_deref() == Some(self.identity.as_str());
        let whole_seconds = self.timing.duration.as_millis().div_ceil(1000);
        let spec = LeaseSpec {
            holder_identity: match holder {
                Holder::Us => Some(self.identity.clone()),
                Holder::Nobody => None,
            },
            lease_duration_seconds: Some(i32::try_from(whole_seconds).unwrap_or(i32::MAX)),
            acquire_time: if ours { previous.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(previous.lease_transitions.map_or(0, |n| if ours { n } else { n + 1 })),
            preferred_holder: None,
            strategy: None,
        };
        let metadata = seen.map_or_else(|| self.new_metadata(), |lease| lease.metadata);
        Lease { metadata, spec: Some(spec) }
    }

    fn new_metadata(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            labels: Some(BTreeMap::from([
                ("app.kubernetes.io/name".to_owned(), "valv".to_owned()),
                ("app.kubernetes.io/component".to_owned(), "operator".to_owned()),
            ])),
            ..ObjectMeta::default()
        }
    }

    async fn in_time<T>(&self, request: impl Future<Output = T>) -> Result<T, Error> {
        timeout(self.timing.request, request).await.map_err(|_| Error::TimedOut {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            after: self.timing.request,
        })
    }
}

#[derive(Clone, Copy)]
enum Holder {
    Us,
    Nobody,
}

/// Why a leader is one no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The Lease names another, or nobody.
    TakenOver {
        /// Whom it names.
        by: Option<String>,
    },
    /// It could not be renewed in time: the API server did not answer or refused, or this process stood still.
    NotRenewed {
        /// How long at least.
        for_at_least: Duration,
    },
}
