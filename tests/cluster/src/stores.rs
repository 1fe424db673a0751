//! The stores, as a person or a script reads of them.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::store::{BUCKET, Identity, Protection, Store};

/// Some lines a store, without any secret.
pub fn text(stores: &[Store]) -> Result<String> {
    let mut text = String::new();
    for store in stores {
        writeln!(text, "{:10} {} at {}", store.name, store.endpoint(), store.address)?;
        writeln!(text, "  region   {} ({})", store.region, store.country)?;
        let protection = match store.protection {
            Protection::VersionsAndLocks => "with versions and Object Lock",
            Protection::None => "without versions or locks",
        };
        writeln!(text, "  bucket   {BUCKET}, {protection}")?;
        writeln!(text, "  objects  {}", store.objects().display())?;
        writeln!(text, "  CA       {}", store.ca().display())?;
    }
    Ok(text)
}

/// A JSON array, with the users' secrets.
pub fn json(stores: &[Store]) -> Result<String> {
    let all: Vec<Value> = stores.iter().map(with_keys).collect::<Result<_>>()?;
    Ok(format!("{}\n", serde_json::to_string_pretty(&all)?))
}

fn with_keys(store: &Store) -> Result<Value> {
    let mut keys = BTreeMap::new();
    for identity in Identity::ALL {
        let key = store.key(identity)?;
        let secret = key.secret.expose_secret();
        keys.insert(identity.name(), json!({"accessKeyID": key.id, "secretAccessKey": secret}));
    }
    Ok(json!({
        "name": store.name,
        "endpoint": store.endpoint(),
        "address": store.address,
        "region": store.region,
        "country": store.country,
        "bucket": BUCKET,
        "protection": store.protection,
        "caFile": store.ca(),
        "objects": store.objects(),
        "olderVersions": store.older_versions(),
        "keys": keys,
    }))
}
