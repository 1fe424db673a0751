//! Somebody who keeps writing notes while something else happens, and counts what fails.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::journal::{JournalClient, Keeping};

/// Between two notes: many enough to meet every moment of a change, few enough for two processors.
const PAUSE: Duration = Duration::from_millis(50);

/// How often the trusted authorities are read again, as a client on another machine would.
const TRUST_AGAIN: Duration = Duration::from_secs(1);

/// Two clients that write all the time: one keeps its connections, one opens a new one for each note.
pub struct Writer {
    journal: JournalClient,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Report>,
    before: usize,
    begun: Instant,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Notes that the journal said it took.
    pub written: usize,
    /// Requests that failed, with why.
    pub failed: Vec<String>,
    /// The longest time that one took.
    pub slowest: Duration,
    /// How long all of it went on.
    pub lasted: Duration,
    /// Whether some had to fail, because the way to the journal ends with its pod.
    pub forwarded: bool,
}

impl Writer {
    /// Begins to write.
    pub async fn start(journal: &JournalClient) -> Result<Self> {
        let (stop, asked) = watch::channel(false);
        let patient = journal.patient().await?;
        let before = journal.read().await?.len();
        let mut tasks = JoinSet::new();
        for keeping in [Keeping::Connections, Keeping::Nothing] {
            tasks.spawn(write(journal.keeping(keeping)?, patient, keeping, asked.clone()));
        }
        Ok(Self { journal: journal.clone(), stop, tasks, before, begun: Instant::now() })
    }

    /// Ends, and checks that every note that was taken is there.
    pub async fn stop(mut self) -> Result<Report> {
        self.stop.send_replace(true);
        let mut all = Report { forwarded: self.journal.is_forwarded(), ..Report::default() };
        while let Some(report) = self.tasks.join_next().await {
            let report = report?;
            all.written += report.written;
            all.failed.extend(report.failed);
            all.slowest = all.slowest.max(report.slowest);
        }
        all.lasted = self.begun.elapsed();
        self.journal.read_authorities_again().await?;
        let there = self.journal.read().await.context("failed to read what was written")?.len() - self.before;
        ensure!(there >= all.written, "{} notes were taken, {there} are there", all.written);
        Ok(all)
    }
}

async fn write(
    mut journal: JournalClient,
    patient: i64,
    keeping: Keeping,
    asked: watch::Receiver<bool>,
) -> Report {
    let mut report = Report::default();
    let mut trusted = Instant::now();
    let begun = Instant::now();
    while !*asked.borrow() {
        if trusted.elapsed() > TRUST_AGAIN {
            // The API server's trouble is not the journal's.
            let _ = journal.read_authorities_again().await;
            trusted = Instant::now();
        }
        let sent = Instant::now();
        match journal.write_of(patient, "Patienten mår bra.").await {
            Ok(_) => report.written += 1,
            Err(error) => {
                let at = begun.elapsed().as_secs_f32();
                report.failed.push(format!("after {at:.1} s, keeping {keeping:?}: {error:#}"));
            }
        }
        report.slowest = report.slowest.max(sent.elapsed());
        sleep(PAUSE).await;
    }
    report
}

impl Report {
    /// Fails if one request failed: says which and why. Through a port-forward nothing can be said.
    pub fn ensure_nothing_failed(&self) -> Result<()> {
        if self.forwarded {
            return Ok(());
        }
        let shown: Vec<_> = self.failed.iter().take(5).cloned().collect();
        ensure!(
            self.failed.is_empty() && self.written > 0,
            "{} of {} requests failed: {}",
            self.failed.len(),
            self.failed.len() + self.written,
            shown.join("; ")
        );
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} requests in {:.0} s, {} failed, the slowest took {} ms",
            self.written + self.failed.len(),
            self.lasted.as_secs_f32(),
            self.failed.len(),
            self.slowest.as_millis()
        )?;
        if self.forwarded {
            write!(formatter, " (through a port-forward, which ends with its pod: failures do not count)")?;
        }
        Ok(())
    }
}
