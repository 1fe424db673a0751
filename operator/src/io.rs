//! Every client of the outside: nothing else in this crate opens a connection.

pub mod bucket;
pub mod cache;
pub mod cluster;
pub mod difference;
pub mod events;
pub mod filled;
pub mod kind;
