//! For tests: manifests as people write them, and small changes of them.

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// A store, written out.
pub const STORE: &str = r"
apiVersion: valv.eu/v1alpha1
kind: BackupStore
metadata: {name: helsinki}
spec:
  provider: upcloud
  location: {region: europe-1, country: FI}
  profile: UpCloud
  endpoint: https://abcd.upcloudobjects.com
  bucket: valv-backups
  prefix: production
  objectLock: {mode: Compliance, days: 35}
  credentials: {writer: {name: helsinki-writer}, committer: {name: helsinki-committer}, reader: {name: helsinki-reader}, janitor: {name: helsinki-janitor}}
  limits: {concurrentBackups: 8, bytesPerSecond: 200Mi}
";

/// A policy, written out.
pub const POLICY: &str = r#"
apiVersion: valv.eu/v1alpha1
kind: BackupPolicy
metadata: {name: default}
spec:
  schedule: {cron: "0 1 * * *", timeZone: Europe/Stockholm, window: 3h, deadline: 2h}
  stores: [helsinki, frankfurt]
  verification: {mode: Sample, segments: 8, fullEvery: 7d}
  retention: {last: 3, daily: 14, weekly: 8, monthly: 12, yearly: 10, floor: {days: 35, reason: "HSLF-FS 2016:40 3 kap. 13 §, decided 2026-09-01"}}
  objectives: {rpo: 24h, rto: 1h}
  drill:
    schedule: {cron: "0 5 * * 0", timeZone: Europe/Stockholm}
    pick: {newest: 3, random: 1}
    checks:
      - {name: no-future-notes, sql: "SELECT count(*) = 0 FROM note WHERE written > now()"}
    rowCounts: {mayFallBy: 1%}
  keys: {proveEvery: 180d}
"#;

/// A backup of a schedule.
pub const BACKUP: &str = "
apiVersion: valv.eu/v1alpha1
kind: Backup
metadata: {name: ostra-20261122t010000z, namespace: journal-ostra}
spec: {origin: Scheduled}
";

/// A drill that a person asked for.
pub const DRILL: &str = "
apiVersion: valv.eu/v1alpha1
kind: RestoreDrill
metadata: {name: ostra-x7k2p, namespace: journal-ostra}
spec: {backup: newest}
";

/// `text` with every `(pointer, yaml)` of `changes` put in; `null` takes a field away.
pub fn changed<T: DeserializeOwned>(text: &str, changes: &[(&str, &str)]) -> T {
    let mut value: Value = serde_yaml::from_str(text).unwrap();
    for (pointer, change) in changes {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        let change: Value = serde_yaml::from_str(change).unwrap();
        if change.is_null() {
            parent.remove(field);
        } else {
            parent.insert(field.to_owned(), change);
        }
    }
    serde_json::from_value(value).unwrap()
}

/// What the rules say against something; empty if nothing.
pub fn refusal<E: Debug>(verdict: Result<(), E>) -> String {
    verdict.err().map(|errors| format!("{errors:?}")).unwrap_or_default()
}
