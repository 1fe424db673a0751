//! The walls around a tenant, and the openings it needs.
//!
//! Input: the tenant, what the settings say of the network. Output: network policies. Pure. Everything is
//! denied both ways first; each opening is one policy, named for what it lets through.

pub mod system;

use serde_json::{Value, json};
use valv_crds::reference::ROLE_LABEL;

use crate::{
    settings::{Egress, Network, Pods},
    tenant::{check::Tenant, objects::journal::HTTPS_PORT},
};

/// What part a pod plays: the value of its label `valv.eu/role`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The journal system.
    Journal,
    /// The migration of its schema.
    Migration,
    /// The database server.
    Database,
    /// The change of its roles.
    Roles,
    /// The agent that backs it up.
    Backup,
    /// The agent that reads a backup back.
    Verification,
    /// The agent that copies a backup to another store, in the operator's namespace.
    Copy,
    /// The agent that restores a backup in a drill.
    Restore,
    /// The agent that judges what was restored. It reaches nobody.
    Judge,
}

impl Role {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Migration => "migration",
            Self::Database => "database",
            Self::Roles => "database-roles",
            Self::Backup => "backup",
            Self::Verification => "verification",
            Self::Copy => "copy",
            Self::Restore => "drill-restore",
            Self::Judge => "drill-judge",
        }
    }
}

/// The network policies of `tenant`, by name: each a `spec`.
pub fn policies(tenant: &Tenant, network: &Network) -> Vec<(&'static str, Value)> {
    let mut policies = vec![
        (
            "deny-all",
            // The empty lists say that nothing is opened here: what somebody adds is a difference.
            json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": [] }),
        ),
        ("allow-dns", dns(network)),
        ("allow-users-to-journal", users(tenant, network)),
    ];
    if !network.stores.is_empty() {
        policies.push(("allow-to-stores", stores(network)));
    }
    let clients = [Role::Journal, Role::Migration, Role::Roles, Role::Backup];
    match tenant.external_database() {
        Some(external) => {
            let blocks: Vec<_> =
                external.addresses.iter().map(|block| json!({ "ipBlock": { "cidr": block } })).collect();
            policies.push((
                "allow-external-database",
                json!({
                    "podSelector": one_of(&clients),
                    "policyTypes": ["Egress"],
                    "egress": [{ "to": blocks, "ports": [port(external.port)] }],
                }),
            ));
        }
        None => policies.extend([
            (
                "allow-to-database",
                json!({
                    "podSelector": one_of(&clients),
                    "policyTypes": ["Egress"],
                    "egress": [{ "to": [{ "podSelector": is(Role::Database) }], "ports": [port(5432)] }],
                }),
            ),
            (
                "allow-database-clients",
                json!({
                    "podSelector": is(Role::Database),
                    "policyTypes": ["Ingress"],
                    "ingress": [{ "from": [{ "podSelector": one_of(&clients) }], "ports": [port(5432)] }],
                }),
            ),
        ]),
    }
    policies
}

/// The network policies of a drill from `store`, by name: each a `spec`. Who restores reaches that store, as far as the
/// settings say where it is, and the cluster's DNS, the journal its database and not so much as DNS, by whose questions
/// records could be carried out; nobody else reaches anything: what was restored is quarantined.
pub fn drill_policies(network: &Network, store: Option<&str>) -> Vec<(&'static str, Value)> {
    let mut policies = vec![
        (
            "deny-all",
            json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": [] }),
        ),
        ("allow-dns", dns_for(network, &[Role::Restore])),
        (
            "allow-to-database",
            json!({
                "podSelector": is(Role::Journal),
                "policyTypes": ["Egress"],
                "egress": [{ "to": [{ "podSelector": is(Role::Database) }], "ports": [port(5432)] }],
            }),
        ),
        (
            "allow-database-clients",
            json!({
                "podSelector": is(Role::Database),
                "policyTypes": ["Ingress"],
                "ingress": [{ "from": [{ "podSelector": is(Role::Journal) }], "ports": [port(5432)] }],
            }),
        ),
    ];
    if !network.stores.is_empty() {
        let is_needed = |egress: &&Egress| {
            let is_of = |store: &str| egress.stores.iter().any(|named| named == store);
            egress.stores.is_empty() || store.is_none_or(is_of)
        };
        let needed = network.stores.iter().filter(is_needed);
        policies.push(("allow-to-stores", stores_for(needed, &[Role::Restore])));
    }
    policies
}

/// Names are asked of the cluster's own servers only.
fn dns(network: &Network) -> Value {
    let roles = [Role::Journal, Role::Migration, Role::Roles, Role::Backup, Role::Verification];
    dns_for(network, &roles)
}

fn dns_for(network: &Network, roles: &[Role]) -> Value {
    let udp = json!({ "port": 53, "protocol": "UDP" });
    json!({
        "podSelector": one_of(roles),
        "policyTypes": ["Egress"],
        "egress": [{ "to": [pods(&network.dns)], "ports": [udp, port(53)] }],
    })
}

/// Who writes and who reads back reach the stores, and nobody else does.
fn stores(network: &Network) -> Value {
    stores_for(network.stores.iter(), &[Role::Backup, Role::Verification])
}

fn stores_for<'a>(stores: impl Iterator<Item = &'a Egress>, roles: &[Role]) -> Value {
    let to: Vec<_> = stores
        .map(|store| {
            let ports: Vec<_> = store.ports.iter().map(|&number| port(number.into())).collect();
            json!({ "to": [{ "ipBlock": { "cidr": store.cidr.to_string() } }], "ports": ports })
        })
        .collect();
    json!({
        "podSelector": one_of(roles),
        "policyTypes": ["Egress"],
        "egress": to,
    })
}

/// Users come through an ingress controller where one is named, else from outside the cluster.
fn users(tenant: &Tenant, network: &Network) -> Value {
    let through_controller =
        tenant.access.as_ref().is_some_and(|access| access.gateway.is_some() || access.ingress.is_some());
    let from: Vec<Value> = if through_controller {
        network.ingress_controllers.iter().map(pods).collect()
    } else {
        outside(network)
    };
    let ingress = if from.is_empty() {
        json!([])
    } else {
        json!([{ "from": from, "ports": [{ "port": HTTPS_PORT, "protocol": "TCP" }] }])
    };
    json!({ "podSelector": is(Role::Journal), "policyTypes": ["Ingress"], "ingress": ingress })
}

/// Everything but the cluster's own networks.
fn outside(network: &Network) -> Vec<Value> {
    let family = |all: &str, is_v4: bool| {
        let own = network.cluster_cidrs.iter().filter(|cidr| cidr.address().is_ipv4() == is_v4);
        let own: Vec<_> = own.map(ToString::to_string).collect();
        let mut block = json!({ "ipBlock": { "cidr": all } });
        if !own.is_empty() {
            block["ipBlock"]["except"] = json!(own);
        }
        block
    };
    let has_v6 = network.cluster_cidrs.iter().any(|cidr| cidr.address().is_ipv6());
    let v6 = has_v6.then(|| family("::/0", false));
    [family("0.0.0.0/0", true)].into_iter().chain(v6).collect()
}

fn pods(pods: &Pods) -> Value {
    json!({
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": pods.namespace } },
        "podSelector": { "matchLabels": pods.pod_labels },
    })
}

fn is(role: Role) -> Value {
    json!({ "matchLabels": { ROLE_LABEL: role.as_str() } })
}

fn one_of(roles: &[Role]) -> Value {
    let values: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
    json!({ "matchExpressions": [{ "key": ROLE_LABEL, "operator": "In", "values": values }] })
}

fn port(number: i32) -> Value {
    json!({ "port": number, "protocol": "TCP" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_journal_reaches_its_database_and_not_so_much_as_dns() {
        let policies = drill_policies(&Network::default(), None);

        let selects_journal = |spec: &Value| {
            let selector = spec["podSelector"].to_string();
            selector.contains(&format!("\"{}\"", Role::Journal.as_str()))
        };
        let opens: Vec<_> =
            policies.iter().filter(|(_, spec)| selects_journal(spec)).map(|(name, _)| *name).collect();
        assert_eq!(opens, ["allow-to-database"]);
        let (_, dns) = policies.iter().find(|(name, _)| *name == "allow-dns").unwrap();
        assert!(dns["podSelector"].to_string().contains(Role::Restore.as_str()));
    }

    #[test]
    fn who_restores_reaches_the_store_that_is_drilled_and_no_other_whose_addresses_are_named() {
        let egress = |last: u8, stores: &[&str]| Egress {
            cidr: format!("203.0.113.{last}/32").parse().unwrap(),
            ports: vec![443],
            stores: stores.iter().map(|name| (*name).to_owned()).collect(),
        };
        let stores = vec![egress(1, &["helsinki"]), egress(2, &["frankfurt"]), egress(3, &[])];
        let network = Network { stores, ..Network::default() };
        let reached = |store: Option<&str>| {
            let policies = drill_policies(&network, store);
            let (_, spec) = policies.into_iter().find(|(name, _)| *name == "allow-to-stores").unwrap();
            let to = spec["egress"].to_string();
            [1, 2, 3].map(|last| to.contains(&format!("203.0.113.{last}/32")))
        };

        assert_eq!(reached(Some("helsinki")), [true, false, true]);
        assert_eq!(reached(Some("frankfurt")), [false, true, true]);
        assert_eq!(reached(None), [true, true, true]);
        // A tenant's backups may go to any.
        let tenants = super::stores(&network).to_string();
        assert!(tenants.contains("203.0.113.1/32") && tenants.contains("203.0.113.2/32"));
    }
}
