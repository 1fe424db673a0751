//! What stands before anything runs: namespace, quota, limits, accounts, volumes, walls.

use k8s_openapi::api::core::v1::{Namespace, ResourceRequirements};
use serde_json::json;
use valv_crds::{
    journal::{Journal, Tls},
    reference::TENANT_LABEL,
};

use super::{Wanted, journal, object, small};
use crate::{
    io::{
        difference::units,
        kind::{Key, Kind},
    },
    segmentation,
    settings::Settings,
    tenant::{
        check::Tenant,
        claim::{self, Claim},
        observe::Observed,
    },
};

/// Name of the role binding that lets the operator work in a tenant's namespace, and of nothing else.
pub const ROLE_BINDING: &str = "valv-operator";

/// Memory that a container may use which says nothing of it.
const DEFAULT_MEMORY: &str = "256Mi";

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
pub fn foundation(tenant: &Tenant, settings: &Settings, observed: &Observed) -> Vec<Wanted> {
    let account = |name: &str| {
        object(tenant, Kind::ServiceAccount, name, json!({ "automountServiceAccountToken": false }))
    };
    let policies = segmentation::policies(tenant, &settings.network);
    let walls = policies
        .into_iter()
        .map(|(name, spec)| object(tenant, Kind::NetworkPolicy, name, json!({ "spec": spec })));
    let mut wanted: Vec<_> = walls.collect();
    wanted.extend([
        quota(tenant, settings, observed),
        object(
            tenant,
            Kind::LimitRange,
            "tenant",
            json!({ "spec": { "limits": [{
                "type": "Container",
                "default": { "memory": DEFAULT_MEMORY },
                "defaultRequest": { "cpu": "20m", "memory": "64Mi" },
            }]}}),
        ),
        account("journal"),
        account("database"),
    ]);
    wanted
}

/// What its pods may use when old and new of them stand side by side, one surges, and Jobs run beside them.
fn quota(tenant: &Tenant, settings: &Settings, observed: &Observed) -> Wanted {
    let (mebibyte, gibibyte) = (1 << 20, 1 << 30);
    let helper = memory(&small());
    let container = |journal: &Journal| memory(&journal::resources(journal));
    let pod = |journal: &Journal| container(journal) + if journal.tls == Tls::Proxy { helper } else { 0 };
    // While an earlier version serves, its pods are as it was asked for.
    let serving = observed.state().serving;
    let journal = serving.iter().chain([&tenant.journal]).map(pod).max().unwrap_or_default();
    let replicas = i128::from(tenant.journal.replicas);
    let database = if tenant.has_builtin_database() {
        memory(&settings.database.resources_of(&tenant.database))
    } else {
        0
    };
    let limit =
        (2 * replicas + 1) * journal + 2 * container(&tenant.journal) + database + 4 * helper + 2 * gibibyte;
    let standing = |claim: &Claim| standing_size(observed, claim).and_then(claim::bytes).unwrap_or_default();
    let storage: i128 = tenant.claims(settings).iter().map(|claim| claim.bytes().max(standing(claim))).sum();
    object(
        tenant,
        Kind::ResourceQuota,
        "tenant",
        json!({ "spec": { "hard": {
            "pods": (2 * replicas + 20).to_string(),
            "limits.memory": format!("{}Mi", limit / mebibyte),
            "requests.storage": format!("{}Mi", (2 * storage + gibibyte) / mebibyte),
            "persistentvolumeclaims": "8",
            "services.loadbalancers": "0",
        }}}),
    )
}

/// Bytes of memory that a container with `resources` may use.
fn memory(resources: &ResourceRequirements) -> i128 {
    let limit = resources.limits.as_ref().and_then(|limits| limits.get("memory")).and_then(units);
    limit.or_else(|| claim::bytes(DEFAULT_MEMORY)).unwrap_or_default()
}

/// The claims in `grow`. One that stands keeps its class, and its size if somebody made it larger: neither can go
/// back.
pub fn claims(tenant: &Tenant, settings: &Settings, observed: &Observed, grow: &[&str]) -> Vec<Wanted> {
    let claims = tenant.claims(settings).into_iter().filter(|claim| grow.contains(&claim.name.as_str()));
    claims
        .map(|claim| {
            let larger =
                standing_size(observed, &claim).filter(|size| claim::bytes(size) > Some(claim.bytes()));
            let mut spec = json!({
                "accessModes": [claim.access_mode],
                "resources": { "requests": { "storage": larger.unwrap_or(&claim.size) } },
            });
            let standing = observed.claim(&claim.name);
            if let Some(class) = standing.and_then(|standing| standing.class).or(claim.class) {
                spec["storageClassName"] = json!(class);
            }
            object(tenant, Kind::PersistentVolumeClaim, &claim.name, json!({ "spec": spec }))
        })
        .collect()
}

/// The size that the claim asks for as it stands.
fn standing_size<'a>(observed: &'a Observed, claim: &Claim) -> Option<&'a str> {
    observed.text(Kind::PersistentVolumeClaim, &claim.name, "/spec/resources/requests/storage")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::simulation::Simulation;

    fn hard(simulation: &Simulation, resource: &str) -> i128 {
        let quota = simulation.plan().apply.into_iter().find(|wanted| wanted.key.kind == Kind::ResourceQuota);
        claim::bytes(quota.unwrap().value["spec"]["hard"][resource].as_str().unwrap()).unwrap()
    }

    fn claim_of(simulation: &Simulation) -> serde_json::Value {
        let wanted = simulation.plan().apply.into_iter();
        wanted
            .filter(|wanted| wanted.key.kind == Kind::PersistentVolumeClaim)
            .map(|wanted| wanted.value)
            .next()
            .unwrap()
    }

    #[test]
    fn the_quota_has_room_for_pods_as_they_will_be() {
        let gibibyte = 1 << 30;
        let mut simulation = Simulation::running();
        let before = hard(&simulation, "limits.memory");

        // A request alone is the limit too, and the chart's word counts where the tenant has none.
        simulation.tenant.spec.journal.resources =
            serde_json::from_value(json!({ "requests": { "memory": "16Gi" } })).unwrap();
        simulation.settings.database.resources.limits.insert("memory".into(), "32Gi".parse().unwrap());

        assert!(hard(&simulation, "limits.memory") >= 3 * 16 * gibibyte + 32 * gibibyte);
        assert!(before < 16 * gibibyte, "{before}");
    }

    #[test]
    fn the_quota_has_room_for_the_version_that_serves() {
        let mut simulation = Simulation::running();
        simulation.tenant.spec.journal.resources =
            serde_json::from_value(json!({ "limits": { "memory": "16Gi" } })).unwrap();
        simulation.settle(|_| {});
        simulation.migration_fails = true;
        simulation.tenant.spec.journal.image = "registry.example/journal:2".into();
        simulation.tenant.spec.journal.resources = None;

        simulation.settle(|_| {});

        assert!(hard(&simulation, "limits.memory") >= 3 * (16 << 30));
    }

    #[test]
    fn a_claim_keeps_the_class_that_it_was_made_with() {
        let mut simulation = Simulation::new();
        simulation.settings.storage_class_name = Some("fast".into());
        let class = crate::tenant::observe::Class { name: "fast".into(), can_expand: true };
        simulation.observed.classes.insert("fast".into(), Some(class));
        simulation.settle(|_| {});
        assert_eq!(claim_of(&simulation)["spec"]["storageClassName"], "fast");

        simulation.settings.storage_class_name = Some("faster".into());

        assert_eq!(claim_of(&simulation)["spec"]["storageClassName"], "fast");
    }

    #[test]
    fn a_class_of_the_settings_that_is_not_there_is_named() {
        let mut simulation = Simulation::new();
        simulation.settings.storage_class_name = Some("fsat".into());
        simulation.observed.classes.insert("fsat".into(), None);

        simulation.settle(|_| {});

        let said = simulation.plan().sayings;
        let said = said.iter().find(|saying| saying.kind == valv_crds::ConditionType::VolumesReady).unwrap();
        assert!(said.message.contains("the storage class fsat is not there"), "{}", said.message);
        assert!(!simulation.observed.has(Kind::PersistentVolumeClaim, "database-0"));
    }

    #[test]
    fn a_claim_that_somebody_made_larger_is_not_asked_to_shrink() {
        let mut simulation = Simulation::running();
        let key = Key::new(Kind::PersistentVolumeClaim, "database-0");
        let mut claim = simulation.observed.objects[&key].as_ref().clone();
        claim.data["spec"]["resources"]["requests"]["storage"] = json!("3Gi");
        simulation.observed.objects.insert(key, std::sync::Arc::new(claim));

        assert_eq!(claim_of(&simulation)["spec"]["resources"]["requests"]["storage"], "3Gi");
    }
}
