//! Whether the archive that is drilled is this tenant's. [`rival`] and [`claim`] are pure, [`ask`] reads the store.
//!
//! An archive's id is free text, and the recipient of a tenant's drill key is public: without this a second tenant that
//! names another's archive would have that one's patients restored into a journal of its own.

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use valv_crds::{JournalTenant, reference::TAKE_OVER_ARCHIVE_ANNOTATION};

use super::catalogue::Trouble;
use crate::{
    archive::{Archive, envelope::PublicKey, fetch, layout::ArchiveId, manifest::FORMAT},
    backup::{
        observe::eldest,
        owner::{Claim, LIMIT_BYTES, Owner, TakeOver},
    },
    error::chain,
    io::{
        bucket::{self, Bucket},
        cluster::{Cluster, Error},
    },
    tenant::check::Tenant,
};

/// An older tenant among `tenants` that has the archive of `tenant`.
pub fn rival<'a>(tenant: &Tenant, tenants: impl Iterator<Item = &'a JournalTenant>) -> Option<String> {
    eldest(tenants).remove(tenant.archive_id()).filter(|eldest| *eldest != tenant.name)
}

/// What `tenant` would be as the owner of `archive`.
pub fn owner(tenant: &Tenant, archive: &ArchiveId, cluster: String) -> Owner {
    let status = tenant.object.status.as_ref();
    Owner {
        format: FORMAT,
        archive: archive.clone(),
        tenant: tenant.name.clone(),
        tenant_uid: tenant.object.uid().unwrap_or_default(),
        cluster,
        system_identifier: status.and_then(|status| status.database.system_identifier.clone()),
        key_id: String::new(),
        // Neither is judged.
        since: jiff::Timestamp::UNIX_EPOCH,
    }
}

/// What the record that was `found` means to `me`, who is `tenant`: as its backups would judge it.
pub fn claim(me: &Owner, tenant: &Tenant, found: Option<&[u8]>, trusted: &[PublicKey]) -> Claim {
    let asked = tenant.object.annotations().get(TAKE_OVER_ARCHIVE_ANNOTATION);
    let takes_over = if asked.is_some_and(|named| *named == me.archive.to_string()) {
        TakeOver::Asked
    } else {
        TakeOver::NotAsked
    };
    me.judge(found, trusted, takes_over)
}

/// What tells this cluster from others.
///
/// # Errors
/// If the API server refuses or does not answer.
pub async fn cluster_id(cluster: &Cluster) -> Result<String, Error> {
    let found = cluster.get_cluster_scoped::<Namespace>("Namespace", "kube-system").await?;
    Ok(found.and_then(|found| found.uid()).unwrap_or_default())
}

/// Whose the archive is, by the record in the bucket of `settings`.
///
/// # Errors
/// If the store did not say.
pub async fn ask(
    settings: &bucket::Settings,
    me: &Owner,
    tenant: &Tenant,
    trusted: &[PublicKey],
) -> Result<Claim, Trouble> {
    let bucket = Bucket::open(settings).map_err(|error| Trouble::unavailable(chain(&error)))?;
    let reader = Archive::new(bucket, fetch::Options::default());
    let key = Owner::key(&me.archive).map(|key| key.to_string()).unwrap_or_default();
    let found = reader.latest_document(&key, LIMIT_BYTES).await;
    let found = found.map_err(|error| {
        let doing = format!("failed to read whose the archive {} is", me.archive);
        if let fetch::Error::Store(error) = &error {
            return Trouble::of(error, &doing);
        }
        Trouble::unavailable(format!("{doing}: {}", chain(&error)))
    })?;
    Ok(claim(me, tenant, found.as_ref().map(|found| found.bytes.as_slice()), trusted))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::archive::envelope::SigningKey;

    fn object(name: &str, uid: &str, created: &str, archive: Option<&str>) -> Value {
        json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant",
            "metadata": { "name": name, "uid": uid, "creationTimestamp": created },
            "spec": { "host": "h", "journal": { "image": "r.example/j:1" }, "database": { "size": "1Gi" },
                "archiveID": archive },
        })
    }

    fn tenant(value: Value) -> Tenant {
        crate::tenant::check::check(Arc::new(serde_json::from_value(value).unwrap())).unwrap()
    }

    #[test]
    fn a_younger_tenant_with_anothers_archive_has_a_rival() {
        let ada = object("ada", "u1", "2026-03-01T00:00:00Z", None);
        let eve = object("eve", "u2", "2026-04-01T00:00:00Z", Some("ada"));
        let all: Vec<JournalTenant> =
            [&ada, &eve].map(|value| serde_json::from_value(value.clone()).unwrap()).into();

        assert_eq!(rival(&tenant(eve), all.iter()), Some("ada".to_owned()));
        assert_eq!(rival(&tenant(ada), all.iter()), None);
    }

    #[test]
    fn an_archive_whose_record_is_anothers_is_taken_until_a_person_says_otherwise() {
        let key = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
        let archive: ArchiveId = "ada".parse().unwrap();
        let ada = tenant(object("ada", "u1", "2026-03-01T00:00:00Z", None));
        let mut value = object("eve", "u2", "2026-04-01T00:00:00Z", Some("ada"));
        let eve = tenant(value.clone());
        let record = owner(&ada, &archive, "c1".into()).seal(&key).unwrap();
        let claim_of = |tenant: &Tenant| {
            claim(&owner(tenant, &archive, "c1".into()), tenant, Some(&record), &[key.public()])
        };

        assert_eq!(claim_of(&ada), Claim::Mine);
        assert!(matches!(claim_of(&eve), Claim::Taken { .. }));
        value["metadata"]["annotations"] = json!({ TAKE_OVER_ARCHIVE_ANNOTATION: "ada" });
        assert!(matches!(claim_of(&tenant(value)), Claim::TakenOver { .. }));
    }
}
