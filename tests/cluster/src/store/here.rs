//! A store on this machine alone, outside every cluster: for tests of what its users may do.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Store, bucket, server::Server};
use crate::settings::Settings;
use crate::world;

/// A store that runs, with the same users, bucket and policy as that of this name in a cluster. It ends with this value.
#[derive(Debug)]
pub struct Here {
    store: Store,
    settings: Settings,
}

impl Here {
    /// Starts the one of this name by `program`, versitygw, in a new `folder`, which goes with it.
    pub fn start(name: &str, program: &Path, folder: PathBuf) -> Result<Self> {
        let settings = Settings { cache: folder.clone(), state: folder };
        let mut store = Store::named(&settings, name)?;
        store.address = free_address()?;
        let log = world::log_of(&settings, store.name);
        let logs = log.parent().context("a log is in a folder")?;
        fs::create_dir_all(logs).with_context(|| format!("failed to create {}", logs.display()))?;
        store.prepare()?;
        let here = Self { store, settings };
        here.server().start_by(Command::new(program))?;
        bucket::make(&here.store)?;
        Ok(here)
    }

    /// Brings its users, its bucket and its policy again, as each `cluster up` does.
    pub fn bring_again(&self) -> Result<()> {
        bucket::make(&self.store)
    }

    fn server(&self) -> Server<'_> {
        Server::of(&self.store, &self.settings)
    }
}

impl Deref for Here {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        if let Err(error) = self.server().stop() {
            eprintln!("failed to end a store: {error:#}");
        }
        let _ = fs::remove_dir_all(&self.settings.state);
    }
}

fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("failed to find a free port")?;
    Ok(listener.local_addr()?)
}
