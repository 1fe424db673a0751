//! A journal's database of some size, as the journal itself fills it.

use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use tokio_postgres::Client;
use valv::agent::roles::Role;

use super::{
    gauge::children,
    pod::{Pod, Started, eventually},
};

/// Patients of the journal's own making.
const PATIENTS: u64 = 36_000;

/// What one note of theirs takes in the database, with its indexes: measured.
const NOTE_BYTES: u64 = 575;

/// What a restored server is started with, beside its folder: the files are those of its own pod.
const SERVER: [&str; 6] = [
    "-D",
    "/var/lib/postgresql/data/pgdata",
    "-c",
    "config_file=/etc/valv/database/postgresql.conf",
    "-c",
    "hba_file=/etc/valv/database/pg_hba.conf",
];

/// By table: how many rows it has, and the sum of their hashes.
type Rows = BTreeMap<String, (i64, String)>;

/// A running database.
pub struct Journal {
    pub pod: Pod,
    running: Started,
    rows: Rows,
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
        // pgBackRest takes the WAL as soon as it has settings; until then nobody wants it.
        let more = "log_statement = 'none'\nshared_buffers = '256MB'\nmax_wal_size = '4GB'\narchive_mode = on\n\
                    archive_command = 'if test -e /etc/pgbackrest.conf; then \
                    pgbackrest --config=/etc/pgbackrest.conf --stanza=journal archive-push %p; fi'\n\
                    autovacuum = off\n";
        let text = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, format!("{text}{more}")).unwrap();
        let running = pod.run();
        drop(pod.connected("postgres", "", "journal").await);
        let mut journal =
            Self { pod, running, rows: Rows::new(), _attachments: tempfile::tempdir().unwrap() };
        journal.fill(gibibytes);
        let superuser = journal.pod.connected("postgres", "", "journal").await;
        // Nothing is left to be tidied while others measure.
        superuser.batch_execute("VACUUM (FREEZE, ANALYZE)").await.unwrap();
        superuser.batch_execute("CHECKPOINT").await.unwrap();
        journal.rows = rows(&superuser).await;
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
        let ran = Command::new(program)
            .args(args)
            .env("DATABASE_URL", url)
            .env("DATABASE_CA_FILE", ca)
            .env("JOURNAL_ATTACHMENTS_DIR", self._attachments.path())
            .env("JOURNAL_RELEASE_DIR", release)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = || String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "the journal: {}\n{}", ran.status, said());
    }

    pub async fn mebibytes(&self) -> i64 {
        let superuser = self.pod.connected("postgres", "", "journal").await;
        let row = superuser
            .query_one("SELECT sum(pg_database_size(oid))::bigint / 1048576 FROM pg_database", &[])
            .await
            .unwrap();
        row.get(0)
    }

    /// Rows of all tables.
    pub fn count(&self) -> i64 {
        self.rows.values().map(|(count, _)| count).sum()
    }

    /// The server's first process, as this process sees it.
    pub fn postmaster(&self) -> u32 {
        let is_server = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres")
        };
        children(self.running.agent()).into_iter().find(is_server).expect("the agent's child is the server")
    }

    /// Starts what was restored in `pod`, which must hold the very same rows.
    pub async fn must_be_in(&self, pod: &Pod) {
        let _running = pod.start_program("/usr/lib/postgresql/17/bin/postgres", &SERVER);
        let restored = pod.connected("postgres", "", "journal").await;
        eventually("the end of recovery", async || {
            let answer = restored.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap();
            (!answer.get::<_, bool>(0)).then_some(())
        })
        .await;
        assert_eq!(rows(&restored).await, self.rows, "what was restored is not what was backed up");
    }
}

/// Of every table but that of Valv's sentinel, which each backup changes.
async fn rows(client: &Client) -> Rows {
    let tables = client
        .query(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables \
             WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'valv')",
            &[],
        )
        .await
        .unwrap();
    let mut rows = Rows::new();
    for table in tables {
        let table: String = table.get(0);
        let sum = "coalesce(sum(hashtextextended(it::text, 0)), 0)::text";
        let row = client.query_one(&format!("SELECT count(*), {sum} FROM {table} AS it"), &[]).await.unwrap();
        rows.insert(table, (row.get(0), row.get(1)));
    }
    rows
}

/// The password of a role, in this measurement.
pub fn password(role: Role) -> String {
    format!("race-{}", role.name())
}
