//! The key holder's only way into the cluster: reads the keys, and writes Secrets called `drill-key`.
//!
//! It writes past [`crate::io::cluster`], for it holds no Lease: what it makes has one name, and a second one that
//! makes it is refused.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions},
    core::DynamicObject,
};
use valv_crds::{
    JournalTenant, RestoreDrill,
    reference::{DRILL_LABEL, TENANT_LABEL},
};

use super::{
    Seen,
    decide::{MANAGED_BY, MANAGER, Request, elder, has_archive},
};
use crate::{
    drill::names::{KEY_FILE, KEY_PREFIX, KEY_SECRET, OBJECT_ANNOTATION},
    io::kind::Kind,
    tenant::observe::Access,
};

/// Tenants that are read at once.
const PAGE: u32 = 250;

/// The cluster refused or did not answer.
#[derive(Debug, thiserror::Error)]
#[error("failed to {doing}")]
pub struct Error {
    doing: String,
    source: Box<kube::Error>,
}

/// The keys, and the drills' namespaces.
#[derive(Clone)]
pub struct Vault {
    client: Client,
    namespace: String,
}

impl Vault {
    /// The keys in `namespace`.
    pub fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    /// Looks at the drill that restores into `namespace`.
    ///
    /// # Errors
    /// If the API server refuses or does not answer.
    pub async fn look(&self, namespace: &Namespace) -> Result<Seen, Error> {
        let mut seen = Seen::default();
        let named = namespace.annotations().get(OBJECT_ANNOTATION);
        if let Some((home, name)) = named.and_then(|named| named.split_once('/')) {
            let api = Api::<RestoreDrill>::namespaced(self.client.clone(), home);
            seen.drill = api.get_opt(name).await.map_err(failed(format!("get the drill {home}/{name}")))?;
        }
        if let Some(tenant) = namespace.labels().get(TENANT_LABEL) {
            let api = Api::<JournalTenant>::all(self.client.clone());
            seen.tenant = api.get_opt(tenant).await.map_err(failed(format!("get the tenant {tenant}")))?;
        }
        let into = namespace.name_any();
        match self.secrets(&into).get_opt(KEY_SECRET).await {
            Ok(brought) => {
                seen.access = Access::Granted;
                seen.brought = brought.map(|brought| Secret { data: None, string_data: None, ..brought });
                Ok(seen)
            }
            // The operator has not let it in: nobody asks for a key there, or not yet.
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(seen),
            Err(error) => Err(failed(format!("look for {KEY_SECRET} in {into}"))(error)),
        }
    }

    /// The oldest tenant that has `archive`.
    ///
    /// # Errors
    /// If the API server refuses or does not answer.
    pub async fn eldest(&self, archive: &str) -> Result<Option<DynamicObject>, Error> {
        // Not as its own kind: one that a newer version wrote has an archive too.
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &Kind::JournalTenant.resource());
        let mut params = ListParams::default().limit(PAGE);
        let mut eldest = None;
        loop {
            let page = api.list(&params).await.map_err(failed("list the tenants".to_owned()))?;
            let next = page.metadata.continue_.filter(|token| !token.is_empty());
            eldest = page.items.into_iter().filter(|tenant| has_archive(tenant, archive)).fold(eldest, elder);
            let Some(token) = next else { return Ok(eldest) };
            params = params.continue_token(&token);
        }
    }

    /// The key of `archive`, if there is one.
    ///
    /// # Errors
    /// If the API server refuses or does not answer.
    pub async fn key(&self, archive: &str) -> Result<Option<Secret>, Error> {
        let name = format!("{KEY_PREFIX}{archive}");
        let found = self.secrets(&self.namespace).get_opt(&name).await;
        found.map_err(failed(format!("get {name} in {}", self.namespace)))
    }

    /// Puts `identity` into `namespace`. One that is there already is left as it is.
    ///
    /// # Errors
    /// If the API server refuses or does not answer.
    pub async fn bring(
        &self,
        namespace: &Namespace,
        request: &Request,
        identity: &[u8],
    ) -> Result<(), Error> {
        let into = namespace.name_any();
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(KEY_SECRET.to_owned()),
                labels: Some(BTreeMap::from([
                    (TENANT_LABEL.to_owned(), request.tenant.clone()),
                    (DRILL_LABEL.to_owned(), request.uid.clone()),
                    (MANAGED_BY.to_owned(), MANAGER.to_owned()),
                ])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY_FILE.to_owned(), ByteString(identity.to_vec()))])),
            immutable: Some(true),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let api = self.secrets(&into);
        #[expect(clippy::disallowed_methods, reason = "it has rights of its own, and no Lease")]
        let made = api.create(&params, &secret).await;
        match made {
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            made => made.map(drop).map_err(failed(format!("bring {KEY_SECRET} to {into}"))),
        }
    }

    /// Takes the Secret that was seen away from `namespace`. One that is gone is no error.
    ///
    /// # Errors
    /// If the API server refuses or does not answer.
    pub async fn withdraw(&self, namespace: &str, brought: Option<&Secret>) -> Result<(), Error> {
        let Some(brought) = brought else { return Ok(()) };
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: brought.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        let api = self.secrets(namespace);
        #[expect(clippy::disallowed_methods, reason = "it has rights of its own, and no Lease")]
        let deleted = api.delete(KEY_SECRET, &params).await;
        match deleted {
            // Gone, or another by now; or the namespace and the way in are.
            Err(kube::Error::Api(status)) if [403, 404, 409].contains(&status.code) => Ok(()),
            deleted => deleted.map(drop).map_err(failed(format!("take {KEY_SECRET} from {namespace}"))),
        }
    }

    fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

fn failed(doing: String) -> impl FnOnce(kube::Error) -> Error {
    |source| Error { doing, source: Box::new(source) }
}
