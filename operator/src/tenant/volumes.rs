//! Decides which volumes are claimed, and which may grow. Pure.

use valv_crds::condition::{ConditionType, Reason, Saying};

use super::{check::Tenant, observe::Observed};
use crate::io::kind::Kind;

/// What is to happen with volumes.
#[derive(Clone, Debug, PartialEq)]
pub struct Volumes {
    /// Claims to apply, by name.
    pub apply: Vec<String>,
    /// What `VolumesReady` says.
    pub saying: Saying,
}

/// What is to happen with the volumes of `tenant`.
pub fn volumes(tenant: &Tenant, observed: &Observed) -> Volumes {
    let kind = ConditionType::VolumesReady;
    let mut apply = vec![];
    let mut wrong = None;
    for claim in tenant.claims() {
        let Some(standing) = observed.claim(&claim.name) else {
            let named = claim.class.clone().unwrap_or_default();
            if observed.classes.get(&named).is_some_and(Option::is_none) {
                let what = if named.is_empty() {
                    "a default storage class".to_owned()
                } else {
                    format!("the storage class {named}")
                };
                wrong.get_or_insert_with(|| Saying::no(kind, Reason::ClassMissing, format!(
                    "{what} is not there: make it, or name another in the spec before the volume {} is made", claim.name
                )));
                // A claim without a class would wait for ever under a class that cannot be changed.
                continue;
            }
            apply.push(claim.name);
            wrong.get_or_insert_with(|| Saying::no(kind, Reason::Progressing, "the volumes are being made"));
            continue;
        };
        let requested = observed
            .text(Kind::PersistentVolumeClaim, &claim.name, "/spec/resources/requests/storage")
            .and_then(crate::io::difference::quantity)
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
        if standing.phase == "Lost" {
            wrong = Some(Saying::no(
                kind,
                Reason::Refused,
                format!("the volume behind {} is gone: put it back, or restore", claim.name),
            ));
        }
    }
    let fine = || Saying::yes(kind, Reason::AsAsked, "the volumes have the sizes that the spec asks for");
    Volumes { apply, saying: wrong.unwrap_or_else(fine) }
}
