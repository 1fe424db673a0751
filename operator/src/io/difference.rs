//! Tells whether an object in the cluster is what the operator wants.
//!
//! Input: the wanted object, the one that stands. Output: the path of the first difference, if any.
//! Pure. What the wanted object does not mention is not its business (the apiserver fills in defaults), but for
//! selectors: one more label there selects something else. A list is wanted as a whole; quantities are equal when
//! their values are (`1` and `1000m`).

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

/// The path of the first thing in `wanted` that `standing` does not have so.
pub fn difference(wanted: &Value, standing: &Value) -> Option<String> {
    differs("", wanted, standing)
}

fn differs(path: &str, wanted: &Value, standing: &Value) -> Option<String> {
    match (wanted, standing) {
        (Value::Object(wanted), Value::Object(standing)) => {
            let lacking = wanted.iter().find_map(|(field, value)| {
                let path = format!("{path}.{field}");
                match standing.get(field) {
                    Some(standing) => differs(&path, value, standing),
                    None if is_empty(value) => None,
                    None => Some(path),
                }
            });
            lacking.or_else(|| {
                let foreign = standing.keys().find(|field| !wanted.contains_key(*field));
                foreign.filter(|_| is_selector(path)).map(|field| format!("{path}.{field}"))
            })
        }
        (Value::Array(wanted), Value::Array(standing)) => {
            if wanted.len() != standing.len() {
                return Some(path.to_owned());
            }
            let pairs = wanted.iter().zip(standing).enumerate();
            pairs.into_iter().find_map(|(index, (wanted, standing))| {
                differs(&format!("{path}[{index}]"), wanted, standing)
            })
        }
        (Value::String(wanted), Value::String(standing)) if wanted != standing => {
            let same = quantity(wanted).zip(quantity(standing)).is_some_and(|(one, other)| one == other);
            (!same).then(|| path.to_owned())
        }
        (wanted, standing) => (wanted != standing).then(|| path.to_owned()),
    }
}

/// Whether the object at `path` selects by all that is in it.
fn is_selector(path: &str) -> bool {
    let field = path.rsplit('.').next().unwrap_or_default();
    ["selector", "podSelector", "namespaceSelector", "matchLabels", "nodeSelector"].contains(&field)
}

/// The apiserver drops what is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
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

    #[test]
    fn defaults_that_the_apiserver_adds_are_no_difference() {
        let wanted = json!({ "spec": { "ports": [{ "port": 443 }], "selector": { "a": "b" } } });
        let standing = json!({ "spec": {
            "ports": [{ "port": 443, "protocol": "TCP" }], "selector": { "a": "b" }, "clusterIP": "10.96.0.7",
        }});

        assert_eq!(difference(&wanted, &standing), None);
    }

    #[test]
    fn an_edited_value_a_lost_field_and_an_added_element_are_found_by_path() {
        let wanted = json!({ "spec": { "ports": [{ "port": 443 }], "selector": { "a": "b" } } });

        let edited = json!({ "spec": { "ports": [{ "port": 444 }], "selector": { "a": "b" } } });
        let lost = json!({ "spec": { "ports": [{ "port": 443 }] } });
        let added =
            json!({ "spec": { "ports": [{ "port": 443 }, { "port": 80 }], "selector": { "a": "b" } } });

        assert_eq!(difference(&wanted, &edited).unwrap(), ".spec.ports[0].port");
        assert_eq!(difference(&wanted, &lost).unwrap(), ".spec.selector");
        assert_eq!(difference(&wanted, &added).unwrap(), ".spec.ports");
    }

    #[test]
    fn one_more_label_in_a_selector_is_a_difference_and_elsewhere_it_is_not() {
        let wanted = json!({ "spec": { "podSelector": {} }, "metadata": { "labels": { "a": "b" } } });
        let narrowed = json!({ "spec": { "podSelector": { "matchLabels": { "app": "nobody" } } },
            "metadata": { "labels": { "a": "b" } } });
        let labelled =
            json!({ "spec": { "podSelector": {} }, "metadata": { "labels": { "a": "b", "c": "d" } } });

        assert_eq!(difference(&wanted, &narrowed).unwrap(), ".spec.podSelector.matchLabels");
        assert_eq!(difference(&wanted, &labelled), None);
    }

    #[test]
    fn quantities_are_compared_by_value() {
        assert_eq!(difference(&json!("1000m"), &json!("1")), None);
        assert_eq!(difference(&json!("0.5"), &json!("500m")), None);
        assert_eq!(difference(&json!("1Gi"), &json!("1024Mi")), None);
        assert!(difference(&json!("1Gi"), &json!("1G")).is_some());
        assert!(difference(&json!("fast"), &json!("slow")).is_some());
    }

    #[test]
    fn what_is_empty_need_not_be_there() {
        assert_eq!(difference(&json!({ "labels": {}, "list": [] }), &json!({})), None);
    }
}
