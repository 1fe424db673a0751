//! What on a cluster was made by the harness, and what is somebody else's.

use anyhow::{Result, bail};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::actor::{Actor, Change, is_not_found};
use crate::kind;
use crate::manifest::SMALLEST;
use crate::operator::NAMESPACE;
use crate::tenant::Tenant;
use crate::turn::Turn;
use crate::world::World;

/// The label of what the harness made: the namespace of its Valv, and its tenants.
pub const MADE: &str = "tests.valv.eu/made";

/// Its value on what may be taken away at any time when no test runs.
pub const THROWAWAY: &str = "throwaway";

/// Its value on what stays until somebody takes it away.
pub const KEPT: &str = "kept";

/// Fails on a cluster where somebody else uses Valv: tests install it anew, stop it and take it away.
///
/// # Errors
/// Names what is somebody else's, and says what to do.
pub(crate) async fn refuse_somebody_elses(admin: &Actor) -> Result<()> {
    let namespace = admin.find(kind::NAMESPACE, "", NAMESPACE).await?;
    let tenants = match admin.list(kind::JOURNAL_TENANT, "", "").await {
        Ok(tenants) => tenants,
        // Nobody has installed Valv: there is no such kind.
        Err(error) if is_not_found(&error) => vec![],
        Err(error) => return Err(error),
    };
    match somebody_elses(namespace.as_ref(), &tenants) {
        Some(what) => bail!("{what}"),
        None => Ok(()),
    }
}

fn somebody_elses(namespace: Option<&Value>, tenants: &[Value]) -> Option<String> {
    if namespace.is_some_and(|namespace| !is_made(namespace)) {
        return Some(format!(
            "the namespace {NAMESPACE} was not made by these tests, and a Valv in it would be upgraded, stopped and \
             taken away by them: use another cluster. If nobody needs what is there: helm uninstall valv -n \
             {NAMESPACE}; kubectl delete namespace {NAMESPACE}. If it was made for these tests: kubectl label \
             namespace {NAMESPACE} {MADE}={KEPT}"
        ));
    }
    let foreign = tenants.iter().filter(|tenant| !is_made(tenant));
    let foreign: Vec<_> = foreign.filter_map(|tenant| tenant["metadata"]["name"].as_str()).collect();
    (!foreign.is_empty()).then(|| {
        format!(
            "this cluster has journals that were not made by these tests, which stop and take away the operator: use \
             another cluster. The JournalTenants are: {}",
            foreign.join(", ")
        )
    })
}

fn is_made(object: &Value) -> bool {
    object["metadata"]["labels"][MADE].is_string()
}

/// Takes away the tenants that tests, demos and benches left which were killed. Returns their names.
///
/// Waits until no test of this machine runs. The operator must be there.
pub async fn sweep(world: &'static World) -> Result<Vec<String>> {
    let _turn = Turn::alone().await?;
    let left = world.admin.list(kind::JOURNAL_TENANT, "", &format!("{MADE}={THROWAWAY}")).await?;
    let names: Vec<_> = left.iter().filter_map(|left| left["metadata"]["name"].as_str()).collect();
    let tenants = names.iter().map(|name| Tenant::new(world, name, SMALLEST)).collect::<Result<Vec<_>>>()?;
    let ends = join_all(tenants.iter().map(Tenant::destroy)).await;
    ends.into_iter().collect::<Result<Vec<()>>>()?;
    Ok(tenants.into_iter().map(|tenant| tenant.name).collect())
}

/// Keeps a tenant: [`sweep`] leaves it.
pub async fn keep(world: &World, tenant: &Tenant) -> Result<()> {
    let label = json!({ "metadata": { "labels": { MADE: KEPT } } });
    world.admin.change(kind::JOURNAL_TENANT, "", &tenant.name, Change::Merge(&label)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, labels: Value) -> Value {
        json!({ "metadata": { "name": name, "labels": labels } })
    }

    #[test]
    fn a_cluster_without_valv_may_be_used() {
        assert_eq!(somebody_elses(None, &[]), None);
    }

    #[test]
    fn what_the_harness_made_may_be_used_again() {
        let namespace = object(NAMESPACE, json!({ MADE: KEPT }));
        let tenants = [object("ready-x7k2", json!({ MADE: THROWAWAY }))];

        assert_eq!(somebody_elses(Some(&namespace), &tenants), None);
    }

    #[test]
    fn a_valv_of_somebody_else_is_refused() {
        let namespace = object(NAMESPACE, json!({ "kubernetes.io/metadata.name": NAMESPACE }));

        let refused = somebody_elses(Some(&namespace), &[]).unwrap();

        assert!(refused.contains("use another cluster"), "{refused}");
    }

    #[test]
    fn a_tenant_of_somebody_else_is_refused_by_name() {
        let tenants = [object("ready-x7k2", json!({ MADE: THROWAWAY })), object("stadskliniken", json!({}))];

        let refused = somebody_elses(None, &tenants).unwrap();

        assert!(refused.ends_with("The JournalTenants are: stadskliniken"), "{refused}");
    }
}
