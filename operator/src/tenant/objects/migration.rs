//! The Job that brings the schema up to what an image needs.

use serde_json::json;

use super::{
    Serving, Wanted,
    credentials::MIGRATION_SECRET,
    database::merge,
    journal::{container, environment, pod_template},
    object, pod_labels,
};
use crate::{
    io::kind::Kind,
    segmentation::Role,
    settings::Settings,
    tenant::{check::Tenant, upgrade::IMAGE_ANNOTATION},
};

/// The migration Job `name`, which runs the wanted image as the schema's owner.
pub fn migration(tenant: &Tenant, settings: &Settings, name: &str) -> Option<Wanted> {
    let journal = &tenant.journal;
    let migrate = journal.migrate.as_ref()?;
    let mut template = pod_template(tenant, journal);
    let mut migration = container(tenant, journal, settings, Some(&migrate.command));
    merge(&mut migration, json!({ "name": "migrate" }));
    let env = environment(journal, MIGRATION_SECRET);
    if !env.is_empty() {
        migration["env"] = json!(env);
    }
    template["containers"] = json!([migration]);
    template["restartPolicy"] = json!("Never");
    if let Some(volumes) = template["volumes"].as_array_mut() {
        for volume in volumes.iter_mut().filter(|volume| volume["name"] == "connection") {
            volume["secret"]["secretName"] = json!(MIGRATION_SECRET);
        }
    }
    let mut job = object(
        tenant,
        Kind::Job,
        name,
        json!({ "spec": {
            // A migration that fails is not tried blindly again: somebody looks at it first.
            "backoffLimit": 0,
            "activeDeadlineSeconds": migrate.deadline_seconds,
            "template": {
                "metadata": { "labels": pod_labels(tenant, Role::Migration, Serving::No) },
                "spec": template,
            },
        }}),
    );
    job.value["metadata"]["annotations"] = json!({ IMAGE_ANNOTATION: journal.image });
    Some(job)
}
