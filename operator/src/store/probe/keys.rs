//! Where a probe puts its objects.
//!
//! # Shape
//! `v1/.probe/data/<second>-<8 hex digits>/<name>`, and the same below `commits`, `keys` and `records`; to find out for whom
//! the writer's credentials are, `v1/.probe-scope/data/<…>/<name>`. An archive id begins with a letter or a digit, so none of these
//! is an archive's; and a policy that lets an identity write in any archive lets it write here.

use jiff::Timestamp;

/// All that probes put begins with this, once the format's folder is there.
pub const ALL: &str = "v1/.probe";

/// How long what another probe put is left alone: it may not have ended. Longer than any takes, and than its lock.
const ALONE_SECONDS: i64 = 3600;

/// One probe's own folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run(String);

impl Run {
    /// The folder of a probe that began at `now`. `random` keeps two apart.
    pub fn new(now: Timestamp, random: u32) -> Self {
        Self(format!("{}-{random:08x}", now.as_second()))
    }

    /// Where the writer may put.
    pub fn data(&self, name: &str) -> String {
        format!("{ALL}/data/{}/{name}", self.0)
    }

    /// Where the committer may put.
    pub fn commit(&self, name: &str) -> String {
        format!("{ALL}/commits/{}/{name}", self.0)
    }

    /// Where the committer puts key challenges, and the writer must not.
    pub fn key(&self, name: &str) -> String {
        format!("{ALL}/keys/{}/{name}", self.0)
    }

    /// Where the committer puts records, and the writer must not.
    pub fn record(&self, name: &str) -> String {
        format!("{ALL}/records/{}/{name}", self.0)
    }

    /// Where the writer may put if it may in every archive.
    pub fn scope(&self, name: &str) -> String {
        format!("{ALL}-scope/data/{}/{name}", self.0)
    }

    /// Its folders.
    pub fn folders(&self) -> [String; 5] {
        [self.data(""), self.commit(""), self.key(""), self.record(""), self.scope("")]
    }

    /// Whether this probe put `key`.
    pub fn owns(&self, key: &str) -> bool {
        folder(key) == Some(&self.0)
    }
}

/// Whether a probe put `key` long enough before `now`.
pub fn is_old(key: &str, now: Timestamp) -> bool {
    let begun =
        folder(key).and_then(|folder| folder.split_once('-')).and_then(|(begun, _)| begun.parse().ok());
    begun.is_some_and(|begun: i64| begun.saturating_add(ALONE_SECONDS) < now.as_second())
}

/// The folder of the probe that put `key`.
fn folder(key: &str) -> Option<&str> {
    let mut pieces = key.split('/');
    match (pieces.next(), pieces.next(), pieces.next(), pieces.next(), pieces.next(), pieces.next()) {
        (
            Some("v1"),
            Some(".probe"),
            Some("data" | "commits" | "keys" | "records"),
            Some(run),
            Some(_),
            None,
        )
        | (Some("v1"), Some(".probe-scope"), Some("data"), Some(run), Some(_), None) => Some(run),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::layout::ArchiveId;

    #[test]
    fn no_archive_can_have_the_name_of_a_probe_s_folder() {
        for name in [".probe", ".probe-scope"] {
            assert!(name.parse::<ArchiveId>().is_err());
        }
    }

    #[test]
    fn a_probe_knows_its_own_and_leaves_what_is_young_or_no_probe_s() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let later = Timestamp::from_second(1_800_003_601).unwrap();
        let run = Run::new(now, 7);

        for key in [run.data("a"), run.commit("a"), run.key("a"), run.record("a"), run.scope("a")] {
            assert!(key.starts_with(ALL) && run.owns(&key) && !Run::new(now, 8).owns(&key));
            assert!(is_old(&key, later) && !is_old(&key, now), "{key}");
        }
        for key in ["v1/ada/data/1-1/a", "v1/.probe/data/a", "v1/.probe/data/1-1/a/b", "v1/.probe/wal/1-1/a"]
        {
            assert!(!run.owns(key) && !is_old(key, later), "{key}");
        }
    }
}
