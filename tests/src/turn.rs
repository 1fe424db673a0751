//! Turns: most tests run side by side, some alone.
//!
//! Among the tests of one process turns are fair. Another process on this machine that tests the same cluster
//! is waited for too.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static TURNS: RwLock<()> = RwLock::const_new(());

/// A turn, until it is dropped.
#[expect(dead_code, reason = "guards are held, not read")]
pub(crate) struct Turn {
    among_processes: File,
    among_tests: Guard,
}

#[expect(dead_code, reason = "guards are held, not read")]
enum Guard {
    Shared(RwLockReadGuard<'static, ()>),
    Exclusive(RwLockWriteGuard<'static, ()>),
}

impl Turn {
    /// A turn beside others.
    pub(crate) async fn beside_others() -> Result<Self> {
        let among_tests = Guard::Shared(TURNS.read().await);
        Ok(Self { among_processes: locked(File::lock_shared).await?, among_tests })
    }

    /// A turn alone.
    pub(crate) async fn alone() -> Result<Self> {
        let among_tests = Guard::Exclusive(TURNS.write().await);
        Ok(Self { among_processes: locked(File::lock).await?, among_tests })
    }
}

/// The lock file, once `lock` has got it.
async fn locked(lock: fn(&File) -> std::io::Result<()>) -> Result<File> {
    tokio::task::spawn_blocking(move || {
        let path = path();
        let file = File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
        lock(&file).with_context(|| format!("failed to lock {}", path.display()))?;
        Ok(file)
    })
    .await?
}

fn path() -> PathBuf {
    std::env::temp_dir().join("valv-e2e.lock")
}
