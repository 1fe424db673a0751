//! Holders of keys, and the header of a backup in a real store.

use bytes::Bytes;
use valv::{
    archive::{fetch, layout::Part},
    io::bucket::{Bucket, Put},
    keys::proof::{self, Challenge},
};

use super::{
    MEBIBYTE,
    backup::{Backup, Keys, archive, back_up},
    data::mixed,
    segment_key,
    store::{Keeps, Store},
};

/// The first segment of the database.
async fn first_segment(bucket: &Bucket, backup: &Backup) -> Result<Option<Vec<u8>>, fetch::Error> {
    let page = &backup.manifest.part(Part::Database).unwrap().pages[0];
    archive(bucket).first_segment(&backup.manifest.folder(), page).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_holder_opens_the_header_of_a_backup_in_the_store_and_answers() {
    let (store, keys) = (Store::start(Keeps::LockedVersions), Keys::new());
    let bucket = store.bucket();
    let backup = back_up(&bucket, "ada", &mixed(3 * MEBIBYTE, 7), &keys).await;
    let slot = backup.manifest.slot;

    let segment = first_segment(&bucket, &backup).await.unwrap().unwrap();
    let header = proof::header(&segment).unwrap();

    for identities in [&keys.tenant, &keys.escrow] {
        let identity = identities.each().next().unwrap();
        let recipient = identity.to_public().to_string();
        let nonce = proof::nonce(&keys.signing, "ada", slot, &recipient, None).unwrap();
        let challenge = Challenge::make("ada", slot, &recipient, header, &nonce).unwrap();
        assert!(nonce.is(&challenge.answer(identity).unwrap()));
    }
    let stranger = Keys::new();
    let identity = stranger.tenant.each().next().unwrap();
    let recipient = identity.to_public().to_string();
    let nonce = proof::nonce(&keys.signing, "ada", slot, &recipient, None).unwrap();
    let challenge = Challenge::make("ada", slot, &recipient, header, &nonce).unwrap();
    assert!(matches!(challenge.answer(identity), Err(proof::Refusal::Header { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_was_replaced_gives_no_header_and_one_that_was_covered_gives_the_true_one() {
    for keeps in [Keeps::Latest, Keeps::LockedVersions] {
        let (store, keys) = (Store::start(keeps), Keys::new());
        let bucket = store.bucket();
        let backup = back_up(&bucket, "ada", &mixed(3 * MEBIBYTE, 7), &keys).await;
        let before = first_segment(&bucket, &backup).await.unwrap();

        let forged = Bytes::from(vec![7; before.as_ref().map(Vec::len).unwrap_or_default()]);
        bucket.put(&segment_key(&backup, 0), forged, &Put::default()).await.unwrap();
        let after = first_segment(&bucket, &backup).await;

        match keeps {
            Keeps::Latest => assert!(matches!(after, Err(fetch::Error::Broken(_))), "{after:?}"),
            Keeps::LockedVersions => assert_eq!(after.unwrap(), before),
        }
    }
}
