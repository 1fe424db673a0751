//! What stands before anything runs: namespace, quota, limits, accounts, volumes, walls.

use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::api::resource::Quantity};
use serde_json::json;
use valv_crds::reference::TENANT_LABEL;

use super::{Wanted, object};
use crate::{
    io::{
        difference::units,
        kind::{Key, Kind},
    },
    segmentation,
    settings::Settings,
    tenant::check::Tenant,
};

/// Name of the role binding that lets the operator work in a tenant's namespace, and of nothing else.
pub const ROLE_BINDING: &str = "valv-operator";

/// The namespace of `tenant`, to create.
pub fn new_namespace(tenant: &Tenant) -> Namespace {
    serde_json::from_value(namespace(tenant).value).unwrap_or_default()
}

/// The namespace of `tenant`.
pub fn namespace(tenant: &Tenant) -> Wanted {
    Wanted {
        key: Key::new(Kind::Namespace, &tenant.namespace),
        value: json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": tenant.namespace,
                "labels": {
                    TENANT_LABEL: tenant.name,
                    "app.kubernetes.io/managed-by": "valv",
                    "pod-security.kubernetes.io/enforce": "restricted",
                    "pod-security.kubernetes.io/audit": "restricted",
                    "pod-security.kubernetes.io/warn": "restricted",
                },
            },
        }),
    }
}

/// What lets the operator work in the namespace.
pub fn role_binding(tenant: &Tenant, settings: &Settings) -> Wanted {
    object(
        tenant,
        Kind::RoleBinding,
        ROLE_BINDING,
        json!({
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": settings.tenant_role,
            },
            "subjects": [{
                "kind": "ServiceAccount", "name": settings.service_account, "namespace": settings.operator_namespace,
            }],
        }),
    )
}

/// Quota, limits, service accounts and walls.
pub fn foundation(tenant: &Tenant, settings: &Settings) -> Vec<Wanted> {
    let account = |name: &str| {
        object(tenant, Kind::ServiceAccount, name, json!({ "automountServiceAccountToken": false }))
    };
    let policies = segmentation::policies(tenant, &settings.network);
    let walls = policies
        .into_iter()
        .map(|(name, spec)| object(tenant, Kind::NetworkPolicy, name, json!({ "spec": spec })));
    let mut wanted: Vec<_> = walls.collect();
    wanted.extend([
        quota(tenant),
        object(
            tenant,
            Kind::LimitRange,
            "tenant",
            json!({ "spec": { "limits": [{
                "type": "Container",
                "default": { "cpu": "1", "memory": "256Mi" },
                "defaultRequest": { "cpu": "20m", "memory": "64Mi" },
            }]}}),
        ),
        account("journal"),
        account("database"),
    ]);
    wanted
}

/// Twice what the tenant asks for, since a rolling update has old and new side by side, and room for agents.
fn quota(tenant: &Tenant) -> Wanted {
    let bytes =
        |quantity: Option<&Quantity>, default: i128| quantity.and_then(units).unwrap_or(default).max(default);
    let gibibyte = 1 << 30;
    let journal = tenant.journal.resources.as_ref().and_then(|resources| resources.limits.memory.as_ref());
    let database = tenant.database.resources.as_ref().and_then(|resources| resources.limits.memory.as_ref());
    let memory = 2
        * (bytes(journal, gibibyte) * i128::from(tenant.journal.replicas) + bytes(database, gibibyte))
        + 4 * gibibyte;
    let storage: i128 = tenant.claims().iter().map(|claim| claim.bytes() / 1000).sum();
    object(
        tenant,
        Kind::ResourceQuota,
        "tenant",
        json!({ "spec": { "hard": {
            "pods": (2 * tenant.journal.replicas + 20).to_string(),
            "limits.memory": format!("{}Mi", memory / (1 << 20)),
            "requests.storage": format!("{}Mi", (2 * storage + gibibyte) / (1 << 20)),
            "persistentvolumeclaims": "8",
            "services.loadbalancers": "0",
        }}}),
    )
}

/// The claims, each at least as large as it stands: a size that cannot be had now is not asked for.
pub fn claims(tenant: &Tenant, settings: &Settings, grow: &[&str]) -> Vec<Wanted> {
    let claims = tenant.claims().into_iter().map(|claim| {
        let mut spec = json!({
            "accessModes": [claim.access_mode],
            "resources": { "requests": { "storage": claim.size } },
        });
        if let Some(class) = claim.class.clone().or_else(|| settings.storage_class_name.clone()) {
            spec["storageClassName"] = json!(class);
        }
        (
            claim.name.clone(),
            object(tenant, Kind::PersistentVolumeClaim, &claim.name, json!({ "spec": spec })),
        )
    });
    claims.filter(|(name, _)| grow.contains(&name.as_str())).map(|(_, wanted)| wanted).collect()
}
