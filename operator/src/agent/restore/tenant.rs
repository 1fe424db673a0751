//! The part `tenant`: whether the tenant's object is in it, and each Secret and ConfigMap that it names, with content.
//!
//! Reads a folder. No message has what is in a Secret: it is compared by digest with what the operator saw last.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use crate::{
    agent::durable::{self, FileError},
    archive::{canonical, digest::Blake3},
};

/// What the tenant has now: digests of its spec, and of each key of each Secret and ConfigMap that it names. The operator
/// leaves it beside the reader's credentials, which go when the restore ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Live {
    /// Of the spec, in canonical form.
    pub spec: String,
    /// By name and key.
    #[serde(default)]
    pub secrets: BTreeMap<String, BTreeMap<String, String>>,
    /// By name and key.
    #[serde(default)]
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
}

/// The digest of a spec, however it was written down.
///
/// # Errors
/// If it cannot be written in canonical form.
pub fn spec_digest(spec: &impl Serialize) -> Result<String, canonical::Error> {
    Ok(Blake3::of(&canonical::to_vec(spec)?).to_string())
}

/// The tenant could not be made again from this.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object.
    #[error("the part tenant has no tenant.yaml that can be read")]
    NoObject(#[source] FileError),
    /// It is none.
    #[error("the part tenant has a tenant.yaml that is no JournalTenant")]
    NotAnObject,
    /// Secrets, ConfigMaps.
    #[error("the part tenant lacks what the tenant names: {}", names.join(", "))]
    Missing {
        /// Their kinds and names.
        names: Vec<String>,
    },
    /// Secrets, ConfigMaps without content.
    #[error("the part tenant has these, and nothing in them: {}", names.join(", "))]
    Empty {
        /// Their kinds and names.
        names: Vec<String>,
    },
    /// Something cannot be read.
    #[error("the part tenant cannot be read")]
    Unreadable(#[source] io::Error),
}

/// A kind of object that the tenant's spec names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    ConfigMap,
    Secret,
}

impl Named {
    fn folder(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::ConfigMap => "configmaps",
        }
    }
}

/// What differs from `live`, in words: nothing, if the tenant can be made again from `folder` as it is now.
///
/// # Errors
/// If something that the tenant needs to be made again is not in `folder`, or has nothing in it.
pub fn check(folder: &Path, live: Option<&Live>) -> Result<Vec<String>, Error> {
    let object = object(folder)?;
    let spec = object.get("spec").ok_or(Error::NotAnObject)?;
    let mut named = BTreeSet::new();
    references(spec, &mut named);
    let (mut missing, mut empty) = (vec![], vec![]);
    for (kind, name) in &named {
        let keys = keys(folder, *kind, name)?;
        let words = format!("{kind:?} {name}");
        if keys.is_empty() {
            missing.push(words);
        } else if keys.values().all(|content| content.is_empty()) {
            empty.push(words);
        }
    }
    if !missing.is_empty() {
        return Err(Error::Missing { names: missing });
    }
    let mut differing = vec![];
    if let Some(live) = live {
        let spec = serde_json::to_value(spec).ok().and_then(|spec| spec_digest(&spec).ok());
        if spec.as_ref() != Some(&live.spec) {
            differing.push("the tenant's spec".to_owned());
        }
        let both = [(Named::Secret, &live.secrets), (Named::ConfigMap, &live.config_maps)];
        for (kind, name, now) in
            both.into_iter().flat_map(|(kind, all)| all.iter().map(move |(name, now)| (kind, name, now)))
        {
            let kept = keys(folder, kind, name)?;
            for (key, digest) in now {
                let words = format!("{kind:?} {name}, key {key}");
                match kept.get(key) {
                    Some(content) if Blake3::of(content).to_string() == *digest => {}
                    // It has a value now, and a restore would bring none.
                    Some(content) if content.is_empty() => empty.push(words),
                    Some(_) | None => differing.push(words),
                }
            }
        }
    }
    if empty.is_empty() { Ok(differing) } else { Err(Error::Empty { names: empty }) }
}

/// For how many recipients the tenant in `folder` was to be encrypted; `None` if it does not say.
pub fn recipients(folder: &Path) -> Option<usize> {
    let object = object(folder).ok()?;
    let recipients = object.get("spec")?.get("backup")?.get("recipients")?.as_mapping()?;
    Some(recipients.values().filter(|recipient| !recipient.is_null()).count())
}

fn object(folder: &Path) -> Result<Value, Error> {
    let text = durable::read(&folder.join("tenant.yaml")).map_err(Error::NoObject)?;
    let object: Value = serde_yaml::from_str(&text).map_err(|_| Error::NotAnObject)?;
    if object.get("kind").and_then(Value::as_str) != Some("JournalTenant") {
        return Err(Error::NotAnObject);
    }
    Ok(object)
}

/// What is in a Secret or ConfigMap, by key; nothing, if it is not there.
fn keys(folder: &Path, kind: Named, name: &str) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let path: PathBuf = folder.join(kind.folder()).join(name);
    let entries = match path.read_dir() {
        Ok(entries) => entries,
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(Error::Unreadable(error)),
    };
    let read = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?))
    };
    entries.map(read).collect::<io::Result<_>>().map_err(Error::Unreadable)
}

/// The Secrets and ConfigMaps that `value` names, wherever in it: as `secretName` and `configMapName`, as `…Ref` and
/// `…KeyRef` with a name, as one of `imagePullSecrets`. One that is marked `optional` need not be there.
fn references(value: &Value, found: &mut BTreeSet<(Named, String)>) {
    match value {
        Value::Sequence(values) => values.iter().for_each(|value| references(value, found)),
        Value::Mapping(fields) => {
            let optional = value.get("optional").and_then(Value::as_bool) == Some(true);
            for (key, field) in fields {
                let key = key.as_str().unwrap_or_default();
                let named = |kind: Named| {
                    let field_optional = field.get("optional").and_then(Value::as_bool) == Some(true);
                    name_in(field).filter(|_| !field_optional).map(|name| (kind, name))
                };
                match key {
                    "secretName" | "configMapName" if !optional => {
                        let kind = if key == "secretName" { Named::Secret } else { Named::ConfigMap };
                        found.extend(field.as_str().map(|name| (kind, name.to_owned())));
                    }
                    "imagePullSecrets" => {
                        let names = field.as_sequence().into_iter().flatten().filter_map(name_in);
                        found.extend(names.map(|name| (Named::Secret, name)));
                    }
                    key if key.ends_with("ecretRef") || key.ends_with("ecretKeyRef") => {
                        found.extend(named(Named::Secret));
                    }
                    "configMapRef" | "configMapKeyRef" => found.extend(named(Named::ConfigMap)),
                    _ => references(field, found),
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
    use serde_json::json;

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
    envFrom: [{secretRef: {name: settings}}, {configMapRef: {name: maybe, optional: true}}]
  tls: {journalSecretRef: {name: ada-tls}}
  backup: {recipients: {tenant: age1a, escrow: age1b, drill: age1c}}
";

    /// A folder with all that the tenant names.
    fn whole() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tenant.yaml"), TENANT).unwrap();
        for name in ["registry", "letters", "settings", "ada-tls"] {
            put(&folder, "secrets", name, "secret");
        }
        put(&folder, "configmaps", "colours", "green");
        folder
    }

    fn put(folder: &tempfile::TempDir, kind: &str, name: &str, content: &str) {
        let path = folder.path().join(kind).join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("key"), content).unwrap();
    }

    /// What the operator sees of that tenant.
    fn live() -> Live {
        let object: serde_json::Value = serde_yaml::from_str(TENANT).unwrap();
        let of = |content: &str| [("key".to_owned(), Blake3::of(content.as_bytes()).to_string())].into();
        Live {
            spec: spec_digest(&object["spec"]).unwrap(),
            secrets: [("letters".to_owned(), of("secret"))].into(),
            config_maps: [("colours".to_owned(), of("green"))].into(),
        }
    }

    #[test]
    fn the_object_and_all_that_it_names_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(check(folder.path(), None), Err(Error::NoObject(_))));
        fs::write(folder.path().join("tenant.yaml"), TENANT).unwrap();

        let missing = check(folder.path(), None).unwrap_err().to_string();

        let all = ": ConfigMap colours, Secret ada-tls, Secret letters, Secret registry, Secret settings";
        assert!(missing.ends_with(all), "{missing}");
        assert_eq!(check(whole().path(), None).unwrap(), Vec::<String>::new());
        assert_eq!(recipients(whole().path()), Some(3));
    }

    #[test]
    fn a_secret_that_was_backed_up_empty_is_none() {
        let folder = whole();
        put(&folder, "secrets", "letters", "");

        let error = check(folder.path(), None).unwrap_err();

        assert!(error.to_string().ends_with("nothing in them: Secret letters"), "{error}");
        // One key of several, which has a value now.
        fs::write(folder.path().join("secrets/letters/other"), "there").unwrap();
        assert_eq!(check(folder.path(), None).unwrap(), Vec::<String>::new());
        assert!(matches!(check(folder.path(), Some(&live())), Err(Error::Empty { .. })));
    }

    #[test]
    fn what_differs_from_now_is_told_by_its_name_and_not_by_what_it_is() {
        let folder = whole();
        assert_eq!(check(folder.path(), Some(&live())).unwrap(), Vec::<String>::new());

        put(&folder, "secrets", "letters", "another");
        put(&folder, "configmaps", "colours", "blue");
        let changed = Live { spec: spec_digest(&json!({})).unwrap(), ..live() };

        let differing = check(folder.path(), Some(&changed)).unwrap();

        assert_eq!(differing, ["the tenant's spec", "Secret letters, key key", "ConfigMap colours, key key"]);
    }

    #[test]
    fn what_is_no_tenant_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["{", "kind: Secret\nspec: {}", "kind: JournalTenant"] {
            fs::write(folder.path().join("tenant.yaml"), text).unwrap();

            assert!(matches!(check(folder.path(), None), Err(Error::NotAnObject)), "{text}");
        }
    }
}
