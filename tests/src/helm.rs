//! The chart, as a platform engineer uses it.

use std::env::var_os;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use valv_cluster::ELSEWHERE;

use crate::kind;
use crate::manifest::merge;
use crate::operator::{NAME, NAMESPACE};
use crate::ownership::{KEPT, MADE};
use crate::proxy::PORTS;
use crate::world::World;

/// Where the local cluster's own networks are; the nodes come to them.
const LOCAL_CIDRS: [&str; 2] = ["10.244.0.0/16", "10.96.0.0/16"];

/// How long a tenant is left alone, in tests: what no watch tells of is seen within this time.
const RESYNC: &str = "30s";

/// A file with values for the chart, over those of the tests: what a cluster of one's own needs.
const VALUES_VARIABLE: &str = "VALV_VALUES";

/// Helm.
#[derive(Clone, Copy)]
pub struct Helm {
    world: &'static World,
}

impl Helm {
    /// Helm on this cluster.
    pub fn of(world: &'static World) -> Self {
        Self { world }
    }

    /// `helm upgrade --install --wait`, with the values of the tests and, over them, these.
    ///
    /// The namespace is made first: what the chart's README asks for, and marked as the harness's. What a test changed by
    /// hand is helm's again.
    pub async fn install(self, values: &Value) -> Result<()> {
        let namespace = json!({
            "apiVersion": kind::NAMESPACE.api_version(),
            "kind": kind::NAMESPACE.name,
            "metadata": {
                "name": NAMESPACE,
                "labels": { "pod-security.kubernetes.io/enforce": "restricted", MADE: KEPT },
            },
        });
        self.world.admin.apply(kind::NAMESPACE, "", &namespace).await?;
        let mut all = self.values()?;
        merge(&mut all, values.clone());
        let text = serde_yaml::to_string(&all)?;
        let chart = chart().display().to_string();
        let install = ["upgrade", "--install", NAME, &chart, "--wait", "--timeout=3m", "--values=-"];
        let whoever_changed_it = ["--server-side=true", "--force-conflicts"];
        self.helm(&[install.as_slice(), &whoever_changed_it].concat(), text).await
    }

    /// `helm uninstall --wait`.
    pub async fn uninstall(self) -> Result<()> {
        self.helm(&["uninstall", NAME, "--wait", "--timeout=4m"], String::new()).await
    }

    fn values(self) -> Result<Value> {
        let world = self.world;
        let mut values = json!({
            "images": {
                "valv": world.image("valv")?,
                "postgres": world.image("postgres")?,
                "proxy": world.image("haproxy")?,
            },
            "reconcile": { "resync": RESYNC },
            // Where neither of the local cluster's stores says to be.
            "location": { "region": "here-1", "country": "SE" },
            // Of a journal that is to fail a drill, nobody waits longer.
            "drills": { "journalLimit": "3m", "concurrent": 8 },
            // A node of two processors gives no more than two away, and most tenants of the tests wait most of the time.
            "database": { "resources": { "requests": { "cpu": "20m" } } },
        });
        if let Some(cluster) = world.local() {
            let nodes = cluster.nodes()?.into_iter().map(|node| format!("{}/32", cluster.node_ip(node)));
            let cidrs: Vec<_> = LOCAL_CIDRS.map(str::to_owned).into_iter().chain(nodes).collect();
            values["network"] = json!({ "clusterCidrs": cidrs });
            let stores = cluster.stores()?.map(|store| {
                json!({ "cidr": format!("{}/32", store.address.ip()), "ports": [store.address.port()] })
            });
            let proxies = json!({ "cidr": format!("{ELSEWHERE}/32"), "ports": Vec::from_iter(PORTS) });
            values["stores"] = json!({ "egress": stores.into_iter().chain([proxies]).collect::<Vec<_>>() });
        }
        if let Some(file) = var_os(VALUES_VARIABLE).map(PathBuf::from) {
            let text =
                fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
            merge(&mut values, serde_yaml::from_str(&text)?);
        }
        Ok(values)
    }

    async fn helm(self, arguments: &[&str], input: String) -> Result<()> {
        let program = match self.world.local() {
            Some(cluster) => cluster.program("helm")?,
            None => PathBuf::from("helm"),
        };
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .args(["--namespace", NAMESPACE])
            .arg("--kubeconfig")
            .arg(self.world.kubeconfig());
        tokio::task::spawn_blocking(move || {
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("failed to run {}", program.display()))?;
            let mut standard_input = child.stdin.take().context("helm reads values")?;
            standard_input.write_all(input.as_bytes())?;
            drop(standard_input);
            let ended = child.wait_with_output()?;
            if !ended.status.success() {
                bail!("helm: {}", String::from_utf8_lossy(&ended.stderr).trim());
            }
            Ok(())
        })
        .await?
    }
}

/// The chart of this checkout.
fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/valv")
}
