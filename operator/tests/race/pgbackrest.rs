//! pgBackRest, as its manual sets it up for S3: zstd at level 3, two processes, encrypted, small files bundled, its
//! WAL archived as it comes.

use std::{fs, os::unix::fs::chown, sync::Arc};

use super::{
    gauge::Gauge,
    journal::Journal,
    pod::{Pod, Started},
    store::{ACCESS_KEY, Keeps, PREFIX, REGION, SECRET_KEY, Store},
    table::Run,
};

const USER: u32 = 999;

/// Where it restores to.
const TARGET: &str = "/var/lib/postgresql/data/pgdata";

/// Its bucket of the store.
const BUCKET: &str = "pgbackrest";

/// pgBackRest with its bucket.
pub struct PgBackRest {
    store: Arc<Store>,
}

impl PgBackRest {
    pub async fn new(store: Arc<Store>, journal: &Journal) -> Self {
        store.make_bucket(BUCKET, Keeps::Latest);
        let rest = Self { store };
        rest.write_settings(&journal.pod);
        // The second proves that WAL is archived.
        for command in ["stanza-create", "check"] {
            let ran = rest.start(&journal.pod, &[command]);
            let ran = tokio::task::spawn_blocking(|| ran.finish()).await.unwrap();
            assert_eq!(ran.code, Some(0), "{command}: {ran:?}");
        }
        rest
    }

    fn write_settings(&self, pod: &Pod) {
        let root = pod.root();
        let settings = format!(
            "[global]\n\
             repo1-type=s3\nrepo1-path=/{PREFIX}\nrepo1-s3-bucket={BUCKET}\nrepo1-s3-region={REGION}\n\
             repo1-s3-endpoint=localhost\nrepo1-storage-port={}\nrepo1-s3-uri-style=path\n\
             repo1-s3-key={ACCESS_KEY}\nrepo1-s3-key-secret={SECRET_KEY}\n\
             repo1-storage-ca-file=/etc/store.pem\nrepo1-bundle=y\n\
             repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=a-pass-phrase-of-a-measurement\n\
             repo1-retention-full=100\n\
             compress-type=zst\ncompress-level=3\nprocess-max=2\nstart-fast=y\n\
             log-level-console=warn\nlog-level-file=off\nlock-path=/valv/run/pgbackrest\nspool-path=/valv/run\n\
             [journal]\n\
             pg1-path={TARGET}\npg1-port={}\npg1-socket-path=/valv/run\npg1-user=postgres\n",
            self.store.port, pod.port,
        );
        fs::write(root.join("etc/store.pem"), &self.store.authority).unwrap();
        // The name in the certificate of the store: not all releases take an address there.
        fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::write(root.join("etc/pgbackrest.conf"), settings).unwrap();
        let locks = root.join("valv/run/pgbackrest");
        fs::create_dir_all(&locks).unwrap();
        chown(locks, Some(USER), Some(USER)).unwrap();
    }

    fn start(&self, pod: &Pod, args: &[&str]) -> Started {
        let mut all = vec!["--config=/etc/pgbackrest.conf", "--stanza=journal"];
        all.extend(args);
        pod.start_program("pgbackrest", &all)
    }

    pub async fn back_up(&self, round: usize, journal: &Journal) -> Run {
        let gauge = Gauge::of(round, journal, &self.store);
        let before = self.store.bytes(BUCKET);
        let (run, _) = tokio::task::block_in_place(|| {
            gauge.measure(|| self.start(&journal.pod, &["--type=full", "backup"]))
        });
        Run { stored: self.store.bytes(BUCKET) - before, ..run }
    }

    /// The newest backup, into a pod of its own. What it holds is looked at afterwards.
    pub async fn restore(&self, round: usize, journal: &Journal) -> (Run, Pod) {
        let gauge = Gauge::of(round, journal, &self.store);
        let pod = Pod::new();
        self.write_settings(&pod);
        let folder = pod.root().join(TARGET.trim_start_matches('/'));
        fs::create_dir_all(&folder).unwrap();
        chown(&folder, Some(USER), Some(USER)).unwrap();
        let (run, _) = tokio::task::block_in_place(|| {
            gauge.measure(|| self.start(&pod, &["--type=immediate", "--target-action=promote", "restore"]))
        });
        journal.must_be_in(&pod).await;
        (run, pod)
    }
}
