//! Decides which version of the journal serves, and whether a migration comes first.
//!
//! Input: the tenant, its Jobs, what served before. Output: an [`Upgrade`]. Pure.
//!
//! A new image first runs its migration; the version before it serves until that succeeded. A migration that
//! runs is never interrupted, not even by a newer image.

use valv_crds::{
    condition::{ConditionType, Reason, Saying},
    journal::Journal,
};

use super::{
    check::Tenant,
    observe::{JobSeen, Observed, State},
};
use crate::io::kind::Kind;

/// Prefix of a migration Job's name.
pub const MIGRATE_PREFIX: &str = "migrate-";

/// Which version serves, and what comes first.
#[derive(Clone, Debug, PartialEq)]
pub struct Upgrade {
    /// The journal as it is to serve; absent: nothing serves yet.
    pub serving: Option<Journal>,
    /// The migration to run now, by name of its Job.
    pub migration: Option<String>,
    /// Jobs whose result is recorded.
    pub finished: Vec<String>,
    /// Images whose migration succeeded, oldest first.
    pub migrated: Vec<String>,
    /// What `SchemaCurrent` says.
    pub saying: Saying,
}

/// Images that are remembered as migrated.
const REMEMBERED: usize = 20;

/// Whether a migration may start now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// The database is ready for it.
    Now,
    /// It has to wait.
    Later,
}

/// Which version of the journal of `tenant` serves.
pub fn upgrade(tenant: &Tenant, observed: &Observed, state: &State, start: Start) -> Upgrade {
    let kind = ConditionType::SchemaCurrent;
    let wanted = &tenant.journal;
    let Some(migrate) = &wanted.migrate else {
        return Upgrade {
            serving: Some(wanted.clone()),
            migration: None,
            finished: vec![],
            migrated: state.migrated.clone(),
            saying: Saying::yes(
                kind,
                Reason::NotManaged,
                "spec.journal.migrate is absent: the journal sees to its schema by itself",
            ),
        };
    };
    let image = &wanted.image;
    let mut migrated = state.migrated.clone();
    let job = job_name(tenant, &migrate.command);
    let running = observed.all(Kind::Job).filter_map(|job| job.metadata.name.clone()).find(|name| {
        name.starts_with(MIGRATE_PREFIX) && *name != job && observed.job(name) == JobSeen::Active
    });
    let seen = observed.job(&job);
    let is_newest = migrated.last() == Some(image);
    let was_before = migrated.contains(image);
    let before = |reason, message: String| Upgrade {
        serving: state.serving.clone(),
        migration: None,
        finished: vec![],
        migrated: state.migrated.clone(),
        saying: Saying::no(kind, reason, message),
    };
    if was_before {
        let saying = if is_newest {
            Saying::yes(kind, Reason::AsAsked, format!("the schema is what {image} made it"))
        } else {
            let newest = migrated.last().cloned().unwrap_or_default();
            Saying::yes(
                kind,
                Reason::SchemaNewer,
                format!(
                    "{image} runs on the schema that {newest} made: a schema does not go back; to go back in the data too, restore a backup"
                ),
            )
        };
        return Upgrade {
            serving: Some(wanted.clone()),
            migration: None,
            finished: finished(observed, None),
            migrated,
            saying,
        };
    }
    if let Some(running) = running {
        return before(
            Reason::Migrating,
            format!(
                "the migration {running} of an earlier image is running and is not interrupted; {image} comes after it"
            ),
        );
    }
    match seen {
        JobSeen::Succeeded => {
            migrated.push(image.clone());
            let excess = migrated.len().saturating_sub(REMEMBERED);
            migrated.drain(..excess);
            Upgrade {
                serving: Some(wanted.clone()),
                migration: None,
                finished: vec![],
                migrated,
                saying: Saying::yes(kind, Reason::AsAsked, format!("the schema is what {image} made it")),
            }
        }
        JobSeen::Failed => before(
            Reason::MigrationFailed,
            format!(
                "the migration to {image} failed; {}. Last lines: {}. Give another image, or annotate the tenant with valv.eu/retry-migration=<anything new>",
                serving_now(state),
                last_words(observed, &job)
            ),
        ),
        JobSeen::Active => Upgrade {
            migration: Some(job),
            ..before(
                Reason::Migrating,
                format!("the migration to {image} is running; {}", serving_now(state)),
            )
        },
        JobSeen::Absent => match start {
            Start::Now => Upgrade {
                migration: Some(job.clone()),
                finished: finished(observed, Some(&job)),
                ..before(
                    Reason::Migrating,
                    format!("the migration to {image} starts; {}", serving_now(state)),
                )
            },
            Start::Later => before(
                Reason::Progressing,
                format!("the migration to {image} waits for the database; {}", serving_now(state)),
            ),
        },
    }
}

fn serving_now(state: &State) -> String {
    match &state.serving {
        Some(journal) => format!("{} serves", journal.image),
        None => "nothing serves yet".to_owned(),
    }
}

/// A name for this image, this command and this try, so that a second look asks for the same Job.
fn job_name(tenant: &Tenant, command: &[String]) -> String {
    let text = format!("{}\n{}\n{}", tenant.journal.image, command.join("\n"), tenant.migration_retry());
    format!("{MIGRATE_PREFIX}{}", &super::objects::digest(text.as_bytes())[..10])
}

/// Migration Jobs that have ended, but for `kept`.
fn finished(observed: &Observed, kept: Option<&String>) -> Vec<String> {
    let names = observed.all(Kind::Job).filter_map(|job| job.metadata.name.clone());
    names
        .filter(|name| {
            name.starts_with(MIGRATE_PREFIX)
                && Some(name) != kept
                && matches!(observed.job(name), JobSeen::Succeeded | JobSeen::Failed)
        })
        .collect()
}

/// What the Job's newest pod left as its last lines.
fn last_words(observed: &Observed, job: &str) -> String {
    let pods = observed.all(Kind::Pod).filter(|pod| {
        let labels = pod.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get("batch.kubernetes.io/job-name")).is_some_and(|name| name == job)
    });
    let newest = pods.max_by_key(|pod| pod.metadata.creation_timestamp.clone());
    newest
        .and_then(|pod| {
            let statuses = pod.data.pointer("/status/containerStatuses")?.as_array()?;
            statuses.iter().find_map(|status| {
                let message = status.pointer("/state/terminated/message")?.as_str()?;
                Some(last_lines(message))
            })
        })
        .unwrap_or_else(|| "none were left".to_owned())
}

/// The last lines of `text`, on one line and short enough for a condition.
fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(5)..].join(" | ");
    let start = last.char_indices().rev().nth(999).map_or(0, |(index, _)| index);
    last[start..].to_owned()
}
