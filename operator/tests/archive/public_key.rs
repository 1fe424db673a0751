//! The public half of the signing key in the bucket of a real store.

use std::fs;

use serde_json::json;
use valv::{
    archive::envelope::SigningKey,
    io::bucket::Bucket,
    store::{check, public_key},
};

use crate::{
    probe::{claimed, identities, now},
    store::{Keeps, Store},
};

struct Kept {
    store: check::Store,
    committer: Bucket,
    reader: Bucket,
    key: SigningKey,
}

impl Kept {
    fn of(server: &Store, keeps: Keeps) -> Self {
        let lock = match keeps {
            Keeps::LockedVersions => json!({ "mode": "Compliance", "days": 35 }),
            Keeps::Latest => json!(null),
        };
        let store = claimed(server, json!({ "objectLock": lock }));
        let four = identities(server, keeps, &[]);
        let open = |credentials| Bucket::open(&store.settings(credentials)).unwrap();
        let (committer, reader) = (open(four.committer), open(four.reader));
        let key = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
        Self { store, committer, reader, key }
    }

    async fn keep(&self) -> Result<(), public_key::KeepError> {
        public_key::keep(&self.store, &self.committer, &self.reader, self.key.public(), now()).await
    }

    fn name(&self) -> String {
        public_key::key_of(&self.key.public().id())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_put_once_and_again_when_it_is_gone_or_differs() {
    let server = Store::start(Keeps::Latest);
    let kept = Kept::of(&server, Keeps::Latest);
    let file = server.file(&kept.name());

    kept.keep().await.unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), kept.key.public().to_pem());
    fs::remove_file(&file).unwrap();
    kept.keep().await.unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), kept.key.public().to_pem());
    fs::write(&file, "another").unwrap();
    kept.keep().await.unwrap();

    assert_eq!(fs::read_to_string(&file).unwrap(), kept.key.public().to_pem());
    assert_eq!(server.keys(), [kept.name()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_locks_it_is_locked_and_a_second_look_puts_no_second_version() {
    let server = Store::start(Keeps::LockedVersions);
    let kept = Kept::of(&server, Keeps::LockedVersions);

    kept.keep().await.unwrap();
    kept.keep().await.unwrap();

    let listed = kept.reader.list_versions("v1/").page().await.unwrap().unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    let meta = kept.reader.head(&kept.name(), None).await.unwrap();
    let days = (meta.retained_until.unwrap().as_second() - now().as_second()) / 86_400;
    assert!((34..=35).contains(&days), "{days}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committer_that_may_not_put_it_is_told_so() {
    let server = Store::start(Keeps::Latest);
    let mut kept = Kept::of(&server, Keeps::Latest);
    kept.committer = kept.reader.clone();

    let error = kept.keep().await.unwrap_err();

    assert!(error.to_string().contains("needs to put under keys/"), "{error}");
}
