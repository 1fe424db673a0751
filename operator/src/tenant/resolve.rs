//! Tells which of the things that a spec names are not there. Pure.

use kube::core::DynamicObject;
use serde_json::Value;
use valv_crds::condition::{ConditionType, Reason, Saying};

use super::{check::Tenant, observe::Observed, workload};
use crate::{
    io::kind::{Key, Kind},
    settings::Settings,
};

/// What `ReferencesResolved` says.
pub fn references(tenant: &Tenant, observed: &Observed, settings: &Settings) -> Saying {
    let kind = ConditionType::ReferencesResolved;
    if let Some((key, _)) = observed.references.iter().find(|(_, found)| found.is_none()) {
        let reason = if key.kind == Kind::Secret { Reason::SecretMissing } else { Reason::ConfigMapMissing };
        return Saying::no(
            kind,
            reason,
            format!(
                "the {} {} is not in the namespace {}: it is taken up when it appears",
                key.kind, key.name, tenant.namespace
            ),
        );
    }
    if let Some(missing) = missing_key(tenant, observed) {
        return missing;
    }
    let access = tenant.access.clone().unwrap_or_default();
    if let Some(ingress) = access.ingress.as_ref().filter(|_| observed.ingress_class_missing) {
        return Saying::no(
            kind,
            Reason::ClassMissing,
            format!("the IngressClass {} is not there", ingress.class_name),
        );
    }
    if access.gateway.is_some() && !observed.has_gateway_api {
        let message = "this cluster has no Gateway API (gateway.networking.k8s.io/v1 HTTPRoute): install it, or name an ingress class or a node port";
        return Saying::no(kind, Reason::ClassMissing, message);
    }
    let is_fronted = access.gateway.is_some() || access.ingress.is_some();
    if is_fronted && settings.network.ingress_controllers.is_empty() {
        let message = "no ingress controller or gateway may pass the tenant's walls: name its pods in network.ingressControllers of the operator's chart";
        return Saying::no(kind, Reason::ClassMissing, message);
    }
    if let Some(gateway) = &access.gateway
        && let Err(why) = accepted(tenant, observed)
    {
        let message = format!(
            "the Gateway {}/{} does not serve {} yet: {why}",
            gateway.namespace, gateway.name, tenant.host
        );
        return Saying::no(kind, Reason::ClassMissing, message);
    }
    if let Some(image) = missing_image(observed) {
        return image;
    }
    Saying::yes(kind, Reason::AsAsked, "all that the spec names is there")
}

/// Whether a gateway took up the route, by the route's own status: who runs the Gateway writes it.
fn accepted(tenant: &Tenant, observed: &Observed) -> Result<(), String> {
    let parents = observed.field(Kind::HttpRoute, "journal", "/status/parents").and_then(Value::as_array);
    let conditions =
        parents.into_iter().flatten().filter_map(|parent| parent["conditions"].as_array()).flatten();
    let mut accepted = conditions.filter(|condition| condition["type"] == "Accepted").peekable();
    if accepted.peek().is_none() {
        return Err(format!(
            "nobody has answered for it; it is there if its controller runs, and lets in routes from the namespace {}",
            tenant.namespace
        ));
    }
    match accepted.find(|condition| condition["status"] != "True") {
        Some(refused) => {
            Err(refused["message"].as_str().unwrap_or("it does not accept the route").to_owned())
        }
        None => Ok(()),
    }
}

fn missing_key(tenant: &Tenant, observed: &Observed) -> Option<Saying> {
    let external = tenant.external_database()?;
    let needed = [
        (&external.secret_ref.name, "user"),
        (&external.secret_ref.name, "password"),
        (&external.ca_secret_ref.name, "ca.crt"),
    ];
    needed.into_iter().find_map(|(name, key)| {
        let found = observed.references.get(&Key::new(Kind::Secret, name.clone()))?.as_ref()?;
        (!found.keys.iter().any(|there| there == key)).then(|| {
            Saying::no(
                ConditionType::ReferencesResolved,
                Reason::SecretMissing,
                format!("the Secret {name} lacks the key {key}"),
            )
        })
    })
}

/// An image that a node could not get: the pods' own word for it.
fn missing_image(observed: &Observed) -> Option<Saying> {
    observed.all(Kind::Pod).find_map(|pod| {
        let (image, reason) = unpulled(pod)?;
        let pod = pod.metadata.name.clone().unwrap_or_default();
        let message = format!(
            "the image {image} cannot be had for the pod {pod} ({reason}): it is tried again and again"
        );
        Some(Saying::unknown(ConditionType::ReferencesResolved, Reason::ImageMissing, message))
    })
}

/// Whether no pod of the Job ever began, for want of its image.
pub fn lacks_its_image(observed: &Observed, job: &str) -> bool {
    let mut pods = workload::pods_of(observed, job).peekable();
    pods.peek().is_some() && pods.all(|pod| unpulled(pod).is_some())
}

/// The image that keeps a pod's container from being started, and the kubelet's word for why.
fn unpulled(pod: &DynamicObject) -> Option<(String, String)> {
    let reasons =
        ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"];
    let lists = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let statuses = lists.iter().filter_map(|list| pod.data.pointer(list)?.as_array()).flatten();
    statuses.into_iter().find_map(|status| {
        let reason = status.pointer("/state/waiting/reason")?.as_str()?;
        let image = status["image"].as_str().unwrap_or_default();
        reasons.contains(&reason).then(|| (image.to_owned(), reason.to_owned()))
    })
}
