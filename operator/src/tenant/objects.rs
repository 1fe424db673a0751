//! The objects of a tenant, as they should stand. Pure.
//!
//! Each function gives whole objects: the operator's whole opinion, applied only where the cluster differs.

pub mod access;
pub mod credentials;
pub mod database;
pub mod foundation;
pub mod journal;
pub mod migration;

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Value, json};
use valv_crds::{
    journal::Scheduling,
    reference::{ATTACHMENTS_LABEL, ROLE_LABEL, SERVING_LABEL, TENANT_LABEL},
    resources::Resources,
};

use super::check::Tenant;
use crate::{
    io::kind::{Key, Kind},
    segmentation::Role,
};

/// An object as it should stand. Its `Debug` is its key: it may be a Secret.
#[derive(Clone, PartialEq)]
pub struct Wanted {
    /// Which.
    pub key: Key,
    /// All of it.
    pub value: Value,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Wanted({})", self.key)
    }
}

/// The object `kind` `name` of `tenant`, with `body` beside its metadata.
pub fn object(tenant: &Tenant, kind: Kind, name: &str, body: Value) -> Wanted {
    let mut value = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.as_str(),
        "metadata": {
            "name": name,
            "namespace": tenant.namespace,
            "labels": labels(tenant),
        },
    });
    if let (Some(fields), Value::Object(body)) = (value.as_object_mut(), body) {
        for (field, part) in body {
            fields.insert(field, part);
        }
    }
    Wanted { key: Key::new(kind, name), value }
}

/// Labels that everything of a tenant carries.
pub fn labels(tenant: &Tenant) -> Value {
    json!({ TENANT_LABEL: tenant.name, "app.kubernetes.io/managed-by": "valv" })
}

/// Labels of a pod that plays `role`.
pub fn pod_labels(tenant: &Tenant, role: Role, serving: Serving) -> Value {
    let mut labels = labels(tenant);
    labels[ROLE_LABEL] = json!(role.as_str());
    if serving == Serving::Yes {
        labels[SERVING_LABEL] = json!("true");
    }
    if tenant.runs_on_one_node() && [Role::Journal, Role::Migration].contains(&role) {
        labels[ATTACHMENTS_LABEL] = json!("one-node");
    }
    labels
}

/// Whether Services may send traffic to a pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Serving {
    /// They may.
    Yes,
    /// They may not.
    No,
}

/// What selects the pods that play `role` and serve.
fn serving(tenant: &Tenant, role: Role) -> Value {
    json!({ TENANT_LABEL: tenant.name, ROLE_LABEL: role.as_str(), SERVING_LABEL: "true" })
}

/// What every container may do: nothing that it does not need.
pub fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    })
}

/// CPU and memory of a container that helps: the agent, the proxy, the Job that changes roles.
pub fn small() -> ResourceRequirements {
    Resources::of("20m", "1", "32Mi", "128Mi").or(&Resources::default())
}

/// Who a pod runs as.
pub fn pod_security(user: i64, group: i64) -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": user,
        "runAsGroup": group,
        "fsGroup": group,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

/// What every pod has: no token, no environment of Services, and where it may run.
pub fn pod(scheduling: Option<&Scheduling>) -> Value {
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
    });
    if let Some(scheduling) = scheduling {
        if !scheduling.node_selector.is_empty() {
            pod["nodeSelector"] = json!(scheduling.node_selector);
        }
        if !scheduling.tolerations.is_empty() {
            pod["tolerations"] = json!(scheduling.tolerations);
        }
        if let Some(class) = &scheduling.priority_class_name {
            pod["priorityClassName"] = json!(class);
        }
    }
    pod
}
