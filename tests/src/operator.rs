//! The operator: its pods, which of them leads, what it says.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::actor::{Actor, Run};
use crate::eventually::{Seen, eventually};
use crate::journal::is_ready;
use crate::kind;
use crate::world::World;

/// Where it is installed.
pub const NAMESPACE: &str = "valv-system";

/// Its release, its Deployment, its service account.
pub const NAME: &str = "valv";

/// Who the API server sees when it asks.
pub const USER: &str = "system:serviceaccount:valv-system:valv";

/// Its Lease.
pub const LEASE: &str = "valv-operator";

/// Its pods.
const LABELS: &str = "app.kubernetes.io/name=valv,app.kubernetes.io/component=operator";

/// A pod starts, and a Lease that nobody gave back runs out.
const DEADLINE: Duration = Duration::from_secs(90);

/// Without a write for this long it has nothing left to do: longer than it waits between two looks at something
/// that is under way.
const QUIET: Duration = Duration::from_secs(12);

/// The operator.
#[derive(Clone, Copy)]
pub struct Operator {
    world: &'static World,
}

/// Who holds the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// As the Lease has it: the pod, and what makes it one process's.
    pub identity: String,
    /// Its pod.
    pub pod: String,
}

impl Operator {
    /// The one on this cluster.
    pub fn of(world: &'static World) -> Self {
        Self { world }
    }

    fn admin(self) -> &'static Actor {
        &self.world.admin
    }

    /// Its pods.
    pub async fn pods(self) -> Result<Vec<Value>> {
        self.admin().list(kind::POD, NAMESPACE, LABELS).await
    }

    /// Who leads, as the Lease says.
    pub async fn leader(self) -> Result<Leader> {
        let lease = self.admin().get(kind::LEASE, NAMESPACE, LEASE).await?;
        let identity = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        let Some((pod, _)) = identity.rsplit_once('_') else { bail!("nobody leads") };
        Ok(Leader { identity: identity.to_owned(), pod: pod.to_owned() })
    }

    /// Waits until somebody else than `before` leads.
    pub async fn is_led_by_another_than(self, before: &Leader) -> Result<Leader> {
        eventually(format!("another than {} leads", before.identity), DEADLINE, async || {
            let leader = self.leader().await?;
            Ok(match leader == *before {
                true => Seen::NotYet(leader.identity),
                false => Seen::Yes(leader),
            })
        })
        .await
    }

    /// Waits until all its pods are ready, and one of them leads.
    pub async fn is_ready(self) -> Result<Leader> {
        eventually("the operator is ready", DEADLINE, async || {
            let deployment = self.admin().get(kind::DEPLOYMENT, NAMESPACE, NAME).await?;
            let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or_default();
            let pods = self.pods().await?;
            let ready = pods.iter().filter(|pod| is_ready(pod));
            let ready: Vec<_> = ready.filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
            if ready.len() as u64 != wanted || pods.len() as u64 != wanted {
                return Ok(Seen::NotYet(format!(
                    "{} of {wanted} pods are ready, {} there",
                    ready.len(),
                    pods.len()
                )));
            }
            let leader = self.leader().await?;
            Ok(match ready.contains(&leader.pod.as_str()) {
                true => Seen::Yes(leader),
                false => Seen::NotYet(format!("{} leads, which is no pod", leader.identity)),
            })
        })
        .await
    }

    /// Waits until it has written nothing but its Lease for a while.
    ///
    /// # Errors
    /// If there is no audit log, or it goes on writing.
    pub async fn is_settled(self) -> Result<()> {
        let audit = self.world.audit().context("this cluster's audit log cannot be read")?;
        let begun = audit.mark()?;
        let mut since = tokio::time::Instant::now();
        let mut seen = 0;
        eventually("the operator writes nothing more", Duration::from_secs(120), async || {
            let writes: Vec<_> = audit.since(begun)?.into_iter().filter(is_work).collect();
            if writes.len() > seen {
                seen = writes.len();
                since = tokio::time::Instant::now();
            }
            let last = writes.last().map(ToString::to_string).unwrap_or_default();
            Ok(Seen::when((since.elapsed() >= QUIET).then_some(()), last))
        })
        .await
    }

    /// What its pods logged with this word in it: the last lines.
    pub async fn log_about(self, word: &str) -> Result<String> {
        let mut lines = vec![];
        for pod in self.pods().await? {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let log = self.admin().log(NAMESPACE, &name, "operator", Run::Current).await.unwrap_or_default();
            lines.extend(log.lines().filter(|line| line.contains(word)).map(str::to_owned));
        }
        let last = lines.len().saturating_sub(15);
        Ok(lines[last..].join("\n"))
    }

    /// All that it logged, of all its pods and of their runs before a restart.
    pub async fn log(self) -> Result<String> {
        let mut text = String::new();
        for pod in self.pods().await? {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            text.push_str(&self.admin().log(NAMESPACE, &name, "operator", Run::Current).await?);
            if pod["status"]["containerStatuses"][0]["restartCount"] != 0 {
                text.push_str(&self.admin().log(NAMESPACE, &name, "operator", Run::Previous).await?);
            }
        }
        Ok(text)
    }

    /// What one of its pods answers, through the API server: `livez`, `readyz`, `metrics`.
    pub async fn page(self, pod: &str, page: &str) -> Result<String> {
        self.admin().text(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/{page}")).await
    }

    /// A metric of the leader: the sum over all its labels.
    pub async fn metric(self, name: &str) -> Result<f64> {
        let leader = self.leader().await?;
        let text = self.page(&leader.pod, "metrics").await?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            (rest.starts_with(' ') || rest.starts_with('{')).then_some(())?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        let values: Vec<_> = values.collect();
        ensure!(!values.is_empty(), "the operator has no metric {name}");
        Ok(values.iter().sum())
    }
}

/// Whether a request is the operator's and changes something. Its Lease is no work, nor what a new process says of the
/// stores, which each probes anew: whatever keeps another from a store is not known to it. Nor are the Jobs in its own
/// namespace that read back what other tests backed up, and are taken away when they have served.
pub fn is_work(request: &crate::audit::Request) -> bool {
    let is_own = request.is_about("leases", LEASE)
        || request.is_about_status("backupstores")
        || request.takes_away("jobs", NAMESPACE);
    request.is_by(USER) && request.is_write() && !is_own
}
