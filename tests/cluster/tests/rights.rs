//! What each identity must be able to do in the cluster's stores, and what it must not: on servers of this machine, with the
//! users and the policies that a cluster's stores have. `make stores` tries the same in a cluster.
//!
//! Needs `VALV_VERSITYGW`, the path of that program. Each test has servers of its own, on 127.0.0.1.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

#[path = "stores/rights.rs"]
mod rights;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, process, thread};

use valv_cluster::s3::{Method, Request};
use valv_cluster::{BUCKET, Here, Identity};

/// Keeps the folders of one process's stores apart.
static STORES: AtomicU32 = AtomicU32::new(0);

/// How often users are brought again, and how much each of them asks after that.
const ROUNDS: usize = 20;
const REQUESTS: usize = 10;

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

/// versitygw 1.8.0 can keep the users whom it was asked about. One who is changed is then kept under a name that lies in the
/// memory of a request that is over, where the next request writes another user's: whoever is asked for next may get the
/// key of the other, and is refused for as long as that is kept, two minutes.
#[test]
fn users_who_are_brought_again_are_themselves() {
    let store = start("frankfurt");
    let clients = Identity::ALL.map(|identity| (identity, store.client(identity).unwrap()));
    for round in 0..ROUNDS {
        store.bring_again().unwrap();
        thread::scope(|scope| {
            for (identity, client) in &clients {
                let asks = move || {
                    for _ in 0..REQUESTS {
                        let answer = client.send(&Request::new(Method::Get, &format!("/{BUCKET}"))).unwrap();
                        assert_ne!(
                            answer.code().as_deref(),
                            Some("SignatureDoesNotMatch"),
                            "the {} in round {round}",
                            identity.name()
                        );
                    }
                };
                scope.spawn(asks);
            }
        });
    }
}
