//! The kinds of objects that Valv makes, by the name that the API has for them.

use kube::core::ApiResource;

/// A kind that Valv makes in a tenant's namespace.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// `valv.eu/v1alpha1` `JournalTenant`: not made, but its status and finalizer are written.
    JournalTenant,
    /// `valv.eu/v1alpha1` `BackupPolicy`: its status is written.
    BackupPolicy,
    /// `valv.eu/v1alpha1` `Backup`: its status is written.
    Backup,
    /// `valv.eu/v1alpha1` `RestoreDrill`: its status and finalizer are written.
    RestoreDrill,
    /// `valv.eu/v1alpha1` `BackupStore`: not made, but its status is written.
    BackupStore,
    /// `v1` `Namespace`.
    Namespace,
    /// `rbac.authorization.k8s.io/v1` `RoleBinding`.
    RoleBinding,
    /// `v1` `ResourceQuota`.
    ResourceQuota,
    /// `v1` `LimitRange`.
    LimitRange,
    /// `networking.k8s.io/v1` `NetworkPolicy`.
    NetworkPolicy,
    /// `v1` `ServiceAccount`.
    ServiceAccount,
    /// `v1` `ConfigMap`.
    ConfigMap,
    /// `v1` `Secret`. Never watched: read in a tenant's namespace when it is reconciled.
    Secret,
    /// `v1` `PersistentVolumeClaim`.
    PersistentVolumeClaim,
    /// `v1` `Service`.
    Service,
    /// `policy/v1` `PodDisruptionBudget`.
    PodDisruptionBudget,
    /// `apps/v1` `StatefulSet`.
    StatefulSet,
    /// `apps/v1` `Deployment`.
    Deployment,
    /// `apps/v1` `ReplicaSet`. Made by Deployments; asked for where it counts whose pod one is.
    ReplicaSet,
    /// `batch/v1` `Job`.
    Job,
    /// `v1` `Pod`. Made by the others; watched for what it says.
    Pod,
    /// `networking.k8s.io/v1` `Ingress`.
    Ingress,
    /// `gateway.networking.k8s.io/v1` `HTTPRoute`.
    HttpRoute,
    /// `gateway.networking.k8s.io/v1` `BackendTLSPolicy`.
    BackendTlsPolicy,
}

impl Kind {
    /// Kinds that every cluster has and the cache watches.
    pub const WATCHED: [Self; 15] = [
        Self::Namespace,
        Self::RoleBinding,
        Self::ResourceQuota,
        Self::LimitRange,
        Self::NetworkPolicy,
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::PersistentVolumeClaim,
        Self::Service,
        Self::PodDisruptionBudget,
        Self::StatefulSet,
        Self::Deployment,
        Self::Job,
        Self::Pod,
        Self::Ingress,
    ];

    /// Kinds of the Gateway API, which a cluster may lack.
    pub const GATEWAY: [Self; 2] = [Self::HttpRoute, Self::BackendTlsPolicy];

    /// Group, version, kind and plural.
    fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::JournalTenant => ("valv.eu", "v1alpha1", "JournalTenant", "journaltenants"),
            Self::BackupPolicy => ("valv.eu", "v1alpha1", "BackupPolicy", "backuppolicies"),
            Self::Backup => ("valv.eu", "v1alpha1", "Backup", "backups"),
            Self::RestoreDrill => ("valv.eu", "v1alpha1", "RestoreDrill", "restoredrills"),
            Self::BackupStore => ("valv.eu", "v1alpha1", "BackupStore", "backupstores"),
            Self::Namespace => ("", "v1", "Namespace", "namespaces"),
            Self::RoleBinding => ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
            Self::ResourceQuota => ("", "v1", "ResourceQuota", "resourcequotas"),
            Self::LimitRange => ("", "v1", "LimitRange", "limitranges"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Self::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
            Self::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Self::Secret => ("", "v1", "Secret", "secrets"),
            Self::PersistentVolumeClaim => ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::PodDisruptionBudget => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::StatefulSet => ("apps", "v1", "StatefulSet", "statefulsets"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::ReplicaSet => ("apps", "v1", "ReplicaSet", "replicasets"),
            Self::Job => ("batch", "v1", "Job", "jobs"),
            Self::Pod => ("", "v1", "Pod", "pods"),
            Self::Ingress => ("networking.k8s.io", "v1", "Ingress", "ingresses"),
            Self::HttpRoute => ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Self::BackendTlsPolicy => {
                ("gateway.networking.k8s.io", "v1", "BackendTLSPolicy", "backendtlspolicies")
            }
        }
    }

    /// `kind`, as it stands in the object.
    pub fn as_str(self) -> &'static str {
        self.names().2
    }

    /// `apiVersion`, as it stands in the object.
    pub fn api_version(self) -> String {
        let (group, version, _, _) = self.names();
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
    }

    /// What a dynamic client needs to know.
    pub fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = self.names();
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: self.api_version(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// An object of a tenant: its kind and its name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// Kind.
    pub kind: Kind,
    /// Name in the tenant's namespace, or of the namespace itself.
    pub name: String,
}

impl Key {
    /// The key of `kind` `name`.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.kind, self.name)
    }
}
