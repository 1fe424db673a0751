//! What is known about a cluster that is up, or was being brought up: one file in its state folder.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::network;
use crate::process::Identity;
use crate::settings::Settings;

/// The inits of a cluster, and how far its bring-up has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The world's.
    pub world: Identity,
    /// The nodes'.
    pub nodes: Vec<NodeRecord>,
}

/// One node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// From 1.
    pub number: u8,
    /// Its init.
    pub init: Identity,
    /// Whether it was ready once.
    pub stage: Stage,
}

/// How far a node's bring-up has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It was started; whoever did so has not seen it ready.
    Starting,
    /// It was ready.
    Ready,
}

impl NodeRecord {
    /// Its name.
    pub fn name(&self) -> String {
        network::node_name(self.number)
    }
}

impl Record {
    /// The record in the state folder, if there is one that can be read.
    pub fn read(settings: &Settings) -> Option<Self> {
        serde_json::from_slice(&fs::read(path(settings)).ok()?).ok()
    }

    /// Writes it.
    pub fn write(&self, settings: &Settings) -> Result<()> {
        let path = path(settings);
        let draft = path.with_extension("draft");
        fs::write(&draft, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("failed to write {}", path.display()))
    }
}

fn path(settings: &Settings) -> PathBuf {
    settings.state.join("cluster.json")
}
