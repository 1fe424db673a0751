//! How far an agent is, from the last lines of its log. Pure. For display only: nothing is decided by it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use valv_crds::backup::{Progress, Stage};

use super::attempt::time;

/// Between two looks at a log, at least: the agent says no more often how far it is.
const EVERY_SECONDS: i64 = 5;

/// Over how long a rate is taken.
const RATE_SECONDS: i64 = 60;

/// The most that is believed: 2^60 bytes.
const MOST: i64 = 1 << 60;

/// A line of `agent/pulse.rs`.
#[derive(Debug, Deserialize)]
struct Line {
    timestamp: Timestamp,
    message: String,
    stage: String,
    bytes: u64,
    total_bytes: u64,
    segments: u64,
}

/// Whether it is time to look again, after `told`, which stands in the status.
pub fn is_due(told: Option<&Progress>, now: Timestamp) -> bool {
    let told = told.and_then(|told| told.at.as_ref());
    told.is_none_or(|told| now.as_second().saturating_sub(told.0.as_second()) >= EVERY_SECONDS)
}

/// What `log` says; absent: nothing.
pub fn of_log(log: &str, now: Timestamp) -> Option<Progress> {
    let lines: Vec<Line> = log
        .lines()
        .filter(|line| line.len() <= 4096)
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .filter(|line| {
            line.message == "progress"
                && line.timestamp <= now.saturating_add(jiff::SignedDuration::from_mins(1)).unwrap_or(now)
        })
        .collect();
    let newest = lines.last()?;
    let stage = match newest.stage.as_str() {
        "Waiting" => Stage::Waiting,
        "Database" => Stage::Database,
        "Attachments" => Stage::Attachments,
        "Tenant" => Stage::Tenant,
        "ReadingBack" => Stage::ReadingBack,
        _ => return None,
    };
    let number = |count: u64| i64::try_from(count).unwrap_or(MOST).min(MOST);
    let (bytes, total) = (number(newest.bytes), number(newest.total_bytes));
    let rate = lines
        .iter()
        .map(|line| (newest.timestamp.as_second() - line.timestamp.as_second(), number(line.bytes)))
        .filter(|(seconds, before)| (1..=RATE_SECONDS).contains(seconds) && *before <= bytes)
        .max_by_key(|(seconds, _)| *seconds)
        .map(|(seconds, before)| (bytes - before) / seconds);
    let left = rate.filter(|rate| *rate > 0 && total > bytes).map(|rate| in_words((total - bytes) / rate));
    Some(Progress {
        stage,
        bytes,
        total_bytes: (total > 0).then_some(total),
        // Not 100 before it is over: the total is an estimate.
        percent: (total > 0).then(|| percent(bytes, total)),
        segment: Some(number(newest.segments)),
        bytes_per_second: rate,
        left,
        at: Some(Time(time(newest.timestamp).0)),
    })
}

fn percent(bytes: i64, total: i64) -> i32 {
    let share = i128::from(bytes) * 100 / i128::from(total);
    i32::try_from(share.clamp(0, 99)).unwrap_or(99)
}

/// A length of time as people say it, to two places at most.
fn in_words(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..360_000 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => "days".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: i64, bytes: u64) -> String {
        let time = Timestamp::from_second(1_800_000_000 + second).unwrap();
        format!(
            r#"{{"timestamp":"{time}","level":"INFO","message":"progress","target":"valv","stage":"Database","bytes":{bytes},"total_bytes":10000,"segments":2}}"#
        )
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_100).unwrap()
    }

    #[test]
    fn the_newest_line_is_how_far_it_is_and_the_lines_of_a_minute_are_how_fast() {
        let log = [line(0, 0), line(40, 1000), "{nonsense".to_owned(), line(100, 4000)].join("\n");

        let progress = of_log(&log, now()).unwrap();

        assert_eq!((progress.stage, progress.bytes, progress.percent), (Stage::Database, 4000, Some(40)));
        assert_eq!(progress.bytes_per_second, Some(50));
        assert_eq!(progress.left.as_deref(), Some("2m"));
        assert_eq!(progress.segment, Some(2));
    }

    #[test]
    fn what_cannot_be_is_bounded_or_not_believed() {
        let more_than_all = line(1, 99_999);
        let strange = line(1, 1).replace("Database", "Done");
        let tomorrow = line(86_400, 1);

        assert_eq!(of_log(&more_than_all, now()).unwrap().percent, Some(99));
        assert_eq!(of_log(&strange, now()), None);
        assert_eq!(of_log(&tomorrow, now()), None);
        assert_eq!(of_log("", now()), None);
    }

    #[test]
    fn a_length_of_time_is_said_in_two_places_at_most() {
        assert_eq!([5, 65, 3_700, 999_999].map(in_words), ["5s", "1m", "1h1m", "days"]);
    }
}
