//! The cluster that tests run on.

use std::collections::BTreeMap;
use std::env::var_os;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use valv_cluster::{Cluster, Target};

use crate::actor::Actor;
use crate::audit::Audit;
use crate::ownership::refuse_somebody_elses;

/// On a cluster that is not the local one: a file with `{"valv": "registry/…", "journal-1": …}`.
const IMAGES_VARIABLE: &str = "VALV_IMAGES";

/// Whether the rest of the tests can count on it: the local cluster, or the one that `KUBECONFIG` names.
pub struct World {
    target: Target,
    config: Config,
    images: BTreeMap<String, String>,
    /// The administrator.
    pub admin: Actor,
}

impl World {
    /// The cluster, if all of it is well.
    ///
    /// # Errors
    /// If it is not up, or a part of it is not: says which, and how to bring it up. If it is not the local one
    /// and somebody else uses Valv there.
    pub async fn open() -> Result<Self> {
        // Fails where somebody chose before: the choice is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let target = Target::from_env()?;
        let images = match &target {
            Target::Local(cluster) => cluster.images()?,
            Target::Foreign { .. } => foreign_images()?,
        };
        let kubeconfig = Kubeconfig::read_from(target.kubeconfig())?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        let admin = Actor::new(Client::try_from(config.clone())?);
        let world = Self { target, config, images, admin };
        world.check().await?;
        if world.local().is_none() {
            refuse_somebody_elses(&world.admin).await?;
        }
        Ok(world)
    }

    /// Fails unless every part of the local cluster runs: names the one that does not, with the end of its log.
    pub async fn check(&self) -> Result<()> {
        let Some(cluster) = self.local().cloned() else { return Ok(()) };
        tokio::task::spawn_blocking(move || cluster.check()).await?
    }

    /// The local cluster: absent if the tests run on another, whose nodes and audit log they cannot reach.
    pub fn local(&self) -> Option<&Cluster> {
        match &self.target {
            Target::Local(cluster) => Some(cluster),
            Target::Foreign { .. } => None,
        }
    }

    /// The kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.target.kubeconfig()
    }

    /// What was asked of the API server; absent on a cluster whose log cannot be reached.
    pub fn audit(&self) -> Option<Audit> {
        self.local().map(|cluster| Audit::of(cluster.audit_log()))
    }

    /// The reference of an image: `valv`, `postgres`, `journal-1` ….
    pub fn image(&self, name: &str) -> Result<&str> {
        let found = self.images.get(name).map(String::as_str);
        found.with_context(|| format!("the cluster has no image {name}: it has {:?}", self.images.keys()))
    }

    pub(crate) fn images(&self) -> &BTreeMap<String, String> {
        &self.images
    }

    /// Whoever has `token`, and nothing else.
    pub fn with_token(&self, token: &str) -> Result<Actor> {
        self.acting(AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() })
    }

    /// Whoever has `token`, and says to be somebody else.
    pub fn with_token_as(&self, token: &str, other: &str) -> Result<Actor> {
        let token = Some(token.to_owned().into());
        self.acting(AuthInfo { token, impersonate: Some(other.to_owned()), ..AuthInfo::default() })
    }

    /// A service account, in the administrator's words.
    pub fn as_service_account(&self, namespace: &str, account: &str) -> Result<Actor> {
        let mut auth = self.config.auth_info.clone();
        auth.impersonate = Some(format!("system:serviceaccount:{namespace}:{account}"));
        auth.impersonate_groups = Some(vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ]);
        self.acting(auth)
    }

    fn acting(&self, auth_info: AuthInfo) -> Result<Actor> {
        let mut config = self.config.clone();
        config.auth_info = auth_info;
        Ok(Actor::new(Client::try_from(config)?))
    }
}

fn foreign_images() -> Result<BTreeMap<String, String>> {
    let file = var_os(IMAGES_VARIABLE).map(PathBuf::from).with_context(|| {
        format!(
            "on a cluster of your own, {IMAGES_VARIABLE} names a file with the images' references as JSON: \
             {{\"valv\": \"registry/…\", \"postgres\": …, \"haproxy\": …, \"journal-1\": …}}"
        )
    })?;
    let text = fs::read(&file).with_context(|| format!("failed to read {}", file.display()))?;
    Ok(serde_json::from_slice(&text)?)
}
