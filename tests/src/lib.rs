//! What tests, demo and bench need to use Valv on a real cluster, as its users do.
//!
//! | to find | open |
//! |---|---|
//! | how a test begins and ends | `test.rs`, `turn.rs` |
//! | the cluster, and who acts on it | `world.rs`, `actor.rs`, `kind.rs` |
//! | what of a cluster is somebody else's | `ownership.rs` |
//! | a tenant: its manifest, conditions, objects | `tenant.rs`, `manifest.rs`, `tenants/*.yaml` |
//! | the object stores, a bucket of one's own, and faults on the way there | `store.rs`, `own_bucket.rs`, `proxy.rs` |
//! | a tenant that is backed up; one that is drilled; whoever forges its backups | `protected.rs`, `drilled.rs`, `forger.rs`, `base_backup.rs` |
//! | what users do | `journal.rs`, `reach.rs`, `writer.rs` |
//! | what platform engineers, auditors and holders of keys run | `plugin.rs` |
//! | the operator: its pods, its Lease, its processes, its chart | `operator.rs`, `process.rs`, `helm.rs` |
//! | a second node | `second_node.rs` |
//! | what was asked of the API server | `audit.rs` |
//! | trying what must not work | `probe.rs` |
//! | waiting; what objects say of themselves | `eventually.rs`, `saying.rs` |

pub mod actor;
pub mod audit;
pub mod bare_debian;
pub mod base_backup;
pub mod drilled;
pub mod eventually;
pub mod forger;
pub mod helm;
pub mod journal;
pub mod kind;
pub mod manifest;
pub mod operator;
pub mod own_bucket;
pub mod ownership;
pub mod page;
pub mod plugin;
pub mod probe;
pub mod process;
pub mod protected;
pub mod proxy;
mod reach;
pub mod saying;
pub mod second_node;
pub mod store;
pub mod tenant;
pub mod test;
mod turn;
pub mod world;
pub mod writer;

pub use actor::{Actor, refusal};
pub use eventually::{Seen, eventually};
pub use journal::JournalClient;
pub use tenant::Tenant;
pub use test::{Test, run};
pub use world::World;
pub use writer::Writer;
