//! Puts the record of whose an archive is, or finds another's there. In every store that something is committed in.
//!
//! Input: who we are; the store as its reader and as its committer. Output: from whom it was taken over, if it was.

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use tokio::sync::OnceCell;

use super::owner::{Claim, LIMIT_BYTES, Owner, TakeOver};
use crate::{
    archive::{
        Archive, canonical, fetch,
        finding::{Finding, Flaw},
        retry::{self, RetryRule},
    },
    io::{
        bucket::{self, Bucket, OnExisting, Put},
        cluster::{Cluster, Error as ClusterError},
    },
    signing::Keys,
};

/// The archive is not ours, or it could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is another's.
    #[error("the archive belongs to {by}")]
    Taken {
        /// Whose it is, in words.
        by: String,
    },
    /// The store does not let us read the record.
    #[error("failed to read the record of whose the archive is")]
    Fetch(#[source] fetch::Error),
    /// The store does not take the record.
    #[error("failed to put the record of whose the archive is")]
    Put(#[source] bucket::Error),
    /// The record has no canonical form.
    #[error("failed to write the record of whose the archive is down")]
    Canonical(#[source] canonical::Error),
}

/// UID of the namespace `kube-system`: what tells this cluster from others. Asked for once.
///
/// # Errors
/// If the cluster refuses or does not answer.
pub async fn cluster_id(cluster: &Cluster, known: &OnceCell<String>) -> Result<String, ClusterError> {
    let get = async || {
        let found = cluster.get_cluster_scoped::<Namespace>("Namespace", "kube-system").await?;
        Ok(found.and_then(|namespace| namespace.uid()).unwrap_or_default())
    };
    known.get_or_try_init(get).await.cloned()
}

/// Claims the archive for `me`, and reads the record back.
///
/// # Errors
/// [`Error::Taken`] if it is another's; nothing is changed then.
pub async fn claim(
    me: &Owner,
    takes_over: TakeOver,
    reader: &Archive,
    committer: &Bucket,
    on_existing: OnExisting,
    keys: &Keys,
) -> Result<Option<String>, Error> {
    let key = Owner::key(&me.archive).map(|key| key.to_string()).unwrap_or_default();
    let trusted = keys.trusted();
    let found = reader.latest_document(&key, LIMIT_BYTES).await.map_err(Error::Fetch)?;
    let found = found.as_ref().map(|found| found.bytes.as_slice());
    let (on_existing, from) = match me.judge(found, &trusted, takes_over) {
        Claim::Mine => return Ok(None),
        Claim::Taken { by } => return Err(Error::Taken { by }),
        Claim::Free => (on_existing, None),
        Claim::TakenOver { from } => (OnExisting::Replace, Some(from)),
    };
    let bytes = me.seal(&keys.signing).map_err(Error::Canonical)?;
    let put = Put { on_existing, ..Put::default() };
    match retry::put(committer, &key, bytes.into(), &put, RetryRule::FEW).await {
        Ok(_) => {}
        // Another was first: whoever it is, the record says.
        Err(error) if error.kind == bucket::Kind::PreconditionFailed => {}
        Err(source) => return Err(Error::Put(source)),
    }
    let found = reader.latest_document(&key, LIMIT_BYTES).await.map_err(Error::Fetch)?;
    match me.judge(found.as_ref().map(|found| found.bytes.as_slice()), &trusted, TakeOver::NotAsked) {
        Claim::Mine => Ok(from),
        Claim::Taken { by } | Claim::TakenOver { from: by } => Err(Error::Taken { by }),
        Claim::Free => Err(Error::Fetch(fetch::Error::Broken(Finding { key, flaw: Flaw::Missing }))),
    }
}
