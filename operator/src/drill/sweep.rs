//! Finds what drills restored whose drill is gone or over, and takes it away.
//!
//! The finalizer keeps a drill until nothing of it is left; but a finalizer can be taken off by hand, and a cluster
//! can be put back from a backup of its etcd. Records of patients must not lie about then.

use std::{sync::Arc, time::Duration};

use kube::{ResourceExt, core::DynamicObject, runtime::reflector::Store};
use tokio::time::sleep;
use tracing::{info, warn};
use valv_crds::{
    RestoreDrill,
    reference::{DRILL_LABEL, TENANT_LABEL},
};

use super::{Context, check, objects, teardown};
use crate::{
    controllers::GuardedDrill,
    error::chain,
    io::{
        cache::Cache,
        cluster::Error,
        filled::Filled,
        kind::{Key, Kind},
    },
    tenant::observe::NamespaceSeen,
};

/// Between two looks for orphans.
const EVERY: Duration = Duration::from_secs(20);

/// Looks for orphans for as long as this runs.
pub async fn sweep(context: &Context, filled: Filled) {
    // A drill that is not known yet must not look as if it was gone.
    filled.wait().await;
    loop {
        for namespace in orphans(&context.cache, &context.drills) {
            if let Err(error) = take_away(&namespace, context).await {
                warn!(
                    object.kind = "Namespace",
                    object.name = namespace.name_any(),
                    error = chain(&error),
                    "failed to take away what a drill left, trying again"
                );
            }
        }
        sleep(EVERY).await;
    }
}

/// The namespaces of drills that no drill takes away.
pub fn orphans(cache: &Cache, drills: &Store<GuardedDrill>) -> Vec<Arc<DynamicObject>> {
    let namespaces = cache.drill_namespaces();
    if namespaces.is_empty() {
        return vec![];
    }
    let drills = drills.state();
    let known: Vec<Known> = drills
        .iter()
        .map(|drill| match &drill.0 {
            Ok(drill) => Known {
                uid: drill.uid(),
                into: check::subject(drill).ok().map(|subject| subject.into),
                is_over: check::is_over(drill),
            },
            // One that cannot be read is there: what it restored is left alone.
            Err(_) => Known { uid: drill.uid(), into: None, is_over: false },
        })
        .collect();
    namespaces.into_iter().filter(|namespace| is_orphan(namespace, known.iter().cloned())).collect()
}

/// What is known of a drill.
#[derive(Clone)]
struct Known {
    uid: Option<String>,
    into: Option<String>,
    is_over: bool,
}

/// Whether nobody else takes `namespace` away: none of `drills`, by the UID in its label or by its name, is its own. One
/// without that label had it taken off: a namespace of that name with a tenant's label was made by Valv.
fn is_orphan(namespace: &DynamicObject, drills: impl Iterator<Item = Known>) -> bool {
    let (owner, name) = (namespace.labels().get(DRILL_LABEL), namespace.name_any());
    let is_own = |drill: &Known| {
        (owner.is_some() && drill.uid.as_ref() == owner) || drill.into.as_ref() == Some(&name)
    };
    drills.filter(is_own).all(|drill| drill.is_over)
}

async fn take_away(namespace: &DynamicObject, context: &Context) -> Result<(), Error> {
    let name = namespace.name_any();
    let tenant = namespace.labels().get(TENANT_LABEL).cloned().unwrap_or_default();
    let seen = if namespace.metadata.deletion_timestamp.is_some() {
        NamespaceSeen::Terminating
    } else {
        NamespaceSeen::Ours
    };
    if seen == NamespaceSeen::Ours {
        let wanted = objects::access(&name, &tenant, &context.settings);
        let standing = context.cache.of_drill(&name);
        let standing = standing.get(&Key::new(Kind::RoleBinding, wanted.key.name.clone()));
        context.cluster.apply(&wanted.key, &wanted.value, standing.map(AsRef::as_ref)).await?;
    }
    let left = teardown::look(&name, &seen, &[], &context.cluster).await?;
    let waited = namespace.creation_timestamp().map(|made| (context.now)().duration_since(made.0));
    let next = teardown::next(&left, waited.unwrap_or_default());
    if let teardown::Next::Deletes { left, .. } = &next {
        info!(object.kind = "Namespace", object.name = name, left, "a drill that is gone left this behind");
    }
    teardown::carry_out(&next, &left, &context.cluster).await
}

/// Whether `drill` may be pruned: nothing of it is left anywhere but in the store.
pub fn may_go(drill: &RestoreDrill) -> bool {
    check::is_over(drill)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn namespace(name: &str, drill: Option<&str>) -> DynamicObject {
        let labels = drill.map(|drill| json!({ DRILL_LABEL: drill }));
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap()
    }

    #[test]
    fn only_what_no_drill_will_take_away_is_an_orphan() {
        let known = |uid: &str, is_over: bool| Known {
            uid: Some(uid.to_owned()),
            into: Some(format!("drill-ada-{uid}")),
            is_over,
        };
        let orphan = |name: &str, drill: Option<&str>| {
            is_orphan(&namespace(name, drill), [known("a", false), known("b", true)].into_iter())
        };

        assert!(!orphan("drill-ada-a", Some("a")));
        assert!(orphan("drill-ada-b", Some("b")));
        assert!(orphan("drill-ada-c", Some("c")));
        // Somebody took the label off, or wrote another.
        assert!(!orphan("drill-ada-a", None));
        assert!(!orphan("drill-ada-a", Some("b")));
        assert!(orphan("drill-ada-b", None));
        assert!(orphan("drill-ada-c", None));
    }
}
