//! Somebody who acts on the cluster: the administrator, the operator's token, a tenant's account.
//!
//! The only place of the harness that writes objects.

use std::fmt::Debug;

use anyhow::{Context, Result, bail};
use kube::api::{DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::Serialize;
use serde_json::Value;

use crate::kind::Kind;

/// Owner of the fields that tests set, as `kubectl` would be of a user's.
const FIELD_MANAGER: &str = "e2e";

/// Somebody who acts on the cluster.
#[derive(Clone)]
pub struct Actor {
    client: Client,
}

/// How a change is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// RFC 7386: a list is replaced as a whole.
    Merge(&'a Value),
    /// As `kubectl patch` does: elements of a list are found by name.
    Strategic(&'a Value),
}

/// How much time a pod has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// As long as its spec gives it.
    Usual,
    /// None, like a node that is gone.
    None,
}

impl Actor {
    /// Whoever `client` is.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The object, if it is there.
    pub async fn find(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Value>> {
        let found = self.api(kind, namespace).get_opt(name).await?;
        found.map(|object| Ok(serde_json::to_value(object)?)).transpose()
    }

    /// The object, which is there.
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Value> {
        let found = self.find(kind, namespace, name).await?;
        found.with_context(|| format!("{} {namespace}/{name} is not there", kind.name))
    }

    /// Objects with these labels, `a=b,c=d`; all if there are none.
    pub async fn list(&self, kind: Kind, namespace: &str, labels: &str) -> Result<Vec<Value>> {
        let found = self.api(kind, namespace).list(&ListParams::default().labels(labels)).await?;
        found.items.into_iter().map(|object| Ok(serde_json::to_value(object)?)).collect()
    }

    /// Creates what must not be there.
    pub async fn create(&self, kind: Kind, namespace: &str, object: Value) -> Result<Value> {
        let object: DynamicObject = serde_json::from_value(object)?;
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let created = self.api(kind, namespace).create(&PostParams::default(), &object).await?;
        Ok(serde_json::to_value(created)?)
    }

    /// `kubectl apply --server-side`: a field that the schema does not know is refused.
    pub async fn apply(&self, kind: Kind, namespace: &str, object: &Value) -> Result<Value> {
        let name = object["metadata"]["name"].as_str().context("a manifest has a name")?;
        let params = PatchParams::apply(FIELD_MANAGER).force().validation_strict();
        self.patch(kind, namespace, name, &params, &Patch::Apply(object)).await
    }

    /// Changes a part of an object.
    pub async fn change(&self, kind: Kind, namespace: &str, name: &str, change: Change<'_>) -> Result<Value> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match change {
            Change::Merge(part) => self.patch(kind, namespace, name, &params, &Patch::Merge(part)).await,
            Change::Strategic(part) => {
                self.patch(kind, namespace, name, &params, &Patch::Strategic(part)).await
            }
        }
    }

    /// Changes the status of an object of the cluster.
    pub async fn change_status(&self, kind: Kind, name: &str, change: &Value) -> Result<Value> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patched = self.api(kind, "").patch_status(name, &params, &Patch::Merge(change)).await?;
        Ok(serde_json::to_value(patched)?)
    }

    /// Deletes an object, as `kubectl delete` does: what belongs to it goes after it.
    pub async fn delete(&self, kind: Kind, namespace: &str, name: &str, grace: Grace) -> Result<()> {
        let params = match grace {
            Grace::Usual => DeleteParams::background(),
            Grace::None => DeleteParams::background().grace_period(0),
        };
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let deleted = self.api(kind, namespace).delete(name, &params).await;
        Ok(deleted.map(drop)?)
    }

    /// Asks a pod to leave its node, as a drain does: refused where its disruption budget says no.
    pub async fn evict(&self, namespace: &str, pod: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
        let body = serde_json::json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod, "namespace": namespace },
        });
        let request = http::Request::post(path).header("content-type", "application/json");
        Ok(self.client.request::<Value>(request.body(serde_json::to_vec(&body)?)?).await.map(drop)?)
    }

    /// What a container wrote. `previous` is that of the container before a restart.
    pub async fn log(&self, namespace: &str, pod: &str, container: &str, which: Run) -> Result<String> {
        let params = LogParams {
            container: Some(container.to_owned()),
            previous: which == Run::Previous,
            ..LogParams::default()
        };
        let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(self.client.clone(), namespace);
        Ok(pods.logs(pod, &params).await?)
    }

    /// A token of a service account, as the kubelet would get one, for ten minutes.
    pub async fn token(&self, namespace: &str, account: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let body = serde_json::json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 600 },
        });
        let request = http::Request::post(path).header("content-type", "application/json");
        let answer: Value = self.client.request(request.body(serde_json::to_vec(&body)?)?).await?;
        let token = answer["status"]["token"].as_str().context("the API server gave no token")?;
        Ok(token.to_owned())
    }

    /// The answer to a bare GET, through the API server: `/api/v1/namespaces/…/pods/…:8080/proxy/metrics`.
    pub async fn text(&self, path: &str) -> Result<String> {
        Ok(self.client.request_text(http::Request::get(path).body(vec![])?).await?)
    }

    fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        let resource = kind.resource();
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        }
    }

    async fn patch<P: Serialize + Debug>(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> Result<Value> {
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let patched = self.api(kind, namespace).patch(name, params, patch).await?;
        Ok(serde_json::to_value(patched)?)
    }
}

/// Whether a request failed because there is no such object, or no such kind.
pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if status.code == 404)
}

/// Which run of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// The one that runs, or ran last.
    Current,
    /// The one before it.
    Previous,
}

/// The words with which the API server refused.
///
/// # Errors
/// If it did not refuse, or did not answer.
pub fn refusal<T>(answer: Result<T>) -> Result<String> {
    let Err(error) = answer else { bail!("the API server took what it should refuse") };
    match error.downcast::<kube::Error>() {
        Ok(kube::Error::Api(status)) if (400..500).contains(&status.code) => Ok(status.message.clone()),
        // With these words, but as 500, server-side apply refuses a field that there is not.
        Ok(kube::Error::Api(status)) if status.message.contains("field not declared in schema") => {
            Ok(status.message.clone())
        }
        Ok(error) => bail!("the API server did not refuse, it failed: {error}"),
        Err(error) => Err(error),
    }
}
