//! How far a run has come, as log lines: JSON with `--log-format json`, which the operator reads.

use std::time::Duration;

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
pub async fn with_lines<T>(
    progress: watch::Receiver<Progress>,
    total_bytes: u64,
    stage: impl Fn(&Progress) -> Stage,
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

fn line(progress: Progress, total_bytes: u64, stage: &impl Fn(&Progress) -> Stage) {
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
