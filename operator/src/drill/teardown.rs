//! Takes away what a drill restored: what opens backups first, then what runs, then the volumes, and when they are gone
//! the namespace.
//!
//! [`look`] reads, [`next`] decides and is pure, [`carry_out`] deletes. Each can be done again at any moment, by the
//! drill's own controller or by the sweeper when its drill is gone.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{ResourceExt, core::DynamicObject};
use serde_json::Value;

use super::{
    names::{KEY_SECRET, STORE_SECRET, VOLUMES_ANNOTATION},
    observe::dynamic,
};
use crate::{
    backup::sighting::controller,
    io::{
        cluster::{Cluster, Error},
        kind::{Key, Kind},
    },
    tenant::observe::NamespaceSeen,
};

/// Annotation of the scheduler on a claim: for a pod on this node its volume is to be made.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// After so long something that is still there is a failure, though it is tried on.
pub const LIMIT: SignedDuration = SignedDuration::from_mins(5);

/// A volume is made within this, or nobody makes it.
const PROVISIONED_WITHIN: SignedDuration = SignedDuration::from_mins(30);

/// What is left of a drill.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// The namespace.
    pub namespace: NamespaceSeen,
    /// The namespace as it was read.
    pub object: Option<DynamicObject>,
    /// The Secrets with which backups could be read and opened.
    pub secrets: Vec<DynamicObject>,
    /// What runs, or would start something; and pods that nothing started.
    pub workloads: Vec<(Key, DynamicObject)>,
    /// Pods, by name.
    pub pods: Vec<String>,
    /// Volume claims.
    pub claims: Vec<DynamicObject>,
    /// Persistent volumes that hold what was restored, with their reclaim policy.
    pub volumes: Vec<(String, String)>,
}

/// What is done next.
#[derive(Debug)]
pub enum Next {
    /// Nothing is left.
    Gone,
    /// Something is, and this is done about it.
    Deletes {
        /// The volumes' names, to be noted on the namespace before their claims are deleted.
        note: Option<String>,
        /// What is deleted.
        delete: Vec<(Key, DynamicObject)>,
        /// What is left, in a sentence.
        left: String,
    },
}

/// Looks at what is left in `namespace`, and of the `volumes` that were seen in it: asks the API server itself.
///
/// # Errors
/// If it refuses or does not answer.
pub async fn look(
    namespace: &str,
    seen: &NamespaceSeen,
    volumes: &[String],
    cluster: &Cluster,
) -> Result<Left, Error> {
    let mut left = Left { namespace: seen.clone(), ..Left::default() };
    let mut volumes = volumes.to_vec();
    if [NamespaceSeen::Absent, NamespaceSeen::Foreign].contains(seen) {
        // It went another way: its volumes may not have.
        left.volumes = standing(namespace, volumes, cluster).await?;
        return Ok(left);
    }
    let object =
        cluster.get_cluster_scoped::<k8s_openapi::api::core::v1::Namespace>("Namespace", namespace).await?;
    left.object = object.and_then(dynamic);
    for name in [KEY_SECRET, STORE_SECRET] {
        match cluster.metadata(&Key::new(Kind::Secret, name), namespace).await {
            Ok(found) => left.secrets.extend(found),
            // The operator's way in was never made, or somebody took it away: it is made before anything is deleted, and
            // the next look sees them. With the namespace they go in any case.
            Err(error) if error.is_forbidden() => break,
            Err(error) => return Err(error),
        }
    }
    let noted = left.object.as_ref().and_then(|object| object.annotations().get(VOLUMES_ANNOTATION).cloned());
    volumes.extend(split(noted.as_deref().unwrap_or_default()));
    let claims = cluster.list_in::<PersistentVolumeClaim>(Kind::PersistentVolumeClaim, namespace, "").await?;
    volumes.extend(claims.iter().filter_map(|claim| claim.spec.as_ref()?.volume_name.clone()));
    left.volumes = standing(namespace, volumes, cluster).await?;
    left.claims = claims.into_iter().filter_map(dynamic).collect();
    let pods = cluster.list_in::<Pod>(Kind::Pod, namespace, "").await?;
    left.pods = pods.iter().map(ResourceExt::name_any).collect();
    // The others go with what made them.
    let bare = pods.into_iter().filter_map(dynamic).filter(|pod| controller(pod).is_none());
    left.workloads.extend(bare.map(|pod| (Key::new(Kind::Pod, pod.name_any()), pod)));
    let deployments =
        cluster.list_in::<k8s_openapi::api::apps::v1::Deployment>(Kind::Deployment, namespace, "");
    let sets = cluster.list_in::<k8s_openapi::api::apps::v1::StatefulSet>(Kind::StatefulSet, namespace, "");
    let jobs = cluster.list_in::<k8s_openapi::api::batch::v1::Job>(Kind::Job, namespace, "");
    let mut add = |kind: Kind, object: Option<DynamicObject>| {
        left.workloads.extend(object.map(|object| (Key::new(kind, object.name_any()), object)));
    };
    deployments.await?.into_iter().for_each(|object| add(Kind::Deployment, dynamic(object)));
    sets.await?.into_iter().for_each(|object| add(Kind::StatefulSet, dynamic(object)));
    jobs.await?.into_iter().for_each(|object| add(Kind::Job, dynamic(object)));
    Ok(left)
}

/// Those of `volumes` that are there and hold what was restored into `namespace`, with their reclaim policy.
async fn standing(
    namespace: &str,
    mut volumes: Vec<String>,
    cluster: &Cluster,
) -> Result<Vec<(String, String)>, Error> {
    volumes.sort();
    volumes.dedup();
    let mut standing = vec![];
    for name in volumes {
        let found = cluster.get_cluster_scoped::<PersistentVolume>("PersistentVolume", &name).await?;
        if let Some(found) = found.filter(|found| is_of(found, namespace)) {
            let policy = found.spec.and_then(|spec| spec.persistent_volume_reclaim_policy);
            standing.push((name, policy.unwrap_or_default()));
        }
    }
    Ok(standing)
}

/// Whether `volume` is bound to a claim in `namespace`: a name that was used again holds somebody else's data.
fn is_of(volume: &PersistentVolume, namespace: &str) -> bool {
    let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    claim.is_none_or(|claim| claim.namespace.as_deref() == Some(namespace))
}

fn split(text: &str) -> Vec<String> {
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Whether a volume is being made for `claim`, which has been torn down for so long. One that were deleted meanwhile would
/// leave that volume behind, made after everybody had looked. A provisioner that gives up takes the annotation off; one that
/// is not there leaves it on for ever, and makes nothing.
fn is_provisioning(claim: &DynamicObject, waited: SignedDuration) -> bool {
    waited <= PROVISIONED_WITHIN
        && claim.annotations().contains_key(SELECTED_NODE)
        && claim.data.pointer("/spec/volumeName").and_then(Value::as_str).is_none_or(str::is_empty)
}

/// What is done next about what is left, which was to be taken away `waited` ago.
pub fn next(left: &Left, waited: SignedDuration) -> Next {
    match left.namespace {
        // Somebody else's is none of ours: it is neither restored into nor torn down.
        NamespaceSeen::Absent | NamespaceSeen::Foreign if left.volumes.is_empty() => return Next::Gone,
        NamespaceSeen::Absent | NamespaceSeen::Foreign => {
            return Next::Deletes { note: None, delete: vec![], left: in_words(&left.volumes).join("; ") };
        }
        NamespaceSeen::Terminating => {
            let left = "the namespace is being emptied".to_owned();
            return Next::Deletes { note: None, delete: vec![], left };
        }
        NamespaceSeen::Ours => {}
    }
    let is_leaving = |object: &DynamicObject| object.metadata.deletion_timestamp.is_some();
    if left.secrets.iter().any(|secret| !is_leaving(secret)) {
        let secrets = left.secrets.iter();
        let delete = secrets.map(|secret| (Key::new(Kind::Secret, secret.name_any()), secret.clone()));
        let left = "the Secrets with which backups could be read and opened".to_owned();
        return Next::Deletes { note: None, delete: delete.collect(), left };
    }
    let bound: Vec<String> = left
        .claims
        .iter()
        .filter_map(|claim| claim.data.pointer("/spec/volumeName").and_then(Value::as_str))
        .chain(left.volumes.iter().map(|(name, _)| name.as_str()))
        .map(str::to_owned)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let noted = left.object.as_ref().and_then(|object| object.annotations().get(VOLUMES_ANNOTATION).cloned());
    let noted = split(noted.as_deref().unwrap_or_default());
    let is_noted = bound.iter().all(|name| noted.contains(name));
    if !is_noted {
        let mut all = noted;
        all.extend(bound);
        all.sort();
        all.dedup();
        let left = "the volumes are being noted down".to_owned();
        return Next::Deletes { note: Some(all.join(",")), delete: vec![], left };
    }
    let mut delete: Vec<_> = left
        .workloads
        .iter()
        .filter(|(_, object)| !is_leaving(object))
        .map(|(key, object)| (key.clone(), object.clone()))
        .collect();
    delete.extend(
        left.claims
            .iter()
            .filter(|claim| !is_leaving(claim) && !is_provisioning(claim, waited))
            .map(|claim| (Key::new(Kind::PersistentVolumeClaim, claim.name_any()), claim.clone())),
    );
    let mut what = vec![];
    if !left.pods.is_empty() {
        what.push(format!("the pods {}", left.pods.join(", ")));
    }
    if !left.claims.is_empty() {
        let names: Vec<_> = left.claims.iter().map(ResourceExt::name_any).collect();
        what.push(format!("the volume claims {}", names.join(", ")));
        if left.claims.iter().any(|claim| is_provisioning(claim, waited)) {
            what.push("a volume that is being made, which is waited for".to_owned());
        }
    }
    what.extend(in_words(&left.volumes));
    if what.is_empty() && delete.is_empty() {
        let object = left.object.clone();
        let delete = object.map(|object| (Key::new(Kind::Namespace, object.name_any()), object));
        return Next::Deletes {
            note: None,
            delete: delete.into_iter().collect(),
            left: "the namespace, which holds no volume any more".to_owned(),
        };
    }
    what.extend((!left.workloads.is_empty()).then(|| "what started the pods".to_owned()));
    Next::Deletes { note: None, delete, left: what.join("; ") }
}

fn in_words(volumes: &[(String, String)]) -> Vec<String> {
    let words = |(name, policy): &(String, String)| {
        if policy == "Retain" {
            format!(
                "the volume {name}, which its storage class keeps (reclaimPolicy: Retain): delete it and its data by hand"
            )
        } else {
            format!("the volume {name}")
        }
    };
    volumes.iter().map(words).collect()
}

/// Does what [`next`] says of `namespace`.
///
/// # Errors
/// If the API server refuses or does not answer.
pub async fn carry_out(next: &Next, left: &Left, cluster: &Cluster) -> Result<(), Error> {
    let Next::Deletes { note, delete, .. } = next else { return Ok(()) };
    if let (Some(note), Some(object)) = (note, &left.object) {
        let key = Key::new(Kind::Namespace, object.name_any());
        cluster.annotate(&key, object, &[(VOLUMES_ANNOTATION, Some(note.clone()))]).await?;
    }
    for (key, object) in delete {
        cluster.delete(key, object).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ::http::{Method, Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::fake_api;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    fn claim() -> DynamicObject {
        object(json!({
            "metadata": { "name": "database-0", "namespace": "drill-ada-20261122t050000z" },
            "spec": { "volumeName": "pv-1" },
        }))
    }

    fn left(noted: &str) -> Left {
        let namespace = object(json!({ "metadata": {
            "name": "drill-ada-20261122t050000z", "annotations": { VOLUMES_ANNOTATION: noted },
        }}));
        Left { namespace: NamespaceSeen::Ours, object: Some(namespace), ..Left::default() }
    }

    fn deletes(left: &Left) -> (Option<String>, Vec<String>, String) {
        deletes_after(left, SignedDuration::from_mins(10))
    }

    fn deletes_after(left: &Left, waited: SignedDuration) -> (Option<String>, Vec<String>, String) {
        match next(left, waited) {
            Next::Gone => panic!("it is gone"),
            Next::Deletes { note, delete, left } => {
                (note, delete.into_iter().map(|(key, _)| key.to_string()).collect(), left)
            }
        }
    }

    #[test]
    fn what_opens_backups_goes_before_anything_else() {
        let secret = object(json!({ "metadata": { "name": KEY_SECRET } }));
        let mut left = Left { secrets: vec![secret], ..left("") };
        left.claims = vec![claim()];
        left.volumes = vec![("pv-1".into(), "Retain".into())];

        assert_eq!(deletes(&left).1, ["Secret drill-key"]);
    }

    #[test]
    fn a_volume_that_outlived_its_namespace_is_told() {
        for namespace in [NamespaceSeen::Absent, NamespaceSeen::Foreign] {
            let volumes = vec![("pv-1".into(), "Retain".into())];
            let left = Left { namespace, volumes, ..Left::default() };

            assert!(deletes(&left).2.contains("the volume pv-1"), "{:?}", deletes(&left));
            assert_eq!(deletes(&left).1, Vec::<String>::new());
        }
    }

    #[test]
    fn the_volumes_are_noted_before_their_claims_are_deleted() {
        let mut left = left("");
        left.claims = vec![claim()];

        assert_eq!(deletes(&left).0.as_deref(), Some("pv-1"));
        assert_eq!(deletes(&left).1, Vec::<String>::new());
    }

    #[test]
    fn a_claim_whose_volume_is_being_made_is_deleted_only_when_the_volume_is_known() {
        let mut left = left("");
        let mut claim = claim();
        claim.data["spec"] = json!({});
        claim.annotations_mut().insert(SELECTED_NODE.to_owned(), "node-1".to_owned());
        left.claims = vec![claim.clone()];
        assert_eq!(deletes(&left).1, Vec::<String>::new());
        assert!(deletes(&left).2.contains("is being made"));

        // Its provisioner has given up.
        claim.annotations_mut().clear();
        left.claims = vec![claim];
        assert_eq!(deletes(&left).1, ["PersistentVolumeClaim database-0"]);
    }

    #[test]
    fn a_claim_that_nobody_makes_a_volume_for_is_not_waited_for_for_ever() {
        let mut left = left("");
        let mut claim = claim();
        claim.data["spec"] = json!({});
        claim.annotations_mut().insert(SELECTED_NODE.to_owned(), "node-1".to_owned());
        left.claims = vec![claim];

        assert_eq!(deletes_after(&left, SignedDuration::from_mins(30)).1, Vec::<String>::new());
        let (_, deleted, what) = deletes_after(&left, SignedDuration::from_secs(1801));
        assert_eq!(deleted, ["PersistentVolumeClaim database-0"]);
        assert!(!what.contains("waited for"), "{what}");
    }

    #[test]
    fn the_namespace_goes_only_when_pods_claims_and_volumes_are_gone() {
        let mut left = left("pv-1");
        left.claims = vec![claim()];
        left.pods = vec!["restore-x".into()];
        left.workloads =
            vec![(Key::new(Kind::Job, "restore"), object(json!({ "metadata": { "name": "restore" } })))];
        left.volumes = vec![("pv-1".into(), "Delete".into())];
        assert_eq!(deletes(&left).1, ["Job restore", "PersistentVolumeClaim database-0"]);

        left.workloads.clear();
        left.claims.clear();
        assert_eq!(deletes(&left).1, Vec::<String>::new());
        assert!(deletes(&left).2.contains("restore-x"));

        left.pods.clear();
        assert_eq!(deletes(&left).1, Vec::<String>::new());
        assert_eq!(deletes(&left).2, "the volume pv-1");

        left.volumes.clear();
        assert_eq!(deletes(&left).1, ["Namespace drill-ada-20261122t050000z"]);
    }

    #[test]
    fn a_volume_that_its_class_keeps_is_told_and_keeps_the_namespace() {
        let mut left = left("pv-1");
        left.volumes = vec![("pv-1".into(), "Retain".into())];

        let (_, deleted, what) = deletes(&left);

        assert_eq!(deleted, Vec::<String>::new());
        assert!(what.contains("by hand"), "{what}");
    }

    #[test]
    fn a_namespace_of_somebody_else_is_left_alone() {
        let foreign = Left { namespace: NamespaceSeen::Foreign, ..left("") };

        assert!(matches!(next(&foreign, SignedDuration::ZERO), Next::Gone));
    }

    /// An API server with one drill's namespace in it. What is deleted is gone; a claim takes its volume along.
    #[derive(Clone, Default)]
    struct FakeCluster(std::sync::Arc<std::sync::Mutex<State>>);

    #[derive(Default)]
    struct State {
        objects: std::collections::BTreeMap<String, Value>,
        deleted: Vec<String>,
    }

    const NAMESPACE: &str = "/api/v1/namespaces/drill-ada-20261122t050000z";

    impl FakeCluster {
        fn with_a_restored_journal() -> Self {
            let named = |name: &str| json!({ "metadata": { "name": name, "namespace": "drill-ada-20261122t050000z", "uid": name } });
            let mut claim = named("database-0");
            claim["spec"] = json!({ "volumeName": "pv-1" });
            let volume = json!({ "metadata": { "name": "pv-1" }, "spec": {
                "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": { "namespace": "drill-ada-20261122t050000z", "name": "database-0" },
            }});
            let objects = [
                (
                    NAMESPACE.to_owned(),
                    json!({ "metadata": { "name": "drill-ada-20261122t050000z", "uid": "n" } }),
                ),
                (format!("{NAMESPACE}/persistentvolumeclaims/database-0"), claim),
                (format!("{NAMESPACE}/pods/database-0"), named("database-0")),
                (format!("{NAMESPACE}/pods/bare"), named("bare")),
                (format!("{NAMESPACE}/secrets/{KEY_SECRET}"), named(KEY_SECRET)),
                ("/api/v1/persistentvolumes/pv-1".to_owned(), volume),
                (
                    "/apis/apps/v1/namespaces/drill-ada-20261122t050000z/statefulsets/database".to_owned(),
                    named("database"),
                ),
                (
                    "/apis/batch/v1/namespaces/drill-ada-20261122t050000z/jobs/restore".to_owned(),
                    named("restore"),
                ),
            ];
            Self(std::sync::Arc::new(std::sync::Mutex::new(State {
                objects: objects.into(),
                deleted: vec![],
            })))
        }

        fn cluster(&self) -> Cluster {
            let server = self.clone();
            fake_api::cluster(fake_api::client(move |request| std::future::ready(server.serve(&request))))
        }

        fn serve(&self, request: &Request<Value>) -> Response<Body> {
            let mut state = self.0.lock().unwrap();
            let path = request.uri().path().to_owned();
            if *request.method() == Method::DELETE {
                state.deleted.push(path.rsplit('/').take(2).collect::<Vec<_>>().join(" "));
                state.objects.remove(&path);
                let goes_along = match () {
                    () if path.contains("statefulsets") => format!("{NAMESPACE}/pods/database-0"),
                    () if path.contains("persistentvolumeclaims") => {
                        "/api/v1/persistentvolumes/pv-1".to_owned()
                    }
                    () => {
                        return fake_api::respond(
                            StatusCode::OK,
                            &json!({ "kind": "Status", "status": "Success" }),
                        );
                    }
                };
                state.objects.remove(&goes_along);
                return fake_api::respond(StatusCode::OK, &json!({ "kind": "Status", "status": "Success" }));
            }
            if *request.method() == Method::PATCH {
                let object = state.objects.get_mut(&path).unwrap();
                object["metadata"]["annotations"] = request.body()["metadata"]["annotations"].clone();
                return fake_api::respond(StatusCode::OK, object);
            }
            if let Some(object) = state.objects.get(&path) {
                return fake_api::respond(StatusCode::OK, object);
            }
            let is_one =
                path == NAMESPACE || path.contains("/persistentvolumes/") || path.contains("/secrets/");
            if is_one {
                return fake_api::refuse(StatusCode::NOT_FOUND, "NotFound");
            }
            let folder = format!("{path}/");
            let items: Vec<_> = state
                .objects
                .iter()
                .filter(|(at, _)| at.starts_with(&folder))
                .map(|(_, object)| object.clone())
                .collect();
            fake_api::respond(StatusCode::OK, &json!({ "metadata": {}, "items": items }))
        }
    }

    #[tokio::test]
    async fn a_namespace_into_which_the_operator_has_no_way_is_looked_at_all_the_same() {
        let server = FakeCluster::with_a_restored_journal();
        let client = fake_api::client(move |request| {
            let is_secret = request.uri().path().contains("/secrets/");
            std::future::ready(if is_secret {
                fake_api::refuse(StatusCode::FORBIDDEN, "Forbidden")
            } else {
                server.serve(&request)
            })
        });

        let seen = NamespaceSeen::Ours;
        let left = look("drill-ada-20261122t050000z", &seen, &[], &fake_api::cluster(client)).await.unwrap();

        assert!(left.secrets.is_empty());
        assert_eq!(left.claims.len(), 1, "what was restored is seen");
    }

    #[tokio::test]
    async fn a_restored_journal_is_taken_away_to_the_last_volume_and_its_namespace_last() {
        let server = FakeCluster::with_a_restored_journal();
        let cluster = server.cluster();
        let mut seen = NamespaceSeen::Ours;

        for _ in 0..10 {
            let left = look("drill-ada-20261122t050000z", &seen, &[], &cluster).await.unwrap();
            let next = next(&left, SignedDuration::ZERO);
            if matches!(next, Next::Gone) {
                break;
            }
            carry_out(&next, &left, &cluster).await.unwrap();
            if !server.0.lock().unwrap().objects.contains_key(NAMESPACE) {
                seen = NamespaceSeen::Absent;
            }
        }

        assert_eq!(seen, NamespaceSeen::Absent);
        let state = server.0.lock().unwrap();
        assert!(state.objects.is_empty(), "{:?}", state.objects.keys());
        assert_eq!(state.deleted.last().unwrap(), "drill-ada-20261122t050000z namespaces");
        assert!(state.deleted.contains(&"database-0 persistentvolumeclaims".to_owned()));
        assert_eq!(state.deleted.first().unwrap(), "drill-key secrets");
        assert!(state.deleted.contains(&"bare pods".to_owned()), "what nothing made goes too");
    }
}
