//! What runs in the cluster from the beginning: names and local volumes.

use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::folder;
use crate::kubectl::Kubectl;
use crate::progress::Progress;
use crate::settings::Settings;
use crate::store;
use crate::wait::{TAIL_LINES, Wait};

const COREDNS: &str = include_str!("../manifests/coredns.yaml");
const LOCAL_PATH: &str = include_str!("../manifests/local-path.yaml");

/// Stands in a manifest for the folder of local volumes.
const VOLUMES: &str = "@VOLUMES@";

/// Stands in a manifest for the names in the world, a line each, all with the same indentation.
const HOSTS: &str = "@HOSTS@";

/// Two small pods, whose images are there.
const DEADLINE: Duration = Duration::from_secs(90);

/// Applies both.
pub fn apply(kubectl: &Kubectl, settings: &Settings) -> Result<()> {
    let volumes = folder::volumes_mount(&settings.state).display().to_string();
    let hosts = store::hosts(settings)?.join("\n    ");
    kubectl.apply(&COREDNS.replace(HOSTS, &hosts))?;
    kubectl.apply(&LOCAL_PATH.replace(VOLUMES, &volumes))
}

/// Waits until both are ready.
pub fn await_ready(kubectl: &Kubectl, progress: &Progress) -> Result<()> {
    for (namespace, name) in [("kube-system", "coredns"), ("local-path-storage", "local-path-provisioner")] {
        let step = progress.step(&format!("{name} is ready"));
        let (namespace, deployment) = (format!("--namespace={namespace}"), format!("deployment/{name}"));
        let get = [&namespace, "get", &deployment, "--output=jsonpath={.status.readyReplicas}"];
        kubectl
            .wait(Wait::new(format!("{name} is ready"), DEADLINE), &get, |ready| ready == "1")
            .map_err(|error| anyhow!("{error:#}{}", symptoms(kubectl, &namespace, &deployment)))?;
        step.done();
    }
    Ok(())
}

/// How the pods of a deployment that is not ready are, and their last words.
fn symptoms(kubectl: &Kubectl, namespace: &str, deployment: &str) -> String {
    let tail = format!("--tail={TAIL_LINES}");
    let questions = [
        vec![namespace, "get", "pods", "--output=wide"],
        vec![namespace, "get", "events", "--field-selector=type=Warning"],
        vec![namespace, "logs", deployment, &tail],
    ];
    let answer = |question: Vec<&str>| kubectl.output(&question).unwrap_or_else(|error| format!("{error:#}"));
    questions.into_iter().map(|question| format!("\n{}", answer(question).trim())).collect()
}
