//! How users reach the journal: a Service, and what stands before it.

use serde_json::{Value, json};
use valv_crds::tenant::{GatewayRef, IngressRef};

use super::{Wanted, credentials::AUTHORITIES, journal::HTTPS_PORT, object, serving};
use crate::{
    io::kind::{Key, Kind},
    segmentation::Role,
    tenant::{check::Tenant, observe::Observed},
};

/// Name of the ConfigMap with the authority of the certificate that the user brings.
pub const JOURNAL_AUTHORITY: &str = "journal-authority";

/// Port of the Service.
const HTTPS: i32 = 443;

/// The Service, and the route to it where the spec names a controller.
pub fn access(tenant: &Tenant, observed: &Observed) -> Vec<Wanted> {
    let access = tenant.access.clone().unwrap_or_default();
    let gateway = access.gateway.as_ref().map(|gateway| routes(tenant, observed, gateway));
    let ingress = access.ingress.as_ref().map(|ingress| vec![self::ingress(tenant, ingress)]);
    let node_port = access.node_port.and_then(|node_port| node_port.port);
    let exposed =
        if gateway.is_none() && ingress.is_none() { Exposed::NodePort(node_port) } else { Exposed::Inside };
    let routes = gateway.into_iter().chain(ingress).flatten();
    [service(tenant, exposed)].into_iter().chain(routes).collect()
}

/// From where the Service can be reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Exposed {
    /// From inside the cluster.
    Inside,
    /// Through a port of the node on which the journal runs: that one, or one that the cluster picks.
    NodePort(Option<i32>),
}

fn service(tenant: &Tenant, exposed: Exposed) -> Wanted {
    let mut port = json!({
        "name": "https", "port": HTTPS, "targetPort": HTTPS_PORT, "protocol": "TCP",
        "appProtocol": "https",
    });
    let spec = match exposed {
        Exposed::Inside => json!({ "type": "ClusterIP" }),
        Exposed::NodePort(number) => {
            if let Some(number) = number {
                port["nodePort"] = json!(number);
            }
            // Local keeps the user's address for the access log, and crosses no second node.
            json!({ "type": "NodePort", "externalTrafficPolicy": "Local" })
        }
    };
    let mut spec: Value = spec;
    spec["selector"] = serving(tenant, Role::Journal);
    spec["ports"] = json!([port]);
    object(tenant, Kind::Service, "journal", json!({ "spec": spec }))
}

fn ingress(tenant: &Tenant, ingress: &IngressRef) -> Wanted {
    let mut wanted = object(
        tenant,
        Kind::Ingress,
        "journal",
        json!({ "spec": {
            "ingressClassName": ingress.class_name,
            "tls": [{ "hosts": [tenant.host], "secretName": tenant.journal_tls() }],
            "rules": [{ "host": tenant.host, "http": { "paths": [{
                "path": "/", "pathType": "Prefix",
                "backend": { "service": { "name": "journal", "port": { "number": HTTPS } } },
            }]}}],
        }}),
    );
    if !ingress.annotations.is_empty() {
        wanted.value["metadata"]["annotations"] = json!(ingress.annotations);
    }
    wanted
}

/// A route, and the policy that makes the gateway speak TLS to the journal.
fn routes(tenant: &Tenant, observed: &Observed, gateway: &GatewayRef) -> Vec<Wanted> {
    let mut parent = json!({ "name": gateway.name, "namespace": gateway.namespace });
    if let Some(section) = &gateway.section_name {
        parent["sectionName"] = json!(section);
    }
    let route = object(
        tenant,
        Kind::HttpRoute,
        "journal",
        json!({ "spec": {
            "parentRefs": [parent],
            "hostnames": [tenant.host],
            "rules": [{ "backendRefs": [{ "name": "journal", "port": HTTPS }] }],
        }}),
    );
    let in_map =
        |name: &str| json!({ "caCertificateRefs": [{ "group": "", "kind": "ConfigMap", "name": name }] });
    let authority = own_authority(tenant, observed);
    let mut validation = match (&tenant.certificates.journal_secret_ref, &authority) {
        (None, _) => in_map(AUTHORITIES),
        (Some(_), Some(authority)) => in_map(&authority.key.name),
        // Signed by one that everybody trusts.
        (Some(_), None) => json!({ "wellKnownCACertificates": "System" }),
    };
    validation["hostname"] = json!(tenant.host);
    let policy = object(
        tenant,
        Kind::BackendTlsPolicy,
        "journal",
        json!({ "spec": {
            "targetRefs": [{ "group": "", "kind": "Service", "name": "journal" }],
            "validation": validation,
        }}),
    );
    [route, policy].into_iter().chain(authority).collect()
}

/// The authority that came with the certificate that the user brings, for the gateway to read.
fn own_authority(tenant: &Tenant, observed: &Observed) -> Option<Wanted> {
    let name = &tenant.certificates.journal_secret_ref.as_ref()?.name;
    let secret = observed.references.get(&Key::new(Kind::Secret, name.clone()))?.as_ref()?;
    let pem = std::str::from_utf8(secret.data.get("ca.crt")?).ok()?;
    let data = json!({ "data": { "ca.crt": pem } });
    (!pem.trim().is_empty()).then(|| object(tenant, Kind::ConfigMap, JOURNAL_AUTHORITY, data))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use valv_crds::{ConditionType, Reason, condition::Truth};

    use super::*;
    use crate::tenant::{observe::Reference, simulation::Simulation};

    fn with_gateway() -> Simulation {
        let mut simulation = Simulation::new();
        simulation.observed.has_gateway_api = true;
        let access = json!({ "gateway": { "name": "edge", "namespace": "edge" } });
        simulation.tenant.spec.access = serde_json::from_value(access).unwrap();
        let pods = json!({ "namespace": "edge", "podLabels": { "app": "envoy" } });
        simulation.settings.network.ingress_controllers = vec![serde_json::from_value(pods).unwrap()];
        simulation
    }

    fn said(simulation: &Simulation) -> (Truth, Reason, String) {
        let sayings = simulation.plan().sayings;
        let found =
            sayings.into_iter().find(|saying| saying.kind == ConditionType::ReferencesResolved).unwrap();
        (found.truth, found.reason, found.message)
    }

    fn answers(simulation: &mut Simulation, status: &str, message: &str) {
        let key = Key::new(Kind::HttpRoute, "journal");
        let mut route = simulation.observed.objects[&key].as_ref().clone();
        let accepted = json!({ "type": "Accepted", "status": status, "message": message });
        route.data["status"] = json!({ "parents": [{ "conditions": [accepted] }] });
        simulation.observed.objects.insert(key, Arc::new(route));
    }

    #[test]
    fn a_gateway_that_does_not_take_up_the_route_is_named() {
        let mut simulation = with_gateway();
        simulation.settle(|_| {});
        let (truth, reason, message) = said(&simulation);
        assert_eq!((truth, reason), (Truth::False, Reason::ClassMissing));
        assert!(
            message.contains("the Gateway edge/edge does not serve ada.journal.example yet: nobody"),
            "{message}"
        );

        answers(&mut simulation, "False", "no listener has this host name");
        assert!(said(&simulation).2.contains("no listener has this host name"));

        answers(&mut simulation, "True", "");
        simulation.settle(|_| {});
        assert_eq!(said(&simulation).0, Truth::True);
    }

    #[test]
    fn walls_that_let_no_gateway_in_are_told() {
        let mut simulation = with_gateway();
        simulation.settings.network.ingress_controllers = vec![];

        simulation.settle(|_| {});

        assert!(said(&simulation).2.contains("network.ingressControllers"));
    }

    #[test]
    fn a_gateway_checks_the_certificate_that_the_user_brought_by_its_own_authority() {
        let mut simulation = with_gateway();
        simulation.tenant.spec.certificates.journal_secret_ref =
            Some(k8s_openapi::api::core::v1::LocalObjectReference { name: "brought".into() });
        let mut brought = |authority: &str| {
            let data = [("ca.crt".to_owned(), authority.as_bytes().to_vec())].into();
            let reference = Reference { keys: vec![], version: String::new(), data };
            simulation.observed.references.insert(Key::new(Kind::Secret, "brought"), Some(reference));
            let wanted = access(&simulation.checked(), &simulation.observed);
            let policy = wanted.iter().find(|wanted| wanted.key.kind == Kind::BackendTlsPolicy).unwrap();
            let map = wanted.iter().find(|wanted| wanted.key.kind == Kind::ConfigMap);
            (policy.value["spec"]["validation"].clone(), map.map(|map| map.value["data"]["ca.crt"].clone()))
        };

        let (validation, map) = brought("PEM");
        assert_eq!(validation["caCertificateRefs"][0]["name"], JOURNAL_AUTHORITY);
        assert_eq!(map, Some(json!("PEM")));

        let (validation, map) = brought("");
        assert_eq!(validation["wellKnownCACertificates"], "System");
        assert_eq!(map, None);
    }
}
