//! The file that names a bucket, who may ask it, and what is claimed of it. Pure, but that it is read.
//!
//! # Shape
//! YAML: `store` as the spec of a `BackupStore` without `credentials`; `credentials` with `accessKeyID` and
//! `secretAccessKey` for each of writer, committer, reader and janitor; `claims`, a `Yes` or `No` for capabilities by the
//! names that they have in a `BackupStore`'s status.

use std::{collections::BTreeMap, fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use valv_crds::store::{Answer, Capabilities, Seen};

use crate::{
    io::bucket::Credentials,
    store::check::{self, Identities, Identity, Store},
};

/// A bucket to try.
#[derive(Debug)]
pub struct Bucket {
    /// As a `BackupStore` would describe it.
    pub store: Store,
    /// Who may ask it.
    pub credentials: Identities<Credentials>,
    /// What must be seen, by the names of capabilities.
    pub claims: BTreeMap<String, Answer>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error("{path} holds keys, and others than you may read it: chmod 600 {path}")]
    Open {
        /// Which.
        path: String,
    },
    /// It is not what it should be.
    #[error(
        "failed to understand the file: it has store, credentials and claims, as docs/conformance.md shows"
    )]
    Parse(#[source] serde_yaml::Error),
    /// What it says of the store is no `BackupStore`'s spec.
    #[error("failed to understand store: it is the spec of a BackupStore, without credentials")]
    Store(#[source] serde_json::Error),
    /// Keys would go over the wire in the clear.
    #[error("store.endpoint is https://host[:port]")]
    Endpoint,
    /// An identity is missing.
    #[error("credentials has no {0}")]
    Missing(Identity),
    /// Two identities are one.
    #[error("{0} and {1} have the same access key: each needs an identity of its own")]
    Shared(Identity, Identity),
    /// A claim is of nothing.
    #[error("claims names {0}, which is no capability: they are {1}")]
    Claim(String, String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    store: Value,
    credentials: BTreeMap<String, Keys>,
    #[serde(default)]
    claims: BTreeMap<String, Answer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Keys {
    #[serde(rename = "accessKeyID")]
    access_key_id: String,
    secret_access_key: String,
}

/// The bucket that the file at `path` names.
///
/// # Errors
/// If it cannot be read or understood, or if others may read it.
pub fn read(path: &Path) -> Result<Bucket, FileError> {
    let name = path.display().to_string();
    let failed = |source| FileError::Read { path: name.clone(), source };
    if fs::metadata(path).map_err(failed)?.permissions().mode() & 0o077 != 0 {
        return Err(FileError::Open { path: name });
    }
    parse(&fs::read_to_string(path).map_err(failed)?)
}

/// The bucket that `text` names.
///
/// # Errors
/// If it cannot be understood.
pub fn parse(text: &str) -> Result<Bucket, FileError> {
    let File { mut store, mut credentials, claims } = serde_yaml::from_str(text).map_err(FileError::Parse)?;
    let secrets =
        Identity::ALL.map(|identity| (identity.to_string(), json!({ "name": identity.to_string() })));
    store["credentials"] = Value::Object(secrets.into_iter().collect());
    let object = json!({
        "apiVersion": "valv.eu/v1alpha1", "kind": "BackupStore", "metadata": { "name": "conformance" }, "spec": store,
    });
    let store = check::check(Arc::new(serde_json::from_value(object).map_err(FileError::Store)?));
    if !store.endpoint.starts_with("https://") {
        return Err(FileError::Endpoint);
    }
    let credentials = Identities::try_from_fn(|identity| {
        let keys = credentials.remove(&identity.to_string()).ok_or(FileError::Missing(identity))?;
        let secret_access_key = SecretString::from(keys.secret_access_key);
        Ok(Credentials { access_key_id: keys.access_key_id, secret_access_key })
    })?;
    for (index, one) in Identity::ALL.into_iter().enumerate() {
        for other in Identity::ALL.into_iter().skip(index + 1) {
            if credentials.of(one).access_key_id == credentials.of(other).access_key_id {
                return Err(FileError::Shared(one, other));
            }
        }
    }
    let known = Capabilities::default();
    let names: Vec<&str> = capabilities(&known).iter().map(|(name, _)| *name).collect();
    match claims.keys().find(|claim| !names.contains(&claim.as_str())) {
        Some(strange) => Err(FileError::Claim(strange.clone(), names.join(", "))),
        None => Ok(Bucket { store, credentials, claims }),
    }
}

/// The capabilities that are so or not, by their names in the API.
pub fn capabilities(seen: &Capabilities) -> [(&'static str, Option<&Seen>); 19] {
    [
        ("reachable", seen.reachable.as_ref()),
        ("tls", seen.tls.as_ref()),
        ("pathStyle", seen.path_style.as_ref()),
        ("conditionalPut", seen.conditional_put.as_ref()),
        ("versioning", seen.versioning.as_ref()),
        ("lockRefusesDeletion", seen.lock_refuses_deletion.as_ref()),
        ("lockRefusesShortening", seen.lock_refuses_shortening.as_ref()),
        ("lockExtends", seen.lock_extends.as_ref()),
        ("writerCanRead", seen.writer_can_read.as_ref()),
        ("writerCanList", seen.writer_can_list.as_ref()),
        ("writerCanDelete", seen.writer_can_delete.as_ref()),
        ("writerCanOverwrite", seen.writer_can_overwrite.as_ref()),
        ("writerCanCommit", seen.writer_can_commit.as_ref()),
        ("committerCanWriteData", seen.committer_can_write_data.as_ref()),
        ("committerCanDelete", seen.committer_can_delete.as_ref()),
        ("readerCanWrite", seen.reader_can_write.as_ref()),
        ("janitorCanRead", seen.janitor_can_read.as_ref()),
        ("janitorCanHide", seen.janitor_can_hide.as_ref()),
        ("readAfterWrite", seen.read_after_write.as_ref()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
store:
  provider: here
  location: {region: fi-hel2, country: FI}
  endpoint: https://s3.example
  bucket: valv-conformance
credentials:
  writer: {accessKeyID: w, secretAccessKey: s}
  committer: {accessKeyID: c, secretAccessKey: s}
  reader: {accessKeyID: r, secretAccessKey: s}
  janitor: {accessKeyID: j, secretAccessKey: s}
claims: {versioning: Yes, writerCanDelete: No}
";

    fn said(text: &str) -> String {
        parse(text).map(|_| String::new()).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn a_file_names_a_bucket_four_identities_and_claims() {
        let bucket = parse(FILE).unwrap();

        assert_eq!(bucket.store.bucket, "valv-conformance");
        assert_eq!(bucket.credentials.janitor.access_key_id, "j");
        assert_eq!(bucket.claims["versioning"], Answer::Yes);
        assert_eq!(bucket.claims["writerCanDelete"], Answer::No);
    }

    #[test]
    fn what_could_not_be_meant_is_refused() {
        assert!(said(&FILE.replace("https", "http")).contains("store.endpoint is https"));
        assert!(said(&FILE.replace("accessKeyID: j", "accessKeyID: w")).contains("writer and janitor"));
        assert!(said(&FILE.replace("  janitor:", "  caretaker:")).contains("no janitor"));
        assert!(said(&FILE.replace("versioning:", "versions:")).contains("versions, which is no capability"));
        assert!(said(&FILE.replace("  bucket: valv-conformance", "")).contains("spec of a BackupStore"));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.yaml");
        fs::write(&path, FILE).unwrap();
        let with = |mode: u32| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read(&path).map(drop)
        };

        assert!(matches!(with(0o644), Err(FileError::Open { .. })));
        assert!(with(0o600).is_ok());
    }
}
