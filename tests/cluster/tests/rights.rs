//! What each identity must be able to do in the cluster's stores, and what it must not: on servers of this machine, with the
//! users and the policies that a cluster's stores have. `make stores` tries the same in a cluster.
//!
//! Needs `VALV_VERSITYGW`, the path of that program. Each test has servers of its own, on 127.0.0.1.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

#[path = "stores/rights.rs"]
mod rights;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, process};

use valv_cluster::Here;

/// Keeps the folders of one process's stores apart.
static STORES: AtomicU32 = AtomicU32::new(0);

/// Nobody stops a store here.
struct Shared;

fn shared() -> Shared {
    Shared
}

fn start(name: &str) -> Here {
    let program =
        env::var_os("VALV_VERSITYGW").expect("VALV_VERSITYGW: the path of versitygw, by `cluster programs`");
    let number = STORES.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("valv-rights-{}-{number}", process::id()));
    Here::start(name, Path::new(&program), folder).unwrap()
}

fn helsinki() -> Here {
    start("helsinki")
}

fn frankfurt() -> Here {
    start("frankfurt")
}
