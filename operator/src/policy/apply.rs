//! Makes the backups that are due.

use kube::api::ObjectMeta;
use tracing::{info, warn};
use valv_crds::{Backup, BackupSpec, backup::Origin, reference::NAMESPACE_PREFIX, slot};

use super::{Context, plan::Plan};
use crate::{error::chain, io::cluster::Error};

/// Makes what `plan` orders. A backup that is there already was made by somebody who came to the same plan.
///
/// # Errors
/// The first that is of the API server as a whole. What it refuses of one tenant stops no other.
pub async fn apply(plan: &Plan, context: &Context) -> Result<(), Error> {
    for order in &plan.orders {
        let name = slot::name(&order.tenant, order.slot);
        let backup = Backup {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(format!("{NAMESPACE_PREFIX}{}", order.tenant)),
                ..ObjectMeta::default()
            },
            spec: BackupSpec { origin: Origin::Scheduled, ..BackupSpec::default() },
            status: None,
        };
        match context.cluster.create_backup(&backup).await {
            Ok(()) => {
                info!(tenant.name = order.tenant, object.name = name, "took a slot on");
                for missed in &order.missed.listed {
                    warn!(tenant.name = order.tenant, slot = %missed, "a slot passed and was not run");
                }
            }
            Err(error) if error.is_conflict() => {}
            // Its namespace is not there yet, or the operator's access to it.
            Err(error) if error.is_not_found() || error.is_refusal() => {
                warn!(
                    tenant.name = order.tenant,
                    error = chain(&error),
                    "failed to make a backup that is due"
                );
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
