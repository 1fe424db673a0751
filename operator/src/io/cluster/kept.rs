//! What looking after archives needs of the cluster besides what everybody does.

use kube::{Api, api::ListParams};

use super::{Cluster, Error, in_time};
use crate::lease::NotLeader;

impl Cluster {
    /// Whether this operator still leads. For what is done outside the cluster, where nothing else fences it: asked right
    /// before.
    ///
    /// # Errors
    /// If it does not.
    pub fn leads(&self) -> Result<(), NotLeader> {
        self.leadership.check()
    }

    /// The objects of `namespace` that `labels` select: all of them, if it is empty.
    ///
    /// # Errors
    /// If the API server refuses it, or does not answer.
    pub async fn list_in<K>(&self, kind: &'static str, namespace: &str, labels: &str) -> Result<Vec<K>, Error>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().labels(labels);
        Ok(in_time("list", kind, namespace, api.list(&params)).await?.items)
    }
}
