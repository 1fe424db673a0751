//! What was asked of the API server, by whom: its audit log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// The audit log of the local cluster: JSON, a line a request.
#[derive(Clone, Debug)]
pub struct Audit {
    file: PathBuf,
}

/// A moment in the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// A request that was answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// When it came.
    #[serde(rename = "requestReceivedTimestamp")]
    pub at: Timestamp,
    /// `get`, `patch` ….
    pub verb: String,
    user: User,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Status,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    #[serde(default)]
    username: String,
    #[serde(default)]
    extra: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl Audit {
    pub(crate) fn of(file: PathBuf) -> Self {
        Self { file }
    }

    /// Now.
    pub fn mark(&self) -> Result<Mark> {
        let size = self.file.metadata().with_context(|| format!("failed to read {}", self.file.display()))?;
        Ok(Mark(size.len()))
    }

    /// What was answered after `mark`.
    pub fn since(&self, mark: Mark) -> Result<Vec<Request>> {
        let mut file = File::open(&self.file)?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // The last line may be half written, and one before the mark may end after it.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}

impl Request {
    /// Whether `user` asked.
    pub fn is_by(&self, user: &str) -> bool {
        self.user.username == user
    }

    /// Whether the pod of this name asked: its token says so.
    pub fn is_by_pod(&self, pod: &str) -> bool {
        self.user.extra["authentication.kubernetes.io/pod-name"][0] == pod
    }

    /// Whether it was to change something.
    pub fn is_write(&self) -> bool {
        ["create", "update", "patch", "delete", "deletecollection"].contains(&self.verb.as_str())
    }

    /// Whether it was taken.
    pub fn was_taken(&self) -> bool {
        (200..300).contains(&self.response_status.code)
    }

    /// Whether it was about this object.
    pub fn is_about(&self, resource: &str, name: &str) -> bool {
        self.object_ref.resource == resource && self.object_ref.name == name
    }

    /// Whether it deletes a `resource` in `namespace`.
    pub fn takes_away(&self, resource: &str, namespace: &str) -> bool {
        self.verb == "delete"
            && self.object_ref.resource == resource
            && self.object_ref.namespace == namespace
    }

    /// Whether it is about the status of a `resource`.
    pub fn is_about_status(&self, resource: &str) -> bool {
        self.object_ref.resource == resource && self.object_ref.subresource == "status"
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Object { resource, subresource, namespace, name } = &self.object_ref;
        let slash = if subresource.is_empty() { "" } else { "/" };
        let Self { at, verb, response_status, .. } = self;
        let code = response_status.code;
        write!(formatter, "{at} {verb} {resource}{slash}{subresource} {namespace}/{name} → {code}")
    }
}
