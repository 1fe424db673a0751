//! How far a run has come, as log lines: JSON with `--log-format json`, which the operator reads.

use std::{fmt::Debug, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::info;
use valv_crds::backup::Stage;

use crate::archive::{layout::Part, progress::Progress};

/// Time between two lines at least.
const EVERY: Duration = Duration::from_secs(5);

/// What `work` comes to. Meanwhile, a log line from time to time says how far it is: `stage`, `bytes` of the
/// tar streams, `total_bytes` as far as they can be foreseen, `segments`.
pub async fn with_lines<T, S: Debug>(
    progress: watch::Receiver<Progress>,
    total_bytes: u64,
    stage: impl Fn(&Progress) -> S,
    work: impl Future<Output = T>,
) -> T {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                line(*progress.borrow(), total_bytes, &stage);
                return done;
            }
            _ = ticks.tick() => line(*progress.borrow(), total_bytes, &stage),
        }
    }
}

fn line<S: Debug>(progress: Progress, total_bytes: u64, stage: &impl Fn(&Progress) -> S) {
    info!(
        stage = ?stage(&progress),
        bytes = progress.plain_bytes,
        total_bytes = total_bytes.max(progress.plain_bytes),
        segments = progress.segments,
        "progress"
    );
}

/// The stage of a backup that writes a part.
pub fn stage_of(progress: &Progress) -> Stage {
    match progress.part {
        None => Stage::Waiting,
        Some(Part::Database) => Stage::Database,
        Some(Part::Attachments) => Stage::Attachments,
        Some(Part::Tenant) => Stage::Tenant,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;
    use tracing::info_span;

    use super::*;
    use crate::{backup::progress::of_log, log::tests::capture};

    /// Long after the lines: which are of now, for the log has a clock of its own.
    const LATER: &str = "2999-01-01T00:00:00Z";

    fn progress(part: Option<Part>, segments: u64, plain_bytes: u64) -> Progress {
        Progress { part, segments, bytes: plain_bytes / 3, plain_bytes }
    }

    #[test]
    fn the_operator_reads_what_the_agent_logs_as_it_is_logged() {
        let now = LATER.parse().unwrap();
        for (part, stage) in [
            (None, Stage::Waiting),
            (Some(Part::Database), Stage::Database),
            (Some(Part::Attachments), Stage::Attachments),
            (Some(Part::Tenant), Stage::Tenant),
        ] {
            let (captured, _logging) = capture();
            // As the agent works: within a span, between lines of another kind.
            let _span = info_span!("backup", archive = "ada", backup.slot = "20261122T010000Z").entered();
            info!("wrote the sentinel");
            line(progress(part, 2, 4000), 10_000, &stage_of);
            info!(segments = 3, "copied");

            let read = of_log(&captured.text(), now).unwrap();

            assert_eq!((read.stage, read.bytes, read.segment), (stage, 4000, Some(2)));
            assert_eq!((read.total_bytes, read.percent), (Some(10_000), Some(40)));
            assert!(read.at.is_some());
        }
        let (captured, _logging) = capture();
        line(progress(Some(Part::Database), 1, 70), 0, &|_: &Progress| Stage::ReadingBack);
        let read = of_log(&captured.text(), now).unwrap();
        // More than was foreseen is all that is known of the whole.
        assert_eq!((read.stage, read.total_bytes), (Stage::ReadingBack, Some(70)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_comes_every_five_seconds_and_one_at_the_end() {
        let (captured, _logging) = capture();
        let sender = watch::Sender::new(progress(Some(Part::Database), 0, 0));

        let done = with_lines(sender.subscribe(), 10_000, stage_of, async {
            sleep(Duration::from_secs(7)).await;
            sender.send_replace(progress(Some(Part::Tenant), 5, 9000));
            sleep(Duration::from_secs(4)).await;
            "done"
        })
        .await;

        assert_eq!(done, "done");
        let text = captured.text();
        let stages: Vec<_> = text.lines().map(|line| line.contains(r#""stage":"Tenant""#)).collect();
        assert_eq!(stages, [false, false, true, true], "{text}");
    }
}
