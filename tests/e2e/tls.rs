//! Nothing is plaintext, and the superuser comes by no network.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::probe::Probe;
use harness::run;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[test]
fn the_journal_answers_nothing_in_plaintext() {
    run(async |test| {
        let tenant = test.tenant("plain")?;
        tenant.up().await?;
        let journal = tenant.journal().await?;

        let answer = plaintext(journal.address(), &tenant.host()).await?;

        ensure!(!answer.contains("HTTP/"), "the journal answered in plaintext: {answer}");
        // Positive control: the same listener answers over TLS.
        ensure!(journal.version().await? == "1.0.0");
        test.measured(format_args!("{} bytes came back, no HTTP among them", answer.len()));
        Ok(())
    });
}

#[test]
fn the_database_takes_no_plaintext_and_no_superuser() {
    run(async |test| {
        let tenant = test.tenant("encrypted")?;
        tenant.up().await?;
        let probe = Probe::new(&tenant.namespace, test.world.image("postgres")?)
            .in_role("journal")
            .with_secret("PGPASSWORD", "journal-database", "password")
            .with_secret("APP_USER", "journal-database", "user")
            .with_env("PGHOST", &format!("database.{}.svc", tenant.namespace))
            .with_env("PGCONNECT_TIMEOUT", "10")
            .with_env("PGSSLROOTCERT", "/trust/ca.crt")
            .with_folder("authorities", "/trust");

        let printed = probe.run(&test.world.admin, ATTEMPTS).await?;

        let says = |attempt: &str| {
            let lines = printed.lines().skip_while(|line| *line != format!("=== {attempt}")).skip(1);
            lines.take_while(|line| !line.starts_with("=== ")).collect::<Vec<_>>().join("\n")
        };
        ensure!(says("the journal over tls").contains("let in"), "no positive control: {printed}");
        for attempt in ["the journal in plaintext", "the superuser over tls", "the superuser in plaintext"] {
            let said = says(attempt);
            ensure!(said.contains("pg_hba.conf rejects connection"), "{attempt}: {said}");
            ensure!(!said.contains("let in"), "{attempt}: {said}");
        }
        ensure!(says("another database").contains("FATAL"), "{printed}");
        test.measured("one of five logins was let in");
        Ok(())
    });
}

/// Five logins, of which one is to be let in.
const ATTEMPTS: &str = r#"
attempt() {
    echo "=== $1"
    psql "$2" --no-psqlrc --tuples-only --command "SELECT 'let in'" 2>&1
}
attempt "the journal over tls" "user=$APP_USER dbname=journal sslmode=verify-full"
attempt "the journal in plaintext" "user=$APP_USER dbname=journal sslmode=disable"
attempt "the superuser over tls" "user=postgres dbname=postgres sslmode=verify-full"
attempt "the superuser in plaintext" "user=postgres dbname=postgres sslmode=disable"
attempt "another database" "user=$APP_USER dbname=postgres sslmode=verify-full"
echo "=== end"
"#;

/// What comes back to a request in plaintext.
async fn plaintext(address: std::net::SocketAddr, host: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET /readyz HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = vec![];
    // Whoever goes on waiting for TLS has said nothing either.
    let _ = timeout(Duration::from_secs(15), stream.read_to_end(&mut answer)).await;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
