//! The logs of a cluster: of the one that is up, or of the last one.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::listing;
use crate::log;
use crate::settings::Settings;
use crate::wait::TAIL_LINES;

/// The log of `part`, whole; or the end of every log, if no part is named. Of all members, or of the one
/// that `node` names.
pub fn text(settings: &Settings, part: Option<&str>, node: Option<&str>) -> Result<String> {
    let logs = find(settings, part, node)?;
    match (logs.as_slice(), part) {
        ([], _) => bail!("no such log"),
        ([log], Some(_)) => {
            let bytes = fs::read(log).with_context(|| format!("failed to read {}", log.display()))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        (logs, _) => {
            Ok(logs.iter().map(|log| log::quote(log, TAIL_LINES).trim_start().to_owned() + "\n").collect())
        }
    }
}

fn find(settings: &Settings, part: Option<&str>, node: Option<&str>) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (member, folder) in members(settings)? {
        if node.is_some_and(|node| node != member) {
            continue;
        }
        for (file, path) in listing::of(&folder)? {
            let name = file.trim_end_matches(".log");
            if path.is_file() && part.is_none_or(|part| part == name) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// The folders with logs, by the name of the node or of the world.
fn members(settings: &Settings) -> Result<Vec<(String, PathBuf)>> {
    if settings.state.is_dir() {
        let live = listing::of(&settings.state)?.into_iter().map(|(member, path)| (member, path.join("log")));
        Ok(live.filter(|(_, logs)| logs.is_dir()).collect())
    } else if settings.last_logs().is_dir() {
        Ok(listing::of(&settings.last_logs())?.into_iter().filter(|(_, logs)| logs.is_dir()).collect())
    } else {
        bail!("no cluster is up, and none has left logs")
    }
}
