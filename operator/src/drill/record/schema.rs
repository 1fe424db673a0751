//! The schema of the page on records: that it is true of them, and that what it does not allow is none.

use std::collections::BTreeSet;

use kube::CustomResourceExt;
use serde_json::{Value, json};
use valv_crds::RestoreDrill;

use super::tests::example;

const SCHEMA: &str = include_str!("../../../../docs/drill-record.schema.json");

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// What `value` has that `schema` does not allow, each with its place. Knows the words that this schema uses, and no other.
fn flaws(root: &Value, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    for (word, said) in schema.as_object().unwrap() {
        let holds = match word.as_str() {
            "$schema" | "title" | "description" | "$defs" => true,
            "$ref" => {
                let of = root.pointer(said.as_str().unwrap().trim_start_matches('#')).unwrap();
                flaws(root, of, value, place, found);
                true
            }
            "type" => {
                let allowed = said.as_array().cloned().unwrap_or_else(|| vec![said.clone()]);
                allowed.iter().any(|allowed| allowed == kind(value))
            }
            "const" => said == value,
            "enum" => said.as_array().unwrap().contains(value),
            "required" => {
                let names = said.as_array().unwrap().iter().filter_map(Value::as_str);
                let missing: Vec<_> =
                    names.filter(|name| value.is_object() && value.get(name).is_none()).collect();
                found.extend(missing.iter().map(|name| format!("{place}/{name} is missing")));
                true
            }
            "properties" => {
                for (name, of) in said.as_object().unwrap() {
                    if let Some(part) = value.get(name) {
                        flaws(root, of, part, &format!("{place}/{name}"), found);
                    }
                }
                true
            }
            "items" => {
                for (index, part) in value.as_array().into_iter().flatten().enumerate() {
                    flaws(root, said, part, &format!("{place}/{index}"), found);
                }
                true
            }
            "minLength" => value.as_str().is_none_or(|text| text.len() as u64 >= said.as_u64().unwrap()),
            "maxLength" => value.as_str().is_none_or(|text| text.len() as u64 <= said.as_u64().unwrap()),
            "minimum" => value.as_i64().is_none_or(|number| number >= said.as_i64().unwrap()),
            "format" => value.as_str().is_none_or(|text| text.parse::<jiff::Timestamp>().is_ok()),
            unknown => panic!("{place}: {unknown} is not looked at"),
        };
        if !holds {
            found.push(format!("{place}: {value} against {word} {said}"));
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn found(value: &Value) -> Vec<String> {
    let mut found = vec![];
    flaws(&schema(), &schema(), value, "", &mut found);
    found
}

/// The places of all fields in `value`, those of a list's items as of one.
fn fields(value: &Value, place: &str, found: &mut BTreeSet<String>) {
    for (name, part) in value.as_object().into_iter().flatten() {
        let place = format!("{place}/{name}");
        found.insert(place.clone());
        fields(part, &place, found);
    }
    value.as_array().into_iter().flatten().for_each(|part| fields(part, place, found));
}

/// The places of all fields that `schema` tells of.
fn told(schema: &Value, place: &str, found: &mut BTreeSet<String>) {
    for (name, of) in schema["properties"].as_object().into_iter().flatten() {
        let place = format!("{place}/{name}");
        found.insert(place.clone());
        told(of, &place, found);
    }
    if schema["items"].is_object() {
        told(&schema["items"], place, found);
    }
}

#[test]
fn the_example_of_the_page_fits_the_schema_which_tells_of_each_of_its_fields_and_of_no_other() {
    assert_eq!(found(&example()), [""; 0]);

    let (mut there, mut said) = (BTreeSet::new(), BTreeSet::new());
    fields(&example(), "", &mut there);
    told(&schema(), "", &mut said);
    assert_eq!(there, said);
}

#[test]
fn what_a_drill_that_came_to_nothing_leaves_null_may_be_null() {
    let mut record = example();
    for place in ["/backup", "/started", "/key", "/objectives", "/measured/rtoSeconds", "/measured/bytes"] {
        *record.pointer_mut(place).unwrap() = Value::Null;
    }

    assert_eq!(found(&record), [""; 0]);
}

#[test]
fn what_lacks_a_field_or_has_another_kind_of_one_is_no_record() {
    for (place, wrong) in [
        ("/format", json!(2)),
        ("/passed", json!("true")),
        ("/passed", Value::Null),
        ("/ended", json!("yesterday")),
        ("/drill/slot", json!("20261122")),
        ("/drill/origin", json!("Somebody")),
        ("/backup/manifest/blake3", json!("9b1f")),
        ("/verdicts/0/outcome", json!("Fine")),
        ("/measured/phases/0/phase", json!("TearDown")),
        ("/measured/rtoSeconds", json!(-1)),
        ("/objectives/met", json!(true)),
    ] {
        let mut record = example();
        *record.pointer_mut(place).unwrap() = wrong;
        assert_eq!(found(&record).len(), 1, "{place}: {:?}", found(&record));
    }
    for name in schema()["required"].as_array().unwrap() {
        let mut record = example();
        record.as_object_mut().unwrap().remove(name.as_str().unwrap()).unwrap();
        assert_eq!(found(&record), [format!("/{} is missing", name.as_str().unwrap())]);
    }
}

#[test]
fn the_schema_names_every_outcome_phase_origin_and_bringer_that_there_is() {
    let crd = serde_json::to_value(RestoreDrill::crd()).unwrap();
    let api = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties").unwrap().clone();
    let names = |value: &Value, place: &str| -> BTreeSet<String> {
        let names = value.pointer(place).and_then(Value::as_array).unwrap_or_else(|| panic!("{place}"));
        names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    for (of_api, of_schema, but) in [
        (
            "/status/properties/verdicts/items/properties/outcome/enum",
            "/properties/verdicts/items/properties/outcome/enum",
            None,
        ),
        (
            "/status/properties/measured/properties/phases/items/properties/phase/enum",
            "/properties/measured/properties/phases/items/properties/phase/enum",
            // It is written before.
            Some("TearDown"),
        ),
        ("/spec/properties/origin/enum", "/properties/drill/properties/origin/enum", None),
        ("/status/properties/key/properties/by/enum", "/properties/key/properties/by/enum", None),
    ] {
        let mut wanted = names(&api, of_api);
        if let Some(but) = but {
            assert!(wanted.remove(but));
        }
        assert_eq!(names(&schema(), of_schema), wanted);
    }
}
