//! Decides which volumes are claimed, and which may grow. Pure.
//!
//! A claim behind which a volume was seen is never made anew: it would be an empty one in the place of records.

use std::collections::BTreeMap;

use valv_crds::condition::{ConditionType, Reason, Saying};

use super::{check::Tenant, claim, observe::Observed};
use crate::{io::kind::Kind, settings::Settings};

/// What is to happen with volumes.
#[derive(Clone, Debug, PartialEq)]
pub struct Volumes {
    /// Claims to apply, by name.
    pub apply: Vec<String>,
    /// The volume behind each claim, as it is or was seen, by name of the claim.
    pub seen: BTreeMap<String, String>,
    /// What `VolumesReady` says.
    pub saying: Saying,
}

/// What is to happen with the volumes of `tenant`, of which those in `known` were seen before.
pub fn volumes(
    tenant: &Tenant,
    observed: &Observed,
    settings: &Settings,
    known: &BTreeMap<String, String>,
) -> Volumes {
    let kind = ConditionType::VolumesReady;
    let mut apply = vec![];
    let mut seen = known.clone();
    let mut wrong = None;
    for claim in tenant.claims(settings) {
        let Some(standing) = observed.claim(&claim.name) else {
            if let Some(volume) = known.get(&claim.name) {
                wrong = Some(Saying::no(kind, Reason::VolumeEmpty, lost(tenant, &claim.name, volume)));
                continue;
            }
            let named = claim.class.clone().unwrap_or_default();
            if observed.classes.get(&named).is_some_and(Option::is_none) {
                let what = if named.is_empty() {
                    "a default storage class".to_owned()
                } else {
                    format!("the storage class {named}")
                };
                wrong.get_or_insert_with(|| {
                    Saying::no(
                        kind,
                        Reason::ClassMissing,
                        format!(
                            "{what} is not there: make it, or name another before the volume {} is made",
                            claim.name
                        ),
                    )
                });
                // A claim without a class would wait for ever under a class that cannot be changed.
                continue;
            }
            apply.push(claim.name);
            wrong.get_or_insert_with(|| Saying::no(kind, Reason::Progressing, "the volumes are being made"));
            continue;
        };
        seen.extend(standing.volume.clone().map(|volume| (claim.name.clone(), volume)));
        let requested = observed
            .text(Kind::PersistentVolumeClaim, &claim.name, "/spec/resources/requests/storage")
            .and_then(claim::bytes)
            .unwrap_or_default();
        let class = observed.classes.get(&standing.class.clone().unwrap_or_default()).cloned().flatten();
        let grows = requested < claim.bytes();
        let can_expand = class.as_ref().is_some_and(|class| class.can_expand);
        if grows && !can_expand {
            let class = standing.class.unwrap_or_else(|| "its storage class".to_owned());
            wrong = Some(Saying::no(
                kind,
                Reason::ExpansionUnsupported,
                format!(
                    "{class} cannot expand volumes, so {} keeps its size and goes on: restore into a tenant with a larger one",
                    claim.name
                ),
            ));
            continue;
        }
        apply.push(claim.name.clone());
        let enough = standing.capacity.is_some_and(|capacity| capacity >= claim.bytes());
        if standing.phase == "Bound" && !enough {
            wrong.get_or_insert_with(|| {
                Saying::no(kind, Reason::Expanding, format!("{} grows to {}", claim.name, claim.size))
            });
        }
        if standing.phase == "Pending" {
            let message = format!(
                "{} has no volume yet: where its class says WaitForFirstConsumer, one is made when a node was found for its pod",
                claim.name
            );
            wrong.get_or_insert_with(|| Saying::no(kind, Reason::Progressing, message));
        }
        if standing.phase == "Lost" {
            wrong = Some(Saying::no(
                kind,
                Reason::Refused,
                format!("the volume behind {} is gone: put it back, or restore", claim.name),
            ));
        }
    }
    let fine = || Saying::yes(kind, Reason::AsAsked, "the volumes have the sizes that the spec asks for");
    Volumes { apply, seen, saying: wrong.unwrap_or_else(fine) }
}

/// What to do about a claim that is gone.
fn lost(tenant: &Tenant, claim: &str, volume: &str) -> String {
    format!(
        "the claim {claim} is gone, and with it the way to its volume {volume}; no empty one is made in its place. Make a PersistentVolumeClaim {claim} in {}, with the label valv.eu/tenant={} and spec.volumeName {volume} (first take spec.claimRef.uid out of that volume), or one over a volume that was restored",
        tenant.namespace, tenant.name
    )
}
