//! Manifests: YAML as a user writes it, and what a test says differently.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

/// The least that runs the test journal.
pub const SMALLEST: &str = include_str!("tenants/smallest.yaml");

/// The test journal behind a proxy for TLS, under other names for everything.
pub const PROXIED: &str = include_str!("tenants/proxied.yaml");

/// A server that knows neither TLS nor environment variables: it finds its database in files.
pub const BY_FILES: &str = include_str!("tenants/by-files.yaml");

/// Where a manifest names its tenant.
const NAME: &str = "NAME";

/// The manifest of one tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    value: Value,
    images: BTreeMap<String, String>,
}

impl Manifest {
    /// `yaml` for the tenant `name`. An image may be called by its name in `images`.
    pub fn new(yaml: &str, name: &str, images: &BTreeMap<String, String>) -> Result<Self> {
        let value = serde_yaml::from_str(&yaml.replace(NAME, name))?;
        let mut manifest = Self { value, images: images.clone() };
        manifest.resolve_image();
        Ok(manifest)
    }

    /// Says something differently: a part of `spec` as YAML. A list is replaced as a whole, `null` takes away.
    pub fn change(&mut self, spec: &str) -> Result<()> {
        let name = self.value["metadata"]["name"].as_str().unwrap_or_default();
        let part: Value = serde_yaml::from_str(&spec.replace(NAME, name))?;
        merge(&mut self.value["spec"], part);
        self.resolve_image();
        Ok(())
    }

    /// Sets a label.
    pub fn label(&mut self, name: &str, value: &str) {
        merge(&mut self.value, json!({ "metadata": { "labels": { name: value } } }));
    }

    /// Sets an annotation, or takes it away.
    pub fn annotate(&mut self, name: &str, value: Option<&str>) {
        let value = value.map(|value| json!(value)).unwrap_or_default();
        merge(&mut self.value, json!({ "metadata": { "annotations": { name: value } } }));
    }

    /// As it is applied.
    pub fn value(&self) -> &Value {
        &self.value
    }

    fn resolve_image(&mut self) {
        if let Some(image) = self.value.pointer_mut("/spec/journal/image")
            && let Some(reference) = image.as_str().and_then(|name| self.images.get(name))
        {
            *image = json!(reference);
        }
    }
}

/// RFC 7386.
pub fn merge(into: &mut Value, change: Value) {
    let Value::Object(change) = change else {
        *into = change;
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let Some(fields) = into.as_object_mut() else { return };
    for (name, value) in change {
        if value.is_null() {
            fields.remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> Manifest {
        let images = BTreeMap::from([("journal-1".to_owned(), "valv.local/journal:1-abc".to_owned())]);
        Manifest::new(SMALLEST, "ada", &images).unwrap()
    }

    #[test]
    fn an_image_called_by_its_name_is_its_reference() {
        assert_eq!(ada().value()["spec"]["journal"]["image"], "valv.local/journal:1-abc");
    }

    #[test]
    fn what_is_said_differently_leaves_the_rest() {
        let mut manifest = ada();

        manifest.change("journal: {replicas: 2, migrate: null}\nhost: NAME.example").unwrap();

        let spec = &manifest.value()["spec"];
        assert_eq!(spec["journal"]["replicas"], 2);
        assert_eq!(spec["journal"].get("migrate"), None);
        assert_eq!(spec["host"], "ada.example");
        assert_eq!(spec["database"]["size"], "1Gi");
    }

    #[test]
    fn an_annotation_comes_and_goes() {
        let mut manifest = ada();

        manifest.annotate("valv.eu/paused", Some(""));
        let paused = manifest.value()["metadata"]["annotations"].clone();
        manifest.annotate("valv.eu/paused", None);

        assert_eq!(paused, json!({ "valv.eu/paused": "" }));
        assert_eq!(manifest.value()["metadata"]["annotations"], json!({}));
    }
}
