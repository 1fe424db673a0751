//! What an object says of itself in its conditions.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::eventually::{Seen, eventually};

/// The condition of type `kind`; null if the object has none.
pub fn condition(object: &Value, kind: impl Debug) -> Value {
    let kind = format!("{kind:?}");
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|said| said["type"] == kind.as_str()).unwrap_or_default()
}

/// Waits until the object that `look` reads has this condition with this status and reason, and returns its message.
pub async fn says(
    name: &str,
    (kind, status, reason): (impl Debug, &str, impl Debug),
    limit: Duration,
    look: impl AsyncFn() -> Result<Value>,
) -> Result<String> {
    let reason = format!("{reason:?}");
    eventually(format!("{name} says {kind:?} {status} {reason}"), limit, async || {
        let object = look().await?;
        let said = condition(&object, &kind);
        let is_so = said["status"] == status && said["reason"] == reason.as_str();
        let message = is_so.then(|| said["message"].as_str().unwrap_or_default().to_owned());
        Ok(Seen::when(message, object["status"].to_string()))
    })
    .await
}
