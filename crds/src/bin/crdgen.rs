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
        let yaml = quoted(&serde_yaml::to_string(&value)?);
        if yaml.contains("{{") {
            return Err("a description contains {{, which Helm would take for a template".into());
        }
        let name = format!("{}.yaml", definition.spec.names.plural);
        let text = format!("# Generated from crds/ by `make generate`. Do not edit.\n{yaml}");
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}

/// Words that YAML 1.1 takes for true or false, and YAML 1.2 for text.
/// Source: <https://yaml.org/type/bool.html>
const BOOLEANS: [&str; 8] = ["y", "yes", "on", "n", "no", "off", "true", "false"];

/// `yaml`, readable by both: `serde_yaml` writes 1.2, and Helm reads 1.1, to which the plain word `Yes` is `true`.
/// What `serde_yaml` writes as `true` is no text, and stays.
fn quoted(yaml: &str) -> String {
    let line = |line: &str| {
        let (head, word) = line.rsplit_once(' ').unwrap_or(("", line));
        let is_value = head.ends_with(':') || head.trim() == "-" || head.ends_with(" -");
        let is_boolean =
            BOOLEANS.contains(&word.to_ascii_lowercase().as_str()) && !["true", "false"].contains(&word);
        if is_value && is_boolean { format!("{head} '{word}'\n") } else { format!("{line}\n") }
    };
    yaml.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_older_yaml_takes_for_booleans_are_quoted() {
        let yaml = "enum:\n- Yes\n- No\n- Unknown\ndefault: Off\nnullable: true\ndescription: Say yes\n";

        assert_eq!(
            quoted(yaml),
            "enum:\n- 'Yes'\n- 'No'\n- Unknown\ndefault: 'Off'\nnullable: true\ndescription: Say yes\n"
        );
        assert_eq!(
            serde_yaml::from_str::<serde_json::Value>(&quoted(yaml)).unwrap(),
            serde_yaml::from_str::<serde_json::Value>(yaml).unwrap()
        );
    }
}
