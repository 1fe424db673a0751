//! What reads back is in the operator's namespace, where no `Backup` can own it: when its `Backup` is gone, it goes.

use std::{sync::Arc, time::Duration};

use kube::{ResourceExt, core::DynamicObject};
use tokio::time::sleep;
use tracing::warn;
use valv_crds::reference::{BACKUP_LABEL, ROLE_LABEL};

use super::Context;
use crate::{
    error::chain,
    io::{
        filled::Filled,
        kind::{Key, Kind},
    },
    segmentation::Role,
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(60);

/// Takes orphans away, again and again.
pub async fn keep_sweeping(context: Arc<Context>, filled: Filled) {
    // A backup that is not known yet must not look as if it was gone.
    filled.wait().await;
    loop {
        sleep(EVERY).await;
        sweep(&context).await;
    }
}

async fn sweep(context: &Context) {
    let there: std::collections::HashSet<String> =
        context.backups.state().iter().filter_map(|backup| backup.uid()).collect();
    for (key, object) in context.cache.of_operator() {
        if !is_orphan(&key, &object, |uid| there.contains(uid)) {
            continue;
        }
        if let Err(error) = context.cluster.delete(&key, &object).await {
            warn!(object.kind = %key.kind, object.name = key.name, error = chain(&error), "failed to sweep");
        }
    }
}

/// Whether an object was made to read back for a `Backup` that is not there.
fn is_orphan(key: &Key, object: &DynamicObject, is_there: impl Fn(&str) -> bool) -> bool {
    let labels = object.labels();
    let is_ours = labels.get(ROLE_LABEL).is_some_and(|role| role == Role::Verification.as_str());
    matches!(key.kind, Kind::Job | Kind::ConfigMap)
        && is_ours
        && labels.get(BACKUP_LABEL).is_some_and(|uid| !is_there(uid))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(labels: &serde_json::Value) -> DynamicObject {
        serde_json::from_value(json!({ "metadata": { "name": "verify-1", "labels": labels } })).unwrap()
    }

    #[test]
    fn only_what_reads_back_for_a_backup_that_is_gone_is_an_orphan() {
        let reading = object(&json!({ BACKUP_LABEL: "gone", ROLE_LABEL: "verification" }));
        let other = object(&json!({ BACKUP_LABEL: "gone", ROLE_LABEL: "restore" }));
        let job = Key::new(Kind::Job, "verify-1");

        assert!(is_orphan(&job, &reading, |_| false));
        assert!(!is_orphan(&job, &reading, |uid| uid == "gone"));
        assert!(!is_orphan(&job, &other, |_| false));
        assert!(!is_orphan(&Key::new(Kind::Pod, "verify-1"), &reading, |_| false));
    }
}
