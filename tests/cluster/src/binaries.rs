//! The two programs of this workspace that run in the cluster, built by cargo.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cache::Cache;
use crate::progress::Progress;
use crate::{checkout, process, settings};

/// Where cargo has put them.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The operator.
    pub valv: PathBuf,
    /// The system that tests deploy as a tenant.
    pub journal: PathBuf,
}

/// One line of cargo's `--message-format=json`, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

impl Binaries {
    /// Builds both, or finds that they are built, and asks cargo where they are.
    pub fn build(cache: &Cache, progress: &Progress) -> Result<Self> {
        let step = progress.step("cargo: valv and journal");
        let (messages, log) = (cache.log("cargo-messages"), cache.log("cargo"));
        let mut build = settings::cargo();
        // The set of features that make builds with, so that nothing is built twice.
        build.args(["build", "--workspace", "--bins", "--examples"]);
        build.arg("--message-format=json-render-diagnostics").current_dir(checkout::workspace());
        process::run_into(&mut build, &messages, &log, &step)?;
        let executables = executables(&fs::read_to_string(&messages)?);
        step.done();
        let find =
            |name: &str| executables.get(name).cloned().with_context(|| format!("cargo built no {name}"));
        Ok(Self { valv: find("valv")?, journal: find("journal")? })
    }
}

/// The programs in cargo's messages, by name. Lines that are no message are somebody else's.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter_map(|message| Some((message.target?.name, message.executable?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"valv","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"valv","kind":["bin"]},"executable":"/target/debug/valv"}
{"reason":"build-finished","success":true}"#;

        let found = executables(messages);

        assert_eq!(found, BTreeMap::from([("valv".to_owned(), PathBuf::from("/target/debug/valv"))]));
    }
}
