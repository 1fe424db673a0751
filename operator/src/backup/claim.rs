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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;
    use crate::{
        archive::{envelope::SigningKey, fetch::Options},
        backup::owner::tests::owner,
        fake_store::FakeStore,
    };

    fn noon() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    /// What comes of the claim of `me` in `store`.
    async fn claimed(
        store: &FakeStore,
        keys: &Keys,
        me: &Owner,
        takes_over: TakeOver,
    ) -> Result<Option<String>, Error> {
        let reader = Archive::new(store.bucket(), Options::default());
        claim(me, takes_over, &reader, &store.bucket(), OnExisting::Fail, keys).await
    }

    #[tokio::test]
    async fn a_new_cluster_gets_the_archive_of_one_that_was_lost_by_a_person_s_word_and_the_lost_one_loses_it()
     {
        let store = FakeStore::start(noon).await;
        let keys = Keys::alone(SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap());
        let (lost, new) = (owner("ada", "t1", "c1", Some("7")), owner("ada", "t2", "c2", Some("7")));
        let key = Owner::key(&lost.archive).unwrap().to_string();
        let record = Bytes::from(lost.seal(&keys.signing).unwrap());
        store.bucket().put(&key, record, &Put::default()).await.unwrap();

        let refused = claimed(&store, &keys, &new, TakeOver::NotAsked).await;
        let unchanged = claimed(&store, &keys, &lost, TakeOver::NotAsked).await;
        let taken_over = claimed(&store, &keys, &new, TakeOver::Asked).await;

        let by = |result: Result<Option<String>, Error>| match result {
            Err(Error::Taken { by }) => by,
            other => panic!("{other:?}"),
        };
        let refused = by(refused);
        assert!(refused.contains("the tenant ada (t1) in the cluster c1"), "{refused}");
        assert_eq!(unchanged.unwrap(), None, "it was the lost one's until then");
        assert!(taken_over.unwrap().unwrap().contains("in the cluster c1"));
        assert_eq!(
            claimed(&store, &keys, &new, TakeOver::NotAsked).await.unwrap(),
            None,
            "the word is not needed again"
        );
        assert!(by(claimed(&store, &keys, &lost, TakeOver::NotAsked).await).contains("in the cluster c2"));
    }

    #[tokio::test]
    async fn an_archive_without_a_record_is_claimed_once_and_who_comes_second_is_refused() {
        let store = FakeStore::start(noon).await;
        let keys = Keys::alone(SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap());
        let (first, second) = (owner("ada", "t1", "c1", None), owner("bo", "t2", "c1", None));

        assert_eq!(claimed(&store, &keys, &first, TakeOver::NotAsked).await.unwrap(), None);
        let refused = claimed(&store, &keys, &second, TakeOver::NotAsked).await;

        assert!(matches!(refused, Err(Error::Taken { .. })), "{refused:?}");
        let key = Owner::key(&first.archive).unwrap().to_string();
        assert_eq!(store.keys(), [key].into());
        assert_eq!(claimed(&store, &keys, &first, TakeOver::NotAsked).await.unwrap(), None);
    }
}
