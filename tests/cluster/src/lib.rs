//! The local cluster that demo and e2e use: real Kubernetes, containerd and Cilium in namespaces, and
//! beside it a world in which other places can be.
//!
//! Everything comes from package registries and is built once; see `README.md` for how to use it.
//! A node is a set of namespaces under one init, so `down` is one signal and leaves the host as it was.
//!
//! | to find | open |
//! |---|---|
//! | what tests call | [`Cluster`], [`Target`] |
//! | what is built, and from what | `debian.rs`, `program.rs`, `binaries.rs`, `catalogue.rs`; kept by `cache.rs` |
//! | the addresses | `network.rs` |
//! | object storage in two countries | [`Store`], `store/`; requests to it, [`s3`] |
//! | how a node is made | `node.rs` outside, `namespaces.rs` on the way, `supervisor.rs` inside |
//! | what its programs are told | `parts/` |
//! | how it ends | `down.rs`, `cgroup.rs` |

// For the binary `cluster` of this crate.
pub mod catalogue;
pub mod debian;
pub mod down;
pub mod interrupt;
pub mod lock;
pub mod logs;
pub mod namespaces;
pub mod node;
pub mod program;
pub mod progress;
pub mod settings;
pub mod status;
pub mod stores;
pub mod supervisor;
pub mod target;
pub mod up;

mod addons;
mod authority;
mod binaries;
mod checkout;
mod cluster;
mod digest;
mod event;
mod folder;
mod image;
mod kubectl;
mod listing;
mod log;
mod mounts;
mod network;
mod part;
mod parts;
mod pki;
mod process;
mod record;
mod secret_file;
mod store;
mod wait;
mod world;

pub mod cache;
mod cgroup;

// For tests on a cluster.
pub mod s3;
pub use authority::Signed;
pub use cluster::Cluster;
pub use network::ELSEWHERE;
pub use process::Identity as ProcessIdentity;
pub use store::here::Here;
pub use store::{BUCKET, Identity, Protection, Store, Validity};
pub use target::Target;
