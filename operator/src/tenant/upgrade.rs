//! Decides which version of the journal serves, and whether a migration comes first.
//!
//! Input: the tenant, its Jobs and their pods, what served before. Output: an [`Upgrade`]. Pure.
//!
//! A new image first runs its migration; the version before it serves until that succeeded. A migration that
//! runs is never interrupted, not even by a newer image. No two run at once: a migration is claimed in the
//! [`State`] before its Job is made, and nothing is claimed while a Job or a pod of another is there.

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
use crate::{digest, io::kind::Kind, segmentation::Role};

/// Prefix of a migration Job's name.
pub const MIGRATE_PREFIX: &str = "migrate-";

/// Annotation on a migration Job: the image that it migrates to.
pub const IMAGE_ANNOTATION: &str = "valv.eu/image";

/// Which version serves, and what comes first.
#[derive(Clone, Debug, PartialEq)]
pub struct Upgrade {
    /// The journal as it is to serve; absent: nothing serves yet.
    pub serving: Option<Journal>,
    /// The migration that nobody else may run beside, by name of its Job.
    pub claimed: Option<String>,
    /// The migration to start now, by name of its Job: its claim stands.
    pub migration: Option<String>,
    /// Jobs whose result is recorded.
    pub finished: Vec<String>,
    /// Images whose migration succeeded, oldest first.
    pub migrated: Vec<String>,
    /// Images that served without a migration, oldest first.
    pub served: Vec<String>,
    /// What `SchemaCurrent` says.
    pub saying: Saying,
}

/// Images that are remembered: years of releases, and in one ConfigMap (1 MiB) even if every name is as long as
/// it may be.
const REMEMBERED: usize = 400;

/// Whether a migration may start now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Start {
    /// The database is ready for it.
    Now,
    /// It has to wait for the database.
    Later,
    /// It has to wait for something else.
    Held {
        /// For what.
        reason: Reason,
        /// In a sentence.
        message: String,
    },
}

/// Whether the migration to the image that `tenant` asks for is what comes next.
pub fn is_next(tenant: &Tenant, observed: &Observed, state: &State) -> bool {
    let job = tenant.journal.migrate.as_ref().map(|migrate| job_name(tenant, &migrate.command));
    job.is_some_and(|job| {
        observed.job(&job) == JobSeen::Absent
            && running(observed).is_empty()
            && !recorded(observed, state).contains(&tenant.journal.image)
    })
}

/// Which version of the journal of `tenant` serves.
pub fn upgrade(tenant: &Tenant, observed: &Observed, state: &State, start: Start) -> Upgrade {
    let image = &tenant.journal.image;
    let job = tenant.journal.migrate.as_ref().map(|migrate| job_name(tenant, &migrate.command));
    let standing = Upgrade {
        serving: state.serving.clone(),
        claimed: state.migrating.clone(),
        migration: None,
        finished: finished(observed, job.as_ref()),
        migrated: recorded(observed, state),
        served: state.served.clone(),
        saying: Saying::no(ConditionType::SchemaCurrent, Reason::Progressing, serving_now(state)),
    };
    if let Some(other) = running(observed).into_iter().find(|running| Some(running) != job.as_ref()) {
        let fate = if resolve::lacks_its_image(observed, &other) {
            "cannot get its image and is given up"
        } else {
            "is running and is not interrupted"
        };
        let message = format!("the migration {other}, begun before, {fate}; {image} comes after it");
        return standing.waits(Reason::Migrating, message);
    }
    match job {
        None => standing.serves_unmanaged(tenant),
        Some(_) if standing.migrated.contains(image) => standing.serves_migrated(tenant),
        Some(job) => standing.migrates(tenant, observed, state, job, start),
    }
}

impl Upgrade {
    /// What served goes on serving.
    fn waits(self, reason: Reason, message: String) -> Self {
        Self { saying: Saying::no(ConditionType::SchemaCurrent, reason, message), ..self }
    }

    /// What the spec asks for serves.
    fn serves(self, tenant: &Tenant, reason: Reason, message: String) -> Self {
        Self {
            serving: Some(tenant.journal.clone()),
            claimed: None,
            saying: Saying::yes(ConditionType::SchemaCurrent, reason, message),
            ..self
        }
    }

    /// The image serves at once: the journal sees to its schema by itself.
    fn serves_unmanaged(mut self, tenant: &Tenant) -> Self {
        let image = &tenant.journal.image;
        let history = self.migrated.iter().chain(&self.served);
        let newest = history.clone().next_back().filter(|newest| *newest != image).cloned();
        let is_known = history.clone().any(|known| known == image);
        if !is_known {
            self.served.push(image.clone());
            forget(&mut self.served);
        }
        match newest.filter(|_| is_known) {
            Some(newest) => {
                let message = format!(
                    "{image} is given again after {newest}: a schema does not go back, so what {newest} made of it stays; to go back in the data too, restore a backup"
                );
                self.serves(tenant, Reason::SchemaNewer, message)
            }
            None => {
                let message = "spec.journal.migrate is absent: the journal sees to its schema by itself";
                self.serves(tenant, Reason::NotManaged, message.to_owned())
            }
        }
    }

    /// The image serves: its migration succeeded, now or before.
    fn serves_migrated(self, tenant: &Tenant) -> Self {
        let image = &tenant.journal.image;
        let newest = self.migrated.last().filter(|newest| *newest != image);
        let (reason, message) = match newest {
            None => (Reason::AsAsked, format!("the schema is what {image} made it")),
            Some(newest) => (
                Reason::SchemaNewer,
                format!(
                    "{image} runs on the schema that {newest} made: a schema does not go back; to go back in the data too, restore a backup"
                ),
            ),
        };
        self.serves(tenant, reason, message)
    }

    /// The Job `job` has to succeed first.
    fn migrates(
        mut self,
        tenant: &Tenant,
        observed: &Observed,
        state: &State,
        job: String,
        start: Start,
    ) -> Self {
        let image = &tenant.journal.image;
        let serving = serving_now(state);
        match observed.job(&job) {
            // A Job that does not name its image is not in the record, and no reason to stop.
            JobSeen::Succeeded => {
                self.migrated.push(image.clone());
                self.serves_migrated(tenant)
            }
            JobSeen::Failed => {
                self.claimed = None;
                let message = failure(tenant, observed, &job, &serving);
                self.waits(Reason::MigrationFailed, message)
            }
            JobSeen::Active => {
                let trouble = workload::job_trouble(tenant, observed, &job);
                self.claimed = Some(job);
                self.waits(
                    Reason::Migrating,
                    format!("the migration to {image} is running; {serving}{trouble}"),
                )
            }
            JobSeen::Absent if running(observed).contains(&job) => self.waits(
                Reason::Migrating,
                format!(
                    "the Job {job} is gone and its pod has not stopped yet: the migration to {image} begins again when it has; {serving}"
                ),
            ),
            JobSeen::Absent => match start {
                Start::Later => {
                    // Nothing came of the claim, and what it holds up may be what is waited for.
                    self.claimed = None;
                    let message = format!("the migration to {image} waits for the database; {serving}");
                    self.waits(Reason::Progressing, message)
                }
                Start::Held { reason, message } => {
                    self.claimed = None;
                    self.waits(reason, format!("{message}; {serving}"))
                }
                Start::Now => {
                    // The claim is written first. Only who sees it standing makes the Job.
                    self.migration = self.claimed.take().filter(|claimed| *claimed == job);
                    self.claimed = Some(job);
                    self.waits(Reason::Migrating, format!("the migration to {image} starts; {serving}"))
                }
            },
        }
    }
}

/// Migrations that may be at work, by name of their Jobs: a Job that has not ended, or a pod that outlives its Job.
pub fn running(observed: &Observed) -> Vec<String> {
    let jobs = observed.all(Kind::Job).filter_map(|job| job.metadata.name.clone());
    let active =
        jobs.filter(|name| name.starts_with(MIGRATE_PREFIX) && observed.job(name) == JobSeen::Active);
    let pods = workload::pods(observed, Role::Migration).filter(|pod| !workload::has_ended(pod));
    let mut running: Vec<_> = active.chain(pods.map(workload::job_of)).collect();
    running.sort();
    running.dedup();
    running
}

/// What a failed migration left to say. Its pod goes before its Job: then what the condition said stands.
fn failure(tenant: &Tenant, observed: &Observed, job: &str, serving: &str) -> String {
    let begins = format!("the migration to {} failed; ", tenant.journal.image);
    let status = tenant.object.status.as_ref();
    let said = status.into_iter().flat_map(|status| &status.conditions).find(|condition| {
        condition.type_ == ConditionType::SchemaCurrent.as_str() && condition.message.starts_with(&begins)
    });
    let words = workload::last_words(observed, job);
    if let (None, Some(said)) = (&words, said) {
        return said.message.clone();
    }
    format!(
        "{begins}{serving}. Last lines: {}. Give another image, or annotate the tenant with valv.eu/retry-migration=<anything new>",
        words.unwrap_or_else(|| "none were left".to_owned())
    )
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
    forget(&mut migrated);
    migrated
}

/// Forgets the oldest of too many images.
fn forget(images: &mut Vec<String>) {
    let excess = images.len().saturating_sub(REMEMBERED);
    images.drain(..excess);
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
    format!("{MIGRATE_PREFIX}{}", &digest::of(text.as_bytes())[..10])
}

/// Migration Jobs that failed, succeeded and are recorded, or can never begin; but for `kept`.
fn finished(observed: &Observed, kept: Option<&String>) -> Vec<String> {
    let recorded = observed.state().migrated;
    let jobs = observed.all(Kind::Job).filter_map(|job| Some((job.metadata.name.clone()?, job)));
    jobs.filter(|(name, job)| {
        let is_recorded = image_of(job).is_some_and(|image| recorded.contains(image));
        name.starts_with(MIGRATE_PREFIX)
            && match observed.job(name) {
                JobSeen::Succeeded => is_recorded,
                JobSeen::Failed => Some(name) != kept,
                // Nothing of it ever ran, and without its image nothing will.
                JobSeen::Active => Some(name) != kept && resolve::lacks_its_image(observed, name),
                JobSeen::Absent => false,
            }
    })
    .map(|(name, _)| name)
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use valv_crds::condition::Truth;

    use super::*;
    use crate::{
        io::kind::Key,
        tenant::{plan::Plan, simulation::Simulation},
    };

    const ONE: &str = "registry.example/journal:1";
    const TWO: &str = "registry.example/journal:2";
    const THREE: &str = "registry.example/journal:3";

    fn give(simulation: &mut Simulation, image: &str) {
        simulation.tenant.spec.journal.image = image.into();
    }

    /// A tenant of which the migration to the second image has just been made, by name of its Job.
    fn migrating() -> (Simulation, String) {
        let mut simulation = Simulation::running();
        give(&mut simulation, TWO);
        simulation.look();
        let job = made(&simulation.look()).unwrap();
        (simulation, job)
    }

    /// The migration that a plan makes.
    fn made(plan: &Plan) -> Option<String> {
        let jobs = plan.apply.iter().map(|wanted| &wanted.key).filter(|key| key.kind == Kind::Job);
        jobs.map(|key| key.name.clone()).find(|name| name.starts_with(MIGRATE_PREFIX))
    }

    fn schema(simulation: &Simulation) -> (Truth, Reason) {
        simulation.says(ConditionType::SchemaCurrent)
    }

    fn serving(simulation: &Simulation) -> String {
        simulation.observed.text(Kind::Deployment, "journal", workload::IMAGE).unwrap().to_owned()
    }

    fn delete(simulation: &mut Simulation, kind: Kind, name: &str) {
        simulation.observed.objects.remove(&Key::new(kind, name)).unwrap();
    }

    #[test]
    fn a_migration_is_claimed_before_its_job_is_made() {
        let mut simulation = Simulation::running();
        give(&mut simulation, TWO);

        let first = simulation.look();
        let claimed = simulation.observed.state().migrating;
        let second = simulation.look();

        assert_eq!(made(&first), None);
        assert!(claimed.is_some());
        assert_eq!(made(&second), claimed);
    }

    #[test]
    fn of_two_images_given_at_once_only_the_one_that_was_claimed_last_is_migrated_to() {
        let mut simulation = Simulation::running();
        give(&mut simulation, TWO);
        simulation.look();
        give(&mut simulation, THREE);

        let claims = simulation.look();
        let makes = simulation.look();

        assert_eq!(made(&claims), None, "the claim of the second image stands");
        assert_eq!(made(&makes), simulation.observed.state().migrating);
        simulation.settle(|_| {});
        assert_eq!(simulation.observed.state().migrated, [ONE, THREE]);
        assert_eq!(simulation.observed.state().migrating, None);
    }

    #[test]
    fn a_claim_is_given_up_while_its_migration_cannot_start() {
        let mut simulation = Simulation::running();
        give(&mut simulation, TWO);
        simulation.look();
        simulation.observed.secrets.remove("login-owner").unwrap();

        let plan = simulation.look();

        assert_eq!(made(&plan), None);
        assert_eq!(simulation.observed.state().migrating, None, "a new password would wait for it");
    }

    #[test]
    fn another_image_waits_for_a_migration_that_runs() {
        let (mut simulation, job) = migrating();
        give(&mut simulation, THREE);

        for _ in 0..3 {
            assert_eq!(made(&simulation.look()), None);
        }

        assert_eq!(simulation.observed.state().migrating, Some(job));
        assert_eq!(schema(&simulation), (Truth::False, Reason::Migrating));
        simulation.settle(|_| {});
        assert_eq!(simulation.observed.state().migrated, [ONE, TWO, THREE]);
    }

    #[test]
    fn a_migration_whose_job_was_deleted_begins_again_only_when_its_pod_has_stopped() {
        let (mut simulation, job) = migrating();
        simulation.pod_of(&job, &json!({ "phase": "Running" }));
        delete(&mut simulation, Kind::Job, &job);

        let while_it_stops = [simulation.look(), simulation.look()];
        simulation.pod_of(&job, &json!({ "phase": "Failed" }));
        let afterwards = simulation.look();

        assert_eq!(while_it_stops.iter().find_map(made), None);
        assert_eq!(made(&afterwards), Some(job));
    }

    #[test]
    fn a_migration_without_its_image_is_deleted_and_gone_before_another_begins() {
        let (mut simulation, job) = migrating();
        simulation.pod_of(
            &job,
            &json!({ "phase": "Pending", "containerStatuses": [{
                "image": TWO, "state": { "waiting": { "reason": "ErrImagePull" } },
            }]}),
        );
        give(&mut simulation, THREE);

        let deletes = simulation.look();
        let waits = [simulation.look(), simulation.look()];
        delete(&mut simulation, Kind::Pod, &format!("{job}-pod"));
        simulation.look();
        let begins = simulation.look();

        assert!(deletes.delete.contains(&Key::new(Kind::Job, job)));
        assert_eq!(made(&deletes).or_else(|| waits.iter().find_map(made)), None);
        assert!(made(&begins).is_some());
    }

    #[test]
    fn a_migration_that_was_taken_back_while_it_ran_is_not_forgotten() {
        let (mut simulation, _) = migrating();

        give(&mut simulation, ONE);

        assert_eq!(schema(&simulation), (Truth::False, Reason::Migrating), "it is not interrupted");
        simulation.settle(|_| {});
        assert_eq!(simulation.observed.state().migrated, [ONE, TWO]);
        assert_eq!(schema(&simulation), (Truth::True, Reason::SchemaNewer));
    }

    #[test]
    fn a_spec_that_stops_to_ask_for_migrations_waits_for_the_one_that_runs() {
        let (mut simulation, _) = migrating();

        simulation.tenant.spec.journal.migrate = None;
        simulation.look();

        assert_eq!(schema(&simulation), (Truth::False, Reason::Migrating));
        assert_eq!(serving(&simulation), ONE);
        simulation.settle(|_| {});
        assert_eq!(serving(&simulation), TWO);
        assert_eq!(simulation.observed.state().migrated, [ONE, TWO]);
        assert_eq!(schema(&simulation), (Truth::True, Reason::NotManaged));
    }

    #[test]
    fn an_older_image_is_told_of_the_schema_though_no_migration_is_managed() {
        let mut simulation = Simulation::running();
        simulation.tenant.spec.journal.migrate = None;
        give(&mut simulation, TWO);
        simulation.settle(|_| {});
        let forth = schema(&simulation);

        give(&mut simulation, ONE);
        simulation.settle(|_| {});

        assert_eq!(forth, (Truth::True, Reason::NotManaged));
        assert_eq!(schema(&simulation), (Truth::True, Reason::SchemaNewer));
        assert!(simulation.saying(ConditionType::SchemaCurrent).message.contains("does not go back"));
    }

    #[test]
    fn an_image_of_years_ago_is_not_migrated_to_again() {
        let mut simulation = Simulation::running();
        for release in 2..60 {
            give(&mut simulation, &format!("registry.example/journal:{release}"));
            simulation.settle(|_| {});
        }

        give(&mut simulation, ONE);

        assert_eq!(schema(&simulation), (Truth::True, Reason::SchemaNewer));
        assert_eq!(simulation.plan().migrated.len(), 20, "the status shows the newest");
    }

    #[test]
    fn the_database_is_left_alone_while_a_migration_runs() {
        let (mut simulation, _) = migrating();
        let database = |simulation: &Simulation| {
            simulation.observed.field(Kind::StatefulSet, "database", "/spec").cloned().unwrap()
        };
        let before = database(&simulation);

        simulation.tenant.spec.suspended = true;
        simulation.tenant.spec.database.parameters.insert("max_connections".into(), "77".into());
        simulation.settings.images.postgres =
            serde_json::from_value(json!("registry.example/pg:18")).unwrap();
        simulation.look();

        assert_eq!(database(&simulation), before);
        simulation.settle(|_| {});
        assert_eq!(database(&simulation)["replicas"], 0);
        assert_eq!(simulation.observed.state().migrated, [ONE, TWO]);
    }

    #[test]
    fn a_migration_waits_for_a_change_of_the_database_that_came_with_its_image() {
        let mut simulation = Simulation::running();
        give(&mut simulation, TWO);
        simulation.tenant.spec.database.parameters.insert("max_connections".into(), "77".into());

        simulation.look();

        assert_eq!(simulation.observed.state().migrating, None);
        assert_eq!(simulation.saying(ConditionType::SchemaCurrent).reason, Reason::Progressing);
        simulation.settle(|_| {});
        assert_eq!(serving(&simulation), TWO);
    }

    #[test]
    fn a_failed_migration_keeps_its_last_lines_when_its_pod_is_gone_and_they_hold_no_secret() {
        let (mut simulation, job) = migrating();
        let url = simulation.secret("migration-database", "url").unwrap();
        let lines = format!("connecting to {url}\nKey (pnr)=(19121212-1212) is duplicated");
        simulation.pod_of(
            &job,
            &json!({ "phase": "Failed", "containerStatuses": [{
                "state": { "terminated": { "message": lines } },
            }]}),
        );
        simulation.edit(Kind::Job, &job, |job| {
            job.data["status"] = json!({ "conditions": [{ "type": "Failed", "status": "True" }] });
        });

        let said = simulation.saying(ConditionType::SchemaCurrent);
        let condition = said.dated(&[], Some(1), simulation.now);
        simulation.tenant.status =
            Some(valv_crds::JournalTenantStatus { conditions: vec![condition], ..Default::default() });
        delete(&mut simulation, Kind::Pod, &format!("{job}-pod"));

        assert_eq!(said.reason, Reason::MigrationFailed);
        assert!(said.message.contains("connecting to … | Key (pnr)=(…) is duplicated"), "{}", said.message);
        assert_eq!(simulation.saying(ConditionType::SchemaCurrent).message, said.message);
    }
}
