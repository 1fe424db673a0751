//! A second node of the local cluster, for a while.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::task::block_in_place;
use valv_cluster::Cluster;

use crate::actor::{Actor, Change, Grace};
use crate::kind;
use crate::world::World;

/// The first node's name.
pub const FIRST: &str = "node-1";

/// The second node's name.
pub const SECOND: &str = "node-2";

/// Its number.
const NUMBER: u8 = 2;

/// A second node. It goes when this is dropped, and the first one is as it was.
pub struct SecondNode<'a> {
    cluster: &'a Cluster,
    admin: &'a Actor,
}

impl<'a> SecondNode<'a> {
    /// Adds it, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not come up, or these are not the local cluster's nodes.
    pub fn add(world: &'a World) -> Result<Self> {
        let cluster = world.local().context("the nodes are the local cluster's")?;
        let added = Self { cluster, admin: &world.admin };
        let mut up = Command::new(program()?);
        up.args(["up", "--nodes", &NUMBER.to_string()]);
        let done = block_in_place(|| up.output()).context("failed to run cluster up")?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(added)
    }

    /// From now on no pod is put on the node of this name.
    pub async fn cordon(&self, name: &str) -> Result<()> {
        let change = json!({ "spec": { "unschedulable": true } });
        self.admin.change(kind::NODE, "", name, Change::Merge(&change)).await.map(drop)
    }

    /// From now on pods may be put on the node of this name again.
    pub async fn uncordon(&self, name: &str) -> Result<()> {
        let change = json!({ "spec": { "unschedulable": null } });
        self.admin.change(kind::NODE, "", name, Change::Merge(&change)).await.map(drop)
    }

    /// Drains it of what runs in `namespaces`, as `kubectl drain` does: no pod is put on it any more, and each is asked to go.
    /// Returns how many that were.
    pub async fn drain(&self, namespaces: &[&str]) -> Result<usize> {
        self.cordon(SECOND).await?;
        let mut asked = 0;
        for namespace in namespaces {
            for pod in self.admin.list(kind::POD, namespace, "").await? {
                let is_over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
                if pod["spec"]["nodeName"] == SECOND && !is_over {
                    let name = pod["metadata"]["name"].as_str().context("a pod has a name")?;
                    self.admin.evict(namespace, name).await?;
                    asked += 1;
                }
            }
        }
        Ok(asked)
    }

    /// Ends it like a power cut: its kubelet too.
    pub fn dies(&self) -> Result<()> {
        block_in_place(|| self.cluster.kill_node(NUMBER))
    }

    /// Gives it up, as an administrator does with a node that does not come back. The volumes on its own disks, which went
    /// with it, are deleted too: their provisioner cannot do that without it.
    pub async fn is_given_up(&self) -> Result<()> {
        block_in_place(|| self.cluster.remove_node(NUMBER))?;
        for volume in self.admin.list(kind::PERSISTENT_VOLUME, "", "").await? {
            let places =
                volume.pointer("/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0");
            if places.is_none_or(|place| place != SECOND) {
                continue;
            }
            let name = volume["metadata"]["name"].as_str().context("a volume has a name")?;
            self.admin.delete(kind::PERSISTENT_VOLUME, "", name, Grace::Usual).await?;
        }
        Ok(())
    }
}

impl Drop for SecondNode<'_> {
    fn drop(&mut self) {
        let uncordoned = self
            .cluster
            .kubectl_command()
            .and_then(|mut kubectl| Ok(kubectl.args(["uncordon", FIRST]).output()?));
        if let Err(error) = uncordoned.map(drop).and_then(|()| self.cluster.remove_node(NUMBER)) {
            eprintln!("failed to take {SECOND} away: {error:#}");
        }
    }
}

/// The local cluster's own program, which was built with this one.
fn program() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.ancestors().find(|folder| folder.join("cluster").is_file());
    folder
        .map(|folder| folder.join("cluster"))
        .context("the program `cluster` is not beside the tests: make binaries")
}
