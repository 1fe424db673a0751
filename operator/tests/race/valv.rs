//! This pipeline: `valv agent backup`, and `valv agent restore` of what it wrote.

use std::{fs, os::unix::fs::chown, path::Path, sync::Arc};

use serde_json::{Value, json};
use valv::{
    agent::{restore::CHECKS, roles::Role},
    archive::{commit::ManifestRef, manifest::Manifest},
};

use super::{
    backup::{Backup, Keys, archive, committed},
    gauge::Gauge,
    journal::{Journal, password},
    pod::Pod,
    store::{ACCESS_KEY, BUCKET, PREFIX, REGION, SECRET_KEY, Store},
    table::Run,
};

const USER: u32 = 999;

/// The object of a tenant that names no Secret. A backup without one is not whole.
const TENANT: &str = "kind: JournalTenant\nspec: {}\n";

/// Valv with its bucket.
pub struct Valv {
    store: Arc<Store>,
    keys: Keys,
    rounds: u32,
}

impl Valv {
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, keys: Keys::new(), rounds: 0 }
    }

    /// The slot of this round: a moment of its own.
    fn slot(&self) -> String {
        format!("20261122T01{:02}00Z", self.rounds)
    }

    fn store_as_told(&self) -> Value {
        json!({
            "name": "helsinki",
            "endpoint": self.store.endpoint(),
            "bucket": BUCKET,
            "prefix": PREFIX,
            "region": REGION,
            "caBundle": self.store.authority,
            "timeouts": { "connect": 5, "attempt": 60, "stall": 20 },
            "retry": { "perRequest": 2, "perRun": 20 },
        })
    }

    pub async fn back_up(&mut self, round: usize, journal: &Journal) -> Run {
        let gauge = Gauge::of(round, journal, &self.store);
        self.rounds += 1;
        let pod = &journal.pod;
        write(pod, "ca.crt", &pod.authority.pem());
        self.write_credentials(pod);
        for role in [Role::JournalReplication, Role::JournalCheck] {
            write(pod, &format!("passwords/{role}"), &password(role));
        }
        let run = json!({
            "archive": "race",
            "slot": self.slot(),
            "store": self.store_as_told(),
            "recipients": self.keys.recipients.to_texts(),
            "sentinel": format!("{:032x}", self.rounds),
            "database": {
                "host": "127.0.0.1", "port": pod.port, "name": "journal", "caFile": "/etc/valv/race/ca.crt",
                "replicationUser": "journal_replication", "checkUser": "journal_check",
            },
            "tenantFolder": "/etc/valv/race/tenant",
        });
        write(pod, "run.json", &run.to_string());
        write(pod, "tenant/tenant.yaml", TENANT);
        let before = self.store.bytes(BUCKET);
        let attempt = format!("--attempt=00000000-0000-4000-8000-{:012}", self.rounds);
        let _ = fs::remove_file(pod.root().join("valv/run/termination-log"));
        let (run, ended) = tokio::task::block_in_place(|| {
            gauge.measure(|| {
                pod.start(&[
                    "backup",
                    "--run=/etc/valv/race/run.json",
                    "--store-credentials=/etc/valv/race/store",
                    "--database-passwords=/etc/valv/race/passwords",
                    "--termination-log=/valv/run/termination-log",
                    &attempt,
                ])
            })
        });
        let named: ManifestRef = serde_json::from_value(ended.message["manifest"].clone()).unwrap();
        let manifest: Manifest = archive(&self.store.bucket()).manifest(&named).await.unwrap();
        committed(&self.store.bucket(), &Backup { manifest, named }, &self.keys).await;
        Run { stored: self.store.bytes(BUCKET) - before, ..run }
    }

    /// The newest backup, into a pod of its own. What it holds is looked at afterwards.
    pub async fn restore(&self, round: usize, journal: &Journal) -> (Run, Pod) {
        let gauge = Gauge::of(round, journal, &self.store);
        let pod = Pod::new();
        self.write_credentials(&pod);
        write(&pod, "identity", &self.keys.tenant_file);
        let tenant = pod.root().join("valv/tenant");
        fs::create_dir_all(&tenant).unwrap();
        chown(&tenant, Some(USER), Some(USER)).unwrap();
        let run = json!({
            "archive": "race",
            "slot": self.slot(),
            "store": self.store_as_told(),
            "trustedKeys": [self.keys.public().to_pem()],
            "databaseVolume": "/var/lib/postgresql/data",
            "tenantFolder": "/valv/tenant",
            "major": 17,
        });
        write(&pod, "run.json", &run.to_string());
        let (run, ended) = tokio::task::block_in_place(|| {
            gauge.measure(|| {
                pod.start(&[
                    "restore",
                    "--run=/etc/valv/race/run.json",
                    "--store-credentials=/etc/valv/race/store",
                    "--identity=/etc/valv/race/identity",
                    "--termination-log=/valv/run/termination-log",
                ])
            })
        });
        let verdicts = ended.message["restored"]["verdicts"].as_array().cloned().unwrap_or_default();
        let passed = verdicts.iter().filter(|verdict| verdict["outcome"] == "Passed").count();
        assert!(passed == verdicts.len() && passed == CHECKS.len(), "{ended:?}");
        journal.must_be_in(&pod).await;
        (run, pod)
    }

    fn write_credentials(&self, pod: &Pod) {
        write(pod, "store/accessKeyID", ACCESS_KEY);
        write(pod, "store/secretAccessKey", SECRET_KEY);
    }
}

/// What Kubernetes would mount.
fn write(pod: &Pod, name: &str, content: &str) {
    let path = pod.root().join("etc/valv/race").join(name);
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
    fs::write(path, content).unwrap();
}
