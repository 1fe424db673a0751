//! The journal as its users meet it: the program itself, against a real database server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod pki;
mod postgres;
mod program;
mod world;

mod accounts;
mod attachments;
mod fill;
mod migration;
mod pages;
mod patients;
mod readiness;
mod restart;
mod stop;
mod tls;
