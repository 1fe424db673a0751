//! Which pods of a drill's namespace the drill itself made. Pure.
//!
//! By who controls them, up to an object that the operator made: names and labels anybody may write. What is left of a
//! look are pods that count: one that only says to be the journal's would be taken for a journal that answers.

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::{Resource, ResourceExt, core::DynamicObject};

use crate::{
    backup::sighting::controller,
    io::{
        cache::Objects,
        kind::{Key, Kind},
    },
};

/// Leaves of the pods in `objects` only those that a Job or StatefulSet among them made, or one of `replica_sets` that
/// the journal's Deployment made.
pub fn keep_own_pods(objects: &mut Objects, replica_sets: &[ReplicaSet]) {
    let makers: Vec<String> = objects
        .iter()
        .filter(|(key, _)| [Kind::Job, Kind::StatefulSet].contains(&key.kind))
        .filter_map(|(_, object)| object.uid())
        .collect();
    let deployment = objects.get(&Key::new(Kind::Deployment, "journal")).and_then(|object| object.uid());
    let is_of_journal = |set: &&ReplicaSet| {
        let mut owners = set.meta().owner_references.iter().flatten();
        let owner = owners.find(|owner| owner.controller == Some(true)).map(|owner| &owner.uid);
        deployment.is_some() && owner == deployment.as_ref()
    };
    let sets: Vec<String> = replica_sets.iter().filter(is_of_journal).filter_map(ResourceExt::uid).collect();
    let is_own = |pod: &DynamicObject| {
        controller(pod).is_some_and(|maker| makers.iter().chain(&sets).any(|known| known == maker))
    };
    objects.retain(|key, object| key.kind != Kind::Pod || is_own(object));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::drill::words::tests::put;

    fn owned_by(kind: &str, uid: &str) -> Value {
        json!([{ "apiVersion": "v1", "kind": kind, "name": "x", "uid": uid, "controller": true }])
    }

    fn replica_set(uid: &str, deployment: &str) -> ReplicaSet {
        serde_json::from_value(json!({ "metadata": {
            "name": uid, "uid": uid, "ownerReferences": owned_by("Deployment", deployment),
        }}))
        .unwrap()
    }

    fn pods(objects: &Objects) -> Vec<&str> {
        objects.keys().filter(|key| key.kind == Kind::Pod).map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn a_pod_that_only_says_to_be_the_journals_is_not_counted() {
        let mut objects = Objects::default();
        put(&mut objects, Kind::Job, "judge", json!({}));
        put(&mut objects, Kind::StatefulSet, "database", json!({}));
        put(&mut objects, Kind::Deployment, "journal", json!({}));
        let mut pod = |name: &str, owners: Value| {
            let metadata = json!({ "labels": { "valv.eu/role": "journal" }, "ownerReferences": owners });
            put(&mut objects, Kind::Pod, name, json!({ "metadata": metadata }));
        };
        pod("judge-x", owned_by("Job", "judge-uid"));
        pod("database-0", owned_by("StatefulSet", "database-uid"));
        pod("journal-x", owned_by("ReplicaSet", "rs-1"));
        pod("bare", json!([]));
        pod("of-another-set", owned_by("ReplicaSet", "rs-2"));
        pod("of-another-job", owned_by("Job", "forged"));

        keep_own_pods(&mut objects, &[replica_set("rs-1", "journal-uid"), replica_set("rs-2", "forged")]);

        assert_eq!(pods(&objects), ["database-0", "journal-x", "judge-x"]);
    }

    #[test]
    fn without_the_journals_deployment_no_set_is_its_own() {
        let mut objects = Objects::default();
        let metadata = json!({ "ownerReferences": owned_by("ReplicaSet", "rs-1") });
        put(&mut objects, Kind::Pod, "journal-x", json!({ "metadata": metadata }));

        keep_own_pods(&mut objects, &[replica_set("rs-1", "journal-uid")]);

        assert_eq!(pods(&objects), Vec::<&str>::new());
    }
}
