//! Tells whether an object in the cluster is what the operator wants.
//!
//! Input: the wanted object, the one that stands. Output: the path of the first difference, if any; or what to
//! replace in the one that stands. Pure. What the wanted object does not mention is not its business (the apiserver
//! fills in defaults), but for what is wanted whole: lists, selectors (one more label there selects something else),
//! and the data of a ConfigMap (one more key is one more file). Where quantities stand they are equal when their
//! values are (`1` and `1000m`).

use std::fmt;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

/// Fields whose own fields are quantities.
const OF_QUANTITIES: [&str; 6] = ["requests", "limits", "hard", "capacity", "default", "defaultRequest"];

/// Fields that select by all that is in them.
const SELECTORS: [&str; 5] = ["selector", "podSelector", "namespaceSelector", "matchLabels", "nodeSelector"];

/// Where something is in an object.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    Field(String),
    Index(usize),
}

/// The path of the first thing in `wanted` that `standing` does not have so.
pub fn difference(wanted: &Value, standing: &Value) -> Option<Path> {
    differs(&Path::default(), wanted, standing)
}

/// What server-side apply leaves of `standing`, as operations of a JSON Patch: it sets what `wanted` mentions and
/// takes nothing away that somebody else put into what is wanted whole.
///
/// # Source
/// RFC 6902; <https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy>
pub fn replacements(wanted: &Value, standing: &Value) -> Vec<Value> {
    let mut standing = standing.clone();
    let mut operations = vec![];
    while let Some(path) = difference(wanted, &standing) {
        let Some(path) = path.wanted_whole(wanted) else { break };
        let pointer = path.pointer();
        let (Some(whole), Some(place)) = (wanted.pointer(&pointer), standing.pointer_mut(&pointer)) else {
            break;
        };
        place.clone_from(whole);
        operations.push(json!({ "op": "replace", "path": pointer, "value": whole }));
    }
    operations
}

fn differs(path: &Path, wanted: &Value, standing: &Value) -> Option<Path> {
    match (wanted, standing) {
        (Value::Object(wanted), Value::Object(standing)) => {
            let lacking = wanted.iter().find_map(|(field, value)| {
                let path = path.field(field);
                match standing.get(field) {
                    Some(standing) => differs(&path, value, standing),
                    None if is_empty(value) => None,
                    None => Some(path),
                }
            });
            lacking.or_else(|| {
                let foreign = standing.keys().find(|field| !wanted.contains_key(*field));
                foreign.filter(|_| path.is_closed()).map(|field| path.field(field))
            })
        }
        (Value::Array(wanted), Value::Array(standing)) => {
            if wanted.len() != standing.len() {
                return Some(path.clone());
            }
            let pairs = wanted.iter().zip(standing).enumerate();
            pairs
                .into_iter()
                .find_map(|(index, (wanted, standing))| differs(&path.index(index), wanted, standing))
        }
        (Value::String(wanted), Value::String(standing)) if wanted != standing && path.is_quantity() => {
            let same = quantity(wanted).zip(quantity(standing)).is_some_and(|(one, other)| one == other);
            (!same).then(|| path.clone())
        }
        (wanted, standing) => (wanted != standing).then(|| path.clone()),
    }
}

impl Path {
    fn field(&self, name: &str) -> Self {
        self.with(Step::Field(name.to_owned()))
    }

    fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// Whether the first steps are these fields.
    pub fn begins_with(&self, fields: &[&str]) -> bool {
        self.0.len() >= fields.len()
            && self
                .0
                .iter()
                .zip(fields)
                .all(|(step, field)| matches!(step, Step::Field(name) if name == field))
    }

    /// Whether one more field in the object here is a difference.
    fn is_closed(&self) -> bool {
        // The data of a ConfigMap or a Secret.
        matches!(self.0.as_slice(), [Step::Field(only)] if only == "data")
            || matches!(self.0.last(), Some(Step::Field(last)) if SELECTORS.contains(&last.as_str()))
    }

    /// Whether the text here is a quantity.
    fn is_quantity(&self) -> bool {
        match self.0.as_slice() {
            [Step::Field(top), ..] if top == "data" => false,
            [.., Step::Field(last)] if last == "sizeLimit" => true,
            [.., Step::Field(parent), Step::Field(_)] => OF_QUANTITIES.contains(&parent.as_str()),
            _ => false,
        }
    }

    /// The innermost list or closed object of `wanted` that has this place in it, or is it.
    fn wanted_whole(&self, wanted: &Value) -> Option<Self> {
        let outwards = (1..=self.0.len()).rev().map(|length| Self(self.0[..length].to_vec()));
        outwards.into_iter().find(|path| match wanted.pointer(&path.pointer()) {
            Some(Value::Array(_)) => true,
            Some(Value::Object(_)) => path.is_closed(),
            _ => false,
        })
    }

    /// As RFC 6901 has it.
    fn pointer(&self) -> String {
        let steps = self.0.iter().map(|step| match step {
            Step::Field(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
            Step::Index(index) => format!("/{index}"),
        });
        steps.collect()
    }
}

/// `.spec.ports[0].port`.
impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| match step {
            Step::Field(name) => write!(formatter, ".{name}"),
            Step::Index(index) => write!(formatter, "[{index}]"),
        })
    }
}

/// The apiserver drops what is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::String(text) => text.is_empty(),
        // `false` may be the opposite of what is not said: `automountServiceAccountToken`.
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The value of a quantity in thousandths; `None` if `text` is none.
///
/// # Source
/// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
pub fn quantity(text: &str) -> Option<i128> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let thousandths = match unit {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_i128.pow(2),
        "M" => 1_000_i128.pow(3),
        "G" => 1_000_i128.pow(4),
        "T" => 1_000_i128.pow(5),
        "P" => 1_000_i128.pow(6),
        "Ki" => 1_000 * 1_024,
        "Mi" => 1_000 * 1_024_i128.pow(2),
        "Gi" => 1_000 * 1_024_i128.pow(3),
        "Ti" => 1_000 * 1_024_i128.pow(4),
        "Pi" => 1_000 * 1_024_i128.pow(5),
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i128 = whole.parse().ok()?;
    let fraction_value: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    Some(whole.checked_mul(thousandths)? + fraction_value.checked_mul(thousandths)? / scale)
}

/// The value of `quantity` in whole units, rounded up; `None` if it is none.
pub fn units(value: &Quantity) -> Option<i128> {
    quantity(&value.0).map(|thousandths| (thousandths + 999) / 1_000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(wanted: &Value, standing: &Value) -> Option<String> {
        difference(wanted, standing).map(|path| path.to_string())
    }

    #[test]
    fn defaults_that_the_apiserver_adds_are_no_difference() {
        let wanted = json!({ "spec": { "ports": [{ "port": 443 }], "selector": { "a": "b" } } });
        let standing = json!({ "spec": {
            "ports": [{ "port": 443, "protocol": "TCP" }], "selector": { "a": "b" }, "clusterIP": "10.96.0.7",
        }});

        assert_eq!(path(&wanted, &standing), None);
        assert_eq!(replacements(&wanted, &standing), Vec::<Value>::new());
    }

    #[test]
    fn an_edited_value_a_lost_field_and_an_added_element_are_found_by_path() {
        let wanted = json!({ "spec": { "ports": [{ "port": 443 }], "selector": { "a": "b" } } });

        let edited = json!({ "spec": { "ports": [{ "port": 444 }], "selector": { "a": "b" } } });
        let lost = json!({ "spec": { "ports": [{ "port": 443 }] } });
        let added =
            json!({ "spec": { "ports": [{ "port": 443 }, { "port": 80 }], "selector": { "a": "b" } } });

        assert_eq!(path(&wanted, &edited).unwrap(), ".spec.ports[0].port");
        assert_eq!(path(&wanted, &lost).unwrap(), ".spec.selector");
        assert_eq!(path(&wanted, &added).unwrap(), ".spec.ports");
    }

    #[test]
    fn one_more_label_in_a_selector_is_a_difference_and_elsewhere_it_is_not() {
        let wanted = json!({ "spec": { "podSelector": {} }, "metadata": { "labels": { "a": "b" } } });
        let narrowed = json!({ "spec": { "podSelector": { "matchLabels": { "app": "nobody" } } },
            "metadata": { "labels": { "a": "b" } } });
        let labelled =
            json!({ "spec": { "podSelector": {} }, "metadata": { "labels": { "a": "b", "c": "d" } } });

        assert_eq!(path(&wanted, &narrowed).unwrap(), ".spec.podSelector.matchLabels");
        assert_eq!(path(&wanted, &labelled), None);
    }

    #[test]
    fn one_more_key_of_a_config_map_is_a_difference_and_is_taken_away() {
        let wanted = json!({ "data": { "state.json": "{}" } });
        let standing = json!({ "data": { "state.json": "{}", "systemIdentifier": "1" } });

        assert_eq!(path(&wanted, &standing).unwrap(), ".data.systemIdentifier");
        assert_eq!(
            replacements(&wanted, &standing),
            [json!({ "op": "replace", "path": "/data", "value": { "state.json": "{}" } })]
        );
    }

    #[test]
    fn elements_that_somebody_added_at_any_depth_are_taken_away_and_defaults_of_others_stay() {
        let wanted = json!({ "spec": {
            "containers": [{ "name": "journal", "env": [{ "name": "URL", "value": "u" }] }],
            "volumes": [{ "name": "tls" }],
        }});
        let standing = json!({ "spec": {
            "dnsPolicy": "ClusterFirst",
            "containers": [
                { "name": "journal", "imagePullPolicy": "Always",
                  "env": [{ "name": "URL", "value": "u" }, { "name": "EXTRA", "value": "1" }] },
            ],
            "volumes": [{ "name": "tls" }, { "name": "host" }],
        }});

        let replaced = replacements(&wanted, &standing);

        assert_eq!(
            replaced,
            [
                json!({ "op": "replace", "path": "/spec/containers/0/env", "value": [{ "name": "URL", "value": "u" }] }),
                json!({ "op": "replace", "path": "/spec/volumes", "value": [{ "name": "tls" }] }),
            ]
        );
    }

    #[test]
    fn a_sidecar_goes_with_all_that_is_in_it() {
        let wanted = json!({ "containers": [{ "name": "journal" }] });
        let standing =
            json!({ "containers": [{ "name": "sidecar", "env": [{ "name": "A" }] }, { "name": "journal" }] });

        let replaced = replacements(&wanted, &standing);

        assert_eq!(
            replaced,
            [json!({ "op": "replace", "path": "/containers", "value": [{ "name": "journal" }] })]
        );
    }

    #[test]
    fn quantities_are_compared_by_value_where_quantities_stand_and_as_text_elsewhere() {
        let limits = |memory: &str| json!({ "resources": { "limits": { "memory": memory } } });
        let size = |limit: &str| json!({ "emptyDir": { "sizeLimit": limit } });
        let argument = |value: &str| json!({ "args": ["--workers", value] });
        let file = |value: &str| json!({ "data": { "limits": value } });

        assert_eq!(path(&limits("1000m"), &limits("1")), None);
        assert_eq!(path(&limits("0.5"), &limits("500m")), None);
        assert_eq!(path(&limits("1Gi"), &limits("1024Mi")), None);
        assert_eq!(path(&size("1Gi"), &size("1024Mi")), None);
        assert!(path(&limits("1Gi"), &limits("1G")).is_some());
        assert!(path(&limits("fast"), &limits("slow")).is_some());
        assert_eq!(path(&argument("10"), &argument("10000m")).unwrap(), ".args[1]");
        assert_eq!(path(&file("1"), &file("1000m")).unwrap(), ".data.limits");
    }

    #[test]
    fn what_is_empty_need_not_be_there() {
        let wanted = json!({ "labels": {}, "list": [], "env": [{ "name": "DEBUG", "value": "" }] });

        assert_eq!(path(&wanted, &json!({ "env": [{ "name": "DEBUG" }] })), None);
        assert!(path(&json!({ "automountServiceAccountToken": false }), &json!({})).is_some());
    }
}
