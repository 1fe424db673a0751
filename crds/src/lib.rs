//! The API of Valv, group `valv.eu`, version `v1alpha1`: one file a kind.
//!
//! Shape only: defaults, bounds, immutability and the rules between fields are in the schema, so that
//! `kubectl apply` and the operator cannot disagree about what a valid object is.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

mod as_text;
pub mod backup;
pub mod condition;
pub mod database;
pub mod drill;
#[cfg(test)]
mod example;
pub mod external;
pub mod journal;
pub mod policy;
pub mod protection;
pub mod provider;
pub mod reference;
pub mod reference_page;
pub mod resources;
pub mod retention;
pub mod schedule;
pub mod slot;
pub mod sovereignty;
pub mod statement;
pub mod store;
pub mod tenant;
mod text;
pub mod units;

pub use backup::{Backup, BackupSpec, BackupStatus};
pub use condition::{ConditionType, Reason};
pub use drill::{RestoreDrill, RestoreDrillSpec, RestoreDrillStatus};
pub use external::{ExternalSystem, ExternalSystemSpec};
pub use policy::{BackupPolicy, BackupPolicySpec, BackupPolicyStatus};
pub use provider::{Provider, ProviderSpec};
pub use slot::Slot;
pub use sovereignty::{SovereigntyPolicy, SovereigntyPolicySpec};
pub use statement::Statement;
pub use store::{BackupStore, BackupStoreSpec, BackupStoreStatus};
pub use tenant::{JournalTenant, JournalTenantSpec, JournalTenantStatus};

/// Group of every kind.
pub const GROUP: &str = "valv.eu";

/// Kinds that have a controller, in the order in which they are installed. The others are shapes only: a cluster
/// does not get them before something heeds them.
pub const SERVED: [&str; 5] = ["JournalTenant", "BackupStore", "BackupPolicy", "Backup", "RestoreDrill"];

/// The custom resource definitions of the kinds that are [`SERVED`], in their order.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut all = all_definitions();
    all.retain(|definition| SERVED.contains(&definition.spec.names.kind.as_str()));
    all.sort_by_key(|definition| SERVED.iter().position(|kind| *kind == definition.spec.names.kind));
    all
}

/// The custom resource definitions of all kinds, served or not.
pub fn all_definitions() -> Vec<CustomResourceDefinition> {
    vec![
        BackupStore::crd(),
        BackupPolicy::crd(),
        SovereigntyPolicy::crd(),
        Provider::crd(),
        ExternalSystem::crd(),
        JournalTenant::crd(),
        Backup::crd(),
        RestoreDrill::crd(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Calls `look` on every schema within `schema`, with its path.
    fn walk(path: &str, schema: &Value, look: &mut impl FnMut(&str, &Value)) {
        look(path, schema);
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), field, look);
        }
        for part in ["items", "additionalProperties"] {
            if schema[part].is_object() {
                walk(&format!("{path}[]"), &schema[part], look);
            }
        }
    }

    fn schemas() -> Vec<(String, Value)> {
        let schema = |definition: &CustomResourceDefinition| {
            let schema = definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.clone();
            (definition.spec.names.kind.clone(), serde_json::to_value(schema).unwrap())
        };
        all_definitions().iter().map(schema).collect()
    }

    #[test]
    fn only_kinds_that_something_heeds_are_installed() {
        let kinds: Vec<_> = definitions().into_iter().map(|definition| definition.spec.names.kind).collect();

        assert_eq!(kinds, SERVED);
    }

    #[test]
    fn kinds_that_are_shared_have_no_namespace_and_runs_have_one() {
        let scopes: Vec<_> = all_definitions()
            .into_iter()
            .map(|definition| format!("{} {}", definition.spec.names.plural, definition.spec.scope))
            .collect();

        let expected = [
            "backupstores Cluster",
            "backuppolicies Cluster",
            "sovereigntypolicies Cluster",
            "providers Cluster",
            "externalsystems Cluster",
            "journaltenants Cluster",
            "backups Namespaced",
            "restoredrills Namespaced",
        ];
        assert_eq!(scopes, expected);
    }

    #[test]
    fn every_schema_is_structural_and_every_field_is_explained() {
        for (kind, schema) in schemas() {
            walk(&kind, &schema, &mut |path, node| {
                for word in ["$ref", "oneOf", "anyOf", "allOf", "const"] {
                    assert!(node[word].is_null(), "{path} has {word}");
                }
            });
            for part in ["spec", "status"] {
                walk(&format!("{kind}.{part}"), &schema["properties"][part], &mut |path, node| {
                    for (name, field) in node["properties"].as_object().into_iter().flatten() {
                        // Kubernetes' own types, such as probes, leave some of theirs unexplained.
                        let is_ours = kind != "JournalTenant";
                        assert!(
                            !is_ours || field["description"].is_string(),
                            "{path}.{name} is not explained"
                        );
                    }
                });
            }
        }
    }

    #[test]
    fn whatever_has_a_rule_has_a_bound_so_that_the_apiserver_takes_the_rule() {
        for (kind, schema) in schemas() {
            walk(&kind, &schema, &mut |path, node| {
                if node["x-kubernetes-validations"].is_null() {
                    return;
                }
                match node["type"].as_str() {
                    Some("string") => assert!(
                        node["maxLength"].is_number()
                            || node["enum"].is_array()
                            || node["format"] == "date-time",
                        "{path} has a rule and no longest"
                    ),
                    Some("array") => assert!(node["maxItems"].is_number(), "{path} has a rule and no most"),
                    _ => {}
                }
            });
        }
    }

    #[test]
    fn kubectl_get_answers_the_first_three_questions_of_every_kind() {
        let shown = |kind: &str| {
            let definitions = all_definitions();
            let definition =
                definitions.iter().find(|definition| definition.spec.names.kind == kind).unwrap();
            let columns = definition.spec.versions[0].additional_printer_columns.clone().unwrap();
            let shown = columns.into_iter().filter(|column| column.priority.is_none());
            shown.map(|column| column.name).collect::<Vec<_>>().join(", ")
        };

        assert_eq!(shown("BackupStore"), "Ready, Why, Country, Locked, Probed, Age");
        assert_eq!(shown("BackupPolicy"), "Ready, Why, Schedule, Next, RPO, RTO, Tenants, Age");
        assert_eq!(shown("Backup"), "Complete, Why, Copied, Intact, Percent, Taken, Bytes, Store, Age");
        assert_eq!(shown("RestoreDrill"), "Passed, Why, Backup, RTO, RPO, Objectives, Age");
    }

    #[test]
    fn every_column_points_at_a_field_that_is_there() {
        for definition in all_definitions() {
            let version = &definition.spec.versions[0];
            let schema = version.schema.as_ref().unwrap().open_api_v3_schema.clone();
            let schema = serde_json::to_value(schema).unwrap();
            for column in version.additional_printer_columns.iter().flatten() {
                if column.json_path.starts_with(".metadata") || column.json_path.contains("[?") {
                    continue;
                }
                let mut steps = column.json_path.trim_start_matches('.').split('.');
                let found = steps.try_fold(&schema, |node, step| match step.strip_suffix("[0]") {
                    Some(list) => node.get("properties")?.get(list)?.get("items"),
                    None => node.get("properties")?.get(step),
                });
                assert!(found.is_some(), "{} has no {}", definition.spec.names.kind, column.json_path);
            }
        }
    }

    #[test]
    fn conditions_merge_by_type_in_every_kind_that_has_a_status() {
        let with_status =
            schemas().into_iter().filter(|(_, schema)| schema.pointer("/properties/status").is_some());
        for (kind, schema) in with_status {
            let conditions = schema.pointer("/properties/status/properties/conditions").unwrap();
            assert_eq!(conditions["x-kubernetes-list-type"], "map", "{kind}");
            assert_eq!(conditions["x-kubernetes-list-map-keys"][0], "type", "{kind}");
        }
    }
}
