//! Who may do what in a bucket.
//!
//! Input: what the store can do. Output: its policy. Pure.
//!
//! `*` in a policy matches slashes too, so a pattern for `<prefix>/v1/<archive>/data/…` would also match
//! `v1/<archive>/commits/data/…`. Hence the denials: a key that looks like data and like a commit is
//! nobody's. A second pattern of each kind is for the empty prefix.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/example-policies-s3.html>

use serde_json::{Value, json};

use crate::store::{BUCKET, Identity, Protection};

/// Where agents write, below `v1/<archive>/`.
const DATA: [&str; 2] = ["data", "wal"];

/// Where the operator writes.
const COMMITS: [&str; 4] = ["commits", "keys", "ledger", "records"];

/// Stands in place of an archive where the users' rights are probed.
const PROBE: &str = ".probe";

/// The policy of the bucket.
pub fn policy(protection: Protection) -> Value {
    let locks = match protection {
        Protection::VersionsAndLocks => vec!["s3:PutObjectRetention"],
        Protection::None => vec![],
    };
    // A delete marker hides what it lies over, so where there are versions only versions are deleted.
    let delete = match protection {
        Protection::VersionsAndLocks => "s3:DeleteObjectVersion",
        Protection::None => "s3:DeleteObject",
    };
    let put = [vec!["s3:PutObject"], locks.clone()].concat();
    let read = ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention"];
    let list = ["s3:ListBucket", "s3:ListBucketVersions"];
    let describe = ["s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration"];
    let (data, commits, probe) = (in_archives(&DATA), in_archives(&COMMITS), anywhere(PROBE));
    let (bucket, objects) = (vec![BUCKET.to_owned()], vec![format!("{BUCKET}/*")]);
    let mut statements = vec![
        statement(Effect::Allow, Identity::Writer, &put, &[data.clone(), probe.clone()].concat()),
        statement(Effect::Deny, Identity::Writer, &put, &commits),
        statement(Effect::Allow, Identity::Committer, &put, &[commits, probe].concat()),
        statement(Effect::Deny, Identity::Committer, &["s3:PutObject"], &data),
        statement(Effect::Allow, Identity::Reader, &read, &objects),
        statement(Effect::Allow, Identity::Reader, &[list, describe].concat(), &bucket),
        statement(Effect::Allow, Identity::Janitor, &list, &bucket),
        statement(Effect::Allow, Identity::Janitor, &[delete], &objects),
    ];
    if !locks.is_empty() {
        // Retention may promote a backup: then the locks of its data are extended too.
        statements.push(statement(Effect::Allow, Identity::Committer, &locks, &objects));
    }
    json!({"Version": "2012-10-17", "Statement": statements})
}

#[derive(Clone, Copy, Debug)]
enum Effect {
    Allow,
    Deny,
}

fn statement(effect: Effect, who: Identity, actions: &[&str], resources: &[String]) -> Value {
    let resources: Vec<String> =
        resources.iter().map(|resource| format!("arn:aws:s3:::{resource}")).collect();
    json!({
        "Effect": format!("{effect:?}"),
        "Principal": {"AWS": [who.name()]},
        "Action": actions,
        "Resource": resources,
    })
}

fn in_archives(folders: &[&str]) -> Vec<String> {
    folders.iter().flat_map(|folder| anywhere(&format!("*/{folder}"))).collect()
}

/// Everything below `v1/<folder>/`, with any prefix and with none.
fn anywhere(folder: &str) -> Vec<String> {
    ["", "*/"].map(|prefix| format!("{BUCKET}/{prefix}v1/{folder}/*")).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The actions that a policy allows somebody, anywhere.
    fn allowed(protection: Protection, who: Identity) -> Vec<String> {
        let policy = policy(protection);
        let statements = policy["Statement"].as_array().unwrap();
        let his = statements.iter().filter(|statement| {
            statement["Effect"] == "Allow" && statement["Principal"]["AWS"] == json!([who.name()])
        });
        let actions = his.flat_map(|statement| statement["Action"].as_array().unwrap().clone());
        actions.map(|action| action.as_str().unwrap().trim_start_matches("s3:").to_owned()).collect()
    }

    #[test]
    fn nobody_can_put_a_delete_marker_where_there_are_versions() {
        for who in Identity::ALL {
            let actions = allowed(Protection::VersionsAndLocks, who);

            assert!(!actions.contains(&"DeleteObject".to_owned()), "{who:?}: {actions:?}");
        }
        assert!(allowed(Protection::None, Identity::Janitor).contains(&"DeleteObject".to_owned()));
    }

    #[test]
    fn nobody_may_do_two_of_write_read_and_delete() {
        for protection in [Protection::VersionsAndLocks, Protection::None] {
            for who in Identity::ALL {
                let actions = allowed(protection, who);
                let kinds = ["PutObject", "GetObject", "DeleteObject"];
                let may = kinds.iter().filter(|kind| actions.iter().any(|action| action.starts_with(*kind)));

                assert_eq!(may.count(), 1, "{who:?}: {actions:?}");
            }
        }
    }

    #[test]
    fn a_pattern_is_for_any_prefix_and_for_none() {
        assert_eq!(in_archives(&["data"]), ["valv-backups/v1/*/data/*", "valv-backups/*/v1/*/data/*"]);
    }
}
