//! Writes what is generated from the API's types: `crdgen chart FOLDER` the chart's custom resource
//! definitions, `crdgen reference FILE` the reference for people.

use std::{error::Error, fs, path::Path};

use serde_json::json;
use valv_crds::reference_page;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["chart", folder] => chart(Path::new(folder)),
        ["reference", file] => Ok(fs::write(file, reference_page::render()?)?),
        _ => Err("usage: crdgen chart FOLDER | crdgen reference FILE".into()),
    }
}

/// Helm never upgrades a `crds/` folder, so they are templates, and are kept when the chart is uninstalled: with
/// them would go every tenant.
fn chart(folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    for definition in valv_crds::definitions() {
        let mut value = serde_json::to_value(&definition)?;
        value["metadata"]["annotations"] = json!({ "helm.sh/resource-policy": "keep" });
        value["metadata"]["labels"] = json!({ "app.kubernetes.io/part-of": "valv" });
        let yaml = serde_yaml::to_string(&value)?;
        if yaml.contains("{{") {
            return Err("a description contains {{, which Helm would take for a template".into());
        }
        let name = format!("{}.yaml", definition.spec.names.plural);
        let text = format!("# Generated from crds/ by `make generate`. Do not edit.\n{yaml}");
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
