//! The API server, asked as the person who runs the command. The only place of the plugin that asks, or writes.

use std::{fmt::Debug, io, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Client, Config, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ClusterResourceScope, DeserializeGuard, NamespaceResourceScope},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use valv_crds::{JournalTenant, reference::NAMESPACE_PREFIX};

use super::Connection;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Objects that are asked for at once: a list of ten thousand is no one answer.
const PAGE: u32 = 500;

/// Owner of the fields that people set by the plugin.
const FIELD_MANAGER: &str = "kubectl-valv";

/// It could not be asked, or not be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to the cluster.
    #[error(
        "failed to find the cluster: give --kubeconfig FILE or --context NAME, as `kubectl config get-contexts` lists them"
    )]
    Kubeconfig(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The API server refused, or did not answer.
    #[error("failed to {verb} {what}: {next}")]
    Ask {
        /// What was being done.
        verb: &'static str,
        /// To what.
        what: String,
        /// What to do next.
        next: &'static str,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// What was asked for is not there.
    #[error("there is no {what}: {next}")]
    NotThere {
        /// What.
        what: String,
        /// What to do next.
        next: String,
    },
    /// An object is of another shape.
    #[error("failed to read {what}: it was written by a newer version of Valv; use that version's plugin")]
    Unreadable {
        /// Which.
        what: String,
    },
    /// Somebody pressed Ctrl-C.
    #[error("interrupted; what was asked for goes on in the cluster")]
    Interrupted,
    /// Standard input could not be read.
    #[error("failed to read standard input")]
    Read(#[source] io::Error),
    /// Nobody takes what is printed.
    #[error("failed to print")]
    Print(#[source] io::Error),
}

impl Error {
    /// Whether the API server knows no such kind.
    fn is_unknown_kind(&self) -> bool {
        let Self::Ask { source, .. } = self else { return false };
        matches!(source.as_ref(), kube::Error::Api(status) if status.code == 404)
    }

    /// Whether the same may succeed a moment later.
    pub fn is_passing(&self) -> bool {
        let Self::Ask { source, .. } = self else { return false };
        !matches!(source.as_ref(), kube::Error::Api(status) if status.code < 429)
    }
}

/// Objects of one kind.
#[derive(Clone, Debug)]
pub struct Listed<K> {
    /// Those that could be read.
    pub items: Vec<K>,
    /// Names of those that could not: a newer version wrote them.
    pub unreadable: Vec<String>,
}

impl<K> Default for Listed<K> {
    fn default() -> Self {
        Self { items: vec![], unreadable: vec![] }
    }
}

/// The API server.
#[derive(Clone)]
pub struct Api {
    client: Client,
}

impl Api {
    /// The API server that `connection` leads to. Asks it nothing yet.
    ///
    /// # Errors
    /// [`Error::Kubeconfig`].
    pub async fn connect(connection: &Connection) -> Result<Self, Error> {
        let lost = |source: Box<dyn std::error::Error + Send + Sync>| Error::Kubeconfig(source);
        let options =
            KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match (&connection.kubeconfig, &connection.context) {
            (Some(path), _) => {
                let file = Kubeconfig::read_from(path).map_err(|error| lost(error.into()))?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(|error| lost(error.into()))?
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| lost(error.into()))?,
            (None, None) => Config::infer().await.map_err(|error| lost(error.into()))?,
        };
        // A request to make a backup that is sent twice makes two.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        Client::try_from(config).map(Self::new).map_err(|error| lost(error.into()))
    }

    /// The API server behind `client`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// All objects of a kind that has no namespace.
    pub async fn all<K>(&self) -> Result<Listed<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.list(kube::Api::all(self.client.clone()), "the cluster").await
    }

    /// All objects of a kind in the namespace of `tenant`, or in all if there is none.
    pub async fn of<K>(&self, tenant: Option<&str>) -> Result<Listed<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        match tenant {
            Some(tenant) => {
                let namespace = namespace(tenant);
                self.list(kube::Api::namespaced(self.client.clone(), &namespace), &namespace).await
            }
            None => self.list(kube::Api::all(self.client.clone()), "all namespaces").await,
        }
    }

    /// As [`of`](Self::of); nothing, where the cluster has not that kind.
    pub async fn of_if_served<K>(&self, tenant: Option<&str>) -> Result<Listed<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        match self.of(tenant).await {
            Err(error) if error.is_unknown_kind() => Ok(Listed::default()),
            other => other,
        }
    }

    async fn list<K>(&self, api: kube::Api<DeserializeGuard<K>>, place: &str) -> Result<Listed<K>, Error>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let what = format!("{} in {place}", K::plural(&()));
        let mut listed = Listed::default();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&params).await.map_err(|source| asked("list", what.clone(), source))?;
            for object in page.items {
                match object.0 {
                    Ok(object) => listed.items.push(object),
                    Err(invalid) => {
                        listed.unreadable.push(invalid.metadata.name.unwrap_or_default());
                    }
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(listed),
            }
        }
    }

    /// The tenant called `name`.
    ///
    /// # Errors
    /// [`Error::NotThere`] with what to do next.
    pub async fn tenant(&self, name: &str) -> Result<JournalTenant, Error> {
        let api = kube::Api::<DeserializeGuard<JournalTenant>>::all(self.client.clone());
        let what = format!("JournalTenant {name}");
        let found = api.get_opt(name).await.map_err(|source| asked("get", what.clone(), source))?;
        let next = "`kubectl get journaltenants` lists those that there are".to_owned();
        found.ok_or(Error::NotThere { what: what.clone(), next })?.0.map_err(|_| Error::Unreadable { what })
    }

    /// One object in the namespace of `tenant`; absent: it is not there.
    pub async fn find<K>(&self, tenant: &str, name: &str) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let namespace = namespace(tenant);
        let what = format!("{} {namespace}/{name}", K::kind(&()));
        let api = kube::Api::<DeserializeGuard<K>>::namespaced(self.client.clone(), &namespace);
        let found = api.get_opt(name).await.map_err(|source| asked("get", what.clone(), source))?;
        found.map(|object| object.0.map_err(|_| Error::Unreadable { what })).transpose()
    }

    /// Makes `object` in the namespace of `tenant`; says its name.
    pub async fn create<K>(&self, tenant: &str, object: &K) -> Result<String, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let namespace = namespace(tenant);
        let api = kube::Api::<K>::namespaced(self.client.clone(), &namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let what = format!("a {} in {namespace}", K::kind(&()));
        #[expect(clippy::disallowed_methods, reason = "a person makes it, and not the operator")]
        let made = api.create(&params, object).await;
        made.map(|object| object.name_any()).map_err(|source| asked("make", what, source))
    }

    /// Sets an annotation on `object`, in the version that was read.
    pub async fn annotate(
        &self,
        tenant: &str,
        object: &ConfigMap,
        annotation: &str,
        value: &str,
    ) -> Result<(), Error> {
        let (name, namespace) = (object.name_any(), namespace(tenant));
        let api = kube::Api::<ConfigMap>::namespaced(self.client.clone(), &namespace);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let what = format!("ConfigMap {namespace}/{name}");
        let patch = Patch::Merge(json!({ "metadata": {
            "resourceVersion": object.resource_version(), "annotations": { annotation: value },
        }}));
        #[expect(clippy::disallowed_methods, reason = "a person answers, and not the operator")]
        let annotated = api.patch(&name, &params, &patch).await;
        annotated.map(drop).map_err(|source| asked("answer on", what, source))
    }

    /// Sets `spec.cancel` of `name` in the namespace of `tenant`.
    pub async fn cancel<K>(&self, tenant: &str, name: &str) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let namespace = namespace(tenant);
        let api = kube::Api::<K>::namespaced(self.client.clone(), &namespace);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let what = format!("{} {namespace}/{name}", K::kind(&()));
        let patch = Patch::Merge(json!({ "spec": { "cancel": true } }));
        #[expect(clippy::disallowed_methods, reason = "a person cancels it, and not the operator")]
        let cancelled = api.patch(name, &params, &patch).await;
        cancelled.map(drop).map_err(|source| asked("cancel", what, source))
    }
}

/// The namespace of `tenant`.
pub fn namespace(tenant: &str) -> String {
    format!("{NAMESPACE_PREFIX}{tenant}")
}

fn asked(verb: &'static str, what: String, source: kube::Error) -> Error {
    Error::Ask { verb, what, next: next(&source), source: Box::new(source) }
}

/// What a person can do about it.
fn next(error: &kube::Error) -> &'static str {
    let kube::Error::Api(status) = error else {
        return "the API server did not answer; is this the right context (`kubectl config current-context`), and can you reach it?";
    };
    match status.code {
        401 => "the cluster does not know you; log in again",
        403 => {
            "you may not; ask for the ClusterRole valv-auditor to read, or valv-edit to make and cancel (docs/operations/people.md)"
        }
        404 => {
            "the cluster does not have it; is Valv installed (`kubectl api-resources --api-group=valv.eu`), and is this the right context?"
        }
        409 => "somebody else did so at the same moment; look, and try again",
        422 => "the API server refuses it; its words follow",
        _ => "the API server failed; try again, and look at its health if it lasts",
    }
}
