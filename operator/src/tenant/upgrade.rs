//! Decides which version of the journal serves, and whether a migration comes first.
//!
//! Input: the tenant, its Jobs, what served before. Output: an [`Upgrade`]. Pure.
//!
//! A new image first runs its migration; the version before it serves until that succeeded. A migration that
//! runs is never interrupted, not even by a newer image.

use kube::core::DynamicObject;
use valv_crds::{
    condition::{ConditionType, Reason, Saying},
    journal::Journal,
};

use super::{
    check::Tenant,
    observe::{JobSeen, Observed, State},
    resolve, workload,
};
use crate::io::kind::Kind;

/// Prefix of a migration Job's name.
pub const MIGRATE_PREFIX: &str = "migrate-";

/// Annotation on a migration Job: the image that it migrates to.
pub const IMAGE_ANNOTATION: &str = "valv.eu/image";

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
    let migrated = recorded(observed, state);
    let job = job_name(tenant, &migrate.command);
    let running = observed.all(Kind::Job).filter_map(|job| job.metadata.name.clone()).find(|name| {
        name.starts_with(MIGRATE_PREFIX)
            && *name != job
            && observed.job(name) == JobSeen::Active
            && !resolve::lacks_its_image(observed, name)
    });
    let seen = observed.job(&job);
    let is_newest = migrated.last() == Some(image);
    let was_before = migrated.contains(image);
    let before = |reason, message: String| Upgrade {
        serving: state.serving.clone(),
        migration: None,
        finished: finished(observed, Some(&job)),
        migrated: migrated.clone(),
        saying: Saying::no(kind, reason, message),
    };
    if let Some(running) = running {
        return before(
            Reason::Migrating,
            format!(
                "the migration {running} of another image is running and is not interrupted; {image} comes after it"
            ),
        );
    }
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
    match seen {
        // Recorded above, and so never met here; but a Job that does not name its image is no reason to stop.
        JobSeen::Succeeded => Upgrade {
            serving: Some(wanted.clone()),
            migration: None,
            finished: vec![],
            migrated: migrated.into_iter().chain([image.clone()]).collect(),
            saying: Saying::yes(kind, Reason::AsAsked, format!("the schema is what {image} made it")),
        },
        JobSeen::Failed => before(
            Reason::MigrationFailed,
            format!(
                "the migration to {image} failed; {}. Last lines: {}. Give another image, or annotate the tenant with valv.eu/retry-migration=<anything new>",
                serving_now(state),
                workload::last_words(observed, &job)
            ),
        ),
        JobSeen::Active => Upgrade {
            migration: Some(job.clone()),
            ..before(
                Reason::Migrating,
                format!("the migration to {image} is running; {}", serving_now(state)),
            )
        },
        JobSeen::Absent => match start {
            Start::Now => Upgrade {
                migration: Some(job.clone()),
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

/// Images whose migration succeeded, as recorded and as the Jobs show, whatever image is wanted by now.
fn recorded(observed: &Observed, state: &State) -> Vec<String> {
    let mut migrated = state.migrated.clone();
    for job in observed.all(Kind::Job) {
        let name = job.metadata.name.clone().unwrap_or_default();
        let Some(image) = image_of(job) else { continue };
        if !migrated.contains(image) && observed.job(&name) == JobSeen::Succeeded {
            migrated.push(image.clone());
        }
    }
    let excess = migrated.len().saturating_sub(REMEMBERED);
    migrated.drain(..excess);
    migrated
}

/// The image that a Job migrates to.
fn image_of(job: &DynamicObject) -> Option<&String> {
    job.metadata.annotations.as_ref()?.get(IMAGE_ANNOTATION)
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

/// Migration Jobs that failed, succeeded and are recorded, or can never begin; but for `kept`.
fn finished(observed: &Observed, kept: Option<&String>) -> Vec<String> {
    let recorded = observed.state().migrated;
    let jobs = observed.all(Kind::Job).filter_map(|job| Some((job.metadata.name.clone()?, job)));
    jobs.filter(|(name, job)| {
        let is_recorded = image_of(job).is_some_and(|image| recorded.contains(image));
        name.starts_with(MIGRATE_PREFIX)
            && Some(name) != kept
            && match observed.job(name) {
                JobSeen::Succeeded => is_recorded,
                JobSeen::Failed => true,
                // Nothing of it ever ran, and without its image nothing will.
                JobSeen::Active => resolve::lacks_its_image(observed, name),
                JobSeen::Absent => false,
            }
    })
    .map(|(name, _)| name)
    .collect()
}
