//! Whose an archive is: a record in the bucket, signed by the operator of the cluster that began it.
//!
//! An archive's id is free text, and a bucket may serve two clusters: without the record the operator would sign one
//! tenant's data as another's backup. Judging is pure.
//!
//! A tenant that was deleted and made again has another UID. It goes on with its archive by itself if it is in the same
//! cluster, has the same name, and PostgreSQL's identifier of its database is the one in the record: that identifier
//! outlives the tenant in `valv-state` (ADR 0008), so its volume was taken over and no other database was begun.
//! Whoever else wants the archive says so on the tenant, by `valv.eu/take-over-archive`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::archive::{
    canonical,
    envelope::{Envelope, OpenError, PublicKey, SigningKey},
    layout::{ArchiveId, Key},
};

/// The kind of document, as it stands in the envelope.
const OWNER_TYPE: &str = "application/vnd.valv.owner.v1+json";

/// The largest record that is read.
pub const LIMIT_BYTES: u64 = 16 * 1024;

/// Whose an archive is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// 1, as of all documents of the archive.
    pub format: u32,
    /// Which archive.
    pub archive: ArchiveId,
    /// Name of the tenant.
    pub tenant: String,
    /// UID of the tenant's object.
    #[serde(rename = "tenantUID")]
    pub tenant_uid: String,
    /// UID of the namespace `kube-system` of the tenant's cluster.
    pub cluster: String,
    /// PostgreSQL's identifier of the database, as far as it was known.
    #[serde(default)]
    pub system_identifier: Option<String>,
    /// Id of the key that signs the archive's commits.
    #[serde(rename = "keyID")]
    pub key_id: String,
    /// Since when, by the operator's clock.
    pub since: Timestamp,
}

/// Whether a person said that the archive is to be taken over from whoever has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOver {
    /// So the tenant's annotation says.
    Asked,
    /// Nobody said so.
    NotAsked,
}

/// What stands in the way of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours.
    Mine,
    /// It is nobody's yet.
    Free,
    /// It was another's, and we go on with it.
    TakenOver {
        /// Whose it was, in words.
        from: String,
    },
    /// It is another's.
    Taken {
        /// Whose, in words.
        by: String,
    },
}

impl Owner {
    /// Where its record lies.
    pub fn key(archive: &ArchiveId) -> Option<Key> {
        Some(Key::Record { archive: archive.clone(), name: "owner".parse().ok()? })
    }

    /// Signs it: what is to be put at its [`key`](Self::key).
    ///
    /// # Errors
    /// If it cannot be written down.
    pub fn seal(&self, key: &SigningKey) -> Result<Vec<u8>, canonical::Error> {
        key.sign(OWNER_TYPE, &canonical::to_vec(self)?).to_bytes()
    }

    /// Reads what was found, if one of `trusted` signed it.
    ///
    /// # Errors
    /// If none did, or it is no such record.
    pub fn open(bytes: &[u8], trusted: &[PublicKey]) -> Result<Self, OpenError> {
        let (payload, _) = Envelope::parse(bytes)?.open(OWNER_TYPE, trusted)?;
        serde_json::from_slice(&payload).map_err(OpenError::Parse)
    }

    /// What the record that was `found` means to this owner.
    pub fn judge(&self, found: Option<&[u8]>, trusted: &[PublicKey], takes_over: TakeOver) -> Claim {
        let Some(bytes) = found else { return Claim::Free };
        let owner = match Self::open(bytes, trusted) {
            Ok(owner) => owner,
            Err(error) => {
                return taken(
                    "one whose record this cluster's key did not sign",
                    &error.to_string(),
                    takes_over,
                );
            }
        };
        let in_words =
            format!("the tenant {} ({}) in the cluster {}", owner.tenant, owner.tenant_uid, owner.cluster);
        if owner.archive != self.archive {
            return taken(&in_words, "the record is of another archive", takes_over);
        }
        let is_here = owner.cluster == self.cluster;
        if is_here && owner.tenant_uid == self.tenant_uid {
            return Claim::Mine;
        }
        let same_database =
            owner.system_identifier.is_some() && owner.system_identifier == self.system_identifier;
        if is_here && owner.tenant == self.tenant && same_database {
            return Claim::TakenOver { from: format!("{in_words}, whose database this tenant has") };
        }
        taken(&in_words, &format!("since {}", owner.since), takes_over)
    }
}

fn taken(by: &str, why: &str, takes_over: TakeOver) -> Claim {
    let words = format!("{by} ({why})");
    match takes_over {
        TakeOver::Asked => Claim::TakenOver { from: words },
        TakeOver::NotAsked => Claim::Taken { by: words },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::archive::manifest::FORMAT;

    pub fn owner(tenant: &str, uid: &str, cluster: &str, database: Option<&str>) -> Owner {
        Owner {
            format: FORMAT,
            archive: "ada".parse().unwrap(),
            tenant: tenant.to_owned(),
            tenant_uid: uid.to_owned(),
            cluster: cluster.to_owned(),
            system_identifier: database.map(str::to_owned),
            key_id: "k".to_owned(),
            since: "2026-11-22T01:00:00Z".parse().unwrap(),
        }
    }

    fn key() -> SigningKey {
        SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap()
    }

    fn judged(me: &Owner, standing: &Owner, takes_over: TakeOver) -> Claim {
        let key = key();
        me.judge(Some(&standing.seal(&key).unwrap()), &[key.public()], takes_over)
    }

    #[test]
    fn an_archive_without_a_record_is_free_and_one_with_ours_is_ours() {
        let me = owner("ada", "u1", "c1", None);

        assert_eq!(me.judge(None, &[key().public()], TakeOver::NotAsked), Claim::Free);
        assert_eq!(judged(&me, &me, TakeOver::NotAsked), Claim::Mine);
    }

    #[test]
    fn another_tenant_s_or_another_cluster_s_archive_is_refused_until_somebody_says_otherwise() {
        let me = owner("ada", "u1", "c1", Some("7"));
        for standing in [
            owner("bo", "u2", "c1", Some("7")),
            owner("ada", "u2", "c2", Some("7")),
            owner("ada", "u1", "c2", None),
        ] {
            assert!(
                matches!(judged(&me, &standing, TakeOver::NotAsked), Claim::Taken { .. }),
                "{standing:?}"
            );
            assert!(
                matches!(judged(&me, &standing, TakeOver::Asked), Claim::TakenOver { .. }),
                "{standing:?}"
            );
        }
    }

    #[test]
    fn a_tenant_that_was_made_again_goes_on_only_with_the_same_database() {
        let before = owner("ada", "u1", "c1", Some("7"));

        assert!(matches!(
            judged(&owner("ada", "u2", "c1", Some("7")), &before, TakeOver::NotAsked),
            Claim::TakenOver { .. }
        ));
        assert!(matches!(
            judged(&owner("ada", "u2", "c1", Some("8")), &before, TakeOver::NotAsked),
            Claim::Taken { .. }
        ));
        assert!(matches!(
            judged(&owner("ada", "u2", "c1", None), &before, TakeOver::NotAsked),
            Claim::Taken { .. }
        ));
    }

    #[test]
    fn a_record_that_another_key_signed_is_another_s_whatever_it_says() {
        let me = owner("ada", "u1", "c1", None);
        let sealed = me.seal(&key()).unwrap();

        assert!(matches!(
            me.judge(Some(&sealed), &[key().public()], TakeOver::NotAsked),
            Claim::Taken { .. }
        ));
        assert!(matches!(
            me.judge(Some(b"junk"), &[key().public()], TakeOver::NotAsked),
            Claim::Taken { .. }
        ));
    }

    #[test]
    fn the_record_lies_among_the_archive_s_records() {
        assert_eq!(Owner::key(&"ada".parse().unwrap()).unwrap().to_string(), "v1/ada/records/owner.json");
    }
}
