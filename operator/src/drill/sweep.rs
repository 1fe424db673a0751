//! Finds what drills restored whose drill is gone or over, and takes it away.
//!
//! The finalizer keeps a drill until nothing of it is left; but a finalizer can be taken off by hand, and a cluster
//! can be put back from a backup of its etcd. Records of patients must not lie about then.

use std::{collections::HashSet, sync::Arc, time::Duration};

use kube::{Resource, ResourceExt, core::DynamicObject, runtime::reflector::Store};
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
    let standing = Standing::of(drills.iter().map(AsRef::as_ref));
    namespaces.into_iter().filter(|namespace| is_orphan(namespace, &standing)).collect()
}

/// The drills that are not over, which take away what they restored themselves. There may be very many that are.
#[derive(Default)]
struct Standing<'a> {
    uids: HashSet<&'a str>,
    /// The namespaces into which they restore.
    into: HashSet<String>,
}

impl<'a> Standing<'a> {
    fn of(drills: impl Iterator<Item = &'a GuardedDrill>) -> Self {
        let mut standing = Self::default();
        for drill in drills {
            // One that cannot be read is there: what it restored is left alone.
            let read = drill.0.as_ref().ok();
            if read.is_some_and(check::is_over) {
                continue;
            }
            standing.uids.extend(drill.meta().uid.as_deref());
            let subject = read.and_then(|drill| check::subject(drill).ok());
            standing.into.extend(subject.map(|subject| subject.into));
        }
        standing
    }
}

/// Whether nobody else takes `namespace` away: it belongs to none of those that are `standing`, by the UID in its label or
/// by its name. One without that label had it taken off: a namespace of that name with a tenant's label was made by Valv.
fn is_orphan(namespace: &DynamicObject, standing: &Standing<'_>) -> bool {
    let owner = namespace.labels().get(DRILL_LABEL);
    let has_owner = owner.is_some_and(|owner| standing.uids.contains(owner.as_str()));
    !has_owner && !standing.into.contains(&namespace.name_any())
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

    /// A drill with this UID.
    fn drill(uid: &str) -> GuardedDrill {
        let mut drill = check::tests::drill("journal-ada", uid, json!({}));
        drill.metadata.uid = Some(uid.to_owned());
        serde_json::from_value(json!(drill)).unwrap()
    }

    /// One that has left nothing.
    fn over(uid: &str) -> GuardedDrill {
        let mut drill = drill(uid).0.unwrap();
        let said = |kind: &str| {
            json!({ "type": kind, "status": "True", "reason": "AsAsked", "message": "",
                "lastTransitionTime": "2026-11-22T09:30:05Z" })
        };
        drill.status = serde_json::from_value(json!({
            "ended": "2026-11-22T09:30:05Z", "conditions": [said("TornDown"), said("Recorded")],
        }))
        .unwrap();
        serde_json::from_value(json!(drill)).unwrap()
    }

    #[test]
    fn drills_that_are_over_are_not_looked_at_again_for_every_namespace() {
        let mut drills: Vec<_> = (1..1000).map(|number| over(&format!("{number:016}"))).collect();
        drills.push(drill("0000000000000000"));

        let standing = Standing::of(drills.iter());

        assert_eq!(standing.uids, HashSet::from(["0000000000000000"]));
        assert_eq!(standing.into, HashSet::from(["drill-ada-0000000000000000".to_owned()]));
    }

    #[test]
    fn what_a_drill_that_cannot_be_read_restored_is_left_alone() {
        let mut unreadable = json!(check::tests::drill("journal-ada", "by-hand", json!({})));
        unreadable["metadata"]["uid"] = json!("a");
        unreadable["spec"] = json!({ "backup": 7 });
        let drill: GuardedDrill = serde_json::from_value(unreadable).unwrap();
        assert!(drill.0.is_err());
        let standing = Standing::of(std::iter::once(&drill));

        assert!(!is_orphan(&namespace("drill-ada-a", Some("a")), &standing));
        assert!(is_orphan(&namespace("drill-ada-b", Some("b")), &standing));
    }

    #[test]
    fn only_what_no_drill_will_take_away_is_an_orphan() {
        let drills = [drill("a"), over("b")];
        let standing = Standing::of(drills.iter());
        let orphan = |name: &str, drill: Option<&str>| is_orphan(&namespace(name, drill), &standing);

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
