//! Trying from inside the cluster what must work and what must not: a pod that runs a script and ends.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::actor::{Actor, Grace, Run};
use crate::eventually::{Seen, eventually};
use crate::kind;
use crate::tenant::Tenant;
use crate::test::unique;

/// A script tries a dozen things that time out after seconds.
const DEADLINE: Duration = Duration::from_secs(120);

/// Lets everything in and out of a tenant's namespace: what a wall hides is told from what does not listen.
pub async fn take_walls_down(admin: &Actor, tenant: &Tenant) -> Result<()> {
    let policy = json!({
        "apiVersion": kind::NETWORK_POLICY.api_version(),
        "kind": kind::NETWORK_POLICY.name,
        "metadata": { "name": "e2e-probe" },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}] },
    });
    admin.apply(kind::NETWORK_POLICY, &tenant.namespace, &policy).await.map(drop)
}

/// A pod that runs a script in somebody's namespace, as somebody's role.
pub struct Probe<'a> {
    namespace: &'a str,
    image: &'a str,
    labels: Value,
    env: Vec<Value>,
    volumes: Vec<(Value, &'static str)>,
}

impl<'a> Probe<'a> {
    /// In `namespace`, from `image`, without a role: what an intruder's pod would be.
    pub fn new(namespace: &'a str, image: &'a str) -> Self {
        Self { namespace, image, labels: json!({ "app": "probe" }), env: vec![], volumes: vec![] }
    }

    /// With the label that network policies select by.
    pub fn in_role(mut self, role: &str) -> Self {
        self.labels["valv.eu/role"] = json!(role);
        self
    }

    /// With an environment variable from a Secret.
    pub fn with_secret(mut self, variable: &str, secret: &str, key: &str) -> Self {
        self.env.push(json!({
            "name": variable, "valueFrom": { "secretKeyRef": { "name": secret, "key": key } },
        }));
        self
    }

    /// With an environment variable.
    pub fn with_env(mut self, variable: &str, value: &str) -> Self {
        self.env.push(json!({ "name": variable, "value": value }));
        self
    }

    /// With a ConfigMap as a folder.
    pub fn with_folder(mut self, map: &str, path: &'static str) -> Self {
        self.volumes.push((json!({ "name": map }), path));
        self
    }

    /// Runs `script` in a shell to its end, whatever that is. Returns what it printed.
    pub async fn run(&self, admin: &Actor, script: &str) -> Result<String> {
        let name = unique("probe");
        admin.create(kind::POD, self.namespace, self.pod(&name, script)).await?;
        let ended = eventually(format!("the probe {name} ends"), DEADLINE, async || {
            let pod = admin.get(kind::POD, self.namespace, &name).await?;
            let phase = pod["status"]["phase"].as_str().unwrap_or_default();
            Ok(Seen::when(
                matches!(phase, "Succeeded" | "Failed").then_some(()),
                format_args!(
                    "{phase} {} {}",
                    pod["status"]["conditions"], pod["status"]["containerStatuses"]
                ),
            ))
        })
        .await;
        let printed = admin.log(self.namespace, &name, "probe", Run::Current).await;
        admin.delete(kind::POD, self.namespace, &name, Grace::None).await?;
        ended?;
        printed.context("the probe printed nothing")
    }

    fn pod(&self, name: &str, script: &str) -> Value {
        let volumes = self.volumes.iter().enumerate();
        let mounts: Vec<_> = volumes
            .clone()
            .map(|(index, (_, path))| json!({ "name": format!("folder-{index}"), "mountPath": path }))
            .collect();
        let volumes: Vec<_> = volumes
            .map(|(index, (map, _))| json!({ "name": format!("folder-{index}"), "configMap": map }))
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "labels": self.labels },
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                    "seccompProfile": { "type": "RuntimeDefault" },
                },
                "containers": [{
                    "name": "probe",
                    "image": self.image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/bin/sh", "-c", script],
                    "env": self.env,
                    "volumeMounts": mounts,
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
                    },
                    "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
                }],
                "volumes": volumes,
            },
        })
    }
}
