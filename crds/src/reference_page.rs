//! The reference for people, `docs/api.md`: every field, its bounds and rules, every condition and reason.

use std::fmt::{self, Write};

use schemars::{JsonSchema, schema_for};
use serde_json::Value;

use crate::{
    ConditionType, Reason,
    backup::{BackupCondition, BackupReason},
    database::PARAMETERS,
    definitions,
    drill::{DrillCondition, DrillReason},
    policy::{PolicyCondition, PolicyReason},
    store::{StoreCondition, StoreReason},
};

/// The page, as Markdown.
///
/// # Errors
/// Only if text could not be written to memory.
pub fn render() -> Result<String, fmt::Error> {
    let mut page = String::from(
        "# The API, `valv.eu/v1alpha1`\n\n\
         Generated from `crds/` by `make generate`: do not edit. What the schema or its rules refuse is refused \
         at `kubectl apply`; what only the cluster can show is a condition with a reason.\n",
    );
    for definition in definitions() {
        let version = &definition.spec.versions[0];
        writeln!(page, "\n## {}\n", definition.spec.names.kind)?;
        let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let schema = serde_json::to_value(schema).unwrap_or_default();
        writeln!(
            page,
            "{} Scope: {}.\n",
            text(&schema["properties"]["spec"]["description"]),
            definition.spec.scope
        )?;
        rules(&mut page, &schema)?;
        for part in ["spec", "status"] {
            writeln!(page, "\n### `{part}`\n\n| field | type | what it is |\n|---|---|---|")?;
            fields(&mut page, part, &schema["properties"][part])?;
        }
        if definition.spec.names.kind == "JournalTenant" {
            parameters(&mut page)?;
        }
        own_words(&mut page, &definition.spec.names.kind)?;
    }
    writeln!(
        page,
        "\n## Conditions\n\nConditions merge by `type`; `lastTransitionTime` moves only when `status` does.\n"
    )?;
    words::<ConditionType>(&mut page, "type")?;
    writeln!(page, "\n## Reasons\n")?;
    words::<Reason>(&mut page, "reason")?;
    Ok(page)
}

fn parameters(page: &mut String) -> fmt::Result {
    writeln!(page, "\n### Keys of `spec.database.parameters`\n\nThese may be set, and no others:\n")?;
    for parameter in PARAMETERS {
        writeln!(page, "- `{parameter}`")?;
    }
    Ok(())
}

fn rules(page: &mut String, schema: &Value) -> fmt::Result {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        writeln!(page, "- {}", text(&rule["message"]))?;
    }
    Ok(())
}

/// One row a field. Shapes that Kubernetes itself documents are named, not unfolded.
fn fields(page: &mut String, path: &str, schema: &Value) -> fmt::Result {
    const FOREIGN: [&str; 9] = [
        "env",
        "envFrom",
        "tolerations",
        "ready",
        "live",
        "startup",
        "conditions",
        "imagePullSecrets",
        "validations",
    ];
    let required: Vec<_> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let needed = if required.contains(&name.as_str()) { ", required" } else { "" };
        writeln!(page, "| `{path}` | {}{needed} | {} |", kind(field), sentence(field))?;
        let is_foreign = FOREIGN.contains(&name.as_str()) && !path.ends_with("database.env");
        if !is_foreign {
            fields(page, &path, field)?;
            fields(page, &format!("{path}[]"), &field["items"])?;
        }
    }
    Ok(())
}

fn kind(field: &Value) -> String {
    let base = field["type"].as_str().unwrap_or("any");
    if base == "array" {
        return format!("list of {}", field["items"]["type"].as_str().unwrap_or("any"));
    }
    match field["enum"].as_array() {
        Some(values) => {
            let values: Vec<_> =
                values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`")).collect();
            values.join(", ")
        }
        None => base.to_owned(),
    }
}

/// Description, default, bounds and rules of a field, on one line.
fn sentence(field: &Value) -> String {
    let mut parts = vec![text(&field["description"])];
    let mut named = |name: &str, key: &str| {
        if !field[key].is_null() {
            let value = field[key].to_string();
            let value = value.strip_suffix(".0").unwrap_or(&value).trim_matches('"').replace('|', "\\|");
            parts.push(format!("{name} `{value}`."));
        }
    };
    named("Default", "default");
    named("At least", "minimum");
    named("At most", "maximum");
    named("Pattern", "pattern");
    for rule in field["x-kubernetes-validations"].as_array().into_iter().flatten() {
        parts.push(format!("Rule: {}.", text(&rule["message"])));
    }
    parts.join(" ")
}

/// Conditions and reasons of a kind that has its own; those of a tenant end the page.
fn own_words(page: &mut String, kind: &str) -> fmt::Result {
    match kind {
        "BackupStore" => both_words::<StoreCondition, StoreReason>(page),
        "BackupPolicy" => both_words::<PolicyCondition, PolicyReason>(page),
        "Backup" => both_words::<BackupCondition, BackupReason>(page),
        "RestoreDrill" => both_words::<DrillCondition, DrillReason>(page),
        _ => Ok(()),
    }
}

fn both_words<C: JsonSchema, R: JsonSchema>(page: &mut String) -> fmt::Result {
    writeln!(page, "\n### Conditions\n")?;
    words::<C>(page, "type")?;
    writeln!(page, "\n### Reasons\n")?;
    words::<R>(page, "reason")
}

/// A table of the values of an enum, from its own documentation.
fn words<T: JsonSchema>(page: &mut String, name: &str) -> fmt::Result {
    writeln!(page, "| {name} | meaning |\n|---|---|")?;
    let schema = serde_json::to_value(schema_for!(T)).unwrap_or_default();
    for word in schema["oneOf"].as_array().into_iter().flatten() {
        writeln!(page, "| `{}` | {} |", text(&word["const"]), text(&word["description"]))?;
    }
    Ok(())
}

fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_parameter_that_may_be_set() {
        let page = render().unwrap();

        for parameter in PARAMETERS {
            assert!(page.contains(&format!("- `{parameter}`")), "{parameter}");
        }
    }

    #[test]
    fn every_word_of_a_condition_is_explained() {
        for kind in ["BackupStore", "BackupPolicy", "Backup", "RestoreDrill"] {
            let mut page = String::new();
            own_words(&mut page, kind).unwrap();

            assert!(page.lines().filter(|line| line.starts_with("| `")).count() > 10, "{kind}: {page}");
            assert!(!page.contains("|  |"), "{kind} has a word without a meaning: {page}");
        }
    }
}
