//! The addresses of everything.
//!
//! ```text
//! host 10.123.0.254 ── valv0 ──┐
//!                              │ world: bridge br0, with 10.123.0.20, .21, .30
//! node-1 10.123.0.1 ── eth0 ───┤
//! node-2 10.123.0.2 ── eth0 ───┘
//! ```

/// The host's end of its link into the world.
pub const HOST_LINK: &str = "valv0";

/// The bridge in the world.
pub const BRIDGE: &str = "br0";

/// The host, seen from the world.
pub const HOST_ADDRESS: &str = "10.123.0.254";

/// Object storage in Finland.
pub const HELSINKI: &str = "10.123.0.20";

/// Object storage in Germany.
pub const FRANKFURT: &str = "10.123.0.21";

/// A third place, for whatever a test lets stand there.
pub const ELSEWHERE: &str = "10.123.0.30";

/// Where object storage listens: what `https://` means.
pub const STORE_PORT: u16 = 443;

/// Addresses in the world at which servers can stand for other places: object storage in two regions,
/// and a system at a third.
pub const PLACES: [&str; 3] = [HELSINKI, FRANKFURT, ELSEWHERE];

/// The bits that all of the above share.
pub const PREFIX_BITS: u8 = 24;

/// Where pods have their addresses; a /24 of it for each node.
pub const POD_RANGE: &str = "10.244.0.0/16";

/// Where services have theirs.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";

/// The API server's own service.
pub const API_SERVICE: &str = "10.96.0.1";

/// The cluster's names.
pub const DNS_SERVICE: &str = "10.96.0.10";

/// Nodes are numbered from 1, and there are no more than would fit on a laptop.
pub const MOST_NODES: u8 = 9;

/// The address of node `number`.
pub fn node_address(number: u8) -> String {
    format!("10.123.0.{number}")
}

/// The name of node `number`, in Kubernetes and as a host.
pub fn node_name(number: u8) -> String {
    format!("node-{number}")
}

/// Where the API server is: on the first node.
pub fn api_url() -> String {
    format!("https://{}:6443", node_address(1))
}

/// `address` with the prefix of the network it is in.
pub fn with_prefix(address: &str) -> String {
    format!("{address}/{PREFIX_BITS}")
}
