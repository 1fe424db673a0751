//! The backup format: what lies in a bucket, how it gets there, and how it is read and verified.
//!
//! `docs/backup-format.md` is its law; what is here obeys it. A backup's database, attachments and tenant are
//! one tar stream each. A stream is cut into slices, each slice compressed to a zstd frame, whole frames
//! encrypted together to a segment, each segment one object. So the standard tools restore it.
//!
//! | what                                        | file                                    | touches    |
//! |---------------------------------------------|-----------------------------------------|------------|
//! | keys                                        | [`layout`]                              | nothing    |
//! | what the agent says: segments, all of it    | [`index`], [`manifest`]                 | nothing    |
//! | what the operator says, signed              | [`commit`], [`envelope`]                | nothing    |
//! | for whom                                    | [`recipients`]                          | nothing    |
//! | slices, frames, segments                    | [`slice`](mod@slice), [`frame`], [`segment`] | nothing |
//! | stream → bucket                             | [`write`](mod@write)                   | the bucket |
//! | bucket → stream                             | [`fetch`], [`read`]                     | the bucket |
//! | bucket → verdict, without a key             | [`verify`], [`finding`]                 | the bucket |
//! | bucket → which backups there are            | [`catalogue`]                           | the bucket |
//! | bucket → another bucket, without a key      | [`copy`](mod@copy)                      | two buckets |
//! | longer locks; deletion                      | [`lock`], [`erase`]                     | the bucket |
//! | how long an archive is kept, signed         | [`terms`]                               | nothing    |
//! | which backups should be there, signed       | [`register`]                            | nothing    |
//!
//! # Guarantees
//! Order: segments, then index pages, then the manifest, then the commit; when deleting, the other way round.
//! So what a commit names is there. Nothing is believed because it was listed, and nothing by the store's
//! clock.

mod buffers;
pub mod canonical;
pub mod catalogue;
pub mod commit;
pub mod copy;
pub mod digest;
pub mod envelope;
pub mod erase;
pub mod fetch;
pub mod finding;
pub mod frame;
mod idle;
pub mod index;
pub mod layout;
pub mod lock;
pub mod manifest;
pub mod progress;
pub mod read;
pub mod recipients;
pub mod records;
pub mod register;
pub mod retry;
pub mod segment;
pub mod slice;
pub mod terms;
pub mod verify;
pub mod write;

pub use self::{fetch::Archive, progress::Progress, write::Writer};
