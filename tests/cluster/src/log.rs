//! Logs: their last lines.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Enough for some dozen lines, however long the log.
const TAIL_BYTES: u64 = 16 * 1024;

/// The last `lines` lines of `log`, or nothing if it cannot be read.
pub fn tail(log: &Path, lines: usize) -> String {
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        file.read_to_end(&mut bytes)
    });
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The last lines of `log` under its path, to stand at the end of an error.
pub fn quote(log: &Path, lines: usize) -> String {
    let tail = tail(log, lines);
    if !log.exists() {
        format!("\n({} does not exist)", log.display())
    } else if tail.is_empty() {
        format!("\n({} is empty)", log.display())
    } else {
        format!("\n--- the end of {}\n{tail}\n---", log.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        let log = std::env::temp_dir().join(format!("valv-cluster-tail-{}", std::process::id()));
        std::fs::write(&log, "one\ntwo\nthree\n").unwrap();

        let tail = tail(&log, 2);

        std::fs::remove_file(&log).unwrap();
        assert_eq!(tail, "two\nthree");
    }

    #[test]
    fn a_log_that_does_not_exist_has_no_tail() {
        assert_eq!(tail(Path::new("/does/not/exist"), 5), "");
    }
}
