//! Does with a real bucket what Valv does with one, and says whether it is as claimed.
//!
//! Input: a file that a person wrote, the bucket that it names, PostgreSQL's programs. Output: a table with a verdict a line.
//! The code is that of operator and agents: the probe, the backup, the read-back, the commit, the drill, the clean-up. What
//! it wrote it takes away as the janitor; what a lock keeps it names.
//!
//! | to find | open |
//! |---|---|
//! | the file | `conformance/file.rs` |
//! | what is done with the bucket without a database | `conformance/archive.rs` |
//! | a backup and a drill of a database | `conformance/database.rs` |
//! | the tenant that is made up for them | `conformance/journal.rs` |
//! | how the agent is run | `conformance/agent.rs`, `conformance/scratch.rs` |
//! | what is altered so that it is found | `conformance/forgery.rs` |
//! | what all of a trial share, and its clean-up | `conformance/trial.rs` |
//! | the verdicts, and the table | `conformance/table.rs` |

pub mod agent;
pub mod archive;
pub mod database;
pub mod file;
mod forgery;
mod journal;
mod scratch;
pub mod table;
mod trial;

use jiff::Timestamp;
use valv_crds::store::{Answer, BreakerStatus};

use self::{
    agent::Programs,
    file::Bucket,
    table::{Line, Report},
    trial::Trial,
};
use crate::{
    archive::envelope::{KeyError, SigningKey},
    signing::{Keys, Standing},
    store::{
        breakers::Breakers,
        check,
        judge::{Egress, Ground, Known, judge},
        probe::{Extent, Findings, probe},
    },
};

/// The bucket could not be tried at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No key to sign with could be made.
    #[error("failed to make a key to sign with")]
    Key(#[source] KeyError),
}

/// Tries `bucket`, with a database if there are `programs` for one. What is in it of others is left alone. When `stop`
/// comes, no more is tried, and what was written is taken away.
///
/// # Errors
/// If nothing could be tried. What the store refuses is a line of the report.
pub async fn run(
    bucket: &Bucket,
    programs: Option<&Programs>,
    stop: impl Future<Output = ()>,
    now: fn() -> Timestamp,
) -> Result<Report, Error> {
    let made = SigningKey::generate().map_err(Error::Key)?;
    let keys = Keys::alone(SigningKey::from_pem(&made).map_err(Error::Key)?);
    let findings = probe(&bucket.store, &bucket.credentials, &Breakers::default(), now).await;
    let mut lines = probed(bucket, &findings, &keys.signing, now());
    let store = as_seen(&bucket.store, &findings);
    if findings.extent != Extent::Whole {
        lines.push(Line::wrong("archive", "what is written is read back, and restored", UNPROBED));
        lines.extend(database::untried(UNPROBED));
        return Ok(Report { lines });
    }
    match Trial::prepare(&store, &bucket.credentials, &keys, now) {
        Ok(mut trial) => {
            tried(&mut trial, programs, stop).await;
            trial.clean().await;
            lines.append(&mut trial.lines);
        }
        Err(why) => lines.push(Line::wrong("archive", "the bucket can be opened", why)),
    }
    Ok(Report { lines })
}

/// Why nothing more is tried with a store that cannot be probed.
const UNPROBED: &str = "not tried: the probe did not end";

/// Tries all that writes backups, until `stop` comes.
async fn tried(trial: &mut Trial<'_>, programs: Option<&Programs>, stop: impl Future<Output = ()>) {
    let all = async {
        archive::run(trial).await;
        match programs {
            Some(programs) => database::run(trial, programs).await,
            None => trial.lines.extend(database::untried(NO_PROGRAMS)),
        }
    };
    let stopped = tokio::select! {
        biased;
        () = stop => true,
        () = all => false,
    };
    if stopped {
        trial.lines.push(Line::untried("archive", "all that comes after this", "not tried: interrupted"));
    }
}

/// How to have a database tried.
const NO_PROGRAMS: &str =
    "not tried: name PostgreSQL 17 by --programs DIR, or use `make conformance`, which brings one";

/// The store with what the probe saw in its status, as the operator has it when it commits.
fn as_seen(store: &check::Store, findings: &Findings) -> check::Store {
    let mut object = store.object.as_ref().clone();
    object.status.get_or_insert_default().capabilities = findings.capabilities.clone();
    check::check(object.into())
}

/// What the probe saw: the conditions that a `BackupStore` would have, and each capability beside what is claimed of it.
fn probed(bucket: &Bucket, findings: &Findings, signing: &SigningKey, now: Timestamp) -> Vec<Line> {
    let last_whole = (findings.extent == Extent::Whole).then_some(now);
    let known = Known { findings: Some(findings.clone()), last_whole };
    let ground = Ground {
        unresolved: None,
        breaker: BreakerStatus::default(),
        egress: Egress::Open,
        signing: Standing::Kept(signing.public()),
    };
    use valv_crds::store::StoreCondition as Condition;
    let mut lines = vec![];
    for saying in judge(&bucket.store, &known, &ground, now) {
        let what = format!("{:?}", saying.kind);
        let said = format!("{:?}: {}", saying.reason, saying.message);
        match saying.kind {
            Condition::CredentialsResolved
            | Condition::LocationAllowed
            | Condition::Reachable
            | Condition::CapabilitiesProven => {
                lines.push(Line::must("condition", what, saying.is_true(), said))
            }
            // Says something, and stops nothing.
            Condition::WriterConfined => lines.push(Line::told("condition", what, said)),
            // Of the operator's process and its cluster, not of the store.
            Condition::BreakerClosed
            | Condition::SigningKeyKept
            | Condition::Ready
            | Condition::Reconciling
            | Condition::Stalled => {}
        }
    }
    for (name, seen) in file::capabilities(&findings.capabilities) {
        let answer = seen.map_or(Answer::Unknown, |seen| seen.answer);
        let detail = seen.and_then(|seen| seen.detail.clone()).map(|detail| format!(": {detail}"));
        let said = format!("{answer:?}{}", detail.unwrap_or_default());
        lines.push(match bucket.claims.get(name) {
            Some(claim) => Line::claimed("capability", name, format!("{claim:?}"), *claim == answer, said),
            None => Line::told("capability", name, said),
        });
    }
    lines
}
