//! How users reach the journal: a Service, and what stands before it.

use serde_json::{Value, json};
use valv_crds::tenant::{GatewayRef, IngressRef};

use super::{Wanted, credentials::AUTHORITIES, object, serving};
use crate::{io::kind::Kind, segmentation::Role, tenant::check::Tenant};

/// Port of the Service.
const HTTPS: i32 = 443;

/// The Service, and the route to it where the spec names a controller.
pub fn access(tenant: &Tenant) -> Vec<Wanted> {
    let access = tenant.access.clone().unwrap_or_default();
    let gateway = access.gateway.as_ref().map(|gateway| routes(tenant, gateway));
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
        "name": "https", "port": HTTPS, "targetPort": tenant.serving_port(), "protocol": "TCP",
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
            "tls": [{ "hosts": [tenant.host], "secretName": tls_secret(tenant) }],
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
fn routes(tenant: &Tenant, gateway: &GatewayRef) -> Vec<Wanted> {
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
    let policy = object(
        tenant,
        Kind::BackendTlsPolicy,
        "journal",
        json!({ "spec": {
            "targetRefs": [{ "group": "", "kind": "Service", "name": "journal" }],
            "validation": {
                "caCertificateRefs": [{ "group": "", "kind": "ConfigMap", "name": AUTHORITIES }],
                "hostname": tenant.host,
            },
        }}),
    );
    vec![route, policy]
}

fn tls_secret(tenant: &Tenant) -> String {
    let own = tenant.certificates.journal_secret_ref.as_ref();
    own.map_or_else(|| crate::tenant::certificates::JOURNAL_TLS.to_owned(), |secret| secret.name.clone())
}
