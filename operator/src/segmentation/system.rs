//! A system outside the cluster, as far as the network can be opened for it. Pure.
//!
//! Input: an `ExternalSystem` as somebody wrote it, and the cluster's own networks. Output: what may be opened, or everything
//! that is wrong with it. Nothing of it is opened as long as anything is wrong.

use std::net::IpAddr;

use valv_crds::ExternalSystemSpec;

use crate::settings::Cidr;

/// What a tenant that names a system may connect to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct System {
    /// By address.
    pub blocks: Vec<(Cidr, Vec<u16>)>,
    /// By name, where the network knows names.
    pub names: Vec<(String, Vec<u16>)>,
}

/// Something is wrong with a system.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// It has no endpoint.
    #[error("nobody has said where it is: fill in spec.endpoints")]
    NotFilledIn,
    /// A text is no CIDR block.
    #[error("{text} is no CIDR block: an address, '/' and a number of bits, with none set beyond them")]
    NotABlock {
        /// What stands there.
        text: String,
    },
    /// A block is not outside.
    #[error("{block} overlaps {own}, which is the cluster's own by the chart's value network.clusterCidrs")]
    Inside {
        /// Which.
        block: Cidr,
        /// Whose network it is.
        own: Cidr,
    },
    /// A block is nobody's address.
    #[error("{block} is {what}: no system outside answers there")]
    Nowhere {
        /// Which.
        block: Cidr,
        /// What it is instead.
        what: &'static str,
    },
}

/// What of `spec` may be opened in a cluster whose networks are `own`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn of(spec: &ExternalSystemSpec, own: &[Cidr]) -> Result<System, Vec<Fault>> {
    let (mut system, mut faults) = (System::default(), Vec::new());
    if spec.endpoints.is_empty() {
        faults.push(Fault::NotFilledIn);
    }
    for endpoint in &spec.endpoints {
        for text in &endpoint.addresses {
            match text.parse::<Cidr>() {
                Err(_) => faults.push(Fault::NotABlock { text: text.clone() }),
                Ok(block) => {
                    faults.extend(faults_of(block, own));
                    system.blocks.push((block, endpoint.ports.clone()));
                }
            }
        }
        system.names.extend(endpoint.names.iter().map(|name| (name.clone(), endpoint.ports.clone())));
    }
    if faults.is_empty() { Ok(system) } else { Err(faults) }
}

fn faults_of(block: Cidr, own: &[Cidr]) -> Vec<Fault> {
    let inside = own.iter().filter(|own| own.overlaps(block)).map(|&own| Fault::Inside { block, own });
    let nowhere = nowhere(block).map(|what| Fault::Nowhere { block, what });
    inside.chain(nowhere).collect()
}

/// What a block is that nobody outside has.
fn nowhere(block: Cidr) -> Option<&'static str> {
    match block.address() {
        IpAddr::V4(v4) if v4.is_unspecified() => Some("the unspecified address"),
        IpAddr::V4(v4) if v4.is_loopback() => Some("the machine's own address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("link-local, where metadata services answer"),
        IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() => Some("the address of many"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("the unspecified address"),
        IpAddr::V6(v6) if v6.is_loopback() => Some("the machine's own address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local, where metadata services answer"),
        IpAddr::V6(v6) if v6.is_multicast() => Some("the address of many"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4 address written as IPv6"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn spec(endpoints: Value) -> ExternalSystemSpec {
        serde_json::from_value(json!({
            "displayName": "Pascal",
            "owner": { "name": "Inera AB", "country": "SE" },
            "role": "Recipient",
            "purpose": "Prescribing and ordering medicines",
            "legalBasis": "PDL 2008:355",
            "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn own() -> Vec<Cidr> {
        ["10.0.0.0/8", "192.168.4.0/24", "fd00::/8"].map(|cidr| cidr.parse().unwrap()).to_vec()
    }

    fn faults(addresses: &[&str]) -> Vec<String> {
        let spec = spec(json!([{ "addresses": addresses, "ports": [443] }]));
        of(&spec, &own()).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_system_is_opened_at_its_endpoints_each_at_its_own_ports() {
        let spec = spec(json!([
            { "addresses": ["203.0.113.7/32", "2001:db8::/64"], "ports": [443, 8443] },
            { "names": ["pascal.example"], "ports": [443] },
        ]));

        let system = of(&spec, &own()).unwrap();

        let blocks = ["203.0.113.7/32", "2001:db8::/64"].map(|cidr| (cidr.parse().unwrap(), vec![443, 8443]));
        assert_eq!(system.blocks, blocks);
        assert_eq!(system.names, [("pascal.example".to_owned(), vec![443])]);
    }

    #[test]
    fn a_system_that_nobody_has_placed_is_not_opened() {
        assert_eq!(of(&spec(json!([])), &own()), Err(vec![Fault::NotFilledIn]));
    }

    #[test]
    fn what_is_the_clusters_own_is_not_outside_whichever_is_wider() {
        for inside in ["10.1.2.3/32", "192.168.4.7/32", "192.168.0.0/16", "fd00:1::/48"] {
            assert!(faults(&[inside])[0].contains("which is the cluster's own"), "{inside}");
        }
        for outside in ["192.168.5.0/24", "11.0.0.1/32", "2001:db8::1/128"] {
            assert_eq!(faults(&[outside]), Vec::<String>::new());
        }
    }

    #[test]
    fn what_nobody_outside_has_is_refused_and_all_that_is_wrong_is_said() {
        let told =
            faults(&["127.0.0.0/16", "169.254.169.254/32", "::ffff:203.0.113.7/128", "203.0.113.7/24", "x"]);

        assert_eq!(
            told,
            [
                "127.0.0.0/16 is the machine's own address: no system outside answers there",
                "169.254.169.254/32 is link-local, where metadata services answer: no system outside answers there",
                "::ffff:203.0.113.7/128 is an IPv4 address written as IPv6: no system outside answers there",
                "203.0.113.7/24 is no CIDR block: an address, '/' and a number of bits, with none set beyond them",
                "x is no CIDR block: an address, '/' and a number of bits, with none set beyond them",
            ]
        );
    }

    proptest! {
        #[test]
        fn two_blocks_overlap_just_when_they_have_an_address_in_common(
            one in any::<u8>(), other in any::<u8>(), one_bits in 0..=8_u8, other_bits in 0..=8_u8,
        ) {
            let block = |last: u8, bits: u8| -> Cidr {
                let first = u8::MAX.checked_shl(u32::from(8 - bits)).unwrap_or_default() & last;
                format!("203.0.113.{first}/{}", 24 + bits).parse().unwrap()
            };
            let (one, other) = (block(one, one_bits), block(other, other_bits));

            let shared = (0..=255_u8).map(|last| IpAddr::from([203, 0, 113, last]));
            let shared = shared.filter(|address| one.contains(*address) && other.contains(*address)).count();
            prop_assert_eq!(one.overlaps(other), shared > 0);
            prop_assert_eq!(other.overlaps(one), shared > 0);
        }
    }
}
