//! Brings the cluster, and the archive, to the plan.

use jiff::Timestamp;
use kube::{ResourceExt, core::DynamicObject};
use tracing::{info, warn};
use valv_crds::{
    BackupPolicy, RestoreDrillStatus,
    drill::{DrillJob, RecordReference},
};

use super::{
    Context,
    check::{Run, Subject},
    names::{CONFIG, KEY_SECRET},
    objects,
    observe::{Observed, dynamic},
    plan::{Plan, Record},
    record, teardown,
};
use crate::{
    archive::layout::{ArchiveId, Key as ArchiveKey},
    error::chain,
    io::{
        cluster::{Cluster, Error as ClusterError},
        difference::difference,
        kind::{Key, Kind},
    },
    tenant::{self, objects::Wanted, observe::NamespaceSeen},
};

/// The plan could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster refused or did not answer.
    #[error("failed to bring the cluster to the plan")]
    Cluster(#[source] ClusterError),
    /// A login or a certificate could not be made.
    #[error("failed to make a Secret for the restored journal")]
    Secret(#[source] tenant::apply::Error),
}

/// What became of the plan.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The record that was written.
    pub record: Option<RecordReference>,
    /// Why it was not written this time.
    pub not_recorded: Option<String>,
    /// Why there is no record to write, and never will be.
    pub nothing_to_record: Option<String>,
    /// What the API server refused: the drill waits for it.
    pub refused: Option<String>,
    /// Why not all could be taken away this time.
    pub not_torn_down: Option<String>,
    /// Digest of the run files that stand now, as the plan wants them.
    pub prepared: Option<String>,
    /// The Jobs that stand now, as the plan wants them.
    pub jobs: Vec<DrillJob>,
}

/// Makes what the plan wants (the namespace and the operator's access first, Secrets before what reads them), takes
/// away what has served, records, and tears down. The finalizer is set before anything is made, and taken away last.
///
/// # Errors
/// Only of the cluster. What the store says is in the [`Outcome`], and so is what the API server refuses of the
/// drill's own objects.
pub async fn apply(
    run: &Run,
    observed: &Observed,
    plan: &Plan,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, Error> {
    // No `..`: a new part of the plan does not compile until somebody decides when it is applied.
    let Plan { step: _, finalizer, namespace, orders, apply, delete, record, teardown, look_again_after: _ } =
        plan;
    let cluster = &context.cluster;
    let mut outcome = Outcome::default();
    let Ok(subject) = &run.subject else { return Ok(outcome) };
    if let Some(finalizer) = finalizer {
        match cluster.set_drill_finalizer(&run.object, *finalizer).await {
            // A newer version is on its way here, and brings the next look with it.
            Err(error) if error.is_conflict() => {}
            set => set.map_err(Error::Cluster)?,
        }
        return Ok(outcome);
    }
    if let Some(namespace) = namespace {
        match cluster.create_namespace(namespace).await {
            // Made by a look whose end was not seen; else the next look finds it to be somebody else's.
            Err(error) if error.is_conflict() => return Ok(outcome),
            made => drop(made.map_err(Error::Cluster)?),
        }
    }
    if !orders.is_empty()
        && let Some(tenant) = &observed.tenant
    {
        let guest = objects::guest(tenant, subject, observed);
        for order in orders {
            match tenant::apply::fulfil(&guest, order, cluster, &context.settings, now).await {
                Err(tenant::apply::Error::Cluster(error)) if error.is_conflict() => {}
                made => made.map_err(Error::Secret)?,
            }
        }
    }
    let config = Key::new(Kind::ConfigMap, CONFIG);
    for wanted in apply {
        let standing = standing(observed, &wanted.key);
        if wanted.key == config && standing.is_some() {
            // The plan takes away one that is not as it wants it.
            outcome.prepared = objects::digest_among(apply);
            continue;
        }
        let made = if wanted.key.kind == Kind::Job {
            make_job(wanted, cluster).await.map(|job| outcome.jobs.push(job))
        } else {
            cluster.apply(&wanted.key, &wanted.value, standing.as_ref()).await.map(drop)
        };
        match made {
            Ok(()) if wanted.key == config => outcome.prepared = objects::digest_among(apply),
            Ok(()) => {}
            // It has moved on, or the cache has not seen it yet.
            Err(error) if error.is_conflict() => break,
            Err(error) if error.is_refusal() || error.is_not_found() => {
                outcome.refused = Some(chain(&error));
                break;
            }
            Err(error) => return Err(Error::Cluster(error)),
        }
    }
    for key in delete {
        if let Some(standing) = standing(observed, key) {
            match cluster.delete(key, &standing).await {
                Err(error) if error.is_conflict() => {}
                deleted => deleted.map_err(Error::Cluster)?,
            }
        }
    }
    if *record == Record::Now {
        write(run, subject, observed, context, now, &mut outcome).await;
    }
    if let (Some(next), Some(left)) = (teardown, &observed.left) {
        match teardown::carry_out(next, left, cluster).await {
            Ok(()) => {}
            Err(error) if error.is_conflict() => {}
            Err(error) => {
                warn!(error = chain(&error), "failed to tear down, trying again");
                outcome.not_torn_down = Some(chain(&error));
            }
        }
    }
    Ok(outcome)
}

/// Makes a Job, or finds that it stands as it was wanted: made by a look whose end was not seen. Any other of its name
/// is taken away.
///
/// # Errors
/// A conflict, if it was another: the next look makes it.
async fn make_job(wanted: &Wanted, cluster: &Cluster) -> Result<DrillJob, ClusterError> {
    let name = wanted.key.name.clone();
    let error = match cluster.create(&wanted.key, &wanted.value).await {
        Ok(made) => return Ok(DrillJob { name, uid: made.uid().unwrap_or_default() }),
        Err(error) if error.is_conflict() => error,
        Err(error) => return Err(error),
    };
    let namespace = wanted.value["metadata"]["namespace"].as_str().unwrap_or_default();
    let Some(standing) = cluster.live(&wanted.key, namespace).await? else { return Err(error) };
    if is_as_wanted(wanted, &standing) {
        return Ok(DrillJob { name, uid: standing.uid().unwrap_or_default() });
    }
    warn!(object.kind = "Job", object.name = name, "a Job that this drill did not make is taken away");
    cluster.delete(&wanted.key, &standing).await?;
    Err(error)
}

/// Whether `standing` would do what is `wanted`, in whatever time is left.
fn is_as_wanted(wanted: &Wanted, standing: &DynamicObject) -> bool {
    let mut wanted = wanted.value.clone();
    if let Some(spec) = wanted["spec"].as_object_mut() {
        spec.remove("activeDeadlineSeconds");
    }
    let is_going = standing.metadata.deletion_timestamp.is_some();
    let standing = serde_json::to_value(standing).unwrap_or_default();
    !is_going && difference(&wanted, &standing).is_none()
}

/// Writes the record, or says why not.
async fn write(
    run: &Run,
    subject: &Subject,
    observed: &Observed,
    context: &Context,
    now: Timestamp,
    outcome: &mut Outcome,
) {
    let status = run.status();
    let Some(archive) = archive(observed, &status) else {
        outcome.nothing_to_record = Some("nothing says in which archive it would lie".to_owned());
        return;
    };
    // A record among another's would be taken for that one's own.
    if record::is_of_another(&status) {
        outcome.nothing_to_record = Some("the archive is not this tenant's".to_owned());
        return;
    }
    let name = observed.store_name.clone().unwrap_or_default();
    if name.is_empty() {
        outcome.nothing_to_record = Some("no store was drilled".to_owned());
        return;
    }
    if !is_the_policys(&name, observed.policy.as_deref(), run.object.spec.store.as_ref(), &status) {
        outcome.nothing_to_record = Some(format!("the store {name} is none of the policy's"));
        return;
    }
    let (Some(store), Some(Ok(credentials))) = (&observed.store, &observed.credentials) else {
        outcome.not_recorded = Some(format!("the BackupStore {name} or its credentials are not there"));
        return;
    };
    let namespace = &context.settings.operator_namespace;
    let key = match context.signing.key(&context.cluster, namespace).await {
        Ok(key) => key,
        Err(error) => {
            outcome.not_recorded = Some(chain(&error));
            return;
        }
    };
    let document = record::record(run, subject, &status, &archive, store, observed.policy.as_deref());
    match record::write(&document, store, credentials, &key, now).await {
        Ok(reference) => {
            info!(object.key = reference.object.key, store.name = store.name, "wrote the record");
            outcome.record = Some(reference);
        }
        Err(error) => {
            warn!(error = chain(&error), "failed to write the record, trying again");
            outcome.not_recorded = Some(chain(&error));
        }
    }
}

/// Whether a record may lie in the store `name`. One whose turn it was, or that a backup was restored from, was the
/// policy's then; one that somebody `named` need not have been.
fn is_the_policys(
    name: &str,
    policy: Option<&BackupPolicy>,
    named: Option<&String>,
    status: &RestoreDrillStatus,
) -> bool {
    let names = |policy: &BackupPolicy| policy.spec.stores.iter().any(|store| store == name);
    status.backup.is_some() || named.is_none() || policy.is_some_and(names)
}

/// The archive, as the tenant says; once that is gone, as the manifest's place says.
fn archive(observed: &Observed, status: &RestoreDrillStatus) -> Option<ArchiveId> {
    if let Some(tenant) = &observed.tenant {
        return tenant.archive_id().parse().ok();
    }
    let manifest = status.backup.as_ref()?.manifest.as_ref()?;
    let key: ArchiveKey = manifest.key.parse().ok()?;
    Some(key.archive().clone())
}

/// The object as it was seen in the drill's namespace.
fn standing(observed: &Observed, key: &Key) -> Option<DynamicObject> {
    if observed.namespace != NamespaceSeen::Ours {
        return None;
    }
    if key.kind == Kind::Secret {
        if key.name == KEY_SECRET {
            return observed.key.as_ref().and_then(dynamic);
        }
        return observed.secrets.get(&key.name).and_then(dynamic);
    }
    observed.objects.get(key).map(|object| object.as_ref().clone())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use ::http::{Method, Request, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::fake_api;

    fn job() -> Value {
        json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": { "name": "judge", "namespace": "drill-ada-0b0e7c1a6f0e4a67", "labels": { "valv.eu/drill": "u" } },
            "spec": { "backoffLimit": 0, "activeDeadlineSeconds": 60, "template": { "spec": {
                "containers": [{ "name": "agent", "image": "r.example/v:1", "args": ["agent", "judge"] }],
            }}},
        })
    }

    /// What the API server made of it: with more than was asked for.
    fn standing(change: impl FnOnce(&mut Value)) -> Value {
        let mut standing = job();
        standing["metadata"]["uid"] = json!("j1");
        standing["spec"]["activeDeadlineSeconds"] = json!(55);
        standing["spec"]["suspend"] = json!(false);
        standing["spec"]["template"]["spec"]["dnsPolicy"] = json!("ClusterFirst");
        change(&mut standing);
        standing
    }

    /// Makes the Job where `standing` has its name already; and what was asked of the API server.
    async fn make(standing: Value) -> (Result<DrillJob, ClusterError>, Vec<Method>) {
        let asked: Arc<Mutex<Vec<Method>>> = Arc::default();
        let seen = asked.clone();
        let serve = move |request: Request<Value>| {
            let method = request.method().clone();
            seen.lock().unwrap().push(method.clone());
            let answer = match method {
                Method::POST => fake_api::refuse(StatusCode::CONFLICT, "AlreadyExists"),
                Method::DELETE => {
                    fake_api::respond(StatusCode::OK, &json!({ "kind": "Status", "status": "Success" }))
                }
                _ => fake_api::respond(StatusCode::OK, &standing),
            };
            std::future::ready(answer)
        };
        let cluster = fake_api::cluster(fake_api::client(serve));
        let made = make_job(&Wanted { key: Key::new(Kind::Job, "judge"), value: job() }, &cluster).await;
        let asked = asked.lock().unwrap().clone();
        (made, asked)
    }

    #[test]
    fn a_record_lies_in_a_store_of_the_policy_or_in_the_one_that_was_restored_from() {
        let policy: BackupPolicy = serde_json::from_value(json!({
            "metadata": { "name": "default" },
            "spec": {
                "schedule": { "cron": "0 1 * * *", "timeZone": "UTC" }, "stores": ["helsinki"],
                "retention": { "floor": { "days": 35, "reason": "decided for a test" } },
                "objectives": { "rpo": "24h", "rto": "4h" },
            },
        }))
        .unwrap();
        let none = RestoreDrillStatus::default();
        let restored: RestoreDrillStatus = serde_json::from_value(json!({
            "backup": { "slot": "20261122T010000Z", "store": "oslo" }, "conditions": [],
        }))
        .unwrap();
        let oslo = "oslo".to_owned();

        assert!(is_the_policys("helsinki", Some(&policy), None, &none));
        assert!(is_the_policys("helsinki", Some(&policy), Some(&"helsinki".to_owned()), &none));
        assert!(!is_the_policys("oslo", Some(&policy), Some(&oslo), &none), "it never was the policy's");
        assert!(!is_the_policys("oslo", None, Some(&oslo), &none), "nobody knows");
        assert!(is_the_policys("oslo", Some(&policy), Some(&oslo), &restored), "the policy named it then");
        for policy in [Some(&policy), None] {
            assert!(is_the_policys("oslo", policy, None, &none), "it was its turn then");
        }
    }

    #[tokio::test]
    async fn a_job_that_a_crashed_operator_made_is_taken_up() {
        let (made, asked) = make(standing(|_| {})).await;

        assert_eq!(made.unwrap(), DrillJob { name: "judge".into(), uid: "j1".into() });
        assert_eq!(asked, [Method::POST, Method::GET]);
    }

    #[tokio::test]
    async fn a_job_of_that_name_that_would_do_something_else_is_taken_away() {
        let changes: [fn(&mut Value); 3] = [
            |job| job["spec"]["template"]["spec"]["containers"][0]["image"] = json!("r.example/forged:1"),
            |job| {
                let containers = job["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
                containers.push(json!({ "name": "more" }));
            },
            |job| job["metadata"]["labels"]["valv.eu/drill"] = json!("another"),
        ];
        for change in changes {
            let (made, asked) = make(standing(change)).await;

            assert!(made.unwrap_err().is_conflict(), "it is tried again");
            assert_eq!(asked, [Method::POST, Method::GET, Method::DELETE]);
        }
    }
}
