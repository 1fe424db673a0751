//! The part `tenant`: whether the tenant's object is in it, and each Secret that it names.
//!
//! Reads a folder. No message has what is in a Secret.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_yaml::Value;

use crate::agent::durable::{self, FileError};

/// The tenant could not be made again from this.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object.
    #[error("the part tenant has no tenant.yaml that can be read")]
    NoObject(#[source] FileError),
    /// It is none.
    #[error("the part tenant has a tenant.yaml that is no JournalTenant")]
    NotAnObject,
    /// Secrets.
    #[error("the part tenant lacks Secrets that the tenant names: {}", names.join(", "))]
    SecretsMissing {
        /// Their names.
        names: Vec<String>,
    },
}

/// Whether all is in `folder` that the tenant needs to be made again.
pub fn check(folder: &Path) -> Result<(), Error> {
    let text = durable::read(&folder.join("tenant.yaml")).map_err(Error::NoObject)?;
    let object: Value = serde_yaml::from_str(&text).map_err(|_| Error::NotAnObject)?;
    if object.get("kind").and_then(Value::as_str) != Some("JournalTenant") {
        return Err(Error::NotAnObject);
    }
    let spec = object.get("spec").ok_or(Error::NotAnObject)?;
    let mut named = BTreeSet::new();
    secrets(spec, &mut named);
    let is_there = |name: &String| {
        let path: PathBuf = folder.join("secrets").join(name);
        path.read_dir().is_ok_and(|mut keys| keys.next().is_some())
    };
    let names: Vec<String> = named.into_iter().filter(|name| !is_there(name)).collect();
    if names.is_empty() { Ok(()) } else { Err(Error::SecretsMissing { names }) }
}

/// The Secrets that `value` names, wherever in it: as `secretName`, as `…ecretRef` with a name, as one of
/// `imagePullSecrets`. One that is marked `optional` need not be there.
fn secrets(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Sequence(values) => values.iter().for_each(|value| secrets(value, found)),
        Value::Mapping(fields) => {
            let optional = value.get("optional").and_then(Value::as_bool) == Some(true);
            for (key, field) in fields {
                match key.as_str().unwrap_or_default() {
                    "secretName" if !optional => found.extend(field.as_str().map(str::to_owned)),
                    "imagePullSecrets" => {
                        found.extend(field.as_sequence().into_iter().flatten().filter_map(name_in));
                    }
                    key if key.ends_with("ecretRef") || key.ends_with("ecretKeyRef") => {
                        let field_optional = field.get("optional").and_then(Value::as_bool) == Some(true);
                        found.extend(name_in(field).filter(|_| !field_optional));
                    }
                    _ => secrets(field, found),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {}
    }
}

fn name_in(reference: &Value) -> Option<String> {
    reference.get("name").and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TENANT: &str = "
apiVersion: valv.eu/v1alpha1
kind: JournalTenant
metadata: {name: ada}
spec:
  journal:
    imagePullSecrets: [{name: registry}]
    files:
    - {mountPath: /a, secretName: letters}
    - {mountPath: /b, configMapName: colours}
    envFrom: [{secretRef: {name: settings}}]
  tls: {journalSecretRef: {name: ada-tls}}
";

    #[test]
    fn the_object_and_every_secret_that_it_names_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(check(folder.path()), Err(Error::NoObject(_))));
        fs::write(folder.path().join("tenant.yaml"), TENANT).unwrap();

        let missing = check(folder.path()).unwrap_err();

        assert!(missing.to_string().ends_with(": ada-tls, letters, registry, settings"), "{missing}");
        for name in ["registry", "letters", "settings", "ada-tls"] {
            let secret = folder.path().join("secrets").join(name);
            fs::create_dir_all(&secret).unwrap();
            fs::write(secret.join("key"), "secret").unwrap();
        }
        check(folder.path()).unwrap();
    }

    #[test]
    fn what_is_no_tenant_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["{", "kind: Secret\nspec: {}", "kind: JournalTenant"] {
            fs::write(folder.path().join("tenant.yaml"), text).unwrap();

            assert!(matches!(check(folder.path()), Err(Error::NotAnObject)), "{text}");
        }
    }
}
