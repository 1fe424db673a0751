//! What the objects of a backup are called: from the `Backup`'s UID and numbers, never from its slot, which two may
//! share. Pure.

/// Digits of the UID that stand in names: 64 bits.
const DIGITS: usize = 16;

/// Which of an attempt's Jobs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// Its pod writes, in the tenant's namespace.
    Write {
        /// Which attempt.
        number: i32,
    },
    /// Its pod reads back, in the operator's namespace.
    ReadBack {
        /// Which attempt.
        number: i32,
        /// The how manieth reading.
        reading: i32,
    },
}

impl Part {
    /// Name of its Job, of its run file, and of its Secret if it has one.
    pub fn name(self, uid: &str) -> String {
        let digits: String = uid.chars().filter(char::is_ascii_alphanumeric).take(DIGITS).collect();
        let stem = digits.to_ascii_lowercase();
        match self {
            Self::Write { number } => format!("backup-{stem}-{number}"),
            Self::ReadBack { number, reading } => format!("verify-{stem}-{number}-{reading}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_backups_of_one_second_and_two_attempts_of_one_backup_share_no_name() {
        let (one, two) = ("0b0e7c1a-6f0e-4a67-9d0e-3a5d4c1b2a39", "1b0e7c1a-6f0e-4a67-9d0e-3a5d4c1b2a39");

        assert_eq!(Part::Write { number: 1 }.name(one), "backup-0b0e7c1a6f0e4a67-1");
        assert_eq!(Part::ReadBack { number: 1, reading: 2 }.name(one), "verify-0b0e7c1a6f0e4a67-1-2");
        assert_ne!(Part::Write { number: 1 }.name(one), Part::Write { number: 1 }.name(two));
        assert_ne!(Part::Write { number: 1 }.name(one), Part::Write { number: 2 }.name(one));
    }
}
