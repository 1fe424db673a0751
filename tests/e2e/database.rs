//! The database: what it promises, and what becomes of it when its pod dies.

use anyhow::ensure;
use harness::actor::Grace;
use harness::probe::Probe;
use harness::tenant::STEP;
use harness::{Seen, eventually, kind, run};
use tokio::time::Instant;
use valv_crds::condition::{ConditionType, Reason};

#[test]
fn a_note_survives_the_death_of_the_database_pod() {
    run(async |test| {
        let tenant = test.tenant("killed")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        journal.write("Före.").await?;

        let before = tenant.get(kind::POD, "database-0").await?;
        let begun = Instant::now();
        test.world.admin.delete(kind::POD, &tenant.namespace, "database-0", Grace::None).await?;
        // Until then a note may still get into the pod that goes.
        tenant.is_replaced(kind::POD, &before, STEP).await?;
        journal.writes_again("Efter.").await?;

        let took = begun.elapsed();
        let mut notes = journal.read().await?;
        // A note whose answer was lost is written again: it may be there twice.
        notes.dedup();
        ensure!(notes == ["Efter.", "Före."], "{notes:?}");
        test.measured(format_args!("a note is taken again after {:.1} s", took.as_secs_f32()));
        tenant.ready().await
    });
}

#[test]
fn the_database_checks_its_pages_and_keeps_what_replicas_need() {
    run(async |test| {
        let tenant = test.tenant("promised")?;
        tenant.up().await?;
        let probe = Probe::new(&tenant.namespace, test.world.image("postgres")?)
            .in_role("journal")
            .with_secret("PGUSER", "journal-database", "user")
            .with_secret("PGPASSWORD", "journal-database", "password")
            .with_env("PGHOST", &format!("database.{}.svc", tenant.namespace))
            .with_env("PGSSLROOTCERT", "/trust/ca.crt")
            .with_folder("authorities", "/trust");

        let printed = probe.run(&test.world.admin, SETTINGS).await?;

        let settings: Vec<_> = printed.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        ensure!(settings == PROMISED, "{settings:?}");
        test.measured(settings.join(", "));
        Ok(())
    });
}

/// Asks the server, as the journal.
const SETTINGS: &str = r#"
psql "dbname=journal sslmode=verify-full connect_timeout=10" --no-psqlrc --tuples-only --no-align --command "
    SELECT name || ' ' || setting FROM pg_settings
    WHERE name IN ('data_checksums', 'fsync', 'full_page_writes', 'password_encryption', 'ssl', 'wal_level')
    ORDER BY name" 2>&1
"#;

/// What it is to answer.
const PROMISED: [&str; 6] = [
    "data_checksums on",
    "fsync on",
    "full_page_writes on",
    "password_encryption scram-sha-256",
    "ssl on",
    "wal_level replica",
];

#[test]
fn a_database_that_found_no_node_starts_when_its_spec_is_corrected() {
    run(async |test| {
        let tenant = test.tenant("oversized")?.with("database: {resources: {requests: {memory: 500Gi}}}")?;
        tenant.apply().await?;

        let message = eventually("the condition names the memory", STEP, async || {
            let said = tenant.condition(ConditionType::DatabaseReady).await?.unwrap_or_default();
            let names_it = said.reason == format!("{:?}", Reason::DatabaseUnavailable)
                && said.message.contains("memory");
            Ok(if names_it { Seen::Yes(said.message) } else { Seen::NotYet(said.message) })
        })
        .await?;
        tenant.edit("database: {resources: null}").await?;
        let begun = Instant::now();
        tenant.ready().await?;

        test.measured(format_args!(
            "{message}; ready {:.0} s after it was corrected",
            begun.elapsed().as_secs_f32()
        ));
        Ok(())
    });
}
