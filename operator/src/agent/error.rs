//! How the agent fails.

use super::{backup, copy, init, install, judge, restore, rotate, run, verify};

/// Why a command of the agent stopped. Says what was being done; the sources say why it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `agent install`.
    #[error("failed to install the agent")]
    Install(#[source] install::Error),

    /// `agent database init`.
    #[error("failed to prepare the database")]
    Init(#[source] init::Error),

    /// `agent database run`.
    #[error("failed to run the database")]
    Run(#[source] run::Error),

    /// `agent database roles`.
    #[error("failed to change the database's roles")]
    Roles(#[source] rotate::Error),

    /// `agent backup`.
    #[error("failed to back up")]
    Backup(#[source] backup::Error),

    /// `agent verify`.
    #[error("failed to verify the backup")]
    Verify(#[source] verify::Error),

    /// `agent restore`.
    #[error("failed to restore")]
    Restore(#[source] restore::Error),

    /// `agent judge`.
    #[error("failed to judge what was restored")]
    Judge(#[source] judge::Error),
    /// `agent copy`.
    #[error("failed to copy the backup")]
    Copy(#[source] copy::Error),
}

impl Error {
    /// What the process should end with: PostgreSQL's own status where it was PostgreSQL that ended, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Run(run::Error::Ended { code }) => *code,
            Self::Install(_)
            | Self::Init(_)
            | Self::Run(_)
            | Self::Roles(_)
            | Self::Backup(_)
            | Self::Verify(_)
            | Self::Restore(_)
            | Self::Judge(_)
            | Self::Copy(_) => 1,
        }
    }
}
