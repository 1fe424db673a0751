//! What runs, for a person.

use std::fmt::Write;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::part;
use crate::process::Identity;

/// What runs of `cluster`: a line a node and a part. Whether it is well, [`Cluster::check`] says.
pub fn text(cluster: &Cluster) -> Result<String> {
    let record = cluster.record()?;
    let mut text = String::new();
    writeln!(text, "world     {}", process(record.world))?;
    for store in cluster.stores()? {
        writeln!(text, "  {:20} {}", store.name, cluster.store_state(&store))?;
    }
    for node in &record.nodes {
        writeln!(text, "{:9} {} at {}", node.name(), process(node.init), cluster.node_ip(node.number))?;
        let folder = cluster.node(node.number).folder().clone();
        for name in part::names(node.number) {
            let state = part::state(&folder, name);
            writeln!(text, "  {name:20} {state}")?;
        }
    }
    writeln!(text, "KUBECONFIG={}", cluster.kubeconfig().display())?;
    Ok(text)
}

fn process(init: Identity) -> String {
    if init.is_alive() { format!("runs, process {}", init.pid) } else { "has ended".to_owned() }
}
