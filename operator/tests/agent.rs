//! The agent, in a pod of its own, with real PostgreSQL 17.
//!
//! A pod here is a root folder with PostgreSQL's `/usr`, and processes with their own mounts, process ids (the
//! agent is PID 1) and shared memory, as user 999 without any right. Needs root, and
//! `VALV_POSTGRES_ROOT`: the root folder of a Debian trixie with PostgreSQL 17.

#![allow(clippy::doc_markdown, reason = "PostgreSQL is a name, not code")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

#[path = "agent/pod.rs"]
#[allow(dead_code, reason = "the race uses the rest")]
mod pod;

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, process::Command};

use tokio_postgres::{Client, error::SqlState};
use valv::agent::roles::Role;

use self::pod::{Authority, Pod, eventually};

const DATA_ONLY: &str = "DataOnly";
const OWNER: &str = "Owner";

/// Which of the six roles cannot log in.
const CANNOT_LOG_IN: &str = "SELECT string_agg(rolname, ' ') FROM pg_authid \
     WHERE rolname ~ '^(journal_|valv_)' AND rolname <> 'journal_app' \
     AND NOT rolcanlogin AND rolpassword IS NULL";

/// Passwords of all six roles: `<role>-<version>`.
fn passwords(version: u32) -> BTreeMap<Role, Option<String>> {
    Role::ALL.into_iter().map(|role| (role, Some(format!("{role}-{version}")))).collect()
}

/// A pod whose database was made, not yet running.
fn made(grant: &str) -> Pod {
    let pod = Pod::new();
    pod.write_roles(grant, &passwords(1));
    let made = pod.init(&[]);
    assert_eq!(made.code, Some(0), "{made:?}");
    pod
}

/// What the database answers to `query`: the first column of the first row, as text.
async fn ask(client: &Client, query: &str) -> String {
    let row = client.query_one(&format!("SELECT ({query})::text"), &[]).await.unwrap();
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

/// Why the database refuses `sql`.
async fn refused(client: &Client, sql: &str) -> SqlState {
    client.batch_execute(sql).await.expect_err(sql).code().expect("an answer of the server").clone()
}

#[tokio::test]
async fn an_empty_volume_becomes_a_checksummed_database_whose_superuser_has_no_password() {
    let pod = Pod::new();
    pod.write_roles(DATA_ONLY, &passwords(1));

    let made = pod.init(&[]);

    assert_eq!(made.code, Some(0), "{made:?}");
    assert_eq!(made.message["outcome"], "Created");
    assert!(made.message["version"].as_str().unwrap().starts_with("17."));
    assert!(pod.volume().join("valv-roles.sha256").exists());
    assert!(!pod.volume().join("pgdata.new").exists());
    assert!(!made.log.contains("SCRAM-SHA-256$"), "{}", made.log);

    let _running = pod.run();
    let superuser = pod.connected("postgres", "", "journal").await;
    assert_eq!(ask(&superuser, "current_setting('data_checksums')").await, "on");
    assert_eq!(
        ask(&superuser, "SELECT system_identifier FROM pg_control_system()").await,
        made.message["systemIdentifier"],
    );
    let locale = "SELECT datlocprovider::text || ' ' || datlocale FROM pg_database WHERE datname = 'journal'";
    assert_eq!(ask(&superuser, locale).await, "b C.UTF-8");
    let with_password =
        "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_authid WHERE rolpassword IS NOT NULL";
    assert_eq!(
        ask(&superuser, with_password).await,
        "journal_app_a journal_app_b journal_check journal_owner journal_replication valv_roles",
    );
    let superusers = "SELECT string_agg(rolname, ' ') FROM pg_authid WHERE rolsuper";
    assert_eq!(ask(&superuser, superusers).await, "postgres");
}

#[tokio::test]
async fn a_journal_with_data_rights_writes_rows_and_makes_no_tables() {
    let pod = made(DATA_ONLY);
    let _running = pod.run();
    let owner = pod.connected("journal_owner", "journal_owner-1", "journal").await;

    owner.batch_execute("CREATE TABLE note (id bigserial PRIMARY KEY, text text)").await.unwrap();
    let app = pod.connected("journal_app_b", "journal_app_b-1", "journal").await;
    app.batch_execute(
        "INSERT INTO note (text) VALUES ('a'), ('b'); UPDATE note SET text = 'c' WHERE id = 1; \
         DELETE FROM note WHERE id = 2; CREATE TEMPORARY TABLE draft (id int)",
    )
    .await
    .unwrap();

    assert_eq!(ask(&app, "SELECT string_agg(text, '') FROM note").await, "c");
    for sql in [
        "CREATE TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "DROP TABLE note",
        "TRUNCATE note",
        "SET ROLE journal_owner",
        "ALTER ROLE journal_check PASSWORD 'mine'",
    ] {
        assert_eq!(refused(&app, sql).await, SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
    }
}

#[tokio::test]
async fn what_a_journal_with_owner_rights_makes_belongs_to_the_owner_until_the_grant_is_narrowed() {
    let pod = made(OWNER);
    let running = pod.run();
    let app = pod.connected("journal_app_a", "journal_app_a-1", "journal").await;
    app.batch_execute("CREATE TABLE note (text text); INSERT INTO note VALUES ('kept')").await.unwrap();
    assert_eq!(ask(&app, "SELECT tableowner FROM pg_tables WHERE tablename = 'note'").await, "journal_owner");
    running.end();

    pod.write_roles(DATA_ONLY, &passwords(1));
    assert_eq!(pod.init(&[]).message["outcome"], "RolesApplied");

    let _running = pod.run();
    let app = pod.connected("journal_app_a", "journal_app_a-1", "journal").await;
    assert_eq!(ask(&app, "SELECT text FROM note").await, "kept");
    assert_eq!(refused(&app, "CREATE TABLE mine (id int)").await, SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(refused(&app, "DROP TABLE note").await, SqlState::INSUFFICIENT_PRIVILEGE);
}

#[tokio::test]
async fn checks_read_everything_and_write_nothing() {
    let pod = made(DATA_ONLY);
    let _running = pod.run();
    let owner = pod.connected("journal_owner", "journal_owner-1", "journal").await;
    owner
        .batch_execute("CREATE TABLE note (text text); INSERT INTO note VALUES ('a'); CREATE SCHEMA other; CREATE TABLE other.note (text text)")
        .await
        .unwrap();

    let check = pod.connected("journal_check", "journal_check-1", "journal").await;

    assert_eq!(ask(&check, "SELECT count(*) FROM note").await, "1");
    assert_eq!(ask(&check, "SELECT count(*) FROM other.note").await, "0");
    assert_eq!(ask(&check, "current_setting('search_path')").await, "pg_catalog, public, pg_temp");
    assert_eq!(refused(&check, "INSERT INTO note VALUES ('b')").await, SqlState::READ_ONLY_SQL_TRANSACTION);
    check.batch_execute("SET default_transaction_read_only = off").await.unwrap();
    for sql in [
        "INSERT INTO note VALUES ('b')",
        "CREATE TABLE mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
    ] {
        assert_eq!(refused(&check, sql).await, SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
    }
}

#[tokio::test]
async fn replication_takes_a_base_backup_and_writes_nothing_but_the_sentinel() {
    let pod = made(DATA_ONLY);
    let _running = pod.run();
    pod.connected("journal_owner", "journal_owner-1", "journal").await;

    let backup = |user: &str| {
        let mut command = pod.command("/usr/lib/postgresql/17/bin/pg_basebackup");
        command.args(["--host=/valv/run", "--port", &pod.port.to_string(), "--pgdata=-", "--format=tar"]);
        command.args(["--wal-method=none", "--checkpoint=fast", "--username", user]);
        command.env("PGPASSWORD", format!("{user}-1")).output().unwrap()
    };

    let taken = backup("journal_replication");
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    assert!(taken.stdout.len() > 1 << 20);
    assert!(!backup("journal_owner").status.success());
    for database in ["postgres", "template1"] {
        let entered = pod.connect("journal_replication", "journal_replication-1", database).await;
        let Err(error) = entered else { panic!("entered {database}") };
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{error:?}");
    }
    let owner = pod.connected("journal_owner", "journal_owner-1", "journal").await;
    owner.batch_execute("CREATE TABLE note (text text)").await.unwrap();
    let entered = pod.connected("journal_replication", "journal_replication-1", "journal").await;
    entered
        .batch_execute("INSERT INTO valv.sentinel VALUES ('slot', 'nonce', now()); DELETE FROM valv.sentinel")
        .await
        .unwrap();
    for sql in [
        "SELECT FROM public.note",
        "CREATE TABLE public.mine (id int)",
        "CREATE TABLE valv.mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "DROP TABLE valv.sentinel",
        "TRUNCATE valv.sentinel",
        "UPDATE valv.sentinel SET nonce = 'another'",
    ] {
        assert_eq!(refused(&entered, sql).await, SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
    }
    for sql in ["INSERT INTO valv.sentinel VALUES ('slot', 'forged', now())", "DROP SCHEMA valv CASCADE"] {
        assert_eq!(refused(&owner, sql).await, SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
    }
}

#[tokio::test]
async fn only_the_journal_s_roles_enter_its_database_and_nobody_enters_another() {
    let pod = made(DATA_ONLY);
    let _running = pod.run();
    pod.connected("valv_roles", "valv_roles-1", "journal").await;

    for role in Role::ALL {
        for database in ["postgres", "template1"] {
            let entered = pod.connect(role.name(), &format!("{role}-1"), database).await;
            assert_eq!(
                entered.err().unwrap().code(),
                Some(&SqlState::INSUFFICIENT_PRIVILEGE),
                "{role} {database}"
            );
        }
    }
}

#[tokio::test]
async fn the_role_that_sets_passwords_sets_those_of_the_others_and_reads_nothing() {
    let pod = made(DATA_ONLY);
    let _running = pod.run();
    let owner = pod.connected("journal_owner", "journal_owner-1", "journal").await;
    owner.batch_execute("CREATE TABLE note (text text)").await.unwrap();

    let roles = pod.connected("valv_roles", "valv_roles-1", "journal").await;

    for role in ["journal_owner", "journal_app_a", "journal_app_b", "journal_replication", "journal_check"] {
        roles.batch_execute(&format!("ALTER ROLE {role} LOGIN PASSWORD 'another'")).await.expect(role);
    }
    for sql in [
        "SELECT FROM public.note",
        "SELECT FROM pg_authid",
        "SET ROLE journal_owner",
        "ALTER ROLE postgres PASSWORD 'mine'",
        "ALTER ROLE journal_check SUPERUSER",
        "ALTER ROLE valv_roles SUPERUSER",
        "GRANT pg_read_all_data TO valv_roles",
        "SET log_statement = 'all'",
    ] {
        assert_eq!(refused(&roles, sql).await, SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
    }
}

#[tokio::test]
async fn a_database_that_was_half_made_is_made_again() {
    let pod = Pod::new();
    pod.write_roles(DATA_ONLY, &passwords(1));
    let while_initdb = pod.volume().join("pgdata.new/PG_VERSION");
    let while_roles = pod.root().join("valv/run/valv-temporary-server/.s.PGSQL.5432");

    for moment in [while_initdb, while_roles] {
        let started = pod.start_init(&[]);
        eventually("the moment to kill", async || moment.exists().then_some(())).await;
        started.kill();
        assert!(pod.volume().join("pgdata.new").exists());
        assert!(!pod.volume().join("pgdata").exists());
    }
    let made = pod.init(&[]);

    assert_eq!(made.message["outcome"], "Created", "{made:?}");
    assert!(!pod.volume().join("pgdata.new").exists());
    let _running = pod.run();
    pod.connected("journal_app_a", "journal_app_a-1", "journal").await;
}

#[tokio::test]
async fn a_pod_that_ends_while_its_database_is_made_leaves_it_to_the_next() {
    let pod = Pod::new();
    pod.write_roles(DATA_ONLY, &passwords(1));
    let initdb = pod.volume().join("pgdata.new/PG_VERSION");

    let started = pod.start_init(&[]);
    eventually("initdb", async || initdb.exists().then_some(())).await;
    started.terminate();
    let ended = started.finish();

    assert_eq!(ended.code, Some(1));
    assert!(ended.message["error"].as_str().unwrap().contains("interrupted"), "{ended:?}");
    assert_eq!(pod.init(&[]).message["outcome"], "Created");
}

#[tokio::test]
async fn a_database_that_exists_is_kept_and_its_roles_follow_the_roles_file() {
    let pod = made(DATA_ONLY);
    let running = pod.run();
    let owner = pod.connected("journal_owner", "journal_owner-1", "journal").await;
    owner.batch_execute("CREATE TABLE note (text text); INSERT INTO note VALUES ('kept')").await.unwrap();
    running.end();

    let unchanged = pod.init(&[]);
    let mut changed = passwords(2);
    changed.insert(Role::JournalAppB, None);
    pod.write_roles(DATA_ONLY, &changed);
    let applied = pod.init(&[]);
    let again = pod.init(&[]);

    assert_eq!(unchanged.message["outcome"], "Existing");
    assert_eq!(applied.message["outcome"], "RolesApplied", "{applied:?}");
    assert_eq!(again.message["outcome"], "Existing");
    assert!(!applied.log.contains("SCRAM-SHA-256$"), "{}", applied.log);
    let _running = pod.run();
    let app = pod.connected("journal_app_a", "journal_app_a-2", "journal").await;
    assert_eq!(ask(&app, "SELECT text FROM note").await, "kept");
    let old = pod.connect("journal_app_a", "journal_app_a-1", "journal").await;
    assert_eq!(old.err().unwrap().code(), Some(&SqlState::INVALID_PASSWORD));
    let superuser = pod.connected("postgres", "", "postgres").await;
    assert_eq!(ask(&superuser, CANNOT_LOG_IN).await, "journal_app_b");
}

#[tokio::test]
async fn a_database_that_was_killed_recovers_when_its_roles_are_set() {
    let pod = made(DATA_ONLY);
    let running = pod.run();
    let owner = pod.connected("journal_owner", "journal_owner-1", "journal").await;
    owner.batch_execute("CREATE TABLE note (text text); INSERT INTO note VALUES ('kept')").await.unwrap();
    running.kill();

    pod.write_roles(OWNER, &passwords(2));
    let applied = pod.init(&["--config-file", "/etc/valv/database/postgresql.conf"]);

    assert_eq!(applied.message["outcome"], "RolesApplied", "{applied:?}");
    let _running = pod.run();
    let app = pod.connected("journal_app_b", "journal_app_b-2", "journal").await;
    assert_eq!(ask(&app, "SELECT text FROM note").await, "kept");
}

#[tokio::test]
async fn what_the_owner_sets_for_the_database_does_not_keep_its_roles_from_being_set() {
    let pod = made(DATA_ONLY);
    let running = pod.run();
    let owner = pod.connected("journal_owner", "journal_owner-1", "journal").await;
    for setting in ["role = journal_owner", "default_transaction_read_only = on", "search_path = public"] {
        owner.batch_execute(&format!("ALTER DATABASE journal SET {setting}")).await.unwrap();
    }
    running.end();

    pod.write_roles(DATA_ONLY, &passwords(2));

    assert_eq!(pod.init(&[]).message["outcome"], "RolesApplied");
}

#[test]
fn an_empty_volume_is_refused_where_the_tenant_had_a_database() {
    let pod = Pod::new();
    pod.write_roles(DATA_ONLY, &passwords(1));

    let by_flag = pod.init(&["--expect-system-identifier", "7571234567890123456"]);
    let by_environment = pod.init_expecting("7571234567890123456");

    for refused in [by_flag, by_environment] {
        assert_eq!(refused.code, Some(1));
        let error = refused.message["error"].as_str().unwrap();
        assert!(error.contains("is empty") && error.contains("7571234567890123456"), "{error}");
        assert!(!pod.volume().join("pgdata").exists() && !pod.volume().join("pgdata.new").exists());
    }
}

#[test]
fn another_tenant_s_volume_is_refused() {
    let pod = Pod::new();
    pod.write_roles(DATA_ONLY, &passwords(1));
    let made = pod.init(&[]);
    let identifier = made.message["systemIdentifier"].as_str().unwrap();

    let same = pod.init(&["--expect-system-identifier", identifier]);
    let other = pod.init(&["--expect-system-identifier", "7571234567890123456"]);

    assert_eq!(same.message["outcome"], "Existing");
    assert_eq!(other.code, Some(1));
    assert!(other.message["error"].as_str().unwrap().contains(identifier));
}

#[test]
fn a_database_of_another_major_is_refused_and_left_alone() {
    let pod = made(DATA_ONLY);
    let file = pod.volume().join("pgdata/PG_VERSION");
    fs::write(&file, "16\n").unwrap();

    let refused = pod.init(&[]);

    assert_eq!(refused.code, Some(1));
    assert!(refused.message["error"].as_str().unwrap().contains("is PostgreSQL 16"), "{refused:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "16\n");
}

#[test]
fn an_image_of_another_major_is_refused() {
    let pod = Pod::new();
    pod.write_roles(DATA_ONLY, &passwords(1));

    let refused = pod.init(&["--major", "18", "--programs", "/usr/lib/postgresql/17/bin"]);

    assert_eq!(refused.code, Some(1));
    assert!(refused.message["error"].as_str().unwrap().contains("the tenant runs 18"), "{refused:?}");
}

#[test]
fn the_roles_of_a_database_in_recovery_are_not_touched() {
    let pod = made(DATA_ONLY);
    pod.write_roles(DATA_ONLY, &passwords(2));
    fs::write(pod.volume().join("pgdata/recovery.signal"), "").unwrap();

    let refused = pod.init(&[]);

    assert_eq!(refused.code, Some(1));
    assert!(refused.message["error"].as_str().unwrap().contains("recovery.signal"), "{refused:?}");
}

#[test]
fn an_empty_database_is_not_made_beside_the_journal_s() {
    let pod = made(DATA_ONLY);
    let text = fs::read_to_string(pod.roles_file()).unwrap();
    fs::write(pod.roles_file(), text.replace("\"database\":\"journal\"", "\"database\":\"jurnal\"")).unwrap();

    let refused = pod.init(&[]);

    assert_eq!(refused.code, Some(1));
    assert!(refused.message["error"].as_str().unwrap().contains("no database \"jurnal\""), "{refused:?}");
}

#[tokio::test]
async fn the_end_of_the_pod_ends_the_database_cleanly() {
    let pod = made(DATA_ONLY);
    let running = pod.run();
    let _session = pod.connected("journal_app_a", "journal_app_a-1", "journal").await;

    running.terminate();
    let ended = running.finish();

    assert_eq!(ended.code, Some(0), "{ended:?}");
    let mut control = pod.command("/usr/lib/postgresql/17/bin/pg_controldata");
    let control = control.arg("/var/lib/postgresql/data/pgdata").output().unwrap();
    let control = String::from_utf8(control.stdout).unwrap();
    assert!(control.lines().any(|line| line.ends_with("shut down")), "{control}");
}

#[tokio::test]
async fn a_database_that_dies_ends_the_agent_with_its_status() {
    let pod = made(DATA_ONLY);
    let running = pod.run();
    pod.connected("journal_app_a", "journal_app_a-1", "journal").await;

    let postmaster = fs::read_to_string(pod.volume().join("pgdata/postmaster.pid")).unwrap();
    running.signal("KILL", postmaster.lines().next().unwrap());

    assert_eq!(running.finish().code, Some(137));
}

#[tokio::test]
async fn a_pid_file_that_a_killed_pod_left_does_not_keep_the_database_from_starting() {
    let pod = made(DATA_ONLY);
    let running = pod.run();
    pod.connected("journal_app_a", "journal_app_a-1", "journal").await;
    running.kill();
    // In the next pod this is a process that lives, which is what PostgreSQL asks.
    let path = pod.volume().join("pgdata/postmaster.pid");
    let left = fs::read_to_string(&path).unwrap();
    let (_, rest) = left.split_once('\n').unwrap();
    fs::write(&path, format!("2\n{rest}")).unwrap();

    let _running = pod.run();

    pod.connected("journal_app_a", "journal_app_a-1", "journal").await;
}

#[tokio::test]
async fn a_second_pod_does_not_touch_a_volume_in_use() {
    let pod = made(DATA_ONLY);
    let running = pod.run();
    let session = pod.connected("journal_app_a", "journal_app_a-1", "journal").await;

    let init = pod.init(&[]);
    let second = pod.run().finish();

    assert_eq!(init.code, Some(1));
    assert!(init.message["error"].as_str().unwrap().contains("another process uses"), "{init:?}");
    assert_eq!(second.code, Some(1));
    assert_eq!(ask(&session, "SELECT 1").await, "1");
    running.terminate();
    assert_eq!(running.finish().code, Some(0));
}

#[tokio::test]
async fn processes_that_nobody_else_buries_are_buried() {
    let pod = made(DATA_ONLY);
    let running = pod.run();
    pod.connected("journal_app_a", "journal_app_a-1", "journal").await;
    let agent = running.agent();

    let orphan = Command::new("nsenter")
        .args(["--target", &agent.to_string(), "--pid", "sh", "-c", "sleep 1 & exit 0"])
        .status()
        .unwrap();
    assert!(orphan.success());
    eventually("the orphan", async || {
        pod::children(agent).iter().any(|(name, _)| name == "sleep").then_some(())
    })
    .await;
    eventually("its burial", async || {
        pod::children(agent).iter().all(|(name, _)| name != "sleep").then_some(())
    })
    .await;

    assert!(pod::children(agent).iter().any(|(name, state)| name == "postgres" && *state != 'Z'));
    pod.connected("journal_app_a", "journal_app_a-1", "journal").await;
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart() {
    let pod = made(DATA_ONLY);
    let _running = pod.run();
    let session = pod.connected("journal_app_a", "journal_app_a-1", "journal").await;
    let next = Authority::new();
    assert!(pod.connect_tls("journal_app_a", "journal_app_a-1", &pod.authority).await.is_ok());
    assert!(pod.connect_tls("journal_app_a", "journal_app_a-1", &next).await.is_err());

    pod.write_tls(&next);

    eventually("the new certificate", async || {
        pod.connect_tls("journal_app_a", "journal_app_a-1", &next).await.ok()
    })
    .await;
    assert!(pod.connect_tls("journal_app_a", "journal_app_a-1", &pod.authority).await.is_err());
    assert_eq!(ask(&session, "SELECT 1").await, "1");
}

#[tokio::test]
async fn passwords_are_changed_under_a_living_session() {
    let pod = made(DATA_ONLY);
    let running = pod.run();
    let session = pod.connected("journal_app_a", "journal_app_a-1", "journal").await;
    let mut changed = passwords(2);
    changed.insert(Role::JournalAppB, None);
    pod.write_roles(DATA_ONLY, &changed);

    let applied = pod.rotate(&["valv_roles-2", "valv_roles-1"], &pod.authority, "30s");
    let again = pod.rotate(&["valv_roles-2", "valv_roles-1"], &pod.authority, "30s");

    for done in [&applied, &again] {
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(done.message["outcome"], "RolesApplied");
        assert!(done.message["version"].as_str().unwrap().starts_with("17."));
    }
    assert_eq!(ask(&session, "SELECT current_user").await, "journal_app_a");
    pod.connected("journal_app_a", "journal_app_a-2", "journal").await;
    let old = pod.connect("journal_app_a", "journal_app_a-1", "journal").await;
    assert_eq!(old.err().unwrap().code(), Some(&SqlState::INVALID_PASSWORD));
    let superuser = pod.connected("postgres", "", "postgres").await;
    assert_eq!(ask(&superuser, CANNOT_LOG_IN).await, "journal_app_b");

    running.terminate();
    let ended = running.finish();
    // The server logs every statement, and those that fail, but not these.
    assert!(ended.log.contains("SELECT (SELECT current_user)"), "{}", ended.log);
    assert!(!ended.log.contains("SCRAM-SHA-256$"), "{}", ended.log);
}

#[tokio::test]
async fn a_password_that_is_not_right_is_told_at_once() {
    let pod = made(DATA_ONLY);
    let _running = pod.run();
    pod.connected("valv_roles", "valv_roles-1", "journal").await;

    let refused = pod.rotate(&["wrong", "also-wrong"], &pod.authority, "10m");

    assert_eq!(refused.code, Some(1));
    assert!(
        refused.message["error"].as_str().unwrap().contains("accepts none of the passwords"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_server_that_somebody_else_vouches_for_is_not_told_anything() {
    let pod = made(DATA_ONLY);
    let _running = pod.run();
    pod.connected("valv_roles", "valv_roles-1", "journal").await;

    let refused = pod.rotate(&["valv_roles-1"], &Authority::new(), "1s");

    assert_eq!(refused.code, Some(1));
    assert!(refused.message["error"].as_str().unwrap().contains("certificate"), "{refused:?}");
}

#[test]
fn the_program_is_installed_whole_and_runnable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("valv");

    let status =
        Command::new(env!("CARGO_BIN_EXE_valv")).args(["agent", "install"]).arg(&path).status().unwrap();

    assert!(status.success());
    assert_eq!(fs::read(&path).unwrap(), fs::read(env!("CARGO_BIN_EXE_valv")).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
