//! Wakes tenants when a backup, a drill or a policy changed in a way that their status tells of.
//!
//! A backup that runs changes every few seconds, and says nothing of that to its tenant.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::{Stream, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use tokio::sync::mpsc;
use valv_crds::{Backup, BackupPolicy, RestoreDrill, reference::NAMESPACE_PREFIX};

use crate::drill::tampering;

/// Conditions of backups and drills that a tenant's status tells of.
const TOLD: [&str; 5] = ["Complete", "Stalled", "Passed", "TornDown", "Recorded"];

/// Wakes tenants. What was told of each object is kept as a digest.
#[derive(Debug)]
pub struct Waking {
    told: Mutex<HashMap<String, u64>>,
    wake: mpsc::UnboundedSender<String>,
}

impl Waking {
    /// Nobody woken yet, and the names of tenants that will be.
    pub fn new() -> (Self, impl Stream<Item = String> + Send) {
        let (wake, woken) = mpsc::unbounded_channel();
        let woken =
            stream::unfold(woken, |mut woken| async { woken.recv().await.map(|tenant| (tenant, woken)) });
        (Self { told: Mutex::default(), wake }, woken)
    }

    /// `backup` is as it is.
    pub fn backup(&self, backup: &Backup) {
        let status = backup.status.as_ref();
        let stores = status.map(|status| status.stores.as_slice()).unwrap_or_default();
        let gist = digest(&(
            backup.uid(),
            status.and_then(|status| status.slot),
            stores.iter().filter(|store| store.commit.is_some()).map(|store| &store.name).collect::<Vec<_>>(),
            told(status.map(|status| status.conditions.as_slice()).unwrap_or_default()),
        ));
        self.of_tenant("Backup", backup.namespace(), &backup.name_any(), gist);
    }

    /// `drill` is as it is.
    pub fn drill(&self, drill: &RestoreDrill) {
        let status = drill.status.as_ref();
        let ended = status.and_then(|status| status.ended.as_ref()).map(|ended| ended.0);
        let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        // What it found of tampering counts before it ends: it may not come to its end.
        let tampering = tampering::found(std::iter::once(drill), None, None);
        let tampering: Vec<_> = tampering.into_iter().map(|found| found.reason).collect();
        let gist = digest(&(drill.uid(), ended, told(conditions), tampering));
        self.of_tenant("RestoreDrill", drill.namespace(), &drill.name_any(), gist);
    }

    /// `policy` is as it is, and `tenants` have it.
    pub fn policy(&self, policy: &BackupPolicy, tenants: impl IntoIterator<Item = String>) {
        let gist = digest(&(policy.uid(), policy.metadata.generation));
        if self.is_news(format!("BackupPolicy/{}", policy.name_any()), gist) {
            for tenant in tenants {
                // Nobody listens any more only when the operator stops.
                let _ = self.wake.send(tenant);
            }
        }
    }

    /// Forgets the backups and drills of all namespaces and names but those that are `there`.
    pub fn retain(&self, kind: &str, there: &HashSet<(String, String)>) {
        let prefix = format!("{kind}/");
        self.told().retain(|key, _| {
            let Some(rest) = key.strip_prefix(&prefix) else { return true };
            rest.split_once('/')
                .is_some_and(|(space, name)| there.contains(&(space.to_owned(), name.to_owned())))
        });
    }

    fn of_tenant(&self, kind: &str, namespace: Option<String>, name: &str, gist: u64) {
        let namespace = namespace.unwrap_or_default();
        let Some(tenant) = namespace.strip_prefix(NAMESPACE_PREFIX) else { return };
        if self.is_news(format!("{kind}/{namespace}/{name}"), gist) {
            let _ = self.wake.send(tenant.to_owned());
        }
    }

    fn is_news(&self, key: String, gist: u64) -> bool {
        self.told().insert(key, gist) != Some(gist)
    }

    /// A panic elsewhere leaves nothing half done in it.
    fn told(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn told(conditions: &[Condition]) -> Vec<(&str, &str, &str, &str)> {
    let told = conditions.iter().filter(|condition| TOLD.contains(&condition.type_.as_str()));
    told.map(|said| (said.type_.as_str(), said.status.as_str(), said.reason.as_str(), said.message.as_str()))
        .filter(|(kind, status, reason, _)| {
            *status == "True" || *kind == "Passed" || (*kind == "Recorded" && *reason == "NotAskedFor")
        })
        .collect()
}

fn digest(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        drill::past::tests::past_drill,
        policy::slots::tests::backup,
        tenant::protection::tests::{committed, stalled},
    };

    fn woken(stream: &mut (impl Stream<Item = String> + Unpin)) -> Vec<String> {
        std::iter::from_fn(|| stream.next().now_or_never().flatten()).collect()
    }

    #[test]
    fn a_tenant_is_woken_when_a_backup_is_made_and_when_it_ends_and_not_by_its_progress() {
        let (waking, stream) = Waking::new();
        let mut stream = Box::pin(stream);
        let made = backup("ada", "ada-20261122t010000z", "Scheduled");
        let running = |percent: i32| {
            let status = json!({
                "progress": { "stage": "Database", "percent": percent },
                "conditions": [{
                    "type": "Complete", "status": "False", "reason": "Running", "message": percent.to_string(),
                    "lastTransitionTime": "2026-11-22T01:40:00Z",
                }],
            });
            Backup { status: serde_json::from_value(status).unwrap(), ..made.clone() }
        };

        waking.backup(&made);
        assert_eq!(woken(&mut stream), ["ada"]);
        for percent in [1, 50, 99] {
            waking.backup(&running(percent));
        }
        assert_eq!(woken(&mut stream), Vec::<String>::new());
        waking.backup(&committed("20261122T010000Z", "2026-11-22T01:30:00Z"));
        assert_eq!(woken(&mut stream), ["ada"]);
        waking.backup(&stalled(made, "20261122T010000Z", "StoreFull"));
        assert_eq!(woken(&mut stream), ["ada"]);
    }

    #[test]
    fn a_tenant_is_woken_when_a_drill_is_torn_down_and_recorded_and_by_tampering_before_it_ends() {
        let (waking, stream) = Waking::new();
        let mut stream = Box::pin(stream);
        let mut drill = past_drill("by-hand", 8, Some(8), "True", "AsAsked");
        waking.drill(&drill);
        assert_eq!(woken(&mut stream), ["ada"]);
        let mut wakes = |change: Value| {
            let mut status = json!(drill.status);
            status.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            drill.status = serde_json::from_value(status).unwrap();
            waking.drill(&drill);
            !woken(&mut stream).is_empty()
        };
        let said = |kind: &str, status: &str, reason: &str| {
            json!({ "type": kind, "status": status, "reason": reason, "message": "",
                "lastTransitionTime": "2026-11-08T06:00:00Z" })
        };
        let all = |torn_down: &str, recorded: &str, reason: &str| {
            json!({ "conditions": [
                said("Passed", "True", "AsAsked"), said("TornDown", torn_down, "x"),
                said("Recorded", recorded, reason),
            ]})
        };

        assert!(!wakes(all("False", "False", "NotReached")), "it has its time");
        assert!(wakes(all("True", "False", "NotReached")));
        assert!(!wakes(all("True", "False", "RecordFailed")));
        assert!(wakes(all("True", "False", "NotAskedFor")));
        assert!(wakes(all("True", "True", "AsAsked")));
        assert!(wakes(json!({ "verdicts": [
            { "name": "Segments", "outcome": "Warned", "reason": "Tampered" },
        ]})));
    }

    #[test]
    fn what_is_gone_is_forgotten_and_news_again_when_it_comes_back() {
        let (waking, stream) = Waking::new();
        let mut stream = Box::pin(stream);
        let one = backup("ada", "ada-20261122t010000z", "Scheduled");
        waking.backup(&one);
        waking.backup(&backup("bo", "bo-20261122t010000z", "Scheduled"));
        woken(&mut stream);

        let there = HashSet::from([("journal-bo".to_owned(), "bo-20261122t010000z".to_owned())]);
        waking.retain("Backup", &there);
        waking.backup(&one);
        waking.backup(&backup("bo", "bo-20261122t010000z", "Scheduled"));

        assert_eq!(woken(&mut stream), ["ada"]);
    }

    #[test]
    fn another_policy_wakes_all_that_have_it() {
        let (waking, stream) = Waking::new();
        let mut stream = Box::pin(stream);
        let policy = |generation: i64| -> BackupPolicy {
            serde_yaml::from_str(&format!(
                "
                apiVersion: valv.eu/v1alpha1
                kind: BackupPolicy
                metadata: {{name: default, generation: {generation}}}
                spec:
                  schedule: {{cron: '0 1 * * *', timeZone: UTC}}
                  stores: [helsinki]
                  retention: {{floor: {{days: 35, reason: decided 2026-09-01}}}}
                  objectives: {{rpo: 24h, rto: 4h}}"
            ))
            .unwrap()
        };
        let tenants = || ["ada", "bo"].map(str::to_owned);

        waking.policy(&policy(1), tenants());
        waking.policy(&policy(1), tenants());
        assert_eq!(woken(&mut stream), ["ada", "bo"]);
        waking.policy(&policy(2), tenants());
        assert_eq!(woken(&mut stream), ["ada", "bo"]);
    }
}
