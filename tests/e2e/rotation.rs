//! New certificates and new passwords, while users work.

use anyhow::{Result, ensure};
use harness::probe::Probe;
use harness::{Tenant, Test, Writer, run};
use serde_json::json;
use tokio::time::Instant;
use valv_crds::condition::{ConditionType, Reason};

#[test]
fn a_new_certificate_authority_fails_no_request() {
    run(async |test| {
        let tenant = test.tenant("authority")?;
        tenant.up().await?;
        let mut journal = tenant.journal().await?;
        let before = tenant.secret("journal-tls", "tls.crt").await?;
        let old = tenant.secret("authority-1", "tls.crt").await?;
        let writer = Writer::start(&journal).await?;

        let begun = Instant::now();
        tenant.edit("certificates: {rotation: {generation: 2}}").await?;
        tenant.shows("/status/certificates/generation", &json!(2)).await?;
        tenant.says(ConditionType::CertificatesValid, "True", Reason::AsAsked).await?;
        tenant.ready().await?;
        let took = begun.elapsed();
        let new = tenant.secret("authority-2", "tls.crt").await?;
        // The kubelet hands out a changed Secret within about a minute.
        served_by(&journal.trusting_only(&new)?).await?;

        let report = writer.stop().await?;
        test.measured(format_args!("signed anew after {:.0} s; {report}", took.as_secs_f32()));
        report.ensure_nothing_failed()?;
        ensure!(tenant.secret("journal-tls", "tls.crt").await? != before);
        ensure!(journal.trusting_only(&old)?.read().await.is_err(), "the old authority still vouches for it");
        journal.read_authorities_again().await?;
        journal.read().await.map(drop)
    });
}

#[test]
fn new_passwords_fail_no_request_and_lock_the_old_ones_out() {
    run(async |test| {
        let tenant = test.tenant("passwords")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        let old = Login::of_journal(&tenant).await?;
        ensure!(old.answer(test, &tenant).await?.contains("let in"), "the probe cannot tell who is let in");
        let writer = Writer::start(&journal).await?;

        let begun = Instant::now();
        tenant.edit("database: {passwordRotation: {generation: 2}}").await?;
        tenant.shows("/status/database/passwordGeneration", &json!(2)).await?;
        tenant.ready().await?;
        let took = begun.elapsed();

        let report = writer.stop().await?;
        test.measured(format_args!("in use everywhere after {:.0} s; {report}", took.as_secs_f32()));
        report.ensure_nothing_failed()?;
        let new = Login::of_journal(&tenant).await?;
        ensure!(new.password != old.password && new.user != old.user, "the journal uses the same login");
        let answer = old.answer(test, &tenant).await?;
        ensure!(answer.contains("authentication failed") && !answer.contains("let in"), "{answer}");
        let answer = new.answer(test, &tenant).await?;
        ensure!(answer.contains("let in"), "{answer}");
        Ok(())
    });
}

/// Waits until the journal answers with a certificate that its client trusts.
async fn served_by(journal: &harness::JournalClient) -> Result<()> {
    journal.writes_again("Ny utfärdare.").await.map(drop)
}

/// A login of the database.
struct Login {
    user: String,
    password: String,
}

impl Login {
    /// The one that the journal uses.
    async fn of_journal(tenant: &Tenant) -> Result<Self> {
        Ok(Self {
            user: tenant.secret("journal-database", "user").await?,
            password: tenant.secret("journal-database", "password").await?,
        })
    }

    /// What the database says to it.
    async fn answer(&self, test: &Test, tenant: &Tenant) -> Result<String> {
        let probe = Probe::new(&tenant.namespace, test.world.image("postgres")?)
            .in_role("journal")
            .with_env("PGUSER", &self.user)
            .with_env("PGPASSWORD", &self.password)
            .with_env("PGHOST", &format!("database.{}.svc", tenant.namespace))
            .with_folder("authorities", "/trust");
        probe.run(&test.world.admin, LOG_IN).await
    }
}

/// Logs in over verified TLS.
const LOG_IN: &str = r#"
psql "dbname=journal sslmode=verify-full sslrootcert=/trust/ca.crt connect_timeout=10" \
    --no-psqlrc --tuples-only --command "SELECT 'let in'" 2>&1
true
"#;
