//! A store's users, and its bucket with its policy.

use anyhow::{Result, bail};
use secrecy::ExposeSecret;

use crate::s3::{AccessKey, Client, Method, Request};
use crate::store::policy::policy;
use crate::store::{BUCKET, Identity, Protection, Store};

/// Brings the users, the bucket and its policy of a store that runs to what they should be. The policy
/// names users, so they come first.
pub fn make(store: &Store) -> Result<()> {
    let administrator = store.administrator()?;
    for identity in Identity::ALL {
        make_user(&administrator, &store.key(identity)?)?;
    }
    make_bucket(&administrator, store.protection)?;
    let policy = serde_json::to_vec(&policy(store.protection))?;
    let put = Request::new(Method::Put, &format!("/{BUCKET}")).query("policy", "").body(policy);
    administrator.must(&put).map(drop)
}

/// Over versitygw's own interface for administrators, like `versitygw admin create-user`, which would show
/// the secret among its arguments.
fn make_user(administrator: &Client, key: &AccessKey) -> Result<()> {
    let secret = format!("<Secret>{}</Secret>", key.secret.expose_secret());
    let account = format!("<Account><Access>{}</Access>{secret}<Role>user</Role></Account>", key.id);
    let created = administrator.send(&Request::new(Method::Patch, "/create-user").body(account))?;
    match created.code().as_deref() {
        _ if created.is_success() => Ok(()),
        Some("XAdminUserExists") => {
            let properties = format!("<MutableProps>{secret}</MutableProps>");
            let update = Request::new(Method::Patch, "/update-user").query("access", &key.id);
            administrator.must(&update.body(properties)).map(drop)
        }
        _ => bail!("failed to create the user {}: {created}", key.id),
    }
}

fn make_bucket(administrator: &Client, protection: Protection) -> Result<()> {
    let create = Request::new(Method::Put, &format!("/{BUCKET}"));
    let created = administrator.send(&match protection {
        // Versioning comes with it.
        Protection::VersionsAndLocks => create.header("x-amz-bucket-object-lock-enabled", "true"),
        Protection::None => create,
    })?;
    match created.code().as_deref() {
        _ if created.is_success() => Ok(()),
        Some("BucketAlreadyOwnedByYou") => Ok(()),
        _ => bail!("failed to create the bucket {BUCKET}: {created}"),
    }
}
