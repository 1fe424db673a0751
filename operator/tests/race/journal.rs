//! A journal's database of some size, as the journal itself fills it.

use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use valv::agent::roles::Role;

use super::pod::{Pod, Started};

/// Patients of the journal's own making.
const PATIENTS: u64 = 36_000;

/// What one note of theirs takes in the database, with its indexes: measured.
const NOTE_BYTES: u64 = 700;

/// A running database.
pub struct Journal {
    pub pod: Pod,
    running: Started,
    _attachments: TempDir,
}

impl Journal {
    pub async fn of(gibibytes: u64) -> Self {
        let pod = Pod::new();
        let passwords: BTreeMap<Role, Option<String>> =
            Role::ALL.into_iter().map(|role| (role, Some(password(role)))).collect();
        pod.write_roles("DataOnly", &passwords);
        let made = pod.init(&[]);
        assert_eq!(made.code, Some(0), "{made:?}");
        let settings = pod.root().join("etc/valv/database/postgresql.conf");
        let more = "log_statement = 'none'\nshared_buffers = '256MB'\nmax_wal_size = '4GB'\narchive_mode = on\n\
                    archive_command = 'test -e /etc/pgbackrest.conf && pgbackrest --stanza=journal archive-push %p'\n\
                    autovacuum = off\n";
        let text = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, format!("{text}{more}")).unwrap();
        let running = pod.run();
        drop(pod.connected("postgres", "", "journal").await);
        let journal = Self { pod, running, _attachments: tempfile::tempdir().unwrap() };
        journal.fill(gibibytes);
        let superuser = journal.pod.connected("postgres", "", "journal").await;
        superuser.batch_execute("CHECKPOINT").await.unwrap();
        journal
    }

    fn fill(&self, gibibytes: u64) {
        let notes = (gibibytes << 30) / PATIENTS / NOTE_BYTES;
        self.journal(Role::JournalOwner, &["migrate".to_owned()]);
        let amount = [
            "fill".to_owned(),
            format!("--patients={PATIENTS}"),
            "--seed=1".to_owned(),
            "--attachment-bytes=0".to_owned(),
            format!("--notes-per-patient={notes}"),
        ];
        self.journal(Role::JournalAppA, &amount);
    }

    fn journal(&self, role: Role, args: &[String]) {
        let program =
            PathBuf::from(env::var_os("VALV_JOURNAL").expect("VALV_JOURNAL: the journal's program"));
        let ca = self.pod.root().join("authority.pem");
        fs::write(&ca, self.pod.authority.pem()).unwrap();
        let url =
            format!("postgres://{}:{}@127.0.0.1:{}/journal", role.name(), password(role), self.pod.port);
        let release = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/journal/releases/1");
        let status = Command::new(program)
            .args(args)
            .env("DATABASE_URL", url)
            .env("DATABASE_CA_FILE", ca)
            .env("JOURNAL_ATTACHMENTS_DIR", self._attachments.path())
            .env("JOURNAL_RELEASE_DIR", release)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "the journal: {status}");
    }

    pub async fn mebibytes(&self) -> i64 {
        let superuser = self.pod.connected("postgres", "", "journal").await;
        let row = superuser
            .query_one("SELECT sum(pg_database_size(oid))::bigint / 1048576 FROM pg_database", &[])
            .await
            .unwrap();
        row.get(0)
    }

    /// The server's first process, as this process sees it.
    pub fn postmaster(&self) -> u32 {
        let agent = self.running.agent();
        let list = fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap();
        let children = list.split_whitespace().map(|pid| pid.parse::<u32>().unwrap());
        let is_server = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres")
        };
        children.into_iter().find(is_server).expect("the agent's child is the server")
    }
}

/// The password of a role, in this measurement.
pub fn password(role: Role) -> String {
    format!("race-{}", role.name())
}
