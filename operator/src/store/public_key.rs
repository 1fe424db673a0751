//! The public half of the signing key in the bucket itself, for whoever finds the bucket and not the cluster.
//!
//! # Guarantees
//! What lies there is put by the committer, read back by the reader, and put again where it is gone or differs. Where the
//! store locks, it is locked, and the lock is made longer in time. It proves nothing by itself: whoever could forge a
//! commit could lay a key beside it, so its name is to be compared with what people have elsewhere.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::check::Store;
use crate::{
    archive::{
        envelope::{KeyId, PublicKey},
        retry::{self, RetryRule},
    },
    io::bucket::{Bucket, Bypass, Error, Kind, Meta, OnExisting, Put},
};

/// No key is longer.
const MOST_BYTES: u64 = 4096;

/// It could not be kept in the bucket.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It could not be read.
    #[error("failed to read the signing key's public half back from {key}")]
    Read {
        /// Where.
        key: String,
        /// Why.
        source: Error,
    },
    /// It could not be put.
    #[error("failed to put the signing key's public half to {key}: the committer needs to put under keys/")]
    Put {
        /// Where.
        key: String,
        /// Why.
        source: Error,
    },
    /// Its lock could not be made longer.
    #[error("failed to make the lock of {key} longer")]
    Lock {
        /// Of what.
        key: String,
        /// Why.
        source: Error,
    },
    /// What was put is not what is there.
    #[error("what lies under {key} after it was put is not the signing key's public half")]
    Differs {
        /// Where.
        key: String,
    },
    /// It took too long.
    #[error("the store did not keep the signing key's public half within {0:?}")]
    TooLong(Duration),
}

/// Where the public half of the key `id` lies. No archive can have this folder: its name begins with a dot.
pub fn key_of(id: &KeyId) -> String {
    format!("v1/.signing/keys/{id}.pem")
}

/// Sees to it that `public` lies in the bucket of `store` at `now`.
///
/// # Errors
/// If it could not be read, put, or does not come back as it was put. The next look tries again.
pub async fn keep(
    store: &Store,
    committer: &Bucket,
    reader: &Bucket,
    public: PublicKey,
    now: Timestamp,
) -> Result<(), KeepError> {
    let key = key_of(&public.id());
    let text = public.to_pem();
    let read = |source| KeepError::Read { key: key.clone(), source };
    let until = store.object_lock.map(|lock| after_hours(now, 24 * i64::from(lock.days)));
    if let Some((meta, found)) = there(reader, &key).await.map_err(read)?
        && found == text.as_bytes()
    {
        return lengthen(store, committer, &key, &meta, now).await;
    }
    let put = Put {
        // One that differs is not it: a younger version lies over it, or it is replaced.
        on_existing: OnExisting::Replace,
        retain_until: until,
        lock_mode: store.claimed_mode().unwrap_or_default(),
        ..Put::default()
    };
    retry::put(committer, &key, text.clone().into(), &put, RetryRule::FEW)
        .await
        .map_err(|source| KeepError::Put { key: key.clone(), source })?;
    match there(reader, &key).await.map_err(read)? {
        Some((_, found)) if found == text.as_bytes() => Ok(()),
        Some(_) | None => Err(KeepError::Differs { key }),
    }
}

/// What lies under `key`; absent: nothing does.
async fn there(reader: &Bucket, key: &str) -> Result<Option<(Meta, Vec<u8>)>, Error> {
    let object = match reader.get(key, None).await {
        Ok(object) => object,
        Err(error) if error.kind == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let meta = object.meta.clone();
    // What is too long is no key, and not read.
    let bytes = if meta.size_bytes > MOST_BYTES { vec![] } else { object.whole(MOST_BYTES).await? };
    Ok(Some((meta, bytes)))
}

/// Makes the lock longer when half of its time is over.
async fn lengthen(
    store: &Store,
    committer: &Bucket,
    key: &str,
    meta: &Meta,
    now: Timestamp,
) -> Result<(), KeepError> {
    let Some(lock) = store.object_lock else { return Ok(()) };
    if meta.retained_until.is_some_and(|until| until >= after_hours(now, 12 * i64::from(lock.days))) {
        return Ok(());
    }
    let mode = store.claimed_mode().unwrap_or_default();
    committer
        .retain_with(
            key,
            meta.version.as_ref(),
            after_hours(now, 24 * i64::from(lock.days)),
            mode,
            Bypass::Never,
        )
        .await
        .map_err(|source| KeepError::Lock { key: key.to_owned(), source })
}

fn after_hours(now: Timestamp, hours: i64) -> Timestamp {
    let until = now.saturating_add(SignedDuration::from_hours(hours));
    let until = until.unwrap_or(Timestamp::MAX);
    Timestamp::from_second(until.as_second()).unwrap_or(until)
}
